//! The public key inside an endorsement certificate, as far as needed to compare it with the TPM's. RFC 5280, 4.1.
//!
//! Refuses: indefinite and over-long lengths. Does not verify the certificate: that is the registrar's part, who knows
//! the manufacturers' roots.

const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;
const VERSION: u8 = 0xa0;

/// One DER element at the front of some bytes.
struct Element<'a> {
    tag: u8,
    content: &'a [u8],
    whole: &'a [u8],
    rest: &'a [u8],
}

fn element(bytes: &[u8]) -> Option<Element<'_>> {
    let (&tag, after) = bytes.split_first()?;
    let (&first, after) = after.split_first()?;
    let (len, header) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81..=0x83 => {
            let digits = after.get(..usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), 2 + digits.len())
        }
        _ => return None,
    };
    let whole = bytes.get(..header + len)?;
    Some(Element { tag, content: &whole[header..], whole, rest: &bytes[header + len..] })
}

fn expect(bytes: &[u8], tag: u8) -> Option<Element<'_>> {
    element(bytes).filter(|element| element.tag == tag)
}

/// The certificate without what NV padding follows it.
pub(super) fn trim(nv: &[u8]) -> Option<&[u8]> {
    expect(nv, SEQUENCE).map(|certificate| certificate.whole)
}

/// Longest certificate of a chain in bytes.
const BYTES_MAX: usize = 4_096;

/// The certificates at the front of a text of certificates, at most `most`; padding or anything else ends it.
pub(super) fn split(text: &[u8], most: usize) -> Vec<Vec<u8>> {
    let mut rest = text;
    let mut found = Vec::new();
    while found.len() < most
        && let Some(certificate) = expect(rest, SEQUENCE)
        && certificate.whole.len() <= BYTES_MAX
        && spki(certificate.whole).is_some()
    {
        found.push(certificate.whole.to_vec());
        rest = certificate.rest;
    }
    found
}

/// The SubjectPublicKeyInfo of a certificate.
pub(super) fn spki(certificate: &[u8]) -> Option<&[u8]> {
    let certificate = expect(certificate, SEQUENCE)?;
    let mut rest = expect(certificate.content, SEQUENCE)?.content;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.rest;
    }
    // serial number, signature algorithm, issuer, validity, subject
    for _ in 0..5 {
        rest = element(rest)?.rest;
    }
    expect(rest, SEQUENCE).map(|spki| spki.whole)
}

/// The subjectPublicKey bits of a SubjectPublicKeyInfo.
///
/// The algorithm before them is left out on purpose: older RSA endorsement certificates name it id-RSAES-OAEP.
pub(super) fn public_key(spki: &[u8]) -> Option<&[u8]> {
    let spki = expect(spki, SEQUENCE)?;
    let algorithm = expect(spki.content, SEQUENCE)?;
    expect(algorithm.rest, BIT_STRING).map(|bits| bits.content)
}

//! The common name in the subject of a client certificate.
//!
//! Only called on certificates that rustls has verified; still reads strictly and answers `None` to anything
//! unexpected. Refuses to choose: a subject with several common names has none.

/// Object identifier 2.5.4.3, commonName.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// `[0] EXPLICIT`, the certificate's version.
const VERSION: u8 = 0xa0;

/// The only common name of the subject of a DER certificate, when it is UTF-8 or ASCII text.
pub fn common_name(certificate: &[u8]) -> Option<&str> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // serialNumber, signature, issuer, validity; then the subject.
    for _ in 0..4 {
        rest = element(rest)?.2;
    }
    let (mut names, _) = expect(rest, SEQUENCE)?;
    let mut found = None;
    while !names.is_empty() {
        let (mut set, after) = expect(names, SET)?;
        names = after;
        while !set.is_empty() {
            let (attribute, after) = expect(set, SEQUENCE)?;
            set = after;
            let (kind, value) = expect(attribute, OBJECT_IDENTIFIER)?;
            if kind != COMMON_NAME {
                continue;
            }
            let (tag, text, end) = element(value)?;
            // UTF8String, PrintableString, IA5String.
            if !matches!(tag, 0x0c | 0x13 | 0x16) || !end.is_empty() || found.is_some() {
                return None;
            }
            found = Some(std::str::from_utf8(text).ok()?);
        }
    }
    found
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = element(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// Tag, content and what follows. DER lengths up to two bytes suffice for a certificate.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&[length], rest) = rest.split_first_chunk::<1>()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::common_name;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    fn certificate(names: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_common_name_is_found_among_others() {
        let one = certificate(&[
            (DnType::OrganizationName, "bank"),
            (DnType::CommonName, "mfp-1.bank.example"),
            (DnType::CountryName, "AT"),
        ]);
        assert_eq!(common_name(&one), Some("mfp-1.bank.example"));
        assert_eq!(common_name(&certificate(&[(DnType::OrganizationName, "bank")])), None);
        assert_eq!(common_name(&certificate(&[])), None);
    }

    #[test]
    fn cut_certificates_have_none_and_do_not_panic() {
        let whole = certificate(&[(DnType::CommonName, "x")]);
        for length in 0..whole.len() {
            assert_eq!(common_name(&whole[..length]), None);
        }
    }
}

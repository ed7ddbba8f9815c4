//! Takes a `.seal` apart into files that other people's tools read: DER, SubjectPublicKeyInfo, signed messages and
//! their signatures, TPM structures.
//!
//! Refuses to do: judge; overwrite files that are there.
//! `docs/formats.md` shows the openssl commands that check the parts.

use bulla_formats::body::anchor::{AnchorBody, Evidence, imprint_input};
use bulla_formats::body::key_epoch::{Endorsement, KeyEpochBody};
use bulla_formats::body::seal::SealBody;
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::entry::Entry;
use bulla_formats::note::{SignatureLine, SignedNote, ed25519_key_id, quote_key_id};
use bulla_formats::seal_file::SealFile;
use bulla_formats::sig::Algorithm;
use bulla_formats::tpm::{TpmtPublic, TpmtSignature};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

/// SubjectPublicKeyInfo up to the 32 bytes of an Ed25519 key (RFC 8410).
const ED25519_SPKI: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SubjectPublicKeyInfo up to the 65 bytes of a P-256 point (RFC 5480).
const P256_SPKI: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Writes the parts into `directory`, which is made if need be; returns how many files that were.
pub fn write(seal: &SealFile, directory: &Path) -> io::Result<usize> {
    fs::create_dir_all(directory)?;
    let parts = parts(seal);
    for (name, bytes) in &parts {
        let mut file = OpenOptions::new().write(true).create_new(true).open(directory.join(name))?;
        file.write_all(bytes)?;
    }
    Ok(parts.len())
}

/// TPMS_ATTEST and TPMT_SIGNATURE of a line that has the shape of a quote line.
pub fn quote_of(line: &SignatureLine) -> Option<(Vec<u8>, Vec<u8>)> {
    let rest = line.body.strip_prefix(&[1u8])?;
    let sized = |bytes: &[u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let (length, rest) = bytes.split_first_chunk::<2>()?;
        let (part, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        Some((part.to_vec(), rest.to_vec()))
    };
    let (attest, rest) = sized(rest)?;
    let (signature, rest) = sized(&rest)?;
    rest.is_empty().then_some((attest, signature))
}

/// Names and bytes of files.
pub type Parts = Vec<(String, Vec<u8>)>;

/// The files that a `.seal` is taken apart into.
pub fn parts(seal: &SealFile) -> Parts {
    let mut parts: Parts = vec![
        ("token.der".into(), seal.entry.clone()),
        ("epoch.der".into(), seal.epoch.clone()),
        ("enrolment.der".into(), seal.enrolment.clone()),
    ];
    let mut put = |name: &str, bytes: Vec<u8>| parts.push((name.to_owned(), bytes));
    let mut algorithm = None;
    if let Ok(epoch) = Entry::decode(&seal.epoch) {
        put("epoch.message", epoch.content().message(&seal.origin));
        put("epoch.signature", epoch.signature().to_vec());
        if let Ok(body) = KeyEpochBody::decode(&epoch.content().body) {
            let key = body.statement.sealing_key();
            algorithm = Some(key.algorithm);
            put("sealing-key.spki.der", spki(key.algorithm, &key.public_key));
            put("epoch.qualifying", body.statement.qualifying_data().0.to_vec());
            match &body.endorsement {
                Endorsement::Quote(quote) => {
                    put("epoch-quote.attest", quote.attest.to_vec());
                    put_quote_signature("epoch-quote", &quote.signature, &mut put);
                }
                Endorsement::Software(signature) => put("epoch-endorsement.der", ecdsa_der(signature)),
            }
        }
    }
    if let Ok(entry) = Entry::decode(&seal.entry) {
        put("token.message", entry.content().message(&seal.origin));
        put(
            "token.signature",
            match algorithm {
                Some(Algorithm::P256) => ecdsa_der(entry.signature()),
                _ => entry.signature().to_vec(),
            },
        );
        put("token.leaf-hash", entry.leaf_hash().0.to_vec());
        if let Ok(body) = SealBody::decode(&entry.content().body) {
            put("document.digest", body.digest.to_vec());
        }
    }
    let enrolment = Enrolment::decode(&seal.enrolment).ok().map(|enrolment| {
        let content = &enrolment.content;
        put("enrolment.message", content.message());
        put("enrolment.signature", enrolment.signature.to_vec());
        put("log-key.spki.der", spki(Algorithm::Ed25519, &*content.log_key));
        match content.hardware {
            Hardware::Software => {
                put("attestation-key.spki.der", spki(Algorithm::P256, &content.attestation_key))
            }
            Hardware::Tpm => {
                if let Ok(key) = TpmtPublic::parse(&content.attestation_key) {
                    put("attestation-key.spki.der", key.spki_der());
                }
            }
        }
        content.ek_certificates.iter().enumerate().for_each(|(at, der)| {
            put(&format!("ek-certificate-{at}.der"), der.to_vec());
        });
        (ed25519_key_id(&seal.origin, &content.log_key), quote_key_id(&seal.origin, &content.attestation_key))
    });
    for (at, head) in seal.heads.iter().enumerate() {
        put(&format!("checkpoint-{at}.note"), head.checkpoint.clone().into_bytes());
        let Ok(note) = SignedNote::parse(&head.checkpoint) else { continue };
        put(&format!("checkpoint-{at}.txt"), note.text.clone().into_bytes());
        // A key's second line breaks the checkpoint and has no file of its own.
        let mut keys = HashSet::new();
        let lines = note.lines.iter().filter(|line| line.name == seal.origin);
        for line in lines.filter(|line| keys.insert(line.key_id)) {
            match enrolment {
                Some((log_id, _)) if log_id == line.key_id => {
                    put(&format!("checkpoint-{at}.signature"), line.body.clone());
                }
                Some((_, quote_id)) if quote_id == line.key_id => {
                    let Some((attest, signature)) = quote_of(line) else { continue };
                    put(&format!("quote-{at}.attest"), attest);
                    put_quote_signature(&format!("quote-{at}"), &signature, &mut put);
                }
                _ => {}
            }
        }
    }
    for (at, opening) in seal.openings.iter().enumerate() {
        put(&format!("opening-{at}.der"), opening.clone());
    }
    for (number, anchor) in seal.anchors.iter().enumerate() {
        let Ok(body) = AnchorBody::decode(&anchor.body) else { continue };
        parts.push((format!("anchor-{number}-batch.bin"), imprint_input(&body.batch)));
        for (place, proof) in body.proofs.iter().enumerate() {
            if let Evidence::Timestamp(reply) = &proof.evidence {
                parts.push((format!("anchor-{number}-{place}.tsr"), reply.to_vec()));
            }
        }
    }
    for (at, crl) in seal.crls.iter().enumerate() {
        parts.push((format!("crl-{at}.crl"), crl.clone()));
    }
    parts
}

fn put_quote_signature(name: &str, tpmt: &[u8], put: &mut impl FnMut(&str, Vec<u8>)) {
    put(&format!("{name}.tpmt-signature"), tpmt.to_vec());
    if let Ok(signature) = TpmtSignature::parse(tpmt) {
        put(&format!("{name}.signature.der"), ecdsa_der(&signature.to_bytes()));
    }
}

fn spki(algorithm: Algorithm, key: &[u8]) -> Vec<u8> {
    let head = match algorithm {
        Algorithm::Ed25519 => ED25519_SPKI,
        Algorithm::P256 => P256_SPKI,
    };
    [head, key].concat()
}

/// r || s as the DER that openssl reads; anything that is not 64 bytes is left as it is.
fn ecdsa_der(signature: &[u8]) -> Vec<u8> {
    if signature.len() != 64 {
        return signature.to_vec();
    }
    let integer = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count().min(number.len() - 1);
        let digits = &number[zeros..];
        // Without a zero in front, a set highest bit would make it negative.
        let pad: &[u8] = if digits[0] & 0x80 == 0 { &[] } else { &[0] };
        [&[0x02, (pad.len() + digits.len()) as u8], pad, digits].concat()
    };
    let numbers = [integer(&signature[..32]), integer(&signature[32..])].concat();
    [&[0x30, numbers.len() as u8], &numbers[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::ecdsa_der;

    #[test]
    fn der_numbers_are_minimal_and_positive() {
        let mut signature = [0; 64];
        signature[31] = 5;
        signature[32] = 0x80;
        let der = ecdsa_der(&signature);
        assert_eq!(der[..7], [0x30, 38, 2, 1, 5, 2, 33]);
        assert_eq!(der[7..9], [0, 0x80]);
        assert_eq!(der.len(), 40);
        assert_eq!(ecdsa_der(&[0; 64]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
        assert_eq!(ecdsa_der(b"odd"), b"odd");
    }
}

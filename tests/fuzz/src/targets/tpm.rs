//! TPM structures, and keys and signatures beside them.
//!
//! Holds: a parsed public area is its bytes, its SubjectPublicKeyInfo is read by another library as the same point;
//! a signature has 64 bytes; a quote that verifies was made by a box of the vectors.

use super::{seed, split};
use crate::genuine::{SEALS, SIGNED};
use bulla_formats::body::attestation::CheckpointClaim;
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::note::{Checkpoint, SignedNote, quote_line};
use bulla_formats::origin::Origin;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::tpm::{
    Attest, Attested, NvPublic, TpmtPublic, TpmtSignature, check_ak_template, check_signing_key_template,
    verify_certify, verify_nv_certify, verify_quote,
};
use p256::pkcs8::DecodePublicKey as _;
use std::sync::LazyLock;

const CHOICES: u8 = 7;

/// A quote over a checkpoint, and everything it is checked with.
struct Quoted {
    key: TpmtPublic,
    attest: Vec<u8>,
    signature: Vec<u8>,
    qualifying: [u8; 32],
}

static QUOTES: LazyLock<Vec<Quoted>> = LazyLock::new(|| {
    let mut quotes = Vec::new();
    for (_, seal) in SEALS.iter() {
        let content = Enrolment::decode(&seal.enrolment).expect("it was verified").content;
        if content.hardware != Hardware::Tpm {
            continue;
        }
        let origin = Origin::parse(&content.origin).expect("it was verified");
        let log_key = PublicKey::from_bytes(Algorithm::Ed25519, &*content.log_key).expect("it was verified");
        for head in &seal.heads {
            let note = SignedNote::parse(&head.checkpoint).expect("it was verified");
            let opened =
                Checkpoint::open(&note, &origin, &log_key, &content.log_key, &content.attestation_key);
            let opened = opened.expect("it was verified");
            let Some((attest, signature)) = opened.quote() else { continue };
            let text = opened.text().as_bytes().to_vec().into();
            let claim = CheckpointClaim { origin: content.origin.clone(), text };
            quotes.push(Quoted {
                key: TpmtPublic::parse(&content.attestation_key).expect("it was verified"),
                attest: attest.to_vec(),
                signature: signature.to_vec(),
                qualifying: claim.qualifying_data().0,
            });
        }
    }
    assert!(!quotes.is_empty(), "some vectors are attested");
    quotes
});

fn public(data: &[u8]) {
    let Ok(key) = TpmtPublic::parse(data) else { return };
    assert_eq!(key.as_bytes(), data);
    assert_eq!(key.name()[..2], key.name_algorithm.id().to_be_bytes());
    let spki = key.spki_der();
    if let Ok(point) = key.p256_point() {
        let read = p256::PublicKey::from_public_key_der(&spki).expect("a key that is on the curve");
        assert_eq!(read, p256::PublicKey::from_sec1_bytes(&point).expect("a point on the curve"));
        assert!(PublicKey::from_bytes(Algorithm::P256, &point).is_ok());
    }
    let (attests, signs) = (check_ak_template(&key), check_signing_key_template(&key));
    assert!(attests.is_err() || signs.is_err(), "a key that is restricted and is not");
}

fn quote(data: &[u8]) {
    let Some((which, data)) = split(data, u8::MAX) else { return };
    let quoted = &QUOTES[usize::from(which) % QUOTES.len()];
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let Some((attest, signature)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
        return;
    };
    if let Ok(facts) = verify_quote(&quoted.key, attest, signature, &quoted.qualifying) {
        assert!(QUOTES.iter().any(|one| one.attest == attest), "a quote that no TPM made");
        assert!(facts.check_pcrs(&[]).is_err(), "a quote over no register");
    }
    assert!(verify_certify(&quoted.key, attest, signature, &quoted.qualifying, &[0; 34]).is_err());
    assert!(verify_nv_certify(&quoted.key, attest, signature, &quoted.qualifying).is_err());
}

/// The first byte chooses the structure.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => {
            let Ok(attest) = Attest::parse(data) else { return };
            assert!(!attest.attested.name().is_empty());
            if let Attested::Quote { pcr_selection, .. } = &attest.attested {
                assert!(pcr_selection.is_sorted() && pcr_selection.iter().all(|pcr| *pcr < 24));
            }
        }
        1 => public(data),
        2 => {
            let Ok(public) = NvPublic::parse(data) else { return };
            assert_eq!(public.name().len(), 34);
            assert!(public.check_counter().is_err() || public.data_size == 8);
        }
        3 => {
            let Ok(signature) = TpmtSignature::parse(data) else { return };
            assert_eq!(signature.to_bytes(), *[signature.r, signature.s].concat());
        }
        4 => quote(data),
        choice => {
            let algorithm = if choice == 5 { Algorithm::Ed25519 } else { Algorithm::P256 };
            let cut = data.len().min(if choice == 5 { 32 } else { 65 });
            let (key, signature) = data.split_at(cut);
            if let Ok(key) = PublicKey::from_bytes(algorithm, key) {
                assert!(key.verify(b"a message that nobody signed", signature).is_err());
            }
        }
    }
}

/// Structures of the vectors, and an NV index with the shape of a counter.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, quoted) in QUOTES.iter().enumerate().take(24) {
        let Ok(at) = u8::try_from(at) else { break };
        // Version, then both parts with their lengths; this target wants the second without.
        let line = quote_line("x", quoted.key.as_bytes(), &quoted.attest, &quoted.signature).body;
        let length = 3 + quoted.attest.len();
        seeds.push(seed(4, [&[at], &line[1..length], &line[length + 2..]].concat()));
        seeds.push(seed(0, &quoted.attest));
        seeds.push(seed(3, &quoted.signature));
        seeds.push(seed(1, quoted.key.as_bytes()));
    }
    for der in &SIGNED.enrolments {
        let Ok(enrolment) = Enrolment::decode(der) else { continue };
        seeds.push(seed(1, &enrolment.content.attestation_key));
        seeds.push(seed(5, [enrolment.content.log_key.as_slice(), &enrolment.signature].concat()));
        seeds.push(seed(6, [&enrolment.content.attestation_key[..], &[1; 64]].concat()));
    }
    // A counter, written, not orderly; no policy; eight bytes.
    let counter = [&[0x01, 0x80, 0, 1, 0, 0x0b], &0x2000_0016u32.to_be_bytes()[..], &[0, 0, 0, 8]].concat();
    seeds.push(seed(2, counter));
    seeds
}

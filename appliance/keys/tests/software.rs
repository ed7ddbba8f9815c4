//! Keys in files.
#![allow(clippy::unwrap_used)] // a panic in a test is its report, in helper functions too

use bulla_formats::checked_json;
use bulla_formats::enrolment::Hardware;
use bulla_formats::hash::sha256;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_keys::{Endorsement, EpochKey, KeyError, KeyService, Provider, Role, SealingKey};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const DATA: [u8; 32] = [9; 32];

fn verify(point: &[u8], digest: &[u8; 32], signature: &[u8; 64]) {
    let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(point).unwrap();
    key.verify_prehash(digest, &p256::ecdsa::Signature::from_slice(signature).unwrap()).unwrap();
}

#[test]
fn g8_software_keys_say_that_they_are_software() {
    let dir = tempfile::tempdir().unwrap();
    let created = KeyService::create(&Provider::Software, dir.path()).unwrap();
    let service = KeyService::open(&Provider::Software, dir.path()).unwrap();
    let device = service.description();
    assert_eq!(device, created.description());
    assert_eq!(device.hardware, Hardware::Software);
    assert!(device.ek_certificates.is_empty() && device.ek_public.is_empty());
    assert_eq!(device.ek_spki_sha256, sha256(&[&device.key(Role::Attestation).spki]));
    assert_eq!(device.attestation_public, device.key(Role::Attestation).point);
    assert!(device.keys.iter().all(|key| key.certification.is_none()));
    let mode = fs::metadata(dir.path().join("keys.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(service.quote(DATA, &[0]), Err(KeyError::NotHardware { .. })));
    assert!(matches!(service.counter_increment(), Err(KeyError::NotHardware { .. })));
    assert!(matches!(service.counter_certify(DATA), Err(KeyError::NotHardware { .. })));
    assert_eq!(service.counter().unwrap(), None);
    assert!(matches!(service.sign(Role::Attestation, DATA), Err(KeyError::AttestationIsNoOracle)));
    for role in Role::SIGNING {
        verify(&device.key(role).point, &DATA, &service.sign(role, DATA).unwrap());
    }
    let Endorsement::Software(signature) = service.endorse(DATA).unwrap() else {
        panic!("software endorses with a signature")
    };
    verify(&device.attestation_public, &DATA, &signature);
}

#[test]
fn sealed_bytes_come_back_only_unaltered_and_only_here() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = KeyService::create(&Provider::Software, here.path()).unwrap();
    let other = KeyService::create(&Provider::Software, there.path()).unwrap();
    let blob = service.seal(b"secret").unwrap();
    assert_eq!(service.unseal(&blob).unwrap().as_slice(), b"secret");
    assert!(matches!(other.unseal(&blob), Err(KeyError::Damaged { .. })));
    for at in 0..blob.len() {
        let mut altered = blob.clone();
        altered[at] ^= 1;
        assert!(matches!(service.unseal(&altered), Err(KeyError::Damaged { .. })));
        assert!(matches!(service.unseal(&blob[..at]), Err(KeyError::Damaged { .. })));
    }
}

#[test]
fn a_damaged_file_is_refused_without_showing_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    KeyService::create(&Provider::Software, dir.path()).unwrap();
    let path = dir.path().join("keys.json");
    let text = fs::read_to_string(&path).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let secret = document["keys"]["tls"].as_str().unwrap();
    let whole = String::from_utf8(checked_json::body(text.as_bytes()).unwrap()).unwrap();
    let changes =
        |text: &str| [text.replacen(secret, &secret[2..], 1), text.replacen("\"tls\"", "\"tl\"", 1)];
    // Under a checksum that is not theirs any more, and under one of their own.
    let resealed = changes(&whole).map(|damaged| checked_json::with_checksum(&damaged));
    for damaged in changes(&text).into_iter().chain(resealed) {
        fs::write(&path, damaged).unwrap();
        let error = KeyService::open(&Provider::Software, dir.path()).unwrap_err();
        assert!(matches!(error, KeyError::Damaged { .. }));
        assert!(!format!("{error} {error:?}").contains(&secret[2..18]));
    }
    assert!(matches!(KeyService::create(&Provider::Software, dir.path()), Err(KeyError::Exists { .. })));
}

#[test]
fn epoch_keys_sign_and_do_not_show_themselves() {
    let key = SealingKey::Ram(EpochKey::generate().unwrap());
    let (algorithm, public) = key.public();
    assert_eq!(algorithm, Algorithm::Ed25519);
    let signature = key.sign(b"token").unwrap();
    PublicKey::from_bytes(algorithm, &public).unwrap().verify(b"token", &signature).unwrap();
    assert_eq!(format!("{key:?}"), format!("Ram(EpochKey({}))", hex::encode(&public)));
}

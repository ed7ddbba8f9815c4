//! Creating, opening and using keys.

use crate::Setup;
use bulla_formats::checked_json;
use bulla_formats::enrolment::Hardware;
use bulla_formats::hash::sha256;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::tpm::{
    EccCurve, NvPublic, PublicKey as TpmKey, TpmtPublic, check_ak_template, check_signing_key_template,
    verify_certify, verify_nv_certify, verify_quote,
};
use bulla_keys::{ENDORSED_PCRS, Endorsement, KeyError, KeyService, Provider, Role, SealingKey};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const QUALIFYING: [u8; 32] = [0x5a; 32];

#[test]
fn g8_what_is_created_opens_again_and_describes_the_same_device() {
    let setup = Setup::new();
    let created = setup.service.description().clone();
    setup.service.shutdown();
    let opened = KeyService::open(&setup.provider(), &setup.keys()).unwrap();
    assert_eq!(*opened.description(), created);
    assert_eq!(created.hardware, Hardware::Tpm);
    assert_eq!(created.ek_certificates.len(), 1);
    let ek = TpmtPublic::parse(&created.ek_public).unwrap();
    // The highest elliptic endorsement key that swtpm certifies.
    assert!(matches!(ek.key, TpmKey::Ecc { curve: EccCurve::P384, .. }));
    let spki = ek.spki_der();
    assert!(created.ek_certificates[0].windows(spki.len()).any(|window| window == spki));
    assert_eq!(created.ek_spki_sha256, sha256(&[&spki]));
    check_ak_template(&TpmtPublic::parse(&created.attestation_public).unwrap()).unwrap();
    let mode = fs::metadata(setup.keys().join("keys.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn g8_every_service_key_is_certified_by_the_attestation_key() {
    let setup = Setup::new();
    let device = setup.service.description();
    let ak = TpmtPublic::parse(&device.attestation_public).unwrap();
    for role in Role::SIGNING {
        let key = device.key(role);
        assert_eq!(key.role, role);
        let certification = key.certification.as_ref().unwrap();
        assert_eq!(certification.qualifying, role.certification_qualifying());
        let public = TpmtPublic::parse(&certification.tpmt_public).unwrap();
        check_signing_key_template(&public).unwrap();
        assert_eq!(public.spki_der(), key.spki);
        let facts = verify_certify(
            &ak,
            &certification.attest,
            &certification.signature,
            &certification.qualifying,
            &public.name(),
        )
        .unwrap();
        assert_eq!(facts.name, public.name());
        // Under another role's data, or another key's name, it proves nothing.
        let other = Role::SIGNING[(role as usize) % 3];
        assert!(
            verify_certify(
                &ak,
                &certification.attest,
                &certification.signature,
                &other.certification_qualifying(),
                &public.name()
            )
            .is_err()
        );
    }
}

#[test]
fn g8_quotes_verify_and_their_pcr_values_match() {
    let setup = Setup::new();
    let ak = TpmtPublic::parse(&setup.service.description().attestation_public).unwrap();
    for pcrs in [&[7][..], &[0, 1, 2, 3, 4, 5, 6, 7], &ENDORSED_PCRS, &(0..24).collect::<Vec<u8>>()] {
        let quote = setup.service.quote(QUALIFYING, pcrs).unwrap();
        let facts = verify_quote(&ak, &quote.attest, &quote.signature, &QUALIFYING).unwrap();
        assert_eq!(facts.pcr_selection, pcrs);
        facts.check_pcrs(&quote.pcrs).unwrap();
        let mut altered = quote.pcrs.clone();
        altered[0].1[0] ^= 1;
        assert!(facts.check_pcrs(&altered).is_err());
        altered = quote.pcrs.clone();
        altered[0].0 += 1;
        assert!(facts.check_pcrs(&altered).is_err());
    }
    // Selections are sets: order does not matter.
    let quote = setup.service.quote(QUALIFYING, &[7, 0]).unwrap();
    assert_eq!(quote.pcrs.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 7]);
    assert!(matches!(setup.service.quote(QUALIFYING, &[24]), Err(KeyError::Argument { .. })));
    let Endorsement::Tpm(quote) = setup.service.endorse(QUALIFYING).unwrap() else {
        panic!("a TPM endorses with a quote")
    };
    let facts = verify_quote(&ak, &quote.attest, &quote.signature, &QUALIFYING).unwrap();
    assert_eq!(facts.pcr_selection, ENDORSED_PCRS);
    // In the endorsement hierarchy the counts are plain; a fresh TPM has seen few resets.
    assert!(facts.reset_count < 100, "obfuscated: {facts:?}");
}

#[test]
fn g8_service_keys_sign_and_the_attestation_key_does_not() {
    let setup = Setup::new();
    let digest = sha256(&[b"document"]).0;
    for role in [Role::Tls, Role::Sealing, Role::Tls, Role::Issuing, Role::Issuing] {
        let signature = setup.service.sign(role, digest).unwrap();
        let point = setup.service.description().key(role).point;
        let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
        key.verify_prehash(&digest, &p256::ecdsa::Signature::from_slice(&signature).unwrap()).unwrap();
    }
    assert!(matches!(setup.service.sign(Role::Attestation, digest), Err(KeyError::AttestationIsNoOracle)));
    let sealing = SealingKey::Device(setup.service.clone());
    let (algorithm, public) = sealing.public();
    assert_eq!(algorithm, Algorithm::P256);
    let signature = sealing.sign(b"token").unwrap();
    PublicKey::from_bytes(algorithm, &public).unwrap().verify(b"token", &signature).unwrap();
}

#[test]
fn g2_the_counter_counts_and_is_certified() {
    let setup = Setup::new();
    let ak = TpmtPublic::parse(&setup.service.description().attestation_public).unwrap();
    let first = setup.service.counter().unwrap().unwrap();
    for step in 1..=3 {
        assert_eq!(setup.service.counter_increment().unwrap(), first + step);
        assert_eq!(setup.service.counter().unwrap(), Some(first + step));
        let certificate = setup.service.counter_certify(QUALIFYING).unwrap();
        let facts = verify_nv_certify(&ak, &certificate.attest, &certificate.signature, &QUALIFYING).unwrap();
        assert_eq!((facts.counter, certificate.value), (first + step, first + step));
        let public = NvPublic::parse(&certificate.nv_public).unwrap();
        public.check_counter().unwrap();
        assert_eq!(public.name(), facts.index_name);
    }
}

#[test]
fn g2_new_keys_on_a_used_tpm_go_on_counting_with_the_same_attestation_key() {
    let setup = Setup::new();
    let before = setup.service.counter().unwrap().unwrap();
    let elsewhere = setup.dir.path().join("second");
    let second = KeyService::create(&setup.provider(), &elsewhere).unwrap();
    assert_eq!(second.counter().unwrap(), Some(before + 1));
    let (old, new) = (setup.service.description(), second.description());
    assert_eq!(old.attestation_public, new.attestation_public);
    assert_ne!(old.key(Role::Tls).spki, new.key(Role::Tls).spki);
    second.shutdown();
    // The first set of keys still works: nothing of it was taken away.
    setup.service.sign(Role::Tls, QUALIFYING).unwrap();
}

#[test]
fn secrets_are_sealed_to_the_tpm() {
    let setup = Setup::new();
    for secret in [&b"x"[..], &[0xa5; 32], &[7; 128]] {
        let blob = setup.service.seal(secret).unwrap();
        assert_eq!(setup.service.unseal(&blob).unwrap().as_slice(), secret);
    }
    for wrong in [&[][..], &[0; 129]] {
        assert!(matches!(setup.service.seal(wrong), Err(KeyError::Argument { .. })));
    }
    let blob = setup.service.seal(b"secret").unwrap();
    for at in 0..blob.len() {
        let mut altered = blob.clone();
        altered[at] ^= 1;
        let unsealed = setup.service.unseal(&altered);
        assert!(
            matches!(unsealed, Err(KeyError::Damaged { .. } | KeyError::Refused { .. })),
            "{at}: {unsealed:?}"
        );
    }
    for len in 0..blob.len() {
        assert!(matches!(setup.service.unseal(&blob[..len]), Err(KeyError::Damaged { .. })));
    }
    assert_eq!(setup.service.unseal(&blob).unwrap().as_slice(), b"secret");
    let other = Setup::new();
    assert!(matches!(other.service.unseal(&blob), Err(KeyError::Damaged { .. })));
}

#[test]
fn keys_are_never_overwritten_and_never_made_by_opening() {
    let setup = Setup::new();
    let bytes = fs::read(setup.keys().join("keys.json")).unwrap();
    assert!(matches!(KeyService::create(&setup.provider(), &setup.keys()), Err(KeyError::Exists { .. })));
    assert_eq!(fs::read(setup.keys().join("keys.json")).unwrap(), bytes);
    let nowhere = setup.dir.path().join("nowhere");
    assert!(matches!(KeyService::open(&setup.provider(), &nowhere), Err(KeyError::Missing { .. })));
    assert!(!nowhere.exists());
    assert!(matches!(
        KeyService::open(&Provider::Software, &setup.keys()),
        Err(KeyError::OtherProvider { expected: "software", found: "tpm", .. })
    ));
}

#[test]
fn g8_a_damaged_key_file_is_refused() {
    let setup = Setup::new();
    setup.service.shutdown();
    let path = setup.keys().join("keys.json");
    let file = fs::read(&path).unwrap();
    let text = String::from_utf8(checked_json::body(&file).unwrap()).unwrap();
    let mut document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let swap = document["keys"]["tls"].take();
    document["keys"]["tls"] = document["keys"]["sealing"].take();
    document["keys"]["sealing"] = swap;
    let wrong = [
        String::new(),
        text[..text.len() / 2].to_owned(),
        text.clone(),
        checked_json::with_checksum(&text.replacen("\"version\": 2", "\"version\": 3", 1)),
        checked_json::with_checksum(&text.replacen("\"version\": 2", "\"version\": 2, \"more\": 1", 1)),
        checked_json::with_checksum(&document.to_string()),
    ];
    for text in wrong {
        assert_ne!(text.as_bytes(), file, "this case damages nothing");
        fs::write(&path, text).unwrap();
        let opened = KeyService::open(&setup.provider(), &setup.keys());
        assert!(matches!(opened, Err(KeyError::Damaged { .. })), "{opened:?}");
    }
}

//! Everybody who would like to be enrolled and must not: each is refused with a code of its own.

use crate::chip::{
    AK_ATTRIBUTES, Chip, EK_ATTRIBUTES, POLICY_A, SERVICE_ATTRIBUTES, ek_public, key, signing_public,
};
use crate::maker::{Maker, NOW};
use crate::scene::{CHANNEL, Scene, attested, code, ek_hash, evidence, manufacturers};
use bulla_enrolment::boot::QUOTED_PCRS;
use bulla_enrolment::evidence::{Failed, Posed, Presented};
use bulla_enrolment::proof::{Proofs, Purpose, fingerprint};
use bulla_enrolment::registrar::Standing;
use bulla_enrolment::wire::{Answer, Challenge, Evidence, Request};
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::sha256;
use ed25519_dalek::{Signer, SigningKey};
use std::collections::BTreeSet;

fn asked(change: impl FnOnce(&mut Request)) -> String {
    let mut scene = Scene::new();
    change(&mut scene.request);
    code(&scene.ask()).to_owned()
}

fn proven(change: impl FnOnce(&Scene, &Challenge, &mut Evidence)) -> String {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let mut evidence = scene.evidence(&challenge);
    change(&scene, &challenge, &mut evidence);
    code(&scene.prove(&evidence)).to_owned()
}

fn proofs(scene: &Scene, challenge: &Challenge) -> Proofs {
    Proofs::of(&scene.request, challenge, &CHANNEL).unwrap()
}

#[test]
fn ek_of_one_tpm_with_ak_of_another() {
    let mut scene = Scene::new();
    let other = Chip::new(50);
    // The attestation key, and all that it says, is of a second TPM that the cheat may well own.
    scene.request.attestation_key = other.ak_public().into();
    let challenge = scene.challenge();
    let secret = scene.chip.activate(&challenge.credential, &challenge.secret, &scene.chip.ak_public());
    assert_eq!(secret, None, "the chip does not give the secret out for a key that it does not hold");
    let proofs = proofs(&scene, &challenge);
    let evidence = attested(&other, &scene.request, &scene.log_key, &proofs, &challenge, &CHANNEL, &[0; 32]);
    assert_eq!(code(&scene.prove(&evidence)), "activation");
}

#[test]
fn a_software_key_claiming_to_be_a_tpm() {
    // With no certificate at all.
    assert_eq!(asked(|request| request.ek_certificates.clear()), "ek-certificate-missing");
    // With a certificate of a CA that it made itself, and that nobody pinned.
    let (chip, own) = (Chip::new(60), Maker::new(160));
    let mut scene = Scene::new();
    let forged = own.certify(&chip).into_iter().map(Into::into).collect();
    scene.request.ek_public = chip.ek_public().into();
    scene.request.ek_certificates = forged;
    scene.shelf.standing.insert(ek_hash(&chip), Standing::Expected);
    assert_eq!(code(&scene.ask()), "ek-chain");
    // With a genuine certificate, of a TPM that is elsewhere, over its own key.
    assert_eq!(
        asked(|request| request.ek_public = Chip::new(60).ek_public().into()),
        "ek-certificate-other-key"
    );
    // With a genuine endorsement key, and an attestation key that signs whatever it is told.
    let unrestricted = asked(|request| {
        request.attestation_key = signing_public(&key(11), SERVICE_ATTRIBUTES).into();
    });
    assert_eq!(unrestricted, "attestation-key-template");
    for bit in [1, 4, 5, 10, 18] {
        let leaves = asked(|request| {
            request.attestation_key = signing_public(&key(11), AK_ATTRIBUTES & !(1 << bit)).into();
        });
        assert_eq!(leaves, "attestation-key-template", "bit {bit}");
        let leaves = asked(|request| {
            request.tls_key = signing_public(&key(12), SERVICE_ATTRIBUTES & !(1 << bit)).into();
        });
        assert_eq!(leaves, "service-key-template", "bit {bit}");
    }
    let decrypts = |request: &mut Request| {
        request.attestation_key = signing_public(&key(11), AK_ATTRIBUTES | 1 << 17).into();
    };
    assert_eq!(asked(decrypts), "attestation-key-template");
}

#[test]
fn a_replayed_challenge() {
    let mut scene = Scene::new();
    let first = scene.challenge();
    let old = scene.evidence(&first);
    // A second challenge takes the place of the first; the evidence for the first is worth nothing.
    let second = scene.challenge();
    assert_eq!(code(&scene.prove(&old)), "challenge-other");
    // Nor with the new nonce written over the old one: the secret is another.
    scene.challenge();
    let mut patched = old;
    patched.nonce = scene.challenge().nonce;
    assert_eq!(code(&scene.prove(&patched)), "activation");
    let stale = scene.evidence(&second);
    assert_eq!(code(&scene.prove(&stale)), "challenge-unknown");
}

#[test]
fn a_relayed_challenge() {
    // Somebody in the middle speaks TLS with both sides: the box sees another binding than the registrar.
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let seen = [0x66; 32];
    let evidence = evidence(&scene.chip, &scene.request, &scene.log_key, &challenge, &seen);
    assert_eq!(code(&scene.prove(&evidence)), "relayed");
    // Writing the right binding over it does not help: the box proved the other.
    let challenge = scene.challenge();
    let mut patched = self::evidence(&scene.chip, &scene.request, &scene.log_key, &challenge, &seen);
    patched.channel = Octets32::new(CHANNEL);
    assert_eq!(code(&scene.prove(&patched)), "activation");
    // A box that pinned somebody else's key has told so in its request.
    assert_eq!(asked(|request| request.registrar = Octets32::new([9; 32])), "other-registrar");
}

#[test]
fn an_existing_origin_with_a_new_tpm() {
    let mut scene = Scene::new();
    let origin = scene.request.origin.clone();
    let newcomer = Chip::new(70);
    scene.shelf.standing.insert(ek_hash(&newcomer), Standing::Expected);
    let certificates = scene.maker.certify(&newcomer);
    scene.request = crate::scene::request(&newcomer, certificates, &scene.log_key, &scene.request.event_log);
    scene.request.origin = origin;
    assert_eq!(code(&scene.ask()), "origin");
}

#[test]
fn an_existing_origin_with_the_same_tpm_and_another_log_key() {
    let mut scene = Scene::new();
    let record = scene.proven();
    let heard = fingerprint(&record.transcript());
    let approved = record.approve(&heard, "Ada", NOW + 2).unwrap();
    crate::issuing::admit(&mut scene, &approved);
    let issued = crate::issuing::issue(&scene, approved).unwrap();
    scene.shelf.keep(&issued);
    // The very request gets its certificates again.
    assert!(matches!(scene.ask(), Answer::Issued(_)));
    let other = SigningKey::from_bytes(&[0x99; 32]);
    for incarnation in [7, 6] {
        scene.chip.counter = incarnation;
        let certificates = scene.maker.certify(&scene.chip);
        let log = scene.request.event_log.clone();
        scene.request = crate::scene::request(&scene.chip, certificates, &other, &log);
        assert_eq!(code(&scene.ask()), "origin-taken");
    }
    // A later log of the same TPM is a new one.
    scene.chip.counter = 8;
    let certificates = scene.maker.certify(&scene.chip);
    scene.request = crate::scene::request(&scene.chip, certificates, &other, &scene.request.event_log);
    scene.log_key = other;
    scene.proven();
}

#[test]
fn requests_that_do_not_fit() {
    type Change = fn(&mut Request);
    let ek = |attributes, policy: &str| {
        let bytes = ek_public(&Chip::new(10).ek_point(), attributes, policy);
        move |request: &mut Request| request.ek_public = bytes.into()
    };
    assert_eq!(asked(ek(EK_ATTRIBUTES | 1 << 18, POLICY_A)), "ek-template");
    assert_eq!(asked(ek(EK_ATTRIBUTES & !(1 << 16), POLICY_A)), "ek-template");
    assert_eq!(asked(ek(EK_ATTRIBUTES & !(1 << 1), POLICY_A)), "ek-template");
    assert_eq!(asked(ek(EK_ATTRIBUTES, &"00".repeat(32))), "ek-template");
    let cases: [(&str, Change); 12] = [
        ("other-fleet", |request| request.fleet = "bank2.example".into()),
        ("ek-template", |request| request.ek_public = vec![0, 1, 2].into()),
        ("ek-template", |request| request.ek_public = request.attestation_key.clone()),
        ("attestation-key-template", |request| request.attestation_key = request.ek_public.clone()),
        ("service-key-template", |request| request.issuing_key = request.attestation_key.clone()),
        ("counter-template", |request| request.counter = vec![1; 14].into()),
        ("counter-template", |request| {
            // ORDERLY: it could repeat itself after a power cut.
            let mut bytes = request.counter.to_vec();
            bytes[6] |= 0x04;
            request.counter = bytes.into();
        }),
        ("origin", |request| request.origin = request.origin.replace("bank.example", "bank2.example")),
        ("origin", |request| request.origin.push('x')),
        ("head", |request| request.head = TreeState::new(1, sha256(&[b"entry"]))),
        ("log-key", |request| request.log_key = Octets32::new([0; 32])),
        ("ek-certificate-malformed", |request| request.ek_certificates[0] = vec![0x30, 0].into()),
    ];
    for (expected, change) in cases {
        assert_eq!(asked(change), expected);
    }
}

#[test]
fn evidence_that_does_not_hold() {
    // Signed by the attestation key, but for another purpose.
    let crossed = proven(|scene, challenge, evidence| {
        let qualifying = proofs(scene, challenge).qualifying(Purpose::IssuingKey);
        let (attest, signature) = scene.chip.certify(&qualifying, &scene.request.tls_key);
        (evidence.tls_key.attest, evidence.tls_key.signature) = (attest.into(), signature.into());
    });
    assert_eq!(crossed, "tls-key");
    // The certification of one key for another.
    let swapped = proven(|_, _, evidence| {
        std::mem::swap(&mut evidence.tls_key, &mut evidence.issuing_key);
    });
    assert_eq!(swapped, "tls-key");
    let other_key = proven(|scene, challenge, evidence| {
        let qualifying = proofs(scene, challenge).qualifying(Purpose::IssuingKey);
        let (attest, signature) =
            scene.chip.certify(&qualifying, &signing_public(&key(99), SERVICE_ATTRIBUTES));
        (evidence.issuing_key.attest, evidence.issuing_key.signature) = (attest.into(), signature.into());
    });
    assert_eq!(other_key, "issuing-key");
    // A perfect quote, by the TLS key.
    let by_another = proven(|scene, challenge, evidence| {
        let qualifying = proofs(scene, challenge).qualifying(Purpose::Quote);
        let (attest, signature) = scene.chip.quote(&scene.chip.tls, &qualifying, &QUOTED_PCRS);
        (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
    });
    assert_eq!(by_another, "quote");
    let not_generated = proven(|_, _, evidence| {
        let mut attest = evidence.quote.attest.to_vec();
        attest[0] ^= 1;
        evidence.quote.attest = attest.into();
    });
    assert_eq!(not_generated, "quote");
    let older = proven(|scene, challenge, evidence| {
        let other = Challenge { nonce: Octets32::new([1; 32]), ..challenge.clone() };
        let qualifying = proofs(scene, &other).qualifying(Purpose::Quote);
        let (attest, signature) = scene.chip.quote(&scene.chip.ak, &qualifying, &QUOTED_PCRS);
        (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
    });
    assert_eq!(older, "quote");
    let fewer = proven(|scene, challenge, evidence| {
        let qualifying = proofs(scene, challenge).qualifying(Purpose::Quote);
        let (attest, signature) = scene.chip.quote(&scene.chip.ak, &qualifying, &QUOTED_PCRS[..11]);
        (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
        evidence.quote.pcrs.pop();
    });
    assert_eq!(fewer, "quote-pcrs");
    let nicer = proven(|_, _, evidence| {
        evidence.quote.pcrs[4] = PcrValue { pcr: 4, value: Octets32::new([0; 32]) };
    });
    assert_eq!(nicer, "quote-pcrs");
    let elsewhere = proven(|scene, challenge, evidence| {
        // An attestation key that lies under something else than the endorsement key shows obfuscated numbers.
        let other = Chip { ak: key(11), ..Chip::new(80) };
        let qualifying = proofs(scene, challenge).qualifying(Purpose::Quote);
        let (attest, signature) =
            Chip { pcrs: scene.chip.pcrs.clone(), ..other }.quote(&scene.chip.ak, &qualifying, &QUOTED_PCRS);
        (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
    });
    assert_eq!(elsewhere, "attestation-key-parent");
    let ahead = proven(|scene, challenge, evidence| {
        let moved = Chip { counter: 8, ..Chip::new(10) };
        let qualifying = proofs(scene, challenge).qualifying(Purpose::Counter);
        let (attest, signature) = moved.certify_counter(&qualifying);
        (evidence.counter.attest, evidence.counter.signature) = (attest.into(), signature.into());
    });
    assert_eq!(ahead, "counter-value");
    let no_counter = proven(|_, _, evidence| evidence.counter = evidence.tls_key.clone());
    assert_eq!(no_counter, "counter");
    let not_the_log = proven(|scene, challenge, evidence| {
        let stranger = SigningKey::from_bytes(&[3; 32]);
        let message = proofs(scene, challenge).message(Purpose::LogKey);
        evidence.log_signature = stranger.sign(&message).to_bytes().to_vec().into();
    });
    assert_eq!(not_the_log, "log-signature");
}

#[test]
fn no_bit_of_the_evidence_can_change() {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let good = der::encode(&scene.evidence(&challenge));
    let secret =
        scene.chip.activate(&challenge.credential, &challenge.secret, &scene.chip.ak_public()).unwrap();
    let presented =
        Presented::judge(scene.request.clone(), &scene.policy, &manufacturers(&scene.maker), NOW).unwrap();
    let posed = Posed { nonce: &challenge.nonce, channel: &CHANNEL, secret: &secret };
    let mut codes = BTreeSet::new();
    for at in 0..good.len() {
        let mut altered = good.clone();
        altered[at] ^= 1 << (at % 8);
        let Ok(altered) = Evidence::decode(&altered) else { continue };
        if altered.transcript != Octets32::new(presented.transcript.0) {
            continue;
        }
        match presented.prove(&altered, &posed, &scene.policy, NOW) {
            Err(Failed::Anonymous(refusal) | Failed::ByTheBox(refusal)) => codes.insert(refusal.code),
            Ok(_) => panic!("byte {at}"),
        };
    }
    assert!(codes.len() >= 8, "{codes:?}");
}

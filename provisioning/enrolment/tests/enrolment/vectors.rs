//! `tests/vectors-enrolment/`: enrolments that hold and enrolments that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-enrolment --test enrolment` writes
//! them. Each is one JSON object that says what the registrar knew, what the box sent, and what comes of it.

use crate::chip::{AK_ATTRIBUTES, Chip, SERVICE_ATTRIBUTES, key, signing_public};
use crate::maker::{Maker, NOW, valid};
use crate::scene::{CHANNEL, Scene, boot_of, evidence, secure_boot_variable};
use bulla_enrolment::boot::{BootPolicy, KnownBoot, QUOTED_PCRS};
use bulla_enrolment::endorsement::Manufacturers;
use bulla_enrolment::evidence::{Failed, Policy, Posed, Presented};
use bulla_enrolment::proof::{Proofs, Purpose};
use bulla_enrolment::refusal::{Code, Refusal};
use bulla_enrolment::wire::{Challenge, Evidence, Request};
use bulla_formats::der::{self, Octets32};
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::trust::Reference;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-enrolment")
}

/// A vector without its answer.
fn known(scene: &Scene, request: &[u8]) -> Value {
    let BootPolicy::Judged { known, secure_boot } = &scene.policy.boot else { unreachable!() };
    let boot = |boot: &KnownBoot| {
        let pcrs = boot.reference.pcrs.iter();
        let pcrs: Vec<Value> =
            pcrs.map(|(pcr, value)| json!({"pcr": pcr, "value": hex::encode(value)})).collect();
        json!({"name": boot.reference.name, "untilMillis": boot.until, "pcrs": pcrs})
    };
    json!({
        "fleet": scene.policy.fleet,
        "registrar": hex::encode(scene.policy.registrar),
        "nowMillis": NOW,
        "roots": [base64_encode(&scene.maker.root_certificate())],
        "boots": known.iter().map(boot).collect::<Vec<_>>(),
        "secureBoot": secure_boot,
        "badFirmware": scene.policy.bad_firmware,
        "request": base64_encode(request),
    })
}

/// Refused by the request alone.
fn asked(change: impl FnOnce(&mut Scene)) -> Value {
    let mut scene = Scene::new();
    change(&mut scene);
    known(&scene, &der::encode(&scene.request))
}

/// With evidence, made by an honest box after `before` and changed by `after`.
fn answered(
    mut scene: Scene,
    before: impl FnOnce(&mut Scene),
    after: impl FnOnce(&Scene, &Challenge, &mut Evidence),
) -> Value {
    before(&mut scene);
    let challenge = scene.challenge();
    // What the registrar remembers of its challenge: the chip gives the secret out for the key it was made for.
    let object = &scene.request.attestation_key;
    let secret = scene.chip.activate(&challenge.credential, &challenge.secret, object);
    let mut evidence = scene.evidence(&challenge);
    after(&scene, &challenge, &mut evidence);
    let mut vector = known(&scene, &der::encode(&scene.request));
    vector["nonce"] = json!(hex::encode(&challenge.nonce[..]));
    vector["channel"] = json!(hex::encode(CHANNEL));
    vector["secret"] = json!(hex::encode(secret.unwrap()));
    vector["evidence"] = json!(base64_encode(&der::encode(&evidence)));
    vector
}

fn honest(_: &mut Scene) {}

fn changed(after: impl FnOnce(&Scene, &Challenge, &mut Evidence)) -> Value {
    answered(Scene::new(), honest, after)
}

fn qualifying(scene: &Scene, challenge: &Challenge, purpose: Purpose) -> [u8; 32] {
    Proofs::of(&scene.request, challenge, &CHANNEL).unwrap().qualifying(purpose)
}

fn booted(scene: &mut Scene, log: Vec<u8>) {
    let parsed = bulla_appraisal::event_log::EventLog::parse(&log).unwrap();
    scene.chip.pcrs.extend(bulla_appraisal::replay::replay(&parsed));
    scene.request.event_log = log.into();
}

fn all() -> BTreeMap<String, Value> {
    let nothing = |_: &Scene, _: &Challenge, _: &mut Evidence| {};
    let leaf = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = Maker::leaf_params();
        change(&mut params);
        asked(|scene| {
            let leaf = scene.maker.certify_with(&scene.chip, params);
            scene.request.ek_certificates[0] = leaf.into();
        })
    };
    let vectors: Vec<(&str, &str, Value)> = vec![
        ("p256", "valid", answered(Scene::new(), honest, nothing)),
        ("p384", "valid", answered(Scene::with(Chip::with_p384(20), Maker::new(100)), honest, nothing)),
        ("next-image", "valid", answered(Scene::new(), |scene| booted(scene, boot_of("1.3.0", 1)), nothing)),
        (
            "last-image-in-time",
            "valid",
            answered(Scene::new(), |scene| booted(scene, boot_of("1.1.0", 1)), nothing),
        ),
        ("staged", "valid", answered(crate::staged::member(), honest, nothing)),
        (
            "staged-after-no-log",
            "malformed",
            asked(|scene| scene.request.in_use = Some("the old one".into())),
        ),
        ("no-remarks", "valid", answered(Scene::new(), |scene| scene.request.remarks.clear(), nothing)),
        ("version-2", "malformed", asked(|scene| scene.request.version = 2)),
        ("other-fleet", "other-fleet", asked(|scene| scene.request.fleet = "bank2.example".into())),
        (
            "other-registrar",
            "other-registrar",
            asked(|scene| scene.request.registrar = Octets32::new([9; 32])),
        ),
        (
            "ek-that-signs",
            "ek-template",
            asked(|scene| {
                scene.request.ek_public = scene.request.attestation_key.clone();
            }),
        ),
        ("no-certificate", "ek-certificate-missing", asked(|scene| scene.request.ek_certificates.clear())),
        (
            "certificate-cut",
            "ek-certificate-malformed",
            asked(|scene| {
                let certificate = &mut scene.request.ek_certificates[0];
                *certificate = certificate[..certificate.len() - 1].to_vec().into();
            }),
        ),
        (
            "certificate-of-another-chip",
            "ek-certificate-other-key",
            asked(|scene| {
                scene.request.ek_certificates[0] = scene.maker.certify(&Chip::new(60)).remove(0).into();
            }),
        ),
        (
            "tls-certificate",
            "ek-certificate-usage",
            leaf(&|params| {
                params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            }),
        ),
        (
            "certificate-expired",
            "ek-certificate-expired",
            leaf(&|params| valid(params, NOW - 2_000, NOW - 1_000)),
        ),
        (
            "certificate-not-yet",
            "ek-certificate-expired",
            leaf(&|params| valid(params, NOW + 1_000, NOW + 2_000)),
        ),
        (
            "stranger-as-manufacturer",
            "ek-chain",
            asked(|scene| {
                let chain = Maker::new(150).certify(&scene.chip);
                scene.request.ek_certificates = chain.into_iter().map(Into::into).collect();
            }),
        ),
        ("no-intermediate", "ek-chain", asked(|scene| scene.request.ek_certificates.truncate(1))),
        (
            "attestation-key-unrestricted",
            "attestation-key-template",
            asked(|scene| {
                scene.request.attestation_key = signing_public(&key(11), SERVICE_ATTRIBUTES).into();
            }),
        ),
        (
            "attestation-key-from-outside",
            "attestation-key-template",
            asked(|scene| {
                scene.request.attestation_key = signing_public(&key(11), AK_ATTRIBUTES & !(1 << 5)).into();
            }),
        ),
        (
            "tls-key-that-can-leave",
            "service-key-template",
            asked(|scene| {
                scene.request.tls_key = signing_public(&key(12), SERVICE_ATTRIBUTES & !(1 << 1)).into();
            }),
        ),
        (
            "counter-in-ram",
            "counter-template",
            asked(|scene| {
                let mut counter = scene.request.counter.to_vec();
                counter[6] |= 0x04;
                scene.request.counter = counter.into();
            }),
        ),
        (
            "origin-of-another-tpm",
            "origin",
            asked(|scene| {
                let other = crate::scene::ek_hash(&Chip::new(70));
                scene.request.origin = bulla_formats::origin::Origin::derive(crate::scene::FLEET, &other, 7)
                    .unwrap()
                    .as_str()
                    .into();
            }),
        ),
        (
            "log-has-begun",
            "head",
            asked(|scene| {
                scene.request.head =
                    bulla_formats::entry::TreeState::new(1, bulla_formats::hash::Hash([1; 32]));
            }),
        ),
        ("log-key-of-small-order", "log-key", asked(|scene| scene.request.log_key = Octets32::new([0; 32]))),
        ("other-nonce", "challenge-other", changed(|_, _, evidence| evidence.nonce = Octets32::new([5; 32]))),
        (
            "relayed",
            "relayed",
            changed(|scene, challenge, out| {
                *out = evidence(&scene.chip, &scene.request, &scene.log_key, challenge, &[0x66; 32]);
            }),
        ),
        (
            "relayed-and-hidden",
            "activation",
            changed(|scene, challenge, out| {
                *out = evidence(&scene.chip, &scene.request, &scene.log_key, challenge, &[0x66; 32]);
                out.channel = Octets32::new(CHANNEL);
            }),
        ),
        (
            "not-activated",
            "activation",
            changed(|_, _, evidence| evidence.activation = Octets32::new([0; 32])),
        ),
        (
            "quote-by-the-tls-key",
            "quote",
            changed(|scene, challenge, evidence| {
                let data = qualifying(scene, challenge, Purpose::Quote);
                let (attest, signature) = scene.chip.quote(&scene.chip.tls, &data, &QUOTED_PCRS);
                (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
            }),
        ),
        (
            "quote-for-another-purpose",
            "quote",
            changed(|scene, challenge, evidence| {
                let data = qualifying(scene, challenge, Purpose::Counter);
                let (attest, signature) = scene.chip.quote(&scene.chip.ak, &data, &QUOTED_PCRS);
                (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
            }),
        ),
        (
            "attestation-key-elsewhere",
            "attestation-key-parent",
            changed(|scene, challenge, evidence| {
                let other = Chip { pcrs: scene.chip.pcrs.clone(), ..Chip::new(80) };
                let data = qualifying(scene, challenge, Purpose::Quote);
                let (attest, signature) = other.quote(&scene.chip.ak, &data, &QUOTED_PCRS);
                (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
            }),
        ),
        (
            "fewer-pcrs",
            "quote-pcrs",
            changed(|scene, challenge, evidence| {
                let data = qualifying(scene, challenge, Purpose::Quote);
                let (attest, signature) = scene.chip.quote(&scene.chip.ak, &data, &QUOTED_PCRS[..11]);
                (evidence.quote.attest, evidence.quote.signature) = (attest.into(), signature.into());
                evidence.quote.pcrs.pop();
            }),
        ),
        (
            "nicer-pcr",
            "quote-pcrs",
            changed(|_, _, evidence| evidence.quote.pcrs[4].value = Octets32::new([0; 32])),
        ),
        (
            "bad-firmware",
            "tpm-firmware",
            answered(Scene::new(), |scene| scene.chip.firmware = 0xbad, nothing),
        ),
        (
            "certifications-swapped",
            "tls-key",
            changed(|_, _, evidence| {
                std::mem::swap(&mut evidence.tls_key, &mut evidence.issuing_key);
            }),
        ),
        (
            "issuing-key-of-another",
            "issuing-key",
            changed(|scene, challenge, evidence| {
                let data = qualifying(scene, challenge, Purpose::IssuingKey);
                let (attest, signature) = scene.chip.certify(&data, &scene.request.tls_key);
                (evidence.issuing_key.attest, evidence.issuing_key.signature) =
                    (attest.into(), signature.into());
            }),
        ),
        ("no-counter", "counter", changed(|_, _, evidence| evidence.counter = evidence.tls_key.clone())),
        ("counter-ahead", "counter-value", answered(Scene::new(), |scene| scene.chip.counter = 8, nothing)),
        (
            "signed-by-another-log-key",
            "log-signature",
            changed(|scene, challenge, evidence| {
                let message =
                    Proofs::of(&scene.request, challenge, &CHANNEL).unwrap().message(Purpose::LogKey);
                let stranger = SigningKey::from_bytes(&[3; 32]);
                evidence.log_signature = stranger.sign(&message).to_bytes().to_vec().into();
            }),
        ),
        (
            "event-log-cut",
            "event-log",
            answered(
                Scene::new(),
                |scene| {
                    let log = &mut scene.request.event_log;
                    *log = log[..log.len() - 1].to_vec().into();
                },
                nothing,
            ),
        ),
        (
            "event-log-of-another-boot",
            "event-log-differs",
            answered(
                Scene::new(),
                |scene| {
                    scene.request.event_log = boot_of("1.3.0", 1).into();
                },
                nothing,
            ),
        ),
        (
            "secure-boot-off",
            "boot-unknown",
            answered(Scene::new(), |scene| booted(scene, boot_of("1.2.0", 0)), nothing),
        ),
        (
            "secure-boot-forged",
            "secure-boot",
            answered(
                Scene::new(),
                |scene| {
                    // The data of the first event says "on" in other words than were measured.
                    let (on, mut forged) = (secure_boot_variable(1), scene.request.event_log.to_vec());
                    let at = forged.windows(on.len()).position(|window| window == on).unwrap();
                    forged[at + on.len() - 1] = 2;
                    scene.request.event_log = forged.into();
                },
                nothing,
            ),
        ),
        (
            "no-event-log",
            "secure-boot",
            answered(Scene::new(), |scene| scene.request.event_log = Vec::new().into(), nothing),
        ),
        (
            "evil-loader",
            "boot-unknown",
            answered(Scene::new(), |scene| booted(scene, boot_of("evil", 1)), nothing),
        ),
        ("last-image-too-late", "boot-outdated", {
            let mut vector = answered(Scene::new(), |scene| booted(scene, boot_of("1.1.0", 1)), nothing);
            vector["nowMillis"] = json!(NOW + 1_001);
            vector
        }),
    ];
    let named = |(name, expect, mut vector): (&str, &str, Value)| {
        vector["expect"] = json!(expect);
        let prefix = if expect == "valid" { "valid" } else { "refused" };
        (format!("{prefix}-{name}.json"), vector)
    };
    vectors.into_iter().map(named).collect()
}

fn bytes32(value: &Value) -> [u8; 32] {
    hex::decode(value.as_str().unwrap()).unwrap().try_into().unwrap()
}

/// Judges a vector with nothing but what is in it.
fn judge(vector: &Value) -> Result<(), Refusal> {
    let base64 = |value: &Value| base64_decode(value.as_str().unwrap()).unwrap();
    let list = |name: &str| vector[name].as_array().unwrap().iter();
    let boot = |boot: &Value| {
        let pcr = |pcr: &Value| (pcr["pcr"].as_u64().unwrap() as u8, bytes32(&pcr["value"]));
        let pcrs = boot["pcrs"].as_array().unwrap().iter().map(pcr).collect();
        let name = boot["name"].as_str().unwrap().to_owned();
        KnownBoot { reference: Reference { name, pcrs }, until: boot["untilMillis"].as_u64() }
    };
    let policy = Policy {
        fleet: vector["fleet"].as_str().unwrap().into(),
        registrar: bytes32(&vector["registrar"]),
        boot: BootPolicy::Judged {
            known: list("boots").map(boot).collect(),
            secure_boot: vector["secureBoot"].as_bool().unwrap(),
        },
        bad_firmware: list("badFirmware").map(|version| version.as_u64().unwrap()).collect(),
    };
    let now = vector["nowMillis"].as_u64().unwrap();
    let manufacturers = Manufacturers::new(&list("roots").map(base64).collect::<Vec<_>>(), &[]).unwrap();
    let malformed = |error: der::DerError| Refusal::new(Code::Malformed, error.to_string());
    let request = Request::decode(&base64(&vector["request"])).map_err(malformed)?;
    let presented = Presented::judge(request, &policy, &manufacturers, now)?;
    let evidence = Evidence::decode(&base64(&vector["evidence"])).map_err(malformed)?;
    let (nonce, channel, secret) =
        (bytes32(&vector["nonce"]), bytes32(&vector["channel"]), bytes32(&vector["secret"]));
    let posed = Posed { nonce: &nonce, channel: &channel, secret: &secret };
    match presented.prove(&evidence, &posed, &policy, now) {
        Ok(_) => Ok(()),
        Err(Failed::Anonymous(refusal) | Failed::ByTheBox(refusal)) => Err(refusal),
    }
}

fn text(vector: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(vector).unwrap())
}

#[test]
fn the_vectors_are_what_this_source_makes() {
    let all = all();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        let _absent = fs::remove_dir_all(directory());
        fs::create_dir_all(directory()).unwrap();
        for (name, vector) in &all {
            fs::write(directory().join(name), text(vector)).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        found.insert(entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap());
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (name, vector) in &all {
        assert_eq!(found[name], text(vector), "{name}");
    }
}

#[test]
fn every_vector_is_judged_as_it_says() {
    let (mut valid, mut refused) = (0, 0);
    let mut codes = std::collections::BTreeSet::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let expect = vector["expect"].as_str().unwrap();
        let found = judge(&vector);
        match found {
            Ok(()) => valid += 1,
            Err(_) => refused += 1,
        }
        let found = found.err().map_or("valid", |refusal| refusal.code.name());
        assert_eq!(found, expect, "{}", path.display());
        codes.insert(found);
    }
    assert!(valid >= 5 && refused > 4 * valid, "{valid} valid, {refused} refused");
    // Those that follow from the registrar's books or from people are not in vectors.
    let elsewhere = 43 - (codes.len() - 1);
    assert_eq!(elsewhere, 10, "{codes:?}");
}

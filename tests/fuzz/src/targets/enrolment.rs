//! Messages of an enrolment, what a registrar keeps of it, and certificates of endorsement keys.
//!
//! Holds: what is taken is encoded back to the same bytes; evidence that is believed says what the genuine TPM said; a
//! certificate that is believed is the one that the manufacturer signed.

use super::{seed, split};
use bulla_enrolment::boot::BootPolicy;
use bulla_enrolment::endorsement::Manufacturers;
use bulla_enrolment::evidence::{Policy, Posed, Presented};
use bulla_enrolment::record::Record;
use bulla_enrolment::wire::{Answer, Evidence, Pending, Refused, Request};
use bulla_formats::der::{Octets32, encode, first_element};
use bulla_formats::json::base64_decode;
use bulla_formats::tpm::TpmtPublic;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CHOICES: u8 = 5;

/// One of `tests/vectors-enrolment` that is valid, judged without its boot.
struct Genuine {
    manufacturers: Manufacturers,
    policy: Policy,
    now: u64,
    request: Vec<u8>,
    presented: Presented,
    evidence: Vec<u8>,
    posed: [[u8; 32]; 3],
}

static GENUINE: LazyLock<Genuine> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors-enrolment/valid-p256.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vector: Value = serde_json::from_slice(&text).expect("vectors are JSON");
    let bytes = |name: &str| base64_decode(vector[name].as_str().expect("a text")).expect("base64");
    let number = |name: &str| -> [u8; 32] {
        let bytes = hex::decode(vector[name].as_str().expect("a text")).expect("hex");
        bytes.try_into().expect("32 bytes")
    };
    let roots = vector["roots"].as_array().expect("a list").iter();
    let roots: Vec<_> =
        roots.map(|root| base64_decode(root.as_str().unwrap_or("")).expect("base64")).collect();
    let manufacturers = Manufacturers::new(&roots, &[]).expect("its roots are usable");
    let policy = Policy {
        fleet: vector["fleet"].as_str().expect("a text").into(),
        registrar: number("registrar"),
        boot: BootPolicy::NotJudged,
        bad_firmware: Vec::new(),
    };
    let now = vector["nowMillis"].as_u64().expect("a number");
    let request = bytes("request");
    let decoded = Request::decode(&request).expect("it is valid");
    let presented = Presented::judge(decoded, &policy, &manufacturers, now).expect("it is valid");
    let posed = [number("nonce"), number("channel"), number("secret")];
    Genuine { manufacturers, policy, now, request, presented, evidence: bytes("evidence"), posed }
});

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    let genuine = &*GENUINE;
    match choice {
        0 => {
            let Ok(request) = Request::decode(data) else { return };
            assert_eq!(encode(&request), data);
            let judged = Presented::judge(request, &genuine.policy, &genuine.manufacturers, genuine.now);
            let Ok(presented) = judged else { return };
            let (found, expected) = (presented.endorsed, &genuine.presented.endorsed);
            assert_eq!(found.ek_spki_sha256, expected.ek_spki_sha256, "a TPM that nobody made");
        }
        1 => {
            let Ok(evidence) = Evidence::decode(data) else { return };
            assert_eq!(encode(&evidence), data);
            let [nonce, channel, secret] = &genuine.posed;
            let posed = Posed { nonce, channel, secret };
            if genuine.presented.prove(&evidence, &posed, &genuine.policy, genuine.now).is_err() {
                return;
            }
            let expected = Evidence::decode(&genuine.evidence).expect("it is valid");
            let said = |evidence: &Evidence| {
                let parts = [&evidence.tls_key, &evidence.issuing_key, &evidence.counter];
                let attests = parts.map(|part| part.attest.clone());
                (evidence.quote.attest.clone(), evidence.quote.pcrs.clone(), attests, evidence.activation)
            };
            assert_eq!(said(&evidence), said(&expected), "a TPM said something else");
        }
        2 => drop(Answer::decode(data).map(|answer| assert_eq!(answer.encode(), data))),
        3 => {
            let Ok(record) = Record::decode(data) else { return };
            assert_eq!(record.encode(), data);
            assert_eq!(record.request().transcript(), record.transcript());
            drop(record.clone().approve("", "nobody", 0).map(|_| panic!("approved without a word")));
        }
        _ => {
            let request = &genuine.presented.request;
            let ek = TpmtPublic::parse(&request.ek_public).expect("it is valid");
            let chain = [data.to_vec(), request.ek_certificates[1].to_vec()];
            if genuine.manufacturers.judge(&ek, &chain, genuine.now).is_ok() {
                let signed = first_element(&request.ek_certificates[0]);
                assert_eq!(first_element(data), signed, "a certificate that nobody signed");
            }
        }
    }
}

/// The genuine one, what it leads to, and its certificate.
pub fn seeds() -> Vec<Vec<u8>> {
    let genuine = &*GENUINE;
    let transcript = Octets32::new(genuine.presented.transcript.0);
    let pending = Pending { version: 1, transcript, since: genuine.now };
    let (code, sentence) = ("quote".into(), "The quote does not hold.".into());
    let refused = Refused { version: 1, transcript: Some(transcript), code, sentence };
    let requested = Record {
        version: 1,
        request: genuine.request.clone().into(),
        received_at: genuine.now,
        described: "id:43485053".into(),
        manufacturer: "CN=Chip Works".into(),
        proven: None,
        approved: None,
        refused: None,
        issued: None,
    };
    let declined = requested.clone().decline("not ours", "Ada", genuine.now).expect("it is undecided");
    vec![
        seed(0, &genuine.request),
        seed(1, &genuine.evidence),
        seed(2, Answer::Pending(pending).encode()),
        seed(2, Answer::Refused(refused).encode()),
        seed(3, requested.encode()),
        seed(3, declined.encode()),
        seed(4, &genuine.presented.request.ek_certificates[0]),
    ]
}

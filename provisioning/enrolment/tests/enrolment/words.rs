//! The messages as bytes: one spelling, limits, and proofs that never serve two purposes.

use crate::maker::NOW;
use crate::scene::{CHANNEL, Scene};
use bulla_enrolment::proof::{Proofs, Purpose};
use bulla_enrolment::record::Record;
use bulla_enrolment::wire::{Answer, Evidence, Pending, Refused, Remark, Request};
use bulla_formats::der::{self, Octets32};
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn what_is_read_is_what_would_be_written() {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    let (request, evidence) = (der::encode(&scene.request), der::encode(&evidence));
    assert_eq!(der::encode(&Request::decode(&request).unwrap()), request);
    assert_eq!(der::encode(&Evidence::decode(&evidence).unwrap()), evidence);
    let answers = [
        Answer::Challenge(challenge.clone()),
        Answer::Pending(Pending { version: 1, transcript: challenge.transcript, since: 5 }),
        Answer::Refused(Refused {
            version: 1,
            transcript: None,
            code: "quote".into(),
            sentence: "No.".into(),
        }),
    ];
    for answer in answers {
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
        let mut longer = answer.encode();
        longer.push(0);
        assert!(Answer::decode(&longer).is_err());
    }
    for bytes in [&request, &evidence] {
        let cut = &bytes[..bytes.len() - 1];
        assert!(Request::decode(cut).is_err() && Evidence::decode(cut).is_err());
    }
    assert!(Request::decode(&evidence).is_err() && Evidence::decode(&request).is_err());
}

fn refused(change: impl FnOnce(&mut Request)) {
    let mut request = Scene::new().request;
    Request::decode(&der::encode(&request)).unwrap();
    change(&mut request);
    assert!(Request::decode(&der::encode(&request)).is_err(), "{request:?}");
}

#[test]
fn requests_keep_within_their_limits() {
    let remark = |name: &str, value: &str| vec![Remark { name: name.into(), value: value.into() }];
    refused(|request| request.version = 2);
    refused(|request| request.ek_certificates = vec![vec![1].into(); 9]);
    refused(|request| request.ek_certificates = vec![vec![1; 4097].into()]);
    refused(|request| request.tls_key = vec![1; 1025].into());
    refused(|request| request.event_log = vec![1; (1 << 20) + 1].into());
    refused(|request| request.remarks = vec![remark("a", "b").remove(0); 17]);
    refused(|request| request.remarks = remark("", "b"));
    refused(|request| request.remarks = remark("a", ""));
    refused(|request| request.remarks = remark("a", &"b".repeat(257)));
    refused(|request| request.remarks = remark(&"a".repeat(65), "b"));
    refused(|request| request.remarks = remark("a", "b\u{1b}[2J"));
}

#[test]
fn evidence_and_answers_keep_within_their_limits() {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let good = scene.evidence(&challenge);
    let changes: [fn(&mut Evidence); 5] = [
        |evidence| evidence.version = 2,
        |evidence| evidence.log_signature = vec![0; 63].into(),
        |evidence| evidence.counter.attest = vec![0; 1025].into(),
        |evidence| evidence.quote.signature = vec![0; 1025].into(),
        |evidence| evidence.quote.pcrs = vec![evidence.quote.pcrs[0].clone(); 25],
    ];
    for change in changes {
        let mut evidence = good.clone();
        change(&mut evidence);
        assert!(Evidence::decode(&der::encode(&evidence)).is_err());
    }
    let refusal = |code: &str, sentence: &str| {
        Answer::Refused(Refused {
            version: 1,
            transcript: None,
            code: code.into(),
            sentence: sentence.into(),
        })
    };
    for answer in [refusal("no-such-code", "No."), refusal("quote", ""), refusal("quote", "a\nb")] {
        assert!(Answer::decode(&answer.encode()).is_err());
    }
    let mut late = challenge;
    late.expires_at = 1 << 63;
    assert!(Answer::decode(&Answer::Challenge(late).encode()).is_err());
}

#[test]
fn a_record_skips_no_step() {
    let mut scene = Scene::new();
    let record = scene.proven();
    let approved = {
        let heard = bulla_enrolment::proof::fingerprint(&record.transcript());
        record.clone().approve(&heard, "Ada", NOW).unwrap()
    };
    crate::issuing::admit(&mut scene, &approved);
    let issued = crate::issuing::issue(&scene, approved.clone()).unwrap();
    let wrong = [
        Record { proven: None, ..approved.clone() },
        Record { approved: None, ..issued.clone() },
        Record { refused: record.clone().decline("no", "Ada", NOW).unwrap().refused, ..issued.clone() },
        Record { version: 2, ..record.clone() },
        Record { received_at: 1 << 63, ..record.clone() },
        Record { request: vec![0x30, 0].into(), ..record },
    ];
    for record in wrong {
        assert!(Record::decode(&record.encode()).is_err());
    }
    Record::decode(&issued.encode()).unwrap();
}

/// Each thing that a proof is bound to makes it another.
#[test]
fn a_proof_is_bound_to_everything() {
    const PURPOSES: [Purpose; 6] = [
        Purpose::Activation,
        Purpose::Quote,
        Purpose::TlsKey,
        Purpose::IssuingKey,
        Purpose::Counter,
        Purpose::LogKey,
    ];
    let request = Scene::new().request;
    let mut seen = BTreeSet::new();
    let mut all = |request: &Request, nonce: [u8; 32], channel: [u8; 32]| {
        let proofs = Proofs::new(request, &nonce, &channel).unwrap();
        for purpose in PURPOSES {
            assert!(seen.insert(proofs.qualifying(purpose)), "{purpose:?} came twice");
        }
    };
    all(&request, [1; 32], CHANNEL);
    all(&request, [2; 32], CHANNEL);
    all(&request, [1; 32], [2; 32]);
    all(&Request { nonce: Octets32::new([3; 32]), ..request.clone() }, [1; 32], CHANNEL);
    all(&Request { registrar: Octets32::new([3; 32]), ..request.clone() }, [1; 32], CHANNEL);
    all(&Request { origin: "a/b/c".into(), ..request.clone() }, [1; 32], CHANNEL);
    all(&Request { event_log: vec![1].into(), ..request }, [1; 32], CHANNEL);
}

proptest! {
    #[test]
    fn bytes_are_read_one_way_or_not_at_all(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(der::encode(&request), bytes.clone());
        }
        if let Ok(evidence) = Evidence::decode(&bytes) {
            prop_assert_eq!(der::encode(&evidence), bytes.clone());
        }
        if let Ok(answer) = Answer::decode(&bytes) {
            prop_assert_eq!(answer.encode(), bytes);
        }
    }
}
#[test]
fn tags_are_implicit() {
    let transcript = Octets32::new([0x5a; 32]);
    let pending = Answer::Pending(Pending { version: 1, transcript, since: 5 }).encode();
    assert_eq!(pending[..7], [0xa1, 0x28, 0x02, 0x01, 0x01, 0x04, 0x20]);
    let (code, sentence) = ("quote".into(), "No.".into());
    let refused = Refused { version: 1, transcript: Some(transcript), code, sentence };
    assert_eq!(Answer::Refused(refused).encode()[..7], [0xa3, 0x31, 0x02, 0x01, 0x01, 0x80, 0x20]);
}

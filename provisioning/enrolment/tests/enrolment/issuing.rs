//! What an approved box gets, and that nobody else does.

use crate::chip::key;
use crate::maker::NOW;
use crate::scene::{FLEET, Scene, ek_hash, manufacturers};
use bulla_enrolment::issue::{FleetCa, IssueError, ReceiptError};
use bulla_enrolment::proof::fingerprint;
use bulla_enrolment::record::{Record, Stage};
use bulla_enrolment::refusal::Code;
use bulla_enrolment::registrar::Standing;
use bulla_enrolment::wire::{Answer, Issued};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{Enrolment, FleetCertificate, FleetCertificateContent, FleetRole};
use bulla_formats::tpm::TpmtPublic;
use ed25519_dalek::{Signer, SigningKey};
use std::time::Duration;
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::BasicConstraints;

const YEAR: u64 = 365 * 24 * 3_600 * 1_000;

fn root() -> SigningKey {
    SigningKey::from_bytes(&[0x60; 32])
}

fn fleet_ca(not_after: u64) -> FleetCa {
    let key = SigningKey::from_bytes(&[0x61; 32]);
    let content = FleetCertificateContent {
        version: 1,
        fleet: FLEET.into(),
        role: FleetRole::FleetCa,
        public_key: Octets32::new(key.verifying_key().to_bytes()),
        not_before: NOW - YEAR,
        not_after,
    };
    let signature = root().sign(&content.message()).to_bytes().to_vec().into();
    FleetCa {
        root: root().verifying_key().to_bytes(),
        chain: vec![FleetCertificate { content, signature }],
        key,
    }
}

/// The people make the box of a record a member, as of the moment of its approval.
pub fn admit(scene: &mut Scene, record: &Record) {
    let at = record.approved.as_ref().unwrap().at;
    scene.shelf.members.push(record.request().content(at).unwrap());
}

pub fn issue(scene: &Scene, record: Record) -> Result<Record, IssueError> {
    fleet_ca(NOW + 9 * YEAR).issue(record, &scene.shelf, &scene.policy, &manufacturers(&scene.maker))
}

fn approved(scene: &mut Scene) -> Record {
    let record = scene.proven();
    let heard = fingerprint(&record.transcript());
    record.approve(&heard, "Ada", NOW + 2).unwrap()
}

fn issued(scene: &mut Scene) -> Issued {
    let approved = approved(scene);
    admit(scene, &approved);
    issue(scene, approved).unwrap().issued.unwrap().issued
}

#[test]
fn an_approved_box_gets_what_it_asked_for() {
    let mut scene = Scene::new();
    let approved = approved(&mut scene);
    assert_eq!(issue(&scene, approved.clone()), Err(IssueError::NotYet));
    admit(&mut scene, &approved);
    let record = issue(&scene, approved.clone()).unwrap();
    assert_eq!(record.stage(), Stage::Issued);
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    // Made again after a crash, it is the same byte for byte; asked for again, it stays.
    assert_eq!(issue(&scene, approved).unwrap(), record);
    assert_eq!(issue(&scene, record.clone()).unwrap(), record);
    scene.shelf.keep(&record);
    let Answer::Issued(issued) = scene.ask() else { panic!("not issued") };
    let verified = issued.check(&scene.request).unwrap();
    assert_eq!(verified.content().enrolled_at, NOW + 2);
    assert!(!verified.by_root());
    let decoded = Answer::decode(&Answer::Issued(issued.clone()).encode()).unwrap();
    assert_eq!(decoded, Answer::Issued(issued));
}

#[test]
fn certificates_are_of_the_keys_in_the_tpm() {
    let mut scene = Scene::new();
    let issued = issued(&mut scene);
    let read = |bytes: &[u8]| Certificate::from_der(bytes).unwrap();
    let (authority, tls, issuing) =
        (read(&issued.authority), read(&issued.tls_certificate), read(&issued.issuing_certificate));
    let ca = ed25519_dalek::VerifyingKey::from_bytes(
        authority
            .tbs_certificate()
            .subject_public_key_info()
            .subject_public_key
            .raw_bytes()
            .try_into()
            .unwrap(),
    )
    .unwrap();
    for certificate in [&authority, &tls, &issuing] {
        let signed = certificate.tbs_certificate().to_der().unwrap();
        let signature = ed25519_dalek::Signature::from_slice(certificate.signature().raw_bytes()).unwrap();
        ca.verify_strict(&signed, &signature).unwrap();
        assert_eq!(certificate.tbs_certificate().issuer(), authority.tbs_certificate().subject());
    }
    for (certificate, key) in [(&tls, &scene.request.tls_key), (&issuing, &scene.request.issuing_key)] {
        let spki = certificate.tbs_certificate().subject_public_key_info().to_der().unwrap();
        assert_eq!(spki, TpmtPublic::parse(key).unwrap().spki_der());
        let validity = certificate.tbs_certificate().validity();
        assert!(validity.not_before.to_unix_duration() <= Duration::from_millis(NOW));
        assert!(validity.not_after.to_unix_duration() > Duration::from_millis(NOW + 4 * YEAR));
    }
    let constraints = |certificate: &Certificate| {
        let found = certificate.tbs_certificate().get_extension::<BasicConstraints>().unwrap();
        found.map(|(_, constraints)| (constraints.ca, constraints.path_len_constraint))
    };
    assert_eq!(constraints(&authority), Some((true, Some(1))));
    assert_eq!(constraints(&issuing), Some((true, Some(0))));
    assert!(constraints(&tls).is_none_or(|(ca, _)| !ca));
    assert_ne!(tls.tbs_certificate().serial_number(), issuing.tbs_certificate().serial_number());
    let text = tls.tbs_certificate().subject().to_string();
    assert!(text.contains(FLEET) && text.contains("tls"), "{text}");
}

#[test]
fn nothing_is_issued_that_nobody_approved() {
    let mut scene = Scene::new();
    scene.challenge();
    let requested = scene.record();
    assert!(matches!(issue(&scene, requested), Err(IssueError::Step(_))));
    let proven = scene.proven();
    assert!(matches!(issue(&scene, proven.clone()), Err(IssueError::Step(_))));
    let declined = proven.decline("not ours", "Ada", NOW).unwrap();
    assert!(matches!(issue(&scene, declined), Err(IssueError::Step(_))));
}

#[test]
fn what_changed_since_the_approval_counts() {
    let refused = |result: Result<Record, IssueError>| match result.unwrap_err() {
        IssueError::Refusal(refusal) => refusal.code,
        other => panic!("{other}"),
    };
    let mut scene = Scene::new();
    let record = approved(&mut scene);
    admit(&mut scene, &record);
    scene.shelf.standing.insert(ek_hash(&scene.chip), Standing::Tombstoned { reason: "stolen".into() });
    assert_eq!(refused(issue(&scene, record.clone())), Code::EkTombstoned);
    scene.shelf.standing.insert(ek_hash(&scene.chip), Standing::Expected);
    // A CA that has ended, and one that the root does not know.
    let ended = fleet_ca(NOW - 1);
    let issued = ended.issue(record.clone(), &scene.shelf, &scene.policy, &manufacturers(&scene.maker));
    assert_eq!(refused(issued), Code::FleetCertificate);
    let stranger = FleetCa { root: [7; 32], ..fleet_ca(NOW + YEAR) };
    let issued = stranger.issue(record.clone(), &scene.shelf, &scene.policy, &manufacturers(&scene.maker));
    assert_eq!(refused(issued), Code::FleetCertificate);
    // The people have made another log a member under this origin.
    let log_key = SigningKey::from_bytes(&[0x55; 32]).verifying_key().to_bytes();
    scene.shelf.members[0].log_key = Octets32::new(log_key);
    assert_eq!(refused(issue(&scene, record.clone())), Code::OriginTaken);
    // The same log with other certificates is not what they approved either.
    scene.shelf.members.clear();
    admit(&mut scene, &record);
    scene.shelf.members[0].ek_certificates.truncate(1);
    assert_eq!(refused(issue(&scene, record.clone())), Code::OriginTaken);
    scene.shelf.members.clear();
    admit(&mut scene, &record);
    issue(&scene, record).unwrap();
}

#[test]
fn a_box_takes_only_what_it_asked_for() {
    let mut scene = Scene::new();
    let good = issued(&mut scene);
    good.check(&scene.request).unwrap();
    let mut other_request = scene.request.clone();
    other_request.nonce = Octets32::new([1; 32]);
    assert_eq!(good.check(&other_request).unwrap_err(), ReceiptError::OtherRequest);
    let mut wrong_root = good.clone();
    wrong_root.root = Octets32::new([1; 32]);
    assert!(matches!(wrong_root.check(&scene.request), Err(ReceiptError::Enrolment(_))));
    // The fleet enrols something else than what was asked: another log key, another attestation key.
    let altered = |change: &dyn Fn(&mut Enrolment)| {
        let mut enrolment = Enrolment::decode(&good.enrolment).unwrap();
        change(&mut enrolment);
        let ca = SigningKey::from_bytes(&[0x61; 32]);
        enrolment.signature = ca.sign(&enrolment.content.message()).to_bytes().to_vec().into();
        let issued = Issued { enrolment: der::encode(&enrolment).into(), ..good.clone() };
        issued.check(&scene.request).unwrap_err()
    };
    let log_key = SigningKey::from_bytes(&[0x55; 32]).verifying_key().to_bytes();
    let found = altered(&|enrolment| enrolment.content.log_key = Octets32::new(log_key));
    assert_eq!(found, ReceiptError::Other("log key"));
    let other = crate::chip::signing_public(&key(9), crate::chip::AK_ATTRIBUTES);
    let found = altered(&|enrolment| enrolment.content.attestation_key = other.clone().into());
    assert_eq!(found, ReceiptError::Other("attestation key"));
    let found = altered(&|enrolment| enrolment.content.origin.push('1'));
    assert_eq!(found, ReceiptError::Other("origin"));
    let mut unsigned = Enrolment::decode(&good.enrolment).unwrap();
    unsigned.content.enrolled_at += 1;
    let unsigned = Issued { enrolment: der::encode(&unsigned).into(), ..good };
    assert!(matches!(unsigned.check(&scene.request), Err(ReceiptError::Enrolment(_))));
}

//! Logs that are staged for members: who may ask for one, and what people have to say.

use crate::chip::{AK_ATTRIBUTES, key, signing_public};
use crate::issuing::{admit, issue};
use crate::maker::NOW;
use crate::scene::{Scene, code, ek_hash};
use bulla_enrolment::record::{Record, StepError};
use bulla_enrolment::registrar::{Book, Standing};
use bulla_enrolment::wire::{Answer, Request};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::origin::Origin;
use ed25519_dalek::SigningKey;

/// The box is a member with the log before the one it asks for.
pub fn member() -> Scene {
    let mut scene = Scene::new();
    let asked = scene.request.content(NOW).unwrap();
    let before = Origin::derive(&asked.fleet, &ek_hash(&scene.chip), scene.chip.counter - 1).unwrap();
    let log_key = SigningKey::from_bytes(&[0x71; 32]).verifying_key().to_bytes();
    let origin = before.as_str().to_owned();
    scene.request.in_use = Some(origin.clone());
    scene.shelf.members.push(EnrolmentContent { origin, log_key: Octets32::new(log_key), ..asked });
    scene
}

#[test]
fn a_member_gets_its_next_log_when_people_say_so() {
    let mut scene = member();
    let record = scene.proven();
    assert!(record.is_staged());
    assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    let approved = record.clone().approve_staged("Ada", NOW + 2).unwrap();
    assert_eq!(
        approved.clone().approve_staged("Ada", NOW + 3).unwrap_err().to_string(),
        "the enrolment is approved; only proven ones can be approved"
    );
    assert!(record.approve_staged(" ", NOW + 2).is_err());
    // Nothing is issued before the roster has it.
    assert!(issue(&scene, approved.clone()).is_err());
    admit(&mut scene, &approved);
    let issued = issue(&scene, approved).unwrap();
    issued.issued.as_ref().unwrap().issued.check(&scene.request).unwrap();
    scene.shelf.keep(&issued);
    assert!(matches!(scene.ask(), Answer::Issued(_)));
    // Who asks to become a member cannot be let in without a fingerprint.
    let newcomer = Scene::new().proven();
    assert!(!newcomer.is_staged());
    assert_eq!(newcomer.approve_staged("Ada", NOW), Err(StepError::Fingerprint));
}

#[test]
fn nobody_else_has_a_log_staged() {
    let refused = |change: &dyn Fn(&mut Scene)| {
        let mut scene = member();
        change(&mut scene);
        code(&scene.ask()).to_owned()
    };
    assert_eq!(refused(&|scene| scene.shelf.members.clear()), "log-in-use");
    let later = |scene: &mut Scene| {
        scene.request.in_use = Some(scene.request.origin.clone());
    };
    assert_eq!(refused(&later), "log-in-use");
    // The attestation key is another one than that of the log in use: a new TPM state, or not that TPM at all.
    let other = |scene: &mut Scene| {
        scene.shelf.members[0].attestation_key = signing_public(&key(9), AK_ATTRIBUTES).into();
    };
    assert_eq!(refused(&other), "log-in-use");
    let gone = |scene: &mut Scene| {
        let gone = Standing::Tombstoned { reason: "stolen".into() };
        scene.shelf.standing.insert(ek_hash(&scene.chip), gone);
    };
    assert_eq!(refused(&gone), "ek-tombstoned");
    // What was admissible when it was approved is judged again when it is issued.
    let mut scene = member();
    let approved = scene.proven().approve_staged("Ada", NOW + 2).unwrap();
    admit(&mut scene, &approved);
    scene.shelf.members.remove(0);
    assert!(
        issue(&scene, approved).unwrap_err().to_string().contains("staged"),
        "another log is in use by now"
    );
    assert!(scene.shelf.log_in_use(&ek_hash(&scene.chip)).is_some());
}

#[test]
fn the_log_in_use_is_an_origin() {
    let mut request = member().request;
    Request::decode(&der::encode(&request)).unwrap();
    for wrong in ["", "one", "bank.example/1"] {
        request.in_use = Some(wrong.into());
        assert!(Request::decode(&der::encode(&request)).is_err(), "{wrong}");
    }
}

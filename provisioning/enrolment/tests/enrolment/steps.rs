//! The registrar step by step: killed anywhere, asked twice, asked by strangers.

use crate::chip::Chip;
use crate::maker::{Maker, NOW};
use crate::scene::{CHANNEL, Scene, code, ek_hash};
use bulla_enrolment::proof::{claim_code, fingerprint};
use bulla_enrolment::record::{Record, Stage, StepError};
use bulla_enrolment::registrar::{CHALLENGE_MILLIS, CHALLENGES_MAX, Standing};
use bulla_enrolment::wire::Answer;
use bulla_formats::der;
use bulla_formats::hash::Hash;

#[test]
fn a_chip_of_either_curve_is_enrolled_up_to_the_persons_word() {
    for chip in [Chip::new(10), Chip::with_p384(20)] {
        let mut scene = Scene::with(chip, Maker::new(100));
        let record = scene.proven();
        assert_eq!(record.stage(), Stage::Proven);
        let proven = record.proven.as_ref().unwrap();
        assert_eq!((proven.boot.as_str(), proven.secure_boot.as_str()), ("image 1.2.0", "on"));
        assert_eq!(record.described, "id:43485053 C-1 id:00010002");
        assert_eq!(Record::decode(&record.encode()).unwrap(), record);
    }
}

/// What is kept after each step decides alone how the conversation goes on.
#[test]
fn killed_at_every_step_the_registrar_takes_up_where_it_was() {
    let mut scene = Scene::new();
    // Killed before the request was kept: nothing is known, the box asks again.
    let request = der::encode(&scene.request);
    let lost = scene.ask_bytes(&request, &CHANNEL, NOW);
    assert!(lost.keep.is_some());
    scene.restart();
    // Killed between keeping and answering: the same request gets another challenge, and nothing new is kept.
    let first = scene.challenge();
    scene.restart();
    let step = scene.ask_bytes(&request, &CHANNEL, NOW);
    assert!(step.keep.is_none());
    let Answer::Challenge(second) = step.answer else { panic!("{:?}", step.answer) };
    assert_ne!(first.nonce, second.nonce);
    // Killed with the challenge out: the evidence finds none, and the box asks again.
    scene.restart();
    let stale = scene.evidence(&second);
    assert_eq!(code(&scene.prove(&stale)), "challenge-unknown");
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    // Killed before the proof was kept: the challenge is spent, and the box asks again.
    let lost = scene.registrar.prove(&scene.shelf, &der::encode(&evidence), NOW);
    assert!(matches!(lost.answer, Answer::Pending(_)) && lost.keep.is_some());
    scene.restart();
    assert_eq!(code(&scene.prove(&evidence)), "challenge-unknown");
    // Killed after it was kept, before the answer: whatever the box does now, it hears that a person must decide.
    scene.proven();
    scene.restart();
    let transcript = scene.request.transcript();
    assert!(matches!(scene.prove(&evidence), Answer::Pending(_)));
    assert!(matches!(scene.ask(), Answer::Pending(_)));
    assert!(matches!(scene.registrar.poll(&scene.shelf, &transcript), Answer::Pending(_)));
    // Approved and killed before anything was issued.
    let approved = scene.record().approve(&fingerprint(&transcript), "Ada", NOW + 2).unwrap();
    scene.shelf.keep(&approved);
    scene.restart();
    assert!(matches!(scene.ask(), Answer::Pending(_)));
}

#[test]
fn a_challenge_is_used_once_and_lives_five_minutes() {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    let late = scene.registrar.prove(&scene.shelf, &der::encode(&evidence), NOW + CHALLENGE_MILLIS + 1);
    assert_eq!(code(&late.answer), "challenge-expired");
    assert!(late.keep.is_none());
    // It is gone, even for whoever turns the clock back.
    assert_eq!(code(&scene.prove(&evidence)), "challenge-unknown");
    // The last moment still counts.
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    let just = scene.registrar.prove(&scene.shelf, &der::encode(&evidence), NOW + CHALLENGE_MILLIS);
    assert!(matches!(just.answer, Answer::Pending(_)), "{:?}", just.answer);
}

#[test]
fn many_challenges_do_not_pile_up() {
    let mut scene = Scene::new();
    let first = scene.challenge();
    let honest = scene.request.clone();
    for number in 0..CHALLENGES_MAX {
        scene.request.nonce = der::Octets32::new([0; 32]);
        scene.request.remarks[0].value = number.to_string();
        let request = der::encode(&scene.request);
        let step = scene.ask_bytes(&request, &CHANNEL, NOW + 1 + number as u64);
        assert!(matches!(step.answer, Answer::Challenge(_)));
    }
    // The oldest gave way, and its box is told to ask again.
    scene.request = honest;
    let evidence = scene.evidence(&first);
    assert_eq!(code(&scene.prove(&evidence)), "challenge-unknown");
}

#[test]
fn only_a_tpm_that_is_listed_gets_a_challenge() {
    let mut scene = Scene::new();
    let ek = ek_hash(&scene.chip);
    scene.shelf.standing.remove(&ek);
    let request = der::encode(&scene.request);
    let step = scene.ask_bytes(&request, &CHANNEL, NOW);
    assert_eq!(code(&step.answer), "ek-unknown");
    assert_eq!(step.quarantine, Some((ek, "id:43485053 C-1 id:00010002".into())));
    assert!(step.keep.is_none());
    // People list it and hold it back, then let it go: the same request goes on.
    scene.shelf.standing.insert(ek, Standing::Quarantined);
    assert_eq!(code(&scene.ask()), "ek-quarantined");
    scene.shelf.standing.insert(ek, Standing::Expected);
    scene.proven();
}

#[test]
fn a_tombstone_counts_at_every_step() {
    let bury = |scene: &mut Scene| {
        let tombstone = Standing::Tombstoned { reason: "stolen in May".into() };
        scene.shelf.standing.insert(ek_hash(&scene.chip), tombstone);
    };
    let mut scene = Scene::new();
    bury(&mut scene);
    let answer = scene.ask();
    assert_eq!(code(&answer), "ek-tombstoned");
    let Answer::Refused(refused) = answer else { unreachable!() };
    assert!(refused.sentence.contains("stolen in May"));
    assert!(scene.shelf.records.is_empty());
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    bury(&mut scene);
    assert_eq!(code(&scene.prove(&evidence)), "ek-tombstoned");
    let mut scene = Scene::new();
    scene.proven();
    bury(&mut scene);
    assert_eq!(code(&scene.ask()), "ek-tombstoned");
}

#[test]
fn strangers_cannot_spoil_an_enrolment() {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    let mut junk = scene.evidence(&challenge);
    junk.activation = der::Octets32::new([0; 32]);
    assert_eq!(code(&scene.prove(&junk)), "activation");
    assert_eq!(scene.record().stage(), Stage::Requested);
    let unknown = Hash([9; 32]);
    assert_eq!(code(&scene.registrar.poll(&scene.shelf, &unknown)), "request-unknown");
    junk.transcript = der::Octets32::new(unknown.0);
    assert_eq!(code(&scene.prove(&junk)), "request-unknown");
    let step = scene.registrar.prove(&scene.shelf, b"junk", NOW);
    assert_eq!(code(&step.answer), "malformed");
    scene.proven();
}

#[test]
fn what_the_box_itself_got_wrong_stays_refused() {
    let mut scene = Scene::new();
    let challenge = scene.challenge();
    scene.chip.firmware = 0xbad;
    let evidence = scene.evidence(&challenge);
    assert_eq!(code(&scene.prove(&evidence)), "tpm-firmware");
    assert_eq!(scene.record().stage(), Stage::Refused);
    // The firmware is updated since, but this request is over.
    scene.chip.firmware = 1;
    assert_eq!(code(&scene.ask()), "tpm-firmware");
    assert_eq!(code(&scene.prove(&evidence)), "tpm-firmware");
    scene.request.nonce = der::Octets32::new([0x78; 32]);
    scene.proven();
}

#[test]
fn people_decide_with_the_fingerprint_in_their_ear() {
    let mut scene = Scene::new();
    let transcript = scene.request.transcript();
    let (heard, by) = (fingerprint(&transcript), "Ada");
    assert_eq!(heard.len(), 24);
    assert!(heard.starts_with(&claim_code(&transcript)) && claim_code(&transcript).len() == 9);
    let asked = scene.challenge();
    assert!(matches!(scene.record().approve(&heard, by, NOW), Err(StepError::Stage { is: "requested", .. })));
    let evidence = scene.evidence(&asked);
    scene.prove(&evidence);
    let record = scene.record();
    for wrong in
        ["", &heard[..23], &claim_code(&transcript), &format!("{heard}0"), &fingerprint(&Hash([1; 32]))]
    {
        assert_eq!(record.clone().approve(wrong, by, NOW), Err(StepError::Fingerprint), "{wrong}");
    }
    for nobody in ["", " ", "a\u{7}"] {
        assert!(matches!(record.clone().approve(&heard, nobody, NOW), Err(StepError::Text(_))));
        assert!(matches!(record.clone().decline(nobody, by, NOW), Err(StepError::Text(_))));
    }
    let spoken = heard.to_lowercase().replace('-', " ").replace('1', "l").replace('0', "o");
    let approved = record.clone().approve(&spoken, by, NOW).unwrap();
    assert_eq!(approved.stage(), Stage::Approved);
    assert!(matches!(approved.clone().approve(&heard, by, NOW), Err(StepError::Stage { .. })));
    assert!(matches!(approved.decline("late", by, NOW), Err(StepError::Stage { .. })));
    let declined = record.decline("not ours", by, NOW).unwrap();
    scene.shelf.keep(&declined);
    let answer = scene.ask();
    assert_eq!(code(&answer), "declined");
    let Answer::Refused(refused) = answer else { unreachable!() };
    assert_eq!(refused.sentence, "Ada refused it: not ours");
}

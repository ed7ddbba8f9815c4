//! Boots: good ones, yesterday's, and what people do to event logs.

use crate::maker::NOW;
use crate::scene::{Event, Scene, boot_of, code, event_log, known, secure_boot_variable};
use bulla_appraisal::event_log::EventLog;
use bulla_appraisal::replay::{PcrValues, SecureBoot, replay};
use bulla_enrolment::boot::{Boot, BootPolicy, KnownBoot, judge};
use bulla_enrolment::refusal::{Code, Refusal};
use bulla_enrolment::wire::Answer;
use bulla_formats::hash::sha256;

const REAL_V2: &[u8] = include_bytes!("../../../appraisal/tests/logs/image-v2.eventlog");
const REAL_V3: &[u8] = include_bytes!("../../../appraisal/tests/logs/image-v3.eventlog");

fn values(log: &[u8]) -> PcrValues {
    let mut values = replay(&EventLog::parse(log).unwrap());
    for pcr in 0..8 {
        values.entry(pcr).or_default();
    }
    values
}

fn policy(known: Vec<KnownBoot>, secure_boot: bool) -> BootPolicy {
    BootPolicy::Judged { known, secure_boot }
}

fn refused(result: Result<Boot, Refusal>) -> (Code, String) {
    let refusal = result.unwrap_err();
    (refusal.code, refusal.sentence)
}

#[test]
fn n_minus_one_until_its_day_n_and_n_plus_one() {
    let (one, two, three) = (boot_of("1", 1), boot_of("2", 1), boot_of("3", 1));
    let boots =
        vec![known("image 1", &one, Some(NOW)), known("image 2", &two, None), known("image 3", &three, None)];
    let policy = policy(boots, true);
    for (log, name) in [(&one, "image 1"), (&two, "image 2"), (&three, "image 3")] {
        let boot = judge(&policy, &values(log), log, NOW).unwrap();
        assert_eq!((boot.name.as_deref(), boot.secure_boot), (Some(name), SecureBoot::On));
    }
    let (code, sentence) = refused(judge(&policy, &values(&one), &one, NOW + 1));
    assert_eq!(code, Code::BootOutdated);
    assert!(sentence.contains("image 1"), "{sentence}");
    judge(&policy, &values(&two), &two, NOW + 1).unwrap();
}

#[test]
fn what_differs_is_said() {
    let (good, other) = (boot_of("1.2.0", 1), boot_of("1.2.0-evil", 1));
    let policy = policy(vec![known("image 1.2.0", &good, None)], true);
    let (code, sentence) = refused(judge(&policy, &values(&other), &other, NOW));
    let (expected, got) = (hex::encode(values(&good)[&4]), hex::encode(values(&other)[&4]));
    assert_eq!(code, Code::BootUnknown);
    assert_eq!(sentence, format!("PCR 4 differs: expected {expected} from image 1.2.0, got {got}"));
    let none = BootPolicy::Judged { known: Vec::new(), secure_boot: false };
    assert_eq!(refused(judge(&none, &values(&good), &good, NOW)).0, Code::BootUnknown);
}

#[test]
fn real_boots_are_told_apart() {
    let policy = policy(vec![known("image 2", REAL_V2, None)], false);
    let boot = judge(&policy, &values(REAL_V2), REAL_V2, NOW).unwrap();
    assert_eq!((boot.name.as_deref(), boot.secure_boot), (Some("image 2"), SecureBoot::Off));
    let (code, sentence) = refused(judge(&policy, &values(REAL_V3), REAL_V3, NOW));
    assert!(code == Code::BootUnknown && sentence.starts_with("PCR 4 differs"), "{sentence}");
    // The log of the good boot beside the values of the other.
    assert_eq!(refused(judge(&policy, &values(REAL_V3), REAL_V2, NOW)).0, Code::EventLogDiffers);
    let strict = BootPolicy::Judged { known: vec![known("image 2", REAL_V2, None)], secure_boot: true };
    let (code, sentence) = refused(judge(&strict, &values(REAL_V2), REAL_V2, NOW));
    assert!(code == Code::SecureBoot && sentence.starts_with("Secure Boot was off"), "{sentence}");
}

/// The events of a boot, to be tampered with.
fn events<'a>(variable: &'a [u8], claimed: u32) -> Vec<Event<'a>> {
    vec![
        (7, claimed, sha256(&[variable]).0, variable),
        (4, 0x8000_0003, sha256(&[b"loader"]).0, b"path"),
        (0, 8, sha256(&[b"firmware"]).0, b"firmware"),
    ]
}

#[test]
fn types_decide_nothing() {
    let (off, on) = (secure_boot_variable(0), secure_boot_variable(1));
    let log_off = event_log(&events(&off, 0x8000_0001));
    let policy = policy(vec![known("image", &log_off, None)], true);
    let values = values(&log_off);
    let judged = |log: &[u8]| judge(&policy, &values, log, NOW);
    assert_eq!(refused(judged(&log_off)).0, Code::SecureBoot);
    // Other names for the same measurement change nothing about what was measured.
    for claimed in [0, 1, 4, 8, 0x8000_00e0, 0xffff_ffff] {
        assert_eq!(refused(judged(&event_log(&events(&off, claimed)))).0, Code::SecureBoot, "{claimed:#x}");
    }
    // Data that says "on" beside the digest of "off" is not what was measured.
    let mut forged = events(&off, 0x8000_0001);
    forged[0].3 = &on;
    let (code, sentence) = refused(judged(&event_log(&forged)));
    assert!(
        code == Code::SecureBoot && sentence.starts_with("nothing in the event log proves"),
        "{sentence}"
    );
    // Called "no action", the measurement of "off" is left out of the replay, and it comes out wrong.
    let mut hidden = events(&off, 3);
    hidden.insert(0, (7, 0x8000_0001, sha256(&[&on]).0, &on));
    assert_eq!(refused(judged(&event_log(&hidden))).0, Code::EventLogDiffers);
    // "On" put before it, as something that was never measured, is not looked at.
    let mut before = events(&off, 0x8000_0001);
    before.insert(0, (7, 3, sha256(&[&on]).0, &on));
    assert_eq!(refused(judged(&event_log(&before))).0, Code::SecureBoot);
    let mut after = events(&off, 0x8000_0001);
    after.push((7, 0x8000_0001, sha256(&[&on]).0, &on));
    assert_eq!(refused(judged(&event_log(&after))).0, Code::EventLogDiffers);
    let mut gone = events(&off, 0x8000_0001);
    gone.remove(1);
    assert_eq!(refused(judged(&event_log(&gone))).0, Code::EventLogDiffers);
    assert_eq!(refused(judged(&log_off[1..])).0, Code::EventLog);
    let (code, sentence) = refused(judged(&[]));
    assert!(code == Code::SecureBoot && sentence.contains("no event log"), "{sentence}");
}

#[test]
fn without_judgement_a_log_that_lies_is_still_refused() {
    let log = boot_of("any", 0);
    let boot = judge(&BootPolicy::NotJudged, &values(&log), &log, NOW).unwrap();
    assert_eq!(boot, Boot { name: None, secure_boot: SecureBoot::Off });
    let boot = judge(&BootPolicy::NotJudged, &values(&log), &[], NOW).unwrap();
    assert_eq!(boot.secure_boot, SecureBoot::NotProven);
    let mut other = values(&log);
    other.insert(4, [1; 32]);
    assert_eq!(refused(judge(&BootPolicy::NotJudged, &other, &log, NOW)).0, Code::EventLogDiffers);
}

/// Through the whole conversation: the values are those of the quote, not those of the log.
#[test]
fn a_box_cannot_send_another_boots_log() {
    let mut scene = Scene::new();
    scene.request.event_log = boot_of("1.3.0", 1).into();
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    assert_eq!(code(&scene.prove(&evidence)), "event-log-differs");
    let mut scene = Scene::new();
    let evil = boot_of("evil", 1);
    for (pcr, value) in values(&evil) {
        scene.chip.pcrs.insert(pcr, value);
    }
    scene.request.event_log = evil.into();
    let challenge = scene.challenge();
    let evidence = scene.evidence(&challenge);
    let answer = scene.prove(&evidence);
    assert_eq!(code(&answer), "boot-unknown");
    let Answer::Refused(refused) = answer else { unreachable!() };
    assert!(refused.sentence.starts_with("PCR 4 differs: expected "), "{}", refused.sentence);
}

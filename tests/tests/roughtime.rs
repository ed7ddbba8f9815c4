//! Roughtime: answers of others' servers are read, what was damaged is not, and each lie has its own name.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulla_authorities::roughtime::{self, Knobs};
use bulla_roughtime::{ANSWER_BYTES_MAX, Answer, Question, Refusal, ServerKey};
use std::path::Path;

const NOW: u64 = 1_790_000_000;

fn key(text: &str) -> ServerKey {
    ServerKey::new(&STANDARD.decode(text).unwrap().try_into().unwrap()).unwrap()
}

/// A vector: the question, its answer, and what that says.
fn vectors() -> Vec<(Question, Vec<u8>, Answer)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors-roughtime");
    let all = [
        ("recorded-int08h", "AW5uAoTSTDfG5NfY1bTh08GUnOqlRb+HVhbJ3ODJvsE=", 1_747_944_450),
        ("generated-v1", "GX9rI+FshTLGq8g4+s1ep4m+DHaykgM0A5v6iz02jWE=", 1_791_158_400),
    ];
    all.map(|(name, of, midpoint)| {
        let read = |kind: &str| std::fs::read(directory.join(format!("{name}.{kind}"))).unwrap();
        let question = Question::recorded(key(of), &read("request")).unwrap();
        assert_eq!(question.bytes(), read("request"));
        (question, read("answer"), Answer { midpoint, radius: 5 })
    })
    .into()
}

fn ours() -> Question {
    Question::new(ServerKey::new(&roughtime::public_key("a")).unwrap(), [9; 32]).unwrap()
}

fn replied(knobs: &Knobs) -> Vec<u8> {
    roughtime::reply("a", ours().bytes(), knobs, NOW).unwrap()
}

#[test]
fn answers_of_servers_that_others_have_written_are_read() {
    for (question, answer, says) in vectors() {
        assert_eq!(question.read(&answer), Ok(says));
        let (lo, hi) = says.bounds_millis();
        assert_eq!((lo, hi), ((says.midpoint - 5) * 1_000, (says.midpoint + 6) * 1_000));
    }
    let [(first, _, _), (_, second, _)] = &vectors()[..] else { panic!("two vectors") };
    assert_eq!(first.read(second), Err(Refusal::Version), "the recorded question offers the draft alone");
}

#[test]
fn both_versions_of_the_double_are_read_by_whoever_asks_now() {
    for draft in [false, true] {
        let answer =
            replied(&Knobs { draft, radius_seconds: 3, clock_offset_seconds: -7, ..Knobs::default() });
        assert!(answer.len() <= ANSWER_BYTES_MAX);
        assert_eq!(ours().read(&answer), Ok(Answer { midpoint: NOW - 7, radius: 3 }));
    }
    assert_eq!(ours().bytes().len(), 1_024, "no server becomes an amplifier by us");
    let other = Question::new(ServerKey::new(&roughtime::public_key("b")).unwrap(), [9; 32]).unwrap();
    assert!(other.read(&replied(&Knobs::default())).is_err(), "another server's key");
    let other = Question::new(ServerKey::new(&roughtime::public_key("a")).unwrap(), [8; 32]).unwrap();
    assert_eq!(other.read(&replied(&Knobs::default())), Err(Refusal::OtherQuestion));
}

#[test]
fn every_lie_has_its_name() {
    use roughtime::Answer as Lie;
    let said = |answer| ours().read(&replied(&Knobs { answer, ..Knobs::default() })).unwrap_err().code();
    for (lie, code) in [
        (Lie::OtherQuestion, "other-question"),
        (Lie::OtherNonce, "other-question"),
        (Lie::WrongKey, "delegation"),
        (Lie::WrongDelegate, "signature"),
        (Lie::ExpiredDelegation, "outside-delegation"),
        (Lie::WrongVersion, "unreadable"),
    ] {
        assert_eq!(said(lie), code, "{lie:?}");
    }
    let radius = |radius_seconds| ours().read(&replied(&Knobs { radius_seconds, ..Knobs::default() }));
    assert_eq!(radius(0), Err(Refusal::Radius(0)));
    assert_eq!(radius(60), Ok(Answer { midpoint: NOW, radius: 60 }));
    assert_eq!(radius(61), Err(Refusal::Radius(61)));
    assert_eq!(radius(u32::MAX), Err(Refusal::Radius(u32::MAX)));
    let beyond = Knobs { clock_offset_seconds: 253_402_300_800 - NOW as i64, ..Knobs::default() };
    assert_eq!(ours().read(&replied(&beyond)), Err(Refusal::NoTime(253_402_300_800)));
    assert_eq!(ours().read(&[0; ANSWER_BYTES_MAX + 1]), Err(Refusal::TooLong));
    let followed = [replied(&Knobs::default()), vec![0; 4]].concat();
    assert!(matches!(ours().read(&followed), Err(Refusal::Unreadable(_))));
}

#[test]
fn no_byte_of_an_answer_may_be_another_one() {
    for (question, answer, says) in vectors() {
        for at in 0..answer.len() {
            for bit in [1, 0x80] {
                let mut damaged = answer.clone();
                damaged[at] ^= bit;
                let read = question.read(&damaged);
                assert!(read.is_err(), "byte {at}, bit {bit:#x}: {read:?} instead of {says:?}");
            }
            assert!(question.read(&answer[..at]).is_err(), "its first {at} bytes");
        }
    }
}

#[test]
fn keys_that_sign_nothing_are_none() {
    for bytes in [[0; 32], [0xff; 32]] {
        assert_eq!(ServerKey::new(&bytes), None);
    }
    let mut identity = [0; 32];
    identity[0] = 1;
    assert_eq!(ServerKey::new(&identity), None, "anything verifies under a key of small order");
}

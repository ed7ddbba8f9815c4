//! The decisions about one folder, without a folder: a model of its files, of a worker, and of time.
//!
//! Method: scenes by hand, then random ones: files appear, grow, rest, are renamed and vanish; whatever the order, what is
//! sealed is what lay there at rest, and nothing is left waiting for ever.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_intake::complete::Format;
use bulla_intake::folder::{Census, Effect, Ending, Event, Finding, Folder, Millis, Stamp, Trouble};
use bulla_intake::key::{Content, Sidecar};
use bulla_intake::options::{Policy, Sidecars};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

const REST: Millis = 5_000;

fn stamp(version: u64) -> Stamp {
    Stamp { size: 10, modified_nanos: version, inode: 1 }
}

fn content(version: u64, sidecars: &[PathBuf]) -> Content {
    let sidecar = |name: &PathBuf| Sidecar { name: name.clone(), sha256: [9; 32] };
    let mut sha256 = [0; 32];
    sha256[..8].copy_from_slice(&version.to_be_bytes());
    Content { sha256, size: 10, format: Format::Pdf, sidecars: sidecars.iter().map(sidecar).collect() }
}

fn folder() -> Folder {
    Folder::new(Policy::default())
}

fn seen(name: &str, version: u64) -> Event {
    Event::Seen(name.into(), stamp(version))
}

/// The only effect at `now`.
fn one(folder: &mut Folder, now: Millis) -> Effect {
    let mut effects = folder.poll(now);
    assert_eq!(effects.len(), 1, "{effects:?}");
    effects.remove(0)
}

fn examine(name: &str, version: u64) -> Effect {
    Effect::Examine(name.into(), stamp(version), Vec::new())
}

#[test]
fn a_file_is_looked_into_when_it_has_rested_and_sealed_once() {
    let mut folder = folder();
    folder.handle(0, seen("a.pdf", 1));
    assert_eq!((folder.poll(REST - 1), folder.wake()), (vec![], Some(REST)));
    // It grows: everything begins anew.
    folder.handle(4_000, seen("a.pdf", 2));
    assert_eq!(folder.poll(REST), []);
    assert_eq!(one(&mut folder, 9_000), examine("a.pdf", 2));
    assert_eq!(folder.poll(9_000), [], "one effect at a time");
    folder.handle(9_100, Event::Examined("a.pdf".into(), stamp(2), Finding::Complete(content(2, &[]))));
    assert_eq!(one(&mut folder, 9_100), Effect::Seal("a.pdf".into(), stamp(2), content(2, &[])));
    folder.handle(9_200, Event::Sealed("a.pdf".into(), stamp(2), Ending::Done));
    assert_eq!((folder.poll(Millis::MAX), folder.wake()), (vec![], None));
    assert_eq!(folder.census(), Census { waiting: 0, in_work: 0, done: 1 });
    // Seen again as it is: nothing. Written again: judged anew.
    folder.handle(20_000, seen("a.pdf", 2));
    assert_eq!(folder.poll(Millis::MAX), []);
    folder.handle(20_000, seen("a.pdf", 3));
    assert_eq!(one(&mut folder, 25_000), examine("a.pdf", 3));
    folder.handle(25_000, Event::Examined("a.pdf".into(), stamp(3), Finding::Known));
    assert_eq!(folder.census().done, 1);
}

#[test]
fn whoever_writes_is_waited_for_and_what_changed_in_work_is_judged_anew() {
    let mut folder = folder();
    folder.handle(0, seen("a.pdf", 1));
    folder.handle(10, Event::Written("a.pdf".into()));
    assert_eq!((folder.poll(1_000_000), folder.wake()), (vec![], None), "it is still open");
    folder.handle(2_000_000, Event::Closed("a.pdf".into()));
    assert_eq!(one(&mut folder, 2_005_000), examine("a.pdf", 1));
    folder.handle(2_005_001, seen("a.pdf", 2));
    folder.handle(2_005_002, Event::Examined("a.pdf".into(), stamp(1), Finding::Complete(content(1, &[]))));
    assert_eq!(folder.poll(2_005_002), [], "that was another file");
    assert_eq!(one(&mut folder, 2_010_001), examine("a.pdf", 2));
    // The same while it is sealed; and a writer whose end nobody told is forgotten.
    folder.handle(2_010_002, Event::Examined("a.pdf".into(), stamp(2), Finding::Complete(content(2, &[]))));
    assert!(matches!(one(&mut folder, 2_010_002), Effect::Seal(..)));
    folder.handle(2_010_003, Event::Written("a.pdf".into()));
    folder.handle(2_010_004, Event::Sealed("a.pdf".into(), stamp(2), Ending::Done));
    assert_eq!(folder.poll(Millis::MAX - 1), []);
    folder.handle(3_000_000, Event::Lost);
    assert_eq!(one(&mut folder, 3_005_000), examine("a.pdf", 2));
}

#[test]
fn half_a_file_waits_and_is_given_up_a_locked_one_only_waits() {
    let policy = Policy { give_up: Duration::from_secs(60), ..Policy::default() };
    for (finding, ends) in [
        (Finding::Incomplete("no end".into()), true),
        (Finding::Busy("somebody has locked it".into()), false),
    ] {
        let mut folder = Folder::new(policy.clone());
        folder.handle(0, seen("a.pdf", 1));
        let mut examined = 0;
        let end = (0..600_000).step_by(500).find_map(|now| {
            for effect in folder.poll(now) {
                match effect {
                    Effect::Examine(name, at, _) => {
                        examined += 1;
                        folder.handle(now, Event::Examined(name, at, finding.clone()));
                    }
                    Effect::Reject(_, _, reason) => return Some((now, reason)),
                    Effect::Seal(..) => panic!("half a file"),
                }
            }
            None
        });
        assert!((5..30).contains(&examined), "{examined}: neither once nor all the time");
        match end {
            Some((at, reason)) => {
                assert!(ends && (65_000..66_000).contains(&at), "{at}");
                assert_eq!(reason, "it is not complete: no end");
            }
            None => assert!(!ends && matches!(folder.left(1)[0].1, Some(Trouble::Busy(_)))),
        }
    }
}

#[test]
fn a_door_that_is_shut_is_knocked_at_again_and_a_refusal_is_final() {
    let mut folder = folder();
    folder.handle(0, seen("a.pdf", 1));
    let mut now = REST;
    let mut seal = |folder: &mut Folder, ending: Ending| {
        while folder.census().in_work == 0 {
            now = now.max(folder.wake().unwrap());
            match one(folder, now) {
                Effect::Examine(name, at, _) => {
                    folder.handle(now, Event::Examined(name, at, Finding::Complete(content(1, &[]))));
                }
                Effect::Seal(name, at, _) => {
                    folder.handle(now, Event::Sealed(name, at, ending));
                    return now;
                }
                Effect::Reject(..) => panic!("too early"),
            }
        }
        now
    };
    let first = seal(&mut folder, Ending::Later("locked".into(), None));
    let second = seal(&mut folder, Ending::Later("locked".into(), Some(Duration::from_secs(10))));
    let third = seal(&mut folder, Ending::Refused("it is too large".into()));
    assert_eq!((second - first, third - second), (1_000, 10_000));
    assert_eq!(one(&mut folder, third), Effect::Reject("a.pdf".into(), stamp(1), "it is too large".into()));
    folder.handle(third, Event::Rejected("a.pdf".into(), stamp(1), true));
    assert_eq!(folder.census(), Census::default());
}

#[test]
fn sidecars_are_one_with_their_document() {
    let mut folder = folder();
    folder.handle(0, seen("a.pdf", 1));
    folder.handle(3_000, seen("a.xml", 1));
    // The document has rested; its sidecar has not.
    assert_eq!(folder.poll(7_000), []);
    let with = vec![PathBuf::from("a.xml")];
    assert_eq!(one(&mut folder, 8_000), Effect::Examine("a.pdf".into(), stamp(1), with.clone()));
    folder.handle(8_000, Event::Examined("a.pdf".into(), stamp(1), Finding::Complete(content(1, &with))));
    assert!(matches!(one(&mut folder, 8_000), Effect::Seal(..)));
    folder.handle(8_000, Event::Sealed("a.pdf".into(), stamp(1), Ending::Done));
    for now in (8_000..500_000).step_by(1_000) {
        assert_eq!(folder.poll(now), [], "the sidecar is no document");
    }
    // Another sidecar makes another unit.
    folder.handle(500_000, seen("a.xml", 2));
    assert_eq!(one(&mut folder, 505_000), Effect::Examine("a.pdf".into(), stamp(1), with));
}

#[test]
fn a_sidecar_that_leaves_after_the_examination_is_not_sealed() {
    let mut folder = folder();
    folder.handle(0, seen("a.pdf", 1));
    folder.handle(0, seen("a.xml", 1));
    let with = vec![PathBuf::from("a.xml")];
    assert_eq!(one(&mut folder, REST), Effect::Examine("a.pdf".into(), stamp(1), with.clone()));
    folder.handle(REST, Event::Examined("a.pdf".into(), stamp(1), Finding::Complete(content(1, &with))));
    folder.handle(REST, Event::Gone("a.xml".into()));
    assert_eq!(one(&mut folder, REST), Effect::Examine("a.pdf".into(), stamp(1), Vec::new()));
    folder.handle(REST, Event::Examined("a.pdf".into(), stamp(1), Finding::Complete(content(1, &[]))));
    assert_eq!(one(&mut folder, REST), Effect::Seal("a.pdf".into(), stamp(1), content(1, &[])));
}

#[test]
fn a_sidecar_alone_becomes_a_document_and_a_required_one_is_waited_for() {
    let mut folder = folder();
    folder.handle(0, seen("a.json", 1));
    assert_eq!(folder.poll(59_999), []);
    assert_eq!(one(&mut folder, 60_000), examine("a.json", 1));
    let policy =
        Policy { sidecars: Sidecars::Required, give_up: Duration::from_secs(20), ..Policy::default() };
    let mut folder = Folder::new(policy);
    folder.handle(0, seen("a.pdf", 1));
    let reason = (0..40_000).step_by(250).find_map(|now| folder.poll(now).into_iter().next());
    assert!(matches!(reason, Some(Effect::Reject(_, _, reason)) if reason.contains("no XML or JSON")));
    let mut folder = Folder::new(Policy { sidecars: Sidecars::Off, ..Policy::default() });
    folder.handle(0, seen("a.json", 1));
    assert_eq!(one(&mut folder, REST), examine("a.json", 1));
}

#[test]
fn kinds_that_are_not_accepted_are_refused() {
    let mut folder = Folder::new(Policy { formats: vec![Format::Tiff], ..Policy::default() });
    folder.handle(0, seen("a.pdf", 1));
    assert!(matches!(one(&mut folder, REST), Effect::Examine(..)));
    folder.handle(REST, Event::Examined("a.pdf".into(), stamp(1), Finding::Complete(content(1, &[]))));
    assert!(
        matches!(one(&mut folder, REST), Effect::Reject(_, _, reason) if reason.contains("application/pdf"))
    );
}

#[test]
fn no_more_is_in_work_than_allowed() {
    let mut folder = folder();
    (0..100).for_each(|number| folder.handle(0, seen(&format!("{number}.pdf"), 1)));
    assert_eq!(folder.poll(REST).len(), 4);
    assert_eq!(folder.poll(REST), []);
    assert_eq!(folder.census(), Census { waiting: 96, in_work: 4, done: 0 });
}

/// What a random folder does next.
#[derive(Debug, Clone, Copy)]
enum Act {
    Write(u8),
    Remove(u8),
    Rename(u8, u8),
    /// So many tenths of a second pass; workers answer.
    Pass(u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0u8..6).prop_map(Act::Write),
        1 => (0u8..6).prop_map(Act::Remove),
        1 => (0u8..6, 0u8..6).prop_map(|(from, to)| Act::Rename(from, to)),
        6 => (1u8..120).prop_map(Act::Pass),
    ];
    prop::collection::vec(act, 1..60)
}

fn name(number: u8) -> PathBuf {
    // Two documents with a sidecar each, and two without.
    ["a.pdf", "a.xml", "b.pdf", "b.pdf.json", "c.pdf", "d.tif"][usize::from(number)].into()
}

fn is_sidecar(name: &Path) -> bool {
    bulla_intake::names::role(name, true) == bulla_intake::names::Role::Sidecar
}

proptest! {
    #[test]
    fn g3_what_is_sealed_is_what_lay_there_at_rest(acts in acts()) {
        let mut folder = folder();
        // The folder as it is: version, and since when.
        let mut files: BTreeMap<PathBuf, (u64, Millis)> = BTreeMap::new();
        let mut sealed: BTreeMap<PathBuf, (u64, Vec<u64>)> = BTreeMap::new();
        let (mut now, mut version) = (0, 0);
        let rest = acts.into_iter().chain([Act::Pass(250); 12]);
        for act in rest {
            let before = now;
            match act {
                Act::Write(number) => {
                    version += 1;
                    files.insert(name(number), (version, now));
                    folder.handle(now, Event::Seen(name(number), stamp(version)));
                }
                Act::Remove(number) => {
                    files.remove(&name(number));
                    folder.handle(now, Event::Gone(name(number)));
                }
                Act::Rename(from, to) => {
                    if let Some((version, _)) = files.remove(&name(from)) {
                        files.insert(name(to), (version, now));
                        folder.handle(now, Event::Gone(name(from)));
                        folder.handle(now, Event::Seen(name(to), stamp(version)));
                    }
                }
                Act::Pass(tenths) => now += u64::from(tenths) * 100,
            }
            for now in (before..=now).step_by(100) {
                for effect in folder.poll(now) {
                    let event = match effect {
                        Effect::Examine(name, at, with) => {
                            let there = files.get(&name).is_some_and(|(version, _)| stamp(*version) == at)
                                && with.iter().all(|sidecar| files.contains_key(sidecar));
                            let finding = if there {
                                for file in with.iter().chain([&name]) {
                                    prop_assert!(now - files[file].1 >= REST, "{file:?} was looked into too early");
                                }
                                Finding::Complete(content(at.modified_nanos, &with))
                            } else {
                                Finding::Changed
                            };
                            Event::Examined(name, at, finding)
                        }
                        Effect::Seal(name, at, content) => {
                            let with = content.sidecars.iter().map(|sidecar| files[&sidecar.name].0).collect();
                            prop_assert_eq!(files.get(&name).map(|file| file.0), Some(at.modified_nanos));
                            sealed.insert(name.clone(), (at.modified_nanos, with));
                            Event::Sealed(name, at, Ending::Done)
                        }
                        Effect::Reject(..) => return Err(TestCaseError::fail("nothing is wrong with it")),
                    };
                    folder.handle(now, event);
                }
            }
        }
        // All is at rest for five minutes: every document's last seal is of what lies there, with what lies beside it.
        for (name, (version, _)) in files.iter().filter(|(name, _)| !is_sidecar(name)) {
            let (sealed, with) = sealed.get(name).expect("it was left");
            prop_assert_eq!((sealed, with.len()), (version, with.len()), "{:?}", name);
            let beside: Vec<u64> = bulla_intake::names::sidecars_of(name)
                .filter_map(|sidecar| files.get(&sidecar).map(|file| file.0))
                .collect();
            if !beside.is_empty() {
                prop_assert_eq!(with, &beside, "{:?}", name);
            }
        }
        prop_assert_eq!(folder.census().in_work, 0);
    }
}

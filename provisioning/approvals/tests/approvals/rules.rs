//! What must hold of approvals, each told as a story.

use crate::common::{FLEET, NOW, action, approved, custodians, electorate, history, key, operators, person};
use bulla_approvals::action::{Action, Approval, Change, Kind, Target, Version};
use bulla_approvals::electorate::{Bench, Electorate};
use bulla_approvals::{Record, Refusal};
use bulla_formats::der::Octets32;

const KINDS: [Kind; 11] = [
    Kind::Import,
    Kind::Enrol,
    Kind::Quarantine,
    Kind::Release,
    Kind::Revoke,
    Kind::Pardon,
    Kind::Operators,
    Kind::Box,
    Kind::Cards,
    Kind::Replace,
    Kind::Stage,
];

fn code(record: &Record, change: &Change) -> &'static str {
    record.judge(change, &electorate(), None, Some(NOW)).map_or_else(|refusal| refusal.code(), |_| "valid")
}

#[test]
fn an_approval_is_used_once() {
    let (mut record, changes) = history();
    for (change, made) in changes.iter().zip(1..) {
        assert_eq!(record.judge(change, &electorate(), None, Some(NOW)), Err(Refusal::Used(made)));
    }
    let change = approved(&action(&record, Kind::Revoke), &["olga", "omar"]);
    // Judged twice before it is carried out, carried out once.
    let judged = record.judge(&change, &electorate(), None, Some(NOW)).unwrap();
    assert_eq!(judged.by(), ["olga", "omar"].map(str::to_owned));
    assert_eq!(record.consume(&judged).unwrap().number, 4);
    assert_eq!(record.consume(&judged), Err(Refusal::Used(4)));
    // The same action with other approvals is the same action.
    let again = approved(&action(&history().0, Kind::Revoke), &["omar", "oya"]);
    assert_eq!(code(&record, &again), "used");
}

#[test]
fn whatever_was_approved_beside_what_was_carried_out_is_stale() {
    let (mut record, _) = history();
    let first = approved(&action(&record, Kind::Revoke), &["olga", "omar"]);
    let second = approved(&action(&record, Kind::Pardon), &["olga", "omar"]);
    let judged =
        [&first, &second].map(|change| record.judge(change, &electorate(), None, Some(NOW)).unwrap());
    record.consume(&judged[0]).unwrap();
    assert_eq!(record.consume(&judged[1]), Err(Refusal::Stale { held: 4, asked: 3 }));
    assert_eq!(code(&record, &second), "stale");
}

/// The roster comes back from a backup of version 1, and somebody brings approvals from before and after it.
#[test]
fn an_approval_replayed_after_a_restore_is_refused_or_changes_nothing() {
    let (newer, changes) = history();
    let mut restored = Record::founded(FLEET, Version::made_by(0, b"a founding"));
    let judged = restored.judge(&changes[0], &electorate(), None, Some(NOW)).unwrap();
    restored.consume(&judged).unwrap();
    // From before the backup: used.
    assert_eq!(code(&restored, &changes[0]), "used");
    // From later: it is the roster that is old, and the refusal says so.
    assert_eq!(
        restored.judge(&changes[2], &electorate(), None, Some(NOW)),
        Err(Refusal::RosterBehind { held: 1, asked: 2 })
    );
    // Whoever has seen version 3 (an operator, a box, a hub) takes neither the old roster nor one that went another way.
    assert_eq!(restored.check(newer.version()), Err(Refusal::RolledBack { held: 1, seen: 3 }));
    let mut other = restored.clone();
    for _ in 0..2 {
        let change = approved(&action(&other, Kind::Pardon), &["olga", "omar"]);
        let judged = other.judge(&change, &electorate(), None, Some(NOW)).unwrap();
        other.consume(&judged).unwrap();
    }
    assert_eq!(other.check(newer.version()), Err(Refusal::Forked(3)));
    // The very next one makes, byte for byte, the version it made the first time: nothing that was not before.
    let judged = restored.judge(&changes[1], &electorate(), None, Some(NOW)).unwrap();
    assert_eq!(*restored.consume(&judged).unwrap(), newer.versions()[2]);
    // And not after its time, should the backup be an old one.
    let late = Record::founded(FLEET, Version::made_by(0, b"a founding"));
    let refused = late.judge(&changes[0], &electorate(), None, Some(NOW + 1_001));
    assert_eq!(refused, Err(Refusal::Expired(NOW + 1_000)));
    assert!(late.judge(&changes[0], &electorate(), None, None).is_ok(), "read again, time is no matter");
}

#[test]
fn a_record_knows_its_own_past() {
    let (record, _) = history();
    for version in record.versions() {
        assert_eq!(record.check(version), Ok(()));
        let other = Version { number: version.number, hash: Octets32::new([9; 32]) };
        assert_eq!(record.check(&other), Err(Refusal::Forked(version.number)));
    }
}

#[test]
fn people_are_counted_not_keys() {
    let (record, _) = history();
    let wanted = action(&record, Kind::Revoke);
    let other = |keys: &[&str]| code(&record, &approved(&wanted, keys));
    assert_eq!(other(&["olga's other", "oya"]), "valid");
    assert_eq!(other(&["olga", "olga's other"]), "person-twice");
    assert_eq!(other(&["olga", "olga"]), "not-enough");
    assert_eq!(other(&["olga", "olga's other", "omar"]), "person-twice");
    assert_eq!(other(&["olga", "ada"]), "stranger");
}

#[test]
fn every_kind_has_its_quorum() {
    let lone = |name: &str| Bench { people: vec![person(name, &[name])], needed: 1 };
    let needed = |electorate: &Electorate, overriding| {
        KINDS.map(|kind| electorate.quorum(kind, overriding).map_or(0, |(_, needed)| needed))
    };
    let of = |operators, custodians| Electorate::new(operators, custodians).unwrap();
    //                                        imp enr qua rel rev par ope box car rep sta
    assert_eq!(needed(&electorate(), false), [2, 2, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(needed(&electorate(), true), [2; 11]);
    assert_eq!(needed(&of(Some(operators(1)), custodians()), false), [2, 1, 1, 2, 2, 2, 2, 1, 2, 2, 1]);
    assert_eq!(needed(&of(Some(operators(3)), custodians()), false), [3, 3, 1, 3, 3, 3, 3, 3, 3, 3, 3]);
    // Without operators the custodians decide, and override nobody.
    assert_eq!(needed(&of(None, custodians()), false), [2, 2, 1, 2, 2, 2, 2, 2, 2, 2, 2]);
    assert_eq!(needed(&of(None, custodians()), true), [0; 11]);
    // One person alone can decide alone, and cannot be two.
    assert_eq!(needed(&of(None, lone("ada")), false), [1; 11]);
}

#[test]
fn an_override_is_the_custodians_and_says_so() {
    let (mut record, _) = history();
    let plain = action(&record, Kind::Operators);
    let overriding = Action { overriding: true, ..plain.clone() };
    assert_eq!(code(&record, &approved(&overriding, &["ada", "cem"])), "valid");
    assert_eq!(code(&record, &approved(&overriding, &["ada"])), "not-enough");
    assert_eq!(code(&record, &approved(&overriding, &["olga", "omar", "oya"])), "stranger");
    // Whichever of them comes first: a stranger is told before a signature that does not verify.
    for whose in ["eve", "oya", "nobody", "somebody"] {
        let mut mixed = approved(&overriding, &["ada", "cem", whose]);
        let of_ada = Octets32::new(key("ada").verifying_key().to_bytes());
        for approval in &mut mixed.approvals {
            approval.at += u64::from(approval.key == of_ada);
        }
        assert_eq!(code(&record, &mixed), "stranger");
    }
    // An approval of the one is none of the other.
    let mut swapped = approved(&overriding, &["ada", "cem"]);
    swapped.action = plain;
    assert_eq!(code(&record, &swapped), "stranger");
    let judged =
        record.judge(&approved(&overriding, &["ada", "cem"]), &electorate(), None, Some(NOW)).unwrap();
    assert!(judged.action().overriding);
    record.consume(&judged).unwrap();
    let alone = Electorate::new(None, custodians()).unwrap();
    let refused = history().0.judge(&approved(&overriding, &["ada", "cem"]), &alone, None, Some(NOW));
    assert_eq!(refused, Err(Refusal::NoOverride));
}

#[test]
fn what_is_for_one_box_is_for_no_other_and_for_no_second_time() {
    let (mut record, _) = history();
    let target = Target {
        origin: format!("{FLEET}/{}/1", "0f".repeat(20)),
        size: 700,
        root: Octets32::new([1; 32]),
        nonce: Octets32::new([2; 32]),
    };
    let action = Action { target: Some(target.clone()), ..action(&record, Kind::Box) };
    let change = approved(&action, &["olga", "oya"]);
    let judge = |target: Option<&Target>| record.judge(&change, &electorate(), target, Some(NOW));
    let judged = judge(Some(&target)).unwrap();
    for other in [
        Target { origin: format!("{FLEET}/{}/2", "0f".repeat(20)), ..target.clone() },
        Target { size: 701, ..target.clone() },
        Target { root: Octets32::new([3; 32]), ..target.clone() },
        Target { nonce: Octets32::new([3; 32]), ..target.clone() },
    ] {
        assert_eq!(judge(Some(&other)), Err(Refusal::OtherTarget));
    }
    assert_eq!(judge(None), Err(Refusal::OtherTarget));
    // It is nothing that a roster goes through.
    assert_eq!(record.consume(&judged), Err(Refusal::OtherTarget));
}

#[test]
fn every_bit_of_what_is_approved_is_signed() {
    let (record, _) = history();
    let change = approved(&action(&record, Kind::Revoke), &["olga", "omar"]);
    assert_eq!(code(&record, &change), "valid");
    let bytes = change.encode();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let outcome =
            Change::decode(&changed).and_then(|change| record.judge(&change, &electorate(), None, Some(NOW)));
        assert!(outcome.is_err(), "bit {bit}");
    }
}

#[test]
fn an_electorate_that_cannot_decide_is_none() {
    let people = |names: &[&str]| names.iter().map(|name| person(name, &[name])).collect::<Vec<_>>();
    let bench = |names: &[&str], needed| Bench { people: people(names), needed };
    for (operators, custodians) in [
        (Some(bench(&["olga"], 2)), custodians()),
        (Some(bench(&["olga", "omar"], 0)), custodians()),
        (Some(bench(&[], 0)), custodians()),
        (None, bench(&["ada"], 2)),
        (None, bench(&[], 0)),
        (Some(bench(&["olga", "Olga"], 1)), custodians()),
        (Some(bench(&["ada"], 1)), custodians()),
        (Some(Bench { people: vec![person("olga", &["olga", "olga"])], needed: 1 }), custodians()),
        (Some(Bench { people: vec![person("olga", &[])], needed: 1 }), custodians()),
        (Some(Bench { people: vec![person("olga", &["a", "b", "c", "d", "e"])], needed: 1 }), custodians()),
    ] {
        assert!(Electorate::new(operators.clone(), custodians).is_err(), "{operators:?}");
    }
    let mut weak = custodians();
    weak.people[0].keys[0] = Octets32::new([0; 32]);
    assert!(Electorate::new(None, weak).is_err());
}

#[test]
fn a_vote_is_of_somebody() {
    let (record, _) = history();
    let wanted = action(&record, Kind::Import);
    let of = |whose: &str, at| {
        let people = electorate();
        people.vote(&wanted, &Approval::sign(&wanted, at, &key(whose))).map(str::to_owned)
    };
    assert_eq!(of("olga's other", NOW), Ok("olga".to_owned()));
    assert_eq!(of("omar", NOW + 1_001), Err(Refusal::Late("omar".into())));
    assert_eq!(of("eve", NOW).map_err(|refusal| refusal.code()), Err("stranger"));
}

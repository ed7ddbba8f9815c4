//! What boxes and people go through, each told as a story.

use crate::common::{
    FLEET, NOW, action, anchors, apply, approved, busy, card, ek, enrolment, founded, good, head, hub, key,
    minutes, named, neighbours, origin, peer_card, policy, replacement, revocation, row, vouched,
};
use bulla_approvals::action::{Action, Change, Kind};
use bulla_formats::der::Octets32;
use bulla_formats::trust::{Policy, TrustFile};
use bulla_roster::deed::{Cause, Configured, Deed, Replacement, Revocation, Row};
use bulla_roster::inventory::State;
use bulla_roster::roster::Roster;
use bulla_roster::terms::{Anchors, Terms};

fn refused(roster: &Roster, deed: &Deed) -> &'static str {
    let mut roster = roster.clone();
    let before = roster.encode();
    let code = apply(&mut roster, deed).map_or_else(|refusal| refusal.code(), |()| "done");
    assert!(code == "done" || roster.encode() == before, "{deed:?} left something behind");
    code
}

fn state(roster: &Roster, number: u8) -> State {
    roster.inventory().get(&ek(number)).unwrap().state
}

#[test]
fn a_roster_is_read_back_with_all_that_happened() {
    let roster = busy();
    let again = Roster::decode(&roster.encode()).unwrap();
    assert_eq!(again.encode(), roster.encode());
    assert_eq!((again.version(), again.inventory()), (roster.version(), roster.inventory()));
    assert_eq!(again.version().number, 5);
    let by: Vec<_> = again.history().iter().map(|done| done.by.join(" and ")).collect();
    assert_eq!(by, ["olga and omar"; 5]);
    let states = [1, 2, 3, 4].map(|number| state(&again, number));
    assert_eq!(states, [State::Enrolled, State::Expected, State::Quarantined, State::Retired]);
    assert_eq!(again.inventory().find("S-3").len(), 1);
    assert_eq!(again.inventory().find(&hex::encode(*ek(3))[..8]).len(), 1);
    assert_eq!(again.inventory().find("ek:sha256:").len() + again.inventory().find("S-").len(), 0);
}

/// Hand-made requests of somebody who was revoked: by every door there is.
#[test]
fn a_tombstone_survives_every_registration() {
    let mut roster = busy();
    let compromise = revocation(1, Cause::Compromise, vec![good(1, 1, 50), good(1, 2, 0)]);
    apply(&mut roster, &Deed::Revoke(compromise.clone())).unwrap();
    assert_eq!(state(&roster, 1), State::Revoked);
    let other_name = Row { serial: "S-99".into(), ..row(1) };
    assert_eq!(refused(&roster, &Deed::Import(vec![other_name])), "tombstoned");
    assert_eq!(refused(&roster, &Deed::Import(vec![row(9), row(1)])), "tombstoned");
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(1, 3)])), "tombstoned");
    assert_eq!(refused(&roster, &Deed::Release(named(1))), "wrong-state");
    assert_eq!(refused(&roster, &Deed::Quarantine(named(1))), "wrong-state");
    assert_eq!(refused(&roster, &Deed::Revoke(compromise)), "wrong-state");
    // A retired box is one that left, too.
    assert_eq!(refused(&roster, &Deed::Import(vec![row(4)])), "tombstoned");
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(4, 8)])), "tombstoned");
    // Its serial number is free: the board was changed.
    let new_board = Row { serial: "S-1".into(), ..row(9) };
    apply(&mut roster, &Deed::Import(vec![new_board])).unwrap();
    assert_eq!(refused(&roster, &Deed::Pardon(named(1))), "known-serial");
}

#[test]
fn a_pardon_is_good_for_one_time() {
    let mut roster = busy();
    assert_eq!(refused(&roster, &Deed::Pardon(named(1))), "wrong-state");
    let compromise = |logs| Deed::Revoke(revocation(1, Cause::Compromise, logs));
    apply(&mut roster, &compromise(vec![good(1, 1, 50), good(1, 2, 0)])).unwrap();
    apply(&mut roster, &Deed::Pardon(named(1))).unwrap();
    assert_eq!(state(&roster, 1), State::Expected);
    assert_eq!(refused(&roster, &Deed::Pardon(named(1))), "wrong-state");
    // It begins a new log; the ones of before stay given up, and cannot be begun again.
    for incarnation in [1, 2] {
        assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(1, incarnation)])), "other-origin");
    }
    apply(&mut roster, &Deed::Enrol(vec![enrolment(1, 3)])).unwrap();
    let listed = roster.inventory().get(&ek(1)).unwrap();
    assert_eq!(listed.live_logs().map(|log| &log.origin).collect::<Vec<_>>(), [&origin(1, 3)]);
    assert_eq!(listed.revocation_of(&origin(1, 1)).unwrap().1.size, 50);
    assert!(listed.revocation_of(&origin(1, 3)).is_none());
    // The second time it leaves, it needs a second pardon.
    apply(&mut roster, &compromise(vec![good(1, 3, 7)])).unwrap();
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(1, 4)])), "tombstoned");
    let stones = &roster.inventory().get(&ek(1)).unwrap().tombstones;
    assert_eq!(stones.iter().map(|stone| stone.pardoned).collect::<Vec<_>>(), [Some(7), None]);
    apply(&mut roster, &Deed::Pardon(named(1))).unwrap();
    assert!(Roster::decode(&roster.encode()).is_ok());
}

#[test]
fn a_card_counts_while_its_box_is_a_member_with_that_log() {
    let mut roster = busy();
    let card_of = |roster: &Roster| roster.inventory().get(&ek(1)).unwrap().member_card().cloned();
    assert_eq!(card_of(&roster), None);
    let first = peer_card(1, 2, "one", 5);
    apply(&mut roster, &Deed::Cards(vec![first.clone()])).unwrap();
    assert_eq!(card_of(&roster), Some(first.clone()));
    // The same keys and another place is no news for people; other keys are.
    assert!(roster.inventory().moves(&peer_card(1, 2, "one", 6)));
    for no_move in
        [first.clone(), peer_card(1, 2, "one", 4), peer_card(1, 2, "two", 6), peer_card(1, 1, "one", 6)]
    {
        assert!(!roster.inventory().moves(&no_move), "{no_move:?}");
    }
    apply(&mut roster, &Deed::Quarantine(named(1))).unwrap();
    assert!(card_of(&roster).is_none() && !roster.inventory().moves(&peer_card(1, 2, "one", 6)));
    apply(&mut roster, &Deed::Release(named(1))).unwrap();
    assert_eq!(card_of(&roster), Some(first));
    // Whoever left comes back by a pardon, with a new log and a new card.
    let compromise = revocation(1, Cause::Compromise, vec![good(1, 1, 50), good(1, 2, 0)]);
    apply(&mut roster, &Deed::Revoke(compromise)).unwrap();
    assert!(card_of(&roster).is_none());
    apply(&mut roster, &Deed::Pardon(named(1))).unwrap();
    assert_eq!(refused(&roster, &Deed::Cards(vec![peer_card(1, 2, "one", 6)])), "wrong-state");
    apply(&mut roster, &Deed::Enrol(vec![enrolment(1, 3)])).unwrap();
    assert!(card_of(&roster).is_none());
    assert_eq!(refused(&roster, &Deed::Cards(vec![peer_card(1, 2, "one", 6)])), "unknown-box");
    let last = peer_card(1, 3, "three", 1);
    apply(&mut roster, &Deed::Cards(vec![last.clone()])).unwrap();
    assert_eq!(card_of(&Roster::decode(&roster.encode()).unwrap()), Some(last));
}

#[test]
fn a_staged_log_waits_until_its_card_comes() {
    let mut roster = busy();
    assert_eq!(refused(&roster, &Deed::Stage(vec![enrolment(2, 1)])), "wrong-state");
    assert_eq!(refused(&roster, &Deed::Stage(vec![enrolment(4, 9)])), "tombstoned");
    assert_eq!(refused(&roster, &Deed::Stage(vec![enrolment(1, 2)])), "other-origin");
    apply(&mut roster, &Deed::Cards(vec![peer_card(1, 2, "one", 5)])).unwrap();
    apply(&mut roster, &Deed::Stage(vec![enrolment(1, 5)])).unwrap();
    apply(&mut roster, &Deed::Stage(vec![enrolment(1, 7)])).unwrap();
    let listed = |roster: &Roster| roster.inventory().get(&ek(1)).unwrap().clone();
    let origins = |logs: &[bulla_formats::enrolment::EnrolmentContent]| {
        logs.iter().map(|log| log.origin.clone()).collect::<Vec<_>>()
    };
    // Nothing of the log in use has changed: neighbours know it by its card.
    let now = listed(&roster);
    assert_eq!(origins(&now.logs), [origin(1, 1), origin(1, 2)]);
    assert_eq!(origins(&now.staged), [origin(1, 5), origin(1, 7)]);
    assert_eq!((now.in_use().unwrap().origin.clone(), now.since), (origin(1, 2), 4));
    assert_eq!(now.member_card(), Some(&peer_card(1, 2, "one", 5)));
    for (deed, code) in [
        (Deed::Stage(vec![enrolment(1, 6)]), "other-origin"),
        (Deed::Enrol(vec![enrolment(1, 7)]), "other-origin"),
        (Deed::Revoke(revocation(1, Cause::Compromise, vec![good(1, 1, 5), good(1, 2, 6)])), "logs-differ"),
    ] {
        assert_eq!(refused(&roster, &deed), code, "{deed:?}");
    }
    // Whoever compromised the box can begin what was staged for it.
    let mut compromised = roster.clone();
    let all = vec![good(1, 1, 5), good(1, 2, 6), good(1, 5, 0), good(1, 7, 0)];
    apply(&mut compromised, &Deed::Revoke(revocation(1, Cause::Compromise, all))).unwrap();
    assert!(listed(&compromised).staged.is_empty());
    assert_eq!(listed(&compromised).revocation_of(&origin(1, 5)).unwrap().1.size, 0);
    assert_eq!(refused(&compromised, &Deed::Cards(vec![peer_card(1, 7, "one", 1)])), "wrong-state");
    // Who leaves with honour leaves with the logs it began.
    let mut retired = roster.clone();
    let begun = vec![good(1, 1, 5), good(1, 2, 6)];
    apply(&mut retired, &Deed::Revoke(revocation(1, Cause::Retirement, begun))).unwrap();
    let late = vec![good(1, 1, 5), good(1, 2, 6), good(1, 5, 0), good(1, 7, 0)];
    apply(&mut retired, &Deed::Revoke(revocation(1, Cause::Compromise, late))).unwrap();
    // Its card makes one the last log; the one after it still waits, and the one before is none any more.
    apply(&mut roster, &Deed::Cards(vec![peer_card(1, 5, "one", 1)])).unwrap();
    let now = listed(&roster);
    assert_eq!(origins(&now.logs), [origin(1, 1), origin(1, 2), origin(1, 5)]);
    assert_eq!((origins(&now.staged), now.enrolled_by.clone()), (vec![origin(1, 7)], vec![2, 4, 9]));
    assert_eq!(now.member_card(), Some(&peer_card(1, 5, "one", 1)));
    assert_eq!(refused(&roster, &Deed::Cards(vec![peer_card(1, 2, "one", 6)])), "unknown-box");
    // An enrolment passes it over.
    apply(&mut roster, &Deed::Enrol(vec![enrolment(1, 9)])).unwrap();
    let now = listed(&Roster::decode(&roster.encode()).unwrap());
    assert_eq!(origins(&now.logs[2..]), [origin(1, 5), origin(1, 7), origin(1, 9)]);
    assert!(now.staged.is_empty() && now.card.is_none());
    assert_eq!(refused(&roster, &Deed::Cards(vec![peer_card(1, 7, "one", 1)])), "unknown-box");
}

#[test]
fn who_takes_the_place_of_a_lost_box_follows_it() {
    let mut roster = neighbours();
    assert!(roster.successions().is_empty());
    // A larger head that fewer hold would do, too; which one is proposed is for people to say.
    apply(&mut roster, &Deed::Replace(vouched())).unwrap();
    let check = |roster: &Roster, successor: &str| {
        let all = roster.successions();
        let (ended, step) = all.first_key_value().unwrap();
        assert_eq!((all.len(), *ended, step.successor), (1, origin(1, 2).as_str(), successor));
        assert_eq!(step.held.tree, good(1, 2, 60));
        let holder = origin(3, 1);
        assert_eq!(step.held.holders, [format!("{holder}/mirror"), format!("{holder}/witness")]);
        step.version
    };
    assert_eq!(check(&roster, &origin(2, 1)), roster.version().number);
    // It left with honour, and its first log, of which nobody held anything, with it.
    let lost = roster.inventory().get(&ek(1)).unwrap();
    assert_eq!(lost.state, State::Retired);
    assert_eq!(lost.revocation_of(&origin(1, 1)).unwrap().1, &good(1, 1, 0));
    assert_eq!(refused(&roster, &Deed::Replace(vouched())), "wrong-state");
    // Its copies go to whoever takes its place, and to nobody else.
    let to = |number, log| roster.hands_over(&origin(1, 2), &origin(number, log));
    assert!(to(2, 1) && !to(3, 1) && !to(1, 2) && !to(9, 1));
    assert!(
        roster.hands_over(&origin(2, 1), &origin(2, 1)) && !roster.hands_over(&origin(9, 1), &origin(2, 1))
    );
    assert_eq!(roster.card_of(&origin(2, 1)), Some(&peer_card(2, 1, "two", 1)));
    // What comes later changes nothing of it.
    let read = Roster::decode(&roster.encode()).unwrap();
    apply(&mut roster, &Deed::Quarantine(named(3))).unwrap();
    apply(&mut roster, &Deed::Enrol(vec![enrolment(2, 2)])).unwrap();
    assert_eq!(check(&roster, &origin(2, 1)), read.version().number);

    // One that is expected follows with the first log it gets.
    let mut roster = neighbours();
    apply(&mut roster, &Deed::Import(vec![row(9)])).unwrap();
    apply(&mut roster, &Deed::Replace(Replacement { successor: ek(9), ..vouched() })).unwrap();
    assert!(roster.successions().is_empty());
    apply(&mut roster, &Deed::Enrol(vec![enrolment(9, 4)])).unwrap();
    assert_eq!(check(&roster, &origin(9, 4)), roster.version().number);

    // Who is held back vouches for nothing.
    let mut roster = neighbours();
    apply(&mut roster, &Deed::Quarantine(named(3))).unwrap();
    assert_eq!(refused(&roster, &Deed::Replace(vouched())), "not-vouched");
    assert_eq!(refused(&roster, &Deed::Replace(replacement(Some(head(2, 60, &[]))))), "not-vouched");
}

#[test]
fn what_is_found_out_after_a_retirement_counts_more() {
    let mut roster = busy();
    let reused = Row { serial: "S-4".into(), ..row(9) };
    apply(&mut roster, &Deed::Import(vec![reused])).unwrap();
    apply(&mut roster, &Deed::Revoke(revocation(4, Cause::Compromise, vec![good(4, 7, 30)]))).unwrap();
    assert_eq!(state(&roster, 4), State::Revoked);
    let (stone, log) = roster.inventory().get(&ek(4)).unwrap().revocation_of(&origin(4, 7)).unwrap();
    assert_eq!((stone.revocation.cause, log.size), (Cause::Compromise, 30));
    // The other way round there is nothing to gain.
    let again = Deed::Revoke(revocation(4, Cause::Retirement, vec![good(4, 7, 900)]));
    assert_eq!(refused(&roster, &again), "wrong-state");
    // The serial number is still the other box's.
    let third = Row { serial: "S-4".into(), ..row(10) };
    assert_eq!(refused(&roster, &Deed::Import(vec![third])), "known-serial");
}

#[test]
fn a_revocation_names_every_log_and_no_other() {
    let roster = busy();
    let compromise = |logs| Deed::Revoke(revocation(1, Cause::Compromise, logs));
    for logs in [
        vec![],
        vec![good(1, 1, 50)],
        vec![good(1, 2, 50), good(1, 1, 50)],
        vec![good(1, 1, 50), good(1, 2, 50), good(1, 3, 50)],
        vec![good(1, 1, 50), good(4, 7, 50)],
    ] {
        assert_eq!(refused(&roster, &compromise(logs)), "logs-differ");
    }
    assert_eq!(refused(&roster, &compromise(vec![good(1, 1, 50), good(1, 2, 50)])), "done");
    assert_eq!(refused(&roster, &Deed::Revoke(revocation(2, Cause::Compromise, vec![]))), "done");
    assert_eq!(refused(&roster, &Deed::Revoke(revocation(8, Cause::Compromise, vec![]))), "unknown-box");
    let replaced = |successor| {
        let by = Revocation { successor, ..revocation(2, Cause::Replaced, vec![]) };
        refused(&roster, &Deed::Revoke(by))
    };
    assert_eq!(replaced(Some(ek(1))), "done");
    assert_eq!(replaced(Some(ek(3))), "wrong-state");
    assert_eq!(replaced(Some(ek(8))), "unknown-box");
    assert_eq!(replaced(Some(ek(2))), "parameters");
    assert_eq!(replaced(None), "parameters");
}

#[test]
fn an_enrolment_is_of_an_expected_box_with_keys_of_its_own() {
    let roster = busy();
    let enrol = |change: &dyn Fn(&mut bulla_formats::enrolment::EnrolmentContent)| {
        let mut content = enrolment(2, 1);
        change(&mut content);
        refused(&roster, &Deed::Enrol(vec![content]))
    };
    assert_eq!(enrol(&|_| {}), "done");
    assert_eq!(enrol(&|content| content.version = 2), "parameters");
    assert_eq!(enrol(&|content| content.origin = origin(1, 9)), "other-origin");
    assert_eq!(enrol(&|content| content.origin = "nowhere".into()), "other-origin");
    assert_eq!(enrol(&|content| content.log_key = enrolment(1, 1).log_key), "known-key");
    assert_eq!(enrol(&|content| content.attestation_key = enrolment(1, 1).attestation_key), "known-key");
    assert_eq!(enrol(&|content| content.log_key = Octets32::new([0; 32])), "parameters");
    assert_eq!(enrol(&|content| content.attestation_key = vec![4; 65].into()), "parameters");
    let other_fleet = |content: &mut bulla_formats::enrolment::EnrolmentContent| {
        content.fleet = "bank.test".into();
        content.origin = content.origin.replace(FLEET, "bank.test");
    };
    assert_eq!(enrol(&other_fleet), "other-origin");
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(8, 1)])), "unknown-box");
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(3, 1)])), "wrong-state");
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(2, 1), enrolment(2, 2)])), "known-box");
    assert_eq!(refused(&roster, &Deed::Enrol(vec![])), "parameters");
    // One that fails takes the others with it.
    assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(2, 1), enrolment(4, 9)])), "tombstoned");
}

#[test]
fn what_is_held_back_comes_back_as_what_it_was() {
    let mut roster = busy();
    for (number, before) in [(1, State::Enrolled), (2, State::Expected)] {
        assert_eq!(refused(&roster, &Deed::Release(named(number))), "wrong-state");
        let hold = action(&roster, &Deed::Quarantine(named(number)));
        roster.apply(approved(&hold, &["oya"]), NOW).unwrap();
        assert_eq!(refused(&roster, &Deed::Quarantine(named(number))), "wrong-state");
        assert_eq!(refused(&roster, &Deed::Enrol(vec![enrolment(number, 5)])), "wrong-state");
        let release = action(&roster, &Deed::Release(named(number)));
        let alone = roster.clone().apply(approved(&release, &["oya"]), NOW).unwrap_err();
        assert_eq!(alone.code(), "not-enough");
        roster.apply(approved(&release, &["oya", "olga"]), NOW).unwrap();
        assert_eq!(state(&roster, number), before);
    }
}

#[test]
fn operators_come_and_go_and_two_cards_of_one_name_are_one_person() {
    let mut roster = busy();
    let operators = |cards: Vec<_>, needed| Deed::Operators { cards, needed };
    let three = vec![card("olga", "olga"), card("Olga", "olga's other"), card("pia", "pia")];
    apply(&mut roster, &operators(three.clone(), 2)).unwrap();
    let hold = action(&roster, &Deed::Quarantine(named(1)));
    let by = |people: &[&str]| {
        let release = Action { kind: Kind::Import, ..action(&roster, &Deed::Import(vec![row(9)])) };
        roster
            .clone()
            .apply(approved(&release, people), NOW)
            .map_or_else(|refusal| refusal.code(), |_| "done")
    };
    assert_eq!(by(&["olga", "pia"]), "done");
    assert_eq!(by(&["olga's other", "pia"]), "done");
    assert_eq!(by(&["olga", "olga's other"]), "person-twice");
    // Whoever is no operator any more has no say.
    assert_eq!(by(&["olga", "omar"]), "stranger");
    assert!(roster.apply(approved(&hold, &["pia"]), NOW).is_ok());
    for (cards, needed) in [
        (three.clone(), 3),
        (three.clone(), 0),
        (three.clone(), u64::MAX),
        (vec![], 1),
        (vec![card("ada", "ada")], 1),
        (vec![card("pia", "pia"), card("quo", "pia")], 1),
    ] {
        let change = approved(&action(&roster, &operators(cards, needed)), &["olga", "pia"]);
        assert_eq!(roster.clone().apply(change, NOW).unwrap_err().code(), "parameters");
    }
    let mut custodian = minutes(&[], 0).content.plan.custodians[0].clone();
    custodian.content.name = "bo".into();
    assert!(Deed::Operators { cards: vec![custodian], needed: 1 }.check().is_err());
    // Without operators the custodians decide; the operators' override is gone with them.
    let change = approved(&action(&roster, &operators(vec![], 0)), &["olga", "pia"]);
    roster.apply(change, NOW).unwrap();
    let import = action(&roster, &Deed::Import(vec![row(9)]));
    assert!(roster.clone().apply(approved(&import, &["ada"]), NOW).is_ok());
    let overriding = Action { overriding: true, ..import };
    let code = roster.clone().apply(approved(&overriding, &["ada"]), NOW).unwrap_err().code();
    assert_eq!(code, "no-override");
}

#[test]
fn an_override_is_on_record_for_ever() {
    let mut roster = busy();
    let plain = action(&roster, &Deed::Release(named(3)));
    let refused = roster.clone().apply(approved(&plain, &["ada"]), NOW).unwrap_err();
    assert_eq!(refused.code(), "stranger");
    let overriding = Action { overriding: true, ..plain };
    roster.apply(approved(&overriding, &["ada"]), NOW).unwrap();
    let again = Roster::decode(&roster.encode()).unwrap();
    let last = again.history().last().unwrap();
    assert!(last.change.action.overriding && last.by == ["ada"]);
    assert!(again.describe(&last.change.action, &last.deed).contains("OVERRIDE"));
}

/// The fleet directory comes back from a backup.
#[test]
fn a_roster_that_was_rolled_back_is_refused_by_whoever_saw_the_newer() {
    let newer = busy();
    let mut restored = founded();
    let changes: Vec<Change> = newer.history().iter().map(|done| done.change.clone()).collect();
    for change in &changes[..3] {
        restored.apply(change.clone(), NOW).unwrap();
    }
    assert_eq!(restored.check_seen(newer.version()).unwrap_err().code(), "rolled-back");
    // What was approved for the newer one says so at once.
    assert_eq!(restored.apply(changes[4].clone(), NOW).unwrap_err().code(), "roster-behind");
    assert_eq!(restored.apply(changes[1].clone(), NOW).unwrap_err().code(), "used");
    // Going another way from there is a fork, for everybody who saw the first.
    let mut other = restored.clone();
    apply(&mut other, &Deed::Import(vec![row(9)])).unwrap();
    apply(&mut other, &Deed::Import(vec![row(10)])).unwrap();
    assert_eq!(other.check_seen(newer.version()).unwrap_err().code(), "forked");
    assert_eq!(other.apply(changes[4].clone(), NOW).unwrap_err().code(), "forked");
    // The changes themselves bring it back to where it was, and nowhere else.
    for change in &changes[3..] {
        restored.apply(change.clone(), NOW).unwrap();
    }
    assert_eq!(restored.encode(), newer.encode());
    assert!(newer.check_seen(founded().version()).is_ok());
}

#[test]
fn a_roster_is_of_one_root() {
    let roster = busy();
    let trust = |fleet: &str, root: &str| TrustFile {
        fleet: fleet.into(),
        issued_millis: NOW,
        roots: vec![key(root).verifying_key().to_bytes()],
        references: Vec::new(),
        policy: Policy::default(),
        roster: None,
        authorities: None,
        cosigners: Vec::new(),
    };
    assert!(roster.check_root(&trust(FLEET, "the root")).is_ok());
    for other in [trust(FLEET, "another root"), trust("bank.test", "the root")] {
        assert_eq!(roster.check_root(&other).unwrap_err().code(), "other-root");
    }
}

#[test]
fn what_is_proposed_can_be_tried_before_anybody_is_asked() {
    let roster = busy();
    let deed = Deed::Revoke(revocation(1, Cause::Compromise, vec![good(1, 1, 50), good(1, 2, 0)]));
    let wanted = action(&roster, &deed);
    assert_eq!(roster.would(&wanted, NOW).unwrap(), deed);
    let words = roster.describe(&wanted, &deed);
    for part in ["REVOKE", "as the branch asked", "S-1", "compromise", "50 entries", "NOTHING OF IT IS GOOD"]
    {
        assert!(words.contains(part), "{words}");
    }
    assert_eq!(roster.would(&wanted, NOW + 1_001).unwrap_err().code(), "expired");
    let wrong = action(&roster, &Deed::Release(named(1)));
    assert_eq!(roster.would(&wrong, NOW).unwrap_err().code(), "wrong-state");
}

#[test]
fn every_bit_of_a_roster_counts() {
    let mut roster = founded();
    apply(&mut roster, &Deed::Import(vec![row(1)])).unwrap();
    let bytes = roster.encode();
    // Every bit of the change, and some of the minutes, which have their own tests.
    let change = roster.history()[0].change.encode().len();
    let first = bytes.len() - change;
    for at in (0..first).step_by(37).chain(first..bytes.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(Roster::decode(&changed).is_err(), "byte {at}");
    }
}

#[test]
fn a_roster_is_handed_on_change_by_change_and_never_goes_back() {
    use bulla_roster::delivery::{known, take, tell};
    let (mut newer, older) = (busy(), busy());
    for number in 10..14 {
        apply(&mut newer, &Deed::Import(vec![row(number)])).unwrap();
    }
    let card = peer_card(1, 2, "one", 5);
    let said = tell(&newer, Some(&known(older.version())), std::slice::from_ref(&card)).unwrap();
    assert_eq!((said.changes.len(), said.last, said.founding.is_none()), (4, 9, true));
    assert_eq!(said.moved.iter().map(|moved| &moved[..]).collect::<Vec<_>>(), [card.bytes()]);
    assert_eq!(take(Some(&older), &said).unwrap().unwrap().encode(), newer.encode());
    // Whoever has nothing is told everything.
    let whole = tell(&newer, None, &[]).unwrap();
    assert_eq!(take(None, &whole).unwrap().unwrap().encode(), newer.encode());
    // Who knows more, or as much, is told nothing.
    let nothing = tell(&older, Some(&known(newer.version())), &[]).unwrap();
    assert!(nothing.changes.is_empty() && nothing.last == 5);
    assert!(take(Some(&newer), &nothing).unwrap().is_none());
    let code = |done: Result<Option<Roster>, bulla_roster::RosterRefusal>| done.unwrap_err().code();
    // The same changes again, a part of them left out, another beginning, rubbish.
    assert_eq!(code(take(Some(&newer), &said)), "used");
    let mut gap = said.clone();
    gap.changes.remove(0);
    assert_eq!(code(take(Some(&older), &gap)), "roster-behind");
    assert_eq!(code(take(Some(&older), &whole)), "malformed");
    assert_eq!(code(take(None, &said)), "malformed");
    let mut rubbish = said.clone();
    rubbish.changes[1] = b"no change".to_vec().into();
    assert_eq!(code(take(Some(&older), &rubbish)), "malformed");
    let mut other = founded();
    apply(&mut other, &Deed::Import(vec![row(30)])).unwrap();
    assert_eq!(tell(&newer, Some(&known(other.version())), &[]).unwrap_err().code(), "forked");
}

#[test]
fn the_terms_are_what_people_said_last_and_what_they_said_then() {
    let mut roster = busy();
    assert_eq!(*roster.terms(), Terms::default());
    let before = roster.version().number;
    apply(&mut roster, &Deed::Anchors(anchors())).unwrap();
    apply(&mut roster, &Deed::Policy(policy())).unwrap();
    apply(&mut roster, &Deed::Hubs(vec![hub("a.example"), hub("b.example")])).unwrap();
    let terms = roster.terms();
    assert_eq!(terms.anchors, Some((before + 1, anchors())));
    assert_eq!(terms.policy, Some((before + 2, policy())));
    let pin = *hub("b.example").clients[0];
    assert_eq!(terms.hub_of_client(&pin).map(|hub| hub.name.as_str()), Some("b.example"));
    assert!(terms.hub_of_client(&[0; 32]).is_none());
    // What a trust file says of them is said back in the same words.
    let authorities = anchors().authorities().unwrap();
    assert_eq!(Anchors::of(authorities.as_ref()), anchors());
    // Each is a whole: a hub that is not named again is none.
    apply(&mut roster, &Deed::Hubs(vec![hub("a.example")])).unwrap();
    assert!(roster.terms().hub("b.example").is_none() && roster.terms().hub_of_client(&pin).is_none());
    assert!(roster.terms_at(before + 3).hub("b.example").is_some());
    assert_eq!(roster.terms_at(before), Terms::default());
    assert_eq!(roster.terms_at(roster.version().number), *roster.terms());
    let again = Roster::decode(&roster.encode()).unwrap();
    assert_eq!(again.terms(), roster.terms());
    // A fleet that believes nobody's time cannot ask for anchors, whichever is said first.
    let nobody = Anchors { operators: 1, tsas: Vec::new(), witnesses: Vec::new() };
    assert_eq!(refused(&roster, &Deed::Anchors(nobody.clone())), "unprovable");
    let mut lenient = policy();
    lenient.require_facts.pop();
    apply(&mut roster, &Deed::Policy(lenient)).unwrap();
    apply(&mut roster, &Deed::Anchors(nobody)).unwrap();
    assert_eq!(refused(&roster, &Deed::Policy(policy())), "unprovable");
}

#[test]
fn a_box_goes_by_the_file_that_was_said_last() {
    let mut roster = busy();
    let of = |roster: &Roster, number| roster.inventory().get(&ek(number)).unwrap().configuration;
    let say = |roster: &mut Roster, number, file: Option<u8>| {
        let file = file.map(|byte| Octets32::new([byte; 32]));
        apply(roster, &Deed::Configuration(vec![Configured { ek_spki_sha256: ek(number), file }]))
    };
    assert_eq!(of(&roster, 1), None);
    let before = roster.version().number;
    say(&mut roster, 1, Some(7)).unwrap();
    // One that is only expected finds it when it has become a member.
    say(&mut roster, 2, Some(8)).unwrap();
    assert_eq!(of(&roster, 1), Some((before + 1, Octets32::new([7; 32]))));
    let deed = Deed::Configuration(vec![Configured { ek_spki_sha256: ek(1), file: None }]);
    let said = roster.describe(&action(&roster, &deed), &deed);
    assert!(
        said.contains(&format!("goes      sha256:{} of version {}", "07".repeat(32), before + 1)),
        "{said}"
    );
    assert!(said.contains("THE ONE THAT LIES ON THE BOX"), "{said}");
    // Being held back, and a new log, change nothing of it; leaving does.
    apply(&mut roster, &Deed::Quarantine(named(1))).unwrap();
    assert_eq!(say(&mut roster, 1, Some(9)).unwrap_err().code(), "wrong-state");
    apply(&mut roster, &Deed::Release(named(1))).unwrap();
    apply(&mut roster, &Deed::Enrol(vec![enrolment(1, 5)])).unwrap();
    assert_eq!(of(&roster, 1), Some((before + 1, Octets32::new([7; 32]))));
    assert_eq!(Roster::decode(&roster.encode()).unwrap().inventory(), roster.inventory());
    say(&mut roster, 1, None).unwrap();
    assert_eq!(of(&roster, 1), None);
    apply(&mut roster, &Deed::Revoke(revocation(2, Cause::Retirement, Vec::new()))).unwrap();
    assert_eq!(of(&roster, 2), None);
    apply(&mut roster, &Deed::Pardon(named(2))).unwrap();
    assert_eq!(of(&roster, 2), None, "it begins anew");
}

#[test]
fn whoever_approves_reads_every_root_key_and_value() {
    let mut roster = busy();
    let words = |roster: &Roster, deed: &Deed| roster.describe(&action(roster, deed), deed);
    let said = words(&roster, &Deed::Anchors(anchors()));
    for tsa in &anchors().tsas {
        let root = bulla_formats::hash::sha256(&[&tsa.certificates[0]]);
        assert!(said.contains(&format!("NEW   root sha256:{root}")), "{said}");
    }
    assert!(said.contains("witness.example/witness+"), "{said}");
    apply(&mut roster, &Deed::Anchors(anchors())).unwrap();
    let mut fewer = anchors();
    let gone = fewer.tsas.pop().unwrap();
    let said = words(&roster, &Deed::Anchors(fewer));
    assert!(said.contains(&format!("GOES      {}", gone.operator)) && !said.contains("NEW"), "{said}");
    let said = words(&roster, &Deed::Policy(policy()));
    for part in ["POLICY", "requires  attested, anchored", "boot NEW  image 2", &"02".repeat(32), "PCR  4"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mut lax = policy();
    (lax.accept_software, lax.require_facts, lax.boots) = (true, Vec::new(), Vec::new());
    let said = words(&roster, &Deed::Policy(lax));
    for part in ["ACCEPTS KEYS WITHOUT A TPM", "REQUIRES NO FACT", "NO BOOT IS JUDGED"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    apply(&mut roster, &Deed::Hubs(vec![hub("hub.example")])).unwrap();
    let said = words(&roster, &Deed::Hubs(Vec::new()));
    assert!(said.contains("GOES      hub.example") && said.contains("NO HUBS ANY MORE"), "{said}");
    let said = words(&roster, &Deed::Hubs(vec![hub("other.example")]));
    for part in ["boxes take leases", "client    spki sha256:", "https://other.example:8446", "hub  NEW"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

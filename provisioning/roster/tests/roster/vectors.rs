//! `tests/vectors-roster/`: rosters that are read, and rosters that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-roster --test roster` writes them.
//! Every expectation is the name of the file, before the two hyphens: `valid`, or the code of the refusal.

use crate::common::{
    FLEET, action, anchors, apply, approved, busy, card, ek, enrolment, founded, good, head, hub, minutes,
    named, neighbours, peer_card, policy, replacement, revocation, row, vouched,
};
use bulla_approvals::action::{Action, Change, Kind, Target};
use bulla_ceremony::transcript::Transcript;
use bulla_formats::der::{self, Octets32};
use bulla_formats::note::SignedNote;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::witness::Role;
use bulla_roster::deed::{Cause, Configured, Deed, Replacement, Revocation, Row};
use bulla_roster::roster::Roster;
use bulla_roster::terms::{Anchors, Hub, Policy};
use rasn::types::OctetString;
use rasn::{AsnType, Encode};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-roster")
}

/// A roster as bytes, whatever its changes are.
#[derive(AsnType, Encode)]
struct Wire {
    version: u64,
    founding: Transcript,
    changes: Vec<Change>,
}

fn wire(roster: &Roster, more: Vec<Change>) -> Wire {
    let mut changes: Vec<Change> = roster.history().iter().map(|done| done.change.clone()).collect();
    changes.extend(more);
    Wire { version: 1, founding: roster.founding().clone(), changes }
}

/// The busy roster and one more change, which olga and omar approved.
fn with(deed: &Deed) -> Vec<u8> {
    by(deed, &["olga", "omar"], |_| {})
}

fn by(deed: &Deed, people: &[&str], change: impl FnOnce(&mut Action)) -> Vec<u8> {
    let roster = busy();
    let mut action = action(&roster, deed);
    change(&mut action);
    der::encode(&wire(&roster, vec![approved(&action, people)]))
}

fn parameters(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    by(&Deed::Quarantine(named(1)), &["olga", "omar"], |action| {
        (action.kind, action.parameters) = (kind, bytes.to_vec().into());
    })
}

fn compromise(number: u8, logs: Vec<bulla_roster::deed::GoodTree>) -> Deed {
    Deed::Revoke(revocation(number, Cause::Compromise, logs))
}

/// Box 1 revoked, pardoned, and enrolled again.
fn pardoned() -> Roster {
    let mut roster = busy();
    for deed in [
        compromise(1, vec![good(1, 1, 50), good(1, 2, 0)]),
        Deed::Pardon(named(1)),
        Deed::Enrol(vec![enrolment(1, 3)]),
    ] {
        apply(&mut roster, &deed).unwrap();
    }
    roster
}

/// Box 1 has its card number 5, boxes 1 and 2 are members; then these.
fn carded(cards: &[PeerCard]) -> Vec<u8> {
    let mut roster = busy();
    for deed in [Deed::Cards(vec![peer_card(1, 2, "one", 5)]), Deed::Enrol(vec![enrolment(2, 1)])] {
        apply(&mut roster, &deed).unwrap();
    }
    let last = approved(&action(&roster, &Deed::Cards(cards.to_vec())), &["olga", "omar"]);
    der::encode(&wire(&roster, vec![last]))
}

fn cards() -> Vec<(&'static str, Vec<u8>)> {
    let good = der::encode(&vec![OctetString::from(peer_card(1, 2, "one", 1).bytes().to_vec())]);
    let at = good.len() - 20;
    let mut damaged = good.clone();
    damaged[at] ^= 1;
    vec![
        ("not-enough--one-person-approves-a-card", {
            by(&Deed::Cards(vec![peer_card(1, 2, "one", 1)]), &["olga"], |_| {})
        }),
        ("parameters--no-cards", with(&Deed::Cards(Vec::new()))),
        ("parameters--cards-and-a-trailing-byte", parameters(Kind::Cards, &[&good[..], &[0]].concat())),
        ("parameters--card-with-a-broken-signature", parameters(Kind::Cards, &damaged)),
        ("parameters--65-cards", {
            with(&Deed::Cards((1..=65).map(|sequence| peer_card(1, 2, "one", sequence)).collect()))
        }),
        ("unknown-box--card-of-nobody", with(&Deed::Cards(vec![peer_card(9, 1, "nine", 1)]))),
        ("unknown-box--card-of-the-log-before", with(&Deed::Cards(vec![peer_card(1, 1, "one", 1)]))),
        ("unknown-box--card-of-a-box-that-is-expected", with(&Deed::Cards(vec![peer_card(2, 1, "two", 1)]))),
        ("wrong-state--card-of-a-box-that-left", with(&Deed::Cards(vec![peer_card(4, 7, "four", 1)]))),
        ("known-box--two-cards-of-one", {
            with(&Deed::Cards(vec![peer_card(1, 2, "one", 1), peer_card(1, 2, "one", 2)]))
        }),
        ("older-card--the-same-again", carded(&[peer_card(1, 2, "one", 5)])),
        ("older-card--a-number-before", carded(&[peer_card(1, 2, "two", 4)])),
        ("known-key--keys-of-another-card", carded(&[peer_card(2, 1, "one", 1)])),
        ("known-key--two-cards-share-keys", {
            carded(&[peer_card(1, 2, "two", 6), peer_card(2, 1, "two", 1)])
        }),
    ]
}

/// Boxes 1 to 3 are members; then this replacement.
fn replaced(replacement: Replacement) -> Vec<u8> {
    let roster = neighbours();
    let last = approved(&action(&roster, &Deed::Replace(replacement)), &["olga", "omar"]);
    der::encode(&wire(&roster, vec![last]))
}

fn replacements() -> Vec<(&'static str, Vec<u8>)> {
    let with = |change: fn(&mut Replacement)| {
        let mut replacement = vouched();
        change(&mut replacement);
        replaced(replacement)
    };
    let of = |head: SignedNote| replaced(replacement(Some(head)));
    let three = [(3, "three", Role::Mirror)];
    let spoilt = |change: fn(&mut SignedNote)| {
        let mut note = head(2, 60, &three);
        change(&mut note);
        of(note)
    };
    let alone = approved(&action(&neighbours(), &Deed::Replace(vouched())), &["olga"]);
    vec![
        ("not-enough--one-person-replaces", der::encode(&wire(&neighbours(), vec![alone]))),
        ("parameters--replaced-and-no-log", with(|all| all.logs.clear())),
        ("parameters--replaced-and-no-head-of-the-last-log", replaced(replacement(None))),
        ("parameters--replaced-by-itself-with-heads", with(|all| all.successor = all.ek_spki_sha256)),
        ("parameters--replaced-at-a-time-above-the-limit", with(|all| all.invalid_from = 1 << 63)),
        ("parameters--replaced-log-is-no-origin", with(|all| all.logs[0].origin = "one".into())),
        ("unknown-box--replaced-by-nobody", with(|all| all.successor = ek(9))),
        ("unknown-box--nobody-is-replaced", with(|all| all.ek_spki_sha256 = ek(9))),
        ("wrong-state--replaced-by-one-that-left", with(|all| all.successor = ek(4))),
        ("logs-differ--replaced-and-a-log-missing", with(|all| drop(all.logs.remove(0)))),
        ("logs-differ--replaced-and-another-order", {
            with(|all| {
                let head = all.logs[1].head.take();
                all.logs.swap(0, 1);
                all.logs[1].head = head;
            })
        }),
        ("not-vouched--nobody-cosigned", of(head(2, 60, &[]))),
        ("not-vouched--the-successor-alone", of(head(2, 60, &[(2, "two", Role::Mirror)]))),
        ("not-vouched--a-stranger", of(head(2, 60, &[(3, "nobody", Role::Mirror)]))),
        ("not-vouched--of-the-log-before", of(head(1, 60, &three))),
        ("not-vouched--of-nothing", of(head(2, 0, &three))),
        ("not-vouched--no-note", with(|all| all.logs[1].head = Some("held".into()))),
        ("not-vouched--not-signed-by-the-log", spoilt(|note| drop(note.lines.remove(0)))),
        ("not-vouched--log-line-flipped", spoilt(|note| note.lines[0].body[20] ^= 1)),
        ("not-vouched--holder-line-flipped", spoilt(|note| note.lines[1].body[20] ^= 1)),
        ("not-vouched--holder-line-at-another-second", spoilt(|note| note.lines[1].body[7] ^= 1)),
        ("not-vouched--holder-line-twice", spoilt(|note| note.lines.push(note.lines[1].clone()))),
        ("not-vouched--another-tree", { spoilt(|note| note.text = head(2, 61, &[]).text) }),
    ]
}

/// The busy roster after these deeds and one more change.
fn then(before: &[Deed], deed: &Deed) -> Vec<u8> {
    let mut roster = busy();
    before.iter().for_each(|deed| apply(&mut roster, deed).unwrap());
    der::encode(&wire(&roster, vec![approved(&action(&roster, deed), &["olga", "omar"])]))
}

fn hubs() -> Vec<(&'static str, Vec<u8>)> {
    let with = |change: fn(&mut Hub)| {
        let mut hub = hub("hub.example");
        change(&mut hub);
        with(&Deed::Hubs(vec![hub]))
    };
    let both = |change: fn(&mut [Hub; 2])| {
        let mut both = [hub("a.example"), hub("b.example")];
        change(&mut both);
        then(&[], &Deed::Hubs(both.to_vec()))
    };
    let named = der::encode(&vec![hub("hub.example")]);
    let with_the_keys_of_a_box = {
        let mut hub = hub("hub.example");
        hub.heads_key = enrolment(1, 2).log_key;
        then(&[], &Deed::Hubs(vec![hub]))
    };
    let with_the_key_of_a_card = {
        let mut hub = hub("hub.example");
        hub.witness_key = peer_card(1, 2, "one", 1).content().witness_key;
        then(&[Deed::Cards(vec![peer_card(1, 2, "one", 1)])], &Deed::Hubs(vec![hub]))
    };
    let card_of_a_hub = {
        let mut hub = hub("hub.example");
        hub.witness_key = peer_card(1, 2, "one", 1).content().mirror_key;
        then(&[Deed::Hubs(vec![hub])], &Deed::Cards(vec![peer_card(1, 2, "one", 1)]))
    };
    let log_of_a_hub = {
        let mut hub = hub("hub.example");
        hub.heads_key = enrolment(2, 1).log_key;
        then(&[Deed::Hubs(vec![hub])], &Deed::Enrol(vec![enrolment(2, 1)]))
    };
    let staged_log_of_a_hub = {
        let mut hub = hub("hub.example");
        hub.heads_key = enrolment(1, 5).log_key;
        then(&[Deed::Hubs(vec![hub])], &Deed::Stage(vec![enrolment(1, 5)]))
    };
    let with_the_key_of_a_staged_log = {
        let mut hub = hub("hub.example");
        hub.witness_key = enrolment(1, 5).log_key;
        then(&[Deed::Stage(vec![enrolment(1, 5)])], &Deed::Hubs(vec![hub]))
    };
    vec![
        ("not-enough--one-person-names-a-hub", by(&Deed::Hubs(vec![hub("hub.example")]), &["olga"], |_| {})),
        ("parameters--hubs-and-a-trailing-byte", parameters(Kind::Hubs, &[&named[..], &[0]].concat())),
        ("parameters--hubs-empty", parameters(Kind::Hubs, &[])),
        ("parameters--seventeen-hubs", {
            then(&[], &Deed::Hubs((10..27).map(|number| hub(&format!("{number}.example"))).collect()))
        }),
        ("parameters--hubs-in-another-order", both(|both| both.swap(0, 1))),
        ("parameters--one-hub-twice", both(|both| both[1] = both[0].clone())),
        ("parameters--two-hubs-share-a-key", both(|both| both[1].witness_key = both[0].heads_key)),
        ("parameters--two-hubs-share-a-client", both(|both| both[1].clients = both[0].clients.clone())),
        ("parameters--hub-with-one-key-for-both", with(|hub| hub.heads_key = hub.witness_key)),
        ("parameters--hub-without-name", with(|hub| hub.name = String::new())),
        ("parameters--hub-name-of-65-bytes", with(|hub| hub.name = "h".repeat(65))),
        ("parameters--hub-name-with-a-plus", with(|hub| hub.name = "a+b".into())),
        ("parameters--hub-name-with-a-blank", with(|hub| hub.name = "a b".into())),
        ("parameters--hub-witness-of-small-order", with(|hub| hub.witness_key = Octets32::new([0; 32]))),
        ("parameters--hub-heads-of-small-order", with(|hub| hub.heads_key = Octets32::new([0; 32]))),
        ("parameters--hub-with-five-clients", {
            with(|hub| hub.clients = (1..=5).map(|pin| Octets32::new([pin; 32])).collect())
        }),
        ("parameters--hub-client-twice", with(|hub| hub.clients = vec![hub.clients[0]; 2])),
        ("parameters--hub-servers-in-another-order", {
            with(|hub| hub.servers = vec![Octets32::new([2; 32]), Octets32::new([1; 32])])
        }),
        (
            "parameters--hub-address-without-tls",
            with(|hub| hub.addresses = vec!["http://hub.example".into()]),
        ),
        ("parameters--hub-address-with-a-line-feed", {
            with(|hub| hub.addresses = vec!["https://hub.example\n".into()])
        }),
        ("parameters--hub-address-of-257-bytes", {
            with(|hub| hub.addresses = vec!["https://".to_owned() + &"h".repeat(249)])
        }),
        ("parameters--hub-with-nine-addresses", {
            with(|hub| hub.addresses = vec!["https://hub.example".into(); 9])
        }),
        ("known-key--hub-with-the-key-of-a-log", with_the_keys_of_a_box),
        ("known-key--hub-with-the-key-of-a-card", with_the_key_of_a_card),
        ("known-key--card-with-the-key-of-a-hub", card_of_a_hub),
        ("known-key--log-with-the-key-of-a-hub", log_of_a_hub),
        ("known-key--staged-with-the-key-of-a-hub", staged_log_of_a_hub),
        ("known-key--hub-with-the-key-of-a-staged-log", with_the_key_of_a_staged_log),
    ]
}

fn terms() -> Vec<(&'static str, Vec<u8>)> {
    let time = |change: fn(&mut Anchors)| {
        let mut anchors = anchors();
        change(&mut anchors);
        with(&Deed::Anchors(anchors))
    };
    let rule = |change: fn(&mut Policy)| {
        let mut policy = policy();
        change(&mut policy);
        with(&Deed::Policy(policy))
    };
    let nobody = Anchors { operators: 1, tsas: Vec::new(), witnesses: Vec::new() };
    let bytes = der::encode(&anchors());
    let policy_bytes = der::encode(&policy());
    vec![
        ("not-enough--one-person-believes-a-time", by(&Deed::Anchors(anchors()), &["olga"], |_| {})),
        ("not-enough--one-person-sets-the-policy", by(&Deed::Policy(policy()), &["olga"], |_| {})),
        ("stranger--a-custodian-sets-the-policy", by(&Deed::Policy(policy()), &["olga", "ada"], |_| {})),
        ("parameters--anchors-and-a-trailing-byte", parameters(Kind::Anchors, &[&bytes[..], &[0]].concat())),
        ("parameters--anchors-are-a-policy", parameters(Kind::Anchors, &policy_bytes)),
        ("parameters--a-bound-of-nobody", time(|all| all.operators = 0)),
        ("parameters--a-bound-of-nine", time(|all| all.operators = 9)),
        ("parameters--operators-in-another-order", time(|all| all.tsas.swap(0, 1))),
        ("parameters--an-operator-twice", time(|all| all.tsas[1] = all.tsas[0].clone())),
        ("parameters--operator-without-name", time(|all| all.tsas[0].operator = String::new())),
        ("parameters--operator-with-a-line-feed", time(|all| all.tsas[0].operator = "A\nB".into())),
        ("parameters--operator-without-roots", time(|all| all.tsas[0].certificates.clear())),
        ("parameters--root-twice", {
            time(|all| {
                let root = all.tsas[0].certificates[0].clone();
                all.tsas[0].certificates.push(root);
            })
        }),
        (
            "parameters--root-is-no-certificate",
            time(|all| all.tsas[0].certificates = vec![vec![0x30, 0].into()]),
        ),
        ("parameters--root-cut", {
            time(|all| {
                let root = all.tsas[0].certificates[0].clone();
                all.tsas[0].certificates[0] = root[..root.len() - 1].to_vec().into();
            })
        }),
        ("parameters--policy-is-no-oid", time(|all| all.tsas[0].policies = vec!["any".into()])),
        ("parameters--policy-oid-twice", time(|all| all.tsas[0].policies = vec!["1.2.3".into(); 2])),
        ("parameters--witness-without-operator", time(|all| all.witnesses[0].operator = String::new())),
        ("parameters--witness-key-of-another-name", {
            time(|all| all.witnesses[0].key = all.witnesses[0].key.replacen("witness", "wutness", 1))
        }),
        ("parameters--witness-twice", time(|all| all.witnesses = vec![all.witnesses[0].clone(); 2])),
        ("parameters--33-witnesses", time(|all| all.witnesses = vec![all.witnesses[0].clone(); 33])),
        ("parameters--policy-and-a-trailing-byte", {
            parameters(Kind::Policy, &[&policy_bytes[..], &[0]].concat())
        }),
        ("parameters--policy-empty", parameters(Kind::Policy, &[])),
        ("parameters--fact-unknown", rule(|all| all.require_facts = vec!["blessed".into()])),
        ("parameters--fact-twice", rule(|all| all.require_facts = vec!["attested".into(); 2])),
        ("parameters--boot-twice", rule(|all| all.boots = vec![all.boots[0].clone(); 2])),
        ("parameters--boots-of-one-name", rule(|all| all.boots[1].name = all.boots[0].name.clone())),
        ("parameters--boots-of-the-same-values", rule(|all| all.boots[1].pcrs = all.boots[0].pcrs.clone())),
        ("parameters--boot-without-name", rule(|all| all.boots[0].name = String::new())),
        ("parameters--boot-without-values", rule(|all| all.boots[0].pcrs.clear())),
        ("parameters--boot-of-pcr-24", rule(|all| all.boots[0].pcrs[1].pcr = 24)),
        ("parameters--boot-pcrs-in-another-order", rule(|all| all.boots[0].pcrs.swap(0, 1))),
        ("unprovable--anchored-by-nobody", then(&[Deed::Anchors(nobody.clone())], &Deed::Policy(policy()))),
        ("unprovable--nobody-anchors-what-must-be", {
            then(&[Deed::Anchors(anchors()), Deed::Policy(policy())], &Deed::Anchors(nobody))
        }),
    ]
}

fn valid() -> Vec<(&'static str, Vec<u8>)> {
    let mut lone = Roster::found(minutes(&[], 0)).unwrap();
    let import = action(&lone, &Deed::Import(vec![row(1)]));
    lone.apply(approved(&import, &["ada"]), crate::common::NOW).unwrap();
    vec![
        ("valid--founded", founded().encode()),
        ("valid--busy", busy().encode()),
        ("valid--pardoned", pardoned().encode()),
        ("valid--one-custodian-alone", lone.encode()),
        (
            "valid--replaced",
            with(&Deed::Revoke(Revocation {
                successor: Some(ek(2)),
                ..revocation(1, Cause::Replaced, vec![good(1, 1, 50), good(1, 2, 60)])
            })),
        ),
        (
            "valid--operators-changed",
            with(&Deed::Operators { cards: vec![card("olga", "olga"), card("pia", "pia")], needed: 2 }),
        ),
        ("valid--replaced-and-vouched", replaced(vouched())),
        ("valid--replaced-held-by-one-key", {
            replaced(replacement(Some(head(2, 1, &[(3, "three", Role::Witness)]))))
        }),
        ("valid--staged", with(&Deed::Stage(vec![enrolment(1, 5)]))),
        ("valid--staged-and-begun", staged(&Deed::Cards(vec![peer_card(1, 5, "one", 1)]))),
        ("valid--staged-and-compromised", {
            staged(&compromise(1, vec![good(1, 1, 50), good(1, 2, 60), good(1, 5, 0)]))
        }),
        ("valid--card", with(&Deed::Cards(vec![peer_card(1, 2, "one", 1)]))),
        ("valid--card-with-other-keys", carded(&[peer_card(1, 2, "two", 6)])),
        ("valid--hubs", then(&[], &Deed::Hubs(vec![hub("hub.example")]))),
        ("valid--hubs-that-went", then(&[Deed::Hubs(vec![hub("hub.example")])], &Deed::Hubs(Vec::new()))),
        ("valid--anchors", with(&Deed::Anchors(anchors()))),
        ("valid--policy", then(&[Deed::Anchors(anchors())], &Deed::Policy(policy()))),
        ("valid--policy-before-anchors", with(&Deed::Policy(policy()))),
        ("valid--override", by(&Deed::Release(named(3)), &["ada"], |action| action.overriding = true)),
    ]
}

fn configured(number: u8, file: Option<u8>) -> Configured {
    Configured { ek_spki_sha256: ek(number), file: file.map(|byte| Octets32::new([byte; 32])) }
}

/// The files of these boxes, in the order in which boxes must stand.
fn files(of: &[(u8, Option<u8>)]) -> Deed {
    let mut all: Vec<Configured> = of.iter().map(|(number, file)| configured(*number, *file)).collect();
    all.sort_by_key(|one| one.ek_spki_sha256);
    Deed::Configuration(all)
}

fn configurations() -> Vec<(&'static str, Vec<u8>)> {
    let bytes = files(&[(1, Some(7))]).encode();
    let Deed::Configuration(both) = files(&[(1, Some(7)), (2, Some(8))]) else { unreachable!() };
    let turned = Deed::Configuration(both.iter().rev().cloned().collect());
    let twice = Deed::Configuration(vec![both[0].clone(), both[0].clone()]);
    vec![
        ("valid--configuration", with(&files(&[(1, Some(7))]))),
        ("valid--configuration-of-two", with(&files(&[(1, Some(7)), (2, Some(7))]))),
        ("valid--configuration-taken-back", then(&[files(&[(1, Some(7))])], &files(&[(1, None)]))),
        ("valid--configuration-again", then(&[files(&[(1, Some(7))])], &files(&[(1, Some(7))]))),
        ("not-enough--one-person-configures", by(&files(&[(1, Some(7))]), &["olga"], |_| {})),
        ("stranger--a-custodian-configures", by(&files(&[(1, Some(7))]), &["olga", "ada"], |_| {})),
        ("parameters--nothing-configured", with(&Deed::Configuration(Vec::new()))),
        ("parameters--configuration-empty", parameters(Kind::Configuration, &[])),
        (
            "parameters--configuration-and-a-trailing-byte",
            parameters(Kind::Configuration, &[&bytes[..], &[0]].concat()),
        ),
        ("parameters--configuration-cut", parameters(Kind::Configuration, &bytes[..bytes.len() - 1])),
        ("parameters--configuration-is-one-box", parameters(Kind::Configuration, &der::encode(&named(1)))),
        // A hash of 31 bytes.
        ("parameters--configuration-of-a-short-hash", {
            let mut short = bytes.clone();
            for at in [1, 3, 39] {
                short[at] -= 1;
            }
            parameters(Kind::Configuration, &short[..short.len() - 1])
        }),
        ("parameters--configured-in-another-order", with(&turned)),
        ("parameters--one-box-configured-twice", with(&twice)),
        ("unknown-box--configured", with(&files(&[(1, Some(7)), (9, Some(7))]))),
        ("wrong-state--configured-while-held-back", with(&files(&[(3, Some(7))]))),
        ("wrong-state--configured-after-it-left", with(&files(&[(4, None)]))),
    ]
}

/// The busy roster, a log staged for box 1, and one more change.
fn staged(deed: &Deed) -> Vec<u8> {
    let mut roster = busy();
    apply(&mut roster, &Deed::Stage(vec![enrolment(1, 5)])).unwrap();
    let last = approved(&action(&roster, deed), &["olga", "omar"]);
    der::encode(&wire(&roster, vec![last]))
}

fn stagings() -> Vec<(&'static str, Vec<u8>)> {
    let other = |change: &dyn Fn(&mut bulla_formats::enrolment::EnrolmentContent)| {
        let mut content = enrolment(1, 5);
        change(&mut content);
        with(&Deed::Stage(vec![content]))
    };
    vec![
        ("parameters--nothing-staged", with(&Deed::Stage(Vec::new()))),
        ("parameters--staged-log-without-key", other(&|content| content.log_key = Octets32::new([2; 32]))),
        ("unknown-box--staged", with(&Deed::Stage(vec![enrolment(9, 1)]))),
        ("wrong-state--staged-for-one-that-is-expected", with(&Deed::Stage(vec![enrolment(2, 1)]))),
        ("wrong-state--staged-for-one-held-back", with(&Deed::Stage(vec![enrolment(3, 1)]))),
        ("tombstoned--staged", with(&Deed::Stage(vec![enrolment(4, 8)]))),
        ("known-box--staged-twice-at-once", with(&Deed::Stage(vec![enrolment(1, 5), enrolment(1, 6)]))),
        ("other-origin--staged-under-the-log-in-use", with(&Deed::Stage(vec![enrolment(1, 2)]))),
        ("other-origin--staged-before-a-staged-one", staged(&Deed::Stage(vec![enrolment(1, 4)]))),
        ("other-origin--enrolled-under-a-staged-one", staged(&Deed::Enrol(vec![enrolment(1, 5)]))),
        ("known-key--staged-with-the-log-key-in-use", {
            other(&|content| content.log_key = enrolment(1, 2).log_key)
        }),
        ("known-key--staged-with-another-attestation-key", {
            other(&|content| content.attestation_key = enrolment(2, 1).attestation_key)
        }),
        ("known-key--staged-with-the-key-of-a-staged-log", {
            staged(&Deed::Stage(vec![{
                let mut content = enrolment(1, 6);
                content.log_key = enrolment(1, 5).log_key;
                content
            }]))
        }),
        ("logs-differ--compromised-without-the-staged-one", {
            staged(&compromise(1, vec![good(1, 1, 50), good(1, 2, 60)]))
        }),
        ("logs-differ--retired-with-the-staged-one", {
            let logs = vec![good(1, 1, 50), good(1, 2, 60), good(1, 5, 0)];
            staged(&Deed::Revoke(revocation(1, Cause::Retirement, logs)))
        }),
        ("not-enough--one-stages", by(&Deed::Stage(vec![enrolment(1, 5)]), &["olga"], |_| {})),
    ]
}

fn histories() -> Vec<(&'static str, Vec<u8>)> {
    let roster = busy();
    let changed = |change: &dyn Fn(&mut Wire)| {
        let mut wire = wire(&roster, Vec::new());
        change(&mut wire);
        der::encode(&wire)
    };
    let bytes = roster.encode();
    let box_action = by(&Deed::Quarantine(named(1)), &["olga", "omar"], |action| {
        let origin = enrolment(1, 2).origin;
        let (root, nonce) = (Octets32::new([1; 32]), Octets32::new([2; 32]));
        (action.kind, action.target) = (Kind::Box, Some(Target { origin, size: 1, root, nonce }));
    });
    vec![
        ("malformed--empty", Vec::new()),
        ("malformed--trailing-byte", [&bytes[..], &[0]].concat()),
        ("malformed--cut-short", bytes[..bytes.len() - 1].to_vec()),
        ("malformed--version-2", changed(&|wire| wire.version = 2)),
        ("malformed--change-without-approvals", changed(&|wire| wire.changes[4].approvals.clear())),
        ("founding--version-2", changed(&|wire| wire.founding.content.version = 2)),
        ("founding--another-operator", {
            changed(&|wire| wire.founding.content.plan.operators[0] = card("eve", "eve"))
        }),
        ("founding--signature-flipped", {
            changed(&|wire| {
                let mut signature = wire.founding.signature.to_vec();
                signature[40] ^= 1;
                wire.founding.signature = signature.into();
            })
        }),
        // Minutes of the same root, and another start.
        ("forked--another-founding", changed(&|wire| wire.founding = minutes(&["olga", "omar"], 2))),
        ("forked--approvals-added-afterwards", {
            changed(&|wire| {
                let action = wire.changes[0].action.clone();
                wire.changes[0] = approved(&action, &["olga", "omar", "oya"]);
            })
        }),
        ("roster-behind--first-change-gone", changed(&|wire| drop(wire.changes.remove(0)))),
        ("roster-behind--one-change-gone", changed(&|wire| drop(wire.changes.remove(2)))),
        ("roster-behind--two-changes-swapped", changed(&|wire| wire.changes.swap(1, 2))),
        ("used--change-twice", changed(&|wire| wire.changes.insert(3, wire.changes[2].clone()))),
        ("used--first-change-again", changed(&|wire| wire.changes.push(wire.changes[0].clone()))),
        ("stale--on-an-older-version", {
            let action = Action {
                roster: roster.versions()[2].clone(),
                ..action(&roster, &Deed::Import(vec![row(9)]))
            };
            der::encode(&wire(&roster, vec![approved(&action, &["olga", "omar"])]))
        }),
        ("not-enough--one-imports", by(&Deed::Import(vec![row(9)]), &["olga"], |_| {})),
        ("stranger--custodian-approves", by(&Deed::Import(vec![row(9)]), &["olga", "ada"], |_| {})),
        ("other-target--for-a-box", box_action),
        (
            "other-fleet--",
            by(&Deed::Import(vec![row(9)]), &["olga", "omar"], |action| action.fleet = "bank.test".into()),
        ),
    ]
}

fn deeds() -> Vec<(&'static str, Vec<u8>)> {
    let enrol = |change: fn(&mut bulla_formats::enrolment::EnrolmentContent)| {
        let mut content = enrolment(2, 1);
        change(&mut content);
        with(&Deed::Enrol(vec![content]))
    };
    let import = |change: fn(&mut Row)| {
        let mut row = row(9);
        change(&mut row);
        with(&Deed::Import(vec![row]))
    };
    let rows = der::encode(&vec![row(9)]);
    vec![
        ("parameters--empty", parameters(Kind::Import, &[])),
        ("parameters--no-rows", with(&Deed::Import(Vec::new()))),
        ("parameters--trailing-byte", parameters(Kind::Import, &[&rows[..], &[0]].concat())),
        ("parameters--of-another-kind", parameters(Kind::Revoke, &rows)),
        ("parameters--no-serial", import(|row| row.serial = String::new())),
        ("parameters--serial-of-65-bytes", import(|row| row.serial = "S".repeat(65))),
        ("parameters--branch-with-a-line-feed", import(|row| row.branch = "a\nb".into())),
        ("parameters--model-with-outer-blank", import(|row| row.model = "B-100 ".into())),
        ("parameters--root-of-nothing", {
            let mut nothing = good(1, 2, 0);
            nothing.root = Octets32::new([1; 32]);
            with(&compromise(1, vec![good(1, 1, 50), nothing]))
        }),
        ("parameters--size-above-the-limit", with(&compromise(1, vec![good(1, 1, 50), good(1, 2, 1 << 63)]))),
        ("parameters--replaced-by-nothing", with(&Deed::Revoke(revocation(2, Cause::Replaced, Vec::new())))),
        (
            "parameters--replaced-by-itself",
            with(&Deed::Revoke(Revocation {
                successor: Some(ek(2)),
                ..revocation(2, Cause::Replaced, Vec::new())
            })),
        ),
        (
            "parameters--retired-with-a-successor",
            with(&Deed::Revoke(Revocation {
                successor: Some(ek(1)),
                ..revocation(2, Cause::Retirement, Vec::new())
            })),
        ),
        ("parameters--enrolment-version-2", enrol(|content| content.version = 2)),
        ("parameters--log-key-of-small-order", enrol(|content| content.log_key = Octets32::new([0; 32]))),
        (
            "parameters--nine-ek-certificates",
            enrol(|content| content.ek_certificates = vec![vec![0x30, 0].into(); 9]),
        ),
        (
            "parameters--more-operators-than-there-are",
            with(&Deed::Operators { cards: vec![card("pia", "pia")], needed: 2 }),
        ),
        (
            "parameters--an-operator-who-is-a-custodian",
            with(&Deed::Operators { cards: vec![card("ada", "ada")], needed: 1 }),
        ),
        ("parameters--operators-card-unsigned", {
            let mut unsigned = card("pia", "pia");
            unsigned.content.name = "eve".into();
            with(&Deed::Operators { cards: vec![unsigned], needed: 1 })
        }),
        ("known-box--listed", with(&Deed::Import(vec![Row { serial: "S-9".into(), ..row(2) }]))),
        (
            "known-box--twice-in-one-import",
            with(&Deed::Import(vec![row(9), Row { serial: "S-10".into(), ..row(9) }])),
        ),
        ("known-serial--listed", with(&Deed::Import(vec![Row { serial: "S-2".into(), ..row(9) }]))),
        (
            "known-serial--twice-in-one-import",
            with(&Deed::Import(vec![row(9), Row { serial: "S-9".into(), ..row(10) }])),
        ),
        ("tombstoned--imported-again", with(&Deed::Import(vec![Row { serial: "S-9".into(), ..row(4) }]))),
        ("tombstoned--enrolled-again", with(&Deed::Enrol(vec![enrolment(4, 8)]))),
        ("unknown-box--enrolled", with(&Deed::Enrol(vec![enrolment(9, 1)]))),
        ("unknown-box--revoked", with(&compromise(9, Vec::new()))),
        ("unknown-box--pardoned", with(&Deed::Pardon(named(9)))),
        ("wrong-state--held-back-is-enrolled", with(&Deed::Enrol(vec![enrolment(3, 1)]))),
        ("wrong-state--member-is-released", with(&Deed::Release(named(1)))),
        ("wrong-state--member-is-pardoned", with(&Deed::Pardon(named(1)))),
        (
            "wrong-state--retired-twice",
            with(&Deed::Revoke(revocation(4, Cause::Retirement, vec![good(4, 7, 900)]))),
        ),
        ("wrong-state--pardoned-twice", {
            let mut roster = busy();
            apply(&mut roster, &Deed::Pardon(named(4))).unwrap();
            let again = approved(&action(&roster, &Deed::Pardon(named(4))), &["olga", "omar"]);
            der::encode(&wire(&roster, vec![again]))
        }),
        ("tombstoned--one-pardon-two-times", {
            let mut roster = pardoned();
            apply(&mut roster, &compromise(1, vec![good(1, 3, 9)])).unwrap();
            let again = approved(&action(&roster, &Deed::Enrol(vec![enrolment(1, 4)])), &["olga", "omar"]);
            der::encode(&wire(&roster, vec![again]))
        }),
        ("other-origin--of-another-box", enrol(|content| content.origin = enrolment(1, 9).origin)),
        ("other-origin--of-another-fleet", {
            enrol(|content| {
                content.fleet = "bank.test".into();
                content.origin = content.origin.replace(FLEET, "bank.test");
            })
        }),
        ("other-origin--an-incarnation-again", with(&Deed::Enrol(vec![enrolment(1, 2)]))),
        ("other-origin--an-incarnation-before", with(&Deed::Enrol(vec![enrolment(1, 1)]))),
        ("known-key--log-key-of-another", enrol(|content| content.log_key = enrolment(1, 1).log_key)),
        (
            "known-key--attestation-key-of-another",
            enrol(|content| content.attestation_key = enrolment(1, 1).attestation_key),
        ),
        ("logs-differ--none-named", with(&compromise(1, Vec::new()))),
        ("logs-differ--one-of-two", with(&compromise(1, vec![good(1, 2, 50)]))),
        ("logs-differ--another-order", with(&compromise(1, vec![good(1, 2, 50), good(1, 1, 50)]))),
        ("logs-differ--of-another-box", with(&compromise(2, vec![good(1, 1, 50)]))),
    ]
}

fn all() -> BTreeMap<String, Vec<u8>> {
    let vectors = valid()
        .into_iter()
        .chain(histories())
        .chain(deeds())
        .chain(cards())
        .chain(replacements())
        .chain(hubs())
        .chain(terms())
        .chain(stagings())
        .chain(configurations());
    vectors.map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

#[test]
fn the_vectors_are_what_this_source_makes() {
    let all = all();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        let _absent = fs::remove_dir_all(directory());
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in &all {
            fs::write(directory().join(name), bytes).unwrap();
        }
    }
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        found.insert(entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    }
    assert_eq!(found.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    for (name, bytes) in &all {
        assert_eq!(found[name], *bytes, "{name}");
    }
}

#[test]
fn every_vector_is_judged_as_its_name_says() {
    let (mut valid, mut refused) = (0, 0);
    let mut codes = BTreeSet::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let read = Roster::decode(&fs::read(entry.path()).unwrap());
        let found = read.as_ref().map_or_else(|refusal| refusal.code(), |_| "valid");
        assert_eq!(found, name.split("--").next().unwrap(), "{name}: {:?}", read.err());
        match found {
            "valid" => valid += 1,
            code => {
                codes.insert(code);
                refused += 1;
            }
        }
    }
    assert!(valid >= 5 && refused > 5 * valid, "{valid} valid, {refused} refused");
    assert_eq!(codes.len(), 22, "{codes:?}");
}

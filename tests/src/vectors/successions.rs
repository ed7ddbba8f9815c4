//! Trust files of version 5: which log takes the place of which, and everything that does not say so.

use super::keys;
use super::plan::{FLEET, Plan};
use super::revocations::{by, content as given_up, other_origin, sealed, signed as revoked};
use super::{SEALED, Vector, trust_refused, valid};
use bulla_formats::hash::empty_root;
use bulla_formats::revocation::Cause;
use bulla_formats::succession::{Succession, SuccessionContent};

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(contents());
    all.extend(shapes());
    all
}

/// Another box takes the place of the one that made the token.
fn content() -> SuccessionContent {
    let ended = given_up(Cause::Replaced, 8);
    let holder = other_origin(3);
    SuccessionContent {
        version: 1,
        fleet: FLEET.into(),
        predecessor: ended.origin,
        successor: other_origin(1),
        head: ended.good,
        holders: vec![format!("{holder}/mirror"), format!("{holder}/witness")],
        roster: ended.roster,
        roster_hash: ended.roster_hash,
        issued_at: ended.issued_at,
    }
}

fn signed(content: SuccessionContent) -> Succession {
    let signature = keys::sign_ed25519(&keys::ed25519("fleet root"), &content.message()).into();
    Succession { content, chain: Vec::new(), signature }
}

/// The box that made the token takes the place of another one.
fn turned(incarnation: u64) -> Succession {
    let own = content();
    signed(SuccessionContent {
        predecessor: other_origin(incarnation),
        successor: own.predecessor.clone(),
        ..own
    })
}

/// The trust file gives up the token's log as replaced, and says this of what follows.
fn with(successions: Vec<Succession>) -> Plan {
    by(sealed(), vec![revoked(given_up(Cause::Replaced, 8))]).trust(move |trust| {
        trust.roster.as_mut().expect("it has one").successions = successions.clone();
    })
}

fn positive() -> Vec<Vector> {
    let one = other_origin(3) + "/mirror";
    let follows = |successions: Vec<Succession>| {
        by(sealed(), Vec::new()).trust(move |trust| {
            trust.roster.as_mut().expect("it has one").successions = successions.clone();
        })
    };
    vec![
        valid("valid-succeeded", SEALED, with(vec![signed(content())])),
        valid("valid-succeeded-held-by-one", SEALED, {
            with(vec![signed(SuccessionContent { holders: vec![one], ..content() })])
        }),
        valid("valid-succeeds-another", SEALED, follows(vec![turned(1)])),
        valid("valid-succeeds-two-others", SEALED, follows(vec![turned(1), turned(2)])),
    ]
}

fn contents() -> Vec<Vector> {
    let of = |what: &str, change: fn(&mut SuccessionContent)| {
        let mut content = content();
        change(&mut content);
        trust_refused(&format!("v5-succession-{what}"), with(vec![signed(content)]))
    };
    let broken = |what: &str, change: fn(&mut Succession)| {
        let mut said = signed(content());
        change(&mut said);
        trust_refused(&format!("v5-succession-{what}"), with(vec![said]))
    };
    vec![
        of("version-2", |content| content.version = 2),
        of("of-another-fleet", |content| content.fleet = "bonk.test".into()),
        of("from-another-fleet", |content| {
            content.predecessor = content.predecessor.replace(FLEET, "bonk.test");
        }),
        of("to-another-fleet", |content| content.successor = content.successor.replace(FLEET, "bonk.test")),
        of("to-no-origin", |content| content.successor = "nobody".into()),
        of("to-the-same-box", |content| {
            let (name, _) = content.predecessor.rsplit_once('/').expect("an origin");
            content.successor = format!("{name}/77");
        }),
        of("head-of-nothing", |content| {
            (content.head.size, content.head.root) = (0, bulla_formats::der::Octets32::new(empty_root().0));
        }),
        of("head-above-the-limit", |content| content.head.size = 1 << 63),
        of("without-holders", |content| content.holders.clear()),
        of("holders-in-another-order", |content| content.holders.reverse()),
        of("holder-twice", |content| content.holders[1] = content.holders[0].clone()),
        of("holder-without-name", |content| content.holders[0].clear()),
        of("holder-with-a-blank", |content| content.holders[0] = "a holder".into()),
        of("holder-of-256-bytes", |content| content.holders[0] = "a".repeat(256)),
        of("of-33-holders", |content| {
            content.holders = (10..43).map(|number| format!("holder-{number}")).collect();
        }),
        broken("by-another-key", |said| {
            said.signature = keys::sign_ed25519(&keys::ed25519("other"), &said.content.message()).into();
        }),
        broken("changed-afterwards", |said| said.content.roster = 8),
        broken("signed-as-a-revocation", |said| {
            let message = bulla_formats::sig::labelled(
                bulla_formats::sig::label::REVOCATION,
                &bulla_formats::der::encode(&said.content),
            );
            said.signature = keys::sign_ed25519(&keys::ed25519("fleet root"), &message).into();
        }),
        trust_refused("v5-one-log-twice", with(vec![signed(content()), signed(content())])),
        trust_refused("v5-logs-in-another-order", with(vec![turned(2), turned(1)])),
    ]
}

/// Files that are of another version than they say, or none.
fn shapes() -> Vec<Vector> {
    let text = |what: &str, from: &'static str, to: &'static str| {
        let plan = with(vec![signed(content())]).swap_trust(from, to);
        trust_refused(&format!("v5-{what}"), plan)
    };
    vec![
        text("as-v4", "trust/v5", "trust/v4"),
        text("as-v2", "trust/v5", "trust/v2"),
        text("as-v6", "trust/v5", "trust/v6"),
        text("successions-missing", "\"successions\"", "\"Successions\""),
        text("cosigners-missing", "\"cosigners\"", "\"Cosigners\""),
        text("succession-of-a-number", "\"successions\": [", "\"successions\": [1,"),
        text("succession-in-lax-base64", "\"successions\": [\n    \"", "\"successions\": [\n    \"="),
        text("roster-missing", "\"roster\"", "\"Roster\""),
        text("two-operators-of-none", "\"operators\": 1", "\"operators\": 2"),
        trust_refused("v5-requires-a-mirror-of-nobody", {
            with(vec![signed(content())])
                .trust(|trust| trust.policy.require_facts = vec!["mirrored(1)".into()])
        }),
    ]
}

//! Revocations: logs that were given up, seals that are good all the same, and seals of which nobody can tell.

use super::keys;
use super::log::Log;
use super::plan::{FLEET, NOW, Plan, swap};
use super::{ATTESTED, Expect, SEALED, Vector, refused, trust_refused, valid};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{FleetCertificate, FleetCertificateContent, FleetRole};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{empty_root, sha256};
use bulla_formats::origin::Origin;
use bulla_formats::revocation::{Cause, Revocation, RevocationContent, RevocationEvidence};
use bulla_formats::sig::{label, labelled};
use bulla_formats::trust::FromRoster;

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(open());
    all.extend(statements());
    all.extend(proofs());
    all.extend(shapes());
    all.extend(trust());
    all
}

/// Token 2 of a log of 12 entries, under a checkpoint of 4: the file that a client got when it sealed.
pub(super) fn sealed() -> Plan {
    Plan::software().tree(2, 12).heads(vec![(4, None)])
}

/// The tree of the first `size` entries of that log.
fn tree(size: u64) -> TreeState {
    let plan = sealed();
    let log = Log::of(&plan);
    TreeState { size, root: Octets32::new(log.root(size).0) }
}

pub(super) fn content(cause: Cause, size: u64) -> RevocationContent {
    let plan = sealed();
    RevocationContent {
        version: 1,
        fleet: FLEET.into(),
        origin: Log::of(&plan).origin,
        cause,
        good: tree(size),
        invalid_from: NOW - 86_400_000,
        roster: 7,
        roster_hash: Octets32::new([3; 32]),
        issued_at: NOW,
    }
}

pub(super) fn signed(content: RevocationContent) -> Revocation {
    let signature = keys::sign_ed25519(&keys::ed25519("fleet root"), &content.message()).into();
    Revocation { content, chain: Vec::new(), signature }
}

fn said(cause: Cause, size: u64) -> Revocation {
    signed(content(cause, size))
}

/// Signed by a fleet CA that the root certified, which `change` may spoil.
fn by_ca(cause: Cause, size: u64, change: fn(&mut FleetCertificateContent)) -> Revocation {
    let ca = keys::ed25519("fleet CA 0");
    let mut certified = FleetCertificateContent {
        version: 1,
        fleet: FLEET.into(),
        role: FleetRole::FleetCa,
        public_key: Octets32::new(ca.verifying_key().to_bytes()),
        not_before: NOW - 1_000,
        not_after: NOW + 1_000,
    };
    change(&mut certified);
    let signature = keys::sign_ed25519(&keys::ed25519("fleet root"), &certified.message()).into();
    let content = content(cause, size);
    let own = keys::sign_ed25519(&ca, &content.message()).into();
    Revocation { content, chain: vec![FleetCertificate { content: certified, signature }], signature: own }
}

/// A log that is not the token's.
pub(super) fn other_origin(incarnation: u64) -> String {
    let origin = Origin::derive(FLEET, &sha256(&[b"another endorsement key"]), incarnation);
    origin.expect("the fleet is a domain").to_string()
}

/// With a trust file that was written from a roster which says this.
pub(super) fn by(plan: Plan, revocations: Vec<Revocation>) -> Plan {
    plan.trust(move |trust| {
        trust.roster = Some(FromRoster {
            version: 7,
            hash: [3; 32],
            revocations: revocations.clone(),
            successions: Vec::new(),
        });
    })
}

/// The file carries this statement and, where it can, the token's path to its tree.
fn carrying(plan: Plan, said: Revocation, proven: bool) -> Plan {
    plan.file(move |log, file| {
        let entry_proof = proven.then(|| log.proof(2, said.content.good.size.min(log.size())));
        file.revocations.push(RevocationEvidence { statement: der::encode(&said), entry_proof });
    })
}

fn positive() -> Vec<Vector> {
    let compromise = |size| said(Cause::Compromise, size);
    let another = RevocationContent { origin: other_origin(1), ..content(Cause::Compromise, 8) };
    vec![
        valid("valid-roster-gives-up-no-log", SEALED, by(sealed(), Vec::new())),
        valid("valid-another-log-compromised", SEALED, by(sealed(), vec![signed(another)])),
        valid("valid-retired", SEALED, by(sealed(), vec![said(Cause::Retirement, 12)])),
        valid("valid-retired-last-tree-unknown", SEALED, by(sealed(), vec![said(Cause::Retirement, 0)])),
        valid("valid-replaced", SEALED, by(sealed(), vec![said(Cause::Replaced, 2)])),
        valid("valid-retired-by-the-file", SEALED, carrying(sealed(), said(Cause::Retirement, 12), false)),
        valid(
            "valid-compromised-head-is-the-good-tree",
            SEALED,
            by(sealed().heads(vec![(8, None)]), vec![compromise(8)]),
        ),
        valid(
            "valid-compromised-second-head-is-the-good-tree",
            SEALED,
            by(sealed().heads(vec![(4, None), (8, None)]), vec![compromise(8)]),
        ),
        valid(
            "valid-compromised-shown-by-the-file",
            SEALED,
            carrying(by(sealed(), vec![compromise(8)]), compromise(8), true),
        ),
        valid("valid-compromised-by-the-file-alone", SEALED, carrying(sealed(), compromise(8), true)),
        valid(
            "valid-compromised-token-is-the-last-good-one",
            SEALED,
            carrying(by(sealed(), vec![compromise(3)]), compromise(3), true),
        ),
        valid(
            "valid-compromised-said-by-the-fleet-ca",
            SEALED,
            carrying(sealed(), by_ca(Cause::Compromise, 8, |_| {}), true),
        ),
        valid(
            "valid-compromised-after-retirement",
            SEALED,
            carrying(
                carrying(by(sealed(), vec![compromise(8)]), said(Cause::Retirement, 12), false),
                compromise(8),
                true,
            ),
        ),
        valid(
            "valid-compromised-attested",
            ATTESTED,
            carrying(Plan::quoted().tree(2, 12), compromise_of_tpm(), true),
        ),
        valid(
            "valid-revocations-critical",
            SEALED,
            carrying(sealed(), compromise(8), true).swap("{\n", "{\n  \"critical\": [\"revocations\"],\n"),
        ),
        valid(
            "valid-revocations-none",
            SEALED,
            sealed().swap("\"openings\": []\n", "\"openings\": [],\n  \"revocations\": []\n"),
        ),
    ]
}

/// The same of the log of a box with TPM, whose entries are others.
fn compromise_of_tpm() -> Revocation {
    let plan = Plan::quoted().tree(2, 12);
    let log = Log::of(&plan);
    let good = TreeState { size: 8, root: Octets32::new(log.root(8).0) };
    signed(RevocationContent { good, ..content(Cause::Compromise, 8) })
}

/// Nobody can tell.
fn open() -> Vec<Vector> {
    let indeterminate = |what: &str, plan: Plan| {
        let expect = Expect::Judged { verdict: "indeterminate", check: Some("revocation"), facts: &[] };
        plan.make(&format!("indeterminate-{what}"), expect)
    };
    let compromise = |size| said(Cause::Compromise, size);
    let mut elsewhere = content(Cause::Compromise, 8);
    elsewhere.good.root = Octets32::new([9; 32]);
    vec![
        indeterminate("nothing-is-good", by(sealed(), vec![compromise(0)])),
        indeterminate("token-is-the-first-bad-one", by(sealed(), vec![compromise(2)])),
        indeterminate("not-shown", by(sealed(), vec![compromise(8)])),
        indeterminate("not-shown-by-a-later-head", by(sealed().heads(vec![(12, None)]), vec![compromise(8)])),
        indeterminate("head-of-the-same-size-elsewhere", {
            by(sealed().heads(vec![(8, None)]), vec![signed(elsewhere)])
        }),
        indeterminate("not-shown-by-the-file-alone", carrying(sealed(), compromise(8), false)),
        indeterminate("shown-for-another-tree", {
            carrying(by(sealed(), vec![compromise(8)]), compromise(10), true)
        }),
        indeterminate("one-of-two-not-shown", {
            carrying(carrying(sealed(), compromise(8), true), compromise(10), false)
        }),
        indeterminate("retired-by-the-roster-compromised-by-the-file", {
            carrying(by(sealed(), vec![said(Cause::Retirement, 12)]), compromise(8), false)
        }),
        indeterminate("is-told-before-the-document-is-compared", {
            by(sealed(), vec![compromise(8)]).document(|document| document.push(b'!'))
        }),
        indeterminate("is-told-before-policy", {
            by(sealed(), vec![compromise(8)]).trust(|trust| trust.policy.accept_software = false)
        }),
    ]
}

/// Statements that are none.
fn statements() -> Vec<Vector> {
    let file = |what: &str, said: Revocation| refused("revocation", what, carrying(sealed(), said, true));
    let changed = |what: &str, change: fn(&mut RevocationContent)| {
        let mut content = content(Cause::Compromise, 8);
        change(&mut content);
        file(what, signed(content))
    };
    let bytes = |what: &str, change: fn(&mut Vec<u8>)| {
        let plan = carrying(sealed(), said(Cause::Compromise, 8), true)
            .file(move |_, file| change(&mut file.revocations[0].statement));
        refused("revocation", what, plan)
    };
    let resigned = |what: &str, by: &str, label: &str| {
        let content = content(Cause::Compromise, 8);
        let message = labelled(label, &der::encode(&content));
        let signature = keys::sign_ed25519(&keys::ed25519(by), &message).into();
        file(what, Revocation { content, chain: Vec::new(), signature })
    };
    vec![
        bytes("empty", Vec::clear),
        bytes("cut-short", |bytes| bytes.truncate(bytes.len() - 1)),
        bytes("trailing-byte", |bytes| bytes.push(0)),
        bytes("signature-flipped", |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }),
        bytes("unknown-cause", |bytes| {
            let at = bytes.windows(3).position(|three| three == [0x0a, 1, 0]).expect("it has a cause");
            bytes[at + 2] = 3;
        }),
        changed("version-2", |content| content.version = 2),
        changed("of-another-fleet", |content| {
            content.fleet = "bonk.test".into();
            content.origin = content.origin.replace(FLEET, "bonk.test");
        }),
        changed("fleet-is-not-the-origins", |content| content.fleet = "bonk.test".into()),
        changed("of-another-log", |content| content.origin = other_origin(1)),
        changed("of-another-incarnation", |content| content.origin = content.origin.replace("/1", "/2")),
        changed("root-of-nothing", |content| content.good.size = 0),
        changed("size-above-the-limit", |content| content.good.size = 1 << 63),
        changed("time-above-the-limit", |content| content.invalid_from = 1 << 63),
        resigned("by-another-key", "other", label::REVOCATION),
        resigned("by-the-log-key", "log key", label::REVOCATION),
        resigned("under-another-label", "fleet root", label::ENROLMENT),
        file("fleet-ca-expired", by_ca(Cause::Compromise, 8, |certified| certified.not_after = NOW - 1)),
        file(
            "fleet-ca-not-yet-valid",
            by_ca(Cause::Compromise, 8, |certified| certified.not_before = NOW + 1),
        ),
        file("fleet-ca-of-another-fleet", {
            by_ca(Cause::Compromise, 8, |certified| certified.fleet = "bonk.test".into())
        }),
        file("fleet-ca-missing", {
            let mut said = by_ca(Cause::Compromise, 8, |_| {});
            said.chain.clear();
            said
        }),
        file("fleet-ca-chain-of-five", {
            let mut said = by_ca(Cause::Compromise, 8, |_| {});
            said.chain = vec![said.chain[0].clone(); 5];
            said
        }),
        refused("revocation", "second-one-broken", {
            let broken = carrying(sealed(), said(Cause::Compromise, 8), true);
            carrying(broken, said(Cause::Retirement, 8), false)
                .file(|_, file| file.revocations[1].statement.clear())
        }),
        // What only retires is judged all the same.
        refused("revocation", "of-a-retirement-by-another-key", {
            let content = content(Cause::Retirement, 8);
            let signature = keys::sign_ed25519(&keys::ed25519("other"), &content.message()).into();
            carrying(sealed(), Revocation { content, chain: Vec::new(), signature }, false)
        }),
    ]
}

/// Paths that lead elsewhere.
fn proofs() -> Vec<Vector> {
    let proof = |what: &str, change: fn(&Log<'_>, &mut Vec<Vec<u8>>)| {
        let plan = carrying(sealed(), said(Cause::Compromise, 8), true).file(move |log, file| {
            change(log, file.revocations[0].entry_proof.as_mut().expect("it has one"));
        });
        refused("revocation", what, plan)
    };
    vec![
        proof("proof-empty", |_, proof| proof.clear()),
        proof("proof-flipped", |_, proof| proof[0][0] ^= 1),
        proof("proof-cut", |_, proof| drop(proof.pop())),
        proof("proof-with-a-hash-more", |_, proof| proof.push(vec![0; 32])),
        proof("proof-hash-of-31-bytes", |_, proof| proof[0].truncate(31)),
        proof("proof-of-another-entry", |log, proof| *proof = log.proof(3, 8)),
        proof("proof-of-another-size", |log, proof| *proof = log.proof(2, 7)),
        refused("revocation", "proof-of-a-token-after-the-good-tree", {
            carrying(sealed(), said(Cause::Compromise, 2), true)
        }),
        refused("revocation", "proof-in-a-tree-of-nothing", {
            carrying(sealed(), said(Cause::Compromise, 0), true)
        }),
    ]
}

/// Members that are no revocations at all.
fn shapes() -> Vec<Vector> {
    let none = |what: &str, value: &str| {
        let value = value.to_owned();
        let plan = sealed().text(move |text| {
            let all = format!("\"openings\": [],\n  \"revocations\": {value}\n");
            swap(text, "\"openings\": []\n", &all);
        });
        refused("seal-file", &format!("revocations-{what}"), plan)
    };
    let many = |one: &str, count: usize| vec![one; count].join(", ");
    let of_17 = format!("[{}]", many("{\"statement\": \"\"}", 17));
    let of_65 = format!("[{{\"statement\": \"\", \"entryProof\": [{}]}}]", many("\"\"", 65));
    vec![
        none("null", "null"),
        none("an-object", "{}"),
        none("of-a-string", "[\"AA==\"]"),
        none("of-an-array", "[[\"AA==\"]]"),
        none("of-an-empty-object", "[{}]"),
        none("statement-of-a-number", "[{\"statement\": 1}]"),
        none("statement-in-lax-base64", "[{\"statement\": \"AA\"}]"),
        none("with-another-member", "[{\"statement\": \"AA==\", \"at\": 1}]"),
        none("proof-null", "[{\"statement\": \"AA==\", \"entryProof\": null}]"),
        none("proof-of-numbers", "[{\"statement\": \"AA==\", \"entryProof\": [0]}]"),
        none("member-twice", "[{\"statement\": \"AA==\", \"statement\": \"AA==\"}]"),
        none("17", &of_17),
        none("proof-of-65-hashes", &of_65),
    ]
}

/// Trust files that are none.
fn trust() -> Vec<Vector> {
    let with = |revocations: Vec<Revocation>| by(sealed(), revocations);
    let text = |what: &str, from: &'static str, to: &'static str| {
        trust_refused(what, with(vec![said(Cause::Compromise, 8)]).swap_trust(from, to))
    };
    let at = |incarnation: u64| {
        signed(RevocationContent { origin: other_origin(incarnation), ..content(Cause::Retirement, 8) })
    };
    let of = |change: fn(&mut Revocation)| {
        let mut said = said(Cause::Compromise, 8);
        change(&mut said);
        with(vec![said])
    };
    vec![
        text("v3", "trust/v2", "trust/v3"),
        text("v1-with-a-roster", "trust/v2", "trust/v1"),
        text(
            "v2-roster-is-null",
            "\"roster\": {\n    \"version\": 7,\n    \"sha256\": \"0303030303030303030303030303030303030303030303030303030303030303\"\n  }",
            "\"roster\": null",
        ),
        text("v2-roster-hash-in-capitals", "\"sha256\": \"0303", "\"sha256\": \"0A03"),
        text("v2-roster-hash-too-short", "\"sha256\": \"0303", "\"sha256\": \"03"),
        text("v2-roster-version-is-negative", "\"version\": 7", "\"version\": -7"),
        text("v2-roster-version-above-the-limit", "\"version\": 7", "\"version\": 9223372036854775808"),
        text("v2-roster-with-an-unknown-member", "\"version\": 7", "\"version\": 7,\n    \"at\": 1"),
        text("v2-revocations-missing", "\"revocations\"", "\"Revocations\""),
        text("v2-revocation-in-lax-base64", "\"revocations\": [\n    \"", "\"revocations\": [\n    \"="),
        text("v2-revocation-of-a-number", "\"revocations\": [", "\"revocations\": [1,"),
        text("v2-tsa-roots", "\"tsaRoots\": []", "\"tsaRoots\": [1]"),
        trust_refused(
            "v2-revocation-by-another-key",
            of(|said| {
                said.signature = keys::sign_ed25519(&keys::ed25519("other"), &said.content.message()).into();
            }),
        ),
        trust_refused("v2-revocation-changed-afterwards", of(|said| said.content.roster = 8)),
        trust_refused(
            "v2-revocation-of-another-fleet",
            of(|said| {
                said.content.fleet = "bonk.test".into();
                said.content.origin = said.content.origin.replace(FLEET, "bonk.test");
                *said = signed(said.content.clone());
            }),
        ),
        trust_refused(
            "v2-revocation-version-2",
            of(|said| {
                said.content.version = 2;
                *said = signed(said.content.clone());
            }),
        ),
        trust_refused(
            "v2-revocation-root-of-nothing",
            of(|said| {
                said.content.good.size = 0;
                assert!(*said.content.good.root != empty_root().0);
                *said = signed(said.content.clone());
            }),
        ),
        trust_refused("v2-one-log-twice", with(vec![said(Cause::Retirement, 8), said(Cause::Compromise, 8)])),
        trust_refused("v2-logs-in-another-order", with(vec![at(2), at(1)])),
    ]
}

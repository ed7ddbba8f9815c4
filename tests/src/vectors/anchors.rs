//! Anchors and time evidence: seals whose time others vouch for, and everything that looks like it and is not.
//!
//! The trust file knows the time-stamp authorities of operators *one* and *two*, and a witness of operator *three*.

use super::keys;
use super::log::Log;
use super::plan::{NOW, Plan};
use super::stamps::{self, POLICY, SERVER_AUTH, Stamp};
use super::{ANCHORED, SEALED, Vector, genuine, refused, revocations, valid};
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Cosignature, Evidence, imprint_input};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{EntryRef, Kind, TreeState};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::{inclusion_proof, root};
use bulla_formats::note::checkpoint_text;
use bulla_formats::revocation::Cause;
use bulla_formats::seal_file::{AnchorEvidence, SealFile};
use bulla_formats::trust::{Authorities, TrustedTsa, TrustedWitness};
use bulla_formats::witness::{WitnessKey, cosigned};
use bulla_timestamps::{Authority, Oid};

pub(super) const WITNESS: &str = "witness.test/w3";

/// Makes a proof from the batch and the checkpoint text.
pub(super) type Prove = Box<dyn Fn(&TreeState, &str) -> AnchorProof>;

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(uncounted());
    all.extend(places());
    all.extend(replies());
    all.extend(cosignatures());
    all.extend(bodies());
    all.extend(evidence());
    all.extend(revoked());
    all.extend(shapes());
    all
}

fn imprint(batch: &TreeState) -> [u8; 32] {
    sha256(&[&imprint_input(batch)]).0
}

/// A stamp by an operator, so many seconds after [`NOW`].
pub(super) fn stamp(operator: &'static str, at: u64) -> Prove {
    stamped(operator, at, |_| ())
}

pub(super) fn stamped(operator: &'static str, at: u64, change: impl Fn(&mut Stamp) + 'static) -> Prove {
    Box::new(move |batch, _| {
        let mut stamp = Stamp::of(operator, imprint(batch), at);
        change(&mut stamp);
        AnchorProof {
            authority: format!("tsa-{operator}"),
            operator: operator.into(),
            evidence: Evidence::Timestamp(stamp.reply().into()),
        }
    })
}

/// A cosignature of the witness, so many seconds after [`NOW`].
fn cosignature(at: u64, change: fn(&mut Cosignature)) -> Prove {
    Box::new(move |_, text| {
        let seconds = NOW / 1_000 + at;
        let signature = keys::sign_ed25519(&keys::ed25519("witness three"), &cosigned(text, seconds)).into();
        let mut said = Cosignature { name: WITNESS.into(), seconds, signature };
        change(&mut said);
        AnchorProof {
            authority: "witness-three".into(),
            operator: "three".into(),
            evidence: Evidence::Cosignature(said),
        }
    })
}

/// An anchor of the first `size` entries, in a batch between those of two other logs.
pub(super) fn body(log: &Log<'_>, size: u64, proofs: &[Prove]) -> AnchorBody {
    body_of(&log.origin, TreeState::new(size, log.root(size)), proofs)
}

fn body_of(origin: &str, head: TreeState, proofs: &[Prove]) -> AnchorBody {
    let text = checkpoint_text(origin, head.size, &head.root());
    let leaves = [leaf_hash(b"a checkpoint before"), leaf_hash(text.as_bytes()), leaf_hash(b"and one after")];
    let all = "leaves are in memory";
    let batch = TreeState::new(3, root(3, leaves.as_slice()).expect(all));
    let path = inclusion_proof(1, 3, leaves.as_slice()).expect(all);
    AnchorBody {
        version: 1,
        index: 1,
        path: path.into_iter().map(|hash| Octets32::new(hash.0)).collect(),
        head,
        proofs: proofs.iter().map(|prove| prove(&batch, &text)).collect(),
        manifests: Vec::new(),
        batch,
    }
}

/// Token 2 of a log of 8 entries under a checkpoint of 4; entry 1 is an anchor of the log's beginning.
pub(super) fn sealed() -> Plan {
    after(vec![stamp("one", 0)])
}

/// The same with time evidence by these.
pub(super) fn after(proofs: Vec<Prove>) -> Plan {
    Plan::software()
        .tree(2, 8)
        .heads(vec![(4, None)])
        .other(1, Kind::Anchor, move |log| der::encode(&body(log, 1, &proofs)))
}

/// The file carries what the token names as its time evidence.
pub(super) fn showing(plan: Plan) -> Plan {
    plan.file(|log, file| file.evidence = Some(log.entries[1].clone()))
}

/// The file carries an anchor of the first 6 entries.
pub(super) fn anchored(plan: Plan, proofs: Vec<Prove>) -> Plan {
    anchored_as(plan, proofs, |_| ())
}

fn anchored_as(plan: Plan, proofs: Vec<Prove>, change: impl Fn(&mut AnchorBody) + 'static) -> Plan {
    let index = plan.index;
    plan.file(move |log, file| {
        let mut body = body(log, 6, &proofs);
        change(&mut body);
        let entry_proof = log.proof(index, 6);
        file.anchors.push(AnchorEvidence { body: der::encode(&body), entry_proof });
    })
}

/// The trust file believes the authorities and asks for so many operators.
pub(super) fn trusting(plan: Plan, operators: u64) -> Plan {
    let tsa = |operator: &str| TrustedTsa {
        operator: operator.into(),
        authority: Authority::new(&[stamps::root(operator)], Vec::new()).expect("a root is a root"),
    };
    let key = keys::ed25519("witness three").verifying_key().to_bytes();
    let key = WitnessKey::new(WITNESS, key).expect("a good key");
    let authorities = Authorities {
        tsas: vec![tsa("one"), tsa("two")],
        witnesses: vec![TrustedWitness { operator: "three".into(), key }],
        operators,
    };
    plan.trust(move |trust| trust.authorities = Some(authorities.clone()))
}

pub(super) fn authorities(plan: Plan, change: fn(&mut Authorities)) -> Plan {
    trusting(plan, 1).trust(move |trust| change(trust.authorities.as_mut().expect("they were just named")))
}

fn positive() -> Vec<Vector> {
    let one = || vec![stamp("one", 10)];
    let both = || vec![stamp("one", 10), stamp("two", 12)];
    let cosigned = || vec![cosignature(11, |_| ())];
    vec![
        valid("valid-anchored", ANCHORED, trusting(anchored(sealed(), one()), 1)),
        valid("valid-anchored-interval", ANCHORED, trusting(showing(anchored(sealed(), one())), 1)),
        valid("valid-time-evidence-alone", SEALED, trusting(showing(sealed()), 1)),
        valid("valid-anchored-by-two", ANCHORED, trusting(anchored(sealed(), both()), 2)),
        valid("valid-anchored-by-two-anchors", ANCHORED, {
            trusting(anchored(anchored(sealed(), one()), vec![stamp("two", 40)]), 2)
        }),
        valid("valid-anchored-interval-by-two", ANCHORED, {
            let before = after(vec![stamp("one", 0), stamp("two", 1)]);
            trusting(showing(anchored(before, both())), 2)
        }),
        valid("valid-anchored-by-a-witness", ANCHORED, trusting(anchored(sealed(), cosigned()), 1)),
        valid("valid-anchored-by-stamp-and-witness", ANCHORED, {
            trusting(anchored(sealed(), vec![stamp("two", 10), cosignature(11, |_| ())]), 2)
        }),
        valid("valid-anchored-required", ANCHORED, {
            trusting(anchored(sealed(), one()), 1)
                .trust(|trust| trust.policy.require_facts = vec!["sealed".into(), "anchored".into()])
        }),
        valid("valid-anchored-under-an-accepted-policy", ANCHORED, {
            authorities(anchored(sealed(), one()), |all| {
                let policies = ["2.999.1", POLICY].map(|name| Oid::parse(name).expect("a policy"));
                all.tsas[0].authority =
                    Authority::new(&[stamps::root("one")], policies.to_vec()).expect("a root is a root");
            })
        }),
        valid("valid-anchored-root-was-replaced", ANCHORED, {
            authorities(anchored(sealed(), one()), |all| {
                let roots = [stamps::root("one, the next"), stamps::root("one")];
                all.tsas[0].authority = Authority::new(&roots, Vec::new()).expect("roots are roots");
            })
        }),
        valid("valid-anchored-in-a-batch-of-one", ANCHORED, {
            let prove = stamp("one", 10);
            let plan = sealed().file(move |log, file| {
                let mut body = body(log, 6, &[]);
                let text = body.checkpoint_text(&log.origin);
                body.batch = TreeState::new(1, leaf_hash(text.as_bytes()));
                (body.index, body.path) = (0, Vec::new());
                body.proofs = vec![prove(&body.batch, &text)];
                let entry_proof = log.proof(2, 6);
                file.anchors.push(AnchorEvidence { body: der::encode(&body), entry_proof });
            });
            trusting(plan, 1)
        }),
        valid("valid-anchors-critical", ANCHORED, {
            trusting(showing(anchored(sealed(), one())), 1)
                .swap("{\n", "{\n  \"critical\": [\"anchors\", \"evidence\"],\n")
        }),
        valid("valid-anchored-by-nobody-we-know", SEALED, anchored(sealed(), one())),
    ]
}

/// Proofs that hold and do not count: once with a policy that takes the seal, once with one that asks for an anchor.
fn uncounted() -> Vec<Vector> {
    let both = |what: &str, plan: fn() -> Plan| {
        let required = plan().trust(|trust| trust.policy.require_facts = vec!["anchored".into()]);
        [
            valid(&format!("valid-not-anchored-{what}"), SEALED, plan()),
            genuine("policy", &format!("anchored-required-{what}"), "policy-unmet", SEALED, required),
        ]
    };
    let cases = [
        both("no-anchor", || trusting(showing(sealed()), 1)),
        both("operator-unknown", || trusting(anchored(sealed(), vec![stamp("nobody", 10)]), 1)),
        both("one-of-two-operators", || trusting(anchored(sealed(), vec![stamp("one", 10)]), 2)),
        both("one-operator-twice", || {
            trusting(anchored(anchored(sealed(), vec![stamp("one", 10)]), vec![stamp("one", 20)]), 2)
        }),
        both("one-operator-twice-in-one-anchor", || {
            let second: Prove = Box::new(|batch, text| AnchorProof {
                authority: "tsa-one-again".into(),
                ..stamp("one", 20)(batch, text)
            });
            trusting(anchored(sealed(), vec![stamp("one", 10), second]), 2)
        }),
        both("root-of-another-authority", || {
            authorities(anchored(sealed(), vec![stamp("one", 10)]), |all| {
                let other = [stamps::root("stranger")];
                all.tsas[0].authority = Authority::new(&other, Vec::new()).expect("a root is a root");
            })
        }),
        both("policy-not-accepted", || {
            authorities(anchored(sealed(), vec![stamp("one", 10)]), |all| {
                let policies = vec![Oid::parse("2.999.1").expect("a policy")];
                all.tsas[0].authority =
                    Authority::new(&[stamps::root("one")], policies).expect("a root is a root");
            })
        }),
        both("signer-of-another-root", || {
            let stranger = stamped("one", 10, |stamp| stamp.root = "tsa root stranger".into());
            trusting(anchored(sealed(), vec![stranger]), 1)
        }),
        both("witness-of-another-name", || {
            trusting(anchored(sealed(), vec![cosignature(10, |said| said.name.push('0'))]), 1)
        }),
        both("witness-of-another-operator", || {
            authorities(anchored(sealed(), vec![cosignature(10, |_| ())]), |all| {
                all.witnesses[0].operator = "four".into();
            })
        }),
        // Before the time that the token's own evidence names.
        both("interval-inverted", || {
            trusting(showing(anchored(after(vec![stamp("one", 60)]), vec![stamp("two", 10)])), 1)
        }),
    ];
    cases.into_iter().flatten().collect()
}

fn anchor(what: &str, proofs: Vec<Prove>, change: impl Fn(&mut AnchorBody) + 'static) -> Vector {
    refused("anchor", what, trusting(anchored_as(sealed(), proofs, change), 1))
}

/// Trees and batches it does not lead to.
fn places() -> Vec<Vector> {
    let place = |what: &str, change: fn(&mut AnchorBody)| anchor(what, vec![stamp("one", 10)], change);
    let file = |what: &str, change: fn(&Log<'_>, &mut SealFile)| {
        refused("anchor", what, trusting(anchored(sealed(), vec![stamp("one", 10)]), 1).file(change))
    };
    let rebuilt = |what: &str, make: fn(&Log<'_>) -> AnchorBody, size: u64| {
        let plan = sealed().file(move |log, file| {
            let (body, entry_proof) = (der::encode(&make(log)), log.proof(2, size));
            file.anchors.push(AnchorEvidence { body, entry_proof });
        });
        refused("anchor", what, trusting(plan, 1))
    };
    vec![
        place("path-flipped", |body| body.path[0] = Octets32::new([9; 32])),
        place("path-empty", |body| body.path.clear()),
        place("path-cut", |body| body.path.truncate(1)),
        place("path-with-one-more", |body| body.path.push(Octets32::new([0; 32]))),
        place("path-reversed", |body| body.path.reverse()),
        place("path-of-another-place", |body| body.index = 0),
        place("batch-of-another-size", |body| body.batch.size = 4),
        place("batch-of-another-root", |body| body.batch.root = Octets32::new([9; 32])),
        place("head-of-another-size", |body| body.head.size = 5),
        place("head-of-another-root", |body| body.head.root = Octets32::new([9; 32])),
        rebuilt(
            "head-of-another-log",
            |log| {
                let head = TreeState::new(6, log.root(6));
                body_of(&log.origin.replace("/1", "/2"), head, &[stamp("one", 10)])
            },
            6,
        ),
        rebuilt(
            "head-that-never-was",
            |log| body_of(&log.origin, TreeState::new(6, Hash([9; 32])), &[stamp("one", 10)]),
            6,
        ),
        rebuilt("head-older-than-the-token", |log| body(log, 2, &[stamp("one", 10)]), 2),
        file("entry-proof-flipped", |_, file| file.anchors[0].entry_proof[0][0] ^= 1),
        file("entry-proof-empty", |_, file| file.anchors[0].entry_proof.clear()),
        file("entry-proof-cut", |_, file| drop(file.anchors[0].entry_proof.pop())),
        file("entry-proof-with-one-more", |_, file| file.anchors[0].entry_proof.push(vec![0; 32])),
        file("entry-proof-hash-of-31-bytes", |_, file| file.anchors[0].entry_proof[0].truncate(31)),
        file("entry-proof-of-another-entry", |log, file| file.anchors[0].entry_proof = log.proof(3, 6)),
        file("entry-proof-of-another-size", |log, file| file.anchors[0].entry_proof = log.proof(2, 8)),
    ]
}

/// Replies that stamp nothing, or something else.
fn replies() -> Vec<Vector> {
    let with = |what: &str, change: fn(&mut Stamp)| anchor(what, vec![stamped("one", 10, change)], |_| ());
    let bytes = |what: &str, change: fn(&mut Vec<u8>)| {
        anchor(what, vec![stamp("one", 10)], move |body| {
            if let Evidence::Timestamp(reply) = &mut body.proofs[0].evidence {
                let mut bytes = reply.to_vec();
                change(&mut bytes);
                *reply = bytes.into();
            }
        })
    };
    vec![
        with("imprint-of-another-batch", |stamp| stamp.imprint = [9; 32]),
        anchor("imprint-of-the-checkpoint", Vec::new(), |body| {
            let head = body.head.clone();
            body.proofs = vec![stamp("one", 10)(&head, "")];
        }),
        with("stamp-for-web-servers", |stamp| stamp.purpose = SERVER_AUTH),
        with("stamp-purpose-not-critical", |stamp| stamp.purpose_is_critical = false),
        with("stamp-signer-expired", |stamp| stamp.validity.1 = "210101000000Z"),
        with("stamp-signer-not-yet-valid", |stamp| stamp.validity.0 = "400101000000Z"),
        with("stamp-by-another-key", |stamp| stamp.by = "other".into()),
        with("stamp-of-a-refusal", |stamp| stamp.status = 2),
        with("stamp-of-an-unknown-status", |stamp| stamp.status = 9),
        bytes("reply-trailing-byte", |reply| reply.push(0)),
        bytes("reply-cut", |reply| reply.truncate(reply.len() - 1)),
        bytes("reply-empty", Vec::clear),
        bytes("reply-is-a-page", |reply| *reply = b"<html>Sign in to continue</html>".to_vec()),
        bytes("reply-signature-flipped", |reply| {
            let last = reply.len() - 1;
            reply[last] ^= 1;
        }),
        refused("anchor", "second-one-broken", {
            let broken = stamped("two", 10, |stamp| stamp.imprint = [9; 32]);
            trusting(anchored(anchored(sealed(), vec![stamp("one", 10)]), vec![broken]), 1)
        }),
        anchor(
            "second-proof-broken",
            vec![stamp("one", 10), stamped("two", 10, |stamp| stamp.by = "other".into())],
            |_| (),
        ),
    ]
}

fn cosignatures() -> Vec<Vector> {
    let with = |what: &str, change: fn(&mut Cosignature)| anchor(what, vec![cosignature(10, change)], |_| ());
    vec![
        with("cosignature-flipped", |said| {
            let mut bytes = said.signature.to_vec();
            bytes[0] ^= 1;
            said.signature = bytes.into();
        }),
        with("cosignature-of-another-second", |said| said.seconds -= 1),
        with("cosignature-of-63-bytes", |said| said.signature = vec![0; 63].into()),
        with("cosignature-without-name", |said| said.name.clear()),
        with("cosignature-time-above-the-limit", |said| said.seconds = 1 << 62),
        anchor("cosignature-of-another-checkpoint", Vec::new(), |body| {
            body.proofs = vec![cosignature(10, |_| ())(&body.batch, "another text\n")];
        }),
        refused("anchor", "cosignature-by-another-key", {
            authorities(anchored(sealed(), vec![cosignature(10, |_| ())]), |all| {
                let key = keys::ed25519("other").verifying_key().to_bytes();
                all.witnesses[0].key = WitnessKey::new(WITNESS, key).expect("a good key");
            })
        }),
    ]
}

/// Bodies beyond their bounds.
fn bodies() -> Vec<Vector> {
    let with = |what: &str, change: fn(&mut AnchorBody)| {
        anchor(&format!("body-{what}"), vec![cosignature(10, |_| ())], change)
    };
    let bytes = |what: &str, change: fn(&mut Vec<u8>)| {
        let plan = anchored(sealed(), vec![cosignature(10, |_| ())])
            .file(move |_, file| change(&mut file.anchors[0].body));
        refused("anchor", &format!("body-{what}"), trusting(plan, 1))
    };
    let reference = |index| EntryRef { index, leaf_hash: Octets32::new([7; 32]) };
    vec![
        with("version-2", |body| body.version = 2),
        with("without-proofs", |body| body.proofs.clear()),
        with("of-9-proofs", |body| {
            let named = |number: usize| AnchorProof {
                authority: format!("witness-{number}"),
                ..body.proofs[0].clone()
            };
            body.proofs = (0..9).map(named).collect();
        }),
        with("one-authority-twice", |body| body.proofs.push(body.proofs[0].clone())),
        with("proofs-in-another-order", |body| {
            let first = AnchorProof { authority: "zeta".into(), ..body.proofs[0].clone() };
            body.proofs.insert(0, first);
        }),
        with("authority-without-name", |body| body.proofs[0].authority.clear()),
        with("operator-of-65-bytes", |body| body.proofs[0].operator = "o".repeat(65)),
        with("path-of-17-hashes", |body| body.path = vec![Octets32::new([0; 32]); 17]),
        with("batch-of-65537", |body| body.batch.size = 65_537),
        with("place-beyond-the-batch", |body| body.index = 3),
        with("head-of-nothing", |body| body.head.size = 0),
        with("head-above-the-limit", |body| body.head.size = 1 << 63),
        anchor("body-manifest-not-under-its-head", vec![cosignature(10, |_| ())], move |body| {
            body.manifests = vec![reference(6)];
        }),
        anchor("body-manifests-in-another-order", vec![cosignature(10, |_| ())], move |body| {
            body.manifests = vec![reference(4), reference(3)];
        }),
        anchor("body-17-manifests", vec![cosignature(10, |_| ())], move |body| {
            body.head.size = 32;
            body.manifests = (0..17).map(reference).collect();
        }),
        bytes("empty", Vec::clear),
        bytes("trailing-byte", |bytes| bytes.push(0)),
        bytes("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        bytes("long-length", |bytes| *bytes = super::der::long_length(bytes)),
        bytes("unknown-field", |bytes| *bytes = super::der::with_extra_field(bytes)),
    ]
}

/// Entries that are not the token's time evidence.
fn evidence() -> Vec<Vector> {
    let file = |what: &str, change: fn(&Log<'_>, &mut SealFile)| {
        refused("time-evidence", what, trusting(showing(sealed()), 1).file(change))
    };
    let entry = |what: &str, change: fn(&mut Vec<u8>)| {
        let plan =
            showing(sealed()).file(move |_, file| change(file.evidence.as_mut().expect("it is there")));
        refused("time-evidence", what, trusting(plan, 1))
    };
    let of = |what: &str, make: fn(&Log<'_>) -> Vec<u8>| {
        let plan = Plan::software().tree(2, 8).heads(vec![(4, None)]).other(1, Kind::Anchor, make);
        refused("time-evidence", what, trusting(showing(plan), 1))
    };
    let proof = |what: &str, prove: fn() -> Prove| {
        refused("time-evidence", what, trusting(showing(after(vec![prove()])), 1))
    };
    // An anchor after the one that the token names.
    let twice = sealed().other(4, Kind::Anchor, |log| der::encode(&body(log, 4, &[stamp("two", 4)])));
    vec![
        refused("time-evidence", "not-the-one-it-names", {
            trusting(twice, 1).file(|log, file| file.evidence = Some(log.entries[4].clone()))
        }),
        refused("time-evidence", "token-names-none", {
            trusting(showing(sealed()).content(|content| content.evidence = None), 1)
        }),
        refused("time-evidence", "token-names-another-index", {
            let other = |content: &mut bulla_formats::entry::EntryContent| {
                content.evidence.as_mut().expect("it names one").index = 0;
            };
            trusting(showing(sealed()).content(other), 1)
        }),
        refused("time-evidence", "token-names-another-leaf", {
            let other = |content: &mut bulla_formats::entry::EntryContent| {
                content.evidence.as_mut().expect("it names one").leaf_hash = Octets32::new([9; 32]);
            };
            trusting(showing(sealed()).content(other), 1)
        }),
        refused("time-evidence", "of-another-kind-of-entry", {
            // The token names a seal of another document.
            let plan = Plan::software().tree(2, 8).heads(vec![(4, None)]);
            let seal = leaf_hash(&Log::of(&plan).entries[1]);
            let plan = plan.content(move |content| {
                content.evidence = Some(EntryRef { index: 1, leaf_hash: Octets32::new(seal.0) });
            });
            trusting(showing(plan), 1)
        }),
        file("is-the-token", |_, file| file.evidence = Some(file.entry.clone())),
        file("is-the-key-epoch", |_, file| file.evidence = Some(file.epoch.clone())),
        entry("empty", Vec::clear),
        entry("trailing-byte", |bytes| bytes.push(0)),
        entry("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        entry("signature-flipped", |bytes| {
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
        }),
        of("body-empty", |_| Vec::new()),
        of("body-of-another-log", |log| {
            let head = TreeState::new(1, log.root(1));
            der::encode(&body_of(&log.origin.replace("/1", "/2"), head, &[stamp("one", 0)]))
        }),
        of("body-path-flipped", |log| {
            let mut body = body(log, 1, &[stamp("one", 0)]);
            body.path[0] = Octets32::new([9; 32]);
            der::encode(&body)
        }),
        proof("stamp-of-another-batch", || stamped("one", 0, |stamp| stamp.imprint = [9; 32])),
        proof("stamp-for-web-servers", || stamped("one", 0, |stamp| stamp.purpose = SERVER_AUTH)),
        proof("stamp-signer-expired", || stamped("one", 0, |stamp| stamp.validity.1 = "210101000000Z")),
        proof("stamp-by-another-key", || stamped("one", 0, |stamp| stamp.by = "other".into())),
        proof("cosignature-of-another-second", || cosignature(0, |said| said.seconds += 1)),
    ]
}

/// After a compromise, what was anchored in time is good.
fn revoked() -> Vec<Vector> {
    // Nothing of the log is good, from a minute after NOW.
    let compromised = |plan: Plan| {
        let mut content = revocations::content(Cause::Compromise, 0);
        content.invalid_from = NOW + 60_000;
        trusting(revocations::by(plan, vec![revocations::signed(content)]), 1)
    };
    let indeterminate = |what: &str, plan: Plan| {
        super::judged(&format!("indeterminate-{what}"), "indeterminate", "revocation", plan)
    };
    let two = |plan: Plan| plan.trust(|trust| trust.authorities.as_mut().expect("it has them").operators = 2);
    vec![
        valid(
            "valid-compromised-anchored-before",
            ANCHORED,
            compromised(anchored(sealed(), vec![stamp("one", 10)])),
        ),
        // Its accuracy is a second, as it states none.
        valid(
            "valid-compromised-anchored-just-before",
            ANCHORED,
            compromised(anchored(sealed(), vec![stamp("one", 58)])),
        ),
        indeterminate(
            "anchored-within-its-accuracy",
            compromised(anchored(sealed(), vec![stamp("one", 59)])),
        ),
        indeterminate("anchored-after", compromised(anchored(sealed(), vec![stamp("one", 61)]))),
        indeterminate("anchored-by-nobody-we-know", {
            compromised(anchored(sealed(), vec![stamp("nobody", 10)]))
        }),
        indeterminate("anchored-by-one-of-two", {
            two(compromised(anchored(sealed(), vec![stamp("one", 10)])))
        }),
        indeterminate("anchored-by-the-second-after", {
            two(compromised(anchored(sealed(), vec![stamp("one", 10), stamp("two", 90)])))
        }),
        indeterminate("anchored-interval-inverted", {
            let plan = after(vec![stamp("one", 50)]);
            compromised(showing(anchored(plan, vec![stamp("two", 10)])))
        }),
        indeterminate("only-time-evidence", compromised(showing(sealed()))),
    ]
}

/// Members that are none.
fn shapes() -> Vec<Vector> {
    let none = |member: &'static str, what: &str, value: &str| {
        let all = format!("\"openings\": [],\n  \"{member}\": {value}\n");
        let plan = Plan::software().text(move |text| super::plan::swap(text, "\"openings\": []\n", &all));
        refused("seal-file", &format!("{member}-{what}"), plan)
    };
    let anchors = |what: &str, value: &str| none("anchors", what, value);
    let one = "{\"body\": \"\", \"entryProof\": []}";
    let of_65 = format!("[{{\"body\": \"\", \"entryProof\": [{}]}}]", vec!["\"\""; 65].join(", "));
    vec![
        anchors("null", "null"),
        anchors("an-object", "{}"),
        anchors("of-a-string", "[\"AA==\"]"),
        anchors("of-an-array", "[[\"AA==\", []]]"),
        anchors("of-an-empty-object", "[{}]"),
        anchors("without-proof", "[{\"body\": \"AA==\"}]"),
        anchors("body-in-lax-base64", "[{\"body\": \"AA\", \"entryProof\": []}]"),
        anchors("with-another-member", "[{\"body\": \"\", \"entryProof\": [], \"at\": 1}]"),
        anchors("17", &format!("[{}]", vec![one; 17].join(", "))),
        anchors("proof-of-65-hashes", &of_65),
        none("evidence", "null", "null"),
        none("evidence", "a-number", "7"),
        none("evidence", "an-array", "[\"AA==\"]"),
        none("evidence", "in-lax-base64", "\"AA\""),
    ]
}

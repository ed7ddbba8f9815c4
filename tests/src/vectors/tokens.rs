//! Refused, or genuine and yet not what is asked for: the token, its signature, openings, the document, policy.

use super::der::{long_length, replace, signed, with_extra_field};
use super::keys;
use super::log::{Log, Sealer};
use super::plan::{Plan, Sealing, opening, pcrs};
use super::{ATTESTED, SEALED, Vector, genuine, not_understood, refused};
use bulla_formats::body::integrity::{CheckedStore, IntegrityBody};
use bulla_formats::body::seal::{Assurance, Commitment, Field, Opening, Relation, RelationKind, SealBody};
use bulla_formats::body::self_test::SelfTestBody;
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{EntryContent, EntryRef, Kind, Residency};
use bulla_formats::sig::{label, labelled, labelled_with_origin};
use bulla_formats::trust::Reference;
use ed25519_dalek::SigningKey;

pub(super) fn all() -> Vec<Vector> {
    let mut all = header();
    all.extend(encoding());
    all.extend(body());
    all.extend(signature());
    all.extend(kinds());
    all.extend(openings());
    all.extend(document());
    all.extend(policy());
    all
}

fn header() -> Vec<Vector> {
    let content =
        |what, change: fn(&mut EntryContent)| refused("token", what, Plan::software().content(change));
    let reference = |index| Some(EntryRef { index, leaf_hash: Octets32::new([7; 32]) });
    vec![
        content("of-another-epoch", |content| content.epoch = 1),
        refused(
            "token",
            "with-the-epoch-entry-of-another-epoch",
            Plan::software().second_epoch().file(|log, file| {
                file.epoch.clone_from(&log.entries[0]);
                file.heads[0].epoch_proof = log.proof(0, log.size());
            }),
        ),
        refused(
            "token",
            "of-another-residency",
            Plan::tpm().content(|content| content.residency = Residency::Tpm),
        ),
        refused(
            "token",
            "before-its-epoch-entry",
            Plan { token_first: true, ..Plan::software().second_epoch() }
                .tree(2, 5)
                .file(|log, file| file.heads[0].entry_proof = log.proof(2, log.size())),
        ),
        refused(
            "token",
            "is-the-epoch-entry",
            Plan::software().file(|log, file| {
                file.entry.clone_from(&log.entries[0]);
                file.heads[0].entry_proof = log.proof(0, log.size());
            }),
        ),
        content("version-2", |content| content.version = 2),
        content("previous-larger-than-index", |content| content.previous.size = 3),
        content("previous-empty-with-a-root", |content| content.previous.size = 0),
        refused(
            "token",
            "evidence-is-itself",
            Plan::software().content(move |content| content.evidence = reference(2)),
        ),
        refused(
            "token",
            "evidence-is-later",
            Plan::software().content(move |content| content.evidence = reference(3)),
        ),
        content("lamport-above-the-limit", |content| content.lamport = 1 << 63),
        content("time-above-the-limit", |content| content.time.unix_millis = 1 << 63),
        content("uncertainty-above-the-limit", |content| content.time.uncertainty_millis = Some(1 << 63)),
        content("index-above-the-limit", |content| content.index = 1 << 63),
        content("of-kind-attestation", |content| content.kind = Kind::Attestation as u16),
        content("of-kind-key-epoch", |content| content.kind = Kind::KeyEpoch as u16),
        content("of-kind-integrity", |content| {
            (content.kind, content.body) = (Kind::Integrity as u16, der::encode(&integrity(content)).into());
        }),
        content("of-kind-self-test", |content| {
            (content.kind, content.body) = (Kind::SelfTest as u16, der::encode(&self_test()).into());
        }),
        content("of-a-reserved-kind", |content| content.kind = Kind::Retention as u16),
    ]
}

/// A sound body of an integrity entry: it says much, and seals nothing.
fn integrity(content: &EntryContent) -> IntegrityBody {
    let stores = vec![CheckedStore { name: "segments".into(), bytes: 1 << 20, damaged: 0 }];
    let (head, began, ended) = (content.previous.clone(), content.time, content.time);
    IntegrityBody { head, began, ended, complete: true, stores, findings: Vec::new(), more: 0 }
}

/// A sound body of a self-test entry.
fn self_test() -> SelfTestBody {
    let seal = Some(EntryRef { index: 1, leaf_hash: Octets32::new([7; 32]) });
    let verdict = "valid".to_owned();
    SelfTestBody { seal, verdict, seal_micros: 900, verify_micros: 400, attested: false, failure: None }
}

/// A token of the given DER, genuinely signed over its content as it stands.
fn encoded(what: &str, change: fn(&[u8]) -> Vec<u8>) -> Vector {
    let make = move |log: &Log<'_>, content: &EntryContent| log.entry_of(&change(&der::encode(content)));
    refused("token", what, Plan::software().make_token(make))
}

fn encoding() -> Vec<Vector> {
    let whole = |what, change: fn(&[u8]) -> Vec<u8>| {
        refused("token", what, Plan::software().make_token(move |log, content| change(&log.entry(content))))
    };
    vec![
        whole("der-trailing-byte", |der| [der, &[0]].concat()),
        whole("der-long-length", long_length),
        whole("der-unknown-field", with_extra_field),
        whole("der-truncated", |der| der[..der.len() - 1].to_vec()),
        whole("der-indefinite-length", |der| [&[0x30, 0x80], super::der::inside(der), &[0, 0]].concat()),
        whole("der-is-base64", |der| bulla_formats::json::base64_encode(der).into_bytes()),
        encoded("content-der-long-length", long_length),
        encoded("content-der-unknown-field", with_extra_field),
        // lamport 3, then the time.
        encoded("content-der-padded-integer", |der| replace(der, &[2, 1, 3, 0x30], &[2, 2, 0, 3, 0x30])),
        encoded("content-der-negative-integer", |der| replace(der, &[2, 1, 3, 0x30], &[2, 1, 0xff, 0x30])),
        // mode air-gapped, drill FALSE.
        encoded("content-der-boolean-one", |der| replace(der, &[10, 1, 5, 1, 1, 0], &[10, 1, 5, 1, 1, 1])),
        encoded("content-der-unknown-mode", |der| replace(der, &[10, 1, 5, 1, 1, 0], &[10, 1, 7, 1, 1, 0])),
        // epoch 0, residency software.
        encoded("content-der-unknown-residency", |der| {
            replace(der, &[2, 1, 0, 10, 1, 2], &[2, 1, 0, 10, 1, 3])
        }),
        // After the root of 32 bytes: kind 0, then the body.
        encoded("content-der-kind-65536", |der| replace(der, &[2, 1, 0, 4], &[2, 3, 1, 0, 0, 4])),
    ]
}

fn body() -> Vec<Vector> {
    let change = |what, change: fn(&mut SealBody)| refused("token", what, Plan::software().body(change));
    let bytes = |what, change: fn(&mut Vec<u8>)| refused("token", what, Plan::software().body_der(change));
    vec![
        change("body-digest-too-short", |body| body.digest = body.digest[..31].to_vec().into()),
        change("body-digest-of-another-algorithm", |body| {
            body.algorithm = bulla_formats::body::seal::DigestAlgorithm::Sha512;
        }),
        change("body-observed-without-size", |body| body.size = None),
        change("body-size-above-the-limit", |body| body.size = Some(1 << 63)),
        change("body-without-media-type", |body| body.media_type.clear()),
        change("body-media-type-of-256-bytes", |body| body.media_type = "a".repeat(256)),
        change("body-without-client", |body| body.client.id.clear()),
        change("body-client-of-256-bytes", |body| body.client.id = "a".repeat(256)),
        change("body-transport-of-1025-bytes", |body| body.transport = "a".repeat(1025)),
        change("body-65-commitments", |body| {
            let commitment = |n: u8| Commitment {
                field: Field::Metadata,
                assurance: Assurance::Asserted,
                hash: Octets32::new([n; 32]),
            };
            body.commitments = (0..65).map(commitment).collect();
        }),
        change("body-17-relations", |body| {
            let relation = |n: u8| Relation { kind: RelationKind::Annuls, entry: Octets32::new([n; 32]) };
            body.relations = (0..17).map(relation).collect();
        }),
        bytes("body-der-trailing-byte", |der| der.push(0)),
        bytes("body-der-long-length", |der| *der = long_length(der)),
        bytes("body-der-unknown-field", |der| *der = with_extra_field(der)),
        bytes("body-der-unknown-algorithm", |der| {
            *der = replace(der, &[10, 1, 0, 4, 32], &[10, 1, 3, 4, 32])
        }),
        bytes("body-empty", Vec::clear),
    ]
}

fn signature() -> Vec<Vector> {
    type Sign = fn(&Log<'_>, &[u8]) -> Vec<u8>;
    let with = |what: &str, plan: Plan, sign: Sign| {
        let make = move |log: &Log<'_>, content: &EntryContent| {
            let content = der::encode(content);
            signed(&content, &sign(log, &content))
        };
        refused("token-signature", what, plan.make_token(make))
    };
    let p256 = || Plan { sealing: Sealing::P256, ..Plan::software() };
    vec![
        with("by-another-key", Plan::software(), |log, content| {
            keys::sign_ed25519(&keys::ed25519("other"), &log.message(content))
        }),
        with("by-the-epoch-before", Plan::software().second_epoch(), |log, content| {
            keys::sign_ed25519(&keys::ed25519("sealing key 0"), &log.message(content))
        }),
        with("by-the-log-key", Plan::software(), |log, content| {
            keys::sign_ed25519(&keys::ed25519("log key"), &log.message(content))
        }),
        with("for-another-origin", Plan::software(), |log, content| {
            log.sealer.sign(&labelled_with_origin(label::ENTRY, &log.origin.replace("/1", "/2"), content))
        }),
        with("without-origin", Plan::software(), |log, content| {
            log.sealer.sign(&labelled(label::ENTRY, content))
        }),
        with("without-label", Plan::software(), |log, content| log.sealer.sign(content)),
        with("under-another-label", Plan::software(), |log, content| {
            log.sealer.sign(&labelled_with_origin(label::ENROLMENT, &log.origin, content))
        }),
        with("flipped", Plan::software(), |log, content| {
            let mut signature = log.sealer.sign(&log.message(content));
            signature[0] ^= 1;
            signature
        }),
        with("of-63-bytes", Plan::software(), |log, content| {
            log.sealer.sign(&log.message(content))[..63].to_vec()
        }),
        with("of-65-bytes", Plan::software(), |log, content| {
            [log.sealer.sign(&log.message(content)), vec![0]].concat()
        }),
        with("empty", Plan::software(), |_, _| Vec::new()),
        with("non-canonical-s", Plan::software(), |log, content| {
            keys::non_canonical_s(&log.sealer.sign(&log.message(content)))
        }),
        with("small-order-r", Plan::software(), |log, content| {
            keys::small_order_r(ed25519(log), &log.message(content))
        }),
        with("cofactored-equation-only", Plan::software(), |log, content| {
            keys::cofactored_only(ed25519(log), &log.message(content))
        }),
        with("p256-as-der", p256(), |log, content| keys::p256_der(&log.sealer.sign(&log.message(content)))),
        with("p256-r-is-zero", p256(), |log, content| {
            [&[0; 32], &log.sealer.sign(&log.message(content))[32..]].concat()
        }),
        with("p256-s-is-zero", p256(), |log, content| {
            [&log.sealer.sign(&log.message(content))[..32], &[0; 32]].concat()
        }),
        with("p256-flipped", p256(), |log, content| {
            let mut signature = log.sealer.sign(&log.message(content));
            signature[63] ^= 1;
            signature
        }),
        refused(
            "token-signature",
            "content-changed-afterwards",
            Plan::software().make_token(|log, content| {
                let signature = log.sealer.sign(&log.message(&der::encode(content)));
                let mut later = content.clone();
                later.time.unix_millis -= 86_400_000;
                signed(&der::encode(&later), &signature)
            }),
        ),
        refused(
            "token-signature",
            "of-an-unknown-kind-is-wrong",
            Plan::software().content(|content| content.kind = 99).make_token(|log, content| {
                let content = der::encode(content);
                signed(&content, &keys::sign_ed25519(&keys::ed25519("other"), &log.message(&content)))
            }),
        ),
    ]
}

fn ed25519<'a>(log: &'a Log<'_>) -> &'a SigningKey {
    match &log.sealer {
        Sealer::Ed25519(key) => key,
        Sealer::P256(_) => panic!("the plan of this vector has an Ed25519 sealing key"),
    }
}

fn kinds() -> Vec<Vector> {
    let unknown = || Plan::software().content(|content| content.kind = 99);
    vec![
        not_understood("kind-99", "body", unknown()),
        not_understood(
            "kind-65535-with-foreign-body",
            "body",
            Plan::software()
                .body_der(|der| *der = b"from the future".to_vec())
                .content(|content| content.kind = 65_535),
        ),
        // What is known of it is judged first.
        refused(
            "inclusion",
            "of-an-unknown-kind-flipped",
            unknown().file(|_, file| file.heads[0].entry_proof[0][0] ^= 1),
        ),
    ]
}

fn openings() -> Vec<Vector> {
    let change = |what, change: fn(&mut Opening)| {
        let plan = Plan::software().with_openings().file(move |_, file| {
            let mut opening = Opening::decode(&file.openings[1]).expect("it was just made");
            change(&mut opening);
            file.openings[1] = der::encode(&opening);
        });
        refused("openings", what, plan)
    };
    let bytes = |what, change: fn(&mut Vec<u8>)| {
        refused(
            "openings",
            what,
            Plan::software().with_openings().file(move |_, file| change(&mut file.openings[0])),
        )
    };
    let committed = |what, opening: Opening| {
        refused("openings", what, Plan { commitments: vec![opening], ..Plan::software() })
    };
    let metadata = |name: &str, value: &str| opening(Field::Metadata, Assurance::Asserted, name, value);
    vec![
        change("opens-nothing-other-value", |opening| opening.value.push('0')),
        change("opens-nothing-other-name", |opening| opening.name.push('0')),
        change("opens-nothing-other-salt", |opening| opening.salt = Octets32::new([0; 32])),
        change("opens-nothing-other-assurance", |opening| opening.assurance = Assurance::Authenticated),
        change("opens-nothing-other-field", |opening| {
            (opening.field, opening.name) = (Field::DocumentId, "document-id".into());
        }),
        refused(
            "openings",
            "commitment-of-another-assurance",
            Plan::software()
                .with_openings()
                .body(|body| body.commitments[1].assurance = Assurance::Authenticated),
        ),
        refused(
            "openings",
            "commitment-of-another-field",
            Plan::software().with_openings().body(|body| body.commitments[1].field = Field::DocumentId),
        ),
        refused(
            "openings",
            "of-another-seal",
            Plan::software().file(|_, file| {
                file.openings =
                    vec![der::encode(&opening(Field::User, Assurance::Asserted, "user", "document 1"))];
            }),
        ),
        refused(
            "openings",
            "one-twice",
            Plan::software().with_openings().file(|_, file| {
                file.openings[1] = file.openings[0].clone();
            }),
        ),
        refused(
            "openings",
            "more-than-commitments",
            Plan::software().with_openings().file(|_, file| {
                file.openings.push(file.openings[0].clone());
            }),
        ),
        committed(
            "name-does-not-fit-its-field",
            opening(Field::User, Assurance::Asserted, "clerk", "m.keller"),
        ),
        committed("name-empty", metadata("", "x")),
        committed("name-of-129-bytes", metadata(&"n".repeat(129), "x")),
        bytes("der-trailing-byte", |der| der.push(0)),
        bytes("der-long-length", |der| *der = long_length(der)),
        bytes("der-truncated", |der| {
            der.pop();
        }),
    ]
}

fn document() -> Vec<Vector> {
    let other = |what, facts, plan| genuine("document", what, "other-document", facts, plan);
    vec![
        other("flipped", SEALED, Plan::software().document(|document| document[3] ^= 1)),
        other(
            "truncated",
            SEALED,
            Plan::software().document(|document| {
                document.pop();
            }),
        ),
        other("longer", SEALED, Plan::software().document(|document| document.push(b'\n'))),
        other("empty", ATTESTED, Plan::quoted().document(Vec::clear)),
        other(
            "size-differs",
            SEALED,
            Plan::software().body(|body| body.size = body.size.map(|size| size + 1)),
        ),
        other(
            "claimed-size-differs",
            SEALED,
            Plan::software().body(|body| {
                body.observation = bulla_formats::body::seal::Observation::DigestClaimed;
                body.size = Some(1);
            }),
        ),
        other(
            "is-compared-before-policy",
            SEALED,
            Plan::software()
                .document(|document| document[3] ^= 1)
                .trust(|trust| trust.policy.accept_software = false),
        ),
    ]
}

fn policy() -> Vec<Vector> {
    let unmet = |what, facts, plan| genuine("policy", what, "policy-unmet", facts, plan);
    let attested = |plan: Plan| plan.trust(|trust| trust.policy.require_facts = vec!["attested".into()]);
    vec![
        unmet(
            "software-not-accepted",
            SEALED,
            Plan::software().trust(|trust| trust.policy.accept_software = false),
        ),
        unmet("attested-required-no-quote", SEALED, attested(Plan::tpm())),
        unmet("attested-required-of-software", SEALED, attested(Plan::software())),
        unmet(
            "attested-required-other-boot",
            SEALED,
            attested(Plan::quoted()).trust(|trust| {
                trust.references = vec![Reference { name: "image 2".into(), pcrs: pcrs(2) }];
            }),
        ),
    ]
}

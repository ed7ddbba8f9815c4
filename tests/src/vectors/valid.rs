//! Positive vectors: everything the formats allow that a careless verifier might refuse.

use super::der::signed;
use super::plan::{NOW, Plan, Sealing, opening, pcrs, swap};
use super::shapes::{NULL, Use};
use super::{ATTESTED, SEALED, Vector, keys, valid};
use bulla_formats::body::seal::{
    Assurance, ClientMethod, DigestAlgorithm, Field, Observation, Relation, RelationKind,
};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{EntryRef, Mode};
use bulla_formats::hash::leaf_hash;
use bulla_formats::note::SignatureLine;
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::Reference;
use serde_json::json;

pub(super) fn all() -> Vec<Vector> {
    let mut all = boxes();
    all.extend(seals());
    all.extend(evidence());
    all.extend(packaging());
    all
}

fn reference(name: &str, pcrs: &[(u8, [u8; 32])]) -> Reference {
    Reference { name: name.into(), pcrs: pcrs.to_vec() }
}

/// Who signs, and on what it rests.
fn boxes() -> Vec<Vector> {
    let short_key = (0..)
        .map(|number| format!("attestation key {number}"))
        .find(|name| keys::point(&keys::p256(name))[1] == 0)
        .expect("one key in 256 has such a coordinate");
    vec![
        valid("valid-software-minimal", SEALED, Plan::software().tree(1, 2)),
        valid("valid-tpm", SEALED, Plan::tpm()),
        valid("valid-tpm-attested", ATTESTED, Plan::quoted().with_openings()),
        valid("valid-tpm-resident", SEALED, Plan::resident()),
        valid("valid-tpm-resident-attested", ATTESTED, Plan::resident().heads(vec![(4, Some(pcrs(1)))])),
        valid(
            "valid-tpm-resident-null-scheme",
            SEALED,
            Plan::resident().key_area(|area| area.scheme = NULL.to_vec()),
        ),
        valid("valid-tpm-interop-key", SEALED, Plan { interop: Some("interop"), ..Plan::tpm() }),
        valid("valid-p256-sealing-key", SEALED, Plan { sealing: Sealing::P256, ..Plan::tpm() }),
        valid(
            "valid-p256-high-s",
            SEALED,
            Plan { sealing: Sealing::P256, ..Plan::software() }.make_token(|log, content| {
                let content = der::encode(content);
                let signature = keys::high_s(&log.sealer.sign(&log.message(&content)));
                signed(&content, &signature)
            }),
        ),
        valid("valid-fleet-ca", SEALED, Plan::software().authority(|_| ())),
        valid(
            "valid-fleet-ca-last-millisecond",
            SEALED,
            Plan::software().authority(|ca| (ca.content.not_before, ca.content.not_after) = (NOW, NOW)),
        ),
        valid(
            "valid-fleet-ca-chain-of-four",
            SEALED,
            (0..4).fold(Plan::software(), |plan, _| plan.authority(|_| ())),
        ),
        valid(
            "valid-ek-certificates",
            SEALED,
            Plan::tpm().enrolment(|content| content.ek_certificates = vec![vec![0x30, 0x00].into(); 8]),
        ),
        valid(
            "valid-attestation-key-short-coordinate",
            ATTESTED,
            Plan { attestation_key: short_key, ..Plan::quoted() }.attestation_area(|area| {
                area.x.remove(0);
            }),
        ),
        valid(
            "valid-attestation-key-with-policy",
            ATTESTED,
            Plan::quoted().attestation_area(|area| area.policy = vec![0x5a; 32]),
        ),
        valid(
            "valid-tpm-signature-short-number",
            ATTESTED,
            Plan::quoted()
                .attest(|attest| {
                    while attest.purpose == Use::Checkpoint && attest.sign().r[0] != 0 {
                        attest.clock += 1;
                    }
                })
                .tpm_signature(|signature| {
                    if signature.purpose == Use::Checkpoint {
                        signature.r.remove(0);
                    }
                }),
        ),
        valid("valid-tpm-clock-not-safe", ATTESTED, Plan::quoted().attest(|attest| attest.safe = 0)),
        valid("valid-second-epoch", SEALED, Plan::software().second_epoch()),
        valid(
            "valid-epoch-3",
            ATTESTED,
            Plan { epoch: 3, ..Plan::quoted() }.tree(8, 10).heads(vec![(10, Some(pcrs(1)))]),
        ),
        valid(
            "valid-epoch-3-after-restart",
            SEALED,
            Plan { epoch: 3, handed_over: false, ..Plan::software() }.tree(8, 10),
        ),
        valid(
            "valid-predecessor-is-for-auditors",
            SEALED,
            Plan::software().second_epoch().epoch_body(|body| body.predecessor = Some(vec![0; 64].into())),
        ),
        valid(
            "valid-second-of-two-roots",
            SEALED,
            Plan::software().trust(|trust| {
                trust.roots.insert(0, keys::ed25519("another root").verifying_key().to_bytes())
            }),
        ),
    ]
}

/// What is sealed.
fn seals() -> Vec<Vector> {
    vec![
        valid("valid-openings-all", SEALED, Plan::software().with_openings()),
        valid(
            "valid-openings-some",
            SEALED,
            Plan::software().with_openings().file(|_, file| {
                file.openings.remove(0);
            }),
        ),
        valid(
            "valid-openings-none",
            SEALED,
            Plan::software().with_openings().file(|_, file| file.openings.clear()),
        ),
        valid(
            "valid-openings-in-another-order",
            SEALED,
            Plan::software().with_openings().file(|_, file| file.openings.reverse()),
        ),
        valid(
            "valid-opening-empty-value",
            SEALED,
            Plan {
                commitments: vec![opening(Field::Metadata, Assurance::Asserted, "note", "")],
                ..Plan::software()
            },
        ),
        valid(
            "valid-relations",
            SEALED,
            Plan::software().body(|body| {
                let kinds = [RelationKind::Supersedes, RelationKind::DerivedFrom, RelationKind::Annuls];
                let relation = |kind| Relation { kind, entry: Octets32::new(leaf_hash(b"another entry").0) };
                body.relations = kinds.map(relation).to_vec();
            }),
        ),
        valid(
            "valid-digest-claimed",
            SEALED,
            Plan::software().body(|body| (body.observation, body.size) = (Observation::DigestClaimed, None)),
        ),
        valid("valid-sha-512", SEALED, Plan { algorithm: DigestAlgorithm::Sha512, ..Plan::software() }),
        valid("valid-sha3-256", SEALED, Plan { algorithm: DigestAlgorithm::Sha3_256, ..Plan::software() }),
        valid("valid-empty-document", SEALED, Plan { sealed_document: Vec::new(), ..Plan::software() }),
        valid(
            "valid-client-certificate-in-a-drill",
            SEALED,
            Plan::software().body(|body| body.client.method = ClientMethod::ClientCertificate).content(
                |content| {
                    (content.mode, content.drill, content.time.uncertainty_millis) =
                        (Mode::Emergency, true, None);
                },
            ),
        ),
        valid(
            "valid-time-evidence",
            SEALED,
            Plan::software().content(|content| {
                content.evidence = Some(EntryRef { index: 1, leaf_hash: Octets32::new([7; 32]) });
            }),
        ),
        valid(
            "valid-batch-of-two",
            SEALED,
            // The tree before the batch is older than the entry: the batch began one entry earlier.
            Plan::software().content(|content| content.previous.size = 1),
        ),
    ]
}

/// Heads, notes, trees, boot states.
fn evidence() -> Vec<Vector> {
    let two_boots = || Plan::quoted().tree(2, 5).heads(vec![(4, Some(pcrs(1))), (5, Some(pcrs(2)))]);
    let mut all = vec![
        valid(
            "valid-several-heads",
            ATTESTED,
            Plan::tpm().tree(2, 9).heads(vec![(3, None), (5, Some(pcrs(1))), (9, None)]),
        ),
        valid(
            "valid-sixteen-heads",
            SEALED,
            Plan::software().tree(1, 4).heads((0..16).map(|at| (2 + at % 3, None)).collect()),
        ),
        valid(
            "valid-foreign-note-lines",
            ATTESTED,
            Plan::quoted().note(|log, note| {
                let line =
                    |name: &str, key_id| SignatureLine { name: name.into(), key_id, body: vec![4; 72] };
                note.lines.insert(0, line("witness.example/w1", [1, 2, 3, 4]));
                note.lines.push(line(&log.origin, [4, 3, 2, 1]));
            }),
        ),
        valid("valid-quote-line-first", ATTESTED, Plan::quoted().note(|_, note| note.lines.reverse())),
        valid(
            "valid-reference-matches",
            ATTESTED,
            Plan::quoted().trust(|trust| trust.references = vec![reference("image 1", &pcrs(1))]),
        ),
        valid(
            "valid-reference-of-some-pcrs-matches",
            ATTESTED,
            Plan::quoted().trust(|trust| {
                trust.references = vec![reference("image 2", &pcrs(2)), reference("image 1", &pcrs(1)[..2])];
            }),
        ),
        valid(
            "valid-reference-does-not-match",
            SEALED,
            Plan::quoted().trust(|trust| trust.references = vec![reference("image 2", &pcrs(2))]),
        ),
        valid(
            "valid-reference-of-an-unquoted-pcr",
            SEALED,
            Plan::quoted().trust(|trust| trust.references = vec![reference("image 1", &[(4, [4; 32])])]),
        ),
        valid("valid-two-boots-not-judged", ATTESTED, two_boots()),
        valid(
            "valid-one-of-two-boots-is-no-reference",
            SEALED,
            two_boots().trust(|trust| trust.references = vec![reference("image 1", &pcrs(1))]),
        ),
        valid(
            "valid-endorsed-under-another-boot",
            SEALED,
            Plan::quoted().heads(vec![(4, Some(pcrs(2)))]).trust(|trust| {
                trust.references = vec![reference("image 2", &pcrs(2))];
            }),
        ),
        valid(
            "valid-policy-requires-attested",
            ATTESTED,
            Plan::quoted()
                .trust(|trust| trust.policy.require_facts = vec!["sealed".into(), "attested".into()]),
        ),
    ];
    let trees = [(2, 1), (3, 2), (3, 1), (255, 254), (256, 255), (257, 256), (257, 3), (1000, 700)];
    for (size, index) in trees {
        all.push(valid(
            &format!("valid-tree-{size}-entry-{index}"),
            SEALED,
            Plan::software().tree(index, size),
        ));
    }
    all
}

/// The same evidence in other wrapping.
fn packaging() -> Vec<Vector> {
    let with = |name: &'static str| {
        move |_: &super::log::Log<'_>, file: &mut SealFile| {
            file.unknown.insert(name.into(), json!([{"made": "later", "number": 1.5, "none": null}]));
        }
    };
    vec![
        valid("valid-unknown-member", SEALED, Plan::software().file(with("colour"))),
        valid("valid-reserved-member", SEALED, Plan::software().file(with("witnesses"))),
        valid(
            "valid-critical-known-members",
            SEALED,
            Plan::software().swap("{\n", "{\n  \"critical\": [\"heads\", \"openings\"],\n"),
        ),
        valid("valid-critical-empty", SEALED, Plan::software().swap("{\n", "{\n  \"critical\": [],\n")),
        valid(
            "valid-json-other-spelling",
            SEALED,
            Plan::software().text(|text| {
                let value: serde_json::Value = serde_json::from_str(text).expect("it was just written");
                *text = format!(" \t{value}\r\n");
                swap(text, "\"origin\"", "\"\\u006frigin\"");
                swap(text, "seal/v1", "seal\\/v1");
            }),
        ),
    ]
}

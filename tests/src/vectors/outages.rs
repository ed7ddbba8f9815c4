//! Manifests: what the box said of the outage in which a seal was made, in the seal's file and as a file of its own.

use super::anchors::{anchored, body as anchor_body, stamp, trusting};
use super::log::Log;
use super::plan::{NOW, Plan, swap};
use super::{ANCHORED, SEALED, Vector, refused, valid};
use bulla_formats::body::key_epoch::{PcrValue, TpmQuote};
use bulla_formats::body::manifest::{ManifestBody, ManifestStatement, MeasuredBy, Phase, Wording};
use bulla_formats::body::mode_change::{ModeChangeBody, ModeStatement, OutageState, Vouched};
use bulla_formats::body::probe::{Failure, ProbeFinding};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{EntryRef, Kind, LocalTime, Mode, TreeState};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::root;
use bulla_formats::note::SignedNote;
use bulla_formats::seal_file::{Placed, SealFile};

/// Index of the mode change, of the token and of the manifest, and how far the manifest goes.
const FIRST: u64 = 2;
const TOKEN: u64 = 3;
pub(super) const MANIFEST: u64 = 5;
const SIZE: u64 = 5;

fn findings() -> Vec<ProbeFinding> {
    let finding = |name: &str| ProbeFinding {
        authority: format!("tsa-{name}"),
        operator: name.into(),
        failure: Some(Failure::Unreachable),
        for_millis: 600_000,
        detail: "network is unreachable".into(),
    };
    ["one", "two"].map(finding).to_vec()
}

fn without_quote() -> Vouched {
    Vouched::None("this box has no TPM".into())
}

/// With a quote that has the value of this PCR; whether it holds is not asked of a manifest in a seal.
fn quoting(pcr: u8) -> Plan {
    let value = Octets32::new(sha256(&[b"pcr", &[pcr]]).0);
    carrying(told(Kind::Manifest, move |log| {
        let pcrs = vec![PcrValue { pcr, value }];
        let quote = TpmQuote { attest: vec![1; 80].into(), signature: vec![2; 72].into(), pcrs };
        der::encode(&ManifestBody { vouched: Vouched::Quote(quote), ..manifest(log) })
    }))
}

/// The mode change that begins the outage.
fn beginning(log: &Log<'_>) -> Vec<u8> {
    let statement = ModeStatement {
        version: 1,
        origin: log.origin.clone(),
        from: Mode::Degraded,
        to: Mode::Emergency,
        below: Mode::Emergency,
        outages: 1,
        outage: Some(OutageState { first: None, elapsed_millis: 0, manifests: 0, last: None, closing: None }),
        locked: false,
        limits: Vec::new(),
        head: TreeState::new(FIRST, log.root(FIRST)),
        findings: findings(),
        reason: "no authority was in reach for 10 minutes".into(),
    };
    der::encode(&ModeChangeBody { statement, vouched: without_quote() })
}

/// Its opening manifest, over the mode change, the token, and the entry after that.
pub(super) fn manifest(log: &Log<'_>) -> ManifestBody {
    let time = |index: u64| LocalTime { unix_millis: NOW + 1_000 * index, uncertainty_millis: Some(250) };
    let entries = &log.entries[FIRST as usize..SIZE as usize];
    let leaves: Vec<Hash> = entries.iter().map(|entry| leaf_hash(entry)).collect();
    let covered = root(SIZE - FIRST, leaves.as_slice()).expect("leaves are in memory");
    let statement = ManifestStatement {
        version: 1,
        origin: log.origin.clone(),
        outage: 1,
        sequence: 0,
        phase: Phase::Open,
        drill: false,
        began: time(FIRST),
        made: time(MANIFEST),
        duration_millis: 1_000 * (MANIFEST - FIRST),
        measured_by: MeasuredBy::SteadyClock,
        first: FIRST,
        head: TreeState::new(SIZE, log.root(SIZE)),
        entries: Octets32::new(covered.0),
        seals: 2,
        evidence: Some(log.reference(1)),
        findings: findings(),
        holders: Vec::new(),
        wording: Wording { id: "bulla/default-en/1".into(), sha256: Octets32::new(sha256(&[b"wording"]).0) },
        limits: None,
        event_log: None,
        approvals: Vec::new(),
    };
    ManifestBody { statement, vouched: without_quote() }
}

/// Token 3 of a log of 8 entries, in an outage that began with entry 2; entry 5 is made of what `make` says.
pub(super) fn told(kind: Kind, make: impl Fn(&Log<'_>) -> Vec<u8> + 'static) -> Plan {
    let mode = |index| if index < FIRST { Mode::Degraded } else { Mode::Emergency };
    Plan { mode, ..Plan::software() }
        .tree(TOKEN, 8)
        .heads(vec![(4, None)])
        .other(1, Kind::Anchor, |log| der::encode(&anchor_body(log, 1, &[stamp("one", 0)])))
        .other(FIRST, Kind::ModeChange, beginning)
        .other(MANIFEST, kind, make)
}

/// The file carries entry 5 and its place in the log of 8.
pub(super) fn carrying(plan: Plan) -> Plan {
    plan.file(|log, file| {
        file.manifests.push(Placed {
            entry: log.entries[MANIFEST as usize].clone(),
            checkpoint: log.checkpoint(8, false, &Vec::new()),
            entry_proof: log.proof(MANIFEST, 8),
        });
    })
}

fn outage() -> Plan {
    carrying(told(Kind::Manifest, |log| der::encode(&manifest(log))))
}

pub(super) fn all() -> Vec<Vector> {
    let mut all = positive();
    all.extend(statements());
    all.extend(proofs());
    all.extend(shapes());
    all
}

fn changed(change: impl Fn(&mut ManifestStatement) + 'static) -> Plan {
    carrying(told(Kind::Manifest, move |log| {
        let mut body = manifest(log);
        change(&mut body.statement);
        der::encode(&body)
    }))
}

fn positive() -> Vec<Vector> {
    vec![
        valid("valid-outage", SEALED, outage()),
        valid("valid-outage-in-a-drill", SEALED, changed(|said| said.drill = true)),
        valid("valid-outage-anchored", ANCHORED, trusting(anchored(outage(), vec![stamp("one", 10)]), 1)),
        valid("valid-outage-with-nothing-after-the-token", SEALED, {
            changed(|said| (said.head.size, said.seals) = (TOKEN + 1, 1))
        }),
        valid("valid-outage-quoting-pcr-23", SEALED, quoting(23)),
        valid("valid-outage-manifest-twice", SEALED, carrying(outage())),
        valid(
            "valid-manifests-critical",
            SEALED,
            outage().swap("{\n", "{\n  \"critical\": [\"manifests\"],\n"),
        ),
    ]
}

/// Entries that say something else.
fn statements() -> Vec<Vector> {
    let body = |what: &str, change: fn(&mut ManifestStatement)| refused("manifest", what, changed(change));
    let bytes = |what: &str, change: fn(&mut Vec<u8>)| {
        let plan = told(Kind::Manifest, move |log| {
            let mut bytes = der::encode(&manifest(log));
            change(&mut bytes);
            bytes
        });
        refused("manifest", what, carrying(plan))
    };
    let vouched = |what: &str, reason: &'static str| {
        let plan = told(Kind::Manifest, move |log| {
            der::encode(&ManifestBody { vouched: Vouched::None(reason.into()), ..manifest(log) })
        });
        refused("manifest", what, carrying(plan))
    };
    let kind = |what: &str, kind: Kind| {
        refused("manifest", what, carrying(told(kind, |log| der::encode(&manifest(log)))))
    };
    vec![
        body("token-before-it", |said| {
            (said.first, said.seals) = (TOKEN + 1, 0);
        }),
        body("token-after-it", |said| {
            (said.head.size, said.seals, said.evidence) = (TOKEN, 0, None);
        }),
        refused("manifest", "quoting-pcr-24", quoting(24)),
        body("covers-itself", |said| said.head.size = MANIFEST + 1),
        body("of-another-log", |said| said.origin = said.origin.replace("/1", "/2")),
        body("version-2", |said| said.version = 2),
        body("of-outage-0", |said| said.outage = 0),
        body("opening-in-the-middle", |said| said.sequence = 1),
        body("refresh-at-the-beginning", |said| said.phase = Phase::Refresh),
        body("covers-nothing", |said| said.head.size = FIRST),
        body("more-seals-than-entries", |said| said.seals = 4),
        body("evidence-after-it", |said| {
            said.evidence = Some(EntryRef { index: SIZE, leaf_hash: Octets32::new([7; 32]) });
        }),
        body("wording-without-id", |said| said.wording.id.clear()),
        body("33-findings", |said| said.findings = vec![said.findings[0].clone(); 33]),
        body("finding-without-operator", |said| said.findings[0].operator.clear()),
        body("duration-above-the-limit", |said| said.duration_millis = 1 << 63),
        vouched("neither-quote-nor-reason", ""),
        bytes("body-empty", Vec::clear),
        bytes("body-trailing-byte", |bytes| bytes.push(0)),
        bytes("body-unknown-field", |bytes| *bytes = super::der::with_extra_field(bytes)),
        kind("of-kind-mode-change", Kind::ModeChange),
        kind("of-a-reserved-kind", Kind::Mirror),
    ]
}

/// Proofs that prove something else, or nothing.
fn proofs() -> Vec<Vector> {
    let file =
        |what: &str, change: fn(&Log<'_>, &mut SealFile)| refused("manifest", what, outage().file(change));
    vec![
        file("entry-empty", |_, file| file.manifests[0].entry.clear()),
        file("entry-trailing-byte", |_, file| file.manifests[0].entry.push(0)),
        file("entry-cut", |_, file| {
            let cut = file.manifests[0].entry.len() - 1;
            file.manifests[0].entry.truncate(cut);
        }),
        file("entry-with-another-signature", |_, file| {
            let last = file.manifests[0].entry.len() - 1;
            file.manifests[0].entry[last] ^= 1;
        }),
        file("entry-is-the-token", |_, file| file.manifests[0].entry = file.entry.clone()),
        file("proof-empty", |_, file| file.manifests[0].entry_proof.clear()),
        file("proof-flipped", |_, file| file.manifests[0].entry_proof[0][0] ^= 1),
        file("proof-cut", |_, file| drop(file.manifests[0].entry_proof.pop())),
        file("proof-hash-of-31-bytes", |_, file| file.manifests[0].entry_proof[0].truncate(31)),
        file("proof-of-the-token", |log, file| file.manifests[0].entry_proof = log.proof(TOKEN, 8)),
        file("checkpoint-unsigned", |log, file| {
            let text = SignedNote::parse(&file.manifests[0].checkpoint).expect("it is a note").text;
            let mut line = log.sign_text(&text);
            line.key_id = [1, 2, 3, 4];
            file.manifests[0].checkpoint = SignedNote { text, lines: vec![line] }.encode();
        }),
        file("checkpoint-flipped", |_, file| {
            let note = &mut file.manifests[0].checkpoint;
            *note = note.replacen("\n8\n", "\n9\n", 1);
        }),
        file("checkpoint-too-old", |log, file| {
            file.manifests[0].checkpoint = log.checkpoint(4, false, &Vec::new());
        }),
        file("checkpoint-no-note", |_, file| file.manifests[0].checkpoint.clear()),
        refused("manifest", "second-one-broken", {
            carrying(outage()).file(|_, file| file.manifests[1].entry_proof.clear())
        }),
    ]
}

/// Members that are none.
fn shapes() -> Vec<Vector> {
    let none = |what: &str, value: &str| {
        let all = format!("\"openings\": [],\n  \"manifests\": {value}\n");
        let plan = Plan::software().text(move |text| swap(text, "\"openings\": []\n", &all));
        refused("seal-file", &format!("manifests-{what}"), plan)
    };
    let one = "{\"entry\": \"\", \"checkpoint\": \"\", \"entryProof\": []}";
    vec![
        none("null", "null"),
        none("an-object", "{}"),
        none("of-a-string", "[\"AA==\"]"),
        none("of-an-array", "[[\"AA==\", \"\", []]]"),
        none("without-checkpoint", "[{\"entry\": \"AA==\", \"entryProof\": []}]"),
        none("with-another-member", &format!("[{}]", one.replace("{", "{\"at\": 1, "))),
        none("17", &format!("[{}]", vec![one; 17].join(", "))),
    ]
}

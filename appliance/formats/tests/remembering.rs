//! A verifier that remembers answers as one that does not, whatever it has seen before.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Cosignature, Evidence};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Kind, TreeState};
use bulla_formats::erasure::erase_body;
use bulla_formats::hash::leaf_hash;
use bulla_formats::report::{Fact, Report, Verdict};
use bulla_formats::seal_file::{AnchorEvidence, Placed, SealFile};
use bulla_formats::trust::{Authorities, Reference, TrustFile, TrustedWitness};
use bulla_formats::verify::{Verifier, verify};
use bulla_formats::witness::{WitnessKey, cosigned};
use bulla_formats::{der, note::SignedNote};
use common::{Log, NOW, digest};
use ed25519_dalek::{Signer as _, SigningKey};

const DOCUMENT: &[u8] = b"%PDF-1.7 a scanned contract";

/// Demands that `warm` says of these bytes exactly what a new verifier says, evidence included; whether it was valid.
fn same(warm: &mut Verifier<'_>, trust: &TrustFile, seal: &[u8], what: &str) -> bool {
    let document = digest(DOCUMENT);
    let cold = verify(seal, trust, Some(&document));
    // The second time every piece of it is known that can be.
    for found in [warm.verify(seal, Some(&document)), warm.verify(seal, Some(&document))] {
        assert_eq!(found.report, cold.report, "{what}");
        assert_eq!(format!("{:?}", found.seal), format!("{:?}", cold.seal), "{what}");
    }
    // A file whose names have escapes is read in one go by the decoder, which knows no pieces.
    let escaped = warm.verify(&escaped(seal), Some(&document));
    assert_eq!(told(&escaped.report), told(&cold.report), "{what}");
    assert_eq!(format!("{:?}", escaped.seal), format!("{:?}", cold.seal), "{what}");
    cold.report.verdict == Verdict::Valid
}

/// The same file in another spelling.
fn escaped(seal: &[u8]) -> Vec<u8> {
    let (name, other) = (b"\"bulla\"", b"\"\\u0062ulla\"");
    match seal.windows(name.len()).position(|window| window == name) {
        Some(at) => [&seal[..at], other, &seal[at + name.len()..]].concat(),
        None => seal.to_vec(),
    }
}

/// A report without the column in which a file ceases to be JSON.
fn told(report: &Report) -> Report {
    let mut report = report.clone();
    for check in report.checks.iter_mut().filter(|check| check.name == "seal-file") {
        check.detail.clear();
    }
    report
}

/// A log with the document in its second epoch, a quoted and a bare head, openings, and an erasure.
fn full(hardware: Hardware) -> (Log, SealFile) {
    let mut log = Log::new(hardware, 5);
    log.seal(b"earlier");
    log.rotate(true);
    let index = log.seal(DOCUMENT);
    let mut file = log.seal_file(index, false);
    log.seal(b"later");
    file.upgrade(log.seal_file(index, hardware == Hardware::Tpm)).unwrap();
    let leaf = log.entries[usize::try_from(index).unwrap()].leaf_hash();
    let body: OperatorActionBody = erase_body(&[leaf], "asked for".into());
    let erasing = log.append(log.content(Kind::OperatorAction as u16, der::encode(&body)));
    let head = log.head(erasing, log.size(), false);
    let entry = log.entries[usize::try_from(erasing).unwrap()].bytes().to_vec();
    file.erasures.push(Placed { entry, checkpoint: head.checkpoint, entry_proof: head.entry_proof });
    (log, file)
}

#[test]
fn a_bit_flipped_in_any_byte_is_judged_as_if_nothing_were_remembered() {
    for hardware in [Hardware::Tpm, Hardware::Software] {
        let (log, file) = full(hardware);
        let (trust, text) = (log.trust(), file.encode());
        let mut warm = Verifier::new(&trust);
        assert!(same(&mut warm, &trust, text.as_bytes(), "unchanged"));
        let remembered = warm.remembered();
        assert!(same(&mut warm, &trust, text.as_bytes(), "again"));
        assert_eq!(warm.remembered(), remembered, "the second time nothing is new");
        let mut valid = 0;
        // Two bits of every byte, other ones from byte to byte.
        for bit in (0..text.len()).flat_map(|byte| [byte * 8 + byte % 8, byte * 8 + (byte + 3) % 8]) {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let what = format!("byte {}, bit {}", bit / 8, bit % 8);
            valid += usize::from(same(&mut warm, &trust, &bytes, &what));
        }
        // What does hold is without the member `erasures`, whose name has changed into one that nobody knows.
        assert!(valid <= 2 * "erasures".len(), "{valid} changed files are valid");
        assert!(same(&mut warm, &trust, text.as_bytes(), "after all that"));
    }
}

/// Unpacked by one who has seen this very file, and judged by one who has not: it is the same file.
#[test]
fn a_seal_that_one_verifier_unpacked_another_may_judge() {
    let (log, file) = full(Hardware::Tpm);
    let (trust, text, document) = (log.trust(), file.encode(), digest(DOCUMENT));
    let mut stranger_to_all = log.trust();
    stranger_to_all.roots = vec![[7; 32]];
    let mut warm = Verifier::new(&trust);
    let cold = warm.verify(text.as_bytes(), Some(&document));
    assert_eq!(cold.report.verdict, Verdict::Valid);
    let unpacked = warm.unpack(text.as_bytes());
    assert_eq!(unpacked.wanted_digest(), Some(document.algorithm));
    assert_eq!(Verifier::new(&trust).judge(unpacked, Some(&document)).report, cold.report);
    let unpacked = warm.unpack(text.as_bytes());
    let found = Verifier::new(&stranger_to_all).judge(unpacked, Some(&document));
    assert_eq!(found.report, verify(text.as_bytes(), &stranger_to_all, Some(&document)).report);
    assert_eq!(found.report.verdict, Verdict::Refused);
    assert_eq!(warm.unpack(b"{}").wanted_digest(), None);
}

/// Parts of seals that are all remembered, put together anew: each part is known, the whole is not.
#[test]
fn known_parts_in_unknown_company_are_judged_anew() {
    let (tpm, attested) = full(Hardware::Tpm);
    let (_, software) = full(Hardware::Software);
    let first_epoch = tpm.seal_file(1, true);
    let bare = tpm.seal_file(1, false);
    let mut foreign = attested.clone();
    let mut lines = SignedNote::parse(&foreign.heads[0].checkpoint).unwrap();
    lines.lines.push(lines.lines[0].clone());
    foreign.heads[0].checkpoint = lines.encode();
    let files = [attested, software, first_epoch, bare, foreign];
    let trust = tpm.trust();
    let mut warm = Verifier::new(&trust);
    for file in &files {
        same(&mut warm, &trust, file.encode().as_bytes(), "as it is");
    }
    type Swap = fn(&mut SealFile, &SealFile);
    let swaps: [(&str, Swap); 12] = [
        ("origin", |to, from| to.origin.clone_from(&from.origin)),
        ("entry", |to, from| to.entry.clone_from(&from.entry)),
        ("epoch", |to, from| to.epoch.clone_from(&from.epoch)),
        ("enrolment", |to, from| to.enrolment.clone_from(&from.enrolment)),
        ("enrolment and origin", |to, from| {
            to.enrolment.clone_from(&from.enrolment);
            to.origin.clone_from(&from.origin);
        }),
        ("heads", |to, from| to.heads.clone_from(&from.heads)),
        ("checkpoint", |to, from| to.heads[0].checkpoint.clone_from(&from.heads[0].checkpoint)),
        ("path", |to, from| to.heads[0].entry_proof.clone_from(&from.heads[0].entry_proof)),
        ("openings", |to, from| to.openings.clone_from(&from.openings)),
        ("epoch path", |to, from| to.heads[0].epoch_proof.clone_from(&from.heads[0].epoch_proof)),
        ("pcrs", |to, from| to.heads[0].pcrs.clone_from(&from.heads[0].pcrs)),
        ("erasures", |to, from| to.erasures.clone_from(&from.erasures)),
    ];
    let mut judged = 0;
    for (name, swap) in swaps {
        for to in &files {
            for from in &files {
                let mut file = to.clone();
                swap(&mut file, from);
                same(&mut warm, &trust, file.encode().as_bytes(), name);
                judged += usize::from(file != *to);
            }
        }
    }
    assert!(judged > 100, "{judged} files were put together");
}

#[test]
fn seals_of_one_epoch_and_checkpoint_share_what_is_remembered() {
    let mut log = Log::new(Hardware::Tpm, 6);
    let indexes: Vec<u64> = (0..10u8).map(|number| log.seal(&[number])).collect();
    let (trust, mut sizes) = (log.trust(), Vec::new());
    let mut warm = Verifier::new(&trust);
    for (number, index) in (0..10u8).zip(indexes) {
        let seal = log.seal_file(index, true).encode();
        let found = warm.verify(seal.as_bytes(), Some(&digest(&[number])));
        assert_eq!(found.report.verdict, Verdict::Valid, "{}", found.report);
        sizes.push(warm.remembered());
    }
    // Enrolment, its key, the epoch with signature and endorsement, the checkpoint, the epoch's path, the quote.
    assert_eq!(sizes, [8; 10]);
}

#[test]
fn nothing_that_fails_is_remembered() {
    let (log, file) = full(Hardware::Tpm);
    let trust = log.trust();
    let mut refused = file.clone();
    refused.enrolment[40] ^= 1;
    let mut warm = Verifier::new(&trust);
    assert!(!same(&mut warm, &trust, refused.encode().as_bytes(), "another enrolment"));
    assert_eq!(warm.remembered(), 0);
    let mut other = trust.clone();
    other.roots = vec![[7; 32]];
    let mut stranger = Verifier::new(&other);
    assert!(!same(&mut stranger, &other, file.encode().as_bytes(), "another fleet root"));
    assert_eq!(stranger.remembered(), 0);
}

/// What depends on the trust file beyond its roots is judged for every seal.
#[test]
fn policy_and_boot_state_are_not_remembered() {
    let (log, file) = full(Hardware::Tpm);
    let mut strict = log.trust();
    strict.references = vec![Reference { name: "another image".into(), pcrs: vec![(0, [1; 32])] }];
    strict.policy.require_facts = vec!["attested".into()];
    let mut warm = Verifier::new(&strict);
    for turn in 0..3 {
        assert!(!same(&mut warm, &strict, file.encode().as_bytes(), &format!("turn {turn}")));
        let found = warm.verify(file.encode().as_bytes(), Some(&digest(DOCUMENT)));
        assert_eq!(found.report.verdict, Verdict::PolicyUnmet);
    }
}

/// An anchor of the log as it is: a batch of its own, cosigned by a witness.
fn anchor(log: &Log, seconds: u64) -> AnchorBody {
    let mut body = AnchorBody {
        version: 1,
        batch: TreeState::new(1, log.root()),
        index: 0,
        path: Vec::new(),
        head: TreeState::new(log.size(), log.root()),
        proofs: Vec::new(),
        manifests: Vec::new(),
    };
    let text = body.checkpoint_text(log.origin.as_str());
    body.batch = TreeState::new(1, leaf_hash(text.as_bytes()));
    let signature = SigningKey::from_bytes(&[77; 32]).sign(&cosigned(&text, seconds)).to_bytes();
    let said = Cosignature { name: "witness.test/w1".into(), seconds, signature: signature.to_vec().into() };
    body.proofs.push(AnchorProof {
        authority: "w1".into(),
        operator: "one".into(),
        evidence: Evidence::Cosignature(said),
    });
    body
}

fn with_witness(mut trust: TrustFile) -> TrustFile {
    let key = SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes();
    let key = WitnessKey::new("witness.test/w1", key).unwrap();
    let witnesses = vec![TrustedWitness { operator: "one".into(), key }];
    trust.authorities = Some(Authorities { tsas: Vec::new(), witnesses, operators: 1 });
    trust
}

/// One anchor under many seals is judged once, and what it proves is told for each of them.
#[test]
fn anchors_are_remembered_and_the_report_is_the_same() {
    let mut log = Log::new(Hardware::Software, 6);
    let indexes = [log.seal(DOCUMENT), log.seal(b"another"), log.seal(DOCUMENT)];
    let seconds = NOW / 1_000;
    let body = der::encode(&anchor(&log, seconds));
    let trust = with_witness(log.trust());
    let anchored = |index: u64, body: &[u8]| {
        let mut file = log.seal_file(index, false);
        let entry_proof = file.heads[0].entry_proof.clone();
        file.anchors.push(AnchorEvidence { body: body.to_vec(), entry_proof });
        file.encode()
    };
    let bare = log.seal_file(indexes[0], false).encode();
    let mut warm = Verifier::new(&trust);
    assert!(same(&mut warm, &trust, bare.as_bytes(), "without an anchor"));
    let without = warm.remembered();
    assert!(same(&mut warm, &trust, anchored(indexes[0], &body).as_bytes(), "anchored"));
    let with = warm.remembered();
    assert_eq!(with, without + 1, "the anchor, and nothing else, is new");
    for index in indexes {
        same(&mut warm, &trust, anchored(index, &body).as_bytes(), "another seal under the same anchor");
        let found = warm.verify(anchored(index, &body).as_bytes(), None);
        assert_eq!(found.report.facts, [Fact::Sealed, Fact::Anchored]);
        assert_eq!(found.report.interval.unwrap().before, Some((seconds + 1) * 1_000));
    }
    assert_eq!(warm.remembered(), with, "it was judged once");
    // Every byte of it counts, and a changed one is not taken for the one that is remembered.
    for at in 0..body.len() {
        let mut changed = body.clone();
        changed[at] ^= 1 << (at % 8);
        let text = anchored(indexes[0], &changed);
        same(&mut warm, &trust, text.as_bytes(), &format!("byte {at} of the anchor"));
        let facts = warm.verify(text.as_bytes(), None).report.facts;
        assert!(!facts.contains(&Fact::Anchored) || names_only(&body, &changed), "byte {at}");
    }
    // The same anchor in another log's file is no anchor of that log.
    let mut other = Log::new(Hardware::Software, 7);
    let index = other.seal(DOCUMENT);
    let mut file = other.seal_file(index, false);
    let entry_proof = file.heads[0].entry_proof.clone();
    file.anchors.push(AnchorEvidence { body: body.clone(), entry_proof });
    assert!(!same(&mut warm, &trust, file.encode().as_bytes(), "another log"));
    // And nothing of it is remembered for another trust file.
    let bare_trust = log.trust();
    let mut other = Verifier::new(&bare_trust);
    same(&mut other, &bare_trust, anchored(indexes[0], &body).as_bytes(), "a trust file without witnesses");
    let found = other.verify(anchored(indexes[0], &body).as_bytes(), None);
    assert_eq!(found.report.facts, [Fact::Sealed]);
}

/// Whether two bodies differ only in what the authority is called, which proves nothing.
fn names_only(one: &[u8], other: &[u8]) -> bool {
    let [mut one, other] = [one, other].map(|body| AnchorBody::decode(body).unwrap());
    one.proofs[0].authority.clone_from(&other.proofs[0].authority);
    one == other
}

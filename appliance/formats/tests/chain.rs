//! The whole chain of evidence: genuine seals verify, and nothing else does.
//!
//! Exhaustive where it can be: every single-bit flip of every part of a `.seal` is tried.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::Kind;
use bulla_formats::note::{SignatureLine, SignedNote};
use bulla_formats::report::{Fact, Outcome, Verdict};
use bulla_formats::seal_file::{HEADS_MAX, SealFile};
use bulla_formats::trust::{Reference, TrustFile};
use bulla_formats::verify::{Verification, verify, wanted_digest};
use common::{Log, digest};

const DOCUMENT: &[u8] = b"%PDF-1.7 a scanned contract";

/// A software box with a few seals around the one in question, in its second epoch.
fn software() -> (Log, u64) {
    let mut log = Log::new(Hardware::Software, 1);
    log.seal(b"earlier");
    log.rotate(true);
    let index = log.seal(DOCUMENT);
    log.seal(b"later");
    (log, index)
}

fn tpm() -> (Log, u64) {
    let mut log = Log::new(Hardware::Tpm, 2);
    log.seal(b"earlier");
    let index = log.seal(DOCUMENT);
    log.seal(b"later");
    (log, index)
}

fn judge(file: &SealFile, trust: &TrustFile) -> Verification {
    verify(file.encode().as_bytes(), trust, Some(&digest(DOCUMENT)))
}

fn verdict(file: &SealFile, trust: &TrustFile) -> Verdict {
    judge(file, trust).report.verdict
}

/// The name of the check that failed.
fn failed(file: &SealFile, trust: &TrustFile) -> &'static str {
    judge(file, trust).report.failed().map_or("none", |check| check.name)
}

#[test]
fn g6_software_seal_verifies_on_its_own() {
    let (log, index) = software();
    let file = log.seal_file(index, false);
    let Verification { report, seal } = judge(&file, &log.trust());
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert_eq!(report.facts, [Fact::Sealed]);
    let seal = seal.unwrap();
    assert_eq!(seal.entry().content().index, index);
    assert_eq!(seal.openings().len(), 3);
    assert_eq!(seal.openings()[0].value, "m.keller");
    let alone = verify(file.encode().as_bytes(), &log.trust(), None);
    assert_eq!(alone.report.verdict, Verdict::SealOnly);
    assert_eq!(wanted_digest(&file).unwrap(), digest(DOCUMENT).algorithm);
}

#[test]
fn g6_g8_attested_seal_verifies_on_its_own() {
    let (log, index) = tpm();
    let Verification { report, seal } = judge(&log.seal_file(index, true), &log.trust());
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    assert_eq!(report.facts, [Fact::Sealed, Fact::Attested]);
    assert!(seal.unwrap().checkpoints().next().unwrap().quote().is_some());
    let unattested = judge(&log.seal_file(index, false), &log.trust());
    assert_eq!(unattested.report.verdict, Verdict::Valid, "{}", unattested.report);
    assert_eq!(unattested.report.facts, [Fact::Sealed]);
}

#[test]
fn g7_local_time_is_stated_as_advisory_and_never_as_a_bound() {
    let (log, index) = software();
    let Verification { report, seal } = judge(&log.seal_file(index, false), &log.trust());
    let interval = report.interval.unwrap();
    assert_eq!((interval.after, interval.before), (None, None), "no anchor, no bound");
    assert_eq!(interval.local, seal.unwrap().entry().content().time);
    let words = interval.to_string();
    assert!(words.contains("no external lower bound") && words.contains("the box's own clock"), "{words}");
}

#[test]
fn another_document_is_not_called_forged() {
    let (log, index) = software();
    let file = log.seal_file(index, false).encode();
    let other = verify(file.as_bytes(), &log.trust(), Some(&digest(b"another scan")));
    assert_eq!(other.report.verdict, Verdict::OtherDocument);
    assert!(other.seal.is_some(), "the seal itself is genuine");
}

/// Flips each bit of one part and demands that `put` of it is refused.
fn refuse_flips(
    name: &str,
    base: &SealFile,
    trust: &TrustFile,
    part: &[u8],
    put: impl Fn(&mut SealFile, Vec<u8>),
) {
    for bit in 0..part.len() * 8 {
        let mut flipped = part.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut file = base.clone();
        put(&mut file, flipped);
        let found = judge(&file, trust);
        assert_eq!(found.report.verdict, Verdict::Refused, "{name}, bit {bit}:\n{}", found.report);
        assert!(found.seal.is_none());
    }
}

fn refuse_all_flips(base: &SealFile, trust: &TrustFile) {
    assert_eq!(verdict(base, trust), Verdict::Valid);
    refuse_flips("entry", base, trust, &base.entry, |file, bytes| file.entry = bytes);
    refuse_flips("epoch", base, trust, &base.epoch, |file, bytes| file.epoch = bytes);
    refuse_flips("enrolment", base, trust, &base.enrolment, |file, bytes| file.enrolment = bytes);
    for (at, opening) in base.openings.iter().enumerate() {
        refuse_flips("opening", base, trust, opening, |file, bytes| file.openings[at] = bytes);
    }
    let head = &base.heads[0];
    for (at, hash) in head.entry_proof.iter().enumerate() {
        refuse_flips("entry proof", base, trust, hash, |file, bytes| file.heads[0].entry_proof[at] = bytes);
    }
    for (at, hash) in head.epoch_proof.iter().enumerate() {
        refuse_flips("epoch proof", base, trust, hash, |file, bytes| file.heads[0].epoch_proof[at] = bytes);
    }
    for (at, (pcr, value)) in head.pcrs.iter().flatten().enumerate() {
        let put = |file: &mut SealFile, bytes: Vec<u8>| {
            file.heads[0].pcrs.as_mut().unwrap()[at] = (*pcr, bytes.try_into().unwrap());
        };
        refuse_flips("PCR value", base, trust, value, put);
        for bit in 0..8 {
            let mut file = base.clone();
            file.heads[0].pcrs.as_mut().unwrap()[at].0 ^= 1 << bit;
            assert_eq!(verdict(&file, trust), Verdict::Refused, "PCR number {pcr}, bit {bit}");
        }
    }
    // The origin and the checkpoint are text: flips that are no UTF-8 cannot even be written down in JSON.
    refuse_flips("origin", base, trust, base.origin.as_bytes(), |file, bytes| {
        file.origin = String::from_utf8(bytes).unwrap_or_default();
    });
    refuse_flips("checkpoint", base, trust, head.checkpoint.as_bytes(), |file, bytes| {
        file.heads[0].checkpoint = String::from_utf8(bytes).unwrap_or_default();
    });
}

#[test]
fn g6_every_flipped_bit_of_a_software_seal_is_refused() {
    let (log, index) = software();
    refuse_all_flips(&log.seal_file(index, false), &log.trust());
}

#[test]
fn g6_every_flipped_bit_of_an_attested_seal_is_refused() {
    let (log, index) = tpm();
    refuse_all_flips(&log.seal_file(index, true), &log.trust());
}

#[test]
fn g8_every_flipped_bit_of_the_certification_of_a_key_in_the_tpm_is_refused() {
    let mut log = Log::resident(4, "sealing");
    let index = log.seal(DOCUMENT);
    let (base, trust) = (log.seal_file(index, true), log.trust());
    assert_eq!(verdict(&base, &trust), Verdict::Valid);
    refuse_flips("epoch", &base, &trust, &base.epoch, |file, bytes| file.epoch = bytes);
    refuse_flips("entry", &base, &trust, &base.entry, |file, bytes| file.entry = bytes);
}

#[test]
fn g8_a_tpm_key_certified_for_another_role_seals_nothing() {
    let mut log = Log::resident(4, "tls");
    let index = log.seal(DOCUMENT);
    assert_eq!(failed(&log.seal_file(index, true), &log.trust()), "epoch-endorsement");
}

#[test]
fn no_flip_of_the_file_itself_is_accepted() {
    let (log, index) = software();
    let text = log.seal_file(index, false).encode();
    for bit in 0..text.len() * 8 {
        let mut bytes = text.clone().into_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = verify(&bytes, &log.trust(), Some(&digest(DOCUMENT)));
        assert_ne!(found.report.verdict, Verdict::Valid, "byte {}, bit {}", bit / 8, bit % 8);
        assert!(found.seal.is_none(), "byte {}, bit {}", bit / 8, bit % 8);
    }
}

#[test]
fn foreign_lines_neither_help_nor_harm() {
    let (log, index) = software();
    let mut file = log.seal_file(index, false);
    let mut note = SignedNote::parse(&file.heads[0].checkpoint).unwrap();
    let foreign = SignatureLine { name: "witness.example".into(), key_id: [1; 4], body: vec![9; 64] };
    note.lines.insert(0, foreign.clone());
    file.heads[0].checkpoint = note.encode();
    assert_eq!(verdict(&file, &log.trust()), Verdict::Valid);
    note.lines = vec![foreign];
    file.heads[0].checkpoint = note.encode();
    assert_eq!(failed(&file, &log.trust()), "checkpoint");
}

#[test]
fn truncations_are_refused() {
    let (log, index) = tpm();
    let (base, trust) = (log.seal_file(index, true), log.trust());
    let text = base.encode();
    for cut in 0..text.len() - 1 {
        let found = verify(&text.as_bytes()[..cut], &trust, Some(&digest(DOCUMENT)));
        assert_eq!(found.report.verdict, Verdict::Refused, "cut at {cut}");
    }
    let shorter = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - 1);
    let cuts: [&dyn Fn(&mut SealFile); 8] = [
        &|file| shorter(&mut file.entry),
        &|file| shorter(&mut file.epoch),
        &|file| shorter(&mut file.enrolment),
        &|file| shorter(&mut file.openings[0]),
        &|file| shorter(&mut file.heads[0].epoch_proof[0]),
        &|file| file.heads[0].entry_proof.truncate(1),
        &|file| file.heads[0].pcrs.as_mut().unwrap().truncate(2),
        &|file| file.heads[0].pcrs = None,
    ];
    for (at, cut) in cuts.iter().enumerate() {
        let mut file = base.clone();
        cut(&mut file);
        assert_eq!(verdict(&file, &trust), Verdict::Refused, "cut {at}");
    }
    let mut longer = base.clone();
    longer.heads[0].entry_proof.push(vec![0; 32]);
    assert_eq!(failed(&longer, &trust), "inclusion");
    let mut empty = base;
    empty.heads.clear();
    assert_eq!(failed(&empty, &trust), "seal-file");
}

#[test]
fn parts_of_two_seals_do_not_mix() {
    let (software, at) = software();
    let (tpm, tpm_at) = tpm();
    let trust = software.trust();
    assert_eq!(trust, tpm.trust(), "one fleet, so that only the parts can tell");
    let (mine, foreign) = (software.seal_file(at, false), tpm.seal_file(tpm_at, true));
    let same_log = software.seal_file(1, false);
    type Swap = fn(&mut SealFile, &SealFile);
    let swaps: [(&str, Swap); 8] = [
        ("origin", |to, from| to.origin.clone_from(&from.origin)),
        ("entry", |to, from| to.entry.clone_from(&from.entry)),
        ("epoch", |to, from| to.epoch.clone_from(&from.epoch)),
        ("enrolment", |to, from| to.enrolment.clone_from(&from.enrolment)),
        ("heads", |to, from| to.heads.clone_from(&from.heads)),
        ("checkpoint", |to, from| to.heads[0].checkpoint.clone_from(&from.heads[0].checkpoint)),
        ("pcrs", |to, from| to.heads[0].pcrs.clone_from(&from.heads[0].pcrs)),
        ("openings", |to, from| to.openings.clone_from(&from.openings)),
    ];
    for (name, swap) in swaps {
        let (mut one, mut other) = (mine.clone(), foreign.clone());
        swap(&mut one, &foreign);
        swap(&mut other, &mine);
        let same = one == mine && other == foreign;
        assert!(!same, "{name} has nothing to swap");
        for file in [&one, &other] {
            let found = judge(file, &trust);
            assert_ne!(found.report.verdict, Verdict::Valid, "{name}:\n{}", found.report);
        }
    }
    for (name, swap) in swaps {
        let mut file = mine.clone();
        swap(&mut file, &same_log);
        let found = judge(&file, &trust);
        if file != mine {
            assert_ne!(found.report.verdict, Verdict::Valid, "{name} within one log:\n{}", found.report);
        }
    }
}

#[test]
fn opening_twice_is_refused() {
    let (log, index) = software();
    let mut file = log.seal_file(index, false);
    file.openings = vec![file.openings[0].clone(), file.openings[0].clone()];
    assert_eq!(failed(&file, &log.trust()), "openings");
    file.openings.clear();
    assert_eq!(verdict(&file, &log.trust()), Verdict::Valid, "erased openings break nothing (G5)");
}

#[test]
fn unknown_kinds_are_not_understood_but_only_with_sound_proofs() {
    let (mut log, _) = software();
    let index = log.append(log.content(77, b"from the future".to_vec()));
    let mut file = log.seal_file(index, false);
    let found = judge(&file, &log.trust());
    assert_eq!(found.report.verdict, Verdict::NotUnderstood, "{}", found.report);
    assert!(found.seal.is_none());
    assert_eq!(found.report.failed().unwrap().name, "body");
    file.heads[0].entry_proof[0][0] ^= 1;
    assert_eq!(verdict(&file, &log.trust()), Verdict::Refused);
    let known = log.append(log.content(Kind::Anchor as u16, b"no seal".to_vec()));
    assert_eq!(verdict(&log.seal_file(known, false), &log.trust()), Verdict::Refused);
}

#[test]
fn members_of_later_versions() {
    let (log, index) = software();
    let mut file = log.seal_file(index, false);
    file.unknown.insert("witnesses".into(), serde_json::json!([{"tsa": "later"}]));
    assert_eq!(verdict(&file, &log.trust()), Verdict::Valid);
    let kept = SealFile::decode(file.encode().as_bytes()).unwrap();
    assert_eq!(kept, file);
    let mut plain = log.seal_file(index, false);
    assert_eq!(plain.upgrade(file.clone()), Some(true));
    assert_eq!(plain.unknown, file.unknown);
    assert_eq!(plain.upgrade(file.clone()), Some(false), "nothing new the second time");

    let critical = file.encode().replacen('{', "{\n  \"critical\": [\"witnesses\"],", 1);
    let found = verify(critical.as_bytes(), &log.trust(), Some(&digest(DOCUMENT)));
    assert_eq!(found.report.verdict, Verdict::NotUnderstood);
    let known = file.encode().replacen('{', "{\n  \"critical\": [\"heads\"],", 1);
    let found = verify(known.as_bytes(), &log.trust(), Some(&digest(DOCUMENT)));
    assert_eq!(found.report.verdict, Verdict::Valid);
    let later = file.encode().replacen("seal/v1", "seal/v2", 1);
    let found = verify(later.as_bytes(), &log.trust(), Some(&digest(DOCUMENT)));
    assert_eq!(found.report.verdict, Verdict::NotUnderstood);
    let twice = file.encode().replacen('{', "{\n  \"openings\": [],", 1);
    let found = verify(twice.as_bytes(), &log.trust(), Some(&digest(DOCUMENT)));
    assert_eq!(found.report.verdict, Verdict::Refused, "two members of one name");
}

#[test]
fn upgrade_adds_evidence_and_refuses_other_entries() {
    let (log, index) = tpm();
    let (mut old, new) = (log.seal_file(index, false), log.seal_file(index, true));
    assert_eq!(judge(&old, &log.trust()).report.facts, [Fact::Sealed]);
    assert_eq!(old.clone().upgrade(log.seal_file(index + 1, true)), None);
    assert_eq!(old.upgrade(new), Some(true));
    assert_eq!(judge(&old, &log.trust()).report.facts, [Fact::Sealed, Fact::Attested]);
    assert_eq!(old.upgrade(log.seal_file(index, false)), Some(false), "an older copy takes nothing away");
}

#[test]
fn a_file_full_of_bare_checkpoints_still_becomes_attested() {
    let (mut log, index) = tpm();
    let mut file = log.seal_file(index, false);
    for _ in 0..20 {
        log.seal(b"more");
        file.upgrade(log.seal_file(index, false)).unwrap();
    }
    assert_eq!(file.heads.len(), HEADS_MAX);
    assert_eq!(file.upgrade(log.seal_file(index, false)), Some(false));
    log.seal(b"more");
    assert_eq!(file.upgrade(log.seal_file(index, true)), Some(true));
    assert_eq!(file.heads.len(), HEADS_MAX);
    assert_eq!(judge(&file, &log.trust()).report.facts, [Fact::Sealed, Fact::Attested]);
}

#[test]
fn policy_is_judged_last_and_by_name() {
    let (log, index) = software();
    let file = log.seal_file(index, false);
    let mut trust = log.trust();
    trust.policy.accept_software = false;
    let found = judge(&file, &trust);
    assert_eq!(found.report.verdict, Verdict::PolicyUnmet);
    assert!(found.seal.is_some(), "genuine all the same");
    let mut trust = log.trust();
    trust.policy.require_facts = vec!["sealed".into()];
    assert_eq!(verdict(&file, &trust), Verdict::Valid);
    trust.policy.require_facts.push("attested".into());
    assert_eq!(verdict(&file, &trust), Verdict::PolicyUnmet);
    let (log, index) = tpm();
    let mut trust = log.trust();
    trust.policy.accept_software = false;
    trust.policy.require_facts = vec!["sealed".into(), "attested".into()];
    assert_eq!(verdict(&log.seal_file(index, true), &trust), Verdict::Valid);
    assert_eq!(verdict(&log.seal_file(index, false), &trust), Verdict::PolicyUnmet);
}

#[test]
fn g8_boot_state_is_judged_by_the_references() {
    let (log, index) = tpm();
    let file = log.seal_file(index, true);
    let boot = |trust: &TrustFile| {
        let found = judge(&file, trust).report;
        let check = found.checks.iter().find(|check| check.name == "boot-state").unwrap().clone();
        (check.outcome, found.facts.contains(&Fact::Attested), found.verdict)
    };
    let mut trust = log.trust();
    assert_eq!(boot(&trust), (Outcome::NotJudged, true, Verdict::Valid));
    trust.references = vec![
        Reference { name: "image 1".into(), pcrs: vec![(0, [1; 32])] },
        Reference { name: "image 2".into(), pcrs: log.pcrs[..2].to_vec() },
    ];
    assert_eq!(boot(&trust), (Outcome::Passed, true, Verdict::Valid));
    trust.references.pop();
    assert_eq!(boot(&trust), (Outcome::NotJudged, false, Verdict::Valid));
    trust.policy.require_facts = vec!["attested".into()];
    assert_eq!(boot(&trust).2, Verdict::PolicyUnmet);
}

#[test]
fn only_the_fleet_root_of_the_trust_file_counts() {
    let (log, index) = software();
    let file = log.seal_file(index, false);
    let mut trust = log.trust();
    trust.roots = vec![[7; 32]];
    assert_eq!(failed(&file, &trust), "enrolment");
    let mut trust = log.trust();
    trust.fleet = "other.example".into();
    assert_eq!(failed(&file, &trust), "enrolment");
}

#[test]
fn arbitrary_json_never_panics() {
    let (log, index) = software();
    let file = log.seal_file(index, false).encode();
    for replacement in ["null", "[]", "{}", "-1", "1e400", "\"\"", "\"AA==\"", "[[[]]]", "[null]"] {
        let value: serde_json::Value = serde_json::from_str(&file).unwrap();
        for name in value.as_object().unwrap().keys() {
            let start = file.find(&format!("\"{name}\": ")).unwrap() + name.len() + 4;
            let rest = &file[start..];
            let end = rest.find(",\n  \"").unwrap_or(rest.rfind("\n}").unwrap());
            let changed = format!("{}{replacement}{}", &file[..start], &rest[end..]);
            let found = verify(changed.as_bytes(), &log.trust(), Some(&digest(DOCUMENT)));
            assert!(
                found.seal.is_none() || (name == "openings" && replacement == "[]"),
                "{name} = {replacement}"
            );
        }
    }
}

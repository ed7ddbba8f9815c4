//! G6 on real evidence: a seal made by a box on a real TPM, and a change of any byte of what it decodes to.

use anyhow::{Context, Result};
use bulla_formats::json::base64_decode;
use bulla_formats::json::base64_encode;
use bulla_formats::report::{Fact, Verdict};
use bulla_formats::seal_file::{Head, SealFile};
use bulla_tests::rig::{Rig, RigOptions, Role};

const DOCUMENT: &[u8] = b"%PDF-1.7 the agreement";

/// An attested seal with openings, made by a box with this residency.
fn real_seal(residency: &str) -> Result<(Rig, SealFile)> {
    let rig = Rig::start_with(&RigOptions { residency, ..RigOptions::default() })?;
    let headers = [
        ("Content-Type", "application/pdf"),
        ("Bulla-User", "teller 7"),
        ("Bulla-Document-Id", "2026-004711"),
        ("Bulla-Metadata", "desk=3"),
    ];
    let scanner = rig.client(Role::Scanner);
    let answer = scanner.post("/v1/seals?wait=attested&deadlineSeconds=30", &headers, DOCUMENT)?;
    anyhow::ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    let location = answer.location.clone().context("a new seal has a location")?;
    let newest = scanner.get(&format!("{location}/seal-file"))?.seal()?;
    let mut seal = answer.seal()?;
    seal.upgrade(newest).context("both are of one entry")?;
    let judged = rig.judge(&seal, DOCUMENT);
    assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
    assert!(judged.report.facts.contains(&Fact::Attested), "{}", judged.report);
    assert_eq!(seal.openings.len(), 3);
    Ok((rig, seal))
}

/// Every file that differs from `seal` in one byte of `part`.
fn flips(seal: &SealFile, part: fn(&mut SealFile) -> &mut Vec<u8>) -> impl Iterator<Item = SealFile> {
    let mut model = seal.clone();
    let length = part(&mut model).len();
    (0..length).map(move |at| {
        let mut changed = model.clone();
        part(&mut changed)[at] ^= 1 << (at % 8);
        changed
    })
}

fn refuse_all(rig: &Rig, what: &str, files: impl Iterator<Item = SealFile>) -> usize {
    let mut count = 0;
    for file in files {
        let judged = rig.judge(&file, DOCUMENT);
        assert_eq!(judged.report.verdict, Verdict::Refused, "{what}, change {count}: {}", judged.report);
        assert!(judged.report.failed().is_some(), "{what}: the report names the failed check");
        assert!(judged.seal.is_none());
        count += 1;
    }
    assert!(count > 0, "{what} has bytes");
    count
}

/// One head's checkpoint with one byte changed, in the text and in what each line's base64 decodes to.
fn note_flips(seal: &SealFile, head: usize) -> Vec<SealFile> {
    let note = &seal.heads[head].checkpoint;
    let with = |changed: String| {
        let mut file = seal.clone();
        file.heads[head].checkpoint = changed;
        file
    };
    let mut all = Vec::new();
    for (at, byte) in note.bytes().enumerate() {
        // Text flips that leave UTF-8 are no JSON string any more; the ASCII ones are all tried.
        if byte.is_ascii() {
            let mut bytes = note.clone().into_bytes();
            bytes[at] ^= 1 << (at % 7);
            if let Ok(text) = String::from_utf8(bytes) {
                all.push(with(text));
            }
        }
    }
    for line in note.lines().filter(|line| line.starts_with('\u{2014}')) {
        let encoded = line.rsplit(' ').next().unwrap_or_default();
        let raw = base64_decode(encoded).expect("a note's lines are base64");
        for at in 0..raw.len() {
            let mut changed = raw.clone();
            changed[at] ^= 1 << (at % 8);
            all.push(with(note.replace(encoded, &base64_encode(&changed))));
        }
    }
    all
}

fn every_byte(residency: &str) -> Result<()> {
    let (rig, seal) = real_seal(residency)?;
    let mut count = 0;
    count += refuse_all(&rig, "token", flips(&seal, |file| &mut file.entry));
    count += refuse_all(&rig, "key-epoch entry", flips(&seal, |file| &mut file.epoch));
    count += refuse_all(&rig, "enrolment", flips(&seal, |file| &mut file.enrolment));
    for opening in 0..seal.openings.len() {
        let parts: [fn(&mut SealFile) -> &mut Vec<u8>; 3] =
            [|file| &mut file.openings[0], |file| &mut file.openings[1], |file| &mut file.openings[2]];
        count += refuse_all(&rig, "opening", flips(&seal, parts[opening]));
    }
    for head in 0..seal.heads.len() {
        count += refuse_all(&rig, "checkpoint", note_flips(&seal, head).into_iter());
        let change_head = |change: &mut dyn FnMut(&mut Head)| {
            let mut file = seal.clone();
            change(&mut file.heads[head]);
            file
        };
        let mut changed = Vec::new();
        for (path, length) in
            [(0, seal.heads[head].entry_proof.len()), (1, seal.heads[head].epoch_proof.len())]
        {
            for (hash, byte) in (0..length).flat_map(|hash| (0..32).map(move |byte| (hash, byte))) {
                changed.push(change_head(&mut |head| {
                    let proof = if path == 0 { &mut head.entry_proof } else { &mut head.epoch_proof };
                    proof[hash][byte] ^= 1 << (byte % 8);
                }));
            }
        }
        for pcr in 0..seal.heads[head].pcrs.as_ref().map_or(0, Vec::len) {
            for byte in 0..32 {
                changed.push(change_head(&mut |head| {
                    if let Some(pcrs) = &mut head.pcrs {
                        pcrs[pcr].1[byte] ^= 1 << (byte % 8);
                    }
                }));
            }
        }
        count += refuse_all(&rig, "paths and PCR values", changed.into_iter());
    }
    println!("{residency}: {count} files with one byte changed, all refused with a named check");
    Ok(())
}

#[test]
fn g6_any_changed_byte_of_a_real_seal_is_refused() -> Result<()> {
    every_byte("tpm-endorsed-ram")
}

#[test]
fn g6_any_changed_byte_of_a_seal_signed_in_the_tpm_is_refused() -> Result<()> {
    every_byte("tpm")
}

//! How many `.seal` files one core verifies, against bare Ed25519 verification in the same run.
//!
//! Seals are real ones of a running box, with their documents. Every verification is complete: document digest
//! compared, enrolment, epoch, token, paths, checkpoint, and quotes where there are any. Where a verifier remembers what
//! seals share, the seals are of many documents sealed by many clients at once, so that they come in batches.

use crate::figures::median_of;
use anyhow::{Context, Result, ensure};
use bulla_formats::audit::LogAuditor;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher};
use bulla_formats::entry::Entry;
use bulla_formats::origin::Origin;
use bulla_formats::seal_file::SealFile;
use bulla_formats::verify::{Verifier, verify};
use bulla_tests::rig::{Client, Rig, Role, account};
use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::Verifier as _;
use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_millis(400);
const ROUNDS: usize = 5;
/// Clients that seal at the same time, and documents of each.
const CLIENTS: usize = 16;
const DOCUMENTS: usize = 8;

type Sealed = (String, DocumentDigest);

/// Measures and prints the table.
pub fn measure(rig: &Rig) -> Result<()> {
    let scanner = rig.client(Role::Scanner);
    let mut plain = Vec::new();
    let mut attested = Vec::new();
    for number in 0..200 {
        let document = format!("document {number} to be verified").into_bytes();
        let seal = scanner.seal(&document)?.seal()?;
        plain.push((seal.encode(), digest(&document)));
    }
    for number in 0..4 {
        let document = format!("document {number} to be verified with a quote").into_bytes();
        let path = "/v1/seals?wait=attested&deadlineSeconds=60";
        let answer = scanner.post(path, &[("Content-Type", "application/pdf")], &document)?;
        let seal = answer.seal()?;
        attested.push((seal.encode(), digest(&document)));
    }
    let quotes = attested.iter().filter(|(seal, _)| {
        SealFile::decode(seal.as_bytes()).is_ok_and(|file| file.heads.iter().any(|head| head.pcrs.is_some()))
    });
    ensure!(quotes.count() == attested.len(), "the box attests within a minute");

    let batched = batches(rig, "/v1/seals")?;
    let quoted_batches = batches(rig, "/v1/seals?wait=attested&deadlineSeconds=60")?;

    let key = SigningKey::from_bytes(&[9; 32]);
    let message = vec![7u8; 300];
    let signature = key.sign(&message);
    let public = key.verifying_key();
    let chip = p256::ecdsa::SigningKey::from_slice(&[9; 32]).context("a P-256 key")?;
    let quote: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&chip, &message);
    let quoted = *chip.verifying_key();

    let entries = account::entries(&rig.client(Role::Reader))?;
    let origin = Entry::decode(entries.first().context("a log has a beginning")?)?;
    let origin = Origin::parse(&KeyEpochBody::decode(&origin.content().body)?.statement.origin)?;

    let mut rows: [Vec<f64>; 8] = Default::default();
    for _ in 0..ROUNDS {
        rows[0].push(rate(|_| public.verify_strict(&message, &signature).is_ok())?);
        rows[1].push(rate(|_| quoted.verify(&message, &quote).is_ok())?);
        for (row, seals) in [(2, &plain), (3, &attested)] {
            rows[row].push(rate(|turn| {
                let (seal, document) = &seals[turn % seals.len()];
                verify(seal.as_bytes(), rig.trust(), Some(document)).report.verdict.exit_code() == 0
            })?);
        }
        // As a hub goes through a log: each entry read ahead under the key in force, then judged in its turn.
        let mut auditor = LogAuditor::new(origin.clone(), Some(rig.trust()));
        rows[7].push(rate(|turn| {
            let at = turn % entries.len();
            if at == 0 {
                auditor = LogAuditor::new(origin.clone(), Some(rig.trust()));
            }
            let ahead = auditor.read_ahead(&entries[at]);
            auditor.take(ahead).is_ok()
        })?);
        for (row, seals) in [(4, &plain), (5, &batched), (6, &quoted_batches)] {
            // One verifier for the whole round; what it remembers of a checkpoint it has from an earlier seal.
            let mut verifier = Verifier::new(rig.trust());
            rows[row].push(rate(|turn| {
                let at = turn % seals.len();
                if row == 4 && at == 0 {
                    // Each of these seals has a checkpoint of its own, and shall find it unknown.
                    verifier = Verifier::new(rig.trust());
                }
                let (seal, document) = &seals[at];
                verifier.verify(seal.as_bytes(), Some(document)).report.verdict.exit_code() == 0
            })?);
        }
    }
    let [ed25519, p256, plain, attested, alone, remembered, remembered_attested, audited] =
        rows.map(|row| median_of(row.into_iter()));
    // Enrolment, key-epoch entry, token and checkpoint are Ed25519; the endorsement and each quote are P-256.
    let (plain_floor, attested_floor) =
        (1.0 / (4.0 / ed25519 + 1.0 / p256), 1.0 / (4.0 / ed25519 + 2.0 / p256));
    println!("\nVerification on one core, document compared\n");
    println!("| what | signatures | per second | of its signatures alone | of one raw Ed25519 |");
    println!("|---|---|---|---|---|");
    println!("| raw Ed25519 (strict) | 1 | {ed25519:.0} | 100 % | 100 % |");
    println!("| raw P-256 | 1 | {p256:.0} | 100 % | {:.0} % |", 100.0 * p256 / ed25519);
    for (what, signatures, rate, floor) in [
        ("plain seal", "4 Ed25519 + 1 P-256", plain, plain_floor),
        ("attested seal", "4 Ed25519 + 2 P-256", attested, attested_floor),
    ] {
        println!(
            "| {what} | {signatures} | {rate:.0} | {:.0} % | {:.0} % |",
            100.0 * rate / floor,
            100.0 * rate / ed25519
        );
    }
    for (what, signatures, rate) in [
        ("plain seal, remembered, a checkpoint each".to_owned(), "2 Ed25519", alone),
        (format!("plain seal, remembered, {}", shared(&batched)), "1 Ed25519", remembered),
        (format!("attested seal, remembered, {}", shared(&quoted_batches)), "1 Ed25519", remembered_attested),
    ] {
        println!("| {what} | {signatures} | {rate:.0} | | {:.0} % |", 100.0 * rate / ed25519);
    }
    let what = format!("entry of a whole log of {}, audited as a hub does", entries.len());
    println!("| {what} | 1 Ed25519 | {audited:.0} | | {:.0} % |", 100.0 * audited / ed25519);
    Ok(())
}

/// How many seals there are, and of how many checkpoints.
fn shared(seals: &[Sealed]) -> String {
    let checkpoints: HashSet<Vec<String>> = seals
        .iter()
        .filter_map(|(seal, _)| SealFile::decode(seal.as_bytes()).ok())
        .map(|file| file.heads.into_iter().map(|head| head.checkpoint).collect())
        .collect();
    format!("{} seals of {} checkpoints", seals.len(), checkpoints.len())
}

/// Seals that many clients ask for at the same time, as a branch at noon.
fn batches(rig: &Rig, path: &str) -> Result<Vec<Sealed>> {
    let work = |client: usize| -> Result<Vec<Sealed>> {
        let scanner: Client = rig.client(Role::Scanner);
        (0..DOCUMENTS)
            .map(|number| {
                let document = format!("document {number} of client {client} by {path}").into_bytes();
                let answer = scanner.post(path, &[("Content-Type", "application/pdf")], &document)?;
                Ok((answer.seal()?.encode(), digest(&document)))
            })
            .collect()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..CLIENTS).map(|client| scope.spawn(move || work(client))).collect();
        let mut seals = Vec::new();
        for worker in workers {
            seals.extend(worker.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(seals)
    })
}

fn digest(document: &[u8]) -> DocumentDigest {
    let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
    hasher.update(document);
    hasher.finish()
}

fn rate(mut verify: impl FnMut(usize) -> bool) -> Result<f64> {
    let began = Instant::now();
    let mut done = 0;
    while began.elapsed() < RUN {
        for _ in 0..16 {
            ensure!(verify(done), "a genuine signature or seal is refused");
            done += 1;
        }
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

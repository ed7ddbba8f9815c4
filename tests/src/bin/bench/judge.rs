//! How many `.seal` files one core verifies, against bare Ed25519 verification in the same run.
//!
//! Seals are real ones of a running box, with their documents. Every verification is complete: document digest
//! compared, enrolment, epoch, token, paths, checkpoint, and quotes where there are any.

use crate::figures::median_of;
use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher};
use bulla_formats::seal_file::SealFile;
use bulla_formats::verify::verify;
use bulla_tests::rig::{Rig, Role};
use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::Verifier as _;
use std::time::{Duration, Instant};

const RUN: Duration = Duration::from_millis(400);
const ROUNDS: usize = 5;

/// Measures and prints the table.
pub fn measure(rig: &Rig) -> Result<()> {
    let scanner = rig.client(Role::Scanner);
    let mut plain = Vec::new();
    let mut attested = Vec::new();
    for number in 0..20 {
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

    let key = SigningKey::from_bytes(&[9; 32]);
    let message = vec![7u8; 300];
    let signature = key.sign(&message);
    let public = key.verifying_key();
    let chip = p256::ecdsa::SigningKey::from_slice(&[9; 32]).context("a P-256 key")?;
    let quote: p256::ecdsa::Signature = p256::ecdsa::signature::Signer::sign(&chip, &message);
    let quoted = *chip.verifying_key();

    let mut rows: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        rows[0].push(rate(|_| public.verify_strict(&message, &signature).is_ok())?);
        rows[1].push(rate(|_| quoted.verify(&message, &quote).is_ok())?);
        for (row, seals) in [(2, &plain), (3, &attested)] {
            rows[row].push(rate(|turn| {
                let (seal, document) = &seals[turn % seals.len()];
                verify(seal.as_bytes(), rig.trust(), Some(document)).report.verdict.exit_code() == 0
            })?);
        }
    }
    let [ed25519, p256, plain, attested] = rows.map(|row| median_of(row.into_iter()));
    // Enrolment, key-epoch entry, token and checkpoint are Ed25519; the endorsement and each quote are P-256.
    let (plain_floor, attested_floor) =
        (1.0 / (4.0 / ed25519 + 1.0 / p256), 1.0 / (4.0 / ed25519 + 2.0 / p256));
    println!("\nVerification on one core, document compared, nothing remembered between seals\n");
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
    Ok(())
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

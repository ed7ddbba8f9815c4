//! `cargo xtask bench`: how fast a box seals, as ratios against baselines measured in the same run.
//!
//! Machines are noisy: box and baseline take turns, three times, and each figure is the median of its
//! three runs. Box, load and baselines run at the same scheduling priority, on the same disk.
//! Refuses to do: judge. `docs/performance.md` says what bounds each figure.

mod drain;
mod load;
mod log;

use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_tests::rig::{Rig, RigOptions, Role};
use load::{Measured, Order, Target};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 3;
const RUN: Duration = Duration::from_secs(4);
const CLIENTS: [usize; 3] = [1, 8, 64];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("log", act)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return log::act(act);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ceiling = std::env::current_exe()?.with_file_name("examples").join("group_commit_ceiling");
    ensure!(ceiling.is_file(), "{} is missing; run it through `cargo xtask bench`", ceiling.display());
    let rig = Rig::start()?;
    let tpm = Rig::start_with(&RigOptions { residency: "tpm", ..RigOptions::default() })?;
    println!("{} rounds of {} s each; medians\n", ROUNDS, RUN.as_secs());
    println!("Durable hash-only seals over keep-alive TLS 1.3, one connection a client\n");
    println!("| clients | what | per second | p50 ms | p99 ms | of the ceiling |");
    println!("|---|---|---|---|---|---|");
    for clients in CLIENTS {
        let mut rows: [Vec<Measured>; 3] = Default::default();
        for _ in 0..ROUNDS {
            rows[0].push(run_ceiling(&ceiling, rig.directory(), clients)?);
            rows[1].push(runtime.block_on(load::run(target(&rig)?, Order::Digest, clients, RUN))?);
            rows[2].push(runtime.block_on(load::run(target(&tpm)?, Order::Digest, clients, RUN))?);
        }
        let [ceiling, sealed, signed] = rows.map(median);
        for (what, measured) in [
            ("redb group commit alone (ceiling)", ceiling),
            ("box, tpm-endorsed-ram", sealed),
            ("box, one TPM signature a seal", signed),
        ] {
            println!(
                "| {clients} | {what} | {:.0} | {:.2} | {:.2} | {:.0} % |",
                measured.per_second,
                measured.p50 as f64 / 1_000.0,
                measured.p99 as f64 / 1_000.0,
                100.0 * measured.per_second / ceiling.per_second
            );
        }
    }
    drop(tpm);
    println!("\nUploads, one client\n");
    println!("| size | SHA-256 alone MB/s | TLS drain MB/s | box MB/s | of the slower baseline |");
    println!("|---|---|---|---|---|");
    let (drain_port, drain_pem) = runtime.block_on(drain::start())?;
    let drained = Arc::new(Target {
        port: drain_port,
        token: "none".to_owned(),
        connector: load::connector(drain_pem.as_bytes())?,
    });
    for size in [1_000_000usize, 20_000_000] {
        let mut rows: [Vec<Measured>; 2] = Default::default();
        let mut hashed = Vec::new();
        for _ in 0..ROUNDS {
            hashed.push(hash_rate(size));
            let order = Order::Document(size);
            rows[0].push(runtime.block_on(load::run(drained.clone(), order.clone(), 1, RUN))?);
            rows[1].push(runtime.block_on(load::run(target(&rig)?, order, 1, RUN))?);
        }
        hashed.sort_by(f64::total_cmp);
        let hashed = hashed[ROUNDS / 2];
        let [drained, sealed] = rows.map(|row| median(row).per_second * size as f64 / 1e6);
        println!(
            "| {} MB | {hashed:.0} | {drained:.0} | {sealed:.0} | {:.0} % |",
            size / 1_000_000,
            100.0 * sealed / hashed.min(drained)
        );
    }
    Ok(())
}

fn target(rig: &Rig) -> Result<Arc<Target>> {
    let ca = std::fs::read(rig.file("ca.pem"))?;
    Ok(Arc::new(Target {
        port: rig.sealer.port(),
        token: rig.token(Role::Scanner).to_owned(),
        connector: load::connector(&ca)?,
    }))
}

fn run_ceiling(program: &Path, directory: &Path, clients: usize) -> Result<Measured> {
    let output = Command::new(program)
        .arg(directory)
        .args([clients.to_string(), RUN.as_secs().to_string()])
        .output()
        .context("cannot start the ceiling")?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [per_second, p50, p99] = numbers[..] else {
        anyhow::bail!("the ceiling said {text:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    Ok(Measured { per_second: per_second as f64, p50, p99 })
}

fn median(mut runs: Vec<Measured>) -> Measured {
    let middle = runs.len() / 2;
    let pick = |runs: &mut Vec<Measured>, key: fn(&Measured) -> f64| {
        runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
        key(&runs[middle])
    };
    Measured {
        per_second: pick(&mut runs, |m| m.per_second),
        p50: pick(&mut runs, |m| m.p50 as f64) as u64,
        p99: pick(&mut runs, |m| m.p99 as f64) as u64,
    }
}

/// Megabytes a second of the box's own hash on one core.
fn hash_rate(size: usize) -> f64 {
    let document = vec![0x41; size];
    let began = Instant::now();
    let mut bytes = 0usize;
    while began.elapsed() < RUN / 4 {
        let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
        document.chunks(64 << 10).for_each(|piece| hasher.update(piece));
        std::hint::black_box(hasher.finish());
        bytes += size;
    }
    bytes as f64 / 1e6 / began.elapsed().as_secs_f64()
}

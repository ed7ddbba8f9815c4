//! RFC 3161 tokens: the box, each token a durable seal, against `openssl ts -reply`, which stores nothing.
//!
//! Refuses to do: count a rejection as a token; the box's own counters are looked at afterwards.

use super::load::{self, Measured, Order, Target};
use super::strangers::Signers;
use super::{CLIENTS, DOCUMENTS, ROUNDS, RUN, document, median, sha256};
use anyhow::{Context, Result, ensure};
use bulla_tests::rig::stamp::{self, UNSTATED};
use bulla_tests::rig::{Rig, RigOptions, Role};
use bulla_timestamps::Request;
use std::sync::Arc;
use tokio::runtime::Runtime;

/// The same requests through the box and through openssl.
pub fn measure(runtime: &Runtime, target: fn(&Rig) -> Result<Arc<Target>>) -> Result<()> {
    let rig = Rig::start_with(&RigOptions { extra: UNSTATED, ..RigOptions::default() })?;
    let documents: Vec<Vec<u8>> = (0..DOCUMENTS).map(document).collect();
    let signers = Signers::set_up(&documents)?;
    let query = |(nonce, document): (u64, &Vec<u8>)| -> Result<Vec<u8>> {
        let imprint = sha256(document).try_into().ok().context("a SHA-256 has 32 bytes")?;
        Ok(Request::new(imprint, nonce, None).encode())
    };
    let queries: Vec<Vec<u8>> = (1..).zip(&documents).map(query).collect::<Result<_>>()?;
    stamp::stamp(&rig, &rig.client(Role::Scanner), &documents[0])?;
    let stamps = Order::Stamps(Arc::new(queries));
    let mut rows: Vec<Vec<Measured>> = vec![Vec::new(); 2 * CLIENTS.len() + 1];
    for _ in 0..ROUNDS {
        for (at, clients) in CLIENTS.into_iter().enumerate() {
            rows[2 * at].push(runtime.block_on(load::run(target(&rig)?, stamps.clone(), clients, RUN))?);
            let order = Order::Digest;
            rows[2 * at + 1].push(runtime.block_on(load::run(target(&rig)?, order, clients, RUN))?);
        }
        rows[2 * CLIENTS.len()].push(signers.openssl_ts()?.0);
    }
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let refused: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("bulla_tsa_refusals_total{") && !line.ends_with(" 0"))
        .collect();
    ensure!(refused.is_empty(), "rejections were counted as tokens: {refused:?}");
    println!("\nRFC 3161 time stamps over keep-alive TLS 1.3, one connection a client\n");
    println!("| what | clients | per second | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|");
    let boxes = CLIENTS.into_iter().flat_map(|clients| {
        [("box, RFC 3161 tokens, each a durable seal", clients), ("box, hash-only seals", clients)]
    });
    for ((what, clients), row) in boxes.chain([("openssl ts -reply, nothing stored", 1)]).zip(rows) {
        let measured = median(row);
        println!(
            "| {what} | {clients} | {:.0} | {:.2} | {:.2} |",
            measured.per_second,
            measured.p50 as f64 / 1_000.0,
            measured.p99 as f64 / 1_000.0
        );
    }
    Ok(())
}

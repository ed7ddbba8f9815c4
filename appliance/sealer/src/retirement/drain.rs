//! What is left to do before a log ends, and its final entry.
//!
//! Refuses to do: leave a promised seal unmade; end a log whose last seals nobody has anchored or holds, unless whoever
//! decided has agreed to that.

use super::{Order, ask};
use crate::config::Config;
use crate::driver::{self, Condition, Sealer};
use crate::identity;
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::mirror::MirrorBody;
use bulla_formats::body::operator_action::{Approval, OperatorActionBody, Parameter};
use bulla_formats::der;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::retirement::RETIRE;
use bulla_ledger::Reader;
use std::io::Write;
use std::time::{Duration, Instant};

/// Longest wait for queued requests to be sealed.
const QUEUE_PATIENCE: Duration = Duration::from_secs(300);
/// Most approvals that an entry names.
const APPROVALS_MAX: usize = 16;

/// Seals at the end of a log that are not safe elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Behind the newest head that an authority has anchored.
    pub unanchored: u64,
    /// Behind the newest head that a neighbour holds whole.
    pub unmirrored: u64,
}

/// Counts them, from the newest entry back to what is safe.
pub fn left(reader: &Reader) -> Result<Left> {
    let (mut anchored, mut mirrored) = (None, None);
    let mut left = Left { unanchored: 0, unmirrored: 0 };
    for index in (0..reader.size()).rev() {
        if anchored.is_some_and(|size| index < size) && mirrored.is_some_and(|size| index < size) {
            break;
        }
        let entry = Entry::decode(&reader.entry(index)?)?;
        let body = &entry.content().body;
        match entry.kind() {
            Some(Kind::Anchor) if anchored.is_none() => anchored = Some(AnchorBody::decode(body)?.head.size),
            Some(Kind::Mirror) if mirrored.is_none() => {
                let neighbours = MirrorBody::decode(body)?.neighbours;
                let heads = neighbours.iter().filter_map(|neighbour| neighbour.mirrored.as_ref());
                mirrored = heads.map(|cosigned| cosigned.head.size).max();
            }
            Some(Kind::Seal) => {
                left.unanchored += u64::from(anchored.is_none_or(|size| index >= size));
                left.unmirrored += u64::from(mirrored.is_none_or(|size| index >= size));
            }
            _ => {}
        }
    }
    Ok(left)
}

/// Seals what is queued and writes the final entry; or says what must happen first. Done already is done.
pub fn finish(config: &Config, order: &Order, out: &mut impl Write) -> Result<Option<String>> {
    if ask::open(config)?.has_ended() {
        return Ok(None);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let identity = identity::open(config)?;
    let sealer = driver::start(config, identity)?;
    let result = end(&runtime, &sealer, order, out);
    runtime.block_on(sealer.close());
    result
}

fn end(
    runtime: &tokio::runtime::Runtime,
    sealer: &Sealer,
    order: &Order,
    out: &mut impl Write,
) -> Result<Option<String>> {
    if let Condition::RollbackSuspected { finding } = sealer.status().condition {
        bail!(
            "a rollback is suspected ({finding}), and nothing is added to a log of which another history may exist; bring the \
             newest disk back, or have the fleet take the box out (`bulla-fleet revoke --cause retirement`)"
        );
    }
    let until = Instant::now() + QUEUE_PATIENCE;
    while sealer.requests_waiting() > 0 {
        ensure!(
            Instant::now() < until,
            "{} queued requests are not sealed yet; lift the lock or the trouble that `bulla-box run` tells of, and try again",
            sealer.requests_waiting()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = left(sealer.reader())?;
    let mut waits = Vec::new();
    if left.unanchored > 0 && !order.without_anchors {
        waits.push(format!("{} seal(s) are not anchored", left.unanchored));
    }
    if left.unmirrored > 0 && !order.without_copies {
        waits.push(format!("{} seal(s) are held by no neighbour", left.unmirrored));
    }
    if !waits.is_empty() {
        return Ok(Some(format!(
            "{}; start the box (`bulla-box run`), which takes no new seals and sees to that, then run this again; or have \
             it approved that it goes without",
            waits.join(", and ")
        )));
    }
    let index = runtime.block_on(sealer.log_end(&body(order, left)?))?;
    writeln!(out, "entry {index} ends the log")?;
    Ok(None)
}

fn body(order: &Order, left: Left) -> Result<OperatorActionBody> {
    let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
    let mut parameters = vec![
        parameter("extent", order.extent().name().to_owned()),
        parameter("unanchored", left.unanchored.to_string()),
        parameter("unmirrored", left.unmirrored.to_string()),
    ];
    let change = order.change().context("the decision is damaged")?;
    let mut approvals = Vec::new();
    if let Some(change) = change {
        parameters.push(parameter("action", change.action.hash().to_string()));
        parameters.push(parameter("roster", change.action.roster.number.to_string()));
        if change.action.overriding {
            parameters.push(parameter("overriding", "true".to_owned()));
        }
        let all = change.approvals.into_iter().take(APPROVALS_MAX);
        approvals = all.map(|one| Approval { operator: one.key, signature: one.signature }).collect();
    }
    let body =
        OperatorActionBody { action: RETIRE.to_owned(), parameters, reason: order.reason.clone(), approvals };
    OperatorActionBody::decode(&der::encode(&body)).context("the final entry cannot be made")?;
    Ok(body)
}

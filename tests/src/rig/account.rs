//! The account of receipts: everything a box ever promised, held against what it has.
//!
//! - After a restart: the box seals again with no alarm, every receipt's leaf hash is at its index, the newest
//!   receipts are found by their id, and requests that got no answer give exactly one seal when repeated.
//! - At the end: the log is read entry by entry over HTTP and judged without the box, then stopped and given to
//!   `fsck`, then every `.seal` to the verifier.
//!
//! Refuses to do: take samples of what can be checked completely.

use super::load::{Harvest, Load, Order, Receipt, Refusal};
use super::{Client, Rig, Role};
use anyhow::{Context, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::report::Verdict;
use bulla_formats::tile::{TileCoordinate, parse_entries, parse_hashes, width_at};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Everything a box promised.
#[derive(Default)]
pub struct Account {
    receipts: Vec<Receipt>,
    /// Receipts from here on have not been asked for by id yet.
    fresh: usize,
    /// Requests with a key that got no answer.
    open: Vec<Order>,
    /// Requests that were told that nothing was sealed.
    refused: Vec<Order>,
    /// Requests that were open and have been answered when repeated.
    retried: usize,
    /// How long the restarts took.
    restarts: Vec<Duration>,
}

/// What the final check found.
#[derive(Debug)]
pub struct Balance {
    /// Receipts, all of them found, unique and valid.
    pub receipts: usize,
    /// Requests repeated after a broken connection, all sealed exactly once.
    pub retried: usize,
    /// Entries in the log.
    pub entries: u64,
    /// Longest restart.
    pub slowest_restart: Duration,
    /// Incidents in the log.
    pub incidents: Vec<IncidentBody>,
}

impl Account {
    /// Receipts so far.
    pub fn len(&self) -> usize {
        self.receipts.len()
    }

    /// Whether nothing was promised yet.
    pub fn is_empty(&self) -> bool {
        self.receipts.is_empty()
    }

    /// Enters what became of a load; gives back its refusals.
    pub fn enter(&mut self, harvest: Harvest) -> Vec<Refusal> {
        self.receipts.extend(harvest.receipts);
        self.open.extend(harvest.unanswered.into_iter().filter(|order| order.key.is_some()));
        for refusal in &harvest.refusals {
            match refusal.problem.as_str() {
                // "It is not known to have been sealed": an open question like a broken connection.
                "internal" if refusal.order.key.is_some() => self.open.push(refusal.order.clone()),
                "internal" => {}
                _ => self.refused.push(refusal.order.clone()),
            }
        }
        harvest.refusals
    }

    /// Enters receipts of which nobody can tell whether they had to survive; returns how many did not.
    pub fn enter_if_there(&mut self, rig: &Rig, receipts: Vec<Receipt>) -> Result<usize> {
        let leaves = leaves(&rig.client(Role::Reader))?;
        let is_there = |receipt: &Receipt| leaves.get(receipt.index as usize) == Some(&receipt.leaf);
        let (there, gone): (Vec<_>, Vec<_>) = receipts.into_iter().partition(is_there);
        self.receipts.extend(there);
        Ok(gone.len())
    }

    /// A load of `threads` scanners for `time`, which nothing may refuse and no connection may break.
    pub fn undisturbed(&mut self, rig: &Rig, threads: usize, label: &str, time: Duration) -> Result<()> {
        let load = Load::start(rig, threads, label);
        std::thread::sleep(time);
        let harvest = load.finish()?;
        ensure!(harvest.unanswered.is_empty(), "connections broke: {:?}", harvest.unanswered);
        ensure!(harvest.refusals.is_empty(), "refused: {:?}", harvest.refusals);
        self.enter(harvest);
        Ok(())
    }

    /// Starts the box again and holds it against the account.
    pub fn restart(&mut self, rig: &mut Rig) -> Result<()> {
        let began = Instant::now();
        rig.sealer.start()?;
        self.restarts.push(began.elapsed());
        let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
        ensure!(status["condition"]["state"] == "sealing", "a false alarm: {status}");
        self.check(rig).with_context(|| format!("the end of the box's log:\n{}", last_lines(&rig.log(), 20)))
    }

    /// Holds the running box against the account.
    pub fn check(&mut self, rig: &Rig) -> Result<()> {
        let reader = rig.client(Role::Reader);
        let leaves = leaves(&reader)?;
        for receipt in &self.receipts {
            let found = leaves.get(receipt.index as usize);
            ensure!(
                found == Some(&receipt.leaf),
                "LOST: the box handed out {} and has {found:?} there, of {} entries",
                receipt.id,
                leaves.len()
            );
        }
        let scanner = rig.client(Role::Scanner);
        for receipt in &self.receipts[self.fresh..] {
            let answer = scanner.get(&format!("/v1/seals/{}", receipt.id))?;
            ensure!(answer.status == 200, "LOST: {} is {}", receipt.id, answer.status);
            ensure!(answer.json()?["leafHash"] == receipt.leaf.to_string(), "{} has changed", receipt.id);
            let (now, then) = (answer.seal()?.openings, receipt.answer.seal()?.openings);
            ensure!(now == then, "LOST: openings of {}: {} of {}", receipt.id, now.len(), then.len());
        }
        self.fresh = self.receipts.len();
        self.repeat(&scanner)
    }

    /// The box answers for what it has, whether it seals or not.
    pub fn check_readable(&self, rig: &Rig) -> Result<()> {
        let lost = self.missing(&leaves(&rig.client(Role::Reader))?);
        ensure!(lost == 0, "{lost} receipts are not to be had");
        Ok(())
    }

    /// How many receipts a log with these leaves does not have.
    pub fn missing(&self, leaves: &[Hash]) -> usize {
        let has = |receipt: &&Receipt| leaves.get(receipt.index as usize) == Some(&receipt.leaf);
        self.receipts.len() - self.receipts.iter().filter(has).count()
    }

    /// Requests without an answer are sent again, twice; of those that had one, the newest.
    fn repeat(&mut self, scanner: &Client) -> Result<()> {
        for order in std::mem::take(&mut self.open) {
            let first = Receipt::read(order.clone(), order.send(scanner)?)?;
            replays(&first, scanner)?;
            self.receipts.push(first);
            self.retried += 1;
        }
        match self.receipts.iter().rev().find(|receipt| receipt.order.key.is_some()) {
            Some(receipt) => replays(receipt, scanner),
            None => Ok(()),
        }
    }

    /// The final check. The box must run; it is stopped by this.
    pub fn close(mut self, rig: &mut Rig) -> Result<Balance> {
        self.check(rig)?;
        let entries = entries(&rig.client(Role::Reader))?;
        let incidents = self.judge_entries(&entries)?;
        rig.sealer.stop()?;
        let fsck = rig.fsck()?;
        ensure!(fsck.contains("clean: "), "{fsck}");
        self.judge_seals(rig)?;
        Ok(Balance {
            receipts: self.receipts.len(),
            retried: self.retried,
            entries: entries.len() as u64,
            slowest_restart: self.restarts.iter().max().copied().unwrap_or_default(),
            incidents,
        })
    }

    /// Indexes without gaps; one entry for each receipt and one receipt for each entry; one seal for each digest;
    /// none for what was refused.
    fn judge_entries(&self, entries: &[Vec<u8>]) -> Result<Vec<IncidentBody>> {
        let mut digests: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
        let mut incidents = Vec::new();
        for (bytes, index) in entries.iter().zip(0u64..) {
            let entry = Entry::decode(bytes)?;
            let content = entry.content();
            ensure!(content.index == index, "entry {index} says that it is entry {}", content.index);
            match entry.kind() {
                Some(Kind::Seal) => {
                    let digest = SealBody::decode(&content.body)?.digest.to_vec();
                    digests.entry(digest).or_default().push(index);
                }
                Some(Kind::Incident) => incidents.push(IncidentBody::decode(&content.body)?),
                _ => {}
            }
        }
        let mut owners = HashMap::new();
        for receipt in &self.receipts {
            let bytes = entries.get(receipt.index as usize).context("a receipt beyond the log's end")?;
            ensure!(leaf_hash(bytes) == receipt.leaf, "entry {} is not the receipt's", receipt.index);
            let other = owners.insert(receipt.index, &receipt.id);
            ensure!(other.is_none(), "{other:?} and {} share an index", receipt.id);
            let sealed = &digests[receipt.order.digest().0.as_slice()];
            ensure!(sealed == &[receipt.index], "one request, sealed as {sealed:?}: {:?}", receipt.order);
        }
        let twice = digests.values().find(|indexes| indexes.len() > 1);
        ensure!(twice.is_none(), "one document, sealed as {twice:?}");
        for order in &self.refused {
            let sealed = digests.get(order.digest().0.as_slice());
            ensure!(sealed.is_none(), "refused as not sealed, and sealed as {sealed:?}: {order:?}");
        }
        Ok(incidents)
    }

    /// Every `.seal` that was handed out, by the trust file alone.
    fn judge_seals(&self, rig: &Rig) -> Result<()> {
        let half = self.receipts.len().div_ceil(2).max(1);
        std::thread::scope(|scope| {
            let judges: Vec<_> = self
                .receipts
                .chunks(half)
                .map(|receipts| {
                    scope.spawn(move || receipts.iter().try_for_each(|receipt| judge(rig, receipt)))
                })
                .collect();
            judges.into_iter().try_for_each(|judge| judge.join().ok().context("a judge panicked")?)
        })
    }
}

fn judge(rig: &Rig, receipt: &Receipt) -> Result<()> {
    let report = rig.judge(&receipt.answer.seal()?, &receipt.order.document).report;
    ensure!(report.verdict == Verdict::Valid, "the seal of {} does not hold:\n{report}", receipt.id);
    Ok(())
}

fn replays(receipt: &Receipt, scanner: &Client) -> Result<()> {
    let again = Receipt::read(receipt.order.clone(), receipt.order.send(scanner)?)?;
    ensure!(again.replayed && again.id == receipt.id, "{} was repeated as {}", receipt.id, again.id);
    Ok(())
}

/// The end of a text.
pub fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Size of the log, from its checkpoint.
pub fn size(client: &Client) -> Result<u64> {
    let answer = client.get("/checkpoint")?;
    ensure!(answer.status == 200, "no checkpoint: {}", String::from_utf8_lossy(&answer.body));
    let text = String::from_utf8(answer.body)?;
    text.lines().nth(1).and_then(|line| line.parse().ok()).context("a checkpoint's second line is the size")
}

/// All leaf hashes.
pub fn leaves(client: &Client) -> Result<Vec<Hash>> {
    let mut leaves = Vec::new();
    tiles(client, |client, index, width| {
        let tile = fetch(client, &TileCoordinate::hashes(0, index, width)?)?;
        leaves.extend(parse_hashes(&tile, width).context("a tile of another width")?);
        Ok(())
    })?;
    Ok(leaves)
}

/// All entries.
pub fn entries(client: &Client) -> Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    tiles(client, |client, index, width| {
        let bundle = fetch(client, &TileCoordinate::entries(index, width)?)?;
        entries.extend(parse_entries(&bundle, width)?.into_iter().map(<[u8]>::to_vec));
        Ok(())
    })?;
    Ok(entries)
}

fn tiles(client: &Client, mut visit: impl FnMut(&Client, u64, u16) -> Result<()>) -> Result<()> {
    let size = size(client)?;
    for index in 0.. {
        match width_at(0, index, size) {
            0 => break,
            width => visit(client, index, width)?,
        }
    }
    Ok(())
}

fn fetch(client: &Client, tile: &TileCoordinate) -> Result<Vec<u8>> {
    let answer = client.get(&format!("/{}", tile.path()))?;
    ensure!(answer.status == 200, "{}: {}", tile.path(), String::from_utf8_lossy(&answer.body));
    Ok(answer.body)
}

//! One log pulled: fetched, verified, archived, indexed, a step at a time.
//!
//! **Order of a step**: a few bundles at a time, entries judged and proven to lead to a head that the log key signed → their
//! bundles and full tiles put → (at the head: unfilled ones put) → settled → one transaction of the index: progress, rows,
//! findings, audit → at the head: checkpoint put, unfilled tiles of older heads removed. A death at any arrow leaves an
//! archive whose checkpoint is covered by its tiles, and an index that is not ahead of them; the next pull does the rest
//! again and gets the same bytes. Nothing is put before it is proven: a bucket keeps what it has.
//!
//! Refuses to do: take what no signed head covers; go on with a log that has forked; stop at a bad entry.
//! Invariants: what a step adds is consistent with everything archived before it; entries of at most eight bundles are in
//! memory.

mod heads;

use crate::archive::{ArchiveError, ArchivedLog};
use crate::config::BoxConfig;
use crate::finding::{Finding, Kind};
use crate::handing::hand_over;
use crate::hub::{Hub, HubError, now_millis};
use crate::index::{LogState, Rows};
use crate::judge::Judge;
use crate::source::{Source, SourceError};
use crate::tiles::{Growing, Tiles, encode, unfilled};
use bulla_formats::audit::{LogAuditor, ReadAhead};
use bulla_formats::enrolment::VerifiedEnrolment;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::merkle::{BuildError, HashReader, consistency_proof, verify_consistency};
use bulla_formats::note::Checkpoint;
use bulla_formats::origin::Origin;
use bulla_formats::tile::{TileCoordinate, push_entry, width_at};
use indicatif::ProgressBar;
use serde_json::Value;
use std::time::Duration;

/// Bundles fetched, verified and put together: at most twice 8 * 16 MiB in memory, 4 MiB as a rule.
const WINDOW: u64 = 8;

/// Why a step did not come about.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The hub's own disk: nothing else can be pulled either.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The source gave nothing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What the source gave does not lead to the head it gave.
    #[error("{0}")]
    Unproven(String),
}

macro_rules! from_hub {
    ($($error:ty),*) => {
        $(impl From<$error> for StepError {
            fn from(error: $error) -> Self {
                StepError::Hub(error.into())
            }
        })*
    };
}
from_hub!(crate::archive::ArchiveError, crate::index::IndexError);

/// A head to pull up to, and where from.
struct Target {
    source: usize,
    note: String,
    head: Checkpoint,
}

/// How a pull of a box ended.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Entries archived, in all.
    pub size: u64,
    /// Of them, new ones.
    pub new: u64,
    /// Whether some source gave a head that could be verified.
    pub reached: bool,
    /// Entries under the newest of those heads.
    pub newest: u64,
    /// What went wrong, source by source.
    pub trouble: Vec<String>,
    /// Why nothing is taken from this log any more.
    pub frozen: Option<String>,
    /// Findings that are new.
    pub findings: Vec<Value>,
}

/// Whether a pull wants another turn.
pub enum Turn {
    /// There is more to pull.
    Again,
    /// It is over.
    Done,
}

/// A pull of one box.
pub struct Pull<'a> {
    hub: &'a Hub,
    /// The box.
    pub branch: &'a BoxConfig,
    id: u32,
    origin: Origin,
    log: ArchivedLog,
    sources: Vec<Source>,
    enrolment: Option<VerifiedEnrolment>,
    state: LogState,
    auditor: LogAuditor,
    growing: Growing,
    target: Option<Target>,
    /// Sources that have failed in this pull.
    failed: Vec<usize>,
    /// What has come of it so far.
    pub outcome: Outcome,
    /// The bar of this pull, once there is something to pull.
    pub bar: Option<ProgressBar>,
}

impl Outcome {
    /// Whether all that is signed is archived.
    pub fn is_complete(&self) -> bool {
        self.frozen.is_none() && self.reached && self.size >= self.newest
    }
}

impl<'a> Pull<'a> {
    /// Takes up where the last pull of this box ended.
    pub fn new(hub: &'a Hub, branch: &'a BoxConfig) -> Result<Self, HubError> {
        let origin = branch.origin().map_err(|error| HubError::Contradiction(error.to_string()))?;
        let id = hub.index.id(origin.as_str())?;
        let log = hub.archive.log(origin.as_str());
        let mut outcome = Outcome::default();
        let timeout = Duration::from_secs(hub.config.pull.timeout_seconds);
        let mut sources = Vec::new();
        for source in &branch.sources {
            match Source::new(source, origin.as_str(), timeout, hub.room.as_ref()) {
                Ok(source) => sources.push(source),
                Err(error) => outcome.trouble.push(error.to_string()),
            }
        }
        let auditor = LogAuditor::new(origin.clone(), Some(&hub.trust));
        let (state, growing) = (LogState::default(), Growing::default());
        let (target, failed, bar, enrolment) = (None, Vec::new(), None, None);
        let mut pull = Pull {
            hub,
            branch,
            id,
            origin,
            log,
            sources,
            enrolment,
            state,
            auditor,
            growing,
            target,
            failed,
            outcome,
            bar,
        };
        pull.reload()?;
        pull.outcome.size = pull.state.progress;
        pull.outcome.frozen.clone_from(&pull.state.frozen);
        Ok(pull)
    }

    /// Goes back to what is durable.
    fn reload(&mut self) -> Result<(), HubError> {
        self.state = self.hub.index.state(self.id)?;
        self.auditor = match self.hub.index.audit(self.id)? {
            None => LogAuditor::new(self.origin.clone(), Some(&self.hub.trust)),
            Some((saved, boundaries)) => {
                LogAuditor::resume(self.origin.clone(), Some(&self.hub.trust), &saved, boundaries).map_err(
                    |error| {
                        let origin = &self.origin;
                        let words = format!(
                            "the pull of {origin} cannot be taken up: {error}; check that the trust file is that of its fleet"
                        );
                        HubError::Contradiction(words)
                    },
                )?
            }
        };
        if self.auditor.size() != self.state.progress {
            let words = format!("the index contradicts itself about {}; make it again", self.origin);
            return Err(HubError::Contradiction(words));
        }
        let log = &self.log;
        self.growing =
            Growing::resume(self.state.progress, |level, index, width| log.hashes(level, index, width))?;
        Ok(())
    }

    /// Does the next piece of work: finds a head, or pulls a step towards it.
    pub fn turn(&mut self) -> Result<Turn, HubError> {
        if self.state.frozen.is_some() {
            self.outcome.reached = true;
            return self.end();
        }
        let Some(target) = self.target.take() else {
            self.settle_checkpoint()?;
            self.choose()?;
            return match &self.target {
                Some(target) => {
                    self.outcome.newest = self.outcome.newest.max(target.head.size());
                    Ok(Turn::Again)
                }
                None => self.end(),
            };
        };
        match self.step(&target) {
            Ok(()) if self.state.progress == target.head.size() => self.end(),
            Ok(()) => {
                self.target = Some(target);
                Ok(Turn::Again)
            }
            Err(StepError::Hub(error)) => Err(error),
            Err(error) => {
                self.reload()?;
                self.distrust(&target, &error)?;
                // Another source may have it.
                Ok(Turn::Again)
            }
        }
    }

    fn end(&mut self) -> Result<Turn, HubError> {
        self.outcome.size = self.state.progress;
        self.outcome.frozen.clone_from(&self.state.frozen);
        let mut overdue = crate::overdue::findings(
            self.origin.as_str(),
            &self.state,
            self.auditor.open_outage(),
            &self.hub.config.watch,
            now_millis(),
        );
        let origin = self.origin.as_str();
        overdue.extend(crate::overdue::revoked(origin, self.state.progress, &self.hub.trust));
        self.outcome.findings.extend(self.hub.index.found(&overdue, now_millis())?);
        // A box that does not answer is not asked again, and nobody answers for a log with two histories.
        let mut sources = self.sources.iter().enumerate();
        let own = sources.find(|(place, source)| source.is_own() && !self.failed.contains(place));
        if let (Some((_, source)), None) = (own, &self.outcome.frozen) {
            self.outcome.trouble.extend(hand_over(self.hub, self.branch, source));
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        Ok(Turn::Done)
    }

    /// The order of the archive, made good after a death between the index and the checkpoint.
    fn settle_checkpoint(&mut self) -> Result<(), HubError> {
        if let Some(head) = &self.state.head
            && self.log.get("checkpoint")?.as_deref() != Some(head.as_bytes())
        {
            self.log.put("origin", format!("{}\n", self.origin))?;
            self.put_head(head)?;
            self.hub.archive.settle()?;
        }
        self.sweep()
    }

    /// Removes unfilled tiles of heads that are no longer the archived one.
    fn sweep(&mut self) -> Result<(), HubError> {
        let head = self.head()?.map_or(0, |(_, head)| head.size());
        let kept = unfilled(head);
        for size in &self.state.sweep {
            for coordinate in unfilled(*size).iter().filter(|coordinate| !kept.contains(coordinate)) {
                self.log.archive().delete(&self.log.key(&coordinate.path()))?;
            }
        }
        Ok(())
    }

    fn step(&mut self, target: &Target) -> Result<(), StepError> {
        let source = self.sources[target.source].clone();
        let (from, size) = (self.state.progress, target.head.size());
        let stride = 256 * self.hub.config.pull.step_bundles;
        let end = size.min((from / stride + 1).saturating_mul(stride));
        let origin = self.origin.to_string();
        let log = self.log.clone();
        let evidence =
            |index: u64, leaf: &Hash| log.evidence_key(&format!("entry-{index}-{}", &leaf.to_string()[..16]));
        let mut judge = Judge::new(&self.hub.trust, &origin, &evidence);
        let mut state = self.state.clone();
        let mut unfinished = None;
        let mut bad = Vec::new();
        let tiles = Tiles::new(size, |level, index, width| source.hashes(level, index, width));
        let mut first = from / 256;
        while first * 256 < end {
            let mut proven: Vec<(String, Vec<u8>)> = Vec::new();
            let last = (first + WINDOW).min(end.div_ceil(256));
            let bundles = fetch(&source, first..last, end)?;
            let read = self.read_ahead(&bundles);
            for ((number, bundle), read) in (first..last).zip(&bundles).zip(read) {
                let known = from.saturating_sub(number * 256) as usize;
                if known > 0 && self.log.entries(number, known as u16)?[..] != bundle[..known] {
                    let words = format!(
                        "entries of bundle {number} are not those that {} served before",
                        self.origin
                    );
                    return Err(StepError::Unproven(words));
                }
                for (entry, ahead) in bundle.iter().zip(read).skip(known) {
                    let (index, leaf) = (self.auditor.size(), ahead.leaf_hash());
                    let judged = self.auditor.take(ahead);
                    let kept = judge.entry(index, leaf, judged, &self.auditor, &mut state);
                    bad.extend(kept.map(|key| (key, entry.clone())));
                    for (level, tile, hashes) in self.growing.push(leaf) {
                        let coordinate = TileCoordinate::hashes(level, tile, 256).map_err(impossible)?;
                        proven.push((coordinate.path(), encode(&hashes)));
                    }
                }
                if bundle.len() == 256 {
                    proven.push(encode_bundle(number, bundle)?);
                } else {
                    unfinished = Some(encode_bundle(number, bundle)?);
                }
            }
            self.prove(&tiles, source.base(), &target.head)?;
            self.put_all(proven, source.base())?;
            if let Some(bar) = &self.bar {
                bar.set_position(self.auditor.size());
            }
            first = last;
        }
        if from == end {
            // A head over what is there already.
            self.prove(&tiles, source.base(), &target.head)?;
        }
        for (key, bytes) in bad {
            self.log.archive().put(&key, bytes)?;
        }
        if end == size {
            let mut unfilled: Vec<(String, Vec<u8>)> = unfinished.into_iter().collect();
            for (level, tile, row) in self.growing.unfilled() {
                let coordinate = TileCoordinate::hashes(level, tile, row.len() as u16).map_err(impossible)?;
                unfilled.push((coordinate.path(), encode(row)));
            }
            self.put_all(unfilled, source.base())?;
        }
        self.hub.archive.settle()?;
        let rows = judge.rows;
        self.commit(target, end, state, rows)?;
        Ok(())
    }

    /// What is put and proven becomes durable in the index, and a head that is reached the archive's checkpoint.
    fn commit(
        &mut self,
        target: &Target,
        end: u64,
        mut state: LogState,
        mut rows: Rows,
    ) -> Result<(), StepError> {
        let reached = end == target.head.size();
        if self.state.progress == 0 {
            rows.boundaries.push((0, empty_root()));
        }
        let before = self.hub.index.newest_boundary(self.id)?;
        rows.boundaries.extend(self.auditor.boundaries_after(before));
        rows.oldest_boundary = self.auditor.oldest_boundary();
        state.progress = end;
        if reached {
            state.sweep.extend(self.head()?.map(|(_, head)| head.size()));
            state.head = Some(target.note.clone());
            state.pending = None;
        }
        let saved = self.auditor.save();
        let new = self.hub.index.step(self.id, &state, Some(&saved), &rows, now_millis())?;
        self.outcome.new += end - self.state.progress;
        self.outcome.findings.extend(new);
        self.state = state;
        if reached {
            self.settle_checkpoint()?;
        }
        Ok(())
    }

    /// Every entry that has been taken leads to `head`, by the source's own tiles.
    fn prove(
        &self,
        tiles: &impl HashReader<Error = SourceError>,
        base: &str,
        head: &Checkpoint,
    ) -> Result<(), StepError> {
        let end = self.auditor.size();
        let unproven = |error: &dyn std::fmt::Display| {
            let size = head.size();
            let words =
                format!("{base}: its entries below {end} do not lead to its head of {size} ({error})");
            StepError::Unproven(words)
        };
        let proof = consistency_proof(end, head.size(), tiles).map_err(|error| match error {
            BuildError::Reader(error) => StepError::Source(error),
            BuildError::Request(error) => unproven(&error),
        })?;
        verify_consistency(end, &self.auditor.root(), head.size(), &head.root(), &proof)
            .map_err(|error| unproven(&error))
    }

    /// Decodes, hashes and checks signatures on all threads.
    fn read_ahead(&self, bundles: &[Vec<Vec<u8>>]) -> Vec<Vec<ReadAhead>> {
        let auditor = &self.auditor;
        let each = bundles.len().div_ceil(self.hub.threads).max(1);
        std::thread::scope(|scope| {
            let threads: Vec<_> = bundles
                .chunks(each)
                .map(|chunk| {
                    scope.spawn(move || -> Vec<Vec<ReadAhead>> {
                        let read = |bundle: &Vec<Vec<u8>>| {
                            bundle.iter().map(|entry| auditor.read_ahead(entry)).collect()
                        };
                        chunk.iter().map(read).collect()
                    })
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().flat_map(join).collect()
        })
    }

    /// Puts what is proven. Where the archive has something else, the log key has signed for both.
    fn put_all(&self, objects: Vec<(String, Vec<u8>)>, base: &str) -> Result<(), StepError> {
        self.log.put_all(objects).map_err(|error| match error {
            ArchiveError::Differs { key } => StepError::Unproven(format!(
                "{base}: its entries make other bytes of {key} than the archive has"
            )),
            error => error.into(),
        })
    }

    fn find(&mut self, findings: &[Finding]) -> Result<(), HubError> {
        self.outcome.findings.extend(self.hub.index.found(findings, now_millis())?);
        Ok(())
    }

    /// A source failed: the others are asked, and what it did is told if it is more than silence.
    fn distrust(&mut self, target: &Target, error: &StepError) -> Result<(), HubError> {
        let base = self.sources[target.source].base().to_owned();
        self.outcome.trouble.push(error.to_string());
        self.failed.push(target.source);
        match error {
            StepError::Unproven(_) if self.forked(target)? => {}
            StepError::Unproven(words) => {
                let key = self.keep_note(&target.head, &target.note)?;
                let mut finding = Finding::new(Kind::BadSource, self.origin.as_str(), base, words.clone());
                finding.evidence.push(key);
                self.find(&[finding])?;
            }
            StepError::Source(SourceError::Status { .. } | SourceError::Malformed { .. }) => {
                let (progress, size) = (self.state.progress, target.head.size());
                let detail = format!(
                    "{base} signs for {size} entries and does not hand out those from {progress} on: {error}"
                );
                let subject = format!("{progress} {base}");
                self.find(&[Finding::new(Kind::Gap, self.origin.as_str(), subject, detail)])?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Name and bytes of a bundle.
fn encode_bundle(number: u64, entries: &[Vec<u8>]) -> Result<(String, Vec<u8>), StepError> {
    let mut bytes = Vec::new();
    for entry in entries {
        push_entry(&mut bytes, entry).map_err(impossible)?;
    }
    let coordinate = TileCoordinate::entries(number, entries.len() as u16).map_err(impossible)?;
    Ok((coordinate.path(), bytes))
}

/// A few bundles at a time, so that a far box is not waited for eight times.
fn fetch(source: &Source, bundles: std::ops::Range<u64>, end: u64) -> Result<Vec<Vec<Vec<u8>>>, SourceError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = bundles
            .map(|number| scope.spawn(move || source.entries(number, width_at(0, number, end))))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| match thread.join() {
            Ok(bundle) => bundle,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        threads.into_iter().map(join).collect()
    })
}

/// Coordinates and lengths that follow from what was read cannot be refused.
fn impossible(error: bulla_formats::tile::TileError) -> StepError {
    StepError::Hub(HubError::Contradiction(error.to_string()))
}

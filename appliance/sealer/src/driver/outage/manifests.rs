//! Makes manifests: what the box did while nobody vouched for its time, stated, quoted, logged and handed out.
//!
//! Invariants: a closing manifest covers exactly the entries of its outage; the seals it counts are those of the head it
//! names, because both are taken from the same publication.

use super::desk::Desk;
use super::kept::{PastOutage, Story};
use super::restore::note_closed;
use super::{tree, words};
use crate::config::OutageConfig;
use crate::driver::evidence;
use crate::driver::neighbours::Holding;
use anyhow::Context as _;
use bulla_formats::body::manifest::Wording as WordingId;
use bulla_formats::body::manifest::{
    HOLDERS_MAX, Holder, ManifestBody, ManifestStatement, MeasuredBy, Phase,
};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{EntryRef, Kind, TreeState};
use bulla_formats::hash::{leaf_hash, sha256};
use bulla_protocol::anchoring::AnchorEvent;
use bulla_protocol::mode::{Manifest, ModeEvent, Stage};
use std::sync::{PoisonError, RwLock};

/// The wording that is built in, and its id.
const DEFAULT_WORDING: (&str, &str) =
    ("bulla/default-en/1", include_str!("../../../../../docs/wording/default-en-1.txt"));
/// Most bytes of a wording: it is printed on one page.
const WORDING_BYTES_MAX: usize = 4_096;

/// The legal wording in force.
#[derive(Debug, Clone)]
pub struct Wording {
    /// Its id, with its version.
    pub id: String,
    /// Its text.
    pub text: String,
}

impl Wording {
    /// Reads what the configuration names.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8, or too long to be printed.
    pub fn load(config: &OutageConfig) -> anyhow::Result<Self> {
        let (Some(path), Some(id)) = (&config.wording, &config.wording_id) else {
            return Ok(Wording { id: DEFAULT_WORDING.0.to_owned(), text: DEFAULT_WORDING.1.to_owned() });
        };
        let what = || format!("cannot read the wording of manifests in {}", path.display());
        let text = std::fs::read_to_string(path).with_context(what)?;
        anyhow::ensure!(
            !text.trim().is_empty() && text.len() <= WORDING_BYTES_MAX,
            "the wording of manifests in {} is empty or longer than {WORDING_BYTES_MAX} bytes",
            path.display()
        );
        Ok(Wording { id: id.clone(), text })
    }
}

/// Which manifest covers which entries: of past outages the closing one, of the present one the newest.
#[derive(Debug)]
pub struct Manifests(RwLock<(Vec<PastOutage>, Option<PastOutage>)>);

impl Manifests {
    /// As the log tells them. The newest manifest of an outage under way comes with the next.
    pub fn new(story: &Story) -> Self {
        Manifests(RwLock::new((story.outages.clone(), None)))
    }

    fn logged(&self, index: u64, said: &ManifestStatement) {
        let covers = PastOutage { first: said.first, end: said.head.size, manifest: index };
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if said.phase == Phase::Close {
            all.0.push(covers);
            all.1 = None;
        } else {
            all.1 = Some(covers);
        }
    }

    /// Index of the manifest that covers this entry.
    pub fn of(&self, index: u64) -> Option<u64> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let covers = |one: &&PastOutage| (one.first..one.end).contains(&index);
        all.0.iter().rev().chain(&all.1).find(covers).map(|one| one.manifest)
    }

    /// Indexes of all manifests known, oldest first.
    pub fn all(&self) -> Vec<u64> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.0.iter().chain(&all.1).map(|one| one.manifest).collect()
    }
}

impl Desk {
    pub(super) fn log_manifest(&mut self, ticket: u64, manifest: &Manifest) {
        match self.append_manifest(manifest) {
            Ok((index, body)) => {
                self.story.manifest = Some(index);
                note_closed(&mut self.story, index, &body);
                self.noted();
                self.shared.manifests.logged(index, &body.statement);
                log::info!(
                    "{} manifest of outage {} is entry {index}: {} entries, {} seals",
                    body.statement.phase.name(),
                    body.statement.outage,
                    body.statement.head.size - body.statement.first,
                    body.statement.seals
                );
                self.mode(ModeEvent::Logged { ticket, index });
                if manifest.stage == Stage::Closing {
                    self.look_at_log();
                    self.plan(AnchorEvent::Urgent { index });
                    match self.shared.reader.entry(index) {
                        Ok(entry) => {
                            let leaf_hash = Octets32::new(leaf_hash(&entry).0);
                            self.unanchored.push(EntryRef { index, leaf_hash });
                        }
                        Err(error) => log::error!("the manifest cannot be read again: {error}"),
                    }
                }
                self.hand_out(index, &body);
            }
            Err(reason) => {
                self.noted();
                log::warn!("a manifest of outage {} is not in the log yet: {reason}", manifest.outage);
                self.mode(ModeEvent::NotLogged { ticket });
            }
        }
    }

    fn append_manifest(&mut self, manifest: &Manifest) -> Result<(u64, ManifestBody), String> {
        let (head, seals) = self.covered(manifest)?;
        let reader = &self.shared.reader;
        let root = tree::range_root(reader, manifest.first..head.size).map_err(|error| error.to_string())?;
        let began = self.shared.entry(manifest.first).map_err(|error| error.to_string())?.content().time;
        let made = self.shared.clock.local_time();
        // The steady clock of this run saw the whole outage, or it did not.
        let (duration_millis, measured_by) = if manifest.first >= self.first_of_run {
            (manifest.elapsed, MeasuredBy::SteadyClock)
        } else {
            (made.unix_millis.saturating_sub(began.unix_millis), MeasuredBy::WallClock)
        };
        let statement = ManifestStatement {
            version: 1,
            origin: self.shared.origin.as_str().to_owned(),
            outage: manifest.outage,
            sequence: manifest.number,
            phase: words::phase(manifest.stage),
            drill: manifest.drill,
            began,
            made,
            duration_millis,
            measured_by,
            first: manifest.first,
            entries: Octets32::new(root.0),
            seals,
            evidence: self.shared.standing().evidence.filter(|evidence| evidence.index < head.size),
            head,
            findings: words::findings(&manifest.findings, &self.authorities, &self.details, manifest.drill),
            holders: self.holders(),
            wording: WordingId {
                id: self.shared.wording.id.clone(),
                sha256: Octets32::new(sha256(&[self.shared.wording.text.as_bytes()]).0),
            },
            limits: words::limits_stated(&self.limits, &manifest.limits),
            event_log: crate::driver::attest::event_log_hash(self.event_log.as_deref()),
            approvals: Vec::new(),
        };
        let vouched = self.vouch(&statement.qualifying_data());
        let body = ManifestBody { statement, vouched };
        body.check().map_err(|error| error.to_string())?;
        let index = self.append(Kind::Manifest, der::encode(&body))?;
        Ok((index, body))
    }

    /// The neighbours that hold copies of the log, by their own cosignatures.
    fn holders(&self) -> Vec<Holder> {
        let held = self.shared.held.borrow().clone();
        let holders = held.iter().filter(|holding| holding.mirrored > 0);
        let holder = |holding: &Holding| Holder { name: holding.origin.clone(), size: holding.mirrored };
        holders.map(holder).take(HOLDERS_MAX).collect()
    }

    /// The tree that a manifest covers, and the outage's seals in it.
    fn covered(&mut self, manifest: &Manifest) -> Result<(TreeState, u64), String> {
        if let (Stage::Closing, Some(last)) = (manifest.stage, manifest.last) {
            return match self.ended.take().filter(|(head, _)| head.size == last + 1) {
                Some(ended) => {
                    self.ended = Some(ended.clone());
                    Ok(ended)
                }
                // An earlier run logged the change; what it had counted was counted again at this start.
                None => {
                    let root = self.shared.reader.root_at(last + 1).map_err(|error| error.to_string())?;
                    Ok((TreeState::new(last + 1, root), manifest.seals))
                }
            };
        }
        let published = self.shared.published().ok_or("nothing is published yet")?;
        let head = TreeState::new(published.snapshot.size(), published.snapshot.root());
        Ok((head, published.outage_seals.unwrap_or(0)))
    }

    /// Gives the manifest to whoever may need it. What fails here fails for good and is only told: the manifest is in the
    /// log.
    fn hand_out(&self, index: u64, body: &ManifestBody) {
        let file = match evidence::manifest_file(&self.shared, index) {
            Ok(file) => file,
            Err(error) => return log::warn!("the manifest could not be written as a file: {error}"),
        };
        super::files::hand_out(&self.state_dir, &self.courier, &file, body, &self.shared.wording);
    }
}

/// Whether it is the last of its outage.
pub(super) fn is_closing(body: &ManifestBody) -> bool {
    body.statement.phase == Phase::Close
}

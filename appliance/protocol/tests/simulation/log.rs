//! The log of a simulated box, and what must be true of it by itself.

use bulla_formats::entry::Mode;
use bulla_protocol::mode::{Manifest, ModeChange, ModeRecord, Stage};
use bulla_protocol::time::Bounds;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone)]
pub enum Body {
    /// So many seals in a row.
    Seals {
        count: u64,
        id: u64,
    },
    Change(ModeChange),
    Manifest(Manifest),
    /// The tree's size, and the proofs.
    Anchor {
        size: u64,
        proofs: Vec<Proof>,
    },
    Clock,
}

#[derive(Clone)]
pub struct Proof {
    pub operator: String,
    pub signer: Signer,
    pub bounds: Bounds,
}

/// An authority, and the number of its certificate.
pub type Signer = (usize, u32);

#[derive(Clone)]
pub struct Entry {
    /// Of its first seal, or its own.
    pub index: u64,
    pub mode: Mode,
    pub drill: bool,
    /// True time, in milliseconds since 1970; nobody in the box knows it.
    pub truth: u64,
    pub body: Body,
}

impl Entry {
    pub fn count(&self) -> u64 {
        if let Body::Seals { count, .. } = self.body { count } else { 1 }
    }
}

pub struct Log {
    pub entries: Vec<Entry>,
    pub size: u64,
    /// One past the newest entry worth an anchor.
    pub worth: u64,
    pub record: ModeRecord,
    /// Index of the last mode change that was more than a lock.
    below_since: u64,
    /// By operator and signer, the largest tree anchored.
    anchored: BTreeMap<(String, Signer), u64>,
}

pub type Broken = (&'static str, String);

impl Log {
    pub fn new(mode: Mode) -> Self {
        let record = ModeRecord::new(mode);
        Log { entries: Vec::new(), size: 0, worth: 0, record, below_since: 0, anchored: BTreeMap::new() }
    }

    /// What the writer does: an entry is in the mode that the newest mode change says, itself included; seals in the
    /// one that the machine says, unless a mode change is on its way.
    pub fn append(&mut self, body: Body, truth: u64, said: Option<(Mode, bool)>) -> Result<u64, Broken> {
        let index = self.size;
        match &body {
            Body::Seals { count, .. } => self.record.sealed(*count),
            Body::Change(change) => {
                self.check_change(change)?;
                if change.below != self.record.below {
                    self.below_since = index;
                }
                self.record.changed(index, change);
            }
            Body::Manifest(manifest) => {
                self.check_manifest(index, manifest)?;
                self.record.manifested(index, manifest);
            }
            Body::Anchor { size, proofs } => {
                for proof in proofs {
                    let known = self.anchored.entry((proof.operator.clone(), proof.signer)).or_default();
                    *known = (*known).max(*size);
                }
            }
            Body::Clock => {}
        }
        let (mode, drill) = said.unwrap_or((self.record.mode, self.record.drill));
        let entry = Entry { index, mode, drill, truth, body };
        self.size += entry.count();
        if !matches!(entry.body, Body::Anchor { .. }) {
            self.worth = self.size;
        }
        self.entries.push(entry);
        Ok(index)
    }

    fn check_change(&self, change: &ModeChange) -> Result<(), Broken> {
        let broken = |why: &str| Err(("outages", format!("{why}: {change:?} after {:?}", self.record)));
        if change.from != self.record.mode {
            return broken("a mode change does not begin where the last one ended");
        }
        let begins = change.outages != self.record.outages;
        if begins && change.outages != self.record.outages + 1 {
            return broken("an outage's number leaves a gap");
        }
        let open = self.record.outage.as_ref().is_some_and(|outage| outage.closing.is_none());
        if begins && open {
            return broken("an outage begins before the one before it is closed");
        }
        if open && !matches!(change.below, Mode::Emergency | Mode::Reconciling) {
            return broken("an outage ends without its closing manifest");
        }
        Ok(())
    }

    fn check_manifest(&self, index: u64, manifest: &Manifest) -> Result<(), Broken> {
        let broken = |why: &str| Err(("manifests", format!("{why}: {manifest:?} in {:?}", self.record)));
        let Some(outage) = &self.record.outage else { return broken("no outage is under way") };
        if manifest.outage != self.record.outages || Some(manifest.first) != outage.first {
            return broken("it is of another outage");
        }
        if manifest.number != outage.manifests || (manifest.number == 0) != (manifest.stage == Stage::Opening)
        {
            return broken("it is out of order");
        }
        if manifest.drill != self.record.drill {
            return broken("it does not say whether it is a drill");
        }
        match manifest.stage {
            Stage::Closing if outage.closing.is_some() => broken("a second closing manifest"),
            Stage::Closing => {
                let last = manifest.last.unwrap_or(0);
                let inside = |entry: &&Entry| (manifest.first..=last).contains(&entry.index);
                let own = self.entries.iter().filter(inside);
                let seals = own.filter(|entry| matches!(entry.body, Body::Seals { .. })).map(Entry::count);
                let seals: u64 = seals.sum();
                if last + 1 != self.below_since || seals != manifest.seals {
                    return broken(&format!(
                        "it does not cover its outage, with {seals} seals before {index}"
                    ));
                }
                Ok(())
            }
            _ if outage.last.is_some() => broken("the outage is over"),
            _ => Ok(()),
        }
    }

    /// Every entry is in the mode that the newest mode change before it says.
    pub fn check_modes(&self, first_mode: Mode) -> Result<(), Broken> {
        let mut said = (first_mode, false);
        for entry in &self.entries {
            if let Body::Change(change) = &entry.body {
                said = (change.to, change.drill);
            }
            if (entry.mode, entry.drill) != said {
                return Err((
                    "mode",
                    format!("entry {} is in {:?}, the log in {said:?}", entry.index, entry.mode),
                ));
            }
        }
        Ok(())
    }

    /// What has happened, by the log.
    pub fn seen(&self) -> BTreeSet<&'static str> {
        let mut seen = BTreeSet::new();
        let mut before = (Mode::Degraded, false);
        for entry in &self.entries {
            match &entry.body {
                Body::Seals { .. } => {}
                Body::Clock => drop(seen.insert("clock")),
                Body::Anchor { proofs, .. } => {
                    seen.insert(if proofs.len() > 1 { "anchor of several" } else { "anchor of one" });
                }
                Body::Manifest(manifest) => {
                    seen.insert(match manifest.stage {
                        Stage::Opening => "opening",
                        Stage::Refresh => "refresh",
                        Stage::Closing => "closing",
                    });
                }
                Body::Change(change) => {
                    let emergency = change.below == Mode::Emergency;
                    let signs = [
                        (change.drill, "drill"),
                        (change.to == Mode::Safe, "safe"),
                        (emergency && !change.drill, "real outage"),
                        (emergency && !change.drill && before.1, "real outage out of a drill"),
                        (emergency && before.0 == Mode::Reconciling, "outage while reconciling"),
                    ];
                    seen.extend(signs.into_iter().filter_map(|(is, name)| is.then_some(name)));
                    before = (change.below, change.drill);
                }
            }
        }
        seen
    }

    /// By operator, the largest tree anchored by a signer that is none of these.
    pub fn anchored(&self, revoked: &BTreeSet<Signer>) -> Vec<(String, u64)> {
        let mut by_operator: BTreeMap<&String, u64> = BTreeMap::new();
        for ((operator, signer), size) in &self.anchored {
            if !revoked.contains(signer) {
                let known = by_operator.entry(operator).or_default();
                *known = (*known).max(*size);
            }
        }
        by_operator.into_iter().map(|(operator, size)| (operator.clone(), size)).collect()
    }

    /// Whether a proof of the log is by it.
    pub fn is_signer(&self, signer: Signer) -> bool {
        self.anchored.keys().any(|(_, of)| *of == signer)
    }

    /// The newest signer of this authority that the log shows.
    pub fn newest_signer(&self, authority: usize) -> Option<Signer> {
        let proofs = self.entries.iter().rev().filter_map(|entry| match &entry.body {
            Body::Anchor { proofs, .. } => Some(proofs),
            _ => None,
        });
        proofs.flatten().map(|proof| proof.signer).find(|(of, _)| *of == authority)
    }

    /// The largest tree that so many operators have anchored by signers that are none of these.
    pub fn anchored_by(&self, operators: usize, revoked: &BTreeSet<Signer>) -> u64 {
        let mut sizes: Vec<u64> = self.anchored(revoked).into_iter().map(|(_, size)| size).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes.get(operators - 1).copied().unwrap_or(0)
    }

    /// What a restart reads: the newest mode change and the manifests after it; and the outage's seals.
    pub fn read_record(&self, first_mode: Mode) -> ModeRecord {
        let newest = self.entries.iter().rposition(|entry| matches!(entry.body, Body::Change(_)));
        let mut record = ModeRecord::new(first_mode);
        for entry in &self.entries[newest.unwrap_or(0)..] {
            match &entry.body {
                Body::Change(change) => record.changed(entry.index, change),
                Body::Manifest(manifest) => record.manifested(entry.index, manifest),
                _ => {}
            }
        }
        if let Some(outage) = &mut record.outage {
            let first = outage.first.unwrap_or(0);
            let last = outage.last.unwrap_or(u64::MAX);
            let own = self.entries.iter().rev().take_while(|entry| entry.index >= first);
            let own = own.filter(|entry| entry.index <= last && matches!(entry.body, Body::Seals { .. }));
            outage.seals = own.map(Entry::count).sum();
        }
        record
    }

    /// Every entry lies between its newest evidence and its first anchor, and the two are never inverted.
    pub fn check_intervals(&self) -> Result<(), Broken> {
        let (mut before, mut covered) = (vec![u64::MAX; self.entries.len()], 0);
        for anchor in &self.entries {
            let Body::Anchor { size, proofs } = &anchor.body else { continue };
            let hi = proofs.iter().map(|proof| proof.bounds.hi).min().unwrap_or(u64::MAX);
            while self.entries.get(covered).is_some_and(|entry| entry.index + entry.count() <= *size) {
                before[covered] = hi;
                covered += 1;
            }
        }
        let mut after = 0;
        for (entry, before) in self.entries.iter().zip(before) {
            if after > entry.truth || entry.truth > before {
                let what = format!("entry {}: {after} <= {} <= {before} is not so", entry.index, entry.truth);
                return Err(("intervals", what));
            }
            if let Body::Anchor { proofs, .. } = &entry.body {
                after = proofs.iter().map(|proof| proof.bounds.lo).max().unwrap_or(0).max(after);
            }
        }
        Ok(())
    }
}

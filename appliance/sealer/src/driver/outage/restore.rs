//! What the log says of modes, outages and anchors: read at every start, and again when nobody knows whether an append
//! took place.
//!
//! Refuses to do: trust the hints; each names an entry, and what counts is what stands there.
//! Invariant: reading gives what `bulla_protocol::mode` had when it stopped: it uses the same functions as the running
//! machine.

use super::kept::{PastOutage, Story};
use super::words;
use crate::driver::standing::Standing;
use anyhow::{Context as _, Result, bail};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::manifest::{ManifestBody, Phase};
use bulla_formats::body::mode_change::ModeChangeBody;
use bulla_formats::der::Octets32;
use bulla_formats::entry::{Entry, EntryRef, Kind, Mode};
use bulla_ledger::Reader;
use bulla_protocol::mode::ModeRecord;

/// Most anchors that are looked back at for what each operator has anchored.
const ANCHORS_BACK: usize = 256;

/// What the log says.
#[derive(Debug, Clone)]
pub struct Told {
    /// Of modes and outages.
    pub record: ModeRecord,
    /// What entries' headers say from now on.
    pub standing: Standing,
    /// By operator, the largest tree that an anchor covers.
    pub anchored: Vec<(String, u64)>,
    /// Closing manifests that no anchor covers yet.
    pub unanchored: Vec<EntryRef>,
    /// One past the newest entry that is worth an anchor.
    pub worth: u64,
    /// Where it all stands.
    pub story: Story,
}

/// Whether an entry of this kind is worth asking authorities for its sake: not what anchoring itself brings about, nor
/// what a machine says of itself all day.
pub fn is_worth(kind: Option<Kind>) -> bool {
    !matches!(
        kind,
        Some(
            Kind::Anchor
                | Kind::Attestation
                | Kind::ModeChange
                | Kind::Integrity
                | Kind::SelfTest
                | Kind::Mirror
        )
    )
}

/// Reads it. `kept` is the story as it was kept; without it the whole log is read.
///
/// # Errors
/// An entry of the story cannot be read.
pub fn read(reader: &Reader, kept: Option<Story>, has_authorities: bool) -> Result<Told> {
    let size = reader.size();
    let mut story = match kept {
        None => Story { appending_since: Some(0), ..Story::default() },
        Some(story) => story,
    };
    if let Some(since) = story.appending_since.take() {
        find(reader, since.min(size)..size, &mut story)?;
    }
    // A log without a mode change is in the mode that its entries state; a lock of those days is none of it.
    let newest = Entry::decode(&reader.entry(size - 1)?).context("the newest entry is damaged")?;
    let first = match newest.content().mode {
        mode @ (Mode::AirGapped | Mode::Degraded) => mode,
        _ => ModeRecord::first_mode(has_authorities),
    };
    let mut record = ModeRecord::new(first);
    let mut limited = false;
    if let Some(index) = story.mode_change {
        let entry = entry(reader, index, Kind::ModeChange)?;
        let body = ModeChangeBody::decode(&entry.content().body).context("a mode change is damaged")?;
        let change = words::change_read(&body.statement, entry.content().drill);
        limited = change.to == Mode::Safe && !change.locked;
        record.changed(index, &change);
    }
    let mut seals = None;
    let in_outage = record.outage.as_ref().filter(|outage| outage.closing.is_none()).cloned();
    if let (Some(outage), Some(change)) = (in_outage, story.mode_change) {
        let (mut counted, mut from) = (0, outage.first.unwrap_or(change));
        if let Some(index) = story.manifest {
            let body = manifest(reader, index)?;
            let said = &body.statement;
            if said.outage == record.outages {
                (counted, from) = (said.seals, said.head.size);
                if index > change {
                    record.manifested(index, &words::manifest_read(said));
                }
            }
        }
        if record.outage.as_ref().is_some_and(|outage| outage.closing.is_none()) {
            let end = outage.last.map_or(size, |last| last + 1);
            counted += count_seals(reader, from..end.max(from))?;
            if let Some(outage) = &mut record.outage {
                outage.seals = counted;
            }
            seals = outage.last.is_none().then_some(counted);
        }
    }
    let (evidence, anchored, newest_head) = anchors(reader, story.anchor)?;
    let mut unanchored = Vec::new();
    if let Some(last) = story.outages.last().filter(|last| last.manifest >= newest_head) {
        unanchored.push(reference(reader, last.manifest)?);
    }
    let standing = Standing { mode: record.mode, drill: record.drill, evidence, seals, limited };
    let worth = newest_worth(reader, size)?;
    Ok(Told { record, standing, anchored, unanchored, worth, story })
}

/// The newest entries of the story in a part of the log.
fn find(reader: &Reader, range: std::ops::Range<u64>, story: &mut Story) -> Result<()> {
    if range.end - range.start > 100_000 {
        log::info!("reading {} entries for what they say of modes and anchors", range.end - range.start);
    }
    for index in range {
        let entry =
            Entry::decode(&reader.entry(index)?).with_context(|| format!("entry {index} is damaged"))?;
        match entry.kind() {
            Some(Kind::ModeChange) => story.mode_change = Some(index),
            Some(Kind::Manifest) => {
                story.manifest = Some(index);
                let body = ManifestBody::decode(&entry.content().body).context("a manifest is damaged")?;
                note_closed(story, index, &body);
            }
            Some(Kind::Anchor) => story.anchor = Some(index),
            _ => {}
        }
    }
    Ok(())
}

/// Takes note of a manifest that closes its outage.
pub fn note_closed(story: &mut Story, index: u64, body: &ManifestBody) {
    let said = &body.statement;
    if said.phase == Phase::Close {
        story.closed(PastOutage { first: said.first, end: said.head.size, manifest: index });
    }
}

fn count_seals(reader: &Reader, range: std::ops::Range<u64>) -> Result<u64> {
    let mut seals = 0;
    for index in range {
        let entry =
            Entry::decode(&reader.entry(index)?).with_context(|| format!("entry {index} is damaged"))?;
        seals += u64::from(entry.kind() == Some(Kind::Seal));
    }
    Ok(seals)
}

type Anchored = (Option<EntryRef>, Vec<(String, u64)>, u64);

/// The newest anchor, what each operator has anchored, and the largest tree anchored by anybody. Each anchor names the
/// one before it as its time evidence.
fn anchors(reader: &Reader, newest: Option<u64>) -> Result<Anchored> {
    let Some(newest) = newest else { return Ok((None, Vec::new(), 0)) };
    let mut anchored: Vec<(String, u64)> = Vec::new();
    let (mut next, mut largest) = (Some(newest), 0);
    for _ in 0..ANCHORS_BACK {
        let Some(index) = next else { break };
        let entry = entry(reader, index, Kind::Anchor)?;
        let body = AnchorBody::decode(&entry.content().body).context("an anchor is damaged")?;
        largest = largest.max(body.head.size);
        for proof in &body.proofs {
            match anchored.iter_mut().find(|(operator, _)| *operator == proof.operator) {
                Some((_, size)) => *size = (*size).max(body.head.size),
                None => anchored.push((proof.operator.clone(), body.head.size)),
            }
        }
        next = entry.content().evidence.as_ref().map(|before| before.index);
    }
    Ok((Some(reference(reader, newest)?), anchored, largest))
}

/// Looked for from the end; in the worst case it is the entry before a long row of attestations.
fn newest_worth(reader: &Reader, size: u64) -> Result<u64> {
    for index in (0..size).rev() {
        let entry =
            Entry::decode(&reader.entry(index)?).with_context(|| format!("entry {index} is damaged"))?;
        if is_worth(entry.kind()) {
            return Ok(index + 1);
        }
    }
    Ok(0)
}

fn reference(reader: &Reader, index: u64) -> Result<EntryRef> {
    Ok(EntryRef { index, leaf_hash: Octets32::new(reader.leaf_hash(index)?.0) })
}

/// A manifest of the log.
///
/// # Errors
/// There is none at this index, or it cannot be read.
pub fn manifest(reader: &Reader, index: u64) -> Result<ManifestBody> {
    let entry = entry(reader, index, Kind::Manifest)?;
    ManifestBody::decode(&entry.content().body).context("a manifest is damaged")
}

fn entry(reader: &Reader, index: u64, kind: Kind) -> Result<Entry> {
    let entry = Entry::decode(&reader.entry(index)?).with_context(|| format!("entry {index} is damaged"))?;
    if entry.kind() != Some(kind) {
        bail!("entry {index} is not the {} that was noted", kind.name());
    }
    Ok(entry)
}

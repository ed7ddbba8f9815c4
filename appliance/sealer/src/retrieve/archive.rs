//! A log out of a hub's archive: the C2SP tlog-tiles tree that `bulla-hub restore` wrote, on a disk or a stick.
//!
//! The hub is believed in nothing: who the log is, its entry 0 says under a root that is known here; its head is signed by
//! the log's key; and every entry is proven to be under that head before the first one is stored.
//! Refuses to do: take a directory without a checkpoint, which the hub writes last; choose between two histories.

use super::Retrieved;
use super::copy::{FORKED, HeldBy, counter};
use crate::driver::neighbours::edge;
use anyhow::{Context as _, Result, ensure};
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::enrolment::{Enrolment, VerifiedEnrolment};
use bulla_formats::entry::{Entry, TreeState};
use bulla_formats::hash::leaf_hash;
use bulla_formats::merkle::Frontier;
use bulla_formats::note::{Checkpoint, NOTE_BYTES_MAX, SignedNote, parse_checkpoint_text};
use bulla_formats::origin::Origin;
use bulla_formats::tile::{ENTRY_BYTES_MAX, TileCoordinate, parse_entries, width_at};
use bulla_ledger::{Mirrors, Reader, Tree};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Bytes of entries that are stored at a time, before the last of them.
const STEP_BYTES: usize = 8 << 20;
/// Entries that are stored at a time.
const STEP_ENTRIES: usize = 2_048;

/// An archived log, its head verified.
pub struct ArchivedCopy {
    directory: PathBuf,
    enrolment: VerifiedEnrolment,
    note: String,
    head: Checkpoint,
}

fn read(directory: &Path, name: &str, most: usize) -> Result<Vec<u8>> {
    let path = directory.join(name);
    let file = File::open(&path).with_context(|| {
        format!("cannot read {}; `bulla-hub restore LOG --to DIR` writes what is needed", path.display())
    })?;
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() <= most, "{} is longer than it may be", path.display());
    Ok(bytes)
}

fn bundle(directory: &Path, index: u64, width: u16) -> Result<Vec<Vec<u8>>> {
    let name = TileCoordinate::entries(index, width)?.path();
    let bytes = read(directory, &name, usize::from(width) * (2 + ENTRY_BYTES_MAX))?;
    let entries = parse_entries(&bytes, width)
        .with_context(|| format!("{} is no entry bundle", directory.join(&name).display()))?;
    Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
}

impl ArchivedCopy {
    /// Opens what the hub wrote; `roots` of `fleet` vouch for the log.
    ///
    /// # Errors
    /// No such directory; a head that its key has not signed; a log that no root vouches for.
    pub fn open(directory: &Path, fleet: &str, roots: &[[u8; 32]]) -> Result<Self> {
        let bytes = read(directory, "checkpoint", NOTE_BYTES_MAX)?;
        let note = String::from_utf8(bytes).context("the checkpoint is no text")?;
        let signed = SignedNote::parse(&note).context("the checkpoint is no signed note")?;
        let (origin, size, _) = parse_checkpoint_text(&signed.text).context("it is no checkpoint")?;
        ensure!(size > 0, "the archived log is empty");
        let first = bundle(directory, 0, width_at(0, 0, size))?;
        let entry = Entry::decode(first.first().context("there is no entry 0")?).context("entry 0")?;
        let body = KeyEpochBody::decode(&entry.content().body).context("entry 0 begins no log")?;
        let enrolment = Enrolment::decode(&body.enrolment.context("entry 0 embeds no enrolment")?)?;
        let enrolment = enrolment
            .verify(fleet, roots)
            .with_context(|| format!("no root that is known here vouches for {origin}"))?;
        let content = enrolment.content();
        let (key, attestation_key) = (enrolment.log_key(), &content.attestation_key);
        let head = Checkpoint::open(&signed, enrolment.origin(), key, &content.log_key, attestation_key)
            .context("the checkpoint is not signed by this log's key")?;
        Ok(ArchivedCopy { directory: directory.to_owned(), enrolment, note, head })
    }

    /// The log.
    pub fn origin(&self) -> &Origin {
        self.enrolment.origin()
    }

    /// Entries that are under its head.
    pub fn entries(&self) -> u64 {
        self.head.size()
    }

    /// Fails where the log on this disk and the archive are two histories.
    ///
    /// # Errors
    /// A fork; a disk that cannot be read.
    pub fn compare(&self, disk: &Reader) -> Result<()> {
        let common = disk.size().min(self.head.size());
        let archived = self.proven(common)?;
        let root = if common == 0 { Frontier::new().root() } else { disk.root_at(common)? };
        ensure!(root == archived.root(), "the archive holds another history than this disk: {FORKED}");
        Ok(())
    }

    /// Reads every entry; returns the tree of the first `size`, once all of them are found to lead to the head.
    fn proven(&self, size: u64) -> Result<Frontier> {
        let (mut tree, mut wanted) = (Frontier::new(), Frontier::new());
        self.each(0, |entry| {
            tree.append(leaf_hash(&entry));
            if tree.size() == size {
                wanted = tree.clone();
            }
            Ok(())
        })?;
        ensure!(
            tree.root() == self.head.root(),
            "the archived entries do not lead to the archived head; nothing is taken, see `bulla-hub fsck`"
        );
        Ok(wanted)
    }

    fn each(&self, from: u64, mut take: impl FnMut(Vec<u8>) -> Result<()>) -> Result<()> {
        let size = self.head.size();
        for index in from / 256..size.div_ceil(256) {
            let skip = from.saturating_sub(index * 256);
            let entries = bundle(&self.directory, index, width_at(0, index, size))?;
            entries.into_iter().skip(skip as usize).try_for_each(&mut take)?;
        }
        Ok(())
    }

    /// Stores what is not here yet, and makes the head durable.
    ///
    /// # Errors
    /// Entries that do not lead to the head; what this disk does not take.
    pub fn store(&self, mirrors: &Mirrors) -> Result<Retrieved> {
        let origin = self.origin().as_str();
        let mirror = match mirrors.get(origin) {
            Some(mirror) => mirror,
            None => mirrors.create(origin)?,
        };
        let mut tree = edge(&mirror.reader()?)?;
        ensure!(
            tree.size() <= self.head.size(),
            "the copy that is here already has {} entries, and the archive {}: nothing is to be taken from it",
            tree.size(),
            self.head.size()
        );
        let beginning = self.proven(tree.size())?;
        ensure!(
            beginning.root() == tree.root(),
            "the copy that is here is of another history than the archive: {FORKED}"
        );
        let (mut step, mut bytes) = (Vec::new(), 0);
        self.each(tree.size(), |entry| {
            bytes += entry.len();
            step.push(entry);
            if step.len() < STEP_ENTRIES && bytes < STEP_BYTES {
                return Ok(());
            }
            bytes = 0;
            put(&mirror, &mut tree, std::mem::take(&mut step))
        })?;
        if !step.is_empty() {
            put(&mirror, &mut tree, step)?;
        }
        ensure!(tree.root() == self.head.root(), "the archive changed while it was read; try again");
        mirror.persist_head(self.head.size(), self.head.root(), self.note.as_bytes())?;
        let counter = counter(&mirror.reader()?)?;
        let head = TreeState::new(self.head.size(), self.head.root());
        let note = SignedNote::parse(&self.note)?;
        Ok(Retrieved { head, note, held_by: HeldBy::Archive, beyond: None, counter })
    }
}

/// One step's worth of entries, which were found to be under the head, made durable.
fn put(mirror: &bulla_ledger::Mirror, tree: &mut Frontier, entries: Vec<Vec<u8>>) -> Result<()> {
    let from = tree.size();
    entries.iter().for_each(|entry| tree.append(leaf_hash(entry)));
    mirror.store_range(from, entries, Vec::new(), Tree { size: tree.size(), root: tree.root() })?;
    Ok(())
}

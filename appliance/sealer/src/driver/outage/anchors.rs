//! Has the log anchored: what is asked for, and the entry that keeps what came.
//!
//! Invariants: what is asked for is the tree of a size that was published; an anchor entry holds only proofs that were
//! verified, and only over its own head.

use super::authority::Question;
use super::desk::Desk;
use super::http::Trouble;
use super::tree::Batch;
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, MANIFESTS_MAX, PROOFS_MAX, imprint_input};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{ENTRY_BYTES_MAX, EntryRef, Kind, TreeState};
use bulla_formats::hash::sha256;
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_ledger::ReadError;
use bulla_protocol::anchoring::AnchorEvent;
use bulla_protocol::authority::Failure;
use bulla_protocol::mode::ModeEvent;
use ed25519_dalek::Signer as _;

/// What an entry has beside its body.
const HEADER_BYTES: usize = 1_024;

impl Desk {
    /// The batch that has the checkpoint of the tree of this size: this box's alone.
    fn batch(&self, size: u64) -> Result<(Batch, TreeState), ReadError> {
        let head = TreeState::new(size, self.shared.reader.root_at(size)?);
        let text = checkpoint_text(self.shared.origin.as_str(), size, &head.root());
        Ok((Batch::new(&[text]), head))
    }

    /// What an authority is asked about the tree of this size; a witness has to be shown that it extends the one of
    /// `since` entries.
    pub(super) fn question(&self, size: u64, since: u64) -> Result<Question, Trouble> {
        let unreadable =
            |error: ReadError| Trouble::new(Failure::Other, format!("the log cannot be read: {error}"));
        let (batch, head) = self.batch(size).map_err(unreadable)?;
        if since > size {
            let detail =
                format!("it has cosigned a tree of {since} entries, and only {size} are asked about");
            return Err(Trouble::new(Failure::Other, detail));
        }
        let proof = match since {
            0 => Vec::new(),
            since if since == size => Vec::new(),
            since => self.shared.reader.consistency_proof(since, size).map_err(unreadable)?,
        };
        let (origin, log_key) = (self.shared.origin.as_str(), &self.shared.log_key);
        let text = checkpoint_text(origin, size, &head.root());
        let signature = log_key.sign(text.as_bytes()).to_bytes();
        let lines = vec![log_line(origin, &log_key.verifying_key().to_bytes(), &signature)];
        Ok(Question {
            imprint: sha256(&[&imprint_input(&batch.state())]).0,
            checkpoint: SignedNote { text, lines },
            since: (since, proof),
            size,
        })
    }

    pub(super) fn log_anchor(&mut self, ticket: u64, size: u64, authorities: &[usize]) {
        match self.append_anchor(size, authorities) {
            Ok(index) => {
                self.story.anchor = Some(index);
                self.noted();
                self.proofs.retain(|(of, _), _| *of > size);
                self.unanchored.retain(|manifest| manifest.index >= size);
                self.plan(AnchorEvent::Logged { ticket });
                let anchored = self.planner.anchored(self.planner.needed());
                log::info!("entries up to {size} are anchored by entry {index}");
                self.tell_anchored(anchored);
            }
            Err(reason) => {
                self.noted();
                log::warn!("an anchor is not in the log yet: {reason}");
                self.plan(AnchorEvent::NotLogged { ticket });
            }
        }
    }

    /// Closing manifests that a tree of this size covers and no anchor did, as many as an anchor has room for.
    fn reanchored(&self, size: u64) -> Vec<EntryRef> {
        let covered = self.unanchored.iter().filter(|one| one.index < size);
        let mut newest: Vec<EntryRef> = covered.rev().take(MANIFESTS_MAX).cloned().collect();
        newest.reverse();
        newest
    }

    /// Closing manifests that stand beyond the largest tree anchored.
    pub(super) fn closing_manifests(&self, anchored: u64) -> Vec<EntryRef> {
        let beyond = self.story.outages.iter().filter(|outage| outage.manifest >= anchored);
        let reference = |index: u64| {
            let leaf_hash = Octets32::new(self.shared.reader.leaf_hash(index)?.0);
            Ok::<_, ReadError>(EntryRef { index, leaf_hash })
        };
        let mut found = Vec::new();
        for outage in beyond.rev().take(MANIFESTS_MAX) {
            match reference(outage.manifest) {
                Ok(manifest) => found.push(manifest),
                Err(error) => log::error!("a closing manifest cannot be read: {error}"),
            }
        }
        found.reverse();
        found
    }

    /// As many operators as policy asks for have anchored so many entries.
    pub(super) fn tell_anchored(&mut self, size: u64) {
        self.shared.anchored.send_replace(size);
        self.mode(ModeEvent::Anchored { size });
    }

    fn append_anchor(&mut self, size: u64, authorities: &[usize]) -> Result<u64, String> {
        let proof = |authority: &usize| Some(self.proofs.get(&(size, *authority))?.proof.clone());
        let mut proofs: Vec<AnchorProof> = authorities.iter().filter_map(proof).collect();
        if proofs.len() != authorities.len() {
            return Err("a proof that was had is not there any more".to_owned());
        }
        proofs.sort_by(|a, b| a.authority.cmp(&b.authority));
        let mut index = 0;
        // Very long tokens go into entries of their own.
        for part in parts(proofs) {
            let (batch, head) = self.batch(size).map_err(|error| error.to_string())?;
            let body = AnchorBody {
                version: 1,
                batch: batch.state(),
                index: 0,
                path: batch.path(0).iter().map(|hash| Octets32::new(hash.0)).collect(),
                head,
                proofs: part,
                manifests: self.reanchored(size),
            };
            body.check().map_err(|error| error.to_string())?;
            index = self.append(Kind::Anchor, der::encode(&body))?;
            self.stamped(&body);
        }
        Ok(index)
    }
}

/// Proofs that fit one entry together.
fn parts(proofs: Vec<AnchorProof>) -> Vec<Vec<AnchorProof>> {
    let mut parts: Vec<Vec<AnchorProof>> = Vec::new();
    let mut room = 0;
    for proof in proofs {
        let bytes = der::encode(&proof).len();
        if bytes > room || parts.last().is_some_and(|part| part.len() == PROOFS_MAX) {
            parts.push(Vec::new());
            room = ENTRY_BYTES_MAX - 2 * HEADER_BYTES;
        }
        room = room.saturating_sub(bytes);
        parts.last_mut().expect("one was pushed when there was no room").push(proof);
    }
    parts
}

//! Has the log anchored: what is asked for, and the entry that keeps what came.
//!
//! Invariants: what is asked for is the tree of a size that was published; an anchor entry holds only proofs that were
//! verified, and only over its own head.

use super::authority::Question;
use super::desk::Desk;
use super::http::Trouble;
use super::{together, tree};
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, MANIFESTS_MAX, PROOFS_MAX, imprint_input};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{ENTRY_BYTES_MAX, EntryRef, Kind, TreeState};
use bulla_formats::hash::sha256;
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_ledger::ReadError;
use bulla_protocol::anchoring::{AnchorEvent, Batch};
use bulla_protocol::authority::Failure;
use bulla_protocol::mode::ModeEvent;
use bulla_protocol::site::SiteEvent;
use ed25519_dalek::Signer as _;

/// What an entry has beside its body.
const HEADER_BYTES: usize = 1_024;

impl Desk {
    /// The tree over the checkpoint of this size, which is the first in it, and those of neighbours.
    pub(super) fn batch(&self, size: u64, batch: Batch) -> Result<(tree::Batch, TreeState), ReadError> {
        let head = TreeState::new(size, self.shared.reader.root_at(size)?);
        let mut texts = vec![checkpoint_text(self.shared.origin.as_str(), size, &head.root())];
        if let (Batch::Gathered { gather }, Some(site)) = (batch, &self.together) {
            texts.extend(together::texts(site.heads(gather)));
        }
        Ok((tree::Batch::new(&texts), head))
    }

    /// What an authority is asked about the tree of this size; a witness has to be shown that it extends the one of
    /// `since` entries.
    pub(super) fn question(&self, size: u64, batch: Batch, since: u64) -> Result<Question, Trouble> {
        let unreadable =
            |error: ReadError| Trouble::new(Failure::Other, format!("the log cannot be read: {error}"));
        let (batch, head) = self.batch(size, batch).map_err(unreadable)?;
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

    pub(super) fn log_anchor(&mut self, ticket: u64, size: u64, batch: Batch, authorities: &[usize]) {
        let appended = self.append_anchor(size, batch, authorities);
        if let Batch::Gathered { gather } = batch {
            // They do not depend on whether this box can log it.
            self.hand_over(gather, size, authorities);
        }
        match appended {
            Ok(index) => {
                self.story.anchor = Some(index);
                self.noted();
                self.proofs.retain(|(_, of, _), _| *of > size);
                self.unanchored.retain(|manifest| manifest.index >= size);
                self.plan(AnchorEvent::Logged { ticket });
                let anchored = self.planner.anchored(self.planner.needed());
                log::info!("entries up to {size} are anchored by entry {index}");
                self.tell_anchored(anchored);
                self.site(SiteEvent::Logged);
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

    /// What is logged: where the head stands in its batch, and the proofs over that.
    fn anchored(&self, size: u64, batch: Batch, authorities: &[usize]) -> Result<AnchorBody, String> {
        let gone = "a proof that was had is not there any more";
        if let Batch::Handed { handed } = batch {
            let mut body = self.together.as_ref().and_then(|site| site.handed(handed)).ok_or(gone)?.clone();
            let named = |proof: &AnchorProof| {
                authorities.iter().any(|place| self.authorities[*place].id == proof.authority)
            };
            body.proofs.retain(named);
            return Ok(body);
        }
        let proof = |place: &usize| Some(self.proofs.get(&(batch, size, *place))?.proof.clone());
        let mut proofs: Vec<AnchorProof> = authorities.iter().filter_map(proof).collect();
        if proofs.len() != authorities.len() {
            return Err(gone.to_owned());
        }
        proofs.sort_by(|a, b| a.authority.cmp(&b.authority));
        let (batch, head) = self.batch(size, batch).map_err(|error| error.to_string())?;
        let path = batch.path(0).iter().map(|hash| Octets32::new(hash.0)).collect();
        Ok(AnchorBody {
            version: 1,
            batch: batch.state(),
            index: 0,
            path,
            head,
            proofs,
            manifests: Vec::new(),
        })
    }

    fn append_anchor(&mut self, size: u64, batch: Batch, authorities: &[usize]) -> Result<u64, String> {
        let whole = self.anchored(size, batch, authorities)?;
        let mut index = 0;
        // Very long tokens go into entries of their own.
        for part in parts(whole.proofs.clone()) {
            let manifests = self.reanchored(whole.head.size);
            let body = AnchorBody { proofs: part, manifests, ..whole.clone() };
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

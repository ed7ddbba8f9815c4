//! Proofs that a log has forked: made from what is here, taken from others, told on.
//!
//! Invariant: only a proof that verifies with the log's key is kept or told.

use super::desk::Desk;
use bulla_formats::note::{Checkpoint, SignedNote};
use bulla_formats::origin::Origin;
use bulla_formats::peer::fork::ForkProof;
use bulla_formats::peer::message::{Hint, Refusal};
use bulla_protocol::gossip::{GossipEvent, Head, Name};
use std::sync::Arc;

impl Desk {
    /// Two signed heads of a log cannot both be true: makes the proof from the copy's tree, or from the answer that was
    /// just judged.
    pub(super) fn prove(&mut self, origin: &Name, one: Head, other: Head) {
        match self.proof(origin, one, other) {
            Some(proof) => match self.judged(&proof.encode()) {
                Ok((_, proof)) => {
                    self.forks.entry(origin.clone()).or_insert(proof);
                    self.events.push_back(GossipEvent::Forked { origin: origin.clone() });
                }
                Err(_) => log::error!("{origin}: what looked like a fork does not prove to be one"),
            },
            None => log::warn!("{origin} looks forked, and what would prove it is not at hand yet"),
        }
    }

    fn proof(&self, origin: &Name, one: Head, other: Head) -> Option<ForkProof> {
        let name = Origin::parse(origin).ok()?;
        let (smaller, larger) = if one.size <= other.size { (one, other) } else { (other, one) };
        let opened = |head: &Head| -> Option<(SignedNote, Checkpoint)> {
            let note = SignedNote::parse(self.note(origin, head)?).ok()?;
            let checkpoint = self.cards.get(origin)?.checkpoint(&note).ok()?;
            Some((note, checkpoint))
        };
        let (first, second) = (opened(&smaller)?, opened(&larger)?);
        let (first, second) = ((&first.0, &first.1), (&second.0, &second.1));
        if smaller.size == larger.size {
            return Some(ForkProof::of_heads(&name, &first, &second, larger.root, &[]));
        }
        if self.root_at(origin, larger.size) == Some(larger.root) {
            let reader = self.reader(origin)?;
            let root = reader.root_at(smaller.size).ok()?;
            let proof = reader.consistency_proof(smaller.size, larger.size).ok()?;
            return Some(ForkProof::of_heads(&name, &first, &second, root, &proof));
        }
        let shown = self.shown.as_ref()?;
        let fits = shown.origin == *origin && shown.head == larger && shown.begins.size == smaller.size;
        fits.then(|| ForkProof::of_heads(&name, &first, &second, shown.begins.root, &shown.proof))
    }

    /// A proof from wherever: judged by the log's key, kept, told to the machine.
    pub(super) fn take_fork(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (origin, proof) = self.judged(bytes)?;
        self.forks.entry(origin.clone()).or_insert(proof);
        self.tell(GossipEvent::Forked { origin });
        Ok(())
    }

    fn judged(&self, bytes: &[u8]) -> Result<(Name, Vec<u8>), Refusal> {
        let proof = ForkProof::decode(bytes).map_err(|_| Refusal::Malformed)?;
        let card = if *proof.origin == *self.name {
            &self.own.card
        } else {
            self.cards.get(proof.origin.as_str()).ok_or(Refusal::UnknownLog)?
        };
        proof.verify(&card.content().log_key).map_err(|_| Refusal::NotGenuine)?;
        Ok((Arc::from(proof.origin.as_str()), proof.encode()))
    }

    pub(super) fn hint_fork(&self, origin: &Name) {
        let Some(proof) = self.forks.get(origin).and_then(|proof| ForkProof::decode(proof).ok()) else {
            return;
        };
        if let Ok(name) = Origin::parse(origin)
            && let Err(error) = self.wire.publish(Hint::fork(&name, proof.hash()).encode())
        {
            log::debug!("the neighbours are not told of a fork: {error}");
        }
    }
}

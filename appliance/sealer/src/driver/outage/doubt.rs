//! Signers that were revoked for what makes their stamps count for nothing: which authorities nobody relies on, and what of
//! the log is not anchored any more.
//!
//! The rule is the verifier's (docs/formats.md, section 18), by the CRLs that the box holds. A stamp that is doubtful when it
//! comes is no answer and is not logged; one that turns out to be stays in the log and counts for nothing.
//! Refuses to do: decide whom to ask instead (`bulla_protocol::anchoring` does); forget a revocation, restarts included.
//! Invariant: what the machines are told is anchored rests on stamps that no CRL of the box makes doubtful.

use super::authority::Proof;
use super::desk::Desk;
use super::http::Trouble;
use crate::driver::anchored;
use crate::driver::crls::KeptCrl;
use bulla_formats::report::utc;
use bulla_protocol::anchoring::AnchorEvent;
use bulla_protocol::authority::Failure;
use bulla_protocol::time::TimeEvent;
use bulla_timestamps::TimeStamp;

/// What is known of who signs an authority's stamps.
#[derive(Debug, Clone, Default)]
pub(super) struct Signing {
    newest: Option<TimeStamp>,
    /// Why its newest stamp counts for nothing, if it does.
    revoked: Option<String>,
}

impl Desk {
    /// An answer, or what is wrong with it.
    pub(super) fn judged(&mut self, authority: usize, proof: Proof) -> Result<Proof, Trouble> {
        if let Some(stamp) = &proof.stamp {
            let known = &mut self.signing[authority];
            let revoked = self.shared.crls.doubt(stamp).map(|kept| why(&kept));
            if revoked.is_none() && known.revoked.is_some() {
                let name = &self.authorities[authority].id;
                log::info!("{name} stamps under a certificate that is not revoked, and counts again");
            }
            *known = Signing { newest: Some(stamp.clone()), revoked };
        }
        self.relied_on(authority).map(|()| proof)
    }

    /// Whether an answer of this authority counts, if it is one that shows no stamp.
    pub(super) fn relied_on(&self, authority: usize) -> Result<(), Trouble> {
        match &self.signing[authority].revoked {
            None => Ok(()),
            Some(why) => Err(Trouble::of_answer(Failure::Revoked, why.clone())),
        }
    }

    /// Takes note of whose stamps an anchor of the log holds.
    pub(super) fn signed(&mut self, authority: &str, stamp: &TimeStamp) {
        if let Some(place) = self.authorities.iter().position(|known| known.id == authority) {
            self.signing[place].newest = Some(stamp.clone());
        }
    }

    /// What was doubtful before this start still is. Of an authority whose newest stamp is not at hand, what its CRLs say.
    pub(super) fn resume_doubt(&mut self) {
        let all = self.shared.crls.all();
        for (known, authority) in self.signing.iter_mut().zip(&self.authorities) {
            let of = |kept: &&KeptCrl| {
                kept.authority == authority.id
                    && kept.revoked.as_ref().is_some_and(|revoked| revoked.doubtful)
            };
            if known.newest.is_none() {
                known.revoked = all.iter().find(of).map(why);
            }
        }
        let stamped_so = self.signing.iter().any(|known| known.revoked.is_some());
        if stamped_so || self.shared.crls.list_any() {
            self.doubt(stamped_so);
        }
    }

    /// A CRL lists a certificate that none listed before: what counts, and what does not any more. `compromised`: a key
    /// was taken, and whoever has it may have stated false times, too.
    pub(super) fn doubt(&mut self, compromised: bool) {
        let (anchored, largest) =
            anchored::by_operator(&self.shared, self.story.anchor).unwrap_or_else(|error| {
                log::error!(
                    "what the log's anchors count for cannot be read, so nothing of it does: {error}"
                );
                (Vec::new(), 0)
            });
        let (mut newly, mut compromised) = (Vec::new(), compromised);
        for (place, known) in self.signing.iter_mut().enumerate() {
            let doubt = known.newest.as_ref().and_then(|newest| self.shared.crls.doubt(newest));
            let was = known.revoked.is_some() && known.newest.is_some();
            if let Some(kept) = doubt {
                compromised |= !was && kept.revoked.as_ref().is_some_and(|revoked| revoked.doubtful);
                known.revoked = Some(why(&kept));
            }
            if known.revoked.is_some() && !was {
                newly.push(place);
            }
        }
        let crls = &self.shared.crls;
        let worthless = |proof: &Proof| proof.stamp.as_ref().is_some_and(|stamp| crls.doubt(stamp).is_some());
        let at_hand =
            self.proofs.iter().filter(|(_, proof)| worthless(proof)).map(|((_, _, place), _)| *place);
        let revoked = (0..self.signing.len()).filter(|place| self.signing[*place].revoked.is_some());
        let revoked: Vec<usize> = at_hand.chain(revoked).collect();
        self.proofs.retain(|(_, _, place), _| !revoked.contains(place));
        self.unanchored = self.closing_manifests(largest);

        let (before, needed) = (self.planner.anchored(self.planner.needed()), self.planner.needed());
        self.plan(AnchorEvent::Doubted { anchored, revoked });
        let after = self.planner.anchored(needed);
        if after < before {
            log::warn!(
                "stamps of a revoked signer count for nothing: of {before} entries that were anchored by {needed} \
                 operators {after} still are; the others are anchored again by whoever is left"
            );
        }
        if let Some(last) = self.story.outages.last().filter(|last| last.manifest >= after) {
            self.plan(AnchorEvent::Urgent { index: last.manifest });
        }
        if compromised {
            self.time(TimeEvent::Disbelieved);
        }
        for place in newly {
            let trouble = self.relied_on(place).err();
            self.seen_of(place, trouble);
        }
        self.tell_anchored(after);
    }
}

/// For people.
fn why(kept: &KeptCrl) -> String {
    let revoked = kept.revoked.as_ref();
    let reason = revoked.and_then(|revoked| revoked.reason.as_deref()).unwrap_or("no reason given");
    let at = revoked.map_or(0, |revoked| revoked.at_millis);
    format!(
        "its certificate ({}) was revoked at {} ({reason}): its stamps count for nothing until it has another",
        kept.subject,
        utc(at)
    )
}

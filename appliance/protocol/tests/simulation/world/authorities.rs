//! The box's side of its authorities: what it asks them, what it makes of answers, and whom it doubts.
//!
//! As the driver of a real box does it: an answer is judged by what is known of its signer before anything else is made
//! of it, and a signer is known to be revoked once that is durable, not before.

use super::{Fate, Happening, World};
use crate::Fault;
use crate::log::{Broken, Signer};
use crate::nature::SECOND;
use bulla_protocol::anchoring::{AnchorEvent, Refused};
use bulla_protocol::authority::Failure;
use bulla_protocol::mode::ModeEvent;
use bulla_protocol::time::{Bounds, TimeEvent};
use std::collections::BTreeSet;

impl World {
    pub(super) fn ask(&mut self, ticket: u64, authority: usize) -> Result<(), Broken> {
        let (run, steady) = (self.run, self.steady());
        let place = self.configured[authority];
        let answer = self.nature.ask(&mut self.rng, place, self.now, true).map_err(|why| ("quota", why))?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let until = process.alone.get(&authority).copied().unwrap_or(0);
        if self.now + SECOND < until {
            return Err(("alone", format!("{authority} wants to be left alone until {until}")));
        }
        process.asked.insert(ticket, (authority, steady));
        let believed = answer.lie.filter(|_| self.options.fault == Fault::BelieveLies);
        let retry_after = answer.retry_after;
        if retry_after.is_some() {
            self.seen.insert("retry after");
        }
        let refused = |failure| Refused { failure, retry_after };
        let (result, signer) = (believed.map_or(answer.result.map_err(refused), Ok), answer.signer);
        if let Some(after) = answer.after {
            self.plan(after, Happening::Answered { run, ticket, result, signer });
        }
        Ok(())
    }

    pub(super) fn answered(
        &mut self,
        ticket: u64,
        result: Result<Bounds, Refused>,
        signer: u32,
    ) -> Result<(), Broken> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let Some((authority, sent)) = process.asked.remove(&ticket) else { return Ok(()) };
        let seen = result.map(|_| ()).map_err(|refused| refused.failure);
        let judged = self.judged(authority, seen, result.is_ok().then_some(signer));
        let result = match judged {
            Err(Failure::Revoked) if self.options.fault != Fault::TakeRevoked => {
                Err(Refused { failure: Failure::Revoked, retry_after: None })
            }
            _ => result,
        };
        let Some(process) = &mut self.process else { return Ok(()) };
        if let Err(Refused { retry_after: Some(millis), .. }) = result {
            process.alone.insert(authority, self.now + millis);
        }
        if let Ok(bounds) = result {
            process.proofs.insert(authority, (signer, bounds));
            self.clocks(TimeEvent::Reading { bounds, sent });
            // Its stamp was verified.
            self.tellers.doubtful = false;
        }
        self.probed(authority, judged)?;
        let mut result = result.map(|_| ());
        if let (Err(refused), Fault::IgnoreRetryAfter) = (&mut result, self.options.fault) {
            *refused = Refused { failure: Failure::HttpStatus, retry_after: None };
        }
        self.anchors(AnchorEvent::Answered { ticket, result })
    }

    /// An answer of a signer that is known to be revoked is none; nor is a connection to who stamped so last.
    pub(super) fn judged(
        &mut self,
        authority: usize,
        result: Result<(), Failure>,
        signer: Option<u32>,
    ) -> Result<(), Failure> {
        let Some(process) = &mut self.process else { return result };
        process.signers[authority] = signer.or(process.signers[authority]);
        let newest = process.signers[authority].map(|newest| (self.configured[authority], newest));
        let revoked = newest.is_some_and(|newest| self.disk.revoked.contains(&newest));
        let result = if revoked { result.and(Err(Failure::Revoked)) } else { result };
        if result == Err(Failure::Revoked) {
            self.seen.insert("revoked answer");
        }
        result
    }

    /// What the box knows, if it does what it should.
    pub(super) fn known_revoked(&self) -> BTreeSet<Signer> {
        let forgets = matches!(self.options.fault, Fault::ForgetRevoked | Fault::IgnoreRevoked);
        if forgets { BTreeSet::new() } else { self.disk.revoked.clone() }
    }

    /// CRLs come when the WAN is there. What one lists is durable, then counts.
    pub(super) fn look_at_crls(&mut self) -> Result<(), Broken> {
        if !self.nature.wan || self.is_suspected() {
            return Ok(());
        }
        let listed = self.nature.authorities.iter().enumerate();
        let listed = listed.flat_map(|(place, each)| each.listed.iter().map(move |signer| (place, *signer)));
        // Only what stands behind a stamp is looked after.
        let used = |signer: &Signer| self.log.is_signer(*signer);
        let new: Vec<Signer> =
            listed.filter(|signer| used(signer) && !self.disk.revoked.contains(signer)).collect();
        if new.is_empty() {
            return Ok(());
        }
        match self.fate() {
            Fate::Failed | Fate::Unknown { durable: false } => return Ok(()),
            Fate::Crash { durable } => {
                if durable {
                    self.disk.revoked.extend(new);
                }
                self.die();
                return Ok(());
            }
            Fate::Durable | Fate::Unknown { durable: true } => self.disk.revoked.extend(new),
        }
        self.note(|world| format!("known to be revoked: {:?}", world.disk.revoked));
        if self.options.fault == Fault::IgnoreRevoked {
            return self.told_anchored();
        }
        self.seen.insert("revoked anchor");
        self.doubt()?;
        self.told_anchored()
    }

    /// What is known to be revoked counts for nothing from now on.
    pub(super) fn doubt(&mut self) -> Result<(), Broken> {
        let forgets = self.options.fault == Fault::ForgetRevoked;
        if self.disk.revoked.is_empty() || self.is_suspected() || forgets {
            return Ok(());
        }
        let anchored = self.log.anchored(&self.disk.revoked);
        let Some(process) = &self.process else { return Ok(()) };
        let is_revoked = |place: usize, signer: Option<u32>| {
            signer.is_some_and(|signer| self.disk.revoked.contains(&(self.configured[place], signer)))
        };
        let proof = |place: &usize| process.proofs.get(place).map(|(signer, _)| *signer);
        let places = 0..process.signers.len();
        let newest: Vec<usize> =
            places.clone().filter(|place| is_revoked(*place, process.signers[*place])).collect();
        let revoked = places.filter(|place| newest.contains(place) || is_revoked(*place, proof(place)));
        let revoked: Vec<usize> = revoked.collect();
        self.anchors(AnchorEvent::Doubted { anchored, revoked })?;
        self.clocks(TimeEvent::Disbelieved);
        self.tellers.forgotten();
        for place in newest {
            self.probed(place, Err(Failure::Revoked))?;
        }
        Ok(())
    }

    pub(super) fn probed(&mut self, authority: usize, result: Result<(), Failure>) -> Result<(), Broken> {
        let wall = self.nature.clocks.wall(self.now);
        self.clocks(TimeEvent::Wall { millis: wall });
        self.oracle.probed(self.configured[authority], result.is_ok(), self.now);
        let result = match self.options.fault {
            Fault::IgnoreFailures => Ok(()),
            Fault::IgnoreAnswers => Err(Failure::Other),
            Fault::TakeRevoked if result == Err(Failure::Revoked) => Ok(()),
            _ => result,
        };
        self.modes(ModeEvent::Probed { authority, result })?;
        let Some(process) = &mut self.process else { return Ok(()) };
        let was_failing = std::mem::replace(&mut process.failing[authority], result.is_err());
        if was_failing && result.is_ok() {
            self.anchors(AnchorEvent::Reachable { authority })?;
        }
        let Some(process) = &self.process else { return Ok(()) };
        let facts = process.modes.facts();
        if !process.mode_append
            && (facts.below, facts.drill) != (self.log.record.below, self.log.record.drill)
        {
            return Err((
                "mode",
                format!("the machine thinks {facts:?}, the log says {:?}", self.log.record),
            ));
        }
        self.oracle.check(&self.mode_config, &self.log.record, self.now)
    }
}

//! What lies in the exchange directory, read and checked: the signed messages of one ceremony.
//!
//! Refuses to do: touch the file system, or take a message the plan's people did not sign.
//! Invariant: at most one message for each sender, step and request.

use crate::error::Result;
use crate::wire::{Message, Plan, RequestBody, ResultBody, Step, Subject};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::sig::label;
use rasn::{Decode, Encode};
use std::collections::BTreeMap;

/// The messages of one plan.
#[derive(Debug, Clone)]
pub struct Board {
    plan: Plan,
    messages: BTreeMap<(Step, u64, u64), Message>,
}

/// A request on the board.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its number, from 1.
    pub number: u64,
    /// Hash of its message.
    pub hash: Hash,
    /// What is asked.
    pub body: RequestBody,
}

impl Board {
    /// An empty board.
    pub fn new(plan: Plan) -> Self {
        Board { plan, messages: BTreeMap::new() }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Takes a message from the exchange directory.
    ///
    /// # Errors
    /// When it is not of this plan or not signed by its sender, or when the same sender says something else in the
    /// same place: then somebody holds a key that is not theirs, or plays false.
    pub fn add(&mut self, bytes: &[u8]) -> Result<()> {
        let message = Message::decode(&self.plan, bytes)?;
        let place = (message.content.step, message.content.request, message.content.from);
        match self.messages.get(&place) {
            Some(known) if *known != message => {
                Err(self.plan.accuse(message.content.from, "says two different things in one place"))
            }
            Some(_) => Ok(()),
            None => {
                self.messages.insert(place, message);
                Ok(())
            }
        }
    }

    /// The message of a sender.
    pub fn message(&self, step: Step, request: u64, from: u64) -> Option<&Message> {
        self.messages.get(&(step, request, from))
    }

    /// The body of a sender's message.
    pub fn body<T: Decode + Encode>(&self, step: Step, request: u64, from: u64) -> Result<Option<T>> {
        self.message(step, request, from).map(|message| message.body("message body")).transpose()
    }

    /// Numbers of the plan's custodians.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.plan.custodians.len() as u64
    }

    /// Names of the custodians whose message is not there yet.
    pub fn missing(&self, step: Step, request: u64) -> Vec<&str> {
        let absent = self.numbers().filter(|from| self.message(step, request, *from).is_none());
        absent.map(|from| self.plan.name(from)).collect()
    }

    /// SHA-256 over the commitments of all custodians, in order, when all are there: whoever shows different
    /// commitments to different people is found by comparing it.
    pub fn seen(&self) -> Option<Hash> {
        let mut all = Vec::new();
        if !self.plan.is_alone() {
            for from in self.numbers() {
                all.extend_from_slice(&self.message(Step::Commitments, 0, from)?.hash().0);
            }
        }
        Some(sha256(&[label::CEREMONY_SEEN.as_bytes(), &[0], &self.plan.id().0, &all]))
    }

    /// What all custodians say came out, when all have said it.
    ///
    /// # Errors
    /// When two of them disagree; names the first who differs from custodian 1.
    pub fn result(&self) -> Result<Option<ResultBody>> {
        let mut agreed: Option<ResultBody> = None;
        for from in self.numbers() {
            let Some(body) = self.body::<ResultBody>(Step::Result, 0, from)? else { return Ok(None) };
            match &agreed {
                Some(first) if *first != body => {
                    return Err(self.plan.accuse(from, "has another result than custodian 1"));
                }
                Some(_) => {}
                None => agreed = Some(body),
            }
        }
        Ok(agreed)
    }

    /// All requests in order.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let of_coordinator = self.messages.range((Step::Request, 0, 0)..=(Step::Request, u64::MAX, u64::MAX));
        of_coordinator
            .map(|((_, number, _), message)| {
                Ok(Request { number: *number, hash: message.hash(), body: message.body("request")? })
            })
            .collect()
    }

    /// The request that counts for `subject`: the last one, when it was asked more than once.
    pub fn request_for(&self, subject: Subject) -> Result<Option<Request>> {
        Ok(self.requests()?.into_iter().rfind(|request| request.body.subject == subject))
    }
}

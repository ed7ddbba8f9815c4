//! Questions under way: to whom, what for, and until when an answer is waited for.
//!
//! With fifty neighbours there are many, and every event asks which of them are late: so deadlines are in order, and
//! how many questions about entries a peer has is counted along.
//! Invariants: a question has a deadline until its answer is on its way to the disk, which takes as long as it takes;
//! the counts are those of the questions that are here.

use super::{Head, Name, Purpose};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub(super) struct Flight {
    pub peer: Name,
    pub purpose: Purpose,
    deadline: Option<u64>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Flights {
    all: BTreeMap<u64, Flight>,
    deadlines: BTreeSet<(u64, u64)>,
    /// Of entries, objects and proofs, by who is asked.
    fetching: BTreeMap<Name, usize>,
}

impl Flights {
    pub fn insert(&mut self, ticket: u64, peer: &Name, purpose: Purpose, deadline: u64) {
        if purpose.fetches() {
            *self.fetching.entry(peer.clone()).or_default() += 1;
        }
        self.deadlines.insert((deadline, ticket));
        self.all.insert(ticket, Flight { peer: peer.clone(), purpose, deadline: Some(deadline) });
    }

    pub fn get(&self, ticket: u64) -> Option<&Flight> {
        self.all.get(&ticket)
    }

    pub fn remove(&mut self, ticket: u64) -> Option<Flight> {
        let flight = self.all.remove(&ticket)?;
        if let Some(deadline) = flight.deadline {
            self.deadlines.remove(&(deadline, ticket));
        }
        if flight.purpose.fetches()
            && let Some(count) = self.fetching.get_mut(&flight.peer)
        {
            *count -= 1;
            if *count == 0 {
                self.fetching.remove(&flight.peer);
            }
        }
        Some(flight)
    }

    /// The entries that were asked for are on their way to the disk: the copy becomes `copy`, which leads to `head`.
    pub fn store(&mut self, ticket: u64, copy: Head, head: Head) {
        let Some(flight) = self.all.get_mut(&ticket) else { return };
        if let Purpose::Range { storing, .. } = &mut flight.purpose {
            *storing = Some((copy, head));
            if let Some(deadline) = flight.deadline.take() {
                self.deadlines.remove(&(deadline, ticket));
            }
        }
    }

    /// Those for which this is true.
    pub fn select(&self, which: impl Fn(&Flight) -> bool) -> Vec<u64> {
        self.all.iter().filter(|(_, flight)| which(flight)).map(|(ticket, _)| *ticket).collect()
    }

    /// Whose deadline has passed, oldest question first.
    pub fn late(&self, now: u64) -> Vec<u64> {
        let late = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        let mut tickets: Vec<u64> = late.map(|(_, ticket)| *ticket).collect();
        tickets.sort_unstable();
        tickets
    }

    /// When the first of them is late.
    pub fn first_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// How many questions about entries are under way to a peer.
    pub fn fetching_from(&self, name: &Name) -> usize {
        self.fetching.get(name).copied().unwrap_or(0)
    }

    pub fn len(&self) -> usize {
        self.all.len()
    }
}

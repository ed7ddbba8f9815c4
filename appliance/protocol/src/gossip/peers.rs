//! The peers, and which of them are to be looked at after an event.
//!
//! With fifty neighbours most events concern one of them. Whoever was lent out to be changed is looked at, and whose time
//! has come, and whoever waits for somebody to become free; the others would want nothing.
//! Invariants: a peer changes only through [`Peers::get_mut`] and [`Peers::all_mut`], which note it down; a mark says where
//! its peer stands in the lists, and changes with them.

use super::{Name, Peer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// What the lists know of a peer, beside it: most changes leave it in or out of them, and need no search.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// The last round in which it was lent out; they count from 1.
    touched: u64,
    /// It is among the waiting.
    waiting: bool,
    /// Its place among the alarms; `u64::MAX`, none.
    alarm: u64,
}

impl Mark {
    pub fn none() -> Self {
        Mark { touched: 0, waiting: false, alarm: u64::MAX }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    all: BTreeMap<Name, Peer>,
    /// How often all that were due have been looked at.
    rounds: u64,
    /// Have been lent out since then, each once.
    touched: Vec<Name>,
    /// Want something of whoever becomes free first.
    waiting: BTreeSet<Name>,
    /// When each is to be looked at even if nothing happens.
    alarms: BTreeSet<(u64, Name)>,
    /// Whose logs are frozen, durably.
    frozen: BTreeSet<Name>,
}

impl Deref for Peers {
    type Target = BTreeMap<Name, Peer>;

    fn deref(&self) -> &Self::Target {
        &self.all
    }
}

impl Peers {
    pub fn get_mut(&mut self, name: &Name) -> Option<&mut Peer> {
        let peer = self.all.get_mut(name)?;
        let round = self.rounds + 1;
        if std::mem::replace(&mut peer.mark.touched, round) != round {
            self.touched.push(name.clone());
        }
        Some(peer)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.touch_all();
        self.all.values_mut()
    }

    /// Something that concerns everybody has changed.
    pub fn touch_all(&mut self) {
        let round = self.rounds + 1;
        for (name, peer) in &mut self.all {
            if std::mem::replace(&mut peer.mark.touched, round) != round {
                self.touched.push(name.clone());
            }
        }
    }

    /// Drops whom nobody trusts any more, and takes in who is new.
    pub fn set(&mut self, wanted: &BTreeSet<&Name>, new: impl Fn(&Name) -> Peer) {
        let gone: Vec<Name> = self.all.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in &gone {
            if let Some(peer) = self.all.remove(name) {
                self.alarms.remove(&(peer.mark.alarm, name.clone()));
            }
            self.waiting.remove(name);
            self.frozen.remove(name);
        }
        self.touched.retain(|name| !gone.contains(name));
        for name in wanted {
            self.all.entry((*name).clone()).or_insert_with(|| new(name));
        }
        self.touch_all();
    }

    /// Who is to be looked at now, in ascending order.
    pub fn due(&mut self, now: u64) -> Vec<Name> {
        let newly = self.touched.iter().filter(|name| {
            self.all.get(*name).is_some_and(|peer| peer.log.durable.frozen) && !self.frozen.contains(*name)
        });
        let newly: Vec<Name> = newly.cloned().collect();
        if !newly.is_empty() {
            self.frozen.extend(newly);
            // Everybody is to be told of it.
            return self.all.keys().cloned().collect();
        }
        let rung = self.alarms.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name);
        let due = self.touched.iter().chain(&self.waiting).chain(rung);
        let mut due: Vec<Name> = due.cloned().collect();
        due.sort_unstable();
        due.dedup();
        due
    }

    /// They have been looked at; `more` are times at which to look at one again besides its own.
    pub fn seen(&mut self, names: &[Name], now: u64, more: impl Fn(&Peer) -> [u64; 2]) {
        for name in names {
            let Some(peer) = self.all.get_mut(name) else { continue };
            let at = peer.times().chain(more(peer)).filter(|at| *at > now).min().unwrap_or(u64::MAX);
            let waits = peer.log.waits();
            if std::mem::replace(&mut peer.mark.waiting, waits) != waits {
                match waits {
                    true => self.waiting.insert(name.clone()),
                    false => self.waiting.remove(name),
                };
            }
            let before = std::mem::replace(&mut peer.mark.alarm, at);
            if before != at {
                self.alarms.remove(&(before, name.clone()));
                if at < u64::MAX {
                    self.alarms.insert((at, name.clone()));
                }
            }
        }
        self.touched.clear();
        self.rounds += 1;
    }

    /// When the first of them is to be looked at.
    pub fn alarm(&self) -> Option<u64> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Whose logs are frozen, durably.
    pub fn frozen(&self) -> &BTreeSet<Name> {
        &self.frozen
    }
}

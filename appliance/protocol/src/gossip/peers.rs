//! The peers, and which of them are to be looked at after an event.
//!
//! With fifty neighbours most events concern one of them. Whoever was lent out to be changed is looked at, and whose time
//! has come, and whoever waits for somebody to become free; the others would want nothing.
//! Invariant: a peer changes only through [`Peers::get_mut`] and [`Peers::all_mut`], which note it down.

use super::{Name, Peer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    all: BTreeMap<Name, Peer>,
    /// Have been lent out since they were looked at.
    touched: BTreeSet<Name>,
    /// Want something of whoever becomes free first.
    waiting: BTreeSet<Name>,
    /// When each is to be looked at even if nothing happens, and the other way round.
    alarms: BTreeSet<(u64, Name)>,
    alarm_of: BTreeMap<Name, u64>,
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
        if !self.touched.contains(name) {
            self.touched.insert(name.clone());
        }
        Some(peer)
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.touch_all();
        self.all.values_mut()
    }

    /// Something that concerns everybody has changed.
    pub fn touch_all(&mut self) {
        self.touched.extend(self.all.keys().cloned());
    }

    /// Drops whom nobody trusts any more, and takes in who is new.
    pub fn set(&mut self, wanted: &BTreeSet<&Name>, new: impl Fn(&Name) -> Peer) {
        let gone: Vec<Name> = self.all.keys().filter(|name| !wanted.contains(name)).cloned().collect();
        for name in gone {
            self.all.remove(&name);
            self.touched.remove(&name);
            self.frozen.remove(&name);
            self.wait(&name, false, u64::MAX);
        }
        for name in wanted {
            self.all.entry((*name).clone()).or_insert_with(|| new(name));
        }
        self.touch_all();
    }

    /// Who is to be looked at now, in ascending order.
    pub fn due(&mut self, now: u64) -> Vec<Name> {
        let rung = self.alarms.iter().take_while(|(at, _)| *at <= now).map(|(_, name)| name.clone());
        self.touched.extend(rung);
        let mut newly = false;
        for name in &self.touched {
            if self.all.get(name).is_some_and(|peer| peer.log.durable.frozen) && !self.frozen.contains(name) {
                newly = self.frozen.insert(name.clone());
            }
        }
        match newly {
            // Everybody is to be told of it.
            true => self.all.keys().cloned().collect(),
            false => self.touched.union(&self.waiting).cloned().collect(),
        }
    }

    /// They have been looked at; `more` are times at which to look at one again besides its own.
    pub fn seen(&mut self, names: &[Name], now: u64, more: impl Fn(&Peer) -> [u64; 2]) {
        for name in names {
            let Some(peer) = self.all.get(name) else { continue };
            let at = peer.times().chain(more(peer)).filter(|at| *at > now).min().unwrap_or(u64::MAX);
            let waits = peer.log.waits();
            self.wait(name, waits, at);
        }
        self.touched.clear();
    }

    fn wait(&mut self, name: &Name, waits: bool, at: u64) {
        if !waits {
            self.waiting.remove(name);
        } else if !self.waiting.contains(name) {
            self.waiting.insert(name.clone());
        }
        let before = self.alarm_of.get(name).copied().unwrap_or(u64::MAX);
        if before == at {
            return;
        }
        self.alarms.remove(&(before, name.clone()));
        if at < u64::MAX {
            self.alarms.insert((at, name.clone()));
            self.alarm_of.insert(name.clone(), at);
        } else {
            self.alarm_of.remove(name);
        }
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

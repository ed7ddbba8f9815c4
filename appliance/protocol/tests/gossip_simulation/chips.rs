//! The boxes' TPMs: what they quote, when they are turned on, cleared or started into something else; and what must be true
//! of who believes them.

use crate::Fault;
use crate::world::{Asked, Broken, Packet, Said, World};
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::peer::challenge::{Boot, Distrust};
use bulla_protocol::gossip::{Attested, GossipEvent};

#[derive(Clone, Copy, Debug)]
pub struct Chip {
    /// What its machine has booted.
    pub boot: u64,
    resets: u64,
    /// When it was turned on.
    on: u64,
}

/// A challenge of somebody else, under way.
pub struct Call {
    pub from: usize,
    pub ticket: u64,
    pub run: u64,
    pub nonce: u64,
}

impl Chip {
    pub fn new() -> Self {
        Chip { boot: 0, resets: 1, on: 0 }
    }

    fn says(&self, now: u64) -> Boot {
        let value = Octets32::new(sha256(&[&self.boot.to_be_bytes()]).0);
        let clock = now.saturating_sub(self.on);
        Boot { pcrs: vec![PcrValue { pcr: 4, value }], resets: self.resets, restarts: 0, clock }
    }
}

impl World {
    /// A box begins: perhaps its machine was off, and perhaps something was done to it meanwhile.
    pub fn turn_on(&mut self, place: usize) {
        if self.calm || !self.rng.one_in(3) {
            return;
        }
        let (now, done) = (self.now, self.rng.between(0, 9));
        let chip = &mut self.members[place].chip;
        (chip.resets, chip.on) = (chip.resets + 1, now);
        match done {
            0 => chip.boot += 1,
            1 => chip.resets = 0,
            _ => return,
        }
        self.truth.tampered.insert(place);
        self.note(|_| format!("something was done to {place} while it was off"));
    }

    /// A challenge is put.
    pub fn challenge(&mut self, place: usize, to: usize, ticket: u64) -> Result<Asked, Broken> {
        let (now, key) = (self.now, (place, self.members[place].run, to));
        if let Some(before) = self.truth.challenged.insert(key, now)
            && now - before < self.weather.config.quote_gap
        {
            return Err(("quotes", format!("{place} challenges {to} after {} ms", now - before)));
        }
        let nonce = self.rng.next();
        if let Some(process) = &mut self.members[place].process {
            process.nonces.insert(ticket, nonce);
            // What was never answered is forgotten.
            while process.nonces.len() > self.names.len() {
                process.nonces.pop_first();
            }
        }
        Ok(Asked::Challenge { nonce })
    }

    /// A challenge arrives.
    pub fn called(&mut self, to: usize, call: Call) -> Result<(), Broken> {
        self.ids += 1;
        let (id, from) = (self.ids, self.names[call.from].clone());
        if let Some(process) = &mut self.members[to].process {
            process.calls.insert(id, call);
        }
        self.drive(to, GossipEvent::Challenged { from, call: id })
    }

    fn take_call(&mut self, place: usize, call: u64) -> Option<Call> {
        self.members[place].process.as_mut()?.calls.remove(&call)
    }

    pub fn busy(&mut self, place: usize, call: u64) {
        self.seen.insert("busy");
        if let Some(Call { from, ticket, run, .. }) = self.take_call(place, call) {
            self.send(place, from, Packet::Answer { ticket, run, said: Said::Refused });
        }
    }

    /// The chip quotes, which takes its time.
    pub fn quote(&mut self, place: usize, call: u64) -> Result<(), Broken> {
        let Some(asked) = self.take_call(place, call) else { return Ok(()) };
        let (now, run) = (self.now, self.members[place].run);
        if let Some(before) = self.truth.quoted.insert((place, run, asked.from), now)
            && now - before < self.weather.config.quote_gap
        {
            let what = format!("{place} quotes for {} after {} ms", asked.from, now - before);
            return Err(("quotes", what));
        }
        let chip = self.members[place].chip;
        if let Some(process) = &mut self.members[place].process
            && std::mem::replace(&mut process.quoting, true)
        {
            return Err(("quotes", format!("{place} has two quotes under way")));
        }
        let after = self.rng.between(1, 400);
        self.report(place, after, GossipEvent::QuoteDone { call });
        let said = Said::Vouched { by: place, nonce: asked.nonce, chip };
        self.send(place, asked.from, Packet::Answer { ticket: asked.ticket, run: asked.run, said });
        Ok(())
    }

    /// What an answer to a challenge is worth.
    pub fn judge_voucher(
        &mut self,
        to: usize,
        from: usize,
        ticket: u64,
        (by, nonce, chip): (usize, u64, Chip),
    ) -> GossipEvent {
        let (believes, now, run) = (self.breaks(Fault::BelieveVouchers), self.now, self.members[to].run);
        let asked = self.members[to].process.as_mut().and_then(|process| process.nonces.remove(&ticket));
        let why = match (by == from, asked == Some(nonce)) {
            (true, true) => {
                self.truth.vouched.insert((to, run, from));
                None
            }
            (false, _) => Some(Distrust::OtherKey),
            (true, false) => Some(Distrust::NotGenuine),
        };
        match why.filter(|_| !believes) {
            Some(why) => GossipEvent::Disowned { ticket, why },
            None => GossipEvent::Vouched { ticket, boot: Some(chip.says(now)) },
        }
    }

    pub fn keep_boot(&mut self, place: usize, ticket: u64, peer: &str, boot: Boot) -> Result<(), Broken> {
        let peer = self.place(peer);
        if self.breaks(Fault::SayBootKept) {
            self.report(place, 0, GossipEvent::BootKept { ticket });
            return Ok(());
        }
        if let Some(before) = self.truth.boots.get(&(place, peer))
            && let Err(why) = boot.follows(before)
        {
            return Err(("persisted", format!("{place} takes over a boot of {peer}: {}", why.name())));
        }
        let unknown = self.disk_fails();
        if !unknown || self.rng.one_in(2) {
            self.truth.boots.insert((place, peer), boot.clone());
            self.members[place].disk.boots.insert(peer, boot);
        }
        let event =
            if unknown { GossipEvent::BootNotKept { ticket } } else { GossipEvent::BootKept { ticket } };
        let after = self.rng.between(0, 20);
        self.report(place, after, event);
        Ok(())
    }

    pub fn log_trust(
        &mut self,
        place: usize,
        ticket: u64,
        before: Option<Distrust>,
        why: Option<Distrust>,
    ) -> Result<(), Broken> {
        if before == why {
            return Err(("vouched", format!("{place} logs that nothing has changed")));
        }
        self.seen.insert(if why.is_some() { "trust logged" } else { "good again" });
        let failed = !self.calm && self.rng.one_in(4);
        let event = if failed { GossipEvent::NotLogged { ticket } } else { GossipEvent::Logged { ticket } };
        self.report(place, 5, event);
        Ok(())
    }

    /// Honest boxes are distrusted only for what was done to them.
    pub fn check_distrust(&mut self, place: usize, peer: &str, why: Distrust) -> Result<(), Broken> {
        self.seen.insert(why.name());
        let peer = self.place(peer);
        let changed = matches!(why, Distrust::BootChanged | Distrust::ResetWentBack);
        if self.is_honest(peer) && !(changed && self.truth.tampered.contains(&peer)) {
            return Err(("blame", format!("{place} distrusts {peer}: {}", why.name())));
        }
        Ok(())
    }

    /// Whoever is fresh has vouched in this run, and its boot is durable.
    pub fn check_fresh(&mut self, place: usize) -> Result<(), Broken> {
        let member = &self.members[place];
        let Some(process) = &member.process else { return Ok(()) };
        for facts in process.machine.facts() {
            if !matches!(facts.attested, Attested::Fresh { .. }) {
                continue;
            }
            let peer = self.place(&facts.peer);
            if !self.truth.vouched.contains(&(place, member.run, peer)) {
                return Err(("vouched", format!("{place} takes {peer} for fresh")));
            }
            if !member.disk.boots.contains_key(&peer) {
                return Err(("persisted", format!("{place} takes {peer} for fresh and knows no boot of it")));
            }
            self.seen.insert("fresh");
        }
        Ok(())
    }

    /// At the end every honest box knows how the others stand.
    pub fn judge_trust(&self, place: usize, honest: &[usize]) -> Result<(), Broken> {
        let member = &self.members[place];
        let Some(process) = &member.process else { return Ok(()) };
        for facts in process.machine.facts() {
            let peer = self.place(&facts.peer);
            if facts.copy == 0 || !honest.contains(&peer) {
                continue;
            }
            let chip = self.members[peer].chip;
            let known = member.disk.boots.get(&peer);
            let stands = |at| known.map(|known| chip.says(at).follows(known));
            // Its last answer is up to a period old: what its clock said of it then may have been overtaken since.
            let answered = self.now.saturating_sub(2 * self.weather.config.challenge_every);
            let (now, then) = (stands(self.now), stands(answered.max(chip.on)));
            let fits = match facts.attested {
                Attested::Fresh { .. } => now == Some(Ok(())),
                // The boot that it had before was seen, and the write of it lost.
                Attested::Refused { .. } if known.is_none() => self.truth.tampered.contains(&peer),
                Attested::Refused { why, .. } => now == Some(Err(why)) || then == Some(Err(why)),
                Attested::Never | Attested::Stale { .. } => false,
            };
            if !fits {
                let what = format!("{place} takes {peer} for {:?}, which is {now:?}", facts.attested);
                return Err(("vouched", what));
            }
        }
        Ok(())
    }
}

//! What the shell of an honest box does, no more: it carries out effects, answers questions from its disk, and verifies
//! what comes. It may die before or after any effect.

use crate::chips::Call;
use crate::tree::{Entry, Proof, Tree, leads};
use crate::world::{Asked, Broken, Happening, Packet, Said, World};
use crate::{Fault, judge};
use bulla_formats::hash::Hash;
use bulla_formats::peer::challenge::Boot;
use bulla_formats::witness::Role;
use bulla_protocol::gossip::{
    Ask, CopyStart, CosignerState, Failure, Finding, Gossip, GossipEffect, GossipEvent, GossipStart, Head,
    Seen, Standing,
};
use std::collections::{BTreeMap, BTreeSet};

/// What is durable of a foreign log.
#[derive(Clone)]
pub struct Copy {
    pub tree: Tree,
    pub reached: Option<Head>,
    pub objects: BTreeSet<u64>,
    pub state: CosignerState,
}

impl Copy {
    fn new() -> Self {
        let (tree, objects) = (Tree::new(), BTreeSet::new());
        Copy { tree, reached: None, objects, state: CosignerState::default() }
    }

    /// Objects that the first `size` entries refer to and that are not here.
    pub fn lacking(&self, size: u64) -> impl Iterator<Item = u64> {
        let entries = &self.tree.entries[..size as usize];
        entries.iter().filter_map(|entry| entry.object()).filter(|id| !self.objects.contains(id))
    }
}

/// What a power cut leaves.
#[derive(Clone)]
pub struct Disk {
    pub own: Tree,
    /// Nothing is added any more: an older disk was found out.
    pub halted: bool,
    pub copies: BTreeMap<usize, Copy>,
    pub forks: BTreeMap<usize, Proof>,
    /// Of the neighbours, as they are known.
    pub boots: BTreeMap<usize, Boot>,
    notes: BTreeSet<(usize, Head)>,
}

impl Disk {
    pub fn new() -> Self {
        Disk {
            own: Tree::new(),
            halted: false,
            copies: BTreeMap::new(),
            forks: BTreeMap::new(),
            boots: BTreeMap::new(),
            notes: BTreeSet::new(),
        }
    }

    fn copy(&mut self, origin: usize) -> &mut Copy {
        self.copies.entry(origin).or_insert_with(Copy::new)
    }
}

/// What it does not.
pub struct Process {
    pub machine: Gossip,
    /// Notes at hand; those of cosigned heads are on the disk.
    notes: BTreeSet<(usize, Head)>,
    /// How many were left when those that nobody needs were thrown away.
    notes_kept: usize,
    asked: BTreeMap<u64, (usize, Ask)>,
    /// Verified entries that may be stored.
    verified: BTreeMap<u64, Vec<Entry>>,
    /// What the answer reported last shows: a tree that leads to a head.
    shown: Option<(usize, Head, Head, Vec<Hash>)>,
    pub lamport: u64,
    standing: Option<Standing>,
    /// Nonces of challenges under way.
    pub nonces: BTreeMap<u64, u64>,
    /// Challenges of others, and whether the chip is at work.
    pub calls: BTreeMap<u64, Call>,
    pub quoting: bool,
}

impl World {
    /// A process begins: from what is on the disk, and nothing else.
    pub fn start(&mut self, place: usize) -> Result<(), Broken> {
        if !self.is_honest(place) || self.members[place].process.is_some() {
            return Ok(());
        }
        self.swap_disk(place);
        self.turn_on(place);
        let disk = &mut self.members[place].disk;
        if self.options.fault == Fault::ForgetBoots {
            disk.boots.clear();
        }
        for copy in disk.copies.values_mut() {
            if self.options.fault == Fault::ForgetState {
                copy.state = CosignerState::default();
            }
            if self.options.fault == Fault::Thaw {
                copy.state.frozen = false;
            }
        }
        let disk = &self.members[place].disk;
        let copies = disk.copies.keys().filter_map(|origin| self.copy_start(place, *origin));
        let start = GossipStart {
            own: self.names[place].clone(),
            head: disk.own.head(),
            lamport: disk.own.lamport(),
            peers: self.trusted(place),
            copies: copies.collect(),
            boots: disk.boots.iter().map(|(peer, boot)| (self.names[*peer].clone(), boot.clone())).collect(),
        };
        let process = Process {
            machine: Gossip::new(self.weather.config.clone(), &start, self.now),
            notes: BTreeSet::new(),
            notes_kept: 0,
            asked: BTreeMap::new(),
            verified: BTreeMap::new(),
            shown: None,
            lamport: disk.own.lamport(),
            standing: None,
            nonces: BTreeMap::new(),
            calls: BTreeMap::new(),
            quoting: false,
        };
        self.members[place].process = Some(process);
        self.wakes[place] = self.now;
        self.note(|_| format!("{place} starts"));
        self.meet(place)
    }

    /// What is on the disk of a foreign log.
    pub fn copy_start(&self, place: usize, origin: usize) -> Option<CopyStart> {
        let copy = self.members[place].disk.copies.get(&origin)?;
        Some(CopyStart {
            origin: self.names[origin].clone(),
            copy: copy.tree.head(),
            reached: copy.reached,
            lacking: copy.lacking(copy.tree.size()).next().is_some(),
            state: copy.state,
        })
    }

    /// Now and then somebody puts an older disk back in: of the own log, that is; the copies are on it, too.
    fn swap_disk(&mut self, place: usize) {
        let own = self.members[place].disk.own.head();
        let old_enough = own.size > 4 && self.members[place].lost.is_none();
        if self.calm || !old_enough || !self.options.seed.is_multiple_of(3) || !self.rng.one_in(3) {
            return;
        }
        let earlier = self.truth.signed[place].iter().filter(|head| head.size < own.size);
        let earlier: Vec<Head> = earlier.copied().collect();
        if earlier.is_empty() {
            return;
        }
        let left = self.rng.pick(&earlier).size;
        let member = &mut self.members[place];
        member.disk.own = member.disk.own.cut(left);
        member.lost = Some(own);
        self.truth.branches[place].push(member.disk.own.clone());
        self.seen.insert("older disk");
        self.note(|_| format!("{place} has an older disk: {left} of {} entries", own.size));
    }

    /// The box seals: entries, a signed head, and only then does anybody hear of it.
    pub fn append(&mut self, place: usize) -> Result<(), Broken> {
        let known = |process: &Process| process.standing.is_some();
        let member = &self.members[place];
        let Some(process) = member.process.as_ref().filter(|process| known(process)) else { return Ok(()) };
        if member.disk.halted {
            return Ok(());
        }
        let (lamport, count) = (process.lamport.max(member.disk.own.lamport()), self.rng.size(1, 6));
        for entry in self.fresh(count, lamport) {
            self.members[place].disk.own.push(entry);
            let branch = self.truth.branches[place].last_mut().expect("every log has a history");
            branch.push(entry);
        }
        let head = self.members[place].disk.own.head();
        self.truth.signed[place].insert(head);
        let lamport = self.members[place].disk.own.lamport();
        if let Some(process) = &mut self.members[place].process {
            process.lamport = lamport;
        }
        self.drive(place, GossipEvent::Own { head, worth: head.size, lamport })?;
        if self.rng.one_in(3) {
            self.drive(place, GossipEvent::Awaited { size: head.size })?;
        }
        Ok(())
    }

    /// Tells the machine, and does what it wants done.
    pub fn drive(&mut self, place: usize, event: GossipEvent) -> Result<(), Broken> {
        let (now, random) = (self.now, self.rng.next());
        let Some(process) = &mut self.members[place].process else { return Ok(()) };
        if let GossipEvent::QuoteDone { .. } = event {
            process.quoting = false;
        }
        let text = if self.options.trace { format!("{place} < {event:?}") } else { String::new() };
        let effects = process.machine.handle(event, now, random);
        self.events += 1;
        if self.options.trace && !effects.is_empty() {
            self.trace.push(format!("{now:>8} {text}"));
        }
        for effect in effects {
            self.note(|_| format!("{place} > {effect:?}"));
            let dies = !self.calm && self.rng.one_in(self.weather.death);
            let before = self.rng.one_in(2);
            if dies && before {
                self.die(place);
                return Ok(());
            }
            self.carry_out(place, effect)?;
            if dies || self.members[place].process.is_none() {
                self.die(place);
                return Ok(());
            }
        }
        let ticks = !self.breaks(Fault::NoTicks);
        let forgets = self.breaks(Fault::ForgetNotes);
        // In weeks of a large site many are kept longer than they must be.
        let spare = if self.options.weeks { 16 * self.names.len() } else { 0 };
        let (names, member) = (&self.names, &mut self.members[place]);
        let Some(process) = &mut member.process else { return Ok(()) };
        let machine = &process.machine;
        self.wakes[place] = machine.next_wakeup().filter(|_| ticks).map_or(u64::MAX, |at| at.max(now + 1));
        if process.notes.len() > process.notes_kept + spare || forgets {
            process.notes.retain(|note| !forgets && machine.heads(&names[note.0]).contains(&note.1));
            process.notes_kept = if spare > 0 { process.notes.len() } else { 0 };
        }
        self.check_process(place)
    }

    pub fn report(&mut self, place: usize, after: u64, event: GossipEvent) {
        let run = self.members[place].run;
        self.plan(after, Happening::Report { to: place, run, event });
    }

    fn carry_out(&mut self, place: usize, effect: GossipEffect) -> Result<(), Broken> {
        match effect {
            GossipEffect::Hint => {
                let head = self.members[place].disk.own.head();
                for to in 0..self.members.len() {
                    self.send(place, to, Packet::Hint { origin: place, head });
                }
            }
            GossipEffect::HintFork { origin } => {
                let origin = self.place(&origin);
                for to in 0..self.members.len() {
                    self.send(place, to, Packet::ForkHint { origin });
                }
            }
            GossipEffect::Ask { ticket, peer, ask, .. } => self.ask(place, ticket, &peer, ask)?,
            GossipEffect::Store { ticket, origin, reached } => self.store(place, ticket, &origin, reached)?,
            GossipEffect::Persist { ticket, origin, state } => self.persist(place, ticket, &origin, state)?,
            GossipEffect::Counted => self.check_counts(place)?,
            GossipEffect::LogMirror { ticket, holders } => {
                self.seen.insert("mirror entry");
                if holders.is_empty() {
                    return Err(("counted", format!("{place} logs a mirror entry about nobody")));
                }
                let event = if !self.calm && self.rng.one_in(4) {
                    GossipEvent::NotLogged { ticket }
                } else {
                    GossipEvent::Logged { ticket }
                };
                self.report(place, 5, event);
            }
            GossipEffect::ProveFork { origin, one, other } => self.prove(place, &origin, one, other)?,
            GossipEffect::Standing(standing) => self.stand(place, standing)?,
            GossipEffect::Lamport { time } => {
                let (cap, uncapped) = (self.weather.config.lamport_cap, self.breaks(Fault::NoCap));
                let member = &mut self.members[place];
                let highest = || member.disk.copies.values().map(|copy| copy.tree.lamport()).max();
                let time = if uncapped { highest().unwrap_or(0) } else { time };
                let Some(process) = &mut member.process else { return Ok(()) };
                let before = process.lamport;
                process.lamport = before.max(time);
                self.seen.insert("lamport");
                if process.lamport - before > cap {
                    return Err(("lamport", format!("{place} jumps from {before} to {time}")));
                }
            }
            GossipEffect::Report(finding) => self.found(place, finding)?,
            GossipEffect::KeepBoot { ticket, peer, boot } => self.keep_boot(place, ticket, &peer, boot)?,
            GossipEffect::LogTrust { ticket, before, why, .. } => {
                self.log_trust(place, ticket, before, why)?
            }
            GossipEffect::Quote { call } => self.quote(place, call)?,
            GossipEffect::Busy { call, .. } if self.breaks(Fault::QuoteAlways) => self.quote(place, call)?,
            GossipEffect::Busy { call, .. } => self.busy(place, call),
        }
        Ok(())
    }

    fn stand(&mut self, place: usize, standing: Standing) -> Result<(), Broken> {
        self.seen.insert(match standing {
            Standing::Nobody => "nobody",
            Standing::Equal => "equal",
            Standing::Behind { .. } => "behind",
        });
        if matches!(standing, Standing::Behind { .. }) {
            let member = &mut self.members[place];
            if member.lost.is_none() {
                return Err(("behind", format!("{place} has its own disk and is told {standing:?}")));
            }
            (member.disk.halted, member.learnt) = (true, true);
        }
        if let Some(process) = &mut self.members[place].process {
            process.standing = Some(standing);
        }
        Ok(())
    }

    fn found(&mut self, place: usize, finding: Finding) -> Result<(), Broken> {
        match finding {
            Finding::Lied { peer, .. } => {
                self.seen.insert("lied");
                let peer = self.place(&peer);
                if self.is_honest(peer) {
                    return Err(("blame", format!("{place} blames {peer}, which is honest")));
                }
            }
            Finding::OtherTree { peer, .. } => {
                self.seen.insert("other tree");
                let peer = self.place(&peer);
                if self.is_honest(peer) && self.is_single(place) {
                    return Err((
                        "blame",
                        format!("{peer} is said to have cosigned another tree of {place}"),
                    ));
                }
            }
            Finding::Unproven { origin, head } => {
                let origin = self.place(&origin);
                if self.is_single(origin) && !self.truth.branches[origin][0].has(head) {
                    return Err(("blame", format!("{place} took {head:?} for a head of {origin}")));
                }
            }
            Finding::Forked { origin } => {
                self.seen.insert("fork frozen");
                let origin = self.place(&origin);
                if self.is_single(origin) {
                    return Err(("frozen", format!("{place} froze {origin}, which has one history")));
                }
            }
            Finding::OwnForked => {
                self.seen.insert("own fork told");
                if self.is_single(place) {
                    return Err(("frozen", format!("{place} has one history and believes in a fork of it")));
                }
                self.members[place].disk.halted = true;
                self.members[place].learnt = true;
            }
            Finding::Distrusted { peer, why } => self.check_distrust(place, &peer, why)?,
        }
        Ok(())
    }

    fn ask(&mut self, place: usize, ticket: u64, peer: &str, ask: Ask) -> Result<(), Broken> {
        let to = self.place(peer);
        let wire = match &ask {
            Ask::Heads => Asked::Heads,
            Ask::Range { origin, from, to } => {
                Asked::Range { origin: self.place(origin), from: *from, to: *to }
            }
            Ask::Objects { origin } => {
                self.seen.insert("objects");
                let origin = self.place(origin);
                let copy = self.members[place].disk.copy(origin);
                let ids = copy.lacking(copy.tree.size()).take(8).collect();
                Asked::Objects { origin, ids }
            }
            Ask::Consistency { origin, old, .. } => {
                self.seen.insert("dispute");
                Asked::Consistency { origin: self.place(origin), old: *old }
            }
            Ask::Cosigned { head, witness, mirror } => {
                let roles = [(*witness, Role::Witness), (*mirror, Role::Mirror)];
                let roles = roles.into_iter().filter_map(|(is, role)| is.then_some(role));
                let roles: Vec<Role> = roles.collect();
                for role in &roles {
                    self.check_cosignature(place, to, *role, *head)?;
                    self.truth.cosigned[to].insert((place, *role, *head));
                }
                let made = roles.into_iter().map(|role| (role, place, role)).collect();
                Asked::Cosigned { head: *head, made }
            }
            Ask::Fork { origin } => {
                let origin = self.place(origin);
                match self.members[place].disk.forks.get(&origin) {
                    Some(proof) => Asked::Fork(proof.clone()),
                    None => return Ok(()),
                }
            }
            Ask::ForkOf { origin } => Asked::ForkOf { origin: self.place(origin) },
            Ask::Challenge => self.challenge(place, to, ticket)?,
        };
        let run = self.members[place].run;
        if let Some(process) = &mut self.members[place].process {
            // What was never answered is forgotten; the machine has its own deadlines.
            let oldest = process.asked.keys().next().copied();
            if process.asked.len() > 20 * self.names.len() {
                oldest.map(|ticket| process.asked.remove(&ticket));
            }
            process.asked.insert(ticket, (to, ask));
        }
        if self.breaks(Fault::KeepForks) && matches!(wire, Asked::Fork(_) | Asked::ForkOf { .. }) {
            return Ok(());
        }
        self.send(place, to, Packet::Ask { ticket, run, ask: wire });
        Ok(())
    }

    pub fn disk_fails(&mut self) -> bool {
        let fails = !self.calm && self.rng.one_in(self.weather.disk);
        if fails {
            self.seen.insert("disk failed");
        }
        fails
    }

    fn store(
        &mut self,
        place: usize,
        ticket: u64,
        origin: &str,
        reached: Option<Head>,
    ) -> Result<(), Broken> {
        let origin = self.place(origin);
        let process = self.members[place].process.as_mut();
        let Some(entries) = process.and_then(|process| process.verified.remove(&ticket)) else {
            return Err(("notes", format!("{place} is to store what it has not verified")));
        };
        if self.disk_fails() {
            self.report(place, 3, GossipEvent::Failed { ticket, failure: Failure::Own });
            return Ok(());
        }
        let (early, silent) = (self.breaks(Fault::SayStored), self.breaks(Fault::IgnoreObjects));
        let disk = &mut self.members[place].disk;
        let copy = disk.copy(origin);
        if copy.state.frozen {
            return Err(("frozen", format!("{place} adds to the frozen log of {origin}")));
        }
        let lamport = entries.iter().map(|entry| entry.lamport).max().unwrap_or(0);
        if !early {
            entries.iter().for_each(|entry| copy.tree.push(*entry));
            copy.reached = reached.or(copy.reached);
        }
        let lacking = !silent && copy.lacking(copy.tree.size()).next().is_some();
        disk.notes.extend(reached.map(|head| (origin, head)));
        let after = self.rng.between(0, 20);
        self.report(place, after, GossipEvent::Stored { ticket, lacking, lamport });
        Ok(())
    }

    fn persist(
        &mut self,
        place: usize,
        ticket: u64,
        origin: &str,
        state: CosignerState,
    ) -> Result<(), Broken> {
        let origin = self.place(origin);
        if self.breaks(Fault::SayPersisted) {
            self.report(place, 0, GossipEvent::Persisted { ticket });
            return Ok(());
        }
        let before = self.truth.states.entry((place, origin)).or_default();
        judge::goes_on(*before, state)
            .map_err(|what| ("persisted", format!("{place} of {origin}: {what}")))?;
        let unknown = self.disk_fails();
        if !unknown || self.rng.one_in(2) {
            self.truth.states.insert((place, origin), state);
            let disk = &mut self.members[place].disk;
            disk.copy(origin).state = state;
            let heads = [state.witnessed, state.mirrored].into_iter().flatten();
            disk.notes.extend(heads.map(|head| (origin, head)));
        }
        let after = self.rng.between(0, 20);
        let event =
            if unknown { GossipEvent::NotPersisted { ticket } } else { GossipEvent::Persisted { ticket } };
        self.report(place, after, event);
        Ok(())
    }

    /// Makes the proof from the own tree, or from what the last answer showed.
    fn prove(&mut self, place: usize, origin: &str, one: Head, other: Head) -> Result<(), Broken> {
        if self.breaks(Fault::KeepForks) {
            return Ok(());
        }
        let origin = self.place(origin);
        let Member { disk, process } = self.parts(place);
        let Some(process) = process else { return Ok(()) };
        for head in [one, other] {
            if !process.notes.contains(&(origin, head)) && !disk.notes.contains(&(origin, head)) {
                return Err(("notes", format!("{place} lacks the note of {head:?} of {origin}")));
            }
        }
        let (smaller, larger) = if one.size <= other.size { (one, other) } else { (other, one) };
        let own = disk.copy(origin).tree.clone();
        let (begins, proof) = if smaller.size == larger.size {
            (larger.root, Vec::new())
        } else if own.has(larger) {
            let begins = own.head_at(smaller.size).expect("it is smaller");
            (begins.root, own.proof(smaller.size, larger.size))
        } else {
            match &process.shown {
                Some((of, begins, head, proof))
                    if *of == origin && *head == larger && begins.size == smaller.size =>
                {
                    (begins.root, proof.clone())
                }
                _ => return Ok(()),
            }
        };
        let proof = Proof { origin, smaller, larger, begins, proof };
        self.take_fork(place, proof)
    }

    /// A fork proof from wherever: judged, kept, told.
    fn take_fork(&mut self, place: usize, proof: Proof) -> Result<(), Broken> {
        let origin = proof.origin;
        let signed = &self.truth.signed[origin];
        if !proof.holds() || !signed.contains(&proof.smaller) || !signed.contains(&proof.larger) {
            return Ok(());
        }
        self.seen.insert("fork proven");
        self.members[place].disk.forks.entry(origin).or_insert(proof);
        let origin = self.names[origin].clone();
        self.drive(place, GossipEvent::Forked { origin })
    }

    fn parts(&mut self, place: usize) -> Member<'_> {
        let member = &mut self.members[place];
        Member { disk: &mut member.disk, process: member.process.as_mut() }
    }

    /// A packet for an honest box, or for a liar.
    pub fn arrived(&mut self, to: usize, from: usize, packet: Packet) -> Result<(), Broken> {
        if !self.is_honest(to) {
            if let Packet::Ask { ticket, run, ask } = packet
                && let Some(said) = self.lie_to(to, from, ask)
            {
                self.send(to, from, Packet::Answer { ticket, run, said });
            }
            return Ok(());
        }
        if self.members[to].process.is_none() {
            return Ok(());
        }
        match packet {
            Packet::Hint { origin, head } => self.hear(to, from, origin, head, 0),
            Packet::ForkHint { origin } => {
                let (origin, from) = (self.names[origin].clone(), self.names[from].clone());
                self.drive(to, GossipEvent::ForkHinted { origin, from })
            }
            Packet::Ask { ticket, run, ask: Asked::Challenge { nonce } } => {
                self.called(to, Call { from, ticket, run, nonce })
            }
            Packet::Ask { ticket, run, ask } => {
                let said = self.answer(to, from, ask)?;
                self.send(to, from, Packet::Answer { ticket, run, said });
                Ok(())
            }
            Packet::Answer { ticket, run, said } => {
                if run == self.members[to].run {
                    self.answered(to, from, ticket, said)?;
                }
                Ok(())
            }
        }
    }

    /// A head from outside: verified, and held against what is here.
    fn hear(&mut self, to: usize, from: usize, origin: usize, head: Head, holds: u64) -> Result<(), Broken> {
        let believes = self.breaks(Fault::BelieveHeads);
        if origin >= self.names.len() || !(believes || self.truth.signed[origin].contains(&head)) {
            return Ok(());
        }
        let knows = self.breaks(Fault::KnowEverything);
        let names = &self.names;
        let member = &mut self.members[to];
        let Some(process) = &mut member.process else { return Ok(()) };
        if !process.machine.is_news(&names[origin], &head, &names[from], holds) {
            return Ok(());
        }
        process.notes.insert((origin, head));
        let tree = if origin == to { &member.disk.own } else { &member.disk.copy(origin).tree };
        let ours = tree.head_at(head.size).map(|head| head.root);
        let (ours, head) = match origin == to && knows {
            true => (Some(tree.head().root), tree.head()),
            false => (ours, head),
        };
        let (origin, from) = (self.names[origin].clone(), self.names[from].clone());
        self.drive(to, GossipEvent::Seen(Seen { origin, from, head, holds, ours }))
    }

    /// Answers a question from the disk.
    fn answer(&mut self, to: usize, from: usize, ask: Asked) -> Result<Said, Broken> {
        let disk = &mut self.members[to].disk;
        Ok(match ask {
            Asked::Heads => {
                let mut held = vec![(to, disk.own.head(), disk.own.size())];
                for (origin, copy) in &disk.copies {
                    let newest = [copy.reached, copy.state.witnessed].into_iter().flatten();
                    let reached = copy.reached.map_or(0, |head| head.size);
                    held.extend(newest.max_by_key(|head| head.size).map(|head| (*origin, head, reached)));
                }
                Said::Heads(held)
            }
            Asked::Range { origin, from, to: end } => {
                let (tree, reached) = disk.served(to, origin);
                let end = end.min(reached.size).min(from + 4_096);
                if from >= end {
                    return Ok(Said::Refused);
                }
                let entries = tree.entries[from as usize..end as usize].to_vec();
                Said::Range { from, entries, proof: tree.proof(end, reached.size), head: reached }
            }
            Asked::Objects { origin, ids } => {
                let own = origin == to;
                let found = ids.into_iter().filter(|id| own || disk.copy(origin).objects.contains(id));
                Said::Objects(found.take(3).collect())
            }
            Asked::Consistency { origin, old } => {
                let (tree, reached) = disk.served(to, origin);
                match tree.head_at(old).filter(|old| old.size <= reached.size) {
                    Some(old) => Said::Consistency {
                        root: old.root,
                        proof: tree.proof(old.size, reached.size),
                        head: reached,
                    },
                    None => Said::Refused,
                }
            }
            Asked::Cosigned { head, made } => {
                let ours = disk.own.has(head);
                for (role, maker, as_role) in made {
                    let genuine = maker == from && as_role == role;
                    if genuine || self.breaks(Fault::BelieveLabels) {
                        let from = self.names[from].clone();
                        self.drive(to, GossipEvent::Cosigned { from, role, head, ours })?;
                    }
                }
                Said::Taken
            }
            Asked::Fork(proof) => {
                // Without the card nobody can tell whether it is genuine.
                if !self.trusted(to).contains(&self.names[proof.origin]) {
                    return Ok(Said::Refused);
                }
                if !self.breaks(Fault::KeepForks) {
                    self.take_fork(to, proof)?;
                }
                Said::Taken
            }
            Asked::ForkOf { origin } => disk.forks.get(&origin).cloned().map_or(Said::Refused, Said::Fork),
            // These wait for the chip.
            Asked::Challenge { .. } => Said::Refused,
        })
    }

    /// Judges an answer.
    fn answered(&mut self, to: usize, from: usize, ticket: u64, said: Said) -> Result<(), Broken> {
        let believes = self.breaks(Fault::BelieveEntries);
        let after = self.rng.one_in(3).then(|| self.rng.between(0, 3_000));
        let Some(process) = &mut self.members[to].process else { return Ok(()) };
        let Some((_, ask)) = process.asked.remove(&ticket).filter(|(peer, _)| *peer == from) else {
            return Ok(());
        };
        let lie = GossipEvent::Failed { ticket, failure: Failure::False };
        let event = match (ask, said) {
            (_, Said::Refused) => GossipEvent::Failed { ticket, failure: Failure::Refused { after } },
            (Ask::Heads, Said::Heads(held)) => {
                for (origin, head, holds) in held {
                    self.hear(to, from, origin, head, holds)?;
                }
                GossipEvent::HeadsRead { ticket }
            }
            (Ask::Range { origin, from, to: end }, Said::Range { from: begins, entries, proof, head }) => {
                let origin = self.place(&origin);
                let signed = self.truth.signed[origin].contains(&head);
                let Member { disk, process } = self.parts(to);
                let copy = disk.copy(origin);
                let copied = copy.tree.with(&entries);
                let whole = begins == from && !entries.is_empty() && from + entries.len() as u64 <= end;
                let known = entries.iter().all(|entry| entry.lamport < 1 << 63);
                if copy.tree.size() != from {
                    GossipEvent::Failed { ticket, failure: Failure::Refused { after: None } }
                } else if !(believes || whole && known && signed && leads(copied, head, &proof)) {
                    lie
                } else if let Some(process) = process {
                    process.verified.insert(ticket, entries);
                    process.notes.insert((origin, head));
                    process.shown = Some((origin, copied, head, proof));
                    GossipEvent::Verified { ticket, copy: copied, head }
                } else {
                    return Ok(());
                }
            }
            (Ask::Objects { origin }, Said::Objects(ids)) => {
                let origin = self.place(&origin);
                let copy = self.members[to].disk.copy(origin);
                let wanted: BTreeSet<u64> = copy.lacking(copy.tree.size()).collect();
                if ids.iter().any(|id| !wanted.contains(id) && !copy.objects.contains(id)) {
                    lie
                } else {
                    let got = ids.len() as u64;
                    copy.objects.extend(ids);
                    let lacking = copy.lacking(copy.tree.size()).next().is_some();
                    GossipEvent::Objects { ticket, got, lacking }
                }
            }
            (Ask::Consistency { origin, old, .. }, Said::Consistency { root, proof, head }) => {
                let origin = self.place(&origin);
                let begins = Head { size: old, root };
                let holds = self.truth.signed[origin].contains(&head) && leads(begins, head, &proof);
                match self.parts(to).process.filter(|_| holds) {
                    Some(process) => {
                        process.notes.insert((origin, head));
                        process.shown = Some((origin, begins, head, proof));
                        GossipEvent::Consistent { ticket, root, head }
                    }
                    None => lie,
                }
            }
            (Ask::Cosigned { .. } | Ask::Fork { .. }, Said::Taken) => GossipEvent::Taken { ticket },
            (Ask::Challenge, Said::Vouched { by, nonce, chip }) => {
                self.judge_voucher(to, from, ticket, (by, nonce, chip))
            }
            (Ask::ForkOf { .. }, Said::Fork(proof)) => {
                if !self.breaks(Fault::KeepForks) {
                    self.take_fork(to, proof)?;
                }
                GossipEvent::Failed { ticket, failure: Failure::Refused { after: None } }
            }
            _ => lie,
        };
        self.drive(to, event)
    }
}

struct Member<'a> {
    disk: &'a mut Disk,
    process: Option<&'a mut Process>,
}

impl Disk {
    /// A log that is served, up to a head that is kept.
    fn served(&mut self, own: usize, origin: usize) -> (&Tree, Head) {
        if own == origin {
            return (&self.own, self.own.head());
        }
        let copy = self.copy(origin);
        (&copy.tree, copy.reached.unwrap_or(Head::empty()))
    }
}

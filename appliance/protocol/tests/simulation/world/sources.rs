//! Servers that tell the time and vouch for nothing: honest ones, liars, and whoever forges answers on the way.
//!
//! A liar who is alone is believed, as an authority would be; that cannot be helped, and the clock counts as doubtful until
//! somebody honest answers. What is checked (`liar`): one that contradicts what is known is found, and the true time stays
//! within what is known; after an honest answer it is there again, whatever was believed before. And (`sources`): nobody
//! is asked too often, or twice at a time.

use super::{Happening, World};
use crate::Fault;
use crate::log::Broken;
use crate::nature::{EPOCH, HOUR, Nature, SECOND, YEAR};
use crate::rng::Rng;
use bulla_protocol::sources::{SourcePlanner, SourcePolicy};
use bulla_protocol::time::{Bounds, ClockFinding, TimeEvent};

/// How often the box looks whom to ask.
const LOOK_EVERY: u64 = 15 * SECOND;
const TIMEOUT: u64 = 5 * SECOND;
const POLICY: SourcePolicy = SourcePolicy { every: 900 * SECOND, retry: 10 * SECOND };
/// An authority or a server that is off is told of once in this time.
const TOLD_AGAIN: u64 = HOUR;
/// Lies are at least this large: no pause of the power can make them true.
const LIE_MIN: u64 = 720 * HOUR;

/// A server.
struct Teller {
    up: bool,
    /// How far its clock is off, in milliseconds.
    lie: i64,
}

/// The servers, and what the box has asked them.
pub struct Tellers {
    /// Of its own, so that authorities meet the same weather with servers and without.
    rng: Rng,
    liars: bool,
    servers: Vec<Teller>,
    planner: SourcePlanner,
    /// By server, when it was last asked in this run, by the steady clock, and whether that is under way.
    asked: Vec<(Option<u64>, bool)>,
    /// When something that came too early, or too late, was last found in this run, by the steady clock.
    found: [Option<u64>; 2],
    /// A liar was believed, and nobody honest has been heard since.
    pub doubtful: bool,
}

impl Tellers {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x726f_7567_6874_696d);
        let count = rng.size(0, 3);
        let servers: Vec<Teller> = (0..count).map(|_| Teller { up: !rng.one_in(4), lie: 0 }).collect();
        Tellers {
            liars: rng.one_in(3),
            planner: SourcePlanner::new(POLICY, count, 0, 0),
            asked: vec![(None, false); count],
            found: [None; 2],
            doubtful: false,
            servers,
            rng,
        }
    }

    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// A process begins.
    pub fn start(&mut self, steady: u64) {
        let count = self.servers.len();
        self.planner = SourcePlanner::new(POLICY, count, steady, self.rng.next());
        self.asked = vec![(None, false); count];
        self.found = [None; 2];
    }

    /// Something was found about an answer.
    pub fn found(&mut self, finding: &ClockFinding, steady: u64) {
        match finding {
            ClockFinding::Inverted { .. } => self.found[0] = Some(steady),
            ClockFinding::Correction { .. } => self.found[1] = Some(steady),
            _ => {}
        }
    }

    /// What was known is known no more.
    pub fn forgotten(&mut self) {
        (self.doubtful, self.found) = (false, [None; 2]);
    }

    pub fn clear_up(&mut self) {
        for server in &mut self.servers {
            (server.up, server.lie) = (true, 0);
        }
    }
}

impl World {
    /// A server comes, goes, or has another clock.
    pub(super) fn turn_teller(&mut self, place: usize) {
        let Tellers { rng, servers, liars, .. } = &mut self.tellers;
        let server = &mut servers[place];
        server.up = self.nature.calm || !server.up;
        let lies = *liars && !self.nature.calm && rng.one_in(3);
        let lie = rng.between(LIE_MIN / SECOND, YEAR / SECOND) as i64 * SECOND as i64;
        server.lie = if !lies {
            0
        } else if rng.one_in(2) {
            lie
        } else {
            -lie
        };
        let after = 3 * Nature::spell(rng);
        self.plan(after, Happening::TurnTeller(place));
    }

    /// Asks whoever is due, and looks again.
    pub(super) fn ask_tellers(&mut self) -> Result<(), Broken> {
        let (run, steady) = (self.run, self.steady());
        self.plan(LOOK_EVERY, Happening::AskTellers { run });
        let Some(process) = &self.process else { return Ok(()) };
        let known = process.keeper.bounds(steady).is_some();
        for place in self.tellers.planner.poll(known, steady) {
            let (last, under_way) = std::mem::replace(&mut self.tellers.asked[place], (Some(steady), true));
            if under_way || last.is_some_and(|last| steady < last + POLICY.retry / 2) {
                return Err(("sources", format!("server {place} is asked again at {steady}: {last:?}")));
            }
            let (after, result) = self.teller(place);
            self.plan(after, Happening::Told { run, place, result, sent: steady });
        }
        Ok(())
    }

    /// What comes back, and when: bounds, with how far they are off.
    fn teller(&mut self, place: usize) -> (u64, Option<(Bounds, i64)>) {
        let Tellers { rng, servers, .. } = &mut self.tellers;
        let server = &servers[place];
        if !self.nature.wan || !server.up {
            return (if rng.one_in(2) { rng.between(1, 500) } else { TIMEOUT }, None);
        }
        let slow = |rng: &mut Rng| !self.nature.calm && rng.one_in(5);
        let mut way = || if slow(rng) { rng.between(0, 4 * SECOND) } else { rng.between(5, 300) };
        let (there, back) = (way(), way());
        if there + back >= TIMEOUT {
            return (TIMEOUT, None);
        }
        let radius = rng.between(1, 5);
        let off = rng.either_way(radius * SECOND);
        let midpoint = (EPOCH + self.now + there).saturating_add_signed(off + server.lie) / SECOND;
        let bounds = Bounds { lo: (midpoint - radius) * SECOND, hi: (midpoint + radius + 1) * SECOND };
        let forged = !self.nature.calm && rng.one_in(10);
        if !forged {
            return (there + back, Some((bounds, server.lie)));
        }
        // Somebody on the way, without the key: the answer is none, unless nobody verifies it.
        let believed = self.options.fault == Fault::BelieveForgeries;
        let forgery = Bounds { lo: bounds.lo + YEAR, hi: bounds.hi + YEAR };
        (there + back, believed.then_some((forgery, server.lie)))
    }

    /// An answer came, or none will.
    pub(super) fn told(
        &mut self,
        place: usize,
        result: Option<(Bounds, i64)>,
        sent: u64,
    ) -> Result<(), Broken> {
        let (steady, truth) = (self.steady(), EPOCH + self.now);
        let random = self.tellers.rng.next();
        self.tellers.planner.ended(place, result.is_some(), steady, random);
        self.tellers.asked[place].1 = false;
        let Some((bounds, lie)) = result else { return Ok(()) };
        let sent = if self.options.fault == Fault::ForgetSent { steady } else { sent };
        let (before, _) = self.within();
        let was_right = before.is_some_and(|known| known.lo <= truth && truth <= known.hi);
        self.clocks(TimeEvent::Reading { bounds, sent });
        let (after, floor) = self.within();
        let is_right = after.is_none_or(|known| known.lo <= truth && truth <= known.hi)
            && floor.is_none_or(|floor| floor <= truth);
        if lie == 0 {
            // What is wrong after this is for the clock's own check.
            self.tellers.doubtful = false;
            return if is_right { Ok(()) } else { Err(("clock", format!("{truth} is not in {after:?}"))) };
        }
        self.tellers.doubtful = !is_right;
        self.seen.insert(if is_right { "a liar who contradicts" } else { "a liar who is believed" });
        let apart = before.is_some_and(|known| bounds.hi < known.lo || bounds.lo > known.hi);
        if was_right && apart {
            if !is_right {
                return Err(("liar", format!("{truth} is not in {after:?} any more, for {bounds:?}")));
            }
            let found = self.tellers.found[usize::from(lie > 0)];
            if found.is_none_or(|found| steady - found > TOLD_AGAIN) {
                return Err(("liar", format!("{bounds:?} against {before:?} is not noticed")));
            }
        }
        Ok(())
    }

    fn within(&self) -> (Option<Bounds>, Option<u64>) {
        let steady = self.steady();
        let keeper = self.process.as_ref().map(|process| &process.keeper);
        (keeper.and_then(|keeper| keeper.bounds(steady)), keeper.and_then(|keeper| keeper.floor(steady)))
    }

    /// In calm weather whoever has a server knows the time.
    pub(super) fn check_known(&self) -> Result<(), Broken> {
        if self.tellers.count() > 0 && (self.within().0.is_none() || self.tellers.doubtful) {
            return Err(("liveness", "nobody knows the time".to_owned()));
        }
        Ok(())
    }
}

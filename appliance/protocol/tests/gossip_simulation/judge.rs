//! What must hold, by what nobody in the world knows.

use crate::driver::Copy;
use crate::world::{Broken, World};
use bulla_formats::hash::Hash;
use bulla_formats::witness::Role;
use bulla_protocol::gossip::{CosignerState, Head};
use std::ops::Range;

/// What a box cosigned, among all that is cosigned of a log.
fn cosigned_by(place: usize) -> Range<(usize, Role, Head)> {
    let first = |place| (place, Role::ALL[0], Head { size: 0, root: Hash([0; 32]) });
    first(place)..first(place + 1)
}

/// Whether a state follows another.
pub fn goes_on(before: CosignerState, after: CosignerState) -> Result<(), String> {
    let size = |head: Option<Head>| head.map_or(0, |head| head.size);
    let back = |before: Option<Head>, after: Option<Head>| {
        size(after) < size(before) || size(after) == size(before) && before.is_some() && after != before
    };
    if back(before.witnessed, after.witnessed)
        || back(before.mirrored, after.mirrored)
        || before.frozen && !after.frozen
    {
        return Err(format!("{before:?} becomes {after:?}"));
    }
    Ok(())
}

/// Most boxes of a site in which every state of every box is looked at.
const SMALL_SITE: usize = 8;
/// In larger ones, every so many events.
const SAMPLE: u64 = 200;

impl World {
    fn are_consistent(&self, origin: usize, one: Head, other: Head) -> bool {
        one == other || self.truth.branches[origin].iter().any(|tree| tree.has(one) && tree.has(other))
    }

    /// A cosignature is made: what must be true then.
    pub fn check_cosignature(
        &self,
        place: usize,
        origin: usize,
        role: Role,
        head: Head,
    ) -> Result<(), Broken> {
        let who = || format!("{place} cosigns {head:?} of {origin} as {role:?}");
        let Some(copy) = self.members[place].disk.copies.get(&origin) else {
            return Err(("persisted", format!("{} and has nothing of it", who())));
        };
        let state = copy.state;
        if state.frozen {
            return Err(("frozen", who()));
        }
        let allowed = if role == Role::Witness { state.witnessed } else { state.mirrored };
        if allowed.is_none_or(|allowed| allowed.size < head.size) {
            return Err(("persisted", format!("{}: on disk is {allowed:?}", who())));
        }
        for (_, _, before) in self.truth.cosigned[origin].range(cosigned_by(place)) {
            if !self.are_consistent(origin, *before, head) {
                return Err(("consistent", format!("{}, and {before:?} before", who())));
            }
        }
        if role == Role::Mirror {
            if !copy.tree.has(head) {
                return Err(("mirrored", format!("{} and holds {} entries", who(), copy.tree.size())));
            }
            if let Some(id) = copy.lacking(head.size).next() {
                return Err(("mirrored", format!("{} and lacks object {id}", who())));
            }
        }
        Ok(())
    }

    /// Who holds how much is what was cosigned.
    pub fn check_counts(&self, place: usize) -> Result<(), Broken> {
        if self.is_skipped() {
            return Ok(());
        }
        let Some(process) = &self.members[place].process else { return Ok(()) };
        for facts in process.machine.facts() {
            let peer = self.place(&facts.peer);
            let said = [(Role::Mirror, facts.holds.mirrored), (Role::Witness, facts.holds.witnessed)];
            for (role, head) in said.into_iter().filter_map(|(role, head)| Some((role, head?))) {
                if !self.truth.cosigned[place].contains(&(peer, role, head)) {
                    return Err(("counted", format!("{place} counts {peer} as {role:?} of {head:?}")));
                }
            }
        }
        Ok(())
    }

    /// What a box says it knows stays so for a while: of a large site a sample is as good.
    fn is_skipped(&self) -> bool {
        self.names.len() > SMALL_SITE && !self.events.is_multiple_of(SAMPLE)
    }

    pub fn check_process(&mut self, place: usize) -> Result<(), Broken> {
        let boxes = self.names.len();
        if self.is_skipped() {
            return Ok(());
        }
        let Some(process) = &self.members[place].process else { return Ok(()) };
        let remembered = process.machine.remembered();
        if remembered > boxes * (4 * boxes + 48) {
            return Err(("bounded", format!("{place} remembers {remembered} things of {boxes} boxes")));
        }
        self.check_fresh(place)
    }

    /// At the end, after calm.
    pub fn judge(&self) -> Result<(), Broken> {
        let honest: Vec<usize> = (0..self.members.len()).filter(|place| self.is_honest(*place)).collect();
        for origin in 0..self.members.len() {
            self.judge_forks(origin, &honest)?;
            if self.is_single(origin) {
                self.judge_copies(origin, &honest)?;
            }
        }
        honest.iter().try_for_each(|place| self.judge_disk(*place, &honest))?;
        honest.iter().try_for_each(|place| self.judge_trust(*place, &honest))
    }

    fn copy(&self, place: usize, origin: usize) -> Option<&Copy> {
        self.members[place].disk.copies.get(&origin)
    }

    /// Every honest box holds the log, and its box knows.
    fn judge_copies(&self, origin: usize, honest: &[usize]) -> Result<(), Broken> {
        let head = self.members[origin].disk.own.head();
        if head.size == 0 {
            return Ok(());
        }
        for place in honest.iter().filter(|place| **place != origin) {
            let state = self.copy(*place, origin).map(|copy| copy.state).unwrap_or_default();
            if (state.mirrored, state.witnessed) != (Some(head), Some(head)) {
                let what = format!("{place} has cosigned {state:?} of {origin}, whose head is {head:?}");
                return Err(("converged", what));
            }
        }
        let Some(process) = &self.members[origin].process else {
            return Err(("converged", format!("{origin} does not run")));
        };
        let others = honest.len() - 1;
        let counted = (process.machine.mirrored(others), process.machine.witnessed(others));
        if others > 0 && counted.0.min(counted.1) < head.size {
            return Err(("converged", format!("{origin} counts {counted:?} of {}", head.size)));
        }
        Ok(())
    }

    /// A fork that honest boxes hold both sides of is frozen by all.
    fn judge_forks(&self, origin: usize, honest: &[usize]) -> Result<(), Broken> {
        let copies = || honest.iter().filter_map(|place| Some((*place, self.copy(*place, origin)?)));
        let others = honest.iter().filter(|place| **place != origin);
        let melted: Vec<&usize> = others
            .filter(|place| !self.copy(**place, origin).is_some_and(|copy| copy.state.frozen))
            .collect();
        let frozen = copies().find(|(_, copy)| copy.state.frozen).map(|(place, _)| place);
        if let (Some(frozen), false) = (frozen, melted.is_empty()) {
            return Err(("frozen", format!("{frozen} has frozen {origin}, {melted:?} have not")));
        }
        if frozen.is_some() {
            return Ok(());
        }
        for (one, a) in copies() {
            for (other, b) in copies() {
                let (Some(small), Some(large)) = (a.reached, b.reached) else { continue };
                if small.size <= large.size && !b.tree.has(small) {
                    let what =
                        format!("{one} holds {small:?} of {origin}, {other} {large:?} of another history");
                    return Err(("frozen", what));
                }
            }
        }
        Ok(())
    }

    /// A box with an older disk has learnt it when somebody honest knew more.
    fn judge_disk(&self, place: usize, honest: &[usize]) -> Result<(), Broken> {
        let member = &self.members[place];
        if member.lost.is_none() || member.learnt {
            return Ok(());
        }
        for other in honest.iter().filter(|other| **other != place) {
            let Some(copy) = self.copy(*other, place) else { continue };
            let known = [copy.reached, copy.state.witnessed].into_iter().flatten();
            if let Some(head) = known.max_by_key(|head| head.size).filter(|head| !member.disk.own.has(*head))
            {
                return Err(("behind", format!("{place} does not know that {other} has {head:?}")));
            }
        }
        Ok(())
    }
}

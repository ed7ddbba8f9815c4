//! Leases: which one counts, for how long it holds, and what limits follow from it.
//!
//! Refuses to do: I/O, clocks; verify a signature (`bulla_formats::lease` has).
//! Invariants: an older lease never replaces a newer one, so that nobody can bring back a longer one by replaying it;
//! whatever the wall clock says, a lease never holds for longer than from its issue to its end; limits of a lease
//! only ever narrow those of the box.

use crate::mode::{AtLimit, Limits};
use bulla_formats::body::manifest;
use bulla_formats::lease::{LeaseContent, LeaseLimits};

/// What is known of the time, Unix milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What the wall clock shows.
    pub wall: u64,
    /// The true time is not before this.
    pub floor: Option<u64>,
    /// Nor after this.
    pub ceiling: Option<u64>,
}

impl Known {
    /// The latest time it may be; where nobody knows, the latest that anything says it is.
    fn latest(&self, issued_at: u64) -> u64 {
        self.ceiling.unwrap_or(self.wall.max(self.floor.unwrap_or(0))).max(issued_at)
    }
}

/// What became of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Whether it replaces the one before; otherwise it is that one.
    pub fresh: bool,
    /// For how many milliseconds it holds from now on.
    pub expires_in: u64,
}

/// Why a lease is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefusal {
    /// It is over.
    #[error("it has ended: it was good for {0} s from its issue")]
    Expired(u64),
    /// A later one is known.
    #[error("a lease that was issued later is known")]
    Overtaken,
    /// Another one of the same instant is known.
    #[error("another lease of the same instant is known: the issuer has signed two")]
    Contradicts,
}

/// Whether `new` counts, beside the one that counted before.
///
/// # Errors
/// Why it does not.
pub fn judge(new: &LeaseContent, kept: Option<&LeaseContent>, now: &Known) -> Result<Term, LeaseRefusal> {
    let fresh = kept != Some(new);
    match kept {
        Some(kept) if fresh && kept.issued_at > new.issued_at => return Err(LeaseRefusal::Overtaken),
        Some(kept) if fresh && kept.issued_at == new.issued_at => return Err(LeaseRefusal::Contradicts),
        _ => {}
    }
    match new.expires_at.saturating_sub(now.latest(new.issued_at)) {
        0 => Err(LeaseRefusal::Expired(new.expires_at.saturating_sub(new.issued_at) / 1_000)),
        expires_in => Ok(Term { fresh, expires_in }),
    }
}

/// How many seals are left under a lease that was taken when the log had `since` entries, and has `size` now: every
/// entry counts as a seal, because after a restart nobody remembers which were.
pub fn seals_left(lease: &LeaseContent, since: u64, size: u64) -> Option<u64> {
    lease.seals.map(|most| most.saturating_sub(size.saturating_sub(since)))
}

/// The narrower of the box's own limits and those of its lease.
pub fn narrower(own: Limits, lease: &LeaseLimits) -> Limits {
    let least = |own: Option<u64>, other: Option<u64>| match (own, other) {
        (Some(own), Some(other)) => Some(own.min(other)),
        (own, other) => own.or(other),
    };
    let safe = own.at_limit == AtLimit::Safe || lease.at_limit == manifest::AtLimit::Safe;
    Limits {
        duration: least(own.duration, lease.seconds.map(|seconds| seconds.saturating_mul(1_000))),
        seals: least(own.seals, lease.seals),
        holders: own.holders.max(lease.holders.map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX))),
        at_limit: if safe { AtLimit::Safe } else { AtLimit::Continue },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn lease(issued_at: u64, hours: u64) -> LeaseContent {
        LeaseContent {
            version: 1,
            fleet: "bank.example".to_owned(),
            origin: "bank.example/abababababababababababababababababababab/1".to_owned(),
            issuer: "hub-1".to_owned(),
            issued_at,
            expires_at: issued_at + hours * HOUR,
            seals: Some(100),
            limits: LeaseLimits {
                seconds: Some(60),
                seals: None,
                holders: Some(2),
                at_limit: manifest::AtLimit::Continue,
            },
        }
    }

    fn at(wall: u64) -> Known {
        Known { wall, floor: None, ceiling: None }
    }

    #[test]
    fn a_lease_ends_whatever_the_clock_says() {
        let one = lease(100 * HOUR, 2);
        for (now, left) in [
            (at(100 * HOUR), 2 * HOUR),
            (at(101 * HOUR), HOUR),
            // Set back: as if it had been issued just now, and no longer.
            (at(0), 2 * HOUR),
            (Known { floor: Some(101 * HOUR), ..at(0) }, HOUR),
            (Known { ceiling: Some(101 * HOUR), ..at(0) }, HOUR),
            // A clock that is ahead does not end it when somebody knows better.
            (Known { ceiling: Some(101 * HOUR), ..at(900 * HOUR) }, HOUR),
        ] {
            assert_eq!(judge(&one, None, &now), Ok(Term { fresh: true, expires_in: left }), "{now:?}");
        }
        for now in [at(102 * HOUR), Known { floor: Some(102 * HOUR), ..at(0) }] {
            assert_eq!(judge(&one, None, &now), Err(LeaseRefusal::Expired(7_200)), "{now:?}");
        }
    }

    #[test]
    fn the_later_one_counts() {
        let (first, second) = (lease(100 * HOUR, 900), lease(101 * HOUR, 1));
        let now = at(101 * HOUR);
        assert!(judge(&second, Some(&first), &now).is_ok_and(|term| term.fresh), "a shorter one takes away");
        assert_eq!(judge(&first, Some(&second), &now), Err(LeaseRefusal::Overtaken), "and is not undone");
        assert!(judge(&second, Some(&second), &now).is_ok_and(|term| !term.fresh));
        let other = LeaseContent { issuer: "hub-2".to_owned(), ..second.clone() };
        assert_eq!(judge(&other, Some(&second), &now), Err(LeaseRefusal::Contradicts));
    }

    #[test]
    fn seals_are_used_up_across_restarts() {
        let one = lease(HOUR, 1);
        assert_eq!(
            [10, 60, 110, 900].map(|size| seals_left(&one, 10, size)),
            [Some(100), Some(50), Some(0), Some(0)]
        );
        assert_eq!(seals_left(&LeaseContent { seals: None, ..one }, 10, 900), None);
    }

    #[test]
    fn limits_only_narrow() {
        let own = Limits { duration: Some(30_000), seals: Some(7), holders: 1, at_limit: AtLimit::Continue };
        let said = LeaseLimits { seconds: Some(60), seals: Some(9), ..lease(0, 1).limits };
        assert_eq!(narrower(own, &said), Limits { holders: 2, ..own });
        assert_eq!(narrower(Limits::default(), &said).duration, Some(60_000));
        let safe = LeaseLimits { at_limit: manifest::AtLimit::Safe, ..said };
        assert_eq!(narrower(own, &safe).at_limit, AtLimit::Safe);
        let own_safe = Limits { at_limit: AtLimit::Safe, ..own };
        assert_eq!(narrower(own_safe, &said).at_limit, AtLimit::Safe);
    }
}

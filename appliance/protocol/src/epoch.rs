//! When a sealing key has served its time, and when its successor must be ready.
//!
//! Refuses to do: make keys. Invariant: an epoch never ends before its successor is endorsed; it is
//! extended instead, and the next key-epoch entry says so.

/// How long an epoch lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochPolicy {
    /// Longest life in milliseconds.
    pub max_millis: u64,
    /// Most seals.
    pub max_seals: u64,
}

/// What to do about the current epoch before the next batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochDecision {
    /// Go on sealing with the current key.
    Keep,
    /// Begin the next epoch with this batch. `extended` says the old one outlived its policy.
    Rotate {
        /// Whether the old epoch outlived its policy for want of an endorsed successor.
        extended: bool,
    },
    /// The epoch is over its time, but no successor is endorsed: seal on, and say so.
    Extend,
}

/// The life of the current epoch.
#[derive(Debug, Clone)]
pub struct EpochLife {
    policy: EpochPolicy,
    began: u64,
    seals: u64,
    extended: bool,
}

impl EpochLife {
    /// An epoch that begins at `now` (milliseconds of any steady clock).
    pub fn begin(policy: EpochPolicy, now: u64) -> Self {
        EpochLife { policy, began: now, seals: 0, extended: false }
    }

    /// Seals made in this epoch.
    pub fn seals(&self) -> u64 {
        self.seals
    }

    /// Whether this epoch has outlived its policy.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// A batch with this many seals has been committed.
    pub fn sealed(&mut self, count: u64) {
        self.seals = self.seals.saturating_add(count);
    }

    /// Decides before a batch. `successor_ready`: the next epoch's keys exist and are endorsed.
    /// `commanded`: an operator asks for a new epoch with this very batch; a command that cannot be met
    /// is refused, not remembered, so that no epoch begins without the operator's act beside it.
    pub fn decide(&mut self, now: u64, successor_ready: bool, commanded: bool) -> EpochDecision {
        let old = now.saturating_sub(self.began) >= self.policy.max_millis;
        let over = old || self.seals >= self.policy.max_seals;
        if !over && !commanded {
            return EpochDecision::Keep;
        }
        if successor_ready {
            return EpochDecision::Rotate { extended: self.extended };
        }
        self.extended = self.extended || over;
        EpochDecision::Extend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: EpochPolicy = EpochPolicy { max_millis: 1_000, max_seals: 10 };

    #[test]
    fn by_time_by_count_by_command() {
        let mut life = EpochLife::begin(POLICY, 5);
        assert_eq!(life.decide(1_004, true, false), EpochDecision::Keep);
        assert_eq!(life.decide(1_005, true, false), EpochDecision::Rotate { extended: false });
        let mut life = EpochLife::begin(POLICY, 0);
        life.sealed(10);
        assert_eq!(life.decide(1, true, false), EpochDecision::Rotate { extended: false });
        let mut life = EpochLife::begin(POLICY, 0);
        assert_eq!(life.decide(1, true, true), EpochDecision::Rotate { extended: false });
    }

    #[test]
    fn without_a_successor_it_is_extended_and_says_so() {
        let mut life = EpochLife::begin(POLICY, 0);
        assert_eq!(life.decide(1_000, false, false), EpochDecision::Extend);
        assert!(life.is_extended());
        assert_eq!(life.decide(1_001, true, false), EpochDecision::Rotate { extended: true });
        let mut life = EpochLife::begin(POLICY, 0);
        assert_eq!(life.decide(1, false, true), EpochDecision::Extend);
        assert!(!life.is_extended(), "a command that cannot be met yet is not an overrun");
        assert_eq!(life.decide(2, true, false), EpochDecision::Keep, "and it is not remembered");
    }

    #[test]
    fn a_clock_that_goes_back_never_ends_an_epoch() {
        let mut life = EpochLife::begin(POLICY, 5_000);
        assert_eq!(life.decide(0, true, false), EpochDecision::Keep);
    }
}

//! The operator's lock: while it is on, the box verifies and takes no new seals, or keeps them when policy says so.
//!
//! Kept as a named value of the control store, so that a restart does not lift it.
//! Refuses to do: take an unreadable lock for none; a box that cannot tell stays locked.

use serde::Serialize;

/// Name of the control value. Empty: not locked.
pub const LOCK: &str = "lock";
const VERSION: u8 = 1;

/// A lock in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lock {
    /// Wall time at which it was put on (Unix milliseconds).
    pub since_millis: u64,
    /// Registered name of the operator.
    pub operator: String,
    /// The operator's words.
    pub reason: String,
    /// Whether the log has an entry of it yet.
    pub logged: bool,
}

impl Lock {
    /// Version, since u64, logged u8, length u8 and operator, reason.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&self.since_millis.to_be_bytes());
        bytes.push(self.logged.into());
        let operator = &self.operator.as_bytes()[..self.operator.len().min(255)];
        bytes.push(operator.len() as u8);
        bytes.extend_from_slice(operator);
        bytes.extend_from_slice(self.reason.as_bytes());
        bytes
    }

    /// What the control store holds; `None`: not locked.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return None;
        }
        let unreadable = Lock {
            since_millis: 0,
            operator: String::new(),
            reason: "the stored lock is not readable".to_owned(),
            logged: true,
        };
        Some(Self::parse(bytes).unwrap_or(unreadable))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let (since, rest) = rest.split_first_chunk::<8>()?;
        let (logged, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first()?;
        let (operator, reason) = rest.split_at_checked(usize::from(*length))?;
        (*version == VERSION).then_some(Lock {
            since_millis: u64::from_be_bytes(*since),
            operator: std::str::from_utf8(operator).ok()?.to_owned(),
            reason: std::str::from_utf8(reason).ok()?.to_owned(),
            logged: *logged == 1,
        })
    }
}

/// What an operator asks for.
#[derive(Debug, Clone)]
pub struct LockChange {
    /// Whether to lock.
    pub lock: bool,
    /// The operator's registered name.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LockAnswer {
    /// Whether the box is locked now.
    pub locked: bool,
    /// Whether this request changed that.
    pub changed: bool,
    /// Whether the log has an entry of it; if not, it is in the journal, and a lock is logged later.
    pub logged: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_comes_back_as_it_was_and_damage_never_unlocks() {
        let lock = Lock {
            since_millis: 7,
            operator: "ops-1".to_owned(),
            reason: "stock-taking \u{2713}".to_owned(),
            logged: false,
        };
        let bytes = lock.encode();
        assert_eq!(Lock::decode(&bytes), Some(lock));
        assert_eq!(Lock::decode(&[]), None);
        for length in 1..16 {
            assert!(Lock::decode(&bytes[..length]).is_some(), "{length}");
        }
        assert!(Lock::decode(&[2, 0, 0]).is_some());
    }
}

//! The roster: which boxes a fleet has, which people decide, and by whose will each of that came to be.
//!
//! It begins with the minutes of the key ceremony, which the fleet root signed, and goes on with changes that the
//! people of the version before approved. So it needs no other signature, and anybody can replay it from the root to
//! its last version: the whole history is the audit trail.
//!
//! Refuses to do: any input or output, clocks, randomness; hold secrets; judge evidence of hardware (enrolment does).
//! Invariants: a [`roster::Roster`] went through every change by the rules of docs/formats.md section 15; the hash of an
//! endorsement key that left the fleet comes back only by a pardon, and by each pardon once.
#![forbid(unsafe_code)]

pub mod backup;
pub mod deed;
pub mod delivery;
pub mod followed;
pub mod inventory;
mod refusal;
pub mod roster;
pub mod rows;
pub mod terms;
pub mod vouched;
mod words;

pub use bulla_approvals as approvals;
pub use refusal::{Result, RosterRefusal};

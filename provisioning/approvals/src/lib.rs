//! Approvals: M of N people agree to an action, and it is carried out once.
//!
//! An action names the one version of the fleet's roster that it acts on; carrying it out makes the next. So no list of
//! spent approvals is kept: whoever holds the roster holds what was consumed, and a restored copy of anything else
//! brings nothing back. A restored copy of the roster itself is found by whoever has seen a newer one ([`Record::check`]).
//!
//! Refuses to do: any input or output, clocks, randomness; decide what an action means.
//! Invariants: [`Approved`] has no public constructor; people are counted, not keys; every refusal has a code that never
//! changes. The bytes are in docs/formats.md section 15.
#![forbid(unsafe_code)]

pub mod action;
pub mod at_box;
pub mod electorate;
mod record;
mod refusal;

pub use record::{Approved, Record};
pub use refusal::{Refusal, Result};

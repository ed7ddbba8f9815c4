//! What a boot's event log proves, and how it differs from what was expected.
//!
//! A TPM's quote gives the values of the PCRs; the firmware's event log says which measurements made them. Replaying it
//! shows that PCR numbers and digests are those of the boot, *and nothing more*: the type of an event, and often its
//! data, is whatever somebody wrote beside the digest.
//!
//! Refuses to do: read files or talk to a TPM; decide anything on an event's type, or on data that does not hash to the
//! event's digest.
//! Invariant: whatever is called *proven* here follows from the PCR values alone.
#![forbid(unsafe_code)]

pub mod difference;
pub mod event_log;
pub mod replay;

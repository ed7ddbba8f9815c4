//! The bytes of Bulla and what they mean: entries, proofs, checkpoints, quotes, `.seal` and trust
//! files, and the verifier that judges them.
//!
//! Refuses to do: read a clock, a file, a socket or a random number. Time and randomness are
//! arguments; effects are the caller's. `docs/formats.md` is the normative description.
#![forbid(unsafe_code)]

pub mod anchoring;
pub mod audit;
pub mod backup;
pub mod body;
pub mod box_status;
pub mod checked_json;
pub mod der;
pub mod dial;
pub mod endorsement;
pub mod enrolment;
pub mod entry;
pub mod erasure;
pub mod hash;
pub mod hub_log;
pub mod json;
pub mod lease;
pub mod manifest_file;
pub mod medium;
pub mod merkle;
pub mod network;
pub mod network_record;
pub mod note;
pub mod origin;
pub mod peer;
pub mod report;
pub mod retirement;
pub mod revocation;
pub mod seal_file;
pub mod sig;
pub mod succession;
pub mod tile;
pub mod tpm;
pub mod trust;
pub mod update;
pub mod update_record;
pub mod verify;
pub mod witness;

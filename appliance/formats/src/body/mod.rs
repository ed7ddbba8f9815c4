//! Bodies: what an entry of each kind says. One file per kind.
//!
//! Kinds without a module here are reserved in [`crate::entry::Kind`] and opaque to this version.

pub mod anchor;
pub mod attestation;
pub mod clock;
pub mod incident;
pub mod integrity;
pub mod key_epoch;
pub mod manifest;
pub mod mirror;
pub mod mode_change;
pub mod operator_action;
pub mod probe;
pub mod revocation;
pub mod roster;
pub mod seal;
pub mod self_test;
pub mod succession;

/// Longest free text inside a body, in bytes.
pub const TEXT_BYTES_MAX: usize = 1_024;

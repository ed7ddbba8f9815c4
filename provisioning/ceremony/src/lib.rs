//! The fleet root: generated and used by M of N custodians, none of whom ever holds it.
//!
//! Custodians run as separate processes, each with its own directory, and exchange signed messages as files (on a
//! stick, a share, or one laptop). The root is a FROST key (RFC 9591): what it signs is plain Ed25519. One custodian
//! alone is possible and marked loudly.
//!
//! Refuses to do: any input or output, clocks; randomness is an argument (but for the ephemeral keys that age draws
//! for the shares it encrypts).
//! Invariants: effects come out as *persist* ([`custodian::Custodian::state`]) and *then* show
//! ([`custodian::Custodian::said`]); no nonce is used twice; whoever plays false is named.
#![forbid(unsafe_code)]

pub mod board;
pub mod coordinator;
pub mod custodian;
mod error;
pub mod scheme;
pub mod state;
pub mod transcript;
pub mod wire;

pub use error::{CeremonyError, Result};
pub use frost_ed25519::rand_core;

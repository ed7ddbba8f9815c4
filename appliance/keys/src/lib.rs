//! The keys of a box behind one service: in a TPM 2.0, or in files for laptops.
//!
//! Does: makes the keys once, opens them again, quotes, certifies, signs, counts, seals. Reconnects by itself when the
//! TPM or its daemon restarts.
//! Refuses: another TPM than the one enrolled, signing outside data with the attestation key, replacing keys.
//! Invariants: every attestation handed out has been verified first; no object or session is left in the TPM; with a
//! TPM, no private key outside it exists in the clear.
#![deny(unsafe_code)]

mod actor;
mod chip;
mod device;
mod epoch_key;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod interop_key;
mod service;
mod signer;
mod software;
mod state;
mod tpm;

pub use device::{
    Certification, Cleared, CounterCertificate, Device, DeviceKey, ENDORSED_PCRS, Endorsement, FarewellKey,
    Provider, Quote, Role,
};
pub use epoch_key::{EpochKey, SealingKey};
pub use error::KeyError;
pub use interop_key::InteropKey;
pub use service::{DEADLINE, KeyService, clear, farewell_quote, floor, raise_floor};
pub use signer::{CONNECTIONS_MAX, Signer};

/// The most bytes [`KeyService::seal`] takes: what the PC Client profile guarantees for a sealed object.
pub const MAX_SEALED: usize = 128;

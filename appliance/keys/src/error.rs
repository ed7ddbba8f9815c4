//! What can go wrong with a key, told apart by whose turn it is to act.
//!
//! Invariant: no variant carries a secret; TPM response codes are given as numbers, so that they can be looked up.

use bulla_formats::tpm::TpmError;
use std::path::PathBuf;
use thiserror::Error;

/// A key operation that did not happen, or whose effect is unknown (see [`KeyError::Unavailable`]).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The TPM did not answer in time or cannot be reached. Retry later; the service reconnects by itself.
    ///
    /// A counter increment that ends so may or may not have happened: read the counter before the next one.
    #[error("{what}: the TPM does not answer ({reason}); retry when it is back")]
    Unavailable {
        /// The operation.
        what: &'static str,
        /// What was seen.
        reason: String,
    },
    /// Another TPM answers than the one these keys live in. Connect the right one, or enrol this one anew.
    #[error("another TPM answers: its endorsement key is {found}, the keys belong to {expected}")]
    OtherTpm {
        /// Hex name of the endorsement key the keys belong to.
        expected: String,
        /// Hex name of the one found.
        found: String,
    },
    /// The right TPM, but an object of ours is gone or replaced: it was cleared, or somebody evicted it. Enrol anew.
    #[error(
        "the TPM no longer holds the {object} (cleared, or removed by hand); create new keys and enrol anew"
    )]
    Lost {
        /// The object.
        object: &'static str,
    },
    /// There are no keys where they were expected. Create them, or mount the right directory.
    #[error("no keys at {path}; create them first, or check that the state directory is mounted")]
    Missing {
        /// The file that is not there.
        path: PathBuf,
    },
    /// Keys exist already and are never overwritten.
    #[error("{path} exists; keys are never overwritten, use another directory or move it away")]
    Exists {
        /// The file that is there.
        path: PathBuf,
    },
    /// The keys were made by the other provider.
    #[error("{path} holds keys of provider {found}, the configuration says {expected}")]
    OtherProvider {
        /// The key file.
        path: PathBuf,
        /// Provider of the configuration.
        expected: &'static str,
        /// Provider in the file.
        found: &'static str,
    },
    /// A stored file or blob is not what was written. Restore it from a copy.
    #[error("{what} is damaged: {reason}; restore it from a copy")]
    Damaged {
        /// The file or blob.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TPM answered and said no. The response code tells why (TPM 2.0 Part 2, 6.6).
    #[error("{what}: the TPM refused: {reason}")]
    Refused {
        /// The command.
        what: &'static str,
        /// Response code or finding.
        reason: String,
    },
    /// The operation needs a TPM and these keys are in software.
    #[error("{what} needs a TPM; these keys are in software")]
    NotHardware {
        /// The operation.
        what: &'static str,
    },
    /// The attestation key signs only what the TPM itself made.
    #[error("the attestation key never signs a digest from outside; use a quote with qualifying data")]
    AttestationIsNoOracle,
    /// The TPM address is not one this service accepts.
    #[error("TPM address {tcti:?}: {reason}")]
    Address {
        /// The address given.
        tcti: String,
        /// What is accepted.
        reason: &'static str,
    },
    /// The argument of a call cannot be served; the caller must change it.
    #[error("{what}: {reason}")]
    Argument {
        /// The operation.
        what: &'static str,
        /// What is accepted.
        reason: &'static str,
    },
    /// The TPM's own evidence does not verify: an interposer, or a faulty TPM. Nothing was handed out.
    #[error("{what}: the TPM's answer does not verify: {source}")]
    Evidence {
        /// The operation.
        what: &'static str,
        /// What does not hold.
        source: TpmError,
    },
    /// PCRs kept changing between quote and read-out. Retry when measurements have settled.
    #[error("PCRs changed on every one of {attempts} attempts to quote them; retry later")]
    Unsettled {
        /// How often it was tried.
        attempts: u32,
    },
    /// The operating system refused a file operation.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The service was shut down.
    #[error("the key service was shut down")]
    ShutDown,
}

//! The package of a staged log: one file that only its TPM can use, and once.
//!
//! `{"version": 1, "inUse", "registrar", "pin", "request", "issued", "keys", "sealedLogKey", "counter", "boot", "operators",
//! "sha256"}`, checked JSON (docs/ARCHITECTURE.md): DER and sealed bytes in base64, PCRs and tokens' SHA-256 in hex.
//! Refuses to do: believe a file whose parts do not belong together, or a longer one than it writes.
//! Invariant: nothing in it is a secret without the TPM; a copy of it gives nobody anything.

use super::bytes;
use crate::enrolling::{Boot, Registrar};
use crate::identity::write_atomically;
use anyhow::{Context as _, Result, ensure};
use bulla_enrolment::wire::{ANSWER_BYTES_MAX, Issued, REQUEST_BYTES_MAX, Request};
use bulla_formats::checked_json;
use bulla_formats::der;
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::origin::Origin;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read as _;
use std::path::Path;

pub(super) const VERSION: u32 = 1;
/// Longest file in bytes: a request with a long event log, in base64, and what else there is.
const BYTES_MAX: usize = REQUEST_BYTES_MAX / 3 * 4 + (1 << 20);
/// Most operators named.
const OPERATORS_MAX: usize = 1_024;

/// Who may begin the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operator {
    /// As the box knew them when the log was staged.
    pub name: String,
    /// SHA-256 of the token's text, in hex.
    pub sha256: String,
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Package {
    pub(super) version: u32,
    pub(super) in_use: String,
    pub(super) registrar: String,
    pub(super) pin: String,
    pub(super) request: String,
    pub(super) issued: String,
    pub(super) keys: String,
    pub(super) sealed_log_key: String,
    pub(super) counter: u64,
    pub(super) boot: Boot,
    pub(super) operators: Vec<Operator>,
}

impl Package {
    /// The package in a file; `None` without one.
    ///
    /// # Errors
    /// It is there and not believed.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX as u64 + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let believed = parse(&bytes).with_context(|| {
            format!("{} is not believed; bring it back from a copy, or stage a log anew", path.display())
        })?;
        Ok(Some(believed))
    }

    /// Keeps it in place of what was there.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, text(self)?.as_bytes())
    }

    /// The log that can be begun.
    ///
    /// # Errors
    /// None for a package that was read.
    pub fn origin(&self) -> Result<Origin> {
        Ok(Origin::parse(&self.asked()?.origin)?)
    }

    /// The log that was in use when it was staged.
    pub fn in_use(&self) -> &str {
        &self.in_use
    }

    /// Who may begin it when the list of clients is lost.
    pub fn operators(&self) -> &[Operator] {
        &self.operators
    }

    pub(super) fn asked(&self) -> Result<Request> {
        Ok(Request::decode(&bytes("request", &self.request)?)?)
    }

    /// What the registrar issued.
    ///
    /// # Errors
    /// None for a package that was read.
    pub fn issued(&self) -> Result<Issued> {
        Ok(der::decode("issued", &bytes("issued", &self.issued)?, ANSWER_BYTES_MAX)?)
    }

    pub(super) fn from(&self) -> Result<Registrar> {
        Registrar::parse(&self.registrar, &self.pin)
    }

    fn check(&self) -> Result<()> {
        ensure!(self.version == VERSION, "it is of version {}; use a newer bulla-box", self.version);
        ensure!(self.counter <= NUMBER_MAX, "its counter is larger than 2^63 - 1");
        ensure!(self.operators.len() <= OPERATORS_MAX, "it names more than {OPERATORS_MAX} operators");
        let request = self.asked()?;
        ensure!(
            request.in_use.as_deref() == Some(self.in_use.as_str()),
            "its request is not for the log after {}",
            self.in_use
        );
        // Signatures and names, as when it came.
        self.issued()?.check(&request)?;
        self.from()?;
        ensure!(!self.boot.is_empty(), "it names no boot");
        for (name, text) in [("keys", &self.keys), ("sealedLogKey", &self.sealed_log_key)] {
            bytes(name, text)?;
        }
        Ok(())
    }
}

/// The package in the bytes of its file.
///
/// # Errors
/// What is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Package> {
    ensure!(bytes.len() <= BYTES_MAX, "it is longer than {BYTES_MAX} bytes");
    let package: Package = serde_json::from_slice(&checked_json::body(bytes)?).context("it is damaged")?;
    package.check()?;
    Ok(package)
}

/// The text of its file.
///
/// # Errors
/// None for a package that was read.
pub fn text(package: &Package) -> Result<String> {
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(package)?))
}

//! The key service on a real TPM (swtpm), and the evidence it makes under a verifier that knows no TPM library.
#![allow(clippy::unwrap_used)] // a panic in a test is its report, in helper functions too

#[path = "../common/mod.rs"]
mod common;
mod endorsement;
mod enrolment;
mod evidence;
mod farewell;
mod floor;
mod keys;
mod outage;
mod proxy;

use bulla_keys::{KeyService, Provider};
use common::Swtpm;
use std::path::PathBuf;
use tempfile::TempDir;

/// A TPM with keys made in it.
struct Setup {
    dir: TempDir,
    swtpm: Swtpm,
    service: KeyService,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let swtpm = Swtpm::start(dir.path());
        let service =
            KeyService::create(&Provider::Tpm { tcti: swtpm.tcti() }, &dir.path().join("keys")).unwrap();
        Self { dir, swtpm, service }
    }

    fn provider(&self) -> Provider {
        Provider::Tpm { tcti: self.swtpm.tcti() }
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }
}

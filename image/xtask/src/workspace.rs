//! Where things are: the root of the checkout, the target directory, and a `cargo` that works on them.
//!
//! Both paths come from `cargo metadata`, so that a target directory moved by environment or by somebody's own
//! configuration is honoured.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// The checkout that `cargo xtask` was started in.
pub struct Workspace {
    /// Directory of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's target directory; everything xtask writes is below it.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo. Fails when cargo does not answer, or not with the two paths.
    pub fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let output = Command::new(cargo_program())
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(&manifest)
            .output()
            .context("cannot start cargo; install Rust from https://rustup.rs")?;
        ensure!(
            output.status.success(),
            "cargo metadata failed:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value =
            serde_json::from_slice(&output.stdout).context("cargo metadata did not print JSON")?;
        let path = |member: &str| {
            let text =
                metadata[member].as_str().with_context(|| format!("cargo metadata names no {member}"))?;
            Ok::<_, anyhow::Error>(PathBuf::from(text))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// A cargo command that runs in the root of the workspace.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(cargo_program());
        command.current_dir(&self.root);
        command
    }

    /// Tools that xtask builds for itself, with their version pinned.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }
}

/// The cargo that started us, so that a `+toolchain` on the command line holds for every step.
fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

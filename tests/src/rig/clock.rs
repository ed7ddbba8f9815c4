//! A wall clock that a test moves (package libfaketime): for boxes, for their fleet, and for whoever verifies what they
//! sealed. Timers keep to the steady clock of the machine.
//!
//! Refuses to do: anything with the clocks of TPMs and of time-stamp authorities; these have knobs of their own.

use anyhow::{Context as _, Result};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The clock. Whatever runs by it reads it anew at every look.
pub struct WallClock {
    directory: TempDir,
    library: PathBuf,
}

impl WallClock {
    /// It shows what the machine's clock shows.
    pub fn new() -> Result<Self> {
        let library = ["x86_64", "aarch64"]
            .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1"))
            .into_iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .context("libfaketime is not installed; install the package libfaketime")?;
        let clock = WallClock { directory: tempfile::tempdir()?, library };
        clock.set("+0")?;
        Ok(clock)
    }

    /// It shows so much more (`+365d`) or less (`-3d`) than the machine's clock, at once. By a rename: nobody reads half a file.
    pub fn set(&self, offset: &str) -> Result<()> {
        let fresh = self.directory.path().join("offset.new");
        fs::write(&fresh, format!("{offset}\n"))?;
        Ok(fs::rename(&fresh, self.offset())?)
    }

    fn offset(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// What a program's environment must hold to run by it.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("FAKETIME_DONT_RESET", "1".into()),
        ]
    }

    /// The program, to be started by this clock.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment());
        command
    }

    /// A script that runs `program` by it.
    pub fn launcher(&self, program: &Path) -> Result<PathBuf> {
        let text =
            |path: &Path| Ok::<_, anyhow::Error>(path.to_str().context("a path is not UTF-8")?.to_owned());
        let mut script = "#!/bin/sh\nexec env ".to_owned();
        for (name, value) in self.environment() {
            script += &format!("{name}='{}' ", text(Path::new(&value))?);
        }
        script += &format!("'{}' \"$@\"\n", text(program)?);
        let name = program.file_name().context("a program has a name")?.to_string_lossy();
        let launcher = self.directory.path().join(format!("{name}-in-time"));
        fs::write(&launcher, script)?;
        fs::set_permissions(&launcher, fs::Permissions::from_mode(0o700))?;
        Ok(launcher)
    }
}

//! A real box for a test: its own swtpm, its own directory, its own clients.
//!
//! Everything is torn down on drop. The programs come from `BULLA_BOX_BIN`, `BULLA_BIN`, `BULLA_FLEET_BIN`, `BULLA_HUB_BIN`
//! and `BULLA_SIGNER_BIN`, or from beside the test binary; a missing program fails the test and says how to build it.
//! Refuses to do: skip. What cannot run, fails.

pub mod account;
pub mod alerting;
pub mod branch;
pub mod browser;
mod client;
pub mod clock;
pub mod cut;
pub mod described;
pub mod disk;
mod door;
mod events;
pub mod fleet;
pub mod flood;
pub mod folder;
mod form;
mod forward;
pub mod hook;
pub mod hub;
pub mod lan;
pub mod liar;
pub mod load;
pub mod mailbox;
pub mod netns;
pub mod outage;
pub mod peer;
pub mod proxy;
pub mod recipe;
pub mod roughtime;
pub mod site;
pub mod stamp;
pub mod stick;
pub mod strace;
pub mod terminal;
pub mod tsa;
pub mod uplink;
pub mod wan;
mod wire;
pub mod witness;

pub use client::{Client, Response};
pub use events::{Event, EventReader};
pub use form::Form;
pub use wire::{TlsVersion, Wire};

use anyhow::{Context, Result, bail, ensure};
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::{Verification, verify, wanted_digest};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wan::Wan;
use xtask::box_fixture::{BoxFixture, BoxOptions};
use xtask::swtpm::Swtpm;

/// What keys rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// A swtpm of its own.
    Tpm,
    /// Files.
    Software,
}

/// How to set up a box.
pub struct RigOptions<'a> {
    /// Keys.
    pub keys: Keys,
    /// `tpm-endorsed-ram`, `tpm` or `software`.
    pub residency: &'a str,
    /// More lines of `box.toml`; the first of them are still in `[sealing]`.
    pub extra: &'a str,
    /// Where the state directory is, when not in the rig's own directory.
    pub state_dir: Option<&'a Path>,
    /// Where the TPM is to be found instead of at the swtpm itself (a proxy).
    pub tcti: Option<&'a str>,
    /// What runs the box instead of `bulla-box` itself (a script that changes its surroundings).
    pub launcher: Option<&'a Path>,
}

impl Default for RigOptions<'_> {
    fn default() -> Self {
        RigOptions {
            keys: Keys::Tpm,
            residency: "tpm-endorsed-ram",
            extra: "",
            state_dir: None,
            tcti: None,
            launcher: None,
        }
    }
}

/// A box with clients of every role.
pub struct Rig {
    /// The box.
    pub sealer: BoxFixture,
    /// Its TPM.
    pub tpm: Option<Swtpm>,
    ca_pem: String,
    tokens: [String; 3],
    trust: TrustFile,
    directory: TempDir,
}

/// Role of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Seals.
    Scanner = 0,
    /// Reads.
    Reader = 1,
    /// Runs the box.
    Operator = 2,
}

impl Rig {
    /// A running box on a TPM.
    pub fn start() -> Result<Self> {
        Self::start_with(&RigOptions::default())
    }

    /// A running box as told.
    pub fn start_with(options: &RigOptions<'_>) -> Result<Self> {
        let mut rig = Self::create(options)?;
        rig.sealer.start()?;
        Ok(rig)
    }

    /// A box that has been created and has clients, but does not run yet.
    pub fn create(options: &RigOptions<'_>) -> Result<Self> {
        let tpm = match options.keys {
            Keys::Tpm => Some(Self::manufacture_tpm()?),
            Keys::Software => None,
        };
        Self::create_on(options, tpm)
    }

    /// A new swtpm with the rig's directory, when a test needs its address before the box exists.
    pub fn manufacture_tpm() -> Result<(Swtpm, TempDir)> {
        let directory = tempfile::Builder::new().prefix("bulla-rig-").tempdir()?;
        let tpm = Swtpm::manufacture(&directory.path().join("tpm"))?;
        Ok((tpm, directory))
    }

    /// The same by the maker of another rig's TPM: one CA for both.
    pub fn manufacture_tpm_like(other: &Rig) -> Result<(Swtpm, TempDir)> {
        let directory = tempfile::Builder::new().prefix("bulla-rig-").tempdir()?;
        let ca = directory.path().join("tpm/ca");
        std::fs::create_dir_all(&ca)?;
        for file in std::fs::read_dir(other.directory().join("tpm/ca"))? {
            let file = file?;
            std::fs::copy(file.path(), ca.join(file.file_name()))?;
        }
        let tpm = Swtpm::manufacture(&directory.path().join("tpm"))?;
        Ok((tpm, directory))
    }

    /// Like [`Rig::create`], on a TPM made before.
    pub fn create_on(options: &RigOptions<'_>, tpm: Option<(Swtpm, TempDir)>) -> Result<Self> {
        let mut rig = Self::unborn_on(options, tpm)?;
        rig.run(&["init"])?;
        rig.furnish()?;
        Ok(rig)
    }

    /// Like [`Rig::create`], in a branch of its own whose WAN the test may cut. Clients reach it as any other box, through
    /// its LAN.
    pub fn create_behind(wan: &Wan, options: &RigOptions<'_>) -> Result<Self> {
        let tpm = match options.keys {
            Keys::Tpm => Some(Self::manufacture_tpm()?),
            Keys::Software => None,
        };
        let tcti = tpm.as_ref().map(|(tpm, _)| wan.tcti(tpm.port())).transpose()?;
        let launcher = wan.launcher(&box_program()?)?;
        let behind =
            RigOptions { launcher: Some(&launcher), tcti: options.tcti.or(tcti.as_deref()), ..*options };
        let rig = Self::create_on(&behind, tpm)?;
        wan.publish(rig.sealer.port())?;
        Ok(rig)
    }

    /// Only configured: the box has no state until it is created or enrolled. [`Rig::furnish`] does the rest.
    pub fn unborn_on(options: &RigOptions<'_>, tpm: Option<(Swtpm, TempDir)>) -> Result<Self> {
        let (tpm, directory) = match tpm {
            Some((tpm, directory)) => (Some(tpm), directory),
            None => (None, tempfile::Builder::new().prefix("bulla-rig-").tempdir()?),
        };
        let own_tcti = tpm.as_ref().map(Swtpm::tcti);
        let program = box_program()?;
        let sealer = BoxFixture::configure(
            options.launcher.unwrap_or(&program),
            &directory.path().join("box"),
            &BoxOptions {
                tcti: options.tcti.or(own_tcti.as_deref()),
                residency: options.residency,
                state_dir: options.state_dir,
                usual_port: false,
                extra: options.extra,
            },
        )?;
        Ok(Rig {
            sealer,
            tpm,
            ca_pem: String::new(),
            tokens: Default::default(),
            trust: TrustFile {
                fleet: String::new(),
                issued_millis: 0,
                roots: Vec::new(),
                references: Vec::new(),
                policy: Default::default(),
                roster: None,
                authorities: None,
                cosigners: Vec::new(),
            },
            directory,
        })
    }

    /// Takes CA and trust file of a box that has its state, and registers a client of each role.
    pub fn furnish(&mut self) -> Result<()> {
        self.run(&["ca", "export", "--out", "ca.pem"])?;
        self.ca_pem = std::fs::read_to_string(self.file("ca.pem"))?;
        self.export_trust()?;
        for (slot, role) in ["scanner", "reader", "operator"].into_iter().enumerate() {
            self.tokens[slot] = self.add_client(&format!("{role}-1"), role)?;
        }
        Ok(())
    }

    /// Has the clients of another box instead of its own, as when that box's `clients.json` was copied.
    pub fn take_clients_of(&mut self, other: &Rig) -> Result<()> {
        let file = |rig: &Rig| rig.state().join("clients.json");
        std::fs::copy(file(other), file(self))?;
        self.tokens = other.tokens.clone();
        Ok(())
    }

    /// Writes `trust.json` again (a succession changes nothing in it; a new box does).
    pub fn export_trust(&mut self) -> Result<()> {
        self.run(&["trust", "export", "--out", "trust.json"])?;
        self.trust = TrustFile::decode(&std::fs::read(self.file("trust.json"))?)?;
        Ok(())
    }

    /// Registers a client without a limit of its rate; returns its token. Loads are one client's, and what bounds
    /// them shall be the box.
    pub fn add_client(&self, name: &str, role: &str) -> Result<String> {
        self.add_client_with(name, role, &["--rate", "0"])
    }

    /// Registers a client with these limits; returns its token.
    pub fn add_client_with(&self, name: &str, role: &str, limits: &[&str]) -> Result<String> {
        let mut arguments = vec!["scanner", "add", "--name", name, "--role", role];
        arguments.extend_from_slice(limits);
        let output = self.run(&arguments)?;
        let text = String::from_utf8(output.stdout)?;
        let token = text.lines().rev().find_map(|line| line.strip_prefix("token: "));
        Ok(token.context("scanner add prints a line `token: ...`")?.to_owned())
    }

    /// Runs `bulla-box SUBCOMMAND... --config box.toml` in the box's directory; fails unless it exits 0.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.try_run(arguments)?;
        ensure!(
            output.status.success(),
            "bulla-box {} ended with {}:\n{}{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }

    /// Runs `bulla-box SUBCOMMAND... --config box.toml` and returns however it ended.
    pub fn try_run(&self, arguments: &[&str]) -> Result<Output> {
        self.command(arguments)?.output().context("cannot start bulla-box")
    }

    /// `bulla-box SUBCOMMAND... --config box.toml`, to be started.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(box_program()?);
        command.args(arguments).args(["--config", "box.toml"]).current_dir(self.sealer.directory());
        Ok(command)
    }

    /// A file in the box's directory (`box.toml`, `ca.pem`, `trust.json`, `box.log`).
    pub fn file(&self, name: &str) -> PathBuf {
        self.sealer.directory().join(name)
    }

    /// The state directory, when it is the rig's own.
    pub fn state(&self) -> PathBuf {
        self.file("state")
    }

    /// A directory for the test's own files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A client of this role.
    pub fn client(&self, role: Role) -> Client {
        self.client_with(Some(&self.tokens[role as usize]))
    }

    /// A client with this token, or none.
    pub fn client_with(&self, token: Option<&str>) -> Client {
        Client::new(self.sealer.port(), &self.ca_pem, token)
    }

    /// Has the operator begin the next epoch; returns its number. The TPM endorses epochs beforehand, and the box
    /// asks for patience until it has.
    pub fn next_epoch(&self, reason: &str) -> Result<u64> {
        let (operator, body) =
            (self.client(Role::Operator), serde_json::json!({"reason": reason}).to_string());
        for _ in 0..600 {
            let answer = operator.post("/v1/epochs", &[], body.as_bytes())?;
            if answer.status == 201 {
                return answer.json()?["epoch"].as_u64().context("the answer names the epoch");
            }
            let refusal = (answer.status, answer.problem()?);
            ensure!(refusal == (503, "locked".to_owned()), "{}", String::from_utf8_lossy(&answer.body));
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the next epoch is not endorsed within half a minute")
    }

    /// A connection of its own, for bytes that no client would send.
    pub fn wire(&self) -> Result<Wire> {
        Wire::open(self.sealer.port(), &self.ca_pem, TlsVersion::V1_3)
    }

    /// The box's CA certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Number of entries in the log, as the box tells it.
    pub fn log_size(&self) -> Result<u64> {
        let status = self.client(Role::Reader).get("/v1/status")?.json()?;
        status["size"].as_u64().with_context(|| format!("no size in {status}"))
    }

    /// The token of a role's client.
    pub fn token(&self, role: Role) -> &str {
        &self.tokens[role as usize]
    }

    /// The trust file.
    pub fn trust(&self) -> &TrustFile {
        &self.trust
    }

    /// Judges a `.seal` for `document` by the exported trust file.
    pub fn judge(&self, seal: &SealFile, document: &[u8]) -> Verification {
        let algorithm = wanted_digest(seal).unwrap_or(bulla_formats::body::seal::DigestAlgorithm::Sha256);
        let mut hasher = bulla_formats::body::seal::DocumentHasher::new(algorithm);
        hasher.update(document);
        verify(seal.encode().as_bytes(), &self.trust, Some(&hasher.finish()))
    }

    /// Runs `bulla-box fsck`; fails unless the log is clean. The box must be stopped.
    pub fn fsck(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.run(&["fsck"])?.stdout).into_owned())
    }

    /// What the box wrote about itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.sealer.log()).unwrap_or_default()
    }
}

/// The program of the box.
pub fn box_program() -> Result<PathBuf> {
    program("BULLA_BOX_BIN", "bulla-box")
}

/// The command line program.
pub fn bulla_program() -> Result<PathBuf> {
    program("BULLA_BIN", "bulla")
}

/// The program that has the TPM for a box.
pub fn signer_program() -> Result<PathBuf> {
    program("BULLA_SIGNER_BIN", "bulla-signer")
}

/// The program of the people who hold the fleet.
pub fn fleet_program() -> Result<PathBuf> {
    program("BULLA_FLEET_BIN", "bulla-fleet")
}

/// The console of the image.
pub fn console_program() -> Result<PathBuf> {
    program("BULLA_CONSOLE_BIN", "bulla-console")
}

fn program(variable: &str, name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            // .../debug/deps/test-binary -> .../debug/NAME
            let test = std::env::current_exe()?;
            let profile = test.parent().and_then(Path::parent).context("a test binary has a directory")?;
            profile.join(name)
        }
    };
    ensure!(path.is_file(), "{} is missing; build it first: cargo build -p {name}", path.display());
    Ok(path)
}

/// Stops every thread of the box, each where its system call, if any, has ended.
pub fn stop_still(rig: &Rig) -> Result<()> {
    let process = rig.sealer.pid().context("the box is not running")?;
    let stopped = Command::new("kill").args(["-STOP", &process.to_string()]).status()?;
    ensure!(stopped.success(), "kill -STOP: {stopped}");
    let began = Instant::now();
    loop {
        let mut moving = false;
        for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
            // A thread may end meanwhile; then it does not move any more either.
            let status = std::fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
            moving |= status.lines().any(|line| line.starts_with("State:") && !line.contains('T'));
        }
        if !moving {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(30), "the box does not stand still");
    }
}

/// Whether the fault tests run at full length (`cargo xtask soak`).
pub fn soak() -> bool {
    std::env::var_os("BULLA_SOAK").is_some()
}

/// `full` in a soak, `short` in CI.
pub fn rounds(short: usize, full: usize) -> usize {
    if soak() { full } else { short }
}

//! A box in a directory of its own: its configuration, its state, its log, and the running program.
//!
//! - Nothing is created behind the caller's back: `bulla-box init` is a command of the story, not of this file.
//! - [`BoxFixture::start`] returns only once `/readyz` says yes, asked through TLS with the box's own CA.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::child::Child;

/// A box verifies its whole active segment at start; a demo's has a dozen entries.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Where a box listens unless told otherwise.
const USUAL_PORT: u16 = 8443;

/// How a box is configured.
pub struct BoxOptions<'a> {
    /// Where its TPM is; `None` for a software box.
    pub tcti: Option<&'a str>,
    /// `tpm-endorsed-ram`, `tpm` or `software`.
    pub residency: &'a str,
    /// Where its state is; by default `state` in the fixture's directory.
    pub state_dir: Option<&'a Path>,
    /// Whether it listens on the documented port if that is free; tests that run side by side do not.
    pub usual_port: bool,
    /// More lines of `box.toml`, the first of them still in `[sealing]`.
    pub extra: &'a str,
}

/// A box, running or not.
pub struct BoxFixture {
    program: PathBuf,
    directory: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl BoxFixture {
    /// Writes `box.toml` into `directory` (created).
    pub fn configure(program: &Path, directory: &Path, options: &BoxOptions<'_>) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let port = if options.usual_port { usual_or_free_port()? } else { free_port()? };
        let state = options.state_dir.map_or_else(|| directory.join("state"), Path::to_path_buf);
        let state =
            state.to_str().context("the target directory's name is not UTF-8, which box.toml must be")?;
        let keys = match options.tcti {
            Some(tcti) => format!("[tpm]\ntcti = {tcti:?}"),
            None => "[software]\naccept = true".to_owned(),
        };
        let configuration = format!(
            "state_dir = {state:?}\n\
             listen = \"127.0.0.1:{port}\"\n\n\
             [identity]\n\
             fleet = \"demo.bulla.test\"\n\
             names = [\"localhost\", \"127.0.0.1\"]\n\n\
             {keys}\n\n\
             [sealing]\n\
             residency = {residency:?}\n\
             {extra}\n",
            residency = options.residency,
            extra = options.extra,
        );
        fs::write(directory.join("box.toml"), configuration)?;
        Ok(Self { program: program.to_path_buf(), directory: directory.to_path_buf(), port, running: None })
    }

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The command line that [`start`](Self::start) runs in the box's directory.
    pub const RUN: &str = "bulla-box run --config box.toml";

    /// Starts it and waits until it takes documents. `ca.pem` must have been exported into its directory.
    pub fn start(&mut self) -> Result<()> {
        self.start_until("readyz")
    }

    fn start_until(&mut self, route: &str) -> Result<()> {
        ensure!(self.running.is_none(), "the box is already running");
        let arguments = ["run", "--config", "box.toml"].map(str::to_owned);
        let log = self.directory.join("box.log");
        let mut child = Child::spawn("bulla-box", &self.program, &arguments, &self.directory, &log)?;
        let ready = format!("{}/{route}", self.url());
        child.wait_until(READY_WITHIN, "answered its health check", || {
            Command::new("curl")
                .args([
                    "--silent",
                    "--fail",
                    "--max-time",
                    "2",
                    "--noproxy",
                    "*",
                    "--cacert",
                    "ca.pem",
                    &ready,
                ])
                .current_dir(&self.directory)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })?;
        self.running = Some(child);
        Ok(())
    }

    /// Starts it and waits only until it answers `/healthz`: a read-only box never becomes ready.
    pub fn start_unready(&mut self) -> Result<()> {
        self.start_until("healthz")
    }

    /// Fails, with its last words, when the box is not running any more.
    pub fn require_alive(&mut self) -> Result<()> {
        let child = self.running.as_mut().context("the box was never started")?;
        if let Some(status) = child.ended()? {
            anyhow::bail!("the box has ended by itself ({status}); its last words:\n{}", child.last_words());
        }
        Ok(())
    }

    /// Asks it to stop, and requires a clean end.
    pub fn stop(&mut self) -> Result<()> {
        let status = self.running.take().context("the box is not running")?.stop()?;
        ensure!(
            status.success(),
            "the box was asked to stop and ended with {status}; see {}",
            self.log().display()
        );
        Ok(())
    }

    /// SIGKILL: what a power cut leaves of the process.
    pub fn kill(&mut self) -> Result<()> {
        self.running.take().context("the box is not running")?.kill()
    }

    /// Waits until it ends by itself; its exit code.
    pub fn ends_by_itself(&mut self, within: Duration) -> Result<Option<i32>> {
        let mut child = self.running.take().context("the box is not running")?;
        let began = Instant::now();
        loop {
            if let Some(status) = child.ended()? {
                return Ok(status.code());
            }
            ensure!(began.elapsed() < within, "the box goes on; its last words:\n{}", child.last_words());
            sleep(Duration::from_millis(50));
        }
    }

    /// Whether it was started and not stopped or killed.
    pub fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Child::id)
    }

    /// The directory of `box.toml`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Port of the HTTPS listener.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What the box writes about itself.
    pub fn log(&self) -> PathBuf {
        self.directory.join("box.log")
    }
}

/// The usual port, so that the story reads like the documentation; another one when that is taken.
fn usual_or_free_port() -> Result<u16> {
    if TcpListener::bind((Ipv4Addr::LOCALHOST, USUAL_PORT)).is_ok() { Ok(USUAL_PORT) } else { free_port() }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

//! A hub of real boxes: its own directories, its configuration, its program.
//!
//! Refuses to do: skip, or go on after a failure that the test did not ask about.

use super::{Rig, program};
use anyhow::{Context, Result, ensure};
use bulla_formats::hash::sha256;
use bulla_formats::trust::TrustFile;
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;
use tempfile::TempDir;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The program of the hub.
pub fn hub_program() -> Result<PathBuf> {
    program("BULLA_HUB_BIN", "bulla-hub")
}

/// A hub.
pub struct HubRig {
    directory: TempDir,
}

/// What others need to know of a hub that serves.
pub struct HubKeys {
    /// Its address.
    pub url: String,
    /// Verifier key of its witness.
    pub witness: String,
    /// Verifier key of its own log.
    pub log: String,
    /// Its certificate.
    pub certificate: PathBuf,
}

impl HubKeys {
    /// A client that believes its certificate, and no other.
    pub fn agent(&self) -> Result<Agent> {
        let pem = std::fs::read(&self.certificate)?;
        let certificate = Certificate::from_pem(&pem)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[certificate])).build();
        let config = Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None);
        Ok(config.timeout_global(Some(Duration::from_secs(60))).build().new_agent())
    }
}

/// A `bulla-hub serve` that runs; killed when it is dropped.
pub struct Serving {
    child: Child,
    log: PathBuf,
}

impl Serving {
    /// What it has said.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// Asks it to stop, and waits until it has; returns its exit code.
    pub fn stop(mut self) -> Result<Option<i32>> {
        let pid = self.child.id().to_string();
        ensure!(Command::new("kill").arg(pid).status()?.success(), "kill");
        Ok(self.child.wait()?.code())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a log can be had: a box, and whether it is a neighbour of the log's own.
pub type Sources<'a> = &'a [(&'a Rig, bool)];

impl HubRig {
    /// A hub of these boxes (name, origin, sources) that believes the roots of all of them.
    pub fn create(boxes: &[(&str, &str, Sources<'_>)]) -> Result<Self> {
        let hub = HubRig { directory: tempfile::Builder::new().prefix("bulla-hub-").tempdir()? };
        let mut text = format!(
            "name = \"hub\"\nstate_dir = {:?}\narchive = {:?}\ntrust = {:?}\n",
            hub.file("state"),
            hub.file("archive"),
            hub.file("trust.json")
        );
        let mut trust: Option<TrustFile> = None;
        for (name, origin, sources) in boxes {
            text.push_str(&format!("[[boxes]]\nname = {name:?}\norigin = {origin:?}\n"));
            for (rig, mirror) in *sources {
                text.push_str(&format!(
                    "[[boxes.sources]]\nurl = {:?}\nca = {:?}\nmirror = {mirror}\n",
                    rig.sealer.url(),
                    rig.file("ca.pem")
                ));
                match &mut trust {
                    None => trust = Some(rig.trust().clone()),
                    Some(trust) => {
                        let new = rig.trust().roots.iter().filter(|root| !trust.roots.contains(root));
                        let new: Vec<_> = new.copied().collect();
                        trust.roots.extend(new);
                        trust.policy.accept_software |= rig.trust().policy.accept_software;
                    }
                }
            }
        }
        std::fs::write(hub.file("hub.toml"), text)?;
        let trust = trust.context("a hub of no boxes")?;
        std::fs::write(hub.file("trust.json"), trust.encode())?;
        ensure!(hub.run(&["init"])?.status.success(), "bulla-hub init");
        Ok(hub)
    }

    /// Has `bulla-hub serve` serve under this name, on a free port, and pull every second.
    pub fn furnish_serve(&self, name: &str) -> Result<HubKeys> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut text = std::fs::read_to_string(self.file("hub.toml"))?;
        text.push_str(&format!(
            "[pull]\nevery_seconds = 1\n[serve]\nlisten = \"127.0.0.1:{port}\"\nname = {name:?}\nnames = [\"127.0.0.1\"]\nrequests_per_second = 1000\n"
        ));
        std::fs::write(self.file("hub.toml"), text)?;
        let said = self.lines(&["keys"], 0)?;
        let text = |member: &str| said[0][member].as_str().map(str::to_owned).context("a text");
        let url = format!("https://127.0.0.1:{port}");
        Ok(HubKeys {
            url,
            witness: text("witness")?,
            log: text("log")?,
            certificate: text("certificate")?.into(),
        })
    }

    /// Starts `bulla-hub serve`; returns once it listens.
    pub fn serve(&self) -> Result<Serving> {
        self.serve_with(&[])
    }

    /// The same with these variables of the environment.
    pub fn serve_with(&self, variables: &[(&str, &str)]) -> Result<Serving> {
        let log = File::create(self.file("serve.log"))?;
        let mut command = Command::new(hub_program()?);
        command.args(["serve", "--json", "--config", "hub.toml"]).current_dir(self.directory.path());
        command.envs(variables.iter().copied());
        let child = command.stdout(log.try_clone()?).stderr(log).spawn().context("cannot start bulla-hub")?;
        let serving = Serving { child, log: self.file("serve.log") };
        super::site::until("the hub listens", || Ok(serving.log()?.contains("listening")))?;
        Ok(serving)
    }

    /// A file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The archived log named `origin`.
    pub fn archived(&self, origin: &str) -> PathBuf {
        self.file("archive/logs").join(sha256(&[origin.as_bytes()]).to_string())
    }

    /// Runs `bulla-hub ... --json`.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.run_in(self.directory.path(), arguments)
    }

    fn run_in(&self, directory: &Path, arguments: &[&str]) -> Result<Output> {
        self.command_in(directory, arguments)?.output().context("cannot start bulla-hub")
    }

    /// `bulla-hub ... --json`, to be started.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        self.command_in(self.directory.path(), arguments)
    }

    fn command_in(&self, directory: &Path, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(hub_program()?);
        command.args(arguments).args(["--json", "--config", "hub.toml"]).current_dir(directory);
        Ok(command)
    }

    /// Runs it; fails unless it ends with `code`; returns the lines of JSON.
    pub fn lines(&self, arguments: &[&str], code: i32) -> Result<Vec<Value>> {
        let output = self.run(arguments)?;
        let (said, complaint) =
            (String::from_utf8(output.stdout)?, String::from_utf8_lossy(&output.stderr).into_owned());
        ensure!(
            output.status.code() == Some(code),
            "bulla-hub {arguments:?} ended with {}:\n{said}{complaint}",
            output.status
        );
        said.lines().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
    }

    /// Pulls everything; returns how many entries of this box are archived.
    pub fn pull(&self, name: &str) -> Result<u64> {
        let lines = self.lines(&["pull"], 0)?;
        let line = lines.iter().find(|line| line["box"] == name).context("the box is not told of")?;
        ensure!(line["complete"] == true, "{line}");
        line["entries"].as_u64().context("a number of entries")
    }
}

//! A real fleet for a test: its ceremony, two operators with directories of their own, and a registrar that can be killed.
//!
//! Refuses to do: anything that `bulla-fleet` does not do by itself.

use super::clock::WallClock;
use super::{Rig, RigOptions, fleet_program};
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The fleet domain of every box that the rig configures.
const FLEET: &str = "demo.bulla.test";

/// The event log of a real boot: `image-v2.eventlog`, `image-v3.eventlog`.
pub fn event_log(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../provisioning/appraisal/tests/logs").join(name)
}

/// Extends the PCRs of a TPM with every measurement of an event log, in its order, as the firmware did.
pub fn replay(tcti: &str, log: &Path) -> Result<()> {
    let shown = Command::new(fleet_program()?).args(["reference", "show", "--json"]).arg(log).output()?;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout)?;
    let events = shown["events"].as_array().context("events")?;
    let measured = events.iter().filter(|event| event["measured"] == true);
    let extension =
        |event: &serde_json::Value| Some(format!("{}:sha256={}", event["pcr"], event["sha256"].as_str()?));
    let extensions = measured.map(extension).collect::<Option<Vec<_>>>().context("a digest is no text")?;
    ensure!(extensions.len() > 20, "a real boot measures more");
    let extended = Command::new("tpm2_pcrextend").args(["-T", tcti]).args(&extensions).output()?;
    ensure!(extended.status.success(), "{}", words(&extended));
    Ok(())
}

/// Both outputs.
pub fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A fleet of one custodian and the operators olga and omar, both of whom decide; and its registrar.
pub struct Fleet {
    dir: TempDir,
    registrar: Option<(Child, BufReader<ChildStdout>)>,
    address: String,
    pin: String,
    environment: Vec<(&'static str, OsString)>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Fleet {
    /// Holds the ceremony; nothing listens yet.
    pub fn found() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bulla-fleet-").tempdir()?;
        let (address, pin) = ("127.0.0.1:0".into(), String::new());
        let fleet = Fleet { dir, registrar: None, address, pin, environment: Vec::new() };
        for name in ["olga", "omar"] {
            fleet.ok(&["person", "--dir", name, "--name", name, "--duty", "operator"])?;
        }
        let cards = ["--operator", "olga/card", "--operator", "omar/card"];
        fleet.ok(&[&["init", "--dir", "fleet", "--fleet", FLEET], &cards[..]].concat())?;
        Ok(fleet)
    }

    /// Its people and its registrar go by this clock from now on.
    pub fn keep_time(&mut self, clock: &WallClock) {
        self.environment = clock.environment();
    }

    fn command(&self) -> Result<Command> {
        let mut command = Command::new(fleet_program()?);
        command.current_dir(self.dir.path()).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        Ok(command)
    }

    /// A file in its room.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs `bulla-fleet`, however it ends.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command()?.args(arguments).output()?)
    }

    /// Runs `bulla-fleet`, which must end well; returns what it said.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let done = self.run(arguments)?;
        ensure!(done.status.success(), "{arguments:?}: {}", words(&done));
        Ok(words(&done))
    }

    /// Runs `bulla-fleet`, which must end with `code` and say `part`.
    pub fn ends(&self, arguments: &[&str], code: i32, part: &str) -> Result<()> {
        let done = self.run(arguments)?;
        let said = words(&done);
        ensure!(done.status.code() == Some(code) && said.contains(part), "{arguments:?}: {said}");
        Ok(())
    }

    /// What lies on the desk is approved by both, and carried out.
    pub fn carry_out(&self) -> Result<()> {
        for name in ["olga", "omar"] {
            self.ok(&["approve", "--dir", name, "--exchange", "fleet/exchange", "--yes"])?;
        }
        self.ok(&["apply", "--dir", "fleet"]).map(drop)
    }

    /// The TPM's maker is believed from the next start of the registrar on.
    pub fn believe(&self, rig: &Rig) -> Result<()> {
        let (roots, between) =
            (self.path("fleet/manufacturers/roots"), self.path("fleet/manufacturers/intermediates"));
        fs::create_dir_all(&roots)?;
        fs::create_dir_all(&between)?;
        let number = fs::read_dir(&roots)?.count();
        let ca = rig.directory().join("tpm/ca");
        fs::copy(ca.join("swtpm-localca-rootca-cert.pem"), roots.join(format!("{number}.pem")))?;
        fs::copy(ca.join("issuercert.pem"), between.join(format!("{number}.pem")))?;
        Ok(())
    }

    /// Imports one row.
    pub fn list(&self, ek: &str, serial: &str) -> Result<()> {
        self.list_rows(&format!("serial;model;branch;ek\n{serial};B-100;Zug;{ek}\n"))
    }

    /// Imports a delivery note.
    pub fn list_rows(&self, rows: &str) -> Result<()> {
        fs::write(self.path("rows.csv"), rows)?;
        self.ok(&["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "a delivery"])?;
        self.carry_out()
    }

    /// A member of the branch Zug that asks the registrar every second, and its log. `first`: whose maker made its TPM, too.
    pub fn member(&self, serial: &str, first: Option<&Rig>) -> Result<(Rig, String)> {
        self.member_with(serial, first, &RigOptions::default())
    }

    /// The same with these options, whose lines come after those of `[peers]`.
    pub fn member_with(
        &self,
        serial: &str,
        first: Option<&Rig>,
        options: &RigOptions<'_>,
    ) -> Result<(Rig, String)> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        let extra = format!(
            "[peers]\nlisten = [\"{address}\"]\nadvertise = [\"{address}\"]\nmdns = false\nregistrar_seconds = 1\n{}",
            options.extra
        );
        let options = RigOptions { extra: &extra, ..*options };
        let tpm = first.map_or_else(Rig::manufacture_tpm, Rig::manufacture_tpm_like)?;
        let mut rig = Rig::unborn_on(&options, Some(tpm))?;
        self.list(&self.enroll(&rig)?.after("TPM")?, serial)?;
        self.admit(&self.enroll(&rig)?)?;
        let said = self.enroll(&rig)?;
        said.ends(0, "enrolled as")?;
        let origin = said.after("enrolled as")?;
        rig.furnish()?;
        Ok((rig, origin))
    }

    /// Starts the registrar.
    pub fn serve(&mut self, more: &[&str]) -> Result<()> {
        let mut command = self.command()?;
        command.args(["serve", "--dir", "fleet", "--listen", &self.address]);
        let mut child = command.args(more).stdout(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stdout.take().context("it speaks")?);
        let mut line = || {
            let mut line = String::new();
            said.read_line(&mut line).map(|_| line.trim().to_owned())
        };
        let (pin, address) = (line()?, line()?);
        let pin = pin.strip_prefix("pin ").with_context(|| format!("{pin:?} is no pin"))?.to_owned();
        ensure!(self.pin.is_empty() || self.pin == pin, "the registrar's key has changed");
        self.pin = pin;
        self.address = address.strip_prefix("listens on ").with_context(|| address.clone())?.to_owned();
        self.registrar = Some((child, said));
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some((mut child, _)) = self.registrar.take() {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }

    /// Processor time that the registrar has taken since it was started.
    pub fn processor_time(&self) -> Result<Duration> {
        let (child, _) = self.registrar.as_ref().context("nobody serves")?;
        let text = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        // proc(5): after the name in parentheses the state, then utime and stime as the 12th and 13th field.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let (user, system) = (ticks(11).context("utime")?, ticks(12).context("stime")?);
        // The kernel reports in hundredths of a second, whatever its own clock (USER_HZ).
        Ok(Duration::from_millis((user + system) * 10))
    }

    /// What boxes are told of it.
    pub fn registrar(&self) -> [String; 4] {
        ["--registrar".into(), format!("https://{}", self.address), "--pin".into(), self.pin.clone()]
    }

    /// `bulla-box enroll --once`.
    pub fn enroll(&self, rig: &Rig) -> Result<Said> {
        let registrar = self.registrar();
        let mut arguments = vec!["enroll", "--once"];
        arguments.extend(registrar.iter().map(String::as_str));
        let done = rig.try_run(&arguments)?;
        Ok(Said { code: done.status.code(), words: words(&done) })
    }

    /// From a proven box to a member.
    pub fn admit(&self, said: &Said) -> Result<()> {
        let (claim, fingerprint) = (said.after("claim code")?, said.after("fingerprint")?);
        let heard = ["--heard", &fingerprint, "--by", "olga", "--reason", "it stands in the branch"];
        self.ok(&[&["enrolments", "approve", &claim, "--dir", "fleet"], &heard[..]].concat())?;
        self.carry_out()
    }
}

/// What `bulla-box enroll` said.
pub struct Said {
    /// Its exit code.
    pub code: Option<i32>,
    /// Both of its outputs.
    pub words: String,
}

impl Said {
    /// The rest of the line that begins like this.
    pub fn after(&self, name: &str) -> Result<String> {
        let found = self.words.lines().find_map(|line| line.strip_prefix(name));
        Ok(found.with_context(|| format!("no {name} in {}", self.words))?.trim().to_owned())
    }

    /// It ended with `code` and said `part`.
    pub fn ends(&self, code: i32, part: &str) -> Result<()> {
        ensure!(self.code == Some(code) && self.words.contains(part), "{:?}: {}", self.code, self.words);
        Ok(())
    }
}

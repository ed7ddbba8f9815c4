//! The agent, `bulla watch`, between scanners that write badly and boxes that die.
//!
//! Goal: each complete document is sealed once by one box; what two boxes may both have sealed says so; nothing is lost by
//! any kill. Method: real files, the real program, real boxes on swtpm, SIGKILL; at the end the boxes' logs are counted.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::folder::{Written, pdf, write_badly};
use bulla_tests::rig::{Rig, Role, bulla_program};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A capture PC: a folder, and an agent that may be killed and started again.
struct Desk {
    directory: PathBuf,
    folder: PathBuf,
    boxes: Vec<String>,
    agent: Option<Child>,
}

impl Desk {
    fn new(rigs: &[&Rig]) -> Result<Self> {
        let directory = rigs[0].directory().join("desk");
        let folder = directory.join("scans");
        fs::create_dir_all(&folder)?;
        let mut boxes = Vec::new();
        for (number, rig) in rigs.iter().enumerate() {
            let file = |name: &str| directory.join(format!("{name}-{number}")).to_string_lossy().into_owned();
            fs::write(file("token"), rig.token(Role::Scanner))?;
            fs::write(file("ca"), rig.ca_pem())?;
            let arguments = ["--box", &rig.sealer.url(), "--ca", &file("ca"), "--token-file", &file("token")];
            boxes.extend(arguments.map(str::to_owned));
        }
        Ok(Desk { directory, folder, boxes, agent: None })
    }

    fn errors(&self) -> PathBuf {
        self.folder.join("error")
    }

    fn command(&self, more: &[&str]) -> Result<Command> {
        let mut command = Command::new(bulla_program()?);
        command.args(["watch", "scans", "--state", "state", "--stability", "1"]);
        command.args(&self.boxes).args(more).current_dir(&self.directory);
        Ok(command)
    }

    fn start(&mut self, more: &[&str]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.join("agent.log"))?;
        let errors = log.try_clone()?;
        self.agent = Some(self.command(more)?.stdin(Stdio::null()).stdout(log).stderr(errors).spawn()?);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        let mut agent = self.agent.take().context("it runs")?;
        ensure!(agent.try_wait()?.is_none(), "the agent ended by itself: {}", self.log());
        agent.kill()?;
        agent.wait()?;
        Ok(())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("agent.log")).unwrap_or_default()
    }

    /// `--once`: exit code and what it printed.
    fn once(&self, more: &[&str]) -> Result<(i32, String)> {
        let output = self.command(&[&["--once"], more].concat())?.output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        Ok((output.status.code().context("ended by a signal")?, text))
    }

    fn receipt(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(self.folder.join(format!("{name}.receipt.json")))?)?)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

/// Writes beside a test that kills.
fn while_writing(folder: &Path, count: u32, mut act: impl FnMut(u32) -> Result<()>) -> Result<Written> {
    let folder = folder.to_owned();
    let writing = std::thread::spawn(move || write_badly(&folder, count, 6));
    let mut round = 0;
    while !writing.is_finished() {
        std::thread::sleep(Duration::from_millis(1_500));
        act(round)?;
        round += 1;
    }
    writing.join().expect("writing does not panic")
}

#[test]
fn g3_a_thousand_badly_written_files_are_sealed_once_each_whatever_is_killed() -> Result<()> {
    let mut rig = Rig::start()?;
    let mut desk = Desk::new(&[&rig])?;
    desk.start(&["--give-up", "8"])?;
    let written = while_writing(&desk.folder.clone(), 1_000, |round| {
        if round % 2 == 0 {
            desk.kill()?;
            desk.start(&["--give-up", "8"])
        } else if round % 5 == 3 {
            rig.sealer.kill()?;
            rig.sealer.start()
        } else {
            Ok(())
        }
    })?;
    written.settled(&desk.folder, &desk.errors(), Duration::from_secs(240)).with_context(|| desk.log())?;
    desk.kill()?;
    written.judge(&desk.folder, &desk.errors(), &[&rig])?;
    let counts = written.count(&rig, "scanner-1")?;
    ensure!(counts.len() == written.whole.len(), "{} of {} are sealed", counts.len(), written.whole.len());
    println!("{} documents, {} halves, sealed once each", written.whole.len(), written.halves.len());
    // Nothing is left to do, and that is found out without a question to the box.
    rig.sealer.stop()?;
    let (code, text) = desk.once(&["--patience", "5"])?;
    ensure!(code == 0 && text.contains("0 sealed, 0 not sealable, 0 left"), "{code}: {text}");
    Ok(())
}

#[test]
fn g3_a_box_that_dies_is_followed_by_the_next_and_what_both_may_have_sealed_says_so() -> Result<()> {
    let (mut first, second) = (Rig::start()?, Rig::start()?);
    let mut desk = Desk::new(&[&first, &second])?;
    desk.start(&["--failover-after", "1", "--give-up", "8"])?;
    let mut died = false;
    let written = while_writing(&desk.folder.clone(), 300, |round| {
        if round == 1 && !died {
            first.sealer.kill()?;
            died = true;
        }
        Ok(())
    })?;
    written.settled(&desk.folder, &desk.errors(), Duration::from_secs(240)).with_context(|| desk.log())?;
    first.sealer.start()?;
    let both =
        [(&first, written.count(&first, "scanner-1")?), (&second, written.count(&second, "scanner-1")?)];
    written.judge(&desk.folder, &desk.errors(), &[&first, &second])?;
    ensure!(both.iter().all(|(_, counts)| !counts.is_empty()), "both boxes have worked");
    // What the agent finds out once the first box is back is what the logs say.
    let settled = |name: &str| -> Result<bool> {
        Ok(desk.receipt(name)?["possibleDuplicates"].as_array().is_none_or(Vec::is_empty))
    };
    let began = std::time::Instant::now();
    for name in written.whole.keys() {
        while !settled(name)? {
            ensure!(began.elapsed() < Duration::from_secs(60), "{name} is not settled: {}", desk.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        let receipt = desk.receipt(name)?;
        let told = receipt["duplicates"].as_array().map_or(0, Vec::len);
        let made: usize = both.iter().map(|(_, counts)| counts.get(name).copied().unwrap_or(0)).sum();
        let units = if receipt["sidecars"].as_array().is_some_and(Vec::is_empty) { 1 } else { made.max(1) };
        ensure!(made == units + told || made == units, "{name}: {made} seals, {told} told: {receipt:#}");
        ensure!(units > 1 || made == 1 + told, "{name}: {made} seals, {told} told: {receipt:#}");
    }
    Ok(())
}

#[test]
fn a_batch_ends_with_a_code_that_says_how() -> Result<()> {
    let mut rig = Rig::start()?;
    let desk = Desk::new(&[&rig])?;
    for number in 0..20 {
        fs::write(desk.folder.join(format!("{number}.pdf")), pdf(number, 2_000))?;
    }
    let (code, text) = desk.once(&["--slip"])?;
    ensure!(code == 0 && text.contains("20 sealed, 0 not sealable, 0 left"), "{code}: {text}");
    ensure!(desk.folder.join("7.pdf.slip.pdf").is_file());
    // The same bytes under another name get the seal there is.
    fs::rename(desk.folder.join("3.pdf"), desk.folder.join("three.pdf"))?;
    let (code, text) = desk.once(&[])?;
    ensure!(code == 0 && text.contains("1 sealed"), "{code}: {text}");
    ensure!(desk.receipt("three.pdf")?["leafHash"] == desk.receipt("3.pdf")?["leafHash"]);
    // Half a file is not sealable, and a box that is away is no fault of the files.
    fs::write(desk.folder.join("half.pdf"), &pdf(99, 500)[..300])?;
    let (code, text) = desk.once(&["--give-up", "1"])?;
    ensure!(code == 2 && text.contains("0 sealed, 1 not sealable, 0 left"), "{code}: {text}");
    rig.sealer.stop()?;
    fs::write(desk.folder.join("late.pdf"), pdf(100, 500))?;
    let (code, text) = desk.once(&["--patience", "3"])?;
    ensure!(code == 7 && text.contains("1 left") && text.contains("late.pdf"), "{code}: {text}");
    for (arguments, what) in [(["--ca", "ca-0"], "2 times for 1"), (["--accept", "fax"], "fax")] {
        let (code, text) = desk.once(&arguments)?;
        ensure!(code == 2 && text.contains(what), "{code}: {text}");
    }
    Ok(())
}

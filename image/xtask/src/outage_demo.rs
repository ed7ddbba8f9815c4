//! The middle of the demo: the world goes away while a branch seals, and comes back.
//!
//! - Two time-stamp authorities of distinct operators, stock OpenSSL behind a port with switches.
//! - 200 documents, half of them sealed while no authority answers; a manifest; everything anchored by both afterwards.
//! - As elsewhere in the demo, every line with a `$` is run as it is printed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::story::{Show, Story};
use xtask::box_fixture::{BoxFixture, BoxOptions};
use xtask::child::Child;
use xtask::swtpm::Swtpm;

const READY_WITHIN: Duration = Duration::from_secs(20);
/// Longest wait for a mode: several times what the configuration below asks for.
const MODE_WITHIN: Duration = Duration::from_secs(60);
const DOCUMENTS: usize = 200;
/// Short times, so that an outage is a matter of seconds; the defaults are minutes.
const SHORT_TIMES: &str = "\n[outage]\nafter_seconds = 3\ndegraded_after_seconds = 2\nrecover_after_seconds = 2\nprobe_seconds = 1\n\n[anchors]\nwindow_seconds = 1\n";

/// An authority that runs.
struct Authority {
    operator: &'static str,
    control: String,
    root: PathBuf,
    running: Child,
}

/// The branch.
struct Branch {
    room: PathBuf,
    fixture: BoxFixture,
    tpm: Swtpm,
    client: String,
}

/// Tells it. Returns a sentence for the end.
pub fn tell(story: &mut Story, programs: &Path, root: &Path) -> Result<String> {
    let room = root.join("outage");
    fs::create_dir_all(&room)?;
    story.act("Two time-stamp authorities of two operators, and a box that has its log anchored by both");
    let authorities = [
        authority(programs, &room, "north", "North Time Ltd")?,
        authority(programs, &room, "south", "South Time AG")?,
    ];
    let mut branch = branch(story, programs, &room, &authorities)?;
    wait_mode(story, &branch, "online")?;
    story.say("mode online: both answer.");
    documents(&branch.room)?;
    story.act("100 documents are sealed; then every authority goes; 100 more are sealed");
    let before = seal(story, &branch, 0..DOCUMENTS / 2)?;
    switch(story, &branch, &authorities, "down")?;
    let began = Instant::now();
    wait_mode(story, &branch, "emergency")?;
    story.say(&format!(
        "mode emergency {:.1} s later; every entry says so from here on.",
        began.elapsed().as_secs_f64()
    ));
    let during = seal(story, &branch, DOCUMENTS / 2..DOCUMENTS)?;
    story.say(&format!(
        "100 seals took {} ms with the world, {} ms without it.",
        before.as_millis(),
        during.as_millis()
    ));
    let newest = newest_manifest(story, &branch)?;
    let line = format!(
        "{} -o open.txt '{}/v1/manifests/{newest}?form=txt' && head -12 open.txt",
        branch.curl(),
        branch.fixture.url()
    );
    story.run(&branch.room, &line, 0, &Show::First(12))?;
    story.act("The authorities return: the outage is closed, and everything is anchored by both operators");
    switch(story, &branch, &authorities, "up")?;
    wait_mode(story, &branch, "online")?;
    let closing = newest_manifest(story, &branch)?;
    let line = format!(
        "{} -o closing.der '{}/v1/manifests/{closing}' && bulla manifest verify closing.der --trust trust.json",
        branch.curl(),
        branch.fixture.url()
    );
    story.run(&branch.room, &line, 0, &Show::Beginning(&["verdict", "covers", "interval"]))?;
    let line = format!("bulla upgrade {} documents/*.seal", branch.client);
    story.run(&branch.room, &line, 0, &Show::Nothing)?;
    branch.fixture.stop()?;
    branch.tpm.crash()?;
    let judged = judge(story, &branch, &authorities)?;
    for authority in authorities {
        authority.running.kill()?;
    }
    Ok(judged)
}

fn authority(programs: &Path, room: &Path, name: &'static str, operator: &'static str) -> Result<Authority> {
    let directory = room.join(name);
    fs::create_dir_all(&directory)?;
    let log = room.join(format!("{name}.log"));
    let keys = directory.display().to_string();
    let arguments = ["tsa", "--directory", &keys, "--operator", operator].map(str::to_owned);
    let mut running =
        Child::spawn("bulla-authorities", &programs.join("bulla-authorities"), &arguments, room, &log)?;
    let place = || -> Option<Value> {
        let text = fs::read_to_string(&log).ok()?;
        text.lines().find_map(|line| serde_json::from_str(line).ok())
    };
    running.wait_until(READY_WITHIN, "said where it listens", || place().is_some())?;
    let place = place().context("it has said where it listens")?;
    let member = |name: &str| -> Result<String> {
        Ok(place[name].as_str().with_context(|| format!("it has said no {name}"))?.to_owned())
    };
    fs::write(directory.join("url"), member("url")?)?;
    Ok(Authority { operator, control: member("control")?, root: PathBuf::from(member("root")?), running })
}

fn branch(story: &mut Story, programs: &Path, root: &Path, authorities: &[Authority]) -> Result<Branch> {
    let room = root.join("branch");
    let tpm = Swtpm::manufacture(&room.join("tpm"))?;
    let mut extra = SHORT_TIMES.to_owned();
    for (authority, name) in authorities.iter().zip(["north", "south"]) {
        let url = fs::read_to_string(root.join(name).join("url"))?;
        let (operator, roots) = (authority.operator, authority.root.display().to_string());
        let _ = writeln!(
            extra,
            "\n[[anchors.tsa]]\nname = \"{name}\"\noperator = {operator:?}\nurl = {url:?}\nroots = {roots:?}\nprobe = \"stamp\""
        );
    }
    let options = BoxOptions {
        tcti: Some(&tpm.tcti()),
        residency: "tpm-endorsed-ram",
        state_dir: None,
        usual_port: false,
        extra: &extra,
    };
    let mut fixture = BoxFixture::configure(&programs.join("bulla-box"), &room, &options)?;
    for line in [
        "bulla-box init --config box.toml",
        "bulla-box ca export --config box.toml --out ca.pem",
        "bulla-box trust export --config box.toml --out trust.json",
    ] {
        story.quietly(&room, line, 0)?;
    }
    for (name, role) in [("desk", "scanner"), ("ops", "operator")] {
        let line = format!("bulla-box scanner add --config box.toml --name {name} --role {role} --rate 0");
        let added = story.quietly(&room, &line, 0)?.told.stdout;
        let token = added.lines().rev().find_map(|line| line.strip_prefix("token: ")).context("no token")?;
        fs::write(room.join(format!("{name}.token")), token)?;
    }
    fixture.start()?;
    let client = format!("--box {} --ca ca.pem --token-file desk.token", fixture.url());
    Ok(Branch { room, fixture, tpm, client })
}

impl Branch {
    fn curl(&self) -> &'static str {
        "curl -sS --fail-with-body --max-time 20 --cacert ca.pem -H \"Authorization: Bearer $(cat ops.token)\""
    }

    fn status(&self, story: &mut Story) -> Result<Value> {
        let line = format!("{} {}/v1/status", self.curl(), self.fixture.url());
        Ok(serde_json::from_str(&story.quietly(&self.room, &line, 0)?.told.stdout)?)
    }
}

fn documents(room: &Path) -> Result<()> {
    let directory = room.join("documents");
    fs::create_dir_all(&directory)?;
    for number in 0..DOCUMENTS {
        fs::write(
            directory.join(format!("{number:03}.txt")),
            format!("Standing order {number}: EUR {}.00\n", 10 + number),
        )?;
    }
    Ok(())
}

/// How long it took to seal these.
fn seal(story: &mut Story, branch: &Branch, range: std::ops::Range<usize>) -> Result<Duration> {
    let names: Vec<String> = range.clone().map(|number| format!("documents/{number:03}.txt")).collect();
    let line = format!("bulla seal {} {}", branch.client, names.join(" "));
    story.say(&format!(
        "$ bulla seal {} documents/{:03}.txt ... documents/{:03}.txt",
        branch.client,
        range.start,
        range.end - 1
    ));
    let told = story.quietly(&branch.room, &line, 0)?.told;
    Ok(told.took)
}

fn switch(story: &mut Story, branch: &Branch, authorities: &[Authority], transport: &str) -> Result<()> {
    for authority in authorities {
        let line = format!(
            "curl -sS --fail-with-body -X PUT -H 'Content-Type: application/json' -d '{{\"transport\":\"{transport}\"}}' {}/knobs",
            authority.control
        );
        story.run(&branch.room, &line, 0, &Show::Nothing)?;
    }
    Ok(())
}

fn wait_mode(story: &mut Story, branch: &Branch, mode: &str) -> Result<()> {
    let until = Instant::now() + MODE_WITHIN;
    loop {
        let status = branch.status(story)?;
        if status["mode"] == mode {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("the box is not {mode} within {MODE_WITHIN:?}: {status:#}");
        }
        sleep(Duration::from_millis(200));
    }
}

/// Index of the newest manifest.
fn newest_manifest(story: &mut Story, branch: &Branch) -> Result<u64> {
    let line = format!("{} {}/v1/manifests", branch.curl(), branch.fixture.url());
    let listed: Value = serde_json::from_str(&story.quietly(&branch.room, &line, 0)?.told.stdout)?;
    let newest = listed["manifests"].as_array().and_then(|all| all.last()).context("no manifest")?;
    newest["index"].as_u64().context("a manifest has an index")
}

/// The auditor's part: box, TPM and authorities are out of it.
fn judge(story: &mut Story, branch: &Branch, authorities: &[Authority]) -> Result<String> {
    story.act("The box is off. 200 seals are verified, and OpenSSL looks at the time stamps itself");
    let line = "bulla verify --recursive documents --trust trust.json --quiet > verdicts.txt && tail -3 verdicts.txt";
    story.run(&branch.room, line, 0, &Show::First(3))?;
    let verdicts = fs::read_to_string(branch.room.join("verdicts.txt"))?;
    let valid = verdicts.lines().filter(|line| line.starts_with("valid ")).count();
    ensure!(valid == DOCUMENTS, "{valid} of {DOCUMENTS} seals are valid:\n{verdicts}");
    let line = "bulla verify documents/150.txt --trust trust.json";
    let told = story.run(
        &branch.room,
        line,
        0,
        &Show::Beginning(&["passed      anchor", "verdict", "facts", "interval"]),
    )?;
    ensure!(told.stdout.contains("anchored"), "it is not anchored:\n{}", told.stdout);
    story.quietly(&branch.room, "bulla inspect documents/150.txt.seal --extract parts", 0)?;
    let roots = authorities.iter().map(|authority| fs::read(&authority.root));
    fs::write(branch.room.join("roots.pem"), roots.collect::<Result<Vec<_>, _>>()?.concat())?;
    let stamps = stamps(&branch.room.join("parts"))?;
    // Operators that came back at different times stand in anchors of their own.
    ensure!(stamps.len() >= authorities.len(), "{} stamps of {} operators", stamps.len(), authorities.len());
    for (anchor, proof) in stamps {
        let line = format!(
            "openssl ts -verify -in parts/anchor-{anchor}-{proof}.tsr -data parts/anchor-{anchor}-batch.bin -CAfile roots.pem"
        );
        story.run(&branch.room, &line, 0, &Show::Beginning(&["Verification"]))?;
    }
    story.quietly(&branch.room, "bulla-box fsck --config box.toml", 0)?;
    Ok(format!(
        "{DOCUMENTS} documents sealed across an outage, all anchored by {} operators afterwards",
        authorities.len()
    ))
}

/// The time stamps among the parts of a seal: number of the anchor, and of the proof in it.
fn stamps(parts: &Path) -> Result<Vec<(u64, u64)>> {
    let mut stamps = Vec::new();
    for part in fs::read_dir(parts)? {
        let name = part?.file_name();
        let numbers = name.to_str().and_then(|name| name.strip_prefix("anchor-")?.strip_suffix(".tsr"));
        let Some((anchor, proof)) = numbers.and_then(|numbers| numbers.split_once('-')) else { continue };
        stamps.push((anchor.parse()?, proof.parse()?));
    }
    stamps.sort_unstable();
    Ok(stamps)
}

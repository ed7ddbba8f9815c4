//! The demo: a box with a TPM of its own seals what a branch scans, loses its TPM and goes on, and an auditor without
//! a network checks everything, a forgery included. Then an outage (`outage_demo`), neighbours and a hub (`site_demo`), and a
//! fleet (`fleet_demo`).
//!
//! - All of it is real: the released programs, a TPM 2.0 in software, TLS, files that other programs open.
//! - Every claim is a checked exit code or a checked member of an answer; the first one that does not hold ends it.
//! - State is in `target/demo`, wiped at the start and left there afterwards for a look around.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::fleet_demo;
use crate::outage_demo;
use crate::site_demo;
use crate::story::{Show, Story};
use crate::workspace::Workspace;
use xtask::box_fixture::{BoxFixture, BoxOptions};
use xtask::samples;
use xtask::swtpm::Swtpm;

/// `bulla verify`: the evidence in the seal does not hold.
const REFUSED: i32 = 1;
/// `bulla verify`: a genuine seal, but of other bytes.
const OTHER_BYTES: i32 = 3;
/// `bulla verify`: nothing to verify with.
const NO_SEAL: i32 = 4;

/// Everything on stage.
struct Stage {
    story: Story,
    tpm: Swtpm,
    sealer: BoxFixture,
    /// Where the box lives.
    box_room: PathBuf,
    /// Where documents are scanned.
    desk: PathBuf,
    /// Where, later and elsewhere, somebody checks them.
    auditor: PathBuf,
    /// The arguments that every client command needs.
    client: String,
}

/// Builds the programs and tells the whole story.
pub fn run(workspace: &Workspace) -> Result<()> {
    let programs = build(workspace)?;
    let mut stage = set_up(workspace, &programs)?;
    seal_by_command_line(&mut stage)?;
    lose_the_tpm(&mut stage)?;
    upgrade(&mut stage)?;
    stage.sealer.require_alive()?;
    stage.sealer.stop()?;
    stage.tpm.crash()?;
    verify_offline(&mut stage)?;
    forge(&mut stage)?;
    judge_log(&mut stage)?;
    let root = workspace.target.join("demo");
    let outage = outage_demo::tell(&mut stage.story, &programs, &root)?;
    let site = site_demo::tell(&mut stage.story, &programs, &root)?;
    let fleet = fleet_demo::tell(&mut stage.story, workspace, &programs, &root)?;
    close(&stage, &[outage, site, fleet]);
    Ok(())
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    println!(
        "Building bulla-box, bulla, bulla-hub, bulla-fleet and bulla-authorities (release; a few minutes the first time)"
    );
    let status = workspace
        .cargo()
        .args(["build", "--locked", "--release", "--quiet"])
        .args(["--package", "bulla-box", "--package", "bulla", "--package", "bulla-fleet"])
        .args(["--package", "bulla-hub", "--package", "bulla-authorities"])
        .status()
        .context("cannot start cargo build")?;
    ensure!(
        status.success(),
        "the programs do not build; to see it alone: cargo build --release -p bulla-box -p bulla -p bulla-fleet"
    );
    Ok(workspace.target.join("release"))
}

fn set_up(workspace: &Workspace, programs: &Path) -> Result<Stage> {
    let root = workspace.target.join("demo");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot wipe {}", root.display()))?;
    }
    let [box_room, desk, auditor] = ["box", "desk", "auditor"].map(|room| root.join(room));
    for room in [&box_room, &desk, &auditor] {
        fs::create_dir_all(room).with_context(|| format!("cannot create {}", room.display()))?;
    }
    let mut story = Story::begin(programs)?;

    story.act("A box with a TPM of its own");
    let tpm = Swtpm::manufacture(&root.join("tpm"))?;
    story.say(&format!("swtpm made a TPM 2.0 with endorsement certificates; it listens at {}.", tpm.tcti()));
    let options = BoxOptions {
        tcti: Some(&tpm.tcti()),
        residency: "tpm-endorsed-ram",
        state_dir: None,
        usual_port: true,
        extra: "",
    };
    let mut sealer = BoxFixture::configure(&programs.join("bulla-box"), &box_room, &options)?;
    story.run(&box_room, "bulla-box init --config box.toml", 0, &Show::First(4))?;
    story.run(&box_room, "bulla-box ca export --config box.toml --out ca.pem", 0, &Show::First(1))?;
    story.run(&box_room, "bulla-box trust export --config box.toml --out trust.json", 0, &Show::First(1))?;
    let added = story.run(
        &box_room,
        "bulla-box scanner add --config box.toml --name desk-1 --role scanner",
        0,
        &Show::Nothing,
    )?;
    let token = added
        .stdout
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("token: "))
        .context("`bulla-box scanner add` printed no line `token: …`")?;
    fs::write(desk.join("token"), token)?;
    fs::copy(box_room.join("ca.pem"), desk.join("ca.pem")).context("`bulla-box ca export` left no ca.pem")?;
    fs::copy(box_room.join("trust.json"), auditor.join("trust.json"))
        .context("`bulla-box trust export` left no trust.json")?;
    sealer.start()?;
    story.say(&format!("`{}` answers at {}/readyz.", BoxFixture::RUN, sealer.url()));

    samples::write(&desk)?;
    let client = format!("--box {} --ca ca.pem --token-file token", sealer.url());
    Ok(Stage { story, tpm, sealer, box_room, desk, auditor, client })
}

fn seal_by_command_line(stage: &mut Stage) -> Result<()> {
    stage.story.act("The desk seals a loan agreement, a passport and a signature card");
    let files = [samples::LOAN, samples::PASSPORT, samples::SIGNATURE_CARD];
    let line = format!("bulla seal {} {}", stage.client, files.join(" "));
    let told = stage.story.run(&stage.desk, &line, 0, &Show::First(files.len()))?;
    for file in files {
        stage.require_seal(file)?;
    }
    stage.story.say(&format!("three seals beside three files, {} ms in all.", told.took.as_millis()));
    Ok(())
}

fn lose_the_tpm(stage: &mut Stage) -> Result<()> {
    stage.story.act("The TPM dies (SIGKILL); sealing goes on; the TPM returns and attestation resumes");
    stage.tpm.crash()?;
    let line = format!("bulla seal {} {}", stage.client, samples::STANDING_ORDER);
    stage.story.run(&stage.desk, &line, 0, &Show::First(1))?;
    stage.require_seal(samples::STANDING_ORDER)?;
    stage
        .story
        .say("sealed without a TPM: the epoch's key is in memory, endorsed by the TPM before it died.");

    stage.tpm.start()?;
    let line = format!(
        "curl -sS --fail-with-body --max-time 120 --cacert ca.pem -H \"Authorization: Bearer $(cat token)\" \\\n       \
         -H 'Content-Type: application/pdf' --data-binary @{} '{}/v1/seals?wait=attested' \\\n       \
         -o receipt.json -w '%{{http_code}}\\n'",
        samples::ACCOUNT_OPENING,
        stage.sealer.url()
    );
    let told = stage.story.run(&stage.desk, &line, 0, &Show::Nothing)?;
    ensure!(told.stdout.trim() == "201", "the box answered {} and not 201 Created", told.stdout.trim());
    let receipt: Value = serde_json::from_slice(&fs::read(stage.desk.join("receipt.json"))?)
        .context("the box's receipt is no JSON")?;
    let id = match &receipt["id"] {
        Value::String(id) => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => bail!("the receipt has no \"id\""),
    };
    let facts = receipt["facts"].as_array().context("the receipt has no list of \"facts\"")?;
    ensure!(
        facts.iter().any(|fact| fact == "attested"),
        "the answer to wait=attested lacks that fact: {facts:?}"
    );
    let seal = receipt.get("seal").context("the receipt has no \"seal\"")?;
    fs::write(stage.seal_of(samples::ACCOUNT_OPENING), format!("{seal}\n"))?;
    stage.story.say(&format!(
        "201 in {} ms: entry {id}, under a quote of the restarted TPM.",
        told.took.as_millis()
    ));
    Ok(())
}

fn upgrade(stage: &mut Stage) -> Result<()> {
    stage.story.act("Evidence arrived meanwhile: each seal is upgraded with it");
    let line = format!("bulla upgrade {}.seal {}", samples::LOAN, stage.client);
    stage.story.run(&stage.desk, &line, 0, &Show::First(2))?;
    for file in [samples::PASSPORT, samples::SIGNATURE_CARD, samples::STANDING_ORDER] {
        let line = format!("bulla upgrade {file}.seal {}", stage.client);
        stage.story.quietly(&stage.desk, &line, 0)?;
    }
    stage.story.say("and likewise the passport, the signature card and the standing order.");
    Ok(())
}

fn verify_offline(stage: &mut Stage) -> Result<()> {
    stage.story.act("Years later, elsewhere: box and TPM are off, the auditor has files and no network");
    for file in ALL {
        fs::copy(stage.desk.join(file), stage.auditor.join(file))?;
        fs::copy(stage.seal_of(file), stage.auditor.join(format!("{file}.seal")))?;
    }
    let shell = stage.without_network();
    if shell.is_empty() {
        stage.story.say("(no network namespace to be had here; the box and its TPM are off all the same)");
    }
    let line = format!("{shell}bulla verify {} --trust trust.json", samples::LOAN);
    let told = stage.story.run(&stage.auditor, &line, 0, &Show::Beginning(OUTCOME))?;
    let passed = passed_checks(&told.stdout);
    ensure!(!passed.is_empty(), "the verifier lists no passed check:\n{}", told.stdout);
    stage.story.say(&format!("these checks passed: {}.", passed.join(", ")));
    ensure!(is_attested(&told.stdout), "the upgraded seal of {} is not attested", samples::LOAN);
    for file in &ALL[1..] {
        let told = stage
            .story
            .quietly(&stage.auditor, &format!("{shell}bulla verify {file} --trust trust.json"), 0)?
            .told;
        ensure!(is_attested(&told.stdout), "the upgraded seal of {file} is not attested");
    }
    stage.story.say("and likewise the other four, each valid and attested.");
    Ok(())
}

fn forge(stage: &mut Stage) -> Result<()> {
    stage.story.act("Somebody changes one byte");
    let shell = stage.without_network();
    let forged = stage.auditor.join("forged");
    fs::create_dir_all(&forged)?;

    let mut document = fs::read(stage.auditor.join(samples::LOAN))?;
    let amount = position(&document, b"25,000.00").context("the loan agreement names no amount to forge")?;
    document[amount] ^= 1;
    fs::write(forged.join(samples::LOAN), document)?;
    fs::copy(
        stage.auditor.join(format!("{}.seal", samples::LOAN)),
        forged.join(format!("{}.seal", samples::LOAN)),
    )?;
    stage.story.say("one bit of the loan agreement: EUR 25,000.00 becomes EUR 35,000.00.");
    let line = format!("{shell}bulla verify {} --trust ../trust.json", samples::LOAN);
    stage.story.run(&forged, &line, OTHER_BYTES, &Show::Beginning(REFUSAL))?;

    fs::copy(stage.auditor.join(samples::PASSPORT), forged.join(samples::PASSPORT))?;
    let seal = fs::read_to_string(stage.auditor.join(format!("{}.seal", samples::PASSPORT)))?;
    fs::write(forged.join(format!("{}.seal", samples::PASSPORT)), with_forged_signature(&seal)?)?;
    stage.story.say("one byte of the signature in the passport's seal.");
    let line = format!("{shell}bulla verify {} --trust ../trust.json", samples::PASSPORT);
    stage.story.run(&forged, &line, REFUSED, &Show::Beginning(REFUSAL))?;

    fs::copy(stage.auditor.join(samples::SIGNATURE_CARD), forged.join(samples::SIGNATURE_CARD))?;
    stage.story.say("a document without its seal is not called forged.");
    let line = format!("{shell}bulla verify {} --trust ../trust.json", samples::SIGNATURE_CARD);
    stage.story.run(&forged, &line, NO_SEAL, &Show::First(1))?;
    Ok(())
}

fn judge_log(stage: &mut Stage) -> Result<()> {
    stage.story.act("The log, judged from its files alone");
    stage.story.run(&stage.box_room, "bulla-box fsck --config box.toml", 0, &Show::First(3)).map(drop)
}

fn close(stage: &Stage, further: &[String]) {
    println!(
        "\nTold as it happened: 5 documents sealed, 1 of them while the TPM was dead; 5 verified offline; 2 forgeries and\n\
         1 missing seal told apart; {};\n{} commands ended as they must. All files are in {}",
        further.join(";\n"),
        stage.story.checks(),
        stage.box_room.parent().unwrap_or(&stage.box_room).display()
    );
}

const ALL: [&str; 5] = [
    samples::LOAN,
    samples::PASSPORT,
    samples::SIGNATURE_CARD,
    samples::STANDING_ORDER,
    samples::ACCOUNT_OPENING,
];

/// The lines of a report that sum up.
const OUTCOME: &[&str] = &["verdict", "facts", "interval", "trust file"];
/// The lines of a report that say what is wrong.
const REFUSAL: &[&str] = &["failed", "verdict"];

impl Stage {
    fn seal_of(&self, file: &str) -> PathBuf {
        self.desk.join(format!("{file}.seal"))
    }

    fn require_seal(&self, file: &str) -> Result<()> {
        let seal = self.seal_of(file);
        ensure!(seal.is_file(), "`bulla seal` ended well and left no {}", seal.display());
        Ok(())
    }

    /// What to put before a command so that it runs in a network namespace with nothing in it; nothing where the
    /// system does not let us (the box and the TPM are off in any case).
    fn without_network(&self) -> &'static str {
        let possible = Command::new("unshare")
            .args(["-rn", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if possible { "unshare -rn " } else { "" }
    }
}

/// The names of the checks that passed, each once (some are made for every checkpoint in the seal).
fn passed_checks(report: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for line in report.lines() {
        let name = line.strip_prefix("passed").and_then(|rest| rest.split_whitespace().next());
        names.extend(name.filter(|name| !names.contains(name)));
    }
    names
}

/// Whether the verifier's line of facts names this one.
fn is_attested(report: &str) -> bool {
    let facts = report.lines().find_map(|line| line.strip_prefix("facts"));
    facts.is_some_and(|facts| facts.split(',').any(|fact| fact.trim() == "attested"))
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The seal with one byte changed near the end of its entry, where the signature is. The first of four base64
/// characters stands for the upper bits of one byte, so exchanging it changes that byte and no other.
fn with_forged_signature(seal: &str) -> Result<String> {
    let json: Value = serde_json::from_str(seal).context("the seal is no JSON")?;
    let entry = json["entry"].as_str().context("the seal has no \"entry\" in base64")?;
    let place = (entry.len().saturating_sub(20) / 4) * 4;
    let old = entry.get(place..=place).context("the seal's entry is empty")?;
    let new = if old == "A" { "B" } else { "A" };
    let forged = format!("{}{new}{}", &entry[..place], &entry[place + 1..]);
    Ok(seal.replacen(entry, &forged, 1))
}

#[cfg(test)]
mod tests {
    use super::{is_attested, passed_checks, with_forged_signature};

    #[test]
    fn a_forged_signature_differs_in_one_character_of_the_same_length() {
        let seal = r#"{"bulla":"seal/v1","entry":"MEUCIQDxMEUCIQDxMEUCIQDxMEUCIQDx","x":"y"}"#;
        let forged = with_forged_signature(seal).unwrap();
        let different: Vec<_> = seal.bytes().zip(forged.bytes()).filter(|(a, b)| a != b).collect();
        assert_eq!(different.len(), 1);
        assert_eq!(seal.len(), forged.len());
    }

    #[test]
    fn checks_made_twice_are_named_once() {
        let report = "passed      seal-file  x\npassed      checkpoint y\npassed      checkpoint z\nfailed      policy\n";
        assert_eq!(passed_checks(report), ["seal-file", "checkpoint"]);
    }

    #[test]
    fn only_the_line_of_facts_says_what_is_attested() {
        assert!(is_attested("verdict     valid\nfacts       sealed, attested\n"));
        assert!(!is_attested("not judged  attested  no quote\nfacts       sealed\n"));
    }
}

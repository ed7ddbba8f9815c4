//! The second half of the demo: a fleet is founded, and boxes become members of it, or do not.
//!
//! - Five TPMs, each with certificates of its maker; the event logs of two real boots are replayed into them.
//! - Three boxes are enrolled, by TPM, fingerprint and two people; one that nobody listed waits in quarantine; one that
//!   booted something else is refused, and the PCR named.
//! - One is stolen, and two people take the trust away from what it sealed.
//! - One of the three has its next log staged; then the registrar is gone and the disk dies, and it goes on alone.
//! - As in the first half, every line with a `$` is run as it is printed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::story::{Show, Story};
use crate::workspace::Workspace;
use xtask::box_fixture::{BoxFixture, BoxOptions};
use xtask::child::Child;
use xtask::samples;
use xtask::swtpm::Swtpm;

/// `bulla-box enroll --once`: somebody else must act first.
const WAITS: i32 = 3;
/// `bulla-box enroll`: refused.
const REFUSED: i32 = 1;
/// `bulla verify`: it cannot be decided.
const INDETERMINATE: i32 = 8;
const READY_WITHIN: Duration = Duration::from_secs(20);
/// The boot that the fleet knows to be good, and another.
const GOOD_BOOT: &str = "image-v2.eventlog";
const OTHER_BOOT: &str = "image-v3.eventlog";

/// One branch.
struct Branch {
    name: &'static str,
    room: PathBuf,
    fixture: BoxFixture,
    tpm: Swtpm,
}

/// The fleet's room and its registrar.
pub struct Fleet {
    pub room: PathBuf,
    pub registrar: Child,
    pub address: String,
    pub pin: String,
}

/// Tells it. Returns a sentence for the end.
pub fn tell(story: &mut Story, workspace: &Workspace, programs: &Path, root: &Path) -> Result<String> {
    let room = root.join("fleet-room");
    fs::create_dir_all(&room)?;
    let logs = workspace.root.join("provisioning/appraisal/tests/logs");
    fs::copy(logs.join(GOOD_BOOT), room.join("good.eventlog")).context("no event log of a real boot")?;
    story.act("A fleet is founded: a root (one custodian here, loudly), two operators, a known good boot");
    found(story, &room, "--name 'image 2' --log good.eventlog")?;
    let mut branches = Vec::new();
    for (name, boot) in [
        ("zug", GOOD_BOOT),
        ("bern", GOOD_BOOT),
        ("chur", GOOD_BOOT),
        ("nobodys", GOOD_BOOT),
        ("basel", OTHER_BOOT),
    ] {
        branches.push(branch(story, programs, root, name, &logs.join(boot))?);
        believe(&room, name, &root.join("branches").join(name).join("tpm"))?;
    }
    story.act(
        "The registrar listens; five boxes stand in their branches, each with a TPM and a boot of its own",
    );
    let fleet = serve(story, programs, room, &[])?;
    ask_unlisted(story, &fleet, &branches)?;
    list(story, &fleet, &branches)?;
    enrol(story, &fleet, &branches[..3])?;
    refuse(story, &fleet, &branches)?;
    fs::copy(fleet.room.join("fleet/trust.json"), branches[0].room.join("trust.json"))?;
    story.act("A member seals, and whoever trusts the fleet believes it");
    let took = seal(story, &mut branches[0], samples::LOAN)?;
    steal(story, &fleet, &mut branches[1])?;
    stage(story, &fleet, &branches[0])?;
    fleet.registrar.kill()?;
    begin(story, &mut branches[0])?;
    for branch in &mut branches {
        branch.tpm.crash()?;
    }
    Ok(format!(
        "3 boxes enrolled, 1 in quarantine, 1 refused for its boot, 1 given up, 1 went on alone in a staged log; the first seal under \
         the fleet's root took {took} ms"
    ))
}

/// A fleet with a root, two operators and the boot that `bulla-fleet propose reference` takes with these arguments.
pub fn found(story: &mut Story, room: &Path, boot: &str) -> Result<()> {
    for name in ["olga", "omar"] {
        let line = format!("bulla-fleet person --dir {name} --name {name} --duty operator");
        story.quietly(room, &line, 0)?;
    }
    let line =
        "bulla-fleet init --dir fleet --fleet demo.bulla.test --operator olga/card --operator omar/card";
    story.run(room, line, 0, &Show::Beginning(&["WARNING", "Root", "Fleet"]))?;
    let line = format!("bulla-fleet propose reference {boot} --dir fleet --reason 'built and measured'");
    story.run(room, &line, 0, &Show::First(1))?;
    for name in ["olga", "omar"] {
        let line = format!("bulla-fleet approve --dir {name} --exchange fleet/exchange --yes");
        story.quietly(room, &line, 0)?;
    }
    story.run(room, "bulla-fleet apply --dir fleet", 0, &Show::First(1))?;
    let line = "bulla-fleet trust export --dir fleet --out fleet/trust.json";
    story.quietly(room, line, 0).map(drop)
}

/// A box that is configured, on a TPM that has booted this log.
fn branch(story: &mut Story, programs: &Path, root: &Path, name: &'static str, log: &Path) -> Result<Branch> {
    let room = root.join("branches").join(name);
    let tpm = Swtpm::manufacture(&room.join("tpm"))?;
    fs::copy(log, room.join("boot.eventlog"))?;
    let shown = story.quietly(&room, "bulla-fleet reference show --json boot.eventlog", 0)?.told.stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown)?;
    let events = shown["events"].as_array().context("the event log has no events")?;
    let extensions: Vec<String> = events
        .iter()
        .filter(|event| event["measured"] == true)
        .filter_map(|event| Some(format!("{}:sha256={}", event["pcr"], event["sha256"].as_str()?)))
        .collect();
    ensure!(extensions.len() > 20, "a real boot measures more than {} times", extensions.len());
    let line = format!("tpm2_pcrextend -T {} {}", tpm.tcti(), extensions.join(" "));
    story.quietly(&room, &line, 0)?;
    let options = BoxOptions {
        tcti: Some(&tpm.tcti()),
        residency: "tpm-endorsed-ram",
        state_dir: None,
        usual_port: false,
        extra: "[attestation]\ncounter_seconds = 0\n[staged]\ndays = 30\n",
    };
    let fixture = BoxFixture::configure(&programs.join("bulla-box"), &room, &options)?;
    let path = room.join("box.toml");
    let text = fs::read_to_string(&path)?;
    let with_log = format!("[tpm]\nevent_log = {:?}\n", room.join("boot.eventlog").display().to_string());
    fs::write(&path, text.replace("[tpm]\n", &with_log))?;
    Ok(Branch { name, room, fixture, tpm })
}

/// The maker of this TPM is one whose TPMs the fleet has bought.
pub fn believe(room: &Path, name: &str, tpm: &Path) -> Result<()> {
    for (list, certificate) in
        [("roots", "swtpm-localca-rootca-cert.pem"), ("intermediates", "issuercert.pem")]
    {
        let list = room.join("fleet/manufacturers").join(list);
        fs::create_dir_all(&list)?;
        fs::copy(tpm.join("ca").join(certificate), list.join(format!("{name}.pem")))?;
    }
    Ok(())
}

/// Starts the registrar, with these arguments beyond the usual ones.
pub fn serve(story: &mut Story, programs: &Path, room: PathBuf, more: &[&str]) -> Result<Fleet> {
    let log = room.join("registrar.log");
    let arguments = [&["serve", "--dir", "fleet", "--listen", "127.0.0.1:0"], more].concat();
    story.say(&format!("bulla-fleet {}", arguments.join(" ")));
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let mut registrar = Child::spawn("bulla-fleet", &programs.join("bulla-fleet"), &arguments, &room, &log)?;
    let said = |word: &str| {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(word)).map(str::to_owned)
    };
    registrar.wait_until(READY_WITHIN, "said where it listens", || said("listens on ").is_some())?;
    let (pin, address) = (said("pin ").context("no pin")?, said("listens on ").context("no address")?);
    story.say(&format!("it is known by its key, {pin}."));
    Ok(Fleet { room, registrar, address, pin })
}

/// `bulla-box enroll --once`; returns what it said.
fn ask(story: &mut Story, fleet: &Fleet, branch: &Branch, code: i32, aloud: &Show) -> Result<String> {
    let line = format!(
        "bulla-box enroll --config box.toml --once --registrar https://{} --pin {}",
        fleet.address, fleet.pin
    );
    match aloud {
        Show::Nothing => Ok(story.quietly(&branch.room, &line, code)?.told.stdout),
        shown => Ok(story.run(&branch.room, &line, code, shown)?.stdout),
    }
}

fn after<'a>(said: &'a str, word: &str) -> Result<&'a str> {
    let found = said.lines().find_map(|line| line.strip_prefix(word));
    Ok(found.with_context(|| format!("it said no {word:?}:\n{said}"))?.trim())
}

fn ask_unlisted(story: &mut Story, fleet: &Fleet, branches: &[Branch]) -> Result<()> {
    story.act("A box that nobody has listed asks: genuine TPM, and yet it waits in quarantine");
    let nobodys = &branches[3];
    let said = ask(story, fleet, nobodys, WAITS, &Show::Beginning(&["claim", "not enrolled"]))?;
    ensure!(said.contains("ek-unknown"), "it is not refused as unknown:\n{said}");
    story.run(&fleet.room, "bulla-fleet enrolments list --dir fleet", 0, &Show::First(3)).map(drop)
}

fn list(story: &mut Story, fleet: &Fleet, branches: &[Branch]) -> Result<()> {
    story.act("The delivery note comes: four boxes are listed, by two people");
    let mut rows = String::from("serial;model;branch;ek\n");
    for branch in branches.iter().filter(|branch| branch.name != "nobodys") {
        let said = ask(story, fleet, branch, WAITS, &Show::Nothing)?;
        rows += &format!("S-{0};B-100;{0};{1}\n", branch.name, after(&said, "TPM")?);
    }
    fs::write(fleet.room.join("delivery.csv"), rows)?;
    let line = "bulla-fleet inventory import delivery.csv --dir fleet --reason 'delivery 7'";
    story.run(&fleet.room, line, 0, &Show::Nothing)?;
    carry_out(story, fleet)
}

/// Two people approve what is proposed, and it is done.
pub fn carry_out(story: &mut Story, fleet: &Fleet) -> Result<()> {
    for name in ["olga", "omar"] {
        let line = format!("bulla-fleet approve --dir {name} --exchange fleet/exchange --yes");
        story.run(&fleet.room, &line, 0, &Show::Nothing)?;
    }
    story.run(&fleet.room, "bulla-fleet apply --dir fleet", 0, &Show::First(1)).map(drop)
}

fn enrol(story: &mut Story, fleet: &Fleet, branches: &[Branch]) -> Result<()> {
    story.act(
        "Three branches on the phone: each reads its fingerprint, olga types it in, olga and omar approve",
    );
    for (number, branch) in branches.iter().enumerate() {
        let words: &[&str] = &["claim", "fingerprint", "TPM", "the TPM is proven"];
        let shown = if number == 0 { Show::Beginning(words) } else { Show::Nothing };
        let said = ask(story, fleet, branch, WAITS, &shown)?;
        let (claim, fingerprint) = (after(&said, "claim code")?, after(&said, "fingerprint")?);
        let line = format!(
            "bulla-fleet enrolments approve {claim} --dir fleet --heard {fingerprint} --by olga --reason 'branch {}'",
            branch.name
        );
        if number == 0 {
            story.run(&fleet.room, &line, 0, &Show::Nothing)?;
            carry_out(story, fleet)?;
        } else {
            story.quietly(&fleet.room, &line, 0)?;
            for name in ["olga", "omar"] {
                let line = format!("bulla-fleet approve --dir {name} --exchange fleet/exchange --yes");
                story.quietly(&fleet.room, &line, 0)?;
            }
            story.quietly(&fleet.room, "bulla-fleet apply --dir fleet", 0)?;
        }
        let shown = if number == 0 { Show::Beginning(&["enrolled"]) } else { Show::Nothing };
        ask(story, fleet, branch, 0, &shown)?;
    }
    story.say("and likewise the other two.");
    Ok(())
}

fn refuse(story: &mut Story, fleet: &Fleet, branches: &[Branch]) -> Result<()> {
    story.act("The fourth has booted something else");
    let said = ask(story, fleet, &branches[4], REFUSED, &Show::Beginning(&["refused"]))?;
    ensure!(said.contains("boot-unknown") && said.contains("PCR 4"), "the PCR is not named:\n{said}");
    story.run(&fleet.room, "bulla-fleet inventory list --dir fleet", 0, &Show::First(6)).map(drop)
}

/// A box whose keys may be in other hands: what it sealed is not wrong, and not decided any more.
fn steal(story: &mut Story, fleet: &Fleet, branch: &mut Branch) -> Result<()> {
    story.act(
        "Another member is stolen: two people say so, and whoever verifies by the new trust file is told",
    );
    fs::copy(fleet.room.join("fleet/trust.json"), branch.room.join("trust.json"))?;
    seal(story, branch, samples::LOAN)?;
    let line = "bulla-fleet revoke S-bern --cause compromise --nothing-good --dir fleet --reason 'stolen from the branch'";
    story.run(&fleet.room, line, 0, &Show::Nothing)?;
    carry_out(story, fleet)?;
    story.run(&fleet.room, "bulla-fleet trust export --dir fleet --out revoked.json", 0, &Show::First(1))?;
    fs::copy(fleet.room.join("revoked.json"), branch.room.join("trust.json"))?;
    let line = format!("bulla verify {} --trust trust.json", samples::LOAN);
    story.run(&branch.room, &line, INDETERMINATE, &Show::Beginning(&["verdict", "trust file"])).map(drop)
}

/// The next log of a member, approved ahead of time.
fn stage(story: &mut Story, fleet: &Fleet, branch: &Branch) -> Result<()> {
    story.act("The next log of the first member is enrolled ahead of time, for the day on which nobody can be asked");
    let prepare = "bulla-box staged prepare --config box.toml --once";
    story.run(&branch.room, prepare, WAITS, &Show::Beginning(&["claim", "not staged"]))?;
    let line = "bulla-fleet enrolments propose --staged --by olga --dir fleet --reason 'before the winter'";
    story.run(&fleet.room, line, 0, &Show::Nothing)?;
    carry_out(story, fleet)?;
    story.run(&branch.room, prepare, 0, &Show::Beginning(&["staged"])).map(drop)
}

/// The registrar is gone, and the disk: the staged log is begun, once.
fn begin(story: &mut Story, branch: &mut Branch) -> Result<()> {
    story.act("The line is cut and the disk dies: an operator begins the staged log, alone and only once");
    let line = "bulla-box staged begin --config box.toml --token-file operator --cause lost-disk --reason 'the disk died'";
    story.run(&branch.room, "cp state.staged copy", 0, &Show::Nothing)?;
    story.run(&branch.room, "rm -r state", 0, &Show::Nothing)?;
    story.run(&branch.room, line, 0, &Show::Beginning(&["begun"]))?;
    story.run(&branch.room, "mv state begun", 0, &Show::Nothing)?;
    story.run(&branch.room, "cp copy state.staged", 0, &Show::Nothing)?;
    let again = format!("{line} 2>&1");
    let again = story.run(&branch.room, &again, REFUSED, &Show::First(1))?.stdout;
    ensure!(again.contains("spent"), "a copy begins it again:\n{again}");
    story.run(&branch.room, "mv begun state", 0, &Show::Nothing)?;
    seal(story, branch, samples::STANDING_ORDER).map(drop)
}

/// A seal of a member; milliseconds that it took.
fn seal(story: &mut Story, branch: &mut Branch, document: &str) -> Result<u128> {
    story.quietly(&branch.room, "bulla-box ca export --config box.toml --out ca.pem", 0)?;
    let added =
        story.quietly(&branch.room, "bulla-box scanner add --config box.toml --name desk", 0)?.told.stdout;
    let token = added.lines().rev().find_map(|line| line.strip_prefix("token: ")).context("no token")?;
    fs::write(branch.room.join("token"), token)?;
    let line = "bulla-box scanner add --config box.toml --name operator --role operator";
    let added = story.quietly(&branch.room, line, 0)?.told.stdout;
    let token = added.lines().rev().find_map(|line| line.strip_prefix("token: ")).context("no token")?;
    fs::write(branch.room.join("operator"), token)?;
    branch.fixture.start()?;
    samples::write(&branch.room)?;
    let client = format!("--box {} --ca ca.pem --token-file token", branch.fixture.url());
    let line = format!("bulla seal {client} --wait attested {document}");
    let took = story.run(&branch.room, &line, 0, &Show::First(1))?.took.as_millis();
    let line = format!("bulla verify {document} --trust trust.json");
    let told = story.run(
        &branch.room,
        &line,
        0,
        &Show::Beginning(&["verdict", "facts", "passed      boot-state"]),
    )?;
    ensure!(told.stdout.contains("image 2"), "the boot is not named:\n{}", told.stdout);
    branch.fixture.stop()?;
    Ok(took)
}

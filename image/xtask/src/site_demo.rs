//! Three boxes of one site hold each other's logs; one of them burns; the hub has its log from a neighbour all the same.
//!
//! - Each box has a TPM of its own; they are introduced by cards, and talk over libp2p on loopback.
//! - The hub pulls all three logs, and is shown a copy of its archive in which somebody changed a byte.
//! - As elsewhere in the demo, every line with a `$` is run as it is printed.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::story::{Show, Story};
use xtask::box_fixture::{BoxFixture, BoxOptions};
use xtask::swtpm::Swtpm;

const NAMES: [&str; 3] = ["harbour", "market", "station"];

struct Branch {
    room: PathBuf,
    fixture: BoxFixture,
    tpm: Swtpm,
}

/// Tells it. Returns a sentence for the end.
pub fn tell(story: &mut Story, programs: &Path, root: &Path) -> Result<String> {
    let site = root.join("site");
    fs::create_dir_all(&site)?;
    story.act("Three boxes of one site take each other's cards, and hold each other's logs");
    let mut branches = Vec::new();
    for name in NAMES {
        branches.push(branch(story, programs, &site.join(name))?);
    }
    introduce(story, &branches)?;
    for branch in &mut branches {
        branch.fixture.start()?;
    }
    fs::write(site.join(NAMES[0]).join("deed.txt"), "Deed of the house at the harbour\n")?;
    let took = seal(story, &branches)?;
    story.say(&format!("a seal that two neighbours hold took {took} ms, and says who they are."));

    let hub = hub(story, &site, &branches)?;

    story.act(
        "One box burns, with its disk and its TPM. The hub pulls all three logs, that one from a neighbour",
    );
    let mut burnt = branches.remove(0);
    burnt.fixture.kill()?;
    burnt.tpm.crash()?;
    fs::remove_dir_all(burnt.room.join("state")).context("cannot burn the box's disk")?;
    pull(story, &hub)?;
    let document = site.join(NAMES[0]).join("deed.txt");
    fs::copy(document, hub.join("deed.txt"))?;
    let found =
        story.run(&hub, "bulla-hub find --document deed.txt --config hub.toml", 0, &Show::First(2))?;
    ensure!(!found.stdout.trim().is_empty(), "the hub does not find the deed");
    let line = "bulla-hub find --document deed.txt --json --config hub.toml";
    let found: Value = serde_json::from_str(story.quietly(&hub, line, 0)?.told.stdout.trim())?;
    let index = found["index"].as_u64().context("an index")?;
    let line = format!("bulla-hub seal {} {index} --out deed.txt.seal --config hub.toml", NAMES[0]);
    story.run(&hub, &line, 0, &Show::First(2))?;
    let line = "bulla verify deed.txt --trust trust.json";
    story.run(&hub, line, 0, &Show::Beginning(&["verdict", "facts"]))?;
    let line = "bulla-hub statement --document deed.txt --pdf statement.pdf --config hub.toml";
    story.run(&hub, line, 0, &Show::First(1))?;
    story.run(&hub, "pdfdetach -save 1 -o inside.seal statement.pdf", 0, &Show::Nothing)?;
    let line = "bulla verify deed.txt inside.seal --trust trust.json";
    story.run(&hub, line, 0, &Show::Beginning(&["verdict"]))?;

    story.act("Somebody changes one byte of the archive");
    story.run(&hub, "bulla-hub fsck --config hub.toml", 0, &Show::First(3))?;
    let logs = hub.join("archive/logs");
    let log = fs::read_dir(&logs)?.next().context("an archived log")??.path();
    let bundle = first_file(&log.join("tile/entries"))?;
    let mut bytes = fs::read(&bundle)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, &bytes)?;
    story.run(&hub, "bulla-hub fsck --config hub.toml", 1, &Show::First(3))?;
    bytes[middle] ^= 1;
    fs::write(&bundle, &bytes)?;
    for mut branch in branches {
        branch.fixture.stop()?;
        branch.tpm.crash()?;
    }
    Ok(format!(
        "{} boxes mirrored each other; the hub has the log of the one that burnt, and its seals",
        NAMES.len()
    ))
}

fn branch(story: &mut Story, programs: &Path, room: &Path) -> Result<Branch> {
    let tpm = Swtpm::manufacture(&room.join("tpm"))?;
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let extra = format!("\n[peers]\nlisten = [\"{address}\"]\nadvertise = [\"{address}\"]\nmdns = false\n");
    let options = BoxOptions {
        tcti: Some(&tpm.tcti()),
        residency: "tpm-endorsed-ram",
        state_dir: None,
        usual_port: false,
        extra: &extra,
    };
    let fixture = BoxFixture::configure(&programs.join("bulla-box"), room, &options)?;
    for line in [
        "bulla-box init --config box.toml",
        "bulla-box ca export --config box.toml --out ca.pem",
        "bulla-box trust export --config box.toml --out trust.json",
    ] {
        story.quietly(room, line, 0)?;
    }
    let line = "bulla-box scanner add --config box.toml --name desk --role scanner --rate 0";
    let added = story.quietly(room, line, 0)?.told.stdout;
    let token = added.lines().rev().find_map(|line| line.strip_prefix("token: ")).context("no token")?;
    fs::write(room.join("desk.token"), token)?;
    Ok(Branch { room: room.to_owned(), fixture, tpm })
}

/// Operators hand each other cards; the fingerprints are compared on the telephone.
fn introduce(story: &mut Story, branches: &[Branch]) -> Result<()> {
    let mut fingerprints = Vec::new();
    for (place, branch) in branches.iter().enumerate() {
        let line = "bulla-box peers card --config box.toml --out peer.card";
        let show = if place == 0 { Show::First(3) } else { Show::Nothing };
        let printed = match place {
            0 => story.run(&branch.room, line, 0, &show)?.stdout,
            _ => story.quietly(&branch.room, line, 0)?.told.stdout,
        };
        let fingerprint = printed.lines().find_map(|line| line.trim().strip_prefix("fingerprint "));
        fingerprints.push(fingerprint.context("`peers card` prints a fingerprint")?.trim().to_owned());
    }
    for one in 0..branches.len() {
        for other in (0..branches.len()).filter(|other| *other != one) {
            let line = format!(
                "bulla-box peers add ../{}/peer.card --fingerprint '{}' --config box.toml",
                NAMES[other], fingerprints[other]
            );
            match (one, other) {
                (0, 1) => drop(story.run(&branches[one].room, &line, 0, &Show::First(1))?),
                _ => drop(story.quietly(&branches[one].room, &line, 0)?),
            }
        }
    }
    Ok(())
}

/// Seals the deed at the first box, for two neighbours to hold, and has them hold the TPM's word for it too; milliseconds
/// of the last seal.
fn seal(story: &mut Story, branches: &[Branch]) -> Result<u128> {
    let Branch { room, fixture, .. } = &branches[0];
    let line = |document: &str, wait: &str| {
        format!(
            "curl -sS --fail-with-body --cacert ca.pem -H \"Authorization: Bearer $(cat desk.token)\" -H 'Content-Type: \
             text/plain' --data-binary {document} '{}/v1/seals?wait={wait}&deadlineSeconds=30'",
            fixture.url()
        )
    };
    let held = |told: &str| -> Result<()> {
        let receipt: Value = serde_json::from_str(told)?;
        ensure!(receipt["waited"] == "mirrored", "the neighbours do not hold it: {receipt:#}");
        Ok(())
    };
    let told = story.run(room, &line("@deed.txt", "mirrored(2)"), 0, &Show::Nothing)?;
    held(&told.stdout)?;
    // What is mirrored last covers the attestation before it.
    story.quietly(room, &line("note", "attested"), 0)?;
    let told = story.quietly(room, &line("another", "mirrored(2)"), 0)?.told;
    held(&told.stdout)?;
    Ok(told.took.as_millis())
}

/// A hub that knows where each log can be had: at its box, and at a neighbour that mirrors it.
fn hub(story: &mut Story, site: &Path, branches: &[Branch]) -> Result<PathBuf> {
    let hub = site.join("hub");
    fs::create_dir_all(&hub)?;
    let mut text =
        "name = \"region\"\nstate_dir = \"state\"\narchive = \"archive\"\ntrust = \"trust.json\"\n"
            .to_owned();
    let mut trust: Option<Value> = None;
    for (place, branch) in branches.iter().enumerate() {
        let line = format!("curl -sS --fail-with-body --cacert ca.pem {}/checkpoint", branch.fixture.url());
        let checkpoint = story.quietly(&branch.room, &line, 0)?.told.stdout;
        let origin = checkpoint.lines().next().context("a checkpoint names its log")?;
        let _ = writeln!(text, "\n[[boxes]]\nname = {:?}\norigin = {origin:?}", NAMES[place]);
        let neighbour = (place + 1) % branches.len();
        for (at, mirror) in [(place, false), (neighbour, true)] {
            let (url, ca) = (branches[at].fixture.url(), format!("../{}/ca.pem", NAMES[at]));
            let _ = writeln!(text, "[[boxes.sources]]\nurl = {url:?}\nca = {ca:?}\nmirror = {mirror}");
        }
        // Each of these boxes is a fleet of its own; the hub believes all three roots.
        let own: Value = serde_json::from_slice(&fs::read(branch.room.join("trust.json"))?)?;
        match &mut trust {
            None => trust = Some(own),
            Some(trust) => {
                let roots = own["roots"].as_array().context("a trust file has roots")?.clone();
                trust["roots"].as_array_mut().context("a trust file has roots")?.extend(roots);
            }
        }
    }
    fs::write(hub.join("hub.toml"), text)?;
    fs::write(hub.join("trust.json"), serde_json::to_vec_pretty(&trust)?)?;
    story.run(&hub, "bulla-hub init --config hub.toml", 0, &Show::First(2))?;
    Ok(hub)
}

fn pull(story: &mut Story, hub: &Path) -> Result<()> {
    story.run(hub, "bulla-hub pull --config hub.toml", 0, &Show::First(6))?;
    story.run(hub, "bulla-hub status --config hub.toml", 0, &Show::First(6))?;
    Ok(())
}

/// The first file below a directory, by name.
fn first_file(directory: &Path) -> Result<PathBuf> {
    let mut names: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|name| Ok(name?.path())).collect::<Result<_, std::io::Error>>()?;
    names.sort();
    let first = names.into_iter().next().with_context(|| format!("{} is empty", directory.display()))?;
    if first.is_dir() { first_file(&first) } else { Ok(first) }
}

//! The end of the image's test: a machine with a fresh disk asks a registrar to be enrolled, with nobody typing at it.
//! The registrar knows one good boot, computed from the image's files, and wants Secure Boot proven.
//!
//! - Address and pin of the registrar are on the stick; claim code and fingerprint are read from the console, as a
//!   person in the branch would read them out.
//! - The box has no way out but the one to the registrar.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use xtask::samples;
use xtask::swtpm::Swtpm;

use crate::fleet_demo::{believe, carry_out, found, serve};
use crate::image::{self, Image};
use crate::machine::{Machine, REGISTRAR};
use crate::story::{Show, Story};
use crate::workspace::Workspace;

/// Where the box of this machine is found.
const PORT: u16 = 18_444;

/// Tells it; returns the seconds from power-on to service, people included.
pub fn tell(story: &mut Story, workspace: &Workspace, image: &Image, version: &str) -> Result<f64> {
    story.act("A fleet that knows this image by its computed boot; a new machine asks to join it");
    let mut machine = Machine::make(image, &image::scripts(workspace), "enrolled", PORT)?;
    let (room, desk, tpm) = (machine.path("fleet-room"), machine.path("desk"), machine.path("tpm"));
    for directory in [&room, &desk] {
        fs::create_dir_all(directory)?;
    }
    samples::write(&desk)?;
    Swtpm::make(&tpm)?;
    fs::copy(image.file("eventlog"), room.join("image.eventlog"))?;
    found(story, &room, &format!("--name 'image {version}' --log image.eventlog --pcrs 4,7,11"))?;
    believe(&room, "machine", &tpm)?;
    let fleet = serve(story, &image.programs, room, &["--secure-boot"])?;
    let (_, port) = fleet.address.rsplit_once(':').context("the registrar names no port")?;
    machine.registrar = Some(port.parse()?);
    machine.put_on_stick("box.toml", &configuration())?;
    machine.put_on_stick("registrar", &format!("https://{REGISTRAR}\n{}\n", fleet.pin))?;
    machine.put_on_stick("scanners", "desk-1\n")?;

    let mut running = machine.start(&tpm, true)?;
    running.wait_serial("fingerprint  ")?;
    running.wait_serial("ek-unknown")?;
    let serial = running.serial();
    let said = |word: &str| {
        let line = serial.lines().find_map(|line| line.split_once(&format!(": {word} ")));
        line.and_then(|(_, rest)| rest.split_whitespace().next())
            .with_context(|| format!("no {word} on the console"))
    };
    let (claim, fingerprint, hash) = (said("claim code")?, said("fingerprint")?, said("TPM")?);
    story.say(&format!(
        "the console shows claim code {claim} and fingerprint {fingerprint}; nobody has listed its TPM."
    ));
    fs::write(fleet.room.join("delivery.csv"), format!("serial;model;branch;ek\nS-1;B-100;zug;{hash}\n"))?;
    let line = "bulla-fleet inventory import delivery.csv --dir fleet --reason 'delivery 1'";
    story.run(&fleet.room, line, 0, &Show::Nothing)?;
    carry_out(story, &fleet)?;
    running.wait_serial("the TPM is proven")?;
    let line = format!(
        "bulla-fleet enrolments approve {claim} --dir fleet --heard {fingerprint} --by olga --reason 'branch zug'"
    );
    story.run(&fleet.room, &line, 0, &Show::Nothing)?;
    carry_out(story, &fleet)?;
    let seconds = running.wait_ready(None)?;
    story.say(&format!("enrolled and ready {seconds:.0} s after power-on."));
    seal(story, &machine, &desk, &fleet.room.join("fleet/trust.json"), version)?;
    running.power_off()?;
    fleet.registrar.kill()?;
    Ok(seconds)
}

/// The configuration of a box of the demo's fleet.
pub fn configuration() -> String {
    "state_dir = \"/var/lib/bulla/box\"\n\n\
     [identity]\nfleet = \"demo.bulla.test\"\nnames = [\"localhost\", \"127.0.0.1\"]\n\n\
     [tpm]\ntcti = \"signer:/run/bulla-signer/socket\"\n"
        .to_owned()
}

fn seal(story: &mut Story, machine: &Machine, desk: &Path, trust: &Path, version: &str) -> Result<()> {
    for (name, file) in [("ca.pem", "ca.pem"), ("tokens/desk-1", "token")] {
        fs::write(desk.join(file), machine.read_from_stick(name)?)?;
    }
    fs::copy(trust, desk.join("trust.json"))?;
    let client = format!("--box {} --ca ca.pem --token-file token", machine.url());
    let line = format!("bulla seal {client} --wait attested {}", samples::LOAN);
    story.run(desk, &line, 0, &Show::First(1))?;
    let line = format!("bulla verify {} --trust trust.json", samples::LOAN);
    let words = ["passed      enrolment", "passed      boot-state", "verdict"];
    let told = story.run(desk, &line, 0, &Show::Beginning(&words))?;
    ensure!(
        told.stdout.contains(&format!("as reference image {version}")),
        "the boot is not named:\n{}",
        told.stdout
    );
    Ok(())
}

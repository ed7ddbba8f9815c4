//! The part of the image's test that is about installing, on a machine with an empty disk: the plug is pulled while the stick
//! writes, and nothing starts; the same stick installs; the machine starts from its disk alone, goes into service, seals; the
//! stick, plugged in again, does not touch the box; another stick ends the box and makes a new one of it.
//!
//! - The stick is the one that `image/os/stick` makes, on a USB port; nobody types anything.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use xtask::samples;
use xtask::swtpm::Swtpm;

use crate::deb::output;
use crate::image::{self, Image};
use crate::image_enrol;
use crate::image_test::Timings;
use crate::machine::Machine;
use crate::story::{Show, Story};
use crate::workspace::Workspace;

const PORT: u16 = 18_447;
/// The disk of the machine, with room for the data partition.
const DISK: u64 = 3 << 30;
/// Where the stick's boot partition begins (`mtools` counts from there).
const ESP: &str = "@@1M";
/// Less than a root has, in bytes; more than anything else writes at that time.
const HALF_A_ROOT: u64 = 50_000_000;
const STICK: &str = "install.raw";
const RESET: &str = "reset.raw";
const RESET_STICK: u64 = 16 << 20;

/// Tells it; returns what took how long.
pub fn tell(story: &mut Story, workspace: &Workspace, image: &Image, version: &str) -> Result<Timings> {
    story.act("A machine with an empty disk, and a stick that installs");
    let mut timings = Timings::new();
    let machine = Machine::make(image, &image::scripts(workspace), "installed", PORT)?;
    let (tpm, desk) = (machine.path("tpm"), machine.path("desk"));
    Swtpm::make(&tpm)?;
    fs::create_dir_all(&desk)?;
    samples::write(&desk)?;
    File::create(machine.path("disk.raw"))?.set_len(DISK)?;
    output(
        Command::new("cp").arg("--sparse=always").arg(image.file("install.raw")).arg(machine.path(STICK)),
    )?;
    let megabytes = fs::metadata(machine.path(STICK))?.len() / 1_000_000;
    story.say(&format!("the stick has {megabytes} MB."));

    story.act("The plug is pulled while it is written: nothing starts from the disk");
    let mut running = machine.start_with(&tpm, Some(STICK))?;
    running.wait_serial("writing the image")?;
    running.wait_disk_grows(HALF_A_ROOT)?;
    running.cut_power()?;
    let mut first = [0; 512];
    std::io::Read::read_exact(&mut File::open(machine.path("disk.raw"))?, &mut first)?;
    ensure!(first == [0; 512], "the disk has a first sector, although it is not whole");

    story.act("The same stick again: the image is installed, the machine switches itself off");
    let began = Instant::now();
    let mut running = machine.start_with(&tpm, Some(STICK))?;
    running.wait_serial("an installation that was cut off")?;
    running.wait_serial("is on the disk after")?;
    let seconds = running.wait_off()?;
    timings.push(("power-on to installed and off", seconds));
    let said = on_stick(&machine)?;
    for line in said.lines() {
        story.say(&format!("  {line}"));
    }
    ensure!(said.contains(&format!("the image {version} is on the disk")), "it was not installed");
    story.say(&format!("off after {:.0} s.", began.elapsed().as_secs_f64()));

    story.act("The machine starts from its disk alone, goes into service, seals");
    machine.put_on_stick("box.toml", &image_enrol::configuration())?;
    machine.put_on_stick("scanners", "desk-1\n")?;
    let mut running = machine.start(&tpm, true)?;
    let seconds = running.wait_ready(None)?;
    timings.push(("power-on to service, first boot of an installed disk", seconds));
    running.wait_serial("has passed its check")?;
    for (name, file) in [("ca.pem", "ca.pem"), ("trust.json", "trust.json"), ("tokens/desk-1", "token")] {
        fs::write(desk.join(file), machine.read_from_stick(name)?)?;
    }
    let client = format!("--box {} --ca ca.pem --token-file token", machine.url());
    let line = format!("bulla seal {client} --wait attested {}", samples::LOAN);
    story.run(&desk, &line, 0, &Show::First(1))?;
    let line = format!("bulla verify {} --trust trust.json", samples::LOAN);
    story.run(&desk, &line, 0, &Show::Beginning(&["verdict"]))?;
    fs::copy(image.file("eventlog"), desk.join("image.eventlog"))?;
    let add = format!(
        "bulla-fleet reference add --trust trust.json --name 'image {version}' --log image.eventlog --pcrs 4,7,11 --out judged.json"
    );
    story.run(&desk, &add, 0, &Show::First(1))?;
    let line = format!("bulla verify {} --trust judged.json", samples::LOAN);
    let told = story.run(&desk, &line, 0, &Show::Beginning(&["passed      boot-state"]))?;
    ensure!(told.stdout.contains("passed      boot-state"), "the installed boot is not the computed one");
    running.power_off()?;

    story.act("The stick again, and no order on it: the box on the disk is not touched");
    // Firmware prefers the disk that it knows; what is asked here is what the stick does when it is started.
    let disk = machine.path("disk.raw");
    let kept = machine.path("kept.raw");
    output(Command::new("cp").arg("--sparse=always").arg(&disk).arg(&kept))?;
    blank_first_sector(&disk)?;
    let mut running = machine.start_with(&tpm, Some(STICK))?;
    running.wait_serial("a box and its data")?;
    running.wait_serial("no built-in disk that is empty")?;
    running.cut_power()?;
    let same = Command::new("cmp").args(["--ignore-initial=512"]).arg(&disk).arg(&kept).status()?;
    ensure!(same.success(), "the stick has changed the disk of a box");
    fs::rename(&kept, &disk)?;
    let mut running = machine.start(&tpm, false)?;
    running.wait_ready(Some(&desk.join("ca.pem")))?;
    story.run(&desk, &format!("bulla seal {client} {}", samples::PASSPORT), 0, &Show::First(1))?;
    running.power_off()?;
    reset(story, &machine, &tpm, &desk)?;
    for file in [STICK, RESET, "disk.raw"] {
        fs::remove_file(machine.path(file))?;
    }
    Ok(timings)
}

/// The box is a fleet of one: the stick that took it into service may end it.
fn reset(story: &mut Story, machine: &Machine, tpm: &Path, desk: &Path) -> Result<()> {
    story.act("The box is reset by a stick: its log ends, its TPM is cleared, and it is a new box");
    let told = story.quietly(desk, &format!("bulla inspect {}.seal", samples::LOAN), 0)?.told.stdout;
    let origin = told.lines().find_map(|line| line.strip_prefix("origin: "));
    let origin = origin.context("`bulla inspect` names no origin")?.to_owned();
    let stick = machine.path(RESET);
    File::create(&stick)?.set_len(RESET_STICK)?;
    output(Command::new("mkfs.vfat").args(["-n", "BULLARESET"]).arg(&stick))?;
    let put = |name: &str, content: &str| -> Result<()> {
        let file = machine.path("to-stick");
        fs::write(&file, content)?;
        let to = format!("::/{name}");
        output(Command::new("mcopy").arg("-o").arg("-i").arg(&stick).arg(&file).arg(to))?;
        Ok(fs::remove_file(&file)?)
    };
    put("origin", &origin)?;
    put("stick-key", "somebody else's\n")?;
    let mut running = machine.start_with(tpm, Some(RESET))?;
    running.wait_serial("stick-key is not that of the stick")?;
    running.wait_ready(Some(&desk.join("ca.pem")))?;
    running.power_off()?;
    // What mtype prints comes without its line feed, which is part of the proof.
    put("stick-key", &format!("{}\n", machine.read_from_stick("stick-key")?.trim_end()))?;
    let running = machine.start_with(tpm, Some(RESET))?;
    let seconds = running.wait_off()?;
    let said = machine.read_from(RESET, "result.txt")?;
    story.say(&format!("restarted {seconds:.0} s after power-on. The stick says:"));
    for line in said.lines() {
        story.say(&format!("  {line}"));
    }
    ensure!(said.contains("this box is new"), "the box was not reset");
    let from = format!("{}", stick.display());
    output(
        Command::new("mcopy").args(["-n", "-i", &from, "::/box.certificate"]).arg(desk.join("certificate")),
    )?;
    let line = "bulla-fleet certificate certificate --trust trust.json";
    story.run(desk, line, 0, &Show::Beginning(&["TPM"]))?;

    // The same configuration, a new log under a new TPM key; the old proof is worth nothing.
    machine.put_on_stick("scanners", "desk-2\n")?;
    let mut running = machine.start(tpm, true)?;
    running.wait_ready(None)?;
    for (name, file) in [("ca.pem", "ca.pem"), ("tokens/desk-2", "token")] {
        fs::write(desk.join(file), machine.read_from_stick(name)?)?;
    }
    let client = format!("--box {} --ca ca.pem --token-file token", machine.url());
    story.run(desk, &format!("bulla seal {client} {}", samples::SIGNATURE_CARD), 0, &Show::First(1))?;
    let line = format!("bulla inspect {}.seal", samples::SIGNATURE_CARD);
    let told = story.quietly(desk, &line, 0)?.told.stdout;
    ensure!(!told.contains(&format!("origin: {origin}\n")), "the new box goes on in the old log");
    running.power_off()?;
    Ok(())
}

/// What the installation has left on its stick.
fn on_stick(machine: &Machine) -> Result<String> {
    let image = format!("{}{ESP}", machine.path(STICK).display());
    output(Command::new("mtype").args(["-i", &image, "::/install.txt"]))
        .context("the stick has no install.txt")
}

fn blank_first_sector(disk: &Path) -> Result<()> {
    let mut file = File::options().write(true).open(disk)?;
    Ok(std::io::Write::write_all(&mut file, &[0; 512])?)
}

//! `cargo xtask image-test`: the image of `cargo xtask image` on a machine with Secure Boot and a TPM. It is taken into
//! service with a stick, seals, is switched off and on, loses its power while it seals; then somebody changes one byte
//! of its root, one byte of its kernel image, and its TPM.
//!
//! - Every claim is a checked exit code, a checked answer, or words that the machine's console shows.
//! - Needs root (a tree of tools is entered) and some minutes: without hardware virtualisation each boot takes one.
//! - Everything is left in `target/image/machine` for a look around: `serial.log` is the last run's console.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use xtask::samples;
use xtask::swtpm::Swtpm;

use crate::deb::output;
use crate::image::{self, Image};
use crate::image_console;
use crate::image_enrol;
use crate::image_install;
use crate::image_update;
use crate::machine::Machine;
use crate::story::{Show, Story};
use crate::workspace::Workspace;

/// Where the box of the machine is found; another one than the demo's, so that both can run.
const PORT: u16 = 18_443;
/// `bulla verify`: a genuine seal, but of other bytes.
const OTHER_BYTES: i32 = 3;
/// Receipts that must be out when the plug is pulled.
const RECEIPTS_MIN: usize = 20;
/// For that many receipts.
const RECEIPTS_WITHIN: Duration = Duration::from_secs(300);
const SECTOR: u64 = 512;
/// Partitions in the order of `image/os/disk`.
const ROOT_A: u64 = 1;
/// Where the boot partition begins (`mtools` counts from there).
const ESP: &str = "@@1M";
/// What the console says when the data partition stays closed (`bulla-locked.service`).
const LOCKED: &str = "does not open with this machine's TPM";

/// What took how long, in seconds.
pub type Timings = Vec<(&'static str, f64)>;

struct Stage {
    story: Story,
    machine: Machine,
    tpm: PathBuf,
    /// Where documents are scanned and checked: outside the machine.
    desk: PathBuf,
    /// The arguments that every client command needs.
    client: String,
    timings: Timings,
}

/// Which part of the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Only that of the updates.
    Update,
    /// Only that of the console.
    Console,
    /// Only that of the stick that installs.
    Install,
}

/// Tells the story, or a part of it.
pub fn run(workspace: &Workspace, version: &str, part: Part) -> Result<()> {
    let started = Instant::now();
    let image = Image::find(workspace, version)?;
    let told = |one: Part| part == Part::Whole || part == one;
    let (mut story, mut timings) = match part {
        Part::Whole => one_image(workspace, version, &image)?,
        _ => (Story::begin(&image.programs)?, Vec::new()),
    };
    if told(Part::Console) {
        timings.extend(image_console::tell(&mut story, workspace, &image)?);
    }
    if told(Part::Install) {
        timings.extend(image_install::tell(&mut story, workspace, &image, version)?);
    }
    if told(Part::Update) {
        timings.extend(image_update::tell(&mut story, workspace, &image, version)?);
    }
    println!();
    for (what, seconds) in &timings {
        println!("{what:<52} {seconds:>6.1} s");
    }
    println!("image {version} held: {} commands in {} s", story.checks(), started.elapsed().as_secs());
    Ok(())
}

/// What holds of an image that stays as it is.
fn one_image(workspace: &Workspace, version: &str, image: &Image) -> Result<(Story, Timings)> {
    let mut stage = set_up(workspace, image)?;
    take_into_service(&mut stage)?;
    judge_the_boot(&mut stage, version, image)?;
    reboot(&mut stage)?;
    pull_the_plug(&mut stage)?;
    change_the_root(&mut stage, image)?;
    change_the_kernel(&mut stage)?;
    change_the_tpm(&mut stage)?;
    come_back(&mut stage)?;
    let seconds = image_enrol::tell(&mut stage.story, workspace, image, version)?;
    stage.timings.push(("power-on to service, enrolled by a registrar", seconds));
    Ok((stage.story, stage.timings))
}

fn set_up(workspace: &Workspace, image: &Image) -> Result<Stage> {
    let mut story = Story::begin(&image.programs)?;
    story.act("A machine with Secure Boot and a TPM, and a stick with its configuration");
    let machine = Machine::make(image, &image::scripts(workspace), "machine", PORT)?;
    let (tpm, desk) = (machine.path("tpm"), machine.path("desk"));
    Swtpm::make(&tpm)?;
    fs::create_dir_all(&desk)?;
    samples::write(&desk)?;
    machine.put_on_stick("box.toml", &image_enrol::configuration())?;
    machine.put_on_stick("scanners", "desk-1\n")?;
    story.say("the firmware trusts the image's own keys and no others; the stick holds box.toml and a list of scanners.");
    let client = format!("--box {} --ca ca.pem --token-file token", machine.url());
    Ok(Stage { story, machine, tpm, desk, client, timings: Vec::new() })
}

fn take_into_service(stage: &mut Stage) -> Result<()> {
    stage.story.act("First boot: the data partition is made, the box goes into service, nobody logs in");
    let mut running = stage.machine.start(&stage.tpm, true)?;
    let seconds = running.wait_ready(None)?;
    stage.timings.push(("power-on to service, first boot", seconds));
    stage.story.say(&format!("ready {seconds:.0} s after power-on. The stick now says:"));
    for line in stage.machine.read_from_stick("result.txt")?.lines() {
        stage.story.say(&format!("  {line}"));
    }
    for (name, file) in [("ca.pem", "ca.pem"), ("trust.json", "trust.json"), ("tokens/desk-1", "token")] {
        fs::write(stage.desk.join(file), stage.machine.read_from_stick(name)?)?;
    }
    let recovery = stage.machine.read_from_stick("recovery-key")?;
    ensure!(recovery.matches('-').count() == 7, "the recovery key on the stick is none");

    let line = format!("bulla seal {} --wait attested {}", stage.client, samples::LOAN);
    stage.story.run(&stage.desk, &line, 0, &Show::First(1))?;
    let line = format!("bulla verify {} --trust trust.json", samples::LOAN);
    stage.story.run(&stage.desk, &line, 0, &Show::Beginning(&["passed      quote", "verdict", "facts"]))?;
    let forgery = format!("cp {}.seal {}.seal", samples::LOAN, samples::STANDING_ORDER);
    stage.story.run(&stage.desk, &forgery, 0, &Show::Nothing)?;
    let line = format!("bulla verify {} --trust trust.json", samples::STANDING_ORDER);
    stage.story.run(&stage.desk, &line, OTHER_BYTES, &Show::Beginning(&["verdict"]))?;
    let off = running.power_off()?;
    stage.timings.push(("power button to off", off));
    Ok(())
}

fn judge_the_boot(stage: &mut Stage, version: &str, image: &Image) -> Result<()> {
    stage.story.act("The boot is judged by what the image's files say it must measure");
    fs::copy(image.file("eventlog"), stage.desk.join("image.eventlog"))?;
    let add = format!(
        "bulla-fleet reference add --trust trust.json --name 'image {version}' --log image.eventlog --pcrs 4,7,11 --out judged.json"
    );
    stage.story.run(&stage.desk, &add, 0, &Show::First(1))?;
    let line = format!("bulla verify {} --trust judged.json", samples::LOAN);
    let told =
        stage.story.run(&stage.desk, &line, 0, &Show::Beginning(&["passed      boot-state", "verdict"]))?;
    ensure!(
        told.stdout.contains("passed      boot-state"),
        "the boot is not the computed one:\n{}",
        told.stdout
    );
    // A reference of another machine, whose firmware has other keys, is not taken for this boot.
    let mut other: Value = serde_json::from_slice(&fs::read(stage.desk.join("judged.json"))?)?;
    other["references"][0]["pcrs"][1]["value"] = "0".repeat(64).into();
    fs::write(stage.desk.join("other.json"), other.to_string())?;
    let line = format!("bulla verify {} --trust other.json", samples::LOAN);
    let told = stage.story.quietly(&stage.desk, &line, 0)?.told.stdout;
    ensure!(
        told.contains("none of the trust file's references"),
        "a boot of other keys is taken for this one:\n{told}"
    );
    Ok(())
}

fn reboot(stage: &mut Stage) -> Result<()> {
    stage.story.act("The next boot, without the stick: the data opens by itself, the log goes on");
    let mut running = stage.machine.start(&stage.tpm, false)?;
    let seconds = running.wait_ready(Some(&stage.desk.join("ca.pem")))?;
    let line = format!("bulla seal {} {}", stage.client, samples::PASSPORT);
    let sealed = stage.story.run(&stage.desk, &line, 0, &Show::First(1))?;
    let first_seal = seconds + sealed.took.as_secs_f64();
    stage.timings.push(("power-on to first seal, second boot", first_seal));
    stage.story.say(&format!("sealed {first_seal:.0} s after power-on."));
    let line = format!("bulla upgrade {} {}.seal", stage.client, samples::LOAN);
    stage.story.run(&stage.desk, &line, 0, &Show::First(1))?;
    ensure!(
        origin(&mut stage.story, &stage.desk, samples::LOAN)?
            == origin(&mut stage.story, &stage.desk, samples::PASSPORT)?,
        "the log after the boot is another one"
    );
    running.cut_power()
}

fn pull_the_plug(stage: &mut Stage) -> Result<()> {
    stage.story.act("The plug is pulled while it seals: no receipt is lost");
    let ca = stage.desk.join("ca.pem");
    let mut running = stage.machine.start(&stage.tpm, false)?;
    running.wait_ready(Some(&ca))?;
    let rush = stage.desk.join("rush");
    fs::create_dir_all(&rush)?;
    let client = stage.client.replace("ca.pem", "../ca.pem").replace("token-file ", "token-file ../");
    let program = output(
        Command::new("sh").args(["-c", "command -v \"$0\"", "bulla"]).env("PATH", stage.story.path()),
    )?;
    let endless = format!(
        "n=0; while n=$((n + 1)); do echo \"document $n\" >$n.txt; {program} seal {client} --attempts 1 $n.txt || exit 0; done"
    );
    let mut scanner = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "sh", "-c", &endless])
        .current_dir(&rush)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a scanner")?;
    let began = Instant::now();
    while receipts(&rush)?.len() < RECEIPTS_MIN && began.elapsed() < RECEIPTS_WITHIN {
        sleep(Duration::from_millis(50));
    }
    running.cut_power()?;
    scanner.wait().context("cannot wait for the scanner")?;
    let seals = receipts(&rush)?;
    ensure!(seals.len() >= RECEIPTS_MIN, "only {} seals in {} s", seals.len(), RECEIPTS_WITHIN.as_secs());
    stage.story.say(&format!("{} receipts were out when the power went.", seals.len()));

    let mut running = stage.machine.start(&stage.tpm, false)?;
    let seconds = running.wait_ready(Some(&ca))?;
    stage.timings.push(("power-on to service, after a power cut", seconds));
    stage.story.quietly(&rush, &format!("bulla upgrade {client} {}", seals.join(" ")), 0)?;
    // What was on its way when the power went may have no receipt.
    stage.story.quietly(&rush, "for d in *.txt; do [ -e $d.seal ] || rm $d; done", 0)?;
    stage.story.quietly(&rush, "bulla verify --recursive . --trust ../trust.json", 0)?;
    stage.story.say("the box, back again, knows every one of them, and all verify.");
    let off = running.power_off()?;
    stage.timings.push(("power button to off", off));
    Ok(())
}

fn change_the_root(stage: &mut Stage, image: &Image) -> Result<()> {
    stage.story.act("One byte of the root is changed: it does not boot");
    let disk = stage.machine.path("disk.raw");
    let root = partition(&disk, ROOT_A)?;
    let mut expected = [0; SECTOR as usize];
    // The file system's own description: the first block that is read.
    let at = 1024;
    let mut original = File::open(image.file("root.raw"))?;
    original.seek(SeekFrom::Start(at))?;
    original.read_exact(&mut expected)?;
    ensure!(read_sector(&disk, root + at)? == expected, "the root is not where it should be on the disk");
    flip(&disk, root + at + 100)?;
    let running = stage.machine.start(&stage.tpm, false)?;
    let seconds = running.wait_off()?;
    let serial = fs::read(stage.machine.path("serial.log"))?;
    let serial = String::from_utf8_lossy(&serial);
    let words = serial.lines().find(|line| line.contains("corrupt"));
    let words =
        words.context("the machine went down, but the console does not say that a block is corrupted")?;
    stage.story.say(&format!("down after {seconds:.0} s: {}", words.trim()));
    flip(&disk, root + at + 100)
}

fn change_the_kernel(stage: &mut Stage) -> Result<()> {
    stage.story.act("One byte of the kernel image is changed: the firmware refuses it");
    let disk = format!("{}{ESP}", stage.machine.path("disk.raw").display());
    let listing = output(Command::new("mdir").args(["-b", "-i", &disk, "::/EFI/Linux"]))?;
    let name = listing.lines().next().context("there is no kernel image on the boot partition")?.to_owned();
    stage.story.say(&format!("it is {name}: counted as good, after boots that went well."));
    ensure!(!name.contains('+'), "the boots so far were not counted as good");
    let (good, bad) = (stage.machine.path("good.efi"), stage.machine.path("bad.efi"));
    output(Command::new("mcopy").args(["-n", "-i", &disk, &name]).arg(&good))?;
    fs::copy(&good, &bad)?;
    let middle = fs::metadata(&bad)?.len() / 2;
    flip(&bad, middle)?;
    output(Command::new("mcopy").args(["-o", "-i", &disk]).arg(&bad).arg(&name))?;
    let mut running = stage.machine.start(&stage.tpm, false)?;
    let seconds = running.wait_serial("Access denied")?;
    stage.story.say(&format!("refused {seconds:.0} s after power-on."));
    running.cut_power()?;
    output(Command::new("mcopy").args(["-o", "-i", &disk]).arg(&good).arg(&name))?;
    Ok(())
}

fn change_the_tpm(stage: &mut Stage) -> Result<()> {
    stage.story.act("The disk is put into another machine: its data stays closed");
    let other = stage.machine.path("other-tpm");
    Swtpm::make(&other)?;
    let mut running = stage.machine.start(&other, false)?;
    let seconds = running.wait_serial(LOCKED)?;
    ensure!(!running.answers(None), "the box answers on another TPM");
    stage
        .story
        .say(&format!("after {seconds:.0} s the console says that the data {LOCKED}; nothing answers."));
    running.cut_power()
}

fn come_back(stage: &mut Stage) -> Result<()> {
    stage.story.act("Its own TPM and its own bytes again: it goes on");
    let mut running = stage.machine.start(&stage.tpm, false)?;
    running.wait_ready(Some(&stage.desk.join("ca.pem")))?;
    ensure!(!running.serial().contains(LOCKED), "the data stayed closed");
    let line = format!("bulla seal {} {}", stage.client, samples::SIGNATURE_CARD);
    stage.story.run(&stage.desk, &line, 0, &Show::First(1))?;
    let line = format!("bulla verify {} --trust trust.json", samples::SIGNATURE_CARD);
    stage.story.run(&stage.desk, &line, 0, &Show::Beginning(&["verdict"]))?;
    running.power_off()?;
    Ok(())
}

/// The log that a seal is from.
fn origin(story: &mut Story, desk: &Path, document: &str) -> Result<String> {
    let told = story.quietly(desk, &format!("bulla inspect {document}.seal"), 0)?.told.stdout;
    let line = told.lines().find(|line| line.starts_with("origin: "));
    Ok(line.context("`bulla inspect` names no origin")?.to_owned())
}

/// Names of the seals in a directory.
fn receipts(directory: &Path) -> Result<Vec<String>> {
    let names = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<Vec<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| name.ends_with(".seal")).collect())
}

/// Where a partition of a disk image begins (UEFI 2.10, 5.3: the array of entries is in sector 2, 128 bytes each).
fn partition(disk: &Path, number: u64) -> Result<u64> {
    let sector = read_sector(disk, 2 * SECTOR + number / 4 * SECTOR)?;
    let entry = (number % 4 * 128) as usize;
    let first = sector.get(entry + 32..entry + 40).context("a sector holds four entries")?;
    Ok(u64::from_le_bytes(first.try_into()?) * SECTOR)
}

fn read_sector(disk: &Path, at: u64) -> Result<[u8; SECTOR as usize]> {
    let mut sector = [0; SECTOR as usize];
    let mut file = File::open(disk)?;
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut sector)?;
    Ok(sector)
}

/// Changes one bit; twice, and it is as before.
fn flip(path: &Path, at: u64) -> Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))?;
    file.read_exact(&mut byte)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(&[byte[0] ^ 1])?;
    Ok(file.sync_all()?)
}

//! The part of the image's test that is about updates, on a machine with a fresh disk: the power goes in the middle of one;
//! then it is taken, proves itself and is in the log; the next one does not work, and the machine goes back by itself; an
//! older one is refused; and an image below the floor, put back by hand, does not open the data.
//!
//! - Updates come from sticks, as in a branch; nobody types anything. The machine restarts itself, which ends a run.
//! - What is in the log is read as anybody can read it: from the tiles.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use xtask::samples;
use xtask::swtpm::Swtpm;

use crate::deb::output;
use crate::image::{self, Fit, Image};
use crate::image_enrol;
use crate::image_test::Timings;
use crate::machine::Machine;
use crate::story::{Show, Story};
use crate::workspace::Workspace;

const PORT: u16 = 18_445;
/// Where the boot partition begins (`mtools` counts from there).
const ESP: &str = "@@1M";
/// Less than a root has, in bytes; more than anything else writes at that time.
const HALF_A_ROOT: u64 = 50_000_000;
/// How often systemd-boot lets an image try.
const TRIES: usize = 3;

struct Stage<'a> {
    story: &'a mut Story,
    machine: Machine,
    tpm: std::path::PathBuf,
    desk: std::path::PathBuf,
    timings: Timings,
}

/// Tells it; returns what took how long.
pub fn tell(story: &mut Story, workspace: &Workspace, image: &Image, version: &str) -> Result<Timings> {
    story.act("Two more images: one that works, and one whose box does not start");
    let (second, third) = (after(version, 1)?, after(version, 2)?);
    // The second one, once it has proven itself, is the oldest that may start.
    let works = image::next(workspace, &second, &second, Fit::Works)?;
    let unfit = image::next(workspace, &third, &second, Fit::Unfit)?;
    let megabytes = fs::metadata(works.file("update"))?.len() / 1_000_000;
    story.say(&format!("an update is one signed file of {megabytes} MB."));
    ensure!(megabytes < 250, "an update has {megabytes} MB");

    let machine = Machine::make(image, &image::scripts(workspace), "updated", PORT)?;
    let (tpm, desk) = (machine.path("tpm"), machine.path("desk"));
    Swtpm::make(&tpm)?;
    fs::create_dir_all(&desk)?;
    samples::write(&desk)?;
    machine.put_on_stick("box.toml", &image_enrol::configuration())?;
    machine.put_on_stick("scanners", "desk-1\n")?;
    machine.make_update_stick("works.raw", &works.file("update"))?;
    machine.make_update_stick("unfit.raw", &unfit.file("update"))?;
    machine.make_update_stick("older.raw", &image.file("update"))?;
    let mut stage = Stage { story, machine, tpm, desk, timings: Vec::new() };
    take_into_service(&mut stage)?;
    cut_an_update_off(&mut stage, version)?;
    update(&mut stage, version, &second)?;
    prove(&mut stage, version, &second)?;
    fall_back(&mut stage, &second, &third)?;
    refuse_older_ones(&mut stage, version, &second)?;
    put_an_older_one_back(&mut stage, image, &second)?;
    for stick in ["works.raw", "unfit.raw", "older.raw", "disk.raw"] {
        fs::remove_file(stage.machine.path(stick))?;
    }
    Ok(stage.timings)
}

/// The release so many patches later.
fn after(version: &str, patches: u64) -> Result<String> {
    let (head, patch) = version.rsplit_once('.').context("a version is three numbers")?;
    Ok(format!("{head}.{}", patch.parse::<u64>().context("a version is three numbers")? + patches))
}

fn take_into_service(stage: &mut Stage<'_>) -> Result<()> {
    stage.story.act("A machine of its own goes into service with the first image");
    let mut running = stage.machine.start(&stage.tpm, true)?;
    running.wait_ready(None)?;
    for (name, file) in [("ca.pem", "ca.pem"), ("trust.json", "trust.json"), ("tokens/desk-1", "token")] {
        fs::write(stage.desk.join(file), stage.machine.read_from_stick(name)?)?;
    }
    // Its own check, before which it is not counted as good.
    running.wait_serial("has passed its check")?;
    seal(stage.story, &stage.machine, &stage.desk, samples::LOAN)?;
    running.power_off()?;
    Ok(())
}

fn seal(story: &mut Story, machine: &Machine, desk: &Path, document: &str) -> Result<()> {
    let client = format!("--box {} --ca ca.pem --token-file token", machine.url());
    story.run(desk, &format!("bulla seal {client} {document}"), 0, &Show::First(1))?;
    let line = format!("bulla verify {document} --trust trust.json");
    story.run(desk, &line, 0, &Show::Beginning(&["verdict"]))?;
    Ok(())
}

fn cut_an_update_off(stage: &mut Stage<'_>, version: &str) -> Result<()> {
    stage.story.act("The plug is pulled in the middle of an update: the box goes on as it was");
    let mut running = stage.machine.start_with(&stage.tpm, Some("works.raw"))?;
    running.wait_serial("taking an update from the stick")?;
    let begun = Instant::now();
    // The root is on its way into the slot, where nothing was; the partition table does not name it yet.
    running.wait_disk_grows(HALF_A_ROOT)?;
    running.cut_power()?;
    stage.story.say(&format!("cut {:.1} s after it had begun.", begun.elapsed().as_secs_f64()));
    let images = kernel_images(stage)?;
    ensure!(images == [format!("bulla_{version}.efi")], "half an image could start: {images:?}");
    Ok(())
}

fn update(stage: &mut Stage<'_>, version: &str, second: &str) -> Result<()> {
    stage.story.act("The same stick again: the update is taken, and the machine restarts into it");
    let mut running = stage.machine.start_with(&stage.tpm, Some("works.raw"))?;
    running.wait_ready(Some(&stage.desk.join("ca.pem")))?;
    seal(stage.story, &stage.machine, &stage.desk, samples::PASSPORT)?;
    let seconds = running.wait_off()?;
    let said = stage.machine.read_from("works.raw", "result.txt")?;
    stage.story.say(&format!("restarted {seconds:.0} s after power-on. The stick says: {}", said.trim()));
    ensure!(said.contains(&format!("the image {second} is in the other slot")), "the update was not taken");
    let took = said.split_once(" after ").and_then(|(_, rest)| rest.split_once(" s "));
    let (took, _) = took.context("the stick does not say how long it took")?;
    stage.timings.push(("update applied", took.parse()?));
    let mut images = kernel_images(stage)?;
    images.sort();
    ensure!(
        images == [format!("bulla_{version}.efi"), format!("bulla_{second}+3-0.efi")],
        "the kernel images are {images:?}"
    );
    Ok(())
}

fn prove(stage: &mut Stage<'_>, version: &str, second: &str) -> Result<()> {
    stage.story.act("The new image opens the old data, proves itself, and the log says so");
    let mut running = stage.machine.start(&stage.tpm, false)?;
    let seconds = running.wait_ready(Some(&stage.desk.join("ca.pem")))?;
    stage.timings.push(("power-on to service, first boot of an update", seconds));
    let seconds = running.wait_serial(&format!("the image {second} has passed its check"))?;
    stage.timings.push(("power-on to the check passed, first boot of an update", seconds));
    seal(stage.story, &stage.machine, &stage.desk, samples::SIGNATURE_CARD)?;
    wait_logged(&stage.machine, &stage.desk, "image-update")?;
    stage.story.say(&format!("the log has an entry image-update, from {version} to {second}."));
    let client = format!("--box {} --ca ca.pem --token-file token", stage.machine.url());
    let line = format!("bulla upgrade {client} {}.seal", samples::LOAN);
    stage.story.run(&stage.desk, &line, 0, &Show::First(1))?;
    running.power_off()?;
    let images = kernel_images(stage)?;
    ensure!(
        images.contains(&format!("bulla_{second}.efi")),
        "the new image is not counted as good: {images:?}"
    );
    Ok(())
}

fn fall_back(stage: &mut Stage<'_>, second: &str, third: &str) -> Result<()> {
    stage.story.act("The next image is properly signed and does not work: the machine goes back by itself");
    let began = Instant::now();
    let running = stage.machine.start_with(&stage.tpm, Some("unfit.raw"))?;
    running.wait_off()?;
    let said = stage.machine.read_from("unfit.raw", "result.txt")?;
    ensure!(said.contains(&format!("the image {third} is in the other slot")), "it was not taken: {said}");
    let taken = began.elapsed().as_secs_f64();
    // The stick stays where it is: it must not bring the same failure again.
    for boot in 1..=TRIES {
        let running = stage.machine.start_with(&stage.tpm, Some("unfit.raw"))?;
        let seconds = running.wait_off()?;
        stage.story.say(&format!("try {boot} of {TRIES}: restarted after {seconds:.0} s."));
    }
    stage.timings.push(("three tries of an image that does not work", began.elapsed().as_secs_f64() - taken));
    let mut running = stage.machine.start_with(&stage.tpm, Some("unfit.raw"))?;
    running.wait_ready(Some(&stage.desk.join("ca.pem")))?;
    let serial = running.serial();
    let words = format!("the image {third} did not prove itself: {second} runs again");
    running.wait_serial(&words).with_context(|| format!("the console says:\n{serial}"))?;
    running.wait_serial("was tried on this box and fell back")?;
    wait_logged(&stage.machine, &stage.desk, "image-fell-back")?;
    stage.story.say(&format!(
        "{words}; the log has an entry image-fell-back; the stick is not taken a second time."
    ));
    seal(stage.story, &stage.machine, &stage.desk, samples::STANDING_ORDER)?;
    running.power_off()?;
    Ok(())
}

fn refuse_older_ones(stage: &mut Stage<'_>, version: &str, second: &str) -> Result<()> {
    stage
        .story
        .act("An older update is refused; an older image that somebody puts back does not open the data");
    let mut running = stage.machine.start_with(&stage.tpm, Some("older.raw"))?;
    running.wait_serial(&format!("its image {version} is below {second}")).or_else(|_| {
        bail!("the older update was not refused: {:?}", stage.machine.read_from("older.raw", "result.txt"))
    })?;
    running.wait_ready(Some(&stage.desk.join("ca.pem")))?;
    running.power_off()?;
    let images = kernel_images(stage)?;
    let newest = format!("bulla_{second}.efi");
    ensure!(images.contains(&newest), "the kernel images are {images:?}");
    Ok(())
}

fn put_an_older_one_back(stage: &mut Stage<'_>, image: &Image, second: &str) -> Result<()> {
    let disk = stage.machine.path("disk.raw");
    let bytes = fs::metadata(&disk)?.len();
    output(Command::new("cp").arg("--sparse=always").arg(image.file("raw")).arg(&disk))?;
    fs::File::options().write(true).open(&disk)?.set_len(bytes)?;
    let mut running = stage.machine.start(&stage.tpm, false)?;
    let words = format!("{second} is the oldest that may start on this box");
    let seconds = running.wait_serial(&words)?;
    ensure!(!running.answers(None), "an image below the floor answers");
    stage.story.say(&format!("after {seconds:.0} s the first image says that {words}, and opens no data."));
    running.cut_power()
}

/// Names of the kernel images on the boot partition.
fn kernel_images(stage: &Stage<'_>) -> Result<Vec<String>> {
    let disk = format!("{}{ESP}", stage.machine.path("disk.raw").display());
    let listing = output(Command::new("mdir").args(["-b", "-i", &disk, "::/EFI/Linux"]))?;
    let names = listing.lines().filter_map(|line| line.rsplit_once('/').map(|(_, name)| name.to_owned()));
    Ok(names.filter(|name| name.ends_with(".efi")).collect())
}

/// Waits until an entry of the log has these words.
pub fn wait_logged(machine: &Machine, desk: &Path, words: &str) -> Result<()> {
    let url = machine.url();
    let get = |path: &str| -> Result<Vec<u8>> {
        let mut ask = Command::new("curl");
        ask.args(["--silent", "--fail", "--max-time", "20", "--noproxy", "*", "--cacert", "ca.pem"]);
        let answer = ask.arg(format!("{url}{path}")).current_dir(desk).output()?;
        ensure!(answer.status.success(), "{path} is not answered");
        Ok(answer.stdout)
    };
    let begun = Instant::now();
    loop {
        let checkpoint = String::from_utf8(get("/checkpoint")?)?;
        let size: u64 = checkpoint.lines().nth(1).context("a checkpoint has a size")?.parse()?;
        ensure!(size < 256, "the log has grown beyond its first bundle of entries");
        let entries = get(&format!("/tile/entries/000.p/{size}"))?;
        if entries.windows(words.len()).any(|window| window == words.as_bytes()) {
            return Ok(());
        }
        ensure!(begun.elapsed().as_secs() < 120, "the log has no entry {words}");
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

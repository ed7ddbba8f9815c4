//! The part of the image's test that is about the console: a machine with a screen and a keyboard, and nobody but these. What
//! the box does is on the screen; an address that does not work comes back by itself, one that works is kept; both are in the
//! log; the next start has it; the power goes off from the keyboard.
//!
//! - The screen is read as pixels, as a monitor shows them, and keys are pressed one by one.
//! - Whether an address works is seen from outside: QEMU leads to 10.0.2.15 and to no other.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use xtask::samples;
use xtask::swtpm::Swtpm;

use crate::image::{self, Image};
use crate::image_enrol;
use crate::image_test::Timings;
use crate::image_update::wait_logged;
use crate::machine::{Machine, Running};
use crate::story::{Show, Story};
use crate::workspace::Workspace;

const PORT: u16 = 18_446;
/// What QEMU hands out by DHCP, and leads to.
const WORKS: &str = "10.0.2.15/24";
/// An address of the same network to which nothing leads.
const FAILS: &str = "10.0.2.77/24";

/// Tells it; returns what took how long.
pub fn tell(story: &mut Story, workspace: &Workspace, image: &Image) -> Result<Timings> {
    story.act("A machine with a screen and a keyboard: the console says what the box does");
    let mut machine = Machine::make(image, &image::scripts(workspace), "console", PORT)?;
    machine.screen = true;
    let (tpm, desk) = (machine.path("tpm"), machine.path("desk"));
    Swtpm::make(&tpm)?;
    fs::create_dir_all(&desk)?;
    samples::write(&desk)?;
    machine.put_on_stick("box.toml", &image_enrol::configuration())?;
    machine.put_on_stick("scanners", "desk-1\n")?;
    let mut timings = Timings::new();

    let mut running = machine.start(&tpm, true)?;
    running.wait_ready(None)?;
    for (name, file) in [("ca.pem", "ca.pem"), ("tokens/desk-1", "token")] {
        fs::write(desk.join(file), machine.read_from_stick(name)?)?;
    }
    let seconds = running.wait_screen("IN SERVICE")?;
    timings.push(("power-on to the state on the screen", seconds));
    show(story, &running)?;
    seal(story, &machine, &desk, samples::LOAN)?;

    story.act("An address that does not work comes back by itself");
    set_address(&running, FAILS)?;
    running.wait_screen("on trial")?;
    let tried = Instant::now();
    let ca = desk.join("ca.pem");
    ensure!(!running.answers(Some(&ca)), "the box answers under an address that it should not have");
    running.wait_screen("Nobody confirmed the settings: the former ones are back.")?;
    running.wait_ready(Some(&ca))?;
    let seconds = tried.elapsed().as_secs_f64();
    timings.push(("address that does not work: back after", seconds));
    story.say(&format!("nobody confirmed it, and the box answers again after {seconds:.0} s."));
    wait_logged(&machine, &desk, "network-fell-back")?;

    story.act("An address that works is kept");
    set_address(&running, WORKS)?;
    running.wait_screen("on trial")?;
    running.wait_ready(Some(&ca))?;
    running.press("k")?;
    running.wait_screen("The settings are kept.")?;
    wait_logged(&machine, &desk, "network-change")?;
    show(story, &running)?;
    story.say("the log has network-fell-back and network-change.");

    story.act("The power goes off from the keyboard, and the next start has the address");
    running.press("p")?;
    running.wait_screen("Switch this machine off?")?;
    running.press("p")?;
    running.wait_off()?;
    let mut running = machine.start(&tpm, false)?;
    running.wait_ready(Some(&ca))?;
    running.wait_screen("set at the console or by stick")?;
    running.wait_screen(WORKS)?;
    seal(story, &machine, &desk, samples::PASSPORT)?;
    running.power_off()?;
    Ok(timings)
}

/// Goes through the form to the line of the IPv4 address, and tries what is typed.
fn set_address(running: &Running<'_>, address: &str) -> Result<()> {
    running.press("esc n tab tab ctrl+u")?;
    running.type_text(address)?;
    running.press("ret t")
}

fn show(story: &mut Story, running: &Running<'_>) -> Result<()> {
    story.say("the screen:");
    for line in running.screen()?.lines().filter(|line| !line.is_empty()) {
        story.say(&format!("  {line}"));
    }
    Ok(())
}

fn seal(story: &mut Story, machine: &Machine, desk: &Path, document: &str) -> Result<()> {
    let client = format!("--box {} --ca ca.pem --token-file token", machine.url());
    story.run(desk, &format!("bulla seal {client} {document}"), 0, &Show::First(1))?;
    Ok(())
}

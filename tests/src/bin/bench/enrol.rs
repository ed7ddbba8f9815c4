//! How fast boxes become members: one after another, and a hundred at once.
//!
//! Each box is a process with a TPM of its own; what is timed are whole runs of `bulla-box enroll`, the TPM's work, its
//! connections and the registrar's decisions included. People are quicker here than anywhere.

use anyhow::{Context as _, Result, ensure};
use bulla_tests::rig::fleet::{Fleet, Said};
use bulla_tests::rig::{Rig, RigOptions};
use std::time::{Duration, Instant};

/// Boxes that come at once.
const BOXES: usize = 100;
/// Boxes that come one after another, for comparison.
const ALONE: usize = 10;

/// What one step of all boxes took.
struct Step {
    /// From the first start to the last end.
    all: Duration,
    /// The slowest.
    slowest: Duration,
    /// The registrar's processor time.
    registrar: Duration,
    said: Vec<Said>,
}

/// Measures and prints.
pub fn measure() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let mut boxes: Vec<Rig> = Vec::new();
    for _ in 0..ALONE + BOXES {
        let tpm = boxes.first().map_or_else(Rig::manufacture_tpm, Rig::manufacture_tpm_like)?;
        boxes.push(Rig::unborn_on(&RigOptions::default(), Some(tpm))?);
    }
    fleet.believe(&boxes[0])?;
    fleet.serve(&[])?;
    // Makes their keys, and tells which they are.
    let mut rows = String::from("serial;model;branch;ek\n");
    for (number, rig) in boxes.iter().enumerate() {
        rows += &format!("S-{number};B-100;Zug;{}\n", fleet.enroll(rig)?.after("TPM")?);
    }
    fleet.list_rows(&rows)?;
    let (alone, many) = boxes.split_at(ALONE);
    println!(
        "\nBoxes become members: whole runs of `bulla-box enroll`, each with a TPM of its own (swtpm)\n"
    );
    println!("| step | boxes | in all s | a box ms | slowest ms | registrar's processor ms a box |");
    println!("|---|---|---|---|---|---|");
    for (what, code, decided) in [("proven", 3, false), ("issued, log begun", 0, true)] {
        let single = one_by_one(&fleet, alone)?;
        print(&format!("{what}, one after another"), &single, code)?;
        let crowd = at_once(&fleet, many)?;
        print(&format!("{what}, all at once"), &crowd, code)?;
        if !decided {
            decide(&fleet, single.said.iter().chain(&crowd.said))?;
        }
    }
    Ok(())
}

fn print(what: &str, step: &Step, code: i32) -> Result<()> {
    for said in &step.said {
        ensure!(said.code == Some(code), "{what}: {:?}: {}", said.code, said.words);
    }
    let boxes = step.said.len();
    let each = |time: Duration| time.as_secs_f64() * 1e3 / boxes as f64;
    println!(
        "| {what} | {boxes} | {:.1} | {:.0} | {:.0} | {:.1} |",
        step.all.as_secs_f64(),
        each(step.all),
        step.slowest.as_secs_f64() * 1e3,
        each(step.registrar)
    );
    Ok(())
}

fn one_by_one(fleet: &Fleet, boxes: &[Rig]) -> Result<Step> {
    let (before, began, mut slowest) = (fleet.processor_time()?, Instant::now(), Duration::ZERO);
    let mut said = Vec::new();
    for rig in boxes {
        let began = Instant::now();
        said.push(fleet.enroll(rig)?);
        slowest = slowest.max(began.elapsed());
    }
    Ok(Step { all: began.elapsed(), slowest, registrar: fleet.processor_time()? - before, said })
}

fn at_once(fleet: &Fleet, boxes: &[Rig]) -> Result<Step> {
    let (before, began) = (fleet.processor_time()?, Instant::now());
    let done: Vec<Result<(Duration, Said)>> = std::thread::scope(|scope| {
        let ask = |rig| move || anyhow::Ok((fleet.enroll(rig)?, began.elapsed()));
        let asking: Vec<_> = boxes.iter().map(|rig| scope.spawn(ask(rig))).collect();
        let done = asking.into_iter().map(|one| {
            let (said, took) =
                one.join().map_err(|_| anyhow::anyhow!("a thread of the benchmark panicked"))??;
            Ok((took, said))
        });
        done.collect()
    });
    let done = done.into_iter().collect::<Result<Vec<_>>>()?;
    let slowest = done.iter().map(|(took, _)| *took).max().context("no boxes")?;
    let registrar = fleet.processor_time()? - before;
    Ok(Step {
        all: began.elapsed(),
        slowest,
        registrar,
        said: done.into_iter().map(|(_, said)| said).collect(),
    })
}

/// Every fingerprint is heard, and all become members.
fn decide<'a>(fleet: &Fleet, said: impl Iterator<Item = &'a Said>) -> Result<()> {
    let mut boxes = 0;
    for said in said {
        let (claim, fingerprint) = (said.after("claim code")?, said.after("fingerprint")?);
        let heard = ["--heard", &fingerprint, "--by", "olga", "--later", "--reason", "on the phone"];
        fleet.ok(&[&["enrolments", "approve", &claim, "--dir", "fleet"], &heard[..]].concat())?;
        boxes += 1;
    }
    for _ in 0..boxes / 64 + 1 {
        fleet.ok(&["enrolments", "propose", "--dir", "fleet", "--reason", "the delivery is in place"])?;
        fleet.carry_out()?;
    }
    Ok(())
}

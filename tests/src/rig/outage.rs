//! A box with time-stamp authorities of its own, and what a test looks at while they go and come.

use super::tsa::Stamps;
use super::{Rig, RigOptions, Role};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Lines of `box.toml` with short times, so that an outage is a matter of seconds.
pub const QUICK: &str = "[outage]\nafter_seconds = 3\ndegraded_after_seconds = 1\nrecover_after_seconds = 1\nprobe_seconds = 1\nrefresh_seconds = 2\n";

/// Lines of `box.toml` for these authorities: everything worth one is anchored at once, every look asks for a stamp.
pub fn anchors(authorities: &[&Stamps]) -> String {
    let mut text = "[anchors]\nwindow_seconds = 1\n".to_owned();
    for (at, tsa) in authorities.iter().enumerate() {
        let _ = writeln!(
            text,
            "[[anchors.tsa]]\nname = \"tsa-{at}\"\noperator = {:?}\nurl = {:?}\nroots = {:?}\ntimeout_seconds = 2\nprobe = \"stamp\"",
            tsa.operator(),
            tsa.url(),
            tsa.root_pem()
        );
    }
    text
}

/// A box whose authorities these are. `more` comes before the sections of outages.
pub fn start(authorities: &[&Stamps], options: &RigOptions<'_>, more: &str) -> Result<Rig> {
    let extra = format!("{more}\n{QUICK}{}", anchors(authorities));
    Rig::start_with(&RigOptions { extra: &extra, ..*options })
}

/// The status, once `holds` says so; fails after `patience` and says what it was then.
pub fn wait_for(rig: &Rig, what: &str, patience: Duration, holds: impl Fn(&Value) -> bool) -> Result<Value> {
    let until = Instant::now() + patience;
    loop {
        let answer = rig.client(Role::Operator).get("/v1/status")?;
        let status = answer.json()?;
        if holds(&status) {
            return Ok(status);
        }
        if Instant::now() > until {
            bail!("{what}: not within {patience:?}; the status is {status:#}\n{}", rig.log());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits for a mode.
pub fn wait_mode(rig: &Rig, mode: &str, patience: Duration) -> Result<Value> {
    wait_for(rig, mode, patience, |status| status["mode"] == mode)
}

/// Waits until everything is anchored by as many operators as the box wants.
pub fn wait_anchored(rig: &Rig, patience: Duration) -> Result<Value> {
    wait_for(rig, "anchored", patience, |status| {
        status["anchors"]["unanchored"] == 0 && status["anchors"]["anchoredSize"].as_u64() > Some(0)
    })
}

/// The `.seal` of a receipt, as it is now.
pub fn seal_now(rig: &Rig, id: &str) -> Result<bulla_formats::seal_file::SealFile> {
    let answer = rig.client(Role::Operator).get(&format!("/v1/seals/{id}/seal-file"))?;
    Ok(bulla_formats::seal_file::SealFile::decode(&answer.body)?)
}

/// The id in a receipt.
pub fn id_of(answer: &super::Response) -> Result<String> {
    let body = answer.json()?;
    Ok(body["id"].as_str().with_context(|| format!("no id in {body}"))?.to_owned())
}

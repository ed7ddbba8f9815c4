//! A box with time-stamp authorities of its own, and what a test looks at while they go and come.

use super::tsa::Stamps;
use super::wan::Wan;
use super::{Keys, Rig, RigOptions, Role, account};
use anyhow::{Context, Result, bail};
use bulla_formats::body::manifest::{ManifestBody, ManifestStatement};
use bulla_formats::body::mode_change::{ModeChangeBody, ModeStatement};
use bulla_formats::entry::{Entry, Kind};
use serde_json::Value;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Lines of `box.toml` with short times, so that an outage is a matter of seconds.
pub const QUICK: &str = "[outage]\nafter_seconds = 3\ndegraded_after_seconds = 1\nrecover_after_seconds = 1\nprobe_seconds = 1\nrefresh_seconds = 2\n";

/// How the boxes of tests look at authorities: every look asks for a stamp.
pub const LOOK: &str = "timeout_seconds = 2\nprobe = \"stamp\"";

/// Lines of `box.toml` for these authorities, each with lines of its own: what is worth an anchor is anchored at once.
pub fn anchors(authorities: &[(&Stamps, &str)]) -> String {
    let mut text = "[anchors]\nwindow_seconds = 1\n".to_owned();
    for (at, (tsa, more)) in authorities.iter().enumerate() {
        let (operator, roots) = (tsa.operator(), tsa.root_pem());
        let mut url =
            if more.contains("url = ") { String::new() } else { format!("url = {:?}\n", tsa.url()) };
        if let Some(ca) = tsa.tls_ca_pem() {
            let _ = writeln!(url, "tls_ca = {ca:?}");
        }
        let _ = writeln!(
            text,
            "[[anchors.tsa]]\nname = \"tsa-{at}\"\noperator = {operator:?}\n{url}roots = {roots:?}\n{more}"
        );
    }
    text
}

/// A box on keys in files: most of what an outage is about has nothing to do with a TPM.
pub fn software() -> RigOptions<'static> {
    RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() }
}

/// A box whose authorities these are. `more` comes before the sections of outages.
pub fn start(authorities: &[&Stamps], options: &RigOptions<'_>, more: &str) -> Result<Rig> {
    let authorities: Vec<_> = authorities.iter().map(|tsa| (*tsa, LOOK)).collect();
    let extra = format!("{more}\n{QUICK}{}", anchors(&authorities));
    Rig::start_with(&RigOptions { extra: &extra, ..*options })
}

/// The same with its authorities beyond a WAN, under names (`a.test`, `b.test` ...) or by address.
pub fn start_behind(wan: &Wan, authorities: &[&Stamps], named: bool) -> Result<Rig> {
    let mut lines = Vec::new();
    for (at, tsa) in ('a'..).zip(authorities) {
        let url = tsa.url();
        let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).context("a port")?.0;
        wan.publish_far(port.parse()?)?;
        let host = if named { format!("{at}.test") } else { wan.address().to_string() };
        lines.push((*tsa, format!("{LOOK}\nurl = {:?}", url.replace("127.0.0.1", &host))));
    }
    let lines: Vec<_> = lines.iter().map(|(tsa, more)| (*tsa, more.as_str())).collect();
    let extra = format!("{QUICK}{}", anchors(&lines));
    let mut rig = Rig::create_behind(wan, &RigOptions { extra: &extra, ..software() })?;
    rig.sealer.start()?;
    Ok(rig)
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

/// Waits for a mode: in new entries, and in what is shown of the outage.
pub fn wait_mode(rig: &Rig, mode: &str, patience: Duration) -> Result<Value> {
    wait_for(rig, mode, patience, |status| status["mode"] == mode && status["outage"]["mode"] == mode)
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

/// Every entry of the log, over HTTP.
pub fn entries(rig: &Rig) -> Result<Vec<Entry>> {
    let bytes = account::entries(&rig.client(Role::Reader))?;
    Ok(bytes.iter().map(|bytes| Entry::decode(bytes)).collect::<Result<_, _>>()?)
}

/// Every mode change in the log.
pub fn changes(rig: &Rig) -> Result<Vec<ModeStatement>> {
    let is_change = |entry: &Entry| entry.kind() == Some(Kind::ModeChange);
    let all = entries(rig)?.into_iter().filter(is_change);
    all.map(|entry| Ok(ModeChangeBody::decode(&entry.content().body)?.statement)).collect()
}

/// Every manifest in the log.
pub fn manifests(rig: &Rig) -> Result<Vec<ManifestStatement>> {
    let is_manifest = |entry: &Entry| entry.kind() == Some(Kind::Manifest);
    let all = entries(rig)?.into_iter().filter(is_manifest);
    all.map(|entry| Ok(ManifestBody::decode(&entry.content().body)?.statement)).collect()
}

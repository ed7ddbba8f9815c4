//! A hub that reaches no branch: boxes dial it, and it pulls through the connections that wait.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::hub::{HubKeys, HubRig};
use bulla_tests::rig::site::until;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use serde_json::Value;
use std::fs;

const TOKEN: &str = "a-token-of-thirty-two-characters";

/// A hub that has an address of the box at which nobody listens.
fn blind_hub(rig: &Rig, origin: &str) -> Result<(HubRig, HubKeys)> {
    let hub = HubRig::create(&[("branch", origin, &[(rig, false)])])?;
    let keys = hub.furnish_serve("hub.example/north")?;
    let text = fs::read_to_string(hub.file("hub.toml"))?;
    let away = format!("url = {:?}", rig.sealer.url());
    ensure!(text.contains(&away), "{text}");
    let mut text = text.replace(&away, "url = \"https://localhost:1\"\ndial_in = \"bulla-4711\"");
    text.push_str("[[serve.dial_in]]\nname = \"bulla-4711\"\ntoken_file = \"token\"\n");
    fs::write(hub.file("hub.toml"), text)?;
    fs::write(hub.file("token"), format!("{TOKEN}\n"))?;
    Ok((hub, keys))
}

/// Has the box dial the hub, with this token.
fn dials(rig: &mut Rig, keys: &HubKeys, token: &str) -> Result<()> {
    rig.sealer.stop()?;
    let text = fs::read_to_string(rig.file("box.toml"))?;
    let text = text.split("[dial_out]").next().context("a text")?.to_owned();
    fs::write(rig.file("dial.token"), token)?;
    let hub = keys.url.trim_start_matches("https://");
    fs::write(
        rig.file("box.toml"),
        format!(
            "{text}[dial_out]\nhub = {hub:?}\nca = {:?}\nname = \"bulla-4711\"\ntoken_file = {:?}\n",
            keys.certificate,
            rig.file("dial.token")
        ),
    )?;
    rig.sealer.start()
}

fn status(rig: &Rig) -> Result<Value> {
    Ok(rig.client(Role::Operator).get("/v1/status")?.json()?["dialOut"].clone())
}

fn archived(hub: &HubRig, origin: &str) -> u64 {
    let checkpoint = fs::read_to_string(hub.archived(origin).join("checkpoint"));
    checkpoint.ok().and_then(|note| note.lines().nth(1)?.parse().ok()).unwrap_or(0)
}

fn sealed_and_pulled(rig: &Rig, hub: &HubRig, origin: &str, document: &[u8]) -> Result<()> {
    rig.client(Role::Scanner).seal(document)?;
    let size = rig.log_size()?;
    until("the hub has what was sealed", || Ok(archived(hub, origin) >= size))
}

#[test]
fn a_box_that_nobody_can_reach_is_pulled_through_the_connections_that_it_opens() -> Result<()> {
    let options = RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let origin = rig.client(Role::Scanner).seal(b"first")?.seal()?.origin;
    assert_eq!(status(&rig)?, Value::Null, "nobody is dialled unless somebody is configured");
    let (hub, keys) = blind_hub(&rig, &origin)?;

    // A command that nobody can dial says so; a hub that serves says what it misses.
    let alone = hub.run(&["pull"])?;
    let words = String::from_utf8_lossy(&[alone.stdout, alone.stderr].concat()).into_owned();
    ensure!(words.contains("only `bulla-hub serve` hears"), "{words}");
    let serving = hub.serve()?;
    until("the hub misses the box", || Ok(serving.log()?.contains("does that box dial this hub?")))?;

    // With another token it is refused, and the box says so.
    dials(&mut rig, &keys, &TOKEN.replace('a', "b"))?;
    until("the box is refused", || {
        let status = status(&rig)?;
        let refused = "knows no box \"bulla-4711\" with this token";
        Ok(status["waiting"] == 0 && status["trouble"].as_str().is_some_and(|words| words.contains(refused)))
    })?;
    assert_eq!(archived(&hub, &origin), 0);

    dials(&mut rig, &keys, TOKEN)?;
    sealed_and_pulled(&rig, &hub, &origin, b"second")?;
    let now = status(&rig)?;
    ensure!(now["taken"].as_u64() > Some(0) && now["trouble"].is_null(), "{now}");
    until("connections wait", || Ok(status(&rig)?["waiting"].as_u64() > Some(0)))?;
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    ensure!(metrics.contains("\nbulla_dial_out_waiting "), "{metrics}");

    // The hub dies and comes back; nobody tells the box.
    drop(serving);
    until("the box misses the hub", || Ok(status(&rig)?["waiting"] == 0))?;
    let serving = hub.serve()?;
    sealed_and_pulled(&rig, &hub, &origin, b"third")?;

    // The box dies and comes back.
    rig.sealer.kill()?;
    rig.sealer.start()?;
    sealed_and_pulled(&rig, &hub, &origin, b"fourth")?;

    // It stops while connections wait, and so does the hub.
    rig.sealer.stop()?;
    assert_eq!(serving.stop()?, Some(0));
    let checked = hub.lines(&["fsck"], 0)?;
    ensure!(!checked.is_empty(), "what came this way is as good as any");
    Ok(())
}

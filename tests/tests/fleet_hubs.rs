//! Hubs by the fleet's roster: a box lets one in by its key and takes its leases, and neither any more once two people have
//! taken it out.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::hub::HubRig;
use bulla_tests::rig::site::until;
use bulla_tests::rig::{Rig, RigOptions, Role};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "hub.example/north";

/// A certificate that its owner made for itself, `NAME.pem` and `NAME.key`.
fn own_certificate(directory: &Path, name: &str, subject: &str) -> Result<PathBuf> {
    let (key, certificate) = (directory.join(format!("{name}.key")), directory.join(format!("{name}.pem")));
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    command.args(["-days", "30", "-subj", subject, "-keyout"]).arg(key).arg("-out").arg(&certificate);
    let output = command.output().context("openssl is needed")?;
    ensure!(output.status.success(), "{}", words(&output));
    Ok(certificate)
}

/// Status of a request made with that certificate.
fn asked(rig: &Rig, certificate: &Path, path: &str, more: &[&str]) -> Result<u16> {
    let output = Command::new("curl")
        .args(["--silent", "--noproxy", "*", "--max-time", "60", "--output", "/dev/null"])
        .args(["--write-out", "%{http_code}", "--cacert"])
        .arg(rig.file("ca.pem"))
        .arg("--cert")
        .arg(certificate)
        .arg("--key")
        .arg(certificate.with_extension("key"))
        .args(more)
        .arg(format!("{}{path}", rig.sealer.url()))
        .output()
        .context("curl is needed")?;
    Ok(String::from_utf8(output.stdout)?.parse()?)
}

/// `bulla-box lease take`; its exit code and what it said.
fn take(rig: &Rig, lease: &Path) -> Result<(Option<i32>, String)> {
    let token = rig.file("operator.token");
    fs::write(&token, rig.token(Role::Operator))?;
    let (file, token) = (lease.to_str().context("a path")?, token.to_str().context("a path")?);
    let output = rig.try_run(&["lease", "take", file, "--token-file", token])?;
    Ok((output.status.code(), words(&output)))
}

fn status(rig: &Rig) -> Result<Value> {
    rig.client(Role::Operator).get("/v1/status")?.json()
}

fn propose(fleet: &Fleet, what: &[&str]) -> Result<String> {
    let said =
        fleet.ok(&[&["propose", "hub"], what, &["--dir", "fleet", "--reason", "as agreed"]].concat())?;
    fleet.carry_out()?;
    Ok(said)
}

#[test]
fn a_hub_of_the_roster_is_let_in_and_answers_for_boxes_until_it_is_taken_out() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut rig, origin) = fleet.member("S-1", Some(&maker))?;
    rig.sealer.start()?;
    let hub = HubRig::create(&[("zug", &origin, &[(&rig, false)])])?;
    let keys = hub.furnish_serve(NAME)?;
    let room = fleet.path("certificates");
    fs::create_dir(&room)?;
    // The name in a certificate is nobody's word: the reader of that name is another one.
    let certificate = own_certificate(&room, "hub", "/CN=reader")?;
    let other = own_certificate(&room, "other", "/CN=reader")?;
    let pem = certificate.display().to_string();
    let view = "/v1/reconciled";
    ensure!(asked(&rig, &certificate, view, &[])? == 401, "nobody has named it yet");
    let named = ["--witness", &keys.witness, "--heads", &keys.log, "--address", &keys.url];

    // Two people name it; the box hears of it from the registrar.
    let said = propose(&fleet, &[&named[..], &["--client", &pem]].concat())?;
    ensure!(said.contains(&format!("hub  NEW  {NAME}")) && said.contains("spki sha256:"), "{said}");
    until("the hub is let in", || Ok(asked(&rig, &certificate, view, &[])? == 200))
        .with_context(|| rig.log())?;
    ensure!(asked(&rig, &other, view, &[])? == 401, "another key with the same name was let in");
    ensure!(asked(&rig, &other, "/healthz", &[])? == 200, "a certificate that is nobody's is in the way");
    ensure!(asked(&rig, &certificate, "/v1/seals", &["--data-binary", "a document"])? == 403);
    let hubs = status(&rig)?["peers"]["rosters"][0]["hubs"].clone();
    ensure!(hubs == serde_json::json!([NAME]), "{hubs}");
    let shown = fleet.ok(&["roster", "show", "--dir", "fleet"])?;
    ensure!(shown.contains(NAME) && !shown.contains("issues leases"), "{shown}");
    // It pulls with it, and needs no token.
    let config = hub.file("hub.toml");
    let client = format!("certificate = {pem:?}\nkey = {:?}\n", certificate.with_extension("key"));
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace("mirror = false\n", &format!("mirror = false\n{client}")))?;
    ensure!(hub.pull("zug")? > 0);

    // Its lease counts only when the roster says that its leases do.
    let issue = |name: &str| -> Result<PathBuf> {
        let path = fleet.path(name);
        let out = path.to_str().context("a path")?;
        hub.lines(&["lease", "issue", "zug", "--hours", "1", "--limit-seals", "7", "--out", out], 0)?;
        Ok(path)
    };
    let early = issue("early")?;
    let (code, said) = take(&rig, &early)?;
    ensure!(code == Some(1) && said.contains("no hub whose leases are taken"), "{said}");
    hub.lines(&["lease", "issue", "bern", "--hours", "1", "--out", "/dev/null"], 2)?;
    hub.lines(&["lease", "issue", "zug", "--hours", "745", "--out", "/dev/null"], 2)?;
    let said = propose(&fleet, &[&named[..], &["--client", &pem, "--leases"]].concat())?;
    ensure!(said.contains("boxes take leases of it"), "{said}");
    until("the box takes its lease", || Ok(take(&rig, &early)?.0 == Some(0)))?;
    let lease = status(&rig)?["lease"].clone();
    ensure!(
        lease["issuer"] == NAME && lease["secondsLeft"].as_u64().is_some_and(|left| left > 3_000),
        "{lease}"
    );
    // Bent, it is nobody's.
    let mut bent = fs::read(&early)?;
    *bent.last_mut().context("a byte")? ^= 1;
    fs::write(fleet.path("bent"), &bent)?;
    let (code, said) = take(&rig, &fleet.path("bent"))?;
    ensure!(code == Some(1), "{said}");
    // It outlives the process.
    rig.sealer.kill()?;
    rig.sealer.start()?;
    until("the lease counts again", || Ok(status(&rig)?["lease"]["secondsLeft"].as_u64().is_some()))
        .with_context(|| rig.log())?;

    // Taken out: shut out, its lease over, the next one refused; and a restart brings nothing back.
    propose(&fleet, &["--remove", NAME])?;
    until("the hub is shut out", || Ok(asked(&rig, &certificate, view, &[])? == 401))?;
    until("its lease is over", || Ok(status(&rig)?["lease"]["secondsLeft"].is_null()))?;
    ensure!(status(&rig)?["peers"]["rosters"][0]["hubs"] == serde_json::json!([]));
    let (code, said) = take(&rig, &issue("late")?)?;
    ensure!(code == Some(1) && said.contains("no hub whose leases are taken"), "{said}");
    rig.sealer.kill()?;
    rig.sealer.start()?;
    ensure!(asked(&rig, &certificate, view, &[])? == 401);
    ensure!(status(&rig)?["lease"]["secondsLeft"].is_null());
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

#[test]
fn a_hub_hands_its_boxes_the_roster_and_its_leases() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut rig, origin) = fleet.member("S-1", Some(&maker))?;
    rig.sealer.start()?;
    let hub = HubRig::create(&[("zug", &origin, &[(&rig, false)])])?;
    let keys = hub.furnish_serve(NAME)?;
    let certificate = own_certificate(&fleet.path(""), "hub", "/CN=hub")?;
    let pem = certificate.display().to_string();
    let named = ["--witness", &keys.witness, "--heads", &keys.log, "--client", &pem, "--leases"];
    propose(&fleet, &named)?;
    until("the hub is let in", || Ok(asked(&rig, &certificate, "/v1/reconciled", &[])? == 200))?;
    let version =
        || -> Result<u64> { status(&rig)?["peers"]["rosters"][0]["version"].as_u64().context("a version") };
    let (roster, before) = (fleet.path("fleet/exchange/roster"), version()?);
    fs::copy(&roster, hub.file("older"))?;

    // The registrar goes, and people agree on something.
    fleet.kill();
    propose(&fleet, &[&named[..], &["--address", &keys.url]].concat())?;
    let config = hub.file("hub.toml");
    let client = format!("certificate = {pem:?}\nkey = {:?}\n", certificate.with_extension("key"));
    let text = fs::read_to_string(&config)?.replace("mirror = false\n", &format!("mirror = false\n{client}"));
    let leases = "[leases]\nhours = 1\nlimit_seals = 7\nat_limit = \"safe\"\n";
    let with = |roster: &Path| format!("roster = {roster:?}\n{text}{leases}");
    fs::write(&config, with(&roster))?;
    ensure!(version()? == before && status(&rig)?["lease"].is_null());
    hub.pull("zug")?;
    ensure!(version()? == before + 1, "{}", status(&rig)?["peers"]);
    let taken = status(&rig)?["peers"]["rosters"][0].clone();
    ensure!(taken["from"] == format!("hub:{NAME}") && taken["came"] == "file", "{taken}");
    let lease = status(&rig)?["lease"].clone();
    ensure!(lease["issuer"] == NAME && lease["limits"]["seals"] == 7, "{lease}");

    // An older roster changes nothing, and the pull says why.
    fs::write(&config, with(&hub.file("older")))?;
    let said = hub.lines(&["pull"], 0)?;
    let trouble = said.iter().find(|line| line["box"] == "zug").context("the box")?["trouble"].clone();
    ensure!(trouble[0].as_str().is_some_and(|why| why.contains("rolled-back")), "{trouble}");
    ensure!(version()? == before + 1);

    // A hub that serves hands both once, not with every pull.
    fs::write(&config, with(&roster))?;
    let serving = hub.serve()?;
    let pulled = || Ok::<_, anyhow::Error>(serving.log()?.matches("\"complete\":true").count());
    until("it has pulled", || Ok(pulled()? > 1))?;
    let issued = || Ok::<_, anyhow::Error>(status(&rig)?["lease"]["issuedMillis"].clone());
    let (lease, rounds) = (issued()?, pulled()?);
    until("it has pulled on", || Ok(pulled()? > rounds + 3))?;
    ensure!(issued()? == lease, "each pull brought a lease");
    assert_eq!(serving.stop()?, Some(0));

    // Somebody else who is let in as a reader hands in nothing.
    let token = rig.token(Role::Reader).to_owned();
    let body = ["--header", &format!("Authorization: Bearer {token}"), "--json", "{\"roster\": \"\"}"]
        .map(str::to_owned);
    let body: Vec<&str> = body.iter().map(String::as_str).collect();
    ensure!(asked(&rig, &certificate, "/v1/roster", &body)? == 403);
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

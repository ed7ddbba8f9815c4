//! What sticks do to a box of the image: its own scripts, with real boxes, a real fleet and swtpm. Where the scripts look for
//! the stick and the box is put in for this machine; mounting, users and systemd are noted instead.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_approvals::action::Change;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, box_program};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A box, a stick in it, and the image's scripts.
struct Room<'a> {
    dir: TempDir,
    rig: &'a Rig,
}

impl<'a> Room<'a> {
    fn around(rig: &'a Rig) -> Result<Self> {
        let room = Self { dir: tempfile::tempdir()?, rig };
        for folder in ["stick", "conf", "bin"] {
            fs::create_dir(room.path(folder))?;
        }
        let noted = room.path("noted").display().to_string();
        let run_as = "while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"";
        // Who waits for people waits elsewhere.
        let a_box = format!(
            "[ \"$1\" != enroll ] || set -- \"$@\" --once\ncd {} && exec {} \"$@\" --config box.toml",
            rig.sealer.directory().display(),
            box_program()?.display()
        );
        for (name, does) in [
            ("mount", "true".to_owned()),
            ("umount", "true".to_owned()),
            ("chown", "true".to_owned()),
            ("setpriv", run_as.to_owned()),
            ("systemctl", format!("echo \"systemctl $*\" >>{noted}")),
            ("bulla-update", format!("echo \"bulla-update $*\" >>{noted}")),
            ("bulla-box", a_box),
        ] {
            let path = room.path("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{does}\n"))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        Ok(room)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(fs::write(self.path("stick").join(name), bytes)?)
    }

    fn take(&self, name: &str) -> Result<()> {
        Ok(fs::remove_file(self.path("stick").join(name))?)
    }

    /// Plugs the stick in; what the script ended with, and what is on the stick as its result.
    fn plug(&self, script: &str) -> Result<(i32, String)> {
        let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image/os/tree/usr/lib/bulla");
        let mut text = fs::read_to_string(image.join(script))?;
        for (there, here) in [
            ("/run/bulla-reset", self.path("stick")),
            ("/run/bulla-stick", self.path("stick")),
            ("/var/lib/bulla-conf", self.path("conf")),
            ("/var/lib/bulla/box", self.rig.state()),
            ("/var/lib/bulla/farewell", self.path("hand")),
            ("/var/lib/bulla/hand-over", self.path("hand")),
            ("/usr/lib/bulla/bulla-update", self.path("bin/bulla-update")),
            ("/usr/lib/bulla/box.toml", image.join("box.toml")),
        ] {
            text = text.replace(there, &here.display().to_string());
        }
        let text = text.replace(" -o bulla -g bulla", "").replace("-m 640 -g bulla", "-m 640");
        let _ = fs::remove_file(self.path("noted"));
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH")?);
        let done = Command::new("sh").arg("-c").arg(&text).env("PATH", path).output()?;
        let result = fs::read_to_string(self.path("stick/result.txt")).unwrap_or_else(|_| words(&done));
        Ok((done.status.code().unwrap_or(-1), result))
    }

    /// What systemd and `bulla-update` were told, in order.
    fn noted(&self) -> Vec<String> {
        let noted = fs::read_to_string(self.path("noted")).unwrap_or_default();
        noted.lines().map(str::to_owned).collect()
    }

    /// Refused with these words, and the box is as it was.
    fn refuses(&self, part: &str) -> Result<()> {
        let log = self.rig.fsck()?;
        let (code, said) = self.plug("reset")?;
        ensure!(code == 1 && said.contains(part), "{part}: {code} {said}");
        ensure!(
            !self.noted().iter().any(|told| told.contains("finish") || told.contains("reboot")),
            "{part}"
        );
        let gone_on = ["bulla-update reset cancel", "systemctl start --no-block bulla-box"];
        let noted = self.noted();
        ensure!(noted.is_empty() || noted.ends_with(&gone_on.map(str::to_owned)), "{part}: {noted:?}");
        ensure!(self.rig.state().join("identity.json").exists(), "{part}");
        ensure!(self.rig.fsck()? == log, "{part}: the log is another");
        Ok(())
    }
}

const DONE: [&str; 4] = [
    "systemctl stop bulla-box",
    "bulla-update reset begin",
    "bulla-update reset finish",
    "systemctl --no-block reboot",
];

#[test]
fn a_member_is_reset_by_its_people_and_by_nobody_else() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut rig, origin) = fleet.member("S-1", Some(&maker))?;
    rig.sealer.start()?;
    let answer = rig.client(Role::Scanner).post("/v1/seals", &[("Content-Type", "text/plain")], b"one")?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    rig.sealer.stop()?;
    let room = Room::around(&rig)?;
    let stick = |name: &str| room.path("stick").join(name);

    // Nothing on the stick: it asks, once, and seals on.
    for choice in ["without-anchors", "without-copies"] {
        room.put(choice, "")?;
    }
    let (code, said) = room.plug("reset")?;
    ensure!(code == 0 && said.contains("asks to be reset"), "{code} {said}");
    ensure!(room.noted()[0] == "systemctl stop bulla-box", "{:?}", room.noted());
    let asked = fs::read(stick("ask"))?;
    room.refuses("has asked already")?;
    ensure!(fs::read(stick("ask"))? == asked);
    // A proof that belongs to no stick, and a member that is treated as a fleet of one.
    room.put("origin", format!("{origin}\n"))?;
    room.put("stick-key", "made up\n")?;
    room.refuses("stick-key is not that of the stick")?;
    let key = Command::new("sha256sum").arg(stick("stick-key")).output()?;
    fs::write(
        room.path("conf/stick-key.sha256"),
        words(&key).replace(&stick("stick-key").display().to_string(), "-"),
    )?;
    room.refuses("whose people decide")?;
    room.take("origin")?;

    // What people approve is what the box asked for.
    fs::copy(stick("ask"), fleet.path("ask"))?;
    let said =
        fleet.ok(&["propose", "box", "ask", "--dir", "fleet", "--reason", "moves to another branch"])?;
    let name =
        said.split("Proposed as ").nth(1).and_then(|rest| rest.get(..16)).context("a name")?.to_owned();
    fleet.carry_out()?;
    let approved = fs::read(fleet.path(&format!("fleet/exchange/approved-{name}")))?;
    room.put("roster", fs::read(fleet.path("fleet/roster"))?)?;
    let with = |bytes: &[u8], part: &str| {
        room.put(&format!("approved-{name}"), bytes)?;
        room.refuses(part)
    };
    let mut one = Change::decode(&approved)?;
    one.approvals.truncate(1);
    with(&one.encode(), "(not-enough)")?;
    let mut forged = approved.clone();
    *forged.last_mut().context("bytes")? ^= 1;
    with(&forged, "(bad-signature)")?;
    with(&approved[..approved.len() - 1], "(malformed)")?;
    with(b"", "(malformed)")?;
    let mut late = Change::decode(&approved)?;
    (late.action.proposed_at, late.action.not_after) = (1_000, 2_000);
    with(&Change::new(late.action, late.approvals).encode(), "refused (")?;
    // Another question than the one that waits: that one was taken back.
    rig.run(&["approval", "ask", "--retire", "keep-log", "--out", "other"])?;
    with(&approved, "(other-target)")?;
    rig.run(&["approval", "withdraw"])?;
    with(&approved, "(other-target)")?;
    fs::write(rig.state().join("asked"), &asked)?;
    room.put("approved-2", &approved)?;
    room.refuses("several approved-*")?;
    room.take("approved-2")?;

    room.put("cancel", "")?;
    room.refuses("nobody has decided")?;
    room.take("cancel")?;

    // All is as it must be: certificate first, then the data, then the restart.
    room.put(&format!("approved-{name}"), &approved)?;
    let (code, said) = room.plug("reset")?;
    ensure!(code == 0 && said.contains("this box is new"), "{code} {said}");
    assert_eq!(room.noted(), DONE);
    ensure!(!rig.state().join("identity.json").exists());
    fleet.ok(&["trust", "export", "--dir", "fleet", "--out", "trust.json"])?;
    let certificate = stick("box.certificate").display().to_string();
    let said = fleet.ok(&["certificate", &certificate, "--trust", "trust.json"])?;
    ensure!(said.contains("shown by the TPM itself") && said.contains(&origin), "{said}");
    ensure!(fs::read_to_string(stick("retirement.checkpoint"))?.starts_with(&origin));
    let retire = ["retire", "S-1", "--certificate", &certificate, "--dir", "fleet", "--reason", "reset"];
    fleet.ok(&retire)?;
    fleet.carry_out()?;
    // Cut off before the data was gone: the same stick goes on. And with the data gone there is nothing to do.
    let (code, said) = room.plug("reset")?;
    ensure!(code == 0 && said.contains("this box is new"), "{code} {said}");
    fs::remove_dir_all(rig.state())?;
    fs::create_dir(rig.state())?;
    let before = fs::read(stick("result.txt"))?;
    let (code, _) = room.plug("reset")?;
    ensure!(code == 0 && room.noted().is_empty() && fs::read(stick("result.txt"))? == before);
    Ok(())
}

#[test]
fn a_fleet_of_one_is_reset_by_the_stick_that_took_it_into_service() -> Result<()> {
    let options = RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() };
    let mut rig = Rig::start_with(&options)?;
    let trust = rig.trust().clone();
    rig.sealer.stop()?;
    let room = Room::around(&rig)?;
    let identity: serde_json::Value = serde_json::from_slice(&fs::read(rig.state().join("identity.json"))?)?;
    let origin = identity["origin"].as_str().context("an origin")?.to_owned();
    room.put("origin", "demo.bulla.test/another/1\n")?;
    fs::write(room.path("conf/stick-key.sha256"), "nobody's  -\n")?;
    room.refuses("stick-key is not that of the stick")?;
    room.put("stick-key", "4711\n")?;
    room.refuses("stick-key is not that of the stick")?;
    let sum =
        Command::new("sh").args(["-c", "sha256sum <\"$0\""]).arg(room.path("stick/stick-key")).output()?;
    fs::write(room.path("conf/stick-key.sha256"), &sum.stdout)?;
    room.refuses("names another one")?;
    room.put("origin", "")?;
    room.refuses("origin must name the log")?;

    // The commissioning stick, later: a lost log that no neighbour can give is refused, and the box seals on.
    room.put("restore", "S-1\n")?;
    let (code, said) = room.plug("commission")?;
    ensure!(code == 1 && said.contains("restore must have two lines"), "{code} {said}");
    room.put("restore", "S-1\nthe disk died\n")?;
    let (code, said) = room.plug("commission")?;
    ensure!(
        code == 1 && said.contains("the log of S-1 was not fetched") && said.contains("no neighbours"),
        "{said}"
    );
    assert_eq!(room.noted(), ["systemctl stop bulla-box", "systemctl start --no-block bulla-box"]);
    room.take("restore")?;

    room.put("origin", &origin)?;
    let (code, said) = room.plug("reset")?;
    ensure!(code == 0 && said.contains("this box is new"), "{code} {said}");
    assert_eq!(room.noted(), DONE);
    let bytes = fs::read(room.path("stick/box.certificate"))?;
    let retired =
        bulla_formats::retirement::Certificate::decode(&bytes)?.verify(&trust.fleet, &trust.roots)?;
    ensure!(retired.origin().as_str() == origin && retired.statement().action.is_none(), "{retired:?}");
    Ok(())
}

#[test]
fn a_stick_brings_the_configuration_that_people_approved_and_no_other() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut rig, _) = fleet.member("S-1", Some(&maker))?;
    fleet.kill();
    let room = Room::around(&rig)?;
    let there = fs::read_to_string(rig.file("box.toml"))?;
    fs::write(room.path("conf/box.toml"), &there)?;
    let in_force = || -> Result<String> { Ok(words(&room.rig.run(&["configuration", "show"])?)) };

    // Nobody has approved it: nothing changes, with or without a roster.
    let new = format!("{there}\n[limits]\ndocument_bytes_max = 4096\n");
    room.put("box.toml", &new)?;
    let (code, said) = room.plug("commission")?;
    ensure!(
        code == 1 && said.contains("box.toml is not taken: ") && said.contains("--roster"),
        "{code} {said}"
    );
    room.put("roster", fs::read(fleet.path("fleet/roster"))?)?;
    let (code, said) = room.plug("commission")?;
    ensure!(code == 1 && said.contains("names no configuration for this box"), "{code} {said}");
    ensure!(in_force()?.starts_with("in force  the file that lies on the box\n"), "{}", in_force()?);

    // Two people have.
    fs::write(fleet.path("S-1.toml"), &new)?;
    let path = fleet.path("S-1.toml");
    let path = path.to_str().context("a path")?;
    fleet.ok(&["propose", "configuration", path, "--dir", "fleet", "--reason", "smaller documents"])?;
    fleet.carry_out()?;
    room.put("roster", fs::read(fleet.path("fleet/roster"))?)?;
    room.put("box.toml", new.replace("4096", "4097"))?;
    let (code, said) = room.plug("commission")?;
    ensure!(code == 1 && said.contains("and the roster names sha256:"), "{code} {said}");
    room.put("box.toml", &new)?;
    let (code, said) = room.plug("commission")?;
    ensure!(code == 0 && said.contains("taken: the box goes by it from its next start on"), "{code} {said}");
    ensure!(in_force()?.contains("waits     sha256:"), "{}", in_force()?);
    ensure!(fs::read_to_string(room.path("conf/box.toml"))? == there, "the file on the box stays");
    // The same stick once more: it waits already.
    let (code, said) = room.plug("commission")?;
    ensure!(code == 0 && said.contains("nothing was changed"), "{code} {said}");
    drop(room);
    rig.sealer.start()?;
    let large =
        rig.client(Role::Scanner).post("/v1/seals", &[("Content-Type", "text/plain")], &[b'x'; 5_000])?;
    ensure!(large.status == 413, "the limit counts");
    Ok(())
}

#[test]
fn a_stick_without_a_configuration_asks_the_registrar_with_that_of_the_image() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let rig = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let room = Room::around(&rig)?;
    let [_, url, _, pin] = fleet.registrar();
    for (registrar, part) in [
        (None, "there is no box.toml on this stick, and no registrar"),
        (Some(format!("{url}\n{pin}\n")), "registrar must have three lines"),
        (Some(format!("{url}\n{pin}\nx/,s\n")), "letters, digits, dots and dashes only"),
    ] {
        if let Some(text) = registrar {
            room.put("registrar", text)?;
        }
        let (code, said) = room.plug("commission")?;
        ensure!(code == 1 && said.contains(part), "{part}: {code} {said}");
        ensure!(!room.path("conf/box.toml").exists(), "{part}");
    }
    // Nobody expects this TPM: it is told so, and the box has what it needs to ask again.
    room.put("registrar", format!("{url}\n{pin}\ndemo.bulla.test\n"))?;
    let (code, said) = room.plug("commission")?;
    ensure!(code == 1 && said.contains("the registrar did not enrol this box"), "{code} {said}");
    let config = room.path("conf/box.toml");
    ensure!(fs::read_to_string(&config)?.contains("fleet = \"demo.bulla.test\""), "the fleet is in it");
    let checked = Command::new(box_program()?).args(["check-config", "--config"]).arg(&config).output()?;
    ensure!(checked.status.code() == Some(0), "{}", words(&checked));
    Ok(())
}

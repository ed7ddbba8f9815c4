//! A hub of real boxes: their logs archived, read by strangers, and seals handed out of the archive.

use anyhow::{Context, Result, ensure};
use bulla_formats::enrolment::Enrolment;
use bulla_formats::note::{SignedNote, parse_checkpoint_text, verifier_key};
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::hub::HubRig;
use bulla_tests::rig::outage;
use bulla_tests::rig::tsa::{Knobs, Stamps, Transport};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, bulla_program};
use serde_json::json;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

/// Where Debian's golang-golang-x-mod-dev puts its sources.
const GO_PATH: &str = "/usr/share/gocode";

/// Seals `from..to` by digest.
fn seal_many(rig: &Rig, from: u64, to: u64) -> Result<()> {
    let client = rig.client(Role::Scanner);
    for number in from..to {
        let digest = bulla_formats::hash::sha256(&[&number.to_be_bytes()]).to_string();
        let answer =
            client.seal_digest(&json!({"algorithm": "sha-256", "digest": digest, "size": 8}), &[])?;
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}

fn attested(rig: &Rig, document: &[u8]) -> Result<SealFile> {
    let path = "/v1/seals?wait=attested&deadlineSeconds=60";
    rig.client(Role::Scanner).post(path, &[("Content-Type", "text/plain")], document)?.seal()
}

/// The archived log as golang.org/x/mod sees it.
fn go(log: &Path, verifier_key: &str, directory: &Path) -> Result<Output> {
    let program = directory.join("tlog");
    if !program.exists() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tlog/main.go");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(&program)
            .arg(source)
            .env("GO111MODULE", "off")
            .env("GOPATH", GO_PATH)
            .env("GOCACHE", directory.join("go-cache"))
            .output()
            .context("cannot start go; `cargo xtask setup` installs it (packages golang-go, golang-golang-x-mod-dev)")?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    Ok(Command::new(program).arg(log).arg(verifier_key).output()?)
}

#[test]
fn g6_g9_a_real_log_is_archived_and_strangers_read_it() -> Result<()> {
    let rig = Rig::start()?;
    let first = attested(&rig, b"first")?;
    let hub = HubRig::create(&[("branch", &first.origin, &[(&rig, false)])])?;
    ensure!(hub.pull("branch")? == rig.log_size()?, "all of it");
    seal_many(&rig, 0, 300)?;
    rig.next_epoch("in the middle")?;
    hub.pull("branch")?;
    seal_many(&rig, 300, 400)?;
    attested(&rig, b"last")?;
    let size = hub.pull("branch")?;
    ensure!(size == rig.log_size()?, "all of it, again");
    hub.lines(&["findings"], 4)?;
    let examined = hub.lines(&["fsck"], 0)?;
    ensure!(examined[0]["entries"] == size && examined[0]["surplus"] == json!([]), "{examined:?}");

    // The document and a .seal out of the archive, judged by the program of an auditor, with the box's trust file.
    let document = hub.file("first.txt");
    std::fs::write(&document, b"first")?;
    let document = document.to_str().context("a name in UTF-8")?;
    let found = hub.lines(&["find", "--document", document], 0)?;
    ensure!(found[0]["facts"] == json!(["sealed", "attested"]), "{found:?}");
    let index = found[0]["index"].to_string();
    let seal = hub.file("first.txt.seal");
    hub.lines(&["seal", "branch", &index, "--out", seal.to_str().context("a name in UTF-8")?], 0)?;
    let judged = Command::new(bulla_program()?)
        .args(["verify", document, "--trust"])
        .arg(rig.file("trust.json"))
        .arg(&seal)
        .output()?;
    ensure!(judged.status.code() == Some(0), "{}", String::from_utf8_lossy(&judged.stdout));

    // golang.org/x/mod reads note, tiles, entries and proofs.
    let enrolment = Enrolment::decode(&first.enrolment)?;
    let key = verifier_key(&first.origin, &enrolment.content.log_key);
    let log = hub.archived(&first.origin);
    let read = go(&log, &key, hub.file("").as_path())?;
    ensure!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let note = SignedNote::parse(&std::fs::read_to_string(log.join("checkpoint"))?)?;
    let (_, signed, root) = parse_checkpoint_text(&note.text)?;
    let said = format!("{signed} {}\n", bulla_formats::json::base64_encode(&root.0));
    ensure!(signed == size && String::from_utf8(read.stdout)? == said, "{said}");
    // And it does notice what is wrong.
    for name in ["checkpoint", "tile/0/000", "tile/entries/000"] {
        let path = log.join(name);
        let genuine = std::fs::read(&path)?;
        let mut bent = genuine.clone();
        bent[genuine.len() / 2] ^= 1;
        std::fs::write(&path, bent)?;
        ensure!(!go(&log, &key, hub.file("").as_path())?.status.success(), "{name} was bent unnoticed");
        std::fs::write(&path, genuine)?;
    }
    Ok(())
}

/// Two boxes that mirror each other.
fn neighbours() -> Result<[Rig; 2]> {
    let mut boxes = Vec::new();
    for _ in 0..2 {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        let extra = format!("[peers]\nlisten = [\"{address}\"]\nadvertise = [\"{address}\"]\nmdns = false\n");
        let options = RigOptions {
            keys: Keys::Software,
            residency: "software",
            extra: &extra,
            ..RigOptions::default()
        };
        let rig = Rig::create(&options)?;
        boxes.push(rig);
    }
    let mut boxes = <[Rig; 2]>::try_from(boxes).ok().context("two boxes")?;
    for (one, other) in [(0, 1), (1, 0)] {
        let card = boxes[other].file("peer.card");
        let printed = boxes[other].run(&["peers", "card", "--out", "peer.card"])?;
        let printed = String::from_utf8(printed.stdout)?;
        let bytes = std::fs::read(&card)?;
        let fingerprint = bulla_formats::peer::card::PeerCard::decode(&bytes)?.fingerprint();
        ensure!(printed.contains(&fingerprint), "{printed}");
        let card = card.to_str().context("a name in UTF-8")?;
        boxes[one].run(&["peers", "add", card, "--fingerprint", &fingerprint])?;
    }
    boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    Ok(boxes)
}

#[test]
fn g1_g4_a_box_that_is_gone_is_pulled_from_its_neighbour() -> Result<()> {
    let [mut gone, neighbour] = neighbours()?;
    let path = "/v1/seals?wait=mirrored(1)&deadlineSeconds=60";
    let answer = gone.client(Role::Scanner).post(path, &[("Content-Type", "text/plain")], b"kept")?;
    let receipt = answer.json()?;
    ensure!(receipt["waited"] == "mirrored", "{receipt}");
    let (origin, index) = (answer.seal()?.origin, receipt["index"].as_u64().context("an index")?);
    gone.sealer.kill()?;
    let hub = HubRig::create(&[("branch", &origin, &[(&gone, false), (&neighbour, true)])])?;
    let end = Instant::now() + Duration::from_secs(60);
    // A copy is served under the newest head that the neighbour has heard of.
    while hub.run(&["pull"])?.status.code() != Some(0) {
        ensure!(Instant::now() < end, "the neighbour does not hand out the log");
        std::thread::sleep(Duration::from_millis(200));
    }
    let status = hub.lines(&["status"], 0)?;
    ensure!(status[0]["entries"].as_u64() > Some(index), "{status:?}");
    let document = hub.file("kept.txt");
    std::fs::write(&document, b"kept")?;
    let found = hub.lines(&["find", "--document", document.to_str().context("a name in UTF-8")?], 0)?;
    ensure!(found.len() == 1 && found[0]["verdict"] == "seal-only", "{found:?}");
    hub.lines(&["fsck"], 0)?;
    Ok(())
}

#[test]
fn g7_seals_out_of_the_archive_carry_anchors_and_the_outages_manifest() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let rig = outage::start(&[&tsa], &RigOptions::default(), "")?;
    outage::wait_mode(&rig, "online", PATIENCE)?;
    let before = rig.client(Role::Scanner).seal(b"before")?.seal()?;
    let hub = HubRig::create(&[("branch", &before.origin, &[(&rig, false)])])?;
    outage::wait_anchored(&rig, PATIENCE)?;
    hub.pull("branch")?;
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    outage::wait_mode(&rig, "emergency", PATIENCE)?;
    rig.client(Role::Scanner).seal(b"inside")?;
    // In the middle of the outage: the audit is laid aside with all that it knows of it.
    hub.pull("branch")?;
    tsa.set(&Knobs::default())?;
    outage::wait_mode(&rig, "online", PATIENCE)?;
    outage::wait_anchored(&rig, PATIENCE)?;
    hub.pull("branch")?;
    hub.lines(&["findings"], 4)?;
    for (document, manifests) in [("before", 0), ("inside", 1)] {
        let file = hub.file(document);
        std::fs::write(&file, document)?;
        let found = hub.lines(&["find", "--document", file.to_str().context("a name in UTF-8")?], 0)?;
        ensure!(found[0]["facts"].as_array().context("facts")?.contains(&json!("anchored")), "{found:?}");
        ensure!(found[0]["notAfterMillis"].is_u64(), "{found:?}");
        let printed = hub.run(&["seal", "branch", &found[0]["index"].to_string()])?.stdout;
        let seal = SealFile::decode(&printed)?;
        ensure!(seal.manifests.len() == manifests, "{document}: {} manifests", seal.manifests.len());
        let judged = rig.judge(&seal, document.as_bytes());
        ensure!(judged.report.verdict == Verdict::Valid, "{}", judged.report);
        if manifests > 0 {
            let line = judged.report.to_string();
            ensure!(line.contains("close manifest of outage 1"), "{line}");
            ensure!(judged.report.interval.is_some_and(|interval| interval.after.is_some()), "{line}");
        }
    }
    hub.lines(&["fsck"], 0)?;
    Ok(())
}

//! A box leaves: approved by the fleet's people, drained, ended, destroyed, and a certificate that shows it. Real boxes with
//! swtpm, a registrar, two operators.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_approvals::action::Change;
use bulla_approvals::at_box::Ask;
use bulla_formats::body::mirror::MirrorBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::der::Octets32;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::retirement::{Certificate, Clearing, Extent};
use bulla_formats::trust::TrustFile;
use bulla_tests::rig::fleet::{Fleet, words};
use bulla_tests::rig::outage::id_of;
use bulla_tests::rig::site::{entries, until};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, box_program, bulla_program};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};

/// Seals a document and keeps it with its `.seal` file in `dir`.
fn sealed(rig: &Rig, dir: &Path, document: &str) -> Result<()> {
    let client = rig.client(Role::Scanner);
    let answer = client.post("/v1/seals", &[("Content-Type", "text/plain")], document.as_bytes())?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    let id = id_of(&answer)?;
    let seal = rig.client(Role::Operator).get(&format!("/v1/seals/{id}/seal-file"))?;
    ensure!(seal.status == 200, "{}", String::from_utf8_lossy(&seal.body));
    fs::write(dir.join(document), document)?;
    fs::write(dir.join(format!("{document}.seal")), &seal.body)?;
    Ok(())
}

fn verify(dir: &Path, trust: &Path, document: &str) -> Result<Output> {
    let mut command = Command::new(bulla_program()?);
    command.current_dir(dir).arg("verify").arg("--trust").arg(trust).arg(document);
    Ok(command.output()?)
}

/// `bulla-box` ends with `code` and says `part`.
fn ends(rig: &Rig, arguments: &[&str], code: i32, part: &str) -> Result<()> {
    let done = rig.try_run(arguments)?;
    let said = words(&done);
    ensure!(
        done.status.code() == Some(code) && said.contains(part),
        "{arguments:?}, {:?}: {said}",
        done.status
    );
    Ok(())
}

/// The box asks, it is proposed, and these people approve; the file that was handed out, if they were enough.
fn approved(fleet: &Fleet, rig: &Rig, more: &[&str], people: &[&str]) -> Result<Option<String>> {
    let ask = fleet.path("ask").to_string_lossy().into_owned();
    rig.run(&[&["approval", "ask", "--retire", "keep-log", "--out", &ask], more].concat())?;
    propose(fleet, "ask", people)
}

fn propose(fleet: &Fleet, ask: &str, people: &[&str]) -> Result<Option<String>> {
    let said = fleet.ok(&["propose", "box", ask, "--dir", "fleet", "--reason", "end of life"])?;
    let name =
        said.split("Proposed as ").nth(1).and_then(|rest| rest.get(..16)).context("a name")?.to_owned();
    for person in people {
        fleet.ok(&["approve", "--dir", person, "--exchange", "fleet/exchange", "--yes", &name])?;
    }
    let applied = fleet.run(&["apply", "--dir", "fleet", &name])?;
    let path = fleet.path(&format!("fleet/exchange/approved-{name}"));
    ensure!(path.exists() == applied.status.success(), "{}", words(&applied));
    Ok(path.exists().then(|| path.to_string_lossy().into_owned()))
}

/// An entry of the log says that a neighbour holds every seal.
fn seals_are_held(rig: &Rig) -> Result<bool> {
    let (mut seals, mut held) = (0, 0);
    for bytes in entries(&rig.client_with(None), "", rig.log_size()?)? {
        let entry = Entry::decode(&bytes)?;
        match entry.kind() {
            Some(Kind::Seal) => seals = entry.content().index + 1,
            Some(Kind::Mirror) => {
                let neighbours = MirrorBody::decode(&entry.content().body)?.neighbours;
                let heads = neighbours.iter().filter_map(|one| one.mirrored.as_ref());
                held = heads.map(|cosigned| cosigned.head.size).max().unwrap_or(0);
            }
            _ => {}
        }
    }
    Ok(held >= seals)
}

/// A copy of a change with only its first approval.
fn with_one_approval(path: &str) -> Result<Vec<u8>> {
    let mut change = change_in(path)?;
    change.approvals.truncate(1);
    Ok(change.encode())
}

fn change_in(path: &str) -> Result<Change> {
    Ok(Change::decode(&fs::read(path)?)?)
}

#[test]
fn a_member_retires_by_its_peoples_will_and_shows_that_it_did() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let maker = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    fleet.believe(&maker)?;
    fleet.serve(&[])?;
    let (mut rig, origin) = fleet.member("S-1", Some(&maker))?;
    let (mut other, _) = fleet.member("S-2", Some(&maker))?;
    let room = fleet.path(".");
    rig.sealer.start()?;
    for document in ["one.txt", "two.txt"] {
        sealed(&rig, &room, document)?;
    }
    rig.sealer.stop()?;
    let roster = fleet.path("fleet/roster").to_string_lossy().into_owned();
    let retire = |rig: &Rig, file: &str| {
        let done = rig.try_run(&["retire", "--approved", file, "--roster", &roster])?;
        Ok::<_, anyhow::Error>((done.status.code(), words(&done)))
    };
    let refused = |rig: &Rig, file: &str, why: &str| {
        let (code, said) = retire(rig, file)?;
        ensure!(code == Some(1) && said.contains(why), "{why}: {code:?} {said}");
        ensure!(!rig.state().join("retirement.json").exists(), "{why}");
        Ok::<_, anyhow::Error>(())
    };

    // Nobody at the box decides alone, and one person is too few.
    ends(&rig, &["retire"], 1, "nobody has decided")?;
    let alone = ["--extent", "keep-log", "--reason", "I say so"];
    ends(&rig, &[&["retire", "--yes-retire", &origin], &alone[..]].concat(), 1, "whose people decide")?;
    let asked_first = ["--without-anchors", "--without-copies"];
    ensure!(approved(&fleet, &rig, &asked_first, &["olga"])?.is_none());
    let first = approved(&fleet, &rig, &asked_first, &["olga", "omar"])?.context("both approved")?;
    fs::write(fleet.path("one"), with_one_approval(&first)?)?;
    refused(&rig, &fleet.path("one").to_string_lossy(), "(not-enough)")?;
    let mut forged = fs::read(&first)?;
    *forged.last_mut().unwrap() ^= 1;
    fs::write(fleet.path("forged"), &forged)?;
    refused(&rig, &fleet.path("forged").to_string_lossy(), "(bad-signature)")?;
    fs::write(fleet.path("cut"), &forged[..forged.len() - 1])?;
    refused(&rig, &fleet.path("cut").to_string_lossy(), "(malformed)")?;
    // Another box has asked for nothing; and where it has, for something else.
    refused(&other, &first, "(other-target)")?;
    other.run(&["approval", "ask", "--retire", "keep-log", "--out", "ask"])?;
    refused(&other, &first, "(other-target)")?;
    // A box that asks anew has taken the question before back; and it may take back everything.
    let kept = fs::read(rig.state().join("asked"))?;
    let second = approved(&fleet, &rig, &[], &["olga", "omar"])?.context("both approved")?;
    refused(&rig, &first, "(other-target)")?;
    rig.run(&["approval", "withdraw"])?;
    refused(&rig, &second, "(other-target)")?;
    // Nor does it count for another history of the log, wherever the question came from.
    let mut foreign = Ask::decode(&kept)?;
    foreign.target.root = Octets32::new([9; 32]);
    fs::write(fleet.path("foreign"), foreign.encode())?;
    fs::write(rig.state().join("asked"), foreign.encode())?;
    let elsewhere = propose(&fleet, "foreign", &["olga", "omar"])?.context("both approved")?;
    refused(&rig, &elsewhere, "(other-target)")?;
    // The roster has moved on meanwhile.
    fs::write(rig.state().join("asked"), &kept)?;
    fleet.list(&"ab".repeat(32), "S-9")?;
    refused(&rig, &first, "(stale)")?;
    // It was to be done by yesterday: approved as it stands, and too late all the same.
    let ask = Ask::decode(&kept)?;
    let mut late = change_in(&first)?.action;
    late.roster =
        change_in(&approved(&fleet, &rig, &asked_first, &["olga", "omar"])?.context("both")?)?.action.roster;
    (late.proposed_at, late.not_after) = (1_000, 2_000);
    let late = Change::new(late, change_in(&first)?.approvals);
    fs::write(rig.state().join("asked"), ask.encode())?;
    fs::write(fleet.path("late"), late.encode())?;
    refused(&rig, &fleet.path("late").to_string_lossy(), "(expired)")?;

    // Decided, but nobody holds the seals yet: the box runs on and takes nothing new, until a neighbour does.
    let strict = approved(&fleet, &rig, &[], &["olga", "omar"])?.context("both approved")?;
    let (code, said) = retire(&rig, &strict)?;
    ensure!(code == Some(3) && said.contains("2 seal(s) are not anchored"), "{code:?} {said}");
    let last = approved(&fleet, &rig, &["--without-anchors"], &["olga", "omar"])?.context("both approved")?;
    let (code, said) = retire(&rig, &last)?;
    ensure!(
        code == Some(3) && said.contains("not yet: 2 seal(s) are held by no neighbour"),
        "{code:?} {said}"
    );
    rig.sealer.start_unready()?;
    other.sealer.start()?;
    let answer = rig.client(Role::Scanner).post("/v1/seals", &[("Content-Type", "text/plain")], b"three")?;
    ensure!(
        answer.status == 503 && answer.problem()? == "retiring",
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let status: serde_json::Value = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["condition"]["state"] == "retiring", "{status}");
    let cards = fleet.path("fleet/cards");
    until("the cards are handed in", || Ok(fs::read_dir(&cards).map_or(0, Iterator::count) >= 2))?;
    until("they wait for people", || {
        let why = ["propose", "cards", "--dir", "fleet", "--reason", "boxes of one branch"];
        Ok(fleet.run(&why)?.status.success())
    })?;
    fleet.carry_out()?;
    until("the log says that a neighbour holds the seals", || seals_are_held(&rig))
        .with_context(|| rig.log())?;
    rig.sealer.stop()?;

    // Killed anywhere, it goes on.
    let deaths =
        until_done(&rig, &["retire", "--approved", &last, "--roster", &roster, "--out", "certificate"])?;
    ensure!(deaths >= 5, "{deaths}");
    ends(&rig, &["run"], 1, "this box has retired")?;
    ends(&rig, &["retire"], 0, "has ended with")?;
    for gone in ["identity.json", "keys", "clients.json", "peers.json", "retirement.json", "retirement.begun"]
    {
        ensure!(!rig.state().join(gone).exists(), "{gone}");
    }

    // The certificate.
    fleet.ok(&["trust", "export", "--dir", "fleet", "--out", "trust.json"])?;
    let trust = TrustFile::decode(&fs::read(fleet.path("trust.json"))?)?;
    let bytes = fs::read(rig.file("certificate"))?;
    let retired = Certificate::decode(&bytes)?.verify(&trust.fleet, &trust.roots)?;
    ensure!(retired.clearing() == Clearing::Shown, "{retired:?}");
    let statement = retired.statement();
    ensure!((statement.unanchored, statement.unmirrored) == (2, 0), "{retired:?}");
    ensure!(retired.origin().as_str() == origin, "{retired:?}");
    let shown = rig.file("certificate").to_string_lossy().into_owned();
    let said = fleet.ok(&["certificate", &shown, "--trust", "trust.json"])?;
    ensure!(said.contains("shown by the TPM itself") && said.contains("identity.json"), "{said}");
    for at in (0..bytes.len()).step_by(211) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        let judged = Certificate::decode(&damaged).and_then(|one| one.verify(&trust.fleet, &trust.roots));
        ensure!(judged.is_err(), "byte {at} may be anything");
    }
    fs::write(fleet.path("damaged"), &bytes[..bytes.len() - 1])?;
    fleet.ends(&["certificate", "damaged", "--trust", "trust.json"], 1, "(malformed)")?;
    let leave = ["--dir", "fleet", "--reason", "end of life"];
    fleet.ends(&[&["retire", "S-2", "--certificate", &shown], &leave[..]].concat(), 1, "no log of S-2")?;

    // It leaves the roster, and what it sealed stays good.
    fleet.ok(&[&["retire", "S-1", "--certificate", &shown], &leave[..]].concat())?;
    fleet.carry_out()?;
    fleet.ok(&["trust", "export", "--dir", "fleet", "--out", "trust.json"])?;
    let listed = fleet.ok(&["inventory", "show", "S-1", "--dir", "fleet"])?;
    ensure!(
        listed.contains("retired") && listed.contains(&retired.statement().head.size.to_string()),
        "{listed}"
    );
    for document in ["one.txt", "two.txt"] {
        let done = verify(&room, &fleet.path("trust.json"), document)?;
        ensure!(done.status.success(), "{}", words(&done));
    }
    // Nothing of the box opens in its TPM any more.
    let tcti = rig.tpm.as_ref().context("it has a TPM")?.tcti();
    let handles = Command::new("tpm2_getcap").args(["-T", &tcti, "handles-persistent"]).output()?;
    ensure!(handles.status.success(), "{}", words(&handles));
    let said = words(&handles).to_lowercase();
    ensure!(!said.contains("0x81425501") && !said.contains("0x81425502"), "{said}");
    Ok(())
}

/// Runs it again and again, each time killed one flush of the main thread later than the last; how often it died before it was
/// done.
fn until_done(rig: &Rig, arguments: &[&str]) -> Result<usize> {
    for flush in 1..60 {
        let inject = format!("inject=fsync,fdatasync:signal=SIGKILL:when={flush}");
        let mut strace = Command::new("strace");
        strace.args(["-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", &inject]);
        strace.arg(box_program()?).args(arguments).args(["--config", "box.toml"]);
        let done = strace.current_dir(rig.sealer.directory()).output().context("strace cannot be started")?;
        if done.status.success() {
            return Ok(flush - 1);
        }
        ensure!(
            done.status.code().is_none() || done.status.code() == Some(137),
            "{:?} {}",
            done.status,
            words(&done)
        );
        // Until the statement is on the disk nothing of the box is touched; then there is only one way.
        match rig.state().join("retirement.begun").exists() {
            false if rig.state().join("identity.json").exists() => drop(rig.fsck()?),
            _ => {
                let started = rig.try_run(&["run"])?;
                ensure!(started.status.code() == Some(1), "flush {flush}: {}", words(&started));
            }
        }
    }
    anyhow::bail!("it is never done")
}

/// Its owner decides alone, and everything says so.
#[test]
fn the_owner_of_a_fleet_of_one_retires_it_and_a_box_without_tpm_shows_no_clearing() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let room = rig.directory().to_owned();
    sealed(&rig, &room, "one.txt")?;
    rig.sealer.stop()?;
    let trust = rig.trust().clone();
    let origin = origin_of(&rig)?;
    let reason = ["--extent", "everything", "--reason", "the laptop is sold"];
    let without = ["--without-anchors", "--without-copies"];
    ends(
        &rig,
        &[&["retire", "--yes-retire", "demo.bulla.test/x/1"], &reason[..]].concat(),
        1,
        "names another one",
    )?;
    ends(&rig, &["approval", "ask", "--retire", "everything", "--out", "ask"], 1, "fleet of one")?;
    ends(&rig, &[&["retire", "--yes-retire", &origin], &reason[..]].concat(), 3, "not yet")?;
    // It can be given up until the log has ended.
    rig.run(&["retire", "--cancel"])?;
    rig.sealer.start()?;
    sealed(&rig, &room, "two.txt")?;
    rig.sealer.stop()?;
    ends(&rig, &["retire", "--cancel"], 1, "nobody has decided")?;
    rig.fsck()?;
    let arguments =
        [&["retire", "--yes-retire", &origin, "--out", "certificate"], &reason[..], &without].concat();
    let deaths = until_done(&rig, &arguments)?;
    ensure!(deaths >= 5, "{deaths}");
    let retired = Certificate::decode(&fs::read(rig.file("certificate"))?)?;
    let verified = retired.verify(&trust.fleet, &trust.roots)?;
    ensure!(verified.clearing() == Clearing::NoTpm && retired.statement.extent == Extent::Everything);
    let last = Entry::decode(&retired.entry)?;
    let body = OperatorActionBody::decode(&last.content().body)?;
    ensure!(last.kind() == Some(Kind::OperatorAction) && body.reason == "the laptop is sold", "{body:?}");
    let left: Vec<_> = fs::read_dir(rig.state())?.map(|file| file.unwrap().file_name()).collect();
    ensure!(left.len() == 2, "{left:?}");
    fs::copy(rig.file("trust.json"), room.join("trust.json"))?;
    let done = verify(&room, &room.join("trust.json"), "one.txt")?;
    ensure!(!words(&done).contains("refused"), "{}", words(&done));
    // The certificate of one log ends no other: a changed word is refused, whoever reads it.
    let mut other = retired.clone();
    other.statement.reason = "stolen".to_owned();
    ensure!(other.verify(&trust.fleet, &trust.roots).unwrap_err().code() == "signature");
    Ok(())
}

fn origin_of(rig: &Rig) -> Result<String> {
    let text = fs::read_to_string(rig.state().join("identity.json"))?;
    let value: serde_json::Value = serde_json::from_str(&text)?;
    Ok(value["origin"].as_str().context("a name")?.to_owned())
}

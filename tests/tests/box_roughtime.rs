//! A box that Roughtime servers tell the time: without any authority it knows how far its clock may be off; whatever a
//! server does wrong is named and costs nothing; a liar is noticed.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::clock::{ClockBody, ClockFinding};
use bulla_formats::entry::{Entry, Kind};
use bulla_tests::rig::outage::{LOOK, QUICK, anchors, entries, software, wait_for, wait_mode};
use bulla_tests::rig::roughtime::{Answer, Knobs, Roughtime, Transport, sources};
use bulla_tests::rig::tsa::Stamps;
use bulla_tests::rig::wan::{Cut, Wan};
use bulla_tests::rig::{Rig, RigOptions, Role};
use serde_json::Value;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A box with these servers, and nobody else to ask.
fn start(servers: &[&Roughtime]) -> Result<Rig> {
    let servers: Vec<_> = servers.iter().map(|server| (*server, None)).collect();
    Rig::start_with(&RigOptions { extra: &sources(&servers), ..software() })
}

/// Seals something, and says what the box stated of its clock in that entry.
fn stated(rig: &Rig, document: &str) -> Result<Option<u64>> {
    let answer = rig.client(Role::Scanner).seal(document.as_bytes())?;
    ensure!(answer.status == 201, "{document}: {}", String::from_utf8_lossy(&answer.body));
    let entry = Entry::decode(&answer.seal()?.entry)?;
    Ok(entry.content().time.uncertainty_millis)
}

fn source(status: &Value, at: usize) -> Value {
    status["time"]["sources"][at].clone()
}

fn clock_entries(rig: &Rig) -> Result<Vec<ClockBody>> {
    let of_clock = |entry: &Entry| entry.kind() == Some(Kind::Clock);
    let all = entries(rig)?.into_iter().filter(of_clock);
    Ok(all.map(|entry| ClockBody::decode(&entry.content().body)).collect::<Result<_, _>>()?)
}

/// Every fault, with what the status must say of it; as many at a time as there are servers.
const FAULTS: [[(Knobs, &str); 7]; 2] = [
    [
        (transport(Transport::Down), "refused"),
        (Knobs { late_millis: 2_500, ..GOOD }, "no answer came within 1 s"),
        (says(Answer::OtherQuestion), "other-question: it answers another question"),
        (says(Answer::OtherNonce), "other-question: it answers another question"),
        (says(Answer::WrongKey), "delegation: "),
        (says(Answer::WrongDelegate), "signature: "),
        (says(Answer::ExpiredDelegation), "outside-delegation: "),
    ],
    [
        (says(Answer::WrongVersion), "unreadable: "),
        (says(Answer::Truncated), "unreadable: "),
        (says(Answer::Followed), "unreadable: it is no Roughtime message: something follows it"),
        (says(Answer::Garbage), "unreadable: "),
        (says(Answer::Huge), "too-long: "),
        (Knobs { radius_seconds: 86_400, ..GOOD }, "radius: its radius, 86400 s"),
        (transport(Transport::Silent), "no answer came within 1 s"),
    ],
];
const GOOD: Knobs = Knobs {
    transport: Transport::Up,
    answer: Answer::Time,
    clock_offset_seconds: 0,
    radius_seconds: 3,
    late_millis: 0,
    draft: false,
};

const fn transport(transport: Transport) -> Knobs {
    Knobs { transport, ..GOOD }
}

const fn says(answer: Answer) -> Knobs {
    Knobs { answer, ..GOOD }
}

#[test]
fn without_an_authority_the_uncertainty_is_known_and_no_fault_costs_a_seal() -> Result<()> {
    let servers: Vec<Roughtime> =
        (0..7).map(|at| Roughtime::start(&format!("server {at}"))).collect::<Result<_>>()?;
    let set = |faults: &[(Knobs, &str)]| {
        servers.iter().zip(faults).try_for_each(|(server, (knobs, _))| server.set(*knobs))
    };
    set(&FAULTS[0])?;
    let mut rig = start(&servers.iter().collect::<Vec<_>>())?;
    let failing = |status: &Value, at: usize, with: &str| {
        source(status, at)["failing"].as_str().is_some_and(|text| text.contains(with))
    };
    // While the time is not known: every fault is named, and none holds up a seal.
    for faults in &FAULTS {
        set(faults)?;
        let what = format!("{faults:?}");
        wait_for(&rig, &what, PATIENCE, |status| {
            faults.iter().enumerate().all(|(at, (_, with))| failing(status, at, with))
        })?;
        ensure!(stated(&rig, &what)?.is_none(), "nobody has said what time it is");
    }
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["time"]["uncertaintyMillis"].is_null() && status["mode"] == "air-gapped", "{status:#}");
    // What it has said a while ago, too late then, again.
    servers[1].set(says(Answer::Replay))?;
    wait_for(&rig, "an old answer", PATIENCE, |status| failing(status, 1, "other-question"))?;
    ensure!(stated(&rig, "after an old answer")?.is_none());

    // It mends itself: the time is known, in the status and in every entry from then on.
    servers[0].set(GOOD)?;
    servers[1].set(Knobs { radius_seconds: 4, draft: true, ..GOOD })?;
    let answers = |status: &Value, at: usize, radius: u64| {
        let source = source(status, at);
        source["failing"].is_null() && source["last"]["radiusSeconds"] == radius
    };
    let status = wait_for(&rig, "the time is known", PATIENCE, |status| {
        answers(status, 0, 3) && answers(status, 1, 4)
    })?;
    let uncertainty = status["time"]["uncertaintyMillis"].as_u64().context("it is known")?;
    ensure!((1_000..=20_000).contains(&uncertainty), "{status:#}");
    let stated = stated(&rig, "now it is known")?.context("an uncertainty")?;
    ensure!((1_000..=20_000).contains(&stated), "{stated}");
    // Nobody vouches for anything: no mode, no anchor, nothing contradicted.
    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["mode"] == "air-gapped" && status["anchors"].is_null(), "{status:#}");
    ensure!(source(&status, 0)["contradictions"] == 0, "{status:#}");
    ensure!(entries(&rig)?.iter().all(|entry| entry.kind() != Some(Kind::Anchor)));
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    for line in [
        "bulla_clock_known 1",
        "bulla_time_source_up{source=\"time-0\"} 1",
        "bulla_time_source_contradictions_total{source=\"time-0\"} 0",
        "bulla_time_source_up{source=\"time-6\"} 0",
    ] {
        ensure!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    for begins in [
        "bulla_clock_uncertainty_seconds ",
        "bulla_time_source_failures_total{source=\"time-0\",failure=\"bad-answer\"} ",
        "bulla_time_source_failures_total{source=\"time-0\",failure=\"refused\"} ",
        "bulla_time_source_failures_total{source=\"time-6\",failure=\"timeout\"} ",
        "bulla_time_source_ahead_seconds{source=\"time-0\"} ",
    ] {
        ensure!(metrics.lines().any(|line| line.starts_with(begins)), "no {begins} in\n{metrics}");
    }
    // A restart of the process forgets nothing.
    servers[..2].iter().try_for_each(|server| server.set(transport(Transport::Silent)))?;
    rig.sealer.kill()?;
    rig.sealer.start()?;
    let answer = rig.client(Role::Scanner).seal(b"after a restart")?;
    let entry = Entry::decode(&answer.seal()?.entry)?;
    ensure!(entry.content().time.uncertainty_millis.is_some(), "what was known is still known");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// A server contradicts an authority and another server, late and early: it is told, by name, and what is known is narrow
/// again once the lies end.
#[test]
fn a_liar_is_noticed_by_name_and_costs_neither_seal_nor_mode() -> Result<()> {
    let (honest, liar) = (Roughtime::start("honest")?, Roughtime::start("liar")?);
    liar.set(Knobs { transport: Transport::Silent, ..Knobs::default() })?;
    let stamps = Stamps::start("Operator A")?;
    let extra =
        format!("{QUICK}{}{}", anchors(&[(&stamps, LOOK)]), sources(&[(&honest, None), (&liar, None)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..software() })?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_for(&rig, "an answer", PATIENCE, |status| source(status, 0)["answers"].as_u64() > Some(0))?;
    ensure!(clock_entries(&rig)?.is_empty(), "whoever tells the truth contradicts nobody");
    const YEAR: i64 = 31_536_000;
    for (offset, finding) in [(YEAR, ClockFinding::Correction), (-YEAR, ClockFinding::Contradiction)] {
        liar.set(Knobs { clock_offset_seconds: offset, ..Knobs::default() })?;
        let status = wait_for(&rig, "the lie is counted", PATIENCE, |status| {
            let last = source(status, 1)["last"]["aheadMillis"].as_i64().unwrap_or(0);
            source(status, 1)["contradictions"].as_u64() > Some(0) && last.signum() == offset.signum()
        })?;
        let ahead = source(&status, 1)["last"]["aheadMillis"].as_i64().context("how far it is off")?;
        ensure!((ahead / 1_000 - offset).abs() < 60, "{ahead}");
        wait_for(&rig, "the lie is in the log", PATIENCE, |_| {
            clock_entries(&rig).is_ok_and(|all| all.iter().any(|body| body.finding == finding))
        })?;
        // A mode is none of its business, and a seal neither.
        ensure!(status["mode"] == "online", "{status:#}");
        ensure!(rig.client(Role::Scanner).seal(format!("off by {offset}").as_bytes())?.status == 201);
    }
    let said = clock_entries(&rig)?;
    ensure!(said.len() <= 4, "the log is not for repeating it: {said:?}");
    ensure!(said.iter().any(|body| body.detail.starts_with("Roughtime server time-1 says ")), "{said:?}");
    // It stops lying, and what is known is narrow again.
    liar.set(Knobs::default())?;
    wait_for(&rig, "narrow again", PATIENCE, |status| {
        status["time"]["uncertaintyMillis"].as_u64().is_some_and(|millis| millis < 20_000)
    })?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// Names that nobody resolves, and lines that are cut: the box seals, says which it is, and asks again.
#[test]
fn hanging_names_and_cut_lines_hold_up_nothing() -> Result<()> {
    let wan = Wan::new()?;
    let server = Roughtime::start_at("far", wan.address())?;
    let named = format!("a.test:{}", server.address().port());
    let extra = sources(&[(&server, Some(named.as_str())), (&server, None)]);
    let mut rig = Rig::create_behind(&wan, &RigOptions { extra: &extra, ..software() })?;
    rig.sealer.start()?;
    let answers = |status: &Value| {
        (0..2).all(|at| source(status, at)["failing"].is_null() && !source(status, at)["last"].is_null())
    };
    wait_for(&rig, "both answer", PATIENCE, answers)?;
    for (cut, at, with) in [
        (Cut::HangingDns, 0, "its name was not resolved within 1 s"),
        (Cut::BlackHole, 1, "no answer came within 1 s"),
    ] {
        wan.cut(cut)?;
        wait_for(&rig, with, PATIENCE, |status| {
            source(status, at)["failing"].as_str().is_some_and(|text| text.contains(with))
        })?;
        let answer = rig.client(Role::Scanner).seal(format!("while {cut:?}").as_bytes())?;
        ensure!(answer.status == 201, "{cut:?}: {}", String::from_utf8_lossy(&answer.body));
        wan.heal()?;
        wait_for(&rig, "both answer again", PATIENCE, answers)?;
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

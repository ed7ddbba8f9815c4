//! The live event stream on a real box: exactly once over kill -9 and slow readers, by role, ended in time.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::load::Load;
use bulla_tests::rig::{Event, EventReader, Keys, Rig, RigOptions, Role};
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};

fn seal(rig: &Rig, token: &str, number: u64) -> Result<u64> {
    let order = json!({"algorithm": "sha-256", "digest": format!("{number:064x}"), "user": "J\u{fc}rgen"});
    let answer = rig.client_with(Some(token)).seal_digest(&order, &[])?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()?["index"].as_u64().context("a receipt has an index")
}

/// Reads on until the stream ends or the log's entry `to` has come.
fn read_to(reader: &mut EventReader, to: u64, into: &mut Vec<Event>) -> Result<()> {
    while let Some(event) = reader.next_of_log()? {
        let done = event.id == Some(to);
        into.push(event);
        if done {
            break;
        }
    }
    Ok(())
}

fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().filter_map(|event| event.id).collect()
}

/// A reader that always comes back with the last id sees every entry once, whatever happens to the box.
#[test]
fn events_come_exactly_once_over_kill_9() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let token = rig.token(Role::Reader).to_owned();
    let mut events = Vec::new();
    for round in 0..3 {
        let last = events.last().and_then(|event: &Event| event.id);
        let mut reader = EventReader::open(rig.wire()?, &token, "?from=0", last)?;
        let load = Load::start(&rig, 4, &format!("round {round}"));
        let target = last.unwrap_or(0) + 300;
        read_to(&mut reader, target, &mut events)?;
        rig.sealer.kill()?;
        // What had been on its way still counts; then the stream has ended.
        while let Ok(Some(event)) = reader.next_of_log() {
            events.push(event);
        }
        load.finish()?;
        rig.sealer.start()?;
    }
    let size = rig.log_size()?;
    let last = events.last().and_then(|event| event.id);
    let mut reader = EventReader::open(rig.wire()?, &token, "", last)?;
    read_to(&mut reader, size - 1, &mut events)?;
    assert_eq!(ids(&events), (0..size).collect::<Vec<_>>());
    // Names follow the kinds of entries, and nobody's name is among the data.
    let names: HashSet<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, HashSet::from(["epoch", "seal"]));
    let bodies: String = events.iter().map(|event| event.data.to_string()).collect();
    assert!(!bodies.contains("rgen"));
    Ok(())
}

/// The end of a stream does not wait for the grace of running requests, and neither does the box.
#[test]
fn a_stop_ends_streams_and_a_resume_goes_on() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let token = rig.token(Role::Reader).to_owned();
    let mut reader = EventReader::open(rig.wire()?, &token, "", None)?;
    assert_eq!(reader.next_event()?.unwrap().data, json!({"state": "sealing"}));
    let first = seal(&rig, rig.token(Role::Scanner), 1)?;
    assert_eq!(reader.next_of_log()?.unwrap().id, Some(first));
    let began = Instant::now();
    rig.sealer.stop()?;
    ensure!(began.elapsed() < Duration::from_secs(8), "the stop took {:?}", began.elapsed());
    assert_eq!(reader.next_event()?, None);
    rig.sealer.start()?;
    let second = seal(&rig, rig.token(Role::Scanner), 2)?;
    let mut reader = EventReader::open(rig.wire()?, &token, "", Some(first))?;
    let mut events = Vec::new();
    read_to(&mut reader, second, &mut events)?;
    assert_eq!(ids(&events), (first + 1..=second).collect::<Vec<_>>());
    // An id that this log does not have would leave a gap that nobody notices.
    let client = rig.client(Role::Reader);
    for (path, headers) in [
        ("/v1/events", &[("Last-Event-ID", "999999")][..]),
        ("/v1/events", &[("Last-Event-ID", "x")]),
        ("/v1/events?from=999999", &[]),
        ("/v1/events?since=1", &[]),
    ] {
        assert_eq!(client.send("GET", path, headers, ())?.problem()?, "invalid-request", "{path}");
    }
    Ok(())
}

/// A hundred readers, one of which hardly reads: all get everything, the box's memory stays where it was.
#[test]
fn a_hundred_readers_and_a_slow_one() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let token = rig.token(Role::Reader).to_owned();
    let before = resident(&rig)?;
    let mut slow = EventReader::open(rig.wire()?, &token, "?from=0", None)?;
    slow.next_event()?;
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(EventReader::open(rig.wire()?, &token, "?from=0", None)?);
    }
    let load = Load::start(&rig, 4, "many readers");
    let began = Instant::now();
    while load.sealed() < 3_000 {
        ensure!(began.elapsed() < Duration::from_secs(120), "{} seals in two minutes", load.sealed());
        std::thread::sleep(Duration::from_millis(20));
    }
    load.finish()?;
    let last = rig.log_size()? - 1;
    let whole: Vec<u64> = (0..=last).collect();
    for reader in readers.iter_mut().chain([&mut slow]) {
        let mut events = Vec::new();
        read_to(reader, last, &mut events)?;
        assert_eq!(ids(&events), whole);
    }
    let grown = resident(&rig)?.saturating_sub(before);
    println!("{} events to 101 readers; resident memory grew by {grown} KiB", whole.len());
    ensure!(grown < 64 << 10, "resident memory grew by {grown} KiB");
    Ok(())
}

fn resident(rig: &Rig) -> Result<u64> {
    let pid = rig.sealer.pid().context("the box runs")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn a_scanner_sees_its_own_seals_and_a_revoked_client_nothing_more() -> Result<()> {
    let extra = "[limits]\nevent_streams_max = 2";
    let rig = Rig::start_with(&RigOptions { extra, ..SOFTWARE })?;
    let other = rig.add_client("mfp-2", "scanner")?;
    let scanner = rig.token(Role::Scanner).to_owned();
    let mut own = EventReader::open(rig.wire()?, &scanner, "?from=0", None)?;
    let mut doomed = EventReader::open(rig.wire()?, &other, "", None)?;
    doomed.next_event()?;
    let refused = rig.client(Role::Reader).get("/v1/events")?;
    assert_eq!(refused.problem()?, "overloaded");
    assert!(!refused.header("retry-after").is_empty());
    let mine = seal(&rig, &scanner, 1)?;
    let theirs = seal(&rig, &other, 2)?;
    let again = seal(&rig, &scanner, 3)?;
    let mut events = Vec::new();
    read_to(&mut own, again, &mut events)?;
    assert_eq!(ids(&events), [mine, again]);
    assert_eq!(doomed.next_of_log()?.unwrap().id, Some(theirs));
    rig.run(&["scanner", "revoke", "--name", "mfp-2"])?;
    let began = Instant::now();
    assert_eq!(doomed.next_of_log()?, None, "a revoked client hears nothing more");
    println!("ended {:?} after the revocation", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(8), "it took {:?}", began.elapsed());
    // Its place is free again.
    EventReader::open(rig.wire()?, rig.token(Role::Operator), "", None)?;
    Ok(())
}

//! The index in a real PostgreSQL: what it answers is what the embedded one answers, whatever the server suffers.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, Kind};
use common::Log;
use rcgen::{CertificateParams, KeyPair};
use standin::postgres::{Cluster, PASSWORD};
use standin::{Boxes, Served, StandIn, TestHub, authority, grow};
use std::time::Duration;

/// Two logs with documents of both, a lie, and what follows from it.
fn logs() -> (Log, Log) {
    let mut a = Log::new(Hardware::Tpm, 1);
    grow(&mut a, 0, 200);
    let lie =
        EntryContent { lamport: 1, ..a.content(Kind::Seal as u16, a.entries[3].content().body.to_vec()) };
    a.append(lie);
    grow(&mut a, 200, 700);
    let mut b = Log::new(Hardware::Tpm, 2);
    grow(&mut b, 150, 450);
    (a, b)
}

/// Everything that can be asked of both hubs is answered alike, byte for byte, but for when things were found.
fn same_answers(one: &TestHub, other: &TestHub) {
    let sample = || (0..700).step_by(53);
    assert_eq!(one.index(sample()), other.index(sample()));
    std::fs::write(one.path("document"), "180 a").unwrap();
    std::fs::write(other.path("document"), "180 a").unwrap();
    for arguments in [
        &["find", "--limit", "100000"][..],
        &["find", "--kind", "attestation", "--limit", "100000"],
        &["find", "--box", "b", "--kind", "key-epoch", "--limit", "3"],
        &["find", "--document", "document"],
        &["timeline", "--document", "document"],
        &["seal", "a", "200"],
        &["seal", "a", "406"],
        &["drift"],
        &["status"],
        &["fsck"],
    ] {
        let (ours, theirs) = (one.run(arguments), other.run(arguments));
        assert_eq!(ours.status.code(), theirs.status.code(), "{arguments:?}");
        let said = (String::from_utf8(ours.stdout).unwrap(), String::from_utf8(theirs.stdout).unwrap());
        assert_eq!(said.0, said.1, "{arguments:?}");
    }
    let statement = |hub: &TestHub| {
        let (code, mut said) = hub.lines(&["statement", "--document", "document", "--at", "2026-11-22"]);
        for finding in said[0]["findings"].as_array_mut().unwrap() {
            let finding = finding.as_object_mut().unwrap();
            finding.remove("seq");
            finding.remove("foundMillis");
        }
        let findings = said[0]["findings"].as_array_mut().unwrap();
        findings.sort_by_key(|line| line.to_string());
        (code, said)
    };
    assert_eq!(statement(one), statement(other));
}

#[test]
fn g1_an_index_in_postgresql_answers_as_the_embedded_one_through_kills_of_both() {
    let mut cluster = Cluster::start();
    let (one, two) = (StandIn::start(), StandIn::start());
    let (a, b) = logs();
    let boxes: &Boxes<'_> = &[("a", &a, &[(&one, false)]), ("b", &b, &[(&two, false)])];
    let serve = |part: u64, of: u64| {
        one.serve(Served::upto(&a, a.size() * part / of));
        two.serve(Served::upto(&b, b.size() * part / of));
    };
    let embedded = TestHub::new(boxes);
    let hub = TestHub::stored(boxes, &cluster.section(None, "north", "patience_seconds = 60\n"));
    let again = hub.run(&["init"]);
    assert!(again.status.code() == Some(2), "{}", String::from_utf8_lossy(&again.stderr));
    // Undisturbed, in the same steps.
    for part in 1..=4 {
        serve(part, 4);
        assert_eq!(embedded.pull().0, hub.pull().0);
    }
    hub.fsck();
    assert!(hub.archive() == embedded.archive(), "the objects differ");
    same_answers(&embedded, &hub);
    // Made again from the archive: the same, with the same numbers of findings.
    let feed = |hub: &TestHub| hub.lines(&["findings"]).1;
    let before = feed(&hub);
    for hub in [&embedded, &hub] {
        let done = hub.run(&["reindex"]);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    }
    assert_eq!(feed(&hub), before);
    same_answers(&embedded, &hub);

    // Kill -9 of the server while the hub pulls: it waits for it, and goes on; and of the hub.
    let hub = TestHub::stored(boxes, &cluster.section(None, "south", "patience_seconds = 60\n"));
    let (mut in_the_middle, mut span) = (0, Duration::from_millis(200));
    for turn in 0..24u64 {
        serve(turn + 1, 24);
        let mut pulling = hub.start(&["pull"]);
        std::thread::sleep(span);
        let running = pulling.try_wait().unwrap().is_none();
        cluster.down();
        if turn % 2 == 1 {
            pulling.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        cluster.up();
        let ended = pulling.wait().unwrap();
        assert!(turn % 2 == 1 || matches!(ended.code(), Some(0 | 1)), "turn {turn}: {ended}");
        in_the_middle += u64::from(running);
        // Machines differ: the next one is killed later if this was too early to matter, sooner if it was too late.
        span = if running { span * 5 / 4 } else { (span / 2).max(Duration::from_millis(10)) };
        if in_the_middle == 6 {
            break;
        }
    }
    assert!(in_the_middle > 1, "only {in_the_middle} pulls were running when the server was killed");
    serve(1, 1);
    let (_, said) = hub.pull();
    assert!(said["a"]["complete"] == true && said["b"]["complete"] == true, "{said:?}");
    hub.fsck();
    assert!(hub.archive() == embedded.archive(), "the objects differ");
    same_answers(&embedded, &hub);

    // A server that stays away: one sentence, no secrets.
    let hub = TestHub::stored(boxes, &cluster.section(None, "west", "patience_seconds = 1\n"));
    cluster.down();
    let failed = hub.run(&["pull"]);
    let said = String::from_utf8([failed.stdout, failed.stderr].concat()).unwrap();
    assert!(failed.status.code() == Some(2) && said.contains("section [postgres]"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn a_schema_has_a_version_one_hub_and_a_server_that_proves_itself() {
    let mut cluster = Cluster::start();
    let one = StandIn::start();
    let mut a = Log::new(Hardware::Tpm, 1);
    grow(&mut a, 0, 60);
    one.serve(Served::of(&a));
    let boxes: &Boxes<'_> = &[("a", &a, &[(&one, false)])];
    let said = |hub: &TestHub, arguments: &[&str]| {
        let done = hub.run(arguments);
        (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    let hub = TestHub::uninitialised(boxes, "", &cluster.section(None, "bulla", "patience_seconds = 5\n"));
    let (code, words) = said(&hub, &["pull"]);
    assert!(code == 2 && words.contains("`bulla-hub init`"), "{words}");
    assert_eq!(said(&hub, &["init"]).0, 0);
    assert_eq!(hub.pull().0, 0);
    let ask = "SELECT count(*), max(version) FROM bulla.version";
    assert_eq!(cluster.sql("hub", ask), "2|2");
    // The views for people.
    assert_eq!(cluster.sql("hub", "SET search_path = bulla; SELECT count(*) FROM seals"), "120");
    // Tables of the version before are brought up to this one; those of a later one are left alone.
    cluster
        .sql("hub", "SET search_path = bulla; DROP VIEW seals, feed; DELETE FROM version WHERE version = 2");
    assert_eq!(said(&hub, &["status"]).0, 0);
    assert_eq!(cluster.sql("hub", ask), "2|2");
    cluster.sql("hub", "INSERT INTO bulla.version VALUES (3)");
    let (code, words) = said(&hub, &["pull"]);
    assert!(code == 2 && words.contains("version 3"), "{words}");
    let (code, words) = said(&hub, &["reindex"]);
    assert!(code == 2 && words.contains("version 3"), "what was found is not thrown away: {words}");
    cluster.sql("hub", "DELETE FROM bulla.version WHERE version = 3");
    // While another hub pulls, this one waits; everything else goes on.
    let mut other = cluster.claim("bulla", 2);
    assert_eq!(said(&hub, &["status"]).0, 0);
    let began = std::time::Instant::now();
    assert_eq!(hub.pull().0, 0);
    assert!(other.wait().unwrap().success() && began.elapsed() > Duration::from_millis(500), "it waited");

    // By TLS: the configured CA, and no other.
    let (ca, issuer) = authority("CA of databases");
    let (stranger, _) = authority("another CA");
    let key = KeyPair::generate().unwrap();
    let names = CertificateParams::new(vec!["localhost".into()]).unwrap();
    let certificate = names.signed_by(&key, &issuer).unwrap();
    cluster.certify(&certificate.pem(), &key.serialize_pem());
    for (pem, host, expected) in [(&ca, "localhost", 0), (&stranger, "localhost", 2), (&ca, "127.0.0.1", 2)] {
        let file = cluster.home().join("ca.pem");
        std::fs::write(&file, pem).unwrap();
        let more = format!("ca = {file:?}\npatience_seconds = 1\n");
        let hub = TestHub::uninitialised(boxes, "", &cluster.section(Some(host), "bulla", &more));
        std::fs::create_dir(hub.path("archive")).unwrap();
        let (code, words) = said(&hub, &["findings"]);
        assert!(if expected == 0 { code == 4 } else { code == expected }, "{host}: {code} {words}");
        assert!(!words.contains(PASSWORD), "{words}");
    }
}

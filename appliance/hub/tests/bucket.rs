//! The archive in a bucket of a real S3 server: the same objects as in a directory, whatever server, line and hub suffer;
//! and nothing in it is ever overwritten.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, Kind};
use bulla_formats::hash::sha256;
use common::Log;
use standin::fault::{Faults, Line};
use standin::weed::{SECRET, Weed};
use standin::{Boxes, Served, StandIn, TestHub, grow};
use std::time::Duration;

fn log(seed: u8, seals: u64) -> Log {
    let mut log = Log::new(Hardware::Tpm, seed);
    grow(&mut log, 0, seals);
    log
}

#[test]
fn g1_a_bucket_holds_what_a_directory_does_whatever_happens_on_the_way() {
    let weed = Weed::start();
    weed.make("archive", &[]);
    let faults = Faults::before(weed.s3);
    let (one, two) = (StandIn::start(), StandIn::start());
    let mut a = log(1, 200);
    let lie =
        EntryContent { lamport: 1, ..a.content(Kind::Seal as u16, a.entries[3].content().body.to_vec()) };
    a.append(lie);
    grow(&mut a, 200, 700);
    let b = log(2, 300);
    let boxes: &Boxes<'_> = &[("a", &a, &[(&one, false)]), ("b", &b, &[(&two, false)])];
    let serve = |part: u64| {
        one.serve(Served::upto(&a, a.size() * part / 4));
        two.serve(Served::upto(&b, b.size() * part / 4));
    };
    serve(4);
    let directory = TestHub::new(boxes);
    assert_eq!(directory.pull().0, 1, "the bad entry is told");

    // Errors, delays, requests and answers cut in the middle, answers lost.
    let section =
        weed.section(faults.port, "archive", "hubs/bad", "timeout_seconds = 2\npatience_seconds = 60\n");
    let hub = TestHub::stored(boxes, &section);
    faults.set(Line::Bad);
    for part in [2, 4] {
        serve(part);
        let (code, said) = hub.pull();
        assert!(said["a"]["complete"] == true && said["b"]["complete"] == true, "{code} {said:?}");
    }
    assert!(faults.suffered() > 10, "{}", faults.suffered());
    faults.set(Line::Good);
    hub.fsck();
    assert!(weed.contents("archive", "hubs/bad") == directory.archive(), "the objects differ");
    let sample = || (0..700).step_by(97);
    assert_eq!(hub.index(sample()), directory.index(sample()));

    // A server that is gone for longer than the hub has patience: one sentence, no secrets, and the hub goes on later.
    let section =
        weed.section(faults.port, "archive", "hubs/down", "timeout_seconds = 1\npatience_seconds = 1\n");
    let hub = TestHub::stored(boxes, &section);
    faults.set(Line::Down);
    let failed = hub.run(&["pull"]);
    let said = String::from_utf8([failed.stdout, failed.stderr].concat()).unwrap();
    assert_eq!(failed.status.code(), Some(2), "{said}");
    assert!(said.contains("check the server of [s3]") && said.contains("503"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
    faults.set(Line::Good);
    assert_eq!(hub.pull().0, 1);
    hub.fsck();

    // Kill -9 while it writes, over a slow line.
    let section = weed.section(faults.port, "archive", "hubs/killed", "");
    let hub = TestHub::stored(boxes, &section);
    faults.set(Line::Slow(5));
    let mut span = Duration::from_millis(600);
    let mut in_the_middle = 0;
    for kill in 0..8u64 {
        serve(kill / 2 + 1);
        let mut pulling = hub.start(&["pull"]);
        std::thread::sleep(span.mul_f64(f64::from(sha256(&[&kill.to_be_bytes()]).0[0]) / 256.0));
        let running = pulling.try_wait().unwrap().is_none();
        in_the_middle += u64::from(running);
        span = if running { span * 5 / 4 } else { span * 2 / 3 };
        pulling.kill().unwrap();
        pulling.wait().unwrap();
    }
    assert!(in_the_middle > 2, "only {in_the_middle} pulls were still running when they were killed");
    faults.set(Line::Good);
    hub.pull();
    hub.fsck();
    assert!(weed.contents("archive", "hubs/killed") == directory.archive(), "the objects differ after kills");
    assert_eq!(hub.index(sample()), directory.index(sample()));

    // What is changed or lost in the bucket is found, and a bent entry is never handed out.
    for name in ["checkpoint", "tile/0/000", "tile/entries/001"] {
        let key = format!("logs/{}/{name}", sha256(&[a.origin.as_str().as_bytes()]));
        let genuine = weed.contents("archive", "hubs/killed")[std::path::Path::new(&key)].clone();
        let (full, mut bent) = (format!("hubs/killed/{key}"), genuine.clone());
        bent[genuine.len() / 2] ^= 1;
        weed.put("archive", &full, bent);
        let (code, lines) = hub.lines(&["fsck", "a"]);
        assert_eq!(code, 1, "{name} bent: {lines:?}");
        weed.delete("archive", &full);
        assert_eq!(hub.lines(&["fsck", "a"]).0, 1, "{name} gone");
        weed.put("archive", &full, genuine);
    }
    hub.fsck();
    // And the index comes out of the bucket alone.
    let before = hub.index(sample());
    assert_eq!(hub.run(&["reindex"]).status.code(), Some(0));
    assert_eq!(hub.index(sample()), before);
}

#[test]
fn a_bucket_over_tls_is_believed_by_the_configured_ca_alone() {
    let weed = Weed::start();
    weed.make("archive", &[]);
    let one = StandIn::start();
    let a = log(1, 300);
    one.serve(Served::upto(&a, 300));
    let boxes: &Boxes<'_> = &[("a", &a, &[(&one, false)])];
    let directory = TestHub::new(boxes);
    assert_eq!(directory.pull().0, 0);
    let hub = TestHub::stored(boxes, &weed.section_over_tls("127.0.0.1", &weed.ca, "tls", ""));
    assert_eq!(hub.pull().0, 0);
    hub.fsck();
    assert!(weed.contents("archive", "tls") == directory.archive(), "the objects differ");

    // Who is not certified by that CA, under that name, is not waited for however patient the hub is.
    let place = hub.path("other-ca.pem");
    std::fs::write(&place, standin::authority("CA of the bank's servers").0).unwrap();
    let patient = "patience_seconds = 86400\ntimeout_seconds = 60\n";
    for (host, ca, why) in [
        ("127.0.0.1", &place, "invalid peer certificate"),
        ("localhost", &weed.ca, "invalid peer certificate"),
    ] {
        let section = weed.section_over_tls(host, ca, "refused", patient);
        let done = TestHub::uninitialised(boxes, "", &section).run(&["init"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(
            done.status.code() == Some(2) && said.contains(why) && said.contains("s3.ca"),
            "{host}: {said}"
        );
        assert!(!said.contains(SECRET), "{said}");
    }
    std::fs::write(&place, "no certificate\n").unwrap();
    let section = weed.section_over_tls("127.0.0.1", &place, "refused", patient);
    let done = TestHub::uninitialised(boxes, "", &section).run(&["init"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && said.contains("holds no CA certificate"), "{said}");
    assert!(
        weed.contents("archive", "refused").is_empty(),
        "something was said to a server that is not believed"
    );

    // Somebody else's server takes the place of ours in the midst: nothing is lost, and the hub goes on with ours.
    let genuine = std::fs::read(&weed.ca).unwrap();
    std::fs::write(&weed.ca, standin::authority("somebody").0).unwrap();
    one.serve(Served::of(&a));
    let failed = hub.run(&["pull"]);
    let said = String::from_utf8([failed.stdout, failed.stderr].concat()).unwrap();
    assert!(failed.status.code() == Some(2) && said.contains("s3.ca"), "{said}");
    std::fs::write(&weed.ca, genuine).unwrap();
    assert_eq!(hub.pull().0, 0);
    hub.fsck();
}

#[test]
fn g2_two_hubs_at_one_bucket_never_overwrite_each_other() {
    let weed = Weed::start();
    weed.make("archive", &[]);
    let (one, two) = (StandIn::start(), StandIn::start());
    let mut a = log(1, 300);
    let mut other = log(1, 300);
    grow(&mut a, 300, 500);
    grow(&mut other, 1_000, 1_300);
    let section = weed.section(weed.s3, "archive", "shared", "");
    let first = TestHub::stored(&[("a", &a, &[(&one, false)])], &section);
    let second = TestHub::stored(&[("a", &a, &[(&two, false)])], &section);
    one.serve(Served::upto(&a, 500));
    two.serve(Served::upto(&a, 300));
    assert_eq!((first.pull().0, second.pull().0), (0, 0));
    // The larger head stays, whoever comes last; unfilled tiles of the smaller one are there for the hub that is behind.
    assert_eq!(first.lines(&["fsck"]).0, 0);
    let before = weed.contents("archive", "shared");
    assert_eq!(first.pull().0, 0);
    assert_eq!(weed.contents("archive", "shared"), before);
    // The box shows the second hub another history: nothing of what the first has archived is touched.
    one.serve(Served::upto(&a, 900));
    assert_eq!(first.pull().0, 0);
    let before = weed.contents("archive", "shared");
    two.serve(Served::of(&other));
    let (code, said) = second.pull();
    assert_ne!(code, 0, "{said:?}");
    assert!(second.kinds().iter().any(|kind| kind == "bad-source"), "{:?}", second.findings());
    let after = weed.contents("archive", "shared");
    for (name, bytes) in &before {
        assert!(after.get(name) == Some(bytes), "{} has changed", name.display());
    }
    assert_eq!(first.lines(&["fsck"]).0, 0);
}

#[test]
fn g2_a_bucket_that_cannot_keep_is_refused_and_a_locked_one_keeps() {
    let weed = Weed::start();
    let faults = Faults::before(weed.s3);
    weed.make("plain", &[]);
    weed.make("locked", &[("x-amz-bucket-object-lock-enabled", "true")]);
    let one = StandIn::start();
    let a = log(1, 300);
    one.serve(Served::upto(&a, 300));
    let boxes: &Boxes<'_> = &[("a", &a, &[(&one, false)])];
    let refused = |section: &str, words: &str| {
        let hub = TestHub::uninitialised(boxes, "", section);
        let done = hub.run(&["init"]);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(2) && said.contains(words), "{words}: {said}");
        assert!(!said.contains(SECRET), "{said}");
    };
    let quick = "patience_seconds = 2\n";
    refused(&weed.section(weed.s3, "nowhere", "x", quick), "nowhere");
    refused(&weed.section(weed.s3, "plain", "x", "object_lock = true\n"), "object lock");
    refused(&weed.section(weed.s3, "locked", "x", "object_lock = true\n"), "no retention");
    faults.set(Line::Forgetful(weed.filer));
    refused(&weed.section(faults.port, "plain", "x", quick), "If-None-Match");
    let section = weed.section(weed.s3, "plain", "x", quick);
    let file = section.lines().find_map(|line| line.strip_prefix("credentials_file = ")).unwrap();
    let file = std::path::PathBuf::from(file.trim_matches('"'));
    let genuine = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, genuine.replace(SECRET, "another-secret")).unwrap();
    refused(&section, "credentials");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    refused(&section, "does not hold credentials");
    std::fs::write(&file, genuine).unwrap();

    // Retention in the server's own hands: every version of every object, also of what a pull takes away again.
    let rule = "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                <ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode>\
                <Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>";
    let (status, said) = weed.ask("PUT", "/locked?object-lock=", &[], rule);
    assert_eq!(status, 200, "{said}");
    let hub = TestHub::stored(boxes, &weed.section(weed.s3, "locked", "hub", "object_lock = true\n"));
    for size in [300, 500, a.size()] {
        one.serve(Served::upto(&a, size));
        assert_eq!(hub.pull().0, 0);
        hub.fsck();
    }
    let key = format!("hub/logs/{}/tile/0/000", sha256(&[a.origin.as_str().as_bytes()]));
    let (_, versions) = weed.ask("GET", "/locked?versions=", &[], "");
    let of = versions.split("<Version>").find(|version| version.contains(&key)).unwrap();
    let version = of.split("<VersionId>").nth(1).unwrap().split('<').next().unwrap();
    let (status, said) = weed.ask("DELETE", &format!("/locked/{key}?versionId={version}"), &[], "");
    assert_eq!(status, 403, "{said}");
}

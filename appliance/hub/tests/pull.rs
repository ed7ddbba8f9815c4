//! The program on logs whose every byte is known: what it archives, what it finds, whom it believes.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::der::Octets32;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, Kind, TreeState};
use bulla_formats::peer::fork::ForkProof;
use bulla_formats::report::Verdict;
use bulla_formats::revocation::{Cause, Revocation, RevocationContent};
use bulla_formats::tile::{TileCoordinate, parse_entries};
use bulla_formats::trust::{FromRoster, TrustFile};
use bulla_formats::verify::verify;
use common::{Log, digest};
use ed25519_dalek::Signer as _;
use standin::{Served, StandIn, TestHub, grow};

fn log(seed: u8, seals: u64) -> Log {
    let mut log = Log::new(Hardware::Tpm, seed);
    grow(&mut log, 0, seals);
    log
}

#[test]
fn logs_are_archived_as_they_grow_and_seals_come_out_again() {
    let (one, two) = (StandIn::start(), StandIn::start_with(true));
    let (mut a, b) = (log(1, 120), log(2, 300));
    let hub = TestHub::new(&[("a", &a, &[(&one, false)]), ("b", &b, &[(&two, false)])]);
    // Sizes below, at and beyond tiles' edges, and one that stays.
    for size in [1, 200, 256, 257, 257] {
        one.serve(Served::upto(&a, size.min(a.size())));
        two.serve(Served::upto(&b, b.size().min(2 * size)));
        let (code, said) = hub.pull();
        assert_eq!(code, 0, "{said:?}");
        assert_eq!(
            (&said["a"]["entries"], &said["a"]["complete"]),
            (&size.min(a.size()).into(), &true.into())
        );
        hub.fsck();
    }
    grow(&mut a, 120, 600);
    one.serve(Served { only_full: true, ..Served::of(&a) });
    two.serve(Served::of(&b));
    assert_eq!(hub.pull().0, 0);
    hub.fsck();
    assert_eq!(
        std::fs::read_to_string(hub.archived(0, "checkpoint")).unwrap(),
        a.head(0, a.size(), false).checkpoint
    );
    let bundle = std::fs::read(hub.archived(0, &TileCoordinate::entries(1, 256).unwrap().path())).unwrap();
    let expected: Vec<&[u8]> = a.entries[256..512].iter().map(|entry| entry.bytes()).collect();
    assert_eq!(parse_entries(&bundle, 256).unwrap(), expected);
    // The same documents were sealed by both logs.
    assert!(hub.kinds().iter().all(|kind| kind == "duplicate"));
    assert_eq!(hub.kinds().len(), 600, "300 numbers of two parts");
    for (name, of, number, part) in [("a", &a, 0, "a"), ("a", &a, 431, "b"), ("b", &b, 299, "a")] {
        let document = digest(format!("{number} {part}").as_bytes());
        let named = format!("sha-256:{}", hex::encode(&document.value));
        let (code, found) = hub.lines(&["find", "--digest", &named]);
        assert_eq!(code, 0);
        let found = found.iter().find(|found| found["origin"] == of.origin.as_str()).unwrap();
        assert_eq!(found["verdict"], "seal-only");
        let (index, out) = (found["index"].as_u64().unwrap(), hub.path("x.seal"));
        let arguments = ["seal", name, &index.to_string(), "--out", out.to_str().unwrap()];
        assert_eq!(hub.run(&arguments).status.code(), Some(0));
        let judged = verify(&std::fs::read(&out).unwrap(), &of.trust(), Some(&document));
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
        let attested = judged.report.facts.iter().any(|fact| fact.name() == "attested");
        assert_eq!(attested, index < of.size() - 150, "{}", judged.report);
    }
    assert_eq!(hub.run(&["find", "--digest", &format!("sha-256:{}", "0".repeat(64))]).status.code(), Some(4));
    for (arguments, code) in [
        (["seal", "a", "0"], 4),
        (["seal", "a", "99999"], 4),
        (["seal", "nobody", "1"], 4),
        (["find", "--digest", "md5:00"], 2),
    ] {
        assert_eq!(hub.run(&arguments).status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_bad_entry_is_kept_aside_and_the_rest_goes_on() {
    let one = StandIn::start();
    let mut a = log(1, 50);
    let lie =
        EntryContent { lamport: 1, ..a.content(Kind::Seal as u16, a.entries[3].content().body.to_vec()) };
    let bad = a.append(lie);
    let nonsense = a.content(Kind::Incident as u16, b"no incident".to_vec());
    let worse = a.append(EntryContent { lamport: 100_000, ..nonsense });
    grow(&mut a, 50, 200);
    one.serve(Served::of(&a));
    let hub = TestHub::new(&[("a", &a, &[(&one, false)])]);
    let (code, said) = hub.pull();
    assert_eq!(code, 1, "{said:?}");
    assert_eq!((&said["a"]["entries"], &said["a"]["complete"]), (&a.size().into(), &true.into()));
    let found = hub.findings();
    assert_eq!(hub.kinds(), ["quarantined"; 2], "{found:?}");
    for (index, words) in [(bad, "Lamport"), (worse, "incident")] {
        let entry = &a.entries[index as usize];
        let subject = format!("{index} {}", entry.leaf_hash());
        let finding = found.iter().find(|finding| finding["subject"] == subject).unwrap();
        assert!(finding["detail"].as_str().unwrap().contains(words), "{finding}");
        let kept = hub.path("archive").join(finding["evidence"][0].as_str().unwrap());
        assert_eq!(std::fs::read(kept).unwrap(), entry.bytes(), "the raw bytes");
        assert_eq!(hub.run(&["seal", "a", &index.to_string()]).status.code(), Some(4));
    }
    let (_, lines) = hub.lines(&["status"]);
    assert_eq!(lines[0]["quarantined"], 2);
    // Told once: a second pull finds nothing new, and the archive with its bad entries is sound.
    assert_eq!(hub.pull().0, 0);
    assert_eq!(hub.lines(&["fsck"]).1[0]["quarantined"], 2);
    hub.fsck();
}

#[test]
fn g9_a_fork_is_proven_kept_and_ends_the_pull() {
    // Two histories under one key: they part at entry 201.
    let (mut a, mut other) = (log(1, 90), log(1, 90));
    grow(&mut a, 90, 300);
    grow(&mut other, 1_000, 1_200);
    // Longer than what is archived, as long, and shorter.
    for (archived, forked) in [(250, 500), (400, 400), (500, 260)] {
        let (one, peer) = (StandIn::start(), StandIn::start());
        one.serve(Served::upto(&a, archived));
        peer.mirror(a.origin.as_str(), Served::upto(&a, 100));
        let hub = TestHub::new(&[("a", &a, &[(&one, false), (&peer, true)])]);
        assert_eq!(hub.pull().0, 0);
        let before = hub.archive();
        if archived < forked {
            one.serve(Served::upto(&other, forked));
        } else {
            // The box shows the hub one history and its neighbour another.
            peer.mirror(a.origin.as_str(), Served::upto(&other, forked));
        }
        let (code, said) = hub.pull();
        assert_eq!(code, 1, "{archived} {forked}: {said:?}");
        assert!(said["a"]["frozen"].is_string(), "{archived} {forked}: {said:?}");
        assert_eq!(hub.kinds(), ["fork"]);
        let finding = &hub.findings()[0];
        let evidence: Vec<Vec<u8>> = finding["evidence"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| std::fs::read(hub.path("archive").join(name.as_str().unwrap())).unwrap())
            .collect();
        let enrolment = bulla_formats::enrolment::Enrolment::decode(&a.enrolment).unwrap();
        let fork = ForkProof::decode(&evidence[0]).unwrap().verify(&enrolment.content.log_key).unwrap();
        assert_eq!(fork.origin(), &a.origin);
        for (of, size) in [(&a, archived), (&other, forked)] {
            let note = of.head(0, size, false).checkpoint.into_bytes();
            assert!(evidence[1..].contains(&note), "both notes are kept");
        }
        // Nothing of the archived log has changed, and nothing is added to it any more.
        one.serve(Served::of(&a));
        assert_eq!(hub.pull().0, 1);
        for (name, bytes) in before {
            if name.ends_with("checkpoint") {
                assert_eq!(hub.archive()[&name], bytes);
            }
        }
        assert_eq!(hub.lines(&["status"]).1[0]["entries"], archived);
        assert_eq!(hub.lines(&["fsck"]).0, 0);
    }
}

#[test]
fn the_log_comes_from_whoever_has_it_and_liars_are_named() {
    let (one, peer) = (StandIn::start(), StandIn::start());
    let a = log(1, 400);
    let hub = TestHub::new(&[("a", &a, &[(&one, false), (&peer, true)])]);
    // The box is down, and its neighbour is behind.
    one.serve(Served { down: true, ..Served::of(&a) });
    peer.mirror(a.origin.as_str(), Served::upto(&a, 300));
    let (code, said) = hub.pull();
    assert_eq!((code, &said["a"]["entries"]), (0, &300.into()), "{said:?}");
    // Both are down.
    peer.mirror(a.origin.as_str(), Served { down: true, ..Served::of(&a) });
    let (code, said) = hub.pull();
    assert_eq!((code, &said["a"]["reached"]), (7, &false.into()), "{said:?}");
    assert!(hub.kinds().is_empty(), "silence is no finding");
    // The neighbour hands out an entry with a flipped bit: nothing of that step is kept, and the box has it right.
    peer.mirror(a.origin.as_str(), Served { bent: Some(700), ..Served::of(&a) });
    let (code, said) = hub.pull();
    assert_eq!((code, &said["a"]["complete"]), (7, &false.into()), "{said:?}");
    assert_eq!(hub.kinds(), ["bad-source"]);
    one.serve(Served::of(&a));
    let (code, said) = hub.pull();
    assert_eq!((code, &said["a"]["entries"]), (0, &a.size().into()), "{said:?}");
    hub.fsck();
    assert_eq!(hub.kinds(), ["bad-source"], "no entry was quarantined for what a source did to it");
}

#[test]
fn entries_that_nobody_has_are_a_gap() {
    let one = StandIn::start();
    let a = log(1, 400);
    one.serve(Served { gone_from: Some(2), ..Served::of(&a) });
    let hub = TestHub::new(&[("a", &a, &[(&one, false)])]);
    let (code, said) = hub.pull();
    assert_eq!((code, &said["a"]["entries"]), (1, &512.into()), "{said:?}");
    assert_eq!(hub.kinds(), ["gap"]);
    assert!(!hub.archived(0, "checkpoint").exists(), "no head is archived without its entries");
    let document = format!("sha-256:{}", hex::encode(digest(b"7 a").value));
    let (code, found) = hub.lines(&["find", "--digest", &document]);
    assert_eq!((code, &found[0]["verdict"]), (0, &serde_json::Value::Null), "known, and not proven yet");
    one.serve(Served::of(&a));
    assert_eq!(hub.pull().0, 0);
    hub.fsck();
}

#[test]
fn strangers_are_not_archived() {
    let one = StandIn::start();
    let (a, b) = (log(1, 5), log(2, 5));
    let hub = TestHub::new(&[("a", &a, &[(&one, false)])]);
    let forged = Served { note: b.head(0, 5, false).checkpoint, ..Served::of(&a) };
    let mut tampered = Served::of(&a);
    tampered.note = tampered.note.replacen(&format!("\n{}\n", a.size()), &format!("\n{}\n", a.size() - 1), 1);
    let empty = Served::default();
    for (what, served) in [
        ("another log", Served::of(&b)),
        ("a forged head", forged),
        ("a changed size", tampered),
        ("nothing", empty),
    ] {
        one.serve(served);
        let (code, said) = hub.pull();
        assert_eq!((code, &said["a"]["reached"]), (7, &false.into()), "{what}: {said:?}");
        assert!(hub.archive().is_empty(), "{what}");
    }
    // A CA that is not the pinned one.
    let stranger = StandIn::start();
    stranger.serve(Served::of(&a));
    let imposter = stranger.with_ca_of(&one);
    hub.configure(&[("a", &a, &[(&imposter, false)])], "");
    assert_eq!(hub.pull().0, 7);
    assert!(hub.archive().is_empty());
}

#[test]
fn an_archive_that_was_tampered_with_is_noticed() {
    let one = StandIn::start();
    let a = log(1, 300);
    one.serve(Served::of(&a));
    let hub = TestHub::new(&[("a", &a, &[(&one, false)])]);
    assert_eq!(hub.pull().0, 0);
    for name in ["checkpoint", "tile/0/000", "tile/0/001", "tile/1/000.p/2", "tile/entries/001"] {
        let path = hub.archived(0, name);
        let genuine = std::fs::read(&path).unwrap();
        let mut bent = genuine.clone();
        let middle = bent.len() / 2;
        bent[middle] ^= 1;
        std::fs::write(&path, &bent).unwrap();
        assert_eq!(hub.run(&["fsck"]).status.code(), Some(1), "{name} bent");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(hub.run(&["fsck"]).status.code(), Some(1), "{name} gone");
        std::fs::write(&path, &genuine).unwrap();
        hub.fsck();
    }
    // A bent entry is never handed out as a seal.
    let path = hub.archived(0, "tile/entries/000");
    let mut bent = std::fs::read(&path).unwrap();
    let end = bent.len() - 10;
    bent[end] ^= 1;
    std::fs::write(&path, &bent).unwrap();
    assert_eq!(hub.run(&["seal", "a", "255"]).status.code(), Some(2));
}

#[test]
fn many_logs_are_examined_at_a_time_and_told_in_order() {
    let logs: Vec<(String, Log, StandIn)> = (1..=6_u8)
        .map(|seed| {
            // The first takes longest.
            let log = log(seed, if seed == 1 { 1_500 } else { 20 * u64::from(seed) });
            let one = StandIn::start();
            one.serve(Served::of(&log));
            (format!("box-{seed}"), log, one)
        })
        .collect();
    let sources: Vec<[(&StandIn, bool); 1]> = logs.iter().map(|(_, _, one)| [(one, false)]).collect();
    let boxes: Vec<_> =
        logs.iter().zip(&sources).map(|((name, log, _), sources)| (&**name, log, &sources[..])).collect();
    for threads in ["threads = 1", "threads = 3", "threads = 64"] {
        let pull = format!("at_once = 2\nstep_bundles = 1\ntimeout_seconds = 10\n{threads}\n");
        let hub = TestHub::with(&boxes, &pull);
        assert_eq!(hub.pull().0, 0);
        let told = |code: i32| {
            let (ended, lines) = hub.lines(&["fsck"]);
            let names: Vec<&str> = lines.iter().map(|line| line["box"].as_str().unwrap()).collect();
            assert_eq!(names, ["box-1", "box-2", "box-3", "box-4", "box-5", "box-6"], "{threads}");
            let sizes: Vec<_> = lines.iter().map(|line| line["entries"].as_u64().unwrap()).collect();
            assert_eq!(ended, code, "{threads}: {lines:?}");
            (sizes, lines)
        };
        let (sizes, _) = told(0);
        assert_eq!(sizes, logs.iter().map(|(_, log, _)| log.size()).collect::<Vec<_>>());
        // One is bent and one has lost its entries: each is told of by its own name, and the others are sound.
        let bundle = TileCoordinate::entries(0, logs[4].1.size() as u16).unwrap();
        std::fs::remove_file(hub.archived(4, &bundle.path())).unwrap();
        let path = hub.archived(1, "checkpoint");
        let mut bent = std::fs::read(&path).unwrap();
        bent[20] ^= 1;
        std::fs::write(&path, &bent).unwrap();
        let (_, lines) = told(1);
        let damaged: Vec<_> = lines.iter().filter(|line| line["damage"] != serde_json::json!([])).collect();
        let damaged: Vec<_> = damaged.iter().map(|line| line["box"].as_str().unwrap()).collect();
        assert_eq!(damaged, ["box-2", "box-5"], "{threads}: {lines:?}");
    }
}

#[test]
fn a_log_that_was_given_up_and_goes_on_is_told() {
    let one = StandIn::start();
    let a = log(1, 100);
    one.serve(Served::of(&a));
    let hub = TestHub::new(&[("a", &a, &[(&one, false)])]);
    assert_eq!(hub.pull().0, 0);
    // What the fleet says later counts for what is archived already.
    for (cause, good, told) in [
        (Cause::Retirement, 50, false),
        (Cause::Compromise, a.size(), false),
        (Cause::Compromise, a.size() - 1, true),
    ] {
        let content = RevocationContent {
            version: 1,
            fleet: common::FLEET.into(),
            origin: a.origin.to_string(),
            cause,
            good: a
                .entries
                .get(good as usize)
                .map_or(TreeState::new(a.size(), a.root()), |entry| entry.content().previous.clone()),
            invalid_from: common::NOW,
            roster: 2,
            roster_hash: Octets32::new([2; 32]),
            issued_at: common::NOW,
        };
        let good = content.good.size;
        let root = ed25519_dalek::SigningKey::from_bytes(&[200; 32]);
        let signature = root.sign(&content.message()).to_bytes().to_vec().into();
        let revocations = vec![Revocation { content, chain: Vec::new(), signature }];
        let trust = TrustFile {
            roster: Some(FromRoster { version: 2, hash: [2; 32], revocations, successions: Vec::new() }),
            ..a.trust()
        };
        std::fs::write(hub.path("trust.json"), trust.encode()).unwrap();
        assert_eq!(hub.pull().0, i32::from(told));
        assert_eq!(hub.kinds(), if told { vec!["revoked-key"] } else { vec![] }, "{cause:?} {good}");
        if told {
            assert_eq!(hub.findings()[0]["subject"], good.to_string());
        }
    }
}

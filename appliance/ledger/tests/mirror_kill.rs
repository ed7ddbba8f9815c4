//! A process that mirrors is killed again and again: whatever it said was durable is there, and what it may have cosigned
//! never goes back (G9, G10).
//!
//! Method: this test runs itself as a child that stores, persists and says so line by line; the parent kills it after a
//! while, looks at what is there, and starts the next one.
#![allow(clippy::unwrap_used)] // a panic in a test is the report

mod common;

use bulla_formats::hash::sha256;
use bulla_ledger::{
    DirShelf, FsckOptions, Kept, MirrorOptions, Mirrors, References, Shelf, TreeOnly, check_mirrors,
};
use common::neighbour::{NEIGHBOUR, Named, Neighbour, mirror_options, names};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const DIRECTORY: &str = "BULLA_TEST_MIRROR_DIRECTORY";
/// The one test here; a child runs it too.
const TEST: &str = "g9_g10_kill_9_loses_nothing_that_was_said_and_takes_nothing_back";
const ENTRIES: u64 = 6_000;
const ROUNDS: u64 = 15;

fn open(path: &Path) -> (Arc<dyn Shelf>, Mirrors) {
    let shelf: Arc<dyn Shelf> = Arc::new(DirShelf::open(path).unwrap());
    let options = MirrorOptions { open_max: 1, ..mirror_options(200) };
    let mirrors = Mirrors::open(Arc::clone(&shelf), options).unwrap();
    (shelf, mirrors)
}

/// The child's part: it ends by being killed, or when there is nothing more.
fn mirror(path: &Path) {
    let say = |what: &str, size: u64| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "said {what} {size}").unwrap();
        out.flush().unwrap();
    };
    let log = Neighbour::new(ENTRIES);
    let (_shelf, mirrors) = open(path);
    let mirror = mirrors.get(NEIGHBOUR).unwrap_or_else(|| mirrors.create(NEIGHBOUR).unwrap());
    for round in 0.. {
        let size = mirror.reader().unwrap().size();
        let to = (size + 1 + round % 9).min(ENTRIES);
        if to == size {
            return;
        }
        let objects = if round % 2 == 0 { log.objects_of(size..to) } else { Vec::new() };
        mirror.store_range(size, log.range(size..to), objects, log.tree(to)).unwrap();
        say("size", to);
        mirror.persist_witness(to, log.tree(to).root).unwrap();
        say("witness", to);
        if round % 4 == 3 {
            log.complete(&mirror);
            say("held", mirror.held().unwrap());
            mirror.persist_mirror(to, log.tree(to).root).unwrap();
            say("mirror", to);
        }
    }
}

#[test]
fn g9_g10_kill_9_loses_nothing_that_was_said_and_takes_nothing_back() {
    if let Some(path) = std::env::var_os(DIRECTORY).map(PathBuf::from) {
        return mirror(&path);
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mirrors");
    let log = Neighbour::new(ENTRIES);
    let said = |lines: &[String], what: &str| {
        let of = |line: &String| line.strip_prefix("said ")?.strip_prefix(what)?.trim().parse::<u64>().ok();
        lines.iter().filter_map(of).max().unwrap_or(0)
    };
    let mut lines: Vec<String> = Vec::new();
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(DIRECTORY, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let listener = std::thread::spawn(move || out.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(120 + round * 53 % 230));
        child.kill().unwrap();
        child.wait().unwrap();
        lines.extend(listener.join().unwrap());

        if said(&lines, "size") == 0 {
            continue;
        }
        let (_shelf, mirrors) = open(&path);
        assert_eq!(mirrors.unreadable(), []);
        let mirror = mirrors.get(NEIGHBOUR).expect("it was there before the kill");
        let reader = mirror.reader().unwrap();
        let size = reader.size();
        assert!(size >= said(&lines, "size"), "round {round}: {size} entries");
        assert_eq!(reader.root(), log.tree(size).root);
        let standing = mirror.standing();
        for (kept, what) in [(standing.witness, "witness"), (standing.mirror, "mirror")] {
            let Kept::Known(tree) = kept else { panic!("round {round}: {kept:?}") };
            assert!(tree.size >= said(&lines, what), "round {round}: {what} is at {}", tree.size);
            assert_eq!(tree, log.tree(tree.size));
        }
        let held = mirror.held().unwrap();
        assert!(held >= said(&lines, "held"), "round {round}: held {held}");
        for entry in &log.entries[..held as usize] {
            for name in names(entry) {
                let object = reader.side(&name).unwrap().expect("what is held is there");
                assert_eq!(sha256(&[&object]), name);
            }
        }
    }
    assert!(said(&lines, "mirror") > 0, "no child got anywhere: {} lines", lines.len());
    let shelf: Arc<dyn Shelf> = Arc::new(DirShelf::open(&path).unwrap());
    let references: Arc<dyn References> = Arc::new(Named(1));
    let judged = check_mirrors(
        &shelf,
        &references,
        FsckOptions::default(),
        &mut |_| Box::new(TreeOnly),
        &mut |_, _, _| {},
    );
    let judged = judged.unwrap();
    assert!(judged.len() == 1 && judged[0].report.is_clean(), "{:?}", judged[0].report.problems);
}

//! The ceremony as people run it: separate processes, each with a directory of its own, killed when it hurts.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

struct Room {
    dir: TempDir,
}

impl Room {
    fn new() -> Self {
        Room { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the program in the room, with `answers` on standard input.
    fn run(&self, answers: &str, arguments: &[&str]) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        // Whoever does not read its answers must not hang the test.
        let _closed = std::io::Write::write_all(&mut child.stdin.take().unwrap(), answers.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulla-fleet"));
        command.current_dir(self.dir.path()).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn people(&self, names: &[&str]) {
        for name in names {
            let made = self.run("", &["person", "--dir", name, "--name", name]);
            assert!(made.status.success(), "{}", err(&made));
        }
    }

    /// Begins a ceremony of two of three.
    fn begin(&self) {
        self.people(&["ada", "bo", "cem"]);
        let begun = self.run(
            "",
            &[
                "init",
                "--dir",
                "fleet",
                "--fleet",
                "bank.example",
                "--threshold",
                "2",
                "--once",
                "--custodian",
                "ada/card",
                "--custodian",
                "bo/card",
                "--custodian",
                "cem/card",
            ],
        );
        assert_eq!(begun.status.code(), Some(3), "{}", err(&begun));
    }

    fn lead(&self) -> Output {
        self.run("", &["init", "--dir", "fleet", "--once"])
    }

    fn attend(&self, name: &str) -> Output {
        self.run("", &["attend", "--dir", name, "--exchange", "fleet/exchange", "--once", "--yes"])
    }

    /// Goes round until the leader ends.
    fn finish(&self, names: &[&str]) {
        for _ in 0..20 {
            for name in names {
                let done = self.attend(name);
                assert!([Some(0), Some(3)].contains(&done.status.code()), "{}", err(&done));
            }
            match self.lead().status.code() {
                Some(0) => return,
                Some(3) => {}
                other => panic!("{other:?}"),
            }
        }
        panic!("the ceremony does not end");
    }

    fn verified(&self) -> String {
        let shown = self.run("", &["transcript", "fleet/transcript", "--trust", "fleet/trust.json"]);
        assert!(shown.status.success(), "{}", err(&shown));
        String::from_utf8(shown.stdout).unwrap()
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_laptop_has_one_custodian_and_says_so() {
    let room = Room::new();
    let made = room.run("", &["init", "--dir", "fleet", "--fleet", "laptop.example"]);
    assert!(made.status.success(), "{}", err(&made));
    let words = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(words.contains("WARNING: ONE CUSTODIAN HOLDS THE WHOLE ROOT"), "{words}");
    assert!(room.verified().contains("ONE CUSTODIAN HOLDS THE WHOLE ROOT"));
    for private in ["fleet", "fleet/custodian", "fleet/fleet.keys", "fleet/custodian/person.key"] {
        assert_eq!(mode(&room.path(private)) & 0o077, 0, "{private}");
    }
    // Again: the same fleet, nothing made anew.
    let trust = fs::read(room.path("fleet/trust.json")).unwrap();
    assert!(room.run("", &["init", "--dir", "fleet"]).status.success());
    assert_eq!(fs::read(room.path("fleet/trust.json")).unwrap(), trust);
    // And not another one over it.
    let other = room.run("", &["init", "--dir", "fleet", "--fleet", "other.example"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(err(&other).contains("holds the plan of a ceremony already"), "{}", err(&other));
}

#[test]
fn two_of_three_carry_a_stick_from_laptop_to_laptop() {
    let room = Room::new();
    room.begin();
    room.finish(&["ada", "bo", "cem"]);
    let minutes = room.verified();
    for words in ["2 of 3 custodians", "1  ada", "2  bo", "3  cem", "bank.example"] {
        assert!(minutes.contains(words), "{minutes}");
    }
    // Nobody's directory but their own holds a secret: the exchange can be published.
    for entry in fs::read_dir(room.path("fleet/exchange")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        for name in ["ada", "bo", "cem"] {
            let key = fs::read(room.path(name).join("person.key")).unwrap();
            // The seed is the 32 bytes after the name.
            let at = key.windows(2).position(|two| two == [0x04, 0x20]).unwrap() + 2;
            let seed = &key[at..at + 32];
            assert!(!bytes.windows(32).any(|window| window == seed), "the seed of {name} is published");
        }
    }
    // Once over, it is over for everybody.
    assert_eq!(room.attend("ada").status.code(), Some(0));
}

#[test]
fn processes_killed_again_and_again_still_make_one_root() {
    let room = Room::new();
    room.begin();
    let attend = |name| {
        let mut command = room.command(&["attend", "--dir", name, "--exchange", "fleet/exchange", "--yes"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let (mut kills, mut pause) = (0, 3);
    while !room.path("fleet/transcript").exists() {
        let mut all: Vec<_> = ["ada", "bo", "cem"].into_iter().map(attend).collect();
        let mut leader = room.command(&["init", "--dir", "fleet"]);
        all.push(leader.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        // Longer each time, so that it ends on a slow machine as well.
        std::thread::sleep(std::time::Duration::from_millis(pause));
        pause += 3;
        for mut process in all {
            let _over = process.kill();
            process.wait().unwrap();
            kills += 1;
        }
        assert!(kills < 4_000, "it does not get anywhere");
    }
    assert!(kills > 4, "nothing was killed in the middle");
    // Whoever was killed amid its last files goes on to the same end.
    room.finish(&["ada", "bo", "cem"]);
    assert!(room.verified().contains("2 of 3 custodians"));
}

#[test]
fn whoever_says_no_is_heard() {
    let room = Room::new();
    room.begin();
    let no = room.run("maybe\nno\n", &["attend", "--dir", "bo", "--exchange", "fleet/exchange", "--once"]);
    assert_eq!(no.status.code(), Some(4));
    let words = String::from_utf8_lossy(&no.stdout).into_owned();
    assert!(words.contains("Please answer yes or no"), "{words}");
    assert!(words.contains("2  bo") && words.contains("<- you"), "{words}");
    assert!(
        !fs::read_dir(room.path("fleet/exchange"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().contains("of-2") })
    );
    // Nobody at the terminal is no agreement.
    let silent = room.run("", &["attend", "--dir", "bo", "--exchange", "fleet/exchange", "--once"]);
    assert_eq!(silent.status.code(), Some(2));
    assert!(err(&silent).contains("nobody answered"), "{}", err(&silent));
    // Bo may think again.
    room.finish(&["ada", "bo", "cem"]);
}

#[test]
fn somebody_who_tampers_is_named_and_the_file_too() {
    let room = Room::new();
    room.begin();
    for name in ["ada", "bo", "cem"] {
        room.attend(name);
    }
    let path = room.path("fleet/exchange/keygen-1-of-2");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&path, &bad).unwrap();
    let refused = room.attend("ada");
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("keygen-1-of-2") && err(&refused).contains("signature"),
        "{}",
        err(&refused)
    );
    // A message that was lost is laid out again as it was.
    fs::remove_file(&path).unwrap();
    room.attend("bo");
    assert_eq!(fs::read(&path).unwrap(), good);
    // A directory, or a pipe that nobody writes to, in place of a message: named, and nobody waits for it.
    let pipe = room.path("fleet/exchange/keygen-9");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let refused = room.attend("ada");
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("keygen-9 is no file"), "{}", err(&refused));
    fs::remove_file(&pipe).unwrap();
    // What is half-written is nobody's.
    fs::write(room.path("fleet/exchange/.keygen-1-of-9.77"), b"half").unwrap();
    room.finish(&["ada", "bo", "cem"]);
}

#[test]
fn minutes_that_do_not_verify_or_fit_are_refused() {
    let room = Room::new();
    for fleet in ["one", "two"] {
        let name = format!("{fleet}.example");
        assert!(room.run("", &["init", "--dir", fleet, "--fleet", &name]).status.success());
    }
    let other = room.run("", &["transcript", "one/transcript", "--trust", "two/trust.json"]);
    assert_eq!(other.status.code(), Some(1));
    assert!(err(&other).contains("its root is not one of the trust file's"), "{}", err(&other));
    let mut bytes = fs::read(room.path("one/transcript")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(room.path("changed"), bytes).unwrap();
    let changed = room.run("", &["transcript", "changed", "--trust", "one/trust.json"]);
    assert_eq!(changed.status.code(), Some(1), "{}", err(&changed));
}

#[test]
fn wrong_usage_says_what_to_do_and_makes_nothing() {
    let room = Room::new();
    room.people(&["ada", "bo"]);
    let cards = ["--custodian", "ada/card", "--custodian", "bo/card"];
    let cases: [(&[&str], i32, &str); 8] = [
        (&["init", "--dir", "f"], 2, "give --fleet"),
        (&["init", "--dir", "f", "--fleet", "Not A Domain"], 2, "fleet"),
        (&[&["init", "--dir", "f", "--fleet", "b.example"], &cards[..]].concat(), 2, "--threshold"),
        (
            &[&["init", "--dir", "f", "--fleet", "b.example", "--threshold", "3"], &cards[..]].concat(),
            2,
            "3 of 2",
        ),
        (&["init", "--dir", "f", "--fleet", "b.example", "--custodian", "ada/person.key"], 1, "person.key"),
        (&["person", "--dir", "ada", "--name", "Ada"], 2, "holds keys already"),
        (&["attend", "--dir", "ada", "--exchange", "nowhere", "--once"], 2, "there is no such directory"),
        (&["init", "--dir", "f", "--fleet", "b.example", "--again"], 2, "leave out --again"),
    ];
    for (arguments, code, words) in cases {
        let ended = room.run("", arguments);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {}", err(&ended));
        assert!(err(&ended).contains(words), "{arguments:?}: {}", err(&ended));
        assert!(!room.path("f/plan").exists(), "{arguments:?}");
    }
    // A stranger does not get in.
    room.people(&["cem"]);
    let begun = room.run(
        "",
        &[&["init", "--dir", "g", "--fleet", "b.example", "--threshold", "2", "--once"], &cards[..]].concat(),
    );
    assert_eq!(begun.status.code(), Some(3), "{}", err(&begun));
    let stranger = room.run("", &["attend", "--dir", "cem", "--exchange", "g/exchange", "--once", "--yes"]);
    assert_eq!(stranger.status.code(), Some(1));
    assert!(err(&stranger).contains("does not list this custodian"), "{}", err(&stranger));
}

#[test]
fn one_directory_is_one_process() {
    let room = Room::new();
    room.begin();
    let mut waiting = room.command(&["attend", "--dir", "ada", "--exchange", "fleet/exchange", "--yes"]);
    let mut waiting = waiting.stdout(Stdio::null()).spawn().unwrap();
    let laid = room.path("fleet/exchange/keygen-1-of-1");
    while !laid.exists() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let second = room.attend("ada");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(err(&second).contains("in use by another process"), "{}", err(&second));
}

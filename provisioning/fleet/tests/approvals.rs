//! Approvals as people give them: separate directories, files that travel, backups that come back.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{EnrolmentContent, Hardware};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::origin::Origin;
use bulla_formats::revocation::Cause;
use bulla_formats::trust::{TrustFile, fingerprint};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const FLEET: &str = "bank.example";

/// A fleet of one custodian and the operators olga, omar and oya, of whom two decide.
struct Room {
    dir: TempDir,
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn ek(number: u8) -> Hash {
    sha256(&[b"endorsement key", &[number]])
}

fn log_key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn origin(number: u8) -> Origin {
    Origin::derive(FLEET, &ek(number), 1).unwrap()
}

impl Room {
    fn new() -> Self {
        let room = Room { dir: tempfile::tempdir().unwrap() };
        for name in ["olga", "omar", "oya"] {
            room.ok(&["person", "--dir", name, "--name", name, "--duty", "operator"]);
        }
        let cards = ["--operator", "olga/card", "--operator", "omar/card", "--operator", "oya/card"];
        room.ok(&[&["init", "--dir", "fleet", "--fleet", FLEET], &cards[..]].concat());
        room
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the program with `answers` on standard input.
    fn run(&self, answers: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulla-fleet"));
        command.current_dir(self.dir.path()).args(arguments).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let _closed = std::io::Write::write_all(&mut child.stdin.take().unwrap(), answers.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let done = self.run("", arguments);
        assert!(done.status.success(), "{arguments:?}: {}", words(&done));
        words(&done)
    }

    /// Ends with `code` and says `part`.
    fn ends(&self, arguments: &[&str], code: i32, part: &str) {
        let done = self.run("", arguments);
        let said = words(&done);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).unwrap()
    }

    fn approve(&self, name: &str) -> String {
        self.ok(&["approve", "--dir", name, "--exchange", "fleet/exchange", "--yes"])
    }

    /// What lies on the desk is approved by olga and oya, and carried out.
    fn carry_out(&self) -> String {
        self.approve("olga");
        self.approve("oya");
        self.ok(&["apply", "--dir", "fleet"])
    }

    fn rows(&self, name: &str, numbers: std::ops::RangeInclusive<u8>) {
        let rows = numbers.map(|number| format!("S-{number};B-100;Z\u{fc}rich {number};{}\r\n", ek(number)));
        let table = format!("serial;model;branch;ek\r\n{}", rows.collect::<String>());
        fs::write(self.path(name), table).unwrap();
    }

    fn import(&self, numbers: std::ops::RangeInclusive<u8>) {
        self.rows("rows.csv", numbers);
        self.ok(&["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "delivery 7"]);
        self.carry_out();
    }

    /// Box `number` as the registrar would hand it over for approval.
    fn enrol(&self, number: u8) {
        let device = p256_point(number);
        let content = EnrolmentContent {
            version: 1,
            fleet: FLEET.into(),
            origin: origin(number).as_str().to_owned(),
            hardware: Hardware::Software,
            ek_spki_sha256: Octets32::new(ek(number).0),
            ek_certificates: Vec::new(),
            attestation_key: device.into(),
            log_key: Octets32::new(log_key(number).verifying_key().to_bytes()),
            enrolled_at: 1_790_000_000_000,
        };
        fs::write(self.path("content"), der::encode(&content)).unwrap();
        self.ok(&["propose", "enrol", "content", "--dir", "fleet", "--reason", "it stands in the branch"]);
        self.carry_out();
    }

    /// A checkpoint of the log of box `number`.
    fn checkpoint(&self, name: &str, number: u8, size: u64) {
        let origin = origin(number);
        let text = checkpoint_text(origin.as_str(), size, &sha256(&[b"a root"]));
        let key = log_key(number);
        let signature = key.sign(text.as_bytes()).to_bytes();
        let line = log_line(origin.as_str(), &key.verifying_key().to_bytes(), &signature);
        fs::write(self.path(name), SignedNote { text, lines: vec![line] }.encode()).unwrap();
    }

    fn state(&self, number: u8) -> String {
        let shown = self.json(&["inventory", "show", &format!("S-{number}"), "--dir", "fleet"]);
        shown["state"].as_str().unwrap().to_owned()
    }

    fn version(&self) -> u64 {
        self.json(&["roster", "show", "--dir", "fleet"])["version"].as_u64().unwrap()
    }
}

/// A point of P-256 that nobody knows the key of: these boxes sign nothing.
fn p256_point(number: u8) -> Vec<u8> {
    // Multiples of the generator, from the tables of NIST.
    let points = [
        "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5",
        "047cf27b188d034f7e8a52380304b51ac3c08969e277f21b35a60b48fc4766997807775510db8ed040293d9ac69f7430dbba7dade63ce982299e04b79d227873d1",
    ];
    hex::decode(points[usize::from(number) % 2]).unwrap()
}

fn copy(from: &Path, to: &Path) {
    let _absent = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

#[test]
fn two_people_import_a_delivery() {
    let room = Room::new();
    room.rows("rows.csv", 1..=3);
    let proposed = room.ok(&["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "delivery 7"]);
    for part in ["IMPORT", "delivery 7", "S-2  B-100  Z\u{fc}rich 2", "2 of olga, omar, oya approve it"] {
        assert!(proposed.contains(part), "{proposed}");
    }
    // Nothing happens by itself, and one is not two.
    room.ends(&["apply", "--dir", "fleet"], 3, "nobody approved it, and 2 are needed");
    let no = room.run("yes\nno\n", &["approve", "--dir", "olga", "--exchange", "fleet/exchange"]);
    assert_eq!(no.status.code(), Some(4), "{}", words(&no));
    assert!(words(&no).contains("for the first time") && words(&no).contains("delivery 7"), "{}", words(&no));
    room.approve("olga");
    assert!(room.approve("olga").contains("has approved"));
    room.ends(&["apply", "--dir", "fleet"], 3, "olga approved it, and 2 are needed");
    room.approve("oya");
    let applied = room.ok(&["apply", "--dir", "fleet"]);
    assert!(applied.contains("approved by") && applied.contains("version 1 of the roster"), "{applied}");
    assert!(room.ok(&["apply", "--dir", "fleet"]).contains("Nothing waits"));
    let listed = room.ok(&["inventory", "list", "--dir", "fleet"]);
    assert!(listed.contains("S-3") && listed.contains("3 expected; version 1"), "{listed}");
    let boxes = room.json(&["inventory", "list", "--dir", "fleet/exchange", "--state", "expected"]);
    assert_eq!(boxes["boxes"].as_array().unwrap().len(), 3);
    assert_eq!(boxes["boxes"][0]["endorsementKey"], format!("ek:sha256:{}", ek(1)));
    // Anybody can replay it from the root.
    let verified = room.ok(&["roster", "verify", "fleet/exchange/roster", "--trust", "fleet/trust.json"]);
    assert!(verified.contains("1 change(s)"), "{verified}");
    let history = room.ok(&["roster", "history", "--dir", "fleet"]);
    assert!(
        history.contains("version 1: import by olga, oya") && history.contains("delivery 7"),
        "{history}"
    );
}

#[test]
fn a_box_comes_leaves_and_is_pardoned_once() {
    let room = Room::new();
    room.import(1..=2);
    room.enrol(1);
    assert_eq!(room.state(1), "enrolled");
    let revoke = ["revoke", "S-1", "--dir", "fleet", "--reason", "stolen", "--cause", "compromise"];
    room.ends(&revoke, 2, "give the last good checkpoint");
    room.checkpoint("good", 1, 700);
    room.checkpoint("other", 2, 700);
    room.ends(&[&revoke[..], &["--good", "other"]].concat(), 1, "of no log of this box");
    let mut bytes = fs::read(room.path("good")).unwrap();
    let at = bytes.windows(3).position(|three| three == b"700").unwrap();
    bytes[at] = b'8';
    fs::write(room.path("forged"), bytes).unwrap();
    room.ends(&[&revoke[..], &["--good", "forged"]].concat(), 1, "forged is refused");
    let proposed = room.ok(&[&revoke[..], &["--good", "good", "--from", "2026-11-01"]].concat());
    assert!(proposed.contains("700 entries") && proposed.contains("2026-11-01"), "{proposed}");
    room.carry_out();
    assert_eq!(room.state(1), "revoked");
    let shown = room.json(&["inventory", "show", "S-1", "--dir", "fleet"]);
    assert_eq!(shown["tombstones"][0]["logs"][0]["size"], 700);
    // By no door.
    room.rows("rows.csv", 1..=1);
    let import = ["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "again"];
    room.ends(&import, 1, "refused (tombstoned)");
    room.ends(
        &["propose", "enrol", "content", "--dir", "fleet", "--reason", "again"],
        1,
        "refused (tombstoned)",
    );
    room.ends(
        &["propose", "release", "S-1", "--dir", "fleet", "--reason", "again"],
        1,
        "refused (wrong-state)",
    );
    // But by a pardon, once.
    room.ok(&["pardon", "S-1", "--dir", "fleet", "--reason", "found in the cellar, sealed"]);
    room.carry_out();
    assert_eq!(room.state(1), "expected");
    room.ends(&["pardon", "S-1", "--dir", "fleet", "--reason", "again"], 1, "refused (wrong-state)");
    // The log that was given up is not begun again.
    room.ends(
        &["propose", "enrol", "content", "--dir", "fleet", "--reason", "again"],
        1,
        "refused (other-origin)",
    );
    let history = room.ok(&["inventory", "show", "S-1", "--dir", "fleet"]);
    for part in ["import by", "enrol by", "revoke by", "pardon by", "found in the cellar, sealed"] {
        assert!(history.contains(part), "{history}");
    }
}

#[test]
fn whoever_verifies_learns_which_logs_are_given_up() {
    let room = Room::new();
    room.import(1..=3);
    room.enrol(1);
    room.enrol(2);
    let export = ["trust", "export", "--dir", "fleet", "--out", "one.json"];
    assert!(room.ok(&export).contains("0 for compromise"));
    let none = TrustFile::decode(&fs::read(room.path("one.json")).unwrap()).unwrap();
    assert_eq!(none.roster.as_ref().map(|from| (from.version, from.revocations.len())), Some((3, 0)));
    room.checkpoint("good", 1, 700);
    let revoke = ["revoke", "S-1", "--dir", "fleet", "--reason", "stolen", "--cause", "compromise"];
    room.ok(&[&revoke[..], &["--good", "good", "--from", "2026-11-01"]].concat());
    room.carry_out();
    let retire = ["revoke", "S-2", "--dir", "fleet", "--reason", "old", "--cause", "replaced"];
    room.ok(&[&retire[..], &["--successor", "S-3"]].concat());
    room.carry_out();
    let said = room.ok(&["trust", "export", "--dir", "fleet", "--trust", "one.json", "--out", "two.json"]);
    assert!(said.contains("1 for compromise, 0 for retirement, 1 for replaced"), "{said}");
    let text = fs::read(room.path("two.json")).unwrap();
    let trust = TrustFile::decode(&text).unwrap();
    assert!(said.contains(&fingerprint(&text)), "{said}");
    let first = &trust.revocation(origin(1).as_str()).unwrap().content;
    assert_eq!((first.cause, first.good.size, first.roster), (Cause::Compromise, 700, 4));
    assert_eq!(first.invalid_from, 1_793_491_200_000);
    assert_eq!(trust.revocation(origin(2).as_str()).unwrap().content.cause, Cause::Replaced);
    // However often it is written, the statements are the same.
    room.ok(&["trust", "export", "--dir", "fleet", "--trust", "two.json", "--out", "again.json"]);
    let again = TrustFile::decode(&fs::read(room.path("again.json")).unwrap()).unwrap();
    assert_eq!(again.roster, trust.roster);
    // A pardon gives no log back.
    room.ok(&["pardon", "S-1", "--dir", "fleet", "--reason", "found"]);
    room.carry_out();
    room.ok(&["trust", "export", "--dir", "fleet", "--out", "three.json"]);
    let pardoned = TrustFile::decode(&fs::read(room.path("three.json")).unwrap()).unwrap();
    assert_eq!(pardoned.revocation(origin(1).as_str()).unwrap().content, *first);
    // Not from an older roster than the file at hand, and not from another fleet's.
    copy(&room.path("fleet"), &room.path("older"));
    fs::remove_file(room.path("older/roster")).unwrap();
    fs::remove_file(room.path("older/exchange/roster")).unwrap();
    room.ok(&["init", "--dir", "older"]);
    let older = ["trust", "export", "--dir", "older", "--trust", "three.json", "--out", "four.json"];
    room.ends(&older, 1, "refused (rolled-back)");
    room.ok(&["init", "--dir", "two", "--fleet", "two.example"]);
    let other = ["trust", "export", "--dir", "two", "--trust", "three.json", "--out", "four.json"];
    room.ends(&other, 1, "refused (other-root)");
    assert!(!room.path("four.json").exists());
}

/// The fleet directory comes back from a backup; the exchange directory and the people's sticks do not.
#[test]
fn an_approval_replayed_after_a_restore_is_refused() {
    let room = Room::new();
    room.import(1..=2);
    copy(&room.path("fleet"), &room.path("backup"));
    room.ok(&["propose", "quarantine", "S-1", "--dir", "fleet", "--reason", "odd noises"]);
    room.approve("omar");
    let applied = room.ok(&["apply", "--dir", "fleet"]);
    let spent = applied[..16].to_owned();
    room.ok(&["propose", "release", "S-1", "--dir", "fleet", "--reason", "it was the fan"]);
    room.carry_out();
    assert_eq!((room.version(), room.state(1).as_str()), (3, "expected"));
    // Without a restore it is used.
    room.ends(&["apply", "--dir", "fleet", &spent], 1, "refused (used)");
    // With one, the exchange directory knows better.
    copy(&room.path("fleet/exchange"), &room.path("stick"));
    copy(&room.path("backup"), &room.path("fleet"));
    assert_eq!(room.version(), 1);
    let replay = ["apply", "--dir", "fleet", "--exchange", "stick", &spent];
    room.ends(&replay, 1, "refused (rolled-back)");
    room.ends(
        &["pardon", "S-1", "--dir", "fleet", "--exchange", "stick", "--reason", "x"],
        1,
        "refused (rolled-back)",
    );
    // Should the exchange directory be restored as well, nobody approves anything on it who has seen more.
    room.ok(&["propose", "quarantine", "S-2", "--dir", "fleet", "--reason", "odd noises"]);
    for person in ["olga", "oya"] {
        room.ends(
            &["approve", "--dir", person, "--exchange", "fleet/exchange", "--yes"],
            1,
            "refused (rolled-back)",
        );
    }
    room.ends(
        &["roster", "verify", "fleet/roster", "--trust", "fleet/trust.json", "--seen", "stick/roster"],
        1,
        "refused (rolled-back)",
    );
    // The newer one is taken up, and never the older one again.
    room.ok(&["roster", "take", "--dir", "fleet", "--from", "stick/roster"]);
    assert_eq!((room.version(), room.state(1).as_str()), (3, "expected"));
    room.ends(&["apply", "--dir", "fleet", "--exchange", "stick", &spent], 1, "refused (used)");
    room.ends(&["roster", "take", "--dir", "fleet", "--from", "backup/roster"], 1, "refused (rolled-back)");
    fs::remove_file(room.path("fleet/roster")).unwrap();
    room.ok(&["roster", "take", "--dir", "fleet", "--from", "stick/roster"]);
    assert_eq!(room.version(), 3);
}

#[test]
fn a_second_history_is_a_fork_and_nobody_approves_on_it() {
    let room = Room::new();
    room.import(1..=2);
    copy(&room.path("fleet"), &room.path("other"));
    room.ok(&["propose", "quarantine", "S-1", "--dir", "fleet", "--reason", "odd noises"]);
    room.approve("olga");
    room.ok(&["apply", "--dir", "fleet"]);
    room.approve("olga");
    room.approve("omar");
    // Somebody with the fleet directory's copy and oya, who has not seen the first.
    room.ok(&["propose", "quarantine", "S-2", "--dir", "other", "--reason", "odd noises"]);
    room.ok(&["approve", "--dir", "oya", "--exchange", "other/exchange", "--yes"]);
    room.ok(&["apply", "--dir", "other"]);
    let olga = ["approve", "--dir", "olga", "--exchange", "other/exchange", "--yes"];
    room.ends(&olga, 1, "refused (forked)");
    room.ends(&["roster", "take", "--dir", "fleet", "--from", "other/roster"], 1, "refused (forked)");
    let apply = ["apply", "--dir", "fleet", "--exchange", "other/exchange"];
    room.ends(&apply, 1, "refused (forked)");
}

#[test]
fn what_was_proposed_beside_it_is_proposed_anew() {
    let room = Room::new();
    room.import(1..=2);
    room.ok(&["propose", "quarantine", "S-1", "--dir", "fleet", "--reason", "one"]);
    room.ok(&["propose", "quarantine", "S-2", "--dir", "fleet", "--reason", "two"]);
    room.approve("olga");
    let applied = room.ok(&["apply", "--dir", "fleet"]);
    assert!(applied.contains("version 2") && applied.contains("(stale)"), "{applied}");
    assert_eq!([room.state(1), room.state(2)], ["quarantined", "expected"]);
    let none = room.approve("olga");
    assert!(none.contains("Nothing waits"), "{none}");
}

#[test]
fn the_custodians_override_and_it_is_on_record() {
    let room = Room::new();
    room.import(1..=1);
    let operators =
        ["propose", "operators", "--dir", "fleet", "--reason", "two sticks burnt", "--remove", "omar"];
    room.ok(&[&operators[..], &["--remove", "oya", "--needed", "1", "--override"]].concat());
    let nothing = room.approve("olga");
    assert!(nothing.contains("Nothing waits"), "{nothing}");
    let asked = room.approve("fleet/custodian");
    assert!(asked.contains("OVERRIDE"), "{asked}");
    let applied = room.ok(&["apply", "--dir", "fleet"]);
    assert!(applied.contains("by OVERRIDE, approved by the only custodian"), "{applied}");
    assert!(room.ok(&["roster", "history", "--dir", "fleet"]).contains("operators (OVERRIDE)"));
    let shown = room.json(&["roster", "show", "--dir", "fleet"]);
    assert_eq!(shown["operators"]["people"].as_array().unwrap().len(), 1);
    room.ends(&["approve", "--dir", "oya", "--exchange", "fleet/exchange"], 1, "does not list this person");
}

#[test]
fn two_keys_of_one_person_are_one_vote() {
    let room = Room::new();
    room.ok(&["person", "--dir", "safe", "--name", "Olga", "--duty", "operator"]);
    room.ok(&[
        "propose",
        "operators",
        "--dir",
        "fleet",
        "--add",
        "safe/card",
        "--reason",
        "a key for the safe",
    ]);
    room.carry_out();
    assert!(room.ok(&["roster", "show", "--dir", "fleet"]).contains("olga (2 keys)"));
    room.rows("rows.csv", 1..=1);
    room.ok(&["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "delivery"]);
    room.approve("olga");
    assert!(room.approve("safe").contains("has approved"));
    room.ends(&["apply", "--dir", "fleet"], 3, "olga approved it, and 2 are needed");
    room.approve("omar");
    room.ok(&["apply", "--dir", "fleet"]);
}

#[test]
fn a_fleet_of_one_decides_alone_and_is_told_so() {
    let room = Room::new();
    room.ok(&["init", "--dir", "laptop", "--fleet", "laptop.example"]);
    room.rows("rows.csv", 1..=1);
    let said = room.ok(&["inventory", "import", "rows.csv", "--dir", "laptop", "--reason", "a trial"]);
    assert!(said.contains("WARNING: ONE PERSON DECIDES ALONE"), "{said}");
    room.ok(&["approve", "--dir", "laptop/custodian", "--exchange", "laptop/exchange", "--yes"]);
    room.ok(&["apply", "--dir", "laptop"]);
    let refused = ["propose", "quarantine", "S-1", "--dir", "laptop", "--reason", "x", "--override"];
    room.ends(&refused, 1, "refused (no-override)");
}

#[test]
fn what_is_no_approval_does_not_count_and_does_not_stop_anybody() {
    let room = Room::new();
    room.rows("rows.csv", 1..=1);
    room.ok(&["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "delivery"]);
    room.approve("olga");
    room.approve("omar");
    let names: Vec<String> = fs::read_dir(room.path("fleet/exchange"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let approvals: Vec<&String> = names.iter().filter(|name| name.starts_with("approval-")).collect();
    assert_eq!(approvals.len(), 2);
    let path = room.path("fleet/exchange").join(approvals[0]);
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let action = names.iter().find_map(|name| name.strip_prefix("action-")).unwrap();
    fs::write(room.path(&format!("fleet/exchange/approval-{action}-of-me")), b"yes").unwrap();
    fs::write(room.path("fleet/exchange/action-0"), b"anything").unwrap();
    room.ends(&["apply", "--dir", "fleet"], 3, "does not count");
    room.approve("oya");
    let applied = room.ok(&["apply", "--dir", "fleet"]);
    assert!(applied.contains("version 1 of the roster") && applied.contains("is no action"), "{applied}");
}

#[test]
fn damaged_rosters_and_wrong_usage_are_named() {
    let room = Room::new();
    room.import(1..=2);
    let good = fs::read(room.path("fleet/roster")).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(room.path("fleet/roster"), &bad).unwrap();
    for command in [
        &["inventory", "list", "--dir", "fleet"][..],
        &["apply", "--dir", "fleet"],
        &["roster", "show", "--dir", "fleet"],
        &["pardon", "S-1", "--dir", "fleet", "--reason", "x"],
    ] {
        room.ends(command, 1, "fleet/roster is refused (bad-signature)");
    }
    fs::write(room.path("fleet/roster"), &good).unwrap();
    room.ok(&["init", "--dir", "two", "--fleet", "two.example"]);
    let cases: [(&[&str], i32, &str); 9] = [
        (&["inventory", "show", "S-9", "--dir", "fleet"], 2, "no box is called"),
        (&["inventory", "list", "--dir", "olga"], 2, "olga/roster"),
        (&["propose", "quarantine", "S-1", "--dir", "fleet", "--reason", " "], 1, "refused (malformed)"),
        (&["propose", "quarantine", "S-1", "--dir", "fleet", "--reason", "x", "--days", "31"], 2, "31"),
        (
            &["propose", "operators", "--dir", "fleet", "--reason", "x", "--remove", "eve"],
            2,
            "there is no operator",
        ),
        (
            &["revoke", "S-1", "--dir", "fleet", "--reason", "x", "--cause", "replaced"],
            2,
            "give --successor exactly",
        ),
        (&["apply", "--dir", "fleet", "0000"], 2, "holds no action 0000"),
        (&["roster", "verify", "fleet/roster", "--trust", "two/trust.json"], 1, "refused (other-root)"),
        (&["roster", "take", "--dir", "two", "--from", "fleet/roster"], 1, "refused (forked)"),
    ];
    for (arguments, code, part) in cases {
        room.ends(arguments, code, part);
    }
    let trust = ["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--trust", "two/trust.json"];
    room.ends(&trust, 1, "refused (other-root)");
    fs::write(room.path("rows.csv"), "serial,model,branch,ek\nS-9,B,Z,00\n").unwrap();
    let import = ["inventory", "import", "rows.csv", "--dir", "fleet", "--reason", "x"];
    room.ends(&import, 1, "rows.csv, line 2");
    assert_eq!(room.version(), 1);
}

//! The program and a box: sealing, resuming, refusing, upgrading.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::body::seal::{Observation, SealBody};
use bulla_formats::entry::Entry;
use bulla_formats::seal_file::SealFile;
use serde_json::Value;
use standin::{Fault, Request, StandIn, TOKEN};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

struct Desk {
    directory: TempDir,
    standin: StandIn,
}

impl Desk {
    fn new() -> Self {
        let desk = Desk { directory: TempDir::new().unwrap(), standin: StandIn::start() };
        desk.write("ca.pem", desk.standin.ca.as_bytes());
        desk.write("token", format!("{TOKEN}\n").as_bytes());
        let trust = desk.standin.state.lock().unwrap().log.trust().encode();
        desk.write("trust.json", trust.as_bytes());
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Exit code and everything printed.
    fn bulla(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulla"));
        let output = command.current_dir(self.directory.path()).args(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    fn with_box(&self, command: &[&str], more: &[&str]) -> (i32, String) {
        let connection = ["--box", &self.standin.url, "--ca", "ca.pem", "--token-file", "token"];
        self.bulla(&[command, &connection, more].concat())
    }

    fn seal(&self, files: &[&str], more: &[&str]) -> (i32, String) {
        self.with_box(&[&["seal"], files].concat(), more)
    }

    fn faults(&self, faults: &[Fault]) {
        self.standin.state.lock().unwrap().faults = faults.iter().copied().collect();
    }

    /// Entries in the box's log; the first is its key epoch.
    fn log_size(&self) -> u64 {
        self.standin.state.lock().unwrap().log.size()
    }

    fn requests<T>(&self, look: impl FnOnce(&[Request]) -> T) -> T {
        look(&self.standin.state.lock().unwrap().requests)
    }

    fn verify(&self, file: &str) -> (i32, String) {
        self.bulla(&["verify", file, "--trust", "trust.json"])
    }
}

#[test]
fn documents_are_sealed_and_a_second_run_skips_them() {
    let desk = Desk::new();
    let files = ["a.pdf", "b.txt", "c \u{fc}.bin"];
    for file in files {
        desk.write(file, format!("document {file}").as_bytes());
    }
    let (code, text) = desk.seal(&files, &["--user", "J\u{fc}rgen", "--meta", "box=3=4", "--jobs", "3"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("3 sealed, 0 skipped, 0 failed"), "{text}");
    for file in files {
        let (code, text) = desk.verify(file);
        assert_eq!(code, 0, "{text}");
    }
    desk.requests(|requests| {
        assert_eq!(requests.len(), 3);
        let odd = requests.iter().find(|request| request.body.ends_with(b".bin")).unwrap();
        assert_eq!(odd.header("bulla-user"), ["J%C3%BCrgen"]);
        assert_eq!(odd.header("bulla-metadata"), ["box=3%3D4", "filename=c%20%C3%BC.bin"]);
        assert_eq!(odd.header("content-type"), ["application/octet-stream"]);
    });
    let (code, text) = desk.seal(&files, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("seals these bytes already") && text.contains("0 sealed, 3 skipped"), "{text}");
    assert_eq!(desk.log_size(), 4);
}

#[test]
fn g3_a_lost_answer_seals_nothing_twice() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    desk.faults(&[Fault::LoseAnswer]);
    let (code, text) = desk.seal(&["a.pdf"], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("trying again") && text.contains("sealed it before, for the same request"),
        "{text}"
    );
    assert_eq!(desk.log_size(), 2);
    // The .seal was lost too: the same command fetches the same seal.
    let first = fs::read(desk.path("a.pdf.seal")).unwrap();
    fs::remove_file(desk.path("a.pdf.seal")).unwrap();
    assert_eq!(desk.seal(&["a.pdf"], &[]).0, 0);
    assert_eq!(desk.log_size(), 2);
    assert_eq!(fs::read(desk.path("a.pdf.seal")).unwrap(), first);
    // Another question about the same bytes is another seal.
    fs::remove_file(desk.path("a.pdf.seal")).unwrap();
    assert_eq!(desk.seal(&["a.pdf"], &["--document-id", "7"]).0, 0);
    assert_eq!(desk.log_size(), 3);
}

#[test]
fn busy_boxes_are_asked_again_but_not_for_ever() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    desk.faults(&[Fault::Busy, Fault::HangUp]);
    let (code, text) = desk.seal(&["a.pdf"], &[]);
    assert_eq!(code, 0, "{text}");
    desk.write("b.pdf", b"another");
    desk.faults(&[Fault::Busy, Fault::Busy, Fault::Busy]);
    let (code, text) = desk.seal(&["b.pdf"], &["--attempts", "2"]);
    assert_eq!(code, 7, "{text}");
    assert!(text.contains("try again later") && text.contains("0 sealed, 0 skipped, 1 failed"), "{text}");
    assert_eq!(desk.standin.state.lock().unwrap().faults.len(), 1, "two attempts were made");
    assert!(!desk.path("b.pdf.seal").exists());
}

#[test]
fn one_bad_file_does_not_stop_the_others() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    desk.write("empty.pdf", b"");
    let (code, text) = desk.seal(&["empty.pdf", "missing.pdf", ".", "a.pdf"], &[]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("1 sealed, 0 skipped, 3 failed"), "{text}");
    for part in ["empty.pdf is empty", "missing.pdf cannot be read", ". is not a file"] {
        assert!(text.contains(part), "{part:?} not in {text}");
    }
    assert_eq!(desk.verify("a.pdf").0, 0);
}

#[test]
fn a_seal_of_other_bytes_is_replaced_only_by_force() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    assert_eq!(desk.seal(&["a.pdf"], &[]).0, 0);
    let first = fs::read(desk.path("a.pdf.seal")).unwrap();
    desk.write("a.pdf", b"changed document");
    let (code, text) = desk.seal(&["a.pdf"], &[]);
    assert!(code == 2 && text.contains("is of other bytes") && text.contains("--force"), "{text}");
    assert_eq!(fs::read(desk.path("a.pdf.seal")).unwrap(), first);
    assert_eq!(desk.seal(&["a.pdf"], &["--force"]).0, 0);
    assert_eq!(desk.verify("a.pdf").0, 0);
    desk.write("a.pdf.seal", b"something else that lies there");
    assert_eq!(desk.seal(&["a.pdf"], &[]).0, 2);
}

#[test]
fn answers_are_not_believed_blindly() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    for (fault, words, expected) in [
        (Fault::OtherSeal, "is of other bytes than this document's", 7),
        (Fault::Portal, "is not what this program understands", 7),
        (Fault::Mismatch, "it changed while it was being sent", 2),
    ] {
        desk.faults(&[fault]);
        let (code, text) = desk.seal(&["a.pdf"], &[]);
        assert_eq!(code, expected, "{text}");
        assert!(text.contains(words), "{text}");
        assert!(!desk.path("a.pdf.seal").exists());
    }
}

#[test]
fn with_a_trust_file_seals_are_verified_on_arrival_and_before_skipping() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    let trusting = ["--trust", "trust.json"];
    assert_eq!(desk.seal(&["a.pdf"], &trusting).0, 0);
    assert!(desk.seal(&["a.pdf"], &trusting).1.contains("1 skipped"));
    let mut seal = SealFile::decode(&fs::read(desk.path("a.pdf.seal")).unwrap()).unwrap();
    seal.heads[0].entry_proof[0][0] ^= 1;
    desk.write("a.pdf.seal", seal.encode().as_bytes());
    let (code, text) = desk.seal(&["a.pdf"], &trusting);
    assert!(code == 2 && text.contains("does not verify (refused"), "{text}");
    let mut trust = desk.standin.state.lock().unwrap().log.trust();
    trust.roots = vec![[7; 32]];
    desk.write("trust.json", trust.encode().as_bytes());
    let (code, text) = desk.seal(&["a.pdf"], &["--trust", "trust.json", "--force"]);
    assert!(code == 7 && text.contains("the trust file does not bear out"), "{text}");
}

#[test]
fn only_the_pinned_ca_and_a_known_token_will_do() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    let (good_ca, other) = (desk.standin.ca.clone(), StandIn::start());
    desk.write("ca.pem", other.ca.as_bytes());
    let (code, text) = desk.seal(&["a.pdf"], &[]);
    assert!(code == 7 && text.contains("--ca is the CA of this very box"), "{text}");
    assert!(!text.contains("trying again"), "a wrong certificate does not get better: {text}");
    desk.write("ca.pem", good_ca.as_bytes());
    desk.write("token", b"bulla_wrong");
    let (code, text) = desk.seal(&["a.pdf"], &[]);
    assert!(code == 7 && text.contains("unauthenticated") && !text.contains("bulla_wrong"), "{text}");
    let nobody =
        ["--box", "https://localhost:1", "--ca", "ca.pem", "--token-file", "token", "--attempts", "1"];
    let (code, text) = desk.bulla(&[&["seal", "a.pdf"][..], &nobody].concat());
    assert!(code == 7 && text.contains("cannot be reached"), "{text}");
}

#[test]
fn a_digest_alone_can_be_sealed_and_says_so() {
    let desk = Desk::new();
    desk.write("a.pdf", b"%PDF document");
    let (code, text) =
        desk.seal(&["a.pdf"], &["--digest-only", "--no-filename", "--user", "x", "--wait", "attested"]);
    assert_eq!(code, 0, "{text}");
    let seal = SealFile::decode(&fs::read(desk.path("a.pdf.seal")).unwrap()).unwrap();
    let body = SealBody::decode(&Entry::decode(&seal.entry).unwrap().content().body).unwrap();
    assert_eq!(body.observation, Observation::DigestClaimed);
    desk.requests(|requests| {
        assert_eq!(requests[0].target, "/v1/seals?wait=attested&deadlineSeconds=10");
        let claim: Value = serde_json::from_slice(&requests[0].body).unwrap();
        assert_eq!((&claim["mediaType"], &claim["user"]), (&"application/pdf".into(), &"x".into()));
        assert_eq!(claim["metadata"], serde_json::json!({}));
    });
    assert!(desk.verify("a.pdf").1.contains("the box never saw the bytes"));
}

#[test]
fn upgrades_add_evidence_and_never_make_a_seal_worse() {
    let desk = Desk::new();
    desk.write("a.pdf", b"document");
    desk.write("b.pdf", b"another");
    assert_eq!(desk.seal(&["a.pdf", "b.pdf"], &[]).0, 0);
    let upgrade = |more: &[&str]| desk.with_box(&["upgrade", "a.pdf.seal"], more);
    let before = fs::read(desk.path("a.pdf.seal")).unwrap();

    desk.standin.state.lock().unwrap().log.seal(b"so that there is a newer checkpoint");
    desk.standin.state.lock().unwrap().damaged = true;
    let (code, text) = upgrade(&["--trust", "trust.json"]);
    assert!(code == 1 && text.contains("makes the seal worse"), "{text}");
    assert_eq!(fs::read(desk.path("a.pdf.seal")).unwrap(), before);

    desk.standin.state.lock().unwrap().damaged = false;
    desk.standin.state.lock().unwrap().attested = true;
    let (code, text) = upgrade(&["--trust", "trust.json"]);
    assert!(code == 0 && text.contains("now attested") && text.contains("(sealed, attested)"), "{text}");
    assert!(desk.verify("a.pdf").1.contains("facts       sealed, attested"));
    let (code, text) = upgrade(&[]);
    assert!(code == 0 && text.contains("nothing newer"), "{text}");

    desk.write("a.pdf.seal", b"{}");
    assert_eq!(upgrade(&[]).0, 1);
    fs::remove_file(desk.path("a.pdf.seal")).unwrap();
    assert_eq!(upgrade(&[]).0, 2);
}

#[test]
fn the_status_is_readable() {
    let desk = Desk::new();
    let (code, text) = desk.with_box(&["status"], &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("condition: sealing\n") && text.contains("(2026-11-21T00:00:00.123Z)"), "{text}");
    let (_, text) = desk.with_box(&["status"], &["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["size"], 1);
}

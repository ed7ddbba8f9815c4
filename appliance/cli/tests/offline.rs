//! The program as an auditor meets it: no network, one document, one seal, one trust file.
//!
//! The evidence comes from the in-memory log of the formats crate; openssl checks what `--extract` writes.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;

use bulla_formats::body::seal::{Assurance, DigestAlgorithm, Field, Opening, SealBody};
use bulla_formats::checked_json;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Entry, Kind};
use bulla_ledger::{DirStore, Ledger, NewEntry, Options};
use common::Log;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

const DOCUMENT: &[u8] = b"%PDF-1.7 a scanned contract";

/// A directory with scan.pdf, scan.pdf.seal and trust.json.
struct Case {
    directory: TempDir,
    log: Log,
    index: u64,
}

impl Case {
    fn new(hardware: Hardware) -> Self {
        let mut log = Log::new(hardware, 3);
        log.seal(b"earlier");
        let index = log.seal(DOCUMENT);
        log.seal(b"later");
        let case = Case { directory: TempDir::new().unwrap(), log, index };
        case.write("scan.pdf", DOCUMENT);
        case.write("scan.pdf.seal", case.seal().as_bytes());
        case.write("trust.json", case.log.trust().encode().as_bytes());
        case
    }

    fn seal(&self) -> String {
        self.log.seal_file(self.index, self.log.hardware == Hardware::Tpm).encode()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        command(self.directory.path(), arguments).output().unwrap()
    }

    /// Exit code and everything printed.
    fn said(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("it exits, it is not killed"), String::from_utf8(text).unwrap())
    }
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulla"));
    command.current_dir(directory).args(arguments);
    command
}

const VERIFY: [&str; 4] = ["verify", "scan.pdf", "--trust", "trust.json"];

#[test]
fn g6_a_genuine_document_verifies_with_what_was_opened() {
    for hardware in [Hardware::Software, Hardware::Tpm] {
        let case = Case::new(hardware);
        let (code, text) = case.said(&VERIFY);
        assert_eq!(code, 0, "{text}");
        for part in [
            "verdict     valid",
            "opened      user: m.keller (authenticated)",
            "opened      branch: Z\u{fc}rich 3 (asserted)",
            "trust file  fingerprint ",
        ] {
            assert!(text.contains(part), "{part:?} not in\n{text}");
        }
        let (_, fingerprint) = case.said(&["trust-fingerprint", "trust.json"]);
        assert!(text.contains(fingerprint.trim()));

        let output = case.run(&["verify", "scan.pdf", "scan.pdf.seal", "--trust", "trust.json", "--json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["verdict"], "valid");
        assert_eq!(report["trustFingerprint"], fingerprint.trim());
        assert_eq!(report["opened"][0]["assurance"], "authenticated");
    }
}

#[test]
fn every_verdict_has_its_exit_code() {
    let case = Case::new(Hardware::Software);
    let seal = case.seal();

    case.write("scan.pdf", b"another scan");
    let (code, text) = case.said(&VERIFY);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("no seal is known for these bytes") && !text.contains("forged"));
    case.write("scan.pdf", DOCUMENT);

    case.write("scan.pdf.seal", seal.replacen("\"origin\": \"b", "\"origin\": \"c", 1).as_bytes());
    assert_eq!(case.said(&VERIFY).0, 1);
    case.write("scan.pdf.seal", b"not json at all");
    assert_eq!(case.said(&VERIFY).0, 1);
    case.write("scan.pdf.seal", seal.replacen("seal/v1", "seal/v9", 1).as_bytes());
    assert_eq!(case.said(&VERIFY).0, 5);

    fs::remove_file(case.path("scan.pdf.seal")).unwrap();
    let (code, text) = case.said(&VERIFY);
    assert_eq!(code, 4);
    assert!(text.contains("no seal known for these bytes: scan.pdf.seal does not exist"), "{text}");
    case.write("scan.pdf.seal", seal.as_bytes());

    let mut trust = case.log.trust();
    trust.policy.accept_software = false;
    case.write("trust.json", trust.encode().as_bytes());
    assert_eq!(case.said(&VERIFY).0, 6);
    case.write("trust.json", b"{}");
    assert_eq!(case.said(&VERIFY).0, 2);
    assert_eq!(case.said(&["verify", "scan.pdf", "--trust", "nowhere"]).0, 2);
    assert_eq!(case.said(&["verify", "scan.pdf"]).0, 2);
    case.write("trust.json", case.log.trust().encode().as_bytes());
    fs::remove_file(case.path("scan.pdf")).unwrap();
    assert_eq!(case.said(&VERIFY).0, 2);
    let (code, help) = case.said(&["--help"]);
    assert_eq!(code, 0);
    assert!(help.contains("Exit codes:") && help.contains("  4  no seal is known"), "{help}");
}

#[test]
fn a_document_sealed_with_another_digest_is_hashed_with_it() {
    let mut case = Case::new(Hardware::Software);
    let mut hasher = bulla_formats::body::seal::DocumentHasher::new(DigestAlgorithm::Sha512);
    hasher.update(DOCUMENT);
    let (body, _) = case.log.seal_body(&hasher.finish());
    case.index = case.log.append(case.log.content(Kind::Seal as u16, der::encode(&body)));
    case.write("scan.pdf.seal", case.seal().as_bytes());
    assert_eq!(case.said(&VERIFY).0, 0);
}

#[test]
fn foreign_text_cannot_steer_the_terminal() {
    let mut case = Case::new(Hardware::Software);
    let opening = Opening {
        field: Field::Metadata,
        assurance: Assurance::Asserted,
        salt: Octets32::new([1; 32]),
        name: "title".into(),
        value: "\u{1b}[2J\nverdict     valid\r\u{202e}".into(),
    };
    let (body, _) = case.log.seal_body(&common::digest(DOCUMENT));
    let body = SealBody { commitments: vec![opening.commitment()], ..body };
    case.index = case.log.append(case.log.content(Kind::Seal as u16, der::encode(&body)));
    let mut seal = case.log.seal_file(case.index, false);
    seal.openings = vec![der::encode(&opening)];
    case.write("scan.pdf.seal", seal.encode().as_bytes());
    let (code, text) = case.said(&VERIFY);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("opened      title: \\u{1b}[2J\\u{a}verdict"), "{text}");
    for arguments in [&VERIFY[..], &["inspect", "scan.pdf.seal"]] {
        let (_, text) = case.said(arguments);
        assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'), "{text:?}");
    }
}

#[test]
fn inspect_shows_everything_and_judges_nothing() {
    let case = Case::new(Hardware::Tpm);
    let (code, text) = case.said(&["inspect", "scan.pdf.seal"]);
    assert_eq!(code, 0, "{text}");
    for part in [
        "NOT VERIFIED",
        "resetCount: 7",
        "residency: tpm-endorsed-ram",
        "m.keller",
        "mediaType: application/pdf",
    ] {
        assert!(text.contains(part), "{part:?} not in\n{text}");
    }
    let json = case.run(&["inspect", "scan.pdf.seal", "--json"]).stdout;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["verified"], false);
    assert_eq!(json["content"]["entry"]["index"], case.index);
    for entry in &case.log.entries {
        case.write("entry.der", entry.bytes());
        let (code, text) = case.said(&["inspect", "entry.der"]);
        assert!(code == 0 && text.contains("leafHash"), "{text}");
    }
    assert!(case.said(&["inspect", "trust.json"]).1.contains("acceptSoftware: yes"));
    for bytes in [&b""[..], b"\xff\xff", b"{", b"[]", b"{\"bulla\": 1}", b"0\x80"] {
        case.write("odd", bytes);
        assert_eq!(case.said(&["inspect", "odd"]).0, 2);
    }
    // A part that cannot be read is shown as it is.
    let mut broken = case.log.seal_file(case.index, true);
    broken.epoch.truncate(10);
    broken.heads[0].checkpoint = "not a note".into();
    case.write("broken.seal", broken.encode().as_bytes());
    let (code, text) = case.said(&["inspect", "broken.seal", "--extract", "broken"]);
    assert!(code == 0 && text.contains("notReadable"), "{text}");
}

/// Runs openssl in `directory` and demands success.
fn openssl(directory: &Path, arguments: &[&str]) {
    let output =
        Command::new("openssl").current_dir(directory).args(arguments).output().expect("openssl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[test]
fn g6_openssl_checks_the_extracted_parts() {
    for hardware in [Hardware::Software, Hardware::Tpm] {
        let case = Case::new(hardware);
        assert_eq!(case.said(&["inspect", "scan.pdf.seal", "--extract", "parts"]).0, 0);
        let parts = case.path("parts");
        let ed25519 = |key: &str, message: &str, signature: &str| {
            let arguments =
                ["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey", key, "-in", message];
            openssl(&parts, &[&arguments[..], &["-sigfile", signature]].concat());
        };
        ed25519("log-key.spki.der", "checkpoint-0.txt", "checkpoint-0.signature");
        ed25519("sealing-key.spki.der", "token.message", "token.signature");
        ed25519("sealing-key.spki.der", "epoch.message", "epoch.signature");
        openssl(&parts, &["asn1parse", "-inform", "DER", "-in", "token.der"]);
        match hardware {
            Hardware::Tpm => openssl(
                &parts,
                &[
                    "dgst",
                    "-sha256",
                    "-keyform",
                    "DER",
                    "-verify",
                    "attestation-key.spki.der",
                    "-signature",
                    "quote-0.signature.der",
                    "quote-0.attest",
                ],
            ),
            Hardware::Software => openssl(
                &parts,
                &[
                    "pkeyutl",
                    "-verify",
                    "-pubin",
                    "-keyform",
                    "DER",
                    "-inkey",
                    "attestation-key.spki.der",
                    "-in",
                    "epoch.qualifying",
                    "-sigfile",
                    "epoch-endorsement.der",
                ],
            ),
        }
        let (code, text) = case.said(&["inspect", "scan.pdf.seal", "--extract", "parts"]);
        assert!(code == 2, "what is there is not overwritten: {text}");
    }
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let case = Case::new(Hardware::Software);
    for arguments in [&VERIFY[..], &["inspect", "scan.pdf.seal"], &["trust-fingerprint", "trust.json"]] {
        let mut child = command(case.directory.path(), arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stderr.is_empty());
    }
}

/// A state directory whose log holds `log`.
fn state(log: &Log) -> TempDir {
    let state = TempDir::new().unwrap();
    let identity = checked_json::with_checksum(&format!("{{\"origin\": \"{}\"}}", log.origin));
    fs::write(state.path().join("identity.json"), identity).unwrap();
    let directory = state.path().join("log-1");
    fs::create_dir(&directory).unwrap();
    let options = Options { reserve_bytes: 0, ..Options::default() };
    let store = Arc::new(DirStore::open(&directory).unwrap());
    let mut ledger = Ledger::create(store, log.origin.as_str(), options).unwrap();
    for entry in &log.entries {
        ledger.append(vec![new_entry(entry)]).unwrap();
    }
    state
}

fn new_entry(entry: &Entry) -> NewEntry {
    let body = (entry.kind() == Some(Kind::Seal)).then(|| SealBody::decode(&entry.content().body).unwrap());
    let digest = body.map(|body| (body.algorithm as u8, body.digest.to_vec()));
    NewEntry { entry: entry.bytes().to_vec(), digest, ..NewEntry::default() }
}

fn fsck(state: &TempDir, more: &[&str]) -> (i32, String) {
    let arguments = [&["fsck", "."], more].concat();
    let output = command(state.path(), &arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn g2_fsck_passes_a_genuine_log_and_names_the_first_bad_entry() {
    let mut log = Log::new(Hardware::Tpm, 3);
    log.seal(b"one");
    log.attestation();
    log.rotate(true);
    log.seal(b"two");
    let trust = TempDir::new().unwrap();
    let path = trust.path().join("trust.json");
    fs::write(&path, log.trust().encode()).unwrap();
    let genuine = state(&log);
    let (code, text) = fsck(&genuine, &["--trust", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("clean:") && text.contains("seal: 2"), "{text}");
    let (code, text) = fsck(&genuine, &["--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &report["clean"], &report["entries"]), (0, &Value::Bool(true), &Value::from(5)));

    // Bytes the ledger takes gladly, signed by a key that was rotated away.
    let mut forger = Log::new(Hardware::Tpm, 3);
    for document in [b"one".as_slice(), b"x", b"y", b"two"] {
        forger.seal(document);
    }
    let forged = forger.seal(b"three");
    log.append_entry(forger.entries[usize::try_from(forged).unwrap()].clone());
    log.seal(b"four");
    let (code, text) = fsck(&state(&log), &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("the first bad entry is 5"), "{text}");
}

#[test]
fn fsck_says_why_it_cannot_read() {
    let log = Log::new(Hardware::Software, 3);
    let state = state(&log);
    let (code, text) = fsck(&state, &["--origin", "bank.example/other/1"]);
    assert!(code == 2 && text.contains("never had the log"), "{text}");
    {
        let _running = DirStore::open(&state.path().join("log-1")).unwrap();
        let (code, text) = fsck(&state, &[]);
        assert!(code == 2 && text.contains("stop the box"), "{text}");
    }
    fs::remove_dir_all(state.path().join("log-1")).unwrap();
    assert_eq!(fsck(&state, &[]).0, 2);
    fs::remove_file(state.path().join("identity.json")).unwrap();
    let (code, text) = fsck(&state, &[]);
    assert!(code == 2 && text.contains("is not the state directory of a box"), "{text}");
}

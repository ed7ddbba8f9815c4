//! `bulla verify` with many documents, as an auditor has them: in directories, some of them in disorder.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;

use bulla_formats::enrolment::Hardware;
use bulla_formats::trust;
use common::Log;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use tempfile::TempDir;

/// A directory of sealed documents a0, a1, ..., and a trust file beside it.
struct Archive {
    directory: TempDir,
    log: Log,
}

impl Archive {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let archive = Archive { log: Log::new(Hardware::Software, 3), directory };
        archive.write("trust.json", archive.log.trust().encode().as_bytes());
        archive
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.directory.path().join(name)).unwrap();
    }

    /// A document of these bytes and the seal beside it.
    fn sealed(&mut self, name: &str, bytes: &[u8]) {
        let index = self.log.seal(bytes);
        self.write(name, bytes);
        self.write(&format!("{name}.seal"), self.log.seal_file(index, false).encode().as_bytes());
    }

    /// Exit code, standard output, standard error.
    fn verify(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_bulla"))
            .current_dir(self.directory.path())
            .args(["verify", "--trust", "trust.json"])
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// Verdict and document of every line of the table between header and summary.
fn lines(text: &str) -> Vec<(&str, &str)> {
    let all: Vec<&str> = text.lines().collect();
    all[1..all.len() - 1]
        .iter()
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.nth(1).unwrap())
        })
        .collect()
}

#[test]
fn every_document_gets_one_line_in_the_order_given() {
    let mut archive = Archive::new();
    for number in 0..30 {
        archive.sealed(&format!("scan-{number}.pdf"), format!("scan {number}").as_bytes());
    }
    let names: Vec<String> = (0..30).rev().map(|number| format!("scan-{number}.pdf")).collect();
    let arguments: Vec<&str> = names.iter().map(String::as_str).collect();
    let (code, text, complaints) = archive.verify(&arguments);
    assert_eq!((code, complaints.as_str()), (0, ""), "{text}");
    let expected: Vec<(&str, &str)> = names.iter().map(|name| ("valid", name.as_str())).collect();
    assert_eq!(lines(&text), expected);
    assert!(text.starts_with("verdict ") && text.contains("  2026-09-21T"), "{text}");
    let fingerprint = trust::fingerprint(archive.log.trust().encode().as_bytes());
    let summary = format!("30 documents: 30 valid; trust file {}, written ", fingerprint);
    assert!(text.lines().last().unwrap().starts_with(&summary), "{text}");
}

/// What is wrong with one says so on its line and leaves the others alone; the exit code is that of the worst.
#[test]
fn the_worst_document_decides_and_none_stops_the_rest() {
    let mut archive = Archive::new();
    for name in ["a.pdf", "b.pdf", "c.pdf", "d.pdf", "e.pdf", "f.pdf", "z.pdf"] {
        archive.sealed(name, name.as_bytes());
    }
    let seal = fs::read_to_string(archive.directory.path().join("b.pdf.seal")).unwrap();
    archive.write("b.pdf.seal", seal.replacen("seal/v1", "seal/v9", 1).as_bytes());
    archive.remove("c.pdf");
    archive.remove("d.pdf.seal");
    archive.write("e.pdf", b"other bytes");
    archive.write("f.pdf.seal", b"{}");
    let steps = [
        (&["a.pdf", "z.pdf"][..], 0),
        (&["a.pdf", "b.pdf", "z.pdf"], 5),
        (&["a.pdf", "b.pdf", "c.pdf", "z.pdf"], 2),
        (&["a.pdf", "b.pdf", "c.pdf", "d.pdf", "z.pdf"], 4),
        (&["a.pdf", "b.pdf", "c.pdf", "d.pdf", "e.pdf", "z.pdf"], 3),
        (&["f.pdf", "a.pdf", "b.pdf", "c.pdf", "d.pdf", "e.pdf", "z.pdf"], 1),
    ];
    for (names, expected) in steps {
        let (code, text, complaints) = archive.verify(names);
        assert_eq!((code, complaints.as_str()), (expected, ""), "{text}");
        let found: Vec<&str> = lines(&text).iter().map(|(_, name)| *name).collect();
        assert_eq!(found, names, "{text}");
    }
    let (_, text, _) = archive.verify(&["."]);
    let verdicts: Vec<&str> = lines(&text).iter().map(|(verdict, _)| *verdict).collect();
    let expected = ["valid", "not-understood", "unreadable", "no-seal", "other-document", "refused", "valid"];
    assert_eq!(verdicts, expected, "the trust file is no document:\n{text}");
    for part in [
        "./d.pdf  no seal known for these bytes: ./d.pdf.seal does not exist",
        "./e.pdf  document: its bytes are not the ones sealed",
        "./f.pdf  seal-file: ",
        "7 documents: 1 no-seal, 1 not-understood, 1 other-document, 1 refused, 1 unreadable, 2 valid;",
    ] {
        assert!(text.contains(part), "{part:?} not in\n{text}");
    }
    assert!(!text.contains("forged"));
}

#[test]
fn directories_are_walked_when_told_and_links_to_them_are_not() {
    let mut archive = Archive::new();
    archive.sealed("files/one.pdf", b"one");
    archive.sealed("files/deep/down/two.pdf", b"two");
    symlink("..", archive.directory.path().join("files/deep/up")).unwrap();
    symlink("one.pdf", archive.directory.path().join("files/link.pdf")).unwrap();
    let (code, text, _) = archive.verify(&["files"]);
    assert_eq!(lines(&text), [("no-seal", "files/link.pdf"), ("valid", "files/one.pdf")]);
    assert_eq!(code, 4);
    archive.remove("files/link.pdf");
    let (code, text, _) = archive.verify(&["files", "--recursive"]);
    assert_eq!(lines(&text), [("valid", "files/deep/down/two.pdf"), ("valid", "files/one.pdf")]);
    assert_eq!(code, 0);
    // Named twice, by document and by seal, and once more through its directory: one line.
    let (_, text, _) = archive.verify(&["files/one.pdf", "files/one.pdf.seal", "files"]);
    assert_eq!(lines(&text), [("valid", "files/one.pdf")]);
    fs::create_dir(archive.directory.path().join("empty")).unwrap();
    let (code, _, complaints) = archive.verify(&["empty"]);
    assert!(code == 2 && complaints.contains("there is no document"), "{complaints}");
}

#[test]
fn seals_may_be_kept_elsewhere() {
    let mut archive = Archive::new();
    for name in ["files/one.pdf", "files/deep/two.pdf"] {
        archive.sealed(name, name.as_bytes());
        let to = name.replacen("files", "files/seals", 1);
        let seal = fs::read(archive.directory.path().join(format!("{name}.seal"))).unwrap();
        archive.write(&format!("{to}.seal"), &seal);
        archive.remove(&format!("{name}.seal"));
    }
    let (code, text, _) = archive.verify(&["files", "--recursive", "--seal-dir", "files/seals"]);
    assert_eq!(lines(&text), [("valid", "files/deep/two.pdf"), ("valid", "files/one.pdf")], "{text}");
    assert_eq!(code, 0);
    let (code, text, _) = archive.verify(&["files/one.pdf", "--seal-dir", "files/seals"]);
    assert_eq!((code, lines(&text)), (0, vec![("valid", "files/one.pdf")]));
    let (code, text, _) = archive.verify(&["files", "--recursive", "--seal-dir", "nowhere"]);
    assert_eq!(
        (code, lines(&text).len()),
        (4, 4),
        "the seals in their directory stand for documents:\n{text}"
    );
}

#[test]
fn json_is_one_line_a_document() {
    let mut archive = Archive::new();
    archive.sealed("a.pdf", b"a");
    archive.sealed("b\u{202e}.pdf", b"b");
    archive.write("c.pdf", b"c");
    let (code, text, complaints) = archive.verify(&["--json", "."]);
    assert_eq!(code, 4);
    assert!(complaints.starts_with("3 documents: 1 no-seal, 2 valid; trust file "), "{complaints}");
    let reports: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |name: &str| reports.iter().map(|report| report[name].clone()).collect::<Vec<Value>>();
    assert_eq!(of("document"), ["./a.pdf", "./b\u{202e}.pdf", "./c.pdf"]);
    assert_eq!(of("verdict"), ["valid", "valid", "no-seal"]);
    assert_eq!(reports[0]["seal"], "./a.pdf.seal");
    assert_eq!(reports[0]["opened"][0]["value"], "m.keller");
    assert_eq!(reports[0]["trustFingerprint"], reports[2]["trustFingerprint"]);
    assert!(reports[0]["checks"].as_array().unwrap().len() > 10, "{}", reports[0]);
    // The table shows the same name without what would steer a terminal.
    let (_, text, _) = archive.verify(&["."]);
    assert!(text.contains("b\\u{202e}.pdf") && !text.contains('\u{202e}'), "{text}");
}

#[test]
fn two_names_are_a_pair_unless_the_second_is_a_document() {
    let mut archive = Archive::new();
    archive.sealed("a.pdf", b"a");
    archive.sealed("b.pdf", b"b");
    archive.write("c.pdf", b"c");
    let (code, text, _) = archive.verify(&["a.pdf", "a.pdf.seal"]);
    assert!(code == 0 && text.contains("verdict     valid: "), "{text}");
    let (code, text, _) = archive.verify(&["a.pdf", "b.pdf"]);
    assert_eq!((code, lines(&text)), (0, vec![("valid", "a.pdf"), ("valid", "b.pdf")]));
    let (code, text, complaints) = archive.verify(&["a.pdf", "c.pdf"]);
    assert!(code == 1 && text.contains("verdict     refused"), "{text}");
    assert!(complaints.contains("c.pdf was taken as the seal of a.pdf; add --each"), "{complaints}");
    let (code, text, _) = archive.verify(&["a.pdf", "c.pdf", "--each"]);
    assert_eq!((code, lines(&text)), (4, vec![("valid", "a.pdf"), ("no-seal", "c.pdf")]));
}

//! `bulla watch` between two boxes of which one takes a document and falls silent.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use serde_json::Value;
use standin::{Fault, StandIn, TOKEN};
use std::fs;
use std::process::Command;
use tempfile::TempDir;

struct Desk {
    directory: TempDir,
    boxes: [StandIn; 2],
}

impl Desk {
    fn new() -> Self {
        let desk = Desk { directory: TempDir::new().unwrap(), boxes: [StandIn::start(), StandIn::start()] };
        for (number, one) in desk.boxes.iter().enumerate() {
            fs::write(desk.directory.path().join(format!("ca-{number}")), &one.ca).unwrap();
        }
        fs::write(desk.directory.path().join("token"), TOKEN).unwrap();
        fs::create_dir(desk.directory.path().join("scans")).unwrap();
        fs::write(desk.directory.path().join("scans/a.txt"), b"words").unwrap();
        desk
    }

    fn watch(&self, more: &[&str]) -> (i32, String) {
        let [first, second] = &self.boxes;
        let output = Command::new(env!("CARGO_BIN_EXE_bulla"))
            .current_dir(self.directory.path())
            .args([
                "watch",
                "scans",
                "--once",
                "--stability",
                "0.2",
                "--state",
                "state",
                "--token-file",
                "token",
            ])
            .args(["--box", &first.url, "--ca", "ca-0", "--box", &second.url, "--ca", "ca-1"])
            .args(more)
            .output()
            .unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    }

    fn faults(&self, number: usize, faults: &[Fault]) {
        self.boxes[number].state.lock().unwrap().faults = faults.iter().copied().collect();
    }

    fn seals(&self, number: usize) -> usize {
        self.boxes[number].state.lock().unwrap().keys()
    }

    fn receipt(&self) -> Value {
        let path = self.directory.path().join("scans/a.txt.receipt.json");
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    /// Metadata of the last document that a box took.
    fn said(&self, number: usize) -> Vec<String> {
        let state = self.boxes[number].state.lock().unwrap();
        let request = state.requests.iter().rfind(|request| !request.body.is_empty()).unwrap();
        request.header("bulla-metadata").into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn g3_a_box_that_lost_its_answer_is_asked_again_before_another_one() {
    let desk = Desk::new();
    desk.faults(0, &[Fault::LoseAnswer, Fault::HangUp]);
    let (code, text) = desk.watch(&["--failover-after", "60"]);
    assert_eq!((code, desk.seals(0), desk.seals(1)), (0, 1, 0), "{text}");
    assert!(
        text.contains("the box had sealed it before") && desk.receipt().get("possibleDuplicates").is_none()
    );
}

#[test]
fn a_seal_that_may_be_the_second_says_so_and_the_truth_is_found_out() {
    for lost in [Fault::LoseAnswer, Fault::HangUp] {
        let desk = Desk::new();
        let away = [&[lost][..], &[Fault::HangUp; 60]].concat();
        desk.faults(0, &away);
        let (code, text) = desk.watch(&["--failover-after", "0.5"]);
        let twice = lost == Fault::LoseAnswer;
        assert_eq!((code, desk.seals(0), desk.seals(1)), (0, usize::from(twice), 1), "{text}");
        let marked = desk.said(1).iter().any(|pair| pair.starts_with("possible-duplicate="));
        assert_eq!(marked, twice, "what never went out whole is no duplicate: {text}");
        assert_eq!(desk.receipt()["box"], desk.boxes[1].url.as_str());
        if !twice {
            continue;
        }
        assert_eq!(desk.receipt()["possibleDuplicates"][0]["box"], desk.boxes[0].url.as_str());
        // The first box is back.
        desk.faults(0, &[]);
        let (code, text) = desk.watch(&[]);
        assert!(code == 0 && text.contains("DOUBLE"), "{text}");
        let receipt = desk.receipt();
        assert_eq!(receipt["possibleDuplicates"], Value::Array(Vec::new()), "{receipt}");
        assert_eq!(receipt["duplicates"][0]["box"], desk.boxes[0].url.as_str(), "{receipt}");
        assert_eq!((desk.seals(0), desk.seals(1)), (1, 1), "nothing is sealed anew");
    }
}

#[test]
fn what_answers_as_no_box_does_gets_no_document_sealed_and_costs_none() {
    let desk = Desk::new();
    desk.faults(0, &[Fault::OtherSeal, Fault::Portal]);
    desk.faults(1, &[Fault::Busy, Fault::Mismatch]);
    let (code, text) = desk.watch(&["--failover-after", "0.1", "--patience", "30"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("of other bytes than this document's"), "{text}");
    assert!(desk.directory.path().join("scans/a.txt.seal").is_file());
}

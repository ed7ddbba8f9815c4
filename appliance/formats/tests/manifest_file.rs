//! Manifest files: a genuine one stands alone, printed or not; nothing else verifies.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::body::manifest::{ManifestBody, ManifestStatement, MeasuredBy, Phase, Wording};
use bulla_formats::body::mode_change::Vouched;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Kind, LocalTime, TreeState};
use bulla_formats::manifest_file::{FiledAnchor, ManifestFile, Place};
use bulla_formats::report::Verdict;
use bulla_formats::verify::verify_manifest;
use common::{Log, NOW};

/// Says something else than it would.
type Lie = fn(&mut ManifestStatement);

fn told(hardware: Hardware, kind: Kind, lie: Lie) -> (Log, ManifestFile) {
    let mut log = Log::new(hardware, 9);
    log.seal(b"one");
    log.seal(b"two");
    let (first, head) = (1, TreeState::new(log.size(), log.root()));
    let time = LocalTime { unix_millis: NOW, uncertainty_millis: Some(20) };
    let mut statement = ManifestStatement {
        version: 1,
        origin: log.origin.to_string(),
        outage: 1,
        sequence: 0,
        phase: Phase::Open,
        drill: false,
        began: time,
        made: time,
        duration_millis: 0,
        measured_by: MeasuredBy::SteadyClock,
        first,
        head,
        entries: Octets32::new([1; 32]),
        seals: 2,
        evidence: None,
        findings: Vec::new(),
        holders: Vec::new(),
        wording: Wording { id: "test/1".into(), sha256: Octets32::new([2; 32]) },
        limits: None,
        event_log: None,
        approvals: Vec::new(),
    };
    let vouched = match hardware {
        Hardware::Tpm => Vouched::Quote(log.quote(&statement.qualifying_data())),
        Hardware::Software => Vouched::None("a box without TPM".into()),
    };
    lie(&mut statement);
    let body = der::encode(&ManifestBody { statement, vouched });
    let index = log.append(log.content(kind as u16, body));
    log.seal(b"three");
    let octets = |path: Vec<Vec<u8>>| -> Vec<Octets32> {
        path.iter().map(|hash| Octets32::new(hash.as_slice().try_into().unwrap())).collect()
    };
    let file = ManifestFile {
        version: 1,
        origin: log.origin.to_string(),
        entry: log.entries[usize::try_from(index).unwrap()].bytes().to_vec().into(),
        epoch: log.entries[0].bytes().to_vec().into(),
        enrolment: log.enrolment.clone().into(),
        place: Some(Place {
            checkpoint: log.checkpoint(log.size(), false),
            entry_proof: octets(log.proof(index, log.size())),
        }),
        anchors: Vec::new(),
    };
    (log, file)
}

fn truth(_: &mut ManifestStatement) {}

/// The verdict and the check that failed.
fn judged(log: &Log, file: &ManifestFile) -> (Verdict, &'static str) {
    let found = verify_manifest(&file.encode(), &log.trust());
    assert_eq!(found.manifest.is_some(), found.failed().is_none_or(|check| check.name == "policy"));
    (found.report.verdict, found.failed().map_or("", |check| check.name))
}

#[test]
fn a_genuine_manifest_stands_alone_printed_or_not() {
    for hardware in [Hardware::Tpm, Hardware::Software] {
        let (log, file) = told(hardware, Kind::Manifest, truth);
        assert_eq!(judged(&log, &file), (Verdict::Valid, ""));
        assert_eq!(judged(&log, &file.printed()), (Verdict::Valid, ""));
        let mut strict = log.trust();
        strict.policy.accept_software = false;
        let found = verify_manifest(&file.encode(), &strict).report.verdict;
        let wanted = if hardware == Hardware::Software { Verdict::PolicyUnmet } else { Verdict::Valid };
        assert_eq!(found, wanted);
        let (other, _) = told(hardware, Kind::Manifest, truth);
        let mut stranger = other.trust();
        stranger.roots = vec![[7; 32]];
        assert_eq!(verify_manifest(&file.encode(), &stranger).report.verdict, Verdict::Refused);
    }
}

#[test]
fn what_is_told_otherwise_is_refused_by_name() {
    let other_log: Lie = |said| said.origin = said.origin.replacen("/1", "/2", 1);
    let itself: Lie = |said| said.head.size += 1;
    let later: Lie = |said| said.seals = 1;
    let (log, file) = told(Hardware::Tpm, Kind::Manifest, other_log);
    assert_eq!(judged(&log, &file), (Verdict::Refused, "manifest"));
    let (log, file) = told(Hardware::Tpm, Kind::Manifest, itself);
    assert_eq!(judged(&log, &file), (Verdict::Refused, "manifest"));
    let (log, file) = told(Hardware::Tpm, Kind::Manifest, later);
    assert_eq!(judged(&log, &file), (Verdict::Refused, "quote"), "the quote is over another statement");
    let (log, file) = told(Hardware::Tpm, Kind::Incident, truth);
    assert_eq!(judged(&log, &file), (Verdict::Refused, "manifest"), "another kind of entry");
    let (log, good) = told(Hardware::Tpm, Kind::Manifest, truth);
    let change = |change: fn(&mut ManifestFile)| {
        let mut file = good.clone();
        change(&mut file);
        judged(&log, &file)
    };
    assert_eq!(change(|file| file.version = 2), (Verdict::Refused, "manifest-file"));
    assert_eq!(change(|file| file.origin.push('1')), (Verdict::Refused, "enrolment"));
    assert_eq!(change(|file| file.entry = file.epoch.clone()), (Verdict::Refused, "manifest"));
    assert_eq!(change(|file| file.epoch = file.entry.clone()), (Verdict::Refused, "epoch-entry"));
    assert_eq!(change(|file| file.enrolment = vec![0x30, 0].into()), (Verdict::Refused, "enrolment"));
    let cut = |file: &mut ManifestFile| file.place.as_mut().unwrap().entry_proof.truncate(1);
    assert_eq!(change(cut), (Verdict::Refused, "inclusion"));
    let unsigned = |file: &mut ManifestFile| file.place.as_mut().unwrap().checkpoint.push('x');
    assert_eq!(change(unsigned), (Verdict::Refused, "inclusion"));
    let anchor = |file: &mut ManifestFile| {
        file.anchors = vec![FiledAnchor { body: vec![0x30, 0].into(), entry_proof: Vec::new() }];
    };
    assert_eq!(change(anchor), (Verdict::Refused, "anchor"));
    let five = |file: &mut ManifestFile| {
        let anchor = FiledAnchor { body: vec![0x30, 0].into(), entry_proof: Vec::new() };
        file.anchors = vec![anchor; 5];
    };
    assert_eq!(change(five), (Verdict::Refused, "manifest-file"));
    let mut longer = good.encode();
    longer.push(0);
    assert_eq!(verify_manifest(&longer, &log.trust()).report.verdict, Verdict::Refused);
}

#[test]
fn no_other_byte_of_a_printed_manifest_verifies() {
    let (log, file) = told(Hardware::Software, Kind::Manifest, truth);
    let (good, trust) = (file.printed().encode(), log.trust());
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let found = verify_manifest(&bytes, &trust);
        assert_ne!(found.report.verdict, Verdict::Valid, "byte {at}:\n{}", found.report);
    }
}

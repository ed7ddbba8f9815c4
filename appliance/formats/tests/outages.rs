//! The audit of modes and outages: a log that tells a whole outage passes, and each lie in it is named at its entry.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use bulla_formats::audit::{AuditError, LogAuditor, OutageError};
use bulla_formats::body::manifest::{ManifestBody, ManifestStatement, MeasuredBy, Phase, Wording};
use bulla_formats::body::mode_change::{ModeChangeBody, ModeStatement, OutageState, Vouched};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, Kind, LocalTime, Mode, TreeState};
use bulla_formats::hash::Hash;
use bulla_formats::merkle::Frontier;
use common::{Log, NOW, digest};

/// What is told otherwise than it was: the number of a mode change, a manifest or a seal, and the lie.
#[derive(Clone, Copy)]
enum Lie {
    None,
    Change(usize, fn(&Log, &mut ModeStatement)),
    ChangeVouched(usize, fn(&Log, &mut Vouched)),
    ChangeOwnMode(usize, Mode),
    Manifest(usize, fn(&Log, &mut ManifestStatement)),
    ManifestVouched(usize, fn(&Log, &mut Vouched)),
    ManifestTwice(usize),
    Seal(usize, Mode),
}

/// A log being told.
struct Teller {
    log: Log,
    lie: Lie,
    mode: Mode,
    outages: u64,
    /// First entry, manifests so far, the end, the closing manifest.
    outage: OutageState,
    changes: usize,
    manifests: usize,
    seals: usize,
    /// Index of the entry that lies.
    lied: Option<u64>,
}

const NO_OUTAGE: OutageState =
    OutageState { first: None, elapsed_millis: 0, manifests: 0, last: None, closing: None };

fn tree(log: &Log, first: u64, size: u64) -> Hash {
    let mut tree = Frontier::new();
    for entry in &log.entries[usize::try_from(first).unwrap()..usize::try_from(size).unwrap()] {
        tree.append(entry.leaf_hash());
    }
    tree.root()
}

fn head(log: &Log, size: u64) -> TreeState {
    TreeState::new(size, tree(log, 0, size))
}

impl Teller {
    fn vouched(&self, qualifying: &Hash) -> Vouched {
        match self.log.hardware {
            Hardware::Tpm => Vouched::Quote(self.log.quote(qualifying)),
            Hardware::Software => Vouched::None("a box without TPM".into()),
        }
    }

    fn append(&mut self, mode: Mode, kind: Kind, body: Vec<u8>, lies: bool) -> u64 {
        let content = EntryContent { mode, ..self.log.content(kind as u16, body) };
        let index = self.log.append(content);
        self.lied = self.lied.or(lies.then_some(index));
        index
    }

    fn change(&mut self, to: Mode, below: Mode) {
        let at = self.changes;
        self.changes += 1;
        let index = self.log.size();
        let begins = below == Mode::Emergency && self.mode == Mode::Online;
        if begins {
            (self.outages, self.outage) = (self.outages + 1, NO_OUTAGE);
        }
        let of_outage = matches!(below, Mode::Emergency | Mode::Reconciling);
        let mut statement = ModeStatement {
            version: 1,
            origin: self.log.origin.to_string(),
            from: self.mode,
            to,
            below,
            outages: self.outages,
            outage: of_outage.then(|| self.outage.clone()),
            locked: to == Mode::Safe,
            limits: Vec::new(),
            head: head(&self.log, index),
            findings: Vec::new(),
            reason: String::new(),
        };
        let mut lies = false;
        if let Lie::Change(number, lie) = self.lie
            && number == at
        {
            lie(&self.log, &mut statement);
            lies = true;
        }
        let mut vouched = self.vouched(&statement.qualifying_data());
        let mut mode = statement.to;
        match self.lie {
            Lie::ChangeVouched(number, lie) if number == at => {
                lie(&self.log, &mut vouched);
                lies = true;
            }
            Lie::ChangeOwnMode(number, own) if number == at => (mode, lies) = (own, true),
            _ => {}
        }
        let body = der::encode(&ModeChangeBody { statement, vouched });
        self.append(mode, Kind::ModeChange, body, lies);
        self.mode = to;
        if begins {
            self.outage.first = Some(index);
        }
        if below == Mode::Reconciling {
            self.outage.last = self.outage.last.or(Some(index - 1));
        }
    }

    fn manifest(&mut self, phase: Phase) {
        let at = self.manifests;
        self.manifests += 1;
        let first = self.outage.first.unwrap();
        let size = if phase == Phase::Close { self.outage.last.unwrap() + 1 } else { self.log.size() };
        let covered = usize::try_from(first).unwrap()..usize::try_from(size).unwrap();
        let seals = self.log.entries[covered].iter().filter(|entry| entry.kind() == Some(Kind::Seal)).count();
        let time = LocalTime { unix_millis: NOW, uncertainty_millis: None };
        let mut statement = ManifestStatement {
            version: 1,
            origin: self.log.origin.to_string(),
            outage: self.outages,
            sequence: self.outage.manifests,
            phase,
            drill: false,
            began: time,
            made: time,
            duration_millis: 1,
            measured_by: MeasuredBy::SteadyClock,
            first,
            head: head(&self.log, size),
            entries: Octets32::new(tree(&self.log, first, size).0),
            seals: seals as u64,
            evidence: None,
            findings: Vec::new(),
            holders: Vec::new(),
            wording: Wording { id: "wording/1".into(), sha256: Octets32::new([6; 32]) },
            limits: None,
            event_log: None,
            approvals: Vec::new(),
        };
        let mut lies = false;
        if let Lie::Manifest(number, lie) = self.lie
            && number == at
        {
            lie(&self.log, &mut statement);
            lies = true;
        }
        let mut vouched = self.vouched(&statement.qualifying_data());
        if let Lie::ManifestVouched(number, lie) = self.lie
            && number == at
        {
            lie(&self.log, &mut vouched);
            lies = true;
        }
        let body = der::encode(&ManifestBody { statement, vouched });
        let index = self.append(self.mode, Kind::Manifest, body.clone(), lies);
        if matches!(self.lie, Lie::ManifestTwice(number) if number == at) {
            self.append(self.mode, Kind::Manifest, body, true);
        }
        if phase == Phase::Close {
            self.outage.closing = Some(index);
        } else {
            self.outage.manifests += 1;
        }
    }

    /// So many seals in one batch.
    fn seal(&mut self, count: usize) {
        let before = TreeState::new(self.log.size(), self.log.root());
        for _ in 0..count {
            let (mut mode, mut lies) = (self.mode, false);
            if let Lie::Seal(number, other) = self.lie
                && number == self.seals
            {
                (mode, lies) = (other, true);
            }
            self.seals += 1;
            let body = der::encode(&self.log.seal_body(&digest(b"a document")).0);
            let content = self.log.content(Kind::Seal as u16, body);
            let index = self.log.append(EntryContent { mode, previous: before.clone(), ..content });
            self.lied = self.lied.or(lies.then_some(index));
        }
    }
}

/// One outage from beginning to end, and the beginning of another. What lies, and where.
fn tell(hardware: Hardware, lie: Lie) -> (Log, Option<u64>) {
    let mut told = Teller {
        log: Log::new(hardware, 5),
        lie,
        mode: Mode::Degraded,
        outages: 0,
        outage: NO_OUTAGE,
        changes: 0,
        manifests: 0,
        seals: 0,
        lied: None,
    };
    told.change(Mode::Online, Mode::Online);
    told.seal(1);
    told.change(Mode::Emergency, Mode::Emergency);
    told.manifest(Phase::Open);
    told.seal(2);
    told.manifest(Phase::Refresh);
    told.change(Mode::Reconciling, Mode::Reconciling);
    told.seal(1);
    told.manifest(Phase::Close);
    // A lock while the closing manifest waits for its anchor.
    told.change(Mode::Safe, Mode::Reconciling);
    told.change(Mode::Reconciling, Mode::Reconciling);
    told.change(Mode::Online, Mode::Online);
    told.seal(1);
    told.change(Mode::Emergency, Mode::Emergency);
    told.manifest(Phase::Open);
    told.seal(1);
    (told.log, told.lied)
}

fn audit(log: &Log) -> Vec<(u64, AuditError)> {
    let mut auditor = LogAuditor::new(log.origin.clone(), Some(&log.trust()));
    let judged = (0u64..).zip(&log.entries);
    let faults: Vec<_> =
        judged.filter_map(|(index, entry)| Some((index, auditor.entry(entry.bytes()).err()?))).collect();
    let entries: Vec<Vec<u8>> = log.entries.iter().map(|entry| entry.bytes().to_vec()).collect();
    assert_eq!(common::audit_in_pieces(&log.origin, &log.trust(), &entries), faults);
    faults
}

/// The first fault, which must be at the entry that lies.
fn first_fault(hardware: Hardware, lie: Lie) -> OutageError {
    let (log, lied) = tell(hardware, lie);
    let faults = audit(&log);
    let (index, fault) = faults.first().expect("the lie goes unnoticed").clone();
    assert_eq!(Some(index), lied, "{fault}");
    match fault {
        AuditError::Outage(fault) => fault,
        other => panic!("{other}"),
    }
}

fn named(lie: Lie, words: &str) {
    for hardware in [Hardware::Software, Hardware::Tpm] {
        let fault = first_fault(hardware, lie).to_string();
        assert!(fault.contains(words), "{words:?} is not in {fault:?}");
    }
}

#[test]
fn a_log_with_a_whole_outage_passes() {
    for hardware in [Hardware::Software, Hardware::Tpm] {
        let (log, lied) = tell(hardware, Lie::None);
        assert_eq!((audit(&log), lied), (Vec::new(), None));
    }
}

#[test]
fn an_entry_in_another_mode_than_the_log_is_named() {
    for (seal, expected) in [(0, Mode::Online), (1, Mode::Emergency), (3, Mode::Reconciling)] {
        let fault = first_fault(Hardware::Software, Lie::Seal(seal, Mode::Degraded));
        assert_eq!(fault, OutageError::Mode { found: Mode::Degraded, expected });
    }
}

#[test]
fn mode_changes_that_lie_are_named() {
    const MODES: &str = "does not begin in the mode in force, or its own mode is not the new one";
    named(Lie::Change(1, |_, said| said.from = Mode::Degraded), MODES);
    named(Lie::ChangeOwnMode(1, Mode::Online), MODES);
    const ELSEWHERE: &str = "of another log, or of a tree that was not yet there";
    named(Lie::Change(1, |_, said| said.origin.push('0')), ELSEWHERE);
    named(Lie::Change(1, |log, said| said.head.size = log.size() + 1), ELSEWHERE);
    const NUMBER: &str = "neither the one under way nor the next";
    named(Lie::Change(1, |_, said| said.outages = 2), NUMBER);
    named(Lie::Change(2, |_, said| said.outages = 2), NUMBER);
    named(Lie::Change(6, |_, said| said.outages = 1), NUMBER);
    let online: fn(&Log, &mut ModeStatement) =
        |_, said| (said.to, said.below, said.outage) = (Mode::Online, Mode::Online, None);
    named(Lie::Change(2, online), "online before the outage has its closing manifest");
}

#[test]
fn what_a_mode_change_says_of_its_outage_is_what_the_log_says() {
    fn state(said: &mut ModeStatement) -> &mut OutageState {
        said.outage.as_mut().unwrap()
    }
    type Told = fn(&Log, &mut ModeStatement);
    let lies: [(usize, Told); 10] = [
        (1, |_, said| state(said).first = Some(1)),
        (1, |_, said| state(said).manifests = 1),
        (2, |_, said| state(said).first = None),
        (2, |_, said| state(said).first = Some(2)),
        (2, |_, said| state(said).manifests = 1),
        (2, |_, said| state(said).last = Some(7)),
        (3, |_, said| state(said).manifests = 3),
        (3, |_, said| state(said).last = None),
        (3, |_, said| state(said).closing = None),
        (4, |_, said| state(said).closing = Some(8)),
    ];
    for (number, lie) in lies {
        named(Lie::Change(number, lie), "what it says of the outage is not what the log says");
    }
}

#[test]
fn manifests_that_lie_are_named() {
    const HEAD: &str = "no state this log was in between two batches";
    named(Lie::Manifest(1, |_, said| said.origin.push('0')), HEAD);
    named(Lie::Manifest(1, |_, said| said.head.root = Octets32::new([9; 32])), HEAD);
    // Between the two seals of one batch.
    named(
        Lie::Manifest(1, |log, said| {
            said.head = head(log, said.head.size - 1);
            said.entries = Octets32::new(tree(log, said.first, said.head.size).0);
            said.seals -= 1;
        }),
        HEAD,
    );
    const OTHER: &str = "another outage than the one under way";
    named(Lie::Manifest(1, |_, said| said.outage = 2), OTHER);
    named(Lie::Manifest(1, |_, said| said.first -= 1), OTHER);
    named(Lie::Manifest(1, |_, said| said.drill = true), OTHER);
    const NEXT: &str = "not the next of its outage";
    named(Lie::Manifest(1, |_, said| said.sequence = 2), NEXT);
    named(Lie::Manifest(1, |_, said| (said.phase, said.sequence) = (Phase::Open, 0)), NEXT);
    named(Lie::Manifest(2, |_, said| said.sequence = 1), NEXT);
    const COVERED: &str = "root or number of seals is not that of the outage's entries";
    named(Lie::Manifest(1, |_, said| said.entries = Octets32::new([9; 32])), COVERED);
    named(Lie::Manifest(2, |_, said| said.seals -= 1), COVERED);
    named(Lie::ManifestTwice(2), "has not begun, or is closed already");
}

#[test]
fn a_closing_manifest_covers_its_outage_and_no_more() {
    const END: &str = "does not go to the end of its outage, or there is none yet";
    named(Lie::Manifest(1, |_, said| said.phase = Phase::Close), END);
    named(
        Lie::Manifest(2, |log, said| {
            said.head = head(log, said.head.size - 1);
            said.entries = Octets32::new(tree(log, said.first, said.head.size).0);
        }),
        END,
    );
    // What came after the end is no part of it, whatever the manifest calls itself.
    let beyond: fn(&Log, &mut ManifestStatement) = |log, said| {
        said.head = head(log, log.size());
        said.entries = Octets32::new(tree(log, said.first, log.size()).0);
        said.seals += 1;
    };
    named(Lie::Manifest(2, beyond), END);
}

#[test]
fn quotes_that_do_not_hold_are_named() {
    let over_another: fn(&Log, &mut Vouched) =
        |log, vouched| *vouched = Vouched::Quote(log.quote(&Hash([1; 32])));
    let other_values: fn(&Log, &mut Vouched) = |_, vouched| {
        let Vouched::Quote(quote) = vouched else { panic!("a box with TPM has a quote") };
        quote.pcrs[0].value = Octets32::new([1; 32]);
    };
    for lie in [Lie::ChangeVouched(1, over_another), Lie::ManifestVouched(2, over_another)] {
        assert!(matches!(first_fault(Hardware::Tpm, lie), OutageError::Quote(_)));
        let fault = first_fault(Hardware::Software, lie);
        assert_eq!(fault, OutageError::Story("a box without TPM has no quote"));
    }
    for lie in [Lie::ChangeVouched(1, other_values), Lie::ManifestVouched(1, other_values)] {
        assert!(matches!(first_fault(Hardware::Tpm, lie), OutageError::Quote(_)));
    }
}

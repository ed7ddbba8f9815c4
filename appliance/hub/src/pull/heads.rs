//! Heads: which one a pull goes for, and whether two of them can both be true.
//!
//! Every source is asked for its head, every time: a box that shows its neighbours another history than the hub is caught
//! by the comparison.
//! Refuses to do: call anything a fork that is not proven by the log key's own signatures.

use super::{Pull, Target};
use crate::finding::{Finding, Kind};
use crate::hub::{HubError, now_millis};
use crate::source::Source;
use crate::tiles::Tiles;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::enrolment::{Enrolment, VerifiedEnrolment};
use bulla_formats::entry::Entry;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::merkle::{self, consistency_proof, verify_consistency};
use bulla_formats::note::{Checkpoint, SignedNote, parse_checkpoint_text};
use bulla_formats::peer::fork::ForkProof;
use bulla_formats::tile::width_at;

impl Pull<'_> {
    /// The archived head.
    pub(super) fn head(&self) -> Result<Option<(SignedNote, Checkpoint)>, HubError> {
        let (Some(text), Some(enrolment)) = (&self.state.head, self.known_enrolment()?) else {
            return Ok(None);
        };
        self.open(text, &enrolment).map(Some).map_err(HubError::Contradiction)
    }

    /// Makes the newest head of the index the archive's.
    pub(super) fn put_head(&self, text: &str) -> Result<(), HubError> {
        let Some((_, head)) = self.head()? else { return Ok(()) };
        let enrolment = self.known_enrolment()?;
        let verified = |bytes: &[u8]| {
            let (_, head) = self.open(std::str::from_utf8(bytes).ok()?, enrolment.as_ref()?).ok()?;
            Some((head.size(), head.root()))
        };
        Ok(self.log.put_head(text, (head.size(), head.root()), verified)?)
    }

    /// The enrolment that entry 0 of this log carries, once it is archived.
    fn known_enrolment(&self) -> Result<Option<VerifiedEnrolment>, HubError> {
        self.auditor
            .enrolment()
            .map(|bytes| self.enrolled(bytes).map_err(HubError::Contradiction))
            .transpose()
    }

    fn enrolled(&self, bytes: &[u8]) -> Result<VerifiedEnrolment, String> {
        let enrolment = Enrolment::decode(bytes).map_err(|error| error.to_string())?;
        let trust = &self.hub.trust;
        let verified = enrolment.verify(&trust.fleet, &trust.roots).map_err(|error| error.to_string())?;
        if verified.origin() != &self.origin {
            return Err(format!("it is enrolled as {}, not as {}", verified.origin(), self.origin));
        }
        Ok(verified)
    }

    fn open(&self, note: &str, enrolment: &VerifiedEnrolment) -> Result<(SignedNote, Checkpoint), String> {
        let note = SignedNote::parse(note).map_err(|error| error.to_string())?;
        let content = enrolment.content();
        let (key, ak) = (enrolment.log_key(), &content.attestation_key);
        let head = Checkpoint::open(&note, &self.origin, key, &content.log_key, ak);
        Ok((note, head.map_err(|error| error.to_string())?))
    }

    /// Of a log that has never been pulled: who it is, from the beginning that the source shows.
    fn introduced(&self, source: &Source, note: &str) -> Result<VerifiedEnrolment, String> {
        let note = SignedNote::parse(note).map_err(|error| error.to_string())?;
        let (_, size, _) = parse_checkpoint_text(&note.text).map_err(|error| error.to_string())?;
        if size == 0 {
            return Err("its log is empty".to_owned());
        }
        let bundle = source.entries(0, width_at(0, 0, size)).map_err(|error| error.to_string())?;
        let entry = bundle.first().ok_or("its log is empty")?;
        let entry = Entry::decode(entry).map_err(|error| error.to_string())?;
        let body = KeyEpochBody::decode(&entry.content().body).map_err(|error| error.to_string())?;
        let enrolment = body.enrolment.ok_or("entry 0 embeds no enrolment")?;
        self.enrolled(&enrolment)
    }

    /// Asks every source that has not failed for its head, and takes the first of the newest as the target.
    pub(super) fn choose(&mut self) -> Result<(), HubError> {
        for at in 0..self.sources.len() {
            if self.failed.contains(&at) {
                continue;
            }
            let source = self.sources[at].clone();
            let said = source.checkpoint().map_err(|error| error.to_string()).and_then(|text| {
                let enrolment = match (&self.enrolment, self.known_enrolment()) {
                    (Some(known), _) => known.clone(),
                    (None, Ok(Some(known))) => known,
                    (None, Ok(None)) => self.introduced(&source, &text)?,
                    (None, Err(error)) => return Err(error.to_string()),
                };
                let (note, head) = self.open(&text, &enrolment)?;
                Ok((text, note, head, enrolment))
            });
            let (text, note, head, enrolment) = match said {
                Ok(said) => said,
                Err(error) => {
                    self.outcome.trouble.push(format!("{}: {error}", source.base()));
                    self.failed.push(at);
                    continue;
                }
            };
            self.enrolment = Some(enrolment);
            self.outcome.reached = true;
            if self.compare(&note, &head)? {
                return Ok(());
            }
            let newest = self.target.as_ref().map_or(self.state.progress, |target| target.head.size());
            let finishes = head.size() == self.state.progress
                && self.state.pending.is_some()
                && head.root() == self.auditor.root();
            if head.size() > newest || (finishes && self.target.is_none()) {
                self.target = Some(Target { source: at, note: text, head });
            }
        }
        self.aim()
    }

    /// Notes the head to be pulled, before anything of it is put.
    fn aim(&mut self) -> Result<(), HubError> {
        let Some(target) = &self.target else { return Ok(()) };
        if self.state.pending.as_ref() == Some(&target.note) {
            return Ok(());
        }
        let mut state = self.state.clone();
        // What lay there from before has been removed at the beginning of this pull.
        state.sweep.clear();
        if let Some(given_up) = &state.pending
            && let Ok(note) = SignedNote::parse(given_up)
            && let Ok((_, size, _)) = parse_checkpoint_text(&note.text)
        {
            state.sweep.push(size);
        }
        state.pending = Some(target.note.clone());
        self.hub.index.step(self.id, &state, None, &Default::default(), now_millis())?;
        self.state = state;
        Ok(())
    }

    /// Holds a head against the archived one. Returns whether that showed a fork.
    fn compare(&mut self, note: &SignedNote, head: &Checkpoint) -> Result<bool, HubError> {
        let Some((archived_note, archived)) = self.head()? else { return Ok(false) };
        let size = archived.size();
        if head.size() > size || (head.size(), head.root()) == (size, archived.root()) {
            return Ok(false);
        }
        let log = &self.log;
        let tiles = Tiles::new(size, |level, index, width| log.hashes(level, index, width));
        let root = merkle::root(head.size(), &tiles)?;
        if root == head.root() {
            return Ok(false);
        }
        let proof = consistency_proof(head.size(), size, &tiles).map_err(|error| {
            HubError::Contradiction(format!("the archive cannot prove its own head: {error}"))
        })?;
        let shown =
            ForkProof::of_heads(&self.origin, &(note, head), &(&archived_note, &archived), root, &proof);
        self.freeze(&shown, [note, &archived_note])
    }

    /// The target's entries do not lead to it, or not on from the archived head: whether the log key has signed both.
    pub(super) fn forked(&mut self, target: &Target) -> Result<bool, HubError> {
        let Some((archived_note, archived)) = self.head()? else { return Ok(false) };
        let source = self.sources[target.source].clone();
        let (old, new) = (archived.size(), target.head.size());
        let Ok(note) = SignedNote::parse(&target.note) else { return Ok(false) };
        if old == 0 || old > new {
            return Ok(false);
        }
        let tiles = Tiles::new(new, |level, index, width| source.hashes(level, index, width));
        let (Ok(root), Ok(proof)) = (merkle::root(old, &tiles), consistency_proof(old, new, &tiles)) else {
            return Ok(false);
        };
        if root == archived.root()
            || verify_consistency(old, &root, new, &target.head.root(), &proof).is_err()
        {
            return Ok(false);
        }
        let shown = ForkProof::of_heads(
            &self.origin,
            &(&archived_note, &archived),
            &(&note, &target.head),
            root,
            &proof,
        );
        self.freeze(&shown, [&note, &archived_note])
    }

    /// Nothing more is taken from a log that is proven to have forked; both notes and the proof are kept.
    fn freeze(&mut self, shown: &ForkProof, notes: [&SignedNote; 2]) -> Result<bool, HubError> {
        let Some(enrolment) = self.known_enrolment()? else { return Ok(false) };
        let Ok(fork) = shown.verify(&enrolment.content().log_key) else { return Ok(false) };
        let proof = shown.encode();
        let key = self.log.evidence_key(&format!("fork-{}.der", sha256(&[&proof])));
        self.log.archive().put(&key, proof)?;
        let mut finding = Finding::new(Kind::Fork, self.origin.as_str(), "fork", fork.detail().to_owned());
        finding.evidence.push(key);
        for note in notes {
            let text = note.encode();
            let key = self.log.evidence_key(&format!("head-{}.note", sha256(&[text.as_bytes()])));
            self.log.archive().put(&key, text)?;
            finding.evidence.push(key);
        }
        self.hub.archive.settle()?;
        let mut state = self.state.clone();
        state.frozen = Some(fork.detail().to_owned());
        let rows = crate::index::Rows { findings: vec![finding], ..Default::default() };
        let new = self.hub.index.step(self.id, &state, None, &rows, now_millis())?;
        self.outcome.findings.extend(new);
        self.state = state;
        self.target = None;
        Ok(true)
    }

    pub(super) fn keep_note(&self, head: &Checkpoint, note: &str) -> Result<String, HubError> {
        let hash: Hash = sha256(&[note.as_bytes()]);
        let key = self.log.evidence_key(&format!("head-{}-{hash}.note", head.size()));
        self.log.archive().put(&key, note.to_owned())?;
        Ok(key)
    }
}

//! The verifier: document digest + `.seal` + trust file in, a report and perhaps a [`VerifiedSeal`] out.
//!
//! Refuses to do: read clocks, files or networks; take over an earlier answer about other bytes. A [`Verifier`] may
//! recall that exactly these bytes passed exactly this check under its trust file, never more than that.
//! Invariants: what a verifier remembers never shows in what it answers; a [`VerifiedSeal`] cannot be made any other way than by every evidence check passing;
//! the first failed check ends the walk and is named in the report. The order and the names of the
//! checks are normative: `docs/formats.md` section 9.

mod cosigned;
mod manifest;
mod memory;
mod own;
mod revoked;
mod scan;
mod shared;
mod standing;
mod time;
mod unpacked;

use crate::body::seal::{DocumentDigest, Opening, SealBody};
use crate::enrolment::VerifiedEnrolment;
use crate::entry::Entry;
use crate::hash::Hash;
use crate::note::Checkpoint;
use crate::report::{Check, Fact, Interval, Outcome, Report, Verdict};
use crate::seal_file::{SealFile, SealFileError};
use crate::trust::TrustFile;
pub use manifest::{ManifestVerification, verify_manifest};
use memory::Memory;
pub use memory::{CHECKPOINTS_REMEMBERED, ENROLMENTS_REMEMBERED, EPOCHS_REMEMBERED};
use std::sync::Arc;
use unpacked::Texts;
pub use unpacked::Unpacked;

/// Everything of a `.seal` whose evidence has been checked against a trust file.
///
/// Has no public constructor: holding one means that enrolment, epoch, token, proofs, checkpoints,
/// quotes and openings all verified. Whether a *document* is the sealed one is in the report.
#[derive(Debug, Clone)]
pub struct VerifiedSeal {
    enrolment: Arc<VerifiedEnrolment>,
    entry: Entry,
    body: SealBody,
    openings: Vec<Opening>,
    erased: Vec<u64>,
    checkpoints: Vec<Arc<Checkpoint>>,
    facts: Vec<Fact>,
    interval: Interval,
}

impl VerifiedSeal {
    /// The box's enrolment.
    pub fn enrolment(&self) -> &VerifiedEnrolment {
        &self.enrolment
    }
    /// The token.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
    /// What the token seals.
    pub fn body(&self) -> &SealBody {
        &self.body
    }
    /// Opened commitments.
    pub fn openings(&self) -> &[Opening] {
        &self.openings
    }
    /// Entries by which the box records that it destroyed the openings of this token; usually none.
    pub fn erased(&self) -> &[u64] {
        &self.erased
    }
    /// Verified checkpoints that include the token.
    pub fn checkpoints(&self) -> impl ExactSizeIterator<Item = &Checkpoint> {
        self.checkpoints.iter().map(Arc::as_ref)
    }
    /// Facts that hold.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }
    /// The proven interval.
    pub fn interval(&self) -> Interval {
        self.interval
    }
}

/// Outcome of [`verify`].
#[derive(Debug, Clone)]
pub struct Verification {
    /// One line per check, verdict, facts.
    pub report: Report,
    /// The evidence, when all of it holds.
    pub seal: Option<VerifiedSeal>,
}

/// The walk ends here; the failed check is already in the list.
struct Stop(Verdict);

struct Walk<'a> {
    trust: &'a TrustFile,
    memory: &'a mut Memory,
    checks: Vec<Check>,
}

impl Walk<'_> {
    fn pass(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(Check { name, outcome: Outcome::Passed, detail: detail.into() });
    }

    fn open(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(Check { name, outcome: Outcome::NotJudged, detail: detail.into() });
    }

    fn fail(&mut self, name: &'static str, detail: impl Into<String>, verdict: Verdict) -> Stop {
        self.checks.push(Check { name, outcome: Outcome::Failed, detail: detail.into() });
        Stop(verdict)
    }

    fn need<T, E: std::fmt::Display>(
        &mut self,
        name: &'static str,
        what: &str,
        result: Result<T, E>,
    ) -> Result<T, Stop> {
        result.map_err(|error| self.fail(name, format!("{what}: {error}"), Verdict::Refused))
    }

    fn demand(&mut self, name: &'static str, holds: bool, otherwise: &str) -> Result<(), Stop> {
        if holds { Ok(()) } else { Err(self.fail(name, otherwise, Verdict::Refused)) }
    }
}

/// Judges many seals by one trust file, and checks what they share only once.
///
/// Every report is the one that [`verify`] gives. What is remembered is bounded: [`ENROLMENTS_REMEMBERED`],
/// [`EPOCHS_REMEMBERED`], [`CHECKPOINTS_REMEMBERED`].
#[derive(Debug)]
pub struct Verifier<'a> {
    trust: &'a TrustFile,
    memory: Memory,
    texts: Texts,
}

impl<'a> Verifier<'a> {
    /// A verifier that remembers nothing yet. What it will remember holds under `trust` and is of no use under another
    /// trust file, so neither can be exchanged.
    pub fn new(trust: &'a TrustFile) -> Self {
        Verifier { trust, memory: Memory::new(), texts: Texts::default() }
    }

    /// Number of results remembered now; bounded, whatever the seals are.
    pub fn remembered(&self) -> usize {
        self.memory.len()
    }

    /// Judges `seal` (the bytes of a `.seal` file). `document` is the digest of the document in question, made with the
    /// algorithm that [`Unpacked::wanted_digest`] names; `None` checks the seal alone.
    pub fn verify(&mut self, seal: &[u8], document: Option<&DocumentDigest>) -> Verification {
        let seal = self.unpack(seal);
        self.judge(seal, document)
    }

    /// Reads a seal, for whoever has to know how the document is hashed before hashing it.
    pub fn unpack(&mut self, seal: &[u8]) -> Unpacked {
        self.texts.unpack(seal)
    }

    /// Judges a seal that has been read, by any verifier.
    pub fn judge(&mut self, seal: Unpacked, document: Option<&DocumentDigest>) -> Verification {
        let mut walk = Walk { trust: self.trust, memory: &mut self.memory, checks: Vec::with_capacity(16) };
        let (verdict, seal) = match walk.evidence(seal) {
            Err(Stop(verdict)) => (verdict, None),
            Ok(seal) => match walk.document(&seal, document).and_then(|verdict| {
                walk.policy(&seal)?;
                Ok(verdict)
            }) {
                Ok(verdict) | Err(Stop(verdict)) => (verdict, Some(seal)),
            },
        };
        let report = Report {
            checks: walk.checks,
            verdict,
            facts: seal.as_ref().map_or_else(Vec::new, |seal| seal.facts.clone()),
            interval: seal.as_ref().map(|seal| seal.interval),
            trust_issued_millis: self.trust.issued_millis,
            trust_roster_version: self.trust.roster.as_ref().map(|roster| roster.version),
        };
        Verification { report, seal }
    }
}

/// Judges one seal as [`Verifier::verify`] does, with nothing remembered.
pub fn verify(seal: &[u8], trust: &TrustFile, document: Option<&DocumentDigest>) -> Verification {
    Verifier::new(trust).verify(seal, document)
}

/// The digest algorithm a document must be hashed with to be compared with this `.seal`; nothing is verified.
pub fn wanted_digest(seal: &SealFile) -> Option<crate::body::seal::DigestAlgorithm> {
    let entry = Entry::decode(&seal.entry).ok()?;
    SealBody::decode(&entry.content().body).ok().map(|body| body.algorithm)
}

impl Walk<'_> {
    fn evidence(&mut self, seal: Unpacked) -> Result<VerifiedSeal, Stop> {
        let (file, token) = match seal.0 {
            Ok(read) => read,
            Err(error @ SealFileError::NotUnderstood(_)) => {
                return Err(self.fail("seal-file", error.to_string(), Verdict::NotUnderstood));
            }
            Err(error) => return Err(self.fail("seal-file", error.to_string(), Verdict::Refused)),
        };
        self.pass("seal-file", format!("seal/v1 with {} checkpoint(s)", file.heads.len()));
        let part = file.enrolment.key;
        let enrolment = self.enrolment(&file, part)?;
        let attestation_key = self.attestation_key(&enrolment, part)?;
        let epoch_part = part.with(file.epoch.key);
        let epoch = self.epoch(&file, epoch_part, &enrolment, &attestation_key)?;
        let (entry, body) = self.token(token, &enrolment, &epoch)?;
        let leaf = entry.leaf_hash();
        let mut checkpoints = Vec::with_capacity(file.heads.len());
        let mut quoted = Vec::new();
        for head in &file.heads {
            let note_part = part.with(head.checkpoint.key);
            let note = &head.checkpoint.text;
            let checkpoint = self.checkpoint("checkpoint", "the checkpoint", note, note_part, &enrolment)?;
            self.pass("checkpoint", format!("size {}, signed by the log key", checkpoint.size()));
            self.inclusion(head, &entry, leaf, &checkpoint)?;
            self.epoch_inclusion(head, &epoch, &checkpoint, epoch_part.with(note_part))?;
            if self.quote(head, &enrolment, attestation_key.tpm(), &checkpoint, note_part)? {
                quoted.extend(head.pcrs.as_ref().map(|pcrs| &pcrs.values));
            }
            checkpoints.push(checkpoint);
        }
        let Some(body) = body else {
            let detail = format!("its kind {} is unknown to this verifier", entry.content().kind);
            return Err(self.fail("body", detail, Verdict::NotUnderstood));
        };
        let attested = !quoted.is_empty();
        let boot_state_known = self.boot_state(&epoch.body, &quoted);
        let openings = self.openings(&file, &body)?;
        let mut erased = Vec::new();
        for erasure in &file.erasures {
            erased.push(self.erasure(erasure, part, &enrolment, &entry, openings.len())?);
        }
        let crls = self.crls(&file)?;
        let anchored = self.anchors(&file, part, &enrolment, &entry, &crls)?;
        let evidence = self.time_evidence(&file, part, &enrolment, &entry, &crls)?;
        let (anchored, evidence) = self.revocation_status(&crls, anchored, evidence)?;
        for manifest in &file.manifests {
            self.manifest(manifest, part, &enrolment, &entry)?;
        }
        let (interval, anchored_fact) = self.interval(&entry, &anchored, &evidence);
        self.revocation(&file, &enrolment, &entry, &checkpoints, interval.before)?;
        let mut facts = vec![Fact::Sealed];
        if attested && boot_state_known {
            facts.push(Fact::Attested);
        }
        if anchored_fact {
            facts.push(Fact::Anchored);
        }
        facts.extend(self.cosignatures(&file, part, &enrolment, &entry)?);
        Ok(VerifiedSeal { enrolment, entry, body, openings, erased, checkpoints, facts, interval })
    }

    fn proof(&mut self, name: &'static str, items: &[Vec<u8>]) -> Result<Vec<Hash>, Stop> {
        self.hashes(name, unpacked::hashes(items))
    }

    fn hashes<T>(&mut self, name: &'static str, hashes: Option<T>) -> Result<T, Stop> {
        hashes.ok_or_else(|| self.fail(name, "a hash of the path is not 32 bytes", Verdict::Refused))
    }
}

type QuotedPcrs = Vec<(u8, [u8; 32])>;

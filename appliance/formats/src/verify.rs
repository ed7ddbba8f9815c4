//! The verifier: document digest + `.seal` + trust file in, a report and perhaps a [`VerifiedSeal`] out.
//!
//! Refuses to do: read clocks, files or networks; skip a check because an earlier answer looked good.
//! Invariants: a [`VerifiedSeal`] cannot be made any other way than by every evidence check passing;
//! the first failed check ends the walk and is named in the report. The order and the names of the
//! checks are normative: `docs/formats.md` section 9.

use crate::body::attestation::CheckpointClaim;
use crate::body::key_epoch::{Endorsement, KeyEpochBody};
use crate::body::operator_action::OperatorActionBody;
use crate::body::seal::{DocumentDigest, Observation, Opening, SealBody};
use crate::endorsement::{AttestationKey, check_endorsement, check_statement};
use crate::enrolment::{Enrolment, VerifiedEnrolment};
use crate::entry::{Entry, Kind, Residency};
use crate::erasure::{Erasure, erased_leaves};
use crate::hash::Hash;
use crate::merkle::verify_inclusion;
use crate::note::{Checkpoint, SignedNote};
use crate::report::{Check, Fact, Interval, Outcome, Report, Verdict, describe, utc};
use crate::seal_file::{Head, SealFile, SealFileError};
use crate::sig::PublicKey;
use crate::tpm::{self, TpmtPublic};
use crate::trust::{Reference, TrustFile};

/// Everything of a `.seal` whose evidence has been checked against a trust file.
///
/// Has no public constructor: holding one means that enrolment, epoch, token, proofs, checkpoints,
/// quotes and openings all verified. Whether a *document* is the sealed one is in the report.
#[derive(Debug, Clone)]
pub struct VerifiedSeal {
    enrolment: VerifiedEnrolment,
    entry: Entry,
    body: SealBody,
    openings: Vec<Opening>,
    erased: Vec<u64>,
    checkpoints: Vec<Checkpoint>,
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
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
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

/// Judges `seal` (the bytes of a `.seal` file) by `trust`. `document` is the digest of the document in
/// question, made with the algorithm that [`wanted_digest`] names; `None` checks the seal alone.
pub fn verify(seal: &[u8], trust: &TrustFile, document: Option<&DocumentDigest>) -> Verification {
    let mut walk = Walk { trust, checks: Vec::new() };
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
        trust_issued_millis: trust.issued_millis,
    };
    Verification { report, seal }
}

/// The digest algorithm a document must be hashed with to be compared with this `.seal`; nothing is verified.
pub fn wanted_digest(seal: &SealFile) -> Option<crate::body::seal::DigestAlgorithm> {
    let entry = Entry::decode(&seal.entry).ok()?;
    SealBody::decode(&entry.content().body).ok().map(|body| body.algorithm)
}

impl Walk<'_> {
    fn evidence(&mut self, bytes: &[u8]) -> Result<VerifiedSeal, Stop> {
        let file = match SealFile::decode(bytes) {
            Ok(file) => file,
            Err(error @ SealFileError::NotUnderstood(_)) => {
                return Err(self.fail("seal-file", error.to_string(), Verdict::NotUnderstood));
            }
            Err(error) => return Err(self.fail("seal-file", error.to_string(), Verdict::Refused)),
        };
        self.pass("seal-file", format!("seal/v1 with {} checkpoint(s)", file.heads.len()));
        let enrolment = self.enrolment(&file)?;
        let attestation_key = self.attestation_key(&enrolment)?;
        let (epoch, epoch_body, sealing_key) = self.epoch(&file, &enrolment, &attestation_key)?;
        let (entry, body) = self.token(&file, &enrolment, &epoch, &epoch_body, &sealing_key)?;
        let mut checkpoints = Vec::new();
        let mut quoted = Vec::new();
        for head in &file.heads {
            let (checkpoint, pcrs) = self.head(head, &enrolment, attestation_key.tpm(), &entry, &epoch)?;
            checkpoints.push(checkpoint);
            quoted.extend(pcrs);
        }
        let Some(body) = body else {
            let detail = format!("its kind {} is unknown to this verifier", entry.content().kind);
            return Err(self.fail("body", detail, Verdict::NotUnderstood));
        };
        let attested = !quoted.is_empty();
        let boot_state_known = self.boot_state(&epoch_body, &quoted);
        let openings = self.openings(&file, &body)?;
        let mut erased = Vec::new();
        for erasure in &file.erasures {
            erased.push(self.erasure(erasure, &enrolment, &entry, openings.len())?);
        }
        let mut facts = vec![Fact::Sealed];
        if attested && boot_state_known {
            facts.push(Fact::Attested);
        }
        // No anchor and no external time evidence exists in this version of the format's bodies:
        // the interval has only its advisory middle.
        let interval = Interval { after: None, before: None, local: entry.content().time };
        Ok(VerifiedSeal { enrolment, entry, body, openings, erased, checkpoints, facts, interval })
    }

    fn enrolment(&mut self, file: &SealFile) -> Result<VerifiedEnrolment, Stop> {
        const NAME: &str = "enrolment";
        let decoded = Enrolment::decode(&file.enrolment);
        let enrolment = self.need(NAME, "the enrolment", decoded)?;
        let verified = enrolment.verify(&self.trust.fleet, &self.trust.roots);
        let verified = self.need(NAME, "the enrolment", verified)?;
        self.demand(
            NAME,
            file.origin == verified.origin().as_str(),
            "the file's origin is not the enrolment's",
        )?;
        let how = if enrolment.chain.is_empty() { "by the root itself" } else { "through the fleet CA" };
        self.pass(NAME, format!("the fleet {} vouches for {} {how}", self.trust.fleet, file.origin));
        Ok(verified)
    }

    fn attestation_key(&mut self, enrolment: &VerifiedEnrolment) -> Result<AttestationKey, Stop> {
        const NAME: &str = "attestation-key";
        let content = enrolment.content();
        let key = AttestationKey::read(content.hardware, &content.attestation_key);
        let key = self.need(NAME, "the enrolment", key)?;
        match key {
            AttestationKey::Tpm(_) => self.pass(NAME, "a restricted P-256 key that cannot leave its TPM"),
            AttestationKey::Software(_) => {
                self.pass(NAME, "a software device key: no hardware stands behind this box");
            }
        }
        Ok(key)
    }

    fn epoch(
        &mut self,
        file: &SealFile,
        enrolment: &VerifiedEnrolment,
        attestation_key: &AttestationKey,
    ) -> Result<(Entry, KeyEpochBody, PublicKey), Stop> {
        let name = "epoch-entry";
        let origin = enrolment.origin().as_str();
        let entry = Entry::decode(&file.epoch);
        let entry = self.need(name, "the key-epoch entry", entry)?;
        self.demand(name, entry.kind() == Some(Kind::KeyEpoch), "it is not a key-epoch entry")?;
        let body = KeyEpochBody::decode(&entry.content().body);
        let body = self.need(name, "the key-epoch entry", body)?;
        if let Some(embedded) = &body.enrolment {
            let same = embedded.as_ref() == file.enrolment.as_slice();
            self.demand(name, same, "it embeds another enrolment than the file carries")?;
        }
        let public = check_statement(&entry, &body, origin, enrolment.content().hardware);
        let public = self.need(name, "the key-epoch entry", public)?;
        self.pass(
            name,
            format!("epoch {}, sealing key in {}", body.statement.epoch, entry.content().residency),
        );

        let name = "epoch-signature";
        let signed = entry.verify_signature(origin, &public);
        self.need(name, "the key-epoch entry", signed)?;
        self.pass(name, "signed by the key it introduces");

        let name = "epoch-endorsement";
        let endorsed = check_endorsement(&body, attestation_key);
        self.need(name, "the endorsement", endorsed)?;
        match attestation_key {
            AttestationKey::Tpm(_) => self.pass(name, "the TPM's quote covers exactly this statement"),
            AttestationKey::Software(_) => {
                self.pass(name, "the software device key covers exactly this statement");
            }
        }
        Ok((entry, body, public))
    }

    fn token(
        &mut self,
        file: &SealFile,
        enrolment: &VerifiedEnrolment,
        epoch: &Entry,
        epoch_body: &KeyEpochBody,
        sealing_key: &PublicKey,
    ) -> Result<(Entry, Option<SealBody>), Stop> {
        let name = "token";
        let entry = Entry::decode(&file.entry);
        let entry = self.need(name, "the token", entry)?;
        let content = entry.content();
        self.demand(
            name,
            content.epoch == epoch_body.statement.epoch && content.residency == epoch.content().residency,
            "it is of another epoch than the key-epoch entry, or its key lived elsewhere",
        )?;
        self.demand(
            name,
            content.index > epoch.content().index,
            "it stands before the key-epoch entry of its epoch",
        )?;
        // Before the kind is looked at: what nobody signed is refused, never "made by a newer version".
        let signed = entry.verify_signature(enrolment.origin().as_str(), sealing_key);
        self.need("token-signature", "the token", signed)?;
        let body = match entry.kind() {
            Some(Kind::Seal) => {
                let body = SealBody::decode(&content.body);
                Some(self.need(name, "the token", body)?)
            }
            Some(kind) => {
                let what = format!("it is a {} entry, not a seal", kind.name());
                return Err(self.fail(name, what, Verdict::Refused));
            }
            // Opaque: its proofs are judged like any leaf's before its meaning is refused.
            None => None,
        };
        let what = body.as_ref().map_or_else(|| format!("unknown kind {}", content.kind), describe);
        self.pass(
            name,
            format!(
                "index {}, {} mode{}, local time {}: {what}",
                content.index,
                content.mode,
                if content.drill { " (drill)" } else { "" },
                utc(content.time.unix_millis),
            ),
        );
        self.pass("token-signature", format!("signed by the sealing key of epoch {}", entry.content().epoch));
        Ok((entry, body))
    }

    fn head(
        &mut self,
        head: &Head,
        enrolment: &VerifiedEnrolment,
        attestation_key: Option<&TpmtPublic>,
        entry: &Entry,
        epoch: &Entry,
    ) -> Result<(Checkpoint, Option<QuotedPcrs>), Stop> {
        let name = "checkpoint";
        let content = enrolment.content();
        let note = SignedNote::parse(&head.checkpoint);
        let note = self.need(name, "the checkpoint", note)?;
        let checkpoint = Checkpoint::open(
            &note,
            enrolment.origin(),
            enrolment.log_key(),
            &content.log_key,
            &content.attestation_key,
        );
        let checkpoint = self.need(name, "the checkpoint", checkpoint)?;
        self.pass(name, format!("size {}, signed by the log key", checkpoint.size()));

        let name = "inclusion";
        let entry_proof = self.proof(name, &head.entry_proof)?;
        let (size, root) = (checkpoint.size(), checkpoint.root());
        let included = verify_inclusion(entry.content().index, size, &entry.leaf_hash(), &entry_proof, &root);
        self.need(name, "the token's path", included)?;
        self.pass(name, format!("entry {} is under the checkpoint", entry.content().index));

        let name = "epoch-inclusion";
        let epoch_proof = self.proof(name, &head.epoch_proof)?;
        let included = verify_inclusion(epoch.content().index, size, &epoch.leaf_hash(), &epoch_proof, &root);
        self.need(name, "the key-epoch entry's path", included)?;
        self.pass(name, format!("key-epoch entry {} is under the checkpoint", epoch.content().index));

        let name = "quote";
        match (checkpoint.quote(), &head.pcrs, attestation_key) {
            (None, None, _) => Ok((checkpoint, None)),
            (Some((attest, signature)), Some(pcrs), Some(ak)) => {
                let claim = CheckpointClaim {
                    origin: enrolment.origin().as_str().to_owned(),
                    text: checkpoint.text().as_bytes().to_vec().into(),
                };
                let facts = tpm::verify_quote(ak, attest, signature, &claim.qualifying_data().0);
                let facts = self.need(name, "the quote", facts)?;
                let listed = facts.check_pcrs(pcrs);
                self.need(name, "the quote", listed)?;
                self.pass(
                    name,
                    format!(
                        "genuine; TPM clock {} ms, reset count {}, {} PCRs",
                        facts.clock,
                        facts.reset_count,
                        pcrs.len()
                    ),
                );
                Ok((checkpoint, Some(pcrs.clone())))
            }
            _ => {
                let detail = "a quote line and PCR values must come together, and only from a TPM";
                Err(self.fail(name, detail, Verdict::Refused))
            }
        }
    }

    fn proof(&mut self, name: &'static str, items: &[Vec<u8>]) -> Result<Vec<Hash>, Stop> {
        let hashes: Option<Vec<Hash>> = items.iter().map(|item| Hash::from_slice(item)).collect();
        match hashes {
            Some(hashes) => Ok(hashes),
            None => Err(self.fail(name, "a hash of the path is not 32 bytes", Verdict::Refused)),
        }
    }

    /// Whether nothing speaks against the boot states that were quoted.
    fn boot_state(&mut self, epoch: &KeyEpochBody, quoted: &[QuotedPcrs]) -> bool {
        const NAME: &str = "boot-state";
        let endorsing = match &epoch.endorsement {
            Endorsement::Quote(quote) => Some(quote.pcr_values()),
            Endorsement::Software(_) => None,
        };
        let all: Vec<&QuotedPcrs> = quoted.iter().chain(endorsing.as_ref()).collect();
        if all.is_empty() {
            self.open(NAME, "no quote");
            return false;
        }
        if self.trust.references.is_empty() {
            self.open(NAME, "quote genuine, boot state not judged: the trust file has no reference values");
            return true;
        }
        let trust = self.trust;
        let names: Vec<Option<&str>> = all.iter().map(|pcrs| matching(&trust.references, pcrs)).collect();
        match names.iter().copied().collect::<Option<Vec<&str>>>() {
            Some(mut names) => {
                names.dedup();
                self.pass(NAME, format!("as reference {}", names.join(", then ")));
                true
            }
            None => {
                self.open(NAME, "quote genuine, but the boot state is none of the trust file's references");
                false
            }
        }
    }

    fn openings(&mut self, file: &SealFile, body: &SealBody) -> Result<Vec<Opening>, Stop> {
        const NAME: &str = "openings";
        let mut openings = Vec::new();
        for bytes in &file.openings {
            let opening = Opening::decode(bytes);
            let opening = self.need(NAME, "an opening", opening)?;
            let committed = body.commitments.contains(&opening.commitment());
            self.demand(NAME, committed, &format!("the opening of {:?} opens nothing here", opening.name))?;
            let again = openings.contains(&opening);
            self.demand(NAME, !again, &format!("the opening of {:?} stands here twice", opening.name))?;
            openings.push(opening);
        }
        let (opened, all) = (openings.len(), body.commitments.len());
        self.demand(NAME, opened <= all, "there are more openings than commitments")?;
        let rest = if opened < all && file.erasures.is_empty() { "; the others are not shown" } else { "" };
        self.pass(NAME, format!("{opened} of {all} commitments opened{rest}"));
        Ok(openings)
    }

    /// Index of the entry that records the erasure of the token's openings. Its place in the log is what speaks for
    /// it: the sealing key that signed it may be of an epoch this file knows nothing of.
    fn erasure(
        &mut self,
        erasure: &Erasure,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
        opened: usize,
    ) -> Result<u64, Stop> {
        const NAME: &str = "erasure";
        let entry = Entry::decode(&erasure.entry);
        let entry = self.need(NAME, "the entry of the erasure", entry)?;
        let index = entry.content().index;
        self.demand(NAME, entry.kind() == Some(Kind::OperatorAction), "it is not an operator-action entry")?;
        self.demand(NAME, index > token.content().index, "it stands before the token")?;
        let body = OperatorActionBody::decode(&entry.content().body);
        let body = self.need(NAME, "the entry of the erasure", body)?;
        let Some(leaves) = erased_leaves(&body) else {
            return Err(self.fail(NAME, "its action is not an erasure of leaves", Verdict::Refused));
        };
        self.demand(NAME, leaves.contains(&token.leaf_hash()), "it is the erasure of other seals")?;
        let note = SignedNote::parse(&erasure.checkpoint);
        let note = self.need(NAME, "its checkpoint", note)?;
        let content = enrolment.content();
        let checkpoint = Checkpoint::open(
            &note,
            enrolment.origin(),
            enrolment.log_key(),
            &content.log_key,
            &content.attestation_key,
        );
        let checkpoint = self.need(NAME, "its checkpoint", checkpoint)?;
        let proof = self.proof(NAME, &erasure.entry_proof)?;
        let included =
            verify_inclusion(index, checkpoint.size(), &entry.leaf_hash(), &proof, &checkpoint.root());
        self.need(NAME, "its path", included)?;
        let still =
            if opened > 0 { format!("; this file still carries {opened} of them") } else { String::new() };
        let detail = format!("erased: openings of this seal were destroyed by the box, entry {index}{still}");
        self.pass(NAME, detail);
        Ok(index)
    }

    fn document(&mut self, seal: &VerifiedSeal, document: Option<&DocumentDigest>) -> Result<Verdict, Stop> {
        const NAME: &str = "document";
        let Some(document) = document else {
            self.open(NAME, "no document given: only the seal was checked");
            return Ok(Verdict::SealOnly);
        };
        let sealed = seal.body.document_digest();
        if sealed.algorithm != document.algorithm {
            let detail =
                format!("it was hashed with {}, sealed with {}", document.algorithm, sealed.algorithm);
            return Err(self.fail(NAME, detail, Verdict::Refused));
        }
        let size_differs = matches!((sealed.size, document.size), (Some(a), Some(b)) if a != b);
        if sealed.value != document.value || size_differs {
            return Err(self.fail(NAME, "its bytes are not the ones sealed", Verdict::OtherDocument));
        }
        let claimed = match seal.body.observation {
            Observation::BytesObserved => "",
            Observation::DigestClaimed => "; the box never saw the bytes, only this digest",
        };
        self.pass(NAME, format!("{} {}{claimed}", sealed.algorithm, hex::encode(&sealed.value)));
        Ok(Verdict::Valid)
    }

    fn policy(&mut self, seal: &VerifiedSeal) -> Result<(), Stop> {
        const NAME: &str = "policy";
        let policy = &self.trust.policy;
        if seal.entry.content().residency == Residency::Software && !policy.accept_software {
            let detail = "the sealing key was in software and the trust file does not accept that";
            return Err(self.fail(NAME, detail, Verdict::PolicyUnmet));
        }
        for fact in &policy.require_facts {
            if !seal.facts.iter().any(|held| held.name() == fact) {
                let detail = format!("the trust file requires the fact {fact:?}");
                return Err(self.fail(NAME, detail, Verdict::PolicyUnmet));
            }
        }
        self.pass(NAME, format!("{} required fact(s) hold", policy.require_facts.len()));
        Ok(())
    }
}

type QuotedPcrs = Vec<(u8, [u8; 32])>;

fn matching<'a>(references: &'a [Reference], quoted: &QuotedPcrs) -> Option<&'a str> {
    let all_in = |reference: &&Reference| reference.pcrs.iter().all(|pcr| quoted.contains(pcr));
    references.iter().find(all_in).map(|reference| reference.name.as_str())
}

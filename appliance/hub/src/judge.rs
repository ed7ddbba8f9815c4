//! What an entry means to the hub once the audit has passed it: what the index keeps of it, and what policy says of it.
//!
//! Refuses to do: judge signatures, trees or order; `bulla_formats::audit` does. Invariant: an entry that the audit refuses
//! means nothing here; it is quarantined with the audit's reason, and its neighbours are judged as ever.

use crate::finding::{Finding, Kind as Found};
use crate::index::{LogState, Mark, Rows};
use bulla_formats::anchoring::{self, Attested, Judged};
use bulla_formats::audit::{AuditError, LogAuditor};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::key_epoch::{Endorsement, KeyEpochBody};
use bulla_formats::body::manifest::ManifestBody;
use bulla_formats::body::mirror::MirrorBody;
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind, Residency};
use bulla_formats::erasure::erased_leaves;
use bulla_formats::hash::Hash;
use bulla_formats::trust::TrustFile;

/// Quarantined entries of a log that are told one by one; beyond them, one finding tells of a block of [`BLOCK`] entries.
const TOLD: u64 = 64;
const BLOCK: u64 = 65_536;

/// Judges the entries of one step of one log.
pub struct Judge<'a> {
    trust: &'a TrustFile,
    origin: &'a str,
    /// What goes into the index.
    pub rows: Rows,
    evidence: &'a dyn Fn(u64, &Hash) -> String,
}

impl<'a> Judge<'a> {
    /// Of a step of the log named `origin`; `evidence` names the object that keeps a bad entry.
    pub fn new(trust: &'a TrustFile, origin: &'a str, evidence: &'a dyn Fn(u64, &Hash) -> String) -> Self {
        Judge { trust, origin, rows: Rows::default(), evidence }
    }

    fn find(&mut self, kind: Found, subject: String, detail: String) {
        self.rows.findings.push(Finding::new(kind, self.origin, subject, detail));
    }

    /// An entry that the audit has judged; `state` is brought up to it. Returns the name of the object that shall keep it,
    /// when it is bad and told by itself.
    pub fn entry(
        &mut self,
        index: u64,
        leaf: Hash,
        judged: Result<Entry, AuditError>,
        auditor: &LogAuditor,
        state: &mut LogState,
    ) -> Option<String> {
        match judged {
            Err(error) => self.quarantine(index, leaf, &error, state),
            Ok(entry) => {
                self.sound(index, &entry, auditor, state);
                None
            }
        }
    }

    fn quarantine(
        &mut self,
        index: u64,
        leaf: Hash,
        error: &AuditError,
        state: &mut LogState,
    ) -> Option<String> {
        state.quarantined += 1;
        self.rows.quarantined.push((index, error.to_string()));
        if state.quarantined > TOLD {
            let block = index / BLOCK;
            let (first, end) = (block * BLOCK, (block + 1) * BLOCK);
            let detail = format!(
                "more entries between {first} and {end} are quarantined; `status` counts all of them"
            );
            self.find(Found::Quarantined, format!("block {block}"), detail);
            return None;
        }
        let (subject, key) = (format!("{index} {leaf}"), (self.evidence)(index, &leaf));
        let detail = format!("entry {index} is quarantined: {error}");
        let mut finding = Finding::new(Found::Quarantined, self.origin, subject, detail);
        finding.evidence.push(key.clone());
        self.rows.findings.push(finding);
        Some(key)
    }

    fn sound(&mut self, index: u64, entry: &Entry, auditor: &LogAuditor, state: &mut LogState) {
        let content = entry.content();
        state.newest_millis = content.time.unix_millis;
        let body = &content.body;
        self.catalogue(index, entry, state);
        match entry.kind() {
            Some(Kind::Seal) => {
                state.last_seal = Some((index, content.time.unix_millis));
                state.unanchored_since = state.unanchored_since.or(Some(content.time.unix_millis));
                if let Ok(body) = SealBody::decode(body) {
                    let digest = body.document_digest();
                    self.rows.digests.push((digest.algorithm, digest.value, index));
                    let said = body.relations.iter().map(|said| (Hash(*said.entry), said.kind as u8, index));
                    self.rows.catalogue.relations.extend(said);
                }
            }
            Some(Kind::KeyEpoch) => {
                if let Ok(body) = KeyEpochBody::decode(body) {
                    self.epoch(index, content.residency, &body);
                }
            }
            Some(Kind::Attestation) => {
                if let Ok(AttestationBody { head, quote: Some(quote), .. }) = AttestationBody::decode(body) {
                    self.boot(index, &quote.pcr_values());
                    self.rows.marks.push((Mark::Attestation, head.size, index, 0));
                }
            }
            Some(Kind::Anchor) => {
                if let Ok(body) = AnchorBody::decode(body) {
                    self.anchor(index, &body, state);
                }
            }
            Some(Kind::Manifest) => {
                if let Ok(body) = ManifestBody::decode(body) {
                    let said = &body.statement;
                    self.rows.marks.push((Mark::Manifest, said.head.size, index, said.first));
                }
            }
            Some(Kind::Mirror) => {
                if let Ok(body) = MirrorBody::decode(body) {
                    let held = body.neighbours.iter().filter_map(|neighbour| neighbour.mirrored.as_ref());
                    let marks = held.map(|held| (Mark::Mirror, held.head.size, index, 0));
                    self.rows.marks.extend(marks);
                }
            }
            Some(Kind::OperatorAction) => {
                if let Ok(body) = OperatorActionBody::decode(body) {
                    let leaves = erased_leaves(&body).unwrap_or_default();
                    self.rows.erased.extend(leaves.into_iter().map(|leaf| (leaf, index)));
                }
            }
            _ => {}
        }
        match auditor.open_outage() {
            None => state.outage = None,
            Some((number, _)) if state.outage.is_none_or(|(known, _)| known != number) => {
                state.outage = Some((number, content.time.unix_millis));
            }
            Some(_) => {}
        }
    }

    /// What the log is asked by.
    fn catalogue(&mut self, index: u64, entry: &Entry, state: &mut LogState) {
        let content = entry.content();
        let rows = &mut self.rows.catalogue;
        if index.is_multiple_of(256) {
            rows.places.push((content.lamport, index));
        }
        if entry.kind() != Some(Kind::Seal) {
            rows.others.push((index, content.kind));
        }
        let named = content.evidence.as_ref().map(|named| named.index);
        if named != state.evidence {
            rows.evidence.push((index, named));
            state.evidence = named;
        }
    }

    fn epoch(&mut self, index: u64, residency: Residency, body: &KeyEpochBody) {
        self.rows.marks.push((Mark::Epoch, body.statement.epoch, index, 0));
        if residency == Residency::Software && !self.trust.policy.accept_software {
            let epoch = body.statement.epoch;
            let detail = format!(
                "the sealing key of epoch {epoch} (entry {index}) is in software, and the trust file does not accept that"
            );
            self.find(Found::Policy, format!("epoch {epoch}"), detail);
        }
        if let Endorsement::Quote(quote) = &body.endorsement {
            self.boot(index, &quote.pcr_values());
        }
    }

    fn boot(&mut self, index: u64, pcrs: &[(u8, [u8; 32])]) {
        if !self.trust.references.is_empty() && self.trust.reference_of(pcrs).is_none() {
            let values: Vec<String> =
                pcrs.iter().map(|(pcr, value)| format!("{pcr}:{}", hex::encode(&value[..8]))).collect();
            let detail = format!(
                "the boot state quoted in entry {index} ({}) is none of the trust file's references",
                values.join(" ")
            );
            self.find(Found::Policy, format!("boot {}", values.join(" ")), detail);
        }
    }

    fn anchor(&mut self, index: u64, body: &AnchorBody, state: &mut LogState) {
        let (said, refused) = vouched(body, self.origin, self.trust);
        for (authority, why) in &refused {
            let detail = format!("the proof of {authority} in entry {index} does not hold: {why}");
            self.find(Found::BadAnchor, format!("{index} {authority}"), detail);
        }
        let holds = !said.is_empty();
        if holds && refused.is_empty() {
            self.rows.catalogue.bounds.push((body.head.size, index, said));
        }
        self.rows.marks.push((Mark::Anchor, body.head.size, index, 0));
        if holds && body.head.size > state.anchored {
            state.anchored = body.head.size;
            // Of the seals beyond the head only the newest is remembered: a box is rather given more time than less.
            let last = state.last_seal.filter(|(seal, _)| *seal >= body.head.size);
            state.unanchored_since = last.map(|(_, millis)| millis);
        }
    }
}

/// What the proofs of an anchor say that hold by `trust`; and of those that do not though they should, whose and why.
pub fn vouched(body: &AnchorBody, origin: &str, trust: &TrustFile) -> (Vec<Attested>, Vec<(String, String)>) {
    let (mut said, mut refused) = (Vec::new(), Vec::new());
    for proof in &body.proofs {
        // Boxes keep the CRLs of time stamps beside their logs, so there are none here.
        match anchoring::judge(body, proof, origin, trust.authorities.as_ref(), &[]) {
            Judged::Holds(held) => said.push(held.said),
            Judged::Unknown(_) => {}
            Judged::Refused(why) => refused.push((proof.authority.clone(), why)),
        }
    }
    (said, refused)
}

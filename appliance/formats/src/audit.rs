//! Audit of a whole log, entry by entry from index 0: the judge behind `fsck`.
//!
//! Judges what entries say of themselves, of the tree and of each other: index, previous tree, Lamport
//! time, the chain of key epochs and who vouches for it, every signature, every attestation, the counter.
//! Refuses to do: read storage, judge boot state, or stop at the first fault; the caller decides.
//! Invariants: the tree is recomputed from the bytes handed in, whatever they turn out to be, so that one bad
//! entry does not make its successors look bad; memory is bounded by [`BOUNDARIES_MAX`].

mod ahead;
mod outages;
mod saved;

use crate::body::anchor::AnchorBody;
use crate::body::attestation::{AttestationBody, CheckpointClaim, CounterClaim, CounterEvidence};
use crate::body::clock::ClockBody;
use crate::body::incident::IncidentBody;
use crate::body::integrity::IntegrityBody;
use crate::body::key_epoch::KeyEpochBody;
use crate::body::manifest::ManifestBody;
use crate::body::mirror::MirrorBody;
use crate::body::mode_change::ModeChangeBody;
use crate::body::operator_action::OperatorActionBody;
use crate::body::revocation::RevocationBody;
use crate::body::roster::RosterBody;
use crate::body::seal::{ClientMethod, SealBody};
use crate::body::self_test::{self, SelfTestBody};
use crate::body::succession::SuccessionBody;
use crate::der::DerError;
use crate::endorsement::{AttestationKey, EndorsementError, check_endorsement, check_statement};
use crate::enrolment::{Enrolment, EnrolmentContent, EnrolmentError, Hardware};
use crate::entry::{Entry, EntryContent, Kind, Residency};
use crate::hash::{Hash, empty_root, leaf_hash};
use crate::merkle::Frontier;
use crate::note::checkpoint_text;
use crate::origin::{Origin, OriginError};
use crate::retirement::RETIRE;
use crate::sig::{Algorithm, PublicKey, SignatureError};
use crate::tpm::{self, NvPublic, TpmError};
use crate::trust::TrustFile;
pub use ahead::ReadAhead;
pub use outages::OutageError;
use outages::Outages;
pub use saved::ResumeError;
use std::collections::{BTreeMap, VecDeque};

/// Most batch boundaries remembered for attestations and integrity entries to refer to. An attestation follows its
/// head within minutes and a pass over the disk is compared with the head at its end, so neither reaches back this
/// many batches.
pub const BOUNDARIES_MAX: usize = 1 << 20;
/// Most synthetic seals remembered for self-test entries to refer to; each follows its seal within minutes.
const SELF_TESTS_MAX: usize = 1 << 10;
/// Most anchors remembered for entries to name as their time evidence; each names the newest before its batch.
const EVIDENCE_MAX: usize = 1 << 10;

/// What is wrong with an entry. Always the log's fault, never the caller's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// The entry or its body does not decode.
    #[error(transparent)]
    Der(#[from] DerError),
    /// It says it stands elsewhere.
    #[error("it says it is entry {found}")]
    Index {
        /// Index in the entry.
        found: u64,
    },
    /// The tree it says came before its batch is another one than the entries make up.
    #[error("the tree it names as the one before its batch (size {size}) is not this log's")]
    Previous {
        /// Size it names.
        size: u64,
    },
    /// Lamport time must grow with every entry.
    #[error("its Lamport time {found} does not follow {before}")]
    Lamport {
        /// Time in the entry.
        found: u64,
        /// Time of the entry before.
        before: u64,
    },
    /// It refers to time evidence that is not there.
    #[error("the time evidence it names is no such entry of this log")]
    Evidence,
    /// The log does not begin with a key-epoch entry, so nothing after it can be judged either.
    #[error("no enrolment and sealing key are known: entry 0 is not a sound key-epoch entry")]
    NoBeginning,
    /// Entry 0 embeds an enrolment of another log.
    #[error("it embeds an enrolment of {found}, this is the log {expected}")]
    OtherLog {
        /// Origin enrolled.
        found: String,
        /// Origin expected.
        expected: String,
    },
    /// The enrolment's origin is malformed.
    #[error("its enrolment: {0}")]
    Origin(#[from] OriginError),
    /// The enrolment does not hold.
    #[error("its enrolment: {0}")]
    Enrolment(#[from] EnrolmentError),
    /// The key-epoch entry does not hold.
    #[error("the key epoch: {0}")]
    Endorsement(#[from] EndorsementError),
    /// The chain of epochs is broken.
    #[error("the key epoch: {0}")]
    EpochChain(&'static str),
    /// Not signed by the sealing key of its epoch.
    #[error("{what}: {error}")]
    Signature {
        /// Which signature.
        what: &'static str,
        /// What is wrong with it.
        error: SignatureError,
    },
    /// It claims another epoch, or another home of the key, than the log is in.
    #[error("it claims epoch {found} with its key in {residency}, which is not the epoch in force")]
    OtherEpoch {
        /// Epoch in the entry.
        found: u64,
        /// Residency in the entry.
        residency: Residency,
    },
    /// An attestation does not hold.
    #[error("the attestation: {0}")]
    Attestation(&'static str),
    /// An integrity entry does not fit the log.
    #[error("the integrity entry: {0}")]
    Integrity(&'static str),
    /// A self-test entry does not fit the log.
    #[error("the self-test: {0}")]
    SelfTest(&'static str),
    /// An anchor does not fit the log.
    #[error("the anchor: {0}")]
    Anchor(&'static str),
    /// It stands behind a final entry.
    #[error("the log ended before it, with a final entry")]
    Ended,
    /// A mirror entry does not fit the log.
    #[error("the mirror entry: {0}")]
    Mirror(&'static str),
    /// Modes and outages do not add up.
    #[error(transparent)]
    Outage(#[from] OutageError),
    /// TPM evidence in an attestation does not hold.
    #[error("the attestation's {what}: {error}")]
    Tpm {
        /// Quote or counter.
        what: &'static str,
        /// What is wrong with it.
        error: TpmError,
    },
}

/// What a log's entries amount to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditSummary {
    /// Entries seen.
    pub entries: u64,
    /// Entries by kind number.
    pub kinds: BTreeMap<u16, u64>,
    /// Size of the newest head that a sound attestation with a quote covers.
    pub attested_size: u64,
    /// Newest certified counter value.
    pub counter: Option<u64>,
}

/// The identity that entry 0 establishes.
#[derive(Debug, Clone)]
struct Identity {
    /// As it stands in entry 0.
    enrolment: Vec<u8>,
    log_key: PublicKey,
    hardware: Hardware,
    attestation_key: AttestationKey,
}

/// The epoch in force.
#[derive(Debug, Clone)]
struct Epoch {
    number: u64,
    residency: Residency,
    key: PublicKey,
    leaf_hash: Hash,
    /// The key-epoch entry.
    entry: Vec<u8>,
}

impl Epoch {
    fn new(body: &KeyEpochBody, key: PublicKey, entry: &Entry) -> Self {
        let (number, residency) = (body.statement.epoch, body.statement.sealing_key().residency);
        Epoch { number, residency, key, leaf_hash: entry.leaf_hash(), entry: entry.bytes().to_vec() }
    }
}

/// Judges the entries of one log in order.
#[derive(Debug, Clone)]
pub struct LogAuditor {
    origin: Origin,
    trust: Option<TrustFile>,
    frontier: Frontier,
    /// The tree before the running batch.
    batch: (u64, Hash),
    /// Sizes and roots between batches, oldest first.
    boundaries: VecDeque<(u64, Hash)>,
    lamport: u64,
    identity: Option<Identity>,
    epoch: Option<Epoch>,
    /// Leaf hashes of entries that can be time evidence.
    evidence: BTreeMap<u64, Hash>,
    /// Leaf hashes of the newest synthetic seals.
    self_tests: BTreeMap<u64, Hash>,
    outages: Outages,
    attested_head: u64,
    counter_index: Option<Vec<u8>>,
    /// A final entry was seen.
    ended: bool,
    summary: AuditSummary,
}

impl LogAuditor {
    /// Starts before entry 0 of the log named `origin`. With a trust file, the enrolment in entry 0 must lead to
    /// one of its roots; without one it is taken as it stands, and the audit says nothing about who runs the box.
    pub fn new(origin: Origin, trust: Option<&TrustFile>) -> Self {
        LogAuditor {
            origin,
            trust: trust.cloned(),
            frontier: Frontier::new(),
            batch: (0, empty_root()),
            boundaries: VecDeque::from([(0, empty_root())]),
            lamport: 0,
            identity: None,
            epoch: None,
            evidence: BTreeMap::new(),
            self_tests: BTreeMap::new(),
            outages: Outages::default(),
            attested_head: 0,
            counter_index: None,
            ended: false,
            summary: AuditSummary::default(),
        }
    }

    /// Entries seen.
    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    /// Root over the entries seen.
    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    /// DER of the enrolment that entry 0 establishes; `None` before a sound entry 0.
    pub fn enrolment(&self) -> Option<&[u8]> {
        self.identity.as_ref().map(|identity| identity.enrolment.as_slice())
    }

    /// Number and first entry of the outage that has begun and has no closing manifest yet; drills do not count.
    pub fn open_outage(&self) -> Option<(u64, u64)> {
        self.outages.open()
    }

    /// What was found so far; entries that were refused count as entries, their meaning does not.
    pub fn summary(&self) -> &AuditSummary {
        &self.summary
    }

    /// Judges the next entry, the one at index [`LogAuditor::size`]. After a fault the audit can go on: the
    /// bytes take their place in the tree, and nothing else of a refused entry is believed. A sound entry is
    /// handed back decoded.
    pub fn entry(&mut self, bytes: &[u8]) -> Result<Entry, AuditError> {
        let unsigned = ReadAhead { leaf: leaf_hash(bytes), entry: Entry::decode(bytes), signature: None };
        self.take(unsigned)
    }

    /// Takes the hash of an entry whose bytes are lost: the tree goes on, and what rests on that entry is refused.
    pub fn skip(&mut self, leaf: Hash) {
        self.append(leaf, false);
        self.summary.entries += 1;
    }

    fn append(&mut self, leaf: Hash, is_seal: bool) {
        self.frontier.append(leaf);
        self.outages.leaf(leaf, is_seal);
    }

    fn judge(&mut self, index: u64, ahead: ReadAhead) -> Result<Entry, AuditError> {
        let signature = self.epoch.as_ref().and_then(|epoch| ahead.signature_under(&epoch.leaf_hash));
        let entry = ahead.entry?;
        let content = entry.content();
        if content.index != index {
            return Err(AuditError::Index { found: content.index });
        }
        if self.ended {
            return Err(AuditError::Ended);
        }
        self.previous(index, content)?;
        if index > 0 && content.lamport <= self.lamport {
            return Err(AuditError::Lamport { found: content.lamport, before: self.lamport });
        }
        if let Some(evidence) = &content.evidence
            && self.evidence.get(&evidence.index) != Some(&Hash(*evidence.leaf_hash))
        {
            return Err(AuditError::Evidence);
        }
        match entry.kind() {
            Some(Kind::KeyEpoch) => self.key_epoch(&entry)?,
            _ => self.signed_in_epoch(&entry, signature)?,
        }
        self.outages.mode(&entry)?;
        match entry.kind() {
            Some(Kind::Seal) => self.seal(index, &entry, &SealBody::decode(&content.body)?),
            Some(Kind::Attestation) => self.attestation(index, &AttestationBody::decode(&content.body)?)?,
            Some(Kind::Succession) => SuccessionBody::decode(&content.body).map(drop)?,
            Some(Kind::OperatorAction) => {
                self.ended = OperatorActionBody::decode(&content.body)?.action == RETIRE;
            }
            Some(Kind::Incident) => IncidentBody::decode(&content.body).map(drop)?,
            Some(Kind::Integrity) => self.integrity(index, &IntegrityBody::decode(&content.body)?)?,
            Some(Kind::SelfTest) => self.self_test(&SelfTestBody::decode(&content.body)?)?,
            Some(Kind::Anchor) => self.anchor(index, &entry, &AnchorBody::decode(&content.body)?)?,
            Some(Kind::Mirror) => self.mirror(index, &MirrorBody::decode(&content.body)?)?,
            Some(Kind::ModeChange) => {
                let body = ModeChangeBody::decode(&content.body)?;
                let key = &self.identity.as_ref().ok_or(AuditError::NoBeginning)?.attestation_key;
                self.outages.change(index, &entry, &body, self.origin.as_str(), key)?;
            }
            Some(Kind::Manifest) => {
                let body = ManifestBody::decode(&content.body)?;
                let root = self.boundary(body.statement.head.size);
                let key = &self.identity.as_ref().ok_or(AuditError::NoBeginning)?.attestation_key;
                self.outages.manifest(index, &body, self.origin.as_str(), root, key)?;
            }
            Some(Kind::Roster) => RosterBody::decode(&content.body).map(drop)?,
            Some(Kind::Revocation) => RevocationBody::decode(&content.body).map(drop)?,
            Some(Kind::Clock) => ClockBody::decode(&content.body).map(drop)?,
            // Judged above, or reserved and unknown kinds: opaque leaves.
            _ => {}
        }
        self.lamport = content.lamport;
        *self.summary.kinds.entry(content.kind).or_default() += 1;
        Ok(entry)
    }

    /// The tree before an entry's batch is that of the entry before, or a new batch begins here.
    fn previous(&mut self, index: u64, content: &EntryContent) -> Result<(), AuditError> {
        let named = (content.previous.size, content.previous.root());
        if named != self.batch {
            if named != (index, self.root()) {
                return Err(AuditError::Previous { size: named.0 });
            }
            self.batch = named;
            if self.boundaries.len() == BOUNDARIES_MAX {
                self.boundaries.pop_front();
            }
            self.boundaries.push_back(named);
            self.outages.boundary(index);
        }
        Ok(())
    }

    /// `known` is what was found of the signature beforehand, if that was under this epoch's key.
    fn signed_in_epoch(
        &self,
        entry: &Entry,
        known: Option<Result<(), SignatureError>>,
    ) -> Result<(), AuditError> {
        let (Some(epoch), content) = (&self.epoch, entry.content()) else {
            return Err(AuditError::NoBeginning);
        };
        if (content.epoch, content.residency) != (epoch.number, epoch.residency) {
            return Err(AuditError::OtherEpoch { found: content.epoch, residency: content.residency });
        }
        known
            .unwrap_or_else(|| entry.verify_signature(self.origin.as_str(), &epoch.key))
            .map_err(|error| AuditError::Signature { what: "its signature", error })
    }

    fn key_epoch(&mut self, entry: &Entry) -> Result<(), AuditError> {
        let body = KeyEpochBody::decode(&entry.content().body)?;
        let identity = match (&self.identity, &body.enrolment) {
            (None, Some(enrolment)) => self.enrolled(enrolment)?,
            (Some(identity), None) => identity.clone(),
            (None, None) => return Err(AuditError::NoBeginning),
            (Some(_), Some(_)) => return Err(AuditError::EpochChain("a second enrolment in one log")),
        };
        let origin = self.origin.as_str();
        let key = check_statement(entry, &body, origin, identity.hardware)?;
        entry.verify_signature(origin, &key).map_err(|error| AuditError::Signature {
            what: "its signature by the key it introduces",
            error,
        })?;
        let statement = &body.statement;
        match &self.epoch {
            None if statement.epoch != 0 => {
                return Err(AuditError::EpochChain("the first one is not epoch 0"));
            }
            None => {}
            Some(before) => {
                if statement.epoch != before.number + 1 {
                    return Err(AuditError::EpochChain("its number does not follow the epoch before"));
                }
                if statement.previous.as_ref().map(|hash| Hash(**hash)) != Some(before.leaf_hash) {
                    return Err(AuditError::EpochChain("it names another key-epoch entry as the one before"));
                }
                if let Some(signature) = &body.predecessor {
                    before.key.verify(&statement.successor_message(), signature).map_err(|error| {
                        let what = "the signature of the epoch before over the key epoch";
                        AuditError::Signature { what, error }
                    })?;
                }
            }
        }
        check_endorsement(&body, &identity.attestation_key)?;
        self.identity = Some(identity);
        self.epoch = Some(Epoch::new(&body, key, entry));
        Ok(())
    }

    fn enrolled(&self, bytes: &[u8]) -> Result<Identity, AuditError> {
        let enrolment = Enrolment::decode(bytes)?;
        if let Some(trust) = &self.trust {
            enrolment.verify(&trust.fleet, &trust.roots)?;
        }
        let EnrolmentContent { origin, fleet, ek_spki_sha256, hardware, attestation_key, log_key, .. } =
            &enrolment.content;
        if origin != self.origin.as_str() {
            let (found, expected) = (origin.clone(), self.origin.to_string());
            return Err(AuditError::OtherLog { found, expected });
        }
        if !Origin::parse(origin)?.belongs_to(fleet, &Hash(**ek_spki_sha256)) {
            return Err(EnrolmentError::OriginMismatch(origin.clone()).into());
        }
        let log_key = PublicKey::from_bytes(Algorithm::Ed25519, &**log_key)
            .map_err(|error| AuditError::Signature { what: "the log key", error })?;
        let attestation_key = AttestationKey::read(*hardware, attestation_key)?;
        Ok(Identity { enrolment: bytes.to_vec(), log_key, hardware: *hardware, attestation_key })
    }

    /// Root of the log when it had `size` entries, if that was between two batches that are remembered.
    fn boundary(&self, size: u64) -> Option<Hash> {
        let found = self.boundaries.binary_search_by_key(&size, |boundary| boundary.0).ok()?;
        self.boundaries.get(found).map(|boundary| boundary.1)
    }

    fn seal(&mut self, index: u64, entry: &Entry, body: &SealBody) {
        if body.client.id == self_test::CLIENT && body.client.method == ClientMethod::Local {
            if self.self_tests.len() == SELF_TESTS_MAX {
                self.self_tests.pop_first();
            }
            self.self_tests.insert(index, entry.leaf_hash());
        }
    }

    fn integrity(&self, index: u64, body: &IntegrityBody) -> Result<(), AuditError> {
        let oldest = self.boundaries.front().map_or(0, |boundary| boundary.0);
        if body.head.size > index
            || (body.head.size >= oldest && self.boundary(body.head.size) != Some(body.head.root()))
        {
            return Err(AuditError::Integrity("its head is no state this log was in between two batches"));
        }
        if body.findings.iter().any(|finding| finding.entries.is_some_and(|it| it.last >= body.head.size)) {
            return Err(AuditError::Integrity("it names entries that its head does not have"));
        }
        Ok(())
    }

    fn anchor(&mut self, index: u64, entry: &Entry, body: &AnchorBody) -> Result<(), AuditError> {
        let oldest = self.boundaries.front().map_or(0, |boundary| boundary.0);
        let head = &body.head;
        if head.size > index || (head.size >= oldest && self.boundary(head.size) != Some(head.root())) {
            return Err(AuditError::Anchor("its head is no state this log was in between two batches"));
        }
        if body.leads(self.origin.as_str()).is_err() {
            return Err(AuditError::Anchor("its path does not lead from its head to its batch"));
        }
        if self.evidence.len() == EVIDENCE_MAX {
            self.evidence.pop_first();
        }
        self.evidence.insert(index, entry.leaf_hash());
        Ok(())
    }

    /// The heads are this log's, and every cosignature was made; whose the keys are, cards and rosters know.
    fn mirror(&self, index: u64, body: &MirrorBody) -> Result<(), AuditError> {
        let oldest = self.boundaries.front().map_or(0, |boundary| boundary.0);
        for neighbour in &body.neighbours {
            if neighbour.origin == self.origin.as_str() {
                return Err(AuditError::Mirror("it names this log as its own neighbour"));
            }
            for (_, cosigned) in neighbour.heads() {
                let head = &cosigned.head;
                let known = head.size < oldest || self.boundary(head.size) == Some(head.root());
                if head.size > index || !known {
                    return Err(AuditError::Mirror(
                        "a head in it is no state this log was in between two batches",
                    ));
                }
            }
        }
        body.verify(&self.origin)
            .map_err(|error| AuditError::Signature { what: "a cosignature in the mirror entry", error })
    }

    fn self_test(&self, body: &SelfTestBody) -> Result<(), AuditError> {
        let Some(seal) = &body.seal else { return Ok(()) };
        let oldest = self.self_tests.first_key_value().map_or(0, |(index, _)| *index);
        let forgotten = self.self_tests.len() == SELF_TESTS_MAX && seal.index < oldest;
        if !forgotten && self.self_tests.get(&seal.index) != Some(&Hash(*seal.leaf_hash)) {
            return Err(AuditError::SelfTest("the seal it names is no synthetic seal of this log"));
        }
        Ok(())
    }

    fn attestation(&mut self, index: u64, body: &AttestationBody) -> Result<(), AuditError> {
        let identity = self.identity.as_ref().ok_or(AuditError::NoBeginning)?;
        let head = (body.head.size, body.head.root());
        if head.0 < self.attested_head {
            return Err(AuditError::Attestation("its head is older than one attested before"));
        }
        if head.0 > index || self.boundary(head.0) != Some(head.1) {
            return Err(AuditError::Attestation("its head is no state this log was in between two batches"));
        }
        let text = checkpoint_text(self.origin.as_str(), head.0, &head.1);
        identity.log_key.verify(text.as_bytes(), &body.log_signature).map_err(|error| {
            AuditError::Signature { what: "the log key's signature over the head", error }
        })?;
        if (body.quote.is_some() || body.counter.is_some()) && identity.attestation_key.tpm().is_none() {
            return Err(AuditError::Attestation("a box without TPM has neither quote nor counter"));
        }
        if let (Some(quote), Some(ak)) = (&body.quote, identity.attestation_key.tpm()) {
            let claim = CheckpointClaim {
                origin: self.origin.as_str().to_owned(),
                text: text.as_bytes().to_vec().into(),
            };
            tpm::verify_quote(ak, &quote.attest, &quote.signature, &claim.qualifying_data().0)
                .and_then(|facts| facts.check_pcrs(&quote.pcr_values()))
                .map_err(|error| AuditError::Tpm { what: "quote", error })?;
        }
        if let (Some(counter), Some(ak)) = (&body.counter, identity.attestation_key.tpm()) {
            let index_name = self.counter(body, counter, ak)?;
            self.counter_index = Some(index_name);
            self.summary.counter = Some(counter.value);
        }
        self.attested_head = head.0;
        if body.quote.is_some() {
            self.summary.attested_size = head.0;
        }
        Ok(())
    }

    /// Checks the counter's certificate and returns the name of its NV index.
    fn counter(
        &self,
        body: &AttestationBody,
        counter: &CounterEvidence,
        ak: &tpm::TpmtPublic,
    ) -> Result<Vec<u8>, AuditError> {
        let refuse = |error| AuditError::Tpm { what: "counter", error };
        let claim = CounterClaim {
            origin: self.origin.as_str().to_owned(),
            head: body.head.clone(),
            value: counter.value,
        };
        let qualifying = claim.qualifying_data();
        let facts = tpm::verify_nv_certify(ak, &counter.attest, &counter.signature, &qualifying.0);
        let facts = facts.map_err(refuse)?;
        let public = NvPublic::parse(&counter.nv_public).map_err(refuse)?;
        public.check_counter().map_err(refuse)?;
        if public.name() != facts.index_name {
            return Err(refuse(TpmError::Mismatch { field: "nv.indexName" }));
        }
        if facts.counter != counter.value {
            return Err(refuse(TpmError::Mismatch { field: "nv.nvContents" }));
        }
        if self.counter_index.as_ref().is_some_and(|name| *name != facts.index_name) {
            return Err(AuditError::Attestation("its counter is another one than before"));
        }
        if self.summary.counter.is_some_and(|before| counter.value < before) {
            return Err(AuditError::Attestation("its counter has gone back"));
        }
        Ok(facts.index_name)
    }
}

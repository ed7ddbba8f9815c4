//! A log in memory that makes genuine evidence with known keys: software boxes, and boxes with the shape of a
//! TPM (structures written by hand, signed by a plain P-256 key). What a real TPM makes is tested where one runs.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
#![allow(dead_code, reason = "each test binary uses its own part")]

use bulla_formats::audit::LogAuditor;
use bulla_formats::body::attestation::{AttestationBody, CheckpointClaim, CounterClaim, CounterEvidence};
use bulla_formats::body::key_epoch::{
    Certification, Endorsement, EpochKey, EpochStatement, KeyEpochBody, PcrValue, Purpose, TpmQuote,
    key_certification_data,
};
use bulla_formats::body::seal::{
    Assurance, Client, ClientMethod, DigestAlgorithm, DocumentDigest, DocumentHasher, Field, Observation,
    Opening, SealBody,
};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{Enrolment, EnrolmentContent, Hardware};
use bulla_formats::entry::{Entry, EntryContent, Kind, LocalTime, Mode, Residency, TreeState};
use bulla_formats::hash::{Hash, node_hash, sha256};
use bulla_formats::merkle::{Frontier, HashReader, inclusion_proof};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line, quote_line};
use bulla_formats::origin::Origin;
use bulla_formats::seal_file::{Head, SealFile};
use bulla_formats::sig::Algorithm;
use bulla_formats::tpm::pcr_digest;
use bulla_formats::trust::{Policy, TrustFile};
use ed25519_dalek::{Signer as _, SigningKey};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use std::convert::Infallible;

pub const FLEET: &str = "bank.example";
pub const NOW: u64 = 1_790_000_000_000;
/// TPM_ALG_SHA256 and a TPM's name for something.
const SHA256_ID: [u8; 2] = [0, 0x0b];

struct Leaves(Vec<Hash>);

impl HashReader for Leaves {
    type Error = Infallible;
    fn subtree(&self, level: u8, index: u64) -> Result<Hash, Infallible> {
        if level == 0 {
            return Ok(self.0[usize::try_from(index).unwrap()]);
        }
        let (left, right) = (self.subtree(level - 1, 2 * index)?, self.subtree(level - 1, 2 * index + 1)?);
        Ok(node_hash(&left, &right))
    }
}

/// The key of an epoch.
enum Sealing {
    Ed25519(SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl Sealing {
    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Sealing::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
            Sealing::P256(key) => {
                let signature: p256::ecdsa::Signature = key.sign(message);
                signature.to_bytes().to_vec()
            }
        }
    }

    fn public(&self) -> (Algorithm, Vec<u8>) {
        match self {
            Sealing::Ed25519(key) => (Algorithm::Ed25519, key.verifying_key().to_bytes().to_vec()),
            Sealing::P256(key) => (Algorithm::P256, point(key)),
        }
    }
}

/// One box with its log.
pub struct Log {
    pub hardware: Hardware,
    pub origin: Origin,
    pub entries: Vec<Entry>,
    pub enrolment: Vec<u8>,
    pub pcrs: Vec<(u8, [u8; 32])>,
    pub openings: Vec<Vec<Vec<u8>>>,
    pub counter: u64,
    seed: u8,
    root_key: SigningKey,
    log_key: SigningKey,
    sealing_key: Sealing,
    resident: Option<&'static str>,
    attestation_key: p256::ecdsa::SigningKey,
    attestation_public: Vec<u8>,
    epoch: u64,
    epoch_entries: Vec<usize>,
    leaves: Leaves,
    frontier: Frontier,
    lamport: u64,
}

/// Bytes of a P-256 point.
fn point(key: &p256::ecdsa::SigningKey) -> Vec<u8> {
    key.verifying_key().to_sec1_point(false).as_bytes().to_vec()
}

/// TPMT_PUBLIC of a P-256 key that never left its TPM.
fn public_area(key: &p256::ecdsa::SigningKey, restricted: bool) -> Vec<u8> {
    // fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, sign; restricted.
    let attributes = 0x0004_0472u32 | if restricted { 0x0001_0000 } else { 0 };
    // Empty policy, no symmetric cipher, ECDSA with SHA-256 on P-256, no KDF.
    let rest = [0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 0x03, 0, 0x10];
    let (head, point) = ([&[0, 0x23][..], &SHA256_ID, &attributes.to_be_bytes(), &rest].concat(), point(key));
    [head, sized(&point[1..33]), sized(&point[33..])].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// The key of [`Log::parting_key`].
fn parting_key() -> p256::ecdsa::SigningKey {
    p256::ecdsa::SigningKey::from_slice(&sha256(&[b"farewell"]).0).unwrap()
}

/// TPMS_ATTEST of this type and its TPMT_SIGNATURE, at this clock and count of resets.
fn attest_by(
    key: &p256::ecdsa::SigningKey,
    kind: u16,
    qualifying: &Hash,
    attested: &[u8],
    (clock, resets): (u64, u32),
) -> (Vec<u8>, Vec<u8>) {
    let name = [&SHA256_ID[..], &sha256(&[b"qualified signer"]).0].concat();
    let mut attest = 0xff54_4347u32.to_be_bytes().to_vec();
    attest.extend_from_slice(&kind.to_be_bytes());
    attest.extend(sized(&name));
    attest.extend(sized(&qualifying.0));
    attest.extend_from_slice(&clock.to_be_bytes());
    attest.extend_from_slice(&resets.to_be_bytes());
    attest.extend_from_slice(&0u32.to_be_bytes());
    attest.push(1);
    attest.extend_from_slice(&0x2023_0101u64.to_be_bytes());
    attest.extend_from_slice(attested);
    let signature: p256::ecdsa::Signature = key.sign(&attest);
    let bytes = signature.to_bytes();
    let head = [0, 0x18, 0, 0x0b];
    (attest, [&head[..], &sized(&bytes[..32]), &sized(&bytes[32..])].concat())
}

impl Log {
    /// A new box with entry 0; `seed` makes its keys, boxes of equal seed have the same fleet root.
    pub fn new(hardware: Hardware, seed: u8) -> Self {
        Self::make(hardware, seed, None)
    }

    /// A TPM box whose sealing key lives in the TPM, where it was certified for `role`.
    pub fn resident(seed: u8, role: &'static str) -> Self {
        Self::make(Hardware::Tpm, seed, Some(role))
    }

    fn make(hardware: Hardware, seed: u8, resident: Option<&'static str>) -> Self {
        let root_key = SigningKey::from_bytes(&[200; 32]);
        let log_key = SigningKey::from_bytes(&[seed; 32]);
        let attestation_key = p256::ecdsa::SigningKey::from_slice(&[seed.max(1); 32]).unwrap();
        let attestation_public = match hardware {
            Hardware::Software => point(&attestation_key),
            Hardware::Tpm => public_area(&attestation_key, true),
        };
        let ek = sha256(&[b"endorsement key", &[seed]]);
        let origin = Origin::derive(FLEET, &ek, 1).unwrap();
        let content = EnrolmentContent {
            version: 1,
            fleet: FLEET.into(),
            origin: origin.to_string(),
            hardware,
            ek_spki_sha256: Octets32::new(ek.0),
            ek_certificates: Vec::new(),
            attestation_key: attestation_public.clone().into(),
            log_key: Octets32::new(log_key.verifying_key().to_bytes()),
            enrolled_at: NOW,
        };
        let signature = root_key.sign(&content.message()).to_bytes().to_vec().into();
        let enrolment = der::encode(&Enrolment { content, chain: Vec::new(), signature });
        let mut log = Log {
            hardware,
            origin,
            entries: Vec::new(),
            enrolment,
            pcrs: vec![(0, [0xa0; 32]), (7, [0xa7; 32]), (11, [0xab; 32])],
            openings: Vec::new(),
            counter: 40,
            seed,
            root_key,
            log_key,
            sealing_key: Sealing::Ed25519(SigningKey::from_bytes(&[0; 32])),
            resident,
            attestation_key,
            attestation_public,
            epoch: 0,
            epoch_entries: Vec::new(),
            leaves: Leaves(Vec::new()),
            frontier: Frontier::new(),
            lamport: 0,
        };
        log.rotate(false);
        log
    }

    pub fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub fn root(&self) -> Hash {
        self.frontier.root()
    }

    pub fn trust(&self) -> TrustFile {
        TrustFile {
            fleet: FLEET.into(),
            issued_millis: NOW,
            roots: vec![self.root_key.verifying_key().to_bytes()],
            references: Vec::new(),
            policy: Policy { accept_software: true, require_facts: Vec::new() },
            roster: None,
            authorities: None,
            cosigners: Vec::new(),
        }
    }

    fn residency(&self) -> Residency {
        match self.hardware {
            Hardware::Tpm if self.resident.is_some() => Residency::Tpm,
            Hardware::Tpm => Residency::TpmEndorsedRam,
            Hardware::Software => Residency::Software,
        }
    }

    /// The header of the next entry, a batch of its own.
    pub fn content(&self, kind: u16, body: Vec<u8>) -> EntryContent {
        EntryContent {
            version: 1,
            index: self.size(),
            lamport: self.lamport + 1,
            time: LocalTime { unix_millis: NOW + self.size(), uncertainty_millis: Some(250) },
            mode: Mode::AirGapped,
            drill: false,
            epoch: self.epoch,
            residency: self.residency(),
            previous: TreeState::new(self.size(), self.root()),
            evidence: None,
            kind,
            body: body.into(),
        }
    }

    /// Signs `content` and appends it, whatever it says.
    pub fn append(&mut self, content: EntryContent) -> u64 {
        let signature = self.sealing_key.sign(&content.message(self.origin.as_str()));
        self.lamport = content.lamport;
        self.append_entry(Entry::assemble(content, signature).unwrap())
    }

    pub fn append_entry(&mut self, entry: Entry) -> u64 {
        self.leaves.0.push(entry.leaf_hash());
        self.frontier.append(entry.leaf_hash());
        self.entries.push(entry);
        self.openings.push(Vec::new());
        self.size() - 1
    }

    /// Starts the next epoch; with the old key's signature when `handed_over`.
    pub fn rotate(&mut self, handed_over: bool) -> u64 {
        let previous = self.epoch_entries.last().map(|at| Octets32::new(self.entries[*at].leaf_hash().0));
        let number = self.epoch_entries.len() as u64;
        let secret = sha256(&[&[self.seed], &number.to_be_bytes()]).0;
        let (key, certification) = if let Some(role) = self.resident {
            let key = p256::ecdsa::SigningKey::from_slice(&secret).unwrap();
            let certification = self.certification(&key, role);
            (Sealing::P256(key), Some(certification))
        } else {
            (Sealing::Ed25519(SigningKey::from_bytes(&secret)), None)
        };
        let (algorithm, public_key) = key.public();
        let statement = EpochStatement {
            version: 1,
            origin: self.origin.to_string(),
            epoch: number,
            previous,
            keys: vec![EpochKey {
                purpose: Purpose::Sealing,
                algorithm,
                residency: self.residency(),
                public_key: public_key.into(),
                certification,
            }],
        };
        let predecessor = handed_over.then(|| self.sealing_key.sign(&statement.successor_message()).into());
        let endorsement = self.endorse(&statement);
        let enrolment = (number == 0).then(|| self.enrolment.clone().into());
        let first_index = self.size();
        let body = KeyEpochBody {
            statement,
            first_index,
            previous_extended: false,
            endorsement,
            predecessor,
            enrolment,
        };
        (self.epoch, self.sealing_key) = (number, key);
        self.epoch_entries.push(self.entries.len());
        self.append(self.content(Kind::KeyEpoch as u16, der::encode(&body)))
    }

    /// A certification of the shape TPM2_Certify returns.
    fn certification(&self, key: &p256::ecdsa::SigningKey, role: &str) -> Certification {
        let public_area = public_area(key, false);
        let name = [&SHA256_ID[..], &sha256(&[&public_area]).0].concat();
        let attested = [sized(&name), sized(&name)].concat();
        let (attest, signature) = self.attest(0x8017, &key_certification_data(role), &attested);
        Certification { public_area: public_area.into(), attest: attest.into(), signature: signature.into() }
    }

    fn endorse(&self, statement: &EpochStatement) -> Endorsement {
        let qualifying = statement.qualifying_data();
        match self.hardware {
            Hardware::Tpm => Endorsement::Quote(self.quote(&qualifying)),
            Hardware::Software => {
                let signature: p256::ecdsa::Signature =
                    self.attestation_key.sign_prehash(&qualifying.0).unwrap();
                Endorsement::Software(signature.to_bytes().to_vec().into())
            }
        }
    }

    fn attest(&self, kind: u16, qualifying: &Hash, attested: &[u8]) -> (Vec<u8>, Vec<u8>) {
        attest_by(&self.attestation_key, kind, qualifying, attested, (123_456, 7))
    }

    /// What the log key says.
    pub fn signed_by_log_key(&self, message: &[u8]) -> Vec<u8> {
        self.log_key.sign(message).to_bytes().to_vec()
    }

    /// What the device key of a software box says of a digest.
    pub fn signed_by_device(&self, digest: &Hash) -> Vec<u8> {
        let signature: p256::ecdsa::Signature = self.attestation_key.sign_prehash(&digest.0).unwrap();
        signature.to_bytes().to_vec()
    }

    /// A key that outlives the others, and the attestation key's word for it: public area, TPMS_ATTEST, signature.
    pub fn parting_key(&self, qualifying: &Hash, restricted: bool) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let area = public_area(&parting_key(), restricted);
        let name = [&SHA256_ID[..], &sha256(&[&area]).0].concat();
        let (attest, signature) = self.attest(0x8017, qualifying, &[sized(&name), sized(&name)].concat());
        (area, attest, signature)
    }

    /// Its quote, when the TPM's clock and its count of resets are these.
    pub fn parting_quote(&self, qualifying: &Hash, clock: (u64, u32)) -> TpmQuote {
        self.quote_by(&parting_key(), qualifying, clock)
    }

    fn quote_by(&self, key: &p256::ecdsa::SigningKey, qualifying: &Hash, clock: (u64, u32)) -> TpmQuote {
        let mut bitmap = [0u8; 3];
        for (pcr, _) in &self.pcrs {
            bitmap[usize::from(pcr / 8)] |= 1 << (pcr % 8);
        }
        let attested =
            [&[0, 0, 0, 1][..], &SHA256_ID, &[3], &bitmap, &sized(&pcr_digest(&self.pcrs).0)].concat();
        let (attest, signature) = attest_by(key, 0x8018, qualifying, &attested, clock);
        let pcrs = self
            .pcrs
            .iter()
            .map(|(pcr, value)| PcrValue { pcr: *pcr, value: Octets32::new(*value) })
            .collect();
        TpmQuote { attest: attest.into(), signature: signature.into(), pcrs }
    }

    /// A quote of the shape TPM2_Quote returns.
    pub fn quote(&self, qualifying: &Hash) -> TpmQuote {
        self.quote_by(&self.attestation_key, qualifying, (123_456, 7))
    }

    /// A certified counter of the shape TPM2_NV_Certify returns.
    pub fn counter_evidence(&self, head: &TreeState, value: u64) -> CounterEvidence {
        // Owner NV handle, SHA-256 name, a written counter, no policy, eight bytes.
        let attributes = ((1u32 << 29) | (1 << 4)).to_be_bytes();
        let nv_public = [&[1, 0x40, 0, 1][..], &SHA256_ID, &attributes, &[0, 0], &[0, 8]].concat();
        let name = [&SHA256_ID[..], &sha256(&[&nv_public]).0].concat();
        let attested = [sized(&name), vec![0, 0], sized(&value.to_be_bytes())].concat();
        let claim = CounterClaim { origin: self.origin.to_string(), head: head.clone(), value };
        let (attest, signature) = self.attest(0x8014, &claim.qualifying_data(), &attested);
        CounterEvidence {
            value,
            attest: attest.into(),
            signature: signature.into(),
            nv_public: nv_public.into(),
        }
    }

    fn text(&self, size: u64) -> String {
        let mut frontier = Frontier::new();
        for leaf in &self.leaves.0[..usize::try_from(size).unwrap()] {
            frontier.append(*leaf);
        }
        checkpoint_text(self.origin.as_str(), size, &frontier.root())
    }

    /// Body of an attestation of the head as it is now.
    pub fn attestation_body(&self) -> AttestationBody {
        let head = TreeState::new(self.size(), self.root());
        let text = self.text(self.size());
        let log_signature = self.log_key.sign(text.as_bytes()).to_bytes().to_vec().into();
        let origin = self.origin.to_string();
        let claim = CheckpointClaim { origin, text: text.into_bytes().into() };
        let (quote, counter, reason) = match self.hardware {
            Hardware::Tpm => {
                let counter = self.counter_evidence(&head, self.counter);
                (Some(self.quote(&claim.qualifying_data())), Some(counter), None)
            }
            Hardware::Software => (None, None, Some("this box has no TPM".to_owned())),
        };
        AttestationBody { head, log_signature, quote, counter, event_log: None, reason }
    }

    /// Logs an attestation of the head as it is now.
    pub fn attestation(&mut self) -> u64 {
        let body = self.attestation_body();
        self.counter += 1;
        self.append(self.content(Kind::Attestation as u16, der::encode(&body)))
    }

    /// A checkpoint of the first `size` entries.
    pub fn checkpoint(&self, size: u64, quoted: bool) -> String {
        let text = self.text(size);
        let name = self.origin.as_str();
        let signature = self.log_key.sign(text.as_bytes()).to_bytes();
        let mut lines = vec![log_line(name, &self.log_key.verifying_key().to_bytes(), &signature)];
        if quoted {
            let claim = CheckpointClaim { origin: name.to_owned(), text: text.clone().into_bytes().into() };
            let quote = self.quote(&claim.qualifying_data());
            lines.push(quote_line(name, &self.attestation_public, &quote.attest, &quote.signature));
        }
        SignedNote { text, lines }.encode()
    }

    pub fn proof(&self, index: u64, size: u64) -> Vec<Vec<u8>> {
        let proof = inclusion_proof(index, size, &self.leaves).unwrap();
        proof.into_iter().map(|hash| hash.0.to_vec()).collect()
    }

    /// The body of a seal over `document`, with openings of a user and two metadata fields.
    pub fn seal_body(&self, document: &DocumentDigest) -> (SealBody, Vec<Vec<u8>>) {
        let opening = |field, assurance, name: &str, value: &str| Opening {
            field,
            assurance,
            salt: Octets32::new(sha256(&[name.as_bytes(), &self.size().to_be_bytes()]).0),
            name: name.into(),
            value: value.into(),
        };
        let openings = [
            opening(Field::User, Assurance::Authenticated, "user", "m.keller"),
            opening(Field::Metadata, Assurance::Asserted, "branch", "Zürich 3"),
            opening(Field::Metadata, Assurance::Asserted, "filename", "scan.pdf"),
        ];
        let body = SealBody {
            algorithm: document.algorithm,
            digest: document.value.clone().into(),
            size: document.size,
            media_type: "application/pdf".into(),
            observation: Observation::BytesObserved,
            client: Client { id: "mfp-3".into(), method: ClientMethod::BearerToken },
            transport: "https/1.1 tls1.3".into(),
            commitments: openings.iter().map(Opening::commitment).collect(),
            relations: Vec::new(),
        };
        (body, openings.iter().map(der::encode).collect())
    }

    /// Seals `document`.
    pub fn seal(&mut self, document: &[u8]) -> u64 {
        let (body, openings) = self.seal_body(&digest(document));
        let index = self.append(self.content(Kind::Seal as u16, der::encode(&body)));
        self.openings[usize::try_from(index).unwrap()] = openings;
        index
    }

    /// The head of `size` entries for entry `index`.
    pub fn head(&self, index: u64, size: u64, quoted: bool) -> Head {
        let epoch = self.epoch_before(index);
        Head {
            checkpoint: self.checkpoint(size, quoted),
            entry_proof: self.proof(index, size),
            epoch_proof: self.proof(epoch, size),
            pcrs: quoted.then(|| self.pcrs.clone()),
        }
    }

    fn epoch_before(&self, index: u64) -> u64 {
        *self.epoch_entries.iter().filter(|at| **at as u64 <= index).max().unwrap() as u64
    }

    /// The `.seal` of entry `index` under the newest head.
    pub fn seal_file(&self, index: u64, quoted: bool) -> SealFile {
        let at = usize::try_from(index).unwrap();
        SealFile {
            origin: self.origin.to_string(),
            entry: self.entries[at].bytes().to_vec(),
            epoch: self.entries[usize::try_from(self.epoch_before(index)).unwrap()].bytes().to_vec(),
            enrolment: self.enrolment.clone(),
            heads: vec![self.head(index, self.size(), quoted)],
            openings: self.openings[at].clone(),
            erasures: Vec::new(),
            anchors: Vec::new(),
            evidence: None,
            crls: Vec::new(),
            manifests: Vec::new(),
            revocations: Vec::new(),
            cosignatures: Vec::new(),
            unknown: serde_json::Map::new(),
        }
    }
}

/// SHA-256 of a document, as a box makes it.
pub fn digest(document: &[u8]) -> DocumentDigest {
    let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
    hasher.update(document);
    hasher.finish()
}

/// Index and fault of each refused entry, by an audit that is laid aside and taken up before every entry, keeps its
/// boundaries as rows elsewhere, and reads a few entries ahead.
pub fn audit_in_pieces(
    origin: &Origin,
    trust: &TrustFile,
    entries: &[Vec<u8>],
) -> Vec<(u64, bulla_formats::audit::AuditError)> {
    const AHEAD: usize = 3;
    let mut auditor = LogAuditor::new(origin.clone(), Some(trust));
    let mut boundaries: Vec<(u64, Hash)> = auditor.boundaries_after(0).collect();
    boundaries.insert(0, (0, bulla_formats::hash::empty_root()));
    let mut faults = Vec::new();
    for chunk in entries.chunks(AHEAD) {
        let read: Vec<_> = chunk.iter().map(|entry| auditor.read_ahead(entry)).collect();
        for ahead in read {
            let index = auditor.size();
            faults.extend(auditor.take(ahead).err().map(|error| (index, error)));
            let newest = boundaries.last().unwrap().0;
            boundaries.extend(auditor.boundaries_after(newest));
            let (saved, (size, root)) = (auditor.save(), (auditor.size(), auditor.root()));
            let resumed = LogAuditor::resume(origin.clone(), Some(trust), &saved, boundaries.iter().copied());
            auditor = resumed.unwrap();
            assert_eq!((auditor.size(), auditor.root()), (size, root));
            assert_eq!(auditor.save(), saved);
        }
    }
    faults
}

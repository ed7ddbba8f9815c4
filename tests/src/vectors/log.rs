//! A log in memory that follows a plan: enrolment, epochs, entries, checkpoints, quotes.
//!
//! Refuses to do: check what it is told to make.
//! Invariant: the same plan makes the same bytes.

use super::der::signed;
use super::keys;
use super::plan::{FLEET, NOW, Plan, Sealing, opening, run};
use super::shapes::{Attest, PublicArea, Use, certify_info, name_of, quote_info};
use bulla_formats::body::attestation::CheckpointClaim;
use bulla_formats::body::key_epoch::{
    Certification, Endorsement, EpochKey, EpochStatement, KeyEpochBody, PcrValue, Purpose, TpmQuote,
    key_certification_data,
};
use bulla_formats::body::seal::{
    Assurance, Client, ClientMethod, DocumentHasher, Field, Observation, Opening, SealBody,
};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{Enrolment, EnrolmentContent, FleetCertificate, Hardware};
use bulla_formats::entry::{EntryContent, EntryRef, Kind, LocalTime, Residency, TreeState};
use bulla_formats::erasure::erase_body;
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::{Frontier, inclusion_proof, root};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line, quote_line};
use bulla_formats::origin::Origin;
use bulla_formats::seal_file::{Head, Placed, SealFile};
use bulla_formats::sig::{Algorithm, label, labelled, labelled_with_origin};
use ed25519_dalek::SigningKey;

/// The key of an epoch.
pub(super) enum Sealer {
    Ed25519(SigningKey),
    P256(p256::ecdsa::SigningKey),
}

impl Sealer {
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Sealer::Ed25519(key) => keys::sign_ed25519(key, message),
            Sealer::P256(key) => keys::sign_p256(key, message),
        }
    }

    fn public(&self) -> (Algorithm, Vec<u8>) {
        match self {
            Sealer::Ed25519(key) => (Algorithm::Ed25519, key.verifying_key().to_bytes().to_vec()),
            Sealer::P256(key) => (Algorithm::P256, keys::point(key)),
        }
    }
}

/// What has been made so far.
pub(super) struct Log<'a> {
    plan: &'a Plan,
    pub(super) origin: String,
    pub(super) entries: Vec<Vec<u8>>,
    pub(super) enrolment: Vec<u8>,
    pub(super) attestation_key: p256::ecdsa::SigningKey,
    attestation_public: Vec<u8>,
    log_key: SigningKey,
    leaves: Vec<Hash>,
    frontier: Frontier,
    epoch: u64,
    pub(super) sealer: Sealer,
    epoch_entry: usize,
    /// The newest anchor.
    evidence: Option<EntryRef>,
}

impl<'a> Log<'a> {
    /// Follows the plan.
    pub(super) fn of(plan: &'a Plan) -> Self {
        let attestation_key = keys::p256(&plan.attestation_key);
        let mut attestation_public = match plan.hardware {
            Hardware::Software => keys::point(&attestation_key),
            Hardware::Tpm => {
                let mut area = PublicArea::of(&attestation_key, true);
                run(&plan.hooks.attestation_area, &mut area);
                area.bytes()
            }
        };
        run(&plan.hooks.attestation_bytes, &mut attestation_public);
        let log_key = keys::ed25519("log key");
        let ek = sha256(&[b"endorsement key"]);
        let origin = Origin::derive(FLEET, &ek, 1).expect("the fleet is a domain").to_string();
        let mut log = Log {
            plan,
            origin,
            entries: Vec::new(),
            enrolment: Vec::new(),
            attestation_key,
            attestation_public,
            log_key,
            leaves: Vec::new(),
            frontier: Frontier::new(),
            epoch: 0,
            sealer: log_sealer(plan, 0),
            epoch_entry: 0,
            evidence: None,
        };
        log.enrolment = log.enrol(ek);
        log.fill();
        log
    }

    fn fill(&mut self) {
        let plan = self.plan;
        self.begin_epoch(0);
        for epoch in 1..=plan.epoch {
            self.filler();
            if plan.token_first && epoch == plan.epoch {
                (self.epoch, self.sealer) = (epoch, log_sealer(plan, epoch));
                self.token();
                self.sealer = log_sealer(plan, epoch - 1);
            }
            self.begin_epoch(epoch);
        }
        while self.size() < plan.index {
            self.filler();
        }
        if !plan.token_first {
            self.token();
        }
        while self.size() < plan.size - u64::from(plan.erased) {
            self.filler();
        }
        if plan.erased {
            self.erasure();
        }
    }

    /// The entry that says that the token's openings are destroyed.
    fn erasure(&mut self) {
        let hooks = &self.plan.hooks;
        let mut body = erase_body(&[self.leaves[self.token_index()]], "request 7 of 2026".into());
        run(&hooks.erasure_body, &mut body);
        let mut content = self.content(Kind::OperatorAction, der::encode(&body));
        run(&hooks.erasure_content, &mut content);
        self.append(self.entry(&content));
    }

    fn erasures(&self) -> Vec<Placed> {
        let (index, size) = (self.plan.size - 1, self.plan.size);
        let erasure = || Placed {
            entry: self.entries[index as usize].clone(),
            checkpoint: self.checkpoint(size, false, &Vec::new()),
            entry_proof: self.proof(index, size),
        };
        self.plan.erased.then(erasure).into_iter().collect()
    }

    fn enrol(&self, ek: Hash) -> Vec<u8> {
        let (plan, hooks) = (self.plan, &self.plan.hooks);
        let mut content = EnrolmentContent {
            version: 1,
            fleet: FLEET.into(),
            origin: self.origin.clone(),
            hardware: plan.hardware,
            ek_spki_sha256: Octets32::new(ek.0),
            ek_certificates: Vec::new(),
            attestation_key: self.attestation_public.clone().into(),
            log_key: Octets32::new(self.log_key.verifying_key().to_bytes()),
            enrolled_at: NOW,
        };
        run(&hooks.enrolment, &mut content);
        let mut message = content.message();
        run(&hooks.enrolment_message, &mut message);
        let certificate = |authority: &super::plan::Authority| {
            let message = labelled(authority.label, &der::encode(&authority.content));
            let signature = keys::sign_ed25519(&authority.issuer, &message).into();
            FleetCertificate { content: authority.content.clone(), signature }
        };
        let chain = plan.chain.iter().map(certificate).collect();
        let signature = keys::sign_ed25519(&plan.enroller, &message).into();
        let mut enrolment = Enrolment { content, chain, signature };
        run(&hooks.enrolled, &mut enrolment);
        let mut bytes = der::encode(&enrolment);
        run(&hooks.enrolment_der, &mut bytes);
        bytes
    }

    pub(super) fn size(&self) -> u64 {
        self.frontier.size()
    }

    fn residency(&self) -> Residency {
        match (self.plan.hardware, self.plan.sealing) {
            (Hardware::Software, _) => Residency::Software,
            (Hardware::Tpm, Sealing::Resident(_)) => Residency::Tpm,
            (Hardware::Tpm, _) => Residency::TpmEndorsedRam,
        }
    }

    fn content(&self, kind: Kind, body: Vec<u8>) -> EntryContent {
        EntryContent {
            version: 1,
            index: self.size(),
            lamport: self.size() + 1,
            time: LocalTime { unix_millis: NOW + 1_000 * self.size(), uncertainty_millis: Some(250) },
            mode: (self.plan.mode)(self.size()),
            drill: false,
            epoch: self.epoch,
            residency: self.residency(),
            previous: TreeState::new(self.size(), self.frontier.root()),
            evidence: self.evidence.clone(),
            kind: kind as u16,
            body: body.into(),
        }
    }

    /// The bytes of an entry as a box signs it.
    pub(super) fn entry(&self, content: &EntryContent) -> Vec<u8> {
        self.entry_of(&der::encode(content))
    }

    /// The same from the bytes of its content, whatever they are.
    pub(super) fn entry_of(&self, content: &[u8]) -> Vec<u8> {
        signed(content, &self.sealer.sign(&self.message(content)))
    }

    /// What the sealing key signs.
    pub(super) fn message(&self, content: &[u8]) -> Vec<u8> {
        labelled_with_origin(label::ENTRY, &self.origin, content)
    }

    fn append(&mut self, entry: Vec<u8>) {
        let leaf = leaf_hash(&entry);
        self.leaves.push(leaf);
        self.frontier.append(leaf);
        self.entries.push(entry);
    }

    fn begin_epoch(&mut self, number: u64) {
        let (plan, hooks) = (self.plan, &self.plan.hooks);
        let chosen = number == plan.epoch;
        let previous = (number > 0).then(|| Octets32::new(self.leaves[self.epoch_entry].0));
        let sealer = log_sealer(plan, number);
        let (algorithm, public_key) = sealer.public();
        let certification = match (&sealer, plan.sealing) {
            (Sealer::P256(key), Sealing::Resident(role)) => Some(self.certify(key, role, chosen)),
            _ => None,
        };
        let residency = self.residency();
        let mut all = vec![EpochKey {
            purpose: Purpose::Sealing,
            algorithm,
            residency,
            public_key: public_key.into(),
            certification,
        }];
        if let Some(role) = plan.interop {
            let key = keys::p256("interop key");
            all.push(EpochKey {
                purpose: Purpose::Interop,
                algorithm: Algorithm::P256,
                residency: Residency::Tpm,
                public_key: keys::point(&key).into(),
                certification: Some(self.certify(&key, role, chosen)),
            });
        }
        let mut statement =
            EpochStatement { version: 1, origin: self.origin.clone(), epoch: number, previous, keys: all };
        if chosen {
            run(&hooks.statement, &mut statement);
        }
        let handed_over = number > 0 && plan.handed_over;
        let predecessor = handed_over.then(|| self.sealer.sign(&statement.successor_message()).into());
        let endorsement = self.endorse(&statement, chosen);
        let enrolment = (number == 0).then(|| self.enrolment.clone().into());
        let first_index = self.size();
        let previous_extended = false;
        let mut body =
            KeyEpochBody { statement, first_index, previous_extended, endorsement, predecessor, enrolment };
        if chosen {
            run(&hooks.epoch_body, &mut body);
        }
        let mut body = der::encode(&body);
        if chosen {
            run(&hooks.epoch_body_der, &mut body);
        }
        (self.epoch, self.sealer, self.epoch_entry) = (number, sealer, self.entries.len());
        let mut content = self.content(Kind::KeyEpoch, body);
        if chosen {
            run(&hooks.epoch_content, &mut content);
        }
        let entry = match &plan.make_epoch {
            Some(make) if chosen => make(self, &content),
            _ => self.entry(&content),
        };
        self.append(entry);
    }

    fn certify(&self, key: &p256::ecdsa::SigningKey, role: &str, chosen: bool) -> Certification {
        let hooks = &self.plan.hooks;
        let mut area = PublicArea::of(key, false);
        if chosen {
            run(&hooks.key_area, &mut area);
        }
        let area = area.bytes();
        let info = certify_info(&name_of(&area));
        let (attest, signature) = self.attest(Use::Key, &key_certification_data(role), info, chosen);
        Certification { public_area: area.into(), attest: attest.into(), signature: signature.into() }
    }

    fn endorse(&self, statement: &EpochStatement, chosen: bool) -> Endorsement {
        let qualifying = statement.qualifying_data();
        match self.plan.hardware {
            Hardware::Software => {
                Endorsement::Software(keys::sign_p256_digest(&self.attestation_key, &qualifying.0).into())
            }
            Hardware::Tpm => Endorsement::Quote(self.quote(statement, chosen)),
        }
    }

    /// A quote over a statement.
    pub(super) fn quote(&self, statement: &EpochStatement, chosen: bool) -> TpmQuote {
        let info = quote_info(&self.plan.pcrs);
        let (attest, signature) = self.attest(Use::Epoch, &statement.qualifying_data(), info, chosen);
        let value = |(pcr, value): &(u8, [u8; 32])| PcrValue { pcr: *pcr, value: Octets32::new(*value) };
        let pcrs = self.plan.pcrs.iter().map(value).collect();
        TpmQuote { attest: attest.into(), signature: signature.into(), pcrs }
    }

    fn attest(&self, purpose: Use, qualifying: &Hash, info: Vec<u8>, chosen: bool) -> (Vec<u8>, Vec<u8>) {
        let mut attest = Attest::new(purpose, self.attestation_key.clone(), qualifying, info);
        if chosen {
            run(&self.plan.hooks.attest, &mut attest);
        }
        let mut signature = attest.sign();
        if chosen {
            run(&self.plan.hooks.tpm_signature, &mut signature);
        }
        (attest.bytes(), signature.bytes())
    }

    fn token(&mut self) {
        let (plan, hooks) = (self.plan, &self.plan.hooks);
        let mut body = self.seal_body(&plan.sealed_document, &plan.commitments);
        run(&hooks.body, &mut body);
        let mut body = der::encode(&body);
        run(&hooks.body_der, &mut body);
        let mut content = self.content(Kind::Seal, body);
        run(&hooks.content, &mut content);
        let entry =
            plan.make_token.as_ref().map_or_else(|| self.entry(&content), |make| make(self, &content));
        self.append(entry);
    }

    /// What the plan wants here; a seal of another document where it wants nothing.
    fn filler(&mut self) {
        let index = self.size();
        if let Some((_, kind, body)) = self.plan.others.iter().find(|other| other.0 == index) {
            let content = self.content(*kind, body(self));
            self.append(self.entry(&content));
            if *kind == Kind::Anchor {
                self.evidence = Some(self.reference(index));
            }
            return;
        }
        let document = format!("document {}", self.size());
        let commitment = opening(Field::DocumentId, Assurance::Asserted, "document-id", &document);
        let body = self.seal_body(document.as_bytes(), &[commitment]);
        let content = self.content(Kind::Seal, der::encode(&body));
        self.append(self.entry(&content));
    }

    fn seal_body(&self, document: &[u8], commitments: &[Opening]) -> SealBody {
        let mut hasher = DocumentHasher::new(self.plan.algorithm);
        hasher.update(document);
        let digest = hasher.finish();
        SealBody {
            algorithm: digest.algorithm,
            digest: digest.value.into(),
            size: digest.size,
            media_type: "application/pdf".into(),
            observation: Observation::BytesObserved,
            client: Client { id: "mfp-3".into(), method: ClientMethod::BearerToken },
            transport: "https/1.1 tls1.3".into(),
            commitments: commitments.iter().map(Opening::commitment).collect(),
            relations: Vec::new(),
        }
    }

    /// How an entry is named.
    pub(super) fn reference(&self, index: u64) -> EntryRef {
        EntryRef { index, leaf_hash: Octets32::new(self.leaves[index as usize].0) }
    }

    /// Inclusion proof as it stands in a `.seal`.
    pub(super) fn proof(&self, index: u64, size: u64) -> Vec<Vec<u8>> {
        if index >= size {
            return Vec::new();
        }
        let proof = inclusion_proof(index, size, self.leaves.as_slice()).expect("all leaves are in memory");
        proof.into_iter().map(|hash| hash.0.to_vec()).collect()
    }

    /// Root of the tree of the first `size` entries.
    pub(super) fn root(&self, size: u64) -> Hash {
        root(size, self.leaves.as_slice()).expect("all leaves are in memory")
    }

    /// The log key's signature line over a text.
    pub(super) fn sign_text(&self, text: &str) -> bulla_formats::note::SignatureLine {
        let signature = keys::sign_ed25519(&self.log_key, text.as_bytes());
        let signature = signature.try_into().expect("Ed25519 signatures are 64 bytes");
        log_line(&self.origin, &self.log_key.verifying_key().to_bytes(), &signature)
    }

    /// A checkpoint of this size.
    pub(super) fn checkpoint(&self, size: u64, quoted: bool, pcrs: &super::plan::Pcrs) -> String {
        let root = self.root(size);
        let mut text = checkpoint_text(&self.origin, size, &root);
        run(&self.plan.hooks.checkpoint_text, &mut text);
        let mut lines = vec![self.sign_text(&text)];
        if quoted {
            let claim =
                CheckpointClaim { origin: self.origin.clone(), text: text.clone().into_bytes().into() };
            let info = quote_info(pcrs);
            let (attest, signature) = self.attest(Use::Checkpoint, &claim.qualifying_data(), info, true);
            lines.push(quote_line(&self.origin, &self.attestation_public, &attest, &signature));
        }
        let mut note = SignedNote { text, lines };
        for change in &self.plan.notes {
            change(self, &mut note);
        }
        note.encode()
    }

    fn head(&self, size: u64, pcrs: Option<&super::plan::Pcrs>) -> Head {
        let none = Vec::new();
        Head {
            checkpoint: self.checkpoint(size, pcrs.is_some(), pcrs.unwrap_or(&none)),
            entry_proof: self.proof(self.token_index() as u64, size),
            epoch_proof: self.proof(self.epoch_entry as u64, size),
            pcrs: pcrs.cloned(),
        }
    }

    fn token_index(&self) -> usize {
        if self.plan.token_first { self.epoch_entry - 1 } else { self.plan.index as usize }
    }

    /// The file before anything of it is changed.
    pub(super) fn seal_file(&self) -> SealFile {
        let plan = self.plan;
        let unquoted = [(plan.size, None)];
        let heads = if plan.heads.is_empty() { &unquoted[..] } else { &plan.heads };
        SealFile {
            origin: self.origin.clone(),
            entry: self.entries[self.token_index()].clone(),
            epoch: self.entries[self.epoch_entry].clone(),
            enrolment: self.enrolment.clone(),
            heads: heads.iter().map(|(size, pcrs)| self.head(*size, pcrs.as_ref())).collect(),
            openings: plan.commitments.iter().map(der::encode).collect(),
            erasures: self.erasures(),
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

fn log_sealer(plan: &Plan, epoch: u64) -> Sealer {
    let name = format!("sealing key {epoch}");
    match plan.sealing {
        Sealing::Ed25519 => Sealer::Ed25519(keys::ed25519(&name)),
        Sealing::P256 | Sealing::Resident(_) => Sealer::P256(keys::p256(&name)),
    }
}

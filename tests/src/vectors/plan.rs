//! Plan: what one vector is made of, and the hooks that spoil one thing of it before it is signed.
//!
//! A spoilt value is signed, quoted and logged like a genuine one, so that a vector breaks exactly the condition it
//! is named after: a verifier that forgets that condition accepts it.
//! Invariant: a plan without hooks makes a seal that verifies.

use super::log::Log;
use super::shapes::{Attest, PublicArea, TpmSignature};
use super::{Expect, Vector};
use bulla_formats::body::key_epoch::{EpochStatement, KeyEpochBody};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::{Assurance, DigestAlgorithm, Field, Opening, SealBody};
use bulla_formats::der::Octets32;
use bulla_formats::enrolment::{Enrolment, EnrolmentContent, FleetCertificateContent, Hardware};
use bulla_formats::entry::{EntryContent, Kind, Mode};
use bulla_formats::hash::sha256;
use bulla_formats::note::SignedNote;
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::{Policy, TrustFile};
use ed25519_dalek::SigningKey;

pub(super) const FLEET: &str = "bank.test";
pub(super) const NOW: u64 = 1_790_000_000_000;

/// PCR numbers and values.
pub(super) type Pcrs = Vec<(u8, [u8; 32])>;
type Hook<T> = Box<dyn Fn(&mut T)>;
type NoteHook = Box<dyn Fn(&Log<'_>, &mut SignedNote)>;
type FileHook = Box<dyn Fn(&Log<'_>, &mut SealFile)>;
type EntryMaker = Box<dyn Fn(&Log<'_>, &EntryContent) -> Vec<u8>>;
type BodyMaker = Box<dyn Fn(&Log<'_>) -> Vec<u8>>;

/// Where the sealing key lives and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sealing {
    Ed25519,
    P256,
    /// In the TPM, certified under this role.
    Resident(&'static str),
}

/// A link of the fleet's chain.
pub(super) struct Authority {
    pub(super) content: FleetCertificateContent,
    pub(super) issuer: SigningKey,
    pub(super) label: &'static str,
}

/// What a vector is made of.
pub(super) struct Plan {
    pub(super) hardware: Hardware,
    pub(super) sealing: Sealing,
    /// A second key of the epoch, certified under this role.
    pub(super) interop: Option<&'static str>,
    pub(super) attestation_key: String,
    pub(super) chain: Vec<Authority>,
    pub(super) enroller: SigningKey,
    /// What the endorsing quote covers.
    pub(super) pcrs: Pcrs,
    /// Epoch of the token.
    pub(super) epoch: u64,
    /// Whether an epoch after the first is signed by the one before.
    pub(super) handed_over: bool,
    /// Whether the token is logged before the key-epoch entry of its epoch.
    pub(super) token_first: bool,
    /// Index of the token.
    pub(super) index: u64,
    /// Size of the tree.
    pub(super) size: u64,
    /// Entries that are not seals of other documents: index, kind, body. An anchor is what later entries name as their
    /// time evidence.
    pub(super) others: Vec<(u64, Kind, BodyMaker)>,
    /// Mode of the entry at an index.
    pub(super) mode: fn(u64) -> Mode,
    /// Whether its last entry records the erasure of the token's openings.
    pub(super) erased: bool,
    /// Size of each head, and the PCRs of its quote.
    pub(super) heads: Vec<(u64, Option<Pcrs>)>,
    pub(super) sealed_document: Vec<u8>,
    pub(super) algorithm: DigestAlgorithm,
    pub(super) commitments: Vec<Opening>,
    pub(super) make_token: Option<EntryMaker>,
    pub(super) make_epoch: Option<EntryMaker>,
    pub(super) notes: Vec<NoteHook>,
    pub(super) files: Vec<FileHook>,
    pub(super) hooks: Hooks,
}

macro_rules! hooks {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// Changes to what is made, in the order of making.
        #[derive(Default)]
        pub(super) struct Hooks { $(pub(super) $name: Vec<Hook<$type>>,)* }

        impl Plan {
            $($(#[$doc])*
            pub(super) fn $name(mut self, change: impl Fn(&mut $type) + 'static) -> Self {
                self.hooks.$name.push(Box::new(change));
                self
            })*
        }
    };
}

hooks! {
    /// The attestation key's public area.
    attestation_area: PublicArea,
    /// The attestation key's bytes in the enrolment.
    attestation_bytes: Vec<u8>,
    /// What the fleet says of the box.
    enrolment: EnrolmentContent,
    /// The message its issuer signs.
    enrolment_message: Vec<u8>,
    /// The enrolment with its signature.
    enrolled: Enrolment,
    /// Its bytes.
    enrolment_der: Vec<u8>,
    /// A resident key's public area.
    key_area: PublicArea,
    /// What the epoch's endorsement covers.
    statement: EpochStatement,
    /// TPMS_ATTEST before it is signed.
    attest: Attest,
    /// TPMT_SIGNATURE.
    tpm_signature: TpmSignature,
    /// Body of the key-epoch entry.
    epoch_body: KeyEpochBody,
    /// Its bytes.
    epoch_body_der: Vec<u8>,
    /// Header of the key-epoch entry.
    epoch_content: EntryContent,
    /// Body of the token.
    body: SealBody,
    /// Its bytes.
    body_der: Vec<u8>,
    /// Header of the token.
    content: EntryContent,
    /// Body of the entry that records an erasure.
    erasure_body: OperatorActionBody,
    /// Header of that entry.
    erasure_content: EntryContent,
    /// Checkpoint text before it is signed.
    checkpoint_text: String,
    /// The `.seal` as text.
    text: String,
    /// The `.seal` as bytes.
    bytes: Vec<u8>,
    /// The trust file.
    trust: TrustFile,
    /// The trust file as text.
    trust_text: String,
    /// The document, after it was sealed.
    document: Vec<u8>,
}

/// Runs every hook of one kind.
pub(super) fn run<T>(hooks: &[Hook<T>], value: &mut T) {
    for hook in hooks {
        hook(value);
    }
}

/// PCR values that differ by `boot`.
pub(super) fn pcrs(boot: u8) -> Pcrs {
    [0u8, 7, 11].iter().map(|pcr| (*pcr, sha256(&[b"pcr", &[*pcr, boot]]).0)).collect()
}

/// An opening with a salt of its own.
pub(super) fn opening(field: Field, assurance: Assurance, name: &str, value: &str) -> Opening {
    let salt = Octets32::new(sha256(&[b"salt", name.as_bytes(), value.as_bytes()]).0);
    Opening { field, assurance, salt, name: name.into(), value: value.into() }
}

impl Plan {
    fn new(hardware: Hardware, sealing: Sealing) -> Self {
        Plan {
            hardware,
            sealing,
            interop: None,
            attestation_key: "attestation key".into(),
            chain: Vec::new(),
            enroller: super::keys::ed25519("fleet root"),
            pcrs: pcrs(1),
            epoch: 0,
            handed_over: true,
            token_first: false,
            index: 2,
            size: 4,
            others: Vec::new(),
            mode: |_| Mode::AirGapped,
            erased: false,
            heads: Vec::new(),
            sealed_document: b"%PDF-1.7 a loan agreement\n".to_vec(),
            algorithm: DigestAlgorithm::Sha256,
            commitments: Vec::new(),
            make_token: None,
            make_epoch: None,
            notes: Vec::new(),
            files: Vec::new(),
            hooks: Hooks::default(),
        }
    }

    /// A box without TPM, in its first epoch.
    pub(super) fn software() -> Self {
        Self::new(Hardware::Software, Sealing::Ed25519)
    }

    /// A box with TPM and an endorsed key in RAM; heads are not quoted.
    pub(super) fn tpm() -> Self {
        Self::new(Hardware::Tpm, Sealing::Ed25519)
    }

    /// A box with TPM whose head is quoted.
    pub(super) fn quoted() -> Self {
        let plan = Self::tpm();
        let heads = vec![(plan.size, Some(pcrs(1)))];
        Plan { heads, ..plan }
    }

    /// A box whose sealing key is in the TPM.
    pub(super) fn resident() -> Self {
        Self::new(Hardware::Tpm, Sealing::Resident("sealing"))
    }

    /// The token's epoch is the second; its key-epoch entry is entry 2.
    pub(super) fn second_epoch(self) -> Self {
        Plan { epoch: 1, index: 3, size: 5, ..self }
    }

    /// Two commitments, both opened in the file.
    pub(super) fn with_openings(self) -> Self {
        let commitments = vec![
            opening(Field::User, Assurance::Authenticated, "user", "m.keller"),
            opening(Field::Metadata, Assurance::Asserted, "branch", "Z\u{fc}rich 3"),
        ];
        Plan { commitments, ..self }
    }

    /// Token at `index` in a tree of `size`.
    pub(super) fn tree(self, index: u64, size: u64) -> Self {
        Plan { index, size, ..self }
    }

    /// An entry of another kind in place of a seal of another document.
    pub(super) fn other(
        mut self,
        index: u64,
        kind: Kind,
        body: impl Fn(&Log<'_>) -> Vec<u8> + 'static,
    ) -> Self {
        self.others.push((index, kind, Box::new(body)));
        self
    }

    /// Heads of these sizes and quotes.
    pub(super) fn heads(self, heads: Vec<(u64, Option<Pcrs>)>) -> Self {
        Plan { heads, ..self }
    }

    /// A fleet CA below the last one (or the root), which then signs the enrolment.
    pub(super) fn authority(mut self, change: impl Fn(&mut Authority)) -> Self {
        let key = super::keys::ed25519(&format!("fleet CA {}", self.chain.len()));
        let content = FleetCertificateContent {
            version: 1,
            fleet: FLEET.into(),
            role: bulla_formats::enrolment::FleetRole::FleetCa,
            public_key: Octets32::new(key.verifying_key().to_bytes()),
            not_before: NOW - 1_000,
            not_after: NOW + 1_000,
        };
        let label = bulla_formats::sig::label::FLEET_CERTIFICATE;
        let mut authority = Authority { content, issuer: self.enroller.clone(), label };
        change(&mut authority);
        self.chain.push(authority);
        Plan { enroller: key, ..self }
    }

    /// Makes the token's bytes from its header.
    pub(super) fn make_token(self, make: impl Fn(&Log<'_>, &EntryContent) -> Vec<u8> + 'static) -> Self {
        Plan { make_token: Some(Box::new(make)), ..self }
    }

    /// Makes the key-epoch entry's bytes from its header.
    pub(super) fn make_epoch(self, make: impl Fn(&Log<'_>, &EntryContent) -> Vec<u8> + 'static) -> Self {
        Plan { make_epoch: Some(Box::new(make)), ..self }
    }

    /// Changes a note after it was signed.
    pub(super) fn note(mut self, change: impl Fn(&Log<'_>, &mut SignedNote) + 'static) -> Self {
        self.notes.push(Box::new(change));
        self
    }

    /// Changes the unpacked `.seal`.
    pub(super) fn file(mut self, change: impl Fn(&Log<'_>, &mut SealFile) + 'static) -> Self {
        self.files.push(Box::new(change));
        self
    }

    /// Replaces a part of the `.seal`'s text, which must be there.
    pub(super) fn swap(self, from: &'static str, to: &'static str) -> Self {
        self.text(move |text| swap(text, from, to))
    }

    /// Replaces a part of the trust file's text, which must be there.
    pub(super) fn swap_trust(self, from: &'static str, to: &'static str) -> Self {
        self.trust_text(move |text| swap(text, from, to))
    }

    /// Makes everything.
    pub(super) fn make(&self, name: &str, expect: Expect) -> Vector {
        let log = Log::of(self);
        let mut file = log.seal_file();
        for change in &self.files {
            change(&log, &mut file);
        }
        let mut text = file.encode();
        run(&self.hooks.text, &mut text);
        let mut seal = text.into_bytes();
        run(&self.hooks.bytes, &mut seal);
        let mut trust = TrustFile {
            fleet: FLEET.into(),
            issued_millis: NOW,
            roots: vec![super::keys::ed25519("fleet root").verifying_key().to_bytes()],
            references: Vec::new(),
            policy: Policy {
                accept_software: self.hardware == Hardware::Software,
                require_facts: Vec::new(),
            },
            roster: None,
            authorities: None,
            cosigners: Vec::new(),
        };
        run(&self.hooks.trust, &mut trust);
        let mut trust_text = trust.encode();
        run(&self.hooks.trust_text, &mut trust_text);
        let mut document = self.sealed_document.clone();
        run(&self.hooks.document, &mut document);
        Vector { name: name.to_owned(), document, seal, trust: trust_text.into_bytes(), expect }
    }
}

/// Replaces the first `from` by `to`.
pub(super) fn swap(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "{from:?} is not in the text to change");
    *text = text.replacen(from, to, 1);
}

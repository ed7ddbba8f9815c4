//! A registrar, a chip, and the box around it.

use crate::chip::{Chip, SERVICE_ATTRIBUTES, signing_public};
use crate::maker::{Maker, NOW};
use bulla_appraisal::event_log::EventLog;
use bulla_appraisal::replay::replay;
use bulla_enrolment::boot::{BootPolicy, KnownBoot, QUOTED_PCRS};
use bulla_enrolment::endorsement::Manufacturers;
use bulla_enrolment::evidence::Policy;
use bulla_enrolment::proof::{Proofs, Purpose};
use bulla_enrolment::record::Record;
use bulla_enrolment::registrar::{Book, Registrar, Standing, Step};
use bulla_enrolment::wire::{Answer, Attestation, Challenge, Evidence, Remark, Request};
use bulla_formats::body::key_epoch::{PcrValue, TpmQuote};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, empty_root, sha256};
use bulla_formats::origin::Origin;
use bulla_formats::tpm::TpmtPublic;
use bulla_formats::trust::Reference;
use ed25519_dalek::{Signer, SigningKey};
use std::collections::BTreeMap;

pub const FLEET: &str = "bank.example";
pub const REGISTRAR: [u8; 32] = [0x4e; 32];
pub const CHANNEL: [u8; 32] = [0xc4; 32];
/// PCRs that count in these tests.
const COUNTED: [u8; 6] = [0, 2, 3, 4, 6, 7];

/// The books of a fleet in memory.
#[derive(Default)]
pub struct Shelf {
    pub standing: BTreeMap<Hash, Standing>,
    pub records: BTreeMap<Hash, Vec<u8>>,
    /// What the people of the fleet have approved.
    pub members: Vec<EnrolmentContent>,
}

impl Book for Shelf {
    fn standing(&self, ek: &Hash) -> Standing {
        self.standing.get(ek).cloned().unwrap_or(Standing::Unknown)
    }
    fn record(&self, transcript: &Hash) -> Option<Record> {
        self.records.get(transcript).map(|bytes| Record::decode(bytes).unwrap())
    }
    fn newest_log(&self, ek: &Hash) -> Option<(u64, [u8; 32])> {
        let of_this = self.members.iter().filter(|content| *content.ek_spki_sha256 == ek.0);
        let log = |content: &EnrolmentContent| {
            (Origin::parse(&content.origin).unwrap().incarnation(), *content.log_key)
        };
        of_this.map(log).max()
    }
    /// The first one: tests that stage a log begin with one log.
    fn log_in_use(&self, ek: &Hash) -> Option<EnrolmentContent> {
        self.members.iter().find(|content| *content.ek_spki_sha256 == ek.0).cloned()
    }
    fn membership(&self, origin: &str) -> Option<EnrolmentContent> {
        self.members.iter().find(|content| content.origin == origin).cloned()
    }
}

impl Shelf {
    pub fn keep(&mut self, record: &Record) {
        self.records.insert(record.transcript(), record.encode());
    }
}

/// One event of a log: PCR, claimed type, digest, data.
pub type Event<'a> = (u32, u32, [u8; 32], &'a [u8]);

/// A crypto-agile log with SHA-256 alone.
pub fn event_log(events: &[Event<'_>]) -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0]);
    let mut log =
        [&0u32.to_le_bytes()[..], &3u32.to_le_bytes(), &[0; 20], &(spec.len() as u32).to_le_bytes()].concat();
    log.extend(spec);
    for (pcr, kind, digest, data) in events {
        log.extend([pcr.to_le_bytes(), kind.to_le_bytes(), 1u32.to_le_bytes()].concat());
        log.extend([0x0b, 0]);
        log.extend(digest);
        log.extend((data.len() as u32).to_le_bytes());
        log.extend(*data);
    }
    log
}

/// UEFI_VARIABLE_DATA of SecureBoot.
pub fn secure_boot_variable(value: u8) -> Vec<u8> {
    let guid =
        [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
    let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
    [&guid[..], &10u64.to_le_bytes(), &1u64.to_le_bytes(), &name, &[value]].concat()
}

/// A boot of this image: Secure Boot, firmware, boot loader.
pub fn boot_of(image: &str, secure_boot: u8) -> Vec<u8> {
    let variable = secure_boot_variable(secure_boot);
    let of = |pcr: u32, kind: u32, data: &'static [u8]| (pcr, kind, sha256(&[data]).0, data);
    let loader = sha256(&[b"loader of ", image.as_bytes()]).0;
    event_log(&[
        (7, 0x8000_0001, sha256(&[&variable]).0, &variable),
        of(0, 8, b"firmware 1"),
        of(2, 4, b"no option roms"),
        of(3, 4, b"no settings"),
        (4, 0x8000_0003, loader, b"path of the loader"),
        of(6, 4, b"nothing"),
    ])
}

/// The good boot that this log is.
pub fn known(name: &str, log: &[u8], until: Option<u64>) -> KnownBoot {
    let values = replay(&EventLog::parse(log).unwrap());
    let pcrs = values.into_iter().filter(|(pcr, _)| COUNTED.contains(pcr)).collect();
    KnownBoot { reference: Reference { name: name.into(), pcrs }, until }
}

pub struct Scene {
    pub chip: Chip,
    pub maker: Maker,
    pub log_key: SigningKey,
    pub policy: Policy,
    pub shelf: Shelf,
    pub registrar: Registrar,
    pub request: Request,
    drawn: u8,
}

impl Scene {
    /// Everything in order.
    pub fn new() -> Self {
        Self::with(Chip::new(10), Maker::new(100))
    }

    pub fn with(mut chip: Chip, maker: Maker) -> Self {
        let log = boot_of("1.2.0", 1);
        for (pcr, value) in replay(&EventLog::parse(&log).unwrap()) {
            chip.pcrs.insert(pcr, value);
        }
        let boots = vec![
            known("image 1.1.0", &boot_of("1.1.0", 1), Some(NOW + 1_000)),
            known("image 1.2.0", &log, None),
            known("image 1.3.0", &boot_of("1.3.0", 1), None),
        ];
        let policy = Policy {
            fleet: FLEET.into(),
            registrar: REGISTRAR,
            boot: BootPolicy::Judged { known: boots, secure_boot: true },
            bad_firmware: vec![0xbad],
        };
        let log_key = SigningKey::from_bytes(&[0x10; 32]);
        let request = request(&chip, maker.certify(&chip), &log_key, &log);
        let mut shelf = Shelf::default();
        shelf.standing.insert(ek_hash(&chip), Standing::Expected);
        let registrar = Registrar::new(policy.clone(), manufacturers(&maker));
        Scene { chip, maker, log_key, policy, shelf, registrar, request, drawn: 0 }
    }

    /// A restart: what was in memory is gone.
    pub fn restart(&mut self) {
        self.registrar = Registrar::new(self.policy.clone(), manufacturers(&self.maker));
    }

    pub fn ask_bytes(&mut self, request: &[u8], channel: &[u8; 32], now: u64) -> Step {
        let drawn = &mut self.drawn;
        let mut random = |bytes: &mut [u8]| {
            for byte in bytes {
                *drawn = drawn.wrapping_mul(5).wrapping_add(17);
                *byte = *drawn & 0x7f;
            }
        };
        self.registrar.ask(&self.shelf, request, channel, now, &mut random)
    }

    /// Asks and carries the step out.
    pub fn ask(&mut self) -> Answer {
        let request = der::encode(&self.request);
        let step = self.ask_bytes(&request, &CHANNEL, NOW);
        self.carry_out(step)
    }

    pub fn carry_out(&mut self, step: Step) -> Answer {
        if let Some(record) = &step.keep {
            self.shelf.keep(record);
        }
        step.answer
    }

    pub fn challenge(&mut self) -> Challenge {
        match self.ask() {
            Answer::Challenge(challenge) => challenge,
            other => panic!("no challenge: {other:?}"),
        }
    }

    /// The honest box's evidence.
    pub fn evidence(&self, challenge: &Challenge) -> Evidence {
        evidence(&self.chip, &self.request, &self.log_key, challenge, &CHANNEL)
    }

    pub fn prove(&mut self, evidence: &Evidence) -> Answer {
        let step = self.registrar.prove(&self.shelf, &der::encode(evidence), NOW + 1);
        self.carry_out(step)
    }

    /// Up to the point where a person decides.
    pub fn proven(&mut self) -> Record {
        let challenge = self.challenge();
        let evidence = self.evidence(&challenge);
        let answer = self.prove(&evidence);
        assert!(matches!(answer, Answer::Pending(_)), "{answer:?}");
        self.record()
    }

    pub fn record(&self) -> Record {
        self.shelf.record(&self.request.transcript()).unwrap()
    }
}

pub fn manufacturers(maker: &Maker) -> Manufacturers {
    Manufacturers::new(&[maker.root_certificate()], &[]).unwrap()
}

pub fn ek_hash(chip: &Chip) -> Hash {
    sha256(&[&TpmtPublic::parse(&chip.ek_public()).unwrap().spki_der()])
}

pub fn request(chip: &Chip, certificates: Vec<Vec<u8>>, log_key: &SigningKey, log: &[u8]) -> Request {
    Request {
        version: 1,
        fleet: FLEET.into(),
        registrar: Octets32::new(REGISTRAR),
        nonce: Octets32::new([0x77; 32]),
        ek_public: chip.ek_public().into(),
        ek_certificates: certificates.into_iter().map(Into::into).collect(),
        attestation_key: chip.ak_public().into(),
        tls_key: signing_public(&chip.tls, SERVICE_ATTRIBUTES).into(),
        issuing_key: signing_public(&chip.issuing, SERVICE_ATTRIBUTES).into(),
        counter: chip.counter_public().into(),
        origin: Origin::derive(FLEET, &ek_hash(chip), chip.counter).unwrap().as_str().into(),
        log_key: Octets32::new(log_key.verifying_key().to_bytes()),
        head: TreeState::new(0, empty_root()),
        event_log: log.to_vec().into(),
        remarks: vec![Remark { name: "serial".into(), value: "B-0001".into() }],
        in_use: None,
    }
}

/// What an honest box with this chip answers.
pub fn evidence(
    chip: &Chip,
    request: &Request,
    log_key: &SigningKey,
    challenge: &Challenge,
    channel: &[u8; 32],
) -> Evidence {
    let proofs = Proofs::of(request, challenge, channel).unwrap();
    // A TPM that refuses to activate leaves the box with nothing better than a guess.
    let secret = chip.activate(&challenge.credential, &challenge.secret, &request.attestation_key);
    attested(chip, request, log_key, &proofs, challenge, channel, &secret.unwrap_or_default())
}

pub fn attested(
    chip: &Chip,
    request: &Request,
    log_key: &SigningKey,
    proofs: &Proofs,
    challenge: &Challenge,
    channel: &[u8; 32],
    secret: &[u8],
) -> Evidence {
    let said = |(attest, signature): (Vec<u8>, Vec<u8>)| Attestation {
        attest: attest.into(),
        signature: signature.into(),
    };
    let quote = said(chip.quote(&chip.ak, &proofs.qualifying(Purpose::Quote), &QUOTED_PCRS));
    let pcrs = QUOTED_PCRS.map(|pcr| PcrValue { pcr, value: Octets32::new(chip.pcrs[&pcr]) });
    Evidence {
        version: 1,
        transcript: Octets32::new(request.transcript().0),
        nonce: challenge.nonce,
        channel: Octets32::new(*channel),
        activation: Octets32::new(proofs.activation(secret)),
        quote: TpmQuote { attest: quote.attest, signature: quote.signature, pcrs: pcrs.into() },
        tls_key: said(chip.certify(&proofs.qualifying(Purpose::TlsKey), &request.tls_key)),
        issuing_key: said(chip.certify(&proofs.qualifying(Purpose::IssuingKey), &request.issuing_key)),
        counter: said(chip.certify_counter(&proofs.qualifying(Purpose::Counter))),
        log_signature: log_key.sign(&proofs.message(Purpose::LogKey)).to_bytes().to_vec().into(),
    }
}

/// The code of a refusal.
pub fn code(answer: &Answer) -> &str {
    match answer {
        Answer::Refused(refused) => &refused.code,
        other => panic!("not refused: {other:?}"),
    }
}

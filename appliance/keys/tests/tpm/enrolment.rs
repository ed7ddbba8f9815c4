//! A real TPM before the registrar: its certificate chain, credential activation, and evidence that only it can make.

use crate::common::Swtpm;
use crate::{Setup, proxy};
use bulla_enrolment::boot::{BootPolicy, QUOTED_PCRS};
use bulla_enrolment::credential;
use bulla_enrolment::endorsement::Manufacturers;
use bulla_enrolment::evidence::Policy;
use bulla_enrolment::proof::{Proofs, Purpose};
use bulla_enrolment::record::{Record, Stage};
use bulla_enrolment::refusal::Code;
use bulla_enrolment::registrar::{Book, Registrar, Standing};
use bulla_enrolment::wire::{Answer, Attestation, Challenge, Evidence, Request};
use bulla_formats::body::key_epoch::{PcrValue, TpmQuote};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::json::base64_decode;
use bulla_formats::origin::Origin;
use bulla_formats::tpm::{EccCurve, PublicKey, TpmtPublic};
use bulla_keys::{ENDORSED_PCRS, KeyError, KeyService, Provider, Role};
use ed25519_dalek::{Signer, SigningKey};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const FLEET: &str = "bank.example";
const REGISTRAR: [u8; 32] = [0x4e; 32];
const CHANNEL: [u8; 32] = [0xc4; 32];
const P384_CERTIFICATE: &str = "0x01c00016";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

fn certificate(path: &Path) -> Vec<u8> {
    let text = fs::read_to_string(path).unwrap();
    // With the dashes: base64 may hold the words alone.
    let lines = text.lines().skip_while(|line| !line.starts_with("-----BEGIN")).skip(1);
    let body: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    base64_decode(&body).unwrap()
}

fn issuer(dir: &Path) -> Vec<u8> {
    certificate(&dir.join("ca/issuercert.pem"))
}

/// The local CA of this TPM, as a fleet pins it.
fn manufacturers(dir: &Path) -> Manufacturers {
    let root = certificate(&dir.join("ca/swtpm-localca-rootca-cert.pem"));
    Manufacturers::new(&[root], &[issuer(dir)]).unwrap()
}

/// Books in which every TPM is expected.
#[derive(Default)]
struct Open(RefCell<BTreeMap<Hash, Record>>);

impl Book for Open {
    fn standing(&self, _: &Hash) -> Standing {
        Standing::Expected
    }
    fn record(&self, transcript: &Hash) -> Option<Record> {
        self.0.borrow().get(transcript).cloned()
    }
    fn newest_log(&self, _: &Hash) -> Option<(u64, [u8; 32])> {
        None
    }
    fn log_in_use(&self, _: &Hash) -> Option<EnrolmentContent> {
        None
    }
    fn membership(&self, _: &str) -> Option<EnrolmentContent> {
        None
    }
}

fn registrar(dir: &Path) -> Registrar {
    let boot = BootPolicy::NotJudged;
    let policy = Policy { fleet: FLEET.into(), registrar: REGISTRAR, boot, bad_firmware: Vec::new() };
    Registrar::new(policy, manufacturers(dir))
}

fn request(service: &KeyService, log_key: &SigningKey) -> Request {
    let device = service.description();
    let public = |role| device.key(role).certification.as_ref().unwrap().tpmt_public.clone().into();
    let incarnation = service.counter().unwrap().unwrap();
    let origin = Origin::derive(FLEET, &device.ek_spki_sha256, incarnation).unwrap();
    Request {
        version: 1,
        fleet: FLEET.into(),
        registrar: Octets32::new(REGISTRAR),
        nonce: Octets32::new([0x77; 32]),
        ek_public: device.ek_public.clone().into(),
        ek_certificates: device.ek_certificates.iter().map(|c| c.clone().into()).collect(),
        attestation_key: device.attestation_public.clone().into(),
        tls_key: public(Role::Tls),
        issuing_key: public(Role::Issuing),
        counter: device.counter_public.clone().into(),
        origin: origin.as_str().into(),
        log_key: Octets32::new(log_key.verifying_key().to_bytes()),
        head: TreeState::new(0, empty_root()),
        event_log: Vec::new().into(),
        remarks: Vec::new(),
        in_use: None,
    }
}

fn evidence(
    service: &KeyService,
    request: &Request,
    log_key: &SigningKey,
    challenge: &Challenge,
) -> Evidence {
    let secret = service.activate(&challenge.credential, &challenge.secret).unwrap();
    let proofs = Proofs::of(request, challenge, &CHANNEL).unwrap();
    let certify = |role, purpose| {
        let said = service.certify(role, proofs.qualifying(purpose)).unwrap();
        Attestation { attest: said.attest.into(), signature: said.signature.into() }
    };
    let quote = service.quote(proofs.qualifying(Purpose::Quote), &QUOTED_PCRS).unwrap();
    let counter = service.counter_certify(proofs.qualifying(Purpose::Counter)).unwrap();
    let pcr = |(pcr, value): &(u8, [u8; 32])| PcrValue { pcr: *pcr, value: Octets32::new(*value) };
    Evidence {
        version: 1,
        transcript: Octets32::new(request.transcript().0),
        nonce: challenge.nonce,
        channel: Octets32::new(CHANNEL),
        activation: Octets32::new(proofs.activation(&secret)),
        quote: TpmQuote {
            attest: quote.attest.into(),
            signature: quote.signature.into(),
            pcrs: quote.pcrs.iter().map(pcr).collect(),
        },
        tls_key: certify(Role::Tls, Purpose::TlsKey),
        issuing_key: certify(Role::Issuing, Purpose::IssuingKey),
        counter: Attestation { attest: counter.attest.into(), signature: counter.signature.into() },
        log_signature: log_key.sign(&proofs.message(Purpose::LogKey)).to_bytes().to_vec().into(),
    }
}

/// Asks, proves, and gives the record.
fn enrol(dir: &Path, service: &KeyService) -> Record {
    let (mut registrar, book) = (registrar(dir), Open::default());
    let log_key = SigningKey::from_bytes(&[7; 32]);
    let request = request(service, &log_key);
    let step = registrar.ask(&book, &der::encode(&request), &CHANNEL, now(), &mut random);
    let Answer::Challenge(challenge) = step.answer else { panic!("{:?}", step.answer) };
    book.0.borrow_mut().insert(request.transcript(), step.keep.unwrap());
    let evidence = evidence(service, &request, &log_key, &challenge);
    let step = registrar.prove(&book, &der::encode(&evidence), now());
    assert!(matches!(step.answer, Answer::Pending(_)), "{:?}", step.answer);
    step.keep.unwrap()
}

#[test]
fn g8_a_tpm_with_an_elliptic_endorsement_key_is_enrolled() {
    let setup = Setup::new();
    let record = enrol(setup.dir.path(), &setup.service);
    assert_eq!(record.stage(), Stage::Proven);
    assert_eq!(record.manufacturer, "CN=swtpm-localca-rootca");
    assert!(record.described.contains("swtpm"), "{}", record.described);
    assert_eq!(QUOTED_PCRS, ENDORSED_PCRS, "what a box endorses with is what a registrar asks for");
    // Nothing is left in the TPM that was not there before.
    for _ in 0..4 {
        enrol(setup.dir.path(), &setup.service);
        setup.service.sign(Role::Tls, [1; 32]).unwrap();
    }
}

#[test]
fn g8_a_tpm_with_an_rsa_endorsement_key_is_enrolled() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path());
    swtpm.tool("tpm2_nvundefine", &["-C", "p", P384_CERTIFICATE]);
    let provider = Provider::Tpm { tcti: swtpm.tcti() };
    let service = KeyService::create(&provider, &dir.path().join("keys")).unwrap();
    let ek = TpmtPublic::parse(&service.description().ek_public).unwrap();
    assert!(matches!(ek.key, PublicKey::Rsa { .. }));
    assert_eq!(enrol(dir.path(), &service).stage(), Stage::Proven);
}

#[test]
fn g8_a_p256_endorsement_key_reads_its_credential() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start_with(dir.path(), false);
    let provider = Provider::Tpm { tcti: swtpm.tcti() };
    let service = KeyService::create(&provider, &dir.path().join("keys")).unwrap();
    let device = service.description();
    let ek = bulla_enrolment::template::endorsement_key(&device.ek_public).unwrap();
    assert!(matches!(ek.key, PublicKey::Ecc { curve: EccCurve::P256, .. }));
    let name = TpmtPublic::parse(&device.attestation_public).unwrap().name();
    for secret in [&[9; 32][..], &[1; 16], &[2]] {
        let made = credential::make(&ek, &name, secret, &mut random).unwrap();
        let read = service.activate(&made.id_object, &made.encrypted_secret).unwrap();
        assert_eq!(read.as_slice(), secret);
    }
    // Without a certificate nothing says that it is a TPM, and nobody can read more into it.
    let log_key = SigningKey::from_bytes(&[7; 32]);
    let request = der::encode(&self::request(&service, &log_key));
    // Any registrar will do: no manufacturer is asked.
    let policy = Policy {
        fleet: FLEET.into(),
        registrar: REGISTRAR,
        boot: BootPolicy::NotJudged,
        bad_firmware: Vec::new(),
    };
    let mut registrar = Registrar::new(policy, Manufacturers::new(&[], &[]).unwrap());
    let step = registrar.ask(&Open::default(), &request, &CHANNEL, now(), &mut random);
    let Answer::Refused(refused) = step.answer else { panic!("{:?}", step.answer) };
    assert_eq!(refused.code, Code::EkCertificateMissing.name());
}

#[test]
fn g8_two_tpms_do_not_make_one() {
    let (one, two) = (Setup::new(), Setup::new());
    let (ek_one, ak_two) = (one.service.description(), two.service.description());
    let ek = TpmtPublic::parse(&ek_one.ek_public).unwrap();
    let ak = TpmtPublic::parse(&ak_two.attestation_public).unwrap();
    let made = credential::make(&ek, &ak.name(), &[9; 32], &mut random).unwrap();
    for (which, setup) in [("one", &one), ("two", &two)] {
        let read = setup.service.activate(&made.id_object, &made.encrypted_secret);
        assert!(matches!(read, Err(KeyError::Refused { .. })), "TPM {which}: {read:?}");
        // The connection has come to no harm.
        setup.service.quote([1; 32], &[0]).unwrap();
    }
    // Made for both halves of one TPM, it is read there and nowhere else.
    let ak = TpmtPublic::parse(&ek_one.attestation_public).unwrap();
    let made = credential::make(&ek, &ak.name(), &[9; 32], &mut random).unwrap();
    assert_eq!(one.service.activate(&made.id_object, &made.encrypted_secret).unwrap().as_slice(), [9; 32]);
    assert!(two.service.activate(&made.id_object, &made.encrypted_secret).is_err());
    for at in 0..made.id_object.len() {
        let mut altered = made.id_object.clone();
        altered[at] ^= 1;
        assert!(one.service.activate(&altered, &made.encrypted_secret).is_err(), "byte {at}");
    }
    // A TPM made elsewhere is none that this fleet has pinned.
    let judged = manufacturers(two.dir.path()).judge(&ek, &ek_one.ek_certificates, now());
    assert_eq!(judged.unwrap_err().code, Code::EkChain);
}

#[test]
fn g8_a_power_cut_between_challenge_and_answer_costs_nothing() {
    let mut setup = Setup::new();
    let device = setup.service.description().clone();
    let ek = TpmtPublic::parse(&device.ek_public).unwrap();
    let name = TpmtPublic::parse(&device.attestation_public).unwrap().name();
    let made = credential::make(&ek, &name, &[9; 32], &mut random).unwrap();
    setup.swtpm.kill();
    let away = setup.service.clone().with_deadline(Duration::from_millis(300));
    assert!(matches!(
        away.activate(&made.id_object, &made.encrypted_secret),
        Err(KeyError::Unavailable { .. })
    ));
    setup.swtpm.restart();
    let read = setup.service.activate(&made.id_object, &made.encrypted_secret).unwrap();
    assert_eq!(read.as_slice(), [9; 32]);
}

#[test]
fn g8_the_secret_crosses_the_bus_encrypted() {
    let setup = Setup::new();
    setup.service.shutdown();
    let (tcti, tap) = proxy::start(setup.swtpm.port(), Duration::ZERO);
    let service = KeyService::open(&Provider::Tpm { tcti }, &setup.keys()).unwrap();
    let device = service.description();
    let ek = TpmtPublic::parse(&device.ek_public).unwrap();
    let name = TpmtPublic::parse(&device.attestation_public).unwrap().name();
    let secret = *b"what only this TPM may ever read";
    let made = credential::make(&ek, &name, &secret, &mut random).unwrap();
    assert_eq!(service.activate(&made.id_object, &made.encrypted_secret).unwrap().as_slice(), secret);
    let seen = tap.lock().unwrap();
    let passed = |bytes: &[u8]| seen.windows(bytes.len()).any(|window| window == bytes);
    // The probe sees the traffic: half of the encrypted secret, a point, went in as it was.
    assert!(passed(&made.encrypted_secret[2..50]));
    assert!(!passed(&secret[..16]) && !passed(&secret[16..]));
}

#[test]
fn g8_keys_are_certified_anew_and_the_attestation_key_is_not() {
    let setup = Setup::new();
    let ak = TpmtPublic::parse(&setup.service.description().attestation_public).unwrap();
    for role in Role::SIGNING {
        let said = setup.service.certify(role, [0x5a; 32]).unwrap();
        let name = TpmtPublic::parse(&said.tpmt_public).unwrap().name();
        let verify = |data: &[u8; 32]| {
            bulla_formats::tpm::verify_certify(&ak, &said.attest, &said.signature, data, &name)
        };
        verify(&[0x5a; 32]).unwrap();
        assert!(verify(&role.certification_qualifying()).is_err());
        assert_eq!(
            said.tpmt_public,
            setup.service.description().key(role).certification.clone().unwrap().tpmt_public
        );
    }
    let refused = setup.service.certify(Role::Attestation, [0x5a; 32]);
    assert!(matches!(refused, Err(KeyError::AttestationIsNoOracle)));
}

#[test]
fn the_chain_in_nv_is_found_and_put_together() {
    let dir = tempfile::tempdir().unwrap();
    let swtpm = Swtpm::start(dir.path());
    // One text of two certificates, cut where it falls, with padding behind it.
    let root = certificate(&dir.path().join("ca/swtpm-localca-rootca-cert.pem"));
    let text = [&issuer(dir.path())[..], &root, &[0xff; 40]].concat();
    let attributes = "ppwrite|ppread|ownerread|authread|no_da|platformcreate";
    for (number, part) in text.chunks(900).enumerate() {
        let file = dir.path().join(format!("part{number}"));
        fs::write(&file, part).unwrap();
        let (size, index) = (part.len().to_string(), format!("{:#010x}", 0x01c0_0100 + number));
        swtpm.tool("tpm2_nvdefine", &["-C", "p", "-s", &size, "-a", attributes, &index]);
        swtpm.tool("tpm2_nvwrite", &["-C", "p", "-i", file.to_str().unwrap(), &index]);
    }
    let provider = Provider::Tpm { tcti: swtpm.tcti() };
    let service = KeyService::create(&provider, &dir.path().join("keys")).unwrap();
    let device = service.description();
    assert_eq!(device.ek_certificates[1..], [issuer(dir.path()), root.clone()]);
    // With it, the root alone has to be pinned.
    let ek = TpmtPublic::parse(&device.ek_public).unwrap();
    let manufacturers = Manufacturers::new(&[root], &[]).unwrap();
    manufacturers.judge(&ek, &device.ek_certificates, now()).unwrap();
    let without = manufacturers.judge(&ek, &device.ek_certificates[..1], now());
    assert_eq!(without.unwrap_err().code, Code::EkChain);
}

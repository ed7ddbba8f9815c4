//! A request and its evidence, judged: which TPM, which keys, which boot, which counter.
//!
//! Refuses: whatever could have been made without the TPM of the endorsement certificate, for another registrar, for
//! another connection or at another time.
//! Invariant: a [`Proven`] exists only for evidence of which every part was checked against one request and one challenge.

use crate::boot::{self, Boot, BootPolicy, QUOTED_PCRS};
use crate::endorsement::{Endorsed, Manufacturers};
use crate::proof::{Proofs, Purpose};
use crate::refusal::{Code, Judged, Refusal};
use crate::template;
use crate::wire::{Attestation, Evidence, Request};
use bulla_appraisal::replay::PcrValues;
use bulla_formats::entry::TreeState;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::origin::Origin;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::tpm::{
    Attest, NvPublic, TpmError, TpmtPublic, verify_certify, verify_nv_certify, verify_quote,
};

/// What a registrar demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Fleet domain.
    pub fleet: String,
    /// The registrar: SHA-256 of the SubjectPublicKeyInfo that boxes pin.
    pub registrar: [u8; 32],
    /// What it demands of a boot.
    pub boot: BootPolicy,
    /// Versions of TPM firmware that are known to be bad.
    pub bad_firmware: Vec<u64>,
}

/// A request whose parts fit each other; nothing in it is proven but the endorsement key's origin.
#[derive(Debug, Clone)]
pub struct Presented {
    /// The request.
    pub request: Request,
    /// Its hash.
    pub transcript: Hash,
    /// The name of the log.
    pub origin: Origin,
    /// What the manufacturer says.
    pub endorsed: Endorsed,
    /// The endorsement key.
    pub ek: TpmtPublic,
    ak: TpmtPublic,
    tls: TpmtPublic,
    issuing: TpmtPublic,
    counter: NvPublic,
}

/// A challenge as its maker remembers it.
pub struct Posed<'a> {
    /// The registrar's nonce.
    pub nonce: &'a [u8; 32],
    /// Binding of the connection that the challenge went through.
    pub channel: &'a [u8; 32],
    /// What the TPM had to give back.
    pub secret: &'a [u8],
}

/// What the evidence proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The boot.
    pub boot: Boot,
    /// Version of the TPM's firmware.
    pub firmware: u64,
    /// Resets of the TPM since it was cleared.
    pub reset_count: u32,
}

/// How far evidence was believed before it was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// Anybody could have sent it: it says nothing about the box.
    Anonymous(Refusal),
    /// The TPM of the request took part: the box is refused.
    ByTheBox(Refusal),
}

impl Presented {
    /// Checks a request against itself, the policy and the manufacturers.
    ///
    /// # Errors
    /// The first thing that does not fit.
    pub fn judge(
        request: Request,
        policy: &Policy,
        manufacturers: &Manufacturers,
        now_millis: u64,
    ) -> Judged<Self> {
        let refused = |code, why: String| Err(Refusal::new(code, why));
        if request.fleet != policy.fleet {
            let why = format!("the box wants into fleet {}, this is {}", request.fleet, policy.fleet);
            return refused(Code::OtherFleet, why);
        }
        if *request.registrar != policy.registrar {
            let why =
                "the request is for a registrar with another key: pin this one's, or look for who relays it";
            return refused(Code::OtherRegistrar, why.into());
        }
        let ek = template::endorsement_key(&request.ek_public)?;
        let certificates: Vec<Vec<u8>> = request.ek_certificates.iter().map(|bytes| bytes.to_vec()).collect();
        let endorsed = manufacturers.judge(&ek, &certificates, now_millis)?;
        let ak = template::attestation_key(&request.attestation_key)?;
        let tls = template::service_key("TLS", &request.tls_key)?;
        let issuing = template::service_key("issuing", &request.issuing_key)?;
        let counter = template::counter(&request.counter)?;
        let origin = match Origin::parse(&request.origin) {
            Ok(origin) if origin.belongs_to(&policy.fleet, &endorsed.ek_spki_sha256) => origin,
            Ok(_) => {
                let why = format!(
                    "the origin {} is that of another TPM or fleet: a log cannot change its TPM",
                    request.origin
                );
                return refused(Code::Origin, why);
            }
            Err(error) => return refused(Code::Origin, format!("the origin is none: {error}")),
        };
        if request.head != TreeState::new(0, empty_root()) {
            let why = "the log has begun already; a box is enrolled before its first entry";
            return refused(Code::Head, why.into());
        }
        if PublicKey::from_bytes(Algorithm::Ed25519, &*request.log_key).is_err() {
            return refused(Code::LogKey, "the log key is no Ed25519 key".into());
        }
        let transcript = request.transcript();
        Ok(Presented { transcript, origin, endorsed, ek, ak, tls, issuing, counter, request })
    }

    /// Name of the attestation key, for which a credential is made.
    pub fn attestation_name(&self) -> Vec<u8> {
        self.ak.name()
    }

    /// Judges evidence for this request and a challenge.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn prove(
        &self,
        evidence: &Evidence,
        posed: &Posed<'_>,
        policy: &Policy,
        now_millis: u64,
    ) -> Result<Proven, Failed> {
        let proofs = self.activated(evidence, posed).map_err(Failed::Anonymous)?;
        self.attested(evidence, &proofs, policy, now_millis).map_err(Failed::ByTheBox)
    }

    fn activated(&self, evidence: &Evidence, posed: &Posed<'_>) -> Judged<Proofs> {
        let refused = |code, why: &str| Err(Refusal::new(code, why));
        if *evidence.nonce != *posed.nonce {
            return refused(
                Code::ChallengeOther,
                "the evidence answers another challenge than the one outstanding",
            );
        }
        if *evidence.channel != *posed.channel {
            let why = "the challenge reached the box through another connection than this registrar's: somebody relays it";
            return refused(Code::Relayed, why);
        }
        let proofs = Proofs::new(&self.request, posed.nonce, posed.channel)
            .map_err(|error| tpm(Code::AttestationKeyTemplate, "the attestation key", &error))?;
        if !proofs.is_activation(posed.secret, &evidence.activation) {
            let why = "the TPM of the endorsement key did not activate the credential for this attestation key: they are \
                       not of one TPM";
            return refused(Code::Activation, why);
        }
        Ok(proofs)
    }

    fn attested(
        &self,
        evidence: &Evidence,
        proofs: &Proofs,
        policy: &Policy,
        now_millis: u64,
    ) -> Judged<Proven> {
        let quote = &evidence.quote;
        let facts =
            verify_quote(&self.ak, &quote.attest, &quote.signature, &proofs.qualifying(Purpose::Quote))
                .map_err(|error| tpm(Code::Quote, "the quote", &error))?;
        let signer = Attest::parse(&quote.attest).map_err(|error| tpm(Code::Quote, "the quote", &error))?;
        if signer.qualified_signer != template::qualified_name(&self.ek, &self.ak) {
            let why = "the attestation key was not made under the endorsement key: make it in the endorsement hierarchy";
            return Err(Refusal::new(Code::AttestationKeyParent, why));
        }
        let values: Vec<(u8, [u8; 32])> = quote.pcrs.iter().map(|pcr| (pcr.pcr, *pcr.value)).collect();
        facts.check_pcrs(&values).map_err(|error| tpm(Code::QuotePcrs, "the PCR values", &error))?;
        if facts.pcr_selection != QUOTED_PCRS {
            let why = format!("PCRs {:?} are quoted, not {QUOTED_PCRS:?}", facts.pcr_selection);
            return Err(Refusal::new(Code::QuotePcrs, why));
        }
        if policy.bad_firmware.contains(&facts.firmware) {
            let why = format!(
                "the TPM runs firmware {:#018x}, which is known to be bad; update it",
                facts.firmware
            );
            return Err(Refusal::new(Code::TpmFirmware, why));
        }
        let certified = |code, what, said: &Attestation, key: &TpmtPublic, purpose| {
            verify_certify(&self.ak, &said.attest, &said.signature, &proofs.qualifying(purpose), &key.name())
                .map_err(|error| tpm(code, what, &error))
        };
        certified(
            Code::TlsKey,
            "the TLS key's certification",
            &evidence.tls_key,
            &self.tls,
            Purpose::TlsKey,
        )?;
        let (said, key) = (&evidence.issuing_key, &self.issuing);
        certified(Code::IssuingKey, "the issuing key's certification", said, key, Purpose::IssuingKey)?;
        self.counted(&evidence.counter, proofs)?;
        let key = PublicKey::from_bytes(Algorithm::Ed25519, &*self.request.log_key);
        let message = proofs.message(Purpose::LogKey);
        if !key.is_ok_and(|key| key.verify(&message, &evidence.log_signature).is_ok()) {
            let why = "whoever sent the evidence does not hold the log key: its signature does not verify";
            return Err(Refusal::new(Code::LogSignature, why));
        }
        let values: PcrValues = values.into_iter().collect();
        let boot = boot::judge(&policy.boot, &values, &self.request.event_log, now_millis)?;
        Ok(Proven { boot, firmware: facts.firmware, reset_count: facts.reset_count })
    }

    fn counted(&self, said: &Attestation, proofs: &Proofs) -> Judged<()> {
        const WHAT: &str = "the counter's certification";
        let qualifying = proofs.qualifying(Purpose::Counter);
        let facts = verify_nv_certify(&self.ak, &said.attest, &said.signature, &qualifying)
            .map_err(|error| tpm(Code::Counter, WHAT, &error))?;
        if facts.index_name != self.counter.name() {
            let why = "the certified NV index is not the counter of the request";
            return Err(Refusal::new(Code::Counter, why));
        }
        let expected = self.origin.incarnation();
        if facts.counter != expected {
            let why = format!(
                "the counter stands at {}, the origin says {expected}: ask again with an origin of that number",
                facts.counter
            );
            return Err(Refusal::new(Code::CounterValue, why));
        }
        Ok(())
    }
}

fn tpm(code: Code, what: &str, error: &TpmError) -> Refusal {
    Refusal::new(code, format!("{what} does not hold: {error}"))
}

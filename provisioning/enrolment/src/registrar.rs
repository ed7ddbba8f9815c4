//! The registrar's decisions: what to keep, and only then what to answer.
//!
//! Refuses to do: store, send, read a clock, invent random numbers, approve anything.
//! Invariants: whoever carries out a [`Step`] makes `keep` durable before `answer` leaves; whatever is lost in between is
//! answered alike when the box asks again. A challenge is used once, lives five minutes, and only in memory: after a
//! restart the box gets another one.

use crate::credential;
use crate::endorsement::Manufacturers;
use crate::evidence::{Failed, Policy, Posed, Presented};
use crate::record::{ProvenStep, Record, Stage};
use crate::refusal::{Code, Judged, Refusal};
use crate::wire::{Answer, Challenge, Evidence, Pending, Refused, Request};
use bulla_formats::der::Octets32;
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::hash::Hash;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// How long a challenge can be answered, in milliseconds.
pub const CHALLENGE_MILLIS: u64 = 5 * 60 * 1_000;
/// Most challenges outstanding; the one that ends first gives way.
pub const CHALLENGES_MAX: usize = 1_024;

/// What the fleet holds of a TPM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It is listed, and may come.
    Expected,
    /// Nobody has listed it. It is noted and waits for people.
    Unknown,
    /// It is listed, and people hold it back.
    Quarantined,
    /// It must never come again.
    Tombstoned {
        /// Why.
        reason: String,
    },
}

/// What a registrar looks up: inventory and earlier enrolments.
pub trait Book {
    /// What the fleet holds of the TPM whose endorsement key has this hash.
    fn standing(&self, ek_spki_sha256: &Hash) -> Standing;
    /// The enrolment with this transcript.
    fn record(&self, transcript: &Hash) -> Option<Record>;
    /// The newest log of this TPM in the fleet: its incarnation and its key.
    fn newest_log(&self, ek_spki_sha256: &Hash) -> Option<(u64, [u8; 32])>;
    /// What the fleet's people have approved of the log that this member goes on with.
    fn log_in_use(&self, ek_spki_sha256: &Hash) -> Option<EnrolmentContent>;
    /// What the fleet's people have approved of the log with this name.
    fn membership(&self, origin: &str) -> Option<EnrolmentContent>;
}

/// What to do now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// To make durable under its transcript.
    pub keep: Option<Record>,
    /// A TPM nobody knows, to be noted in quarantine: hash of its endorsement key and what its maker says.
    pub quarantine: Option<(Hash, String)>,
    /// To send, once that is done.
    pub answer: Answer,
}

impl Step {
    fn answer(answer: Answer) -> Self {
        Step { keep: None, quarantine: None, answer }
    }

    fn refuse(transcript: Option<&Hash>, refusal: Refusal) -> Self {
        Self::answer(refused(transcript, refusal))
    }
}

fn refused(transcript: Option<&Hash>, refusal: Refusal) -> Answer {
    let transcript = transcript.map(|transcript| Octets32::new(transcript.0));
    Answer::Refused(Refused {
        version: 1,
        transcript,
        code: refusal.code.name().into(),
        sentence: refusal.sentence,
    })
}

struct Outstanding {
    nonce: [u8; 32],
    channel: [u8; 32],
    secret: Zeroizing<[u8; 32]>,
    expires_at: u64,
}

/// The registrar.
pub struct Registrar {
    policy: Policy,
    manufacturers: Manufacturers,
    outstanding: BTreeMap<Hash, Outstanding>,
}

impl Registrar {
    /// A registrar with no challenge outstanding.
    pub fn new(policy: Policy, manufacturers: Manufacturers) -> Self {
        Registrar { policy, manufacturers, outstanding: BTreeMap::new() }
    }

    /// What it demands.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Which boots it accepts from now on.
    pub fn accept_boots(&mut self, boot: crate::boot::BootPolicy) {
        self.policy.boot = boot;
    }

    /// Whose TPMs it believes in.
    pub fn manufacturers(&self) -> &Manufacturers {
        &self.manufacturers
    }

    /// Replaces what it demands, as when a new image is known.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// A box asks to be enrolled, or asks again.
    ///
    /// `channel` is the binding of the connection (RFC 9266, tls-exporter) that the answer goes through.
    pub fn ask(
        &mut self,
        book: &impl Book,
        request: &[u8],
        channel: &[u8; 32],
        now_millis: u64,
        random: credential::Random<'_>,
    ) -> Step {
        let request_bytes = request;
        let request = match Request::decode(request) {
            Ok(request) => request,
            Err(error) => return Step::refuse(None, Refusal::new(Code::Malformed, error.to_string())),
        };
        let transcript = crate::proof::transcript(request_bytes);
        let known = book.record(&transcript);
        if let Some(refused) = known.as_ref().and_then(as_refused) {
            return Step::answer(refused);
        }
        let presented = match Presented::judge(request, &self.policy, &self.manufacturers, now_millis) {
            Ok(presented) => presented,
            Err(refusal) => return Step::refuse(Some(&transcript), refusal),
        };
        if let Err(refusal) = admissible(book, &presented) {
            let unknown = refusal.code == Code::EkUnknown;
            let endorsed = &presented.endorsed;
            let quarantine = unknown.then(|| (endorsed.ek_spki_sha256, endorsed.described.clone()));
            return Step { quarantine, ..Step::refuse(Some(&transcript), refusal) };
        }
        if let Some(answer) = known.as_ref().and_then(settled) {
            return Step::answer(answer);
        }
        let challenge = match self.challenge(&presented, channel, now_millis, random) {
            Ok(challenge) => challenge,
            Err(refusal) => return Step::refuse(Some(&transcript), refusal),
        };
        let keep = known.is_none().then(|| Record {
            version: 1,
            request: request_bytes.to_vec().into(),
            received_at: now_millis,
            described: presented.endorsed.described.clone(),
            manufacturer: presented.endorsed.root.clone(),
            proven: None,
            approved: None,
            refused: None,
            issued: None,
        });
        Step { keep, quarantine: None, answer: Answer::Challenge(challenge) }
    }

    fn challenge(
        &mut self,
        presented: &Presented,
        channel: &[u8; 32],
        now_millis: u64,
        random: credential::Random<'_>,
    ) -> Judged<Challenge> {
        let mut outstanding = Outstanding {
            nonce: [0; 32],
            channel: *channel,
            secret: Zeroizing::new([0; 32]),
            expires_at: now_millis.saturating_add(CHALLENGE_MILLIS),
        };
        random(&mut outstanding.nonce);
        random(outstanding.secret.as_mut());
        let name = presented.attestation_name();
        let credential = credential::make(&presented.ek, &name, outstanding.secret.as_ref(), random)
            .map_err(|error| Refusal::new(Code::EkTemplate, error.to_string()))?;
        let challenge = Challenge {
            version: 1,
            transcript: Octets32::new(presented.transcript.0),
            nonce: Octets32::new(outstanding.nonce),
            credential: credential.id_object.into(),
            secret: credential.encrypted_secret.into(),
            expires_at: outstanding.expires_at,
        };
        self.outstanding.retain(|_, challenge| now_millis <= challenge.expires_at);
        if self.outstanding.len() >= CHALLENGES_MAX {
            let first = self.outstanding.iter().min_by_key(|(_, challenge)| challenge.expires_at);
            let first = first.map(|(transcript, _)| *transcript);
            first.map(|transcript| self.outstanding.remove(&transcript));
        }
        self.outstanding.insert(presented.transcript, outstanding);
        Ok(challenge)
    }

    /// A box answers its challenge, or sends its answer again.
    pub fn prove(&mut self, book: &impl Book, evidence: &[u8], now_millis: u64) -> Step {
        let evidence_bytes = evidence;
        let evidence = match Evidence::decode(evidence) {
            Ok(evidence) => evidence,
            Err(error) => return Step::refuse(None, Refusal::new(Code::Malformed, error.to_string())),
        };
        let transcript = Hash(*evidence.transcript);
        let refuse = |code, why: &str| Step::refuse(Some(&transcript), Refusal::new(code, why));
        let Some(record) = book.record(&transcript) else {
            return refuse(Code::RequestUnknown, "nobody has asked with this transcript; ask first");
        };
        if let Some(answer) = as_refused(&record).or_else(|| settled(&record)) {
            return Step::answer(answer);
        }
        let Some(posed) = self.outstanding.remove(&transcript) else {
            return refuse(
                Code::ChallengeUnknown,
                "no challenge is outstanding: it was answered, never made, or the registrar was restarted; ask again",
            );
        };
        if now_millis > posed.expires_at {
            return refuse(Code::ChallengeExpired, "the challenge was more than five minutes old; ask again");
        }
        let presented = Presented::judge(record.request(), &self.policy, &self.manufacturers, now_millis)
            .and_then(|presented| admissible(book, &presented).map(|()| presented));
        let presented = match presented {
            Ok(presented) => presented,
            Err(refusal) => return Step::refuse(Some(&transcript), refusal),
        };
        let posed = Posed { nonce: &posed.nonce, channel: &posed.channel, secret: posed.secret.as_ref() };
        match presented.prove(&evidence, &posed, &self.policy, now_millis) {
            Ok(proven) => {
                let step = ProvenStep {
                    at: now_millis,
                    evidence: evidence_bytes.to_vec().into(),
                    boot: proven.boot.name.unwrap_or_default(),
                    secure_boot: proven.boot.secure_boot.name().into(),
                };
                let keep = Record { proven: Some(step), ..record };
                let answer = pending(&keep, now_millis);
                Step { keep: Some(keep), quarantine: None, answer }
            }
            Err(Failed::Anonymous(refusal)) => Step::refuse(Some(&transcript), refusal),
            Err(Failed::ByTheBox(refusal)) => {
                let keep = record.refuse(&refusal, "", now_millis);
                Step { keep: Some(keep), quarantine: None, answer: refused(Some(&transcript), refusal) }
            }
        }
    }

    /// A box asks how it stands.
    pub fn poll(&self, book: &impl Book, transcript: &Hash) -> Answer {
        let unknown = |code, why: &str| refused(Some(transcript), Refusal::new(code, why));
        let Some(record) = book.record(transcript) else {
            return unknown(Code::RequestUnknown, "nobody has asked with this transcript; ask first");
        };
        as_refused(&record).or_else(|| settled(&record)).unwrap_or_else(|| {
            unknown(
                Code::ChallengeUnknown,
                "the request is known and nothing is proven; ask again for a challenge",
            )
        })
    }
}

/// Whether a TPM may come with this request, as far as the books say.
pub(crate) fn admissible(book: &impl Book, presented: &Presented) -> Judged<()> {
    let ek = &presented.endorsed.ek_spki_sha256;
    match book.standing(ek) {
        Standing::Expected => {}
        Standing::Unknown => {
            let why = format!(
                "nobody has listed the TPM with endorsement key {ek} ({}); it is noted in quarantine",
                presented.endorsed.described
            );
            return Err(Refusal::new(Code::EkUnknown, why));
        }
        Standing::Quarantined => {
            let why = format!("people hold the TPM with endorsement key {ek} back; ask them");
            return Err(Refusal::new(Code::EkQuarantined, why));
        }
        Standing::Tombstoned { reason } => {
            let why =
                format!("the TPM with endorsement key {ek} was taken out of the fleet for good: {reason}");
            return Err(Refusal::new(Code::EkTombstoned, why));
        }
    }
    if let Some(said) = &presented.request.in_use {
        // The TPM of a member, by the same attestation key, and no second name for a log that people gave up.
        let of_member = book.log_in_use(ek).is_some_and(|log| {
            log.origin == *said && log.attestation_key == presented.request.attestation_key
        });
        if !of_member {
            let why = format!(
                "a log can be staged only for a member that goes on with its last log and the attestation key of that; \
                 this box says {said}, and the roster another"
            );
            return Err(Refusal::new(Code::LogInUse, why));
        }
    }
    let incarnation = presented.origin.incarnation();
    match book.newest_log(ek) {
        Some((newest, key))
            if newest > incarnation || (newest == incarnation && key != *presented.request.log_key) =>
        {
            let why = format!(
                "this TPM has log number {newest} in the fleet already; a new log needs a higher number than that, not \
                 {incarnation}"
            );
            Err(Refusal::new(Code::OriginTaken, why))
        }
        _ => Ok(()),
    }
}

fn pending(record: &Record, since: u64) -> Answer {
    Answer::Pending(Pending { version: 1, transcript: Octets32::new(record.transcript().0), since })
}

fn as_refused(record: &Record) -> Option<Answer> {
    let step = record.refused.as_ref()?;
    Some(Answer::Refused(Refused {
        version: 1,
        transcript: Some(Octets32::new(record.transcript().0)),
        code: step.code.clone(),
        sentence: step.sentence.clone(),
    }))
}

/// The answer to a box that has nothing more to prove.
fn settled(record: &Record) -> Option<Answer> {
    match (record.stage(), &record.proven, &record.issued) {
        (Stage::Issued, _, Some(step)) => Some(Answer::Issued(step.issued.clone())),
        (_, Some(step), _) => Some(pending(record, step.at)),
        _ => None,
    }
}

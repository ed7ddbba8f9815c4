//! Authorities as the box asks them: a time stamp over a batch or a witness's cosignature of the checkpoint, verified
//! before anybody hears of it; and the cheaper question whether they are there.
//!
//! Refuses to do: hand out a proof that does not verify against the pinned roots, nonce and imprint included; decide when
//! to ask (`bulla_protocol::anchoring` does).
//! Invariant: a [`Proof`] comes from an answer that passed every check of `bulla_timestamps`, or a cosignature that
//! verifies over the very checkpoint that was asked about.

use super::http::{Target, Trouble};
use crate::config::{AnchorsConfig, ProbeConfig, TsaConfig, WitnessConfig};
use anyhow::Context as _;
use bulla_formats::body::anchor::{AnchorProof, Evidence, REPLY_BYTES_MAX};
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::hash::Hash;
use bulla_formats::note::SignedNote;
use bulla_formats::trust::{Authorities, CERTIFICATES_MAX, TrustedTsa, TrustedWitness};
use bulla_formats::witness::WitnessKey;
use bulla_formats::witness::add_checkpoint::{PATH, WitnessRefusal, parse_answer, request};
use bulla_protocol::authority::Failure;
use bulla_timestamps::{Expected, Oid, Refusal, ReplyError, Request, TimeStamp};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What an authority gave, verified.
#[derive(Debug, Clone)]
pub struct Proof {
    /// As the log keeps it.
    pub proof: AnchorProof,
    /// Its time less and plus its accuracy, Unix milliseconds.
    pub bounds: (u64, u64),
    /// The stamp, if it is one.
    pub stamp: Option<TimeStamp>,
}

/// One authority.
pub struct Line {
    name: String,
    operator: String,
    target: Target,
    timeout: Duration,
    kind: Kind,
    /// What it was last asked for did not come, over a connection that did: the next connection says nothing, until it
    /// has answered or cannot be reached.
    doubt: Mutex<Option<Trouble>>,
}

enum Kind {
    Tsa {
        tsa: TrustedTsa,
        policy: Option<Oid>,
        probe: ProbeConfig,
    },
    /// With the size of the tree that it cosigned last, as far as is known.
    Witness {
        trusted: TrustedWitness,
        cosigned: AtomicU64,
    },
}

/// What is asked about.
#[derive(Debug, Clone)]
pub struct Question {
    /// SHA-256 of what time-stamp authorities sign.
    pub imprint: [u8; 32],
    /// The checkpoint, signed by the log key.
    pub checkpoint: SignedNote,
    /// The size that consistency is shown from, and the proof; for witnesses.
    pub since: (u64, Vec<Hash>),
    /// The tree's size.
    pub size: u64,
}

/// Reads the files that the configuration names. Time-stamp authorities first, as the planner counts them.
///
/// # Errors
/// A file cannot be read, or has no root in it.
pub fn lines(config: &AnchorsConfig) -> anyhow::Result<Vec<Line>> {
    let tsa = |tsa: &TsaConfig| {
        let policies = tsa.policies.iter().map(|text| Oid::parse(text)).collect::<Result<Vec<_>, _>>();
        let policies = policies.context("a policy is no OID")?;
        let policy = policies.first().filter(|_| policies.len() == 1).cloned();
        let authority = roots(tsa.roots.as_path(), policies)?;
        Ok(Line {
            name: tsa.name.clone(),
            operator: tsa.operator.clone(),
            target: Target::new(&tsa.url, tsa.tls_ca.as_deref())?,
            timeout: Duration::from_secs(tsa.timeout_seconds),
            kind: Kind::Tsa {
                tsa: TrustedTsa { operator: tsa.operator.clone(), authority },
                policy,
                probe: tsa.probe,
            },
            doubt: Mutex::new(None),
        })
    };
    let witness = |witness: &WitnessConfig| {
        let url = format!("{}/{PATH}", witness.url.trim_end_matches('/'));
        Ok(Line {
            name: witness.name.clone(),
            operator: witness.operator.clone(),
            target: Target::new(&url, witness.tls_ca.as_deref())?,
            timeout: Duration::from_secs(witness.timeout_seconds),
            kind: Kind::Witness { trusted: trusted_witness(witness)?, cosigned: AtomicU64::new(0) },
            doubt: Mutex::new(None),
        })
    };
    config.tsa.iter().map(tsa).chain(config.witness.iter().map(witness)).collect()
}

fn trusted_witness(witness: &WitnessConfig) -> anyhow::Result<TrustedWitness> {
    let key = WitnessKey::parse(&witness.key).context("the key of a witness is no verifier key")?;
    Ok(TrustedWitness { operator: witness.operator.clone(), key })
}

fn roots(path: &std::path::Path, policies: Vec<Oid>) -> anyhow::Result<bulla_timestamps::Authority> {
    let pem = std::fs::read(path)
        .with_context(|| format!("cannot read the roots of a time-stamp authority in {}", path.display()))?;
    bulla_timestamps::Authority::from_pem(&pem, policies)
        .with_context(|| format!("the roots in {} cannot be used", path.display()))
}

/// What verifiers of this box's seals learn of its authorities; `None` when it has none.
///
/// # Errors
/// As [`lines`].
pub fn trusted(config: &AnchorsConfig) -> anyhow::Result<Option<Authorities>> {
    if config.is_empty() {
        return Ok(None);
    }
    let mut tsas: Vec<TrustedTsa> = Vec::new();
    for line in lines(config)? {
        let Kind::Tsa { tsa, .. } = line.kind else { continue };
        match tsas.iter_mut().find(|known| known.operator == tsa.operator) {
            None => tsas.push(tsa),
            // Two services of one operator: its roots and policies together.
            Some(known) => {
                let mut all: Vec<Vec<u8>> = known.authority.roots().map(<[u8]>::to_vec).collect();
                all.extend(tsa.authority.roots().map(<[u8]>::to_vec));
                all.sort_unstable();
                all.dedup();
                let both = [known.authority.policies(), tsa.authority.policies()];
                let any = both.iter().any(|policies| policies.is_empty());
                let policies = if any { Vec::new() } else { both.concat() };
                anyhow::ensure!(
                    all.len() <= CERTIFICATES_MAX && policies.len() <= CERTIFICATES_MAX,
                    "operator {:?} has more than {CERTIFICATES_MAX} roots or policies in all, and a trust file has room for no more",
                    known.operator
                );
                known.authority = bulla_timestamps::Authority::new(&all, policies)?;
            }
        }
    }
    let witnesses = config.witness.iter().map(trusted_witness).collect::<anyhow::Result<Vec<_>>>()?;
    let mut names: Vec<&str> = tsas.iter().map(|tsa| tsa.operator.as_str()).collect();
    names.extend(witnesses.iter().map(|witness| witness.operator.as_str()));
    names.sort_unstable();
    names.dedup();
    let operators = config.operators.min(names.len()).max(1) as u64;
    Ok(Some(Authorities { tsas, witnesses, operators }))
}

impl Line {
    /// The size that a question's proof of consistency begins at; 0 where none is needed.
    pub fn since(&self) -> u64 {
        match &self.kind {
            Kind::Tsa { .. } => 0,
            Kind::Witness { cosigned, .. } => cosigned.load(Relaxed),
        }
    }

    /// Whose time stamps it gives, if it gives any.
    pub fn stamps(&self) -> Option<&TrustedTsa> {
        match &self.kind {
            Kind::Tsa { tsa, .. } => Some(tsa),
            Kind::Witness { .. } => None,
        }
    }

    /// Asks for a proof.
    pub async fn ask(&self, question: &Question) -> Result<Proof, Trouble> {
        let asked = match &self.kind {
            Kind::Tsa { tsa, policy, .. } => {
                self.stamp(tsa, policy.clone(), question.imprint, self.timeout).await
            }
            Kind::Witness { trusted, cosigned } => self.cosign(trusted, cosigned, question).await,
        };
        let doubt = match &asked {
            // Who keeps to a quota is there.
            Err(trouble) if trouble.connected && trouble.failure != Failure::Quota => Some(trouble.clone()),
            // Who could not be reached may be there again at the next look.
            _ => None,
        };
        self.doubt(doubt);
        asked
    }

    /// Whether it is there; known within this time, whatever its own patience: an outage must be noticed in time.
    pub async fn probe(&self, within: Duration) -> Result<Option<Proof>, Trouble> {
        let within = within.min(self.timeout);
        if let Kind::Tsa { probe: ProbeConfig::Stamp, tsa, policy } = &self.kind {
            let mut imprint = [0; 32];
            getrandom::fill(&mut imprint)
                .map_err(|error| Trouble::new(Failure::Other, format!("no randomness: {error}")))?;
            return self.stamp(tsa, policy.clone(), imprint, within).await.map(Some);
        }
        self.target.connect(within).await.inspect_err(|_| self.doubt(None))?;
        match &*self.doubt.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(None),
            Some(doubt) => {
                let detail = format!("it accepts connections, but when it was asked: {}", doubt.detail);
                Err(Trouble::of_answer(doubt.failure, detail))
            }
        }
    }

    fn doubt(&self, doubt: Option<Trouble>) {
        *self.doubt.lock().unwrap_or_else(PoisonError::into_inner) = doubt;
    }

    async fn cosign(
        &self,
        trusted: &TrustedWitness,
        cosigned: &AtomicU64,
        question: &Question,
    ) -> Result<Proof, Trouble> {
        let (since, proof) = &question.since;
        let body = request(*since, proof, &question.checkpoint).ok_or_else(|| {
            Trouble::new(Failure::Other, "the proof of consistency is too long for a witness")
        })?;
        let answer = self.target.post("text/plain; charset=utf-8", body.into_bytes(), self.timeout).await?;
        let text = &question.checkpoint.text;
        let said =
            parse_answer(answer.status.as_u16(), &answer.body, text, &trusted.key).map_err(|refusal| {
                if let WitnessRefusal::Size(size) = refusal {
                    cosigned.store(size, Relaxed);
                }
                let detail = format!("{}: {refusal}", refusal.code());
                match refusal {
                    WitnessRefusal::Unreadable(_)
                    | WitnessRefusal::Absent
                    | WitnessRefusal::BadCosignature
                    | WitnessRefusal::TooLong => Trouble::of_answer(Failure::BadAnswer, detail),
                    // It is there, and is asked again from where it stands.
                    WitnessRefusal::Size(_) => Trouble::new(Failure::Other, detail),
                    _ => Trouble::of_answer(Failure::HttpStatus, detail),
                }
            })?;
        cosigned.fetch_max(question.size, Relaxed);
        let millis = said.seconds.checked_mul(1_000).filter(|millis| *millis < NUMBER_MAX - 1_000);
        let millis = millis.ok_or_else(|| {
            Trouble::of_answer(Failure::BadAnswer, "its cosignature is from a time that is none")
        })?;
        let bounds = (millis, millis + 1_000);
        let evidence = Evidence::Cosignature(said);
        let (authority, operator) = (self.name.clone(), self.operator.clone());
        Ok(Proof { proof: AnchorProof { authority, operator, evidence }, bounds, stamp: None })
    }

    async fn stamp(
        &self,
        tsa: &TrustedTsa,
        policy: Option<Oid>,
        imprint: [u8; 32],
        within: Duration,
    ) -> Result<Proof, Trouble> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)
            .map_err(|error| Trouble::new(Failure::Other, format!("no randomness: {error}")))?;
        // Positive and of full length, so that no responder trips over a sign.
        let nonce = u64::from_be_bytes(nonce) >> 1 | 1 << 62;
        let request = Request::new(imprint, nonce, policy).encode();
        let answer = self.target.post("application/timestamp-query", request, within).await?;
        if !answer.status.is_success() {
            return Err(Trouble::of_answer(Failure::HttpStatus, format!("HTTP {}", answer.status)));
        }
        if answer.media_type != "application/timestamp-reply" {
            let detail = format!("an answer of type {:?} instead of a time stamp", answer.media_type);
            return Err(Trouble::of_answer(Failure::BadAnswer, detail));
        }
        let expected = Expected { imprint, nonce: Some(nonce) };
        let stamp = bulla_timestamps::verify(&answer.body, &expected, &tsa.authority).map_err(|refusal| {
            let failure = match &refusal {
                Refusal::Reply(ReplyError::Rejected(_)) => Failure::Other,
                _ => Failure::BadAnswer,
            };
            Trouble::of_answer(failure, format!("{}: {refusal}", refusal.code()))
        })?;
        if answer.body.len() > REPLY_BYTES_MAX {
            let detail = format!("its time stamp is longer than {REPLY_BYTES_MAX} bytes");
            return Err(Trouble::of_answer(Failure::BadAnswer, detail));
        }
        Ok(Proof {
            proof: AnchorProof {
                authority: self.name.clone(),
                operator: self.operator.clone(),
                evidence: Evidence::Timestamp(answer.body.to_vec().into()),
            },
            bounds: (stamp.earliest_micros() / 1_000, stamp.latest_micros().div_ceil(1_000)),
            stamp: Some(stamp),
        })
    }
}

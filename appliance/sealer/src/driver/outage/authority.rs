//! Authorities as the box asks them: a time stamp over a batch, verified before anybody hears of it; and the cheaper
//! question whether they are there.
//!
//! Refuses to do: hand out a proof that does not verify against the pinned roots, nonce and imprint included; decide when
//! to ask (`bulla_protocol::anchoring` does).
//! Invariant: a [`Proof`] comes from an answer that passed every check of `bulla_timestamps`.

use super::http::{Target, Trouble};
use crate::config::{AnchorsConfig, ProbeConfig};
use anyhow::Context as _;
use bulla_formats::body::anchor::{AnchorProof, Evidence, REPLY_BYTES_MAX};
use bulla_formats::trust::{Authorities, TrustedTsa, TrustedWitness};
use bulla_formats::witness::WitnessKey;
use bulla_protocol::authority::Failure;
use bulla_timestamps::{Expected, Oid, Refusal, ReplyError, Request};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// What an authority gave, verified.
#[derive(Debug, Clone)]
pub struct Proof {
    /// As the log keeps it.
    pub proof: AnchorProof,
    /// Its time less and plus its accuracy, Unix milliseconds.
    pub bounds: (u64, u64),
}

/// One authority.
pub struct Line {
    name: String,
    operator: String,
    target: Target,
    timeout: Duration,
    kind: Kind,
    /// The last whole answer was none of the authority's: a mere connection says nothing until one is.
    doubted: AtomicBool,
}

enum Kind {
    Tsa { tsa: TrustedTsa, policy: Option<Oid>, probe: ProbeConfig },
}

/// Reads the files that the configuration names. Time-stamp authorities first, as the planner counts them.
///
/// # Errors
/// A file cannot be read, or has no root in it.
pub fn lines(config: &AnchorsConfig) -> anyhow::Result<Vec<Line>> {
    config
        .tsa
        .iter()
        .map(|tsa| {
            let policies = tsa.policies.iter().map(|text| Oid::parse(text)).collect::<Result<Vec<_>, _>>();
            let policies = policies.context("a policy is no OID")?;
            let policy = policies.first().filter(|_| policies.len() == 1).cloned();
            let trusted = TrustedTsa {
                operator: tsa.operator.clone(),
                authority: roots(tsa.roots.as_path(), policies)?,
            };
            Ok(Line {
                name: tsa.name.clone(),
                operator: tsa.operator.clone(),
                target: Target::new(&tsa.url, tsa.tls_ca.as_deref())?,
                timeout: Duration::from_secs(tsa.timeout_seconds),
                kind: Kind::Tsa { tsa: trusted, policy, probe: tsa.probe },
                doubted: AtomicBool::new(false),
            })
        })
        .collect()
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
        let Kind::Tsa { tsa, .. } = line.kind;
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
                known.authority = bulla_timestamps::Authority::new(&all, policies)?;
            }
        }
    }
    let witness = |one: &crate::config::WitnessConfig| {
        let key = WitnessKey::parse(&one.key).context("the key of a witness is no verifier key")?;
        Ok(TrustedWitness { operator: one.operator.clone(), key })
    };
    let witnesses = config.witness.iter().map(witness).collect::<anyhow::Result<Vec<_>>>()?;
    let mut names: Vec<&str> = tsas.iter().map(|tsa| tsa.operator.as_str()).collect();
    names.extend(witnesses.iter().map(|witness| witness.operator.as_str()));
    names.sort_unstable();
    names.dedup();
    let operators = config.operators.min(names.len()).max(1) as u64;
    Ok(Some(Authorities { tsas, witnesses, operators }))
}

impl Line {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Who runs it.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// Asks for a proof over `imprint`.
    pub async fn ask(&self, imprint: [u8; 32]) -> Result<Proof, Trouble> {
        let Kind::Tsa { tsa, policy, .. } = &self.kind;
        let asked = self.stamp(tsa, policy.clone(), imprint).await;
        // What is no answer at all says nothing about who would answer.
        match &asked {
            Ok(_) => self.doubted.store(false, Relaxed),
            Err(trouble) if trouble.failure == Failure::BadAnswer => self.doubted.store(true, Relaxed),
            Err(_) => {}
        }
        asked
    }

    /// Whether it is there.
    pub async fn probe(&self) -> Result<Option<Proof>, Trouble> {
        let Kind::Tsa { probe, .. } = &self.kind;
        match probe {
            ProbeConfig::Stamp => {
                let mut imprint = [0; 32];
                getrandom::fill(&mut imprint)
                    .map_err(|error| Trouble::new(Failure::Other, format!("no randomness: {error}")))?;
                self.ask(imprint).await.map(Some)
            }
            ProbeConfig::Connect => {
                self.target.connect(self.timeout).await?;
                if self.doubted.load(Relaxed) {
                    let detail = "it accepts connections, but its last answer was not one of the authority";
                    return Err(Trouble::new(Failure::BadAnswer, detail));
                }
                Ok(None)
            }
        }
    }

    async fn stamp(
        &self,
        tsa: &TrustedTsa,
        policy: Option<Oid>,
        imprint: [u8; 32],
    ) -> Result<Proof, Trouble> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce)
            .map_err(|error| Trouble::new(Failure::Other, format!("no randomness: {error}")))?;
        // Positive and of full length, so that no responder trips over a sign.
        let nonce = u64::from_be_bytes(nonce) >> 1 | 1 << 62;
        let request = Request::new(imprint, nonce, policy).encode();
        let answer = self.target.post("application/timestamp-query", request, self.timeout).await?;
        if !answer.status.is_success() {
            return Err(Trouble::new(Failure::HttpStatus, format!("HTTP {}", answer.status)));
        }
        if answer.media_type != "application/timestamp-reply" {
            let detail = format!("an answer of type {:?} instead of a time stamp", answer.media_type);
            return Err(Trouble::new(Failure::BadAnswer, detail));
        }
        let expected = Expected { imprint, nonce: Some(nonce) };
        let stamp = bulla_timestamps::verify(&answer.body, &expected, &tsa.authority).map_err(|refusal| {
            let failure = match &refusal {
                Refusal::Reply(ReplyError::Rejected(_)) => Failure::Other,
                _ => Failure::BadAnswer,
            };
            Trouble::new(failure, format!("{}: {refusal}", refusal.code()))
        })?;
        if answer.body.len() > REPLY_BYTES_MAX {
            let detail = format!("its time stamp is longer than {REPLY_BYTES_MAX} bytes");
            return Err(Trouble::new(Failure::BadAnswer, detail));
        }
        Ok(Proof {
            proof: AnchorProof {
                authority: self.name.clone(),
                operator: self.operator.clone(),
                evidence: Evidence::Timestamp(answer.body.to_vec().into()),
            },
            bounds: (stamp.earliest_micros() / 1_000, stamp.latest_micros().div_ceil(1_000)),
        })
    }
}

//! What anchors prove: each proof judged against whom the trust file believes, and the bounds that follow.
//!
//! Refuses to do: let one operator count twice, or let an authority that the trust file does not name decide anything.
//! Invariants: an [`Attested`] comes from a proof that verified; a bound needs as many distinct operators as the trust
//! file asks for, so that fewer liars than that move none.

use crate::body::anchor::{AnchorBody, AnchorProof, Evidence, imprint_input};
use crate::entry::Entry;
use crate::hash::sha256;
use crate::seal_file::SealFile;
use crate::trust::Authorities;
use bulla_timestamps::{Crl, Expected, Refusal, Standing, TimeStamp, Use};

/// What one operator's proof says: the imprint or checkpoint existed at a time between these two. Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attested {
    /// Who says so.
    pub operator: String,
    /// Not before this.
    pub earliest: u64,
    /// Not after this.
    pub latest: u64,
}

/// A proof that holds, and what CRLs say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What it says.
    pub said: Attested,
    /// How the certificates behind it stood; `None` where there are none.
    pub standing: Option<Standing>,
    /// What became of each CRL.
    pub uses: Vec<Use>,
}

impl Held {
    /// Whether it may count for a bound.
    pub fn counts(&self) -> bool {
        !matches!(self.standing, Some(Standing::Doubtful(_)))
    }
}

/// How a proof came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It holds.
    Holds(Held),
    /// The trust file does not say whether to believe it; the words say why.
    Unknown(String),
    /// It does not hold, though the trust file knows who should have made it.
    Refused(String),
}

/// Witnesses state whole seconds: the cosignature was made within that second.
const WITNESS_ACCURACY_MILLIS: u64 = 1_000;

/// Judges one proof of `body`, an anchor of the log named `origin`, with these CRLs at hand.
pub fn judge(
    body: &AnchorBody,
    proof: &AnchorProof,
    origin: &str,
    authorities: Option<&Authorities>,
    crls: &[Crl<'_>],
) -> Judged {
    let operator = proof.operator.clone();
    let unknown = |what: &str| Judged::Unknown(format!("the trust file names no {what} of {operator:?}"));
    match &proof.evidence {
        Evidence::Timestamp(reply) => {
            let Some(known) = authorities.and_then(|all| all.tsa(&operator)) else {
                return unknown("time-stamp authority");
            };
            match stamp(body, reply, &known.authority) {
                Ok(token) => {
                    let (earliest, latest) =
                        (token.earliest_micros() / 1_000, token.latest_micros().div_ceil(1_000));
                    let (standing, uses) = bulla_timestamps::standing(&token, crls);
                    let said = Attested { operator, earliest, latest };
                    Judged::Holds(Held { said, standing: Some(standing), uses })
                }
                // Roots are replaced in the course of years: these two say that the trust file does not know, nothing worse.
                Err(error @ (Refusal::Untrusted | Refusal::Policy(_))) => Judged::Unknown(error.to_string()),
                Err(error) => Judged::Refused(error.to_string()),
            }
        }
        Evidence::Cosignature(said) => {
            let Some(known) = authorities.and_then(|all| all.witness(&operator, &said.name)) else {
                return unknown("witness");
            };
            match known.key.verify(&body.checkpoint_text(origin), said.seconds, &said.signature) {
                Ok(()) => {
                    let earliest = said.seconds * 1_000;
                    let said = Attested { operator, earliest, latest: earliest + WITNESS_ACCURACY_MILLIS };
                    Judged::Holds(Held { said, standing: None, uses: Vec::new() })
                }
                Err(error) => Judged::Refused(format!("the cosignature of {}: {error}", said.name)),
            }
        }
    }
}

/// Judges a reply over the batch of `body`, whoever asked for it.
pub fn stamp(
    body: &AnchorBody,
    reply: &[u8],
    authority: &bulla_timestamps::Authority,
) -> Result<TimeStamp, Refusal> {
    let imprint = sha256(&[&imprint_input(&body.batch)]).0;
    bulla_timestamps::verify(reply, &Expected { imprint, nonce: None }, authority)
}

/// Whether some time stamp of a file carries a certificate of this CRL's issuer; nothing is verified.
pub fn has_use_for(file: &SealFile, crl: &[u8]) -> bool {
    let Ok(crl) = Crl::read(crl) else { return false };
    let evidence = file.evidence.as_deref().and_then(|bytes| Entry::decode(bytes).ok());
    let bodies = file.anchors.iter().map(|anchor| anchor.body.as_slice());
    let bodies = bodies.chain(evidence.as_ref().map(|entry| &*entry.content().body));
    bodies.filter_map(|body| AnchorBody::decode(body).ok()).any(|body| is_behind(&crl, &body))
}

/// Whether some time stamp of a body carries a certificate of this CRL's issuer; nothing is verified.
pub(crate) fn is_behind(crl: &Crl<'_>, body: &AnchorBody) -> bool {
    body.proofs.iter().any(|proof| match &proof.evidence {
        Evidence::Timestamp(reply) => {
            bulla_timestamps::certificates(reply).is_ok_and(|carried| bulla_timestamps::is_of(crl, &carried))
        }
        Evidence::Cosignature(_) => false,
    })
}

/// The time that at least `operators` distinct operators say had come: the latest of such times. `None`: too few speak.
pub fn not_before(attested: &[Attested], operators: u64) -> Option<u64> {
    let mut each = by_operator(attested, |one| one.earliest, u64::max);
    each.sort_unstable_by(|a, b| b.cmp(a));
    nth(&each, operators)
}

/// The time that at least `operators` distinct operators say had not passed: the earliest of such times.
pub fn not_after(attested: &[Attested], operators: u64) -> Option<u64> {
    let mut each = by_operator(attested, |one| one.latest, u64::min);
    each.sort_unstable();
    nth(&each, operators)
}

/// How many distinct operators speak.
pub fn operators(attested: &[Attested]) -> Vec<&str> {
    let mut names: Vec<&str> = attested.iter().map(|one| one.operator.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn by_operator(attested: &[Attested], time: fn(&Attested) -> u64, better: fn(u64, u64) -> u64) -> Vec<u64> {
    let of = |name: &str| attested.iter().filter(|one| one.operator == name).map(time).reduce(better);
    operators(attested).into_iter().filter_map(of).collect()
}

fn nth(times: &[u64], operators: u64) -> Option<u64> {
    let at = usize::try_from(operators.checked_sub(1)?).ok()?;
    times.get(at).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(operator: &str, earliest: u64, latest: u64) -> Attested {
        Attested { operator: operator.into(), earliest, latest }
    }

    #[test]
    fn a_bound_needs_its_operators_and_nobody_counts_twice() {
        let all = [said("a", 100, 200), said("a", 110, 190), said("b", 90, 300), said("c", 5_000, 10)];
        assert_eq!(operators(&all), ["a", "b", "c"]);
        // One liar (c) moves a bound of one operator, and none of two.
        assert_eq!((not_before(&all, 1), not_after(&all, 1)), (Some(5_000), Some(10)));
        assert_eq!((not_before(&all, 2), not_after(&all, 2)), (Some(110), Some(190)));
        assert_eq!((not_before(&all, 3), not_after(&all, 3)), (Some(90), Some(300)));
        assert_eq!((not_before(&all, 4), not_after(&all, 4)), (None, None));
        assert_eq!((not_before(&all, 0), not_after(&[], 1)), (None, None));
        assert_eq!(not_before(&all[..2], 2), None);
    }
}

//! Whose time a trust file believes: time-stamp authorities by their roots, witnesses by their keys.
//!
//! Refuses to do: fetch or renew anything; a root that has been replaced is a new trust file.
//! Invariants: every certificate and key read here is one; no operator of time-stamp authorities and no witness key is
//! named twice; it takes 1 to 8 operators, and there is at least one.

use super::TrustError;
use crate::body::probe::is_name;
use crate::json::{base64_decode, base64_encode};
use crate::witness::WitnessKey;
use bulla_timestamps::{Authority, Oid};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most operators of time-stamp authorities, and most witnesses, in one trust file.
pub const AUTHORITIES_MAX: usize = 32;
/// Most root certificates, and most policies, of one operator.
pub const CERTIFICATES_MAX: usize = 8;
/// Most operators a policy can ask for.
pub const OPERATORS_MAX: u64 = 8;

/// Whose time is believed, and how many of them it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Time-stamp authorities, by operator.
    pub tsas: Vec<TrustedTsa>,
    /// Witnesses, by key.
    pub witnesses: Vec<TrustedWitness>,
    /// How many distinct operators must agree before a bound counts.
    pub operators: u64,
}

/// The time-stamp authorities of one operator.
#[derive(Debug, Clone)]
pub struct TrustedTsa {
    /// Who: what anchors name.
    pub operator: String,
    /// Its roots, and the policies accepted of it.
    pub authority: Authority,
}

impl PartialEq for TrustedTsa {
    fn eq(&self, other: &Self) -> bool {
        let same = self.authority.roots().eq(other.authority.roots());
        same && self.operator == other.operator && self.authority.policies() == other.authority.policies()
    }
}

impl Eq for TrustedTsa {}

/// A witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedWitness {
    /// Who runs it.
    pub operator: String,
    /// Its key.
    pub key: WitnessKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TsaWire {
    operator: String,
    certificates: Vec<String>,
    policies: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessWire {
    operator: String,
    key: String,
}

impl Authorities {
    pub(super) fn read(tsas: &[Value], witnesses: &[Value], operators: u64) -> Result<Self, TrustError> {
        let malformed = |what: &str| Err(TrustError::Malformed(what.to_owned()));
        if tsas.len() > AUTHORITIES_MAX || witnesses.len() > AUTHORITIES_MAX {
            return malformed("it names more than 32 operators of TSAs or witnesses");
        }
        if tsas.is_empty() && witnesses.is_empty() || !(1..=OPERATORS_MAX).contains(&operators) {
            return malformed(
                "it is of version 3 and names no authority, or asks for none or more than 8 operators",
            );
        }
        let tsas = tsas.iter().map(read_tsa).collect::<Result<Vec<_>, _>>()?;
        let witnesses = witnesses.iter().map(read_witness).collect::<Result<Vec<_>, _>>()?;
        let twice = |names: Vec<&str>| (1..names.len()).any(|at| names[..at].contains(&names[at]));
        if twice(tsas.iter().map(|tsa| tsa.operator.as_str()).collect())
            || twice(witnesses.iter().map(|witness| witness.key.name()).collect())
        {
            return malformed("an operator of TSAs or a witness's key is named twice");
        }
        Ok(Authorities { tsas, witnesses, operators })
    }

    pub(super) fn write_tsas(&self) -> Vec<Value> {
        let write = |tsa: &TrustedTsa| TsaWire {
            operator: tsa.operator.clone(),
            certificates: tsa.authority.roots().map(base64_encode).collect(),
            policies: tsa.authority.policies().iter().map(ToString::to_string).collect(),
        };
        self.tsas.iter().map(|tsa| value(&write(tsa))).collect()
    }

    pub(super) fn write_witnesses(&self) -> Vec<Value> {
        let write = |witness: &TrustedWitness| WitnessWire {
            operator: witness.operator.clone(),
            key: witness.key.to_string(),
        };
        self.witnesses.iter().map(|witness| value(&write(witness))).collect()
    }

    /// The time-stamp authorities of an operator.
    pub fn tsa(&self, operator: &str) -> Option<&TrustedTsa> {
        self.tsas.iter().find(|tsa| tsa.operator == operator)
    }

    /// The witness of an operator with this key name.
    pub fn witness(&self, operator: &str, name: &str) -> Option<&TrustedWitness> {
        self.witnesses.iter().find(|witness| witness.operator == operator && witness.key.name() == name)
    }
}

fn value(wire: &impl Serialize) -> Value {
    serde_json::to_value(wire).expect("strings always serialise")
}

fn read_tsa(value: &Value) -> Result<TrustedTsa, TrustError> {
    let malformed = |what: String| TrustError::Malformed(what);
    let wire = value.is_object().then(|| TsaWire::deserialize(value).ok()).flatten();
    let wire = wire.ok_or_else(|| malformed("an item of tsaRoots is not the object it must be".into()))?;
    let bounded = 1..=CERTIFICATES_MAX;
    if !is_name(&wire.operator)
        || !bounded.contains(&wire.certificates.len())
        || wire.policies.len() > CERTIFICATES_MAX
    {
        let what =
            "an operator of TSAs has no name of 1 to 64 bytes, no root, or more than 8 roots or policies";
        return Err(malformed(what.into()));
    }
    let roots = wire.certificates.iter().map(|text| base64_decode(text)).collect::<Result<Vec<_>, _>>()?;
    let policies = wire.policies.iter().map(|text| Oid::parse(text)).collect::<Result<Vec<_>, _>>();
    let policies = policies
        .map_err(|error| malformed(format!("a TSA policy of {:?} is refused: {error}", wire.operator)))?;
    let authority = Authority::new(&roots, policies)
        .map_err(|error| malformed(format!("the TSA roots of {:?}: {error}", wire.operator)))?;
    Ok(TrustedTsa { operator: wire.operator, authority })
}

fn read_witness(value: &Value) -> Result<TrustedWitness, TrustError> {
    let malformed = |what: &str| TrustError::Malformed(what.to_owned());
    let wire = value.is_object().then(|| WitnessWire::deserialize(value).ok()).flatten();
    let wire = wire.ok_or_else(|| malformed("an item of witnesses is not the object it must be"))?;
    let key = WitnessKey::parse(&wire.key).filter(|_| is_name(&wire.operator)).ok_or_else(|| {
        malformed("a witness has no operator of 1 to 64 bytes, or its key is no verifier key")
    })?;
    Ok(TrustedWitness { operator: wire.operator, key })
}

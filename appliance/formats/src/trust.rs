//! Trust file v1 to v5: whom the verifier believes. Everything in it counts, so unknown members are refused.
//!
//! Refuses to do: merge, fetch or expire; whoever uses it decides when it is too old.
//! Invariants: a [`TrustFile`] has at least one root and a well-formed fleet domain; one that was read has only revocations
//! that a root of its own vouches for.

mod authorities;
mod cosigners;
mod successions;

use crate::der;
use crate::hash::{Hash, sha256};
use crate::json::{self, JsonError, base64_decode, base64_encode};
use crate::origin::check_fleet;
use crate::peer::card::PeerCard;
use crate::report::Fact;
use crate::revocation::{Revocation, RevocationError};
use crate::seal_file::PcrWire;
use crate::sig::label;
use crate::succession::Succession;
pub use authorities::{Authorities, CERTIFICATES_MAX, TrustedTsa, TrustedWitness};
pub use cosigners::COSIGNERS_MAX;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest trust file in bytes.
pub const TRUST_BYTES_MAX: usize = 1 << 20;
/// The value of the member `bulla`.
pub const TRUST_VERSION: &str = "trust/v1";
/// The same, of a file that was written from a roster.
pub const TRUST_VERSION_2: &str = "trust/v2";
/// The same, of a file that names time-stamp authorities or witnesses.
pub const TRUST_VERSION_3: &str = "trust/v3";
/// The same, of a file that names cosigners.
pub const TRUST_VERSION_4: &str = "trust/v4";
/// The same, of a file that says which log takes the place of which.
pub const TRUST_VERSION_5: &str = "trust/v5";
/// Most revocations, and most successions, in one trust file.
pub const TRUST_REVOCATIONS_MAX: usize = 1024;

/// Why a trust file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Not strict JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Not as the format says.
    #[error("it is not a trust file of version 1 to 5: {0}")]
    Malformed(String),
    /// It holds something this version does not understand, and in a trust file everything counts.
    #[error("it needs a newer verifier: {0}")]
    NotUnderstood(String),
}

/// A set of PCR values that a known good boot leaves behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What boots like this, e.g. an image version.
    pub name: String,
    /// PCR number and SHA-256 value.
    pub pcrs: Vec<(u8, [u8; 32])>,
}

/// What a seal must meet beyond being genuine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// Whether keys without a TPM are acceptable.
    pub accept_software: bool,
    /// Facts that must hold: `sealed`, `attested`, `anchored`, `mirrored(k)`, `witnessed(k)`.
    pub require_facts: Vec<String>,
}

/// A parsed trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustFile {
    /// Fleet domain.
    pub fleet: String,
    /// When it was written (Unix milliseconds, the writer's clock).
    pub issued_millis: u64,
    /// Fleet roots, Ed25519.
    pub roots: Vec<[u8; 32]>,
    /// Known good boot states; empty means boot state is not judged.
    pub references: Vec<Reference>,
    /// Policy.
    pub policy: Policy,
    /// What the fleet's roster said when the file was written; never in version 1, always in versions 2 and 5.
    pub roster: Option<FromRoster>,
    /// Whose time is believed; always in version 3, and perhaps in later ones.
    pub authorities: Option<Authorities>,
    /// Cards of boxes whose cosignatures count, in ascending order of their origins; always in version 4,
    /// and perhaps in version 5.
    pub cosigners: Vec<PeerCard>,
}

/// What a trust file takes from the fleet's roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromRoster {
    /// Number of the roster's version.
    pub version: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Logs that were given up, in ascending order of their origins.
    pub revocations: Vec<Revocation>,
    /// Logs that take the place of others, in ascending order of those; some exactly in version 5.
    pub successions: Vec<Succession>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RosterWire {
    version: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TrustWire {
    bulla: String,
    fleet: String,
    issued_millis: u64,
    roots: Vec<String>,
    references: Vec<ReferenceWire>,
    tsa_roots: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    witnesses: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cosigners: Option<Vec<Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roster: Option<RosterWire>,
    revocations: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    successions: Option<Vec<Value>>,
    policy: PolicyWire,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceWire {
    name: String,
    pcrs: Vec<PcrWire>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PolicyWire {
    accept_software: bool,
    require_facts: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    operators: Option<u64>,
}

impl TrustFile {
    /// Reads a trust file.
    pub fn decode(bytes: &[u8]) -> Result<Self, TrustError> {
        let value = json::parse(bytes, TRUST_BYTES_MAX)?;
        let version = match value.get("bulla").and_then(Value::as_str) {
            Some(TRUST_VERSION) => 1,
            Some(TRUST_VERSION_2) => 2,
            Some(TRUST_VERSION_3) => 3,
            Some(TRUST_VERSION_4) => 4,
            Some(TRUST_VERSION_5) => 5,
            Some(other) if other.starts_with("trust/") => {
                return Err(TrustError::NotUnderstood(format!("it is of version {other:?}")));
            }
            _ => return Err(TrustError::Malformed("its member \"bulla\" is not \"trust/v1\"".into())),
        };
        let of_roster = value.get("roster").is_some();
        if value.get("roster").is_some_and(|roster| !roster.is_object()) || of_roster && version == 1 {
            return Err(TrustError::Malformed("its roster is no object, or in a file of version 1".into()));
        }
        if (version == 2 || version == 5) && !of_roster {
            return Err(TrustError::Malformed("it is of version 2 or 5 and names no roster".into()));
        }
        let references_ok = value.get("references").is_some_and(|references| {
            json::is_array_of_objects(references)
                && references
                    .as_array()
                    .into_iter()
                    .flatten()
                    .all(|reference| reference.get("pcrs").is_some_and(json::is_array_of_objects))
        });
        if !references_ok || !value.get("policy").is_some_and(Value::is_object) {
            return Err(TrustError::Malformed(
                "its references or policy are not the objects they must be".into(),
            ));
        }
        let wire: TrustWire =
            serde_json::from_value(value).map_err(|error| TrustError::Malformed(error.to_string()))?;
        if (version < 3 && !wire.tsa_roots.is_empty()) || (!of_roster && !wire.revocations.is_empty()) {
            let what = "it names TSA roots before version 3, or revocations without a roster";
            return Err(TrustError::NotUnderstood(what.into()));
        }
        if wire.issued_millis > crate::entry::NUMBER_MAX {
            return Err(TrustError::Malformed("issuedMillis is larger than 2^63 - 1".into()));
        }
        let malformed = |what: &str| TrustError::Malformed(what.to_owned());
        check_fleet(&wire.fleet).map_err(|error| TrustError::Malformed(error.to_string()))?;
        let roots = wire.roots.iter().map(|root| read_root(root)).collect::<Option<Vec<_>>>();
        let roots = roots.ok_or_else(|| malformed("a root is not 32 bytes in base64"))?;
        if roots.is_empty() || roots.len() > 16 {
            return Err(malformed("it has no root, or more than 16"));
        }
        let references = wire.references.iter().map(read_reference).collect::<Option<Vec<_>>>();
        let references = references.ok_or_else(|| malformed("a reference has no or malformed PCR values"))?;
        if let Some(fact) = wire.policy.require_facts.iter().find(|fact| Fact::parse(fact).is_none()) {
            return Err(TrustError::NotUnderstood(format!("its policy requires the unknown fact {fact:?}")));
        }
        let policy =
            Policy { accept_software: wire.policy.accept_software, require_facts: wire.policy.require_facts };
        let successions = match (version, &wire.successions) {
            (5, Some(all)) => successions::read(all, &wire.fleet, &roots)?,
            (1..=4, None) => Vec::new(),
            _ => return Err(malformed("successions belong to version 5, and only there")),
        };
        let roster = wire
            .roster
            .map(|roster| read_roster(&roster, &wire.revocations, &wire.fleet, &roots))
            .transpose()?
            .map(|roster| FromRoster { successions, ..roster });
        let authorities = match (version, &wire.witnesses, wire.policy.operators) {
            (4 | 5, Some(witnesses), Some(1)) if witnesses.is_empty() && wire.tsa_roots.is_empty() => None,
            (3..=5, Some(witnesses), Some(operators)) => {
                Some(Authorities::read(&wire.tsa_roots, witnesses, operators)?)
            }
            (1 | 2, None, None) => None,
            _ => {
                return Err(malformed(
                    "witnesses and operators belong to versions from 3 on, and only there",
                ));
            }
        };
        let cosigners = match (version, &wire.cosigners) {
            (5, Some(cards)) if cards.is_empty() => Vec::new(),
            (4 | 5, Some(cards)) => cosigners::read(cards)?,
            (1..=3, None) => Vec::new(),
            _ => return Err(malformed("cosigners belong to versions 4 and 5, and only there")),
        };
        let provable = |fact: Fact| match fact {
            Fact::Anchored => authorities.is_some(),
            _ => !fact.is_of_cosigners() || !cosigners.is_empty(),
        };
        let unprovable = |fact: &&String| !Fact::parse(fact).is_some_and(provable);
        if let Some(fact) = policy.require_facts.iter().find(unprovable) {
            let what =
                format!("its policy requires the fact {fact:?} and it names nobody who could prove it");
            return Err(TrustError::NotUnderstood(what));
        }
        Ok(TrustFile {
            fleet: wire.fleet,
            issued_millis: wire.issued_millis,
            roots,
            references,
            policy,
            roster,
            authorities,
            cosigners,
        })
    }

    /// The file as text, two-space indented, ending in a line feed.
    pub fn encode(&self) -> String {
        let revocations = self.roster.iter().flat_map(|roster| &roster.revocations);
        let successions = self.roster.as_ref().map_or(&[][..], |roster| &roster.successions);
        let succeeds = !successions.is_empty();
        let cosigns = succeeds || !self.cosigners.is_empty();
        let operators = self.authorities.as_ref().map(|all| all.operators);
        let wire = TrustWire {
            bulla: match (&self.authorities, &self.roster) {
                _ if succeeds => TRUST_VERSION_5,
                _ if cosigns => TRUST_VERSION_4,
                (Some(_), _) => TRUST_VERSION_3,
                (None, Some(_)) => TRUST_VERSION_2,
                (None, None) => TRUST_VERSION,
            }
            .to_owned(),
            fleet: self.fleet.clone(),
            issued_millis: self.issued_millis,
            roots: self.roots.iter().map(|root| base64_encode(root)).collect(),
            references: self.references.iter().map(write_reference).collect(),
            tsa_roots: self.authorities.as_ref().map_or_else(Vec::new, Authorities::write_tsas),
            witnesses: match &self.authorities {
                Some(all) => Some(all.write_witnesses()),
                None => cosigns.then(Vec::new),
            },
            cosigners: cosigns.then(|| cosigners::write(&self.cosigners)),
            roster: self
                .roster
                .as_ref()
                .map(|roster| RosterWire { version: roster.version, sha256: hex::encode(roster.hash) }),
            revocations: revocations.map(|said| base64_encode(&der::encode(said)).into()).collect(),
            successions: successions::write(successions),
            policy: PolicyWire {
                accept_software: self.policy.accept_software,
                require_facts: self.policy.require_facts.clone(),
                operators: operators.or(cosigns.then_some(1)),
            },
        };
        let mut text = serde_json::to_string_pretty(&wire).expect("strings and numbers always serialise");
        text.push('\n');
        text
    }

    /// The first reference all of whose PCR values are among `quoted`.
    pub fn reference_of(&self, quoted: &[(u8, [u8; 32])]) -> Option<&Reference> {
        self.references.iter().find(|reference| reference.pcrs.iter().all(|pcr| quoted.contains(pcr)))
    }

    /// What the fleet's roster said of this log when the file was written.
    pub fn revocation(&self, origin: &str) -> Option<&Revocation> {
        let revocations = &self.roster.as_ref()?.revocations;
        let at = revocations.binary_search_by(|said| said.content.origin.as_str().cmp(origin)).ok()?;
        revocations.get(at)
    }

    /// The step that ends with this log: which one it takes the place of.
    pub fn succession_to(&self, origin: &str) -> Option<&Succession> {
        let all = &self.roster.as_ref()?.successions;
        all.iter().find(|said| said.content.successor == origin)
    }

    /// The step that begins with this log: which one takes its place.
    pub fn succession_of(&self, origin: &str) -> Option<&Succession> {
        let all = &self.roster.as_ref()?.successions;
        let at = all.binary_search_by(|said| said.content.predecessor.as_str().cmp(origin)).ok()?;
        all.get(at)
    }
}

fn read_roster(
    wire: &RosterWire,
    revocations: &[Value],
    fleet: &str,
    roots: &[[u8; 32]],
) -> Result<FromRoster, TrustError> {
    let malformed = |what: &str| TrustError::Malformed(what.to_owned());
    let lower = !wire.sha256.bytes().any(|byte| byte.is_ascii_uppercase());
    let hash = hex::decode(&wire.sha256).ok().filter(|_| lower).and_then(|bytes| bytes.try_into().ok());
    let hash = hash.ok_or_else(|| malformed("the hash of its roster is not 64 lower-case hex digits"))?;
    if wire.version > crate::entry::NUMBER_MAX || revocations.len() > TRUST_REVOCATIONS_MAX {
        return Err(malformed(
            "its roster's version is larger than 2^63 - 1, or it has more than 1024 revocations",
        ));
    }
    let mut read = Vec::with_capacity(revocations.len());
    for text in revocations {
        let bytes = text.as_str().and_then(|text| base64_decode(text).ok());
        let bytes = bytes.ok_or_else(|| malformed("a revocation is not base64"))?;
        let revocation = Revocation::decode(&bytes)
            .map_err(RevocationError::from)
            .and_then(|said| said.verify(fleet, roots).map(|_verified| said));
        read.push(
            revocation.map_err(|error| TrustError::Malformed(format!("a revocation is refused: {error}")))?,
        );
    }
    let ascending = read.windows(2).all(|pair| pair[0].content.origin < pair[1].content.origin);
    if !ascending {
        return Err(malformed("its revocations are not in ascending order of their origins"));
    }
    Ok(FromRoster { version: wire.version, hash, revocations: read, successions: Vec::new() })
}

/// Fingerprint of a trust file, to be read out over the phone: [`spoken`] of
/// SHA-256("bulla/trust-fingerprint/v1" || 0x00 || the file's bytes).
pub fn fingerprint(file: &[u8]) -> String {
    spoken(&sha256(&[label::TRUST_FINGERPRINT.as_bytes(), &[0], file]))
}

/// The first 100 bits of a hash as five groups of four characters of Crockford's base32 alphabet.
pub fn spoken(Hash(hash): &Hash) -> String {
    const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let bit = |index: usize| (hash[index / 8] >> (7 - index % 8)) & 1;
    let mut out = String::with_capacity(24);
    for group in 0..20 {
        if group > 0 && group % 4 == 0 {
            out.push('-');
        }
        let value = (0..5).fold(0u8, |acc, i| (acc << 1) | bit(group * 5 + i));
        out.push(char::from(ALPHABET[usize::from(value)]));
    }
    out
}

fn read_root(text: &str) -> Option<[u8; 32]> {
    base64_decode(text).ok()?.try_into().ok()
}

fn read_reference(wire: &ReferenceWire) -> Option<Reference> {
    let pcrs = wire.pcrs.iter().map(PcrWire::read).collect::<Option<Vec<_>>>()?;
    let ascending = pcrs.windows(2).all(|pair| pair[0].0 < pair[1].0);
    (!pcrs.is_empty() && ascending).then(|| Reference { name: wire.name.clone(), pcrs })
}

fn write_reference(reference: &Reference) -> ReferenceWire {
    let pcrs =
        reference.pcrs.iter().map(|(pcr, value)| PcrWire { pcr: *pcr, value: hex::encode(value) }).collect();
    ReferenceWire { name: reference.name.clone(), pcrs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> TrustFile {
        TrustFile {
            fleet: "bank.example".into(),
            issued_millis: 1_790_000_000_000,
            roots: vec![[7; 32]],
            references: vec![Reference { name: "image 1".into(), pcrs: vec![(0, [1; 32]), (7, [2; 32])] }],
            policy: Policy { accept_software: false, require_facts: vec!["attested".into()] },
            roster: None,
            authorities: None,
            cosigners: Vec::new(),
        }
    }

    #[test]
    fn round_trip_and_fingerprint() {
        let text = sample().encode();
        assert_eq!(TrustFile::decode(text.as_bytes()).unwrap(), sample());
        let fingerprint = fingerprint(text.as_bytes());
        assert_eq!(fingerprint.len(), 24);
        assert_ne!(fingerprint, super::fingerprint(text.replace("image 1", "image 2").as_bytes()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let text = sample().encode();
        for (from, to) in [
            ("trust/v1", "trust/v2"),
            ("trust/v1", "trust/v3"),
            ("\"revocations\"", "\"roster\": {},\n  \"revocations\""),
            ("\"revocations\"", "\"roster\": null,\n  \"revocations\""),
            ("\"tsaRoots\": []", "\"tsaRoots\": [1]"),
            ("\"revocations\": []", "\"revocations\": [{}]"),
            ("\"attested\"", "\"blessed\""),
            ("\"fleet\"", "\"extra\": 1,\n  \"fleet\""),
            ("bank.example", "Bank.Example"),
            ("\"acceptSoftware\": false", "\"acceptSoftware\": 0"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(TrustFile::decode(changed.as_bytes()).is_err(), "{from} -> {to}");
        }
        let mut empty = sample();
        empty.roots.clear();
        assert!(TrustFile::decode(empty.encode().as_bytes()).is_err());
    }
}

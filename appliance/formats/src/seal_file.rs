//! `.seal` v1: one JSON file beside the document that carries everything a verifier needs.
//!
//! The JSON is untrusted packaging: members that could be derived are not read, unknown members are
//! kept and ignored unless `critical` names them, and duplicate names or lax base64 are refused.
//! Refuses to do: believe anything. [`crate::verify`] judges; this file only unpacks.
//! Invariant: [`SealFile::encode`] of a decoded file decodes to the same value.

use crate::erasure::{ERASURES_MAX, Erasure};
use crate::json::{self, JsonError, base64_decode, base64_encode};
use crate::note::SignedNote;
use crate::revocation::{REVOCATIONS_MAX, RevocationEvidence};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Largest `.seal` file in bytes.
pub const SEAL_BYTES_MAX: usize = 4 << 20;
/// Most heads in one file.
pub const HEADS_MAX: usize = 16;
/// The value of the member `bulla`.
pub const SEAL_VERSION: &str = "seal/v1";

const KNOWN_MEMBERS: [&str; 10] = [
    "bulla",
    "critical",
    "origin",
    "entry",
    "epoch",
    "enrolment",
    "heads",
    "openings",
    "erasures",
    "revocations",
];

/// Why a file is not a `.seal` of this version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealFileError {
    /// Not strict JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member is missing, of the wrong type, or out of bounds.
    #[error("its member {0:?} is missing or not as the format says")]
    Member(&'static str),
    /// A newer or foreign format: nothing is known to be wrong with it.
    #[error("it needs a newer verifier: {0}")]
    NotUnderstood(String),
}

/// A checkpoint and the paths that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The checkpoint, a signed note.
    pub checkpoint: String,
    /// Inclusion proof of the seal's entry.
    pub entry_proof: Vec<Vec<u8>>,
    /// Inclusion proof of the key-epoch entry.
    pub epoch_proof: Vec<Vec<u8>>,
    /// PCR values of the quote line; present exactly when the checkpoint has one.
    pub pcrs: Option<Vec<(u8, [u8; 32])>>,
}

/// An unpacked `.seal` file, nothing of it judged.
#[derive(Debug, Clone, PartialEq)]
pub struct SealFile {
    /// Log origin.
    pub origin: String,
    /// The token: DER of the seal entry.
    pub entry: Vec<u8>,
    /// DER of the key-epoch entry.
    pub epoch: Vec<u8>,
    /// DER of the enrolment.
    pub enrolment: Vec<u8>,
    /// Checkpoints, oldest evidence first.
    pub heads: Vec<Head>,
    /// DER of each opening handed out with this file.
    pub openings: Vec<Vec<u8>>,
    /// The box's word that openings were destroyed; empty when nothing is known of that.
    pub erasures: Vec<Erasure>,
    /// The fleet's word that this log was given up; empty when nothing is known of that.
    pub revocations: Vec<RevocationEvidence>,
    /// Members of later versions, kept as they are.
    pub unknown: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct HeadWire {
    checkpoint: String,
    entry_proof: Vec<String>,
    epoch_proof: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pcrs: Option<Vec<PcrWire>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ErasureWire {
    entry: String,
    checkpoint: String,
    entry_proof: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PcrWire {
    pub(crate) pcr: u8,
    pub(crate) value: String,
}

impl PcrWire {
    pub(crate) fn read(&self) -> Option<(u8, [u8; 32])> {
        if self.value.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mut value = [0; 32];
        hex::decode_to_slice(&self.value, &mut value).ok()?;
        (self.pcr < 24).then_some((self.pcr, value))
    }
}

impl SealFile {
    /// Unpacks a file.
    pub fn decode(bytes: &[u8]) -> Result<Self, SealFileError> {
        let Value::Object(mut members) = json::parse(bytes, SEAL_BYTES_MAX)? else {
            return Err(SealFileError::Member("bulla"));
        };
        match members.get("bulla").and_then(Value::as_str) {
            Some(SEAL_VERSION) => {}
            Some(other) if other.starts_with("seal/") => {
                return Err(SealFileError::NotUnderstood(format!("it is of version {other:?}")));
            }
            _ => return Err(SealFileError::Member("bulla")),
        }
        check_critical(members.get("critical"))?;
        // Each is read once, so it is moved out; whatever is left in its place goes with the known members below.
        let mut take = |name: &'static str| members.get_mut(name).map(Value::take);
        let text = |name: &'static str, value: Option<Value>| match value {
            Some(Value::String(text)) => Ok(text),
            _ => Err(SealFileError::Member(name)),
        };
        let list = |name: &'static str, value: Option<Value>| match value {
            Some(Value::Array(items)) => Ok(items),
            _ => Err(SealFileError::Member(name)),
        };
        let origin = text("origin", take("origin"))?;
        let mut der = |name: &'static str| -> Result<Vec<u8>, SealFileError> {
            Ok(base64_decode(&text(name, take(name))?)?)
        };
        let (entry, epoch, enrolment) = (der("entry")?, der("epoch")?, der("enrolment")?);
        let openings = list("openings", take("openings"))?
            .iter()
            .map(|value| Ok(base64_decode(value.as_str().ok_or(SealFileError::Member("openings"))?)?))
            .collect::<Result<Vec<_>, SealFileError>>()?;
        let heads =
            list("heads", take("heads"))?.into_iter().map(decode_head).collect::<Result<Vec<_>, _>>()?;
        if heads.is_empty() || heads.len() > HEADS_MAX {
            return Err(SealFileError::Member("heads"));
        }
        let erasures = match members.get("erasures") {
            None => Vec::new(),
            Some(Value::Array(items)) if items.len() <= ERASURES_MAX => {
                items.iter().map(decode_erasure).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(SealFileError::Member("erasures")),
        };
        let revocations = match members.get("revocations") {
            None => Vec::new(),
            Some(Value::Array(items)) if items.len() <= REVOCATIONS_MAX => {
                items.iter().map(decode_revocation).collect::<Result<_, _>>()?
            }
            Some(_) => return Err(SealFileError::Member("revocations")),
        };
        members.retain(|name, _| !KNOWN_MEMBERS.contains(&name.as_str()));
        Ok(SealFile {
            origin,
            entry,
            epoch,
            enrolment,
            heads,
            openings,
            erasures,
            revocations,
            unknown: members,
        })
    }

    /// The file as a JSON value, known members first and in fixed order.
    pub fn to_value(&self) -> Value {
        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
        put("bulla", SEAL_VERSION.into());
        put("origin", self.origin.clone().into());
        put("entry", base64_encode(&self.entry).into());
        put("epoch", base64_encode(&self.epoch).into());
        put("enrolment", base64_encode(&self.enrolment).into());
        put("heads", self.heads.iter().map(encode_head).collect());
        put("openings", self.openings.iter().map(|o| Value::from(base64_encode(o))).collect());
        if !self.erasures.is_empty() {
            put("erasures", self.erasures.iter().map(encode_erasure).collect());
        }
        if !self.revocations.is_empty() {
            put("revocations", self.revocations.iter().map(encode_revocation).collect());
        }
        for (name, value) in &self.unknown {
            put(name, value.clone());
        }
        Value::Object(members)
    }

    /// The file as text, two-space indented, ending in a line feed.
    pub fn encode(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.to_value()).expect("a Value always serialises");
        text.push('\n');
        text
    }

    /// Takes over what `other`, a file of the same entry, has more: heads, openings, erasures, revocations, unknown members. Nothing of
    /// value is given up: only a full list of heads lets a bare checkpoint go, and only for a quoted one.
    /// Returns whether anything was added; `None` when the two are not of the same entry.
    pub fn upgrade(&mut self, other: SealFile) -> Option<bool> {
        if (&self.origin, &self.entry) != (&other.origin, &other.entry) {
            return None;
        }
        let counts = |file: &Self| {
            let proven = file.revocations.iter().filter(|said| said.entry_proof.is_some()).count();
            let lists = [file.heads.len(), file.openings.len(), file.erasures.len(), file.unknown.len()];
            (lists, file.revocations.len(), proven)
        };
        let before = counts(self);
        let mut changed = false;
        for head in other.heads {
            let text = checkpoint_text_of(&head);
            match self.heads.iter().position(|mine| checkpoint_text_of(mine) == text) {
                Some(at) if self.heads[at].pcrs.is_none() && head.pcrs.is_some() => {
                    self.heads[at] = head;
                    changed = true;
                }
                None if self.heads.len() < HEADS_MAX => self.heads.push(head),
                // Full: a quote proves more than a bare checkpoint, so it may take one's place.
                None if head.pcrs.is_some() => {
                    if let Some(bare) = self.heads.iter_mut().find(|mine| mine.pcrs.is_none()) {
                        *bare = head;
                        changed = true;
                    }
                }
                _ => {}
            }
        }
        for opening in other.openings {
            if !self.openings.contains(&opening) {
                self.openings.push(opening);
            }
        }
        for erasure in other.erasures {
            let known = self.erasures.iter().any(|mine| mine.entry == erasure.entry);
            if !known && self.erasures.len() < ERASURES_MAX {
                self.erasures.push(erasure);
            }
        }
        for said in other.revocations {
            match self.revocations.iter().position(|mine| mine.statement == said.statement) {
                Some(at) if self.revocations[at].entry_proof.is_none() => self.revocations[at] = said,
                None if self.revocations.len() < REVOCATIONS_MAX => self.revocations.push(said),
                _ => {}
            }
        }
        for (name, value) in other.unknown {
            self.unknown.entry(name).or_insert(value);
        }
        Some(changed || before != counts(self))
    }
}

fn checkpoint_text_of(head: &Head) -> String {
    SignedNote::parse(&head.checkpoint).map_or_else(|_| head.checkpoint.clone(), |note| note.text)
}

fn check_critical(critical: Option<&Value>) -> Result<(), SealFileError> {
    let Some(critical) = critical else { return Ok(()) };
    let names = critical.as_array().ok_or(SealFileError::Member("critical"))?;
    for name in names {
        let name = name.as_str().ok_or(SealFileError::Member("critical"))?;
        if !KNOWN_MEMBERS.contains(&name) {
            let reason = format!("its member {name:?} is critical and unknown here");
            return Err(SealFileError::NotUnderstood(reason));
        }
    }
    Ok(())
}

fn decode_erasure(value: &Value) -> Result<Erasure, SealFileError> {
    const NAME: &str = "erasures";
    if !value.is_object() {
        return Err(SealFileError::Member(NAME));
    }
    let wire = ErasureWire::deserialize(value).map_err(|_| SealFileError::Member(NAME))?;
    if wire.entry_proof.len() > 64 {
        return Err(SealFileError::Member(NAME));
    }
    let entry_proof = wire.entry_proof.iter().map(|item| base64_decode(item)).collect::<Result<_, _>>()?;
    Ok(Erasure { entry: base64_decode(&wire.entry)?, checkpoint: wire.checkpoint, entry_proof })
}

fn encode_erasure(erasure: &Erasure) -> Value {
    let wire = ErasureWire {
        entry: base64_encode(&erasure.entry),
        checkpoint: erasure.checkpoint.clone(),
        entry_proof: erasure.entry_proof.iter().map(|item| base64_encode(item)).collect(),
    };
    serde_json::to_value(wire).expect("strings always serialise")
}

fn decode_revocation(value: &Value) -> Result<RevocationEvidence, SealFileError> {
    const NAME: &str = "revocations";
    let members = value.as_object().ok_or(SealFileError::Member(NAME))?;
    if members.keys().any(|name| !["statement", "entryProof"].contains(&name.as_str())) {
        return Err(SealFileError::Member(NAME));
    }
    let read = |value: &Value| -> Result<Vec<u8>, SealFileError> {
        Ok(base64_decode(value.as_str().ok_or(SealFileError::Member(NAME))?)?)
    };
    let statement = read(members.get("statement").ok_or(SealFileError::Member(NAME))?)?;
    let entry_proof = match members.get("entryProof") {
        None => None,
        Some(Value::Array(items)) if items.len() <= 64 => {
            Some(items.iter().map(read).collect::<Result<_, _>>()?)
        }
        Some(_) => return Err(SealFileError::Member(NAME)),
    };
    Ok(RevocationEvidence { statement, entry_proof })
}

fn encode_revocation(said: &RevocationEvidence) -> Value {
    let mut members = Map::new();
    members.insert("statement".to_owned(), base64_encode(&said.statement).into());
    if let Some(proof) = &said.entry_proof {
        let proof: Value = proof.iter().map(|item| base64_encode(item)).collect();
        members.insert("entryProof".to_owned(), proof);
    }
    Value::Object(members)
}

fn decode_head(value: Value) -> Result<Head, SealFileError> {
    if !value.is_object() || value.get("pcrs").is_some_and(|pcrs| !json::is_array_of_objects(pcrs)) {
        return Err(SealFileError::Member("heads"));
    }
    let wire: HeadWire = serde_json::from_value(value).map_err(|_| SealFileError::Member("heads"))?;
    let proof = |items: &[String]| -> Result<Vec<Vec<u8>>, SealFileError> {
        if items.len() > 64 {
            return Err(SealFileError::Member("heads"));
        }
        items.iter().map(|item| Ok(base64_decode(item)?)).collect()
    };
    let pcrs = wire
        .pcrs
        .as_ref()
        .map(|list| list.iter().map(PcrWire::read).collect::<Option<Vec<_>>>())
        .map(|list| list.ok_or(SealFileError::Member("heads")))
        .transpose()?;
    let (entry_proof, epoch_proof) = (proof(&wire.entry_proof)?, proof(&wire.epoch_proof)?);
    Ok(Head { checkpoint: wire.checkpoint, entry_proof, epoch_proof, pcrs })
}

fn encode_head(head: &Head) -> Value {
    let proof = |items: &[Vec<u8>]| items.iter().map(|item| base64_encode(item)).collect();
    let pcrs = head.pcrs.as_ref().map(|list| {
        list.iter().map(|(pcr, value)| PcrWire { pcr: *pcr, value: hex::encode(value) }).collect()
    });
    let wire = HeadWire {
        checkpoint: head.checkpoint.clone(),
        entry_proof: proof(&head.entry_proof),
        epoch_proof: proof(&head.epoch_proof),
        pcrs,
    };
    serde_json::to_value(wire).expect("strings and numbers always serialise")
}

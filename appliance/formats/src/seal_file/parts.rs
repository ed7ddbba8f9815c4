//! The parts of a `.seal` as JSON: how each is spelled, and nothing of what it means.
//!
//! Refuses to do: judge. Invariant: every part has exactly the members of its table in `docs/formats.md` section 8.

use super::{AnchorEvidence, Cosigned, Head, Placed, SealFileError};
use crate::json::{self, base64_decode, base64_encode};
use crate::revocation::RevocationEvidence;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Most hashes of one path.
pub(crate) const PATH_MAX: usize = 64;

type PcrValues = Vec<(u8, [u8; 32])>;

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
struct PlacedWire {
    entry: String,
    checkpoint: String,
    entry_proof: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AnchorWire {
    body: String,
    entry_proof: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct CosignedWire {
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

/// An entry of the log and its place, of the list `name`.
pub(crate) fn decode_placed(name: &'static str, value: &Value) -> Result<Placed, SealFileError> {
    let wire = object::<PlacedWire>(name, value)?;
    let entry_proof = path(name, &wire.entry_proof)?;
    Ok(Placed { entry: base64_decode(&wire.entry)?, checkpoint: wire.checkpoint, entry_proof })
}

pub(super) fn encode_placed(placed: &Placed) -> Value {
    let wire = PlacedWire {
        entry: base64_encode(&placed.entry),
        checkpoint: placed.checkpoint.clone(),
        entry_proof: encode_path(&placed.entry_proof),
    };
    serde_json::to_value(wire).expect("strings always serialise")
}

pub(crate) fn decode_anchor(value: &Value) -> Result<AnchorEvidence, SealFileError> {
    const NAME: &str = "anchors";
    let wire = object::<AnchorWire>(NAME, value)?;
    Ok(AnchorEvidence { body: base64_decode(&wire.body)?, entry_proof: path(NAME, &wire.entry_proof)? })
}

pub(super) fn encode_anchor(anchor: &AnchorEvidence) -> Value {
    let wire =
        AnchorWire { body: base64_encode(&anchor.body), entry_proof: encode_path(&anchor.entry_proof) };
    serde_json::to_value(wire).expect("strings always serialise")
}

pub(crate) fn decode_cosigned(value: &Value) -> Result<Cosigned, SealFileError> {
    const NAME: &str = "cosignatures";
    let wire = object::<CosignedWire>(NAME, value)?;
    Ok(Cosigned { checkpoint: wire.checkpoint, entry_proof: path(NAME, &wire.entry_proof)? })
}

pub(super) fn encode_cosigned(cosigned: &Cosigned) -> Value {
    let entry_proof = encode_path(&cosigned.entry_proof);
    let wire = CosignedWire { checkpoint: cosigned.checkpoint.clone(), entry_proof };
    serde_json::to_value(wire).expect("strings always serialise")
}

/// serde would also read a structure from an array.
fn object<'a, T: Deserialize<'a>>(name: &'static str, value: &'a Value) -> Result<T, SealFileError> {
    if !value.is_object() {
        return Err(SealFileError::Member(name));
    }
    T::deserialize(value).map_err(|_| SealFileError::Member(name))
}

fn path(name: &'static str, items: &[String]) -> Result<Vec<Vec<u8>>, SealFileError> {
    if items.len() > PATH_MAX {
        return Err(SealFileError::Member(name));
    }
    items.iter().map(|item| Ok(base64_decode(item)?)).collect()
}

fn encode_path(hashes: &[Vec<u8>]) -> Vec<String> {
    hashes.iter().map(|hash| base64_encode(hash)).collect()
}

pub(crate) fn decode_revocation(value: &Value) -> Result<RevocationEvidence, SealFileError> {
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
        Some(Value::Array(items)) if items.len() <= PATH_MAX => {
            Some(items.iter().map(read).collect::<Result<_, _>>()?)
        }
        Some(_) => return Err(SealFileError::Member(NAME)),
    };
    Ok(RevocationEvidence { statement, entry_proof })
}

pub(super) fn encode_revocation(said: &RevocationEvidence) -> Value {
    let mut members = Map::new();
    members.insert("statement".to_owned(), base64_encode(&said.statement).into());
    if let Some(proof) = &said.entry_proof {
        let proof: Value = proof.iter().map(|item| base64_encode(item)).collect();
        members.insert("entryProof".to_owned(), proof);
    }
    Value::Object(members)
}

pub(super) fn decode_head(value: Value) -> Result<Head, SealFileError> {
    if !value.is_object() || value.get("pcrs").is_some_and(|pcrs| !json::is_array_of_objects(pcrs)) {
        return Err(SealFileError::Member("heads"));
    }
    let wire: HeadWire = serde_json::from_value(value).map_err(|_| SealFileError::Member("heads"))?;
    let pcrs = wire.pcrs.as_deref().map(read_pcrs).transpose()?;
    let (entry_proof, epoch_proof) = (path("heads", &wire.entry_proof)?, path("heads", &wire.epoch_proof)?);
    Ok(Head { checkpoint: wire.checkpoint, entry_proof, epoch_proof, pcrs })
}

/// PCR values, of the member `pcrs` of a head.
pub(crate) fn decode_pcrs(value: &Value) -> Result<PcrValues, SealFileError> {
    if !json::is_array_of_objects(value) {
        return Err(SealFileError::Member("heads"));
    }
    read_pcrs(&Vec::<PcrWire>::deserialize(value).map_err(|_| SealFileError::Member("heads"))?)
}

fn read_pcrs(list: &[PcrWire]) -> Result<PcrValues, SealFileError> {
    list.iter().map(PcrWire::read).collect::<Option<_>>().ok_or(SealFileError::Member("heads"))
}

pub(super) fn encode_head(head: &Head) -> Value {
    let pcrs = head.pcrs.as_ref().map(|list| {
        list.iter().map(|(pcr, value)| PcrWire { pcr: *pcr, value: hex::encode(value) }).collect()
    });
    let wire = HeadWire {
        checkpoint: head.checkpoint.clone(),
        entry_proof: encode_path(&head.entry_proof),
        epoch_proof: encode_path(&head.epoch_proof),
        pcrs,
    };
    serde_json::to_value(wire).expect("strings and numbers always serialise")
}

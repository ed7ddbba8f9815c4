//! `.seal` v1: one JSON file beside the document that carries everything a verifier needs.
//!
//! The JSON is untrusted packaging: members that could be derived are not read, unknown members are
//! kept and ignored unless `critical` names them, and duplicate names or lax base64 are refused.
//! Refuses to do: believe anything. [`crate::verify`] judges; this file only unpacks.
//! Invariant: [`SealFile::encode`] of a decoded file decodes to the same value.

pub(crate) mod parts;

use crate::anchoring;
use crate::erasure::ERASURES_MAX;
use crate::json::{self, JsonError, base64_decode, base64_encode};
use crate::note::SignedNote;
use crate::revocation::{REVOCATIONS_MAX, RevocationEvidence};
pub(crate) use parts::PcrWire;
use serde_json::{Map, Value};

/// Largest `.seal` file in bytes.
pub const SEAL_BYTES_MAX: usize = 4 << 20;
/// Most heads in one file.
pub const HEADS_MAX: usize = 16;
/// Most anchors in one file.
pub const ANCHORS_MAX: usize = 16;
/// Most CRLs in one file.
pub const CRLS_MAX: usize = 8;
/// Most bytes of one of them: a larger one would outweigh the seal a hundred times.
pub const CRL_BYTES_MAX: usize = 65_536;
/// Most manifests in one file.
pub const MANIFESTS_MAX: usize = 16;
/// Most cosigned checkpoints in one file.
pub const COSIGNED_MAX: usize = 16;
/// The value of the member `bulla`.
pub const SEAL_VERSION: &str = "seal/v1";

const KNOWN_MEMBERS: [&str; 15] = [
    "bulla",
    "critical",
    "origin",
    "entry",
    "epoch",
    "enrolment",
    "heads",
    "openings",
    "erasures",
    "anchors",
    "evidence",
    "crls",
    "manifests",
    "revocations",
    "cosignatures",
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

/// An entry of the log and the proof of its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// DER of the entry.
    pub entry: Vec<u8>,
    /// A checkpoint that covers it, a signed note.
    pub checkpoint: String,
    /// Inclusion proof of that entry.
    pub entry_proof: Vec<Vec<u8>>,
}

/// An anchor and the path from the token to what it anchors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorEvidence {
    /// DER of an [`crate::body::anchor::AnchorBody`].
    pub body: Vec<u8>,
    /// Inclusion proof of the token in the anchored tree.
    pub entry_proof: Vec<Vec<u8>>,
}

/// A checkpoint under which other boxes put their names, and the path from the token to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    /// A signed note of this log, with lines of cosigners.
    pub checkpoint: String,
    /// Inclusion proof of the token.
    pub entry_proof: Vec<Vec<u8>>,
}

impl Cosigned {
    /// Whose lines it has besides the log's own.
    fn names(&self, origin: &str) -> Vec<(String, [u8; 4])> {
        let lines = SignedNote::parse(&self.checkpoint).map(|note| note.lines).unwrap_or_default();
        lines.into_iter().filter(|line| line.name != origin).map(|line| (line.name, line.key_id)).collect()
    }
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
    pub erasures: Vec<Placed>,
    /// What authorities said of trees that the token stands in; empty while none is known.
    pub anchors: Vec<AnchorEvidence>,
    /// DER of the entry that the token names as the newest time evidence before it.
    pub evidence: Option<Vec<u8>>,
    /// DER of CRLs of the CAs behind the time stamps in `anchors` and `evidence`; empty when none was kept.
    pub crls: Vec<Vec<u8>>,
    /// Manifests of the outage in which the token was made.
    pub manifests: Vec<Placed>,
    /// The fleet's word that this log was given up; empty when nothing is known of that.
    pub revocations: Vec<RevocationEvidence>,
    /// Checkpoints that other boxes cosigned; empty while none is known.
    pub cosignatures: Vec<Cosigned>,
    /// Members of later versions, kept as they are.
    pub unknown: Map<String, Value>,
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
        let heads = list("heads", take("heads"))?
            .into_iter()
            .map(parts::decode_head)
            .collect::<Result<Vec<_>, _>>()?;
        if heads.is_empty() || heads.len() > HEADS_MAX {
            return Err(SealFileError::Member("heads"));
        }
        let bounded = |name: &'static str, most: usize| match members.get(name) {
            None => Ok(&[][..]),
            Some(Value::Array(items)) if items.len() <= most => Ok(&items[..]),
            Some(_) => Err(SealFileError::Member(name)),
        };
        let placed = |name: &'static str, most: usize| -> Result<Vec<Placed>, SealFileError> {
            bounded(name, most)?.iter().map(|item| parts::decode_placed(name, item)).collect()
        };
        let erasures = placed("erasures", ERASURES_MAX)?;
        let manifests = placed("manifests", MANIFESTS_MAX)?;
        let anchors = bounded("anchors", ANCHORS_MAX)?;
        let anchors = anchors.iter().map(parts::decode_anchor).collect::<Result<_, _>>()?;
        let revocations = bounded("revocations", REVOCATIONS_MAX)?;
        let revocations = revocations.iter().map(parts::decode_revocation).collect::<Result<_, _>>()?;
        let cosignatures = bounded("cosignatures", COSIGNED_MAX)?;
        let cosignatures = cosignatures.iter().map(parts::decode_cosigned).collect::<Result<_, _>>()?;
        let evidence = match members.get("evidence") {
            None => None,
            Some(Value::String(text)) => Some(base64_decode(text)?),
            Some(_) => return Err(SealFileError::Member("evidence")),
        };
        let crl = |item: &Value| {
            let der = base64_decode(item.as_str().ok_or(SealFileError::Member("crls"))?)?;
            if der.len() <= CRL_BYTES_MAX { Ok(der) } else { Err(SealFileError::Member("crls")) }
        };
        let crls = bounded("crls", CRLS_MAX)?.iter().map(crl).collect::<Result<_, SealFileError>>()?;
        members.retain(|name, _| !KNOWN_MEMBERS.contains(&name.as_str()));
        Ok(SealFile {
            origin,
            entry,
            epoch,
            enrolment,
            heads,
            openings,
            erasures,
            anchors,
            evidence,
            crls,
            manifests,
            revocations,
            cosignatures,
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
        put("heads", self.heads.iter().map(parts::encode_head).collect());
        put("openings", self.openings.iter().map(|o| Value::from(base64_encode(o))).collect());
        let mut list = |name: &str, items: Vec<Value>| {
            if !items.is_empty() {
                put(name, items.into());
            }
        };
        list("erasures", self.erasures.iter().map(parts::encode_placed).collect());
        list("anchors", self.anchors.iter().map(parts::encode_anchor).collect());
        list("crls", self.crls.iter().map(|crl| base64_encode(crl).into()).collect());
        list("manifests", self.manifests.iter().map(parts::encode_placed).collect());
        list("cosignatures", self.cosignatures.iter().map(parts::encode_cosigned).collect());
        list("revocations", self.revocations.iter().map(parts::encode_revocation).collect());
        if let Some(evidence) = &self.evidence {
            put("evidence", base64_encode(evidence).into());
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

    /// Takes over what `other`, a file of the same entry, has more: heads, openings, erasures, anchors, CRLs, manifests,
    /// revocations, time evidence, checkpoints cosigned by others than before, unknown members. Nothing of value is given up: only a full list of heads lets a bare
    /// checkpoint go, and only for a quoted one.
    /// Returns whether anything was added; `None` when the two are not of the same entry.
    pub fn upgrade(&mut self, other: SealFile) -> Option<bool> {
        if (&self.origin, &self.entry) != (&other.origin, &other.entry) {
            return None;
        }
        let counts = |file: &Self| {
            let proven = file.revocations.iter().filter(|said| said.entry_proof.is_some()).count();
            let lists = [file.heads.len(), file.openings.len(), file.erasures.len(), file.unknown.len()];
            let evidence = usize::from(file.evidence.is_some());
            let more = [file.anchors.len(), file.manifests.len(), evidence, file.crls.len()];
            (lists, more, file.revocations.len(), proven, file.cosignatures.len())
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
        merge_placed(&mut self.erasures, other.erasures, ERASURES_MAX);
        merge_placed(&mut self.manifests, other.manifests, MANIFESTS_MAX);
        for anchor in other.anchors {
            let known = self.anchors.iter().any(|mine| mine.body == anchor.body);
            if !known && self.anchors.len() < ANCHORS_MAX {
                self.anchors.push(anchor);
            }
        }
        self.evidence = self.evidence.take().or(other.evidence);
        for crl in other.crls {
            // One of an anchor for which there was no room would belong to nothing here.
            if self.crls.len() < CRLS_MAX && !self.crls.contains(&crl) && anchoring::has_use_for(self, &crl) {
                self.crls.push(crl);
            }
        }
        for said in other.revocations {
            match self.revocations.iter().position(|mine| mine.statement == said.statement) {
                Some(at) if self.revocations[at].entry_proof.is_none() => self.revocations[at] = said,
                None if self.revocations.len() < REVOCATIONS_MAX => self.revocations.push(said),
                _ => {}
            }
        }
        for cosigned in other.cosignatures {
            let names: Vec<_> = self.cosignatures.iter().flat_map(|mine| mine.names(&self.origin)).collect();
            let brings = cosigned.names(&self.origin).iter().any(|name| !names.contains(name));
            if brings && self.cosignatures.len() < COSIGNED_MAX {
                self.cosignatures.push(cosigned);
            }
        }
        for (name, value) in other.unknown {
            self.unknown.entry(name).or_insert(value);
        }
        Some(changed || before != counts(self))
    }
}

fn merge_placed(mine: &mut Vec<Placed>, others: Vec<Placed>, most: usize) {
    for other in others {
        let known = mine.iter().any(|known| known.entry == other.entry);
        if !known && mine.len() < most {
            mine.push(other);
        }
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

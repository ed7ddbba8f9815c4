//! What clients get back: the receipt of a seal, with the `.seal` object inside.
//!
//! Serialises straight from the structures: a busy box writes thousands of these a second.
//! Refuses to do: state a fact that the enclosed `.seal` does not carry the evidence of.

use crate::driver::Sealer;
use crate::driver::neighbours::Elsewhere;
use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use bulla_formats::body::seal::{Assurance, ClientMethod, Field, Observation, Opening, SealBody};
use bulla_formats::entry::EntryContent;
use bulla_formats::hash::Hash;
use bulla_formats::revocation::RevocationEvidence;
use bulla_formats::seal_file::{AnchorEvidence, Cosigned, Head, Placed, SEAL_VERSION, SealFile};
use bulla_ledger::mirror_directory;
use serde::ser::{Serialize, SerializeMap as _, SerializeSeq as _, Serializer};

/// Media type of a `.seal` file.
pub const SEAL_MEDIA_TYPE: &str = "application/vnd.bulla.seal+json";
/// Bytes of a usual receipt: grown once instead of ten times.
const USUAL_BYTES: usize = 16 << 10;

/// The receipt.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptView<'a> {
    id: &'a str,
    index: u64,
    leaf_hash: Text<Hash>,
    origin: &'a str,
    sealed_at_millis: u64,
    mode: Text<bulla_formats::entry::Mode>,
    epoch: u64,
    residency: Text<bulla_formats::entry::Residency>,
    facts: &'static [&'static str],
    /// Whether the openings were destroyed; the `.seal` has the evidence.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
    /// Present when the client asked to wait: `attested`, `anchored`, `mirrored`, `witnessed`, `timed-out`,
    /// `not-hardware`, `no-authorities` or `no-neighbours`.
    #[serde(skip_serializing_if = "Option::is_none")]
    waited: Option<&'static str>,
    /// Present when the client asked to wait for neighbours: those that hold the entry, or have witnessed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_by: Option<Vec<String>>,
    /// Present in the answer to `POST`.
    #[serde(skip_serializing_if = "Option::is_none")]
    replayed: Option<bool>,
    /// Present in the answer to `POST`: ids of earlier seals of the same digest, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    earlier: Option<Vec<String>>,
    /// Present in the answer to `POST` when there are any: seals of the same digest in copies of other boxes' logs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    elsewhere: Vec<serde_json::Value>,
    /// Present in the answer to `GET`.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentView<'a>>,
    /// Present in the answer to `GET` while it is known: seals that name this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    related_by: Option<serde_json::Value>,
    links: Links<'a>,
    seal: SealView<'a>,
}

/// What only the answer to `POST` says.
pub struct Made {
    /// How the wait for a fact ended.
    pub waited: Option<&'static str>,
    /// Neighbours that hold the entry, when they were waited for.
    pub held_by: Option<Vec<String>>,
    /// Whether the seal had been made before.
    pub replayed: bool,
    /// Ids of earlier seals.
    pub earlier: Vec<String>,
    /// Seals in copies of other boxes' logs.
    pub elsewhere: Vec<serde_json::Value>,
}

impl<'a> ReceiptView<'a> {
    /// The receipt of the entry with this id and header.
    pub fn new(id: &'a str, leaf_hash: Hash, content: &EntryContent, seal: &'a SealFile) -> Self {
        ReceiptView {
            id,
            index: content.index,
            leaf_hash: Text(leaf_hash),
            origin: &seal.origin,
            sealed_at_millis: content.time.unix_millis,
            mode: Text(content.mode),
            epoch: content.epoch,
            residency: Text(content.residency),
            facts: facts(seal),
            erased: !seal.erasures.is_empty(),
            waited: None,
            held_by: None,
            replayed: None,
            earlier: None,
            elsewhere: Vec::new(),
            document: None,
            related_by: None,
            links: Links(id),
            seal: SealView(seal),
        }
    }

    /// Adds what the answer to `POST` says.
    pub fn made(mut self, made: Made) -> Self {
        self.waited = made.waited;
        self.held_by = made.held_by;
        self.replayed = Some(made.replayed);
        self.earlier = Some(made.earlier);
        self.elsewhere = made.elsewhere;
        self
    }

    /// Adds what was sealed, and the openings that the `.seal` object carries.
    pub fn document(mut self, body: &'a SealBody, openings: &'a [Opening]) -> Self {
        self.document = Some(DocumentView { body, openings });
        self
    }

    /// Adds the seals that name this one.
    pub fn related_by(mut self, related: Option<serde_json::Value>) -> Self {
        self.related_by = related;
        self
    }

    /// The receipt as an answer.
    pub fn respond(&self, status: StatusCode) -> Response {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        serde_json::to_writer(&mut bytes, self).expect("strings and numbers always serialise");
        respond(status, "application/json", bytes)
    }
}

/// An answer about a seal: may grow better evidence, may hold personal data, so it is not to be stored.
pub fn respond(status: StatusCode, media_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Facts of which `seal` carries the evidence.
fn facts(seal: &SealFile) -> &'static [&'static str] {
    if seal.heads.iter().any(|head| head.pcrs.is_some()) { &["sealed", "attested"] } else { &["sealed"] }
}

/// Ids of entries, for `earlier`.
pub fn ids(sealer: &Sealer, indexes: &[u64]) -> Vec<String> {
    let id = |index: &u64| sealer.reader().leaf_hash(*index).ok().map(|leaf| Sealer::id(*index, &leaf));
    indexes.iter().filter_map(id).collect()
}

/// Seals in copies of other boxes' logs, as answers name them.
pub fn elsewhere(seals: &[Elsewhere]) -> Vec<serde_json::Value> {
    let describe = |seal: &Elsewhere| {
        serde_json::json!({
            "origin": seal.origin,
            "index": seal.index,
            "leafHash": seal.leaf_hash.to_string(),
            "sealedAtMillis": seal.sealed_at,
            "sealFile": format!("/mirrors/{}/seals/{}", mirror_directory(&seal.origin), seal.index),
        })
    };
    seals.iter().map(describe).collect()
}

/// Anything that displays, as a JSON string.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct Links<'a>(&'a str);

impl Serialize for Links<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut links = serializer.serialize_map(Some(2))?;
        links.serialize_entry("self", &Text(format_args!("/v1/seals/{}", self.0)))?;
        links.serialize_entry("sealFile", &Text(format_args!("/v1/seals/{}/seal-file", self.0)))?;
        links.end()
    }
}

struct DocumentView<'a> {
    body: &'a SealBody,
    openings: &'a [Opening],
}

impl Serialize for DocumentView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = self.body;
        let mut document = serializer.serialize_map(None)?;
        document.serialize_entry("algorithm", body.algorithm.name())?;
        document.serialize_entry("digest", &hex::encode(&body.digest))?;
        if let Some(size) = body.size {
            document.serialize_entry("size", &size)?;
        }
        document.serialize_entry("mediaType", &body.media_type)?;
        let observation = match body.observation {
            Observation::BytesObserved => "bytes-observed",
            Observation::DigestClaimed => "digest-claimed",
        };
        document.serialize_entry("observation", observation)?;
        document.serialize_entry("client", &body.client.id)?;
        let method = match body.client.method {
            ClientMethod::BearerToken => "bearer-token",
            ClientMethod::ClientCertificate => "client-certificate",
            ClientMethod::Local => "local",
        };
        document.serialize_entry("clientMethod", method)?;
        document.serialize_entry("transport", &body.transport)?;
        let relations: Vec<_> = body
            .related()
            .map(|(kind, leaf)| RelationView { kind: kind.name(), leaf_hash: Text(leaf) })
            .collect();
        document.serialize_entry("relations", &relations)?;
        document.serialize_entry("commitments", &body.commitments.len())?;
        let openings: Vec<_> = self.openings.iter().map(OpeningView::new).collect();
        document.serialize_entry("openings", &openings)?;
        document.end()
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct RelationView {
    kind: &'static str,
    leaf_hash: Text<Hash>,
}

/// An opening, without its salt.
#[derive(serde::Serialize)]
pub struct OpeningView<'a> {
    field: &'static str,
    name: &'a str,
    value: &'a str,
    assurance: &'static str,
}

impl<'a> OpeningView<'a> {
    /// The opening as answers show it.
    pub fn new(opening: &'a Opening) -> Self {
        let field = match opening.field {
            Field::User => "user",
            Field::DocumentId => "document-id",
            Field::Metadata => "metadata",
        };
        let assurance = match opening.assurance {
            Assurance::Asserted => "asserted",
            Assurance::Authenticated => "authenticated",
        };
        OpeningView { field, name: &opening.name, value: &opening.value, assurance }
    }
}

/// A `.seal` file as [`SealFile::to_value`] has it, without building the value; a test holds the two together.
struct SealView<'a>(&'a SealFile);

impl Serialize for SealView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.0;
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("bulla", SEAL_VERSION)?;
        members.serialize_entry("origin", &file.origin)?;
        members.serialize_entry("entry", &base64(&file.entry))?;
        members.serialize_entry("epoch", &base64(&file.epoch))?;
        members.serialize_entry("enrolment", &base64(&file.enrolment))?;
        members.serialize_entry("heads", &file.heads.iter().map(HeadView).collect::<Vec<_>>())?;
        members.serialize_entry("openings", &Base64List(&file.openings))?;
        if !file.erasures.is_empty() {
            members.serialize_entry("erasures", &views(&file.erasures, PlacedView))?;
        }
        if !file.anchors.is_empty() {
            members.serialize_entry("anchors", &views(&file.anchors, AnchorView))?;
        }
        if !file.manifests.is_empty() {
            members.serialize_entry("manifests", &views(&file.manifests, PlacedView))?;
        }
        if !file.cosignatures.is_empty() {
            members.serialize_entry("cosignatures", &views(&file.cosignatures, CosignedView))?;
        }
        if !file.revocations.is_empty() {
            members.serialize_entry("revocations", &views(&file.revocations, RevocationView))?;
        }
        if let Some(evidence) = &file.evidence {
            members.serialize_entry("evidence", &base64(evidence))?;
        }
        for (name, value) in &file.unknown {
            members.serialize_entry(name, value)?;
        }
        members.end()
    }
}

fn base64(bytes: &[u8]) -> Text<Base64Display<'_, '_, base64::engine::GeneralPurpose>> {
    Text(Base64Display::new(bytes, &STANDARD))
}

struct Base64List<'a>(&'a [Vec<u8>]);

impl Serialize for Base64List<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for bytes in self.0 {
            list.serialize_element(&base64(bytes))?;
        }
        list.end()
    }
}

fn views<'a, T, V>(items: &'a [T], view: fn(&'a T) -> V) -> Vec<V> {
    items.iter().map(view).collect()
}

struct AnchorView<'a>(&'a AnchorEvidence);

impl Serialize for AnchorView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(2))?;
        members.serialize_entry("body", &base64(&self.0.body))?;
        members.serialize_entry("entryProof", &Base64List(&self.0.entry_proof))?;
        members.end()
    }
}

struct CosignedView<'a>(&'a Cosigned);

impl Serialize for CosignedView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("checkpoint", &self.0.checkpoint)?;
        members.serialize_entry("entryProof", &Base64List(&self.0.entry_proof))?;
        members.end()
    }
}

struct RevocationView<'a>(&'a RevocationEvidence);

impl Serialize for RevocationView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("statement", &base64(&self.0.statement))?;
        if let Some(proof) = &self.0.entry_proof {
            members.serialize_entry("entryProof", &Base64List(proof))?;
        }
        members.end()
    }
}

struct HeadView<'a>(&'a Head);

impl Serialize for HeadView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("checkpoint", &self.0.checkpoint)?;
        members.serialize_entry("entryProof", &Base64List(&self.0.entry_proof))?;
        members.serialize_entry("epochProof", &Base64List(&self.0.epoch_proof))?;
        if let Some(pcrs) = &self.0.pcrs {
            let pcrs: Vec<_> =
                pcrs.iter().map(|(pcr, value)| PcrView { pcr: *pcr, value: Text(Hash(*value)) }).collect();
            members.serialize_entry("pcrs", &pcrs)?;
        }
        members.end()
    }
}

struct PlacedView<'a>(&'a Placed);

impl Serialize for PlacedView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(Some(3))?;
        members.serialize_entry("entry", &base64(&self.0.entry))?;
        members.serialize_entry("checkpoint", &self.0.checkpoint)?;
        members.serialize_entry("entryProof", &Base64List(&self.0.entry_proof))?;
        members.end()
    }
}

#[derive(serde::Serialize)]
struct PcrView {
    pcr: u8,
    value: Text<Hash>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SealFile {
        let head = Head {
            checkpoint: "bank.example/x/1\n2\nAAAA\n\n\u{2014} x AAAA\n".into(),
            entry_proof: vec![vec![1; 32], vec![2; 32]],
            epoch_proof: vec![],
            pcrs: None,
        };
        let quoted = Head { pcrs: Some(vec![(0, [3; 32]), (7, [4; 32])]), ..head.clone() };
        let mut unknown = serde_json::Map::new();
        unknown.insert("later".into(), serde_json::json!({"a": [1, null]}));
        SealFile {
            origin: "bank.example/x/1".into(),
            entry: vec![1, 2, 3],
            epoch: vec![4; 100],
            enrolment: vec![],
            heads: vec![head, quoted],
            openings: vec![vec![9; 10]],
            erasures: vec![Placed {
                entry: vec![5; 7],
                checkpoint: "x\n".into(),
                entry_proof: vec![vec![6; 32]],
            }],
            anchors: vec![AnchorEvidence { body: vec![3; 9], entry_proof: vec![vec![4; 32]] }],
            evidence: Some(vec![2; 3]),
            crls: Vec::new(),
            manifests: vec![Placed { entry: vec![1], checkpoint: "y\n".into(), entry_proof: vec![] }],
            revocations: vec![
                RevocationEvidence { statement: vec![7; 5], entry_proof: Some(vec![vec![8; 32]]) },
                RevocationEvidence { statement: vec![7; 6], entry_proof: None },
            ],
            cosignatures: vec![Cosigned { checkpoint: "z\n".into(), entry_proof: vec![vec![2; 32]] }],
            unknown,
        }
    }

    #[test]
    fn the_enclosed_seal_is_the_seal_file() {
        let seal = sample();
        let direct = serde_json::to_string(&SealView(&seal)).unwrap();
        assert_eq!(direct, seal.to_value().to_string());
        assert_eq!(facts(&seal), ["sealed", "attested"]);
        let mut plain = seal;
        plain.heads.pop();
        assert_eq!(facts(&plain), ["sealed"]);
    }
}

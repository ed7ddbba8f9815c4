//! What a client says about a document beside its bytes: user, document id, metadata, relations.
//!
//! The same description comes in headers (percent-encoded UTF-8), in form fields, or in JSON.
//! Refuses to do: take a field twice, mix headers with fields, or guess an encoding.
//! Invariant: values leave this module only as openings with fresh 256-bit salts, or inside a hash (G5).

use crate::problem::{Kind, Problem};
use axum::http::HeaderMap;
use bulla_formats::body::seal::{
    Assurance, COMMITMENTS_MAX, DigestAlgorithm, DocumentDigest, Field, Observation, Opening, RELATIONS_MAX,
    RelationKind,
};
use bulla_formats::der::Octets32;
use bulla_formats::hash::{Hash, sha256};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use std::fmt;

const USER: &str = "bulla-user";
const DOCUMENT_ID: &str = "bulla-document-id";
const METADATA: &str = "bulla-metadata";
const RELATIONS: [(RelationKind, &str); 3] = [
    (RelationKind::Supersedes, "bulla-supersedes"),
    (RelationKind::DerivedFrom, "bulla-derived-from"),
    (RelationKind::Annuls, "bulla-annuls"),
];
const DEFAULT_MEDIA_TYPE: &str = "application/octet-stream";

/// An earlier seal as clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `<index>-<16 hex>`: a seal of this log.
    Id(String),
    /// The leaf hash of an entry, perhaps of another box's log.
    Leaf(Hash),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Id(id) => f.write_str(id),
            Target::Leaf(leaf) => leaf.fmt(f),
        }
    }
}

/// What a client says about a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Media type, as given.
    pub media_type: String,
    /// The person at the scanner.
    pub user: Option<String>,
    /// Whether the box knows that it is this person, because it is logged in.
    pub user_is_authenticated: bool,
    /// The institution's id of the document.
    pub document_id: Option<String>,
    /// Names and values, in order of name.
    pub metadata: Metadata,
    /// Relations to earlier seals, in the order of [`RelationKind`].
    pub relations: Vec<(RelationKind, Target)>,
}

/// Free metadata: names are unique and ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata(Vec<(String, String)>);

impl Metadata {
    /// Adds a pair; a second value for a name is refused.
    pub fn insert(&mut self, name: String, value: String) -> Result<(), Problem> {
        match self.0.binary_search_by(|(other, _)| other.cmp(&name)) {
            Ok(_) => Err(Problem::invalid(format!("metadata {name:?} is given twice; send one value"))),
            Err(at) => {
                self.0.insert(at, (name, value));
                Ok(())
            }
        }
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object whose values are strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Metadata, A::Error> {
                let mut metadata = Metadata::default();
                while let Some((name, value)) = access.next_entry()? {
                    metadata.insert(name, value).map_err(|_| A::Error::custom("a name appears twice"))?;
                }
                Ok(metadata)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The body of `application/vnd.bulla.digest+json`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct DigestOrder {
    algorithm: String,
    digest: String,
    size: Option<u64>,
    media_type: Option<String>,
    user: Option<String>,
    document_id: Option<String>,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    supersedes: Vec<String>,
    #[serde(default)]
    derived_from: Vec<String>,
    #[serde(default)]
    annuls: Vec<String>,
}

impl Description {
    /// From the headers of a raw upload.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut description = Description {
            media_type: media_type(headers.get("content-type").map(|value| value.as_bytes()))?,
            user: single(headers, USER)?,
            document_id: single(headers, DOCUMENT_ID)?,
            ..Description::default()
        };
        for value in headers.get_all(METADATA) {
            let text = value.to_str().ok();
            let (name, value) = text.and_then(|text| text.split_once('=')).ok_or_else(|| {
                Problem::invalid(
                    "Bulla-Metadata is not name=value in percent-encoded ASCII; encode both parts",
                )
            })?;
            let (name, value) = (decode(METADATA, name.trim())?, decode(METADATA, value.trim())?);
            description.metadata.insert(name, value)?;
        }
        for (kind, header) in RELATIONS {
            for value in headers.get_all(header) {
                let text = value.to_str().unwrap_or_default();
                description.relations.push((kind, target(text.trim())?));
            }
        }
        description.check()
    }

    /// 400 when a form or JSON request also describes its document in headers: one of the two would be ignored.
    pub fn refuse_headers(headers: &HeaderMap) -> Result<(), Problem> {
        let names = [USER, DOCUMENT_ID, METADATA].into_iter().chain(RELATIONS.map(|(_, name)| name));
        match names.into_iter().find(|name| headers.contains_key(*name)) {
            None => Ok(()),
            Some(name) => Err(Problem::invalid(format!(
                "the header {name} is for raw uploads; in this request put it into the body"
            ))
            .and_close()),
        }
    }

    /// From `application/vnd.bulla.digest+json`: the digest and what is said about it.
    pub fn from_digest_json(bytes: &[u8]) -> Result<(DocumentDigest, Self), Problem> {
        let order: DigestOrder = serde_json::from_slice(bytes)
            .map_err(|error| Problem::invalid(format!("the digest order is not understood ({error})")))?;
        let algorithm = DigestAlgorithm::from_name(&order.algorithm)
            .ok_or_else(|| Problem::invalid("\"algorithm\" is one of sha-256, sha-512, sha3-256"))?;
        let value = hex::decode(&order.digest)
            .ok()
            .filter(|value| value.len() == algorithm.digest_bytes())
            .ok_or_else(|| {
            let digits = algorithm.digest_bytes() * 2;
            Problem::invalid(format!("\"digest\" is not {digits} hex digits, as {algorithm} needs"))
        })?;
        if order.size == Some(0) {
            return Err(super::upload::empty());
        }
        let mut description = Description {
            media_type: media_type(order.media_type.as_deref().map(str::as_bytes))?,
            user: order.user,
            document_id: order.document_id,
            metadata: order.metadata,
            ..Description::default()
        };
        let lists = [order.supersedes, order.derived_from, order.annuls];
        for ((kind, _), list) in RELATIONS.into_iter().zip(lists) {
            for text in list {
                description.relations.push((kind, target(&text)?));
            }
        }
        Ok((DocumentDigest { algorithm, value, size: order.size }, description.check()?))
    }

    /// Takes a text field of a form. [`Description::check`] follows after the last one.
    pub fn take_field(&mut self, name: &str, text: String) -> Result<(), Problem> {
        let twice = |name| Problem::invalid(format!("the form's field {name} is given twice")).and_close();
        let relation = match name {
            "user" if self.user.is_some() => return Err(twice("user")),
            "documentId" if self.document_id.is_some() => return Err(twice("documentId")),
            "metadata" if self.metadata != Metadata::default() => return Err(twice("metadata")),
            "user" => {
                self.user = Some(text);
                return Ok(());
            }
            "documentId" => {
                self.document_id = Some(text);
                return Ok(());
            }
            "metadata" => {
                self.metadata = serde_json::from_str(&text).map_err(|error| {
                    Problem::invalid(format!("the form's metadata is not an object of strings ({error})"))
                        .and_close()
                })?;
                return Ok(());
            }
            "supersedes" => RelationKind::Supersedes,
            "derivedFrom" => RelationKind::DerivedFrom,
            "annuls" => RelationKind::Annuls,
            other => {
                return Err(Problem::invalid(format!(
                    "the form has an unknown field {other:?}; known are document, user, documentId, metadata, \
                     supersedes, derivedFrom, annuls"
                ))
                .and_close());
            }
        };
        self.relations.push((relation, target(text.trim())?));
        Ok(())
    }

    /// Sets the media type of the form's document.
    pub fn set_media_type(&mut self, text: Option<&str>) -> Result<(), Problem> {
        self.media_type = media_type(text.map(str::as_bytes))?;
        Ok(())
    }

    /// Counts and lengths, with words for the client; the driver checks the format's rules again.
    pub fn check(mut self) -> Result<Self, Problem> {
        let commitments = self.metadata.0.len() + 2;
        if commitments > COMMITMENTS_MAX || self.relations.len() > RELATIONS_MAX {
            let detail = "at most 62 metadata fields and 16 relations fit into a seal; send fewer";
            return Err(Problem::new(Kind::InvalidSeal, detail));
        }
        let empty = |value: &Option<String>| value.as_ref().is_some_and(String::is_empty);
        if empty(&self.user) || empty(&self.document_id) {
            return Err(Problem::invalid("user or document id is empty; leave it out instead"));
        }
        self.relations.sort_by_key(|(kind, _)| *kind as u8);
        Ok(self)
    }

    fn fields(&self) -> impl Iterator<Item = (Field, &str, &str)> {
        let user = self.user.iter().map(|value| (Field::User, "user", value.as_str()));
        let id = self.document_id.iter().map(|value| (Field::DocumentId, "document-id", value.as_str()));
        let metadata = self.metadata.0.iter().map(|(n, v)| (Field::Metadata, n.as_str(), v.as_str()));
        user.chain(id).chain(metadata)
    }

    /// Names the person that is logged in; whoever is logged in seals in nobody else's name.
    pub fn authenticate(&mut self, person: &str) -> Result<(), Problem> {
        if self.user.as_ref().is_some_and(|user| user != person) {
            return Err(Problem::invalid(
                "in the console the user is whoever is logged in; leave the user out",
            ));
        }
        (self.user, self.user_is_authenticated) = (Some(person.to_owned()), true);
        Ok(())
    }

    /// One opening per value, with a fresh salt each. Whoever is logged in is known to the box; all else is asserted.
    pub fn openings(&self) -> Result<Vec<Opening>, Problem> {
        let make = |(field, name, value): (Field, &str, &str)| {
            let mut salt = [0; 32];
            getrandom::fill(&mut salt)
                .map_err(|_| Problem::new(Kind::Internal, "the system has no randomness; try again"))?;
            let (name, value) = (name.to_owned(), value.to_owned());
            let known = field == Field::User && self.user_is_authenticated;
            let assurance = if known { Assurance::Authenticated } else { Assurance::Asserted };
            let opening = Opening { field, assurance, salt: Octets32::new(salt), name, value };
            opening.check().map_err(|error| Problem::new(Kind::InvalidSeal, error.to_string()))?;
            Ok(opening)
        };
        self.fields().map(make).collect()
    }

    /// SHA-256 over everything that makes two requests the same; every part has its length before it.
    pub fn fingerprint(&self, digest: &DocumentDigest, observation: Observation) -> Hash {
        let mut bytes = b"bulla/request-fingerprint/v1\0".to_vec();
        let mut part = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part);
        };
        part(digest.algorithm.name().as_bytes());
        part(&digest.value);
        part(&digest.size.map_or(Vec::new(), |size| size.to_be_bytes().to_vec()));
        part(&[observation as u8]);
        part(self.media_type.as_bytes());
        part(&(self.fields().count() as u64).to_be_bytes());
        for (field, name, value) in self.fields() {
            part(&[field as u8]);
            part(name.as_bytes());
            part(value.as_bytes());
        }
        for (kind, target) in &self.relations {
            part(kind.name().as_bytes());
            match target {
                Target::Id(id) => part(id.as_bytes()),
                Target::Leaf(hash) => part(&hash.0),
            }
        }
        sha256(&[&bytes])
    }
}

fn single(headers: &HeaderMap, name: &'static str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::invalid(format!("the header {name} is given twice; send one")));
    }
    decode(name, first.to_str().unwrap_or("%")).map(Some)
}

fn decode(name: &str, text: &str) -> Result<String, Problem> {
    percent_decode(text).ok_or_else(|| {
        Problem::invalid(format!("the header {name} is not percent-encoded UTF-8; encode it like a URL"))
    })
}

/// Every `%` begins two hex digits, and the result is UTF-8; anything else is `None`.
fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let mut byte = [0];
        hex::decode_to_slice(digits, &mut byte).ok()?;
        bytes.push(byte[0]);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

fn target(text: &str) -> Result<Target, Problem> {
    let mut leaf = [0; 32];
    if text.len() == 64 && hex::decode_to_slice(text, &mut leaf).is_ok() {
        return Ok(Target::Leaf(Hash(leaf)));
    }
    if text.is_empty() || text.len() > 64 || !text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Err(Problem::invalid(
            "a relation names neither the id of a seal (<index>-<16 hex digits>) nor a leaf hash (64 hex digits)",
        ));
    }
    Ok(Target::Id(text.to_owned()))
}

fn media_type(given: Option<&[u8]>) -> Result<String, Problem> {
    let Some(given) = given else { return Ok(DEFAULT_MEDIA_TYPE.to_owned()) };
    let text = std::str::from_utf8(given).ok().map(str::trim).filter(|text| {
        let essence = text.split(';').next().unwrap_or_default();
        text.len() <= 255
            && text.bytes().all(|b| (0x20..0x7f).contains(&b))
            && essence.split_once('/').is_some_and(|(kind, sub)| !kind.is_empty() && !sub.trim().is_empty())
    });
    let wrong = "the media type is not of the form type/subtype in at most 255 ASCII characters";
    text.map(str::to_owned).ok_or_else(|| Problem::invalid(wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn headers_are_percent_encoded_utf_8() {
        let leaf = "ab".repeat(32);
        let description = Description::from_headers(&headers(&[
            ("content-type", "application/pdf"),
            ("bulla-user", "J%C3%BCrgen%20M."),
            ("bulla-metadata", "b=2"),
            ("bulla-metadata", "a%3D=x%3Dy=z"),
            ("bulla-annuls", "7-0011223344556677"),
            ("bulla-supersedes", &leaf),
        ]))
        .unwrap();
        assert_eq!(description.user.as_deref(), Some("Jürgen M."));
        let pairs = [("a=".to_owned(), "x=y=z".to_owned()), ("b".to_owned(), "2".to_owned())];
        assert_eq!(description.metadata.0, pairs);
        assert_eq!(description.relations[0], (RelationKind::Supersedes, Target::Leaf(Hash([0xab; 32]))));
        assert_eq!(description.relations[1].1, Target::Id("7-0011223344556677".into()));
        assert_eq!(description.openings().unwrap().len(), 3);
        assert_eq!(Description::from_headers(&HeaderMap::new()).unwrap().media_type, DEFAULT_MEDIA_TYPE);
        for bad in [
            &[("bulla-user", "%C3")][..],
            &[("bulla-user", "%zz")],
            &[("bulla-user", "%2")],
            &[("bulla-user", "a"), ("bulla-user", "b")],
            &[("bulla-user", "")],
            &[("bulla-metadata", "novalue")],
            &[("bulla-metadata", "a=1"), ("bulla-metadata", "a=2")],
            &[("bulla-annuls", "x y")],
            &[("content-type", "pdf")],
        ] {
            assert!(Description::from_headers(&headers(bad)).is_err(), "{bad:?}");
        }
        assert!(Description::refuse_headers(&headers(&[("bulla-annuls", "1-00")])).is_err());
    }

    #[test]
    fn digest_orders_are_strict_json() {
        let digest = "00".repeat(32);
        let order = |more: &str| {
            Description::from_digest_json(
                format!("{{\"algorithm\":\"sha-256\",\"digest\":\"{digest}\"{more}}}").as_bytes(),
            )
        };
        let (found, description) = order(
            ",\"size\":5,\"mediaType\":\"image/tiff\",\"metadata\":{\"b\":\"1\",\"a\":\"2\"},\"user\":\"u\"",
        )
        .unwrap();
        assert_eq!((found.size, description.media_type.as_str()), (Some(5), "image/tiff"));
        for bad in [
            ",\"bogus\":1",
            ",\"metadata\":{\"a\":\"1\",\"a\":\"2\"}",
            ",\"metadata\":{\"a\":1}",
            ",\"size\":0",
            ",\"size\":-1",
            ",\"user\":\"a\",\"user\":\"b\"",
            ",\"supersedes\":[\"not an id\"]",
        ] {
            assert!(order(bad).is_err(), "{bad}");
        }
        for bad in [
            "{}",
            "[]",
            "{\"algorithm\":\"md5\",\"digest\":\"00\"}",
            "{\"algorithm\":\"sha-512\",\"digest\":\"00\"}",
        ] {
            assert!(Description::from_digest_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn g3_fingerprints_differ_with_every_part_and_do_not_depend_on_salts() {
        let base = Description {
            media_type: "a/b".into(),
            user: Some("u".into()),
            metadata: Metadata(vec![("n".into(), "v".into())]),
            relations: vec![(RelationKind::Annuls, Target::Id("1-00".into()))],
            ..Description::default()
        };
        let digest = DocumentDigest { algorithm: DigestAlgorithm::Sha256, value: vec![1; 32], size: Some(1) };
        let print = |description: &Description| description.fingerprint(&digest, Observation::BytesObserved);
        assert_eq!(print(&base), print(&base.clone()));
        let mut others = vec![base.clone(); 5];
        others[0].user = None;
        others[1].document_id = Some("u".into());
        others[2].metadata = Metadata(vec![("nv".into(), String::new())]);
        others[3].relations[0].0 = RelationKind::Supersedes;
        others[4].media_type = "a/c".into();
        let mut prints: Vec<_> = others.iter().map(print).collect();
        prints.push(print(&base));
        prints.push(base.fingerprint(&digest, Observation::DigestClaimed));
        let larger = DocumentDigest { size: Some(2), ..digest.clone() };
        prints.push(base.fingerprint(&larger, Observation::BytesObserved));
        prints.sort_unstable();
        prints.dedup();
        assert_eq!(prints.len(), 8);
        let salts = |d: &Description| d.openings().unwrap().iter().map(|o| *o.salt).collect::<Vec<_>>();
        assert_ne!(salts(&base), salts(&base));
    }
}

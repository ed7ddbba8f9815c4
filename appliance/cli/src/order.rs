//! What is asked of the box for one document: headers, or the claim of a digest, and the key of the request.
//!
//! Refuses to do: put anything but ASCII into a header.
//! Invariant: the key follows from the question alone, so that asking again is asking the same (G3).

use crate::exit::Failure;
use crate::seal::SealArgs;
use bulla_formats::body::seal::DocumentDigest;
use bulla_formats::hash::sha256;
use bulla_formats::json::base64_encode;
use serde_json::{Map, Value, json};
use std::path::Path;

/// A request, besides the document's bytes.
pub struct Order {
    /// SHA-256 and size of the document.
    pub digest: DocumentDigest,
    media_type: &'static str,
    metadata: Vec<(String, String)>,
    key: String,
}

impl Order {
    /// What to ask for the document at `path`, whose name is `name`, of the box at `url`.
    pub fn new(
        args: &SealArgs,
        url: &str,
        path: &Path,
        name: String,
        media_type: &'static str,
        digest: DocumentDigest,
    ) -> Result<Self, Failure> {
        let mut metadata = args.metadata.clone();
        let named = metadata.iter().any(|(name, _)| name == "filename");
        if !args.no_filename && !named && !name.is_empty() {
            metadata.push(("filename".into(), name));
        }
        let absolute = path.canonicalize().map_err(|error| {
            Failure::usage(format!("{} cannot be found any more: {error}", path.display()))
        })?;
        let key = request_key(args, url, &absolute, &digest, &metadata);
        Ok(Order { digest, media_type, metadata, key })
    }

    /// Bytes of the document.
    pub fn size(&self) -> u64 {
        self.digest.size.unwrap_or(0)
    }

    /// The headers of the request.
    pub fn headers(&self, args: &SealArgs) -> Vec<(&'static str, String)> {
        let mut headers =
            vec![("idempotency-key", self.key.clone()), ("accept", "application/json".to_owned())];
        if args.digest_only {
            headers.push(("content-type", "application/vnd.bulla.digest+json".to_owned()));
            return headers;
        }
        headers.push(("content-type", self.media_type.to_owned()));
        headers.push(("content-digest", format!("sha-256=:{}:", base64_encode(&self.digest.value))));
        headers.extend(args.user.iter().map(|user| ("bulla-user", percent_encode(user))));
        headers.extend(args.document_id.iter().map(|id| ("bulla-document-id", percent_encode(id))));
        for (name, value) in &self.metadata {
            headers.push(("bulla-metadata", format!("{}={}", percent_encode(name), percent_encode(value))));
        }
        headers.extend(args.supersedes.iter().map(|id| ("bulla-supersedes", percent_encode(id))));
        headers
    }

    /// The body of a request that carries only the digest.
    pub fn claim(&self, args: &SealArgs) -> Value {
        let mut claim = json!({
            "algorithm": self.digest.algorithm.name(),
            "digest": hex::encode(&self.digest.value),
            "size": self.size(),
            "mediaType": self.media_type,
            "supersedes": args.supersedes,
        });
        let metadata: Map<String, Value> =
            self.metadata.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        claim["metadata"] = Value::Object(metadata);
        if let Some(user) = &args.user {
            claim["user"] = user.clone().into();
        }
        if let Some(id) = &args.document_id {
            claim["documentId"] = id.clone().into();
        }
        claim
    }
}

/// Follows from the box, the path, the bytes and everything else that is asked: the same command gives the same
/// key, another question never runs into "this key belongs to another request".
fn request_key(
    args: &SealArgs,
    url: &str,
    path: &Path,
    digest: &DocumentDigest,
    metadata: &[(String, String)],
) -> String {
    let digest = hex::encode(&digest.value);
    let path = path.to_string_lossy();
    let mode = if args.digest_only { "digest" } else { "bytes" };
    let mut parts = vec!["bulla/cli-request/v1", url, &*path, &digest, mode];
    for value in [&args.user, &args.document_id] {
        parts.extend(value.as_ref().map_or(["0", ""], |value| ["1", value]));
    }
    for (name, value) in metadata {
        parts.extend([name.as_str(), value.as_str()]);
    }
    parts.push("supersedes");
    parts.extend(args.supersedes.iter().map(String::as_str));
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    sha256(&[&bytes]).to_string()
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::body::seal::DigestAlgorithm;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        seal: SealArgs,
    }

    fn args(more: &[&str]) -> SealArgs {
        let base = ["seal", "a.pdf", "--box", "https://box", "--ca", "ca.pem", "--token-file", "token"];
        Cli::parse_from(base.iter().chain(more)).seal
    }

    #[test]
    fn g3_the_key_follows_from_the_question() {
        let digest = |byte: u8| DocumentDigest {
            algorithm: DigestAlgorithm::Sha256,
            value: vec![byte; 32],
            size: Some(1),
        };
        let key = |more: &[&str], byte| {
            let args = args(more);
            request_key(&args, "https://box", Path::new("/a.pdf"), &digest(byte), &args.metadata)
        };
        let base = key(&[], 1);
        assert_eq!(
            base,
            key(&["--jobs", "9", "--wait", "attested"], 1),
            "how it is sent is no other question"
        );
        for other in [
            key(&[], 2),
            key(&["--user", "x"], 1),
            key(&["--user", ""], 1),
            key(&["--document-id", "x"], 1),
            key(&["--meta", "x="], 1),
            key(&["--supersedes", "1-00"], 1),
            key(&["--digest-only"], 1),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn header_values_are_ascii_whatever_they_say() {
        assert_eq!(percent_encode("J\u{fc}rgen M.=1"), "J%C3%BCrgen%20M.%3D1");
    }
}

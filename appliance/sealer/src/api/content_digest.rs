//! `Content-Digest` (RFC 9530): what the client says the document hashes to.
//!
//! Refuses to do: ignore a digest it cannot check when there is no other, because the client would believe it
//! was checked. Unknown algorithms beside a known one are skipped, as the RFC asks.

use crate::problem::{Kind, Problem};
use axum::http::HeaderMap;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher};
use bulla_formats::json::base64_decode;

/// The header's name.
pub const CONTENT_DIGEST: &str = "content-digest";

/// One announced digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announced {
    /// `sha-256` or `sha-512`.
    pub algorithm: DigestAlgorithm,
    /// The digest.
    pub value: Vec<u8>,
}

/// Reads all `Content-Digest` lines; empty when there is none.
pub fn announced(headers: &HeaderMap) -> Result<Vec<Announced>, Problem> {
    let malformed = || {
        Problem::invalid(
            "Content-Digest is not of the form `sha-256=:<base64>:`; see RFC 9530, or leave it out",
        )
    };
    let mut found: Vec<Announced> = Vec::new();
    let mut skipped = false;
    for line in headers.get_all(CONTENT_DIGEST) {
        let line = line.to_str().map_err(|_| malformed())?;
        for member in line.split(',') {
            let (name, value) = member.trim_matches([' ', '\t']).split_once('=').ok_or_else(malformed)?;
            let value =
                value.strip_prefix(':').and_then(|rest| rest.strip_suffix(':')).ok_or_else(malformed)?;
            let value = base64_decode(value).map_err(|_| malformed())?;
            // RFC 9530 registers no SHA-3.
            let algorithm = match DigestAlgorithm::from_name(name) {
                Some(algorithm @ (DigestAlgorithm::Sha256 | DigestAlgorithm::Sha512)) => algorithm,
                _ => {
                    skipped = true;
                    continue;
                }
            };
            if value.len() != algorithm.digest_bytes()
                || found.iter().any(|other| other.algorithm == algorithm)
            {
                return Err(malformed());
            }
            found.push(Announced { algorithm, value });
        }
    }
    if found.is_empty() && skipped {
        return Err(Problem::invalid("Content-Digest names no algorithm known here; use sha-256 or sha-512"));
    }
    Ok(found)
}

/// Hashes a document for its seal and, in the same pass, for every announced digest.
pub struct CheckedHasher {
    hashers: Vec<DocumentHasher>,
    announced: Vec<Announced>,
}

impl CheckedHasher {
    /// The seal's digest is made with `algorithm`.
    pub fn new(algorithm: DigestAlgorithm, announced: Vec<Announced>) -> Self {
        let more = announced.iter().map(|a| a.algorithm).filter(|other| *other != algorithm);
        let hashers = std::iter::once(algorithm).chain(more).map(DocumentHasher::new).collect();
        CheckedHasher { hashers, announced }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        for hasher in &mut self.hashers {
            hasher.update(piece);
        }
    }

    /// The digest for the seal, when every announced one holds.
    pub fn finish(self) -> Result<DocumentDigest, Problem> {
        let mut digests = self.hashers.into_iter().map(DocumentHasher::finish);
        let first =
            digests.next().ok_or_else(|| Problem::new(Kind::Internal, "nothing was hashed; try again"))?;
        let others: Vec<DocumentDigest> = digests.collect();
        for announced in &self.announced {
            let held = std::iter::once(&first)
                .chain(&others)
                .any(|digest| digest.algorithm == announced.algorithm && digest.value == announced.value);
            if !held {
                return Err(Problem::new(
                    Kind::DigestMismatch,
                    format!(
                        "the {} of what arrived is not the one in Content-Digest, so nothing was sealed; the \
                         document was changed on its way or the header is of another one: send it again",
                        announced.algorithm
                    ),
                ));
            }
        }
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use bulla_formats::json::base64_encode;

    fn parse(lines: &[&str]) -> Result<Vec<Announced>, Problem> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_DIGEST, HeaderValue::from_str(line).unwrap());
        }
        announced(&headers)
    }

    fn digest(algorithm: DigestAlgorithm, bytes: &[u8]) -> String {
        let mut hasher = DocumentHasher::new(algorithm);
        hasher.update(bytes);
        format!("{algorithm}=:{}:", base64_encode(&hasher.finish().value))
    }

    #[test]
    fn known_algorithms_are_read_and_unknown_ones_skipped_beside_them() {
        let (a, b) = (digest(DigestAlgorithm::Sha256, b"x"), digest(DigestAlgorithm::Sha512, b"x"));
        assert!(parse(&[]).unwrap().is_empty());
        assert_eq!(parse(&[&a]).unwrap().len(), 1);
        assert_eq!(parse(&[&format!("{a}, {b}")]).unwrap().len(), 2);
        assert_eq!(parse(&[&a, &b]).unwrap().len(), 2);
        assert_eq!(parse(&[&format!("md5=:AAAA:, {a}")]).unwrap().len(), 1);
        let short = format!("sha-256=:{}:", base64_encode(b"short"));
        for bad in ["md5=:AAAA:", "sha-256", "sha-256=AAAA", "sha-256=:AAA:", &short, "", &format!("{a},{a}")]
        {
            assert!(parse(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_document_that_differs_from_its_announcement_is_refused() {
        for (bytes, algorithm, ok) in [
            (&b"x"[..], DigestAlgorithm::Sha256, true),
            (b"x", DigestAlgorithm::Sha3_256, true),
            (b"y", DigestAlgorithm::Sha256, false),
        ] {
            let lines = [digest(DigestAlgorithm::Sha256, b"x"), digest(DigestAlgorithm::Sha512, b"x")];
            let mut hasher = CheckedHasher::new(algorithm, parse(&[&lines[0], &lines[1]]).unwrap());
            hasher.update(bytes);
            let outcome = hasher.finish();
            assert_eq!(outcome.is_ok(), ok);
            match outcome {
                Ok(found) => assert_eq!((found.algorithm, found.size), (algorithm, Some(1))),
                Err(problem) => assert_eq!(problem.kind(), Kind::DigestMismatch),
            }
        }
    }
}

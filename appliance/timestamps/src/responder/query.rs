//! Requests as they come: `TimeStampReq` of RFC 3161, 2.4.1.
//!
//! Refuses to do: read BER; take SHA-1, or extensions, none of which are known here.
//! Invariant: what is echoed (imprint, nonce) is a slice of the request, byte for byte.

use crate::der::{self, BOOLEAN, INTEGER, Malformed, OBJECT_IDENTIFIER, OCTET_STRING, Reader, SEQUENCE};
use crate::oid::Oid;
use crate::reply::Failure;
use crate::signature::{AlgorithmIdentifier, Digest};

/// Largest request: ten times what any client is known to send.
pub const QUERY_BYTES_MAX: usize = 4_096;
/// Longest nonce in bytes; `openssl ts` sends 8, some clients 20.
const NONCE_BYTES_MAX: usize = 64;

/// A hash that imprints may be of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of hashes")]
pub enum ImprintHash {
    Sha256,
    Sha384,
    Sha512,
}

/// What is to be stamped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imprint<'a> {
    /// The hash function.
    pub hash: ImprintHash,
    /// Its value.
    pub value: &'a [u8],
    /// DER of the MessageImprint.
    raw: &'a [u8],
}

impl<'a> Imprint<'a> {
    pub(super) fn raw(&self) -> &'a [u8] {
        self.raw
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// What is to be stamped.
    pub imprint: Imprint<'a>,
    /// The policy it must be under; `None` leaves that to the authority.
    pub policy: Option<Oid>,
    /// Whether the authority's certificate is to be in the token.
    pub certificates: bool,
    /// Content of the nonce.
    nonce: Option<&'a [u8]>,
}

/// Why a request is not answered with a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not DER of a TimeStampReq.
    #[error("the request is not DER of a TimeStampReq (RFC 3161)")]
    Malformed,
    /// Another version.
    #[error("only version 1 of requests is known here")]
    Version,
    /// A hash that is not taken.
    #[error("the imprint must be of SHA-256, SHA-384 or SHA-512")]
    Hash,
    /// The imprint is not as long as its hash is.
    #[error("the imprint is not as long as its hash")]
    Length,
    /// An extension.
    #[error("no extensions are known here")]
    Extension,
    /// A nonce of unreasonable length.
    #[error("the nonce is longer than 64 bytes")]
    Nonce,
}

impl QueryError {
    /// As RFC 3161 names it.
    pub fn failure(self) -> Failure {
        match self {
            QueryError::Malformed | QueryError::Length => Failure::BadDataFormat,
            QueryError::Version | QueryError::Nonce => Failure::BadRequest,
            QueryError::Hash => Failure::BadAlgorithm,
            QueryError::Extension => Failure::UnacceptedExtension,
        }
    }
}

impl From<Malformed> for QueryError {
    fn from(_: Malformed) -> Self {
        QueryError::Malformed
    }
}

impl<'a> Query<'a> {
    /// Reads a request.
    ///
    /// # Errors
    /// [`QueryError`] says why it gets no token.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, QueryError> {
        if bytes.len() > QUERY_BYTES_MAX {
            return Err(QueryError::Malformed);
        }
        let mut query = Reader::whole(bytes, SEQUENCE)?;
        let version = query.take(INTEGER)?;
        let imprint = query.take(SEQUENCE)?;
        let policy = query.take_if(OBJECT_IDENTIFIER)?.map(|policy| Oid::from_content(policy.content));
        let nonce = query.take_if(INTEGER)?.map(|nonce| nonce.content);
        let certificates = query.take_if(BOOLEAN)?.is_some_and(|asked| asked.content == [0xff]);
        let extensions = query.take_if(der::context(0))?;
        query.end()?;
        // Taken apart as a whole first: what is no request at all is not told that its version is wrong.
        let mut inside = imprint.open();
        let algorithm = AlgorithmIdentifier::read(&mut inside)?;
        let value = inside.take(OCTET_STRING)?.content;
        inside.end()?;
        if version.content != [1] {
            return Err(QueryError::Version);
        }
        let (hash, length) = match Digest::of(&algorithm).ok_or(QueryError::Hash)? {
            Digest::Sha256 => (ImprintHash::Sha256, 32),
            Digest::Sha384 => (ImprintHash::Sha384, 48),
            Digest::Sha512 => (ImprintHash::Sha512, 64),
        };
        if value.len() != length {
            return Err(QueryError::Length);
        }
        if extensions.is_some() {
            return Err(QueryError::Extension);
        }
        if nonce.is_some_and(|nonce| nonce.len() > NONCE_BYTES_MAX) {
            return Err(QueryError::Nonce);
        }
        Ok(Query { imprint: Imprint { hash, value, raw: imprint.raw }, policy, certificates, nonce })
    }

    pub(super) fn nonce(&self) -> Option<&'a [u8]> {
        self.nonce
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::{NULL, element};
    use crate::{Request, oid};
    use proptest::prelude::*;

    fn imprint(algorithm: &[u8], parameters: &[u8], value: &[u8]) -> Vec<u8> {
        let algorithm = element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, &[algorithm]), parameters]);
        element(SEQUENCE, &[&algorithm, &element(OCTET_STRING, &[value])])
    }

    fn query(version: u8, imprint: &[u8], rest: &[&[u8]]) -> Vec<u8> {
        element(SEQUENCE, &[&element(INTEGER, &[&[version]]), imprint, &rest.concat()])
    }

    #[test]
    fn what_our_own_client_sends_is_read() {
        let policy = Oid::parse("1.2.3.4.1").unwrap();
        let bytes = Request::new([0x11; 32], 0x80, Some(policy.clone())).encode();
        let read = Query::decode(&bytes).unwrap();
        assert_eq!((read.imprint.hash, read.imprint.value), (ImprintHash::Sha256, &[0x11; 32][..]));
        assert_eq!((read.policy, read.nonce, read.certificates), (Some(policy), Some(&[0, 0x80][..]), true));
    }

    #[test]
    fn hashes_of_sha_2_are_taken_with_and_without_parameters() {
        for (algorithm, hash, length) in [
            (oid::SHA256, ImprintHash::Sha256, 32),
            (oid::SHA384, ImprintHash::Sha384, 48),
            (oid::SHA512, ImprintHash::Sha512, 64),
        ] {
            for parameters in [&[][..], &[NULL, 0]] {
                let imprint = imprint(algorithm, parameters, &vec![7; length]);
                let bytes = query(1, &imprint, &[]);
                let read = Query::decode(&bytes).unwrap();
                assert_eq!((read.imprint.hash, read.imprint.raw()), (hash, &imprint[..]));
                assert_eq!((read.policy, read.nonce, read.certificates), (None, None, false));
            }
        }
    }

    #[test]
    fn each_refusal_has_its_name() {
        let good = imprint(oid::SHA256, &[NULL, 0], &[7; 32]);
        let sha1 = imprint(b"\x2b\x0e\x03\x02\x1a", &[NULL, 0], &[7; 20]);
        let extension = element(der::context(0), &[&element(SEQUENCE, &[])]);
        let nonce = element(INTEGER, &[&[1; 65]]);
        let trailing = [query(1, &good, &[]), vec![0]].concat();
        let cut = &query(1, &good, &[])[..40];
        let long = query(1, &good, &[&element(INTEGER, &[&vec![1; QUERY_BYTES_MAX]])]);
        for (bytes, error, failure) in [
            (&b""[..], QueryError::Malformed, Failure::BadDataFormat),
            (b"GET / HTTP/1.1", QueryError::Malformed, Failure::BadDataFormat),
            (&[0x30, 0x80, 0, 0], QueryError::Malformed, Failure::BadDataFormat),
            (&trailing, QueryError::Malformed, Failure::BadDataFormat),
            (cut, QueryError::Malformed, Failure::BadDataFormat),
            (&long, QueryError::Malformed, Failure::BadDataFormat),
            (&query(2, &good, &[]), QueryError::Version, Failure::BadRequest),
            (&query(1, &sha1, &[]), QueryError::Hash, Failure::BadAlgorithm),
            (
                &query(1, &imprint(oid::SHA256, &[NULL, 0], &[7; 31]), &[]),
                QueryError::Length,
                Failure::BadDataFormat,
            ),
            (
                &query(1, &imprint(oid::SHA256, &[INTEGER, 1, 1], &[7; 32]), &[]),
                QueryError::Hash,
                Failure::BadAlgorithm,
            ),
            (&query(1, &good, &[&extension]), QueryError::Extension, Failure::UnacceptedExtension),
            (&query(1, &good, &[&nonce]), QueryError::Nonce, Failure::BadRequest),
        ] {
            assert_eq!(Query::decode(bytes), Err(error), "{bytes:02x?}");
            assert_eq!(error.failure(), failure);
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_refused_or_changes_what_is_read(at in 0usize..70, flip in 1u8..=255) {
            let bytes = Request::new([0x11; 32], 0x0123_4567_89ab_cdef, None).encode();
            let mut changed = bytes.clone();
            let at = at % changed.len();
            changed[at] ^= flip;
            if let Ok(read) = Query::decode(&changed) {
                // NULL parameters may not be had in another spelling, so only the values are left to differ.
                prop_assert_ne!(Ok(read), Query::decode(&bytes));
            }
        }
    }
}

//! Bodies on their way in: read piece by piece, with limits in bytes and in silence.
//!
//! Refuses to do: hold a document in memory. Only small structured bodies are collected.
//! Invariant: a body that ended early is an error, never a shorter document.

use super::content_digest::CheckedHasher;
use crate::config::Pace;
use crate::problem::{Kind, Problem};
use axum::body::{Body, HttpBody as _};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use bulla_formats::body::seal::DocumentDigest;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt as _;
use multer::{Constraints, Field, Multipart, SizeLimit};
use std::time::{Duration, Instant};
use zeroize::{Zeroize as _, Zeroizing};

/// Most bytes of a structured body, and of all fields of a form beside the document.
pub const STRUCTURED_BYTES_MAX: u64 = 1 << 20;

/// A request body and how much of it may come.
pub struct Incoming {
    body: Body,
    pace: Pace,
    /// Time spent waiting for the client; what the box takes to hash is not the client's.
    waited: Duration,
    limit: u64,
    seen: u64,
}

impl Incoming {
    /// Wraps `body`; refuses at once when it announces more than `limit` bytes, or an encoding.
    pub fn new(headers: &HeaderMap, body: Body, limit: u64, pace: Pace) -> Result<Self, Problem> {
        let encoded = headers.get_all(CONTENT_ENCODING).iter().any(|value| value != "identity");
        if encoded {
            return Err(Problem::new(
                Kind::UnsupportedMediaType,
                "a body with Content-Encoding has two readings, the encoded and the decoded one; send the document \
                 as it is, without Content-Encoding",
            )
            .and_close());
        }
        let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if announced.and_then(|text| text.parse::<u64>().ok()).is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        Ok(Incoming { body, pace, waited: Duration::ZERO, limit, seen: 0 })
    }

    /// Bytes that have come.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next piece; `None` at the proper end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let patience = self.pace.patience(self.waited, self.seen);
            let asked = Instant::now();
            let arrived = tokio::time::timeout(patience, self.body.frame()).await;
            self.waited += asked.elapsed();
            let frame = match arrived {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_))) => return Err(truncated()),
                Err(_) => {
                    let what = if patience == self.pace.idle {
                        format!("nothing arrived for {} seconds", patience.as_secs())
                    } else {
                        format!("less than {} bytes a second arrived", self.pace.bytes_per_second_min)
                    };
                    let detail = format!("{what}, so nothing was sealed; send the document again");
                    return Err(Problem::new(Kind::BodyTimeout, detail).and_close());
                }
            };
            let Ok(piece) = frame.into_data() else { continue };
            self.seen += piece.len() as u64;
            if self.seen > self.limit {
                return Err(too_large(self.limit));
            }
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// The whole body in memory; `new` was given a small limit.
    pub async fn collect(mut self) -> Result<Bytes, Problem> {
        let Some(first) = self.piece().await? else { return Ok(Bytes::new()) };
        if self.body.is_end_stream() {
            return Ok(first);
        }
        let mut all = BytesMut::from(first);
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// The whole body in memory that is wiped afterwards; `new` was given a small limit.
    ///
    /// Pieces that are nobody else's are wiped at once. Others lie in a buffer of the connection, of TLS or of the kernel,
    /// which this program cannot reach: they are gone when it is used again or freed.
    pub async fn collect_secret(mut self) -> Result<Zeroizing<Vec<u8>>, Problem> {
        // All of it at once: a vector that grows leaves its bytes behind.
        let mut all = Zeroizing::new(Vec::with_capacity(usize::try_from(self.limit).unwrap_or_default()));
        while let Some(piece) = self.piece().await? {
            all.extend_from_slice(&piece);
            if let Ok(mut own) = piece.try_into_mut() {
                own.as_mut().zeroize();
            }
        }
        Ok(all)
    }

    /// Hashes the whole body.
    pub async fn hash(&mut self, mut hasher: CheckedHasher) -> Result<DocumentDigest, Problem> {
        while let Some(piece) = self.piece().await? {
            hasher.update(&piece);
        }
        if self.seen == 0 {
            return Err(empty());
        }
        hasher.finish()
    }

    /// The body as a multipart form; `headers` has its boundary.
    pub fn multipart(self, headers: &HeaderMap, largest_field: u64) -> Result<Multipart<'static>, Problem> {
        let boundary = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = boundary.and_then(|text| multer::parse_boundary(text).ok()).ok_or_else(|| {
            let detail = "the form's Content-Type has no boundary; let the HTTP library set the header";
            Problem::new(Kind::UnsupportedMediaType, detail).and_close()
        })?;
        let sizes = SizeLimit::new().per_field(largest_field);
        let constraints = Constraints::new().size_limit(sizes);
        Ok(Multipart::with_constraints(paced(self), boundary, constraints))
    }
}

/// The pieces of a body, with a pause after each: multer reads a stream for as long as it is ready, and would
/// hold in memory whatever a fast client sends.
fn paced(incoming: Incoming) -> impl Stream<Item = Result<Bytes, Problem>> + Send + 'static {
    stream::unfold(Some((incoming, false)), |state| async move {
        let (mut incoming, pause) = state?;
        if pause {
            tokio::task::yield_now().await;
        }
        match incoming.piece().await {
            Ok(Some(piece)) => Some((Ok(piece), Some((incoming, true)))),
            Ok(None) => None,
            Err(problem) => Some((Err(problem), None)),
        }
    })
}

/// What went wrong with a form.
pub fn of_form(error: multer::Error) -> Problem {
    match error {
        multer::Error::StreamReadFailed(inner) => match inner.downcast::<Problem>() {
            Ok(problem) => *problem,
            Err(_) => truncated(),
        },
        multer::Error::FieldSizeExceeded { limit, field_name } => {
            let field = field_name.unwrap_or_default();
            let detail = format!("the form's field {field:?} is larger than the {limit} bytes accepted here");
            Problem::new(Kind::TooLarge, detail).and_close()
        }
        multer::Error::IncompleteStream
        | multer::Error::IncompleteFieldData { .. }
        | multer::Error::IncompleteHeaders => truncated(),
        other => Problem::invalid(format!(
            "the multipart form is not understood ({other}); let an HTTP library make it"
        ))
        .and_close(),
    }
}

/// A text field of a form.
pub async fn text_field(mut field: Field<'_>) -> Result<String, Problem> {
    let mut text = Vec::new();
    while let Some(piece) = field.chunk().await.map_err(of_form)? {
        if (text.len() + piece.len()) as u64 > STRUCTURED_BYTES_MAX {
            return Err(too_large(STRUCTURED_BYTES_MAX));
        }
        text.extend_from_slice(&piece);
    }
    String::from_utf8(text).map_err(|_| Problem::invalid("a text field of the form is not UTF-8").and_close())
}

/// Nothing to seal.
pub fn empty() -> Problem {
    Problem::new(
        Kind::EmptyDocument,
        "the document has no bytes, so nothing was sealed; check what the scanner sends",
    )
}

fn truncated() -> Problem {
    Problem::new(Kind::TruncatedBody, "the body ended before its end, so nothing was sealed; send it again")
        .and_close()
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        Kind::TooLarge,
        format!(
            "this box accepts at most {limit} bytes here from this client; raise limits.document_bytes_max or the \
             client's --max-bytes, or seal its digest"
        ),
    )
    .and_close()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::body::seal::DigestAlgorithm;
    use std::io;

    fn incoming(pieces: Vec<io::Result<&'static [u8]>>, limit: u64) -> Incoming {
        let pieces = pieces.into_iter().map(|piece| piece.map(Bytes::from_static));
        let body = Body::from_stream(stream::iter(pieces));
        Incoming::new(&HeaderMap::new(), body, limit, pace(Duration::from_secs(5))).unwrap()
    }

    fn pace(idle: Duration) -> Pace {
        Pace { idle, bytes_per_second_min: 4096 }
    }

    #[test]
    fn patience_is_earned_by_bytes() {
        let pace = pace(Duration::from_secs(30));
        let patience = |waited, seen| pace.patience(Duration::from_secs(waited), seen).as_secs();
        assert_eq!((patience(0, 0), patience(29, 1), patience(30, 0), patience(31, 1)), (30, 1, 0, 0));
        // Fast enough on average: only a pause counts.
        assert_eq!((patience(1000, 4096 * 1000), patience(1029, 4096 * 1000)), (30, 1));
        let free = Pace { bytes_per_second_min: 0, ..pace };
        assert_eq!(free.patience(Duration::from_secs(1_000_000), 1), free.idle);
    }

    fn hasher() -> CheckedHasher {
        CheckedHasher::new(DigestAlgorithm::Sha256, Vec::new())
    }

    #[tokio::test]
    async fn a_document_is_hashed_whole_or_refused() {
        let whole = incoming(vec![Ok(b"ab"), Ok(b""), Ok(b"c")], 3).hash(hasher()).await.unwrap();
        assert_eq!(whole.size, Some(3));
        assert!(hex::encode(whole.value).starts_with("ba7816bf"));
        for (pieces, limit, kind) in [
            (vec![], 3, Kind::EmptyDocument),
            (vec![Ok(&b"abcd"[..])], 3, Kind::TooLarge),
            (vec![Ok(&b"ab"[..]), Err(io::Error::other("reset"))], 3, Kind::TruncatedBody),
        ] {
            let refused = incoming(pieces, limit).hash(hasher()).await.unwrap_err();
            assert_eq!(refused.kind(), kind);
        }
    }

    #[tokio::test]
    async fn encoded_and_oversized_bodies_are_refused_before_they_come() {
        for (name, value, kind) in
            [(CONTENT_ENCODING, "gzip", Kind::UnsupportedMediaType), (CONTENT_LENGTH, "11", Kind::TooLarge)]
        {
            let headers = HeaderMap::from_iter([(name, value.parse().unwrap())]);
            let refused = Incoming::new(&headers, Body::empty(), 10, pace(Duration::from_secs(1)));
            assert_eq!(refused.map(|_| ()).unwrap_err().kind(), kind);
        }
    }

    #[tokio::test]
    async fn a_form_cut_short_is_truncated_and_a_silent_one_times_out() {
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, "multipart/form-data; boundary=B".parse().unwrap())]);
        let start: &[u8] = b"--B\r\nContent-Disposition: form-data; name=\"document\"\r\n\r\nabc";
        let read = |incoming: Incoming| async {
            let mut form = incoming.multipart(&headers, 100).unwrap();
            let field = form.next_field().await.map_err(of_form)?.unwrap();
            text_field(field).await
        };
        let cut = read(incoming(vec![Ok(start)], 1000)).await.unwrap_err();
        assert_eq!(cut.kind(), Kind::TruncatedBody);
        let whole = read(incoming(vec![Ok(start), Ok(b"def\r\n--B--\r\n")], 1000)).await.unwrap();
        assert_eq!(whole, "abcdef");
        let body = Body::from_stream(futures_util::StreamExt::chain(
            stream::iter([Ok::<_, io::Error>(Bytes::from_static(start))]),
            stream::pending(),
        ));
        let silent = Incoming::new(&HeaderMap::new(), body, 1000, pace(Duration::from_millis(1))).unwrap();
        assert_eq!(read(silent).await.unwrap_err().kind(), Kind::BodyTimeout);
    }
}

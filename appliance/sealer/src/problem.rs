//! Problems: the one place where errors become HTTP (RFC 9457, `application/problem+json`).
//!
//! Every refusal of the API is a [`Problem`]: a stable type from [`Kind`], and a detail that says what
//! happened, why, and what to do. `docs/api.md` lists the types; a test keeps the two in step.
//! Refuses to do: carry secrets, document bytes or personal data.

use crate::clients::ClientsError;
use crate::driver::{LookupError, SealError, Sealer};
use crate::people::PeopleError;
use axum::extract::rejection::PathRejection;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER, TRANSFER_ENCODING,
    WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::fmt;

/// Most bytes of an unread body for which a refused connection is kept.
const SMALL_BODY: u64 = 64 << 10;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $slug:literal, $title:literal;)*) => {
        /// Problem types. The slug is stable: `urn:bulla:problem:<slug>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $name,)* }

        impl Kind {
            /// All types, in the order of `docs/api.md`.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// HTTP status, slug and title.
            fn row(self) -> (u16, &'static str, &'static str) {
                match self { $(Kind::$name => ($status, $slug, $title),)* }
            }
        }
    };
}

kinds! {
    /// Headers, query, fields or JSON are not as the API says.
    InvalidRequest = 400, "invalid-request", "The request is not understood";
    /// Content-Digest and bytes differ.
    DigestMismatch = 400, "digest-mismatch", "The document is not the one that was announced";
    /// Nothing to seal.
    EmptyDocument = 400, "empty-document", "An empty document is not sealed";
    /// The connection or the multipart form ended early.
    TruncatedBody = 400, "truncated-body", "The document did not arrive completely";
    /// No cursor of the reconciled view.
    InvalidCursor = 400, "invalid-cursor", "The cursor is not one of the reconciled view";
    /// No credential, or not one of this box.
    Unauthenticated = 401, "unauthenticated", "Authentication is needed";
    /// The role does not allow this.
    Forbidden = 403, "forbidden", "The role does not allow this";
    /// A request in a person's session that does not come from a page of the console.
    ForeignRequest = 403, "foreign-request", "The request does not come from the console";
    /// A name that only the box writes.
    ReservedName = 403, "reserved-name", "The name belongs to the box";
    /// No such route.
    NotFound = 404, "not-found", "There is nothing here";
    /// No such seal.
    UnknownSeal = 404, "unknown-seal", "No seal has this id";
    /// No such request in the queue.
    UnknownQueueId = 404, "unknown-queue-id", "No queued request has this id";
    /// No such manifest.
    UnknownManifest = 404, "unknown-manifest", "No manifest has this index";
    /// The client has no folder that takes documents this way.
    NoDrop = 404, "no-drop", "No folder of this scanner takes documents this way";
    /// No such tile yet.
    UnknownMirror = 404, "unknown-mirror", "No such log is mirrored here";
    UnknownTile = 404, "unknown-tile", "The log has no such tile";
    /// `[tsa]` is off.
    NoTimeStamps = 404, "no-time-stamps", "This box makes no time stamps";
    /// The route exists, the method does not.
    MethodNotAllowed = 405, "method-not-allowed", "The route has no such method";
    /// The folder that a file would go into is not there.
    NoParent = 409, "no-parent", "The folder is not there";
    /// A backup cannot be taken now.
    BackupUnavailable = 409, "backup-unavailable", "No backup can be taken now";
    /// There can be no drill now, or none to stop.
    DrillRefused = 409, "drill-refused", "No drill can be held now";
    /// One erasure at a time.
    ErasureRunning = 409, "erasure-running", "Another erasure is being carried out";
    /// The cursor names a log, or entries, that are not here.
    CursorAhead = 409, "cursor-ahead", "The cursor names entries that this box does not hold";
    /// The body stalled.
    BodyTimeout = 408, "body-timeout", "The document stopped arriving";
    /// The file is there, and the request wanted it not to be.
    AlreadyThere = 412, "already-there", "The file is there";
    /// The document is larger than the limit.
    TooLarge = 413, "too-large", "The body is larger than this box accepts";
    /// Content-Encoding, or a form without boundary.
    UnsupportedMediaType = 415, "unsupported-media-type", "The body's form is not supported";
    /// A new password is too easy to guess.
    WeakPassword = 422, "weak-password", "The password is too weak";
    /// No lease for this box, or none that counts.
    LeaseRefused = 422, "lease-refused", "The lease does not count";
    /// A roster of another root or fleet, an older one, or one that was never approved.
    RosterRefused = 422, "roster-refused", "The roster does not count";
    /// The idempotency key was used for another request.
    KeyReused = 422, "idempotency-key-reused", "The idempotency key belongs to another request";
    /// A relation names an entry that this log does not have.
    UnknownRelation = 422, "unknown-relation", "A related seal does not exist";
    /// The order breaks a rule of the format.
    InvalidSeal = 422, "invalid-seal", "The seal would break a rule of the format";
    /// More than this client, or this address, may ask.
    RateLimited = 429, "rate-limited", "Too many requests";
    /// Headers are too long.
    HeadersTooLarge = 431, "headers-too-large", "The request headers are too long";
    /// Something failed in the box.
    Internal = 500, "internal", "The box failed";
    /// Too much at once.
    Overloaded = 503, "overloaded", "The box is busy";
    /// The index that a search needs is not complete.
    SearchBuilding = 503, "search-building", "The search index is being built";
    /// The box verifies but does not seal.
    Locked = 503, "locked", "The box does not seal at present";
    /// It is decided that the box retires.
    Retiring = 503, "retiring", "The box retires";
    /// The disk may be an older copy than what the box has signed.
    RollbackSuspected = 503, "rollback-suspected", "The box may have been set back to an older state";
    /// Below the reserve.
    DiskFull = 507, "disk-full", "The disk is full";
}

impl Kind {
    /// HTTP status.
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Last part of the type URI.
    pub fn slug(self) -> &'static str {
        self.row().1
    }

    /// The type in words.
    pub fn title(self) -> &'static str {
        self.row().2
    }
}

/// A refusal or failure on its way to the client.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
    retry_after: Option<u32>,
    /// The connection cannot be used further, because the body was left unread.
    close: bool,
    extra: Option<(&'static str, String)>,
}

impl Problem {
    /// A problem of this type; `detail` says what, why, and what to do.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Problem { kind, detail: detail.into(), retry_after: None, close: false, extra: None }
    }

    /// [`Kind::RollbackSuspected`].
    pub fn rollback_suspected(finding: &str) -> Self {
        let detail = format!(
            "{finding}; nothing is sealed or signed until an operator brings the newest disk back or runs \
             `bulla-box succeed`; reading and verifying go on"
        );
        Problem::new(Kind::RollbackSuspected, detail).retry_after(300)
    }

    /// [`Kind::Retiring`].
    pub fn retiring() -> Self {
        Problem::new(
            Kind::Retiring,
            "this box retires, so nothing was sealed and nothing will be; send the document to the box that takes its place",
        )
        .retry_after(3_600)
    }

    /// [`Kind::InvalidRequest`].
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Problem::new(Kind::InvalidRequest, detail)
    }

    /// Asks the client to come back after so many seconds.
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Ends the connection after this answer.
    pub fn and_close(mut self) -> Self {
        self.close = true;
        self
    }

    /// Ends the connection after this answer when the body, which was not read, is longer than what is cheaply read
    /// and thrown away (`api::leftover`), or when the client asked first (`Expect`): whether it still sends the body
    /// is its choice, and what follows on the connection could not be told apart.
    pub fn close_if_large(self, headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let none = length.is_none() && !headers.contains_key(TRANSFER_ENCODING);
        let small = none || length.is_some_and(|length| length <= SMALL_BODY);
        if small && !headers.contains_key(EXPECT) { self } else { self.and_close() }
    }

    /// Adds a member of its own to the problem document.
    fn with(mut self, name: &'static str, value: String) -> Self {
        self.extra = Some((name, value));
        self
    }

    /// Its type.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What the driver refused; `sealer` names the seal of a reused key.
    pub fn of_seal_error(error: SealError, sealer: &Sealer) -> Self {
        match error {
            SealError::KeyReused { index } => {
                let detail = "the Idempotency-Key was used for another document or description; send the \
                              same request again, or use a new key";
                let problem = Problem::new(Kind::KeyReused, detail);
                match sealer.reader().leaf_hash(index) {
                    Ok(leaf) => problem.with("first", Sealer::id(index, &leaf)),
                    Err(_) => problem,
                }
            }
            SealError::KeyQueued { id } => {
                let detail = "the Idempotency-Key was used for another document or description, which is queued; \
                              send the same request again, or use a new key";
                Problem::new(Kind::KeyReused, detail).with("queueId", id)
            }
            SealError::DiskFull { free, needed } => {
                let detail = format!(
                    "{free} bytes are free and {needed} are needed, so nothing was sealed; free disk space on \
                     the box, then send the document again"
                );
                Problem::new(Kind::DiskFull, detail).retry_after(60)
            }
            SealError::Overloaded => Problem::new(
                Kind::Overloaded,
                "too many seals are waiting, and this one was not made; send it again after the pause",
            )
            .retry_after(1),
            SealError::Locked { reason } => Problem::new(
                Kind::Locked,
                format!("{reason}; nothing was sealed, verification goes on; see /v1/status or ask the operator"),
            )
            .retry_after(30),
            SealError::Retiring => Problem::retiring(),
            SealError::RollbackSuspected { finding } => Problem::rollback_suspected(&finding),
            SealError::Failed { reason } => Problem::new(
                Kind::Internal,
                format!(
                    "it is not known to have been sealed ({reason}); send it again with the same Idempotency-Key"
                ),
            )
            .retry_after(1),
            SealError::Invalid { reason } => Problem::new(Kind::InvalidSeal, reason),
        }
    }

    /// The document, with `instance` the path of the request.
    pub fn document(&self, instance: &str) -> Value {
        let (status, slug, title) = self.kind.row();
        let mut members = Map::new();
        members.insert("type".to_owned(), format!("urn:bulla:problem:{slug}").into());
        members.insert("title".to_owned(), title.into());
        members.insert("status".to_owned(), status.into());
        members.insert("detail".to_owned(), self.detail.clone().into());
        members.insert("instance".to_owned(), instance.into());
        if let Some((name, value)) = &self.extra {
            members.insert((*name).to_owned(), value.clone().into());
        }
        Value::Object(members)
    }

    /// The answer, keeping the `Allow` header of a routing refusal in `from`.
    pub fn render(&self, instance: &str, from: Response) -> Response {
        let mut response = Response::new(self.document(instance).to_string().into());
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = from.headers().get(ALLOW) {
            headers.insert(ALLOW, allow.clone());
        }
        if self.kind == Kind::Unauthenticated {
            // Devices that know only Basic send it once they are asked.
            let device =
                ["/dav/", "/api/"].iter().any(|start| instance.starts_with(start)) || instance == "/tsa";
            let challenge = if device { "Basic realm=\"bulla\"" } else { "Bearer realm=\"bulla\"" };
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.slug(), self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    /// Only marks the response: `api::handle` knows the path and renders it.
    fn into_response(self) -> Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<LookupError> for Problem {
    fn from(error: LookupError) -> Self {
        match error {
            LookupError::Unknown => Problem::new(
                Kind::UnknownSeal,
                "this log has no entry of this id; check the id, and whether another box made the seal",
            ),
            LookupError::NotASeal => Problem::new(
                Kind::UnknownSeal,
                "the entry of this id is not a seal but an entry of the log's own; ask for the id of a seal",
            ),
            LookupError::Storage(reason) => {
                Problem::new(Kind::Internal, format!("the log could not be read ({reason}); try again"))
                    .retry_after(5)
            }
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Self {
        Problem::invalid("the path is not percent-encoded UTF-8; take links from receipts as they are")
    }
}

impl From<PeopleError> for Problem {
    fn from(error: PeopleError) -> Self {
        if let PeopleError::Changed(_) = error {
            return Problem::new(
                Kind::Unauthenticated,
                "what you log in with was changed at the same moment; log in again",
            );
        }
        // The path is the operator's business, not the person's.
        log::error!("people cannot be authenticated: {error}");
        Problem::new(
            Kind::Locked,
            "the box cannot read its list of people, so it lets nobody in; ask the operator to look at its log",
        )
        .retry_after(30)
    }
}

impl From<ClientsError> for Problem {
    fn from(error: ClientsError) -> Self {
        // The path is the operator's business, not the client's.
        log::error!("clients cannot be authenticated: {error}");
        Problem::new(
            Kind::Locked,
            "the box cannot read its list of clients, so it lets nobody in; ask the operator to look at its log",
        )
        .retry_after(30)
    }
}

/// A relation to something this log does not have.
pub fn unknown_relation(target: &dyn fmt::Display) -> Problem {
    Problem::new(
        Kind::UnknownRelation,
        format!("{target} is no seal of this log, so nothing was sealed; check the id of the earlier seal"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_rfc_9457_documents() {
        let problem = Problem::new(Kind::DigestMismatch, "because");
        let document = problem.document("/v1/seals");
        assert_eq!(
            document.to_string(),
            "{\"type\":\"urn:bulla:problem:digest-mismatch\",\"title\":\"The document is not the one that was \
             announced\",\"status\":400,\"detail\":\"because\",\"instance\":\"/v1/seals\"}"
        );
        let refused = Problem::new(Kind::Unauthenticated, "x").render("/", Response::default());
        assert_eq!(refused.status(), 401);
        assert!(refused.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(refused.headers()[CONTENT_TYPE], "application/problem+json");
        for (path, scheme) in [
            ("/tsa", "Basic"),
            ("/dav/a/b", "Basic"),
            ("/api/tasks/", "Basic"),
            ("/tsa/certificate", "Bearer"),
        ] {
            let refused = Problem::new(Kind::Unauthenticated, "x").render(path, Response::default());
            assert_eq!(refused.headers()[WWW_AUTHENTICATE], format!("{scheme} realm=\"bulla\""), "{path}");
        }
        let busy = Problem::new(Kind::Overloaded, "x").retry_after(1).render("/", Response::default());
        assert_eq!((busy.status().as_u16(), &busy.headers()[RETRY_AFTER]), (503, &HeaderValue::from(1)));
    }

    #[test]
    fn the_documentation_lists_every_type() {
        let documentation = include_str!("../../../docs/api.md");
        for kind in Kind::ALL {
            let row = format!("| `{}` | {} |", kind.slug(), kind.status().as_u16());
            assert!(documentation.contains(&row), "docs/api.md lacks {row}");
        }
    }
}

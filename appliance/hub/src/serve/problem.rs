//! Refusals of queries, as RFC 9457 problems (`application/problem+json`).
//!
//! Refuses to do: tell a client of files and paths; those are in the hub's own output.
//! Invariant: a type is stable, `urn:bulla:problem:hub-...`, and docs/audit.md lists it.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A parameter.
    InvalidQuery,
    /// No token, or not one of this hub.
    Unauthenticated,
    /// The role does not allow this.
    Forbidden,
    /// No such route.
    NotFound,
    /// Nothing archived matches.
    NothingFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// The body is longer than a request can be.
    TooLarge,
    /// Too many requests of this address.
    RateLimited,
    /// The archive, the index or the list of queries cannot be used now.
    Unavailable,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 9] = [
        Kind::InvalidQuery,
        Kind::Unauthenticated,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::NothingFound,
        Kind::MethodNotAllowed,
        Kind::TooLarge,
        Kind::RateLimited,
        Kind::Unavailable,
    ];

    /// Status, last part of the type, title.
    pub fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Kind::InvalidQuery => (400, "hub-invalid-query", "The query is not understood"),
            Kind::Unauthenticated => (401, "hub-unauthenticated", "Authentication is needed"),
            Kind::Forbidden => (403, "hub-forbidden", "The role does not allow this"),
            Kind::NotFound => (404, "hub-not-found", "There is nothing here"),
            Kind::NothingFound => (404, "hub-nothing-found", "Nothing archived matches"),
            Kind::MethodNotAllowed => (405, "hub-method-not-allowed", "The route has no such method"),
            Kind::TooLarge => (413, "hub-too-large", "The body is too long"),
            Kind::RateLimited => (429, "hub-rate-limited", "Too many requests"),
            Kind::Unavailable => (503, "hub-unavailable", "The hub cannot answer now"),
        }
    }
}

/// A refusal.
#[derive(Debug, Clone)]
pub struct Problem {
    kind: Kind,
    detail: String,
}

impl Problem {
    /// A problem of this kind; `detail` says what, why, and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Problem { kind, detail: detail.into() }
    }

    /// As it is sent.
    pub fn document(&self) -> Value {
        let (status, slug, title) = self.kind.row();
        json!({
            "type": format!("urn:bulla:problem:{slug}"), "title": title, "status": status, "detail": self.detail,
        })
    }

    /// [`Kind::InvalidQuery`].
    pub fn invalid(detail: impl Into<String>) -> Self {
        Problem::new(Kind::InvalidQuery, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.kind.row().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.document().to_string()).into_response();
        // For whoever counts.
        response.extensions_mut().insert(self.kind);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self.kind {
            Kind::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"bulla-hub\""));
            }
            Kind::RateLimited => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Kind::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("10"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_lists_every_type() {
        let documentation = include_str!("../../../../docs/audit.md");
        for kind in Kind::ALL {
            let (status, slug, _) = kind.row();
            let row = format!("| `{slug}` | {status} |");
            assert!(documentation.contains(&row), "docs/audit.md lacks {row}");
        }
    }
}

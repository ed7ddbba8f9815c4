//! `GET /verify`: the browser verifier, for whoever is in the branch.
//!
//! Refuses to do: vouch for itself. A page served by the box is the box's word; an auditor takes it from elsewhere and
//! compares its SHA-256, which is its entity tag.
//! Invariant: the bytes are those that `bulla verifier` writes, under the policy that they carry themselves.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use std::sync::LazyLock;

/// Framed nowhere; that cannot be said in the page itself.
static HEADERS: LazyLock<[(HeaderName, HeaderValue); 6]> = LazyLock::new(|| {
    let policy = format!("{}; frame-ancestors 'none'", bulla_verifier_web::content_security_policy());
    let value = |text: &str| HeaderValue::from_str(text).expect("hashes and words of ASCII are a header");
    [
        (CONTENT_TYPE, value("text/html; charset=utf-8")),
        (CACHE_CONTROL, value("public, max-age=3600")),
        (CONTENT_SECURITY_POLICY, value(&policy)),
        (ETAG, value(&format!("\"sha256-{}\"", bulla_verifier_web::sha256()))),
        (X_CONTENT_TYPE_OPTIONS, value("nosniff")),
        (REFERRER_POLICY, value("no-referrer")),
    ]
});

/// The page.
pub async fn page() -> Response {
    (HEADERS.clone(), bulla_verifier_web::page()).into_response()
}

//! `/` and `/console/...`: the console's pages, which are in the program.
//!
//! Refuses to do: hand out anything about the box. The pages ask `/v1/...` for all that they show, in the session of
//! whoever is logged in.
//! Invariant: every file comes with a policy under which a browser runs and shows nothing but these files.

use super::Shared;
use crate::problem::{Kind, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bulla_console::{File, Language};

/// Says that no page of this origin shares anything with pages that opened it.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// `GET /`: the one page, in the language that the browser prefers.
pub async fn home(State(api): State<Shared>, headers: HeaderMap) -> Result<Response, Problem> {
    let preferred = headers.get(ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut response = answer(&api, &headers, bulla_console::page(Language::preferred(preferred)))?;
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Language"));
    Ok(response)
}

/// `GET /console/{file}`: what the page is made of.
pub async fn file(
    State(api): State<Shared>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    let file = bulla_console::file(&name);
    answer(&api, &headers, file.ok_or_else(|| Problem::new(Kind::NotFound, "the console has no such file"))?)
}

fn answer(api: &Shared, asked: &HeaderMap, file: &'static File) -> Result<Response, Problem> {
    if !api.config.console.enabled {
        return Err(Problem::new(
            Kind::NotFound,
            "the console is off; the operator turns it on in [console]",
        ));
    }
    let tag =
        HeaderValue::from_str(&file.tag).map_err(|_| Problem::new(Kind::Internal, "a tag is no header"))?;
    let known = asked.get_all(IF_NONE_MATCH).iter().any(|value| *value == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        (StatusCode::OK, file.text.as_str().to_owned()).into_response()
    };
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_TYPE, file.media_type),
        // Asked for again every time, by tag: after an update no page runs with half of the old files.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, bulla_console::CONTENT_SECURITY_POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (OPENER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(ETAG, tag);
    Ok(response)
}

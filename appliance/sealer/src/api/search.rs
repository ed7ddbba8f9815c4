//! `GET /v1/seals`: finds seals.
//!
//! Refuses to do: guess at a filter; put the values that were searched for into an answer, an error or a log.
//! Invariant: a cursor is the index below which to go on, so pages stay apart while new seals come in.

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::{OpeningView, respond};
use crate::driver::{Found, Query as SealsQuery, Related, Sealer, SearchError, Viewer};
use crate::problem::{Kind, Problem};
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, OPENING_VALUE_BYTES_MAX};
use serde_json::{Map, Value, json};

/// Seals per page when the caller names no number.
const LIMIT_DEFAULT: usize = 50;
/// Most seals per page.
const LIMIT_MAX: usize = 500;
/// Version of the cursor's text.
const CURSOR_PREFIX: &str = "b1-";

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct SearchQuery {
    digest: Option<String>,
    document_id: Option<String>,
    user: Option<String>,
    client: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// `GET /v1/seals`.
pub async fn search(State(api): State<Shared>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    caller.need(Right::ReadSeals)?;
    let query = read(&uri)?;
    let viewer = match caller.has(Right::ReadOpenings) {
        true => Viewer::All,
        false => Viewer::Own(caller.name().to_owned()),
    };
    let foreign = query.client.as_deref().is_some_and(|client| client != caller.name());
    if foreign && viewer != Viewer::All && query.digest.is_none() {
        let detail = "a scanner searches its own seals, and by digest all of that digest; leave client out";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    // Without a filter that holds for others too, a scanner's search is one for its own seals.
    let query = match &viewer {
        Viewer::Own(name) if query.digest.is_none() => SealsQuery { client: Some(name.clone()), ..query },
        _ => query,
    };
    let sealer = api.sealer.clone();
    let page = tokio::task::spawn_blocking(move || sealer.search(&query, &viewer)).await;
    let page = page.map_err(|_| Problem::new(Kind::Internal, "the search did not finish; try again"))?;
    let page = page.map_err(of_search_error)?;
    let mut answer = Map::new();
    answer.insert("seals".to_owned(), page.seals.iter().map(view).collect());
    if page.unreadable > 0 {
        answer.insert("unreadable".to_owned(), page.unreadable.into());
    }
    if let Some(next) = page.next {
        answer.insert("next".to_owned(), format!("{CURSOR_PREFIX}{next:x}").into());
    }
    Ok(respond(StatusCode::OK, "application/json", Value::Object(answer).to_string()))
}

/// A search without an answer, as a problem.
pub fn of_search_error(error: SearchError) -> Problem {
    match error {
        SearchError::Building { next, size } => Problem::new(
            Kind::SearchBuilding,
            format!(
                "{next} of {size} entries are in the search index so far, and half an answer would mislead; ask \
                 again after the pause (searching by digest alone works meanwhile)"
            ),
        )
        .retry_after(5),
        SearchError::Lookup(error) => error.into(),
    }
}

/// What the query of a request asks for.
pub fn read(uri: &Uri) -> Result<SealsQuery, Problem> {
    let query = match uri.query() {
        None | Some("") => SearchQuery::default(),
        Some(_) => {
            let query: Result<Query<SearchQuery>, _> = Query::try_from_uri(uri);
            // The parser's words name parameters, never values: all of them are taken as text.
            query.map_err(|error| Problem::invalid(format!("the query is not understood ({error})")))?.0
        }
    };
    let number = |name: &str, text: &Option<String>| -> Result<Option<u64>, Problem> {
        let Some(text) = text else { return Ok(None) };
        let strict = !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| strict);
        number.map(Some).ok_or_else(|| Problem::invalid(format!("{name} is a number without sign or space")))
    };
    let value = |name: &str, value: Option<String>| -> Result<Option<String>, Problem> {
        match value {
            Some(text) if text.is_empty() || text.len() > OPENING_VALUE_BYTES_MAX => Err(Problem::invalid(
                format!("{name} has 1 to 8192 bytes; leave it out to search without it"),
            )),
            other => Ok(other),
        }
    };
    let (from, to) = (number("from", &query.from)?, number("to", &query.to)?);
    let limit = number("limit", &query.limit)?.unwrap_or(LIMIT_DEFAULT as u64);
    if !(1..=LIMIT_MAX as u64).contains(&limit) {
        return Err(Problem::invalid("limit is 1 to 500"));
    }
    let times = match (from, to) {
        (None, None) => None,
        (from, to) => Some(from.unwrap_or(0)..to.unwrap_or(u64::MAX)),
    };
    if times.as_ref().is_some_and(|times| times.is_empty()) {
        return Err(Problem::invalid(
            "from is earlier than to; both are Unix milliseconds, to itself is not included",
        ));
    }
    Ok(SealsQuery {
        digest: query.digest.as_deref().map(read_digest).transpose()?,
        document_id: value("documentId", query.document_id)?,
        user: value("user", query.user)?,
        client: value("client", query.client)?,
        times,
        below: query.cursor.as_deref().map(read_cursor).transpose()?,
        limit: limit as usize,
    })
}

fn read_cursor(text: &str) -> Result<u64, Problem> {
    let digits = text.strip_prefix(CURSOR_PREFIX);
    let below = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let canonical = below.filter(|below| text == format!("{CURSOR_PREFIX}{below:x}"));
    canonical.ok_or_else(|| Problem::invalid("cursor is the value of next in an earlier answer, as it was"))
}

fn read_digest(text: &str) -> Result<DocumentDigest, Problem> {
    let read = || {
        let (name, digits) = text.split_once(':')?;
        let algorithm = DigestAlgorithm::from_name(name)?;
        let value = hex::decode(digits).ok()?;
        (value.len() == algorithm.digest_bytes()).then_some(DocumentDigest { algorithm, value, size: None })
    };
    read().ok_or_else(|| {
        Problem::invalid(
            "digest is sha-256:, sha-512: or sha3-256: and as many hex digits as that digest has",
        )
    })
}

fn view(found: &Found) -> Value {
    let (content, body) = (found.entry.content(), &found.body);
    let leaf_hash = found.entry.leaf_hash();
    let id = Sealer::id(content.index, &leaf_hash);
    let relations: Vec<Value> = body
        .related()
        .map(|(kind, leaf)| json!({"kind": kind.name(), "leafHash": leaf.to_string()}))
        .collect();
    let openings: Vec<_> = found.openings.iter().map(OpeningView::new).collect();
    let mut view = json!({
        "id": id,
        "index": content.index,
        "leafHash": leaf_hash.to_string(),
        "sealedAtMillis": content.time.unix_millis,
        "client": body.client.id,
        "mediaType": body.media_type,
        "algorithm": body.algorithm.name(),
        "digest": hex::encode(&body.digest),
        "size": body.size,
        "relations": relations,
        "openings": openings,
        "erased": found.erased,
        "links": {"self": format!("/v1/seals/{id}"), "sealFile": format!("/v1/seals/{id}/seal-file")},
    });
    if body.size.is_none()
        && let Some(view) = view.as_object_mut()
    {
        view.shift_remove("size");
    }
    if let Some(related) = &found.related_by {
        view["relatedBy"] = related_by(related);
    }
    view
}

/// Seals that name a seal, as answers show them.
pub fn related_by(related: &[Related]) -> Value {
    let each = |one: &Related| json!({"kind": one.kind.name(), "id": Sealer::id(one.index, &one.leaf_hash)});
    related.iter().map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(query: &str) -> Result<SealsQuery, Problem> {
        read(&format!("/v1/seals?{query}").parse().unwrap())
    }

    #[test]
    fn filters_are_read_as_they_stand() {
        let hex = "ab".repeat(32);
        let query = of(&format!(
            "digest=sha3-256:{hex}&documentId=A%20%C3%BC&user=+x&client=c&from=1&to=3&limit=500&cursor=b1-ff"
        ))
        .unwrap();
        let digest = query.digest.unwrap();
        assert_eq!((digest.algorithm, digest.value), (DigestAlgorithm::Sha3_256, vec![0xab; 32]));
        assert_eq!(query.document_id.as_deref(), Some("A \u{fc}"));
        // A plus is a space in a query, as in forms.
        assert_eq!((query.user.as_deref(), query.client.as_deref()), (Some(" x"), Some("c")));
        assert_eq!((query.times, query.below, query.limit), (Some(1..3), Some(255), 500));
        assert_eq!((of("").unwrap().limit, of("from=7").unwrap().times), (50, Some(7..u64::MAX)));
    }

    #[test]
    fn everything_else_is_refused_without_repeating_values() {
        let long = "x".repeat(8193);
        for bad in [
            "bogus=1",
            "limit=0",
            "limit=501",
            "limit=-1",
            "limit=+5",
            "limit=x",
            "from=",
            "from=2&to=2",
            "to=0",
            "from=99999999999999999999",
            "cursor=",
            "cursor=ff",
            "cursor=b1-0f",
            "cursor=b1-FF",
            "cursor=b1-",
            "cursor=b1-1ffffffffffffffff",
            "digest=md5:00",
            "digest=sha-256:ab",
            "digest=ab",
            "user=",
            "documentId=",
            "client=",
            "user=a&user=b",
            "documentid=x",
            "user=secret&limit=secret",
        ] {
            let problem = of(bad).unwrap_err();
            assert_eq!(problem.kind(), Kind::InvalidRequest, "{bad}");
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
        assert!(of(&format!("documentId={long}")).is_err());
    }
}

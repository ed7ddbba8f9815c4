//! `GET /v1/reconciled`: the entries of all logs that this box holds, its own and its neighbours', in one order.
//!
//! A reader goes on where it stopped by a cursor of its own: how many entries of each log it has. What comes late, because
//! its log came late, is marked, never slipped in. Whoever asks is a registered reader or operator, by token or by client
//! certificate; a neighbour too: the keys on its card sign cosignatures and sessions of peers, and are not to be used for
//! a third thing.
//! Refuses to do: answer for a log that is not here, or for more of it than is here; pass over a log without a word.

mod view;

use super::Shared;
use super::access::{Caller, Right};
use super::receipt::respond;
use crate::driver::Sealer;
use crate::problem::{Kind, Problem};
use crate::telemetry::{family, line};
use axum::extract::{Query, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bulla_ledger::{Kept, Reader};
use bulla_protocol::gossip::Name;
use bulla_protocol::gossip::reconcile::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Semaphore;
use view::{Log, page};

/// Pages made at a time: each opens every log and reads before its beginning.
const PLACES: usize = 2;
const LIMIT_DEFAULT: u64 = 1_000;
const LIMIT_MAX: u64 = 5_000;

/// What is made, and how much of it was.
#[derive(Debug)]
pub struct Views {
    places: Arc<Semaphore>,
    pages: AtomicU64,
    entries: AtomicU64,
}

impl Default for Views {
    fn default() -> Self {
        let places = Arc::new(Semaphore::new(PLACES));
        Views { places, pages: AtomicU64::new(0), entries: AtomicU64::new(0) }
    }
}

impl Views {
    /// As telemetry.
    pub fn metrics(&self, out: &mut String) {
        for (name, help, counter) in [
            ("bulla_reconciled_pages_total", "Pages of the reconciled view.", &self.pages),
            ("bulla_reconciled_entries_total", "Entries in them.", &self.entries),
        ] {
            family(out, name, "counter", help);
            line(out, name, "", counter.load(Relaxed));
        }
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ViewQuery {
    after: Option<String>,
    to: Option<String>,
    limit: Option<String>,
}

/// What a request asks for.
struct Asked {
    after: Cursor,
    to: Option<Cursor>,
    limit: u64,
}

/// `GET /v1/reconciled`.
pub async fn reconciled(State(api): State<Shared>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    caller.need(Right::ReadReconciled)?;
    let asked = read(&uri)?;
    let permit = api.views.places.clone().try_acquire_owned().map_err(|_| {
        let detail = "as many pages of the reconciled view are being made as may be at a time; ask again after the pause";
        Problem::new(Kind::Overloaded, detail).retry_after(1)
    })?;
    let sealer = api.sealer.clone();
    let make = move || {
        let logs = logs(&sealer, &asked)?;
        let made = page(&logs, &asked.after, asked.limit).map_err(|error| {
            let detail =
                format!("a log cannot be read ({error}); name the other logs in `to` to leave it out");
            Problem::new(Kind::Internal, detail)
        });
        drop(permit);
        made
    };
    let made = tokio::task::spawn_blocking(make).await;
    let made = made.map_err(|_| Problem::new(Kind::Internal, "the page could not be made; try again"))??;
    api.views.pages.fetch_add(1, Relaxed);
    api.views.entries.fetch_add(made.entries, Relaxed);
    Ok(respond(StatusCode::OK, "application/jsonl", made.body))
}

fn read(uri: &Uri) -> Result<Asked, Problem> {
    let query = match uri.query() {
        None | Some("") => ViewQuery::default(),
        Some(_) => {
            let query: Result<Query<ViewQuery>, _> = Query::try_from_uri(uri);
            query.map_err(|error| Problem::invalid(format!("the query is not understood ({error})")))?.0
        }
    };
    let cursor = |name: &str, text: &str| {
        Cursor::parse(text).map_err(|error| {
            let detail = format!(
                "{name} is no cursor: {error}; send `next` of an earlier answer as it is, or leave it out"
            );
            Problem::new(Kind::InvalidCursor, detail)
        })
    };
    let limit = match query.limit {
        None => Some(LIMIT_DEFAULT),
        Some(text) => {
            let digits = text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|limit| digits && (1..=LIMIT_MAX).contains(limit))
        }
    };
    let limit = limit.ok_or_else(|| Problem::invalid("limit is 1 to 5000"))?;
    let to = query.to.filter(|text| !text.is_empty()).map(|text| cursor("to", &text)).transpose()?;
    Ok(Asked { after: cursor("after", query.after.as_deref().unwrap_or_default())?, to, limit })
}

/// The logs that the page is made of, by origin.
fn logs(sealer: &Sealer, asked: &Asked) -> Result<Vec<Log>, Problem> {
    let own: Name = Arc::from(sealer.origin().as_str());
    let names = match &asked.to {
        Some(to) => to.iter().map(|(origin, _)| origin.clone()).collect(),
        None => {
            let mirrors = sealer.mirrors().map(|mirrors| mirrors.all()).unwrap_or_default();
            let mut names: Vec<Name> = mirrors.iter().map(|mirror| Arc::from(mirror.origin())).collect();
            names.push(own.clone());
            names.sort_unstable();
            names
        }
    };
    let mut logs = Vec::new();
    for origin in names {
        let Some((reader, frozen)) = log(sealer, &own, &origin)? else {
            return Err(ahead(&origin, "this box holds no log of this name"));
        };
        let (after, held) = (asked.after.of(&origin), reader.size());
        let to = asked.to.as_ref().map_or(held, |to| to.of(&origin));
        if to > held || after > held {
            return Err(ahead(&origin, &format!("this box holds {held} entries of it")));
        }
        if after > to {
            let detail =
                format!("after is behind to in {origin}; ask for what lies between them, in this order");
            return Err(Problem::new(Kind::InvalidCursor, detail));
        }
        if to > 0 {
            logs.push(Log { origin, reader, after, to, frozen });
        }
    }
    // What is not merged stays as it is in the cursor, but only where the caller has chosen the logs.
    let unknown = asked
        .after
        .iter()
        .find(|(name, _)| asked.to.is_none() && logs.iter().all(|log| log.origin != **name));
    match unknown {
        Some((origin, _)) => Err(ahead(origin, "this box holds no entries of it")),
        None => Ok(logs),
    }
}

/// Where a log is read, and whether it is frozen.
fn log(sealer: &Sealer, own: &Name, origin: &Name) -> Result<Option<(Reader, bool)>, Problem> {
    if origin == own {
        return Ok(Some((sealer.reader().clone(), false)));
    }
    let Some(mirror) = sealer.mirrors().and_then(|mirrors| mirrors.get(origin)) else { return Ok(None) };
    let frozen = !matches!(mirror.standing().frozen, Kept::Known(None));
    match mirror.reader() {
        Ok(reader) => Ok(Some((reader, frozen))),
        Err(error) => {
            let detail = format!(
                "the copy of {origin} cannot be read ({error}); name the other logs in `to` to leave it out"
            );
            Err(Problem::new(Kind::Internal, detail))
        }
    }
}

fn ahead(origin: &str, what: &str) -> Problem {
    let detail = format!(
        "{origin}: {what}, and the cursor names more; ask again later or another box, or name the logs that are wanted in `to`"
    );
    Problem::new(Kind::CursorAhead, detail)
}

//! The log as C2SP tlog-tiles: `/checkpoint` and `/tile/...`, open to everybody.
//!
//! Entries hold no personal data in clear (G5), so whoever audits the log needs no credential.
//! Refuses to do: serve a tile before it exists, or under another spelling than its own.

use super::Shared;
use super::access::Visitor;
use crate::problem::{Kind, Problem};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bulla_formats::tile::{TileCoordinate, TileKind};
use bulla_ledger::{ReadError, Reader};

type Headers = [(HeaderName, HeaderValue); 2];

/// `GET /checkpoint`: the newest signed head.
pub async fn checkpoint(State(api): State<Shared>, _: Visitor) -> Result<Response, Problem> {
    let note = api.sealer.checkpoint().ok_or_else(|| {
        let detail =
            "nothing is signed while a rollback is suspected; an operator must decide, see /v1/status";
        Problem::new(Kind::RollbackSuspected, detail).retry_after(300)
    })?;
    Ok(self::note(note))
}

/// A signed note, as an answer.
pub fn note(note: String) -> Response {
    let headers: Headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (StatusCode::OK, headers, note).into_response()
}

/// `GET /tile/...`: hashes or entries. What a coordinate names never changes.
pub async fn tile(
    State(api): State<Shared>,
    _: Visitor,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(path) = path?;
    let reader = api.sealer.reader().clone();
    read_tile(&path, || Ok(reader)).await
}

/// A tile of any log.
pub async fn read_tile(
    path: &str,
    reader: impl FnOnce() -> Result<Reader, String> + Send + 'static,
) -> Result<Response, Problem> {
    let unknown = || {
        let detail = "this is no tile path (see C2SP tlog-tiles), or the log has not grown so far; fetch \
                      /checkpoint for its size";
        Problem::new(Kind::UnknownTile, detail)
    };
    let coordinate = TileCoordinate::parse(&format!("tile/{path}")).map_err(|_| unknown())?;
    let failed = |error: String| Problem::new(Kind::Internal, format!("the tile cannot be read ({error})"));
    let read = move || {
        let reader = reader()?;
        Ok(match coordinate.kind() {
            TileKind::Hashes { level } => reader.tile(level, coordinate.index(), coordinate.width()),
            TileKind::Entries => reader.entry_bundle(coordinate.index(), coordinate.width()),
        })
    };
    let bytes = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(Ok(bytes))) => bytes,
        Ok(Ok(Err(ReadError::OutOfRange { .. } | ReadError::NoSuchTile { .. }))) => return Err(unknown()),
        Ok(Ok(Err(error))) => return Err(failed(error.to_string())),
        Ok(Err(error)) => return Err(failed(error)),
        Err(_) => return Err(Problem::new(Kind::Internal, "the tile could not be read; try again")),
    };
    let headers: Headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
    ];
    Ok((StatusCode::OK, headers, bytes).into_response())
}

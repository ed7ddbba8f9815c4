//! `/dav/<client>/`: a scanner's folder over WebDAV (RFC 4918). What is put there is sealed like anything in the folder.
//!
//! `dav-server` answers everything but PUT: a document has to arrive whole or not at all (`ingest::arrival`), and a scanner
//! has to hear why not.
//! Refuses to do: show a folder to anybody but its own scanner; write results, or over half a document; list all folders
//! below at once; copy. Locks are told of and not kept, as scanners and desktops need them to write at all.

use super::access::{Caller, Device, Right};
use super::upload::Incoming;
use super::{Connection, Shared};
use crate::config::IngestFolder;
use crate::ingest::arrival::{Arrival, reserved};
use crate::problem::{Kind, Problem};
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::header::{CONTENT_RANGE, IF_NONE_MATCH};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use dav_server::davpath::DavPath;
use dav_server::fakels::FakeLs;
use dav_server::localfs::LocalFs;
use dav_server::{DavHandler, DavMethod, DavMethodSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Where folders are.
const ROOT: &str = "/dav/";

/// The routes. They are not in the OpenAPI document, which knows no such methods; docs/ingest.md describes them.
pub fn router() -> Router<Shared> {
    Router::new().route("/dav/{client}", any(serve)).route("/dav/{client}/{*path}", any(serve)).route(
        // The folder itself, as most clients name it.
        "/dav/{client}/",
        any(serve),
    )
}

async fn serve(
    State(api): State<Shared>,
    Device(caller): Device,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, Problem> {
    caller.need(Right::Seal)?;
    let prefix = format!("{ROOT}{}", caller.name());
    let folder = folder(&api, &caller, request.uri(), &prefix)?;
    if *request.method() == Method::PUT {
        return put(&api, &caller, &folder, &prefix, &connection, request).await;
    }
    let method = request.method().as_str().to_owned();
    check(&method, request.headers(), &prefix)?;
    let handler = DavHandler::builder()
        .strip_prefix(prefix)
        .filesystem(LocalFs::new(&folder.path, false, false, false))
        .locksystem(FakeLs::new())
        .methods(methods())
        .build_handler();
    let response = handler.handle(request).await;
    if response.status().is_success() && matches!(method.as_str(), "MOVE" | "MKCOL" | "DELETE") {
        durable(&folder.path).await.map_err(|error| failed(&error))?;
    }
    let (parts, body) = response.into_parts();
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// What is refused of what `dav-server` would do.
fn check(method: &str, headers: &HeaderMap, prefix: &str) -> Result<(), Problem> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if method == "PROPFIND" && header("depth").is_none_or(|depth| depth.eq_ignore_ascii_case("infinity")) {
        let detail = "a listing of all folders below is not made; send \"Depth: 0\" or \"Depth: 1\"";
        return Err(Problem::new(Kind::Forbidden, detail));
    }
    if method == "MOVE" {
        let target = header("destination").and_then(|text| text.parse::<Uri>().ok());
        let target = target.ok_or_else(|| Problem::invalid("MOVE needs a Destination that is a URL"))?;
        document_name(&path_below(&target, prefix)?)?;
    }
    Ok(())
}

/// The caller's folder, if it takes WebDAV and is the one asked for.
fn folder(api: &Shared, caller: &Caller, uri: &Uri, prefix: &str) -> Result<IngestFolder, Problem> {
    let below = uri.path().strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let own = api.config.ingest.folder.iter().find(|folder| folder.client == caller.name() && folder.webdav);
    own.filter(|_| below).cloned().ok_or_else(|| {
        let detail = format!(
            "scanner {0} has no WebDAV folder here; its own would be {ROOT}{0}/, with webdav = true in its \
             [[ingest.folder]]",
            caller.name()
        );
        Problem::new(Kind::NoDrop, detail)
    })
}

fn methods() -> DavMethodSet {
    let mut all = DavMethodSet::none();
    for method in [
        DavMethod::Head,
        DavMethod::Get,
        DavMethod::Put,
        DavMethod::Options,
        DavMethod::PropFind,
        DavMethod::PropPatch,
        DavMethod::MkCol,
        DavMethod::Move,
        DavMethod::Delete,
        DavMethod::Lock,
        DavMethod::Unlock,
    ] {
        all.add(method);
    }
    all
}

/// What is meant, relative to the folder; never above it.
fn path_below(uri: &Uri, prefix: &str) -> Result<PathBuf, Problem> {
    let mut path = DavPath::new(uri.path()).map_err(|_| Problem::invalid("the path is no path of a file"))?;
    path.set_prefix(prefix).map_err(|_| Problem::invalid("the path leads out of the scanner's folder"))?;
    Ok(path.as_rel_ospath().to_owned())
}

/// Names of results are the box's own.
fn document_name(path: &Path) -> Result<(), Problem> {
    let name = path.file_name().ok_or_else(|| Problem::invalid("the folder itself is no document"))?;
    if reserved(name) {
        let detail =
            "names that end like this are the box's: results and what it has not finished; choose another";
        return Err(Problem::new(Kind::ReservedName, detail));
    }
    Ok(())
}

async fn put(
    api: &Shared,
    caller: &Caller,
    folder: &IngestFolder,
    prefix: &str,
    connection: &Connection,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let close = |problem: Problem| problem.close_if_large(headers);
    let relative = path_below(&parts.uri, prefix).map_err(close)?;
    document_name(&relative).map_err(close)?;
    if headers.contains_key(CONTENT_RANGE) {
        return Err(close(Problem::invalid("parts of a document are not taken; put the whole document")));
    }
    let only_new = headers.get(IF_NONE_MATCH).is_some_and(|value| value == "*");
    let target = folder.path.join(relative);
    let directory = target.parent().unwrap_or(&folder.path).to_owned();
    if !directory.is_dir() {
        let detail = "the folder that this document would go into is not there; make it with MKCOL first";
        return Err(close(Problem::new(Kind::NoParent, detail)));
    }
    let known = std::fs::symlink_metadata(&target).ok();
    if known.as_ref().is_some_and(|known| !known.is_file()) {
        return Err(close(Problem::new(
            Kind::MethodNotAllowed,
            "this is a folder, and no document can replace it",
        )));
    }
    if only_new && known.is_some() {
        return Err(close(already_there()));
    }
    let _permit = api.upload_permit(caller, headers).await?;
    let most = caller.admission().document_bytes_max();
    let mut incoming = Incoming::new(headers, body, most, api.config.body_pace())?;
    let via = format!("webdav {}", connection.transport);
    let mut arrival = Arrival::begin(&directory, &via).await.map_err(|error| failed(&error))?;
    while let Some(piece) = incoming.piece().await? {
        arrival.write(&piece).await.map_err(|error| failed(&error).and_close())?;
    }
    if incoming.seen() == 0 {
        // Windows and macOS begin every file as an empty one: that is taken, and is no document yet.
        log::debug!("an empty file of {} came over WebDAV", caller.name());
    }
    match arrival.arrive(&target, !only_new).await {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(already_there()),
        Err(error) => return Err(failed(&error)),
    }
    api.metrics.document_bytes.fetch_add(incoming.seen(), Relaxed);
    let status = if known.is_some() { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    Ok(status.into_response())
}

/// Renames, new folders and removals are on the disk when they are answered.
async fn durable(folder: &Path) -> io::Result<()> {
    let folder = std::fs::File::open(folder)?;
    let synced = tokio::task::spawn_blocking(move || rustix::fs::syncfs(&folder)).await;
    Ok(synced.map_err(io::Error::other)??)
}

fn already_there() -> Problem {
    Problem::new(Kind::AlreadyThere, "a file of this name is there, and the request was not to replace one")
}

/// A write to the folder failed.
pub fn failed(error: &io::Error) -> Problem {
    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        let detail = "the disk with the scanner's folder is full, so the document was not taken; free space, then send it \
                      again";
        return Problem::new(Kind::DiskFull, detail).retry_after(60);
    }
    // The path is the operator's business.
    log::error!("a scanner's folder cannot be written to: {error}");
    let detail = "the box cannot write to the scanner's folder, so the document was not taken; ask the operator to look at \
                  the box's log";
    Problem::new(Kind::Internal, detail).retry_after(30)
}

//! `POST /api/documents/post_document/` and `GET /api/tasks/`: what programs that know paperless-ngx send and ask.
//!
//! The document goes into the scanner's folder, where it stays and is sealed; what the form says of it goes beside it as a
//! sidecar, so that one seal covers both. Names of fields and answers are those of paperless-ngx's REST API.
//! Refuses to do: take what would be kept nowhere; consume, number or change a document; forget a field that was sent.
//! Invariants: the answer comes when the document is on the disk; the same bytes under the same name are one file.

use super::access::{Caller, Device, Right};
use super::dav::failed;
use super::receipt::respond;
use super::upload::{Incoming, STRUCTURED_BYTES_MAX, empty, of_form, text_field};
use super::{Connection, Shared};
use crate::config::IngestFolder;
use crate::ingest::arrival::{Arrival, reserved};
use crate::problem::{Kind, Problem};
use axum::extract::{Extension, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bulla_intake::names::{beside, sidecars_of};
use bulla_intake::options::Sidecars;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// Where documents are posted.
pub const POST: &str = "/api/documents/post_document/";
/// Where is asked what became of them.
pub const TASKS: &str = "/api/tasks/";
/// Longest name of a file, in bytes: room for the endings of results.
const NAME_BYTES_MAX: usize = 200;
/// Most fields of a form.
const FIELDS_MAX: usize = 64;
/// Most documents of one name.
const SAME_NAME_MAX: u32 = 10_000;
/// Documents that can be asked for. A box that starts anew knows none; their receipts are in the folder.
const POSTED_MAX: usize = 10_000;

/// What was posted since the start, the oldest first.
#[derive(Default)]
pub struct Posted {
    tasks: Mutex<VecDeque<Task>>,
    /// A name is found and taken by one at a time.
    naming: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Task {
    id: String,
    client: String,
    /// In the folder.
    name: String,
    sha256: String,
}

/// `POST /api/documents/post_document/`.
pub async fn post(
    State(api): State<Shared>,
    Device(caller): Device,
    Extension(connection): Extension<Arc<Connection>>,
    request: Request,
) -> Result<Response, Problem> {
    caller.need(Right::Seal)?;
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let folder = folder(&api, &caller).map_err(|problem| problem.close_if_large(headers))?;
    let _permit = api.upload_permit(&caller, headers).await?;
    let largest = caller.admission().document_bytes_max();
    let incoming = Incoming::new(headers, body, largest + STRUCTURED_BYTES_MAX, api.config.body_pace())?;
    let mut form = incoming.multipart(headers, largest)?;
    let (mut fields, mut document) = (Map::new(), None);
    let mut seen = 0;
    while let Some(mut field) = form.next_field().await.map_err(of_form)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "document" {
            take(&mut fields, name, text_field(field).await?)?;
            continue;
        }
        if document.is_some() {
            return Err(Problem::invalid("the form has two documents; post each by itself").and_close());
        }
        let name = file_name(field.file_name())?;
        let via = format!("paperless {}", connection.transport);
        let begun = Arrival::begin(&folder.path, &via).await;
        let mut arrival = begun.map_err(|error| failed(&error).and_close())?;
        while let Some(piece) = field.chunk().await.map_err(of_form)? {
            seen += piece.len() as u64;
            arrival.write(&piece).await.map_err(|error| failed(&error).and_close())?;
        }
        document = Some((name, arrival));
    }
    let Some((name, mut arrival)) = document else {
        return Err(Problem::invalid("the form has no field `document` with a file"));
    };
    if seen == 0 {
        return Err(empty());
    }
    if !fields.is_empty() && folder.sidecar == Sidecars::Off {
        let detail = "this folder seals XML and JSON by themselves (sidecar = \"off\"), so what the form says of the document \
                      cannot go with it; post the document alone, or ask the operator";
        return Err(Problem::invalid(detail));
    }
    let sha256 = hex::encode(arrival.sha256());
    let name = {
        let _one_at_a_time = api.posted.naming.lock().await;
        settle(&folder.path, &name, &mut arrival, &fields).await.map_err(|error| failed(&error))?
    };
    api.metrics.document_bytes.fetch_add(seen, Relaxed);
    let id = api.posted.remember(caller.name(), name, sha256);
    Ok(respond(StatusCode::OK, "application/json", Value::String(id).to_string()))
}

/// The folder that the caller's posts go to.
fn folder<'a>(api: &'a Shared, caller: &Caller) -> Result<&'a IngestFolder, Problem> {
    let own =
        api.config.ingest.folder.iter().find(|folder| folder.client == caller.name() && folder.paperless);
    own.ok_or_else(|| {
        let detail = "a posted document is kept in a folder of the box, and this scanner has none that takes posts: the \
                      operator sets paperless = true in its [[ingest.folder]]";
        Problem::new(Kind::NoDrop, detail)
    })
}

/// A field beside the document; one that comes several times becomes a list.
fn take(fields: &mut Map<String, Value>, name: String, value: String) -> Result<(), Problem> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if fields.len() >= FIELDS_MAX || name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let detail = "the form has a field that paperless-ngx does not have, or too many; its names are like `title` and \
                      `custom_fields`";
        return Err(Problem::invalid(detail).and_close());
    }
    match fields.get_mut(&name) {
        None => drop(fields.insert(name, value.into())),
        Some(Value::Array(values)) => values.push(value.into()),
        Some(first) => *first = json!([first.take(), value]),
    }
    Ok(())
}

/// The name that a document gets: the last part of what was sent, if it may be a document's.
fn file_name(sent: Option<&str>) -> Result<String, Problem> {
    let sent = sent.unwrap_or_default();
    let last = sent.rsplit(['/', '\\']).next().unwrap_or_default();
    let fine = !last.is_empty()
        && last.len() <= NAME_BYTES_MAX
        && !last.starts_with('.')
        && !last.chars().any(char::is_control);
    if !fine {
        let detail = "the document's part has no file name that a folder could hold; send one of at most 200 bytes, e.g. \
                      scan.pdf";
        return Err(Problem::invalid(detail).and_close());
    }
    let document = bulla_intake::names::role(Path::new(last), false) == bulla_intake::names::Role::Document;
    if !document || reserved(OsStr::new(last)) {
        let detail = "a file of this name is never a document here (results, and files that are not finished); send another \
                      name";
        return Err(Problem::new(Kind::ReservedName, detail).and_close());
    }
    Ok(last.to_owned())
}

/// Gives the document the first free name, its sidecar first. A file of that name with the same bytes is the document.
async fn settle(
    folder: &Path,
    name: &str,
    arrival: &mut Arrival,
    fields: &Map<String, Value>,
) -> io::Result<String> {
    let sidecar = (!fields.is_empty()).then(|| format!("{:#}\n", Value::Object(fields.clone())));
    for number in 1..=SAME_NAME_MAX {
        let own = numbered(name, number);
        let target = folder.join(&own);
        if same(&target, &arrival.sha256()).await? && beside_is(&target, sidecar.as_deref())? {
            return Ok(own);
        }
        if target.symlink_metadata().is_ok()
            || sidecars_of(&target).any(|path| path.symlink_metadata().is_ok())
        {
            continue;
        }
        if let Some(text) = &sidecar {
            let mut file = Arrival::begin(folder, "paperless").await?;
            file.write(text.as_bytes()).await?;
            file.arrive(&beside(&target, ".json"), false).await?;
        }
        match arrival.arrive(&target, false).await {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map(|()| own),
        }
    }
    Err(io::Error::other("too many documents have this name"))
}

/// `scan.pdf`, `scan (2).pdf`, ...
fn numbered(name: &str, number: u32) -> String {
    if number == 1 {
        return name.to_owned();
    }
    match name.rsplit_once('.') {
        Some((stem, end)) if !stem.is_empty() => format!("{stem} ({number}).{end}"),
        _ => format!("{name} ({number})"),
    }
}

/// Whether a file is there and has these bytes.
async fn same(path: &Path, sha256: &[u8; 32]) -> io::Result<bool> {
    if !path.symlink_metadata().is_ok_and(|there| there.is_file()) {
        return Ok(false);
    }
    let path: PathBuf = path.to_owned();
    let hashed = tokio::task::spawn_blocking(move || {
        let (mut file, mut hash, mut piece) = (std::fs::File::open(path)?, Sha256::new(), vec![0; 1 << 16]);
        loop {
            match file.read(&mut piece)? {
                0 => return Ok::<[u8; 32], io::Error>(hash.finalize().into()),
                length => hash.update(&piece[..length]),
            }
        }
    });
    Ok(hashed.await.map_err(io::Error::other)?? == *sha256)
}

/// Whether what lies beside a document is this.
fn beside_is(target: &Path, sidecar: Option<&str>) -> io::Result<bool> {
    match (std::fs::read_to_string(beside(target, ".json")), sidecar) {
        (Ok(there), Some(wanted)) => Ok(there == wanted),
        (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        (Err(error), _) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}

impl Posted {
    fn remember(&self, client: &str, name: String, sha256: String) -> String {
        let mut hash = Sha256::new();
        for part in ["bulla/posted/v1", client, &name, &sha256] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let id = uuid(&hash.finalize().into());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if !tasks.iter().any(|task| task.id == id) {
            if tasks.len() >= POSTED_MAX {
                tasks.pop_front();
            }
            tasks.push_back(Task { id: id.clone(), client: client.to_owned(), name, sha256 });
        }
        id
    }

    fn of(&self, client: &str, id: Option<&str>) -> Vec<Task> {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |task: &&Task| task.client == client && id.is_none_or(|id| task.id == id);
        tasks.iter().filter(wanted).cloned().collect()
    }
}

/// The first 16 bytes as a UUID of version 8 (RFC 9562).
fn uuid(hash: &[u8; 32]) -> String {
    let mut bytes: [u8; 16] = std::array::from_fn(|at| hash[at]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

#[derive(serde::Deserialize)]
pub struct TaskQuery {
    task_id: Option<String>,
}

/// `GET /api/tasks/`: the caller's own, as the folder tells.
pub async fn tasks(
    State(api): State<Shared>,
    Device(caller): Device,
    Query(query): Query<TaskQuery>,
) -> Result<Response, Problem> {
    caller.need(Right::ReadQueue)?;
    let folder = folder(&api, &caller)?.clone();
    let tasks = api.posted.of(caller.name(), query.task_id.as_deref());
    let look = move || tasks.iter().map(|task| told(&folder, task)).collect::<Vec<_>>();
    let told = tokio::task::spawn_blocking(look).await;
    let told =
        told.map_err(|_| Problem::new(Kind::Internal, "the folder could not be looked at; ask again"))?;
    Ok(respond(StatusCode::OK, "application/json", Value::Array(told).to_string()))
}

/// What became of a document, by what lies in the folder.
fn told(folder: &IngestFolder, task: &Task) -> Value {
    let read = |path: PathBuf| std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let results = folder.results.as_ref().unwrap_or(&folder.path).join(&task.name);
    let receipt: Option<Value> = read(beside(&results, ".receipt.json"));
    let receipt = receipt.filter(|receipt| receipt["file"]["sha256"] == task.sha256.as_str());
    let errors = folder.options().errors.join(&task.name);
    let (status, result, document) = match &receipt {
        Some(receipt) => {
            ("SUCCESS", json!(format!("Sealed as {}", word(&receipt["id"]))), receipt["id"].clone())
        }
        None if folder.path.join(&task.name).exists() => ("PENDING", Value::Null, Value::Null),
        None => {
            let reason = std::fs::read_to_string(beside(&errors, ".reason.txt")).ok();
            let reason = reason.unwrap_or_else(|| "The document is not in the folder any more.".to_owned());
            ("FAILURE", Value::String(reason), Value::Null)
        }
    };
    json!({
        "task_id": task.id,
        "task_file_name": task.name,
        "type": "file",
        "status": status,
        "result": result,
        "acknowledged": false,
        "related_document": document,
    })
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_documents() {
        assert_eq!(file_name(Some("scan.pdf")).unwrap(), "scan.pdf");
        assert_eq!(file_name(Some("C:\\scans\\Jürgen 1.pdf")).unwrap(), "Jürgen 1.pdf");
        assert_eq!(file_name(Some("../../etc/passwd")).unwrap(), "passwd");
        let long = "x".repeat(201);
        for bad in [None, Some(""), Some("a/"), Some(".hidden"), Some("a\nb.pdf"), Some(".."), Some(&*long)] {
            assert_eq!(file_name(bad).unwrap_err().kind(), Kind::InvalidRequest, "{bad:?}");
        }
        for ours in ["a.pdf.seal", "A.RECEIPT.JSON", "a.pdf.part", "x.bulla-tmp"] {
            assert_eq!(file_name(Some(ours)).unwrap_err().kind(), Kind::ReservedName, "{ours}");
        }
        assert_eq!((numbered("a.b.pdf", 2), numbered("a", 3)), ("a.b (2).pdf".into(), "a (3)".into()));
    }

    #[test]
    fn fields_that_come_twice_are_lists() {
        let mut fields = Map::new();
        for (name, value) in [("title", "a"), ("tags", "1"), ("tags", "2"), ("tags", "3")] {
            take(&mut fields, name.into(), value.into()).unwrap();
        }
        assert_eq!(Value::Object(fields.clone()), json!({"title": "a", "tags": ["1", "2", "3"]}));
        assert!(take(&mut fields, "no such".into(), String::new()).is_err());
    }

    #[tokio::test]
    async fn the_same_document_is_one_file_and_another_gets_a_name_of_its_own() {
        let place = tempfile::tempdir().unwrap();
        let title = |text: &str| Map::from_iter([("title".to_owned(), Value::from(text))]);
        for (bytes, fields, expected) in [
            ("one", Map::new(), "a.pdf"),
            ("one", Map::new(), "a.pdf"),
            ("two", Map::new(), "a (2).pdf"),
            ("one", title("x"), "a (3).pdf"),
            ("one", title("x"), "a (3).pdf"),
            ("one", title("y"), "a (4).pdf"),
        ] {
            let mut arrival = Arrival::begin(place.path(), "paperless").await.unwrap();
            arrival.write(bytes.as_bytes()).await.unwrap();
            assert_eq!(settle(place.path(), "a.pdf", &mut arrival, &fields).await.unwrap(), expected);
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 6, "four documents, two sidecars");
    }

    #[test]
    fn tasks_are_their_clients_own_and_bounded() {
        let posted = Posted::default();
        let id = posted.remember("a", "x.pdf".into(), "00".into());
        assert_eq!(posted.remember("a", "x.pdf".into(), "00".into()), id);
        assert_eq!((id.len(), &id[14..15]), (36, "8"));
        assert_eq!(posted.of("a", Some(&id)).len(), 1);
        assert!(posted.of("b", Some(&id)).is_empty());
        for number in 0..=POSTED_MAX {
            posted.remember("b", format!("{number}.pdf"), "00".into());
        }
        assert!(posted.of("a", None).is_empty());
    }
}

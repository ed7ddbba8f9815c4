//! A connection to a box: raw bytes of HTTP/1.1 requests, by a client of each role and by nobody.
//!
//! The box is real (software keys, a log on disk), made once and remembered from input to input; after so many seals it
//! is made again. TLS is left out: it is another project's parser.
//! Holds: whatever comes is answered, never with 500; a receipt is of an entry that is in the log; the log never shrinks.

use super::split;
use bulla_box::fuzzing::TestBox;
use std::sync::{Mutex, PoisonError};

/// Entries after which a box is replaced by a new one.
const ENTRIES_MAX: u64 = 20_000;
const ROLES: [Option<&str>; 4] = [Some("scanner"), Some("reader"), Some("operator"), None];

struct Running {
    machine: TestBox,
    size: u64,
    /// Removed with it.
    _directory: tempfile::TempDir,
}

static BOX: Mutex<Option<Running>> = Mutex::new(None);

fn begin() -> Running {
    let directory = tempfile::tempdir().expect("a directory for a box");
    let machine = TestBox::create(&directory.path().join("state")).expect("a box with software keys");
    Running { size: machine.size(), machine, _directory: directory }
}

/// Whether one of the answers on a connection has this status line. No body repeats one with its line end: JSON escapes it.
fn is_answer(bytes: &[u8], status: &str) -> bool {
    contains(bytes, format!("HTTP/1.1 {status}\r\n").as_bytes())
}

/// The first byte chooses who asks; the rest is what is sent.
pub fn run(data: &[u8]) {
    drop(answered(data));
}

/// What the box answers to an input.
pub fn answered(data: &[u8]) -> Vec<u8> {
    let Some((who, request)) = split(data, ROLES.len() as u8) else { return Vec::new() };
    let mut running = BOX.lock().unwrap_or_else(PoisonError::into_inner);
    if running.as_ref().is_some_and(|running| running.size > ENTRIES_MAX)
        && let Some(old) = running.take()
    {
        old.machine.close();
    }
    let running = running.get_or_insert_with(begin);
    let answered = running.machine.ask(ROLES[usize::from(who)], request);
    let size = running.machine.size();
    assert!(size >= running.size, "the log shrank");
    let failed = is_answer(&answered, "500 Internal Server Error");
    assert!(!failed, "{}", String::from_utf8_lossy(&answered));
    if is_answer(&answered, "201 Created") {
        assert!(size > running.size, "a receipt, and the log did not grow");
    }
    running.size = size;
    // What an operator locked would keep every later input from sealing.
    let unlock = b"POST /v1/unlock HTTP/1.1\r\nhost: x\r\ncontent-length: 14\r\n\r\n{\"reason\":\"x\"}";
    if ROLES[usize::from(who)] == Some("operator") && contains(request, b"/v1/lock") {
        running.machine.ask(Some("operator"), unlock);
        running.size = running.machine.size();
    }
    answered
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn post(who: u8, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{fields}content-length: {}\r\n\r\n", body.len());
    [&[who], head.as_bytes(), body].concat()
}

/// Requests of every kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let get =
        |who: u8, path: &str| [&[who], format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()].concat();
    let leaf = "ab".repeat(32);
    let order = format!("{{\"algorithm\":\"sha-256\",\"digest\":\"{leaf}\",\"metadata\":{{\"a\":\"b\"}}}}");
    let form = "--b\r\ncontent-disposition: form-data; name=\"user\"\r\n\r\nu\r\n--b\r\ncontent-disposition: form-data; \
                name=\"document\"; filename=\"a.pdf\"\r\ncontent-type: application/pdf\r\n\r\n%PDF\r\n--b--\r\n";
    let bulk = format!("{{\"digests\":[{{\"algorithm\":\"sha-256\",\"digest\":\"{leaf}\"}}]}}");
    let multipart = "content-type: multipart/form-data; boundary=b\r\n";
    let mut seeds = vec![
        post(
            0,
            "/v1/seals",
            "content-type: application/pdf\r\nbulla-user: u%20v\r\nidempotency-key: k\r\n",
            b"%PDF",
        ),
        post(
            0,
            "/v1/seals?digest=sha-512&wait=attested",
            "bulla-metadata: a=b\r\nbulla-supersedes: 1-00\r\n",
            b"x",
        ),
        post(0, "/v1/seals", "content-type: application/vnd.bulla.digest+json\r\n", order.as_bytes()),
        post(0, "/v1/seals", multipart, form.as_bytes()),
        post(1, "/v1/verify", multipart, form.as_bytes()),
        post(1, "/v1/verify", "", b"%PDF"),
        post(
            1,
            "/v1/verify",
            "content-type: application/vnd.bulla.seal+json\r\n",
            b"{\"bulla\":\"seal/v1\"}",
        ),
        post(1, "/v1/verify/bulk", "content-type: application/json\r\n", bulk.as_bytes()),
        post(1, "/v1/verify/bulk", multipart, form.as_bytes()),
        post(2, "/v1/lock", "", b"{\"reason\":\"x\"}"),
        post(2, "/v1/unlock", "", b"{\"reason\":\"x\"}"),
        post(2, "/v1/erasures", "", b"{\"user\":\"u v\",\"reason\":\"file 7\",\"dryRun\":true}"),
        post(2, "/v1/epochs", "", b""),
        post(2, "/v1/backups", "", b""),
        post(3, "/v1/seals", "authorization: Bearer bulla_x\r\n", b"x"),
    ];
    let chunked =
        "POST /v1/seals HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n%PDF\r\n0\r\n\r\n";
    seeds.push([&[0], chunked.as_bytes()].concat());
    let pages = [
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/checkpoint",
        "/tile/0/000.p/1",
        "/tile/entries/000.p/1",
        "/v1/ca",
        "/v1/status",
        "/v1/events?from=0",
        "/v1/seals?user=u&limit=3",
        "/v1/seals?from=1&to=2&cursor=b1-5",
        "/v1/seals/1-0011223344556677",
        "/v1/seals/0-0011223344556677/seal-file",
        "/v1/queue/0-0011223344556677",
        "/nothing",
    ];
    seeds.extend(pages.iter().map(|path| get(1, path)));
    seeds.push(get(3, "/checkpoint"));
    seeds
}

//! What a box makes of input that no honest client sends: it refuses, seals nothing, and goes on.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::Entry;
use bulla_formats::report::Verdict;
use bulla_tests::rig::{Client, Form, Keys, Rig, RigOptions, Role, TlsVersion, Wire};
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::time::Duration;

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
const SEAL_TYPE: &str = "application/vnd.bulla.seal+json";
const DIGEST_TYPE: &str = "application/vnd.bulla.digest+json";

/// After whatever was done to it, the box is up, seals, and has a sound log.
fn well(mut rig: Rig) -> Result<()> {
    rig.sealer.require_alive()?;
    assert_eq!(rig.client_with(None).get("/healthz")?.status, 200);
    assert_eq!(rig.client_with(None).get("/readyz")?.status, 200);
    let document = b"a document like any other".as_slice();
    let answer = rig.client(Role::Scanner).seal(document)?;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    assert_eq!(rig.judge(&answer.seal()?, document).report.verdict, Verdict::Valid);
    let log = rig.log();
    assert!(!log.contains("panicked"), "a thread of the box panicked:\n{log}");
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

/// `POST /v1/seals` as it goes over the wire, with these more header lines.
fn request(rig: &Rig, headers: &str, body: &[u8]) -> Vec<u8> {
    let token = rig.token(Role::Scanner);
    let head = format!(
        "POST /v1/seals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{headers}Content-Length: \
         {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn bytes_that_are_no_request_are_refused_or_cut_off() -> Result<()> {
    let rig = Rig::start_with(&RigOptions {
        extra: "[limits]\ndocument_bytes_max = 4096\nheader_timeout_seconds = 1\nbody_idle_seconds = 1",
        ..SOFTWARE
    })?;
    let size = rig.log_size()?;
    below_tls(&rig)?;
    let auth = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", rig.token(Role::Scanner));
    let post = format!("POST /v1/seals HTTP/1.1\r\n{auth}");
    let huge = "x".repeat(1 << 20);
    let all = [
        b"\r\n\r\n\r\n\r\n".to_vec(),
        vec![0; 5000],
        (0..=255).cycle().take(100_000).collect(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /healthz\r\n\r\n".to_vec(),
        b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        format!("GET {huge} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: x\r\nA: {huge}\r\n\r\n").into_bytes(),
        format!("{huge} / HTTP/1.1\r\n\r\n").into_bytes(),
        format!("{post}A B: x\r\n\r\n").into_bytes(),
        format!("{post}no colon\r\n\r\n").into_bytes(),
        format!("{post}A: x\0y\r\nContent-Length: 1\r\n\r\nx").into_bytes(),
        format!("{post}Content-Length: -1\r\n\r\nx").into_bytes(),
        format!("{post}Content-Length: 1x\r\n\r\nx").into_bytes(),
        format!("{post}Content-Length: 99999999999999999999999\r\n\r\nx").into_bytes(),
        format!("{post}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxy").into_bytes(),
        format!("{post}Transfer-Encoding: gzip\r\n\r\nx").into_bytes(),
        format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n1\r\nx\r\n0\r\n\r\n").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nx\r\n0\r\n\r\n").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\nxyz\r\n0\r\n\r\n").into_bytes(),
        // Promises that are not kept.
        format!("{post}Content-Length: 10\r\n\r\nnine by").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nab").into_bytes(),
        format!("{post}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n").into_bytes(),
        format!("{post}Content-Type: {}\r\nContent-Length: 500\r\n\r\n--5c1f", Form::CONTENT_TYPE.1)
            .into_bytes(),
        format!("{post}Content-Length: 0\r\n\r\n").into_bytes(),
        format!("{post}\r\n").into_bytes(),
    ];
    // All at the same time: the box may wait for the rest of each.
    std::thread::scope(|scope| {
        let one = |garbage: &[u8], half_close: bool| refused_or_cut_off(&rig, garbage, half_close);
        let threads: Vec<_> = all
            .iter()
            .flat_map(|garbage| [true, false].map(|half_close| scope.spawn(move || one(garbage, half_close))))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap())
    })?;
    assert_eq!(rig.log_size()?, size, "something of that was sealed");

    // A pause inside a body has a limit, with words.
    let mut wire = rig.wire()?;
    wire.send(format!("{post}Content-Length: 10\r\n\r\nhalf").as_bytes())?;
    let answer = wire.answer()?.context("a pause ended without words")?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (408, "body-timeout"));
    // So has one inside the headers, and an idle connection is closed.
    let mut wire = rig.wire()?;
    wire.send(b"GET /healthz HTT")?;
    assert!(wire.answer()?.is_none_or(|answer| answer.status == 408));
    assert!(rig.wire()?.answer()?.is_none());

    headers_and_sizes(&rig)?;
    assert_eq!(rig.log_size()?, size, "something of that was sealed");
    well(rig)
}

/// Nothing comes back, or a refusal.
fn refused_or_cut_off(rig: &Rig, garbage: &[u8], half_close: bool) -> Result<()> {
    let what = String::from_utf8_lossy(&garbage[..garbage.len().min(200)]).into_owned();
    let mut wire = rig.wire()?;
    wire.send(garbage)?;
    if half_close {
        wire.half_close();
    }
    if let Some(answer) = wire.answer().with_context(|| what.clone())? {
        ensure!((400..=505).contains(&answer.status) && answer.status != 500, "{}: {what}", answer.status);
    }
    Ok(())
}

/// The port without TLS, or with something that only begins like it.
fn below_tls(rig: &Rig) -> Result<()> {
    for bytes in [
        &b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        &[0xff; 70_000],
        &[0; 10],
        b"SSH-2.0-x\r\n",
    ] {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, rig.sealer.port()))?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        let _cut_off_already = socket.write_all(bytes);
        let mut answer = Vec::new();
        let _reset = socket.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "an answer without TLS: {bytes:?}");
    }
    // Many that say nothing and hang up.
    for _ in 0..200 {
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, rig.sealer.port()))?);
    }
    Ok(())
}

fn headers_and_sizes(rig: &Rig) -> Result<()> {
    let scanner = rig.client(Role::Scanner);
    let long = "x".repeat(40_000);
    let answer = scanner.post("/v1/seals", &[("Bulla-User", &long)], b"x")?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (431, "headers-too-large"));
    let lines: String = (0..150).map(|number| format!("X-{number}: x\r\n")).collect();
    let mut wire = rig.wire()?;
    wire.send(&request(rig, &lines, b"x"))?;
    assert!(wire.answer()?.is_none_or(|answer| answer.status == 431));

    // One byte too many, announced, in chunks, and in a form.
    let most = vec![b'x'; 4096];
    assert_eq!(scanner.post("/v1/verify", &[], &most)?.status, 200);
    let more = vec![b'x'; 4097];
    let form = Form::new().file("document", "", &more).finish();
    let flood = vec![b'x'; 8 << 20];
    for answer in [
        scanner.post("/v1/seals", &[], &more)?,
        scanner.post_stream("/v1/seals", &[], &mut more.as_slice())?,
        scanner.post("/v1/seals", &[Form::CONTENT_TYPE], &form)?,
        scanner.post_stream("/v1/seals", &[Form::CONTENT_TYPE], &mut form.as_slice())?,
        scanner.post("/v1/verify", &[], &more)?,
        scanner.post("/v1/verify", &[Form::CONTENT_TYPE], &form)?,
        scanner.post("/v1/seals", &[("Content-Type", DIGEST_TYPE)], &flood[..2 << 20])?,
        rig.client(Role::Operator).post("/v1/epochs", &[], &flood[..2 << 20])?,
    ] {
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 413, "{text}");
        assert_eq!(answer.problem()?, "too-large", "{text}");
    }
    // Far too much may end in a broken connection, never in a seal.
    for answer in [
        scanner.post_stream("/v1/seals", &[], &mut flood.as_slice()),
        scanner.post("/v1/verify", &[("Content-Type", SEAL_TYPE)], &flood[..5 << 20]),
    ] {
        assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 413));
    }
    Ok(())
}

#[test]
fn g3_an_upload_cut_anywhere_and_sent_again_is_sealed_once() -> Result<()> {
    const CUTS: usize = 40;
    let rig = Rig::start_with(&SOFTWARE)?;
    let scanner = rig.client(Role::Scanner);
    let size = rig.log_size()?;
    for number in 0..=CUTS {
        let document: Vec<u8> = format!("document {number} ").into_bytes().repeat(400);
        let key = format!("cut {number}");
        let bytes = request(&rig, &format!("Idempotency-Key: {key}\r\n"), &document);
        let cut = bytes.len() * number / CUTS;
        let mut wire = rig.wire()?;
        wire.send(&bytes[..cut])?;
        wire.cut(number % 2 == 0)?;
        let answer = scanner.post("/v1/seals", &[("Idempotency-Key", &key)], &document)?;
        // Only a request that arrived whole may have been sealed before.
        let first = answer.status == 201 || (answer.status == 200 && number == CUTS);
        assert!(first, "cut at {cut} of {}: {}", bytes.len(), String::from_utf8_lossy(&answer.body));
        assert_eq!(rig.judge(&answer.seal()?, &document).report.verdict, Verdict::Valid);
        let known = scanner.post("/v1/verify", &[], &document)?.json()?;
        assert_eq!(known["seals"], json!([answer.json()?["id"]]), "cut at {cut}");
    }
    assert_eq!(rig.log_size()?, size + CUTS as u64 + 1);

    // Two requests in one breath are two requests; what follows a whole one is not part of it.
    let mut wire = rig.wire()?;
    wire.send(&[request(&rig, "", b"first"), request(&rig, "", b"second")].concat())?;
    for document in [&b"first"[..], b"second"] {
        let answer = wire.answer()?.context("no answer")?;
        assert_eq!(rig.judge(&answer.seal()?, document).report.verdict, Verdict::Valid);
    }
    // Where two lengths are given, at most one reading is sealed, and nothing is left to be read as a request.
    let token = rig.token(Role::Scanner);
    let smuggled = format!(
        "POST /v1/seals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Length: 4\r\n\
         Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    );
    let size = rig.log_size()?;
    let mut wire = rig.wire()?;
    wire.send(&[smuggled.as_bytes(), &request(&rig, "", b"smuggled")].concat())?;
    let answer = wire.answer()?;
    if let Some(answer) = &answer
        && answer.status == 201
    {
        assert_eq!(rig.judge(&answer.seal()?, b"abc").report.verdict, Verdict::Valid);
    }
    drop(wire);
    assert!(rig.log_size()? <= size + 2);
    well(rig)
}

#[test]
fn requests_that_say_nonsense_are_refused_with_words() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let scanner = rig.client(Role::Scanner);
    let made = scanner.seal(b"a document")?;
    let size = rig.log_size()?;
    routes(&rig)?;
    ids(&rig, &scanner, made.json()?["id"].as_str().context("a receipt has an id")?)?;
    headers(&rig)?;
    orders(&scanner)?;
    assert_eq!(rig.log_size()?, size, "nonsense was sealed");
    limits(&scanner)?;
    seals(&scanner, &made.seal()?.encode())?;
    well(rig)
}

fn routes(rig: &Rig) -> Result<()> {
    for path in [
        "/console",
        "/console/",
        "/console/../people.json",
        "/console/nothing.js",
        "/v1",
        "/v1/",
        "/v1/seals/",
        "/v2/seals",
        "/v1/seals/1/seal-file/x",
        "/V1/status",
        "/v1//status",
        "/healthz/",
        "/admin",
        "/../etc/passwd",
        "/%2e%2e/etc/passwd",
        "/tile",
        "/tiles/0/000",
        "/v1/ca.der",
        "/v1/status%00",
        "/favicon.ico",
    ] {
        let answer = rig.client(Role::Operator).get(path)?;
        assert_eq!(answer.status, 404, "{path}");
        assert!(
            ["not-found", "unknown-tile", "unknown-seal"].contains(&answer.problem()?.as_str()),
            "{path}"
        );
    }
    for (path, allowed) in [
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
        ("/checkpoint", "GET"),
        ("/tile/0/000", "GET"),
        ("/v1/ca", "GET"),
        ("/v1/status", "GET"),
        ("/v1/seals/0-0", "GET"),
        ("/v1/seals/0-0/seal-file", "GET"),
        ("/v1/seals", "GET, POST"),
        ("/v1/verify", "POST"),
        ("/v1/epochs", "POST"),
        ("/v1/queue/0-0000000000000000", "GET"),
        ("/v1/lock", "POST"),
        ("/v1/unlock", "POST"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            if allowed.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let mut wire = rig.wire()?;
            let token = rig.token(Role::Operator);
            wire.send(
                format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
                     Content-Length: 0\r\n\r\n"
                )
                .as_bytes(),
            )?;
            let answer = wire.answer()?.with_context(|| format!("{method} {path}"))?;
            assert_eq!(
                (answer.status, answer.problem()?.as_str()),
                (405, "method-not-allowed"),
                "{method} {path}"
            );
            let allow = answer.header("allow");
            assert!(
                allowed.split(", ").all(|each| allow.contains(each)),
                "{method} {path}: {}",
                answer.header("allow")
            );
        }
    }
    Ok(())
}

fn ids(rig: &Rig, scanner: &Client, good: &str) -> Result<()> {
    let (index, hash) = good.split_once('-').context("an id has two parts")?;
    let huge = "9".repeat(30_000);
    let all = [
        index.to_owned(),
        hash.to_owned(),
        format!("{index}-"),
        format!("-{hash}"),
        format!("-{index}-{hash}"),
        format!("0{index}-{hash}"),
        format!("+{index}-{hash}"),
        format!("%20{index}-{hash}"),
        format!("{index}-{hash}%20"),
        format!("{index}-{hash}%00"),
        format!("{index}-{hash}0"),
        format!("{index}-{}", &hash[..15]),
        format!("{index}_{hash}"),
        format!("{index}--{hash}"),
        format!("{index}-0{}", &hash[1..]).replace(&format!("-{hash}"), "-x"),
        format!("{index}-{}", "0".repeat(16)),
        format!("99999-{hash}"),
        format!("18446744073709551615-{hash}"),
        format!("18446744073709551616-{hash}"),
        format!("{huge}-{hash}"),
        format!("0x{index}-{hash}"),
        format!("{index}.0-{hash}"),
        "..%2f..%2fkeys.json".to_owned(),
        "%ff%fe".to_owned(),
        "%F0%9F%92%A9".to_owned(),
        "-".to_owned(),
        "null".to_owned(),
    ];
    for id in all.iter().filter(|id| id.as_str() != good) {
        for path in [format!("/v1/seals/{id}"), format!("/v1/seals/{id}/seal-file")] {
            let answer = scanner.get(&path)?;
            let short = &path[..path.len().min(80)];
            assert!(matches!(answer.status, 400 | 404), "{short}: {}", answer.status);
            let problem = answer.problem().with_context(|| short.to_owned())?;
            assert!(["unknown-seal", "invalid-request"].contains(&problem.as_str()), "{short}: {problem}");
        }
    }
    if hash.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        let shouted = format!("/v1/seals/{index}-{}", hash.to_uppercase());
        assert_eq!(scanner.get(&shouted)?.problem()?, "unknown-seal");
    }
    // The log's own entries have ids of the same form, and are no seals.
    let seal = scanner.get(&format!("/v1/seals/{good}"))?.seal()?;
    let epoch = Entry::decode(&seal.epoch)?;
    let leaf = epoch.leaf_hash().to_string();
    let answer = scanner.get(&format!("/v1/seals/{}-{}", epoch.content().index, &leaf[..16]))?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (404, "unknown-seal"));
    let tile = rig.client(Role::Reader).get("/tile/0/%ff")?;
    assert!(matches!(tile.status, 400 | 404), "{}", tile.status);
    tile.problem().map(drop)
}

fn headers(rig: &Rig) -> Result<()> {
    for lines in [
        "Bulla-User: %\r\n",
        "Bulla-User: %2\r\n",
        "Bulla-User: %zz\r\n",
        "Bulla-User: %C3\r\n",
        "Bulla-User: %C3%28\r\n",
        "Bulla-User: %FF\r\n",
        "Bulla-User: J\u{fc}rgen\r\n",
        "Bulla-User:\r\n",
        "Bulla-User: a\r\nBulla-User: a\r\n",
        "Bulla-Document-Id: %G0\r\n",
        "Bulla-Document-Id: a\r\nBulla-Document-Id: b\r\n",
        "Bulla-Metadata: novalue\r\n",
        "Bulla-Metadata: a%3D1\r\n",
        "Bulla-Metadata: %=1\r\n",
        "Bulla-Metadata: a=1\r\nBulla-Metadata: a=1\r\n",
        "Bulla-Metadata: a=1\r\nBulla-Metadata: %61=2\r\n",
        "Bulla-Supersedes: not an id\r\n",
        "Content-Type: pdf\r\n",
        "Content-Type: /\r\n",
        "Content-Type: \u{fc}/x\r\n",
        "Content-Type:\r\n",
        "Idempotency-Key:\r\n",
        "Idempotency-Key: a\r\nIdempotency-Key: a\r\n",
        "Content-Digest: sha-256=:AAAA:\r\n",
        "Content-Digest: \u{fc}\r\n",
    ] {
        let mut wire = rig.wire()?;
        wire.send(&request(rig, lines, b"a document"))?;
        let answer = wire.answer()?.with_context(|| format!("no answer to {lines:?}"))?;
        assert_eq!(answer.status, 400, "{lines:?}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.problem()?, "invalid-request", "{lines:?}");
    }
    let scanner = rig.client(Role::Scanner);
    for encoding in ["gzip", "br", "identity, gzip", "x"] {
        let answer = scanner.post("/v1/seals", &[("Content-Encoding", encoding)], b"x")?;
        assert_eq!(
            (answer.status, answer.problem()?.as_str()),
            (415, "unsupported-media-type"),
            "{encoding}"
        );
    }
    for query in [
        "wait=mirrored",
        "wait=attested&wait=attested",
        "deadlineSeconds=61",
        "deadlineSeconds=-1",
        "deadlineSeconds=x",
        "digest=md5",
        "digest=SHA-256",
        "bogus=1",
        "wait",
        "%",
        "wait=%ff",
        "&&=",
    ] {
        let answer = scanner.post(&format!("/v1/seals?{query}"), &[], b"x")?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid-request"), "?{query}");
    }
    Ok(())
}

fn orders(scanner: &Client) -> Result<()> {
    let digest = "00".repeat(32);
    let with =
        |more: &str| format!("{{\"algorithm\": \"sha-256\", \"digest\": \"{digest}\"{more}}}").into_bytes();
    let deep = |open: &str, close: &str| {
        let (open, close) = (open.repeat(50_000), close.repeat(50_000));
        with(&format!(", \"metadata\": {open}{close}"))
    };
    for bad in [
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\"x\"".to_vec(),
        b"{}".to_vec(),
        b"\xff\xfe{}".to_vec(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"[".repeat(200_000),
        b"{\"a\":".repeat(100_000),
        deep("{\"a\":", "}"),
        deep("[", "]"),
        with(", \"bogus\": 1"),
        with(", \"Digest\": \"00\""),
        with(", \"algorithm\": \"sha-256\""),
        with(&format!(", \"digest\": \"{digest}\"")),
        with(", \"size\": \"5\""),
        with(", \"size\": 5.5"),
        with(", \"size\": -5"),
        with(", \"size\": 1e3"),
        with(", \"size\": 99999999999999999999999999"),
        with(", \"user\": 1"),
        with(", \"user\": \"\""),
        with(", \"documentId\": \"\""),
        with(", \"user\": \"\\ud800\""),
        with(", \"user\": \"a\", \"user\": \"a\""),
        with(", \"mediaType\": \"\""),
        with(", \"mediaType\": \"pdf\""),
        with(", \"metadata\": []"),
        with(", \"metadata\": null"),
        with(", \"metadata\": {\"a\": 1}"),
        with(", \"metadata\": {\"a\": null}"),
        with(", \"metadata\": {\"a\": \"1\", \"a\": \"1\"}"),
        with(", \"supersedes\": \"x\""),
        with(", \"supersedes\": [1]"),
        with(", \"supersedes\": [\"not an id\"]"),
        [with(""), b"x".to_vec()].concat(),
        [with(""), with("")].concat(),
        format!("{{\"algorithm\": \"sha-512\", \"digest\": \"{digest}\"}}").into_bytes(),
        format!("{{\"algorithm\": \"md5\", \"digest\": \"{}\"}}", &digest[..32]).into_bytes(),
        format!("{{\"algorithm\": \"sha-256\", \"digest\": \"{}\"}}", &digest[1..]).into_bytes(),
        format!("{{\"algorithm\": \"sha-256\", \"digest\": \"{}g\"}}", &digest[1..]).into_bytes(),
        format!("{{\"digest\": \"{digest}\"}}").into_bytes(),
    ] {
        let answer = scanner.post("/v1/seals", &[("Content-Type", DIGEST_TYPE)], &bad)?;
        let text = String::from_utf8_lossy(&bad[..bad.len().min(150)]);
        assert_eq!(answer.status, 400, "{text}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.problem()?, "invalid-request", "{text}");
    }
    let empty = scanner.post("/v1/seals", &[("Content-Type", DIGEST_TYPE)], &with(", \"size\": 0"))?;
    assert_eq!((empty.status, empty.problem()?.as_str()), (400, "empty-document"));
    for empty in [scanner.post("/v1/seals", &[], b"")?, scanner.post("/v1/verify", &[], b"")?] {
        assert_eq!((empty.status, empty.problem()?.as_str()), (400, "empty-document"));
    }
    Ok(())
}

/// The counts and lengths of the format: at the limit it is sealed, beyond it nothing is.
fn limits(scanner: &Client) -> Result<()> {
    let order = |members: serde_json::Value| {
        let mut order = json!({"algorithm": "sha-256", "digest": "00".repeat(32)});
        for (name, value) in members.as_object().unwrap() {
            order[name] = value.clone();
        }
        scanner.seal_digest(&order, &[])
    };
    let metadata = |count: usize| -> serde_json::Value {
        (0..count)
            .map(|number| (format!("name {number}"), json!("value")))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let all = order(json!({"user": "u", "documentId": "d", "metadata": metadata(62)}))?;
    assert_eq!((all.status, all.seal()?.openings.len()), (201, 64));
    for good in [
        json!({"metadata": {"n".repeat(128): "v"}}),
        json!({"metadata": {"n": "v".repeat(8192)}}),
        json!({"user": "\u{0}\r\n\u{202e}"}),
        json!({"size": i64::MAX}),
        json!({"mediaType": format!("a/{}", "b".repeat(253))}),
    ] {
        let answer = order(good.clone())?;
        assert_eq!(answer.status, 201, "{good}: {}", String::from_utf8_lossy(&answer.body));
    }
    for (bad, statuses) in [
        (json!({"metadata": metadata(63)}), [422, 422]),
        (json!({"metadata": metadata(70)}), [422, 422]),
        (json!({"metadata": {"n".repeat(129): "v"}}), [422, 422]),
        (json!({"metadata": {"": "v"}}), [400, 422]),
        (json!({"metadata": {"n": "v".repeat(8193)}}), [422, 422]),
        (json!({"user": "v".repeat(8193)}), [422, 422]),
        (json!({"size": i64::MAX as u64 + 1}), [400, 422]),
        (json!({"mediaType": format!("a/{}", "b".repeat(254))}), [400, 422]),
        (json!({"supersedes": vec!["ab".repeat(32); 17]}), [422, 422]),
    ] {
        let answer = order(bad.clone())?;
        let text = String::from_utf8_lossy(&answer.body);
        assert!(statuses.contains(&answer.status), "{}: {text}", &bad.to_string()[..80]);
        let slug = if answer.status == 422 { "invalid-seal" } else { "invalid-request" };
        assert_eq!(answer.problem()?, slug);
    }
    let headers: Vec<_> = (0..70).map(|number| format!("n{number}=v")).collect();
    let headers: Vec<_> = headers.iter().map(|value| ("Bulla-Metadata", value.as_str())).collect();
    let answer = scanner.post("/v1/seals", &headers, b"x")?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (422, "invalid-seal"));
    Ok(())
}

/// Evidence that was tampered with is never valid, and never more than a report.
fn seals(scanner: &Client, good: &str) -> Result<()> {
    let judge = |seal: &[u8]| -> Result<String> {
        let answer = scanner.post("/v1/verify", &[("Content-Type", SEAL_TYPE)], seal)?;
        ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        Ok(answer.json()?["verdict"].as_str().context("a report has a verdict")?.to_owned())
    };
    assert_eq!(judge(good.as_bytes())?, "seal-only");
    let refused = |seal: &[u8], what: &str| -> Result<()> {
        let verdict = judge(seal)?;
        ensure!(verdict == "refused" || verdict == "not-understood", "{what} is {verdict}");
        Ok(())
    };
    for at in (0..good.len()).step_by(97) {
        let mut bent = good.as_bytes().to_vec();
        bent[at] ^= 1;
        refused(&bent, &format!("the seal with byte {at} flipped"))?;
        refused(&good.as_bytes()[..at], &format!("the seal cut at {at}"))?;
    }
    let body = good.trim_end().strip_suffix('}').context("a seal is an object")?;
    let deep = format!("{body}, \"later\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (bent, what) in [
        (format!("{body}, \"bulla\": \"seal/v1\"}}"), "a member twice"),
        (format!("{body}, \"later\": 1, \"later\": 2}}"), "an unknown member twice"),
        (format!("{body}, \"critical\": [\"later\"], \"later\": 1}}"), "a critical member that is not known"),
        (deep, "a deep seal"),
        (format!("{good}{good}"), "two seals"),
        (format!("{good}x"), "a seal with a tail"),
        (format!("\u{feff}{good}"), "a seal with a byte order mark"),
        (good.replacen("\"heads\": [", "\"heads\": [{},", 1), "an empty head"),
        (String::new(), "nothing"),
        ("{}".to_owned(), "an empty object"),
        ("[".repeat(100_000), "a deep list"),
    ] {
        refused(bent.as_bytes(), what)?;
    }
    refused(b"\xff\xfe\x00", "no text")?;
    refused(&vec![b' '; 4 << 20], "four megabytes of nothing")
}

/// Scanners send megabytes before they listen; over HTTP/2 a reset stream would take the answer with it.
#[test]
fn a_refused_upload_hears_why() -> Result<()> {
    let rig = Rig::start_with(&RigOptions { extra: "[limits]\ndocument_bytes_max = 8388608", ..SOFTWARE })?;
    let document = rig.directory().join("large.tiff");
    std::fs::write(&document, vec![0x49; 32 << 20])?;
    let scanner = format!("Authorization: Bearer {}", rig.token(Role::Scanner));
    let reader = format!("Authorization: Bearer {}", rig.token(Role::Reader));
    for (http, chunked) in [("--http2", false), ("--http2", true), ("--http1.1", false)] {
        for (credential, status) in [(&scanner, 413), (&reader, 403), (&"X-None: x".to_owned(), 401)] {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--noproxy", "*", "--max-time", "60", "--write-out", "%{http_code}"])
                .args(["--output", "/dev/null", http, "--header", credential, "--request", "POST"])
                .arg("--cacert")
                .arg(rig.file("ca.pem"))
                .arg(format!("{}/v1/seals", rig.sealer.url()));
            if chunked {
                curl.args(["--upload-file", "-"]).stdin(std::fs::File::open(&document)?);
            } else {
                curl.arg("--data-binary").arg(format!("@{}", document.display()));
            }
            let output = curl.output().context("curl is needed")?;
            let told = String::from_utf8(output.stdout)?;
            assert_eq!(told, status.to_string(), "{http}, chunked {chunked}: {}", output.status);
        }
    }
    well(rig)
}

#[test]
fn tls_1_2_is_accepted_only_where_it_was_asked_for() -> Result<()> {
    let ask = |rig: &Rig, version: TlsVersion| Wire::open(rig.sealer.port(), rig.ca_pem(), version);
    let rig = Rig::start_with(&SOFTWARE)?;
    assert!(ask(&rig, TlsVersion::V1_2).is_err(), "TLS 1.2 was accepted");
    ask(&rig, TlsVersion::V1_3)?;
    well(rig)?;
    let rig = Rig::start_with(&RigOptions { extra: "[tls]\nmin_version = \"1.2\"", ..SOFTWARE })?;
    for (version, transport) in
        [(TlsVersion::V1_2, "https/1.1 tls1.2"), (TlsVersion::V1_3, "https/1.1 tls1.3")]
    {
        let mut wire = ask(&rig, version)?;
        wire.send(&request(&rig, "", b"a document"))?;
        let answer = wire.answer()?.context("no answer")?;
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        let entry = Entry::decode(&answer.seal()?.entry)?;
        assert_eq!(SealBody::decode(&entry.content().body)?.transport, transport);
    }
    well(rig)
}

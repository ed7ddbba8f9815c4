//! Who may do what on a real box: every row of the table in `docs/api.md`, for every kind of caller.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{Client as SealedClient, ClientMethod, SealBody};
use bulla_formats::entry::Entry;
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::{Client, Keys, Response, Rig, RigOptions, Role};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
/// A token of the right form that nobody was given.
const GARBAGE: &str = "bulla_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Method, path, media type and body of a request, and the status that each kind of caller gets.
type Row<'a> = (&'a str, &'a str, &'a str, &'a [u8], [u16; 6]);
const OPEN: [u16; 6] = [200; 6];

fn sealed_client(seal: &SealFile) -> SealedClient {
    SealBody::decode(&Entry::decode(&seal.entry).unwrap().content().body).unwrap().client
}

fn openings(answer: &Response) -> usize {
    let json = answer.json().unwrap();
    let seal = if json["bulla"].is_string() { &json } else { &json["seal"] };
    seal["openings"].as_array().unwrap().len()
}

#[test]
fn every_route_lets_in_whom_the_table_says() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let revoked = rig.add_client("scanner-gone", "scanner")?;
    rig.run(&["scanner", "revoke", "--name", "scanner-gone"])?;
    let callers: [(&str, Client); 6] = [
        ("nobody", rig.client_with(None)),
        ("garbage", rig.client_with(Some(GARBAGE))),
        ("revoked", rig.client_with(Some(&revoked))),
        ("scanner", rig.client(Role::Scanner)),
        ("reader", rig.client(Role::Reader)),
        ("operator", rig.client(Role::Operator)),
    ];
    let made = rig.client(Role::Scanner).seal(b"a document")?.json()?;
    let seal = made["links"]["self"].as_str().context("a receipt has a link to itself")?;
    let seal_file = made["links"]["sealFile"].as_str().context("and one to its file")?;
    let anchor = format!("{seal}/anchor");
    let before = rig.log_size()?;
    let any = [401, 401, 401, 200, 200, 200];
    let table: Vec<Row<'_>> = vec![
        ("GET", "/healthz", "", b"", OPEN),
        ("GET", "/readyz", "", b"", OPEN),
        ("GET", "/v1/ca", "", b"", OPEN),
        ("GET", "/v1/ca.pem", "", b"", OPEN),
        ("GET", "/checkpoint", "", b"", OPEN),
        ("GET", "/tile/0/000.p/1", "", b"", OPEN),
        ("GET", "/tile/entries/000.p/1", "", b"", OPEN),
        ("POST", "/v1/seals", "application/pdf", b"more", [401, 401, 401, 201, 403, 403]),
        ("GET", "/v1/reconciled", "", b"", [401, 401, 401, 403, 200, 200]),
        ("GET", "/v1/seals", "", b"", any),
        ("GET", "/v1/seals?client=scanner-1", "", b"", [401, 401, 401, 200, 200, 200]),
        ("GET", "/v1/seals?client=scanner-2&limit=5", "", b"", [401, 401, 401, 403, 200, 200]),
        ("GET", "/v1/seals?documentId=x", "", b"", any),
        ("GET", seal, "", b"", any),
        ("GET", seal_file, "", b"", any),
        ("POST", "/v1/verify", "application/pdf", b"a document", any),
        (
            "POST",
            "/v1/verify/bulk",
            "application/json",
            b"{\"digests\": [{\"algorithm\": \"\", \"digest\": \"\"}]}",
            any,
        ),
        ("GET", "/openapi.json", "", b"", OPEN),
        ("GET", "/verify", "", b"", OPEN),
        ("GET", "/v1/status", "", b"", any),
        ("GET", "/metrics", "", b"", [401, 401, 401, 403, 200, 200]),
        (
            "POST",
            "/v1/erasures",
            "application/json",
            b"{\"user\": \"nobody\", \"reason\": \"table\"}",
            [401, 401, 401, 403, 403, 200],
        ),
        (
            "POST",
            "/v1/epochs",
            "application/json",
            b"{\"reason\": \"table\"}",
            [401, 401, 401, 403, 403, 201],
        ),
        ("POST", "/v1/backups", "", b"", [401, 401, 401, 403, 403, 409]),
        ("POST", "/v1/self-tests", "", b"", [401, 401, 401, 403, 403, 200]),
        ("POST", "/v1/lock", "", b"{\"reason\": \"table\"}", [401, 401, 401, 403, 403, 200]),
        ("POST", "/v1/unlock", "", b"{\"reason\": \"table\"}", [401, 401, 401, 403, 403, 200]),
        ("GET", "/v1/manifests", "", b"", any),
        ("POST", &anchor, "", b"", [401, 401, 401, 202, 403, 202]),
        (
            "POST",
            "/v1/drills",
            "application/json",
            b"{\"kind\": \"wan-down\", \"seconds\": 1}",
            [401, 401, 401, 403, 403, 409],
        ),
        ("POST", "/v1/drills/stop", "", b"", [401, 401, 401, 403, 403, 200]),
        ("POST", "/v1/roster", "application/json", b"{\"roster\": \"MAA=\"}", [401, 401, 401, 403, 403, 422]),
        ("POST", "/v1/leases", "application/json", b"{\"lease\": \"MAA=\"}", [401, 401, 401, 403, 403, 422]),
        ("POST", "/api/documents/post_document/", "", b"", [401, 401, 401, 404, 403, 403]),
        ("GET", "/api/tasks/", "", b"", [401, 401, 401, 404, 404, 404]),
    ];
    for (method, path, media_type, body, wanted) in table {
        for ((caller, client), wanted) in callers.iter().zip(wanted) {
            let what = format!("{caller}: {method} {path}");
            let headers = [("Content-Type", media_type)];
            let answer = match method {
                "GET" => client.get(path)?,
                _ => client.post(path, &headers, body)?,
            };
            let text = String::from_utf8_lossy(&answer.body);
            assert_eq!(answer.status, wanted, "{what}: {text}");
            if wanted >= 400 {
                let slug = match wanted {
                    401 => "unauthenticated",
                    404 => "no-drop",
                    409 if path == "/v1/drills" => "drill-refused",
                    422 if path == "/v1/roster" => "roster-refused",
                    422 => "lease-refused",
                    409 => "backup-unavailable",
                    _ => "forbidden",
                };
                assert_eq!(answer.problem()?, slug, "{what}");
                let path = path.split('?').next().unwrap();
                assert_eq!(answer.json()?["instance"], path, "{what}");
            }
            let scheme = if path.starts_with("/api/") { "Basic" } else { "Bearer" };
            let challenge = answer.header("www-authenticate").starts_with(scheme);
            assert_eq!(challenge, wanted == 401, "{what}: WWW-Authenticate");
            if method == "GET" {
                let head = client.send("HEAD", path, &[], ())?;
                assert_eq!((head.status, head.body.len()), (wanted, 0), "{what}, as HEAD");
                assert_eq!(head.content_type, answer.content_type, "{what}, as HEAD");
            }
        }
    }
    // One document, three operator's acts, the epoch that one began and the modes that two changed, a self-test's seal and
    // its result: none of the refused had anything done.
    assert_eq!(rig.log_size()?, before + 9);
    Ok(())
}

#[test]
fn g5_identities_and_openings_stay_with_whom_they_belong_to() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let (own, reader) = (rig.client(Role::Scanner), rig.client(Role::Reader));
    let other_token = rig.add_client("scanner-2", "scanner")?;
    let other = rig.client_with(Some(&other_token));

    // Who sealed is whom the box registered, whatever the request says.
    let headers = [
        ("Content-Type", "application/pdf"),
        ("Idempotency-Key", "k"),
        ("Bulla-User", "J%C3%BCrgen"),
        ("Bulla-Client", "somebody-else"),
        ("X-Client-Id", "somebody-else"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-SSL-Client-CN", "somebody-else"),
        ("From", "somebody-else"),
    ];
    let made = own.post("/v1/seals", &headers, b"a private document")?;
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    let wanted = SealedClient { id: "scanner-1".into(), method: ClientMethod::BearerToken };
    assert_eq!(sealed_client(&made.seal()?), wanted);
    assert_eq!(openings(&made), 1);

    // Openings: to their scanner and to readers; what the others get verifies all the same.
    let path = made.location.clone().context("201 has a Location")?;
    for path in [path.clone(), format!("{path}/seal-file")] {
        for (client, count) in [(&own, 1), (&other, 0), (&reader, 1), (&rig.client(Role::Operator), 1)] {
            let answer = client.get(&path)?;
            assert_eq!((answer.status, openings(&answer)), (200, count), "{path}");
            let judged = rig.judge(&answer.seal()?, b"a private document");
            assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
            let told = String::from_utf8_lossy(&answer.body).contains("J\u{fc}rgen");
            assert_eq!(told, count == 1 && !path.ends_with("seal-file"), "{path}");
        }
    }

    // Somebody else's idempotency key is no way to somebody else's seal.
    let again = other.post("/v1/seals", &headers, b"a private document")?;
    assert_eq!(again.status, 201);
    assert_ne!(again.json()?["id"], made.json()?["id"]);
    assert_eq!(sealed_client(&again.seal()?).id, "scanner-2");

    // No personal data in what is open to everybody, nor in the box's own log.
    let size = rig.log_size()?;
    let bundle = rig.client_with(None).get(&format!("/tile/entries/000.p/{size}"))?;
    assert_eq!(bundle.status, 200);
    assert!(!bundle.body.windows(4).any(|bytes| bytes == b"rgen"), "the user's name is in the log");
    assert!(!rig.log().contains("rgen"), "the user's name is in the box's own log");
    assert!(!rig.log().contains(rig.token(Role::Scanner)), "a token is in the box's own log");

    // Revocation counts from the next request on, also on a connection that is open.
    assert_eq!(other.get("/v1/status")?.status, 200);
    rig.run(&["scanner", "revoke", "--name", "scanner-2"])?;
    let refused = other.get("/v1/status")?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (401, "unauthenticated"));
    assert_eq!(own.get("/v1/status")?.status, 200);
    // The name is not given again, and a second revocation says so.
    for arguments in
        [&["scanner", "add", "--name", "scanner-2"][..], &["scanner", "revoke", "--name", "scanner-2"]]
    {
        let output = rig.try_run(arguments)?;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("scanner-2"), "{arguments:?}");
    }
    // A client added while the box runs is in at once, and stays in after a restart.
    let late = rig.add_client("late", "reader")?;
    assert_eq!(rig.client_with(Some(&late)).get("/v1/status")?.status, 200);
    rig.sealer.stop()?;
    rig.sealer.start()?;
    assert_eq!(rig.client_with(Some(&late)).get("/v1/status")?.status, 200);
    assert_eq!(rig.client_with(Some(&other_token)).get("/v1/status")?.status, 401);

    // Spellings of a credential that are none.
    let nobody = rig.client_with(None);
    let token = rig.token(Role::Reader);
    for value in [
        token.to_owned(),
        "Bearer".to_owned(),
        format!("Bearer  {token}"),
        format!("Bearer {token} "),
        format!("Bearer {}", token.to_uppercase()),
        format!("Bearer {}", &token[..token.len() - 1]),
        format!("Bearer {token}x"),
        format!("Basic {token}"),
        format!("Bearer {token}, Bearer {token}"),
        format!("Token {token}"),
    ] {
        let answer = nobody.send("GET", "/v1/status", &[("Authorization", &value)], ())?;
        let wanted = if value.trim_end().ends_with(&format!("Bearer {token}")) && !value.contains(',') {
            200 // A space at the end of a header is no part of it.
        } else {
            401
        };
        assert_eq!(answer.status, wanted, "{value:?}");
    }
    let lower = nobody.send("GET", "/v1/status", &[("authorization", &format!("bearer {token}"))], ())?;
    assert_eq!(lower.status, 200, "the scheme is case-insensitive");

    // Without its list of clients the box lets nobody in, and says so.
    std::fs::write(rig.state().join("clients.json"), b"{")?;
    let locked = own.get("/v1/status")?;
    assert_eq!((locked.status, locked.problem()?.as_str()), (503, "locked"));
    assert_eq!(nobody.get("/healthz")?.status, 200);
    rig.sealer.require_alive()
}

/// A directory with a CA for client certificates.
struct Authority {
    directory: PathBuf,
}

impl Authority {
    fn create(directory: &Path, name: &str) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let authority = Authority { directory: directory.to_owned() };
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
            "-subj",
            &subject,
        ])?;
        Ok(authority)
    }

    /// Makes `FILE.pem` and `FILE.key` for a client with this common name.
    fn issue(&self, file: &str, common_name: &str) -> Result<()> {
        let (key, request, certificate) =
            (format!("{file}.key"), format!("{file}.csr"), format!("{file}.pem"));
        let subject = format!("/O=Bulla tests/CN={common_name}");
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            &subject,
        ])?;
        std::fs::write(self.directory.join("extensions"), "extendedKeyUsage = clientAuth\n")?;
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "30",
            "-out",
            &certificate,
            "-extfile",
            "extensions",
        ])
    }

    fn openssl(&self, arguments: &[&str]) -> Result<()> {
        let output = Command::new("openssl").args(arguments).current_dir(&self.directory).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Status and JSON of a request made with a certificate; `None` when the connection was refused.
    fn curl(&self, rig: &Rig, file: &str, path: &str, more: &[&str]) -> Result<Option<(u16, Value)>> {
        let output = Command::new("curl")
            .args(["--silent", "--noproxy", "*", "--max-time", "60", "--write-out", "\n%{http_code}"])
            .arg("--cacert")
            .arg(rig.file("ca.pem"))
            .args(["--cert", &format!("{file}.pem"), "--key", &format!("{file}.key")])
            .args(more)
            .arg(format!("{}{path}", rig.sealer.url()))
            .current_dir(&self.directory)
            .output()
            .context("curl is needed")?;
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("curl writes the status last")?;
        let status: u16 = status.parse()?;
        if status == 0 {
            ensure!(!output.status.success(), "no status, but curl is content");
            return Ok(None);
        }
        Ok(Some((status, serde_json::from_str(body).unwrap_or(Value::Null))))
    }
}

#[test]
fn client_certificates_stand_for_registered_names() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let good = Authority::create(&directory.path().join("good"), "Clients of the branch")?;
    let evil = Authority::create(&directory.path().join("evil"), "Clients of the branch")?;
    good.issue("mfp", "MFP 7, 2nd floor")?;
    good.issue("stranger", "stranger")?;
    good.issue("auditor", "auditor.branch.example")?;
    evil.issue("mfp", "MFP 7, 2nd floor")?;
    let extra = format!("[tls]\nclient_ca = {:?}", good.directory.join("ca.pem"));
    let rig = Rig::start_with(&RigOptions { extra: &extra, ..SOFTWARE })?;
    rig.run(&["scanner", "add", "--name", "mfp-7", "--certificate", "MFP 7, 2nd floor"])?;
    let auditor = ["--certificate", "auditor.branch.example", "--role", "reader"];
    rig.run(&[&["scanner", "add", "--name", "auditor"], &auditor[..]].concat())?;

    let seal = ["--header", "Content-Type: application/pdf", "--data-binary", "a document"];
    let (status, receipt) = good.curl(&rig, "mfp", "/v1/seals", &seal)?.context("refused")?;
    assert_eq!(status, 201, "{receipt}");
    let sealed = SealFile::decode(receipt["seal"].to_string().as_bytes())?;
    let wanted = SealedClient { id: "mfp-7".into(), method: ClientMethod::ClientCertificate };
    assert_eq!(sealed_client(&sealed), wanted);
    assert_eq!(rig.judge(&sealed, b"a document").report.verdict, Verdict::Valid);
    let path = receipt["links"]["self"].as_str().unwrap();
    let (status, shown) = good.curl(&rig, "auditor", path, &[])?.context("refused")?;
    assert_eq!((status, &shown["document"]["clientMethod"]), (200, &json!("client-certificate")));
    assert_eq!(good.curl(&rig, "auditor", "/v1/seals", &seal)?.map(|found| found.0), Some(403));
    // The reconciled view is for hubs, neighbours and auditors, by certificate too.
    for (certificate, status) in [("auditor", 200), ("mfp", 403), ("stranger", 401)] {
        let view = good.curl(&rig, certificate, "/v1/reconciled", &[])?;
        assert_eq!(view.map(|found| found.0), Some(status), "{certificate}");
    }

    // A good certificate of a name that nobody registered, and a good name under another CA.
    let (status, problem) = good.curl(&rig, "stranger", "/v1/status", &[])?.context("refused")?;
    assert_eq!((status, &problem["type"]), (401, &json!("urn:bulla:problem:unauthenticated")));
    let foreign = evil.curl(&rig, "mfp", "/v1/status", &[])?;
    assert!(foreign.as_ref().is_none_or(|found| found.0 == 401), "{foreign:?}");

    // The token decides when both come, also for the worse. Without certificate everything is as ever.
    let token = format!("Authorization: Bearer {}", rig.token(Role::Reader));
    let both = good.curl(&rig, "mfp", "/v1/seals", &[&seal[..], &["--header", &token]].concat())?;
    assert_eq!(both.map(|found| found.0), Some(403));
    let garbage = format!("Authorization: Bearer {GARBAGE}");
    let both = good.curl(&rig, "mfp", "/v1/status", &["--header", &garbage])?;
    assert_eq!(both.map(|found| found.0), Some(401));
    assert_eq!(rig.client(Role::Scanner).seal(b"x")?.status, 201);
    assert_eq!(rig.client_with(None).get("/v1/status")?.status, 401);

    // One common name, one client; revoked is revoked, and then the common name may stand for another.
    let second = ["scanner", "add", "--name", "mfp-8", "--certificate", "MFP 7, 2nd floor"];
    assert_eq!(rig.try_run(&second)?.status.code(), Some(1));
    rig.run(&["scanner", "revoke", "--name", "mfp-7"])?;
    assert_eq!(good.curl(&rig, "mfp", "/v1/seals", &seal)?.map(|found| found.0), Some(401));
    rig.run(&second)?;
    let (status, receipt) = good.curl(&rig, "mfp", "/v1/seals", &seal)?.context("refused")?;
    assert_eq!(status, 201, "{receipt}");
    let sealed = SealFile::decode(receipt["seal"].to_string().as_bytes())?;
    assert_eq!(sealed_client(&sealed).id, "mfp-8");
    // curl speaks HTTP/2 when it may choose, and the other when told; the seal says which it was.
    for (option, transport) in [("--http2", "https/2 tls1.3"), ("--http1.1", "https/1.1 tls1.3")] {
        let options = [&seal[..], &[option]].concat();
        let (status, receipt) = good.curl(&rig, "mfp", "/v1/seals", &options)?.context("refused")?;
        assert_eq!(status, 201, "{receipt}");
        let path = receipt["links"]["self"].as_str().unwrap();
        let (_, shown) = good.curl(&rig, "auditor", path, &[])?.context("refused")?;
        assert_eq!(shown["document"]["transport"], transport);
    }
    Ok(())
}

//! The OpenAPI document and a real box agree: routes, methods, and every member of its answers.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::described;
use bulla_tests::rig::{Keys, Response, Rig, RigOptions, Role};
use serde_json::{Value, json};

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap()
}

#[test]
fn the_box_has_the_routes_and_methods_of_its_document() -> Result<()> {
    let rig = Rig::start_with(&SOFTWARE)?;
    let anybody = rig.client_with(None);
    let served = anybody.get("/openapi.json")?;
    assert_eq!((served.status, served.json()?), (200, document()));
    for (path, item) in document()["paths"].as_object().unwrap() {
        let path = path
            .replace("{path}", "0/000")
            .replace("{id}", "0-0000000000000000")
            .replace("{file}", "main.js");
        let mut allowed: Vec<String> =
            item.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        if allowed.contains(&"GET".to_owned()) {
            allowed.push("HEAD".to_owned());
        }
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = anybody.send(method, &path, &[], ())?;
            if allowed.contains(&method.to_owned()) {
                let routed =
                    answer.status != 405 && (answer.status != 404 || answer.problem()? != "not-found");
                ensure!(routed, "{method} {path} is described and not served: {}", answer.status);
            } else {
                assert_eq!(answer.problem()?, "method-not-allowed", "{method} {path} is not described");
                let mut allow: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
                allow.sort_unstable();
                allowed.sort_unstable();
                assert_eq!(allow, allowed, "{path}");
            }
        }
    }
    Ok(())
}

/// Answers have no member that the document does not name, so clients can be generated from it.
#[test]
fn answers_have_the_members_of_their_schemas() -> Result<()> {
    let rig = Rig::start()?;
    let (scanner, reader) = (rig.client(Role::Scanner), rig.client(Role::Reader));
    let bytes = b"a document".as_slice();
    let headers = [
        ("Content-Type", "application/pdf"),
        ("Bulla-User", "J%C3%BCrgen"),
        ("Bulla-Metadata", "desk=3"),
        ("Idempotency-Key", "one"),
    ];
    let made = scanner.post("/v1/seals?wait=attested", &headers, bytes)?;
    check("/v1/seals", "post", &made)?;
    check("/v1/seals", "post", &scanner.post("/v1/seals", &headers, bytes)?)?;
    let id = made.json()?["id"].as_str().context("an id")?.to_owned();
    let annuls = json!({"algorithm": "sha-256", "digest": "ab".repeat(32), "annuls": [&id]});
    check("/v1/seals", "post", &scanner.seal_digest(&annuls, &[])?)?;
    check("/v1/seals/{id}", "get", &reader.get(&format!("/v1/seals/{id}"))?)?;
    let file = reader.get(&format!("/v1/seals/{id}/seal-file"))?;
    check("/v1/seals/{id}/seal-file", "get", &file)?;
    check("/v1/seals", "get", &reader.get("/v1/seals?limit=1")?)?;
    check("/v1/verify", "post", &reader.post("/v1/verify", &[], bytes)?)?;
    let judged =
        reader.post("/v1/verify", &[("Content-Type", "application/vnd.bulla.seal+json")], &file.body)?;
    check("/v1/verify", "post", &judged)?;
    let order = json!({"digests": [{"algorithm": "sha-256", "digest": "00".repeat(32)}, {"algorithm": "x", "digest": ""}]});
    let bulk = reader.post(
        "/v1/verify/bulk",
        &[("Content-Type", "application/json")],
        order.to_string().as_bytes(),
    )?;
    check("/v1/verify/bulk", "post", &bulk)?;
    check("/v1/status", "get", &reader.get("/v1/status")?)?;
    check("/v1/seals/{id}", "get", &reader.get("/v1/seals/1-0")?)?;
    check("/v1/seals", "post", &reader.post("/v1/seals", &[], bytes)?)?;
    check("/v1/status", "get", &rig.client_with(None).get("/v1/status")?)
}

/// Holds an answer against the schema of its operation, status and content type.
fn check(path: &str, method: &str, answer: &Response) -> Result<()> {
    let Response { status, content_type, .. } = answer;
    described::answer(&document(), path, method, *status, content_type, &answer.json()?, &|name| {
        answer.header(name).to_owned()
    })
}

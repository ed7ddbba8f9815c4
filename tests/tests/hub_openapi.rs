//! The OpenAPI document of a hub and a real hub agree: routes, methods, every member of its answers; and schemathesis asks
//! whatever the document allows, and much that it forbids.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::hash::sha256;
use bulla_tests::rig::described;
use bulla_tests::rig::hub::{HubKeys, HubRig, Serving};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, soak};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

fn document() -> Value {
    serde_json::from_str(include_str!("../../docs/hub-openapi.json")).unwrap()
}

/// A hub that serves one archived log, and a supervisor's token.
struct Served {
    rig: Rig,
    hub: HubRig,
    keys: HubKeys,
    _serving: Serving,
    token: String,
}

impl Served {
    fn start() -> Result<Self> {
        let rig = Rig::start_with(&RigOptions {
            keys: Keys::Software,
            residency: "software",
            ..RigOptions::default()
        })?;
        let seal = rig.client(Role::Scanner).seal(b"deed")?.seal()?;
        let hub = HubRig::create(&[("branch", &seal.origin, &[(&rig, false)])])?;
        hub.pull("branch")?;
        let keys = hub.furnish_serve("hub.example/north")?;
        let said = hub.lines(&["people", "add", "vera", "--role", "supervisor"], 0)?;
        let token = said[0]["token"].as_str().context("a token")?.to_owned();
        let serving = hub.serve()?;
        Ok(Served { rig, hub, keys, _serving: serving, token })
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
    ) -> Result<ureq::http::Response<ureq::Body>> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.keys.url));
        if let Some(token) = token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        Ok(self.keys.agent()?.run(request.body(())?)?)
    }

    /// Holds an answer against the document; `path` as there, `asked` as it is asked.
    fn check(&self, path: &str, asked: &str, token: Option<&str>, status: u16) -> Result<Value> {
        let mut answer = self.send("GET", asked, token)?;
        let got = answer.status().as_u16();
        let headers = answer.headers().clone();
        let header = |name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let text = answer.body_mut().read_to_string()?;
        ensure!(got == status, "{asked}: {got} {text}");
        let body = serde_json::from_str(&text).with_context(|| format!("{asked}: {text}"))?;
        described::answer(&document(), path, "get", got, &header("content-type"), &body, &header)
            .with_context(|| format!("{asked}: {body}"))?;
        Ok(body)
    }
}

#[test]
fn the_hub_has_the_routes_methods_and_answers_of_its_document() -> Result<()> {
    let served = Served::start()?;
    let said = served.hub.run(&["openapi"])?;
    ensure!(said.stdout == include_bytes!("../../docs/hub-openapi.json"), "`bulla-hub openapi`");
    let mut open = served.send("GET", "/openapi.json", None)?;
    assert_eq!(serde_json::from_str::<Value>(&open.body_mut().read_to_string()?)?, document());
    let origin = served.rig.client(Role::Scanner).seal(b"another")?.seal()?.origin;
    let origin = sha256(&[origin.as_bytes()]).to_string();
    for (path, item) in document()["paths"].as_object().unwrap() {
        let path = path.replace("{path}", "0/000").replace("{hash}", &origin);
        let methods: Vec<String> = item.as_object().unwrap().keys().map(|it| it.to_uppercase()).collect();
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let mut answer = served.send(method, &path, None)?;
            let (status, body) = (answer.status(), answer.body_mut().read_to_string()?);
            let problem = serde_json::from_str::<Value>(&body).unwrap_or_default()["type"].clone();
            let as_listed = if method == "HEAD" { "GET" } else { method };
            if methods.contains(&as_listed.to_owned()) {
                ensure!(
                    status != 405 && problem != "urn:bulla:problem:hub-not-found",
                    "{method} {path} is described and not served: {status} {body}"
                );
            } else {
                ensure!(
                    method == "HEAD" || problem == "urn:bulla:problem:hub-method-not-allowed",
                    "{method} {path} is not described: {status} {body}"
                );
                let allow = answer.headers().get("allow").context("Allow")?.to_str()?;
                let wanted = if methods == ["GET"] { "GET,HEAD" } else { "POST" };
                assert_eq!(allow, wanted, "{path}");
            }
        }
    }

    let (token, digest) = (Some(served.token.as_str()), format!("digest=sha-256:{}", sha256(&[b"deed"])));
    let with = |query: &str| format!("/v1/{query}?{digest}");
    served.check("/v1/status", "/v1/status", None, 401)?;
    served.check("/v1/status", "/v1/status", token, 200)?;
    served.check("/v1/status", "/v1/status?x=1", token, 400)?;
    served.check("/v1/findings", "/v1/findings?limit=7", token, 200)?;
    let found = served.check("/v1/find", &with("find"), token, 200)?;
    assert_eq!(found["rows"].as_array().map(Vec::len), Some(1), "{found}");
    served.check("/v1/find", &format!("{}&kind=seal", with("find")), token, 400)?;
    served.check("/v1/find", "/v1/find?box=nobody", token, 404)?;
    // Pages join where they end.
    let (mut after, mut rows) = (String::new(), Vec::new());
    loop {
        let page = served.check("/v1/find", &format!("/v1/find?limit=2{after}"), token, 200)?;
        rows.extend(page["rows"].as_array().context("rows")?.iter().map(|row| row["index"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={}", next.replace('/', "%2F"));
    }
    ensure!(rows.len() > 2, "{rows:?}");
    let in_order: Vec<Value> = (0..rows.len()).map(|index| json!(index)).collect();
    assert_eq!(rows, in_order);
    let stated = served.check("/v1/statement", &with("statement"), token, 200)?;
    assert_eq!(stated["seals"].as_array().map(Vec::len), Some(1), "{stated}");
    let unknown = format!("/v1/timeline?digest=sha-256:{}", "0".repeat(64));
    served.check("/v1/timeline", &unknown, token, 404)?;
    let told = served.check("/v1/timeline", &with("timeline"), token, 200)?;
    ensure!(told["events"].as_array().is_some_and(|events| !events.is_empty()), "{told}");
    let list = served.check("/v1/audit", "/v1/audit?limit=1000", token, 200)?;
    ensure!(list["queries"].as_array().is_some_and(|queries| queries.len() > 5), "{list}");
    Ok(())
}

#[test]
fn the_api_keeps_to_its_document() -> Result<()> {
    let served = Served::start()?;
    let few = ["--generation-deterministic", "--max-examples", "4"];
    let many = ["--max-examples", "500", "--max-time", "1800"];
    let output = Command::new(described::schemathesis()?)
        .arg("--config-file")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis-hub.toml"))
        .args(["run", &format!("{}/openapi.json", served.keys.url), "--no-color"])
        .arg("--tls-verify")
        .arg(&served.keys.certificate)
        .args(["--header", &format!("Authorization: Bearer {}", served.token)])
        .args(["--request-timeout", "60"])
        .args(if soak() { &many[..] } else { &few[..] })
        .current_dir(served.hub.file(""))
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .context("cannot start schemathesis")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let short: Vec<String> = said.lines().map(|line| line.chars().take(400).collect()).collect();
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{complaint}", short.join("\n"));
    let count = said.lines().find(|line| line.contains(" generated, ")).context("what it did")?;
    println!("{}", count.trim());
    // The hub lives, and its list of queries is whole.
    served.check("/v1/status", "/v1/status", Some(&served.token), 200)?;
    served.hub.lines(&["audit"], 0).map(drop)
}

//! The OpenAPI 3.1 document, and the router: one [`Routes`] makes both.
//!
//! A route is added together with its [`Operation`], so there is no way to serve what is not described. To add
//! one: a line in `api::routes`, its operation in `operations/`, its schemas in `schemas`, then
//! `bulla-box openapi > docs/openapi.json`.
//! Refuses to do: read a request or a configuration; the document is the same on every box of this version.
//! Invariant: `docs/openapi.json` in the repository is what `GET /openapi.json` serves (a test compares them).

mod operation;
pub mod operations;
mod schemas;

pub use operation::Operation;

use super::Shared;
use crate::problem::{Kind, Problem};
use axum::Router;
use axum::handler::Handler;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The document as it is served and committed.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let (_, document) = super::routes().into_parts();
    let mut text = serde_json::to_string_pretty(&document).expect("JSON values always serialise");
    text.push('\n');
    text
});

/// `GET /openapi.json`.
pub async fn serve() -> Response {
    super::receipt::respond(StatusCode::OK, "application/json", text())
}

/// The document, ending in a newline.
pub fn text() -> &'static str {
    &DOCUMENT
}

/// Routes with their descriptions.
pub struct Routes {
    router: Router<Shared>,
    paths: Map<String, Value>,
}

impl Routes {
    /// None yet.
    pub fn new() -> Self {
        Routes { router: Router::new(), paths: Map::new() }
    }

    /// Answers `GET` (and so `HEAD`) on `path`.
    pub fn get<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        self.add("get", path, get(handler), operation)
    }

    /// Answers `POST` on `path`.
    pub fn post<H, T>(self, path: &str, handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        self.add("post", path, post(handler), operation)
    }

    fn add(mut self, method: &str, path: &str, handler: MethodRouter<Shared>, operation: Operation) -> Self {
        // OpenAPI has no parameters that span segments.
        let documented = path.replace("{*", "{");
        let item = self.paths.entry(documented).or_insert_with(|| json!({}));
        item[method] = operation.into_value();
        Routes { router: self.router.route(path, handler), paths: self.paths }
    }

    /// The router, and the document that describes it.
    pub fn into_parts(self) -> (Router<Shared>, Value) {
        (self.router, document(self.paths))
    }
}

fn document(paths: Map<String, Value>) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bulla-box",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Seals documents over the LAN.",
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"}
        },
        "servers": [{"url": "https://localhost:8443", "description": "The box; its address is in its configuration."}],
        "tags": [
            {"name": "seals", "description": "Sealing documents and reading seals."},
            {"name": "verify", "description": "Asking whether documents and .seal files hold."},
            {"name": "log", "description": "The log as C2SP tlog-tiles, open to everybody."},
            {"name": "box", "description": "The box itself: health, status, keys, this document."}
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `bulla-box scanner add`. When it comes with a client certificate, it decides."
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-bulla-session",
                    "description": "A person's session in the console (`POST /v1/session`). Whatever is not GET or HEAD also needs the header `Bulla-Session-Proof` with the session's `proof`, and an `Origin`, if any, that is this box."
                },
                "mutualTLS": {
                    "type": "mutualTLS",
                    "description": "A certificate of `tls.client_ca` whose common name is registered with `bulla-box scanner add --certificate`."
                }
            },
            "schemas": schemas::all(),
            "responses": {
                "NotFound": operation::problems_of(StatusCode::NOT_FOUND, &[Kind::NotFound]),
                "MethodNotAllowed": operation::problems_of(StatusCode::METHOD_NOT_ALLOWED, &[Kind::MethodNotAllowed]),
                "ForeignRequest": operation::problems_of(StatusCode::FORBIDDEN, &[Kind::ForeignRequest]),
                "NoParent": operation::problems_of(StatusCode::CONFLICT, &[Kind::NoParent]),
                "AlreadyThere": operation::problems_of(StatusCode::PRECONDITION_FAILED, &[Kind::AlreadyThere])
            }
        }
    })
}

const INTRODUCTION: &str = "HTTPS only; the certificate is issued by the box's own CA (`GET /v1/ca`). `HEAD` works \
where `GET` does. Every refusal is a problem document (RFC 9457); programs decide by its `type`. Nothing is sealed when \
the answer is a problem, except `urn:bulla:problem:internal`, where a retry with the same `Idempotency-Key` finds out. \
A path without route is `components/responses/NotFound`, a method that a path does not have is \
`components/responses/MethodNotAllowed`; a request in a person's session that another site made is \
`components/responses/ForeignRequest`. Scanners' folders are WebDAV below `/dav/`, whose methods this document cannot \
describe (docs/ingest.md); a PUT there may also be `NoParent` or `AlreadyThere`. Members may be added to answers; clients ignore what they do not know.";

/// Answers where no route is.
pub async fn nothing_here() -> Problem {
    Problem::new(Kind::NotFound, "no route has this path; GET /openapi.json lists the routes")
}

/// Answers where the route has other methods.
pub async fn no_such_method() -> Problem {
    Problem::new(Kind::MethodNotAllowed, "use one of the methods in the Allow header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn parsed() -> Value {
        serde_json::from_str(text()).unwrap()
    }

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let paths = document["paths"].as_object().unwrap().iter();
        paths
            .flat_map(|(path, item)| {
                let methods = item.as_object().unwrap().iter();
                methods.map(move |(method, operation)| (format!("{method} {path}"), operation))
            })
            .collect()
    }

    #[test]
    fn the_committed_document_is_the_generated_one() {
        assert!(
            include_str!("../../../../../docs/openapi.json") == text(),
            "run `bulla-box openapi > docs/openapi.json` and commit the file"
        );
    }

    /// Whoever adds a problem type says which routes answer it.
    #[test]
    fn every_problem_type_is_documented_where_it_can_occur() {
        let document = parsed();
        let mut seen = BTreeSet::new();
        let elsewhere = document["components"]["responses"].as_object().unwrap();
        let of_routes = operations(&document).into_iter();
        let answers =
            of_routes.flat_map(|(_, operation)| operation["responses"].as_object().unwrap().values());
        for answer in answers.chain(elsewhere.values()) {
            let content = &answer["content"]["application/problem+json"];
            for example in content["examples"].as_object().into_iter().flat_map(Map::values) {
                seen.insert((
                    example["value"]["type"].as_str().unwrap().to_owned(),
                    example["value"]["status"].as_u64().unwrap(),
                ));
            }
        }
        for kind in Kind::ALL {
            let wanted = (format!("urn:bulla:problem:{}", kind.slug()), u64::from(kind.status().as_u16()));
            assert!(seen.contains(&wanted), "no operation documents {wanted:?}");
        }
        assert_eq!(seen.len(), Kind::ALL.len());
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = parsed();
        let mut used = BTreeSet::new();
        references(&document, &mut used);
        for reference in &used {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
        for name in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(used.contains(&format!("#/components/schemas/{name}")), "nothing uses {name}");
        }
    }

    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    found.insert(reference.clone());
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn operations_have_ids_of_their_own_and_say_what_they_need() {
        let document = parsed();
        let mut ids = BTreeSet::new();
        for (name, operation) in operations(&document) {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name}");
            for member in ["summary", "description", "tags", "security", "responses"] {
                assert!(!operation[member].is_null(), "{name} lacks {member}");
            }
            let open = operation["security"].as_array().unwrap().is_empty();
            // Where somebody logs in, the credential is in the body.
            let logs_in = ["logIn", "choosePassword"].contains(&operation["operationId"].as_str().unwrap());
            assert_eq!(operation["responses"]["401"].is_null(), open && !logs_in, "{name}");
        }
    }

    /// The table in docs/api.md is the authorisation matrix for people.
    #[test]
    fn the_documentation_lists_every_route() {
        let documentation = include_str!("../../../../../docs/api.md");
        for (name, _) in operations(&parsed()) {
            let (method, path) = name.split_once(' ').unwrap();
            let path = path.replace("/tile/{path}", "/tile/...");
            let route = format!("`{} {path}`", method.to_uppercase());
            assert!(documentation.contains(&route), "docs/api.md lacks {route}");
        }
    }

    /// Routes come only through [`Routes`]: a route beside it would be served without being described.
    #[test]
    fn no_route_is_added_beside_the_document() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut pending = vec![sources];
        let mut adders = Vec::new();
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    let calls = [".route(", ".route_service(", ".nest(", ".nest_service("];
                    // This list itself is text of this file: one line each.
                    let adds = text.lines().filter(|line| !line.contains("let calls"));
                    if adds.into_iter().any(|line| calls.iter().any(|call| line.contains(call))) {
                        adders.push(path);
                    }
                }
            }
        }
        // WebDAV has methods that OpenAPI does not know; the claim page is served before there is an API.
        let known = ["api/openapi/mod.rs", "api/dav.rs", "enrolling/claim_page.rs"];
        assert!(adders.iter().all(|path| known.iter().any(|known| path.ends_with(known))), "{adders:?}");
    }
}

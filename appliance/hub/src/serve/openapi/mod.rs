//! The OpenAPI 3.1 document of a hub that serves, and its router: one [`Routes`] makes both.
//!
//! A route is added together with its [`Operation`], so there is no way to serve what is not described. To add one: a line
//! in `serve::routes`, its operation in `operations`, its schemas in `schemas`, then
//! `bulla-hub openapi > docs/hub-openapi.json`.
//! Refuses to do: read a request or a configuration; the document is the same on every hub of this version.
//! Invariant: `docs/hub-openapi.json` in the repository is what `GET /openapi.json` serves (a test compares them).

mod operation;
pub mod operations;
mod schemas;

pub use operation::Operation;

use super::Desk;
use super::problem::Kind;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use serde_json::{Map, Value, json};
use std::sync::{Arc, LazyLock};

/// The document as it is served and committed.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    let (_, document) = super::routes::routes().into_parts();
    format!("{document:#}\n")
});

/// `GET /openapi.json`.
pub async fn serve() -> Response {
    ([(CONTENT_TYPE, "application/json")], text()).into_response()
}

/// The document, ending in a newline.
pub fn text() -> &'static str {
    &DOCUMENT
}

/// Routes with their descriptions.
pub struct Routes {
    router: Router<Arc<Desk>>,
    paths: Map<String, Value>,
}

impl Routes {
    /// None yet.
    pub fn new() -> Self {
        Routes { router: Router::new(), paths: Map::new() }
    }

    /// Answers `method` (small letters; `get` is `HEAD`, too) on `path` with `handler`, which has that method alone.
    pub fn add(
        mut self,
        method: &str,
        path: &str,
        handler: MethodRouter<Arc<Desk>>,
        operation: Operation,
    ) -> Self {
        // OpenAPI has no parameters that span segments.
        let documented = path.replace("{*", "{");
        let item = self.paths.entry(documented).or_insert_with(|| json!({}));
        item[method] = operation.into_value();
        Routes { router: self.router.route(path, handler), paths: self.paths }
    }

    /// The router, and the document that describes it.
    pub fn into_parts(self) -> (Router<Arc<Desk>>, Value) {
        (self.router, document(self.paths))
    }
}

fn document(paths: Map<String, Value>) -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bulla-hub",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Archives the logs of a region's boxes, cosigns their heads, answers auditors.",
            "description": INTRODUCTION,
            "license": {"name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT"}
        },
        "servers": [{"url": "https://localhost:8446", "description": "The hub; its address is in its configuration."}],
        "tags": [
            {"name": "queries", "description": "What people ask of the archive; each is in the list of queries before it is answered."},
            {"name": "witness", "description": "A witness for the boxes (c2sp.org/tlog-witness), open to everybody."},
            {"name": "heads", "description": "The hub's own log of branch heads as C2SP tlog-tiles, open to everybody."},
            {"name": "hub", "description": "The hub itself."}
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `bulla-hub people add`. When it comes with a client certificate, it decides."
                },
                "mutualTLS": {
                    "type": "mutualTLS",
                    "description": "A certificate of `serve.client_ca` whose common name is registered with `bulla-hub people add --certificate`."
                }
            },
            "schemas": schemas::all(),
            "responses": {
                "NotFound": operation::problems_of(404, &[Kind::NotFound]),
                "MethodNotAllowed": operation::problems_of(405, &[Kind::MethodNotAllowed])
            }
        }
    })
}

const INTRODUCTION: &str = "HTTPS only. `HEAD` works where `GET` does. Every refusal of a query is a problem document \
(RFC 9457); programs decide by its `type`. A path without route is `components/responses/NotFound`, a method that a path \
does not have is `components/responses/MethodNotAllowed`. Answers are those of the commands of the same names with \
`--json` (docs/audit.md). Members may be added to answers; clients ignore what they do not know.";

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
            include_str!("../../../../../docs/hub-openapi.json") == text(),
            "run `bulla-hub openapi > docs/hub-openapi.json` and commit the file"
        );
    }

    /// Whoever adds a problem type says which routes answer it.
    #[test]
    fn every_problem_type_is_documented_where_it_can_occur() {
        let document = parsed();
        let elsewhere = document["components"]["responses"].as_object().unwrap();
        let of_routes = operations(&document).into_iter();
        let answers =
            of_routes.flat_map(|(_, operation)| operation["responses"].as_object().unwrap().values());
        let mut seen = BTreeSet::new();
        for answer in answers.chain(elsewhere.values()) {
            let examples = &answer["content"]["application/problem+json"]["examples"];
            for example in examples.as_object().into_iter().flat_map(Map::values) {
                let value = &example["value"];
                seen.insert((value["type"].as_str().unwrap().to_owned(), value["status"].as_u64().unwrap()));
            }
        }
        let known: BTreeSet<_> = Kind::ALL
            .iter()
            .map(|kind| {
                let (status, slug, _) = kind.row();
                (format!("urn:bulla:problem:{slug}"), u64::from(status))
            })
            .collect();
        assert_eq!(seen, known);
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
            assert_eq!(operation["responses"]["401"].is_null(), open, "{name}");
        }
    }

    /// The table in docs/audit.md is the authorisation matrix; docs/operating.md has the rest.
    #[test]
    fn the_documentation_lists_every_route() {
        let pages =
            [include_str!("../../../../../docs/audit.md"), include_str!("../../../../../docs/operating.md")];
        for (name, _) in operations(&parsed()) {
            let (method, path) = name.split_once(' ').unwrap();
            let path =
                path.replace("/tile/{path}", "/tile/...").replace("{hash}", "<hex SHA-256 of the origin>");
            let (route, row) = (format!("`{} {path}`", method.to_uppercase()), format!("| `{path}` |"));
            assert!(
                pages.iter().any(|page| page.contains(&route) || page.contains(&row)),
                "no page has {route}"
            );
        }
    }

    /// Routes come only through [`Routes`]: a route beside it would be served without being described.
    #[test]
    fn no_route_is_added_beside_the_document() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/serve");
        let mut adders = Vec::new();
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let calls = [".route(", ".route_service(", ".nest(", ".nest_service(", ".merge("];
            if path.is_file() {
                let text = std::fs::read_to_string(&path).unwrap();
                adders.extend(calls.iter().any(|call| text.contains(call)).then_some(path));
            }
        }
        assert!(adders.is_empty(), "{adders:?}");
    }
}

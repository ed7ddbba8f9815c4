//! One operation of the API: what a client developer needs to know of it, and what every operation shares.
//!
//! Refuses to do: describe a problem in words of its own; status, type and title come from [`Kind`].
//! Invariant: what the connection, authentication or body reading can answer is added here and not by hand.

use crate::api::access::{Right, duties, roles};
use crate::people::Duty;
use crate::problem::{Kind, Problem};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};

/// Who may use an operation.
enum Access {
    Everybody,
    With(Right),
    InASession,
}

/// Describes one method of one path.
pub struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: String,
    access: Access,
    parameters: Vec<Value>,
    body: Map<String, Value>,
    answers: Map<String, Value>,
    problems: Vec<Kind>,
}

/// What any operation can answer: the box as a whole fails, or a limit of headers, client or address
/// was met.
const OF_EVERY_OPERATION: &[Kind] =
    &[Kind::InvalidRequest, Kind::HeadersTooLarge, Kind::RateLimited, Kind::Internal];
/// What authentication can answer. `forbidden` is added where not every role may.
const OF_AUTHENTICATION: &[Kind] = &[Kind::Unauthenticated, Kind::Locked];
/// What reading a body can answer.
const OF_BODIES: &[Kind] = &[
    Kind::InvalidRequest,
    Kind::TruncatedBody,
    Kind::BodyTimeout,
    Kind::TooLarge,
    Kind::UnsupportedMediaType,
];

impl Operation {
    /// Open to everybody until [`Operation::needs`] says otherwise. `tag` is one of those in the document.
    pub fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Operation {
            id,
            tag,
            summary,
            description: String::new(),
            access: Access::Everybody,
            parameters: Vec::new(),
            body: Map::new(),
            answers: Map::new(),
            problems: OF_EVERY_OPERATION.to_vec(),
        }
    }

    /// More words (CommonMark).
    pub fn describe(mut self, description: &str) -> Self {
        self.description = description.to_owned();
        self
    }

    /// Needs a credential whose role has this right.
    pub fn needs(mut self, right: Right) -> Self {
        self.access = Access::With(right);
        self.problems.extend(OF_AUTHENTICATION);
        if roles(right).len() < crate::clients::Role::ALL.len() || duties(right).len() < Duty::ALL.len() {
            self.problems.push(Kind::Forbidden);
        }
        self
    }

    /// Needs a person's session.
    pub fn needs_session(mut self) -> Self {
        self.access = Access::InASession;
        self.problems.extend(OF_AUTHENTICATION);
        self.problems.push(Kind::Forbidden);
        self
    }

    /// A parameter in `place` (`query`, `path` or `header`).
    pub fn parameter(mut self, place: &str, name: &str, schema: Value, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name, "in": place, "required": place == "path", "description": description, "schema": schema
        }));
        if place != "header" {
            self.problem(Kind::InvalidRequest);
        }
        self
    }

    /// A body of this media type.
    pub fn body(mut self, media_type: &str, content: Value) -> Self {
        if self.body.is_empty() {
            OF_BODIES.iter().for_each(|kind| self.problem(*kind));
        }
        self.body.insert(media_type.to_owned(), content);
        self
    }

    /// An answer that is no problem, in one media type; called again for another one.
    pub fn answer(mut self, status: u16, description: &str, media_type: &str, content: Value) -> Self {
        let answer = self
            .answers
            .entry(status.to_string())
            .or_insert_with(|| json!({"description": description, "content": {}}));
        answer["content"][media_type] = content;
        self
    }

    /// A header of the answer with this status.
    pub fn answer_header(mut self, status: u16, name: &str, description: &str) -> Self {
        let answer = &mut self.answers[&status.to_string()];
        answer["headers"][name] =
            json!({"description": description, "required": true, "schema": {"type": "string"}});
        self
    }

    /// The answer's `id` is the path parameter of this operation.
    pub fn link(mut self, status: u16, operation: &str) -> Self {
        let answer = &mut self.answers[&status.to_string()];
        answer["links"][operation] =
            json!({"operationId": operation, "parameters": {"id": "$response.body#/id"}});
        self
    }

    /// Problems beyond those that come by access, parameters and body.
    pub fn problems(mut self, kinds: &[Kind]) -> Self {
        kinds.iter().for_each(|kind| self.problem(*kind));
        self
    }

    fn problem(&mut self, kind: Kind) {
        if !self.problems.contains(&kind) {
            self.problems.push(kind);
        }
    }

    /// As OpenAPI has it.
    pub fn into_value(self) -> Value {
        let (security, roles) = match self.access {
            Access::Everybody => (json!([]), "Open to everybody.".to_owned()),
            Access::With(right) => {
                let names: Vec<&str> = roles(right).iter().map(|role| role.name()).collect();
                let people: Vec<&str> = duties(right).iter().map(|duty| duty.name()).collect();
                let mut security = json!([{"bearer": []}, {"mutualTLS": []}]);
                let mut words = format!("Roles: {}.", names.join(", "));
                if let (false, Value::Array(ways)) = (people.is_empty(), &mut security) {
                    ways.push(json!({"session": []}));
                    words.push_str(&format!(" People: {}.", people.join(", ")));
                }
                (security, words)
            }
            Access::InASession => (json!([{"session": []}]), "Whoever is logged in.".to_owned()),
        };
        let mut operation = Map::new();
        operation.insert("operationId".to_owned(), self.id.into());
        operation.insert("tags".to_owned(), json!([self.tag]));
        operation.insert("summary".to_owned(), self.summary.into());
        let description = format!("{} {roles}", self.description);
        operation.insert("description".to_owned(), description.trim().into());
        operation.insert("security".to_owned(), security);
        if !self.parameters.is_empty() {
            operation.insert("parameters".to_owned(), self.parameters.into());
        }
        if !self.body.is_empty() {
            operation.insert("requestBody".to_owned(), json!({"required": true, "content": self.body}));
        }
        let mut answers = self.answers;
        let mut statuses: Vec<StatusCode> = self.problems.iter().map(|kind| kind.status()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let kinds: Vec<Kind> = Kind::ALL
                .iter()
                .copied()
                .filter(|kind| self.problems.contains(kind) && kind.status() == status)
                .collect();
            answers.insert(status.as_str().to_owned(), problems_of(status, &kinds));
        }
        operation.insert("responses".to_owned(), answers.into());
        Value::Object(operation)
    }
}

/// The answer for problems of one status.
pub fn problems_of(status: StatusCode, kinds: &[Kind]) -> Value {
    let types: Vec<String> = kinds.iter().map(|kind| format!("urn:bulla:problem:{}", kind.slug())).collect();
    let titles: Vec<String> =
        kinds.iter().map(|kind| format!("`{}`: {}.", kind.slug(), kind.title())).collect();
    let examples: Map<String, Value> = kinds
        .iter()
        .map(|kind| {
            let document = Problem::new(*kind, "what happened, why, and what to do").document("/path");
            (kind.slug().to_owned(), json!({"value": document}))
        })
        .collect();
    let mut answer = json!({
        "description": titles.join(" "),
        "content": {"application/problem+json": {
            "schema": {"allOf": [
                {"$ref": "#/components/schemas/Problem"},
                {"properties": {"type": {"enum": types}, "status": {"const": status.as_u16()}}}
            ]},
            "examples": examples
        }}
    });
    let header = |description: &str, required: bool, kind: &str| json!({"description": description, "required": required, "schema": {"type": kind}});
    match status.as_u16() {
        401 => answer["headers"] = json!({"WWW-Authenticate": header("Names the scheme.", true, "string")}),
        405 => answer["headers"] = json!({"Allow": header("Methods of this path.", true, "string")}),
        429 | 503 | 507 => {
            answer["headers"] = json!({"Retry-After": header("Seconds to wait.", true, "integer")});
        }
        500 => answer["headers"] = json!({"Retry-After": header("Seconds to wait.", false, "integer")}),
        _ => {}
    }
    answer
}

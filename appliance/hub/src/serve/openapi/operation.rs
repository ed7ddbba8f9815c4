//! One operation of the hub's API: what a client developer needs to know of it, and what every operation shares.
//!
//! Refuses to do: describe a problem in words of its own; status, type and title come from [`Kind`].
//! Invariant: what limits and authentication can answer is added here and not by hand.

use crate::people::Role;
use crate::serve::problem::{Kind, Problem};
use serde_json::{Map, Value, json};

/// Describes one method of one path.
pub struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: &'static str,
    needs: Option<Role>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Map<String, Value>,
    problems: Vec<Kind>,
}

/// What any operation can answer.
const OF_EVERY_OPERATION: [Kind; 2] = [Kind::RateLimited, Kind::Unavailable];

impl Operation {
    /// Open to everybody until [`Operation::needs`] says otherwise. `tag` is one of those in the document.
    pub fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Operation {
            id,
            tag,
            summary,
            description: "",
            needs: None,
            parameters: Vec::new(),
            body: None,
            answers: Map::new(),
            problems: OF_EVERY_OPERATION.to_vec(),
        }
    }

    /// More words (CommonMark).
    pub fn describe(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Needs somebody with this role, or a greater one.
    pub fn needs(mut self, role: Role) -> Self {
        self.needs = Some(role);
        let known = self.problems(&[Kind::Unauthenticated]);
        if role == Role::ALL[0] { known } else { known.problems(&[Kind::Forbidden]) }
    }

    /// A parameter in `place` (`query` or `path`).
    pub fn parameter(mut self, place: &str, name: &str, schema: Value, description: &str) -> Self {
        self.parameters.push(json!({
            "name": name, "in": place, "required": place == "path", "description": description, "schema": schema
        }));
        self
    }

    /// The last parameter cannot be left out.
    pub fn required(mut self) -> Self {
        if let Some(last) = self.parameters.last_mut() {
            last["required"] = true.into();
        }
        self
    }

    /// A body of this media type.
    pub fn body(mut self, media_type: &str, content: Value) -> Self {
        self.body = Some(json!({"required": true, "content": {media_type: content}}));
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

    /// Problems beyond those that come by limits and access.
    pub fn problems(mut self, kinds: &[Kind]) -> Self {
        for kind in kinds {
            if !self.problems.contains(kind) {
                self.problems.push(*kind);
            }
        }
        self
    }

    /// As OpenAPI has it.
    pub fn into_value(self) -> Value {
        let (security, roles) = match self.needs {
            None => (json!([]), "Open to everybody.".to_owned()),
            Some(least) => {
                let all = Role::ALL.iter().filter(|role| **role >= least);
                let names: Vec<&str> = all.map(|role| role.name()).collect();
                (json!([{"bearer": []}, {"mutualTLS": []}]), format!("Roles: {}.", names.join(", ")))
            }
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
        if let Some(body) = self.body {
            operation.insert("requestBody".to_owned(), body);
        }
        let mut answers = self.answers;
        let mut statuses: Vec<u16> = self.problems.iter().map(|kind| kind.row().0).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let of_it = Kind::ALL.into_iter().filter(|kind| kind.row().0 == status);
            let kinds: Vec<Kind> = of_it.filter(|kind| self.problems.contains(kind)).collect();
            answers.insert(status.to_string(), problems_of(status, &kinds));
        }
        operation.insert("responses".to_owned(), answers.into());
        Value::Object(operation)
    }
}

/// The answer for problems of one status.
pub fn problems_of(status: u16, kinds: &[Kind]) -> Value {
    let mut examples = Map::new();
    let (mut types, mut titles) = (Vec::new(), Vec::new());
    for kind in kinds {
        let (_, slug, title) = kind.row();
        let document = Problem::new(*kind, "what happened, why, and what to do").document();
        types.push(document["type"].clone());
        titles.push(format!("`{slug}`: {title}."));
        examples.insert(slug.to_owned(), json!({"value": document}));
    }
    let mut answer = json!({
        "description": titles.join(" "),
        "content": {"application/problem+json": {
            "schema": {"allOf": [
                {"$ref": "#/components/schemas/Problem"},
                {"properties": {"type": {"enum": types}, "status": {"const": status}}}
            ]},
            "examples": examples
        }}
    });
    let header = |description: &str, kind: &str| json!({"description": description, "required": true, "schema": {"type": kind}});
    match status {
        401 => answer["headers"] = json!({"WWW-Authenticate": header("Names the scheme.", "string")}),
        405 => answer["headers"] = json!({"Allow": header("Methods of this path.", "string")}),
        429 | 503 => answer["headers"] = json!({"Retry-After": header("Seconds to wait.", "integer")}),
        _ => {}
    }
    answer
}

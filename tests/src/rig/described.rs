//! Answers held against an OpenAPI document, and where the program is that asks whatever a document allows.
//!
//! Refuses to do: take an answer with a member, a status or a media type that the document does not name.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// schemathesis: below the target directory, where `cargo xtask setup` puts it; or where `BULLA_SCHEMATHESIS` says.
pub fn schemathesis() -> Result<PathBuf> {
    let path = match std::env::var_os("BULLA_SCHEMATHESIS") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test binary is three levels below the target")?;
            target.join("tools/schemathesis/bin/schemathesis")
        }
    };
    ensure!(path.is_file(), "{} is missing; run: cargo xtask setup", path.display());
    Ok(path)
}

/// Holds an answer in JSON against the schema of its operation, status and content type; `header` has its headers, empty
/// where there is none.
pub fn answer(
    document: &Value,
    path: &str,
    method: &str,
    status: u16,
    content_type: &str,
    body: &Value,
    header: &dyn Fn(&str) -> String,
) -> Result<()> {
    let described = &document["paths"][path][method]["responses"][status.to_string()];
    ensure!(!described.is_null(), "{method} {path}: {status} is not described");
    let content = &described["content"][content_type];
    ensure!(!content.is_null(), "{method} {path}: {content_type} is not described");
    for name in described["headers"].as_object().into_iter().flat_map(Map::keys) {
        ensure!(!header(name).is_empty(), "{method} {path}: no header {name}");
    }
    holds(document, &content["schema"], body).with_context(|| format!("{method} {path}"))
}

/// The part of JSON Schema that the documents' answers use; unknown members are an error here.
fn holds(all: &Value, schema: &Value, value: &Value) -> Result<()> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = all.pointer(reference.trim_start_matches('#')).context("a reference leads somewhere")?;
        return holds(all, target, value);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let tried: Vec<_> = choices.iter().map(|choice| holds(all, choice, value)).collect();
        let fitting = tried.iter().filter(|tried| tried.is_ok()).count();
        ensure!(fitting == 1, "{fitting} schemas fit {value}: {tried:?}");
        return Ok(());
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // The first names the members; the others only narrow them.
        return holds(all, &parts[0], value);
    }
    match (schema["type"].as_str(), value) {
        (Some("object"), Value::Object(_)) if schema["additionalProperties"] == true => {}
        (Some("object"), Value::Object(members)) => {
            let properties = schema["properties"].as_object().context("an object names its members")?;
            for name in schema["required"].as_array().into_iter().flatten() {
                ensure!(
                    members.contains_key(name.as_str().unwrap_or_default()),
                    "{name} is missing in {value}"
                );
            }
            for (name, member) in members {
                let schema = properties.get(name).with_context(|| format!("{name} is not described"))?;
                holds(all, schema, member).with_context(|| name.clone())?;
            }
        }
        (Some("array"), Value::Array(items)) => {
            items.iter().try_for_each(|item| holds(all, &schema["items"], item))?;
        }
        (Some("string"), Value::String(_))
        | (Some("boolean"), Value::Bool(_))
        | (Some("null"), Value::Null) => {}
        (Some("integer"), Value::Number(number)) => ensure!(number.is_u64(), "{number} is no count"),
        (None, _) if schema["const"] == *value => {}
        (None, Value::Null | Value::String(_) | Value::Number(_)) if schema["type"].is_array() => {}
        _ => bail!("{value} is not {schema}"),
    }
    if let Some(values) = schema["enum"].as_array() {
        ensure!(values.contains(value), "{value} is none of {values:?}");
    }
    Ok(())
}

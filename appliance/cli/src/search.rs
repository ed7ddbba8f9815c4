//! `bulla search`: finds seals on a box.
//!
//! Refuses to do: search without saying where it stopped. Invariant: what was searched for is in the request to the
//! box and nowhere else.

use crate::client::{BoxClient, BoxOptions};
use crate::exit::{Exit, Failure};
use crate::output::{self, printable};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_formats::report::{utc, utc_millis};
use clap::Args;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most seals on one page of the box.
const PAGE_MAX: u64 = 500;

/// Arguments of `bulla search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// Seals of this file's bytes
    #[arg(value_name = "FILE", conflicts_with = "digest")]
    file: Option<PathBuf>,
    /// Seals of this digest: sha-256:HEX, sha-512:HEX or sha3-256:HEX
    #[arg(long)]
    digest: Option<String>,
    /// Seals with exactly this document id
    #[arg(long, value_name = "ID")]
    document_id: Option<String>,
    /// Seals with exactly this user
    #[arg(long)]
    user: Option<String>,
    /// Seals sent by this client
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Seals made at or after this UTC time: 2026-11-21, 2026-11-21T08:30:00Z, or Unix milliseconds
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    from: Option<u64>,
    /// Seals made before this UTC time
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    to: Option<u64>,
    /// Stop after so many seals, newest first
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Go on where an earlier search stopped
    #[arg(long)]
    cursor: Option<String>,
    #[command(flatten)]
    connection: BoxOptions,
    /// Print the box's own JSON
    #[arg(long)]
    json: bool,
}

/// Searches page by page; one line per seal. No seal found is exit code 4.
pub fn run(args: &SearchArgs) -> Result<Exit, Failure> {
    let client = BoxClient::new(&args.connection)?;
    let digest = match &args.file {
        Some(path) => Some(digest_of(path)?),
        None => args.digest.clone(),
    };
    let mut filters = String::new();
    let mut filter = |name: &str, value: &str| {
        filters.push_str(&format!("&{name}={}", encode(value)));
    };
    let texts = [
        ("digest", &digest),
        ("documentId", &args.document_id),
        ("user", &args.user),
        ("client", &args.client),
    ];
    texts.iter().filter_map(|(name, value)| Some((name, value.as_ref()?))).for_each(|(n, v)| filter(n, v));
    [("from", args.from), ("to", args.to)]
        .iter()
        .filter_map(|(name, time)| Some((name, (*time)?)))
        .for_each(|(name, time)| filter(name, &time.to_string()));
    let mut seals: Vec<Value> = Vec::new();
    let mut cursor = args.cursor.clone();
    let mut unreadable = 0;
    loop {
        let limit = (args.limit - seals.len() as u64).min(PAGE_MAX);
        let on = cursor.as_ref().map(|cursor| format!("&cursor={}", encode(cursor))).unwrap_or_default();
        let page = client.get(&format!("/v1/seals?limit={limit}{filters}{on}"), "application/json");
        let page = page.and_then(|answer| answer.json()).map_err(|error| error.into_failure("search"))?;
        let Some(found) = page.get("seals").and_then(Value::as_array) else {
            let message =
                "search: the box answered with something else than seals; check that it has this version";
            return Err(Failure::new(Exit::Box, message));
        };
        seals.extend(found.iter().cloned());
        unreadable += page.get("unreadable").and_then(Value::as_u64).unwrap_or(0);
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || seals.len() as u64 >= args.limit {
            break;
        }
    }
    if unreadable > 0 {
        output::complain(&format!(
            "search: {unreadable} entries cannot be read and may belong here; have the box's operator run fsck"
        ));
    }
    let found = !seals.is_empty();
    if args.json {
        let mut answer = json!({"seals": seals});
        if let Some(cursor) = cursor {
            answer["next"] = cursor.into();
        }
        output::print_json(&answer);
    } else {
        seals.iter().for_each(|seal| output::print(&line(seal)));
        match cursor {
            Some(cursor) => output::complain(&format!("there may be more: go on with --cursor {cursor}")),
            None if !found => output::complain("search: no seal of this box matches"),
            None => {}
        }
    }
    Ok(if found { Exit::Ok } else { Exit::NoSeal })
}

/// A found seal on a line of its own.
pub fn line(seal: &Value) -> String {
    let text = |name: &str| printable(seal.get(name).and_then(Value::as_str).unwrap_or("?"));
    let time = seal.get("sealedAtMillis").and_then(Value::as_u64).map_or_else(|| "?".to_owned(), utc);
    let mut line = format!("{}  {time}  {}  {}", text("id"), text("client"), text("mediaType"));
    let list = |name: &str| seal.get(name).and_then(Value::as_array).into_iter().flatten();
    for opening in list("openings") {
        let part = |name: &str| printable(opening.get(name).and_then(Value::as_str).unwrap_or("?"));
        line.push_str(&format!("  {}={:?}", part("name"), part("value")));
    }
    for related in list("relatedBy") {
        let part = |name: &str| printable(related.get(name).and_then(Value::as_str).unwrap_or("?"));
        line.push_str(&format!("  [{} {}]", passive(&part("kind")), part("id")));
    }
    line.push('\n');
    line
}

fn passive(kind: &str) -> &str {
    match kind {
        "annuls" => "annulled by",
        "supersedes" => "superseded by",
        "derived-from" => "source of",
        other => other,
    }
}

fn digest_of(path: &Path) -> Result<String, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::usage(format!("{} cannot be read: {error}", path.display()));
    let mut file = File::open(path).map_err(unreadable)?;
    let (mut hasher, mut buffer) = (DocumentHasher::new(DigestAlgorithm::Sha256), vec![0; 64 << 10]);
    loop {
        let length = file.read(&mut buffer).map_err(unreadable)?;
        if length == 0 {
            let digest = hasher.finish();
            return Ok(format!("{}:{}", digest.algorithm.name(), hex::encode(digest.value)));
        }
        hasher.update(&buffer[..length]);
    }
}

/// Percent-encodes everything but unreserved characters (RFC 3986 section 2.3).
fn encode(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_travel_whole() {
        assert_eq!(encode("a b+c&d=\u{fc}/%"), "a%20b%2Bc%26d%3D%C3%BC%2F%25");
    }
}

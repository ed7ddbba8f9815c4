//! For fuzz targets: what `inspect` shows of a file, and answers and small files that other commands read.
//!
//! Refuses to do: read or write files. Nothing here is an interface.

use crate::{client, extract, inspect, output, search};
use bulla_formats::json;

/// What `inspect` prints of these bytes, as text and as JSON; else why it prints nothing.
pub fn shown(bytes: &[u8]) -> Result<(String, String), String> {
    let (_, value, _) = inspect::look(bytes)?;
    Ok((output::tree(&value), value.to_string()))
}

/// Names and bytes of the files that `inspect --extract` writes of a `.seal`; `None` when these bytes are none.
pub fn extracted(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let (_, _, seal) = inspect::look(bytes).ok()?;
    seal.map(|seal| extract::parts(&seal))
}

/// A time as `search --from` takes it, in Unix milliseconds.
pub fn time(text: &str) -> Option<u64> {
    bulla_formats::report::utc_millis(text).ok()
}

/// A problem's name and sentence in the body of an answer.
pub fn problem(body: &[u8]) -> (String, Option<String>) {
    client::problem(body)
}

/// The body of an answer as `status` prints it, and as `search` prints a seal; `None` when it is no strict JSON.
pub fn answered(body: &[u8]) -> Option<(String, String)> {
    let value = json::parse(body, body.len()).ok()?;
    Some((output::tree(&value), search::line(&value)))
}

/// How many certificates a CA file holds; `None` when it is refused.
pub fn authorities(pem: &[u8]) -> Option<usize> {
    client::authorities(pem).ok().map(|found| found.len())
}

/// The token in a token file.
pub fn token(bytes: &[u8]) -> Option<&str> {
    client::token(bytes)
}

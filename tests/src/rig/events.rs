//! A reader of `GET /v1/events`: one connection that takes events as they come, at its own speed.
//!
//! Refuses to do: come back by itself; a test wants to see where a stream ended.

use super::Wire;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Log index, when it has one.
    pub id: Option<u64>,
    /// Name.
    pub name: String,
    /// Data; null for a block that only moves the position.
    pub data: Value,
}

/// An open stream.
pub struct EventReader {
    wire: Wire,
    /// Of the chunked body.
    raw: Vec<u8>,
    text: String,
}

impl EventReader {
    /// Asks for the stream; `last` is the id of the last event received.
    pub fn open(mut wire: Wire, token: &str, query: &str, last: Option<u64>) -> Result<Self> {
        let last = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request = format!(
            "GET /v1/events{query} HTTP/1.1\r\nHost: box\r\nAuthorization: Bearer {token}\r\n{last}\r\n"
        );
        wire.send(request.as_bytes())?;
        let mut raw = Vec::new();
        let head = loop {
            if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break String::from_utf8(raw.drain(..at + 4).collect())?;
            }
            ensure!(wire.more(&mut raw)?, "the stream ended before it began");
        };
        ensure!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/event-stream"), "{head}");
        Ok(EventReader { wire, raw, text: String::new() })
    }

    /// The next event or position; `None` when the box ended the stream.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(at) = self.text.find("\n\n") {
                let block: String = self.text.drain(..at + 2).collect();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                let id = field("id: ").map(str::parse).transpose()?;
                let data = field("data: ").map(serde_json::from_str).transpose()?;
                if id.is_none() && data.is_none() {
                    continue;
                }
                let name = field("event: ").unwrap_or_default().to_owned();
                return Ok(Some(Event { id, name, data: data.unwrap_or_default() }));
            }
            if !self.chunk()? {
                return Ok(None);
            }
        }
    }

    /// The next event that has data and an id.
    pub fn next_of_log(&mut self) -> Result<Option<Event>> {
        loop {
            match self.next_event()? {
                Some(event) if event.id.is_none() || event.data.is_null() => {}
                other => return Ok(other),
            }
        }
    }

    /// Takes one chunk; false at the end, proper or not.
    fn chunk(&mut self) -> Result<bool> {
        let line = loop {
            if let Some(at) = self.raw.windows(2).position(|two| two == b"\r\n") {
                break String::from_utf8(self.raw.drain(..at + 2).collect())?;
            }
            if !self.wire.more(&mut self.raw)? {
                return Ok(false);
            }
        };
        let length = usize::from_str_radix(line.trim(), 16).with_context(|| format!("no chunk: {line:?}"))?;
        while self.raw.len() < length + 2 {
            if !self.wire.more(&mut self.raw)? {
                return Ok(false);
            }
        }
        self.text.push_str(std::str::from_utf8(&self.raw[..length])?);
        self.raw.drain(..length + 2);
        Ok(length > 0)
    }
}

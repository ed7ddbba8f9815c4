//! A `multipart/form-data` body (RFC 7578), written out by hand so that a test can also write a bad one.

const BOUNDARY: &str = "5c1f--bulla-tests--9e07";

/// A form under construction.
#[derive(Debug, Clone, Default)]
pub struct Form {
    body: Vec<u8>,
}

impl Form {
    /// The header that goes with every form.
    pub const CONTENT_TYPE: (&str, &str) =
        ("Content-Type", "multipart/form-data; boundary=\"5c1f--bulla-tests--9e07\"");

    /// A form without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a text field.
    pub fn text(self, name: &str, value: &str) -> Self {
        self.part(name, "", value.as_bytes())
    }

    /// Adds a file; `headers` are more lines of its part, each ending in CRLF.
    pub fn file(self, name: &str, headers: &str, bytes: &[u8]) -> Self {
        self.part(&format!("{name}\"; filename=\"scan"), headers, bytes)
    }

    fn part(mut self, name: &str, headers: &str, bytes: &[u8]) -> Self {
        let head =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n{headers}\r\n");
        self.body.extend_from_slice(head.as_bytes());
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    /// The body, closed.
    pub fn finish(mut self) -> Vec<u8> {
        self.body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        self.body
    }

    /// The body without its end.
    pub fn unfinished(self) -> Vec<u8> {
        self.body
    }
}

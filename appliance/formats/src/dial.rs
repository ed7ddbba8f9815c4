//! What a box and a hub say to each other on a connection that the box has opened, before the hub speaks to the box through
//! it (docs/formats.md, *Dialling a hub*).
//!
//! Refuses to do: prove who the box is. Behind these few bytes come TLS and HTTP as on any connection to the box, and they
//! prove it; the token only says whose place is taken.
//! Invariant: a greeting has one spelling.

/// The protocol that both name in the handshake (ALPN).
pub const ALPN: &[u8] = b"bulla-dial/1";
/// Longest greeting, with its end of line.
pub const GREETING_BYTES_MAX: usize = 256;
/// The hub: the place is taken, wait.
pub const WAIT: u8 = b'w';
/// The hub: no such place, or another token.
pub const REFUSED: u8 = b'r';
/// The hub: enough connections wait here.
pub const FULL: u8 = b'f';
/// The hub, now and then: still there.
pub const STILL: u8 = b'.';
/// The hub: from the next byte on this is a connection to the box's HTTPS port.
pub const GO: u8 = b'!';

const PREFIX: &str = "bulla-dial/1 ";
const NAME_BYTES_MAX: usize = 64;
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 32..=128;

/// What a box says first: `bulla-dial/1 NAME TOKEN\n`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Greeting<'a> {
    name: &'a str,
    token: &'a str,
}

/// Whether this can name a place: 1 to 64 of `a-z A-Z 0-9 . _ -`.
pub fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// Whether this can be a token: 32 to 128 visible ASCII characters.
pub fn is_token(token: &str) -> bool {
    TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
}

impl<'a> Greeting<'a> {
    /// `None` when one of them cannot be said.
    pub fn new(name: &'a str, token: &'a str) -> Option<Self> {
        (is_name(name) && is_token(token)).then_some(Greeting { name, token })
    }

    /// Reads a greeting with its end of line.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(bytes).ok()?.strip_prefix(PREFIX)?.strip_suffix('\n')?;
        let (name, token) = line.split_once(' ')?;
        Greeting::new(name, token)
    }

    /// The bytes that are sent.
    pub fn encode(&self) -> String {
        format!("{PREFIX}{} {}\n", self.name, self.token)
    }

    /// Whose place.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The secret that both know.
    pub fn token(&self) -> &'a str {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn a_greeting_has_one_spelling() {
        let greeting = Greeting::new("bulla-4711", TOKEN).unwrap();
        let said = greeting.encode();
        assert_eq!(said, format!("bulla-dial/1 bulla-4711 {TOKEN}\n"));
        assert!(Greeting::parse(said.as_bytes()) == Some(greeting));
        assert!(GREETING_BYTES_MAX > PREFIX.len() + NAME_BYTES_MAX + 1 + TOKEN_BYTES.end());
        for bad in [
            String::new(),
            "\n".to_owned(),
            said.trim_end().to_owned(),
            said.replace('\n', "\r\n"),
            format!("{said}\n"),
            format!(" {said}"),
            said.replace("dial/1", "dial/2"),
            said.replace("bulla-4711 ", ""),
            said.replace("bulla-4711", ""),
            said.replace("bulla-4711", "b/1"),
            said.replace("bulla-4711", &"b".repeat(65)),
            said.replace(TOKEN, &TOKEN[1..]),
            said.replace(TOKEN, &"t".repeat(129)),
            said.replace("abc", "a c"),
            said.replace("abc", "aäc"),
        ] {
            assert!(Greeting::parse(bad.as_bytes()).is_none(), "{bad:?}");
        }
        assert!(Greeting::parse(b"bulla-dial/1 b \xff\n").is_none());
    }
}

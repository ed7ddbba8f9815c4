//! `[time]`: servers that tell the time (Roughtime) and vouch for nothing.
//!
//! Refuses to do: resolve names; take a server without its key.
//! Invariant: what [`check`] has passed can be asked.

use super::{ConfigError, between, refuse};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulla_formats::body::probe::is_name;
use bulla_protocol::sources::SourcePolicy;
use bulla_roughtime::ServerKey;
use serde::Deserialize;

/// Most Roughtime servers of one box.
pub const ROUGHTIME_MAX: usize = 8;

/// `[time]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeSourcesConfig {
    /// Seconds from one good answer of a server to the next question, give or take a quarter; and the longest pause after
    /// failures. Default 900.
    pub every_seconds: u64,
    /// First pause in seconds after a failure; doubles up to `every_seconds`, and to 8 times this while the time is not
    /// known. Default 10.
    pub retry_seconds: u64,
    /// Roughtime servers. Default none.
    pub roughtime: Vec<RoughtimeConfig>,
}

impl Default for TimeSourcesConfig {
    fn default() -> Self {
        TimeSourcesConfig { every_seconds: 900, retry_seconds: 10, roughtime: Vec::new() }
    }
}

/// `[[time.roughtime]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoughtimeConfig {
    /// Its name in log, status and metrics. Required.
    pub name: String,
    /// Who runs it. Required.
    pub operator: String,
    /// Where it listens (UDP), as `host:port`; an IPv6 address in brackets. Required.
    pub address: String,
    /// Its long-term Ed25519 key, 32 bytes in base64. Required.
    pub public_key: String,
    /// Longest time in seconds to wait for an answer. Default 5.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
}

fn default_timeout() -> u64 {
    5
}

impl TimeSourcesConfig {
    /// As `bulla_protocol` has it.
    pub fn policy(&self) -> SourcePolicy {
        SourcePolicy { every: self.every_seconds * 1_000, retry: self.retry_seconds * 1_000 }
    }
}

impl RoughtimeConfig {
    /// Host and port; `None` when the address has not both.
    pub fn place(&self) -> Option<(&str, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None if host.contains(':') => return None,
            None => host,
        };
        let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '[' | ']' | '/' | '@');
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!bare.is_empty() && bare.len() <= 255 && bare.chars().all(fits)).then_some((bare, port))
    }

    /// Its key; `None` when it is none.
    pub fn key(&self) -> Option<ServerKey> {
        ServerKey::new(&STANDARD.decode(&self.public_key).ok()?.try_into().ok()?)
    }
}

/// Ranges and combinations.
pub(super) fn check(time: &TimeSourcesConfig) -> Result<(), ConfigError> {
    between("time.every_seconds", time.every_seconds, 1, 86_400)?;
    between("time.retry_seconds", time.retry_seconds, 1, time.every_seconds)?;
    if time.roughtime.len() > ROUGHTIME_MAX {
        return refuse("time.roughtime", format!("name at most {ROUGHTIME_MAX} servers"));
    }
    for (at, server) in time.roughtime.iter().enumerate() {
        if !is_name(&server.name) || !is_name(&server.operator) {
            return refuse("time.roughtime", "every server has a name and an operator of 1 to 64 bytes");
        }
        if time.roughtime[..at].iter().any(|other| other.name == server.name) {
            return refuse("time.roughtime", format!("two servers are called {:?}", server.name));
        }
        if server.place().is_none() {
            let reason = format!("{:?} is no address: write host:port, or [IPv6]:port", server.address);
            return refuse("time.roughtime.address", reason);
        }
        if server.key().is_none() {
            let reason = format!(
                "{:?} is no Ed25519 public key: write its 32 bytes in base64, as the operator publishes them",
                server.public_key
            );
            return refuse("time.roughtime.public_key", reason);
        }
        between("time.roughtime.timeout_seconds", server.timeout_seconds, 1, 60)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AW5uAoTSTDfG5NfY1bTh08GUnOqlRb+HVhbJ3ODJvsE=";

    fn read(text: &str) -> Result<TimeSourcesConfig, String> {
        let config: TimeSourcesConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&config).map(|()| config).map_err(|error| error.to_string())
    }

    fn server(address: &str, key: &str) -> String {
        format!(
            "[[roughtime]]\nname = \"r\"\noperator = \"R\"\naddress = {address:?}\npublic_key = {key:?}\n"
        )
    }

    #[test]
    fn addresses_are_host_and_port() {
        for (address, place) in [
            ("roughtime.example:2002", ("roughtime.example", 2002)),
            ("192.0.2.7:1", ("192.0.2.7", 1)),
            ("[2001:db8::7]:65535", ("2001:db8::7", 65535)),
        ] {
            assert_eq!(read(&server(address, KEY)).unwrap().roughtime[0].place(), Some(place));
        }
        assert!(read("").unwrap().roughtime.is_empty());
    }

    #[test]
    fn mistakes_are_named() {
        let wrong = [
            "roughtime.example",
            ":2002",
            "a:0",
            "a:65536",
            "a:b",
            "2001:db8::7:1",
            "[::1",
            "[]:1",
            "a b:1",
            "http://a:1",
            "",
        ];
        for address in wrong {
            let error = read(&server(address, KEY)).unwrap_err();
            assert!(error.starts_with("time.roughtime.address: "), "{address}: {error}");
        }
        let zeros = STANDARD.encode([0; 32]);
        for key in ["", "AAAA", &KEY[..43], &format!("{KEY}="), &zeros, &"A".repeat(44)] {
            let error = read(&server("a:1", key)).unwrap_err();
            assert!(error.starts_with("time.roughtime.public_key: "), "{key}: {error}");
        }
        let good = server("a:1", KEY);
        for (text, word) in [
            ("every_seconds = 0".to_owned(), "time.every_seconds"),
            ("every_seconds = 86401".to_owned(), "time.every_seconds"),
            ("retry_seconds = 901".to_owned(), "time.retry_seconds"),
            ("ntp = 1".to_owned(), "ntp"),
            (format!("{good}timeout_seconds = 61"), "time.roughtime.timeout_seconds"),
            (format!("{good}key = 1"), "key"),
            (format!("{good}{good}"), "two servers are called \"r\""),
            (good.replace("\"R\"", "\"\""), "a name and an operator"),
            (good.replace("public_key", "# "), "public_key"),
            (good.repeat(ROUGHTIME_MAX + 1), "at most 8"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

//! `[dial_out]`: a hub that cannot reach this box, and is dialled by it.
//!
//! Refuses to do: say what that hub may read; that is `clients` and the roster, as for a hub that comes by itself.

use super::{ConfigError, between, refuse};
use bulla_formats::dial::is_name;
use serde::Deserialize;
use std::path::PathBuf;

/// `[dial_out]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialOutConfig {
    /// The hub, as `name:port` or `address:port`: what it listens on for `serve`. Required.
    pub hub: String,
    /// CA certificates (PEM) by which the hub must be certified; no others count. Required.
    pub ca: PathBuf,
    /// The name of this box among the hub's `[[serve.dial_in]]`. Required.
    pub name: String,
    /// File that holds the token that belongs to it. Required.
    pub token_file: PathBuf,
    /// Connections that wait for the hub. Default 4.
    #[serde(default = "waiting")]
    pub waiting: usize,
}

fn waiting() -> usize {
    4
}

impl DialOutConfig {
    /// Name and port of the hub; checked when the configuration was read.
    pub fn address(&self) -> Option<(&str, u16)> {
        let (host, port) = self.hub.rsplit_once(':')?;
        let host = host.strip_prefix('[').map_or(Some(host), |inner| inner.strip_suffix(']'))?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        (!host.is_empty() && !host.contains(['/', '@', ' '])).then_some((host, port))
    }
}

/// Ranges.
pub(super) fn check(dial: &DialOutConfig) -> Result<(), ConfigError> {
    if dial.address().is_none() {
        return refuse("dial_out.hub", "write the hub's name and port, e.g. \"hub.bank.example:8446\"");
    }
    if !is_name(&dial.name) {
        return refuse("dial_out.name", "write 1 to 64 of the characters a-z A-Z 0-9 . _ -");
    }
    between("dial_out.waiting", dial.waiting as u64, 1, 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_has_a_name_and_a_port() {
        let of = |hub: &str| DialOutConfig {
            hub: hub.to_owned(),
            ca: PathBuf::from("ca.pem"),
            name: "bulla-4711".to_owned(),
            token_file: PathBuf::from("token"),
            waiting: 4,
        };
        assert_eq!(of("hub.bank.example:8446").address(), Some(("hub.bank.example", 8446)));
        assert_eq!(of("[fd00::1]:1").address(), Some(("fd00::1", 1)));
        for bad in ["", "hub", "hub:", ":1", "hub:0", "hub:65536", "https://hub:1", "[fd00::1:1", "a b:1"] {
            assert!(check(&of(bad)).is_err(), "{bad}");
        }
        assert!(check(&of("hub:1")).is_ok());
        assert!(check(&DialOutConfig { waiting: 17, ..of("hub:1") }).is_err());
        assert!(check(&DialOutConfig { name: "a/b".to_owned(), ..of("hub:1") }).is_err());
    }
}

//! `[console]`: pages for people.
//!
//! Refuses to do: keep a session for ever; show the claim page, which nothing protects, outside of private networks.

use super::{ConfigError, between};
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// `[console]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleConfig {
    /// Serve the console at `/`. Default true; nobody can log in before `bulla-box people add`.
    pub enabled: bool,
    /// Seconds after which a session ends in which nothing was done. Default 1800.
    pub idle_seconds: u64,
    /// Seconds after which a session ends in any case. Default 43200.
    pub session_seconds: u64,
    /// Address and port of the claim page, over plain HTTP, while `bulla-box enroll` waits. Absent (default): none.
    pub claim_page: Option<SocketAddr>,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        ConsoleConfig { enabled: true, idle_seconds: 1_800, session_seconds: 43_200, claim_page: None }
    }
}

impl ConsoleConfig {
    /// How long a session lasts without use.
    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_seconds)
    }

    /// How long a session lasts.
    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.session_seconds)
    }
}

/// Ranges.
pub(super) fn check(console: &ConsoleConfig) -> Result<(), ConfigError> {
    between("console.idle_seconds", console.idle_seconds, 5, 86_400)?;
    between("console.session_seconds", console.session_seconds, 5, 604_800)?;
    let refuse = |reason| Err(ConfigError::Value { key: "console.claim_page", reason });
    console.claim_page.map_or(Ok(()), |address| claim_address(address).or_else(refuse))
}

/// Whether the claim page may be shown at this address.
///
/// # Errors
/// Says what to write instead: it is for the branch's own network.
pub fn claim_address(address: SocketAddr) -> Result<(), String> {
    if address.ip().is_unspecified() || is_private(address.ip()) {
        return Ok(());
    }
    Err(format!("{} is not an address of a private network; name one that is, or 0.0.0.0", address.ip()))
}

/// Whether an address is of this machine, of its link, or of a private network (RFC 1918, RFC 4193).
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_private(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_claim_page_is_for_private_networks() {
        let of = |text: &str| claim_address(text.parse().unwrap()).is_ok();
        for good in [
            "0.0.0.0:80",
            "[::]:80",
            "127.0.0.1:0",
            "10.1.2.3:80",
            "172.31.0.1:80",
            "192.168.9.9:80",
            "169.254.3.4:80",
            "[::1]:80",
            "[fd12::1]:80",
            "[fe80::1]:80",
            "[::ffff:10.0.0.1]:80",
        ] {
            assert!(of(good), "{good}");
        }
        for bad in [
            "203.0.113.7:80",
            "172.32.0.1:80",
            "100.64.0.1:80",
            "[2001:db8::1]:80",
            "[::ffff:8.8.8.8]:80",
            "255.255.255.255:80",
        ] {
            assert!(!of(bad), "{bad}");
        }
        // Nobody comes from nowhere.
        assert!(!is_private("0.0.0.0".parse().unwrap()) && !is_private("::".parse().unwrap()));
    }
}

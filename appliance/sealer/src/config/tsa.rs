//! `[tsa]`: RFC 3161 time stamps for programs of the LAN.
//!
//! Refuses to do: let anybody ask without a credential unless networks *and* a scanner are named, in whose name the seals
//! are then made.

use super::{ConfigError, between, refuse};
use bulla_timestamps::Oid;
use ipnet::IpNet;
use serde::Deserialize;
use std::net::IpAddr;

/// Most networks: they are looked through one by one.
const NETWORKS_MAX: usize = 64;

/// What is answered while the box knows no bound of its clock's error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownTime {
    /// `timeNotAvailable`.
    #[default]
    Refuse,
    /// A token that states no accuracy.
    Unstated,
}

/// `[tsa]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResponderConfig {
    /// Whether `POST /tsa` makes time stamps. Default false.
    pub enabled: bool,
    /// Object identifier of the policy that tokens are under. Default: that of boxes, docs/formats.md section 18.
    pub policy: Option<String>,
    /// Largest accuracy in seconds that a token may state; beyond it the box refuses as it does without a bound. Default 60.
    pub accuracy_max_seconds: u64,
    /// What is answered while the box knows no bound of its clock's error: `refuse` (default) or `unstated`.
    pub unknown_time: UnknownTime,
    /// Networks whose programs may ask without a credential. Default none.
    pub networks: Vec<IpNet>,
    /// The registered scanner in whose name their seals are made. Required with `networks`.
    pub network_client: Option<String>,
}

impl Default for ResponderConfig {
    fn default() -> Self {
        ResponderConfig {
            enabled: false,
            policy: None,
            accuracy_max_seconds: 60,
            unknown_time: UnknownTime::Refuse,
            networks: Vec::new(),
            network_client: None,
        }
    }
}

impl ResponderConfig {
    /// The policy that tokens are under.
    pub fn policy(&self) -> Oid {
        let named = self.policy.as_ref().and_then(|text| Oid::parse(text).ok());
        named.unwrap_or_else(Oid::of_boxes)
    }

    /// Who is sealed for when this address asks without a credential; `None`: it may not.
    pub fn client_of(&self, address: IpAddr) -> Option<&str> {
        let address = address.to_canonical();
        let is_in = self.networks.iter().any(|network| network.contains(&address));
        self.network_client.as_deref().filter(|_| self.enabled && is_in)
    }
}

pub(super) fn check(tsa: &ResponderConfig) -> Result<(), ConfigError> {
    if let Some(text) = &tsa.policy {
        Oid::parse(text)
            .map_err(|error| ConfigError::Value { key: "tsa.policy", reason: error.to_string() })?;
    }
    between("tsa.accuracy_max_seconds", tsa.accuracy_max_seconds, 1, 86_400)?;
    if tsa.networks.len() > NETWORKS_MAX {
        return refuse("tsa.networks", format!("name at most {NETWORKS_MAX}"));
    }
    match (tsa.networks.is_empty(), &tsa.network_client) {
        (false, None) => refuse(
            "tsa.network_client",
            "name the scanner (`bulla-box scanner add`) that seals are made for when these networks ask",
        ),
        (true, Some(_)) => {
            refuse("tsa.networks", "name the networks that network_client is for, or remove it")
        }
        (_, Some(name)) if name.is_empty() => {
            refuse("tsa.network_client", "name a scanner of `bulla-box scanner add`")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ResponderConfig, String> {
        let config: ResponderConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&config).map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn nobody_asks_without_a_credential_unless_told() {
        let inside: IpAddr = "192.0.2.7".parse().unwrap();
        assert_eq!(read("enabled = true").unwrap().client_of(inside), None);
        let told = read(
            "enabled = true\nnetworks = [\"192.0.2.0/24\", \"2001:db8::/64\"]\nnetwork_client = \"lan\"\n",
        );
        let told = told.unwrap();
        assert_eq!(told.client_of(inside), Some("lan"));
        assert_eq!(
            told.client_of("::ffff:192.0.2.7".parse().unwrap()),
            Some("lan"),
            "IPv4 on an IPv6 socket"
        );
        assert_eq!(told.client_of("2001:db8::1".parse().unwrap()), Some("lan"));
        assert_eq!(told.client_of("192.0.3.7".parse().unwrap()), None);
        assert_eq!(ResponderConfig { enabled: false, ..told }.client_of(inside), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, word) in [
            ("policy = \"1\"", "no object identifier"),
            ("policy = \"2.25.340282366920938463463374607431768211455\"", "no object identifier"),
            ("accuracy_max_seconds = 0", "between"),
            ("accuracy_max_seconds = 86401", "between"),
            ("unknown_time = \"guess\"", "guess"),
            ("networks = [\"192.0.2.0/24\"]", "network_client"),
            ("networks = [\"192.0.2.0/33\"]\nnetwork_client = \"lan\"", "networks"),
            ("network_client = \"lan\"", "networks"),
            ("networks = [\"192.0.2.0/24\"]\nnetwork_client = \"\"", "scanner add"),
            ("bogus = 1", "bogus"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert_eq!(read("").unwrap().policy(), Oid::of_boxes());
        assert_eq!(read("policy = \"1.2.3.4.1\"").unwrap().policy().to_string(), "1.2.3.4.1");
    }
}

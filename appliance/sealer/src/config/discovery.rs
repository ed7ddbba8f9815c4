//! `[discovery]`: whether the box tells its LAN where it is.

use serde::Deserialize;

/// `[discovery]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiscoveryConfig {
    /// Announce the HTTPS listener as `_bulla._tcp` by multicast DNS. Default false.
    pub announce: bool,
}

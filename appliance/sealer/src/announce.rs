//! DNS-SD (RFC 6763): the box tells its LAN where it listens, as `_bulla._tcp`, so that nobody has to type its address.
//!
//! Refuses to do: vouch for anything. What is announced is a hint, and anybody can announce anything: clients trust the CA
//! certificate that they compared, whose fingerprint is repeated here for people to compare, not instead of it.
//! Invariant: a box that cannot announce itself seals all the same.

use crate::config::Config;
use bulla_formats::origin::Origin;
use mdns_sd::{ServiceDaemon, ServiceInfo};
use std::net::SocketAddr;
use std::time::Duration;

/// Its type in the local domain.
const SERVICE: &str = "_bulla._tcp.local.";
/// Longest text of one attribute, its name and `=` included (RFC 6763, 6.1).
const ATTRIBUTE_BYTES_MAX: usize = 255;
/// How long the farewell may take at a stop.
const FAREWELL: Duration = Duration::from_secs(1);

/// An announcement that lasts until it is stopped.
pub struct Announcement {
    daemon: ServiceDaemon,
    name: String,
}

/// Announces the box when it is told to; what goes wrong is in the log.
pub fn start(config: &Config, origin: &Origin, address: SocketAddr, ca: &str) -> Option<Announcement> {
    if !config.discovery.announce {
        return None;
    }
    if address.ip().is_loopback() {
        log::warn!(
            "the box listens on {address} only, where nobody on the LAN reaches it: it is not announced"
        );
        return None;
    }
    match announce(config, origin, address, ca) {
        Ok(announcement) => {
            log::info!("announced on the LAN as {}", announcement.name);
            Some(announcement)
        }
        Err(error) => {
            log::warn!("the box is not announced on the LAN: {error}");
            None
        }
    }
}

fn announce(
    config: &Config,
    origin: &Origin,
    address: SocketAddr,
    ca: &str,
) -> Result<Announcement, mdns_sd::Error> {
    // Part of the hash that names the log, so that two boxes of a LAN never have one name.
    let id = origin.as_str().split('/').nth(1).and_then(|id| id.get(..12)).unwrap_or("box");
    let attributes: Vec<(&str, String)> = attributes(config, origin, ca)
        .into_iter()
        .filter(|(name, value)| name.len() + 1 + value.len() <= ATTRIBUTE_BYTES_MAX)
        .collect();
    let instance = format!("Bulla {id}");
    let host = format!("bulla-{id}.local.");
    let any = address.ip().is_unspecified();
    let ip = if any { String::new() } else { address.ip().to_string() };
    let service = ServiceInfo::new(SERVICE, &instance, &host, ip.as_str(), address.port(), &attributes[..])?;
    let service = if any { service.enable_addr_auto() } else { service };
    let daemon = ServiceDaemon::new()?;
    let name = service.get_fullname().to_owned();
    daemon.register(service)?;
    Ok(Announcement { daemon, name })
}

/// What the TXT record says.
fn attributes<'a>(config: &Config, origin: &Origin, ca: &str) -> Vec<(&'a str, String)> {
    let mut attributes = vec![
        ("txtvers", "1".to_owned()),
        ("origin", origin.as_str().to_owned()),
        ("ca", format!("sha256:{ca}")),
        ("path", "/v1".to_owned()),
    ];
    if config.tsa.enabled {
        attributes.push(("tsa", "/tsa".to_owned()));
    }
    attributes
}

impl Announcement {
    /// Takes it back. Blocks for a moment, so that the LAN hears of it.
    pub fn stop(self) {
        let gone = self.daemon.unregister(&self.name);
        if gone.is_ok_and(|gone| gone.recv_timeout(FAREWELL).is_err()) {
            log::info!("the LAN was not told that the box has gone; what it remembers expires by itself");
        }
        // The process ends anyway.
        let _ = self.daemon.shutdown();
    }
}

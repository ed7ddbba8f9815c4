//! Trust of a fleet of one: what this box's own root says, for auditors and for its own verify route.
//!
//! Refuses to do: include anything secret; judge boot states for others (no references are exported).

use crate::config::Config;
use crate::driver::clock::now_millis;
use crate::driver::outage::authority;
use crate::identity;
use crate::peers::NeighbourStore;
use anyhow::{Context, Result};
use bulla_formats::enrolment::Hardware;
use bulla_formats::trust::{Authorities, COSIGNERS_MAX, Policy, TrustFile, fingerprint};
use std::path::Path;

/// The trust file of a fleet of one.
pub fn of_fleet(
    fleet: &str,
    root: [u8; 32],
    hardware: Hardware,
    authorities: Option<Authorities>,
) -> TrustFile {
    let accept_software = hardware == Hardware::Software;
    TrustFile {
        fleet: fleet.to_owned(),
        issued_millis: now_millis(),
        roots: vec![root],
        references: Vec::new(),
        policy: Policy { accept_software, require_facts: vec!["sealed".to_owned()] },
        roster: None,
        authorities,
        cosigners: Vec::new(),
    }
}

/// Writes the trust file to `out`, with the cards of the neighbours as they are now; returns its fingerprint.
pub fn export(config: &Config, out: &Path) -> Result<String> {
    let (root, origin, hardware) = identity::fleet_root(config)?;
    let authorities = authority::trusted(&config.anchors)?;
    let mut cosigners = NeighbourStore::new(&config.state_dir).list()?;
    cosigners.sort_by(|a, b| a.origin().as_str().cmp(b.origin().as_str()));
    cosigners.truncate(COSIGNERS_MAX);
    let text = TrustFile { cosigners, ..of_fleet(origin.fleet(), root, hardware, authorities) }.encode();
    std::fs::write(out, &text).with_context(|| format!("cannot write {}", out.display()))?;
    Ok(fingerprint(text.as_bytes()))
}

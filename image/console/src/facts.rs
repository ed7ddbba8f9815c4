//! What the console knows at a moment: what the box says of itself, what the machine's ports are, what is being tried.
//!
//! Refuses to do: ask the box anything; it says once a second what there is to say, in a file (docs/formats.md, *Status for
//! the console*). Invariant: what is older than [`FRESH_MILLIS`] is not shown as the state of the box.

use crate::change::{self, Kept, Trial, boottime_millis};
use crate::networkd;
use crate::place::Places;
use bulla_formats::box_status::{BoxStatus, Enrolling, Running, STATUS_BYTES_MAX};
use rustix::fs::OFlags;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// A box writes once a second; a machine that is busy may be late.
pub const FRESH_MILLIS: u64 = 15_000;

/// What the box is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The data partition does not open.
    DataClosed,
    /// The data partition is not there yet.
    Starting,
    /// Nobody has taken the box into service.
    Unclaimed,
    /// It asks to be enrolled.
    Enrolling(Box<Enrolling>),
    /// It runs.
    Running(Box<Running>),
    /// It was taken into service, and does not run.
    Stopped,
    /// It runs and has said nothing for so many seconds.
    Silent(u64),
    /// What it says cannot be read.
    Odd,
}

/// A port of the machine, or the interface of its VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Whether something is at the other end of the cable; `None` when the system does not say.
    pub carrier: Option<bool>,
    /// Its addresses with their prefixes.
    pub addresses: Vec<String>,
}

/// Everything there is to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What the box is up to.
    pub standing: Standing,
    /// Version of the image.
    pub image: String,
    /// Ports.
    pub ports: Vec<Port>,
    /// The network settings that count.
    pub kept: Kept,
    /// Those that are being tried.
    pub trial: Option<Trial>,
    /// Seconds until they are taken back.
    pub trial_seconds: u64,
}

impl Facts {
    /// Looks.
    pub fn look(places: &Places) -> Self {
        let trial = change::trial(places);
        let left = trial.as_ref().map_or(0, |trial| trial.until_boottime.saturating_sub(boottime_millis()));
        Facts {
            standing: standing(places),
            image: image(&places.os_release),
            ports: ports(places),
            kept: change::kept(places),
            trial,
            trial_seconds: left.div_ceil(1_000),
        }
    }
}

fn standing(places: &Places) -> Standing {
    if places.locked.exists() {
        return Standing::DataClosed;
    }
    // What is written last counts: a box that was enrolled and runs has said more than the enrolment before it.
    for path in [&places.running, &places.enrolling] {
        let Some(file) = read_foreign(path) else { continue };
        let Some(said) = BoxStatus::parse(&file) else { return Standing::Odd };
        let age = boottime_millis().saturating_sub(said.boottime_millis);
        return match (said.running, said.enrolling) {
            _ if age > FRESH_MILLIS => Standing::Silent(age / 1_000),
            (Some(running), _) => Standing::Running(Box::new(running)),
            (None, Some(enrolling)) => Standing::Enrolling(Box::new(enrolling)),
            (None, None) => Standing::Odd,
        };
    }
    match places.settings.parent().map(Path::exists) {
        Some(true) if places.configuration.exists() => Standing::Stopped,
        Some(true) => Standing::Unclaimed,
        _ => Standing::Starting,
    }
}

/// A file that a program with fewer rights has written: whatever else it has put there, nobody waits for it.
fn read_foreign(path: &Path) -> Option<Vec<u8>> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().try_into().ok()?;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(_) => return Some(Vec::new()),
    };
    let mut bytes = Vec::new();
    if file.metadata().is_ok_and(|meta| meta.is_file()) {
        // What is longer is no status.
        let _cut_off = file.take(STATUS_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    }
    Some(bytes)
}

fn image(os_release: &Path) -> String {
    let text = fs::read_to_string(os_release).unwrap_or_default();
    let version = text.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}

fn ports(places: &Places) -> Vec<Port> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let mut names = networkd::ports(places);
    for interface in &all {
        if !interface.is_loopback() && !names.contains(&interface.name) {
            names.push(interface.name.clone());
        }
    }
    let port = |name: String| {
        let carrier = fs::read_to_string(places.ports.join(&name).join("carrier")).ok();
        let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(ip) if ip.segments()[0] & 0xffc0 == 0xfe80);
        let own = all.iter().filter(|interface| interface.name == name && !link_local(&interface.ip()));
        let addresses = own.map(|interface| match &interface.addr {
            if_addrs::IfAddr::V4(four) => format!("{}/{}", four.ip, four.prefixlen),
            if_addrs::IfAddr::V6(six) => format!("{}/{}", six.ip, six.prefixlen),
        });
        Port { addresses: addresses.collect(), carrier: carrier.map(|word| word.trim() == "1"), name }
    };
    names.into_iter().map(port).collect()
}

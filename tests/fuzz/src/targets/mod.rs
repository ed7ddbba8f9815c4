//! The targets. Each file says what it reads and what must hold of it.
//!
//! Related parsers share a target; the first byte of an input then says which one gets the rest.

pub mod archive;
pub mod audit;
pub mod ceremony;
pub mod configuration;
pub mod der;
pub mod enrolment;
pub mod event_log;
pub mod http;
pub mod inspect;
pub mod keys;
pub mod ledger;
pub mod manifest;
pub mod network;
pub mod note;
pub mod packages;
pub mod peers;
pub mod printed;
pub mod requests;
pub mod roster;
pub mod roughtime;
pub mod scans;
pub mod seal;
pub mod seal_parts;
pub mod stamps;
pub mod state;
pub mod tpm;
pub mod trees;
pub mod update;
pub mod witness;

/// A fuzz target.
pub struct Target {
    /// Its name: that of its file here and of its directory of regressions.
    pub name: &'static str,
    /// Reads an input and panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Genuine inputs.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets, by name.
pub const ALL: [Target; 29] = [
    Target { name: "archive", run: archive::run, seeds: archive::seeds },
    Target { name: "audit", run: audit::run, seeds: audit::seeds },
    Target { name: "ceremony", run: ceremony::run, seeds: ceremony::seeds },
    Target { name: "configuration", run: configuration::run, seeds: configuration::seeds },
    Target { name: "der", run: der::run, seeds: der::seeds },
    Target { name: "enrolment", run: enrolment::run, seeds: enrolment::seeds },
    Target { name: "event_log", run: event_log::run, seeds: event_log::seeds },
    Target { name: "http", run: http::run, seeds: http::seeds },
    Target { name: "inspect", run: inspect::run, seeds: inspect::seeds },
    Target { name: "keys", run: keys::run, seeds: keys::seeds },
    Target { name: "ledger", run: ledger::run, seeds: ledger::seeds },
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds },
    Target { name: "network", run: network::run, seeds: network::seeds },
    Target { name: "note", run: note::run, seeds: note::seeds },
    Target { name: "packages", run: packages::run, seeds: packages::seeds },
    Target { name: "peers", run: peers::run, seeds: peers::seeds },
    Target { name: "printed", run: printed::run, seeds: printed::seeds },
    Target { name: "requests", run: requests::run, seeds: requests::seeds },
    Target { name: "roster", run: roster::run, seeds: roster::seeds },
    Target { name: "roughtime", run: roughtime::run, seeds: roughtime::seeds },
    Target { name: "scans", run: scans::run, seeds: scans::seeds },
    Target { name: "seal", run: seal::run, seeds: seal::seeds },
    Target { name: "seal_parts", run: seal_parts::run, seeds: seal_parts::seeds },
    Target { name: "stamps", run: stamps::run, seeds: stamps::seeds },
    Target { name: "state", run: state::run, seeds: state::seeds },
    Target { name: "tpm", run: tpm::run, seeds: tpm::seeds },
    Target { name: "trees", run: trees::run, seeds: trees::seeds },
    Target { name: "update", run: update::run, seeds: update::seeds },
    Target { name: "witness", run: witness::run, seeds: witness::seeds },
];

/// The first byte of an input, modulo `choices`, and the rest.
pub(crate) fn split(data: &[u8], choices: u8) -> Option<(u8, &[u8])> {
    data.split_first().map(|(choice, rest)| (choice % choices, rest))
}

/// A seed for the parser that the first byte chooses.
pub(crate) fn seed(choice: u8, rest: impl AsRef<[u8]>) -> Vec<u8> {
    [&[choice], rest.as_ref()].concat()
}

//! File descriptors: as many as the operating system allows, and never all of them for connections.
//!
//! A log that cannot open a file cannot roll over, recover or be read. So connections get what is left after what
//! is open at the start and a reserve for what the log opens later; beyond that they wait in the kernel's queue.
//! Refuses to do: serve with fewer than [`CONNECTIONS_MIN`] connections.

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};

/// For the log: the closed segments it keeps open (32), two at a roll-over, `openings.redb`, `opening-keys.redb` and
/// `side.redb` taken up again, lists of clients, the TPM's connection, and what else a running box opens for a moment.
/// Each takes one or two.
const RESERVE: u64 = 96;
/// With fewer a box would be a riddle to its clients.
const CONNECTIONS_MIN: usize = 8;

/// Raises the limit of open files as far as this process may, and returns how many of `wanted` connections fit.
/// Call it when everything else that is always open has been opened.
pub fn fit_connections(wanted: usize) -> Result<usize> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => log::warn!("the limit of open files stays at {:?}: {error}", limit.current),
        }
    }
    let Some(files) = limit.current else { return Ok(wanted) };
    let open =
        std::fs::read_dir("/proc/self/fd").context("cannot count open files in /proc/self/fd")?.count();
    let left = files.saturating_sub(open as u64).saturating_sub(RESERVE);
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(wanted);
    ensure!(
        most >= CONNECTIONS_MIN.min(wanted),
        "this process may open {files} files, {open} are open and {RESERVE} are kept for the log: too few are left for \
         connections; raise LimitNOFILE= of the unit, or `ulimit -n`"
    );
    if most < wanted {
        log::warn!(
            "limits.connections_max = {wanted} needs more open files than the {files} this process may have; {most} \
             connections are taken at a time; raise LimitNOFILE= of the unit to {}",
            wanted as u64 + open as u64 + RESERVE
        );
    }
    Ok(most)
}

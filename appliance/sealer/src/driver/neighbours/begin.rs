//! The start: what the neighbours know of this box is heard before anything is sealed or signed.
//!
//! Refuses to do: wait longer than the configuration says; keep a box from sealing because nobody can be reached.

use super::desk::{Desk, Parts};
use super::{Handle, finding};
use crate::approved::Place;
use crate::config::Config;
use crate::driver::{Command, Shared, attest, outage};
use crate::peers::Own;
use anyhow::{Context as _, Result};
use bulla_ledger::Control;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Beyond the configured wait: for mirrors that take long to be opened.
const SLACK: Duration = Duration::from_secs(5);

/// What has been begun.
pub struct Begun {
    /// The way to the thread.
    pub handle: Handle,
    /// The thread.
    pub thread: JoinHandle<()>,
    /// What the neighbours know that this disk does not.
    pub finding: Option<String>,
}

/// Begins the thread and waits for what the neighbours know; `None` without `[peers]`, or where nobody can be asked.
pub(in crate::driver) fn begin(
    config: &Config,
    own: Option<Own>,
    shared: &Arc<Shared>,
    queue: &mpsc::Sender<Command>,
    control: &Control,
    outage: &outage::Handle,
    attestor: &attest::Handle,
) -> Result<Option<Begun>> {
    // A command at the stopped box has no runtime, and no time for neighbours.
    let (Some(own), Ok(runtime)) = (own, tokio::runtime::Handle::try_current()) else { return Ok(None) };
    let Some(peers) = &config.peers else { return Ok(None) };
    let (handle, inbox) = Handle::new();
    let (start, standing) = channel();
    let parts = Parts {
        shared: shared.clone(),
        queue: queue.clone(),
        control: control.clone(),
        outage: outage.clone(),
        attestor: attestor.clone(),
        own,
        config: peers.clone(),
        reserve_bytes: config.sealing.reserve_bytes,
        state_dir: config.state_dir.clone(),
        place: Place::of(config),
        handle: handle.clone(),
        runtime,
        start,
    };
    let desk = match Desk::open(parts) {
        Ok(desk) => desk,
        Err(error) => {
            // Sealing does not depend on neighbours.
            log::error!("the box runs without its neighbours: {error:#}; correct it and start the box again");
            shared.set_neighbour_trouble(format!("{error:#}"));
            return Ok(None);
        }
    };
    let thread = std::thread::Builder::new().name("neighbours".to_owned()).spawn(move || desk.run(inbox));
    let thread = thread.context("cannot start a thread")?;
    let patience = Duration::from_secs(peers.start_wait_seconds) + SLACK;
    let finding = match standing.recv_timeout(patience) {
        Ok(standing) => finding(&standing),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
    };
    Ok(Some(Begun { handle, thread, finding }))
}

impl Shared {
    fn set_neighbour_trouble(&self, trouble: String) {
        self.set_neighbour_facts(super::Facts {
            peers: Vec::new(),
            standing: "nobody",
            kept_out: Vec::new(),
            rosters: Vec::new(),
            foreign: Vec::new(),
            roster_troubles: Vec::new(),
            counted: bulla_peers::Counted::default(),
            trouble: Some(trouble),
        });
    }
}

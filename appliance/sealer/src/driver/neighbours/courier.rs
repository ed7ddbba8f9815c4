//! The way to the registrar, while the box runs: hands in the card, and asks what is new of the roster.
//!
//! Refuses to do: speak to a registrar with another key than the one that was pinned at the enrolment; wait for it anywhere
//! that matters: a registrar that is away for days costs nothing but news.

use super::{Handle, Message};
use crate::enrolling::{Registrar, fleet_file};
use crate::peers::Own;
use anyhow::{Context as _, Result};
use bulla_formats::der::{self, Octets32};
use bulla_formats::peer::roster::{RosterKnown, RosterRequest, RosterRequestContent, RosterSaid};
use ed25519_dalek::{Signer as _, SigningKey};
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

/// Before the first question: the box has other things to do when it starts.
const FIRST: Duration = Duration::from_secs(2);
/// Longest wait for the thread to take up a part of a long roster.
const TAKEN: Duration = Duration::from_secs(10);

/// Whoever asks.
pub(super) struct Courier {
    registrar: Registrar,
    fleet: String,
    card: Vec<u8>,
    transport: SigningKey,
    version: watch::Receiver<Option<RosterKnown>>,
    every: Duration,
}

impl Courier {
    /// For a box that a registrar enrolled; `None` for a fleet of one.
    pub fn of(
        state_dir: &Path,
        own: &Own,
        every: Duration,
        version: watch::Receiver<Option<RosterKnown>>,
    ) -> Result<Option<Self>> {
        let Some(registrar) = fleet_file(state_dir)? else { return Ok(None) };
        Ok(Some(Courier {
            registrar,
            fleet: own.card.origin().fleet().to_owned(),
            card: own.card.bytes().to_vec(),
            transport: own.transport.clone(),
            version,
            every,
        }))
    }

    /// Asks for ever; ends with the runtime, or when nobody reads what comes.
    pub async fn run(mut self, handle: Handle) {
        tokio::time::sleep(FIRST).await;
        let mut silent = false;
        loop {
            let before = self.version.borrow_and_update().clone();
            match self.ask(before.clone()).await {
                Ok(said) => {
                    silent = false;
                    let more = before.as_ref().map_or(0, |known| known.number) + (said.changes.len() as u64)
                        < said.last;
                    let from = self.registrar.address().to_owned();
                    let message = Message::Registrar(said, from);
                    let given = handle.clone();
                    // The thread may be busy; nobody else waits for this task.
                    let sent = tokio::task::spawn_blocking(move || given.sender.send(message).is_ok()).await;
                    if !sent.unwrap_or(false) {
                        return;
                    }
                    if more && matches!(timeout(TAKEN, self.version.changed()).await, Ok(Ok(()))) {
                        continue;
                    }
                }
                Err(error) => {
                    // Said once for each time that it is away.
                    if !std::mem::replace(&mut silent, true) {
                        log::info!("the registrar tells nothing of the roster: {error:#}");
                    }
                }
            }
            tokio::time::sleep(self.every).await;
        }
    }

    async fn ask(&self, known: Option<RosterKnown>) -> Result<RosterSaid> {
        let mut connection = self.registrar.connect().await?;
        let content = RosterRequestContent {
            version: 1,
            fleet: self.fleet.clone(),
            card: self.card.clone().into(),
            channel: Octets32::new(connection.channel()),
            known,
        };
        let signature = self.transport.sign(&content.message()).to_bytes().to_vec().into();
        let answer = connection.roster(der::encode(&RosterRequest { content, signature })).await?;
        RosterSaid::decode(&answer).context("it does not answer as a registrar does")
    }
}

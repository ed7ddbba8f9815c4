//! The way to the registrar, while the box runs: hands in the card, asks what is new of the roster, and fetches the
//! configuration that the roster names for this box.
//!
//! Refuses to do: speak to a registrar with another key than the one that was pinned at the enrolment; wait for it anywhere
//! that matters: a registrar that is away for days costs nothing but news.

use super::{Handle, Message};
use crate::approved::{self, Place, Wanted};
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
    origin: String,
    card: Vec<u8>,
    transport: SigningKey,
    version: watch::Receiver<Option<RosterKnown>>,
    every: Duration,
    place: Place,
    /// The version of the roster that has nothing more to say about the configuration.
    looked: Option<RosterKnown>,
}

impl Courier {
    /// For a box that a registrar enrolled; `None` for a fleet of one.
    pub fn of(
        state_dir: &Path,
        place: Place,
        own: &Own,
        every: Duration,
        version: watch::Receiver<Option<RosterKnown>>,
    ) -> Result<Option<Self>> {
        let Some(registrar) = fleet_file(state_dir)? else { return Ok(None) };
        Ok(Some(Courier {
            registrar,
            fleet: own.card.origin().fleet().to_owned(),
            origin: own.card.origin().to_string(),
            card: own.card.bytes().to_vec(),
            transport: own.transport.clone(),
            version,
            every,
            place,
            looked: None,
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
                    let news = !said.changes.is_empty() || said.founding.is_some();
                    let from = self.registrar.address().to_owned();
                    let message = Message::Registrar(said, from);
                    let given = handle.clone();
                    // The thread may be busy; nobody else waits for this task.
                    let sent = tokio::task::spawn_blocking(move || given.sender.send(message).is_ok()).await;
                    if !sent.unwrap_or(false) {
                        return;
                    }
                    let taken = news && matches!(timeout(TAKEN, self.version.changed()).await, Ok(Ok(())));
                    if more && taken {
                        continue;
                    }
                    if let Err(error) = self.configure().await {
                        log::warn!("the configuration that the roster names is not taken: {error:#}");
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

    /// Takes the configuration that the roster in force names for this box.
    async fn configure(&mut self) -> Result<()> {
        let known = self.version.borrow().clone();
        if known == self.looked {
            return Ok(());
        }
        let (place, fleet, origin) = (self.place.clone(), self.fleet.clone(), self.origin.clone());
        let wanted = tokio::task::spawn_blocking(move || approved::wanted(&place, &fleet, &origin)).await??;
        if let Some((version, wanted)) = wanted {
            let bytes = match wanted {
                Wanted::OnTheBox | Wanted::AsItIs => None,
                Wanted::File(hash) => {
                    let mut connection = self.registrar.connect().await?;
                    let bytes = connection.configuration(&hash, approved::FILE_BYTES_MAX).await?;
                    approved::check_file(&bytes, &hash)?;
                    Some(bytes)
                }
            };
            let place = self.place.clone();
            let keep = move || match wanted {
                Wanted::AsItIs => approved::agree(place.state_dir(), version),
                _ => approved::take(&place, version, bytes.as_deref()),
            };
            tokio::task::spawn_blocking(keep).await??;
        }
        self.looked = known;
        Ok(())
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

//! Logs mode changes, with a fresh quote or the reason for having none.
//!
//! Refuses to do: wait long for a TPM: a mode that is not in the log is not in force.
//! Invariant: what is quoted is the statement that is logged, byte for byte.

use super::desk::{Desk, through};
use super::{kept, words};
use crate::driver::standing::{ModeLogged, ModeOrder, Movement};
use crate::driver::{Command, SealError, body};
use bulla_formats::body::mode_change::{ModeChangeBody, ModeStatement, Vouched};
use bulla_formats::der;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Kind, Mode, TreeState};
use bulla_formats::hash::Hash;
use bulla_formats::tpm::Attest;
use bulla_protocol::mode::{ModeChange, ModeEvent};
use bulla_protocol::time::{TimeEvent, TpmClock};

impl Desk {
    pub(super) fn log_change(&mut self, ticket: u64, change: &ModeChange) {
        match self.append_change(change) {
            Ok(logged) => {
                self.story.mode_change = Some(logged.index);
                self.noted();
                if movement(change) == Movement::Ends {
                    self.ended = Some((logged.before, logged.seals));
                }
                self.mode(ModeEvent::Logged { ticket, index: logged.index });
            }
            Err(reason) => {
                self.noted();
                log::warn!("the change to mode {} is not in the log yet: {reason}", change.to);
                self.mode(ModeEvent::NotLogged { ticket });
            }
        }
    }

    fn append_change(&mut self, change: &ModeChange) -> Result<ModeLogged, String> {
        let statement = ModeStatement {
            version: 1,
            origin: self.shared.origin.as_str().to_owned(),
            from: change.from,
            to: change.to,
            below: change.below,
            outages: change.outages,
            outage: change.outage.as_ref().map(words::outage),
            locked: change.locked,
            limits: words::limits(&change.limits),
            head: self.head(),
            findings: words::findings(&change.findings, &self.authorities, &self.details, change.drill),
            reason: reason(change),
        };
        let vouched = self.vouch(&statement.qualifying_data());
        let body = ModeChangeBody { statement, vouched };
        body.check().map_err(|error| error.to_string())?;
        self.noting()?;
        let order = ModeOrder {
            to: change.to,
            drill: change.drill,
            movement: movement(change),
            limited: change.to == Mode::Safe && !change.locked,
            body: der::encode(&body),
        };
        through(&self.queue, |reply| Command::Mode(order, reply))
            .unwrap_or_else(|| Err(stopping()))
            .map_err(|error| error.to_string())
    }

    /// The newest published head.
    pub(super) fn head(&self) -> TreeState {
        let snapshot = self.shared.reader.snapshot();
        TreeState::new(snapshot.size(), snapshot.root())
    }

    /// The TPM's word for a statement with this qualifying data.
    pub(super) fn vouch(&mut self, qualifying: &Hash) -> Vouched {
        if self.shared.hardware == Hardware::Software {
            return Vouched::None("this box has no TPM".to_owned());
        }
        match self.keys.quote(qualifying.0, &self.pcrs) {
            Ok(quote) => {
                if let Some(clock) = tpm_clock(&quote.attest) {
                    self.time(TimeEvent::Tpm(clock));
                }
                Vouched::Quote(body::tpm_quote(quote))
            }
            Err(error) => Vouched::None(error.to_string().chars().take(250).collect()),
        }
    }

    /// Before something of the story is appended.
    pub(super) fn noting(&mut self) -> Result<(), String> {
        self.story.appending_since = Some(self.shared.reader.size());
        kept::keep_story(&self.control, &self.story)
    }

    /// After it, whatever came of it. Where this fails the next start looks for it.
    pub(super) fn noted(&mut self) {
        let story = kept::Story { appending_since: None, ..self.story.clone() };
        match kept::keep_story(&self.control, &story) {
            Ok(()) => self.story = story,
            Err(error) => log::warn!("where the outage's entries stand could not be noted: {error}"),
        }
    }

    /// Appends an entry of the story; its index.
    pub(super) fn append(&mut self, kind: Kind, body: Vec<u8>) -> Result<u64, String> {
        self.noting()?;
        through(&self.queue, |reply| Command::Append(kind, body, reply))
            .unwrap_or_else(|| Err(stopping()))
            .map_err(|error| error.to_string())
    }
}

fn stopping() -> SealError {
    SealError::Locked { reason: "the box is stopping".to_owned() }
}

fn movement(change: &ModeChange) -> Movement {
    match (&change.outage, change.below) {
        (Some(outage), Mode::Emergency) if outage.first.is_none() => Movement::Begins,
        (Some(outage), Mode::Reconciling) if outage.last.is_none() => Movement::Ends,
        _ => Movement::Goes,
    }
}

fn reason(change: &ModeChange) -> String {
    let drill = if change.drill { "drill: " } else { "" };
    let why = match (change.to, change.below) {
        (Mode::Safe, _) if change.locked => "an operator has locked the box",
        (Mode::Safe, _) => "a limit of emergency operation is reached",
        (_, Mode::Emergency) => "no authority is reachable",
        (_, Mode::Reconciling) => "an authority is reachable again; the gap is being closed",
        (_, Mode::Online) => "every authority is reachable, and nothing of an outage is left to anchor",
        (_, Mode::Degraded) => "some authority is unreachable",
        _ => "no authority is configured",
    };
    format!("{drill}{why}")
}

/// The TPM's clock as a quote shows it.
pub(in crate::driver) fn tpm_clock(attest: &[u8]) -> Option<TpmClock> {
    let info = Attest::parse(attest).ok()?.clock_info;
    Some(TpmClock {
        clock: info.clock,
        reset_count: info.reset_count,
        restart_count: info.restart_count,
        safe: info.safe,
    })
}

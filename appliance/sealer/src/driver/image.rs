//! What a box that runs from an image of its own says of it: an entry when an update has proven itself or fallen back, and
//! when its network settings were changed; and, to whoever decides whether this image is good, whether the box works.
//!
//! Refuses to do: judge an image, or change one (`bulla-update` does both, from outside), or change settings
//! (`bulla-console` does).
//! Invariants: what is settled is entered at least once, and again only if the power goes between entry and note; the word
//! `passed` stands only after a document was sealed, attested and verified in this run.

use super::clock::now_millis;
use super::{Command, SealError, Sealer, stopping};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::operator_action::{OperatorActionBody, Parameter};
use bulla_formats::der;
use bulla_formats::entry::{Kind, LocalTime};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::network_record::Changes;
use bulla_formats::update_record::{Outcome, UpdateRecord};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;

/// In the control store: SHA-256 of the record that was entered last.
const LOGGED: &str = "image-update";
/// In the control store: SHA-256 of the body of each change in the record that was entered.
const NETWORK_LOGGED: &str = "network-changes";
const LOOK: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(20);

impl Sealer {
    /// Enters what becomes of updates of the image, as the record in this file says; for ever.
    pub async fn log_updates(self, record: PathBuf) {
        let mut told = None;
        loop {
            if let Ok(file) = tokio::fs::read(&record).await
                && let Some(read) = UpdateRecord::parse(&file)
                && let Some((outcome, at)) = read.outcome
                && told.as_ref() != Some(&file)
            {
                match self.log_update(&file, &read, outcome, at).await {
                    Ok(()) => told = Some(file),
                    Err(error) => log::warn!("what became of the update is not logged yet: {error}"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn log_update(
        &self,
        file: &[u8],
        record: &UpdateRecord,
        outcome: Outcome,
        at: u64,
    ) -> Result<(), String> {
        let mark = sha256(&[file]);
        let logged = self.control.get(LOGGED).map_err(|error| error.to_string())?;
        if logged.as_deref() == Some(mark.as_bytes().as_slice()) {
            return Ok(());
        }
        let (from, to) = (record.from.to_string(), record.to.to_string());
        let (kind, body) = match outcome {
            Outcome::Proven => {
                let parameter = |name: &str, value: String| Parameter { name: name.to_owned(), value };
                let action = OperatorActionBody {
                    action: "image-update".to_owned(),
                    parameters: vec![
                        parameter("from", from.clone()),
                        parameter("to", to.clone()),
                        parameter("statement", hex::encode(*record.statement)),
                        parameter("staged-at", record.staged_millis.to_string()),
                    ],
                    reason: "the image has passed its check".to_owned(),
                    approvals: Vec::new(),
                };
                (Kind::OperatorAction, der::encode(&action))
            }
            Outcome::FellBack => {
                let local = |unix_millis| LocalTime { unix_millis, uncertainty_millis: None };
                let incident = IncidentBody {
                    code: "image-fell-back".to_owned(),
                    began: local(record.staged_millis),
                    ended: Some(local(at)),
                    detail: format!(
                        "the image {to} did not prove itself, {from} runs again: {}",
                        record.detail
                    ),
                };
                (Kind::Incident, der::encode(&incident))
            }
        };
        let index = self.append_own(kind, body).await.map_err(|error| error.to_string())?;
        self.control.put(LOGGED, mark.as_bytes()).map_err(|error| error.to_string())?;
        log::info!(index; "update of the image from {from} to {to}: {}, entry {index}", outcome.name());
        Ok(())
    }

    /// Enters changes to the network settings, as the record in this file says; for ever.
    pub async fn log_network(self, record: PathBuf) {
        let mut told = None;
        loop {
            if let Ok(file) = tokio::fs::read(&record).await
                && told.as_ref() != Some(&file)
                && let Some(changes) = Changes::parse(&file)
            {
                match self.log_changes(&changes).await {
                    Ok(()) => told = Some(file),
                    Err(error) => log::warn!("changes to the network settings are not logged yet: {error}"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn log_changes(&self, changes: &Changes) -> Result<(), String> {
        let logged = self.control.get(NETWORK_LOGGED).map_err(|error| error.to_string())?.unwrap_or_default();
        let mut marks: Vec<u8> = Vec::new();
        for change in changes.all() {
            let (kind, body) = change.entry();
            let Hash(mark) = sha256(&[&body]);
            if !logged.chunks(mark.len()).any(|known| known == mark) {
                let index = self.append_own(kind, body).await.map_err(|error| error.to_string())?;
                let (number, event) = (change.number, change.event.name());
                log::info!(index; "change {number} of the network settings: {event}, entry {index}");
            }
            // One that fell out of the record is forgotten with the next.
            marks.extend(mark);
            let still = logged
                .chunks(mark.len())
                .filter(|known| !marks.chunks(mark.len()).any(|mark| mark == *known));
            let value: Vec<u8> = marks.iter().copied().chain(still.flatten().copied()).collect();
            self.control.put(NETWORK_LOGGED, &value).map_err(|error| error.to_string())?;
        }
        self.control.put(NETWORK_LOGGED, &marks).map_err(|error| error.to_string())
    }

    pub(crate) async fn append_own(&self, kind: Kind, body: Vec<u8>) -> Result<u64, SealError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Append(kind, body, reply);
        self.queue.send(command).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    /// Tests itself until the test has passed once, and writes each result into this file: `passed`, or `failed: ` and why.
    pub async fn prove(self, health: PathBuf, attest_within: Duration) {
        loop {
            // A box that retires seals nothing more, and shall not be kept from it by an update.
            let failure = match self.is_retiring() {
                true => None,
                false => self.self_test(attest_within).await.failure,
            };
            let word = failure.as_ref().map_or("passed\n".to_owned(), |why| format!("failed: {why}\n"));
            match (write(&health, &word).await, failure) {
                (Ok(()), None) => return,
                (Ok(()), Some(_)) => {}
                (Err(error), _) => log::warn!("{} cannot be written: {error}", health.display()),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Whoever reads the file meets the whole word or the one before.
async fn write(path: &Path, word: &str) -> io::Result<()> {
    let new = path.with_extension(format!("{}.new", now_millis()));
    tokio::fs::write(&new, word).await?;
    tokio::fs::rename(&new, path).await
}

//! The keeper thread: while requests are held back, it finds out when to try again, so that the writer need not.
//!
//! It asks the TPM whether it answers (reading the counter costs nothing), or lets a second pass and tells the writer to
//! look at the disk again. Idle unless the writer has asked for it.
//! Refuses to do: decide; what is tried is the writer's matter.

use super::{Command, Condition, Shared};
use bulla_keys::KeyService;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tokio::sync::mpsc;

/// First pause before the TPM is asked again, and before storage is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two questions to the TPM.
const PAUSE_MAX: Duration = Duration::from_secs(4);

enum Message {
    Watch,
    Stop,
}

/// Talks to the keeper; clones share it.
#[derive(Clone)]
pub struct Handle(Sender<Message>);

/// What the keeper thread reads from.
pub struct Inbox(Receiver<Message>);

impl Handle {
    /// A handle and what the thread reads from.
    pub fn new() -> (Self, Inbox) {
        let (sender, receiver) = channel();
        (Handle(sender), Inbox(receiver))
    }

    /// Something is held back: say when to try again.
    pub fn watch(&self) {
        // The thread ends only at stop; what is said after that needs no listener.
        let _ = self.0.send(Message::Watch);
    }

    /// Ends the thread.
    pub fn stop(&self) {
        let _ = self.0.send(Message::Stop);
    }
}

/// Works until told to stop.
pub fn run(inbox: &Inbox, shared: &Arc<Shared>, keys: &KeyService, queue: &mpsc::Sender<Command>) {
    while let Ok(Message::Watch) = inbox.0.recv() {
        let mut pause = PAUSE;
        loop {
            match inbox.0.recv_timeout(pause) {
                Ok(Message::Watch) => continue,
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let command = if shared.key_is_away() {
                match keys.counter() {
                    Ok(_) => Command::KeyAnswers,
                    Err(error) => {
                        log::debug!("the TPM does not answer yet: {error}");
                        pause = (pause * 2).min(PAUSE_MAX);
                        continue;
                    }
                }
            } else {
                if let Condition::RollbackSuspected { .. } = shared.condition() {
                    // Ends with the process: an operator decides.
                    break;
                }
                Command::Recover
            };
            if queue.blocking_send(command).is_err() {
                return;
            }
            break;
        }
    }
}

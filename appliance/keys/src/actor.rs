//! The thread that owns the machine, and the deadline of every call to it.
//!
//! Invariant: a call whose caller gave up waiting before it began is never begun, so that a counter does not move for
//! nobody. One that had begun runs to its end, and its result is dropped.

use crate::KeyError;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Work<M> = Box<dyn FnOnce(&mut M) + Send>;

enum Message<M> {
    Work { deadline: Instant, work: Work<M> },
    Stop,
}

/// A running thread with an `M` inside.
pub(crate) struct Actor<M> {
    sender: Mutex<Sender<Message<M>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<M: Send + 'static> Actor<M> {
    /// Starts the thread. `close` runs in it when the actor is stopped or dropped.
    pub(crate) fn start(machine: M, close: fn(&mut M)) -> Result<Self, KeyError> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || serve(machine, close, receiver))
            .map_err(|source| KeyError::Io { path: "thread".into(), source })?;
        Ok(Self { sender: Mutex::new(sender), thread: Mutex::new(Some(thread)) })
    }

    /// Runs `work` in the thread and waits for it, at most `patience`.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        patience: Duration,
        work: impl FnOnce(&mut M) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        let (reply, answer): (SyncSender<_>, _) = mpsc::sync_channel(1);
        let work: Work<M> = Box::new(move |machine| {
            let result = work(machine);
            if reply.send(result).is_err() {
                log::warn!("{what}: done after its caller had given up");
            }
        });
        let deadline = Instant::now() + patience;
        self.send(Message::Work { deadline, work })?;
        match answer.recv_timeout(patience) {
            Ok(result) => result,
            // Dropped unanswered: the thread stopped, or took it from the queue at the very end of our patience.
            Err(RecvTimeoutError::Disconnected) if Instant::now() < deadline => Err(KeyError::ShutDown),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(KeyError::Unavailable { what, reason: format!("no answer within {patience:?}") })
            }
        }
    }

    /// Stops the thread after what it is doing and waits for it.
    pub(crate) fn stop(&self) {
        // A failed send means that it has stopped already.
        let _stopped = self.send(Message::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            log::error!("the key thread panicked");
        }
    }

    fn send(&self, message: Message<M>) -> Result<(), KeyError> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.send(message).map_err(|_| KeyError::ShutDown)
    }
}

fn serve<M>(mut machine: M, close: fn(&mut M), receiver: Receiver<Message<M>>) {
    while let Ok(Message::Work { deadline, work }) = receiver.recv() {
        if Instant::now() < deadline {
            work(&mut machine);
        }
    }
    close(&mut machine);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_call_nobody_waits_for_is_never_begun() {
        let actor = Arc::new(Actor::start(0_u32, |_| {}).unwrap());
        let (release, gate) = mpsc::channel::<()>();
        let slow = actor.clone();
        let blocker = std::thread::spawn(move || {
            slow.call("slow", Duration::from_secs(60), move |_| {
                gate.recv().unwrap();
                Ok(())
            })
        });
        // Queued behind the blocker, or run before it if this thread is faster: then the count is 1, not a timeout.
        let late = actor.call("late", Duration::from_millis(50), |count| {
            *count += 1;
            Ok(())
        });
        release.send(()).unwrap();
        blocker.join().unwrap().unwrap();
        let count = actor.call("read", Duration::from_secs(60), |count| Ok(*count)).unwrap();
        assert_eq!(count, u32::from(late.is_ok()));
    }

    #[test]
    fn a_stopped_actor_says_so() {
        let actor = Actor::start((), |()| {}).unwrap();
        actor.stop();
        assert!(matches!(actor.call("x", Duration::from_secs(60), |()| Ok(())), Err(KeyError::ShutDown)));
    }
}

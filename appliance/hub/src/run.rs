//! Many boxes pulled at the same time, and fairly: whoever has done a step goes to the end of the queue.
//!
//! Refuses to do: let one box's failure stop another; only the hub's own disk ends a round.
//! Invariant: at most `pull.at_once` logs are worked on at a time, so memory is bounded however many boxes there are.

use crate::hub::{Hub, HubError};
use crate::progress::Progress;
use crate::pull::{Outcome, Pull, Turn};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

struct Round<'a> {
    waiting: VecDeque<Pull<'a>>,
    done: BTreeMap<String, Outcome>,
    failure: Option<HubError>,
}

fn lock<'m, 'a>(round: &'m Mutex<Round<'a>>) -> MutexGuard<'m, Round<'a>> {
    round.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pulls every box of the configuration (or the one of this name) once, as far as its newest head.
pub fn round(
    hub: &Hub,
    only: Option<&str>,
    progress: &Progress,
) -> Result<BTreeMap<String, Outcome>, HubError> {
    let mut waiting = VecDeque::new();
    for branch in &hub.config.boxes {
        // In the order of the configuration, so that logs get the same numbers whoever is faster.
        if only.is_none_or(|only| only == branch.name || only == branch.origin) {
            hub.index.id(&branch.origin)?;
        }
    }
    for branch in &hub.config.boxes {
        if only.is_none_or(|only| only == branch.name || only == branch.origin) {
            waiting.push_back(Pull::new(hub, branch)?);
        }
    }
    let workers = hub.config.pull.at_once.min(waiting.len());
    let round = Mutex::new(Round { waiting, done: BTreeMap::new(), failure: None });
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&round, progress));
        }
    });
    let round = round.into_inner().unwrap_or_else(PoisonError::into_inner);
    match round.failure {
        Some(failure) => Err(failure),
        None => Ok(round.done),
    }
}

fn work(round: &Mutex<Round<'_>>, progress: &Progress) {
    loop {
        let Some(mut pull) = lock(round).waiting.pop_front() else { return };
        let turned = pull.turn();
        if pull.bar.is_none() && pull.outcome.newest > pull.outcome.size {
            pull.bar = progress.bar(&pull.branch.name, pull.outcome.size, pull.outcome.newest);
        }
        let mut round = lock(round);
        match turned {
            Ok(_) if round.failure.is_some() => return,
            Ok(Turn::Again) => round.waiting.push_back(pull),
            Ok(Turn::Done) => {
                round.done.insert(pull.branch.name.clone(), pull.outcome);
            }
            Err(failure) => {
                round.failure = Some(failure);
                round.waiting.clear();
                return;
            }
        }
    }
}

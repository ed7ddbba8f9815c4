//! The rollback rule: a state on disk that is older than the TPM counter is noticed at start.
//!
//! One attestation window runs: commit the intent (counter n+1, head) -> increment the counter ->
//! certify it -> append the attestation entry. At start the newest committed intent is held against
//! the counter: equal is good, one ahead means the increment was not made (or its answer was lost
//! before it was made) and is made now, behind means the disk is older than what this box did.
//! Refuses to do: decide a way out. That is an operator's.
//! Invariants: at every crash point of a window the start rule says `Good` or `FinishIncrement`;
//! for every copy of the disk older than the newest increment it says `Suspected`.

use bulla_formats::hash::Hash;

/// What is made durable before the counter moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// The value the counter will have.
    pub counter: u64,
    /// Size of the head it will stand for.
    pub size: u64,
    /// Root of that head.
    pub root: Hash,
}

/// What the log on disk says about the head of the newest intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadOnDisk {
    /// The log has at least that many entries and that root at that size.
    Present,
    /// The log is shorter.
    Shorter {
        /// Its size.
        size: u64,
    },
    /// The log is long enough, but has another root there.
    Different,
}

/// What a box finds when it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The disk is as new as the counter.
    Good,
    /// The intent was committed and the increment never made: make it, then go on.
    FinishIncrement,
    /// The disk is older than what this box has done, or is of another history.
    Suspected(Finding),
}

/// Why a rollback is suspected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The counter is ahead of the disk.
    #[error("the TPM counter stands at {counter}, the disk knows only {disk}: the disk is an older copy")]
    DiskBehind {
        /// Counter in the TPM.
        counter: u64,
        /// Newest intent on disk.
        disk: u64,
    },
    /// The disk is further ahead of the counter than one window allows: another TPM, or a reset one.
    #[error(
        "the disk knows counter value {disk}, the TPM stands at {counter}: this is not the counter that went with this disk"
    )]
    CounterBehind {
        /// Counter in the TPM.
        counter: u64,
        /// Newest intent on disk.
        disk: u64,
    },
    /// The log has lost entries that an intent stands for.
    #[error("the log has {found} entries, but {expected} were there when the counter was last moved")]
    LogShorter {
        /// Entries found.
        found: u64,
        /// Entries the intent stands for.
        expected: u64,
    },
    /// The log has other entries than the ones the intent stands for.
    #[error("the log has another history than the one the counter was last moved for")]
    LogDifferent,
}

/// Judges the state found at start. `intent` is the newest committed one, `counter` the TPM's value.
///
/// A log gets its first intent when it is created, before entry 0 is handed to anyone, so that an
/// intent is always there; its absence is a log shorter than its creation.
pub fn judge_start(intent: &Intent, head: HeadOnDisk, counter: u64) -> Start {
    match head {
        HeadOnDisk::Shorter { size } => {
            return Start::Suspected(Finding::LogShorter { found: size, expected: intent.size });
        }
        HeadOnDisk::Different => return Start::Suspected(Finding::LogDifferent),
        HeadOnDisk::Present => {}
    }
    let disk = intent.counter;
    if disk == counter {
        Start::Good
    } else if disk < counter {
        Start::Suspected(Finding::DiskBehind { counter, disk })
    } else if disk == counter + 1 {
        Start::FinishIncrement
    } else {
        Start::Suspected(Finding::CounterBehind { counter, disk })
    }
}

/// What the shell does next in an attestation window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Persist: commit this intent durably, then report [`Event::IntentCommitted`].
    CommitIntent(Intent),
    /// Increment the counter, then report [`Event::Counter`] with its value.
    Increment,
    /// Certify the counter and quote the head, then append the attestation entry.
    Attest(Intent),
    /// Stop and enter `rollback-suspected`: the counter moved without us.
    Alarm {
        /// What the intent expected.
        expected: u64,
        /// What the TPM said.
        found: u64,
    },
}

/// What the shell reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The intent is durable.
    IntentCommitted,
    /// The counter's value, read or after an increment.
    Counter(u64),
}

/// One attestation window that moves the counter.
///
/// The increment is the one step with an unknown outcome: when its answer is lost, the shell reads
/// the counter and reports it; the window then knows whether the increment happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    intent: Intent,
    committed: bool,
}

impl Window {
    /// Opens a window for the head `(size, root)` when the counter stands at `counter`.
    pub fn open(counter: u64, size: u64, root: Hash) -> (Self, Step) {
        let intent = Intent { counter: counter + 1, size, root };
        (Window { intent, committed: false }, Step::CommitIntent(intent))
    }

    /// Takes up a window whose intent was committed by an earlier run ([`Start::FinishIncrement`]).
    pub fn resume(intent: Intent) -> (Self, Step) {
        (Window { intent, committed: true }, Step::Increment)
    }

    /// What this window stands for.
    pub fn intent(&self) -> Intent {
        self.intent
    }

    /// The next step after `event`.
    pub fn handle(&mut self, event: Event) -> Step {
        match event {
            Event::IntentCommitted => {
                self.committed = true;
                Step::Increment
            }
            Event::Counter(_) if !self.committed => Step::CommitIntent(self.intent),
            Event::Counter(value) if value == self.intent.counter => Step::Attest(self.intent),
            Event::Counter(value) if value + 1 == self.intent.counter => Step::Increment,
            Event::Counter(found) => Step::Alarm { expected: self.intent.counter, found },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Disk and TPM of a box, and every copy of the disk an attacker may have kept.
    #[derive(Clone)]
    struct World {
        disk: Intent,
        log: u64,
        counter: u64,
    }

    fn root(size: u64) -> Hash {
        bulla_formats::hash::sha256(&[&size.to_be_bytes()])
    }

    fn start(world: &World) -> Start {
        let head = match world.disk.size {
            size if size > world.log => HeadOnDisk::Shorter { size: world.log },
            _ => HeadOnDisk::Present,
        };
        judge_start(&world.disk, head, world.counter)
    }

    /// Runs windows with a crash after `crash_at` steps in total; returns the world and its copies.
    fn run(crash_at: usize, lose_commands: bool) -> (World, Vec<(World, u64)>) {
        let mut world = World { disk: Intent { counter: 7, size: 1, root: root(1) }, log: 1, counter: 7 };
        let mut copies = vec![(world.clone(), world.counter)];
        let mut steps = 0;
        loop {
            world.log += 3;
            let (mut window, mut step) = Window::open(world.counter, world.log, root(world.log));
            loop {
                if steps == crash_at {
                    return (world, copies);
                }
                steps += 1;
                step = match step {
                    Step::CommitIntent(intent) => {
                        world.disk = intent;
                        window.handle(Event::IntentCommitted)
                    }
                    Step::Increment => {
                        if lose_commands {
                            // The command never arrived; the shell reads the old value.
                            assert_eq!(window.handle(Event::Counter(world.counter)), Step::Increment);
                        }
                        world.counter += 1;
                        window.handle(Event::Counter(world.counter))
                    }
                    Step::Attest(_) => {
                        world.log += 1;
                        copies.push((world.clone(), world.counter));
                        break;
                    }
                    Step::Alarm { .. } => panic!("a false alarm in a healthy run"),
                };
                copies.push((world.clone(), world.counter));
            }
        }
    }

    #[test]
    fn g2_no_crash_point_raises_a_false_alarm() {
        for crash_at in 0..1_000 {
            let (mut world, _) = run(crash_at, crash_at % 2 == 0);
            match start(&world) {
                Start::Good => {}
                Start::FinishIncrement => {
                    let (mut window, step) = Window::resume(world.disk);
                    assert_eq!(step, Step::Increment);
                    world.counter += 1;
                    assert!(matches!(window.handle(Event::Counter(world.counter)), Step::Attest(_)));
                    assert_eq!(start(&world), Start::Good);
                }
                Start::Suspected(finding) => panic!("false alarm after {crash_at} steps: {finding}"),
            }
        }
    }

    #[test]
    fn g2_every_copy_older_than_the_last_increment_is_noticed() {
        for crash_at in 0..200 {
            let (world, copies) = run(crash_at, false);
            for (copy, _) in copies.iter().filter(|(copy, _)| copy.disk.counter < world.counter) {
                let restored = World { counter: world.counter, ..copy.clone() };
                assert!(matches!(start(&restored), Start::Suspected(Finding::DiskBehind { .. })));
            }
        }
    }

    #[test]
    fn a_log_without_its_head_or_with_another_one_is_noticed() {
        let intent = Intent { counter: 3, size: 10, root: root(10) };
        let shorter = judge_start(&intent, HeadOnDisk::Shorter { size: 9 }, 3);
        assert_eq!(shorter, Start::Suspected(Finding::LogShorter { found: 9, expected: 10 }));
        let different = judge_start(&intent, HeadOnDisk::Different, 3);
        assert_eq!(different, Start::Suspected(Finding::LogDifferent));
        let reset = judge_start(&intent, HeadOnDisk::Present, 1);
        assert_eq!(reset, Start::Suspected(Finding::CounterBehind { counter: 1, disk: 3 }));
    }

    #[test]
    fn a_lost_answer_is_resolved_by_reading() {
        let (mut window, _) = Window::open(4, 9, root(9));
        assert_eq!(window.handle(Event::IntentCommitted), Step::Increment);
        assert_eq!(window.handle(Event::Counter(4)), Step::Increment);
        assert!(matches!(window.handle(Event::Counter(5)), Step::Attest(_)));
        assert_eq!(window.handle(Event::Counter(9)), Step::Alarm { expected: 5, found: 9 });
    }
}

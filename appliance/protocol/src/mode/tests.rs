//! The mode machine under a driver whose log takes everything at once, unless a test says otherwise.

use super::*;
use crate::authority::{Authority, Failure};

/// A driver whose log takes everything at once, unless told otherwise.
struct Rig {
    machine: ModeMachine,
    config: ModeConfig,
    record: ModeRecord,
    size: u64,
    now: u64,
    refuse: bool,
    changes: Vec<(u64, ModeChange)>,
    manifests: Vec<(u64, Manifest)>,
    told: Vec<ModeEffect>,
}

fn config(authorities: usize) -> ModeConfig {
    let authority = |n| Authority { id: format!("tsa-{n}"), operator: format!("operator-{n}") };
    ModeConfig { authorities: (0..authorities).map(authority).collect(), ..ModeConfig::default() }
}

impl Rig {
    fn new(config: ModeConfig) -> Self {
        let record = ModeRecord::new(ModeRecord::first_mode(!config.authorities.is_empty()));
        Rig {
            machine: ModeMachine::new(config.clone(), record.clone(), 0),
            config,
            record,
            size: 1,
            now: 0,
            refuse: false,
            changes: Vec::new(),
            manifests: Vec::new(),
            told: Vec::new(),
        }
    }

    fn online(config: ModeConfig) -> Self {
        let mut rig = Rig::new(config);
        rig.run(60_000, Ok(()));
        assert_eq!(rig.machine.mode(), Mode::Online);
        rig
    }

    fn send(&mut self, event: ModeEvent) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.machine.handle(event, self.now) {
                let ticket = match &effect {
                    ModeEffect::LogModeChange { ticket, .. } | ModeEffect::LogManifest { ticket, .. } => {
                        *ticket
                    }
                    _ => {
                        self.told.push(effect);
                        continue;
                    }
                };
                if self.refuse {
                    events.push(ModeEvent::NotLogged { ticket });
                    continue;
                }
                let index = self.size;
                self.size += 1;
                match effect {
                    ModeEffect::LogModeChange { change, .. } => {
                        self.record.changed(index, &change);
                        self.changes.push((index, change));
                    }
                    ModeEffect::LogManifest { manifest, .. } => {
                        self.record.manifested(index, &manifest);
                        self.manifests.push((index, manifest));
                    }
                    _ => unreachable!("only appends have tickets"),
                }
                events.push(ModeEvent::Logged { ticket, index });
            }
        }
    }

    /// Probes every authority every five seconds, with these results.
    fn run_each(&mut self, millis: u64, results: &[Result<(), Failure>]) {
        let end = self.now + millis;
        while self.now < end {
            for (authority, result) in results.iter().enumerate() {
                self.send(ModeEvent::Probed { authority, result: *result });
            }
            self.now += 5_000;
            self.send(ModeEvent::Tick);
        }
    }

    fn run(&mut self, millis: u64, result: Result<(), Failure>) {
        let results = vec![result; self.config.authorities.len()];
        self.run_each(millis, &results);
    }

    fn restart(&mut self) {
        self.machine = ModeMachine::new(self.config.clone(), self.record.clone(), self.now);
        self.send(ModeEvent::Tick);
    }

    fn anchor(&mut self) {
        self.send(ModeEvent::Anchored { size: self.size });
    }

    fn path(&self) -> Vec<(Mode, bool)> {
        self.changes.iter().map(|(_, change)| (change.to, change.drill)).collect()
    }

    fn stages(&self) -> Vec<(u64, Stage)> {
        self.manifests.iter().map(|(_, manifest)| (manifest.outage, manifest.stage)).collect()
    }
}

const DOWN: Result<(), Failure> = Err(Failure::Timeout);

#[test]
fn without_authorities_a_box_is_air_gapped_for_ever() {
    let mut rig = Rig::new(config(0));
    rig.run(3_600_000, DOWN);
    rig.send(ModeEvent::DrillStart { millis: 1_000 });
    assert_eq!(rig.machine.mode(), Mode::AirGapped);
    assert!(rig.changes.is_empty() && rig.machine.next_wakeup().is_none());
    assert_eq!(rig.told, [ModeEffect::DrillRefused(DrillRefusal::AirGapped)]);
}

#[test]
fn an_outage_from_beginning_to_end() {
    let mut rig = Rig::online(config(2));
    rig.run_each(60_000, &[Ok(()), DOWN]);
    assert_eq!(rig.machine.mode(), Mode::Degraded);
    let finding = Finding { authority: "tsa-1".to_owned(), failure: Failure::Timeout, for_millis: 30_000 };
    assert_eq!(rig.changes.last().unwrap().1.findings, [finding]);
    rig.run(55_000, DOWN);
    assert_eq!(rig.machine.mode(), Mode::Degraded, "not for outage_after yet");
    rig.run(5_000, DOWN);
    assert_eq!(rig.machine.mode(), Mode::Emergency);
    rig.send(ModeEvent::Sealed { count: 7 });
    let first = rig.changes.last().unwrap().0;
    rig.run(1_800_000, DOWN);
    rig.run(40_000, Ok(()));
    assert_eq!(rig.machine.mode(), Mode::Reconciling);
    let expected = [Stage::Opening, Stage::Refresh, Stage::Refresh, Stage::Closing].map(|stage| (1, stage));
    assert_eq!(rig.stages(), expected);
    let (index, closing) = rig.manifests.last().unwrap().clone();
    assert_eq!((closing.first, closing.last, closing.seals), (first, Some(index - 2), 7));
    assert!((1_800_000..1_900_000).contains(&closing.elapsed), "{}", closing.elapsed);
    assert_eq!(closing.number, 3);
    rig.send(ModeEvent::Anchored { size: index });
    assert_eq!(rig.machine.mode(), Mode::Reconciling, "the closing manifest itself is not anchored");
    rig.send(ModeEvent::Anchored { size: index + 1 });
    assert_eq!(rig.machine.mode(), Mode::Online);
    assert_eq!(rig.record.outage, None);
}

#[test]
fn flapping_opens_no_outage_and_closes_none() {
    let mut rig = Rig::online(config(1));
    for _ in 0..20 {
        rig.run(40_000, DOWN);
        rig.run(10_000, Ok(()));
    }
    assert_eq!(rig.record.outages, 0);
    rig.run(70_000, DOWN);
    assert_eq!(rig.record.outages, 1);
    for _ in 0..20 {
        rig.run(20_000, Ok(()));
        rig.run(70_000, DOWN);
    }
    assert_eq!((rig.record.outages, rig.machine.mode()), (1, Mode::Emergency), "one outage, not twenty-one");
}

#[test]
fn losing_the_world_while_reconciling_is_a_new_outage() {
    let mut rig = Rig::online(config(1));
    rig.run(70_000, DOWN);
    rig.run(40_000, Ok(()));
    assert_eq!(rig.machine.mode(), Mode::Reconciling);
    rig.run(70_000, DOWN);
    assert_eq!((rig.machine.mode(), rig.record.outages), (Mode::Emergency, 2));
    rig.run(40_000, Ok(()));
    rig.anchor();
    assert_eq!(rig.machine.mode(), Mode::Online);
    let both = [(1, Stage::Opening), (1, Stage::Closing), (2, Stage::Opening), (2, Stage::Closing)];
    assert_eq!(rig.stages(), both);
}

#[test]
fn silence_is_an_outage_too() {
    let mut rig = Rig::online(config(2));
    let last = rig.now;
    while rig.machine.mode() != Mode::Emergency {
        rig.now = rig.machine.next_wakeup().expect("silence is noticed");
        rig.send(ModeEvent::Tick);
    }
    assert!((55_000..=65_000).contains(&(rig.now - last)));
}

#[test]
fn a_restart_goes_on_with_the_same_outage_wherever_it_comes() {
    let mut rig = Rig::online(config(1));
    rig.run(70_000, DOWN);
    rig.restart();
    rig.run(70_000, DOWN);
    assert_eq!((rig.machine.mode(), rig.record.outages), (Mode::Emergency, 1));
    // The mode change to `reconciling` is durable, and the process dies before the closing manifest.
    rig.run(25_000, Ok(()));
    rig.now += 20_000;
    let effects = rig.machine.handle(ModeEvent::Tick, rig.now);
    let [ModeEffect::LogModeChange { change, .. }] = &effects[..] else { panic!("{effects:?}") };
    rig.record.changed(rig.size, change);
    rig.size += 1;
    rig.restart();
    rig.restart();
    let closings = rig.manifests.iter().filter(|(_, manifest)| manifest.stage == Stage::Closing);
    assert_eq!(closings.count(), 1);
    assert_eq!(rig.machine.mode(), Mode::Reconciling, "nothing has been anchored since the restart");
    rig.anchor();
    assert_eq!(rig.machine.mode(), Mode::Degraded);
}

#[test]
fn what_was_not_logged_did_not_happen_and_comes_again() {
    let mut rig = Rig::online(config(1));
    rig.refuse = true;
    rig.run(200_000, DOWN);
    rig.now += 64_000;
    rig.send(ModeEvent::Tick);
    assert_eq!(rig.machine.next_wakeup(), Some(rig.now + 64_000), "it is tried again without anybody's help");
    assert_eq!(rig.machine.mode(), Mode::Online, "entries say what the log says");
    rig.refuse = false;
    rig.run(70_000, DOWN);
    assert_eq!((rig.machine.mode(), rig.record.outages), (Mode::Emergency, 1));
    assert_eq!(rig.changes.last().unwrap().1.outages, 1, "no number is lost");
}

#[test]
fn a_lock_lies_on_top_and_the_outage_goes_on_below() {
    let mut rig = Rig::online(config(1));
    rig.send(ModeEvent::Locked(true));
    assert_eq!(rig.machine.mode(), Mode::Safe);
    rig.run(70_000, DOWN);
    assert_eq!((rig.machine.mode(), rig.record.below), (Mode::Safe, Mode::Emergency));
    rig.restart();
    rig.send(ModeEvent::Locked(true));
    rig.run(40_000, Ok(()));
    assert_eq!((rig.machine.mode(), rig.record.below), (Mode::Safe, Mode::Reconciling));
    rig.send(ModeEvent::Locked(false));
    assert_eq!(rig.machine.mode(), Mode::Reconciling);
    rig.send(ModeEvent::RollbackSuspected(true));
    rig.anchor();
    assert_eq!(rig.machine.mode(), Mode::RollbackSuspected);
    let logged = rig.changes.len();
    rig.run(70_000, DOWN);
    assert_eq!(rig.changes.len(), logged, "nothing is logged while a rollback is suspected");
}

#[test]
fn limits_stop_sealing_only_where_policy_says_so_and_only_in_earnest() {
    let limits = Limits { seals: Some(10), duration: Some(600_000), holders: 0, at_limit: AtLimit::Safe };
    let mut rig = Rig::online(ModeConfig { limits, ..config(1) });
    rig.send(ModeEvent::Sealed { count: 100 });
    rig.run(70_000, DOWN);
    rig.send(ModeEvent::Sealed { count: 9 });
    assert_eq!(rig.machine.mode(), Mode::Emergency);
    rig.send(ModeEvent::Sealed { count: 1 });
    assert_eq!(rig.machine.mode(), Mode::Safe);
    assert_eq!(rig.changes.last().unwrap().1.limits, [Limit::Seals]);
    rig.run(600_000, DOWN);
    assert_eq!(rig.machine.mode(), Mode::Safe);
    let reached = |limit| ModeEffect::LimitReached { limit, outage: 1, drill: false };
    assert_eq!(rig.told, [reached(Limit::Seals), reached(Limit::Duration)], "each is told once");
    rig.run(40_000, Ok(()));
    assert_eq!(rig.machine.mode(), Mode::Reconciling, "the end of the outage ends it");
    let (_, closing) = rig.manifests.last().unwrap();
    assert_eq!((closing.stage, &closing.limits[..]), (Stage::Closing, &[Limit::Duration, Limit::Seals][..]));
    rig.anchor();
    rig.told.clear();
    rig.send(ModeEvent::DrillStart { millis: 900_000 });
    rig.run(700_000, Ok(()));
    rig.send(ModeEvent::Sealed { count: 10 });
    assert_eq!(rig.machine.mode(), Mode::Emergency, "a drill costs no seal");
    assert_eq!(rig.told.len(), 2);
}

#[test]
fn at_a_limit_that_does_not_stop_a_manifest_says_so_at_once() {
    let limits = Limits { holders: 1, ..Limits::default() };
    let mut rig = Rig::online(ModeConfig { limits, ..config(1) });
    rig.send(ModeEvent::Holders { count: 1 });
    rig.run(70_000, DOWN);
    assert_eq!(rig.stages(), [(1, Stage::Opening)]);
    rig.send(ModeEvent::Holders { count: 0 });
    assert_eq!(rig.stages(), [(1, Stage::Opening), (1, Stage::Refresh)]);
    assert_eq!(rig.manifests[1].1.limits, [Limit::Holders]);
    assert_eq!(rig.machine.mode(), Mode::Emergency);
}

#[test]
fn a_drill_is_an_outage_that_says_so_everywhere() {
    let mut rig = Rig::online(config(2));
    rig.changes.clear();
    rig.send(ModeEvent::DrillStart { millis: 600_000 });
    assert!(rig.machine.is_drill());
    rig.send(ModeEvent::DrillStart { millis: 600_000 });
    rig.run(700_000, Ok(()));
    rig.anchor();
    let path = [
        (Mode::Online, true),
        (Mode::Degraded, true),
        (Mode::Emergency, true),
        (Mode::Reconciling, true),
        (Mode::Online, false),
    ];
    assert_eq!(rig.path(), path);
    assert!(rig.manifests.iter().all(|(_, manifest)| manifest.drill));
    let told =
        [ModeEffect::DrillRefused(DrillRefusal::DrillUnderWay), ModeEffect::DrillEnded(DrillEnd::Over)];
    assert_eq!(rig.told, told);
    rig.run(70_000, DOWN);
    assert_eq!((rig.record.outages, rig.machine.is_drill()), (2, false));
}

#[test]
fn a_drill_ends_with_the_process_or_when_somebody_stops_it() {
    let mut rig = Rig::online(config(1));
    rig.send(ModeEvent::DrillStart { millis: 600_000 });
    rig.restart();
    assert!(!rig.machine.is_drill());
    rig.send(ModeEvent::DrillStart { millis: 600_000 });
    rig.run(100_000, Ok(()));
    assert_eq!(rig.machine.mode(), Mode::Emergency);
    rig.restart();
    assert!(rig.machine.is_drill(), "what the drill began is a drill to its end");
    rig.run(40_000, Ok(()));
    rig.anchor();
    assert_eq!((rig.machine.mode(), rig.machine.is_drill()), (Mode::Online, false));
    rig.send(ModeEvent::DrillStart { millis: 600_000 });
    rig.send(ModeEvent::DrillStop);
    assert_eq!(rig.told.last(), Some(&ModeEffect::DrillEnded(DrillEnd::Stopped)));
    assert!(!rig.machine.is_drill());
}

#[test]
fn no_real_outage_hides_in_a_drill() {
    for before in [10_000, 100_000] {
        let mut rig = Rig::online(config(1));
        rig.send(ModeEvent::DrillStart { millis: 600_000 });
        rig.run(before, Ok(()));
        rig.run(70_000, DOWN);
        assert_eq!(rig.told, [ModeEffect::DrillEnded(DrillEnd::RealOutage)]);
        assert_eq!((rig.machine.mode(), rig.machine.is_drill()), (Mode::Emergency, false));
        assert_eq!(rig.record.outages, 1);
        rig.run(40_000, Ok(()));
        let closing = &rig.manifests.last().unwrap().1;
        assert_eq!((closing.stage, closing.drill), (Stage::Closing, false));
    }
}

#[test]
fn a_lease_keeps_a_box_out_of_emergency_until_it_ends() {
    let mut rig = Rig::online(config(1));
    rig.send(ModeEvent::Lease { expires_in: 600_000, seals: None });
    rig.run(600_000, DOWN);
    assert_eq!(rig.machine.mode(), Mode::Degraded, "the authority is away, and the entries say so");
    rig.run(60_000, DOWN);
    assert_eq!(rig.machine.mode(), Mode::Emergency);
    rig.send(ModeEvent::Lease { expires_in: 600_000, seals: Some(5) });
    rig.run(40_000, DOWN);
    assert_eq!(rig.machine.mode(), Mode::Reconciling, "a hub is reachable again");
    rig.send(ModeEvent::Sealed { count: 5 });
    rig.run(60_000, DOWN);
    assert_eq!((rig.machine.mode(), rig.record.outages), (Mode::Emergency, 2), "the lease is used up");
}

#[test]
fn limits_may_change_in_the_middle_of_an_outage() {
    let mut rig = Rig::online(config(1));
    rig.run(70_000, DOWN);
    rig.send(ModeEvent::Sealed { count: 10 });
    let safe = Limits { seals: Some(10), at_limit: AtLimit::Safe, ..Limits::default() };
    rig.send(ModeEvent::Limits(safe));
    assert_eq!(rig.machine.mode(), Mode::Safe, "it was reached before it was set");
    assert_eq!(rig.machine.facts().limits, [Limit::Seals]);
    rig.send(ModeEvent::Limits(Limits { seals: Some(11), ..safe }));
    assert_eq!(rig.machine.mode(), Mode::Emergency, "the outage goes on, and so do seals");
    rig.send(ModeEvent::Limits(Limits { holders: 1, ..safe }));
    assert_eq!(rig.machine.facts().limits, [Limit::Seals, Limit::Holders]);
    assert!(rig.manifests.last().unwrap().1.limits.contains(&Limit::Holders), "the manifest says so");
}

#[test]
fn taking_the_authorities_away_closes_the_outage() {
    let mut rig = Rig::online(config(1));
    rig.run(70_000, DOWN);
    rig.config.authorities.clear();
    rig.restart();
    assert_eq!(rig.machine.mode(), Mode::AirGapped);
    assert_eq!(rig.stages(), [(1, Stage::Opening), (1, Stage::Closing)]);
}

#[test]
fn an_append_of_unknown_effect_is_resolved_by_reading_the_log() {
    for durable in [false, true] {
        let mut rig = Rig::online(config(1));
        rig.now += 5_000;
        rig.machine.handle(ModeEvent::Probed { authority: 0, result: DOWN }, rig.now);
        rig.now += 60_000;
        let effects = rig.machine.handle(ModeEvent::Tick, rig.now);
        let change = effects.iter().find_map(|effect| match effect {
            ModeEffect::LogModeChange { change, .. } => Some(change.clone()),
            _ => None,
        });
        let change = change.expect("the outage begins");
        if durable {
            rig.record.changed(rig.size, &change);
            rig.size += 1;
        }
        rig.send(ModeEvent::Logged { ticket: 999, index: 5 });
        assert_eq!(rig.machine.mode(), Mode::Online, "an answer to another question is none");
        rig.send(ModeEvent::Reread(rig.record.clone()));
        assert_eq!((rig.machine.mode(), rig.record.outages), (Mode::Emergency, 1));
    }
}

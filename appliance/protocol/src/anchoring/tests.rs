//! The planner under a driver whose disk and log take everything at once; authorities answer when a test says so.

use super::*;
use crate::authority::Authority;

const MINUTE: u64 = 60_000;
const PUBLIC: Quota = Quota { requests: 20, period: 20 * MINUTE };

fn config(operators: &[&str]) -> AnchorConfig {
    let authority = |(n, operator): (usize, &&str)| AnchorAuthority {
        authority: Authority { id: format!("tsa-{n}"), operator: (*operator).to_owned() },
        quota: Some(PUBLIC),
        timeout: 10_000,
        batches: true,
    };
    AnchorConfig { authorities: operators.iter().enumerate().map(authority).collect(), ..Default::default() }
}

/// A driver whose disk and log take everything at once; answers of authorities are given by the test.
struct Rig {
    planner: AnchorPlanner,
    config: AnchorConfig,
    now: u64,
    size: u64,
    worth: u64,
    kept: (AnchorState, u64),
    anchored: Vec<(String, u64)>,
    asked: Vec<(u64, usize, u64, u64)>,
    logged: Vec<(u64, Vec<usize>)>,
    gathers: Vec<u64>,
    batches: Vec<Batch>,
}

impl Rig {
    fn new(config: AnchorConfig) -> Self {
        Rig {
            planner: AnchorPlanner::new(config.clone(), &AnchorStart::default(), 0),
            config,
            now: 0,
            size: 0,
            worth: 0,
            kept: (AnchorState::default(), 0),
            anchored: Vec::new(),
            asked: Vec::new(),
            logged: Vec::new(),
            gathers: Vec::new(),
            batches: Vec::new(),
        }
    }

    fn send(&mut self, event: AnchorEvent) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for effect in self.planner.handle(event, self.now, 7) {
                match effect {
                    AnchorEffect::Persist { ticket, state } => {
                        self.kept = (state, self.now);
                        events.push(AnchorEvent::Persisted { ticket });
                    }
                    AnchorEffect::Ask { ticket, authority, size, .. } => {
                        self.asked.push((self.now, authority, size, ticket));
                    }
                    AnchorEffect::Gather { ticket, .. } => self.gathers.push(ticket),
                    AnchorEffect::LogAnchor { ticket, size, authorities, batch } => {
                        self.batches.push(batch);
                        for place in &authorities {
                            let operator = self.config.authorities[*place].authority.operator.clone();
                            self.anchored.push((operator, size));
                        }
                        self.logged.push((size, authorities));
                        self.size += 1;
                        events.push(AnchorEvent::Logged { ticket });
                        events.insert(0, AnchorEvent::Head { size: self.size, worth: self.worth });
                    }
                }
            }
        }
    }

    fn seal(&mut self, count: u64) {
        self.size += count;
        self.worth = self.size;
        self.send(AnchorEvent::Head { size: self.size, worth: self.worth });
    }

    /// Answers the newest question to this authority.
    fn answer(&mut self, authority: usize, result: Result<(), Refused>) {
        let asked = self.asked.iter().rev().find(|(_, place, ..)| *place == authority);
        let ticket = asked.expect("it was asked").3;
        self.send(AnchorEvent::Answered { ticket, result });
    }

    /// Lets time pass, waking only when the planner says so.
    fn pass(&mut self, millis: u64) {
        let end = self.now + millis;
        while let Some(at) = self.planner.next_wakeup().filter(|at| *at <= end) {
            self.now = at;
            self.send(AnchorEvent::Tick);
        }
        self.now = end;
        self.send(AnchorEvent::Tick);
    }

    fn restart(&mut self, elapsed: u64) {
        let start = AnchorStart { state: self.kept.0.clone(), elapsed, anchored: self.anchored.clone() };
        self.planner = AnchorPlanner::new(self.config.clone(), &start, self.now);
        self.send(AnchorEvent::Head { size: self.size, worth: self.worth });
    }

    fn asked_of(&self, authority: usize) -> usize {
        self.asked.iter().filter(|(_, place, ..)| *place == authority).count()
    }
}

const OK: Result<(), Refused> = Ok(());
const FAILED: Result<(), Refused> = Err(Refused { failure: Failure::Timeout, retry_after: None });

#[test]
fn two_operators_anchor_one_tree_in_one_entry() {
    let mut rig = Rig::new(config(&["a", "a", "b"]));
    rig.seal(5);
    assert_eq!(rig.planner.needed(), 2);
    assert_eq!((rig.asked_of(0) + rig.asked_of(1), rig.asked_of(2)), (1, 1), "distinct operators");
    rig.answer(2, OK);
    assert!(rig.logged.is_empty());
    rig.answer(0, OK);
    assert_eq!(rig.logged, [(5, vec![2, 0])]);
    assert_eq!((rig.planner.anchored(1), rig.planner.anchored(2), rig.planner.anchored(3)), (5, 5, 0));
    rig.pass(86_400_000);
    assert_eq!(rig.logged.len(), 1, "an anchor entry does not ask for an anchor");
    assert_eq!(rig.planner.next_wakeup(), None);
    assert_eq!(rig.planner.facts().unanchored, [0, 0]);
    assert_eq!((rig.planner.facts().waiting, rig.planner.facts().next_attempt), (None, None));
}

#[test]
fn windows_by_age_and_by_number() {
    let mut rig = Rig::new(config(&["a"]));
    rig.seal(1);
    rig.answer(0, OK);
    rig.pass(10 * MINUTE);
    rig.seal(1);
    assert_eq!(rig.planner.facts().unanchored, [2], "with the anchor entry before it");
    assert_eq!(rig.planner.facts().next_attempt, Some(300_000));
    rig.pass(299_999);
    assert_eq!(rig.asked.len(), 1);
    rig.pass(1);
    assert_eq!(rig.asked.len(), 2);
    rig.answer(0, OK);
    rig.pass(MINUTE + 1_000);
    rig.seal(4_095);
    assert_eq!(rig.asked.len(), 3, "4,095 seals and the anchor entry");
    rig.seal(3);
    rig.answer(0, OK);
    rig.pass(299_999);
    assert_eq!(rig.asked.len(), 3);
    rig.pass(1);
    assert_eq!(rig.asked.len(), 4, "what came during the round has waited since it came");
}

#[test]
fn what_is_there_is_logged_and_the_rest_comes_later() {
    let mut rig = Rig::new(config(&["a", "b"]));
    rig.seal(1);
    rig.answer(0, OK);
    rig.answer(1, FAILED);
    assert_eq!(rig.logged, [(1, vec![0])]);
    assert_eq!(rig.planner.facts().unanchored, [0, 1]);
    assert_eq!(rig.planner.facts().next_attempt, Some(61_000), "its quota is spread");
    rig.pass(10_000);
    assert_eq!(rig.planner.facts().waiting, Some(10_000));
    rig.pass(55_000);
    assert_eq!((rig.asked_of(0), rig.asked_of(1)), (1, 2), "only the one that is missing");
    rig.answer(1, OK);
    assert_eq!(rig.logged[1], (2, vec![1]));
    assert_eq!(rig.planner.facts().unanchored, [0, 0]);
}

#[test]
fn a_failure_sends_the_question_to_somebody_else() {
    let mut rig = Rig::new(AnchorConfig { operators: 1, ..config(&["a", "a", "b"]) });
    rig.seal(1);
    for authority in 0..3 {
        assert_eq!(rig.asked.len(), authority + 1);
        let asked = rig.asked.last().unwrap().1;
        rig.answer(asked, if authority == 2 { OK } else { FAILED });
    }
    assert_eq!(rig.logged.len(), 1);
    assert!(rig.planner.facts().unanchored == [0]);
}

#[test]
fn a_dead_authority_is_asked_ever_more_rarely_and_at_once_when_it_is_back() {
    let mut rig = Rig::new(AnchorConfig {
        authorities: vec![AnchorAuthority { quota: None, ..config(&["a"]).authorities[0].clone() }],
        ..config(&[])
    });
    rig.seal(1);
    rig.pass(3_600_000);
    let pauses: Vec<u64> = rig.asked.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(pauses[0] < 16_000 && *pauses.last().unwrap() > 300_000, "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= 610_000), "{pauses:?}");
    let before = rig.asked.len();
    rig.send(AnchorEvent::Reachable { authority: 0 });
    assert_eq!(rig.asked.len(), before + 1);
}

#[test]
fn expedites_share_the_quota_and_a_closing_manifest_goes_first() {
    let mut rig = Rig::new(config(&["a"]));
    for _ in 0..1_200 {
        rig.seal(1);
        rig.send(AnchorEvent::Expedite { index: rig.size - 1 });
        if rig.planner.open_batch().is_some() {
            rig.answer(0, OK);
        }
        rig.pass(1_000);
    }
    assert!((18..=20).contains(&rig.asked.len()), "{} in 20 minutes", rig.asked.len());
    assert_eq!(rig.planner.facts().unanchored.len(), 1);
    while rig.planner.next_wakeup().is_some() {
        rig.pass(1_000);
        if rig.planner.open_batch().is_some() {
            rig.answer(0, OK);
        }
    }
    rig.pass(5 * MINUTE);
    let before = rig.asked.len();
    rig.seal(1);
    rig.send(AnchorEvent::Urgent { index: rig.size - 1 });
    rig.answer(0, OK);
    rig.seal(1);
    rig.send(AnchorEvent::Urgent { index: rig.size - 1 });
    assert_eq!(rig.asked.len(), before + 2, "no spacing for what is urgent");
}

#[test]
fn nobody_is_asked_about_a_tree_that_lacks_what_somebody_waits_for() {
    let events: [fn(u64) -> AnchorEvent; 2] =
        [|index| AnchorEvent::Urgent { index }, |index| AnchorEvent::Expedite { index }];
    for event in events {
        let authorities = vec![AnchorAuthority { quota: None, ..config(&["a"]).authorities[0].clone() }];
        let mut rig = Rig::new(AnchorConfig { authorities, ..config(&[]) });
        rig.seal(1);
        rig.answer(0, OK);
        let before = rig.asked.len();
        rig.send(event(rig.size));
        assert_eq!(rig.asked.len(), before, "it is in no tree yet");
        rig.seal(1);
        let asked: Vec<u64> = rig.asked[before..].iter().map(|(_, _, size, _)| *size).collect();
        assert_eq!(asked, [rig.size], "one question, about the tree with it");
    }
}

#[test]
fn restarts_do_not_reset_the_quota_whatever_the_clocks_say() {
    for elapsed in [0, 1_000] {
        let mut rig = Rig::new(AnchorConfig { operators: 1, ..config(&["a", "b"]) });
        rig.seal(1);
        for _ in 0..400 {
            rig.send(AnchorEvent::Urgent { index: rig.size - 1 });
            if rig.planner.open_batch().is_some() {
                let asked = rig.asked.last().unwrap().1;
                rig.answer(asked, OK);
            }
            rig.now += 1_000;
            rig.restart(elapsed);
            rig.seal(1);
        }
        assert_eq!((rig.asked_of(0), rig.asked_of(1)), (20, 20));
    }
    let mut rig = Rig::new(config(&["a"]));
    rig.kept.0 = AnchorState::used_up(&rig.config);
    rig.restart(0);
    rig.seal(1);
    assert_eq!(rig.asked.len(), 0, "what is not known is taken to be used up");
    rig.pass(21 * MINUTE);
    assert_eq!(rig.asked.len(), 1);
}

#[test]
fn an_authority_that_wants_to_be_left_alone_is() {
    let day = 86_400_000;
    for (retry_after, expected) in [(Some(day), day), (None, 20 * MINUTE), (Some(u64::MAX), day)] {
        let mut rig = Rig::new(config(&["a"]));
        rig.seal(1);
        rig.answer(0, Err(Refused { failure: Failure::Quota, retry_after }));
        rig.now += 1_000;
        rig.restart(1_000);
        rig.send(AnchorEvent::Reachable { authority: 0 });
        rig.pass(expected - 1_001);
        assert_eq!(rig.asked.len(), 1);
        rig.pass(1);
        assert_eq!(rig.asked.len(), 2);
    }
}

#[test]
fn nobody_is_asked_before_the_state_is_durable() {
    let mut planner = AnchorPlanner::new(config(&["a", "b"]), &AnchorStart::default(), 0);
    let effects = planner.handle(AnchorEvent::Head { size: 3, worth: 3 }, 0, 0);
    let [AnchorEffect::Persist { ticket, state }] = &effects[..] else { panic!("{effects:?}") };
    assert!(state.authorities.iter().all(|authority| authority.taken.len() == 1));
    let effects = planner.handle(AnchorEvent::NotPersisted { ticket: *ticket }, 5, 0);
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(planner.next_wakeup(), Some(1_005));
    let effects = planner.handle(AnchorEvent::Tick, 1_005, 0);
    let [AnchorEffect::Persist { ticket, .. }] = &effects[..] else { panic!("{effects:?}") };
    // The disk took longer than a question may: the slots would be free too early.
    let effects = planner.handle(AnchorEvent::Persisted { ticket: *ticket }, 20_000, 0);
    let [AnchorEffect::Persist { ticket, .. }] = &effects[..] else { panic!("{effects:?}") };
    let effects = planner.handle(AnchorEvent::Persisted { ticket: *ticket }, 20_001, 0);
    let asked = |effect: &AnchorEffect| matches!(effect, AnchorEffect::Ask { size: 3, .. });
    assert_eq!((effects.len(), effects.iter().all(asked)), (2, true));
    assert_eq!(planner.facts().authorities[0].quota_left, Some(19));
}

#[test]
fn what_was_not_logged_is_logged_again_and_what_was_is_not() {
    for durable in [None, Some(false), Some(true)] {
        let mut planner = AnchorPlanner::new(config(&["a"]), &AnchorStart::default(), 0);
        let persist = planner.handle(AnchorEvent::Head { size: 3, worth: 3 }, 0, 0);
        let [AnchorEffect::Persist { ticket, .. }] = persist[..] else { panic!("{persist:?}") };
        let ask = planner.handle(AnchorEvent::Persisted { ticket }, 0, 0);
        let [AnchorEffect::Ask { ticket, .. }] = ask[..] else { panic!("{ask:?}") };
        let log = planner.handle(AnchorEvent::Answered { ticket, result: OK }, 0, 0);
        let [AnchorEffect::LogAnchor { ticket, .. }] = log[..] else { panic!("{log:?}") };
        assert_eq!(planner.anchored(1), 0, "it is not in the log yet");
        let anchored = |durable| if durable { vec![("a".to_owned(), 3)] } else { Vec::new() };
        let event = match durable {
            None => AnchorEvent::NotLogged { ticket },
            Some(durable) => AnchorEvent::Reread { anchored: anchored(durable) },
        };
        planner.handle(event, 1, 0);
        let again = planner.handle(AnchorEvent::Tick, 2_000, 0);
        assert_eq!(planner.anchored(1), if durable == Some(true) { 3 } else { 0 });
        assert_eq!(planner.open_batch().is_some(), durable != Some(true), "{again:?}");
    }
}

#[test]
fn the_authority_with_most_quota_left_is_asked() {
    let mut rig = Rig::new(AnchorConfig { operators: 1, ..config(&["a", "b", "c"]) });
    for _ in 0..9 {
        rig.seal(1);
        rig.send(AnchorEvent::Expedite { index: rig.size - 1 });
        let asked = rig.asked.last().unwrap().1;
        rig.answer(asked, OK);
    }
    assert_eq!([0, 1, 2].map(|authority| rig.asked_of(authority)), [1, 1, 1], "then their spacing holds");
    rig.pass(65_000);
    assert_eq!(rig.asked.len(), 4);
}

#[test]
fn a_site_shares_one_quota() {
    let quota = Quota { requests: 3, period: 10 * MINUTE };
    let mut rig = Rig::new(AnchorConfig { operators: 1, site_quota: Some(quota), ..config(&["a", "b"]) });
    rig.seal(1);
    for _ in 0..600 {
        rig.send(AnchorEvent::Urgent { index: rig.size - 1 });
        if rig.planner.open_batch().is_some() {
            let asked = rig.asked.last().unwrap().1;
            rig.answer(asked, OK);
        }
        rig.seal(1);
        rig.pass(1_000);
    }
    assert_eq!(rig.asked.len(), 3);
}

#[test]
fn without_authorities_nothing_is_planned() {
    let mut rig = Rig::new(config(&[]));
    rig.seal(10_000);
    rig.send(AnchorEvent::Expedite { index: 5 });
    rig.pass(86_400_000);
    assert!(rig.asked.is_empty() && rig.planner.next_wakeup().is_none());
    assert!(rig.planner.facts().unanchored.is_empty());
}

const REVOKED: Result<(), Refused> = Err(Refused { failure: Failure::Revoked, retry_after: None });

impl Rig {
    fn doubt(&mut self, operator: &str, revoked: &[usize]) {
        self.anchored.retain(|(name, _)| name != operator);
        let anchored = self.anchored.clone();
        self.send(AnchorEvent::Doubted { anchored, revoked: revoked.to_vec() });
    }
}

#[test]
fn what_only_a_revoked_signer_covered_is_anchored_by_others_at_once() {
    let mut rig = Rig::new(AnchorConfig { operators: 1, ..config(&["a", "b"]) });
    rig.seal(5);
    rig.answer(0, OK);
    assert_eq!((rig.planner.anchored(1), rig.asked_of(1)), (5, 0));
    rig.doubt("a", &[0]);
    assert_eq!((rig.planner.anchored(1), rig.planner.facts().unanchored), (0, vec![5]));
    assert_eq!((rig.asked_of(0), rig.asked_of(1)), (1, 1), "the other one, at once");
    rig.answer(1, OK);
    assert_eq!(rig.logged.last(), Some(&(6, vec![1])));
    assert_eq!(rig.planner.facts().unanchored, [0]);
    assert!(rig.planner.facts().authorities[0].revoked);
}

#[test]
fn a_revoked_authority_is_asked_beside_the_others_until_it_stamps_under_another_certificate() {
    let mut rig = Rig::new(AnchorConfig { operators: 1, ..config(&["a", "b", "b"]) });
    rig.doubt("a", &[0, 1]);
    for answer in [REVOKED, REVOKED, OK] {
        rig.pass(10 * MINUTE);
        rig.seal(5_000);
        assert!([0, 1, 2].iter().all(|place| rig.planner.facts().authorities[*place].asking), "{answer:?}");
        rig.answer(0, answer);
        rig.answer(1, answer);
        rig.answer(2, OK);
        let logged = rig.logged.last().unwrap().1.len();
        assert_eq!(logged, if answer.is_ok() { 3 } else { 1 });
    }
    assert!(rig.planner.facts().authorities.iter().all(|each| !each.revoked));
    let before = rig.asked.len();
    rig.pass(10 * MINUTE);
    rig.seal(5_000);
    assert_eq!(rig.asked.len(), before + 1, "as ever: one operator is enough");
}

#[test]
fn a_proof_that_is_not_in_the_log_yet_goes_with_its_signer() {
    let mut rig = Rig::new(config(&["a", "b"]));
    rig.seal(5);
    rig.answer(0, OK);
    rig.doubt("a", &[0]);
    rig.answer(1, OK);
    assert_eq!(rig.logged, [(5, vec![1])]);
    assert_eq!((rig.planner.anchored(1), rig.planner.anchored(2)), (5, 0));
}

#[test]
fn who_leaves_the_configuration_and_comes_back_has_its_quota_as_it_was() {
    let mut rig = Rig::new(config(&["a", "b"]));
    rig.seal(1);
    rig.answer(0, OK);
    rig.answer(1, OK);
    let both = std::mem::replace(&mut rig.config, config(&["a"]));
    rig.restart(MINUTE);
    rig.seal(5_000);
    rig.pass(62_000);
    assert_eq!(rig.asked_of(0), 2);
    rig.answer(0, OK);
    rig.config = both;
    rig.restart(0);
    let left = |rig: &Rig, place: usize| rig.planner.facts().authorities[place].quota_left;
    assert_eq!((left(&rig, 0), left(&rig, 1)), (Some(18), Some(18)), "one of them since");
    let kept = rig.kept.0.authorities.iter().find(|state| state.id == "tsa-1").unwrap();
    assert!(kept.taken[0] <= 19 * MINUTE, "it is free again in its time: {kept:?}");
}

fn together() -> AnchorConfig {
    let site = Some(Together { gather_wait: 5_000, offer_every: 300_000 });
    AnchorConfig { operators: 1, site, window_age: MINUTE, ..config(&["a"]) }
}

impl Rig {
    /// Lets time pass until so many gatherings have begun; the last one's ticket.
    fn gathering(&mut self, count: usize) -> u64 {
        while self.gathers.len() < count {
            self.now = self.planner.next_wakeup().expect("it wakes up");
            self.send(AnchorEvent::Tick);
        }
        self.gathers[count - 1]
    }

    /// Lets time pass until somebody is asked; no neighbour wants anything.
    fn asking(&mut self) {
        let (asked, mut gathers) = (self.asked.len(), self.gathers.len());
        while self.asked.len() == asked {
            self.now = self.planner.next_wakeup().expect("it wakes up");
            self.send(AnchorEvent::Tick);
            if self.gathers.len() > gathers {
                gathers = self.gathers.len();
                self.send(AnchorEvent::Gathered { ticket: self.gathers[gathers - 1], heads: 0 });
            }
        }
    }
}

/// A box that has anchored once, so that it knows whom it reaches; and has offered what it can, which nobody wanted.
fn reaching() -> Rig {
    let mut rig = Rig::new(together());
    rig.seal(3);
    assert!(rig.gathers.is_empty(), "who reaches nobody gathers nothing");
    rig.answer(0, OK);
    assert_eq!(rig.batches, [Batch::Alone]);
    let ticket = rig.gathering(1);
    rig.send(AnchorEvent::Gathered { ticket, heads: 0 });
    assert_eq!(rig.asked.len(), 1, "nobody wants it");
    rig
}

#[test]
fn a_round_waits_for_the_neighbours_heads_and_no_longer_than_it_may() {
    let mut rig = reaching();
    rig.seal(5);
    let ticket = rig.gathering(2);
    assert_eq!(rig.asked.len(), 1);
    rig.seal(1);
    rig.send(AnchorEvent::Gathered { ticket, heads: 2 });
    assert_eq!(rig.asked[1].2, rig.size, "it is over the log as it is when they have come");
    rig.answer(0, OK);
    assert_eq!(rig.batches[1], Batch::Gathered { gather: ticket });
    rig.seal(1);
    let ticket = rig.gathering(3);
    rig.pass(4_999);
    assert_eq!(rig.asked.len(), 2);
    rig.pass(1);
    assert_eq!(rig.asked.len(), 3, "nobody has answered");
    rig.send(AnchorEvent::Gathered { ticket, heads: 9 });
    rig.answer(0, OK);
    assert_eq!(rig.batches[2], Batch::Alone, "too late");
}

#[test]
fn a_box_with_nothing_to_anchor_asks_for_its_neighbours_now_and_then() {
    let mut rig = reaching();
    let offered = rig.now;
    let gather = rig.gathering(2);
    assert_eq!(rig.now, offered + 300_000);
    rig.send(AnchorEvent::Gathered { ticket: gather, heads: 1 });
    assert_eq!(rig.asked.len(), 2);
    rig.answer(0, OK);
    assert_eq!(rig.batches[1], Batch::Gathered { gather });
    rig.pass(4 * MINUTE);
    assert_eq!((rig.gathers.len(), rig.asked.len()), (2, 2), "not more often than that");
}

#[test]
fn who_holds_off_asks_nobody_until_it_is_over() {
    let mut rig = reaching();
    rig.seal(5);
    rig.send(AnchorEvent::HoldOff { until: rig.now + 90_000 });
    rig.pass(89_000);
    assert_eq!((rig.gathers.len(), rig.asked.len()), (1, 1));
    rig.pass(2_000);
    assert_eq!(rig.gathers.len(), 2, "the time is over");
    rig.send(AnchorEvent::HoldOff { until: rig.now + 1_000 });
    rig.send(AnchorEvent::Gathered { ticket: rig.gathers[1], heads: 3 });
    assert_eq!(rig.asked.len(), 1, "it has left its place to somebody else");
    rig.send(AnchorEvent::HoldOff { until: 0 });
    assert_eq!(rig.gathers.len(), 3, "at once");
}

#[test]
fn what_a_neighbour_hands_over_is_logged_and_nobody_is_asked_for_it_again() {
    let mut rig = reaching();
    rig.seal(5);
    let size = rig.size;
    rig.send(AnchorEvent::Handed { handed: 1, size, authorities: vec![0] });
    assert_eq!(rig.logged.last(), Some(&(size, vec![0])));
    assert_eq!(rig.batches.last(), Some(&Batch::Handed { handed: 1 }));
    assert!(!rig.planner.lacks_anchor() && !rig.planner.wants_handed(1));
    rig.pass(2 * MINUTE);
    assert_eq!(rig.asked.len(), 1, "it asks nobody");
    let logged = rig.logged.len();
    rig.send(AnchorEvent::Handed { handed: 2, size, authorities: vec![0] });
    rig.send(AnchorEvent::Handed { handed: 3, size: rig.size, authorities: vec![9] });
    assert_eq!(rig.logged.len(), logged, "it says nothing new");

    // While it asks itself, what is handed over waits, and is worth something only if nothing else came.
    for result in [OK, FAILED] {
        rig.seal(5);
        rig.asking();
        let (asked, logged) = (rig.asked.len(), rig.logged.len());
        rig.send(AnchorEvent::Handed { handed: 4, size: rig.size, authorities: vec![0] });
        assert_eq!(rig.logged.len(), logged);
        rig.answer(0, result);
        assert_eq!((rig.asked.len(), rig.logged.len()), (asked, logged + 1));
    }
}

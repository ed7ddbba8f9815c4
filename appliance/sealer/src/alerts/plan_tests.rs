//! The decisions, moment by moment, and a random life with crashes.

use super::*;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const START: u64 = 1_000_000_000;

fn config(receivers: &[(&str, bool)]) -> PlanConfig {
    PlanConfig {
        receivers: receivers.iter().map(|(name, pages)| ((*name).to_owned(), *pages)).collect(),
        settle: 300 * SECOND,
        repeat: 4 * HOUR,
        group: 30 * SECOND,
        retry: 5 * SECOND,
        retry_max: 600 * SECOND,
    }
}

fn plan(receivers: &[(&str, bool)]) -> Plan {
    Plan::new(config(receivers), Kept::default(), "run".to_owned(), START)
}

fn now(seconds: u64) -> Now {
    let at = START + seconds * SECOND;
    Now { at, said: Said { millis: at, uncertainty_millis: None } }
}

fn is(name: &'static str, page: bool, hold: u64, holds: bool) -> Report {
    let holds = if holds { vec![(String::new(), "words".to_owned())] } else { Vec::new() };
    Report { name, page, hold: hold * SECOND, holds: Some(holds) }
}

const DOWN: Outcome = Outcome::Failed { surely: true, retry_after: None };
const UNSURE: Outcome = Outcome::Failed { surely: false, retry_after: None };

/// Name and whether it is over, of each item.
fn told(notification: &Notification) -> Vec<(&str, bool)> {
    notification.items.iter().map(|item| (item.key.name.as_str(), item.ended.is_some())).collect()
}

#[test]
fn it_begins_after_its_hold_time_and_ends_after_the_settle_time() {
    let mut plan = plan(&[("a", false)]);
    plan.look(&[is("X", false, 60, true)], now(0));
    plan.look(&[is("X", false, 60, true)], now(59));
    assert_eq!((plan.firing().count(), plan.due(now(200).at).len()), (0, 0));
    plan.look(&[is("X", false, 60, true)], now(60));
    assert_eq!(plan.firing().count(), 1);
    assert!(plan.due(now(89).at).is_empty(), "others may begin");
    let due = plan.due(now(90).at);
    assert_eq!(told(&due[0].1), [("X", false)]);
    assert_eq!(due[0].1.items[0].began, now(0).said, "it began when it began to hold");
    assert!(plan.due(now(91).at).is_empty(), "one at a time");
    plan.sent(0, Outcome::Delivered, now(91).at, 0);
    plan.look(&[is("X", false, 60, false)], now(100));
    plan.look(&[is("X", false, 60, false)], now(399));
    assert!(plan.due(now(399).at).is_empty());
    plan.look(&[is("X", false, 60, false)], now(400));
    let due = plan.due(now(430).at);
    assert_eq!(told(&due[0].1), [("X", true)]);
    assert_eq!(due[0].1.items[0].ended, Some(now(100).said), "it ended when it ceased to hold");
    plan.sent(0, Outcome::Delivered, now(431).at, 0);
    assert_eq!(
        plan.kept().receivers[0],
        Line { name: "a".to_owned(), owed: vec![], sending: None, told: vec![] }
    );
}

#[test]
fn what_does_not_last_is_not_told() {
    let mut plan = plan(&[("a", false)]);
    for second in 0..100 {
        plan.look(&[is("X", false, 60, second % 50 != 49)], now(second));
    }
    assert!(plan.due(now(1_000).at).is_empty());
}

#[test]
fn what_flaps_is_told_once() {
    let mut plan = plan(&[("a", false)]);
    let mut sent = 0;
    for second in 0..3_000 {
        plan.look(&[is("X", true, 0, second % 20 == 0)], now(second));
        for (receiver, _) in plan.due(now(second).at) {
            sent += 1;
            plan.sent(receiver, Outcome::Delivered, now(second).at, 0);
        }
    }
    assert_eq!(sent, 1);
}

#[test]
fn what_begins_together_is_one_message_and_pages_alone_go_where_only_pages_go() {
    let mut plan = plan(&[("all", false), ("pages", true)]);
    let reports = [is("X", false, 0, true), is("Y", true, 0, true)];
    plan.look(&reports, now(0));
    let due = plan.due(now(30).at);
    assert_eq!(told(&due[0].1), [("X", false), ("Y", false)]);
    assert_eq!(told(&due[1].1), [("Y", false)]);
    assert_ne!(due[0].1.id, due[1].1.id);
}

#[test]
fn what_goes_on_is_told_again() {
    let mut plan = plan(&[("a", false)]);
    let mut times = Vec::new();
    for minute in 0..60 * 9 {
        plan.look(&[is("X", false, 0, true)], now(minute * 60));
        for (receiver, what) in plan.due(now(minute * 60 + 30).at) {
            times.push((minute / 60, what.items[0].again));
            plan.sent(receiver, Outcome::Delivered, now(minute * 60 + 30).at, 0);
        }
    }
    assert_eq!(times, [(0, false), (4, true), (8, true)]);
}

#[test]
fn what_cannot_be_told_stays_as_it_is() {
    let mut plan = plan(&[("a", false)]);
    plan.look(&[is("X", false, 0, true)], now(0));
    for second in 1..1_000 {
        plan.look(&[Report { holds: None, ..is("X", false, 0, false) }], now(second));
    }
    assert_eq!(plan.firing().count(), 1);
    // A condition that is looked at no more is over.
    plan.look(&[], now(1_000));
    plan.look(&[], now(1_300));
    assert_eq!(plan.firing().count(), 0);
}

#[test]
fn a_beginning_that_nobody_heard_of_is_superseded_by_its_end() {
    let mut plan = plan(&[("a", false)]);
    let mut ids = BTreeSet::new();
    for second in 0..2_000 {
        plan.look(&[is("X", false, 0, second < 100)], now(second));
        for (receiver, what) in plan.due(now(second).at) {
            ids.insert(what.id);
            plan.sent(receiver, DOWN, now(second).at, second);
        }
    }
    assert!(ids.len() > 3, "nothing arrived, so nothing has to be repeated as it was");
    plan.healed(now(2_000).at, 7);
    let due = plan.due(now(2_010).at);
    assert_eq!(told(&due[0].1), [("X", true)]);
    assert_eq!(due[0].1.items[0].began, now(0).said);
    plan.sent(0, Outcome::Delivered, now(2_011).at, 0);
    assert!(plan.due(now(9_000).at).is_empty());
}

#[test]
fn what_may_have_arrived_is_sent_again_as_it_was_before_what_came_after() {
    let mut plan = plan(&[("a", false)]);
    plan.look(&[is("X", false, 0, true)], now(0));
    let first = plan.due(now(30).at).remove(0).1;
    plan.sent(0, UNSURE, now(40).at, 0);
    plan.look(&[is("X", false, 0, false), is("Y", false, 0, true)], now(50));
    plan.look(&[is("X", false, 0, false), is("Y", false, 0, true)], now(350));
    let again = plan.due(now(400).at).remove(0).1;
    assert_eq!(again, first);
    // That this attempt came to nothing says nothing about the one before.
    plan.sent(0, DOWN, now(400).at, 0);
    let again = plan.due(now(420).at).remove(0).1;
    assert_eq!(again, first);
    plan.sent(0, Outcome::Delivered, now(421).at, 0);
    assert!(plan.due(now(422).at).is_empty());
    let second = plan.due(now(451).at).remove(0).1;
    assert_eq!(told(&second), [("Y", false), ("X", true)]);
    assert_ne!(second.id, first.id);
}

#[test]
fn a_long_absence_is_told_in_one_message() {
    let mut plan = plan(&[("a", false)]);
    for second in 0..20_000 {
        // Ten episodes of one, and another that stays.
        let holds = second % 2_000 < 500;
        plan.look(&[is("X", false, 0, holds), is("Y", false, 0, second > 300)], now(second));
        for (receiver, _) in plan.due(now(second).at) {
            plan.sent(receiver, DOWN, now(second).at, second * 7);
        }
    }
    assert_eq!(plan.facts(now(20_000).at)[0].undelivered, 2);
    plan.healed(now(20_000).at, 0);
    let due = plan.due(now(20_010).at).remove(0).1;
    assert_eq!(told(&due), [("Y", false), ("X", true)]);
    let over = &due.items[1];
    assert_eq!((over.times, over.began, over.ended), (10, now(0).said, Some(now(18_500).said)));
}

#[test]
fn pauses_grow_to_a_limit_and_a_receiver_may_ask_for_one() {
    let mut plan = plan(&[("a", false)]);
    plan.look(&[is("X", false, 0, true)], now(0));
    let (mut at, mut pauses) = (now(30).at, Vec::new());
    for _ in 0..12 {
        assert_eq!(plan.due(at).len(), 1);
        plan.sent(0, DOWN, at, u64::MAX);
        let from = at;
        while plan.due(at).is_empty() {
            at += 100;
        }
        pauses.push((at - from) / SECOND);
        plan.receivers[0].in_flight = false;
    }
    assert!(pauses.is_sorted() && pauses[0] <= 5 && pauses[11] <= 600 && pauses[11] >= 300, "{pauses:?}");
    plan.due(at);
    plan.sent(0, Outcome::Failed { surely: false, retry_after: Some(2 * ASKED_MAX) }, at, 0);
    assert!(plan.due(at + ASKED_MAX - 1).is_empty());
    assert_eq!(plan.due(at + ASKED_MAX).len(), 1);
}

#[test]
fn a_restart_forgets_nothing_and_a_new_receiver_is_told_what_is_firing() {
    let mut plan = plan(&[("a", false)]);
    plan.look(&[is("X", false, 60, true)], now(0));
    // The hold time goes on over the restart.
    let mut plan = Plan::new(config(&[("a", false)]), plan.kept(), "next".to_owned(), now(50).at);
    plan.look(&[is("X", false, 60, true)], now(60));
    let first = plan.due(now(90).at).remove(0).1;
    let mut plan =
        Plan::new(config(&[("a", false), ("b", false)]), plan.kept(), "third".to_owned(), now(100).at);
    plan.look(&[is("X", false, 60, true)], now(100));
    let due = plan.due(now(130).at);
    assert_eq!(due[0].1, first, "with the id that it had");
    assert_eq!(told(&due[1].1), [("X", false)]);
    assert!(due[1].1.id.starts_with("third-"));
    // The clock was set back by a year: nothing waits for it to come round again.
    let early = now(0).at - 500_000_000;
    let mut plan = Plan::new(config(&[("a", false)]), plan.kept(), "fourth".to_owned(), early);
    assert_eq!(plan.due(early).len(), 1);
    assert!(plan.kept().receivers.iter().all(|line| line.name == "a"), "b is configured no more");
}

#[test]
fn there_is_an_end_to_everything() {
    let mut plan = plan(&[("a", false)]);
    let many = |from: usize| {
        let subjects = (from..from + 1_000).map(|number| (number.to_string(), "é".repeat(TEXT_MAX)));
        [Report { holds: Some(subjects.collect()), ..is("X", false, 0, false) }]
    };
    for round in 0..20 {
        plan.look(&many(round * 1_000), now(round as u64 * 1_000));
        assert!(plan.alerts.len() <= ALERTS_MAX);
        assert!(plan.alerts.values().all(|alert| alert.detail.len() <= TEXT_MAX));
    }
    for (_, what) in plan.due(now(30_000).at) {
        assert_eq!(what.items.len(), ITEMS_MAX);
    }
}

/// xorshift64*: the same life for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides
    }
}

/// What a receiver that drops what it has seen by its id has heard of each condition: begun and over, in turn.
#[derive(Default)]
struct Hears {
    ids: BTreeMap<String, Vec<Item>>,
    open: BTreeMap<String, u64>,
    beginnings: BTreeMap<(String, u64), u64>,
    messages: u64,
}

impl Hears {
    fn hear(&mut self, what: &Notification, seed: u64) {
        if let Some(before) = self.ids.get(&what.id) {
            assert_eq!(before, &what.items, "seed {seed}: one id, two contents");
            return;
        }
        self.messages += 1;
        self.ids.insert(what.id.clone(), what.items.clone());
        for item in &what.items {
            let name = &item.key.name;
            if item.ended.is_some() {
                // Ends of what was told of, or superseding beginnings that were not: either way it is over.
                self.open.remove(name);
            } else if !item.again {
                *self.beginnings.entry((name.clone(), item.began_at)).or_default() += 1;
                assert!(!self.open.contains_key(name), "seed {seed}: {name} began twice without an end");
                self.open.insert(name.clone(), item.began_at);
            }
        }
    }
}

#[test]
fn random_lives_with_crashes_tell_every_receiver_everything_once() {
    const NAMES: [&str; 3] = ["X", "Y", "Z"];
    let mut crashes = 0;
    for seed in 1..=150u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let receivers = [("a", false), ("b", true)];
        let mut plan = Plan::new(config(&receivers), Kept::default(), "run-0".to_owned(), START);
        let mut disk = plan.kept();
        let mut hears = [Hears::default(), Hears::default()];
        let mut holds = [false; 3];
        let mut up = [true; 2];
        // Episodes as a bystander counts them: firing at last, and over after the settle time.
        let mut episodes: [BTreeSet<(String, u64)>; 2] = Default::default();
        let mut second = 0;
        while second < 30_000 {
            second += 1 + dice.roll(30);
            let calm = second > 25_000;
            for holds in &mut holds {
                if dice.roll(60) == 0 {
                    *holds = !*holds;
                }
                *holds &= !calm;
            }
            for up in &mut up {
                if dice.roll(40) == 0 {
                    *up = !*up;
                }
                *up |= calm;
            }
            let reports: Vec<Report> =
                NAMES.iter().zip(holds).map(|(name, holds)| is(name, *name == "Z", 40, holds)).collect();
            plan.look(&reports, now(second));
            for alert in plan.firing().filter(|alert| alert.calm_at.is_none()) {
                for (at, (_, pages)) in receivers.iter().enumerate() {
                    if alert.page || !pages {
                        episodes[at].insert((alert.key.name.clone(), alert.began_at));
                    }
                }
            }
            let due = plan.due(now(second).at);
            if plan.has_changed() {
                disk = plan.kept();
            }
            let mut crash = dice.roll(200) == 0;
            for (receiver, what) in due {
                // It arrives, and the answer may be lost; or it does not arrive at all.
                let outcome = match (up[receiver], dice.roll(8)) {
                    (false, 0) | (true, 0) => UNSURE,
                    (false, _) => DOWN,
                    (true, _) => Outcome::Delivered,
                };
                if up[receiver] {
                    hears[receiver].hear(&what, seed);
                }
                crash |= dice.roll(30) == 0;
                if !crash {
                    plan.sent(receiver, outcome, now(second).at, dice.roll(u64::MAX));
                }
            }
            if crash {
                crashes += 1;
                plan = Plan::new(config(&receivers), disk.clone(), format!("run-{crashes}"), now(second).at);
            } else if plan.has_changed() {
                disk = plan.kept();
            }
        }
        for (at, hears) in hears.iter().enumerate() {
            assert!(hears.open.is_empty(), "seed {seed}: {:?} never ended", hears.open);
            assert!(
                hears.beginnings.values().all(|times| *times == 1),
                "seed {seed}: {:?}",
                hears.beginnings
            );
            assert!(hears.beginnings.keys().all(|began| episodes[at].contains(began)), "seed {seed}");
            let most = 2 * episodes[at].len() as u64 + 8;
            assert!(hears.messages <= most, "seed {seed}: {} messages, at most {most}", hears.messages);
            // Every episode was told as a beginning, or is within the span of an end.
            for (name, began) in &episodes[at] {
                let told = hears.beginnings.contains_key(&(name.clone(), *began))
                    || hears.ids.values().flatten().any(|item| {
                        let until = item.ended.map_or(0, |ended| ended.millis);
                        item.key.name == *name && item.began.millis <= *began && *began <= until
                    });
                assert!(told, "seed {seed}: {name} at {began} was never told of");
            }
        }
        let line = plan.facts(now(40_000).at);
        assert!(line.iter().all(|line| line.undelivered == 0), "seed {seed}: {line:?}");
    }
    assert!(crashes > 500, "{crashes}");
}

//! The machine of one box, step by step. What comes of many boxes, `tests/site_simulation` shows.

use super::*;
use bulla_formats::hash::Hash;
use std::sync::Arc;

fn name(text: &str) -> Name {
    Arc::from(text)
}

fn head(size: u64) -> Head {
    Head { size, root: Hash([size as u8; 32]) }
}

/// Box `m` among `a` and `z`.
fn machine() -> Site {
    let mut site = Site::new(SiteConfig::default(), name("m"));
    for peer in ["a", "z"] {
        assert_eq!(site.handle(SiteEvent::Connected(name(peer)), 0), []);
    }
    site
}

fn offered(site: &mut Site, from: &str, size: Option<u64>, now: u64) -> Vec<SiteEffect> {
    site.handle(SiteEvent::Offered { from: name(from), call: 7, lacking: size.map(head) }, now)
}

fn handed(site: &mut Site, from: &str, judged: Judged, now: u64) -> Vec<SiteEffect> {
    site.handle(SiteEvent::Handed { from: name(from), call: 8, judged }, now)
}

fn answer(answer: SiteAnswer, call: u64) -> SiteEffect {
    SiteEffect::Answer { call, answer }
}

const HOLDS: Judged = Judged::Holds { head: Head { size: 5, root: Hash([5; 32]) }, stamps: 1 };
const NOT_ANY_MORE: SiteEffect = SiteEffect::HoldOff { until: 0 };

#[test]
fn heads_are_gathered_and_what_came_is_handed_to_whoever_gave_one_until_it_is_taken() {
    let mut site = machine();
    let asks = site.handle(SiteEvent::Gather { ticket: 3 }, 10);
    let ask = |ticket, peer, ask| SiteEffect::Ask { ticket, peer: name(peer), ask };
    assert_eq!(asks, [ask(1, "a", SiteAsk::Offer), ask(2, "z", SiteAsk::Offer)]);
    assert_eq!(site.handle(SiteEvent::Wished { ticket: 2, head: head(5) }, 20), []);
    let heads = vec![(name("z"), head(5))];
    assert_eq!(site.handle(SiteEvent::Failed { ticket: 1 }, 30), [SiteEffect::Gathered { ticket: 3, heads }]);
    assert!(site.wants(3) && !site.wants(4));
    let hand = SiteAsk::HandOver { gather: 3 };
    assert_eq!(site.handle(SiteEvent::Anchored { gather: 3 }, 40), [ask(3, "z", hand)]);
    assert_eq!(site.handle(SiteEvent::Failed { ticket: 3 }, 50), []);
    assert_eq!(site.next_wakeup(), Some(5_050));
    assert_eq!(site.handle(SiteEvent::Tick, 5_050), [ask(4, "z", hand)]);
    assert_eq!(site.handle(SiteEvent::Tick, 20_050), [], "no answer to that one either");
    assert_eq!(site.handle(SiteEvent::Disconnected(name("z")), 30_000), []);
    assert_eq!(site.handle(SiteEvent::Connected(name("z")), 90_000), [ask(5, "z", hand)]);
    assert_eq!(site.handle(SiteEvent::Taken { ticket: 5 }, 90_010), []);
    assert!(!site.wants(3) && site.next_wakeup().is_none());
}

#[test]
fn who_does_not_answer_in_time_is_not_waited_for_and_is_not_served_for_ever() {
    let mut site = machine();
    site.handle(SiteEvent::Gather { ticket: 3 }, 0);
    site.handle(SiteEvent::Wished { ticket: 1, head: head(5) }, 5);
    let heads = vec![(name("a"), head(5))];
    assert_eq!(site.handle(SiteEvent::Tick, 2_000), [SiteEffect::Gathered { ticket: 3, heads }]);
    assert_eq!(site.handle(SiteEvent::Wished { ticket: 2, head: head(9) }, 2_010), [], "too late");
    site.handle(SiteEvent::Disconnected(name("a")), 2_020);
    site.handle(SiteEvent::Anchored { gather: 3 }, 2_030);
    assert_eq!(site.handle(SiteEvent::Connected(name("a")), 602_030), []);
    assert!(!site.wants(3));
}

#[test]
fn who_lacks_an_anchor_gives_its_head_and_waits_for_a_bounded_time_and_once() {
    let mut site = machine();
    assert_eq!(offered(&mut site, "a", None, 0), [answer(SiteAnswer::NotNeeded, 7)], "nothing lacks");
    assert_eq!(offered(&mut site, "x", Some(5), 0), [answer(SiteAnswer::NotNeeded, 7)], "a stranger");
    let given = answer(SiteAnswer::Give, 7);
    let first = offered(&mut site, "z", Some(5), 0);
    assert_eq!(first, [SiteEffect::HoldOff { until: 30_000 }, given.clone()]);
    assert_eq!(
        offered(&mut site, "a", Some(5), 10),
        std::slice::from_ref(&given),
        "nobody makes it wait longer"
    );
    assert_eq!(site.next_wakeup(), Some(30_000));
    let late = SiteEffect::Report(SiteFinding::Late { peer: name("z") });
    assert_eq!(site.handle(SiteEvent::Tick, 30_000), [NOT_ANY_MORE, late]);
    assert_eq!(
        offered(&mut site, "a", Some(6), 90_000),
        std::slice::from_ref(&given),
        "not again before an anchor is logged"
    );
    site.handle(SiteEvent::Logged, 90_010);
    let again = offered(&mut site, "a", Some(8), 90_020);
    assert_eq!(again, [SiteEffect::HoldOff { until: 120_020 }, given.clone()]);
    assert_eq!(site.handle(SiteEvent::Logged, 90_030), [NOT_ANY_MORE]);
    let twice = offered(&mut site, "a", Some(9), 90_040);
    assert_eq!(twice, [SiteEffect::HoldOff { until: 120_040 }, given.clone()]);
    assert_eq!(site.handle(SiteEvent::Logged, 90_050), [NOT_ANY_MORE]);
    assert_eq!(offered(&mut site, "a", Some(11), 90_060), [given], "it has just held off twice");
}

#[test]
fn only_what_was_asked_for_is_taken() {
    let mut site = machine();
    let no = answer(SiteAnswer::NotNeeded, 8);
    assert_eq!(handed(&mut site, "z", HOLDS, 0), std::slice::from_ref(&no), "nobody gave it anything");
    offered(&mut site, "z", Some(5), 0);
    assert_eq!(handed(&mut site, "a", HOLDS, 10), std::slice::from_ref(&no), "it was given to somebody else");
    let unknown = Judged::Holds { head: head(5), stamps: 0 };
    assert_eq!(handed(&mut site, "z", unknown, 10), [no.clone(), NOT_ANY_MORE], "by strangers");
    assert_eq!(handed(&mut site, "z", HOLDS, 20), std::slice::from_ref(&no), "it had its chance");
    site.handle(SiteEvent::Logged, 30);
    offered(&mut site, "z", Some(5), 40_000);
    let taken = [answer(SiteAnswer::Taken, 8), SiteEffect::Take { call: 8 }, NOT_ANY_MORE];
    assert_eq!(handed(&mut site, "z", HOLDS, 40_010), taken);
    assert_eq!(handed(&mut site, "z", HOLDS, 40_020), std::slice::from_ref(&no), "once");
    offered(&mut site, "z", Some(5), 50_000);
    assert_eq!(handed(&mut site, "z", HOLDS, 650_000), [no, NOT_ANY_MORE], "too late");
}

#[test]
fn a_liar_is_named_left_alone_and_waited_for_no_more() {
    let mut site = machine();
    offered(&mut site, "z", Some(5), 0);
    let lied = SiteEffect::Report(SiteFinding::Lied { peer: name("z") });
    let found = [lied, answer(SiteAnswer::NotGenuine, 8), NOT_ANY_MORE];
    assert_eq!(handed(&mut site, "z", Judged::False, 10), found);
    assert_eq!(site.facts().blamed, [name("z")]);
    assert_eq!(offered(&mut site, "z", Some(6), 20), [answer(SiteAnswer::NotNeeded, 7)]);
    let asks = site.handle(SiteEvent::Gather { ticket: 3 }, 30);
    assert!(matches!(&asks[..], [SiteEffect::Ask { peer, .. }] if **peer == *"a"), "{asks:?}");
    site.handle(SiteEvent::Failed { ticket: 1 }, 40);
    site.handle(SiteEvent::Logged, 40);
    let again = offered(&mut site, "z", Some(6), 600_010);
    assert_eq!(again.len(), 2, "it is given another chance: {again:?}");
}

#[test]
fn of_two_that_are_about_to_ask_the_first_by_name_does() {
    let mut site = machine();
    site.handle(SiteEvent::Gather { ticket: 3 }, 0);
    assert_eq!(offered(&mut site, "z", Some(5), 10), [answer(SiteAnswer::NotNeeded, 7)]);
    let yields = offered(&mut site, "a", Some(5), 20);
    assert_eq!(yields, [SiteEffect::HoldOff { until: 30_020 }, answer(SiteAnswer::Give, 7)]);
    assert_eq!(site.handle(SiteEvent::Tick, 5_000), [], "its own gathering is over");
    assert_eq!(
        site.handle(SiteEvent::Disconnected(name("a")), 6_000),
        [NOT_ANY_MORE],
        "nobody asks for it now"
    );
    site.handle(SiteEvent::Connected(name("a")), 6_010);
    site.handle(SiteEvent::Gather { ticket: 4 }, 60_000);
    let stays = offered(&mut site, "a", Some(5), 60_010);
    assert_eq!(stays, [answer(SiteAnswer::NotNeeded, 7)], "it was left in the lurch before");
}

#[test]
fn memory_is_bounded_by_the_neighbours() {
    let mut site = machine();
    for now in 0..2_000 {
        offered(&mut site, "z", Some(now + 1), now);
        site.handle(SiteEvent::Gather { ticket: now }, now);
        site.handle(SiteEvent::Wished { ticket: now, head: head(3) }, now);
        site.handle(SiteEvent::Anchored { gather: now }, now);
    }
    assert!(site.remembered() <= 20, "{}", site.remembered());
}

//! What a machine of three boxes does, step by step; how many of them fare in bad weather is simulated.

use super::*;
use bulla_formats::hash::sha256;
use bulla_formats::witness::Role;

fn name(text: &str) -> Name {
    text.into()
}

fn head(size: u64) -> Head {
    Head { size, root: sha256(&[&size.to_be_bytes()]) }
}

/// Box `b` with the peers `a` and `c`.
fn machine() -> Gossip {
    let start = GossipStart {
        own: name("b"),
        head: head(5),
        lamport: 5,
        peers: vec![name("a"), name("b"), name("c")],
        copies: Vec::new(),
    };
    Gossip::new(GossipConfig::default(), &start, 0)
}

fn asks(effects: &[GossipEffect]) -> Vec<(u64, &str, &Ask)> {
    let asks = effects.iter();
    asks.filter_map(|effect| match effect {
        GossipEffect::Ask { ticket, peer, ask, .. } => Some((*ticket, &**peer, ask)),
        _ => None,
    })
    .collect()
}

fn seen(origin: &str, from: &str, head: Head) -> GossipEvent {
    let (origin, from) = (name(origin), name(from));
    GossipEvent::Seen(Seen { origin, from, head, holds: 0, ours: None })
}

fn hints(effects: &[GossipEffect]) -> usize {
    effects.iter().filter(|effect| **effect == GossipEffect::Hint).count()
}

#[test]
fn nothing_is_cosigned_before_the_state_is_durable() {
    let mut gossip = machine();
    gossip.handle(GossipEvent::Connected(name("a")), 10, 0);
    let effects = gossip.handle(seen("a", "a", head(7)), 20, 0);
    let range = Ask::Range { origin: name("a"), from: 0, to: 7 };
    let [(ticket, "a", asked)] = asks(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(*asked, range);
    let effects = gossip.handle(GossipEvent::Verified { ticket, copy: head(7), head: head(7) }, 30, 0);
    let reached = Some(head(7));
    assert_eq!(effects, [GossipEffect::Store { ticket, origin: name("a"), reached }]);
    let effects = gossip.handle(GossipEvent::Stored { ticket, lacking: true, lamport: 0 }, 40, 0);
    let [GossipEffect::Persist { ticket: first, state, .. }, ..] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!((state.witnessed, state.mirrored), (Some(head(7)), None), "an object is missing");
    let [(objects, "a", Ask::Objects { .. })] = asks(&effects)[..] else { panic!("{effects:?}") };
    let event = GossipEvent::Objects { ticket: objects, got: 1, lacking: false };
    assert_eq!(asks(&gossip.handle(event, 50, 0)), [], "the state is not durable yet");
    let effects = gossip.handle(GossipEvent::Persisted { ticket: *first }, 60, 0);
    let [GossipEffect::Persist { ticket: second, .. }, ..] = &effects[..] else { panic!("{effects:?}") };
    let witness = Ask::Cosigned { head: head(7), witness: true, mirror: false };
    let [(handed, "a", asked)] = asks(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(*asked, witness);
    gossip.handle(GossipEvent::Taken { ticket: handed }, 70, 0);
    let effects = gossip.handle(GossipEvent::Persisted { ticket: *second }, 80, 0);
    let both = Ask::Cosigned { head: head(7), witness: true, mirror: true };
    assert_eq!(asks(&effects).iter().map(|ask| ask.2).collect::<Vec<_>>(), [&both]);
}

#[test]
fn two_roots_of_one_size_are_to_be_proven_a_fork_and_frozen() {
    let mut gossip = machine();
    gossip.handle(GossipEvent::Connected(name("c")), 10, 0);
    gossip.handle(seen("a", "c", head(7)), 20, 0);
    let other = Head { size: 7, root: head(8).root };
    let effects = gossip.handle(seen("a", "c", other), 30, 0);
    let proof = GossipEffect::ProveFork { origin: name("a"), one: other, other: head(7) };
    assert!(effects.contains(&proof), "{effects:?}");
    let effects = gossip.handle(GossipEvent::Forked { origin: name("a") }, 40, 0);
    let [GossipEffect::Persist { ticket, state, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert!(state.frozen);
    let effects = gossip.handle(GossipEvent::Persisted { ticket: *ticket }, 50, 0);
    assert!(effects.contains(&GossipEffect::Report(Finding::Forked { origin: name("a") })));
    assert!(effects.contains(&GossipEffect::HintFork { origin: name("a") }));
    assert!(asks(&effects).iter().any(|ask| *ask.2 == Ask::Fork { origin: name("a") }));
    assert_eq!(asks(&gossip.handle(seen("a", "c", head(9)), 60, 0)), [], "nothing is added");
}

#[test]
fn strangers_are_not_heard() {
    let mut gossip = machine();
    let before = gossip.remembered();
    for event in [
        seen("x", "a", head(9)),
        seen("a", "x", head(9)),
        GossipEvent::Connected(name("x")),
        GossipEvent::Forked { origin: name("x") },
        GossipEvent::ForkHinted { origin: name("x"), from: name("a") },
        GossipEvent::Cosigned { from: name("x"), role: Role::Mirror, head: head(5), ours: true },
        GossipEvent::Stored { ticket: 77, lacking: false, lamport: u64::MAX },
    ] {
        let effects = gossip.handle(event.clone(), 10, 0);
        let heard =
            effects.iter().any(|effect| !matches!(effect, GossipEffect::Hint | GossipEffect::Lamport { .. }));
        assert!(!heard, "{event:?}: {effects:?}");
    }
    assert_eq!((gossip.remembered(), gossip.mirrored(1)), (before, 0));
}

#[test]
fn holders_are_counted_by_their_newest_word_and_told_now_and_then() {
    let mut gossip = machine();
    gossip.handle(GossipEvent::Own { head: head(9), worth: 8, lamport: 9 }, 5, 0);
    let cosigned = |from: &str, size, ours| GossipEvent::Cosigned {
        from: name(from),
        role: Role::Mirror,
        head: head(size),
        ours,
    };
    assert!(gossip.handle(cosigned("a", 9, true), 10, 0).contains(&GossipEffect::Counted));
    assert!(!gossip.handle(cosigned("a", 6, true), 10, 0).contains(&GossipEffect::Counted), "an older word");
    let other = gossip.handle(cosigned("c", 9, false), 10, 0);
    assert!(other.contains(&GossipEffect::Report(Finding::OtherTree { peer: name("c"), head: head(9) })));
    assert_eq!(
        (gossip.mirrored(1), gossip.mirrored(2), gossip.mirrored(0), gossip.witnessed(1)),
        (9, 0, 0, 0)
    );
    gossip.handle(cosigned("c", 7, true), 10, 0);
    assert_eq!((gossip.mirrored(2), gossip.mirrored(3)), (7, 0));
    let every = GossipConfig::default().entry_every;
    let logs = |effects: &[GossipEffect]| {
        effects.iter().find_map(|effect| match effect {
            GossipEffect::LogMirror { ticket, holders } => Some((*ticket, holders.len())),
            _ => None,
        })
    };
    assert_eq!(logs(&gossip.handle(GossipEvent::Tick, every - 1, 0)), None);
    let (ticket, holders) = logs(&gossip.handle(GossipEvent::Tick, every, 0)).unwrap();
    assert_eq!(holders, 2);
    gossip.handle(GossipEvent::Logged { ticket }, every + 1, 0);
    // The mirror entry itself is held, too; that is not worth another one.
    gossip.handle(GossipEvent::Own { head: head(10), worth: 8, lamport: 10 }, every + 2, 0);
    gossip.handle(cosigned("a", 10, true), every + 3, 0);
    assert_eq!(logs(&gossip.handle(GossipEvent::Tick, 3 * every, 0)), None);
    let told = gossip.handle(cosigned("c", 8, true), 3 * every, 0);
    assert_eq!(logs(&told), Some((ticket + 1, 2)), "c holds a seal more");
}

#[test]
fn hints_wait_unless_somebody_does() {
    let mut gossip = machine();
    let config = GossipConfig::default();
    assert_eq!(hints(&gossip.handle(GossipEvent::Connected(name("a")), 0, 0)), 1);
    let own = |size| GossipEvent::Own { head: head(size), worth: size, lamport: size };
    assert_eq!(hints(&gossip.handle(own(6), 100, 0)), 0);
    assert_eq!(hints(&gossip.handle(GossipEvent::Tick, config.hint_every, 0)), 1);
    gossip.handle(own(7), config.hint_every + 1, 0);
    let at = config.hint_every + 100;
    assert_eq!(hints(&gossip.handle(GossipEvent::Awaited { size: 7 }, at, 0)), 1);
    let again: usize =
        (1..60).map(|n| hints(&gossip.handle(GossipEvent::Tick, at + n * config.hint_again, 0))).sum();
    assert_eq!(again, 9, "ten times in all, then the peer is left alone");
}

#[test]
fn a_box_that_starts_asks_what_it_was() {
    let standing = |effects: &[GossipEffect]| {
        effects.iter().find_map(|effect| match effect {
            GossipEffect::Standing(standing) => Some(standing.clone()),
            _ => None,
        })
    };
    let mut gossip = machine();
    let wait = GossipConfig::default().start_wait;
    assert_eq!(standing(&gossip.handle(GossipEvent::Tick, wait - 1, 0)), None);
    assert_eq!(standing(&gossip.handle(GossipEvent::Tick, wait, 0)), Some(Standing::Nobody));
    let mut gossip = machine();
    for (peer, expected) in [("a", None), ("c", Some(Standing::Equal))] {
        let effects = gossip.handle(GossipEvent::Connected(name(peer)), 10, 0);
        let (ticket, ..) = *asks(&effects).iter().find(|ask| *ask.2 == Ask::Heads).unwrap();
        let ours = Some(head(4).root);
        let known = Seen { origin: name("b"), from: name(peer), head: head(4), holds: 4, ours };
        assert_eq!(standing(&gossip.handle(GossipEvent::Seen(known), 20, 0)), None);
        assert_eq!(standing(&gossip.handle(GossipEvent::HeadsRead { ticket }, 30, 0)), expected);
    }
    let behind = Some(Standing::Behind { head: head(6), from: name("c") });
    assert_eq!(standing(&gossip.handle(seen("b", "c", head(6)), 90_000, 0)), behind, "whenever it turns up");
}

#[test]
fn the_first_by_name_anchors_for_those_it_sees() {
    let mut gossip = machine();
    assert_eq!(&**gossip.aggregator(), "b");
    gossip.handle(GossipEvent::Connected(name("c")), 0, 0);
    assert_eq!(&**gossip.aggregator(), "b");
    gossip.handle(GossipEvent::Connected(name("a")), 0, 0);
    assert_eq!(&**gossip.aggregator(), "a");
    gossip.handle(GossipEvent::Disconnected(name("a")), 0, 0);
    assert_eq!(&**gossip.aggregator(), "b");
    gossip.handle(GossipEvent::Peers(vec![name("c")]), 0, 0);
    assert_eq!(gossip.facts().len(), 1);
}

//! What a machine of three boxes does, step by step; how many of them fare in bad weather is simulated.

use super::*;
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::peer::challenge::{Boot, Distrust};
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
        boots: Vec::new(),
    };
    // Challenges have tests of their own.
    Gossip::new(GossipConfig { challenge_every: 0, ..GossipConfig::default() }, &start, 0)
}

/// The ticket of a challenge that is put.
fn challenge(effects: &[GossipEffect]) -> Option<u64> {
    asks(effects).into_iter().find(|(_, _, ask)| **ask == Ask::Challenge).map(|(ticket, ..)| ticket)
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
fn what_was_stored_before_a_restart_is_witnessed_after_it() {
    let state = CosignerState { witnessed: Some(head(5)), mirrored: Some(head(5)), frozen: false };
    let copy = CopyStart { origin: name("a"), copy: head(7), reached: Some(head(7)), lacking: true, state };
    let start = GossipStart {
        own: name("b"),
        head: head(5),
        lamport: 5,
        peers: vec![name("a"), name("b"), name("c")],
        copies: vec![copy],
        boots: Vec::new(),
    };
    let mut gossip = Gossip::new(GossipConfig::default(), &start, 0);
    let effects = gossip.handle(GossipEvent::Tick, 10, 0);
    let [GossipEffect::Persist { state, .. }] = &effects[1..] else { panic!("{effects:?}") };
    assert_eq!((state.witnessed, state.mirrored), (Some(head(7)), Some(head(5))), "an object is missing");
}

#[test]
fn who_never_answers_is_asked_less_and_less() {
    let config = GossipConfig::default();
    let mut gossip = machine();
    gossip.handle(GossipEvent::Connected(name("a")), 0, 0);
    gossip.handle(seen("a", "a", head(7)), 1, 0);
    let (mut now, mut asked) = (1, Vec::new());
    while let Some(at) = gossip.next_wakeup().filter(|at| *at < 86_400_000) {
        now = at;
        asked.extend(asks(&gossip.handle(GossipEvent::Tick, now, 7)).iter().map(|_| now));
    }
    let since = |from: u64| asked.iter().filter(|at| **at >= from).count();
    assert!(since(0) > config.silent_after as usize);
    assert!((10..30).contains(&since(now - 43_200_000)), "in half a day: {}", since(now - 43_200_000));
    let before = gossip.handle(GossipEvent::Tick, now + 1, 0);
    let heard = gossip.handle(seen("a", "a", head(8)), now + 2, 0);
    assert!(asks(&before).is_empty());
    assert!(asks(&heard).iter().any(|ask| *ask.2 == Ask::Heads), "it lives: {heard:?}");
}

#[test]
fn of_many_peers_each_is_asked_less_often() {
    let config = GossipConfig::default();
    assert_eq!([0, 1, 8, 9, 49].map(|peers| config.heads_pause(peers) / config.heads_every), [1, 1, 1, 2, 7]);
}

#[test]
fn what_is_known_is_no_news() {
    let mut gossip = machine();
    gossip.handle(GossipEvent::Connected(name("c")), 10, 0);
    assert!(gossip.is_news("a", &head(7), &name("c"), 7));
    let told = Seen { origin: name("a"), from: name("c"), head: head(7), holds: 7, ours: None };
    gossip.handle(GossipEvent::Seen(told), 20, 0);
    assert!(!gossip.is_news("a", &head(7), &name("c"), 7));
    assert!(!gossip.is_news("a", &head(7), &name("a"), 7), "the log's own box holds all of it");
    assert!(gossip.is_news("a", &head(7), &name("c"), 6), "it holds less");
    assert!(gossip.is_news("a", &Head { size: 7, root: head(8).root }, &name("c"), 7), "a fork");
    assert!(!gossip.is_news("x", &head(7), &name("c"), 7));
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

fn boot(pcr: u8, resets: u64) -> Boot {
    let value = Octets32::new([pcr; 32]);
    Boot { pcrs: vec![PcrValue { pcr: 4, value }], resets, restarts: 0, clock: 5 }
}

/// The machine after it holds something of `a`'s log, and the ticket of its first challenge to it.
fn challenging() -> (Gossip, u64) {
    let state = CosignerState { witnessed: Some(head(7)), mirrored: Some(head(7)), frozen: false };
    let copy = CopyStart { origin: name("a"), copy: head(7), reached: Some(head(7)), lacking: false, state };
    let start = GossipStart {
        own: name("b"),
        head: head(5),
        lamport: 5,
        peers: vec![name("a"), name("c")],
        copies: vec![copy],
        boots: vec![(name("a"), boot(1, 3))],
    };
    let mut gossip = Gossip::new(GossipConfig::default(), &start, 0);
    let effects = gossip.handle(GossipEvent::Connected(name("a")), 10, 0);
    let ticket = challenge(&effects).expect("a neighbour whose log is held is challenged");
    (gossip, ticket)
}

fn stands(gossip: &Gossip) -> Attested {
    gossip.facts().into_iter().find(|facts| *facts.peer == *"a").map(|facts| facts.attested).unwrap()
}

#[test]
fn a_neighbour_is_fresh_only_once_its_boot_is_durable_and_stale_in_time() {
    let (mut gossip, ticket) = challenging();
    let event = GossipEvent::Vouched { ticket, boot: Some(boot(1, 4)) };
    let effects = gossip.handle(event, 20, 0);
    assert_eq!(effects, [GossipEffect::KeepBoot { ticket, peer: name("a"), boot: boot(1, 4) }]);
    assert_eq!(stands(&gossip), Attested::Never);
    gossip.handle(GossipEvent::BootKept { ticket }, 30, 0);
    assert_eq!(stands(&gossip), Attested::Fresh { since: 30, last: 30 });
    let config = GossipConfig::default();
    gossip.handle(GossipEvent::Disconnected(name("a")), 40, 0);
    gossip.handle(GossipEvent::Tick, 31 + 3 * config.challenge_every, 0);
    assert_eq!(stands(&gossip), Attested::Stale { last: 30 });
}

#[test]
fn a_changed_boot_is_told_logged_and_stays_until_somebody_accepts_it() {
    let (mut gossip, ticket) = challenging();
    let effects = gossip.handle(GossipEvent::Vouched { ticket, boot: Some(boot(2, 4)) }, 20, 0);
    let why = Distrust::BootChanged;
    let [GossipEffect::Report(Finding::Distrusted { .. }), GossipEffect::LogTrust { ticket: log, .. }] =
        effects[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(stands(&gossip), Attested::Refused { why, since: 20 });
    gossip.handle(GossipEvent::Logged { ticket: log }, 25, 0);
    let every = GossipConfig::default().challenge_every;
    let effects = gossip.handle(GossipEvent::Tick, 20 + every, 0);
    let ticket = challenge(&effects).expect("it is challenged again");
    let effects = gossip.handle(GossipEvent::Vouched { ticket, boot: Some(boot(2, 4)) }, 30 + every, 0);
    assert!(!effects.iter().any(|effect| matches!(effect, GossipEffect::LogTrust { .. })), "{effects:?}");
    assert_eq!(stands(&gossip), Attested::Refused { why, since: 20 });
    let effects = gossip.handle(GossipEvent::BootAccepted(name("a")), 20_000 + every, 0);
    let ticket = challenge(&effects).expect("what it shows now is asked for at once");
    gossip.handle(GossipEvent::Vouched { ticket, boot: Some(boot(2, 4)) }, 20_010 + every, 0);
    let effects = gossip.handle(GossipEvent::BootKept { ticket }, 20_020 + every, 0);
    assert!(
        matches!(effects[..], [GossipEffect::LogTrust { before: Some(before), why: None, .. }] if before == why)
    );
    assert!(matches!(stands(&gossip), Attested::Fresh { .. }));
}

#[test]
fn the_own_tpm_quotes_for_one_at_a_time_and_for_nobody_too_often() {
    let (mut gossip, _) = challenging();
    let mut call = |from: &str, call: u64, now: u64| {
        let effects = gossip.handle(GossipEvent::Challenged { from: name(from), call }, now, 0);
        effects
            .into_iter()
            .find(|effect| matches!(effect, GossipEffect::Quote { .. } | GossipEffect::Busy { .. }))
    };
    assert_eq!(call("a", 1, 100), Some(GossipEffect::Quote { call: 1 }));
    assert_eq!(call("c", 2, 110), Some(GossipEffect::Busy { call: 2, after: 1_000 }), "it is at work");
    assert_eq!(call("a", 3, 110), Some(GossipEffect::Busy { call: 3, after: 9_990 }), "it was just asked");
    let done = gossip.handle(GossipEvent::QuoteDone { call: 1 }, 120, 0);
    assert_eq!(done, []);
    let effects = gossip.handle(GossipEvent::Challenged { from: name("c"), call: 4 }, 130, 0);
    assert_eq!(effects, [GossipEffect::Quote { call: 4 }], "who was refused has not used up its turn");
}

#[test]
fn an_outage_hastens_challenges_and_busy_holds_up_nothing_else() {
    let (mut gossip, ticket) = challenging();
    gossip.handle(GossipEvent::Vouched { ticket, boot: None }, 20, 0);
    assert_eq!(stands(&gossip), Attested::Fresh { since: 20, last: 20 }, "software has no boot to keep");
    let later = 20 + GossipConfig::default().challenge_outage;
    assert_eq!(challenge(&gossip.handle(GossipEvent::Tick, later, 0)), None);
    let effects = gossip.handle(GossipEvent::Outage(true), later, 0);
    let ticket = challenge(&effects).expect("an outage hastens it");
    let failure = Failure::Refused { after: Some(30_000) };
    gossip.handle(GossipEvent::Failed { ticket, failure }, later + 10, 0);
    let effects = gossip.handle(seen("a", "a", head(9)), later + 20, 0);
    assert!(asks(&effects).iter().any(|(_, _, ask)| matches!(ask, Ask::Range { .. })), "{effects:?}");
}

#[test]
fn what_is_being_stored_counts_though_its_sender_is_struck_off_meanwhile() {
    let mut gossip = machine();
    gossip.handle(GossipEvent::Connected(name("c")), 10, 0);
    let mut told = |event, now| gossip.handle(event, now, 0);
    let effects = told(
        GossipEvent::Seen(Seen { origin: name("a"), from: name("c"), head: head(7), holds: 7, ours: None }),
        20,
    );
    let range = asks(&effects).into_iter().find(|(_, _, ask)| matches!(ask, Ask::Range { .. }));
    let (ticket, ..) = range.expect("c is asked for a's entries");
    told(GossipEvent::Verified { ticket, copy: head(7), head: head(7) }, 30);
    told(GossipEvent::Peers(vec![name("a")]), 40);
    told(GossipEvent::Stored { ticket, lacking: false, lamport: 0 }, 50);
    assert_eq!(gossip.facts()[0].copy, 7);
}

#[test]
fn a_log_that_is_only_witnessed_is_asked_for_proofs_and_nothing_else() {
    let mut gossip = machine();
    gossip.handle(GossipEvent::WitnessOnly(vec![name("a")]), 0, 0);
    for peer in ["a", "c"] {
        gossip.handle(GossipEvent::Connected(name(peer)), 10, 0);
    }
    // The first head continues nothing; it is remembered before it is cosigned.
    let effects = gossip.handle(seen("a", "a", head(7)), 20, 0);
    let [GossipEffect::Persist { ticket, state, .. }] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((state.witnessed, state.mirrored), (Some(head(7)), None));
    let effects = gossip.handle(GossipEvent::Persisted { ticket: *ticket }, 30, 0);
    let witness = Ask::Cosigned { head: head(7), witness: true, mirror: false };
    let [(handed, "a", asked)] = asks(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(*asked, witness);
    gossip.handle(GossipEvent::Taken { ticket: handed }, 40, 0);
    // The next one is proven by the log's own box, whoever told of it, and whoever holds entries.
    let told = Seen { origin: name("a"), from: name("c"), head: head(9), holds: 9, ours: None };
    let effects = gossip.handle(GossipEvent::Seen(told), 50, 0);
    let [(ticket, "a", asked)] = asks(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!(*asked, Ask::Consistency { origin: name("a"), old: 7, new: 9 });
    // No proof: again after a pause, never entries.
    let effects = gossip.handle(GossipEvent::Failed { ticket, failure: Failure::Silence }, 60, 0);
    assert_eq!(asks(&effects), []);
    let effects = gossip.handle(GossipEvent::Tick, 5_000, 0);
    let again = asks(&effects).into_iter().find(|(_, peer, ask)| *peer == "a" && **ask != Ask::Heads);
    let Some((ticket, _, Ask::Consistency { old: 7, new: 9, .. })) = again else { panic!("{effects:?}") };
    let root = head(7).root;
    let effects = gossip.handle(GossipEvent::Consistent { ticket, root, head: head(9) }, 5_010, 0);
    assert!(
        effects.iter().any(|effect| {
            matches!(effect, GossipEffect::Persist { state, .. } if state.witnessed == Some(head(9)))
        }),
        "{effects:?}"
    );
    // It tells of no other log, whatever it says.
    let told = Seen { origin: name("c"), from: name("a"), head: head(4), holds: 4, ours: None };
    assert_eq!(asks(&gossip.handle(GossipEvent::Seen(told), 5_020, 0)), []);
    // Another history of it is a fork all the same.
    let other = Head { size: 9, root: head(8).root };
    let effects = gossip.handle(seen("a", "a", other), 5_030, 0);
    assert!(effects.iter().any(|effect| matches!(effect, GossipEffect::ProveFork { .. })), "{effects:?}");
}

//! Wires of one process, over the loopback: what passes between them, and what is refused.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_peers::{
    AskFailure, BusyError, Config, ConfigError, Event, Gone, Limits, Neighbour, PeerKey, Refusal, StartError,
    Wire,
};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

/// Much longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

struct End {
    wire: Wire,
    events: Receiver<Event>,
    address: String,
}

impl End {
    async fn start(seed: u8, limits: Limits) -> End {
        let (wire, mut events) = Wire::start(Config {
            key: [seed; 32].into(),
            listen: vec!["/ip4/127.0.0.1/tcp/0".into()],
            neighbours: vec![],
            mdns: false,
            limits,
        })
        .await
        .unwrap();
        let address = match timeout(PATIENCE, events.recv()).await.unwrap() {
            Some(Event::Listening { address }) => address,
            other => panic!("{other:?}"),
        };
        End { wire, events, address }
    }

    fn as_neighbour(&self) -> Neighbour {
        Neighbour { key: self.wire.own(), addresses: vec![self.address.clone()] }
    }

    fn lists(&self, neighbours: &[&End]) {
        let list: Vec<Neighbour> = neighbours.iter().map(|end| end.as_neighbour()).collect();
        self.wire.set_neighbours(&list).unwrap();
    }

    /// The first event that answers the question; the others are passed over.
    async fn wait<T>(&mut self, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
        let found = async {
            loop {
                let event = self.events.recv().await.expect("the wire has stopped");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.expect("the event never came")
    }

    async fn connected(&mut self) -> PeerKey {
        self.wait(|event| if let Event::Connected { peer } = event { Some(peer) } else { None }).await
    }

    async fn answered(&mut self) -> Result<Vec<u8>, AskFailure> {
        self.wait(|event| if let Event::Answered { result, .. } = event { Some(result) } else { None }).await
    }
}

async fn pair(limits: Limits) -> [End; 2] {
    let mut ends = [End::start(1, limits.clone()).await, End::start(2, limits).await];
    ends[0].lists(&[&ends[1]]);
    ends[1].lists(&[&ends[0]]);
    let (a, b) = (ends[0].wire.own(), ends[1].wire.own());
    assert_eq!(ends[0].connected().await, b);
    assert_eq!(ends[1].connected().await, a);
    ends
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_requests_and_answers_pass_both_ways() {
    let [mut a, mut b] = pair(Limits::default()).await;
    for turn in 0..2 {
        let from = a.wire.own();
        let hint = loop {
            // Gossip knows who listens a moment after the connection is there; a hint before that is lost, as hints may be.
            a.wire.publish(b"a hint".to_vec()).unwrap();
            let next =
                b.wait(
                    |event| if let Event::Hint { from, bytes } = event { Some((from, bytes)) } else { None },
                );
            if let Ok(hint) = timeout(Duration::from_millis(500), next).await {
                break hint;
            }
        };
        assert_eq!(hint, (from, b"a hint".to_vec()), "turn {turn}");
        let id = a.wire.ask(b.wire.own(), vec![turn; 65_536]).unwrap();
        let reply = b.wait(|event| match event {
            Event::Asked { from: who, bytes, reply } => {
                assert_eq!((who, bytes), (from, vec![turn; 65_536]));
                Some(reply)
            }
            _ => None,
        });
        reply.await.answer(vec![turn; 5 << 20]).unwrap();
        let whole = a.wait(|event| match event {
            Event::Answered { id: which, result, .. } => {
                assert_eq!(which, id);
                Some(result)
            }
            _ => None,
        });
        assert_eq!(whole.await.unwrap(), vec![turn; 5 << 20]);
        std::mem::swap(&mut a, &mut b);
    }
    // What is not answered is said to be so; what is too long is refused before it is sent.
    a.wire.ask(b.wire.own(), b"no answer".to_vec()).unwrap();
    drop(b.wait(|event| if let Event::Asked { reply, .. } = event { Some(reply) } else { None }).await);
    assert_eq!(a.answered().await, Err(AskFailure::Declined));
    a.wire.ask(b.wire.own(), b"too long".to_vec()).unwrap();
    let reply = b.wait(|event| if let Event::Asked { reply, .. } = event { Some(reply) } else { None }).await;
    assert!(reply.answer(vec![0; (5 << 20) + 1]).is_err());
    assert_eq!(a.answered().await, Err(AskFailure::Declined));
    let long = BusyError::TooLong { bytes: 65_537, most: 65_536 };
    assert_eq!(a.wire.ask(b.wire.own(), vec![0; 65_537]), Err(long));
    assert!(a.wire.publish(vec![0; 8193]).is_err());
    let counted = a.wire.counted();
    assert_eq!((counted.connections, counted.answers_in, counted.answer_bytes_in), (1, 1, 5 << 20));
    a.wire.stop().await;
    let why =
        b.wait(|event| if let Event::Disconnected { why, .. } = event { Some(why) } else { None }).await;
    assert_eq!(why, Gone::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_on_the_list_gets_nothing_and_is_reported() {
    let mut a = End::start(1, Limits::default()).await;
    let mut stranger = End::start(3, Limits::default()).await;
    stranger.lists(&[&a]);
    let who = stranger.wire.own();
    let refused = a.wait(|event| match event {
        Event::Connected { .. } | Event::Asked { .. } | Event::Hint { .. } => panic!("{event:?}"),
        Event::Refused { peer, why, .. } => Some((peer, why)),
        _ => None,
    });
    assert_eq!(refused.await, (Some(who), Refusal::Unknown));
    // It was never let in, so it cannot even ask.
    stranger.wire.ask(a.wire.own(), b"?".to_vec()).unwrap();
    let answer = stranger.wait(|event| match event {
        Event::Connected { .. } => panic!("let in"),
        Event::Answered { result, .. } => Some(result),
        _ => None,
    });
    assert_eq!(answer.await, Err(AskFailure::NotConnected));
    let why =
        stranger.wait(|event| if let Event::Refused { why, .. } = event { Some(why) } else { None }).await;
    assert_eq!(why, Refusal::NotLetIn);
    assert_eq!(a.wire.counted().connections, 0);
    // On the list it is let in, and off it again it is put out at once.
    a.lists(&[&stranger]);
    assert_eq!(a.connected().await, who);
    stranger.connected().await;
    a.wire.set_neighbours(&[]).unwrap();
    let why =
        a.wait(|event| if let Event::Disconnected { why, .. } = event { Some(why) } else { None }).await;
    assert_eq!(why, Gone::Unlisted);
    stranger.wait(|event| matches!(event, Event::Disconnected { .. }).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_than_allowed_wait_their_turn_or_are_busy() {
    let [mut a, mut b] = pair(Limits::default()).await;
    // Two hundred wait here, and go out four at a time.
    for number in 0..200_u32 {
        a.wire.ask(b.wire.own(), number.to_be_bytes().to_vec()).unwrap();
    }
    let answers = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 200 {
            let event = timeout(PATIENCE, b.events.recv()).await.unwrap().unwrap();
            if let Event::Asked { bytes, reply, .. } = event {
                reply.answer(bytes).unwrap();
                seen += 1;
            }
        }
        b
    });
    let mut numbers = Vec::new();
    while numbers.len() < 200 {
        let answer = a.answered().await.unwrap();
        numbers.push(u32::from_be_bytes(answer.try_into().unwrap()));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
    let mut b = answers.await.unwrap();
    // One that sends more at once than the other bears is told so, and loses nothing else.
    a.wire.stop().await;
    let greedy = Limits { asks_per_peer: 40, asks_total: 40, ..Limits::default() };
    let mut a = End::start(1, greedy).await;
    a.lists(&[&b]);
    b.lists(&[&a]);
    a.connected().await;
    for number in 0..40_u8 {
        a.wire.ask(b.wire.own(), vec![number]).unwrap();
    }
    let mut held = Vec::new();
    let mut busy = 0;
    while busy < 20 {
        tokio::select! {
            event = b.events.recv() => if let Some(Event::Asked { reply, .. }) = event { held.push(reply) },
            event = a.events.recv() => if let Some(Event::Answered { result, .. }) = event {
                assert!(matches!(result, Err(AskFailure::Busy | AskFailure::Cut)), "{result:?}");
                busy += 1;
            },
        }
    }
    assert!(held.len() <= Limits::default().requests_per_peer, "{}", held.len());
    // A queue has an end.
    let full = (0..1000).find_map(|_| a.wire.ask(b.wire.own(), vec![0]).err());
    assert_eq!(full, Some(BusyError::Full));
}

#[tokio::test]
async fn a_wire_that_cannot_be_meant_does_not_start() {
    let config = |listen: &str, neighbours: Vec<Neighbour>| Config {
        key: [9; 32].into(),
        listen: vec![listen.to_owned()],
        neighbours,
        mdns: false,
        limits: Limits::default(),
    };
    let start = async |config| Wire::start(config).await.map(drop).unwrap_err();
    let address = start(config("127.0.0.1:1", vec![])).await;
    assert!(matches!(address, StartError::Config(ConfigError::Address(_))), "{address}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let listen = start(config(&format!("/ip4/127.0.0.1/tcp/{port}"), vec![])).await;
    assert!(matches!(listen, StartError::Listen { .. }), "{listen}");
    let neighbour = Neighbour { key: PeerKey::new([2; 32]), addresses: vec!["nowhere".into()] };
    assert!(matches!(start(config("/ip4/127.0.0.1/tcp/0", vec![neighbour])).await, StartError::Config(_)));
}

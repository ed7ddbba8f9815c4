//! Wires as real processes, each in a network namespace of its own, on a switch whose cables are the test's.
//!
//! Figures are printed; what is asserted of them is generous, because other tests run beside these.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::lan::Lan;
use bulla_tests::rig::netns;
use bulla_tests::rig::peer::{Heard, PORT, Peer, key, neighbour};
use std::io::Read;
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

const PEER: &str = env!("CARGO_BIN_EXE_peer");
const RUDE: &str = env!("CARGO_BIN_EXE_rude");
const SOON: Duration = Duration::from_secs(30);

/// A LAN with a peer on each of its first places; every peer lists all the others, with addresses or without.
fn everybody(places: usize, peers: usize, addresses: bool) -> Result<(Lan, Vec<Peer>)> {
    let lan = Lan::new(places)?;
    let peers = (0..peers).map(|member| start(&lan, member, peers, addresses)).collect::<Result<Vec<_>>>()?;
    meet(&peers)?;
    Ok((lan, peers))
}

fn seed(member: usize) -> u8 {
    u8::try_from(member + 1).expect("a LAN has few members")
}

fn start(lan: &Lan, member: usize, peers: usize, addresses: bool) -> Result<Peer> {
    let others = (0..peers).filter(|other| *other != member);
    let mut arguments: Vec<String> = others
        .map(
            |other| if addresses { neighbour(lan, other, seed(other)) } else { key(seed(other)).to_string() },
        )
        .collect();
    if !addresses {
        arguments.push("--mdns".to_owned());
    }
    Peer::start(PEER, lan, member, seed(member), &arguments)
}

fn meet(peers: &[Peer]) -> Result<()> {
    for peer in peers {
        for other in peers.iter().filter(|other| other.key() != peer.key()) {
            peer.connected(other.key())?;
        }
    }
    Ok(())
}

/// Hints until one arrives: gossip learns who listens a moment after the connection.
fn hint(from: &mut Peer, to: &Peer, text: &str) -> Result<()> {
    for _ in 0..40 {
        from.tell(&format!("hint {text}"))?;
        let heard = to.wait(Duration::from_millis(500), "a hint", |heard| {
            heard.is("hint") && heard.event["text"] == text
        });
        if heard.is_ok() {
            return Ok(());
        }
    }
    anyhow::bail!("the hint {text} never arrived")
}

fn echo(from: &mut Peer, to: &Peer) -> Result<Duration> {
    let begun = Instant::now();
    let answer = from.ask(to.key(), "echo is anybody there")?;
    ensure!(answer.event["text"] == "is anybody there", "{answer:?}");
    Ok(begun.elapsed())
}

fn refused(peer: &Peer, why: &str) -> Result<Heard> {
    peer.wait(SOON, why, |heard| heard.is("refused") && heard.event["why"] == why)
}

#[test]
fn five_find_each_other_by_addresses_and_by_multicast() -> Result<()> {
    for addresses in [true, false] {
        let begun = Instant::now();
        let (lan, mut peers) = everybody(5, 5, addresses)?;
        println!(
            "five peers, {}: all connected after {:?}",
            if addresses { "addresses" } else { "mDNS" },
            begun.elapsed()
        );
        for from in 0..5 {
            for to in (0..5).filter(|to| *to != from) {
                let text = format!("from {from} to {to}");
                let [one, other] = peers.get_disjoint_mut([from, to])?;
                hint(one, other, &text)?;
                echo(one, other)?;
            }
        }
        for peer in &mut peers {
            ensure!(peer.counter("connections")? == 4);
        }
        drop((peers, lan));
    }
    Ok(())
}

#[test]
fn whoever_is_not_on_the_list_gets_nothing() -> Result<()> {
    let (lan, mut peers) = everybody(3, 2, false)?;
    let list: Vec<String> = (0..2).map(|member| neighbour(&lan, member, seed(member))).collect();
    let stranger = Peer::start(PEER, &lan, 2, 99, &[list, vec!["--mdns".into()]].concat())?;
    for peer in &peers {
        let heard = refused(peer, "Unknown")?;
        ensure!(heard.event["peer"] == stranger.key().to_string(), "{heard:?}");
    }
    refused(&stranger, "NotLetIn")?;
    let mut stranger = stranger;
    let answer = stranger.ask(peers[0].key(), "echo let me in")?;
    ensure!(answer.event["error"] == "NotConnected", "{answer:?}");
    stranger.tell("hint let me in")?;
    std::thread::sleep(Duration::from_secs(5));
    for peer in &mut peers {
        let heard = peer.take();
        ensure!(
            !heard
                .iter()
                .any(|heard| heard.event["peer"] == stranger.key().to_string() && !heard.is("refused")),
            "{heard:?}"
        );
        ensure!(peer.counter("connections")? == 1);
    }
    ensure!(!stranger.take().iter().any(|heard| heard.is("connected")));
    // Reports are few although it calls every second or so at first.
    std::thread::sleep(Duration::from_secs(5));
    let reports = peers[0].take().iter().filter(|heard| heard.is("refused")).count();
    ensure!(reports <= 2, "{reports} reports in ten seconds");
    let refusals = peers[0].counter("refused")?;
    println!("a stranger was refused {refusals} times in about ten seconds");
    Ok(())
}

#[test]
fn a_cut_is_noticed_and_healed() -> Result<()> {
    let (lan, mut peers) = everybody(5, 5, true)?;
    type Cut = fn(&Lan) -> Result<()>;
    let cuts: [(&str, Cut); 4] = [
        ("cable pulled", |lan| lan.plug(2, false)),
        ("both directions dropped", |lan| lan.deafen(2).and_then(|()| lan.silence(2))),
        ("what is sent to it dropped", |lan| lan.deafen(2)),
        ("what it sends dropped", |lan| lan.silence(2)),
    ];
    for (name, cut) in cuts {
        let begun = Instant::now();
        cut(&lan)?;
        let cut_off = peers[2].key();
        let mut noticed = Vec::new();
        for (member, peer) in peers.iter().enumerate().filter(|(member, _)| *member != 2) {
            noticed.push(peer.disconnected(cut_off)?.duration_since(begun));
            noticed.push(peers[2].disconnected(key(seed(member)))?.duration_since(begun));
        }
        // The others have lost nothing.
        let [one, other] = peers.get_disjoint_mut([0, 4])?;
        echo(one, other)?;
        std::thread::sleep(Duration::from_secs(10));
        let healed = Instant::now();
        lan.plug(2, true)?;
        lan.heal()?;
        let mut back = Vec::new();
        for (member, peer) in peers.iter().enumerate().filter(|(member, _)| *member != 2) {
            back.push(peer.connected(cut_off)?.duration_since(healed));
            back.push(peers[2].connected(key(seed(member)))?.duration_since(healed));
        }
        let [one, other] = peers.get_disjoint_mut([2, 4])?;
        echo(one, other)?;
        let (noticed, back) = (noticed.iter().max().context("some")?, back.iter().max().context("some")?);
        println!("{name}: noticed by the last after {noticed:?}, all back {back:?} after healing");
        ensure!(*noticed < Duration::from_secs(30) && *back < SOON);
    }
    // Two that dialled each other at the same moment may still be about to give one of both connections up.
    let healed = Instant::now();
    for peer in &mut peers {
        while peer.counter("connections")? != 4 {
            ensure!(healed.elapsed() < SOON, "{} connections", peer.counter("connections")?);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

#[test]
fn a_changed_address_a_kill_and_a_hang_are_survived() -> Result<()> {
    let (lan, mut peers) = everybody(3, 3, false)?;
    // The list of the others says nothing of the new address; multicast, or its own call, does.
    for member in [1, 2] {
        // Of connections made within two seconds the older one may stay, see `links.rs`.
        std::thread::sleep(Duration::from_secs(3));
        let begun = Instant::now();
        let address = Ipv4Addr::new(10, 77, 0, 100 + seed(member));
        lan.move_to(member, address)?;
        let there = format!("/ip4/{address}/tcp/{PORT}");
        peers[member].wait(SOON, "it listens there", |heard| {
            heard.is("listening") && heard.event["address"] == *there
        })?;
        for other in (0..3).filter(|other| *other != member) {
            let mut tries = 0;
            // A request on the dead connection fails; the next one finds the new one.
            while echo_ok(&mut peers, member, other).is_err() || echo_ok(&mut peers, other, member).is_err() {
                tries += 1;
                ensure!(tries < 100, "never reached again");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        println!("another address of {member}: everybody reached again after {:?}", begun.elapsed());
    }

    for peer in &peers {
        peer.take();
    }
    let begun = Instant::now();
    let killed = key(seed(1));
    peers.remove(1).kill()?;
    let noticed = peers[0].disconnected(killed)?.duration_since(begun);
    let mut again = start(&lan, 1, 3, false)?;
    let begun = Instant::now();
    for peer in &peers {
        peer.connected(killed)?;
        again.connected(peer.key())?;
    }
    println!("kill -9: noticed after {noticed:?}, back {:?} after the start", begun.elapsed());
    echo(&mut again, &peers[0])?;

    let begun = Instant::now();
    again.freeze(true)?;
    let noticed = peers[0].disconnected(killed)?.duration_since(begun);
    peers[1].disconnected(killed)?;
    again.freeze(false)?;
    let begun = Instant::now();
    peers[0].connected(killed)?;
    println!("frozen process: noticed after {noticed:?}, back {:?} after it went on", begun.elapsed());
    ensure!(noticed < SOON);
    again.stop()
}

fn echo_ok(peers: &mut [Peer], from: usize, to: usize) -> Result<Duration> {
    let [one, other] = peers.get_disjoint_mut([from, to])?;
    echo(one, other)
}

#[test]
fn who_floods_is_named_and_shut_out_and_the_others_notice_nothing() -> Result<()> {
    let (lan, mut peers) = everybody(3, 2, true)?;
    list_all(&lan, &mut peers, 66)?;
    let before = peers[0].memory()?;
    let flood = Peer::start(RUDE, &lan, 2, 66, &["flood".into(), neighbour(&lan, 0, seed(0))])?;
    let mut longest = Duration::ZERO;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        let [one, other] = peers.get_disjoint_mut([1, 0])?;
        longest = longest.max(echo(one, other)?);
        std::thread::sleep(Duration::from_millis(50));
    }
    let heard = refused(&peers[0], "Flood")?;
    ensure!(heard.event["peer"] == flood.key().to_string(), "{heard:?}");
    let grown = peers[0].memory()?.saturating_sub(before);
    let (shut_out, dropped) = (peers[0].counter("shut_out")?, peers[0].counter("hints_dropped")?);
    println!(
        "flood: shut out {shut_out} times in 15 s, {dropped} hints dropped, {} KiB grown, slowest echo of the other {longest:?}",
        grown / 1024
    );
    ensure!(shut_out >= 1 && grown < 64 << 20 && longest < SOON);
    ensure!(!peers[1].take().iter().any(|heard| heard.is("disconnected")), "the other one was put out, too");
    Ok(())
}

#[test]
fn giants_and_drips_and_swallowers_cost_nobody_else_anything() -> Result<()> {
    for manner in ["giant", "drip", "swallow"] {
        let (lan, mut peers) = everybody(3, 2, true)?;
        list_all(&lan, &mut peers, 66)?;
        let before = peers[0].memory()?;
        let rude = Peer::start(RUDE, &lan, 2, 66, &[manner.into(), neighbour(&lan, 0, seed(0))])?;
        let mut longest = Duration::ZERO;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(25) {
            let [one, other] = peers.get_disjoint_mut([1, 0])?;
            longest = longest.max(echo(one, other)?);
            let [one, other] = peers.get_disjoint_mut([0, 1])?;
            longest = longest.max(echo(one, other)?);
            std::thread::sleep(Duration::from_millis(100));
        }
        if manner != "swallow" {
            let heard = refused(&peers[0], "BrokenRequest")?;
            ensure!(heard.event["peer"] == rude.key().to_string(), "{heard:?}");
        }
        let grown = peers[0].memory()?.saturating_sub(before);
        println!("{manner}: {} KiB grown, slowest echo of the other {longest:?}", grown / 1024);
        ensure!(grown < 96 << 20 && longest < SOON);
        ensure!(
            !peers[1].take().iter().any(|heard| heard.is("disconnected")),
            "{manner}: the other one was put out, too"
        );
    }
    Ok(())
}

/// Somebody who connects and says nothing, many times over, keeps nobody out.
#[test]
fn silent_connections_keep_nobody_out() -> Result<()> {
    let (lan, mut peers) = everybody(3, 1, true)?;
    let address = lan.address(0);
    let there = format!("/ip4/{address}/tcp/{PORT}");
    peers[0].wait(SOON, "it listens", |heard| heard.is("listening") && heard.event["address"] == *there)?;
    let silent = netns::inside(&lan.space(2), || {
        (0..200).map(|_| TcpStream::connect((address, PORT))).collect::<std::io::Result<Vec<_>>>()
    })??;
    let begun = Instant::now();
    peers.push(Peer::start(PEER, &lan, 1, seed(1), &[neighbour(&lan, 0, seed(0))])?);
    peers[0].tell(&format!("list {}", neighbour(&lan, 1, seed(1))))?;
    peers[1].connected(peers[0].key())?;
    println!("beside 200 silent connections: let in after {:?}", begun.elapsed());
    refused(&peers[0], "TooManyConnections")?;
    // All of them are ended, those that were let in to the handshake as well.
    let begun = Instant::now();
    for mut connection in silent {
        connection.set_read_timeout(Some(SOON))?;
        let mut bytes = Vec::new();
        if let Err(error) = connection.read_to_end(&mut bytes) {
            ensure!(error.kind() == std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    ensure!(begun.elapsed() < SOON);
    Ok(())
}

#[test]
fn nothing_passes_in_clear() -> Result<()> {
    const MARKER: &str = "a marker that nobody else on this LAN may read";
    let (lan, mut peers) = everybody(2, 2, true)?;
    let tap = lan.listen()?;
    let [one, other] = peers.get_disjoint_mut([0, 1])?;
    hint(one, other, MARKER)?;
    let answer = one.ask(other.key(), &format!("echo {MARKER}"))?;
    ensure!(answer.event["text"] == MARKER);
    let heard = tap.stop();
    let contains = |heard: &[u8]| heard.windows(MARKER.len()).any(|window| window == MARKER.as_bytes());
    ensure!(heard.len() > 1000, "only {} bytes heard", heard.len());
    ensure!(!contains(&heard), "the marker is in clear");
    // The tap does hear what is in clear.
    let tap = lan.listen()?;
    let to = lan.address(1);
    netns::inside(&lan.space(0), || UdpSocket::bind("0.0.0.0:0")?.send_to(MARKER.as_bytes(), (to, 9)))??;
    std::thread::sleep(Duration::from_millis(300));
    ensure!(contains(&tap.stop()), "the tap is deaf");
    Ok(())
}

#[test]
fn a_slow_line_still_delivers_and_stays_up() -> Result<()> {
    for (kbit, bytes) in [(2_000_u32, 4_u32 << 20), (256, 512 << 10)] {
        let (lan, mut peers) = everybody(2, 2, true)?;
        lan.slow(1, kbit)?;
        let begun = Instant::now();
        let [one, other] = peers.get_disjoint_mut([0, 1])?;
        let answer = one.ask(other.key(), &format!("give {bytes}"))?;
        ensure!(
            answer.event["bytes"] == bytes,
            "{answer:?}; {:?}",
            peers.iter().map(Peer::take).collect::<Vec<_>>()
        );
        let (took, line) = (begun.elapsed(), f64::from(bytes) * 8e-3 / f64::from(kbit));
        println!("{} KiB over {kbit} kbit/s: {took:?}, at the line's speed {line:.1} s", bytes >> 10);
        ensure!(!peers.iter().flat_map(Peer::take).any(|heard| heard.is("disconnected")), "taken for a cut");
    }
    // And one that is not slow.
    let (_lan, mut peers) = everybody(2, 2, true)?;
    let [one, other] = peers.get_disjoint_mut([0, 1])?;
    let begun = Instant::now();
    for _ in 0..10 {
        let answer = one.ask(other.key(), &format!("give {}", 4 << 20))?;
        ensure!(answer.event["bytes"] == 4 << 20, "{answer:?}");
    }
    println!("10 x 4 MiB one after the other, debug build: {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn two_hundred_requests_at_once_are_all_answered() -> Result<()> {
    let (_lan, mut peers) = everybody(5, 5, true)?;
    let target = peers[0].key();
    let begun = Instant::now();
    for peer in &mut peers[1..] {
        for number in 0..50 {
            peer.tell(&format!("ask {target} echo {number}"))?;
        }
    }
    for peer in &peers[1..] {
        let mut numbers = Vec::new();
        for _ in 0..50 {
            let answer = peer.wait(SOON, "an answer", |heard| heard.is("answered"))?;
            ensure!(answer.event["error"].is_null(), "{answer:?}");
            numbers.push(answer.event["text"].as_str().context("text")?.parse::<u32>()?);
        }
        numbers.sort_unstable();
        ensure!(numbers == (0..50).collect::<Vec<_>>());
    }
    println!("200 requests of four peers to one: {:?}", begun.elapsed());
    Ok(())
}

#[test]
fn who_reads_no_events_takes_no_memory_and_stays_connected() -> Result<()> {
    let (_lan, mut peers) = everybody(2, 2, true)?;
    let [one, other] = peers.get_disjoint_mut([0, 1])?;
    hint(one, other, "they meet")?;
    let before = other.memory()?;
    other.tell("pause")?;
    let filler = "x".repeat(4000);
    for number in 0..400 {
        one.tell(&format!("hint {number} {filler}"))?;
        one.tell(&format!("ask {} echo {number} {filler}", other.key()))?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = other.memory()?.saturating_sub(before);
    println!("20 s without reading events: {} KiB grown", grown / 1024);
    ensure!(grown < 16 << 20, "{grown} bytes");
    ensure!(!one.take().iter().any(|heard| heard.is("disconnected")), "the slow one was given up");
    other.tell("resume")?;
    other.wait(SOON, "a request", |heard| heard.is("asked"))?;
    ensure!(!other.take().iter().any(|heard| heard.is("disconnected")));
    Ok(())
}

#[test]
fn idle_peers_cost_little() -> Result<()> {
    let (_lan, peers) = everybody(5, 5, true)?;
    std::thread::sleep(Duration::from_secs(5));
    let used = |peers: &[Peer]| peers.iter().map(Peer::cpu).collect::<Result<Vec<_>>>();
    let (begun, before) = (Instant::now(), used(&peers)?);
    std::thread::sleep(Duration::from_secs(30));
    let (passed, after) = (begun.elapsed(), used(&peers)?);
    let shares = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (*after - *before).as_secs_f64() / passed.as_secs_f64());
    let shares: Vec<f64> = shares.collect();
    let memory = peers.iter().map(Peer::memory).collect::<Result<Vec<_>>>()?;
    println!(
        "idle, four connections each: {} of a core, {} MiB",
        shares.iter().map(|share| format!("{:.2} %", share * 100.0)).collect::<Vec<_>>().join(", "),
        memory.iter().max().context("some")? >> 20
    );
    ensure!(shares.iter().all(|share| *share < 0.05));
    Ok(())
}

/// One more neighbour on everybody's list.
fn list_all(lan: &Lan, peers: &mut [Peer], more: u8) -> Result<()> {
    let keys: Vec<u8> = (0..peers.len()).map(seed).collect();
    for peer in peers {
        let others = keys.iter().filter(|other| key(**other) != peer.key());
        let others: Vec<String> =
            others.map(|other| neighbour(lan, usize::from(*other) - 1, *other)).collect();
        peer.tell(&format!("list {} {}", others.join(" "), key(more)))?;
    }
    Ok(())
}

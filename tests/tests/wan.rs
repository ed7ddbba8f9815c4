//! The rig's WAN: each cut is the cut it says it is, and the LAN never notices.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_tests::rig::wan::{Cut, Wan};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// An authority: it answers every request of HTTP with a page that no portal has.
struct Authority {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

const ANSWER: &str = "the authority itself";

impl Authority {
    fn start(address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counted = (connections.clone(), requests.clone());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mut client, requests) = (client.unwrap(), counted.1.clone());
                counted.0.fetch_add(1, Relaxed);
                std::thread::spawn(move || {
                    let mut said = [0; 4_096];
                    while client.read(&mut said).is_ok_and(|read| read > 0) {
                        requests.fetch_add(1, Relaxed);
                        // As long as a time-stamp token is at least.
                        let page = format!("{ANSWER}{}", " ".repeat(1_000));
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", page.len());
                        if client.write_all((head + &page).as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Authority { port, connections, requests }
    }
}

/// What curl in the branch says of a page: its exit code, whether there was a connection, what it was given.
#[derive(Debug, PartialEq)]
struct Curled {
    exit: i32,
    connected: bool,
    page: String,
}

const OK: i32 = 0;
const NO_SUCH_NAME: i32 = 6;
const NO_CONNECTION: i32 = 7;
const TOO_LATE: i32 = 28;
const NO_TLS: i32 = 35;

fn curl(wan: &Wan, url: &str) -> Curled {
    let how = ["--silent", "--insecure", "--max-time", "2", "--write-out", "\n%{time_connect}", url];
    let output = wan.command("curl").args(how).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let (page, seconds) = printed.rsplit_once('\n').unwrap();
    let exit = output.status.code().unwrap();
    Curled { exit, connected: seconds.parse::<f64>().unwrap() > 0.0, page: page.trim().to_owned() }
}

/// A box's WAN with an authority on the far side, and a server in the branch that answers in the LAN.
struct Branch {
    wan: Wan,
    authority: Authority,
    lan: u16,
}

impl Branch {
    fn new() -> Self {
        let wan = Wan::new().unwrap();
        let authority = Authority::start(wan.address());
        let listener = wan.inside(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap().unwrap();
        let lan = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut said = [0; 5];
                client.read_exact(&mut said).unwrap();
                client.write_all(&said).unwrap();
            }
        });
        wan.publish(lan).unwrap();
        Branch { wan, authority, lan }
    }

    fn by_address(&self) -> Curled {
        curl(&self.wan, &format!("http://{}:{}/", self.wan.address(), self.authority.port))
    }

    fn by_name(&self) -> Curled {
        curl(&self.wan, &format!("http://tsa.bulla.test:{}/", self.authority.port))
    }

    fn by_tls(&self) -> Curled {
        curl(&self.wan, &format!("https://{}:{}/", self.wan.address(), self.authority.port))
    }

    /// The WAN is what it should be, by address and by name, and so is the LAN.
    #[track_caller]
    fn is_well(&self) {
        let well = Curled { exit: OK, connected: true, page: ANSWER.into() };
        assert_eq!(self.by_address(), well);
        assert_eq!(self.by_name(), well);
        self.lan_is_well();
    }

    /// The box answers in the LAN, to its address and to the loopback that clients use, and at once.
    #[track_caller]
    fn lan_is_well(&self) {
        for address in [self.wan.lan_address(), Ipv4Addr::LOCALHOST] {
            let begun = Instant::now();
            let mut stream = TcpStream::connect((address, self.lan)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(b"hello").unwrap();
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"hello");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }

    fn seen(&self) -> (usize, usize) {
        (self.authority.connections.load(Relaxed), self.authority.requests.load(Relaxed))
    }

    /// Connects from the branch to the authority.
    fn connect(&self) -> std::io::Result<TcpStream> {
        let to = (self.wan.address(), self.authority.port).into();
        self.wan.inside(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).unwrap()
    }

    /// An open connection that has been answered once.
    fn talking(&self) -> TcpStream {
        let mut stream = self.connect().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert!(is_answered(&mut stream).unwrap());
        stream
    }

    /// Cuts; judges; and all is well before and after.
    fn while_cut(cut: Cut, judge: impl FnOnce(&Branch)) {
        let branch = Branch::new();
        branch.is_well();
        branch.wan.cut(cut).unwrap();
        judge(&branch);
        branch.lan_is_well();
        branch.wan.heal().unwrap();
        branch.is_well();
    }
}

/// Asks on an open connection; whether the authority answers before the connection ends.
fn is_answered(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b" ") {
        let mut piece = [0; 4_096];
        match stream.read(&mut piece)? {
            0 => return Ok(false),
            read => answer.extend_from_slice(&piece[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).contains(ANSWER))
}

const NEVER_CONNECTED: fn(i32) -> Curled = |exit| Curled { exit, connected: false, page: String::new() };

#[test]
fn refused_is_refused_at_once() {
    Branch::while_cut(Cut::Refused, |branch| {
        let (seen, begun) = (branch.seen(), Instant::now());
        assert_eq!(branch.by_address(), NEVER_CONNECTED(NO_CONNECTION));
        assert_eq!(branch.connect().unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(branch.by_name(), NEVER_CONNECTED(NO_SUCH_NAME), "the resolver refuses, too");
        assert_eq!(branch.seen(), seen);
    });
}

#[test]
fn a_black_hole_says_nothing() {
    let branch = Branch::new();
    let mut open = branch.talking();
    branch.wan.cut(Cut::BlackHole).unwrap();
    let seen = branch.seen();
    assert_eq!(branch.by_address(), NEVER_CONNECTED(TOO_LATE));
    assert_eq!(branch.by_name(), NEVER_CONNECTED(TOO_LATE));
    assert_eq!(is_answered(&mut open).unwrap_err().kind(), ErrorKind::WouldBlock, "open, and silent");
    assert_eq!(branch.seen(), seen);
    branch.lan_is_well();
    branch.wan.heal().unwrap();
    branch.is_well();
}

#[test]
fn unplugged_is_without_a_carrier() {
    Branch::while_cut(Cut::Unplugged, |branch| {
        let carrier = branch.wan.command("cat").arg("/sys/class/net/wan/carrier").output().unwrap();
        assert_eq!(carrier.stdout, b"0\n");
        let seen = branch.seen();
        let curled = branch.by_address();
        assert!(!curled.connected && [NO_CONNECTION, TOO_LATE].contains(&curled.exit), "{curled:?}");
        assert_eq!(branch.seen(), seen);
    });
}

#[test]
fn hanging_dns_hangs_names_and_nothing_else() {
    Branch::while_cut(Cut::HangingDns, |branch| {
        assert_eq!(branch.by_address().page, ANSWER);
        let seen = branch.seen();
        assert_eq!(branch.by_name(), NEVER_CONNECTED(TOO_LATE));
        assert_eq!(branch.seen(), seen);
    });
}

#[test]
fn a_captive_portal_answers_for_everybody() {
    let branch = Branch::new();
    let mut open = branch.talking();
    branch.wan.cut(Cut::CaptivePortal).unwrap();
    let (seen, taken) = (branch.seen(), branch.wan.taken());
    for curled in [branch.by_address(), branch.by_name()] {
        assert_eq!((curled.exit, curled.connected), (OK, true));
        assert!(curled.page.starts_with("<!DOCTYPE html>"), "{}", curled.page);
    }
    assert_eq!(branch.by_tls().exit, NO_TLS);
    assert!(!is_answered(&mut open).unwrap_or(false), "who was on the line is thrown off");
    assert_eq!((branch.seen(), branch.wan.taken()), (seen, taken + 3));
    branch.lan_is_well();
    // Who talks with the portal when it goes, does not go on talking with it.
    let mut guest = branch.connect().unwrap();
    branch.wan.heal().unwrap();
    guest.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    assert!(!is_answered(&mut guest).unwrap_or(false));
    branch.is_well();
}

#[test]
fn stalled_connections_are_taken_and_never_served() {
    Branch::while_cut(Cut::Stalled, |branch| {
        let (seen, taken) = (branch.seen(), branch.wan.taken());
        // To curl a connection without its handshake is none; it was taken all the same.
        assert_eq!(branch.by_tls(), NEVER_CONNECTED(TOO_LATE));
        assert_eq!(branch.by_address(), Curled { exit: TOO_LATE, connected: true, page: String::new() });
        assert_eq!((branch.seen(), branch.wan.taken()), (seen, taken + 2));
    });
}

#[test]
fn lost_requests_reach_nobody() {
    let branch = Branch::new();
    let mut open = branch.talking();
    branch.wan.cut(Cut::RequestsLost).unwrap();
    let seen = branch.seen();
    assert_eq!(branch.by_address(), NEVER_CONNECTED(TOO_LATE));
    assert_eq!(is_answered(&mut open).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(branch.seen(), seen, "not a word arrives");
    branch.lan_is_well();
    branch.wan.heal().unwrap();
    branch.is_well();
}

#[test]
fn lost_replies_come_from_somebody_who_has_heard() {
    let branch = Branch::new();
    let mut open = branch.talking();
    branch.wan.cut(Cut::RepliesLost).unwrap();
    let (connections, requests) = branch.seen();
    assert_eq!(is_answered(&mut open).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(branch.seen(), (connections, requests + 1), "it was heard on the open connection");
    assert_eq!(branch.by_address(), NEVER_CONNECTED(TOO_LATE));
    branch.lan_is_well();
    branch.wan.heal().unwrap();
    branch.is_well();
}

#[test]
fn lost_answers_are_lost_after_the_request_was_served() {
    Branch::while_cut(Cut::AnswersLost, |branch| {
        let (connections, requests) = branch.seen();
        assert_eq!(branch.by_address(), Curled { exit: TOO_LATE, connected: true, page: String::new() });
        assert_eq!(branch.seen(), (connections + 1, requests + 1));
    });
}

#[test]
fn cuts_follow_each_other() {
    let branch = Branch::new();
    for cut in Cut::ALL {
        branch.wan.cut(cut).unwrap();
        let curled = branch.by_name();
        assert!(curled.exit != OK || curled.page.contains("log in"), "{cut:?}: {curled:?}");
        branch.lan_is_well();
    }
    branch.wan.heal().unwrap();
    branch.is_well();
}

#[test]
fn branches_do_not_meet_and_leave_nothing_behind() {
    let (one, other) = (Branch::new(), Branch::new());
    assert_ne!(one.wan.address(), other.wan.address());
    one.wan.cut(Cut::BlackHole).unwrap();
    other.is_well();
    let (address, namespace) = (one.wan.address(), one.wan.namespace().to_owned());
    let there = |name: &str| ["/run/netns", "/etc/netns"].map(|place| Path::new(place).join(name).exists());
    let router = format!("{namespace}-router");
    assert_eq!((there(&namespace), there(&router)), ([true, true], [true, false]));
    drop(one);
    assert_eq!((there(&namespace), there(&router)), ([false, false], [false, false]));
    assert!(TcpListener::bind((address, 0)).is_err(), "its address is gone");
    other.is_well();
}

#[test]
fn what_a_killed_run_left_goes_at_the_next_start() {
    let ip = |arguments: &[&str]| Command::new("ip").args(arguments).output().unwrap();
    // As long as its process lives, a namespace is somebody's.
    let mut run = Command::new("sleep").arg("600").spawn().unwrap();
    let space = format!("bulla-wan-{}-7", run.id());
    assert!(ip(&["netns", "add", &space]).status.success());
    let places = ["/run/netns", "/etc/netns"].map(|place| Path::new(place).join(&space));
    std::fs::create_dir_all(&places[1]).unwrap();
    let mut left = Command::new("ip").args(["netns", "exec", &space, "sleep", "600"]).spawn().unwrap();
    while ip(&["netns", "pids", &space]).stdout.is_empty() {
        sleep(Duration::from_millis(10));
    }
    drop(Wan::new().unwrap());
    assert!(places.iter().all(|place| place.exists()));
    run.kill().unwrap();
    run.wait().unwrap();
    drop(Wan::new().unwrap());
    assert!(!left.wait().unwrap().success(), "its box was ended");
    // Another test may have begun to tidy up before this one, and still be at it.
    let begun = Instant::now();
    while places.iter().any(|place| place.exists()) {
        assert!(begun.elapsed() < Duration::from_secs(10), "something stays");
        sleep(Duration::from_millis(10));
    }
}

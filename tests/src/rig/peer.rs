//! A wire as a process: told what to do by lines, heard by its events. See `src/bin/peer.rs` for both.

use super::lan::Lan;
use anyhow::{Context, Result, bail, ensure};
use bulla_peers::PeerKey;
use ed25519_dalek::SigningKey;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// The port of all of them; each has an address of its own.
pub const PORT: u16 = 7440;

/// An event and when it was heard.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// What, as the process wrote it.
    pub event: Value,
}

impl Heard {
    /// Whether it is of this name.
    pub fn is(&self, name: &str) -> bool {
        self.event["event"] == name
    }

    /// Whether it is of this name and about this peer.
    pub fn is_of(&self, name: &str, peer: PeerKey) -> bool {
        self.is(name) && self.event["peer"] == peer.to_string()
    }
}

/// A running process.
pub struct Peer {
    /// The libp2p key's number: the seed is this byte 32 times.
    seed: u8,
    child: Child,
    orders: Option<ChildStdin>,
    heard: Receiver<Heard>,
    /// Heard, and not waited for yet.
    kept: RefCell<VecDeque<Heard>>,
}

/// The key of the peer with this seed.
pub fn key(seed: u8) -> PeerKey {
    PeerKey::new(SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes())
}

/// A neighbour as the program is told of it.
pub fn neighbour(lan: &Lan, member: usize, seed: u8) -> String {
    format!("{}@/ip4/{}/tcp/{PORT}", key(seed), lan.address(member))
}

impl Peer {
    /// Starts the program where the member is. `arguments` are further ones.
    pub fn start(program: &str, lan: &Lan, member: usize, seed: u8, arguments: &[String]) -> Result<Self> {
        let mut command = lan.command(member, program);
        command.arg(seed.to_string()).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start ip (package iproute2)")?;
        let orders = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("it was asked for")?).lines();
        let (sender, heard) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(std::result::Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(Heard { at: Instant::now(), event }).is_err() {
                    return;
                }
            }
        });
        Ok(Peer { seed, child, orders, heard, kept: RefCell::default() })
    }

    /// Its name on the wire.
    pub fn key(&self) -> PeerKey {
        key(self.seed)
    }

    /// Says one line to it.
    pub fn tell(&mut self, order: &str) -> Result<()> {
        let orders = self.orders.as_mut().context("it has been told to stop")?;
        writeln!(orders, "{order}").context("it does not listen any more")
    }

    /// The first event that fits. Others are kept for whoever waits for them later.
    pub fn wait(&self, within: Duration, what: &str, fits: impl Fn(&Heard) -> bool) -> Result<Heard> {
        let until = Instant::now() + within;
        let mut kept = self.kept.borrow_mut();
        if let Some(at) = kept.iter().position(&fits) {
            return kept.remove(at).context("it is there");
        }
        loop {
            let why = match self.heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(heard) if fits(&heard) => return Ok(heard),
                Ok(other) => {
                    kept.push_back(other);
                    continue;
                }
                Err(RecvTimeoutError::Timeout) => format!("not within {within:?}"),
                Err(RecvTimeoutError::Disconnected) => "it has ended".to_owned(),
            };
            let others: Vec<String> =
                kept.iter().rev().take(40).map(|heard| heard.event.to_string()).collect();
            bail!("{what}: {why}; else heard, newest first: {others:#?}");
        }
    }

    /// Waits until this peer is there.
    pub fn connected(&self, peer: PeerKey) -> Result<Instant> {
        let what = format!("{:?} sees {peer:?} come", self.key());
        Ok(self.wait(Duration::from_secs(60), &what, |heard| heard.is_of("connected", peer))?.at)
    }

    /// Waits until this peer is not there.
    pub fn disconnected(&self, peer: PeerKey) -> Result<Instant> {
        let what = format!("{:?} sees {peer:?} go", self.key());
        Ok(self.wait(Duration::from_secs(60), &what, |heard| heard.is_of("disconnected", peer))?.at)
    }

    /// Asks, and waits for how it ends.
    pub fn ask(&mut self, peer: PeerKey, request: &str) -> Result<Heard> {
        self.tell(&format!("ask {peer} {request}"))?;
        self.wait(Duration::from_secs(120), request, |heard| heard.is_of("answered", peer))
    }

    /// Everything not waited for yet.
    pub fn take(&self) -> Vec<Heard> {
        let mut kept = self.kept.borrow_mut();
        kept.drain(..).chain(self.heard.try_iter()).collect()
    }

    /// One of its counters.
    pub fn counter(&mut self, name: &str) -> Result<u64> {
        self.tell("count")?;
        let counted = self.wait(Duration::from_secs(10), "counters", |heard| heard.is("counted"))?;
        counted.event[name].as_u64().with_context(|| format!("there is no counter {name}"))
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
    }

    /// Processor time used so far.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        ensure!(fields.len() > 12, "{stat}");
        // User and system time, in ticks of a hundredth of a second.
        Ok(Duration::from_millis((fields[11].parse::<u64>()? + fields[12].parse::<u64>()?) * 10))
    }

    /// Stops or continues the whole process.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { rustix::process::Signal::STOP } else { rustix::process::Signal::CONT };
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Has it say good-bye.
    pub fn stop(mut self) -> Result<()> {
        self.orders = None;
        let status = self.child.wait()?;
        ensure!(status.success(), "{:?} ended with {status}", self.key());
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! A LAN of its own for several programs: each in a network namespace, all on one switch, every cable in the test's hand.
//!
//! ```text
//!   member 0 ── 10.77.0.1  lan ═══ port 0 ┐
//!   member 1 ── 10.77.0.2  lan ═══ port 1 ┼ switch (a bridge in a namespace of its own)
//!   ...                                   ┘
//! ```
//!
//! - The namespaces touch no interface of the machine, so any number of LANs stand side by side.
//! - What is cut is cut outside of the program: at the switch's port, or by rules that drop what arrives.
//! - Everything goes when it is dropped; what a killed run left goes at the next start.
//!
//! Refuses to do: skip, see [`super::netns`].

use super::door::Door;
use super::forward::{self, Place};
use super::netns::{self, ip, nft};
use anyhow::{Context, Result, ensure};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with, sockopt};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Namespaces of the rig begin like this; the process follows.
const PREFIX: &str = "bulla-lan-";

/// Members on a switch.
pub struct Lan {
    forwards: Mutex<Vec<Door>>,
    name: String,
    members: usize,
    scripts: TempDir,
}

impl Lan {
    /// So many members, all connected.
    pub fn new(members: usize) -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        netns::demand_root()?;
        netns::remove_leftovers(PREFIX)?;
        let name = format!("{PREFIX}{}-{}", id(), COUNT.fetch_add(1, Relaxed));
        // From here on dropping it removes what has been made.
        let scripts = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lan = Lan { forwards: Mutex::default(), name, members, scripts };
        let switch = lan.switch();
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add switch type bridge"))?;
        ip(&format!("-n {switch} link set switch up"))?;
        for member in 0..members {
            let space = lan.space(member);
            for command in [
                format!("netns add {space}"),
                format!("-n {switch} link add port{member} type veth peer name lan netns {space}"),
                format!("-n {switch} link set port{member} master switch up"),
                format!("-n {space} link set lo up"),
                format!("-n {space} addr add {}/24 dev lan", lan.address(member)),
                format!("-n {space} link set lan up"),
            ] {
                ip(&command)?;
            }
        }
        Ok(lan)
    }

    /// The namespace of a member.
    pub fn space(&self, member: usize) -> String {
        format!("{}-{member}", self.name)
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.name)
    }

    /// Where a member is at first.
    pub fn address(&self, member: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 77, 0, 1)) + u32::try_from(member).unwrap_or(u32::MAX))
    }

    /// A program that runs where the member is.
    pub fn command(&self, member: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(member), program]);
        command
    }

    /// The same as a script, see [`super::RigOptions::launcher`]. It is there as long as the LAN.
    pub fn launcher(&self, member: usize, program: &Path) -> Result<PathBuf> {
        let directory = self.scripts.path().join(member.to_string());
        std::fs::create_dir_all(&directory)?;
        // `ip netns exec` would give the program mounts of its own, and keep a disk mounted that the test takes out.
        netns::launcher(&directory, &format!("nsenter --net=/run/netns/{}", self.space(member)), program)
    }

    /// Lets the test reach this port of the member's loopback as a port of its own; no cable of the LAN has to do with it.
    pub fn publish(&self, member: usize, port: u16) -> Result<()> {
        let (here, there) = self.loopbacks(member, port);
        self.forward(&here, there)
    }

    /// Lets the member reach this port of the test's loopback as a port of its own: a TPM is on no network.
    pub fn lend(&self, member: usize, port: u16) -> Result<()> {
        let (here, there) = self.loopbacks(member, port);
        self.forward(&there, here)
    }

    fn loopbacks(&self, member: usize, port: u16) -> (Place, Place) {
        let at = (Ipv4Addr::LOCALHOST, port);
        (Place { space: None, at }, Place { space: Some(self.space(member)), at })
    }

    fn forward(&self, from: &Place, to: Place) -> Result<()> {
        let door = forward::open(from, to)?;
        self.forwards.lock().expect("pushing does not panic").push(door);
        Ok(())
    }

    /// Pulls the member's cable out of the switch, or puts it in.
    pub fn plug(&self, member: usize, there: bool) -> Result<()> {
        let state = if there { "up" } else { "down" };
        ip(&format!("-n {} link set port{member} {state}", self.switch()))
    }

    /// Whatever is sent to the member is lost.
    pub fn deafen(&self, member: usize) -> Result<()> {
        let rule = "chain in { type filter hook input priority filter; iifname lan drop; }";
        nft(&self.space(member), &format!("table ip cut {{\n{rule}\n}}"))
    }

    /// Whatever the member sends is lost.
    pub fn silence(&self, member: usize) -> Result<()> {
        let from = self.address(member);
        let rule = format!("chain in {{ type filter hook input priority filter; ip saddr {from} drop; }}");
        self.others(member)
            .try_for_each(|other| nft(&self.space(other), &format!("table ip cut {{\n{rule}\n}}")))
    }

    /// Nothing passes between these members and the others, both ways.
    pub fn part(&self, half: &[usize]) -> Result<()> {
        for member in 0..self.members {
            let strangers = (0..self.members).filter(|other| half.contains(other) != half.contains(&member));
            let rules: String =
                strangers.map(|other| format!("ip saddr {} drop; ", self.address(other))).collect();
            let chain = format!("chain in {{ type filter hook input priority filter; {rules}}}");
            nft(&self.space(member), &format!("table ip cut {{\n{chain}\n}}"))?;
        }
        Ok(())
    }

    /// So many of a hundred packets for the member are lost, at random.
    pub fn thin(&self, member: usize, percent: u8) -> Result<()> {
        let rule = format!(
            "chain in {{ type filter hook input priority filter; iifname lan numgen random mod 100 < {percent} drop; }}"
        );
        nft(&self.space(member), &format!("table ip cut {{\n{rule}\n}}"))
    }

    /// Takes back what [`Self::deafen`], [`Self::silence`], [`Self::part`] and [`Self::thin`] have done.
    pub fn heal(&self) -> Result<()> {
        (0..self.members).try_for_each(|member| nft(&self.space(member), "flush ruleset"))
    }

    /// Gives the member another address, as a DHCP server would.
    pub fn move_to(&self, member: usize, address: Ipv4Addr) -> Result<()> {
        let space = self.space(member);
        ip(&format!("-n {space} addr del {}/24 dev lan", self.address(member)))?;
        ip(&format!("-n {space} addr add {address}/24 dev lan"))
    }

    /// Bytes that the member's cable has carried, both ways, with all headers from Ethernet's on.
    pub fn carried(&self, member: usize) -> Result<u64> {
        let command = self.command(member, "cat").args(["/proc/net/dev"]).output()?;
        let text = String::from_utf8(command.stdout)?;
        let line =
            text.lines().find_map(|line| line.trim_start().strip_prefix("lan:")).context("no cable")?;
        let counters: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(counters.len() == 16, "{line}");
        Ok(counters[0] + counters[8])
    }

    /// Takes back what [`Self::slow`] has done.
    pub fn quicken(&self, member: usize) -> Result<()> {
        tc(&format!("-n {} qdisc del dev lan root", self.space(member)))?;
        tc(&format!("-n {} qdisc del dev port{member} root", self.switch()))
    }

    /// Makes the member's line slow in both directions.
    pub fn slow(&self, member: usize, kbit: u32) -> Result<()> {
        for (space, device) in
            [(self.space(member), "lan".to_owned()), (self.switch(), format!("port{member}"))]
        {
            // A bucket of ten milliseconds: the timer fills it no more often than every four.
            let burst = (kbit / 800).max(16);
            tc(&format!(
                "-n {space} qdisc add dev {device} root tbf rate {kbit}kbit burst {burst}kb latency 400ms"
            ))?;
        }
        Ok(())
    }

    /// Hears all that passes the switch, until it is told to stop.
    pub fn listen(&self) -> Result<Tap> {
        let everything = Protocol::from_raw(
            std::num::NonZeroU32::new(u32::from(0x0003_u16.to_be())).context("ETH_P_ALL is not zero")?,
        );
        let ear = netns::inside(&self.switch(), || {
            socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, Some(everything))
        })??;
        sockopt::set_socket_timeout(&ear, sockopt::Timeout::Recv, Some(Duration::from_millis(100)))?;
        sockopt::set_socket_recv_buffer_size(&ear, 32 << 20)?;
        let stopped = Arc::new(AtomicBool::new(false));
        let seen = stopped.clone();
        let thread = std::thread::spawn(move || {
            let (mut heard, mut frame) = (Vec::new(), vec![0; 1 << 17]);
            let mut end = None;
            // What came before the stop is in the socket, however late this thread is.
            while end.is_none_or(|end| Instant::now() < end) {
                let stopped = seen.load(Relaxed);
                match recv(&ear, &mut frame[..], RecvFlags::empty()) {
                    Ok((length, _)) => heard.extend_from_slice(&frame[..length]),
                    Err(_) if stopped => break,
                    Err(_) => {}
                }
                if stopped && end.is_none() {
                    end = Some(Instant::now() + DRAIN_MAX);
                }
            }
            heard
        });
        Ok(Tap { stopped, thread })
    }

    fn others(&self, member: usize) -> impl Iterator<Item = usize> {
        (0..self.members).filter(move |other| *other != member)
    }
}

fn tc(line: &str) -> Result<()> {
    let output = Command::new("tc").args(line.split(' ')).output().context("cannot start tc (iproute2)")?;
    ensure!(output.status.success(), "tc {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How long a tap that is stopped reads on from a network that is never silent.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Somebody with a tap on the switch.
pub struct Tap {
    stopped: Arc<AtomicBool>,
    thread: JoinHandle<Vec<u8>>,
}

impl Tap {
    /// Every frame heard, one after the other.
    pub fn stop(self) -> Vec<u8> {
        self.stopped.store(true, Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        // Best effort, see `super::wan`.
        for member in 0..self.members {
            let _ = ip(&format!("netns del {}", self.space(member)));
        }
        let _ = ip(&format!("netns del {}", self.switch()));
    }
}

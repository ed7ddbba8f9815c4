//! A WAN that can be cut: the box lives in a network namespace of its own, behind a router that does as a test tells it.
//!
//! ```text
//!   test, authorities                     router                    box
//!   198.18.x.9  ───────────────  .10  [rules]  .5  ─────────────  .6  wan
//!   198.18.x.1  ─────────────────────────────────────────────────  .2  lan
//! ```
//!
//! - What is cut, is cut in the router: the box's own kernel sees nothing but a network that behaves so.
//! - The LAN is another cable. No cut touches it.
//! - Every name below `test` is the far side's address, as long as its resolver answers.
//! - Namespaces, cables and rules go when the rig is dropped; those of a run that was killed go at the next start of one.
//!
//! Refuses to do: skip. Namespaces need root, and `ip` and `nft`; without them a test fails and says so.

mod cut;
mod far;
mod names;

pub use cut::Cut;

use super::door::Door;
use super::forward::{self, Place};
use super::netns::{self, ip, nft, setting};
use anyhow::{Result, ensure};
use far::FarSide;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tempfile::TempDir;

/// Namespaces of the rig begin like this; the process follows.
const PREFIX: &str = "bulla-wan-";
/// Rigs side by side on one machine: each takes 16 addresses of 198.18.0.0/15, which is reserved for such tests.
const RIGS_MAX: u16 = 8_192;

/// A box's two networks.
pub struct Wan {
    // Dropped in this order: listeners close while their addresses are there.
    forwards: Mutex<Vec<Door>>,
    far: FarSide,
    spaces: Spaces,
    scripts: TempDir,
}

/// Namespaces and cables, from the first of them on; gone when dropped.
struct Spaces {
    /// Where the box is.
    sealer: String,
    /// Where the rules are.
    router: String,
    /// Which cables and addresses these are.
    number: u16,
}

impl Wan {
    /// Both networks, in order.
    pub fn new() -> Result<Self> {
        netns::demand_root()?;
        netns::remove_leftovers(PREFIX)?;
        let spaces = Spaces::new()?;
        let files = spaces.files();
        fs::create_dir_all(&files)?;
        fs::write(files.join("resolv.conf"), format!("nameserver {}\n", spaces.address(9)))?;
        fs::write(files.join("nsswitch.conf"), "hosts: files dns\n")?;
        let far = FarSide::start(spaces.address(9))?;
        let scripts = tempfile::Builder::new().prefix("bulla-wan-").tempdir()?;
        let wan = Wan { forwards: Mutex::new(Vec::new()), far, spaces, scripts };
        wan.heal()?;
        let published = "table ip lan {\nchain published { type nat hook prerouting priority dstnat; }\n}";
        nft(&wan.spaces.sealer, published)?;
        Ok(wan)
    }

    /// Where the test side listens, as the box sees it through the WAN.
    pub fn address(&self) -> Ipv4Addr {
        self.spaces.address(9)
    }

    /// Where the box is in the LAN.
    pub fn lan_address(&self) -> Ipv4Addr {
        self.spaces.address(2)
    }

    /// Where the test side is in the LAN.
    pub fn lan_test_address(&self) -> Ipv4Addr {
        self.spaces.address(1)
    }

    /// The namespace that the box is in, as `ip netns` knows it.
    pub fn namespace(&self) -> &str {
        &self.spaces.sealer
    }

    /// A program that runs where the box does: its networks, its resolver.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.spaces.sealer]).arg(program.as_ref());
        command
    }

    /// The same as a script, for whoever starts a program by its path ([`super::RigOptions::launcher`]). It is there as long
    /// as the rig.
    pub fn launcher(&self, program: &Path) -> Result<PathBuf> {
        netns::launcher(self.scripts.path(), &format!("ip netns exec {}", self.spaces.sealer), program)
    }

    /// Does something on a thread that is where the box is; a socket made there stays there.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        netns::inside(&self.spaces.sealer, act)
    }

    /// Lets the test reach this port of the box's loopback through the LAN, and as a port of its own loopback: clients
    /// know a box as 127.0.0.1.
    pub fn publish(&self, port: u16) -> Result<()> {
        let rule = format!("add rule ip lan published iifname lan tcp dport {port} dnat to 127.0.0.1");
        nft(&self.spaces.sealer, &rule)?;
        self.forward((Ipv4Addr::LOCALHOST, port), (self.lan_address(), port))
    }

    /// Lets the box reach this port of the test's loopback through the WAN, where authorities are.
    pub fn publish_far(&self, port: u16) -> Result<()> {
        self.forward((self.address(), port), (Ipv4Addr::LOCALHOST, port))
    }

    /// Lets the box reach a TPM on the test's loopback through the LAN; returns how libtss2 is told. On a board the TPM is
    /// not on the WAN, either.
    pub fn tcti(&self, tpm_port: u16) -> Result<String> {
        for port in [tpm_port, tpm_port + 1] {
            self.forward((self.lan_test_address(), port), (Ipv4Addr::LOCALHOST, port))?;
        }
        Ok(format!("swtpm:host={},port={tpm_port}", self.lan_test_address()))
    }

    /// Cuts the WAN; one cut takes the place of another.
    pub fn cut(&self, cut: Cut) -> Result<()> {
        self.heal()?;
        nft(&self.spaces.router, &cut.rules(&self.far))?;
        if cut == Cut::Unplugged {
            self.plug("down")?;
        }
        Ok(())
    }

    /// The WAN as it should be. Connections that a cut led elsewhere end.
    pub fn heal(&self) -> Result<()> {
        nft(&self.spaces.router, cut::HEALED)?;
        self.plug("up")?;
        // Who was asked for in vain is asked for again, and not a second later.
        ip(&format!("-n {} neigh flush dev wan", self.spaces.sealer))
    }

    /// Connections that a captive portal or a silent listener has taken so far.
    pub fn taken(&self) -> usize {
        self.far.taken()
    }

    fn forward(&self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Result<()> {
        let door = forward::open(&Place::here(from.0, from.1), Place::here(to.0, to.1))?;
        self.forwards.lock().expect("pushing does not panic").push(door);
        Ok(())
    }

    fn plug(&self, state: &str) -> Result<()> {
        ip(&format!("-n {} link set in {state}", self.spaces.router))
    }
}

impl Spaces {
    fn new() -> Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let sealer = format!("{PREFIX}{}-{}", id(), COUNT.fetch_add(1, Relaxed));
        let mut spaces = Spaces { router: format!("{sealer}-router"), sealer, number: 0 };
        let (sealer, router) = (spaces.sealer.clone(), spaces.router.clone());
        ip(&format!("netns add {sealer}"))?;
        ip(&format!("netns add {router}"))?;
        // Whoever has both cables has the number.
        while let Err(error) = spaces.claim() {
            let taken = error.to_string().contains("File exists");
            ensure!(taken && spaces.number + 1 < RIGS_MAX, "{error}");
            spaces.number += 1;
        }
        let [lan, lan_box, near, near_box, far, far_router] =
            [1, 2, 5, 6, 9, 10].map(|last| spaces.address(last));
        let (lan_end, wan_end) = (spaces.host("l"), spaces.host("w"));
        for command in [
            format!("-n {router} link add in type veth peer name wan netns {sealer}"),
            format!("addr add {lan}/30 dev {lan_end}"),
            format!("addr add {far}/30 dev {wan_end}"),
            format!("-n {router} addr add {far_router}/30 dev out"),
            format!("-n {router} addr add {near}/30 dev in"),
            format!("-n {sealer} addr add {near_box}/30 dev wan"),
            format!("-n {sealer} addr add {lan_box}/30 dev lan"),
            format!("link set {lan_end} up"),
            format!("link set {wan_end} up"),
            format!("-n {router} link set lo up"),
            format!("-n {router} link set in up"),
            format!("-n {router} link set out up"),
            format!("-n {sealer} link set lo up"),
            format!("-n {sealer} link set lan up"),
            format!("-n {sealer} link set wan up"),
            format!("-n {sealer} route add default via {near}"),
            format!("route add {near_box}/32 via {far_router}"),
        ] {
            ip(&command)?;
        }
        setting(&router, "net/ipv4/ip_forward")?;
        // A box that listens on its loopback alone is reached from the LAN all the same, see `Wan::publish`.
        setting(&sealer, "net/ipv4/conf/lan/route_localnet")?;
        Ok(spaces)
    }

    /// Makes the cables of this number; makes none when one of them is there already.
    fn claim(&self) -> Result<()> {
        let (lan_end, wan_end) = (self.host("l"), self.host("w"));
        ip(&format!("link add {lan_end} type veth peer name lan netns {}", self.sealer))?;
        ip(&format!("link add {wan_end} type veth peer name out netns {}", self.router))
            .or_else(|error| ip(&format!("link del {lan_end}")).and(Err(error)))
    }

    /// The test's end of a cable.
    fn host(&self, which: &str) -> String {
        format!("bulla{}{which}", self.number)
    }

    fn address(&self, last: u16) -> Ipv4Addr {
        Ipv4Addr::from(
            u32::from(Ipv4Addr::new(198, 18, 0, 0)) + u32::from(self.number) * 16 + u32::from(last),
        )
    }

    /// What `ip netns exec` puts in the place of files in /etc.
    fn files(&self) -> PathBuf {
        Path::new("/etc/netns").join(&self.sealer)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        // Best effort: a test that failed already has something to say. What stays goes at the next start. The cables go
        // with the namespace, but not at once; the addresses of the test's ends shall.
        let _ = ip(&format!("-n {} link del lan", self.sealer));
        let _ = ip(&format!("-n {} link del out", self.router));
        for space in [&self.sealer, &self.router] {
            let _ = ip(&format!("netns del {space}"));
        }
        let _ = fs::remove_dir_all(self.files());
    }
}

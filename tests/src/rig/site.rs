//! Boxes that are neighbours: each a real process with its own disk and keys, on loopback or on a LAN whose cables are the
//! test's.
//!
//! Refuses to do: believe a box about another one's log; what is held is read by the C2SP paths and judged by the card.

use super::lan::Lan;
use super::{Client, Keys, Response, Rig, RigOptions, Role, box_program};
use anyhow::{Context, Result, ensure};
use bulla_formats::hash::{leaf_hash, sha256};
use bulla_formats::merkle::Frontier;
use bulla_formats::note::SignedNote;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::tile::{TileCoordinate, parse_entries, width_at};
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest wait for what should come by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// Port of the wire, where each box has an address of its own.
const WIRE_PORT: u16 = 7440;

/// The boxes and their cards, in the same order.
pub struct Site {
    /// Boxes, running or not. Dropped before the LAN that they are on.
    pub boxes: Vec<Rig>,
    /// What they are known by.
    pub cards: Vec<PeerCard>,
    /// Where they are, unless on loopback.
    pub lan: Option<Lan>,
}

impl Site {
    /// Boxes on loopback that do not run yet and have nobody's card.
    pub fn create(keys: &[Keys]) -> Result<Self> {
        Self::create_with(keys, "")
    }

    /// The same with more lines in `[peers]`.
    pub fn create_with(keys: &[Keys], peers: &str) -> Result<Self> {
        let mut site = Site { boxes: Vec::new(), cards: Vec::new(), lan: None };
        for keys in keys {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            site.add(*keys, &format!("/ip4/127.0.0.1/tcp/{port}"), None, peers)?;
        }
        Ok(site)
    }

    /// The same with lines of `box.toml` of its own for each box.
    pub fn create_each(keys: &[Keys], more: &[String]) -> Result<Self> {
        let mut site = Site { boxes: Vec::new(), cards: Vec::new(), lan: None };
        for (keys, more) in keys.iter().zip(more) {
            let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
            site.add(*keys, &format!("/ip4/127.0.0.1/tcp/{port}"), None, more)?;
        }
        Ok(site)
    }

    /// The same on a LAN, each in a network namespace of its own. Clients and TPMs reach them past the LAN, so that
    /// what is cut is between the boxes and nowhere else. `disks`: where a box's state is, if not in its own directory.
    pub fn create_on_lan(keys: &[Keys], disks: &[Option<&Path>]) -> Result<Self> {
        let mut site = Site { boxes: Vec::new(), cards: Vec::new(), lan: Some(Lan::new(keys.len())?) };
        for (member, keys) in keys.iter().enumerate() {
            let address = site.lan.as_ref().map(|lan| lan.address(member)).context("there is a LAN")?;
            let disk = disks.get(member).copied().flatten();
            site.add(*keys, &format!("/ip4/{address}/tcp/{WIRE_PORT}"), disk, "")?;
        }
        Ok(site)
    }

    fn add(&mut self, keys: Keys, address: &str, disk: Option<&Path>, peers: &str) -> Result<()> {
        let member = self.boxes.len();
        let extra =
            format!("[peers]\nlisten = [\"{address}\"]\nadvertise = [\"{address}\"]\nmdns = false\n{peers}");
        let residency = if keys == Keys::Tpm { "tpm-endorsed-ram" } else { "software" };
        let tpm = if keys == Keys::Tpm { Some(Rig::manufacture_tpm()?) } else { None };
        let mut launcher = None;
        if let Some(lan) = &self.lan {
            launcher = Some(lan.launcher(member, &box_program()?)?);
            if let Some((tpm, _)) = &tpm {
                // libtss2 takes the port after the first one for commands to the chip itself.
                [tpm.port(), tpm.port() + 1].into_iter().try_for_each(|port| lan.lend(member, port))?;
            }
        }
        let options = RigOptions {
            keys,
            residency,
            extra: &extra,
            state_dir: disk,
            launcher: launcher.as_deref(),
            ..RigOptions::default()
        };
        let rig = Rig::create_on(&options, tpm)?;
        if let Some(lan) = &self.lan {
            lan.publish(member, rig.sealer.port())?;
        }
        let printed = rig.run(&["peers", "card", "--out", "peer.card"])?;
        let card = PeerCard::decode(&std::fs::read(rig.file("peer.card"))?)?;
        ensure!(String::from_utf8(printed.stdout)?.contains(&card.fingerprint()));
        self.boxes.push(rig);
        self.cards.push(card);
        Ok(())
    }

    /// Boxes on loopback that know each other, and run.
    pub fn start(keys: &[Keys]) -> Result<Self> {
        let mut site = Self::create(keys)?;
        site.introduce_all()?;
        site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
        Ok(site)
    }

    /// All of them know each other from now on.
    pub fn introduce_all(&self) -> Result<()> {
        for one in 0..self.boxes.len() {
            let others = (0..self.boxes.len()).filter(|other| *other != one);
            others.into_iter().try_for_each(|other| self.introduce(one, other))?;
        }
        Ok(())
    }

    /// The LAN they are on.
    pub fn lan(&self) -> Result<&Lan> {
        self.lan.as_ref().context("these boxes are on loopback")
    }

    /// An operator of `one` takes the card of `other`.
    pub fn introduce(&self, one: usize, other: usize) -> Result<()> {
        let card = self.boxes[other].file("peer.card");
        let fingerprint = self.cards[other].fingerprint();
        self.boxes[one].run(&[
            "peers",
            "add",
            card.to_str().context("a path in UTF-8")?,
            "--fingerprint",
            &fingerprint,
        ])?;
        Ok(())
    }

    /// Name of its log.
    pub fn origin(&self, of: usize) -> &str {
        self.cards[of].origin().as_str()
    }

    /// Seals a text; fails unless it is sealed.
    pub fn seal(&self, at: usize, document: &str, wait: &str) -> Result<Response> {
        let path = format!("/v1/seals?wait={wait}&deadlineSeconds=30");
        let headers = [("Content-Type", "text/plain")];
        let answer = self.boxes[at].client(Role::Scanner).post(&path, &headers, document.as_bytes())?;
        ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
        Ok(answer)
    }

    /// A seal that so many others hold, as the answer says.
    pub fn mirrored(&self, at: usize, document: &str, peers: usize) -> Result<Value> {
        let json = self.seal(at, document, &format!("mirrored({peers})"))?.json()?;
        ensure!(json["waited"] == "mirrored", "{json}\n{}", self.boxes[at].log());
        ensure!(json["heldBy"].as_array().is_some_and(|held| held.len() >= peers), "{json}");
        Ok(json)
    }

    /// What a box says of itself.
    pub fn status(&self, at: usize) -> Result<Value> {
        self.boxes[at].client(Role::Reader).get("/v1/status")?.json()
    }

    /// What the status of `at` says of its neighbour.
    pub fn neighbour(&self, at: usize, of: usize) -> Result<Value> {
        let status = self.status(at)?;
        let all = status["peers"]["neighbours"].as_array().context("it has neighbours")?.clone();
        let found = all.into_iter().find(|one| one["origin"] == self.origin(of));
        found.with_context(|| format!("{} is not in {status}", self.origin(of)))
    }

    /// What a box holds of another's log, read by the C2SP paths and verified by nothing but the card.
    pub fn copy(&self, at: usize, of: usize) -> Result<Vec<Vec<u8>>> {
        let client = self.boxes[at].client_with(None);
        let base = format!("/mirrors/{}", sha256(&[self.origin(of).as_bytes()]));
        let answer = client.get(&format!("{base}/checkpoint"))?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        let note = SignedNote::parse(std::str::from_utf8(&answer.body)?)?;
        let checkpoint = self.cards[of].checkpoint(&note)?;
        let entries = entries(&client, &base, checkpoint.size())?;
        let mut tree = Frontier::new();
        entries.iter().for_each(|entry| tree.append(leaf_hash(entry)));
        ensure!(tree.root() == checkpoint.root(), "the copy is not what its head says");
        Ok(entries)
    }
}

/// Every entry of a log of this size.
pub fn entries(client: &Client, base: &str, size: u64) -> Result<Vec<Vec<u8>>> {
    let mut entries = Vec::new();
    for index in 0..size.div_ceil(256) {
        let width = width_at(0, index, size);
        let path = TileCoordinate::entries(index, width)?.path();
        let answer = client.get(&format!("{base}/{path}"))?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        let bundle = parse_entries(&answer.body, width).context("an entry bundle")?;
        entries.extend(bundle.into_iter().map(|entry| entry.to_vec()));
    }
    Ok(entries)
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !holds()? {
        ensure!(Instant::now() < end, "it does not come to this: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

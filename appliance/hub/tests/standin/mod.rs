//! Boxes and their neighbours in the test's own process: real TLS, logs in memory with known keys, and a hub whose program
//! is run on them.
//!
//! A stand-in serves what it is told to, right or wrong; what real boxes serve is tested with real boxes.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod fault;
pub mod postgres;
pub mod weed;

use crate::common::{Log, digest};
use bulla_formats::body::seal::Observation;
use bulla_formats::der;
use bulla_formats::entry::{EntryContent, Kind};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::HashReader as _;
use bulla_formats::tile::{TileCoordinate, TileKind, push_entry, width_at};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;

/// A program that `cargo xtask setup` has put into the target directory.
pub fn tool(name: &str) -> PathBuf {
    let programs = Path::new(env!("CARGO_BIN_EXE_bulla-hub")).parent().unwrap();
    let path = programs.parent().unwrap().join("tools").join(name);
    assert!(path.is_file(), "{} is missing; `cargo xtask setup` installs it", path.display());
    path
}

/// Ports of 127.0.0.1 that nobody listens on.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    std::array::from_fn(|at| listeners[at].local_addr().unwrap().port())
}

/// Boxes of a hub: name, log and sources, each a stand-in and whether it is a mirror.
pub type Boxes<'a> = [(&'a str, &'a Log, &'a [(&'a StandIn, bool)])];

/// What is served of a log.
#[derive(Clone, Default)]
pub struct Served {
    pub note: String,
    pub entries: Vec<Vec<u8>>,
    pub leaves: Vec<Hash>,
    /// Nothing at all is answered.
    pub down: bool,
    /// Bundles of this number and beyond are not there.
    pub gone_from: Option<u64>,
    /// The entry at this index is served with a flipped bit.
    pub bent: Option<u64>,
    /// Unfilled tiles are served from the full ones only, as a log does that has grown on.
    pub only_full: bool,
}

impl Served {
    /// All of `log`, under its newest head.
    pub fn of(log: &Log) -> Self {
        Served::upto(log, log.size())
    }

    /// The first `size` entries, under a head of theirs.
    pub fn upto(log: &Log, size: u64) -> Self {
        let entries: Vec<Vec<u8>> =
            log.entries[..size as usize].iter().map(|entry| entry.bytes().to_vec()).collect();
        let leaves = entries.iter().map(|entry| leaf_hash(entry)).collect();
        Served { note: log.head(0, size, false).checkpoint, entries, leaves, ..Served::default() }
    }

    fn get(&self, path: &str) -> Option<Vec<u8>> {
        if path == "checkpoint" {
            return Some(self.note.clone().into_bytes());
        }
        let asked = TileCoordinate::parse(path).ok()?;
        let (size, first) = (self.leaves.len() as u64, asked.index() * 256);
        match asked.kind() {
            TileKind::Entries => {
                if self.gone_from.is_some_and(|gone| asked.index() >= gone)
                    || asked.width() > width_at(0, asked.index(), size)
                    || (self.only_full && !asked.is_full() && first + 256 <= size)
                {
                    return None;
                }
                let mut bundle = Vec::new();
                for index in first..first + u64::from(asked.width()) {
                    let mut entry = self.entries[index as usize].clone();
                    if self.bent == Some(index) {
                        *entry.last_mut().unwrap() ^= 1;
                    }
                    push_entry(&mut bundle, &entry).unwrap();
                }
                Some(bundle)
            }
            TileKind::Hashes { level } => {
                if asked.width() > width_at(level, asked.index(), size) {
                    return None;
                }
                let hash = |at: u64| self.leaves[..].subtree(level * 8, first + at).unwrap();
                Some((0..u64::from(asked.width())).flat_map(|at| hash(at).0).collect())
            }
        }
    }
}

/// An HTTPS server of logs: its own, and those it mirrors.
pub struct StandIn {
    pub url: String,
    pub ca: PathBuf,
    /// Client certificate and key, when it demands one.
    pub client: Option<(PathBuf, PathBuf)>,
    logs: Arc<Mutex<BTreeMap<String, Served>>>,
    asked: Arc<AtomicU64>,
    posted: Arc<Posted>,
    _directory: TempDir,
}

/// What was posted: path and JSON; and the status that it is answered with.
pub struct Posted {
    all: Mutex<Vec<(String, Value)>>,
    status: AtomicU64,
}

pub fn authority(name: &str) -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

impl StandIn {
    /// Listens on a free port until the test process ends.
    pub fn start() -> Self {
        Self::start_with(false)
    }

    /// The same, perhaps for clients with a certificate only.
    pub fn start_with(certificate_demanded: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (ca, issuer) = authority("stand-in CA");
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = names.signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let mut client = None;
        let builder = if certificate_demanded {
            let (clients_ca, clients) = authority("CA of clients");
            let client_key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, "hub");
            let own = params.signed_by(&client_key, &clients).unwrap().pem();
            client = Some((file("hub.pem", &own), file("hub.key", &client_key.serialize_pem())));
            let mut roots = RootCertStore::empty();
            use rustls::pki_types::pem::PemObject as _;
            roots
                .add(rustls::pki_types::CertificateDer::from_pem_slice(clients_ca.as_bytes()).unwrap())
                .unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(builder.with_single_cert(vec![certificate.der().clone()], private).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let logs: Arc<Mutex<BTreeMap<String, Served>>> = Arc::default();
        let asked: Arc<AtomicU64> = Arc::default();
        let posted = Arc::new(Posted { all: Mutex::default(), status: AtomicU64::new(200) });
        let (shared, counted, taken) = (Arc::clone(&logs), Arc::clone(&asked), Arc::clone(&posted));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, logs, asked) = (Arc::clone(&config), Arc::clone(&shared), Arc::clone(&counted));
                let posted = Arc::clone(&taken);
                std::thread::spawn(move || serve(stream, config, &logs, &asked, &posted));
            }
        });
        StandIn { url, ca: file("ca.pem", &ca), client, logs, asked, posted, _directory: directory }
    }

    /// The same server, taken for one with the other's CA.
    pub fn with_ca_of(mut self, other: &StandIn) -> Self {
        self.ca.clone_from(&other.ca);
        self
    }

    /// What was posted to this path and taken.
    pub fn posted(&self, path: &str) -> Vec<Value> {
        let all = self.posted.all.lock().unwrap();
        all.iter().filter(|(to, _)| to == path).map(|(_, body)| body.clone()).collect()
    }

    /// From now on posts are answered with this status.
    pub fn answer_posts(&self, status: u64) {
        self.posted.status.store(status, Ordering::Relaxed);
    }

    /// Requests so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Serves this as its own log.
    pub fn serve(&self, served: Served) {
        self.logs.lock().unwrap().insert(String::new(), served);
    }

    /// Serves this as the copy of a neighbour's log.
    pub fn mirror(&self, origin: &str, served: Served) {
        self.logs.lock().unwrap().insert(format!("mirrors/{}/", sha256(&[origin.as_bytes()])), served);
    }
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    logs: &Mutex<BTreeMap<String, Served>>,
    asked: &AtomicU64,
    posted: &Posted,
) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
        asked.fetch_add(1, Ordering::Relaxed);
        let target = line.split(' ').nth(1)?.trim_start_matches('/').to_owned();
        let mut length = 0;
        while !matches!(line.as_str(), "\r\n" | "\n") {
            line.clear();
            stream.read_line(&mut line).ok().filter(|length| *length > 0)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        if !body.is_empty() {
            if logs.lock().unwrap().get("").is_some_and(|served| served.down) {
                return None;
            }
            let status = posted.status.load(Ordering::Relaxed);
            if status == 200 {
                posted.all.lock().unwrap().push((target, serde_json::from_slice(&body).ok()?));
            }
            let answer = format!("HTTP/1.1 {status} Status\r\nContent-Length: 2\r\n\r\n{{}}");
            stream.get_mut().write_all(answer.as_bytes()).ok()?;
            stream.get_mut().flush().ok()?;
            continue;
        }
        let found = {
            let logs = logs.lock().unwrap();
            let (prefix, served) = logs.iter().rev().find(|(prefix, _)| target.starts_with(*prefix))?;
            if served.down {
                return None;
            }
            served.get(&target[prefix.len()..])
        };
        let (status, body) = found.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
        let out = stream.get_mut();
        out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body)).and_then(|()| out.flush()).ok()?;
    }
}

/// Adds seals by a client, `first` to `end` in content, two to a batch, an attestation now and then.
pub fn grow(log: &mut Log, first: u64, end: u64) {
    for number in first..end {
        let previous = log.content(Kind::Seal as u16, Vec::new()).previous;
        for part in ["a", "b"] {
            let (mut body, openings) = log.seal_body(&digest(format!("{number} {part}").as_bytes()));
            body.observation = Observation::BytesObserved;
            let content = EntryContent {
                previous: previous.clone(),
                ..log.content(Kind::Seal as u16, der::encode(&body))
            };
            let index = log.append(content) as usize;
            log.openings[index] = openings;
        }
        match number % 100 {
            50 => drop(log.attestation()),
            99 => drop(log.rotate(number % 200 == 99)),
            _ => {}
        }
    }
}

const PULL: &str = "at_once = 2\nthreads = 2\nstep_bundles = 1\ntimeout_seconds = 10\n";

/// A hub with its directories.
pub struct TestHub {
    pub directory: TempDir,
    /// More sections of its configuration: where archive and index are, when not in its own directory.
    sections: String,
    origins: Vec<String>,
}

impl TestHub {
    /// A hub of these boxes.
    pub fn new(boxes: &Boxes<'_>) -> Self {
        Self::with(boxes, PULL)
    }

    /// The same with these lines in `[pull]`.
    pub fn with(boxes: &Boxes<'_>, pull: &str) -> Self {
        let hub = Self::uninitialised(boxes, pull, "");
        assert_eq!(hub.run(&["init"]).status.code(), Some(0));
        hub
    }

    /// A hub whose archive or index is where these sections say.
    pub fn stored(boxes: &Boxes<'_>, sections: &str) -> Self {
        let hub = Self::uninitialised(boxes, PULL, sections);
        let done = hub.run(&["init"]);
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        hub
    }

    /// The same before `init`.
    pub fn uninitialised(boxes: &Boxes<'_>, pull: &str, sections: &str) -> Self {
        let hub = TestHub {
            directory: tempfile::tempdir().unwrap(),
            sections: sections.to_owned(),
            origins: boxes.iter().map(|(_, log, _)| log.origin.to_string()).collect(),
        };
        hub.configure(boxes, pull);
        hub
    }

    /// Writes the configuration and the trust file.
    pub fn configure(&self, boxes: &Boxes<'_>, pull: &str) {
        let at = |name: &str| self.directory.path().join(name);
        let archive = match self.sections.contains("[s3]") {
            true => String::new(),
            false => format!("archive = {:?}\n", at("archive")),
        };
        let mut text = format!(
            "name = \"hub\"\nstate_dir = {:?}\n{archive}trust = {:?}\n[pull]\n{pull}\
             [watch]\nstale_after_seconds = 315360000\nanchor_after_seconds = 0\n{}",
            at("state"),
            at("trust.json"),
            self.sections
        );
        for (name, log, sources) in boxes {
            text.push_str(&format!("[[boxes]]\nname = {name:?}\norigin = {:?}\n", log.origin.as_str()));
            for (standin, mirror) in *sources {
                text.push_str(&format!(
                    "[[boxes.sources]]\nurl = {:?}\nca = {:?}\nmirror = {mirror}\n",
                    standin.url, standin.ca
                ));
                if let Some((certificate, key)) = &standin.client {
                    text.push_str(&format!("certificate = {certificate:?}\nkey = {key:?}\n"));
                }
            }
        }
        std::fs::write(at("hub.toml"), text).unwrap();
        std::fs::write(at("trust.json"), boxes[0].1.trust().encode()).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulla-hub"));
        command.args(arguments).args(["--json", "--config", "hub.toml"]).current_dir(self.directory.path());
        command
    }

    /// Runs `bulla-hub` to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts `bulla-hub`, to be killed.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Runs it; returns exit code and the lines of JSON.
    pub fn lines(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let output = self.run(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), lines)
    }

    /// Pulls; returns exit code and what is said of each box.
    pub fn pull(&self) -> (i32, BTreeMap<String, Value>) {
        let output = self.run(&["pull"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut said = BTreeMap::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(name) = line["box"].as_str() {
                said.insert(name.to_owned(), line.clone());
            }
        }
        (output.status.code().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr))), said)
    }

    /// Findings without what differs from run to run, in one order.
    pub fn findings(&self) -> Vec<Value> {
        let mut found = self.lines(&["findings"]).1;
        for line in &mut found {
            let line = line.as_object_mut().unwrap();
            line.remove("seq");
            line.remove("foundMillis");
        }
        found.sort_by_key(|line| line.to_string());
        found
    }

    /// Kinds of the findings.
    pub fn kinds(&self) -> Vec<String> {
        self.findings().iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// The archive is sound, and nothing is in it that does not belong there.
    pub fn fsck(&self) {
        let (code, lines) = self.lines(&["fsck"]);
        for line in &lines {
            assert_eq!(line["damage"], serde_json::json!([]), "{line}");
            assert_eq!(line["surplus"], serde_json::json!([]), "{line}");
        }
        assert_eq!(code, 0, "{lines:?}");
    }

    /// Every object of the archive, by name; what a killed writer left half-written has other names and is none.
    pub fn archive(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let root = self.directory.path().join("archive");
        let mut found = BTreeMap::new();
        let mut open = vec![root.clone()];
        while let Some(directory) = open.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else if !path.file_name().unwrap().to_str().unwrap().contains('#') {
                    let name = path.strip_prefix(&root).unwrap().to_owned();
                    found.insert(name, std::fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    /// What the index says of the digests of `numbers`, of every log's state, and of what was found.
    pub fn index(&self, numbers: impl Iterator<Item = u64>) -> Vec<String> {
        let mut said: Vec<String> = self.findings().iter().map(Value::to_string).collect();
        said.extend(self.lines(&["status"]).1.iter().map(Value::to_string));
        for number in numbers {
            let wanted = hex::encode(digest(format!("{number} a").as_bytes()).value);
            let (_, found) = self.lines(&["find", "--digest", &format!("sha-256:{wanted}")]);
            said.extend(found.iter().map(Value::to_string));
        }
        said
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn archived(&self, log: usize, name: &str) -> PathBuf {
        let name = format!("archive/logs/{}/{name}", sha256(&[self.origins[log].as_bytes()]));
        Path::new(&self.directory.path()).join(name)
    }
}

//! A Roughtime server of its own (RFC 10049, and the draft before it): a key, a clock that may be off, and its switches.
//!
//! Messages are written and read here by hand: whoever judges the answers uses a library of somebody else's for that. The
//! false answers are signed like the true ones, so that only the check that stands for each can find it out.
//! Refuses to do: serve anybody but this machine.

use anyhow::{Context, Result, ensure};
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256, Sha512};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const MAGIC: &[u8; 8] = b"ROUGHTIM";
const VERSION: u32 = 1;
const DRAFT: u32 = 0x8000_000c;
const DAY: u64 = 86_400;
/// How long it looks for a question before it looks at its switches.
const LOOK: Duration = Duration::from_millis(20);

/// Whether questions get an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// They do.
    #[default]
    Up,
    /// They get here, and that is all.
    Silent,
    /// Nobody listens.
    Down,
}

/// What it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// Its time.
    #[default]
    Time,
    /// Its time, to somebody else.
    OtherQuestion,
    /// With another nonce beside the right tree.
    OtherNonce,
    /// Under a long-term key that is not its own.
    WrongKey,
    /// Signed by a key that nobody has delegated to.
    WrongDelegate,
    /// Under a delegation that was over yesterday.
    ExpiredDelegation,
    /// In a version of the protocol that nobody has offered.
    WrongVersion,
    /// The first answer it has given, again.
    Replay,
    /// Half of it.
    Truncated,
    /// With something behind it.
    Followed,
    /// Bytes.
    Garbage,
    /// More bytes than a datagram should have.
    Huge,
}

impl Answer {
    /// Everything that is no answer.
    pub const FALSE: [Answer; 11] = [
        Answer::OtherQuestion,
        Answer::OtherNonce,
        Answer::WrongKey,
        Answer::WrongDelegate,
        Answer::ExpiredDelegation,
        Answer::WrongVersion,
        Answer::Replay,
        Answer::Truncated,
        Answer::Followed,
        Answer::Garbage,
        Answer::Huge,
    ];
}

/// All switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Knobs {
    /// Whether questions get an answer.
    pub transport: Transport,
    /// What it says.
    pub answer: Answer,
    /// How far its clock is off.
    pub clock_offset_seconds: i64,
    /// How far it says that it may be off.
    pub radius_seconds: u32,
    /// How long an answer takes.
    pub late_millis: u64,
    /// Whether it speaks the draft only.
    pub draft: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            transport: Transport::Up,
            answer: Answer::Time,
            clock_offset_seconds: 0,
            radius_seconds: 2,
            late_millis: 0,
            draft: false,
        }
    }
}

struct State {
    knobs: Mutex<Knobs>,
    /// Counts settings; the second follows when one is in force.
    set: AtomicU64,
    in_force: AtomicU64,
    asked: AtomicU64,
    stop: AtomicBool,
}

/// A running server; ends when it is dropped.
pub struct Roughtime {
    address: SocketAddr,
    key: SigningKey,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

impl Roughtime {
    /// Starts it on any free port. Its key is made from its name.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_at(name, Ipv4Addr::LOCALHOST)
    }

    /// The same at another address of this machine.
    pub fn start_at(name: &str, address: Ipv4Addr) -> Result<Self> {
        let key = signing_key(name);
        let socket = open(SocketAddr::from((address, 0)))?;
        let address = socket.local_addr()?;
        let state = Arc::new(State {
            knobs: Mutex::new(Knobs::default()),
            set: AtomicU64::new(0),
            in_force: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let mut service = Service { name: name.to_owned(), address, state: state.clone(), first: None };
        let thread = std::thread::Builder::new()
            .name("roughtime".to_owned())
            .spawn(move || service.run(Some(socket)))
            .context("cannot start a thread")?;
        Ok(Roughtime { address, key, state, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its long-term public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Sets all switches; when it returns, they are in force.
    pub fn set(&self, knobs: Knobs) -> Result<()> {
        *lock(&self.state.knobs) = knobs;
        let mine = self.state.set.fetch_add(1, SeqCst) + 1;
        let until = Instant::now() + Duration::from_secs(60);
        while self.state.in_force.load(SeqCst) < mine {
            ensure!(Instant::now() < until, "the Roughtime server at {} does not go on", self.address);
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Sets what it says, everything else as at the start.
    pub fn answer(&self, answer: Answer) -> Result<()> {
        self.set(Knobs { answer, ..Knobs::default() })
    }

    /// Questions that got here.
    pub fn asked(&self) -> u64 {
        self.state.asked.load(SeqCst)
    }
}

impl Drop for Roughtime {
    fn drop(&mut self) {
        self.state.stop.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            drop(thread.join());
        }
    }
}

struct Service {
    name: String,
    address: SocketAddr,
    state: Arc<State>,
    /// The first answer it has given.
    first: Option<Vec<u8>>,
}

impl Service {
    fn run(&mut self, mut socket: Option<UdpSocket>) {
        let mut buffer = [0; 2_048];
        while !self.state.stop.load(SeqCst) {
            let set = self.state.set.load(SeqCst);
            let knobs = *lock(&self.state.knobs);
            if knobs.transport == Transport::Down {
                socket = None;
            } else if socket.is_none() {
                socket = open(self.address).ok();
            }
            if socket.is_some() == (knobs.transport != Transport::Down) {
                self.state.in_force.store(set, SeqCst);
            }
            let Some(socket) = &socket else {
                std::thread::sleep(LOOK);
                continue;
            };
            let (length, from) = match socket.recv_from(&mut buffer) {
                Ok(came) => came,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                // Somebody whom it answered has gone.
                Err(_) => continue,
            };
            self.state.asked.fetch_add(1, SeqCst);
            // Set while it waited.
            let knobs = *lock(&self.state.knobs);
            if knobs.transport != Transport::Up {
                continue;
            }
            std::thread::sleep(Duration::from_millis(knobs.late_millis));
            if let Some(answer) = self.answer(&buffer[..length], &knobs) {
                // Whoever asked may have gone.
                drop(socket.send_to(&answer, from));
            }
        }
    }

    fn answer(&mut self, request: &[u8], knobs: &Knobs) -> Option<Vec<u8>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let genuine = reply(&self.name, request, knobs, now)?;
        let first = self.first.get_or_insert_with(|| genuine.clone());
        Some(match knobs.answer {
            Answer::Replay => first.clone(),
            Answer::Truncated => genuine[..genuine.len() / 2].to_vec(),
            Answer::Followed => [genuine.as_slice(), &[0; 4]].concat(),
            Answer::Garbage => Sha512::digest(&genuine).repeat(7),
            Answer::Huge => [genuine.as_slice(), &[0; 8_000]].concat(),
            _ => genuine,
        })
    }
}

/// What the server of this name answers at this time; `None` when the request is none.
pub fn reply(name: &str, request: &[u8], knobs: &Knobs, now: u64) -> Option<Vec<u8>> {
    let message = request.strip_prefix(MAGIC)?.get(4..)?;
    let nonce: [u8; 32] = value(message, b"NONC")?.try_into().ok()?;
    let offered: Vec<u32> = value(message, b"VER\0")?.chunks_exact(4).filter_map(number).collect();
    let version = if knobs.draft { DRAFT } else { VERSION };
    let version = offered.contains(&version).then_some(version)?;
    let stated = if knobs.answer == Answer::WrongVersion { 0x8000_000b } else { version };
    let word = if version == DRAFT { "RoughTime" } else { "Roughtime" };

    // Its question is the third of four that came together.
    let asked = match knobs.answer {
        Answer::OtherQuestion => [&request[..request.len() - 1], &[1]].concat(),
        _ => request.to_vec(),
    };
    let leaf = |bytes: &[u8]| hash(&[&[0], bytes]);
    let node = |left: &[u8; 32], right: &[u8; 32]| hash(&[&[1], left, right]);
    let [first, second, fourth] = [b"first", b"secnd", b"forth"].map(|one| leaf(one));
    let before = node(&first, &second);
    let root = node(&before, &node(&leaf(&asked), &fourth));
    let path = [fourth, before].concat();

    let midpoint = now.checked_add_signed(knobs.clock_offset_seconds)?;
    let online = signing_key(&format!("{name}, delegated"));
    let expired = knobs.answer == Answer::ExpiredDelegation;
    let until = if expired { midpoint - DAY } else { midpoint + DAY };
    let delegation = message_of(&[
        (b"PUBK", online.verifying_key().as_bytes()),
        (b"MINT", &(midpoint - 2 * DAY).to_le_bytes()),
        (b"MAXT", &until.to_le_bytes()),
    ]);
    let statement = message_of(&[
        (b"VER\0", &stated.to_le_bytes()),
        (b"RADI", &knobs.radius_seconds.to_le_bytes()),
        (b"MIDP", &midpoint.to_le_bytes()),
        (b"VERS", &version.to_le_bytes()),
        (b"ROOT", &root),
    ]);
    let signer = |right: SigningKey, wrong: bool| if wrong { signing_key("a stranger") } else { right };
    let long_term = signer(signing_key(name), knobs.answer == Answer::WrongKey);
    let online = signer(online, knobs.answer == Answer::WrongDelegate);
    let sign = |key: &SigningKey, what: &str, bytes: &[u8]| {
        key.sign(&[format!("{word} v1 {what} signature\0").as_bytes(), bytes].concat()).to_bytes()
    };
    let certificate =
        message_of(&[(b"SIG\0", &sign(&long_term, "delegation", &delegation)), (b"DELE", &delegation)]);
    let nonce = if knobs.answer == Answer::OtherNonce { [7; 32] } else { nonce };
    let message = message_of(&[
        (b"SIG\0", &sign(&online, "response", &statement)),
        (b"NONC", &nonce),
        (b"TYPE", &1u32.to_le_bytes()),
        (b"PATH", &path),
        (b"SREP", &statement),
        (b"CERT", &certificate),
        (b"INDX", &2u32.to_le_bytes()),
    ]);
    Some([MAGIC.as_slice(), &(message.len() as u32).to_le_bytes(), &message].concat())
}

/// A message: how many, where values end, tags in the order of their numbers, values.
fn message_of(fields: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut fields = fields.to_vec();
    fields.sort_by_key(|(tag, _)| u32::from_le_bytes(**tag));
    let mut bytes = (fields.len() as u32).to_le_bytes().to_vec();
    let mut offset = 0;
    for (_, value) in &fields[..fields.len() - 1] {
        offset += value.len() as u32;
        bytes.extend(offset.to_le_bytes());
    }
    fields.iter().for_each(|(tag, _)| bytes.extend(*tag));
    fields.iter().for_each(|(_, value)| bytes.extend(*value));
    bytes
}

/// The value of a tag in a message.
fn value<'a>(message: &'a [u8], wanted: &[u8; 4]) -> Option<&'a [u8]> {
    let count = number(message.get(..4)?)? as usize;
    let tags = message.get(4 * count..8 * count)?;
    let place = tags.chunks_exact(4).position(|tag| tag == wanted)?;
    let end_of = |place: usize| number(message.get(4 + 4 * place..8 + 4 * place)?);
    let from = if place == 0 { 0 } else { end_of(place - 1)? as usize };
    let values = message.get(8 * count..)?;
    let until = if place + 1 == count { values.len() } else { end_of(place)? as usize };
    values.get(from..until)
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut half = [0; 32];
    half.copy_from_slice(&Sha512::digest(parts.concat())[..32]);
    half
}

fn signing_key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&Sha256::digest(format!("a Roughtime server of tests\n{name}")).into())
}

/// The public key of the server of this name.
pub fn public_key(name: &str) -> [u8; 32] {
    signing_key(name).verifying_key().to_bytes()
}

fn open(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    socket.set_read_timeout(Some(LOOK))?;
    Ok(socket)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

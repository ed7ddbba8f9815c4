//! A neighbour that does as a test tells it: a genuine card, genuine keys, a log of its own, and any answer.
//!
//! It speaks over the wire that boxes speak over, so what it says arrives. What no such wire would send, `src/bin/rude.rs`
//! sends.

use anyhow::{Context, Result, ensure};
use bulla_formats::der::Octets32;
use bulla_formats::entry::{Entry, EntryContent, Kind, LocalTime, Mode, Residency, TreeState};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::{consistency_proof, root};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardContent, CardSignatures, PeerCard};
use bulla_formats::peer::message::{Answer, Asked, ConsistencySaid, Held, Hint, Question, RangeSaid, Said};
use bulla_formats::witness::{Role, cosigned};
use bulla_peers::{Config, Event, Limits, Neighbour, PeerKey, Wire};
use ed25519_dalek::{Signer as _, SigningKey};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events that wait for somebody.
const KEPT_MAX: usize = 4_096;

/// A log that its owner may write as it likes.
#[derive(Clone, Default)]
pub struct Pages {
    /// Entries, or what passes for them.
    pub entries: Vec<Vec<u8>>,
}

impl Pages {
    /// So many entries; another `history` is other entries.
    pub fn new(count: usize, history: &str) -> Result<Self> {
        let mut pages = Pages::default();
        (0..count).try_for_each(|_| pages.push(history, None))?;
        Ok(pages)
    }

    /// Appends an entry, perhaps with a Lamport time of its own.
    pub fn push(&mut self, history: &str, lamport: Option<u64>) -> Result<()> {
        let index = self.entries.len() as u64;
        let content = EntryContent {
            version: 1,
            index,
            lamport: lamport.unwrap_or(index + 1),
            time: LocalTime { unix_millis: 1_800_000_000_000 + index, uncertainty_millis: None },
            mode: Mode::Online,
            drill: false,
            epoch: 0,
            residency: Residency::Software,
            previous: TreeState::new(index, self.root(self.entries.len())),
            evidence: None,
            kind: Kind::SelfTest as u16,
            body: history.as_bytes().to_vec().into(),
        };
        self.entries.push(Entry::assemble(content, vec![0x5a; 64])?.bytes().to_vec());
        Ok(())
    }

    fn leaves(&self) -> Vec<Hash> {
        self.entries.iter().map(|entry| leaf_hash(entry)).collect()
    }

    /// Root of the first entries.
    pub fn root(&self, size: usize) -> Hash {
        root(size as u64, self.leaves().as_slice()).unwrap_or_else(|_| bulla_formats::hash::empty_root())
    }

    /// From one size to another.
    pub fn proof(&self, old: u64, new: u64) -> Vec<Octets32> {
        let proof = consistency_proof(old, new, self.leaves().as_slice()).unwrap_or_default();
        proof.into_iter().map(|hash| Octets32::new(hash.0)).collect()
    }
}

type Script = Box<dyn FnMut(&Asked) -> Option<Said> + Send>;

/// The neighbour.
pub struct Liar {
    log: SigningKey,
    witness: SigningKey,
    mirror: SigningKey,
    /// What operators of honest boxes are handed.
    pub card: PeerCard,
    wire: Wire,
    script: Arc<Mutex<Script>>,
    events: Receiver<Event>,
    /// Heard, and not waited for yet.
    kept: RefCell<VecDeque<Event>>,
    runtime: Runtime,
}

impl Liar {
    /// Listens on loopback, knows these boxes, and answers nothing until it is told what.
    pub fn start(number: u8, boxes: &[&PeerCard]) -> Result<Self> {
        let key = |purpose: u8| SigningKey::from_bytes(&sha256(&[b"liar", &[number, purpose]]).0);
        let (log, witness, mirror) = (key(0), key(1), key(2));
        // As `src/bin/rude.rs` makes it, so that it can go on where this one's manners end.
        let transport = SigningKey::from_bytes(&[number; 32]);
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        let public = |key: &SigningKey| Octets32::new(key.verifying_key().to_bytes());
        let content = CardContent {
            version: 1,
            origin: Origin::derive("demo.bulla.test", &sha256(&[&[number]]), 1)?.as_str().to_owned(),
            log_key: public(&log),
            witness_key: public(&witness),
            mirror_key: public(&mirror),
            transport_key: public(&transport),
            sequence: 1,
            addresses: vec![address.clone()],
        };
        let message = content.message();
        let signed = |key: &SigningKey| key.sign(&message).to_bytes().to_vec().into();
        let signatures = CardSignatures {
            log: signed(&log),
            witness: signed(&witness),
            mirror: signed(&mirror),
            transport: signed(&transport),
        };
        let card = PeerCard::assemble(content, signatures)?;
        let neighbour = |card: &&PeerCard| Neighbour {
            key: PeerKey::new(*card.transport_key()),
            addresses: card.content().addresses.clone(),
        };
        // Its own bounds are wide: what it sends is for the other side to bound.
        let limits = Limits { request_bytes_max: 16 << 20, answer_bytes_max: 64 << 20, ..Limits::default() };
        let config = Config {
            key: transport.to_bytes().into(),
            listen: vec![address],
            neighbours: boxes.iter().map(neighbour).collect(),
            mdns: false,
            limits,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (wire, mut heard) = runtime.block_on(Wire::start(config))?;
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(Box::new(|_| None)));
        let (sender, events) = channel();
        let answers = script.clone();
        runtime.spawn(async move {
            while let Some(event) = heard.recv().await {
                if let Event::Asked { bytes, reply, .. } = event {
                    let Ok(question) = Question::decode(&bytes) else { continue };
                    let said = answers.lock().ok().and_then(|mut script| script(&question.asked));
                    if let Some(said) = said {
                        // Whoever asked may have gone.
                        let _ = reply.answer(Answer::new(said).encode());
                    }
                } else if sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Liar { log, witness, mirror, card, wire, script, events, kept: RefCell::default(), runtime })
    }

    /// Name of its log.
    pub fn origin(&self) -> String {
        self.card.origin().as_str().to_owned()
    }

    /// What it answers from now on; nothing for `None`.
    pub fn answer(&self, script: impl FnMut(&Asked) -> Option<Said> + Send + 'static) {
        if let Ok(mut place) = self.script.lock() {
            *place = Box::new(script);
        }
    }

    /// A head of its log, signed.
    pub fn head(&self, size: u64, root: &Hash) -> SignedNote {
        let origin = self.origin();
        let text = checkpoint_text(&origin, size, root);
        let signature = self.log.sign(text.as_bytes()).to_bytes();
        let line = log_line(&origin, &self.log.verifying_key().to_bytes(), &signature);
        SignedNote { text, lines: vec![line] }
    }

    /// The head of all pages.
    pub fn head_of(&self, pages: &Pages) -> SignedNote {
        self.head(pages.entries.len() as u64, &pages.root(pages.entries.len()))
    }

    /// Answers as an honest box does that has these pages, and takes what is handed over.
    pub fn answer_honestly(&self, pages: &Pages) {
        let (origin, head) = (self.origin(), self.head_of(pages).encode());
        let pages = pages.clone();
        self.answer(move |asked| honest(asked, &origin, &pages, &head));
    }

    /// A cosignature of its own, as it would be handed over.
    pub fn cosign(&self, text: &str, role: Role) -> SignedNote {
        let key = if role == Role::Witness { &self.witness } else { &self.mirror };
        let signature = key.sign(&cosigned(text, 1_800_000_000)).to_bytes();
        let line = self.card.cosigner(role).line(1_800_000_000, &signature);
        SignedNote { text: text.to_owned(), lines: vec![line] }
    }

    /// Tells everybody.
    pub fn hint(&self, head: &SignedNote) -> Result<()> {
        self.publish(Hint::head(head).encode())
    }

    /// The same, of any bytes.
    pub fn publish(&self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.wire.publish(bytes)?)
    }

    /// Puts a question and does not care what comes of it. `false`: too many are under way.
    pub fn ask_blindly(&self, of: &PeerCard, bytes: Vec<u8>) -> bool {
        self.wire.ask(PeerKey::new(*of.transport_key()), bytes).is_ok()
    }

    /// Asks a box, and waits for the answer.
    pub fn ask(&self, of: &PeerCard, asked: Asked) -> Result<Said> {
        let id = self.wire.ask(PeerKey::new(*of.transport_key()), Question::new(asked).encode())?;
        let bytes = self.wait("an answer", |event| match event {
            Event::Answered { id: answered, result, .. } if *answered == id => Some(result.clone()),
            _ => None,
        })??;
        Ok(Answer::decode(&bytes)?.said)
    }

    /// Waits until this box has let it in.
    pub fn connected(&self, to: &PeerCard) -> Result<()> {
        let key = PeerKey::new(*to.transport_key());
        self.wait("a connection", |event| {
            matches!(event, Event::Connected { peer } if *peer == key).then_some(())
        })
    }

    /// Waits until this box has thrown it out.
    pub fn disconnected(&self, from: &PeerCard) -> Result<()> {
        let key = PeerKey::new(*from.transport_key());
        self.wait("the end of a connection", |event| {
            matches!(event, Event::Disconnected { peer, .. } if *peer == key).then_some(())
        })
    }

    /// Whether it hears a hint within this time.
    pub fn hears_hints(&self, within: Duration) -> bool {
        self.kept.borrow_mut().clear();
        let end = Instant::now() + within;
        while let Ok(event) = self.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if matches!(event, Event::Hint { .. }) {
                return true;
            }
        }
        false
    }

    fn wait<T>(&self, what: &str, fits: impl Fn(&Event) -> Option<T>) -> Result<T> {
        let (end, mut kept) = (Instant::now() + PATIENCE, self.kept.borrow_mut());
        if let Some((at, found)) = kept.iter().enumerate().find_map(|(at, event)| Some((at, fits(event)?))) {
            kept.remove(at);
            return Ok(found);
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "{what} does not come");
            let event = self.events.recv_timeout(left).with_context(|| format!("{what} does not come"))?;
            match fits(&event) {
                Some(found) => return Ok(found),
                // What floods the other side comes back as answers and refusals that nobody waits for.
                None if kept.len() < KEPT_MAX => kept.push_back(event),
                None => {}
            }
        }
    }

    /// Says good-bye.
    pub fn stop(self) {
        let Liar { wire, runtime, .. } = self;
        runtime.block_on(wire.stop());
    }
}

/// What an honest box answers that has these pages under this head.
pub fn honest(asked: &Asked, origin: &str, pages: &Pages, head: &str) -> Option<Said> {
    let size = pages.entries.len() as u64;
    Some(match asked {
        Asked::Heads(_) => Said::Heads(vec![Held {
            origin: origin.to_owned(),
            head: head.to_owned(),
            entries: size,
            frozen: false,
        }]),
        Asked::Range(asked) if asked.origin == origin && asked.from < size => {
            let end = asked.to.min(size);
            let entries = &pages.entries[usize::try_from(asked.from).ok()?..usize::try_from(end).ok()?];
            Said::Range(RangeSaid {
                origin: origin.to_owned(),
                from: asked.from,
                entries: entries.iter().map(|entry| entry.clone().into()).collect(),
                proof: if end == size { Vec::new() } else { pages.proof(end, size) },
                head: head.to_owned(),
            })
        }
        Asked::Consistency(asked) if asked.origin == origin && asked.old <= size => {
            Said::Consistency(ConsistencySaid {
                origin: origin.to_owned(),
                old: asked.old,
                root: Octets32::new(pages.root(usize::try_from(asked.old).ok()?).0),
                proof: if asked.old == size { Vec::new() } else { pages.proof(asked.old, size) },
                head: head.to_owned(),
            })
        }
        Asked::Cosigned(_) | Asked::Fork(_) => Said::Taken(()),
        _ => return None,
    })
}

//! Roughtime servers as the box asks them: one datagram out, one back, the time in it read to the clock's keeper.
//!
//! `bulla_protocol::sources` decides when, `bulla_protocol::time` what an answer is worth beside others. What a server
//! says is nobody's evidence: it anchors nothing, counts for no mode, and is in no `.seal`.
//! Refuses to do: hold up anything (a question is a task of its own, a name that hangs included); believe an answer that
//! `bulla_roughtime` does not; read more than a datagram, or the datagrams of others.
//! Invariant: every question that was begun ends, within its timeout.

use super::Message;
use super::desk::Desk;
use super::http::{Trouble, no_connection};
use crate::config::{RoughtimeConfig, TimeSourcesConfig};
use crate::driver::clock::{boottime_millis, now_millis};
use anyhow::Context as _;
use bulla_protocol::authority::Failure;
use bulla_protocol::sources::SourcePlanner;
use bulla_protocol::time::{Bounds, TimeEvent};
use bulla_roughtime::{ANSWER_BYTES_MAX, Answer, Question, ServerKey};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use tokio::net::{UdpSocket, lookup_host};

/// Datagrams that are read for one question.
const DATAGRAMS_MAX: u32 = 8;

/// How it goes with one server.
#[derive(Debug, Clone, Default)]
pub struct SourceFacts {
    /// Its name.
    pub name: String,
    /// Who runs it.
    pub operator: String,
    /// Questions asked.
    pub asked: u64,
    /// Answers that hold.
    pub answers: u64,
    /// Questions that failed, by how.
    pub failures: BTreeMap<&'static str, u64>,
    /// Answers that no true time fits which was thought possible before.
    pub contradictions: u64,
    /// Why the last question failed; `None` while it did not.
    pub failing: Option<String>,
    /// The last answer that holds.
    pub last: Option<LastAnswer>,
}

/// An answer that holds.
#[derive(Debug, Clone, Copy)]
pub struct LastAnswer {
    /// When it came, by the steady clock.
    at: u64,
    /// What it says.
    pub said: Answer,
    /// Its time less what the wall clock showed when it came, milliseconds.
    pub ahead_millis: i64,
    /// How long it was on its way, with the question, milliseconds.
    pub took_millis: u64,
    /// Whether it contradicted what was known.
    pub contradicted: bool,
}

impl LastAnswer {
    /// How long ago it came, milliseconds.
    pub fn ago_millis(&self) -> u64 {
        boottime_millis().saturating_sub(self.at)
    }
}

/// The servers, and how it goes with them.
pub(super) struct Sources {
    planner: SourcePlanner,
    servers: Vec<Server>,
    pub(super) facts: Vec<SourceFacts>,
}

#[derive(Clone)]
struct Server {
    host: String,
    port: u16,
    key: ServerKey,
    timeout: Duration,
}

impl Sources {
    /// Those of a configuration that has been checked; nobody is asked yet.
    ///
    /// # Errors
    /// A server without address or key, which the check does not let through.
    pub(super) fn new(config: &TimeSourcesConfig) -> anyhow::Result<Self> {
        let server = |server: &RoughtimeConfig| {
            let (host, port) = server.place().context("a Roughtime server has no address")?;
            let key = server.key().context("a Roughtime server has no key")?;
            let timeout = Duration::from_secs(server.timeout_seconds);
            anyhow::Ok(Server { host: host.to_owned(), port, key, timeout })
        };
        let facts = |server: &RoughtimeConfig| SourceFacts {
            name: server.name.clone(),
            operator: server.operator.clone(),
            ..SourceFacts::default()
        };
        let count = config.roughtime.len();
        Ok(Sources {
            planner: SourcePlanner::new(config.policy(), count, boottime_millis(), random()),
            servers: config.roughtime.iter().map(server).collect::<Result<_, _>>()?,
            facts: config.roughtime.iter().map(facts).collect(),
        })
    }
}

impl Desk {
    fn is_time_known(&self) -> bool {
        self.shared.clock.limits().1.is_some()
    }

    /// When a server is to be asked next.
    pub(super) fn next_source(&self) -> Option<u64> {
        self.sources.planner.next_wakeup(self.is_time_known())
    }

    /// Asks whoever is due.
    pub(super) fn ask_sources(&mut self) {
        let known = self.is_time_known();
        for source in self.sources.planner.poll(known, boottime_millis()) {
            self.sources.facts[source].asked += 1;
            let (server, handle) = (self.sources.servers[source].clone(), self.handle.clone());
            self.runtime.spawn(async move {
                let sent = boottime_millis();
                let result = server.ask().await;
                handle.tell(Message::Told { source, result, sent });
            });
        }
    }

    /// A question to a server has ended.
    pub(super) fn told(&mut self, source: usize, result: Result<(Answer, u64), Trouble>, sent: u64) {
        let now = boottime_millis();
        self.sources.planner.ended(source, result.is_ok(), now, random());
        let (floor, ceiling) = self.shared.clock.limits();
        let facts = &mut self.sources.facts[source];
        let (answer, sent) = match result {
            Ok((answer, left)) => (answer, left.max(sent)),
            Err(trouble) => {
                *facts.failures.entry(trouble.failure.name()).or_default() += 1;
                if facts.failing.is_none() {
                    log::warn!("Roughtime server {} cannot be used: {}", facts.name, trouble.detail);
                }
                facts.failing = Some(trouble.detail);
                return;
            }
        };
        if facts.failing.take().is_some() {
            log::info!("Roughtime server {} answers again", facts.name);
        }
        let (lo, hi) = answer.bounds_millis();
        let took_millis = now.saturating_sub(sent);
        let late = hi.saturating_add(took_millis);
        let contradicted = floor.is_some_and(|floor| late < floor) || ceiling.is_some_and(|most| lo > most);
        facts.answers += 1;
        facts.contradictions += u64::from(contradicted);
        let said_millis = i64::try_from(answer.midpoint.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let wall = i64::try_from(now_millis()).unwrap_or(i64::MAX);
        let ahead_millis = said_millis.saturating_sub(wall);
        facts.last = Some(LastAnswer { at: now, said: answer, ahead_millis, took_millis, contradicted });
        self.speaker = format!("Roughtime server {}", facts.name);
        self.time(TimeEvent::Reading { bounds: Bounds { lo, hi }, sent });
    }
}

impl Server {
    /// Its answer, and when the question left by the steady clock.
    async fn ask(&self) -> Result<(Answer, u64), Trouble> {
        // What a timeout means depends on what came before it.
        let seconds = self.timeout.as_secs();
        let unresolved = format!("its name was not resolved within {seconds} s");
        let trouble = Mutex::new(Trouble::new(Failure::Dns, unresolved));
        let set = |next| *trouble.lock().unwrap_or_else(PoisonError::into_inner) = next;
        let asked = async {
            let addresses = lookup_host((self.host.as_str(), self.port)).await;
            let mut addresses =
                addresses.map_err(|error| Trouble::new(Failure::Dns, format!("{}: {error}", self.host)))?;
            let address = addresses
                .next()
                .ok_or_else(|| Trouble::new(Failure::Dns, format!("{} has no address", self.host)))?;
            set(Trouble::new(Failure::Timeout, format!("no answer came within {seconds} s")));
            self.exchange(address, set).await
        };
        match tokio::time::timeout(self.timeout, asked).await {
            Ok(result) => result,
            Err(_) => Err(trouble.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    /// Sends a question and reads until its answer is there. What is none may be somebody else's, sent in the server's
    /// name to be there first: `set` hears of it, and the answer is waited for all the same.
    async fn exchange(&self, address: SocketAddr, set: impl Fn(Trouble)) -> Result<(Answer, u64), Trouble> {
        let away = |error: std::io::Error| Trouble::new(no_connection(&error), format!("{address}: {error}"));
        let own: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own).await.map_err(away)?;
        // From here on the kernel hands over what comes from there, and nothing else.
        socket.connect(address).await.map_err(away)?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce)
            .map_err(|error| Trouble::new(Failure::Other, format!("no randomness: {error}")))?;
        let question = Question::new(self.key, nonce)
            .map_err(|refusal| Trouble::new(Failure::Other, refusal.to_string()))?;
        let left = boottime_millis();
        socket.send(question.bytes()).await.map_err(away)?;
        // One byte more than an answer may have shows that there were more.
        let mut datagram = [0; ANSWER_BYTES_MAX + 1];
        let mut refused = 0;
        loop {
            let length = socket.recv(&mut datagram).await.map_err(away)?;
            let refusal = match question.read(&datagram[..length]) {
                Ok(answer) => return Ok((answer, left)),
                Err(refusal) => refusal,
            };
            let trouble = Trouble::of_answer(Failure::BadAnswer, format!("{}: {refusal}", refusal.code()));
            refused += 1;
            if refused == DATAGRAMS_MAX {
                return Err(trouble);
            }
            set(trouble);
        }
    }
}

/// Without randomness questions are not spread; that is all.
fn random() -> u64 {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    u64::from_ne_bytes(random)
}

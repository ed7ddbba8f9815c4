//! Submissions over HTTP: checked in the order of the specification, remembered, cosigned, and answered as the
//! switches say.

use super::knobs::{Answer, Counters, Knobs};
use super::notes::{self, Submission, line, verifier_key};
use crate::faults::{Window, huge, lock, portal, redirect, stalled, unavailable};
use crate::gate::{Body, Gate, Handler, answer, body_of, says};
use anyhow::Result;
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tlog_tiles::Hash;

const REQUEST_BYTES_MAX: usize = 65_536;
/// Signature type of a timestamped Ed25519 cosignature.
const COSIGNATURE: u8 = 0x04;
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) struct Service {
    name: String,
    key: SigningKey,
    logs: Mutex<BTreeMap<String, VerifyingKey>>,
    /// What was cosigned last, by origin: checked and changed under one lock.
    memory: Mutex<BTreeMap<String, Seen>>,
    knobs: Mutex<Knobs>,
    counters: Mutex<Counters>,
    window: Window,
    gate: OnceLock<Gate>,
}

struct Seen {
    size: u64,
    root: Hash,
    /// The checkpoint's text, and the lines below it.
    note: String,
}

impl Service {
    pub fn start(name: &str, key: SigningKey, address: SocketAddr) -> Result<Arc<Self>> {
        let service = Arc::new(Service {
            name: name.to_owned(),
            key,
            logs: Mutex::default(),
            memory: Mutex::default(),
            knobs: Mutex::default(),
            counters: Mutex::default(),
            window: Window::default(),
            gate: OnceLock::new(),
        });
        let own = service.clone();
        let handler: Handler = Arc::new(move |request| Box::pin(own.clone().handle(request)));
        let gate = Gate::open(address, handler)?;
        service.gate.get_or_init(|| gate);
        Ok(service)
    }

    fn gate(&self) -> &Gate {
        self.gate.get().expect("it is set before the service is handed out")
    }

    pub fn address(&self) -> SocketAddr {
        self.gate().address()
    }

    pub fn key(&self) -> String {
        verifier_key(&self.name, COSIGNATURE, self.key.verifying_key().as_bytes())
    }

    pub fn know(&self, log: &str) -> Result<()> {
        let (name, key) = notes::log_key(log)?;
        lock(&self.logs).insert(name, key);
        Ok(())
    }

    pub async fn set(&self, knobs: Knobs) -> Result<()> {
        let before = lock(&self.knobs).clone();
        if before.quota != knobs.quota {
            self.window.reset();
        }
        let transport = knobs.transport;
        *lock(&self.knobs) = knobs;
        if before.transport != transport { self.gate().set(transport).await } else { Ok(()) }
    }

    pub fn forget(&self) {
        lock(&self.memory).clear();
    }

    pub fn size(&self, origin: &str) -> Option<u64> {
        lock(&self.memory).get(origin).map(|seen| seen.size)
    }

    pub fn counters(&self) -> Counters {
        Counters { connections: self.gate().connections(), ..*lock(&self.counters) }
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match (request.method().as_str(), request.uri().path()) {
            ("POST", "/add-checkpoint") => self.add_checkpoint(request).await,
            ("GET", path) => {
                let asked = path.strip_prefix('/').and_then(|path| path.strip_suffix("/checkpoint"));
                let memory = lock(&self.memory);
                let hashed = |origin: &str| hex::encode(Sha256::digest(origin));
                match memory.iter().find(|(origin, _)| asked == Some(&hashed(origin))) {
                    Some((_, seen)) => answer(StatusCode::OK, TEXT, seen.note.clone()),
                    None => says(StatusCode::NOT_FOUND, "nothing cosigned"),
                }
            }
            _ => says(StatusCode::METHOD_NOT_ALLOWED, "checkpoints are posted to /add-checkpoint"),
        }
    }

    async fn add_checkpoint(&self, request: Request<Incoming>) -> Response<Body> {
        let knobs = lock(&self.knobs).clone();
        lock(&self.counters).requests += 1;
        if let Some(refusal) = knobs.quota.and_then(|quota| self.window.take(quota)) {
            lock(&self.counters).beyond_quota += 1;
            return refusal;
        }
        tokio::time::sleep(Duration::from_millis(knobs.delay_millis)).await;
        match knobs.answer {
            Answer::Unavailable => return unavailable(),
            Answer::CaptivePortal => return portal(),
            Answer::Redirect => return redirect(),
            Answer::Huge => return huge(TEXT),
            Answer::Stalled => return stalled(TEXT),
            Answer::FalseSize => return answer(StatusCode::CONFLICT, "text/x.tlog.size", "4242424242\n"),
            _ => {}
        }
        let Some(body) = body_of(request, REQUEST_BYTES_MAX).await else {
            return says(StatusCode::PAYLOAD_TOO_LARGE, "a request has at most 65536 bytes");
        };
        let submission = std::str::from_utf8(&body).map_err(anyhow::Error::from).and_then(Submission::read);
        match submission {
            Ok(submission) => self.judge(&submission, &knobs),
            Err(error) => says(StatusCode::BAD_REQUEST, format!("{error:#}")),
        }
    }

    fn judge(&self, said: &Submission, knobs: &Knobs) -> Response<Body> {
        let Some(log) = lock(&self.logs).get(&said.origin).copied() else {
            return says(StatusCode::NOT_FOUND, "this log is not known here");
        };
        if !said.is_signed_by(&log) {
            return says(StatusCode::FORBIDDEN, "the log's key has not signed this");
        }
        if said.old > said.size {
            return says(StatusCode::BAD_REQUEST, "a log does not shrink");
        }
        let mut memory = lock(&self.memory);
        let seen = memory.get(&said.origin);
        let size = seen.map_or(0, |seen| seen.size);
        if said.old != size {
            lock(&self.counters).conflicts += 1;
            return answer(StatusCode::CONFLICT, "text/x.tlog.size", format!("{size}\n"));
        }
        let empty = || said.size > 0 || said.root.0[..] == Sha256::digest("")[..];
        let consistent = match seen {
            _ if said.old == 0 => said.proof.is_empty() && empty(),
            Some(seen) if said.old == said.size => said.proof.is_empty() && said.root == seen.root,
            Some(seen) => {
                tlog_tiles::check_tree(&said.proof, said.size, said.root, said.old, seen.root).is_ok()
            }
            None => false,
        };
        if !consistent {
            lock(&self.counters).inconsistencies += 1;
            return says(StatusCode::UNPROCESSABLE_ENTITY, "this is not an extension of what was cosigned");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let cosigned = self.cosign(&said.text, now.saturating_add_signed(knobs.clock_offset_seconds));
        let note = format!("{}\n{cosigned}", said.text);
        memory.insert(said.origin.clone(), Seen { size: said.size, root: said.root, note });
        lock(&self.counters).cosignatures += 1;
        answer(StatusCode::OK, TEXT, self.answered(knobs.answer, cosigned, now))
    }

    fn cosign(&self, text: &str, seconds: u64) -> String {
        let signature = self.key.sign(format!("cosignature/v1\ntime {seconds}\n{text}").as_bytes());
        self.own(&[&seconds.to_be_bytes()[..], &signature.to_bytes()].concat())
    }

    fn own(&self, body: &[u8]) -> String {
        let id = notes::key_id(&self.name, COSIGNATURE, self.key.verifying_key().as_bytes());
        line(&self.name, id, body)
    }

    fn answered(&self, answer: Answer, cosigned: String, now: u64) -> String {
        let other = line("witness.example/other", [1, 2, 3, 4], &[7; 72]);
        // As long as ML-DSA-44 has it, under this witness's own name.
        let new = line(&self.name, [5, 6, 7, 8], &[9; 8 + 2420]);
        match answer {
            Answer::Crowd => format!("{new}{other}{cosigned}{other}"),
            Answer::Strangers => format!("{new}{other}"),
            Answer::Damaged => self.own(&[&now.to_be_bytes()[..], &[0x11; 64]].concat()),
            Answer::OtherCheckpoint => self.cosign("other.example/log\n1\nAAAA\n", now),
            _ => cosigned,
        }
    }
}

/// The port of the switches.
pub(super) fn switches(service: Arc<Service>) -> Handler {
    Arc::new(move |request| Box::pin(switch(service.clone(), request)))
}

async fn switch(service: Arc<Service>, request: Request<Incoming>) -> Response<Body> {
    let json = |value: serde_json::Result<Vec<u8>>| match value {
        Ok(body) => answer(StatusCode::OK, "application/json", body),
        Err(error) => says(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let done = |outcome: Result<()>| match outcome {
        Ok(()) => says(StatusCode::OK, "done"),
        Err(error) => says(StatusCode::BAD_REQUEST, format!("{error:#}")),
    };
    match (request.method().as_str(), request.uri().path()) {
        ("GET", "/knobs") => json(serde_json::to_vec(&*lock(&service.knobs))),
        ("GET", "/counters") => json(serde_json::to_vec(&service.counters())),
        ("DELETE", "/memory") => {
            service.forget();
            done(Ok(()))
        }
        ("POST", "/logs") => {
            let body = body_of(request, REQUEST_BYTES_MAX).await.unwrap_or_default();
            done(service.know(&String::from_utf8_lossy(&body)))
        }
        ("PUT", "/knobs") => {
            let body = body_of(request, REQUEST_BYTES_MAX).await.unwrap_or_default();
            match serde_json::from_slice::<Knobs>(&body) {
                Err(error) => done(Err(error.into())),
                Ok(knobs) => done(service.set(knobs).await),
            }
        }
        _ => says(StatusCode::NOT_FOUND, "there are /knobs, /counters, /logs and /memory"),
    }
}

//! A box in the test's own process: real TLS, real seals from an in-memory log, one request per connection.
//!
//! It does what the program relies on and can be told to misbehave; what the real box does is tested with the real box.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use crate::common::{Log, digest};
use bulla_formats::body::seal::{DocumentDigest, Observation, SealBody};
use bulla_formats::der;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::json::base64_encode;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What a stand-in does wrong with the next POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// 503 with Retry-After: 0.
    Busy,
    /// Hangs up before reading the document.
    HangUp,
    /// Seals, and hangs up instead of answering.
    LoseAnswer,
    /// Answers with the seal of other bytes.
    OtherSeal,
    /// Says that the bytes are not the announced ones.
    Mismatch,
    /// An HTML page, as from a captive portal.
    Portal,
}

pub struct Request {
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }
}

pub struct State {
    pub log: Log,
    pub faults: VecDeque<Fault>,
    pub requests: Vec<Request>,
    /// Whether `.seal` files of the GET route carry a quote.
    pub attested: bool,
    /// Whether those files carry a checkpoint that does not verify.
    pub damaged: bool,
    keys: HashMap<String, u64>,
}

pub struct StandIn {
    pub url: String,
    pub ca: String,
    pub state: Arc<Mutex<State>>,
}

pub const TOKEN: &str = "bulla_standin";

impl StandIn {
    /// Listens on a free port of localhost until the test process ends.
    pub fn start() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "stand-in CA");
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        let certificate = certificate.signed_by(&key, &Issuer::new(params, ca_key)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let state = Arc::new(Mutex::new(State {
            log: Log::new(Hardware::Tpm, 9),
            faults: VecDeque::new(),
            requests: Vec::new(),
            attested: false,
            damaged: false,
            keys: HashMap::new(),
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, state) = (Arc::clone(&config), Arc::clone(&shared));
                std::thread::spawn(move || serve(stream, config, &state));
            }
        });
        StandIn { url, ca, state }
    }
}

impl State {
    /// How many seals were asked for and made.
    #[allow(dead_code, reason = "not every test that has a box counts")]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// What a search by digest finds.
    fn seals_of(&self, digest: &str) -> Vec<Value> {
        let row = |entry: &Entry| {
            let body = SealBody::decode(&entry.content().body).ok()?;
            let (index, leaf) = (entry.content().index, entry.leaf_hash().to_string());
            let found = json!({"id": format!("{index}-{}", &leaf[..16]), "leafHash": leaf, "openings": [{"name": "filename"}]});
            (hex::encode(&body.digest) == digest).then_some(found)
        };
        self.log.entries.iter().filter_map(row).collect()
    }
}

/// One request; a peer that goes away or refuses the certificate ends it.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, state: &Mutex<State>) -> Option<()> {
    let connection = ServerConnection::new(config).unwrap();
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut request = Request { target, headers: Vec::new(), body: Vec::new() };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let fault = if method == "POST" { state.lock().unwrap().faults.pop_front() } else { None };
    if fault == Some(Fault::HangUp) {
        return None;
    }
    let length: usize = request.header("content-length").first().map_or(0, |text| text.parse().unwrap());
    let early = answer_early(&request, fault);
    if early.is_none() {
        if !request.header("expect").is_empty() {
            stream.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        request.body = vec![0; length];
        stream.read_exact(&mut request.body).ok()?;
    }
    let (status, body) = early.unwrap_or_else(|| {
        let mut state = state.lock().unwrap();
        let answer = if method == "POST" { post(&mut state, &request, fault) } else { get(&state, &request) };
        state.requests.push(request);
        answer
    });
    if fault == Some(Fault::LoseAnswer) {
        return None;
    }
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nretry-after: 0\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.get_mut().write_all(head.as_bytes()).ok()?;
    stream.get_mut().write_all(body.as_bytes()).ok()?;
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush().ok()
}

fn problem(status: u16, slug: &str) -> (u16, String) {
    (status, json!({"type": format!("urn:bulla:problem:{slug}"), "title": slug, "detail": slug}).to_string())
}

/// Answers given before the document is read.
fn answer_early(request: &Request, fault: Option<Fault>) -> Option<(u16, String)> {
    if request.header("authorization") != [format!("Bearer {TOKEN}")] {
        return Some(problem(401, "unauthenticated"));
    }
    match fault? {
        Fault::Busy => Some(problem(503, "overloaded")),
        Fault::Mismatch => Some(problem(400, "digest-mismatch")),
        Fault::Portal => Some((200, "<html>please log in</html>".into())),
        _ => None,
    }
}

fn post(state: &mut State, request: &Request, fault: Option<Fault>) -> (u16, String) {
    let key = request.header("idempotency-key")[0].to_owned();
    let known = state.keys.get(&key).copied();
    let index = match known {
        Some(index) => index,
        None => {
            let (document, observation) = document(request);
            let (mut body, openings) = state.log.seal_body(&document);
            body.observation = observation;
            let content = state.log.content(Kind::Seal as u16, der::encode(&body));
            let index = state.log.append(content);
            state.log.openings[usize::try_from(index).unwrap()] = openings;
            state.keys.insert(key, index);
            index
        }
    };
    let shown = if fault == Some(Fault::OtherSeal) { state.log.seal(b"other bytes") } else { index };
    let entry = &state.log.entries[usize::try_from(shown).unwrap()];
    let receipt = json!({
        "id": format!("{shown}-{}", &entry.leaf_hash().to_string()[..16]),
        "leafHash": entry.leaf_hash().to_string(),
        "facts": ["sealed"],
        "replayed": known.is_some(),
        "earlier": [],
        "seal": state.log.seal_file(shown, false).to_value(),
    });
    (if known.is_some() { 200 } else { 201 }, receipt.to_string())
}

fn document(request: &Request) -> (DocumentDigest, Observation) {
    if request.header("content-type") == ["application/vnd.bulla.digest+json"] {
        let claim: Value = serde_json::from_slice(&request.body).unwrap();
        let mut claimed = digest(b"");
        hex::decode_to_slice(claim["digest"].as_str().unwrap(), &mut claimed.value).unwrap();
        claimed.size = claim["size"].as_u64();
        return (claimed, Observation::DigestClaimed);
    }
    let found = digest(&request.body);
    assert_eq!(request.header("content-digest"), [format!("sha-256=:{}:", base64_encode(&found.value))]);
    (found, Observation::BytesObserved)
}

fn get(state: &State, request: &Request) -> (u16, String) {
    if request.target == "/v1/status" {
        let status =
            json!({"condition": "sealing", "size": state.log.size(), "startedMillis": 1_795_219_200_123u64});
        return (200, status.to_string());
    }
    if let Some(digest) = request.target.strip_prefix("/v1/seals?digest=sha-256:") {
        return (200, json!({"seals": state.seals_of(digest)}).to_string());
    }
    let id = request.target.strip_prefix("/v1/seals/").and_then(|rest| rest.strip_suffix("/seal-file"));
    let index = id.and_then(|id| id.split_once('-')).and_then(|(index, _)| index.parse::<u64>().ok());
    match index.filter(|index| *index < state.log.size()) {
        None => problem(404, "unknown-seal"),
        Some(index) => {
            let mut file = state.log.seal_file(index, state.attested);
            if state.damaged {
                file.heads[0].entry_proof.iter_mut().for_each(|hash| hash[0] ^= 1);
            }
            (200, file.encode())
        }
    }
}

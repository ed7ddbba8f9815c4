//! The hub's witness before logs that lie: two trees of one size, another history than the archived one, and two hubs that
//! are shown two histories.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::enrolment::Hardware;
use bulla_formats::note::SignedNote;
use bulla_formats::witness::add_checkpoint::request;
use common::Log;
use serde_json::Value;
use standin::{Served, StandIn, TestHub, grow};
use std::net::TcpListener;
use std::process::Child;
use std::time::{Duration, Instant};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const PATIENCE: Duration = Duration::from_secs(60);

/// Two logs of one key that are the same up to their 60th seal, and long enough to be compared beyond it.
fn histories() -> (Log, Log) {
    let log = |then: u64| {
        let mut log = Log::new(Hardware::Tpm, 1);
        grow(&mut log, 0, 60);
        grow(&mut log, then, then + 40);
        log
    };
    (log(60), log(1_060))
}

/// A hub that serves what a stand-in tells it.
struct Serving {
    hub: TestHub,
    url: String,
    agent: Agent,
    key: String,
    child: Child,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(name: &str, log: &Log, standin: &StandIn) -> Serving {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let pull = format!(
        "every_seconds = 1\n[serve]\nlisten = \"127.0.0.1:{port}\"\nname = {name:?}\nnames = [\"127.0.0.1\"]\n\
         requests_per_second = 1000\n"
    );
    let hub = TestHub::with(&[("a", log, &[(standin, false)])], &pull);
    let keys = hub.lines(&["keys"]).1;
    let pem = std::fs::read(keys[0]["certificate"].as_str().unwrap()).unwrap();
    let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&pem).unwrap()]);
    let tls = TlsConfig::builder().root_certs(roots).build();
    let agent =
        Agent::config_builder().tls_config(tls).http_status_as_error(false).proxy(None).build().new_agent();
    let child = hub.start(&["serve"]);
    let key = keys[0]["log"].as_str().unwrap().to_owned();
    Serving { hub, url: format!("https://127.0.0.1:{port}"), agent, key, child }
}

impl Serving {
    fn post(&self, old: u64, note: &str) -> u16 {
        let body = request(old, &[], &SignedNote::parse(note).unwrap()).unwrap();
        self.agent
            .post(format!("{}/add-checkpoint", self.url))
            .send(body)
            .map_or(0, |answer| answer.status().as_u16())
    }

    /// Heads in its own log.
    fn published(&self) -> u64 {
        let Ok(mut answer) = self.agent.get(format!("{}/heads/checkpoint", self.url)).call() else {
            return 0;
        };
        let note = answer.body_mut().read_to_string().unwrap();
        note.lines().nth(1).and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    fn kinds(&self) -> Vec<String> {
        let (_, found) = self.hub.lines(&["findings"]);
        found.iter().map(|line| line["kind"].as_str().unwrap().to_owned()).collect()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn g9_a_log_that_shows_the_witness_another_history_than_the_archive_is_found_out() {
    let (a, b) = histories();
    let standin = StandIn::start();
    standin.serve(Served::upto(&a, 130));
    let serving = serve("hub.example/north", &a, &standin);
    until("the log is archived", || serving.post(7, &a.head(0, 130, false).checkpoint) == 409);
    // Of the archived size another tree: never.
    assert_eq!(serving.post(0, &b.head(0, 130, false).checkpoint), 422);
    // Beyond it the witness cannot know, and cosigns what it is shown first.
    assert_eq!(serving.post(0, &b.head(0, 140, false).checkpoint), 200);
    assert_eq!(serving.post(140, &a.head(0, 140, false).checkpoint), 422);
    assert_eq!(serving.post(140, &b.head(0, 140, false).checkpoint), 200);
    // The archive grows past it: the log's own key has signed both.
    standin.serve(Served::upto(&a, 150));
    until("the fork is found", || serving.kinds().contains(&"fork".to_owned()));
    let (_, found) = serving.hub.lines(&["findings"]);
    let fork = found.iter().find(|line| line["kind"] == "fork").unwrap();
    assert!(fork["detail"].as_str().unwrap().contains("another history"), "{fork}");
    let evidence: Vec<&Value> = fork["evidence"].as_array().unwrap().iter().collect();
    assert_eq!(evidence.len(), 3, "{fork}");
    until("it is cosigned no more", || serving.post(140, &b.head(0, 140, false).checkpoint) == 404);
    for piece in evidence {
        assert!(serving.hub.path("archive").join(piece.as_str().unwrap()).exists(), "{piece}");
    }
}

#[test]
fn g9_two_hubs_that_were_shown_two_histories_find_it_in_each_others_logs() {
    let (a, b) = histories();
    let (one, two) = (StandIn::start(), StandIn::start());
    one.serve(Served::upto(&a, 140));
    two.serve(Served::upto(&b, 140));
    let (north, south) = (serve("hub.example/north", &a, &one), serve("hub.example/south", &b, &two));
    until("both have archived it", || north.published() > 0 && south.published() > 0);
    let certificate = south.hub.path("state/hub-tls.pem");
    let url = format!("{}/heads", south.url);
    let compare = ["compare-heads", &url, "--ca", certificate.to_str().unwrap(), "--key", &south.key];
    let (code, said) = north.hub.lines(&compare);
    assert_eq!(code, 1, "{said:?}");
    let shown = said.iter().find(|line| line["notes"].is_array()).unwrap();
    assert_eq!((&shown["size"], &shown["signed"]), (&140.into(), &true.into()), "{shown}");
    assert!(north.kinds().contains(&"fork".to_owned()));
    // What was proven before stays archived, and sound.
    drop(south);
    north.hub.fsck();
}

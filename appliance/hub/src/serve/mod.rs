//! `serve`: pulls, and serves over HTTPS a witness for the boxes, the hub's own log, and queries for people.
//!
//! ```text
//! POST /add-checkpoint                 c2sp.org/tlog-witness
//! GET  /<hex SHA-256 of origin>/checkpoint   what was cosigned last
//! GET  /heads/checkpoint, /heads/tile/...    the hub's own log, c2sp.org/tlog-tiles
//! GET  /v1/...                         queries, each in the list of queries before it is answered
//! GET  /healthz, /metrics              for monitoring
//! GET  /openapi.json                   all of that, in OpenAPI 3.1 (`bulla-hub openapi`)
//! ```
//! Boxes that it cannot reach dial it on the same port, and say so in the handshake (`crate::room`).
//!
//! Refuses to do: serve without keys whose memory is there; stop because a box, a client or one round of pulling fails.
//! Invariant: the index is open while something uses it, and no longer, so that commands have it between rounds.

pub mod door;
mod metrics;
pub mod openapi;
mod problem;
mod queries;
mod routes;
mod shown;

use crate::commands;
use crate::config::{Config, ServeConfig};
use crate::exit::{Exit, Failure};
use crate::handing::Handed;
use crate::hub::{self, Hub};
use crate::keys::HubKeys;
use crate::progress::Progress;
use crate::room::Room;
use crate::shelf::Shelf;
use crate::witness::{KnownLog, Witness};
use crate::{journal, rivals, run, webhook};
use bulla_formats::note::SignedNote;
use clap::Args;
use metrics::Metrics;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often the outbox is looked at when nobody says that there is something in it.
const PUBLISH_EVERY: Duration = Duration::from_secs(1);

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Only serve; `pull --watch` runs elsewhere, or nothing is to be pulled
    #[arg(long)]
    no_pull: bool,
}

/// What the hub's tasks share.
pub struct Desk {
    path: PathBuf,
    /// The configuration's section.
    pub serve: ServeConfig,
    /// The state directory.
    pub state_dir: PathBuf,
    /// The witness.
    pub witness: Witness,
    /// Whether this program pulls, too.
    pub pulls: bool,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What each address may ask.
    pub budgets: door::Budgets,
    /// Where boxes that dial the hub wait.
    pub room: Arc<Room>,
    handed: Arc<Handed>,
    hub: Mutex<Weak<Hub>>,
    /// Where sentences go.
    pub progress: Progress,
}

impl Desk {
    /// The hub: the one that somebody has open, or opened now. Blocks; not for the threads of the server.
    pub fn hub(&self) -> Result<Arc<Hub>, Failure> {
        let mut slot = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hub) = slot.upgrade() {
            return Ok(hub);
        }
        let mut hub = Hub::open_judged(&self.path, &self.progress)?;
        hub.room = Some(self.room.clone());
        hub.handed = self.handed.clone();
        let hub = Arc::new(hub);
        *slot = Arc::downgrade(&hub);
        Ok(hub)
    }

    /// Takes note of what is archived: whose heads are cosigned, what the hub's own log is to say; and holds what was
    /// cosigned against it.
    fn take_note(&self, hub: &Hub) -> Result<(), Failure> {
        let mut logs = BTreeMap::new();
        for branch in &hub.config.boxes {
            let mut frozen = match hub.index.known(&branch.origin)? {
                Some(id) => hub.index.state(id)?.frozen.is_some(),
                None => false,
            };
            let Some(shelf) = Shelf::open(hub, &branch.origin)? else { continue };
            if let Ok(note) = SignedNote::parse(&shelf.note) {
                self.witness.archived(&branch.origin, &note).map_err(routes::memory)?;
            }
            if let Some(cosigned) = self.witness.cosigned(&branch.origin).map_err(routes::memory)? {
                let contradiction = rivals::cosigned_against_archive(hub, &shelf, &cosigned)?;
                frozen |= contradiction.is_some();
                for finding in contradiction.into_iter().flatten() {
                    self.progress.say(&commands::sentence(&finding), &finding);
                }
            }
            // Of a log with two histories nothing more is cosigned.
            if !frozen {
                let archived = (shelf.head.size(), shelf.head.root());
                logs.insert(branch.origin.clone(), KnownLog { enrolment: shelf.enrolment, archived });
            }
        }
        self.witness.know(logs);
        if let Some(head) = journal::head(&self.state_dir)? {
            self.witness.queries(&head).map_err(routes::memory)?;
        }
        self.witness.publish()?;
        self.metrics.standing(hub)
    }

    /// Pulls all boxes, and takes note of what is archived by then.
    fn pull(&self) -> Result<(), Failure> {
        let hub = self.hub()?;
        for (name, outcome) in &run::round(&hub, None, &self.progress)? {
            commands::told(&self.progress, name, outcome);
            self.metrics.pulled(name, outcome);
        }
        self.take_note(&hub)
    }

    /// One round: a failure is told, and the next one is tried as if it had not been.
    fn round(&self) {
        let began = Instant::now();
        let done = if self.pulls { self.pull() } else { self.hub().and_then(|hub| self.take_note(&hub)) };
        self.metrics.round(began, done.is_ok());
        let mut failures = Vec::from_iter(done.err());
        if self.pulls && failures.is_empty() {
            let delivered = webhook::deliver(&self.path, 1);
            self.metrics.webhook(delivered.is_ok());
            failures.extend(delivered.err());
        }
        for failure in failures {
            self.progress.complain(&failure.to_string());
        }
    }
}

fn configured(path: &Path) -> Result<(Config, ServeConfig), Failure> {
    let config = hub::load(path)?;
    let serve = config.serve.clone();
    let serve = serve
        .ok_or_else(|| Failure::usage("the configuration has no [serve] section; docs/hub.toml shows one"))?;
    Ok((config, serve))
}

/// Reads the certificate that the configuration names, and its key.
pub fn check_tls(serve: &ServeConfig) -> Result<(), Failure> {
    match (&serve.certificate, &serve.key) {
        (Some(certificate), Some(key)) => door::tls(certificate, key, None).map(drop),
        // It makes its own.
        _ => Ok(()),
    }
}

/// Reads the certificates that vouch for people.
pub fn check_people(serve: &ServeConfig) -> Result<(), Failure> {
    serve.client_ca.as_ref().map_or(Ok(()), |path| shown::verifier(path, door::provider()).map(drop))
}

/// Reads the tokens of boxes that dial the hub.
pub fn check_dial_in(serve: &ServeConfig) -> Result<(), Failure> {
    Room::open(&serve.dial_in).map(drop)
}

/// `keys`: prints what others need to know of the hub's keys; makes them when there are none.
pub fn keys(path: &Path, json: bool) -> Result<Exit, Failure> {
    let (config, serve) = configured(path)?;
    let (witness, log) = match HubKeys::open(&config.state_dir, &serve.name)? {
        Some(keys) => (keys.witness_key.to_string(), keys.log_verifier_key()),
        None => {
            let made = Witness::open(&config.state_dir, &serve.name)?;
            (made.keys().witness_key.to_string(), made.keys().log_verifier_key())
        }
    };
    let (certificate, _) = door::certificate(&serve, &config.state_dir)?;
    let progress = Progress::new(json);
    let value = json!({"witness": witness, "log": log, "certificate": certificate});
    progress.say(&format!("witness {witness}"), &value);
    progress.title(&format!("log {log}"));
    progress.title(&format!("certificate {}", certificate.display()));
    Ok(Exit::Ok)
}

/// `serve`.
pub fn execute(path: &Path, args: &ServeArgs, json: bool) -> Result<Exit, Failure> {
    let (config, serve) = configured(path)?;
    let progress = Progress::of_a_service(json);
    let (certificate, key) = door::certificate(&serve, &config.state_dir)?;
    let people = serve.client_ca.as_ref().map(|path| shown::verifier(path, door::provider())).transpose()?;
    let tls = door::tls(&certificate, &key, people.as_ref())?;
    let desk = Arc::new(Desk {
        path: path.to_owned(),
        witness: Witness::open(&config.state_dir, &serve.name)?,
        state_dir: config.state_dir.clone(),
        pulls: !args.no_pull,
        metrics: Arc::default(),
        budgets: door::Budgets::new(serve.requests_per_second),
        room: Arc::new(Room::open(&serve.dial_in)?),
        handed: Arc::new(Handed::open(&config)),
        hub: Mutex::default(),
        progress: progress.clone(),
        serve,
    });
    let (stop, stopped) = watch::channel(false);
    let threads = [
        spawn("pull", {
            let (desk, stopped) = (desk.clone(), stopped.clone());
            let every = Duration::from_secs(config.pull.every_seconds);
            move || {
                while !*stopped.borrow() {
                    let began = Instant::now();
                    desk.round();
                    pause(&stopped, every.saturating_sub(began.elapsed()));
                }
            }
        })?,
        spawn("publish", {
            let (desk, stopped) = (desk.clone(), stopped.clone());
            move || {
                while !*stopped.borrow() {
                    if let Err(failure) = desk.witness.publish() {
                        desk.progress.complain(&format!("{failure}"));
                    }
                    pause(&stopped, PUBLISH_EVERY);
                }
            }
        })?,
    ];
    let served = listen(&desk, (tls, people), &stop, stopped);
    stop.send_replace(true);
    for thread in threads {
        // What it had to say it has said.
        let _ = thread.join();
    }
    served.map(|()| Exit::Ok)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, Failure> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| Failure::usage(format!("no thread can be started ({error})")))
}

/// Waits, but not for a hub that stops.
fn pause(stopped: &watch::Receiver<bool>, length: Duration) {
    let end = Instant::now() + length;
    while !*stopped.borrow() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100).min(end.saturating_duration_since(Instant::now())));
    }
}

/// Where systemd has started the hub, and listens.
fn tell_systemd(progress: &Progress, state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        progress.complain(&format!("systemd was not told: {error}"));
    }
}

fn listen(
    desk: &Arc<Desk>,
    (tls, people): (Arc<rustls::ServerConfig>, Option<door::People>),
    stop: &watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::usage(format!("no threads can be started ({error})")))?;
    let listen = desk.serve.listen;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(listen).await;
        let listener = listener.map_err(|error| {
            Failure::usage(format!("serve.listen: {listen} cannot be listened on ({error})"))
        })?;
        let address = listener.local_addr().unwrap_or(listen);
        desk.progress.say(&format!("listening on {address}"), &json!({"listening": address.to_string()}));
        let signals = stop.clone();
        tokio::spawn(async move {
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
            let terminated = async {
                match &mut terminate {
                    Some(signal) => signal.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminated => {}
            }
            signals.send_replace(true);
        });
        let door = door::Door {
            tls,
            people,
            router: routes::router(desk.clone()),
            room: desk.room.clone(),
            connections_max: desk.serve.connections_max,
            metrics: desk.metrics.clone(),
        };
        let (watched, telling) = (desk.clone(), desk.progress.clone());
        tell_systemd(&telling, sd_notify::NotifyState::Ready);
        let watchdog = tokio::spawn(async move {
            while let Some(limit) = sd_notify::watchdog_enabled() {
                tell_systemd(&watched.progress, sd_notify::NotifyState::Watchdog);
                tokio::time::sleep(limit / 3).await;
            }
        });
        door::serve(listener, door, stopped).await;
        watchdog.abort();
        tell_systemd(&telling, sd_notify::NotifyState::Stopping);
        Ok(())
    })
}

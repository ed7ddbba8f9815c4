//! The box delivers its own alerts, by webhook and by mail: a branch without a Prometheus hears of what is the matter, and
//! one whose line is cut hears of it on its LAN at once and everywhere else when the line is back.
//!
//! Every second the box is looked at ([`look`]) by the table of [`conditions`]; [`plan`] decides whom to tell; [`webhook`] and
//! [`mail`] tell. What is firing and what is owed is in `alerts.json` ([`kept`]) before it leaves.
//! Refuses to do: hold up a seal, a start or a stop: one thread with a runtime of its own does it all, and what hangs in it,
//! a receiver, a resolver or the disk, hangs there. Secrets are read for each attempt and forgotten after it.
//! Invariants: at most one notification is on its way to a receiver; a state that cannot be written down delays no alert by
//! more than [`WRITE_PATIENCE`], and ids of two runs differ all the same.

pub mod conditions;
pub mod kept;
mod look;
mod mail;
pub mod message;
pub mod plan;
mod webhook;

use crate::api::Shared;
use crate::config::{AlertMail, AlertWebhook, AlertsConfig, Config, Severity};
use crate::driver::clock::{Steady, now_millis};
use crate::driver::outage::http::Trouble;
use crate::{identity, random};
use bulla_formats::entry::{LocalTime, Mode};
use look::Eyes;
use message::Sender;
use plan::{Item, Key, LineFacts, Notification, Now, Outcome, Plan, PlanConfig, Said};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a notification waits for being written down.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// Why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// In words, without secrets and without what the other side said.
    pub words: String,
    /// It surely did not arrive.
    pub surely: bool,
    /// How long the receiver wants to be left alone, milliseconds.
    pub retry_after: Option<u64>,
}

/// How an attempt ended.
pub type Attempt = Result<(), Failed>;

impl Failed {
    /// Of something on this box.
    fn here(words: String) -> Self {
        Failed { words, surely: true, retry_after: None }
    }
}

impl From<Trouble> for Failed {
    fn from(trouble: Trouble) -> Self {
        let Trouble { failure, detail, retry_after, connected } = trouble;
        Failed { words: format!("{}: {detail}", failure.name()), surely: !connected, retry_after }
    }
}

/// Where alerts go.
#[derive(Debug, Clone)]
enum Way {
    Webhook(AlertWebhook),
    Mail(AlertMail),
}

/// A receiver, as configured.
#[derive(Debug, Clone)]
pub struct Receiver {
    name: String,
    pages_only: bool,
    way: Way,
}

impl Receiver {
    fn all(config: &AlertsConfig) -> Vec<Receiver> {
        let only = |severity: Severity| severity == Severity::Page;
        let webhooks = config.webhook.iter().map(|one| Receiver {
            name: one.name.clone(),
            pages_only: only(one.severity),
            way: Way::Webhook(one.clone()),
        });
        let mails = config.mail.iter().map(|one| Receiver {
            name: one.name.clone(),
            pages_only: only(one.severity),
            way: Way::Mail(one.clone()),
        });
        webhooks.chain(mails).collect()
    }

    fn kind(&self) -> &'static str {
        match self.way {
            Way::Webhook(_) => "webhook",
            Way::Mail(_) => "mail",
        }
    }

    async fn tell(&self, sender: &Sender, hello: &str, what: &Notification, sent: &Said) -> Attempt {
        match &self.way {
            Way::Webhook(config) => {
                let body = message::json(sender, &self.name, what, sent).to_string();
                webhook::post(config, &what.id, &body, sent.millis / 1_000).await
            }
            Way::Mail(config) => {
                let text = message::mail(sender, what, sent);
                mail::send(config, hello, &what.id, &text, sent.millis).await
            }
        }
    }
}

/// What is shown of a receiver.
#[derive(Debug, Default)]
struct Tally {
    delivered: AtomicU64,
    failures: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// An alert that is firing, as status shows it.
#[derive(Debug, Clone)]
pub struct FiringFacts {
    /// Which.
    pub key: Key,
    /// Worth waking somebody.
    pub page: bool,
    /// When it began, by the box's clock.
    pub began: Said,
}

/// How it stands with a receiver, as status and telemetry show it.
#[derive(Debug, Clone)]
pub struct ReceiverFacts {
    /// Its name.
    pub name: String,
    /// `webhook` or `mail`.
    pub kind: &'static str,
    /// Notifications that it took since the start.
    pub delivered: u64,
    /// Attempts that failed since the start.
    pub failures: u64,
    /// What it is owed.
    pub line: LineFacts,
    /// Why the last attempt failed; `None` when it did not.
    pub failing: Option<String>,
}

#[derive(Debug, Default)]
struct Shown {
    firing: Vec<FiringFacts>,
    lines: Vec<LineFacts>,
}

/// Alert delivery of a running box.
pub struct Alerts {
    receivers: Arc<Vec<Receiver>>,
    tallies: Arc<Vec<Tally>>,
    shown: Arc<Mutex<Shown>>,
    stop: watch::Sender<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(time: &LocalTime) -> Said {
    Said { millis: time.unix_millis, uncertainty_millis: time.uncertainty_millis }
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness pauses are not spread, which costs nobody anything.
    let _ = getrandom::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

/// Who the box says it is.
fn sender(config: &Config, origin: &str) -> Sender {
    let name = config.identity.names.first().map_or("localhost", String::as_str);
    let host = if name.contains(':') { format!("[{name}]") } else { name.to_owned() };
    Sender {
        origin: origin.to_owned(),
        site: config.alerts.site.clone().unwrap_or_else(|| name.to_owned()),
        url: format!("https://{host}:{}/", config.listen.port()),
    }
}

fn hello(config: &Config) -> &str {
    config.identity.names.first().map_or("localhost", String::as_str)
}

impl Alerts {
    /// The receivers, nobody told of anything yet.
    pub fn new(config: &AlertsConfig) -> Self {
        let receivers = Receiver::all(config);
        Alerts {
            tallies: Arc::new(receivers.iter().map(|_| Tally::default()).collect()),
            receivers: Arc::new(receivers),
            shown: Arc::default(),
            stop: watch::Sender::new(false),
            thread: Mutex::default(),
        }
    }

    /// Begins to look and to tell; nothing without receivers.
    pub fn start(&self, api: &Shared) {
        if self.receivers.is_empty() {
            return;
        }
        let (api, stop) = (api.clone(), self.stop.subscribe());
        let (receivers, tallies, shown) = (self.receivers.clone(), self.tallies.clone(), self.shown.clone());
        let body = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                runtime.block_on(async { Teller::new(api, receivers, tallies, shown).run(stop).await });
                // A resolver or a disk that hangs holds up nobody.
                runtime.shutdown_background();
            }
            Err(error) => log::error!("no alerts are delivered, no runtime for them: {error}"),
        };
        match std::thread::Builder::new().name("alerts".to_owned()).spawn(body) {
            Ok(thread) => *locked(&self.thread) = Some(thread),
            Err(error) => log::error!("no alerts are delivered, no thread for them: {error}"),
        }
    }

    /// Ends it; what is on its way is sent again by the next start.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        if let Some(thread) = locked(&self.thread).take()
            && thread.join().is_err()
        {
            log::error!("the thread of the alerts had panicked before the stop");
        }
    }

    /// Whether anybody is told.
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty()
    }

    /// What is firing.
    pub fn firing(&self) -> Vec<FiringFacts> {
        locked(&self.shown).firing.clone()
    }

    /// How it stands with each receiver, as configured.
    pub fn receivers(&self) -> Vec<ReceiverFacts> {
        let shown = locked(&self.shown);
        let of = |(at, (receiver, tally)): (usize, (&Receiver, &Tally))| ReceiverFacts {
            name: receiver.name.clone(),
            kind: receiver.kind(),
            delivered: tally.delivered.load(Relaxed),
            failures: tally.failures.load(Relaxed),
            line: shown.lines.get(at).cloned().unwrap_or(LineFacts {
                undelivered: 0,
                waiting: 0,
                failures: 0,
            }),
            failing: locked(&tally.trouble).clone(),
        };
        self.receivers.iter().zip(self.tallies.iter()).enumerate().map(of).collect()
    }
}

/// What comes back to the thread.
enum News {
    Looked(Eyes, Vec<plan::Report>),
    Sent(usize, Attempt),
    Written(Result<(), String>),
}

/// The thread.
struct Teller {
    api: Shared,
    receivers: Arc<Vec<Receiver>>,
    tallies: Arc<Vec<Tally>>,
    shown: Arc<Mutex<Shown>>,
    plan: Plan,
    /// With someone who looks while it is away.
    eyes: Option<Eyes>,
    base: u64,
    steady: Steady,
    file: PathBuf,
    writing: bool,
    /// What was written down last is not the newest.
    behind: bool,
    /// The last attempt to write failed; it is logged once.
    refused: bool,
    mode: Option<Mode>,
    out: mpsc::UnboundedSender<News>,
    news: mpsc::UnboundedReceiver<News>,
}

impl Teller {
    fn new(
        api: Shared,
        receivers: Arc<Vec<Receiver>>,
        tallies: Arc<Vec<Tally>>,
        shown: Arc<Mutex<Shown>>,
    ) -> Self {
        let (config, state_dir) = (&api.config.alerts, &api.config.state_dir);
        let kept = kept::load(state_dir).unwrap_or_else(|reason| {
            log::error!(
                "what receivers of alerts are owed is not known, and what goes on is told again: {reason}"
            );
            plan::Kept::default()
        });
        let seconds = |seconds: u64| seconds * 1_000;
        let planning = PlanConfig {
            receivers: receivers.iter().map(|one| (one.name.clone(), one.pages_only)).collect(),
            settle: seconds(config.settle_seconds),
            repeat: seconds(config.repeat_hours * 3_600),
            group: seconds(config.group_seconds),
            retry: seconds(config.retry_seconds),
            retry_max: seconds(config.retry_max_seconds),
        };
        let series = random::text::<8>("").map_or_else(|_| now_millis().to_string(), |text| text.to_string());
        let (base, file) = (now_millis(), kept::path(state_dir));
        let (out, news) = mpsc::unbounded_channel();
        Teller {
            plan: Plan::new(planning, kept, series, base),
            receivers,
            tallies,
            shown,
            eyes: Some(Eyes::default()),
            base,
            steady: Steady::start(),
            file,
            writing: false,
            behind: false,
            refused: false,
            mode: None,
            out,
            news,
            api,
        }
    }

    /// Near Unix time at the start, and never going back after it.
    fn now(&self) -> u64 {
        self.base + self.steady.millis()
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                _ = ticks.tick() => {
                    self.look();
                    if self.behind && !self.writing {
                        self.write();
                    }
                }
                news = self.news.recv() => match news {
                    Some(news) => self.heard(news),
                    None => break,
                },
            }
            self.go_on().await;
        }
        if self.plan.has_changed() || self.behind {
            self.write();
            let written = async { while !matches!(self.news.recv().await, Some(News::Written(_)) | None) {} };
            let _ = tokio::time::timeout(WRITE_PATIENCE, written).await;
        }
    }

    /// Has somebody look who may be held up by a disk.
    fn look(&mut self) {
        let Some(mut eyes) = self.eyes.take() else { return };
        let (api, out, now) = (self.api.clone(), self.out.clone(), self.now());
        let names = self.receivers.iter().map(|one| one.name.clone());
        let lines: Vec<_> = names.zip(self.plan.facts(now)).collect();
        tokio::task::spawn_blocking(move || {
            let reports = eyes.look(&api, &lines, now);
            let _ = out.send(News::Looked(eyes, reports));
        });
    }

    fn heard(&mut self, news: News) {
        match news {
            News::Looked(eyes, reports) => {
                self.eyes = Some(eyes);
                let now = Now { at: self.now(), said: said(&self.api.sealer.local_time()) };
                self.plan.look(&reports, now);
                let mode = self.api.sealer.outage().map(|facts| facts.modes.mode);
                if self.mode == Some(Mode::Emergency) && mode != self.mode {
                    self.plan.healed(now.at, random());
                }
                self.mode = mode.or(self.mode);
            }
            News::Sent(at, attempt) => self.sent(at, attempt),
            News::Written(result) => {
                self.writing = false;
                match result {
                    Ok(()) if self.behind => self.write(),
                    Ok(()) => self.refused = false,
                    Err(reason) => {
                        if !self.refused {
                            log::warn!("what receivers of alerts are owed cannot be written down: {reason}");
                        }
                        // The next look tries again.
                        (self.refused, self.behind) = (true, true);
                    }
                }
            }
        }
    }

    fn sent(&mut self, at: usize, attempt: Attempt) {
        let (Some(receiver), Some(tally)) = (self.receivers.get(at), self.tallies.get(at)) else { return };
        let (outcome, trouble) = match attempt {
            Ok(()) => (Outcome::Delivered, None),
            Err(Failed { words, surely, retry_after }) => {
                (Outcome::Failed { surely, retry_after }, Some(words))
            }
        };
        let mut before = locked(&tally.trouble);
        match &trouble {
            None => tally.delivered.fetch_add(1, Relaxed),
            Some(_) => tally.failures.fetch_add(1, Relaxed),
        };
        match (&trouble, before.is_some()) {
            (Some(words), false) => {
                log::warn!("alerts: {} did not take a notification: {words}", receiver.name)
            }
            (None, true) => log::info!("alerts: {} takes notifications again", receiver.name),
            _ => {}
        }
        *before = trouble;
        drop(before);
        let now = self.now();
        self.plan.sent(at, outcome, now, random());
    }

    /// Writes down what has changed, and sends what is due.
    async fn go_on(&mut self) {
        let due = self.plan.due(self.now());
        if self.plan.has_changed() {
            self.write();
            if !due.is_empty() {
                self.wait_until_written().await;
            }
        }
        for (at, notification) in due {
            let (Some(receiver), out) = (self.receivers.get(at).cloned(), self.out.clone()) else { continue };
            let sender = sender(&self.api.config, self.api.sealer.origin().as_str());
            let (sent, hello) = (said(&self.api.sealer.local_time()), hello(&self.api.config).to_owned());
            tokio::spawn(async move {
                let attempt = receiver.tell(&sender, &hello, &notification, &sent).await;
                let _ = out.send(News::Sent(at, attempt));
            });
        }
        let now = self.now();
        let firing = self.plan.firing().map(|alert| FiringFacts {
            key: alert.key.clone(),
            page: alert.page,
            began: alert.began,
        });
        *locked(&self.shown) = Shown { firing: firing.collect(), lines: self.plan.facts(now) };
    }

    /// Begins to write; a writer that hangs is not joined by a second one.
    fn write(&mut self) {
        self.behind = self.writing;
        if self.writing {
            return;
        }
        self.writing = true;
        let (text, file, out) = (kept::text(&self.plan.kept()), self.file.clone(), self.out.clone());
        tokio::task::spawn_blocking(move || {
            let result = identity::write_atomically(&file, text.as_bytes());
            let _ = out.send(News::Written(result.map_err(|error| format!("{error:#}"))));
        });
    }

    async fn wait_until_written(&mut self) {
        let until = tokio::time::Instant::now() + WRITE_PATIENCE;
        while self.writing {
            match tokio::time::timeout_at(until, self.news.recv()).await {
                Ok(Some(news)) => self.heard(news),
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// How a test went with one receiver.
#[derive(Debug)]
pub struct Tested {
    /// The receiver.
    pub name: String,
    /// `webhook` or `mail`.
    pub kind: &'static str,
    /// How it went.
    pub attempt: Attempt,
}

/// Tells every receiver of a test, and at once that it is over; `origin` as far as it is known.
pub fn test(config: &Config, origin: &str) -> anyhow::Result<Vec<Tested>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let series = random::text::<8>("test-").map_err(anyhow::Error::msg)?;
    let sender = sender(config, origin);
    let now = Said { millis: now_millis(), uncertainty_millis: None };
    let item = |ended| Item {
        key: Key { name: conditions::TEST.name.to_owned(), subject: String::new() },
        page: conditions::TEST.page,
        detail: String::new(),
        began_at: now.millis,
        began: now,
        ended,
        again: false,
        times: 1,
        owed_at: now.millis,
    };
    let told = Receiver::all(&config.alerts).into_iter().map(|receiver| {
        let first = Notification { id: format!("{}-1", series.as_str()), items: vec![item(None)] };
        let second = Notification { id: format!("{}-2", series.as_str()), items: vec![item(Some(now))] };
        let attempt = runtime.block_on(async {
            receiver.tell(&sender, hello(config), &first, &now).await?;
            match receiver.way {
                // What keeps alerts open until they are resolved shall not keep this one.
                Way::Webhook(_) => receiver.tell(&sender, hello(config), &second, &now).await,
                Way::Mail(_) => Ok(()),
            }
        });
        Tested { kind: receiver.kind(), name: receiver.name, attempt }
    });
    let told = told.collect();
    runtime.shutdown_background();
    Ok(told)
}

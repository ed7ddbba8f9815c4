//! `bulla-box run`: puts the parts together and keeps them together until it is told to stop.
//!
//! Order of start: keys, certificates, driver (log, rollback rule, key epoch), listener, readiness to systemd.
//! Refuses to do: listen before the box could answer; stop before running requests have had their time.

use crate::config::Config;
use crate::{
    announce, api, approved, backup, dial_out, driver, identity, limits, on_console, server, staging,
    telemetry, tls,
};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

const ROLLBACK_SUSPECTED: u8 = 4;
/// How often the age of the TLS certificate is looked at.
const RENEWAL_PERIOD: Duration = Duration::from_secs(300);

/// What a box does besides when it runs from an image of its own.
pub struct OnImage {
    /// The record of updates, which is entered into the log.
    pub updates: Option<PathBuf>,
    /// Where it says that it works.
    pub health: Option<PathBuf>,
    /// Where it says how it does, for the console of its machine.
    pub status: Option<PathBuf>,
    /// The record of changes to the network settings, which is entered into the log.
    pub network: Option<PathBuf>,
}

/// Runs the box until SIGTERM or SIGINT; returns the exit code.
pub fn run(config: Config, on_image: OnImage) -> Result<u8> {
    telemetry::init(config.log.level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("http")
        .build()
        .context("cannot start threads")?;
    runtime.block_on(serve(config, on_image))
}

async fn serve(mut config: Config, on_image: OnImage) -> Result<u8> {
    // Signals count from here on, so that a stop during a slow start is a stop.
    let (stop, again) = stop_signal(&config.state_dir)?;
    let prepare = config.clone();
    let started = tokio::task::spawn_blocking(move || start(&prepare));
    let (sealer, tls, certificates) = started.await.context("the start was interrupted")??;
    let listener = tokio::net::TcpListener::bind(config.listen).await.with_context(|| {
        format!("cannot listen on {}; is another program there, or is it below 1024?", config.listen)
    })?;
    let address = listener.local_addr()?;
    log::info!(origin:% = sealer.origin(), address:%; "{} listens on {address}", sealer.origin());
    let announced = announce::start(&config, sealer.origin(), address, &certificates.ca_fingerprint());
    config.limits.connections_max = limits::fit_connections(config.limits.connections_max)?;
    let period = Duration::from_secs(config.selfcheck.self_test_seconds);
    let self_tests =
        (!period.is_zero() && !sealer.is_retiring()).then(|| (period, config.self_test_attest_within()));
    let attest_within = config.self_test_attest_within();
    let state_dir = config.state_dir.clone();
    let dial_out = Arc::new(dial_out::DialOut::new(config.dial_out.as_ref())?);
    let api = Arc::new(api::Api::new(sealer.clone(), config, certificates.clone(), dial_out.clone()));
    notify(&[sd_notify::NotifyState::Ready]);
    let proven = tokio::task::spawn_blocking({
        let state_dir = state_dir.clone();
        move || approved::proven(&state_dir)
    });
    if let Err(error) = proven.await.context("interrupted").flatten() {
        log::error!("that the configuration has proven itself is not kept: {error:#}");
    }
    let configured = tokio::spawn(sealer.clone().log_configurations(state_dir));
    let housekeeping = tokio::spawn(housekeeping(certificates));
    let self_tests =
        self_tests.map(|(period, within)| tokio::spawn(sealer.clone().self_tests(period, within)));
    let updates = on_image.updates.map(|record| tokio::spawn(sealer.clone().log_updates(record)));
    let proof = on_image.health.map(|health| tokio::spawn(sealer.clone().prove(health, attest_within)));
    let network = on_image.network.map(|record| tokio::spawn(sealer.clone().log_network(record)));
    let status = on_image.status.map(|file| tokio::spawn(on_console::tell(api.clone(), file)));
    api.ingest.start(&api);
    api.alerts.start(&api);
    server::serve(listener, tls, api.clone(), dial_out.start(), stop).await;
    dial_out.stop();
    let ended = tokio::task::spawn_blocking(move || {
        if let Some(announced) = announced {
            announced.stop();
        }
        api.ingest.stop();
        api.alerts.stop();
    });
    let ended = ended.await;
    ended.context("the folders were not left in order")?;
    notify(&[sd_notify::NotifyState::Stopping]);
    housekeeping.abort();
    configured.abort();
    for task in [self_tests, updates, proof, network, status].into_iter().flatten() {
        task.abort();
    }
    let suspected = matches!(sealer.status().condition, driver::Condition::RollbackSuspected { .. });
    sealer.close().await;
    log::info!("stopped");
    Ok(match (suspected, again.load(Ordering::Relaxed)) {
        (true, _) => ROLLBACK_SUSPECTED,
        (false, true) => approved::RESTART,
        (false, false) => 0,
    })
}

type Started = (driver::Sealer, Arc<rustls::ServerConfig>, Arc<tls::Certificates>);

fn start(config: &Config) -> Result<Started> {
    if let Some(directory) = staging::interrupted(config) {
        anyhow::bail!(
            "a staged log was being begun, and is in {}; run `bulla-box staged begin` again, or remove that directory if the \
             log in use is to go on",
            directory.display()
        );
    }
    backup::gather::sweep(&config.state_dir);
    let identity = identity::open(config)?;
    // Before the driver: on a suspected rollback it closes the keys, and verification goes on over TLS.
    let (tls, certificates) = tls::server_config(&identity.keys, config, identity.hubs.clone())?;
    let sealer = driver::start(config, identity)?;
    Ok((sealer, tls, certificates))
}

/// Turns true at SIGTERM or SIGINT; and when another configuration waits for the next start, which the second one says.
fn stop_signal(state_dir: &Path) -> Result<(watch::Receiver<bool>, Arc<AtomicBool>)> {
    let (sender, receiver) = watch::channel(false);
    let (again, taken) = (Arc::<AtomicBool>::default(), approved::taken(state_dir.to_owned()));
    let set = again.clone();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = taken => {
                log::info!("the fleet's people approved another configuration: the box starts again with it");
                set.store(true, Ordering::Relaxed);
            }
        }
        log::info!("stopping: no new connections, running requests finish");
        sender.send_replace(true);
    });
    Ok((receiver, again))
}

/// Pings the watchdog and renews the listener's certificate; a slow TPM delays only the second.
async fn housekeeping(certificates: Arc<tls::Certificates>) {
    let watchdog = async {
        while let Some(limit) = sd_notify::watchdog_enabled() {
            notify(&[sd_notify::NotifyState::Watchdog]);
            tokio::time::sleep(limit / 3).await;
        }
    };
    let renewal = async {
        loop {
            tokio::time::sleep(RENEWAL_PERIOD).await;
            let certificates = certificates.clone();
            let renew = move || certificates.renew_if_due(SystemTime::now());
            match tokio::task::spawn_blocking(renew).await {
                Ok(Ok(true)) => log::info!("the TLS certificate was renewed"),
                Ok(Ok(false)) | Err(_) => {}
                Ok(Err(error)) => {
                    log::warn!("the TLS certificate was not renewed, the old one stays: {error}")
                }
            }
        }
    };
    tokio::join!(watchdog, renewal);
}

fn notify(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("systemd was not told: {error}");
    }
}

//! Start-up: open the log, hold it against the TPM counter, begin the epoch of this run, start threads.
//!
//! Refuses to do: seal, or sign any checkpoint, while the disk may be an older copy.
//! Invariant: when [`start`] returns a sealer that seals, this run's key-epoch entry is durable.

use super::anchored::Anchors;
use super::attest::{ATTESTED_HINT, Attestor, Handle};
use super::clock::{Clock, Steady, now_millis};
use super::crls::Crls;
use super::epochs::{EpochIndex, Workshop};
use super::lock::{LOCK, Lock};
use super::scrub::Scrubber;
use super::writer::{CurrentEpoch, Writer};
use super::{
    Condition, Counters, Sealer, Shared, keeper, medium, neighbours, outage, queueing, search, status,
};
use crate::backup::{BACKED_UP, RESTORED};
use crate::config::Config;
use crate::identity::{self, Identity};
use crate::peers::Own;
use crate::retirement;
use crate::tls::Certifier;
use crate::trust;
use anyhow::{Context, Result, ensure};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{Entry, Kind, Mode, Residency};
use bulla_ledger::{DirStore, Ledger, Reader};
use bulla_protocol::epoch::{EpochLife, EpochPolicy};
use bulla_protocol::queue::Gate;
use bulla_protocol::rollback::{Finding, HeadOnDisk, Intent, Start, judge_start};
use bulla_protocol::window::WindowPolicy;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Longest wait for a quote over a mode change or a manifest; without one the entry says why.
const QUOTE_DEADLINE: Duration = Duration::from_secs(3);
/// First pause after a failed attestation.
const ATTEST_RETRY_MILLIS: u64 = 500;

/// Starts sealing with `identity`.
pub fn start(config: &Config, identity: Identity) -> Result<Sealer> {
    let directory = identity::log_directory(&config.state_dir, &identity.origin);
    let store =
        Arc::new(DirStore::open(&directory).with_context(|| format!("cannot open {}", directory.display()))?);
    let (ledger, opened) = Ledger::open(store, identity.origin.as_str(), identity::options(config))
        .context("the log does not open; `bulla-box fsck` says what is damaged")?;
    ensure!(
        !ledger.has_ended(),
        "the log of this box has ended with its final entry and is never written again; `bulla-box retire` goes on, and its \
         seals stay valid"
    );
    for note in &opened.notes {
        log::warn!("log: {note}");
    }
    let hardware = identity.enrolment.content.hardware;
    let restored = control_value(&ledger, RESTORED)?;
    let finding = match hardware {
        Hardware::Tpm => rollback(&ledger, &identity)?.map(|finding| finding.to_string()),
        Hardware::Software => restored.as_ref().map(|made| {
            format!(
                "the log was restored from a backup made at Unix time {made} ms, and a box without TPM cannot tell \
                 whether it went on after that"
            )
        }),
    };
    if finding.is_none() && hardware == Hardware::Tpm && control_value(&ledger, BACKED_UP)?.is_some() {
        pass_backup(&ledger, &identity)?;
    }
    let reader = ledger.reader();
    let newest = Entry::decode(&reader.entry(ledger.size() - 1)?).context("the newest entry is damaged")?;
    let epochs = EpochIndex::new(reader.clone(), ledger.control());
    let last = epochs
        .find(newest.content().epoch, newest.content().index)
        .map_err(|error| anyhow::anyhow!("no key epoch to follow: {error}"))?;
    let attested_size = newest_attested(&reader, &ledger);
    let control = ledger.control();
    let story = outage::kept::story(&control).unwrap_or_else(|error| {
        log::warn!("where the outages' entries stand cannot be read, so the whole log is: {error}");
        None
    });
    let told = outage::restore::read(&reader, story, !config.anchors.is_empty())
        .context("what the log says of modes and anchors cannot be read")?;
    let time = outage::kept::time(&control).unwrap_or_else(|error| {
        log::warn!("what was known of the time cannot be read: {error}");
        None
    });
    let lines = outage::authority::lines(&config.anchors)?;
    // Before the log key goes to its place, and not while the disk may be an older copy.
    let own = match &config.peers {
        Some(peers) if finding.is_none() => Some(Own::open(&config.state_dir, peers, &identity)?),
        _ => None,
    };
    let shared = Arc::new(Shared {
        hubs: identity.hubs.clone(),
        trust: trust::of_fleet(
            identity.origin.fleet(),
            identity.fleet_root,
            hardware,
            outage::authority::trusted(&config.anchors)?,
        ),
        clock: Clock::new(time),
        worth: AtomicU64::new(told.worth),
        anchors: Anchors::new(told.standing.evidence.as_ref().map(|newest| newest.index)),
        crls: Crls::load(ledger.kept_objects(), control.clone()),
        manifests: outage::Manifests::new(&told.story),
        wording: outage::manifests::Wording::load(&config.outage)?,
        outage: RwLock::new(None),
        standing: watch::Sender::new(told.standing.clone()),
        stamper: RwLock::new(None),
        held: watch::Sender::default(),
        cosigned: RwLock::default(),
        neighbours: RwLock::new(None),
        mirrors: OnceLock::new(),
        medium: medium::Shown::default(),
        searched: RwLock::default(),
        attestation_key: identity.enrolment.content.attestation_key.to_vec(),
        origin: identity.origin,
        enrolment_der: identity.enrolment_der,
        hardware,
        log_key: identity.log_key,
        epochs,
        published: RwLock::new(None),
        attested: watch::Sender::new(attested_size),
        anchored: watch::Sender::default(),
        size: watch::Sender::new(reader.size()),
        attestations: Mutex::new(BTreeMap::new()),
        found: Default::default(),
        condition: watch::Sender::new(Condition::Sealing),
        counters: Counters::default(),
        checks: Arc::default(),
        status: status::Facts::new(
            reader.size(),
            newest.content().epoch,
            directory,
            config.sealing.reserve_bytes,
        ),
        search: search::Search::new(reader.clone()),
        kept: ledger.queue(),
        retiring: retirement::pending(&config.state_dir)?.is_some(),
        lock: RwLock::new(ledger.control().get(LOCK)?.and_then(|bytes| Lock::decode(&bytes))),
        settled: watch::Sender::new(0),
        reader,
    });
    let (queue, commands) = mpsc::channel(config.sealing.queue_max);
    let (attestor, inbox) = Handle::new();
    let (keeper, keeper_inbox) = keeper::Handle::new();
    let (outage, outage_inbox) = outage::Handle::new();
    // Before anything is sealed or signed: the medium, or the neighbours, may know of a newer disk.
    let finding = match finding {
        Some(finding) => Some(finding),
        None => medium::begin(config, &shared, &control)?,
    };
    let begun = match finding {
        Some(_) => None,
        None => neighbours::begin(config, own, &shared, &queue, &control, &outage, &attestor)?,
    };
    let finding = finding.or_else(|| begun.as_ref().and_then(|begun| begun.finding.clone()));
    let sealer = Sealer {
        shared: shared.clone(),
        queue: queue.clone(),
        attestor: attestor.clone(),
        keeper: keeper.clone(),
        outage: outage.clone(),
        neighbours: begun.as_ref().map(|begun| begun.handle.clone()),
        threads: Arc::new(Mutex::new(begun.into_iter().map(|begun| begun.thread).collect())),
        scrub: super::scrub::Stop::default(),
        self_testing: Arc::default(),
        control: control.clone(),
    };
    if let Some(finding) = finding {
        log::error!("rollback suspected: {finding}; the box is read-only until an operator decides");
        let line = format!("rollback-suspected: {finding}");
        if let Err(error) = ledger.control().journal(now_millis(), &line) {
            log::error!("the finding could not be journalled: {error}");
        }
        identity.keys.shutdown();
        shared.set_condition(Condition::RollbackSuspected { finding });
        return Ok(sealer);
    }

    let residency = config.residency();
    let number = newest.content().epoch + 1;
    let certifier = config.tsa.enabled.then(|| Certifier::open(&identity.keys, config)).transpose()?;
    let workshop = Workshop { keys: identity.keys.clone(), residency, certifier };
    let first = workshop
        .prepare(shared.origin.as_str(), number, last.leaf_hash)
        .context("the device does not endorse the key epoch of this run")?;
    let steady = Steady::start();
    let policy = EpochPolicy {
        max_millis: config.sealing.epoch_max_seconds.saturating_mul(1_000),
        max_seals: config.sealing.epoch_max_seals,
    };
    let batch = match residency {
        Residency::Tpm => queueing::DEVICE_BATCH.min(config.sealing.batch_max),
        Residency::TpmEndorsedRam | Residency::Software => config.sealing.batch_max,
    };
    let waiting = shared.kept.depth().entries;
    if waiting > 0 {
        log::info!("{waiting} queued requests wait to be sealed");
    }
    if shared.retiring {
        log::warn!("this box retires: it takes no new seals, and does what is left to do");
    }
    if shared.lock().is_some() {
        log::warn!("the box is locked by an operator, and stays so");
    }
    let mut writer = Writer {
        shared: shared.clone(),
        ledger,
        epoch: CurrentEpoch { number: newest.content().epoch, key: None, residency, evidence: last },
        life: EpochLife::begin(policy, 0),
        policy,
        next: None,
        lamport: newest.content().lamport,
        batch_max: config.sealing.batch_max,
        steady,
        attestor: attestor.clone(),
        trouble: None,
        gate: Gate::new(
            config.queue.policy(),
            batch as u64,
            shared.lock().is_some() || told.standing.mode == Mode::Safe,
        ),
        standing: told.standing.clone(),
        unrecorded: Vec::new(),
        request_window: identity::options(config).request_window,
        keeper,
        erasure: None,
    };
    if let Some(made) = &restored {
        writer.restored(made);
    }
    writer.resume_erasure()?;
    writer.first_epoch(first)?;
    let indexed = shared.clone();
    if restored.is_some() {
        // From here on the log itself says it.
        control.put(RESTORED, b"").context("cannot note that the restored log goes on")?;
    }
    let indexer_queue = queue.clone();
    let (keeper_shared, keeper_keys, keeper_queue) = (shared.clone(), identity.keys.clone(), queue.clone());
    let scrubber = Scrubber {
        shared: shared.clone(),
        queue: queue.clone(),
        state_dir: config.state_dir.clone(),
        config: config.selfcheck.clone(),
        stop: sealer.scrub.clone(),
    };
    // Without a runtime nobody can be asked: a command at the stopped box leaves the mode as it is.
    let together = config.peers.as_ref().is_some_and(|peers| peers.anchor_together);
    let neighbours = sealer.neighbours.clone().filter(|_| together);
    let desk = tokio::runtime::Handle::try_current().ok().map(|runtime| outage::Parts {
        shared: shared.clone(),
        queue: queue.clone(),
        keys: identity.keys.clone().with_deadline(QUOTE_DEADLINE),
        control: control.clone(),
        pcrs: config.attestation.pcrs.clone(),
        event_log: config.event_log(),
        state_dir: config.state_dir.clone(),
        config: config.outage.clone(),
        modes: config.outage.modes(&config.anchors),
        planning: config.anchors.planning(neighbours.is_some()),
        crls: config.anchors.crls.clone(),
        lines,
        sources: config.time.clone(),
        told,
        neighbours,
        handle: outage.clone(),
        runtime,
    });
    let desk = desk.map(outage::Desk::new).transpose()?;
    let attest = Attestor {
        shared,
        keys: identity.keys,
        control,
        queue,
        outage,
        planner: Attestor::planner(WindowPolicy {
            window: config.attestation.window_seconds.saturating_mul(1_000),
            counter_interval: config.attestation.counter_seconds.saturating_mul(1_000),
            retry: ATTEST_RETRY_MILLIS,
        }),
        pcrs: config.attestation.pcrs.clone(),
        event_log: config.event_log(),
        workshop,
        steady,
        away_since: None,
        epoch_wanted: None,
    };
    let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(work).context("cannot start a thread")
    };
    let mut threads = vec![
        spawn("writer", Box::new(move || writer.run(commands)))?,
        spawn("attestor", Box::new(move || attest.run(inbox)))?,
        spawn("indexer", Box::new(move || search::run(&indexed, &indexer_queue)))?,
        spawn(
            "keeper",
            Box::new(move || keeper::run(&keeper_inbox, &keeper_shared, &keeper_keys, &keeper_queue)),
        )?,
    ];
    if let Some(desk) = desk {
        threads.push(spawn("outage", Box::new(move || desk.run(outage_inbox)))?);
    }
    if config.selfcheck.scrub_pass_seconds > 0 {
        threads.push(spawn("scrub", Box::new(move || scrubber.run()))?);
    }
    sealer.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend(threads);
    Ok(sealer)
}

/// Applies the start rule of `bulla_protocol::rollback`; finishes an increment that a crash left open.
fn rollback(ledger: &Ledger, identity: &Identity) -> Result<Option<Finding>> {
    let counter = identity
        .keys
        .counter()
        .context("the TPM counter cannot be read, and without it an older disk would go unnoticed")?
        .context("the keys are in a TPM but have no counter; create the box anew")?;
    let Some(intent) = ledger.control().intent()? else {
        return Ok(Some(Finding::DiskBehind { counter, disk: 0 }));
    };
    let intent = Intent { counter: intent.counter, size: intent.size, root: intent.root };
    let head = if ledger.size() < intent.size {
        HeadOnDisk::Shorter { size: ledger.size() }
    } else if ledger.reader().root_at(intent.size)? == intent.root {
        HeadOnDisk::Present
    } else {
        HeadOnDisk::Different
    };
    match judge_start(&intent, head, counter) {
        Start::Good => Ok(None),
        Start::FinishIncrement => {
            identity
                .keys
                .counter_increment()
                .context("cannot finish the counter increment of the last run")?;
            log::info!("the counter increment that the last run left open is finished");
            Ok(None)
        }
        Start::Suspected(finding) => Ok(Some(finding)),
    }
}

/// A control value that counts: there, and not empty.
fn control_value(ledger: &Ledger, name: &str) -> Result<Option<String>> {
    let value = ledger.control().get(name)?.filter(|value| !value.is_empty());
    Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
}

/// The log was copied while the box was stopped: before anything is sealed the counter moves past the copy, so that
/// whichever of the two is started second is the older one (G2).
fn pass_backup(ledger: &Ledger, identity: &Identity) -> Result<()> {
    let what = "cannot move the TPM counter past the backup that was made";
    let control = ledger.control();
    let counter = identity.keys.counter().context(what)?.context(what)?;
    let intent = bulla_ledger::Intent { counter: counter + 1, size: ledger.size(), root: ledger.root() };
    control.commit_intent(intent).context(what)?;
    identity.keys.counter_increment().context(what)?;
    control.put(BACKED_UP, b"").context(what)?;
    log::info!("the TPM counter has moved past the backup that was made while the box was stopped");
    Ok(())
}

/// Size of the newest attested head, as far as the hint knows; the next attestation covers everything.
fn newest_attested(reader: &Reader, ledger: &Ledger) -> u64 {
    let read = || -> Option<u64> {
        let index = u64::from_be_bytes(ledger.control().get(ATTESTED_HINT).ok()??.try_into().ok()?);
        let entry = Entry::decode(&reader.entry(index).ok()?).ok()?;
        (entry.kind() == Some(Kind::Attestation)).then_some(())?;
        let body = AttestationBody::decode(&entry.content().body).ok()?;
        body.quote.is_some().then_some(body.head.size)
    };
    read().unwrap_or(0)
}

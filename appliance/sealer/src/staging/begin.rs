//! The day on which a staged log is begun: by an operator, at the stopped box, without anybody else.
//!
//! Order: policy, operator, age → the whole log in `<state_dir>.beginning`, its first intent naming the value that the
//! rollback counter is about to have → the boot, as entry 0 was endorsed in it → counter of staged logs → rollback counter →
//! the log takes its place. Killed anywhere, the same command goes on.
//! Refuses to do: begin what was begun or replaced by a newer package, in another TPM or another boot, too old, or while the
//! box runs.
//! Invariant: both counters have moved before anything names the new log as the box's own, so a copy of the disk from before
//! begins nothing, and one from after is an older disk as soon as the box has attested.

use super::package::Package;
use super::{DAY_MILLIS, bytes, enrolment_of, package, policy};
use crate::beginning::{self, Beginning, Succession};
use crate::clients::{ClientStore, Role};
use crate::config::Config;
use crate::driver::clock::now_millis;
use crate::enrolling::{FLEET_FILE, fleet_text};
use crate::identity::{self, Created, Predecessor};
use crate::tls;
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::body::key_epoch::{Endorsement, KeyEpochBody};
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::entry::{Entry, TreeState};
use bulla_formats::hash::{empty_root, sha256};
use bulla_formats::origin::Origin;
use bulla_keys::KeyService;
use bulla_ledger::{DirStore, Ledger};
use ed25519_dalek::SigningKey;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// PCRs that say which boot it is: those by which known good boots are told apart (docs/provisioning.md).
const PCRS_OF_A_BOOT: [u8; 6] = [0, 2, 3, 4, 6, 7];
/// How far the registrar's clock may be ahead of this box's.
const AHEAD_MILLIS: u64 = 24 * 3_600 * 1_000;
/// Beside the state directory: a log that is about to be the box's.
const SUFFIX: &str = ".beginning";

/// What was begun.
pub struct Begun {
    /// The log.
    pub created: Created,
    /// Who did it.
    pub by: String,
    /// Whether an earlier run had begun it.
    pub resumed: bool,
}

/// Where the old log is, and what the new one has of it.
struct Before {
    predecessors: Vec<Predecessor>,
    head: TreeState,
    quotas: Option<Vec<u8>>,
    left_queued: u64,
}

/// The directory of a beginning that was interrupted, if there is one that counts.
pub fn interrupted(config: &Config) -> Option<PathBuf> {
    let directory = identity::with_suffix(&config.state_dir, SUFFIX);
    directory.join(identity::IDENTITY_FILE).exists().then_some(directory)
}

/// Begins the staged log.
///
/// # Errors
/// See the head of this file; nothing has begun then, unless it says so.
pub fn begin(config: &Config, token: &str, cause: Cause, reason: &str) -> Result<Begun> {
    ensure!(
        !reason.trim().is_empty() && reason.len() <= 1_000,
        "say why, in 1 to 1000 characters (--reason)"
    );
    let (staged, _) = policy(config)?;
    let (package, file) = package(config)?;
    let by = operator(config, &package, token)?;
    let enrolled_at = enrolment_of(&package.issued()?)?.content.enrolled_at;
    let now = now_millis();
    ensure!(
        now.saturating_add(AHEAD_MILLIS) >= enrolled_at,
        "the staged log was enrolled in the future: this box's clock is wrong; set it first"
    );
    let age = now.saturating_sub(enrolled_at) / DAY_MILLIS;
    ensure!(
        age < staged.days,
        "the staged log is too old: it was enrolled {age} days ago, and staged.days allows {}; enrol the box anew, or ask \
         whoever answers for the policy",
        staged.days
    );
    let origin = package.origin()?;
    let was_begun = identity::current_log(config).is_ok_and(|(log, _)| log == origin);
    // An earlier run may have come as far as its last step.
    ensure!(!was_begun || interrupted(config).is_some(), "{origin} is this box's log already: it was begun");
    let before = before(config, &package)?;
    let directory = identity::with_suffix(&config.state_dir, SUFFIX);
    if interrupted(config).is_some() {
        let keys = keys(config, &directory)?;
        if let Some(created) = resume(config, &package, &keys, &directory)? {
            return done(&file, &keys, Begun { created, by, resumed: true });
        }
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove the half-made {}", directory.display()))?;
    }
    identity::make_private_dir(&directory.join("keys"))?;
    identity::write_atomically(&directory.join("keys/keys.json"), &bytes("keys", &package.keys)?)?;
    let keys = keys(config, &directory)?;
    unspent(&package, &keys)?;
    let left_queued = before.left_queued;
    let reason = format!("{reason} (by {by})");
    build(config, &package, &keys, &directory, before, cause, &reason)?;
    if let Err(other) = same_boot(config, &package, &directory) {
        fs::remove_dir_all(&directory)
            .with_context(|| format!("cannot remove the unused {}", directory.display()))?;
        return Err(other);
    }
    let created = resume(config, &package, &keys, &directory)?;
    let created = created.context("the TPM's counter moved meanwhile; run the same command again")?;
    done(&file, &keys, Begun { created: Created { left_queued, ..created }, by, resumed: false })
}

fn done(file: &Path, keys: &KeyService, begun: Begun) -> Result<Begun> {
    keys.shutdown();
    // It is spent; whoever finds a copy finds out as much.
    fs::remove_file(file).with_context(|| format!("the log has begun; remove {} by hand", file.display()))?;
    identity::sync_parent(file)?;
    Ok(begun)
}

/// The name of the operator whose token this is: as the box knows it, or knew it when the log was staged.
fn operator(config: &Config, package: &Package, token: &str) -> Result<String> {
    let of_box = config.state_dir.join("clients.json").exists();
    let found = if of_box {
        let client = ClientStore::new(&config.state_dir).by_token(token)?;
        client.filter(|client| client.role == Role::Operator).map(|client| client.name.clone())
    } else {
        let hash = sha256(&[token.as_bytes()]).to_string();
        package
            .operators()
            .iter()
            .find(|operator| operator.sha256 == hash)
            .map(|operator| operator.name.clone())
    };
    found.context("the token is no operator's: an operator of this box begins a staged log, with the token in --token-file")
}

fn keys(config: &Config, directory: &Path) -> Result<KeyService> {
    let keys = KeyService::open(&config.provider(), &directory.join("keys")).context(
        "the staged log cannot be begun here: this is not the TPM it was staged for, or not as it was",
    )?;
    Ok(keys.with_deadline(config.tpm_deadline()))
}

/// Whether this package is the newest, and was not begun.
fn unspent(package: &Package, keys: &KeyService) -> Result<()> {
    let mut counter = keys
        .staged_counter()?
        .context("this TPM has no staged log: it was cleared, or none was ever kept")?;
    if counter.checked_add(1) == Some(package.counter) {
        // Kept, and then power was lost before the counter followed.
        keys.staged_counter_increment().context("cannot move the counter of staged logs")?;
        counter = package.counter;
    }
    ensure!(
        counter == package.counter,
        "the staged log is spent: it was begun already, or a newer one was staged after this copy of it was made (the TPM \
         counts {counter}, this one is number {}); enrol the box anew",
        package.counter
    );
    Ok(())
}

/// The log on this disk, if there is one: stopped, and the one that the staged log was to follow.
fn before(config: &Config, package: &Package) -> Result<Before> {
    let nothing = Before {
        predecessors: Vec::new(),
        head: TreeState::new(0, empty_root()),
        quotas: None,
        left_queued: 0,
    };
    let empty = || fs::read_dir(&config.state_dir).map(|mut files| files.next().is_none()).unwrap_or(true);
    if empty() {
        return Ok(nothing);
    }
    let (current, log) = identity::current_log(config).with_context(|| {
        format!("{} holds something that is no box; move it away", config.state_dir.display())
    })?;
    ensure!(
        current.as_str() == package.in_use() || Some(&current) == package.origin().ok().as_ref(),
        "{} holds {current}, and the staged log is to follow {}: move that directory away if it is not to go on",
        config.state_dir.display(),
        package.in_use()
    );
    let predecessors = identity::predecessors_with_current(config)?;
    let store = match DirStore::open(&log) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            bail!("the box runs, and its log is in use; stop it first")
        }
        store => store.ok(),
    };
    let opened = store
        .and_then(|store| Ledger::open(Arc::new(store), current.as_str(), identity::options(config)).ok());
    let Some((ledger, _)) = opened else { return Ok(Before { predecessors, ..nothing }) };
    Ok(Before {
        predecessors,
        head: TreeState::new(ledger.size(), ledger.root()),
        quotas: identity::quotas_of(&ledger),
        left_queued: ledger.queue().depth().entries,
    })
}

/// Writes the log, whole, where it does not count yet.
fn build(
    config: &Config,
    package: &Package,
    keys: &KeyService,
    directory: &Path,
    before: Before,
    cause: Cause,
    reason: &str,
) -> Result<()> {
    let issued = package.issued()?;
    let secret =
        keys.unseal(&bytes("sealedLogKey", &package.sealed_log_key)?).context("cannot unseal the log key")?;
    let (log_key, number) = secret.split_at_checked(32).context("the sealed log key is not a key")?;
    ensure!(
        number == package.counter.to_be_bytes(),
        "the file of the staged log names another counter than was sealed with its key: it was changed by hand"
    );
    let log_key: &[u8; 32] = log_key.try_into().context("the sealed log key is not a key")?;
    let log_key = SigningKey::from_bytes(log_key);
    let enrolment = enrolment_of(&issued)?;
    ensure!(
        log_key.verifying_key().to_bytes() == *enrolment.content.log_key,
        "the sealed log key is not the enrolled one"
    );
    let counter = keys.counter()?.context("the keys have no counter")?;
    let new = Config { state_dir: directory.to_owned(), ..config.clone() };
    let fleet = fleet_text(&package.from()?, &issued)?;
    identity::write_atomically(&directory.join(FLEET_FILE), fleet.as_bytes())?;
    if !config.state_dir.join(identity::IDENTITY_FILE).exists() {
        tls::create_ca(keys, &new).context("cannot make the CA of this box")?;
    }
    let beginning = Beginning {
        origin: package.origin()?,
        log_key,
        enrolment: issued.enrolment.to_vec(),
        fleet_root: *issued.root,
        fleet_secret: None,
        // What it is about to have: the log is written first, so that it never counts without having been written.
        counter: Some(counter + 1),
    };
    let body = SuccessionBody {
        predecessor: package.in_use().to_owned(),
        head: before.head,
        cause,
        reason: reason.to_owned(),
    };
    let succession = Succession { body, quotas: before.quotas };
    beginning::write(&new, keys, &beginning, before.predecessors, Some(succession)).map(drop)
}

/// Whether entry 0 was endorsed in the boot that the registrar was shown.
fn same_boot(config: &Config, package: &Package, directory: &Path) -> Result<()> {
    let new = Config { state_dir: directory.to_owned(), ..config.clone() };
    let (origin, log) = identity::current_log(&new)?;
    let store = Arc::new(DirStore::open(&log)?);
    let (ledger, _) = Ledger::open(store, origin.as_str(), identity::options(config))?;
    let entry = Entry::decode(&ledger.reader().entry(0)?)?;
    let Endorsement::Quote(quote) = KeyEpochBody::decode(&entry.content().body)?.endorsement else {
        bail!("the first epoch has no quote");
    };
    for pcr in PCRS_OF_A_BOOT {
        let now = quote.pcrs.iter().find(|value| value.pcr == pcr).map(|value| hex::encode(*value.value));
        let then = package.boot.get(&pcr);
        ensure!(
            now.is_some() && now.as_ref() == then,
            "the boot is another one than when the log was staged: PCR {pcr} was {}, and is {}; start the image of then, or \
             enrol the box anew",
            then.map_or("not quoted", String::as_str),
            now.as_deref().unwrap_or("not quoted")
        );
    }
    Ok(())
}

/// Moves the counters, as far as they have not moved, and gives the log its place. `None`: the rollback counter has moved on
/// before anything was spent, and the log is to be written anew.
fn resume(
    config: &Config,
    package: &Package,
    keys: &KeyService,
    directory: &Path,
) -> Result<Option<Created>> {
    let new = Config { state_dir: directory.to_owned(), ..config.clone() };
    let (origin, built) = identity::current_log(&new)?;
    ensure!(origin == package.origin()?, "{} holds another log than the staged one", directory.display());
    let in_place = identity::log_directory(&config.state_dir, &origin);
    let log = if built.is_dir() { &built } else { &in_place };
    let intent = {
        let store = Arc::new(DirStore::open(log)?);
        let (ledger, _) = Ledger::open(store, origin.as_str(), identity::options(config))
            .with_context(|| format!("{} does not open; remove {}", log.display(), directory.display()))?;
        ledger.control().intent()?.context("the new log has no intent")?.counter
    };
    let spent = keys.staged_counter()?.context("the counter of staged logs is gone")?;
    let counter = keys.counter()?.context("the keys have no counter")?;
    if spent == package.counter {
        if counter.checked_add(1) != Some(intent) {
            return Ok(None);
        }
        keys.staged_counter_increment().context("cannot move the counter of staged logs")?;
    } else {
        ensure!(
            spent == package.counter + 1,
            "the staged log is spent: what {} holds is a copy from before; enrol the box anew",
            directory.display()
        );
    }
    match counter {
        _ if counter == intent => {}
        _ if counter.checked_add(1) == Some(intent) => {
            keys.counter_increment().context("cannot move the TPM counter; run the same command again")?;
        }
        _ => bail!(
            "the log in {} is an older copy: the TPM's counter stands at {counter}, and it begins at {intent}; it has gone \
             on elsewhere, so bring that disk back or enrol the box anew",
            directory.display()
        ),
    }
    take_place(config, &origin, directory)?;
    Ok(Some(Created {
        origin: origin.as_str().to_owned(),
        hardware: keys.description().hardware,
        left_queued: 0,
    }))
}

/// The last steps, each of which may have been done: the identity file comes last.
fn take_place(config: &Config, origin: &Origin, directory: &Path) -> Result<()> {
    let state = &config.state_dir;
    if !state.join(identity::IDENTITY_FILE).exists() {
        if state.exists() {
            // It was found empty.
            fs::remove_dir(state).with_context(|| format!("cannot remove the empty {}", state.display()))?;
        }
        return identity::take_name(directory, state);
    }
    let (built, place) = (identity::log_directory(directory, origin), identity::log_directory(state, origin));
    if built.is_dir() {
        fs::rename(&built, &place).with_context(|| format!("cannot move the log to {}", place.display()))?;
        identity::sync_parent(&place)?;
    }
    for name in [FLEET_FILE, identity::IDENTITY_FILE] {
        let text = fs::read(directory.join(name)).with_context(|| format!("cannot read the new {name}"))?;
        identity::write_atomically(&state.join(name), &text)?;
    }
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}

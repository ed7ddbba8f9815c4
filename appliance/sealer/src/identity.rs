//! Identity: what makes this box this box, and how a log of it begins.
//!
//! Creation is an explicit act (`bulla-box init`); a start on missing state is an error, so that a
//! lost disk never silently becomes a second history. A log that cannot be continued is succeeded by
//! a new incarnation (`bulla-box succeed`), never restarted under its old name (G2).
//! Refuses to do: overwrite state; hold the fleet root's secret longer than one signature.
//! Invariant: a state directory either has a complete identity and a log with entry 0, or is not one.

use crate::beginning::{self, Beginning, Succession};
use crate::config::Config;
use crate::driver::outage::kept;
use crate::peers::Hubs;
use crate::tls;
use anyhow::{Context, Result, bail, ensure};
use bulla_formats::body::succession::{Cause, SuccessionBody};
use bulla_formats::checked_json;
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::entry::TreeState;
use bulla_formats::json::base64_decode;
use bulla_formats::origin::Origin;
use bulla_keys::KeyService;
use bulla_ledger::{DirStore, Ledger, Options};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

pub(crate) const IDENTITY_FILE: &str = "identity.json";
/// 1 had no checksum; 2 was of a fleet of one in any case.
pub(crate) const IDENTITY_VERSION: u32 = 3;

/// What a box needs to know of itself before it can seal.
pub struct Identity {
    /// Name of the log.
    pub origin: Origin,
    /// The enrolment, DER.
    pub enrolment_der: Vec<u8>,
    /// The enrolment.
    pub enrolment: Enrolment,
    /// Public key of the fleet root.
    pub fleet_root: [u8; 32],
    /// The log key.
    pub log_key: SigningKey,
    /// Keys of the device.
    pub keys: KeyService,
    /// The fleet's hubs, once its roster is known.
    pub hubs: Hubs,
}

/// What `init` and `succeed` tell the operator.
pub struct Created {
    /// Name of the new log.
    pub origin: String,
    /// What its keys rest on.
    pub hardware: Hardware,
    /// Requests still queued in the old log, which the new one does not seal.
    pub left_queued: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct IdentityFile {
    pub(crate) version: u32,
    pub(crate) origin: String,
    pub(crate) enrolment: String,
    pub(crate) fleet_root: String,
    /// Only a fleet of one holds its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sealed_fleet_root: Option<String>,
    pub(crate) sealed_log_key: String,
    pub(crate) predecessors: Vec<Predecessor>,
}

/// A log that this one follows.
#[derive(Serialize, Deserialize, Clone)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Predecessor {
    origin: String,
    log_directory: String,
}

/// Creates the state directory: keys, fleet of one, CA, log with entry 0.
pub fn create(config: &Config) -> Result<Created> {
    let state = &config.state_dir;
    let empty = || fs::read_dir(state).map(|mut entries| entries.next().is_none()).unwrap_or(true);
    ensure!(
        empty(),
        "{} is not empty; a box is created once, start it with `bulla-box run` or name another state_dir",
        state.display()
    );
    let fresh = with_suffix(state, ".creating");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)
            .with_context(|| format!("cannot remove the half-made {}", fresh.display()))?;
    }
    make_private_dir(&fresh)?;
    make_private_dir(&fresh.join("keys"))?;
    let staged = Config { state_dir: fresh.clone(), ..config.clone() };
    let keys = KeyService::create(&config.provider(), &fresh.join("keys"))
        .context("cannot make the keys of this box; check the [tpm] section and that the TPM answers")?;
    let fleet_root = secret_key()?;
    tls::create_ca(&keys, &staged).context("cannot make the CA of this box")?;
    let beginning = Beginning::of_one(&staged, &keys, fleet_root)?;
    let created = beginning::write(&staged, &keys, &beginning, Vec::new(), None)?;
    keys.shutdown();
    take_name(&fresh, state)?;
    Ok(created)
}

/// Makes a complete directory the state directory, at once.
pub fn take_name(complete: &Path, state: &Path) -> Result<()> {
    fs::rename(complete, state)
        .with_context(|| format!("cannot move {} to {}", complete.display(), state.display()))?;
    sync_parent(state)
}

/// Ends the current log and begins a new incarnation that names it.
///
/// For an operator who has seen `rollback-suspected` and cannot bring the newest disk back. The old
/// log stays beside the new one, readable and provable, and is never written again.
pub fn succeed(config: &Config, reason: &str) -> Result<Created> {
    ensure!(
        !reason.trim().is_empty() && reason.len() <= 1_000,
        "say why, in 1 to 1000 characters (--reason)"
    );
    let origin = Origin::parse(&read_file(&config.state_dir)?.origin)?;
    let old = log_directory(&config.state_dir, &origin);
    let (head, left_queued, quotas) = {
        let (ledger, _) = Ledger::open(Arc::new(DirStore::open(&old)?), origin.as_str(), options(config))
            .context("the old log does not open; run `bulla-box fsck` and bring a readable copy back")?;
        let head = TreeState::new(ledger.size(), ledger.root());
        (head, ledger.queue().depth().entries, quotas_of(&ledger))
    };
    Ok(Created { left_queued, ..begin_anew(config, head, Cause::Rollback, reason, quotas)? })
}

/// Ends a log that this disk does not have, or not as far as its neighbours, and begins a new incarnation that names the
/// head they hold. What is on the disk of it stays beside the new one.
pub fn succeed_lost(config: &Config, head: TreeState, reason: &str) -> Result<Created> {
    let origin = Origin::parse(&read_file(&config.state_dir)?.origin)?;
    let old = log_directory(&config.state_dir, &origin);
    let store = DirStore::open(&old).ok();
    let ledger = store.and_then(|store| Ledger::open(Arc::new(store), origin.as_str(), options(config)).ok());
    // What is left of the disk may know which quotas are in use; a lost one does not.
    let quotas = ledger.and_then(|(ledger, _)| quotas_of(&ledger));
    begin_anew(config, head, Cause::LostDisk, reason, quotas)
}

/// Which quotas of authorities are in use: their windows know no incarnations.
pub(crate) fn quotas_of(ledger: &Ledger) -> Option<Vec<u8>> {
    kept::plan_of(&ledger.control()).unwrap_or_else(|error| {
        log::warn!("the quotas in use cannot be read, and the new log begins without: {error}");
        None
    })
}

fn begin_anew(
    config: &Config,
    head: TreeState,
    cause: Cause,
    reason: &str,
    quotas: Option<Vec<u8>>,
) -> Result<Created> {
    let state = &config.state_dir;
    let file = read_file(state)?;
    let keys = open_keys(config)?;
    let sealed = file.sealed_fleet_root.as_deref().with_context(|| {
        format!(
            "this box is enrolled in {}, and only the fleet can enrol a new log of it: begin the one that is staged, if \
             there is one (`bulla-box staged begin`), or move {} away and run `bulla-box enroll` (the old log stays \
             readable there, and its seals valid)",
            config.identity.fleet,
            state.display()
        )
    })?;
    let secret = keys.unseal(&base64_decode(sealed)?).context("cannot unseal the fleet root")?;
    let secret: &[u8; 32] = secret.as_slice().try_into().context("the sealed fleet root is not a key")?;
    let fleet_root = SigningKey::from_bytes(secret);
    let succession = SuccessionBody { predecessor: file.origin, head, cause, reason: reason.to_owned() };
    let predecessors = predecessors_with_current(config)?;
    let beginning = Beginning::of_one(config, &keys, fleet_root)?;
    let succession = Succession { body: succession, quotas };
    let created = beginning::write(config, &keys, &beginning, predecessors, Some(succession))?;
    keys.shutdown();
    Ok(created)
}

/// The logs that a new one follows: those before the one in force, and that.
///
/// # Errors
/// The identity is not there, or not believed.
pub fn predecessors_with_current(config: &Config) -> Result<Vec<Predecessor>> {
    let file = read_file(&config.state_dir)?;
    let old = log_directory(&config.state_dir, &Origin::parse(&file.origin)?);
    let log_directory = old.file_name().context("a log directory has a name")?.to_string_lossy().into_owned();
    let mut predecessors = file.predecessors;
    predecessors.push(Predecessor { origin: file.origin, log_directory });
    Ok(predecessors)
}

/// Opens what `init` made.
pub fn open(config: &Config) -> Result<Identity> {
    let file = read_file(&config.state_dir)?;
    let keys = open_keys(config)?;
    let origin = Origin::parse(&file.origin)?;
    ensure!(
        origin.fleet() == config.identity.fleet,
        "the state directory belongs to fleet {}, the configuration says {}; correct [identity] fleet",
        origin.fleet(),
        config.identity.fleet
    );
    let enrolment_der = base64_decode(&file.enrolment)?;
    let enrolment = Enrolment::decode(&enrolment_der)?;
    let fleet_root: [u8; 32] = base64_decode(&file.fleet_root)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("{IDENTITY_FILE}: fleetRoot is not 32 bytes"))?;
    enrolment.verify(origin.fleet(), &[fleet_root]).context("the enrolment on disk does not verify")?;
    let secret = keys.unseal(&base64_decode(&file.sealed_log_key)?).context("cannot unseal the log key")?;
    let secret: &[u8; 32] = secret.as_slice().try_into().context("the sealed log key is not a key")?;
    let log_key = SigningKey::from_bytes(secret);
    ensure!(
        log_key.verifying_key().to_bytes() == *enrolment.content.log_key,
        "the sealed log key is not the enrolled one; bring back the identity file that went with this enrolment"
    );
    Ok(Identity { origin, enrolment_der, enrolment, fleet_root, log_key, keys, hubs: Hubs::default() })
}

/// The directory of a log inside the state directory.
pub fn log_directory(state: &Path, origin: &Origin) -> PathBuf {
    state.join(format!("log-{}", origin.incarnation()))
}

/// Whether this box is a fleet of one, whose root it holds itself.
pub fn of_one(config: &Config) -> Result<bool> {
    Ok(read_file(&config.state_dir)?.sealed_fleet_root.is_some())
}

/// Origin and log directory, readable without any key.
pub fn current_log(config: &Config) -> Result<(Origin, PathBuf)> {
    let origin = Origin::parse(&read_file(&config.state_dir)?.origin)?;
    let directory = log_directory(&config.state_dir, &origin);
    Ok((origin, directory))
}

/// Fleet root and fleet domain, readable without any key.
pub fn fleet_root(config: &Config) -> Result<([u8; 32], Origin, Hardware)> {
    let file = read_file(&config.state_dir)?;
    let root = base64_decode(&file.fleet_root)?
        .try_into()
        .map_err(|_| anyhow::anyhow!("{IDENTITY_FILE}: fleetRoot is not 32 bytes"))?;
    let enrolment = Enrolment::decode(&base64_decode(&file.enrolment)?)?;
    Ok((root, Origin::parse(&file.origin)?, enrolment.content.hardware))
}

/// The enrolment, verified, and the origin; readable without any key.
pub fn enrolment(config: &Config) -> Result<(Enrolment, Origin)> {
    let file = read_file(&config.state_dir)?;
    let (root, origin, _) = fleet_root(config)?;
    let enrolment = Enrolment::decode(&base64_decode(&file.enrolment)?)?;
    enrolment.verify(origin.fleet(), &[root]).context("the enrolment on disk does not verify")?;
    ensure!(enrolment.content.origin == origin.as_str(), "the enrolment on disk is of another log");
    Ok((enrolment, origin))
}

/// Ledger options of this configuration.
pub fn options(config: &Config) -> Options {
    Options { reserve_bytes: config.sealing.reserve_bytes, ..Options::default() }
}

fn open_keys(config: &Config) -> Result<KeyService> {
    let keys = KeyService::open(&config.provider(), &config.state_dir.join("keys"))
        .context("cannot open the keys of this box")?;
    Ok(keys.with_deadline(config.tpm_deadline()))
}

/// A fresh Ed25519 key.
pub fn secret_key() -> Result<SigningKey> {
    let mut seed = Zeroizing::new([0u8; 32]);
    getrandom::fill(seed.as_mut()).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(SigningKey::from_bytes(&seed))
}

fn read_file(state: &Path) -> Result<IdentityFile> {
    let path = state.join(IDENTITY_FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(staging) = crate::backup::restore::interrupted(state) {
                bail!(
                    "a restore was interrupted and its pieces are in {}; run `bulla-box restore` again",
                    staging.display()
                );
            }
            if let Some(why) = crate::retirement::in_place_of_identity(state) {
                bail!(why);
            }
            bail!(
                "{} does not exist: this box has no state; create it with `bulla-box init`, or mount the disk it lives on",
                path.display()
            )
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    parse(&text).with_context(|| format!("{} is not believed", path.display()))
}

/// The identity in the bytes of its file.
pub fn parse(bytes: &[u8]) -> Result<IdentityFile> {
    let text = checked_json::body(bytes)?;
    let file: IdentityFile = serde_json::from_slice(&text).context("it is damaged")?;
    ensure!(
        (2..=IDENTITY_VERSION).contains(&file.version),
        "it is of version {}; use a newer bulla-box",
        file.version
    );
    ensure!(
        file.version > 2 || file.sealed_fleet_root.is_some(),
        "it is of version 2 and has no sealedFleetRoot"
    );
    Ok(file)
}

/// The text of its file.
pub fn text(file: &IdentityFile) -> Result<String> {
    Ok(checked_json::with_checksum(&serde_json::to_string_pretty(file)?))
}

pub(crate) fn write_file(directory: &Path, file: &IdentityFile) -> Result<()> {
    write_atomically(&directory.join(IDENTITY_FILE), text(file)?.as_bytes())
}

/// Replaces a file so that a crash leaves either the old or the new one; mode 0600.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let fresh = with_suffix(path, ".new");
    let write = || -> std::io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))?;
    sync_parent(path)
}

/// The path with `suffix` behind its last name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    path.with_file_name(name)
}

/// Makes the name of `path` durable.
pub fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = || fs::File::open(parent)?.sync_all();
    sync().with_context(|| format!("cannot sync {}", parent.display()))
}

/// Creates a directory and those above it, mode 0700.
pub fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

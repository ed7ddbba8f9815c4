//! A box on its way into a fleet, or a member on the way to its next log: keys and request, kept beside the state directory
//! until the registrar has issued.
//!
//! Refuses to do: mix two fleets or registrars; overwrite a state directory.
//! Invariants: nothing below `<state>.enrolling` counts before it is renamed to the state directory; the log key is on the
//! disk only sealed to the device; a request that was sent is sent again byte for byte, until it is refused.

use super::registrar::Registrar;
use crate::config::Config;
use crate::identity::{make_private_dir, secret_key, sync_parent, with_suffix, write_atomically};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_enrolment::wire::{Remark, Request};
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::checked_json;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::TreeState;
use bulla_formats::hash::empty_root;
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::origin::Origin;
use bulla_keys::{KeyService, Role};
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

const FILE: &str = "enrolling.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PendingFile {
    version: u32,
    registrar: String,
    pin: String,
    counter: u64,
    sealed_log_key: String,
    /// DER; absent after a refusal.
    request: Option<String>,
    /// Of a log that is staged: the PCRs as they were quoted to the registrar, in hex; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
}

/// PCR values in hex, by their numbers.
pub type Boot = BTreeMap<u8, String>;

/// See the head of this file.
pub struct Pending {
    /// `<state>.enrolling`.
    pub directory: PathBuf,
    /// Keys of the device.
    pub keys: KeyService,
    /// The log's key.
    pub log_key: SigningKey,
    /// Value of the rollback counter that names the log.
    pub counter: u64,
    /// What is asked for.
    pub request: Request,
    registrar: Registrar,
    /// The log's key, sealed to the TPM, in base64.
    pub sealed_log_key: String,
    /// Whether this run made the request.
    pub is_new: bool,
    boot: Mutex<Option<Boot>>,
}

impl Pending {
    /// Goes on where an earlier run ended, or begins.
    ///
    /// # Errors
    /// When the box has a state directory already, when an enrolment elsewhere is under way, and without a TPM.
    pub fn open(config: &Config, registrar: &Registrar) -> Result<Self> {
        let state = &config.state_dir;
        ensure!(
            fs::read_dir(state).map(|mut entries| entries.next().is_none()).unwrap_or(true),
            "{} is not empty: this box has its log already, and a box is enrolled before its log begins; move that \
             directory away (its seals stay valid under their own trust file), or name another state_dir",
            state.display()
        );
        let directory = with_suffix(state, ".enrolling");
        let stored = match fs::read(directory.join(FILE)) {
            Ok(bytes) => Some(parse(&bytes).with_context(|| {
                format!("{} is not believed; remove {} to begin anew", FILE, directory.display())
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
        };
        match stored {
            Some(file) => Self::go_on(config, registrar, directory, file),
            None => Self::begin(config, registrar, directory),
        }
    }

    fn begin(config: &Config, registrar: &Registrar, directory: PathBuf) -> Result<Self> {
        if directory.exists() {
            // Without its file it has told nobody anything.
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove the half-made {}", directory.display()))?;
        }
        make_private_dir(&directory.join("keys"))?;
        let keys = KeyService::create(&config.provider(), &directory.join("keys"))
            .context("cannot make the keys of this box; check the [tpm] section and that the TPM answers")?;
        ensure!(
            keys.description().hardware == Hardware::Tpm,
            "keys in files cannot be enrolled: nothing proves where they are; configure [tpm], or run this box as a \
             fleet of one with `bulla-box init`"
        );
        // The counter only ever grows, so its value names a log that never was.
        let counter = keys.counter_increment().context("cannot move the TPM counter")?;
        let log_key = secret_key()?;
        let secret = Zeroizing::new(log_key.to_bytes());
        let sealed_log_key = base64_encode(&keys.seal(secret.as_slice()).context("cannot seal the log key")?);
        let request = compose(config, &keys, &log_key, counter, registrar, None)?;
        let registrar = registrar.clone();
        let (is_new, boot) = (true, Mutex::default());
        let pending =
            Pending { directory, keys, log_key, counter, request, registrar, sealed_log_key, is_new, boot };
        pending.save(true)?;
        Ok(pending)
    }

    /// The same for the log after the one that is in use: goes on where an earlier run ended, or begins. The box's own keys
    /// are asked; its log is not touched, and its counter not moved.
    ///
    /// # Errors
    /// When the counter's value is a log's name already, and without a TPM.
    pub fn stage(config: &Config, registrar: &Registrar, in_use: &Origin, named: u64) -> Result<Self> {
        let directory = with_suffix(&config.state_dir, ".staging");
        let stored = match fs::read(directory.join(FILE)) {
            Ok(bytes) => Some(parse(&bytes).with_context(|| {
                format!("{FILE} is not believed; remove {} to begin anew", directory.display())
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", directory.display())),
        };
        let keys = KeyService::open(&config.provider(), &config.state_dir.join("keys"))
            .context("cannot open the keys of this box")?;
        let counter =
            keys.counter()?.context("keys in files cannot be enrolled, so nothing can be staged")?;
        let stored = stored
            .filter(|file| Registrar::parse(&file.registrar, &file.pin).is_ok_and(|at| at == *registrar));
        let asked = stored.as_ref().and_then(|file| file.request.as_deref());
        let asked = asked.map(|text| anyhow::Ok(Request::decode(&base64_decode(text)?)?));
        let asked = asked.transpose().context("the stored request is not believed")?;
        // What is proven already is only waited for; what is not, names the counter's value as it is now.
        let going_on = asked.filter(|request| request.in_use.as_deref() == Some(in_use.as_str()));
        if let (Some(file), Some(request)) = (stored, going_on)
            && (file.boot.is_some() || file.counter == counter)
        {
            let log_key = unsealed(&keys, &file.sealed_log_key)?;
            return Ok(Pending {
                directory,
                keys,
                log_key,
                counter: file.counter,
                request,
                registrar: registrar.clone(),
                sealed_log_key: file.sealed_log_key,
                is_new: false,
                boot: Mutex::new(file.boot),
            });
        }
        ensure!(
            counter > named,
            "the TPM's counter stands at {counter}, and a log has that number already: let the box run until it has \
             moved (attestation.counter_seconds), then ask again"
        );
        make_private_dir(&directory)?;
        let log_key = secret_key()?;
        let secret = Zeroizing::new(log_key.to_bytes());
        let sealed_log_key = base64_encode(&keys.seal(secret.as_slice()).context("cannot seal the log key")?);
        let request = compose(config, &keys, &log_key, counter, registrar, Some(in_use))?;
        let (registrar, is_new, boot) = (registrar.clone(), true, Mutex::default());
        let pending =
            Pending { directory, keys, log_key, counter, request, registrar, sealed_log_key, is_new, boot };
        pending.save(true)?;
        Ok(pending)
    }

    /// The boot that the registrar was shown, if it was.
    pub fn boot(&self) -> Option<Boot> {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The boot that the registrar is about to be shown; kept for a log that is begun later.
    ///
    /// # Errors
    /// The file system's.
    pub fn quoted(&self, pcrs: &[PcrValue]) -> Result<()> {
        if self.request.in_use.is_none() {
            return Ok(());
        }
        let boot = pcrs.iter().map(|pcr| (pcr.pcr, hex::encode(*pcr.value))).collect();
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = Some(boot);
        self.save(true)
    }

    fn go_on(config: &Config, registrar: &Registrar, directory: PathBuf, file: PendingFile) -> Result<Self> {
        let under_way = Registrar::parse(&file.registrar, &file.pin)?;
        ensure!(
            under_way == *registrar,
            "an enrolment at {} (pin {}) is under way; go on with that, or remove {} to begin anew",
            file.registrar,
            file.pin,
            directory.display()
        );
        let keys = KeyService::open(&config.provider(), &directory.join("keys"))
            .context("cannot open the keys of this enrolment")?;
        let log_key = unsealed(&keys, &file.sealed_log_key)?;
        let stored = file.request.as_deref().map(|text| anyhow::Ok(Request::decode(&base64_decode(text)?)?));
        let stored = stored.transpose().context("the stored request is not believed")?;
        let now = compose(config, &keys, &log_key, file.counter, registrar, None)?;
        // After another boot the firmware's log is another one, and so must be the request.
        let kept = stored.filter(|stored| Request { nonce: stored.nonce, ..now.clone() } == *stored);
        let is_new = kept.is_none();
        let pending = Pending {
            directory,
            keys,
            log_key,
            counter: file.counter,
            request: kept.unwrap_or(now),
            registrar: registrar.clone(),
            sealed_log_key: file.sealed_log_key,
            is_new,
            boot: Mutex::default(),
        };
        pending.save(true)?;
        Ok(pending)
    }

    /// The name of the log.
    ///
    /// # Errors
    /// None for a request that was made here.
    pub fn origin(&self) -> Result<Origin> {
        Ok(Origin::parse(&self.request.origin)?)
    }

    /// The registrar has refused for good: the next run asks anew.
    ///
    /// # Errors
    /// The file system's.
    pub fn give_up(&self) -> Result<()> {
        self.save(false)
    }

    fn save(&self, with_request: bool) -> Result<()> {
        let file = PendingFile {
            version: VERSION,
            registrar: self.registrar.address().to_owned(),
            pin: self.registrar.pin().to_string(),
            counter: self.counter,
            sealed_log_key: self.sealed_log_key.clone(),
            request: with_request.then(|| base64_encode(&der::encode(&self.request))),
            boot: self.boot().filter(|_| with_request),
        };
        let text = checked_json::with_checksum(&serde_json::to_string_pretty(&file)?);
        write_atomically(&self.directory.join(FILE), text.as_bytes())
    }

    /// Whom it asks.
    pub fn registrar(&self) -> &Registrar {
        &self.registrar
    }
}

/// Removes what only concerned the way in from a state directory that has its name.
///
/// # Errors
/// The file system's.
pub fn forget(state: &Path) -> Result<()> {
    let path = state.join(FILE);
    fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    sync_parent(&path)
}

fn parse(bytes: &[u8]) -> Result<PendingFile> {
    let file: PendingFile = serde_json::from_slice(&checked_json::body(bytes)?).context("it is damaged")?;
    ensure!(file.version == VERSION, "it is of version {}; use the bulla-box that made it", file.version);
    Ok(file)
}

fn unsealed(keys: &KeyService, sealed: &str) -> Result<SigningKey> {
    let secret = keys.unseal(&base64_decode(sealed)?).context("cannot unseal the log key")?;
    let secret: &[u8; 32] = secret.as_slice().try_into().context("the sealed log key is not a key")?;
    Ok(SigningKey::from_bytes(secret))
}

fn compose(
    config: &Config,
    keys: &KeyService,
    log_key: &SigningKey,
    counter: u64,
    registrar: &Registrar,
    in_use: Option<&Origin>,
) -> Result<Request> {
    let device = keys.description();
    let public = |role| {
        let certification = device.key(role).certification.as_ref();
        certification
            .map(|said| said.tpmt_public.clone().into())
            .context("a key of the TPM has no certification")
    };
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let fleet = config.identity.fleet.clone();
    let origin = Origin::derive(&fleet, &device.ek_spki_sha256, counter)?;
    let request = Request {
        version: 1,
        registrar: Octets32::new(registrar.pin().0),
        nonce: Octets32::new(nonce),
        ek_public: device.ek_public.clone().into(),
        ek_certificates: device.ek_certificates.iter().map(|bytes| bytes.clone().into()).collect(),
        attestation_key: device.attestation_public.clone().into(),
        tls_key: public(Role::Tls)?,
        issuing_key: public(Role::Issuing)?,
        counter: device.counter_public.clone().into(),
        origin: origin.as_str().to_owned(),
        log_key: Octets32::new(log_key.verifying_key().to_bytes()),
        head: TreeState::new(0, empty_root()),
        event_log: event_log(config)?.into(),
        remarks: remarks(),
        in_use: in_use.map(|log| log.as_str().to_owned()),
        fleet,
    };
    // What the registrar could not read is said here, not there.
    Request::decode(&der::encode(&request)).context("this box cannot be described to a registrar")?;
    Ok(request)
}

fn event_log(config: &Config) -> Result<Vec<u8>> {
    let Some(path) = config.event_log() else { return Ok(Vec::new()) };
    match fs::read(&path) {
        Ok(bytes) => Ok(bytes),
        // No firmware log: virtual machines without UEFI, and kernels that do not show it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => bail!("cannot read the firmware's event log {}: {error}", path.display()),
    }
}

/// What the machine says of itself, for the person who approves.
fn remarks() -> Vec<Remark> {
    let dmi = |name: &str| fs::read_to_string(Path::new("/sys/class/dmi/id").join(name)).ok();
    let said = [
        ("serial", dmi("product_serial")),
        ("model", dmi("product_name")),
        ("host", fs::read_to_string("/proc/sys/kernel/hostname").ok()),
        ("bulla-box", Some(env!("CARGO_PKG_VERSION").to_owned())),
    ];
    let presentable = |text: String| {
        let text: String = text.trim().chars().filter(|c| !c.is_control()).take(64).collect();
        (!text.is_empty()).then_some(text)
    };
    let remark = |(name, value): (&str, Option<String>)| {
        Some(Remark { name: name.to_owned(), value: presentable(value?)? })
    };
    said.into_iter().filter_map(remark).collect()
}

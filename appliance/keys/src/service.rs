//! The key service: what the programs call. A handle to the thread that has the TPM or asks the signer for it, or to keys
//! in memory.
//!
//! Refuses: signing with the attestation key, quotes and counters without a TPM, arguments out of bounds.
//! Invariant: nothing is created by opening and nothing existing is replaced by creating.

use crate::actor::Actor;
use crate::chip::{self, Chip, Place};
use crate::device::{
    Certification, Cleared, CounterCertificate, Device, ENDORSED_PCRS, Endorsement, FarewellKey, Provider,
    Quote, Role,
};
use crate::software::{self, Software};
use crate::state::{self, State};
use crate::tpm::{self, Address};
use crate::{KeyError, MAX_SEALED};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Has the TPM forget every key and seal of its owner (TPM2_Clear): nothing that this box ever sealed opens again. No
/// [`KeyService`] may be open. Twice is as good as once.
///
/// # Errors
/// [`KeyError::NotHardware`] in software; [`KeyError::Unavailable`] while the TPM is away: its effect is unknown.
pub fn clear(provider: &Provider) -> Result<Cleared, KeyError> {
    match provider {
        Provider::Tpm { tcti } => chip::clear(&Place::parse(tcti)?),
        Provider::Software => Err(KeyError::NotHardware { what: "TPM2_Clear" }),
    }
}

/// The version floor that this TPM keeps for the image of the operating system; `None` while none was ever set.
///
/// # Errors
/// [`KeyError::NotHardware`] in software, and the TPM's refusals.
pub fn floor(provider: &Provider) -> Result<Option<u64>, KeyError> {
    match provider {
        Provider::Tpm { tcti } => tpm::floor::read(&Address::parse(tcti)?),
        Provider::Software => Err(KeyError::NotHardware { what: "a version floor" }),
    }
}

/// Raises the version floor of this TPM to `number`, and never lowers it; gives what holds from now on.
///
/// # Errors
/// [`KeyError::NotHardware`] in software, and the TPM's refusals.
pub fn raise_floor(provider: &Provider, number: u64) -> Result<u64, KeyError> {
    match provider {
        Provider::Tpm { tcti } => tpm::floor::raise(&Address::parse(tcti)?, number),
        Provider::Software => Err(KeyError::NotHardware { what: "a version floor" }),
    }
}

/// The quote of a farewell key over [`ENDORSED_PCRS`], by the TPM with this endorsement key (TPMT_PUBLIC), also after
/// [`clear`].
///
/// # Errors
/// [`KeyError::OtherTpm`], [`KeyError::NotHardware`], and the TPM's refusals.
pub fn farewell_quote(
    provider: &Provider,
    ek_public: &[u8],
    key: &FarewellKey,
    qualifying: [u8; 32],
) -> Result<Quote, KeyError> {
    let Provider::Tpm { tcti } = provider else {
        return Err(KeyError::NotHardware { what: "the farewell quote" });
    };
    chip::farewell_quote(&Place::parse(tcti)?, ek_public, key, &qualifying)
}

/// How long a call waits for the TPM, unless [`KeyService::with_deadline`] says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The keys of a box. Cheap to clone; clones share one connection. All calls block.
#[derive(Clone)]
pub struct KeyService {
    device: Arc<Device>,
    backend: Backend,
    deadline: Duration,
}

#[derive(Clone)]
enum Backend {
    Tpm(Arc<Actor<Chip>>),
    Software(Arc<Software>),
}

impl fmt::Debug for KeyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyService({:?}, {})", self.device.hardware, self.device.ek_spki_sha256)
    }
}

impl KeyService {
    /// Makes the keys of a box and writes `keys.json` into `dir`, which is created when it is not there.
    ///
    /// On a TPM that had keys before, the attestation key, the storage key and the counter are found and kept; the
    /// counter is incremented. Takes as long as the TPM takes, up to minutes for RSA.
    ///
    /// # Errors
    /// [`KeyError::Exists`] when `dir` holds keys; the TPM's and the file system's refusals.
    pub fn create(provider: &Provider, dir: &Path) -> Result<Self, KeyError> {
        state::require_absent(dir)?;
        let made = match provider {
            Provider::Tpm { tcti } => State::Tpm(chip::create(&Place::parse(tcti)?)?),
            Provider::Software => State::Software(software::create()?),
        };
        state::write(dir, made)?;
        Self::open(provider, dir)
    }

    /// Opens the keys in `dir` and checks that the TPM is the one they live in.
    ///
    /// # Errors
    /// [`KeyError::Missing`] without keys, [`KeyError::OtherTpm`], [`KeyError::Lost`] after the TPM was cleared,
    /// [`KeyError::OtherProvider`], [`KeyError::Damaged`], [`KeyError::Unavailable`] while the TPM is away.
    pub fn open(provider: &Provider, dir: &Path) -> Result<Self, KeyError> {
        let other = |expected, found| KeyError::OtherProvider { path: state::path(dir), expected, found };
        match (provider, state::read(dir)?) {
            (Provider::Tpm { tcti }, State::Tpm(stored)) => {
                let place = Place::parse(tcti)?;
                let device = tpm::describe(&stored)?;
                let chip = Chip::new(place, stored, device.clone())?;
                let actor = Actor::start(chip, Chip::close)?;
                actor.call("connecting to the TPM", DEADLINE, Chip::connect)?;
                Ok(Self {
                    device: Arc::new(device),
                    backend: Backend::Tpm(Arc::new(actor)),
                    deadline: DEADLINE,
                })
            }
            (Provider::Software, State::Software(stored)) => {
                let (software, device) = Software::load(&stored)?;
                Ok(Self {
                    device: Arc::new(device),
                    backend: Backend::Software(Arc::new(software)),
                    deadline: DEADLINE,
                })
            }
            (Provider::Tpm { .. }, State::Software(_)) => Err(other("tpm", "software")),
            (Provider::Software, State::Tpm(_)) => Err(other("software", "tpm")),
        }
    }

    /// The same service, whose calls through this handle wait for the TPM no longer than `deadline`.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The device and its public keys. Never asks the TPM.
    pub fn description(&self) -> &Device {
        &self.device
    }

    /// Quotes PCRs of the SHA-256 bank. `qualifying` must be a hash over a label and a structure of ours.
    ///
    /// # Errors
    /// [`KeyError::NotHardware`]; [`KeyError::Argument`] for a selection that is empty, repeats, or exceeds 23;
    /// [`KeyError::Unsettled`] while PCRs keep changing.
    pub fn quote(&self, qualifying: [u8; 32], pcrs: &[u8]) -> Result<Quote, KeyError> {
        let pcrs = tpm::selection(pcrs)?;
        self.tpm("quote", move |chip| chip.quote(&qualifying, &pcrs))
    }

    /// The device's word for a statement: a quote over [`ENDORSED_PCRS`], or in software a signature.
    pub fn endorse(&self, qualifying: [u8; 32]) -> Result<Endorsement, KeyError> {
        match &self.backend {
            Backend::Tpm(_) => self.quote(qualifying, &ENDORSED_PCRS).map(Endorsement::Tpm),
            Backend::Software(software) => {
                software.sign(Role::Attestation, &qualifying).map(Endorsement::Software)
            }
        }
    }

    /// Signs a SHA-256 digest: ECDSA P-256, r || s.
    ///
    /// # Errors
    /// [`KeyError::AttestationIsNoOracle`] for that role.
    pub fn sign(&self, role: Role, digest: [u8; 32]) -> Result<[u8; 64], KeyError> {
        if role == Role::Attestation {
            return Err(KeyError::AttestationIsNoOracle);
        }
        match &self.backend {
            Backend::Tpm(_) => self.tpm("sign", move |chip| chip.sign(role, &digest)),
            Backend::Software(software) => software.sign(role, &digest),
        }
    }

    /// The rollback counter; `None` in software.
    pub fn counter(&self) -> Result<Option<u64>, KeyError> {
        match &self.backend {
            Backend::Tpm(_) => self.tpm("counter", Chip::counter).map(Some),
            Backend::Software(_) => Ok(None),
        }
    }

    /// Increments the rollback counter and gives its new value. Wears flash: once per attestation window, not per seal.
    ///
    /// # Errors
    /// After [`KeyError::Unavailable`] it may or may not have moved: read it before anything else.
    pub fn counter_increment(&self) -> Result<u64, KeyError> {
        self.tpm("counter increment", Chip::counter_increment)
    }

    /// The counter of staged logs; `None` while no log was ever staged on this TPM.
    ///
    /// # Errors
    /// [`KeyError::NotHardware`]; another index at its place.
    pub fn staged_counter(&self) -> Result<Option<u64>, KeyError> {
        self.tpm("counter of staged logs", Chip::staged)
    }

    /// Increments it; defines it first when it is not there.
    ///
    /// # Errors
    /// As of [`KeyService::counter_increment`].
    pub fn staged_counter_increment(&self) -> Result<(), KeyError> {
        self.tpm("increment of the counter of staged logs", Chip::advance_staged)
    }

    /// Has the attestation key certify the counter's value. `qualifying` as for [`KeyService::quote`].
    pub fn counter_certify(&self, qualifying: [u8; 32]) -> Result<CounterCertificate, KeyError> {
        self.tpm("counter certificate", move |chip| chip.counter_certify(&qualifying))
    }

    /// Has the attestation key certify the key of a role anew. `qualifying` as for [`KeyService::quote`].
    ///
    /// # Errors
    /// [`KeyError::AttestationIsNoOracle`] for the attestation key itself; [`KeyError::NotHardware`].
    pub fn certify(&self, role: Role, qualifying: [u8; 32]) -> Result<Certification, KeyError> {
        self.tpm("certification", move |chip| chip.certify(role, &qualifying))
    }

    /// Reads the secret of a credential (TPMS_ID_OBJECT and encrypted secret) that was made for this TPM's endorsement
    /// key and attestation key.
    ///
    /// # Errors
    /// [`KeyError::Refused`] when it was made for others; [`KeyError::NotHardware`].
    pub fn activate(&self, id_object: &[u8], secret: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (id_object, secret) = (id_object.to_vec(), secret.to_vec());
        self.tpm("credential activation", move |chip| chip.activate(&id_object, &secret))
    }

    /// Encrypts 1 to [`MAX_SEALED`] bytes so that only this device can read them.
    pub fn seal(&self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        if secret.is_empty() || secret.len() > MAX_SEALED {
            return Err(KeyError::Argument { what: "seal", reason: "takes 1 to 128 bytes" });
        }
        match &self.backend {
            Backend::Tpm(_) => {
                let secret = Zeroizing::new(secret.to_vec());
                self.tpm("seal", move |chip| chip.seal(&secret))
            }
            Backend::Software(software) => software.seal(secret),
        }
    }

    /// The inverse of [`KeyService::seal`].
    ///
    /// # Errors
    /// [`KeyError::Damaged`] when another device sealed it or it was altered.
    pub fn unseal(&self, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        match &self.backend {
            Backend::Tpm(_) => {
                let blob = blob.to_vec();
                self.tpm("unseal", move |chip| chip.unseal(&blob))
            }
            Backend::Software(software) => software.unseal(blob),
        }
    }

    /// Makes a key that outlives [`clear`], certified by the attestation key. `qualifying` as for [`KeyService::quote`].
    ///
    /// # Errors
    /// [`KeyError::NotHardware`]; the TPM's refusals.
    pub fn farewell(&self, qualifying: [u8; 32]) -> Result<FarewellKey, KeyError> {
        self.tpm("farewell key", move |chip| chip.farewell(&qualifying))
    }

    /// Closes the TPM connection in order, for all clones. Waits for the call that is running.
    pub fn shutdown(&self) {
        if let Backend::Tpm(actor) = &self.backend {
            actor.stop();
        }
    }

    fn tpm<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce(&mut Chip) -> Result<T, KeyError> + Send + 'static,
    ) -> Result<T, KeyError> {
        match &self.backend {
            Backend::Tpm(actor) => actor.call(what, self.deadline, work),
            Backend::Software(_) => Err(KeyError::NotHardware { what }),
        }
    }
}

//! How a log begins: its name, the fleet's word for it, entry 0, and the identity file that puts it in force.
//!
//! Refuses to do: choose between a fleet of one and a fleet; replace a log.
//! Invariant: the identity file comes last; until it names the new log, the old one (or nothing) is in force.

use crate::config::Config;
use crate::driver::body::{self, EntryMaker};
use crate::driver::clock::Clock;
use crate::driver::clock::now_millis;
use crate::driver::outage::kept;
use crate::identity::{
    Created, IDENTITY_VERSION, IdentityFile, Predecessor, log_directory, make_private_dir, options,
    secret_key, write_file,
};
use anyhow::{Context as _, Result};
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::body::succession::SuccessionBody;
use bulla_formats::der;
use bulla_formats::enrolment::{Enrolment, EnrolmentContent, Hardware};
use bulla_formats::entry::{Kind, Residency, TreeState};
use bulla_formats::hash::empty_root;
use bulla_formats::json::base64_encode;
use bulla_formats::origin::Origin;
use bulla_keys::{EpochKey, KeyService, SealingKey};
use bulla_ledger::{DirStore, Intent, Ledger, NewEntry};
use bulla_protocol::mode::ModeRecord;
use ed25519_dalek::{Signer as _, SigningKey};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a new log begins with.
pub struct Beginning {
    /// Its name.
    pub origin: Origin,
    /// Its key.
    pub log_key: SigningKey,
    /// DER(Enrolment) that binds both to the device.
    pub enrolment: Vec<u8>,
    /// Public key of the root that the enrolment leads to.
    pub fleet_root: [u8; 32],
    /// That root's secret, where the box is a fleet of one.
    pub fleet_secret: Option<SigningKey>,
    /// Value of the rollback counter that names the log; `None` in software.
    pub counter: Option<u64>,
}

impl Beginning {
    /// A box that vouches for itself.
    ///
    /// # Errors
    /// The TPM's.
    pub fn of_one(config: &Config, keys: &KeyService, fleet_root: SigningKey) -> Result<Self> {
        let device = keys.description();
        let fleet = &config.identity.fleet;
        // The counter only ever grows, so its value names an incarnation that was never used before.
        let counter = match device.hardware {
            Hardware::Tpm => Some(keys.counter_increment().context("cannot move the TPM counter")?),
            Hardware::Software => None,
        };
        let now = now_millis();
        let origin = Origin::derive(fleet, &device.ek_spki_sha256, counter.unwrap_or(now))?;
        let log_key = secret_key()?;
        let content = EnrolmentContent {
            version: 1,
            fleet: fleet.clone(),
            origin: origin.as_str().to_owned(),
            hardware: device.hardware,
            ek_spki_sha256: der::Octets32::new(device.ek_spki_sha256.0),
            ek_certificates: device.ek_certificates.iter().map(|c| c.clone().into()).collect(),
            attestation_key: device.attestation_public.clone().into(),
            log_key: der::Octets32::new(log_key.verifying_key().to_bytes()),
            enrolled_at: now,
        };
        let signature = fleet_root.sign(&content.message()).to_bytes().to_vec();
        let enrolment = Enrolment { content, chain: Vec::new(), signature: signature.into() };
        Ok(Beginning {
            origin,
            log_key,
            enrolment: der::encode(&enrolment),
            fleet_root: fleet_root.verifying_key().to_bytes(),
            fleet_secret: Some(fleet_root),
            counter,
        })
    }
}

/// What a new log has of the one before it.
pub struct Succession {
    /// What it says of it.
    pub body: SuccessionBody,
    /// What it kept of the authorities' quotas.
    pub quotas: Option<Vec<u8>>,
}

/// Writes the log with entry 0 (and a succession entry), then the identity.
///
/// # Errors
/// The TPM's and the file system's.
pub fn write(
    config: &Config,
    keys: &KeyService,
    beginning: &Beginning,
    predecessors: Vec<Predecessor>,
    succession: Option<Succession>,
) -> Result<Created> {
    let Beginning { origin, log_key, enrolment, fleet_root, fleet_secret, counter } = beginning;
    let log = log_directory(&config.state_dir, origin);
    make_private_dir(&log)?;
    let mut ledger = Ledger::create(Arc::new(DirStore::open(&log)?), origin.as_str(), options(config))
        .context("cannot create the log")?;
    let residency = config.residency();
    let key = match residency {
        Residency::Tpm => SealingKey::Device(keys.clone()),
        Residency::TpmEndorsedRam | Residency::Software => SealingKey::Ram(EpochKey::generate()?),
    };
    let statement = body::epoch_statement(origin.as_str(), 0, None, &key, residency, keys);
    let endorsement =
        body::endorse(keys, &statement).context("the device does not endorse the first epoch")?;
    let first = KeyEpochBody {
        statement,
        first_index: 0,
        previous_extended: false,
        endorsement,
        predecessor: None,
        enrolment: Some(enrolment.clone().into()),
    };
    let mut maker = EntryMaker {
        origin,
        clock: &Clock::new(None),
        mode: ModeRecord::first_mode(!config.anchors.is_empty()),
        drill: false,
        evidence: None,
        epoch: 0,
        residency,
        key: &key,
        previous: TreeState::new(0, empty_root()),
        next_index: 0,
        lamport: 0,
    };
    let mut entries = vec![maker.make(Kind::KeyEpoch, der::encode(&first))?];
    if let Some(succession) = succession {
        entries.push(maker.make(Kind::Succession, der::encode(&succession.body))?);
        if let Some(quotas) = &succession.quotas {
            let taken = kept::take_over_plan(&ledger.control(), quotas).map_err(anyhow::Error::msg);
            taken.context("cannot take over the quotas in use")?;
        }
    }
    let entries = entries
        .iter()
        .map(|entry| NewEntry { entry: entry.bytes().to_vec(), ..NewEntry::default() })
        .collect();
    let committed = ledger.append(entries).context("cannot write the first entries")?;
    if let Some(counter) = *counter {
        // An intent is on disk from the first entry on; its absence later means a lost log.
        let intent = Intent { counter, size: committed.size(), root: committed.root() };
        ledger.control().commit_intent(intent).context("cannot write the first counter intent")?;
    }
    drop(ledger);

    let seal = |key: &SigningKey, what: &'static str| {
        let secret = Zeroizing::new(key.to_bytes());
        anyhow::Ok(base64_encode(&keys.seal(secret.as_slice()).context(what)?))
    };
    let file = IdentityFile {
        version: IDENTITY_VERSION,
        origin: origin.as_str().to_owned(),
        enrolment: base64_encode(enrolment),
        fleet_root: base64_encode(fleet_root),
        sealed_fleet_root: fleet_secret
            .as_ref()
            .map(|secret| seal(secret, "cannot seal the fleet root"))
            .transpose()?,
        sealed_log_key: seal(log_key, "cannot seal the log key")?,
        predecessors,
    };
    write_file(&config.state_dir, &file)?;
    Ok(Created { origin: origin.as_str().to_owned(), hardware: keys.description().hardware, left_queued: 0 })
}

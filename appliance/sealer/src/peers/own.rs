//! This box's own keys among its neighbours, and its card.
//!
//! `<state>/peers.json` (mode 0600) holds three Ed25519 keys, sealed by the device as the log key is, and the card. The keys
//! are made at the first start with `[peers]`, and anew for a new incarnation of the log.
//! Refuses to do: use one key for two purposes; write a card that goes back; cosign with keys whose past is forgotten.
//! Invariants: secrets leave this module only as keys that are zeroised when dropped; a card whose content changed has a
//! higher sequence number than the one before, also when `peers.json` was lost, because numbers begin with the time; the witness
//! and mirror keys are those that the trees in `mirrors/` were cosigned with. Where that directory is gone (a lost disk, a
//! restored backup, which holds no copies) nobody knows what they must not contradict, and others take their place.

use crate::config::{Config, PeersConfig};
use crate::driver::clock::now_millis;
use crate::driver::neighbours::MIRRORS;
use crate::identity::{self, Identity, secret_key, write_atomically};
use anyhow::{Context, Result, ensure};
use bulla_formats::checked_json;
use bulla_formats::der::Octets32;
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::{CardContent, CardSignatures, PeerCard};
use bulla_keys::KeyService;
use ed25519_dalek::{Signer as _, SigningKey};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const FILE: &str = "peers.json";
const FORMAT: &str = "peers/v1";

/// What a box needs to be somebody's neighbour.
pub struct Own {
    /// Cosigns heads that were found consistent.
    pub witness: SigningKey,
    /// Cosigns heads of which everything is durable here.
    pub mirror: SigningKey,
    /// The box's name on the wire.
    pub transport: SigningKey,
    /// Its card.
    pub card: PeerCard,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct OwnFile {
    bulla: String,
    sealed_witness_key: String,
    sealed_mirror_key: String,
    sealed_transport_key: String,
    card: String,
}

impl Own {
    /// Opens what is there, makes what is missing, and keeps a card that says what the configuration does.
    pub fn open(state_dir: &Path, config: &PeersConfig, identity: &Identity) -> Result<Self> {
        let kept = read(state_dir)?;
        // A new incarnation is another neighbour: nothing of the old one's stands for it.
        let kept = kept.filter(|(_, card)| card.origin() == &identity.origin);
        let mirrors = state_dir.join(MIRRORS);
        let remembers = mirrors.is_dir();
        let unsealed = |sealed: &str, public: &[u8; 32]| unseal(&identity.keys, sealed, public);
        let [witness, mirror] = match &kept {
            Some((file, card)) if remembers => [
                unsealed(&file.sealed_witness_key, &card.content().witness_key)?,
                unsealed(&file.sealed_mirror_key, &card.content().mirror_key)?,
            ],
            Some(_) | None => [secret_key()?, secret_key()?],
        };
        // The neighbours know the box by this one, and let it in.
        let transport = match &kept {
            Some((file, card)) => unsealed(&file.sealed_transport_key, &card.content().transport_key)?,
            None => secret_key()?,
        };
        if kept.is_some() && !remembers {
            log::warn!(
                "{} is gone, and with it what this box has cosigned: from now on it cosigns with new keys; hand its card \
                 out again (`bulla-box peers card`), its fingerprint stays",
                mirrors.display()
            );
        }
        let public = |key: &SigningKey| Octets32::new(key.verifying_key().to_bytes());
        let before = kept.as_ref().map(|(_, card)| card);
        let content = CardContent {
            version: 1,
            origin: identity.origin.as_str().to_owned(),
            log_key: public(&identity.log_key),
            witness_key: public(&witness),
            mirror_key: public(&mirror),
            transport_key: public(&transport),
            sequence: before.map_or(0, |card| card.content().sequence),
            addresses: config.advertise.clone(),
        };
        if let Some(card) = before.filter(|card| *card.content() == content) {
            return Ok(Own { witness, mirror, transport, card: card.clone() });
        }
        let sequence = (content.sequence + 1).max(now_millis() / 1_000);
        let content = CardContent { sequence, ..content };
        let message = content.message();
        let signed = |key: &SigningKey| key.sign(&message).to_bytes().to_vec().into();
        let signatures = CardSignatures {
            log: signed(&identity.log_key),
            witness: signed(&witness),
            mirror: signed(&mirror),
            transport: signed(&transport),
        };
        let card = PeerCard::assemble(content, signatures).context("this box's own card")?;
        let file = OwnFile {
            bulla: FORMAT.to_owned(),
            sealed_witness_key: seal(&identity.keys, &witness)?,
            sealed_mirror_key: seal(&identity.keys, &mirror)?,
            sealed_transport_key: seal(&identity.keys, &transport)?,
            card: base64_encode(card.bytes()),
        };
        let text = checked_json::with_checksum(&serde_json::to_string_pretty(&file)?);
        write_atomically(&path(state_dir), text.as_bytes())?;
        // After the keys: a death in between makes others once more, never leaves old ones with nothing to remember.
        identity::make_private_dir(&mirrors)?;
        identity::sync_parent(&mirrors)?;
        Ok(Own { witness, mirror, transport, card })
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn seal(keys: &KeyService, key: &SigningKey) -> Result<String> {
    let secret = Zeroizing::new(key.to_bytes());
    Ok(base64_encode(&keys.seal(secret.as_slice()).context("cannot seal the keys of peers.json")?))
}

fn unseal(keys: &KeyService, sealed: &str, public: &[u8; 32]) -> Result<SigningKey> {
    let secret = keys.unseal(&base64_decode(sealed)?).context("cannot unseal the keys of peers.json")?;
    let secret: &[u8; 32] = secret.as_slice().try_into().context("a sealed key of peers.json is none")?;
    let key = SigningKey::from_bytes(secret);
    ensure!(
        key.verifying_key().to_bytes() == *public,
        "a sealed key of peers.json is not the one on the card; bring back the file that went with it"
    );
    Ok(key)
}

fn read(state_dir: &Path) -> Result<Option<(OwnFile, PeerCard)>> {
    let path = path(state_dir);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let parse = || -> Result<(OwnFile, PeerCard)> {
        let file: OwnFile = serde_json::from_slice(&checked_json::body(&bytes)?)?;
        ensure!(file.bulla == FORMAT, "it is of format {:?}; use a newer bulla-box", file.bulla);
        let card = PeerCard::decode(&base64_decode(&file.card)?)?;
        Ok((file, card))
    };
    let read = parse().with_context(|| {
        format!("{} is not believed; bring it back from a copy, or remove it for new keys", path.display())
    });
    read.map(Some)
}

/// The card as it was last written, of this log.
pub fn stored_card(state_dir: &Path, origin: &Origin) -> Result<Option<PeerCard>> {
    Ok(read(state_dir)?.map(|(_, card)| card).filter(|card| card.origin() == origin))
}

/// The card that goes with the configuration: the stored one, or a new one, for which the box must be stopped.
pub fn current_card(config: &Config, peers: &PeersConfig) -> Result<PeerCard> {
    let (origin, log) = identity::current_log(config)?;
    let stored = stored_card(&config.state_dir, &origin)?;
    if let Some(card) = stored.filter(|card| card.content().addresses == peers.advertise) {
        return Ok(card);
    }
    let _stopped = bulla_ledger::DirStore::open(&log).context(
        "the configuration has changed since the box started; restart it, which writes its card anew",
    )?;
    let identity = identity::open(config)?;
    let own = Own::open(&config.state_dir, peers, &identity);
    identity.keys.shutdown();
    Ok(own?.card)
}

//! What an RFC 3161 token rests on: the interop key of the key epoch, its certificate, and the seal that every token is.
//!
//! Refuses to do: stamp what is not durable; stamp while the box does not seal (what would be queued has no time yet);
//! state a time that is not the entry's own.
//! Invariants: time, accuracy and serial number of a token follow from its entry; the key that signs is one that the device
//! has endorsed in a key-epoch entry which is durable.

use super::epochs::PrepareError;
use super::{Answer, Condition, SealError, SealOrder, Sealer, Shared, stopping};
use crate::tls::Certifier;
use bulla_formats::body::key_epoch::{EpochKey, Purpose};
use bulla_formats::entry::{Entry, LocalTime, Residency};
use bulla_formats::sig::Algorithm;
use bulla_keys::InteropKey;
use bulla_timestamps::responder::Certificate;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// How long a stamp waits for a seal that was queued all the same, between one look at the box and the next.
const QUEUED_PATIENCE: Duration = Duration::from_secs(5);

/// Signs the tokens of one key epoch.
#[derive(Debug)]
pub struct Stamper {
    epoch: u64,
    key: InteropKey,
    certificate: Certificate,
}

impl Stamper {
    /// A new key for `epoch`, and its certificate.
    pub(super) fn make(certifier: &Certifier, origin: &str, epoch: u64) -> Result<Self, PrepareError> {
        let key = InteropKey::generate()?;
        let certificate = certifier.certify(key.public(), origin, epoch)?;
        Ok(Stamper { epoch, key, certificate })
    }

    /// As the epoch statement names it. It lives where a sealing key in RAM would, wherever the sealing key lives.
    pub(super) fn epoch_key(&self, sealing: Residency) -> EpochKey {
        let residency = match sealing {
            Residency::Tpm | Residency::TpmEndorsedRam => Residency::TpmEndorsedRam,
            Residency::Software => Residency::Software,
        };
        EpochKey {
            purpose: Purpose::Interop,
            algorithm: Algorithm::P256,
            residency,
            public_key: self.key.public().to_vec().into(),
            certification: None,
        }
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Signs a message: DER of an ECDSA signature with SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message)
    }
}

/// A seal that a token is made of.
#[derive(Debug)]
pub struct Stamped {
    /// Its entry.
    pub entry: Arc<Entry>,
    /// What signs the token.
    pub stamper: Arc<Stamper>,
}

impl Stamped {
    /// The number of its token: the index in 64 bits, the first 64 bits of the leaf hash. The seal's id says the same.
    pub fn serial(&self) -> u128 {
        let leaf = self.entry.leaf_hash().0;
        let leaf = leaf[..8].iter().fold(0u128, |number, byte| number << 8 | u128::from(*byte));
        u128::from(self.entry.content().index) << 64 | leaf
    }
}

impl Sealer {
    /// The time as an entry would state it now.
    pub fn local_time(&self) -> LocalTime {
        self.shared.clock.local_time()
    }

    /// What signs tokens now.
    ///
    /// # Errors
    /// Why the box makes none at present, in words.
    pub fn stamper(&self) -> Result<Arc<Stamper>, String> {
        match self.shared.condition() {
            // The writer is asked all the same: it may be able to recover.
            Condition::Sealing | Condition::Poisoned { .. } | Condition::DiskFull => {}
            Condition::Locked(_) => return Err("an operator has locked the box".to_owned()),
            Condition::Retiring => return Err("this box retires and stamps no more".to_owned()),
            Condition::Limited => {
                return Err(
                    "a limit of emergency operation is reached; the box stamps again after the outage"
                        .to_owned(),
                );
            }
            Condition::KeyAway { .. } => {
                return Err("the sealing key cannot sign, its device does not answer".to_owned());
            }
            Condition::RollbackSuspected { .. } => {
                return Err(
                    "a rollback is suspected, and nothing is signed until an operator decides".to_owned()
                );
            }
        }
        self.shared.stamper().ok_or_else(|| "this run has no key for time stamps yet".to_owned())
    }

    /// Seals what a token is to be of. `stamper` is what signed before; a key epoch may begin meanwhile.
    ///
    /// # Errors
    /// As those of a seal. A request that the writer queues all the same is waited for, and then given up: it becomes a seal
    /// that nobody has a token of.
    pub async fn stamp(&self, order: SealOrder, stamper: Arc<Stamper>) -> Result<Stamped, SealError> {
        let entry = match self.order(order).await? {
            Answer::Sealed(sealed) => sealed.entry,
            Answer::Queued(queued) => {
                let failed = |error: super::LookupError| SealError::Failed { reason: error.to_string() };
                let sealed = self.sealed_from_queue(queued.id, QUEUED_PATIENCE).await.map_err(failed)?;
                let index = sealed.map(|receipt| receipt.index);
                let index = index.ok_or(SealError::Locked { reason: queued.reason })?;
                Arc::new(self.entry(index).map_err(failed)?)
            }
        };
        let epoch = entry.content().epoch;
        let stamper = match self.shared.stamper() {
            Some(newest) if newest.epoch == epoch => newest,
            _ if stamper.epoch == epoch => stamper,
            // Two epochs have begun since: the newest key is as good.
            Some(newest) => newest,
            None => return Err(stopping()),
        };
        Ok(Stamped { entry, stamper })
    }
}

impl Shared {
    fn stamper(&self) -> Option<Arc<Stamper>> {
        self.stamper.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key of an epoch that has begun; the one before is zeroized once the last request that has it has ended.
    pub(super) fn set_stamper(&self, stamper: Option<Stamper>) {
        *self.stamper.write().unwrap_or_else(PoisonError::into_inner) = stamper.map(Arc::new);
    }
}

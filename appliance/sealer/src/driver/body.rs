//! Making entries: headers, epoch statements, endorsements.
//!
//! Refuses to do: decide when; it only knows how. Invariant: an [`EntryMaker`] numbers without gaps.

use super::clock::Clock;
use bulla_formats::body::key_epoch::{
    Certification, Endorsement, EpochKey, EpochStatement, PcrValue, Purpose, TpmQuote,
};
use bulla_formats::der::{self, DerError};
use bulla_formats::entry::{Entry, EntryContent, EntryRef, Kind, Mode, Residency, TreeState};
use bulla_formats::hash::Hash;
use bulla_formats::origin::Origin;
use bulla_keys::{KeyError, KeyService, Role, SealingKey};

/// Makes the entries of one batch.
pub struct EntryMaker<'a> {
    /// The log.
    pub origin: &'a Origin,
    /// Says what time it is.
    pub clock: &'a Clock,
    /// Mode in force.
    pub mode: Mode,
    /// Whether the entries belong to a drill.
    pub drill: bool,
    /// The newest time evidence before the batch.
    pub evidence: Option<EntryRef>,
    /// Epoch of `key`.
    pub epoch: u64,
    /// Where `key` lives.
    pub residency: Residency,
    /// Signs.
    pub key: &'a SealingKey,
    /// The tree before the batch.
    pub previous: TreeState,
    /// Index of the next entry.
    pub next_index: u64,
    /// Lamport time of the newest entry.
    pub lamport: u64,
}

/// Why an entry could not be made; no index was used up.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The body is too long or out of range.
    #[error(transparent)]
    Body(#[from] DerError),
    /// The sealing key cannot sign now.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl EntryMaker<'_> {
    /// Signs the next entry.
    pub fn make(&mut self, kind: Kind, body: Vec<u8>) -> Result<Entry, MakeError> {
        let content = EntryContent {
            version: 1,
            index: self.next_index,
            lamport: self.lamport + 1,
            time: self.clock.local_time(),
            mode: self.mode,
            drill: self.drill,
            epoch: self.epoch,
            residency: self.residency,
            previous: self.previous.clone(),
            evidence: self.evidence.clone(),
            kind: kind as u16,
            body: body.into(),
        };
        let signature = self.key.sign(&content.message(self.origin.as_str()))?;
        let entry = Entry::assemble(content, signature)?;
        self.next_index += 1;
        self.lamport += 1;
        Ok(entry)
    }
}

/// The statement that introduces `key` as the sealing key of an epoch.
pub fn epoch_statement(
    origin: &str,
    epoch: u64,
    previous: Option<Hash>,
    key: &SealingKey,
    residency: Residency,
    keys: &KeyService,
) -> EpochStatement {
    let (algorithm, public_key) = key.public();
    let certification = match residency {
        Residency::Tpm => {
            keys.description().key(Role::Sealing).certification.as_ref().map(|c| Certification {
                public_area: c.tpmt_public.clone().into(),
                attest: c.attest.clone().into(),
                signature: c.signature.clone().into(),
            })
        }
        Residency::TpmEndorsedRam | Residency::Software => None,
    };
    EpochStatement {
        version: 1,
        origin: origin.to_owned(),
        epoch,
        previous: previous.map(|hash| der::Octets32::new(hash.0)),
        keys: vec![EpochKey {
            purpose: Purpose::Sealing,
            algorithm,
            residency,
            public_key: public_key.into(),
            certification,
        }],
    }
}

/// Has the device vouch for `statement`.
pub fn endorse(keys: &KeyService, statement: &EpochStatement) -> Result<Endorsement, KeyError> {
    Ok(endorsement(keys.endorse(statement.qualifying_data().0)?))
}

/// A device's word in the form entries carry.
pub fn endorsement(word: bulla_keys::Endorsement) -> Endorsement {
    match word {
        bulla_keys::Endorsement::Tpm(quote) => Endorsement::Quote(tpm_quote(quote)),
        bulla_keys::Endorsement::Software(signature) => Endorsement::Software(signature.to_vec().into()),
    }
}

/// A quote in the form entries carry.
pub fn tpm_quote(quote: bulla_keys::Quote) -> TpmQuote {
    let value = |(pcr, value): (u8, [u8; 32])| PcrValue { pcr, value: der::Octets32::new(value) };
    TpmQuote {
        attest: quote.attest.into(),
        signature: quote.signature.into(),
        pcrs: quote.pcrs.into_iter().map(value).collect(),
    }
}

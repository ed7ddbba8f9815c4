//! What a custodian keeps between two steps: secrets, and what it has already said.
//!
//! Refuses to do: exist in clear memory after use (its bytes are zeroised), or be read by another version.
//! Invariant: what it holds was on disk before anything that follows from it was shown to anybody.

use crate::error::{CeremonyError, Result};
use bulla_formats::der::{self, Octets32};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use zeroize::{Zeroize, Zeroizing};

/// Longest state in bytes.
pub const STATE_BYTES_MAX: usize = 1 << 20;

/// Where a custodian stands with the key.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
#[rasn(choice)]
pub enum Stage {
    /// Nothing made yet; false until the person has agreed to the plan.
    #[rasn(tag(context, 0))]
    Fresh(bool),
    /// After the first round: its secret.
    #[rasn(tag(context, 1))]
    First(OctetString),
    /// After the second round: its secret.
    #[rasn(tag(context, 2))]
    Second(OctetString),
    /// With a part of the key.
    #[rasn(tag(context, 3))]
    Done(OctetString),
}

/// What a custodian did about a request.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
#[rasn(choice)]
pub enum Answer {
    /// The person said no.
    #[rasn(tag(context, 0))]
    Declined(bool),
    /// The person said yes; the nonces wait for the quorum.
    #[rasn(tag(context, 1))]
    Nonces(OctetString),
    /// Signed, or not needed: the nonces are gone. The hash of the quorum's message.
    #[rasn(tag(context, 2))]
    Answered(Octets32),
}

/// A request a custodian has seen.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Number of the request.
    pub number: u64,
    /// Hash of its message.
    pub hash: Octets32,
    /// What was done about it.
    pub answer: Answer,
}

/// Everything a custodian keeps of one ceremony.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// 1.
    pub version: u64,
    /// The plan by hash.
    pub plan: Octets32,
    /// The key.
    pub stage: Stage,
    /// Requests in the order they came.
    pub rounds: Vec<Round>,
    /// Every message said so far, so that a lost file is laid out again as it was and never said differently.
    pub said: Vec<OctetString>,
}

impl State {
    /// The state before anything happened.
    pub fn fresh(plan: [u8; 32]) -> Self {
        let (stage, plan) = (Stage::Fresh(false), Octets32::new(plan));
        State { version: 1, plan, stage, rounds: Vec::new(), said: Vec::new() }
    }

    /// Reads a state.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let state: State = der::decode("custodian's state", bytes, STATE_BYTES_MAX)?;
        if state.version != 1 {
            return Err(CeremonyError::refused(
                "the custodian's state",
                "it is of a version this program does not know",
            ));
        }
        Ok(state)
    }

    /// Its bytes, secrets included.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(der::encode(self))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        let secrets = [match &mut self.stage {
            Stage::First(secret) | Stage::Second(secret) | Stage::Done(secret) => Some(secret),
            Stage::Fresh(_) => None,
        }];
        let nonces = self.rounds.iter_mut().map(|round| match &mut round.answer {
            Answer::Nonces(secret) => Some(secret),
            Answer::Declined(_) | Answer::Answered(_) => None,
        });
        for secret in secrets.into_iter().chain(nonces).flatten() {
            forget(secret);
        }
    }
}

/// Overwrites an octet string if nobody else holds it.
fn forget(secret: &mut OctetString) {
    if let Ok(mut bytes) = bytes::Bytes::from(std::mem::take(secret)).try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

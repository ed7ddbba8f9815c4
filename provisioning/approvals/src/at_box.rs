//! What a box carries out itself when enough people have approved it, and how it asks: docs/formats.md section 15.
//!
//! Refuses to do: know the box; its log and its nonce are what a [`Target`] says, and the box compares them.
//! Invariant: people approve the very bytes that the box asked for.

use crate::action::{ACTION_BYTES_MAX, Target};
use crate::refusal::{Refusal, Result};
use bulla_formats::der;
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::origin::Origin;
use bulla_formats::retirement::Extent;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest question in bytes.
pub const ASK_BYTES_MAX: usize = 4 << 10;

/// Parameters of an action of the kind `box`.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum BoxAction {
    /// The log ends, and what is secret is destroyed.
    #[rasn(tag(explicit(context, 0)))]
    Retire(Retire),
}

/// Parameters of a retirement.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Retire {
    /// What goes.
    pub extent: Extent,
    /// It may be done though no authority has anchored the last seals.
    pub without_anchors: bool,
    /// It may be done though no neighbour holds the last seals.
    pub without_copies: bool,
}

impl BoxAction {
    /// Reads the parameters of an action.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Ok(der::decode("parameters", bytes, ACTION_BYTES_MAX)?)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// Name in texts.
    pub fn name(&self) -> &'static str {
        match self {
            BoxAction::Retire(_) => "retire",
        }
    }
}

/// A box asks people to approve something that it would do.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ask {
    /// 1.
    pub version: u64,
    /// Its log as it is, and the nonce that it takes back by use.
    pub target: Target,
    /// DER of a [`BoxAction`].
    pub parameters: OctetString,
}

impl Ask {
    /// Reads a question.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let ask: Ask = der::decode("question of a box", bytes, ASK_BYTES_MAX)?;
        let malformed = |why: &str| Err(Refusal::Malformed(why.to_owned()));
        if ask.version != 1 {
            return malformed("its version is not 1");
        }
        if ask.target.size == 0 || ask.target.size > NUMBER_MAX || Origin::parse(&ask.target.origin).is_err()
        {
            return malformed("it names no log with an entry");
        }
        BoxAction::decode(&ask.parameters)?;
        Ok(ask)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// What it would do.
    pub fn action(&self) -> Result<BoxAction> {
        BoxAction::decode(&self.parameters)
    }
}

//! How a roster travels: who has which version, and what is missing.
//!
//! A roster grows by changes, each chained to the one before; so whoever has version *n* is handed the changes after it and
//! replays them, and believes nobody. The same answer is given by a neighbour and by the registrar.
//! Refuses to do: read a change or the minutes; to the formats they are bytes.
//! Invariants: whatever decodes keeps its limits, and fits an answer between peers.

use super::card::{CARD_BYTES_MAX, PeerCard};
use crate::der::{self, DerError, Octets32};
use crate::entry::NUMBER_MAX;
use crate::origin::check_fleet;
use crate::sig::{Algorithm, PublicKey, label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most changes of one answer.
pub const CHANGES_MAX: usize = 64;
/// Most bytes of the changes of one answer together: more than the longest one, so that it goes on.
pub const CHANGES_BYTES_MAX: usize = 2 << 20;
/// Longest change: docs/formats.md section 15.
pub const CHANGE_BYTES_MAX: usize = 1_114_112;
/// Longest minutes: docs/formats.md section 14.
pub const FOUNDING_BYTES_MAX: usize = 524_288;
/// Most cards of one answer.
pub const MOVED_MAX: usize = 64;
/// Most bytes of a request to the registrar.
pub const ROSTER_REQUEST_BYTES_MAX: usize = 8_192;
const WHAT: &str = "roster between peers";
const REQUEST: &str = "roster request";

/// A version of a fleet's roster.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RosterKnown {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Octets32,
}

/// A question for what comes after a version.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RosterAsked {
    /// What the asker has; nothing: from the founding on.
    pub known: Option<RosterKnown>,
}

/// What comes after a version.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RosterSaid {
    /// DER of the minutes that the roster begins with; exactly when the asker has nothing.
    #[rasn(tag(context, 0))]
    pub founding: Option<OctetString>,
    /// DER of a change each, the next ones in order; not always all.
    pub changes: Vec<OctetString>,
    /// DER of a card each: where boxes of the roster are by now.
    pub moved: Vec<OctetString>,
    /// Number of the sender's last version.
    pub last: u64,
}

impl RosterKnown {
    pub(super) fn check(&self) -> Result<(), DerError> {
        demand(self.number <= NUMBER_MAX, "a number is above 2^63 - 1")
    }
}

impl RosterSaid {
    /// Reads an answer that stands for itself: the registrar's.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let said: RosterSaid = der::decode(WHAT, bytes, super::message::ANSWER_BYTES_MAX)?;
        said.check()?;
        Ok(said)
    }

    pub(super) fn check(&self) -> Result<(), DerError> {
        let founding = self.founding.as_ref().map_or(0, |founding| founding.len());
        demand(founding <= FOUNDING_BYTES_MAX, "the minutes are too long")?;
        demand(self.changes.len() <= CHANGES_MAX, "it has more than 64 changes")?;
        let short = self.changes.iter().all(|change| (1..=CHANGE_BYTES_MAX).contains(&change.len()));
        demand(short, "a change is empty or too long")?;
        let bytes: usize = self.changes.iter().map(|change| change.len()).sum();
        demand(bytes <= CHANGES_BYTES_MAX, "its changes are too long together")?;
        let short = self.moved.iter().all(|card| (1..=CARD_BYTES_MAX).contains(&card.len()));
        demand(short && self.moved.len() <= MOVED_MAX, "a card is empty or too long, or there are too many")?;
        demand(self.last <= NUMBER_MAX, "a number is above 2^63 - 1")
    }
}

fn demand(holds: bool, reason: &'static str) -> Result<(), DerError> {
    if holds { Ok(()) } else { Err(DerError::Range { what: WHAT, reason }) }
}

/// What a box asks of the registrar, and hands to it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RosterRequestContent {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// DER of the box's own card.
    pub card: OctetString,
    /// tls-exporter binding (RFC 9266) of the connection it is sent through.
    pub channel: Octets32,
    /// The version that the box has.
    pub known: Option<RosterKnown>,
}

/// The same, signed by the card's transport key: whoever only has a copy of the card is told nothing.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RosterRequest {
    /// What is asked.
    pub content: RosterRequestContent,
    /// Ed25519, 64 bytes.
    pub signature: OctetString,
}

impl RosterRequestContent {
    /// The message that the transport key signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::ROSTER_REQUEST, &der::encode(self))
    }
}

impl RosterRequest {
    /// Reads a request that came through the connection `channel`, and verifies it; with the card on it.
    pub fn open(bytes: &[u8], channel: &[u8; 32]) -> Result<(RosterRequestContent, PeerCard), DerError> {
        let range = |reason| DerError::Range { what: REQUEST, reason };
        let request: RosterRequest = der::decode(REQUEST, bytes, ROSTER_REQUEST_BYTES_MAX)?;
        let content = request.content;
        if content.version != 1 {
            return Err(range("its version is not 1"));
        }
        if check_fleet(&content.fleet).is_err() {
            return Err(range("its fleet is none"));
        }
        if content.known.as_ref().is_some_and(|known| known.check().is_err()) {
            return Err(range("a number is above 2^63 - 1"));
        }
        let card = PeerCard::decode(&content.card).map_err(|_| range("its card is none"))?;
        if *content.channel != *channel {
            return Err(range("it was made for another connection"));
        }
        let key = PublicKey::from_bytes(Algorithm::Ed25519, card.transport_key());
        key.and_then(|key| key.verify(&content.message(), &request.signature))
            .map_err(|_| range("the card's transport key has not signed it"))?;
        Ok((content, card))
    }
}

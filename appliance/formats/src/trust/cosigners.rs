//! Whose word counts that a log was mirrored or witnessed: cards of boxes that operators have looked at.
//!
//! Refuses to do: take a card from a `.seal`; whoever made the seal could have made the card.
//! Invariants: every card verifies; they stand in ascending order of their origins; no two share a key, so that no box
//! counts twice under two names.

use super::TrustError;
use crate::json::{base64_decode, base64_encode};
use crate::peer::card::PeerCard;
use serde_json::Value;

/// Most cards in one trust file.
pub const COSIGNERS_MAX: usize = 32;

/// Reads the member `cosigners`.
pub(super) fn read(items: &[Value]) -> Result<Vec<PeerCard>, TrustError> {
    let malformed = |what: String| TrustError::Malformed(what);
    if items.is_empty() || items.len() > COSIGNERS_MAX {
        return Err(malformed("it names no cosigner, or more than 32".into()));
    }
    let mut cards: Vec<PeerCard> = Vec::with_capacity(items.len());
    for item in items {
        let bytes = item.as_str().and_then(|text| base64_decode(text).ok());
        let bytes = bytes.ok_or_else(|| malformed("a cosigner's card is not base64".into()))?;
        let card = PeerCard::decode(&bytes);
        let card = card.map_err(|error| malformed(format!("a cosigner's card is refused: {error}")))?;
        if cards.last().is_some_and(|before| before.origin().as_str() >= card.origin().as_str()) {
            return Err(malformed("its cosigners are not in ascending order of their origins".into()));
        }
        if cards.iter().any(|other| other.shares_a_key(&card)) {
            return Err(malformed("two of its cosigners share a key".into()));
        }
        cards.push(card);
    }
    Ok(cards)
}

pub(super) fn write(cards: &[PeerCard]) -> Vec<Value> {
    cards.iter().map(|card| base64_encode(card.bytes()).into()).collect()
}

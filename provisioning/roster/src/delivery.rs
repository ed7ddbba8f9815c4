//! How a roster is handed on: whoever has version *n* is told the changes after it, and replays them.
//!
//! Refuses to do: believe whoever tells; a change counts because the people of the version before approved it.
//! Invariants: what [`take`] returns continues what was there; an answer of [`tell`] keeps the limits of one.

use crate::Result;
use crate::refusal::RosterRefusal;
use crate::roster::Roster;
use bulla_approvals::Refusal;
use bulla_approvals::action::{CHANGE_BYTES_MAX, Change, Version};
use bulla_ceremony::transcript::Transcript;
use bulla_formats::der;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::roster::{CHANGES_BYTES_MAX, CHANGES_MAX, MOVED_MAX, RosterKnown, RosterSaid};
use rasn::types::OctetString;

/// The version of a roster, as peers name it.
pub fn known(version: &Version) -> RosterKnown {
    RosterKnown { number: version.number, hash: version.hash }
}

/// What comes after `known`, as far as it fits; and cards that moved.
///
/// # Errors
/// `forked`: the version that was named is none of this roster's.
pub fn tell(roster: &Roster, known: Option<&RosterKnown>, moved: &[PeerCard]) -> Result<RosterSaid> {
    let last = roster.version().number;
    let after = match known {
        None => 0,
        Some(known) if known.number > last => last,
        Some(known) => {
            roster.check_seen(&Version { number: known.number, hash: known.hash })?;
            known.number
        }
    };
    let (mut changes, mut bytes): (Vec<OctetString>, _) = (Vec::new(), 0);
    // Version n is made by change n, which stands at n - 1.
    let after = usize::try_from(after).unwrap_or(usize::MAX);
    for done in roster.history().iter().skip(after).take(CHANGES_MAX) {
        let change = done.change.encode();
        bytes += change.len();
        if bytes > CHANGES_BYTES_MAX {
            break;
        }
        changes.push(change.into());
    }
    let founding = known.is_none().then(|| der::encode(roster.founding()).into());
    let moved = moved.iter().take(MOVED_MAX).map(|card| card.bytes().to_vec().into()).collect();
    Ok(RosterSaid { founding, changes, moved, last })
}

/// The roster that an answer makes of the one before; `None` when it brings nothing. Whether its root is believed, the
/// caller asks.
///
/// # Errors
/// What speaks against the answer.
pub fn take(before: Option<&Roster>, said: &RosterSaid) -> Result<Option<Roster>> {
    let mut roster = match (before, &said.founding) {
        (Some(before), None) => before.clone(),
        (None, Some(founding)) => {
            let founding = Transcript::decode(founding)?;
            Roster::found(founding)?
        }
        _ => return Err(Refusal::Malformed("it begins elsewhere than was asked".into()).into()),
    };
    for change in &said.changes {
        let change: Change = der::decode("change", change, CHANGE_BYTES_MAX).map_err(RosterRefusal::from)?;
        roster.replay(change)?;
    }
    Ok((before.is_none() || !said.changes.is_empty()).then_some(roster))
}

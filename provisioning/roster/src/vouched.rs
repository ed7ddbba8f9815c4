//! Who holds the logs of a lost box: the cosignatures of other members under the last head of each.
//!
//! Refuses to do: believe the lost box or the one that takes its place about that head; count a key that no card of the
//! roster binds to a member.
//! Invariant: a [`Held`] is a head that the log's own key signed and that at least one other member cosigned.

use crate::deed::{Cause, GoodTree, HeldLog, Replacement, Revocation};
use crate::refusal::{Result, RosterRefusal};
use bulla_formats::der::Octets32;
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::hash::empty_root;
use bulla_formats::note::{Checkpoint, SignedNote};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::succession::HOLDERS_MAX;
use bulla_formats::witness::Role;

/// The last head of a lost log, as others have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Size and root.
    pub tree: GoodTree,
    /// Names of the keys that cosigned it, ascending.
    pub holders: Vec<String>,
}

impl Replacement {
    /// The revocation that it is: everything stays good, and the trees are those that others hold, where they do.
    pub fn as_revocation(&self, held: &[Option<Held>]) -> Revocation {
        let tree = |(at, log): (usize, &HeldLog)| match held.get(at).and_then(Option::as_ref) {
            Some(held) => held.tree.clone(),
            None => GoodTree { origin: log.origin.clone(), size: 0, root: Octets32::new(empty_root().0) },
        };
        Revocation {
            ek_spki_sha256: self.ek_spki_sha256,
            cause: Cause::Replaced,
            invalid_from: self.invalid_from,
            logs: self.logs.iter().enumerate().map(tree).collect(),
            successor: Some(self.successor),
        }
    }
}

/// Judges the head of one log; `None` where none is shown. `cards`: the members that may vouch.
pub(crate) fn held(
    log: &HeldLog,
    enrolled: Option<&EnrolmentContent>,
    cards: &[&PeerCard],
) -> Result<Option<Held>> {
    let Some(head) = &log.head else { return Ok(None) };
    let refused = |why: String| RosterRefusal::NotVouched { log: log.origin.clone(), why };
    let content = enrolled.ok_or_else(|| refused("it is no log of this box".into()))?;
    let note = SignedNote::parse(head).map_err(|error| refused(error.to_string()))?;
    let origin = Origin::parse(&content.origin).map_err(|error| refused(error.to_string()))?;
    let key = PublicKey::from_bytes(Algorithm::Ed25519, &*content.log_key);
    let key = key.map_err(|error| refused(error.to_string()))?;
    let head = Checkpoint::open(&note, &origin, &key, &content.log_key, &content.attestation_key)
        .map_err(|error| refused(error.to_string()))?;
    let mut holders = Vec::new();
    for card in cards {
        for role in Role::ALL {
            let key = card.cosigner(role);
            match key.cosignature(&note) {
                Ok(None) => {}
                Ok(Some(_)) => holders.push(key.name().to_owned()),
                Err(_) => return Err(refused(format!("the line of {} does not hold", key.name()))),
            }
        }
    }
    if holders.is_empty() || head.size() == 0 {
        return Err(refused("no other member of the fleet has cosigned it".into()));
    }
    holders.sort();
    holders.truncate(HOLDERS_MAX);
    let tree = GoodTree { origin: log.origin.clone(), size: head.size(), root: Octets32::new(head.root().0) };
    Ok(Some(Held { tree, holders }))
}

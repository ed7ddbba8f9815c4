//! What is approved, and what an approval is: docs/formats.md section 15.
//!
//! Refuses to do: read a second spelling, an unknown kind, or an action without a reason or an end.
//! Invariant: an [`Action`] that was decoded keeps every rule that needs neither a roster nor people.

use crate::refusal::{Refusal, Result};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::origin::{Origin, check_fleet};
use bulla_formats::sig::{Algorithm, PublicKey, label, labelled};
use ed25519_dalek::{Signer, SigningKey};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest action in bytes.
pub const ACTION_BYTES_MAX: usize = 1 << 20;
/// Longest change in bytes: an action with all the approvals there may be.
pub const CHANGE_BYTES_MAX: usize = ACTION_BYTES_MAX + (64 << 10);
/// Most approvals of one action.
pub const APPROVALS_MAX: usize = 64;
/// Longest reason in bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// Longest time that an action may wait for its approvals: 30 days, in milliseconds.
pub const OPEN_MILLIS_MAX: u64 = 30 * 24 * 3_600_000;

/// What an action does.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Kind {
    /// Boxes that are expected enter the inventory.
    Import = 0,
    /// Boxes become members of the fleet.
    Enrol = 1,
    /// A box is held back.
    Quarantine = 2,
    /// A box is held back no longer.
    Release = 3,
    /// A box leaves the fleet, and never comes back by itself.
    Revoke = 4,
    /// A box that left may be enrolled once more.
    Pardon = 5,
    /// Other people decide from now on.
    Operators = 6,
    /// A box carries it out, and its own log records it.
    Box = 7,
    /// Members are known by these cards from now on: keys for their neighbours, and where they are.
    Cards = 8,
    /// A box is lost and another one takes its place; others hold its logs.
    Replace = 9,
    /// These are the fleet's hubs from now on.
    Hubs = 10,
    /// Whose time is believed from now on.
    Anchors = 11,
    /// Which boots are good, and what a seal must meet, from now on.
    Policy = 12,
    /// Which configuration file each of these boxes goes by from now on.
    Configuration = 13,
    /// Members get the enrolment of a log that they may begin by themselves when the one in use is lost.
    Stage = 20,
}

impl Kind {
    /// Name in texts and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Import => "import",
            Kind::Enrol => "enrol",
            Kind::Quarantine => "quarantine",
            Kind::Release => "release",
            Kind::Revoke => "revoke",
            Kind::Pardon => "pardon",
            Kind::Operators => "operators",
            Kind::Box => "box",
            Kind::Cards => "cards",
            Kind::Replace => "replace",
            Kind::Hubs => "hubs",
            Kind::Anchors => "anchors",
            Kind::Policy => "policy",
            Kind::Configuration => "configuration",
            Kind::Stage => "stage",
        }
    }
}

/// One version of a roster: its number, and the hash that chains it to all versions before.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    /// 0 for the founding, then one more for each change.
    pub number: u64,
    /// SHA-256 over label "bulla/roster-version/v1" and what made it.
    pub hash: Octets32,
}

impl Version {
    /// Version `number`, made by these bytes.
    pub fn made_by(number: u64, bytes: &[u8]) -> Self {
        let Hash(hash) = sha256(&[&labelled(label::ROSTER_VERSION, bytes)]);
        Version { number, hash: Octets32::new(hash) }
    }
}

/// What a box said of itself when it asked for an approval.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// Its log.
    pub origin: String,
    /// Entries in it.
    pub size: u64,
    /// Root of the tree of these.
    pub root: Octets32,
    /// Given out once, taken back by use.
    pub nonce: Octets32,
}

/// What people approve.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Action {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// Version of the roster it acts on.
    pub roster: Version,
    /// The box that carries it out; absent when the roster's holder does.
    pub target: Option<Target>,
    /// What it does.
    pub kind: Kind,
    /// DER by kind.
    pub parameters: OctetString,
    /// Why.
    pub reason: String,
    /// Whether the custodians decide in place of the operators.
    pub overriding: bool,
    /// Random.
    pub nonce: Octets32,
    /// When it was proposed (Unix milliseconds, the proposer's clock).
    pub proposed_at: u64,
    /// Last millisecond in which it can be carried out.
    pub not_after: u64,
}

impl Action {
    /// Reads an action.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let action: Action = der::decode("action", bytes, ACTION_BYTES_MAX)?;
        action.check()?;
        Ok(action)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// SHA-256 under the label of actions.
    pub fn hash(&self) -> Hash {
        sha256(&[&labelled(label::ACTION, &self.encode())])
    }

    /// Whether it is one, whoever approves it.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], which says which rule it breaks.
    pub fn check(&self) -> Result<()> {
        let malformed = |why: &str| Err(Refusal::Malformed(why.to_owned()));
        if self.version != 1 {
            return malformed("its version is not 1");
        }
        check_fleet(&self.fleet).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let plain = self.reason.trim() == self.reason && !self.reason.chars().any(char::is_control);
        if self.reason.is_empty() || self.reason.len() > REASON_BYTES_MAX || !plain {
            return malformed("a reason has 1 to 1024 bytes without control characters or outer blanks");
        }
        let numbers = [self.roster.number, self.proposed_at, self.not_after];
        if numbers.iter().any(|number| *number > NUMBER_MAX) {
            return malformed("a number is larger than 2^63 - 1");
        }
        if self.not_after < self.proposed_at || self.not_after - self.proposed_at > OPEN_MILLIS_MAX {
            return malformed("it does not end within 30 days of being proposed");
        }
        if self.target.is_some() != (self.kind == Kind::Box) {
            return malformed("it names a box exactly when a box carries it out");
        }
        if let Some(target) = &self.target {
            let origin =
                Origin::parse(&target.origin).map_err(|error| Refusal::Malformed(error.to_string()))?;
            if origin.fleet() != self.fleet || target.size > NUMBER_MAX {
                return malformed("the box it names is not of its fleet, or has no such log");
            }
        }
        if self.encode().len() > ACTION_BYTES_MAX {
            return malformed("it is longer than an action may be");
        }
        Ok(())
    }
}

/// What an approval signs.
#[derive(AsnType, Encode)]
struct ApprovalContent {
    action: Action,
    at: u64,
}

/// A person's yes.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Approval {
    /// Ed25519 key of the person.
    pub key: Octets32,
    /// When (Unix milliseconds, the person's clock).
    pub at: u64,
    /// Ed25519 over label "bulla/approval/v1".
    pub signature: OctetString,
}

impl Approval {
    fn message(action: &Action, at: u64) -> Vec<u8> {
        labelled(label::APPROVAL, &der::encode(&ApprovalContent { action: action.clone(), at }))
    }

    /// A yes to `action` with this key.
    pub fn sign(action: &Action, at: u64, key: &SigningKey) -> Self {
        let signature = key.sign(&Self::message(action, at)).to_bytes().to_vec().into();
        Approval { key: Octets32::new(key.verifying_key().to_bytes()), at, signature }
    }

    /// Reads one; whom it counts for, an electorate says.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let approval: Approval = der::decode("approval", bytes, 256)?;
        approval.check()?;
        Ok(approval)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    fn check(&self) -> Result<()> {
        if self.signature.len() != 64 || self.at > NUMBER_MAX {
            return Err(Refusal::Malformed("an approval has a signature of 64 bytes and a time".into()));
        }
        Ok(())
    }

    /// Whether its key signed it.
    pub(crate) fn verifies(&self, action: &Action) -> bool {
        let key = PublicKey::from_bytes(Algorithm::Ed25519, &*self.key);
        key.is_ok_and(|key| key.verify(&Self::message(action, self.at), &self.signature).is_ok())
    }
}

/// An action with its approvals: what makes the next version of a roster.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Change {
    /// What is done.
    pub action: Action,
    /// By whose will, in ascending order of the keys.
    pub approvals: Vec<Approval>,
}

impl Change {
    /// Puts them together; approvals of one key count once.
    pub fn new(action: Action, mut approvals: Vec<Approval>) -> Self {
        approvals.sort_by_key(|approval| approval.key);
        approvals.dedup_by(|a, b| a.key == b.key);
        Change { action, approvals }
    }

    /// Reads one; whether it is to be carried out, a [`crate::Record`] says.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let change: Change = der::decode("change", bytes, CHANGE_BYTES_MAX)?;
        change.check()?;
        Ok(change)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.action.check()?;
        self.approvals.iter().try_for_each(Approval::check)?;
        let ascending = self.approvals.windows(2).all(|pair| pair[0].key < pair[1].key);
        if self.approvals.is_empty() || self.approvals.len() > APPROVALS_MAX || !ascending {
            return Err(Refusal::Malformed(
                "its approvals are none, too many, or not in ascending order of their keys".into(),
            ));
        }
        Ok(())
    }
}

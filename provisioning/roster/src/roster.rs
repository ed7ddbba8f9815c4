//! The roster itself: a founding, the changes since, and what came of them.
//!
//! Refuses to do: change in any other way than by an approved action on its last version, or go back.
//! Invariants: everything in it follows from its bytes, and its bytes from what people signed; a change is done whole or
//! not at all; [`Roster::decode`] replays every one of them.

use crate::deed::{Deed, bench};
use crate::inventory::Inventory;
use crate::refusal::{Result, RosterRefusal};
use crate::terms::Terms;
use crate::words;
use bulla_approvals::action::{Action, Approval, Change, Target, Version};
use bulla_approvals::at_box::BoxAction;
use bulla_approvals::electorate::{Bench, Electorate, Person};
use bulla_approvals::{Approved, Record, Refusal};
use bulla_ceremony::transcript::Transcript;
use bulla_ceremony::wire::Card;
use bulla_formats::der;
use bulla_formats::peer::card::PeerCard;
use bulla_formats::trust::TrustFile;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest roster in bytes: some fifty thousand enrolments.
pub const ROSTER_BYTES_MAX: usize = 64 << 20;

#[derive(AsnType, Decode, Encode)]
struct RosterWire {
    version: u64,
    founding: Transcript,
    changes: Vec<Change>,
}

/// A change that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Action and approvals.
    pub change: Change,
    /// What it did.
    pub deed: Deed,
    /// Who approved it.
    pub by: Vec<String>,
}

/// A roster.
#[derive(Debug, Clone)]
pub struct Roster {
    founding: Transcript,
    record: Record,
    electorate: Electorate,
    inventory: Inventory,
    terms: Terms,
    history: Vec<Done>,
}

/// The terms once `deed` is done, as version `number`.
fn after(terms: &Terms, deed: &Deed, number: u64) -> Terms {
    let mut terms = terms.clone();
    match deed {
        Deed::Hubs(hubs) => terms.hubs.clone_from(hubs),
        Deed::Anchors(anchors) => terms.anchors = Some((number, anchors.clone())),
        Deed::Policy(policy) => terms.policy = Some((number, policy.clone())),
        _ => {}
    }
    terms
}

/// The people of the founding.
fn electorate(founding: &Transcript) -> Result<Electorate> {
    let plan = &founding.content.plan;
    let custodian =
        |card: &Card| Person { name: card.content.name.clone(), keys: vec![card.content.signing_key] };
    let needed = usize::try_from(plan.threshold).unwrap_or(usize::MAX);
    let custodians = Bench { people: plan.custodians.iter().map(custodian).collect(), needed };
    Ok(Electorate::new(bench(&plan.operators, plan.operators_needed)?, custodians)?)
}

impl Roster {
    /// The roster of a fleet whose ceremony has just ended.
    ///
    /// # Errors
    /// When the minutes do not verify.
    pub fn found(founding: Transcript) -> Result<Self> {
        founding.check()?;
        let version = Version::made_by(0, &der::encode(&founding));
        let record = Record::founded(&founding.content.plan.fleet, version);
        let electorate = electorate(&founding)?;
        Ok(Roster {
            founding,
            record,
            electorate,
            inventory: Inventory::default(),
            terms: Terms::default(),
            history: Vec::new(),
        })
    }

    /// Reads a roster and replays it. Whether its root is the right one, [`Roster::check_root`] says; whether it is the
    /// newest, [`Roster::check_seen`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let wire: RosterWire = der::decode("roster", bytes, ROSTER_BYTES_MAX)?;
        if wire.version != 1 {
            return Err(Refusal::Malformed("its version is not 1".into()).into());
        }
        let mut roster = Roster::found(wire.founding)?;
        for change in wire.changes {
            roster.take(change, None)?;
        }
        Ok(roster)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let changes = self.history.iter().map(|done| done.change.clone()).collect();
        der::encode(&RosterWire { version: 1, founding: self.founding.clone(), changes })
    }

    /// Whether it is of the fleet of a trust file, and begins with minutes that one of its roots signed.
    pub fn check_root(&self, trust: &TrustFile) -> Result<()> {
        let believed = trust.fleet == self.fleet() && trust.roots.contains(&self.founding.content.root);
        if believed { Ok(()) } else { Err(RosterRefusal::OtherRoot) }
    }

    /// Whether it continues what was seen before.
    ///
    /// # Errors
    /// `rolled-back` when it is older, `forked` when it went another way.
    pub fn check_seen(&self, seen: &Version) -> Result<()> {
        Ok(self.record.check(seen)?)
    }

    /// Fleet domain.
    pub fn fleet(&self) -> &str {
        self.record.fleet()
    }

    /// The last version.
    pub fn version(&self) -> &Version {
        self.record.version()
    }

    /// All versions, the founding first.
    pub fn versions(&self) -> &[Version] {
        self.record.versions()
    }

    /// The minutes it begins with.
    pub fn founding(&self) -> &Transcript {
        &self.founding
    }

    /// Who decides about it now.
    pub fn electorate(&self) -> &Electorate {
        &self.electorate
    }

    /// Its boxes.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Its hubs, whose time is believed, and its policy.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The same as they were at version `number`.
    pub fn terms_at(&self, number: u64) -> Terms {
        let mut terms = Terms::default();
        for (done, version) in self.history.iter().zip(1..=number) {
            terms = after(&terms, &done.deed, version);
        }
        terms
    }

    /// Every change, the first one first: change *n* made version *n + 1*.
    pub fn history(&self) -> &[Done] {
        &self.history
    }

    /// The newest card of this log that people have approved, also of one that is no box's last any more.
    pub fn card_of(&self, origin: &str) -> Option<&PeerCard> {
        let mut cards = self.history.iter().rev().filter_map(|done| match &done.deed {
            Deed::Cards(cards) => cards.iter().find(|card| card.origin().as_str() == origin),
            _ => None,
        });
        cards.next()
    }

    /// Whether whoever holds a copy of the log `origin` hands it to the member that goes on with the log `to`: because it is
    /// an earlier log of the same box, or because that box takes the place of the one whose log it was.
    pub fn hands_over(&self, origin: &str, to: &str) -> bool {
        let boxes = || self.inventory().boxes();
        let asks = boxes().find(|listed| listed.in_use().is_some_and(|log| log.origin == to));
        let had = boxes().find(|listed| listed.all_logs().any(|log| log.origin == origin));
        let (Some(asks), Some(had)) = (asks, had) else { return false };
        let asks = &asks.row.ek_spki_sha256;
        *asks == had.row.ek_spki_sha256
            || had.tombstones.iter().any(|stone| stone.revocation.successor.as_ref() == Some(asks))
    }

    /// What `action` would do, if it could be done now and enough people approved it.
    ///
    /// # Errors
    /// What speaks against it, whoever approves it.
    pub fn would(&self, action: &Action, now: u64) -> Result<Deed> {
        action.check()?;
        // Whether the box is in the state that the action names, only the box can say.
        self.record.is_open(action, action.target.as_ref(), Some(now))?;
        self.electorate.quorum(action.kind, action.overriding)?;
        match &action.target {
            Some(target) => {
                self.inventory.check_target(&target.origin)?;
                Deed::decode(action.kind, &action.parameters)
            }
            None => Ok(self.plan(action)?.0),
        }
    }

    /// What the box that named `target` is to carry out, if enough people approved it and it can be done now.
    ///
    /// # Errors
    /// The first condition of docs/formats.md section 15 that it breaks.
    pub fn judge_at_box(&self, change: &Change, target: &Target, now: u64) -> Result<(Approved, BoxAction)> {
        let approved = self.record.judge(change, &self.electorate, Some(target), Some(now))?;
        self.inventory.check_target(&target.origin)?;
        let action = BoxAction::decode(&approved.action().parameters).map_err(RosterRefusal::parameters)?;
        Ok((approved, action))
    }

    /// Cards of the operators who decide now.
    pub fn operator_cards(&self) -> (&[Card], u64) {
        let changed = self.history.iter().rev().find_map(|done| match &done.deed {
            Deed::Operators { cards, needed } => Some((&cards[..], *needed)),
            _ => None,
        });
        let plan = &self.founding.content.plan;
        changed.unwrap_or((&plan.operators, plan.operators_needed))
    }

    /// What `action` says, for whoever is asked to approve it.
    pub fn describe(&self, action: &Action, deed: &Deed) -> String {
        words::describe(self, action, deed)
    }

    /// Name of the person whose approval of `action` this is.
    pub fn vote(&self, action: &Action, approval: &Approval) -> Result<&str> {
        Ok(self.electorate.vote(action, approval)?)
    }

    /// Carries out a change, and is at the next version then.
    ///
    /// # Errors
    /// The first condition of docs/formats.md section 15 that it breaks; the roster is then what it was.
    pub fn apply(&mut self, change: Change, now: u64) -> Result<&Version> {
        self.take(change, Some(now))?;
        Ok(self.version())
    }

    /// Takes over a change that was carried out elsewhere.
    ///
    /// # Errors
    /// As for [`Roster::apply`]; but no clock is asked.
    pub fn replay(&mut self, change: Change) -> Result<()> {
        self.take(change, None)
    }

    fn take(&mut self, change: Change, now: Option<u64>) -> Result<()> {
        let approved = self.record.judge(&change, &self.electorate, None, now)?;
        let (deed, electorate) = self.plan(approved.action())?;
        let number = self.record.consume(&approved)?.number;
        self.inventory.carry_out(&deed, number);
        self.terms = after(&self.terms, &deed, number);
        if let Some(electorate) = electorate {
            self.electorate = electorate;
        }
        self.history.push(Done { by: approved.by().to_vec(), change, deed });
        Ok(())
    }

    /// What `action` does to the roster as it is: to its boxes, and to who decides from then on.
    fn plan(&self, action: &Action) -> Result<(Deed, Option<Electorate>)> {
        let deed = Deed::decode(action.kind, &action.parameters)?;
        self.inventory.check(self.fleet(), &deed)?;
        after(&self.terms, &deed, self.version().number + 1).check()?;
        let hubs_key = match &deed {
            Deed::Enrol(enrolments) | Deed::Stage(enrolments) => {
                enrolments.iter().find(|one| self.terms.has_key(&*one.log_key)).map(|one| one.origin.clone())
            }
            Deed::Cards(cards) => cards.iter().find_map(|card| {
                let content = card.content();
                let keys = [&content.witness_key, &content.mirror_key, &content.transport_key];
                keys.iter().any(|key| self.terms.has_key(&***key)).then(|| content.origin.clone())
            }),
            _ => None,
        };
        if let Some(origin) = hubs_key {
            return Err(RosterRefusal::KnownKey(origin));
        }
        let electorate = match &deed {
            Deed::Operators { cards, needed } => {
                let custodians = self.electorate.custodians().clone();
                let electorate = Electorate::new(bench(cards, *needed)?, custodians);
                Some(electorate.map_err(|refusal| RosterRefusal::Parameters(refusal.to_string()))?)
            }
            _ => None,
        };
        Ok((deed, electorate))
    }
}

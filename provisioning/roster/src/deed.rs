//! What an action does, by its kind: the parameters, read and checked for themselves.
//!
//! Refuses to do: know the inventory; what a deed finds there is [`crate::inventory`]'s to judge.
//! Invariant: [`Deed::decode`] of [`Deed::encode`] is the same deed.

use crate::refusal::{Result, RosterRefusal};
use crate::terms::{Anchors, Hub, Policy, check_hubs};
use bulla_approvals::action::{ACTION_BYTES_MAX, Kind};
use bulla_approvals::at_box::BoxAction;
use bulla_approvals::electorate::{Bench, Person};
use bulla_ceremony::wire::{Card, Duty};
use bulla_formats::der::{self, Octets32};
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::{ENROLMENT_BYTES_MAX, EnrolmentContent};
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
pub use bulla_formats::revocation::Cause;
use bulla_formats::sig::{Algorithm, PublicKey};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most boxes imported at once.
pub const IMPORT_MAX: usize = 4096;
/// Most boxes enrolled at once.
pub const ENROL_MAX: usize = 64;
/// Most logs that wait for one box to begin them.
pub const STAGED_MAX: usize = 64;
/// Longest serial number, model or branch in bytes.
pub const FIELD_BYTES_MAX: usize = 64;
/// Most boxes that get a configuration at once.
pub const CONFIGURED_MAX: usize = 4096;
/// Most cards in one action.
pub const CARDS_MAX: usize = 64;
/// Most logs that one revocation names.
pub const LOGS_MAX: usize = 256;

/// A box that is expected: what the vendor or the staging room says of it.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Row {
    /// Number on the chassis.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Branch it goes to.
    pub branch: String,
    /// SHA-256 of the SubjectPublicKeyInfo of its endorsement key.
    pub ek_spki_sha256: Octets32,
}

/// Parameters of quarantine, release and pardon.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Named {
    /// The box.
    pub ek_spki_sha256: Octets32,
}

/// The last tree of a log that is known to be good.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct GoodTree {
    /// The log.
    pub origin: String,
    /// Entries in it; 0 when nothing of it is good.
    pub size: u64,
    /// Root of the tree of these.
    pub root: Octets32,
}

/// Parameters of a revocation.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Revocation {
    /// The box.
    pub ek_spki_sha256: Octets32,
    /// Why.
    pub cause: Cause,
    /// From when on (Unix milliseconds) its keys may have been in other hands, or its service ended.
    pub invalid_from: u64,
    /// Every log of the box that is not given up yet, in the order they were enrolled.
    pub logs: Vec<GoodTree>,
    /// The box that takes its place; exactly when the cause is `replaced`.
    pub successor: Option<Octets32>,
}

/// Parameters of a change of operators.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct Operators {
    /// DER of a card each.
    cards: Vec<OctetString>,
    needed: u64,
}

/// A log of a lost box, and the last head of it that others hold.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldLog {
    /// The log.
    pub origin: String,
    /// A checkpoint of it with the lines of who cosigned it; `None` when nobody holds anything.
    pub head: Option<String>,
}

/// Parameters of a replacement.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Replacement {
    /// The box that is lost.
    pub ek_spki_sha256: Octets32,
    /// The box that takes its place.
    pub successor: Octets32,
    /// When its service ended (Unix milliseconds).
    pub invalid_from: u64,
    /// Every log of the lost box that is not given up yet, in the order they were enrolled; the last one has a head.
    pub logs: Vec<HeldLog>,
}

/// Which configuration file a box goes by.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configured {
    /// The box.
    pub ek_spki_sha256: Octets32,
    /// SHA-256 of the file, byte for byte; `None`: the one that lies on the box counts again.
    pub file: Option<Octets32>,
}

/// What an action does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Boxes are expected from now on.
    Import(Vec<Row>),
    /// Boxes become members, each with a log.
    Enrol(Vec<EnrolmentContent>),
    /// Members may begin these logs by themselves, when the one in use is lost.
    Stage(Vec<EnrolmentContent>),
    /// A box is held back.
    Quarantine(Named),
    /// It is not any more.
    Release(Named),
    /// A box leaves.
    Revoke(Revocation),
    /// It may come back, once.
    Pardon(Named),
    /// Other operators, and how many of them must agree; without any, the custodians decide.
    Operators {
        /// Cards; those of one name are one person's.
        cards: Vec<Card>,
        /// How many people.
        needed: u64,
    },
    /// Members are known by these cards from now on.
    Cards(Vec<PeerCard>),
    /// A box leaves because it is lost, and another one takes its place.
    Replace(Replacement),
    /// These are the fleet's hubs: all of them.
    Hubs(Vec<Hub>),
    /// Whose time is believed: all of them.
    Anchors(Anchors),
    /// Which boots are good, and what a seal must meet.
    Policy(Policy),
    /// Which configuration file each of these boxes goes by.
    Configuration(Vec<Configured>),
    /// A box carries it out, and no version of the roster comes of it.
    AtBox(BoxAction),
}

impl Deed {
    /// Reads the parameters of an action of this kind.
    ///
    /// # Errors
    /// [`RosterRefusal::Parameters`].
    pub fn decode(kind: Kind, parameters: &[u8]) -> Result<Self> {
        fn read<T: Decode + Encode>(bytes: &[u8]) -> Result<T> {
            der::decode("parameters", bytes, ACTION_BYTES_MAX).map_err(RosterRefusal::parameters)
        }
        let deed = match kind {
            Kind::Import => Deed::Import(read(parameters)?),
            Kind::Enrol => Deed::Enrol(read(parameters)?),
            Kind::Stage => Deed::Stage(read(parameters)?),
            Kind::Quarantine => Deed::Quarantine(read(parameters)?),
            Kind::Release => Deed::Release(read(parameters)?),
            Kind::Revoke => Deed::Revoke(read(parameters)?),
            Kind::Pardon => Deed::Pardon(read(parameters)?),
            Kind::Operators => {
                let Operators { cards, needed } = read(parameters)?;
                let cards =
                    cards.iter().map(|card| Card::decode(card)).collect::<std::result::Result<_, _>>();
                Deed::Operators { cards: cards.map_err(RosterRefusal::parameters)?, needed }
            }
            Kind::Cards => {
                let cards: Vec<OctetString> = read(parameters)?;
                let cards = cards.iter().map(|card| PeerCard::decode(card));
                let cards = cards.collect::<std::result::Result<_, _>>();
                Deed::Cards(cards.map_err(RosterRefusal::parameters)?)
            }
            Kind::Replace => Deed::Replace(read(parameters)?),
            Kind::Hubs => Deed::Hubs(read(parameters)?),
            Kind::Anchors => Deed::Anchors(read(parameters)?),
            Kind::Policy => Deed::Policy(read(parameters)?),
            Kind::Configuration => Deed::Configuration(read(parameters)?),
            Kind::Box => Deed::AtBox(BoxAction::decode(parameters).map_err(RosterRefusal::parameters)?),
        };
        deed.check()?;
        Ok(deed)
    }

    /// Its parameters.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Deed::Import(rows) => der::encode(rows),
            Deed::Enrol(enrolments) | Deed::Stage(enrolments) => der::encode(enrolments),
            Deed::Quarantine(named) | Deed::Release(named) | Deed::Pardon(named) => der::encode(named),
            Deed::Revoke(revocation) => der::encode(revocation),
            Deed::Replace(replacement) => der::encode(replacement),
            Deed::Hubs(hubs) => der::encode(hubs),
            Deed::Anchors(anchors) => der::encode(anchors),
            Deed::Policy(policy) => der::encode(policy),
            Deed::Configuration(configured) => der::encode(configured),
            Deed::AtBox(action) => action.encode(),
            Deed::Operators { cards, needed } => {
                let cards = cards.iter().map(|card| der::encode(card).into()).collect();
                der::encode(&Operators { cards, needed: *needed })
            }
            Deed::Cards(cards) => {
                let cards: Vec<OctetString> = cards.iter().map(|card| card.bytes().to_vec().into()).collect();
                der::encode(&cards)
            }
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Deed::Import(_) => Kind::Import,
            Deed::Enrol(_) => Kind::Enrol,
            Deed::Stage(_) => Kind::Stage,
            Deed::Quarantine(_) => Kind::Quarantine,
            Deed::Release(_) => Kind::Release,
            Deed::Revoke(_) => Kind::Revoke,
            Deed::Pardon(_) => Kind::Pardon,
            Deed::Operators { .. } => Kind::Operators,
            Deed::Cards(_) => Kind::Cards,
            Deed::Replace(_) => Kind::Replace,
            Deed::Hubs(_) => Kind::Hubs,
            Deed::Anchors(_) => Kind::Anchors,
            Deed::Policy(_) => Kind::Policy,
            Deed::Configuration(_) => Kind::Configuration,
            Deed::AtBox(_) => Kind::Box,
        }
    }

    /// Whether it keeps every rule that needs no inventory.
    pub fn check(&self) -> Result<()> {
        let count = |what: &str, count: usize, most: usize| match count {
            0 => Err(RosterRefusal::parameters(format!("it names no {what}"))),
            _ if count > most => Err(RosterRefusal::parameters(format!("it names more than {most} {what}"))),
            _ => Ok(()),
        };
        match self {
            Deed::Import(rows) => {
                count("boxes", rows.len(), IMPORT_MAX)?;
                rows.iter().try_for_each(Row::check)
            }
            Deed::Enrol(enrolments) | Deed::Stage(enrolments) => {
                count("boxes", enrolments.len(), ENROL_MAX)?;
                enrolments.iter().try_for_each(check_enrolment)
            }
            Deed::Quarantine(_) | Deed::Release(_) | Deed::Pardon(_) | Deed::AtBox(_) => Ok(()),
            Deed::Revoke(revocation) => revocation.check(),
            Deed::Operators { cards, needed } => bench(cards, *needed).map(drop),
            Deed::Cards(cards) => count("cards", cards.len(), CARDS_MAX),
            Deed::Replace(replacement) => replacement.check(),
            Deed::Hubs(hubs) => check_hubs(hubs),
            Deed::Anchors(anchors) => anchors.authorities().map(drop),
            Deed::Policy(policy) => policy.check(),
            Deed::Configuration(configured) => {
                count("boxes", configured.len(), CONFIGURED_MAX)?;
                match configured.is_sorted_by(|one, next| one.ek_spki_sha256 < next.ek_spki_sha256) {
                    true => Ok(()),
                    false => Err(RosterRefusal::parameters(
                        "boxes are not in ascending order, or one is named twice",
                    )),
                }
            }
        }
    }
}

impl Row {
    /// Whether its texts can be printed and told apart.
    pub fn check(&self) -> Result<()> {
        for (name, text) in [("serial", &self.serial), ("model", &self.model), ("branch", &self.branch)] {
            let plain = text.trim() == text && !text.chars().any(char::is_control);
            if text.is_empty() || text.len() > FIELD_BYTES_MAX || !plain {
                let why = format!(
                    "the {name} {text:?} has not 1 to {FIELD_BYTES_MAX} bytes without control characters and outer blanks"
                );
                return Err(RosterRefusal::Parameters(why));
            }
        }
        Ok(())
    }
}

impl Revocation {
    fn check(&self) -> Result<()> {
        let refused = |why: &str| Err(RosterRefusal::parameters(why));
        if self.invalid_from > NUMBER_MAX || self.logs.iter().any(|log| log.size > NUMBER_MAX) {
            return refused("a number is larger than 2^63 - 1");
        }
        if self.logs.len() > LOGS_MAX {
            return refused("it names more than 256 logs");
        }
        let empty = |log: &GoodTree| log.size == 0 && *log.root != empty_root().0;
        if self.logs.iter().any(empty) {
            return refused("the tree of no entries has another root");
        }
        if self.logs.iter().any(|log| Origin::parse(&log.origin).is_err()) {
            return refused("an origin is none");
        }
        if self.successor.is_some() != (self.cause == Cause::Replaced) {
            return refused("it names a successor exactly when the box is replaced");
        }
        if self.successor == Some(self.ek_spki_sha256) {
            return refused("a box does not take its own place");
        }
        Ok(())
    }
}

impl Replacement {
    fn check(&self) -> Result<()> {
        let refused = |why: &str| Err(RosterRefusal::parameters(why));
        if self.invalid_from > NUMBER_MAX {
            return refused("a number is larger than 2^63 - 1");
        }
        if self.logs.is_empty() || self.logs.len() > LOGS_MAX {
            return refused("it names no log, or more than 256");
        }
        if self.logs.iter().any(|log| Origin::parse(&log.origin).is_err()) {
            return refused("an origin is none");
        }
        if self.logs.last().is_none_or(|log| log.head.is_none()) {
            return refused("it shows no head of the last log");
        }
        if self.successor == self.ek_spki_sha256 {
            return refused("a box does not take its own place");
        }
        Ok(())
    }
}

/// What a fleet says of a box, for itself: the keys are keys, and the origin follows from the endorsement key.
fn check_enrolment(content: &EnrolmentContent) -> Result<()> {
    let refused = |why: &str| Err(RosterRefusal::parameters(why));
    if content.version != 1 || content.enrolled_at > NUMBER_MAX {
        return refused("an enrolment's version is not 1, or its time too large");
    }
    if content.ek_certificates.len() > 8 || der::encode(content).len() + 1024 > ENROLMENT_BYTES_MAX {
        return refused("an enrolment is too long");
    }
    let belongs = Origin::parse(&content.origin)
        .is_ok_and(|origin| origin.belongs_to(&content.fleet, &Hash(*content.ek_spki_sha256)));
    if !belongs {
        return Err(RosterRefusal::OtherOrigin(content.origin.clone()));
    }
    let keys = AttestationKey::read(content.hardware, &content.attestation_key).is_ok()
        && PublicKey::from_bytes(Algorithm::Ed25519, &*content.log_key).is_ok();
    if !keys {
        return refused("a key of an enrolment is none");
    }
    Ok(())
}

/// The operators of these cards; none when there are no cards and nobody is needed.
pub(crate) fn bench(cards: &[Card], needed: u64) -> Result<Option<Bench>> {
    if cards.is_empty() && needed == 0 {
        return Ok(None);
    }
    let mut people: Vec<Person> = Vec::new();
    for card in cards {
        let content = &card.content;
        if content.duty != Duty::Operator {
            return Err(RosterRefusal::parameters(format!("{:?} is no operator's card", content.name)));
        }
        let same = |person: &&mut Person| person.name.to_lowercase() == content.name.to_lowercase();
        match people.iter_mut().find(same) {
            Some(person) => person.keys.push(content.signing_key),
            None => people.push(Person { name: content.name.clone(), keys: vec![content.signing_key] }),
        }
    }
    let needed = usize::try_from(needed).map_err(|_| RosterRefusal::parameters("nobody can be so many"))?;
    Ok(Some(Bench { people, needed }))
}

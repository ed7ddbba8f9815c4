//! The inventory: every box that was ever expected, what became of it, and what must never come back.
//!
//! Refuses to do: forget a box, or let an endorsement key that left in again without a pardon, or twice with one.
//! Invariants: one entry for each endorsement key; of boxes that have not left, one for each serial number; no log has
//! two boxes, and no key two logs; a card is of the last log of its box, and no key on it was ever another box's; a staged
//! log becomes the last one with its card, and is never forgotten.

use crate::deed::{Cause, Deed, GoodTree, Replacement, Revocation, Row, STAGED_MAX};
use crate::refusal::{Result, RosterRefusal};
use crate::terms::Hub;
use crate::vouched::{Held, held};
use bulla_formats::der::Octets32;
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::origin::Origin;
use bulla_formats::peer::card::PeerCard;
use std::collections::{BTreeMap, BTreeSet};

/// What a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// In the inventory, not enrolled.
    Expected,
    /// A member of the fleet.
    Enrolled,
    /// Held back by people; nothing of it is enrolled.
    Quarantined,
    /// Left the fleet for compromise.
    Revoked,
    /// Left the fleet with honour: retired, or replaced.
    Retired,
}

impl State {
    /// All of them.
    pub const ALL: [State; 5] =
        [State::Expected, State::Enrolled, State::Quarantined, State::Revoked, State::Retired];

    /// Name in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            State::Expected => "expected",
            State::Enrolled => "enrolled",
            State::Quarantined => "quarantined",
            State::Revoked => "revoked",
            State::Retired => "retired",
        }
    }

    fn has_left(self) -> bool {
        matches!(self, State::Revoked | State::Retired)
    }
}

/// A time that a box left: it stays in the roster whatever comes after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    /// Version of the roster that made it.
    pub version: u64,
    /// What was said.
    pub revocation: Revocation,
    /// Version that pardoned it, if one did.
    pub pardoned: Option<u64>,
    /// What others hold of the logs that it names, where the box was replaced and they vouch for that.
    pub held: Vec<Option<Held>>,
}

/// A box in the inventory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// What was imported.
    pub row: Row,
    /// What it is.
    pub state: State,
    /// Version of the roster since when.
    pub since: u64,
    /// Its logs in the order they were enrolled.
    pub logs: Vec<EnrolmentContent>,
    /// Versions of the roster that enrolled them; of one that was staged, the version that took it up.
    pub enrolled_by: Vec<u64>,
    /// Logs after the last one that the box may begin by itself, in the order they were staged.
    pub staged: Vec<EnrolmentContent>,
    /// Times that it left.
    pub tombstones: Vec<Tombstone>,
    /// The card of its last log, once people have approved one.
    pub card: Option<PeerCard>,
    /// Which configuration file it goes by, and which version of the roster said so; `None`: the one that lies on it.
    pub configuration: Option<(u64, Octets32)>,
    /// What it was before it was held back.
    before_quarantine: Option<State>,
}

impl Listed {
    /// The card by which its neighbours know it: while it is a member.
    pub fn member_card(&self) -> Option<&PeerCard> {
        self.card.as_ref().filter(|_| self.state == State::Enrolled)
    }

    /// The log with this name, if a card of it is one of this box: the last one, or one that is staged.
    fn log_of_card(&self, origin: &str) -> Option<&EnrolmentContent> {
        self.logs.last().into_iter().chain(&self.staged).find(|log| log.origin == origin)
    }

    /// The log that it began last, as far as the roster knows.
    pub fn in_use(&self) -> Option<&EnrolmentContent> {
        self.logs.last().filter(|_| self.state == State::Enrolled)
    }

    /// All its logs, those that wait to be begun last.
    pub fn all_logs(&self) -> impl DoubleEndedIterator<Item = &EnrolmentContent> {
        self.logs.iter().chain(&self.staged)
    }

    /// The logs that a revocation for this cause names. Whoever has a box's keys can begin what was staged for it, so a
    /// compromise gives that up, too.
    pub fn revocable(&self, cause: Cause) -> impl Iterator<Item = &EnrolmentContent> {
        let staged = if cause == Cause::Compromise { self.staged.as_slice() } else { &[] };
        self.live_logs().chain(staged)
    }

    /// What was staged up to `origin` counts as begun, as version `version`.
    fn take_up(&mut self, origin: Option<&str>, version: u64) {
        let until = match origin {
            Some(origin) => self.staged.iter().position(|log| log.origin == origin).map_or(0, |at| at + 1),
            None => self.staged.len(),
        };
        self.enrolled_by.extend(std::iter::repeat_n(version, until));
        self.logs.extend(self.staged.drain(..until));
    }

    /// Its logs that no revocation for compromise has given up: the next revocation names them.
    pub fn live_logs(&self) -> impl Iterator<Item = &EnrolmentContent> {
        let given_up = |origin: &str| {
            let compromises =
                self.tombstones.iter().filter(|stone| stone.revocation.cause == Cause::Compromise);
            compromises.flat_map(|stone| &stone.revocation.logs).any(|log| log.origin == origin)
        };
        self.logs.iter().filter(move |log| !given_up(&log.origin))
    }

    /// The last thing that was said of one of its logs: compromise outlasts everything else.
    pub fn revocation_of(&self, origin: &str) -> Option<(&Tombstone, &GoodTree)> {
        let mut said = self.tombstones.iter().filter_map(|stone| {
            let log = stone.revocation.logs.iter().find(|log| log.origin == origin)?;
            Some((stone, log))
        });
        said.next_back()
    }
}

/// Every box, by its endorsement key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    boxes: BTreeMap<Octets32, Listed>,
    /// Serial numbers of boxes that have not left.
    serials: BTreeSet<String>,
    /// Log and attestation keys of all logs there ever were.
    keys: BTreeSet<Vec<u8>>,
    origins: BTreeSet<String>,
    /// Witness, mirror and transport keys of all cards there ever were, and whose they are.
    card_keys: BTreeMap<Octets32, Octets32>,
}

/// The keys of a card that no enrolment names.
fn keys_of(card: &PeerCard) -> [Octets32; 3] {
    let content = card.content();
    [content.witness_key, content.mirror_key, content.transport_key]
}

fn hex_of(ek: &Octets32) -> String {
    hex::encode(**ek)
}

impl Inventory {
    /// All boxes, in the order of their endorsement keys.
    pub fn boxes(&self) -> impl ExactSizeIterator<Item = &Listed> {
        self.boxes.values()
    }

    /// The box with this endorsement key.
    pub fn get(&self, ek_spki_sha256: &Octets32) -> Option<&Listed> {
        self.boxes.get(ek_spki_sha256)
    }

    /// Boxes that people may mean by `text`: a serial number, or the first 8 digits or more of an endorsement key.
    pub fn find(&self, text: &str) -> Vec<&Listed> {
        let digits = text.strip_prefix("ek:sha256:").unwrap_or(text);
        let by_key = |ek: &Octets32| digits.len() >= 8 && hex_of(ek).starts_with(digits);
        self.boxes()
            .filter(|listed| listed.row.serial == text || by_key(&listed.row.ek_spki_sha256))
            .collect()
    }

    fn known(&self, ek: &Octets32) -> Result<&Listed> {
        self.boxes.get(ek).ok_or_else(|| RosterRefusal::UnknownBox(hex_of(ek)))
    }

    /// The box, when it is one of `states`.
    fn one_of(&self, ek: &Octets32, states: &[State]) -> Result<&Listed> {
        let listed = self.known(ek)?;
        match states.contains(&listed.state) {
            true => Ok(listed),
            false => {
                Err(RosterRefusal::WrongState { serial: listed.row.serial.clone(), state: listed.state })
            }
        }
    }

    /// Whether `deed` can be done.
    ///
    /// # Errors
    /// What speaks against it; then nothing of it is done.
    pub fn check(&self, fleet: &str, deed: &Deed) -> Result<()> {
        match deed {
            Deed::Import(rows) => self.check_import(rows),
            Deed::Enrol(enrolments) => self.check_enrol(fleet, enrolments, false),
            Deed::Stage(enrolments) => self.check_enrol(fleet, enrolments, true),
            Deed::Quarantine(named) => {
                self.one_of(&named.ek_spki_sha256, &[State::Expected, State::Enrolled]).map(drop)
            }
            Deed::Release(named) => self.one_of(&named.ek_spki_sha256, &[State::Quarantined]).map(drop),
            Deed::Revoke(revocation) => self.check_revoke(revocation),
            Deed::Pardon(named) => {
                let left = self.one_of(&named.ek_spki_sha256, &[State::Revoked, State::Retired])?;
                match self.serials.contains(&left.row.serial) {
                    true => Err(RosterRefusal::KnownSerial(left.row.serial.clone())),
                    false => Ok(()),
                }
            }
            Deed::Operators { .. } | Deed::Anchors(_) | Deed::Policy(_) => Ok(()),
            Deed::Hubs(hubs) => self.check_hubs(hubs),
            Deed::Configuration(configured) => configured.iter().try_for_each(|one| {
                self.one_of(&one.ek_spki_sha256, &[State::Expected, State::Enrolled]).map(drop)
            }),
            Deed::Cards(cards) => self.check_cards(cards),
            Deed::Replace(replacement) => {
                self.check_revoke(&replacement.as_revocation(&[]))?;
                self.held(replacement).map(drop)
            }
            Deed::AtBox(_) => Err(RosterRefusal::NotHere),
        }
    }

    /// Whether the box that keeps this log is a member, and this its last log.
    ///
    /// # Errors
    /// `unknown-box`, `wrong-state`.
    pub fn check_target(&self, origin: &str) -> Result<&Listed> {
        let listed = self.of_log(origin).ok_or_else(|| RosterRefusal::UnknownBox(origin.to_owned()))?;
        self.one_of(&listed.row.ek_spki_sha256, &[State::Enrolled, State::Quarantined])
    }

    /// The box whose last log this is, or for which it is staged.
    pub fn of_log(&self, origin: &str) -> Option<&Listed> {
        self.boxes().find(|listed| listed.log_of_card(origin).is_some())
    }

    /// Whether `card` could be that of its box.
    ///
    /// # Errors
    /// `unknown-box`, `wrong-state`, `known-key`, or `older-card`.
    pub fn check_card(&self, card: &PeerCard) -> Result<&Listed> {
        let name = card.origin().as_str();
        let listed = self.of_log(name).ok_or_else(|| RosterRefusal::UnknownBox(name.to_owned()))?;
        let ek = &listed.row.ek_spki_sha256;
        self.one_of(ek, &[State::Enrolled])?;
        let own_log = listed.log_of_card(name).is_some_and(|log| log.log_key == card.content().log_key);
        let foreign = |key: &Octets32| {
            self.keys.contains(&key.to_vec()) || self.card_keys.get(key).is_some_and(|whose| whose != ek)
        };
        if !own_log || keys_of(card).iter().any(foreign) {
            return Err(RosterRefusal::KnownKey(name.to_owned()));
        }
        match &listed.card {
            Some(before) if before.origin() == card.origin() && !card.replaces(before) => {
                Err(RosterRefusal::OlderCard(name.to_owned()))
            }
            _ => Ok(listed),
        }
    }

    /// What others hold of each log that a replacement names.
    ///
    /// # Errors
    /// `not-vouched`, `unknown-box`.
    pub fn held(&self, replacement: &Replacement) -> Result<Vec<Option<Held>>> {
        let lost = self.known(&replacement.ek_spki_sha256)?;
        let outside = [&replacement.ek_spki_sha256, &replacement.successor];
        let others = self.boxes().filter(|listed| !outside.contains(&&listed.row.ek_spki_sha256));
        let cards: Vec<&PeerCard> = others.filter_map(Listed::member_card).collect();
        let of = |origin: &str| lost.logs.iter().find(|log| log.origin == origin);
        replacement.logs.iter().map(|log| held(log, of(&log.origin), &cards)).collect()
    }

    /// Whether `card` only says where a member is now: newer than the one there, with the same keys.
    pub fn moves(&self, card: &PeerCard) -> bool {
        let before = self.of_log(card.origin().as_str()).and_then(Listed::member_card);
        before.is_some_and(|before| card.moves(before))
    }

    fn check_cards(&self, cards: &[PeerCard]) -> Result<()> {
        let mut boxes = BTreeSet::new();
        for (at, card) in cards.iter().enumerate() {
            let ek = self.check_card(card)?.row.ek_spki_sha256;
            if !boxes.insert(ek) {
                return Err(RosterRefusal::KnownBox(hex_of(&ek)));
            }
            if cards[..at].iter().any(|other| other.shares_a_key(card)) {
                return Err(RosterRefusal::KnownKey(card.origin().to_string()));
            }
        }
        Ok(())
    }

    /// No key of a hub is a box's.
    fn check_hubs(&self, hubs: &[Hub]) -> Result<()> {
        let known = |key: &Octets32| self.keys.contains(&key.to_vec()) || self.card_keys.contains_key(key);
        match hubs.iter().find(|hub| known(&hub.witness_key) || known(&hub.heads_key)) {
            Some(hub) => Err(RosterRefusal::KnownKey(hub.name.clone())),
            None => Ok(()),
        }
    }

    fn check_import(&self, rows: &[Row]) -> Result<()> {
        let (mut keys, mut serials) = (BTreeSet::new(), BTreeSet::new());
        for row in rows {
            match self.boxes.get(&row.ek_spki_sha256) {
                Some(listed) if listed.state.has_left() => {
                    return Err(RosterRefusal::Tombstoned(hex_of(&row.ek_spki_sha256)));
                }
                None if keys.insert(row.ek_spki_sha256) => {}
                _ => return Err(RosterRefusal::KnownBox(hex_of(&row.ek_spki_sha256))),
            }
            if self.serials.contains(&row.serial) || !serials.insert(&row.serial) {
                return Err(RosterRefusal::KnownSerial(row.serial.clone()));
            }
        }
        Ok(())
    }

    fn check_enrol(&self, fleet: &str, enrolments: &[EnrolmentContent], staging: bool) -> Result<()> {
        // Only who has a log has a next one.
        let states: &[State] = if staging { &[State::Enrolled] } else { &[State::Expected, State::Enrolled] };
        let (mut boxes, mut keys) = (BTreeSet::new(), BTreeSet::new());
        for content in enrolments {
            let ek = &content.ek_spki_sha256;
            let listed = match self.known(ek)? {
                listed if listed.state.has_left() => return Err(RosterRefusal::Tombstoned(hex_of(ek))),
                _ => self.one_of(ek, states)?,
            };
            if !boxes.insert(ek) {
                return Err(RosterRefusal::KnownBox(hex_of(ek)));
            }
            // A box begins its next log under a higher incarnation, never one of before.
            let incarnation = |origin: &str| Origin::parse(origin).map(|origin| origin.incarnation());
            let next = listed.all_logs().next_back().is_none_or(|last| {
                matches!((incarnation(&last.origin), incarnation(&content.origin)), (Ok(a), Ok(b)) if a < b)
            });
            if content.fleet != fleet || !next || self.origins.contains(&content.origin) {
                return Err(RosterRefusal::OtherOrigin(content.origin.clone()));
            }
            // A box that begins a new log may keep the attestation key of its last one.
            let log_key = content.log_key.to_vec();
            let attestation = content.attestation_key.to_vec();
            let own = listed.logs.last().is_some_and(|last| last.attestation_key == content.attestation_key);
            if staging && listed.staged.len() >= STAGED_MAX {
                let why = format!("{STAGED_MAX} logs are staged for {} already", listed.row.serial);
                return Err(RosterRefusal::Parameters(why));
            }
            let known = self.keys.contains(&log_key)
                || self.card_keys.contains_key(&content.log_key)
                || (!own && (staging || self.keys.contains(&attestation)));
            if known || !keys.insert(log_key) || !keys.insert(attestation) {
                return Err(RosterRefusal::KnownKey(content.origin.clone()));
            }
        }
        Ok(())
    }

    fn check_revoke(&self, revocation: &Revocation) -> Result<()> {
        let states: &[State] = match revocation.cause {
            // What is found out after a retirement counts more.
            Cause::Compromise => &[State::Expected, State::Enrolled, State::Quarantined, State::Retired],
            Cause::Retirement | Cause::Replaced => &[State::Expected, State::Enrolled, State::Quarantined],
        };
        let listed = self.one_of(&revocation.ek_spki_sha256, states)?;
        let named = listed.revocable(revocation.cause);
        if !named.map(|log| &log.origin).eq(revocation.logs.iter().map(|log| &log.origin)) {
            return Err(RosterRefusal::LogsDiffer);
        }
        if let Some(successor) = &revocation.successor {
            self.one_of(successor, &[State::Expected, State::Enrolled])?;
        }
        Ok(())
    }

    /// Does `deed`, which [`Inventory::check`] has let pass, as version `version`.
    pub(crate) fn carry_out(&mut self, deed: &Deed, version: u64) {
        match deed {
            Deed::Import(rows) => {
                for row in rows {
                    self.serials.insert(row.serial.clone());
                    let listed = Listed {
                        row: row.clone(),
                        state: State::Expected,
                        since: version,
                        logs: Vec::new(),
                        enrolled_by: Vec::new(),
                        staged: Vec::new(),
                        tombstones: Vec::new(),
                        card: None,
                        configuration: None,
                        before_quarantine: None,
                    };
                    self.boxes.insert(row.ek_spki_sha256, listed);
                }
            }
            Deed::Stage(enrolments) => {
                for content in enrolments {
                    self.know(content);
                    if let Some(listed) = self.boxes.get_mut(&content.ek_spki_sha256) {
                        listed.staged.push(content.clone());
                    }
                }
            }
            Deed::Enrol(enrolments) => {
                for content in enrolments {
                    self.know(content);
                    self.set(&content.ek_spki_sha256, version, |listed| {
                        // A log of a higher number has begun: those before it come no more after it.
                        listed.take_up(None, version);
                        listed.logs.push(content.clone());
                        listed.enrolled_by.push(version);
                        // It was of the log before.
                        listed.card = None;
                        State::Enrolled
                    });
                }
            }
            Deed::Quarantine(named) => self.set(&named.ek_spki_sha256, version, |listed| {
                listed.before_quarantine = Some(listed.state);
                State::Quarantined
            }),
            Deed::Release(named) => self.set(&named.ek_spki_sha256, version, |listed| {
                listed.before_quarantine.take().unwrap_or(State::Expected)
            }),
            Deed::Revoke(revocation) => self.give_up(revocation.clone(), Vec::new(), version),
            Deed::Replace(replacement) => {
                let held = self.held(replacement).unwrap_or_default();
                self.give_up(replacement.as_revocation(&held), held, version);
            }
            Deed::Pardon(named) => {
                let mut serial = None;
                self.set(&named.ek_spki_sha256, version, |listed| {
                    serial = Some(listed.row.serial.clone());
                    if let Some(stone) = listed.tombstones.last_mut() {
                        stone.pardoned = Some(version);
                    }
                    State::Expected
                });
                self.serials.extend(serial);
            }
            Deed::Operators { .. } | Deed::Hubs(_) | Deed::Anchors(_) | Deed::Policy(_) | Deed::AtBox(_) => {}
            Deed::Configuration(configured) => {
                for one in configured {
                    if let Some(listed) = self.boxes.get_mut(&one.ek_spki_sha256) {
                        listed.configuration = one.file.map(|file| (version, file));
                    }
                }
            }
            Deed::Cards(cards) => {
                for card in cards {
                    let Some(ek) =
                        self.of_log(card.origin().as_str()).map(|listed| listed.row.ek_spki_sha256)
                    else {
                        continue;
                    };
                    self.card_keys.extend(keys_of(card).map(|key| (key, ek)));
                    if let Some(listed) = self.boxes.get_mut(&ek) {
                        listed.take_up(Some(card.origin().as_str()), version);
                        listed.card = Some(card.clone());
                    }
                }
            }
        }
    }

    fn know(&mut self, content: &EnrolmentContent) {
        self.keys.insert(content.log_key.to_vec());
        self.keys.insert(content.attestation_key.to_vec());
        self.origins.insert(content.origin.clone());
    }

    fn give_up(&mut self, revocation: Revocation, held: Vec<Option<Held>>, version: u64) {
        let mut free = None;
        self.set(&revocation.ek_spki_sha256.clone(), version, |listed| {
            // One that had left before may share its number with a box that has not.
            free = (!listed.state.has_left()).then(|| listed.row.serial.clone());
            listed.before_quarantine = None;
            listed.configuration = None;
            if revocation.cause == Cause::Compromise {
                listed.take_up(None, version);
            }
            let state = match revocation.cause {
                Cause::Compromise => State::Revoked,
                Cause::Retirement | Cause::Replaced => State::Retired,
            };
            listed.tombstones.push(Tombstone { version, revocation, pardoned: None, held });
            state
        });
        if let Some(serial) = free {
            self.serials.remove(&serial);
        }
    }

    fn set(&mut self, ek: &Octets32, version: u64, change: impl FnOnce(&mut Listed) -> State) {
        if let Some(listed) = self.boxes.get_mut(ek) {
            listed.state = change(listed);
            listed.since = version;
        }
    }
}

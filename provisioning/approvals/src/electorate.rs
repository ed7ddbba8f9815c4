//! Who decides, and how many of them it takes for what.
//!
//! Refuses to do: count a person twice, or a key that belongs to two.
//! Invariants: an electorate can decide about everything it is asked (no quorum is larger than its people); protecting
//! (holding a box back) takes one, letting in and letting go take two wherever there are two.

use crate::action::{Action, Approval, Kind};
use crate::refusal::{Refusal, Result};
use bulla_formats::der::Octets32;
use bulla_formats::sig::{Algorithm, PublicKey};

/// Most people in one list.
pub const PEOPLE_MAX: usize = 16;
/// Most keys of one person.
pub const KEYS_MAX: usize = 4;

/// Somebody who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// As it stands in the minutes of the ceremony, or in the roster.
    pub name: String,
    /// Ed25519 keys; any of them is this person's one vote.
    pub keys: Vec<Octets32>,
}

/// People, and how many of them must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bench {
    /// Who.
    pub people: Vec<Person>,
    /// How many.
    pub needed: usize,
}

impl Bench {
    fn person_of(&self, key: &Octets32) -> Option<&Person> {
        self.people.iter().find(|person| person.keys.contains(key))
    }

    fn check(&self) -> Result<()> {
        let malformed = |why: &str| Err(Refusal::Malformed(why.to_owned()));
        if self.people.len() > PEOPLE_MAX || self.needed == 0 || self.needed > self.people.len() {
            return malformed("as many must agree as there are people, at most 16, or fewer, but somebody");
        }
        if self.people.iter().any(|person| person.keys.is_empty() || person.keys.len() > KEYS_MAX) {
            return malformed("a person has 1 to 4 keys");
        }
        let mut names: Vec<String> = self.people.iter().map(|person| person.name.to_lowercase()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return malformed("two people have the same name");
        }
        Ok(())
    }
}

/// Everybody who decides in a fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Electorate {
    operators: Option<Bench>,
    custodians: Bench,
}

impl Electorate {
    /// `custodians` decide where there are no `operators`, and override them where there are.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] when a bench cannot decide anything, or a key is no key or stands twice in the two.
    pub fn new(operators: Option<Bench>, custodians: Bench) -> Result<Self> {
        operators.as_ref().map_or(Ok(()), Bench::check)?;
        custodians.check()?;
        let benches = operators.iter().chain([&custodians]);
        let mut keys: Vec<&Octets32> =
            benches.flat_map(|bench| &bench.people).flat_map(|person| &person.keys).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Refusal::Malformed("two people have the same key, or one has it twice".into()));
        }
        if keys.iter().any(|key| PublicKey::from_bytes(Algorithm::Ed25519, &***key).is_err()) {
            return Err(Refusal::Malformed("a person's key is none".into()));
        }
        Ok(Electorate { operators, custodians })
    }

    /// Operators; none where the custodians decide.
    pub fn operators(&self) -> Option<&Bench> {
        self.operators.as_ref()
    }

    /// Custodians.
    pub fn custodians(&self) -> &Bench {
        &self.custodians
    }

    /// Whether a key is of anybody here.
    pub fn knows(&self, key: &Octets32) -> bool {
        self.operators.iter().chain([&self.custodians]).any(|bench| bench.person_of(key).is_some())
    }

    /// Who decides about an action, and how many of them it takes.
    pub fn quorum(&self, kind: Kind, overriding: bool) -> Result<(&Bench, usize)> {
        let bench = match (&self.operators, overriding) {
            (Some(_), true) => return Ok((&self.custodians, self.custodians.needed)),
            (None, true) => return Err(Refusal::NoOverride),
            (Some(operators), false) => operators,
            (None, false) => &self.custodians,
        };
        let needed = match kind {
            Kind::Quarantine => 1,
            Kind::Enrol | Kind::Stage | Kind::Box => bench.needed,
            Kind::Import
            | Kind::Release
            | Kind::Revoke
            | Kind::Pardon
            | Kind::Operators
            | Kind::Cards
            | Kind::Replace
            | Kind::Hubs
            | Kind::Anchors
            | Kind::Policy
            | Kind::Configuration => bench.needed.max(2).min(bench.people.len()),
        };
        Ok((bench, needed))
    }

    /// Name of the person whose approval of `action` this is.
    ///
    /// # Errors
    /// When it is of nobody who decides about it, does not verify, or came after its time.
    pub fn vote(&self, action: &Action, approval: &Approval) -> Result<&str> {
        self.votes(action, std::slice::from_ref(approval))?.pop().ok_or(Refusal::Stranger(*approval.key))
    }

    /// The same of several; the first condition that any of them breaks is the one that is told.
    fn votes(&self, action: &Action, approvals: &[Approval]) -> Result<Vec<&str>> {
        let (bench, _) = self.quorum(action.kind, action.overriding)?;
        let person =
            |approval: &Approval| bench.person_of(&approval.key).ok_or(Refusal::Stranger(*approval.key));
        let people = approvals.iter().map(person).collect::<Result<Vec<_>>>()?;
        let named = || people.iter().map(|person| person.name.as_str()).zip(approvals);
        if let Some((name, _)) = named().find(|(_, approval)| !approval.verifies(action)) {
            return Err(Refusal::BadSignature(name.to_owned()));
        }
        if let Some((name, _)) = named().find(|(_, approval)| approval.at > action.not_after) {
            return Err(Refusal::Late(name.to_owned()));
        }
        Ok(named().map(|(name, _)| name).collect())
    }

    /// Names of the people who approved `action`, sorted, when they are enough.
    pub(crate) fn decide(&self, action: &Action, approvals: &[Approval]) -> Result<Vec<String>> {
        let (_, needed) = self.quorum(action.kind, action.overriding)?;
        let mut names = self.votes(action, approvals)?;
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Refusal::PersonTwice(pair[0].to_owned()));
        }
        match names.len() {
            got if got < needed => Err(Refusal::NotEnough { got, needed }),
            _ => Ok(names.into_iter().map(str::to_owned).collect()),
        }
    }
}

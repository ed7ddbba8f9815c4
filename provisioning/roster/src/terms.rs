//! The fleet's terms: its hubs, whose time is believed, which boots are good, and what a seal must meet. People approve each
//! as a whole, so what they read is what holds.
//!
//! Refuses to do: fetch anything; judge whether a root is the right one (whoever approves compares its fingerprint).
//! Invariants: each list is in one order and names nobody twice; [`Anchors::authorities`] and [`Policy::references`] are what
//! a trust file says with the same words; a policy asks for no anchor of a fleet that believes nobody's time.

use crate::refusal::{Result, RosterRefusal};
use bulla_formats::body::key_epoch::PcrValue;
use bulla_formats::body::probe::is_name;
use bulla_formats::der::Octets32;
use bulla_formats::note::verifier_key;
use bulla_formats::report::Fact;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::trust::{self, Authorities, CERTIFICATES_MAX, Reference, TrustedTsa, TrustedWitness};
use bulla_formats::witness::WitnessKey;
use bulla_timestamps::{Authority, Oid};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most hubs of a fleet.
pub const HUBS_MAX: usize = 16;
/// Most client certificates, and most pins of its servers, of one hub.
pub const PINS_MAX: usize = 4;
/// Most addresses of one hub.
pub const ADDRESSES_MAX: usize = 8;
/// Longest address of a hub in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Most operators of time-stamp authorities, and most witnesses.
pub const AUTHORITIES_MAX: usize = 32;
/// Most operators that a bound of an interval can take.
pub const OPERATORS_MAX: u64 = 8;
/// Most known good boots.
pub const REFERENCES_MAX: usize = 64;
/// Longest name of a known good boot in bytes.
pub const REFERENCE_NAME_BYTES_MAX: usize = 128;
/// Most facts that a policy requires.
pub const FACTS_MAX: usize = 16;

fn refused<T>(why: impl Into<String>) -> Result<T> {
    Err(RosterRefusal::Parameters(why.into()))
}

/// A name, an address: something that can be printed.
fn is_plain(text: &str) -> bool {
    text.trim() == text && !text.chars().any(char::is_control)
}

fn ascending<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    let items: Vec<T> = items.collect();
    items.windows(2).all(|pair| pair[0] < pair[1])
}

/// A hub of the fleet.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hub {
    /// What its keys are named after: `serve.name` of its configuration; 1 to 64 bytes.
    pub name: String,
    /// Ed25519 key of `<name>/witness`: cosigns heads.
    pub witness_key: Octets32,
    /// Ed25519 key of `<name>/heads`: signs its own log, and its leases.
    pub heads_key: Octets32,
    /// Whether boxes take leases of it.
    pub leases: bool,
    /// SHA-256 of the SubjectPublicKeyInfo of each of its client certificates: who is let in as this hub.
    pub clients: Vec<Octets32>,
    /// The same of each certificate that it serves with.
    pub servers: Vec<Octets32>,
    /// `https://` addresses at which it is reached.
    pub addresses: Vec<String>,
}

impl Hub {
    /// Its witness as verifiers name it.
    pub fn witness(&self) -> Option<WitnessKey> {
        WitnessKey::new(&format!("{}/witness", self.name), *self.witness_key)
    }

    /// Verifier key of its own log.
    pub fn heads(&self) -> String {
        verifier_key(&format!("{}/heads", self.name), &self.heads_key)
    }

    fn check(&self) -> Result<()> {
        let name = &self.name;
        if !is_name(name) || self.witness().is_none() {
            return refused(format!("{name:?} is no name of a hub"));
        }
        for key in [&self.witness_key, &self.heads_key] {
            if PublicKey::from_bytes(Algorithm::Ed25519, &**key).is_err() {
                return refused(format!("a key of the hub {name} is none"));
            }
        }
        for pins in [&self.clients, &self.servers] {
            if pins.len() > PINS_MAX || !ascending(pins.iter()) {
                return refused(format!("the hub {name} has more than {PINS_MAX} pins, or not in order"));
            }
        }
        let fits = |address: &String| {
            address.len() <= ADDRESS_BYTES_MAX && address.starts_with("https://") && is_plain(address)
        };
        if self.addresses.len() > ADDRESSES_MAX || !self.addresses.iter().all(fits) {
            return refused(format!(
                "the hub {name} has more than {ADDRESSES_MAX} addresses, or one that is no https:// address of at most \
                 {ADDRESS_BYTES_MAX} bytes"
            ));
        }
        Ok(())
    }
}

/// Whether these can be a fleet's hubs.
pub(crate) fn check_hubs(hubs: &[Hub]) -> Result<()> {
    if hubs.len() > HUBS_MAX || !ascending(hubs.iter().map(|hub| &hub.name)) {
        return refused(format!("more than {HUBS_MAX} hubs, or not in the order of their names"));
    }
    hubs.iter().try_for_each(Hub::check)?;
    let keys = |hub: &Hub| [hub.witness_key, hub.heads_key];
    let mut all: Vec<Octets32> = hubs.iter().flat_map(keys).collect();
    let mut clients: Vec<Octets32> = hubs.iter().flat_map(|hub| hub.clients.clone()).collect();
    for list in [&mut all, &mut clients] {
        list.sort_unstable();
        if list.windows(2).any(|pair| pair[0] == pair[1]) {
            return refused("two hubs share a key, or one has it twice");
        }
    }
    Ok(())
}

/// The time-stamp authorities of one operator.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tsa {
    /// Who; 1 to 64 bytes.
    pub operator: String,
    /// DER of the roots that its tokens must lead to, ascending; 1 to 8.
    pub certificates: Vec<OctetString>,
    /// Policies accepted, dotted decimal; none means any; at most 8.
    pub policies: Vec<String>,
}

/// A witness outside the fleet.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Witness {
    /// Who runs it.
    pub operator: String,
    /// Verifier key as C2SP spells it.
    pub key: String,
}

/// Whose time is believed.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Anchors {
    /// How many distinct operators a bound of an interval takes; 1 to 8.
    pub operators: u64,
    /// In ascending order of their operators.
    pub tsas: Vec<Tsa>,
    /// In ascending order of their key names.
    pub witnesses: Vec<Witness>,
}

impl Anchors {
    /// The same as a trust file has it.
    pub fn of(authorities: Option<&Authorities>) -> Self {
        let Some(all) = authorities else {
            return Anchors { operators: 1, tsas: Vec::new(), witnesses: Vec::new() };
        };
        let tsa = |tsa: &TrustedTsa| {
            let mut certificates: Vec<OctetString> =
                tsa.authority.roots().map(|root| root.to_vec().into()).collect();
            certificates.sort_unstable();
            let policies = tsa.authority.policies().iter().map(ToString::to_string).collect();
            Tsa { operator: tsa.operator.clone(), certificates, policies }
        };
        let mut tsas: Vec<Tsa> = all.tsas.iter().map(tsa).collect();
        tsas.sort_unstable_by(|a, b| a.operator.cmp(&b.operator));
        let mut witnesses: Vec<&TrustedWitness> = all.witnesses.iter().collect();
        witnesses.sort_unstable_by_key(|witness| witness.key.name().to_owned());
        let witness =
            |one: &TrustedWitness| Witness { operator: one.operator.clone(), key: one.key.to_string() };
        Anchors { operators: all.operators, tsas, witnesses: witnesses.into_iter().map(witness).collect() }
    }

    /// Whether nobody's time is believed.
    pub fn is_empty(&self) -> bool {
        self.tsas.is_empty() && self.witnesses.is_empty()
    }

    /// What a trust file says of them; `None` where nobody's time is believed.
    ///
    /// # Errors
    /// [`RosterRefusal::Parameters`]: a root, a key or a policy is none, or something stands twice or in another order.
    pub fn authorities(&self) -> Result<Option<Authorities>> {
        if self.tsas.len() > AUTHORITIES_MAX || self.witnesses.len() > AUTHORITIES_MAX {
            return refused(format!("more than {AUTHORITIES_MAX} operators of authorities, or witnesses"));
        }
        if !(1..=OPERATORS_MAX).contains(&self.operators) {
            return refused(format!("a bound takes 1 to {OPERATORS_MAX} operators"));
        }
        let tsas = self.tsas.iter().map(read_tsa).collect::<Result<Vec<_>>>()?;
        let witnesses = self.witnesses.iter().map(read_witness).collect::<Result<Vec<_>>>()?;
        if !ascending(tsas.iter().map(|tsa| &tsa.operator))
            || !ascending(witnesses.iter().map(|witness| witness.key.name()))
        {
            return refused("operators, or key names of witnesses, are not in ascending order");
        }
        let all = Authorities { tsas, witnesses, operators: self.operators };
        Ok(Some(all).filter(|_| !self.is_empty()))
    }
}

fn read_tsa(tsa: &Tsa) -> Result<TrustedTsa> {
    let named = &tsa.operator;
    if !is_name(named) || !is_plain(named) {
        return refused("an operator is not named in 1 to 64 bytes without control characters");
    }
    let bounded = (1..=CERTIFICATES_MAX).contains(&tsa.certificates.len());
    if !bounded || tsa.policies.len() > CERTIFICATES_MAX || !ascending(tsa.certificates.iter()) {
        return refused(format!(
            "{named:?} has not 1 to {CERTIFICATES_MAX} roots in ascending order, or too many policies"
        ));
    }
    let oids = tsa.policies.iter().map(|text| Oid::parse(text));
    let oids: Vec<Oid> = oids.collect::<Result<_, _>>().map_err(RosterRefusal::parameters)?;
    if (1..tsa.policies.len()).any(|at| tsa.policies[..at].contains(&tsa.policies[at])) {
        return refused(format!("a policy of {named:?} stands twice"));
    }
    let roots: Vec<Vec<u8>> = tsa.certificates.iter().map(|root| root.to_vec()).collect();
    let authority = Authority::new(&roots, oids)
        .map_err(|error| RosterRefusal::Parameters(format!("the roots of {named:?}: {error}")))?;
    Ok(TrustedTsa { operator: named.clone(), authority })
}

fn read_witness(witness: &Witness) -> Result<TrustedWitness> {
    let key = WitnessKey::parse(&witness.key).filter(|key| key.to_string() == witness.key);
    match key {
        Some(key) if is_name(&witness.operator) && is_plain(&witness.operator) => {
            Ok(TrustedWitness { operator: witness.operator.clone(), key })
        }
        _ => refused("a witness has no operator of 1 to 64 bytes, or its key is no verifier key"),
    }
}

/// PCR values that a known good boot leaves behind.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct KnownBoot {
    /// What boots like this; 1 to 128 bytes.
    pub name: String,
    /// In ascending order of their numbers, at least one.
    pub pcrs: Vec<PcrValue>,
}

/// Which boots are good, and what a seal must meet.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Whether keys without a TPM are acceptable.
    pub accept_software: bool,
    /// Facts that must hold, none twice.
    pub require_facts: Vec<String>,
    /// Known good boots; without any, no boot is judged.
    pub boots: Vec<KnownBoot>,
}

impl Policy {
    /// The same as a trust file has it.
    pub fn of(policy: &trust::Policy, references: &[Reference]) -> Self {
        let value = |(pcr, value): &(u8, [u8; 32])| PcrValue { pcr: *pcr, value: Octets32::new(*value) };
        let boot = |reference: &Reference| KnownBoot {
            name: reference.name.clone(),
            pcrs: reference.pcrs.iter().map(value).collect(),
        };
        Policy {
            accept_software: policy.accept_software,
            require_facts: policy.require_facts.clone(),
            boots: references.iter().map(boot).collect(),
        }
    }

    /// The policy of a trust file.
    pub fn policy(&self) -> trust::Policy {
        trust::Policy { accept_software: self.accept_software, require_facts: self.require_facts.clone() }
    }

    /// The known good boots of a trust file.
    pub fn references(&self) -> Vec<Reference> {
        let values = |boot: &KnownBoot| boot.pcrs.iter().map(|one| (one.pcr, *one.value)).collect();
        self.boots.iter().map(|boot| Reference { name: boot.name.clone(), pcrs: values(boot) }).collect()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.require_facts.len() > FACTS_MAX || self.boots.len() > REFERENCES_MAX {
            return refused(format!("more than {FACTS_MAX} facts, or {REFERENCES_MAX} known good boots"));
        }
        if let Some(unknown) = self.require_facts.iter().find(|fact| Fact::parse(fact).is_none()) {
            return refused(format!("it requires the unknown fact {unknown:?}"));
        }
        let twice = |at: usize| self.require_facts[..at].contains(&self.require_facts[at]);
        if (1..self.require_facts.len()).any(twice) {
            return refused("it requires a fact twice");
        }
        for (at, boot) in self.boots.iter().enumerate() {
            let named = (1..=REFERENCE_NAME_BYTES_MAX).contains(&boot.name.len()) && is_plain(&boot.name);
            let ordered = !boot.pcrs.is_empty() && boot.pcrs.iter().all(|one| one.pcr < 24);
            if !named || !ordered || !ascending(boot.pcrs.iter().map(|one| one.pcr)) {
                return refused(format!(
                    "the boot {:?} has no name of 1 to {REFERENCE_NAME_BYTES_MAX} bytes, or no PCR values in ascending order",
                    boot.name
                ));
            }
            let known = |other: &KnownBoot| other.name == boot.name || other.pcrs == boot.pcrs;
            if let Some(other) = self.boots[..at].iter().find(|other| known(other)) {
                return refused(format!(
                    "the boots {:?} and {:?} share name or values",
                    other.name, boot.name
                ));
            }
        }
        Ok(())
    }
}

/// What people have approved of all this; `None` where they have not said anything yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// The fleet's hubs, in the order of their names.
    pub hubs: Vec<Hub>,
    /// Whose time is believed, and the version of the roster that says so.
    pub anchors: Option<(u64, Anchors)>,
    /// The policy, and the version of the roster that says so.
    pub policy: Option<(u64, Policy)>,
}

impl Terms {
    /// The hub of this name.
    pub fn hub(&self, name: &str) -> Option<&Hub> {
        self.hubs.iter().find(|hub| hub.name == name)
    }

    /// The hub that comes with this client certificate (SHA-256 of its SubjectPublicKeyInfo).
    pub fn hub_of_client(&self, spki_sha256: &[u8; 32]) -> Option<&Hub> {
        self.hubs.iter().find(|hub| hub.clients.iter().any(|pin| **pin == *spki_sha256))
    }

    /// Whether one of the hubs has this key.
    pub(crate) fn has_key(&self, key: &[u8]) -> bool {
        self.hubs.iter().any(|hub| *hub.witness_key == *key || *hub.heads_key == *key)
    }

    /// Whether what the policy requires can be proven at all.
    pub(crate) fn check(&self) -> Result<()> {
        let (Some((_, anchors)), Some((_, policy))) = (&self.anchors, &self.policy) else { return Ok(()) };
        let anchored = Fact::Anchored.name();
        if anchors.is_empty() && policy.require_facts.iter().any(|fact| fact == anchored) {
            return Err(RosterRefusal::Unprovable(anchored));
        }
        Ok(())
    }
}

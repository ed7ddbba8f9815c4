//! The threshold scheme: FROST(Ed25519, SHA-512) of RFC 9591 with distributed key generation, or one ordinary key.
//!
//! Refuses to do: draw randomness (it is an argument), sign twice with the same nonces (they are consumed), or blame
//! nobody when somebody can be blamed.
//! Invariant: what it signs verifies as plain Ed25519 (RFC 8032); verifiers need not know how many held the key.

use crate::error::{CeremonyError, Result};
use crate::wire::Plan;
use ed25519_dalek::{Signer, SigningKey};
use frost::keys::dkg;
use frost::rand_core::{CryptoRng, RngCore};
use frost::{Error, Identifier};
use frost_ed25519 as frost;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// Serialised packages by the number of their sender.
pub type Packages = BTreeMap<u64, Vec<u8>>;

/// What a custodian has after the first round.
pub struct First {
    /// Secret, for the second round.
    pub secret: Zeroizing<Vec<u8>>,
    /// For everybody.
    pub package: Vec<u8>,
}

/// What a custodian has after the second round.
pub struct Second {
    /// Secret, for the last round.
    pub secret: Zeroizing<Vec<u8>>,
    /// For each other custodian alone.
    pub packages: BTreeMap<u64, Zeroizing<Vec<u8>>>,
}

/// A custodian's part of the root.
pub struct Part {
    /// Secret.
    pub key: Zeroizing<Vec<u8>>,
    /// Public, the same for all; empty where one custodian holds the whole key.
    pub public: Vec<u8>,
    /// The fleet root, Ed25519.
    pub root: [u8; 32],
}

/// Nonces for one signature.
pub struct Nonces {
    /// Secret, to be used once.
    pub secret: Zeroizing<Vec<u8>>,
    /// For everybody.
    pub commitments: Vec<u8>,
}

fn identifier(number: u64) -> Result<Identifier> {
    let number = u16::try_from(number).map_err(|_| CeremonyError::Scheme("a number is too large".into()))?;
    Identifier::try_from(number).map_err(scheme)
}

fn scheme(error: Error) -> CeremonyError {
    CeremonyError::Scheme(error.to_string())
}

/// Blames whom the scheme blames.
fn blame(plan: &Plan, error: Error, what: &str) -> CeremonyError {
    let culprits = error.culprits();
    let guilty = (1..=plan.custodians.len() as u64)
        .find(|number| identifier(*number).is_ok_and(|identifier| culprits.contains(&identifier)));
    match guilty {
        Some(number) => plan.accuse(number, what),
        None => scheme(error),
    }
}

/// Reads one package of each sender; a package that cannot be read is its sender's fault.
fn read<T>(
    plan: &Plan,
    packages: &Packages,
    parse: impl Fn(&[u8]) -> Result<T, Error>,
) -> Result<BTreeMap<Identifier, T>> {
    let one = |(number, bytes): (&u64, &Vec<u8>)| {
        let package =
            parse(bytes).map_err(|_| plan.accuse(*number, "sent bytes that are no package of the scheme"))?;
        Ok((identifier(*number)?, package))
    };
    packages.iter().map(one).collect()
}

/// First round of key generation for custodian `number`.
pub fn first(plan: &Plan, number: u64, rng: &mut (impl RngCore + CryptoRng)) -> Result<First> {
    let (all, threshold) = (plan.custodians.len() as u16, plan.threshold as u16);
    let (secret, package) = dkg::part1(identifier(number)?, all, threshold, rng).map_err(scheme)?;
    Ok(First {
        secret: Zeroizing::new(secret.serialize().map_err(scheme)?),
        package: package.serialize().map_err(scheme)?,
    })
}

/// Second round, with the first packages of the others.
///
/// # Errors
/// Names the custodian whose package lacks a valid proof that its sender knows its secret.
pub fn second(plan: &Plan, secret: &[u8], others: &Packages) -> Result<Second> {
    let secret = dkg::round1::SecretPackage::deserialize(secret).map_err(scheme)?;
    let others = read(plan, others, dkg::round1::Package::deserialize)?;
    let (secret, packages) = dkg::part2(secret, &others)
        .map_err(|error| blame(plan, error, "does not prove that it knows its own secret"))?;
    let mut by_number = BTreeMap::new();
    for number in 1..=plan.custodians.len() as u64 {
        if let Some(package) = packages.get(&identifier(number)?) {
            by_number.insert(number, Zeroizing::new(package.serialize().map_err(scheme)?));
        }
    }
    Ok(Second { secret: Zeroizing::new(secret.serialize().map_err(scheme)?), packages: by_number })
}

/// Last round: what the others sent to this custodian alone.
///
/// # Errors
/// Names the custodian whose share does not lie on the polynomial it committed to.
pub fn last(
    plan: &Plan,
    secret: &[u8],
    others: &Packages,
    for_me: &BTreeMap<u64, Zeroizing<Vec<u8>>>,
) -> Result<Part> {
    let secret = dkg::round2::SecretPackage::deserialize(secret).map_err(scheme)?;
    let others = read(plan, others, dkg::round1::Package::deserialize)?;
    let mut shares = BTreeMap::new();
    for (number, bytes) in for_me {
        let share = dkg::round2::Package::deserialize(bytes)
            .map_err(|_| plan.accuse(*number, "sent bytes that are no share"))?;
        shares.insert(identifier(*number)?, share);
    }
    let (key, public) = dkg::part3(&secret, &others, &shares)
        .map_err(|error| blame(plan, error, "sent a share that does not fit what it committed to"))?;
    let root = public.verifying_key().serialize().map_err(scheme)?;
    let root = root.try_into().map_err(|_| CeremonyError::Scheme("the root is not 32 bytes".into()))?;
    Ok(Part {
        key: Zeroizing::new(key.serialize().map_err(scheme)?),
        public: public.serialize().map_err(scheme)?,
        root,
    })
}

/// The whole key of a single custodian.
pub fn alone(rng: &mut (impl RngCore + CryptoRng)) -> Part {
    let mut seed = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *seed);
    let root = SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    Part { key: Zeroizing::new(seed.to_vec()), public: Vec::new(), root }
}

/// Signs with a whole key.
pub fn sign_alone(seed: &[u8], message: &[u8]) -> Result<Vec<u8>> {
    let seed: Zeroizing<[u8; 32]> = Zeroizing::new(
        seed.try_into().map_err(|_| CeremonyError::Scheme("the stored key is not 32 bytes".into()))?,
    );
    Ok(SigningKey::from_bytes(&seed).sign(message).to_bytes().to_vec())
}

/// Nonces for one signature with a part of the key.
pub fn nonces(key: &[u8], rng: &mut (impl RngCore + CryptoRng)) -> Result<Nonces> {
    let key = frost::keys::KeyPackage::deserialize(key).map_err(scheme)?;
    let (secret, commitments) = frost::round1::commit(key.signing_share(), rng);
    Ok(Nonces {
        secret: Zeroizing::new(secret.serialize().map_err(scheme)?),
        commitments: commitments.serialize().map_err(scheme)?,
    })
}

/// A share of the signature over `message`. Takes the nonces away: they must not sign anything else.
pub fn share(
    plan: &Plan,
    key: &[u8],
    nonces: Zeroizing<Vec<u8>>,
    commitments: &Packages,
    message: &[u8],
) -> Result<Vec<u8>> {
    let key = frost::keys::KeyPackage::deserialize(key).map_err(scheme)?;
    let nonces = frost::round1::SigningNonces::deserialize(&nonces).map_err(scheme)?;
    let commitments = read(plan, commitments, frost::round1::SigningCommitments::deserialize)?;
    let package = frost::SigningPackage::new(commitments, message);
    Ok(frost::round2::sign(&package, &nonces, &key).map_err(scheme)?.serialize())
}

/// The signature from the shares of a quorum.
///
/// # Errors
/// Names the custodian whose share is wrong.
pub fn aggregate(
    plan: &Plan,
    public: &[u8],
    commitments: &Packages,
    shares: &Packages,
    message: &[u8],
) -> Result<Vec<u8>> {
    let public = frost::keys::PublicKeyPackage::deserialize(public).map_err(scheme)?;
    let commitments = read(plan, commitments, frost::round1::SigningCommitments::deserialize)?;
    let shares = read(plan, shares, frost::round2::SignatureShare::deserialize)?;
    let package = frost::SigningPackage::new(commitments, message);
    let signature = frost::aggregate(&package, &shares, &public)
        .map_err(|error| blame(plan, error, "sent a share of the signature that is wrong"))?;
    signature.serialize().map_err(scheme)
}

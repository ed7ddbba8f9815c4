//! A time-stamping authority as its operator's customer knows it: pinned roots, and the policies that are good enough.
//!
//! Refuses to do: roots that are no CA's, lists so long that nobody has compared their fingerprints.
//! Invariant: whatever a stamp carries, trust comes from here alone.

use crate::certificate::Certificate;
use crate::oid::Oid;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

/// Most roots of one authority.
pub const ROOTS_MAX: usize = 16;

/// A list of roots that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// There is none.
    #[error("there is no root certificate; an authority is known by at least one")]
    NoRoot,
    /// There are too many.
    #[error("there are {0} root certificates, more than the 16 of one authority")]
    TooMany(usize),
    /// One of them.
    #[error("root certificate {number} is not usable: {why}")]
    Root {
        /// Which, from 1.
        number: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// A file that is not PEM.
    #[error("the file is not PEM with certificates: section {0} cannot be read")]
    Pem(usize),
}

/// A pinned root.
#[derive(Debug, Clone)]
pub(crate) struct Root {
    der: Vec<u8>,
    pub anchor: TrustAnchor<'static>,
    pub not_before_micros: u64,
    pub not_after_micros: u64,
}

/// An authority.
#[derive(Debug, Clone)]
pub struct Authority {
    roots: Vec<Root>,
    policies: Vec<Oid>,
}

impl Authority {
    /// Takes the DER of its roots (an intermediate CA may be pinned instead) and the policies under which its stamps
    /// are accepted; none means any.
    pub fn new(roots: &[Vec<u8>], policies: Vec<Oid>) -> Result<Self, AuthorityError> {
        if roots.is_empty() {
            return Err(AuthorityError::NoRoot);
        }
        if roots.len() > ROOTS_MAX {
            return Err(AuthorityError::TooMany(roots.len()));
        }
        let root = |(at, der): (usize, &Vec<u8>)| {
            root(der).map_err(|why| AuthorityError::Root { number: at + 1, why })
        };
        let roots = roots.iter().enumerate().map(root).collect::<Result<_, _>>()?;
        Ok(Authority { roots, policies })
    }

    /// The same from a PEM file.
    pub fn from_pem(pem: &[u8], policies: Vec<Oid>) -> Result<Self, AuthorityError> {
        Self::new(&certificates_in_pem(pem)?, policies)
    }

    /// DER of the roots.
    pub fn roots(&self) -> impl Iterator<Item = &[u8]> {
        self.roots.iter().map(|root| root.der.as_slice())
    }

    /// Policies under which its stamps are accepted; none means any.
    pub fn policies(&self) -> &[Oid] {
        &self.policies
    }

    pub(crate) fn accepts(&self, policy: &Oid) -> bool {
        self.policies.is_empty() || self.policies.contains(policy)
    }

    /// DER of the root that is this anchor.
    pub(crate) fn root_of(&self, anchor: &TrustAnchor<'_>) -> Option<&[u8]> {
        self.roots.iter().find(|root| root.anchor == *anchor).map(|root| root.der.as_slice())
    }

    /// Anchors whose certificates were valid then, or were not.
    pub(crate) fn anchors(&self, micros: u64, valid: bool) -> Vec<TrustAnchor<'static>> {
        let then = |root: &&Root| (root.not_before_micros..=root.not_after_micros).contains(&micros) == valid;
        self.roots.iter().filter(then).map(|root| root.anchor.clone()).collect()
    }
}

fn root(der: &[u8]) -> Result<Root, &'static str> {
    let certificate =
        Certificate::read(der).map_err(|_| "it is not DER of an X.509 certificate, version 3")?;
    if !certificate.is_ca().map_err(|_| "its basic constraints are malformed")? {
        return Err("it is not that of a CA");
    }
    let anchor = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&anchor).map_err(|_| "it cannot be the root of a path")?;
    Ok(Root {
        der: der.to_vec(),
        anchor: anchor.to_owned(),
        not_before_micros: certificate.not_before_micros,
        not_after_micros: certificate.not_after_micros.saturating_add(crate::time::SECOND - 1),
    })
}

/// DER of the certificates of a PEM file; other sections are passed over.
pub fn certificates_in_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let mut found = Vec::new();
    for (at, section) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = section.map_err(|_| AuthorityError::Pem(at + 1))?;
        found.push(certificate.to_vec());
    }
    Ok(found)
}

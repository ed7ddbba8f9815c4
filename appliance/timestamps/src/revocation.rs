//! Whether the certificates behind a stamp were revoked, by the CRLs that somebody kept.
//!
//! RFC 3161, 4: a revocation for one of four harmless reasons leaves earlier stamps what they are; any other, and one
//! without a reason, makes all stamps of that key doubtful, whatever their time. The same is asked of the CAs between.
//! Refuses to do: fetch anything; take a CRL for more than it says.
//! Invariants: the order of the CRLs is of no account; another CRL makes no stamp less doubtful.

use crate::certificate::Certificate;
use crate::crl::{Crl, CrlRefusal, Reason, web_address};
use crate::der::{Malformed, Result as Der};
use crate::signed_data::SignedData;
use crate::text;
use crate::verify::TimeStamp;
use crate::{Refusal, Reply};
use std::fmt;

/// Most addresses of CRLs that one certificate is asked for.
pub const CRL_ADDRESSES_MAX: usize = 4;

/// A certificate behind a stamp, and the one that vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vouched {
    certificate: Vec<u8>,
    issuer: Vec<u8>,
}

/// A certificate that is on a CRL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Its subject, for people.
    pub subject: String,
    /// When it was revoked, in microseconds since 1970.
    pub at_micros: u64,
    /// Why, as far as the CRL says.
    pub reason: Option<Reason>,
    /// Whether a stamp of the time in question is doubtful for it.
    pub doubtful: bool,
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{} was revoked ({reason})", self.subject),
            None => write!(f, "{} was revoked (no reason given)", self.subject),
        }
    }
}

/// What a CRL says of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// When the CRL was made, in microseconds since 1970.
    pub this_update_micros: u64,
    /// When the next one was to be there.
    pub next_update_micros: u64,
    /// The revocation, if there is one.
    pub revoked: Option<Revoked>,
}

/// How the certificates behind a stamp stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// None of them was revoked when the oldest of the CRLs was made, in microseconds since 1970.
    Good(u64),
    /// One was revoked after the stamp, for a reason that leaves it what it is.
    RevokedLater(Revoked),
    /// One was revoked, and the stamp counts for nothing.
    Doubtful(Revoked),
    /// No CRL speaks of this one.
    Unknown(String),
}

/// What became of one CRL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is of an issuer behind the stamp, and verifies.
    Verified,
    /// It is of such an issuer by its name, and does not verify.
    Refused(CrlRefusal),
    /// It is of none of them.
    Foreign,
}

impl Vouched {
    pub(crate) fn new(certificate: &[u8], issuer: &[u8]) -> Self {
        Vouched { certificate: certificate.to_vec(), issuer: issuer.to_vec() }
    }

    /// DER of the certificate.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its subject, for people.
    pub fn subject(&self) -> String {
        let read = || text::name(Certificate::read(&self.certificate)?.subject);
        read().unwrap_or_default()
    }

    /// Addresses of the web that it names for CRLs.
    pub fn crl_addresses(&self) -> Vec<String> {
        let read = || -> Der<Vec<String>> {
            let points = Certificate::read(&self.certificate)?.distribution_points()?;
            let addresses = points.into_iter().filter_map(web_address).map(str::to_owned);
            Ok(addresses.take(CRL_ADDRESSES_MAX).collect())
        };
        read().unwrap_or_default()
    }

    /// What `crl` says of it for a stamp that was made between these two, in microseconds since 1970.
    pub fn judge(&self, crl: &Crl<'_>, stamp: (u64, u64)) -> Result<Word, CrlRefusal> {
        self.verify(crl)?;
        self.word(crl, stamp)
    }

    fn verify(&self, crl: &Crl<'_>) -> Result<(), CrlRefusal> {
        crl.verify(&Certificate::read(&self.issuer).map_err(|Malformed| CrlRefusal::Issuer)?)
    }

    fn word(&self, crl: &Crl<'_>, (earliest, latest): (u64, u64)) -> Result<Word, CrlRefusal> {
        let certificate = Certificate::read(&self.certificate).map_err(|Malformed| CrlRefusal::Issuer)?;
        if crl.issuer != certificate.issuer {
            return Err(CrlRefusal::Issuer);
        }
        if !crl.covers(&certificate).map_err(|Malformed| CrlRefusal::Scope)? {
            return Err(CrlRefusal::Scope);
        }
        let entry = crl.find(certificate.serial)?;
        let (this_update_micros, next_update_micros) = (crl.this_update_micros(), crl.next_update_micros());
        let revoked = entry.map(|entry| Revoked {
            subject: text::name(certificate.subject).unwrap_or_default(),
            at_micros: entry.at_micros,
            reason: entry.reason,
            doubtful: !entry.reason.is_some_and(Reason::leaves_earlier_stamps) || latest >= entry.at_micros,
        });
        // What says that it is revoked says so at any time; that it is not is worth something in its own time only.
        if revoked.is_none() {
            if next_update_micros < earliest {
                return Err(CrlRefusal::Expired);
            }
            if this_update_micros > certificate.not_after_micros {
                return Err(CrlRefusal::TooLate);
            }
        }
        Ok(Word { this_update_micros, next_update_micros, revoked })
    }

    fn is_issued_by_issuer_of(&self, crl: &Crl<'_>) -> bool {
        Certificate::read(&self.certificate).is_ok_and(|certificate| certificate.issuer == crl.issuer)
    }
}

/// How the certificates behind a stamp stood by these CRLs, and what became of each CRL.
pub fn standing(stamp: &TimeStamp, crls: &[Crl<'_>]) -> (Standing, Vec<Use>) {
    let mut uses = vec![Use::Foreign; crls.len()];
    let (mut later, mut doubtful, mut unknown) = (None, None, None);
    let mut as_of = u64::MAX;
    let time = (stamp.earliest_micros(), stamp.latest_micros());
    for vouched in stamp.vouched() {
        let mut newest = None;
        for (crl, used) in crls.iter().zip(&mut uses) {
            if !vouched.is_issued_by_issuer_of(crl) {
                continue;
            }
            if let Err(refusal) = vouched.verify(crl) {
                // A CA that changed its key stands on a path twice, with one name: a CRL is of one of the two.
                if *used != Use::Verified {
                    *used = Use::Refused(refusal);
                }
                continue;
            }
            *used = Use::Verified;
            let Ok(word) = vouched.word(crl, time) else { continue };
            match word.revoked {
                Some(revoked) if revoked.doubtful => doubtful = doubtful.or(Some(revoked)),
                Some(revoked) => later = later.or(Some(revoked)),
                None => {}
            }
            newest = newest.max(Some(word.this_update_micros));
        }
        match newest {
            Some(newest) => as_of = as_of.min(newest),
            None => unknown = unknown.or_else(|| Some(vouched.subject())),
        }
    }
    let standing = match (doubtful, later, unknown) {
        (Some(revoked), _, _) => Standing::Doubtful(revoked),
        (None, Some(revoked), _) => Standing::RevokedLater(revoked),
        (None, None, Some(subject)) => Standing::Unknown(subject),
        (None, None, None) => Standing::Good(as_of),
    };
    (standing, uses)
}

/// DER of the certificates that a reply carries, nothing of it judged.
pub fn certificates(reply: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    Ok(SignedData::read(Reply::decode(reply)?.stamp)?.certificates)
}

/// Whether one of these certificates names the CRL's issuer as its own; nothing is verified.
pub fn is_of(crl: &Crl<'_>, certificates: &[&[u8]]) -> bool {
    let of = |der: &&[u8]| Certificate::read(der).is_ok_and(|certificate| certificate.issuer == crl.issuer);
    certificates.iter().any(of)
}

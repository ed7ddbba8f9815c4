//! The CRLs that the box keeps: the newest good one for each certificate that stands behind its time stamps.
//!
//! A CRL is signed by its CA and needs no place in the log: the bytes lie beside it, and what they say in short is a
//! value of the control store. All of it can be fetched again while the CA publishes it.
//! Refuses to do: fetch (`outage::crls` does); keep what was not verified; let a CRL that lists a certificate give way to
//! one that does not.
//! Invariant: what is listed has its bytes; bytes that nothing lists go when the next CRL is kept.

use bulla_formats::anchoring;
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Evidence};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::seal_file::{CRL_BYTES_MAX, CRLS_MAX};
use bulla_formats::trust::Authorities;
use bulla_ledger::{Control, KeptObjects};
use bulla_timestamps::{Reason, TimeStamp, Vouched, Word, certificates};
use serde::{Deserialize, Serialize};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Name of the value.
const CRLS: &str = "crls";

/// What is known of a certificate by a CRL that is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeptCrl {
    /// SHA-256 of the certificate, hex.
    pub certificate: String,
    /// Its subject, for people.
    pub subject: String,
    /// The authority whose stamps it stands behind.
    pub authority: String,
    /// SHA-256 of the CRL, hex.
    pub crl: String,
    /// Its size.
    pub bytes: u64,
    /// When it was made, Unix milliseconds.
    pub this_update_millis: u64,
    /// When the next one was to be there.
    pub next_update_millis: u64,
    /// The certificate's revocation, if it is listed.
    pub revoked: Option<KeptRevocation>,
}

/// A revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct KeptRevocation {
    /// When, Unix milliseconds.
    pub at_millis: u64,
    /// Why, as RFC 5280 calls it.
    pub reason: Option<String>,
    /// Whether stamps from before it count for nothing either.
    pub doubtful: bool,
}

/// Names the certificate with this DER.
pub fn certificate_name(der: &[u8]) -> [u8; 32] {
    sha256(&[der]).0
}

/// What is kept.
pub struct Crls {
    objects: KeptObjects,
    control: Control,
    known: RwLock<Vec<KeptCrl>>,
}

impl Crls {
    /// Reads what is listed.
    pub fn load(objects: KeptObjects, control: Control) -> Self {
        let listed = match control.get(CRLS) {
            Ok(None) => Ok(Vec::new()),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let known = listed.unwrap_or_else(|error| {
            log::warn!("which CRLs are kept cannot be read, so they are fetched again: {error}");
            Vec::new()
        });
        Crls { objects, control, known: RwLock::new(known) }
    }

    fn known(&self) -> RwLockReadGuard<'_, Vec<KeptCrl>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them.
    pub fn all(&self) -> Vec<KeptCrl> {
        self.known().clone()
    }

    /// Whether one that is kept speaks of this certificate for a stamp of this time, Unix milliseconds.
    pub fn cover(&self, certificate: &[u8; 32], stamp: u64) -> bool {
        let name = hex::encode(certificate);
        let covers = |kept: &KeptCrl| {
            kept.certificate == name && (kept.next_update_millis >= stamp || kept.revoked.is_some())
        };
        self.known().iter().any(covers)
    }

    /// Keeps a CRL that was verified and speaks of this certificate. Whether anything is new.
    ///
    /// # Errors
    /// It could not be stored; what was kept before still is.
    pub fn keep(
        &self,
        certificate: &[u8; 32],
        (authority, subject): (&str, String),
        crl: &[u8],
        word: &Word,
    ) -> Result<bool, String> {
        let revoked = word.revoked.as_ref().map(|revoked| KeptRevocation {
            at_millis: revoked.at_micros / 1_000,
            reason: revoked.reason.map(|reason| reason.to_string()),
            doubtful: !revoked.reason.is_some_and(Reason::leaves_earlier_stamps),
        });
        let new = KeptCrl {
            certificate: hex::encode(certificate),
            subject,
            authority: authority.to_owned(),
            crl: sha256(&[crl]).to_string(),
            bytes: crl.len() as u64,
            this_update_millis: word.this_update_micros / 1_000,
            next_update_millis: word.next_update_micros / 1_000,
            revoked,
        };
        let mut all = self.all();
        match all.iter_mut().find(|known| known.certificate == new.certificate) {
            Some(known) if !gives_way(known, &new) => return Ok(false),
            Some(known) => *known = new,
            None => all.push(new),
        }
        self.objects.keep(crl).map_err(|error| error.to_string())?;
        let text = serde_json::to_vec(&all).map_err(|error| error.to_string())?;
        self.control.put(CRLS, &text).map_err(|error| error.to_string())?;
        let wanted: Vec<Hash> = all.iter().filter_map(|kept| named(&kept.crl)).collect();
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = all;
        if let Err(error) = self.objects.keep_only(&wanted) {
            log::warn!("an old CRL could not be removed: {error}");
        }
        Ok(true)
    }

    /// Those that belong to these bodies and are small enough to be carried in a file, each once.
    pub fn of(&self, bodies: &[AnchorBody]) -> Vec<Vec<u8>> {
        let mut found: Vec<String> = Vec::new();
        for proof in bodies.iter().flat_map(|body| &body.proofs) {
            let Evidence::Timestamp(reply) = &proof.evidence else { continue };
            let carried = certificates(reply).unwrap_or_default();
            let names: Vec<String> = carried.iter().map(|der| hex::encode(certificate_name(der))).collect();
            for kept in self.known().iter().filter(|kept| names.contains(&kept.certificate)) {
                if kept.bytes <= CRL_BYTES_MAX as u64 && !found.contains(&kept.crl) {
                    found.push(kept.crl.clone());
                }
            }
        }
        found.truncate(CRLS_MAX);
        found.iter().filter_map(|name| self.bytes(name)).collect()
    }

    /// The CRL of this name (hex); one that cannot be read is as good as none, and is told of.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let read = self.objects.read(&named(name)?);
        read.unwrap_or_else(|error| {
            log::warn!("a CRL that was kept cannot be read: {error}");
            None
        })
    }

    /// Whether a kept CRL lists any certificate.
    pub fn list_any(&self) -> bool {
        self.known().iter().any(|kept| kept.revoked.is_some())
    }

    /// What is kept of this certificate's revocation.
    pub fn revocation(&self, certificate: &[u8; 32]) -> Option<KeptRevocation> {
        let name = hex::encode(certificate);
        self.known().iter().find(|kept| kept.certificate == name)?.revoked.clone()
    }

    /// The CRL for which this stamp counts for nothing, if there is one: what the verifier finds with it.
    pub fn doubt(&self, stamp: &TimeStamp) -> Option<KeptCrl> {
        let known = self.known();
        let listed = |vouched: &Vouched| {
            let name = hex::encode(certificate_name(vouched.certificate()));
            let doubts = |kept: &&KeptCrl| {
                let late = |revoked: &KeptRevocation| stamp.latest_micros() >= revoked.at_millis * 1_000;
                let revoked = kept.revoked.as_ref();
                kept.certificate == name && revoked.is_some_and(|revoked| revoked.doubtful || late(revoked))
            };
            known.iter().find(doubts).cloned()
        };
        stamp.vouched().iter().find_map(listed)
    }

    /// Whether this proof may count for a bound, by all that is kept.
    pub fn let_count(
        &self,
        body: &AnchorBody,
        proof: &AnchorProof,
        authorities: Option<&Authorities>,
    ) -> bool {
        let Evidence::Timestamp(reply) = &proof.evidence else { return true };
        let known = authorities.and_then(|all| all.tsa(&proof.operator));
        match known.and_then(|known| anchoring::stamp(body, reply, &known.authority).ok()) {
            Some(stamp) => self.doubt(&stamp).is_none(),
            // Of an authority that is not configured any more, with the roots that went with it.
            None => {
                let carried = certificates(reply).unwrap_or_default();
                let lost = |der: &&[u8]| {
                    self.revocation(&certificate_name(der)).is_some_and(|revoked| revoked.doubtful)
                };
                !carried.iter().any(lost)
            }
        }
    }
}

fn named(hex: &str) -> Option<Hash> {
    Hash::from_slice(&hex::decode(hex).ok()?)
}

/// Whether the one that is kept is replaced: by a newer one, and never by one that says less of a revocation.
fn gives_way(kept: &KeptCrl, new: &KeptCrl) -> bool {
    match (&kept.revoked, &new.revoked) {
        (Some(_), None) => false,
        (None, Some(_)) => true,
        (Some(was), Some(says)) if was.doubtful != says.doubtful => says.doubtful,
        _ => new.this_update_millis >= kept.this_update_millis && new.crl != kept.crl,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(this_update_millis: u64, crl: &str, revoked: bool) -> KeptCrl {
        let revoked = revoked.then_some(KeptRevocation { at_millis: 1, reason: None, doubtful: true });
        KeptCrl {
            certificate: "c".into(),
            subject: "s".into(),
            authority: "a".into(),
            crl: crl.into(),
            bytes: 1,
            this_update_millis,
            next_update_millis: this_update_millis + 1,
            revoked,
        }
    }

    #[test]
    fn a_crl_gives_way_to_a_newer_one_and_never_forgets_a_revocation() {
        assert!(gives_way(&kept(1, "x", false), &kept(2, "y", false)));
        assert!(!gives_way(&kept(2, "x", false), &kept(1, "y", false)), "an older one");
        assert!(!gives_way(&kept(2, "x", false), &kept(2, "x", false)), "the same");
        assert!(!gives_way(&kept(1, "x", true), &kept(2, "y", false)), "a hold that was lifted");
        assert!(gives_way(&kept(2, "x", false), &kept(1, "y", true)), "an older one that lists it");
        assert!(gives_way(&kept(1, "x", true), &kept(2, "y", true)));
        let mut harmless = kept(2, "y", true);
        harmless.revoked.as_mut().unwrap().doubtful = false;
        assert!(!gives_way(&kept(1, "x", true), &harmless), "a reason that was softened");
        assert!(gives_way(&harmless, &kept(1, "x", true)), "and one that was not known before");
    }
}

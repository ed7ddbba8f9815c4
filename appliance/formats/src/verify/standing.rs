//! Whether the certificates behind time stamps were revoked, by the CRLs that a file carries.
//!
//! Refuses to do: take a CRL that belongs to no stamp of the file, or one that does not verify.
//! Invariants: a stamp whose signer was revoked in a way that leaves its time in doubt counts for no bound; a file without
//! CRLs says as much as it did before there were any.

use super::memory::Key;
use super::unpacked::{Der, Parts};
use super::{Stop, Walk};
use crate::anchoring::{self, Attested, Held};
use crate::body::anchor::AnchorBody;
use crate::report::{Verdict, utc};
use bulla_timestamps::{Crl, Revoked, Standing, Use};
use std::sync::Arc;

const NAME: &str = "revocation-status";

/// The CRLs of a file, read and not verified.
#[derive(Default)]
pub(super) struct Crls<'a> {
    pub(super) read: Vec<Crl<'a>>,
    /// Names all of them.
    name: Option<Key>,
}

impl Crls<'_> {
    /// The name of what is judged by `part` and these.
    pub(super) fn key(&self, part: Key) -> Key {
        self.name.map_or(part, |name| part.with(name))
    }
}

/// What proofs say, each with the name of its authority, and the bodies they stand in.
#[derive(Default)]
pub(super) struct Proven {
    pub(super) held: Vec<(String, Held)>,
    pub(super) bodies: Vec<AnchorBody>,
}

impl Walk<'_> {
    /// The CRLs of the file.
    pub(super) fn crls<'a>(&mut self, file: &'a Parts) -> Result<Crls<'a>, Stop> {
        let read = |der: &'a Arc<Der>| self.need(NAME, "a CRL", Crl::read(&der.bytes));
        let read = file.crls.iter().map(read).collect::<Result<_, _>>()?;
        let name = file.crls.iter().map(|der| der.key).reduce(|all, one| all.with(one));
        Ok(Crls { read, name })
    }

    /// Says how the certificates behind each stamp stood; what counts of the anchors and of the time evidence.
    pub(super) fn revocation_status(
        &mut self,
        crls: &Crls<'_>,
        anchored: Proven,
        evidence: Proven,
    ) -> Result<(Vec<Attested>, Vec<Attested>), Stop> {
        let held: Vec<&(String, Held)> = anchored.held.iter().chain(&evidence.held).collect();
        for (at, crl) in crls.read.iter().enumerate() {
            let issuer = crl.issuer_name();
            let used = |wanted: &dyn Fn(Use) -> bool| {
                held.iter().any(|(_, one)| one.uses.get(at).copied().is_some_and(wanted))
            };
            if used(&|used| used == Use::Verified) {
                continue;
            }
            let refused = held.iter().find_map(|(_, one)| match one.uses.get(at) {
                Some(Use::Refused(refusal)) => Some(*refusal),
                _ => None,
            });
            if let Some(refusal) = refused {
                return Err(self.fail(NAME, format!("the CRL of {issuer}: {refusal}"), Verdict::Refused));
            }
            let behind = |body: &AnchorBody| anchoring::is_behind(crl, body);
            let carried = anchored.bodies.iter().chain(&evidence.bodies).any(behind);
            self.demand(NAME, carried, &format!("the CRL of {issuer} belongs to no time stamp of the file"))?;
            self.open(NAME, format!("the CRL of {issuer} is of no authority that the trust file knows"));
        }
        let mut said: Vec<(bool, String)> = Vec::new();
        for (authority, one) in &held {
            let Some(standing) = &one.standing else { continue };
            let line = words(authority, standing);
            if !said.contains(&line) {
                said.push(line);
            }
        }
        for (good, detail) in said {
            if good { self.pass(NAME, detail) } else { self.open(NAME, detail) }
        }
        let counted = |proven: Proven| -> Vec<Attested> {
            let counts = proven.held.into_iter().filter(|(_, one)| one.counts());
            counts.map(|(_, one)| one.said).collect()
        };
        Ok((counted(anchored), counted(evidence)))
    }
}

/// What is said of the stamps of an authority that stand alike, and whether that is good.
fn words(authority: &str, standing: &Standing) -> (bool, String) {
    let at = |revoked: &Revoked| format!("{authority}: {revoked} at {}", utc(revoked.at_micros / 1_000));
    match standing {
        Standing::Good(as_of) => (true, format!("{authority}: good as of {}", utc(as_of / 1_000))),
        Standing::RevokedLater(revoked) => {
            (true, format!("{}, after the stamp was made: it counts", at(revoked)))
        }
        Standing::Doubtful(revoked) => {
            (false, format!("{}: its stamp may be anybody's and does not count", at(revoked)))
        }
        Standing::Unknown(subject) => {
            (false, format!("{authority}: unknown, no CRL here says whether {subject} was revoked"))
        }
    }
}

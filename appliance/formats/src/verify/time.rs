//! When a seal was made, as far as others vouch for it: anchors after it, time evidence before it, manifests about it.
//!
//! Refuses to do: believe the box's clock; let an authority that the trust file does not name decide anything.
//! Invariants: a proof that does not hold is refused, one that nobody can judge counts for nothing; when bounds contradict
//! each other, none is used.

use super::memory::Key;
use super::standing::{Crls, Proven};
use super::unpacked::Parts;
use super::{Stop, Walk};
use crate::anchoring::{self, Attested, Judged};
use crate::body::anchor::AnchorBody;
use crate::body::manifest::ManifestBody;
use crate::enrolment::VerifiedEnrolment;
use crate::entry::{Entry, Kind};
use crate::hash::Hash;
use crate::merkle::verify_inclusion;
use crate::report::{Interval, Verdict, utc};
use crate::seal_file::Placed;

impl Walk<'_> {
    /// What authorities say of trees that the token stands in.
    pub(super) fn anchors(
        &mut self,
        file: &Parts,
        part: Key,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
        crls: &Crls<'_>,
    ) -> Result<Proven, Stop> {
        const NAME: &str = "anchor";
        let mut proven = Proven::default();
        for anchor in &file.anchors {
            let body = AnchorBody::decode(&anchor.body);
            let body = self.need(NAME, "an anchor", body)?;
            let proof = self.proof(NAME, &anchor.entry_proof)?;
            let (index, leaf) = (token.content().index, token.leaf_hash());
            let included = verify_inclusion(index, body.head.size, &leaf, &proof, &body.head.root());
            self.need(NAME, "the token's path to an anchored tree", included)?;
            self.proofs(NAME, &anchor.body, part, enrolment, body, crls, &mut proven)?;
        }
        Ok(proven)
    }

    /// What the time evidence that the token signs over says.
    pub(super) fn time_evidence(
        &mut self,
        file: &Parts,
        part: Key,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
        crls: &Crls<'_>,
    ) -> Result<Proven, Stop> {
        const NAME: &str = "time-evidence";
        let mut proven = Proven::default();
        let Some(bytes) = &file.evidence else { return Ok(proven) };
        let entry = Entry::decode(bytes);
        let entry = self.need(NAME, "the time evidence", entry)?;
        let named = token.content().evidence.as_ref();
        let same = named.is_some_and(|named| {
            named.index == entry.content().index && Hash(*named.leaf_hash) == entry.leaf_hash()
        });
        self.demand(NAME, same, "it is not the entry that the token names as its time evidence")?;
        self.demand(NAME, entry.kind() == Some(Kind::Anchor), "it is not an anchor entry")?;
        let body = AnchorBody::decode(&entry.content().body);
        let body = self.need(NAME, "the time evidence", body)?;
        self.proofs(NAME, &entry.content().body, part, enrolment, body, crls, &mut proven)?;
        Ok(proven)
    }

    /// What the proofs of a body say. `part` names the enrolment, which says whose anchor it must be.
    #[allow(clippy::too_many_arguments, reason = "what a proof is judged by")]
    fn proofs(
        &mut self,
        name: &'static str,
        bytes: &[u8],
        part: Key,
        enrolment: &VerifiedEnrolment,
        body: AnchorBody,
        crls: &Crls<'_>,
        proven: &mut Proven,
    ) -> Result<(), Stop> {
        let origin = enrolment.origin().as_str();
        let judged = self.recalled(
            |memory| &mut memory.anchors,
            crls.key(part.with(Key::of(bytes))),
            bytes.len(),
            |walk| {
                walk.need(name, "its checkpoint's path to the batch", body.leads(origin))?;
                let authorities = walk.trust.authorities.as_ref();
                let mut all = Vec::with_capacity(body.proofs.len());
                for proof in &body.proofs {
                    match anchoring::judge(&body, proof, origin, authorities, &crls.read) {
                        Judged::Refused(why) => {
                            let detail = format!("{}: {why}", proof.authority);
                            return Err(walk.fail(name, detail, Verdict::Refused));
                        }
                        judged => all.push((proof.authority.clone(), judged)),
                    }
                }
                Ok(all)
            },
        )?;
        for (authority, judged) in judged.iter() {
            match judged {
                Judged::Holds(held) => {
                    let said = &held.said;
                    let detail = format!(
                        "{authority} of {} vouches for {} entries between {} and {}",
                        said.operator,
                        body.head.size,
                        utc(said.earliest),
                        utc(said.latest)
                    );
                    self.pass(name, detail);
                    proven.held.push((authority.clone(), held.clone()));
                }
                Judged::Unknown(why) | Judged::Refused(why) => self.open(name, format!("{authority}: {why}")),
            }
        }
        proven.bodies.push(body);
        Ok(())
    }

    /// What the box said of the outage in which the token was made.
    pub(super) fn manifest(
        &mut self,
        manifest: &Placed,
        part: Key,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
    ) -> Result<(), Stop> {
        const NAME: &str = "manifest";
        let entry = Entry::decode(&manifest.entry);
        let entry = self.need(NAME, "the manifest", entry)?;
        self.demand(NAME, entry.kind() == Some(Kind::Manifest), "it is not a manifest entry")?;
        let body = ManifestBody::decode(&entry.content().body);
        let body = self.need(NAME, "the manifest", body)?;
        let said = &body.statement;
        let own = said.origin == enrolment.origin().as_str() && said.head.size <= entry.content().index;
        self.demand(NAME, own, "it is of another log, or covers itself")?;
        self.demand(NAME, said.covers(token.content().index), "it does not cover the token")?;
        self.placed(NAME, manifest, part, enrolment, &entry)?;
        let drill = if said.drill { " (drill)" } else { "" };
        let detail = format!(
            "{} manifest of outage {}{drill}: entries {} to {}, declared {}",
            said.phase.name(),
            said.outage,
            said.first,
            said.head.size - 1,
            utc(said.began.unix_millis)
        );
        self.pass(NAME, detail);
        Ok(())
    }

    /// The bounds, and whether enough operators vouch for the token.
    pub(super) fn interval(
        &mut self,
        token: &Entry,
        anchored: &[Attested],
        evidence: &[Attested],
    ) -> (Interval, bool) {
        const NAME: &str = "interval";
        let local = token.content().time;
        let operators = self.trust.authorities.as_ref().map_or(1, |all| all.operators);
        let (after, before) =
            (anchoring::not_before(evidence, operators), anchoring::not_after(anchored, operators));
        if let (Some(after), Some(before)) = (after, before)
            && after > before
        {
            let detail = format!(
                "authorities contradict each other: after {} and before {}; neither bound is used",
                utc(after),
                utc(before)
            );
            self.open(NAME, detail);
            return (Interval { after: None, before: None, local }, false);
        }
        if before.is_none() && !anchored.is_empty() {
            let names = anchoring::operators(anchored).join(", ");
            let detail = format!("anchored by {names}; the trust file asks for {operators} operators");
            self.open(NAME, detail);
        }
        if before.is_some() {
            let names = anchoring::operators(anchored);
            self.pass(NAME, format!("anchored by {} operator(s): {}", names.len(), names.join(", ")));
        }
        (Interval { after, before, local }, before.is_some())
    }
}

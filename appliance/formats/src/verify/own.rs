//! The checks of what is a seal's own: token, its path, boot state, openings, erasures, document, policy.
//!
//! Refuses to do: remember any of it. Invariant: every one of these is judged for every seal.

use super::memory::{Epoch, Key};
use super::unpacked::{HeadParts, Parts, Token};
use super::{QuotedPcrs, Stop, VerifiedSeal, Walk};
use crate::body::key_epoch::{Endorsement, KeyEpochBody};
use crate::body::operator_action::OperatorActionBody;
use crate::body::seal::{DocumentDigest, Observation, Opening, SealBody};
use crate::enrolment::VerifiedEnrolment;
use crate::entry::{Entry, Kind, Residency};
use crate::erasure::erased_leaves;
use crate::hash::Hash;
use crate::merkle::verify_inclusion;
use crate::note::Checkpoint;
use crate::report::{Fact, Verdict, describe, utc};
use crate::seal_file::Placed;
use std::sync::Arc;

impl Walk<'_> {
    pub(super) fn token(
        &mut self,
        token: Token,
        enrolment: &VerifiedEnrolment,
        epoch: &Epoch,
    ) -> Result<(Entry, Option<SealBody>), Stop> {
        let name = "token";
        let entry = self.need(name, "the token", token.entry)?;
        let content = entry.content();
        self.follows(name, &entry, epoch)?;
        // Before the kind is looked at: what nobody signed is refused, never "made by a newer version".
        let signed = entry.verify_signature(enrolment.origin().as_str(), &epoch.sealing_key);
        self.need("token-signature", "the token", signed)?;
        let body = match (entry.kind(), token.body) {
            (Some(Kind::Seal), Some(body)) => Some(self.need(name, "the token", body)?),
            (Some(kind), _) => {
                let what = format!("it is a {} entry, not a seal", kind.name());
                return Err(self.fail(name, what, Verdict::Refused));
            }
            // Opaque: its proofs are judged like any leaf's before its meaning is refused.
            (None, _) => None,
        };
        let what = body.as_ref().map_or_else(|| format!("unknown kind {}", content.kind), describe);
        self.pass(
            name,
            format!(
                "index {}, {} mode{}, local time {}: {what}",
                content.index,
                content.mode,
                if content.drill { " (drill)" } else { "" },
                utc(content.time.unix_millis),
            ),
        );
        self.pass("token-signature", format!("signed by the sealing key of epoch {}", entry.content().epoch));
        Ok((entry, body))
    }

    /// Whether `entry` is of this epoch, and after its beginning.
    pub(super) fn follows(&mut self, name: &'static str, entry: &Entry, epoch: &Epoch) -> Result<(), Stop> {
        let (content, beginning) = (entry.content(), epoch.entry.content());
        self.demand(
            name,
            content.epoch == epoch.body.statement.epoch && content.residency == beginning.residency,
            "it is of another epoch than the key-epoch entry, or its key lived elsewhere",
        )?;
        self.demand(
            name,
            content.index > beginning.index,
            "it stands before the key-epoch entry of its epoch",
        )
    }

    pub(super) fn inclusion(
        &mut self,
        head: &HeadParts,
        entry: &Entry,
        leaf: Hash,
        checkpoint: &Checkpoint,
    ) -> Result<(), Stop> {
        const NAME: &str = "inclusion";
        let proof = self.hashes(NAME, head.entry_proof.as_ref())?;
        let index = entry.content().index;
        let included = verify_inclusion(index, checkpoint.size(), &leaf, proof, &checkpoint.root());
        self.need(NAME, "the token's path", included)?;
        self.pass(NAME, format!("entry {index} is under the checkpoint"));
        Ok(())
    }

    /// Whether nothing speaks against the boot states that were quoted.
    pub(super) fn boot_state(&mut self, epoch: &KeyEpochBody, quoted: &[&QuotedPcrs]) -> bool {
        const NAME: &str = "boot-state";
        let endorsing = match &epoch.endorsement {
            Endorsement::Quote(quote) => Some(quote.pcr_values()),
            Endorsement::Software(_) => None,
        };
        let all: Vec<&QuotedPcrs> = quoted.iter().copied().chain(endorsing.as_ref()).collect();
        if all.is_empty() {
            self.open(NAME, "no quote");
            return false;
        }
        if self.trust.references.is_empty() {
            self.open(NAME, "quote genuine, boot state not judged: the trust file has no reference values");
            return true;
        }
        let trust = self.trust;
        let names: Vec<Option<&str>> = all
            .iter()
            .map(|pcrs| trust.reference_of(pcrs).map(|reference| reference.name.as_str()))
            .collect();
        match names.iter().copied().collect::<Option<Vec<&str>>>() {
            Some(mut names) => {
                names.dedup();
                self.pass(NAME, format!("as reference {}", names.join(", then ")));
                true
            }
            None => {
                self.open(NAME, "quote genuine, but the boot state is none of the trust file's references");
                false
            }
        }
    }

    pub(super) fn openings(&mut self, file: &Parts, body: &SealBody) -> Result<Vec<Opening>, Stop> {
        const NAME: &str = "openings";
        let mut openings = Vec::new();
        for bytes in &file.openings {
            let opening = Opening::decode(bytes);
            let opening = self.need(NAME, "an opening", opening)?;
            let committed = body.commitments.contains(&opening.commitment());
            self.demand(NAME, committed, &format!("the opening of {:?} opens nothing here", opening.name))?;
            let again = openings.contains(&opening);
            self.demand(NAME, !again, &format!("the opening of {:?} stands here twice", opening.name))?;
            openings.push(opening);
        }
        let (opened, all) = (openings.len(), body.commitments.len());
        self.demand(NAME, opened <= all, "there are more openings than commitments")?;
        let rest = if opened < all && file.erasures.is_empty() { "; the others are not shown" } else { "" };
        self.pass(NAME, format!("{opened} of {all} commitments opened{rest}"));
        Ok(openings)
    }

    /// Index of the entry that records the erasure of the token's openings. Its place in the log is what speaks for
    /// it: the sealing key that signed it may be of an epoch this file knows nothing of.
    pub(super) fn erasure(
        &mut self,
        erasure: &Placed,
        part: Key,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
        opened: usize,
    ) -> Result<u64, Stop> {
        const NAME: &str = "erasure";
        let entry = Entry::decode(&erasure.entry);
        let entry = self.need(NAME, "the entry of the erasure", entry)?;
        let index = entry.content().index;
        self.demand(NAME, entry.kind() == Some(Kind::OperatorAction), "it is not an operator-action entry")?;
        self.demand(NAME, index > token.content().index, "it stands before the token")?;
        let body = OperatorActionBody::decode(&entry.content().body);
        let body = self.need(NAME, "the entry of the erasure", body)?;
        let Some(leaves) = erased_leaves(&body) else {
            return Err(self.fail(NAME, "its action is not an erasure of leaves", Verdict::Refused));
        };
        self.demand(NAME, leaves.contains(&token.leaf_hash()), "it is the erasure of other seals")?;
        self.placed(NAME, erasure, part, enrolment, &entry)?;
        let still =
            if opened > 0 { format!("; this file still carries {opened} of them") } else { String::new() };
        let detail = format!("erased: openings of this seal were destroyed by the box, entry {index}{still}");
        self.pass(NAME, detail);
        Ok(index)
    }

    /// Whether `entry`, the one of `placed`, stands under the checkpoint that comes with it.
    pub(super) fn placed(
        &mut self,
        name: &'static str,
        placed: &Placed,
        part: Key,
        enrolment: &VerifiedEnrolment,
        entry: &Entry,
    ) -> Result<Arc<Checkpoint>, Stop> {
        let note_part = part.with(Key::of(placed.checkpoint.as_bytes()));
        let checkpoint = self.checkpoint(name, "its checkpoint", &placed.checkpoint, note_part, enrolment)?;
        let proof = self.proof(name, &placed.entry_proof)?;
        let (index, leaf) = (entry.content().index, entry.leaf_hash());
        let included = verify_inclusion(index, checkpoint.size(), &leaf, &proof, &checkpoint.root());
        self.need(name, "its path", included)?;
        Ok(checkpoint)
    }

    pub(super) fn document(
        &mut self,
        seal: &VerifiedSeal,
        document: Option<&DocumentDigest>,
    ) -> Result<Verdict, Stop> {
        const NAME: &str = "document";
        let Some(document) = document else {
            self.open(NAME, "no document given: only the seal was checked");
            return Ok(Verdict::SealOnly);
        };
        let sealed = seal.body.document_digest();
        if sealed.algorithm != document.algorithm {
            let detail =
                format!("it was hashed with {}, sealed with {}", document.algorithm, sealed.algorithm);
            return Err(self.fail(NAME, detail, Verdict::Refused));
        }
        let size_differs = matches!((sealed.size, document.size), (Some(a), Some(b)) if a != b);
        if sealed.value != document.value || size_differs {
            return Err(self.fail(NAME, "its bytes are not the ones sealed", Verdict::OtherDocument));
        }
        let claimed = match seal.body.observation {
            Observation::BytesObserved => "",
            Observation::DigestClaimed => "; the box never saw the bytes, only this digest",
        };
        self.pass(NAME, format!("{} {}{claimed}", sealed.algorithm, hex::encode(&sealed.value)));
        Ok(Verdict::Valid)
    }

    pub(super) fn policy(&mut self, seal: &VerifiedSeal) -> Result<(), Stop> {
        const NAME: &str = "policy";
        let policy = &self.trust.policy;
        if seal.entry.content().residency == Residency::Software && !policy.accept_software {
            let detail = "the sealing key was in software and the trust file does not accept that";
            return Err(self.fail(NAME, detail, Verdict::PolicyUnmet));
        }
        for fact in &policy.require_facts {
            let required = Fact::parse(fact);
            if !seal.facts.iter().any(|held| required.is_some_and(|required| held.meets(required))) {
                let detail = format!("the trust file requires the fact {fact:?}");
                return Err(self.fail(NAME, detail, Verdict::PolicyUnmet));
            }
        }
        self.pass(NAME, format!("{} required fact(s) hold", policy.require_facts.len()));
        Ok(())
    }
}

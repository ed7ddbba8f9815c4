//! Whether the log was given up, and if so, whether a seal is good all the same.
//!
//! Refuses to do: take the file's silence for the fleet's; only the trust file knows what it was written from.
//! Invariant: after a compromise a seal passes only if it is shown to have existed before.

use super::unpacked::Parts;
use super::{Stop, Walk};
use crate::der::Octets32;
use crate::enrolment::VerifiedEnrolment;
use crate::entry::{Entry, TreeState};
use crate::hash::Hash;
use crate::merkle::verify_inclusion;
use crate::note::Checkpoint;
use crate::report::{Verdict, utc};
use crate::revocation::{Cause, Revocation, RevocationContent, RevocationError};
use crate::succession::SuccessionContent;
use crate::trust::TrustFile;
use std::sync::Arc;

impl Walk<'_> {
    /// Whether the log was given up, and if so, whether this token is good all the same.
    pub(super) fn revocation(
        &mut self,
        file: &Parts,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
        checkpoints: &[Arc<Checkpoint>],
        before: Option<u64>,
    ) -> Result<(), Stop> {
        const NAME: &str = "revocation";
        let (origin, index) = (enrolment.origin().as_str(), token.content().index);
        let trust = self.trust;
        let listed = trust.revocation(origin);
        let mut stated: Vec<RevocationContent> = listed.iter().map(|said| said.content.clone()).collect();
        let mut shown: Vec<TreeState> = checkpoints
            .iter()
            .map(|head| TreeState { size: head.size(), root: Octets32::new(head.root().0) })
            .collect();
        for evidence in &file.revocations {
            let said = Revocation::decode(&evidence.statement).map_err(RevocationError::from);
            let said = said.and_then(|said| said.verify(&trust.fleet, &trust.roots));
            let content = self.need(NAME, "the revocation in the file", said)?.content().clone();
            self.demand(NAME, content.origin == origin, "the file carries the revocation of another log")?;
            if let Some(proof) = &evidence.entry_proof {
                let proof = self.proof(NAME, proof)?;
                let (good, leaf) = (&content.good, token.leaf_hash());
                let included = verify_inclusion(index, good.size, &leaf, &proof, &Hash(*good.root));
                self.need(NAME, "the token's path to the last good tree", included)?;
                shown.push(good.clone());
            }
            stated.push(content);
        }
        for said in stated.iter().filter(|said| said.cause == Cause::Compromise) {
            let in_time = before.is_some_and(|before| before < said.invalid_from);
            if !in_time && !shown.contains(&said.good) {
                let detail = format!(
                    "the log was compromised, invalid from {} (version {} of the roster); nothing shows that entry {index} \
                     stands in its last good tree of {} entries, or was anchored before",
                    utc(said.invalid_from),
                    said.roster,
                    said.good.size
                );
                return Err(self.fail(NAME, detail, Verdict::Indeterminate));
            }
        }
        // What weighs most is told.
        let compromise = stated.iter().find(|said| said.cause == Cause::Compromise);
        match (compromise.or(stated.first()), &trust.roster) {
            (Some(said), _) if said.cause == Cause::Compromise => {
                let why = if shown.contains(&said.good) {
                    format!("stands in the last good tree of {} entries", said.good.size)
                } else {
                    format!("was anchored before {}", before.map_or_else(String::new, utc))
                };
                let from = utc(said.invalid_from);
                self.pass(NAME, format!("compromised, invalid from {from}, but entry {index} {why}"));
            }
            (Some(said), _) => {
                let (past, from) = (past(said.cause), utc(said.invalid_from));
                self.pass(
                    NAME,
                    format!("{past} from {from}: what it sealed stays good{}", follows(trust, origin)),
                );
            }
            (None, Some(roster)) => {
                let version = roster.version;
                let follows = follows(trust, origin);
                self.pass(NAME, format!("none of this log by version {version} of the roster{follows}"));
            }
            // A trust file of version 1 says nothing of revocations.
            (None, None) => {}
        }
        Ok(())
    }
}

/// Which log takes this one's place, and whose place it takes.
fn follows(trust: &TrustFile, origin: &str) -> String {
    let held = |said: &SuccessionContent| {
        format!(
            "its last known tree of {} entries is cosigned by {}",
            said.head.size,
            said.holders.join(", ")
        )
    };
    let next = trust.succession_of(origin).map(|said| &said.content);
    let next = next.map(|said| format!("; {} takes its place, {}", said.successor, held(said)));
    let before = trust.succession_to(origin).map(|said| &said.content);
    let before = before.map(|said| format!("; it takes the place of {}, {}", said.predecessor, held(said)));
    next.into_iter().chain(before).collect()
}

/// What became of a log for that cause.
fn past(cause: Cause) -> &'static str {
    match cause {
        Cause::Compromise => "compromised",
        Cause::Retirement => "retired",
        Cause::Replaced => "replaced",
    }
}

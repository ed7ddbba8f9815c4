//! Which other boxes hold the log that the token stands in, or found it consistent: cosignatures of its checkpoints.
//!
//! Refuses to do: believe a key because it signs; the cards in the trust file say whose it is.
//! Invariants: a line of a known cosigner holds or the check fails; a box counts once, the sealing box never; one whose
//! log was compromised counts for nothing.

use super::memory::Key;
use super::unpacked::Parts;
use super::{Stop, Walk};
use crate::enrolment::VerifiedEnrolment;
use crate::entry::Entry;
use crate::merkle::verify_inclusion;
use crate::note::SignedNote;
use crate::origin::Origin;
use crate::report::Fact;
use crate::revocation::Cause;
use crate::seal_file::Cosigned;
use crate::witness::Role;
use std::collections::BTreeSet;

const NAME: &str = "cosignatures";

/// Fleet and box, without the incarnation: a box that began a new log is the same box.
fn box_of(origin: &Origin) -> (&str, &str) {
    (origin.fleet(), origin.box_id())
}

/// Boxes, by their role.
#[derive(Default)]
struct Boxes<'a> {
    mirrors: BTreeSet<(&'a str, &'a str)>,
    witnesses: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Walk<'a> {
    /// The facts that cosignatures prove.
    pub(super) fn cosignatures(
        &mut self,
        file: &Parts,
        part: Key,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
    ) -> Result<Vec<Fact>, Stop> {
        let mut boxes = Boxes::default();
        for cosigned in &file.cosignatures {
            self.cosigned(cosigned, part, enrolment, token, &mut boxes)?;
        }
        // Who holds a log has found it consistent.
        let witnesses = boxes.witnesses.union(&boxes.mirrors).count();
        let mirrored = Fact::counted(boxes.mirrors.len(), Fact::Mirrored);
        Ok(mirrored.into_iter().chain(Fact::counted(witnesses, Fact::Witnessed)).collect())
    }

    fn cosigned(
        &mut self,
        cosigned: &Cosigned,
        part: Key,
        enrolment: &VerifiedEnrolment,
        token: &Entry,
        boxes: &mut Boxes<'a>,
    ) -> Result<(), Stop> {
        let note_part = part.with(Key::of(cosigned.checkpoint.as_bytes()));
        let note = &cosigned.checkpoint;
        let checkpoint = self.checkpoint(NAME, "its checkpoint", note, note_part, enrolment)?;
        let proof = self.proof(NAME, &cosigned.entry_proof)?;
        let (index, size) = (token.content().index, checkpoint.size());
        let included = verify_inclusion(index, size, &token.leaf_hash(), &proof, &checkpoint.root());
        self.need(NAME, "the token's path to a cosigned tree", included)?;
        let note = self.need(NAME, "its checkpoint", SignedNote::parse(note))?;
        let trust = self.trust;
        let mut said = Vec::new();
        for card in &trust.cosigners {
            let compromised = trust
                .revocation(card.origin().as_str())
                .is_some_and(|word| word.content.cause == Cause::Compromise);
            for role in Role::ALL {
                let what = format!("the {} line of {}", role.name(), card.origin());
                let line = self.need(NAME, &what, card.cosigner(role).cosignature(&note))?;
                let own = box_of(card.origin()) == box_of(enrolment.origin());
                if line.is_none() || compromised || own {
                    continue;
                }
                let of_role = match role {
                    Role::Mirror => &mut boxes.mirrors,
                    Role::Witness => &mut boxes.witnesses,
                };
                of_role.insert(box_of(card.origin()));
                said.push(format!("{} as {}", card.origin(), role.name()));
            }
        }
        let others = note.lines.len() - 1 - usize::from(checkpoint.quote().is_some()) - said.len();
        let rest = match others {
            0 => String::new(),
            _ => format!("; {others} line(s) of others, which count for nothing"),
        };
        match said.is_empty() {
            true => {
                self.open(NAME, format!("nobody known to the trust file cosigned the tree of {size}{rest}"))
            }
            false => self.pass(NAME, format!("the tree of {size}: {}{rest}", said.join(", "))),
        }
        Ok(())
    }
}

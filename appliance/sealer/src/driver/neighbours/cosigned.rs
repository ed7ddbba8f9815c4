//! What neighbours put their names under, as seals carry it.
//!
//! Refuses to do: sign. The log's own line is that of the note that the neighbours were told of, so a cosignature of a
//! head whose note is forgotten waits until the same neighbour cosigns a newer one.
//! Invariant: few notes are kept, the newest ones.

use super::desk::Desk;
use bulla_formats::note::{SignatureLine, SignedNote};
use bulla_formats::seal_file::COSIGNED_MAX;
use std::collections::BTreeMap;

/// Most heads whose notes are kept.
const HEADS_KEPT: usize = 1_024;
/// Most lines that a note can have.
const LINES_MAX: usize = 16;

/// A checkpoint of the own log with lines of neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CosignedNote {
    /// Number of entries.
    pub size: u64,
    /// The signed note.
    pub note: String,
}

/// Notes of heads of the own log, by size.
#[derive(Debug, Default)]
pub(super) struct ToldHeads(BTreeMap<u64, String>);

impl ToldHeads {
    pub fn keep(&mut self, size: u64, note: &str) {
        self.0.entry(size).or_insert_with(|| note.to_owned());
        if self.0.len() > HEADS_KEPT {
            self.0.pop_first();
        }
    }

    fn note(&self, size: u64) -> Option<SignedNote> {
        SignedNote::parse(self.0.get(&size)?).ok()
    }
}

impl Desk {
    /// Has seals carry what the neighbours have cosigned.
    pub(super) fn show_cosigned(&self) {
        let mut notes = BTreeMap::<u64, SignedNote>::new();
        for ((from, role), cosigned) in &self.cosigned {
            let (Some(card), size) = (self.cards.get(from), cosigned.head.size) else { continue };
            let Some(own) = self.told_heads.note(size) else { continue };
            let Ok(signature) = <&[u8; 64]>::try_from(&*cosigned.signature) else { continue };
            let line: SignatureLine = card.cosigner(*role).line(cosigned.seconds, signature);
            let note = notes.entry(size).or_insert(own);
            if note.lines.len() < LINES_MAX {
                note.lines.push(line);
            }
        }
        let newest = notes.into_iter().rev().take(COSIGNED_MAX);
        let notes = newest.map(|(size, note)| CosignedNote { size, note: note.encode() });
        self.shared.set_cosigned(notes.collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_notes_are_kept() {
        let mut heads = ToldHeads::default();
        let note = "a.b/c\n1\nAAAA\n\n\u{2014} a.b/c AAAAAAA=\n";
        for size in 1..=HEADS_KEPT as u64 + 5 {
            heads.keep(size, note);
        }
        assert_eq!(heads.0.len(), HEADS_KEPT);
        assert!(heads.note(5).is_none() && heads.note(6).is_some());
    }
}

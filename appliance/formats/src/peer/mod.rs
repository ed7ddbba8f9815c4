//! What boxes of one site say to each other: who they are, what they hold, and what proves that a log has forked.
//!
//! [`card`] binds a box's keys to its log, [`message`] is what is asked and answered, [`challenge`] has a TPM vouch for its
//! box, [`fork`] is the portable proof, [`site`] has heads anchored together. What a peer's cosignature means is in [`crate::witness`]; which peers hold a log is told in it by [`crate::body::mirror`].
//! Refuses to do: decide whom to believe; whoever holds a card was told to trust it.
//! Invariant: `docs/formats.md` section 20 rules; whatever decodes encodes back to the same bytes.

pub mod card;
pub mod challenge;
pub mod fork;
pub mod message;
pub mod roster;
pub mod site;

use crate::hash::Hash;
use crate::note::{NoteError, SignedNote, parse_checkpoint_text};

/// Longest checkpoint note between peers, in bytes: of 16 lines, among them a quote.
pub const HEAD_BYTES_MAX: usize = 6_144;
/// Most hashes of a consistency or inclusion proof.
pub const PATH_MAX: usize = 64;

/// Origin, size and root that a head's note states; who signed it is not judged.
fn stated(note: &str) -> Result<(String, u64, Hash), NoteError> {
    if note.len() > HEAD_BYTES_MAX {
        return Err(NoteError::Malformed("it is longer than the 6144 bytes of a head between peers"));
    }
    let note = SignedNote::parse(note)?;
    let (origin, size, root) = parse_checkpoint_text(&note.text)?;
    Ok((origin.to_owned(), size, root))
}

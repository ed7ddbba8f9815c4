//! Retrieving: a log that was lost with its disk comes back from the neighbours that mirror it, or from a hub's archive.
//!
//! `asking` talks to the neighbours at a stopped box, `copy` finds out what they hold and copies it into `mirrors/`, entry by
//! entry proven; `archive` does the same with a directory that `bulla-hub restore` wrote; `after` begins the log that follows. What was fetched stays where every copy of a log is: served by the
//! C2SP paths, found by digest, checked by `fsck`.
//! Refuses to do: go on under the old name. What a box has signed since its neighbours last heard of it nobody knows; the
//! TPM counter moves once a window, not with every seal. A second history would cost the whole log its worth, a new
//! incarnation costs a name (G2, G9).
//! Invariant: kill -9 at any moment leaves the old identity with a copy that the next try goes on with, or the new one.

mod after;
mod archive;
mod asking;
mod copy;

pub use after::{Followed, follow};
pub use archive::ArchivedCopy;
pub use asking::Asking;
pub use copy::{HeldBy, Retrieved, copy, survey};

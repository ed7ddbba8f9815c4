//! The append-only log of a box, in redb and nothing else.
//!
//! Start reading at [`Ledger::append`] (how an entry becomes durable), then `open` (what is believed after a
//! crash), `recover` (what happens after a failed write) and [`fsck`] (the judge of all of them).
//!
//! Refuses: to know what an entry means; to answer before the batch is durable, read back and hashed again; to
//! write to a file after a write of unknown effect.
//!
//! Files, under one locked directory (see [`Store`]):
//!
//! | file | holds | ground truth |
//! |---|---|---|
//! | `seg-<first index>[-g<k>].redb` | entries with their requests and digests, full tiles, header, head | entries, requests, header, head |
//! | `openings.redb` | openings of commitments, encrypted under a key per entry | yes, until erased |
//! | `opening-keys.redb` | the secrets that these keys follow from, but for erased ones | yes |
//! | `queue.redb` | requests promised a seal while none can be made | yes, until sealed |
//! | `side.redb` | objects that entries refer to by hash, and objects kept for their own sake | yes |
//! | `control.redb` | counter intent, journal, small values | yes |
//! | `search.redb` | keyed tags of values, times of blocks | nothing: built again when it is gone |
//! | `mirror.redb` | in a mirror: what was cosigned, newest head, frozen mark, missing objects | yes |
//!
//! A neighbour's log is a directory like this one ([`Mirrors`]).
#![forbid(unsafe_code)]

mod append;
mod backend;
mod closed;
mod companion;
mod contain;
mod control;
mod digest_filter;
mod edge;
mod entry_rows;
mod error;
mod export;
mod fsck;
#[doc(hidden)]
pub mod fuzzing;
mod index;
mod kept;
mod mirror;
mod open;
mod opening_keys;
mod openings;
mod paced;
mod puncture;
mod queue;
mod reader;
mod recover;
mod scrub;
mod search;
mod segment;
mod shared;
mod side;
mod snapshot;
mod store;
mod tables;
mod tile_rows;
mod tree;

pub use append::{AppendError, Committed, Ledger, NewEntry};
pub use control::{Control, Intent, JournalRow};
pub use error::{Damage, ReadError, StorageFault};
pub use export::Exported;
pub use fsck::{EntryJudge, FsckError, FsckOptions, FsckReport, Judged, Problem, Rebuilt, TreeOnly, fsck};
pub use kept::KeptObjects;
pub use mirror::{
    CheckedMirror, DirShelf, Kept, Mirror, MirrorError, MirrorHead, MirrorOptions, Mirrors, MissingObject,
    NoReferences, References, Shelf, Standing, UnreadableMirror, check_mirrors, mirror_directory,
};
pub use open::{OpenError, Opened, Options};
pub use paced::Pace;
pub use queue::{
    NewQueued, PushError, Queue, QueueDepth, QueueId, QueueOutcome, QueueState, QueuedRow, WaitingRow,
};
pub use reader::{Entries, Reader};
pub use recover::RecoverError;
pub use scrub::{ScrubStore, Scrubbed};
pub use search::{Describe, Indexed, SearchIndex};
pub use snapshot::Snapshot;
pub use store::{DirStore, Store};
pub use tables::{Request, RequestHash};
pub use tree::Tree;

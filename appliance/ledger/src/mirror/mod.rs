//! Mirrors: durable copies of neighbours' logs, verified before they are stored.
//!
//! Start reading at [`Mirror::store_range`] in `range`; `copy` is what a mirror consists of, `cosign` what it may have signed. A mirror is an ordinary log directory under
//! `<directory of the mirrors>/<hex SHA-256 of the origin>/`, written by the code that writes the box's own log, with
//! `mirror.redb` beside the segments (see `rows` for its bytes).
//!
//! Refuses: a name that is no origin; more logs than the limit; to know what an entry means, but for the objects that it
//! names, which [`References`] tells.
//!
//! Invariants:
//! - Under a directory's final name there is a complete mirror: it is made under `.new`, and leaves under `.gone`.
//! - Nothing is removed but by [`Mirrors::remove`]. A mirror that cannot be read is listed as such and stays.
//! - Personal data never leaves its branch, so there is none here: no openings, queue, search index, requests.

mod check;
mod copy;
mod cosign;
mod crowd;
mod error;
mod range;
mod rows;
mod shelf;
mod standing;
mod tables;
mod wanted;

pub use check::{CheckedMirror, check_mirrors};
pub use copy::Mirror;
pub use error::MirrorError;
pub use rows::MirrorHead;
pub use shelf::{DirShelf, Shelf};
pub use standing::{Kept, MissingObject, Standing};
pub(crate) use tables::{NAME, lost_rows};

use crate::append::Ledger;
use crate::fsck::read_stated;
use crate::open::Options;
use crate::segment::{current_segments, origin_stated};
use crate::store::Store;
use crate::tree::Tree;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::origin::Origin;
use crowd::Crowd;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ending of a directory that is not yet a mirror.
const NEW: &str = ".new";
/// Ending of one that is none any more.
const GONE: &str = ".gone";

/// Which objects an entry refers to by their SHA-256, and by which document it is found: the format's matter, not the
/// ledger's.
pub trait References: Debug + Send + Sync {
    /// At least 1; another number whenever the same entry may name other objects than before: all mirrored entries are
    /// looked at again then.
    fn version(&self) -> u32;
    /// The objects that this entry names. An entry of an unknown kind names none.
    fn of(&self, entry: &[u8]) -> Vec<Hash>;
    /// Algorithm and document digest (32 to 64 bytes) by which this entry is found in the copy; by none unless told.
    fn digest(&self, entry: &[u8]) -> Option<(u8, Vec<u8>)> {
        let _ = entry;
        None
    }
}

/// Entries name no objects: true of every kind that a box writes so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoReferences;

impl References for NoReferences {
    fn version(&self) -> u32 {
        1
    }

    fn of(&self, _: &[u8]) -> Vec<Hash> {
        Vec::new()
    }
}

/// What can be chosen.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// Logs that are mirrored at most. Default 64.
    pub origins_max: usize,
    /// Mirrors whose files stay open; those not used for the longest time are closed. Default 16.
    pub open_max: usize,
    /// Objects that may be missing of one log, beyond those of a single range, before no more entries are taken.
    /// Default 16,384.
    pub wanted_max: usize,
    /// Of each mirrored log. The defaults differ from those of a box's own: smaller caches, no requests, and twice the
    /// reserve, so that neighbours never take the space that the box itself needs.
    pub log: Options,
    /// Which objects entries refer to.
    pub references: Arc<dyn References>,
}

impl MirrorOptions {
    /// The defaults.
    pub fn new(references: Arc<dyn References>) -> Self {
        let own = Options::default();
        let log = Options {
            request_window: 0,
            reserve_bytes: 2 * own.reserve_bytes,
            active_cache_bytes: 2 << 20,
            closed_cache_bytes: 256 << 10,
            companion_cache_bytes: 1 << 20,
            closed_open_max: 2,
            leaf_tiles_cached: 8,
            upper_tiles_cached: 16,
            ..own
        };
        Self { origins_max: 64, open_max: 16, wanted_max: 1 << 14, log, references }
    }
}

/// All mirrored logs.
#[derive(Debug)]
pub struct Mirrors {
    shelf: Arc<dyn Shelf>,
    options: Arc<MirrorOptions>,
    crowd: Arc<Crowd>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    mirrors: BTreeMap<String, Mirror>,
    unreadable: Vec<UnreadableMirror>,
}

/// A directory among the mirrors that nobody can use. It stays until an operator removes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableMirror {
    /// Its name.
    pub directory: String,
    /// Why.
    pub what: String,
}

/// The name of a log's directory.
pub fn mirror_directory(origin: &str) -> String {
    sha256(&[origin.as_bytes()]).to_string()
}

fn directory_error(action: &'static str, directory: &str) -> impl FnOnce(io::Error) -> MirrorError {
    let directory = directory.to_owned();
    move |source| MirrorError::Directory { action, directory, source }
}

/// Which log a directory is a mirror of, by its own state or else by its segments.
fn origin_in(store: &Arc<dyn Store>, directory: &str) -> Option<String> {
    let is_right = |origin: &String| mirror_directory(origin) == directory;
    let names = store.list().ok()?;
    let stated = names.iter().any(|name| name == NAME).then(|| tables::origin_of(store)).flatten();
    stated.filter(is_right).or_else(|| {
        let files = current_segments(&names);
        files.iter().find_map(|file| origin_stated(store.as_ref(), file)).filter(is_right)
    })
}

/// The tree that the last segment states.
fn tree_stated(store: &dyn Store, origin: &str) -> Option<Tree> {
    let stated = read_stated(store, current_segments(&store.list().ok()?).last()?, origin)?;
    Some(Tree { size: stated.size, root: stated.root })
}

impl Mirrors {
    /// Finds what is mirrored. Logs are taken up when they are first used.
    pub fn open(shelf: Arc<dyn Shelf>, options: MirrorOptions) -> Result<Self, MirrorError> {
        let mut names = shelf.list().map_err(directory_error("list", "mirrors"))?;
        names.sort_unstable();
        let (torn, names): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.ends_with(NEW) || name.ends_with(GONE));
        for name in &torn {
            shelf.remove(name).map_err(directory_error("remove", name))?;
        }
        // Whatever the process before did last: what is written from now on counts on these names.
        shelf.sync().map_err(directory_error("make durable the names in", "mirrors"))?;
        let crowd = Arc::new(Crowd::new(options.open_max));
        let mirrors = Self { shelf, options: Arc::new(options), crowd, held: Mutex::default() };
        {
            let mut held = mirrors.held();
            for name in names {
                match mirrors.take_in(&name) {
                    Ok(mirror) => drop(held.mirrors.insert(mirror.origin().to_owned(), mirror)),
                    Err(what) => held.unreadable.push(UnreadableMirror { directory: name, what }),
                }
            }
        }
        Ok(mirrors)
    }

    fn take_in(&self, directory: &str) -> Result<Mirror, String> {
        let store = self.shelf.open(directory).map_err(|error| error.to_string())?;
        let origin = origin_in(&store, directory)
            .ok_or("it does not say of which log it is, or is not named after it")?;
        let stated = tree_stated(store.as_ref(), &origin);
        let tree = stated.unwrap_or_else(Tree::empty);
        Mirror::new(&origin, directory, &self.shelf, &self.options, &self.crowd, tree)
            .map_err(|error| error.to_string())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All mirrors, in the order of their origins.
    pub fn all(&self) -> Vec<Mirror> {
        self.held().mirrors.values().cloned().collect()
    }

    /// The mirror of a log.
    pub fn get(&self, origin: &str) -> Option<Mirror> {
        self.held().mirrors.get(origin).cloned()
    }

    /// Directories that are no usable mirrors.
    pub fn unreadable(&self) -> Vec<UnreadableMirror> {
        self.held().unreadable.clone()
    }

    /// Begins the mirror of a log, durably: without entries, nothing cosigned.
    pub fn create(&self, origin: &str) -> Result<Mirror, MirrorError> {
        Origin::parse(origin)?;
        let mut held = self.held();
        let directory = mirror_directory(origin);
        let is_unreadable = held.unreadable.iter().any(|each| each.directory == directory);
        if held.mirrors.contains_key(origin) || is_unreadable {
            return Err(MirrorError::Exists { origin: origin.to_owned() });
        }
        let most = self.options.origins_max;
        if held.mirrors.len() + held.unreadable.len() >= most {
            return Err(MirrorError::Limit { most });
        }
        let new = format!("{directory}{NEW}");
        let there = self.shelf.list().map_err(directory_error("list", "mirrors"))?;
        if there.contains(&new) {
            self.shelf.remove(&new).map_err(directory_error("remove", &new))?;
        }
        // An earlier attempt may have succeeded and said it failed.
        if !there.contains(&directory) {
            let store = self.shelf.create(&new).map_err(directory_error("create", &new))?;
            let made = Ledger::create(Arc::clone(&store), origin, self.options.log.clone());
            drop(made?);
            tables::create(&store, origin, self.options.references.version())?;
            drop(store);
            self.shelf.rename(&new, &directory).map_err(directory_error("rename", &new))?;
        }
        self.shelf.sync().map_err(directory_error("make durable the name of", &directory))?;
        let shelf = &self.shelf;
        let mirror = Mirror::new(origin, &directory, shelf, &self.options, &self.crowd, Tree::empty())?;
        held.mirrors.insert(origin.to_owned(), mirror.clone());
        Ok(mirror)
    }

    /// Removes the mirror of a log with all that is known of it: an operator's decision, because what this box cosigned is
    /// forgotten with it.
    pub fn remove(&self, origin: &str) -> Result<(), MirrorError> {
        let mut held = self.held();
        let Some(mirror) = held.mirrors.get(origin).cloned() else {
            return Err(MirrorError::Unknown { origin: origin.to_owned() });
        };
        let done = mirror.remove();
        if mirror.is_removed() {
            held.mirrors.remove(origin);
        }
        done
    }

    /// Removes a directory that is no usable mirror: an operator's decision as well.
    pub fn remove_unreadable(&self, directory: &str) -> Result<(), MirrorError> {
        let mut held = self.held();
        let Some(at) = held.unreadable.iter().position(|each| each.directory == directory) else {
            return Err(MirrorError::Unknown { origin: directory.to_owned() });
        };
        self.shelf.remove(directory).map_err(directory_error("remove", directory))?;
        held.unreadable.remove(at);
        self.shelf.sync().map_err(directory_error("make durable the removal of", directory))
    }

    /// Bytes of all mirrors' files.
    pub fn disk_bytes(&self) -> Result<u64, MirrorError> {
        self.all().iter().map(Mirror::disk_bytes).sum()
    }
}

//! fsck of the mirrors: each as the log that it is, and then what its `mirror.redb` says against what was recomputed.
//!
//! Refuses: to write, unless repair is asked for; and then no row of cosigner state, head or frozen mark.
//! Invariants: roots come from the walk over the entries, not from tiles; whether an object is missing is asked of the
//! entries and the objects, not of the list of missing ones.

use crate::error::During;
use crate::fsck::{EntryJudge, FsckError, FsckOptions, FsckReport, Judged, fsck};
use crate::mirror::rows::MirrorHead;
use crate::mirror::tables::{self, State, Tables};
use crate::mirror::{GONE, NEW, References, Shelf, origin_in};
use crate::side::{self, SideObjects};
use crate::store::Store;
use crate::tree::Tree;
use bulla_formats::hash::Hash;
use bulla_formats::merkle::Frontier;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was found of one directory.
#[derive(Debug)]
pub struct CheckedMirror {
    /// Its name.
    pub directory: String,
    /// The log, if the directory says so.
    pub origin: Option<String>,
    /// The verdict, also about `mirror.redb`.
    pub report: FsckReport,
}

/// Checks every mirror on the shelf. `judge` gives the judge of a log's entries, `progress` hears of (done, total)
/// entries of each.
pub fn check_mirrors(
    shelf: &Arc<dyn Shelf>,
    references: &Arc<dyn References>,
    options: FsckOptions,
    judge: &mut dyn FnMut(&str) -> Box<dyn EntryJudge>,
    progress: &mut dyn FnMut(&str, u64, u64),
) -> Result<Vec<CheckedMirror>, FsckError> {
    let mut directories = shelf.list().during("list", "the directory of the mirrors")?;
    directories.retain(|name| !name.ends_with(NEW) && !name.ends_with(GONE));
    directories.sort_unstable();
    let mut checked = Vec::new();
    for directory in directories {
        let mut report = FsckReport::new();
        let store = match shelf.open(&directory) {
            Ok(store) => store,
            Err(error) => {
                report.add_file(&directory, error.to_string(), false);
                checked.push(CheckedMirror { directory, origin: None, report });
                continue;
            }
        };
        let Some(origin) = origin_in(&store, &directory) else {
            let what = "it does not say of which log it is a mirror, or is not named after it";
            report.add_file(&directory, what, false);
            checked.push(CheckedMirror { directory, origin: None, report });
            continue;
        };
        let mut inner = judge(&origin);
        let mut progress = |done, total| progress(&origin, done, total);
        let report = check_one(&store, &origin, references, options, inner.as_mut(), &mut progress)?;
        checked.push(CheckedMirror { directory, origin: Some(origin), report });
    }
    Ok(checked)
}

fn check_one(
    store: &Arc<dyn Store>,
    origin: &str,
    references: &Arc<dyn References>,
    options: FsckOptions,
    inner: &mut dyn EntryJudge,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<FsckReport, FsckError> {
    let mut tables = Tables::frozen(store, origin)?;
    let present =
        store.list().during("list", "the mirror's directory")?.iter().any(|name| name == side::NAME);
    let objects = present.then(|| SideObjects::frozen(Arc::clone(store)));
    let trees = known_trees(&tables.state);
    let mut walk = Watch {
        inner,
        references: references.as_ref(),
        objects,
        tables: &tables,
        roots: trees.iter().map(|(_, tree)| (tree.size, None)).collect(),
        unlisted: BTreeMap::new(),
        missing: None,
    };
    let mut report = match fsck(store, origin, options, &mut walk, progress) {
        Ok(report) => report,
        Err(FsckError::Missing) => {
            let mut report = FsckReport::new();
            report.add_file(tables::NAME, "there is no log beside it", false);
            report
        }
        Err(error) => return Err(error),
    };
    let Watch { mut roots, unlisted, missing, .. } = walk;
    roots.insert(report.entries, Some(report.root));
    roots.insert(0, Some(Tree::empty().root));
    for what in tables.losses() {
        report.add_file(tables::NAME, what, false);
    }
    for (name, tree) in &trees {
        let found = roots.get(&tree.size).copied().flatten();
        if tree.size <= report.entries && found.is_some_and(|root| root != tree.root) {
            let what = format!("the {name} is of another tree than that of these entries");
            report.add(tables::NAME, tree.size.saturating_sub(1), what, false);
        }
    }
    if let Ok(mirror) = &tables.state.mirror {
        let held = missing.unwrap_or(report.entries).min(report.entries);
        if mirror.size > held {
            let what = format!(
                "as mirror this box cosigned {} entries, but all is here of the first {held} only",
                mirror.size
            );
            report.add_range(tables::NAME, held, mirror.size - 1, what, false);
        }
    }
    for (index, object) in &unlisted {
        let what = format!("the object {object} is missing, and the list of missing ones does not have it");
        report.add(tables::NAME, *index, what, true);
    }
    if tables.state.frozen.is_ok() && tables.references() == 0 {
        report.add_file(tables::NAME, "the list of missing objects does not add up", true);
    }
    if options.repair && !unlisted.is_empty() && tables.state.frozen.is_ok() {
        // The next start makes the list anew.
        tables = Tables::load(store, origin, 1 << 20)?;
        tables.replace_wanted(&Default::default(), 0)?;
    }
    Ok(report)
}

/// Every tree that the state states, by what it is.
fn known_trees(state: &State) -> Vec<(&'static str, Tree)> {
    let State { witness, mirror, head, .. } = state;
    let head = head.iter().flatten().map(|MirrorHead { tree, .. }| ("newest head", *tree));
    let cosigned = [("witness state", witness), ("mirror state", mirror)];
    let cosigned = cosigned.into_iter().filter_map(|(name, tree)| Some((name, *tree.as_ref().ok()?)));
    cosigned.chain(head).collect()
}

/// Looks at the entries beside their judge.
struct Watch<'a> {
    inner: &'a mut dyn EntryJudge,
    references: &'a dyn References,
    objects: Option<SideObjects>,
    tables: &'a Tables,
    /// Roots at the sizes that matter.
    roots: BTreeMap<u64, Option<Hash>>,
    /// Objects that are missing and not known to be.
    unlisted: BTreeMap<u64, Hash>,
    /// The first entry that lacks an object.
    missing: Option<u64>,
}

impl EntryJudge for Watch<'_> {
    fn judge(&mut self, index: u64, entry: &[u8], before: &Frontier) -> Result<Judged, String> {
        if let Some(root) = self.roots.get_mut(&index) {
            *root = Some(before.root());
        }
        for object in self.references.of(entry) {
            let found = self.objects.as_ref().map(|objects| objects.read(&object));
            if matches!(found, Some(Ok(Some(_)))) {
                continue;
            }
            self.missing = self.missing.or(Some(index));
            if self.tables.wanted.get(&object).is_none_or(|listed| listed > index) {
                self.unlisted.insert(index, object);
            }
        }
        self.inner.judge(index, entry, before)
    }

    fn skip(&mut self, index: u64, leaf: &Hash) {
        self.inner.skip(index, leaf);
    }
}

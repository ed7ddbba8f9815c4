//! `bulla-box fsck`: judges the whole log of this box on disk, bytes and meaning, and rebuilds derived tables.
//!
//! The ledger recomputes tree and indexes, [`bulla_formats::audit`] judges what entries say, by this box's own
//! fleet root. Refuses to do: run beside a running box; repair anything that does not follow from the entries.
//! Invariant: a log is called clean only by a pass that changed nothing.

use crate::config::Config;
use crate::driver::neighbours::{Documents, MIRRORS};
use crate::{identity, state_files, trust};
use anyhow::{Context as _, Result};
use bulla_formats::audit::LogAuditor;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::Kind;
use bulla_formats::hash::Hash;
use bulla_formats::merkle::Frontier;
use bulla_formats::origin::Origin;
use bulla_ledger::{
    DirShelf, DirStore, EntryJudge, FsckOptions, FsckReport, Judged, References, Shelf, Store, check_mirrors,
};
use std::io::{IsTerminal as _, Write};
use std::sync::Arc;

struct Judge(LogAuditor);

impl EntryJudge for Judge {
    fn judge(&mut self, index: u64, entry: &[u8], _before: &Frontier) -> Result<Judged, String> {
        if index != self.0.size() {
            return Err(format!("it cannot be judged, because entry {} is missing", self.0.size()));
        }
        let entry = self.0.entry(entry).map_err(|error| error.to_string())?;
        if entry.kind() != Some(Kind::Seal) {
            return Ok(Judged::Digest(None));
        }
        let body = SealBody::decode(&entry.content().body).map_err(|error| error.to_string())?;
        Ok(Judged::Digest(Some((body.algorithm as u8, body.digest.to_vec()))))
    }

    fn skip(&mut self, _index: u64, leaf: &Hash) {
        self.0.skip(*leaf);
    }
}

/// Checks the log, with `repair` also rebuilds derived tables and checks again. Returns whether it is clean.
pub fn run(config: &Config, repair: bool, out: &mut impl Write) -> Result<bool> {
    // Before anything of them is believed.
    let files = state_files::check(&config.state_dir).damaged;
    for damaged in &files {
        writeln!(out, "DAMAGE: {}: {}", damaged.file, damaged.what)?;
    }
    let (origin, directory) = identity::current_log(config)?;
    let store = DirStore::open(&directory).with_context(|| {
        format!("cannot open the log {}; stop the box first, or check a copy", directory.display())
    })?;
    let store: Arc<dyn Store> = Arc::new(store);
    let mut report = pass(&store, config, &origin, repair)?;
    if repair && !report.is_clean() {
        print(&report, out)?;
        let rebuilt = report.rebuilt;
        writeln!(out, "rebuilt {} tile(s) and {} digest row(s)", rebuilt.tiles, rebuilt.digests)?;
        if rebuilt.search_indexes > 0 {
            writeln!(out, "removed the search index; the box builds it again while it runs")?;
        }
        report = pass(&store, config, &origin, false)?;
    }
    print(&report, out)?;
    if let Some(index) = report.unjudged_from {
        writeln!(
            out,
            "what the entries from {index} on say is not judged, because something before them is lost"
        )?;
    }
    match &report.first_bad {
        None if !files.is_empty() => {
            writeln!(
                out,
                "damaged: the log holds, the files named above do not; bring them back from a copy"
            )?;
        }
        None => writeln!(
            out,
            "clean: {} has {} entries with root {}, and every entry, tree, table and signature holds",
            origin, report.entries, report.root
        )?,
        Some((index, what)) => writeln!(
            out,
            "damaged: {} problem(s), the first bad entry is {index}: {what}; keep the directory as it is and \
             bring back a copy, or, when every line says rebuildable, run with --repair",
            report.problems_total
        )?,
    }
    let mirrors = mirrors(config, repair, out)?;
    Ok(report.is_clean() && files.is_empty() && mirrors)
}

/// Judges the copies of neighbours' logs, which no other fleet's root is known for: their own signatures count.
fn mirrors(config: &Config, repair: bool, out: &mut impl Write) -> Result<bool> {
    let directory = config.state_dir.join(MIRRORS);
    if !directory.is_dir() {
        return Ok(true);
    }
    let shelf: Arc<dyn Shelf> = Arc::new(DirShelf::open(&directory).with_context(|| {
        format!("cannot open {}; stop the box first, or check a copy", directory.display())
    })?);
    let references: Arc<dyn References> = Arc::new(Documents);
    let options = FsckOptions { repair, ..FsckOptions::default() };
    let mut judge = |origin: &str| -> Box<dyn EntryJudge> {
        match Origin::parse(origin) {
            Ok(origin) => Box::new(OfMirror(Judge(LogAuditor::new(origin, None)))),
            Err(error) => Box::new(NoLog(error.to_string())),
        }
    };
    let checked = check_mirrors(&shelf, &references, options, &mut judge, &mut |_, _, _| {});
    let mut clean = true;
    for mirror in checked.context("the mirrors cannot be checked")? {
        let name = mirror.origin.unwrap_or(mirror.directory);
        print(&mirror.report, out)?;
        if mirror.report.is_clean() {
            writeln!(out, "clean: the copy of {name} has {} entries", mirror.report.entries)?;
        } else {
            clean = false;
            writeln!(
                out,
                "damaged: the copy of {name} has {} problem(s); nothing of this box's own log depends on it, see \
                 docs/runbooks/peers.md",
                mirror.report.problems_total
            )?;
        }
    }
    Ok(clean)
}

/// As the box's own log is judged; but a copy need not have the digests: entries may be older than its box's habit of
/// keeping them.
struct OfMirror(Judge);

impl EntryJudge for OfMirror {
    fn judge(&mut self, index: u64, entry: &[u8], before: &Frontier) -> Result<Judged, String> {
        self.0.judge(index, entry, before).map(|_| Judged::Opaque)
    }

    fn skip(&mut self, index: u64, leaf: &Hash) {
        self.0.skip(index, leaf);
    }
}

/// A mirror whose name is no log's.
struct NoLog(String);

impl EntryJudge for NoLog {
    fn judge(&mut self, _: u64, _: &[u8], _: &Frontier) -> Result<Judged, String> {
        Err(self.0.clone())
    }

    fn skip(&mut self, _: u64, _: &Hash) {}
}

fn pass(store: &Arc<dyn Store>, config: &Config, origin: &Origin, repair: bool) -> Result<FsckReport> {
    let (root, _, hardware) = identity::fleet_root(config)?;
    let trust = trust::of_fleet(origin.fleet(), root, hardware, None);
    let mut judge = Judge(LogAuditor::new(origin.clone(), Some(&trust)));
    let watched = std::io::stderr().is_terminal();
    let mut progress = |done: u64, total: u64| {
        if watched {
            eprint!("\r{done} of {total} entries");
        }
    };
    let options = FsckOptions { repair, ..FsckOptions::default() };
    let report = bulla_ledger::fsck(store, origin.as_str(), options, &mut judge, &mut progress);
    if watched {
        eprintln!();
    }
    report.context("the log cannot be checked")
}

fn print(report: &FsckReport, out: &mut impl Write) -> std::io::Result<()> {
    report.problems.iter().try_for_each(|problem| writeln!(out, "{problem}"))
}

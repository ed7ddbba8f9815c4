//! `restore`: a log out of the archive, as a directory that a box takes it from (`bulla-box restore --from-archive DIR`).
//!
//! The directory is a C2SP tlog-tiles tree: `tile/...`, then `checkpoint`, which is written last.
//! Refuses to do: write into a directory that has anything in it; hand out a log of which two histories are known; hand
//! out entries that do not lead to the archived head.
//! Invariant: a directory that has a `checkpoint` is whole, and durable.

use crate::exit::{Exit, Failure};
use crate::hub::{Hub, HubError};
use crate::progress::Progress;
use crate::shelf::Shelf;
use crate::tiles::{Growing, encode};
use bulla_formats::hash::leaf_hash;
use bulla_formats::merkle::Frontier;
use bulla_formats::report::utc;
use bulla_formats::tile::{TileCoordinate, TileError, push_entry, width_at};
use clap::Args;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The lost box (its name or its origin)
    #[arg(value_name = "LOG")]
    log: String,
    /// Directory to write: made, or empty
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// A directory that is being filled.
struct Target<'a> {
    directory: &'a Path,
}

impl Target<'_> {
    fn failed(&self, name: &str, error: &io::Error) -> Failure {
        let path = self.directory.join(name);
        Failure::usage(format!(
            "{} cannot be written ({error}); empty the directory and try again",
            path.display()
        ))
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let written = (|| {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            OpenOptions::new().write(true).create_new(true).open(&path)?.write_all(bytes)
        })();
        written.map_err(|error| self.failed(name, &error))
    }

    /// Waits until everything that was put is durable.
    fn settle(&self) -> Result<(), Failure> {
        let synced =
            File::open(self.directory).and_then(|file| rustix::fs::syncfs(&file).map_err(Into::into));
        synced.map_err(|error| self.failed(".", &error))
    }
}

/// `restore`.
pub fn execute(path: &Path, args: &RestoreArgs, json: bool) -> Result<Exit, Failure> {
    let hub = Hub::open(path)?;
    let origin = hub.origin_of(&args.log)?;
    let state = hub.index.known(&origin)?.map(|id| hub.index.state(id)).transpose()?.unwrap_or_default();
    if let Some(why) = &state.frozen {
        let words = format!(
            "the log of {} has two histories ({why}); neither is handed out, `bulla-hub findings` names the evidence",
            args.log
        );
        return Err(Failure { exit: Exit::Found, message: words });
    }
    let shelf = Shelf::open(&hub, &origin)?
        .ok_or_else(|| Failure::nothing(format!("nothing of the log of {} is archived", args.log)))?;
    let target = Target { directory: &args.to };
    fs::create_dir_all(&args.to).map_err(|error| target.failed(".", &error))?;
    let mut inside = fs::read_dir(&args.to).map_err(|error| target.failed(".", &error))?;
    if inside.next().is_some() {
        return Err(Failure::usage(format!("{} is not empty; name a new directory", args.to.display())));
    }
    write(&shelf, &target)?;
    let (size, newest) = (shelf.head.size(), utc(state.newest_millis));
    let directory = args.to.display();
    let line =
        format!("{directory}: {origin} with {size} entries, root {}, newest {newest}", shelf.head.root());
    let value = json!({
        "directory": args.to, "origin": origin, "entries": size, "rootHash": shelf.head.root().to_string(),
        "newestMillis": state.newest_millis,
    });
    let progress = Progress::new(json);
    progress.say(&line, &value);
    progress.title("next: carry it to the box; there, `bulla-box restore --from-archive DIR --reason WHY`");
    Ok(Exit::Ok)
}

fn write(shelf: &Shelf, target: &Target<'_>) -> Result<(), Failure> {
    let size = shelf.head.size();
    let no_tile = |error: TileError| HubError::Contradiction(error.to_string());
    let (mut tree, mut growing) = (Frontier::new(), Growing::default());
    for index in 0..size.div_ceil(256) {
        let width = width_at(0, index, size);
        let mut bundle = Vec::new();
        for entry in shelf.log.entries(index, width)? {
            push_entry(&mut bundle, &entry).map_err(no_tile)?;
            let leaf = leaf_hash(&entry);
            tree.append(leaf);
            for (level, index, hashes) in growing.push(leaf) {
                let name = TileCoordinate::hashes(level, index, 256).map_err(no_tile)?.path();
                target.put(&name, &encode(&hashes))?;
            }
        }
        target.put(&TileCoordinate::entries(index, width).map_err(no_tile)?.path(), &bundle)?;
    }
    if (tree.size(), tree.root()) != (size, shelf.head.root()) {
        let words =
            "the archived entries do not lead to the archived head; `bulla-hub fsck` says which are damaged";
        return Err(Failure { exit: Exit::Found, message: words.to_owned() });
    }
    for (level, index, hashes) in growing.unfilled() {
        let coordinate = TileCoordinate::hashes(level, index, hashes.len() as u16).map_err(no_tile)?;
        target.put(&coordinate.path(), &encode(hashes))?;
    }
    target.settle()?;
    target.put("checkpoint", shelf.note.as_bytes())?;
    target.settle()
}

//! The hub's own log: append-only, a C2SP tlog-tiles tree in a directory, its checkpoint signed by the hub's log key.
//!
//! ```text
//! <state_dir>/published/checkpoint     the newest signed head
//!                       tile/...       hash tiles and entry bundles, as C2SP tlog-tiles names them
//! ```
//!
//! Order of an append: entry bundles and tiles, durable; then the checkpoint, durable; then it is told of. What lies beyond
//! the checkpoint after a crash is written over.
//! Refuses to do: open a log whose tiles do not lead to its checkpoint; hand out what is beyond it.
//! Invariant: no two checkpoints of one size are ever signed.

use crate::exit::Failure;
use crate::tiles::{Growing, Tiles, encode};
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::{Frontier, HashReader as _};
use bulla_formats::note::{SignedNote, checkpoint_text, ed25519_key_id, log_line, parse_checkpoint_text};
use bulla_formats::tile::{TileCoordinate, TileKind, parse_entries, parse_hashes, push_entry, width_at};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const CHECKPOINT: &str = "checkpoint";
/// Entries that one append takes.
pub const APPEND_MAX: usize = 4_096;

/// The log, open for appending.
pub struct Published {
    directory: PathBuf,
    origin: String,
    key: SigningKey,
    edge: Edge,
}

/// Its right edge.
#[derive(Clone)]
struct Edge {
    tree: Frontier,
    growing: Growing,
    /// The unfilled entry bundle.
    bundle: Vec<Vec<u8>>,
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("the hub's own log {} cannot be used ({reason}); check its disk", path.display()))
}

/// Size and root of a checkpoint of the log named `origin`, signed by `key`.
pub fn open_checkpoint(note: &str, origin: &str, key: &VerifyingKey) -> Result<(u64, Hash), String> {
    let note = SignedNote::parse(note).map_err(|error| error.to_string())?;
    let (found, size, root) = parse_checkpoint_text(&note.text).map_err(|error| error.to_string())?;
    if found != origin {
        return Err(format!("it is a checkpoint of {found}, not of {origin}"));
    }
    let id = ed25519_key_id(origin, key.as_bytes());
    let mut lines = note.lines.iter().filter(|line| line.name == origin && line.key_id == id);
    let signed = lines.next().and_then(|line| Signature::from_slice(&line.body).ok());
    let signed = signed.is_some_and(|signature| key.verify_strict(note.text.as_bytes(), &signature).is_ok());
    if !signed || lines.next().is_some() {
        return Err("it is not signed by the log's key".to_owned());
    }
    Ok((size, root))
}

fn load(directory: &Path, level: u8, index: u64, width: u16) -> Result<Vec<Hash>, Failure> {
    let coordinate =
        TileCoordinate::hashes(level, index, width).map_err(|error| failed(directory, &error))?;
    let path = directory.join(coordinate.path());
    let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
    parse_hashes(&bytes, width).ok_or_else(|| failed(&path, &"it is no tile of its width"))
}

impl Published {
    /// Opens the log in `directory`, which is made when it is not there.
    pub fn open(directory: &Path, origin: &str, key: &SigningKey) -> Result<Self, Failure> {
        fs::create_dir_all(directory).map_err(|error| failed(directory, &error))?;
        let edge = Self::edge(directory, origin, &key.verifying_key())?;
        let mut log =
            Published { directory: directory.to_owned(), origin: origin.to_owned(), key: key.clone(), edge };
        if log.edge.tree.size() == 0 && !directory.join(CHECKPOINT).exists() {
            log.sign()?;
        }
        Ok(log)
    }

    fn edge(directory: &Path, origin: &str, key: &VerifyingKey) -> Result<Edge, Failure> {
        let path = directory.join(CHECKPOINT);
        let note = match fs::read_to_string(&path) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (tree, growing) = (Frontier::new(), Growing::default());
                return Ok(Edge { tree, growing, bundle: Vec::new() });
            }
            Err(error) => return Err(failed(&path, &error)),
        };
        let (size, root) = open_checkpoint(&note, origin, key).map_err(|error| failed(&path, &error))?;
        let growing = Growing::resume(size, |level, index, width| load(directory, level, index, width))?;
        let tiles = Tiles::new(size, |level, index, width| load(directory, level, index, width));
        let (mut peaks, mut first) = (Vec::new(), 0u64);
        for level in (0..64u8).rev().filter(|level| size >> level & 1 == 1) {
            peaks.push(tiles.subtree(level, first >> level)?);
            first += 1 << level;
        }
        let tree = Frontier::from_peaks(size, peaks).unwrap_or_default();
        let width = (size % 256) as u16;
        let mut bundle = Vec::new();
        if width > 0 {
            let name = TileCoordinate::entries(size / 256, width).map_err(|error| failed(&path, &error))?;
            let path = directory.join(name.path());
            let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
            let entries = parse_entries(&bytes, width).map_err(|error| failed(&path, &error))?;
            bundle.extend(entries.into_iter().map(<[u8]>::to_vec));
        }
        let leaves: Vec<Hash> = bundle.iter().map(|entry| leaf_hash(entry)).collect();
        let lowest =
            growing.unfilled().find(|(level, ..)| *level == 0).map_or(Vec::new(), |(_, _, row)| row.to_vec());
        if tree.root() != root || leaves != lowest {
            return Err(failed(&path, &"its tiles do not lead to its checkpoint"));
        }
        Ok(Edge { tree, growing, bundle })
    }

    /// Entries under the newest checkpoint.
    pub fn size(&self) -> u64 {
        self.edge.tree.size()
    }

    /// Appends entries, [`APPEND_MAX`] at most. When it returns they are under a durable checkpoint; after an error they
    /// may be, and the log must be opened again.
    pub fn append(&mut self, entries: &[Vec<u8>]) -> Result<(), Failure> {
        let before = self.size();
        let mut edge = self.edge.clone();
        let no_tile = |error: bulla_formats::tile::TileError| failed(&self.directory, &error);
        for entry in entries {
            let leaf = leaf_hash(entry);
            edge.bundle.push(entry.clone());
            edge.tree.append(leaf);
            for (level, index, hashes) in edge.growing.push(leaf) {
                self.put(&TileCoordinate::hashes(level, index, 256).map_err(no_tile)?, &encode(&hashes))?;
            }
            if edge.bundle.len() == 256 {
                self.put_bundle(edge.tree.size() / 256 - 1, &edge.bundle)?;
                edge.bundle.clear();
            }
        }
        if !edge.bundle.is_empty() {
            self.put_bundle(edge.tree.size() / 256, &edge.bundle)?;
        }
        for (level, index, hashes) in edge.growing.unfilled() {
            let coordinate = TileCoordinate::hashes(level, index, hashes.len() as u16).map_err(no_tile)?;
            self.put(&coordinate, &encode(hashes))?;
        }
        let synced =
            File::open(&self.directory).and_then(|file| rustix::fs::syncfs(&file).map_err(Into::into));
        synced.map_err(|error| failed(&self.directory, &error))?;
        self.edge = edge;
        self.sign()?;
        self.sweep(before);
        Ok(())
    }

    fn put_bundle(&self, index: u64, entries: &[Vec<u8>]) -> Result<(), Failure> {
        let no_tile = |error: bulla_formats::tile::TileError| failed(&self.directory, &error);
        let mut bytes = Vec::new();
        for entry in entries {
            push_entry(&mut bytes, entry).map_err(no_tile)?;
        }
        self.put(&TileCoordinate::entries(index, entries.len() as u16).map_err(no_tile)?, &bytes)
    }

    fn put(&self, coordinate: &TileCoordinate, bytes: &[u8]) -> Result<(), Failure> {
        self.replace(&coordinate.path(), bytes, false)
    }

    fn replace(&self, name: &str, bytes: &[u8], durable: bool) -> Result<(), Failure> {
        let path = self.directory.join(name);
        let fresh = self.directory.join("new.tmp");
        let written = (|| {
            let parent = path.parent().unwrap_or(&self.directory);
            fs::create_dir_all(parent)?;
            let mut file = File::create(&fresh)?;
            file.write_all(bytes)?;
            if durable {
                file.sync_all()?;
            }
            fs::rename(&fresh, &path)?;
            if durable { File::open(parent)?.sync_all() } else { Ok(()) }
        })();
        written.map_err(|error: io::Error| failed(&path, &error))
    }

    /// Signs the tree as it is, and makes that durable.
    fn sign(&mut self) -> Result<(), Failure> {
        let text = checkpoint_text(&self.origin, self.size(), &self.edge.tree.root());
        let signature = self.key.sign(text.as_bytes()).to_bytes();
        let line = log_line(&self.origin, self.key.verifying_key().as_bytes(), &signature);
        let note = SignedNote { text, lines: vec![line] };
        self.replace(CHECKPOINT, note.encode().as_bytes(), true)
    }

    /// Takes away the unfilled tiles whose place full ones took since the log had `before` entries; what stays costs
    /// space only.
    fn sweep(&self, before: u64) {
        for level in 0u8..8 {
            let filled = |size: u64| size.checked_shr(8 * (u32::from(level) + 1)).unwrap_or(0);
            for index in filled(before)..filled(self.size()) {
                let full = [TileCoordinate::hashes(level, index, 256), TileCoordinate::entries(index, 256)];
                let names = full.into_iter().take(if level == 0 { 2 } else { 1 }).flatten();
                for name in names {
                    let _ = fs::remove_dir_all(self.directory.join(format!("{}.p", name.path())));
                }
            }
        }
    }
}

/// A file of the log, for whoever reads it: `checkpoint`, or a tile under it. `None`: there is no such thing.
pub fn read(directory: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let bytes = match fs::read(directory.join(CHECKPOINT)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if name == CHECKPOINT {
        return Ok(Some(bytes));
    }
    let note = String::from_utf8(bytes).ok().and_then(|note| SignedNote::parse(&note).ok());
    let size =
        note.and_then(|note| parse_checkpoint_text(&note.text).ok().map(|(_, size, _)| size)).unwrap_or(0);
    let Ok(coordinate) = TileCoordinate::parse(name) else { return Ok(None) };
    let level = match coordinate.kind() {
        TileKind::Entries => 0,
        TileKind::Hashes { level } => level,
    };
    if coordinate.width() > width_at(level, coordinate.index(), size) {
        return Ok(None);
    }
    match fs::read(directory.join(coordinate.path())) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::merkle;

    fn entry(number: u64) -> Vec<u8> {
        format!("entry {number}").into_bytes()
    }

    fn check(directory: &Path, key: &SigningKey, size: u64) {
        let note = String::from_utf8(read(directory, "checkpoint").unwrap().unwrap()).unwrap();
        let (signed, root) = open_checkpoint(&note, "hub.example/heads", &key.verifying_key()).unwrap();
        let mut tree = Frontier::new();
        (0..size).for_each(|number| tree.append(leaf_hash(&entry(number))));
        assert_eq!((signed, root), (size, tree.root()));
        let tiles = Tiles::new(size, |level, index, width| {
            let name = TileCoordinate::hashes(level, index, width).unwrap().path();
            Ok::<_, std::convert::Infallible>(
                parse_hashes(&read(directory, &name).unwrap().unwrap(), width).unwrap(),
            )
        });
        assert_eq!(merkle::root(size, &tiles).unwrap(), root);
        for index in 0..size.div_ceil(256) {
            let width = width_at(0, index, size);
            let name = TileCoordinate::entries(index, width).unwrap().path();
            let bytes = read(directory, &name).unwrap().unwrap();
            let expected: Vec<Vec<u8>> = (index * 256..index * 256 + u64::from(width)).map(entry).collect();
            assert_eq!(parse_entries(&bytes, width).unwrap(), expected);
        }
    }

    #[test]
    fn it_grows_is_taken_up_again_and_hides_what_is_beyond_its_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let (path, key) = (directory.path(), SigningKey::from_bytes(&[6; 32]));
        let mut size = 0;
        for step in [0, 1, 2, 253, 1, 300, 0, 700] {
            let mut log = Published::open(path, "hub.example/heads", &key).unwrap();
            assert_eq!(log.size(), size);
            let entries: Vec<Vec<u8>> = (size..size + step).map(entry).collect();
            log.append(&entries).unwrap();
            size += step;
            check(path, &key, size);
        }
        assert_eq!(read(path, "tile/entries/000.p/3").unwrap(), None, "the full one took its place");
        // A crash between tiles and checkpoint: what was put is not there, and is written over.
        let before = fs::read(path.join("checkpoint")).unwrap();
        let mut log = Published::open(path, "hub.example/heads", &key).unwrap();
        log.append(&[b"another".to_vec()]).unwrap();
        fs::write(path.join("checkpoint"), &before).unwrap();
        let beyond = TileCoordinate::entries(size / 256, (size % 256) as u16 + 1).unwrap().path();
        assert_eq!(read(path, &beyond).unwrap(), None);
        let mut log = Published::open(path, "hub.example/heads", &key).unwrap();
        log.append(&[entry(size)]).unwrap();
        check(path, &key, size + 1);
        for name in
            ["", "/etc/passwd", "../hub-keys.json", "tile/0/../000", "tile/9/000", "tile/0/999", "new.tmp"]
        {
            assert_eq!(read(path, name).unwrap(), None, "{name}");
        }
        // Another key, another name, a bent tile at its end: it is not taken up.
        assert!(Published::open(path, "hub.example/heads", &SigningKey::from_bytes(&[7; 32])).is_err());
        assert!(Published::open(path, "hub.example/other", &key).is_err());
        let end = size + 1;
        let tile = path.join(TileCoordinate::hashes(0, end / 256, (end % 256) as u16).unwrap().path());
        let mut bytes = fs::read(&tile).unwrap();
        bytes[5] ^= 1;
        fs::write(&tile, bytes).unwrap();
        assert!(Published::open(path, "hub.example/heads", &key).is_err());
    }
}

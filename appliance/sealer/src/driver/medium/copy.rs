//! A log on a medium: C2SP tlog-tiles under its origin, as in a hub's archive, brought up to a head and read back.
//!
//! The order of things, so that a medium that is pulled out at any moment holds what it held: new tiles and entries; all of
//! it on the medium; read back; then the checkpoint that names them; then what it has made superfluous goes.
//! Refuses to do: replace a checkpoint that this log cannot follow; believe what is in the page cache.
//! Invariant: the checkpoint on a medium names nothing that was not read back before.

use bulla_formats::hash::{Hash, sha256};
use bulla_formats::note::{Checkpoint, SignedNote};
use bulla_formats::origin::Origin;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::tile::{TileCoordinate, TileKind};
use bulla_ledger::{ReadError, Reader};
use rustix::fs::{Advice, fadvise, syncfs};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Largest checkpoint that is read from a medium.
const NOTE_BYTES_MAX: usize = 64 << 10;
const CHECKPOINT: &str = "checkpoint";

/// Why a copy did not get on.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The medium.
    #[error("{0}")]
    Medium(#[from] io::Error),
    /// The box's own log.
    #[error("the log cannot be read ({0})")]
    Log(#[from] ReadError),
    /// What was written is not what is read.
    #[error("{0} is not what was written: the medium does not keep what it is given")]
    Lies(String),
}

/// What a medium holds of a log, by its checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing, or nothing that says what it is: why.
    Nothing(Option<&'static str>),
    /// A head of this log, of so many entries.
    Head(u64),
    /// A head that this log signed and does not have: the sizes.
    Ahead {
        /// Entries on the medium.
        size: u64,
        /// The log is as long and has another root.
        forked: bool,
    },
}

/// Name of the directory of a log.
pub fn log_name(origin: &str) -> String {
    sha256(&[origin.as_bytes()]).to_string()
}

/// Whose heads count.
pub struct Signer<'a> {
    /// The log.
    pub origin: &'a Origin,
    /// Its key.
    pub log_key: [u8; 32],
    /// TPMT_PUBLIC of the key that quotes its heads.
    pub attestation_key: &'a [u8],
}

impl Signer<'_> {
    /// The head that a note signed by the log key states.
    fn head(&self, bytes: &[u8]) -> Option<(u64, Hash)> {
        let note = SignedNote::parse(std::str::from_utf8(bytes).ok()?).ok()?;
        let key = PublicKey::from_bytes(Algorithm::Ed25519, &self.log_key).ok()?;
        let head = Checkpoint::open(&note, self.origin, &key, &self.log_key, self.attestation_key).ok()?;
        Some((head.size(), head.root()))
    }
}

/// Reads the checkpoint on a medium and holds it against the log.
pub fn found(directory: &Path, signer: &Signer<'_>, reader: &Reader) -> Result<Found, CopyError> {
    let mut bytes = Vec::new();
    match File::open(directory.join(CHECKPOINT)) {
        Ok(file) => file.take(NOTE_BYTES_MAX as u64).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing(None)),
        Err(error) => return Err(error.into()),
    };
    let Some((size, root)) = signer.head(&bytes) else {
        return Ok(Found::Nothing(Some("its checkpoint is damaged, or not of this log")));
    };
    let own = reader.size();
    if size > own {
        return Ok(Found::Ahead { size, forked: false });
    }
    Ok(if reader.root_at(size)? == root { Found::Head(size) } else { Found::Ahead { size, forked: true } })
}

/// Every tile and bundle that a log of `to` entries has and one of `from` did not.
fn coordinates(from: u64, to: u64) -> Vec<TileCoordinate> {
    let mut all = Vec::new();
    for level in 0u8..8 {
        let hashes = |size: u64| size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let (first, full, partial) = (hashes(from) / 256, hashes(to) / 256, (hashes(to) % 256) as u16);
        for (index, width) in (first..full).map(|index| (index, 256)).chain([(full, partial)]) {
            // A width of nothing is no coordinate.
            if level == 0 {
                all.extend(TileCoordinate::entries(index, width));
            }
            all.extend(TileCoordinate::hashes(level, index, width));
        }
    }
    all
}

fn content(reader: &Reader, at: TileCoordinate) -> Result<Vec<u8>, ReadError> {
    match at.kind() {
        TileKind::Hashes { level } => reader.tile(level, at.index(), at.width()),
        TileKind::Entries => reader.entry_bundle(at.index(), at.width()),
    }
}

/// Brings a copy of `from` entries to the head `note` of `to` entries. What is there already is read and, where it is not
/// what the log says, written again; so from 0 on the whole copy is checked. Returns how many files were written.
pub fn bring(directory: &Path, reader: &Reader, from: u64, to: u64, note: &str) -> Result<usize, CopyError> {
    fs::create_dir_all(directory)?;
    let mut written = Vec::new();
    for at in coordinates(from, to) {
        let (path, bytes) = (directory.join(at.path()), content(reader, at)?);
        if fs::read(&path).is_ok_and(|there| there == bytes) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(&path)?.write_all(&bytes)?;
        written.push(at);
    }
    syncfs(File::open(directory)?).map_err(io::Error::from)?;
    for at in &written {
        if read_back(&directory.join(at.path()))? != content(reader, *at)? {
            return Err(CopyError::Lies(at.path()));
        }
    }
    write_whole(directory, "origin", format!("{}\n", reader.origin()).as_bytes())?;
    write_whole(directory, CHECKPOINT, note.as_bytes())?;
    clear_away(directory, from, to);
    Ok(written.len())
}

/// What the medium has, not what the page cache has.
fn read_back(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    // Advice: where it is not taken, the bytes are those of the cache after all.
    let _ = fadvise(&file, 0, None, Advice::DontNeed);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a small file: whole under its name, durable and read back, or the old one stays.
pub fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = directory.join(name);
    if fs::read(&path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let beside = directory.join(format!("{name}.part"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    if read_back(&beside)? != bytes {
        return Err(io::Error::other(format!("{name} is not what was written")));
    }
    fs::rename(&beside, &path)?;
    // FAT has no flush of a directory everywhere; of the whole file system it has.
    syncfs(File::open(directory)?).map_err(io::Error::from)
}

/// Unfilled tiles of earlier heads. What stays of them is a few files too many, nothing else.
fn clear_away(directory: &Path, from: u64, to: u64) {
    let partial = |path: PathBuf| {
        let name = path.file_name().map(|name| format!("{}.p", name.to_string_lossy()));
        name.map(|name| path.with_file_name(name))
    };
    for level in 0u8..8 {
        let hashes = |size: u64| size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        let kept = (hashes(to) / 256, hashes(to) % 256);
        for index in hashes(from) / 256..=kept.0 {
            let full =
                [TileCoordinate::hashes(level, index, 256).ok(), TileCoordinate::entries(index, 256).ok()];
            let of_level = if level == 0 { &full[..] } else { &full[..1] };
            for at in of_level.iter().flatten() {
                let Some(unfilled) = partial(directory.join(at.path())) else { continue };
                for file in fs::read_dir(unfilled).into_iter().flatten().flatten() {
                    let stays = index == kept.0 && file.file_name().to_string_lossy() == kept.1.to_string();
                    if !stays {
                        let _ = fs::remove_file(file.path());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn paths(from: u64, to: u64) -> BTreeSet<String> {
        coordinates(from, to).into_iter().map(|at| at.path()).collect()
    }

    #[test]
    fn each_head_needs_its_own_tiles_and_those_before_need_no_more() {
        assert!(paths(0, 0).is_empty());
        assert_eq!(paths(0, 1), ["tile/0/000.p/1", "tile/entries/000.p/1"].map(str::to_owned).into());
        for to in [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 70_000] {
            let all = paths(0, to);
            for from in [0, 1, 255, 256, 257, 512, 65_536] {
                if from > to {
                    continue;
                }
                let more = paths(from, to);
                assert!(more.is_subset(&all), "{from} {to}");
                // What is not brought again is full, and was there.
                let rest: Vec<_> = all.difference(&more).collect();
                assert!(rest.iter().all(|path| !path.contains(".p/")), "{from} {to}: {rest:?}");
                assert!(rest.iter().all(|path| paths(0, from).contains(*path)), "{from} {to}: {rest:?}");
            }
        }
    }

    #[test]
    fn a_small_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        for bytes in [&b"one"[..], b"another one", b""] {
            write_whole(directory.path(), "checkpoint", bytes).unwrap();
            assert_eq!(fs::read(directory.path().join("checkpoint")).unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn only_its_own_log_key_signs_a_head() {
        use bulla_formats::note::{checkpoint_text, log_line};
        use ed25519_dalek::{Signer as _, SigningKey};
        let origin = Origin::parse(&format!("bank.example/{}/1", "00".repeat(20))).unwrap();
        let other = Origin::parse(&format!("bank.example/{}/2", "00".repeat(20))).unwrap();
        let (key, root) = (SigningKey::from_bytes(&[1; 32]), sha256(&[b"root"]));
        let public = key.verifying_key().to_bytes();
        let note = |of: &Origin| {
            let text = checkpoint_text(of.as_str(), 7, &root);
            let line = log_line(origin.as_str(), &public, &key.sign(text.as_bytes()).to_bytes());
            SignedNote { text, lines: vec![line] }.encode().into_bytes()
        };
        let head = |bytes: &[u8], origin: &Origin, log_key: [u8; 32]| {
            Signer { origin, log_key, attestation_key: b"" }.head(bytes)
        };
        assert_eq!(head(&note(&origin), &origin, public), Some((7, root)));
        assert_eq!(head(&note(&other), &origin, public), None);
        assert_eq!(head(&note(&origin), &other, public), None);
        let stranger = SigningKey::from_bytes(&[2; 32]).verifying_key().to_bytes();
        assert_eq!(head(&note(&origin), &origin, stranger), None);
        let mut cut = note(&origin);
        cut.truncate(cut.len() / 2);
        assert_eq!(head(&cut, &origin, public), None);
    }
}

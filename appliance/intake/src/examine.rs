//! Reading a file: is it at rest, is it whole, what is its digest?
//!
//! Refuses to do: follow a link, open a pipe or a device, take a file that somebody has locked, hold a document in memory.
//! Invariant: a digest given out is of bytes that had the same stamp before and after they were read.

use crate::complete::{Source, Verdict, judge};
use crate::folder::{Finding, Stamp};
use crate::key::{Content, Sidecar};
use crate::names;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, MetadataExt as _};
use std::path::{Path, PathBuf};

const PIECE_BYTES: usize = 256 << 10;
/// Largest sidecar: it says who scanned, not what.
const SIDECAR_BYTES_MAX: u64 = 16 << 20;

impl Source for File {
    fn length(&self) -> u64 {
        self.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// The stamp of a regular file.
pub fn stamp(metadata: &Metadata) -> Option<Stamp> {
    let nanos = u64::try_from(metadata.mtime()).unwrap_or(0).saturating_mul(1_000_000_000);
    let modified_nanos = nanos.saturating_add(u64::try_from(metadata.mtime_nsec()).unwrap_or(0));
    metadata.is_file().then_some(Stamp { size: metadata.len(), modified_nanos, inode: metadata.ino() })
}

/// Opens a regular file that has this stamp.
pub fn open_at_rest(path: &Path, stamp_wanted: Stamp) -> Result<File, Finding> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => {
            return Err(Finding::Changed);
        }
        Err(error) => return Err(Finding::Busy(format!("it cannot be opened ({})", io::Error::from(error)))),
    };
    match file.metadata() {
        Ok(metadata) if stamp(&metadata) == Some(stamp_wanted) => Ok(file),
        Ok(_) => Err(Finding::Changed),
        Err(error) => Err(Finding::Busy(format!("it cannot be looked at ({error})"))),
    }
}

/// Whether somebody holds a lock that says "I am writing". File systems without locks have none.
fn locked(file: &File) -> bool {
    let whole = match flock(file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => true,
        Ok(()) => {
            // Ours is taken back at once: a scanner must not meet it.
            let _ = flock(file, FlockOperation::Unlock);
            false
        }
        Err(_) => false,
    };
    let parts = Flock::from(FlockType::ReadLock);
    whole || matches!(fcntl_getlk(file, &parts), Ok(Some(_)))
}

/// Reads a document and its sidecars; what it is, as long as nothing changes meanwhile.
pub fn examine(
    folder: &Path,
    name: &Path,
    at: Stamp,
    sidecars: &[PathBuf],
) -> Result<(File, Content), Finding> {
    let path = folder.join(name);
    let file = open_at_rest(&path, at)?;
    if locked(&file) {
        return Err(Finding::Busy("somebody has locked it".to_owned()));
    }
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Finding::Changed,
        _ => Finding::Busy(format!("it cannot be read ({error})")),
    };
    let format = match judge(&file, names::extension(name)).map_err(unreadable)? {
        Verdict::Complete(format) => format,
        Verdict::Incomplete(why) => return Err(Finding::Incomplete(why)),
    };
    let (sha256, size) = digest(&file).map_err(unreadable)?;
    let mut with = Vec::with_capacity(sidecars.len());
    for sidecar in sidecars {
        with.push(Sidecar { name: sidecar.clone(), sha256: read_sidecar(&folder.join(sidecar))? });
    }
    unchanged(&path, &file, at)?;
    Ok((file, Content { sha256, size, format, sidecars: with }))
}

/// The file and its name still stand for what they stood for.
pub fn unchanged(path: &Path, file: &File, at: Stamp) -> Result<(), Finding> {
    let of = |metadata: io::Result<Metadata>| metadata.ok().as_ref().and_then(stamp);
    if of(file.metadata()) == Some(at) && of(std::fs::symlink_metadata(path)) == Some(at) {
        Ok(())
    } else {
        Err(Finding::Changed)
    }
}

fn read_sidecar(path: &Path) -> Result<[u8; 32], Finding> {
    let before = std::fs::symlink_metadata(path).ok().as_ref().and_then(stamp).ok_or(Finding::Changed)?;
    let file = open_at_rest(path, before)?;
    if locked(&file) {
        return Err(Finding::Busy("somebody has locked what lies beside it".to_owned()));
    }
    if before.size > SIDECAR_BYTES_MAX {
        return Err(Finding::Incomplete("what lies beside it is larger than 16 MiB".to_owned()));
    }
    if before.size == 0 {
        return Err(Finding::Incomplete("what lies beside it is empty".to_owned()));
    }
    let (sha256, _) = digest(&file)
        .map_err(|error| Finding::Busy(format!("what lies beside it cannot be read ({error})")))?;
    unchanged(path, &file, before)?;
    Ok(sha256)
}

/// SHA-256 and length of what a file holds.
pub fn digest(file: &File) -> io::Result<([u8; 32], u64)> {
    let mut hasher = DocumentHasher::new(DigestAlgorithm::Sha256);
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    loop {
        match FileExt::read_at(file, &mut piece, at) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&piece[..length]);
                at += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut value = [0; 32];
    value.copy_from_slice(&hasher.finish().value);
    Ok((value, at))
}

/// Reads a small file, at most `limit` bytes, without following a link.
pub fn read_small(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn at(path: &Path) -> Stamp {
        stamp(&fs::symlink_metadata(path).unwrap()).unwrap()
    }

    #[test]
    fn only_files_at_rest_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, b"words").unwrap();
        let now = at(&path);
        let (_, content) = examine(folder.path(), Path::new("a.txt"), now, &[]).unwrap();
        assert_eq!(
            (content.size, hex::encode(content.sha256)),
            (5, "dba36bffa5cab0f922d087a3aeb179f9d4e745df40b323e1b1471402848c8a3e".to_owned())
        );
    }

    #[test]
    fn locked_files_links_and_pipes_wait_or_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, b"words").unwrap();
        let now = at(&path);
        let look = || examine(folder.path(), Path::new("a.txt"), now, &[]).map(|_| ()).unwrap_err();
        let holder = File::options().write(true).open(&path).unwrap();
        flock(&holder, FlockOperation::LockExclusive).unwrap();
        assert!(matches!(look(), Finding::Busy(_)));
        flock(&holder, FlockOperation::Unlock).unwrap();
        assert!(examine(folder.path(), Path::new("a.txt"), now, &[]).is_ok());
        let other = Stamp { size: 6, ..now };
        assert_eq!(
            examine(folder.path(), Path::new("a.txt"), other, &[]).map(|_| ()).unwrap_err(),
            Finding::Changed
        );
        std::os::unix::fs::symlink(&path, folder.path().join("b.txt")).unwrap();
        assert_eq!(
            examine(folder.path(), Path::new("b.txt"), now, &[]).map(|_| ()).unwrap_err(),
            Finding::Changed
        );
        assert!(read_small(&folder.path().join("b.txt"), 10).is_err());
    }

    #[test]
    fn sidecars_count_and_empty_ones_are_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
        write("a.txt", b"words");
        write("a.xml", b"");
        let now = at(&folder.path().join("a.txt"));
        let look = || examine(folder.path(), Path::new("a.txt"), now, &["a.xml".into()]);
        assert!(matches!(look().map(|_| ()).unwrap_err(), Finding::Incomplete(_)));
        write("a.xml", b"<user/>");
        assert_eq!(look().unwrap().1.sidecars.len(), 1);
        fs::remove_file(folder.path().join("a.xml")).unwrap();
        assert_eq!(look().map(|_| ()).unwrap_err(), Finding::Changed);
    }
}

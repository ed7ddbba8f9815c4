//! Files: read with limits, hashed in pieces, written so that they are whole or not there.
//!
//! Refuses to do: hold a document in memory; leave half a `.seal` behind.
//! Invariant: after [`write_atomically`] returned, the new bytes survive a power cut.

use crate::exit::Failure;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, DocumentHasher};
use bulla_formats::seal_file::SEAL_BYTES_MAX;
use bulla_formats::trust::{TRUST_BYTES_MAX, TrustFile, fingerprint};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

const PIECE_BYTES: usize = 128 * 1024;

/// `FILE.seal`.
pub fn seal_path(document: &Path) -> PathBuf {
    with_suffix(document, ".seal")
}

/// Whether this is the name of a `.seal` file.
pub fn is_seal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seal")
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads a file of at most `limit` bytes.
pub fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// Reads a `.seal` file; one byte more than allowed is let through, so that the verifier can name the fault.
pub fn read_seal(path: &Path) -> io::Result<Vec<u8>> {
    read_limited(path, SEAL_BYTES_MAX + 1)
}

/// A trust file and its fingerprint.
pub fn read_trust(path: &Path) -> Result<(TrustFile, String), Failure> {
    let bytes = read_limited(path, TRUST_BYTES_MAX).map_err(|error| {
        let path = path.display();
        Failure::usage(format!(
            "the trust file {path} cannot be read: {error}; check the path given with --trust"
        ))
    })?;
    let trust = TrustFile::decode(&bytes).map_err(|error| {
        let path = path.display();
        Failure::usage(format!(
            "the trust file {path} cannot be used: {error}; get a good copy from the fleet's operator"
        ))
    })?;
    Ok((trust, fingerprint(&bytes)))
}

/// Hashes what `reader` gives; `seen` hears the length of every piece.
pub fn hash(
    reader: &mut impl Read,
    algorithm: DigestAlgorithm,
    seen: &dyn Fn(u64),
) -> io::Result<DocumentDigest> {
    let mut hasher = DocumentHasher::new(algorithm);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match reader.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => {
                hasher.update(&piece[..length]);
                seen(length as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Hashes a file.
pub fn hash_file(path: &Path, algorithm: DigestAlgorithm) -> io::Result<DocumentDigest> {
    hash(&mut File::open(path)?, algorithm, &|_| {})
}

/// Writes `bytes` to `path`: a file beside it, synced, then renamed over it. An existing file is replaced only
/// when `replace` is set.
pub fn write_atomically(path: &Path, bytes: &[u8], replace: bool) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let beside = with_suffix(path, &format!(".tmp-{}-{number}", std::process::id()));
    let written = write_synced(&beside, bytes).and_then(|()| {
        if replace {
            fs::rename(&beside, path)
        } else {
            // Unlike a rename, a link never replaces what another process has put there meanwhile.
            fs::hard_link(&beside, path).or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Err(error),
                // File systems without links (FAT on a stick).
                _ if !path.try_exists()? => fs::rename(&beside, path),
                _ => Err(io::ErrorKind::AlreadyExists.into()),
            })
        }
    });
    // Gone already when it was renamed.
    let _ = fs::remove_file(&beside);
    written?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.seal");
        write_atomically(&path, b"one", false).unwrap();
        let error = write_atomically(&path, b"two", false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_atomically(&path, b"two", true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left lying about");
    }

    #[test]
    fn limits_hold() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, [0; 10]).unwrap();
        assert_eq!(read_limited(&path, 10).unwrap().len(), 10);
        assert_eq!(read_limited(&path, 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}

//! A document on its way into a folder over HTTP: written under a name that nobody looks at, and given its own only when
//! it is whole and on the disk.
//!
//! Refuses to do: leave half a document under a document's name; write to a document that is there; follow links.
//! Invariant: a document that arrived is durable, and the seal can say over which connection it came.

use bulla_intake::names::RESULTS;
use rustix::fs::{CWD, RenameFlags, XattrFlags, fgetxattr, renameat_with, setxattr};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::AsyncWriteExt as _;

/// Where a file says how it came: SHA-256 of its bytes in hex, blank, the words. A file that was written to since says
/// nothing any more.
const ATTRIBUTE: &str = "user.bulla.transport";
/// Longest words that are believed.
const TRANSPORT_BYTES_MAX: usize = 64;
/// Names like this are results of ours that are not done: never documents.
const TEMPORARY: &str = ".bulla-tmp";

/// A document that is being written.
pub struct Arrival {
    file: tokio::fs::File,
    temporary: PathBuf,
    transport: String,
    digest: Sha256,
    arrived: bool,
}

impl Arrival {
    /// Begins a file in `directory`. `transport` is how it comes, e.g. `webdav https/1.1 tls1.3`.
    pub async fn begin(directory: &Path, transport: &str) -> io::Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        let temporary = directory.join(format!(".{}{TEMPORARY}", hex::encode(random)));
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let (file, digest) = (tokio::fs::File::from_std(file), Sha256::new());
        Ok(Arrival { file, temporary, transport: transport.to_owned(), digest, arrived: false })
    }

    /// The next bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.file.write_all(bytes).await
    }

    /// SHA-256 of the bytes so far.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Gives the file its name once it is on the disk. With `replace`, a file of that name goes; else it is
    /// [`io::ErrorKind::AlreadyExists`], and the document may be given another name.
    pub async fn arrive(&mut self, target: &Path, replace: bool) -> io::Result<()> {
        self.file.flush().await?;
        let value = format!("{} {}", hex::encode(self.sha256()), self.transport);
        // Where a file system has no attributes, the seal says less.
        let _ = setxattr(&self.temporary, ATTRIBUTE, value.as_bytes(), XattrFlags::empty());
        self.file.sync_all().await?;
        let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        renameat_with(CWD, &self.temporary, CWD, target, flags)?;
        self.arrived = true;
        let directory = target.parent().unwrap_or(Path::new("/")).to_owned();
        tokio::fs::File::open(directory).await?.sync_all().await
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if !self.arrived {
            // What stays is never looked at, and goes with the next start.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// How the file of these bytes came, if it came over HTTP. Whoever may write to the folder may change it.
pub fn transport(file: &fs::File, sha256: &[u8; 32]) -> Option<String> {
    let mut value = [0; 64 + 1 + TRANSPORT_BYTES_MAX];
    let length = fgetxattr(file, ATTRIBUTE, &mut value).ok()?;
    let (digest, text) = std::str::from_utf8(value.get(..length)?).ok()?.split_once(' ')?;
    (digest == hex::encode(sha256)
        && !text.is_empty()
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~')))
    .then(|| text.to_owned())
}

/// Whether only the box gives files such names.
pub fn reserved(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_lowercase();
    RESULTS.iter().any(|end| name.ends_with(end))
}

/// Removes what a box that was killed left half written.
pub fn sweep(directory: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let name = name.to_string_lossy();
        if kind.is_dir() && depth > 0 {
            sweep(&entry.path(), depth - 1)?;
        } else if kind.is_file() && is_ours(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// `.<16 hex digits>.bulla-tmp`.
fn is_ours(name: &str) -> bool {
    let middle = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(TEMPORARY));
    middle.is_some_and(|middle| middle.len() == 16 && middle.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_document_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let names = || {
            let mut names: Vec<_> =
                fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        let mut cut = Arrival::begin(place.path(), "webdav").await.unwrap();
        cut.write(b"half").await.unwrap();
        assert!(names().iter().all(|name| reserved(name)));
        drop(cut);
        assert!(names().is_empty());
        let target = place.path().join("a.pdf");
        for (bytes, replace, expected) in
            [("one", false, "one"), ("two", false, "one"), ("three", true, "three")]
        {
            let mut arrival = Arrival::begin(place.path(), "webdav https/1.1 tls1.3").await.unwrap();
            arrival.write(bytes.as_bytes()).await.unwrap();
            let arrived = arrival.arrive(&target, replace).await;
            assert_eq!(arrived.is_ok(), expected == bytes, "{arrived:?}");
            drop(arrival);
            assert_eq!(fs::read_to_string(&target).unwrap(), expected);
            assert_eq!(names(), ["a.pdf"]);
        }
        let said = |bytes: &[u8]| transport(&fs::File::open(&target).unwrap(), &Sha256::digest(bytes).into());
        assert_eq!(said(b"three").as_deref(), Some("webdav https/1.1 tls1.3"));
        assert_eq!(said(b"other"), None, "of bytes that came another way");
    }

    #[test]
    fn only_what_a_killed_box_left_is_swept() {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("loans")).unwrap();
        let kept = ["a.pdf", ".x.bulla-tmp", "a.pdf.seal", "loans/.0123456789abcdef.part"];
        let gone = [".0123456789abcdef.bulla-tmp", "loans/.fedcba9876543210.bulla-tmp"];
        for name in kept.iter().chain(&gone) {
            fs::write(place.path().join(name), b"x").unwrap();
        }
        sweep(place.path(), 8).unwrap();
        assert!(kept.iter().all(|name| place.path().join(name).exists()));
        assert!(gone.iter().all(|name| !place.path().join(name).exists()));
    }
}

//! What lies beside a document afterwards: its seal and receipt, or, in the error folder, the reason why there is none.
//!
//! Refuses to do: write to a document; throw a seal away (one of other bytes is kept under its own name); follow links.
//! Invariants: every file appears whole or not at all, and is on the disk before the receipt is; so a receipt means that
//! all is done. A receipt is a note to ourselves and to programs, never evidence: that is the `.seal`.

use crate::door::{Order, Sealed};
use crate::examine::{read_small, stamp};
use crate::folder::Stamp;
use crate::key::Content;
use crate::names::{self, beside};
use crate::options::Options;
use crate::slip;
use bulla_formats::entry::Entry;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use bulla_formats::seal_file::{SEAL_BYTES_MAX, SealFile};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Largest receipt that is read.
const RECEIPT_BYTES_MAX: usize = 64 << 10;
/// Most files of one name in the error folder.
const SAME_NAME_MAX: u32 = 10_000;
const TEMPORARY: &str = ".bulla-tmp";
const VERSION: &str = "intake-receipt/v1";

/// A file as its receipt names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NamedFile {
    name: String,
    sha256: String,
    stamp: Stamp,
}

/// The part of a receipt that is read again; the rest is what the API says of the seal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    bulla: String,
    file: NamedFile,
    #[serde(default)]
    sidecars: Vec<NamedFile>,
    leaf_hash: String,
}

impl Receipt {
    /// Reads a receipt; `None` when it is none of ours: then the document is simply handed in again.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let receipt: Receipt = serde_json::from_slice(bytes).ok()?;
        let hexadecimal = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let fine = receipt.bulla == VERSION
            && hexadecimal(&receipt.leaf_hash)
            && [&receipt.file].into_iter().chain(&receipt.sidecars).all(|file| hexadecimal(&file.sha256));
        fine.then_some(receipt)
    }

    /// The seal's leaf hash.
    pub fn leaf_hash(&self) -> &str {
        &self.leaf_hash
    }

    /// Whether it is of these bytes.
    pub fn is_of_document(&self, content: &Content) -> bool {
        self.file.sha256 == hex::encode(content.sha256)
    }

    /// Whether it is of these bytes and these sidecars.
    pub fn is_of(&self, content: &Content) -> bool {
        let sidecars = content.sidecars.iter().map(|sidecar| hex::encode(sidecar.sha256));
        self.is_of_document(content) && self.sidecars.iter().map(|file| file.sha256.clone()).eq(sidecars)
    }
}

/// Where the results of `name` go, without their endings.
fn base(options: &Options, name: &Path) -> PathBuf {
    options.results.as_ref().unwrap_or(&options.folder).join(name)
}

/// The receipt of a document, if there are a receipt and a seal.
pub fn receipt(options: &Options, name: &Path) -> Option<Receipt> {
    let base = base(options, name);
    let receipt = Receipt::decode(&read_small(&beside(&base, ".receipt.json"), RECEIPT_BYTES_MAX).ok()?)?;
    let seal = fs::symlink_metadata(beside(&base, ".seal")).ok()?;
    (seal.is_file() && seal.len() > 0).then_some(receipt)
}

/// Whether the results of a file in this state are here; nothing but stamps is compared.
pub fn are_here(options: &Options, name: &Path, at: Stamp, sidecars: &[PathBuf]) -> bool {
    let Some(receipt) = receipt(options, name) else { return false };
    let now =
        |sidecar: &PathBuf| fs::symlink_metadata(options.folder.join(sidecar)).ok().as_ref().and_then(stamp);
    receipt.file.stamp == at
        && receipt.sidecars.len() == sidecars.len()
        && receipt.sidecars.iter().zip(sidecars).all(|(kept, sidecar)| now(sidecar) == Some(kept.stamp))
}

/// Writes seal, slip and receipt; when it returns they are on the disk.
pub fn write(options: &Options, order: &Order<'_>, at: Stamp, sealed: &Sealed) -> io::Result<()> {
    let base = base(options, order.name);
    let directory = base.parent().unwrap_or(Path::new(".")).to_owned();
    if options.results.is_some() {
        fs::create_dir_all(&directory)?;
    }
    put_seal(&base, sealed.seal.as_bytes())?;
    let receipt = receipt_of(options, order, at, sealed)?;
    if options.slip
        && let Some(page) = slip::page(order, &sealed.receipt)
    {
        put(&beside(&base, ".slip.pdf"), &page)?;
    }
    put(&beside(&base, ".receipt.json"), format!("{receipt:#}\n").as_bytes())?;
    File::open(&directory)?.sync_all()
}

/// Only the stamps changed: the file was touched, or written anew with the same bytes.
pub fn restamp(options: &Options, name: &Path, at: Stamp, content: &Content) -> io::Result<()> {
    let path = beside(&base(options, name), ".receipt.json");
    let mut receipt: Value = serde_json::from_slice(&read_small(&path, RECEIPT_BYTES_MAX)?)?;
    (receipt["file"], receipt["sidecars"]) = files(options, name, at, content)?;
    put(&path, format!("{receipt:#}\n").as_bytes())
}

/// Changes what a receipt says beside the files; nothing when there is none.
pub fn amend(options: &Options, name: &Path, change: impl FnOnce(&mut Map<String, Value>)) -> io::Result<()> {
    let path = beside(&base(options, name), ".receipt.json");
    let bytes = match read_small(&path, RECEIPT_BYTES_MAX) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut receipt: Value = serde_json::from_slice(&bytes)?;
    receipt.as_object_mut().map(change);
    put(&path, format!("{receipt:#}\n").as_bytes())
}

fn receipt_of(options: &Options, order: &Order<'_>, at: Stamp, sealed: &Sealed) -> io::Result<Value> {
    let (file, sidecars) = files(options, order.name, at, order.content)?;
    let mut receipt = json!({"bulla": VERSION, "file": file, "sidecars": sidecars});
    if let (Some(members), Value::Object(said)) = (receipt.as_object_mut(), &sealed.receipt) {
        for (name, value) in said {
            members.entry(name.clone()).or_insert(value.clone());
        }
    }
    Ok(receipt)
}

fn files(options: &Options, name: &Path, at: Stamp, content: &Content) -> io::Result<(Value, Value)> {
    let named = |name: &Path, sha256: &[u8; 32], stamp: Stamp| NamedFile {
        name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        sha256: hex::encode(sha256),
        stamp,
    };
    let mut sidecars = Vec::new();
    for sidecar in &content.sidecars {
        let metadata = fs::symlink_metadata(options.folder.join(&sidecar.name))?;
        let stamp = stamp(&metadata).ok_or(io::ErrorKind::NotFound)?;
        sidecars.push(named(&sidecar.name, &sidecar.sha256, stamp));
    }
    Ok((json!(named(name, &content.sha256, at)), json!(sidecars)))
}

/// Puts a seal beside its document. One of another entry that is there already is kept as `<name>.<leaf hash>.seal`; one of
/// the same entry stays, because it may have been upgraded.
fn put_seal(base: &Path, seal: &[u8]) -> io::Result<()> {
    let path = beside(base, ".seal");
    if let Ok(old) = read_small(&path, SEAL_BYTES_MAX) {
        let (kept, new) = (short_name(&old), short_name(seal));
        if kept == new {
            return Ok(());
        }
        fs::rename(&path, beside(base, &format!(".{kept}.seal")))?;
    }
    put(&path, seal)
}

/// The first 16 hex digits of the leaf hash, or of the digest of what is no seal.
fn short_name(seal: &[u8]) -> String {
    let entry = SealFile::decode(seal).ok().and_then(|seal| Entry::decode(&seal.entry).ok());
    entry.map_or_else(|| sha256(&[seal]), |entry| entry.leaf_hash()).to_string()[..16].to_owned()
}

/// Writes a file beside its place, makes it durable, and gives it its name.
pub fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!(".{}-{number}{TEMPORARY}", std::process::id());
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// Removes what a killed process was about to name. Another one that is at work there only has to write again.
pub fn sweep(directory: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b".") && name.ends_with(TEMPORARY.as_bytes()) {
            fs::remove_file(entry.path()).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
        } else if depth > 0 && !name.starts_with(b".") && entry.file_type()?.is_dir() {
            sweep(&entry.path(), depth - 1)?;
        }
    }
    Ok(())
}

/// Moves a document and its sidecars to the error folder and says why there; whether it has left the folder.
pub fn reject(options: &Options, name: &Path, with: &[PathBuf], reason: &str) -> io::Result<bool> {
    let to = options.errors.join(name);
    let directory = to.parent().unwrap_or(&options.errors);
    fs::create_dir_all(directory)?;
    let shown = name.file_name().unwrap_or_default().to_string_lossy();
    let when = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let when = u64::try_from(when).unwrap_or(u64::MAX);
    let text = format!(
        "{shown} was not sealed.\n\nWhy:        {reason}.\nWhat to do: scan it again; or, if the file is good, put it back into the \
         folder it came from.\nWhen:       {}\n",
        utc(when)
    );
    let moved = move_to(&options.folder.join(name), &to);
    let named = moved.as_ref().map_or(&to, |named| named);
    put(&beside(named, ".reason.txt"), text.as_bytes())?;
    let machine = json!({"bulla": "intake-reason/v1", "name": shown, "reason": reason, "atMillis": when,
                         "moved": moved.is_ok()});
    put(&beside(named, ".reason.json"), format!("{machine:#}\n").as_bytes())?;
    for sidecar in with {
        // It stays where it is if it cannot go along; then it is a document of its own, and ends here the same way.
        let _ = move_to(&options.folder.join(sidecar), &options.errors.join(sidecar));
    }
    Ok(moved.is_ok())
}

/// Never over another file; returns the name it has now.
fn move_to(from: &Path, to: &Path) -> io::Result<PathBuf> {
    for number in 0..SAME_NAME_MAX {
        let target = if number == 0 { to.to_owned() } else { numbered(to, number) };
        match renameat_with(CWD, from, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(target),
            Err(rustix::io::Errno::EXIST) => {}
            // File systems that cannot promise it.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !target.try_exists()? => {
                return fs::rename(from, &target).map(|()| target);
            }
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match names::extension(path) {
        "" => path.with_file_name(format!("{stem}.{number}")),
        extension => path.with_file_name(format!("{stem}.{number}.{extension}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_files_never_replace_each_other() {
        let place = tempfile::tempdir().unwrap();
        let options = Options::new(place.path().to_owned());
        for number in 0..3 {
            fs::write(place.path().join("a.pdf"), [number]).unwrap();
            fs::write(place.path().join("a.xml"), [number]).unwrap();
            assert!(reject(&options, Path::new("a.pdf"), &["a.xml".into()], "it is not complete").unwrap());
        }
        for (number, name) in ["a.pdf", "a.1.pdf", "a.2.pdf"].iter().enumerate() {
            assert_eq!(fs::read(options.errors.join(name)).unwrap(), [number as u8]);
            let reason = fs::read_to_string(options.errors.join(format!("{name}.reason.txt"))).unwrap();
            assert!(
                reason.contains("Why:        it is not complete.") && reason.contains("What to do:"),
                "{reason}"
            );
        }
        assert!(!place.path().join("a.pdf").exists() && !place.path().join("a.xml").exists());
    }

    #[test]
    fn a_seal_of_something_else_is_kept() {
        let place = tempfile::tempdir().unwrap();
        let base = place.path().join("a.pdf");
        put_seal(&base, b"one").unwrap();
        put_seal(&base, b"one").unwrap();
        put_seal(&base, b"two").unwrap();
        let mut names: Vec<String> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names.len(), 2, "{names:?}");
        assert_eq!(fs::read(place.path().join("a.pdf.seal")).unwrap(), b"two");
    }

    #[test]
    fn what_is_no_receipt_counts_as_none() {
        let good = json!({"bulla": VERSION, "leafHash": "ab".repeat(32), "id": "1-ab", "sidecars": [],
            "file": {"name": "a.pdf", "sha256": "cd".repeat(32), "stamp": {"size": 1, "modifiedNanos": 2, "inode": 3}}});
        assert!(Receipt::decode(good.to_string().as_bytes()).is_some());
        for (pointer, bad) in [
            ("/bulla", json!("intake-receipt/v2")),
            ("/leafHash", json!("xy")),
            ("/leafHash", json!(7)),
            ("/file/sha256", json!("")),
            ("/file/stamp/size", json!(-1)),
            ("/file/stamp", json!({})),
            ("/sidecars", json!([1])),
        ] {
            let mut receipt = good.clone();
            *receipt.pointer_mut(pointer).unwrap() = bad;
            assert!(Receipt::decode(receipt.to_string().as_bytes()).is_none(), "{pointer}");
        }
        assert!(Receipt::decode(b"").is_none() && Receipt::decode(b"{}").is_none());
    }
}

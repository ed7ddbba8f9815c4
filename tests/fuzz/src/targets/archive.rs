//! Backups from somewhere: an archive, and the encryption around it.
//!
//! Holds: nothing is written outside the directory that it is unpacked into, nor anything but plain files; what is said
//! to be unpacked is there, byte for byte.

use super::{seed, split};
use bulla_box::fuzzing::{Unpacked, archive, backup, encrypted};
use bulla_formats::backup::{MANIFEST_NAME, SIGNATURE_NAME};
use bulla_formats::hash::sha256;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const CHOICES: u8 = 3;
/// The key of the backups here, made for this purpose.
const SECRET: &str = "AGE-SECRET-KEY-1QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSWPC8QURSKMP32K";

/// Plain files below a directory; anything else is a way out of it.
fn files(directory: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory that was just made") {
        let entry = entry.expect("a directory that can be opened can be listed");
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().expect("a file that was just listed");
        if kind.is_dir() {
            files(&entry.path(), &format!("{name}/"), found);
        } else {
            assert!(kind.is_file(), "{name} is no plain file");
            found.insert(name);
        }
    }
}

/// The first byte chooses: an archive, an archive behind an encryption that holds, an encrypted backup.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    let around = tempfile::tempdir().expect("a directory for what is unpacked");
    let staging = around.path().join("staging");
    fs::create_dir(&staging).expect("an empty directory takes another");
    let unpacked = match choice {
        0 => archive(data, &staging),
        1 => {
            let whole = encrypted(data, SECRET).expect("a recipient to encrypt for");
            backup(&whole, SECRET, &staging)
        }
        _ => backup(data, SECRET, &staging),
    };
    let mut beside = BTreeSet::new();
    files(around.path(), "", &mut beside);
    assert!(beside.iter().all(|name| name.starts_with("staging/")), "something outside: {beside:?}");
    let Ok(Unpacked { files: listed, manifest, signature }) = unpacked else { return };
    assert!(!manifest.is_empty() || !signature.is_empty() || !listed.is_empty() || !data.is_empty());
    let names: BTreeSet<String> = listed.iter().map(|(name, ..)| format!("staging/{name}")).collect();
    assert_eq!((names.len(), &names), (listed.len(), &beside), "other files than those that are listed");
    for (name, bytes, hash) in listed {
        let found = fs::read(staging.join(&name)).expect("a file that is listed");
        assert_eq!((found.len() as u64, sha256(&[&found])), (bytes, hash), "{name}");
    }
}

fn packed(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        archive.append_data(&mut header, name, *bytes).expect("a short name");
    }
    archive.into_inner().expect("nothing is written to")
}

fn linked(kind: tar::EntryType) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    archive.append_link(&mut header, "keys", "/etc").expect("a short name");
    archive.into_inner().expect("nothing is written to")
}

/// A backup's archive, one that links away, one that climbs out, and both ends of an encryption.
pub fn seeds() -> Vec<Vec<u8>> {
    let good = packed(&[
        ("identity.json", b"{}"),
        ("keys/keys.json", b"{}"),
        ("log-3/seg-0000000000000000.redb", b"redb"),
        (MANIFEST_NAME, b"{\"bulla\":\"backup/v1\"}"),
        (SIGNATURE_NAME, &[7; 64]),
    ]);
    let mut climbing = packed(&[("aa/outside.txt", b"x"), (MANIFEST_NAME, b"{}"), (SIGNATURE_NAME, b"")]);
    climbing[..2].copy_from_slice(b"..");
    let whole = encrypted(&good, SECRET).expect("a recipient to encrypt for");
    vec![
        seed(0, &good),
        seed(0, linked(tar::EntryType::Symlink)),
        seed(0, linked(tar::EntryType::Link)),
        seed(0, climbing),
        seed(1, &good),
        seed(2, &whole[..whole.len().min(400)]),
        seed(2, whole),
    ]
}

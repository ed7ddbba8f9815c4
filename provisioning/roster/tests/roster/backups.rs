//! `tests/vectors-fleet-backup/`: backups of a fleet directory that are taken, and such that must be refused, made here and
//! read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-roster --test roster` writes them.
//! Every expectation is the name of the file, before the two hyphens: `valid`, or the code of the refusal.

use crate::common::{FLEET, NOW, busy, founded, key};
use bulla_formats::der::{self, Octets32};
use bulla_formats::trust::{Policy, TrustFile};
use bulla_roster::backup::{Backup, BackupContent, BackupFile, is_file_name};
use bulla_roster::roster::Roster;
use ed25519_dalek::Signer as _;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-fleet-backup")
}

fn file(name: &str, bytes: &[u8]) -> BackupFile {
    BackupFile { name: name.to_owned(), private: name == "fleet.keys", bytes: bytes.to_vec().into() }
}

fn files(roster: &Roster) -> Vec<BackupFile> {
    vec![file("roster", &roster.encode()), file("fleet.keys", b"keys"), file("exchange/card-1", b"a card")]
}

fn made(roster: &Roster, files: Vec<BackupFile>) -> Backup {
    Backup::make(roster, files, NOW, |message| key("the fleet CA").sign(message).to_bytes()).unwrap()
}

/// A genuine one of the busy roster, changed, and signed again by this key.
fn signed(by: &str, change: impl FnOnce(&mut BackupContent)) -> Vec<u8> {
    let mut backup = made(&busy(), files(&busy()));
    change(&mut backup.content);
    backup.signature = key(by).sign(&backup.content.message()).to_bytes().to_vec().into();
    der::encode(&backup)
}

/// The same, changed after it was signed.
fn after(change: impl FnOnce(&mut Backup)) -> Vec<u8> {
    let mut backup = made(&busy(), files(&busy()));
    change(&mut backup);
    der::encode(&backup)
}

fn renamed(name: &str) -> Vec<u8> {
    signed("the fleet CA", |content| {
        content.files[1].name = name.to_owned();
        content.files.sort_by(|a, b| a.name.cmp(&b.name));
    })
}

fn all() -> BTreeMap<&'static str, Vec<u8>> {
    let genuine = |change: fn(&mut BackupContent)| signed("the fleet CA", change);
    let good = genuine(|_| {});
    let cut = good[..good.len() - 1].to_vec();
    BTreeMap::from([
        ("valid--", good.clone()),
        ("valid--of-a-fleet-just-founded", made(&founded(), files(&founded())).encode().to_vec()),
        ("valid--nothing-but-the-roster", made(&busy(), files(&busy())[..1].to_vec()).encode().to_vec()),
        ("malformed--empty", Vec::new()),
        ("malformed--cut-short", cut),
        ("malformed--trailing-byte", [&good[..], &[0]].concat()),
        ("malformed--version-2", genuine(|content| content.version = 2)),
        ("malformed--time-above-the-limit", genuine(|content| content.made_at = 1 << 63)),
        ("malformed--without-a-roster", genuine(|content| content.files.truncate(2))),
        ("malformed--files-in-another-order", genuine(|content| content.files.reverse())),
        ("malformed--a-file-twice", genuine(|content| content.files.insert(0, content.files[0].clone()))),
        ("malformed--name-leads-out", renamed("../fleet.keys")),
        ("malformed--name-from-the-root", renamed("/fleet.keys")),
        ("malformed--name-of-a-hidden-file", renamed(".lock")),
        ("malformed--name-in-a-hidden-directory", renamed("exchange/.x/y")),
        ("malformed--name-empty", renamed("")),
        ("malformed--name-ends-with-a-slash", renamed("exchange/")),
        ("malformed--name-of-four-parts", renamed("a/b/c/d")),
        ("malformed--name-with-a-zero", renamed("fleet\0keys")),
        ("malformed--name-with-a-line-feed", renamed("fleet\nkeys")),
        ("malformed--number-of-another-roster", genuine(|content| content.roster += 1)),
        (
            "malformed--hash-of-another-roster",
            genuine(|content| content.roster_hash = Octets32::new([7; 32])),
        ),
        ("malformed--of-another-fleet", genuine(|content| content.fleet = "bank.test".to_owned())),
        (
            "malformed--older-roster-inside",
            genuine(|content| {
                content.files[2].bytes = founded().encode().into();
            }),
        ),
        (
            "malformed--roster-cut-short",
            genuine(|content| {
                content.files[2].bytes = content.files[2].bytes[1..].to_vec().into();
            }),
        ),
        ("bad-signature--by-the-root", signed("the root", |_| {})),
        ("bad-signature--by-an-operator", signed("olga", |_| {})),
        (
            "bad-signature--flipped",
            after(|backup| {
                let mut bytes = backup.signature.to_vec();
                bytes[5] ^= 1;
                backup.signature = bytes.into();
            }),
        ),
        (
            "bad-signature--of-63-bytes",
            after(|backup| backup.signature = backup.signature[..63].to_vec().into()),
        ),
        (
            "bad-signature--a-file-changed-afterwards",
            after(|backup| {
                backup.content.files[1].bytes = b"other keys".to_vec().into();
            }),
        ),
        (
            "bad-signature--a-file-more-afterwards",
            after(|backup| {
                backup.content.files.push(file("trust.json", b"{}"));
            }),
        ),
        ("bad-signature--public-afterwards", after(|backup| backup.content.files[1].private = false)),
        ("bad-signature--younger-afterwards", after(|backup| backup.content.made_at += 1)),
        (
            "bad-signature--without-label",
            after(|backup| {
                let signature = key("the fleet CA").sign(&der::encode(&backup.content));
                backup.signature = signature.to_bytes().to_vec().into();
            }),
        ),
    ])
}

fn trust(fleet: &str, root: &str) -> TrustFile {
    TrustFile {
        fleet: fleet.to_owned(),
        issued_millis: NOW,
        roots: vec![key(root).verifying_key().to_bytes()],
        references: Vec::new(),
        policy: Policy { accept_software: false, require_facts: Vec::new() },
        roster: None,
        authorities: None,
        cosigners: Vec::new(),
    }
}

fn judge(bytes: &[u8], trust: &TrustFile) -> &'static str {
    match Backup::decode(bytes).and_then(|backup| backup.verify(trust)) {
        Ok(_) => "valid",
        Err(refusal) => refusal.code(),
    }
}

#[test]
fn every_backup_is_judged_as_it_says() {
    let made: BTreeMap<String, Vec<u8>> =
        all().into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in &made {
            fs::write(directory().join(name), bytes).unwrap();
        }
    }
    let mut read = BTreeMap::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(judge(&bytes, &trust(FLEET, "the root")), name.split("--").next().unwrap(), "{name}");
        read.insert(name, bytes);
    }
    assert!(read == made, "the files are what this source makes");
    let genuine = &made["valid--"];
    for other in [trust(FLEET, "another root"), trust("bank.test", "the root")] {
        assert_eq!(judge(genuine, &other), "other-root");
    }
}

#[test]
fn names_stay_in_the_directory() {
    for good in ["a", "fleet.keys", "a/b/c", "A-Z_0.9", "x..y"] {
        assert!(is_file_name(good), "{good}");
    }
    for bad in
        ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", ".a", "a/.b", "a/b/c/d", "a b", "\u{e4}", "a\\b"]
    {
        assert!(!is_file_name(bad), "{bad}");
    }
    assert!(is_file_name(&"n".repeat(128)) && !is_file_name(&"n".repeat(129)));
}

//! `tests/vectors-update/`: beginnings of update bundles that a box takes, and others that it must refuse, made here and read
//! back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test update` writes them. Every
//! expectation is the name of the file, before the two hyphens.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::der::{self, Octets32};
use bulla_formats::sig::labelled;
use bulla_formats::update::{
    HEAD_BYTES, MAGIC, PART_BYTES_MAX, Part, Release, UPDATE_BYTES_MAX, Update, UpdateContent, UpdateError,
    parse_head,
};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const TARGET: &str = "bulla/x86-64";
const RUNNING: &str = "1.2.3";
const FLOOR: &str = "1.1.0";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-update")
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn release(text: &str) -> Release {
    Release::parse(text).unwrap()
}

fn content() -> UpdateContent {
    let part = |bytes, hash| Part { bytes, hash: Octets32::new([hash; 32]) };
    UpdateContent {
        version: 1,
        target: TARGET.to_owned(),
        image: release("1.3.0"),
        floor: release("1.1.0"),
        root_hash: Octets32::new([0xa5; 32]),
        made_at: 1_790_000_000_000,
        root: part(121_634_816, 1),
        verity: part(962_560, 2),
        kernel: part(49_283_072, 3),
    }
}

fn signed(content: UpdateContent, by: u8) -> Update {
    let signature = key(by).sign(&content.message()).to_bytes().to_vec().into();
    Update { content, signature }
}

/// Signed by the key that the box trusts, after this change.
fn usual(change: impl FnOnce(&mut UpdateContent)) -> Vec<u8> {
    let mut content = content();
    change(&mut content);
    signed(content, 1).head()
}

/// The usual one, changed after it was signed.
fn after(change: impl FnOnce(&mut Update)) -> Vec<u8> {
    let mut update = signed(content(), 1);
    change(&mut update);
    update.head()
}

/// A statement that is none, behind a head of its length.
fn behind_a_head(statement: &[u8]) -> Vec<u8> {
    [MAGIC, (statement.len() as u32).to_be_bytes().as_slice(), statement].concat()
}

fn all() -> BTreeMap<&'static str, Vec<u8>> {
    let good = usual(|_| {});
    let bytes = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    let statement = good[HEAD_BYTES..].to_vec();
    BTreeMap::from([
        ("valid--", good.clone()),
        ("valid--signed-by-the-other-key", signed(content(), 2).head()),
        ("valid--next-patch", usual(|said| said.image = release("1.2.4"))),
        ("valid--ten-after-nine", usual(|said| said.image = release("1.10.0"))),
        ("valid--floor-is-the-image", usual(|said| said.floor = said.image)),
        ("valid--no-floor", usual(|said| said.floor = Release::ZERO)),
        ("valid--largest-release", usual(|said| said.image = release("65535.65535.65535"))),
        ("valid--largest-part", usual(|said| said.root.bytes = PART_BYTES_MAX)),
        ("valid--kernel-of-one-byte", usual(|said| said.kernel.bytes = 1)),
        ("malformed--empty", Vec::new()),
        ("malformed--head-alone", good[..HEAD_BYTES].to_vec()),
        ("malformed--cut-short", bytes(|bytes| bytes.truncate(bytes.len() - 1))),
        ("malformed--other-magic", bytes(|bytes| bytes[0] ^= 0x20)),
        ("malformed--bundle-of-version-2", bytes(|bytes| bytes[13] = b'2')),
        ("malformed--length-of-zero", behind_a_head(&[])),
        ("malformed--length-too-large", behind_a_head(&vec![0x30; UPDATE_BYTES_MAX + 1])),
        ("malformed--length-of-4-gib", bytes(|bytes| bytes[15..19].fill(0xff))),
        ("malformed--trailing-byte", behind_a_head(&[&statement[..], &[0]].concat())),
        ("malformed--not-der", behind_a_head(&[0xff; 200])),
        ("malformed--long-length", {
            let mut longer = statement.clone();
            longer[1] = 0x83;
            longer.insert(2, 0);
            behind_a_head(&longer)
        }),
        ("malformed--without-signature", behind_a_head(&der::encode(&content()))),
        ("malformed--version-0", usual(|said| said.version = 0)),
        ("malformed--version-2", usual(|said| said.version = 2)),
        ("malformed--target-empty", usual(|said| said.target = String::new())),
        ("malformed--target-of-65-bytes", usual(|said| said.target = "b".repeat(65))),
        ("malformed--target-in-capitals", usual(|said| said.target = "Bulla/x86-64".to_owned())),
        ("malformed--release-0", usual(|said| (said.image, said.floor) = (Release::ZERO, Release::ZERO))),
        ("malformed--release-number-65536", usual(|said| said.image.patch = 65_536)),
        ("malformed--floor-number-65536", usual(|said| said.floor.patch = 65_536)),
        ("malformed--floor-above-the-image", usual(|said| said.floor = release("1.3.1"))),
        ("malformed--time-above-the-limit", usual(|said| said.made_at = 1 << 63)),
        ("malformed--root-empty", usual(|said| said.root.bytes = 0)),
        ("malformed--verity-empty", usual(|said| said.verity.bytes = 0)),
        ("malformed--kernel-empty", usual(|said| said.kernel.bytes = 0)),
        ("malformed--root-not-whole-sectors", usual(|said| said.root.bytes += 1)),
        ("malformed--verity-not-whole-sectors", usual(|said| said.verity.bytes -= 1)),
        ("malformed--part-too-large", usual(|said| said.kernel.bytes = PART_BYTES_MAX + 1)),
        ("not-signed--by-another-key", signed(content(), 3).head()),
        ("not-signed--flipped", after(|update| update.signature = flipped(&update.signature))),
        (
            "not-signed--signature-of-63-bytes",
            after(|update| {
                update.signature = update.signature[..63].to_vec().into();
            }),
        ),
        ("not-signed--signature-empty", after(|update| update.signature = Vec::new().into())),
        ("not-signed--newer-afterwards", after(|update| update.content.image = release("9.0.0"))),
        ("not-signed--lower-floor-afterwards", after(|update| update.content.floor = Release::ZERO)),
        (
            "not-signed--other-root-afterwards",
            after(|update| {
                update.content.root_hash = Octets32::new([0xa6; 32]);
            }),
        ),
        (
            "not-signed--other-kernel-afterwards",
            after(|update| {
                update.content.kernel.hash = Octets32::new([4; 32]);
            }),
        ),
        (
            "not-signed--other-target-afterwards",
            after(|update| update.content.target = "bulla/arm64".to_owned()),
        ),
        (
            "not-signed--without-label",
            after(|update| {
                update.signature = key(1).sign(&der::encode(&update.content)).to_bytes().to_vec().into();
            }),
        ),
        (
            "not-signed--signed-as-a-lease",
            after(|update| {
                let message = labelled("bulla/lease/v1", &der::encode(&update.content));
                update.signature = key(1).sign(&message).to_bytes().to_vec().into();
            }),
        ),
        ("other-target--another-architecture", usual(|said| said.target = "bulla/arm64".to_owned())),
        ("other-target--longer", usual(|said| said.target = format!("{TARGET}-v2"))),
        (
            "below-floor--by-a-patch",
            usual(|said| (said.image, said.floor) = (release("1.0.9"), Release::ZERO)),
        ),
        (
            "below-floor--the-first",
            usual(|said| (said.image, said.floor) = (release("0.1.0"), Release::ZERO)),
        ),
        ("not-newer--the-same", usual(|said| said.image = release(RUNNING))),
        ("not-newer--by-a-patch", usual(|said| said.image = release("1.2.2"))),
        ("not-newer--the-floor-itself", usual(|said| said.image = release(FLOOR))),
    ])
}

fn flipped(signature: &[u8]) -> rasn::types::OctetString {
    let mut bytes = signature.to_vec();
    bytes[5] ^= 1;
    bytes.into()
}

fn judge(vector: &Value) -> &'static str {
    let text = |name: &str| vector[name].as_str().unwrap();
    let head = hex::decode(text("head")).unwrap();
    let keys = vector["keys"].as_array().unwrap();
    let keys: Vec<[u8; 32]> =
        keys.iter().map(|key| hex::decode(key.as_str().unwrap()).unwrap().try_into().unwrap()).collect();
    let Some((beginning, rest)) = head.split_at_checked(HEAD_BYTES) else { return "malformed" };
    let Ok(length) = parse_head(beginning) else { return "malformed" };
    if rest.len() != length {
        return "malformed";
    }
    let Ok(update) = Update::decode(rest) else { return "malformed" };
    assert_eq!(update.head(), head);
    let Ok(verified) = update.verify(&keys) else { return "not-signed" };
    assert_eq!(verified.content(), &update.content);
    match verified.admit(text("target"), release(text("running")), release(text("floor"))) {
        Ok(()) => "valid",
        Err(UpdateError::OtherTarget(_)) => "other-target",
        Err(UpdateError::NotNewer { .. }) => "not-newer",
        Err(UpdateError::BelowFloor { .. }) => "below-floor",
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn every_update_is_judged_as_it_says() {
    let keys: Vec<String> = [1, 2].map(|seed| hex::encode(key(seed).verifying_key().to_bytes())).to_vec();
    let made = all().into_iter().map(|(name, head)| {
        let expect = name.split("--").next().unwrap();
        let vector = json!({
            "keys": keys, "target": TARGET, "running": RUNNING, "floor": FLOOR, "head": hex::encode(head), "expect": expect,
        });
        (name.to_owned(), vector)
    });
    let made: BTreeMap<String, Value> = made.collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, vector) in &made {
            fs::write(directory().join(format!("{name}.json")), format!("{vector:#}\n")).unwrap();
        }
    }
    let mut read = BTreeMap::new();
    for file in fs::read_dir(directory()).unwrap() {
        let path = file.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_eq!(judge(&vector), vector["expect"].as_str().unwrap(), "{name}");
        read.insert(name, vector);
    }
    assert_eq!(read, made, "the files are what this source makes");
    let valid = read.keys().filter(|name| name.starts_with("valid")).count();
    assert!(read.len() > 3 * valid, "refusals outnumber what is taken");
}

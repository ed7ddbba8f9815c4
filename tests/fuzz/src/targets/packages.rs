//! JSON packaging: trust files, backup manifests, files with a checksum, JSON and base64 themselves.
//!
//! Holds: what is decoded has one meaning, which encoding keeps; formats with one spelling are encoded to it.

use super::{seed, split};
use crate::genuine::VECTORS;
use bulla_formats::backup::{BackupFile, Manifest};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::Hash;
use bulla_formats::trust::{TrustFile, fingerprint};
use bulla_formats::{checked_json, json};
use serde_json::Value;
use std::collections::BTreeSet;

const CHOICES: u8 = 6;
const LIMIT: usize = 1 << 20;

/// The first byte chooses the format.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => {
            let Ok(trust) = TrustFile::decode(data) else { return };
            assert!(!trust.roots.is_empty());
            assert_eq!(TrustFile::decode(trust.encode().as_bytes()).as_ref(), Ok(&trust));
            assert_eq!(fingerprint(data).len(), 24);
        }
        1 => {
            let Ok(manifest) = Manifest::decode(data) else { return };
            assert_eq!(manifest.encode().as_bytes(), data, "a manifest has one spelling");
            let names: BTreeSet<_> = manifest.files.iter().map(|file| &file.name).collect();
            assert_eq!(names.len(), manifest.files.len(), "a name comes twice");
            assert!(Manifest::verify(&manifest.encode(), &[7; 32], &[0; 64]).is_err());
        }
        2 => {
            let Ok(body) = checked_json::body(data) else { return };
            let text = String::from_utf8(body);
            // The checksum covers bytes; what is no text was not written here.
            let Ok(text) = text else { return };
            assert_eq!(
                checked_json::body(checked_json::with_checksum(&text).as_bytes()),
                Ok(text.into_bytes())
            );
        }
        3 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let file = checked_json::with_checksum(text);
            let body = checked_json::body(file.as_bytes()).expect("what was closed with a checksum opens");
            let head = text.trim_end();
            let head = head.strip_suffix('}').unwrap_or(head).trim_end();
            assert_eq!(body, format!("{head}\n}}").into_bytes());
        }
        4 => {
            let Ok(value) = json::parse(data, LIMIT) else { return };
            assert_eq!(serde_json::from_slice::<Value>(data).ok().as_ref(), Some(&value), "two readings");
            assert_eq!(
                json::is_array_of_objects(&value),
                value.as_array().is_some_and(|all| all.iter().all(Value::is_object))
            );
        }
        _ => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Ok(bytes) = json::base64_decode(text) else { return };
            assert_eq!(json::base64_encode(&bytes), text, "base64 has one spelling");
        }
    }
}

/// Trust files and other JSON of the vectors, a manifest, a file with its checksum.
pub fn seeds() -> Vec<Vec<u8>> {
    let trust: BTreeSet<_> = VECTORS.iter().map(|vector| &vector.trust).collect();
    let mut seeds: Vec<_> = trust.iter().map(|trust| seed(0, trust)).collect();
    let file = |name: &str| BackupFile { name: name.to_owned(), bytes: 5, sha256: Hash([5; 32]) };
    let manifest = Manifest {
        origin: format!("bank.example/{}/3", "ab".repeat(20)),
        made_millis: 1_795_219_200_123,
        head: TreeState::new(7, Hash([7; 32])),
        files: vec![file("identity.json"), file("log-3/seg-0000000000000000.redb")],
    };
    seeds.push(seed(1, manifest.encode()));
    let object = "{\n  \"bulla\": \"clients/v2\",\n  \"clients\": []\n}";
    seeds.push(seed(2, checked_json::with_checksum(object)));
    seeds.push(seed(3, object));
    seeds.extend(
        [&b"{\"a\":[1,-2,3.5e7,true,null,\"\\u00fc\"],\"b\":{}}"[..], b"[1e400]", b"{\"a\":1,\"a\":2}"]
            .map(|text| seed(4, text)),
    );
    seeds.extend([&b"QUI="[..], b"QUJD", b"QQ==", b"QR=="].map(|text| seed(5, text)));
    seeds
}

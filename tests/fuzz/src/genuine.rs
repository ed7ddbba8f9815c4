//! Genuine evidence: the vectors of `tests/vectors`, taken apart.
//!
//! All of them come from a handful of boxes under one fleet root. So whatever a target gets verified under that root
//! must be something those boxes signed, and [`Signed`] is the list of it.

use bulla_formats::entry::Entry;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::json::base64_decode;
use bulla_formats::note::SignedNote;
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::{VerifiedSeal, verify};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

/// One vector.
pub struct Vector {
    /// Name of its directory.
    pub name: String,
    /// Bytes of `document.seal`.
    pub seal: Vec<u8>,
    /// Bytes of `trust.json`.
    pub trust: Vec<u8>,
}

/// All vectors, by name.
pub static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let read = |path: &Path| fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let listing = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut vectors: Vec<Vector> = listing
        .map(|entry| {
            let path = entry.expect("a directory that could be opened can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Vector { name, seal: read(&path.join("document.seal")), trust: read(&path.join("trust.json")) }
        })
        .collect();
    vectors.sort_by(|a, b| a.name.cmp(&b.name));
    vectors
});

/// The trust file that most vectors have: it accepts boxes with TPM and without.
pub static TRUST: LazyLock<TrustFile> = LazyLock::new(|| {
    let vector = VECTORS.iter().find(|vector| vector.name == "valid-software-minimal");
    let vector = vector.expect("the vectors have a minimal one");
    TrustFile::decode(&vector.trust).expect("a genuine trust file")
});

/// The seals that hold under [`TRUST`].
pub static SEALS: LazyLock<Vec<(String, SealFile)>> = LazyLock::new(|| {
    let genuine = VECTORS.iter().filter(|vector| verify(&vector.seal, &TRUST, None).seal.is_some());
    let decoded = genuine.map(|vector| {
        (vector.name.clone(), SealFile::decode(&vector.seal).expect("what verifies has been decoded"))
    });
    let seals: Vec<_> = decoded.collect();
    assert!(seals.len() > 40, "most positive vectors are of one fleet");
    seals
});

/// Everything that the boxes of the vectors have signed, wherever it stands in a vector.
#[derive(Default)]
pub struct Signed {
    /// Leaf hashes of entries.
    pub leaves: BTreeSet<Hash>,
    /// DER of enrolments.
    pub enrolments: BTreeSet<Vec<u8>>,
    /// Texts of checkpoints.
    pub checkpoints: BTreeSet<String>,
    /// DER of openings.
    pub openings: BTreeSet<Vec<u8>>,
    /// DER of revocations.
    pub revocations: BTreeSet<Vec<u8>>,
    /// DER of successions.
    pub successions: BTreeSet<Vec<u8>>,
}

/// The one list of it.
pub static SIGNED: LazyLock<Signed> = LazyLock::new(|| {
    let mut signed = Signed::default();
    for vector in VECTORS.iter() {
        // Also of files that a verifier refuses for their packaging.
        if let Ok(value) = serde_json::from_slice::<Value>(&vector.seal) {
            signed.take(&value);
        }
        if let Ok(trust) = serde_json::from_slice::<Value>(&vector.trust) {
            let said = trust["revocations"].as_array().into_iter().flatten().filter_map(Value::as_str);
            signed.revocations.extend(said.filter_map(|text| base64_decode(text).ok()));
            let said = trust["successions"].as_array().into_iter().flatten().filter_map(Value::as_str);
            signed.successions.extend(said.filter_map(|text| base64_decode(text).ok()));
        }
    }
    signed
});

/// The leases of their vectors.
pub struct Leases {
    /// The root that vouches for some.
    pub root: [u8; 32],
    /// The key of the hub that vouches for others.
    pub hub: [u8; 32],
    /// Those that somebody vouches for.
    pub valid: BTreeSet<Vec<u8>>,
}

/// The leases of their vectors.
pub static LEASES: LazyLock<Leases> = LazyLock::new(|| {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors-lease");
    let (mut root, mut hub, mut leases) = ([0; 32], [0; 32], BTreeSet::new());
    for file in std::fs::read_dir(directory).expect("the vectors are there") {
        let text = std::fs::read(file.expect("a file").path()).expect("a vector is readable");
        let vector: Value = serde_json::from_slice(&text).expect("a vector is JSON");
        let bytes = |name: &str| hex::decode(vector[name].as_str().unwrap_or_default()).expect("hex");
        if let Some(key) = vector["hub"]["key"].as_str() {
            hub.copy_from_slice(&hex::decode(key).expect("hex"));
        }
        if vector["expect"] == "valid" {
            root.copy_from_slice(&bytes("root"));
            leases.insert(bytes("lease"));
        }
    }
    Leases { root, hub, valid: leases }
});

/// The updates of their vectors.
pub struct Updates {
    /// The key that signed them.
    pub key: [u8; 32],
    /// What that key has signed, whether or not a box takes it.
    pub signed: BTreeSet<Vec<u8>>,
}

/// The updates of their vectors.
pub static UPDATES: LazyLock<Updates> = LazyLock::new(|| {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors-update");
    let (mut key, mut signed) = ([0; 32], BTreeSet::new());
    for file in std::fs::read_dir(directory).expect("the vectors are there") {
        let text = std::fs::read(file.expect("a file").path()).expect("a vector is readable");
        let vector: Value = serde_json::from_slice(&text).expect("a vector is JSON");
        let bytes = |value: &Value| hex::decode(value.as_str().unwrap_or_default()).expect("hex");
        if !["malformed", "not-signed"].contains(&vector["expect"].as_str().unwrap_or_default()) {
            key.copy_from_slice(&bytes(&vector["keys"][0]));
            signed.insert(bytes(&vector["head"]));
        }
    }
    Updates { key, signed }
});

/// The destruction certificates of their vectors that hold.
pub static RETIREMENTS: LazyLock<BTreeSet<Vec<u8>>> = LazyLock::new(|| {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors-retirement");
    let listed = std::fs::read_dir(directory).expect("the vectors are there");
    let holds = |name: &str| ["shown--", "refused--", "no-tpm--"].iter().any(|word| name.starts_with(word));
    let paths = listed.map(|file| file.expect("a file").path());
    let paths = paths.filter(|path| path.file_name().is_some_and(|name| holds(&name.to_string_lossy())));
    paths.map(|path| std::fs::read(path).expect("a vector is readable")).collect()
});

impl Signed {
    fn take(&mut self, file: &Value) {
        let der = |value: &Value| value.as_str().and_then(|text| base64_decode(text).ok());
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let heads = list(&file["heads"]);
        let placed = [list(&file["erasures"]), list(&file["manifests"])].concat();
        let own = [&file["entry"], &file["epoch"], &file["evidence"]];
        let entries = own.into_iter().chain(placed.iter().map(|entry| &entry["entry"]));
        self.leaves.extend(entries.filter_map(der).map(|entry| leaf_hash(&entry)));
        self.enrolments.extend(der(&file["enrolment"]));
        let said = list(&file["revocations"]);
        self.revocations.extend(said.iter().filter_map(|said| der(&said["statement"])));
        self.openings.extend(list(&file["openings"]).iter().filter_map(der));
        let notes = heads.iter().chain(&placed).filter_map(|head| head["checkpoint"].as_str());
        self.checkpoints.extend(notes.filter_map(|note| SignedNote::parse(note).ok()).map(|note| note.text));
    }

    /// Panics when something that verified was signed by no box of the vectors.
    pub fn vouch_for(&self, seal: &VerifiedSeal) {
        assert!(self.leaves.contains(&seal.entry().leaf_hash()), "a token that nobody signed");
        let texts = seal.checkpoints().map(|checkpoint| checkpoint.text());
        texts.for_each(|text| {
            assert!(self.checkpoints.contains(text), "a checkpoint that nobody signed: {text}")
        });
        for opening in seal.openings() {
            assert!(seal.body().commitments.contains(&opening.commitment()), "an opening of nothing");
        }
    }
}

/// Every entry in the vectors that decodes, once.
pub fn entries() -> Vec<Entry> {
    let mut entries = std::collections::BTreeMap::new();
    for (_, seal) in SEALS.iter() {
        let placed = seal.erasures.iter().chain(&seal.manifests).map(|placed| &placed.entry);
        for bytes in [&seal.entry, &seal.epoch].into_iter().chain(&seal.evidence).chain(placed) {
            entries.insert(bytes.clone(), Entry::decode(bytes).expect("it was verified"));
        }
    }
    entries.into_values().collect()
}

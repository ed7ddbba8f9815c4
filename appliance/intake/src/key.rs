//! What makes two files the same: their bytes, those of their sidecars, and the folder they came through.
//!
//! Names, times and inodes do not count: a file that is renamed, touched, copied or written anew with the same bytes is
//! the same document, and gets the same seal.
//! Invariant: the idempotency key follows from the [`Content`] and the folder's identity alone (G3).

use crate::complete::Format;
use bulla_formats::hash::sha256;
use std::path::PathBuf;

/// What describes a document beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sidecar {
    /// Its name in the folder.
    pub name: PathBuf,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A document that is whole, and what lies beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
    /// How many they are.
    pub size: u64,
    /// What they are.
    pub format: Format,
    /// Its sidecars, in the order in which they are looked for.
    pub sidecars: Vec<Sidecar>,
}

impl Content {
    /// The idempotency key: 64 hex digits.
    pub fn key(&self, folder: &str) -> String {
        let mut parts: Vec<&[u8]> = vec![b"bulla/intake-key/v1\0", folder.as_bytes(), b"\0", &self.sha256];
        parts.extend(self.sidecars.iter().map(|sidecar| &sidecar.sha256[..]));
        sha256(&parts).to_string()
    }

    /// Names and values that bind the sidecars to the document's seal. They are committed to by salted hashes: a sidecar
    /// says who scanned, in few words, and a plain digest of few words can be guessed.
    pub fn metadata(&self) -> Vec<(String, String)> {
        let named = |(number, sidecar): (usize, &Sidecar)| {
            let name = if number == 0 { "sidecar".to_owned() } else { format!("sidecar-{}", number + 1) };
            let file = sidecar.name.file_name().unwrap_or_default().to_string_lossy();
            (name, format!("sha-256:{} {file}", hex::encode(sidecar.sha256)))
        };
        self.sidecars.iter().enumerate().map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_the_key_follows_from_bytes_and_folder() {
        let plain = Content { sha256: [1; 32], size: 1, format: Format::Pdf, sidecars: Vec::new() };
        let with = |bytes: &[u8], name: &str| {
            let sidecars =
                bytes.iter().map(|byte| Sidecar { name: name.into(), sha256: [*byte; 32] }).collect();
            Content { sidecars, ..plain.clone() }
        };
        assert_eq!(with(&[2], "a.xml").key("f"), with(&[2], "b.xml").key("f"), "names do not count");
        let keys = [
            plain.key("f"),
            plain.key("g"),
            Content { sha256: [3; 32], ..plain.clone() }.key("f"),
            with(&[2], "a.xml").key("f"),
            with(&[2, 3], "a.xml").key("f"),
            with(&[3, 2], "a.xml").key("f"),
        ];
        let distinct: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        let metadata = with(&[2, 3], "in/a.xml").metadata();
        assert_eq!(metadata[0], ("sidecar".into(), format!("sha-256:{} a.xml", "02".repeat(32))));
        assert_eq!(metadata[1].0, "sidecar-2");
    }
}

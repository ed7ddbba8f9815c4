//! `.seal` files as bytes: decode, verify, upgrade.
//!
//! Holds: a decoded file encodes to one that decodes to the same and is judged the same; what verifies was signed by a
//! box of the vectors; a report has a failed check exactly when it refuses; an upgrade done twice changes nothing; names
//! spelled with escapes, which are read in another way, change nothing either.

use crate::genuine::{SIGNED, TRUST, VECTORS};
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_formats::verify::{verify, wanted_digest};

/// Judges `data` as a `.seal` file.
pub fn run(data: &[u8]) {
    let found = verify(data, &TRUST, None);
    let passed = found.report.verdict == Verdict::SealOnly;
    assert_eq!(found.report.failed().is_none(), passed, "{}", found.report);
    assert!(!found.report.to_json().to_string().is_empty());
    let Ok(file) = SealFile::decode(data) else {
        assert!(found.seal.is_none(), "verified without having been read");
        return;
    };
    if let Some(seal) = &found.seal {
        SIGNED.vouch_for(seal);
        assert_eq!(seal.entry().bytes(), file.entry);
        assert!(wanted_digest(&file).is_some(), "a seal of a document without a digest");
    }
    let text = file.encode();
    let again = SealFile::decode(text.as_bytes());
    assert_eq!(again.as_ref(), Ok(&file), "another file than the one that was written");
    let judged = verify(text.as_bytes(), &TRUST, None);
    assert_eq!(judged.report.to_string(), found.report.to_string());
    let escaped = text.replacen("\"bulla\"", "\"\\u0062ulla\"", 1);
    assert_eq!(verify(escaped.as_bytes(), &TRUST, None).report.to_string(), found.report.to_string());
    let mut upgraded = file.clone();
    assert!(upgraded.upgrade(file.clone()).is_some(), "a file is of its own entry");
    assert_eq!(upgraded.upgrade(file), Some(false), "upgraded twice");
}

/// The vectors: all that hold, and some of those that do not.
pub fn seeds() -> Vec<Vec<u8>> {
    let chosen =
        VECTORS.iter().enumerate().filter(|(at, vector)| vector.name.starts_with("valid") || at % 8 == 0);
    chosen.map(|(_, vector)| vector.seal.clone()).collect()
}

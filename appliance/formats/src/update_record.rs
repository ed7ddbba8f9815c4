//! The record of an update: what `bulla-update` has done to the image of this box, for `bulla-box` to enter into its log.
//!
//! One small file, replaced whole, behind a checksum (docs/formats.md, *Update bundles*).
//! Refuses to do: say whether an image is good; that is decided before the record says so.
//! Invariant: a record has one spelling.

use crate::checked_json;
use crate::der::Octets32;
use crate::entry::NUMBER_MAX;
use crate::json;
use crate::update::Release;
use serde_json::{Value, json};

/// Longest detail in bytes.
pub const DETAIL_BYTES_MAX: usize = 500;
/// Longest record file in bytes.
pub const RECORD_BYTES_MAX: usize = 4_096;
const VERSION: &str = "update/v1";

/// How an update has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The new image runs, and has passed its check.
    Proven,
    /// The image before runs again.
    FellBack,
}

impl Outcome {
    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Proven => "proven",
            Outcome::FellBack => "fell-back",
        }
    }
}

/// What has become of the newest update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateRecord {
    /// The image that ran when it was taken.
    pub from: Release,
    /// The image that was taken; above `from`.
    pub to: Release,
    /// SHA-256 of its signed statement, DER(Update).
    pub statement: Octets32,
    /// When it was taken (Unix milliseconds, the machine's clock).
    pub staged_millis: u64,
    /// How it ended and when; `None` while the new image has still to prove itself.
    pub outcome: Option<(Outcome, u64)>,
    /// What the new image's check has found, for people; at most 500 bytes without control characters.
    pub detail: String,
}

impl UpdateRecord {
    /// The file.
    pub fn encode(&self) -> String {
        checked_json::with_checksum(&format!("{:#}", self.object()))
    }

    fn object(&self) -> Value {
        let mut object = json!({
            "bulla": VERSION,
            "from": self.from.to_string(),
            "to": self.to.to_string(),
            "statement": hex::encode(*self.statement),
            "stagedMillis": self.staged_millis,
            "detail": self.detail,
        });
        if let Some((outcome, at)) = self.outcome {
            object["outcome"] = outcome.name().into();
            object["settledMillis"] = at.into();
        }
        object
    }

    /// Reads a record file; `None` for anything but what [`Self::encode`] writes.
    pub fn parse(file: &[u8]) -> Option<Self> {
        if file.len() > RECORD_BYTES_MAX {
            return None;
        }
        let object = json::parse(&checked_json::body(file).ok()?, RECORD_BYTES_MAX).ok()?;
        let text = |name: &str| object.get(name).and_then(Value::as_str);
        let millis = |name: &str| object.get(name)?.as_u64().filter(|number| *number <= NUMBER_MAX);
        let outcome = match text("outcome") {
            None => None,
            Some("proven") => Some((Outcome::Proven, millis("settledMillis")?)),
            Some("fell-back") => Some((Outcome::FellBack, millis("settledMillis")?)),
            Some(_) => return None,
        };
        let statement: [u8; 32] = hex::decode(text("statement")?).ok()?.try_into().ok()?;
        let record = UpdateRecord {
            from: Release::parse(text("from")?)?,
            to: Release::parse(text("to")?)?,
            statement: Octets32::new(statement),
            staged_millis: millis("stagedMillis")?,
            outcome,
            detail: text("detail")?.to_owned(),
        };
        let plain = record.detail.len() <= DETAIL_BYTES_MAX && !record.detail.contains(char::is_control);
        (plain && record.from < record.to && record.encode().as_bytes() == file).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_one_spelling() {
        let release = |text| Release::parse(text).unwrap();
        let open = UpdateRecord {
            from: release("0.1.0"),
            to: release("0.2.0"),
            statement: Octets32::new([7; 32]),
            staged_millis: 1_790_000_000_000,
            outcome: None,
            detail: "the self-test failed".to_owned(),
        };
        let proven =
            UpdateRecord { outcome: Some((Outcome::Proven, 9)), detail: String::new(), ..open.clone() };
        let back = UpdateRecord { outcome: Some((Outcome::FellBack, 9)), ..open.clone() };
        for record in [&open, &proven, &back] {
            assert_eq!(UpdateRecord::parse(record.encode().as_bytes()).as_ref(), Some(record));
            for at in 0..record.encode().len() {
                let mut bytes = record.encode().into_bytes();
                bytes[at] ^= 1;
                assert_eq!(UpdateRecord::parse(&bytes), None, "byte {at}");
                assert_eq!(UpdateRecord::parse(&record.encode().as_bytes()[..at]), None, "{at} bytes");
            }
        }
        let changed = |change: &dyn Fn(&mut Value)| {
            let mut object = back.object();
            change(&mut object);
            checked_json::with_checksum(&format!("{object:#}"))
        };
        assert!(UpdateRecord::parse(changed(&|_| ()).as_bytes()).is_some());
        let bad: [(&str, Value); 9] = [
            ("bulla", "update/v2".into()),
            ("from", "0.2.0".into()),
            ("to", "0.02.1".into()),
            ("statement", "07".into()),
            ("statement", "AA".repeat(32).into()),
            ("stagedMillis", (1_u64 << 63).into()),
            ("outcome", "lost".into()),
            ("detail", "a\nb".into()),
            ("detail", "d".repeat(501).into()),
        ];
        for (name, value) in bad {
            let file = changed(&|object| object[name] = value.clone());
            assert_eq!(UpdateRecord::parse(file.as_bytes()), None, "{name} {value}");
        }
        let more = changed(&|object| object["more"] = 1.into());
        assert_eq!(UpdateRecord::parse(more.as_bytes()), None);
    }
}

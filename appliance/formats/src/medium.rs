//! The statement on a removable medium: which log a box has copied to it, up to which tree, and when it read that back.
//!
//! A medium is no peer: nobody but the box speaks for it, and nothing here is a cosignature. The statement is a signed note
//! (C2SP signed-note) of the log key, whose text no checkpoint can have, because its first line is no origin.
//! Refuses to do: say that the medium still holds it; whoever has the medium reads it.
//! Invariant: a statement has one spelling.

use crate::entry::NUMBER_MAX;
use crate::hash::Hash;
use crate::json::{base64_decode, base64_encode};
use crate::note::{NoteError, SignedNote, ed25519_key_id};
use crate::origin::Origin;
use crate::sig::PublicKey;

/// First line of the text.
pub const MEDIUM_LABEL: &str = "bulla/medium-statement/v1";
/// Bytes of a medium's id.
pub const MEDIUM_ID_BYTES: usize = 16;

/// Name of a medium: random, written to it when a box first uses it. A name, not a proof: it can be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediumId(pub [u8; MEDIUM_ID_BYTES]);

impl MediumId {
    /// Reads 32 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let bytes = hex::decode(text).ok().filter(|_| lower)?;
        bytes.try_into().ok().map(MediumId)
    }
}

impl std::fmt::Display for MediumId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

/// What a box states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediumStatement {
    /// The log.
    pub origin: Origin,
    /// Entries on the medium; at least 1.
    pub size: u64,
    /// Root over them.
    pub root: Hash,
    /// The medium.
    pub medium: MediumId,
    /// When all of it had been read back, Unix milliseconds by the box's clock.
    pub unix_millis: u64,
}

impl MediumStatement {
    /// The text that is signed.
    pub fn text(&self) -> String {
        let root = base64_encode(&self.root.0);
        format!(
            "{MEDIUM_LABEL}\n{}\n{}\n{root}\n{}\n{}\n",
            self.origin.as_str(),
            self.size,
            self.medium,
            self.unix_millis
        )
    }

    /// Reads a text; nothing is verified.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let refuse = |what| Err(NoteError::NotACheckpoint(what));
        let lines: Vec<&str> = text.split('\n').collect();
        let [MEDIUM_LABEL, origin, size, root, medium, time, ""] = lines[..] else {
            return refuse("it is no statement about a medium of six lines");
        };
        let number = |text: &str| {
            text.parse().ok().filter(|number: &u64| number.to_string() == text && *number <= NUMBER_MAX)
        };
        let (Ok(origin), Some(size), Some(unix_millis)) = (Origin::parse(origin), number(size), number(time))
        else {
            return refuse("its origin, size or time is not one, or not in plain decimal");
        };
        let root = base64_decode(root).ok().and_then(|raw| Hash::from_slice(&raw));
        let (Some(root), Some(medium)) = (root, MediumId::parse(medium)) else {
            return refuse("its root or medium is not one");
        };
        let statement = MediumStatement { origin, size, root, medium, unix_millis };
        if size == 0 || statement.text() != text {
            return refuse("it says nothing, or has another spelling");
        }
        Ok(statement)
    }

    /// Reads a signed statement about the log named `origin`, and verifies the line of its log key.
    pub fn open(note: &str, origin: &Origin, log_key: &[u8; 32]) -> Result<Self, NoteError> {
        let note = SignedNote::parse(note)?;
        let statement = Self::parse(&note.text)?;
        if statement.origin != *origin {
            return Err(NoteError::OtherOrigin(statement.origin.as_str().to_owned()));
        }
        let id = ed25519_key_id(origin.as_str(), log_key);
        let line =
            note.line(origin.as_str(), id, "the log key")?.ok_or(NoteError::Unsigned("the log key"))?;
        let key = PublicKey::from_bytes(crate::sig::Algorithm::Ed25519, log_key)
            .map_err(|_| NoteError::BadSignature("the log key"))?;
        key.verify(note.text.as_bytes(), line).map_err(|_| NoteError::BadSignature("the log key"))?;
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::note::{checkpoint_text, log_line, parse_checkpoint_text};
    use ed25519_dalek::{Signer as _, SigningKey};

    fn statement() -> MediumStatement {
        let origin = Origin::parse(&format!("bank.example/{}/3", "0a".repeat(20))).unwrap();
        let (root, medium) = (sha256(&[b"root"]), MediumId([0xab; 16]));
        MediumStatement { origin, size: 4711, root, medium, unix_millis: 1_800_000_000_000 }
    }

    fn signed(text: &str, key: &SigningKey, origin: &str) -> String {
        let signature = key.sign(text.as_bytes()).to_bytes();
        let line = log_line(origin, &key.verifying_key().to_bytes(), &signature);
        SignedNote { text: text.to_owned(), lines: vec![line] }.encode()
    }

    #[test]
    fn a_statement_is_believed_from_its_log_key_alone() {
        let (made, key) = (statement(), SigningKey::from_bytes(&[7; 32]));
        let (origin, public) = (made.origin.clone(), key.verifying_key().to_bytes());
        let note = signed(&made.text(), &key, origin.as_str());
        assert_eq!(MediumStatement::open(&note, &origin, &public), Ok(made.clone()));
        assert_eq!(
            made.text(),
            format!(
                "bulla/medium-statement/v1\nbank.example/{}/3\n4711\n{}\nabababababababababababababababab\n1800000000000\n",
                "0a".repeat(20),
                base64_encode(&made.root.0)
            )
        );
        for at in 0..note.len() {
            let mut bent = note.clone().into_bytes();
            bent[at] ^= 1;
            let refused = String::from_utf8(bent)
                .map_or(true, |bent| MediumStatement::open(&bent, &origin, &public).is_err());
            assert!(refused, "byte {at}");
        }
        let other = SigningKey::from_bytes(&[8; 32]);
        let foreign = Origin::parse(&format!("bank.example/{}/4", "0a".repeat(20))).unwrap();
        assert!(MediumStatement::open(&note, &origin, &other.verifying_key().to_bytes()).is_err());
        assert!(MediumStatement::open(&note, &foreign, &public).is_err());
        // A checkpoint is no statement, and a statement no checkpoint, whoever signed it.
        let head = checkpoint_text(origin.as_str(), made.size, &made.root);
        assert!(MediumStatement::open(&signed(&head, &key, origin.as_str()), &origin, &public).is_err());
        assert!(parse_checkpoint_text(&made.text()).is_err());
    }

    #[test]
    fn a_text_has_one_spelling() {
        let text = statement().text();
        assert_eq!(MediumStatement::parse(&text), Ok(statement()));
        for (from, to) in [
            ("v1\n", "v2\n"),
            ("bulla/", "Bulla/"),
            ("4711", "04711"),
            ("4711", "0"),
            ("4711", "-1"),
            ("4711", "4711 "),
            ("4711", "9223372036854775808"),
            ("bank", "Bank"),
            ("/3\n", "/03\n"),
            ("abab", "ABAB"),
            ("abab", "ab"),
            ("1800000000000", "1800000000000.0"),
            ("1800000000000\n", "1800000000000"),
            ("1800000000000\n", "1800000000000\n\n"),
            ("\n4711", "\r\n4711"),
            ("=\n", "\n"),
            ("=\n", "==\n"),
        ] {
            assert!(MediumStatement::parse(&text.replacen(from, to, 1)).is_err(), "{from:?} {to:?}");
        }
        for bad in ["", "abab", &"ab".repeat(17), &"AB".repeat(16), &"zz".repeat(16)] {
            assert_eq!(MediumId::parse(bad), None, "{bad:?}");
        }
    }
}

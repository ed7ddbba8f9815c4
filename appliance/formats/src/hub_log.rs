//! What a hub says in its own log: heads of branches as it archived or cosigned them, and how far its list of queries is.
//!
//! A branch that is shown one history, and a hub that is shown another, meet here: the hub's log is public to its auditors,
//! append-only, and two hubs' logs can be compared ([`Heads::add`]).
//! Refuses to do: judge a head; who reads the log has the logs' keys, or compares.
//! Invariant: an entry has one encoding.

use crate::der::{self, DerError};
use crate::entry::NUMBER_MAX;
use crate::hash::Hash;
use crate::json::{base64_decode, base64_encode};
use crate::note::{NOTE_BYTES_MAX, SignatureLine, SignedNote, parse_checkpoint_text};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::collections::BTreeMap;

/// Longest entry in bytes: what an entry bundle can hold.
pub const HUB_ENTRY_BYTES_MAX: usize = 65_535;
/// First line of what a hub says of its queries.
pub const QUERIES_LABEL: &str = "bulla/hub-queries/v1";

/// What an entry is about.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum HubKind {
    /// A head whose every entry the hub has verified and archived, with the lines of the log's own keys.
    Archived = 0,
    /// A head that the hub cosigned as a witness: the same, and the hub's line.
    Cosigned = 1,
    /// How far the hub's list of queries is.
    Queries = 2,
}

/// One entry of a hub's log.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct HubEntry {
    /// 1.
    pub version: u64,
    /// What it is about.
    pub kind: HubKind,
    /// When the hub took note of it (Unix milliseconds, the hub's clock).
    pub recorded_at: u64,
    /// A signed note; of [`HubKind::Queries`], the text of a [`QueriesHead`].
    pub statement: OctetString,
}

/// How many queries a hub's list has, and the hash of the newest: the list is a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueriesHead {
    /// Lines of the list; at least 1.
    pub count: u64,
    /// SHA-256 of the newest line, which has that of the one before in it.
    pub hash: Hash,
}

impl QueriesHead {
    /// Its text.
    pub fn text(&self) -> String {
        format!("{QUERIES_LABEL}\n{}\n{}\n", self.count, base64_encode(&self.hash.0))
    }

    /// Reads a text; `None` unless it is spelt as [`QueriesHead::text`] does.
    pub fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.split('\n').collect();
        let [QUERIES_LABEL, count, hash, ""] = lines[..] else { return None };
        let hash = Hash::from_slice(&base64_decode(hash).ok()?)?;
        let head = QueriesHead { count: count.parse().ok()?, hash };
        (head.text() == text && (1..=NUMBER_MAX).contains(&head.count)).then_some(head)
    }
}

/// A head of a branch, read out of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenHead {
    /// The log.
    pub origin: String,
    /// Size of its tree.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
    /// The note.
    pub note: SignedNote,
}

impl HubEntry {
    /// The note as an entry has it: with the lines of the log's own keys, which are named as it is, and these.
    pub fn own_lines(note: &SignedNote, more: &[SignatureLine]) -> SignedNote {
        let origin = note.text.split('\n').next().unwrap_or_default();
        let own = note.lines.iter().filter(|line| line.name == origin);
        SignedNote { text: note.text.clone(), lines: own.chain(more).cloned().collect() }
    }

    /// An entry about a head.
    pub fn head(kind: HubKind, recorded_at: u64, note: &SignedNote) -> Self {
        let statement = note.encode().into_bytes().into();
        HubEntry { version: 1, kind, recorded_at, statement }
    }

    /// An entry about the list of queries.
    pub fn queries(recorded_at: u64, head: &QueriesHead) -> Self {
        let statement = head.text().into_bytes().into();
        HubEntry { version: 1, kind: HubKind::Queries, recorded_at, statement }
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Anything but the one encoding of an entry whose statement is what its kind says.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let entry: HubEntry = der::decode("hub entry", bytes, HUB_ENTRY_BYTES_MAX)?;
        let range = |reason| Err(DerError::Range { what: "hub entry", reason });
        if entry.version != 1 {
            return range("its version is not 1");
        }
        if entry.recorded_at > NUMBER_MAX {
            return range("its time is too large");
        }
        let understood = match entry.kind {
            HubKind::Queries => entry.queries_head().is_some(),
            HubKind::Archived | HubKind::Cosigned => entry.seen().is_some(),
        };
        if !understood {
            return range("its statement is not what its kind says");
        }
        Ok(entry)
    }

    fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.statement).ok()
    }

    /// How far the list of queries is; `None` when it is about a head.
    pub fn queries_head(&self) -> Option<QueriesHead> {
        self.text().filter(|_| self.kind == HubKind::Queries).and_then(QueriesHead::parse)
    }

    /// The head of a branch that it is about; `None` when it is about queries.
    pub fn seen(&self) -> Option<SeenHead> {
        if self.kind == HubKind::Queries || self.statement.len() > NOTE_BYTES_MAX {
            return None;
        }
        let note = SignedNote::parse(self.text()?).ok()?;
        if note.encode().as_bytes() != &self.statement[..] {
            return None;
        }
        let (origin, size, root) = parse_checkpoint_text(&note.text).ok()?;
        let (origin, size, root) = (origin.to_owned(), size, root);
        Some(SeenHead { origin, size, root, note })
    }
}

/// Heads of branches out of one or more hubs' logs: one root for each log and size, or a contradiction.
#[derive(Debug, Default)]
pub struct Heads {
    known: BTreeMap<(String, u64), SeenHead>,
}

impl Heads {
    /// Takes a head. A head of the same log and size with another root is returned: the two notes together show that the
    /// log has two histories, or that a hub's log holds what the log's key never signed.
    pub fn add(&mut self, head: SeenHead) -> Option<&SeenHead> {
        match self.known.entry((head.origin.clone(), head.size)) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(head);
                None
            }
            std::collections::btree_map::Entry::Occupied(known) => {
                let known = known.into_mut();
                (known.root != head.root).then_some(&*known)
            }
        }
    }

    /// Different heads taken.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::note::{checkpoint_text, log_line};
    use ed25519_dalek::{Signer as _, SigningKey};

    fn note(size: u64, root: &[u8]) -> SignedNote {
        let key = SigningKey::from_bytes(&[4; 32]);
        let text = checkpoint_text("log.example/1", size, &sha256(&[root]));
        let line =
            log_line("log.example/1", key.verifying_key().as_bytes(), &key.sign(text.as_bytes()).to_bytes());
        SignedNote { text, lines: vec![line] }
    }

    #[test]
    fn entries_have_one_spelling_and_say_what_their_kind_does() {
        let head = HubEntry::head(HubKind::Archived, 1_800_000_000_000, &note(7, b"a"));
        let queries = QueriesHead { count: 3, hash: sha256(&[b"line"]) };
        let list = HubEntry::queries(1, &queries);
        for entry in [&head, &list] {
            assert_eq!(HubEntry::decode(&entry.encode()).as_ref(), Ok(entry));
        }
        let seen = head.seen().unwrap();
        assert_eq!((seen.origin.as_str(), seen.size, seen.root), ("log.example/1", 7, sha256(&[b"a"])));
        assert_eq!(list.seen(), None);
        let with = |change: &dyn Fn(&mut HubEntry)| {
            let mut entry = head.clone();
            change(&mut entry);
            entry.encode()
        };
        let bent = |change: &dyn Fn(String) -> String| {
            let text = String::from_utf8(head.statement.to_vec()).unwrap();
            with(&|entry| entry.statement = change(text.clone()).into_bytes().into())
        };
        for bad in [
            with(&|entry| entry.version = 2),
            with(&|entry| entry.version = 0),
            with(&|entry| entry.recorded_at = NUMBER_MAX + 1),
            with(&|entry| entry.kind = HubKind::Queries),
            with(&|entry| entry.statement = Vec::new().into()),
            with(&|entry| entry.statement = vec![0xff; 40].into()),
            bent(&|text| text.replacen("\n7\n", "\n07\n", 1)),
            bent(&|text| text + "\n"),
            bent(&|text| text.trim_end().to_owned()),
            HubEntry { kind: HubKind::Cosigned, ..list.clone() }.encode(),
            HubEntry { statement: queries.text().replacen('3', "0", 1).into_bytes().into(), ..list.clone() }
                .encode(),
            HubEntry { statement: queries.text().replacen('3', "03", 1).into_bytes().into(), ..list.clone() }
                .encode(),
            [head.encode(), vec![0]].concat(),
            head.encode()[1..].to_vec(),
            Vec::new(),
        ] {
            assert!(HubEntry::decode(&bad).is_err(), "{}", hex::encode(bad));
        }
    }

    #[test]
    fn two_roots_of_one_size_are_a_contradiction_and_nothing_else_is() {
        let seen =
            |size, root: &[u8]| HubEntry::head(HubKind::Archived, 0, &note(size, root)).seen().unwrap();
        let mut heads = Heads::default();
        for (size, root) in [(7, b"a"), (8, b"b"), (7, b"a"), (9, b"a")] {
            assert_eq!(heads.add(seen(size, root)), None);
        }
        assert_eq!(heads.len(), 3);
        assert_eq!(heads.add(seen(8, b"c")).map(|known| known.root), Some(sha256(&[b"b"])));
    }
}

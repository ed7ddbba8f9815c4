//! What peers say: hints to everybody, and questions to one with their answers.
//!
//! A hint may be lost and decides nothing; whoever cares asks. Every head in here is a checkpoint note, so that it is
//! judged by the log's key and not by who passed it on.
//! Refuses to do: judge signatures and proofs, which takes a card and a tree; know a version but its own.
//! Invariants: whatever decodes keeps its limits, states heads that are checkpoints of the log it names, and encodes
//! back to the same bytes.

use super::{HEAD_BYTES_MAX, PATH_MAX, stated};
use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX};
use crate::hash::{Hash, leaf_hash};
use crate::merkle::{Frontier, ProofError, verify_consistency};
use crate::note::{Checkpoint, NOTE_LINES_MAX, NoteError, SignedNote};
use crate::origin::Origin;
use crate::peer::challenge::{Challenge, ChallengeSaid};
use crate::peer::fork::FORK_BYTES_MAX;
use crate::peer::roster::{RosterAsked, RosterKnown, RosterSaid};
use crate::peer::site::{SiteAsked, SiteWish};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most bytes of a hint.
pub const HINT_BYTES_MAX: usize = 8_192;
/// Most bytes of a question.
pub const QUESTION_BYTES_MAX: usize = 65_536;
/// Most bytes of an answer.
pub const ANSWER_BYTES_MAX: usize = 4_194_304;
/// Most entries of one answer.
pub const ENTRIES_MAX: usize = 4_096;
/// Most objects asked for, or answered with, at once.
pub const OBJECTS_MAX: usize = 1_024;
/// Most bytes of one object.
pub const OBJECT_BYTES_MAX: usize = 2_097_152;
/// Most logs in one answer about heads.
pub const LOGS_MAX: usize = 256;

/// Why a message is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The bytes are no such message, or a value in it is out of range.
    #[error(transparent)]
    Der(#[from] DerError),
    /// Of a version that this program does not know.
    #[error("the message is of a version that this program does not know")]
    Version,
    /// A head in it is no checkpoint.
    #[error("a head in the message: {0}")]
    Head(#[from] NoteError),
}

impl MessageError {
    /// The code that a question refused for this is answered with.
    pub fn refusal(&self) -> Refusal {
        match self {
            MessageError::Version => Refusal::Version,
            MessageError::Der(_) | MessageError::Head(_) => Refusal::Malformed,
        }
    }
}

/// Said to everybody.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Hinted {
    /// The newest head of the sender's log: a checkpoint note.
    #[rasn(tag(context, 0))]
    Head(String),
    /// The sender holds a proof that a log has forked.
    #[rasn(tag(context, 1))]
    Fork(ForkHint),
    /// The sender has this version of its fleet's roster.
    #[rasn(tag(context, 11))]
    Roster(RosterKnown),
}

/// Which log has forked.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForkHint {
    /// The log.
    pub origin: String,
    /// SHA-256 of the proof.
    pub proof: Octets32,
}

/// A hint.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hint {
    /// 1.
    pub version: u64,
    /// What is hinted at.
    pub said: Hinted,
}

/// A question for heads.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeadsAsked {
    /// Of which logs; all that the other side holds when empty.
    pub origins: Vec<String>,
}

/// A question for entries.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RangeAsked {
    /// Of which log.
    pub origin: String,
    /// The first one wanted.
    pub from: u64,
    /// One past the last one wanted.
    pub to: u64,
}

/// A question for objects that entries refer to.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectsAsked {
    /// The log whose entries refer to them.
    pub origin: String,
    /// SHA-256 of each.
    pub hashes: Vec<Octets32>,
}

/// Cosignatures handed over.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cosigned {
    /// The log whose head it is: the receiver's.
    pub origin: String,
    /// A note with the head's text, and the sender's cosignatures for lines.
    pub note: String,
}

/// A question for a consistency proof.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsistencyAsked {
    /// Of which log.
    pub origin: String,
    /// The tree that the asker knows.
    pub old: u64,
    /// The head that it would like to be led to.
    pub new: u64,
}

/// What is asked.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Asked {
    /// What do you hold? Answered by [`Said::Heads`].
    #[rasn(tag(context, 0))]
    Heads(HeadsAsked),
    /// Answered by [`Said::Range`].
    #[rasn(tag(context, 1))]
    Range(RangeAsked),
    /// Answered by [`Said::Objects`].
    #[rasn(tag(context, 2))]
    Objects(ObjectsAsked),
    /// Answered by [`Said::Taken`].
    #[rasn(tag(context, 3))]
    Cosigned(Cosigned),
    /// Answered by [`Said::Consistency`].
    #[rasn(tag(context, 4))]
    Consistency(ConsistencyAsked),
    /// DER of a fork proof, handed over. Answered by [`Said::Taken`].
    #[rasn(tag(context, 5))]
    Fork(OctetString),
    /// The fork proof of this log, after a hint. Answered by [`Said::Fork`].
    #[rasn(tag(context, 6))]
    ForkOf(HeadsAsked),
    /// Does your TPM still vouch for you? Answered by [`Said::Challenge`].
    #[rasn(tag(context, 7))]
    Challenge(Challenge),
    /// An offer to have a head anchored, answered by [`Said::Site`]; or what came of it, answered by [`Said::Taken`].
    #[rasn(tag(context, 9))]
    Site(SiteAsked),
    /// What comes after a version of the fleet's roster. Answered by [`Said::Roster`].
    #[rasn(tag(context, 11))]
    Roster(RosterAsked),
}

/// A question.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// 1.
    pub version: u64,
    /// What is asked.
    pub asked: Asked,
}

/// What is held of one log.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Held {
    /// The log.
    pub origin: String,
    /// Its newest head that the sender knows to be consistent: a checkpoint note.
    pub head: String,
    /// Entries that are durable there.
    pub entries: u64,
    /// The log is known to have forked.
    pub frozen: bool,
}

/// Entries, and what proves them.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RangeSaid {
    /// The log.
    pub origin: String,
    /// Index of the first entry.
    pub from: u64,
    /// The entries; at least one, perhaps fewer than asked for.
    pub entries: Vec<OctetString>,
    /// Consistency proof from the tree that ends with the last of them to the head.
    pub proof: Vec<Octets32>,
    /// A head that covers them: a checkpoint note.
    pub head: String,
}

/// Objects.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectsSaid {
    /// Of those asked for, in any order; SHA-256 says which is which.
    pub found: Vec<OctetString>,
    /// Those that the sender does not hold. What is in neither list is asked for again.
    pub lacking: Vec<Octets32>,
}

/// A consistency proof, and what its two ends are.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsistencySaid {
    /// The log.
    pub origin: String,
    /// The size asked about.
    pub old: u64,
    /// What the sender's tree was at that size. When it is not what the asker's was, the log has forked.
    pub root: Octets32,
    /// From there to the head.
    pub proof: Vec<Octets32>,
    /// A checkpoint note of at least that size.
    pub head: String,
}

/// A question that is not answered.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refused {
    /// Name of a [`Refusal`].
    pub code: String,
    /// When it may be worth asking again.
    #[rasn(tag(context, 0))]
    pub after_millis: Option<u64>,
}

/// What is answered.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Said {
    /// One of each log, in ascending order of origins.
    #[rasn(tag(context, 0))]
    Heads(Vec<Held>),
    /// Entries.
    #[rasn(tag(context, 1))]
    Range(RangeSaid),
    /// Objects.
    #[rasn(tag(context, 2))]
    Objects(ObjectsSaid),
    /// What was handed over has been judged and kept.
    #[rasn(tag(context, 3))]
    Taken(()),
    /// A proof.
    #[rasn(tag(context, 4))]
    Consistency(ConsistencySaid),
    /// DER of a fork proof.
    #[rasn(tag(context, 5))]
    Fork(OctetString),
    /// No.
    #[rasn(tag(context, 6))]
    Refused(Refused),
    /// Who vouches.
    #[rasn(tag(context, 7))]
    Challenge(ChallengeSaid),
    /// The head that is to be anchored.
    #[rasn(tag(context, 9))]
    Site(SiteWish),
    /// What comes after the version asked about.
    #[rasn(tag(context, 11))]
    Roster(RosterSaid),
}

/// An answer.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Answer {
    /// 1.
    pub version: u64,
    /// What is answered.
    pub said: Said,
}

/// Why a question is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The bytes are no question of this version.
    Malformed,
    /// They are of another version.
    Version,
    /// The log is none of which this box holds anything, or is not told of.
    UnknownLog,
    /// It does not hold that much, or has no head that covers it.
    NotHeld,
    /// The log has forked; what is held is served, nothing more is taken.
    Frozen,
    /// Too many questions at a time.
    Busy,
    /// What was handed over does not verify.
    NotGenuine,
    /// A cosignature or a challenge names a tree that the log never had.
    OtherTree,
    /// The answer would not fit.
    TooLarge,
    /// The disk or the keys fail.
    Failing,
    /// The challenge is of another pair of boxes than the two that speak.
    OtherPeer,
    /// The TPM does not answer now.
    Unavailable,
    /// The TPM is not the one that the log names.
    OtherTpm,
    /// It is not for boxes of that fleet.
    NotAllowed,
    /// The version of the roster that was named is not of the one that is held.
    OtherRoster,
    /// Nothing of the log waits for an anchor, or the box asks by itself.
    NotNeeded,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 16] = [
        Refusal::Malformed,
        Refusal::Version,
        Refusal::UnknownLog,
        Refusal::NotHeld,
        Refusal::Frozen,
        Refusal::Busy,
        Refusal::NotGenuine,
        Refusal::OtherTree,
        Refusal::TooLarge,
        Refusal::Failing,
        Refusal::OtherPeer,
        Refusal::Unavailable,
        Refusal::OtherTpm,
        Refusal::NotAllowed,
        Refusal::OtherRoster,
        Refusal::NotNeeded,
    ];

    /// The stable code.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Version => "version",
            Refusal::UnknownLog => "unknown-log",
            Refusal::NotHeld => "not-held",
            Refusal::Frozen => "frozen",
            Refusal::Busy => "busy",
            Refusal::NotGenuine => "not-genuine",
            Refusal::OtherTree => "other-tree",
            Refusal::TooLarge => "too-large",
            Refusal::Failing => "failing",
            Refusal::OtherPeer => "other-peer",
            Refusal::Unavailable => "unavailable",
            Refusal::OtherTpm => "other-tpm",
            Refusal::NotAllowed => "not-allowed",
            Refusal::OtherRoster => "other-roster",
            Refusal::NotNeeded => "not-needed",
        }
    }

    /// The refusal of this code, if this version has it; another one is a no like any other.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| refusal.name() == name)
    }
}

/// DER of the version that is first in every message.
const VERSION_1: &[u8] = &[0x02, 0x01, 0x01];

/// Reads a message whose first element is its version; one of another version is told apart from rubbish.
fn read<T: Decode + Encode>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, MessageError> {
    if bytes.len() > limit {
        return Err(DerError::TooLong { what, length: bytes.len(), limit }.into());
    }
    let sequence = bytes.first() == Some(&0x30);
    match der::first_element(bytes).filter(|_| sequence) {
        Some(first) if first != VERSION_1 && first.first() == Some(&0x02) => Err(MessageError::Version),
        _ => Ok(der::decode(what, bytes, limit)?),
    }
}

fn range(reason: &'static str) -> MessageError {
    DerError::Range { what: "message between peers", reason }.into()
}

/// A condition, and what is wrong when it does not hold.
pub(super) fn demand(holds: bool, reason: &'static str) -> Result<(), MessageError> {
    if holds { Ok(()) } else { Err(range(reason)) }
}

pub(super) fn check_origin(origin: &str) -> Result<(), MessageError> {
    demand(Origin::parse(origin).is_ok(), "a log's name is no origin")
}

/// The size that a head of the log states.
pub(super) fn check_head(origin: &str, head: &str) -> Result<u64, MessageError> {
    check_origin(origin)?;
    let (stated, size, _) = stated(head)?;
    demand(stated == origin, "a head is of another log than it is said to be")?;
    Ok(size)
}

fn is_ascending<T: Ord>(items: impl Iterator<Item = T>) -> bool {
    items.is_sorted_by(|a, b| a < b)
}

impl Hint {
    /// A hint at the newest head.
    pub fn head(note: &SignedNote) -> Self {
        Hint { version: 1, said: Hinted::Head(note.encode()) }
    }

    /// A hint at a proof.
    pub fn fork(origin: &Origin, proof: Hash) -> Self {
        let hint = ForkHint { origin: origin.to_string(), proof: Octets32::new(proof.0) };
        Hint { version: 1, said: Hinted::Fork(hint) }
    }

    /// A hint at a version of the roster.
    pub fn roster(known: RosterKnown) -> Self {
        Hint { version: 1, said: Hinted::Roster(known) }
    }

    /// Reads a hint.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let hint: Hint = read("hint", bytes, HINT_BYTES_MAX)?;
        match &hint.said {
            Hinted::Head(head) => check_origin(&stated(head)?.0)?,
            Hinted::Fork(fork) => check_origin(&fork.origin)?,
            Hinted::Roster(known) => known.check()?,
        }
        Ok(hint)
    }

    /// The hint's bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }
}

impl Question {
    /// A question of this version.
    pub fn new(asked: Asked) -> Self {
        Question { version: 1, asked }
    }

    /// Reads a question.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let question: Question = read("question", bytes, QUESTION_BYTES_MAX)?;
        match &question.asked {
            Asked::Heads(HeadsAsked { origins }) => {
                demand(origins.len() <= LOGS_MAX, "it asks about more than 256 logs")?;
                demand(is_ascending(origins.iter()), "the logs asked about are not in ascending order")?;
                origins.iter().try_for_each(|origin| check_origin(origin))?;
            }
            Asked::ForkOf(HeadsAsked { origins }) => {
                demand(origins.len() == 1, "it asks for the proof of not exactly one log")?;
                origins.iter().try_for_each(|origin| check_origin(origin))?;
            }
            Asked::Range(asked) => {
                check_origin(&asked.origin)?;
                demand(asked.from < asked.to && asked.to <= NUMBER_MAX, "it asks for a range of nothing")?;
            }
            Asked::Objects(asked) => {
                check_origin(&asked.origin)?;
                demand((1..=OBJECTS_MAX).contains(&asked.hashes.len()), "it asks for 0 or too many objects")?;
                demand(
                    is_ascending(asked.hashes.iter()),
                    "the objects asked for are not in ascending order",
                )?;
            }
            Asked::Cosigned(Cosigned { origin, note }) => {
                let size = check_head(origin, note)?;
                demand(size > 0, "a cosigned head is empty")?;
            }
            Asked::Consistency(asked) => {
                check_origin(&asked.origin)?;
                let fine = 0 < asked.old && asked.old <= asked.new && asked.new <= NUMBER_MAX;
                demand(fine, "it asks for a proof from nothing, or backwards")?;
            }
            Asked::Challenge(challenge) => challenge.check()?,
            Asked::Site(asked) => asked.check()?,
            Asked::Fork(proof) => demand(proof.len() <= FORK_BYTES_MAX, "a fork proof is too long")?,
            Asked::Roster(asked) => asked.known.as_ref().map_or(Ok(()), RosterKnown::check)?,
        }
        Ok(question)
    }

    /// The question's bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }
}

impl Cosigned {
    /// The note, taken apart: its text is the head's, its lines are what the sender cosigned.
    pub fn read(&self) -> Result<SignedNote, NoteError> {
        SignedNote::parse(&self.note)
    }
}

impl Answer {
    /// An answer of this version.
    pub fn new(said: Said) -> Self {
        Answer { version: 1, said }
    }

    /// A refusal.
    pub fn refused(why: Refusal, after_millis: Option<u64>) -> Self {
        Answer::new(Said::Refused(Refused { code: why.name().to_owned(), after_millis }))
    }

    /// Reads an answer. Whether it answers what was asked, the asker sees.
    pub fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let answer: Answer = read("answer", bytes, ANSWER_BYTES_MAX)?;
        match &answer.said {
            Said::Heads(held) => {
                demand(held.len() <= LOGS_MAX, "it tells of more than 256 logs")?;
                demand(
                    is_ascending(held.iter().map(|held| &held.origin)),
                    "logs are not in ascending order",
                )?;
                for held in held {
                    check_head(&held.origin, &held.head)?;
                    demand(held.entries <= NUMBER_MAX, "a number is above 2^63 - 1")?;
                }
            }
            Said::Range(said) => said.check()?,
            Said::Objects(said) => {
                let (found, lacking) = (said.found.len(), said.lacking.len());
                demand(found + lacking > 0 && found <= OBJECTS_MAX, "it has 0 or too many objects")?;
                demand(lacking <= OBJECTS_MAX, "it lacks too many objects")?;
                let small = said.found.iter().all(|object| object.len() <= OBJECT_BYTES_MAX);
                demand(small, "an object is longer than 2 MiB")?;
                demand(is_ascending(said.lacking.iter()), "what is lacking is not in ascending order")?;
            }
            Said::Taken(()) => {}
            Said::Consistency(said) => {
                let size = check_head(&said.origin, &said.head)?;
                demand(0 < said.old && said.old <= size, "its head is smaller than what it leads from")?;
                demand(said.proof.len() <= PATH_MAX, "a proof is longer than 64 hashes")?;
            }
            Said::Fork(proof) => demand(proof.len() <= FORK_BYTES_MAX, "a fork proof is too long")?,
            Said::Challenge(said) => said.check()?,
            Said::Site(wish) => wish.check()?,
            Said::Roster(said) => said.check()?,
            Said::Refused(refused) => {
                let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                let short = (1..=32).contains(&refused.code.len()) && refused.code.bytes().all(plain);
                demand(short, "a refusal's code is not 1 to 32 of a-z, 0-9 and -")?;
                demand(refused.after_millis <= Some(NUMBER_MAX), "a number is above 2^63 - 1")?;
            }
        }
        Ok(answer)
    }

    /// The answer's bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }
}

/// Why entries are not what their head says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// They begin elsewhere than the tree that they are to extend ends.
    #[error("the entries begin at {found}, the copy ends at {expected}")]
    Elsewhere {
        /// Where the copy ends.
        expected: u64,
        /// Where they begin.
        found: u64,
    },
    /// They do not lead to the head.
    #[error(transparent)]
    Proof(#[from] ProofError),
}

impl RangeSaid {
    fn check(&self) -> Result<(), MessageError> {
        let size = check_head(&self.origin, &self.head)?;
        demand((1..=ENTRIES_MAX).contains(&self.entries.len()), "it has no entries, or more than 4096")?;
        let short = self.entries.iter().all(|entry| (1..=ENTRY_BYTES_MAX).contains(&entry.len()));
        demand(short, "an entry is empty or longer than 65535 bytes")?;
        let end = self.from.checked_add(self.entries.len() as u64);
        demand(end.is_some_and(|end| end <= size), "its head does not cover its entries")?;
        demand(self.proof.len() <= PATH_MAX, "a proof is longer than 64 hashes")
    }

    /// The tree that `held` becomes with these entries, when it leads to `head`; nothing is stored before.
    pub fn extend(&self, held: &Frontier, head: &Checkpoint) -> Result<Frontier, RangeError> {
        if self.from != held.size() {
            return Err(RangeError::Elsewhere { expected: held.size(), found: self.from });
        }
        let mut tree = held.clone();
        self.entries.iter().for_each(|entry| tree.append(leaf_hash(entry)));
        let proof: Vec<Hash> = self.proof.iter().map(|hash| Hash(**hash)).collect();
        verify_consistency(tree.size(), &tree.root(), head.size(), &head.root(), &proof)?;
        Ok(tree)
    }
}

impl ConsistencySaid {
    /// Checks that the tree it says the log had leads to `head`.
    pub fn leads(&self, head: &Checkpoint) -> Result<(), ProofError> {
        let proof: Vec<Hash> = self.proof.iter().map(|hash| Hash(**hash)).collect();
        verify_consistency(self.old, &Hash(*self.root), head.size(), &head.root(), &proof)
    }
}

// A head of the most lines fits into a hint.
const _: () = assert!(HEAD_BYTES_MAX + 64 <= HINT_BYTES_MAX && NOTE_LINES_MAX == 16);

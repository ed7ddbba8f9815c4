//! What happens to the gossip machine, and what it wants done.

use super::types::{CopyStart, CosignerState, Head, Name};
use bulla_formats::hash::Hash;
use bulla_formats::peer::challenge::{Boot, Distrust};
use bulla_formats::witness::Role;

/// An authentic head of a log, and who told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The log.
    pub origin: Name,
    /// Who told.
    pub from: Name,
    /// The head, verified by the log's key.
    pub head: Head,
    /// How many entries the teller says it holds; 0 when it does not say.
    pub holds: u64,
    /// The root that this box's own copy (or own log) has at that size, if it is so large.
    pub ours: Option<Hash>,
}

/// How a question failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or no connection.
    Silence,
    /// A refusal; perhaps with a time after which to ask again.
    Refused {
        /// Milliseconds.
        after: Option<u64>,
    },
    /// What was answered does not verify, or is no answer to what was asked.
    False,
    /// This box's own disk or keys.
    Own,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipEvent {
    /// Time has passed.
    Tick,
    /// The own log has grown. Told before anybody outside can see its new checkpoint.
    Own {
        /// Its head.
        head: Head,
        /// One past the newest entry that is no mirror entry.
        worth: u64,
        /// Lamport time of its newest entry.
        lamport: u64,
    },
    /// Somebody waits until the tree of this size is mirrored.
    Awaited {
        /// One past the entry.
        size: u64,
    },
    /// Whom to trust from now on.
    Peers(Vec<Name>),
    /// Of whose logs, of those in [`GossipEvent::Peers`], no copy is to be held: they are witnessed, and nothing else.
    WitnessOnly(Vec<Name>),
    /// What is on the disk of a log whose box was not trusted so far. It counts while nothing else is known of the log.
    TakenUp(CopyStart),
    /// A peer can be asked.
    Connected(Name),
    /// It cannot.
    Disconnected(Name),
    /// A head was hinted at or answered.
    Seen(Seen),
    /// All heads of an answer have been told.
    HeadsRead {
        /// The question's ticket.
        ticket: u64,
    },
    /// Entries came whose root leads to an authentic head.
    Verified {
        /// The question's ticket.
        ticket: u64,
        /// What the copy becomes with them.
        copy: Head,
        /// The head that they lead to.
        head: Head,
    },
    /// They are durable.
    Stored {
        /// The question's ticket.
        ticket: u64,
        /// Objects that entries refer to are missing.
        lacking: bool,
        /// The highest Lamport time among the new entries.
        lamport: u64,
    },
    /// Objects came, and are durable.
    Objects {
        /// The question's ticket.
        ticket: u64,
        /// How many.
        got: u64,
        /// Others are still missing.
        lacking: bool,
    },
    /// A consistency proof came and leads to an authentic head.
    Consistent {
        /// The question's ticket.
        ticket: u64,
        /// The root that it begins with.
        root: Hash,
        /// The head it leads to.
        head: Head,
    },
    /// What was handed over has been taken.
    Taken {
        /// The question's ticket.
        ticket: u64,
    },
    /// A question brought nothing; or what it brought could not be stored.
    Failed {
        /// Its ticket.
        ticket: u64,
        /// How.
        failure: Failure,
    },
    /// A cosigner's state is durable.
    Persisted {
        /// The effect's ticket.
        ticket: u64,
    },
    /// Nobody knows whether it is.
    NotPersisted {
        /// The effect's ticket.
        ticket: u64,
    },
    /// A peer has cosigned a head of this box's log; verified by the peer's card.
    Cosigned {
        /// Which peer.
        from: Name,
        /// As what.
        role: Role,
        /// The head.
        head: Head,
        /// The own log has that root at that size.
        ours: bool,
    },
    /// The mirror entry is durable.
    Logged {
        /// The effect's ticket.
        ticket: u64,
    },
    /// It is not, as far as anybody knows.
    NotLogged {
        /// The effect's ticket.
        ticket: u64,
    },
    /// A proof that a log has forked was verified, and is kept.
    Forked {
        /// The log.
        origin: Name,
    },
    /// A peer says that it has one.
    ForkHinted {
        /// The log.
        origin: Name,
        /// The peer.
        from: Name,
    },
    /// This box has an outage, or not any more.
    Outage(bool),
    /// A neighbour's answer to a challenge was verified.
    Vouched {
        /// The question's ticket.
        ticket: u64,
        /// What its TPM quoted; nothing for a box without TPM.
        boot: Option<Boot>,
    },
    /// It does not hold.
    Disowned {
        /// The question's ticket.
        ticket: u64,
        /// Why.
        why: Distrust,
    },
    /// A neighbour's boot is durable.
    BootKept {
        /// The effect's ticket.
        ticket: u64,
    },
    /// Nobody knows whether it is.
    BootNotKept {
        /// The effect's ticket.
        ticket: u64,
    },
    /// What is durable of the boot of a peer that was not trusted so far.
    BootKnown {
        /// The peer.
        peer: Name,
        /// Its boot.
        boot: Boot,
    },
    /// An operator accepts whatever boot this peer shows next; what was known of it is forgotten durably.
    BootAccepted(Name),
    /// A peer challenges this box.
    Challenged {
        /// The peer.
        from: Name,
        /// Names it in the effect.
        call: u64,
    },
    /// The TPM has quoted, or has failed to.
    QuoteDone {
        /// The effect's call.
        call: u64,
    },
}

/// What a peer is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// What it holds. Each head is told as [`GossipEvent::Seen`], then [`GossipEvent::HeadsRead`].
    Heads,
    /// Entries.
    Range {
        /// Of which log.
        origin: Name,
        /// The first one.
        from: u64,
        /// One past the last one.
        to: u64,
    },
    /// Objects that are missing; the shell knows which.
    Objects {
        /// Of which log.
        origin: Name,
    },
    /// A consistency proof.
    Consistency {
        /// Of which log.
        origin: Name,
        /// From this size.
        old: u64,
        /// To this one, if it can.
        new: u64,
    },
    /// To take cosignatures of its own log's head, which are made now: the state that allows them is durable.
    Cosigned {
        /// The head.
        head: Head,
        /// By the witness key.
        witness: bool,
        /// By the mirror key.
        mirror: bool,
    },
    /// To take the proof that a log has forked.
    Fork {
        /// The log.
        origin: Name,
    },
    /// For the proof that a log has forked.
    ForkOf {
        /// The log.
        origin: Name,
    },
    /// To have its TPM vouch for it. The nonce is drawn when it is asked.
    Challenge,
}

/// Who holds how much of the own log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The peer.
    pub peer: Name,
    /// The newest head it cosigned as a mirror.
    pub mirrored: Option<Head>,
    /// The newest head it cosigned as a witness.
    pub witnessed: Option<Head>,
}

/// What the peers know of a box that starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody answered in time.
    Nobody,
    /// Nobody knows more than this box.
    Equal,
    /// A peer holds a head, signed by this box, that its log does not have: the disk is an older one, or another.
    Behind {
        /// The head.
        head: Head,
        /// The peer.
        from: Name,
    },
}

/// What people should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A peer's answer about a log does not hold. It is left alone for a while.
    Lied {
        /// The peer.
        peer: Name,
        /// The log.
        origin: Name,
    },
    /// Nobody can prove that this signed head extends the copy.
    Unproven {
        /// The log.
        origin: Name,
        /// The head.
        head: Head,
    },
    /// A peer has cosigned a tree that the own log never had.
    OtherTree {
        /// The peer.
        peer: Name,
        /// The tree.
        head: Head,
    },
    /// A log has forked; its copy is frozen, durably.
    Forked {
        /// The log.
        origin: Name,
    },
    /// There is a proof that the own log has forked.
    OwnForked,
    /// A neighbour's TPM does not vouch for what it was.
    Distrusted {
        /// The neighbour.
        peer: Name,
        /// Why.
        why: Distrust,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GossipEffect {
    /// Hint everybody at the newest head of the own log.
    Hint,
    /// Hint everybody at the proof of a fork.
    HintFork {
        /// The log.
        origin: Name,
    },
    /// Ask a peer.
    Ask {
        /// Names it in the answer.
        ticket: u64,
        /// Whom.
        peer: Name,
        /// What.
        ask: Ask,
        /// How long to wait.
        timeout: u64,
    },
    /// Store the verified entries, then say so.
    Store {
        /// The question's ticket.
        ticket: u64,
        /// The log.
        origin: Name,
        /// The signed head that the copy then covers exactly; its note is kept with it.
        reached: Option<Head>,
    },
    /// Make a cosigner's state durable with the notes of its heads, then say so. Nothing it allows is signed before.
    Persist {
        /// Names it in the answer.
        ticket: u64,
        /// The log.
        origin: Name,
        /// The state.
        state: CosignerState,
    },
    /// Others hold more of the own log than before: see [`super::Gossip::mirrored`] and [`super::Gossip::witnessed`].
    Counted,
    /// Append a mirror entry.
    LogMirror {
        /// Names it in the answer.
        ticket: u64,
        /// Who holds how much.
        holders: Vec<Holder>,
    },
    /// Two signed heads cannot both be true. Make the proof: from the copy's tree, or from the answer just reported.
    ProveFork {
        /// The log.
        origin: Name,
        /// A head.
        one: Head,
        /// Another.
        other: Head,
    },
    /// What the peers know of this box. May come again, as behind, whenever a peer turns up that has seen more.
    Standing(Standing),
    /// The Lamport time of the own log goes on from here.
    Lamport {
        /// The next entry's is larger.
        time: u64,
    },
    /// Tell people.
    Report(Finding),
    /// Make a neighbour's boot durable, then say so. The neighbour counts as fresh only then.
    KeepBoot {
        /// Names it in the answer.
        ticket: u64,
        /// The neighbour.
        peer: Name,
        /// Its boot.
        boot: Boot,
    },
    /// Append an entry that says how a neighbour's answers have changed, then say so.
    LogTrust {
        /// Names it in the answer.
        ticket: u64,
        /// The neighbour.
        peer: Name,
        /// What the log says of it so far.
        before: Option<Distrust>,
        /// What is so now; good for `None`.
        why: Option<Distrust>,
    },
    /// Have the own TPM vouch, answer, and say when it is done.
    Quote {
        /// Whose challenge.
        call: u64,
    },
    /// Refuse a challenge as busy.
    Busy {
        /// Whose challenge.
        call: u64,
        /// Milliseconds after which to ask again.
        after: u64,
    },
}

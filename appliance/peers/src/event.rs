//! What a wire says to whoever listens.

use crate::error::{AskFailure, ReplyError};
use crate::key::PeerKey;
use std::fmt;
use tokio::sync::oneshot;

/// Names one request of ours; never used twice by one wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AskId(pub u64);

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// This is an address at which peers reach us.
    Listening {
        /// As a multiaddr, without our key.
        address: String,
    },
    /// A peer is there and has let us in, too.
    Connected {
        /// Which one.
        peer: PeerKey,
    },
    /// A peer is not there any more.
    Disconnected {
        /// Which one.
        peer: PeerKey,
        /// Why.
        why: Gone,
    },
    /// A peer has told everybody something.
    Hint {
        /// Who signed it; not who passed it on.
        from: PeerKey,
        /// What.
        bytes: Vec<u8>,
    },
    /// A peer asks us.
    Asked {
        /// Who.
        from: PeerKey,
        /// What.
        bytes: Vec<u8>,
        /// How it is answered. Dropped: the peer is told that there is no answer.
        reply: Reply,
    },
    /// A request of ours has come to its end.
    Answered {
        /// Which one.
        id: AskId,
        /// Who was asked.
        peer: PeerKey,
        /// The answer, or why there is none.
        result: Result<Vec<u8>, AskFailure>,
    },
    /// Somebody was refused something. Reported at most every ten seconds for one peer and reason.
    Refused {
        /// Who, as far as a handshake has shown it.
        peer: Option<PeerKey>,
        /// Where from.
        address: Option<String>,
        /// What for.
        why: Refusal,
        /// How often since the last report of it.
        times: u64,
    },
    /// A peer of the list says that it is reached there, too; its own word, over its own connection.
    AddressSeen {
        /// Who.
        peer: PeerKey,
        /// Where.
        address: String,
    },
}

/// Why a peer is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// It closed the connection, or its process ended.
    Closed,
    /// It does not answer: a cut cable, a dead or frozen machine.
    Silent,
    /// The address of ours that it was reached from is gone.
    AddressLost,
    /// It was taken off the list.
    Unlisted,
    /// It flooded us and is shut out for a while.
    ShutOut,
}

/// What somebody was refused for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not on our list.
    Unknown,
    /// A neighbour that does not let us in: we are not on its list.
    NotLetIn,
    /// Too many connections, or too fast.
    TooManyConnections,
    /// A connection that never got through the handshake.
    Handshake,
    /// Behind an address of the list answers somebody else.
    WrongPeer,
    /// A hint of somebody who is not on the list, or with a broken signature.
    ForeignHint,
    /// More hints than allowed.
    TooManyHints,
    /// More requests than allowed.
    TooManyRequests,
    /// A request that breaks the limits, or never came whole.
    BrokenRequest,
    /// So much of the above that the peer is shut out for a while.
    Flood,
}

impl Refusal {
    /// In words, for logs and status.
    pub const fn words(self) -> &'static str {
        match self {
            Refusal::Unknown => "it is not on the list of neighbours",
            Refusal::NotLetIn => "it closes the connection at once: this box is not on its list",
            Refusal::TooManyConnections => "too many connections, or too fast",
            Refusal::Handshake => "it never got through the handshake",
            Refusal::WrongPeer => "somebody else answers behind its address",
            Refusal::ForeignHint => "a hint that no neighbour signed",
            Refusal::TooManyHints => "more hints than allowed",
            Refusal::TooManyRequests => "more requests than allowed",
            Refusal::BrokenRequest => "a request that breaks the limits or never came whole",
            Refusal::Flood => "it floods us and is shut out for a while",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// The one way to answer a request.
#[derive(Debug)]
pub struct Reply {
    pub(crate) sender: oneshot::Sender<Vec<u8>>,
    pub(crate) bytes_max: usize,
}

impl Reply {
    /// Answers. An error means that no answer is on its way.
    pub fn answer(self, bytes: Vec<u8>) -> Result<(), ReplyError> {
        if bytes.len() > self.bytes_max {
            return Err(ReplyError::TooLong { bytes: bytes.len(), most: self.bytes_max });
        }
        self.sender.send(bytes).map_err(|_| ReplyError::Gone)
    }

    /// How long an answer may be.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }
}

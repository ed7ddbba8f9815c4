//! What can go wrong, in words: what, why, what to do. One enum per operation.

use crate::key::PeerKey;
use thiserror::Error;

/// A configuration or a list of neighbours that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// An address that is not `/ip4/../tcp/..` or `/ip6/../tcp/..`.
    #[error(
        "`{0}` is no address of a peer: write it as /ip4/192.0.2.1/tcp/7440 or /ip6/2001:db8::1/tcp/7440"
    )]
    Address(String),
    /// A neighbour's key is no point of the curve.
    #[error("the libp2p key {0} of a neighbour is no Ed25519 key: take its card anew")]
    Key(PeerKey),
    /// The same neighbour twice.
    #[error("the neighbour {0} is on the list twice: leave one of them")]
    Twice(PeerKey),
    /// Our own key among the neighbours.
    #[error("this box itself ({0}) is among its neighbours: take it off the list")]
    Own(PeerKey),
    /// More neighbours than allowed.
    #[error("{given} neighbours are more than the {most} that one box talks to: shorten the list")]
    TooMany {
        /// How many there are.
        given: usize,
        /// How many there may be.
        most: usize,
    },
    /// A limit of zero, or one that makes others impossible.
    #[error("the limit {0} cannot be zero: nothing would ever pass")]
    Limit(&'static str),
}

/// Why a wire did not start. Nothing of it is left behind.
#[derive(Debug, Error)]
pub enum StartError {
    /// What was asked for cannot be meant.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address on which nobody can listen.
    #[error(
        "cannot listen for peers on {address} ({why}): is another program there, is it an address of this machine?"
    )]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        why: String,
    },
    /// Multicast is not to be had.
    #[error(
        "cannot look for peers by multicast DNS ({0}): switch it off, or give every neighbour an address"
    )]
    Mdns(std::io::Error),
    /// libp2p refuses what we ask for.
    #[error("libp2p does not start: {0}; this is a defect, please report it")]
    Library(String),
}

/// A command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BusyError {
    /// Too much waits already.
    #[error("too much waits for the peers already: try again when an answer has come")]
    Full,
    /// Longer than the limit.
    #[error("{bytes} bytes are more than the {most} that peers take: send less at a time")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// The wire has stopped.
    #[error("the wire to the peers has stopped: start it anew")]
    Stopped,
}

/// Why a request has no answer. Whether the other side acted on it is not known, except where it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AskFailure {
    /// No connection to this peer now. It was not sent.
    #[error("the peer is not connected: ask again when it is")]
    NotConnected,
    /// The connection ended first.
    #[error("the connection ended before the answer came: ask again")]
    Cut,
    /// Nothing, or not all, within the time allowed.
    #[error("no whole answer within the time allowed: ask for less, or ask again later")]
    Late,
    /// The other side has too much to do; it did not look at the request.
    #[error("the peer has too much to do: ask again later, and less often")]
    Busy,
    /// The other side has read the request and gives no answer.
    #[error("the peer gives no answer to this request: ask another one")]
    Declined,
    /// The other side does not speak this protocol.
    #[error("the peer speaks another version: bring both boxes to the same one")]
    OtherVersion,
    /// What came breaks the framing or its limits.
    #[error("the peer's answer breaks the limits: it is not to be believed")]
    Broken,
}

/// An answer was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ReplyError {
    /// Longer than the limit; the asker is told that there is no answer.
    #[error("{bytes} bytes are more than the {most} that an answer may have: give less")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        most: usize,
    },
    /// Whoever asked is gone.
    #[error("nobody waits for this answer any more")]
    Gone,
}

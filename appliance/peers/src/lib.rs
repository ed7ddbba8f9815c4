//! The wire between boxes: libp2p behind a channel.
//!
//! Start reading at [`Wire::start`] (what may be said to it) and [`Event`] (what it says), then `task.rs` (the loop
//! between the two), `dialer.rs` (who calls whom, and when again), `links.rs` (which of two connections stays).
//!
//! What it moves is opaque: hints to everybody (gossip, lost freely) and requests with one answer each (the truth). It knows
//! Ed25519 public keys, addresses and byte limits, and no format of ours.
//!
//! Refuses: to talk to anybody who is not on the list; to hold more for a peer than [`Limits`] say; to decide anything.
//!
//! - Whoever is not on the list gets through no handshake: the connection ends before a stream of it is served.
//! - Every queue has a bound. Who reads no events loses hints, and has requests refused as busy; nothing grows.
//! - What one peer does, or leaves undone, takes time and memory from that peer only.
//! - No byte of a secret is in an error, an event or a line of the log.
#![forbid(unsafe_code)]

mod addresses;
mod bucket;
mod codec;
mod config;
mod counters;
mod dialer;
mod door;
mod error;
mod event;
mod guard;
mod hints;
mod key;
mod links;
mod neighbourhood;
mod outbox;
mod reports;
mod socket;
mod swarm;
mod task;
mod wire;

pub use config::{Config, Limits, Neighbour};
pub use counters::Counted;
pub use error::{AskFailure, BusyError, ConfigError, ReplyError, StartError};
pub use event::{AskId, Event, Gone, Refusal, Reply};
pub use key::PeerKey;
pub use wire::Wire;

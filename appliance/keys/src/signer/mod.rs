//! The TPM in a process of its own: a program without a network that alone has the device, and the way to it.
//!
//! Who answers the network asks over a Unix socket for what [`crate::KeyService`] offers and nothing else; raw commands to
//! the TPM do not pass. Who may ask is who may open the socket: its directory and mode say so.
//! Invariant: the process holds no state. Each connection brings the wrapped keys that it wants used, which only their
//! TPM can open; a restart of either side loses nothing but what was under way.

mod remote;
mod serve;
pub(crate) mod wire;

pub(crate) use remote::Remote;
pub use serve::{CONNECTIONS_MAX, Signer};

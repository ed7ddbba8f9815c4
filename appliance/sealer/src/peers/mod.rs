//! Who this box is among its neighbours, and who they are: `peers.json` and `neighbours.json` in the state directory.
//!
//! Refuses to do: talk to anybody; `driver::neighbours` does.

mod neighbours;
mod own;

pub use neighbours::{NeighbourStore, Rules, Stamp, refused};
pub use own::{Own, current_card, stored_card};

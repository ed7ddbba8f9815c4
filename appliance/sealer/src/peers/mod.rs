//! Who this box is among its neighbours, and who they are: `peers.json`, `neighbours.json` and `rosters/` in the state
//! directory.
//!
//! Refuses to do: talk to anybody; `driver::neighbours` does.

mod allowed;
mod hubs;
mod neighbours;
mod own;
mod rosters;

pub use allowed::{Allowed, Neighbour, OnDisk, Source, allowed, allowed_on_disk};
pub use hubs::Hubs;
pub use neighbours::{NeighbourStore, Rules, Stamp, refused};
pub use own::{Own, current_card, stored_card};
pub use rosters::{
    Held, Learnt, RosterFault, Rosters, check as check_rosters, on_disk as roster_on_disk,
    seen as roster_seen,
};

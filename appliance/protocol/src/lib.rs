//! The decisions of a box, without doing anything: rollback rule, attestation windows, key epochs, the queue, modes,
//! leases, anchoring, alone and for a site, CRLs, the clock and who is asked for the time, peers; and how versions of a document stand.
//!
//! Refuses to do: I/O, clocks, randomness. Time comes in as an argument; what is to be done comes
//! out as values, *persist* before *after*, so that the shell cannot reorder them and a simulation
//! can crash between any two.
#![forbid(unsafe_code)]

pub mod anchoring;
pub mod authority;
pub mod crl;
pub mod epoch;
pub mod gossip;
pub mod lease;
pub mod mode;
pub mod queue;
pub mod rollback;
pub mod site;
pub mod sources;
pub mod time;
pub mod versions;
pub mod window;

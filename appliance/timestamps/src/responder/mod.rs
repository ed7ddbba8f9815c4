//! The other side of RFC 3161: what an authority reads and writes. Whoever answers is the caller, with its own clock, log
//! and key.
//!
//! Refuses to do: sign (the caller's closure does), choose a time, a serial number or an accuracy; SHA-1 imprints.
//! Invariant: what is written here is DER that [`crate::verify`] reads.

mod answer;
mod query;
mod token;

pub use answer::{granted, rejected};
pub use query::{Imprint, ImprintHash, QUERY_BYTES_MAX, Query, QueryError};
pub use token::{Certificate, Statement, TIME_STAMPING_PURPOSE};

//! Authorities that a test or the demo can have for itself: real ones, whose faults are switches.
//!
//! Everything that is signed as a time stamp is signed by stock OpenSSL, and witnesses check logs with another
//! implementation of the trees than ours; this crate carries what they say over HTTP, late, damaged or not at all.
//! Refuses to do: anything by code that whoever judges it shares. Needs the program `openssl`; a clock that is off needs
//! libfaketime. What is missing is an error that names it.
#![forbid(unsafe_code)]

pub mod faults;
pub mod gate;
pub mod openssl;
pub mod pki;
pub mod roughtime;
pub mod stamps;
pub mod tls;
pub mod tsa;
pub mod witness;

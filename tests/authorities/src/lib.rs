//! Authorities that a test or the demo can have for itself: real ones, whose faults are switches.
//!
//! Everything that is signed as a time stamp is signed by stock OpenSSL; this crate carries it over HTTP, late, damaged
//! or not at all.
//! Refuses to do: stamps by code that the verifier shares. Needs the program `openssl`; a clock that is off needs
//! libfaketime. What is missing is an error that names it.
#![forbid(unsafe_code)]

pub mod gate;
pub mod openssl;
pub mod pki;
pub mod stamps;
pub mod tsa;

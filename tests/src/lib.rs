//! Tests across crates: vectors, tidy checks, and real boxes under real faults.
//!
//! Refuses to do: simulate what can be had for real. A TPM here is a swtpm, a box is the program.

pub mod browser_verifier;
pub mod damage;
pub mod rig;
pub mod vectors;

//! What both `cargo xtask` and the end-to-end tests need: a software TPM of one's own, a box in a directory, programs
//! that never outlive their starter, sample documents.
//!
//! It refuses to guess and to leave anything running. Nothing here links the programs it starts.

pub mod box_fixture;
pub mod child;
pub mod samples;
pub mod swtpm;

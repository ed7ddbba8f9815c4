//! Fuzz targets: one for every group of parsers that read bytes from outside the program that reads them.
//!
//! A target is a plain function that asserts properties; `src/main.rs` wraps one at a time in libFuzzer for `cargo xtask fuzz`, and
//! the tests here call each with its seeds and with every input that once found a bug (`regressions/<target>/`).
//! Refuses to do: find by luck what a seed can show; every target begins from genuine bytes.
//! Invariant: a target's verdict depends on its input alone, but for `http`, whose box remembers.
#![forbid(unsafe_code)]

pub mod corpus;
pub mod genuine;
mod names;
pub mod targets;

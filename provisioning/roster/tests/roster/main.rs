//! Tests of the roster: what boxes and people go through, and the vectors.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod backups;
mod common;
mod story;
mod vectors;

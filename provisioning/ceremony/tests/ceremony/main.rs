//! Tests of the ceremony: whole ceremonies in one room, and the vectors.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;
mod room;
mod vectors;

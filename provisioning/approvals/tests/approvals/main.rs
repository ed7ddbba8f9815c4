//! Tests of approvals: who is counted, what is consumed, and the vectors.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod asks;
mod common;
mod rules;
mod vectors;

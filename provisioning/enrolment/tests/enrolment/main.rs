//! Tests of enrolment: a chip made of known keys, its manufacturer, a registrar, and everybody who would like to cheat.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod boots;
mod certificates;
mod cheats;
mod chip;
mod issuing;
mod maker;
mod scene;
mod staged;
mod steps;
mod vectors;
mod words;

//! Which measurements a machine will make when it boots an image of ours, from the image's files alone.
//!
//! Refuses to do: take a value from a machine that has booted; guess at a file it does not understand.
//! Invariant: what [`log::encode`] writes is an event log as firmware writes it, so whatever reads those reads it.
#![forbid(unsafe_code)]

pub mod boot;
pub mod log;
pub mod pe;

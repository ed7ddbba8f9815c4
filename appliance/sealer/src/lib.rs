//! `bulla-box`: the box of a branch. Seals documents over the LAN, with or without a WAN.
//!
//! The program is a library with a thin `main`, so that fuzz targets reach its parsers. Start reading at
//! `run.rs` (what a running box consists of) and `cli/` (every subcommand).
//! Refuses to do: create state by itself (`init` and `enroll` are acts of their own), or start on a configuration it does
//! not fully understand.
//!
//! Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 somebody else must act first; 4 a rollback is
//! suspected.
#![forbid(unsafe_code)]

mod alerts;
mod announce;
mod api;
mod approved;
mod backup;
mod beginning;
mod cli;
mod clients;
mod config;
mod dial_out;
mod driver;
mod enrolling;
mod fsck;
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod ingest;
mod limits;
mod list_file;
mod on_console;
mod peers;
mod people;
mod problem;
mod random;
mod retirement;
mod retrieve;
mod run;
mod server;
mod staging;
mod state_files;
mod telemetry;
mod tls;
mod trust;

pub use cli::main;

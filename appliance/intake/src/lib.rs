//! Hot folders: scanners write files into a folder, and each complete one is sealed once.
//!
//! Two halves. The pure one decides: [`complete`] (is this file whole?), [`names`] (what is a document, a sidecar, a
//! result?), [`folder`] (what is done with which file, and when), [`key`] (what makes two files the same). The other one
//! carries it out: [`watch`] (inotify, and looking), [`examine`] (reading), [`results`] (what lies beside a document
//! afterwards), [`run`] (the loop). What seals is the user's [`door::Door`]: the agent's boxes, or the box itself.
//! Refuses to do: speak to a network or a TPM; write to a document; follow links; take a file that is still being written.
//! Invariant: a document is handed to the door with a key that follows from its bytes, so that whatever dies in between,
//! handing it in again gives the same seal (G3).
#![forbid(unsafe_code)]

pub mod complete;
pub mod door;
pub mod examine;
pub mod folder;
pub mod key;
pub mod names;
pub mod options;
pub mod results;
pub mod run;
pub mod slip;
pub mod watch;

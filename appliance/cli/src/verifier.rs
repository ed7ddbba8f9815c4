//! `bulla verifier`: writes the browser verifier, for people who have no program to verify with.
//!
//! Refuses to do: change a byte of the page; its SHA-256 is printed, to be compared wherever the file goes.

use crate::exit::{Exit, Failure};
use crate::{files, output};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `bulla verifier`.
#[derive(Debug, Args)]
pub struct VerifierArgs {
    /// Where to write the page, e.g. verify.html; a file there is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the page and prints its SHA-256 as `sha256sum` does.
pub fn run(args: &VerifierArgs) -> Result<Exit, Failure> {
    let shown = args.out.display();
    files::write_atomically(&args.out, bulla_verifier_web::page().as_bytes(), true).map_err(|error| {
        Failure::usage(format!(
            "{shown} cannot be written: {error}; name a file in a directory that you may write to"
        ))
    })?;
    output::print(&format!("{}  {shown}\n", bulla_verifier_web::sha256()));
    Ok(Exit::Ok)
}

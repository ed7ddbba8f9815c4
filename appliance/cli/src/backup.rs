//! `bulla backup`: takes a backup of a running box into a file.
//!
//! The file is encrypted by the box to the recipients of its configuration; this program cannot read it and needs no
//! key. Refuses to do: replace a file; leave a partial backup under the final name.

use crate::client::{BoxClient, BoxOptions};
use crate::exit::{Exit, Failure};
use crate::output;
use clap::Args;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Arguments of `bulla backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write; it must not exist
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    connection: BoxOptions,
}

/// Fetches one backup.
pub fn run(args: &BackupArgs) -> Result<Exit, Failure> {
    let shown = args.out.display();
    if args.out.exists() {
        return Err(Failure::usage(format!("{shown} exists; a backup never replaces a file, name another")));
    }
    let client = BoxClient::new(&args.connection)?;
    let mut partial = args.out.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let fetched = client.post_for_stream("/v1/backups", |body| save(body, &partial, &args.out));
    match fetched {
        Ok(bytes) => {
            output::print(&format!("{shown}: {bytes} bytes, encrypted to the box's backup recipients\n"));
            Ok(Exit::Ok)
        }
        Err(error) => {
            // What came is of no use; that it could not be removed changes nothing about the error.
            let _ = fs::remove_file(&partial);
            Err(error.into_failure(&format!("{shown} was not written")))
        }
    }
}

fn save(body: &mut dyn Read, partial: &Path, to: &Path) -> io::Result<u64> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial)?;
    let bytes = io::copy(body, &mut file)?;
    file.sync_all()?;
    fs::rename(partial, to)?;
    Ok(bytes)
}

//! Configuration files of boxes: laid out for people to approve, kept with the fleet, handed out by their hash.
//!
//! Refuses to do: judge what a file says (the box does, and goes back to the one before when it cannot work with it);
//! carry out a change whose files are not here, which no box could fetch.
//! Invariant: every file that the roster names is in the fleet directory before the roster names it.

use crate::desk::Desk;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::propose::{Proposal, one_box};
use bulla_formats::der::Octets32;
use bulla_formats::hash::{Hash, sha256};
use bulla_roster::deed::{Configured, Deed};
use clap::Args;
use std::path::{Path, PathBuf};

/// Where the fleet directory keeps them, each under its SHA-256 in hex.
const KEPT: &str = "configurations";
/// Longest file in bytes, as boxes read them.
pub const FILE_BYTES_MAX: usize = 65_536;

/// Arguments of `configuration`.
#[derive(Debug, Args)]
pub struct ConfigurationArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Configuration files, each called after its box: SERIAL.toml. `bulla-box check-config` says whether one is accepted
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The box of the one file, whatever it is called
    #[arg(long = "box", value_name = "BOX")]
    which: Option<String>,
    /// A box that goes by the file that lies on it again
    #[arg(long, value_name = "BOX")]
    take_back: Vec<String>,
}

/// `propose configuration`.
pub fn propose(args: &ConfigurationArgs) -> Result<Exit, Failure> {
    if args.files.len() + args.take_back.len() == 0 {
        return Err(Failure::usage("name a configuration file, SERIAL.toml, or a box with --take-back"));
    }
    if args.which.is_some() && args.files.len() != 1 {
        return Err(Failure::usage("--box names the box of one file"));
    }
    let (desk, roster) = args.proposal.open()?;
    let (mut all, mut texts) = (Vec::new(), Vec::new());
    for path in &args.files {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let ek_spki_sha256 = one_box(&roster, args.which.as_ref().unwrap_or(&stem))?.row.ek_spki_sha256;
        let bytes = files::read(path, FILE_BYTES_MAX)?;
        if std::str::from_utf8(&bytes).is_err() {
            let why = format!("{} is no text in UTF-8: no box would read it", path.display());
            return Err(Failure::new(Exit::Refused, why));
        }
        all.push(Configured { ek_spki_sha256, file: Some(Octets32::new(sha256(&[&bytes]).0)) });
        texts.push(bytes);
    }
    for which in &args.take_back {
        all.push(Configured { ek_spki_sha256: one_box(&roster, which)?.row.ek_spki_sha256, file: None });
    }
    all.sort_by_key(|one| one.ek_spki_sha256);
    if let Some(twice) = all.windows(2).find(|two| two[0].ek_spki_sha256 == two[1].ek_spki_sha256) {
        let serial =
            roster.inventory().get(&twice[0].ek_spki_sha256).map(|listed| listed.row.serial.as_str());
        return Err(Failure::usage(format!("the box {} is named twice", serial.unwrap_or_default())));
    }
    for bytes in &texts {
        desk.lay_configuration(bytes)?;
    }
    args.proposal.lay(&desk, &roster, &Deed::Configuration(all))
}

/// The hashes of the files that a deed names.
fn named(deed: &Deed) -> Vec<Hash> {
    let Deed::Configuration(configured) = deed else { return Vec::new() };
    let mut all: Vec<Hash> = configured.iter().filter_map(|one| one.file).map(|file| Hash(*file)).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Shows a person what the files say that they are asked about.
///
/// # Errors
/// One of them is not here: nobody approves what they cannot read.
pub fn show(desk: &Desk, deed: &Deed) -> Result<(), Failure> {
    for hash in named(deed) {
        let bytes = desk.configuration(&hash)?;
        crate::say(&format!("  file      sha256:{hash}\n"));
        for line in String::from_utf8_lossy(&bytes).lines() {
            let printable: String = line.chars().filter(|c| !c.is_control()).collect();
            crate::say(&format!("  | {printable}\n"));
        }
    }
    Ok(())
}

/// Keeps the files that a deed names in the fleet directory `dir`.
///
/// # Errors
/// One is neither there nor in the exchange directory.
pub fn keep(desk: &Desk, dir: &Path, deed: &Deed) -> Result<(), Failure> {
    for hash in named(deed) {
        if kept(dir, &hash)?.is_none() {
            let bytes = desk.configuration(&hash)?;
            files::make_private_dir(&dir.join(KEPT))?;
            files::write(&dir.join(KEPT).join(hash.to_string()), &bytes)?;
        }
    }
    Ok(())
}

/// The file with this hash, if the fleet directory `dir` has it.
///
/// # Errors
/// The file system's. A file that is damaged is not there.
pub fn kept(dir: &Path, hash: &Hash) -> Result<Option<Vec<u8>>, Failure> {
    let bytes = files::read_if_there(&dir.join(KEPT).join(hash.to_string()), FILE_BYTES_MAX)?;
    Ok(bytes.filter(|bytes| sha256(&[bytes]) == *hash).map(|bytes| bytes.to_vec()))
}

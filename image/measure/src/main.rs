//! `bulla-measure`: writes the event log that a boot of an image will have, for `bulla-fleet reference add --log`.
//!
//! Refuses to do: write anything when one of the files is not what it should be.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bulla_appraisal::event_log::EventLog;
use bulla_appraisal::replay::replay;
use bulla_measure::boot::{Guid, SecureBoot, measurements};
use bulla_measure::log::encode;
use clap::Parser;

/// Computes the measurements of a boot (PCR 4, 7 and 11) from an image's files.
#[derive(Parser)]
#[command(
    name = "bulla-measure",
    version,
    about,
    after_help = "Exit codes: 0 done; 1 a file is refused; 2 wrong usage."
)]
struct Cli {
    /// The signed boot loader, as it is on the boot partition
    #[arg(long, value_name = "FILE")]
    loader: PathBuf,
    /// The signed kernel image
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// Directory with PK.crt, KEK.crt and db.crt (PEM)
    #[arg(long, value_name = "DIRECTORY")]
    keys: PathBuf,
    /// GUID under which they are enrolled in the firmware
    #[arg(long, value_name = "GUID", value_parser = guid)]
    owner: Guid,
    /// The firmware's variable dbx (signature lists); without it, an empty one
    #[arg(long, value_name = "FILE")]
    dbx: Option<PathBuf>,
    /// Where to write the event log
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// The first three groups lie in memory with their bytes reversed.
fn guid(text: &str) -> Result<Guid, String> {
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    let bytes = hex::decode(text.replace('-', "")).map_err(|error| error.to_string())?;
    let mut bytes: Guid = bytes.try_into().map_err(|_| "a GUID has 32 hexadecimal digits".to_owned())?;
    if lengths != [8, 4, 4, 4, 12] {
        return Err("a GUID has groups of 8, 4, 4, 4 and 12 digits".to_owned());
    }
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Ok(bytes)
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let [platform, exchange, database] =
        ["PK.crt", "KEK.crt", "db.crt"].map(|name| certificate(&cli.keys.join(name)));
    let (platform, exchange, database) = (platform?, exchange?, database?);
    let forbidden = cli.dbx.as_deref().map(read).transpose()?.unwrap_or_default();
    let keys = SecureBoot {
        owner: cli.owner,
        platform: &platform,
        exchange: &exchange,
        database: &database,
        forbidden: &forbidden,
    };
    let events = measurements(&read(&cli.loader)?, &read(&cli.image)?, &keys)
        .context("the boot loader or the kernel image is refused")?;
    let log = encode(&events);
    let values = replay(&EventLog::parse(&log).context("the log cannot be read back")?);
    fs::write(&cli.out, &log).with_context(|| format!("cannot write {}", cli.out.display()))?;
    for (pcr, value) in values {
        println!("PCR {pcr:>2}  {}", hex::encode(value));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The one certificate of a PEM file.
fn certificate(path: &Path) -> Result<Vec<u8>> {
    let text = String::from_utf8(read(path)?).with_context(|| format!("{} is no text", path.display()))?;
    let inner =
        text.split_once("-----BEGIN CERTIFICATE-----").and_then(|(_, rest)| rest.split_once("-----END"));
    let (inner, _) = inner.with_context(|| format!("{} holds no certificate", path.display()))?;
    let inner: String = inner.split_whitespace().collect();
    STANDARD.decode(inner).with_context(|| format!("{} is not PEM", path.display()))
}

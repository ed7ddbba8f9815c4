//! `bulla-bundle`: makes an update bundle from the parts of an image, on the building machine.
//!
//! In two steps, so that the key may lie anywhere: `message` writes what has to be signed (Ed25519 over these very bytes,
//! `openssl pkeyutl -sign -rawin`), `join` puts signature and parts together. Both are given the same image.
//! Refuses: a signature that is not one of the given public key. Invariant: the same arguments give the same bytes.
#![forbid(unsafe_code)]

use anyhow::{Context, Result, ensure};
use bulla_formats::der::Octets32;
use bulla_formats::update::{Part, Release, Update, UpdateContent};
use clap::{Args, Parser, Subcommand};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Makes update bundles.
#[derive(Parser)]
#[command(name = "bulla-bundle", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Line,
}

#[derive(Subcommand)]
enum Line {
    /// Writes what has to be signed.
    Message {
        #[command(flatten)]
        image: Image,
        /// Where to.
        #[arg(long)]
        out: PathBuf,
    },
    /// Writes the bundle.
    Join {
        #[command(flatten)]
        image: Image,
        /// The signature over the message: 64 bytes.
        #[arg(long)]
        signature: PathBuf,
        /// The public key that it must be of, in hex.
        #[arg(long)]
        key: String,
        /// Where to.
        #[arg(long)]
        out: PathBuf,
    },
}

#[derive(Args)]
struct Image {
    /// Which image it is, e.g. 0.2.0.
    #[arg(long)]
    image: String,
    /// Once it has proven itself, nothing below this starts on a box again.
    #[arg(long)]
    floor: String,
    /// Which machines it is for.
    #[arg(long, default_value = "bulla/x86-64")]
    target: String,
    /// The hash over the whole root, in hex.
    #[arg(long)]
    root_hash: String,
    /// When it was made, Unix seconds.
    #[arg(long)]
    made_at: u64,
    /// The root's file system.
    #[arg(long)]
    root: PathBuf,
    /// The hashes of its blocks.
    #[arg(long)]
    verity: PathBuf,
    /// The signed kernel image.
    #[arg(long)]
    kernel: PathBuf,
}

impl Image {
    fn content(&self) -> Result<UpdateContent> {
        let release = |text: &str| {
            Release::parse(text).with_context(|| format!("{text:?} is no release, such as 0.2.0"))
        };
        let content = UpdateContent {
            version: 1,
            target: self.target.clone(),
            image: release(&self.image)?,
            floor: release(&self.floor)?,
            root_hash: Octets32::new(key(&self.root_hash)?),
            made_at: self.made_at.saturating_mul(1_000),
            root: part(&self.root)?,
            verity: part(&self.verity)?,
            kernel: part(&self.kernel)?,
        };
        content.check()?;
        Ok(content)
    }
}

fn key(hex: &str) -> Result<[u8; 32]> {
    let bytes = hex::decode(hex).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.with_context(|| format!("{hex:?} is not 32 bytes in hex"))
}

fn part(path: &Path) -> Result<Part> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(Part { bytes, hash: Octets32::new(hasher.finalize().into()) });
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

fn join(image: &Image, signature: &Path, public: &str, out: &Path) -> Result<()> {
    let signature = fs::read(signature).with_context(|| format!("cannot read {}", signature.display()))?;
    let update = Update { content: image.content()?, signature: signature.into() };
    update.verify(&[key(public)?]).context("the signature is not one of this key over this image")?;
    let mut bundle = File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
    bundle.write_all(&update.head())?;
    for part in [&image.root, &image.verity, &image.kernel] {
        io::copy(&mut File::open(part)?, &mut bundle)?;
    }
    bundle.sync_all()?;
    ensure!(bundle.metadata()?.len() == update.file_bytes(), "a part has changed while it was read");
    Ok(())
}

fn main() -> ExitCode {
    let done = match &Cli::parse().command {
        Line::Message { image, out } => {
            image.content().and_then(|content| Ok(fs::write(out, content.message())?))
        }
        Line::Join { image, signature, key, out } => join(image, signature, key, out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulla-bundle: {error:#}");
            ExitCode::from(1)
        }
    }
}

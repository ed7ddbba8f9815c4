//! The file: every member hashed while it is written, then the manifest, then the log key's signature over it.
//!
//! Everything is streamed; memory stays flat. Refuses to do: close an archive with a file that changed its length.

use super::Recipient;
use super::gather::Gathered;
use anyhow::{Context as _, Result, ensure};
use bulla_formats::backup::{BackupFile, MANIFEST_NAME, Manifest, SIGNATURE_NAME};
use bulla_formats::entry::TreeState;
use bulla_formats::hash::Hash;
use ed25519_dalek::{Signer as _, SigningKey};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read, Write};

/// Writes the whole backup to `out`. `made_millis` is wall time, Unix milliseconds.
pub fn pack(
    gathered: &Gathered,
    recipients: &[Recipient],
    log_key: &SigningKey,
    made_millis: u64,
    out: impl Write,
) -> Result<()> {
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients).context("a backup needs a recipient")?;
    let encrypted = encryptor.wrap_output(out).context("cannot write the backup")?;
    let mut archive = tar::Builder::new(encrypted);
    let mut files = Vec::with_capacity(gathered.files.len());
    for source in &gathered.files {
        let file = File::open(&source.path).with_context(|| format!("cannot read {}", source.name))?;
        let bytes = file.metadata()?.len();
        let mut hashing = Hashing { from: file.take(bytes), hasher: Sha256::new(), seen: 0 };
        append(&mut archive, &source.name, bytes, made_millis, &mut hashing)
            .with_context(|| format!("cannot write {} to the backup", source.name))?;
        ensure!(hashing.seen == bytes, "{} became shorter while it was read", source.name);
        let sha256 = Hash(hashing.hasher.finalize().into());
        files.push(BackupFile { name: source.name.clone(), bytes, sha256 });
    }
    let head = TreeState::new(gathered.size, gathered.root);
    let text = Manifest { origin: gathered.origin.clone(), made_millis, head, files }.encode();
    let signature = log_key.sign(&Manifest::message(&text)).to_bytes();
    for (name, bytes) in [(MANIFEST_NAME, text.as_bytes()), (SIGNATURE_NAME, &signature[..])] {
        append(&mut archive, name, bytes.len() as u64, made_millis, bytes)
            .context("cannot close the backup")?;
    }
    let encrypted = archive.into_inner().context("cannot close the backup")?;
    let mut out = encrypted.finish().context("cannot close the backup")?;
    out.flush().context("cannot close the backup")
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    bytes: u64,
    made_millis: u64,
    from: impl Read,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(made_millis / 1_000);
    archive.append_data(&mut header, name, from)
}

struct Hashing<R> {
    from: R,
    hasher: Sha256,
    seen: u64,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = self.from.read(out)?;
        self.hasher.update(&out[..count]);
        self.seen += count as u64;
        Ok(count)
    }
}

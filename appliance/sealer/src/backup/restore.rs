//! Restoring: a backup becomes the state directory of a box, whole or not at all.
//!
//! Order: unpack into a directory beside what will be, hashing -> manifest and signature -> `fsck` of the log -> the
//! keys open on this TPM and are those of the log -> note in the log's control store that it came from a backup ->
//! move into place, the identity last. Until the identity is there, there is no box; running it again begins anew.
//! Refuses to do: touch an existing box; take a file that the signed manifest does not list; decide whether the box
//! may seal (that is the start's rollback rule, which this leaves as strict as it was).

use super::RESTORED;
use crate::config::Config;
use crate::{fsck, identity};
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::backup::{
    BackupFile, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, SIGNATURE_NAME, is_file_name,
};
use bulla_formats::hash::Hash;
use bulla_ledger::{DirStore, Ledger};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where a backup is unpacked, inside the state directory: that may be a mount of its own.
const STAGING: &str = "restoring";
const IDENTITY: &str = "identity.json";
/// What a fresh file system has by itself.
const LOST_AND_FOUND: &str = "lost+found";

/// Unpacks the backup `from` into the empty state directory of `config`. With `keys`, the TPM must be the one of the
/// backup; without, the files are only laid out, and such a box starts on no other TPM.
pub fn restore(
    config: &Config,
    from: impl Read,
    secret: &age::x25519::Identity,
    keys: bool,
) -> Result<Manifest> {
    let state = &config.state_dir;
    prepare(state)?;
    let staging = state.join(STAGING);
    identity::make_private_dir(&staging)?;
    let staged = Config { state_dir: staging.clone(), ..config.clone() };
    let outcome = unpack(from, secret, &staging).and_then(|unpacked| {
        let manifest = judge(&staged, unpacked)?;
        check_log(&staged, &manifest, keys)?;
        Ok(manifest)
    });
    let manifest = match outcome {
        Ok(manifest) => manifest,
        Err(error) => {
            if let Err(left) = fs::remove_dir_all(&staging) {
                eprintln!("bulla-box: {} could not be removed: {left}", staging.display());
            }
            return Err(error);
        }
    };
    move_into_place(state, &staging)?;
    Ok(manifest)
}

/// An empty state directory, or one that holds nothing but an interrupted restore, which is removed.
fn prepare(state: &Path) -> Result<()> {
    identity::make_private_dir(state)?;
    let names = list(state)?;
    let interrupted = names.iter().any(|name| name == STAGING) && !names.iter().any(|name| name == IDENTITY);
    let foreign = names.iter().find(|name| *name != LOST_AND_FOUND);
    if let Some(name) = foreign.filter(|_| !interrupted) {
        bail!(
            "{} holds {name:?}; a backup is restored into an empty state directory, so move the old one away first",
            state.display()
        );
    }
    for name in names.iter().filter(|name| *name != LOST_AND_FOUND) {
        let path = state.join(name);
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove the half-restored {}", path.display()))?;
    }
    Ok(())
}

/// What was in an archive; nothing of it is judged yet.
pub struct Unpacked {
    /// The files, in order.
    pub files: Vec<BackupFile>,
    /// Text of the manifest.
    pub manifest: String,
    /// Signature over it.
    pub signature: Vec<u8>,
}

const BROKEN: &str = "the backup is damaged or cut short";

/// Opens and unpacks a backup.
pub fn unpack(from: impl Read, secret: &age::x25519::Identity, staging: &Path) -> Result<Unpacked> {
    let decryptor = age::Decryptor::new(from).context("this is no backup of a box (not an age file)")?;
    let plain = decryptor
        .decrypt(std::iter::once(secret as &dyn age::Identity))
        .context("this key does not open the backup; take that of one of its recipients")?;
    unpack_archive(plain, staging)
}

/// Unpacks the archive inside a backup, to its very end.
pub fn unpack_archive(plain: impl Read, staging: &Path) -> Result<Unpacked> {
    let mut archive = tar::Archive::new(plain);
    let (mut files, mut manifest, mut signature) = (Vec::new(), None, None);
    for member in archive.entries().context(BROKEN)? {
        let mut member = member.context(BROKEN)?;
        ensure!(signature.is_none(), "{BROKEN}: something follows its signature");
        let name =
            member.path().context(BROKEN)?.to_str().context("a member's name is not UTF-8")?.to_owned();
        ensure!(member.header().entry_type().is_file(), "{BROKEN}: {name:?} is not a regular file");
        match name.as_str() {
            SIGNATURE_NAME if manifest.is_some() => signature = Some(small(&mut member, 64)?),
            MANIFEST_NAME if manifest.is_none() => {
                let text = small(&mut member, MANIFEST_BYTES_MAX)?;
                manifest = Some(String::from_utf8(text).context("the manifest is not UTF-8")?);
            }
            _ => {
                ensure!(manifest.is_none() && is_file_name(&name), "{BROKEN}: unexpected member {name:?}");
                files.push(take_file(&mut member, name, staging).context(BROKEN)?);
            }
        }
    }
    // The archive ends before the encryption does; only its last, marked piece shows that nothing is missing.
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).context(BROKEN)?;
    let (Some(manifest), Some(signature)) = (manifest, signature) else {
        bail!("{BROKEN}: its manifest or signature is missing");
    };
    Ok(Unpacked { files, manifest, signature })
}

fn small(member: &mut impl Read, limit: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    member.take(limit as u64 + 1).read_to_end(&mut bytes).context(BROKEN)?;
    ensure!(bytes.len() <= limit, "the backup's manifest or signature is too long");
    Ok(bytes)
}

fn take_file(member: &mut impl Read, name: String, staging: &Path) -> Result<BackupFile> {
    let path = staging.join(&name);
    if let Some(parent) = path.parent() {
        identity::make_private_dir(parent)?;
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0u64);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = member.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        bytes += count as u64;
        file.write_all(&buffer[..count])?;
    }
    file.sync_all()?;
    Ok(BackupFile { name, bytes, sha256: Hash(hasher.finalize().into()) })
}

/// The files are exactly those of the manifest, and the manifest is signed by the log key of the enrolment inside.
fn judge(staged: &Config, unpacked: Unpacked) -> Result<Manifest> {
    let manifest = Manifest::decode(unpacked.manifest.as_bytes()).context("the backup's manifest")?;
    ensure!(
        manifest.files == unpacked.files,
        "the files of the backup are not those that its manifest lists"
    );
    let (enrolment, origin) = identity::enrolment(staged).context("the backup's identity")?;
    ensure!(
        manifest.origin == origin.as_str(),
        "the backup's manifest names the log {}, its identity {origin}",
        manifest.origin
    );
    Manifest::verify(&unpacked.manifest, &enrolment.content.log_key, &unpacked.signature)
        .context("the backup is not signed by the log key of its box")?;
    Ok(manifest)
}

fn check_log(staged: &Config, manifest: &Manifest, keys: bool) -> Result<()> {
    let mut report = Vec::new();
    let clean = fsck::run(staged, false, &mut report)?;
    ensure!(clean, "the log in the backup is damaged: {}", String::from_utf8_lossy(&report).trim_end());
    if keys {
        // Opening proves that this TPM holds the keys, and that the log key is the enrolled one.
        identity::open(staged)
            .context(
                "the keys of the backup do not open here; on another TPM the box cannot go on, but \
                 --without-keys lays the files out",
            )?
            .keys
            .shutdown();
    }
    let (origin, directory) = identity::current_log(staged)?;
    let store = Arc::new(DirStore::open(&directory)?);
    let (ledger, opened) = Ledger::open(store, origin.as_str(), identity::options(staged))?;
    ensure!(
        (opened.size, opened.root) == (manifest.head.size, manifest.head.root()),
        "the log in the backup does not have the tree of its manifest"
    );
    ledger.control().put(RESTORED, manifest.made_millis.to_string().as_bytes())?;
    Ok(())
}

fn move_into_place(state: &Path, staging: &Path) -> Result<()> {
    let mut names = list(staging)?;
    // The identity makes a directory a box: it comes last.
    names.sort_unstable_by_key(|name| name == IDENTITY);
    for name in &names {
        if name == IDENTITY {
            identity::sync_parent(&state.join(name))?;
        }
        let (from, to) = (staging.join(name), state.join(name));
        fs::rename(&from, &to).with_context(|| format!("cannot move {} into place", to.display()))?;
    }
    fs::remove_dir(staging).with_context(|| format!("cannot remove {}", staging.display()))?;
    identity::sync_parent(&state.join(IDENTITY))
}

fn list(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

/// Where an interrupted restore lies, if the state directory holds one and no box.
pub fn interrupted(state: &Path) -> Option<PathBuf> {
    let staging = state.join(STAGING);
    (staging.exists() && !state.join(IDENTITY).exists()).then_some(staging)
}

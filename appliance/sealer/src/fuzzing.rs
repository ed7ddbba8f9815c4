//! For fuzz targets: what the box reads of clients, operators, disks and backups, and a box that answers HTTP.
//!
//! Refuses to do: hand out types of the program. Nothing here is an interface; names follow the readers they call.

use crate::alerts::kept as alerts;
use crate::backup::restore;
use crate::{approved, clients, config, identity, people, retirement, staging, state_files, tls};
use bulla_formats::hash::Hash;
use std::path::Path;

pub use crate::api::fuzzing::*;
pub use crate::driver::fuzzing::*;

/// Reads a configuration and asks it everything that others ask it; what is wrong with it otherwise.
pub fn configuration(text: &str) -> Result<(), String> {
    let config = config::Config::parse(text).map_err(|error| error.to_string())?;
    let (pace, now) = (config.body_pace(), std::time::Duration::from_secs(1));
    pace.patience(now, u64::MAX);
    config.time.policy();
    let askable = |server: &config::RoughtimeConfig| server.place().is_some() && server.key().is_some();
    assert!(config.time.roughtime.iter().all(askable), "what was checked can be asked");
    let waits = [config.tpm_deadline(), config.header_timeout(), config.self_test_attest_within()];
    drop((config.provider(), config.residency(), config.queue.policy(), identity::options(&config), waits));
    Ok(())
}

/// The list of clients in the bytes of its file, written again; `None` when the file is refused.
pub fn client_list(bytes: &[u8]) -> Option<Vec<u8>> {
    clients::text(clients::parse(bytes).ok()?).ok().map(String::into_bytes)
}

/// The list of people in the bytes of its file, written again; `None` when the file is refused.
pub fn people_list(bytes: &[u8]) -> Option<Vec<u8>> {
    people::text(people::parse(bytes).ok()?).ok().map(String::into_bytes)
}

/// What receivers of alerts are owed, in the bytes of its file, written again; `None` when the file is refused.
pub fn alerts_file(bytes: &[u8]) -> Option<Vec<u8>> {
    alerts::parse(bytes).ok().map(|kept| alerts::text(&kept).into_bytes())
}

/// The decision that a box retires, in the bytes of its file, written again; `None` when the file is refused.
pub fn retirement(bytes: &[u8]) -> Option<Vec<u8>> {
    retirement::text(&retirement::parse(bytes).ok()?).ok().map(String::into_bytes)
}

/// What the box keeps of configurations, in the bytes of its file, written again; `None` when the file is refused.
pub fn configuration_file(bytes: &[u8]) -> Option<Vec<u8>> {
    approved::text(&approved::parse(bytes).ok()?).ok().map(String::into_bytes)
}

/// The identity in the bytes of its file, written again; `None` when the file is refused.
pub fn identity_file(bytes: &[u8]) -> Option<Vec<u8>> {
    identity::text(&identity::parse(bytes).ok()?).ok().map(String::into_bytes)
}

/// The package of a staged log in the bytes of its file, written again; `None` when the file is refused.
pub fn staged_file(bytes: &[u8]) -> Option<Vec<u8>> {
    staging::text(&staging::parse(bytes).ok()?).ok().map(String::into_bytes)
}

/// Whether a CA certificate on disk is as the box wrote it.
pub fn ca_certificate(pem: &[u8]) -> Result<(), &'static str> {
    state_files::check_ca(pem)
}

/// The common name by which a certificate's owner is known.
pub fn common_name(certificate: &[u8]) -> Option<&str> {
    tls::common_name(certificate)
}

/// What was unpacked of a backup.
pub struct Unpacked {
    /// Name, length and SHA-256 of each file, in order.
    pub files: Vec<(String, u64, Hash)>,
    /// The manifest.
    pub manifest: String,
    /// Its signature.
    pub signature: Vec<u8>,
}

/// Unpacks the archive inside a backup into the empty directory `staging`; what is wrong with it otherwise.
pub fn archive(plain: &[u8], staging: &Path) -> Result<Unpacked, String> {
    restore::unpack_archive(plain, staging).map(unpacked).map_err(|error| format!("{error:#}"))
}

/// The same for the encrypted backup, which the secret key `secret` should open.
pub fn backup(encrypted: &[u8], secret: &str, staging: &Path) -> Result<Unpacked, String> {
    let secret = secret.parse::<age::x25519::Identity>()?;
    restore::unpack(encrypted, &secret, staging).map(unpacked).map_err(|error| format!("{error:#}"))
}

/// Encrypts an archive for the recipient of `secret`, as a backup is.
pub fn encrypted(plain: &[u8], secret: &str) -> Option<Vec<u8>> {
    let recipient = secret.parse::<age::x25519::Identity>().ok()?.to_public();
    age::encrypt(&recipient, plain).ok()
}

fn unpacked(found: restore::Unpacked) -> Unpacked {
    let restore::Unpacked { files, manifest, signature } = found;
    let files = files.into_iter().map(|file| (file.name, file.bytes, file.sha256)).collect();
    Unpacked { files, manifest, signature }
}

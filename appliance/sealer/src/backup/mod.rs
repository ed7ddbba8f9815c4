//! Backup and restore of a box's whole state: hashed, signed by its log key, encrypted to its operator's keys.
//!
//! `gather` makes a consistent copy beside the running box, `pack` turns it into one file, `restore` turns that file
//! into a state directory again. The format is in `docs/formats.md` section 8; stock `age` and `tar` open it.
//!
//! Refuses to do: write a backup that somebody without a recipient's key could read (it holds openings, that is,
//! personal data); let a restored box seal where the box it was copied from has gone on.
//! Invariant: a backup is either the last word of its box, or the TPM counter has moved past it before anybody can
//! hold it (`driver::Sealer::move_counter`, [`BACKED_UP`]); so the rollback rule judges it like any older disk (G2).

pub mod gather;
pub mod pack;
pub mod restore;

use anyhow::{Context as _, Result};
use std::str::FromStr as _;

/// Control value of a log that was copied while the box was stopped: the next start moves the counter before it
/// seals. Not empty while it counts.
pub const BACKED_UP: &str = "backed-up";
/// Control value of a log that came from a backup: the time of the backup, decimal. Not empty while it counts.
pub const RESTORED: &str = "restored";

/// Somebody who can open backups.
pub type Recipient = age::x25519::Recipient;

/// Reads a recipient, `age1...` (age-encryption.org/v1, X25519).
pub fn recipient(text: &str) -> Result<Recipient> {
    Recipient::from_str(text).map_err(|reason| anyhow::anyhow!("{text:?} is no age recipient ({reason})"))
}

/// Reads the secret key of a recipient from a file as `age-keygen` writes it.
pub fn secret_key(path: &std::path::Path) -> Result<age::x25519::Identity> {
    let text = zeroize::Zeroizing::new(
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?,
    );
    let mut keys = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let key = keys.next().and_then(|line| age::x25519::Identity::from_str(line).ok());
    key.filter(|_| keys.next().is_none()).with_context(|| {
        format!(
            "{} does not hold one age secret key (AGE-SECRET-KEY-1...), as age-keygen writes it",
            path.display()
        )
    })
}

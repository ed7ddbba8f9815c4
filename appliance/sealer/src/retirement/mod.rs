//! Retirement: a box ends its log, destroys what is secret, and leaves a certificate that shows it.
//!
//! The steps, each durable before the next begins, so that a death at any moment is followed by the same command again:
//! 1. `retirement.json`: people (or the owner of a fleet of one) have decided. From here on no new seal is taken.
//! 2. The queue is sealed; what nobody has anchored or holds is counted, and is done or agreed to.
//! 3. The final entry. The ledger takes no other one ever after.
//! 4. `retirement.begun`: the statement, signed by the log key and vouched for by the attestation key; a farewell key.
//! 5. TPM2_Clear; files overwritten and removed; the farewell key's quote.
//! 6. `retirement.certificate`, and the two other files are removed.
//!
//! Refuses to do: destroy anything before the statement is durable, or work beside a running box.
//! Invariant: a certificate is written only after it has verified.

mod ask;
mod destroy;
mod drain;
mod order;
mod wipe;

pub use ask::{ask, withdraw};
pub use order::{Decided, Order, cancel, decide, parse, pending, text};

use crate::config::Config;
use crate::identity;
use anyhow::{Context as _, Result, ensure};
use bulla_formats::retirement::{CERTIFICATE_BYTES_MAX, Certificate};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Decided, not done.
pub const ORDER: &str = "retirement.json";
/// Said, not done.
pub const BEGUN: &str = "retirement.begun";
/// Done.
pub const CERTIFICATE: &str = "retirement.certificate";
/// What people are asked to approve.
pub const ASKED: &str = "asked";

/// How far a call of [`go_on`] came.
pub enum Reached {
    /// The certificate is written.
    Done,
    /// Others must act first: what, in words.
    Waits(String),
}

/// Why a box with this state directory has no identity, if that is because it retired.
pub fn in_place_of_identity(state: &Path) -> Option<String> {
    let there = |name: &str| state.join(name).exists();
    if there(CERTIFICATE) {
        Some(format!("this box has retired; its certificate is {}", state.join(CERTIFICATE).display()))
    } else if there(BEGUN) {
        Some("this box is being destroyed; run `bulla-box retire` again to end it".to_owned())
    } else {
        None
    }
}

/// Carries the retirement as far as it goes.
///
/// # Errors
/// What failed, with nothing lost: the same command goes on from there.
pub fn go_on(config: &Config, out: &mut impl Write) -> Result<Reached> {
    let state = &config.state_dir;
    if !state.join(CERTIFICATE).exists() {
        if !state.join(BEGUN).exists() {
            let order = pending(state)?.context("nobody has decided that this box retires")?;
            ensure!(
                identity::current_log(config)?.0.as_str() == order.origin,
                "the retirement that was decided is of {}, which is not the log of this box any more",
                order.origin
            );
            if let Some(waits) = drain::finish(config, &order, out)? {
                return Ok(Reached::Waits(waits));
            }
            destroy::begin(config, &order)?;
            writeln!(out, "the statement is signed; from here on there is no way back")?;
        }
        destroy::carry_out(config, out)?;
    }
    for name in [BEGUN, ORDER, ASKED] {
        remove(&state.join(name))?;
    }
    Ok(Reached::Done)
}

/// The certificate of a box that has retired.
pub fn certificate(state: &Path) -> Result<Certificate> {
    let path = state.join(CERTIFICATE);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(bytes.len() <= CERTIFICATE_BYTES_MAX, "{} is no certificate: it is too long", path.display());
    Certificate::decode(&bytes).with_context(|| format!("{} is not believed", path.display()))
}

/// Removes a file durably, if it is there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => identity::sync_parent(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", path.display())),
    }
}

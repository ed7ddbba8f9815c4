//! Staged logs: the next log of a member, enrolled while the registrar is there and begun when it is not.
//!
//! A box whose log is lost or must be given up needs the registrar and people to begin another one. Here both act ahead of
//! time: the box proves its TPM for the log after the one in use, people approve it as *staged*, and what was issued waits in
//! one file beside the state directory. [`prepare`] does that; [`begin`] is the day on which it is needed.
//! Refuses to do: move the counter or touch the log of a running box while it prepares; begin a log twice.
//! Invariants: the log's name is a value that the rollback counter has passed, so no other log has it; the counter of staged
//! logs in the TPM moves when a package is kept and when one is begun, so only the newest package counts, and once.

mod begin;
mod package;

pub use begin::{begin, interrupted};
pub use package::{Package, parse, text};

use crate::clients::{ClientStore, Method, Role};
use crate::config::{Config, StagedConfig};
use crate::enrolling::{self, Asked, Pending, Registrar, Told};
use crate::identity;
use anyhow::{Context as _, Result, bail, ensure};
use bulla_enrolment::wire::Issued;
use bulla_formats::der;
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_formats::origin::Origin;
use std::fs;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What `staged.days` is counted in.
pub const DAY_MILLIS: u64 = 24 * 3_600 * 1_000;

/// What configuration and file say.
pub fn policy(config: &Config) -> Result<(&StagedConfig, PathBuf)> {
    let staged = config.staged.as_ref().context(
        "the configuration does not allow it: add a [staged] section, by which this box may begin a log that the fleet has \
         staged for it",
    )?;
    let file = staged.file.clone().unwrap_or_else(|| identity::with_suffix(&config.state_dir, ".staged"));
    Ok((staged, file))
}

/// The way to a staged log.
pub struct Preparing {
    /// The request.
    pub pending: Pending,
    /// The log that the box goes on with.
    pub in_use: Origin,
    operators: Vec<package::Operator>,
    file: PathBuf,
}

/// Goes on with an earlier run, or begins.
///
/// # Errors
/// The policy does not allow it, the box is no member of a fleet, nobody could begin the log later, or as of
/// [`Pending::stage`].
pub fn prepare(config: &Config, registrar: &Registrar) -> Result<Preparing> {
    let (_, file) = policy(config)?;
    let (enrolment, in_use) = identity::enrolment(config)?;
    ensure!(
        enrolment.content.hardware == Hardware::Tpm && !enrolment.chain.is_empty(),
        "this box is a fleet of one: it begins its next log by itself, with `bulla-box succeed`"
    );
    let operators = operators(config)?;
    ensure!(
        !operators.is_empty(),
        "nobody could begin the staged log: register an operator with a token first (`bulla-box scanner add --role operator`)"
    );
    let kept = Package::read(&file)?.map(|package| package.origin()).transpose()?;
    let named = kept.iter().chain([&in_use]).map(Origin::incarnation).max().unwrap_or_default();
    let pending = Pending::stage(config, registrar, &in_use, named)?;
    Ok(Preparing { pending, in_use, operators, file })
}

/// Operators by their tokens: who may begin a log when the list of clients is lost with its disk.
fn operators(config: &Config) -> Result<Vec<package::Operator>> {
    let clients = ClientStore::new(&config.state_dir).list()?;
    let operators =
        clients.into_iter().filter(|client| client.role == Role::Operator && client.revoked_millis.is_none());
    let operators = operators.filter_map(|client| match client.method {
        Method::Token { sha256 } => Some(package::Operator { name: client.name, sha256 }),
        Method::Certificate { .. } => None,
    });
    Ok(operators.collect())
}

/// How far it came.
pub enum Prepared {
    /// The package is kept.
    Kept {
        /// The log that can be begun.
        origin: String,
        /// Where the package is.
        file: PathBuf,
    },
    /// A person, or something that can pass, is waited for.
    Waiting(String),
    /// No: code and sentence.
    Refused(String, String),
}

impl Preparing {
    /// Speaks to the registrar until the package is kept or refused; with `once`, until something must be waited for.
    ///
    /// # Errors
    /// The TPM's and the file system's.
    pub async fn run(
        &self,
        registrar: &Registrar,
        once: bool,
        told: &mut dyn Told,
        state_dir: &Path,
    ) -> Result<Prepared> {
        match enrolling::ask(registrar, &self.pending, once, told).await? {
            Asked::Waiting(what) => Ok(Prepared::Waiting(what)),
            Asked::Refused(refused) => Ok(Prepared::Refused(refused.code, refused.sentence)),
            Asked::Issued(issued) => self.keep(&issued, state_dir),
        }
    }

    fn keep(&self, issued: &Issued, state_dir: &Path) -> Result<Prepared> {
        let keys = &self.pending.keys;
        // The index that the package is bound to is there before anything names its value.
        if keys.staged_counter()?.is_none() {
            keys.staged_counter_increment().context("the TPM has no room for the counter of staged logs")?;
        }
        let counter = keys.staged_counter()?.context("the counter of staged logs is gone")? + 1;
        let mut secret = Zeroizing::new(self.pending.log_key.to_bytes().to_vec());
        secret.extend(counter.to_be_bytes());
        let boot = self
            .pending
            .boot()
            .context("the registrar has issued what it was shown no boot for; ask anew")?;
        let keys_file = state_dir.join("keys/keys.json");
        let keys_file =
            fs::read(&keys_file).with_context(|| format!("cannot read {}", keys_file.display()))?;
        let package = Package {
            version: package::VERSION,
            in_use: self.in_use.as_str().to_owned(),
            registrar: self.pending.registrar().address().to_owned(),
            pin: self.pending.registrar().pin().to_string(),
            request: base64_encode(&der::encode(&self.pending.request)),
            issued: base64_encode(&der::encode(issued)),
            keys: base64_encode(&keys_file),
            sealed_log_key: base64_encode(&keys.seal(&secret).context("cannot seal the log key")?),
            counter,
            boot,
            operators: self.operators.clone(),
        };
        package.write(&self.file)?;
        // From here on an older package is worth nothing. After a crash before this, `begin` catches up.
        keys.staged_counter_increment().context("cannot move the counter of staged logs")?;
        keys.shutdown();
        let directory = &self.pending.directory;
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
        Ok(Prepared::Kept { origin: self.pending.request.origin.clone(), file: self.file.clone() })
    }
}

/// The enrolment in what was issued, and when the fleet gave it.
fn enrolment_of(issued: &Issued) -> Result<Enrolment> {
    Enrolment::decode(&issued.enrolment).context("the staged enrolment is damaged")
}

/// Reads the package of this configuration for people.
///
/// # Errors
/// There is none, or it is not believed.
pub fn package(config: &Config) -> Result<(Package, PathBuf)> {
    let (_, file) = policy(config)?;
    let Some(package) = Package::read(&file)? else {
        bail!(
            "no log is staged: {} does not exist; while the registrar is there, `bulla-box staged prepare` asks for one",
            file.display()
        );
    };
    Ok((package, file))
}

/// For how long a staged log can still be begun, and for how long the policy lets one wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Milliseconds; 0: none is staged for the log in use, or it is too old.
    pub left_millis: u64,
    /// Milliseconds from its enrolment.
    pub allowed_millis: u64,
}

/// What the file says at `now`; `None` where the policy knows no staged logs. Whether the TPM has spent it is not asked:
/// the one that does is [`begin`].
pub fn waiting(config: &Config, in_use: &str, now_millis: u64) -> Option<Waiting> {
    let allowed_millis = config.staged.as_ref()?.days.saturating_mul(DAY_MILLIS);
    let staged = || {
        let (package, _) = package(config).ok()?;
        let content = enrolment_of(&package.issued().ok()?).ok()?.content;
        let over = content.enrolled_at.saturating_add(allowed_millis);
        (package.in_use() == in_use).then(|| over.saturating_sub(now_millis))
    };
    Some(Waiting { left_millis: staged().unwrap_or(0), allowed_millis })
}

/// The bytes of a base64 member.
fn bytes(name: &str, text: &str) -> Result<Vec<u8>> {
    base64_decode(text).with_context(|| format!("{name} is not base64"))
}

//! `bulla-box backup` and `bulla-box restore`.
//!
//! `restore --from-peers` is in `from_peers`, `restore --from-archive` in `from_archive`.
//! Refuses to do: back up beside a running box (that is `POST /v1/backups`, or `bulla backup`); leave a file under its
//! final name that is not complete.

use super::from_archive::{self, FromArchiveArgs};
use super::from_peers::{self, FromPeersArgs};
use crate::backup::gather::gather;
use crate::backup::pack::pack;
use crate::backup::restore::restore;
use crate::backup::{BACKED_UP, Recipient, recipient, secret_key};
use crate::config::Config;
use crate::driver::clock::now_millis;
use crate::identity;
use anyhow::{Context as _, Result, ensure};
use bulla_ledger::{DirStore, Ledger};
use clap::Args;
use std::fs;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Arguments of `bulla-box backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// Who can open it, `age1...`; may be repeated. Default: backup.recipients of the configuration.
    #[arg(long)]
    recipient: Vec<String>,
}

/// Arguments of `bulla-box restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    #[arg(
        long,
        required_unless_present_any = ["from_peers", "from_archive"],
        conflicts_with_all = ["from_peers", "from_archive"],
        requires = "key"
    )]
    from: Option<PathBuf>,
    /// File with the age secret key of one of its recipients.
    #[arg(long, value_name = "FILE", requires = "from")]
    key: Option<PathBuf>,
    /// Only lays the files out, without the TPM: for `fsck` and for keeping. The box starts on its own TPM only.
    #[arg(long, requires = "from")]
    without_keys: bool,
    #[command(flatten)]
    peers: FromPeersArgs,
    #[command(flatten)]
    archive: FromArchiveArgs,
}

/// Backs up a stopped box.
pub fn back_up(args: &BackupArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let named = if args.recipient.is_empty() { &config.backup.recipients } else { &args.recipient };
    let recipients = named.iter().map(|text| recipient(text)).collect::<Result<Vec<Recipient>>>()?;
    ensure!(
        !recipients.is_empty(),
        "nobody could open this backup: make a key with `age-keygen`, and name its public part with --recipient or in \
         backup.recipients"
    );
    ensure!(!args.out.exists(), "{} exists; a backup never replaces a file", args.out.display());
    let identity = identity::open(config)?;
    let log = identity::log_directory(&config.state_dir, &identity.origin);
    let store = DirStore::open(&log).with_context(|| {
        format!("cannot open {}; while the box runs, use `bulla backup` or POST /v1/backups", log.display())
    })?;
    let (ledger, _) = Ledger::open(Arc::new(store), identity.origin.as_str(), identity::options(config))
        .context("the log does not open; `bulla-box fsck` says what is damaged")?;
    // Before the copy: whichever of the two is started next moves the counter, and the other is then the older one.
    ledger.control().put(BACKED_UP, b"1").context("cannot note the backup")?;
    let gathered = gather(config, &ledger.reader())?;
    write_file(&args.out, |file| {
        pack(&gathered, &recipients, &identity.log_key, now_millis(), BufWriter::new(file))
    })?;
    identity.keys.shutdown();
    writeln!(
        out,
        "{} holds {} with {} entries, root {}; it continues this log only if the box is not started again before it \
         is restored",
        args.out.display(),
        gathered.origin,
        gathered.size,
        gathered.root
    )?;
    Ok(())
}

fn write_file(path: &Path, write: impl FnOnce(&fs::File) -> Result<()>) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = (|| {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&partial)
            .with_context(|| format!("cannot create {}", partial.display()))?;
        write(&file)?;
        file.sync_all().context("cannot write the backup")?;
        fs::rename(&partial, path)
            .with_context(|| format!("cannot move the backup to {}", path.display()))?;
        identity::sync_parent(path)
    })();
    if written.is_err() {
        // What is left of it is of no use; that it could not be removed changes nothing about the error.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Restores a backup into the state directory, or a log from the neighbours or from an archive.
pub fn bring_back(args: &RestoreArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    if args.peers.wanted() {
        return from_peers::execute(&args.peers, config, out);
    }
    if let Some(directory) = &args.archive.from_archive {
        return from_archive::execute(directory, &args.archive, &args.peers, config, out);
    }
    let (Some(from), Some(key)) = (&args.from, &args.key) else {
        anyhow::bail!(
            "name the backup with --from and its key with --key, or say --from-peers or --from-archive"
        );
    };
    let secret = secret_key(key)?;
    let file = fs::File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let manifest = restore(config, BufReader::new(file), &secret, !args.without_keys)?;
    writeln!(
        out,
        "restored {} with {} entries, root {}, as it was at Unix time {}",
        manifest.origin,
        manifest.head.size,
        manifest.head.root(),
        manifest.made_millis / 1_000
    )?;
    writeln!(
        out,
        "next: bulla-box run; it goes on where the backup ends, unless the box sealed after it: then it stays \
         read-only (rollback-suspected), and `bulla-box succeed` begins a new log that names this one"
    )?;
    Ok(())
}

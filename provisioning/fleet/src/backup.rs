//! `bulla-fleet backup` and `restore`: the fleet directory in one encrypted, signed file, and back.
//!
//! Refuses to do: write secrets where others can read them; restore over a fleet; take a backup that the fleet of the
//! given trust file did not sign; copy a custodian's directory (an older copy of a share gives it away).
//! Invariants: what is restored stands whole in its place, or not at all; the roster in it is checked against the newest
//! one that anybody here has seen.

use crate::desk::{Desk, ROSTER, read_roster};
use crate::exit::{Exit, Failure};
use crate::{files, init};
use bulla_formats::report::utc;
use bulla_formats::trust::{TRUST_BYTES_MAX, TrustFile};
use bulla_roster::backup::{BACKUP_BYTES_MAX, Backup, BackupFile, is_file_name};
use clap::Args;
use ed25519_dalek::Signer;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes that encryption may add.
const AGE_BYTES_MAX: usize = 1 << 20;
/// Longest file with an age identity.
const KEY_BYTES_MAX: usize = 4 << 10;

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Who can open it: a public key of age (age1...); repeatable
    #[arg(long = "recipient", value_name = "KEY", required = true)]
    recipients: Vec<String>,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// File with the secret key of one of its recipients (AGE-SECRET-KEY-1...)
    #[arg(long, value_name = "FILE")]
    identity: PathBuf,
    /// Trust file of the fleet, from somewhere else than the backup
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// The fleet directory to make; it must not be there
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// A copy of the roster that somebody has seen, such as the exchange directory's; an older backup is refused
    #[arg(long, value_name = "FILE")]
    seen: Option<PathBuf>,
}

/// Makes one.
pub fn back_up(args: &BackupArgs) -> Result<Exit, Failure> {
    let recipients = args.recipients.iter().map(|text| {
        text.parse::<age::x25519::Recipient>().map_err(|error| {
            Failure::usage(format!(
                "{text:?} is no public key of age (age1...), and could open nothing: {error}"
            ))
        })
    });
    let recipients: Vec<_> = recipients.collect::<Result<_, _>>()?;
    // Nothing else of this program writes meanwhile: people's commands hold the one lock, the registrar the other.
    let _people = files::Lock::take(&args.dir)?;
    let _registrar = match args.dir.join("enrolments").is_dir() {
        true => Some(files::Lock::wait(&args.dir.join("enrolments"))?),
        false => None,
    };
    let roster = Desk::of(&args.dir, None)?.roster_of(&args.dir)?;
    let mut found = Vec::new();
    gather(&args.dir, "", &mut found)?;
    let fleet_ca = init::fleet_ca(&args.dir)?;
    let backup =
        Backup::make(&roster, found, crate::now_millis()?, |message| fleet_ca.sign(message).to_bytes())?;
    let plain = backup.encode();
    if plain.len() > BACKUP_BYTES_MAX {
        return Err(Failure::usage(format!("the fleet directory is larger than {BACKUP_BYTES_MAX} bytes")));
    }
    let failed = |error: std::io::Error| Failure::file("write", &args.out, error);
    let recipients = recipients.iter().map(|recipient| recipient as &dyn age::Recipient);
    let encryptor = age::Encryptor::with_recipients(recipients)
        .map_err(|error| Failure::usage(format!("nobody could open the backup: {error}")))?;
    let mut sealed = Vec::new();
    let mut into = encryptor.wrap_output(&mut sealed).map_err(failed)?;
    into.write_all(&plain).map_err(failed)?;
    into.finish().map_err(failed)?;
    files::write_private(&args.out, &sealed)?;
    crate::say(&format!(
        "{} holds {} file(s) of {}, at version {} of the roster. Not in it: custodians' directories.\n",
        args.out.display(),
        backup.content.files.len(),
        args.dir.display(),
        roster.version().number
    ));
    Ok(Exit::Ok)
}

/// Every file below `dir`, but for hidden ones and a custodian's directory.
fn gather(dir: &Path, below: &str, found: &mut Vec<BackupFile>) -> Result<(), Failure> {
    let failed = |error| Failure::file("read", dir, error);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let part = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if below.is_empty() { part.clone() } else { format!("{below}/{part}") };
        let custodian = name == init::ALONE;
        if part.starts_with('.') || custodian {
            continue;
        }
        let about = fs::symlink_metadata(&path).map_err(|error| Failure::file("read", &path, error))?;
        if about.is_dir() {
            gather(&path, &name, found)?;
            continue;
        }
        if !is_file_name(&name) {
            return Err(Failure::usage(format!(
                "{} cannot be in a backup, for its name or its depth; move it out of the fleet directory",
                path.display()
            )));
        }
        let bytes = files::read(&path, BACKUP_BYTES_MAX)?.to_vec().into();
        found.push(BackupFile { name, private: about.permissions().mode() & 0o077 == 0, bytes });
    }
    Ok(())
}

/// Brings one back.
pub fn restore(args: &RestoreArgs) -> Result<Exit, Failure> {
    if fs::symlink_metadata(&args.dir).is_ok() {
        return Err(Failure::usage(format!(
            "{} is there already; a backup becomes a new directory, so move that one away first",
            args.dir.display()
        )));
    }
    let trust = files::read(&args.trust, TRUST_BYTES_MAX)?;
    let trust = TrustFile::decode(&trust).map_err(|error| {
        Failure::new(Exit::Refused, format!("{} is refused: {error}", args.trust.display()))
    })?;
    let plain = open(args)?;
    let backup = Backup::decode(&plain)?;
    let roster = backup.verify(&trust)?;
    if let Some(seen) = &args.seen {
        roster.check_seen(read_roster(seen)?.version())?;
    }
    lay_out(&backup, &args.dir)?;
    crate::say(&format!(
        "{} is the fleet directory of {} as it was at {}, at version {} of the roster.\n\
         If anybody has a newer roster: bulla-fleet roster take --dir {} --from FILE. \
         What the registrar has forgotten, boxes ask for again.\n",
        args.dir.display(),
        roster.fleet(),
        utc(backup.content.made_at),
        roster.version().number,
        args.dir.display()
    ));
    Ok(Exit::Ok)
}

fn open(args: &RestoreArgs) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refused =
        |why: String| Failure::new(Exit::Refused, format!("{} is refused: {why}", args.backup.display()));
    let sealed = files::read(&args.backup, BACKUP_BYTES_MAX + AGE_BYTES_MAX)?;
    let key = files::read(&args.identity, KEY_BYTES_MAX)?;
    let lines = String::from_utf8_lossy(&key);
    let line = lines.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    let identity = line.and_then(|line| line.parse::<age::x25519::Identity>().ok()).ok_or_else(|| {
        Failure::usage(format!(
            "{} holds no secret key of age (AGE-SECRET-KEY-1...)",
            args.identity.display()
        ))
    })?;
    let decryptor = age::Decryptor::new(&sealed[..])
        .map_err(|error| refused(format!("it is no backup of a fleet directory ({error})")))?;
    let plain = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|error| refused(format!("this key does not open it ({error}); take that of a recipient")))?;
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = BACKUP_BYTES_MAX as u64 + 1;
    plain
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| refused(format!("it is damaged or cut short ({error})")))?;
    Ok(bytes)
}

/// Beside its place first; the name comes last.
fn lay_out(backup: &Backup, dir: &Path) -> Result<(), Failure> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name =
        dir.file_name().ok_or_else(|| Failure::usage(format!("{} names no directory", dir.display())))?;
    let staging = parent.join(format!(".{}.restoring", name.to_string_lossy()));
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(|error| Failure::file("remove", &staging, error))?;
    }
    let put = || {
        files::make_private_dir(&staging)?;
        for file in &backup.content.files {
            let path = staging.join(&file.name);
            files::make_private_dir(path.parent().unwrap_or(&staging))?;
            match file.private {
                true => files::write_private(&path, &file.bytes)?,
                false => files::write(&path, &file.bytes)?,
            }
        }
        read_roster(&staging.join(ROSTER))?;
        init::fleet_ca(&staging)?;
        fs::rename(&staging, dir).map_err(|error| Failure::file("make", dir, error))?;
        let synced = fs::File::open(parent).and_then(|parent| parent.sync_all());
        synced.map_err(|error| Failure::file("write", parent, error))
    };
    put().inspect_err(|_| {
        // Whatever is left of it is nobody's; the next try removes it.
        let _left = fs::remove_dir_all(&staging);
    })
}

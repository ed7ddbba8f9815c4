//! `bulla upgrade`: takes newer evidence of the same entry into `.seal` files.
//!
//! Refuses to do: take evidence of another entry; write a file that verifies worse than the one before, when a trust
//! file is at hand to tell. Invariant: an upgrade only adds.

use crate::client::{BoxClient, BoxOptions};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::given_up;
use crate::progress::Progress;
use bulla_formats::entry::Entry;
use bulla_formats::report::{Report, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::verify;
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `bulla upgrade`.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    /// Seals to bring up to date
    #[arg(required = true, value_name = "SEAL")]
    seals: Vec<PathBuf>,
    #[command(flatten)]
    connection: BoxOptions,
    /// Verify before and after, and refuse what makes a seal worse; take over what it says of logs that were given up
    #[arg(long, value_name = "TRUST")]
    trust: Option<PathBuf>,
}

/// Upgrades every file; one summary line at the end.
pub fn run(args: &UpgradeArgs) -> Result<Exit, Failure> {
    let trust = args.trust.as_deref().map(files::read_trust).transpose()?.map(|(trust, _)| trust);
    let client = BoxClient::new(&args.connection)?;
    let progress = Progress::new(false);
    let (mut upgraded, mut unchanged, mut failed) = (0usize, 0usize, Vec::new());
    for path in &args.seals {
        match one(&client, path, trust.as_ref()) {
            Ok(Some(words)) => {
                upgraded += 1;
                progress.say(&format!("upgraded   {}  {words}", path.display()));
            }
            Ok(None) => {
                unchanged += 1;
                progress.say(&format!("unchanged  {}  the box has nothing newer", path.display()));
            }
            Err(failure) => {
                progress.complain(&format!("FAILED     {failure}"));
                failed.push(failure.exit);
            }
        }
    }
    progress.say(&format!("{upgraded} upgraded, {unchanged} unchanged, {} failed", failed.len()));
    Ok(failed.first().copied().unwrap_or(Exit::Ok))
}

/// The id under which a box knows an entry: `<index>-<first 16 hex of its leaf hash>`.
fn id(entry: &Entry) -> String {
    format!("{}-{}", entry.content().index, &entry.leaf_hash().to_string()[..16])
}

fn one(client: &BoxClient, path: &Path, trust: Option<&TrustFile>) -> Result<Option<String>, Failure> {
    let shown = path.display();
    let bytes =
        files::read_seal(path).map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}")))?;
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{shown} is not a seal that can be upgraded: {error}"))
    };
    let old = SealFile::decode(&bytes).map_err(|error| unusable(&error))?;
    let entry = Entry::decode(&old.entry).map_err(|error| unusable(&error))?;
    let fetched =
        client.get(&format!("/v1/seals/{}/seal-file", id(&entry)), "application/vnd.bulla.seal+json");
    let fetched = fetched.map_err(|error| error.into_failure(&shown.to_string()))?;
    let newer = SealFile::decode(&fetched.body).map_err(|error| {
        Failure::new(Exit::Box, format!("{shown}: the box answered with something that is no seal: {error}"))
    })?;
    let mut merged = old.clone();
    let Some(mut changed) = merged.upgrade(newer) else {
        let message =
            format!("{shown}: the box answered with the seal of another entry; nothing was changed");
        return Err(Failure::new(Exit::Box, message));
    };
    let mut missing = None;
    if let Some(trust) = trust {
        let (said, trouble) = given_up::add(client, trust, &mut merged, &entry);
        (changed, missing) = (changed || said, trouble);
    }
    if !changed {
        return match missing {
            Some(trouble) => Err(Failure::new(Exit::Box, format!("{shown}: {trouble}"))),
            None => Ok(None),
        };
    }
    let text = merged.encode();
    let mut words = added(&old, &merged);
    if let Some(trouble) = missing {
        words.push_str(&format!("; {trouble}"));
    }
    match trust {
        None => words.push_str("; not verified, give --trust to have it checked"),
        Some(trust) => {
            let (before, after) =
                (verify(&bytes, trust, None).report, verify(text.as_bytes(), trust, None).report);
            if let Some(why) = worse(&before, &after) {
                let message =
                    format!("{shown}: the box's evidence makes the seal worse ({why}); nothing was changed");
                return Err(Failure::new(Exit::Refused, message));
            }
            let facts: Vec<&str> = after.facts.iter().map(|fact| fact.name()).collect();
            words.push_str(&format!("; verified: {} ({})", after.verdict.name(), facts.join(", ")));
        }
    }
    files::write_atomically(path, text.as_bytes(), true)
        .map_err(|error| Failure::usage(format!("{shown} cannot be written: {error}")))?;
    Ok(Some(words))
}

fn added(old: &SealFile, new: &SealFile) -> String {
    let attested = |file: &SealFile| file.heads.iter().any(|head| head.pcrs.is_some());
    let mut words = Vec::new();
    if attested(new) && !attested(old) {
        words.push("now attested".to_owned());
    }
    let mut more = |name: &str, before: usize, after: usize| {
        if after > before {
            words.push(format!("{} more {name}", after - before));
        }
    };
    more("checkpoint(s)", old.heads.len(), new.heads.len());
    more("opening(s)", old.openings.len(), new.openings.len());
    more("erasure(s)", old.erasures.len(), new.erasures.len());
    let paths = |file: &SealFile| file.revocations.iter().filter(|said| said.entry_proof.is_some()).count();
    more("revocation(s)", old.revocations.len(), new.revocations.len());
    more("path(s) to a last good tree", paths(old), paths(new));
    more("cosigned checkpoint(s)", old.cosignatures.len(), new.cosignatures.len());
    more("kind(s) of evidence of a later version", old.unknown.len(), new.unknown.len());
    if words.is_empty() {
        words.push("a checkpoint became a quoted one".to_owned());
    }
    words.join(", ")
}

/// What was better before.
fn worse(before: &Report, after: &Report) -> Option<String> {
    let rank = |verdict: Verdict| match verdict {
        Verdict::Refused => 0,
        Verdict::Indeterminate => 1,
        Verdict::NotUnderstood => 2,
        Verdict::OtherDocument | Verdict::PolicyUnmet => 3,
        Verdict::Valid | Verdict::SealOnly => 4,
    };
    if rank(after.verdict) < rank(before.verdict) {
        let detail = after.failed().map_or("", |check| check.detail.as_str());
        return Some(format!("{} instead of {}: {detail}", after.verdict.name(), before.verdict.name()));
    }
    // Two mirrors are more than one, not another fact.
    let lost = before.facts.iter().find(|fact| !after.facts.iter().any(|held| held.meets(**fact)));
    lost.map(|fact| format!("the fact {} would be lost", fact.name()))
}

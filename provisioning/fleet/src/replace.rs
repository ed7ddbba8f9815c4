//! `bulla-fleet replace`: a box is lost, and another one takes its place; those who hold its log vouch for its last head.
//!
//! Refuses to do: take the word of the lost box or of its successor for that head; choose between two histories of a log.
//! Invariant: what is proposed holds the cosignatures themselves, so whoever approves it, and whoever replays the roster
//! later, verifies them.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::propose::{Proposal, one_box};
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::note::{Checkpoint, NOTE_LINES_MAX, SignedNote};
use bulla_formats::origin::Origin;
use bulla_formats::report::utc_millis;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_roster::deed::{Deed, HeldLog, Replacement};
use bulla_roster::inventory::Listed;
use clap::Args;
use std::path::{Path, PathBuf};

/// Arguments of `replace`.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// The lost box: serial number, or the first 8 digits or more of the endorsement key's hash
    #[arg(value_name = "BOX")]
    which: String,
    /// The box that takes its place, expected or enrolled already
    #[arg(long, value_name = "BOX")]
    by: String,
    /// A checkpoint of a log of the lost box as somebody holds it, with the cosignatures; one or several of each log
    #[arg(long, value_name = "FILE", required = true)]
    head: Vec<PathBuf>,
    /// When its service ended, e.g. 2026-11-21T08:30:00Z; by default now
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    from: Option<u64>,
}

/// The head of one log that is known best: the largest, with the lines of everybody who cosigned it.
struct Best {
    head: Checkpoint,
    note: SignedNote,
}

/// Lays it out for approval.
pub fn run(args: &ReplaceArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let lost = one_box(&roster, &args.which)?;
    let successor = one_box(&roster, &args.by)?.row.ek_spki_sha256;
    let logs: Vec<&EnrolmentContent> = lost.live_logs().collect();
    let mut best: Vec<Option<Best>> = logs.iter().map(|_| None).collect();
    for path in &args.head {
        let (at, found) = read(lost, &logs, path)?;
        best[at] = Some(match best[at].take() {
            Some(known) => better(known, found, path)?,
            None => found,
        });
    }
    if let (Some(log), Some(None)) = (logs.last(), best.last()) {
        return Err(Failure::usage(format!(
            "give a checkpoint of {} with --head, as a neighbour or the hub holds it; if nobody does, propose \
             `bulla-fleet revoke --cause replaced --successor ...`",
            log.origin
        )));
    }
    let logs = logs
        .iter()
        .zip(best)
        .map(|(log, best)| HeldLog { origin: log.origin.clone(), head: best.map(|best| best.note.encode()) });
    let replacement = Replacement {
        ek_spki_sha256: lost.row.ek_spki_sha256,
        successor,
        invalid_from: args.from.map_or_else(crate::now_millis, Ok)?,
        logs: logs.collect(),
    };
    args.proposal.lay(&desk, &roster, &Deed::Replace(replacement))
}

/// A checkpoint of one of these logs, and of which.
fn read(lost: &Listed, logs: &[&EnrolmentContent], path: &Path) -> Result<(usize, Best), Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
    };
    let bytes = files::read(path, 64 << 10)?;
    let text = std::str::from_utf8(&bytes).map_err(|error| refused(&error))?;
    let note = SignedNote::parse(text).map_err(|error| refused(&error))?;
    let first = note.text.lines().next().unwrap_or_default();
    let Some(at) = logs.iter().position(|log| log.origin == first) else {
        return Err(refused(&format!("it is of no log of {} that is not given up already", lost.row.serial)));
    };
    let log = logs[at];
    let origin = Origin::parse(&log.origin).map_err(|error| refused(&error))?;
    let key = PublicKey::from_bytes(Algorithm::Ed25519, &*log.log_key).map_err(|error| refused(&error))?;
    let head = Checkpoint::open(&note, &origin, &key, &log.log_key, &log.attestation_key)
        .map_err(|error| refused(&error))?;
    Ok((at, Best { head, note }))
}

/// The larger of two heads; of one and the same head, all who cosigned it.
fn better(known: Best, found: Best, path: &Path) -> Result<Best, Failure> {
    if known.head.size() != found.head.size() {
        return Ok(if known.head.size() > found.head.size() { known } else { found });
    }
    if known.head.root() != found.head.root() {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "{} is of another history than the checkpoint before: the log's key has signed two trees of {} entries; \
                 nothing is proposed, see docs/runbooks/peers.md, \"A log has forked\"",
                path.display(),
                found.head.size()
            ),
        ));
    }
    let Best { head, mut note } = known;
    for line in found.note.lines {
        let there = note.lines.iter().any(|other| other.name == line.name && other.key_id == line.key_id);
        if !there && note.lines.len() < NOTE_LINES_MAX {
            note.lines.push(line);
        }
    }
    Ok(Best { head, note })
}

//! `bulla-fleet inventory`: which boxes the fleet has.
//!
//! Refuses to do: add a box by itself; importing proposes, and people approve.

use crate::desk::{ROSTER, read_roster};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::propose::{Proposal, one_box};
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::report::utc;
use bulla_roster::deed::Deed;
use bulla_roster::inventory::{Listed, State};
use bulla_roster::roster::Roster;
use bulla_roster::rows::{self, TABLE_BYTES_MAX};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Subcommands of `bulla-fleet inventory`.
#[derive(Debug, Subcommand)]
pub enum InventoryCommand {
    /// Propose that the boxes of a table are expected from now on
    Import(ImportArgs),
    /// Print all boxes and what they are
    List(ListArgs),
    /// Print everything about one box
    Show(ShowArgs),
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// CSV whose first line names the columns serial, model, branch, ek (SHA-256 of the endorsement key's
    /// SubjectPublicKeyInfo in hex)
    #[arg(value_name = "ROWS")]
    rows: PathBuf,
}

/// A state, as it is typed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StateName {
    /// In the inventory, not enrolled
    Expected,
    /// A member of the fleet
    Enrolled,
    /// Held back by people
    Quarantined,
    /// Left for compromise
    Revoked,
    /// Left for retirement, or replaced
    Retired,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The fleet directory, or an exchange directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Only boxes that are this
    #[arg(long, value_enum)]
    state: Option<StateName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The fleet directory, or an exchange directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Serial number, or the first 8 digits or more of the endorsement key's hash
    #[arg(value_name = "BOX")]
    which: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(command: &InventoryCommand) -> Result<Exit, Failure> {
    match command {
        InventoryCommand::Import(args) => import(args),
        InventoryCommand::List(args) => list(args),
        InventoryCommand::Show(args) => show(args),
    }
}

fn import(args: &ImportArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let bytes = files::read(&args.rows, TABLE_BYTES_MAX)?;
    let rows = rows::parse(&bytes)
        .map_err(|error| Failure::new(Exit::Refused, format!("{}, {error}", args.rows.display())))?;
    args.proposal.lay(&desk, &roster, &Deed::Import(rows))
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let roster = read_roster(&args.dir.join(ROSTER))?;
    let wanted = args.state.map(|state| match state {
        StateName::Expected => State::Expected,
        StateName::Enrolled => State::Enrolled,
        StateName::Quarantined => State::Quarantined,
        StateName::Revoked => State::Revoked,
        StateName::Retired => State::Retired,
    });
    let mut boxes: Vec<&Listed> = roster.inventory().boxes().collect();
    boxes.retain(|listed| wanted.is_none_or(|wanted| listed.state == wanted));
    boxes.sort_by(|a, b| a.row.serial.cmp(&b.row.serial));
    if args.json {
        let boxes: Vec<Value> = boxes.iter().map(|listed| to_json(listed)).collect();
        let value = json!({
            "fleet": roster.fleet(), "rosterVersion": roster.version().number, "boxes": boxes,
        });
        crate::say(&format!("{value}\n"));
        return Ok(Exit::Ok);
    }
    let head = ["SERIAL", "MODEL", "BRANCH", "STATE", "ENDORSEMENT KEY", "LOGS"].map(str::to_owned);
    let mut lines = vec![head];
    for listed in &boxes {
        let row = &listed.row;
        let key = hex::encode(*row.ek_spki_sha256)[..16].to_owned();
        let logs = listed.logs.len().to_string();
        let state = listed.state.name().to_owned();
        lines.push([row.serial.clone(), row.model.clone(), row.branch.clone(), state, key, logs]);
    }
    crate::say(&table(&lines));
    let count = |state: State| boxes.iter().filter(|listed| listed.state == state).count();
    let counts: Vec<String> = State::ALL
        .into_iter()
        .filter(|state| count(*state) > 0)
        .map(|state| format!("{} {}", count(state), state.name()))
        .collect();
    let counts = if counts.is_empty() { "no boxes".to_owned() } else { counts.join(", ") };
    crate::say(&format!(
        "{counts}; version {} of the roster of {}\n",
        roster.version().number,
        roster.fleet()
    ));
    Ok(Exit::Ok)
}

/// Columns as wide as they must be.
pub fn table<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let padded: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let roster = read_roster(&args.dir.join(ROSTER))?;
    let listed = one_box(&roster, &args.which)?;
    if args.json {
        crate::say(&format!("{}\n", to_json(listed)));
        return Ok(Exit::Ok);
    }
    let row = &listed.row;
    crate::say(&format!(
        "serial           {}\nmodel            {}\nbranch           {}\nendorsement key  ek:sha256:{}\n\
         state            {} since version {}\n",
        row.serial,
        row.model,
        row.branch,
        hex::encode(*row.ek_spki_sha256),
        listed.state.name(),
        listed.since
    ));
    for log in &listed.logs {
        crate::say(&format!(
            "log              {}, log key ed25519:{}\n",
            log.origin,
            hex::encode(*log.log_key)
        ));
    }
    for log in &listed.staged {
        crate::say(&format!(
            "staged           {}, log key ed25519:{}\n",
            log.origin,
            hex::encode(*log.log_key)
        ));
    }
    if let Some(card) = &listed.card {
        let (content, addresses) = (card.content(), card.content().addresses.join(", "));
        crate::say(&format!(
            "card             {}, number {}, {addresses}\n",
            card.fingerprint(),
            content.sequence
        ));
    }
    if let Some((version, file)) = &listed.configuration {
        crate::say(&format!("configuration    sha256:{}, by version {version}\n", hex::encode(**file)));
    }
    for stone in &listed.tombstones {
        let said = &stone.revocation;
        let pardoned =
            stone.pardoned.map_or(String::new(), |version| format!("; pardoned by version {version}"));
        crate::say(&format!(
            "left             by version {} for {}, from {}{pardoned}\n",
            stone.version,
            said.cause.name(),
            utc(said.invalid_from)
        ));
        for log in &said.logs {
            crate::say(&format!(
                "  last good tree {}: {} entries, root {}\n",
                log.origin,
                log.size,
                hex::encode(*log.root)
            ));
        }
    }
    for line in about(&roster, listed) {
        crate::say(&format!("history          {line}\n"));
    }
    Ok(Exit::Ok)
}

/// The changes that concern a box, one line each.
fn about(roster: &Roster, listed: &Listed) -> Vec<String> {
    let ek = &listed.row.ek_spki_sha256;
    let concerns = |deed: &Deed| match deed {
        Deed::Import(rows) => rows.iter().any(|row| row.ek_spki_sha256 == *ek),
        Deed::Enrol(contents) | Deed::Stage(contents) => {
            contents.iter().any(|content| content.ek_spki_sha256 == *ek)
        }
        Deed::Quarantine(named) | Deed::Release(named) | Deed::Pardon(named) => named.ek_spki_sha256 == *ek,
        Deed::Revoke(said) => said.ek_spki_sha256 == *ek || said.successor.as_ref() == Some(ek),
        Deed::Replace(said) => said.ek_spki_sha256 == *ek || said.successor == *ek,
        // What a box does itself is no version of the roster.
        Deed::Operators { .. } | Deed::Hubs(_) | Deed::Anchors(_) | Deed::Policy(_) | Deed::AtBox(_) => false,
        Deed::Configuration(configured) => configured.iter().any(|one| one.ek_spki_sha256 == *ek),
        Deed::Cards(cards) => {
            let of_it = |origin: &str| listed.all_logs().any(|log| log.origin == origin);
            cards.iter().any(|card| of_it(card.origin().as_str()))
        }
    };
    let numbered = roster.history().iter().zip(1..).filter(|(done, _)| concerns(&done.deed));
    numbered.map(|(done, number)| crate::roster::line_of(number, done)).collect()
}

/// A box as JSON.
fn to_json(listed: &Listed) -> Value {
    let key = |ek: &[u8; 32]| format!("ek:sha256:{}", hex::encode(ek));
    let of = |logs: &[EnrolmentContent]| -> Vec<Value> {
        let value = |log: &EnrolmentContent| json!({"origin": log.origin, "logKey": hex::encode(*log.log_key), "enrolledMillis": log.enrolled_at});
        logs.iter().map(value).collect()
    };
    let tombstones: Vec<Value> = listed
        .tombstones
        .iter()
        .map(|stone| {
            let said = &stone.revocation;
            let logs: Vec<Value> = said
                .logs
                .iter()
                .map(|log| json!({"origin": log.origin, "size": log.size, "root": hex::encode(*log.root)}))
                .collect();
            json!({
                "rosterVersion": stone.version,
                "cause": said.cause.name(),
                "invalidFromMillis": said.invalid_from,
                "logs": logs,
                "successor": said.successor.as_ref().map(|ek| key(ek)),
                "pardonedByVersion": stone.pardoned,
            })
        })
        .collect();
    json!({
        "serial": listed.row.serial,
        "model": listed.row.model,
        "branch": listed.row.branch,
        "endorsementKey": key(&listed.row.ek_spki_sha256),
        "state": listed.state.name(),
        "sinceVersion": listed.since,
        "logs": of(&listed.logs),
        "staged": of(&listed.staged),
        "card": listed.card.as_ref().map(|card| json!({
            "fingerprint": card.fingerprint(),
            "sequence": card.content().sequence,
            "addresses": card.content().addresses,
        })),
        "configuration": listed.configuration.as_ref().map(|(version, file)| json!({
            "file": format!("sha256:{}", hex::encode(**file)),
            "rosterVersion": version,
        })),
        "tombstones": tombstones,
    })
}

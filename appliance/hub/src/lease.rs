//! `bulla-hub lease`: the hub answers for a box for a while, and says how far the box may go on by itself afterwards.
//!
//! Signed with the key of the hub's own log, under the hub's name: boxes take it while their fleet's roster names this hub as
//! one that issues leases (docs/formats.md section 21).
//! Refuses to do: answer for a box that is not in the configuration, or whose log has forked, or for longer than 31 days;
//! make keys.
//! Invariant: what is written is read back first, by the rules by which a box takes it.

use crate::config::{AtLimitName, LeaseTerms};
use crate::exit::{Exit, Failure};
use crate::hub::{self, Hub};
use crate::keys::{HubKeys, write_private};
use crate::progress::Progress;
use bulla_formats::body::manifest::AtLimit;
use bulla_formats::der;
use bulla_formats::lease::{Lease, LeaseContent, LeaseLimits};
use bulla_formats::origin::Origin;
use bulla_formats::report::utc;
use clap::{Args, Subcommand};
use ed25519_dalek::Signer as _;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Subcommands of `bulla-hub lease`.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Issue one; hand it in with `bulla-box lease take FILE`
    Issue(IssueArgs),
}

/// Arguments of `issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// The box, by its name in the configuration or its origin
    #[arg(value_name = "BOX")]
    target: String,
    /// For how many hours from now; at most 744
    #[arg(long)]
    hours: u64,
    /// After how many seals it is used up. Default: any number
    #[arg(long)]
    seals: Option<u64>,
    /// Longest emergency afterwards, seconds. Default: no limit
    #[arg(long)]
    limit_seconds: Option<u64>,
    /// Most seals in one emergency. Default: no limit
    #[arg(long)]
    limit_seals: Option<u64>,
    /// Fewest peers that must hold copies. Default: none
    #[arg(long)]
    limit_holders: Option<u64>,
    /// What happens at a limit
    #[arg(long, value_enum, default_value = "continue")]
    at_limit: AtLimitName,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A lease of this hub for the log named `origin`, from now on, and its bytes. Fails with the reason why there is none.
pub fn sign(
    keys: &HubKeys,
    name: &str,
    origin: &str,
    terms: &LeaseTerms,
) -> Result<(Lease, Vec<u8>), String> {
    let origin = Origin::parse(origin).map_err(|error| format!("the origin {origin:?} is none: {error}"))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let issued_at = since.map_err(|_| "the clock stands before 1970; set it".to_owned())?.as_millis() as u64;
    let content = LeaseContent {
        version: 1,
        fleet: origin.fleet().to_owned(),
        origin: origin.to_string(),
        issuer: name.to_owned(),
        issued_at,
        expires_at: issued_at.saturating_add(terms.hours.saturating_mul(3_600_000)),
        seals: terms.seals,
        limits: LeaseLimits {
            seconds: terms.limit_seconds,
            seals: terms.limit_seals,
            holders: terms.limit_holders,
            at_limit: match terms.at_limit {
                AtLimitName::Continue => AtLimit::Continue,
                AtLimitName::Safe => AtLimit::Safe,
            },
        },
    };
    content.check().map_err(|error| format!("there is no such lease: {error}"))?;
    let signature = keys.log.sign(&content.message()).to_bytes().to_vec().into();
    let bytes = der::encode(&Lease { content, chain: Vec::new(), signature });
    let unreadable = |error: &dyn std::fmt::Display| format!("the lease cannot be read back: {error}");
    let lease = Lease::decode(&bytes).map_err(|error| unreadable(&error))?;
    let key = keys.log.verifying_key();
    lease.verify_by_hub(&origin, name, key.as_bytes()).map_err(|error| unreadable(&error))?;
    Ok((lease, bytes))
}

/// Carries it out.
pub fn execute(path: &Path, command: &LeaseCommand, json: bool) -> Result<Exit, Failure> {
    let LeaseCommand::Issue(args) = command;
    let config = hub::load(path)?;
    let serve = config.serve.as_ref().ok_or_else(|| {
        Failure::usage(
            "a lease is signed by the hub's keys, which are named in [serve]; docs/hub.toml shows it",
        )
    })?;
    let known = config.boxes.iter().find(|known| known.name == args.target || known.origin == args.target);
    let known = known.ok_or_else(|| {
        Failure::usage(format!("no box of the configuration is called {:?}, by name or origin", args.target))
    })?;
    let hub = Hub::open(path)?;
    let state = hub.index.known(&known.origin)?.map(|id| hub.index.state(id)).transpose()?;
    drop(hub);
    if let Some(why) = state.and_then(|state| state.frozen) {
        let words = format!(
            "{} gets no lease: its log has two histories ({why}); see `bulla-hub findings`",
            known.name
        );
        return Err(Failure { exit: Exit::Found, message: words });
    }
    let keys = HubKeys::open(&config.state_dir, &serve.name)?.ok_or_else(|| {
        Failure::usage(
            "this hub has no keys yet: `bulla-hub keys` makes them, and the fleet's roster must name them",
        )
    })?;
    let terms = LeaseTerms {
        hours: args.hours,
        seals: args.seals,
        limit_seconds: args.limit_seconds,
        limit_seals: args.limit_seals,
        limit_holders: args.limit_holders,
        at_limit: args.at_limit,
    };
    let (lease, bytes) = sign(&keys, &serve.name, &known.origin, &terms).map_err(Failure::usage)?;
    write_private(&args.out, &bytes)
        .map_err(|error| Failure::usage(format!("cannot write {}: {error}", args.out.display())))?;
    let said = &lease.content;
    let value = json!({
        "box": known.name,
        "origin": said.origin,
        "issuer": said.issuer,
        "issuedMillis": said.issued_at,
        "expiresMillis": said.expires_at,
        "file": args.out,
    });
    let words = format!(
        "{} answers for {} until {}; hand {} in with `bulla-box lease take`",
        said.issuer,
        known.name,
        utc(said.expires_at),
        args.out.display()
    );
    Progress::new(json).say(&words, &value);
    Ok(Exit::Ok)
}

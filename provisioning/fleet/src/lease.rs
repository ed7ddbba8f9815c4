//! `bulla-fleet lease`: answers for a box for a while, and says how far it may go on by itself afterwards.
//!
//! Refuses to do: answer for a box that is no member (any more), or for longer than 31 days.
//! Invariant: what is written is read back first; it holds for each log of the box that is not given up, one file each.

use crate::desk::Desk;
use crate::exit::{Exit, Failure};
use crate::propose::one_box;
use crate::{files, init};
use bulla_formats::body::manifest::AtLimit;
use bulla_formats::der;
use bulla_formats::lease::{LEASE_BYTES_MAX, Lease, LeaseContent, LeaseLimits};
use bulla_formats::report::utc;
use clap::{Args, Subcommand, ValueEnum};
use ed25519_dalek::Signer;
use std::fmt::Write;
use std::path::PathBuf;

/// Subcommands of `bulla-fleet lease`.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// Issue one; hand it in with `bulla-box lease take FILE`
    Issue(IssueArgs),
    /// Print what one says
    Show(ShowArgs),
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum AtLimitName {
    /// Sealing goes on; entries and manifests say that the limit was passed
    Continue,
    /// The box takes no new seals until the outage is over
    Safe,
}

/// Arguments of `issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The exchange directory; by default `exchange` in the fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    exchange: Option<PathBuf>,
    /// Serial number or endorsement key of the box
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
    /// Who issues it, for people
    #[arg(long, default_value = "bulla-fleet")]
    issuer: String,
    /// Where to write it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The lease
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Carries it out.
pub fn run(command: &LeaseCommand) -> Result<Exit, Failure> {
    match command {
        LeaseCommand::Issue(args) => issue(args),
        LeaseCommand::Show(args) => show(args),
    }
}

fn issue(args: &IssueArgs) -> Result<Exit, Failure> {
    let roster = Desk::of(&args.dir, args.exchange.as_deref())?.roster_of(&args.dir)?;
    let listed = one_box(&roster, &args.target)?;
    let log = listed.live_logs().last().ok_or_else(|| {
        Failure::new(Exit::Refused, format!("{} is no member: there is nobody to answer for", args.target))
    })?;
    let fleet_ca = init::fleet_ca(&args.dir)?;
    let certificate = roster.founding().content.fleet_ca.clone();
    let issued_at = crate::now_millis()?;
    let content = LeaseContent {
        version: 1,
        fleet: roster.fleet().to_owned(),
        origin: log.origin.clone(),
        issuer: args.issuer.clone(),
        issued_at,
        expires_at: issued_at.saturating_add(args.hours.saturating_mul(3_600_000)),
        seals: args.seals,
        limits: LeaseLimits {
            seconds: args.limit_seconds,
            seals: args.limit_seals,
            holders: args.limit_holders,
            at_limit: match args.at_limit {
                AtLimitName::Continue => AtLimit::Continue,
                AtLimitName::Safe => AtLimit::Safe,
            },
        },
    };
    content.check().map_err(|error| Failure::usage(format!("there is no such lease: {error}")))?;
    let signature = fleet_ca.sign(&content.message()).to_bytes().to_vec().into();
    let bytes = der::encode(&Lease { content, chain: vec![certificate], signature });
    let lease = Lease::decode(&bytes)
        .map_err(|error| Failure::usage(format!("the lease cannot be read back: {error}")))?;
    files::write(&args.out, &bytes)?;
    crate::say(&words(&lease.content));
    crate::say(&format!("It is in {}; hand it in with `bulla-box lease take`.\n", args.out.display()));
    Ok(Exit::Ok)
}

fn show(args: &ShowArgs) -> Result<Exit, Failure> {
    let bytes = files::read(&args.file, LEASE_BYTES_MAX)?;
    let lease = Lease::decode(&bytes).map_err(|error| {
        Failure::new(Exit::Refused, format!("{} is no lease: {error}", args.file.display()))
    })?;
    crate::say(&words(&lease.content));
    crate::say("Whether the fleet vouches for it, the box says when it is handed in.\n");
    Ok(Exit::Ok)
}

fn words(content: &LeaseContent) -> String {
    let mut text = format!(
        "A lease of {} for {}\n  from {} until {}\n",
        content.issuer,
        content.origin,
        utc(content.issued_at),
        utc(content.expires_at)
    );
    let mut line = |what: &str, value: Option<u64>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {what} {value}");
        }
    };
    line("used up after so many seals:", content.seals);
    line("longest emergency afterwards, seconds:", content.limits.seconds);
    line("most seals in one emergency:", content.limits.seals);
    line("fewest peers that hold copies:", content.limits.holders);
    let at_limit = match content.limits.at_limit {
        AtLimit::Continue => "sealing goes on, and says so",
        AtLimit::Safe => "no new seals are taken",
    };
    let _ = writeln!(text, "  at a limit: {at_limit}");
    text
}

//! `bulla watch`: the agent on a capture PC. What appears in a folder is sealed by the first box that can.
//!
//! `bulla_intake` decides about the folder, [`boxes`] about the boxes, and [`journal`] remembers which box was asked what.
//! Refuses to do: run twice over one state; touch a document; say "sealed" before the results are on the disk.
//! Invariants: one box seals a document once, whatever dies (G3); a document that two boxes may both have sealed says so, in
//! the later seal and in the receipt.

mod boxes;
mod journal;

use crate::client::{BoxClient, BoxOptions};
use crate::exit::{Exit, Failure};
use crate::output::printable;
use crate::progress::Progress;
use boxes::{Boxes, Station};
use bulla_formats::hash::sha256;
use bulla_intake::complete::Format;
use bulla_intake::folder::Trouble;
use bulla_intake::options::{Notice, Options, Policy, Sidecars};
use bulla_intake::run::{Summary, Until};
use clap::{Args, ValueEnum};
use journal::Journal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often unsettled duplicates are asked about.
const SETTLE_EVERY: Duration = Duration::from_secs(5);

/// What XML and JSON beside a document are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sidecar {
    /// Documents of their own
    Off,
    /// Sealed with the document of the same name
    Optional,
    /// The same, and no document without one
    Required,
}

/// Kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Pdf,
    Tiff,
    Jpeg,
    Png,
    /// Everything else
    Other,
}

/// Arguments of `bulla watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// The folder that scanners write to
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Address of a box; repeated: the first one that can is asked
    #[arg(long = "box", value_name = "URL", required = true)]
    boxes: Vec<String>,
    /// CA certificate of the box (PEM); once for all boxes, or once for each in the same order
    #[arg(long, value_name = "FILE", required = true)]
    ca: Vec<PathBuf>,
    /// File with the token; once for all boxes, or once for each in the same order
    #[arg(long, value_name = "FILE", required = true)]
    token_file: Vec<PathBuf>,
    /// Where seals and receipts go; without it beside the documents
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Where documents go that cannot be sealed; without it `error` in the folder
    #[arg(long, value_name = "DIR")]
    errors: Option<PathBuf>,
    /// Also make a page to print for every document
    #[arg(long)]
    slip: bool,
    /// How long a file has to rest before it is looked into
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    stability: Duration,
    /// How long a file may be incomplete before it goes to the errors
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    give_up: Duration,
    /// What XML and JSON beside a document are
    #[arg(long, value_enum, default_value_t = Sidecar::Optional)]
    sidecar: Sidecar,
    /// Accept only these kinds; others go to the errors
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND")]
    accept: Vec<Kind>,
    /// Look through the folder every two seconds instead of being told; network file systems are noticed by themselves
    #[arg(long)]
    poll: bool,
    /// Documents in work at one time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Where the agent remembers which box was asked what; without it below $XDG_STATE_HOME or ~/.local/state
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// How long a box that may have sealed a document is waited for before another one is asked
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    failover_after: Duration,
    /// Seal what is there, then end
    #[arg(long)]
    once: bool,
    /// With --once: how long to go on when nothing can be done
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    patience: Duration,
    /// Plain lines, no progress bar
    #[arg(long)]
    quiet: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "it is not a number of seconds".to_owned())?;
    let range = 0.1..=86_400.0;
    range
        .contains(&seconds)
        .then(|| Duration::from_secs_f64(seconds))
        .ok_or_else(|| "it is not from 0.1 to 86400".to_owned())
}

/// Watches until it is killed, or, with `--once`, until all is settled.
pub fn run(args: &WatchArgs) -> Result<Exit, Failure> {
    let folder = args.folder.canonicalize().map_err(|error| {
        let shown = args.folder.display();
        Failure::usage(format!("{shown} cannot be watched ({error}); name a directory that is there"))
    })?;
    let journal = Journal::open(&state(args, &folder)?)?;
    let boxes = Boxes::new(stations(args)?, journal, args.failover_after, Progress::new(!args.quiet));
    let options = options(args, folder);
    let until = if args.once { Until::Settled(args.patience) } else { Until::Stopped };
    let stop = AtomicBool::new(false);
    let over = AtomicBool::new(false);
    let summary = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                boxes.settle(&options);
                // In short pieces, so that the end is not held up.
                for _ in 0..SETTLE_EVERY.as_millis() / 100 {
                    if !over.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        });
        let summary = bulla_intake::run::run(&options, &boxes, &stop, until);
        over.store(true, Ordering::Relaxed);
        summary
    });
    // What came to an end meanwhile is told now, or by the next run.
    boxes.settle(&options);
    let summary = summary.map_err(|error| Failure::usage(error.to_string()))?;
    Ok(report(&summary, &boxes))
}

fn report(summary: &Summary, boxes: &Boxes) -> Exit {
    for (name, trouble) in &summary.left {
        let why = match trouble {
            Some(Trouble::Wanting(why)) => format!("it is not complete: {why}"),
            Some(Trouble::Busy(why) | Trouble::Door(why)) => why.clone(),
            None => "it was not its turn yet".to_owned(),
        };
        boxes.progress().complain(&format!("LEFT     {}  {}", name.display(), printable(&why)));
    }
    let (sealed, rejected, left) = (summary.sealed, summary.rejected, summary.left_count);
    boxes.progress().say(&format!("{sealed} sealed, {rejected} not sealable, {left} left"));
    let box_fault = |(_, trouble): &(PathBuf, Option<Trouble>)| matches!(trouble, Some(Trouble::Door(_)));
    match (rejected, left) {
        (0, 0) => Exit::Ok,
        _ if summary.left.iter().any(box_fault) => Exit::Box,
        _ => Exit::Usage,
    }
}

fn stations(args: &WatchArgs) -> Result<Vec<Station>, Failure> {
    let count = args.boxes.len();
    let of = |files: &'_ [PathBuf], number: usize, name: &str| match files.len() {
        1 => Ok(files[0].clone()),
        length if length == count => Ok(files[number].clone()),
        length => Err(Failure::usage(format!(
            "{name} is given {length} times for {count} boxes; give it once, or once for each box in the same order"
        ))),
    };
    let station = |(number, url): (usize, &String)| {
        let (ca, token_file) = (of(&args.ca, number, "--ca")?, of(&args.token_file, number, "--token-file")?);
        Ok(Station::new(BoxClient::new(&BoxOptions { url: url.clone(), ca, token_file, attempts: 1 })?))
    };
    args.boxes.iter().enumerate().map(station).collect()
}

/// Where the agent of this folder remembers.
fn state(args: &WatchArgs, folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(state) = &args.state {
        return Ok(state.clone());
    }
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home);
    let base =
        base.ok_or_else(|| Failure::usage("there is no home directory to remember in; give --state DIR"))?;
    let name = sha256(&[folder.as_os_str().as_encoded_bytes()]).to_string();
    Ok(base.join("bulla/watch").join(&name[..16]))
}

fn options(args: &WatchArgs, folder: PathBuf) -> Options {
    let format = |kind: &Kind| match kind {
        Kind::Pdf => Format::Pdf,
        Kind::Tiff => Format::Tiff,
        Kind::Jpeg => Format::Jpeg,
        Kind::Png => Format::Png,
        Kind::Other => Format::Other,
    };
    let policy = Policy {
        stability: args.stability,
        give_up: args.give_up,
        sidecars: match args.sidecar {
            Sidecar::Off => Sidecars::Off,
            Sidecar::Optional => Sidecars::Optional,
            Sidecar::Required => Sidecars::Required,
        },
        formats: args.accept.iter().map(format).collect(),
        jobs: usize::from(args.jobs),
        ..Policy::default()
    };
    let usual = Options::new(folder);
    Options {
        results: args.results.clone(),
        errors: args.errors.clone().unwrap_or(usual.errors),
        slip: args.slip,
        notice: if args.poll { Notice::Polling } else { Notice::Auto },
        policy,
        folder: usual.folder,
        identity: usual.identity,
        look_every: usual.look_every,
    }
}

//! `bulla-fleet attend`: a custodian's process. It asks its person, and says what the protocol wants.
//!
//! Refuses to do: show anything before its state is on disk, or agree in its person's place (but for `--yes`).
//! Invariant: killed at any moment and started again, it goes on and says nothing else.

use crate::ask::ask;
use crate::exchange::Exchange;
use crate::exit::{Exit, Failure};
use crate::{files, person, random};
use bulla_ceremony::board::Board;
use bulla_ceremony::custodian::{Custodian, Progress};
use bulla_ceremony::rand_core::SeedableRng;
use bulla_ceremony::state::{STATE_BYTES_MAX, State};
use bulla_ceremony::wire::Plan;
use clap::Args;
use rand_chacha::ChaCha20Rng;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the exchange directory is looked at.
pub const PAUSE: Duration = Duration::from_millis(100);

/// Arguments of `bulla-fleet attend`.
#[derive(Debug, Args)]
pub struct AttendArgs {
    /// The custodian's own directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// The exchange directory of the ceremony
    #[arg(long, value_name = "DIRECTORY")]
    exchange: PathBuf,
    /// Agree to everything that is asked; for scripts and trials
    #[arg(long)]
    yes: bool,
    /// Do what can be done now and end with code 3 if others must act first, instead of waiting for them
    #[arg(long)]
    once: bool,
}

/// Takes part until the minutes are signed.
pub fn run(args: &AttendArgs) -> Result<Exit, Failure> {
    let _alone = files::Lock::take(&args.dir)?;
    let exchange = Exchange::open(&args.exchange)?;
    let mut told = String::new();
    loop {
        let waits = match exchange.plan()? {
            None => "waits for the plan".to_owned(),
            Some(plan) => match attend(args, &exchange, &plan)? {
                Outcome::Waits(what) => what,
                Outcome::Ends(exit) => return Ok(exit),
            },
        };
        if waits != told {
            crate::say(&format!("{waits}\n"));
            told = waits;
        }
        if args.once {
            return Ok(Exit::Waits);
        }
        std::thread::sleep(PAUSE);
    }
}

enum Outcome {
    Waits(String),
    Ends(Exit),
}

/// Where the state of this ceremony is kept.
fn state_path(dir: &Path, plan: &Plan) -> PathBuf {
    dir.join(format!("ceremony-{}", &hex::encode(plan.id().0)[..16]))
}

/// As far as it goes with what lies in the exchange directory.
fn attend(args: &AttendArgs, exchange: &Exchange, plan: &Plan) -> Result<Outcome, Failure> {
    let path = state_path(&args.dir, plan);
    let state = files::read_if_there(&path, STATE_BYTES_MAX)?;
    let state = state.map(|bytes| State::decode(&bytes)).transpose()?;
    let mut custodian = Custodian::new(plan.clone(), person::open_custodian(&args.dir)?, state)?;
    let mut rng = ChaCha20Rng::from_seed(*random()?);
    loop {
        let mut board = exchange.board(plan)?;
        if show(&custodian, exchange, &board)? {
            board = exchange.board(plan)?;
        }
        if let Some(transcript) = exchange.transcript()?.filter(|transcript| transcript.content.plan == *plan)
        {
            crate::say(&format!(
                "The ceremony is over. Fleet root ed25519:{}\n",
                hex::encode(*transcript.content.root)
            ));
            return Ok(Outcome::Ends(Exit::Ok));
        }
        match custodian.step(&board, &mut rng)? {
            Progress::Waits(what) => return Ok(Outcome::Waits(what)),
            Progress::Said => {}
            Progress::Asks(question) => {
                let agrees = args.yes || ask(&question.text)?;
                custodian.answer(&board, question.about, agrees, &mut rng)?;
                if !agrees {
                    files::write_private(&path, &custodian.state().encode())?;
                    show(&custodian, exchange, &board)?;
                    crate::say("Declined.\n");
                    return Ok(Outcome::Ends(Exit::Declined));
                }
            }
        }
        files::write_private(&path, &custodian.state().encode())?;
    }
}

/// Lays out what was said and does not lie there; whether there was any.
fn show(custodian: &Custodian, exchange: &Exchange, board: &Board) -> Result<bool, Failure> {
    let mut any = false;
    for message in custodian.said()? {
        any |= exchange.lay(board, &message)?;
    }
    Ok(any)
}

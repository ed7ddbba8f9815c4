//! `bulla-fleet init`: the key ceremony, led from the fleet directory.
//!
//! Refuses to do: overwrite a fleet, hold a share of the root (but where one custodian holds it all, in a directory
//! beside), or call a ceremony done before the root has signed its minutes.
//! Invariant: everything it decides is in `plan` before anybody sees it; killed at any moment and started again with
//! `--dir` alone, it goes on.

use crate::attend::PAUSE;
use crate::desk::ROSTER;
use crate::exchange::Exchange;
use crate::exit::{Exit, Failure};
use crate::{files, person, random};
use bulla_ceremony::coordinator::{self, Order};
use bulla_ceremony::transcript::Transcript;
use bulla_ceremony::wire::{Card, Duty, PLAN_BYTES_MAX, Plan, Step};
use bulla_formats::der::{self, Octets32};
use bulla_formats::trust::{Policy, TrustFile, fingerprint};
use bulla_roster::roster::{ROSTER_BYTES_MAX, Roster};
use clap::Args;
use ed25519_dalek::SigningKey;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use zeroize::{Zeroize, Zeroizing};

const KEYS: &str = "fleet.keys";
const KEYS_BYTES_MAX: usize = 1 << 10;
/// Directory of the single custodian, in the fleet directory.
pub const ALONE: &str = "custodian";

/// Arguments of `bulla-fleet init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The fleet directory; made if it is not there. Alone, it goes on with a ceremony that was begun there
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Domain of the fleet, e.g. bank.example
    #[arg(long)]
    fleet: Option<String>,
    /// Card of a custodian, once for each, in the order of their numbers; without any, one custodian holds the whole
    /// root, in a directory beside: fit for a laptop or a trial
    #[arg(long = "custodian", value_name = "CARD")]
    custodians: Vec<PathBuf>,
    /// Custodians that must agree before the root signs; with custodians' cards, at least 2
    #[arg(long, value_name = "NUMBER")]
    threshold: Option<u64>,
    /// Card of an operator, once for each
    #[arg(long = "operator", value_name = "CARD")]
    operators: Vec<PathBuf>,
    /// Operators that must approve a dangerous action
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    operators_needed: u64,
    /// Directory where the custodians lay out their messages; by default `exchange` in the fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    exchange: Option<PathBuf>,
    /// Do what can be done now and end with code 3 if custodians must act first, instead of waiting for them
    #[arg(long)]
    once: bool,
    /// Ask the custodians once more: for when one agreed to sign and then left
    #[arg(long)]
    again: bool,
}

/// `fleet.keys`: docs/formats.md, "Key ceremony".
#[derive(AsnType, Decode, Encode)]
pub struct FleetKeys {
    version: u64,
    coordinator: Octets32,
    /// Seed of the fleet CA.
    pub fleet_ca: Octets32,
}

impl Drop for FleetKeys {
    fn drop(&mut self) {
        self.coordinator.zeroize();
        self.fleet_ca.zeroize();
    }
}

/// Leads a ceremony to its end.
pub fn run(args: &InitArgs) -> Result<Exit, Failure> {
    files::make_private_dir(&args.dir)?;
    let _alone = files::Lock::take(&args.dir)?;
    let exchange = Exchange::make(&args.exchange.clone().unwrap_or_else(|| args.dir.join("exchange")))?;
    let plan_path = args.dir.join("plan");
    let begun = files::read_if_there(&plan_path, PLAN_BYTES_MAX)?;
    let plan = match begun {
        Some(bytes) => resumed(args, Plan::decode(&bytes)?)?,
        None => {
            let plan = planned(args)?;
            files::write(&plan_path, &der::encode(&plan))?;
            plan
        }
    };
    let keys = keys(&args.dir)?;
    match exchange.plan()? {
        None => exchange.lay_plan(&plan)?,
        Some(other) if other != plan => {
            return Err(Failure::usage(
                "the exchange directory belongs to another ceremony; give each its own with --exchange"
                    .to_owned(),
            ));
        }
        Some(_) => {}
    }
    announce(args, &plan);
    let _custodian = Attending::start(args, &exchange, &plan)?;
    let transcript = lead(args, &exchange, &plan, &SigningKey::from_bytes(&keys.coordinator))?;
    let Some(transcript) = transcript else { return Ok(Exit::Waits) };
    finish(args, &exchange, &transcript)?;
    Ok(Exit::Ok)
}

/// A plan that is on disk counts; arguments that contradict it are refused rather than ignored.
fn resumed(args: &InitArgs, plan: Plan) -> Result<Plan, Failure> {
    let other = args.fleet.as_ref().is_some_and(|fleet| *fleet != plan.fleet)
        || !args.custodians.is_empty()
        || !args.operators.is_empty()
        || args.threshold.is_some_and(|threshold| threshold != plan.threshold);
    if other {
        return Err(Failure::usage(format!(
            "{} holds the plan of a ceremony already; go on with --dir alone, or choose another directory",
            args.dir.display()
        )));
    }
    Ok(plan)
}

fn planned(args: &InitArgs) -> Result<Plan, Failure> {
    let Some(fleet) = &args.fleet else {
        return Err(Failure::usage(
            "a new fleet needs a name: give --fleet, e.g. --fleet bank.example".to_owned(),
        ));
    };
    if args.again {
        return Err(Failure::usage("nobody was asked yet; leave out --again".to_owned()));
    }
    bulla_formats::origin::check_fleet(fleet).map_err(|error| Failure::usage(error.to_string()))?;
    let custodians = match args.custodians.is_empty() {
        true => vec![lone_custodian(&args.dir)?],
        false => args.custodians.iter().map(|path| card(path)).collect::<Result<_, _>>()?,
    };
    let threshold = match (args.threshold, custodians.len()) {
        (Some(threshold), _) => threshold,
        (None, 1) => 1,
        (None, all) => {
            return Err(Failure::usage(format!(
                "say how many of the {all} custodians must agree: --threshold"
            )));
        }
    };
    let operators = args.operators.iter().map(|path| card(path)).collect::<Result<Vec<_>, _>>()?;
    let keys =
        FleetKeys { version: 1, coordinator: Octets32::new(*random()?), fleet_ca: Octets32::new(*random()?) };
    files::write_private(&args.dir.join(KEYS), &Zeroizing::new(der::encode(&keys)))?;
    let public = |seed: &Octets32| Octets32::new(SigningKey::from_bytes(seed).verifying_key().to_bytes());
    let plan = Plan {
        version: 1,
        fleet: fleet.clone(),
        threshold,
        custodians,
        operators_needed: if operators.is_empty() { 0 } else { args.operators_needed },
        operators,
        coordinator_key: public(&keys.coordinator),
        fleet_ca_key: public(&keys.fleet_ca),
        nonce: Octets32::new(*random()?),
        created_at: crate::now_millis()?,
    };
    plan.check().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(plan)
}

fn card(path: &Path) -> Result<Card, Failure> {
    let bytes = files::read(path, 4 << 10)?;
    Card::decode(&bytes).map_err(|error| Failure::new(Exit::Refused, format!("{}: {error}", path.display())))
}

/// The card of the single custodian, whose directory is beside; made if it is not there.
fn lone_custodian(dir: &Path) -> Result<Card, Failure> {
    let home = dir.join(ALONE);
    match home.join("card").exists() {
        true => card(&home.join("card")),
        false => person::create(&home, Duty::Custodian, "the only custodian"),
    }
}

/// The fleet's own keys.
pub fn keys(dir: &Path) -> Result<FleetKeys, Failure> {
    let path = dir.join(KEYS);
    let bytes = files::read(&path, KEYS_BYTES_MAX)?;
    let keys: FleetKeys = der::decode("fleet's keys", &bytes, KEYS_BYTES_MAX)
        .map_err(|error| Failure::file("read", &path, error))?;
    if keys.version != 1 {
        return Err(Failure::usage(format!("{} is of a version this program does not know", path.display())));
    }
    Ok(keys)
}

/// The fleet CA's key.
pub fn fleet_ca(dir: &Path) -> Result<SigningKey, Failure> {
    Ok(SigningKey::from_bytes(&keys(dir)?.fleet_ca))
}

fn announce(args: &InitArgs, plan: &Plan) {
    for card in plan.custodians.iter().chain(&plan.operators) {
        let fingerprint = fingerprint(&der::encode(card));
        crate::say(&format!("Card {fingerprint} of {}\n", card.content.name));
    }
    crate::say(&format!(
        "Plan sha256:{}: read it out; every custodian must see the same.\n",
        hex::encode(plan.id().0)
    ));
    if plan.is_alone() {
        crate::say(&format!(
            "WARNING: ONE CUSTODIAN HOLDS THE WHOLE ROOT, in {}. Fit for a laptop or a trial, not for a bank:\n\
             a bank gives --custodian for each of several people, and --threshold.\n",
            args.dir.join(ALONE).display()
        ));
    }
}

/// The process of the single custodian, which ends with the ceremony.
struct Attending(Option<Child>);

impl Attending {
    fn start(args: &InitArgs, exchange: &Exchange, plan: &Plan) -> Result<Self, Failure> {
        let home = args.dir.join(ALONE);
        if !plan.is_alone() || !home.is_dir() || exchange.transcript()?.is_some() {
            return Ok(Attending(None));
        }
        let program = std::env::current_exe()
            .map_err(|error| Failure::usage(format!("cannot find itself: {error}")))?;
        let mut command = Command::new(program);
        command.arg("attend").arg("--yes").arg("--dir").arg(&home).arg("--exchange").arg(exchange.path(""));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        child
            .map(|child| Attending(Some(child)))
            .map_err(|error| Failure::usage(format!("cannot start the custodian: {error}")))
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // It ends by itself when it sees the minutes; when there are none, it must not go on alone.
            for _ in 0..50 {
                if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                    return;
                }
                std::thread::sleep(PAUSE);
            }
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}

/// Until the minutes are signed; `None` when others must act first and `--once` was given.
fn lead(
    args: &InitArgs,
    exchange: &Exchange,
    plan: &Plan,
    key: &SigningKey,
) -> Result<Option<Transcript>, Failure> {
    if args.again {
        let board = exchange.board(plan)?;
        exchange.lay(&board, &coordinator::again(&board, key)?)?;
    }
    let mut told = String::new();
    loop {
        let board = exchange.board(plan)?;
        match coordinator::next(&board, key)? {
            Order::Done(transcript) => return Ok(Some(*transcript)),
            Order::Say(message) => {
                if message.content.step == Step::Request {
                    crate::say(&format!(
                        "asks the custodians to sign: request {}\n",
                        message.content.request
                    ));
                }
                exchange.lay(&board, &message)?;
            }
            Order::Waits(what) => {
                if what != told {
                    crate::say(&format!("{what}\n"));
                    told = what;
                }
                if args.once && !plan.is_alone() {
                    return Ok(None);
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// The policy of a fleet whose people have not decided on one yet.
pub fn first_policy() -> Policy {
    Policy { accept_software: false, require_facts: vec!["sealed".to_owned()] }
}

/// Files the minutes and what follows from them.
fn finish(args: &InitArgs, exchange: &Exchange, transcript: &Transcript) -> Result<(), Failure> {
    let content = &transcript.content;
    let trust = TrustFile {
        fleet: content.plan.fleet.clone(),
        issued_millis: content.plan.created_at,
        roots: vec![*content.root],
        references: Vec::new(),
        policy: first_policy(),
        roster: None,
        authorities: None,
        cosigners: Vec::new(),
    };
    let trust = trust.encode();
    let fingerprint = fingerprint(trust.as_bytes());
    let (record, text) = (der::encode(transcript), transcript.to_text(&fingerprint));
    let certificate = der::encode(&content.fleet_ca);
    let roster = Roster::found(transcript.clone())?.encode();
    for dir in [args.dir.clone(), exchange.path("")] {
        files::write(&dir.join("trust.json"), trust.as_bytes())?;
        files::write(&dir.join("fleet-ca.der"), &certificate)?;
        files::write(&dir.join("transcript.txt"), text.as_bytes())?;
        // A roster that has gone on since must not begin anew.
        if files::read_if_there(&dir.join(ROSTER), ROSTER_BYTES_MAX)?.is_none() {
            files::write(&dir.join(ROSTER), &roster)?;
        }
        // Last: it is what says that the ceremony is over.
        files::write(&dir.join("transcript"), &record)?;
    }
    crate::say(&text);
    crate::say(&format!(
        "Print {}, have it signed, and hand out {} with its fingerprint {fingerprint}.\n",
        args.dir.join("transcript.txt").display(),
        args.dir.join("trust.json").display()
    ));
    Ok(())
}

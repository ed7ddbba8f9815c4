//! `bulla-fleet propose anchors | policy | reference | hub`: the fleet's terms, laid out for people to approve; and the guard
//! that keeps one person from changing them in a trust file.
//!
//! Refuses to do: fetch a root or a key; whoever approves compares its fingerprint with what its owner publishes.
//! Invariant: a proposal is the whole of what will hold, so what the roster has (or, before it has anything, the trust file)
//! is where each begins.

mod show;

pub use show::{to_json, to_text};

use crate::authority::{add_roots, add_witness};
use crate::desk::{ROSTER, read_roster};
use crate::exit::{Exit, Failure};
use crate::propose::Proposal;
use crate::{files, init, reference};
use bulla_approvals::action::Kind;
use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_formats::json::base64_decode;
use bulla_formats::note::verifier_key;
use bulla_formats::trust::{Authorities, TRUST_BYTES_MAX, TrustFile};
use bulla_formats::witness::WitnessKey;
use bulla_roster::deed::Deed;
use bulla_roster::roster::Roster;
use bulla_roster::terms::{Anchors, Hub, Policy};
use bulla_timestamps::certificates_in_pem;
use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::server::ParsedCertificate;
use std::path::{Path, PathBuf};

/// Longest file with a certificate in bytes.
const PEM_BYTES_MAX: usize = 1 << 20;
/// Type of a log's key in a verifier key, as C2SP numbers them.
const LOG_KEY_TYPE: u8 = 0x01;

/// Arguments of `anchors`.
#[derive(Debug, Args)]
pub struct AnchorsArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Who it is, exactly as the boxes' configurations name it
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// PEM file of the roots that the operator's time stamps must lead to; roots that it has already stay
    #[arg(long, value_name = "FILE", requires = "operator")]
    add: Option<PathBuf>,
    /// Policy OID accepted in its tokens; repeatable. None: any
    #[arg(long, value_name = "OID", requires = "add")]
    policy: Vec<String>,
    /// Verifier key of the operator's witness
    #[arg(long, value_name = "KEY", requires = "operator")]
    witness: Option<String>,
    /// Operator whose time stamps and witnesses are believed no more. Seals of before need them: prefer to keep them
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// How many distinct operators a bound takes from now on
    #[arg(long, value_name = "NUMBER")]
    operators: Option<u64>,
    /// Begin with what this trust file says, instead of what the roster says
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Whether keys without a TPM are acceptable
    #[arg(long, value_name = "true|false")]
    accept_software: Option<bool>,
    /// Fact that a seal must have, e.g. attested; repeatable. Given once, these are all that are required
    #[arg(long, value_name = "FACT")]
    require: Vec<String>,
    /// Begin with what this trust file says, known good boots among it, instead of what the roster says
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Arguments of `reference`.
#[derive(Debug, Args)]
pub struct ReferenceArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Name of the boot, e.g. "image 1.2.0"
    #[arg(long, requires = "log")]
    name: Option<String>,
    /// Event log of a boot that is known to be good
    #[arg(long, value_name = "LOG", requires = "name")]
    log: Option<PathBuf>,
    /// PCRs that count; see `bulla-fleet reference add`
    #[arg(long, value_delimiter = ',', default_value = reference::PCRS)]
    pcrs: Vec<u8>,
    #[command(flatten)]
    vouched: reference::Vouched,
    /// Name of a boot that is good no more
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
    /// Begin with what this trust file says, the policy among it, instead of what the roster says
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// Arguments of `hub`.
#[derive(Debug, Args)]
pub struct HubArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Verifier key of the hub's witness, as `bulla-hub keys` prints it; a hub of that name gives way
    #[arg(long, value_name = "KEY", requires = "heads")]
    witness: Option<String>,
    /// Verifier key of the hub's own log
    #[arg(long, value_name = "KEY", requires = "witness")]
    heads: Option<String>,
    /// Boxes take leases of it
    #[arg(long, requires = "heads")]
    leases: bool,
    /// PEM file of a certificate with which it asks boxes: whoever has its key is let in as this hub
    #[arg(long, value_name = "FILE", requires = "heads")]
    client: Vec<PathBuf>,
    /// PEM file of a certificate with which it serves
    #[arg(long, value_name = "FILE", requires = "heads")]
    server: Vec<PathBuf>,
    /// Where it is reached, https://...
    #[arg(long, value_name = "URL", requires = "heads")]
    address: Vec<String>,
    /// Name of a hub that is none any more: boxes shut it out at once
    #[arg(long, value_name = "NAME")]
    remove: Vec<String>,
}

fn read_trust(path: &Path) -> Result<TrustFile, Failure> {
    let bytes = files::read(path, TRUST_BYTES_MAX)?;
    TrustFile::decode(&bytes)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display())))
}

/// The trust file to begin with: the one that was named, else the one that lies in the fleet directory.
fn begin_with(from: Option<&Path>, dir: &Path, roster: &Roster) -> Result<Option<TrustFile>, Failure> {
    let usual = dir.join("trust.json");
    let path = match from {
        Some(path) => path,
        None if usual.exists() => &usual,
        None => return Ok(None),
    };
    let trust = read_trust(path)?;
    roster.check_root(&trust)?;
    crate::say(&format!("It begins with what {} says.\n", path.display()));
    Ok(Some(trust))
}

/// `propose anchors`.
pub fn anchors(args: &AnchorsArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let before = match &roster.terms().anchors {
        Some((_, anchors)) if args.from.is_none() => anchors.authorities()?,
        _ => {
            begin_with(args.from.as_deref(), &args.proposal.dir, &roster)?.and_then(|trust| trust.authorities)
        }
    };
    let mut all = before.unwrap_or(Authorities { tsas: Vec::new(), witnesses: Vec::new(), operators: 1 });
    for operator in &args.remove {
        let count = all.tsas.len() + all.witnesses.len();
        all.tsas.retain(|tsa| tsa.operator != *operator);
        all.witnesses.retain(|witness| witness.operator != *operator);
        if all.tsas.len() + all.witnesses.len() == count {
            return Err(Failure::usage(format!("nobody's time is believed under the name {operator:?}")));
        }
    }
    if let Some(operator) = &args.operator {
        match (&args.add, &args.witness) {
            (None, None) => {
                return Err(Failure::usage(
                    "say what is believed of the operator: --add ROOTS.pem, or --witness KEY",
                ));
            }
            (add, witness) => {
                if let Some(path) = add {
                    add_roots(&mut all, operator, path, &args.policy)?;
                }
                if let Some(key) = witness {
                    add_witness(&mut all, operator, key)?;
                }
            }
        }
    }
    all.operators = args.operators.unwrap_or(all.operators);
    args.proposal.lay(&desk, &roster, &Deed::Anchors(Anchors::of(Some(&all))))
}

/// The policy that a proposal begins with.
fn policy_before(roster: &Roster, from: Option<&Path>, dir: &Path) -> Result<Policy, Failure> {
    if let (Some((_, policy)), None) = (&roster.terms().policy, from) {
        return Ok(policy.clone());
    }
    Ok(match begin_with(from, dir, roster)? {
        Some(trust) => Policy::of(&trust.policy, &trust.references),
        None => Policy::of(&init::first_policy(), &[]),
    })
}

/// `propose policy`.
pub fn policy(args: &PolicyArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let mut policy = policy_before(&roster, args.from.as_deref(), &args.proposal.dir)?;
    policy.accept_software = args.accept_software.unwrap_or(policy.accept_software);
    if !args.require.is_empty() {
        policy.require_facts.clone_from(&args.require);
    }
    args.proposal.lay(&desk, &roster, &Deed::Policy(policy))
}

/// `propose reference`.
pub fn reference(args: &ReferenceArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let mut policy = policy_before(&roster, args.from.as_deref(), &args.proposal.dir)?;
    for name in &args.remove {
        let count = policy.boots.len();
        policy.boots.retain(|boot| boot.name != *name);
        if policy.boots.len() == count {
            return Err(Failure::usage(format!("no known good boot is called {name:?}")));
        }
    }
    if let (Some(name), Some(log)) = (&args.name, &args.log) {
        let boot = reference::reference_of(name, log, &args.pcrs, &args.vouched)?;
        policy.boots.extend(Policy::of(&policy.policy(), &[boot]).boots);
    }
    args.proposal.lay(&desk, &roster, &Deed::Policy(policy))
}

/// Name and key in a verifier key of a hub's own log.
fn heads_key(text: &str) -> Option<(&str, [u8; 32])> {
    let (name, rest) = text.split_once('+')?;
    let raw = base64_decode(rest.split_once('+')?.1).ok()?;
    let key: [u8; 32] = raw.strip_prefix(&[LOG_KEY_TYPE])?.try_into().ok()?;
    (verifier_key(name, &key) == text).then_some((name, key))
}

/// SHA-256 of the SubjectPublicKeyInfo of the first certificate in each file, ascending.
fn pins(paths: &[PathBuf]) -> Result<Vec<Octets32>, Failure> {
    let mut pins = Vec::new();
    for path in paths {
        let refused = |why: &dyn std::fmt::Display| {
            Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
        };
        let found =
            certificates_in_pem(&files::read(path, PEM_BYTES_MAX)?).map_err(|error| refused(&error))?;
        let first = found.into_iter().next().ok_or_else(|| refused(&"it holds no certificate in PEM"))?;
        let certificate = CertificateDer::from(first);
        let parsed = ParsedCertificate::try_from(&certificate).map_err(|error| refused(&error))?;
        pins.push(Octets32::new(sha256(&[&parsed.subject_public_key_info()]).0));
    }
    pins.sort_unstable();
    pins.dedup();
    Ok(pins)
}

/// `propose hub`.
pub fn hub(args: &HubArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let mut hubs = roster.terms().hubs.clone();
    for name in &args.remove {
        let count = hubs.len();
        hubs.retain(|hub| hub.name != *name);
        if hubs.len() == count {
            return Err(Failure::usage(format!(
                "no hub of the roster is called {name:?}; see `bulla-fleet roster show`"
            )));
        }
    }
    if let (Some(witness), Some(heads)) = (&args.witness, &args.heads) {
        let key = WitnessKey::parse(witness);
        let names = key.as_ref().and_then(|key| key.name().strip_suffix("/witness"));
        let (Some(key), Some(name)) = (&key, names) else {
            return Err(Failure::usage(format!(
                "{witness:?} is no verifier key of a hub's witness (NAME/witness+...)"
            )));
        };
        let heads = heads_key(heads).filter(|(log, _)| log.strip_suffix("/heads") == Some(name));
        let Some((_, heads_key)) = heads else {
            return Err(Failure::usage(format!("--heads is no verifier key of the log {name}/heads")));
        };
        hubs.retain(|hub| hub.name != name);
        hubs.push(Hub {
            name: name.to_owned(),
            witness_key: Octets32::new(*key.bytes()),
            heads_key: Octets32::new(heads_key),
            leases: args.leases,
            clients: pins(&args.client)?,
            servers: pins(&args.server)?,
            addresses: args.address.clone(),
        });
        hubs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    } else if args.remove.is_empty() {
        return Err(Failure::usage("say which hub: --witness KEY --heads KEY, or --remove NAME"));
    }
    args.proposal.lay(&desk, &roster, &Deed::Hubs(hubs))
}

/// Refuses to change a trust file by hand where several people decide what stands in it: in a fleet's directory or its
/// exchange directory, when the roster there has said it already, or its people are more than one.
///
/// # Errors
/// It is so; the sentence names the proposal to make instead.
pub fn not_by_hand(paths: [&Path; 2], kind: Kind, instead: &str) -> Result<(), Failure> {
    for path in paths {
        let dir = path.parent().unwrap_or(Path::new(""));
        let beside = dir.join(ROSTER);
        // The minutes tell a fleet's directories from an auditor's, who may believe whom he likes.
        if !beside.exists() || !dir.join("transcript").exists() {
            continue;
        }
        let roster = read_roster(&beside)?;
        let said = match kind {
            Kind::Anchors => roster.terms().anchors.is_some(),
            _ => roster.terms().policy.is_some(),
        };
        let needed = needed(&roster, kind)?;
        if said || needed > 1 {
            return Err(Failure::new(
                Exit::Refused,
                format!(
                    "{} is not changed by hand: {} says that {needed} of its people decide; propose it with \
                     `bulla-fleet propose {instead}` (where too few are left, the custodians decide: --override)",
                    path.display(),
                    beside.display()
                ),
            ));
        }
    }
    Ok(())
}

/// How many people it takes.
pub fn needed(roster: &Roster, kind: Kind) -> Result<usize, Failure> {
    let (_, needed) = roster.electorate().quorum(kind, false).map_err(bulla_roster::RosterRefusal::from)?;
    Ok(needed)
}

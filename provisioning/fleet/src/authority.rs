//! `bulla-fleet authority`: whose time a trust file believes: roots of time-stamp authorities, keys of witnesses, and how
//! many operators it takes.
//!
//! Refuses to do: fetch a root; whoever adds one has compared its fingerprint. Take an operator's root out silently: old
//! anchors need it, so that is said. Change what several people decide: they propose it (`terms`).
//! Invariant: what is written is read back first.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::terms::not_by_hand;
use bulla_approvals::action::Kind;
use bulla_formats::hash::sha256;
use bulla_formats::trust::{
    Authorities, TRUST_BYTES_MAX, TrustFile, TrustedTsa, TrustedWitness, fingerprint,
};
use bulla_formats::witness::WitnessKey;
use bulla_timestamps::{Authority, Oid, certificates_in_pem};
use clap::{Args, Subcommand};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Most bytes of a file with roots.
const PEM_BYTES_MAX: usize = 1 << 20;

/// Subcommands of `bulla-fleet authority`.
#[derive(Debug, Subcommand)]
pub enum AuthorityCommand {
    /// Believe an operator: its time-stamp authorities by their roots, or its witness by its key
    Add(AddArgs),
    /// List whom a trust file believes
    List(ListArgs),
}

/// Arguments of `add`.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Trust file
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
    /// Who runs it, exactly as the boxes' configurations name it
    #[arg(long)]
    operator: String,
    #[command(flatten)]
    what: What,
    /// Policy OID accepted in its tokens; repeatable. None: any
    #[arg(long, value_name = "OID", requires = "roots")]
    policy: Vec<String>,
    /// From now on, how many distinct operators a bound takes; without it, it stays as it was, or is 1
    #[arg(long, value_name = "NUMBER")]
    operators: Option<u64>,
    /// Where to write the trust file; it may be the same
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// PEM file of the roots that its tokens must lead to; roots that the operator has already stay
    #[arg(long, value_name = "FILE")]
    roots: Option<PathBuf>,
    /// Verifier key of its witness
    #[arg(long, value_name = "KEY")]
    witness: Option<String>,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Trust file
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

/// Carries it out.
pub fn run(command: &AuthorityCommand) -> Result<Exit, Failure> {
    match command {
        AuthorityCommand::Add(args) => add(args),
        AuthorityCommand::List(args) => list(args),
    }
}

fn read_trust(path: &Path) -> Result<TrustFile, Failure> {
    let bytes = files::read(path, TRUST_BYTES_MAX)?;
    TrustFile::decode(&bytes)
        .map_err(|error| Failure::new(Exit::Refused, format!("{} is refused: {error}", path.display())))
}

fn add(args: &AddArgs) -> Result<Exit, Failure> {
    not_by_hand([&args.trust, &args.out], Kind::Anchors, "anchors")?;
    let mut trust = read_trust(&args.trust)?;
    let empty = Authorities { tsas: Vec::new(), witnesses: Vec::new(), operators: 1 };
    let mut all = trust.authorities.take().unwrap_or(empty);
    if let Some(path) = &args.what.roots {
        add_roots(&mut all, &args.operator, path, &args.policy)?;
    }
    if let Some(text) = &args.what.witness {
        add_witness(&mut all, &args.operator, text)?;
    }
    all.operators = args.operators.unwrap_or(all.operators);
    trust.authorities = Some(all);
    trust.issued_millis = crate::now_millis()?;
    let text = trust.encode();
    // What nobody could read would help nobody.
    TrustFile::decode(text.as_bytes())
        .map_err(|error| Failure::usage(format!("this would make no trust file: {error}")))?;
    files::write(&args.out, text.as_bytes())?;
    crate::say(&format!(
        "{} believes {:?} now. Its fingerprint: {}\n",
        args.out.display(),
        args.operator,
        fingerprint(text.as_bytes())
    ));
    Ok(Exit::Ok)
}

/// Adds a witness by its verifier key.
pub fn add_witness(all: &mut Authorities, operator: &str, text: &str) -> Result<(), Failure> {
    let key = WitnessKey::parse(text).ok_or_else(|| {
        Failure::usage(format!("{text:?} is no verifier key of a witness (name+hash+base64, key type 4)"))
    })?;
    if all.witnesses.iter().any(|known| known.key.name() == key.name()) {
        return Err(Failure::usage(format!(
            "there is a witness of the name {:?} already; take it out first",
            key.name()
        )));
    }
    all.witnesses.push(TrustedWitness { operator: operator.to_owned(), key });
    Ok(())
}

/// Adds the roots in a PEM file to those of an operator.
pub fn add_roots(
    all: &mut Authorities,
    operator: &str,
    path: &Path,
    policies: &[String],
) -> Result<(), Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::new(Exit::Refused, format!("{} is refused: {why}", path.display()))
    };
    let mut roots =
        certificates_in_pem(&files::read(path, PEM_BYTES_MAX)?).map_err(|error| refused(&error))?;
    let mut policies = policies
        .iter()
        .map(|text| Oid::parse(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Failure::usage(format!("a policy is no OID: {error}")))?;
    let known = all.tsas.iter().position(|tsa| tsa.operator == operator);
    if let Some(at) = known {
        let before = all.tsas.remove(at).authority;
        roots.extend(before.roots().map(<[u8]>::to_vec));
        // Without policies on either side every policy is accepted, and stays so.
        let any = policies.is_empty() || before.policies().is_empty();
        policies = if any { Vec::new() } else { [policies, before.policies().to_vec()].concat() };
        let mut once = Vec::new();
        policies.retain(|policy| {
            let new = !once.contains(policy);
            once.push(policy.clone());
            new
        });
    }
    roots.sort_unstable();
    roots.dedup();
    let authority = Authority::new(&roots, policies).map_err(|error| refused(&error))?;
    for root in authority.roots() {
        crate::say(&format!("root sha256:{}\n", sha256(&[root])));
    }
    all.tsas.push(TrustedTsa { operator: operator.to_owned(), authority });
    Ok(())
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let trust = read_trust(&args.trust)?;
    let Some(all) = &trust.authorities else {
        crate::say("the trust file believes nobody's time: no interval has ends\n");
        return Ok(Exit::Ok);
    };
    let mut text = format!("a bound takes {} operator(s)\n", all.operators);
    for tsa in &all.tsas {
        for root in tsa.authority.roots() {
            // Writing to a string cannot fail.
            let _infallible =
                writeln!(text, "time stamps  {:?}  root sha256:{}", tsa.operator, sha256(&[root]));
        }
    }
    for witness in &all.witnesses {
        let _infallible = writeln!(text, "witness      {:?}  {}", witness.operator, witness.key);
    }
    crate::say(&text);
    Ok(Exit::Ok)
}

//! `bulla-fleet retire`, `bulla-fleet certificate`: what a box that has retired leaves behind, read and believed or not.
//!
//! Refuses to do: propose that a box leaves by a certificate that does not hold, or that names an action which this fleet
//! has never handed out.
//! Invariant: the last good tree of the revocation is that of the certificate.

use crate::desk::HANDED_OUT;
use crate::exit::{Exit, Failure};
use crate::files;
use crate::propose::{Proposal, one_box};
use bulla_formats::der::Octets32;
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::report::utc;
use bulla_formats::retirement::{CERTIFICATE_BYTES_MAX, Certificate, Clearing, Extent, VerifiedRetirement};
use bulla_formats::trust::{TRUST_BYTES_MAX, TrustFile};
use bulla_roster::deed::{Cause, Deed, GoodTree, Revocation};
use clap::Args;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Arguments of `bulla-fleet retire`.
#[derive(Debug, Args)]
pub struct RetireArgs {
    #[command(flatten)]
    proposal: Proposal,
    /// Serial number, or the first 8 digits or more of the endorsement key's hash
    #[arg(value_name = "BOX")]
    which: String,
    /// Destruction certificate, as `bulla-box retire` wrote it
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
}

/// Arguments of `bulla-fleet certificate`.
#[derive(Debug, Args)]
pub struct CertificateArgs {
    /// The certificate
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Trust file whose fleet the box was of
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

/// Proposes the revocation.
pub fn run(args: &RetireArgs) -> Result<Exit, Failure> {
    let (desk, roster) = args.proposal.open()?;
    let listed = one_box(&roster, &args.which)?;
    let retired = verify(&args.certificate, roster.fleet(), &[*roster.founding().content.root])?;
    let statement = retired.statement();
    let refused = |why: String| Failure::new(Exit::Refused, why);
    if !listed.live_logs().any(|log| log.origin == statement.origin) {
        let why = format!("the certificate is of {}, which is no log of {}", statement.origin, args.which);
        return Err(refused(why));
    }
    let action = statement.action.as_ref().map(|action| Hash(**action).to_string());
    let known =
        action.as_ref().is_some_and(|action| args.proposal.dir.join(HANDED_OUT).join(action).exists());
    if !known {
        return Err(refused(format!(
            "the box names {} as what it was approved by, and this directory has handed out no such action; find out who \
             did (`bulla-fleet revoke --cause retirement` goes without a certificate)",
            action.map_or("nobody".to_owned(), |action| format!("the action {action}"))
        )));
    }
    let empty = Octets32::new(empty_root().0);
    let logs = listed.live_logs().map(|log| match log.origin == statement.origin {
        true => GoodTree { origin: log.origin.clone(), size: statement.head.size, root: statement.head.root },
        false => GoodTree { origin: log.origin.clone(), size: 0, root: empty },
    });
    let revocation = Revocation {
        ek_spki_sha256: listed.row.ek_spki_sha256,
        cause: Cause::Retirement,
        invalid_from: statement.made_at,
        logs: logs.collect(),
        successor: None,
    };
    crate::say(&words(&retired));
    args.proposal.lay(&desk, &roster, &Deed::Revoke(revocation))
}

/// Verifies one and prints it.
pub fn show(args: &CertificateArgs) -> Result<Exit, Failure> {
    let trust = TrustFile::decode(&files::read(&args.trust, TRUST_BYTES_MAX)?).map_err(|error| {
        Failure::new(Exit::Refused, format!("{} is refused: {error}", args.trust.display()))
    })?;
    crate::say(&words(&verify(&args.file, &trust.fleet, &trust.roots)?));
    Ok(Exit::Ok)
}

fn verify(path: &Path, fleet: &str, roots: &[[u8; 32]]) -> Result<VerifiedRetirement, Failure> {
    let bytes = files::read(path, CERTIFICATE_BYTES_MAX)?;
    let verified = Certificate::decode(&bytes).and_then(|certificate| certificate.verify(fleet, roots));
    verified.map_err(|error| {
        Failure::new(Exit::Refused, format!("{} is refused ({}): {error}", path.display(), error.code()))
    })
}

/// A certificate in words, to be printed and signed by who stood beside it.
fn words(retired: &VerifiedRetirement) -> String {
    let (statement, outcome) = (retired.statement(), retired.outcome());
    let mut text = String::from("DESTRUCTION CERTIFICATE, verified\n");
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  {what:<10} {value}");
    };
    line("log", statement.origin.clone());
    line("ended", format!("{}, with entry {}", utc(statement.made_at), statement.head.size - 1));
    line("last head", format!("{} entries, root {}", statement.head.size, hex::encode(*statement.head.root)));
    line(
        "approved",
        match &statement.action {
            Some(action) => format!("by the action sha256:{}", hex::encode(**action)),
            None => "by the owner at the console (a fleet of one)".to_owned(),
        },
    );
    line("because", statement.reason.clone());
    line(
        "seals",
        format!("{} not anchored, {} held by no neighbour", statement.unanchored, statement.unmirrored),
    );
    line(
        "entries",
        match statement.extent {
            Extent::KeepLog => "kept on the disk".to_owned(),
            Extent::Everything => "destroyed".to_owned(),
        },
    );
    line("erased", format!("{}: {}", utc(outcome.made_at), outcome.erased.join(", ")));
    line(
        "TPM",
        match retired.clearing() {
            Clearing::Shown => {
                "cleared, shown by the TPM itself: its clock and its count of resets began anew".to_owned()
            }
            Clearing::Refused => format!("NOT CLEARED: {}", outcome.why_not),
            Clearing::NoTpm => {
                "there was none; nothing but the box's word shows that its keys are gone".to_owned()
            }
        },
    );
    text
}

//! `bulla-fleet makers`: which manufacturers of TPMs the fleet believes, where their certificates come from, and who said so.
//!
//! The bundle in this program (`provisioning/fleet/makers/bundle.json`) is a choice, not a recommendation: each certificate
//! with the address its maker publishes it at and where else it was seen. What is pinned lies in `manufacturers` in the
//! fleet directory, with a record each in `provenance.json` beside it.
//! Refuses to do: fetch anything; pin a root whose fingerprint nobody has compared; take an intermediate that no pinned
//! root vouches for.
//! Invariant: a record is written after the certificate, so a record without one never counts for anything.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::serve::certificates;
use bulla_enrolment::endorsement::{AuthorityFacts, Manufacturers};
use bulla_formats::json::base64_decode;
use bulla_formats::report::utc;
use bulla_timestamps::certificates_in_pem;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const BUNDLE: &str = include_str!("../makers/bundle.json");
const RECORDS: &str = "provenance.json";
/// Longest file of certificates or records in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;

/// Subcommands of `bulla-fleet makers`.
#[derive(Debug, Subcommand)]
pub enum MakersCommand {
    /// List the certificates in this program, or with --dir those that the fleet has pinned and where each came from
    List(ListArgs),
    /// Pin the certificates of makers from the bundle in this program
    Pin(PinArgs),
    /// Pin certificates from files
    Import(ImportArgs),
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `pin`.
#[derive(Debug, Args)]
pub struct PinArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// Makers whose TPMs the fleet has bought, as `makers list` names them
    #[arg(required = true, value_name = "MAKER")]
    makers: Vec<String>,
    /// SHA-256 of each root of theirs, as its maker publishes it; repeatable. Without, the command prints them and pins
    /// nothing
    #[arg(long, value_name = "SHA-256")]
    compared: Vec<String>,
    /// Who compared them
    #[arg(long, value_name = "NAME")]
    by: String,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The fleet directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: PathBuf,
    /// CA certificates of one maker, PEM or DER
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whose they are
    #[arg(long)]
    maker: String,
    /// Where they came from: an address, a delivery
    #[arg(long)]
    source: String,
    /// SHA-256 of each root among them, as its maker publishes it; repeatable
    #[arg(long, value_name = "SHA-256")]
    compared: Vec<String>,
    /// Who compared them
    #[arg(long, value_name = "NAME")]
    by: String,
}

/// A certificate, and what is known of where it came from.
struct Found {
    facts: AuthorityFacts,
    der: Vec<u8>,
    maker: String,
    source: String,
}

/// Carries it out.
pub fn run(command: &MakersCommand) -> Result<Exit, Failure> {
    match command {
        MakersCommand::List(args) => list(args),
        MakersCommand::Pin(args) => {
            let all = bundle()?;
            let known: Vec<&str> = all.iter().map(|found| found.maker.as_str()).collect();
            if let Some(other) = args.makers.iter().find(|maker| !known.contains(&maker.as_str())) {
                return Err(Failure::usage(format!(
                    "the bundle has no maker {other:?}; `bulla-fleet makers list` names those it has, and `makers import` \
                     takes any other's certificates"
                )));
            }
            let chosen = all.into_iter().filter(|found| args.makers.contains(&found.maker)).collect();
            pin(&args.dir, chosen, &args.compared, &args.by)
        }
        MakersCommand::Import(args) => {
            let mut found = Vec::new();
            for path in &args.files {
                let bytes = files::read(path, FILE_BYTES_MAX)?;
                let one = match bytes.windows(11).any(|part| part == b"-----BEGIN ") {
                    true => certificates_in_pem(&bytes).map_err(|error| Failure::file("use", path, error))?,
                    false => vec![bytes.to_vec()],
                };
                for der in one {
                    let facts = AuthorityFacts::read(&der).map_err(|why| Failure::file("use", path, why))?;
                    let (maker, source) = (args.maker.clone(), args.source.clone());
                    found.push(Found { facts, der, maker, source });
                }
            }
            pin(&args.dir, found, &args.compared, &args.by)
        }
    }
}

/// The bundle, read.
fn bundle() -> Result<Vec<Found>, Failure> {
    let broken = |what: &str| Failure::usage(format!("the bundle in this program is damaged: {what}"));
    let all: Vec<Value> = serde_json::from_str(BUNDLE).map_err(|error| broken(&error.to_string()))?;
    let one = |value: &Value| {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let der = base64_decode(&text("der")).map_err(|error| broken(&error.to_string()))?;
        let facts = AuthorityFacts::read(&der).map_err(|why| broken(&why))?;
        let seen: Vec<&str> =
            value["seen"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let published = match value["url"].as_str() {
            Some(url) => format!("{url}, downloaded {}; seen in ", text("downloaded")),
            None => "seen in ".to_owned(),
        };
        Ok(Found { facts, der, maker: text("maker"), source: published + &seen.join(" and ") })
    };
    all.iter().map(one).collect()
}

/// Pins what counts, whole or not at all.
fn pin(dir: &Path, found: Vec<Found>, compared: &[String], by: &str) -> Result<Exit, Failure> {
    if !dir.join(crate::desk::ROSTER).exists() {
        return Err(Failure::file("use", dir, "there is no roster in it; `bulla-fleet init` makes a fleet"));
    }
    let compared: Vec<String> =
        compared.iter().map(|hash| hash.replace(':', "").to_ascii_lowercase()).collect();
    let is_compared = |found: &&Found| compared.contains(&hex::encode(found.facts.sha256.0));
    let (roots, between): (Vec<&Found>, Vec<&Found>) = found.iter().partition(|found| found.facts.is_root);
    let open: Vec<&&Found> = roots.iter().filter(|root| !is_compared(root)).collect();
    if !open.is_empty() {
        let mut said = String::new();
        for root in &open {
            // Writing to a String cannot fail.
            let _ = writeln!(said, "{}\n  {}\n  {}", root.facts.subject, root.facts.sha256, root.source);
        }
        crate::say(&said);
        return Err(Failure::usage(
            "nothing is pinned: compare the SHA-256 of each root above with what its maker publishes, and name those that \
             agree with --compared",
        ));
    }
    let store = dir.join("manufacturers");
    let (old_roots, old_between) =
        (certificates(&store.join("roots"))?, certificates(&store.join("intermediates"))?);
    let der = |list: &[&Found], old: Vec<Vec<u8>>| {
        list.iter().map(|found| found.der.clone()).chain(old).collect::<Vec<_>>()
    };
    let pinned = Manufacturers::new(&der(&roots, old_roots), &der(&between, old_between))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let now = crate::now_millis()?;
    for one in &between {
        pinned.vouch_for(&one.der, now).map_err(|why| {
            let what = format!("{} is not pinned, and nothing is: {why}", one.facts.subject);
            Failure::new(Exit::Refused, what)
        })?;
    }
    let mut records = records(&store)?;
    for (list, name) in [(&roots, "roots"), (&between, "intermediates")] {
        let directory = store.join(name);
        std::fs::create_dir_all(&directory).map_err(|error| Failure::file("make", &directory, error))?;
        for one in list {
            let hash = hex::encode(one.facts.sha256.0);
            files::write(&directory.join(format!("{hash}.der")), &one.der)?;
            records
                .insert(hash, json!({ "maker": one.maker, "source": one.source, "by": by, "atMillis": now }));
        }
    }
    let mut text = serde_json::to_string_pretty(&records)
        .map_err(|error| Failure::usage(format!("the records cannot be written: {error}")))?;
    text.push('\n');
    files::write(&store.join(RECORDS), text.as_bytes())?;
    crate::say(&format!(
        "{} root(s) and {} intermediate(s) are pinned; the registrar believes them from its next start on\n",
        roots.len(),
        between.len()
    ));
    Ok(Exit::Ok)
}

/// The records beside what is pinned, by SHA-256.
fn records(store: &Path) -> Result<BTreeMap<String, Value>, Failure> {
    let path = store.join(RECORDS);
    let Some(bytes) = files::read_if_there(&path, FILE_BYTES_MAX)? else { return Ok(BTreeMap::new()) };
    serde_json::from_slice(&bytes).map_err(|error| Failure::file("use", &path, error))
}

fn list(args: &ListArgs) -> Result<Exit, Failure> {
    let found = match &args.dir {
        None => bundle()?,
        Some(dir) => {
            let store = dir.join("manufacturers");
            let records = records(&store)?;
            let mut found = Vec::new();
            for name in ["roots", "intermediates"] {
                for der in certificates(&store.join(name))? {
                    let facts = AuthorityFacts::read(&der)
                        .map_err(|why| Failure::file("use", &store.join(name), why))?;
                    let record = records.get(&hex::encode(facts.sha256.0));
                    let text = |name: &str| record.and_then(|record| record[name].as_str());
                    let maker = text("maker").unwrap_or("?").to_owned();
                    let source =
                        match (text("source"), text("by"), record.and_then(|r| r["atMillis"].as_u64())) {
                            (Some(source), Some(by), Some(at)) => {
                                format!("{source}; compared by {by}, {}", utc(at))
                            }
                            _ => "no record says where it came from".to_owned(),
                        };
                    found.push(Found { facts, der, maker, source });
                }
            }
            found
        }
    };
    if args.json {
        let all: Vec<Value> = found
            .iter()
            .map(|one| {
                json!({
                    "maker": one.maker, "root": one.facts.is_root, "subject": one.facts.subject,
                    "sha256": hex::encode(one.facts.sha256.0), "notAfterMillis": one.facts.not_after,
                    "source": one.source,
                })
            })
            .collect();
        crate::say(&format!("{}\n", Value::from(all)));
        return Ok(Exit::Ok);
    }
    let mut text = String::new();
    for one in &found {
        let kind = if one.facts.is_root { "root" } else { "intermediate" };
        let (facts, until) = (&one.facts, utc(one.facts.not_after));
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  {kind}  {}\n  sha256 {}\n  until  {until}\n  from   {}",
            one.maker, facts.subject, facts.sha256, one.source
        );
    }
    crate::say(&text);
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the bundle says of a certificate is what it is, and every intermediate leads to a root of it.
    #[test]
    fn the_bundle_is_what_it_says() {
        let all = bundle().unwrap();
        let der = |root: bool| {
            all.iter().filter(|one| one.facts.is_root == root).map(|one| one.der.clone()).collect::<Vec<_>>()
        };
        let pinned = Manufacturers::new(&der(true), &der(false)).unwrap();
        let raw: Vec<Value> = serde_json::from_str(BUNDLE).unwrap();
        assert!(all.len() > 50 && raw.len() == all.len());
        for (one, said) in all.iter().zip(&raw) {
            assert_eq!(said["sha256"], hex::encode(one.facts.sha256.0));
            assert_eq!(said["role"] == "root", one.facts.is_root, "{}", one.facts.subject);
            assert!(said["seen"].as_array().is_some_and(|seen| !seen.is_empty()));
            if !one.facts.is_root {
                // A day on which all of them were valid.
                let judged = pinned.vouch_for(&one.der, 1_757_600_000_000);
                assert_eq!(judged, Ok(()), "{}", one.facts.subject);
            }
        }
    }
}

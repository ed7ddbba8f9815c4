//! Seals of many documents at once: the `.seal` files, a load file that says what each is, and the exceptions.
//!
//! ```text
//! DIR/load.csv          a line for each seal
//!     exceptions.csv    a line for each document of the list of which there is no seal, or none that verifies
//!     seals/            the files that load.csv names
//!     produce.json      how far it is, of which list
//! ```
//!
//! Refuses to do: mix two lists in one directory; leave out a line of the list without a word.
//! Invariants: every line of the list is in one of the two files or in both; a run that was killed goes on where it was, and
//! ends with the bytes of one that was not.

use crate::commands::find::parse_digest;
use crate::csv;
use crate::dossier::{Item, digest_text, gather};
use crate::exit::Failure;
use crate::hub::Hub;
use crate::progress::Progress;
use crate::statement::seal_name;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::hash::sha256;
use bulla_formats::report::utc;
use bulla_protocol::versions::Standing;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// Lines of the list after which it is written down how far it is.
const STEP: usize = 64;
const LOAD: [&str; 13] = [
    "line",
    "reference",
    "digest",
    "box",
    "origin",
    "index",
    "verdict",
    "facts",
    "standing",
    "not_before",
    "not_after",
    "local_time",
    "seal",
];
const EXCEPTIONS: [&str; 4] = ["line", "reference", "digest", "reason"];

/// How far a production is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Made {
    list_sha256: String,
    lines: usize,
    load_bytes: u64,
    exceptions_bytes: u64,
    /// Documents asked for.
    pub documents: u64,
    /// Seals written.
    pub seals: u64,
    /// Documents without a seal that verifies.
    pub exceptions: u64,
    /// Of the seals, those that do not verify.
    pub refused: u64,
}

struct Output {
    load: File,
    exceptions: File,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |error| Failure::usage(format!("{} cannot be read or written ({error})", path.display()))
}

/// Produces what `list` names into the directory `out`.
pub fn run(hub: &Hub, list: &Path, out: &Path, progress: &Progress) -> Result<Made, Failure> {
    let text = fs::read_to_string(list).map_err(failed(list))?;
    let list_sha256 = sha256(&[text.as_bytes()]).to_string();
    fs::create_dir_all(out.join("seals")).map_err(failed(out))?;
    let mut made = match fs::read(out.join("produce.json")) {
        Ok(bytes) => serde_json::from_slice::<Made>(&bytes).map_err(|_| {
            Failure::usage(format!("{} is no state of a production", out.join("produce.json").display()))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if out.join("load.csv").exists() {
                let words = format!(
                    "{} has a load.csv that is not of an unfinished production; choose another directory",
                    out.display()
                );
                return Err(Failure::usage(words));
            }
            Made { list_sha256: list_sha256.clone(), ..Made::default() }
        }
        Err(error) => return Err(failed(out)(error)),
    };
    if made.list_sha256 != list_sha256 {
        let words =
            format!("{} holds the production of another list; choose another directory", out.display());
        return Err(Failure::usage(words));
    }
    if made.load_bytes == 0 {
        // Before the files that it is about, so that a directory with a load.csv and without it is a stranger's.
        save(&made, out)?;
    }
    let mut output = Output {
        load: open(out, "load.csv", &LOAD, &mut made.load_bytes)?,
        exceptions: open(out, "exceptions.csv", &EXCEPTIONS, &mut made.exceptions_bytes)?,
    };
    let lines: Vec<&str> = text.lines().collect();
    let bar = progress.bar("produce", made.lines as u64, lines.len() as u64);
    while made.lines < lines.len() {
        let end = lines.len().min(made.lines + STEP);
        for (at, text) in (made.lines..end).zip(&lines[made.lines..end]) {
            line(hub, at, text, out, &mut output, &mut made)?;
        }
        made.lines = end;
        for file in [&output.load, &output.exceptions] {
            file.sync_all().map_err(failed(out))?;
        }
        save(&made, out)?;
        if let Some(bar) = &bar {
            bar.set_position(end as u64);
        }
    }
    Ok(made)
}

/// Opens one of the two tables where the last step ended.
fn open(out: &Path, name: &str, head: &[&str], bytes: &mut u64) -> Result<File, Failure> {
    let path = out.join(name);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(failed(&path))?;
    file.set_len(*bytes).and_then(|()| file.seek(SeekFrom::End(0))).map_err(failed(&path))?;
    if *bytes == 0 {
        put(&mut file, head, bytes, &path)?;
    }
    Ok(file)
}

fn put(file: &mut File, fields: &[&str], bytes: &mut u64, path: &Path) -> Result<(), Failure> {
    let line = csv::line(fields.iter().copied());
    file.write_all(line.as_bytes()).map_err(failed(path))?;
    *bytes += line.len() as u64;
    Ok(())
}

fn save(made: &Made, out: &Path) -> Result<(), Failure> {
    let (new, path) = (out.join("produce.json.new"), out.join("produce.json"));
    let text = serde_json::to_string(made).map_err(|error| Failure::usage(error.to_string()))?;
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, &path)).map_err(failed(&path))
}

/// One line of the list.
fn line(
    hub: &Hub,
    at: usize,
    text: &str,
    out: &Path,
    output: &mut Output,
    made: &mut Made,
) -> Result<(), Failure> {
    let fields = csv::fields(text);
    let (named, reference) = (fields[0].trim(), fields.get(1).map_or("", |reference| reference.trim()));
    if named.is_empty() && fields.len() == 1 || (at == 0 && named.eq_ignore_ascii_case("digest")) {
        return Ok(());
    }
    made.documents += 1;
    let number = (at + 1).to_string();
    let mut except = |reason: &str| {
        made.exceptions += 1;
        let row = [number.as_str(), reference, named, reason];
        put(&mut output.exceptions, &row, &mut made.exceptions_bytes, out)
    };
    let Some(digest) = wanted(named) else {
        return except("not a digest: 64 hex digits, or sha-256:, sha-512: or sha3-256: and hex digits");
    };
    let dossier = gather(hub, std::slice::from_ref(&digest))?;
    let asked: Vec<&Item> = dossier.items.iter().filter(|item| item.asked).collect();
    if asked.is_empty() {
        let reason = dossier.gaps.first().cloned();
        return except(&reason.unwrap_or_else(|| "no archived log has a seal of it".to_owned()));
    }
    if asked.iter().all(|item| item.report.failed().is_some()) {
        let why = asked[0].report.failed().map_or_else(String::new, |check| check.detail.clone());
        except(&format!("no seal of it verifies: {why}"))?;
    }
    for (position, item) in asked.into_iter().enumerate() {
        let name = format!("seals/{number}-{}", seal_name(position + 1, item));
        let path = out.join(&name);
        fs::write(&path, item.file.encode()).map_err(failed(&path))?;
        let time = |millis: Option<u64>| millis.map_or_else(String::new, utc);
        let (after, before) = item.interval();
        let facts: Vec<&str> = item.report.facts.iter().map(|fact| fact.name()).collect();
        let row = [
            number.as_str(),
            reference,
            &digest_text(&item.digest()),
            &item.name,
            &item.place.origin,
            &item.place.index.to_string(),
            item.report.verdict.name(),
            &facts.join(" "),
            item.standing.map_or("", Standing::name),
            &time(after),
            &time(before),
            &utc(item.entry.content().time.unix_millis),
            &name,
        ];
        put(&mut output.load, &row, &mut made.load_bytes, out)?;
        made.seals += 1;
        made.refused += u64::from(item.report.failed().is_some());
    }
    Ok(())
}

fn wanted(named: &str) -> Option<(DigestAlgorithm, Vec<u8>)> {
    if named.contains(':') { parse_digest(named) } else { parse_digest(&format!("sha-256:{named}")) }
}

//! `bulla fsck --copy`: checks logs that are copied as C2SP tlog-tiles, on a medium or in a hub's archive.
//!
//! Every entry is read and judged, every tile made again from the entries, the signed head held against them, and what the
//! box stated about the medium held against the head.
//! Refuses to do: write anything; take a log for whole that no head covers.

use crate::exit::{Exit, Failure};
use crate::files::read_limited;
use crate::output;
use crate::progress::Progress;
use bulla_formats::audit::LogAuditor;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::medium::MediumStatement;
use bulla_formats::note::{Checkpoint, SignedNote, parse_checkpoint_text};
use bulla_formats::origin::Origin;
use bulla_formats::report::utc;
use bulla_formats::sig::{Algorithm, PublicKey};
use bulla_formats::tile::{ENTRY_BYTES_MAX, TileCoordinate, full_tile_root, parse_entries, width_at};
use bulla_formats::trust::TrustFile;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Where boxes put their copies on a medium.
const MEDIUM_DIRECTORY: &str = "bulla-mirror";
const NOTE_BYTES_MAX: usize = 64 << 10;
const BUNDLE_BYTES_MAX: usize = 256 * (2 + ENTRY_BYTES_MAX);
/// Most complaints about one log.
const COMPLAINTS: usize = 64;

/// One log.
struct Checked {
    origin: String,
    size: u64,
    stated: Option<MediumStatement>,
    damage: Vec<String>,
}

/// Checks every log in the copy.
pub fn run(copy: &Path, trust: Option<&TrustFile>, as_json: bool) -> Result<Exit, Failure> {
    let below = copy.join(MEDIUM_DIRECTORY);
    let copy = if below.join("logs").is_dir() { below } else { copy.to_owned() };
    let unusable = |error: std::io::Error| {
        let shown = copy.display();
        Failure::usage(format!(
            "{shown} is no copy of a log: logs: {error}; name a medium of [medium] or a hub's archive"
        ))
    };
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(copy.join("logs")).map_err(unusable)? {
        names.push(entry.map_err(unusable)?.path());
    }
    names.sort();
    let progress = Progress::new(!as_json);
    let logs: Vec<Checked> = names.iter().map(|name| check(&copy, name, trust, &progress)).collect();
    let clean = !logs.is_empty() && logs.iter().all(|log| log.damage.is_empty());
    if as_json {
        let log = |log: &Checked| {
            json!({
                "origin": log.origin, "entries": log.size, "clean": log.damage.is_empty(), "damage": log.damage,
                "medium": log.stated.as_ref().map(|stated| stated.medium.to_string()),
                "statedMillis": log.stated.as_ref().map(|stated| stated.unix_millis),
            })
        };
        output::print_json(&json!({"clean": clean, "logs": logs.iter().map(log).collect::<Vec<Value>>()}));
    } else {
        logs.iter().for_each(tell);
        if logs.is_empty() {
            output::print("there is no log in it\n");
        }
    }
    Ok(if clean { Exit::Ok } else { Exit::Refused })
}

fn tell(log: &Checked) {
    let word = if log.damage.is_empty() { "clean" } else { "damaged" };
    let mut text = format!("{word}: {}, {} entries under its signed head\n", log.origin, log.size);
    if let Some(stated) = &log.stated {
        text.push_str(&format!(
            "  medium {}, read back {} by the box's clock\n",
            stated.medium,
            utc(stated.unix_millis)
        ));
    }
    log.damage.iter().for_each(|what| text.push_str(&format!("  {what}\n")));
    output::print(&text);
}

fn check(copy: &Path, directory: &Path, trust: Option<&TrustFile>, progress: &Progress) -> Checked {
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut found = Checked { origin: name.clone(), size: 0, stated: None, damage: Vec::new() };
    if let Err(what) = examine(copy, directory, &name, trust, progress, &mut found) {
        found.damage.push(what);
    }
    found
}

/// `Err` is damage that ends the examination.
fn examine(
    copy: &Path,
    directory: &Path,
    name: &str,
    trust: Option<&TrustFile>,
    progress: &Progress,
    found: &mut Checked,
) -> Result<(), String> {
    let text = |file: &str| -> Result<String, String> {
        let bytes = read_limited(&directory.join(file), NOTE_BYTES_MAX)
            .map_err(|error| format!("{file}: {error}"))?;
        String::from_utf8(bytes).map_err(|_| format!("{file} is no text"))
    };
    let origin = Origin::parse(text("origin")?.trim_end()).map_err(|error| format!("origin: {error}"))?;
    origin.as_str().clone_into(&mut found.origin);
    if sha256(&[origin.as_str().as_bytes()]).to_string() != name {
        return Err("its directory is not named after its origin".to_owned());
    }
    let note = SignedNote::parse(&text("checkpoint")?).map_err(|error| format!("checkpoint: {error}"))?;
    let (_, size, _) = parse_checkpoint_text(&note.text).map_err(|error| format!("checkpoint: {error}"))?;
    let task = progress.count("entries", size);
    let mut auditor = LogAuditor::new(origin.clone(), trust);
    let mut rows: Vec<Vec<Hash>> = Vec::new();
    for number in 0..size.div_ceil(256) {
        for entry in entries(directory, number, width_at(0, number, size))? {
            let index = auditor.size();
            if let Err(error) = auditor.entry(&entry) {
                complain(found, format!("entry {index}: {error}"));
            }
            for (level, at, hashes) in push(&mut rows, index, leaf_hash(&entry)) {
                compare(directory, level, at, &hashes, found);
            }
        }
        task.set(auditor.size(), size);
    }
    task.finish();
    for (level, row) in rows.iter().enumerate().filter(|(_, row)| !row.is_empty()) {
        compare(directory, level as u8, size >> (8 * (level + 1)), row, found);
    }
    let enrolment = auditor.enrolment().and_then(|der| Enrolment::decode(der).ok());
    let enrolment = enrolment.ok_or("entry 0 does not say whose log it is")?;
    let (log_key, quoting) = (*enrolment.content.log_key, &enrolment.content.attestation_key);
    let key = PublicKey::from_bytes(Algorithm::Ed25519, &log_key).map_err(|_| "its log key is no key")?;
    let head = Checkpoint::open(&note, &origin, &key, &log_key, quoting);
    let head = head.map_err(|error| format!("checkpoint: {error}"))?;
    if head.root() != auditor.root() {
        return Err(format!("its {size} entries do not lead to the signed head"));
    }
    found.size = size;
    let statement = copy.join("statements").join(name);
    if statement.exists() {
        let stated =
            read_limited(&statement, NOTE_BYTES_MAX).map_err(|error| format!("statement: {error}"))?;
        let stated = String::from_utf8(stated).map_err(|_| "its statement is no text".to_owned())?;
        let stated = MediumStatement::open(&stated, &origin, &log_key)
            .map_err(|error| format!("statement: {error}"))?;
        // The head is there first; the statement about it may have been lost.
        if stated.size > size || stated.size == size && stated.root != head.root() {
            return Err("its statement is about entries that are not here".to_owned());
        }
        found.stated = Some(stated);
    }
    Ok(())
}

fn complain(found: &mut Checked, what: String) {
    if found.damage.len() < COMPLAINTS {
        found.damage.push(what);
    }
}

fn entries(directory: &Path, number: u64, width: u16) -> Result<Vec<Vec<u8>>, String> {
    let at = TileCoordinate::entries(number, width).map_err(|error| error.to_string())?.path();
    let bytes =
        read_limited(&directory.join(&at), BUNDLE_BYTES_MAX).map_err(|error| format!("{at}: {error}"))?;
    let entries = parse_entries(&bytes, width).map_err(|error| format!("{at}: {error}"))?;
    Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
}

/// Adds the leaf at `index` to the right edge; the tiles that it fills.
fn push(rows: &mut Vec<Vec<Hash>>, index: u64, leaf: Hash) -> Vec<(u8, u64, Vec<Hash>)> {
    let (mut filled, mut hash) = (Vec::new(), leaf);
    for level in 0u8.. {
        let at = usize::from(level);
        if rows.len() == at {
            rows.push(Vec::new());
        }
        rows[at].push(hash);
        let Some(root) = full_tile_root(&rows[at]) else { break };
        filled.push((level, index >> (8 * (u32::from(level) + 1)), std::mem::take(&mut rows[at])));
        hash = root;
    }
    filled
}

fn compare(directory: &Path, level: u8, index: u64, hashes: &[Hash], found: &mut Checked) {
    let Ok(at) = TileCoordinate::hashes(level, index, hashes.len() as u16) else { return };
    let wanted: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    match read_limited(&directory.join(at.path()), wanted.len() + 1) {
        Ok(bytes) if bytes == wanted => {}
        Ok(_) => complain(found, format!("{} is not what its entries make it", at.path())),
        Err(error) => complain(found, format!("{}: {error}", at.path())),
    }
}

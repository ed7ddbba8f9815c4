//! Two views of one log held against each other: what this hub cosigned and what it archived; what two hubs saw.
//!
//! A box that shows the witness one history and the puller another, or two hubs two, has signed both: the notes are the
//! evidence. The other hub's log must be signed, whole, and an extension of what was seen of it before
//! (`<state_dir>/rivals/`).
//! Refuses to do: believe the other hub; a head is blamed on a log only when the log's key has signed it.

use crate::config::{Config, SourceConfig};
use crate::exit::{Exit, Failure};
use crate::finding::{Finding, Kind};
use crate::hub::{self, Hub, HubError, now_millis};
use crate::index::Rows;
use crate::keys::{HubKeys, write_private};
use crate::progress::Progress;
use crate::published::{self, open_checkpoint};
use crate::shelf::Shelf;
use crate::source::Source;
use crate::tiles::Tiles;
use crate::witness::{Cosigned, PUBLISHED};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::hub_log::{Heads, HubEntry, QueriesHead, SeenHead};
use bulla_formats::json::base64_decode;
use bulla_formats::merkle::{self, Frontier, consistency_proof};
use bulla_formats::note::{Checkpoint, SignedNote, verifier_key};
use bulla_formats::peer::fork::ForkProof;
use bulla_formats::tile::{TileCoordinate, parse_entries, width_at};
use clap::Args;
use ed25519_dalek::VerifyingKey;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Arguments of `compare-heads`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Where the other hub's log is, e.g. https://hub-south.bank.example:8446/heads
    #[arg(value_name = "URL")]
    url: String,
    /// CA certificate of that hub, or its own certificate (PEM)
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Verifier key of that log, as `bulla-hub keys` prints it there
    #[arg(long, value_name = "KEY")]
    key: String,
}

fn checkpoint_of(shelf: &Shelf, note: &SignedNote) -> Option<Checkpoint> {
    let content = shelf.enrolment.content();
    let (key, attestation_key) = (shelf.enrolment.log_key(), &content.attestation_key);
    Checkpoint::open(note, &shelf.origin, key, &content.log_key, attestation_key).ok()
}

/// Keeps notes as evidence, tells of a fork, and takes nothing more of that log from now on; returns what is new.
fn forked(
    hub: &Hub,
    shelf: &Shelf,
    detail: &str,
    pieces: &[(&str, Vec<u8>)],
) -> Result<Vec<Value>, HubError> {
    let mut finding = Finding::new(Kind::Fork, shelf.origin.as_str(), "fork", detail.to_owned());
    for (name, bytes) in pieces {
        let ending = if *name == "fork" { "der" } else { "note" };
        let key = shelf.log.evidence_key(&format!("{name}-{}.{ending}", sha256(&[bytes])));
        shelf.log.archive().put(&key, bytes.clone())?;
        finding.evidence.push(key);
    }
    hub.archive.settle()?;
    hub.index.exclusive()?;
    let id = hub.index.id(shelf.origin.as_str())?;
    let mut state = hub.index.state(id)?;
    // The detail of the first proof stands.
    state.frozen.get_or_insert_with(|| detail.to_owned());
    let rows = Rows { findings: vec![finding], ..Rows::default() };
    Ok(hub.index.step(id, &state, None, &rows, now_millis())?)
}

/// Holds the head that was cosigned last against the archived log. When they contradict each other, returns the findings
/// that are new.
pub fn cosigned_against_archive(
    hub: &Hub,
    shelf: &Shelf,
    cosigned: &Cosigned,
) -> Result<Option<Vec<Value>>, HubError> {
    let Ok(note) = SignedNote::parse(&cosigned.note) else { return Ok(None) };
    let Some(head) = checkpoint_of(shelf, &note) else { return Ok(None) };
    let size = shelf.head.size();
    if head.size() > size {
        return Ok(None);
    }
    let tiles = Tiles::new(size, |level, index, width| shelf.log.hashes(level, index, width));
    let root = merkle::root(head.size(), &tiles)?;
    if root == head.root() {
        return Ok(None);
    }
    let proof = consistency_proof(head.size(), size, &tiles).map_err(|error| {
        HubError::Contradiction(format!("the archive cannot prove its own head: {error}"))
    })?;
    let archived = SignedNote::parse(&shelf.note)
        .map_err(|error| HubError::Contradiction(format!("the archived head is no note: {error}")))?;
    let shown = ForkProof::of_heads(&shelf.origin, &(&note, &head), &(&archived, &shelf.head), root, &proof);
    let Ok(fork) = shown.verify(&shelf.enrolment.content().log_key) else { return Ok(None) };
    let detail =
        format!("the hub's witness was shown another history than the hub archived: {}", fork.detail());
    let pieces = [
        ("fork", shown.encode()),
        ("head", note.encode().into_bytes()),
        ("head", shelf.note.clone().into_bytes()),
    ];
    forked(hub, shelf, &detail, &pieces).map(Some)
}

/// Reads a log's verifier key; `None` unless it is exactly as it would be written.
fn log_key(text: &str) -> Option<(String, VerifyingKey)> {
    let (name, rest) = text.split_once('+')?;
    let (_, encoded) = rest.split_once('+')?;
    let raw = base64_decode(encoded).ok()?;
    let key: [u8; 32] = raw.strip_prefix(&[1])?.try_into().ok()?;
    let known = VerifyingKey::from_bytes(&key).ok()?;
    (verifier_key(name, &key) == text).then(|| (name.to_owned(), known))
}

/// A hub's log, whole and proven.
struct HubLog {
    heads: Vec<SeenHead>,
    /// What it said last of the list of queries.
    queries: Option<QueriesHead>,
    note: String,
    size: u64,
}

/// Reads a hub's log: `bundle` gets entries by bundle and width. `before` is a tree that it had earlier.
fn read_log(
    name: &str,
    key: &VerifyingKey,
    note: String,
    before: Option<(u64, Hash)>,
    bundle: impl Fn(u64, u16) -> Result<Vec<Vec<u8>>, String>,
) -> Result<HubLog, String> {
    let (size, root) = open_checkpoint(&note, name, key)?;
    let (mut tree, mut heads, mut queries) = (Frontier::new(), Vec::new(), None);
    let extends =
        |tree: &Frontier| before.is_none_or(|(size, root)| tree.size() != size || tree.root() == root);
    if before.is_some_and(|(before, _)| before > size) || !extends(&tree) {
        return Err("it is shorter than it was: entries were taken out".to_owned());
    }
    for index in 0..size.div_ceil(256) {
        for bytes in bundle(index, width_at(0, index, size))? {
            tree.append(leaf_hash(&bytes));
            if !extends(&tree) {
                return Err("it is no extension of what it was: entries were changed".to_owned());
            }
            let entry =
                HubEntry::decode(&bytes).map_err(|error| format!("entry {}: {error}", tree.size() - 1))?;
            heads.extend(entry.seen());
            queries = entry.queries_head().or(queries);
        }
    }
    if tree.root() != root {
        return Err("its entries do not lead to its checkpoint".to_owned());
    }
    Ok(HubLog { heads, queries, note, size })
}

fn own(state_dir: &Path, name: &str) -> Result<HubLog, Failure> {
    let keys = HubKeys::open(state_dir, name)?;
    let keys = keys
        .ok_or_else(|| Failure::nothing("this hub has no log of its own yet; `bulla-hub serve` writes it"))?;
    let directory = state_dir.join(PUBLISHED);
    let wrong = |error: String| Failure {
        exit: Exit::Found,
        message: format!("this hub's own log {}: {error}", directory.display()),
    };
    let piece = |name: &str| {
        let read = published::read(&directory, name).map_err(|error| error.to_string())?;
        read.ok_or_else(|| format!("{name} is missing"))
    };
    let note =
        piece("checkpoint").and_then(|bytes| String::from_utf8(bytes).map_err(|error| error.to_string()));
    let bundle = |index, width| {
        let name = TileCoordinate::entries(index, width).map_err(|error| error.to_string())?.path();
        let bytes = piece(&name)?;
        let entries = parse_entries(&bytes, width).map_err(|error| error.to_string())?;
        Ok(entries.into_iter().map(<[u8]>::to_vec).collect())
    };
    let note = note.map_err(wrong)?;
    read_log(&keys.log_origin, &keys.log.verifying_key(), note, None, bundle).map_err(wrong)
}

/// What this hub's own log says of its list of queries; `None` when it says nothing of it, or there is none.
pub fn told_queries(config: &Config) -> Result<Option<QueriesHead>, Failure> {
    let Some(serve) = &config.serve else { return Ok(None) };
    if !config.state_dir.join(PUBLISHED).join("checkpoint").exists() {
        return Ok(None);
    }
    Ok(own(&config.state_dir, &serve.name)?.queries)
}

/// `compare-heads`.
pub fn compare(path: &Path, args: &CompareArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let config = hub::load(path)?;
    let serve = config.serve.as_ref();
    let serve = serve.ok_or_else(|| {
        Failure::usage("the configuration has no [serve] section: there is nothing to compare")
    })?;
    let (name, key) = log_key(&args.key).ok_or_else(|| {
        Failure::usage(format!("--key {:?} is no verifier key of a log, NAME+ID+BASE64", args.key))
    })?;
    let own = own(&config.state_dir, &serve.name)?;
    let source = SourceConfig {
        url: args.url.clone(),
        ca: args.ca.clone(),
        mirror: false,
        certificate: None,
        key: None,
        token_file: None,
        dial_in: None,
    };
    let timeout = Duration::from_secs(config.pull.timeout_seconds);
    let source =
        Source::new(&source, &name, timeout, None).map_err(|error| Failure::usage(error.to_string()))?;
    let unreached =
        |error: String| Failure { exit: Exit::Unreached, message: format!("{}: {error}", source.base()) };
    let note = source.checkpoint().map_err(|error| unreached(error.to_string()))?;
    let kept = config.state_dir.join("rivals").join(format!("{}.note", sha256(&[name.as_bytes()])));
    let before =
        std::fs::read_to_string(&kept).ok().and_then(|note| open_checkpoint(&note, &name, &key).ok());
    let bundle = |index, width| source.entries(index, width).map_err(|error| error.to_string());
    let other = read_log(&name, &key, note, before, bundle).map_err(|error| Failure {
        exit: Exit::Found,
        message: format!("the log {name} at {}: {error}", source.base()),
    })?;
    let mut heads = Heads::default();
    let mut pairs: Vec<(SeenHead, SeenHead)> = Vec::new();
    for head in own.heads.into_iter().chain(other.heads) {
        let known = heads.add(head.clone()).cloned();
        pairs.extend(known.map(|known| (known, head)));
    }
    for (one, two) in &pairs {
        blame(path, &progress, one, two)?;
    }
    if let Some(directory) = kept.parent() {
        std::fs::create_dir_all(directory)
            .and_then(|()| write_private(&kept, other.note.as_bytes()))
            .map_err(|error| Failure::usage(format!("{} cannot be written ({error})", kept.display())))?;
    }
    let line = format!(
        "{} entries here, {} there, {} different heads, {} contradictions",
        own.size,
        other.size,
        heads.len(),
        pairs.len()
    );
    let value = json!({
        "own": own.size, "other": other.size, "heads": heads.len(), "contradictions": pairs.len(),
    });
    progress.say(&line, &value);
    Ok(if pairs.is_empty() { Exit::Ok } else { Exit::Found })
}

/// Says who is to blame for two roots of one size: the log, when its key has signed both.
fn blame(path: &Path, progress: &Progress, one: &SeenHead, two: &SeenHead) -> Result<(), Failure> {
    let hub = Hub::open(path)?;
    let shelf = match hub.origin_of(&one.origin) {
        Ok(origin) => Shelf::open(&hub, &origin)?,
        Err(_) => None,
    };
    let signed = shelf
        .as_ref()
        .map(|shelf| checkpoint_of(shelf, &one.note).is_some() && checkpoint_of(shelf, &two.note).is_some());
    let detail = match signed {
        Some(true) => "the log's key has signed two trees of one size, and shown them to two hubs",
        Some(false) => "one of the two hubs has a head in its log that the log's key never signed",
        None => "this hub has not archived the log, and cannot tell who has signed",
    };
    let value = json!({
        "origin": one.origin, "size": one.size, "detail": detail, "signed": signed,
        "notes": [one.note.encode(), two.note.encode()],
    });
    progress.say(&format!("{} at {} entries: {detail}", one.origin, one.size), &value);
    if let (Some(shelf), Some(true)) = (&shelf, signed) {
        let pieces = [("head", one.note.encode().into_bytes()), ("head", two.note.encode().into_bytes())];
        for finding in forked(&hub, shelf, detail, &pieces)? {
            progress.say(&crate::commands::sentence(&finding), &finding);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_formats::hub_log::HubKind;
    use bulla_formats::note::{checkpoint_text, log_line};
    use ed25519_dalek::{Signer as _, SigningKey};

    #[test]
    fn a_verifier_key_has_one_spelling() {
        let key = SigningKey::from_bytes(&[3; 32]).verifying_key();
        let text = verifier_key("hub.example/heads", key.as_bytes());
        assert_eq!(log_key(&text), Some(("hub.example/heads".to_owned(), key)));
        for bad in [format!("{text}A"), text.replacen('h', "H", 1), text.replace('+', "-"), String::new()] {
            assert_eq!(log_key(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_hubs_log_that_was_rewritten_is_not_taken() {
        let key = SigningKey::from_bytes(&[5; 32]);
        let head = |size| {
            let note = SignedNote {
                text: checkpoint_text("log.example/1", size, &sha256(&[b"x"])),
                lines: vec![log_line("log.example/1", &[1; 32], &[2; 64])],
            };
            HubEntry::head(HubKind::Archived, size, &note).encode()
        };
        let log = |entries: &[Vec<u8>]| {
            let mut tree = Frontier::new();
            entries.iter().for_each(|entry| tree.append(leaf_hash(entry)));
            let text = checkpoint_text("hub.example/heads", tree.size(), &tree.root());
            let signature = key.sign(text.as_bytes()).to_bytes();
            let lines = vec![log_line("hub.example/heads", key.verifying_key().as_bytes(), &signature)];
            (SignedNote { text, lines }.encode(), (tree.size(), tree.root()))
        };
        let read = |note: &str, before, entries: &[Vec<u8>]| {
            let all = entries.to_vec();
            read_log("hub.example/heads", &key.verifying_key(), note.to_owned(), before, |_, _| {
                Ok(all.clone())
            })
        };
        let entries: Vec<Vec<u8>> = (1..6).map(head).collect();
        let (note, five) = log(&entries);
        let (_, three) = log(&entries[..3]);
        assert_eq!(read(&note, None, &entries).unwrap().heads.len(), 5);
        assert!(read(&note, Some(three), &entries).is_ok() && read(&note, Some(five), &entries).is_ok());
        assert!(read(&log(&entries[..3]).0, Some(five), &entries[..3]).is_err(), "shorter");
        let mut changed = entries.clone();
        changed[1] = head(9);
        assert!(read(&log(&changed).0, Some(three), &changed).is_err(), "changed");
        assert!(read(&note, None, &changed).is_err(), "not under the checkpoint");
        assert!(read(&note, None, &entries[..4]).is_err(), "not whole");
        let mut garbage = entries.clone();
        garbage[2] = b"no entry".to_vec();
        assert!(read(&log(&garbage).0, None, &garbage).is_err(), "not of the format");
        let other = SigningKey::from_bytes(&[6; 32]).verifying_key();
        assert!(read_log("hub.example/heads", &other, note, None, |_, _| Ok(Vec::new())).is_err());
    }
}

//! `find`: the seals of a document, with a verdict each; or entries of all logs in their order, by box, kind and proven time.
//!
//! Refuses to do: guess what cannot be asked here. Document ids and users are in no archive; who asks for one brings the
//! `.seal` files that open it.
//! Invariant: what is listed is in the order of all logs, and a page ends by naming the place where the next begins.

use crate::dossier::digest_text;
use crate::exit::{Exit, Failure};
use crate::hub::Hub;
use crate::index::Found;
use crate::journal::{self, Who};
use crate::order::{self, Merged, Query, Row, parse_place, place_text};
use crate::progress::Progress;
use crate::seal;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher, Field};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::report::{utc, utc_millis};
use bulla_formats::verify::verify;
use clap::Args;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// What can be asked, and what cannot.
pub const ASKED: &str = "\
A document is found by its bytes or its digest. Document ids, users and other metadata never leave a branch: the archive has
salted hashes of them only, and two seals of one document id look unrelated here. To find by one of them, ask the box
(GET /v1/seals?documentId=...), or hand over .seal files with openings: --document-id ID --opened FILE...
Without a document, entries of all logs are listed in one order. --from and --to are about proven times, never about clocks:
an entry is listed when it may have been made in that time, with --within when it must have been.";

/// Arguments of `find`.
#[derive(Debug, Args)]
pub struct FindArgs {
    /// The document's digest, e.g. sha-256:9f86d081...
    #[arg(long, value_name = "ALGORITHM:HEX", group = "wanted")]
    digest: Option<String>,
    /// The document itself; looked for under every algorithm
    #[arg(long, value_name = "FILE", group = "wanted")]
    document: Option<PathBuf>,
    /// The institution's id of the document, as the files of --opened open it
    #[arg(long, value_name = "ID", requires = "opened", group = "wanted")]
    document_id: Option<String>,
    /// The user, as the files of --opened open it
    #[arg(long, value_name = "USER", requires = "opened", group = "wanted")]
    user: Option<String>,
    /// .seal files with openings, from the branch
    #[arg(long, value_name = "SEAL", num_args = 1.., requires = "wanted")]
    opened: Vec<PathBuf>,
    /// Only this box (its name or its origin)
    #[arg(long = "box", value_name = "BOX")]
    only: Option<String>,
    /// Only entries of this kind, e.g. seal, anchor, manifest
    #[arg(long, value_name = "KIND", value_parser = kind_of)]
    kind: Option<Kind>,
    /// Only what may have been made then or later (UTC)
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    from: Option<u64>,
    /// Only what may have been made then or earlier (UTC)
    #[arg(long, value_name = "TIME", value_parser = utc_millis)]
    to: Option<u64>,
    /// Only what is proven to have been made in that time
    #[arg(long)]
    within: bool,
    /// Entries of a page
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: u64,
    /// Go on after this place, as the page before ended
    #[arg(long, value_name = "PLACE", value_parser = place_of)]
    after: Option<bulla_protocol::gossip::merge::Place>,
}

fn kind_of(text: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("kinds are {}", known()))
}

fn place_of(text: &str) -> Result<bulla_protocol::gossip::merge::Place, String> {
    parse_place(text).ok_or_else(|| "a place is LAMPORT,ORIGIN,INDEX, as `find` prints it".to_owned())
}

/// `find`.
pub fn find(path: &Path, args: &FindArgs, json: bool) -> Result<Exit, Failure> {
    let progress = Progress::new(json);
    let hub = Hub::open_judged(path, &progress)?;
    let origin = args.only.as_ref().map(|only| hub.origin_of(only)).transpose()?;
    let wanted = digests(args.digest.as_deref(), args.document.as_deref())?.0;
    let asked = json!({
        "digests": digest_texts(&wanted), "documentId": args.document_id, "user": args.user, "box": args.only,
        "kind": args.kind.map(Kind::name), "fromMillis": args.from, "toMillis": args.to, "within": args.within,
        "limit": args.limit, "after": args.after.as_ref().map(place_text),
    });
    journal::record(&hub.config.state_dir, &Who::Unix, "find", &asked)?;
    let query = Query {
        origin,
        kind: args.kind,
        from: args.from,
        to: args.to,
        within: args.within,
        after: args.after.clone(),
    };
    let by_opening = match (&args.document_id, &args.user) {
        (Some(id), _) => Some((Field::DocumentId, id)),
        (_, Some(user)) => Some((Field::User, user)),
        _ => None,
    };
    if let Some((field, value)) = by_opening {
        return seals(&hub, &query, opened(&hub, field, value, &args.opened, &progress)?, &progress);
    }
    if wanted.is_empty() {
        return list(&hub, &query, args.limit, &progress);
    }
    let mut found = Vec::new();
    for (algorithm, digest) in wanted {
        found.extend(hub.index.find(algorithm, &digest)?);
    }
    seals(&hub, &query, found, &progress)
}

/// Seals with a verdict each.
fn seals(hub: &Hub, query: &Query, found: Vec<Found>, progress: &Progress) -> Result<Exit, Failure> {
    if query.kind.is_some_and(|kind| kind != Kind::Seal) {
        return Err(Failure::usage("documents are found in seals only; leave out --kind"));
    }
    let mut shown = 0;
    judged(hub, query, found, &mut |line, value| {
        progress.say(&line, &value);
        shown += 1;
    })?;
    Ok(if shown == 0 { Exit::Nothing } else { Exit::Ok })
}

/// Hands out those of the seals found that `query` wants, with a verdict each: for people, and for programs.
pub fn judged(
    hub: &Hub,
    query: &Query,
    mut found: Vec<Found>,
    each: &mut dyn FnMut(String, Value),
) -> Result<(), Failure> {
    found.retain(|seal| query.origin.as_ref().is_none_or(|only| *only == seal.origin));
    let several = found.iter().any(|seal| seal.origin != found[0].origin);
    for seal in &found {
        let (file, verification) = match seal::file(hub, &seal.origin, seal.index) {
            Ok(made) => made,
            // Of a log whose first pull has not come to its head yet.
            Err(failure) if failure.exit == Exit::Nothing => {
                let line = format!("{} {}: not under an archived head yet", seal.origin, seal.index);
                each(line, json!({"origin": seal.origin, "index": seal.index, "verdict": Value::Null}));
                continue;
            }
            Err(failure) => return Err(failure),
        };
        let report = &verification.report;
        let (after, before) =
            report.interval.map_or((None, None), |interval| (interval.after, interval.before));
        let span = crate::timing::Span { first: seal.index, end: seal.index + 1, after, before };
        let fits = if query.within {
            span.is_within(query.from, query.to)
        } else {
            span.overlaps(query.from, query.to)
        };
        if !fits {
            continue;
        }
        let local = report.interval.map(|interval| interval.local.unix_millis);
        let line = format!(
            "{} {}: {}, not before {}, not after {}, local time {}",
            seal.origin,
            seal.index,
            report.verdict.name(),
            time(after),
            time(before),
            time(local)
        );
        let facts: Vec<&str> = report.facts.iter().map(|fact| fact.name()).collect();
        let leaf = bulla_formats::hash::leaf_hash(&file.entry).to_string();
        let value = json!({
            "origin": seal.origin, "index": seal.index, "leafHash": leaf, "verdict": report.verdict.name(),
            "facts": facts, "notBeforeMillis": after, "notAfterMillis": before, "localMillis": local,
            "duplicate": several,
        });
        each(line, value);
    }
    Ok(())
}

fn time(millis: Option<u64>) -> String {
    millis.map_or_else(|| "unknown".to_owned(), utc)
}

/// Entries in the order of all logs.
fn list(hub: &Hub, query: &Query, limit: u64, progress: &Progress) -> Result<Exit, Failure> {
    let mut shown = 0;
    let next = entries(hub, query, limit, &mut |line, value| {
        if shown == 0 {
            progress.title(&format!(
                "{:<20} {:>10} {:<15} {:>10}  {:<24}  {:<24}  {:<24}",
                "box", "index", "kind", "lamport", "not before", "not after", "local time"
            ));
        }
        progress.say(&line, &value);
        shown += 1;
    })?;
    if let Some(place) = next {
        progress.say(&format!("more: --after {place}"), &json!({"next": place}));
    }
    Ok(if shown == 0 { Exit::Nothing } else { Exit::Ok })
}

/// Hands out at most `limit` entries in the order of all logs: for people, and for programs. Returns the place after which
/// there is more.
pub fn entries(
    hub: &Hub,
    query: &Query,
    limit: u64,
    each: &mut dyn FnMut(String, Value),
) -> Result<Option<String>, Failure> {
    let mut merged = Merged::new(hub, query)?;
    let (mut shown, mut last) = (0, None);
    while let Some(row) = merged.next()? {
        if shown == limit {
            // There is more: the page ends where the last row stands.
            return Ok(last.as_ref().map(place_text));
        }
        let name = hub.config.boxes.iter().find(|branch| branch.origin == *row.place.origin);
        let name = name.map_or(&*row.place.origin, |branch| branch.name.as_str());
        each(line(name, &row), value(name, &row));
        last = Some(row.place);
        shown += 1;
    }
    Ok(None)
}

fn line(name: &str, row: &Row) -> String {
    let bound = |millis: Option<u64>| millis.map_or_else(|| "-".to_owned(), utc);
    format!(
        "{name:<20} {:>10} {:<15} {:>10}  {:<24}  {:<24}  {}",
        row.place.index,
        row.kind_name(),
        row.place.lamport,
        bound(row.after),
        bound(row.before),
        utc(row.local.unix_millis)
    )
}

fn value(name: &str, row: &Row) -> Value {
    json!({
        "box": name,
        "origin": &*row.place.origin,
        "index": row.place.index,
        "lamport": row.place.lamport,
        "kind": row.kind_name(),
        "leafHash": row.leaf.to_string(),
        "notBeforeMillis": row.after,
        "notAfterMillis": row.before,
        "localMillis": row.local.unix_millis,
        "localUncertaintyMillis": row.local.uncertainty_millis,
        "place": order::place_text(&row.place),
    })
}

/// Where the seals stand whose openings, in the files handed over, say this of this field.
fn opened(
    hub: &Hub,
    field: Field,
    wanted: &str,
    files: &[PathBuf],
    progress: &Progress,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    for path in files {
        let bytes = std::fs::read(path)
            .map_err(|error| Failure::usage(format!("{} cannot be read ({error})", path.display())))?;
        let Some(seal) = verify(&bytes, &hub.trust, None).seal else {
            progress.complain(&format!("{}: does not verify, and is left out", path.display()));
            continue;
        };
        let says = seal.openings().iter().any(|opening| opening.field == field && opening.value == wanted);
        let origin = seal.enrolment().origin().to_string();
        let at = Found { origin, index: seal.entry().content().index };
        if says && archived(hub, &at, seal.entry())? && !found.contains(&at) {
            found.push(at);
        } else if says {
            progress.complain(&format!("{}: its seal is not in the archive", path.display()));
        }
    }
    Ok(found)
}

fn archived(hub: &Hub, at: &Found, entry: &Entry) -> Result<bool, Failure> {
    let shelf = crate::shelf::Shelf::open(hub, &at.origin)?;
    let there = shelf.map(|shelf| shelf.entry(at.index)).transpose()?.flatten();
    Ok(there.as_deref() == Some(entry.bytes()))
}

/// Digests as the index takes them.
pub type Digests = Vec<(DigestAlgorithm, Vec<u8>)>;

/// The digests of a document: the one that is named, or those of a file by every algorithm with its size.
pub fn digests(digest: Option<&str>, document: Option<&Path>) -> Result<(Digests, Option<u64>), Failure> {
    if let Some(text) = digest {
        return parse_digest(text).map(|digest| (vec![digest], None)).ok_or_else(|| {
            Failure::usage(format!(
                "--digest {text:?} is not sha-256:, sha-512: or sha3-256: and its hex digits"
            ))
        });
    }
    let Some(path) = document else { return Ok((Vec::new(), None)) };
    let unreadable =
        |error: std::io::Error| Failure::usage(format!("{} cannot be read ({error})", path.display()));
    let algorithms = [DigestAlgorithm::Sha256, DigestAlgorithm::Sha512, DigestAlgorithm::Sha3_256];
    let mut hashers = algorithms.map(DocumentHasher::new);
    let mut file = std::fs::File::open(path).map_err(unreadable)?;
    let mut piece = vec![0; 1 << 16];
    let mut size = 0;
    loop {
        let length = file.read(&mut piece).map_err(unreadable)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        hashers.iter_mut().for_each(|hasher| hasher.update(&piece[..length]));
    }
    let finished = hashers.into_iter().map(DocumentHasher::finish);
    Ok((finished.map(|digest| (digest.algorithm, digest.value)).collect(), Some(size)))
}

/// `ALGORITHM:HEX`.
pub fn parse_digest(text: &str) -> Option<(DigestAlgorithm, Vec<u8>)> {
    let (name, digest) = text.split_once(':')?;
    let algorithm = DigestAlgorithm::from_name(name)?;
    let digest = hex::decode(digest).ok()?;
    (digest.len() == algorithm.digest_bytes()).then_some((algorithm, digest))
}

/// Digests as people and the list of queries read them.
pub fn digest_texts(digests: &[(DigestAlgorithm, Vec<u8>)]) -> Vec<String> {
    digests
        .iter()
        .map(|(algorithm, value)| {
            let (algorithm, value) = (*algorithm, value.clone());
            digest_text(&bulla_formats::body::seal::DocumentDigest { algorithm, value, size: None })
        })
        .collect()
}

/// What is said of documents that nobody has sealed.
pub fn unsealed(digests: &[(DigestAlgorithm, Vec<u8>)]) -> Failure {
    Failure::nothing(format!("no archived log has a seal of {}", digest_texts(digests).join(" or ")))
}

//! `bulla verify` with many documents: one line each, in the order given, and a line of sums.
//!
//! Every core has its own verifier, which remembers what the seals of one box share.
//! Refuses to do: stop at a document that has no seal or cannot be read; follow links to directories; hold a document in
//! memory.
//! Invariants: every document found gets exactly one line; the exit code is that of the worst of them.

use crate::exit::{Exit, Failure};
use crate::files;
use crate::progress::Progress;
use crate::verify::opened;
use bulla_formats::body::seal::DigestAlgorithm;
use bulla_formats::report::utc;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::{VerifiedSeal, Verifier};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// What to verify, and by what.
pub struct Many<'a> {
    /// Documents, their seals, and directories.
    pub names: &'a [PathBuf],
    /// Whether directories below directories count.
    pub recursive: bool,
    /// Where the seals are, when not beside the documents.
    pub seal_dir: Option<&'a Path>,
    /// Where the trust file is: it is no document.
    pub trust_path: &'a Path,
    /// The trust file.
    pub trust: &'a TrustFile,
    /// Its fingerprint.
    pub fingerprint: &'a str,
    /// JSON lines instead of a table.
    pub json: bool,
    /// No progress bar.
    pub quiet: bool,
}

/// A document, and where its seal should be; or a place that cannot be looked into.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    document: PathBuf,
    seal: PathBuf,
    trouble: Option<String>,
}

/// What came of one document.
struct Judged {
    exit: Exit,
    verdict: &'static str,
    sealed_millis: Option<u64>,
    why: String,
    json: Value,
}

const HEADER: &str = "verdict         sealed (the box's clock)  document";

/// Verifies every document.
pub fn run(many: &Many<'_>) -> Result<Exit, Failure> {
    let found = find(many);
    if found.is_empty() {
        let more = if many.recursive { "" } else { "; add --recursive for the directories below" };
        return Err(Failure::usage(format!("there is no document in what was named{more}")));
    }
    let progress = Progress::new(!many.quiet);
    let task = progress.count("verifying", found.len() as u64);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let cores = thread::available_parallelism().map_or(1, usize::from).min(found.len());
    let mut sums = BTreeMap::<&'static str, usize>::new();
    let mut worst = Exit::Ok;
    if !many.json {
        progress.say(HEADER);
    }
    thread::scope(|scope| {
        for _ in 0..cores {
            let (sender, next, found) = (sender.clone(), &next, &found);
            scope.spawn(move || {
                let mut verifier = Verifier::new(many.trust);
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = found.get(at) else { return };
                    if sender.send((at, judge(one, &mut verifier, many.fingerprint))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        // Cores finish in any order; lines come in the order of the documents.
        let (mut waiting, mut due) = (BTreeMap::new(), 0);
        for (at, judged) in receiver {
            task.add(1);
            waiting.insert(at, judged);
            while let Some(judged) = waiting.remove(&due) {
                say(&progress, many, &found[due], &judged);
                *sums.entry(judged.verdict).or_default() += 1;
                worst = std::cmp::max_by_key(worst, judged.exit, |exit| exit.badness());
                due += 1;
            }
        }
    });
    task.finish();
    let sums: Vec<String> = sums.iter().map(|(verdict, number)| format!("{number} {verdict}")).collect();
    let documents = if found.len() == 1 { "document" } else { "documents" };
    let summary = format!(
        "{} {documents}: {}; trust file {}, written {}",
        found.len(),
        sums.join(", "),
        many.fingerprint,
        utc(many.trust.issued_millis)
    );
    if many.json {
        progress.complain(&summary)
    } else {
        progress.say(&summary)
    }
    Ok(worst)
}

fn say(progress: &Progress, many: &Many<'_>, one: &Found, judged: &Judged) {
    if many.json {
        progress.say_json(&judged.json);
        return;
    }
    let when = judged.sealed_millis.map_or_else(|| "-".to_owned(), utc);
    let mut line = format!("{:<14}  {when:<24}  {}", judged.verdict, one.document.display());
    if !judged.why.is_empty() {
        line.push_str("  ");
        line.push_str(&judged.why);
    }
    progress.say(&line);
}

fn judge(one: &Found, verifier: &mut Verifier<'_>, fingerprint: &str) -> Judged {
    let lacking = |exit, verdict, sentence: String| {
        let json = json!({
            "document": one.document.to_string_lossy(), "seal": one.seal.to_string_lossy(), "verdict": verdict,
            "sentence": sentence, "facts": [], "trustFingerprint": fingerprint,
        });
        Judged { exit, verdict, sealed_millis: None, why: sentence, json }
    };
    let unreadable = |sentence| lacking(Exit::Usage, "unreadable", sentence);
    if let Some(trouble) = &one.trouble {
        return unreadable(trouble.clone());
    }
    // Asked before opening: opening a pipe would wait for somebody to write to it.
    match fs::metadata(&one.document) {
        Err(error) => return unreadable(format!("the document cannot be read: {error}")),
        Ok(metadata) if !metadata.is_file() => return unreadable("it is not a file".to_owned()),
        Ok(_) => {}
    }
    let bytes = match files::read_seal(&one.seal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let sentence = format!("no seal known for these bytes: {} does not exist", one.seal.display());
            return lacking(Exit::NoSeal, "no-seal", sentence);
        }
        Err(error) => return unreadable(format!("{} cannot be read: {error}", one.seal.display())),
        Ok(bytes) => bytes,
    };
    let seal = verifier.unpack(&bytes);
    let algorithm = seal.wanted_digest().unwrap_or(DigestAlgorithm::Sha256);
    let digest = match files::hash_file(&one.document, algorithm) {
        Err(error) => return unreadable(format!("the document cannot be read: {error}")),
        Ok(digest) => digest,
    };
    let judged = verifier.judge(seal, Some(&digest));
    let report = &judged.report;
    let openings = judged.seal.as_ref().map_or(&[][..], VerifiedSeal::openings);
    let mut json = json!({"document": one.document.to_string_lossy(), "seal": one.seal.to_string_lossy()});
    if let Value::Object(members) = report.to_json() {
        members.into_iter().for_each(|(name, value)| json[name] = value);
    }
    json["trustFingerprint"] = fingerprint.into();
    json["opened"] = openings.iter().map(opened).collect();
    Judged {
        exit: report.verdict.into(),
        verdict: report.verdict.name(),
        sealed_millis: report.interval.map(|interval| interval.local.unix_millis),
        why: report.failed().map_or_else(String::new, |check| format!("{}: {}", check.name, check.detail)),
        json,
    }
}

/// Documents in the order of the names; those of a directory sorted.
fn find(many: &Many<'_>) -> Vec<Found> {
    let known = |path: &Path| fs::canonicalize(path).ok();
    let (trust, seals) = (known(many.trust_path), many.seal_dir.and_then(known));
    let mut search = Search { many, trust, seals, seen: HashSet::new(), found: Vec::new() };
    for name in many.names {
        if name.is_dir() {
            search.directory(name, name);
        } else {
            search.document(name, name.parent());
        }
    }
    search.found
}

struct Search<'a> {
    many: &'a Many<'a>,
    /// The trust file, and the directory of seals: neither is a document, nor full of them.
    trust: Option<PathBuf>,
    seals: Option<PathBuf>,
    seen: HashSet<PathBuf>,
    found: Vec<Found>,
}

impl Search<'_> {
    /// A document, or its seal in place of it. `base` is what its place in the directory of seals does not repeat.
    fn document(&mut self, path: &Path, base: Option<&Path>) {
        let document = if files::is_seal(path) { path.with_extension("") } else { path.to_owned() };
        let seal = match self.many.seal_dir {
            None => files::seal_path(&document),
            Some(directory) => {
                let below = base.and_then(|base| document.strip_prefix(base).ok()).unwrap_or(&document);
                files::seal_path(&directory.join(below))
            }
        };
        if self.seen.insert(document.clone()) {
            self.found.push(Found { document, seal, trouble: None });
        }
    }

    fn directory(&mut self, directory: &Path, base: &Path) {
        let listed = fs::read_dir(directory).and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))).collect()
        });
        let mut inside: Vec<(PathBuf, fs::FileType)> = match listed {
            Ok(inside) => inside,
            Err(error) => {
                let trouble = Some(format!("the directory cannot be read: {error}"));
                let seal = PathBuf::new();
                return self.found.push(Found { document: directory.to_owned(), seal, trouble });
            }
        };
        inside.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (path, kind) in inside {
            if kind.is_dir() {
                if self.many.recursive && (self.seals.is_none() || fs::canonicalize(&path).ok() != self.seals)
                {
                    self.directory(&path, base);
                }
                continue;
            }
            let linked_directory = kind.is_symlink() && path.is_dir();
            if !linked_directory && !self.is_trust_file(&path) {
                self.document(&path, Some(base));
            }
        }
    }

    fn is_trust_file(&self, path: &Path) -> bool {
        self.trust.is_some() && path.file_name() == self.many.trust_path.file_name() && {
            fs::canonicalize(path).ok() == self.trust
        }
    }
}

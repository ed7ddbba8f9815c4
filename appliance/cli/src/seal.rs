//! `bulla seal`: hands documents to the box and keeps what it gives beside them.
//!
//! Refuses to do: overwrite a `.seal` of other bytes unasked; believe a receipt whose seal is of another document;
//! let one bad file stop the others.
//! Invariants: a file is read twice and the box compares, so that a document changed in between is never sealed
//! half old and half new; an interrupted run, started again with the same words, finishes without sealing anything
//! twice (G3), because every request's key follows from what is asked.

use crate::client::{Answer, BoxClient, BoxOptions, CallError};
use crate::exit::{Exit, Failure};
use crate::files;
use crate::media;
use crate::order::Order;
use crate::progress::{Counted, Progress, Task};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, SealBody};
use bulla_formats::entry::Entry;
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::{verify, wanted_digest};
use clap::Args;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Arguments of `bulla seal`.
#[derive(Debug, Args)]
pub struct SealArgs {
    /// Documents to seal; FILE gets FILE.seal beside it
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    connection: BoxOptions,
    /// The person at the scanner; only a salted hash of it enters the log
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// The institution's id of the document; only a salted hash of it enters the log
    #[arg(long, value_name = "ID")]
    pub(crate) document_id: Option<String>,
    /// More metadata, committed to by salted hashes; can be repeated
    #[arg(long = "meta", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) metadata: Vec<(String, String)>,
    /// Do not commit to the file's name
    #[arg(long)]
    pub(crate) no_filename: bool,
    /// Id or leaf hash of a seal whose document this one replaces; can be repeated
    #[arg(long, value_name = "ID")]
    pub(crate) supersedes: Vec<String>,
    /// Wait until this fact holds: attested, anchored, mirrored(K) or witnessed(K), of K neighbours, 1 to 8
    #[arg(long, value_name = "FACT", value_parser = fact)]
    wait: Option<String>,
    /// Longest wait in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=60))]
    deadline: u8,
    /// Send only the digest; the seal then says that the box never saw the document
    #[arg(long)]
    pub(crate) digest_only: bool,
    /// Files sent at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Also verify every seal, those that are there and those that come, by this trust file
    #[arg(long, value_name = "TRUST")]
    trust: Option<PathBuf>,
    /// Replace a FILE.seal that is of other bytes
    #[arg(long)]
    force: bool,
    /// Plain lines, no progress bars
    #[arg(long)]
    quiet: bool,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("it is not NAME=VALUE".to_owned()),
    }
}

/// What became of a file.
enum Done {
    Sealed(String),
    Skipped(String),
}

/// What all files of a run share.
struct Run<'a> {
    args: &'a SealArgs,
    client: BoxClient,
    trust: Option<TrustFile>,
    progress: Progress,
}

/// Seals every file; one summary line at the end.
pub fn run(args: &SealArgs) -> Result<Exit, Failure> {
    let trust = args.trust.as_deref().map(files::read_trust).transpose()?.map(|(trust, _)| trust);
    let client = BoxClient::new(&args.connection)?;
    let run = Run { args, client, trust, progress: Progress::new(!args.quiet) };
    let progress = &run.progress;
    let next = AtomicUsize::new(0);
    let results = Mutex::new((0usize, 0usize, Vec::<Exit>::new()));
    std::thread::scope(|scope| {
        for _ in 0..usize::from(args.jobs).min(args.files.len()) {
            scope.spawn(|| {
                while let Some(path) = args.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = run.one(path);
                    let mut results = results.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                    match done {
                        Ok(Done::Sealed(words)) => {
                            results.0 += 1;
                            progress.say(&format!("sealed   {}  {words}", path.display()));
                        }
                        Ok(Done::Skipped(why)) => {
                            results.1 += 1;
                            progress.say(&format!("skipped  {}  {why}", path.display()));
                        }
                        Err(failure) => {
                            results.2.push(failure.exit);
                            progress.complain(&format!("FAILED   {failure}"));
                        }
                    }
                }
            });
        }
    });
    let (sealed, skipped, failed) = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    progress.say(&format!("{sealed} sealed, {skipped} skipped, {} failed", failed.len()));
    // What lies at this end is named first: it can be mended here.
    let usage = failed.contains(&Exit::Usage).then_some(Exit::Usage);
    Ok(usage.or(failed.first().copied()).unwrap_or(Exit::Ok))
}

impl Run<'_> {
    fn one(&self, path: &Path) -> Result<Done, Failure> {
        let shown = path.display();
        if files::is_seal(path) {
            return Ok(Done::Skipped("it is a .seal file itself".into()));
        }
        let unreadable = |error: io::Error| Failure::usage(format!("{shown} cannot be read: {error}"));
        // Asked before opening: opening a pipe would wait for somebody to write to it.
        let metadata = fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Failure::usage(format!("{shown} is not a file; name the documents themselves")));
        }
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let task = self.progress.bytes(&name, metadata.len());
        let done = self.hash_and_send(path, name, &task);
        task.finish();
        done
    }

    fn hash_and_send(&self, path: &Path, name: String, task: &Task) -> Result<Done, Failure> {
        let shown = path.display();
        let unreadable = |error: io::Error| Failure::usage(format!("{shown} cannot be read: {error}"));
        let mut file = File::open(path).map_err(unreadable)?;
        let mut head = [0; media::HEAD_BYTES];
        let head_length = file.read(&mut head).map_err(unreadable)?;
        file.rewind().map_err(unreadable)?;
        let digest = files::hash(&mut file, DigestAlgorithm::Sha256, &|length| task.add(length))
            .map_err(unreadable)?;
        if digest.size == Some(0) {
            return Err(Failure::usage(format!(
                "{shown} is empty, and an empty document is not sealed; scan it again"
            )));
        }
        let seal_path = files::seal_path(path);
        let replace = match self.existing(path, &seal_path, &digest)? {
            Existing::None => false,
            Existing::Same => {
                return Ok(Done::Skipped(format!("{} seals these bytes already", seal_path.display())));
            }
            Existing::Other(_) if self.args.force => true,
            Existing::Other(why) => {
                let seal = seal_path.display();
                return Err(Failure::usage(format!(
                    "{shown} is not sealed: {seal} exists and {why}; move it away, or replace it with --force"
                )));
            }
        };
        let media_type = media::guess(path, &head[..head_length]);
        let order = Order::new(self.args, self.client.url(), path, name, media_type, digest)?;
        let answer = self.send(&order, path, task);
        let (seal, words) = answer.and_then(|answer| self.receipt(&answer, &order)).map_err(|error| {
            let changed = matches!(&error, CallError::Refused { slug, .. } if slug == "digest-mismatch");
            if changed {
                let what =
                    "it changed while it was being sent, so nothing was sealed; try again when it is at rest";
                return Failure::usage(format!("{shown}: {what}"));
            }
            error.into_failure(&shown.to_string())
        })?;
        files::write_atomically(&seal_path, seal.encode().as_bytes(), replace).map_err(|error| {
        let seal = seal_path.display();
        Failure::usage(format!(
            "{shown} was sealed, but {seal} cannot be written: {error}; run the same command again when it can, the box will give the same seal"
        ))
    })?;
        Ok(Done::Sealed(words))
    }

    /// What FILE.seal is to the bytes of FILE, whose SHA-256 is known.
    fn existing(&self, path: &Path, seal_path: &Path, sha256: &DocumentDigest) -> Result<Existing, Failure> {
        let bytes = match files::read_seal(seal_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Existing::None),
            Err(error) => return Ok(Existing::Other(format!("cannot be read ({error})"))),
            Ok(bytes) => bytes,
        };
        let seal = match SealFile::decode(&bytes) {
            Ok(seal) => seal,
            Err(error) => return Ok(Existing::Other(format!("is no seal this program can read ({error})"))),
        };
        let digest = match wanted_digest(&seal) {
            None => return Ok(Existing::Other("seals nothing this program can read".into())),
            Some(DigestAlgorithm::Sha256) => sha256.clone(),
            Some(algorithm) => files::hash_file(path, algorithm)
                .map_err(|error| Failure::usage(format!("{} cannot be read: {error}", path.display())))?,
        };
        if !is_of(&seal, &digest) {
            return Ok(Existing::Other("is of other bytes".into()));
        }
        Ok(self
            .untrusted(&bytes, &digest)
            .map_or(Existing::Same, |why| Existing::Other(format!("does not verify ({why})"))))
    }

    /// What speaks against a seal by the trust file, when there is one.
    fn untrusted(&self, seal: &[u8], document: &DocumentDigest) -> Option<String> {
        let report = verify(seal, self.trust.as_ref()?, Some(document)).report;
        (report.verdict != Verdict::Valid).then(|| {
            let detail = report.failed().map_or("", |check| check.detail.as_str());
            format!("{}: {detail}", report.verdict.name())
        })
    }

    fn send(&self, order: &Order, path: &Path, task: &Task) -> Result<Answer, CallError> {
        let target = match &self.args.wait {
            None => "/v1/seals".to_owned(),
            Some(fact) => format!("/v1/seals?wait={fact}&deadlineSeconds={}", self.args.deadline),
        };
        let again = |why: &str| self.progress.complain(&format!("waiting  {}: {why}", path.display()));
        let headers = order.headers(self.args);
        if self.args.digest_only {
            let body = order.claim(self.args).to_string().into_bytes();
            return self.client.post(&target, &headers, body.len() as u64, || Ok(&body[..]), &again);
        }
        let open = || {
            task.restart();
            Ok(Counted { reader: File::open(path)?, task: task.clone() })
        };
        self.client.post(&target, &headers, order.size(), open, &again)
    }

    /// The seal in the box's answer, and what to say of it.
    fn receipt(&self, answer: &Answer, order: &Order) -> Result<(SealFile, String), CallError> {
        let receipt = answer.json()?;
        let wrong =
            |what: &str| CallError::Refused { slug: String::new(), detail: format!("its receipt {what}") };
        if receipt.get("queued").and_then(Value::as_bool) == Some(true) {
            let text = |name: &str| receipt.get(name).and_then(Value::as_str).unwrap_or_default();
            let detail = format!(
                "it has queued the document as {} and seals it in its turn: {}; run the same command later for the seal",
                text("queueId"),
                text("reason")
            );
            return Err(CallError::Busy { detail, after: None });
        }
        let seal = receipt.get("seal").map(Value::to_string).ok_or_else(|| wrong("has no seal in it"))?;
        let seal =
            SealFile::decode(seal.as_bytes()).map_err(|error| wrong(&format!("is not usable: {error}")))?;
        if !is_of(&seal, &order.digest) {
            return Err(wrong(
                "is of other bytes than this document's; do not use this box until that is explained",
            ));
        }
        if let Some(why) = self.untrusted(seal.encode().as_bytes(), &order.digest) {
            return Err(wrong(&format!("has a seal that the trust file does not bear out ({why})")));
        }
        let text = |name: &str| receipt.get(name).and_then(Value::as_str).unwrap_or_default();
        let list = |name: &str| -> Vec<&str> {
            receipt
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect()
        };
        let mut words = format!("{} ({})", text("id"), list("facts").join(", "));
        if receipt.get("replayed").and_then(Value::as_bool) == Some(true) {
            words.push_str("; the box had sealed it before, for the same request");
        }
        let earlier = list("earlier");
        if !earlier.is_empty() {
            words.push_str(&format!("; the same bytes were sealed earlier: {}", earlier.join(", ")));
        }
        match text("waited") {
            "timed-out" => {
                let fact = self.args.wait.as_deref().unwrap_or_default();
                words.push_str(&format!("; not {fact} in time, run `bulla upgrade` later"));
            }
            "not-hardware" => words.push_str("; this box has no TPM and will never attest it"),
            "no-authorities" => words.push_str("; this box has no authorities and will never anchor it"),
            "no-neighbours" => words.push_str("; this box has no neighbours, and nobody else will hold it"),
            _ => {}
        }
        Ok((seal, words))
    }
}

/// A fact that can be waited for, in the API's spelling.
fn fact(text: &str) -> Result<String, &'static str> {
    let of_neighbours = ["mirrored(", "witnessed("].into_iter().find_map(|start| text.strip_prefix(start));
    let known = matches!(text, "attested" | "anchored")
        || of_neighbours.is_some_and(|rest| matches!(rest.as_bytes(), [b'1'..=b'8', b')']));
    known
        .then(|| text.to_owned())
        .ok_or("write attested, anchored, mirrored(K) or witnessed(K), with K from 1 to 8")
}

/// What FILE.seal is to FILE.
enum Existing {
    /// Not there.
    None,
    /// Its seal.
    Same,
    /// Something else; why.
    Other(String),
}

/// Whether `seal` says it is of this document; its evidence is not judged here.
fn is_of(seal: &SealFile, document: &DocumentDigest) -> bool {
    let body = Entry::decode(&seal.entry).and_then(|entry| SealBody::decode(&entry.content().body));
    body.is_ok_and(|body| {
        let sealed = body.document_digest();
        let size_fits = sealed.size.is_none() || sealed.size == document.size;
        (sealed.algorithm, &sealed.value) == (document.algorithm, &document.value) && size_fits
    })
}

#[cfg(test)]
mod tests {
    use super::{fact, name_and_value};

    #[test]
    fn facts_are_those_of_the_api() {
        for known in ["attested", "anchored", "mirrored(1)", "witnessed(8)"] {
            assert_eq!(fact(known).as_deref(), Ok(known));
        }
        for unknown in [
            "",
            "sealed",
            "mirrored",
            "mirrored()",
            "mirrored(0)",
            "mirrored(9)",
            "mirrored(10)",
            "mirrored(2)&x=y",
        ] {
            assert!(fact(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn metadata_is_split_at_the_first_sign() {
        assert_eq!(name_and_value("a=b=c").unwrap(), ("a".into(), "b=c".into()));
        assert!(name_and_value("=b").is_err());
        assert!(name_and_value("b").is_err());
    }
}

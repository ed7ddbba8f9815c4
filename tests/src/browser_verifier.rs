//! The browser verifier under Node: the page's own script, asked over a pipe.
//!
//! Refuses to do: skip. Without Node, it fails and says what is missing.
//! Invariant: answers come in the order of the questions; at most [`AT_ONCE`] are under way, so that no pipe fills up.

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentHasher};
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::{verify, wanted_digest};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// Most questions that are asked before the first is answered: their answers fit into a pipe.
pub const AT_ONCE: usize = 32;

/// What both verifiers are given.
#[derive(Debug, Clone)]
pub struct Case {
    /// Where it comes from.
    pub name: String,
    /// The `.seal`.
    pub seal: Vec<u8>,
    /// The trust file.
    pub trust: Vec<u8>,
    /// The document.
    pub document: Option<Vec<u8>>,
}

impl Case {
    /// As the page's script is asked.
    pub fn question(&self) -> Value {
        let mut question = json!({
            "trust": BASE64_STANDARD.encode(&self.trust),
            "seal": BASE64_STANDARD.encode(&self.seal),
        });
        if let Some(document) = &self.document {
            question["document"] = BASE64_STANDARD.encode(document).into();
        }
        question
    }

    /// What the Rust verifier says of it, as [`summary`] puts it.
    pub fn judged(&self) -> Value {
        let Ok(trust) = TrustFile::decode(&self.trust) else { return json!({"verdict": "trust-refused"}) };
        let digest = self.document.as_ref().map(|document| {
            let file = SealFile::decode(&self.seal).ok();
            let algorithm = file.as_ref().and_then(wanted_digest).unwrap_or(DigestAlgorithm::Sha256);
            let mut hasher = DocumentHasher::new(algorithm);
            hasher.update(document);
            hasher.finish()
        });
        summary(&verify(&self.seal, &trust, digest.as_ref()).report.to_json())
    }
}

/// What must be the same in both: verdict, each check and its outcome, facts, the interval.
pub fn summary(report: &Value) -> Value {
    if report["verdict"] == "trust-refused" {
        return json!({"verdict": "trust-refused"});
    }
    let check = |check: &Value| format!("{} {}", check["check"], check["outcome"]).replace('"', "");
    let checks: Vec<String> = report["checks"].as_array().into_iter().flatten().map(check).collect();
    json!({
        "verdict": report["verdict"],
        "checks": checks,
        "facts": report["facts"],
        "interval": report["interval"],
        "trustIssuedMillis": report["trustIssuedMillis"],
        "trustRosterVersion": report["trustRosterVersion"],
        "crash": report["crash"],
    })
}

/// Where the two part, for whoever has to find out which is wrong.
fn difference(case: &Case, ours: &Value, said: &Value) -> String {
    let last = |checks: &Value| checks.as_array().and_then(|checks| checks.last().cloned());
    let (mine, theirs) = (ours.clone(), summary(said));
    let members = ["verdict", "facts", "interval", "trustIssuedMillis", "trustRosterVersion", "crash"];
    let other: Vec<String> = members
        .iter()
        .filter(|name| mine[**name] != theirs[**name])
        .map(|name| format!("{name} {} / {}", mine[*name], theirs[*name]))
        .collect();
    let at = last(&mine["checks"]) != last(&theirs["checks"]) || mine["checks"] != theirs["checks"];
    let checks =
        if at { format!(" checks {} / {}", mine["checks"], theirs["checks"]) } else { String::new() };
    let why = last(&said["checks"]).map_or(said["why"].clone(), |check| check["detail"].clone());
    format!("{}: Rust / page: {}{checks}; the page's reason {why}", case.name, other.join(", "))
}

/// A running script.
pub struct Node {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    _page: TempDir,
}

impl Node {
    /// Starts it on the page as it is built.
    pub fn start() -> Result<Self> {
        Self::start_as(&[])
    }

    /// The script of a browser that has no Ed25519 of its own.
    pub fn without_ed25519() -> Result<Self> {
        Self::start_as(&["without-ed25519"])
    }

    fn start_as(more: &[&str]) -> Result<Self> {
        let directory = TempDir::new()?;
        let page = directory.path().join("verify.html");
        std::fs::write(&page, bulla_verifier_web::page())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node.cjs");
        let mut child = Command::new("node")
            .arg(script)
            .arg(&page)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start node; apt-get install nodejs")?;
        let questions = child.stdin.take().context("node has no input")?;
        let answers = BufReader::new(child.stdout.take().context("node has no output")?);
        Ok(Node { child, questions, answers, _page: directory })
    }

    /// Asks these, at most [`AT_ONCE`], and gives the answers.
    pub fn ask(&mut self, questions: &[Value]) -> Result<Vec<Value>> {
        for question in questions {
            writeln!(self.questions, "{question}")?;
        }
        self.questions.flush()?;
        questions.iter().map(|_| self.answer()).collect()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("node has stopped");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Asks all of these, judges each beside it, and names those where the two do not say the same.
    pub fn disagreements(&mut self, cases: &[Case]) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for some in cases.chunks(AT_ONCE) {
            for case in some {
                writeln!(self.questions, "{}", case.question())?;
            }
            self.questions.flush()?;
            for case in some {
                let ours = case.judged();
                let said = self.answer()?;
                let theirs = summary(&said);
                if ours != theirs {
                    found.push(difference(case, &ours, &said));
                }
            }
        }
        Ok(found)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

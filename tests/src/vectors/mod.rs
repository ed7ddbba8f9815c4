//! Vectors: one scenario a directory, with the verdict that `docs/formats.md` demands of it.
//!
//! Every expectation is written beside its scenario by hand; the verifier is never asked what it thinks.
//! Refuses to do: depend on a clock, on randomness or on a chip. The same source makes the same bytes.

mod anchors;
mod believed;
mod cosigned;
mod crls;
mod damaged;
mod der;
mod erasures;
mod heads;
mod identity;
mod keys;
mod log;
mod outages;
mod packaging;
mod plan;
mod revocations;
mod shapes;
mod stamps;
mod successions;
mod tokens;
mod valid;

pub use damaged::damaged;
use plan::Plan;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a verifier must say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// The trust file itself is refused; nothing is verified.
    TrustRefused,
    /// The seal is judged.
    Judged {
        /// Name of the verdict.
        verdict: &'static str,
        /// Name of the check that fails.
        check: Option<&'static str>,
        /// Names of the facts that hold.
        facts: &'static [&'static str],
    },
}

impl Expect {
    /// The content of `expect.json`.
    pub fn to_json(&self) -> Value {
        match self {
            Expect::TrustRefused => json!({"verdict": "trust-refused"}),
            Expect::Judged { verdict, check, facts } => {
                json!({"verdict": verdict, "check": check, "facts": facts})
            }
        }
    }

    /// Whether it is a genuine seal of the document that meets the policy.
    pub fn is_positive(&self) -> bool {
        matches!(self, Expect::Judged { verdict: "valid", .. })
    }
}

/// One scenario.
#[derive(Debug, Clone)]
pub struct Vector {
    /// Name of its directory.
    pub name: String,
    /// Bytes of `document`.
    pub document: Vec<u8>,
    /// Bytes of `document.seal`.
    pub seal: Vec<u8>,
    /// Bytes of `trust.json`.
    pub trust: Vec<u8>,
    /// What must come out.
    pub expect: Expect,
}

impl Vector {
    /// Its files by name.
    pub fn files(&self) -> [(&'static str, Vec<u8>); 4] {
        let mut expect = self.expect.to_json().to_string();
        expect.push('\n');
        [
            ("document", self.document.clone()),
            ("document.seal", self.seal.clone()),
            ("trust.json", self.trust.clone()),
            ("expect.json", expect.into_bytes()),
        ]
    }
}

/// Makes every vector.
pub fn all() -> Vec<Vector> {
    let mut all = valid::all();
    all.extend(identity::all());
    all.extend(tokens::all());
    all.extend(heads::all());
    all.extend(packaging::all());
    all.extend(erasures::all());
    all.extend(revocations::all());
    all.extend(successions::all());
    all.extend(anchors::all());
    all.extend(crls::all());
    all.extend(outages::all());
    all.extend(cosigned::all());
    all.extend(believed::all());
    all
}

/// Where the vectors are in the source tree.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// Writes every vector below `directory` and removes what is there and is no vector any more.
/// Returns the number of vectors.
pub fn write(directory: &Path) -> io::Result<usize> {
    let all = all();
    fs::create_dir_all(directory)?;
    for found in fs::read_dir(directory)? {
        let found = found?;
        if !all.iter().any(|vector| found.file_name() == vector.name.as_str()) {
            fs::remove_dir_all(found.path())?;
        }
    }
    for vector in &all {
        let home = directory.join(&vector.name);
        fs::create_dir_all(&home)?;
        for (name, bytes) in vector.files() {
            fs::write(home.join(name), bytes)?;
        }
    }
    Ok(all.len())
}

const SEALED: &[&str] = &["sealed"];
const ATTESTED: &[&str] = &["sealed", "attested"];
const ANCHORED: &[&str] = &["sealed", "anchored"];

fn valid(name: &str, facts: &'static [&'static str], plan: Plan) -> Vector {
    plan.make(name, Expect::Judged { verdict: "valid", check: None, facts })
}

fn judged(name: &str, verdict: &'static str, check: &'static str, plan: Plan) -> Vector {
    plan.make(name, Expect::Judged { verdict, check: Some(check), facts: &[] })
}

/// A seal that is refused by `check`; the directory's name is `<check>-<what>`.
fn refused(check: &'static str, what: &str, plan: Plan) -> Vector {
    judged(&format!("{check}-{what}"), "refused", check, plan)
}

fn not_understood(what: &str, check: &'static str, plan: Plan) -> Vector {
    judged(&format!("not-understood-{what}"), "not-understood", check, plan)
}

/// A genuine seal of another document, or one that the policy does not let pass.
fn genuine(
    check: &'static str,
    what: &str,
    verdict: &'static str,
    facts: &'static [&'static str],
    plan: Plan,
) -> Vector {
    plan.make(&format!("{check}-{what}"), Expect::Judged { verdict, check: Some(check), facts })
}

fn trust_refused(what: &str, plan: Plan) -> Vector {
    plan.make(&format!("trust-{what}"), Expect::TrustRefused)
}

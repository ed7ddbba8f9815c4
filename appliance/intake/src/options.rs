//! How one folder is watched.
//!
//! Refuses to do: check that directories exist; [`run`](crate::run) does when it begins.

use crate::complete::Format;
use std::path::PathBuf;
use std::time::Duration;

/// What XML and JSON beside a document are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sidecars {
    /// Documents like any other.
    Off,
    /// Sealed with the document of the same stem, if there is one.
    #[default]
    Optional,
    /// As before, and no document is sealed without one.
    Required,
}

/// How files are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Notice {
    /// The kernel says, and a look now and then finds what it did not say; where it cannot, only looking.
    #[default]
    Auto,
    /// Only looking: for network file systems, which do not say what others write.
    Polling,
}

/// What is done with the files of a folder, and when: all that the decisions depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long size, time and bytes have to rest before a file is looked into.
    pub stability: Duration,
    /// How long a file that is not complete may stay as it is before it goes to the error folder.
    pub give_up: Duration,
    /// How long XML or JSON waits for its document before it is one itself.
    pub alone: Duration,
    /// What XML and JSON are.
    pub sidecars: Sidecars,
    /// What is accepted; empty: everything.
    pub formats: Vec<Format>,
    /// Files in work at one time.
    pub jobs: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            stability: Duration::from_secs(5),
            give_up: Duration::from_secs(600),
            alone: Duration::from_secs(60),
            sidecars: Sidecars::Optional,
            formats: Vec::new(),
            jobs: 4,
        }
    }
}

/// A watched folder.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder.
    pub folder: PathBuf,
    /// What tells it from other folders of the same client, for ever.
    pub identity: String,
    /// Where results go: `None`, beside the document.
    pub results: Option<PathBuf>,
    /// Where documents go that cannot be sealed.
    pub errors: PathBuf,
    /// Whether a page to print goes beside each seal.
    pub slip: bool,
    /// How files are noticed.
    pub notice: Notice,
    /// How often the whole folder is looked through.
    pub look_every: Duration,
    /// The decisions.
    pub policy: Policy,
}

impl Options {
    /// A folder with everything else as usual; errors go to `error` in it.
    pub fn new(folder: PathBuf) -> Self {
        let (identity, errors) = (folder.to_string_lossy().into_owned(), folder.join("error"));
        let (results, slip, notice) = (None, false, Notice::Auto);
        let look_every = Duration::from_secs(30);
        Options { folder, identity, results, errors, slip, notice, look_every, policy: Policy::default() }
    }
}

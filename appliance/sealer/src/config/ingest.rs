//! `[[ingest.folder]]`: folders whose files the box seals.
//!
//! Refuses to do: look at directories; they may be mounted later. Invariant: two folders have different clients, and
//! neither lies in the other.

use super::{ConfigError, between, refuse};
use bulla_intake::complete::Format;
use bulla_intake::options::{Notice, Options, Policy, Sidecars};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Most folders of one box: each has threads of its own.
const FOLDERS_MAX: usize = 64;

/// `[ingest]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// The folders. Default none.
    pub folder: Vec<IngestFolder>,
}

/// Longest word on how documents come.
const VIA_BYTES_MAX: usize = 64;

/// Kinds of documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names of formats")]
pub enum Accepted {
    Pdf,
    Tiff,
    Jpeg,
    Png,
    /// Everything else.
    Other,
}

/// `[[ingest.folder]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestFolder {
    /// The folder that scanners write to. Required; absolute.
    pub path: PathBuf,
    /// The registered scanner that its documents are sealed for. Required; one folder each.
    pub client: String,
    /// Kinds accepted: `pdf`, `tiff`, `jpeg`, `png`, `other`. Default: all.
    #[serde(default)]
    pub accept: Vec<Accepted>,
    /// Seconds that a file has to rest. Default 5.
    #[serde(default = "stability")]
    pub stability_seconds: u64,
    /// Seconds that a file may be incomplete. Default 600. Then it goes to the error folder.
    #[serde(default = "give_up")]
    pub give_up_seconds: u64,
    /// What XML and JSON beside a document are: `optional` (default), `required` or `off`.
    #[serde(default)]
    pub sidecar: Sidecars,
    /// Where seals and receipts go. Default: beside the documents.
    #[serde(default)]
    pub results: Option<PathBuf>,
    /// Where files go that cannot be sealed. Default: `error` in the folder.
    #[serde(default)]
    pub errors: Option<PathBuf>,
    /// Whether a page to print is made for every document. Default false.
    #[serde(default)]
    pub slip: bool,
    /// How files are noticed: `auto` (default) or `polling`.
    #[serde(default)]
    pub notice: Notice,
    /// Files in work at one time. Default 4.
    #[serde(default = "jobs")]
    pub jobs: u64,
    /// How documents come into the folder, in words for the seal, e.g. `smb` or `legacy sftp`. Default: nothing is said.
    #[serde(default)]
    pub via: Option<String>,
    /// Whether the scanner may use the folder over WebDAV, at `/dav/<client>/`. Default false.
    #[serde(default)]
    pub webdav: bool,
    /// Whether the scanner may post documents as to paperless-ngx, which go into the folder. Default false.
    #[serde(default)]
    pub paperless: bool,
}

fn stability() -> u64 {
    5
}

fn give_up() -> u64 {
    600
}

fn jobs() -> u64 {
    4
}

impl IngestFolder {
    /// As `bulla_intake` has it.
    pub fn options(&self) -> Options {
        let format = |kind: &Accepted| match kind {
            Accepted::Pdf => Format::Pdf,
            Accepted::Tiff => Format::Tiff,
            Accepted::Jpeg => Format::Jpeg,
            Accepted::Png => Format::Png,
            Accepted::Other => Format::Other,
        };
        let usual = Options::new(self.path.clone());
        Options {
            // The client is in the request's key: a folder that is mounted elsewhere stays the same.
            identity: self.client.clone(),
            results: self.results.clone(),
            errors: self.errors.clone().unwrap_or(usual.errors),
            slip: self.slip,
            notice: self.notice,
            policy: Policy {
                stability: Duration::from_secs(self.stability_seconds),
                give_up: Duration::from_secs(self.give_up_seconds),
                sidecars: self.sidecar,
                formats: self.accept.iter().map(format).collect(),
                jobs: usize::try_from(self.jobs).unwrap_or(1),
                ..usual.policy
            },
            ..Options::new(self.path.clone())
        }
    }
}

pub(super) fn check(ingest: &IngestConfig) -> Result<(), ConfigError> {
    if ingest.folder.len() > FOLDERS_MAX {
        return refuse("ingest.folder", format!("name at most {FOLDERS_MAX}"));
    }
    for (at, folder) in ingest.folder.iter().enumerate() {
        let paths = [Some(&folder.path), folder.results.as_ref(), folder.errors.as_ref()];
        if paths.into_iter().flatten().any(|path| !path.is_absolute()) {
            return refuse("ingest.folder.path", "write absolute paths, e.g. \"/srv/scans/desk-1\"");
        }
        if folder.client.is_empty() {
            return refuse("ingest.folder.client", "name a scanner of `bulla-box scanner add`");
        }
        let speaks = |via: &String| {
            (1..=VIA_BYTES_MAX).contains(&via.len()) && via.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        if !folder.via.iter().all(speaks) {
            return refuse(
                "ingest.folder.via",
                format!("write at most {VIA_BYTES_MAX} printable ASCII characters"),
            );
        }
        between("ingest.folder.stability_seconds", folder.stability_seconds, 1, 3_600)?;
        between("ingest.folder.give_up_seconds", folder.give_up_seconds, 1, 86_400)?;
        between("ingest.folder.jobs", folder.jobs, 1, 64)?;
        for other in &ingest.folder[..at] {
            if other.client == folder.client {
                return refuse(
                    "ingest.folder.client",
                    "give each folder a scanner of its own: seals tell them apart by it",
                );
            }
            if other.path.starts_with(&folder.path) || folder.path.starts_with(&other.path) {
                return refuse(
                    "ingest.folder.path",
                    "one folder lies in another: every file would be sealed twice",
                );
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(text: &str) -> Result<IngestConfig, String> {
        let config: IngestConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&config).map(|()| config).map_err(|error| error.to_string())
    }

    #[test]
    fn folders_are_told_apart_and_mistakes_are_named() {
        let least = "[[folder]]\npath = \"/a\"\nclient = \"a\"\n";
        let config = folders(least).unwrap();
        let options = config.folder[0].options();
        assert_eq!((options.policy, options.errors), (Policy::default(), PathBuf::from("/a/error")));
        assert!(
            folders(&format!("{least}[[folder]]\npath = \"/b\"\nclient = \"b\"\nsidecar = \"required\"\n"))
                .is_ok()
        );
        for (text, word) in [
            (format!("{least}bogus = 1\n"), "bogus"),
            ("[[folder]]\npath = \"a\"\nclient = \"a\"\n".to_owned(), "absolute"),
            ("[[folder]]\npath = \"/a\"\nclient = \"\"\n".to_owned(), "scanner add"),
            ("[[folder]]\npath = \"/a\"\n".to_owned(), "client"),
            (format!("{least}stability_seconds = 0\n"), "stability_seconds"),
            (format!("{least}jobs = 65\n"), "jobs"),
            (format!("{least}via = \"\"\n"), "printable"),
            (format!("{least}via = \"a\\nb\"\n"), "printable"),
            (format!("{least}accept = [\"fax\"]\n"), "fax"),
            (format!("{least}results = \"r\"\n"), "absolute"),
            (format!("{least}[[folder]]\npath = \"/b\"\nclient = \"a\"\n"), "of its own"),
            (format!("{least}[[folder]]\npath = \"/a/b\"\nclient = \"b\"\n"), "lies in another"),
        ] {
            let error = folders(&text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}

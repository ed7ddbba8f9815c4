//! A box that watches a folder, as a branch has it.
//!
//! Refuses to do: put anything into the folder; that is the test's.

use super::{Rig, RigOptions, Role};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A box that watches a folder for the scanner `desk-1`.
pub struct Branch {
    /// The box.
    pub rig: Rig,
    /// The folder.
    pub folder: PathBuf,
    /// The scanner's token.
    pub token: String,
    _place: tempfile::TempDir,
}

impl Branch {
    /// Starts it; `more` goes into the folder's section, `before` in front of it.
    pub fn start(more: &str, before: &str) -> Result<Self> {
        let place = tempfile::tempdir()?;
        Self::start_in(place, more, before)
    }

    /// Starts it with its folder in `place`.
    pub fn start_in(place: tempfile::TempDir, more: &str, before: &str) -> Result<Self> {
        let folder = place.path().join("scans");
        fs::create_dir(&folder)?;
        let extra = format!(
            "{before}\n[[ingest.folder]]\npath = {folder:?}\nclient = \"desk-1\"\nstability_seconds = 1\n{more}"
        );
        let mut rig = Rig::create(&RigOptions { extra: &extra, ..RigOptions::default() })?;
        let token = rig.add_client("desk-1", "scanner")?;
        rig.sealer.start()?;
        Ok(Branch { rig, folder, token, _place: place })
    }

    /// Where files go that cannot be sealed.
    pub fn errors(&self) -> PathBuf {
        self.folder.join("error")
    }

    /// What the status says of the folder.
    pub fn status(&self) -> Result<Value> {
        Ok(self.rig.client(Role::Reader).get("/v1/status")?.json()?["ingest"][0].clone())
    }

    /// The receipt of a document, if there is one.
    pub fn receipt(&self, name: &str) -> Option<Value> {
        let bytes = fs::read(self.folder.join(format!("{name}.receipt.json"))).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The same, once there is.
    pub fn sealed(&self, name: &str) -> Result<Value> {
        until(&format!("{name} is sealed"), || Ok(self.receipt(name)))
    }
}

/// The blocks of code below a heading of docs/ingest.md, in this language.
pub fn recipes(heading: &str, language: &str) -> Result<Vec<String>> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ingest.md"))?;
    let section = page.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_default();
    let mut found = Vec::new();
    for (at, block) in section.split("```").enumerate() {
        if let Some(text) = block.strip_prefix(language).and_then(|rest| rest.strip_prefix('\n'))
            && at % 2 == 1
        {
            found.push(text.to_owned());
        }
    }
    ensure!(!found.is_empty(), "docs/ingest.md has no {language:?} below {heading:?}");
    Ok(found)
}

/// Looks until there is something to see, for at most a minute.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

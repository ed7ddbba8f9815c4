//! What has become of an update, for the box's log: the record beside the box's configuration.
//!
//! Refuses: to settle anything twice, and to call an update failed that was never there whole.

use crate::esp::Esp;
use anyhow::{Context, Result};
use bulla_formats::update::Release;
use bulla_formats::update_record::{DETAIL_BYTES_MAX, Outcome, UpdateRecord};
use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Replaces the record whole; who may read its folder may read it.
///
/// # Errors
/// It cannot be written.
pub fn write_record(path: &Path, record: &UpdateRecord) -> Result<()> {
    let folder = path.parent().context("a record is in a folder")?;
    let new = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&new)?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(record.encode().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The record of an update that has still to prove itself. A record that is none is as good as absent: the update goes its
/// way all the same, and only the log does not tell of it.
fn open_record(path: &Path) -> Option<UpdateRecord> {
    let record = UpdateRecord::parse(&fs::read(path).ok()?)?;
    record.outcome.is_none().then_some(record)
}

/// After a boot: the image before the update runs, and the new one has no tries left: it fell back. Gives the release that
/// failed.
///
/// # Errors
/// The boot partition cannot be read, or the record not be written.
pub fn fell_back(path: &Path, esp: &Esp, running: Release, now_millis: u64) -> Result<Option<Release>> {
    let Some(mut record) = open_record(path).filter(|record| record.from == running) else { return Ok(None) };
    // Cut off before the new kernel image had its name: there was no update.
    let Some(next) = esp.image(record.to)? else { return Ok(None) };
    if next.tries_left != Some(0) {
        return Ok(None);
    }
    if record.detail.is_empty() {
        record.detail = "it did not come as far as its own check".to_owned();
    }
    record.outcome = Some((Outcome::FellBack, now_millis.max(record.staged_millis)));
    write_record(path, &record)?;
    Ok(Some(record.to))
}

/// The image that runs has passed its check.
///
/// # Errors
/// The record cannot be written.
pub fn proven(path: &Path, running: Release, now_millis: u64) -> Result<()> {
    let Some(mut record) = open_record(path).filter(|record| record.to == running) else { return Ok(()) };
    record.outcome = Some((Outcome::Proven, now_millis.max(record.staged_millis)));
    record.detail.clear();
    write_record(path, &record)
}

/// The image that runs has not passed its check, for this reason.
///
/// # Errors
/// The record cannot be written.
pub fn failed(path: &Path, running: Release, why: &str) -> Result<()> {
    let Some(mut record) = open_record(path).filter(|record| record.to == running) else { return Ok(()) };
    let mut detail: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while detail.len() > DETAIL_BYTES_MAX {
        detail.pop();
    }
    record.detail = detail;
    write_record(path, &record)
}

//! Which disk an image goes onto.
//!
//! Without an order: the only built-in disk on which there is nothing. With one (`bulla-install.conf` on the stick): the
//! disk that it names, by serial number or path; what is on it goes only if the order says so, and the data of a box only if
//! it says so with the serial number, which nobody types by mistake.
//! Refuses: a choice between several, with a list; the stick itself; a disk that is too small, read-only, or of sectors
//! other than 512 bytes.
//! Invariant: a disk with anything on it is chosen only by its name.

use super::disks::{Content, Disk};
use super::layout::DISK_BYTES_MIN;
use crate::table::SECTOR;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::path::Path;

/// The name of the file with the order.
pub const ORDER: &str = "bulla-install.conf";

/// What the stick says about which disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Order {
    /// Serial number or path of the disk.
    pub disk: Option<String>,
    /// Whether what is on it may go.
    pub overwrite: bool,
    /// Only list the disks.
    pub check: bool,
}

impl Order {
    /// Reads the file; TOML.
    ///
    /// # Errors
    /// It says something else than it can, or wants to overwrite and does not say what.
    pub fn parse(text: &str) -> Result<Self> {
        let order: Self = toml::from_str(text).with_context(|| format!("{ORDER} is not understood"))?;
        ensure!(
            order.disk.as_deref().is_none_or(|disk| !disk.trim().is_empty()),
            "{ORDER} has an empty disk: name its serial number"
        );
        ensure!(
            !order.overwrite || order.disk.is_some(),
            "{ORDER} says overwrite and not what: add disk = \"SERIAL\""
        );
        Ok(order)
    }
}

/// A disk, and what is on it.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The disk.
    pub disk: Disk,
    /// What is on it.
    pub content: Content,
    /// The stick that the machine runs from.
    pub stick: bool,
}

impl Candidate {
    /// Why no image can ever go onto it.
    fn unsuitable(&self) -> Option<String> {
        let disk = &self.disk;
        if self.stick {
            return Some("is the stick that this machine has started from".to_owned());
        }
        if disk.read_only {
            return Some("is read-only".to_owned());
        }
        if disk.sector != SECTOR {
            return Some(format!("has sectors of {} bytes; only 512 are supported", disk.sector));
        }
        (disk.bytes < DISK_BYTES_MIN).then(|| {
            format!(
                "is too small: a box needs {:.1} GB at the least",
                (DISK_BYTES_MIN as f64 / 1e8).ceil() / 10.0
            )
        })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let more = match self.unsuitable() {
            Some(why) => why,
            None => self.content.to_string(),
        };
        format!("{}: {more}", self.disk)
    }
}

/// Chooses the disk.
///
/// # Errors
/// There is none, or more than one, or it is not to be overwritten: what the order must say stands in the sentence.
pub fn choose<'a>(candidates: &'a [Candidate], order: &Order) -> Result<&'a Candidate> {
    match &order.disk {
        Some(name) => named(candidates, name.trim(), order.overwrite),
        None => only_empty(candidates),
    }
}

fn only_empty(candidates: &[Candidate]) -> Result<&Candidate> {
    let free: Vec<&Candidate> = candidates
        .iter()
        .filter(|one| one.unsuitable().is_none() && one.disk.internal())
        .filter(|one| matches!(one.content, Content::Empty | Content::Unfinished))
        .collect();
    let how = format!("name the right one in {ORDER} on the stick: disk = \"SERIAL\"");
    match free.as_slice() {
        [one] => Ok(one),
        [] => match candidates.iter().find_map(|one| match (&one.content, one.stick) {
            (Content::Image(name), false) => Some((one, name)),
            _ => None,
        }) {
            Some((one, name)) => bail!(
                "{} has the image {name} already, and has not started yet: switch off, remove the stick, switch on",
                one.disk.path.display()
            ),
            None => bail!("there is no built-in disk that is empty, large enough and can be written; {how}"),
        },
        several => bail!("{} disks are empty; {how}", several.len()),
    }
}

fn named<'a>(candidates: &'a [Candidate], name: &str, overwrite: bool) -> Result<&'a Candidate> {
    let by_serial = |one: &&Candidate| one.disk.serial.as_deref().map(str::trim) == Some(name);
    let found: Vec<&Candidate> =
        candidates.iter().filter(|one| by_serial(one) || one.disk.path == Path::new(name)).collect();
    let one = match found.as_slice() {
        [one] => *one,
        [] => bail!("this machine has no disk {name:?}, which {ORDER} names"),
        several => bail!("{} disks of this machine are called {name:?}, which {ORDER} names", several.len()),
    };
    if let Some(why) = one.unsuitable() {
        bail!("the disk {name:?}, which {ORDER} names, {why}");
    }
    match &one.content {
        Content::Empty | Content::Unfinished => {}
        Content::Box(_) => ensure!(
            overwrite && by_serial(&one),
            "the disk {name:?} holds a box and its data: its log, and every seal that nobody else has a copy of, would be gone for good. \
             If that is meant, {ORDER} must say its serial number and overwrite: disk = {:?} and overwrite = true",
            one.disk.serial.as_deref().unwrap_or("SERIAL")
        ),
        content => ensure!(
            overwrite,
            "the disk {name:?} is not empty ({content}): if that may go, say overwrite = true in {ORDER}"
        ),
    }
    Ok(one)
}

//! Is there a medium, and which one: what is mounted, and the name that was written to it.
//!
//! Refuses to do: take a directory for a medium when nothing is mounted there, which would fill the box's own disk.

use super::copy::write_whole;
use bulla_formats::medium::{MEDIUM_ID_BYTES, MediumId};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory on the medium: an archive as hubs have it, and what a medium has besides.
pub const DIRECTORY: &str = "bulla-mirror";
const NAME: &str = "medium";
const MOUNTS: &str = "/proc/self/mountinfo";

/// A file system that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Number of the mount: another one after the medium was out.
    pub mount: String,
    /// What is mounted.
    pub device: String,
    /// As what.
    pub file_system: String,
}

/// What is mounted exactly at `path`.
pub fn mounted(path: &Path) -> io::Result<Option<Mounted>> {
    let path = match fs::canonicalize(path) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(find(&fs::read_to_string(MOUNTS)?, &path.to_string_lossy()))
}

/// The last line of proc_pid_mountinfo(5) about this mount point: it hides those before it.
fn find(mounts: &str, path: &str) -> Option<Mounted> {
    let mut described = mounts.lines().rev().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let mut after = after.split(' ');
        let (file_system, device) = (after.next()?, after.next()?);
        let at = unescape(fields.get(4)?);
        (at == path).then(|| Mounted {
            mount: fields[0].to_owned(),
            device: unescape(device),
            file_system: file_system.to_owned(),
        })
    });
    described.next()
}

/// Space, tab, line feed and backslash are three octal digits there.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// Where everything is on a medium.
pub fn directory(path: &Path) -> PathBuf {
    path.join(DIRECTORY)
}

/// The name that is written to the medium; `None` on one that no box has used.
pub fn id(directory: &Path) -> io::Result<Option<MediumId>> {
    match fs::read_to_string(directory.join(NAME)) {
        Ok(text) => MediumId::parse(text.trim_end()).map(Some).ok_or_else(|| {
            let words =
                format!("{DIRECTORY}/{NAME} is no id; remove that file, and the medium gets a new one");
            io::Error::new(io::ErrorKind::InvalidData, words)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the medium a name.
pub fn name(directory: &Path) -> io::Result<MediumId> {
    let mut bytes = [0; MEDIUM_ID_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("no randomness: {error}")))?;
    let id = MediumId(bytes);
    fs::create_dir_all(directory)?;
    write_whole(directory, NAME, format!("{id}\n").as_bytes())?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_last_counts_and_directories_do_not() {
        let mounts = "36 35 98:0 / / rw,noatime shared:1 - ext4 /dev/root rw\n\
                      40 36 8:1 / /media/a\\040stick rw master:1 - vfat /dev/sda1 rw,errors=remount-ro\n\
                      41 36 8:17 /sub /media/a\\040stick rw - ext4 /dev/sdb1 rw\n";
        let found = find(mounts, "/media/a stick").unwrap();
        assert_eq!(
            (found.mount.as_str(), found.device.as_str(), found.file_system.as_str()),
            ("41", "/dev/sdb1", "ext4")
        );
        for path in ["/media/a", "/media", "/media/a stick/bulla-mirror", "/media/a\\040stick"] {
            assert_eq!(find(mounts, path), None, "{path}");
        }
        assert_eq!(find("", "/"), None);
    }
}

//! Where inputs come from: seeds made by the targets themselves, and regressions from the tree.
//!
//! Seeds are made, not committed: they follow the formats, and the vectors they come from are in the tree already.

use crate::targets::{ALL, Target};
use bulla_formats::hash::sha256;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs, io};

/// Names the target that the fuzzing program runs.
pub const TARGET: &str = "BULLA_FUZZ_TARGET";
/// Names the directory that the fuzzing program writes its seeds to before it begins.
pub const SEEDS: &str = "BULLA_FUZZ_SEEDS";

static CHOSEN: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var(TARGET).unwrap_or_default();
    let names = || ALL.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let target = ALL.iter().find(|target| target.name == name);
    target.unwrap_or_else(|| panic!("{TARGET} is {name:?}, and not one of {}", names()))
});

/// The target that [`TARGET`] names.
pub fn chosen() -> &'static Target {
    &CHOSEN
}

/// Writes the seeds of a target where [`SEEDS`] says; does nothing without it.
pub fn write_seeds(target: &Target) {
    let Some(directory) = env::var_os(SEEDS).map(PathBuf::from) else { return };
    if let Err(error) = write(target, &directory) {
        panic!("the seeds of {} cannot be written to {}: {error}", target.name, directory.display());
    }
}

fn write(target: &Target, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for seed in (target.seeds)() {
        let name = sha256(&[&seed]).to_string();
        fs::write(directory.join(&name[..16]), &seed)?;
    }
    Ok(())
}

/// Inputs that once found a bug in a target, with their names.
pub fn regressions(name: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions").join(name);
    let mut found = Vec::new();
    let listing = match fs::read_dir(&directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    for entry in listing {
        let path = entry?.path();
        found.push((path.display().to_string(), fs::read(&path)?));
    }
    found.sort();
    Ok(found)
}

//! `cargo xtask image`: the operating system of a box in a branch, a disk image of Debian 13 that boots itself and
//! nothing else. What is in it stands under `image/os`: lists of packages, definitions of partitions, the files that
//! are laid over Debian, and the scripts that put them together.
//!
//! - Needs root, for mmdebstrap and for mounts in a namespace of its own; the host needs no tool of the image's release.
//! - Everything is written below `target/image`; nothing of it is mounted when this ends.
//! - Trees of packages are fetched once and again only when their list changes: delete `target/image/root` to take up
//!   new versions of packages.
//! - It refuses to sign with keys that it made itself when others were named and are not there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::deb::{self, output};
use crate::machine::{FORBIDDEN, KEYS_OWNER};
use crate::workspace::Workspace;

/// What signs an image, and the certificates above it, as `image/os/keys` names it.
const KEYS: [&str; 8] =
    ["db.key", "db.crt", "pcr.key", "pcr.pub", "update.key", "update.pub", "PK.crt", "KEK.crt"];
/// What is in the image and in no package.
const PROGRAMS: [&str; 2] = ["bulla-update", "bulla-console"];

/// What the caller decides.
pub struct Options {
    /// The image's version; the newest is booted.
    pub version: String,
    /// The oldest version that still starts on a box once this one has proven itself there.
    pub floor: String,
    /// A directory with the keys of [`KEYS`]; by default, keys for development are made.
    pub keys: Option<PathBuf>,
}

/// A finished image.
pub struct Image {
    /// Everything of it, and of what it is made with.
    pub directory: PathBuf,
    /// Where `bulla` is, built from the same commit.
    pub programs: PathBuf,
    version: String,
}

impl Image {
    /// The image of this version that [`build`] left.
    pub fn find(workspace: &Workspace, version: &str) -> Result<Self> {
        let image = Self::at(workspace, version);
        ensure!(
            image.file("json").exists() && image.programs.join("bulla").exists(),
            "there is no image {version} below {}; make it: cargo xtask image --version {version}",
            image.directory.display()
        );
        Ok(image)
    }

    fn at(workspace: &Workspace, version: &str) -> Self {
        let directory = workspace.target.join("image");
        // A disk image is used by programs in another root, where links lead elsewhere.
        let directory = directory.canonicalize().unwrap_or(directory);
        let programs = deb::directory(workspace).join("build/release");
        Self { directory, programs, version: version.to_owned() }
    }

    /// `raw` (the disk), `root.raw`, `verity.raw`, `efi` (what an update consists of), `json` (what it is), `eventlog`
    /// (what a boot of it measures) with its signature `eventlog.sig`; `update` (how a box takes it); `install.raw` (the
    /// stick that puts it onto a disk).
    pub fn file(&self, extension: &str) -> PathBuf {
        self.directory.join(format!("out/bulla_{}.{extension}", self.version))
    }

    /// The hash that everything in the root is under.
    pub fn root_hash(&self) -> Result<String> {
        let described: Value = serde_json::from_slice(&fs::read(self.file("json"))?)?;
        Ok(described["roothash"].as_str().context("the image's description names no root hash")?.to_owned())
    }
}

/// Builds the packages and the image, and prints how long the steps took and how large the results are.
pub fn build(workspace: &Workspace, options: &Options) -> Result<Image> {
    ensure!(
        output(Command::new("id").arg("-u"))? == "0",
        "the image is made of other users' files: run it as root"
    );
    let started = Instant::now();
    let image = Image::at(workspace, &options.version);
    let os = scripts(workspace);
    fs::create_dir_all(&image.directory)?;

    let packages = deb::build(workspace)?;
    let inside = emptied(image.directory.join("packages"))?;
    for package in packages.iter().filter(|path| is_for_the_box(path)) {
        fs::copy(package, inside.join(package.file_name().context("a package has a name")?))?;
    }

    let programs = emptied(image.directory.join("programs"))?;
    for program in PROGRAMS {
        fs::copy(image.programs.join(program), programs.join(program))
            .with_context(|| format!("no {program}"))?;
    }

    for tree in ["tools", "root", "kernel"] {
        timed(&format!("Debian packages: {tree}"), || {
            script(Command::new(os.join("fetch")).arg(tree).arg(image.directory.join(tree)))
        })?;
    }
    let keys = image.directory.join("keys");
    match &options.keys {
        None => script(Command::new(os.join("keys")).arg(&keys))?,
        Some(given) => {
            let keys = emptied(keys)?;
            for name in KEYS {
                let from = given.join(name);
                fs::copy(&from, keys.join(name)).with_context(|| format!("no key {}", from.display()))?;
            }
        }
    }
    timed("image", || assemble(workspace, &image, &options.floor, Fit::Works))?;
    timed("what a boot will measure", || measure(workspace, &image))?;
    timed("stick that installs it", || {
        let date = deb::date(workspace)?.to_string();
        let mut stick = inside_tools(&os, &image.directory);
        script(stick.args(["/os/stick", &image.version]).env("SOURCE_DATE_EPOCH", date))
    })?;
    for (extension, what) in [
        ("raw", "disk"),
        ("root.raw", "root"),
        ("verity.raw", "its hashes"),
        ("efi", "kernel image"),
        ("update", "update"),
        ("install.raw", "stick"),
    ] {
        let path = image.file(extension);
        let sum = output(Command::new("sha256sum").arg("--").arg(&path))?;
        println!("{what:<12} {:>5} MB  {sum}", fs::metadata(&path)?.len() / 1_000_000);
    }
    println!(
        "=== image {} after {} s, root hash {}",
        options.version,
        started.elapsed().as_secs(),
        image.root_hash()?
    );
    Ok(image)
}

/// Whether the box in an image starts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As it was built.
    Works,
    /// It does not: for the test of what happens then.
    Unfit,
}

/// Another image of what the last [`build`] has fetched and compiled, for the test: its disk is not kept.
pub fn next(workspace: &Workspace, version: &str, floor: &str, fit: Fit) -> Result<Image> {
    let image = Image::at(workspace, version);
    timed(&format!("image {version}"), || assemble(workspace, &image, floor, fit))?;
    fs::remove_file(image.file("raw"))?;
    Ok(image)
}

/// Puts the image together, and its update.
fn assemble(workspace: &Workspace, image: &Image, floor: &str, fit: Fit) -> Result<()> {
    let (os, date) = (scripts(workspace), deb::date(workspace)?);
    let mut assemble = inside_tools(&os, &image.directory);
    assemble.args(["/os/assemble", &image.version, floor]);
    if fit == Fit::Unfit {
        assemble.arg("unfit");
    }
    script(assemble.env("SOURCE_DATE_EPOCH", date.to_string()))?;
    bundle(image, floor, date)
}

/// Signs the parts of the image as one update.
fn bundle(image: &Image, floor: &str, date: u64) -> Result<()> {
    let (keys, work) = (image.directory.join("keys"), image.directory.join("work"));
    let (message, signature) = (work.join("update.message"), work.join("update.sig"));
    let bundle = |step: &str| -> Result<Command> {
        let mut bundle = Command::new(image.programs.join("bulla-bundle"));
        bundle.arg(step).args(["--image", &image.version, "--floor", floor]);
        bundle.args(["--root-hash", &image.root_hash()?, "--made-at", &date.to_string()]);
        for (part, extension) in [("--root", "root.raw"), ("--verity", "verity.raw"), ("--kernel", "efi")] {
            bundle.arg(part).arg(image.file(extension));
        }
        Ok(bundle)
    };
    script(bundle("message")?.arg("--out").arg(&message))?;
    let mut sign = Command::new("openssl");
    sign.args(["pkeyutl", "-sign", "-rawin", "-inkey"]).arg(keys.join("update.key"));
    script(sign.arg("-in").arg(&message).arg("-out").arg(&signature))?;
    let public = fs::read_to_string(keys.join("update.pub"))?;
    let mut join = bundle("join")?;
    join.arg("--signature").arg(&signature).args(["--key", public.trim()]);
    script(join.arg("--out").arg(image.file("update")))
}

/// Writes the event log that a boot on a machine as `machine` makes it will have, and signs it.
fn measure(workspace: &Workspace, image: &Image) -> Result<()> {
    let (keys, log) = (image.directory.join("keys"), image.file("eventlog"));
    let forbidden = image.directory.join("work/dbx");
    fs::write(&forbidden, FORBIDDEN)?;
    let mut measure = workspace.cargo();
    measure.args(["run", "--quiet", "--locked", "--package", "bulla-measure", "--"]);
    measure.arg("--loader").arg(image.file("loader.efi")).arg("--image").arg(image.file("efi"));
    measure.arg("--keys").arg(&keys).args(["--owner", KEYS_OWNER]).arg("--dbx").arg(&forbidden);
    script(measure.arg("--out").arg(&log))?;
    let mut sign = Command::new("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(keys.join("db.key"));
    script(sign.arg("-out").arg(image.file("eventlog.sig")).arg(&log))
}

/// The folder of the image's scripts.
pub fn scripts(workspace: &Workspace) -> PathBuf {
    workspace.root.join("image/os")
}

/// A command that will run in the tree of tools: the program and its arguments are still to be added.
pub fn inside_tools(os: &Path, directory: &Path) -> Command {
    let mut command = Command::new(os.join("inside"));
    command.arg(directory);
    command
}

fn is_for_the_box(package: &Path) -> bool {
    let name = package.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    ["bulla-box_", "bulla-signer_"].iter().any(|ours| name.starts_with(ours))
}

/// The directory, with nothing in it.
fn emptied(directory: PathBuf) -> Result<PathBuf> {
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    Ok(directory)
}

fn timed(what: &str, step: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("=== {what}");
    let started = Instant::now();
    step()?;
    println!("    {} s", started.elapsed().as_secs());
    Ok(())
}

fn script(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name} failed ({status}); what it said stands above");
    Ok(())
}

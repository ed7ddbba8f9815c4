//! The program `openssl`: bytes in, bytes out.

use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `openssl ARGUMENTS`, with `input` on its standard input; returns its standard output.
pub fn run(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    run_at(arguments, input, 0)
}

/// The same on a clock that is off by so many seconds (package libfaketime).
pub fn run_at(arguments: &[&str], input: &[u8], offset_seconds: i64) -> Result<Vec<u8>> {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if offset_seconds != 0 {
        command.env("LD_PRELOAD", faketime()?).env("FAKETIME", format!("{offset_seconds:+}"));
    }
    let mut child = command.spawn().context("cannot start openssl; install the package openssl")?;
    let mut stdin = child.stdin.take().context("its standard input was asked for")?;
    // It may have seen enough and be gone; its exit code then says so.
    let _gone_already = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().context("openssl cannot be waited for")?;
    ensure!(
        output.status.success(),
        "openssl {} ended with {}: {}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

fn faketime() -> Result<String> {
    ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .context("libfaketime is not installed; install the package libfaketime")
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

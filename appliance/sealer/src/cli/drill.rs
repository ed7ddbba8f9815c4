//! `bulla-box drill`: rehearses an outage on the running box, without harm.

use super::running::Running;
use crate::config::Config;
use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// What to rehearse.
#[derive(Args)]
pub struct DrillArgs {
    #[command(subcommand)]
    what: What,
    /// An operator's token, in a file.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

#[derive(Subcommand)]
enum What {
    /// Treats every authority as unreachable for a while. Sealing goes on, and every entry touched says that it is a drill.
    WanDown {
        /// For how long: seconds, or a number with s, m or h.
        #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
        length: u64,
    },
    /// Ends the drill.
    Stop,
}

/// Asks the running box.
pub fn execute(args: &DrillArgs, config: &Config, out: &mut impl Write) -> Result<()> {
    let token_file = args.token_file.as_deref();
    let token_file =
        token_file.context("name an operator's token with --token-file FILE: the running box is asked")?;
    let running = Running::new(token_file, config, PATIENCE)?;
    let state = match args.what {
        What::WanDown { length } => {
            running.post("/v1/drills", &json!({"kind": "wan-down", "seconds": length}))?
        }
        What::Stop => running.post("/v1/drills/stop", &json!({}))?,
    };
    tell(&state, config, out)
}

fn tell(state: &Value, config: &Config, out: &mut impl Write) -> Result<()> {
    let mode = state["mode"].as_str().unwrap_or("unknown");
    match state["drillSecondsLeft"].as_u64() {
        Some(left) => writeln!(
            out,
            "the drill runs for {left} s more; mode {mode}. In {} s the box declares the emergency; \
             `bulla-box drill stop` ends it, and so does a real outage",
            config.outage.after_seconds
        )?,
        None => writeln!(out, "no drill runs; mode {mode}. What a drill began is closed like any outage")?,
    }
    Ok(())
}

/// `90`, `90s`, `10m`, `2h`.
fn seconds(text: &str) -> Result<u64> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3_600),
        _ => (text, 1),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 =
        digits.parse().ok().filter(|_| plain).context("write a time like 90, 90s, 10m or 2h")?;
    let all = number.saturating_mul(unit);
    ensure!((1..=86_400).contains(&all), "a drill lasts between 1 s and 24 h");
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times() {
        for (text, wanted) in [("90", 90), ("90s", 90), ("10m", 600), ("2h", 7_200), ("24h", 86_400)] {
            assert_eq!(seconds(text).unwrap(), wanted);
        }
        for bad in ["", "m", "0", "25h", "-1", "1.5h", "10 m", "10d"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}

//! Progress: bars on a terminal, plain lines everywhere else.
//!
//! Refuses to do: mix bars into a file or a pipe. Invariant: lines about results go to stdout, one per result.

use crate::output;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{self, IsTerminal as _, Read};

const BYTES: &str = "{msg:30!} {bar:30} {bytes:>10}/{total_bytes:10} {eta}";
const COUNT: &str = "{msg:20!} {bar:40} {human_pos:>12}/{human_len:12} {eta}";

/// Where progress is shown.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

/// Progress of one piece of work.
#[derive(Clone)]
pub struct Task {
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Bars when stderr is a terminal and `wanted`.
    pub fn new(wanted: bool) -> Self {
        let bars = (wanted && io::stderr().is_terminal()).then(MultiProgress::new);
        Progress { bars }
    }

    /// Starts a bar of `total` bytes.
    pub fn bytes(&self, name: &str, total: u64) -> Task {
        self.task(name, total, BYTES)
    }

    /// Starts a bar of `total` pieces.
    pub fn count(&self, name: &str, total: u64) -> Task {
        self.task(name, total, COUNT)
    }

    fn task(&self, name: &str, total: u64, template: &str) -> Task {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_message(output::printable(name));
            bar
        });
        Task { bar }
    }

    /// One line of result on stdout.
    pub fn say(&self, line: &str) {
        self.quietly(|| output::print(&format!("{}\n", output::printable(line))));
    }

    /// One line of JSON on stdout.
    pub fn say_json(&self, value: &Value) {
        self.quietly(|| output::print(&format!("{value}\n")));
    }

    /// One line of trouble on stderr.
    pub fn complain(&self, line: &str) {
        self.quietly(|| output::complain(line));
    }

    fn quietly(&self, write: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

impl Task {
    /// So much more is done.
    pub fn add(&self, amount: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(amount);
        }
    }

    /// So much is done in all, of so much.
    pub fn set(&self, position: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(position);
        }
    }

    /// Starts over, e.g. for the second pass over a file.
    pub fn restart(&self) {
        if let Some(bar) = &self.bar {
            bar.reset();
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A reader that moves a bar.
pub struct Counted<R> {
    /// What is read.
    pub reader: R,
    /// Whose bar moves.
    pub task: Task,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.task.add(length as u64);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_templates_are_sound() {
        for template in [BYTES, COUNT] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}

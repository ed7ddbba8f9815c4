//! Progress: a bar for each log on a terminal, nothing elsewhere; results and findings as lines on stdout.
//!
//! Refuses to do: mix bars into a file or a pipe, or let text from boxes steer a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{self, IsTerminal as _, Write as _};

const STYLE: &str = "{msg:24!} {bar:30} {human_pos:>12}/{human_len:12} {per_sec} {eta}";

/// Where progress is shown.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    json: bool,
}

impl Progress {
    /// Bars when stderr is a terminal; `json`: lines are JSON.
    pub fn new(json: bool) -> Self {
        Progress { bars: io::stderr().is_terminal().then(MultiProgress::new), json }
    }

    /// A bar of a pull.
    pub fn bar(&self, name: &str, from: u64, to: u64) -> Option<ProgressBar> {
        let bars = self.bars.as_ref()?;
        let bar = bars.add(ProgressBar::new(to).with_position(from));
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style);
        }
        bar.set_message(printable(name));
        Some(bar)
    }

    /// One result: `line` for people, `value` for programs.
    pub fn say(&self, line: &str, value: &Value) {
        let text = if self.json { value.to_string() } else { printable(line) };
        self.quietly(|| print(&format!("{text}\n")));
    }

    /// The head of a table, for people.
    pub fn title(&self, line: &str) {
        if !self.json {
            self.quietly(|| print(&format!("{}\n", printable(line.trim_end()))));
        }
    }

    /// One line of trouble on stderr.
    pub fn complain(&self, line: &str) {
        self.quietly(|| {
            let _ = writeln!(io::stderr().lock(), "{}", printable(line));
        });
    }

    fn quietly(&self, write: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// Writes `text` to stdout; a reader that has gone away has seen enough.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// `text` with control characters, and those that turn the direction of text, as escapes.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bars_template_is_sound_and_terminals_are_not_steered() {
        assert!(ProgressStyle::with_template(STYLE).is_ok());
        assert_eq!(printable("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
    }
}

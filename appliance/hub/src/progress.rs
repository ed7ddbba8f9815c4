//! Progress: a bar for each log on a terminal, nothing elsewhere; results and findings as lines on stdout. A service whose
//! lines go to the journal sends them there itself, each with its members as fields (`journalctl KIND=fork`).
//!
//! Refuses to do: mix bars into a file or a pipe, or let text from boxes steer a terminal.
//! Invariant: a line that cannot be written is dropped; nothing fails because of it.

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};
use log::{Level, Record};
use serde_json::{Map, Value};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use systemd_journal_logger::{JournalLog, connected_to_journal};

const STYLE: &str = "{msg:24!} {bar:30} {human_pos:>12}/{human_len:12} {per_sec} {eta}";

/// Where progress is shown.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
    json: bool,
    journal: Option<Arc<JournalLog>>,
}

/// Members of a line that are worth asking the journal for, as fields.
struct Fields<'a>(&'a Map<String, Value>);

impl log::kv::Source for Fields<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn log::kv::VisitSource<'kvs>) -> Result<(), log::kv::Error> {
        for (name, value) in self.0 {
            let value = match value {
                Value::String(text) => log::kv::Value::from(text.as_str()),
                Value::Number(_) | Value::Bool(_) => log::kv::Value::from_display(value),
                _ => continue,
            };
            visitor.visit_pair(log::kv::Key::from_str(name), value)?;
        }
        Ok(())
    }
}

impl Progress {
    /// Bars when stderr is a terminal; `json`: lines are JSON.
    pub fn new(json: bool) -> Self {
        Progress { bars: io::stderr().is_terminal().then(MultiProgress::new), json, journal: None }
    }

    /// The same, of a service: its lines go to the journal when systemd listens.
    pub fn of_a_service(json: bool) -> Self {
        let journal = connected_to_journal().then(|| JournalLog::new().ok().map(Arc::new));
        Progress { journal: journal.flatten(), ..Progress::new(json) }
    }

    /// Whether the journal takes the line.
    fn journal(&self, level: Level, line: &str, value: &Value) -> bool {
        let Some(journal) = &self.journal else { return false };
        let none = Map::new();
        let fields = Fields(value.as_object().unwrap_or(&none));
        let line = printable(line);
        let mut record = Record::builder();
        record.level(level).target("bulla_hub").key_values(&fields);
        journal.journal_send(&record.args(format_args!("{line}")).build()).is_ok()
    }

    /// A bar of a log; it goes when it is dropped.
    pub fn bar(&self, name: &str, from: u64, to: u64) -> Option<ProgressBar> {
        let bars = self.bars.as_ref()?;
        let bar = ProgressBar::new(to).with_position(from).with_finish(ProgressFinish::AndClear);
        let bar = bars.add(bar);
        if let Ok(style) = ProgressStyle::with_template(STYLE) {
            bar.set_style(style);
        }
        bar.set_message(printable(name));
        Some(bar)
    }

    /// One result: `line` for people, `value` for programs.
    pub fn say(&self, line: &str, value: &Value) {
        let level = match value["severity"].as_str() {
            Some("error" | "critical") => Level::Error,
            Some("warning") => Level::Warn,
            _ => Level::Info,
        };
        if self.journal(level, line, value) {
            return;
        }
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
        if self.journal(Level::Warn, line, &Value::Null) {
            return;
        }
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

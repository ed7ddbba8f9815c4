//! Words on stdout, and values as indented text.
//!
//! Refuses to do: panic or fail when the reader of a pipe has gone; the exit code still tells the result.
//! Invariant: text from files and boxes reaches a terminal without control characters.

use bulla_formats::report::utc;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

/// Writes `text` to stdout as it is; the caller has cleaned what is foreign in it.
pub fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever stopped reading has seen enough: nothing to report, and nobody to report it to.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes `value` to stdout as indented JSON.
pub fn print_json(value: &Value) {
    print(&format!("{value:#}\n"));
}

/// Writes one line to stderr.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", printable(line));
}

/// `text` with control characters written as escapes, so that a hostile file cannot steer a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // U+202A.. and U+2066.. turn the direction of the text that follows.
        let steers = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if steers {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// `value` as lines of `name: value`, two spaces deeper per level. Milliseconds are also shown as UTC.
pub fn tree(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| node(&mut out, 0, name, value)),
        other => node(&mut out, 0, "value", other),
    }
    out
}

fn node(out: &mut String, depth: usize, name: &str, value: &Value) {
    let pad = "  ".repeat(depth);
    let name = printable(name);
    // Writing to a String cannot fail.
    let _ = match value {
        Value::Object(members) if members.is_empty() => writeln!(out, "{pad}{name}: none"),
        Value::Array(items) if items.is_empty() => writeln!(out, "{pad}{name}: none"),
        Value::Object(members) => {
            let _ = writeln!(out, "{pad}{name}:");
            members.iter().for_each(|(name, value)| node(out, depth + 1, name, value));
            return;
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                node(out, depth, &format!("{name} {at}"), item);
            }
            return;
        }
        Value::Null => writeln!(out, "{pad}{name}: none"),
        Value::Bool(yes) => writeln!(out, "{pad}{name}: {}", if *yes { "yes" } else { "no" }),
        Value::Number(number) => match number.as_u64() {
            Some(millis) if name.ends_with("Millis") && millis > 100_000_000_000 => {
                writeln!(out, "{pad}{name}: {millis} ({})", utc(millis))
            }
            _ => writeln!(out, "{pad}{name}: {number}"),
        },
        Value::String(text) if text.contains('\n') => {
            let _ = writeln!(out, "{pad}{name}:");
            for line in text.lines() {
                let _ = writeln!(out, "{pad}  | {}", printable(line));
            }
            return;
        }
        Value::String(text) => writeln!(out, "{pad}{name}: {}", printable(text)),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trees_are_readable_and_harmless() {
        let value = json!({"size": 3, "ok": true, "none": null, "list": [1, {"a": "b"}], "startedMillis": 1_795_219_200_123u64,
            "bad": "\u{1b}[31mred\u{202e}", "note": "x\ny\n"});
        let text = tree(&value);
        for line in [
            "size: 3\n",
            "ok: yes\n",
            "none: none\n",
            "list 1:\n  a: b\n",
            "startedMillis: 1795219200123 (2026-11-21T00:00:00.123Z)\n",
            "bad: \\u{1b}[31mred\\u{202e}\n",
            "note:\n  | x\n  | y\n",
        ] {
            assert!(text.contains(line), "{line:?} not in {text}");
        }
    }
}

//! Rows of an inventory as a table of text: CSV as RFC 4180 has it, the way vendors and spreadsheets write it.
//!
//! Refuses to do: guess. Columns are named in the first line, every field must be there, and what is odd is named with
//! its line.
//! Invariant: [`parse`] of [`print()`] gives the same rows.

use crate::deed::{IMPORT_MAX, Row};
use bulla_formats::der::Octets32;
use std::fmt::Write;

/// Largest table in bytes.
pub const TABLE_BYTES_MAX: usize = 4 << 20;
/// The columns, in the order in which they are written.
pub const COLUMNS: [&str; 4] = ["serial", "model", "branch", "ek"];
const LINES_MAX: usize = IMPORT_MAX + 1;
const TOO_MANY: &str = "there are more rows than can be imported at once (4096); import them in parts";

/// Why a table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct TableError {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub why: String,
}

fn refused<T>(line: usize, why: impl Into<String>) -> Result<T, TableError> {
    Err(TableError { line, why: why.into() })
}

/// The rows of a table whose first line names its columns; fields are divided by commas or by semicolons.
pub fn parse(bytes: &[u8]) -> Result<Vec<Row>, TableError> {
    if bytes.len() > TABLE_BYTES_MAX {
        return refused(1, format!("the table is longer than {TABLE_BYTES_MAX} bytes"));
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return refused(1, "the table is not UTF-8; save it as such");
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let first = text.lines().next().unwrap_or_default();
    let divider = if first.contains(';') && !first.contains(',') { ';' } else { ',' };
    let mut records = records(text, divider)?.into_iter();
    let Some((_, names)) = records.next() else { return refused(1, "the table is empty") };
    let mut places = [usize::MAX; COLUMNS.len()];
    for (at, name) in names.iter().enumerate() {
        let name = name.trim().to_lowercase();
        match COLUMNS.iter().position(|column| *column == name) {
            Some(column) if places[column] == usize::MAX => places[column] = at,
            _ => {
                return refused(
                    1,
                    format!(
                        "the column {name:?} is unknown or there twice; columns are serial, model, branch, ek"
                    ),
                );
            }
        }
    }
    if let Some(missing) = places.iter().position(|place| *place == usize::MAX) {
        return refused(1, format!("there is no column {:?}", COLUMNS[missing]));
    }
    let mut rows = Vec::new();
    for (line, fields) in records {
        if fields.len() != names.len() {
            return refused(
                line,
                format!("it has {} fields, and {} columns are named", fields.len(), names.len()),
            );
        }
        let field = |column: usize| fields[places[column]].trim();
        let Some(ek_spki_sha256) = endorsement_key(field(3)) else {
            return refused(
                line,
                format!("{:?} is not the SHA-256 of an endorsement key: 64 hex digits are", field(3)),
            );
        };
        let [serial, model, branch] = [0, 1, 2].map(|column| field(column).to_owned());
        let row = Row { serial, model, branch, ek_spki_sha256 };
        if let Err(error) = row.check() {
            return refused(line, error.to_string());
        }
        if rows.len() == IMPORT_MAX {
            return refused(line, TOO_MANY);
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return refused(1, "the table has no rows");
    }
    Ok(rows)
}

/// SHA-256 of an endorsement key in hex, as lists have it: with or without `ek:sha256:`, in any case.
fn endorsement_key(text: &str) -> Option<Octets32> {
    let digits = text.strip_prefix("ek:sha256:").unwrap_or(text);
    let bytes: [u8; 32] = hex::decode(digits).ok()?.try_into().ok()?;
    Some(Octets32::new(bytes))
}

/// Lines of a table, each with its number; empty ones are left out.
fn records(text: &str, divider: char) -> Result<Vec<(usize, Vec<String>)>, TableError> {
    let mut records = Vec::new();
    let (mut line, mut began) = (1, 1);
    let (mut fields, mut field) = (Vec::new(), String::new());
    let (mut quoted, mut closed) = (false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\n' {
            line += 1;
        }
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => (quoted, closed) = (false, true),
            _ if quoted => field.push(c),
            '"' if field.trim().is_empty() && !closed => {
                field.clear();
                quoted = true;
            }
            '"' => {
                return refused(line, "a quotation mark stands inside a field that does not begin with one");
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                fields.push(std::mem::take(&mut field));
                let record = std::mem::take(&mut fields);
                if record.len() > 1 || !record[0].is_empty() {
                    records.push((began, record));
                }
                if records.len() > LINES_MAX {
                    return refused(began, TOO_MANY);
                }
                (closed, began) = (false, line);
            }
            _ if c == divider => {
                fields.push(std::mem::take(&mut field));
                closed = false;
            }
            _ if closed && !c.is_whitespace() => {
                return refused(line, "something follows the quotation mark that ends a field");
            }
            _ if closed => {}
            _ => field.push(c),
        }
    }
    if quoted {
        return refused(began, "a field begins with a quotation mark and never ends");
    }
    if !field.is_empty() || !fields.is_empty() {
        fields.push(field);
        records.push((began, fields));
    }
    Ok(records)
}

/// Rows as such a table.
pub fn print(rows: &[Row]) -> String {
    let mut text = COLUMNS.join(",") + "\r\n";
    for row in rows {
        for field in [&row.serial, &row.model, &row.branch] {
            let plain = !field.contains([',', ';', '"']);
            // Writing to a string cannot fail.
            let _infallible = match plain {
                true => write!(text, "{field},"),
                false => write!(text, "\"{}\",", field.replace('"', "\"\"")),
            };
        }
        text.push_str(&hex::encode(*row.ek_spki_sha256));
        text.push_str("\r\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(serial: &str, branch: &str, ek: u8) -> Row {
        Row {
            serial: serial.into(),
            model: "B-100".into(),
            branch: branch.into(),
            ek_spki_sha256: Octets32::new([ek; 32]),
        }
    }

    #[test]
    fn tables_of_vendors_and_spreadsheets_are_read() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let rows = vec![row("S-1", "Zürich 3", 0x11), row("S-2", "Bern, \"Bahnhof\"", 0x22)];
        for table in [
            format!(
                "serial,model,branch,ek\nS-1,B-100,Zürich 3,{one}\nS-2,B-100,\"Bern, \"\"Bahnhof\"\"\",{two}\n"
            ),
            format!(
                "serial,model,branch,ek\r\nS-1,B-100,Zürich 3,{one}\r\n\r\nS-2,B-100,\"Bern, \"\"Bahnhof\"\"\",{two}"
            ),
            format!(
                "\u{feff}EK;Serial;Branch;Model\nek:sha256:{one};S-1;Zürich 3;B-100\n{two}; S-2 ;\"Bern, \"\"Bahnhof\"\"\" ;B-100"
            ),
        ] {
            assert_eq!(parse(table.as_bytes()).as_ref(), Ok(&rows), "{table}");
        }
        assert_eq!(parse(print(&rows).as_bytes()), Ok(rows));
    }

    #[test]
    fn what_is_odd_is_named_with_its_line() {
        let key = "11".repeat(32);
        for (table, line, why) in [
            (String::new(), 1, "empty"),
            ("serial,model,branch,ek\n".into(), 1, "no rows"),
            ("serial,model,branch\nS,B,Z\n".into(), 1, "no column \"ek\""),
            (format!("serial,model,branch,ek,colour\nS,B,Z,{key},red\n"), 1, "\"colour\" is unknown"),
            (
                format!("serial,serial,model,branch,ek\nS,S,B,Z,{key}\n"),
                1,
                "\"serial\" is unknown or there twice",
            ),
            (format!("serial,model,branch,ek\nS,B,Z,{key}\nS,B,{key}\n"), 3, "3 fields"),
            (format!("serial,model,branch,ek\nS,B,Z,{}\n", &key[1..]), 2, "64 hex digits"),
            (format!("serial,model,branch,ek\n\n,B,Z,{key}\n"), 3, "serial"),
            (format!("serial,model,branch,ek\nS,B,\"Z,{key}\n"), 2, "never ends"),
            (format!("serial,model,branch,ek\nS,B,Z\"3\",{key}\n"), 2, "quotation mark"),
            (format!("serial,model,branch,ek\nS,B,\"Z\"3,{key}\n"), 2, "follows"),
            (format!("serial,model,branch,ek\nS,B,\"Z\n3\",{key}\n"), 2, "control characters"),
            (
                format!("serial,model,branch,ek\n{}", format!("S,B,Z,{key}\n").repeat(IMPORT_MAX + 1)),
                4098,
                "in parts",
            ),
        ] {
            let found = parse(table.as_bytes()).unwrap_err();
            assert!(
                found.line == line && found.why.contains(why),
                "{found}: {}",
                &table[..table.len().min(99)]
            );
        }
        assert!(parse(b"serial,model,branch,ek\nS\xff,B,Z,0\n").is_err());
    }
}

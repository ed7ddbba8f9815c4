//! The page as plain text: the same words for a terminal, a mail, a line printer.
//!
//! Refuses to do: say anything that the printed page does not, or more than 80 letters in a line.

use crate::model::{Band, LACKING, Page, Row, Value};
use crate::{letters, wrap};
use sha2::{Digest as _, Sha256};

const COLUMNS: usize = 80;
const LABEL: usize = 20;

pub(crate) fn write(page: &Page, codes: usize) -> String {
    let mut out = String::new();
    let mut put = |line: &str| {
        out.push_str(line.trim_end());
        out.push('\n');
    };
    let bar = if page.marking.band == Band::Solid { "#" } else { "/" }.repeat(COLUMNS);
    put(&bar);
    for line in
        wrapped(&page.marking.word, COLUMNS - 6).iter().chain(&wrapped(&page.marking.sentence, COLUMNS - 6))
    {
        put(&format!("{}  {line}", &bar[..3]));
    }
    put(&bar);
    put("");
    for line in wrapped(&page.title, COLUMNS).iter().chain(&wrapped(&page.subtitle, COLUMNS)) {
        put(line);
    }
    put("");
    page.rows.iter().flat_map(row).for_each(|line| put(&line));
    for paragraph in &page.paragraphs {
        put("");
        wrapped(paragraph, COLUMNS).iter().for_each(|line| put(line));
    }
    put("");
    wrapped(&page.note, COLUMNS).iter().for_each(|line| put(line));
    let held =
        format!("{} bytes in {codes} printed code{}", page.payload.len(), if codes == 1 { "" } else { "s" });
    let hash = Value::Digest(hex::encode(Sha256::digest(&page.payload)));
    for known in [Row::text("Data", held), Row::new("SHA-256 of the data", hash)] {
        row(&known).iter().for_each(|line| put(line));
    }
    put(&"-".repeat(COLUMNS));
    page.footer.iter().flat_map(row).for_each(|line| put(&line));
    if page.lacks() {
        put(LACKING);
    }
    put(&bar);
    put(&format!("{:^COLUMNS$}", letters::decode(&letters::encode(&page.marking.word))));
    put(&bar);
    out
}

fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let lines = wrap::lines(&letters::encode(text), columns as f32, |_| 1.0);
    lines.iter().map(|line| letters::decode(line)).collect()
}

fn row(row: &Row) -> Vec<String> {
    let groups = if matches!(row.value, Value::Digest(_)) { 39 } else { COLUMNS - LABEL - 2 };
    let (labels, values) = (wrapped(&row.label, LABEL), wrapped(&row.value.printed(), groups));
    let blank = String::new();
    (0..labels.len().max(values.len()))
        .map(|at| {
            let (label, value) = (labels.get(at).unwrap_or(&blank), values.get(at).unwrap_or(&blank));
            format!("{label:LABEL$}  {value}")
        })
        .collect()
}

//! What the archive says of one document, for people: a PDF with the `.seal` files inside.
//!
//! Refuses to do: claim more than the seals prove, or pass itself off as proof.
//! Invariant: every fact on it is in the JSON statement, which is inside too.

use crate::dossier::{Dossier, Item, digest_text};
use crate::exit::Failure;
use crate::statement::{Statement, Verdict, assurance_name, field_name, seal_name};
use crate::timeline::Event;
use bulla_formats::body::seal::{Observation, RelationKind};
use bulla_formats::entry::Residency;
use bulla_formats::report::utc;
use bulla_page::{Attachment, Band, Marking, Paper, Part, Row, Table, Value};
use bulla_protocol::versions::{Basis, Standing};

/// Most seals that get a part of their own; the table has all.
const SHOWN: usize = 4;
/// Most findings printed; the JSON statement has all.
const FINDINGS: usize = 12;

/// The statement as PDF.
pub fn pdf(statement: &Statement<'_>) -> Result<Vec<u8>, Failure> {
    let dossier = statement.dossier;
    let mut parts = vec![Part::Text(summary(dossier))];
    document(statement, &mut parts);
    for (at, item) in dossier.items.iter().enumerate().filter(|(_, item)| item.asked).take(SHOWN) {
        seal(at, item, dossier, &mut parts);
    }
    versions(dossier, &mut parts);
    timeline(statement.events, &mut parts);
    findings(statement.findings, &mut parts);
    how(statement, &mut parts);
    let (word, sentence, band) = match Verdict::of(dossier) {
        Verdict::Current => ("SEALED", "The seals verify; no later version is known.", Band::Solid),
        Verdict::Conflict => ("CONFLICT", "Nothing proves which version is the later one.", Band::Striped),
        Verdict::Replaced => ("REPLACED", "Sealed; a later version replaces it.", Band::Striped),
        Verdict::Annulled => ("ANNULLED", "Sealed; a later seal declares it void.", Band::Striped),
        Verdict::Refused => ("REFUSED", "No seal of this document verifies.", Band::Striped),
    };
    let made = utc(statement.made_millis);
    let paper = Paper {
        marking: Marking { word: word.to_owned(), sentence: sentence.to_owned(), band },
        title: "Statement about a sealed document".to_owned(),
        subtitle: format!("{}, hub {}, {made}", statement.hub.trust.fleet, statement.hub.config.name),
        parts,
        footer: "Proves nothing by itself: the .seal files inside do, with the document and the trust file."
            .to_owned(),
        files: files(statement),
    };
    paper.pdf().map_err(|error| Failure::usage(format!("the statement cannot be printed: {error}")))
}

fn files(statement: &Statement<'_>) -> Vec<Attachment> {
    let json = |name: String, description: String, bytes: Vec<u8>| Attachment {
        name,
        media_type: "application/json".to_owned(),
        description,
        bytes,
    };
    let mut files: Vec<Attachment> = statement
        .dossier
        .items
        .iter()
        .enumerate()
        .map(|(at, item)| {
            let description = format!("seal {} of {}", item.place.index, item.place.origin);
            json(seal_name(at + 1, item), description, item.file.encode().into_bytes())
        })
        .collect();
    let whole = format!("{:#}\n", statement.to_json());
    files.push(json(
        "statement.json".to_owned(),
        "this statement for machines".to_owned(),
        whole.into_bytes(),
    ));
    files
}

/// When, as far as it is proven.
fn proven((after, before): (Option<u64>, Option<u64>)) -> String {
    match (after, before) {
        (Some(after), Some(before)) => format!("after {} and before {}", utc(after), utc(before)),
        (Some(after), None) => format!("after {}; nobody vouches for an end yet", utc(after)),
        (None, Some(before)) => format!("before {}; nobody vouches for a beginning", utc(before)),
        (None, None) => "nobody vouches for a time yet".to_owned(),
    }
}

/// A time as people read it; it breaks between date and time.
fn clock(millis: u64) -> String {
    utc(millis).replace('T', " ").replace('Z', "")
}

/// The same in a cell of a table.
fn proven_cell((after, before): (Option<u64>, Option<u64>)) -> String {
    match (after, before) {
        (Some(after), Some(before)) => format!("{} to {}", clock(after), clock(before)),
        (Some(after), None) => format!("after {}", clock(after)),
        (None, Some(before)) => format!("before {}", clock(before)),
        (None, None) => "none".to_owned(),
    }
}

fn summary(dossier: &Dossier) -> String {
    let asked: Vec<&Item> = dossier.items.iter().filter(|item| item.asked).collect();
    let logs: std::collections::BTreeSet<u32> = asked.iter().map(|item| item.id).collect();
    let many = |count: usize, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    let sealed = format!(
        "The archive has {} of this document in {}.",
        many(asked.len(), "seal", "seals"),
        many(logs.len(), "log", "logs")
    );
    let first = asked.iter().find(|item| item.standing.is_some());
    let when = first.map_or_else(String::new, |item| {
        format!(" It was sealed at {}: {}.", item.name, proven(item.interval()))
    });
    let fate = match first.and_then(|item| item.standing) {
        Some(Standing::Replaced { by, .. }) => {
            let by = &dossier.items[by];
            format!(" Entry {} of {} is a later version.", by.place.index, by.name)
        }
        Some(Standing::Conflict) => {
            " Another version is sealed, and neither does one name the other nor are their times proven apart.".to_owned()
        }
        _ => String::new(),
    };
    let undecided = match first.and_then(|item| item.standing) {
        Some(Standing::Replaced { .. }) if !dossier.conflicts.is_empty() => {
            " Which of the later versions stands is in conflict."
        }
        _ => "",
    };
    format!("{sealed}{when}{fate}{undecided}")
}

fn document(statement: &Statement<'_>, parts: &mut Vec<Part>) {
    parts.push(Part::Heading("The document".to_owned()));
    if let Some(asked) = &statement.asked {
        parts.push(Part::Row(Row::new("File", Value::Literal(asked.name.clone()))));
        parts.push(Part::Row(Row::text("Size", format!("{} bytes", asked.size))));
    }
    let dossier = statement.dossier;
    let sealed: Vec<_> = dossier
        .asked
        .iter()
        .filter(|asked| {
            let is = |item: &Item| {
                let digest = item.digest();
                (digest.algorithm, &digest.value) == (asked.algorithm, &asked.value)
            };
            dossier.items.iter().any(is)
        })
        .collect();
    for digest in sealed {
        let name = digest.algorithm.name().to_uppercase();
        parts.push(Part::Row(Row::new(name, Value::Digest(hex::encode(&digest.value)))));
    }
    if let Some(item) = dossier.items.iter().find(|item| item.asked) {
        let size = item.body.size.map_or_else(String::new, |size| format!(", {size} bytes"));
        parts.push(Part::Row(Row::text("Sealed as", format!("{}{size}", item.body.media_type))));
    }
}

fn seal(at: usize, item: &Item, dossier: &Dossier, parts: &mut Vec<Part>) {
    let (content, body) = (item.entry.content(), &item.body);
    parts.push(Part::Heading(format!("Seal {}: entry {} of {}", at + 1, item.place.index, item.name)));
    let mut row = |row: Row| parts.push(Part::Row(row));
    row(Row::text("Proven time", proven(item.interval())));
    let said = match content.time.uncertainty_millis {
        Some(millis) => format!("{} within {millis} ms, by its own statement", utc(content.time.unix_millis)),
        None => format!("{}, uncertainty not known", utc(content.time.unix_millis)),
    };
    row(Row::text("Box's clock", said));
    let facts: Vec<&str> = item.report.facts.iter().map(|fact| fact.name()).collect();
    let facts = if facts.is_empty() { "none".to_owned() } else { facts.join(", ") };
    row(Row::text("Facts that hold", facts));
    row(Row::text("Verdict", format!("{}: {}", item.report.verdict.name(), item.report.verdict.sentence())));
    if let Some(failed) = item.report.failed() {
        row(Row::text("Failed check", format!("{}: {}", failed.name, failed.detail)));
    }
    row(Row::text("Standing", standing(item, dossier)));
    row(Row::new("Log", Value::Literal(item.place.origin.to_string())));
    row(Row::new("Leaf hash", Value::Digest(item.leaf.to_string())));
    let home = match item.key.residency {
        Residency::Tpm => "inside the TPM",
        Residency::TpmEndorsedRam => "in memory, endorsed by the TPM",
        Residency::Software => "in software, without a TPM",
    };
    row(Row::text("Signed by", format!("{} key of epoch {}, {home}", item.key.algorithm, item.key.epoch)));
    row(Row::new("SHA-256 of the key", Value::Digest(item.key.sha256.to_string())));
    let seen = match body.observation {
        Observation::BytesObserved => "the box saw the bytes",
        Observation::DigestClaimed => "the box was given the digest only",
    };
    row(Row::text("Sealed for", format!("{:?} over {}; {seen}", body.client.id, body.transport)));
    let drill = if content.drill { ", a drill" } else { "" };
    row(Row::text("Mode of the box", format!("{}{drill}", content.mode)));
    if !body.commitments.is_empty() {
        let hidden: Vec<String> = body
            .commitments
            .iter()
            .map(|hidden| format!("{} ({})", field_name(hidden.field), assurance_name(hidden.assurance)))
            .collect();
        let words = format!("{}: salted hashes here; the branch can open them", hidden.join(", "));
        row(Row::text("Committed to", words));
    }
}

fn standing(item: &Item, dossier: &Dossier) -> String {
    let name = |at: usize| {
        let item = &dossier.items[at];
        format!("entry {} of {}", item.place.index, item.name)
    };
    match item.standing {
        Some(Standing::Current) => "current".to_owned(),
        Some(Standing::Conflict) => "in conflict".to_owned(),
        Some(Standing::Annulled) => {
            let by: Vec<String> = item.annulled_by.iter().map(|by| name(*by)).collect();
            format!("annulled by {}", by.join(", "))
        }
        Some(Standing::Replaced { by, basis }) => match basis {
            Basis::Explicit => format!("replaced by {}, which says so", name(by)),
            Basis::Disjoint => format!("replaced by {}, proven to be later", name(by)),
            Basis::OfCopy => format!("replaced by {}, which supersedes a copy of it", name(by)),
        },
        None if item.says.iter().any(|said| said.kind == RelationKind::Annuls) => {
            let of: Vec<String> = item.says.iter().filter_map(|said| said.seal).map(name).collect();
            format!("an annulment of {}", of.join(", "))
        }
        None => "counts for nothing: it does not verify".to_owned(),
    }
}

fn versions(dossier: &Dossier, parts: &mut Vec<Part>) {
    if dossier.items.len() > 1 {
        parts.push(Part::Heading("Versions, copies and annulments".to_owned()));
        let line = |(at, item): (usize, &Item)| {
            let digest = digest_text(&item.digest());
            let short: String = digest.chars().take(18).collect();
            let short = if item.asked { "this document".to_owned() } else { format!("{short}...") };
            vec![
                (at + 1).to_string(),
                format!("entry {} of {}", item.place.index, item.name),
                short,
                proven_cell(item.interval()),
                standing(item, dossier),
            ]
        };
        let columns =
            [("No.", 45), ("Where", 180), ("What", 195), ("Proven time, UTC", 310), ("Standing", 270)];
        let columns = columns.map(|(name, share)| (name.to_owned(), share)).to_vec();
        let lines = dossier.items.iter().enumerate().map(line).collect();
        parts.push(Part::Table(Table { columns, lines }));
    }
    for (a, b) in &dossier.conflicts {
        let words = format!(
            "Conflict: seals {} and {} are different versions, neither supersedes the other, and their proven times \
             overlap or are not proven. Nothing here says which is the later.",
            a + 1,
            b + 1
        );
        parts.push(Part::Text(words));
    }
    for of in dossier.duplicates() {
        let of: Vec<String> = of.iter().map(|at| (at + 1).to_string()).collect();
        parts.push(Part::Text(format!(
            "Duplicates: seals {} are of the same bytes in different logs.",
            of.join(", ")
        )));
    }
    for gap in &dossier.gaps {
        parts.push(Part::Text(format!("Not looked into: {gap}.")));
    }
}

fn timeline(events: &[Event], parts: &mut Vec<Part>) {
    parts.push(Part::Heading("Chain of custody".to_owned()));
    let line = |event: &Event| {
        vec![
            format!("{} {}", event.box_name, event.place.index),
            event.name.to_owned(),
            event.detail.clone(),
            clock(event.local.unix_millis),
            proven_cell((event.after, event.before)),
        ]
    };
    let columns =
        [("Entry", 150), ("Event", 130), ("What", 330), ("Box's clock", 120), ("Proven time, UTC", 270)];
    let columns = columns.map(|(name, share)| (name.to_owned(), share)).to_vec();
    parts.push(Part::Table(Table { columns, lines: events.iter().map(line).collect() }));
    parts.push(Part::Text(
        "In the order of all logs: by Lamport time, log and index. It says what cannot have been the other way round within \
         a log; between logs only proven times do."
            .to_owned(),
    ));
}

fn findings(found: &[serde_json::Value], parts: &mut Vec<Part>) {
    parts.push(Part::Heading("Findings".to_owned()));
    if found.is_empty() {
        parts.push(Part::Text("Nothing was found about these seals or their logs.".to_owned()));
        return;
    }
    let text =
        |finding: &serde_json::Value, member: &str| finding[member].as_str().unwrap_or_default().to_owned();
    let line = |finding: &serde_json::Value| {
        let when = finding["foundMillis"].as_u64().map_or_else(String::new, clock);
        vec![text(finding, "severity"), text(finding, "kind"), text(finding, "detail"), when]
    };
    // The worst first; among them the oldest.
    let rank = |finding: &&serde_json::Value| match finding["severity"].as_str() {
        Some("critical") => 0,
        Some("error") => 1,
        Some("warning") => 2,
        _ => 3,
    };
    let mut all: Vec<&serde_json::Value> = found.iter().collect();
    all.sort_by_key(rank);
    let columns = [("Severity", 100), ("Kind", 140), ("What", 620), ("Found, UTC", 140)];
    let columns = columns.map(|(name, share)| (name.to_owned(), share)).to_vec();
    let lines = all.iter().take(FINDINGS).map(|finding| line(finding)).collect();
    parts.push(Part::Table(Table { columns, lines }));
    if all.len() > FINDINGS {
        parts.push(Part::Text(format!("And {} more, in statement.json.", all.len() - FINDINGS)));
    }
}

fn how(statement: &Statement<'_>, parts: &mut Vec<Part>) {
    parts.push(Part::Heading("How to verify this without anybody's help".to_owned()));
    let mut row = |label: &str, value: &str| {
        parts.push(Part::Row(Row::new(label, Value::Literal(value.to_owned()))));
    };
    row("1. Take out the seals", "pdfdetach -saveall STATEMENT.pdf");
    let first = statement.dossier.items.iter().enumerate().find(|(_, item)| item.asked);
    let name = first.map_or_else(String::new, |(at, item)| seal_name(at + 1, item));
    row("2. Verify", &format!("bulla verify DOCUMENT {name} --trust TRUST.json"));
    row("Trust file used here", &statement.fingerprint);
    parts.push(Part::Text(
        "The trust file comes from the institution, not from this hub; its fingerprint is read out over the phone. The hub \
         has no key and signs nothing. It knows documents by their digests only: names, document ids and users are salted \
         hashes here, and their openings stay at the branch."
            .to_owned(),
    ));
}

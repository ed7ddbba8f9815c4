//! Manifests as files: for verifiers (DER), for people (text), for paper (PDF with codes), and copies on media that are
//! carried away.
//!
//! Refuses to do: be the record; the log is. Every file here can be made again from it.
//! Invariant: a file is whole under its name or not there: written beside it, flushed, renamed.

use super::manifests::{Wording, is_closing};
use bulla_formats::body::manifest::{ManifestBody, MeasuredBy, Phase};
use bulla_formats::body::mode_change::Vouched;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::manifest_file::ManifestFile;
use bulla_formats::report::utc;
use bulla_formats::tpm::Attest;
use bulla_formats::trust::spoken;
use bulla_page::{Band, Marking, Page, Row, Sheet, TooMuch, Value};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Forms in which a manifest is written: extension and media type.
pub const FORMS: [(&str, &str); 3] = [
    ("der", "application/vnd.bulla.manifest"),
    ("txt", "text/plain; charset=utf-8"),
    ("pdf", "application/pdf"),
];
/// Directory inside the state directory.
const DIRECTORY: &str = "manifests";

/// Name of a manifest's file, without its extension.
pub fn file_name(outage: u64, sequence: u64, phase: Phase) -> String {
    format!("outage-{outage:06}-{sequence:04}-{}", phase.name())
}

/// Writes a manifest in every form, and copies it to the media that are there.
pub(super) fn hand_out(
    state_dir: &Path,
    media: &[PathBuf],
    file: &ManifestFile,
    body: &ManifestBody,
    wording: &Wording,
) {
    let said = &body.statement;
    let name = file_name(said.outage, said.sequence, said.phase);
    let mut forms = vec![(FORMS[0].0, file.encode())];
    match page_of(file, body, wording) {
        Ok(page) => {
            forms.push((FORMS[1].0, page.text().into_bytes()));
            forms.push((FORMS[2].0, page.pdf()));
        }
        Err(error) => log::warn!("the manifest is not printed: {error}"),
    }
    let own = state_dir.join(DIRECTORY);
    let own = fs::create_dir_all(&own).map(|()| own);
    match own {
        Ok(own) => write_all(&own, &name, &forms),
        Err(error) => log::warn!("no directory for manifests: {error}"),
    }
    let origin = said.origin.replace('/', "_");
    for medium in media {
        if medium.is_dir() {
            write_all(medium, &format!("{origin}-{name}"), &forms);
        }
    }
}

fn write_all(directory: &Path, name: &str, forms: &[(&str, Vec<u8>)]) {
    for (extension, bytes) in forms {
        if let Err(error) = write(directory, &format!("{name}.{extension}"), bytes) {
            log::warn!("{name}.{extension} could not be written to {}: {error}", directory.display());
        }
    }
}

fn write(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let beside = directory.join(format!("{name}.part"));
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(name))?;
    // Not every file system of a medium can flush a directory; the file is there all the same.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// A manifest, laid out to be printed. Where another wording is in force by now, the page only names the one that was.
///
/// # Errors
/// Something is too long for one page.
pub fn page_of(file: &ManifestFile, body: &ManifestBody, wording: &Wording) -> Result<Sheet, TooMuch> {
    Sheet::lay_out(page(file, body, wording))
}

/// The page of a manifest.
fn page(file: &ManifestFile, body: &ManifestBody, wording: &Wording) -> Page {
    let said = &body.statement;
    let closing = is_closing(body);
    let (word, sentence) = match (said.drill, closing) {
        (true, _) => ("DRILL", "An exercise: every entry it touched is marked as one."),
        (false, false) => ("EMERGENCY", "This box works without its authorities."),
        (false, true) => ("OUTAGE OVER", "This statement covers all of it."),
    };
    let band = if said.drill || closing { Band::Striped } else { Band::Solid };
    let clock = |time: &bulla_formats::entry::LocalTime| match time.uncertainty_millis {
        Some(millis) => format!("{} (within {:.1} s)", utc(time.unix_millis), millis as f64 / 1e3),
        None => format!("{} (uncertainty not known)", utc(time.unix_millis)),
    };
    let by = match said.measured_by {
        MeasuredBy::SteadyClock => "",
        MeasuredBy::WallClock => ", by the wall clock: the box was restarted meanwhile",
    };
    let seconds = said.duration_millis / 1_000;
    let lasted = format!("{}:{:02}:{:02}{by}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let mut rows = vec![
        Row::new("Box", Value::Literal(said.origin.clone())),
        Row::text(
            "Outage",
            format!("number {}, {} manifest, statement {}", said.outage, said.phase.name(), said.sequence),
        ),
        Row::text("Declared", clock(&said.began)),
        Row::text("Stated", clock(&said.made)),
        Row::text("Duration", lasted),
        Row::text(
            "Covers",
            format!("entries {} to {}, {} of them seals", said.first, said.head.size - 1, said.seals),
        ),
        Row::new("Root of these", Value::Digest(hex::encode(*said.entries))),
        Row::new("Root of the log", Value::Digest(hex::encode(*said.head.root))),
    ];
    rows.push(match &body.vouched {
        Vouched::Quote(quote) => {
            let clock = Attest::parse(&quote.attest).map_or_else(
                |_| "quoted".to_owned(),
                |attest| {
                    let info = attest.clock_info;
                    format!(
                        "clock {} ms, {} resets, quoted over this statement",
                        info.clock, info.reset_count
                    )
                },
            );
            Row::text("TPM", clock)
        }
        Vouched::None(reason) => Row::text("TPM", format!("no quote: {reason}")),
    });
    for (at, finding) in said.findings.iter().take(4).enumerate() {
        let state = finding.failure.map_or("reachable", |failure| failure.name());
        let text = format!(
            "{} ({}): {state} for {} s",
            finding.authority,
            finding.operator,
            finding.for_millis / 1_000
        );
        rows.push(Row::text(if at == 0 { "Authorities" } else { "" }, text));
    }
    if said.findings.len() > 4 {
        rows.push(Row::text("", format!("and {} more", said.findings.len() - 4)));
    }
    if let Some(limits) = said.limits.as_ref().filter(|limits| !limits.reached.is_empty()) {
        rows.push(Row::text("Limits", format!("reached: {:?}", limits.reached)));
    }
    let in_force = sha256(&[wording.text.as_bytes()]).0 == *said.wording.sha256;
    let words = if in_force {
        wording.text.as_str()
    } else {
        "The wording named below was in force; its text is not on this box any more."
    };
    Page {
        marking: Marking { word: word.to_owned(), sentence: sentence.to_owned(), band },
        title: if closing { "Closing manifest of an outage" } else { "Emergency manifest" }.to_owned(),
        subtitle: format!("{}, {}", said.origin.split('/').next().unwrap_or_default(), utc(said.made.unix_millis)),
        rows,
        paragraphs: words.split("\n\n").map(|text| text.trim().to_owned()).filter(|t| !t.is_empty()).collect(),
        note: "The codes hold this statement with its signatures: bulla manifest verify, with the trust file of the fleet, \
               needs nothing else."
            .to_owned(),
        footer: vec![
            Row::text("Wording", said.wording.id.clone()),
            Row::new("Its hash", Value::Literal(spoken(&Hash(*said.wording.sha256)))),
            Row::new("This file", Value::Literal(spoken(&sha256(&[&file.printed().encode()])))),
        ],
        payload: file.printed().encode(),
    }
}

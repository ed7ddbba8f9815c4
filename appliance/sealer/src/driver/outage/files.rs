//! Manifests as files: for verifiers (DER), for people (text), for paper (PDF with codes), and copies on media that are
//! carried away.
//!
//! Refuses to do: be the record; the log is. Every file here can be made again from it. Let a medium hold anybody up: a
//! stick that hangs holds up its courier, and nobody else.
//! Invariants: a file is whole under its name or not there: written beside it, flushed, renamed. Of the manifests in
//! between only the newest is there: it covers what those before it covered.

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
use std::sync::mpsc::{SyncSender, sync_channel};

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

/// Manifests that may wait for a slow medium.
const PARCELS_MAX: usize = 4;

/// A manifest in its forms, under its name.
struct Parcel {
    outage: u64,
    phase: Phase,
    prefix: String,
    name: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

/// Copies manifests to media, on a thread of its own.
pub(super) struct Courier(Option<SyncSender<Parcel>>);

impl Courier {
    /// A courier to these directories; it goes with whoever has this.
    pub(super) fn new(media: Vec<PathBuf>) -> Self {
        if media.is_empty() {
            return Courier(None);
        }
        let (sender, parcels) = sync_channel::<Parcel>(PARCELS_MAX);
        let carry = move || {
            for parcel in parcels {
                media.iter().filter(|medium| medium.is_dir()).for_each(|medium| parcel.put_down(medium));
            }
        };
        match std::thread::Builder::new().name("courier".to_owned()).spawn(carry) {
            Ok(_) => Courier(Some(sender)),
            Err(error) => {
                log::warn!("manifests are not copied to media: {error}");
                Courier(None)
            }
        }
    }

    fn take(&self, parcel: Parcel) {
        if let Some(Err(error)) = self.0.as_ref().map(|sender| sender.try_send(parcel)) {
            log::warn!(
                "a manifest is not copied to media, because an earlier one is still being written: {error}"
            );
        }
    }
}

impl Parcel {
    /// Writes all forms; then nobody needs the ones in between before it.
    fn put_down(&self, directory: &Path) {
        let name = format!("{}{}", self.prefix, self.name);
        for (extension, bytes) in &self.forms {
            if let Err(error) = write(directory, &format!("{name}.{extension}"), bytes) {
                return log::warn!(
                    "{name}.{extension} could not be written to {}: {error}",
                    directory.display()
                );
            }
        }
        if self.phase != Phase::Open {
            self.clear_away(directory, &name);
        }
    }

    fn clear_away(&self, directory: &Path, newest: &str) {
        let (of_outage, between) = (format!("{}outage-{:06}-", self.prefix, self.outage), "-refresh.");
        for file in fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(&of_outage) && name.contains(between) && !name.starts_with(newest) {
                // What stays is one file too many, nothing else.
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// Writes a manifest in every form, and has it copied to the media that are there.
pub(super) fn hand_out(
    state_dir: &Path,
    courier: &Courier,
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
    let parcel = Parcel { outage: said.outage, phase: said.phase, prefix: String::new(), name, forms };
    let own = state_dir.join(DIRECTORY);
    match fs::create_dir_all(&own) {
        Ok(()) => parcel.put_down(&own),
        Err(error) => log::warn!("no directory for manifests: {error}"),
    }
    // Sticks go from box to box.
    courier.take(Parcel { prefix: format!("{}-", said.origin.replace('/', "_")), ..parcel });
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

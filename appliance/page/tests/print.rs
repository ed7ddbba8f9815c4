//! Pages printed, injured, and read again by poppler and zbar.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod paper;
mod sample;

use bulla_page::codes::join;
use bulla_page::{Page, Row, Sheet};
use paper::{Raster, tool};
use sample::{drill, emergency, payload};
use std::path::Path;

/// Pages with one to six codes, and all that a page holds.
const LENGTHS: [usize; 7] = [1, 1_024, 1_800, 2_600, 4_000, 5_000, 6_144];

/// Where it stays for whoever wants to look at it.
fn saved(name: &str, pdf: &[u8]) -> String {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, pdf).unwrap();
    path.to_str().unwrap().to_owned()
}

fn read_back(raster: &Raster, length: usize, how: &str) {
    let codes = raster.codes();
    let read = join(&codes).unwrap_or_else(|error| panic!("{length} bytes, {how}: {error}"));
    assert!(read == payload(length), "{length} bytes, {how}: other bytes");
    assert_eq!(codes.len(), length.div_ceil(1_024), "{length} bytes, {how}: a code came twice");
}

/// Reads a page that suffered. A decoder may miss a code of one placement by a hair, and which one differs between
/// processors; people put the page on the glass again, a little otherwise, and so does this, twice.
fn read_injured(raster: &Raster, length: usize, how: &str, injured: impl Fn(&Raster) -> Raster) {
    let again = [0.7, -0.9].into_iter().map(|degrees| injured(&raster.rotated(degrees)));
    let scans = std::iter::once_with(|| injured(raster)).chain(again);
    let read = scans.map(|scan| join(&scan.codes())).find_map(Result::ok);
    let read = read.unwrap_or_else(|| panic!("{length} bytes, {how}: not read in three scans"));
    assert!(read == payload(length), "{length} bytes, {how}: other bytes");
}

#[test]
fn every_page_is_read_from_paper() {
    for length in LENGTHS {
        for page in [emergency(length), drill(length)] {
            let raster = Raster::of(&Sheet::lay_out(page).unwrap().pdf(), 300);
            assert_eq!(raster.size(), (2_480, 3_508), "A4");
            read_back(&raster, length, "straight");
        }
    }
}

#[test]
fn a_page_is_read_askew_out_of_focus_worn_and_stained() {
    // The page with the smallest codes and the lower error correction.
    let length = 6_144;
    let raster = Raster::of(&Sheet::lay_out(emergency(length)).unwrap().pdf(), 300);
    for degrees in [-2.0, 2.0, 178.0] {
        read_injured(&raster, length, &format!("turned by {degrees} degrees"), |page| page.rotated(degrees));
    }
    read_injured(&raster, length, "out of focus", |page| page.blurred(1));
    read_injured(&raster, length, "turned and out of focus", |page| page.rotated(2.0).blurred(1));
    read_injured(&raster, length, "a worn copy", Raster::faded);
    // A hole of 4 mm in the first code.
    read_injured(&raster, length, "with a hole", |page| page.spotted((470, 2_230), 24));
    // A code that is not there any more is missed, not made up.
    let codes = raster.spotted((470, 2_230), 200).codes();
    assert_eq!(join(&codes).unwrap_err().to_string(), "missing of 6 codes: 1");
}

#[test]
fn a_page_is_read_at_other_resolutions() {
    let length = 6_144;
    let pdf = Sheet::lay_out(emergency(length)).unwrap().pdf();
    for resolution in [200, 400, 600] {
        read_back(&Raster::of(&pdf, resolution), length, &format!("{resolution} dots an inch"));
    }
}

/// All letters but blanks and the hyphens that text extraction takes for soft ones.
fn letters(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_whitespace() && *letter != '-').collect()
}

#[test]
fn words_on_paper_and_in_the_text_are_the_same() {
    let mut page = emergency(3_000);
    page.rows.push(Row::text("Custodian", "Łukasz\u{202e} Żak"));
    let sheet = Sheet::lay_out(page.clone()).unwrap();
    let file = saved("emergency.pdf", &sheet.pdf());
    let described = String::from_utf8(tool("pdfinfo", &[&file])).unwrap();
    let says =
        |key: &str| described.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
    assert_eq!(says("Pages:"), "1");
    assert!(says("Page size:").ends_with("(A4)"), "{described}");
    assert_eq!(says("Title:"), page.title);

    let (paper, text) = (tool("pdftotext", &["-layout", &file, "-"]), sheet.text());
    let paper = letters(&String::from_utf8(paper).unwrap());
    let plain = letters(&text);
    let shown = |printed: &str| {
        printed.replace('Ł', "[U+0141]").replace('Ż', "[U+017B]").replace('\u{202e}', "[U+202E]")
    };
    for printed in words(&page) {
        // A value of several lines stands beside its label: line by line is how it is found.
        for word in shown(&printed).split_whitespace().map(letters) {
            assert!(paper.contains(&word), "{word} is not on the paper");
            assert!(plain.contains(&word), "{word} is not in the text");
        }
    }
    assert!(text.contains("A letter that printers may lack is shown by its number"));
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.starts_with(&"#".repeat(80)) && text.trim_end().ends_with(&"#".repeat(80)));
    assert_eq!(text.matches("EMERGENCY").count(), 2, "at the head and at the foot");
    assert!(Sheet::lay_out(drill(9)).unwrap().text().starts_with(&"/".repeat(80)));
}

fn words(page: &Page) -> Vec<String> {
    let of = |row: &Row| match &row.value {
        bulla_page::Value::Text(text) | bulla_page::Value::Literal(text) => [row.label.clone(), text.clone()],
        bulla_page::Value::Digest(digest) => {
            [row.label.clone(), [&digest[..4], " ", &digest[4..8], " ", &digest[60..]].concat()]
        }
    };
    let mut words = vec![page.marking.word.clone(), page.marking.sentence.clone(), page.title.clone()];
    words.extend([page.subtitle.clone(), page.note.clone()]);
    words.extend(page.paragraphs.clone());
    words.extend(page.rows.iter().chain(&page.footer).flat_map(of));
    words
}

#[test]
fn every_word_is_inside_the_margins() {
    let file = saved("drill.pdf", &Sheet::lay_out(drill(3_000)).unwrap().pdf());
    let boxes = String::from_utf8(tool("pdftotext", &["-bbox", &file, "-"])).unwrap();
    let number = |line: &str, key: &str| {
        let (_, rest) = line.split_once(&format!("{key}=\"")).unwrap();
        rest.split_once('"').unwrap().0.parse::<f32>().unwrap()
    };
    let mut seen = 0;
    for line in boxes.lines().filter(|line| line.contains("<word ")) {
        seen += 1;
        let (left, right) = (number(line, "xMin"), number(line, "xMax"));
        let (top, bottom) = (number(line, "yMin"), number(line, "yMax"));
        assert!(left > 50.0 && right < 545.0 && top > 34.0 && bottom < 813.0, "{line}");
    }
    assert!(seen > 100);
}

#[test]
fn the_same_page_is_the_same_file() {
    let pdf = |length| Sheet::lay_out(emergency(length)).unwrap().pdf();
    assert!(pdf(1_000) == pdf(1_000));
    assert!(pdf(1_000) != pdf(1_001));
    for dated in ["/CreationDate", "/ModDate", "/ID"] {
        assert!(!pdf(1_000).windows(dated.len()).any(|bytes| bytes == dated.as_bytes()), "{dated}");
    }
}

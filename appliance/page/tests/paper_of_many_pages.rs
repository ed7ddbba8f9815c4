//! Documents of several pages, read by poppler: what they say, how many pages it takes, what comes out of them.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_page::{Attachment, Band, Marking, Paper, Part, Row, Table, TooMuch, Value};
use std::path::Path;
use std::process::Command;

/// Runs a stock tool; returns what it printed.
fn tool(name: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(name)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}; install poppler-utils, or run `cargo xtask setup`"));
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn document(rows: usize) -> Paper {
    let mut parts = vec![
        Part::Text("What this says is proven by what is inside.".repeat(6)),
        Part::Heading("What was sealed".to_owned()),
        Part::Row(Row::new("SHA-256", Value::Digest("0123456789abcdef".repeat(4)))),
        Part::Heading("Where".to_owned()),
    ];
    let line = |number: usize| vec![number.to_string(), format!("box-{number}"), "Zürich ".repeat(12)];
    parts.push(Part::Table(Table {
        columns: vec![("No.".to_owned(), 60), ("Box".to_owned(), 240), ("Words".to_owned(), 700)],
        lines: (1..=rows).map(line).collect(),
    }));
    parts.push(Part::Heading("The last words".to_owned()));
    Paper {
        marking: Marking {
            word: "CURRENT".to_owned(),
            sentence: "No other version is known.".to_owned(),
            band: Band::Solid,
        },
        title: "Statement".to_owned(),
        subtitle: "bank.example".to_owned(),
        parts,
        footer: "Made from an archive.".to_owned(),
        files: vec![
            Attachment {
                name: "b.seal".to_owned(),
                media_type: "application/json".to_owned(),
                description: "a seal".to_owned(),
                bytes: b"{\"b\": 1}\n".to_vec(),
            },
            Attachment {
                name: "a.bin".to_owned(),
                media_type: "application/octet-stream".to_owned(),
                description: "every byte".to_owned(),
                bytes: (0..=255).cycle().take(70_000).collect(),
            },
        ],
    }
}

fn saved(directory: &Path, pdf: &[u8]) -> String {
    let path = directory.join("document.pdf");
    std::fs::write(&path, pdf).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn every_word_is_on_some_page_and_every_file_comes_out_again() {
    let directory = tempfile::tempdir().unwrap();
    for (rows, pages) in [(1, 1), (120, 3)] {
        let paper = document(rows);
        let pdf = paper.pdf().unwrap();
        assert_eq!(pdf, paper.pdf().unwrap(), "the same bytes");
        let file = saved(directory.path(), &pdf);
        let said = String::from_utf8(tool("pdfinfo", &[&file])).unwrap();
        assert!(said.contains(&format!("Pages:           {pages}\n")), "{said}");
        assert!(!said.contains("CreationDate"), "{said}");
        let text = String::from_utf8(tool("pdftotext", &["-layout", &file, "-"])).unwrap();
        for number in 1..=rows {
            assert!(text.contains(&format!("box-{number} ")), "{number}");
        }
        assert_eq!(text.matches("No.").count(), pages, "the head of the table on every page");
        for number in 1..=pages {
            assert!(text.contains(&format!(" {number}/{pages}")), "{text}");
        }
        assert!(text.contains("The last words"));
        for (number, attached) in [(2, &paper.files[0]), (1, &paper.files[1])] {
            let out = directory.path().join("out");
            let number = number.to_string();
            tool("pdfdetach", &["-save", &number, "-o", out.to_str().unwrap(), &file]);
            assert_eq!(std::fs::read(&out).unwrap(), attached.bytes);
        }
        let listed = String::from_utf8(tool("pdfdetach", &["-list", &file])).unwrap();
        assert!(listed.contains("1: a.bin") && listed.contains("2: b.seal"), "{listed}");
    }
}

#[test]
fn what_cannot_stand_on_a_page_is_refused() {
    let mut blank = document(1);
    blank.title = " ".to_owned();
    assert_eq!(blank.pdf(), Err(TooMuch::Blank("the title")));
    let mut long = document(1);
    long.parts.push(Part::Row(Row::text("endless", "word ".repeat(20_000))));
    assert_eq!(long.pdf(), Err(TooMuch::Long("a part of the document")));
    let mut long = document(1);
    long.title = "word ".repeat(200);
    assert_eq!(long.pdf(), Err(TooMuch::Long("the title")));
}

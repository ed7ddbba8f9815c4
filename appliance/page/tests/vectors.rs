//! `tests/vectors-printed/`: texts of codes that are a payload, and texts that must be refused, made here and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-page --test vectors` writes them. Every
//! expectation is the name of the file, before the two hyphens.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_page::codes::{PART_MAX, PAYLOAD_MAX, join, split};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-printed")
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * at / 7 % 256) as u8).collect()
}

/// The codes of a payload of this length.
fn page(length: usize) -> Vec<String> {
    split(&payload(length)).unwrap()
}

/// The codes of a page, changed.
fn with(length: usize, change: impl FnOnce(&mut Vec<String>)) -> Vec<String> {
    let mut codes = page(length);
    change(&mut codes);
    codes
}

/// One text of its own.
fn text(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

type Vectors = Vec<(&'static str, Vec<String>)>;

/// What holds, with the length of its payload.
fn valid() -> Vec<(&'static str, usize, Vec<String>)> {
    vec![
        ("valid--one-byte", 1, page(1)),
        ("valid--two-bytes", 2, page(2)),
        ("valid--one-code-full", PART_MAX, page(PART_MAX)),
        ("valid--two-codes-the-first-is-longer", PART_MAX + 1, page(PART_MAX + 1)),
        ("valid--all-a-page-holds", PAYLOAD_MAX, page(PAYLOAD_MAX)),
        ("valid--in-another-order", 2_500, with(2_500, |codes| codes.rotate_left(2))),
        ("valid--a-code-twice", 2_500, with(2_500, |codes| codes.push(codes[1].clone()))),
        ("valid--white-space-around-texts", 30, with(30, |codes| codes[0] = format!(" \t{}\r\n", codes[0]))),
    ]
}

fn refused() -> Vectors {
    let small = page(30).remove(0);
    let (number, of, hash, part) =
        ("BULLA1/".len(), "BULLA1/1/".len(), "BULLA1/1/1/".len(), "BULLA1/1/1/00000000/".len());
    let put = |at: usize, what: &str| {
        let mut text = small.clone();
        text.replace_range(at..at + what.len(), what);
        vec![text]
    };
    let body = |body: &str| vec![format!("{}{body}", &small[..part])];
    vec![
        ("nothing--no-text", Vec::new()),
        ("foreign--an-address", text("https://bank.example/")),
        ("foreign--blank", text("")),
        ("foreign--the-next-version", text(&small.replace("BULLA1", "BULLA2"))),
        ("foreign--small-letters", text(&small.replace("BULLA1", "bulla1"))),
        ("foreign--without-a-slash", text("BULLA1")),
        ("foreign--something-before", text(&format!("A{small}"))),
        ("malformed--only-the-beginning", text("BULLA1/")),
        ("malformed--without-a-part", text(&small[..part - 1])),
        ("malformed--an-empty-part", text(&small[..part])),
        ("malformed--number-0", put(number, "0")),
        ("malformed--number-above-count", put(number, "2")),
        ("malformed--number-with-a-zero", text(&small.replacen("/1/", "/01/", 1))),
        ("malformed--number-with-a-sign", text(&small.replacen("/1/", "/+1/", 1))),
        ("malformed--count-0", put(of, "0")),
        ("malformed--count-7", put(of, "7")),
        (
            "malformed--hash-in-small-letters",
            text(&small.replace(&small[hash..part], &small[hash..part].to_lowercase())),
        ),
        ("malformed--hash-too-short", text(&[&small[..hash], &small[hash + 1..]].concat())),
        ("malformed--hash-too-long", text(&[&small[..hash], "0", &small[hash..]].concat())),
        ("malformed--a-letter-left-over", text(&format!("{small}0"))),
        ("malformed--group-above-65535", body("GGW")),
        ("malformed--group-above-255", body("V5")),
        (
            "malformed--small-letters-in-the-part",
            text(&[&small[..part], &small[part..].to_lowercase()].concat()),
        ),
        ("malformed--a-letter-outside-the-alphabet", body("A_A")),
        (
            "malformed--part-of-1025-bytes",
            body(&"000".repeat(512).chars().chain("00".chars()).collect::<String>()),
        ),
        ("mixed--another-payload", with(2_500, |codes| codes[2] = page(2_600).remove(2))),
        ("mixed--another-count", with(2_500, |codes| codes[2] = codes[2].replacen("/3/3/", "/3/4/", 1))),
        ("mixed--another-hash", with(2_500, |codes| codes[0].replace_range(hash..part - 1, "00000000"))),
        (
            "differs--one-letter",
            with(2_500, |codes| codes.push(codes[0].replace(&codes[0][part..part + 3], "999"))),
        ),
        ("missing--the-first", with(2_500, |codes| drop(codes.remove(0)))),
        ("missing--the-last", with(2_500, |codes| drop(codes.pop()))),
        ("missing--all-but-one-of-six", with(PAYLOAD_MAX, |codes| codes.truncate(1))),
        ("missing--one-that-another-takes-the-place-of", with(2_500, |codes| codes[2] = codes[1].clone())),
        ("hash--one-letter", put(part, "9")),
        ("hash--a-space-lost", text(&format!("{}{}", &small[..part], small[part + 3..].trim()))),
        (
            "hash--two-codes-have-changed-places",
            with(2_048, |codes| {
                let numbers = [codes[0].clone(), codes[1].clone()];
                codes[0].replace_range(part.., &numbers[1][part..]);
                codes[1].replace_range(part.., &numbers[0][part..]);
            }),
        ),
        ("distribution--two-codes-where-one-is-enough", {
            let codes =
                |number: usize, range: &str| format!("BULLA1/{number}/2/{}/{range}", &small[hash..part - 1]);
            let middle = part + (small.len() - part) / 6 * 3;
            vec![codes(1, &small[part..middle]), codes(2, &small[middle..])]
        }),
        (
            "distribution--the-second-is-longer",
            with(PART_MAX + 2, |codes| {
                // 512 and 514 bytes, where 513 and 513 are right.
                let bytes = payload(PART_MAX + 2);
                for (code, bytes) in codes.iter_mut().zip([&bytes[..512], &bytes[512..]]) {
                    code.replace_range(part.., &split(bytes).unwrap()[0][part..]);
                }
            }),
        ),
    ]
}

fn all() -> BTreeMap<String, Value> {
    let valid = valid().into_iter().map(|(name, length, codes)| {
        (name.to_owned(), json!({"codes": codes, "expect": "valid", "payload": hex::encode(payload(length))}))
    });
    let refused = refused().into_iter().map(|(name, codes)| {
        let expect = name.split_once("--").unwrap().0;
        (name.to_owned(), json!({"codes": codes, "expect": expect}))
    });
    valid.chain(refused).collect()
}

#[test]
fn the_vectors_are_those_made_here() {
    let (made, directory) = (all(), directory());
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(&directory).unwrap();
        for (name, vector) in &made {
            let text = serde_json::to_string_pretty(vector).unwrap() + "\n";
            fs::write(directory.join(format!("{name}.json")), text).unwrap();
        }
    }
    let found: BTreeMap<String, Value> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap())
        })
        .collect();
    let names = |vectors: &BTreeMap<String, Value>| vectors.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&found), names(&made));
    assert!(found == made, "a vector has other texts");
}

#[test]
fn every_vector_is_judged_as_it_says() {
    let (mut held, mut refusals) = (0, BTreeSet::new());
    for (name, vector) in all() {
        let codes: Vec<String> = serde_json::from_value(vector["codes"].clone()).unwrap();
        match join(&codes) {
            Ok(payload) => {
                held += 1;
                assert_eq!(vector["expect"], "valid", "{name}");
                assert_eq!(vector["payload"], hex::encode(payload), "{name}");
            }
            Err(error) => {
                assert_eq!(vector["expect"], error.code(), "{name}: {error}");
                refusals.insert(error.code());
            }
        }
    }
    assert_eq!((held, refusals.len()), (valid().len(), 8), "every refusal has a vector");
}

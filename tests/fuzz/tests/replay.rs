//! Every target over its seeds and over every input that once found a bug, without libFuzzer; and that none is missing.
//!
//! Invariant: whatever `cargo xtask fuzz` finds can be held here for ever, in a test anybody runs.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::checked_json::with_checksum;
use bulla_fuzz::corpus::regressions;
use bulla_fuzz::targets::{self, ALL};
use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn seeds_and_old_finds_hold() {
    let mut failed = Vec::new();
    for target in &ALL {
        let seeds = (target.seeds)();
        assert!(seeds.len() >= 3, "{} has hardly a seed", target.name);
        let seeds = seeds.into_iter().enumerate().map(|(at, seed)| (format!("seed {at}"), seed));
        for (name, input) in seeds.chain(regressions(target.name).unwrap()) {
            if catch_unwind(|| (target.run)(&input)).is_err() {
                failed.push(format!("{}: {name}", target.name));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} inputs fail, each with its panic above:\n{}",
        failed.len(),
        failed.join("\n")
    );
}

/// Seeds that were written by hand are genuine as long as a program takes them.
#[test]
fn hand_written_seeds_are_taken() {
    use bulla_box::fuzzing as of_box;
    use bulla_keys::fuzzing as of_keys;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let checked = |bytes: &[u8]| with_checksum(&text(bytes)).into_bytes();
    let mut taken = 0;
    for seed in targets::state::seeds() {
        let (choice, seed) = seed.split_first().unwrap();
        taken += 1;
        let ok = match choice {
            0 => of_box::client_list(seed).is_some(),
            1 => of_box::client_list(&checked(seed)).is_some(),
            2 => of_box::identity_file(seed).is_some(),
            3 => of_box::identity_file(&checked(seed)).is_some(),
            // A certificate that signs itself takes a key.
            4 => of_box::ca_certificate(seed).is_err(),
            5 => of_box::lock(seed).as_deref() == Some(seed),
            6 => of_box::erasure(seed).is_some(),
            7 => of_box::kept_order(seed).is_ok(),
            8 => of_box::queue_id(&text(seed)).is_some(),
            9 => of_box::openings(seed).is_some(),
            11 => of_box::people_list(seed).is_some(),
            12 => of_box::people_list(&checked(seed)).is_some(),
            13 => of_box::alerts_file(seed).is_some(),
            14 => of_box::alerts_file(&checked(seed)).is_some(),
            15 => of_box::retirement(seed).is_some(),
            16 => of_box::retirement(&checked(seed)).is_some(),
            17 => of_box::staged_file(seed).is_some(),
            18 => of_box::staged_file(&checked(seed)).is_some(),
            19 => of_box::configuration_file(seed).is_some(),
            20 => of_box::configuration_file(&checked(seed)).is_some(),
            _ => of_box::common_name(seed).is_some(),
        };
        assert!(ok, "state, {choice}");
    }
    for seed in targets::keys::seeds() {
        let (choice, seed) = seed.split_first().unwrap();
        taken += 1;
        let ok = match choice {
            0 => of_keys::key_file(seed).is_some(),
            1 => of_keys::key_file(&checked(seed)).is_some(),
            2 => of_keys::address(&text(seed)).is_some(),
            3 => of_keys::certificate(seed).is_some_and(|(_, key)| key.is_some()),
            4 => of_keys::response(seed[0] == 1, &seed[1..]).is_some_and(|(_, parts)| !parts.is_empty()),
            5 => of_keys::request(seed).is_some(),
            _ => of_keys::unseal(&[], seed).is_none(),
        };
        assert!(ok, "keys, {choice}");
    }
    for seed in targets::configuration::seeds() {
        taken += 1;
        assert_eq!(of_box::configuration(&text(&seed)), Ok(()));
    }
    assert!(taken > 25, "{taken}");
}

#[test]
fn a_box_answers_its_seeds_in_many_ways() {
    let status = |seed: &Vec<u8>| {
        let answer = targets::http::answered(seed);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let code = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).map(str::to_owned);
        code.unwrap_or_else(|| panic!("{:?} is answered with {text:?}", String::from_utf8_lossy(seed)))
    };
    let codes: Vec<String> = targets::http::seeds().iter().map(status).collect();
    for code in ["200", "201", "400", "401", "404", "422"] {
        assert!(codes.iter().any(|found| found == code), "no {code} in {codes:?}");
    }
    assert!(
        codes.iter().filter(|code| *code == "200" || *code == "201").count() > codes.len() / 2,
        "{codes:?}"
    );
}

/// What a byte less, a bit more and an empty input do: the cheapest of what a fuzzer tries.
#[test]
fn damaged_seeds_hold() {
    for target in ALL.iter().filter(|target| target.name != "http") {
        (target.run)(&[]);
        for seed in (target.seeds)().iter().step_by(7) {
            (target.run)(&seed[..seed.len() - 1]);
            for at in (0..seed.len()).step_by(seed.len() / 5 + 1) {
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                (target.run)(&changed);
            }
        }
    }
}

fn names(directory: &str, suffix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(package().join(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect()
}

#[test]
fn every_target_is_in_the_list() {
    let targets: BTreeSet<String> = ALL.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(targets.len(), ALL.len());
    let mut files = names("src/targets", ".rs");
    assert!(files.remove("mod"));
    assert_eq!(files, targets, "a file without its target, or the other way round");
    assert!(names("regressions", "").is_subset(&targets), "regressions of no target");
}

/// Sources below a directory.
fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Public readers of a source: `decode` and `parse` by their type, `parse_x` and `decode_x` by their own name.
fn readers(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut of = String::new();
    for line in source.split("#[cfg(test)]").next().unwrap().lines() {
        if let Some(rest) = line.strip_prefix("impl ") {
            of = rest.split([' ', '<', '{']).next().unwrap().to_owned();
        }
        let Some(name) =
            line.trim_start().strip_prefix("pub fn ").and_then(|rest| rest.split(['(', '<']).next())
        else {
            continue;
        };
        let method = line.starts_with("    ");
        match name {
            "decode" | "parse" if method => found.push(format!("{of}::{name}(")),
            "decode" | "parse" => found.push(format!("{name}(")),
            _ if name.starts_with("parse_") || name.ends_with("_decode") => found.push(format!("{name}(")),
            _ => {}
        }
    }
    found
}

#[test]
fn every_reader_of_the_formats_is_in_a_target() {
    let mut paths = Vec::new();
    sources(&package().join("../../appliance/formats/src"), &mut paths);
    let readers: BTreeSet<String> =
        paths.iter().flat_map(|path| readers(&fs::read_to_string(path).unwrap())).collect();
    assert!(readers.len() >= 20, "{readers:?}");
    let mut paths = Vec::new();
    sources(&package().join("src"), &mut paths);
    let targets: String = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    // What is read inside a structure that is: `der::decode` by every `decode`.
    let missing: Vec<_> = readers.iter().filter(|reader| !targets.contains(reader.as_str())).collect();
    assert!(missing.is_empty(), "no fuzz target calls {missing:?}");
}

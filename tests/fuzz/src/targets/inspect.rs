//! What `bulla` reads of strangers' files and answers: `inspect`, `--extract`, problems, times, CA and token files.
//!
//! Holds: no file and no answer can put a control character on a terminal, and a found seal takes one line; parts go
//! into plain files, each of its own name; a time that is read lies in a year that is written with four digits.

use super::{seed, split};
use crate::genuine::{SEALS, VECTORS, entries};
use bulla::fuzzing::{answered, authorities, extracted, problem, shown, time, token};
use std::collections::BTreeSet;

const CHOICES: u8 = 6;

/// Whether a text would do more to a terminal than stand on its lines.
fn steers(text: &str) -> bool {
    let turns = |c| ('\u{202a}'..='\u{202e}').contains(&c) || ('\u{2066}'..='\u{2069}').contains(&c);
    text.contains(|c: char| c.is_control() && c != '\n' || turns(c))
}

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => {
            let Ok((text, json)) = shown(data) else { return };
            assert!(!steers(&text), "{text:?}");
            assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok_and(|value| value.is_object()));
            let Some(parts) = extracted(data) else { return };
            let names: BTreeSet<&str> = parts.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names.len(), parts.len(), "two parts of one name");
            let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-');
            assert!(names.iter().all(|name| !name.starts_with('.') && name.bytes().all(plain)), "{names:?}");
        }
        1 => {
            let (slug, _) = problem(data);
            assert!(!slug.contains(':'));
        }
        2 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Some(millis) = time(text) else { return };
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            assert!(
                digits || bulla_formats::report::utc(millis).starts_with(&text[..10]),
                "{text} is {millis}"
            );
        }
        3 => {
            let Some((tree, line)) = answered(data) else { return };
            assert!(!steers(&tree) && !steers(&line), "{tree:?}, {line:?}");
            assert_eq!(line.find('\n'), Some(line.len() - 1), "{line:?}");
        }
        4 => {
            let Some(count) = authorities(data) else { return };
            let begun = data.windows(10).filter(|window| *window == b"-----BEGIN").count();
            assert!((1..=begun).contains(&count), "{count} certificates in {begun} PEM blocks");
        }
        _ => {
            let Some(token) = token(data) else { return };
            // It goes into a header field as it is.
            assert!(!token.is_empty() && token.bytes().all(|byte| (b'!'..=b'~').contains(&byte)));
        }
    }
}

/// Seals, entries and trust files of the vectors, a problem, times, an answer, a CA file, a token.
pub fn seeds() -> Vec<Vec<u8>> {
    let seals = VECTORS.iter().filter(|vector| SEALS.iter().any(|(name, _)| *name == vector.name)).step_by(3);
    let mut seeds: Vec<_> = seals.map(|vector| seed(0, &vector.seal)).collect();
    seeds.push(seed(0, &VECTORS.first().expect("there are vectors").trust));
    seeds.extend(entries().iter().step_by(8).map(|entry| seed(0, entry.bytes())));
    let body =
        "{\"type\":\"urn:bulla:problem:digest-mismatch\",\"title\":\"t\",\"status\":400,\"detail\":\"why\"}";
    seeds.push(seed(1, body));
    seeds.extend(["2000-02-29", "2026-11-21T23:59:59Z", "1795219200123"].map(|text| seed(2, text)));
    let found = "{\"id\":\"7-00ff\",\"sealedAtMillis\":1795219200123,\"client\":\"desk-1\",\"openings\":[{\"name\":\"user\",\
         \"value\":\"J\\u009b\"}],\"relatedBy\":[{\"kind\":\"annuls\",\"id\":\"8-00ff\"}],\"note\":\"a\\n\\u202eb\"}";
    let certificate = "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n";
    seeds.extend([(3, found), (4, certificate), (5, "bulla_abc\n")].map(|(choice, text)| seed(choice, text)));
    seeds
}

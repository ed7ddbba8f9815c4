//! `alerts.json` in the state directory: what is firing, and what receivers are owed.
//!
//! One JSON object behind a checksum over all of its bytes (docs/formats.md, "Alerts"). It can be lost: what goes on is then
//! told again, and an end that is owed stays untold.
//! Refuses to do: read what it does not understand: another version, unknown members, another spelling than its own, more
//! than there can be, two of one name, texts that are too long, a notification of nothing.
//! Invariant: what is read is written again as the same bytes.

use super::plan::{ALERTS_MAX, Alert, ITEMS_MAX, Item, Kept, Key, Line, TEXT_MAX};
use bulla_formats::checked_json;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

const FILE: &str = "alerts.json";
const FORMAT: &str = "alerts/v1";
/// Longest file, bytes: far more than a branch's receivers are ever owed.
const BYTES_MAX: usize = 32 << 20;
/// Most receivers.
pub const RECEIVERS_MAX: usize = 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    bulla: String,
    alerts: Vec<Alert>,
    receivers: Vec<Line>,
}

/// Where it is.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

/// What was kept; nothing when there is no file. `Err` says what is wrong with the one there is.
pub fn load(state_dir: &Path) -> Result<Kept, String> {
    let file = match fs::File::open(path(state_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    parse(&bytes)
}

/// The bytes of the file.
pub fn text(kept: &Kept) -> String {
    let file =
        File { bulla: FORMAT.to_owned(), alerts: kept.alerts.clone(), receivers: kept.receivers.clone() };
    checked_json::with_checksum(&serde_json::to_string_pretty(&file).unwrap_or_default())
}

/// What is in the bytes of the file; else what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Kept, String> {
    if bytes.len() > BYTES_MAX {
        return Err("it is longer than it can be".to_owned());
    }
    let body = checked_json::body(bytes).map_err(|error| error.to_string())?;
    let file: File = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    if file.bulla != FORMAT {
        return Err(format!("it is of format {:?}", file.bulla));
    }
    let kept = Kept { alerts: file.alerts, receivers: file.receivers };
    check(&kept).map_err(str::to_owned)?;
    // Members in another order, twice, or as a list: a second spelling of one file.
    if text(&kept).as_bytes() != bytes {
        return Err("it is not spelt as this program spells it".to_owned());
    }
    Ok(kept)
}

fn check(kept: &Kept) -> Result<(), &'static str> {
    let names: BTreeSet<&str> = kept.receivers.iter().map(|line| line.name.as_str()).collect();
    if names.len() != kept.receivers.len() || names.len() > RECEIVERS_MAX {
        return Err("it has two receivers of one name, or too many");
    }
    if !are_few_and_differ(kept.alerts.iter().map(|alert| &alert.key)) {
        return Err("it has an alert twice, or too many");
    }
    for alert in &kept.alerts {
        if !fits(&alert.key) || alert.detail.len() > TEXT_MAX {
            return Err("a text in it is too long");
        }
        if alert.calm_at.is_some() != alert.calm.is_some() || (alert.calm_at.is_some() && !alert.firing) {
            return Err("an alert in it is calm in part");
        }
    }
    for line in &kept.receivers {
        if !fits_name(&line.name) || !line.told.iter().all(|(key, _)| fits(key)) {
            return Err("a text in it is too long");
        }
        if !are_few_and_differ(line.told.iter().map(|(key, _)| key)) {
            return Err("a receiver was told of an alert twice, or of too many");
        }
        if let Some(sending) = &line.sending {
            let id = !sending.id.is_empty() && sending.id.len() <= 64;
            let graphic = sending.id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            if !id || !graphic || !(1..=ITEMS_MAX).contains(&sending.items.len()) {
                return Err("a notification in it has no id, or holds nothing, or too much");
            }
            if !sending.items.iter().all(is_item) {
                return Err("an item in it is none");
            }
        }
        for ended in [false, true] {
            let owed = line.owed.iter().filter(|item| item.ended.is_some() == ended);
            if !are_few_and_differ(owed.map(|item| &item.key)) {
                return Err("a receiver is owed an alert twice, or too many");
            }
        }
        if !line.owed.iter().all(is_item) {
            return Err("an item in it is none");
        }
    }
    Ok(())
}

/// An end is owed of alerts that are over, so of more than there are at one time.
fn are_few_and_differ<'a>(keys: impl Iterator<Item = &'a Key>) -> bool {
    let all: Vec<&Key> = keys.collect();
    let differ: BTreeSet<&Key> = all.iter().copied().collect();
    differ.len() == all.len() && all.len() <= 64 * ALERTS_MAX
}

fn is_item(item: &Item) -> bool {
    fits(&item.key) && item.detail.len() <= TEXT_MAX && item.times > 0
}

fn fits(key: &Key) -> bool {
    fits_name(&key.name) && key.subject.len() <= TEXT_MAX
}

fn fits_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::plan::{Notification, Said};

    fn example() -> Kept {
        let key = |name: &str| Key { name: name.to_owned(), subject: "bank.example/aa/1".to_owned() };
        let said = Said { millis: 1_000, uncertainty_millis: Some(20) };
        let alert = Alert {
            key: key("BullaFork"),
            page: true,
            detail: String::new(),
            began_at: 5,
            began: said,
            firing: true,
            calm_at: Some(9),
            calm: Some(said),
        };
        let item = |ended| Item {
            key: key("BullaRot"),
            page: true,
            detail: "2 findings".to_owned(),
            began_at: 5,
            began: said,
            ended,
            again: false,
            times: 1,
            owed_at: 7,
        };
        let sending = Some(Notification { id: "abc-1".to_owned(), items: vec![item(None)] });
        let told = vec![(key("BullaFork"), 6)];
        let line = Line { name: "pager".to_owned(), owed: vec![item(Some(said)), item(None)], sending, told };
        Kept { alerts: vec![alert], receivers: vec![line] }
    }

    #[test]
    fn what_is_kept_comes_back() {
        for kept in [Kept::default(), example()] {
            let text = text(&kept);
            assert_eq!(parse(text.as_bytes()), Ok(kept));
        }
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(load(directory.path()), Ok(Kept::default()));
        fs::write(path(directory.path()), text(&example())).unwrap();
        assert_eq!(load(directory.path()), Ok(example()));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = text(&example());
        let body = String::from_utf8(checked_json::body(good.as_bytes()).unwrap()).unwrap();
        let refused = |from: &str, to: &str| {
            let changed = body.replacen(from, to, 1);
            assert_ne!(changed, body, "{from}");
            parse(checked_json::with_checksum(&changed).as_bytes()).unwrap_err()
        };
        for (from, to) in [
            ("alerts/v1", "alerts/v2"),
            ("\"firing\": true", "\"firing\": 1"),
            ("\"firing\": true", "\"firing\": false"),
            ("\"calmAt\": 9", "\"calmAt\": null"),
            ("\"times\": 1", "\"times\": 0"),
            ("\"times\": 1", "\"times\": 1, \"more\": 1"),
            ("\"page\": true", "\"page\": true, \"page\": true"),
            ("\"id\": \"abc-1\"", "\"id\": \"\""),
            ("\"id\": \"abc-1\"", "\"id\": \"a\\nb\""),
            ("\"name\": \"pager\"", "\"name\": \"\""),
            ("\"name\": \"BullaFork\"", "\"name\": \"BullaFork \", \"subject\": \"\""),
            ("\"bulla\"", "\"Bulla\""),
            ("\"began\": {\n        \"millis\": 1000,", "\"began\": {\"millis\": 1000,"),
        ] {
            refused(from, to);
        }
        let mut twice = example();
        twice.alerts.push(twice.alerts[0].clone());
        assert!(parse(text(&twice).as_bytes()).is_err());
        let mut twice = example();
        twice.receivers.push(twice.receivers[0].clone());
        assert!(parse(text(&twice).as_bytes()).is_err());
        let mut twice = example();
        let item = twice.receivers[0].owed[0].clone();
        twice.receivers[0].owed.push(item);
        assert!(parse(text(&twice).as_bytes()).is_err());
        let mut empty = example();
        empty.receivers[0].sending.as_mut().unwrap().items.clear();
        assert!(parse(text(&empty).as_bytes()).is_err());
        let mut long = example();
        long.alerts[0].detail = "x".repeat(TEXT_MAX + 1);
        assert!(parse(text(&long).as_bytes()).is_err());
        assert!(parse(&good.as_bytes()[..good.len() - 1]).is_err());
        assert!(parse(b"").is_err());
        assert!(parse(&vec![b' '; BYTES_MAX + 1]).is_err());
    }
}

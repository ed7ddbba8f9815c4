//! What the console of an image reads: network settings of a stick and of the box, the record of changes, a box's status.
//!
//! Holds: what is taken is written again as the same bytes, or, of what people write, as what is taken for the same; what it
//! would do to the network names no interface, and has no line, of anybody else's.

use super::{seed, split};
use bulla_formats::box_status::{BoxStatus, LINE_BYTES_MAX};
use bulla_formats::checked_json::with_checksum;
use bulla_formats::network::{Host, Settings, Words, is_vlan_name};
use bulla_formats::network_record::Changes;
use serde_json::Value;

const CHOICES: u8 = 7;

/// The first byte chooses: settings as people write them, as a box keeps them, their object without its checksum, a record of
/// changes, its object without its checksum, a status, the fields of the form.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    let checked = || std::str::from_utf8(data).map(with_checksum).unwrap_or_default();
    match choice {
        0 => {
            if let Ok(settings) = Settings::parse_written(data) {
                hold(&settings);
            }
        }
        1 => kept(data),
        2 => kept(checked().as_bytes()),
        3 => changes(data),
        4 => changes(checked().as_bytes()),
        5 => {
            let Some(status) = BoxStatus::parse(data) else { return };
            assert_eq!(status.encode().as_bytes(), data);
            let text = String::from_utf8_lossy(data);
            assert!(!text.trim_end_matches('\n').contains(char::is_control));
            if let Some(running) = status.running {
                assert!(running.attention.iter().all(|line| line.len() <= LINE_BYTES_MAX));
            }
        }
        _ => form(data),
    }
}

fn hold(settings: &Settings) {
    assert_eq!(settings.check(), Ok(()));
    assert_eq!(Settings::parse(settings.encode().as_bytes()).as_ref(), Ok(settings));
    assert_eq!(Settings::parse_written(settings.to_string().as_bytes()).as_ref(), Ok(settings));
    assert_eq!(Settings::from_words(&settings.words()).as_ref(), Ok(settings));
    let name = settings.interface.as_deref().unwrap_or("port");
    assert!(name != "lo" && !is_vlan_name(name) && !name.contains(['/', '*', ' ', '\n', '=']));
    let plain = |host: &Host| !host.as_str().contains(|letter: char| letter.is_whitespace() || letter == '=');
    assert!(settings.ntp.iter().all(plain));
    assert!(!settings.to_string().contains('\n') && settings.to_string().len() <= 1_024);
}

fn kept(data: &[u8]) {
    if let Ok(settings) = Settings::parse(data) {
        assert_eq!(settings.encode().as_bytes(), data);
        hold(&settings);
    }
}

fn changes(data: &[u8]) {
    let Some(changes) = Changes::parse(data) else { return };
    assert_eq!(changes.encode().as_bytes(), data);
    for change in changes.all() {
        let (kind, body) = change.entry();
        let taken = match kind {
            bulla_formats::entry::Kind::Incident => {
                bulla_formats::body::incident::IncidentBody::decode(&body).is_ok()
            }
            _ => bulla_formats::body::operator_action::OperatorActionBody::decode(&body).is_ok(),
        };
        assert!(taken, "an entry that nobody reads");
    }
}

fn form(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut fields = text.split('\n').map(str::to_owned);
    let mut next = || fields.next().unwrap_or_default();
    let words = Words {
        interface: next(),
        vlan: next(),
        ipv4: next(),
        ipv4_gateway: next(),
        ipv6: next(),
        ipv6_gateway: next(),
        dns: next(),
        ntp: next(),
    };
    match Settings::from_words(&words) {
        Ok(settings) => hold(&settings),
        Err(fault) => assert!(!fault.sentence.is_empty()),
    }
}

/// The files of the vectors, whole and without their checksums, and what is typed.
pub fn seeds() -> Vec<Vec<u8>> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors-network");
    let mut seeds = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(directory).expect("the vectors are there").flatten().collect();
    files.sort_by_key(std::fs::DirEntry::file_name);
    for file in files {
        let name = file.file_name().to_string_lossy().into_owned();
        let text = std::fs::read(file.path()).expect("a vector is readable");
        let vector: Value = serde_json::from_slice(&text).expect("a vector is JSON");
        let text = vector["file"].as_str().unwrap_or_default();
        let bare =
            || text.split(",\n  \"sha256\"").next().map(|head| format!("{head}\n}}")).unwrap_or_default();
        match name.split("--").next().unwrap_or_default() {
            "written" => seeds.push(seed(0, text.as_bytes())),
            "kept" => seeds.extend([seed(1, text.as_bytes()), seed(2, bare().as_bytes())]),
            "changes" => seeds.extend([seed(3, text.as_bytes()), seed(4, bare().as_bytes())]),
            _ => seeds.push(seed(5, text.as_bytes())),
        }
    }
    seeds.push(seed(
        6,
        b"enp1s0\n20\n10.20.30.40/24\n10.20.30.1\n2001:db8::2/64\nfe80::1\n10.20.30.53\nntp.example",
    ));
    seeds.push(seed(6, b"\n\ndhcp\n\nautomatic\n\n\n"));
    seeds
}

//! Files and values of a box's state directory: clients, alerts, identity, CA certificate, lock, erasure, orders, openings.
//!
//! Holds: what is read and written again is read as the same; a lock that cannot be read is still one; nothing is
//! recorded of an erasure that was not carried out.

use super::{seed, split};
use crate::genuine::{SEALS, SIGNED};
use bulla_box::fuzzing::{
    alerts_file, ca_certificate, client_list, common_name, configuration_file, erasure, identity_file,
    kept_order, lock, openings, people_list, queue_id, retirement, staged_file,
};
use bulla_enrolment::wire::{Issued, Request};
use bulla_formats::checked_json::with_checksum;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Enrolment;
use bulla_formats::entry::Entry;
use bulla_formats::json::{base64_decode, base64_encode};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const CHOICES: u8 = 21;

const RETIREMENT: &str = r#"{
  "bulla": "retirement/v1",
  "origin": "bank.example/abababababababababababababababababababab/1",
  "everything": true,
  "withoutAnchors": false,
  "withoutCopies": true,
  "reason": "end of life"
}"#;

const CONFIGURATION: &str = r#"{
  "bulla": "box-configuration/v1",
  "inForce": {
    "roster": 3,
    "text": null
  },
  "trial": {
    "named": {
      "roster": 4,
      "text": "state_dir = \"/s\"\n"
    },
    "starts": 1
  },
  "refused": {
    "roster": 2,
    "file": null,
    "why": "2 starts with it did not come to their end",
    "atMillis": 1790000000000
  }
}"#;

fn again(read: fn(&[u8]) -> Option<Vec<u8>>, bytes: &[u8]) {
    if let Some(written) = read(bytes) {
        assert_eq!(read(&written).as_ref(), Some(&written), "something else than what was written");
    }
}

/// The file that an object becomes behind a checksum that holds.
fn checked(data: &[u8]) -> Vec<u8> {
    std::str::from_utf8(data).map(with_checksum).unwrap_or_default().into_bytes()
}

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => again(client_list, data),
        1 => again(client_list, &checked(data)),
        2 => again(identity_file, data),
        3 => again(identity_file, &checked(data)),
        11 => again(people_list, data),
        12 => again(people_list, &checked(data)),
        13 => again(alerts_file, data),
        14 => again(alerts_file, &checked(data)),
        15 => again(retirement, data),
        16 => again(retirement, &checked(data)),
        17 => again(staged_file, data),
        18 => again(staged_file, &checked(data)),
        19 => again(configuration_file, data),
        20 => again(configuration_file, &checked(data)),
        4 => drop(ca_certificate(data).map(|()| assert!(data.is_ascii()))),
        5 => {
            let found = lock(data);
            assert_eq!(found.is_none(), data.is_empty(), "damage takes a lock for none");
            if let Some(written) = found {
                assert_eq!(lock(&written).as_ref(), Some(&written));
            }
        }
        6 => {
            let Some((written, entries)) = erasure(data) else { return };
            assert_eq!((written.as_slice(), entries), (data, 0));
        }
        7 => drop(kept_order(data).map(|written| assert_eq!(written, data))),
        8 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            assert!(queue_id(text).is_none_or(|written| written == text), "an id has one spelling");
        }
        9 => {
            let Some(parts) = openings(data) else { return };
            let bytes: usize = parts.iter().map(|part| part.len() + 2).sum();
            assert_eq!(bytes, data.len(), "bytes of openings are left over");
        }
        _ => drop(common_name(data).map(|name| assert!(name.len() < data.len()))),
    }
}

fn clients() -> Value {
    let sha256 = "ab".repeat(32);
    json!({"bulla": "clients/v2", "clients": [
        {"name": "desk-1", "role": "scanner", "method": {"kind": "token", "sha256": sha256}, "createdMillis": 1,
            "limits": {"requestsPerSecond": 5, "documentBytesMax": 1000}},
        {"name": "ops", "role": "operator", "method": {"kind": "certificate", "commonName": "ops.bank.example"},
            "createdMillis": 2, "revokedMillis": 3}]})
}

fn people() -> Value {
    json!({"bulla": "people/v1", "people": [
        {"number": 1, "name": "o.frei", "duty": "ops", "credential": {"kind": "password", "phc": "$argon2id$v=19$m=19456,t=2,p=1$AA$AA"},
            "createdMillis": 1},
        {"number": 2, "name": "m.keller", "duty": "clerk", "credential": {"kind": "code", "sha256": "ab".repeat(32), "expiresMillis": 5},
            "createdMillis": 2, "removedMillis": 3}]})
}

fn alerts() -> String {
    let key = || json!({"name": "BullaFork", "subject": "bank.example/ab/1"});
    let said = || json!({"millis": 5, "uncertaintyMillis": 2});
    let item = |ended: Value| {
        json!({"key": key(), "page": true, "detail": "", "beganAt": 5, "began": said(), "ended": ended, "again": false, "times": 1,
            "owedAt": 6})
    };
    let file = json!({"bulla": "alerts/v1",
        "alerts": [{"key": key(), "page": true, "detail": "", "beganAt": 5, "began": said(), "firing": true, "calmAt": null,
            "calm": null}],
        "receivers": [{"name": "pager", "owed": [item(said())], "sending": {"id": "ab-1", "items": [item(Value::Null)]},
            "told": [[key(), 6]]}]});
    serde_json::to_string_pretty(&file).unwrap_or_default()
}

fn identity() -> Value {
    let (_, seal) = SEALS.first().expect("there are seals");
    json!({"version": 2, "origin": seal.origin, "enrolment": base64_encode(&seal.enrolment),
        "fleetRoot": base64_encode(&[7; 32]), "sealedFleetRoot": base64_encode(&[8; 60]),
        "sealedLogKey": base64_encode(&[9; 60]),
        "predecessors": [{"origin": seal.origin, "logDirectory": "log-1"}]})
}

/// A log staged for the box of a vector, by a fleet of one key.
fn staged() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors-enrolment/valid-staged.json");
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let vector: Value = serde_json::from_slice(&text).expect("a vector is JSON");
    let asked =
        vector["request"].as_str().and_then(|text| base64_decode(text).ok()).expect("it has a request");
    let request = Request::decode(&asked).expect("it is valid");
    let key = SigningKey::from_bytes(&[7; 32]);
    let content = request.content(1_790_000_000_000).expect("its endorsement key is one");
    let signature = key.sign(&content.message()).to_bytes().to_vec().into();
    let enrolment = Enrolment { content, chain: Vec::new(), signature };
    let issued = Issued {
        version: 1,
        transcript: Octets32::new(request.transcript().0),
        root: Octets32::new(key.verifying_key().to_bytes()),
        enrolment: der::encode(&enrolment).into(),
        authority: Vec::new().into(),
        tls_certificate: Vec::new().into(),
        issuing_certificate: Vec::new().into(),
    };
    json!({"version": 1, "inUse": request.in_use, "registrar": "https://registrar.bank.example:8444", "pin": "4e".repeat(32),
        "request": base64_encode(&asked), "issued": base64_encode(&der::encode(&issued)), "keys": base64_encode(b"{}"),
        "sealedLogKey": base64_encode(&[9; 60]), "counter": 5, "boot": {"0": "00".repeat(32), "7": "11".repeat(32)},
        "operators": [{"name": "ops", "sha256": "ab".repeat(32)}]})
}

/// One of each; the certificate is cut short, because a whole one is made by a box.
pub fn seeds() -> Vec<Vec<u8>> {
    let sized = |part: &[u8]| [&u16::try_from(part.len()).unwrap_or(0).to_be_bytes(), part].concat();
    let packed: Vec<u8> = SIGNED.openings.iter().take(3).flat_map(|opening| sized(opening)).collect();
    let lock = [&[1], &7u64.to_be_bytes()[..], &[0, 5], b"ops-1stock-taking"].concat();
    let erasure =
        [&[1], &9u64.to_be_bytes()[..], &[0, 0, 0, 3], b"why", &3u64.to_be_bytes(), &[4; 32]].concat();
    let mut seeds = vec![
        seed(0, with_checksum(&clients().to_string())),
        seed(1, clients().to_string()),
        seed(2, with_checksum(&identity().to_string())),
        seed(3, identity().to_string()),
        seed(11, with_checksum(&people().to_string())),
        seed(12, people().to_string()),
        seed(13, with_checksum(&alerts())),
        seed(14, alerts()),
        seed(20, CONFIGURATION),
        seed(19, with_checksum(CONFIGURATION)),
        seed(16, RETIREMENT),
        seed(15, with_checksum(RETIREMENT)),
        seed(17, with_checksum(&staged().to_string())),
        seed(18, staged().to_string()),
        seed(4, "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n"),
        seed(5, lock),
        seed(6, erasure),
        seed(8, "17-00112233445566ff"),
        seed(9, &packed),
    ];
    for (_, seal) in SEALS.iter().take(6) {
        let entry = Entry::decode(&seal.entry).expect("it was verified");
        let body = &entry.content().body;
        let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
        seeds.push(seed(7, [&length[..], body, &packed].concat()));
    }
    // A certificate down to a subject with one name: version, serial, algorithm, issuer, validity, subject.
    let name = [&[0x30, 13, 0x31, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x0c, 2][..], b"ab"].concat();
    let tbs = [&[0xa0, 3, 2, 1, 2, 2, 1, 1], &[0x30, 0].repeat(3)[..], &name].concat();
    seeds.push(seed(10, [&[0x30, tbs.len() as u8 + 2, 0x30, tbs.len() as u8], &tbs[..]].concat()));
    seeds
}

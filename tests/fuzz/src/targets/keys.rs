//! The key file, addresses of TPMs, what a TPM sends (certificates in NV, responses), and what a signer is asked.
//!
//! Holds: a key file written again is read as the same; what a key sealed, opens, and nothing else does; an address
//! that is taken is one for the TSS library too; parts of a response are parts of it.

use super::{seed, split};
use crate::genuine::SEALS;
use bulla_formats::checked_json::with_checksum;
use bulla_formats::enrolment::Enrolment;
use bulla_keys::fuzzing::{address, certificate, key_file, request, response, unseal};
use serde_json::{Value, json};

const CHOICES: u8 = 7;

fn software() -> String {
    let key = |byte: &str| byte.repeat(32);
    let keys = json!({"provider": "software", "attestation": key("01"), "tls": key("02"), "issuing": key("03"),
        "sealing": key("04"), "seal": key("05")});
    with_checksum(&json!({"version": 2, "keys": keys}).to_string())
}

fn tpm() -> Value {
    let keys = SEALS.iter().filter_map(|(_, seal)| Enrolment::decode(&seal.enrolment).ok());
    let longest = keys.map(|enrolment| enrolment.content.attestation_key.to_vec()).max_by_key(Vec::len);
    let public = hex::encode(longest.expect("a vector has a TPM"));
    let wrapped = json!({"public": public, "private": "00ff", "attest": "ff54", "signature": "0018"});
    json!({"version": 2, "keys": {"provider": "tpm", "ek_public": public, "ek_certificates": ["3003020105"],
        "attestation_public": public, "storage_public": public, "counter_public": "01800001",
        "tls": wrapped, "issuing": wrapped, "sealing": wrapped}})
}

fn tpm_keys() -> Value {
    let mut keys = tpm()["keys"].take();
    keys.as_object_mut().expect("an object").remove("provider");
    keys
}

fn frame_of(request: &Value) -> Vec<u8> {
    let text = request.to_string();
    [&[1][..], &(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

fn file(bytes: &[u8]) {
    let Some(again) = key_file(bytes) else { return };
    assert_eq!(key_file(&again).as_ref(), Some(&again), "other keys than those that were written");
}

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => file(data),
        // The same behind a checksum that holds.
        1 => drop(std::str::from_utf8(data).map(|text| file(with_checksum(text).as_bytes()))),
        2 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            assert_ne!(address(text), Some(false), "{text:?} is taken here and refused by the TSS library");
        }
        3 => {
            let Some((whole, key)) = certificate(data) else { return };
            assert!(data.starts_with(whole) && key.is_none_or(|key| key.len() < whole.len()));
        }
        4 => {
            let Some((sessions, data)) = split(data, 2) else { return };
            let Some((_, parts)) = response(sessions == 1, data) else { return };
            assert!(parts.iter().map(|part| part.len() + 2).sum::<usize>() + 14 <= data.len());
        }
        5 => {
            let Some(again) = request(data) else { return };
            assert_eq!(
                request(&again).as_ref(),
                Some(&again),
                "another request than the one that was written"
            );
        }
        _ => assert_eq!(unseal(software().as_bytes(), data), None, "opened what nobody sealed"),
    }
}

/// Key files of both kinds, addresses, a certificate's frame, responses.
pub fn seeds() -> Vec<Vec<u8>> {
    let software = software();
    let object = software.split(",\n  \"sha256\"").next().unwrap_or_default();
    // Version, serial number, algorithm, issuer, validity, subject, then the key: an algorithm and a bit string.
    let tbs =
        [&[0xa0, 3, 2, 1, 2, 2, 1, 1], &[0x30, 0].repeat(4)[..], &[0x30, 6, 0x30, 0, 3, 2, 0, 4]].concat();
    let frame = [&[0x30, tbs.len() as u8 + 2, 0x30, tbs.len() as u8], &tbs[..], &[0; 5]].concat();
    let rc = [0x80, 1, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 7, 0, 4, 1, 2, 3, 4];
    let sessions = [0x80, 2, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 7, 0, 2, 9, 9];
    vec![
        seed(0, &software),
        seed(0, with_checksum(&tpm().to_string())),
        seed(1, format!("{object}\n}}")),
        seed(1, tpm().to_string()),
        seed(2, "device:/dev/tpmrm0"),
        seed(2, "swtpm:host=localhost,port=2321"),
        seed(3, frame),
        seed(4, seed(0, rc)),
        seed(4, seed(1, sessions)),
        seed(5, frame_of(&json!("counter"))),
        seed(5, frame_of(&json!({"seal": {"secret": "00ff"}}))),
        seed(5, frame_of(&json!({"open": {"keys": tpm_keys()}}))),
        seed(6, [7; 60]),
    ]
}

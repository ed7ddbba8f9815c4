//! Measurements of programs made here, of which every byte is known.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_appraisal::event_log::EventLog;
use bulla_appraisal::replay::{SecureBoot as Found, replay, secure_boot};
use bulla_formats::hash::sha256;
use bulla_measure::boot::{SecureBoot, measurements};
use bulla_measure::log::encode;
use bulla_measure::pe::{Pe, PeError};

const OPTIONAL: usize = 0x40 + 24;
const HEADERS: usize = 0x200;

/// A PE32+ program with these sections, each padded to 16 bytes in the file, and certificates at its end.
fn program(sections: &[(&str, &[u8])], certificates: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x46] = sections.len() as u8;
    bytes[0x54] = 240;
    bytes[OPTIONAL..OPTIONAL + 2].copy_from_slice(&0x20bu16.to_le_bytes());
    bytes[OPTIONAL + 60..OPTIONAL + 64].copy_from_slice(&(HEADERS as u32).to_le_bytes());
    bytes[OPTIONAL + 108] = 16;
    for (nth, (name, content)) in sections.iter().enumerate() {
        let header = OPTIONAL + 240 + nth * 40;
        let padded = content.len().next_multiple_of(16);
        bytes[header..header + name.len()].copy_from_slice(name.as_bytes());
        for (at, number) in [(8, content.len()), (16, padded), (20, bytes.len())] {
            bytes[header + at..header + at + 4].copy_from_slice(&(number as u32).to_le_bytes());
        }
        bytes.extend(*content);
        bytes.resize(bytes.len() + padded - content.len(), 0);
    }
    let (start, length) = (bytes.len() as u32, certificates.len() as u32);
    bytes[OPTIONAL + 144..OPTIONAL + 148].copy_from_slice(&start.to_le_bytes());
    bytes[OPTIONAL + 148..OPTIONAL + 152].copy_from_slice(&length.to_le_bytes());
    bytes.extend(certificates);
    bytes
}

fn image() -> Vec<u8> {
    program(
        &[(".text", b"stub"), (".initrd", b"disk"), (".linux", b"a kernel"), (".pcrsig", b"not measured")],
        b"",
    )
}

fn keys() -> SecureBoot<'static> {
    SecureBoot { owner: [7; 16], platform: b"PK", exchange: b"KEK", database: b"db", forbidden: b"" }
}

#[test]
fn a_signature_does_not_change_the_hash_and_every_other_byte_does() {
    let plain = program(&[(".text", b"hello"), (".data", b"world")], b"");
    let hash = Pe::parse(&plain).unwrap().authenticode().unwrap();
    let signed = program(&[(".text", b"hello"), (".data", b"world")], b"certificates");
    assert_eq!(Pe::parse(&signed).unwrap().authenticode().unwrap(), hash);
    let left_out = |at: usize| {
        (OPTIONAL + 64..OPTIONAL + 68).contains(&at) || (OPTIONAL + 144..OPTIONAL + 152).contains(&at)
    };
    for at in 0..plain.len() {
        let mut changed = plain.clone();
        changed[at] ^= 0x80;
        let hashed = Pe::parse(&changed).and_then(|pe| pe.authenticode());
        match left_out(at) {
            // The length of certificates that are not there points before the file's beginning, or cuts its end off.
            true => assert!(at >= OPTIONAL + 144 || hashed == Ok(hash), "byte {at}"),
            false => assert_ne!(hashed, Ok(hash), "byte {at}"),
        }
    }
}

#[test]
fn a_file_that_ends_early_is_refused() {
    let whole = image();
    for length in 0..whole.len() {
        let cut = Pe::parse(&whole[..length]).and_then(|pe| pe.authenticode());
        assert!(cut.is_err(), "{length} bytes of {}", whole.len());
    }
    assert!(matches!(Pe::parse(b"#!/bin/sh"), Err(PeError::NotUnderstood(_))));
}

#[test]
fn padding_of_a_section_is_not_measured() {
    let bytes = image();
    assert_eq!(Pe::parse(&bytes).unwrap().section(".linux").unwrap().content, b"a kernel");
}

#[test]
fn the_log_reads_back_and_replays_to_what_a_tpm_would_have() {
    let (loader, image) = (program(&[(".text", b"loader")], b"x"), image());
    let events = measurements(&loader, &image, &keys()).unwrap();
    let log = EventLog::parse(&encode(&events)).unwrap();
    assert_eq!(secure_boot(&log), Found::On);
    let extend = |value: [u8; 32], digest: [u8; 32]| sha256(&[&value, &digest]).0;
    // PCR 11, step by step: name and content of each part in the stub's order, not the file's; then the phases.
    let mut expected = [0; 32];
    for measured in [&b".linux\0"[..], b"a kernel", b".initrd\0", b"disk"] {
        expected = extend(expected, sha256(&[measured]).0);
    }
    for phase in ["enter-initrd", "leave-initrd", "sysinit", "ready"] {
        expected = extend(expected, sha256(&[phase.as_bytes()]).0);
    }
    let values = replay(&log);
    assert_eq!(values[&11], expected);
    assert_eq!(values.keys().copied().collect::<Vec<u8>>(), [4, 7, 11]);
}

#[test]
fn every_file_and_key_counts() {
    let (loader, image) = (program(&[(".text", b"loader")], b""), image());
    let values = |loader: &[u8], image: &[u8], keys: &SecureBoot<'_>| {
        replay(&EventLog::parse(&encode(&measurements(loader, image, keys).unwrap())).unwrap())
    };
    let good = values(&loader, &image, &keys());
    let differing = |other: bulla_appraisal::replay::PcrValues| {
        [4, 7, 11].into_iter().filter(|pcr| good[pcr] != other[pcr]).collect::<Vec<u8>>()
    };
    let other_loader = program(&[(".text", b"Loader")], b"");
    assert_eq!(differing(values(&other_loader, &image, &keys())), [4]);
    let other_kernel = program(&[(".text", b"stub"), (".linux", b"a kernel!")], b"");
    assert_eq!(differing(values(&loader, &other_kernel, &keys())), [4, 11]);
    assert_eq!(differing(values(&loader, &image, &SecureBoot { forbidden: b"x", ..keys() })), [7]);
    assert_eq!(differing(values(&loader, &image, &SecureBoot { database: b"DB", ..keys() })), [7]);
    assert_eq!(differing(values(&loader, &image, &SecureBoot { owner: [8; 16], ..keys() })), [7]);
}

#[test]
fn a_kernel_image_without_a_kernel_is_refused() {
    let loader = program(&[(".text", b"loader")], b"");
    assert!(matches!(measurements(&loader, &loader, &keys()), Err(PeError::NotUnderstood(_))));
}

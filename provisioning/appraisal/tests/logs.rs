//! Logs of real boots, and what people do to logs.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_appraisal::difference::{Described, differences, first_difference, nearest};
use bulla_appraisal::event_log::{EVENTS_MAX, Event, EventLog, EventLogError, LOG_BYTES_MAX};
use bulla_appraisal::replay::{PcrValues, SecureBoot, replay, secure_boot};
use bulla_formats::hash::sha256;
use bulla_formats::trust::Reference;
use proptest::prelude::*;

const V2: &[u8] = include_bytes!("logs/image-v2.eventlog");
const V3: &[u8] = include_bytes!("logs/image-v3.eventlog");
const PCRS: &str = include_str!("logs/image-v2.pcrs.txt");

fn v2() -> EventLog {
    EventLog::parse(V2).unwrap()
}

/// What the TPM of the first boot said.
fn of_tpm() -> PcrValues {
    let lines = PCRS.lines().filter_map(|line| line.split_once(": 0x"));
    let value = |(pcr, value): (&str, &str)| {
        (pcr.trim().parse().unwrap(), hex::decode(value).unwrap().try_into().unwrap())
    };
    let values: PcrValues = lines.map(value).collect();
    assert_eq!(values.len(), 24);
    values
}

fn reference(name: &str, log: &EventLog) -> Reference {
    let pcrs = replay(log).into_iter().filter(|(pcr, _)| [0, 2, 3, 4, 6, 7].contains(pcr)).collect();
    Reference { name: name.into(), pcrs }
}

#[test]
fn a_replay_gives_what_the_tpm_has() {
    let (replayed, of_tpm) = (replay(&v2()), of_tpm());
    for pcr in (0..=7).chain([9]) {
        assert_eq!(replayed.get(&pcr), Some(&of_tpm[&pcr]), "PCR {pcr}");
    }
    // User space went on measuring into this one, and the firmware's log does not know.
    assert_ne!(replayed[&11], of_tpm[&11]);
    assert_eq!(secure_boot(&v2()), SecureBoot::Off);
}

#[test]
fn an_image_update_is_named_with_its_first_measurement() {
    let (old, new) = (v2(), EventLog::parse(V3).unwrap());
    let (before, after) = (replay(&old), replay(&new));
    let changed: Vec<u8> = before.keys().copied().filter(|pcr| before[pcr] != after[pcr]).collect();
    assert_eq!(changed, [4, 5, 9, 11]);
    let references = [reference("image 2", &old), reference("image 3", &new)];
    let (found, none) = nearest(&references, &after).unwrap();
    assert_eq!((found.name.as_str(), none.as_slice()), ("image 3", &[][..]));
    let wrong = differences(&references[0], &after);
    assert_eq!(wrong.iter().map(|difference| difference.pcr).collect::<Vec<_>>(), [4]);
    assert_eq!((wrong[0].expected, wrong[0].found), (before[&4], Some(after[&4])));
    let (expected, found) = first_difference(&old, &new, 4).unwrap();
    let (expected, found) = (expected.unwrap(), found.unwrap());
    assert_eq!((expected.pcr, found.pcr), (4, 4));
    assert_ne!(expected.digest, found.digest);
    let described = Described(Some(found)).to_string();
    assert!(described.contains(&hex::encode(found.digest)), "{described}");
    assert_eq!(first_difference(&old, &new, 7), None);
    assert_eq!(first_difference(&old, &old, 4), None);
}

/// CVE class "the type of an event is the attacker's": whatever types say, nothing changes but what people are shown.
#[test]
fn a_forged_type_decides_nothing() {
    for forged in [0x8000_0001, 0x8000_00e0, 4, 13, 0xffff_ffff] {
        let mut log = v2();
        log.events
            .iter_mut()
            .filter(|event| event.is_measured())
            .for_each(|event| event.claimed_type = forged);
        assert_eq!(replay(&log), replay(&v2()));
        assert_eq!(secure_boot(&log), SecureBoot::Off);
    }
    // Called unmeasured, it is missing in the replay, and that shows.
    let mut log = v2();
    let event = log.events.iter_mut().find(|event| event.pcr == 4 && event.is_measured()).unwrap();
    event.claimed_type = 3;
    assert_ne!(replay(&log)[&4], of_tpm()[&4]);
}

fn secure_boot_data(value: &[u8]) -> Vec<u8> {
    let log = v2();
    let first = log.events.iter().find(|event| event.pcr == 7).unwrap();
    let mut data = first.data.clone();
    // The length of the value follows GUID and length of the name.
    data[24..32].copy_from_slice(&(value.len() as u64).to_le_bytes());
    data.extend_from_slice(value);
    data
}

#[test]
fn secure_boot_is_what_the_first_measurement_proves() {
    let first = v2().events.iter().position(|event| event.pcr == 7).unwrap();
    // Data that was not measured proves nothing.
    let mut log = v2();
    log.events[first].data = secure_boot_data(&[1]);
    assert_eq!(replay(&log), replay(&v2()));
    assert_eq!(secure_boot(&log), SecureBoot::NotProven);
    // Measured data does.
    for (value, says) in [
        (&[1][..], SecureBoot::On),
        (&[0][..], SecureBoot::Off),
        (&[][..], SecureBoot::Off),
        (&[2][..], SecureBoot::NotProven),
        (&[1, 0][..], SecureBoot::NotProven),
    ] {
        let mut log = v2();
        log.events[first].data = secure_boot_data(value);
        log.events[first].digest = sha256(&[&log.events[first].data]).0;
        assert_eq!(secure_boot(&log), says, "{value:?}");
        // With one byte more or less the lengths do not fit.
        log.events[first].data.push(0);
        log.events[first].digest = sha256(&[&log.events[first].data]).0;
        assert_eq!(secure_boot(&log), SecureBoot::NotProven);
    }
    // A later one, measured by whoever was booted, changes PCR 7 and not the answer.
    let mut log = v2();
    let data = secure_boot_data(&[1]);
    let digest = sha256(&[&data]).0;
    log.events.push(Event { number: log.events.len() + 1, pcr: 7, claimed_type: 0x8000_0001, digest, data });
    assert_eq!(secure_boot(&log), SecureBoot::Off);
    assert_ne!(replay(&log)[&7], of_tpm()[&7]);
    // Another variable first: not proven.
    let mut log = v2();
    log.events.remove(first);
    assert_eq!(secure_boot(&log), SecureBoot::NotProven);
}

#[test]
fn the_startup_locality_counts_as_the_firmware_says() {
    let mut log = v2();
    let data = [b"StartupLocality\0".as_slice(), &[3]].concat();
    log.events.insert(0, Event { number: 0, pcr: 0, claimed_type: 3, digest: [0; 32], data });
    assert_ne!(replay(&log)[&0], of_tpm()[&0]);
    assert_eq!(replay(&log)[&4], of_tpm()[&4]);
    // After the first measurement it comes too late to have been true.
    let last = log.events.remove(0);
    log.events.push(last);
    assert_eq!(replay(&log), replay(&v2()));
}

#[test]
fn whatever_is_no_log_is_refused() {
    let refused = |bytes: &[u8], why: &str| {
        let error = EventLog::parse(bytes).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    let changed = |at: usize, to: &[u8]| {
        let mut bytes = V2.to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes
    };
    refused(b"", "its header");
    refused(&[0; 32], "does not begin as");
    refused(&vec![0; LOG_BYTES_MAX + 1], "longer than");
    refused(&changed(32, b"Spec ID Event02\0"), "Spec ID Event03");
    // 32 bytes of first event, 16 of signature, 8 of versions: the number of algorithms.
    refused(&changed(56, &[0]), "no digest algorithm");
    refused(&changed(56, &[17]), "more than 16");
    // SHA-1 in place of SHA-256: a log of another bank.
    refused(&changed(60, &[0x04, 0x00, 20, 0]), "no SHA-256 bank");
    refused(&changed(62, &[48, 0]), "no SHA-256 bank");
    // The first event begins after the header: PCR 24, two digests, another algorithm.
    let first = 32 + 0x21;
    refused(&changed(first, &[24]), "no such PCR");
    refused(&changed(first + 8, &[2]), "not one digest");
    refused(&changed(first + 12, &[0x0c]), "does not list");
    // Only at the end of an event may a log end.
    let ends = (0..V2.len()).filter(|end| EventLog::parse(&V2[..*end]).is_ok()).count();
    assert_eq!(ends, v2().events.len(), "before the first event, and after each but the last");
    let error = EventLog::parse(&[V2, &[0; 3]].concat()).unwrap_err();
    assert_eq!(error, EventLogError::Truncated("an event"));
}

#[test]
fn a_log_of_too_many_events_is_refused() {
    let header = &V2[..32 + 0x21];
    let event =
        [&8u32.to_le_bytes()[..], &4u32.to_le_bytes(), &1u32.to_le_bytes(), &[0x0b, 0], &[7; 32], &[0; 4]]
            .concat();
    let most = [header, &event.repeat(EVENTS_MAX)].concat();
    assert_eq!(EventLog::parse(&most).unwrap().events.len(), EVENTS_MAX);
    assert_eq!(EventLog::parse(&[&most[..], &event].concat()), Err(EventLogError::TooLong));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever is changed in a log: it is no log any more, or comes out with other PCR values, or is the same boot.
    #[test]
    fn a_changed_log_is_found_or_the_same_boot(at in 0..V2.len(), bit in 0..8u8) {
        let mut bytes = V2.to_vec();
        bytes[at] ^= 1 << bit;
        let Ok(log) = EventLog::parse(&bytes) else { return Ok(()) };
        if replay(&log) == replay(&v2()) {
            let digests = |log: &EventLog| -> Vec<(u8, [u8; 32])> {
                log.events.iter().filter(|event| event.is_measured()).map(|event| (event.pcr, event.digest)).collect()
            };
            prop_assert_eq!(digests(&log), digests(&v2()));
            prop_assert_ne!(secure_boot(&log), SecureBoot::On);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), keep in 0..200usize) {
        let _refused = EventLog::parse(&bytes);
        let _refused = EventLog::parse(&[&V2[..keep.min(V2.len())], &bytes].concat());
    }
}

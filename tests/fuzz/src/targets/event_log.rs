//! Event logs of firmware.
//!
//! Holds: measurements stand in their order; types and unproven data change neither PCR values nor what is decided; no
//! event can put a control character on a terminal.

use bulla_appraisal::difference::{Described, first_difference};
use bulla_appraisal::event_log::{EVENTS_MAX, EventLog, PCRS};
use bulla_appraisal::replay::{SecureBoot, replay, secure_boot};
use std::fs;
use std::path::Path;

/// The input is a log.
pub fn run(data: &[u8]) {
    let Ok(log) = EventLog::parse(data) else { return };
    assert!(log.events.len() <= EVENTS_MAX);
    let values = replay(&log);
    assert!(values.keys().all(|pcr| u32::from(*pcr) < PCRS));
    let mut retyped = log.clone();
    for event in retyped.events.iter_mut().filter(|event| event.is_measured()) {
        event.claimed_type = 0x8000_0001;
    }
    assert_eq!((replay(&retyped), secure_boot(&retyped)), (values.clone(), secure_boot(&log)));
    if secure_boot(&log) != SecureBoot::NotProven {
        let first = log.events.iter().find(|event| event.pcr == 7 && event.is_measured());
        assert!(first.is_some_and(|event| event.data_is_proven()), "decided on data that was not measured");
    }
    for event in &log.events {
        let described = Described(Some(event)).to_string();
        assert!(!described.contains(char::is_control), "{described:?}");
    }
    assert!(values.keys().all(|pcr| first_difference(&log, &retyped, *pcr).is_none()));
}

/// The logs of two real boots.
pub fn seeds() -> Vec<Vec<u8>> {
    let logs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../provisioning/appraisal/tests/logs");
    let read = |name: &str| {
        let path = logs.join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (old, new) = (read("image-v2.eventlog"), read("image-v3.eventlog"));
    let header = old[..32 + 0x21].to_vec();
    vec![old, new, header]
}

//! From events to PCR values, and to the few facts that PCR values prove.
//!
//! Refuses to do: believe a type. Facts come from events whose data hashes to their digest, at a place that only the
//! firmware can have written to.
//! Invariant: [`replay`] gives the values a TPM has after these measurements (TPM 2.0 Part 3, TPM2_PCR_Extend).

use crate::event_log::{Event, EventLog};
use bulla_formats::hash::sha256;
use std::collections::BTreeMap;

/// PCR number to SHA-256 value.
pub type PcrValues = BTreeMap<u8, [u8; 32]>;

/// What a log says of the locality that the firmware started in (PFP 1.06, 10.4.5.3).
const STARTUP_LOCALITY: &[u8; 16] = b"StartupLocality\0";
/// EFI_GLOBAL_VARIABLE as it lies in memory (UEFI 2.10, 3.3).
const GLOBAL_VARIABLE: [u8; 16] =
    [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c];

/// Whether Secure Boot was on, as far as PCR 7 proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecureBoot {
    /// It was on.
    On,
    /// It was off.
    Off,
    /// The first measurement of PCR 7 is not the variable it must be, or its data is not what was measured.
    NotProven,
}

impl SecureBoot {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            SecureBoot::On => "on",
            SecureBoot::Off => "off",
            SecureBoot::NotProven => "not proven",
        }
    }
}

/// The PCR before its first measurement.
fn initial(log: &EventLog, pcr: u8) -> [u8; 32] {
    let mut value = if (17..=22).contains(&pcr) { [0xff; 32] } else { [0; 32] };
    if pcr == 0 {
        // Said, not measured; but a wrong one makes PCR 0 come out wrong.
        let of_pcr_0 =
            log.events.iter().filter(|event| event.pcr == 0).take_while(|event| !event.is_measured());
        let said = of_pcr_0.filter_map(|event| event.data.strip_prefix(STARTUP_LOCALITY));
        if let Some([locality]) = said.last() {
            value[31] = *locality;
        }
    }
    value
}

/// The values of all PCRs that the log measures into.
pub fn replay(log: &EventLog) -> PcrValues {
    let mut values = PcrValues::new();
    for event in log.events.iter().filter(|event| event.is_measured()) {
        let value = values.entry(event.pcr).or_insert_with(|| initial(log, event.pcr));
        *value = sha256(&[&*value, &event.digest]).0;
    }
    values
}

/// Whether Secure Boot was on. The firmware measures the variable before anything else into PCR 7 (PFP 1.06, 3.3.4.8),
/// so its first event decides, by its data alone: whoever comes later cannot put one before it.
pub fn secure_boot(log: &EventLog) -> SecureBoot {
    let first = log.events.iter().find(|event| event.pcr == 7 && event.is_measured());
    match first.filter(|event| event.data_is_proven()).and_then(variable) {
        Some((GLOBAL_VARIABLE, name, value)) if name == "SecureBoot" => match value {
            [1] => SecureBoot::On,
            [0] | [] => SecureBoot::Off,
            _ => SecureBoot::NotProven,
        },
        _ => SecureBoot::NotProven,
    }
}

/// UEFI_VARIABLE_DATA: GUID, name, value; `None` when the lengths do not fit exactly.
fn variable(event: &Event) -> Option<([u8; 16], String, &[u8])> {
    let (guid, rest) = event.data.split_first_chunk::<16>()?;
    let (name_length, rest) = rest.split_first_chunk::<8>()?;
    let (value_length, rest) = rest.split_first_chunk::<8>()?;
    let name_length = usize::try_from(u64::from_le_bytes(*name_length)).ok()?.checked_mul(2)?;
    let (name, value) = rest.split_at_checked(name_length)?;
    if u64::from_le_bytes(*value_length) != value.len() as u64 {
        return None;
    }
    let units: Vec<u16> = name.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
    Some((*guid, String::from_utf16(&units).ok()?, value))
}

//! Expected measurements as an event log of firmware (TCG PC Client Platform Firmware Profile 1.06, section 10).
//!
//! Refuses to do: claim data for a digest that is not the data's, but where firmware does so, too.
//! Invariant: `EventLog::parse` reads back what [`encode`] wrote.

use bulla_formats::hash::sha256;

const ALG_SHA256: u16 = 0x000b;

/// Types of events, as firmware names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// End of the firmware's own part.
    Separator = 0x0000_0004,
    /// What a boot loader or an operating system measured.
    Ipl = 0x0000_000d,
    /// A variable that Secure Boot is configured by.
    Variable = 0x8000_0001,
    /// A program that was started.
    Application = 0x8000_0003,
    /// What the firmware did.
    Action = 0x8000_0007,
    /// What a program was verified by.
    Authority = 0x8000_00e0,
}

/// One expected measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// PCR.
    pub pcr: u8,
    /// What firmware calls it.
    pub kind: Kind,
    /// What the PCR is extended with.
    pub digest: [u8; 32],
    /// For people, or what was measured.
    pub data: Vec<u8>,
}

impl Expected {
    /// A measurement of these very bytes.
    pub fn of(pcr: u8, kind: Kind, data: Vec<u8>) -> Self {
        Self { pcr, kind, digest: sha256(&[&data]).0, data }
    }
}

/// The bytes of a log with these events: first the header of a log with one bank, SHA-256.
pub fn encode(events: &[Expected]) -> Vec<u8> {
    let mut header = b"Spec ID Event03\0".to_vec();
    // Platform class, version 2.0, errata 0, 64-bit UINTN, one algorithm with its length, no vendor information.
    header.extend([0, 0, 0, 0, 0, 2, 0, 2]);
    header.extend(1u32.to_le_bytes());
    header.extend(ALG_SHA256.to_le_bytes());
    header.extend(32u16.to_le_bytes());
    header.push(0);
    // The header stands in an event of the old form: PCR 0, EV_NO_ACTION, an empty SHA-1 digest.
    let mut log = vec![0, 0, 0, 0, 3, 0, 0, 0];
    log.extend([0; 20]);
    log.extend(length(&header));
    log.extend(header);
    for event in events {
        log.extend(u32::from(event.pcr).to_le_bytes());
        log.extend((event.kind as u32).to_le_bytes());
        log.extend(1u32.to_le_bytes());
        log.extend(ALG_SHA256.to_le_bytes());
        log.extend(event.digest);
        log.extend(length(&event.data));
        log.extend(&event.data);
    }
    log
}

fn length(data: &[u8]) -> [u8; 4] {
    u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes()
}

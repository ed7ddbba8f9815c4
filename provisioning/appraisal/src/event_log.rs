//! The crypto-agile event log of TCG PC Client Platform Firmware Profile 1.06, section 10: bytes to events.
//!
//! Refuses to do: guess. A log without a SHA-256 bank, with a length that points outside, or with bytes left over is no
//! log. Logs of TPM 1.2 (SHA-1 only) are refused.
//! Invariant: every event keeps the place and the bytes that it had.

use bulla_formats::hash::sha256;

/// Longest log in bytes.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// Most events in a log.
pub const EVENTS_MAX: usize = 8_192;
/// PCRs of a PC Client TPM: 0 to 23.
pub const PCRS: u32 = 24;

const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
const EV_NO_ACTION: u32 = 3;
const ALG_SHA256: u16 = 0x000b;

/// Why bytes are no event log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// Longer than it may be.
    #[error("it is longer than {LOG_BYTES_MAX} bytes or {EVENTS_MAX} events")]
    TooLong,
    /// A field points outside the log.
    #[error("it ends inside {0}")]
    Truncated(&'static str),
    /// Not the header of a crypto-agile log.
    #[error("it does not begin as a TPM 2.0 event log does: {0}")]
    Header(&'static str),
    /// An event that cannot be.
    #[error("event {number} is malformed: {why}")]
    Event {
        /// Place in the log, from 1; the header is not counted.
        number: usize,
        /// What is wrong.
        why: &'static str,
    },
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Place in the log, from 1; the header is not counted.
    pub number: usize,
    /// PCR that was extended, 0 to 23.
    pub pcr: u8,
    /// What the log calls it. Proves nothing.
    pub claimed_type: u32,
    /// What the PCR was extended with (SHA-256 bank).
    pub digest: [u8; 32],
    /// What the log says was measured. Proves nothing unless [`Event::data_is_proven`].
    pub data: Vec<u8>,
}

impl Event {
    /// Whether the data hashes to the digest, so that the PCR speaks for it.
    pub fn data_is_proven(&self) -> bool {
        self.is_measured() && sha256(&[&self.data]).0 == self.digest
    }

    /// Whether a replay extends a PCR with it. An event that claims to be none of these and was measured all the same
    /// makes the replay come out different from the TPM's values; one that was not measured proves nothing.
    pub fn is_measured(&self) -> bool {
        self.claimed_type != EV_NO_ACTION
    }

    /// What the log calls it, for people.
    pub fn claimed_name(&self) -> &'static str {
        match self.claimed_type {
            0x0000_0001 => "post-code",
            0x0000_0003 => "no-action",
            0x0000_0004 => "separator",
            0x0000_0005 => "action",
            0x0000_0006 => "event-tag",
            0x0000_0007 => "crtm-contents",
            0x0000_0008 => "crtm-version",
            0x0000_000d => "ipl",
            0x0000_000e => "ipl-partition-data",
            0x8000_0001 => "efi-variable-driver-config",
            0x8000_0002 => "efi-variable-boot",
            0x8000_0003 => "efi-boot-services-application",
            0x8000_0004 => "efi-boot-services-driver",
            0x8000_0005 => "efi-runtime-services-driver",
            0x8000_0006 => "efi-gpt-event",
            0x8000_0007 => "efi-action",
            0x8000_0008 => "efi-platform-firmware-blob",
            0x8000_0009 => "efi-handoff-tables",
            0x8000_000a => "efi-platform-firmware-blob2",
            0x8000_000b => "efi-handoff-tables2",
            0x8000_000c => "efi-variable-boot2",
            0x8000_0010 => "efi-hcrtm-event",
            0x8000_00e0 => "efi-variable-authority",
            _ => "unknown",
        }
    }
}

/// A parsed log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventLog {
    /// In the order of the log.
    pub events: Vec<Event>,
}

/// Reads fields from the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], EventLogError> {
        let (field, rest) = self.0.split_at_checked(count).ok_or(EventLogError::Truncated(what))?;
        self.0 = rest;
        Ok(field)
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, EventLogError> {
        Ok(self.take(1, what)?[0])
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, EventLogError> {
        let bytes = self.take(2, what)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, EventLogError> {
        let bytes = self.take(4, what)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn sized(&mut self, what: &'static str) -> Result<&'a [u8], EventLogError> {
        let count = self.u32(what)?;
        self.take(usize::try_from(count).map_err(|_| EventLogError::Truncated(what))?, what)
    }
}

impl EventLog {
    /// Reads a log as `/sys/kernel/security/tpm0/binary_bios_measurements` gives it.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventLogError> {
        if bytes.len() > LOG_BYTES_MAX {
            return Err(EventLogError::TooLong);
        }
        let mut reader = Reader(bytes);
        let algorithms = header(&mut reader)?;
        let mut events = Vec::new();
        while !reader.0.is_empty() {
            if events.len() == EVENTS_MAX {
                return Err(EventLogError::TooLong);
            }
            events.push(event(&mut reader, events.len() + 1, &algorithms)?);
        }
        Ok(EventLog { events })
    }
}

/// TCG_PCR_EVENT with TCG_EfiSpecIDEvent: the algorithms and the lengths of their digests.
fn header(reader: &mut Reader<'_>) -> Result<Vec<(u16, usize)>, EventLogError> {
    const WHAT: &str = "its header";
    let refused = |why| Err(EventLogError::Header(why));
    if (reader.u32(WHAT)?, reader.u32(WHAT)?) != (0, EV_NO_ACTION) || reader.take(20, WHAT)? != [0; 20] {
        return refused("the first event is no specification event");
    }
    let mut content = Reader(reader.sized(WHAT)?);
    if content.take(16, WHAT)? != SIGNATURE {
        return refused("its signature is not \"Spec ID Event03\"");
    }
    // Platform class, version minor, major, errata, size of UINTN: nothing below depends on them.
    content.take(8, WHAT)?;
    let count = content.u32(WHAT)?;
    if count == 0 || count > 16 {
        return refused("it has no digest algorithm, or more than 16");
    }
    let mut algorithms = Vec::new();
    for _ in 0..count {
        let (algorithm, length) = (content.u16(WHAT)?, usize::from(content.u16(WHAT)?));
        if algorithms.iter().any(|(known, _)| *known == algorithm) || length > 64 {
            return refused("an algorithm comes twice, or its digest is longer than 64 bytes");
        }
        algorithms.push((algorithm, length));
    }
    if !algorithms.contains(&(ALG_SHA256, 32)) {
        return refused("it has no SHA-256 bank");
    }
    let vendor = content.u8(WHAT)?;
    content.take(usize::from(vendor), WHAT)?;
    if !content.0.is_empty() {
        return refused("bytes are left over in it");
    }
    Ok(algorithms)
}

/// TCG_PCR_EVENT2: exactly one digest of each algorithm of the header.
fn event(
    reader: &mut Reader<'_>,
    number: usize,
    algorithms: &[(u16, usize)],
) -> Result<Event, EventLogError> {
    const WHAT: &str = "an event";
    let refused = |why| Err(EventLogError::Event { number, why });
    let (pcr, claimed_type) = (reader.u32(WHAT)?, reader.u32(WHAT)?);
    if pcr >= PCRS {
        return refused("there is no such PCR");
    }
    if reader.u32(WHAT)? as usize != algorithms.len() {
        return refused("it has not one digest for each algorithm");
    }
    let (mut seen, mut digest) = (Vec::new(), None);
    for _ in algorithms {
        let algorithm = reader.u16(WHAT)?;
        let Some((_, length)) = algorithms.iter().find(|(known, _)| *known == algorithm) else {
            return refused("it has a digest of an algorithm that the header does not list");
        };
        if seen.contains(&algorithm) {
            return refused("it has two digests of one algorithm");
        }
        seen.push(algorithm);
        let bytes = reader.take(*length, WHAT)?;
        if algorithm == ALG_SHA256 {
            digest = bytes.try_into().ok();
        }
    }
    let data = reader.sized(WHAT)?.to_vec();
    let Some(digest) = digest else { return refused("it has no SHA-256 digest") };
    Ok(Event { number, pcr: pcr as u8, claimed_type, digest, data })
}

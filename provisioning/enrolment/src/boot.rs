//! Which boot it was: event log and PCR values against the boots that the fleet knows to be good.
//!
//! Refuses to do: decide anything on the type of an event, or on data that does not hash to its digest; say only "mismatch".
//! Invariant: what counts are the quoted values; the event log explains them and proves Secure Boot, or is refused.

use crate::refusal::{Code, Judged, Refusal};
use bulla_appraisal::difference::{differences, nearest};
use bulla_appraisal::event_log::EventLog;
use bulla_appraisal::replay::{PcrValues, SecureBoot, replay, secure_boot};
use bulla_formats::trust::Reference;

/// The PCRs that a box quotes when it is enrolled: firmware and boot loader (0-7), the unified kernel image and its
/// configuration (11-13), the shim's certificates (14).
pub const QUOTED_PCRS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14];
/// Into these only the firmware and what it starts measure, and all of it stands in the event log.
const FIRMWARE_PCRS: std::ops::RangeInclusive<u8> = 0..=7;

/// A boot that is good, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBoot {
    /// Name and values.
    pub reference: Reference,
    /// Last moment (Unix milliseconds) at which it is accepted: how image N - 1 ends while N and N + 1 go on.
    pub until: Option<u64>,
}

/// What a fleet demands of a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootPolicy {
    /// Nothing: the values are recorded and no more. For fleets without images of their own.
    NotJudged,
    /// It must be one of these.
    Judged {
        /// Good boots.
        known: Vec<KnownBoot>,
        /// Whether the event log must prove that Secure Boot was on.
        secure_boot: bool,
    },
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Name of the known boot; `None` when boots are not judged.
    pub name: Option<String>,
    /// Whether Secure Boot was on.
    pub secure_boot: SecureBoot,
}

/// Judges quoted values, which hold [`QUOTED_PCRS`], and the event log that came with them (empty: none did).
///
/// # Errors
/// With the codes `event-log`, `event-log-differs`, `secure-boot`, `boot-unknown`, `boot-outdated`.
pub fn judge(policy: &BootPolicy, quoted: &PcrValues, event_log: &[u8], now_millis: u64) -> Judged<Boot> {
    let secure_boot = match event_log {
        [] => SecureBoot::NotProven,
        bytes => explained(bytes, quoted)?,
    };
    let BootPolicy::Judged { known, secure_boot: demanded } = policy else {
        return Ok(Boot { name: None, secure_boot });
    };
    let name = known_good(known, quoted, now_millis)?;
    if *demanded && secure_boot != SecureBoot::On {
        let why = match (secure_boot, event_log) {
            (_, []) => "the box sent no event log, so nothing proves that Secure Boot was on",
            (SecureBoot::Off, _) => {
                "Secure Boot was off; switch it on in the firmware's set-up and boot again"
            }
            _ => {
                "nothing in the event log proves that Secure Boot was on: the first measurement of PCR 7 is not that \
                 variable, or its data is not what was measured"
            }
        };
        return Err(Refusal::new(Code::SecureBoot, why));
    }
    Ok(Boot { name: Some(name), secure_boot })
}

/// Secure Boot as an event log proves it that leads to the quoted values.
fn explained(bytes: &[u8], quoted: &PcrValues) -> Judged<SecureBoot> {
    let log = EventLog::parse(bytes)
        .map_err(|error| Refusal::new(Code::EventLog, format!("the event log is none: {error}")))?;
    let replayed = replay(&log);
    for (pcr, quoted) in quoted.iter().filter(|(pcr, _)| FIRMWARE_PCRS.contains(pcr)) {
        let replayed = replayed.get(pcr).copied().unwrap_or_default();
        if replayed != *quoted {
            let why = format!(
                "the event log does not lead to what the TPM quoted: PCR {pcr} comes out as {}, quoted is {}; an event \
                 was left out, added, reordered or relabelled",
                hex::encode(replayed),
                hex::encode(quoted)
            );
            return Err(Refusal::new(Code::EventLogDiffers, why));
        }
    }
    Ok(secure_boot(&log))
}

fn known_good(known: &[KnownBoot], quoted: &PcrValues, now_millis: u64) -> Judged<String> {
    let fits: Vec<&KnownBoot> =
        known.iter().filter(|boot| differences(&boot.reference, quoted).is_empty()).collect();
    if let Some(good) = fits.iter().find(|boot| boot.until.is_none_or(|until| now_millis <= until)) {
        return Ok(good.reference.name.clone());
    }
    if let Some(old) = fits.first() {
        let why = format!(
            "the boot is {}, which was accepted until a day that is past; update it",
            old.reference.name
        );
        return Err(Refusal::new(Code::BootOutdated, why));
    }
    let references: Vec<Reference> = known.iter().map(|boot| boot.reference.clone()).collect();
    let why = match nearest(&references, quoted) {
        None => "the fleet knows no good boot yet: add one with `bulla-fleet reference add`".to_owned(),
        Some((reference, differences)) => {
            let one = |difference: &bulla_appraisal::difference::Difference| {
                let found = difference.found.map_or_else(|| "none, it is not quoted".to_owned(), hex::encode);
                let (pcr, expected) = (difference.pcr, hex::encode(difference.expected));
                format!("PCR {pcr} differs: expected {expected} from {}, got {found}", reference.name)
            };
            differences.iter().map(one).collect::<Vec<_>>().join("; ")
        }
    };
    Err(Refusal::new(Code::BootUnknown, why))
}

//! TPMS_ATTEST: what the TPM signs when it vouches for something. TPM 2.0 Part 2, 10.12.12.
//!
//! Refuses: structures without TPM_GENERATED_VALUE, types other than quote, certify, NV and time, PCR banks other than
//! one of SHA-256, names that are not SHA-256 names, trailing bytes. Parsing proves nothing; the signature does.

use super::{TpmError, reader::Reader};
use crate::hash::Hash;

/// TPM_GENERATED_VALUE, Part 2, 6.2: a restricted key signs it only for structures made inside the TPM.
const GENERATED: u32 = 0xff54_4347;
const TYPE_NV: u16 = 0x8014;
const TYPE_CERTIFY: u16 = 0x8017;
const TYPE_QUOTE: u16 = 0x8018;
const TYPE_TIME: u16 = 0x8019;
const SHA256: u16 = 0x000b;
/// A name: two bytes of algorithm and a SHA-256 digest.
const NAME_LEN: usize = 34;
/// TPM2B_DATA holds at most a TPMT_HA; Bulla's own is always 32 bytes.
const MAX_EXTRA_DATA: usize = 66;
/// MAX_NV_BUFFER_SIZE of the PC Client profile is 1024.
const MAX_NV_CONTENTS: usize = 1024;
/// Three bytes select PCR 0 to 23, the only width of the PC Client profile.
const PCR_SELECT_LEN: u8 = 3;

/// A parsed TPMS_ATTEST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attest {
    /// Qualified name of the signing key.
    pub qualified_signer: Vec<u8>,
    /// The caller's qualifying data.
    pub extra_data: Vec<u8>,
    /// The TPM's clock and restart counters.
    pub clock_info: ClockInfo,
    /// The vendor's firmware version number.
    pub firmware_version: u64,
    /// The part that depends on the type.
    pub attested: Attested,
}

/// TPMS_CLOCK_INFO. Part 2, 10.11.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockInfo {
    /// Milliseconds the TPM was powered since it was last cleared.
    pub clock: u64,
    /// TPM resets since it was last cleared.
    pub reset_count: u32,
    /// Restarts and resumes since the last reset.
    pub restart_count: u32,
    /// No value of `clock` greater than this one was reported before.
    pub safe: bool,
}

/// TPMU_ATTEST, the types that are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attested {
    /// TPMS_QUOTE_INFO over the SHA-256 bank.
    Quote {
        /// PCR indexes, ascending, at least one.
        pcr_selection: Vec<u8>,
        /// SHA-256 over the selected values.
        pcr_digest: Hash,
    },
    /// TPMS_CERTIFY_INFO.
    Certify {
        /// Name of the certified object.
        name: Vec<u8>,
        /// Qualified name of the certified object.
        qualified_name: Vec<u8>,
    },
    /// TPMS_NV_CERTIFY_INFO.
    Nv {
        /// Name of the NV index.
        index_name: Vec<u8>,
        /// Where in the index the content starts.
        offset: u16,
        /// The content.
        contents: Vec<u8>,
    },
    /// TPMS_TIME_ATTEST_INFO.
    Time {
        /// Milliseconds since the TPM last started.
        time: u64,
        /// The clock, never obfuscated here.
        clock_info: ClockInfo,
        /// The firmware version, never obfuscated here.
        firmware_version: u64,
    },
}

impl Attested {
    /// The type in a word, for messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quote { .. } => "quote",
            Self::Certify { .. } => "certify",
            Self::Nv { .. } => "nv",
            Self::Time { .. } => "time",
        }
    }
}

impl Attest {
    /// Parses exactly one TPMS_ATTEST.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let magic = reader.u32("magic")?;
        if magic != GENERATED {
            return Err(TpmError::Value {
                field: "magic",
                found: u64::from(magic),
                expected: "TPM_GENERATED_VALUE 0xff544347",
            });
        }
        let kind = reader.u16("type")?;
        let qualified_signer = name(&mut reader, "qualifiedSigner")?;
        let extra_data = reader.sized(0, MAX_EXTRA_DATA, "extraData", "0..=66")?.to_vec();
        let clock_info = clock_info(&mut reader)?;
        let firmware_version = reader.u64("firmwareVersion")?;
        let attested = match kind {
            TYPE_QUOTE => quote(&mut reader)?,
            TYPE_CERTIFY => Attested::Certify {
                name: name(&mut reader, "certify.name")?,
                qualified_name: name(&mut reader, "certify.qualifiedName")?,
            },
            TYPE_NV => Attested::Nv {
                index_name: name(&mut reader, "nv.indexName")?,
                offset: reader.u16("nv.offset")?,
                contents: reader.sized(1, MAX_NV_CONTENTS, "nv.nvContents", "1..=1024")?.to_vec(),
            },
            TYPE_TIME => Attested::Time {
                time: reader.u64("time.time")?,
                clock_info: self::clock_info(&mut reader)?,
                firmware_version: reader.u64("time.firmwareVersion")?,
            },
            found => {
                return Err(TpmError::Value {
                    field: "type",
                    found: u64::from(found),
                    expected: "quote 0x8018, certify 0x8017, nv 0x8014 or time 0x8019",
                });
            }
        };
        reader.end("TPMS_ATTEST")?;
        Ok(Self { qualified_signer, extra_data, clock_info, firmware_version, attested })
    }
}

fn quote(reader: &mut Reader<'_>) -> Result<Attested, TpmError> {
    let banks = reader.u32("quote.pcrSelect.count")?;
    if banks != 1 {
        return Err(TpmError::Value {
            field: "quote.pcrSelect.count",
            found: u64::from(banks),
            expected: "1",
        });
    }
    let bank = reader.u16("quote.pcrSelect.hash")?;
    if bank != SHA256 {
        return Err(TpmError::Value {
            field: "quote.pcrSelect.hash",
            found: u64::from(bank),
            expected: "SHA-256 0x000b",
        });
    }
    let width = reader.u8("quote.pcrSelect.sizeofSelect")?;
    if width != PCR_SELECT_LEN {
        return Err(TpmError::Size {
            field: "quote.pcrSelect.sizeofSelect",
            found: usize::from(width),
            allowed: "3",
        });
    }
    let bits = reader.take(usize::from(width), "quote.pcrSelect.pcrSelect")?;
    let pcr_selection: Vec<u8> =
        (0..8 * width).filter(|index| bits[usize::from(index / 8)] & (1 << (index % 8)) != 0).collect();
    if pcr_selection.is_empty() {
        return Err(TpmError::Value {
            field: "quote.pcrSelect.pcrSelect",
            found: 0,
            expected: "at least one PCR",
        });
    }
    let digest = reader.sized(32, 32, "quote.pcrDigest", "32")?;
    let pcr_digest = Hash::from_slice(digest).ok_or(TpmError::Truncated { field: "quote.pcrDigest" })?;
    Ok(Attested::Quote { pcr_selection, pcr_digest })
}

fn clock_info(reader: &mut Reader<'_>) -> Result<ClockInfo, TpmError> {
    Ok(ClockInfo {
        clock: reader.u64("clockInfo.clock")?,
        reset_count: reader.u32("clockInfo.resetCount")?,
        restart_count: reader.u32("clockInfo.restartCount")?,
        safe: match reader.u8("clockInfo.safe")? {
            0 => false,
            1 => true,
            found => {
                return Err(TpmError::Value {
                    field: "clockInfo.safe",
                    found: u64::from(found),
                    expected: "0 or 1",
                });
            }
        },
    })
}

fn name(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<u8>, TpmError> {
    let name = reader.sized(NAME_LEN, NAME_LEN, field, "34")?;
    let algorithm = u16::from_be_bytes([name[0], name[1]]);
    if algorithm != SHA256 {
        return Err(TpmError::Value {
            field,
            found: u64::from(algorithm),
            expected: "a SHA-256 name 0x000b",
        });
    }
    Ok(name.to_vec())
}

//! TPMS_NV_PUBLIC: what kind of NV index a certified content came from. TPM 2.0 Part 2, 13.5.
//!
//! Refuses: name algorithms other than SHA-256, policies that are no SHA-256 digest, trailing bytes.

use super::{TpmError, reader::Reader};
use crate::hash::sha256;

const SHA256: u16 = 0x000b;
/// TPMA_NV, Part 2, 13.4.
const TYPE_SHIFT: u32 = 4;
const TYPE_MASK: u32 = 0xf;
const TYPE_COUNTER: u32 = 1;
const ORDERLY: u32 = 1 << 26;
const WRITTEN: u32 = 1 << 29;

/// A parsed TPMS_NV_PUBLIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NvPublic {
    /// The handle of the index, 0x01xxxxxx.
    pub index: u32,
    /// TPMA_NV.
    pub attributes: u32,
    /// Authorization policy, empty or 32 bytes.
    pub policy: Vec<u8>,
    /// Size of the content in bytes.
    pub data_size: u16,
    name: Vec<u8>,
}

impl NvPublic {
    /// Parses exactly one TPMS_NV_PUBLIC.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let index = reader.u32("nvIndex")?;
        if index >> 24 != 0x01 {
            return Err(TpmError::Value {
                field: "nvIndex",
                found: u64::from(index),
                expected: "an NV handle 0x01xxxxxx",
            });
        }
        let name_algorithm = reader.u16("nvPublic.nameAlg")?;
        if name_algorithm != SHA256 {
            return Err(TpmError::Value {
                field: "nvPublic.nameAlg",
                found: u64::from(name_algorithm),
                expected: "SHA-256 0x000b",
            });
        }
        let attributes = reader.u32("nvPublic.attributes")?;
        let policy = reader.sized(0, 32, "nvPublic.authPolicy", "0 or 32")?.to_vec();
        if !matches!(policy.len(), 0 | 32) {
            return Err(TpmError::Size {
                field: "nvPublic.authPolicy",
                found: policy.len(),
                allowed: "0 or 32",
            });
        }
        let data_size = reader.u16("nvPublic.dataSize")?;
        reader.end("TPMS_NV_PUBLIC")?;
        let name = [&SHA256.to_be_bytes(), sha256(&[bytes]).as_bytes().as_slice()].concat();
        Ok(Self { index, attributes, policy, data_size, name })
    }

    /// Name of the index: 0x000b || SHA-256 of the marshalled structure. Part 1, 16.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Checks that the index is a counter that was written at least once and survives an unorderly shutdown.
    ///
    /// An ORDERLY counter is kept in RAM and may repeat values after a power cut, so it proves no order.
    pub fn check_counter(&self) -> Result<(), TpmError> {
        if (self.attributes >> TYPE_SHIFT) & TYPE_MASK != TYPE_COUNTER || self.data_size != 8 {
            return Err(TpmError::Template { field: "nvPublic.attributes.TPM_NT", expected: "counter" });
        }
        if self.attributes & ORDERLY != 0 {
            return Err(TpmError::Template { field: "nvPublic.attributes.ORDERLY", expected: "clear" });
        }
        if self.attributes & WRITTEN == 0 {
            return Err(TpmError::Template { field: "nvPublic.attributes.WRITTEN", expected: "set" });
        }
        Ok(())
    }
}

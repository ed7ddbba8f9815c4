//! TPMT_SIGNATURE of the one kind Bulla uses: ECDSA on P-256 with SHA-256. TPM 2.0 Part 2, 11.3.4.
//!
//! Refuses: other algorithms, numbers longer than 32 bytes or empty, trailing bytes.

use super::{TpmError, reader::Reader};

const ECDSA: u16 = 0x0018;
const SHA256: u16 = 0x000b;

/// An ECDSA P-256 signature, both numbers padded to 32 bytes on the left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmtSignature {
    /// The number r, big-endian.
    pub r: [u8; 32],
    /// The number s, big-endian; TPMs don't normalise it to the lower half.
    pub s: [u8; 32],
}

impl TpmtSignature {
    /// Parses exactly one TPMT_SIGNATURE.
    pub fn parse(bytes: &[u8]) -> Result<Self, TpmError> {
        let mut reader = Reader::new(bytes);
        let algorithm = reader.u16("sigAlg")?;
        if algorithm != ECDSA {
            return Err(TpmError::Value {
                field: "sigAlg",
                found: u64::from(algorithm),
                expected: "ECDSA 0x0018",
            });
        }
        let hash = reader.u16("signature.hash")?;
        if hash != SHA256 {
            return Err(TpmError::Value {
                field: "signature.hash",
                found: u64::from(hash),
                expected: "SHA-256 0x000b",
            });
        }
        let r = number(&mut reader, "signature.signatureR")?;
        let s = number(&mut reader, "signature.signatureS")?;
        reader.end("TPMT_SIGNATURE")?;
        Ok(Self { r, s })
    }

    /// r || s, 64 bytes, as in IEEE P1363.
    pub fn to_bytes(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&self.r);
        bytes[32..].copy_from_slice(&self.s);
        bytes
    }

    /// The signature as a checked pair: both numbers in 1..n.
    pub(super) fn to_p256(&self) -> Result<p256::ecdsa::Signature, TpmError> {
        p256::ecdsa::Signature::from_slice(&self.to_bytes()).map_err(|_| TpmError::Signature)
    }
}

fn number(reader: &mut Reader<'_>, field: &'static str) -> Result<[u8; 32], TpmError> {
    let bytes = reader.sized(1, 32, field, "1..=32")?;
    let mut number = [0; 32];
    number[32 - bytes.len()..].copy_from_slice(bytes);
    Ok(number)
}

//! For fuzz targets: bytes that come from a TPM without a library in between.

use super::ek_certificate;
use super::wire;

/// The certificate in front of some NV padding, and the public key in it.
pub fn certificate(nv: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let certificate = ek_certificate::trim(nv)?;
    let key = ek_certificate::spki(certificate).and_then(ek_certificate::public_key);
    Some((certificate, key))
}

/// A response to a command with or without sessions, taken apart as a quote's would be: one number, then sized
/// parts while there are any. `None` when it is refused.
pub fn response(sessions: bool, bytes: &[u8]) -> Option<(u32, Vec<Vec<u8>>)> {
    let mut response = wire::parse("fuzzing", sessions, bytes).ok()?;
    let first = response.u32().ok()?;
    let mut parts = Vec::new();
    while let Ok(part) = response.sized() {
        parts.push(part);
    }
    Some((first, parts))
}

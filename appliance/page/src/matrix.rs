//! Codes as black modules.
//!
//! Invariant: all codes of a page have the same size, and each is read as the very text it was made of.

use qrcode::bits::{Bits, encode_auto};
use qrcode::types::QrError;
use qrcode::{Color, EcLevel, QrCode, Version};

/// The largest version there is.
const VERSION_MAX: i16 = 40;

/// Light modules that a reader wants around a code.
pub(crate) const QUIET: usize = 4;

/// The smallest version of codes that holds each of the texts.
pub(crate) fn version(texts: &[String], level: EcLevel) -> Result<i16, QrError> {
    let mut version =
        texts.iter().try_fold(1, |version, text| match encode_auto(text.as_bytes(), level)?.version() {
            Version::Normal(needed) | Version::Micro(needed) => Ok(version.max(needed)),
        })?;
    // Rarely a text fits a version only when it is cut into segments as for the largest ones, which no code of that
    // version is.
    while !texts.iter().all(|text| fits(text, version, level)) {
        if version == VERSION_MAX {
            return Err(QrError::DataTooLong);
        }
        version += 1;
    }
    Ok(version)
}

fn fits(text: &str, version: i16, level: EcLevel) -> bool {
    let mut bits = Bits::new(Version::Normal(version));
    bits.push_optimal_data(text.as_bytes()).and_then(|()| bits.push_terminator(level)).is_ok()
}

/// Modules along a side of such codes.
pub(crate) fn side(version: i16) -> f32 {
    f32::from(17 + 4 * version)
}

/// A code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// Modules a side.
    pub side: usize,
    dark: Vec<bool>,
}

impl Matrix {
    /// All of a page's codes, each of this version.
    pub(crate) fn all(texts: &[String], version: i16, level: EcLevel) -> Result<Vec<Self>, QrError> {
        let made = texts.iter().map(|text| {
            let code = QrCode::with_version(text, Version::Normal(version), level)?;
            let dark = code.to_colors().into_iter().map(|module| module == Color::Dark).collect();
            Ok(Matrix { side: code.width(), dark })
        });
        made.collect()
    }

    /// Runs of dark modules: row, first column, how many.
    pub(crate) fn runs(&self) -> Vec<(usize, usize, usize)> {
        let mut runs: Vec<(usize, usize, usize)> = Vec::new();
        for (row, modules) in self.dark.chunks(self.side).enumerate() {
            for (column, _) in modules.iter().enumerate().filter(|(_, dark)| **dark) {
                match runs.last_mut() {
                    Some((of, from, length)) if *of == row && *from + *length == column => *length += 1,
                    _ => runs.push((row, column, 1)),
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::split;

    /// The payload of 715 bytes that was found by trying random ones: its text fits version 26 as cut for version 40 only.
    fn unlucky() -> Vec<u8> {
        let mut state = 12345_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut payload = Vec::new();
        for _ in 0..=2849 {
            let length = 500 + (next() % 1600) as usize;
            payload = (0..length).map(|_| next() as u8).collect();
        }
        payload
    }

    #[test]
    fn the_version_that_is_named_holds_the_texts() {
        let payload = unlucky();
        assert_eq!(payload.len(), 715);
        let codes = split(&payload).unwrap();
        let auto = encode_auto(codes[0].as_bytes(), EcLevel::Q).unwrap().version();
        assert_eq!(auto, Version::Normal(26));
        assert!(!fits(&codes[0], 26, EcLevel::Q), "the case is gone, and so is the reason for trying");
        let version = version(&codes, EcLevel::Q).unwrap();
        assert_eq!(version, 27);
        assert!(Matrix::all(&codes, version, EcLevel::Q).is_ok());
    }
}

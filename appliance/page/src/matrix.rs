//! Codes as black modules.
//!
//! Invariant: all codes of a page have the same size, and each is read as the very text it was made of.

use qrcode::bits::encode_auto;
use qrcode::types::QrError;
use qrcode::{Color, EcLevel, QrCode, Version};

/// Light modules that a reader wants around a code.
pub(crate) const QUIET: usize = 4;

/// The version of codes that holds each of the texts.
pub(crate) fn version(texts: &[String], level: EcLevel) -> Result<i16, QrError> {
    texts.iter().try_fold(1, |version, text| match encode_auto(text.as_bytes(), level)?.version() {
        Version::Normal(needed) | Version::Micro(needed) => Ok(version.max(needed)),
    })
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

//! Inside the TPM provider: what a failed command means for the connection and for the caller.
//!
//! Invariant: a [`Fault::Stale`] command was not executed and may be repeated after a new connection; after a
//! [`Fault::Transport`] nobody knows, so only operations without lasting effect may be repeated.

use crate::KeyError;
use bulla_formats::tpm::TpmError;

/// A failed step.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The TPM no longer knows our session or handles (it restarted), or is full of somebody's leftovers.
    Stale {
        what: &'static str,
        rc: u32,
    },
    /// No answer, or half of one.
    Transport {
        what: &'static str,
        reason: String,
    },
    /// The TPM said no.
    Rejected {
        what: &'static str,
        rc: u32,
    },
    Key(KeyError),
}

impl From<KeyError> for Fault {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<Fault> for KeyError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Stale { what, rc } => KeyError::Unavailable {
                what,
                reason: format!("it lost our session and the new one as well, response code {rc:#x}"),
            },
            Fault::Transport { what, reason } => KeyError::Unavailable { what, reason },
            Fault::Rejected { what, rc } => {
                KeyError::Refused { what, reason: format!("response code {rc:#x}") }
            }
            Fault::Key(error) => error,
        }
    }
}

/// Something the TPM answered does not verify.
pub(crate) fn evidence(what: &'static str) -> impl Fn(TpmError) -> Fault {
    move |source| Fault::Key(KeyError::Evidence { what, source })
}

/// A finding in an answer that no response code stands for.
pub(crate) fn refused(what: &'static str, reason: impl Into<String>) -> Fault {
    Fault::Key(KeyError::Refused { what, reason: reason.into() })
}

/// Sorts an error of the TSS library.
pub(crate) fn tss(what: &'static str) -> impl Fn(tss_esapi::Error) -> Fault {
    move |error| match error {
        tss_esapi::Error::Tss2Error(code) => match raw(&code) {
            Some(rc) => from_rc(what, rc),
            None => Fault::Transport { what, reason: code.to_string() },
        },
        tss_esapi::Error::WrapperError(kind) => refused(what, kind.to_string()),
    }
}

/// The number behind a response code. The library keeps it private and shows it only in its text.
fn raw(code: &tss_esapi::constants::response_code::Tss2ResponseCode) -> Option<u32> {
    use tss_esapi::constants::response_code::Tss2ResponseCode;
    let text = match code {
        Tss2ResponseCode::Success => return Some(0),
        Tss2ResponseCode::FormatZero(code) => code.to_string(),
        Tss2ResponseCode::FormatOne(code) => code.to_string(),
    };
    let (_, digits) = text.rsplit_once("0x")?;
    u32::from_str_radix(digits, 16).ok()
}

/// Sorts a response code. TPM 2.0 Part 2, 6.6; the layer is in bits 16 to 23 (TSS 2.0 Overview, 3.4).
pub(crate) fn from_rc(what: &'static str, rc: u32) -> Fault {
    const LAYER_TPM: u32 = 0;
    const LAYER_RESOURCE_MANAGER: u32 = 11;
    let layer = (rc >> 16) & 0xff;
    if layer != LAYER_TPM && layer != LAYER_RESOURCE_MANAGER {
        return Fault::Transport { what, reason: format!("TSS code {rc:#010x}") };
    }
    let later = |why: &str| {
        Fault::Key(KeyError::Unavailable { what, reason: format!("{why}, response code {rc:#x}") })
    };
    if rc & 0x80 != 0 {
        return match rc & 0x3f {
            // HANDLE: what we had opened is not there any more; reconnecting tells whether it is the same TPM.
            // AUTH_FAIL, BAD_AUTH: all our authorization values are empty, so it is the session that is another's.
            0x0b | 0x0e | 0x22 => Fault::Stale { what, rc },
            _ => Fault::Rejected { what, rc },
        };
    }
    match rc & 0xfff {
        0x100 => later("it has not been started"),
        0x101 => later("it is in failure mode until its next reset"),
        // OBJECT_MEMORY, SESSION_MEMORY, MEMORY, SESSION_HANDLES, OBJECT_HANDLES: a new connection flushes leftovers.
        0x902..=0x906 => Fault::Stale { what, rc },
        // YIELDED, CANCELED, TESTING.
        0x908..=0x90a => later("it is busy"),
        // REFERENCE_H0 to S6.
        0x910..=0x91e => Fault::Stale { what, rc },
        0x920 => later("its flash memory needs a pause"),
        0x921 => later("it is in dictionary-attack lockout"),
        0x922 | 0x923 => later("it is busy"),
        _ => Fault::Rejected { what, rc },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_who_speaks() {
        assert!(matches!(from_rc("x", 0x000a_000a), Fault::Transport { .. }));
        assert!(matches!(from_rc("x", 0x0007_0007), Fault::Transport { .. }));
        assert!(matches!(from_rc("x", 0x918), Fault::Stale { .. }));
        assert!(matches!(from_rc("x", 0x910), Fault::Stale { .. }));
        assert!(matches!(from_rc("x", 0x9a2), Fault::Stale { .. }));
        assert!(matches!(from_rc("x", 0x921), Fault::Key(KeyError::Unavailable { .. })));
        assert!(matches!(from_rc("x", 0x1df), Fault::Rejected { rc: 0x1df, .. }));
        assert!(matches!(from_rc("x", 0x000b_0143), Fault::Rejected { .. }));
    }
}

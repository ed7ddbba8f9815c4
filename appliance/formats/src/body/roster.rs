//! Roster body: from here on the box goes by this version of a fleet's roster.
//!
//! Refuses to do: hold the roster; whoever wants to know what it says asks for that version of it.
//! Invariant: a decoded body names a version by number and hash, and whoever brought it.

use crate::der::{self, DerError, Octets32};
use crate::entry::{ENTRY_BYTES_MAX, NUMBER_MAX};
use crate::origin::check_fleet;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Longest name of whoever brought a roster, in bytes.
pub const FROM_BYTES_MAX: usize = 256;

/// How a roster came.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Came {
    /// The registrar answered with it.
    Registrar = 0,
    /// An operator handed it in.
    File = 1,
    /// A neighbour had it.
    Neighbour = 2,
}

impl Came {
    /// Name in texts.
    pub fn name(self) -> &'static str {
        match self {
            Came::Registrar => "registrar",
            Came::File => "file",
            Came::Neighbour => "neighbour",
        }
    }
}

/// Body of a `roster` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct RosterBody {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// Number of the roster's version.
    pub number: u64,
    /// Its hash, which stands for the whole history.
    pub hash: Octets32,
    /// How it came.
    pub came: Came,
    /// The registrar's address, the operator's name or the neighbour's log.
    pub from: String,
}

impl RosterBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: RosterBody = der::decode("roster body", bytes, ENTRY_BYTES_MAX)?;
        body.check()?;
        Ok(body)
    }

    /// The conditions beyond the shape; also for bodies about to be signed.
    pub fn check(&self) -> Result<(), DerError> {
        let range = |reason| Err(DerError::Range { what: "roster body", reason });
        if self.version != 1 {
            return range("its version is not 1");
        }
        if check_fleet(&self.fleet).is_err() {
            return range("its fleet is none");
        }
        if self.number > NUMBER_MAX {
            return range("a number is above 2^63 - 1");
        }
        let plain = !self.from.is_empty() && !self.from.chars().any(char::is_control);
        if !plain || self.from.len() > FROM_BYTES_MAX {
            return range("whoever brought it has not 1 to 256 bytes without control characters");
        }
        Ok(())
    }
}

//! Where the TPM's operations are carried out: in this process, or by a signer.
//!
//! Invariant: every operation means the same in both places, errors included; see [`crate::signer`].

use crate::KeyError;
use crate::device::{Certification, Cleared, CounterCertificate, Device, FarewellKey, Quote, Role};
use crate::signer::Remote;
use crate::state::TpmState;
use crate::tpm::{self, Address, Machine};
use bulla_formats::tpm::TpmtPublic;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Keys that are used here, or by a signer.
pub(crate) enum Chip {
    Here(Box<Machine>),
    Signer(Box<Remote>),
}

/// Whom to ask: a TPM, or a signer that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Tpm(Address),
    /// Its socket.
    Signer(PathBuf),
}

/// Longest path of a Unix socket (unix(7): 108 bytes with the zero at the end).
const SOCKET_PATH_MAX: usize = 107;

impl Place {
    /// Reads `signer:<path>`, or the address of a TPM.
    pub(crate) fn parse(tcti: &str) -> Result<Self, KeyError> {
        let Some(path) = tcti.strip_prefix("signer:") else { return Address::parse(tcti).map(Self::Tpm) };
        if path.starts_with('/') && path.len() <= SOCKET_PATH_MAX {
            return Ok(Self::Signer(path.into()));
        }
        let reason =
            "signer: needs an absolute path of at most 107 bytes, such as signer:/run/bulla-signer/socket";
        Err(KeyError::Address { tcti: tcti.to_owned(), reason })
    }
}

/// Has keys made in the TPM.
pub(crate) fn create(place: &Place) -> Result<TpmState, KeyError> {
    match place {
        Place::Signer(socket) => Remote::create(socket),
        Place::Tpm(address) => tpm::create(address),
    }
}

/// Has the TPM cleared.
pub(crate) fn clear(place: &Place) -> Result<Cleared, KeyError> {
    match place {
        Place::Signer(socket) => Remote::clear(socket),
        Place::Tpm(address) => tpm::clear(address),
    }
}

/// As [`crate::farewell_quote`].
pub(crate) fn farewell_quote(
    place: &Place,
    ek_public: &[u8],
    key: &FarewellKey,
    qualifying: &[u8; 32],
) -> Result<Quote, KeyError> {
    let address = match place {
        Place::Signer(socket) => return Remote::farewell_quote(socket, ek_public, key, qualifying),
        Place::Tpm(address) => address,
    };
    let ek = TpmtPublic::parse(ek_public)
        .map_err(|source| KeyError::Evidence { what: "stored endorsement key", source })?;
    tpm::farewell_quote(address, &ek, key, qualifying)
}

/// The same call, wherever it is carried out.
macro_rules! wherever {
    ($chip:expr, $call:ident $(, $argument:expr)*) => {
        match $chip {
            Chip::Here(machine) => machine.$call($($argument),*),
            Chip::Signer(remote) => remote.$call($($argument),*),
        }
    };
}

impl Chip {
    /// Prepares, without connecting.
    pub(crate) fn new(place: Place, keys: TpmState, device: Device) -> Result<Self, KeyError> {
        Ok(match place {
            Place::Signer(socket) => Self::Signer(Box::new(Remote::new(socket, keys))),
            Place::Tpm(address) => Self::Here(Box::new(Machine::new(address, keys, device)?)),
        })
    }

    pub(crate) fn connect(&mut self) -> Result<(), KeyError> {
        wherever!(self, connect)
    }

    pub(crate) fn quote(&mut self, qualifying: &[u8; 32], pcrs: &[u8]) -> Result<Quote, KeyError> {
        wherever!(self, quote, qualifying, pcrs)
    }

    pub(crate) fn sign(&mut self, role: Role, digest: &[u8; 32]) -> Result<[u8; 64], KeyError> {
        wherever!(self, sign, role, digest)
    }

    pub(crate) fn counter(&mut self) -> Result<u64, KeyError> {
        wherever!(self, counter)
    }

    pub(crate) fn counter_increment(&mut self) -> Result<u64, KeyError> {
        wherever!(self, counter_increment)
    }

    pub(crate) fn counter_certify(&mut self, qualifying: &[u8; 32]) -> Result<CounterCertificate, KeyError> {
        wherever!(self, counter_certify, qualifying)
    }

    pub(crate) fn staged(&mut self) -> Result<Option<u64>, KeyError> {
        wherever!(self, staged)
    }

    pub(crate) fn advance_staged(&mut self) -> Result<(), KeyError> {
        wherever!(self, advance_staged)
    }

    pub(crate) fn activate(
        &mut self,
        id_object: &[u8],
        secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        wherever!(self, activate, id_object, secret)
    }

    pub(crate) fn certify(&mut self, role: Role, qualifying: &[u8; 32]) -> Result<Certification, KeyError> {
        wherever!(self, certify, role, qualifying)
    }

    pub(crate) fn farewell(&mut self, qualifying: &[u8; 32]) -> Result<FarewellKey, KeyError> {
        wherever!(self, farewell, qualifying)
    }

    pub(crate) fn seal(&mut self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        wherever!(self, seal, secret)
    }

    pub(crate) fn unseal(&mut self, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        wherever!(self, unseal, blob)
    }

    pub(crate) fn close(&mut self) {
        wherever!(self, close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_is_named_by_a_whole_path() {
        assert_eq!(Place::parse("signer:/run/s").unwrap(), Place::Signer("/run/s".into()));
        assert!(matches!(Place::parse("device:/dev/tpmrm0").unwrap(), Place::Tpm(Address::Device(_))));
        let long = format!("signer:/{}", "x".repeat(SOCKET_PATH_MAX));
        for wrong in ["signer", "signer:", "signer:socket", &long] {
            assert!(matches!(Place::parse(wrong), Err(KeyError::Address { .. })), "{wrong}");
        }
    }
}

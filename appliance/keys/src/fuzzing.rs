//! For fuzz targets: the key file, TPM addresses, what a TPM answers, and what a signer is asked.
//!
//! Refuses to do: connect, read files, hand out a key. Nothing here is part of the crate's interface.

pub use crate::tpm::fuzzing::{certificate, response};

use crate::signer::wire::{self, Request};
use crate::software::Software;
use crate::state::{self, State};
use crate::tpm::{self, Address};

/// Reads the bytes of a key file, describes its keys, and gives back the file as this program writes it; `None` when
/// it is refused. What is described need not hold: most key files are refused at that step.
pub fn key_file(bytes: &[u8]) -> Option<Vec<u8>> {
    let keys = state::parse(bytes).ok()?;
    let described = match &keys {
        State::Tpm(keys) => tpm::describe(keys).map(drop),
        State::Software(keys) => Software::load(keys).map(drop),
    };
    drop(described);
    state::text(keys).ok().map(|text| text.to_vec())
}

/// Whether a text is the address of a TPM, and whether the TSS library takes what was read of it.
pub fn address(text: &str) -> Option<bool> {
    let address = Address::parse(text).ok()?;
    Some(address.name_conf().is_ok())
}

/// The blob of a secret sealed under a key file's keys, opened; `None` when the file or the blob is refused.
pub fn unseal(key_file: &[u8], blob: &[u8]) -> Option<Vec<u8>> {
    let State::Software(keys) = state::parse(key_file).ok()? else { return None };
    let (software, _) = Software::load(&keys).ok()?;
    software.unseal(blob).ok().map(|secret| secret.to_vec())
}

/// The request in a frame to a signer, as a frame again; `None` when it is refused.
pub fn request(frame: &[u8]) -> Option<Vec<u8>> {
    let request: Request = wire::read(&mut &*frame).ok()??;
    let mut again = Vec::new();
    wire::write(&mut again, &request).ok()?;
    Some(again)
}

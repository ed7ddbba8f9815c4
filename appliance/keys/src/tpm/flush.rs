//! TPM2_FlushContext of everything an earlier process left loaded.
//!
//! A process that dies leaves its objects and sessions in swtpm, which holds three of each: after the third crash
//! nothing works. The kernel's resource manager cleans up by itself, and then there is nothing to list here.
//! Invariant: the TPM belongs to one box, so whatever is loaded when it connects is a leftover.

use super::address::Address;
use super::fault::Fault;
use super::wire::Command;

const CAPABILITY_HANDLES: u32 = 1;
const TRANSIENT: u32 = 0x8000_0000;
const LOADED_SESSIONS: u32 = 0x0200_0000;
const SAVED_SESSIONS: u32 = 0x0300_0000;
/// More than any TPM keeps loaded.
const MAX_HANDLES: u32 = 64;

/// Flushes transient objects and sessions.
pub(super) fn leftovers(address: &Address) -> Result<(), Fault> {
    for range in [TRANSIENT, LOADED_SESSIONS, SAVED_SESSIONS] {
        for handle in handles(address, range)? {
            match Command::new("TPM2_FlushContext", 0x165).u32(handle).send(address) {
                // A handle that went away meanwhile is what we want.
                Ok(_) | Err(Fault::Rejected { .. }) => {}
                Err(fault) => return Err(fault),
            }
        }
    }
    Ok(())
}

fn handles(address: &Address, first: u32) -> Result<Vec<u32>, Fault> {
    let mut response = Command::new("TPM2_GetCapability", 0x17a)
        .u32(CAPABILITY_HANDLES)
        .u32(first)
        .u32(MAX_HANDLES)
        .send(address)?;
    let _more = response.u8()?;
    let _capability = response.u32()?;
    let count = response.u32()?.min(MAX_HANDLES);
    (0..count).map(|_| response.u32()).collect()
}

//! The persistent objects of a box, and opening handles without provoking errors.
//!
//! Invariant: handles lie in the owner's ranges (TCG registry of reserved handles), so the owner may place them.

use super::fault::{Fault, refused, tss};
use bulla_formats::hash::sha256;
use tss_esapi::Context;
use tss_esapi::constants::CapabilityType;
use tss_esapi::handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::structures::CapabilityData;

/// The attestation key.
pub(super) const ATTESTATION: u32 = 0x8142_5501;
/// The storage key, parent of all wrapped keys.
pub(super) const STORAGE: u32 = 0x8142_5502;
/// The rollback counter.
pub(super) const COUNTER: u32 = 0x0184_5503;
/// The counter of staged logs.
pub(super) const STAGED: u32 = 0x0184_5504;
/// The version floor of the image.
pub(super) const FLOOR: u32 = 0x0184_5505;
/// TPM_RH_OWNER.
pub(super) const OWNER_HIERARCHY: u32 = 0x4000_0001;

/// Whether the TPM has something at this handle.
pub(super) fn exists(context: &mut Context, handle: u32) -> Result<bool, Fault> {
    let what = "TPM2_GetCapability";
    let (data, _) = context
        .execute_without_session(|c| c.get_capability(CapabilityType::Handles, handle, 1))
        .map_err(tss(what))?;
    let wanted = TpmHandle::try_from(handle).map_err(tss(what))?;
    match data {
        CapabilityData::Handles(list) => Ok(list.into_inner().first() == Some(&wanted)),
        _ => Err(refused(what, "it answered with another capability")),
    }
}

/// Opens a persistent object, `None` when there is none.
pub(super) fn persistent(context: &mut Context, handle: u32) -> Result<Option<KeyHandle>, Fault> {
    if !exists(context, handle)? {
        return Ok(None);
    }
    let what = "opening a persistent object";
    let handle = TpmHandle::Persistent(PersistentTpmHandle::new(handle).map_err(tss(what))?);
    context
        .execute_without_session(|c| c.tr_from_tpm_public(handle))
        .map(|object| Some(object.into()))
        .map_err(tss(what))
}

/// Opens an NV index, `None` when it is not defined.
pub(super) fn nv_index(context: &mut Context, handle: u32) -> Result<Option<NvIndexHandle>, Fault> {
    if !exists(context, handle)? {
        return Ok(None);
    }
    let what = "opening an NV index";
    let handle = TpmHandle::NvIndex(NvIndexTpmHandle::new(handle).map_err(tss(what))?);
    context
        .execute_without_session(|c| c.tr_from_tpm_public(handle))
        .map(|object| Some(object.into()))
        .map_err(tss(what))
}

/// Qualified name of an object with a SHA-256 name: SHA-256(parent's qualified name || name). Part 1, 16.
///
/// The parent of a primary object is its hierarchy, whose qualified name is its handle.
pub(super) fn qualified_name(parent: &[u8], name: &[u8]) -> Vec<u8> {
    [&[0x00, 0x0b], sha256(&[parent, name]).as_bytes().as_slice()].concat()
}

//! The version floor of the image: eight bytes in an NV index, below whose number no image of ours opens the data.
//!
//! It outlives the disk, so an older disk, or an older image that somebody puts back, meets it all the same. Whoever can act
//! as the TPM's owner can remove it; on a box that is what runs in the image, which checks it before it opens anything.
//! Refuses: to lower it, and an index at our handle that is not such a number.

use super::address::Address;
use super::fault::{Fault, refused, tss};
use super::handles::{self, FLOOR};
use super::link;
use crate::KeyError;
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{MaxNvBuffer, NvPublic};

const LEN: u16 = 8;
const READ: &str = "TPM2_NV_Read (version floor)";
const WRITE: &str = "TPM2_NV_Write (version floor)";

/// The floor; `None` while none was ever set on this TPM.
pub(crate) fn read(address: &Address) -> Result<Option<u64>, KeyError> {
    Ok(current(&mut link::context(address)?)?)
}

/// Raises the floor to `number`; a lower one changes nothing. Gives what holds from now on.
pub(crate) fn raise(address: &Address, number: u64) -> Result<u64, KeyError> {
    let mut context = link::context(address)?;
    if let Some(floor) = current(&mut context)?
        && floor >= number
    {
        return Ok(floor);
    }
    write(&mut context, number)?;
    Ok(number)
}

fn current(context: &mut Context) -> Result<Option<u64>, Fault> {
    let Some(handle) = handles::nv_index(context, FLOOR)? else { return Ok(None) };
    let (public, _) = context.execute_without_session(|c| c.nv_read_public(handle)).map_err(tss(READ))?;
    if public.data_size() != usize::from(LEN) {
        return Err(refused(READ, "another program uses this index"));
    }
    let attributes = public.attributes();
    // Defined, and not written yet: a power cut in between.
    if !attributes.written() {
        return Ok(None);
    }
    let value = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.nv_read(NvAuth::NvIndex(handle), handle, LEN, 0)
        })
        .map_err(tss(READ))?;
    let value = value.value().try_into().map_err(|_| refused(READ, "the value is not 8 bytes long"))?;
    Ok(Some(u64::from_be_bytes(value)))
}

fn write(context: &mut Context, number: u64) -> Result<(), Fault> {
    let handle = match handles::nv_index(context, FLOOR)? {
        Some(handle) => handle,
        None => define(context)?,
    };
    let value = MaxNvBuffer::try_from(number.to_be_bytes().to_vec()).map_err(tss(WRITE))?;
    context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.nv_write(NvAuth::NvIndex(handle), handle, value, 0)
        })
        .map_err(tss(WRITE))
}

fn define(context: &mut Context) -> Result<NvIndexHandle, Fault> {
    const WHAT: &str = "TPM2_NV_DefineSpace (version floor)";
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Ordinary)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_owner_read(true)
        .with_no_da(true)
        .build()
        .map_err(tss(WHAT))?;
    let public = NvPublic::builder()
        .with_nv_index(NvIndexTpmHandle::new(FLOOR).map_err(tss(WHAT))?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(usize::from(LEN))
        .build()
        .map_err(tss(WHAT))?;
    context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.nv_define_space(Provision::Owner, None, public)
        })
        .map_err(tss(WHAT))
}

//! The rollback counter: an NV counter index. TPM 2.0 Part 1, 37.2.4.
//!
//! Not ORDERLY, so every increment is in flash before it is answered and none is lost to a power cut. Never undefined
//! here: a counter from earlier keys on this TPM goes on counting.
//! Beside it, the counter of staged logs: it moves when a staged log is kept and when one is begun, so that each can be
//! begun once, whatever comes back from a copy of the disk. It is defined when it is first wanted.
//! Refuses: an index at our handle that is not such a counter.

use super::address::Address;
use super::fault::{Fault, evidence, refused, tss};
use super::handles::{self, ATTESTATION, COUNTER, STAGED};
use super::link::Link;
use super::wire::Command;
use crate::KeyError;
use crate::device::CounterCertificate;
use bulla_formats::tpm::{NvPublic as Parsed, TpmError, TpmtPublic, verify_nv_certify};
use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributesBuilder;
use tss_esapi::constants::NvIndexType;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::NvPublic;

const LEN: u16 = 8;

/// Finds or defines the counter and increments it once, so that it has a value. Gives its TPMS_NV_PUBLIC.
pub(super) fn ensure(
    context: &mut Context,
    session: AuthSession,
    address: &Address,
) -> Result<Vec<u8>, Fault> {
    let handle = match handles::nv_index(context, COUNTER)? {
        Some(handle) => handle,
        None => define(context, session, COUNTER)?,
    };
    increment(context, session, handle)?;
    let public = read_public(address, COUNTER)?;
    Parsed::parse(&public).and_then(|public| public.check_counter()).map_err(evidence("rollback counter"))?;
    Ok(public)
}

fn define(context: &mut Context, session: AuthSession, index: u32) -> Result<NvIndexHandle, Fault> {
    const WHAT: &str = "TPM2_NV_DefineSpace";
    let attributes = NvIndexAttributesBuilder::new()
        .with_nv_index_type(NvIndexType::Counter)
        .with_auth_read(true)
        .with_auth_write(true)
        .with_owner_read(true)
        .with_no_da(true)
        .build()
        .map_err(tss(WHAT))?;
    let public = NvPublic::builder()
        .with_nv_index(NvIndexTpmHandle::new(index).map_err(tss(WHAT))?)
        .with_index_name_algorithm(HashingAlgorithm::Sha256)
        .with_index_attributes(attributes)
        .with_data_area_size(usize::from(LEN))
        .build()
        .map_err(tss(WHAT))?;
    context
        .execute_with_session(Some(session), |c| c.nv_define_space(Provision::Owner, None, public))
        .map_err(tss(WHAT))
}

/// Opens the counter, which must have this TPMS_NV_PUBLIC.
pub(super) fn open_known(
    context: &mut Context,
    address: &Address,
    expected: &[u8],
) -> Result<NvIndexHandle, Fault> {
    let lost = || Fault::Key(KeyError::Lost { object: "rollback counter" });
    let handle = handles::nv_index(context, COUNTER)?.ok_or_else(lost)?;
    if read_public(address, COUNTER)? == expected { Ok(handle) } else { Err(lost()) }
}

fn increment(context: &mut Context, session: AuthSession, handle: NvIndexHandle) -> Result<(), Fault> {
    context
        .execute_with_session(Some(session), |c| c.nv_increment(NvAuth::NvIndex(handle), handle))
        .map_err(tss("TPM2_NV_Increment"))
}

/// TPM2_NV_Read of the value.
pub(super) fn read(link: &mut Link) -> Result<u64, Fault> {
    let handle = link.counter;
    read_of(link, handle, "TPM2_NV_Read (rollback counter)")
}

fn read_of(link: &mut Link, handle: NvIndexHandle, what: &'static str) -> Result<u64, Fault> {
    let value = link.authorized(|c| c.nv_read(NvAuth::NvIndex(handle), handle, LEN, 0)).map_err(tss(what))?;
    let value = value.value().try_into().map_err(|_| refused(what, "the value is not 8 bytes long"))?;
    Ok(u64::from_be_bytes(value))
}

/// TPM2_NV_Increment and the new value.
pub(super) fn advance(link: &mut Link) -> Result<u64, Fault> {
    let (session, handle) = (link.session, link.counter);
    increment(&mut link.context, session, handle)?;
    // It is done now: no failure from here on may look as if the increment could be repeated.
    read(link).map_err(|fault| {
        let reason = format!("incremented, but then: {}", KeyError::from(fault));
        Fault::Key(KeyError::Unavailable { what: "TPM2_NV_Increment", reason })
    })
}

/// TPM2_NV_Read of the counter of staged logs; `None` while no log was ever staged on this TPM.
pub(super) fn staged(link: &mut Link, address: &Address) -> Result<Option<u64>, Fault> {
    const WHAT: &str = "counter of staged logs";
    let Some(handle) = handles::nv_index(&mut link.context, STAGED)? else { return Ok(None) };
    let public = read_public(address, STAGED)?;
    Parsed::parse(&public).and_then(|public| public.check_counter()).map_err(evidence(WHAT))?;
    read_of(link, handle, WHAT).map(Some)
}

/// TPM2_NV_Increment of the counter of staged logs, which is defined when it is not there.
pub(super) fn advance_staged(link: &mut Link) -> Result<(), Fault> {
    let session = link.session;
    let handle = match handles::nv_index(&mut link.context, STAGED)? {
        Some(handle) => handle,
        None => define(&mut link.context, session, STAGED)?,
    };
    increment(&mut link.context, session, handle)
}

/// TPM2_NV_Certify by the attestation key.
pub(super) fn certify(
    address: &Address,
    ak: &TpmtPublic,
    nv_public: &[u8],
    qualifying: &[u8; 32],
) -> Result<CounterCertificate, Fault> {
    const WHAT: &str = "TPM2_NV_Certify";
    const ALG_NULL: u16 = 0x0010;
    let mut response = Command::new(WHAT, 0x184)
        .authorized(ATTESTATION)
        .authorized(COUNTER)
        .handle(COUNTER)
        .digest(qualifying)
        .u16(ALG_NULL)
        .u16(LEN)
        .u16(0)
        .send(address)?;
    let attest = response.sized()?;
    let signature = response.remaining();
    let facts = verify_nv_certify(ak, &attest, &signature, qualifying).map_err(evidence(WHAT))?;
    let public = Parsed::parse(nv_public).map_err(evidence(WHAT))?;
    if facts.index_name != public.name() {
        return Err(evidence(WHAT)(TpmError::Mismatch { field: "nv.indexName" }));
    }
    Ok(CounterCertificate { attest, signature, nv_public: nv_public.to_vec(), value: facts.counter })
}

/// TPM2_NV_ReadPublic in the very bytes the index's name is computed over.
fn read_public(address: &Address, index: u32) -> Result<Vec<u8>, Fault> {
    Command::new("TPM2_NV_ReadPublic", 0x169).handle(index).send(address)?.sized()
}

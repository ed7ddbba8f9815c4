//! The two persistent keys: the attestation key under the endorsement key, the storage key under the owner.
//!
//! Re-used when an earlier set of keys on this TPM left them; both are recognised by template and ancestry.
//! Refuses: a handle that somebody else's object occupies. It is never evicted.
//! Invariant: the attestation key lies in the endorsement hierarchy, so that the TPM does not obfuscate clock, reset
//! and firmware numbers in what it signs (Part 1, 36.7).

use super::ek::{self, Ek};
use super::fault::{Fault, evidence, refused, tss};
use super::handles::{self, ATTESTATION, OWNER_HIERARCHY, STORAGE};
use super::template;
use bulla_formats::tpm::{TpmtPublic, check_ak_template};
use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::traits::Marshall;

/// Finds or makes the attestation key.
pub(super) fn attestation(
    context: &mut Context,
    session: AuthSession,
    ek: &Ek,
) -> Result<(KeyHandle, TpmtPublic), Fault> {
    const WHAT: &str = "attestation key";
    if let Some(handle) = handles::persistent(context, ATTESTATION)? {
        let (public, qualified) = read(context, handle, WHAT)?;
        check_ak_template(&public).map_err(evidence(WHAT))?;
        if qualified != handles::qualified_name(&ek.qualified_name, &public.name()) {
            return Err(occupied(WHAT, ATTESTATION));
        }
        return Ok((handle, public));
    }
    let template = template::attestation()?;
    let created = ek::with_policy(context, session, ek, "TPM2_Create (attestation key)", |c| {
        c.create(ek.handle, template, None, None, None, None)
    })?;
    let handle = ek::with_policy(context, session, ek, "TPM2_Load (attestation key)", |c| {
        c.load(ek.handle, created.out_private, created.out_public)
    })?;
    let handle = persist(context, session, handle, ATTESTATION)?;
    let (public, _) = read(context, handle, WHAT)?;
    check_ak_template(&public).map_err(evidence(WHAT))?;
    Ok((handle, public))
}

/// Finds or makes the storage key.
pub(super) fn storage(context: &mut Context, session: AuthSession) -> Result<(KeyHandle, TpmtPublic), Fault> {
    const WHAT: &str = "storage key";
    if let Some(handle) = handles::persistent(context, STORAGE)? {
        let (public, qualified) = read(context, handle, WHAT)?;
        if qualified != handles::qualified_name(&OWNER_HIERARCHY.to_be_bytes(), &public.name()) {
            return Err(occupied(WHAT, STORAGE));
        }
        return Ok((handle, public));
    }
    let template = template::storage()?;
    let created = context
        .execute_with_session(Some(session), |c| {
            c.create_primary(Hierarchy::Owner, template, None, None, None, None)
        })
        .map_err(tss("TPM2_CreatePrimary (storage key)"))?;
    let handle = persist(context, session, created.key_handle, STORAGE)?;
    let (public, _) = read(context, handle, WHAT)?;
    Ok((handle, public))
}

/// Opens a persistent key that must have this public area.
pub(super) fn open_known(
    context: &mut Context,
    handle: u32,
    expected: &[u8],
    object: &'static str,
) -> Result<KeyHandle, Fault> {
    let lost = || Fault::Key(crate::KeyError::Lost { object });
    let key = handles::persistent(context, handle)?.ok_or_else(lost)?;
    let (public, _) = read(context, key, object)?;
    if public.as_bytes() == expected { Ok(key) } else { Err(lost()) }
}

/// Moves a transient object to a persistent handle; its slot is freed whatever happens.
fn persist(
    context: &mut Context,
    session: AuthSession,
    transient: KeyHandle,
    handle: u32,
) -> Result<KeyHandle, Fault> {
    const WHAT: &str = "TPM2_EvictControl";
    let target = PersistentTpmHandle::new(handle).map_err(tss(WHAT))?;
    let persisted = context.execute_with_session(Some(session), |c| {
        c.evict_control(Provision::Owner, transient.into(), Persistent::Persistent(target))
    });
    let flushed = context.flush_context(ObjectHandle::from(transient));
    let persisted = persisted.map_err(tss(WHAT))?;
    flushed.map_err(tss("TPM2_FlushContext"))?;
    Ok(persisted.into())
}

fn read(
    context: &mut Context,
    handle: KeyHandle,
    what: &'static str,
) -> Result<(TpmtPublic, Vec<u8>), Fault> {
    let (public, _, qualified) =
        context.execute_without_session(|c| c.read_public(handle)).map_err(tss("TPM2_ReadPublic"))?;
    let public = public.marshall().map_err(tss("TPM2_ReadPublic"))?;
    let public = TpmtPublic::parse(&public).map_err(evidence(what))?;
    Ok((public, qualified.value().to_vec()))
}

fn occupied(what: &'static str, handle: u32) -> Fault {
    refused(what, format!("persistent handle {handle:#x} holds somebody else's object; move it away"))
}

//! The end of a box's keys in its TPM: a farewell key, TPM2_Clear, and the farewell key's quote afterwards.
//!
//! TPM2_Clear (TPM 2.0 Part 3, 24.6) makes a new storage seed, so that nothing that was ever wrapped or sealed under the
//! owner loads again, removes what is persistent in the owner's and endorsement hierarchies, and sets clock, reset and
//! restart count to zero. Nor does anything load that was made *under* the endorsement key: the proof of that hierarchy goes
//! into the seed with which a primary storage key protects its children, and it is new, too. But the endorsement primary seed
//! stays, so a primary *signing* key of that hierarchy comes back from its template as the endorsement key itself does. The
//! attestation key certifies such a key before, and its quote afterwards shows the clock.
//! Refuses: what does not verify. Invariant: everything here may be repeated after a death at any moment.

use super::address::Address;
use super::fault::{Fault, evidence, refused, tss};
use super::handles::{self, ATTESTATION, COUNTER, STORAGE};
use super::link::{self, Link};
use super::wire::Command;
use super::{ek, quote, template};
use crate::KeyError;
use crate::device::{Cleared, ENDORSED_PCRS, FarewellKey, Quote};
use bulla_formats::tpm::{TpmtPublic, check_ak_template, verify_certify};
use tss_esapi::Context;
use tss_esapi::constants::StartupType;
use tss_esapi::handles::{KeyHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Data, SignatureScheme};
use tss_esapi::traits::Marshall;

/// Random bytes in the template, so that every retirement has a key of its own.
const UNIQUE: usize = 32;
const LOCKOUT: u32 = 0x4000_000a;
const OWNER: u32 = handles::OWNER_HIERARCHY;

/// Makes a farewell key and has the attestation key certify it under this qualifying data.
pub(super) fn make(link: &mut Link, ak: &TpmtPublic, qualifying: &[u8; 32]) -> Result<FarewellKey, Fault> {
    const WHAT: &str = "TPM2_Certify (farewell key)";
    link.unload()?;
    let unique = link.authorized(|c| c.get_random(UNIQUE)).map_err(tss("TPM2_GetRandom"))?.value().to_vec();
    let (handle, public) = derive(&mut link.context, &unique)?;
    let session = link.session;
    let data = Data::try_from(qualifying.to_vec()).map_err(tss(WHAT))?;
    let sessions = (Some(session), Some(AuthSession::Password), None);
    let attestation = link.attestation;
    let certified = link.context.execute_with_sessions(sessions, |c| {
        c.certify(handle.into(), attestation, data, SignatureScheme::Null)
    });
    let flushed = link.context.flush_context(ObjectHandle::from(handle));
    let (attest, signature) = certified.map_err(tss(WHAT))?;
    flushed.map_err(tss("TPM2_FlushContext"))?;
    let attest = attest.marshall().map_err(tss(WHAT))?;
    let signature = signature.marshall().map_err(tss(WHAT))?;
    let parsed = TpmtPublic::parse(&public).map_err(evidence(WHAT))?;
    check_ak_template(&parsed).map_err(evidence(WHAT))?;
    verify_certify(ak, &attest, &signature, qualifying, &parsed.name()).map_err(evidence(WHAT))?;
    Ok(FarewellKey { public, unique, attest, signature })
}

/// Derives the key from the endorsement primary seed; the same one every time. Its handle, and its TPMT_PUBLIC.
fn derive(context: &mut Context, unique: &[u8]) -> Result<(KeyHandle, Vec<u8>), Fault> {
    const WHAT: &str = "TPM2_CreatePrimary (farewell key)";
    let template = template::farewell(unique)?;
    let created = context
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.create_primary(Hierarchy::Endorsement, template, None, None, None, None)
        })
        .map_err(tss(WHAT))?;
    let public = created.out_public.marshall().map_err(tss(WHAT))?;
    Ok((created.key_handle, public))
}

/// TPM2_Clear with the empty password of the lockout authority; where the TPM does not permit that, our persistent
/// objects and the counter are removed one by one.
pub(crate) fn clear(address: &Address) -> Result<Cleared, KeyError> {
    match Command::new("TPM2_Clear", 0x126).authorized(LOCKOUT).send(address) {
        Ok(_) => Ok(Cleared::Cleared),
        Err(Fault::Rejected { rc, .. } | Fault::Stale { rc, .. }) => {
            remove(address)?;
            Ok(Cleared::NotPermitted { rc })
        }
        // In lockout, the lockout authority answers to nobody for a day.
        Err(Fault::Key(KeyError::Unavailable { reason, .. })) if reason.contains("lockout") => {
            remove(address)?;
            Ok(Cleared::NotPermitted { rc: 0x921 })
        }
        Err(fault) => Err(fault.into()),
    }
}

fn remove(address: &Address) -> Result<(), Fault> {
    let mut context = link::context(address)?;
    let there = |context: &mut _, handle| handles::exists(context, handle);
    for handle in [ATTESTATION, STORAGE] {
        if there(&mut context, handle)? {
            Command::new("TPM2_EvictControl", 0x120)
                .authorized(OWNER)
                .handle(handle)
                .u32(handle)
                .send(address)?;
        }
    }
    if there(&mut context, COUNTER)? {
        Command::new("TPM2_NV_UndefineSpace", 0x122).authorized(OWNER).handle(COUNTER).send(address)?;
    }
    Ok(())
}

/// Derives the farewell key again, in the TPM with this endorsement key, and has it quote.
pub(crate) fn quote(
    address: &Address,
    ek_public: &TpmtPublic,
    key: &FarewellKey,
    qualifying: &[u8; 32],
) -> Result<Quote, KeyError> {
    Ok(quoted(address, ek_public, key, qualifying)?)
}

fn quoted(
    address: &Address,
    ek_public: &TpmtPublic,
    key: &FarewellKey,
    qualifying: &[u8; 32],
) -> Result<Quote, Fault> {
    const WHAT: &str = "the farewell key";
    let mut context = link::context(address)?;
    let ek = ek::open_known(&mut context, ek_public)?;
    let session = ek::salted_session(&mut context, &ek)?;
    ek.release(&mut context)?;
    let parsed = TpmtPublic::parse(&key.public).map_err(evidence(WHAT))?;
    let (handle, public) = derive(&mut context, &key.unique)?;
    if public != key.public {
        return Err(refused(WHAT, "the TPM derives another one: its endorsement seed was changed"));
    }
    let quoted = quote::quote_with(&mut context, session, handle, &parsed, qualifying, &ENDORSED_PCRS);
    let flushed = context.flush_context(ObjectHandle::from(handle));
    let ended = context.flush_context(SessionHandle::from(session).into());
    let quoted = quoted?;
    flushed.map_err(tss("TPM2_FlushContext"))?;
    ended.map_err(tss("TPM2_FlushContext"))?;
    if matches!(address, Address::Swtpm { .. }) {
        context.shutdown(StartupType::Clear).map_err(tss("TPM2_Shutdown"))?;
    }
    Ok(quoted)
}

//! One connection to the TPM in which our keys live: TSS context, salted session, open persistent objects.
//!
//! Refuses: another TPM, and one that lost our objects.
//! Invariant: a `Link` exists only after endorsement, attestation and storage key and the counter were compared with
//! the stored ones. Dropping it flushes what it loaded.

use super::address::Address;
use super::fault::{Fault, evidence, tss};
use super::handles::{ATTESTATION, STORAGE};
use super::{counter, ek, flush, resident};
use crate::device::Role;
use crate::state::TpmState;
use bulla_formats::tpm::TpmtPublic;
use tss_esapi::Context;
use tss_esapi::constants::StartupType;
use tss_esapi::handles::{KeyHandle, NvIndexHandle, ObjectHandle, SessionHandle};
use tss_esapi::interface_types::session_handles::AuthSession;

/// A connection that has been checked.
pub(super) struct Link {
    pub context: Context,
    pub session: AuthSession,
    pub attestation: KeyHandle,
    pub storage: KeyHandle,
    pub counter: NvIndexHandle,
    /// The one service key that is loaded.
    pub loaded: Option<(Role, KeyHandle)>,
}

/// Flushes leftovers and opens a context.
pub(super) fn context(address: &Address) -> Result<Context, Fault> {
    flush::leftovers(address)?;
    Context::new(address.name_conf()?).map_err(tss("connecting to the TPM"))
}

impl Link {
    /// Connects to the TPM that holds these keys.
    pub(super) fn connect(address: &Address, state: &TpmState) -> Result<Self, Fault> {
        let mut context = context(address)?;
        let expected = TpmtPublic::parse(&state.ek_public).map_err(evidence("stored endorsement key"))?;
        let ek = ek::open_known(&mut context, &expected)?;
        let session = ek::salted_session(&mut context, &ek)?;
        ek.release(&mut context)?;
        let attestation =
            resident::open_known(&mut context, ATTESTATION, &state.attestation_public, "attestation key")?;
        let storage = resident::open_known(&mut context, STORAGE, &state.storage_public, "storage key")?;
        let counter = counter::open_known(&mut context, address, &state.counter_public)?;
        Ok(Self { context, session, attestation, storage, counter, loaded: None })
    }

    /// Runs a command under the salted session.
    pub(super) fn authorized<T>(
        &mut self,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        self.context.execute_with_session(Some(self.session), command)
    }

    /// Flushes the loaded service key.
    pub(super) fn unload(&mut self) -> Result<(), Fault> {
        match self.loaded.take() {
            Some((_, handle)) => {
                self.context.flush_context(ObjectHandle::from(handle)).map_err(tss("TPM2_FlushContext"))
            }
            None => Ok(()),
        }
    }

    /// Flushes everything of ours. With `power_off`, TPM2_Shutdown(CLEAR) comes last: it tells the TPM that a loss of
    /// power from here on is orderly, and any later command would take that back.
    pub(super) fn close(mut self, power_off: bool) -> Result<(), Fault> {
        self.unload()?;
        self.context
            .flush_context(SessionHandle::from(self.session).into())
            .map_err(tss("TPM2_FlushContext"))?;
        if power_off {
            self.context.shutdown(StartupType::Clear).map_err(tss("TPM2_Shutdown"))?;
        }
        Ok(())
    }
}

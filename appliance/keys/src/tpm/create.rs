//! Making the keys of a box in its TPM.
//!
//! Order: endorsement key, salted session, attestation key, storage key, counter, service keys. A crash in between
//! leaves persistent objects that the next attempt finds and re-uses.

use super::address::Address;
use super::fault::Fault;
use super::link::{self, Link};
use super::{counter, ek, handles, resident, service_key};
use crate::KeyError;
use crate::device::Role;
use crate::state::{HexBytes, TpmState};

pub(super) fn create(address: &Address) -> Result<TpmState, Fault> {
    let mut context = link::context(address)?;
    let (ek, certificate) = ek::choose(&mut context)?;
    let mut ek_certificates: Vec<HexBytes> = certificate.map(HexBytes).into_iter().collect();
    if !ek_certificates.is_empty() {
        ek_certificates.extend(ek::read_chain(&mut context)?.into_iter().map(HexBytes));
    }
    let session = ek::salted_session(&mut context, &ek)?;
    let (attestation, ak) = resident::attestation(&mut context, session, &ek)?;
    let ek_public = ek.public.as_bytes().to_vec();
    ek.release(&mut context)?;
    let (storage, storage_public) = resident::storage(&mut context, session)?;
    let counter_public = counter::ensure(&mut context, session, address)?;
    let counter = handles::nv_index(&mut context, handles::COUNTER)?
        .ok_or(Fault::Key(KeyError::Lost { object: "rollback counter" }))?;
    let mut link = Link { context, session, attestation, storage, counter, loaded: None };
    Ok(TpmState {
        ek_public,
        ek_certificates,
        attestation_public: ak.as_bytes().to_vec(),
        storage_public: storage_public.as_bytes().to_vec(),
        counter_public,
        tls: service_key::create(&mut link, Role::Tls, &ak)?,
        issuing: service_key::create(&mut link, Role::Issuing, &ak)?,
        sealing: service_key::create(&mut link, Role::Sealing, &ak)?,
    })
}

//! The TPM provider: one file per kind of TPM operation, and the machine that keeps a connection alive.
//!
//! Invariant: an operation with a lasting effect (a counter increment) is never repeated when its fate is unknown.

mod activate;
mod address;
mod counter;
mod create;
mod ek;
mod ek_certificate;
mod farewell;
mod fault;
pub(crate) mod floor;
mod flush;
pub(crate) mod fuzzing;
mod handles;
mod link;
mod quote;
mod resident;
mod seal;
mod service_key;
mod template;
mod wire;

pub(crate) use address::Address;
pub(crate) use farewell::{clear, quote as farewell_quote};
pub(crate) use quote::selection;

use crate::KeyError;
use crate::device::{Certification, CounterCertificate, Device, DeviceKey, FarewellKey, Quote, Role};
use crate::state::{TpmState, WrappedKey};
use bulla_formats::enrolment::Hardware;
use bulla_formats::hash::sha256;
use bulla_formats::tpm::{TpmtPublic, check_ak_template, check_signing_key_template, verify_certify};
use fault::Fault;
use link::Link;
use zeroize::Zeroizing;

/// Makes keys in the TPM at `address`.
pub(crate) fn create(address: &Address) -> Result<TpmState, KeyError> {
    create::create(address).map_err(KeyError::from)
}

/// Checks stored keys against each other and describes them. Needs no TPM.
pub(crate) fn describe(state: &TpmState) -> Result<Device, KeyError> {
    let damaged = |what: &str| {
        let what = format!("the stored {what}");
        move |error: bulla_formats::tpm::TpmError| KeyError::Damaged { what, reason: error.to_string() }
    };
    let ek = TpmtPublic::parse(&state.ek_public).map_err(damaged("endorsement key"))?;
    let ak = TpmtPublic::parse(&state.attestation_public).map_err(damaged("attestation key"))?;
    check_ak_template(&ak).map_err(damaged("attestation key"))?;
    let service = |role: Role, key: &WrappedKey| {
        let what = format!("{} key", role.name());
        let public = TpmtPublic::parse(&key.public).map_err(damaged(&what))?;
        check_signing_key_template(&public).map_err(damaged(&what))?;
        let qualifying = role.certification_qualifying();
        verify_certify(&ak, &key.attest, &key.signature, &qualifying, &public.name())
            .map_err(damaged(&what))?;
        Ok::<_, KeyError>(DeviceKey {
            role,
            spki: public.spki_der(),
            point: public.p256_point().map_err(damaged(&what))?,
            certification: Some(Certification {
                tpmt_public: key.public.clone(),
                attest: key.attest.clone(),
                signature: key.signature.clone(),
                qualifying,
            }),
        })
    };
    let attestation = DeviceKey {
        role: Role::Attestation,
        spki: ak.spki_der(),
        point: ak.p256_point().map_err(damaged("attestation key"))?,
        certification: None,
    };
    Ok(Device {
        hardware: Hardware::Tpm,
        ek_certificates: state.ek_certificates.iter().map(|bytes| bytes.0.clone()).collect(),
        ek_spki_sha256: sha256(&[&ek.spki_der()]),
        ek_public: state.ek_public.clone(),
        counter_public: state.counter_public.clone(),
        attestation_public: state.attestation_public.clone(),
        keys: [
            attestation,
            service(Role::Tls, &state.tls)?,
            service(Role::Issuing, &state.issuing)?,
            service(Role::Sealing, &state.sealing)?,
        ],
    })
}

/// Whether an operation may run twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// Twice is as good as once.
    Harmless,
    /// Twice differs from once.
    Never,
}

/// Owns the connection; lives in the service's thread.
pub(crate) struct Machine {
    address: Address,
    state: TpmState,
    ak: TpmtPublic,
    device: Device,
    link: Option<Link>,
}

impl Machine {
    /// Prepares, without connecting.
    pub(crate) fn new(address: Address, state: TpmState, device: Device) -> Result<Self, KeyError> {
        let ak = TpmtPublic::parse(&state.attestation_public).map_err(|error| KeyError::Damaged {
            what: "the stored attestation key".into(),
            reason: error.to_string(),
        })?;
        Ok(Self { address, state, ak, device, link: None })
    }

    /// Runs an operation on a live connection, rebuilding it once when the TPM restarted since.
    fn run<T>(
        &mut self,
        repeat: Repeat,
        mut operation: impl FnMut(&mut Link, &Self) -> Result<T, Fault>,
    ) -> Result<T, KeyError> {
        let mut again = true;
        loop {
            let mut link = match self.link.take() {
                Some(link) => link,
                None => Link::connect(&self.address, &self.state)?,
            };
            let fault = match operation(&mut link, self) {
                Ok(value) => {
                    self.link = Some(link);
                    return Ok(value);
                }
                Err(fault) => fault,
            };
            let may_repeat = match &fault {
                Fault::Stale { .. } => true,
                Fault::Transport { .. } => repeat == Repeat::Harmless,
                // Perhaps another TPM sits at the address now; reconnecting tells.
                Fault::Key(KeyError::Evidence { .. }) => repeat == Repeat::Harmless,
                Fault::Rejected { .. } | Fault::Key(_) => {
                    // The connection is fine, the operation is not.
                    self.link = Some(link);
                    return Err(fault.into());
                }
            };
            log::warn!(
                "TPM connection lost, {}: {fault:?}",
                if again { "rebuilding it" } else { "giving up" }
            );
            drop(link);
            if !(again && may_repeat) {
                return Err(fault.into());
            }
            again = false;
        }
    }

    /// Connects, if it is not connected.
    pub(crate) fn connect(&mut self) -> Result<(), KeyError> {
        self.run(Repeat::Harmless, |_, _| Ok(()))
    }

    pub(crate) fn quote(&mut self, qualifying: &[u8; 32], pcrs: &[u8]) -> Result<Quote, KeyError> {
        self.run(Repeat::Harmless, |link, machine| quote::quote(link, &machine.ak, qualifying, pcrs))
    }

    pub(crate) fn sign(&mut self, role: Role, digest: &[u8; 32]) -> Result<[u8; 64], KeyError> {
        self.run(Repeat::Harmless, |link, machine| {
            let key = machine.wrapped(role)?;
            service_key::sign(link, role, key, &machine.device.key(role).point, digest)
                .map_err(|fault| service_key::not_ours(fault, role.name()))
        })
    }

    pub(crate) fn counter(&mut self) -> Result<u64, KeyError> {
        self.run(Repeat::Harmless, |link, _| counter::read(link))
    }

    pub(crate) fn counter_increment(&mut self) -> Result<u64, KeyError> {
        self.run(Repeat::Never, |link, _| counter::advance(link))
    }

    pub(crate) fn counter_certify(&mut self, qualifying: &[u8; 32]) -> Result<CounterCertificate, KeyError> {
        self.run(Repeat::Harmless, |_, machine| {
            counter::certify(&machine.address, &machine.ak, &machine.state.counter_public, qualifying)
        })
    }

    pub(crate) fn staged(&mut self) -> Result<Option<u64>, KeyError> {
        self.run(Repeat::Harmless, |link, machine| counter::staged(link, &machine.address))
    }

    pub(crate) fn advance_staged(&mut self) -> Result<(), KeyError> {
        self.run(Repeat::Never, |link, _| counter::advance_staged(link))
    }

    pub(crate) fn activate(
        &mut self,
        id_object: &[u8],
        secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.run(Repeat::Harmless, |link, machine| {
            let ek = TpmtPublic::parse(&machine.state.ek_public)
                .map_err(fault::evidence("stored endorsement key"))?;
            activate::activate(link, &ek, id_object, secret)
        })
    }

    pub(crate) fn certify(&mut self, role: Role, qualifying: &[u8; 32]) -> Result<Certification, KeyError> {
        self.run(Repeat::Harmless, |link, machine| {
            let key = machine.wrapped(role)?;
            service_key::certify(link, role, &machine.ak, key, qualifying)
                .map_err(|fault| service_key::not_ours(fault, role.name()))
        })
    }

    pub(crate) fn farewell(&mut self, qualifying: &[u8; 32]) -> Result<FarewellKey, KeyError> {
        self.run(Repeat::Harmless, |link, machine| farewell::make(link, &machine.ak, qualifying))
    }

    fn wrapped(&self, role: Role) -> Result<&WrappedKey, Fault> {
        match role {
            Role::Attestation => Err(Fault::Key(KeyError::AttestationIsNoOracle)),
            Role::Tls => Ok(&self.state.tls),
            Role::Issuing => Ok(&self.state.issuing),
            Role::Sealing => Ok(&self.state.sealing),
        }
    }

    pub(crate) fn seal(&mut self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.run(Repeat::Harmless, |link, _| seal::seal(link, secret))
    }

    pub(crate) fn unseal(&mut self, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        self.run(Repeat::Harmless, |link, _| seal::unseal(link, blob))
    }

    /// Flushes everything and, for swtpm, announces the loss of power. A kernel does that for its devices itself.
    pub(crate) fn close(&mut self) {
        let power_off = matches!(self.address, Address::Swtpm { .. });
        if let Some(link) = self.link.take()
            && let Err(fault) = link.close(power_off)
        {
            log::warn!("closing the TPM connection: {fault:?}");
        }
    }
}

//! TPM2_ActivateCredential: the TPM gives out a registrar's secret, which only it can read, and only while it holds the
//! attestation key that the secret was made for. TPM 2.0 Part 1, 24.
//!
//! Refuses: nothing by itself; the TPM refuses a credential for another key or another TPM.
//! Invariant: the secret crosses the bus under the session that is salted to the endorsement key, never in the clear.

use super::ek;
use super::fault::{Fault, tss};
use super::link::Link;
use bulla_formats::tpm::TpmtPublic;
use tss_esapi::structures::{EncryptedSecret, IdObject};
use zeroize::Zeroizing;

/// Reads the secret in a credential: TPMS_ID_OBJECT and encrypted secret.
pub(super) fn activate(
    link: &mut Link,
    ek: &TpmtPublic,
    id_object: &[u8],
    secret: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Fault> {
    const WHAT: &str = "TPM2_ActivateCredential";
    let id_object = IdObject::try_from(id_object.to_vec()).map_err(tss(WHAT))?;
    let secret = EncryptedSecret::try_from(secret.to_vec()).map_err(tss(WHAT))?;
    // The endorsement key takes a slot, even a persistent one while it is used.
    link.unload()?;
    let (session, attestation) = (link.session, link.attestation);
    let context = &mut link.context;
    let ek = ek::open_known(context, ek)?;
    let handle = ek.handle;
    let activated = ek::with_policy_beside(context, session, &ek, WHAT, |context| {
        context.activate_credential(attestation, handle, id_object, secret)
    });
    let released = ek.release(context);
    let secret = Zeroizing::new(activated?.value().to_vec());
    released?;
    Ok(secret)
}

//! Service keys under the storage key: TPM2_Create, TPM2_Load, TPM2_Certify by the attestation key, TPM2_Sign.
//!
//! Refuses: to hand out a certification or signature that does not verify.
//! Invariant: at most one service key is loaded at a time, so that two of the TPM's three slots stay free.

use super::fault::{Fault, evidence, refused, tss};
use super::link::Link;
use super::template;
use crate::KeyError;
use crate::device::{Certification, Role};
use crate::state::WrappedKey;
use bulla_formats::tpm::{TpmtPublic, TpmtSignature, check_signing_key_template, verify_certify};
use p256::ecdsa::signature::hazmat::PrehashVerifier;
use tss_esapi::constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK};
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Data, Digest, HashcheckTicket, Private, Public, SignatureScheme};
use tss_esapi::traits::{Marshall, UnMarshall};
use tss_esapi::tss2_esys::TPMT_TK_HASHCHECK;

/// Makes the key of a role and has the attestation key certify it.
pub(super) fn create(link: &mut Link, role: Role, ak: &TpmtPublic) -> Result<WrappedKey, Fault> {
    const WHAT: &str = "TPM2_Create (service key)";
    let template = template::service()?;
    let storage = link.storage;
    let created =
        link.authorized(|c| c.create(storage, template, None, None, None, None)).map_err(tss(WHAT))?;
    let mut key = WrappedKey {
        public: created.out_public.marshall().map_err(tss(WHAT))?,
        private: created.out_private.value().to_vec(),
        attest: Vec::new(),
        signature: Vec::new(),
    };
    let certification = certify(link, role, ak, &key, &role.certification_qualifying())?;
    (key.attest, key.signature) = (certification.attest, certification.signature);
    link.unload()?;
    Ok(key)
}

/// Has the attestation key certify the key of a role under this qualifying data.
pub(super) fn certify(
    link: &mut Link,
    role: Role,
    ak: &TpmtPublic,
    key: &WrappedKey,
    qualifying: &[u8; 32],
) -> Result<Certification, Fault> {
    const WHAT: &str = "TPM2_Certify";
    let handle = load(link, role, key)?;
    let data = Data::try_from(qualifying.to_vec()).map_err(tss(WHAT))?;
    let (session, attestation) = (link.session, link.attestation);
    // One session cannot authorize two handles of a command; the empty password of the second protects nothing anyway.
    let sessions = (Some(session), Some(AuthSession::Password), None);
    let (attest, signature) = link
        .context
        .execute_with_sessions(sessions, |c| {
            c.certify(handle.into(), attestation, data, SignatureScheme::Null)
        })
        .map_err(tss(WHAT))?;
    let certification = Certification {
        tpmt_public: key.public.clone(),
        attest: attest.marshall().map_err(tss(WHAT))?,
        signature: signature.marshall().map_err(tss(WHAT))?,
        qualifying: *qualifying,
    };
    let public = TpmtPublic::parse(&key.public).map_err(evidence(WHAT))?;
    check_signing_key_template(&public).map_err(evidence(WHAT))?;
    verify_certify(ak, &certification.attest, &certification.signature, qualifying, &public.name())
        .map_err(evidence(WHAT))?;
    Ok(certification)
}

/// Loads the key of a role, unless it is the one that is loaded.
fn load(link: &mut Link, role: Role, key: &WrappedKey) -> Result<KeyHandle, Fault> {
    const WHAT: &str = "TPM2_Load (service key)";
    if let Some((loaded, handle)) = link.loaded
        && loaded == role
    {
        return Ok(handle);
    }
    link.unload()?;
    let public = Public::unmarshall(&key.public).map_err(tss(WHAT))?;
    let private = Private::try_from(key.private.clone()).map_err(tss(WHAT))?;
    let storage = link.storage;
    let handle = link.authorized(|c| c.load(storage, private, public)).map_err(tss(WHAT))?;
    link.loaded = Some((role, handle));
    Ok(handle)
}

/// Signs a digest, r || s.
pub(super) fn sign(
    link: &mut Link,
    role: Role,
    key: &WrappedKey,
    point: &[u8; 65],
    digest: &[u8; 32],
) -> Result<[u8; 64], Fault> {
    const WHAT: &str = "TPM2_Sign";
    let handle = load(link, role, key)?;
    let data = Digest::try_from(digest.to_vec()).map_err(tss(WHAT))?;
    // The null ticket: an unrestricted key signs digests the TPM did not compute.
    let ticket = HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: Default::default(),
    })
    .map_err(tss(WHAT))?;
    let signature = link
        .authorized(|c| c.sign(handle, data, SignatureScheme::Null, ticket))
        .and_then(|signature| signature.marshall())
        .map_err(tss(WHAT))?;
    let signature = TpmtSignature::parse(&signature).map_err(evidence(WHAT))?.to_bytes();
    // A fault injected into the computation can give away the key through a wrong signature.
    let verified = p256::ecdsa::VerifyingKey::from_sec1_bytes(point)
        .and_then(|key| key.verify_prehash(digest, &p256::ecdsa::Signature::from_slice(&signature)?));
    verified.map_err(|_| refused(WHAT, "its signature does not verify"))?;
    Ok(signature)
}

/// What loading a key that is not this TPM's means.
pub(super) fn not_ours(fault: Fault, what: &str) -> Fault {
    const INTEGRITY: u32 = 0x1f;
    match fault {
        Fault::Rejected { rc, .. } if rc & 0xbf == 0x80 | INTEGRITY => Fault::Key(KeyError::Damaged {
            what: what.to_owned(),
            reason: "its TPM did not make it, or it was altered".into(),
        }),
        other => other,
    }
}

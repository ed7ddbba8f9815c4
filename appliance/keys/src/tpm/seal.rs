//! Sealed objects under the storage key: TPM2_Create with data from outside, TPM2_Load, TPM2_Unseal.
//!
//! Refuses: blobs that are not exactly version, private and public area. Invariant: secrets cross the bus encrypted,
//! and the loaded object is flushed on every path.
//!
//! Blob: 0x01, uint16 length and private area (TPM2B_PRIVATE), uint16 length and TPMT_PUBLIC; big-endian.

use super::fault::{Fault, tss};
use super::link::Link;
use super::service_key::not_ours;
use super::template;
use crate::KeyError;
use tss_esapi::handles::ObjectHandle;
use tss_esapi::structures::{Private, Public, SensitiveData};
use tss_esapi::traits::{Marshall, UnMarshall};
use zeroize::Zeroizing;

const VERSION: u8 = 1;

/// Seals a secret to this TPM.
pub(super) fn seal(link: &mut Link, secret: &[u8]) -> Result<Vec<u8>, Fault> {
    const WHAT: &str = "TPM2_Create (sealed object)";
    let template = template::sealed()?;
    let data = SensitiveData::try_from(secret).map_err(tss(WHAT))?;
    let storage = link.storage;
    let created =
        link.authorized(|c| c.create(storage, template, None, Some(data), None, None)).map_err(tss(WHAT))?;
    let public = created.out_public.marshall().map_err(tss(WHAT))?;
    let mut blob = vec![VERSION];
    for part in [created.out_private.value(), &public] {
        // Both are TPM2B contents, whose lengths are 16-bit numbers.
        blob.extend((part.len() as u16).to_be_bytes());
        blob.extend(part);
    }
    Ok(blob)
}

/// The inverse of [`seal`].
pub(super) fn unseal(link: &mut Link, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
    const WHAT: &str = "TPM2_Unseal";
    let damaged =
        || Fault::Key(KeyError::Damaged { what: "sealed blob".into(), reason: "not a sealed object".into() });
    let (private, public) = split(blob).ok_or_else(damaged)?;
    let public_area = Public::unmarshall(public).map_err(|_| damaged())?;
    // The TSS library ignores what follows the structure.
    if public_area.marshall().ok().as_deref() != Some(public) {
        return Err(damaged());
    }
    let private = Private::try_from(private.to_vec()).map_err(|_| damaged())?;
    let storage = link.storage;
    // The slot may be needed: storage key, attestation key in another connection, and this object.
    link.unload()?;
    let handle = link
        .authorized(|c| c.load(storage, private, public_area))
        .map_err(|error| not_ours(tss("TPM2_Load (sealed object)")(error), "sealed blob"))?;
    let object = ObjectHandle::from(handle);
    let unsealed = link.authorized(|c| c.unseal(object));
    let flushed = link.context.flush_context(object);
    let data = unsealed.map_err(tss(WHAT))?;
    flushed.map_err(tss("TPM2_FlushContext"))?;
    Ok(Zeroizing::new(data.value().to_vec()))
}

fn split(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = blob.strip_prefix(&[VERSION])?;
    let (private, rest) = sized(rest)?;
    let (public, rest) = sized(rest)?;
    rest.is_empty().then_some((private, public))
}

fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))
}

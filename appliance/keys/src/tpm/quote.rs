//! TPM2_Quote over PCRs of the SHA-256 bank, together with values that match it.
//!
//! Refuses: empty and repeated selections, indexes above 23, answers that do not verify.
//! Invariant: the values handed out hash to the digest in the quote; measurements that land in between cause a retry.

use super::fault::{Fault, evidence, refused, tss};
use super::link::Link;
use crate::KeyError;
use crate::device::Quote;
use bulla_formats::tpm::{TpmError, TpmtPublic, verify_quote};
use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{
    Data, PcrSelectSize, PcrSelectionList, PcrSelectionListBuilder, PcrSlot, SignatureScheme,
};
use tss_esapi::traits::Marshall;

const ATTEMPTS: u32 = 5;
const PCRS: u8 = 24;
/// TPM2_PCR_Read gives at most eight digests at a time.
const READ_AT_ONCE: usize = 8;

/// Puts a selection in ascending order.
pub(crate) fn selection(pcrs: &[u8]) -> Result<Vec<u8>, KeyError> {
    let refuse = |reason| KeyError::Argument { what: "quote", reason };
    let mut sorted = pcrs.to_vec();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(refuse("a PCR is selected twice"));
    }
    match sorted.last() {
        None => Err(refuse("no PCR is selected")),
        Some(last) if *last >= PCRS => Err(refuse("PCRs are 0 to 23")),
        Some(_) => Ok(sorted),
    }
}

/// Quotes `pcrs`, which are ascending.
pub(super) fn quote(
    link: &mut Link,
    ak: &TpmtPublic,
    qualifying: &[u8; 32],
    pcrs: &[u8],
) -> Result<Quote, Fault> {
    let (session, key) = (link.session, link.attestation);
    quote_with(&mut link.context, session, key, ak, qualifying, pcrs)
}

/// The same by any restricted key that is loaded.
pub(super) fn quote_with(
    context: &mut Context,
    session: AuthSession,
    key: KeyHandle,
    ak: &TpmtPublic,
    qualifying: &[u8; 32],
    pcrs: &[u8],
) -> Result<Quote, Fault> {
    const WHAT: &str = "TPM2_Quote";
    for _ in 0..ATTEMPTS {
        let data = Data::try_from(qualifying.to_vec()).map_err(tss(WHAT))?;
        let list = select(pcrs)?;
        let (attest, signature) = context
            .execute_with_session(Some(session), |c| c.quote(key, data, SignatureScheme::Null, list))
            .map_err(tss(WHAT))?;
        let attest = attest.marshall().map_err(tss(WHAT))?;
        let signature = signature.marshall().map_err(tss(WHAT))?;
        let facts = verify_quote(ak, &attest, &signature, qualifying).map_err(evidence(WHAT))?;
        let values = read(context, pcrs)?;
        match facts.check_pcrs(&values) {
            Ok(()) => return Ok(Quote { attest, signature, pcrs: values }),
            // Something was measured between the two commands.
            Err(TpmError::Mismatch { field: "quote.pcrDigest" }) => {}
            Err(error) => return Err(evidence(WHAT)(error)),
        }
    }
    Err(Fault::Key(KeyError::Unsettled { attempts: ATTEMPTS }))
}

fn read(context: &mut Context, pcrs: &[u8]) -> Result<Vec<(u8, [u8; 32])>, Fault> {
    const WHAT: &str = "TPM2_PCR_Read";
    let mut values = Vec::with_capacity(pcrs.len());
    for chunk in pcrs.chunks(READ_AT_ONCE) {
        let list = select(chunk)?;
        let (_, _, digests) = context.execute_without_session(|c| c.pcr_read(list)).map_err(tss(WHAT))?;
        if digests.len() != chunk.len() {
            return Err(refused(WHAT, "the TPM has no SHA-256 bank, or not these PCRs in it"));
        }
        for (index, digest) in chunk.iter().zip(digests.value()) {
            let value =
                digest.value().try_into().map_err(|_| refused(WHAT, "a value is not 32 bytes long"))?;
            values.push((*index, value));
        }
    }
    Ok(values)
}

fn select(pcrs: &[u8]) -> Result<PcrSelectionList, Fault> {
    const WHAT: &str = "PCR selection";
    let slots = pcrs
        .iter()
        .map(|index| PcrSlot::try_from(1u32 << index))
        .collect::<Result<Vec<_>, _>>()
        .map_err(tss(WHAT))?;
    PcrSelectionListBuilder::new()
        .with_size_of_select(PcrSelectSize::ThreeOctets)
        .with_selection(HashingAlgorithm::Sha256, &slots)
        .build()
        .map_err(tss(WHAT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selections_are_ascending_sets_of_existing_pcrs() {
        assert_eq!(selection(&[7, 0, 23]).unwrap(), [0, 7, 23]);
        for wrong in [&[][..], &[1, 1], &[24], &[255]] {
            assert!(matches!(selection(wrong), Err(KeyError::Argument { .. })));
        }
    }
}

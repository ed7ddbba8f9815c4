//! Which log takes the place of which, as the fleet's roster had it when the trust file was written.
//!
//! Refuses to do: follow a chain; each says one step.
//! Invariants: a root of the trust file vouches for each; they stand in ascending order of the logs that ended.

use super::{TRUST_REVOCATIONS_MAX, TrustError};
use crate::der;
use crate::json::{base64_decode, base64_encode};
use crate::revocation::RevocationError;
use crate::succession::Succession;
use serde_json::Value;

/// Reads the member `successions`.
pub(super) fn read(items: &[Value], fleet: &str, roots: &[[u8; 32]]) -> Result<Vec<Succession>, TrustError> {
    let malformed = |what: String| TrustError::Malformed(what);
    if items.is_empty() || items.len() > TRUST_REVOCATIONS_MAX {
        return Err(malformed("it is of version 5 and names no succession, or more than 1024".into()));
    }
    let mut all: Vec<Succession> = Vec::with_capacity(items.len());
    for item in items {
        let bytes = item.as_str().and_then(|text| base64_decode(text).ok());
        let bytes = bytes.ok_or_else(|| malformed("a succession is not base64".into()))?;
        let said = Succession::decode(&bytes).map_err(RevocationError::from);
        let said = said.and_then(|said| said.verify(fleet, roots).map(|_verified| said));
        let said = said.map_err(|error| malformed(format!("a succession is refused: {error}")))?;
        if all.last().is_some_and(|before| before.content.predecessor >= said.content.predecessor) {
            return Err(malformed(
                "its successions are not in ascending order of the logs that ended".into(),
            ));
        }
        all.push(said);
    }
    Ok(all)
}

pub(super) fn write(all: &[Succession]) -> Option<Vec<Value>> {
    let values = all.iter().map(|said| base64_encode(&der::encode(said)).into());
    (!all.is_empty()).then(|| values.collect())
}

//! Operator-action body: what a person made the box do, why, and who approved.
//!
//! Refuses to do: count approvals; that is policy.

use super::TEXT_BYTES_MAX;
use crate::der::{self, DerError, Octets32};
use crate::entry::ENTRY_BYTES_MAX;
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// One named parameter of an action.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// One operator's approval.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Approval {
    /// Ed25519 public key of the operator.
    pub operator: Octets32,
    /// Signature, 64 bytes.
    pub signature: OctetString,
}

/// Body of an `operator-action` entry.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct OperatorActionBody {
    /// Stable name of the action, e.g. `rotate-epoch`.
    pub action: String,
    /// Its parameters.
    pub parameters: Vec<Parameter>,
    /// The operator's words.
    pub reason: String,
    /// Approvals; empty when the operator stood at the box itself.
    pub approvals: Vec<Approval>,
}

impl OperatorActionBody {
    /// Reads a body.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        let body: OperatorActionBody = der::decode("operator-action body", bytes, ENTRY_BYTES_MAX)?;
        let too_long = |p: &Parameter| p.name.len() > 128 || p.value.len() > TEXT_BYTES_MAX;
        if body.action.is_empty()
            || body.action.len() > 64
            || body.reason.len() > TEXT_BYTES_MAX
            || body.parameters.len() > 32
            || body.parameters.iter().any(too_long)
            || body.approvals.len() > 16
            || body.approvals.iter().any(|a| a.signature.len() != 64)
        {
            let reason = "a part of it is empty, too long or too many";
            return Err(DerError::Range { what: "operator-action body", reason });
        }
        Ok(body)
    }
}

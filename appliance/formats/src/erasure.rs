//! Erasure: the log's own word that the openings of a seal were destroyed, and its proof in a `.seal` file.
//!
//! Refuses to do: say what was erased or whose it was; an erasure names leaf hashes and nothing else.
//! Invariant: a body that [`erased_leaves`] understands names 1 to [`LEAVES_MAX`] leaves and has no other parameter.

use crate::body::operator_action::{OperatorActionBody, Parameter};
use crate::hash::Hash;

/// Name of the action in an `operator-action` entry.
pub const ERASE: &str = "erase";
/// Name of its parameters.
pub const LEAF: &str = "leaf";
/// Most leaves that one entry names.
pub const LEAVES_MAX: usize = 32;
/// Most erasures in one `.seal` file.
pub const ERASURES_MAX: usize = 16;

/// The body that records an erasure of at most [`LEAVES_MAX`] seals. `reason` holds no personal data.
pub fn erase_body(leaves: &[Hash], reason: String) -> OperatorActionBody {
    let parameter = |leaf: &Hash| Parameter { name: LEAF.to_owned(), value: leaf.to_string() };
    OperatorActionBody {
        action: ERASE.to_owned(),
        parameters: leaves.iter().map(parameter).collect(),
        reason,
        approvals: Vec::new(),
    }
}

/// The leaves that a body says were erased; `None` when it is another action, or has parameters that an erasure
/// does not have.
pub fn erased_leaves(body: &OperatorActionBody) -> Option<Vec<Hash>> {
    if body.action != ERASE || body.parameters.is_empty() {
        return None;
    }
    body.parameters
        .iter()
        .map(|parameter| {
            let lower = parameter.value.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            let mut leaf = [0; 32];
            (parameter.name == LEAF && lower).then_some(())?;
            hex::decode_to_slice(&parameter.value, &mut leaf).ok()?;
            Some(Hash(leaf))
        })
        .collect()
}

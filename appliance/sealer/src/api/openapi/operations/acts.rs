//! Operations that only an operator has done: lock, unlock, erase, self-test.

use super::super::Operation;
use super::super::schemas::reference;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::json;

/// What the writer can answer to an act that is logged.
const OF_THE_LOG: &[Kind] = &[Kind::Overloaded, Kind::RollbackSuspected, Kind::DiskFull];

/// `POST /v1/lock`.
pub fn lock() -> Operation {
    change("lock", "Stops sealing; verification and reading go on.")
}

/// `POST /v1/unlock`.
pub fn unlock() -> Operation {
    change("unlock", "Lets sealing go on.")
}

fn change(id: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, "box", summary)
        .describe("The lock outlives restarts. Operator and reason are in the log.")
        .needs(Right::Lock)
        .body("application/json", json!({"schema": reference("Reason")}))
        .answer(200, "What holds now.", "application/json", json!({"schema": reference("LockAnswer")}))
        .problems(OF_THE_LOG)
}

/// `POST /v1/erasures`.
pub fn erase() -> Operation {
    Operation::new("eraseOpenings", "box", "Destroys the openings of seals: the personal data behind their commitments.")
        .describe(
            "Seals and proofs stay valid; `.seal` files handed out before keep what they hold. Name exactly one of \
             `documentId`, `user` and `seals`. Sealing goes on meanwhile; one erasure is carried out at a time.",
        )
        .needs(Right::Erase)
        .body("application/json", json!({"schema": reference("ErasureOrder")}))
        .answer(201, "Erased, and recorded in the log.", "application/json", json!({"schema": reference("Erasure")}))
        .answer(200, "Nothing was left to erase, or it was a dry run.", "application/json", json!({"schema": reference("Erasure")}))
        .problems(&[Kind::UnknownSeal, Kind::ErasureRunning, Kind::SearchBuilding])
        .problems(OF_THE_LOG)
}

/// `POST /v1/self-tests`.
pub fn self_test() -> Operation {
    Operation::new("selfTest", "box", "Seals a synthetic document and verifies the result.")
        .describe("With a TPM also the attested one. A test that ran and failed is a 200 that says so.")
        .needs(Right::SelfTest)
        .answer(200, "How it went.", "application/json", json!({"schema": reference("SelfTest")}))
}

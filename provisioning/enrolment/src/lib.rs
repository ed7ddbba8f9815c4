//! Enrolment: a box proves which TPM it has, in which state it booted, and which keys live there; the fleet answers with
//! certificates.
//!
//! Does: the messages between box and registrar, the check of endorsement certificates, MakeCredential, the judgement of
//! the evidence, and the registrar's decisions as steps to persist before anybody is answered.
//! Refuses to do: I/O of any kind; read a clock or make random numbers (both are arguments); enrol without a person's word.
//! Invariants: what the attestation key is asked to sign is always SHA-256 over a label and a structure that names both
//! sides, the channel and the transcript; every refusal has a code that does not change and a sentence that explains it.
//! The formats are described in docs/formats.md, section 16.
#![forbid(unsafe_code)]

pub mod boot;
pub mod credential;
pub mod endorsement;
pub mod evidence;
pub mod issue;
pub mod proof;
pub mod record;
pub mod refusal;
pub mod registrar;
pub mod template;
pub mod wire;

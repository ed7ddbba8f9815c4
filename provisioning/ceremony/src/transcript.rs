//! The minutes of a ceremony, signed by the root it made: who holds what, and what was certified.
//!
//! Refuses to do: hold anything secret; it is printed, filed and published.
//! Invariant: a [`Transcript`] that verifies shows that every custodian of its plan signed the same result.

use crate::board::Board;
use crate::error::{CeremonyError, Result};
use crate::wire::{Message, Plan, ResultBody, Step};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::{FleetCertificate, FleetCertificateContent, FleetRole};
use bulla_formats::hash::Hash;
use bulla_formats::report::utc;
use bulla_formats::sig::{Algorithm, PublicKey, label, labelled};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};
use std::fmt::Write;

/// Longest transcript in bytes.
pub const TRANSCRIPT_BYTES_MAX: usize = 512 << 10;
/// How long the fleet CA certificate is valid: ten years of 365 days, in milliseconds.
pub const FLEET_CA_MILLIS: u64 = 10 * 365 * 24 * 3_600_000;

/// What the root signs at the end.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct TranscriptContent {
    /// 1.
    pub version: u64,
    /// The whole plan.
    pub plan: Plan,
    /// The fleet root, Ed25519.
    pub root: Octets32,
    /// The result of each custodian, signed by it, in order.
    pub results: Vec<Message>,
    /// What the root certified.
    pub fleet_ca: FleetCertificate,
}

/// The signed minutes.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    /// What is said.
    pub content: TranscriptContent,
    /// Ed25519 of the root over label "bulla/ceremony-transcript/v1".
    pub signature: OctetString,
}

/// The certificate every ceremony asks for: it follows from the plan.
pub fn fleet_ca_content(plan: &Plan) -> FleetCertificateContent {
    FleetCertificateContent {
        version: 1,
        fleet: plan.fleet.clone(),
        role: FleetRole::FleetCa,
        public_key: plan.fleet_ca_key,
        not_before: plan.created_at,
        not_after: plan.created_at + FLEET_CA_MILLIS,
    }
}

impl TranscriptContent {
    /// What the root signs.
    pub fn message(&self) -> Vec<u8> {
        labelled(label::CEREMONY_TRANSCRIPT, &der::encode(self))
    }

    /// Whether it agrees with itself.
    ///
    /// # Errors
    /// Says what does not fit: a custodian's result is missing, of another plan or differs, or the certificate is not
    /// the plan's or not signed by the root.
    pub fn check(&self) -> Result<()> {
        let refused = |why: &str| Err(CeremonyError::refused("the transcript", why));
        if self.version != 1 {
            return refused("it is of a version this program does not know");
        }
        self.plan.check()?;
        let mut board = Board::new(self.plan.clone());
        for (message, number) in self.results.iter().zip(1..) {
            if message.content.step != Step::Result || message.content.from != number {
                return refused(
                    "it holds a message that is no result, or not in the order of the custodians",
                );
            }
            board.add(&message.encode())?;
        }
        let complete = self.results.len() == self.plan.custodians.len();
        let Some(ResultBody { root, .. }) = board.result()?.filter(|_| complete) else {
            return refused("the result of a custodian is missing");
        };
        if root != self.root {
            return refused("its root is not the one the custodians signed");
        }
        if self.fleet_ca.content != fleet_ca_content(&self.plan) {
            return refused("its fleet CA certificate is not the plan's");
        }
        if !self.signed_by_root(&self.fleet_ca.content.message(), &self.fleet_ca.signature) {
            return refused("its fleet CA certificate is not signed by its root");
        }
        Ok(())
    }

    fn signed_by_root(&self, message: &[u8], signature: &[u8]) -> bool {
        let root = PublicKey::from_bytes(Algorithm::Ed25519, &*self.root);
        root.is_ok_and(|root| root.verify(message, signature).is_ok())
    }
}

impl Transcript {
    /// Reads and verifies a transcript. Whether its root is the right one, its reader must know.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let transcript: Transcript = der::decode("transcript", bytes, TRANSCRIPT_BYTES_MAX)?;
        transcript.check()?;
        Ok(transcript)
    }

    /// Verifies every signature in it.
    pub fn check(&self) -> Result<()> {
        self.content.check()?;
        if !self.content.signed_by_root(&self.content.message(), &self.signature) {
            return Err(CeremonyError::refused("the transcript", "it is not signed by its root"));
        }
        Ok(())
    }

    /// For paper: what was agreed, by whom, with every key and its fingerprint in full, and room for signatures.
    pub fn to_text(&self, trust_fingerprint: &str) -> String {
        let (content, plan) = (&self.content, &self.content.plan);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |words: std::fmt::Arguments<'_>| {
            let _infallible = text.write_fmt(words);
            text.push('\n');
        };
        line(format_args!("KEY CEREMONY OF THE FLEET {}", plan.fleet));
        line(format_args!(""));
        line(format_args!("Planned           {}", utc(plan.created_at)));
        line(format_args!("Plan              sha256:{}", hex::encode(plan.id().0)));
        line(format_args!("Fleet root        ed25519:{}", hex::encode(*content.root)));
        line(format_args!("Trust file        {trust_fingerprint}"));
        line(format_args!(
            "Fleet CA          ed25519:{}, until {}",
            hex::encode(*plan.fleet_ca_key),
            utc(content.fleet_ca.content.not_after)
        ));
        line(format_args!(""));
        if plan.is_alone() {
            line(format_args!(
                "ONE CUSTODIAN HOLDS THE WHOLE ROOT. Fit for a laptop or a trial, not for a bank."
            ));
        } else {
            line(format_args!(
                "{} of {} custodians must agree before the root signs anything. Nobody holds it, nobody ever held it.",
                plan.threshold,
                plan.custodians.len()
            ));
        }
        for (at, card) in plan.custodians.iter().enumerate() {
            let key = hex::encode(*card.content.signing_key);
            line(format_args!("  {:>2}  {}  ed25519:{key}", at + 1, card.content.name));
        }
        line(format_args!(""));
        match plan.operators_needed {
            0 => line(format_args!("No operators: dangerous actions need the custodians.")),
            needed => line(format_args!(
                "{needed} of {} operators must approve dangerous actions.",
                plan.operators.len()
            )),
        }
        for card in &plan.operators {
            let key = hex::encode(*card.content.signing_key);
            line(format_args!("      {}  ed25519:{key}", card.content.name));
        }
        line(format_args!(""));
        line(format_args!("Signed by the root: {}", hex::encode(&self.signature)));
        line(format_args!("Hash of this record: sha256:{}", hex::encode(self.hash().0)));
        line(format_args!(""));
        for card in &plan.custodians {
            line(format_args!("{:<64}  ____________________________", card.content.name));
        }
        text
    }

    /// SHA-256 of the record.
    pub fn hash(&self) -> Hash {
        bulla_formats::hash::sha256(&[&der::encode(self)])
    }
}

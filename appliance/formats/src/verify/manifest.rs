//! The verifier of manifests: manifest file + trust file in, a report out.
//!
//! Refuses to do: say anything of single documents; their `.seal` files do.
//! Invariant: the same parts are judged by the same checks as in a `.seal`: enrolment, key epoch, checkpoint, anchors,
//! revocation.

use super::memory::{Epoch, Memory};
use super::standing::{Crls, Proven};
use super::unpacked::{Der, Parts};
use super::{Stop, Walk};
use crate::body::manifest::ManifestBody;
use crate::body::mode_change::Vouched;
use crate::endorsement::AttestationKey;
use crate::enrolment::VerifiedEnrolment;
use crate::entry::{Entry, Kind};
use crate::manifest_file::ManifestFile;
use crate::report::{Check, Interval, Report, Verdict, utc};
use crate::tpm;
use crate::trust::TrustFile;
use std::sync::Arc;

/// Outcome of [`verify_manifest`].
#[derive(Debug, Clone)]
pub struct ManifestVerification {
    /// One line per check, verdict, facts, and when the manifest was made.
    pub report: Report,
    /// What the manifest says, when its evidence holds.
    pub manifest: Option<ManifestBody>,
}

impl ManifestVerification {
    /// The first check that failed.
    pub fn failed(&self) -> Option<&Check> {
        self.report.failed()
    }
}

/// Judges a manifest file. The verdict is `valid`, `refused`, `indeterminate`, or `policy-unmet`.
pub fn verify_manifest(bytes: &[u8], trust: &TrustFile) -> ManifestVerification {
    let mut memory = Memory::new();
    let mut walk = Walk { trust, memory: &mut memory, checks: Vec::with_capacity(16) };
    let (verdict, manifest) = match walk.manifest_file(bytes) {
        Ok((body, interval, software)) => {
            let accepted = !software || trust.policy.accept_software;
            let verdict = if accepted {
                walk.pass("policy", "the trust file accepts where its keys lived");
                Verdict::Valid
            } else {
                let detail = "the keys were in software and the trust file does not accept that";
                walk.fail("policy", detail, Verdict::PolicyUnmet).0
            };
            (verdict, Some((body, interval)))
        }
        Err(Stop(verdict)) => (verdict, None),
    };
    let report = Report {
        checks: walk.checks,
        verdict,
        facts: Vec::new(),
        interval: manifest.as_ref().map(|(_, interval)| *interval),
        trust_issued_millis: trust.issued_millis,
        trust_roster_version: trust.roster.as_ref().map(|roster| roster.version),
    };
    ManifestVerification { report, manifest: manifest.map(|(body, _)| body) }
}

impl Walk<'_> {
    fn manifest_file(&mut self, bytes: &[u8]) -> Result<(ManifestBody, Interval, bool), Stop> {
        let file = self.need("manifest-file", "the file", ManifestFile::decode(bytes))?;
        self.pass("manifest-file", "manifest file of version 1");
        let (placed, entry) = (file.placed(), &file.entry);
        let file = Parts {
            origin: file.origin.clone(),
            epoch: Arc::new(Der::new(file.epoch.to_vec())),
            enrolment: Arc::new(Der::new(file.enrolment.to_vec())),
            heads: Vec::new(),
            openings: Vec::new(),
            erasures: Vec::new(),
            anchors: file.anchor_evidence(),
            evidence: None,
            crls: Vec::new(),
            manifests: Vec::new(),
            revocations: Vec::new(),
            cosignatures: Vec::new(),
        };
        let part = file.enrolment.key;
        let enrolment = self.enrolment(&file, part)?;
        let attestation_key = self.attestation_key(&enrolment, part)?;
        let epoch = self.epoch(&file, part.with(file.epoch.key), &enrolment, &attestation_key)?;
        let (entry, body) = self.manifest_entry(entry, &enrolment, &epoch)?;
        let quoted = self.manifest_quote(&body, &attestation_key)?;
        self.boot_state(&epoch.body, &quoted.iter().collect::<Vec<_>>());
        let mut checkpoints = Vec::new();
        match &placed {
            Some(placed) => {
                checkpoints.push(self.placed("inclusion", placed, part, &enrolment, &entry)?);
                self.pass("inclusion", "it stands in the log");
            }
            None => self.open("inclusion", "this file does not show its place in the log"),
        }
        let crls = Crls::default();
        let anchored = self.anchors(&file, part, &enrolment, &entry, &crls)?;
        let (anchored, _) = self.revocation_status(&crls, anchored, Proven::default())?;
        let (interval, _) = self.interval(&entry, &anchored, &[]);
        self.revocation(&file, &enrolment, &entry, &checkpoints, interval.before)?;
        let software = matches!(*attestation_key, AttestationKey::Software(_));
        Ok((body, interval, software))
    }

    fn manifest_entry(
        &mut self,
        bytes: &[u8],
        enrolment: &VerifiedEnrolment,
        epoch: &Epoch,
    ) -> Result<(Entry, ManifestBody), Stop> {
        const NAME: &str = "manifest";
        let origin = enrolment.origin().as_str();
        let entry = Entry::decode(bytes);
        let entry = self.need(NAME, "the manifest", entry)?;
        self.follows(NAME, &entry, epoch)?;
        let signed = entry.verify_signature(origin, &epoch.sealing_key);
        self.need("manifest-signature", "the manifest", signed)?;
        self.demand(NAME, entry.kind() == Some(Kind::Manifest), "it is not a manifest entry")?;
        let body = ManifestBody::decode(&entry.content().body);
        let body = self.need(NAME, "the manifest", body)?;
        let said = &body.statement;
        let own = said.origin == origin && said.head.size <= entry.content().index;
        self.demand(NAME, own, "it is of another log, or covers itself")?;
        let drill = if said.drill { " (drill)" } else { "" };
        let detail = format!(
            "{} manifest of outage {}{drill}: entries {} to {}, {} of them seals, declared {}",
            said.phase.name(),
            said.outage,
            said.first,
            said.head.size - 1,
            said.seals,
            utc(said.began.unix_millis)
        );
        self.pass(NAME, detail);
        self.pass(
            "manifest-signature",
            format!("signed by the sealing key of epoch {}", entry.content().epoch),
        );
        Ok((entry, body))
    }

    fn manifest_quote(
        &mut self,
        body: &ManifestBody,
        attestation_key: &AttestationKey,
    ) -> Result<Option<super::QuotedPcrs>, Stop> {
        const NAME: &str = "quote";
        match (&body.vouched, attestation_key) {
            (Vouched::None(reason), _) => {
                self.open(NAME, format!("there is none: {reason}"));
                Ok(None)
            }
            (Vouched::Quote(quote), AttestationKey::Tpm(key)) => {
                let qualifying = body.statement.qualifying_data();
                let facts = tpm::verify_quote(key, &quote.attest, &quote.signature, &qualifying.0);
                let facts = self.need(NAME, "the quote", facts)?;
                let pcrs = quote.pcr_values();
                self.need(NAME, "the quote", facts.check_pcrs(&pcrs))?;
                let (clock, resets) = (facts.clock, facts.reset_count);
                self.pass(
                    NAME,
                    format!("genuine; TPM clock {clock} ms, reset count {resets}, {} PCRs", pcrs.len()),
                );
                Ok(Some(pcrs))
            }
            (Vouched::Quote(_), AttestationKey::Software(_)) => {
                Err(self.fail(NAME, "a quote from a box without TPM", Verdict::Refused))
            }
        }
    }
}

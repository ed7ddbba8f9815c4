//! Metrics of modes, outages and anchors.

use crate::driver::Sealer;
use crate::driver::clock::now_millis;
use crate::driver::outage::{CrlFacts, Facts, LATENCY_MILLIS};
use crate::telemetry::{family, line};
use bulla_formats::entry::Mode;

/// Every mode, for a gauge that is 1 for one of them.
const MODES: [Mode; 7] = [
    Mode::Online,
    Mode::Degraded,
    Mode::Emergency,
    Mode::Reconciling,
    Mode::Safe,
    Mode::AirGapped,
    Mode::RollbackSuspected,
];

/// Writes them; nothing while the outage thread does not run.
pub fn write(out: &mut String, sealer: &Sealer) {
    let Some(facts) = sealer.outage() else { return };
    family(out, "bulla_mode", "gauge", "1 for the mode in force.");
    for mode in MODES {
        let label = format!("mode=\"{mode}\"");
        line(out, "bulla_mode", &label, u64::from(facts.modes.mode == mode));
    }
    family(out, "bulla_drill", "gauge", "1 while entries are marked as a drill's.");
    line(out, "bulla_drill", "", u64::from(facts.modes.drill));
    family(out, "bulla_outages_total", "counter", "Outages in this log, drills included.");
    line(out, "bulla_outages_total", "", facts.modes.outages);
    family(out, "bulla_outage_seconds_total", "counter", "Seconds of this run in emergency.");
    line(out, "bulla_outage_seconds_total", "", facts.outage_seconds);
    if let Some(lease) = &facts.lease {
        family(out, "bulla_lease_seconds", "gauge", "For how long the lease holds; 0: it is over.");
        line(out, "bulla_lease_seconds", "", lease.left.map_or(0, |(millis, _)| millis / 1_000));
    }
    if facts.authorities.is_empty() {
        return;
    }
    family(
        out,
        "bulla_unanchored_entries",
        "gauge",
        "Entries worth an anchor without so many operators' proofs.",
    );
    for (operators, count) in facts.anchors.unanchored.iter().enumerate() {
        line(out, "bulla_unanchored_entries", &format!("operators=\"{}\"", operators + 1), *count);
    }
    if let Some(ago) = facts.anchors.last_anchor {
        let name = "bulla_last_anchor_timestamp_seconds";
        family(out, name, "gauge", "Unix time of the newest anchor of this run.");
        line(out, name, "", now_millis().saturating_sub(ago) as f64 / 1e3);
    }
    authorities(out, &facts);
    crls(out, &facts);
}

fn crls(out: &mut String, facts: &Facts) {
    let facts = &facts.crls;
    family(out, "bulla_crls_fetched_total", "counter", "CRLs that came and are good.");
    line(out, "bulla_crls_fetched_total", "", facts.fetched);
    family(out, "bulla_crl_failures_total", "counter", "Fetches that brought no good CRL.");
    line(out, "bulla_crl_failures_total", "", facts.failed);
    let count =
        |wanted: fn(&CrlFacts) -> bool| facts.certificates.iter().filter(|one| wanted(one)).count() as u64;
    family(out, "bulla_crls_missing", "gauge", "Certificates behind time stamps for which no CRL is kept.");
    line(out, "bulla_crls_missing", "", count(|one| one.kept.is_none()));
    let name = "bulla_tsa_certificates_revoked";
    family(out, name, "gauge", "Certificates behind time stamps that a kept CRL lists.");
    line(out, name, "", count(|one| one.kept.as_ref().is_some_and(|kept| kept.revoked.is_some())));
}

fn authorities(out: &mut String, facts: &Facts) {
    let label = |name: &str| format!("authority=\"{}\"", name.replace(['\\', '"', '\n'], "_"));
    family(out, "bulla_anchor_requests_total", "counter", "Proofs asked for.");
    for one in &facts.authorities {
        line(out, "bulla_anchor_requests_total", &label(&one.name), one.asked);
    }
    family(out, "bulla_anchor_proofs_total", "counter", "Proofs that came and hold.");
    for one in &facts.authorities {
        line(out, "bulla_anchor_proofs_total", &label(&one.name), one.proofs);
    }
    family(out, "bulla_authority_failures_total", "counter", "Questions and looks that failed.");
    for one in &facts.authorities {
        for (failure, count) in &one.failures {
            let label = format!("{},failure=\"{failure}\"", label(&one.name));
            line(out, "bulla_authority_failures_total", &label, *count);
        }
    }
    family(out, "bulla_authority_up", "gauge", "1 while the authority answers.");
    for (one, detail) in facts.authorities.iter().zip(&facts.details) {
        line(out, "bulla_authority_up", &label(&one.name), u64::from(detail.is_empty()));
    }
    let name = "bulla_authority_revoked";
    family(out, name, "gauge", "1 while the newest stamp of the authority is by a revoked signer.");
    for (one, line_facts) in facts.authorities.iter().zip(&facts.anchors.authorities) {
        line(out, name, &label(&one.name), u64::from(line_facts.revoked));
    }
    let name = "bulla_anchor_latency_seconds";
    family(out, name, "histogram", "How long answers to requests for a proof took.");
    for one in &facts.authorities {
        let label = label(&one.name);
        for (count, bound) in one.latency.iter().zip(LATENCY_MILLIS) {
            let label = format!("{label},le=\"{}\"", bound as f64 / 1e3);
            line(out, &format!("{name}_bucket"), &label, *count);
        }
        let all = one.latency[LATENCY_MILLIS.len()];
        line(out, &format!("{name}_bucket"), &format!("{label},le=\"+Inf\""), all);
        line(out, &format!("{name}_sum"), &label, one.latency_sum as f64 / 1e3);
        line(out, &format!("{name}_count"), &label, all);
    }
}

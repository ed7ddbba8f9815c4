//! The fleet's terms in words and as JSON, for `roster show`.
//!
//! Refuses to do: shorten a root, a key or a pin; whoever compares needs all of it.

use bulla_formats::der::Octets32;
use bulla_formats::hash::sha256;
use bulla_roster::roster::Roster;
use serde_json::{Value, json};

/// The terms as `roster show` prints them.
pub fn to_text(roster: &Roster) -> String {
    let terms = roster.terms();
    let mut lines = Vec::new();
    match &terms.anchors {
        None => lines.push(
            "time        nobody has approved whose time is believed: it is as the trust file has it"
                .to_owned(),
        ),
        Some((version, anchors)) => {
            lines.push(format!(
                "time        by version {version}: {} operator(s) make a bound",
                anchors.operators
            ));
            for tsa in &anchors.tsas {
                for root in &tsa.certificates {
                    lines.push(format!(
                        "            time stamps of {}, root sha256:{}",
                        tsa.operator,
                        sha256(&[root])
                    ));
                }
            }
            for witness in &anchors.witnesses {
                lines.push(format!("            witness of {}, {}", witness.operator, witness.key));
            }
        }
    }
    match &terms.policy {
        None => lines.push("policy      nobody has approved one: it is as the trust file has it".to_owned()),
        Some((version, policy)) => {
            let software =
                if policy.accept_software { "ACCEPTS KEYS WITHOUT A TPM" } else { "keys in a TPM" };
            let facts = match policy.require_facts.is_empty() {
                true => "no fact required".to_owned(),
                false => format!("requires {}", policy.require_facts.join(", ")),
            };
            lines.push(format!("policy      by version {version}: {software}, {facts}"));
            for boot in &policy.boots {
                let pcrs: Vec<String> = boot.pcrs.iter().map(|one| one.pcr.to_string()).collect();
                lines.push(format!("            good boot {:?} by PCRs {}", boot.name, pcrs.join(", ")));
            }
        }
    }
    for hub in &terms.hubs {
        let leases = if hub.leases { ", issues leases" } else { "" };
        lines.push(format!(
            "hub         {}{leases}, {} client certificate(s), {}",
            hub.name,
            hub.clients.len(),
            hub.addresses.join(" ")
        ));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end_matches([',', ' ']))).collect()
}

/// The same as JSON: anchors, policy and hubs.
pub fn to_json(roster: &Roster) -> (Value, Value, Value) {
    let terms = roster.terms();
    let anchors = terms.anchors.as_ref().map(|(version, anchors)| {
        let tsas: Vec<Value> = anchors
            .tsas
            .iter()
            .map(|tsa| {
                let roots: Vec<String> =
                    tsa.certificates.iter().map(|root| sha256(&[root]).to_string()).collect();
                json!({"operator": tsa.operator, "rootsSha256": roots, "policies": tsa.policies})
            })
            .collect();
        let witnesses: Vec<Value> = anchors
            .witnesses
            .iter()
            .map(|witness| json!({"operator": witness.operator, "key": witness.key}))
            .collect();
        json!({"version": version, "operators": anchors.operators, "tsas": tsas, "witnesses": witnesses})
    });
    let policy = terms.policy.as_ref().map(|(version, policy)| {
        let boots: Vec<Value> = policy
            .boots
            .iter()
            .map(|boot| {
                let pcrs: Vec<Value> = boot
                    .pcrs
                    .iter()
                    .map(|one| json!({"pcr": one.pcr, "value": hex::encode(*one.value)}))
                    .collect();
                json!({"name": boot.name, "pcrs": pcrs})
            })
            .collect();
        json!({
            "version": version,
            "acceptSoftware": policy.accept_software,
            "requireFacts": policy.require_facts,
            "references": boots,
        })
    });
    let hexes = |pins: &[Octets32]| pins.iter().map(|pin| hex::encode(**pin)).collect::<Vec<_>>();
    let hubs: Vec<Value> = terms
        .hubs
        .iter()
        .map(|hub| {
            json!({
                "name": hub.name,
                "witness": hub.witness().map(|key| key.to_string()),
                "heads": hub.heads(),
                "leases": hub.leases,
                "clientsSpkiSha256": hexes(&hub.clients),
                "serversSpkiSha256": hexes(&hub.servers),
                "addresses": hub.addresses,
            })
        })
        .collect();
    (anchors.unwrap_or(Value::Null), policy.unwrap_or(Value::Null), hubs.into())
}

//! Alert rules and dashboard: promtool takes them, they say what the page says, and ask for nothing that a box does not have.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Result, ensure};
use bulla_tests::rig::alerting::{self, names, promtool, without_part};
use bulla_tests::rig::stamp::UNSTATED;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use std::collections::BTreeSet;
use std::path::Path;

const RULES: &str = include_str!("../../docs/monitoring/bulla.rules.yml");
const DASHBOARD: &str = include_str!("../../docs/monitoring/bulla-dashboard.json");
const PAGE: &str = include_str!("../../docs/operating.md");
/// "What to alert on".
fn section() -> Result<&'static str> {
    alerting::section(PAGE, "## What to alert on\n")
}

#[test]
fn promtool_takes_the_rules_and_their_tests() -> Result<()> {
    promtool(&["check", "rules", "bulla.rules.yml"])?;
    promtool(&["test", "rules", "bulla.rules.test.yml"])
}

#[test]
fn every_row_of_the_page_is_a_rule_and_every_rule_is_tested() -> Result<()> {
    let tests = include_str!("../../docs/monitoring/bulla.rules.test.yml");
    let count = alerting::rows_are_rules(section()?, RULES, tests)?;
    ensure!(count > 20, "the rows are found at all: {count}");
    Ok(())
}

/// Alerts of the rules that a box cannot see of itself: its own absence, rates, other boxes.
const FROM_OUTSIDE: [&str; 5] =
    ["BullaAway", "BullaSealsRefused", "BullaSlow", "BullaTpmFlaky", "BullaRosterOld"];
/// Conditions that the box alone tells of.
const FROM_THE_BOX: [&str; 6] = [
    "BullaRollbackSuspected",
    "BullaLimitReached",
    "BullaUnanchored",
    "BullaLeaseEnding",
    "BullaClockContradiction",
    "BullaCertificateOld",
];

/// `15m` in seconds.
fn seconds(patience: &str) -> Result<u64> {
    let (digits, unit) = patience.split_at(patience.len() - 1);
    let unit = match unit {
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => anyhow::bail!("{patience} is no time"),
    };
    Ok(digits.parse::<u64>()? * unit)
}

#[test]
fn what_the_box_alerts_of_itself_is_what_the_rules_alert_of_it() -> Result<()> {
    let rig =
        Rig::create(&RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() })?;
    let listed = String::from_utf8(rig.run(&["alerts", "list"])?.stdout)?;
    let mut own = BTreeSet::new();
    for line in listed.lines() {
        let [name, severity, hold, what] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{line:?}")
        };
        ensure!(
            !what.is_empty() && own.insert((name.to_owned(), severity == "page", hold.parse()?)),
            "{line}"
        );
    }
    let names = RULES.split("- alert: ").skip(1).map(|rule| rule.lines().next().unwrap_or_default());
    let mut theirs = BTreeSet::new();
    for (name, rule) in names.zip(alerting::rules(RULES)?) {
        theirs.insert((name.to_owned(), rule.pages, seconds(&rule.patience)?));
    }
    let without = |all: &BTreeSet<(String, bool, u64)>, names: &[&str]| -> BTreeSet<(String, bool, u64)> {
        let found = all.iter().filter(|one| names.contains(&one.0.as_str())).count();
        assert_eq!(found, names.len(), "{names:?} are not all there");
        all.iter().filter(|one| !names.contains(&one.0.as_str())).cloned().collect()
    };
    let (own, theirs) = (without(&own, &FROM_THE_BOX), without(&theirs, &FROM_OUTSIDE));
    let differ: Vec<_> = own.symmetric_difference(&theirs).collect();
    ensure!(differ.is_empty(), "{differ:?}");
    for name in FROM_OUTSIDE.iter().chain(&FROM_THE_BOX) {
        ensure!(PAGE.contains(&format!("`{name}`")), "the page says nothing of {name}");
    }
    Ok(())
}

#[test]
fn the_dashboard_is_one() -> Result<()> {
    alerting::is_a_dashboard(DASHBOARD, "$box")
}

/// Metrics that a box has only after something has happened, or with neighbours and authorities, are looked for in its
/// source; all others a real box must show.
#[test]
fn a_box_has_every_metric_that_is_asked_for() -> Result<()> {
    let place = tempfile::tempdir()?;
    let extra =
        format!("{UNSTATED}[[ingest.folder]]\npath = {:?}\nclient = \"desk-1\"\n", place.path().display());
    let options =
        RigOptions { keys: Keys::Software, residency: "software", extra: &extra, ..RigOptions::default() };
    let rig = Rig::start_with(&options)?;
    ensure!(rig.client(Role::Operator).post("/v1/self-tests", &[], b"")?.status < 300);
    let shown = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let shown = names(&shown);
    let mut source = String::new();
    for file in [
        "api/alerts.rs",
        "api/anchor_metrics.rs",
        "api/medium.rs",
        "api/peers.rs",
        "api/system.rs",
        "api/time.rs",
        "dial_out.rs",
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../appliance/sealer/src").join(file);
        source.push_str(&std::fs::read_to_string(path)?);
    }
    let asked: BTreeSet<String> = [RULES, DASHBOARD, section()?].into_iter().flat_map(names).collect();
    ensure!(asked.len() > 30, "the names are found at all: {asked:?}");
    let mut lacking = Vec::new();
    let mut seen = 0;
    for name in &asked {
        if shown.contains(name) {
            seen += 1;
        } else if !source.contains(&format!("\"{}\"", without_part(name))) {
            lacking.push(name);
        }
    }
    ensure!(lacking.is_empty(), "no box has {lacking:?}");
    ensure!(seen > 20, "only {seen} of {} are shown by a real box", asked.len());
    Ok(())
}

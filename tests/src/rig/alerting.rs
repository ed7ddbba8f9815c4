//! Alert rules as a page, Prometheus and promtool have them.
//!
//! Refuses to do: read YAML: promtool says whether it is some; here lines are compared.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a metric of a histogram is called beside its own name.
const PARTS: [&str; 3] = ["_bucket", "_sum", "_count"];

/// promtool: below the target directory, where `cargo xtask setup` puts it; or what `BULLA_PROMTOOL` names.
pub fn promtool(arguments: &[&str]) -> Result<()> {
    let program = match std::env::var_os("BULLA_PROMTOOL") {
        Some(path) => PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test binary is three levels below the target")?;
            target.join("tools/prometheus/usr/bin/promtool")
        }
    };
    ensure!(program.is_file(), "{} is missing; run: cargo xtask setup", program.display());
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitoring");
    let output = Command::new(program).args(arguments).current_dir(place).output()?;
    ensure!(
        output.status.success(),
        "promtool {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// One alert, as page and rules both have it.
#[derive(Debug, PartialEq, Eq)]
pub struct Alert {
    /// PromQL.
    pub expression: String,
    /// How long it has to hold.
    pub patience: String,
    /// Whether it is worth waking somebody.
    pub pages: bool,
}

/// The section of a page under this heading (with its line feed), up to the next of the same rank.
pub fn section(page: &'static str, heading: &str) -> Result<&'static str> {
    let rank = heading.split(' ').next().unwrap_or_default();
    let section = page.split(heading).nth(1).with_context(|| format!("no section {heading}"))?;
    section.split(&format!("\n{rank} ")).next().context("its end")
}

/// The rows of its table.
fn rows(section: &str) -> Result<Vec<Alert>> {
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| objective"));
    rows.map(|row| {
        let row = row.replace("\\|", "\u{1}");
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let expression = cells[2].split('`').nth(1).with_context(|| format!("no PromQL in {row}"))?;
        Ok(Alert {
            expression: expression.replace('\u{1}', "|"),
            patience: cells[3].to_owned(),
            pages: cells[1].starts_with("*page*"),
        })
    })
    .collect()
}

/// The rules, one line each of what is compared.
pub fn rules(text: &str) -> Result<Vec<Alert>> {
    let of = |rule: &str, key: &str| -> Result<String> {
        let line = rule.lines().find_map(|line| line.trim().strip_prefix(&format!("{key}: ")));
        Ok(line.with_context(|| format!("no {key} in {rule}"))?.trim_matches('\'').to_owned())
    };
    text.split("- alert: ")
        .skip(1)
        .map(|rule| {
            Ok(Alert {
                expression: of(rule, "expr")?,
                patience: of(rule, "for")?,
                pages: of(rule, "severity")? == "page",
            })
        })
        .collect()
}

/// Every row of the section is a rule and every rule a row, in the same order, and each is tested both ways; how many there
/// are.
pub fn rows_are_rules(section: &str, text: &str, tests: &str) -> Result<usize> {
    let (rows, rules) = (rows(section)?, rules(text)?);
    for (row, rule) in rows.iter().zip(&rules) {
        ensure!(row == rule, "the page has\n{row:?}\nand the rules have\n{rule:?}");
    }
    ensure!(rows.len() == rules.len(), "{} rows, {} rules", rows.len(), rules.len());
    for rule in text.split("- alert: ").skip(1) {
        let name = rule.lines().next().context("a name")?;
        let line = format!("alertname: {name}\n");
        let (silent, fires) =
            (format!("{line}        exp_alerts: []"), format!("{line}        exp_alerts:\n"));
        ensure!(tests.contains(&silent) && tests.contains(&fires), "{name} is not tested both ways");
    }
    Ok(rows.len())
}

/// Names of metrics in a text.
pub fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c)).filter(|name| name.starts_with("bulla_"));
    words.map(str::to_owned).collect()
}

/// The metric that a name of a histogram's part belongs to.
pub fn without_part(name: &str) -> &str {
    PARTS.iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name)
}

/// A Grafana dashboard: panels that do not lie over each other, each of which asks for `variable`.
pub fn is_a_dashboard(text: &str, variable: &str) -> Result<()> {
    let dashboard: Value = serde_json::from_str(text)?;
    let panels = dashboard["panels"].as_array().context("panels")?;
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    ensure!(ids.len() == panels.len() && !panels.is_empty(), "each panel has an id of its own");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().with_context(|| format!("{key} of {panel}"));
        let (x, y, w, h) = (at("x")?, at("y")?, at("w")?, at("h")?);
        ensure!(x + w <= 24, "{panel} leaves the grid");
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            ensure!(taken.insert(cell), "{} lies over another panel", panel["title"]);
        }
        for target in panel["targets"].as_array().context("targets")? {
            let asked = target["expr"].as_str().unwrap_or_default();
            ensure!(!names(asked).is_empty() && asked.contains(variable), "{target}");
        }
    }
    Ok(())
}

//! Whose TPMs a fleet believes: the bundle, what people compare, and a box whose maker was imported.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, ensure};
use bulla_tests::rig::fleet::Fleet;
use bulla_tests::rig::{Rig, RigOptions};
use serde_json::Value;
use std::process::Command;

/// SHA-256 of a certificate, as a maker publishes it: openssl says.
fn fingerprint(pem: &str) -> Result<String> {
    let arguments = ["x509", "-in", pem, "-noout", "-fingerprint", "-sha256"];
    let done = Command::new("openssl").args(arguments).output()?;
    let text = String::from_utf8(done.stdout)?;
    Ok(text.trim().split_once('=').context("a fingerprint")?.1.to_owned())
}

#[test]
fn makers_are_pinned_by_fingerprints_that_people_compared() -> Result<()> {
    let mut fleet = Fleet::found()?;
    let all: Vec<Value> = serde_json::from_str(&fleet.ok(&["makers", "list", "--json"])?)?;
    let roots = |maker: &str| -> Vec<String> {
        let of_maker = all.iter().filter(|one| one["maker"] == maker && one["root"] == true);
        of_maker.filter_map(|one| one["sha256"].as_str()).map(str::to_owned).collect()
    };
    let infineon = roots("infineon");
    ensure!(infineon.len() == 2 && all.len() > 50, "{all:?}");
    let pin = ["makers", "pin", "infineon", "--dir", "fleet", "--by", "olga"];

    // Nothing is believed because it is in the program: the fingerprints are shown, and asked for.
    fleet.ends(&pin, 2, &infineon[0])?;
    fleet.ends(&[&pin[..], &["--compared", &infineon[0]]].concat(), 2, "nothing is pinned")?;
    fleet.ends(&["makers", "pin", "nobody", "--dir", "fleet", "--by", "olga"], 2, "no maker")?;
    ensure!(!fleet.path("fleet/manufacturers").exists());
    let both = ["--compared", &infineon[0], "--compared", &infineon[1]];
    let said = fleet.ok(&[&pin[..], &both].concat())?;
    ensure!(said.starts_with("2 root(s) and "), "{said}");
    let listed = fleet.ok(&["makers", "list", "--dir", "fleet"])?;
    ensure!(listed.contains("https://pki.infineon.com/") && listed.contains("compared by olga"), "{listed}");

    // A maker that is not in the bundle: intermediates need a pinned root, and roots a compared fingerprint.
    let rig = Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))?;
    let ca = rig.directory().join("tpm/ca");
    let (root, between) = (ca.join("swtpm-localca-rootca-cert.pem"), ca.join("issuercert.pem"));
    let (root, between) = (root.to_str().context("a path")?, between.to_str().context("a path")?);
    let from = ["--maker", "swtpm", "--source", "the test's own CA", "--dir", "fleet", "--by", "omar"];
    fleet.ends(&[&["makers", "import", between], &from[..]].concat(), 1, "no pinned root vouches")?;
    fleet.ends(&[&["makers", "import", root], &from[..]].concat(), 2, "nothing is pinned")?;
    let compared = ["--compared", &fingerprint(root)?];
    fleet.ok(&[&["makers", "import", root, between], &compared[..], &from[..]].concat())?;
    let pinned: Vec<Value> =
        serde_json::from_str(&fleet.ok(&["makers", "list", "--dir", "fleet", "--json"])?)?;
    let theirs =
        pinned.iter().filter(|one| one["maker"] == "swtpm" && one["source"].to_string().contains("omar"));
    ensure!(theirs.count() == 2, "{pinned:?}");

    // The registrar believes them: the TPM is known to be one, though nobody has listed it.
    fleet.serve(&[])?;
    fleet.enroll(&rig)?.ends(3, "ek-unknown")
}

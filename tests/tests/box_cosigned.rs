//! Seals that neighbours' cosignatures prove: what a box puts into them, and what an auditor makes of that offline.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result};
use bulla_formats::report::{Fact, Outcome, Report};
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::site::Site;
use bulla_tests::rig::{Keys, Role};

fn fetched(site: &Site, id: &str) -> Result<SealFile> {
    let answer = site.boxes[0].client(Role::Reader).get(&format!("/v1/seals/{id}/seal-file"))?;
    Ok(SealFile::decode(&answer.body)?)
}

fn cosignatures(report: &Report) -> Vec<Outcome> {
    let checks = report.checks.iter().filter(|check| check.name == "cosignatures");
    checks.map(|check| check.outcome).collect()
}

#[test]
fn g6_a_seal_proves_offline_which_neighbours_hold_it() -> Result<()> {
    let document = "held by two neighbours";
    let mut site = Site::start(&[Keys::Software; 3])?;
    let json = site.mirrored(0, document, 2)?;
    let id = json["id"].as_str().context("an id")?.to_owned();
    let seal = fetched(&site, &id)?;

    // Whoever has nobody's card believes nobody.
    let alone = site.boxes[0].judge(&seal, document.as_bytes()).report;
    assert_eq!(alone.facts, [Fact::Sealed], "{alone}");
    let told = cosignatures(&alone);
    assert!(!told.is_empty() && told.iter().all(|outcome| *outcome == Outcome::NotJudged), "{alone}");

    // The trust file that the box exports has the cards its operator took in.
    site.boxes[0].export_trust()?;
    assert_eq!(site.boxes[0].trust().cosigners.len(), 2);
    let both = site.boxes[0].judge(&seal, document.as_bytes()).report;
    assert_eq!(both.facts, [Fact::Sealed, Fact::Mirrored(2), Fact::Witnessed(2)], "{both}");

    // Without the card of one of them its word counts no more.
    site.boxes[0].run(&["peers", "remove", site.origin(1)])?;
    site.boxes[0].export_trust()?;
    let one = site.boxes[0].judge(&seal, document.as_bytes()).report;
    assert_eq!(one.facts, [Fact::Sealed, Fact::Mirrored(1), Fact::Witnessed(1)], "{one}");

    // A seal that was handed out without them is upgraded by union.
    let mut old = SealFile { cosignatures: Vec::new(), ..seal.clone() };
    assert_eq!(old.upgrade(seal.clone()), Some(true));
    assert_eq!(old.cosignatures, seal.cosignatures);
    assert_eq!(old.upgrade(seal), Some(false), "nothing comes twice");
    Ok(())
}

//! Authorities behind https, and every way in which TLS comes to nothing: noticed in time, named, and no seal's concern.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::probe::Failure;
use bulla_formats::entry::Mode;
use bulla_formats::report::{Fact, Verdict};
use bulla_tests::rig::outage::{changes, id_of, seal_now, software, start, wait_anchored, wait_mode};
use bulla_tests::rig::tsa::{Answer, Handshake, Knobs, Options, Stamps, Transport};
use bulla_tests::rig::{Rig, Role};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);
/// Three seconds without an authority, one until the next look, one until that has failed; the rest is a slow machine's.
const NOTICED: Duration = Duration::from_secs(15);

/// A way for TLS to fail, what the log calls it, and what the status says.
type Way = (Knobs, Failure, &'static str);

fn ways() -> [Way; 7] {
    let shaken = |handshake| Knobs { handshake, ..Knobs::default() };
    let stalled = "the TLS handshake stalled";
    [
        (shaken(Handshake::Stalled), Failure::Timeout, stalled),
        (shaken(Handshake::HalfStalled), Failure::Timeout, stalled),
        // To a client a port that takes connections and says nothing is the same.
        (Knobs { transport: Transport::BlackHole, ..Knobs::default() }, Failure::Timeout, stalled),
        (shaken(Handshake::OtherName), Failure::Tls, "not valid for name"),
        (shaken(Handshake::Expired), Failure::Tls, "expired"),
        (shaken(Handshake::UnknownCa), Failure::Tls, "UnknownIssuer"),
        (Knobs { answer: Answer::Stalled, ..Knobs::default() }, Failure::Timeout, "no answer came"),
    ]
}

fn https(operator: &str) -> Result<Stamps> {
    Stamps::start_with(&Options { operator, https: &["127.0.0.1"], ..Options::default() })
}

/// Seals one document after the other until the box is in an emergency; the ids.
fn seal_until_noticed(rig: &Rig, what: &str) -> Result<Vec<String>> {
    let (client, begun) = (rig.client(Role::Scanner), Instant::now());
    let mut sealed = Vec::new();
    loop {
        let answer = client.seal(what.as_bytes())?;
        ensure!(answer.status == 201, "{what}: {}", String::from_utf8_lossy(&answer.body));
        sealed.push(id_of(&answer)?);
        let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
        if status["mode"] == "emergency" {
            return Ok(sealed);
        }
        ensure!(begun.elapsed() < NOTICED, "{what} is not noticed: {status:#}\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn every_way_for_tls_to_fail_is_noticed_and_named() -> Result<()> {
    let authorities = [https("Operator A")?, https("Operator B")?];
    let mut rig = start(&[&authorities[0], &authorities[1]], &software(), "")?;
    let mut sealed = Vec::new();
    for (number, (knobs, failure, words)) in (1..).zip(ways()) {
        wait_mode(&rig, "online", PATIENCE)?;
        let what = format!("{:?}, {:?}, {:?}", knobs.transport, knobs.handshake, knobs.answer);
        authorities.iter().try_for_each(|tsa| tsa.set(&knobs))?;
        let ids = seal_until_noticed(&rig, &what)?;
        sealed.extend(ids.into_iter().map(|id| (id, what.clone())));
        let said = changes(&rig)?;
        let said = said.iter().rfind(|change| change.to == Mode::Emergency).context("it is in the log")?;
        ensure!(said.outages == number && said.findings.len() == 2, "{what}: {said:?}");
        let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
        for (at, finding) in said.findings.iter().enumerate() {
            ensure!(finding.failure == Some(failure), "{what}: {finding:?}");
            ensure!(finding.detail.contains(words), "{what}: {finding:?}");
            let shown = status["anchors"]["authorities"][at]["failing"].as_str().unwrap_or_default();
            ensure!(shown.contains(words), "{what}: {status:#}");
        }
        authorities.iter().try_for_each(|tsa| tsa.answer(Answer::Stamp))?;
    }
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    for (id, document) in &sealed {
        let report = rig.judge(&seal_now(&rig, id)?, document.as_bytes()).report;
        ensure!(report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored), "{report}");
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

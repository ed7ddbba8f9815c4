//! CRLs behind time stamps, as a box fetches, keeps and hands them out: what they prove years later, what becomes of a
//! stamp whose signer was revoked, that nobody relies on an authority then until it has another certificate, and that a
//! CRL which does not come holds up nothing.
//!
//! Method: the authority, its CAs and its CRLs are stock OpenSSL; what the box hands out is judged by `bulla verify` with
//! the trust file alone, and by `openssl`.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::anchor::{AnchorBody, Evidence};
use bulla_formats::body::manifest::Phase;
use bulla_formats::report::{Fact, Outcome, Report, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::outage::{
    LOOK, QUICK, anchors, changes, id_of, manifests, seal_now, software, wait_anchored, wait_for, wait_mode,
};
use bulla_tests::rig::tsa::{Answer, CrlAnswer, Knobs, Options, Stamps};
use bulla_tests::rig::{Rig, RigOptions, Role, bulla_program};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);
/// A box that looks for a new CRL every other second.
const EAGER: &str = "[anchors.crls]\nrefresh_seconds = 2\nretry_seconds = 1\ntimeout_seconds = 2\n";

fn authority(intermediate: bool) -> Result<Stamps> {
    Stamps::start_with(&Options { operator: "Operator A", intermediate, crls: true, ..Options::default() })
}

fn start(tsa: &Stamps, options: &RigOptions<'_>) -> Result<Rig> {
    let extra = format!("{QUICK}{}{EAGER}", anchors(&[(tsa, LOOK)]));
    Rig::start_with(&RigOptions { extra: &extra, ..*options })
}

fn publish(tsa: &Stamps, crl: CrlAnswer) -> Result<()> {
    tsa.set(&Knobs { crl, ..Knobs::default() })
}

/// Seals this and waits until its seal has an anchor; its id, and how long the receipt took.
fn anchored(rig: &Rig, document: &[u8]) -> Result<(String, Duration)> {
    let began = Instant::now();
    let id = id_of(&rig.client(Role::Scanner).seal(document)?)?;
    let took = began.elapsed();
    wait_anchor(rig, &id)?;
    Ok((id, took))
}

fn wait_anchor(rig: &Rig, id: &str) -> Result<()> {
    let began = Instant::now();
    while seal_now(rig, id)?.anchors.is_empty() {
        ensure!(began.elapsed() < PATIENCE, "no anchor\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Waits until what the status says of every certificate holds.
fn wait_crls(rig: &Rig, what: &str, holds: impl Fn(&serde_json::Value) -> bool) -> Result<()> {
    wait_for(rig, what, PATIENCE, |status| {
        let all = status["anchors"]["crls"].as_array();
        all.is_some_and(|all| !all.is_empty() && all.iter().all(&holds))
    })
    .map(drop)
}

fn said(report: &Report) -> Vec<(Outcome, &str)> {
    let checks = report.checks.iter().filter(|check| check.name == "revocation-status");
    checks.map(|check| (check.outcome, check.detail.as_str())).collect()
}

fn metric(rig: &Rig, line: &str) -> Result<bool> {
    let text = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    Ok(text.lines().any(|said| said == line))
}

fn run(program: impl AsRef<Path>, directory: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let output = Command::new(program.as_ref()).current_dir(directory).args(arguments).output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[test]
fn a_stamp_is_followed_by_the_crls_that_vouch_for_it() -> Result<()> {
    let tsa = authority(true)?;
    let mut rig = start(&tsa, &RigOptions::default())?;
    let document = b"%PDF-1.7 kept for years";
    let (id, _) = anchored(&rig, document)?;
    wait_crls(&rig, "a CRL each for signer and CA", |one| {
        one["sha256"].is_string() && one["failing"].is_null() && one["revoked"].is_null()
    })?;
    let seal = seal_now(&rig, &id)?;
    ensure!(seal.crls.len() == 2, "the CRLs of root and CA, not {}", seal.crls.len());
    let report = rig.judge(&seal, document).report;
    ensure!(report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored), "{report}");
    ensure!(
        matches!(said(&report)[..], [(Outcome::Passed, text)] if text.contains("good as of")),
        "{report}"
    );
    ensure!(metric(&rig, "bulla_crls_missing 0")? && metric(&rig, "bulla_tsa_certificates_revoked 0")?);

    // Offline, with three files.
    let desk = tempfile::tempdir()?;
    fs::write(desk.path().join("scan.pdf"), document)?;
    fs::write(desk.path().join("scan.seal"), seal.encode())?;
    fs::copy(rig.file("trust.json"), desk.path().join("trust.json"))?;
    let bulla = bulla_program()?;
    let (good, text) =
        run(&bulla, desk.path(), &["verify", "scan.pdf", "scan.seal", "--trust", "trust.json"])?;
    ensure!(good && text.contains("revocation-status  tsa-0: good as of"), "{text}");
    stock_openssl_agrees(&tsa, &seal, desk.path())?;

    // Another process has them still, whether or not the CA is there.
    rig.sealer.stop()?;
    publish(&tsa, CrlAnswer::Unreachable)?;
    rig.sealer.start()?;
    ensure!(seal_now(&rig, &id)?.crls.len() == 2);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// `openssl verify -crl_check_all` takes the path of the stamp by the CRLs of the file, and by nothing less.
fn stock_openssl_agrees(tsa: &Stamps, seal: &SealFile, desk: &Path) -> Result<()> {
    let (good, text) = run(bulla_program()?, desk, &["inspect", "scan.seal", "--extract", "parts"])?;
    ensure!(good, "{text}");
    let parts = desk.join("parts");
    let root = tsa.root_pem().to_string_lossy().into_owned();
    let openssl = |arguments: &[&str]| run("openssl", &parts, arguments);
    let body = AnchorBody::decode(&seal.anchors[0].body)?;
    let Evidence::Timestamp(reply) = &body.proofs[0].evidence else { anyhow::bail!("no stamp") };
    let mut chain = String::new();
    for (at, der) in bulla_timestamps::certificates(reply)?.iter().enumerate() {
        fs::write(parts.join(format!("{at}.cer")), der)?;
        let name = format!("{at}.pem");
        let (good, text) = openssl(&["x509", "-inform", "DER", "-in", &format!("{at}.cer"), "-out", &name])?;
        ensure!(good, "{text}");
        chain += &fs::read_to_string(parts.join(name))?;
    }
    fs::write(parts.join("chain.pem"), chain)?;
    let mut lists = Vec::new();
    for at in 0..seal.crls.len() {
        let (from, to) = (format!("crl-{at}.crl"), format!("crl-{at}.pem"));
        let (good, text) = openssl(&["crl", "-inform", "DER", "-in", &from, "-out", &to])?;
        ensure!(good, "{text}");
        lists.push(fs::read_to_string(parts.join(to))?);
    }
    fs::write(parts.join("all.pem"), lists.concat())?;
    fs::write(parts.join("one.pem"), &lists[0])?;
    let signer = (0..).map(|at| format!("{at}.pem")).find_map(|name| {
        let (_, text) = openssl(&["x509", "-in", &name, "-noout", "-ext", "extendedKeyUsage"]).ok()?;
        text.contains("Time Stamping").then_some(name)
    });
    let signer = signer.context("a signer")?;
    let verify = |lists: &str| {
        openssl(&[
            "verify",
            "-crl_check_all",
            "-CRLfile",
            lists,
            "-CAfile",
            &root,
            "-untrusted",
            "chain.pem",
            &signer,
        ])
    };
    let (good, text) = verify("all.pem")?;
    ensure!(good, "{text}");
    ensure!(!verify("one.pem")?.0, "one CRL of two is not enough for openssl either");
    Ok(())
}

#[test]
fn a_crl_that_does_not_come_delays_nothing_and_is_kept_when_it_does() -> Result<()> {
    let tsa = authority(false)?;
    publish(&tsa, CrlAnswer::Unreachable)?;
    let mut rig = start(&tsa, &software())?;
    let mut ids = Vec::new();
    for (answer, words) in [
        (CrlAnswer::Unreachable, "refused"),
        (CrlAnswer::Missing, "HTTP 404"),
        (CrlAnswer::CaptivePortal, "crl-malformed"),
        (CrlAnswer::Stalled, "no answer came within"),
        (CrlAnswer::Giant, "longer than 10485760 bytes"),
        (CrlAnswer::Expired, "crl-expired"),
        (CrlAnswer::Stranger, "crl-signature"),
    ] {
        publish(&tsa, answer)?;
        let document = format!("while it is {answer:?}");
        let (id, took) = anchored(&rig, document.as_bytes())?;
        ensure!(took < Duration::from_secs(2), "{answer:?}: a seal took {took:?}");
        wait_crls(&rig, words, |one| {
            one["sha256"].is_null() && one["failing"].as_str().is_some_and(|text| text.contains(words))
        })?;
        let report = rig.judge(&seal_now(&rig, &id)?, document.as_bytes()).report;
        ensure!(
            report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored),
            "{answer:?}: {report}"
        );
        ensure!(
            matches!(said(&report)[..], [(Outcome::NotJudged, text)] if text.contains("unknown")),
            "{report}"
        );
        ids.push((id, document));
    }
    ensure!(metric(&rig, "bulla_crls_missing 1")? && metric(&rig, "bulla_crls_fetched_total 0")?);
    wait_mode(&rig, "online", PATIENCE)?;

    publish(&tsa, CrlAnswer::Good)?;
    wait_crls(&rig, "kept", |one| one["sha256"].is_string() && one["failing"].is_null())?;
    for (id, document) in &ids {
        let report = rig.judge(&seal_now(&rig, id)?, document.as_bytes()).report;
        ensure!(
            matches!(said(&report)[..], [(Outcome::Passed, text)] if text.contains("good as of")),
            "{report}"
        );
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_compromised_signer_vouches_for_nothing_and_that_is_not_forgotten() -> Result<()> {
    let tsa = authority(false)?;
    let mut rig = start(&tsa, &software())?;
    let document = b"stamped with a key that was stolen";
    let (id, _) = anchored(&rig, document)?;
    wait_crls(&rig, "kept", |one| one["sha256"].is_string())?;
    let before = seal_now(&rig, &id)?;
    ensure!(rig.judge(&before, document).report.facts.contains(&Fact::Anchored));

    publish(&tsa, CrlAnswer::Compromised)?;
    let listed = |one: &serde_json::Value| {
        one["revoked"]["reason"] == "keyCompromise" && one["revoked"]["doubtful"] == true
    };
    wait_crls(&rig, "the revocation", listed)?;
    ensure!(metric(&rig, "bulla_tsa_certificates_revoked 1")?);
    ensure!(rig.log().contains("none of its stamps counts any more"), "{}", rig.log());
    let now = seal_now(&rig, &id)?;
    let doubtful = |report: &Report| {
        let interval = report.interval.as_ref();
        report.verdict == Verdict::Valid
            && report.facts == [Fact::Sealed]
            && interval.is_some_and(|interval| interval.before.is_none() && interval.after.is_none())
            && said(report).iter().all(|(outcome, text)| {
                *outcome == Outcome::NotJudged && text.contains("was revoked (keyCompromise)")
            })
            && !said(report).is_empty()
    };
    let report = rig.judge(&now, document).report;
    ensure!(doubtful(&report), "{report}");
    // An older copy learns it by an upgrade.
    let mut upgraded = before;
    ensure!(upgraded.upgrade(now) == Some(true));
    let report = rig.judge(&upgraded, document).report;
    ensure!(doubtful(&report), "{report}");

    // A CA that takes it back is not believed.
    publish(&tsa, CrlAnswer::Good)?;
    let served = tsa.counters().crls;
    let until = Instant::now() + PATIENCE;
    while tsa.counters().crls < served + 2 {
        ensure!(Instant::now() < until, "the box looks again");
        std::thread::sleep(Duration::from_millis(200));
    }
    wait_crls(&rig, "still the revocation", listed)?;
    ensure!(doubtful(&rig.judge(&seal_now(&rig, &id)?, document).report));
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_signer_that_was_superseded_later_keeps_its_word() -> Result<()> {
    let tsa = authority(false)?;
    let mut rig = start(&tsa, &software())?;
    let document = b"stamped before the key was changed";
    let (id, _) = anchored(&rig, document)?;
    // A stamp of the second of the revocation may be from after it.
    std::thread::sleep(Duration::from_millis(2_500));
    publish(&tsa, CrlAnswer::Superseded)?;
    wait_crls(&rig, "the revocation", |one| {
        one["revoked"]["reason"] == "superseded" && one["revoked"]["doubtful"] == false
    })?;
    let report = rig.judge(&seal_now(&rig, &id)?, document).report;
    ensure!(report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored), "{report}");
    let counts = |(outcome, text): &(Outcome, &str)| {
        *outcome == Outcome::Passed && text.contains("(superseded)") && text.contains("it counts")
    };
    ensure!(said(&report).iter().any(counts), "{report}");

    // What is stamped with it from now on is worth nothing, and is not logged; its successor's stamps are.
    let late = b"sealed after the key was changed";
    let id = id_of(&rig.client(Role::Scanner).seal(late)?)?;
    wait_for(&rig, "its stamps are refused", PATIENCE, |status| {
        let one = &status["anchors"]["authorities"][0];
        let waits = status["anchors"]["waitingSeconds"].as_u64() > Some(2);
        let words = one["failing"].as_str().unwrap_or_default();
        one["revoked"] == true && words.contains("(superseded)") && waits
    })?;
    ensure!(seal_now(&rig, &id)?.anchors.is_empty(), "no stamp that counts for nothing is logged");
    tsa.set(&Knobs { crl: CrlAnswer::Superseded, answer: Answer::Successor, ..Knobs::default() })?;
    wait_anchor(&rig, &id)?;
    let report = rig.judge(&seal_now(&rig, &id)?, late).report;
    ensure!(report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored), "{report}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// Two authorities, one of which is enough. The one whose stamps count is only looked at by connecting, so that nothing
/// but the CRL says that it is worth nothing any more.
#[test]
fn what_a_compromised_signer_anchored_is_anchored_by_another_and_it_counts_again_by_itself() -> Result<()> {
    let (tsa, other) = (authority(false)?, Stamps::start("Operator B")?);
    let lines = anchors(&[(&tsa, "timeout_seconds = 2"), (&other, LOOK)]);
    let lines = lines.replace("[anchors]\n", "[anchors]\noperators = 1\n");
    let mut rig = Rig::start_with(&RigOptions { extra: &format!("{QUICK}{lines}{EAGER}"), ..software() })?;
    let document = b"anchored by whoever lost its key";
    let (id, _) = anchored(&rig, document)?;
    wait_crls(&rig, "kept", |one| one["sha256"].is_string())?;
    let status = wait_mode(&rig, "online", PATIENCE)?;
    let proofs = |status: &serde_json::Value, place: usize| {
        status["anchors"]["authorities"][place]["proofs"].as_u64().unwrap_or(0)
    };
    ensure!(proofs(&status, 0) > 0 && proofs(&status, 1) == 0, "{status:#}");

    publish(&tsa, CrlAnswer::Compromised)?;
    let is_revoked = |status: &serde_json::Value| {
        let one = &status["anchors"]["authorities"][0];
        one["revoked"] == true && one["failing"].as_str().is_some_and(|text| text.contains("(keyCompromise)"))
    };
    wait_for(&rig, "anchored by the other one", PATIENCE, |status| {
        is_revoked(status) && status["anchors"]["unanchored"] == 0 && proofs(status, 1) > 0
    })?;
    wait_mode(&rig, "degraded", PATIENCE)?;
    ensure!(metric(&rig, "bulla_authority_revoked{authority=\"tsa-0\"} 1")?);
    ensure!(metric(&rig, "bulla_authority_up{authority=\"tsa-0\"} 0")?);
    ensure!(rig.log().contains("stamps of a revoked signer count for nothing"), "{}", rig.log());
    let told = changes(&rig)?.into_iter().flat_map(|change| change.findings);
    let mut told = told.filter(|finding| finding.authority == "tsa-0");
    ensure!(told.any(|finding| finding.detail.contains("was revoked")), "the log says why");
    let answer = rig.client(Role::Operator).post(&format!("/v1/seals/{id}/anchor"), &[], b"")?.json()?;
    ensure!(answer["operators"] == serde_json::json!(["Operator B"]), "{answer}");
    let report = rig.judge(&seal_now(&rig, &id)?, document).report;
    ensure!(report.verdict == Verdict::Valid && report.facts.contains(&Fact::Anchored), "{report}");

    // Another process knows it still, though connections go through.
    rig.sealer.stop()?;
    rig.sealer.start()?;
    wait_for(&rig, "still revoked", PATIENCE, |status| is_revoked(status) && status["mode"] == "degraded")?;
    wait_anchored(&rig, PATIENCE)?;

    // It has a new certificate: whoever is asked anyway asks it too, and that is all it takes.
    tsa.set(&Knobs { crl: CrlAnswer::Compromised, answer: Answer::Successor, ..Knobs::default() })?;
    let until = Instant::now() + 3 * PATIENCE;
    while is_revoked(&rig.client(Role::Operator).get("/v1/status")?.json()?) {
        ensure!(Instant::now() < until, "it never counts again\n{}", rig.log());
        anchored(&rig, format!("{:?}", Instant::now()).as_bytes())?;
    }
    wait_mode(&rig, "online", PATIENCE)?;
    ensure!(metric(&rig, "bulla_authority_revoked{authority=\"tsa-0\"} 0")?);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// The only authority loses its key: that is an outage, until it has another.
#[test]
fn an_authority_that_only_stamps_for_nothing_is_not_reachable() -> Result<()> {
    let tsa = authority(false)?;
    let mut rig = start(&tsa, &software())?;
    let (id, _) = anchored(&rig, b"before")?;
    wait_mode(&rig, "online", PATIENCE)?;
    publish(&tsa, CrlAnswer::Compromised)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    ensure!(status["anchors"]["anchoredSize"] == 0, "nothing of it counts: {status:#}");
    let answer = rig.client(Role::Operator).post(&format!("/v1/seals/{id}/anchor"), &[], b"")?.json()?;
    ensure!(answer["anchored"] == false && answer["operators"] == serde_json::json!([]), "{answer}");
    id_of(&rig.client(Role::Scanner).seal(b"sealed all the same")?)?;

    tsa.set(&Knobs { crl: CrlAnswer::Compromised, answer: Answer::Successor, ..Knobs::default() })?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchor(&rig, &id)?;
    wait_anchored(&rig, PATIENCE)?;
    let closing = manifests(&rig)?.into_iter().filter(|said| said.phase == Phase::Close).count();
    ensure!(closing == 1, "{closing} closing manifests");
    let report = rig.judge(&seal_now(&rig, &id)?, b"before").report;
    ensure!(report.facts.contains(&Fact::Anchored), "{report}");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

//! Neighbours challenge each other's TPMs: real boxes on real TPMs, one rebooted into something else, one whose TPM is
//! exchanged, and a neighbour that floods and relays.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::{Enrolment, Hardware};
use bulla_formats::entry::{Entry, Kind, TreeState};
use bulla_formats::hash::{Hash, empty_root};
use bulla_formats::peer::challenge::{Challenge, ChallengeError, ChallengeSaid, Distrust};
use bulla_formats::peer::message::{Asked, Question, Said};
use bulla_tests::rig::liar::Liar;
use bulla_tests::rig::site::{Site, entries, until};
use bulla_tests::rig::{Keys, Rig, Role};
use serde_json::Value;
use std::process::Command;
use std::time::{Duration, Instant};

/// Challenges every two seconds, so that a box quotes once a second for a neighbour.
const OFTEN: &str = "challenge_every_seconds = 2\n";

fn start(keys: &[Keys]) -> Result<Site> {
    let mut site = Site::create_with(keys, OFTEN)?;
    site.introduce_all()?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    site.mirrored(0, "before", 1)?;
    site.mirrored(1, "before", 1)?;
    Ok(site)
}

/// What the status of `at` says of the TPM of its neighbour.
fn attested(site: &Site, at: usize, of: usize) -> Result<Value> {
    Ok(site.neighbour(at, of)?["attested"].clone())
}

fn comes_to(site: &Site, at: usize, of: usize, state: &str, reason: Option<&str>) -> Result<Value> {
    let reason = reason.map_or(Value::Null, Into::into);
    let what = format!("box {at} finds box {of} {state} {reason}");
    until(&what, || {
        let found = attested(site, at, of)?;
        Ok(found["state"] == state && found["reason"] == reason)
    })
    .with_context(|| site.boxes[at].log())?;
    attested(site, at, of)
}

/// Incidents about neighbours' TPMs in a box's log: code, and whether it is over.
fn incidents(rig: &Rig) -> Result<Vec<(String, bool)>> {
    let logged = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let incident = |bytes: &Vec<u8>| {
        let entry = Entry::decode(bytes).ok().filter(|entry| entry.kind() == Some(Kind::Incident))?;
        let body = IncidentBody::decode(&entry.content().body).ok()?;
        body.code.starts_with("neighbour-").then_some((body.code, body.ended.is_some()))
    };
    Ok(logged.iter().filter_map(incident).collect())
}

fn metric(rig: &Rig, name: &str) -> Result<u64> {
    let text = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("{name} is not in {text}"))?.parse()?)
}

#[test]
fn g8_a_changed_boot_is_named_logged_and_accepted_by_people_only() -> Result<()> {
    let mut site = start(&[Keys::Tpm; 2])?;
    for (at, of) in [(0, 1), (1, 0)] {
        let found = comes_to(&site, at, of, "fresh", None)?;
        ensure!(found["since"].as_u64() > Some(1_700_000_000_000) && found["last"].is_u64(), "{found}");
        ensure!(found["key"] == "tpm", "{found}");
        let gauge = format!("bulla_peer_attested{{peer=\"{}\"}}", site.origin(of));
        ensure!(metric(&site.boxes[at], &gauge)? == 1);
    }
    let since = attested(&site, 0, 1)?["last"].as_u64();
    until("it is challenged again", || Ok(attested(&site, 0, 1)?["last"].as_u64() > since))?;

    // An ordinary reboot, while box 0 is restarted as well: what it knew is on its disk.
    site.boxes[1].sealer.stop()?;
    site.boxes[0].sealer.stop()?;
    reboot(&mut site.boxes[1], &[])?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    comes_to(&site, 0, 1, "fresh", None)?;
    ensure!(incidents(&site.boxes[0])?.is_empty(), "a reboot into the same is no incident");

    // A boot of something else.
    site.boxes[1].sealer.stop()?;
    site.boxes[0].sealer.stop()?;
    let other = format!("4:sha256={}", "5a".repeat(32));
    reboot(&mut site.boxes[1], &[&other])?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    comes_to(&site, 0, 1, "refused", Some("boot-changed"))?;
    let code = Distrust::BootChanged.incident().to_owned();
    until("it is logged", || Ok(incidents(&site.boxes[0])? == [(code.clone(), false)]))
        .with_context(|| site.boxes[0].log())?;
    let gauge = format!("bulla_peer_distrusted{{peer=\"{}\"}}", site.origin(1));
    ensure!(metric(&site.boxes[0], &gauge)? == 1);
    ensure!(site.boxes[0].log().contains("boot-changed"));
    site.mirrored(1, "it is mirrored all the same", 1)?;
    // Box 1 has booted itself and knows nothing else of box 0.
    comes_to(&site, 1, 0, "fresh", None)?;

    let unknown = site.boxes[0].try_run(&["peers", "accept-boot", "nobody/0/1"])?;
    ensure!(unknown.status.code() == Some(1), "{unknown:?}");
    site.boxes[0].run(&["peers", "accept-boot", site.origin(1)])?;
    comes_to(&site, 0, 1, "fresh", None)?;
    until("the log says so", || {
        Ok(incidents(&site.boxes[0])? == [(code.clone(), false), (code.clone(), true)])
    })?;
    // And what was accepted is the one that counts from then on.
    site.boxes[0].sealer.stop()?;
    site.boxes[0].sealer.start()?;
    comes_to(&site, 0, 1, "fresh", None)?;
    Ok(())
}

/// The TPM of a stopped box loses power and comes back, and measures these.
fn reboot(rig: &mut Rig, extensions: &[&str]) -> Result<()> {
    let tpm = rig.tpm.as_mut().context("it has a TPM")?;
    tpm.crash()?;
    tpm.start()?;
    if extensions.is_empty() {
        return Ok(());
    }
    let extended = Command::new("tpm2_pcrextend").args(["-T", &tpm.tcti()]).args(extensions).output()?;
    ensure!(extended.status.success(), "{extended:?}");
    Ok(())
}

#[test]
fn g8_another_tpm_in_a_running_box_is_named_and_costs_no_seal() -> Result<()> {
    let mut site = start(&[Keys::Tpm; 2])?;
    comes_to(&site, 0, 1, "fresh", None)?;
    let (other, directory) = Rig::manufacture_tpm()?;
    drop(other);
    let state = site.boxes[1].directory().join("tpm/state");
    site.boxes[1].tpm.as_mut().context("it has a TPM")?.crash()?;
    std::fs::rename(&state, state.with_extension("genuine"))?;
    let copied = Command::new("cp").arg("-a").arg(directory.path().join("tpm/state")).arg(&state).output()?;
    ensure!(copied.status.success(), "{copied:?}");
    site.boxes[1].tpm.as_mut().context("it has a TPM")?.start()?;
    comes_to(&site, 0, 1, "refused", Some("other-key"))?;
    let code = Distrust::OtherKey.incident().to_owned();
    until("it is logged", || Ok(incidents(&site.boxes[0])? == [(code.clone(), false)]))?;
    site.mirrored(1, "sealing does not wait for a TPM", 1)?;

    // The genuine one is put back.
    site.boxes[1].tpm.as_mut().context("it has a TPM")?.crash()?;
    std::fs::remove_dir_all(&state)?;
    std::fs::rename(state.with_extension("genuine"), &state)?;
    site.boxes[1].tpm.as_mut().context("it has a TPM")?.start()?;
    comes_to(&site, 0, 1, "fresh", None)?;
    until("the log says so", || Ok(incidents(&site.boxes[0])?.last() == Some(&(code.clone(), true))))?;
    Ok(())
}

#[test]
fn a_box_without_tpm_vouches_with_its_software_key_and_a_tpm_that_is_away_grows_stale() -> Result<()> {
    let mut site = start(&[Keys::Tpm, Keys::Software])?;
    comes_to(&site, 0, 1, "fresh", None)?;
    comes_to(&site, 1, 0, "fresh", None)?;
    site.boxes[0].tpm.as_mut().context("it has a TPM")?.crash()?;
    comes_to(&site, 1, 0, "stale", None)?;
    site.mirrored(0, "sealing does not wait for a TPM", 1)?;
    site.boxes[0].tpm.as_mut().context("it has a TPM")?.start()?;
    comes_to(&site, 1, 0, "fresh", None)?;
    ensure!(incidents(&site.boxes[1])?.is_empty(), "silence is no incident");
    Ok(())
}

/// The key that entry 0 of a running box's log enrols.
fn enrolled(rig: &Rig) -> Result<AttestationKey> {
    let first = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let entry = Entry::decode(first.first().context("entry 0")?)?;
    let body = KeyEpochBody::decode(&entry.content().body)?;
    let content = Enrolment::decode(&body.enrolment.context("entry 0 enrols the box")?)?.content;
    ensure!(content.hardware == Hardware::Tpm);
    Ok(AttestationKey::read(content.hardware, &content.attestation_key)?)
}

#[test]
fn g8_relayed_challenges_are_refused_and_a_flood_costs_at_most_the_limit() -> Result<()> {
    let site = start(&[Keys::Tpm, Keys::Software])?;
    let (own, other) = (&site.cards[0], &site.cards[1]);
    let liar = Liar::start(41, &[own])?;
    let rig = &site.boxes[0];
    std::fs::write(rig.file("liar.card"), liar.card.bytes())?;
    rig.run(&["peers", "add", "liar.card", "--fingerprint", &liar.card.fingerprint()])?;
    liar.connected(own)?;
    let nothing = || TreeState::new(0, empty_root());
    let put = |challenge: &Challenge| liar.ask(own, Asked::Challenge(challenge.clone()));
    let code = |challenge: &Challenge| match put(challenge)? {
        Said::Refused(refused) => Ok(refused.code),
        said => anyhow::bail!("{said:?}"),
    };

    // A challenge of the honest neighbour, passed on; one for it, shown here; one of a tree that never was.
    ensure!(code(&Challenge::new(other, own, [1; 32], nothing()))? == "other-peer");
    ensure!(code(&Challenge::new(&liar.card, other, [2; 32], nothing()))? == "other-peer");
    let never = TreeState::new(1, Hash([7; 32]));
    ensure!(code(&Challenge::new(&liar.card, own, [3; 32], never))? == "other-tree");

    // Its own challenge is answered, by the TPM that the log names, and for this one nonce.
    let asked = Challenge::new(&liar.card, own, [4; 32], nothing());
    let mut said: Option<ChallengeSaid> = None;
    until("it is answered", || {
        if let Said::Challenge(answer) = put(&asked)? {
            said = Some(answer);
        }
        Ok(said.is_some())
    })?;
    let (said, key) = (said.context("it was answered")?, enrolled(rig)?);
    let (head, boot) = said.verify(&asked, own, &key)?;
    ensure!(head.size() > 0 && boot.is_some_and(|boot| !boot.pcrs.is_empty()));
    let replayed = Challenge::new(&liar.card, own, [5; 32], nothing());
    let wrong = said.verify(&replayed, own, &key).unwrap_err();
    ensure!(wrong.distrust() == Distrust::NotGenuine && matches!(wrong, ChallengeError::Quote(_)), "{wrong}");

    // As fast as it can, for some seconds.
    let (before, begun) = (metric(rig, "bulla_neighbour_quotes_total")?, Instant::now());
    let (mut nonce, mut asked, mut worst) = (0u64, 0u64, Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(8) {
        for _ in 0..50 {
            nonce += 1;
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&nonce.to_be_bytes());
            let challenge = Asked::Challenge(Challenge::new(&liar.card, own, bytes, nothing()));
            asked += u64::from(liar.ask_blindly(own, Question::new(challenge).encode()));
        }
        let sealing = Instant::now();
        site.seal(0, &format!("in the flood {nonce}"), "sealed")?;
        worst = worst.max(sealing.elapsed());
    }
    let quoted = metric(rig, "bulla_neighbour_quotes_total")? - before;
    let seconds = begun.elapsed().as_secs() + 1;
    println!("{asked} challenges put in {seconds} s, {quoted} quotes, slowest seal {worst:?}");
    ensure!(asked > 3 * seconds, "that was no flood: {asked}");
    // One a second for the liar, and half as many for the honest neighbour.
    ensure!(quoted <= 2 * seconds + 2, "{quoted} quotes in {seconds} s");
    ensure!(worst < Duration::from_secs(30), "a seal took {worst:?}");
    let last = attested(&site, 1, 0)?["last"].as_u64();
    until("the honest neighbour is answered", || Ok(attested(&site, 1, 0)?["last"].as_u64() > last))?;
    Ok(())
}

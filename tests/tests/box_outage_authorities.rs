//! Authorities that lie, run out, are off by an hour, or forget where they stood.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::clock::{ClockBody, ClockFinding};
use bulla_formats::enrolment::Enrolment;
use bulla_formats::entry::Kind;
use bulla_formats::note::verifier_key;
use bulla_tests::rig::outage::{
    LOOK, QUICK, anchors, entries, id_of, seal_now, software, start, wait_anchored, wait_for, wait_mode,
};
use bulla_tests::rig::tsa::{Answer, Knobs, Quota, Stamps, Transport};
use bulla_tests::rig::witness::Witness;
use bulla_tests::rig::{Rig, RigOptions, Role};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

/// Every anchor in the log.
fn anchored(rig: &Rig) -> Result<Vec<AnchorBody>> {
    let all = entries(rig)?.into_iter().filter(|entry| entry.kind() == Some(Kind::Anchor));
    all.map(|entry| Ok(AnchorBody::decode(&entry.content().body)?)).collect()
}

/// How many anchors have a proof of this operator.
fn proofs(rig: &Rig, operator: &str) -> Result<usize> {
    let of = |anchor: &AnchorBody| anchor.proofs.iter().any(|proof| proof.operator == operator);
    Ok(anchored(rig)?.iter().filter(|anchor| of(anchor)).count())
}

/// A metric of an authority; 0 while there is none.
fn metric(rig: &Rig, begins: &str) -> Result<u64> {
    let text = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let line = text.lines().find_map(|line| line.strip_prefix(begins));
    Ok(line.map(str::trim).and_then(|value| value.parse().ok()).unwrap_or(0))
}

/// Seals something and waits until this operator alone has vouched for it.
fn vouched_by(rig: &Rig, operator: &str, document: &str) -> Result<()> {
    let answer = rig.client(Role::Scanner).seal(document.as_bytes())?;
    ensure!(answer.status == 201, "{document}: {}", String::from_utf8_lossy(&answer.body));
    let id = id_of(&answer)?;
    let index: u64 = id.split('-').next().context("an id begins with an index")?.parse()?;
    let until = Instant::now() + PATIENCE;
    let covers = |anchor: &AnchorBody| {
        anchor.head.size > index && anchor.proofs.iter().any(|proof| proof.operator == operator)
    };
    while !anchored(rig)?.iter().any(covers) {
        ensure!(Instant::now() < until, "{document}: {operator} has not vouched\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

#[test]
fn no_lie_gets_into_the_log_and_none_goes_uncounted() -> Result<()> {
    let (liar, honest) = (Stamps::start("Liar")?, Stamps::start("Honest")?);
    let mut rig = start(&[&liar, &honest], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    // What was anchored in time remains; from here on there is nothing of it.
    liar.answer(Answer::WrongImprint)?;
    wait_mode(&rig, "degraded", PATIENCE)?;
    let before = proofs(&rig, "Liar")?;
    for answer in [
        Answer::WrongImprint,
        Answer::WrongNonce,
        Answer::Replay,
        Answer::ExpiredCertificate,
        Answer::WrongPurpose,
        Answer::Stranger,
        Answer::Damaged,
        Answer::Huge,
        Answer::Stalled,
        Answer::Trickle,
    ] {
        liar.answer(answer)?;
        let failure =
            if matches!(answer, Answer::Stalled | Answer::Trickle) { "timeout" } else { "bad-answer" };
        let name = format!("bulla_authority_failures_total{{authority=\"tsa-0\",failure=\"{failure}\"}}");
        let counted = metric(&rig, &name)?;
        vouched_by(&rig, "Honest", &format!("{answer:?}"))?;
        let until = Instant::now() + PATIENCE;
        // Two, because one may still have been the answer before.
        while metric(&rig, &name)? < counted + 2 {
            ensure!(Instant::now() < until, "{answer:?} is not counted\n{}", rig.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        ensure!(proofs(&rig, "Liar")? == before, "{answer:?} is in the log");
    }
    liar.answer(Answer::Stamp)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    ensure!(proofs(&rig, "Liar")? > before);
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn an_authority_that_is_off_by_an_hour_is_noted_and_stops_nothing() -> Result<()> {
    let (off, right) = (Stamps::start("Off")?, Stamps::start("Right")?);
    let mut rig = start(&[&off, &right], &software(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    for (seconds, finding) in [(-3_600, ClockFinding::Contradiction), (3_600, ClockFinding::Correction)] {
        off.set(&Knobs { clock_offset_seconds: seconds, ..Knobs::default() })?;
        let until = Instant::now() + PATIENCE;
        loop {
            let said: Vec<ClockBody> = entries(&rig)?
                .iter()
                .filter(|entry| entry.kind() == Some(Kind::Clock))
                .map(|entry| ClockBody::decode(&entry.content().body))
                .collect::<Result<_, _>>()?;
            ensure!(said.len() <= 2, "the log is not for repeating it: {said:?}");
            if said.iter().any(|body| body.finding == finding) {
                break;
            }
            ensure!(Instant::now() < until, "{seconds} s is not noted: {said:?}\n{}", rig.log());
            std::thread::sleep(Duration::from_millis(200));
        }
        vouched_by(&rig, "Right", &format!("off by {seconds}"))?;
    }
    wait_mode(&rig, "online", PATIENCE)?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn nobody_is_asked_beyond_its_quota() -> Result<()> {
    const QUOTA: &str = "requests = 3\nperiod_seconds = 8\ntimeout_seconds = 2";
    let (scarce, free) = (Stamps::start("Scarce")?, Stamps::start("Free")?);
    let quota = Quota { requests: 3, period_millis: 8_000, blocked_millis: 0 };
    let up = Knobs { quota: Some(quota), ..Knobs::default() };
    scarce.set(&up)?;
    let extra = format!("{QUICK}{}", anchors(&[(&scarce, QUOTA), (&free, LOOK)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..software() })?;
    wait_mode(&rig, "online", PATIENCE)?;
    let begun = Instant::now();
    for round in 0.. {
        if begun.elapsed() > Duration::from_secs(30) {
            break;
        }
        let id = id_of(&rig.client(Role::Scanner).seal(format!("round {round}").as_bytes())?)?;
        let answer = rig.client(Role::Operator).post(&format!("/v1/seals/{id}/anchor"), &[], b"")?;
        ensure!(answer.status == 202, "{}", String::from_utf8_lossy(&answer.body));
        // It flaps, and so does the box.
        let transport = if round % 4 == 2 { Transport::Down } else { Transport::Up };
        scarce.set(&Knobs { transport, ..up.clone() })?;
        if round % 12 == 7 {
            rig.sealer.kill()?;
            rig.sealer.start()?;
        }
        std::thread::sleep(Duration::from_millis(300));
        let counters = scarce.counters();
        ensure!(counters.beyond_quota == 0, "round {round}: {counters:?}\n{}", rig.log());
    }
    scarce.set(&up)?;
    wait_mode(&rig, "online", PATIENCE)?;
    wait_anchored(&rig, PATIENCE)?;
    let counters = scarce.counters();
    ensure!(counters.beyond_quota == 0 && counters.stamps > 3, "{counters:?}");
    Ok(())
}

/// An authority's window knows nothing of incarnations.
#[test]
fn a_log_that_succeeds_another_has_its_quotas() -> Result<()> {
    let tsa = Stamps::start("Scarce")?;
    const QUOTA: &str = "requests = 3\nperiod_seconds = 3600\ntimeout_seconds = 2";
    let extra = format!("{QUICK}{}", anchors(&[(&tsa, QUOTA)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..software() })?;
    wait_anchored(&rig, PATIENCE)?;
    rig.sealer.stop()?;
    ensure!(tsa.counters().requests == 1, "{:?}", tsa.counters());
    rig.run(&["succeed", "--reason", "a try"])?;
    rig.sealer.start()?;
    let id = id_of(&rig.client(Role::Scanner).seal(b"the first of the new log")?)?;
    // Two are left in this hour, and are spread over it, whoever waits.
    let waited = Instant::now();
    let answer = rig.client(Role::Scanner).post(
        "/v1/seals?wait=anchored&deadlineSeconds=3",
        &[("content-type", "application/pdf")],
        b"in a hurry",
    )?;
    ensure!(answer.json()?["waited"] == "timed-out", "{}", answer.json()?);
    ensure!(waited.elapsed() >= Duration::from_secs(3));
    let status = rig.client(Role::Operator).get("/v1/status")?.json()?;
    let one = &status["anchors"]["authorities"][0];
    ensure!(one["quotaLeft"] == 2 && one["askedAgainInSeconds"].as_u64() > Some(600), "{one}");
    ensure!(tsa.counters().requests == 1 && seal_now(&rig, &id)?.anchors.is_empty());
    Ok(())
}

/// `wait=anchored` does not wait for the window, and the answer's file has the anchors.
#[test]
fn whoever_waits_for_the_anchor_has_it_in_the_answer() -> Result<()> {
    let (first, second) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let lines =
        anchors(&[(&first, LOOK), (&second, LOOK)]).replace("window_seconds = 1", "window_seconds = 3600");
    let rig = Rig::start_with(&RigOptions { extra: &format!("{QUICK}{lines}"), ..software() })?;
    wait_anchored(&rig, PATIENCE)?;
    let ask = |path: &str, document: &[u8]| {
        let headers = [("content-type", "application/pdf"), ("accept", "application/json")];
        rig.client(Role::Scanner).post(path, &headers, document)?.json()
    };
    let waited = ask("/v1/seals?wait=anchored&deadlineSeconds=30", b"needed today")?;
    ensure!(waited["waited"] == "anchored", "{waited}");
    let id = waited["id"].as_str().context("an id")?;
    let operators = rig.client(Role::Operator).post(&format!("/v1/seals/{id}/anchor"), &[], b"")?.json()?;
    ensure!(operators["operators"] == serde_json::json!(["Operator A", "Operator B"]), "{operators}");
    ensure!(!seal_now(&rig, id)?.anchors.is_empty());
    // Nobody waits for this one, and the window is an hour.
    let other = ask("/v1/seals", b"not in a hurry")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(seal_now(&rig, other["id"].as_str().context("an id")?)?.anchors.is_empty());

    let alone = Rig::start_with(&software())?;
    let headers = [("content-type", "application/pdf")];
    let answer = alone.client(Role::Scanner).post("/v1/seals?wait=anchored", &headers, b"alone")?.json()?;
    ensure!(answer["waited"] == "no-authorities", "{answer}");
    Ok(())
}

#[test]
fn a_witness_vouches_beside_an_authority_and_may_forget() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let witness = Witness::start("witness.example/w1", 0, 0)?;
    let section = format!(
        "[[anchors.witness]]\nname = \"witness-0\"\noperator = \"Operator W\"\nurl = {:?}\nkey = {:?}\ntimeout_seconds = 2\n",
        witness.url(),
        witness.key()
    );
    let extra = format!("{QUICK}{}{section}", anchors(&[(&tsa, LOOK)]));
    let mut rig = Rig::start_with(&RigOptions { extra: &extra, ..software() })?;
    // It has yet to be told whom it is to look after.
    let seal = rig.client(Role::Scanner).seal(b"before anybody knows")?.seal()?;
    wait_mode(&rig, "degraded", PATIENCE)?;
    let enrolment = Enrolment::decode(&seal.enrolment)?;
    witness.know(&verifier_key(&seal.origin, &enrolment.content.log_key))?;
    wait_mode(&rig, "online", PATIENCE)?;
    vouched_by(&rig, "Operator W", "shown to a witness")?;
    vouched_by(&rig, "Operator A", "stamped, too")?;
    wait_anchored(&rig, PATIENCE)?;
    // It comes back from a backup of the first day: it asks for everything from there on, and gets it.
    witness.forget();
    vouched_by(&rig, "Operator W", "shown to a witness that has forgotten")?;
    wait_anchored(&rig, PATIENCE)?;
    ensure!(witness.counters().conflicts > 0, "{:?}", witness.counters());
    // So does the box, when it is started anew and does not know what it has shown.
    let conflicts = witness.counters().conflicts;
    rig.sealer.kill()?;
    rig.sealer.start()?;
    vouched_by(&rig, "Operator W", "shown by a box that has forgotten")?;
    ensure!(witness.counters().inconsistencies == 0 && witness.counters().conflicts > conflicts);
    wait_for(&rig, "online", PATIENCE, |status| status["mode"] == "online")?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

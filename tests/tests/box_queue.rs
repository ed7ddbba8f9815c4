//! Requests that cannot be sealed now are queued durably, drained in order, and never sealed twice.

use anyhow::{Context, Result, ensure};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind, Mode};
use bulla_formats::report::Verdict;
use bulla_tests::rig::account;
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::{Client, Keys, Response, Rig, RigOptions, Role, rounds};
use serde_json::Value;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

const ON: &str = "[queue]\nwhen = [\"locked\", \"key-away\", \"storage-failed\"]";
const PATIENCE: Duration = Duration::from_secs(60);

fn software(extra: &str) -> RigOptions<'_> {
    RigOptions { keys: Keys::Software, residency: "software", extra, ..RigOptions::default() }
}

fn post(client: &Client, key: &str, document: &str) -> Result<Response> {
    post_to(client, "/v1/seals", key, document)
}

fn post_to(client: &Client, target: &str, key: &str, document: &str) -> Result<Response> {
    let headers = [("Content-Type", "text/plain"), ("Idempotency-Key", key), ("Bulla-User", "J%C3%BCrgen")];
    client.post(target, &headers, document.as_bytes())
}

/// The id of a request that was queued.
fn queued(answer: &Response) -> Result<String> {
    let body = answer.json()?;
    ensure!(answer.status == 202, "{}: {body}", answer.status);
    ensure!(body["queued"] == true && body["position"].as_u64() > Some(0), "{body}");
    ensure!(body["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{body}");
    ensure!(answer.header("retry-after").parse::<u32>().is_ok(), "a 202 says when to ask again");
    let id = body["queueId"].as_str().context("a 202 names the request")?;
    ensure!(answer.location.as_deref() == Some(&format!("/v1/queue/{id}")), "{:?}", answer.location);
    ensure!(body["links"]["self"] == format!("/v1/queue/{id}"), "{body}");
    Ok(id.to_owned())
}

fn operate(rig: &Rig, what: &str) -> Result<Value> {
    let answer = rig.client(Role::Operator).post(&format!("/v1/{what}"), &[], br#"{"reason":"a test"}"#)?;
    ensure!(answer.status == 200, "{what}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn status(rig: &Rig) -> Result<Value> {
    rig.client(Role::Operator).get("/v1/status")?.json()
}

fn state(rig: &Rig, id: &str) -> Result<Value> {
    let answer = rig.client(Role::Scanner).get(&format!("/v1/queue/{id}"))?;
    ensure!(answer.status == 200, "{id}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

/// Waits until nothing is queued.
fn drained(rig: &Rig) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let status = status(rig)?;
        if status["queue"]["depth"] == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < until, "still queued after a minute: {status}\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Every entry of the log, over HTTP.
fn entries(rig: &Rig) -> Result<Vec<Entry>> {
    let bytes = account::entries(&rig.client(Role::Reader))?;
    Ok(bytes.iter().map(|bytes| Entry::decode(bytes)).collect::<Result<_, _>>()?)
}

/// Bodies of all seals, in order.
fn seals(rig: &Rig) -> Result<Vec<SealBody>> {
    let all = entries(rig)?;
    let seals = all.iter().filter(|entry| entry.kind() == Some(Kind::Seal));
    Ok(seals.map(|entry| SealBody::decode(&entry.content().body)).collect::<Result<_, _>>()?)
}

fn digest_of(document: &str) -> Vec<u8> {
    bulla_formats::hash::sha256(&[document.as_bytes()]).0.to_vec()
}

/// Every document exactly once, those of `ordered` in this order.
fn once_and_in_order(rig: &Rig, ordered: &[String], more: &[String]) -> Result<()> {
    let seals = seals(rig)?;
    let mut places = Vec::new();
    for document in ordered.iter().chain(more) {
        let digest = digest_of(document);
        let found: Vec<usize> =
            seals.iter().enumerate().filter(|(_, s)| s.digest.as_ref() == digest).map(|(at, _)| at).collect();
        ensure!(found.len() == 1, "{document} is sealed {} times", found.len());
        places.push(found[0]);
    }
    ensure!(places[..ordered.len()].is_sorted(), "out of order: {places:?}");
    Ok(())
}

#[test]
fn g3_what_was_queued_while_the_tpm_was_away_is_sealed_once_and_in_order() -> Result<()> {
    let extra = format!("[attestation]\ntimeout_seconds = 2\n{ON}");
    let mut rig = Rig::start_with(&RigOptions { residency: "tpm", extra: &extra, ..RigOptions::default() })?;
    let scanner = rig.client(Role::Scanner);
    assert_eq!(post(&scanner, "before", "before")?.status, 201);
    rig.tpm.as_mut().context("a TPM box has one")?.crash()?;
    let documents: Vec<String> = (0..rounds(12, 100)).map(|number| format!("during {number}")).collect();
    let mut ids = Vec::new();
    for document in &documents {
        ids.push(queued(&post(&scanner, document, document)?)?);
    }
    // Without a key, from many clients at once.
    let crowd: Vec<String> = (0..8).map(|number| format!("crowd {number}")).collect();
    std::thread::scope(|scope| -> Result<()> {
        let posts: Vec<_> = crowd
            .iter()
            .map(|document| {
                let scanner = rig.client(Role::Scanner);
                scope.spawn(move || scanner.seal(document.as_bytes()))
            })
            .collect();
        for post in posts {
            queued(&post.join().map_err(|_| anyhow::anyhow!("a client panicked"))??)?;
        }
        Ok(())
    })?;
    // Idempotent while queued; another request under the same key is refused.
    let again = post(&scanner, &documents[3], &documents[3])?;
    assert_eq!((again.json()?["replayed"].clone(), queued(&again)?), (true.into(), ids[3].clone()));
    let other = post(&scanner, &documents[3], "something else")?;
    assert_eq!((other.status, other.problem()?.as_str()), (422, "idempotency-key-reused"));
    assert_eq!(other.json()?["queueId"], ids[3].as_str());
    // What was sealed before is answered as ever.
    assert_eq!(post(&scanner, "before", "before")?.json()?["replayed"], true);
    let now = status(&rig)?;
    assert_eq!(now["condition"]["state"], "key-away", "{now}");
    assert_eq!(now["queue"]["depth"], (documents.len() + crowd.len()) as u64, "{now}");
    assert!(now["queue"]["oldestMillis"].as_u64() > Some(1_700_000_000_000), "{now}");
    assert_eq!(state(&rig, &ids[1])?["position"], 2);
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    assert!(metrics.contains(&format!("bulla_queue_depth {}", documents.len() + crowd.len())), "{metrics}");

    rig.tpm.as_mut().context("a TPM box has one")?.start()?;
    drained(&rig)?;
    once_and_in_order(&rig, &documents, &crowd)?;
    for (id, document) in ids.iter().zip(&documents) {
        let found = state(&rig, id)?;
        assert_eq!(found["state"], "sealed", "{found}");
        let answer = scanner.get(found["links"]["sealFile"].as_str().context("a link to the seal")?)?;
        let judged = rig.judge(&answer.seal()?, document.as_bytes());
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
        let again = post(&scanner, document, document)?;
        assert_eq!((again.status, again.json()?["replayed"].clone()), (200, true.into()));
        assert_eq!(again.json()?["id"], found["seal"]);
        assert!(!again.seal()?.openings.is_empty(), "the openings have come along");
    }
    let late = seals(&rig)?.into_iter().find(|seal| seal.digest.as_ref() == digest_of(&documents[0]));
    let transport = late.context("found before")?.transport;
    let (_, stamp) = transport.split_once("; queued-at=").context(transport.clone())?;
    assert!(stamp.parse::<u64>()? > 1_700_000_000_000, "{transport}");
    assert_eq!(post(&scanner, "after", "after")?.status, 201);
    assert_eq!(scanner.get("/v1/queue/0-0000000000000000")?.problem()?, "unknown-queue-id");
    assert_eq!(scanner.get("/v1/queue/nonsense")?.problem()?, "unknown-queue-id");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn without_a_policy_a_lost_tpm_refuses_as_before() -> Result<()> {
    let extra = "[attestation]\ntimeout_seconds = 2";
    let mut rig = Rig::start_with(&RigOptions { residency: "tpm", extra, ..RigOptions::default() })?;
    let scanner = rig.client(Role::Scanner);
    rig.tpm.as_mut().context("a TPM box has one")?.crash()?;
    let refused = post(&scanner, "k", "refused")?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (503, "locked"));
    assert!(queue_file(&rig).is_err(), "nothing was queued");
    rig.tpm.as_mut().context("a TPM box has one")?.start()?;
    let until = Instant::now() + PATIENCE;
    loop {
        let answer = post(&scanner, "k", "refused")?;
        if answer.status == 201 {
            break;
        }
        ensure!(Instant::now() < until, "{}", String::from_utf8_lossy(&answer.body));
        std::thread::sleep(Duration::from_millis(100));
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn a_lock_survives_a_restart_and_is_in_the_log() -> Result<()> {
    let mut rig = Rig::start_with(&software(ON))?;
    let scanner = rig.client(Role::Scanner);
    for role in [Role::Scanner, Role::Reader] {
        let refused = rig.client(role).post("/v1/lock", &[], br#"{"reason":"no"}"#)?;
        assert_eq!((refused.status, refused.problem()?.as_str()), (403, "forbidden"));
    }
    let empty = rig.client(Role::Operator).post("/v1/lock", &[], br#"{"reason":" "}"#)?;
    assert_eq!(empty.problem()?, "invalid-request");
    let unlocked = operate(&rig, "unlock")?;
    assert_eq!((&unlocked["locked"], &unlocked["changed"]), (&false.into(), &false.into()));
    let locked = operate(&rig, "lock")?;
    for member in ["locked", "changed", "logged"] {
        assert_eq!(locked[member], true, "{locked}");
    }
    assert_eq!(operate(&rig, "lock")?["changed"], false);
    let now = status(&rig)?;
    assert_eq!((now["condition"]["state"].as_str(), now["mode"].as_str()), (Some("locked"), Some("safe")));
    assert_eq!(now["condition"]["reason"], "a test");
    assert_eq!(scanner.get("/readyz")?.status, 503);
    let documents: Vec<String> = (0..20).map(|number| format!("locked {number}")).collect();
    let mut ids = Vec::new();
    for document in &documents[..10] {
        ids.push(queued(&post(&scanner, document, document)?)?);
    }
    rig.sealer.kill()?;
    rig.sealer.start_unready()?;
    let scanner = rig.client(Role::Scanner);
    assert_eq!(status(&rig)?["condition"]["state"], "locked");
    assert_eq!(state(&rig, &ids[4])?["position"], 5);
    assert_eq!(queued(&post(&scanner, &documents[4], &documents[4])?)?, ids[4], "known after the restart");
    for document in &documents[10..] {
        ids.push(queued(&post(&scanner, document, document)?)?);
    }
    // Others do not hear of it; a reader does.
    let other = rig.client_with(Some(&rig.add_client("scanner-2", "scanner")?));
    let link = format!("/v1/queue/{}", ids[0]);
    assert_eq!(other.get(&link)?.problem()?, "unknown-queue-id");
    assert_eq!(rig.client(Role::Reader).get(&link)?.json()?["state"], "queued");
    assert_eq!(rig.client_with(None).get(&link)?.status, 401);
    // Somebody who waits gets the seal itself once the box is unlocked.
    let waited = std::thread::scope(|scope| -> Result<Response> {
        let waiting = scope
            .spawn(|| post_to(&scanner, "/v1/seals?wait=sealed&deadlineSeconds=30", "waits", "who waits"));
        std::thread::sleep(Duration::from_millis(300));
        operate(&rig, "unlock")?;
        waiting.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
    })?;
    assert_eq!(waited.status, 201, "{}", String::from_utf8_lossy(&waited.body));
    assert_eq!(rig.judge(&waited.seal()?, b"who waits").report.verdict, Verdict::Valid);
    drained(&rig)?;
    once_and_in_order(&rig, &documents, &["who waits".to_owned()])?;
    assert_eq!(post(&scanner, "after", "after")?.status, 201);
    let all = entries(&rig)?;
    let actions: Vec<(String, Mode)> = all
        .iter()
        .filter(|entry| entry.kind() == Some(Kind::OperatorAction))
        .map(|entry| Ok((OperatorActionBody::decode(&entry.content().body)?.action, entry.content().mode)))
        .collect::<Result<_>>()?;
    assert_eq!(actions, [("lock".to_owned(), Mode::AirGapped), ("unlock".to_owned(), Mode::Safe)]);
    let changes: Vec<Mode> = all
        .iter()
        .filter(|entry| entry.kind() == Some(Kind::ModeChange))
        .map(|entry| entry.content().mode)
        .collect();
    assert_eq!(changes, [Mode::Safe, Mode::AirGapped]);
    let sealed_in_safe =
        |entry: &&Entry| entry.kind() == Some(Kind::Seal) && entry.content().mode == Mode::Safe;
    assert_eq!(all.iter().find(sealed_in_safe), None);
    rig.sealer.stop()?;
    rig.fsck()?;
    // Nothing of what was opened stays in the queue's file.
    let file = std::fs::read(queue_file(&rig)?)?;
    assert!(file.windows(7).all(|bytes| bytes != "J\u{fc}rgen".as_bytes()), "an opening is in the file");
    Ok(())
}

fn queue_file(rig: &Rig) -> Result<std::path::PathBuf> {
    for directory in std::fs::read_dir(rig.state())? {
        let file = directory?.path().join("queue.redb");
        if file.is_file() {
            return Ok(file);
        }
    }
    anyhow::bail!("there is no queue.redb")
}

#[test]
fn a_full_queue_and_a_box_without_policy_refuse_while_locked() -> Result<()> {
    let rig = Rig::start_with(&software("[queue]\nwhen = [\"locked\"]\nentries_max = 3"))?;
    let scanner = rig.client(Role::Scanner);
    operate(&rig, "lock")?;
    for number in 0..3 {
        queued(&post(&scanner, &format!("k{number}"), "document")?)?;
    }
    let full = post(&scanner, "k3", "document")?;
    assert_eq!((full.status, full.problem()?.as_str()), (503, "locked"));
    assert!(full.json()?["detail"].as_str().is_some_and(|detail| detail.contains("full")));
    queued(&post(&scanner, "k1", "document")?)?;
    operate(&rig, "unlock")?;
    drained(&rig)?;
    assert_eq!(post(&scanner, "k3", "document")?.status, 201);

    let rig = Rig::start_with(&software("[queue]\nwhen = [\"key-away\"]"))?;
    operate(&rig, "lock")?;
    let refused = post(&rig.client(Role::Scanner), "k", "document")?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (503, "locked"));
    Ok(())
}

#[test]
fn g3_kill_9_while_queueing_and_draining_keeps_every_promise_once() -> Result<()> {
    let mut rig = Rig::start_with(&software(ON))?;
    let (mut documents, mut open) = (Vec::new(), Vec::new());
    for round in 0..rounds(8, 80) {
        operate(&rig, "lock")?;
        let scanner = rig.client(Role::Scanner);
        // Killed while queueing: whatever got a 202 is promised, the one without an answer is asked again.
        let posting = std::thread::spawn(move || -> Result<(Vec<String>, String)> {
            let mut promised = Vec::new();
            loop {
                let document = format!("round {round}, document {}", promised.len());
                let Ok(answer) = post(&scanner, &document, &document) else {
                    return Ok((promised, document));
                };
                queued(&answer)?;
                promised.push(document);
            }
        });
        std::thread::sleep(Duration::from_millis(60 + 13 * (round as u64 % 7)));
        rig.sealer.kill()?;
        let (promised, unanswered) = posting.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        rig.sealer.start_unready()?;
        queued(&post(&rig.client(Role::Scanner), &unanswered, &unanswered)?)?;
        documents.extend(promised);
        open.push(unanswered);
        // Killed while draining, at another moment each round.
        operate(&rig, "unlock")?;
        std::thread::sleep(Duration::from_micros(700 * (round as u64 % 16)));
        rig.sealer.kill()?;
        rig.sealer.start()?;
        drained(&rig)?;
    }
    once_and_in_order(&rig, &documents, &open)?;
    ensure!(documents.len() > open.len(), "the box was hardly busy");
    let scanner = rig.client(Role::Scanner);
    for document in documents.iter().step_by(17) {
        let again = post(&scanner, document, document)?;
        assert_eq!((again.status, again.json()?["replayed"].clone()), (200, true.into()));
    }
    println!("{} promises kept over {} kills", documents.len(), 2 * rounds(8, 80));
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

#[test]
fn nothing_is_promised_on_a_full_disk() -> Result<()> {
    let disk = Disk::new(DiskKind::Tmpfs, 64 << 20)?;
    let state = disk.state();
    let extra = format!("reserve_bytes = 8388608\n{ON}");
    let mut rig = Rig::start_with(&RigOptions { state_dir: Some(&state), ..software(&extra) })?;
    let scanner = rig.client(Role::Scanner);
    operate(&rig, "lock")?;
    queued(&post(&scanner, "k0", "there is room")?)?;
    let mut balloon = disk.balloon()?;
    balloon.leave(4 << 20)?;
    let full = post(&scanner, "k1", "there is none")?;
    assert_eq!((full.status, full.problem()?.as_str()), (507, "disk-full"));
    balloon.deflate()?;
    queued(&post(&scanner, "k1", "there is none")?)?;
    operate(&rig, "unlock")?;
    drained(&rig)?;
    once_and_in_order(&rig, &["there is room".to_owned(), "there is none".to_owned()], &[])?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// Makes files and directories unwritable, even for those who have them open, and writable again.
fn immutable(paths: &[std::path::PathBuf], on: bool) -> Result<()> {
    let output = Command::new("chattr").arg(if on { "+i" } else { "-i" }).args(paths).output()?;
    ensure!(output.status.success(), "chattr: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn what_was_queued_while_the_log_could_not_be_written_is_sealed_once_it_can() -> Result<()> {
    let disk = Disk::new(DiskKind::Ext4, 128 << 20)?;
    let state = disk.state();
    let extra = format!("reserve_bytes = 8388608\n{ON}");
    let mut rig = Rig::start_with(&RigOptions { state_dir: Some(&state), ..software(&extra) })?;
    let scanner = rig.client(Role::Scanner);
    // The queue's file exists from here on.
    operate(&rig, "lock")?;
    queued(&post(&scanner, "first", "first")?)?;
    let mut injured = Vec::new();
    for directory in std::fs::read_dir(&state)? {
        let directory = directory?.path();
        let queue = directory.join("queue.redb");
        if !queue.is_file() {
            continue;
        }
        // Once it is empty another file gets its name: that must be over before no name can be given any more.
        let file = std::fs::metadata(&queue)?.ino();
        operate(&rig, "unlock")?;
        drained(&rig)?;
        let until = Instant::now() + PATIENCE;
        while std::fs::metadata(&queue)?.ino() == file {
            ensure!(Instant::now() < until, "an empty queue is not rewritten\n{}", rig.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        for file in std::fs::read_dir(&directory)? {
            let file = file?.path();
            let is_segment = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("seg-"));
            injured.extend(is_segment.then_some(file));
        }
        injured.push(directory);
    }
    ensure!(injured.len() >= 2, "a log directory has segments: {injured:?}");
    immutable(&injured, true)?;
    let judged = (|| -> Result<(Response, Vec<Response>)> {
        let tried = post(&scanner, "tried", "tried")?;
        let mut kept = Vec::new();
        for number in 0..5 {
            kept.push(post(&scanner, &format!("kept {number}"), &format!("kept {number}"))?);
        }
        Ok((tried, kept))
    })();
    immutable(&injured, false)?;
    let (tried, kept) = judged?;
    // Its append was tried: nobody may promise more about it.
    assert_eq!((tried.status, tried.problem()?.as_str()), (500, "internal"));
    for answer in &kept {
        queued(answer)?;
    }
    drained(&rig)?;
    let again = post(&scanner, "tried", "tried")?;
    assert!([200, 201].contains(&again.status), "{}", String::from_utf8_lossy(&again.body));
    let documents: Vec<String> = (0..5).map(|number| format!("kept {number}")).collect();
    once_and_in_order(&rig, &documents, &["tried".to_owned()])?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// A crash between the entry and the record of it, at its worst: nothing of what was drained is recorded.
#[test]
fn g3_rows_that_were_sealed_and_come_back_are_not_sealed_again() -> Result<()> {
    let mut rig = Rig::start_with(&software(ON))?;
    operate(&rig, "lock")?;
    let documents: Vec<String> = (0..20).map(|number| format!("document {number}")).collect();
    let scanner = rig.client(Role::Scanner);
    let mut ids = Vec::new();
    for document in &documents[..10] {
        ids.push(queued(&post(&scanner, document, document)?)?);
    }
    for document in &documents[10..] {
        // Without a key of the client's own.
        ids.push(queued(&scanner.seal(document.as_bytes())?)?);
    }
    rig.sealer.stop()?;
    let (file, copy) = (queue_file(&rig)?, rig.file("queue.copy"));
    std::fs::copy(&file, &copy)?;
    rig.sealer.start_unready()?;
    operate(&rig, "unlock")?;
    drained(&rig)?;
    let before: Vec<Value> = ids.iter().map(|id| state(&rig, id)).collect::<Result<_>>()?;
    rig.sealer.kill()?;
    std::fs::copy(&copy, &file)?;
    rig.sealer.start()?;
    drained(&rig)?;
    once_and_in_order(&rig, &documents, &[])?;
    let after: Vec<Value> = ids.iter().map(|id| state(&rig, id)).collect::<Result<_>>()?;
    assert_eq!(after, before, "each is still the seal that it was");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

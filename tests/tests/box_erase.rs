//! Erasure on a real box: the openings are in no byte of its state any more, every proof holds, the log says so, and a
//! kill at any step leaves either nothing promised or everything done.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::operator_action::OperatorActionBody;
use bulla_formats::body::seal::Opening;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::erasure::erased_leaves;
use bulla_formats::hash::sha256;
use bulla_formats::report::{Outcome, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_formats::tile::parse_entries;
use bulla_tests::rig::strace::{Faults, thread_id};
use bulla_tests::rig::{Keys, Rig, RigOptions, Role, rounds};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
const NODES: TableDefinition<(u64, u8, u32), &[u8; 40]> = TableDefinition::new("nodes-1");
const TAGS: TableDefinition<&[u8; 24], ()> = TableDefinition::new("tags-1");

fn log_directory(rig: &Rig) -> PathBuf {
    let entries = std::fs::read_dir(rig.state()).unwrap().map(|entry| entry.unwrap().path());
    entries.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-")).unwrap()
}

/// Every byte of every file below `directory`.
fn contents(directory: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents(&path, found);
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
}

fn holds(files: &[(PathBuf, Vec<u8>)], needle: &[u8]) -> bool {
    files.iter().any(|(_, bytes)| bytes.windows(needle.len()).any(|window| window == needle))
}

/// The secrets from the root down to the key of an entry's openings, in a log where nothing has been erased yet, and
/// its tags in the search index.
fn secrets(rig: &Rig, index: u64) -> (Vec<[u8; 32]>, Vec<[u8; 16]>) {
    let open = |name: &str| {
        let copy = rig.directory().join(name);
        std::fs::copy(log_directory(rig).join(name), &copy).unwrap();
        redb::Database::open(copy).unwrap().begin_read().unwrap()
    };
    let nodes = open("opening-keys.redb").open_table(NODES).unwrap();
    let root = nodes.get((index >> 16, 0, 0)).unwrap().unwrap();
    let mut path = vec![<[u8; 32]>::try_from(&root.value()[..32]).unwrap()];
    for bit in (0..16).rev() {
        let side = [(index >> bit & 1) as u8];
        let child = sha256(&[b"bulla/opening-node/v1\0", path.last().unwrap(), &side]);
        path.push(child.0);
    }
    let rows = open("search.redb").open_table(TAGS).unwrap();
    let rows = rows.iter().unwrap().map(|row| *row.unwrap().0.value());
    let of_entry = rows.filter(|row| row[20..] == (index as u32).to_be_bytes());
    (path, of_entry.map(|row| row[4..20].try_into().unwrap()).collect())
}

fn seal(rig: &Rig, document: &str, id: &str, user: &str) -> Result<(String, SealFile)> {
    let headers = [
        ("Content-Type", "text/plain"),
        ("Bulla-Document-Id", id),
        ("Bulla-User", user),
        ("Bulla-Metadata", "desk=3"),
    ];
    let answer = rig.client(Role::Scanner).post("/v1/seals", &headers, document.as_bytes())?;
    ensure!(answer.status == 201, "{}", String::from_utf8_lossy(&answer.body));
    Ok((answer.json()?["id"].as_str().unwrap().to_owned(), answer.seal()?))
}

fn index_of(id: &str) -> u64 {
    id.split_once('-').unwrap().0.parse().unwrap()
}

/// Seals until full blocks of the search index can go to its file, and has them go there.
fn into_the_file(rig: &mut Rig) -> Result<()> {
    let scanner = rig.client(Role::Scanner);
    for number in 0..300 {
        let order = json!({"algorithm": "sha-256", "digest": format!("{number:064x}"), "documentId": format!("F-{number}")});
        ensure!(scanner.seal_digest(&order, &[])?.status == 201);
    }
    // Whatever is in the index at a stop goes to the file; a search takes in what is missing.
    assert_eq!(found(rig, "documentId=F-299")?.len(), 1);
    rig.sealer.stop()?;
    assert!(log_directory(rig).join("search.redb").exists());
    rig.sealer.start()
}

fn get(rig: &Rig, id: &str) -> Result<Value> {
    rig.client(Role::Reader).get(&format!("/v1/seals/{id}"))?.json()
}

/// How many openings the box shows.
fn openings(rig: &Rig, id: &str) -> Result<usize> {
    let shown = get(rig, id)?;
    Ok(shown["document"]["openings"].as_array().with_context(|| shown.to_string())?.len())
}

fn found(rig: &Rig, filters: &str) -> Result<Vec<String>> {
    let page = rig.client(Role::Reader).get(&format!("/v1/seals?{filters}"))?.json()?;
    let seals = page["seals"].as_array().with_context(|| page.to_string())?;
    Ok(seals.iter().map(|seal| seal["id"].as_str().unwrap().to_owned()).collect())
}

/// The bodies of all entries that record an erasure.
fn records(rig: &Rig) -> Result<Vec<OperatorActionBody>> {
    let (size, mut all) = (rig.log_size()?, Vec::new());
    for tile in 0..size.div_ceil(256) {
        let width = (size - tile * 256).min(256);
        let partial = if width < 256 { format!(".p/{width}") } else { String::new() };
        let bundle = rig.client_with(None).get(&format!("/tile/entries/{tile:03}{partial}"))?.body;
        for bytes in parse_entries(&bundle, u16::try_from(width)?)? {
            let entry = Entry::decode(bytes)?;
            if entry.kind() == Some(Kind::OperatorAction) {
                let body = OperatorActionBody::decode(&entry.content().body)?;
                all.extend(erased_leaves(&body).map(|_| body));
            }
        }
    }
    Ok(all)
}

fn leaf(seal: &SealFile) -> bulla_formats::hash::Hash {
    Entry::decode(&seal.entry).unwrap().leaf_hash()
}

fn erasure_check(rig: &Rig, seal: &SealFile, document: &str) -> Option<String> {
    let report = rig.judge(seal, document.as_bytes()).report;
    assert_eq!(report.verdict, Verdict::Valid, "{report}");
    let check = report.checks.iter().find(|check| check.name == "erasure")?;
    assert_eq!(check.outcome, Outcome::Passed);
    Some(check.detail.clone())
}

#[test]
fn g5_erased_openings_are_in_no_byte_of_the_box_and_break_no_proof() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let (loan, loan_file) = seal(&rig, "a loan", "LOAN-77-4711", "Josefine-Mutzenbacher")?;
    let (copy, _) = seal(&rig, "its copy", "LOAN-77-4711", "Hugo")?;
    let (other, other_file) = seal(&rig, "a letter", "LETTER-1", "Hugo")?;
    into_the_file(&mut rig)?;
    let secret = secrets(&rig, index_of(&loan));
    assert_eq!(
        (secret.0.len(), secret.1.len()),
        (17, 3),
        "root to key; tags of document id, user and client"
    );
    std::fs::write(rig.file("operator.token"), rig.token(Role::Operator))?;
    std::fs::write(rig.file("reader.token"), rig.token(Role::Reader))?;
    let erase = |rig: &Rig, arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let output = rig.try_run(&[&["erase"], arguments].concat())?;
        let both = [output.stdout, output.stderr].concat();
        Ok((output.status.code(), String::from_utf8(both)?))
    };

    // What is refused changes nothing.
    let by_id = ["--document-id", "LOAN-77-4711", "--token-file", "operator.token"];
    for (arguments, code, words) in [
        (&["--reason", "GDPR 17, file 12/2026"][..], 1, "--yes"),
        (&["--reason", "because of loan-77-4711", "--yes"], 1, "repeats what is to be erased"),
        (&["--reason", " ", "--yes"], 1, "--reason"),
        (&["--user", "Hugo", "--reason", "x", "--yes"], 2, "cannot be used with"),
    ] {
        let (ended, said) = erase(&rig, &[&by_id, arguments].concat())?;
        assert!(ended == Some(code) && said.contains(words), "{arguments:?}: {ended:?} {said}");
    }
    let running = ["--document-id", "LOAN-77-4711", "--reason", "x", "--yes"];
    let (ended, said) = erase(&rig, &running)?;
    assert!(ended == Some(1) && said.contains("--token-file"), "{said}");
    let (ended, said) = erase(&rig, &[&running[..], &["--token-file", "reader.token"]].concat())?;
    assert!(ended == Some(1) && said.contains("operator") | said.contains("reader"), "{said}");
    let operator = rig.client(Role::Operator);
    for (body, status, slug) in [
        (json!({"reason": "x"}), 400, "invalid-request"),
        (json!({"user": "", "reason": "x"}), 400, "invalid-request"),
        (json!({"user": "a", "documentId": "b", "reason": "x"}), 400, "invalid-request"),
        (json!({"user": "Hugo", "reason": "so wishes hugo"}), 400, "invalid-request"),
        (json!({"user": "Hugo", "reason": ""}), 400, "invalid-request"),
        (json!({"user": ["Hugo"], "reason": "x"}), 400, "invalid-request"),
        (json!({"seals": [], "reason": "x"}), 400, "invalid-request"),
        (json!({"seals": [loan, "0-0000000000000000"], "reason": "x"}), 404, "unknown-seal"),
        (json!({"seals": ["garbage"], "reason": "x"}), 404, "unknown-seal"),
    ] {
        let answer = operator.post("/v1/erasures", &[], body.to_string().as_bytes())?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (status, slug), "{body}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("Hugo"), "a refusal repeats a value");
    }
    let (ended, said) = erase(&rig, &[&by_id[..], &["--reason", "x", "--dry-run"]].concat())?;
    assert!(ended == Some(0) && said.contains("would erase: 2 seal(s)"), "{said}");
    assert_eq!((records(&rig)?.len(), found(&rig, "documentId=LOAN-77-4711")?.len()), (0, 2));

    // Erased: for the log, for readers, for the verifier; nobody else's openings are touched.
    let (ended, said) = erase(&rig, &[&by_id[..], &["--reason", "GDPR 17, file 12/2026", "--yes"]].concat())?;
    assert!(ended == Some(0) && said.contains("erased the openings of 2 seal(s)"), "{said}");
    let records_now = records(&rig)?;
    assert_eq!(records_now.len(), 1);
    assert_eq!(records_now[0].reason, "operator-1: GDPR 17, file 12/2026");
    assert_eq!(erased_leaves(&records_now[0]).unwrap().len(), 2);
    let shown = get(&rig, &loan)?;
    assert_eq!((&shown["erased"], &shown["document"]["openings"]), (&json!(true), &json!([])));
    assert_eq!((&shown["document"]["commitments"], get(&rig, &other)?.get("erased")), (&json!(3), None));
    assert_eq!(get(&rig, &other)?["document"]["openings"].as_array().unwrap().len(), 3);
    assert!(found(&rig, "documentId=LOAN-77-4711")?.is_empty());
    assert_eq!(found(&rig, "user=Hugo")?, std::slice::from_ref(&other));
    assert!(
        found(&rig, "client=scanner-1&limit=500")?.contains(&loan),
        "what an entry says openly is still found"
    );
    let now = rig.client(Role::Scanner).get(&format!("/v1/seals/{loan}/seal-file"))?.seal()?;
    let said = erasure_check(&rig, &now, "a loan").context("the verifier says nothing of the erasure")?;
    assert!(said.starts_with("erased: openings of this seal were destroyed by the box, entry "), "{said}");
    // A file from before keeps what it holds; an upgrade adds the erasure to it.
    assert_eq!(erasure_check(&rig, &loan_file, "a loan"), None);
    let mut upgraded = loan_file.clone();
    assert_eq!(upgraded.upgrade(now.clone()), Some(true));
    assert!(erasure_check(&rig, &upgraded, "a loan").unwrap().contains("still carries 3 of them"));
    assert_eq!(erasure_check(&rig, &other_file, "a letter"), None);
    // Somebody else's erasure proves nothing here.
    let mut wrong = other_file.clone();
    wrong.erasures = now.erasures.clone();
    let report = rig.judge(&wrong, b"a letter").report;
    assert_eq!(
        (report.verdict, report.failed().map(|check| check.name)),
        (Verdict::Refused, Some("erasure"))
    );
    // Again: nothing is left to do, and nothing is recorded twice.
    let (ended, said) = erase(
        &rig,
        &["--seal", &loan, "--seal", &copy, "--reason", "x", "--yes", "--token-file", "operator.token"],
    )?;
    assert!(
        ended == Some(0) && said.contains("0 seal(s) have openings to erase, 2 are erased already"),
        "{said}"
    );
    assert_eq!(records(&rig)?.len(), 1);
    assert!(!rig.log().contains("Mutzenbacher") && !rig.log().contains("LOAN-77"));

    // In no byte of the state: not the key, not a tag of document id or user, not the value, not its salt.
    rig.sealer.stop()?;
    let mut files = Vec::new();
    contents(&rig.state(), &mut files);
    assert!(files.iter().all(|(path, _)| !path.to_str().unwrap().ends_with(".new")));
    for (level, node) in secret.0.iter().enumerate() {
        assert!(!holds(&files, node), "the key follows from a secret of level {level}");
    }
    let tags = secret.1.iter().filter(|tag| holds(&files, *tag)).count();
    assert_eq!(tags, 1, "only the tag of the client, whose name is in the entry itself");
    for opening in &loan_file.openings {
        let opening = Opening::decode(opening)?;
        assert!(!holds(&files, &*opening.salt), "a salt");
        assert!(opening.value == "3" || !holds(&files, opening.value.as_bytes()), "{}", opening.name);
    }
    rig.fsck()?;

    // On a stopped box directly.
    let (ended, said) = erase(&rig, &["--user", "Hugo", "--reason", "file 13/2026", "--yes"])?;
    assert!(ended == Some(0) && said.contains("erased the openings of 1 seal(s)"), "{said}");
    rig.fsck()?;
    rig.sealer.start()?;
    assert_eq!(get(&rig, &other)?["erased"], json!(true));
    assert_eq!(records(&rig)?.last().unwrap().reason, "at the stopped box: file 13/2026");
    Ok(())
}

/// strace that kills the box at the `at`-th flush from now on, of any thread or of the one with this name.
fn kill_at_flush(pid: u32, thread: Option<&str>, at: usize) -> Result<Child> {
    let whom = match thread {
        None => vec!["-f".to_owned(), "-p".to_owned(), pid.to_string()],
        Some(name) => vec!["-p".to_owned(), thread_id(pid, name)?.to_string()],
    };
    let mut strace = Command::new("strace")
        .args(whom)
        .args(["-e", "trace=fdatasync,fsync", "-e", &format!("inject=fdatasync,fsync:signal=KILL:when={at}")])
        .args(["-o", "/dev/null"])
        .stderr(Stdio::piped())
        .spawn()
        .context("strace is needed")?;
    let mut line = String::new();
    BufReader::new(strace.stderr.take().context("it has a stderr")?).read_line(&mut line)?;
    ensure!(line.contains("attached"), "strace says {line:?}");
    Ok(strace)
}

/// How many entries say that this seal's openings are erased.
fn recorded(rig: &Rig, seal: &SealFile) -> Result<usize> {
    Ok(records(rig)?.iter().filter(|body| erased_leaves(body).unwrap().contains(&leaf(seal))).count())
}

/// Waits for the record: the tags go beside the seals of a run.
fn wait_recorded(rig: &Rig, seal: &SealFile) -> Result<()> {
    let begun = Instant::now();
    while recorded(rig, seal)? == 0 {
        ensure!(begun.elapsed() < Duration::from_secs(120), "a promised erasure is not recorded");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn g5_a_kill_at_any_flush_of_an_erasure_leaves_it_unpromised_or_done() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let flushes = rounds(40, 80);
    let targets: Vec<_> = (0..flushes)
        .map(|n| seal(&rig, &format!("document {n}"), &format!("T-{n}"), "U"))
        .collect::<Result<_>>()?;
    into_the_file(&mut rig)?;
    let (mut unpromised, mut finished, mut answered) = (0, 0, 0);
    // The writer destroys keys and records, the indexer removes tags; each counts its own flushes.
    let (mut thread, mut at) = (None, 0);
    for (number, (id, before)) in targets.iter().enumerate() {
        at += 1;
        let place = format!("{} at flush {at}", thread.unwrap_or("any thread"));
        let operator = rig.client(Role::Operator);
        let body = json!({"seals": [id], "reason": format!("request {number}")}).to_string();
        let mut strace = kill_at_flush(rig.sealer.pid().context("it runs")?, thread, at)?;
        let answer = operator.post("/v1/erasures", &[], body.as_bytes());
        let done = answer.as_ref().is_ok_and(|answer| answer.status == 201);
        strace.kill()?;
        strace.wait()?;
        rig.sealer.kill()?;
        rig.sealer.start()?;
        // The keys are destroyed before the first answer; the record follows when the tags are gone too.
        let shown = openings(&rig, id)?;
        assert!(shown == 3 || shown == 0, "{place}: {shown}");
        let erased = shown == 0;
        assert!(erased || !done, "{place}: answered, and not done");
        if erased {
            assert!(!done || recorded(&rig, before)? == 1, "{place}: answered, and not recorded");
            wait_recorded(&rig, before)?;
            finished += 1
        } else {
            unpromised += 1
        }
        assert_eq!(recorded(&rig, before)?, usize::from(erased), "{place}: the log says what is so, once");
        assert_eq!(get(&rig, id)?["erased"] == json!(true), erased, "{place}");
        // Asked again it is done, and recorded once.
        let again = rig.client(Role::Operator).post("/v1/erasures", &[], body.as_bytes())?;
        assert_eq!(again.status, if erased { 200 } else { 201 }, "{}", String::from_utf8_lossy(&again.body));
        assert_eq!(recorded(&rig, before)?, 1);
        let seal = rig.client(Role::Reader).get(&format!("/v1/seals/{id}/seal-file"))?.seal()?;
        assert!(erasure_check(&rig, &seal, &format!("document {number}")).is_some(), "{place}");
        if done {
            answered += 1;
            println!("{place}: answered before the kill");
            match thread {
                None => (thread, at) = (Some("indexer"), 0),
                Some(_) => break,
            }
        }
    }
    println!("{unpromised} unpromised, {finished} finished, {answered} answered first");
    assert!(unpromised > 0 && finished > answered && answered == 2, "the sweep does not cover an erasure");
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

/// The search index is written anew beside the seals: they go on, nobody finds what is erased, and a kill or a stop in
/// the middle is made good by the next start, which seals at once.
#[test]
fn g5_seals_go_on_while_an_erasure_is_carried_out() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let targets: Vec<_> = (0..3)
        .map(|n| seal(&rig, &format!("document {n}"), &format!("T-{n}"), "U"))
        .collect::<Result<_>>()?;
    into_the_file(&mut rig)?;
    let order = |id: &str| json!({"seals": [id], "reason": "x"}).to_string();
    for (number, ending) in ["kill", "stop", "none"].into_iter().enumerate() {
        let (id, before) = &targets[number];
        // A stopping box waits 10 s for requests in flight: this one takes longer.
        let pause = Duration::from_millis(if ending == "stop" { 6_000 } else { 1_500 });
        let slow = Faults::slow_flushes(rig.sealer.pid().context("it runs")?, "indexer", pause)?;
        let (operator, body) = (rig.client(Role::Operator), order(id));
        let pending = std::thread::spawn(move || operator.post("/v1/erasures", &[], body.as_bytes()));
        let begun = Instant::now();
        while openings(&rig, id)? > 0 {
            ensure!(begun.elapsed() < Duration::from_secs(60), "the keys are not destroyed");
        }
        assert!(found(&rig, &format!("documentId=T-{number}"))?.is_empty(), "{ending}: found when erased");
        let mut sealed = 0;
        while sealed < 3 {
            seal(&rig, &format!("{ending} {sealed}"), "L-1", "V")?;
            sealed += 1;
        }
        // One at a time; saying what would be erased is no second one.
        let dry = json!({"documentId": "L-1", "reason": "x", "dryRun": true}).to_string();
        let dry = rig.client(Role::Operator).post("/v1/erasures", &[], dry.as_bytes())?;
        assert_eq!(dry.status, 200, "{}", String::from_utf8_lossy(&dry.body));
        let other = json!({"user": "V", "reason": "x"}).to_string();
        let second = rig.client(Role::Operator).post("/v1/erasures", &[], other.as_bytes())?;
        assert!(!pending.is_finished(), "{ending}: the erasure did not wait for its tags");
        assert_eq!((second.status, second.problem()?.as_str()), (409, "erasure-running"));
        assert!(second.header("retry-after").parse::<u32>().is_ok());
        assert_eq!(recorded(&rig, before)?, 0, "{ending}: recorded before it is so");
        match ending {
            "kill" => rig.sealer.kill()?,
            "stop" => std::thread::scope(|scope| {
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_secs(11));
                    drop(slow);
                });
                rig.sealer.stop()
            })?,
            _ => {
                let answer = pending.join().expect("the thread only asks")?;
                assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
                continue;
            }
        }
        let answer = pending.join().expect("the thread only asks");
        let status = answer.map(|answer| answer.status);
        assert!(status.is_err() || matches!(status, Ok(503)), "{ending}: {status:?}");
        rig.sealer.start()?;
        seal(&rig, &format!("after the {ending}"), "L-2", "V")?;
        wait_recorded(&rig, before)?;
        assert_eq!(recorded(&rig, before)?, 1);
        assert!(found(&rig, &format!("documentId=T-{number}"))?.is_empty());
    }
    for (_, before) in &targets {
        assert_eq!(recorded(&rig, before)?, 1);
    }
    // The second one is carried out now.
    let other = json!({"user": "V", "reason": "x"}).to_string();
    let answer = rig.client(Role::Operator).post("/v1/erasures", &[], other.as_bytes())?;
    assert_eq!((answer.status, answer.json()?["erased"].as_array().map(Vec::len)), (201, Some(11)));
    rig.sealer.stop()?;
    rig.fsck()?;
    let mut files = Vec::new();
    contents(&rig.state(), &mut files);
    assert!(files.iter().all(|(path, _)| !path.to_str().unwrap().ends_with(".new")));
    Ok(())
}

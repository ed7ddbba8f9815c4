//! What auditors ask: entries in one order, versions of a document, statements, productions, the feed; on logs whose every
//! byte is known.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../formats/tests/common/mod.rs"]
mod common;
mod standin;

use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Cosignature, Evidence};
use bulla_formats::body::seal::{Relation, RelationKind};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::Hardware;
use bulla_formats::entry::{EntryContent, EntryRef, Kind, TreeState};
use bulla_formats::hash::leaf_hash;
use bulla_formats::report::Verdict;
use bulla_formats::trust::{Authorities, TrustFile, TrustedWitness};
use bulla_formats::verify::verify;
use bulla_formats::witness::{WitnessKey, cosigned};
use common::{Log, NOW, digest};
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use standin::{Served, StandIn, TestHub, grow};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;

const SECOND: u64 = NOW / 1_000;
const AT: [&str; 2] = ["--at", "2026-11-22T08:00:00Z"];

/// Appends an anchor of the log as it is, cosigned then; returns its index.
fn anchor(log: &mut Log, seconds: u64) -> u64 {
    let head = TreeState::new(log.size(), log.root());
    let mut body = AnchorBody {
        version: 1,
        batch: head.clone(),
        index: 0,
        path: Vec::new(),
        head,
        proofs: Vec::new(),
        manifests: Vec::new(),
    };
    let text = body.checkpoint_text(log.origin.as_str());
    body.batch = TreeState::new(1, leaf_hash(text.as_bytes()));
    let signature = SigningKey::from_bytes(&[77; 32]).sign(&cosigned(&text, seconds)).to_bytes();
    let said = Cosignature { name: "witness.test/w1".into(), seconds, signature: signature.to_vec().into() };
    let (authority, operator) = ("w1".into(), "one".into());
    body.proofs.push(AnchorProof { authority, operator, evidence: Evidence::Cosignature(said) });
    log.append(log.content(Kind::Anchor as u16, der::encode(&body)))
}

fn with_witness(mut trust: TrustFile) -> TrustFile {
    let key = SigningKey::from_bytes(&[77; 32]).verifying_key().to_bytes();
    let key = WitnessKey::new("witness.test/w1", key).unwrap();
    let witnesses = vec![TrustedWitness { operator: "one".into(), key }];
    trust.authorities = Some(Authorities { tsas: Vec::new(), witnesses, operators: 1 });
    trust
}

/// Seals `document` after the evidence at that index, saying this of others.
fn seal(log: &mut Log, document: &str, evidence: Option<u64>, says: &[(RelationKind, [u8; 32])]) -> u64 {
    let (mut body, openings) = log.seal_body(&digest(document.as_bytes()));
    body.relations =
        says.iter().map(|(kind, leaf)| Relation { kind: *kind, entry: Octets32::new(*leaf) }).collect();
    let named = evidence.map(|index| {
        let leaf_hash = Octets32::new(log.entries[index as usize].leaf_hash().0);
        EntryRef { index, leaf_hash }
    });
    let content = EntryContent { evidence: named, ..log.content(Kind::Seal as u16, der::encode(&body)) };
    let index = log.append(content);
    log.openings[index as usize] = openings;
    index
}

fn leaf(log: &Log, index: u64) -> [u8; 32] {
    log.entries[index as usize].leaf_hash().0
}

fn named(document: &str) -> String {
    format!("sha-256:{}", hex::encode(digest(document.as_bytes()).value))
}

/// Two logs with a story: a contract sealed at both, superseded at the first, a rival at the second, a mis-scan annulled.
fn story() -> (Log, Log) {
    let (mut a, mut b) = (Log::new(Hardware::Tpm, 1), Log::new(Hardware::Tpm, 2));
    let first = seal(&mut a, "contract", None, &[]);
    seal(&mut b, "contract", None, &[]);
    let (at_a, at_b) = (anchor(&mut a, SECOND + 10), anchor(&mut b, SECOND + 11));
    let over = leaf(&a, first);
    let second = seal(&mut a, "contract 2", Some(at_a), &[(RelationKind::Supersedes, over)]);
    let copy = leaf(&b, 1);
    seal(&mut b, "contract 2b", Some(at_b), &[(RelationKind::Supersedes, copy)]);
    let slip = seal(&mut a, "mis-scan", Some(at_a), &[]);
    let slip = leaf(&a, slip);
    // From the other box, as nothing but a leaf hash.
    seal(&mut b, "mis-scan", Some(at_b), &[(RelationKind::Annuls, slip)]);
    anchor(&mut a, SECOND + 100);
    anchor(&mut b, SECOND + 100);
    let after = leaf(&a, second);
    seal(&mut a, "certified copy", None, &[(RelationKind::DerivedFrom, after)]);
    grow(&mut a, 0, 150);
    grow(&mut b, 500, 800);
    a.attestation();
    anchor(&mut a, SECOND + 500);
    (a, b)
}

fn hub_of(a: &Log, b: &Log) -> (TestHub, [StandIn; 2]) {
    let (one, two) = (StandIn::start(), StandIn::start());
    one.serve(Served::of(a));
    two.serve(Served::of(b));
    let hub = TestHub::new(&[("a", a, &[(&one, false)]), ("b", b, &[(&two, false)])]);
    std::fs::write(hub.path("trust.json"), with_witness(a.trust()).encode()).unwrap();
    assert_eq!(hub.pull().0, 0);
    (hub, [one, two])
}

fn listed(hub: &TestHub, arguments: &[&str]) -> Vec<Value> {
    let (code, lines) = hub.lines(&[&["find", "--limit", "100000"], arguments].concat());
    assert_eq!(code, if lines.is_empty() { 4 } else { 0 }, "{arguments:?}");
    lines
}

#[test]
fn all_logs_are_one_order_and_every_question_picks_from_it() {
    let (a, b) = story();
    let (hub, _boxes) = hub_of(&a, &b);
    let all = listed(&hub, &[]);
    assert_eq!(all.len() as u64, a.size() + b.size());
    let place = |row: &Value| {
        (
            row["lamport"].as_u64().unwrap(),
            row["origin"].as_str().unwrap().to_owned(),
            row["index"].as_u64().unwrap(),
        )
    };
    assert!(all.windows(2).all(|two| place(&two[0]) < place(&two[1])), "in one order");
    // Pages put together are the whole.
    let (mut paged, mut after) = (Vec::new(), Vec::new());
    loop {
        let lines = hub
            .lines(&[vec!["find", "--limit", "97"], after.iter().map(String::as_str).collect()].concat())
            .1;
        let next = lines.last().and_then(|line| line["next"].as_str()).map(str::to_owned);
        paged.extend(lines.into_iter().filter(|line| line["next"].is_null()));
        let Some(next) = next else { break };
        after = vec!["--after".to_owned(), next];
    }
    assert_eq!(paged, all);
    // Each question gives what a look at all of it gives.
    let count =
        |keep: &dyn Fn(&Value) -> bool| all.iter().filter(|row| keep(row)).cloned().collect::<Vec<_>>();
    assert_eq!(listed(&hub, &["--box", "b"]), count(&|row| row["box"] == "b"));
    for kind in ["anchor", "seal", "attestation", "manifest"] {
        assert_eq!(listed(&hub, &["--kind", kind]), count(&|row| row["kind"] == kind), "{kind}");
    }
    let (from, to) = ((SECOND + 10) * 1_000, (SECOND + 101) * 1_000);
    let bound = |row: &Value, member: &str| row[member].as_u64();
    let (from_text, to_text) = (from.to_string(), to.to_string());
    let within = listed(&hub, &["--from", &from_text, "--to", &to_text, "--within"]);
    assert_eq!(
        within,
        count(&|row| bound(row, "notBeforeMillis").is_some_and(|time| time >= from)
            && bound(row, "notAfterMillis").is_some_and(|time| time <= to))
    );
    assert_eq!(within.len(), 4, "what was sealed between two anchors: {within:?}");
    assert_eq!(
        listed(&hub, &["--from", &to_text]),
        count(&|row| bound(row, "notAfterMillis").is_none_or(|time| time >= to))
    );
    // The interval in the list is the one that the seal verifies to.
    for row in all.iter().filter(|row| row["kind"] == "seal").take(12) {
        let log = if row["box"] == "a" { &a } else { &b };
        let out = hub.path("x.seal");
        let index = row["index"].to_string();
        let name = row["box"].as_str().unwrap();
        assert_eq!(hub.run(&["seal", name, &index, "--out", out.to_str().unwrap()]).status.code(), Some(0));
        let judged = verify(&std::fs::read(&out).unwrap(), &with_witness(log.trust()), None);
        let interval = judged.report.interval.unwrap();
        assert_eq!(bound(row, "notBeforeMillis"), interval.after, "{row}");
        assert_eq!(bound(row, "notAfterMillis"), interval.before, "{row}");
    }
    for (wrong, code) in [
        (vec!["find", "--kind", "song"], 2),
        (vec!["find", "--from", "yesterday"], 2),
        (vec!["find", "--after", "7"], 2),
        (vec!["find", "--box", "nobody"], 4),
        (vec!["find", "--document-id", "K-1"], 2),
        (vec!["statement", "--digest", "sha-256:00"], 2),
        (vec!["statement", "--digest", &named("nothing")], 4),
        (vec!["timeline"], 2),
    ] {
        assert_eq!(hub.run(&wrong).status.code(), Some(code), "{wrong:?}");
    }
    // By a user: only the branch's own openings tell.
    let file = hub.path("opened.seal");
    std::fs::write(&file, a.seal_file(1, false).encode()).unwrap();
    let by_user = ["find", "--user", "m.keller", "--opened", file.to_str().unwrap()];
    let (code, found) = hub.lines(&by_user);
    assert_eq!((code, &found[0]["index"]), (0, &json!(1)), "{found:?}");
    assert_eq!(
        hub.run(&["find", "--user", "nobody", "--opened", file.to_str().unwrap()]).status.code(),
        Some(4)
    );
}

fn statement(hub: &TestHub, document: &str) -> Value {
    let (code, lines) = hub.lines(&["statement", "--digest", &named(document), AT[0], AT[1]]);
    assert_eq!(code, 0, "{lines:?}");
    lines[0].clone()
}

#[test]
fn a_statement_says_how_versions_stand_and_carries_its_evidence() {
    let (a, b) = story();
    let (hub, _boxes) = hub_of(&a, &b);
    let said = statement(&hub, "contract");
    assert_eq!(said["bulla"], "statement/v1");
    assert_eq!(said["standing"], "replaced");
    let seals = said["seals"].as_array().unwrap();
    assert_eq!(seals.len(), 4, "two copies and two that supersede them: {said}");
    let standing = |document: &str| -> Vec<&str> {
        let of = seals.iter().filter(|seal| seal["document"]["digest"] == named(document).as_str());
        of.map(|seal| seal["standing"].as_str().unwrap()).collect()
    };
    assert_eq!(standing("contract"), ["replaced", "replaced"]);
    // Two successors of one text, sealed at two boxes between the same times: nobody can tell.
    assert_eq!((standing("contract 2"), standing("contract 2b")), (vec!["conflict"], vec!["conflict"]));
    assert_eq!(said["conflicts"].as_array().unwrap().len(), 1);
    assert_eq!(said["duplicates"].as_array().unwrap().len(), 1);
    assert!(
        said["findings"].as_array().unwrap().iter().any(|finding| finding["kind"] == "duplicate"),
        "{said}"
    );
    assert_eq!(statement(&hub, "contract 2b")["standing"], "conflict");
    assert_eq!(statement(&hub, "certified copy")["standing"], "current");
    let void = statement(&hub, "mis-scan");
    assert_eq!(void["standing"], "annulled");
    let of = |name: &str| void["seals"].as_array().unwrap().iter().find(|seal| seal["box"] == name).unwrap();
    assert_eq!(of("a")["annulledBy"], json!([of("b")["number"]]), "{void}");
    assert_eq!((&of("a")["isAnnulment"], &of("b")["isAnnulment"]), (&json!(false), &json!(true)));

    let (code, events) = hub.lines(&["timeline", "--digest", &named("contract 2")]);
    assert_eq!(code, 0);
    let of_seal = |name: &str| events.iter().filter(|event| event["event"] == name).count();
    for (name, least) in [
        ("key-epoch", 2),
        ("sealed", 4),
        ("supersedes", 2),
        ("anchored", 3),
        ("attested", 1),
        ("time-evidence", 2),
    ] {
        assert!(of_seal(name) >= least, "{name}: {events:#?}");
    }
    let places: Vec<_> = events
        .iter()
        .map(|event| (event["lamport"].as_u64(), event["origin"].as_str(), event["index"].as_u64()))
        .collect();
    assert!(places.is_sorted(), "{places:?}");

    // The PDF: the same bytes for the same time, the seals inside, each of them proof by itself.
    let (one, two) = (hub.path("one.pdf"), hub.path("two.pdf"));
    for out in [&one, &two] {
        let made = hub.run(&[
            "statement",
            "--digest",
            &named("contract"),
            AT[0],
            AT[1],
            "--pdf",
            out.to_str().unwrap(),
        ]);
        assert_eq!(made.status.code(), Some(0));
    }
    let pdf = std::fs::read(&one).unwrap();
    assert!(pdf == std::fs::read(&two).unwrap(), "the same statement");
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("statement.pdf"), &pdf).unwrap();
    let again = hub.run(&["statement", "--digest", &named("contract"), "--pdf", one.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten");
    let inside = hub.path("inside");
    std::fs::create_dir(&inside).unwrap();
    let out = Command::new("pdfdetach")
        .args(["-saveall", "-o", inside.to_str().unwrap(), one.to_str().unwrap()])
        .output()
        .expect("pdfdetach is there; `cargo xtask setup` installs poppler-utils");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    for seal in seals {
        let bytes = std::fs::read(inside.join(seal["file"].as_str().unwrap())).unwrap();
        let asked = seal["asked"].as_bool().unwrap();
        let judged = verify(&bytes, &with_witness(a.trust()), asked.then(|| digest(b"contract")).as_ref());
        assert_eq!(
            judged.report.verdict,
            if asked { Verdict::Valid } else { Verdict::SealOnly },
            "{}",
            judged.report
        );
    }
    let whole: Value =
        serde_json::from_slice(&std::fs::read(inside.join("statement.json")).unwrap()).unwrap();
    assert_eq!(whole, said);
}

#[test]
fn the_index_is_made_again_from_the_archive_and_follows_the_trust_file() {
    let (a, b) = story();
    let (hub, _boxes) = hub_of(&a, &b);
    let all = || (listed(&hub, &[]), hub.index((0..800).step_by(53)), statement(&hub, "contract"));
    let before = all();
    assert_eq!(hub.run(&["reindex"]).status.code(), Some(0));
    assert!(all() == before, "with the old index at hand nothing changes, not even the numbers of findings");
    std::fs::remove_file(hub.path("state/hub.redb")).unwrap();
    assert_eq!(hub.run(&["find"]).status.code(), Some(2));
    assert_eq!(hub.run(&["reindex"]).status.code(), Some(0));
    assert_eq!(listed(&hub, &[]), before.0);
    assert_eq!(hub.index((0..800).step_by(53)), before.1);
    assert_eq!(hub.pull().0, 0, "a pull goes on from it");
    hub.fsck();
    // A trust file that believes nobody about time: no bounds; and back.
    std::fs::write(hub.path("trust.json"), a.trust().encode()).unwrap();
    let bounded = |rows: &[Value]| rows.iter().filter(|row| row["notAfterMillis"].is_u64()).count();
    assert_eq!(bounded(&listed(&hub, &[])), 0);
    std::fs::write(hub.path("trust.json"), with_witness(a.trust()).encode()).unwrap();
    assert_eq!(listed(&hub, &[]), before.0);
}

#[test]
fn a_production_that_is_killed_again_and_again_ends_as_one_that_is_not() {
    let (a, b) = story();
    let (hub, _boxes) = hub_of(&a, &b);
    let mut list = "digest,reference\r\n".to_owned();
    for number in 0..150 {
        list.push_str(&format!("{},\"case {number}, part a\"\r\n", named(&format!("{number} a"))));
    }
    list.push_str(&format!("{},no such\r\nnonsense,bad\r\n{},void\r\n", "0".repeat(64), named("mis-scan")));
    std::fs::write(hub.path("list.csv"), list).unwrap();
    let produce =
        |out: &str| ["produce".to_owned(), "--list".into(), "list.csv".into(), "--out".into(), out.into()];
    let run = |out: &str| hub.lines(&produce(out).each_ref().map(String::as_str));
    let (code, said) = run("whole");
    assert_eq!(code, 4, "there are exceptions: {said:?}");
    assert_eq!(
        (&said[0]["documents"], &said[0]["exceptions"], &said[0]["refused"]),
        (&json!(153), &json!(2), &json!(0))
    );
    let mut kills = 0;
    while kills < 40 {
        let mut started = hub.start(&produce("parts").each_ref().map(String::as_str));
        std::thread::sleep(std::time::Duration::from_millis(40 + 30 * kills));
        let running = started.try_wait().unwrap().is_none();
        started.kill().unwrap();
        started.wait().unwrap();
        kills += 1;
        if !running {
            break;
        }
    }
    assert_eq!(run("parts").0, 4);
    for name in ["load.csv", "exceptions.csv"] {
        let read = |out: &str| std::fs::read_to_string(hub.path(out).join(name)).unwrap();
        assert_eq!(read("whole"), read("parts"), "{name} after {kills} kills");
    }
    let load = std::fs::read_to_string(hub.path("whole/load.csv")).unwrap();
    assert_eq!(load.lines().count() as u64, 1 + said[0]["seals"].as_u64().unwrap());
    let row = load.lines().find(|line| line.contains("\"case 7, part a\"")).unwrap();
    let file = row.rsplit(',').next().unwrap();
    let judged = verify(
        &std::fs::read(hub.path("whole").join(file)).unwrap(),
        &with_witness(a.trust()),
        Some(&digest(b"7 a")),
    );
    assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
    assert!(load.lines().any(|line| line.contains(",void,") && line.contains(",annulled,")), "{load}");
    // Another list in the same directory is refused.
    std::fs::write(hub.path("list.csv"), "digest\r\n").unwrap();
    assert_eq!(run("whole").0, 2);
}

/// A web server that takes nothing at first: answers 500, hangs up, redirects; then 204. Sends on what it was posted.
fn receiver(failures: usize) -> (String, mpsc::Receiver<(String, String, bool)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (sender, received) = mpsc::channel();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line.trim().is_empty() {
                    break;
                }
                if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let taken = number >= failures;
            sender.send((head, String::from_utf8(body).unwrap(), taken)).unwrap();
            let answer = match number {
                _ if taken => "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
                0 => "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                1 => "",
                _ => {
                    "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                }
            };
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, received)
}

#[test]
fn the_webhook_is_told_every_finding_in_order_whatever_fails_first() {
    let (a, b) = story();
    let (hub, _boxes) = hub_of(&a, &b);
    let found = hub.lines(&["findings"]).1.len();
    assert!(found >= 2);
    assert_eq!(hub.run(&["notify"]).status.code(), Some(2), "there is no webhook yet");
    let (url, received) = receiver(4);
    std::fs::write(hub.path("secret"), "s".repeat(32)).unwrap();
    std::fs::write(hub.path("token"), "open-sesame\n").unwrap();
    let section = format!(
        "\n[webhook]\nurl = {url:?}\nsecret_file = {:?}\ntoken_file = {:?}\nretry_seconds = 1\n",
        hub.path("secret"),
        hub.path("token")
    );
    let config = std::fs::read_to_string(hub.path("hub.toml")).unwrap();
    let at = config.find("[pull]").unwrap();
    std::fs::write(hub.path("hub.toml"), format!("{}{section}{}", &config[..at], &config[at..])).unwrap();
    // Two attempts are too few: nothing counts as told.
    assert_eq!(hub.run(&["notify", "--attempts", "2"]).status.code(), Some(7));
    let (code, told) = hub.lines(&["notify"]);
    assert_eq!((code, told[0]["told"].as_u64()), (0, Some(found as u64)));
    let posts: Vec<_> = received.try_iter().collect();
    let numbers = |taken: bool| -> Vec<u64> {
        let of = posts.iter().filter(|(.., was)| *was == taken);
        of.map(|(_, body, _)| serde_json::from_str::<Value>(body).unwrap()["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(numbers(false), [0, 0, 0, 0]);
    assert_eq!(numbers(true), (0..found as u64).collect::<Vec<_>>());
    for (head, body, _) in &posts {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice("s".repeat(32).as_bytes()).unwrap();
        mac.update(body.as_bytes());
        let signature = format!("bulla-signature: sha256={}", hex::encode(mac.finalize().into_bytes()));
        assert!(head.to_lowercase().contains(&signature), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer open-sesame"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["hub"], "hub");
    }
    assert_eq!(hub.lines(&["notify"]).1[0]["told"], 0, "once taken, not told again");
    assert_eq!(hub.pull().0, 0);
    assert_eq!(received.try_iter().count(), 0);
}

#[test]
fn the_feed_goes_on_with_what_is_found_while_it_is_read() {
    let (a, b) = story();
    let (hub, boxes) = hub_of(&a, &b);
    let known = hub.lines(&["findings"]).1;
    let mut reading = Command::new(env!("CARGO_BIN_EXE_bulla-hub"))
        .args(["findings", "--follow", "--json", "--config", "hub.toml"])
        .current_dir(hub.directory.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(reading.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    for line in &known {
        assert_eq!(next(), *line);
    }
    // Meanwhile the first box shows another history: a fork.
    let mut forked = Log::new(Hardware::Tpm, 1);
    grow(&mut forked, 2_000, 2_001);
    boxes[0].serve(Served::of(&forked));
    assert_eq!(hub.pull().0, 1);
    let found = next();
    assert_eq!((&found["kind"], &found["seq"]), (&json!("fork"), &json!(known.len())), "{found}");
    reading.kill().unwrap();
    reading.wait().unwrap();
    // What was sealed before stands, and every statement about that log says what its box did.
    let said = statement(&hub, "contract");
    assert!(said["findings"].as_array().unwrap().iter().any(|finding| finding["kind"] == "fork"), "{said}");
}

#[test]
fn clocks_are_held_against_what_is_proven() {
    let mut a = Log::new(Hardware::Tpm, 1);
    seal(&mut a, "one", None, &[]);
    // The witness's second ends before the box's clock says that the entry was made.
    anchor(&mut a, SECOND - 60);
    let one = StandIn::start();
    one.serve(Served::of(&a));
    let hub = TestHub::new(&[("a", &a, &[(&one, false)])]);
    std::fs::write(hub.path("trust.json"), with_witness(a.trust()).encode()).unwrap();
    assert_eq!(hub.pull().0, 0);
    let (code, said) = hub.lines(&["drift"]);
    assert_eq!(code, 1);
    assert_eq!(
        (&said[0]["bounded"], &said[0]["held"], &said[0]["broken"]),
        (&json!(2), &json!(0), &json!(2)),
        "{said:?}"
    );
    assert_eq!(said[0]["outsideMillisMax"], json!(59_001), "{said:?}");
    assert_eq!(said[1]["kind"], "clock");
    assert!(hub.kinds().contains(&"clock".to_owned()));
    assert_eq!(hub.lines(&["drift"]).1.len(), 1, "told once");
}

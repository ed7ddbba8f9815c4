//! The reconciled view: three boxes hold each other's logs, and each of them tells the same order of all entries.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::entry::Entry;
use bulla_formats::hash::leaf_hash;
use bulla_formats::json::base64_decode;
use bulla_formats::merkle::Frontier;
use bulla_tests::rig::site::{Site, entries, until};
use bulla_tests::rig::{Keys, Response, Rig, RigOptions, Role, bulla_program};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

fn view(site: &Site, at: usize, query: &str) -> Result<Response> {
    site.boxes[at].client(Role::Reader).get(&format!("/v1/reconciled?{query}"))
}

/// First line, entries, last line.
fn lines(answer: &Response) -> Result<(Value, Vec<Value>, Value)> {
    let text = std::str::from_utf8(&answer.body)?;
    ensure!(answer.status == 200 && answer.content_type == "application/jsonl", "{}: {text}", answer.status);
    let mut lines: Vec<Value> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let last = lines.pop().context("a last line")?;
    ensure!(last["entries"] == lines.len() - 1, "{last}");
    Ok((lines.remove(0), lines, last))
}

/// Lamport time, log, index: compared in this order.
type Place = (u64, String, u64);

fn place(line: &Value) -> Result<Place> {
    let number = |name: &str| line[name].as_u64().context("a number");
    Ok((number("lamport")?, line["origin"].as_str().context("an origin")?.to_owned(), number("index")?))
}

/// Every page from `after` on, as they came.
fn pages(site: &Site, at: usize, after: &str, to: &str, limit: u32) -> Result<Vec<Vec<u8>>> {
    let (mut after, mut pages) = (after.to_owned(), Vec::new());
    loop {
        let answer = view(site, at, &format!("after={after}&to={to}&limit={limit}"))?;
        let (_, _, last) = lines(&answer)?;
        pages.push(answer.body);
        after = last["next"].as_str().context("a cursor")?.to_owned();
        if last["more"] == false {
            return Ok(pages);
        }
    }
}

fn bulla(rig: &Rig, more: &[&str]) -> Result<(i32, String)> {
    std::fs::write(rig.file("reader.token"), rig.token(Role::Reader))?;
    std::fs::write(rig.file("ca.pem"), rig.ca_pem())?;
    let url = rig.sealer.url();
    let mut command = Command::new(bulla_program()?);
    command.current_dir(rig.directory()).args(["log", "--box", &url, "--ca"]).arg(rig.file("ca.pem"));
    let output = command.arg("--token-file").arg(rig.file("reader.token")).args(more).output()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((output.status.code().context("ended by a signal")?, text))
}

#[test]
fn three_boxes_tell_the_same_order_and_mark_what_is_late_or_sealed_twice() -> Result<()> {
    let site = Site::start(&[Keys::Software; 3])?;
    for round in 0..4 {
        (0..3).try_for_each(|at| site.mirrored(at, &format!("document {round} of {at}"), 2).map(drop))?;
    }
    // A standby takes over, and the scanner sends the document again.
    let first = site.mirrored(1, "sealed twice", 2)?["index"].clone();
    site.mirrored(2, "sealed twice", 2)?;
    let (head, ..) = lines(&view(&site, 0, "limit=1")?)?;
    let to = head["to"].as_str().unwrap().to_owned();
    assert_eq!(head["logs"].as_array().unwrap().len(), 3, "{head}");

    // The same cursors and limit: the same bytes, whoever is asked.
    let told = pages(&site, 0, "", &to, 7)?;
    for at in [1, 2] {
        until("it holds as much", || Ok(view(&site, at, &format!("to={to}"))?.status == 200))?;
        assert_eq!(pages(&site, at, "", &to, 7)?, told, "box {at}");
    }

    // It is the order of the merge, of all entries of the logs as the C2SP paths have them.
    let (mut shown, mut trees) = (Vec::new(), BTreeMap::<String, Frontier>::new());
    let (head, all, last) = lines(&view(&site, 1, &format!("to={to}&limit=5000"))?)?;
    assert_eq!((&last["next"], &last["more"]), (&to.clone().into(), &false.into()));
    let mut again = Vec::new();
    for line in &all {
        let bytes = base64_decode(line["entry"].as_str().unwrap())?;
        let entry = Entry::decode(&bytes)?;
        assert_eq!(line["leafHash"], leaf_hash(&bytes).to_string());
        assert_eq!((&line["lamport"], &line["late"]), (&entry.content().lamport.into(), &Value::Null));
        assert_eq!(line["kind"], entry.kind().unwrap().name());
        trees.entry(line["origin"].as_str().unwrap().to_owned()).or_default().append(leaf_hash(&bytes));
        shown.push(place(line)?);
        again.extend((!line["again"].is_null()).then_some(line));
    }
    assert!(shown.is_sorted_by(|one, next| one < next), "{shown:?}");
    for log in head["logs"].as_array().unwrap() {
        let origin = log["origin"].as_str().unwrap();
        assert_eq!(log["root"], trees[origin].root().to_string(), "{log}");
        let newest = shown.iter().rfind(|place| place.1 == origin).unwrap().0;
        assert!(log["lamport"] == newest && head["stable"].as_u64().unwrap() <= newest, "{head}");
    }
    let mut own = Frontier::new();
    let served = entries(&site.boxes[0].client_with(None), "", trees[site.origin(0)].size())?;
    served.iter().for_each(|entry| own.append(leaf_hash(entry)));
    assert_eq!(own.root(), trees[site.origin(0)].root());
    let [twice] = again[..] else { anyhow::bail!("{again:?}") };
    assert_eq!(
        (&twice["origin"], &twice["again"]["origin"]),
        (&site.origin(2).into(), &site.origin(1).into())
    );
    assert_eq!(twice["again"]["index"], first);
    // Also when the first of the two is on an earlier page.
    let marked = told.iter().flat_map(|page| std::str::from_utf8(page).unwrap().lines());
    assert_eq!(marked.filter(|line| line.contains("\"again\"")).count(), 1);

    // The third box is alone for a while. What it sealed meanwhile comes late, and says so; nothing comes twice.
    for other in [0, 1] {
        site.boxes[2].run(&["peers", "remove", site.origin(other)])?;
        until("they part", || Ok(site.neighbour(2, other).is_err()))?;
    }
    site.seal(2, "sealed alone", "sealed")?;
    for round in 0..20 {
        site.mirrored(0, &format!("without the third {round}"), 1)?;
    }
    let (_, _, last) = lines(&view(&site, 1, &format!("after={to}&limit=5000"))?)?;
    let before = last["next"].as_str().unwrap().to_owned();
    for other in [0, 1] {
        site.introduce(2, other)?;
    }
    site.mirrored(2, "together again", 2)?;
    let (head, rest, last) = lines(&view(&site, 1, &format!("after={before}&limit=5000"))?)?;
    let late: Vec<&Value> = rest.iter().filter(|line| line["late"] == true).collect();
    assert!(!late.is_empty() && late.iter().all(|line| line["origin"] == site.origin(2)), "{rest:?}");
    let held = last["next"].as_str().unwrap();
    let whole = lines(&view(&site, 1, &format!("to={held}&limit=5000"))?)?.1;
    let (_, between, _) = lines(&view(&site, 1, &format!("after={to}&to={before}&limit=5000"))?)?;
    let mut handed: Vec<Place> =
        [&all, &between, &rest].into_iter().flatten().map(place).collect::<Result<_>>()?;
    handed.sort();
    assert_eq!(handed, whole.iter().map(place).collect::<Result<Vec<_>>>()?, "each once, nothing lost");
    // What was told to be stable is.
    let stable = head["stable"].as_u64().unwrap();
    site.mirrored(0, "afterwards", 2)?;
    let (_, news, _) = lines(&view(&site, 1, &format!("after={held}&limit=5000"))?)?;
    assert!(
        !news.is_empty() && news.iter().all(|line| line["lamport"].as_u64() > Some(stable)),
        "{stable} {news:?}"
    );

    // People read it with the program, and go on where they stopped.
    let (code, said) = bulla(&site.boxes[1], &["--cursor-file", "cursor", "--limit", "9"])?;
    assert!(code == 0 && said.lines().filter(|line| line.contains('#')).count() == 9, "{code}: {said}");
    let (code, said) = bulla(&site.boxes[1], &["--cursor-file", "cursor"])?;
    assert!(code == 0 && said.contains("[sealed before: ") && !said.contains("#0 "), "{code}: {said}");
    let (code, said) = bulla(&site.boxes[1], &["--after", &before, "--to", held])?;
    assert!(code == 0 && said.contains("  [late]"), "{code}: {said}");
    let metrics = site.boxes[1].client(Role::Reader).get("/metrics")?;
    assert!(String::from_utf8(metrics.body)?.contains("bulla_reconciled_pages_total "));
    Ok(())
}

#[test]
fn a_bad_cursor_or_a_stranger_gets_a_problem() -> Result<()> {
    let rig = Rig::start_with(&RigOptions {
        keys: Keys::Software,
        residency: "software",
        ..RigOptions::default()
    })?;
    let reader = rig.client(Role::Reader);
    let (head, all, last) = lines(&reader.get("/v1/reconciled")?)?;
    let own = head["logs"][0]["origin"].as_str().unwrap().to_owned();
    let size = all.len();
    assert!(size > 0 && last["more"] == false && head["logs"][0]["frozen"] == false, "{head}");
    let stranger = format!("bank.example/{}/1", "0".repeat(40));
    for (query, status, slug) in [
        ("after=x".to_owned(), 400, "invalid-cursor"),
        (format!("after={own}"), 400, "invalid-cursor"),
        (format!("after={own}:0"), 400, "invalid-cursor"),
        (format!("after={own}:01"), 400, "invalid-cursor"),
        (format!("after={own}:1,{own}:1"), 400, "invalid-cursor"),
        (format!("to={own}:-1"), 400, "invalid-cursor"),
        (format!("after={own}:2&to={own}:1"), 400, "invalid-cursor"),
        (format!("after={own}:1000000"), 409, "cursor-ahead"),
        (format!("to={own}:9223372036854775807"), 409, "cursor-ahead"),
        (format!("after={stranger}:1"), 409, "cursor-ahead"),
        (format!("to={stranger}:1"), 409, "cursor-ahead"),
        ("limit=0".to_owned(), 400, "invalid-request"),
        ("limit=5001".to_owned(), 400, "invalid-request"),
        ("limit=-1".to_owned(), 400, "invalid-request"),
        ("from=1".to_owned(), 400, "invalid-request"),
        (format!("after={own}:1&after={own}:1"), 400, "invalid-request"),
    ] {
        let answer = reader.get(&format!("/v1/reconciled?{query}"))?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (status, slug), "{query}");
    }
    // What the caller does not want merged stays in its cursor.
    let kept = reader.get(&format!("/v1/reconciled?after={stranger}:7&to={own}:{size}"))?;
    let (_, some, last) = lines(&kept)?;
    let next = last["next"].as_str().unwrap();
    assert!(some.len() == size && next.contains(&format!("{stranger}:7")) && next.contains(&own), "{last}");
    for (client, status, slug) in [
        (rig.client_with(None), 401, "unauthenticated"),
        (rig.client_with(Some("bulla_nobody")), 401, "unauthenticated"),
        (rig.client(Role::Scanner), 403, "forbidden"),
    ] {
        let answer = client.get("/v1/reconciled")?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (status, slug));
    }
    assert_eq!(rig.client(Role::Operator).get("/v1/reconciled")?.status, 200);
    let (code, said) = bulla(&rig, &["--after", "x"])?;
    assert!(code == 7 && said.contains("is no cursor"), "{code}: {said}");
    Ok(())
}

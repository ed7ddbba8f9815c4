//! Searching a real box: every filter, every role, pages over a log that grows, restarts, crashes, a lost index.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result};
use bulla_formats::hash::sha256;
use bulla_tests::rig::{Client, Keys, Rig, RigOptions, Role, bulla_program};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};

fn digest(document: &str) -> String {
    format!("sha-256:{}", sha256(&[document.as_bytes()]))
}

/// Seals by digest; returns the id.
fn seal(client: &Client, document: &str, more: Value) -> Result<String> {
    let mut order = json!({"algorithm": "sha-256", "digest": &digest(document)[8..]});
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = client.seal_digest(&order, &[])?;
    assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
    Ok(answer.json()?["id"].as_str().context("a receipt has an id")?.to_owned())
}

fn search(client: &Client, filters: &str) -> Result<Value> {
    let answer = client.get(&format!("/v1/seals?{filters}"))?;
    assert_eq!(answer.status, 200, "{filters}: {}", String::from_utf8_lossy(&answer.body));
    answer.json()
}

fn ids(page: &Value) -> Vec<String> {
    page["seals"].as_array().unwrap().iter().map(|seal| seal["id"].as_str().unwrap().to_owned()).collect()
}

fn found(client: &Client, filters: &str) -> Result<Vec<String>> {
    let page = search(client, filters)?;
    assert!(page.get("next").is_none(), "{filters}: {page}");
    Ok(ids(&page))
}

/// All ids, by pages of `limit`; `between` runs between two pages.
fn paged(client: &Client, filters: &str, limit: usize, mut between: impl FnMut()) -> Result<Vec<String>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = search(client, &format!("{filters}&limit={limit}{cursor}"))?;
        assert!(ids(&page).len() <= limit);
        all.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { return Ok(all) };
        cursor = format!("&cursor={next}");
        between();
    }
}

fn index_file(rig: &Rig) -> PathBuf {
    let logs = std::fs::read_dir(rig.state()).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.into_iter().find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log-"));
    log.unwrap().join("search.redb")
}

#[test]
fn every_filter_finds_what_it_says_for_those_who_may_see_it() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let (own, reader) = (rig.client(Role::Scanner), rig.client(Role::Reader));
    let other = rig.client_with(Some(&rig.add_client("scanner-2", "scanner")?));
    let contract =
        json!({"documentId": "K 2026/0815", "user": "J\u{fc}rgen", "mediaType": "application/pdf"});
    let a = seal(&own, "a", contract.clone())?;
    let b = seal(&own, "b", json!({"documentId": "K 2026/0816", "user": "J\u{fc}rgen"}))?;
    let c = seal(&other, "a", json!({"documentId": "K 2026/0815", "user": "Maria"}))?;
    let d = seal(&own, "d", json!({}))?;
    let all = [&d, &c, &b, &a].map(String::clone);
    let e_acute = "%C3%BC";
    let (doc, user) = ("documentId=K%202026/0815", format!("user=J{e_acute}rgen"));
    let by_digest = format!("digest={}", digest("a"));

    // Filters alone and together, for those who may see everything.
    for (filters, wanted) in [
        (String::new(), vec![&d, &c, &b, &a]),
        (doc.to_owned(), vec![&c, &a]),
        (user.clone(), vec![&b, &a]),
        (format!("{doc}&{user}"), vec![&a]),
        ("client=scanner-2".to_owned(), vec![&c]),
        (format!("client=scanner-1&{doc}"), vec![&a]),
        (by_digest.clone(), vec![&c, &a]),
        (format!("{by_digest}&user=Maria"), vec![&c]),
        (format!("{by_digest}&client=scanner-1"), vec![&a]),
        (format!("digest={}", digest("x")), vec![]),
        ("from=0&to=1".to_owned(), vec![]),
        ("from=1&client=scanner-2".to_owned(), vec![&c]),
        // Equal means equal byte by byte.
        ("documentId=k%202026/0815".to_owned(), vec![]),
        ("documentId=K%202026/0815%20".to_owned(), vec![]),
        ("user=Ju%CC%88rgen".to_owned(), vec![]),
        ("user=K%202026/0815".to_owned(), vec![]),
    ] {
        let wanted: Vec<String> = wanted.into_iter().cloned().collect();
        assert_eq!(found(&reader, &filters)?, wanted, "{filters}");
        assert_eq!(found(&rig.client(Role::Operator), &filters)?, wanted, "{filters}");
    }
    // A scanner: its own seals; by digest all, but nothing about whom or what.
    for (filters, wanted) in [
        (String::new(), vec![&d, &b, &a]),
        ("client=scanner-1".to_owned(), vec![&d, &b, &a]),
        (doc.to_owned(), vec![&a]),
        ("user=Maria".to_owned(), vec![]),
        (by_digest.clone(), vec![&c, &a]),
        (format!("{by_digest}&client=scanner-2"), vec![&c]),
        (format!("{by_digest}&user=Maria"), vec![]),
        (format!("{by_digest}&{doc}"), vec![&a]),
    ] {
        let wanted: Vec<String> = wanted.into_iter().cloned().collect();
        assert_eq!(found(&own, &filters)?, wanted, "{filters}");
    }
    let page = search(&own, &by_digest)?;
    assert_eq!(page["seals"][0]["openings"], json!([]), "somebody else's");
    assert_eq!(page["seals"][1]["openings"].as_array().unwrap().len(), 2, "its own");
    assert!(!page.to_string().contains("Maria"));

    // What a page says of a seal is what the seal says.
    let seal_a = search(&reader, &format!("{doc}&{user}"))?["seals"][0].clone();
    let single = reader.get(seal_a["links"]["self"].as_str().unwrap())?.json()?;
    for member in ["id", "index", "leafHash", "sealedAtMillis", "links", "relatedBy"] {
        assert_eq!(seal_a[member], single[member], "{member}");
    }
    for member in ["algorithm", "digest", "mediaType", "client", "openings", "relations"] {
        assert_eq!(seal_a[member], single["document"][member], "{member}");
    }

    // Times are half-open; the log's own entries are no seals.
    let at = seal_a["sealedAtMillis"].as_u64().unwrap();
    assert!(found(&reader, &format!("from={at}&to={}", at + 1))?.contains(&a));
    assert!(!found(&reader, &format!("to={at}"))?.contains(&a));
    assert_eq!(found(&reader, &format!("from={at}"))?, all);
    for bad in [
        "limit=0",
        "limit=501",
        "from=2&to=1",
        "digest=md5:00",
        "digest=sha-256:zz",
        "cursor=7",
        "x=1",
        "user=",
        "documentId=a&documentId=b",
    ] {
        let answer = reader.get(&format!("/v1/seals?{bad}"))?;
        assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid-request"), "{bad}");
    }
    let long = reader.get(&format!("/v1/seals?documentId={}", "x".repeat(8_193)))?;
    assert_eq!((long.status, long.problem()?.as_str()), (400, "invalid-request"));
    assert!(!rig.log().contains("Maria") && !rig.log().contains("0815"));

    // Pages hold each seal once, whatever is sealed meanwhile.
    let before = found(&reader, "")?;
    let mut number = 0;
    let seen = paged(&reader, "", 1, || {
        number += 1;
        seal(&own, &format!("late {number}"), contract.clone()).unwrap();
    })?;
    assert_eq!(seen, before);
    assert_eq!(paged(&reader, doc, 2, || ())?.len(), 2 + number);

    // Is this seal void, is there a newer one?
    let f = seal(&own, "f", json!({"annuls": [b]}))?;
    let g = seal(&other, "g", json!({"supersedes": [a], "derivedFrom": [a, b]}))?;
    let related = |id: &str| -> Result<Value> {
        Ok(reader.get(&format!("/v1/seals/{id}"))?.json()?["relatedBy"].clone())
    };
    assert_eq!(related(&a)?, json!([{"kind": "supersedes", "id": g}, {"kind": "derived-from", "id": g}]));
    assert_eq!(related(&b)?, json!([{"kind": "annuls", "id": f}, {"kind": "derived-from", "id": g}]));
    assert_eq!(related(&d)?, json!([]));
    let page = search(&own, "documentId=K%202026/0816")?;
    assert_eq!(page["seals"][0]["relatedBy"], related(&b)?);

    // The same on the command line.
    let url = rig.sealer.url();
    std::fs::write(rig.file("reader.token"), rig.token(Role::Reader))?;
    std::fs::write(rig.file("b"), "b")?;
    let bulla = |arguments: &[&str]| -> Result<(Option<i32>, String)> {
        let connection = ["--box", &url, "--ca", "ca.pem", "--token-file", "reader.token", "--attempts", "1"];
        let output = Command::new(bulla_program()?)
            .arg("search")
            .args(connection)
            .args(arguments)
            .current_dir(rig.sealer.directory())
            .output()?;
        Ok((output.status.code(), String::from_utf8(output.stdout)?))
    };
    let (code, text) = bulla(&["b"])?;
    assert_eq!((code, text.lines().count()), (Some(0), 1), "{text}");
    assert!(text.starts_with(&b) && text.contains(&format!("[annulled by {f}]")), "{text}");
    let (code, text) = bulla(&["--document-id", "K 2026/0815", "--user", "Maria", "--json"])?;
    let answer: Value = serde_json::from_str(&text)?;
    assert_eq!((code, ids(&answer)), (Some(0), vec![c]));
    assert_eq!(bulla(&["--user", "nobody"])?, (Some(4), String::new()));
    assert_eq!(bulla(&["--to", "1999-12-31"])?, (Some(4), String::new()));
    assert_eq!(bulla(&["--from", "2020-01-01", "--limit", "2"])?.1.lines().count(), 2);
    assert_eq!(bulla(&["--from", "yesterday"])?.0, Some(2));
    assert_eq!(bulla(&["--digest", "md5:00"])?.0, Some(7));
    rig.sealer.require_alive()
}

#[test]
fn the_index_survives_what_the_box_survives_and_is_built_again_when_lost() -> Result<()> {
    let mut rig = Rig::start_with(&SOFTWARE)?;
    let mut made = Vec::new();
    let mut fill = |rig: &Rig, count: usize| -> Result<()> {
        let scanner = rig.client(Role::Scanner);
        for _ in 0..count {
            let number = made.len();
            let of = json!({"documentId": format!("D-{number}"), "user": format!("U-{}", number % 3)});
            made.push(seal(&scanner, &format!("document {number}"), of)?);
        }
        let reader = rig.client(Role::Reader);
        for number in [0, made.len() / 2, made.len() - 1] {
            assert_eq!(
                found(&reader, &format!("documentId=D-{number}"))?,
                [made[number].clone()],
                "{number}"
            );
        }
        let wanted: Vec<String> = made.iter().skip(1).step_by(3).rev().cloned().collect();
        assert_eq!(paged(&reader, "user=U-1", 70, || ())?, wanted);
        Ok(())
    };
    fill(&rig, 300)?;
    assert!(!index_file(&rig).exists(), "a young log has its index in memory");
    // An orderly stop writes full blocks.
    rig.sealer.stop()?;
    assert!(index_file(&rig).exists());
    rig.fsck()?;
    rig.sealer.start()?;
    fill(&rig, 20)?;
    // What was in memory only is read again.
    rig.sealer.kill()?;
    rig.sealer.start()?;
    fill(&rig, 20)?;
    rig.sealer.stop()?;
    // Lost and damaged files are built again.
    std::fs::remove_file(index_file(&rig))?;
    rig.sealer.start()?;
    fill(&rig, 1)?;
    rig.sealer.stop()?;
    let mut bytes = std::fs::read(index_file(&rig))?;
    bytes[4096..].fill(0x5a);
    std::fs::write(index_file(&rig), &bytes)?;
    let fsck = rig.try_run(&["fsck"])?;
    assert_eq!(fsck.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&fsck.stdout).contains("rebuildable: "), "{fsck:?}");
    rig.sealer.start()?;
    fill(&rig, 1)?;
    assert!(rig.log().contains("the search index is built again"), "{}", rig.log());
    rig.sealer.stop()?;
    std::fs::write(index_file(&rig), &bytes)?;
    rig.run(&["fsck", "--repair"])?;
    assert!(!index_file(&rig).exists());
    rig.sealer.start()?;
    fill(&rig, 1)?;
    rig.sealer.stop()?;
    rig.fsck()?;
    Ok(())
}

//! A hub that serves, with real boxes: its witness anchors their logs and never takes a word back; people ask by role, and
//! every query is in a list that cannot be rewritten unnoticed; two hubs' logs of heads are compared.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::hub_log::{HubEntry, HubKind};
use bulla_formats::note::SignedNote;
use bulla_formats::report::Verdict;
use bulla_formats::tile::{TileCoordinate, parse_entries, width_at};
use bulla_formats::witness::WitnessKey;
use bulla_formats::witness::add_checkpoint::request;
use bulla_tests::rig::hub::{HubKeys, HubRig};
use bulla_tests::rig::outage::{wait_anchored, wait_for};
use bulla_tests::rig::site::until;
use bulla_tests::rig::{Keys, Rig, RigOptions, Role};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

fn software() -> Result<Rig> {
    Rig::start_with(&RigOptions { keys: Keys::Software, residency: "software", ..RigOptions::default() })
}

fn get(keys: &HubKeys, path: &str, token: Option<&str>) -> Result<(u16, String, Vec<u8>)> {
    let mut request = keys.agent()?.get(format!("{}{path}", keys.url));
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let mut answer = request.call()?;
    let kind =
        answer.headers().get("content-type").map(|kind| kind.to_str().map(str::to_owned)).transpose()?;
    Ok((answer.status().as_u16(), kind.unwrap_or_default(), answer.body_mut().read_to_vec()?))
}

fn post(keys: &HubKeys, body: &[u8]) -> Result<(u16, String, String)> {
    let mut answer = keys.agent()?.post(format!("{}/add-checkpoint", keys.url)).send(body)?;
    let kind =
        answer.headers().get("content-type").map(|kind| kind.to_str().map(str::to_owned)).transpose()?;
    Ok((answer.status().as_u16(), kind.unwrap_or_default(), answer.body_mut().read_to_string()?))
}

/// The hub's own log as anybody reads it.
fn published(keys: &HubKeys) -> Result<Vec<HubEntry>> {
    let (status, _, note) = get(keys, "/heads/checkpoint", None)?;
    ensure!(status == 200, "{status}");
    let note = SignedNote::parse(std::str::from_utf8(&note)?)?;
    let size: u64 = note.text.lines().nth(1).context("a size")?.parse()?;
    let mut all = Vec::new();
    for index in 0..size.div_ceil(256) {
        let width = width_at(0, index, size);
        let (status, _, bytes) =
            get(keys, &format!("/heads/{}", TileCoordinate::entries(index, width)?.path()), None)?;
        ensure!(status == 200, "{status}");
        for entry in parse_entries(&bytes, width)? {
            all.push(HubEntry::decode(entry)?);
        }
    }
    Ok(all)
}

/// Has the box use the hub's witness, and start again.
fn witnessed_by(rig: &mut Rig, keys: &HubKeys) -> Result<()> {
    rig.sealer.stop()?;
    let mut text = fs::read_to_string(rig.file("box.toml"))?;
    text.push_str(&format!(
        "[anchors]\nwindow_seconds = 1\n[[anchors.witness]]\nname = \"hub\"\noperator = \"Region North\"\nurl = {:?}\ntls_ca = {:?}\nkey = {:?}\n",
        keys.url, keys.certificate, keys.witness
    ));
    fs::write(rig.file("box.toml"), text)?;
    rig.export_trust()?;
    rig.sealer.start()
}

#[test]
fn g9_a_boxs_log_is_anchored_by_the_hubs_witness_which_takes_nothing_back() -> Result<()> {
    let mut rig = software()?;
    let origin = rig.client(Role::Scanner).seal(b"first")?.seal()?.origin;
    let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
    let keys = hub.furnish_serve("hub.example/north")?;
    let key = WitnessKey::parse(&keys.witness).context("a witness's key")?;
    assert_eq!(hub.lines(&["keys"], 0)?[0]["witness"], keys.witness.as_str(), "made once");
    let serving = hub.serve()?;
    until("the hub has pulled", || {
        Ok(get(&keys, "/heads/checkpoint", None)?.0 == 200 && !published(&keys)?.is_empty())
    })?;
    witnessed_by(&mut rig, &keys)?;
    let sealed =
        rig.client(Role::Scanner).post("/v1/seals", &[("Content-Type", "text/plain")], b"anchored")?;
    let status = wait_anchored(&rig, PATIENCE)?;
    let id = sealed.json()?["id"].as_str().context("an id")?.to_owned();
    until("the seal is anchored by the hub's word alone", || {
        let seal = rig.client(Role::Reader).get(&format!("/v1/seals/{id}/seal-file"))?.seal()?;
        let judged = rig.judge(&seal, b"anchored");
        assert_eq!(judged.report.verdict, Verdict::Valid, "{}", judged.report);
        Ok(judged.report.facts.iter().any(|fact| fact.name() == "anchored"))
    })?;

    rig.sealer.stop()?;
    // What anybody can fetch of it: the newest cosigned head, and the entry of the hub's own log about it.
    let hash = sha256(&[origin.as_bytes()]);
    let (code, _, note) = get(&keys, &format!("/{hash}/checkpoint"), None)?;
    let note = SignedNote::parse(std::str::from_utf8(&note)?)?;
    ensure!(code == 200 && key.cosignature(&note)?.is_some(), "{}", note.encode());
    let size: u64 = note.text.lines().nth(1).context("a size")?.parse()?;
    ensure!(Some(size) >= status["anchors"]["anchoredSize"].as_u64(), "{size}: {status}");
    until("the hub's own log tells of it", || {
        let seen = published(&keys)?.into_iter().filter(|entry| entry.kind == HubKind::Cosigned);
        Ok(seen.filter_map(|entry| entry.seen()).any(|seen| seen.size == size && seen.origin == origin))
    })?;

    // As the specification wants it.
    let head = SignedNote { text: note.text.clone(), lines: note.lines[..1].to_vec() };
    let (code, kind, line) = post(&keys, request(size, &[], &head).unwrap().as_bytes())?;
    ensure!(code == 200 && kind.starts_with("text/plain"), "{code} {kind} {line}");
    let again = SignedNote::parse(&format!("{}\n{line}", head.text))?;
    ensure!(key.cosignature(&again)?.is_some(), "once more, at a later time");
    let with = |change: &dyn Fn(&mut SignedNote)| {
        let mut note = head.clone();
        change(&mut note);
        request(size, &[], &note).unwrap().into_bytes()
    };
    let (conflict, kind, told) = post(&keys, request(size - 1, &[], &head).unwrap().as_bytes())?;
    assert_eq!((conflict, kind.as_str(), told), (409, "text/x.tlog.size", format!("{size}\n")));
    for (body, expected) in [
        (b"old 0\n".to_vec(), 400),
        (format!("old {}\n\n{}", size + 1, head.encode()).into_bytes(), 400),
        (with(&|note| note.lines[0].body[9] ^= 1), 403),
        (with(&|note| note.lines[0].name = "somebody.example".into()), 403),
        (with(&|note| note.text = note.text.replacen(&origin, &format!("{origin}0"), 1)), 404),
        (request(size, &[Hash([1; 32])], &head).unwrap().into_bytes(), 422),
        (vec![b'x'; 200_000], 413),
    ] {
        assert_eq!(
            post(&keys, &body)?.0,
            expected,
            "{}",
            String::from_utf8_lossy(&body[..body.len().min(300)])
        );
    }
    // Killed: it knows what it has said.
    drop(serving);
    let serving = hub.serve()?;
    until(
        "it knows the log again",
        || Ok(post(&keys, request(0, &[], &head).unwrap().as_bytes())?.0 != 404),
    )?;
    assert_eq!(post(&keys, request(0, &[], &head).unwrap().as_bytes())?.2, format!("{size}\n"));
    let before = published(&keys)?.len();
    assert_eq!(serving.stop()?, Some(0));
    // Keys whose memory is gone are used no more; nor is a log begun again.
    for name in ["state/witness.redb", "state/published"] {
        fs::rename(hub.file(name), hub.file("away"))?;
        let refused = hub.run(&["serve"])?;
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2) && words.contains("witness.redb"), "{name}: {words}");
        if hub.file(name).exists() {
            fs::remove_dir_all(hub.file(name))?;
        }
        fs::rename(hub.file("away"), hub.file(name))?;
    }
    // The box goes on, and so does the witness, from where it was.
    let _serving = hub.serve()?;
    rig.sealer.start()?;
    rig.client(Role::Scanner).seal(b"and on")?;
    wait_for(&rig, "more is anchored", PATIENCE, |now| {
        now["anchors"]["unanchored"] == 0 && now["anchors"]["anchoredSize"].as_u64() > Some(size)
    })?;
    until("the hub's own log has grown", || Ok(published(&keys)?.len() > before))
}

#[test]
fn people_ask_by_role_and_every_query_is_in_a_list_that_cannot_be_rewritten() -> Result<()> {
    let rig = software()?;
    let seal = rig.client(Role::Scanner).seal(b"deed")?.seal()?;
    let hub = HubRig::create(&[("branch", &seal.origin, &[(&rig, false)])])?;
    hub.pull("branch")?;
    let digest = format!("sha-256:{}", sha256(&[b"deed"]));
    hub.lines(&["find", "--digest", &digest], 0)?;
    let keys = hub.furnish_serve("hub.example/north")?;
    let token = |name: &str, role: &str| -> Result<String> {
        let said = hub.lines(&["people", "add", name, "--role", role], 0)?;
        said[0]["token"].as_str().map(str::to_owned).context("a token")
    };
    let (otto, anna, vera) =
        (token("otto", "operator")?, token("anna", "auditor")?, token("vera", "supervisor")?);
    let serving = hub.serve()?;
    let ask = |path: &str, token: Option<&str>| -> Result<(u16, Value)> {
        let (status, kind, body) = get(&keys, path, token)?;
        let wanted = if status == 200 { "application/json" } else { "application/problem+json" };
        ensure!(kind == wanted, "{path}: {status} {kind}");
        Ok((status, serde_json::from_slice(&body)?))
    };
    let find = format!("/v1/find?digest={digest}");
    for (path, token, expected) in [
        ("/v1/status", None, 401),
        ("/v1/status", Some("bullahub_00"), 401),
        ("/v1/status", Some(otto.as_str()), 200),
        ("/v1/findings", Some(otto.as_str()), 200),
        (find.as_str(), Some(otto.as_str()), 403),
        (find.as_str(), Some(anna.as_str()), 200),
        ("/v1/find?kind=seal", Some(anna.as_str()), 200),
        ("/v1/find?digest=md5:00", Some(anna.as_str()), 400),
        ("/v1/audit", Some(anna.as_str()), 403),
        ("/v1/nothing", Some(anna.as_str()), 404),
        ("/nothing", None, 404),
    ] {
        let (status, body) = ask(path, token)?;
        assert_eq!(status, expected, "{path}: {body}");
    }
    let (_, found) = ask(&find, Some(&anna))?;
    assert_eq!(found["rows"][0]["origin"], seal.origin.as_str(), "{found}");
    let unknown = format!("/v1/find?digest=sha-256:{}", "0".repeat(64));
    assert_eq!(ask(&unknown, Some(&anna))?.0, 404);
    let statement = ask(&format!("/v1/statement?digest={digest}"), Some(&anna))?.1;
    assert_eq!((&statement["bulla"], &statement["standing"]), (&json!("statement/v1"), &json!("current")));
    let (_, kind, pdf) = get(&keys, &format!("/v1/statement?digest={digest}&form=pdf"), Some(&anna))?;
    ensure!(kind == "application/pdf" && pdf.starts_with(b"%PDF-"), "{kind}");
    let events = ask(&format!("/v1/timeline?digest={digest}"), Some(&anna))?.1;
    ensure!(
        events["events"].as_array().is_some_and(|all| all.iter().any(|event| event["event"] == "sealed")),
        "{events}"
    );
    // While the hub serves, a command line has the index between two rounds.
    hub.lines(&["timeline", "--digest", &digest], 0)?;
    hub.lines(&["people", "remove", "anna"], 0)?;
    assert_eq!(ask(&find, Some(&anna))?.0, 401);

    let (_, list) = ask("/v1/audit?limit=1000", Some(&vera))?;
    let queries = list["queries"].as_array().context("a list")?;
    let who = |query: &Value| {
        (query["who"]["person"].clone(), query["query"].clone(), query["asked"]["refused"].clone())
    };
    let said: Vec<_> = queries.iter().map(who).collect();
    for expected in [
        (json!("otto"), json!("find"), json!(true)),
        (json!("anna"), json!("find"), Value::Null),
        (json!("anna"), json!("statement"), Value::Null),
        (json!("anna"), json!("audit"), json!(true)),
        (json!("vera"), json!("audit"), Value::Null),
        (Value::Null, json!("timeline"), Value::Null),
    ] {
        ensure!(said.contains(&expected), "{expected:?} is not in {said:?}");
    }
    assert_eq!((&queries[0]["from"], &queries[0]["asked"]["digests"][0]), (&json!("cli"), &json!(digest)));
    ensure!(queries[0]["who"]["uid"].is_u64(), "{}", queries[0]);
    let count = queries.len() as u64;
    until("the hub's own log tells how far the list is", || {
        Ok(published(&keys)?.iter().filter_map(HubEntry::queries_head).any(|head| head.count >= count))
    })?;
    assert_eq!(serving.stop()?, Some(0));
    let listed = hub.lines(&["audit"], 0)?;
    ensure!(listed.len() as u64 > count, "{}", listed.len());
    // Somebody takes the newest lines out, or changes one.
    let file = hub.file("state/queries.jsonl");
    let genuine = fs::read_to_string(&file)?;
    let kept: String = genuine.split_inclusive('\n').take(3).collect();
    fs::write(&file, kept)?;
    hub.lines(&["audit"], 1)?;
    fs::write(&file, genuine.replacen("\"otto\"", "\"anna\"", 1))?;
    hub.lines(&["audit"], 1)?;
    fs::write(&file, genuine)?;
    hub.lines(&["audit"], 0)?;
    Ok(())
}

#[test]
fn g9_two_hubs_compare_what_they_saw() -> Result<()> {
    let rig = software()?;
    let origin = rig.client(Role::Scanner).seal(b"first")?.seal()?.origin;
    let hubs = ["hub.example/north", "hub.example/south"].map(|name| -> Result<_> {
        let hub = HubRig::create(&[("branch", &origin, &[(&rig, false)])])?;
        let keys = hub.furnish_serve(name)?;
        Ok((hub, keys))
    });
    let [north, south] = hubs;
    let ((north, keys), (south, other)) = (north?, south?);
    let running = [north.serve()?, south.serve()?];
    until("both have seen the log", || Ok(!published(&keys)?.is_empty() && !published(&other)?.is_empty()))?;
    rig.client(Role::Scanner).seal(b"second")?;
    until("both have seen it grow", || Ok(published(&keys)?.len() > 1 && published(&other)?.len() > 1))?;
    let url = format!("{}/heads", other.url);
    let certificate = other.certificate.to_str().context("a name in UTF-8")?;
    let compare =
        |key: &str, code: i32| north.lines(&["compare-heads", &url, "--ca", certificate, "--key", key], code);
    let said = compare(&other.log, 0)?;
    let line = said.last().context("a line")?;
    ensure!(
        line["contradictions"] == 0 && line["own"].as_u64() > Some(1) && line["other"].as_u64() > Some(1),
        "{line}"
    );
    compare(&keys.log, 1)?;
    compare("nonsense", 2)?;
    // The other hub begins its log anew: what was seen of it before is remembered.
    drop(running);
    compare(&other.log, 7)?;
    for name in ["state/witness.redb", "state/published"] {
        fs::rename(south.file(name), south.file(&name.replace("state/", "old-")))?;
    }
    fs::rename(south.file("state/hub-keys.json"), south.file("kept-keys.json"))?;
    hub_again(&south)?;
    let _south = south.serve()?;
    let words = String::from_utf8(
        north.run(&["compare-heads", &url, "--ca", certificate, "--key", &other.log])?.stderr,
    )?;
    ensure!(words.contains("shorter") || words.contains("no extension"), "{words}");
    Ok(())
}

/// Somebody with the hub's keys makes an empty log of its name.
fn hub_again(hub: &HubRig) -> Result<()> {
    hub.lines(&["keys"], 0)?;
    fs::rename(hub.file("kept-keys.json"), hub.file("state/hub-keys.json"))?;
    fs::remove_dir_all(hub.file("state/published"))?;
    Ok(())
}

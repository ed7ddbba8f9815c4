//! The box tells people of its own troubles, by webhook and by mail, whatever becomes of the receivers or of the box.

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::hook::{FAR_NAME, Hook, Mood, Post};
use bulla_tests::rig::mailbox::{Mailbox, PASSWORD};
use bulla_tests::rig::outage::{self, anchors, software, start, wait_for, wait_mode};
use bulla_tests::rig::tsa::{Answer, Handshake, Knobs, Stamps, Transport};
use bulla_tests::rig::wan::{Cut, Wan};
use bulla_tests::rig::{Rig, RigOptions, Role};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "S3CR3T-shared-with-the-pager";
/// Short times; conditions of a machine that happens to be full or slow are none of these tests'.
const QUICK: &str = "[alerts]\nsite = \"Branch 17\"\ngroup_seconds = 0\nsettle_seconds = 1\nretry_seconds = 1\n\
    retry_max_seconds = 1\noff = [\"BullaDiskFilling\", \"BullaRot\"]\n[alerts.hold_seconds]\nBullaEmergency = 0\nBullaNotSealing = 0\n";

/// Lines of `box.toml` for a hook.
fn toml(hook: &Hook, name: &str, more: &str) -> Result<String> {
    let secret = hook.directory().join("secret");
    std::fs::write(&secret, SECRET)?;
    let (url, ca) = (hook.url(), hook.ca());
    Ok(format!(
        "[[alerts.webhook]]\nname = {name:?}\nurl = {url:?}\ntls_ca = {ca:?}\nsecret_file = {secret:?}\n{more}"
    ))
}

/// Name and status of every alert in posts, in order; one post of one id counts once.
fn told(posts: &[Post]) -> Result<Vec<(String, String)>> {
    let (mut seen, mut told) = (BTreeSet::new(), Vec::new());
    for post in posts.iter().filter(|post| post.taken) {
        let body = post.json()?;
        ensure!(post.header("bulla-notification") == body["notification"], "{body}");
        if seen.insert(body["notification"].to_string()) {
            for alert in body["alerts"].as_array().context("alerts")? {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                told.push((text(&alert["labels"]["alertname"]), text(&alert["status"])));
            }
        }
    }
    Ok(told)
}

fn has(posts: &[Post], name: &str, status: &str) -> bool {
    told(posts).is_ok_and(|told| told.iter().any(|one| one.0 == name && one.1 == status))
}

fn says(mails: &[Value], name: &str, mark: &str) -> bool {
    let words = format!("{mark}  {name}");
    mails.iter().any(|mail| mail["text"].as_str().is_some_and(|text| text.contains(&words)))
}

/// Whether a post is what the one with the secret sent, by another implementation of HMAC.
fn is_signed(post: &Post, directory: &std::path::Path) -> Result<bool> {
    let signature = post.header("bulla-signature");
    let (time, mac) =
        signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")).context("a signature")?;
    let file = directory.join("signed");
    std::fs::write(&file, [format!("{time}.").as_bytes(), &post.body].concat())?;
    let output = Command::new("openssl")
        .args(["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("key:{SECRET}")])
        .arg(&file)
        .output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim_end().ends_with(mac) && mac.len() == 64)
}

fn lock(rig: &Rig, locked: bool) -> Result<()> {
    let path = if locked { "/v1/lock" } else { "/v1/unlock" };
    let answer = rig.client(Role::Operator).post(path, &[], br#"{"reason":"a test"}"#)?;
    ensure!(answer.status == 200, "{path}: {}", answer.status);
    Ok(())
}

fn receiver<'a>(status: &'a Value, name: &str) -> &'a Value {
    let receivers = status["alerts"]["receivers"].as_array().map(Vec::as_slice).unwrap_or_default();
    receivers.iter().find(|one| one["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn an_outage_is_told_by_webhook_and_by_mail_and_so_is_its_end() -> Result<()> {
    let tsa = Stamps::start("Operator A")?;
    let (hook, mailbox, other) = (Hook::start()?, Mailbox::start("starttls")?, Mailbox::start("tls")?);
    let lines =
        format!("{QUICK}{}{}{}", toml(&hook, "pager", "")?, mailbox.toml("mail"), other.toml("mail-tls"));
    let mut rig = start(&[&tsa], &software(), &lines)?;
    wait_mode(&rig, "online", PATIENCE)?;
    // Whoever has set it up tries it.
    let tried = String::from_utf8(rig.run(&["alerts", "test"])?.stdout)?;
    for words in
        ["pager (webhook): it took the test", "mail (mail): it took the test", "mail-tls (mail): it took"]
    {
        ensure!(tried.contains(words), "{tried}");
    }
    ensure!(told(&hook.posts())?.len() == 2 && mailbox.mails().len() == 1, "{:?}", mailbox.mails());
    tsa.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    let posts =
        hook.wait("told of the emergency", PATIENCE, |posts| has(posts, "BullaEmergency", "firing"))?;
    let post = posts.last().context("a post")?;
    ensure!(is_signed(post, rig.directory())?, "{:?}", post.headers);
    let forged = Post { body: [&post.body[..], b" "].concat(), ..post.clone() };
    ensure!(!is_signed(&forged, rig.directory())?, "a signature of everything is none");
    let body = post.json()?;
    ensure!(body["version"] == "4" && body["bulla"] == "alert/v1" && body["receiver"] == "pager", "{body}");
    ensure!(body["site"] == "Branch 17" && body["alerts"][0]["labels"]["instance"] == body["box"], "{body}");
    let mails =
        mailbox.wait("the same by mail", PATIENCE, |mails| says(mails, "BullaEmergency", "FIRING"))?;
    let mail = mails.last().context("a mail")?;
    ensure!(
        mail["tls"] == true && mail["authenticated"] == true && mail["automatic"] == "auto-generated",
        "{mail}"
    );
    ensure!(mail["to"].as_array().map(Vec::len) == Some(2), "{mail}");
    ensure!(
        mail["subject"].as_str().is_some_and(|text| text.contains("Branch 17: BullaEmergency")),
        "{mail}"
    );
    ensure!(mail["text"].as_str().is_some_and(|text| text.contains("What to do: Seals go on.")), "{mail}");
    other.wait("and by TLS from the start", PATIENCE, |mails| says(mails, "BullaEmergency", "FIRING"))?;
    ensure!(rig.client(Role::Scanner).seal(b"inside")?.status == 201);
    let status = wait_for(&rig, "shown", PATIENCE, |status| receiver(status, "mail")["delivered"] == 1)?;
    ensure!(status["alerts"]["firing"][0]["name"] == "BullaEmergency", "{status:#}");
    tsa.answer(Answer::Stamp)?;
    hook.wait("told of the end", PATIENCE, |posts| has(posts, "BullaEmergency", "resolved"))?;
    mailbox.wait("the same by mail", PATIENCE, |mails| says(mails, "BullaEmergency", "RESOLVED"))?;
    let metrics = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    for line in [
        "bulla_alerts_failures_total{receiver=\"pager\"} 0\n",
        "bulla_alerts_undelivered{receiver=\"mail\"} ",
    ] {
        ensure!(metrics.contains(line), "{metrics}");
    }
    rig.sealer.stop()?;
    rig.fsck()?;
    let kept = std::fs::read_to_string(rig.state().join("alerts.json"))?;
    for (place, text) in [
        ("log", rig.log()),
        ("status", status.to_string()),
        ("metrics", metrics),
        ("file", kept),
        ("test", tried),
    ] {
        for secret in [SECRET, PASSWORD, "S3CR3T"] {
            ensure!(!text.contains(secret), "{secret} is in the {place}: {text}");
        }
    }
    Ok(())
}

#[test]
fn receivers_that_are_away_hear_of_it_afterwards_and_a_killed_box_forgets_nothing() -> Result<()> {
    let (hook, mut mailbox) = (Hook::start()?, Mailbox::start("starttls")?);
    let lines = format!("{QUICK}{}{}", toml(&hook, "pager", "")?, mailbox.toml("mail"));
    let mut rig = Rig::start_with(&RigOptions { extra: &lines, ..software() })?;
    // It reads what it is sent, and its answer is lost: nobody knows whether it has it.
    hook.set(Mood::HangsUp);
    mailbox.close()?;
    lock(&rig, true)?;
    hook.wait("an attempt", PATIENCE, |posts| !posts.is_empty())?;
    wait_for(&rig, "both fail", PATIENCE, |status| {
        ["pager", "mail"].iter().all(|name| {
            let one = receiver(status, name);
            one["failures"].as_u64() > Some(0)
                && one["undelivered"].as_u64() > Some(0)
                && one["failing"].is_string()
        })
    })?;
    rig.sealer.kill()?;
    rig.sealer.start_unready()?;
    let before = hook.posts().len();
    hook.wait("an attempt of the next run", PATIENCE, |posts| posts.len() > before)?;
    hook.set(Mood::Good);
    mailbox.open()?;
    hook.wait("told", PATIENCE, |posts| has(posts, "BullaNotSealing", "firing"))?;
    mailbox.wait("mailed", PATIENCE, |mails| says(mails, "BullaNotSealing", "FIRING"))?;
    let ids: BTreeSet<String> =
        hook.posts().iter().map(|post| post.header("bulla-notification").to_owned()).collect();
    ensure!(ids.len() == 1, "what may have arrived keeps its id over a kill: {ids:?}");
    rig.sealer.kill()?;
    rig.sealer.start_unready()?;
    lock(&rig, false)?;
    hook.wait("told of the end", PATIENCE, |posts| has(posts, "BullaNotSealing", "resolved"))?;
    mailbox.wait("the same by mail", PATIENCE, |mails| says(mails, "BullaNotSealing", "RESOLVED"))?;
    rig.sealer.stop()?;
    let expected = ["firing", "resolved"].map(|status| ("BullaNotSealing".to_owned(), status.to_owned()));
    ensure!(told(&hook.posts())? == expected, "once each: {:?}", told(&hook.posts())?);
    let mut notifications: Vec<String> =
        mailbox.mails().iter().map(|mail| mail["notification"].to_string()).collect();
    notifications.dedup();
    ensure!(notifications.len() == 2, "once each: {:#?}", mailbox.mails());
    Ok(())
}

#[test]
fn a_receiver_beyond_a_cut_line_hears_the_story_in_order_when_the_line_is_back() -> Result<()> {
    let (wan, tsa, hook) = (Wan::new()?, Stamps::start("Operator A")?, Hook::start()?);
    let url = tsa.url();
    let port = url.rsplit_once(':').and_then(|(_, rest)| rest.split_once('/')).context("a port")?.0;
    wan.publish_far(port.parse()?)?;
    wan.publish_far(hook.port())?;
    let far = url.replace("127.0.0.1", "a.test");
    let lines = toml(&hook, "far", "timeout_seconds = 1\n")?.replace("127.0.0.1", FAR_NAME);
    let more = format!("{}\nurl = {far:?}", outage::LOOK);
    let extra = format!("{QUICK}{lines}{}{}", outage::QUICK, anchors(&[(&tsa, &more)]));
    let mut rig = Rig::create_behind(&wan, &RigOptions { extra: &extra, ..software() })?;
    rig.sealer.start()?;
    wait_mode(&rig, "online", PATIENCE)?;
    wan.cut(Cut::BlackHole)?;
    wait_mode(&rig, "emergency", PATIENCE)?;
    wait_for(&rig, "owed", PATIENCE, |status| {
        let far = receiver(status, "far");
        far["undelivered"].as_u64() > Some(0) && far["failures"].as_u64() > Some(1)
    })?;
    ensure!(rig.client(Role::Scanner).seal(b"inside")?.status == 201);
    ensure!(hook.posts().is_empty(), "nothing gets through");
    wan.heal()?;
    hook.wait("told", PATIENCE, |posts| has(posts, "BullaEmergency", "resolved"))?;
    rig.sealer.stop()?;
    let story = told(&hook.posts())?;
    let expected = ["firing", "resolved"].map(|status| ("BullaEmergency".to_owned(), status.to_owned()));
    // By the time that the first attempt gets through, it may be over already.
    ensure!(story == expected || story == expected[1..], "{story:?}");
    Ok(())
}

#[test]
fn a_receiver_that_misbehaves_does_no_harm_and_what_was_missed_is_one_story() -> Result<()> {
    let (bad, good) = (Hook::start()?, Hook::start()?);
    let lines = format!(
        "{QUICK}{}{}",
        toml(&bad, "bad", "timeout_seconds = 1\n")?,
        toml(&good, "good", "severity = \"page\"\n")?
    );
    let mut rig = Rig::start_with(&RigOptions { extra: &lines, ..software() })?;
    let moods = [
        (Mood::Down, ""),
        (Mood::Hangs, "no answer came"),
        (Mood::HangsUp, ""),
        (Mood::Status(500), "500"),
        (Mood::Redirects, "redirects are not followed"),
        (Mood::Garbage, ""),
        (Mood::Tls(Handshake::UnknownCa), "tls"),
        (Mood::Tls(Handshake::OtherName), "tls"),
        (Mood::Tls(Handshake::Expired), "tls"),
        (Mood::Tls(Handshake::Stalled), "stalled"),
    ];
    bad.set(Mood::Down);
    lock(&rig, true)?;
    good.wait("told of it", PATIENCE, |posts| has(posts, "BullaNotSealing", "firing"))?;
    lock(&rig, false)?;
    good.wait("told of its end", PATIENCE, |posts| has(posts, "BullaNotSealing", "resolved"))?;
    for (mood, words) in moods {
        bad.set(mood);
        let failures = |status: &Value| receiver(status, "bad")["failures"].as_u64().unwrap_or(0);
        let before = failures(&rig.client(Role::Reader).get("/v1/status")?.json()?);
        // Of two attempts that end after the change, the second began after it.
        let status = wait_for(&rig, "two attempts", PATIENCE, |status| failures(status) >= before + 2)?;
        let failing = receiver(&status, "bad")["failing"].as_str().context("it fails")?.to_lowercase();
        ensure!(failing.contains(words) && !failing.contains("s3cr3t"), "{mood:?}: {failing}");
        ensure!(rig.client(Role::Scanner).seal(format!("{mood:?}").as_bytes())?.status == 201);
        ensure!(receiver(&status, "bad")["undelivered"].as_u64() > Some(0), "{status:#}");
        ensure!(bad.taken().is_empty(), "nothing of it counts as taken");
    }
    // Nobody is owed the test of somebody at the command line, but it says how it goes.
    let tried = rig.try_run(&["alerts", "test"])?;
    let said = String::from_utf8(tried.stdout)?;
    ensure!(tried.status.code() == Some(1) && said.contains("bad (webhook): failed"), "{said}");
    ensure!(said.contains("good (webhook): it took the test"), "{said}");
    bad.set(Mood::Good);
    bad.wait("told", PATIENCE, |posts| has(posts, "BullaNotSealing", "resolved"))?;
    wait_for(&rig, "nothing is owed", PATIENCE, |status| receiver(status, "bad")["undelivered"] == 0)?;
    ensure!(bad.taken().len() <= 3, "{} posts for one missed story", bad.taken().len());
    rig.sealer.stop()?;
    rig.fsck()?;
    // What it was not told of is forgotten when the file is, and a file that is not understood keeps no box from sealing.
    std::fs::write(rig.state().join("alerts.json"), "{}")?;
    rig.sealer.start()?;
    ensure!(rig.client(Role::Scanner).seal(b"and on")?.status == 201);
    rig.sealer.stop()?;
    ensure!(rig.log().contains("what receivers of alerts are owed is not known"), "{}", rig.log());
    Ok(())
}

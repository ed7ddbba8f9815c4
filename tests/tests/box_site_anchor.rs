//! A branch of which one box alone gets its line back: it has the others anchored with itself; and a neighbour that lies
//! about what it had anchored.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Evidence, imprint_input};
use bulla_formats::der::Octets32;
use bulla_formats::entry::{Entry, Kind, TreeState};
use bulla_formats::hash::{Hash, leaf_hash, sha256};
use bulla_formats::merkle::{inclusion_proof, root};
use bulla_formats::note::{SignedNote, checkpoint_text, parse_checkpoint_text};
use bulla_formats::peer::message::{Asked, Refusal, Said};
use bulla_formats::peer::site::{SiteAnchor, SiteAsked};
use bulla_formats::report::{Fact, Verdict};
use bulla_tests::rig::liar::{Liar, Pages};
use bulla_tests::rig::outage::{anchors, entries, id_of, seal_now, wait_for, wait_mode};
use bulla_tests::rig::site::{Site, until};
use bulla_tests::rig::tsa::Stamps;
use bulla_tests::rig::uplink::Uplink;
use bulla_tests::rig::{Keys, Rig, Role, bulla_program};
use bulla_timestamps::Request;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(90);

/// An outage is a matter of seconds, and nothing happens in one by itself.
const OUTAGE: &str = "[outage]\nafter_seconds = 3\ndegraded_after_seconds = 1\nrecover_after_seconds = 1\nprobe_seconds = 1\nrefresh_seconds = 3600\n";

/// The port in an authority's address.
fn port_of(tsa: &Stamps) -> Result<u16> {
    let url = tsa.url().to_string();
    let rest = url.rsplit_once(':').context("a port")?.1;
    Ok(rest.split('/').next().unwrap_or_default().parse()?)
}

/// Lines of `box.toml` for a box that reaches these authorities by lines of its own.
fn lines(tsas: &[&Stamps], uplinks: &[Uplink]) -> Result<String> {
    let mut more = Vec::new();
    for (tsa, line) in tsas.iter().zip(uplinks) {
        let (theirs, own) = (format!(":{}", port_of(tsa)?), format!(":{}", line.port()));
        let url = tsa.url().to_string().replace(&theirs, &own);
        more.push(format!("timeout_seconds = 5\nrequests = 0\nurl = {url:?}"));
    }
    let named: Vec<(&Stamps, &str)> = tsas.iter().copied().zip(more.iter().map(String::as_str)).collect();
    Ok(format!("{OUTAGE}{}", anchors(&named)))
}

/// Every anchor in a box's log.
fn anchored(rig: &Rig) -> Result<Vec<AnchorBody>> {
    let is_anchor = |entry: &Entry| entry.kind() == Some(Kind::Anchor);
    entries(rig)?
        .iter()
        .filter(|entry| is_anchor(entry))
        .map(|entry| Ok(AnchorBody::decode(&entry.content().body)?))
        .collect()
}

fn replies(bodies: &[AnchorBody]) -> BTreeSet<Vec<u8>> {
    let proofs = bodies.iter().flat_map(|body| &body.proofs);
    proofs
        .filter_map(|proof| match &proof.evidence {
            Evidence::Timestamp(reply) => Some(reply.to_vec()),
            Evidence::Cosignature(_) => None,
        })
        .collect()
}

fn metric(rig: &Rig, name: &str) -> Result<u64> {
    let text = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    Ok(line.with_context(|| format!("{name} is not in\n{text}"))?.rsplit(' ').next().unwrap().parse()?)
}

fn run(program: &Path, at: &Path, arguments: &[&str]) -> Result<(bool, String)> {
    let made = Command::new(program).args(arguments).current_dir(at).output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&made.stdout), String::from_utf8_lossy(&made.stderr));
    Ok((made.status.success(), said))
}

/// What `bulla verify` and `openssl ts -verify` say of a seal of this box.
fn strangers_agree(rig: &Rig, id: &str, document: &str, tsas: &[&Stamps]) -> Result<()> {
    let seal = seal_now(rig, id)?;
    let judged = rig.judge(&seal, document.as_bytes()).report;
    ensure!(judged.verdict == Verdict::Valid && judged.facts.contains(&Fact::Anchored), "{judged}");
    let desk = tempfile::tempdir()?;
    fs::write(desk.path().join("a"), document)?;
    fs::write(desk.path().join("a.seal"), seal.encode())?;
    fs::copy(rig.file("trust.json"), desk.path().join("trust.json"))?;
    let bulla = bulla_program()?;
    let (fine, said) = run(&bulla, desk.path(), &["verify", "a", "--trust", "trust.json"])?;
    ensure!(fine && said.contains("anchored"), "{said}");
    let (fine, said) = run(&bulla, desk.path(), &["inspect", "a.seal", "--extract", "parts"])?;
    ensure!(fine, "{said}");
    let parts = desk.path().join("parts");
    let names: Vec<String> =
        fs::read_dir(&parts)?.filter_map(|each| each.ok()?.file_name().into_string().ok()).collect();
    let replies: Vec<&String> = names.iter().filter(|name| name.ends_with(".tsr")).collect();
    ensure!(replies.len() >= tsas.len(), "{names:?}");
    for reply in replies {
        let number = reply.trim_start_matches("anchor-").split('-').next().context("a number")?;
        let batch = format!("anchor-{number}-batch.bin");
        let mut accepted = 0;
        for tsa in tsas {
            let root = tsa.root_pem().to_string_lossy().into_owned();
            let order = ["ts", "-verify", "-in", reply.as_str(), "-data", &batch, "-CAfile", &root];
            accepted += usize::from(run(Path::new("openssl"), &parts, &order)?.0);
        }
        ensure!(accepted == 1, "{reply}: one operator's it is, not {accepted}'s");
    }
    Ok(())
}

#[test]
fn one_box_with_a_line_has_the_whole_branch_anchored() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let tsas = [&a, &b];
    let ports = [port_of(&a)?, port_of(&b)?];
    let uplinks: Vec<Vec<Uplink>> =
        (0..3).map(|_| ports.iter().map(|port| Uplink::open(*port)).collect()).collect::<Result<_>>()?;
    let more: Vec<String> = uplinks.iter().map(|own| lines(&tsas, own)).collect::<Result<_>>()?;
    let mut site = Site::create_each(&[Keys::Software; 3], &more)?;
    site.introduce_all()?;
    site.boxes.iter_mut().try_for_each(|rig| rig.sealer.start())?;
    let all = |status: &Value| {
        let anchors = &status["anchors"];
        anchors["unanchored"] == 0 && anchors["anchoredSize"].as_u64() > Some(0)
    };
    for rig in &site.boxes {
        wait_mode(rig, "online", PATIENCE)?;
        wait_for(rig, "anchored", PATIENCE, all)?;
    }
    // The branch loses its lines.
    let cut = |at: usize, whole: bool| uplinks[at].iter().try_for_each(|line| line.set(whole));
    (0..3).try_for_each(|at| cut(at, false))?;
    for rig in &site.boxes {
        wait_mode(rig, "emergency", PATIENCE)?;
    }
    let mut sealed = Vec::new();
    for at in 0..3 {
        for n in 0..2 {
            let document = format!("document {n} of box {at}");
            sealed.push((at, id_of(&site.seal(at, &document, "mirrored(2)")?)?, document));
        }
    }
    let before: Vec<usize> = site.boxes.iter().map(|rig| Ok(anchored(rig)?.len())).collect::<Result<_>>()?;
    let reached: Vec<u64> = uplinks.iter().map(|own| own.iter().map(Uplink::carried).sum()).collect();
    let asked_before = tsas.map(|tsa| tsa.counters().stamps);

    cut(1, true)?;
    for at in [1, 0, 2] {
        wait_for(&site.boxes[at], "anchored", PATIENCE, all)?;
    }
    for at in [0, 2] {
        let status = site.status(at)?;
        ensure!(status["mode"] == "emergency" && status["outage"]["mode"] == "emergency", "{status}");
        let now: u64 = uplinks[at].iter().map(Uplink::carried).sum();
        ensure!(now == reached[at], "box {at} has reached somebody by itself");
        ensure!(metric(&site.boxes[at], "bulla_site_anchors_taken_total")? >= 1);
    }
    // Each request of the box with the line covers the heads of the others: there are no more than it has anchors, but
    // for one that is on its way.
    let asked = tsas.map(|tsa| tsa.counters().stamps);
    let own = anchored(&site.boxes[1])?;
    for (asked, before_that) in asked.iter().zip(asked_before) {
        let rounds = (own.len() - before[1]) as u64;
        ensure!(asked - before_that <= rounds + 1, "{} stamps for {rounds} anchors", asked - before_that);
    }
    for at in [0, 2] {
        let taken = anchored(&site.boxes[at])?.split_off(before[at]);
        ensure!(!taken.is_empty());
        for body in &taken {
            body.leads(site.origin(at))?;
            ensure!(body.index > 0 && body.batch.size >= 2, "its place is behind that of the box that asked");
        }
        // The other one has logged the same stamps by now.
        let stamps = replies(&taken);
        until("both have them", || Ok(stamps.is_subset(&replies(&anchored(&site.boxes[1])?))))?;
    }
    // One request covers the site. On a slow machine a neighbour may come too late for one; then the line goes and comes
    // once more, because only what was sealed while nobody was reached is there for all of them at once.
    let together = |site: &Site| -> Result<Vec<u64>> {
        let taken = anchored(&site.boxes[0])?.split_off(before[0]);
        Ok(taken.iter().map(|body| body.batch.size).collect())
    };
    for round in 0..6 {
        if together(&site)?.contains(&3) {
            break;
        }
        cut(1, false)?;
        wait_mode(&site.boxes[1], "emergency", PATIENCE)?;
        for at in 0..3 {
            let document = format!("document of round {round} of box {at}");
            sealed.push((at, id_of(&site.seal(at, &document, "mirrored(2)")?)?, document));
        }
        cut(1, true)?;
        for at in [1, 0, 2] {
            wait_for(&site.boxes[at], "anchored", PATIENCE, all)?;
        }
    }
    let sizes = together(&site)?;
    ensure!(sizes.contains(&3), "no request covered the site, but {sizes:?} heads:\n{}", site.boxes[1].log());
    for (at, id, document) in &sealed {
        strangers_agree(&site.boxes[*at], id, document, &tsas)?;
    }
    ensure!(metric(&site.boxes[1], "bulla_site_anchors_given_total")? >= 2);
    // The others go on where they are when their lines come back.
    cut(0, true)?;
    cut(2, true)?;
    for rig in &site.boxes {
        wait_mode(rig, "online", PATIENCE)?;
        wait_for(rig, "anchored", PATIENCE, all)?;
    }
    for rig in &mut site.boxes {
        rig.sealer.stop()?;
        rig.fsck()?;
    }
    Ok(())
}

/// A batch of these texts, and the path of the one at `index`.
fn batch(texts: &[String], index: usize) -> (TreeState, Vec<Octets32>) {
    let leaves: Vec<Hash> = texts.iter().map(|text| leaf_hash(text.as_bytes())).collect();
    let size = leaves.len() as u64;
    let path = inclusion_proof(index as u64, size, &leaves[..]).unwrap();
    let path = path.iter().map(|hash| Octets32::new(hash.0)).collect();
    (TreeState::new(size, root(size, &leaves[..]).unwrap()), path)
}

fn stamp(tsa: &Stamps, batch: &TreeState) -> Result<Vec<u8>> {
    let imprint = sha256(&[&imprint_input(batch)]).0;
    let reply = tsa.ask(&Request::new(imprint, 1 << 62, None), Duration::from_secs(20))?;
    ensure!(reply.status == 200, "{}", reply.status);
    Ok(reply.body)
}

/// The head that a box gives a neighbour that offers.
fn given(liar: &Liar, site: &Site) -> Result<(u64, Hash)> {
    let mut found = None;
    until("the box gives its head", || {
        let said = liar.ask(&site.cards[0], Asked::Site(SiteAsked { anchored: None }))?;
        if let Said::Site(wish) = said {
            let text = SignedNote::parse(&wish.head)?.text;
            let (origin, size, root) = parse_checkpoint_text(&text)?;
            ensure!(origin == site.origin(0));
            found = Some((size, root));
        }
        Ok(found.is_some())
    })?;
    found.context("a head")
}

#[test]
fn a_neighbour_that_lies_about_an_anchor_is_refused_and_named_and_an_honest_one_is_not() -> Result<()> {
    let (tsa, foreign) = (Stamps::start("Operator A")?, Stamps::start("Operator X")?);
    let uplink = [Uplink::open(port_of(&tsa)?)?];
    uplink[0].set(false)?;
    let mut site = Site::create_each(&[Keys::Software], &[lines(&[&tsa], &uplink)?])?;
    let mut liars = Vec::new();
    for number in 1..=6u8 {
        let liar = Liar::start(number, &[&site.cards[0]])?;
        let card = site.boxes[0].file(&format!("liar-{number}.card"));
        fs::write(&card, liar.card.bytes())?;
        let print = liar.card.fingerprint();
        site.boxes[0].run(&["peers", "add", card.to_str().context("a path")?, "--fingerprint", &print])?;
        liars.push(liar);
    }
    site.boxes[0].sealer.start()?;
    let pages = Pages::new(3, "a")?;
    for liar in &liars {
        liar.answer_honestly(&pages);
        liar.connected(&site.cards[0])?;
    }
    wait_mode(&site.boxes[0], "emergency", PATIENCE)?;
    let id = id_of(&site.seal(0, "a document", "sealed")?)?;
    let own = site.origin(0).to_owned();
    let other = liars[0].head_of(&pages).text;
    let named = |authority: &str, reply: Vec<u8>| AnchorProof {
        authority: authority.into(),
        operator: "Operator A".into(),
        evidence: Evidence::Timestamp(reply.into()),
    };
    type Lie<'a> = (&'a str, Box<dyn Fn(&mut SiteAnchor) -> Result<()> + 'a>);
    let lies: [Lie<'_>; 4] = [
        (
            "its path does not lead",
            Box::new(|said| {
                said.body.path[0] = Octets32::new([1; 32]);
                Ok(())
            }),
        ),
        (
            "this log never had that tree",
            Box::new(|said| {
                // Somebody else's checkpoint, under this log's name.
                said.body.head.root = Octets32::new([7; 32]);
                let text = checkpoint_text(&said.origin, said.body.head.size, &said.body.head.root());
                let (tree, path) = batch(&[other.clone(), text], 1);
                (said.body.batch, said.body.path) = (tree, path);
                said.body.proofs = vec![named("tsa-0", stamp(&tsa, &said.body.batch)?)];
                Ok(())
            }),
        ),
        (
            "a time stamp in it",
            Box::new(|said| {
                // By the right authority, over something else.
                let (elsewhere, _) = batch(std::slice::from_ref(&other), 0);
                said.body.proofs = vec![named("tsa-0", stamp(&tsa, &elsewhere)?)];
                Ok(())
            }),
        ),
        (
            "it is of the log",
            Box::new(|said| {
                said.origin = liars[0].origin();
                Ok(())
            }),
        ),
    ];
    let honest = |size: u64, root: &Hash| -> Result<SiteAnchor> {
        let (tree, path) = batch(&[other.clone(), checkpoint_text(&own, size, root)], 1);
        let proofs = vec![named("another name", stamp(&tsa, &tree)?)];
        let head = TreeState::new(size, *root);
        let body =
            AnchorBody { version: 1, batch: tree, index: 1, path, head, proofs, manifests: Vec::new() };
        Ok(SiteAnchor { origin: own.clone(), body })
    };
    let hand = |liar: &Liar, anchor: &SiteAnchor| -> Result<Said> {
        liar.ask(&site.cards[0], Asked::Site(SiteAsked { anchored: Some(anchor.clone()) }))
    };
    let refused =
        |said: &Said, why: Refusal| matches!(said, Said::Refused(refused) if refused.code == why.name());
    for (liar, (why, lie)) in liars.iter().zip(&lies) {
        let (size, root) = given(liar, &site)?;
        let mut anchor = honest(size, &root)?;
        lie(&mut anchor)?;
        let said = hand(liar, &anchor)?;
        ensure!(refused(&said, Refusal::NotGenuine), "{why}: {said:?}");
        let log = site.boxes[0].log();
        ensure!(
            log.contains(&format!("{} hands over an anchor that does not hold: {why}", liar.origin())),
            "{why}\n{log}"
        );
        let origin = liar.origin();
        wait_for(&site.boxes[0], "it is named", PATIENCE, |status| {
            let all = status["peers"]["neighbours"].as_array().cloned().unwrap_or_default();
            let found = all.into_iter().find(|one| one["origin"] == *origin).unwrap_or_default();
            found["trouble"].as_str().is_some_and(|trouble| trouble.contains("does not hold"))
                && status["anchors"]["together"]["refused"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| *one == *origin))
        })?;
        // Left alone: not even the truth is taken of it now.
        let said = hand(liar, &honest(size, &root)?)?;
        ensure!(refused(&said, Refusal::NotNeeded), "{said:?}");
    }
    ensure!(metric(&site.boxes[0], "bulla_site_anchors_refused_total")? == 4);
    // Nobody asked for it; and an authority that the box does not know.
    let (size, root) = given(&liars[5], &site)?;
    ensure!(refused(&hand(&liars[4], &honest(size, &root)?)?, Refusal::NotNeeded), "it was given to another");
    let mut unknown = honest(size, &root)?;
    unknown.body.proofs = vec![named("tsa-0", stamp(&foreign, &unknown.body.batch)?)];
    ensure!(refused(&hand(&liars[5], &unknown)?, Refusal::NotNeeded), "nobody here knows who that is");
    ensure!(anchored(&site.boxes[0])?.is_empty(), "nothing of all this is in the log");
    ensure!(metric(&site.boxes[0], "bulla_site_anchors_refused_total")? == 4, "that was no lie");

    // The truth, by whoever.
    let (size, root) = given(&liars[4], &site)?;
    let anchor = honest(size, &root)?;
    let said = hand(&liars[4], &anchor)?;
    ensure!(said == Said::Taken(()), "{said:?}");
    until("it is in the log", || Ok(!anchored(&site.boxes[0])?.is_empty()))?;
    let logged = anchored(&site.boxes[0])?;
    let [body] = &logged[..] else { anyhow::bail!("{logged:?}") };
    ensure!(body.batch == anchor.body.batch && body.index == 1 && body.head == anchor.body.head);
    ensure!(
        body.proofs[0].authority == "tsa-0" && body.proofs[0].operator == "Operator A",
        "by its own names"
    );
    strangers_agree(&site.boxes[0], &id, "a document", &[&tsa])?;
    let again = hand(&liars[4], &anchor)?;
    ensure!(refused(&again, Refusal::NotNeeded), "once: {again:?}");
    ensure!(uplink[0].carried() == 0, "the box itself has reached nobody");
    site.boxes[0].sealer.stop()?;
    drop(lies);
    liars.into_iter().for_each(Liar::stop);
    Ok(())
}

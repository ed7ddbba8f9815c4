//! Neighbours with genuine cards that lie: forked heads, wrong proofs, replayed heads, relabelled cosignatures, giants,
//! floods, Lamport times near the end of all numbers, and one that is not trusted any more. Each is contained and
//! named, two honest boxes go on mirroring each other, and their memory stays bounded.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::note::{SignedNote, parse_checkpoint_text};
use bulla_formats::peer::message::{Asked, ConsistencyAsked, Cosigned, HeadsAsked, RangeAsked, Said};
use bulla_formats::witness::Role as Cosigner;
use bulla_peers::PeerKey;
use bulla_tests::rig::liar::{Liar, Pages, honest};
use bulla_tests::rig::site::{Site, entries, until};
use bulla_tests::rig::{Keys, Rig};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Two honest boxes that know each other, and the liar whom both know.
struct Company {
    site: Site,
    liar: Liar,
    memory: u64,
}

impl Company {
    fn gather(number: u8) -> Result<Self> {
        let site = Site::start(&[Keys::Software; 2])?;
        site.mirrored(0, "before", 1)?;
        let liar = Liar::start(number, &[&site.cards[0], &site.cards[1]])?;
        for rig in &site.boxes {
            std::fs::write(rig.file("liar.card"), liar.card.bytes())?;
            rig.run(&["peers", "add", "liar.card", "--fingerprint", &liar.card.fingerprint()])?;
        }
        let memory = memory(&site.boxes[0])?;
        let company = Company { site, liar, memory };
        company.liar.connected(&company.site.cards[0])?;
        company.liar.connected(&company.site.cards[1])?;
        Ok(company)
    }

    /// What box 0 says of the liar.
    fn seen(&self) -> Result<Value> {
        let status = self.site.status(0)?;
        let all = status["peers"]["neighbours"].as_array().context("it has neighbours")?.clone();
        let found = all.into_iter().find(|one| one["origin"] == self.liar.origin().as_str());
        found.with_context(|| format!("{} is not in {status}", self.liar.origin()))
    }

    /// Box 0 logs it under the liar's name, and its status says that something is wrong with this neighbour.
    fn trouble(&self, words: &str) -> Result<()> {
        let (rig, name) = (&self.site.boxes[0], self.liar.origin());
        let named = |line: &str| line.contains(&name) && line.contains(words);
        until(words, || Ok(rig.log().lines().any(named) && !self.seen()?["trouble"].is_null()))
            .with_context(|| rig.log())
    }

    fn is_well(&self) -> Result<()> {
        is_well(&self.site, self.memory)
    }
}

/// Longer than this no seal takes when a neighbour misbehaves; a tenth of it is usual, and the rest is for machines that
/// do much else.
const HELD_UP: Duration = Duration::from_secs(30);

/// The honest ones mirror each other as ever, suspect nobody else, and have not grown.
fn is_well(site: &Site, before: u64) -> Result<()> {
    for at in 0..2 {
        let begun = Instant::now();
        site.mirrored(at, &format!("and still {at}"), 1)?;
        ensure!(begun.elapsed() < HELD_UP, "it took {:?}", begun.elapsed());
        ensure!(site.status(at)?["condition"]["state"] == "sealing", "{}", site.status(at)?);
        let other = site.neighbour(at, 1 - at)?;
        ensure!(other["trouble"].is_null() && other["copy"]["frozen"] == false, "{other}");
    }
    let grown = memory(&site.boxes[0])?.saturating_sub(before);
    ensure!(grown < 96 << 20, "it has grown by {} KiB", grown >> 10);
    println!("memory grown by {} KiB", grown >> 10);
    Ok(())
}

/// Resident memory in bytes.
fn memory(rig: &Rig) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", rig.sealer.pid().context("it runs")?))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

/// Codes and details of the incidents in a box's log.
fn incidents(rig: &Rig) -> Result<Vec<IncidentBody>> {
    let logged = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let incident = |bytes: &Vec<u8>| {
        let entry = Entry::decode(bytes).ok()?;
        let body =
            (entry.kind() == Some(Kind::Incident)).then(|| IncidentBody::decode(&entry.content().body));
        body?.ok()
    };
    Ok(logged.iter().filter_map(incident).collect())
}

#[test]
fn wrong_entries_and_wrong_proofs_are_not_stored_and_are_named() -> Result<()> {
    let company = Company::gather(1)?;
    let liar = &company.liar;
    let (pages, others) = (Pages::new(20, "true")?, Pages::new(20, "false")?);
    let (origin, head) = (liar.origin(), liar.head_of(&pages).encode());
    // Entries of another history under the signed head.
    let (name, note, shown) = (origin.clone(), head.clone(), others.clone());
    liar.answer(move |asked| honest(asked, &name, &shown, &note));
    liar.hint(&liar.head_of(&pages))?;
    company.trouble("did not hold")?;
    let seen = company.seen()?;
    ensure!(seen["copy"]["size"] == 0 && seen["leftAloneSeconds"].as_u64() > Some(0), "{seen}");
    let cosigned = liar.ask(&company.site.cards[0], Asked::Heads(HeadsAsked { origins: vec![origin] }))?;
    ensure!(
        matches!(&cosigned, Said::Heads(held) if held.is_empty()),
        "nothing of it is told on: {cosigned:?}"
    );
    company.is_well()
}

#[test]
fn a_wrong_proof_between_two_true_heads_is_named() -> Result<()> {
    let company = Company::gather(2)?;
    let liar = &company.liar;
    let mut pages = Pages::new(10, "true")?;
    liar.answer_honestly(&pages);
    liar.hint(&liar.head_of(&pages))?;
    until("it is mirrored", || Ok(company.seen()?["copy"]["mirrored"] == 10))?;
    (0..30).try_for_each(|_| pages.push("true", None))?;
    let (origin, head, shown) = (liar.origin(), liar.head_of(&pages).encode(), pages.clone());
    // A few entries at a time need a proof; it is the one for another size.
    liar.answer(move |asked| match honest(asked, &origin, &shown, &head)? {
        Said::Range(mut said) => {
            said.entries.truncate(7);
            said.proof = shown.proof(5, 40);
            Some(Said::Range(said))
        }
        Said::Consistency(mut said) => {
            said.proof = shown.proof(5, 40);
            Some(Said::Consistency(said))
        }
        other => Some(other),
    });
    liar.hint(&liar.head_of(&pages))?;
    company.trouble("did not hold")?;
    let seen = company.seen()?;
    ensure!(seen["copy"]["size"] == 10 && seen["copy"]["frozen"] == false, "{seen}");
    company.is_well()
}

#[test]
fn g9_a_forked_head_is_proven_frozen_logged_and_told() -> Result<()> {
    let company = Company::gather(3)?;
    let liar = &company.liar;
    let pages = Pages::new(10, "one history")?;
    liar.answer_honestly(&pages);
    liar.hint(&liar.head_of(&pages))?;
    for at in 0..2 {
        until("it is mirrored", || {
            let status = company.site.status(at)?;
            let all = status["peers"]["neighbours"].as_array().context("neighbours")?.clone();
            Ok(all.iter().any(|one| one["origin"] == liar.origin().as_str() && one["copy"]["mirrored"] == 10))
        })?;
    }
    let other = Pages::new(14, "another history")?;
    liar.answer_honestly(&other);
    liar.hint(&liar.head_of(&other))?;
    until("it is frozen", || Ok(company.seen()?["copy"]["frozen"] == true))
        .with_context(|| company.site.boxes[0].log())?;
    for rig in &company.site.boxes {
        until("it is logged", || {
            let all = incidents(rig)?;
            Ok(all.iter().any(|one| one.code == "fork" && one.detail.contains(&liar.origin())))
        })?;
    }
    // Whoever asks is handed the proof; what was held stays, and nothing is added.
    let proof =
        liar.ask(&company.site.cards[1], Asked::ForkOf(HeadsAsked { origins: vec![liar.origin()] }))?;
    ensure!(matches!(proof, Said::Fork(_)), "{proof:?}");
    ensure!(company.seen()?["copy"]["size"] == 10);
    company.is_well()
}

#[test]
fn replayed_and_forged_heads_change_nothing() -> Result<()> {
    let company = Company::gather(4)?;
    let liar = &company.liar;
    let pages = Pages::new(30, "true")?;
    liar.answer_honestly(&pages);
    liar.hint(&liar.head_of(&pages))?;
    until("it is mirrored", || Ok(company.seen()?["copy"]["mirrored"] == 30))?;
    // Old heads of its own; heads of the honest boxes as they were; heads that nobody has signed.
    let old = company.site.boxes[0].client_with(None).get("/checkpoint")?.body;
    let old = SignedNote::parse(std::str::from_utf8(&old)?)?;
    company.site.mirrored(0, "the log goes on", 1)?;
    let (origin, size, root) = parse_checkpoint_text(&old.text)?;
    let mut forged = old.clone();
    forged.text = bulla_formats::note::checkpoint_text(origin, size + 1_000, &root);
    let mut own = liar.head_of(&pages);
    own.text = bulla_formats::note::checkpoint_text(&liar.origin(), 1_000, &root);
    for _ in 0..10 {
        for head in [&liar.head(5, &pages.root(5)), &liar.head(29, &pages.root(29)), &old, &forged, &own] {
            liar.hint(head)?;
        }
        liar.publish(b"no hint at all".to_vec())?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let seen = company.seen()?;
    ensure!(
        seen["copy"]["mirrored"] == 30 && seen["copy"]["known"] == 30 && seen["trouble"].is_null(),
        "{seen}"
    );
    company.is_well()
}

#[test]
fn cosignatures_count_only_for_who_made_them_as_what_they_are() -> Result<()> {
    let company = Company::gather(5)?;
    let (liar, honest) = (&company.liar, &company.site.cards[0]);
    let head = company.site.boxes[0].client_with(None).get("/checkpoint")?.body;
    let head = SignedNote::parse(std::str::from_utf8(&head)?)?;
    let hand = |note: &SignedNote| {
        let origin = honest.origin().as_str().to_owned();
        liar.ask(honest, Asked::Cosigned(Cosigned { origin, note: note.encode() }))
    };
    let refused = |said: Said| match said {
        Said::Refused(refused) => Ok(refused.code),
        other => anyhow::bail!("it was taken: {other:?}"),
    };
    // A mirror's cosignature by the witness key: the line of one with the signature of the other.
    let mut relabelled = liar.cosign(&head.text, Cosigner::Mirror);
    relabelled.lines[0].body = liar.cosign(&head.text, Cosigner::Witness).lines[0].body.clone();
    ensure!(refused(hand(&relabelled)?)? == "not-genuine");
    // Somebody else's: the other honest box's, as it stands in the log's own keeping.
    let other = &company.site.cards[1];
    let mut foreign = liar.cosign(&head.text, Cosigner::Mirror);
    foreign.lines[0] = other.cosigner(Cosigner::Mirror).line(1_800_000_000, &[0x5a; 64]);
    ensure!(refused(hand(&foreign)?)? == "not-genuine");
    // Genuine, and of a tree that the log never had.
    let (origin, size, _) = parse_checkpoint_text(&head.text)?;
    let text =
        bulla_formats::note::checkpoint_text(origin, size, &bulla_formats::hash::sha256(&[b"no such tree"]));
    ensure!(refused(hand(&liar.cosign(&text, Cosigner::Mirror))?)? == "other-tree");
    company.trouble("of a tree that this log never had")?;
    let seen = company.seen()?;
    ensure!(seen["mirrored"] == 0 && seen["witnessed"] == 0, "{seen}");
    // A genuine one counts, and as what it is.
    ensure!(matches!(hand(&liar.cosign(&head.text, Cosigner::Witness))?, Said::Taken(())));
    until("it counts", || Ok(company.seen()?["witnessed"] == size))?;
    ensure!(company.seen()?["mirrored"] == 0);
    company.is_well()
}

#[test]
fn giants_and_nonsense_are_refused_without_growing() -> Result<()> {
    let company = Company::gather(6)?;
    let (liar, honest) = (&company.liar, &company.site.cards[0]);
    let pages = Pages::new(3, "true")?;
    let (origin, head) = (liar.origin(), liar.head_of(&pages).encode());
    liar.answer(move |asked| match bulla_tests::rig::liar::honest(asked, &origin, &pages, &head)? {
        Said::Range(mut said) => {
            said.entries = vec![vec![0x5a; 32 << 20].into()];
            Some(Said::Range(said))
        }
        other => Some(other),
    });
    liar.hint(&liar.head_of(&Pages::new(3, "true")?))?;
    until("the giant is refused", || {
        let log = company.site.boxes[0].log();
        Ok(log.contains("did not hold") || log.contains("larger") || log.contains("too large"))
    })
    .with_context(|| company.site.boxes[0].log())?;
    ensure!(company.seen()?["copy"]["size"] == 0);
    for bytes in [vec![0; 8 << 20], vec![0x30; 100], b"GET / HTTP/1.1".to_vec(), Vec::new()] {
        liar.ask_blindly(honest, bytes);
    }
    let beyond = Asked::Range(RangeAsked {
        origin: honest.origin().as_str().into(),
        from: 1 << 62,
        to: (1 << 62) + 1,
    });
    ensure!(matches!(liar.ask(honest, beyond)?, Said::Refused(refused) if refused.code == "not-held"));
    let beyond = Asked::Consistency(ConsistencyAsked {
        origin: honest.origin().as_str().into(),
        old: 1 << 62,
        new: 1 << 62,
    });
    ensure!(matches!(liar.ask(honest, beyond)?, Said::Refused(refused) if refused.code == "not-held"));
    company.is_well()
}

#[test]
fn a_flood_is_shut_out_and_costs_nobody_a_seal() -> Result<()> {
    let Company { site, liar, memory } = Company::gather(7)?;
    let (name, card) = (liar.origin(), &site.cards[0]);
    liar.stop();
    let target = format!("{}@{}", PeerKey::new(*card.transport_key()), card.content().addresses[0]);
    let mut flood = Command::new(env!("CARGO_BIN_EXE_rude"))
        .args(["7", "flood", &target])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let (flooding, mut worst) = (Instant::now(), Duration::ZERO);
    while flooding.elapsed() < Duration::from_secs(10) {
        let begun = Instant::now();
        site.mirrored(0, &format!("in the flood {:?}", flooding.elapsed()), 1)?;
        worst = worst.max(begun.elapsed());
    }
    flood.kill()?;
    flood.wait()?;
    println!("slowest mirrored seal in the flood: {worst:?}");
    let named =
        |words: &str| site.boxes[0].log().lines().any(|line| line.contains(&name) && line.contains(words));
    // One that floods before it has said who it is was never there, and so is not gone.
    let shut_out = || named("ShutOut") || named("it floods us and is shut out for a while");
    until("it is named", || Ok(named("more hints than allowed") && shut_out()))
        .with_context(|| site.boxes[0].log())?;
    ensure!(worst < HELD_UP, "a seal took {worst:?}");
    is_well(&site, memory)
}

#[test]
fn lamport_times_near_the_end_of_all_numbers_move_nobody_far() -> Result<()> {
    let company = Company::gather(8)?;
    let liar = &company.liar;
    let mut pages = Pages::new(4, "true")?;
    (0..4).try_for_each(|_| pages.push("true", Some((1 << 63) - 1)))?;
    // And what is no entry at all: the log has signed it, so it is kept as it is.
    pages.entries.push(b"no entry".to_vec());
    liar.answer_honestly(&pages);
    liar.hint(&liar.head_of(&pages))?;
    until("it is mirrored", || Ok(company.seen()?["copy"]["mirrored"] == 9))?;
    company.is_well()?;
    let rig = &company.site.boxes[0];
    let newest = entries(&rig.client_with(None), "", rig.log_size()?)?;
    let newest = Entry::decode(newest.last().context("an entry")?)?;
    ensure!(newest.content().lamport < 1 << 22, "{}", newest.content().lamport);
    Ok(())
}

#[test]
fn who_is_struck_off_the_list_is_thrown_out_and_hears_nothing_more() -> Result<()> {
    let company = Company::gather(9)?;
    let (site, liar) = (&company.site, &company.liar);
    for rig in &site.boxes {
        rig.run(&["peers", "remove", &liar.origin()])?;
    }
    for card in &site.cards {
        liar.disconnected(card)?;
    }
    let told = liar.ask(&site.cards[0], Asked::Heads(HeadsAsked { origins: Vec::new() }));
    ensure!(told.is_err(), "{told:?}");
    site.mirrored(0, "of which it hears nothing", 1)?;
    ensure!(!liar.hears_hints(Duration::from_secs(5)), "it still hears hints");
    until("it is refused by name", || Ok(site.boxes[0].log().contains("not on the list")))
        .with_context(|| site.boxes[0].log())?;
    company.is_well()
}

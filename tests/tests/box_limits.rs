//! What one client, one address, or very many of them can take from the others: not much.
//!
//! Figures of latency are ratios within one run: an honest client alone, and the same client beside the bad ones.
//! How they compare on a machine that does nothing else stands in docs/performance.md.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_tests::rig::cut::{Cutter, Way};
use bulla_tests::rig::disk::{Disk, DiskKind};
use bulla_tests::rig::flood::{
    Flood, Honest, Manner, Offered, Target, closed, honest, open, order, order_with_notes, raise_open_files,
};
use bulla_tests::rig::{Keys, Response, Rig, RigOptions, Role, TlsVersion, Wire, rounds, soak};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SOFTWARE: RigOptions<'static> = RigOptions {
    keys: Keys::Software,
    residency: "software",
    extra: "",
    state_dir: None,
    tcti: None,
    launcher: None,
};
/// Bad connections at one time.
const BAD: usize = 9_000;
/// Limits by address are off: what is left is what the box stands by itself.
const WITHOUT_LIMITS: &str = "[limits]\nheader_timeout_seconds = 600\naddress_connections_max = 0\n\
                              address_connections_per_second = 0\nanonymous_requests_per_second = 0";
/// Clients that seal as fast as they are answered: as many as fit into the queue of 64 that the overload tests give it.
const PEAK_CLIENTS: usize = 60;
/// Bounds every wait for the box to notice something.
const NOTICED_WITHIN: Duration = Duration::from_secs(60);

/// One test at a time: they measure, or take what the others need.
fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The box is up, has a sound log, and no thread of it panicked.
fn well(mut rig: Rig) -> Result<()> {
    rig.sealer.require_alive()?;
    assert_eq!(rig.client(Role::Scanner).seal(b"a document like any other")?.status, 201);
    assert!(!rig.log().contains("panicked"), "{}", rig.log());
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

/// `POST /v1/seals` with these header lines and no body yet.
fn head(token: &str, headers: &str) -> Vec<u8> {
    format!("POST /v1/seals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{headers}\r\n")
        .into_bytes()
}

/// A number from `/metrics`.
fn metric(rig: &Rig, name: &str) -> Result<u64> {
    let text = String::from_utf8(rig.client(Role::Reader).get("/metrics")?.body)?;
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.and_then(|value| value.parse().ok()).with_context(|| format!("no {name} in {text}"))
}

#[test]
fn a_client_over_its_limits_hears_so_before_it_has_sent_its_document() -> Result<()> {
    let _alone = alone();
    let rig = Rig::start_with(&SOFTWARE)?;
    let (size, mut sealed) = (rig.log_size()?, 0);
    // One a second, and as many at once as a rate of 500 has burst: two. A slow machine gets a few more in.
    let slow = rig.client_with(Some(&rig.add_client_with("slow", "scanner", &["--rate", "1"])?));
    let token = rig.add_client_with("slow-too", "scanner", &["--rate", "1", "--max-bytes", "10"])?;
    let mut until_refused = |ask: &mut dyn FnMut() -> Result<Response>| {
        for _ in 0..100 {
            let answer = ask()?;
            if answer.status == 429 {
                return Ok(answer);
            }
            assert_eq!(answer.status, 201);
            sealed += 1;
        }
        anyhow::bail!("never refused")
    };
    let refused = until_refused(&mut || slow.seal(b"again and again"))?;
    assert_eq!((refused.status, refused.problem()?.as_str()), (429, "rate-limited"));
    assert_eq!(refused.header("retry-after"), "1");
    // Whoever keeps to the pause is let in, and nobody else is held up.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(slow.seal(b"3")?.status, 201);
    assert_eq!(rig.client(Role::Scanner).seal(b"4")?.status, 201);

    // Its own largest document, announced or not.
    let limited = rig.client_with(Some(&token));
    let answer = limited.seal(b"eleven byte")?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (413, "too-large"));
    assert_eq!(limited.post_stream("/v1/seals", &[], &mut &b"eleven byte"[..])?.status, 413);

    // A gibibyte is announced and no byte of it is sent: the answer comes all the same, and the connection ends.
    let mut small = rig.wire()?;
    let mut ask = || {
        small.send(&[&head(&token, "Content-Length: 5\r\n")[..], b"12345"].concat())?;
        small.answer()?.context("the connection has ended")
    };
    // After a small one the connection goes on.
    assert_eq!(until_refused(&mut ask)?.header("connection"), "");
    assert_eq!(until_refused(&mut ask)?.header("connection"), "");
    let mut wire = rig.wire()?;
    wire.send(&head(&token, "Content-Length: 1073741824\r\n"))?;
    let answer = wire.answer()?.context("no answer before the document")?;
    assert_eq!(answer.header("connection"), "close");
    // 413 when the machine was so slow that a request was due again.
    ensure!([429, 413].contains(&answer.status), "{}", answer.status);
    assert!(wire.answer()?.is_none());
    // The operator's word counts at once.
    rig.run(&["scanner", "limit", "--name", "slow-too", "--rate", "0"])?;
    assert_eq!(limited.seal(b"eleven byte")?.status, 201);
    assert_eq!(rig.log_size()?, size + sealed + 3);

    let status = rig.client(Role::Reader).get("/v1/status")?.json()?;
    ensure!(status["refusals"]["rateLimited"].as_u64() >= Some(3), "{status}");
    ensure!(metric(&rig, "bulla_problems_total{type=\"rate-limited\"}")? >= 3);
    assert_eq!(rig.log().matches("rate-limited").count(), 1, "one warning, not one for each: {}", rig.log());
    well(rig)
}

#[test]
fn a_header_with_two_readings_is_refused() -> Result<()> {
    let _alone = alone();
    let rig = Rig::start_with(&SOFTWARE)?;
    let (size, token) = (rig.log_size()?, rig.token(Role::Scanner).to_owned());
    for twice in [
        "Content-Type: application/pdf\r\nContent-Type: application/vnd.bulla.digest+json\r\n".to_owned(),
        "Content-Type: application/pdf\r\nContent-Type: application/pdf\r\n".to_owned(),
        format!("Authorization: Bearer {token}\r\n"),
        "Idempotency-Key: a\r\nIdempotency-Key: b\r\n".to_owned(),
        "Content-Length: 6\r\n".to_owned(),
    ] {
        let mut wire = rig.wire()?;
        wire.send(&[&head(&token, &format!("{twice}Content-Length: 5\r\n"))[..], b"12345"].concat())?;
        let answer = wire.answer()?.context("no answer")?;
        assert_eq!(answer.status, 400, "{twice}");
        if !twice.starts_with("Content-Length") {
            assert_eq!(answer.problem()?, "invalid-request", "{twice}");
        }
    }
    let encodings = [("Content-Encoding", "identity"), ("Content-Encoding", "gzip")];
    assert_eq!(rig.client(Role::Scanner).post("/v1/seals", &encodings, b"x")?.status, 415);
    assert_eq!(rig.log_size()?, size, "something of that was sealed");
    well(rig)
}

#[test]
fn an_address_may_guess_and_connect_only_so_often() -> Result<()> {
    let _alone = alone();
    let extra = "[limits]\nanonymous_requests_per_second = 1\naddress_connections_max = 20";
    let rig = Rig::start_with(&RigOptions { extra, ..SOFTWARE })?;
    let guesser = rig.client_with(Some("bulla_no-such-token"));
    let mut told = Vec::new();
    for _ in 0..15 {
        let answer = guesser.seal(b"let me in")?;
        told.push(answer.status);
        ensure!(answer.status == 401 || answer.header("retry-after").parse::<u32>()? >= 1, "{answer:?}");
    }
    ensure!(told.first() == Some(&401) && told.last() == Some(&429), "{told:?}");
    assert_eq!(rig.client_with(None).get("/healthz")?.status, 429, "the same budget");
    // A good credential from the same address is not held up.
    assert_eq!(rig.client(Role::Scanner).seal(b"from the same address")?.status, 201);
    // Nor where none is needed: whoever reads the whole log shows who it is.
    for _ in 0..30 {
        assert_eq!(rig.client(Role::Reader).get("/checkpoint")?.status, 200);
        assert_eq!(rig.client(Role::Reader).get("/tile/0/000.p/1")?.status, 200);
    }
    for stranger in [None, Some("bulla_no-such-token")] {
        assert_eq!(rig.client_with(stranger).get("/checkpoint")?.status, 429, "{stranger:?}");
    }

    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mine = Ipv4Addr::new(127, 0, 0, 9);
    let held = (0..20).map(|_| runtime.block_on(target.tls(mine))).collect::<Result<Vec<_>>>()?;
    assert!(runtime.block_on(target.tls(mine)).is_err(), "one more than the limit");
    assert!(runtime.block_on(target.tls(Ipv4Addr::new(127, 0, 0, 10))).is_ok(), "another address");
    assert_eq!(metric(&rig, "bulla_connections_refused_total{limit=\"open\"}")?, 1);
    drop(held);
    let began = Instant::now();
    while runtime.block_on(target.tls(mine)).is_err() {
        ensure!(began.elapsed() < NOTICED_WITHIN, "the places do not come back");
    }
    well(rig)
}

#[test]
fn a_trickle_and_silence_do_not_hold_a_place() -> Result<()> {
    let _alone = alone();
    let extra = "[limits]\nbody_idle_seconds = 1\nbody_bytes_per_second_min = 1000\nheader_timeout_seconds = 1\n\
                 http2_idle_seconds = 1";
    let rig = Rig::start_with(&RigOptions { extra, ..SOFTWARE })?;
    let size = rig.log_size()?;
    // Never a pause of a second, and yet no upload.
    let mut wire = rig.wire()?;
    wire.send(&head(rig.token(Role::Scanner), "Content-Length: 100000\r\n"))?;
    for _ in 0..40 {
        wire.send(b"x")?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let answer = wire.answer()?.context("cut off without words")?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (408, "body-timeout"));
    let detail = answer.json()?["detail"].to_string();
    assert!(detail.contains("1000 bytes a second"), "{detail}");

    // HTTP/2 that only says hello: GOAWAY and the end, though it would answer every ping.
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[b"h2"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = runtime.block_on(async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut tls = target.tls(Ipv4Addr::LOCALHOST).await?;
        tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
        // Half a header block: HEADERS without END_HEADERS on stream 1.
        tls.write_all(b"\0\0\x01\x01\0\0\0\0\x01\x82").await?;
        tls.flush().await?;
        let mut seen = Vec::new();
        // However it ends: a client that says nothing more is owed no clean end.
        let _ended = tokio::time::timeout(NOTICED_WITHIN, tls.read_to_end(&mut seen)).await?;
        Ok::<_, anyhow::Error>(seen)
    })?;
    assert!(!seen.is_empty(), "the box said nothing at all");
    assert_eq!(rig.log_size()?, size);
    well(rig)
}

/// One scanner at full blast; another one seals now and then.
#[test]
fn one_scanner_gone_mad_does_not_starve_the_others() -> Result<()> {
    let _alone = alone();
    let rig = Rig::start()?;
    // A tenth of the usual limits: a slow machine that tests many things must not be full of what the limits let in.
    let (mad, calm) = (
        rig.add_client_with("mad", "scanner", &["--rate", "50"])?,
        rig.add_client_with("calm", "scanner", &[])?,
    );
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let mut wire = rig.wire()?;
    let mut measure = || honest(&mut wire, &calm, Duration::from_secs(2), Duration::from_millis(5));
    let quiet = measure()?;
    let (blast, beside) = std::thread::scope(|scope| {
        let blast = scope.spawn(|| closed(&target, &mad, 100, Duration::from_secs(4)));
        std::thread::sleep(Duration::from_secs(1));
        let beside = measure();
        (blast.join().unwrap(), beside)
    });
    let (blast, beside, after) = (blast?, beside?, measure()?);
    println!(
        "mad: {:.0}/s sealed, {} refused (median {:.1} ms); calm: p50 {:.2} -> {:.2} -> {:.2} ms, p99 {:.2} -> {:.2} -> \
         {:.2} ms",
        blast.rate(),
        blast.refusals(),
        blast.refused_latency.value_at_quantile(0.5) as f64 / 1e3,
        quiet.p50(),
        beside.p50(),
        after.p50(),
        quiet.p99(),
        beside.p99(),
        after.p99()
    );
    assert_eq!((quiet.refused, beside.refused), (0, 0), "the calm one was refused");
    // Ten times and more when refusals are not held back.
    let usual = quiet.p50().max(after.p50());
    ensure!(beside.p50() <= 5.0 * usual, "the calm one waits {:.2} ms instead of {usual:.2}", beside.p50());
    ensure!(blast.refused.keys().all(|status| *status == 429), "{blast:?}");
    ensure!(blast.refusals() > 0 && blast.broken == 0, "{blast:?}");
    // 100 at once and 50 a second.
    let most = 100.0 + 50.0 * (blast.took.as_secs_f64() + 1.0);
    assert!((blast.sealed as f64) < most, "{} sealed", blast.sealed);
    well(rig)
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// p99 of an honest client in milliseconds: the median of some windows, because the machine has other things to do.
fn p99(wire: &mut Wire, token: &str, windows: usize) -> Result<f64> {
    let figures = (0..windows).map(|_| {
        let met: Honest = honest(wire, token, Duration::from_secs(1), Duration::from_millis(1))?;
        ensure!(met.refused == 0, "an honest client was refused");
        Ok(met.p99())
    });
    Ok(median(figures.collect::<Result<_>>()?))
}

/// An honest client beside 9,000 bad ones, with no limit that would end them.
#[test]
fn nine_thousand_slow_connections_cost_an_honest_client_little() -> Result<()> {
    let _alone = alone();
    raise_open_files()?;
    let rig = Rig::start_with(&RigOptions { extra: WITHOUT_LIMITS, ..RigOptions::default() })?;
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let token = rig.token(Role::Scanner).to_owned();
    let mut ratios = Vec::new();
    for round in 0..rounds(1, 5) {
        for manner in [Manner::StalledHandshake, Manner::SlowHeaders] {
            let mut wire = rig.wire()?;
            let before = p99(&mut wire, &token, 2)?;
            let began = Instant::now();
            let flood = Flood::start(&target, manner, BAD, false)?;
            flood.settle(BAD, Duration::from_secs(120))?;
            let opened = began.elapsed();
            assert_eq!(flood.held(), BAD, "{} ended", flood.ended());
            let beside = p99(&mut wire, &token, 3)?;
            assert_eq!(flood.held(), BAD, "the bad ones were to stay: {} ended", flood.ended());
            let memory = resident(&rig)?;
            drop(flood);
            let after = p99(&mut wire, &token, 2)?;
            let ratio = beside / before.max(after);
            println!(
                "round {round}, {BAD} x {manner:?}, opened in {opened:.1?}: honest p99 {before:.2} ms before, \
                 {beside:.2} beside them, {after:.2} after: {ratio:.2}; {memory:.0} MiB"
            );
            ratios.push(ratio);
        }
    }
    let worst = ratios.iter().copied().fold(0.0, f64::max);
    let bound = if soak() { median(ratios) } else { worst };
    ensure!(bound <= 2.0, "p99 beside slow connections is {bound:.2} times that without them");
    well(rig)
}

/// The same from three addresses with the limits as they are: few are let in, and those are ended.
#[test]
fn limits_by_address_keep_slow_connections_few_and_end_them() -> Result<()> {
    let _alone = alone();
    raise_open_files()?;
    let rig = Rig::start_with(&RigOptions { extra: "[limits]\nheader_timeout_seconds = 2", ..SOFTWARE })?;
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let flood = Flood::start(&target, Manner::SlowHeaders, BAD, false)?;
    let mut wire = rig.wire()?;
    let beside = p99(&mut wire, rig.token(Role::Scanner), 3)?;
    let began = Instant::now();
    let mut most = 0;
    while flood.ended() < BAD {
        most = most.max(flood.held());
        ensure!(began.elapsed() < NOTICED_WITHIN, "{} are still held", flood.held());
        std::thread::sleep(Duration::from_millis(50));
    }
    println!("at most {most} of {BAD} were let in at one time; honest p99 {beside:.2} ms while they came");
    assert!(most <= 3 * 512, "{most} connections of three addresses were let in");
    ensure!(metric(&rig, "bulla_connections_refused_total{limit=\"open\"}")? > 0);
    // Its own pause was longer than an idle connection is kept.
    assert_eq!(wire_status(&mut rig.wire()?, rig.token(Role::Scanner))?, 201);
    well(rig)
}

fn wire_status(wire: &mut Wire, token: &str) -> Result<u16> {
    wire.send(&order(token))?;
    Ok(wire.answer()?.context("the connection has ended")?.status)
}

/// Resident memory of the box in MiB.
fn resident(rig: &Rig) -> Result<f64> {
    let pid = rig.sealer.pid().context("the box runs")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

/// Five times what the box can seal is asked of it; it goes on sealing at its pace and refuses the rest at once.
fn overload(what: &str, options: &RigOptions<'_>, connections: usize) -> Result<()> {
    let rig = Rig::start_with(options)?;
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let token = rig.token(Role::Scanner).to_owned();
    let window = Duration::from_secs(if soak() { 20 } else { 4 });
    let quiet = p99(&mut rig.wire()?, &token, 3)?;
    let (mut kept, mut last): (Vec<f64>, Option<Offered>) = (Vec::new(), None);
    // What else the machine does takes from a round and never adds to one: in CI the first good one of three will do.
    for _ in 0..rounds(3, 5) {
        if !soak() && kept.last().is_some_and(|kept| *kept >= 0.9) {
            break;
        }
        // As many clients as keep it busy, none refused.
        let before = closed(&target, &token, PEAK_CLIENTS, window)?;
        let memory = resident(&rig)?;
        let overloaded = open(&target, &token, connections, 5.0 * before.rate(), window)?;
        let after = closed(&target, &token, PEAK_CLIENTS, window)?;
        let peak = (before.rate() + after.rate()) / 2.0;
        kept.push(overloaded.rate() / peak);
        println!(
            "{what}: peak {:.0}/s before, {:.0}/s after; asked {} in {:.1} s ({} given up by the client), sealed {:.0}/s \
             ({:.0} %), refused {:?}, refusals p50 {:.1} ms p99 {:.1} ms, seals p50 {:.1} ms p99 {:.1} ms, {:.0} -> {:.0} MiB",
            before.rate(),
            after.rate(),
            overloaded.due,
            overloaded.took.as_secs_f64(),
            overloaded.unsent,
            overloaded.rate(),
            100.0 * overloaded.rate() / peak,
            overloaded.refused,
            overloaded.refused_latency.value_at_quantile(0.5) as f64 / 1e3,
            overloaded.refused_latency.value_at_quantile(0.99) as f64 / 1e3,
            overloaded.sealed_latency.value_at_quantile(0.5) as f64 / 1e3,
            overloaded.sealed_latency.value_at_quantile(0.99) as f64 / 1e3,
            memory,
            resident(&rig)?,
        );
        ensure!(before.refusals() + after.refusals() == 0, "refused below the limit: {before:?} {after:?}");
        ensure!(overloaded.broken == 0, "{} connections broke", overloaded.broken);
        ensure!(overloaded.refused.keys().all(|status| *status == 503), "{:?}", overloaded.refused);
        ensure!(resident(&rig)? < memory + 64.0, "{memory:.0} -> {:.0} MiB", resident(&rig)?);
        last = Some(overloaded);
    }
    let afterwards = p99(&mut rig.wire()?, &token, 3)?;
    println!("{what}: honest p99 {quiet:.2} ms before, {afterwards:.2} ms afterwards");
    ensure!(last.is_some_and(|last| last.refusals() > 0), "nothing was refused, so nothing was tested");
    well(rig)?;
    // A box that collapses falls to a fraction of its peak. That it keeps nine tenths is measured where it can be:
    // optimised, on a machine that does nothing else.
    let (kept, floor) =
        if soak() { (median(kept), 0.9) } else { (kept.into_iter().fold(0.0, f64::max), 0.5) };
    ensure!(kept >= floor, "{what}: {:.0} % of the peak", 100.0 * kept);
    Ok(())
}

#[test]
fn five_times_the_peak_costs_no_tenth_of_it() -> Result<()> {
    let _alone = alone();
    raise_open_files()?;
    // What bounds the peak is the TPM here, not the two cores that the clients share with the box.
    let tpm =
        RigOptions { residency: "tpm", extra: "queue_max = 64\nbatch_max = 16", ..RigOptions::default() };
    overload("one TPM signature a seal", &tpm, 256)
}

/// The same where processor time bounds the peak: what a refusal costs is taken from the seals.
#[test]
fn five_times_the_peak_where_processor_time_bounds_it() -> Result<()> {
    let _alone = alone();
    raise_open_files()?;
    let ram = RigOptions {
        extra: "queue_max = 64\n[limits]\naddress_connections_max = 0\naddress_connections_per_second = 0\nclient_requests_max = 0",
        ..RigOptions::default()
    };
    overload("one processor", &ram, 512)
}

/// One request over a wire that breaks; what came back, if anything did.
fn through(cutter: &Cutter, rig: &Rig, request: &[u8]) -> Result<Option<Response>> {
    // A broken handshake is an error here and an expected one.
    let Ok(mut wire) = Wire::open(cutter.port(), rig.ca_pem(), TlsVersion::V1_3) else { return Ok(None) };
    wire.send(request)?;
    Ok(wire.answer().ok().flatten())
}

/// The wire breaks after each byte of a request, and of its answer; the scanner then does what it is told to: it sends
/// the same again with the same key.
#[test]
fn g3_cut_after_every_byte_each_key_is_one_seal() -> Result<()> {
    let _alone = alone();
    let extra = "[limits]\naddress_connections_per_second = 0\naddress_connections_max = 0";
    let mut rig = Rig::start_with(&RigOptions { extra, ..SOFTWARE })?;
    let (cutter, size) = (Cutter::start(rig.sealer.port())?, rig.log_size()?);
    let scanner = rig.client(Role::Scanner);
    let (mut receipts, mut answered_twice) = (Vec::new(), 0);
    for way in [Way::Up, Way::Down] {
        for bytes in 1.. {
            // Of an answer of some 7 kB every byte in a soak, and every eleventh in CI.
            let bytes = if way == Way::Down && !soak() { 11 * bytes } else { bytes };
            let document = format!("document cut {way:?} after {bytes} bytes").into_bytes();
            let key = format!("{way:?}-{bytes}");
            let request = [
                &head(
                    rig.token(Role::Scanner),
                    &format!(
                        "Idempotency-Key: {key}\r\nContent-Length: {}\r\nConnection: close\r\n",
                        document.len()
                    ),
                )[..],
                &document[..],
            ]
            .concat();
            cutter.cut_after(way, bytes);
            let whole = through(&cutter, &rig, &request)?;
            let again = scanner.post("/v1/seals", &[("Idempotency-Key", &key)], &document)?;
            ensure!([200, 201].contains(&again.status), "{key}: {}", String::from_utf8_lossy(&again.body));
            let receipt = again.json()?;
            answered_twice += usize::from(again.status == 200);
            ensure!(
                receipt["earlier"].as_array().is_some_and(Vec::is_empty),
                "{key} is sealed twice: {receipt}"
            );
            receipts.push((document, receipt["id"].clone()));
            if let Some(first) = whole {
                ensure!(first.json()?["id"] == receipt["id"], "{key} has two receipts");
                ensure!(cutter.passed(way) < bytes + usize::from(way == Way::Down), "{way:?} {bytes}");
                println!("{way:?}: {} bytes and their answer, cut after each", cutter.passed(way));
                break;
            }
            ensure!(bytes < 20_000, "the whole request never passes");
        }
    }
    assert_eq!(rig.log_size()?, size + receipts.len() as u64, "one entry for each key and none beside");
    for (document, id) in &receipts {
        let known = scanner.post("/v1/verify", &[], document)?.json()?;
        let seals = known["seals"].as_array().context("a list of seals")?;
        ensure!(seals.len() == 1 && seals[0] == *id, "{known}, and the receipt says {id}");
    }
    ensure!(answered_twice > 0, "no request was ever cut after it was sealed");
    println!("{} keys, {} of them sealed before the cut", receipts.len(), answered_twice);
    assert!(!rig.log().contains("panicked"), "{}", rig.log());
    rig.sealer.stop()?;
    rig.fsck().map(drop)
}

/// Seconds of processor time the box has used.
fn processor_seconds(rig: &Rig) -> Result<f64> {
    let pid = rig.sealer.pid().context("the box runs")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name in parentheses; utime and stime are fields 14 and 15, in hundredths.
    let fields: Vec<&str> = text.rsplit(')').next().context("no name")?.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

/// More connections than the box may have files: sealing goes on, and a log that must open files can.
#[test]
fn connections_never_take_the_descriptors_of_the_log() -> Result<()> {
    let _alone = alone();
    let disk = Disk::new(DiskKind::Tmpfs, 96 << 20)?;
    let (state, directory) = (disk.state(), tempfile::tempdir()?);
    let launcher = directory.path().join("bulla-box");
    let program = bulla_tests::rig::box_program()?;
    std::fs::write(&launcher, format!("#!/bin/sh\nulimit -n 160\nexec {} \"$@\"\n", program.display()))?;
    std::fs::set_permissions(&launcher, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let extra = "reserve_bytes = 1048576\n[limits]\nheader_timeout_seconds = 600";
    let rig = Rig::start_with(&RigOptions {
        extra,
        state_dir: Some(&state),
        launcher: Some(&launcher),
        ..SOFTWARE
    })?;
    let most = metric(&rig, "bulla_connections_max")? as usize;
    ensure!((8..160).contains(&most), "{most} connections with 160 files");
    assert!(rig.log().contains("LimitNOFILE"), "no warning: {}", rig.log());
    let (mut wire, token) = (rig.wire()?, rig.token(Role::Scanner).to_owned());
    assert_eq!(wire_status(&mut wire, &token)?, 201);
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let bad = most + 100;
    let flood = Flood::start(&target, Manner::SlowHeaders, bad, true)?;
    let began = Instant::now();
    while flood.held() + 2 < most {
        ensure!(began.elapsed() < NOTICED_WITHIN, "{} of {most} held", flood.held());
        std::thread::sleep(Duration::from_millis(20));
    }
    // Full: whoever comes waits in the kernel's queue, whoever is here is served, and nobody spins.
    let used = processor_seconds(&rig)?;
    std::thread::sleep(Duration::from_secs(1));
    let used = processor_seconds(&rig)? - used;
    assert!(used < 0.5, "{used} seconds of processor time in one second of waiting");
    for _ in 0..50 {
        assert_eq!(wire_status(&mut wire, &token)?, 201);
    }
    // Commits that fail in the middle make the log go on in fresh files, and a changed list of clients is read again,
    // with connections still full.
    let mut balloon = disk.balloon()?;
    let mut statuses = std::collections::BTreeMap::<u16, usize>::new();
    let began = Instant::now();
    ensure!(wire_status(&mut wire, &token)? == 201);
    let mut usual = began.elapsed();
    for failure in 1..=rounds(1, 10) {
        for attempt in 0.. {
            ensure!(attempt < 1_000, "commits do not fail: {statuses:?}");
            balloon.leave(3 << 20)?;
            let began = Instant::now();
            wire.send(&order_with_notes(&token, 40))?;
            // The room goes between the box's look at it and its write, wherever in a seal's time that is.
            std::thread::sleep(usual * (attempt % 20) / 20);
            balloon.snatch(usual.max(Duration::from_millis(2)))?;
            let status = wire.answer()?.context("the connection has ended")?.status;
            if status == 201 {
                usual = (usual + began.elapsed().min(2 * usual)) / 2;
            }
            *statuses.entry(status).or_default() += 1;
            wire.send(&head_of_metrics(rig.token(Role::Reader)))?;
            let text = String::from_utf8(wire.answer()?.context("no metrics")?.body)?;
            let failed = text.lines().find_map(|line| line.strip_prefix("bulla_poisonings_total "));
            if failed.is_some_and(|failed| failed.parse().is_ok_and(|failed: usize| failed >= failure)) {
                break;
            }
        }
        balloon.deflate()?;
        let newcomer = rig.add_client(&format!("scanner-{failure}-more"), "scanner")?;
        let began = Instant::now();
        loop {
            match wire_status(&mut wire, &newcomer)? {
                201 => break,
                status => ensure!(began.elapsed() < NOTICED_WITHIN, "still {status}: {}", rig.log()),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    assert!(flood.held() + 2 >= most, "the bad ones have gone: {}", flood.held());
    println!("{most} connections of 160 files, {statuses:?} while the disk failed, {used:.2} s used in 1 s");
    // When they go, those who waited are served, without anybody doing anything.
    drop(flood);
    drop(wire);
    well(rig)
}

fn head_of_metrics(token: &str) -> Vec<u8> {
    format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n").into_bytes()
}

/// The operating system refuses descriptors although the box kept to its limit: it waits, and goes on by itself.
#[test]
fn running_out_of_descriptors_ends_nothing() -> Result<()> {
    let _alone = alone();
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let rig = Rig::start_with(&SOFTWARE)?;
    let (mut wire, token) = (rig.wire()?, rig.token(Role::Scanner).to_owned());
    assert_eq!(wire_status(&mut wire, &token)?, 201);
    let pid = rig.sealer.pid().and_then(|pid| Pid::from_raw(pid as i32)).context("the box runs")?;
    let none = Rlimit { current: Some(3), maximum: getrlimit(Resource::Nofile).maximum };
    let before = prlimit(Some(pid), Resource::Nofile, none)?;
    // Accepted by the kernel, not by the box.
    let waiting = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, rig.sealer.port()))?;
    std::thread::sleep(Duration::from_millis(300));
    let used = processor_seconds(&rig)?;
    std::thread::sleep(Duration::from_secs(1));
    let used = processor_seconds(&rig)? - used;
    assert!(used < 0.5, "{used} seconds of processor time in one second of waiting");
    assert_eq!(wire_status(&mut wire, &token)?, 201, "who is connected is served");
    assert_eq!(rig.log().matches("no connection can be accepted").count(), 1, "{}", rig.log());
    prlimit(Some(pid), Resource::Nofile, before)?;
    assert_eq!(wire_status(&mut rig.wire()?, &token)?, 201, "and who comes is served again");
    drop(waiting);
    well(rig)
}

/// Answers that nobody reads must not stay in memory for ever. The kernel's limit is a minute, too long for CI.
#[test]
fn answers_that_are_not_read_end_the_connection() -> Result<()> {
    let _alone = alone();
    if !soak() {
        return Ok(());
    }
    let extra = "[limits]\nanonymous_requests_per_second = 0";
    let rig = Rig::start_with(&RigOptions { extra, ..SOFTWARE })?;
    let target = Target::new(rig.sealer.port(), rig.ca_pem(), &[])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        use tokio::io::AsyncWriteExt as _;
        let mut tls = target.tls(Ipv4Addr::LOCALHOST).await?;
        let began = Instant::now();
        // Asks on and on, and never reads: in the end the box stops reading too.
        let mut asked = 0u64;
        loop {
            let request = b"GET /v1/ca HTTP/1.1\r\nHost: localhost\r\n\r\n";
            match tokio::time::timeout(Duration::from_secs(150), tls.write_all(request)).await {
                Ok(Ok(())) => asked += 1,
                Ok(Err(_)) => break Ok(asked),
                Err(_) => anyhow::bail!("still open after {:?} and {asked} requests", began.elapsed()),
            }
        }
    })?;
    println!("ended after {asked} requests without a read");
    assert_eq!(metric(&rig, "bulla_connections_open")?, 1);
    well(rig)
}

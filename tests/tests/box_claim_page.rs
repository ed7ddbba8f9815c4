//! The claim page of a box that waits to be enrolled: real registrar, real TPM, headless Chromium, and clients without manners.
//!
//! Method: `bulla-box enroll --page` runs as it does in a branch. What the page shows is held against what the registrar
//! lists; its QR code is read from a picture of the page by zbar; axe-core looks on. `BULLA_SCREENS=DIR` keeps pictures.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context as _, Result, bail, ensure};
use bulla_tests::rig::browser::Browser;
use bulla_tests::rig::fleet::Fleet;
use bulla_tests::rig::{Rig, RigOptions};
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);

fn unborn() -> Result<Rig> {
    Rig::unborn_on(&RigOptions::default(), Some(Rig::manufacture_tpm()?))
}

/// `bulla-box enroll` while it waits.
struct Waiting {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Waiting {
    fn start(rig: &Rig, fleet: &Fleet, more: &[&str]) -> Result<Self> {
        let mut command = rig.command(&["enroll"])?;
        command.args(fleet.registrar()).args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().context("it speaks")?).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let heard = said.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        Ok(Waiting { child, said })
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The rest of the line that begins like this, once there is one.
    fn after(&self, begin: &str) -> Result<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(rest) = self.said().lines().find_map(|line| line.strip_prefix(begin)) {
                return Ok(rest.trim().to_owned());
            }
            ensure!(Instant::now() < until, "no {begin:?} in {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ended(&mut self) -> Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(Instant::now() < until, "it goes on: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where its page is.
    fn page(&self) -> Result<(String, SocketAddr)> {
        let url = self.after("claim page ")?;
        let address = url.strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
        let address = address.with_context(|| url.clone())?.parse()?;
        Ok((url, address))
    }
}

/// One request as it is, and everything that comes back.
fn ask(address: SocketAddr, request: &str) -> Result<(u16, String, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let text = String::from_utf8(all)?;
    let (head, body) = text.split_once("\r\n\r\n").with_context(|| text.clone())?;
    let status =
        head.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| head.to_owned())?;
    Ok((status, head.to_ascii_lowercase(), body.to_owned()))
}

fn request(method: &str, path: &str, host: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

/// The page is for reading, by people who know where it is.
fn keeps_to_itself(address: SocketAddr) -> Result<()> {
    let host = address.to_string();
    let ok = |path: &str, more: &str| ask(address, &request("GET", path, &host, more));
    let (status, head, body) = ok("/", "Accept-Language: de-CH,de;q=0.9\r\n")?;
    ensure!(status == 200 && body.contains("<html lang=\"de\""), "{head}\n{body}");
    for line in [
        "content-security-policy: default-src 'none';",
        "frame-ancestors 'none'",
        "form-action 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
        "vary: accept-language",
        "connection: close",
    ] {
        ensure!(head.contains(line), "{line} in {head}");
    }
    ensure!(!head.contains("unsafe") && !head.contains("set-cookie") && !body.contains("<form"), "{head}");
    let (status, head, body) = ask(address, &request("HEAD", "/en", &host, ""))?;
    ensure!(status == 200 && body.is_empty() && !head.contains("content-length: 0\r"), "{head}\n{body}");
    let (_, head, _) = ok("/console/console.css", "")?;
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).context("a tag")?.to_owned();
    ensure!(ok("/console/console.css", &format!("If-None-Match: {tag}\r\n"))?.0 == 304);
    for (method, path, more, wanted, kind) in [
        ("POST", "/", "Content-Length: 3\r\n", 405, "method-not-allowed"),
        ("PUT", "/de", "Content-Length: 99999999\r\n", 405, "method-not-allowed"),
        ("DELETE", "/code.svg", "", 405, "method-not-allowed"),
        ("OPTIONS", "/console/claim.js", "", 405, "method-not-allowed"),
        ("GET", "/v1/status", "", 404, "not-found"),
        ("GET", "/console/main.js", "", 404, "not-found"),
        ("GET", "/console/..%2Fidentity.json", "", 404, "not-found"),
        ("POST", "/v1/enrolments", "Content-Length: 0\r\n", 404, "not-found"),
    ] {
        let (status, head, body) = ask(address, &request(method, path, &host, more))?;
        let problem: Value =
            serde_json::from_str(&body).with_context(|| format!("{method} {path}: {head}"))?;
        ensure!(status == wanted && head.contains("application/problem+json"), "{method} {path}: {head}");
        ensure!(problem["type"] == format!("urn:bulla:problem:{kind}"), "{problem}");
        ensure!(wanted != 405 || head.contains("allow: get,head"), "{head}");
    }
    // A name of somebody else's that leads here shows nothing; the box's own does.
    for (host, wanted) in
        [("evil.example", 404), ("localhost", 200), ("LOCALHOST:1", 200), ("[::1]:80", 200), ("", 404)]
    {
        ensure!(ask(address, &request("GET", "/", host, ""))?.0 == wanted, "{host}");
    }
    let (status, ..) =
        ask(address, &request("GET", "/", "localhost", &format!("X: {}\r\n", "x".repeat(64 << 10))))?;
    ensure!(status == 431, "{status}");
    Ok(())
}

/// Clients that begin a request and never end it, or ask and never read; from an address of their own.
fn dawdle(address: SocketAddr) -> Result<(tokio::runtime::Runtime, Vec<tokio::net::TcpStream>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let streams = runtime.block_on(async {
        let mut streams = Vec::new();
        for number in 0..40 {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind("127.0.0.2:0".parse()?)?;
            let stream = socket.connect(address).await?;
            let begun: &[u8] = if number % 2 == 0 {
                b"GET / HTTP/1.1\r\nHost: "
            } else {
                b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
            };
            // Beyond its number of connections an address is refused at once.
            let _refused = stream.try_write(begun);
            streams.push(stream);
        }
        anyhow::Ok(streams)
    })?;
    Ok((runtime, streams))
}

/// What the one request is, as the registrar lists it.
fn listed(fleet: &Fleet) -> Result<Value> {
    let all: Value = serde_json::from_str(&fleet.ok(&["enrolments", "list", "--json", "--dir", "fleet"])?)?;
    let asking = all["enrolments"].as_array().context("rows")?.iter().find(|one| one["refused"].is_null());
    asking.cloned().with_context(|| all.to_string())
}

/// What a stock reader finds in a picture of the page.
fn scanned(browser: &mut Browser, rig: &Rig) -> Result<String> {
    let picture = rig.file("page.png");
    fs::write(&picture, browser.picture()?)?;
    let read = Command::new("zbarimg")
        .args(["--quiet", "--raw", "-Sdisable", "-Sqrcode.enable"])
        .arg(&picture)
        .output()
        .context("zbarimg; cargo xtask setup fetches it")?;
    Ok(String::from_utf8(read.stdout)?.trim().to_owned())
}

/// What is shown is accessible and within its window, in both languages, on a desk and on a phone, in light and dark.
fn look(browser: &mut Browser, url: &str, what: &str) -> Result<()> {
    for language in ["de", "en"] {
        browser.open(&format!("{url}{language}"))?;
        ensure!(browser.evaluate("document.documentElement.lang")? == language);
        for (width, phone) in [(390, true), (1280, false)] {
            browser.resize(width, 860, phone)?;
            for dark in [false, true] {
                browser.dark(dark)?;
                let what = format!("claim-{what}-{language}-{width}{}", if dark { "-dark" } else { "" });
                let found = browser.violations()?;
                ensure!(found == json!([]), "{what}: {found:#}");
                // A phone's own window grows with what does not fit.
                let fits = browser.evaluate(&format!("document.documentElement.scrollWidth <= {width}"))?;
                ensure!(fits == true, "{what} is wider than its window");
                browser.keep(&what)?;
            }
        }
    }
    browser.dark(false)
}

fn text_of(browser: &mut Browser, id: &str) -> Result<String> {
    // While it is loaded again there is no page for a moment.
    let there = format!("(document.getElementById({id:?})?.textContent ?? '') !== ''");
    loop {
        browser.until(&there)?;
        let text = browser.evaluate(&format!("document.getElementById({id:?})?.textContent ?? ''"))?;
        match text.as_str() {
            Some("") | None => {}
            Some(text) => return Ok(text.to_owned()),
        }
    }
}

fn shows(browser: &mut Browser, progress: &str) -> Result<()> {
    browser.until(&format!("document.getElementById('content')?.dataset.progress === '{progress}'"))
}

#[test]
fn the_page_shows_what_the_registrar_lists_and_ends_with_the_enrolment() -> Result<()> {
    let (mut fleet, mut rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    // Nobody gets such a page by asking for something else.
    for (more, part) in
        [(["--page", "203.0.113.7:80"], "private network"), (["--page", "8443"], "an address and a port")]
    {
        let mut arguments = vec!["enroll", "--registrar", "https://localhost", "--pin", "00"];
        arguments.extend(more);
        let refused = rig.try_run(&arguments)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        ensure!(refused.status.code() == Some(2) && said.contains(part), "{said}");
    }

    let mut waiting = Waiting::start(&rig, &fleet, &["--page", "127.0.0.1:0"])?;
    let (url, address) = waiting.page()?;
    ensure!(waiting.said().contains("where they differ, this counts"), "{}", waiting.said());
    let mut browser = Browser::start()?;
    browser.resize(1280, 860, false)?;
    browser.open(&url)?;
    shows(&mut browser, "obstacle")?;
    let told = text_of(&mut browser, "told")?;
    ensure!(told.contains("ek-unknown"), "{told}");
    look(&mut browser, &url, "obstacle")?;
    keeps_to_itself(address)?;

    // The page changes while one reads it, without being loaded again.
    browser.open(&format!("{url}en"))?;
    browser.evaluate("window.mark = 'not loaded again'")?;
    fleet.list(&waiting.after("TPM ")?, "S-1")?;
    shows(&mut browser, "proven")?;
    ensure!(browser.evaluate("window.mark")? == "not loaded again");
    ensure!(text_of(&mut browser, "say")?.contains("Waiting for a person to approve"));

    // The very numbers that the registrar lists, on screen, in the code, and at the terminal.
    let row = listed(&fleet)?;
    let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let (claim, fingerprint) = (text_of(&mut browser, "claim")?, text_of(&mut browser, "fingerprint")?);
    ensure!((claim.as_str(), fingerprint.as_str()) == (&*text("claimCode"), &*text("fingerprint")), "{row}");
    ensure!(claim == waiting.after("claim code ")? && fingerprint == waiting.after("fingerprint ")?);
    let code = scanned(&mut browser, &rig)?;
    ensure!(code == format!("bulla-enrol:{}", text("transcript")), "{code} is not {row}");
    let shown = browser.evaluate("document.body.innerText")?.to_string();
    for words in [
        &fleet.registrar()[1],
        "demo.bulla.test",
        "without protection",
        "the screen counts",
        &text("transcript"),
    ] {
        ensure!(shown.contains(words), "{words} in {shown}");
    }
    look(&mut browser, &url, "proven")?;
    browser.dark(true)?;
    ensure!(scanned(&mut browser, &rig)? == code, "in the dark");
    browser.dark(false)?;
    let pdf = browser.ask("Page.printToPDF", json!({"printBackground": false}))?;
    ensure!(pdf["data"].as_str().is_some_and(|data| data.len() > 10_000));

    // Whoever dawdles keeps neither others from looking nor the box from being enrolled.
    let dawdlers = dawdle(address)?;
    ensure!(ask(address, &request("GET", "/en", "localhost", ""))?.0 == 200);
    browser.open(&format!("{url}de"))?;
    let heard = ["--heard", &fingerprint, "--by", "olga", "--reason", "it stands in the branch"];
    fleet.ok(&[&["enrolments", "approve", &claim, "--dir", "fleet"], &heard[..]].concat())?;
    fleet.carry_out()?;
    let origin = waiting.after("enrolled as ")?;
    shows(&mut browser, "enrolled")?;
    let shown = browser.evaluate("document.body.innerText")?.to_string();
    let console = format!("https://localhost:{}/", rig.sealer.port());
    ensure!(shown.contains(&console) && shown.contains(&origin) && !shown.contains(&fingerprint), "{shown}");
    let found = browser.violations()?;
    ensure!(found == json!([]), "{found:#}");
    browser.keep("claim-enrolled-de-1280")?;
    drop(dawdlers);

    // Then the page is gone, and the console is where it said.
    ensure!(waiting.ended()?.success(), "{}", waiting.said());
    ensure!(TcpStream::connect(address).is_err(), "somebody still listens");
    ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    let others: Vec<String> = browser
        .requests()
        .into_iter()
        .filter(|one| !one.starts_with(&url) && !one.starts_with("data:"))
        .collect();
    ensure!(others.is_empty(), "{others:?}");
    rig.furnish()?;
    rig.sealer.start()?;
    ensure!(rig.client_with(None).get("/")?.status == 200);
    rig.sealer.stop()
}

#[test]
fn a_refusal_is_shown_as_text_and_the_page_needs_no_script() -> Result<()> {
    let (mut fleet, rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    fleet.list(&fleet.enroll(&rig)?.after("TPM")?, "S-1")?;
    // Asked for by the configuration, as on a box that nobody has a terminal at.
    let path = rig.file("box.toml");
    fs::write(&path, fs::read_to_string(&path)? + "[console]\nclaim_page = \"127.0.0.1:0\"\n")?;
    let mut waiting = Waiting::start(&rig, &fleet, &[])?;
    let (url, _) = waiting.page()?;
    let mut browser = Browser::start()?;
    browser.ask("Emulation.setScriptExecutionDisabled", json!({"value": true}))?;
    browser.open(&url)?;
    shows(&mut browser, "proven")?;
    let claim = text_of(&mut browser, "claim")?;
    ensure!(claim == waiting.after("claim code ")?);
    let hostile = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">&amp; \"wrong\" branch";
    fleet.ok(&["enrolments", "refuse", &claim, "--dir", "fleet", "--by", "omar", "--reason", hostile])?;
    shows(&mut browser, "refused")?;
    let told = text_of(&mut browser, "told")?;
    ensure!(told.contains(hostile), "{told}");
    browser.ask("Emulation.setScriptExecutionDisabled", json!({"value": false}))?;
    for language in ["de", "en"] {
        browser.open(&format!("{url}{language}"))?;
        ensure!(text_of(&mut browser, "told")?.contains(hostile));
        let made = browser
            .evaluate("document.querySelectorAll('main script, main img[onerror], #told *').length")?;
        ensure!(made == 0 && !browser.evaluate("document.title")?.to_string().contains("taken"), "{made}");
        let found = browser.violations()?;
        ensure!(found == json!([]), "{found:#}");
        browser.keep(&format!("claim-refused-{language}"))?;
    }
    let status = waiting.ended()?;
    ensure!(
        status.code() == Some(1) && waiting.said().contains("refused: omar refused it"),
        "{}",
        waiting.said()
    );
    ensure!(browser.complaints().is_empty(), "{:?}", browser.complaints());
    Ok(())
}

#[test]
fn an_address_that_is_taken_costs_the_page_and_not_the_enrolment() -> Result<()> {
    let (mut fleet, rig) = (Fleet::found()?, unborn()?);
    fleet.believe(&rig)?;
    fleet.serve(&[])?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let mut waiting = Waiting::start(&rig, &fleet, &["--page", &taken.local_addr()?.to_string()])?;
    let why = waiting.after("no claim page: ")?;
    ensure!(why.contains("the enrolment goes on without it"), "{why}");
    waiting.after("waiting: ")?;
    if waiting.child.try_wait()?.is_some() {
        bail!("{}", waiting.said());
    }
    Ok(())
}

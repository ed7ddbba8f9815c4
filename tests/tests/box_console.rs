//! The console of a real box: who gets in, who may do what, and the paths of all four roles in a browser.
//!
//! Method: `bulla-box people` makes accounts, requests as a browser sends them show what is refused, and headless Chromium
//! walks the pages in both languages, on a desk and on a phone, light and dark, while axe-core looks on.
//! `BULLA_SCREENS=DIR` keeps pictures.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::{Assurance, ClientMethod, Field, Opening, SealBody};
use bulla_formats::entry::Entry;
use bulla_tests::rig::browser::Browser;
use bulla_tests::rig::outage::{start, wait_mode};
use bulla_tests::rig::site::Site;
use bulla_tests::rig::tsa::{Answer, Knobs, Stamps, Transport};
use bulla_tests::rig::{Client, Keys, Response, Rig, RigOptions, Role};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(90);
const PASSWORD: &str = "four words and a tree";
const JSON: (&str, &str) = ("Content-Type", "application/json");

fn software(extra: &str) -> RigOptions<'_> {
    RigOptions { keys: Keys::Software, residency: "software", extra, ..RigOptions::default() }
}

/// Adds a person; returns the one-time code.
fn add(rig: &Rig, name: &str, role: &str) -> Result<String> {
    code(&rig.run(&["people", "add", "--name", name, "--role", role])?.stdout)
}

fn code(printed: &[u8]) -> Result<String> {
    let printed = String::from_utf8(printed.to_vec())?;
    Ok(printed.lines().find_map(|line| line.strip_prefix("code: ")).context("a line `code: ...`")?.to_owned())
}

/// A person's session, as its browser has it.
struct Person {
    client: Client,
    cookie: String,
    proof: String,
}

impl Person {
    fn of(client: Client, answer: &Response) -> Result<Self> {
        ensure!(answer.status == 200, "{} {}", answer.status, String::from_utf8_lossy(&answer.body));
        let cookie = answer.header("set-cookie").split(';').next().context("a cookie")?.to_owned();
        let proof = answer.json()?["proof"].as_str().context("a proof")?.to_owned();
        Ok(Person { client, cookie, proof })
    }

    /// Adds a person, chooses its password, and is logged in.
    fn new(rig: &Rig, name: &str, role: &str) -> Result<Self> {
        let body = json!({"name": name, "current": add(rig, name, role)?, "password": PASSWORD});
        let client = rig.client_with(None);
        let answer = client.post("/v1/session/password", &[JSON], body.to_string().as_bytes())?;
        Self::of(client, &answer)
    }

    fn get(&self, path: &str) -> Result<Response> {
        self.client.send("GET", path, &[("Cookie", &self.cookie)], ())
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response> {
        let mut all = vec![("Cookie", self.cookie.as_str()), ("Bulla-Session-Proof", self.proof.as_str())];
        all.extend_from_slice(headers);
        self.client.post(path, &all, body)
    }

    fn seal(&self, document: &[u8], headers: &[(&str, &str)]) -> Result<Response> {
        let mut all = vec![("Content-Type", "application/pdf")];
        all.extend_from_slice(headers);
        self.post("/v1/seals", &all, document)
    }
}

fn log_in(rig: &Rig, name: &str, password: &str) -> Result<Response> {
    let body = json!({"name": name, "password": password}).to_string();
    rig.client_with(None).post("/v1/session", &[JSON], body.as_bytes())
}

fn refused(answer: &Response, status: u16, kind: &str) -> Result<()> {
    let found = (answer.status, answer.problem()?);
    ensure!(found == (status, kind.to_owned()), "{found:?}, not {status} {kind}");
    Ok(())
}

#[test]
fn the_first_person_comes_by_a_code_and_nobody_by_chance() -> Result<()> {
    let mut rig = Rig::start_with(&software(""))?;
    let client = rig.client_with(None);
    let choose = |name: &str, current: &str, password: &str| {
        let body = json!({"name": name, "current": current, "password": password}).to_string();
        client.post("/v1/session/password", &[JSON], body.as_bytes())
    };
    // A fresh box lets nobody in, and has no password of its own.
    for (name, password) in [("admin", "admin"), ("ops", ""), ("root", PASSWORD)] {
        refused(&log_in(&rig, name, password)?, 401, "unauthenticated")?;
    }
    let first = add(&rig, "o.frei", "ops")?;
    refused(&log_in(&rig, "o.frei", &first)?, 401, "unauthenticated")?;
    refused(&choose("o.frei", &first, "short")?, 422, "weak-password")?;
    refused(&choose("o.frei", "aaaa-bbbb-cccc-dddd", PASSWORD)?, 401, "unauthenticated")?;
    refused(&choose("nobody", &first, PASSWORD)?, 401, "unauthenticated")?;
    let begun = choose("o.frei", &first.to_uppercase(), PASSWORD)?;
    let person = Person::of(client.clone(), &begun)?;
    let cookie = begun.header("set-cookie");
    for part in ["__Host-bulla-session=", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        ensure!(cookie.contains(part), "{part} in {cookie}");
    }
    refused(&choose("o.frei", &first, "another good password")?, 401, "unauthenticated")?;
    refused(&log_in(&rig, "o.frei", "four words and a bush")?, 401, "unauthenticated")?;
    let who = person.get("/v1/session")?.json()?;
    ensure!(who["name"] == "o.frei" && who["role"] == "ops" && who["label"] == "person.1", "{who}");
    ensure!(log_in(&rig, "o.frei", PASSWORD)?.status == 200);

    // The box stays nobody's: what is not the session's own page is refused, and nothing happens.
    let lock = json!({"reason": "a test"}).to_string();
    let with = |headers: &[(&str, &str)]| {
        let mut all = vec![("Cookie", person.cookie.as_str()), JSON];
        all.extend_from_slice(headers);
        client.post("/v1/lock", &all, lock.as_bytes())
    };
    refused(&with(&[])?, 403, "foreign-request")?;
    refused(&with(&[("Bulla-Session-Proof", "x")])?, 403, "foreign-request")?;
    let proof = ("Bulla-Session-Proof", person.proof.as_str());
    refused(&with(&[proof, ("Origin", "https://evil.example")])?, 403, "foreign-request")?;
    refused(&with(&[proof, ("Sec-Fetch-Site", "cross-site")])?, 403, "foreign-request")?;
    ensure!(person.get("/v1/status")?.json()?["condition"]["state"] == "sealing");
    let body = json!({"name": "o.frei", "password": PASSWORD}).to_string();
    let foreign = client.post("/v1/session", &[JSON, ("Origin", "https://evil.example")], body.as_bytes())?;
    refused(&foreign, 403, "foreign-request")?;
    refused(
        &client.post("/v1/session", &[("Content-Type", "text/plain")], body.as_bytes())?,
        415,
        "unsupported-media-type",
    )?;
    refused(
        &client.send("GET", "/v1/status", &[("Cookie", "__Host-bulla-session=x")], ())?,
        401,
        "unauthenticated",
    )?;

    // One machine cannot go on guessing; the words of the log name nobody.
    let mut answers = (0..12).map(|n| log_in(&rig, "o.frei", &format!("wrong {n}")).unwrap());
    ensure!(
        answers.any(|answer| answer.status == 429 && answer.header("retry-after").parse::<u64>().is_ok())
    );
    ensure!(person.get("/v1/status")?.status == 200, "a session is not concerned");

    // A lock is in the log under the person's number.
    ensure!(person.post("/v1/lock", &[JSON], lock.as_bytes())?.json()?["changed"] == true);
    ensure!(person.get("/v1/status")?.json()?["condition"]["operator"] == "person.1");
    ensure!(person.post("/v1/unlock", &[JSON], lock.as_bytes())?.status == 200);
    ensure!(person.post("/v1/session/end", &[JSON], b"")?.status == 200);
    refused(&person.get("/v1/status")?, 401, "unauthenticated")?;
    let log = rig.log();
    for word in [
        "person.1 chose a password",
        "person.1 (ops) logged in",
        "a login was refused: person.1",
        "person.1 logged out",
    ] {
        ensure!(log.contains(word), "{word:?} in\n{log}");
    }
    for secret in ["o.frei", PASSWORD, &first, &person.cookie, &person.proof] {
        ensure!(!log.contains(secret), "{secret} is in the log");
    }
    let kept = std::fs::read_to_string(rig.state().join("people.json"))?;
    ensure!(kept.contains("$argon2id$") && !kept.contains(PASSWORD), "{kept}");

    for reserved in ["console", "person.1"] {
        ensure!(!rig.try_run(&["scanner", "add", "--name", reserved])?.status.success(), "{reserved}");
    }
    rig.sealer.stop()?;
    Ok(())
}

#[test]
fn sessions_end_by_themselves_and_whenever_the_person_changes() -> Result<()> {
    let mut rig = Rig::start_with(&software("[console]\nidle_seconds = 5\n"))?;
    let begun = Instant::now();
    let idle = Person::new(&rig, "idle", "clerk")?;
    // What a page asks by itself does not keep the session alive.
    loop {
        let answer = idle.client.send(
            "GET",
            "/v1/status",
            &[("Cookie", &idle.cookie), ("Bulla-Background", "1")],
            (),
        )?;
        if answer.status == 401 {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "it never ends");
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(begun.elapsed() >= Duration::from_secs(5));
    for (name, act) in [
        ("removed", &["people", "remove", "--name", "removed"][..]),
        ("reset", &["people", "passwd", "--name", "reset"]),
        ("moved", &["people", "role", "--name", "moved", "--role", "auditor"]),
    ] {
        let person = Person::new(&rig, name, "clerk")?;
        ensure!(person.get("/v1/session")?.status == 200, "{name}");
        rig.run(act)?;
        refused(&person.get("/v1/session")?, 401, "unauthenticated").context(name)?;
    }
    refused(&log_in(&rig, "removed", PASSWORD)?, 401, "unauthenticated")?;
    refused(&log_in(&rig, "reset", PASSWORD)?, 401, "unauthenticated")?;
    ensure!(log_in(&rig, "moved", PASSWORD)?.json()?["role"] == "auditor");
    let last = Person::new(&rig, "last", "ops")?;
    rig.sealer.stop()?;
    rig.sealer.start()?;
    let after = Person { client: rig.client_with(None), ..last };
    refused(&after.get("/v1/session")?, 401, "unauthenticated")?;
    // A list that somebody else has written lets nobody in.
    let path = rig.state().join("people.json");
    std::fs::write(&path, std::fs::read_to_string(&path)?.replace("auditor", "ops"))?;
    refused(&log_in(&rig, "last", PASSWORD)?, 503, "locked")?;
    Ok(())
}

#[test]
fn everybody_may_what_the_role_says() -> Result<()> {
    let rig = Rig::start_with(&software(""))?;
    let people: Vec<Person> = ["clerk", "qa", "ops", "auditor"]
        .iter()
        .map(|role| Person::new(&rig, role, role))
        .collect::<Result<_>>()?;
    let scanned = rig.client(Role::Scanner).seal(b"by a scanner")?.json()?["id"].as_str().unwrap().to_owned();
    let (anchor, read) = (format!("/v1/seals/{scanned}/anchor"), format!("/v1/seals/{scanned}"));
    let code = format!("{read}/code");
    let table: [(&str, &str, &str, [u16; 4]); 20] = [
        ("POST", "/v1/seals", "a document", [201, 201, 403, 403]),
        ("GET", "/v1/seals", "", [200; 4]),
        ("GET", "/v1/seals?documentId=x", "", [200; 4]),
        ("GET", &read, "", [200; 4]),
        ("GET", &code, "", [200; 4]),
        ("POST", "/v1/verify", "a document", [200; 4]),
        ("GET", "/v1/status", "", [200; 4]),
        ("GET", "/v1/session", "", [200; 4]),
        ("GET", "/v1/manifests", "", [200; 4]),
        ("GET", "/metrics", "", [403, 403, 200, 200]),
        ("GET", "/v1/history", "", [403, 403, 200, 200]),
        ("GET", "/v1/reconciled", "", [403, 403, 200, 200]),
        ("POST", &anchor, "", [202, 202, 202, 403]),
        ("POST", "/v1/self-tests", "", [403, 403, 200, 403]),
        ("POST", "/v1/epochs", "{\"reason\": \"table\"}", [403, 403, 201, 403]),
        ("POST", "/v1/drills/stop", "", [403, 403, 200, 403]),
        ("POST", "/v1/erasures", "{\"user\": \"nobody\", \"reason\": \"table\"}", [403; 4]),
        ("POST", "/v1/backups", "", [403; 4]),
        ("POST", "/v1/leases", "{\"lease\": \"MAA=\"}", [403; 4]),
        ("POST", "/v1/roster", "{\"roster\": \"MAA=\"}", [403; 4]),
    ];
    for (method, path, body, wanted) in table {
        for (person, wanted) in people.iter().zip(wanted) {
            let answer = match method {
                "GET" => person.get(path)?,
                _ => person.post(path, &[], body.as_bytes())?,
            };
            ensure!(answer.status == wanted, "{method} {path}: {}, not {wanted}", answer.status);
        }
    }
    // Devices' ways are not for sessions, and sessions are not for devices.
    refused(&people[0].get("/api/tasks/")?, 401, "unauthenticated")?;
    refused(&rig.client(Role::Operator).get("/v1/session")?, 403, "forbidden")?;
    let challenged =
        rig.client_with(None).post("/tsa", &[("Content-Type", "application/timestamp-query")], b"x")?;
    ensure!(challenged.status == 401 && challenged.header("www-authenticate") == "Basic realm=\"bulla\"");

    // The seal names the console, and commits to who was logged in.
    let [clerk, qa, ..] = &people[..] else { unreachable!() };
    let made = clerk.seal(b"a contract", &[("Bulla-Document-Id", "K-1")])?;
    let id = made.json()?["id"].as_str().context("an id")?.to_owned();
    let seal = made.seal()?;
    let body = SealBody::decode(&Entry::decode(&seal.entry)?.content().body)?;
    ensure!((body.client.id.as_str(), body.client.method) == ("console", ClientMethod::Local));
    let openings: Vec<Opening> = seal.openings.iter().map(|bytes| Opening::decode(bytes).unwrap()).collect();
    let user = openings.iter().find(|opening| opening.field == Field::User).context("a user")?;
    ensure!((user.value.as_str(), user.assurance) == ("clerk", Assurance::Authenticated));
    ensure!(openings.iter().any(|one| one.value == "K-1" && one.assurance == Assurance::Asserted));
    ensure!(!seal.entry.windows(5).any(|bytes| bytes == b"clerk"), "no name in the log");
    refused(&clerk.seal(b"x", &[("Bulla-User", "qa")])?, 400, "invalid-request")?;

    // A clerk annuls what it sealed itself; quality assurance annuls anything; a leaf hash is no way around.
    let leaf = rig.client(Role::Reader).get(&read)?.json()?["leafHash"].as_str().unwrap().to_owned();
    for target in [&scanned, &leaf] {
        refused(&clerk.seal(b"no", &[("Bulla-Annuls", target)])?, 403, "forbidden")?;
        refused(&clerk.seal(b"no", &[("Bulla-Supersedes", target)])?, 403, "forbidden")?;
    }
    let other = qa.seal(b"of qa", &[])?.json()?["id"].as_str().unwrap().to_owned();
    refused(&clerk.seal(b"no", &[("Bulla-Annuls", &other)])?, 403, "forbidden")?;
    ensure!(clerk.seal(b"copy", &[("Bulla-Derived-From", &scanned)])?.status == 201);
    ensure!(clerk.seal(b"a mistake", &[("Bulla-Annuls", &id)])?.status == 201);
    ensure!(qa.seal(b"another mistake", &[("Bulla-Annuls", &scanned)])?.status == 201);
    ensure!(rig.log().contains(&format!("person.1 has a seal that annuls {id}")), "{}", rig.log());
    Ok(())
}

#[test]
fn the_files_are_the_programs_own_and_run_nothing_else() -> Result<()> {
    let rig = Rig::start_with(&software(""))?;
    let client = rig.client_with(None);
    for (accepted, language) in [("de-CH,de;q=0.9,en;q=0.5", "de"), ("fr", "en")] {
        let page = client.send("GET", "/", &[("Accept-Language", accepted)], ())?;
        let text = String::from_utf8(page.body.clone())?;
        ensure!(page.status == 200 && text.contains(&format!("<html lang=\"{language}\">")), "{text}");
        let policy = page.header("content-security-policy");
        ensure!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        ensure!(!policy.contains("unsafe") && !text.contains("<script>"), "{policy}");
        let again = client.send(
            "GET",
            "/",
            &[("Accept-Language", accepted), ("If-None-Match", page.header("etag"))],
            (),
        )?;
        ensure!(again.status == 304 && again.body.is_empty());
    }
    ensure!(client.get("/console/main.js")?.header("x-content-type-options") == "nosniff");
    for missing in ["/console/", "/console/nothing.js", "/console/..%2fCargo.toml"] {
        refused(&client.get(missing)?, 404, "not-found")?;
    }
    let off = Rig::start_with(&software("[console]\nenabled = false\n"))?;
    refused(&off.client_with(None).get("/")?, 404, "not-found")?;
    refused(&log_in(&off, "a", "b")?, 404, "not-found")?;
    Ok(())
}

/// A person at a browser.
struct Desk {
    browser: Browser,
    base: String,
}

impl Desk {
    fn sit(rig: &Rig) -> Result<Self> {
        let mut browser = Browser::start()?;
        browser.trust_all()?;
        browser.resize(1280, 860, false)?;
        let base = format!("https://localhost:{}", rig.sealer.port());
        browser.open(&format!("{base}/"))?;
        browser.until("document.querySelector('#login') !== null")?;
        Ok(Desk { browser, base })
    }

    /// Chooses a password with a code and is logged in.
    fn first_time(&mut self, name: &str, code: &str) -> Result<()> {
        self.browser.click(".after .linklike")?;
        self.browser.until("document.querySelector('#choose') !== null")?;
        for (field, text) in [("#name", name), ("#current", code), ("#fresh", PASSWORD), ("#again", PASSWORD)]
        {
            self.browser.write(field, text)?;
        }
        self.browser.click("#choose button[type=submit]")?;
        self.shown("live")
    }

    fn log_in(&mut self, name: &str, password: &str) -> Result<()> {
        self.browser.until("document.querySelector('#login') !== null")?;
        self.browser.write("#name", name)?;
        self.browser.write("#password", password)?;
        self.browser.click("#login button[type=submit]")
    }

    fn log_out(&mut self) -> Result<()> {
        self.browser.click(".who .linklike")?;
        self.browser.until("document.querySelector('#login') !== null")
    }

    fn shown(&mut self, page: &str) -> Result<()> {
        self.browser
            .until(&format!("(document.getElementById('page').dataset.shown ?? '').startsWith('{page}-')"))
    }

    fn go(&mut self, page: &str) -> Result<()> {
        self.come_from(page, page.split('/').next().unwrap_or_default())
    }

    /// Names one page and comes to another, because that one is not for this person.
    fn come_from(&mut self, page: &str, shown: &str) -> Result<()> {
        self.browser.evaluate(&format!(
            "(() => {{ delete document.getElementById('page').dataset.shown;
               if (location.hash === '#/{page}') dispatchEvent(new HashChangeEvent('hashchange')); else location.hash = '#/{page}'; }})()"
        ))?;
        self.shown(shown)
    }

    /// Names a page that is not for this person's role: the words say so, and what the role is for.
    fn refused(&mut self, page: &str, role: &str) -> Result<()> {
        self.come_from(page, "refused")?;
        let text = self.text()?;
        for words in ["Not for your role", "is for other roles", role, "What your role may do"] {
            ensure!(text.contains(words), "{page}: {words} in {text}");
        }
        let anything = "document.querySelector('main input, main form, main button')";
        ensure!(self.browser.evaluate(anything)? == Value::Null, "{page} offers something");
        Ok(())
    }

    /// Where the person is told that it can go.
    fn ways(&mut self) -> Result<Value> {
        self.browser.evaluate("[...document.querySelectorAll('nav a')].map((one) => one.textContent)")
    }

    fn speak(&mut self, language: &str) -> Result<()> {
        self.browser.evaluate("delete document.getElementById('page').dataset.shown")?;
        self.browser.click(&format!("[data-language={language}]"))?;
        self.browser.until(&format!(
            "document.documentElement.lang === '{language}' && (document.getElementById('page').dataset.shown ?? '').match(/-{language}$|^login$/) !== null"
        ))
    }

    /// What is shown, in both languages, on a desk and on a phone, is accessible, whole and within its window; in dark, too.
    fn look(&mut self, what: &str) -> Result<()> {
        for language in ["de", "en"] {
            self.speak(language)?;
            for (width, phone) in [(390, true), (1280, false)] {
                self.browser.resize(width, 860, phone)?;
                let what = format!("console-{what}-{language}-{width}");
                self.accessible(&what)?;
                // A phone's own window grows with what does not fit.
                let fits =
                    self.browser.evaluate(&format!("document.documentElement.scrollWidth <= {width}"))?;
                ensure!(fits == true, "{what} is wider than its window");
                let untold = "(document.body.innerText.match(/undefined|NaN|\\[object|=>|\\bnull\\b|\\{\\d\\}/) ?? [''])[0]";
                ensure!(
                    self.browser.evaluate(untold)? == "",
                    "{what}: {}",
                    self.browser.evaluate("document.body.innerText")?
                );
            }
        }
        self.in_dark(&format!("console-{what}-en-1280"))
    }

    fn accessible(&mut self, what: &str) -> Result<()> {
        let found = self.browser.violations()?;
        ensure!(found == json!([]), "{what}: {found:#}");
        self.browser.keep(what)
    }

    /// What is shown is accessible to whoever wants dark pages.
    fn in_dark(&mut self, what: &str) -> Result<()> {
        self.browser.dark(true)?;
        self.accessible(&format!("{what}-dark"))?;
        self.browser.dark(false)
    }

    fn text(&mut self) -> Result<String> {
        Ok(self.browser.evaluate("document.body.innerText")?.as_str().unwrap_or_default().to_owned())
    }

    /// Nobody but the box was asked, and nobody complained but of refusals that were meant.
    fn quiet(&self) -> Result<()> {
        let asked = self.browser.requests();
        let others: Vec<&String> = asked
            .iter()
            .filter(|address| {
                !address.starts_with(&self.base)
                    && !address.starts_with("blob:")
                    && !address.starts_with("data:")
            })
            .collect();
        ensure!(others.is_empty(), "{others:?}");
        let meant = |words: &&String| !words.contains("the server responded with a status of 40");
        let complaints: Vec<String> = self.browser.complaints();
        let complaints: Vec<&String> = complaints.iter().filter(meant).collect();
        ensure!(complaints.is_empty(), "{complaints:?}");
        Ok(())
    }
}

/// Files to seal.
fn papers(rig: &Rig) -> Result<[PathBuf; 2]> {
    let paths = ["loan-4711.pdf", "letter.pdf"].map(|name| rig.directory().join(name));
    for path in &paths {
        std::fs::write(path, format!("%PDF-1.7\n% {}\n", path.display()))?;
    }
    Ok(paths)
}

#[test]
fn a_clerk_and_operations_walk_their_paths_from_a_fresh_box() -> Result<()> {
    let (a, b) = (Stamps::start("Operator A")?, Stamps::start("Operator B")?);
    let rig = start(&[&a, &b], &RigOptions::default(), "")?;
    wait_mode(&rig, "online", PATIENCE)?;
    let mut desk = Desk::sit(&rig)?;
    desk.look("login")?;

    // The first account, with the code that the command line printed.
    let first = add(&rig, "o.frei", "ops")?;
    desk.browser.click(".after .linklike")?;
    desk.browser.until("document.querySelector('#choose') !== null")?;
    ensure!(desk.browser.violations()? == json!([]));
    desk.browser.keep("console-first-en-1280")?;
    desk.browser.open(&format!("{}/", desk.base))?;
    desk.browser.until("document.querySelector('#login') !== null")?;
    desk.first_time("o.frei", &first)?;
    ensure!(desk.text()?.contains("o.frei"));
    desk.log_out()?;
    desk.log_in("o.frei", "not the password")?;
    desk.browser.until("document.querySelector('.complaint') !== null")?;
    ensure!(desk.text()?.contains("do not belong together"), "{}", desk.text()?);

    let id = clerk_path(&rig, &mut desk)?;
    ops_path(&rig, &mut desk, &id, [&a, &b])?;
    desk.quiet()
}

fn clerk_path(rig: &Rig, desk: &mut Desk) -> Result<String> {
    let [loan, letter] = papers(rig)?;
    let code = add(rig, "m.keller", "clerk")?;
    desk.first_time("m.keller", &code)?;
    // A seal of the scanner appears while one looks.
    rig.client(Role::Scanner).seal(b"scanned at the device")?;
    desk.browser.until("document.querySelectorAll('#live li.new').length >= 1")?;
    desk.browser.until("document.querySelector('#state')?.dataset.state === 'sealing'")?;
    ensure!(desk.browser.evaluate("document.querySelector('nav a[href=\"#/box\"]')")? == Value::Null);

    desk.go("new")?;
    desk.browser.write("#document-id", "K 2026/4711")?;
    desk.browser.choose("#file", &[&loan])?;
    desk.browser.until("document.querySelectorAll('#results [data-seal]').length === 1")?;
    desk.browser.choose("#file", &[&letter])?;
    desk.browser.until("document.querySelectorAll('#results [data-seal]').length === 2")?;
    ensure!(desk.browser.violations()? == json!([]));
    desk.browser.keep("console-sealed-en-1280")?;
    let last = "[...document.querySelectorAll('#results [data-seal]')].at(-1).dataset.seal";
    let id = desk.browser.evaluate(last)?.as_str().context("an id")?.to_owned();
    desk.look("new")?;

    // Attested within a minute, anchored at once: the facts say so.
    let until = Instant::now() + PATIENCE;
    loop {
        desk.go(&format!("seal/{id}"))?;
        let holds =
            "[...document.querySelectorAll('#facts [data-holds=yes]')].map((one) => one.dataset.fact).join()";
        let holds = desk.browser.evaluate(holds)?;
        if holds == "sealed,attested,anchored" {
            break;
        }
        ensure!(Instant::now() < until, "{holds}");
        std::thread::sleep(Duration::from_secs(1));
    }
    let shown = desk.text()?;
    for words in ["K 2026/4711", "m.keller (was logged in)", "Not before", "Not after"] {
        ensure!(shown.contains(words), "{words} in {shown}");
    }
    desk.look("seal")?;

    desk.go(&format!("certificate/{id}"))?;
    desk.browser.until("document.querySelector('.code').naturalWidth > 0")?;
    desk.look("certificate")?;
    let pdf = desk.browser.ask("Page.printToPDF", json!({"printBackground": true}))?;
    ensure!(pdf["data"].as_str().is_some_and(|data| data.len() > 10_000));

    desk.go("search")?;
    desk.browser.choose("#search-file", &[&loan])?;
    desk.browser.until("document.querySelector('#found-count')?.dataset.found === '1'")?;
    desk.browser.write("#search-id", "K 2026/4711")?;
    desk.browser.click("#search button[type=submit]")?;
    desk.browser.until("document.querySelector('#found-count')?.dataset.found === '2'")?;
    ensure!(desk.browser.violations()? == json!([]));
    desk.browser.keep("console-found-en-1280")?;
    desk.look("search")?;

    // A mis-scan.
    desk.go(&format!("seal/{id}"))?;
    desk.browser.click(".plain.danger")?;
    desk.browser.write("#reason", "page two was missing")?;
    ensure!(desk.browser.violations()? == json!([]));
    desk.browser.click("#annul")?;
    desk.browser.until("document.querySelector('#annulled') !== null")?;
    ensure!(rig.log().contains(&format!("person.2 has a seal that annuls {id}")));
    // What others sealed is not a clerk's to annul.
    let scanned =
        rig.client(Role::Scanner).seal(b"another device")?.json()?["id"].as_str().unwrap().to_owned();
    desk.go(&format!("seal/{scanned}"))?;
    ensure!(desk.browser.evaluate("document.querySelector('.plain.danger')")? == Value::Null);
    desk.go("password")?;
    desk.look("password")?;

    // Taken away while the page is open: the page notices by itself.
    desk.go("live")?;
    rig.run(&["people", "remove", "--name", "m.keller"])?;
    desk.browser.until("document.querySelector('#login') !== null")?;
    ensure!(desk.text()?.contains("Your session has ended"));
    Ok(id)
}

fn ops_path(rig: &Rig, desk: &mut Desk, id: &str, authorities: [&Stamps; 2]) -> Result<()> {
    desk.log_in("o.frei", PASSWORD)?;
    desk.shown("live")?;
    desk.look("live")?;
    for page in ["anchors", "peers"] {
        desk.go(page)?;
        desk.look(page)?;
    }
    desk.go("box")?;
    desk.browser.click("main .card .plain")?;
    desk.browser.until("document.querySelector('#self-test.yes') !== null")?;
    desk.look("box")?;
    desk.refused("new", "Operations")?;
    desk.go(&format!("seal/{id}"))?;
    ensure!(desk.browser.evaluate("document.querySelector('.plain.danger')")? == Value::Null);

    // The world goes away.
    for authority in authorities {
        authority.set(&Knobs { transport: Transport::Down, ..Knobs::default() })?;
    }
    desk.go("live")?;
    desk.browser.until("document.querySelector('#state')?.dataset.mode === 'emergency'")?;
    desk.browser.until("document.querySelector('#outage-clock') !== null")?;
    let before = desk.browser.evaluate("document.querySelector('#outage-clock').textContent")?;
    desk.browser.until(&format!("document.querySelector('#outage-clock')?.textContent > {before}"))?;
    rig.client(Role::Scanner).seal(b"sealed while nobody answers")?;
    desk.look("outage")?;
    desk.go("anchors")?;
    ensure!(desk.text()?.contains("does not answer"));
    for authority in authorities {
        authority.answer(Answer::Stamp)?;
    }
    desk.go("live")?;
    desk.browser.until("document.querySelector('#state')?.dataset.mode === 'online'")?;
    desk.go("charts")?;
    desk.browser.until("document.querySelectorAll('#charts figure').length === 3")?;
    desk.look("charts")?;
    Ok(())
}

#[test]
fn quality_assurance_and_audit_walk_their_paths() -> Result<()> {
    let rig = Rig::start_with(&software(""))?;
    let scanned = rig.client(Role::Scanner).seal(b"by a scanner")?.json()?["id"].as_str().unwrap().to_owned();
    let clerk = Person::new(&rig, "m.keller", "clerk")?;
    let made = clerk.seal(b"a contract", &[("Bulla-Document-Id", "K-1")])?;
    let made = made.json()?["id"].as_str().unwrap().to_owned();
    let mut desk = Desk::sit(&rig)?;

    // Quality assurance looks at what others have sealed, and annuls it with a reason.
    desk.first_time("q.huber", &add(&rig, "q.huber", "qa")?)?;
    ensure!(desk.ways()? == json!(["Now", "Seal", "Find"]), "{}", desk.ways()?);
    desk.go("search")?;
    desk.browser.write("#search-id", "K-1")?;
    desk.browser.click("#search button[type=submit]")?;
    desk.browser.until("document.querySelector('#found-count')?.dataset.found === '1'")?;
    for (id, why) in [(&made, "the contract is another customer's"), (&scanned, "an empty page")] {
        desk.go(&format!("seal/{id}"))?;
        desk.browser.until("document.querySelector('[data-fact=sealed]')?.dataset.holds === 'yes'")?;
        desk.browser.click(".plain.danger")?;
        // Not without a reason.
        desk.browser.click("#annul")?;
        ensure!(desk.browser.evaluate("document.querySelector('#reason').checkValidity()")? == false);
        desk.browser.write("#reason", why)?;
        desk.accessible("console-annulling-en-1280")?;
        desk.in_dark("console-annulling-en-1280")?;
        desk.browser.click("#annul")?;
        desk.browser.until("document.querySelector('#annulled') !== null")?;
        ensure!(rig.log().contains(&format!("person.2 has a seal that annuls {id}")), "{}", rig.log());
        // Once is enough.
        ensure!(desk.browser.evaluate("document.querySelector('.plain.danger')")? == Value::Null);
    }
    desk.look("annulled")?;
    for page in ["anchors", "peers", "box", "charts"] {
        desk.refused(page, "Quality assurance")?;
    }
    desk.look("refused")?;
    desk.go("live")?;
    desk.log_out()?;

    // Audit looks at everything and changes nothing.
    desk.first_time("r.meier", &add(&rig, "r.meier", "auditor")?)?;
    let all = json!(["Now", "Find", "Anchors", "Neighbours", "Box", "Charts"]);
    ensure!(desk.ways()? == all, "{}", desk.ways()?);
    desk.refused("new", "Audit")?;
    for page in ["anchors", "peers", "charts", "box"] {
        desk.go(page)?;
        let acts = desk.browser.evaluate("document.querySelectorAll('main form, main button').length")?;
        ensure!(acts == 0, "{page} offers an auditor {acts} things to do");
    }
    desk.look("box-audit")?;
    desk.go(&format!("seal/{made}"))?;
    desk.browser.until("document.querySelector('#annulled') !== null")?;
    let can = "[...document.querySelectorAll('main .actions > *')].map((one) => one.textContent)";
    let wanted = json!(["Save the .seal file", "Certificate to print", "Verify documents in the browser"]);
    ensure!(desk.browser.evaluate(can)? == wanted, "{}", desk.browser.evaluate(can)?);
    desk.quiet()
}

#[test]
fn neighbours_are_shown_with_what_they_hold() -> Result<()> {
    let site = Site::start(&[Keys::Software, Keys::Software])?;
    let made = site.mirrored(0, "held next door", 1)?;
    let id = made["id"].as_str().context("an id")?;
    let rig = &site.boxes[0];
    let mut desk = Desk::sit(rig)?;
    desk.first_time("r.meier", &add(rig, "r.meier", "auditor")?)?;
    desk.go("peers")?;
    desk.browser.until("document.querySelectorAll('tbody tr').length === 1")?;
    ensure!(desk.text()?.contains("connected"));
    // A neighbour whose key is in files answers as well as any, and no hardware vouches for it.
    let until = Instant::now() + PATIENCE;
    while !desk.text()?.contains("fresh, with a key in files") {
        ensure!(Instant::now() < until, "{}", desk.text()?);
        std::thread::sleep(Duration::from_millis(500));
        desk.go("peers")?;
    }
    desk.look("neighbours")?;
    desk.go(&format!("seal/{id}"))?;
    desk.browser.until("document.querySelector('[data-fact=mirrored]')?.dataset.holds === 'yes'")?;
    ensure!(desk.browser.evaluate("document.querySelector('.plain.danger')")? == Value::Null);
    // Everything is reached with the Tab key, and seen to have the focus.
    desk.browser.open(&format!("{}/", desk.base))?;
    desk.shown("live")?;
    let mut reached = Vec::new();
    for _ in 0..9 {
        desk.browser.press("Tab", 9)?;
        let focus =
            "[document.activeElement.textContent, getComputedStyle(document.activeElement).outlineStyle]";
        reached.push(desk.browser.evaluate(focus)?);
    }
    let wanted = [
        "Go to the content",
        "Deutsch",
        "English",
        "Change password",
        "Log out",
        "Now",
        "Find",
        "Anchors",
        "Neighbours",
    ];
    ensure!(json!(reached) == json!(wanted.map(|name| [name, "solid"])), "{reached:?}");
    desk.quiet()
}

/// The screens in the documentation are those that the walk leaves behind.
#[test]
fn the_documentation_has_its_screens() {
    let screens = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/screens");
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/console.md")).unwrap();
    let named: Vec<&str> =
        text.split("(screens/").skip(1).filter_map(|rest| rest.split(')').next()).collect();
    assert!(named.len() >= 6);
    for name in named {
        assert!(screens.join(name).is_file(), "{name}");
    }
}

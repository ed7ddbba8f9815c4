//! The browser verifier in a browser, opened from a file as an auditor does: what it judges, what it shows, whom it asks.
//!
//! Method: headless Chromium opens the page from the disk. Every vector is put to its script there; then files are chosen
//! as a person chooses them, in both languages, on a desk and on a phone, with the keyboard alone, and axe-core looks on.
//! `BULLA_SCREENS=DIR` keeps pictures.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_tests::browser_verifier::{Case, summary};
use bulla_tests::rig::browser::Browser;
use bulla_tests::rig::{Rig, bulla_program};
use bulla_tests::vectors;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The page on the disk.
fn page() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("verify.html");
    fs::write(&path, bulla_verifier_web::page()).unwrap();
    let address = format!("file://{}", path.display());
    (directory, address)
}

fn opened() -> (TempDir, Browser) {
    let (directory, address) = page();
    let mut browser = Browser::start().unwrap();
    browser.open(&address).unwrap();
    (directory, browser)
}

/// The page's own verifier, put questions from outside.
const ASK: &str = "
async (questions) => {
  const { openTrust, verifySeal, digestOf, reportText, fromBase64 } = BullaVerifier;
  const answers = [];
  for (const { trust, seal, document } of questions) {
    const opened = await openTrust(fromBase64(trust));
    const digest = document === undefined ? null : (algorithm) => digestOf(algorithm, [fromBase64(document)]);
    answers.push(opened.trust ? reportText(await verifySeal(fromBase64(seal), opened.trust, digest)) : '{\"verdict\":\"trust-refused\"}');
  }
  return answers;
}";

#[test]
fn g6_every_vector_is_judged_the_same_in_a_browser() {
    let (_directory, mut browser) = opened();
    let mut folders: Vec<PathBuf> =
        fs::read_dir(vectors::directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let cases: Vec<Case> = folders.iter().map(|folder| case(folder)).collect();
    for some in cases.chunks(64) {
        let questions: Vec<Value> = some.iter().map(Case::question).collect();
        let answers = browser.evaluate(&format!("({ASK})({})", json!(questions))).unwrap();
        for (case, answer) in some.iter().zip(answers.as_array().unwrap()) {
            let said: Value = serde_json::from_str(answer.as_str().unwrap()).unwrap();
            assert_eq!(summary(&said), case.judged(), "{}", case.name);
        }
    }
    assert!(cases.len() > 800);
    assert_quiet(&browser);
}

fn case(folder: &Path) -> Case {
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    Case {
        name: folder.display().to_string(),
        seal: read("document.seal"),
        trust: read("trust.json"),
        document: Some(read("document")),
    }
}

/// Nobody was asked for anything but the page itself, and nobody complained.
fn assert_quiet(browser: &Browser) {
    let requests = browser.requests();
    let own = |address: &String| address.starts_with("file:") && address.ends_with("/verify.html");
    let others: Vec<&String> =
        requests.iter().filter(|address| !own(address) && !address.starts_with("data:,")).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(browser.complaints().is_empty(), "{:?}", browser.complaints());
}

/// Files of a vector under the names that a person has them under.
fn files(directory: &Path, vector: &str, name: &str) -> [PathBuf; 3] {
    let folder = vectors::directory().join(vector);
    let [document, seal, trust] =
        [name.to_owned(), format!("{name}.seal"), "trust.json".to_owned()].map(|name| directory.join(name));
    for (from, to) in [("document", &document), ("document.seal", &seal), ("trust.json", &trust)] {
        fs::copy(folder.join(from), to).unwrap();
    }
    [document, seal, trust]
}

/// Everything that axe-core finds wrong with what is shown.
fn assert_accessible(browser: &mut Browser, what: &str) {
    assert_eq!(browser.violations().unwrap(), json!([]), "{what}");
}

fn keep(browser: &mut Browser, name: &str) {
    browser.keep(name).unwrap();
}

fn language(browser: &mut Browser, language: &str) {
    browser.evaluate(&format!("document.querySelector('[data-language={language}]').click()")).unwrap();
}

/// Chooses the files of one vector on a fresh page, and waits for this verdict.
fn verdict_of(browser: &mut Browser, address: &str, vector: &str, verdict: &str) {
    let directory = TempDir::new().unwrap();
    let [document, seal, trust] = files(directory.path(), vector, "loan-4711.pdf");
    browser.open(address).unwrap();
    browser.choose("#files", &[&document, &seal, &trust]).unwrap();
    browser.until(&format!("document.querySelector('article')?.dataset.verdict === '{verdict}'")).unwrap();
}

const SHOWN: [(&str, &str, &str); 10] = [
    ("valid-outage-anchored", "valid", "Genuine"),
    ("valid-crl-of-both-keys", "valid", "Genuine"),
    ("valid-crl-superseded-later", "valid", "Genuine"),
    ("valid-crl-of-nobody-we-know", "valid", "Genuine"),
    ("policy-anchored-required-signer-compromised", "policy-unmet", "Not enough for the policy"),
    ("valid-tpm-attested", "valid", "Genuine"),
    ("document-flipped", "other-document", "Not this document"),
    ("token-signature-flipped", "refused", "Refused"),
    ("indeterminate-not-shown", "indeterminate", "Cannot be decided"),
    ("policy-attested-required-no-quote", "policy-unmet", "Not enough for the policy"),
];

#[test]
fn every_verdict_is_shown_in_both_languages_on_desk_and_phone() {
    let (_directory, address) = page();
    let mut browser = Browser::start().unwrap();
    for (width, phone) in [(1280, false), (390, true)] {
        browser.resize(width, 844, phone).unwrap();
        for (vector, verdict, title) in SHOWN {
            verdict_of(&mut browser, &address, vector, verdict);
            for spoken in ["en", "de"] {
                language(&mut browser, spoken);
                let what = format!("{vector}-{spoken}-{width}");
                let shown = browser.evaluate("document.querySelector('article h2').textContent").unwrap();
                assert_eq!(shown == title, spoken == "en", "{what}: {shown}");
                assert_eq!(browser.evaluate("document.documentElement.lang").unwrap(), spoken);
                let untold =
                    browser.evaluate("/undefined|NaN|\\[object|=>/.test(document.body.innerText)").unwrap();
                assert_eq!(untold, false, "{what}");
                let wide = browser.evaluate("document.documentElement.scrollWidth <= innerWidth").unwrap();
                assert_eq!(wide, true, "{what} is wider than its window");
                assert_accessible(&mut browser, &what);
                keep(&mut browser, &what);
            }
        }
    }
    assert_quiet(&browser);
}

#[test]
fn several_documents_find_their_seals() {
    let (_directory, mut browser) = opened();
    let directory = TempDir::new().unwrap();
    let first = files(directory.path(), "valid-software-minimal", "one.pdf");
    let second = files(directory.path(), "valid-openings-all", "two.pdf");
    // Renamed since it was sealed: its bytes say which seal is its own.
    let renamed = directory.path().join("scan.pdf");
    fs::rename(&second[0], &renamed).unwrap();
    let third = directory.path().join("letter.pdf");
    fs::write(&third, "never sealed").unwrap();
    browser.choose("#files", &[&first[0], &first[1], &renamed, &second[1], &third]).unwrap();
    browser.until("document.querySelectorAll('#held .kind').length === 5").unwrap();
    browser.until("document.getElementById('status').textContent.includes('trust.json')").unwrap();
    assert_eq!(browser.evaluate("document.querySelectorAll('article').length").unwrap(), 0);
    browser.choose("#files", &[&first[2]]).unwrap();
    browser.until("document.querySelectorAll('article').length === 3").unwrap();
    let verdicts = browser
        .evaluate("[...document.querySelectorAll('article')].map((one) => one.dataset.verdict ?? '')")
        .unwrap();
    assert_eq!(verdicts, json!(["valid", "valid", ""]));
    let shown = browser.evaluate("document.body.innerText").unwrap();
    let shown = shown.as_str().unwrap();
    for word in [
        "2 checked, 2 genuine.",
        "scan.pdf \u{b7} two.pdf.seal",
        "letter.pdf",
        "m.keller (authenticated)",
        "Z\u{fc}rich 3",
    ] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let trust = fs::read(&first[2]).unwrap();
    let fingerprint = bulla_formats::trust::TrustFile::decode(&trust)
        .map(|_| bulla_formats::trust::fingerprint(&trust))
        .unwrap();
    assert!(shown.contains(&fingerprint), "{fingerprint}");
    assert_accessible(&mut browser, "several");
    assert_quiet(&browser);
}

#[test]
fn a_trust_file_that_cannot_be_used_is_said_to_be_so() {
    let (_directory, mut browser) = opened();
    let directory = TempDir::new().unwrap();
    let [document, seal, trust] = files(directory.path(), "trust-truncated", "one.pdf");
    browser.choose("#files", &[&document, &seal, &trust]).unwrap();
    browser.until("document.querySelector('#trust .bad') !== null").unwrap();
    assert_eq!(browser.evaluate("document.querySelectorAll('article').length").unwrap(), 0);
    assert_accessible(&mut browser, "trust file");
    assert_quiet(&browser);
}

/// Everything that can be used is reached with the Tab key, in the order of the page, and seen to have the focus.
#[test]
fn the_keyboard_is_enough() {
    let (_directory, address) = page();
    let mut browser = Browser::start().unwrap();
    verdict_of(&mut browser, &address, "valid-tpm-attested", "valid");
    browser.evaluate("document.activeElement.blur()").unwrap();
    let mut reached = Vec::new();
    for _ in 0..6 {
        browser.press("Tab", 9).unwrap();
        let focus = "(() => { const one = document.activeElement;
            const ring = one.id === 'files' ? document.querySelector('label.button') : one;
            return [one.id || one.textContent.trim(), getComputedStyle(ring).outlineStyle]; })()";
        reached.push(browser.evaluate(focus).unwrap());
    }
    let wanted = ["Deutsch", "English", "files", "clear", "For specialists", "Print this result"];
    assert_eq!(json!(reached), json!(wanted.map(|name| [name, "solid"])));
    browser.evaluate("document.querySelector('[data-language=de]').focus()").unwrap();
    browser.press("Enter", 13).unwrap();
    browser.until("document.documentElement.lang === 'de'").unwrap();
}

/// The box and the program hand out the very page that was judged above; the box's header says what the page says itself.
#[test]
fn the_box_and_the_program_hand_out_this_page() {
    let rig = Rig::start().unwrap();
    let served = rig.client_with(None).get("/verify").unwrap();
    assert_eq!((served.status, served.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(served.body == bulla_verifier_web::page().as_bytes());
    let policy = format!("{}; frame-ancestors 'none'", bulla_verifier_web::content_security_policy());
    assert_eq!(served.header("content-security-policy"), policy);
    assert_eq!(served.header("cache-control"), "public, max-age=3600");
    assert_eq!(served.header("etag"), format!("\"sha256-{}\"", bulla_verifier_web::sha256()));

    let directory = TempDir::new().unwrap();
    for _ in 0..2 {
        let written = Command::new(bulla_program().unwrap())
            .args(["verifier", "--out", "verify.html"])
            .current_dir(directory.path())
            .output()
            .unwrap();
        let printed = String::from_utf8(written.stdout).unwrap();
        assert_eq!(printed, format!("{}  verify.html\n", bulla_verifier_web::sha256()));
        assert!(fs::read(directory.path().join("verify.html")).unwrap() == served.body);
    }
    let refused = Command::new(bulla_program().unwrap())
        .args(["verifier", "--out", "nowhere/verify.html"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("cannot be written"), "{said}");
}

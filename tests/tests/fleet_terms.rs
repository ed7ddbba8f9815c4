//! What a fleet's people approve beside its boxes: whose time is believed, which boots are good, its policy; and the trust
//! file that is made of it, which one person alone cannot bend.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::trust::TrustFile;
use bulla_tests::rig::fleet::Fleet;
use bulla_tests::rig::tsa::Stamps;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const IMAGE_2: &str = "../provisioning/appraisal/tests/logs/image-v2.eventlog";
const IMAGE_3: &str = "../provisioning/appraisal/tests/logs/image-v3.eventlog";

fn log(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string()
}

fn trust(fleet: &Fleet, name: &str) -> Result<TrustFile> {
    Ok(TrustFile::decode(&fs::read(fleet.path(name))?)?)
}

fn shown(fleet: &Fleet) -> Result<Value> {
    Ok(serde_json::from_str(&fleet.ok(&["roster", "show", "--dir", "fleet", "--json"])?)?)
}

/// Proposes it; what whoever approves would read.
fn propose(fleet: &Fleet, what: &[&str]) -> Result<String> {
    fleet.ok(&[&["propose"], what, &["--dir", "fleet", "--reason", "as agreed"]].concat())
}

/// `trust export` to a file of this name.
fn export(fleet: &Fleet, name: &str, more: &[&str]) -> Result<String> {
    fleet.ok(&[&["trust", "export", "--dir", "fleet", "--out", name], more].concat())
}

/// Signs an event log as the image's build does, with a key of this name; the file with the signature.
fn signed(fleet: &Fleet, key: &str, log: &str) -> Result<String> {
    let openssl = |arguments: &[&str]| -> Result<()> {
        let done = Command::new("openssl").args(arguments).current_dir(fleet.path(".")).output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    };
    let (secret, certificate) = (format!("{key}.key"), format!("{key}.crt"));
    if !fleet.path(&secret).exists() {
        let subject = format!("/CN={key}/");
        let make =
            ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "3650", "-subj", &subject];
        openssl(&[&make[..], &["-keyout", &secret, "-out", &certificate]].concat())?;
    }
    let name = Path::new(log).file_name().and_then(|name| name.to_str()).context("a name")?;
    let signature = format!("{key}-{name}.sig");
    openssl(&["dgst", "-sha256", "-sign", &secret, "-out", &signature, log])?;
    Ok(signature)
}

#[test]
fn what_a_trust_file_says_is_what_two_people_approved() -> Result<()> {
    let fleet = Fleet::found()?;
    let stamps = Stamps::start("Operator A")?;
    let pem = stamps.root_pem().display().to_string();
    let (image_2, image_3) = (log(IMAGE_2), log(IMAGE_3));

    // Nobody writes it into the trust file alone, here or next to it.
    let by_hand = ["authority", "add", "--operator", "Operator A", "--roots", &pem];
    for (from, to) in [("fleet/trust.json", "mine.json"), ("fleet/trust.json", "fleet/trust.json")] {
        let files = ["--trust", from, "--out", to];
        fleet.ends(&[&by_hand[..], &files].concat(), 1, "bulla-fleet propose anchors")?;
        let boot = ["reference", "add", "--name", "image 2", "--log", &image_2];
        fleet.ends(&[&boot[..], &files].concat(), 1, "bulla-fleet propose reference")?;
    }

    // An auditor believes whom he likes, and it shows.
    fs::create_dir(fleet.path("auditor"))?;
    for name in ["roster", "trust.json"] {
        fs::copy(fleet.path("fleet").join(name), fleet.path("auditor").join(name))?;
    }
    let own = ["--trust", "auditor/trust.json", "--out", "auditor/mine.json"];
    fleet.ok(&[&by_hand[..], &own].concat())?;
    let check = ["trust", "check", "auditor/mine.json", "--roster", "auditor/roster"];
    fleet.ends(&check, 1, "whose time is believed stands in no version of the roster")?;
    let bent =
        ["trust", "export", "--dir", "fleet", "--trust", "auditor/mine.json", "--out", "fleet/trust.json"];
    fleet.ends(&bent, 1, "nobody has approved")?;

    // Proposed, read in words, approved by one, which is not two; then by both.
    let said = propose(&fleet, &["anchors", "--operator", "Operator A", "--add", &pem])?;
    ensure!(said.contains("ANCHORS") && said.contains("NEW   root sha256:"), "{said}");
    fleet.ok(&["approve", "--dir", "olga", "--exchange", "fleet/exchange", "--yes"])?;
    fleet.ends(&["apply", "--dir", "fleet"], 3, "2 are needed")?;
    ensure!(shown(&fleet)?["anchors"].is_null(), "one person decided");
    fleet.carry_out()?;
    let (sig_2, sig_3) = (signed(&fleet, "db", &image_2)?, signed(&fleet, "db", &image_3)?);
    signed(&fleet, "other", &image_2)?;
    let with = |log: &str, signature: &str, certificate: &str| {
        let boot = ["propose", "reference", "--name", "image 2", "--log", log, "--signature", signature];
        [&boot[..], &["--certificate", certificate, "--dir", "fleet", "--reason", "as agreed"]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    fs::write(fleet.path("no.sig"), b"")?;
    fs::write(fleet.path("no.crt"), b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")?;
    fs::write(
        fleet.path("two.crt"),
        [fs::read(fleet.path("db.crt"))?, fs::read(fleet.path("other.crt"))?].concat(),
    )?;
    for (log, signature, certificate, why) in [
        (&image_2, sig_3.as_str(), "db.crt", "is no signature over it by the key"),
        (&image_3, &sig_2, "db.crt", "is no signature over it by the key"),
        (&image_2, &sig_2, "other.crt", "is no signature over it by the key"),
        (&image_2, "no.sig", "db.crt", "is no signature over it by the key"),
        (&image_2, &sig_2, "no.crt", "no.crt is refused"),
        (&image_2, &sig_2, "two.crt", "one certificate"),
    ] {
        let arguments = with(log, signature, certificate);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        fleet.ends(&arguments, 1, why)?;
    }
    let half = ["propose", "reference", "--name", "image 2", "--log", &image_2, "--signature", &sig_2];
    fleet.ends(&[&half[..], &["--dir", "fleet", "--reason", "as agreed"]].concat(), 2, "--certificate")?;
    let vouched = with(&image_2, &sig_2, "db.crt");
    fleet.ok(&vouched.iter().map(String::as_str).collect::<Vec<_>>())?;
    fleet.carry_out()?;
    fleet.ends(
        &["propose", "policy", "--require", "blessed", "--dir", "fleet", "--reason", "as agreed"],
        1,
        "unknown fact",
    )?;
    propose(&fleet, &["policy", "--require", "attested", "--require", "anchored"])?;
    fleet.carry_out()?;
    // Nobody's time and a policy that asks for it: refused before anybody is asked.
    let nobody = ["propose", "anchors", "--remove", "Operator A", "--dir", "fleet", "--reason", "no more"];
    fleet.ends(&nobody, 1, "unprovable")?;
    let roster = shown(&fleet)?;
    ensure!(roster["anchors"]["tsas"][0]["operator"] == "Operator A", "{roster}");
    ensure!(roster["policy"]["requireFacts"] == serde_json::json!(["attested", "anchored"]), "{roster}");
    ensure!(roster["policy"]["references"][0]["name"] == "image 2", "{roster}");
    let text = fleet.ok(&["roster", "show", "--dir", "fleet"])?;
    ensure!(text.contains("good boot \"image 2\"") && text.contains("time stamps of Operator A"), "{text}");

    // The trust file is made of it, and whoever has a copy of the roster can tell that it is.
    let said = export(&fleet, "one.json", &[])?;
    ensure!(
        said.contains("as version 1 of the roster") && said.contains("as version 3 of the roster"),
        "{said}"
    );
    let one = trust(&fleet, "one.json")?;
    let authorities = one.authorities.clone().context("authorities")?;
    ensure!(authorities.tsas[0].operator == "Operator A" && authorities.operators == 1);
    ensure!(one.references[0].name == "image 2" && one.policy.require_facts == ["attested", "anchored"]);
    let check = |name: &str| ["trust", "check", name, "--roster", "fleet/exchange/roster"].map(str::to_owned);
    let check = |name: &str, code: i32, part: &str| {
        let arguments = check(name);
        fleet.ends(&arguments.each_ref().map(String::as_str), code, part)
    };
    check("one.json", 0, "the newest version there is")?;

    // What somebody bends in it is told by both, and nothing is made of it.
    type Bend = fn(&mut TrustFile);
    let bends: [(&str, Bend); 5] = [
        ("policy or known good boots differ", |trust| trust.policy.accept_software = true),
        ("policy or known good boots differ", |trust| trust.references.clear()),
        ("policy or known good boots differ", |trust| trust.policy.require_facts.clear()),
        ("whose time is believed differs", |trust| {
            if let Some(all) = &mut trust.authorities {
                all.tsas[0].operator = "Operator M".into();
            }
        }),
        ("another fleet root", |trust| {
            let other = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
            trust.roots.push(other.to_bytes());
        }),
    ];
    for (why, bend) in bends {
        let mut bent = one.clone();
        bend(&mut bent);
        if bent.authorities.is_none() {
            bent.policy.require_facts.clear();
        }
        fs::write(fleet.path("bent.json"), bent.encode())?;
        let arguments = ["trust", "export", "--dir", "fleet", "--trust", "bent.json", "--out", "out.json"];
        fleet.ends(&arguments, 1, why)?;
        ensure!(!fleet.path("out.json").exists(), "{why}: something was written");
        check("bent.json", 1, why)?;
        export(&fleet, "straight.json", &["--trust", "bent.json", "--discard"])?;
        let straight = trust(&fleet, "straight.json")?;
        ensure!(straight.roots == one.roots && straight.policy == one.policy, "{why}: it stayed");
        ensure!(straight.authorities == one.authorities && straight.references == one.references, "{why}");
        fs::remove_file(fleet.path("straight.json"))?;
    }
    // Neither does a revocation go missing: the file names its version of the roster.
    fs::copy(fleet.path("fleet/roster"), fleet.path("roster-3"))?;
    fleet.list(&"1".repeat(64), "S-1")?;
    let revoke = ["revoke", "S-1", "--cause", "compromise", "--dir", "fleet", "--reason", "stolen"];
    fleet.ok(&revoke)?;
    fleet.carry_out()?;
    export(&fleet, "two.json", &["--trust", "one.json"])?;
    check("two.json", 0, "the newest version there is")?;
    check("one.json", 0, "2 change(s) behind this roster")?;

    // The next image, and the one before goes; then an older roster comes back, and a trust file that has seen the newer one
    // is not written from it.
    propose(&fleet, &["reference", "--name", "image 3", "--log", &image_3, "--remove", "image 2"])?;
    fleet.carry_out()?;
    export(&fleet, "three.json", &["--trust", "two.json"])?;
    let three = trust(&fleet, "three.json")?;
    ensure!(three.references.len() == 1 && three.references[0].name == "image 3", "{:?}", three.references);
    fs::create_dir(fleet.path("older"))?;
    for name in ["fleet.keys", "trust.json", "fleet-ca.der"] {
        fs::copy(fleet.path("fleet").join(name), fleet.path("older").join(name))?;
    }
    fs::copy(fleet.path("roster-3"), fleet.path("older/roster"))?;
    let arguments = ["trust", "export", "--dir", "older", "--trust", "three.json", "--out", "four.json"];
    fleet.ends(&arguments, 1, "rolled-back")?;

    // Where the operators are gone, the custodian decides in their place, and that stays on record.
    propose(&fleet, &["policy", "--accept-software", "false", "--require", "attested", "--override"])?;
    fleet.ok(&["approve", "--dir", "fleet/custodian", "--exchange", "fleet/exchange", "--yes"])?;
    let said = fleet.ok(&["apply", "--dir", "fleet"])?;
    ensure!(said.contains("carried out by OVERRIDE"), "{said}");
    ensure!(shown(&fleet)?["policy"]["requireFacts"] == serde_json::json!(["attested"]));

    // A roster with another policy in it is none.
    let mut bytes = fs::read(fleet.path("fleet/roster"))?;
    let at = bytes.windows(7).rposition(|seven| seven == b"image 3").context("it names the boot")?;
    bytes[at + 6] = b'4';
    fs::write(fleet.path("forged"), &bytes)?;
    fleet.ends(&["trust", "check", "three.json", "--roster", "forged"], 1, "refused")?;
    Ok(())
}

#[test]
fn one_person_alone_may_still_write_it_and_it_says_so() -> Result<()> {
    let fleet = Fleet::found()?;
    let (stamps, image_2) = (Stamps::start("Operator A")?, log(IMAGE_2));
    let pem = stamps.root_pem().display().to_string();
    fleet.ok(&["init", "--dir", "lone", "--fleet", "laptop.example"])?;
    let files = ["--trust", "lone/trust.json", "--out", "lone/trust.json"];
    let operator = ["authority", "add", "--operator", "Operator A", "--roots", &pem];
    fleet.ok(&[&operator[..], &files].concat())?;
    fleet.ok(&[&["reference", "add", "--name", "image 2", "--log", &image_2], &files[..]].concat())?;
    let export = ["trust", "export", "--dir", "lone", "--out", "lone.json"];
    let said = fleet.ok(&export)?;
    ensure!(said.contains("as it was; the roster says nothing of it"), "{said}");
    let lone = trust(&fleet, "lone.json")?;
    ensure!(lone.authorities.is_some() && lone.references.len() == 1);
    // Once the roster has said it, it is the roster's to say, of one person, too.
    let propose = ["propose", "anchors", "--from", "lone.json", "--dir", "lone", "--reason", "for good"];
    let said = fleet.ok(&propose)?;
    ensure!(said.contains("ONE PERSON DECIDES ALONE"), "{said}");
    fleet.ok(&["approve", "--dir", "lone/custodian", "--exchange", "lone/exchange", "--yes"])?;
    fleet.ok(&["apply", "--dir", "lone"])?;
    fleet.ends(&[&operator[..], &files].concat(), 1, "bulla-fleet propose anchors")?;
    let said = fleet.ok(&export)?;
    ensure!(said.contains("Whose time is believed: as version 1 of the roster"), "{said}");
    ensure!(trust(&fleet, "lone.json")?.authorities == lone.authorities);
    Ok(())
}

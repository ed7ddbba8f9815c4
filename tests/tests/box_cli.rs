//! `bulla` and a real box, from the scan to an empty machine years later.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::der::Octets32;
use bulla_formats::entry::TreeState;
use bulla_formats::hash::Hash;
use bulla_formats::json::base64_encode;
use bulla_formats::note::{SignedNote, checkpoint_text, parse_checkpoint_text};
use bulla_formats::revocation::{Cause, Revocation, RevocationContent};
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::{FromRoster, TrustFile};
use bulla_tests::rig::{Rig, Role, bulla_program};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with documents, and the box beside it.
struct Desk {
    rig: Rig,
    directory: PathBuf,
}

impl Desk {
    fn start() -> Result<Self> {
        let rig = Rig::start()?;
        let directory = rig.directory().join("desk");
        fs::create_dir(&directory)?;
        for file in ["ca.pem", "trust.json"] {
            fs::copy(rig.file(file), directory.join(file))?;
        }
        fs::write(directory.join("token"), format!("{}\n", rig.token(Role::Scanner)))?;
        Ok(Desk { rig, directory })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// `bulla COMMAND --box ... MORE` on the desk.
    fn with_box(&self, command: &str, more: &[&str]) -> Result<(i32, String)> {
        let url = self.rig.sealer.url();
        let connection = ["--box", &url, "--ca", "ca.pem", "--token-file", "token"];
        bulla(&self.directory, &[&[command], &connection[..], more].concat())
    }

    fn seal_file(&self, name: &str) -> Result<SealFile> {
        Ok(SealFile::decode(&fs::read(self.path(name))?)?)
    }
}

/// Runs `bulla` in a directory with nothing of the environment; exit code, and all that it printed.
fn bulla(directory: &Path, arguments: &[&str]) -> Result<(i32, String)> {
    let output =
        Command::new(bulla_program()?).env_clear().current_dir(directory).args(arguments).output()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    ensure!(!text.contains("panicked"), "{arguments:?}: {text}");
    Ok((output.status.code().context("ended by a signal")?, text))
}

fn verdict(text: &str) -> Result<(Value, Value)> {
    let report: Value = serde_json::from_str(text).with_context(|| text.to_owned())?;
    Ok((report["verdict"].clone(), report["facts"].clone()))
}

/// Flips a bit in the decoded value of a base64 member of a `.seal`.
fn bend(seal: &SealFile, member: &str, at: usize) -> Vec<u8> {
    let mut value = seal.to_value();
    let mut bytes = match member {
        "entry" => seal.entry.clone(),
        "epoch" => seal.epoch.clone(),
        _ => seal.enrolment.clone(),
    };
    let at = at % bytes.len();
    bytes[at] ^= 1;
    value[member] = base64_encode(&bytes).into();
    value.to_string().into_bytes()
}

#[test]
fn documents_are_sealed_kept_verified_and_upgraded() -> Result<()> {
    let desk = Desk::start()?;
    let files = ["loan.pdf", "photo.png", "with space \u{fc}.bin", "big.tiff"];
    fs::write(desk.path(files[0]), b"%PDF-1.7 a loan agreement")?;
    fs::write(desk.path(files[1]), b"\x89PNG\r\n\x1a\n")?;
    fs::write(desk.path(files[2]), b"\0\xff")?;
    fs::write(desk.path(files[3]), vec![0x49; 5 << 20])?;
    let described = ["--user", "J\u{fc}rgen", "--document-id", "4711", "--meta", "desk=3"];
    // The third twice in one run: whichever is sent second finds the seal or gets the same one.
    let (code, text) =
        desk.with_box("seal", &[&files[..], &[files[2]], &described, &["--jobs", "1"]].concat())?;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("4 sealed, 1 skipped, 0 failed"), "{text}");

    // Again: nothing new. A lost seal comes back as it was, because the request is the same.
    let kept: Vec<SealFile> =
        files.iter().map(|file| desk.seal_file(&format!("{file}.seal"))).collect::<Result<_>>()?;
    fs::remove_file(desk.path("loan.pdf.seal"))?;
    let (code, text) = desk.with_box("seal", &[&files[..], &described].concat())?;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 sealed, 3 skipped, 0 failed"), "{text}");
    assert_eq!(desk.seal_file("loan.pdf.seal")?.entry, kept[0].entry, "sealed twice");

    elsewhere(&desk, &files)?;
    refusals(&desk)?;
    upgrades(&desk, &files)?;
    looks(&desk)
}

/// An empty directory with the document, its seal and the trust file is all that a verifier needs.
fn elsewhere(desk: &Desk, files: &[&str]) -> Result<()> {
    for file in files {
        let empty = tempfile::tempdir()?;
        for name in [file, format!("{file}.seal").as_str(), "trust.json"] {
            fs::copy(desk.path(name), empty.path().join(name))?;
        }
        let (code, text) = bulla(empty.path(), &["verify", file, "--trust", "trust.json"])?;
        assert_eq!(code, 0, "{text}");
        assert!(text.contains("J\u{fc}rgen") && text.contains(file), "{text}");
        let (code, text) = bulla(empty.path(), &["verify", file, "--trust", "trust.json", "--json"])?;
        assert_eq!((code, verdict(&text)?), (0, (json!("valid"), json!(["sealed"]))));
        let found = fs::read_dir(empty.path())?.count();
        assert_eq!(found, 3, "verifying left something behind");
    }
    Ok(())
}

fn refusals(desk: &Desk) -> Result<()> {
    let verify = |document: &str, seal: &str, trust: &str| {
        bulla(&desk.directory, &["verify", document, seal, "--trust", trust])
    };
    let (code, text) = verify("photo.png", "loan.pdf.seal", "trust.json")?;
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("no seal is known for these bytes") && !text.contains("forged"), "{text}");
    fs::write(desk.path("unsealed.pdf"), b"x")?;
    let (code, text) = bulla(&desk.directory, &["verify", "unsealed.pdf", "--trust", "trust.json"])?;
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("no seal known"), "{text}");

    let seal = desk.seal_file("loan.pdf.seal")?;
    for member in ["entry", "epoch", "enrolment"] {
        for at in (0..2000).step_by(131) {
            fs::write(desk.path("bent.seal"), bend(&seal, member, at))?;
            let (code, text) = verify("loan.pdf", "bent.seal", "trust.json")?;
            assert_eq!(code, 1, "{member}, byte {at}: {text}");
            assert!(text.contains("failed"), "{text}");
        }
    }
    fs::write(desk.path("newer.seal"), seal.encode().replacen("seal/v1", "seal/v9", 1))?;
    assert_eq!(verify("loan.pdf", "newer.seal", "trust.json")?.0, 5);
    for (name, bytes) in [("empty", &b""[..]), ("garbage", b"\xff\x00{"), ("other", b"{\"bulla\": 1}")] {
        fs::write(desk.path(name), bytes)?;
        let (code, text) = verify("loan.pdf", name, "trust.json")?;
        assert_eq!(code, 1, "{name} as a seal: {text}");
        let (code, text) = verify("loan.pdf", "loan.pdf.seal", name)?;
        assert_eq!(code, 2, "{name} as a trust file: {text}");
    }
    assert_eq!(verify("loan.pdf", "loan.pdf.seal", "absent")?.0, 2);
    assert_eq!(verify("absent", "loan.pdf.seal", "trust.json")?.0, 2);
    // A policy that asks for more than the seal has.
    let mut trust: Value = serde_json::from_slice(&fs::read(desk.path("trust.json"))?)?;
    trust["policy"]["requireFacts"] = json!(["attested"]);
    fs::write(desk.path("strict.json"), trust.to_string())?;
    assert_eq!(verify("loan.pdf", "loan.pdf.seal", "strict.json")?.0, 6);

    // Sealing: what is at hand first, then the box.
    assert_eq!(desk.with_box("seal", &["absent.pdf"])?.0, 2);
    fs::write(desk.path("empty.pdf"), b"")?;
    assert_eq!(desk.with_box("seal", &["empty.pdf"])?.0, 2);
    fs::write(desk.path("loan.pdf.bak"), fs::read(desk.path("loan.pdf"))?)?;
    fs::copy(desk.path("photo.png.seal"), desk.path("loan.pdf.bak.seal"))?;
    let (code, text) = desk.with_box("seal", &["loan.pdf.bak"])?;
    assert_eq!(code, 2, "a seal of other bytes was overwritten unasked: {text}");
    fs::write(desk.path("token"), "bulla_wrong\n")?;
    let (code, text) = desk.with_box("seal", &["unsealed.pdf", "--attempts", "1"])?;
    assert_eq!(code, 7, "{text}");
    assert!(!desk.path("unsealed.pdf.seal").exists());
    fs::write(desk.path("token"), desk.rig.token(Role::Reader))?;
    assert_eq!(desk.with_box("seal", &["unsealed.pdf", "--attempts", "1"])?.0, 7);
    fs::write(desk.path("token"), desk.rig.token(Role::Scanner))?;
    let nowhere =
        ["--box", "https://localhost:1", "--ca", "ca.pem", "--token-file", "token", "--attempts", "1"];
    assert_eq!(bulla(&desk.directory, &[&["seal", "unsealed.pdf"], &nowhere[..]].concat())?.0, 7);
    Ok(())
}

fn upgrades(desk: &Desk, files: &[&str]) -> Result<()> {
    fs::write(desk.path("awaited.pdf"), b"awaited")?;
    let wait = ["awaited.pdf", "--wait", "attested", "--deadline", "60", "--trust", "trust.json"];
    let (code, text) = desk.with_box("seal", &wait)?;
    assert_eq!(code, 0, "{text}");
    let strict = |file: &str| bulla(&desk.directory, &["verify", file, "--trust", "strict.json", "--json"]);
    let attested = (json!("valid"), json!(["sealed", "attested"]));
    let (code, text) = strict("awaited.pdf")?;
    assert_eq!((code, verdict(&text)?), (0, attested.clone()), "{text}");
    // The seals made before are covered by the same quote: fetch it.
    let seals: Vec<String> = files.iter().map(|file| format!("{file}.seal")).collect();
    let mut arguments: Vec<&str> = seals.iter().map(String::as_str).collect();
    arguments.extend(["--trust", "trust.json"]);
    let (code, text) = desk.with_box("upgrade", &arguments)?;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("4 upgraded, 0 unchanged, 0 failed") && text.contains("now attested"), "{text}");
    for file in files {
        let (code, text) = strict(file)?;
        assert_eq!((code, verdict(&text)?), (0, attested.clone()), "{text}");
    }
    let before = fs::read(desk.path("loan.pdf.seal"))?;
    let (code, text) = desk.with_box("upgrade", &["loan.pdf.seal", "--trust", "trust.json"])?;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("0 upgraded, 1 unchanged"), "{text}");
    assert_eq!(fs::read(desk.path("loan.pdf.seal"))?, before);

    // Without the bytes: the box never sees the document, and the seal says so.
    fs::write(desk.path("secret.pdf"), b"secret")?;
    let (code, text) = desk.with_box("seal", &["secret.pdf", "--digest-only", "--no-filename"])?;
    assert_eq!(code, 0, "{text}");
    let (code, text) = bulla(&desk.directory, &["verify", "secret.pdf", "--trust", "trust.json"])?;
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("digest") && !text.contains("bytes observed"), "{text}");
    // One that replaces another.
    let seal = desk.seal_file("secret.pdf.seal")?;
    let leaf = bulla_formats::entry::Entry::decode(&seal.entry)?.leaf_hash().to_string();
    fs::write(desk.path("secret-2.pdf"), b"secret, corrected")?;
    let (code, text) = desk.with_box("seal", &["secret-2.pdf", "--supersedes", &leaf])?;
    assert_eq!(code, 0, "{text}");
    Ok(())
}

fn looks(desk: &Desk) -> Result<()> {
    for file in ["loan.pdf.seal", "trust.json"] {
        let (code, text) = bulla(&desk.directory, &["inspect", file])?;
        assert_eq!(code, 0, "{text}");
        let (code, text) = bulla(&desk.directory, &["inspect", file, "--json"])?;
        assert_eq!(code, 0, "{text}");
        let _json: Value = serde_json::from_str(&text)?;
    }
    let (code, text) = bulla(&desk.directory, &["inspect", "loan.pdf.seal", "--extract", "parts"])?;
    assert_eq!(code, 0, "{text}");
    assert!(fs::read_dir(desk.path("parts"))?.count() > 3);
    let (code, text) = desk.with_box("status", &["--json"])?;
    assert_eq!(code, 0, "{text}");
    let status: Value = serde_json::from_str(&text)?;
    assert_eq!(status["condition"]["state"], "sealing");
    assert_eq!(status["origin"], desk.seal_file("loan.pdf.seal")?.origin);
    assert!(status["attestedSize"].as_u64() > Some(4), "{status}");
    assert_eq!(desk.with_box("status", &[])?.0, 0);
    // The fingerprint that the box prints is the one the desk reads out over the phone.
    let printed = desk.rig.run(&["trust", "export", "--out", "again.json"])?.stdout;
    let printed = String::from_utf8(printed)?;
    let again = desk.rig.file("again.json");
    let (code, text) = bulla(&desk.directory, &["trust-fingerprint", again.to_str().unwrap()])?;
    assert_eq!(code, 0);
    assert!(printed.contains(text.trim()), "{printed} and {text}");
    assert_eq!(bulla(&desk.directory, &["nonsense"])?.0, 2);
    Ok(())
}

/// A second root of the trust file, for which a test can speak: the box keeps its own to itself.
fn given_up(desk: &Desk, good: &str, cause: Cause) -> Result<()> {
    let root = SigningKey::from_bytes(&[5; 32]);
    let mut trust = desk.rig.trust().clone();
    trust.roots.push(root.verifying_key().to_bytes());
    let (origin, size, tree) = parse_checkpoint_text(good)?;
    let content = RevocationContent {
        version: 1,
        fleet: trust.fleet.clone(),
        origin: origin.to_owned(),
        cause,
        good: TreeState::new(size, tree),
        invalid_from: 1_790_000_000_000,
        roster: 4,
        roster_hash: Octets32::new([4; 32]),
        issued_at: 1_790_000_000_000,
    };
    let signature = root.sign(&content.message()).to_bytes().to_vec().into();
    let revocations = vec![Revocation { content, chain: Vec::new(), signature }];
    trust.roster = Some(FromRoster { version: 4, hash: [4; 32], revocations, successions: Vec::new() });
    Ok(fs::write(desk.path("trust.json"), trust.encode())?)
}

/// The checkpoint text of the log as it is.
fn checkpoint(desk: &Desk) -> Result<String> {
    let note = desk.rig.client(Role::Reader).get("/checkpoint")?;
    Ok(SignedNote::parse(std::str::from_utf8(&note.body)?)?.text)
}

/// A box is stolen. What it sealed before stays good, once the seals have the path to the last good tree; what came
/// after, nobody can tell.
#[test]
fn after_a_compromise_only_what_is_under_the_good_tree_is_valid() -> Result<()> {
    let desk = Desk::start()?;
    // More than one tile, so that the path leads through two levels.
    let names: Vec<String> = (0..300).map(|number| format!("scan-{number}")).collect();
    for name in &names {
        fs::write(desk.path(name), format!("document {name}"))?;
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (code, text) = desk.with_box("seal", &names)?;
    ensure!(code == 0, "{text}");
    let good = checkpoint(&desk)?;
    fs::write(desk.path("later"), b"sealed by a thief")?;
    let (code, text) = desk.with_box("seal", &["later"])?;
    ensure!(code == 0, "{text}");

    let verify = |name: &str| bulla(&desk.directory, &["verify", name, "--trust", "trust.json"]);
    ensure!(verify("scan-7")?.0 == 0 && verify("later")?.0 == 0);
    given_up(&desk, &good, Cause::Retirement)?;
    for name in ["scan-7", "later"] {
        let (code, text) = verify(name)?;
        ensure!(code == 0 && text.contains("retired from"), "{text}");
    }
    given_up(&desk, &good, Cause::Compromise)?;
    for name in ["scan-7", "later"] {
        let (code, text) = verify(name)?;
        ensure!(code == 8 && text.contains("indeterminate") && text.contains("revocation"), "{text}");
        ensure!(text.contains("from version 4 of the roster") && text.contains("fingerprint"), "{text}");
    }
    let many = bulla(&desk.directory, &["verify", "--each", "later", "scan-7", "--trust", "trust.json"])?;
    ensure!(many.0 == 8 && many.1.contains("2 indeterminate"), "{}", many.1);

    let upgrade = ["--trust", "trust.json", "scan-7.seal", "scan-256.seal", "scan-299.seal", "later.seal"];
    let (code, text) = desk.with_box("upgrade", &upgrade)?;
    ensure!(code == 0 && text.matches("1 more path(s) to a last good tree").count() == 3, "{text}");
    for name in ["scan-7", "scan-256", "scan-299"] {
        let (code, text) = verify(name)?;
        ensure!(code == 0 && text.contains("stands in the last good tree of"), "{name}: {text}");
    }
    let (code, text) = verify("later")?;
    ensure!(code == 8, "{text}");
    let (code, text) = desk.with_box("upgrade", &upgrade)?;
    ensure!(code == 0 && !text.contains("path(s)"), "nothing is added twice: {text}");

    // The file speaks for itself: an auditor whose trust file knows the root and no revocation learns of it.
    let mut trust = TrustFile::decode(&fs::read(desk.path("trust.json"))?)?;
    trust.roster = None;
    fs::write(desk.path("trust.json"), trust.encode())?;
    let (code, text) = verify("scan-7")?;
    ensure!(code == 0 && text.contains("compromised, invalid from"), "{text}");
    let (code, text) = verify("later")?;
    ensure!(code == 8, "{text}");
    let shown = bulla(&desk.directory, &["inspect", "scan-7.seal", "--json"])?.1;
    ensure!(shown.contains("\"cause\": \"compromise\""), "{shown}");

    // A tree that this log never had: nothing leads there, and nothing is written that would say so.
    let (origin, size, _) = parse_checkpoint_text(&good)?;
    let forged = checkpoint_text(origin, size, &Hash([6; 32]));
    given_up(&desk, &forged, Cause::Compromise)?;
    let (code, text) = desk.with_box("upgrade", &["--trust", "trust.json", "scan-9.seal"])?;
    ensure!(text.contains("no path to the last good tree"), "{code}: {text}");
    let file = SealFile::decode(&fs::read(desk.path("scan-9.seal"))?)?;
    ensure!(file.revocations.iter().all(|said| said.entry_proof.is_none()), "a path to nowhere was written");
    ensure!(verify("scan-9")?.0 == 8);
    Ok(())
}

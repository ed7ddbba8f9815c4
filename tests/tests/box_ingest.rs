//! Hot folders of the box: files of scanners that write badly, through kills, locks and revocations; and a file server that
//! scanners know.
//!
//! Goal: each complete document is sealed once, as its scanner's account, and whatever hinders the API hinders folders the
//! same way, without costing a file. Method: real files, a real box on swtpm, SIGKILL, a real smbd.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, bail, ensure};
use bulla_formats::body::seal::{ClientMethod, SealBody};
use bulla_formats::entry::Entry;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::Role;
use bulla_tests::rig::branch::{Branch, until};
use bulla_tests::rig::folder::{digest, pdf, seals_of, write_badly};
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

#[test]
fn g3_a_thousand_badly_written_files_are_sealed_once_each_though_the_box_is_killed() -> Result<()> {
    let mut branch = Branch::start("give_up_seconds = 8\n", "")?;
    let folder = branch.folder.clone();
    let writing = std::thread::spawn(move || write_badly(&folder, 1_000, 6));
    while !writing.is_finished() {
        std::thread::sleep(Duration::from_secs(2));
        branch.rig.sealer.kill()?;
        branch.rig.sealer.start()?;
    }
    let written = writing.join().expect("writing does not panic")?;
    let errors = branch.errors();
    written
        .settled(&branch.folder, &errors, Duration::from_secs(240))
        .with_context(|| branch.rig.log().lines().rev().take(30).collect::<Vec<_>>().join("\n"))?;
    written.judge(&branch.folder, &errors, &[&branch.rig])?;
    let counts = written.count(&branch.rig, "desk-1")?;
    ensure!(counts.len() == written.whole.len(), "{} of {} are sealed", counts.len(), written.whole.len());
    let metrics = branch.rig.client(Role::Reader).get("/metrics")?;
    let metrics = String::from_utf8(metrics.body)?;
    ensure!(metrics.contains("bulla_ingest_sealed_total{client=\"desk-1\"}"), "{metrics}");
    let status = branch.status()?;
    ensure!(status["watching"] == "inotify" && status["waiting"] == 0, "{status}");
    println!("{} documents, {} halves, sealed once each", written.whole.len(), written.halves.len());
    Ok(())
}

#[test]
fn a_document_of_a_folder_is_its_scanners_and_says_how_it_came() -> Result<()> {
    let branch = Branch::start("slip = true\naccept = [\"pdf\"]\n", "")?;
    fs::create_dir(branch.folder.join("loans"))?;
    fs::write(branch.folder.join("loans/a.pdf"), pdf(1, 900))?;
    fs::write(branch.folder.join("loans/a.xml"), b"<user>jm</user>")?;
    let receipt = branch.sealed("loans/a.pdf")?;
    let seal = SealFile::decode(&fs::read(branch.folder.join("loans/a.pdf.seal"))?)?;
    let body = SealBody::decode(&Entry::decode(&seal.entry)?.content().body)?;
    ensure!(
        (body.client.id.as_str(), body.client.method) == ("desk-1", ClientMethod::Local),
        "{:?}",
        body.client
    );
    ensure!(body.transport == "hot-folder" && body.media_type == "application/pdf");
    let openings: Vec<_> = seal
        .openings
        .iter()
        .map(|bytes| {
            bulla_formats::body::seal::Opening::decode(bytes).map(|opening| (opening.name, opening.value))
        })
        .collect::<Result<_, _>>()?;
    let sidecar = format!("sha-256:{} a.xml", digest(b"<user>jm</user>"));
    for (name, value) in [("filename", "a.pdf"), ("folder", "loans"), ("sidecar", &sidecar)] {
        ensure!(openings.iter().any(|(found, of)| found == name && of == value), "{name}: {openings:?}");
    }
    ensure!(receipt["id"].is_string() && branch.folder.join("loans/a.pdf.slip.pdf").is_file());
    fs::write(branch.folder.join("b.txt"), b"words")?;
    let reason = branch.errors().join("b.txt.reason.txt");
    let text = until("what is not accepted leaves", || Ok(fs::read_to_string(&reason).ok()))?;
    ensure!(text.contains("not accepted in this folder"), "{text}");
    Ok(())
}

#[test]
fn what_hinders_the_api_hinders_folders_and_costs_no_file() -> Result<()> {
    let mut branch = Branch::start("", "")?;
    let operator = branch.rig.client(Role::Operator);
    let reason = br#"{"reason": "stocktaking"}"#;
    ensure!(operator.post("/v1/lock", &[], reason)?.status == 200);
    fs::write(branch.folder.join("locked.pdf"), pdf(1, 900))?;
    until("the status says why", || Ok(branch.status()?["trouble"].as_str().map(str::to_owned)))?;
    ensure!(branch.receipt("locked.pdf").is_none());
    ensure!(operator.post("/v1/unlock", &[], reason)?.status == 200);
    branch.sealed("locked.pdf")?;
    // A scanner that is revoked seals nothing, and says so; its files stay where they are.
    branch.rig.run(&["scanner", "revoke", "--name", "desk-1"])?;
    fs::write(branch.folder.join("revoked.pdf"), pdf(2, 900))?;
    let trouble = until("the status says why", || {
        let trouble = branch.status()?["trouble"].as_str().map(str::to_owned);
        Ok(trouble.filter(|text| text.contains("scanner add")))
    })?;
    ensure!(
        branch.receipt("revoked.pdf").is_none() && branch.folder.join("revoked.pdf").is_file(),
        "{trouble}"
    );
    branch.rig.sealer.stop()?;
    ensure!(branch.rig.fsck().is_ok());
    Ok(())
}

/// A Samba server of the test's own, as docs/ingest.md sets one up.
struct Samba {
    server: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Samba {
    fn start(share: &Path) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ingest.md"))?;
        let recipe = page.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next());
        let recipe = recipe
            .context("docs/ingest.md has the recipe")?
            .replace("/srv/scans/desk-1", &share.to_string_lossy());
        // What a server beside others needs: places of its own, and a user that every machine has.
        let place = directory.path().to_string_lossy().into_owned();
        let own = format!(
            "[global]\nprivate dir = {place}\nlock directory = {place}\nstate directory = {place}\ncache directory = {place}\n\
             pid directory = {place}\nncalrpc dir = {place}/rpc\nlog file = {place}/log\nsmb ports = {port}\n\
             bind interfaces only = yes\ninterfaces = lo\ndisable spoolss = yes\n"
        );
        let recipe = recipe
            .replace("[global]\n", &own)
            .replace("bulla-scan", "root")
            .replace("desk-1-scanner", "root");
        let file = directory.path().join("smb.conf");
        fs::write(&file, recipe)?;
        let mut password = Command::new("smbpasswd")
            .arg("-c")
            .arg(&file)
            .args(["-s", "-a", "root"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        std::io::Write::write_all(&mut password.stdin.take().context("it reads")?, b"secret\nsecret\n")?;
        ensure!(password.wait()?.success(), "smbpasswd knows no user");
        let log = File::create(directory.path().join("smbd.out"))?;
        let server = Command::new("smbd")
            .args(["--foreground", "--no-process-group", "--debug-stdout", "--configfile"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("smbd (package samba) starts")?;
        let mut samba = Samba { server, directory, port };
        for _ in 0..200 {
            if samba.client("ls").is_ok() {
                return Ok(samba);
            }
            ensure!(samba.server.try_wait()?.is_none(), "smbd ended: {}", samba.words());
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("smbd does not answer: {} {:?}", samba.words(), samba.client("ls"))
    }

    fn words(&self) -> String {
        fs::read_to_string(self.directory.path().join("smbd.out")).unwrap_or_default()
    }

    fn client(&self, command: &str) -> Result<String> {
        let output = Command::new("smbclient")
            .args([
                "//127.0.0.1/scans",
                "--user",
                "root%secret",
                "--port",
                &self.port.to_string(),
                "--command",
                command,
            ])
            .arg("--configfile")
            .arg(self.directory.path().join("smb.conf"))
            .current_dir(self.directory.path())
            .output()?;
        let text = String::from_utf8([output.stdout, output.stderr].concat())?;
        ensure!(output.status.success() && !text.contains("NT_STATUS"), "{text}");
        Ok(text)
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn a_scanner_that_only_knows_smb_has_its_scans_sealed() -> Result<()> {
    let branch = Branch::start("", "")?;
    let samba = Samba::start(&branch.folder)?;
    for number in 0..20 {
        let name = format!("scan{number}.pdf");
        fs::write(samba.directory.path().join(&name), pdf(number, 200_000))?;
        samba.client(&format!("put {name}"))?;
    }
    // As some scanners do: under a name of its own, then renamed; and half a file, whose connection broke.
    fs::write(samba.directory.path().join("x"), pdf(99, 5_000))?;
    samba.client("put x moving.filepart; rename moving.filepart moved.pdf")?;
    fs::write(samba.directory.path().join("half.pdf"), &pdf(98, 5_000)[..3_000])?;
    samba.client("put half.pdf")?;
    for number in 0..20 {
        branch.sealed(&format!("scan{number}.pdf"))?;
    }
    branch.sealed("moved.pdf")?;
    // The scanner's people see the receipts through the share, and may take them along.
    let listing = samba.client("ls")?;
    ensure!(listing.contains("scan7.pdf.seal") && listing.contains("scan7.pdf.receipt.json"), "{listing}");
    samba.client("get scan7.pdf.seal")?;
    let seal = SealFile::decode(&fs::read(samba.directory.path().join("scan7.pdf.seal"))?)?;
    let report = branch.rig.judge(&seal, &pdf(7, 200_000)).report;
    ensure!(report.verdict == bulla_formats::report::Verdict::Valid, "{report:?}");
    let seals = seals_of(&branch.rig, "desk-1")?;
    ensure!(seals.len() == 21 && seals.values().all(|count| *count == 1), "{seals:?}");
    ensure!(branch.receipt("half.pdf").is_none() && branch.folder.join("half.pdf").is_file());
    Ok(())
}

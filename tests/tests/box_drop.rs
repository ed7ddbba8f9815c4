//! Documents that scanners and programs put into a folder of the box over the network: WebDAV, posts as to paperless-ngx, SFTP.
//!
//! Goal: what is said to be taken is whole, on the disk, sealed once and says how it came; what is refused leaves nothing.
//! Method: the very lines of docs/ingest.md with stock curl, rclone, sshd and sftp; raw requests for what these never send.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::Entry;
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::SealFile;
use bulla_tests::rig::branch::{Branch, recipes, until};
use bulla_tests::rig::folder::{pdf, seals_of};
use serde_json::Value;
use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// A place to run a recipe's lines from.
struct Desk {
    branch: Branch,
    place: tempfile::TempDir,
}

impl Desk {
    fn start(more: &str) -> Result<Self> {
        let (branch, place) = (Branch::start(more, "")?, tempfile::tempdir()?);
        fs::copy(branch.rig.file("ca.pem"), place.path().join("ca.pem"))?;
        Ok(Desk { branch, place })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(self.place.path().join(name), bytes)?)
    }

    /// Runs one line of a recipe against this box; its output.
    fn line(&self, line: &str) -> Result<String> {
        let line = line.replace("https://localhost:8443", &self.branch.rig.sealer.url());
        let output = Command::new("sh")
            .args(["-e", "-u", "-c", &line])
            .env("TOKEN", &self.branch.token)
            .env("RCLONE_CONFIG", "/dev/null")
            .current_dir(self.place.path())
            .output()?;
        ensure!(
            output.status.success(),
            "{line}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// curl as the scanner; status and body.
    fn curl(&self, path: &str, more: &[&str]) -> Result<(u16, String)> {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--write-out", "\n%{http_code}", "--cacert", "ca.pem"])
            .args(["--user", &format!("desk-1:{}", self.branch.token)])
            .args(more)
            .arg(format!("{}{path}", self.branch.rig.sealer.url()))
            .current_dir(self.place.path())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let (body, status) = text.rsplit_once('\n').context("curl writes the status")?;
        Ok((status.parse()?, body.to_owned()))
    }

    fn refused(&self, path: &str, more: &[&str], status: u16, slug: &str) -> Result<()> {
        let (seen, body) = self.curl(path, more)?;
        let problem: Value = serde_json::from_str(&body).with_context(|| format!("{path}: {seen} {body}"))?;
        let wanted = format!("urn:bulla:problem:{slug}");
        ensure!((seen, problem["type"].as_str()) == (status, Some(&*wanted)), "{path} {more:?}: {problem}");
        Ok(())
    }

    fn transport(&self, name: &str) -> Result<String> {
        let seal = SealFile::decode(&fs::read(self.branch.folder.join(format!("{name}.seal")))?)?;
        Ok(SealBody::decode(&Entry::decode(&seal.entry)?.content().body)?.transport)
    }

    /// Names in the folder.
    fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.branch.folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

/// Lines of a block; a backslash at the end joins two.
fn lines(block: &str) -> Vec<String> {
    block.replace("\\\n", " ").lines().map(str::to_owned).collect()
}

#[test]
fn a_scanner_that_knows_webdav_has_its_scans_sealed() -> Result<()> {
    let desk = Desk::start("webdav = true\n")?;
    let (scan, letter) = (pdf(1, 300_000), pdf(2, 5_000));
    desk.file("scan.pdf", &scan)?;
    desk.file("letter.pdf", &letter)?;
    let recipe = lines(&recipes("WebDAV", "sh")?[0]);
    let [curl, rclone, fetch] = &recipe[..] else { anyhow::bail!("three lines, not {recipe:?}") };
    desk.line(curl)?;
    desk.line(rclone)?;
    desk.branch.sealed("scan.pdf")?;
    desk.branch.sealed("letter.pdf")?;
    desk.line(fetch)?;
    let seal = SealFile::decode(&fs::read(desk.place.path().join("scan.pdf.seal"))?)?;
    let report = desk.branch.rig.judge(&seal, &scan).report;
    ensure!(report.verdict == Verdict::Valid, "{report:?}");
    for name in ["scan.pdf", "letter.pdf"] {
        let said = desk.transport(name)?;
        ensure!(said.starts_with("hot-folder webdav https/") && said.ends_with(" tls1.3"), "{name}: {said}");
    }
    // As scanners and desktops do: a folder, a name of its own, then the right one; a listing.
    let put = |path: &str| desk.curl(path, &["--upload-file", "scan.pdf"]);
    ensure!(desk.curl("/dav/desk-1/loans", &["--request", "MKCOL"])?.0 == 201);
    ensure!(put("/dav/desk-1/loans/a.pdf.part")?.0 == 201);
    let to = format!("Destination: {}/dav/desk-1/loans/a.pdf", desk.branch.rig.sealer.url());
    ensure!(desk.curl("/dav/desk-1/loans/a.pdf.part", &["--request", "MOVE", "--header", &to])?.0 == 201);
    let listing = desk.curl("/dav/desk-1/", &["--request", "PROPFIND", "--header", "Depth: 1"])?;
    ensure!(listing.0 == 207 && listing.1.contains("/dav/desk-1/scan.pdf.receipt.json"), "{listing:?}");
    desk.branch.sealed("loans/a.pdf")?;
    // The same bytes again are the same document; others under its name are another.
    ensure!(put("/dav/desk-1/scan.pdf")?.0 == 204);
    ensure!(desk.curl("/dav/desk-1/letter.pdf", &["--upload-file", "scan.pdf"])?.0 == 204);
    until("the other document is sealed", || {
        Ok(desk
            .names()?
            .iter()
            .any(|name| {
                name.starts_with("letter.pdf.") && name.len() == "letter.pdf.".len() + 16 + ".seal".len()
            })
            .then_some(()))
    })?;
    let seals = seals_of(&desk.branch.rig, "desk-1")?;
    ensure!(seals.len() == 2 && seals.values().all(|count| *count == 1), "{seals:?}");
    Ok(())
}

#[test]
fn what_webdav_refuses_leaves_nothing() -> Result<()> {
    let desk = Desk::start("webdav = true\n")?;
    let other = desk.branch.rig.add_client("desk-2", "scanner")?;
    desk.file("scan.pdf", &pdf(1, 300_000))?;
    let upload = ["--upload-file", "scan.pdf"];
    let with = |more: &'static str| ["--upload-file", "scan.pdf", "--header", more];
    desk.refused("/dav/desk-1/a.pdf.seal", &upload, 403, "reserved-name")?;
    desk.refused("/dav/desk-1/.0123456789abcdef.bulla-tmp", &upload, 403, "reserved-name")?;
    desk.refused("/dav/desk-1/none/a.pdf", &upload, 409, "no-parent")?;
    desk.refused("/dav/desk-1/a.pdf", &with("Content-Range: bytes 0-1/4"), 400, "invalid-request")?;
    desk.refused("/dav/desk-1/a.pdf", &with("Content-Encoding: gzip"), 415, "unsupported-media-type")?;
    desk.refused("/dav/desk-2/a.pdf", &upload, 404, "no-drop")?;
    desk.refused("/dav/desk-1/", &["--request", "PROPFIND"], 403, "forbidden")?;
    let to = format!("Destination: {}/dav/desk-1/b.seal", desk.branch.rig.sealer.url());
    desk.refused("/dav/desk-1/a", &["--request", "MOVE", "--header", &to], 403, "reserved-name")?;
    let wrong = ["--user", "desk-1:bulla_wrong", "--upload-file", "scan.pdf"];
    desk.refused("/dav/desk-1/a.pdf", &wrong, 401, "unauthenticated")?;
    // Another scanner's name with this token, and another scanner in this folder.
    let named = format!("desk-2:{}", desk.branch.token);
    desk.refused(
        "/dav/desk-1/a.pdf",
        &["--user", &named, "--upload-file", "scan.pdf"],
        401,
        "unauthenticated",
    )?;
    let foreign = format!("desk-2:{other}");
    desk.refused("/dav/desk-1/a.pdf", &["--user", &foreign, "--upload-file", "scan.pdf"], 404, "no-drop")?;
    for up in ["/dav/desk-1/../../etc/x.pdf", "/dav/desk-1/%2e%2e/x.pdf", "/dav/desk-1/..%2fx.pdf"] {
        let (status, body) = desk.curl(up, &["--path-as-is", "--upload-file", "scan.pdf"])?;
        ensure!(status >= 400, "{up}: {status} {body}");
    }
    desk.branch.rig.run(&["scanner", "limit", "--name", "desk-1", "--max-bytes", "1000"])?;
    desk.refused("/dav/desk-1/a.pdf", &upload, 413, "too-large")?;
    desk.refused("/dav/desk-1/a.pdf", &with("Transfer-Encoding: chunked"), 413, "too-large")?;
    ensure!(desk.names()?.iter().all(|name| name == "error"), "{:?}", desk.names()?);
    desk.branch.rig.run(&["scanner", "limit", "--name", "desk-1", "--max-bytes", "1000000"])?;
    ensure!(desk.curl("/dav/desk-1/a.pdf", &upload)?.0 == 201);
    desk.refused("/dav/desk-1/a.pdf", &with("If-None-Match: *"), 412, "already-there")?;
    // Half a document, whose connection breaks: nothing of it is ever seen under a document's name.
    let mut cut = Command::new("curl")
        .args(["--silent", "--cacert", "ca.pem", "--limit-rate", "50k", "--upload-file", "scan.pdf"])
        .args(["--user", &format!("desk-1:{}", desk.branch.token)])
        .arg(format!("{}/dav/desk-1/half.pdf", desk.branch.rig.sealer.url()))
        .current_dir(desk.place.path())
        .stdout(Stdio::null())
        .spawn()?;
    until("it is on its way", || {
        Ok(desk.names()?.iter().any(|name| name.ends_with(".bulla-tmp")).then_some(()))
    })?;
    cut.kill()?;
    cut.wait()?;
    until("what had come is gone", || {
        Ok(desk.names()?.iter().all(|name| !name.ends_with(".bulla-tmp")).then_some(()))
    })?;
    ensure!(!desk.branch.folder.join("half.pdf").exists());
    Ok(())
}

#[test]
fn g1_kill_9_while_documents_are_put_leaves_whole_ones_only() -> Result<()> {
    let mut desk = Desk::start("webdav = true\n")?;
    desk.file("scan.pdf", &pdf(7, 400_000))?;
    let mut taken = Vec::new();
    for round in 0..6 {
        let url = desk.branch.rig.sealer.url();
        let user = format!("desk-1:{}", desk.branch.token);
        let place = desk.place.path().to_owned();
        let writer = std::thread::spawn(move || {
            let mut taken = Vec::new();
            for number in 0..1_000 {
                let name = format!("r{round}-{number}.pdf");
                fs::write(place.join("next.pdf"), pdf(round * 1_000 + number, 400_000)).unwrap();
                let sent = Command::new("curl")
                    .args([
                        "--silent",
                        "--fail",
                        "--cacert",
                        "ca.pem",
                        "--user",
                        &user,
                        "--upload-file",
                        "next.pdf",
                    ])
                    .arg(format!("{url}/dav/desk-1/{name}"))
                    .current_dir(&place)
                    .stderr(Stdio::null())
                    .status()
                    .unwrap();
                if !sent.success() {
                    break;
                }
                taken.push((name, round * 1_000 + number));
            }
            taken
        });
        std::thread::sleep(std::time::Duration::from_millis(300 + 150 * u64::from(round)));
        desk.branch.rig.sealer.kill()?;
        taken.extend(writer.join().expect("writing does not panic"));
        desk.branch.rig.sealer.start()?;
    }
    for (name, number) in &taken {
        ensure!(
            fs::read(desk.branch.folder.join(name))? == pdf(*number, 400_000),
            "{name} is not what was sent"
        );
        desk.branch.sealed(name)?;
    }
    let left = desk.names()?;
    ensure!(!left.iter().any(|name| name.ends_with(".bulla-tmp")), "{left:?}");
    let seals = seals_of(&desk.branch.rig, "desk-1")?;
    ensure!(seals.values().all(|count| *count == 1) && seals.len() >= taken.len());
    println!("{} documents taken through 6 kills", taken.len());
    Ok(())
}

#[test]
fn a_program_that_knows_paperless_posts_and_asks() -> Result<()> {
    let mut desk = Desk::start("paperless = true\n")?;
    desk.file("invoice.pdf", &pdf(1, 40_000))?;
    let recipe = lines(&recipes("Programs that know paperless-ngx", "sh")?[0]);
    let [post, ask] = &recipe[..] else { anyhow::bail!("two lines, not {recipe:?}") };
    let id: String = serde_json::from_str(&desk.line(post)?)?;
    desk.branch.sealed("invoice.pdf")?;
    let tasks: Value = serde_json::from_str(&desk.line(ask)?)?;
    ensure!(tasks[0]["task_id"] == id && tasks[0]["status"] == "SUCCESS", "{tasks}");
    let receipt = desk.branch.sealed("invoice.pdf")?;
    ensure!(tasks[0]["related_document"] == receipt["id"], "{tasks} {receipt}");
    ensure!(receipt["sidecars"][0]["name"] == "invoice.pdf.json", "{receipt}");
    let sidecar: Value = serde_json::from_slice(&fs::read(desk.branch.folder.join("invoice.pdf.json"))?)?;
    ensure!(sidecar["title"] == "Invoice", "{sidecar}");
    ensure!(desk.transport("invoice.pdf")?.starts_with("hot-folder paperless https/"));
    // Posted again it is the same task, file and seal; another document gets a name of its own.
    ensure!(serde_json::from_str::<String>(&desk.line(post)?)? == id);
    desk.file("invoice.pdf", &pdf(2, 40_000))?;
    let second: String = serde_json::from_str(&desk.line(post)?)?;
    ensure!(second != id);
    desk.branch.sealed("invoice (2).pdf")?;
    // Half a document stays one until it is given up; a task says so then.
    desk.file("half.pdf", &pdf(3, 4_000)[..2_000])?;
    let (status, half) = desk.curl("/api/documents/post_document/", &["--form", "document=@half.pdf"])?;
    ensure!(status == 200, "{half}");
    let asked = |id: &str| -> Result<Value> {
        let (_, told) = desk.curl(&format!("/api/tasks/?task_id={}", id.trim_matches('"')), &[])?;
        Ok(serde_json::from_str::<Value>(&told)?[0].clone())
    };
    ensure!(asked(&half)?["status"] == "PENDING");
    for (more, status, slug) in [
        (&["--form", "title=x"][..], 400, "invalid-request"),
        (&["--form", "document=@half.pdf;filename=a.pdf.seal"], 403, "reserved-name"),
        (&["--form", "document=@half.pdf;filename=.x"], 400, "invalid-request"),
        (&["--form", "document=@half.pdf", "--form", "document=@ca.pem"], 400, "invalid-request"),
        (&["--form", "document=@half.pdf", "--form", "no such=x"], 400, "invalid-request"),
        (&["--data", "x"], 415, "unsupported-media-type"),
    ] {
        desk.refused("/api/documents/post_document/", more, status, slug)?;
    }
    desk.file("empty.pdf", b"")?;
    desk.refused("/api/documents/post_document/", &["--form", "document=@empty.pdf"], 400, "empty-document")?;
    ensure!(desk.names()?.iter().all(|name| !name.ends_with(".bulla-tmp")), "{:?}", desk.names()?);
    let seals = seals_of(&desk.branch.rig, "desk-1")?;
    ensure!(seals.len() == 2 && seals.values().all(|count| *count == 1), "{seals:?}");
    desk.branch.rig.sealer.stop()?;
    ensure!(desk.branch.rig.fsck().is_ok());
    Ok(())
}

#[test]
fn who_has_no_such_folder_is_told_so() -> Result<()> {
    let desk = Desk::start("sidecar = \"off\"\n")?;
    desk.file("scan.pdf", &pdf(1, 1_000))?;
    desk.refused("/dav/desk-1/a.pdf", &["--upload-file", "scan.pdf"], 404, "no-drop")?;
    desk.refused("/api/documents/post_document/", &["--form", "document=@scan.pdf"], 404, "no-drop")?;
    desk.refused("/api/tasks/", &[], 404, "no-drop")?;
    ensure!(desk.names()?.iter().all(|name| name == "error"), "{:?}", desk.names()?);
    Ok(())
}

/// An sshd of the test's own, as docs/ingest.md sets one up.
struct Sftp {
    server: Child,
    place: tempfile::TempDir,
    port: u16,
}

impl Sftp {
    /// `legacy`: with what only old devices need. The folder is `scans` below `top`.
    fn start(top: &Path, legacy: bool) -> Result<Self> {
        let place = tempfile::Builder::new().prefix("bulla-sshd-").tempdir_in("/run")?;
        fs::create_dir_all("/run/sshd")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let blocks = recipes("SFTP", "")?;
        let [usual, older] = &blocks[..] else { anyhow::bail!("two configurations, not {}", blocks.len()) };
        let host = if legacy { "rsa" } else { "ed25519" };
        for (name, kind) in [("host", host), ("scanner", host)] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-N", "", "-t", kind, "-f"])
                .arg(place.path().join(name))
                .status()?;
            ensure!(made.success(), "ssh-keygen makes no {kind} key");
        }
        let file = |name: &str| place.path().join(name).display().to_string();
        let own = format!(
            "ListenAddress 127.0.0.1\nPidFile none\nStrictModes no\nAuthorizedKeysFile {}\nPermitRootLogin prohibit-password\n",
            file("scanner.pub")
        );
        // In front of the block that holds for one user only.
        let (all, one) =
            usual.split_once("Match ").context("the recipe ends with the scanner's own block")?;
        let more = if legacy { older.as_str() } else { "" };
        let text = format!("{all}{more}{own}Match {one}")
            .replace("Port 2222", &format!("Port {port}"))
            .replace("/etc/ssh/ssh_host_ed25519_key", &file("host"))
            .replace("/srv/sftp/desk-1", &top.display().to_string())
            .replace("desk-1-scanner", "root");
        fs::write(place.path().join("scanners.conf"), text)?;
        let log = File::create(place.path().join("log"))?;
        let server = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &file("scanners.conf")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("sshd (package openssh-server) starts")?;
        let mut sftp = Sftp { server, place, port };
        until("sshd answers", || {
            ensure!(sftp.server.try_wait()?.is_none(), "sshd ended: {}", sftp.words());
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        })?;
        Ok(sftp)
    }

    fn words(&self) -> String {
        fs::read_to_string(self.place.path().join("log")).unwrap_or_default()
    }

    fn put(&self, commands: &str, more: &[&str]) -> Result<Output> {
        let batch = self.place.path().join("batch");
        fs::write(&batch, commands)?;
        Command::new("sftp")
            .args(["-q", "-P", &self.port.to_string(), "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "IdentitiesOnly=yes", "-F", "none"])
            .args(more)
            .arg("-i")
            .arg(self.place.path().join("scanner"))
            .arg("-b")
            .arg(&batch)
            .arg("root@127.0.0.1")
            .current_dir(self.place.path())
            .output()
            .context("sftp (package openssh-client) starts")
    }
}

impl Drop for Sftp {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// sshd locks a user only into directories that nobody else may write to.
fn locked_place() -> Result<tempfile::TempDir> {
    let place = tempfile::Builder::new().prefix("bulla-sftp-").tempdir_in("/run")?;
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    Ok(place)
}

#[test]
fn a_scanner_that_only_knows_sftp_has_its_scans_sealed() -> Result<()> {
    let place = locked_place()?;
    let top = place.path().to_owned();
    let branch = Branch::start_in(place, "via = \"sftp\"\n", "")?;
    let sftp = Sftp::start(&top, false)?;
    for number in 0..10 {
        fs::write(sftp.place.path().join(format!("scan{number}.pdf")), pdf(number, 200_000))?;
    }
    let commands: String =
        (0..10).map(|number| format!("put scan{number}.pdf scans/scan{number}.pdf\n")).collect();
    let moved = "put scan0.pdf scans/x.filepart\nrename scans/x.filepart scans/moved.pdf\n";
    let sent = sftp.put(&format!("{commands}{moved}"), &[])?;
    ensure!(sent.status.success(), "{}{}", String::from_utf8_lossy(&sent.stderr), sftp.words());
    for number in 0..10 {
        branch.sealed(&format!("scan{number}.pdf"))?;
    }
    branch.sealed("moved.pdf")?;
    let fetched = sftp.put("get scans/scan3.pdf.seal\n", &[])?;
    ensure!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    let seal = SealFile::decode(&fs::read(sftp.place.path().join("scan3.pdf.seal"))?)?;
    ensure!(branch.rig.judge(&seal, &pdf(3, 200_000)).report.verdict == Verdict::Valid);
    let body = SealBody::decode(&Entry::decode(&seal.entry)?.content().body)?;
    ensure!(body.transport == "hot-folder sftp", "{}", body.transport);
    // It is locked in: nothing above its folder, no shell, nothing but files.
    for commands in ["get ../../etc/passwd\n", "put scan0.pdf /outside.pdf\n", "!true\nget /etc/hostname\n"] {
        let outside = sftp.put(commands, &[])?;
        let left = top.join("outside.pdf").exists() && commands.contains("outside");
        ensure!(!outside.status.success() || left, "{commands}");
    }
    let seals = seals_of(&branch.rig, "desk-1")?;
    ensure!(seals.len() == 10 && seals.values().all(|count| *count == 1), "{seals:?}");
    Ok(())
}

#[test]
fn a_scanner_of_2010_gets_a_port_of_its_own_and_its_seals_say_so() -> Result<()> {
    let place = locked_place()?;
    let top = place.path().to_owned();
    let branch = Branch::start_in(place, "via = \"legacy sftp\"\n", "")?;
    let old = [
        "-o",
        "HostKeyAlgorithms=ssh-rsa",
        "-o",
        "PubkeyAcceptedAlgorithms=ssh-rsa",
        "-o",
        "KexAlgorithms=diffie-hellman-group14-sha1",
        "-c",
        "aes128-cbc",
        "-o",
        "MACs=hmac-sha1",
    ];
    let modern = Sftp::start(&top, false)?;
    fs::write(modern.place.path().join("a.pdf"), pdf(1, 9_000))?;
    ensure!(
        !modern.put("put a.pdf scans/a.pdf\n", &old)?.status.success(),
        "the usual port takes no old scanner"
    );
    let legacy = Sftp::start(&top, true)?;
    fs::write(legacy.place.path().join("a.pdf"), pdf(1, 9_000))?;
    let sent = legacy.put("put a.pdf scans/a.pdf\n", &old)?;
    ensure!(sent.status.success(), "{}{}", String::from_utf8_lossy(&sent.stderr), legacy.words());
    branch.sealed("a.pdf")?;
    let seal = SealFile::decode(&fs::read(branch.folder.join("a.pdf.seal"))?)?;
    let body = SealBody::decode(&Entry::decode(&seal.entry)?.content().body)?;
    ensure!(body.transport == "hot-folder legacy sftp", "{}", body.transport);
    Ok(())
}

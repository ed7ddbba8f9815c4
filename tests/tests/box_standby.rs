//! A standby takes over the branch's address: real keepalived with the configuration that the documentation ships, on a
//! switch of the test's own, while a scanner posts to the address and sends again until it is answered.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use anyhow::{Context, Result, ensure};
use bulla_formats::hash::leaf_hash;
use bulla_tests::rig::netns::nft;
use bulla_tests::rig::site::{Site, until};
use bulla_tests::rig::{Keys, Role};
use serde_json::Value;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 100);
/// Where the scanner is: a member of the LAN whose box never runs.
const SCANNER: usize = 2;

fn documentation(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/keepalived").join(name)
}

/// keepalived beside a box; ended with the test.
struct Keepalived {
    child: Child,
    /// Of root alone, all the way up: keepalived runs no script that others could change.
    _directory: tempfile::TempDir,
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        // It takes the address away and ends its own processes.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// What the runbook says, at the box `at`, whose partner is `other`.
fn keepalived(site: &Site, at: usize, other: usize) -> Result<Keepalived> {
    let rig = &site.boxes[at];
    let place = tempfile::Builder::new().prefix("bulla-keepalived-").tempdir_in("/run")?;
    let directory = place.path();
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755))?;
    let check = directory.join("check-ready");
    std::fs::copy(documentation("check-ready"), &check)?;
    std::fs::set_permissions(&check, std::fs::Permissions::from_mode(0o755))?;
    let ca = directory.join("box-ca.pem");
    std::fs::write(&ca, rig.ca_pem())?;
    let lan = site.lan()?;
    let text = std::fs::read_to_string(documentation("keepalived.conf"))?
        .replace("/etc/keepalived/check-ready", check.to_str().unwrap())
        .replace("/etc/keepalived/box-ca.pem", &format!("{} 127.0.0.1:{}", ca.display(), rig.sealer.port()))
        .replace("router_id box-a", &format!("router_id box-{at}"))
        .replace("192.0.2.11", &lan.address(at).to_string())
        .replace("192.0.2.12", &lan.address(other).to_string())
        .replace("192.0.2.10", &ADDRESS.to_string())
        .replace("interface eth0", "interface lan");
    ensure!(!text.contains("192.0.2.") && text.contains(check.to_str().unwrap()), "{text}");
    let file = directory.join("keepalived.conf");
    std::fs::write(&file, text)?;
    let log = std::fs::File::create(rig.file("keepalived.log"))?;
    let child = lan
        .command(at, "keepalived")
        .args(["--dont-fork", "--log-console", "--log-detail", "--vrrp", "--use-file"])
        .arg(&file)
        .arg("--pid")
        .arg(directory.join("pid"))
        .arg("--vrrp_pid")
        .arg(directory.join("vrrp-pid"))
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start keepalived (package keepalived; `cargo xtask setup` installs it)")?;
    Ok(Keepalived { child, _directory: place })
}

/// Which of the two has the address.
fn holder(site: &Site) -> Result<Option<usize>> {
    let mut holders = Vec::new();
    for at in [0, 1] {
        let shown =
            site.lan()?.command(at, "ip").args(["-4", "-o", "addr", "show", "dev", "lan"]).output()?;
        if String::from_utf8(shown.stdout)?.contains(&format!("{ADDRESS}/")) {
            holders.push(at);
        }
    }
    Ok(if let [one] = holders[..] { Some(one) } else { None })
}

/// What was answered.
#[derive(Clone)]
struct Sealed {
    key: String,
    document: String,
    answer: Value,
    at: Instant,
}

/// How a scanner reaches the branch.
#[derive(Clone)]
struct Way {
    space: String,
    ca: PathBuf,
    token: String,
}

impl Way {
    /// One try; nothing when there was no answer, or not yet a good one.
    fn post(&self, key: &str, document: &str, wait: &str) -> Result<Option<Value>> {
        let mut curl = Command::new("ip");
        curl.args(["netns", "exec", &self.space, "curl", "--silent", "--fail", "--noproxy", "*"]);
        curl.args(["--connect-timeout", "1", "--max-time", "8", "--cacert"]).arg(&self.ca);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.token)]);
        curl.args(["-H", "Content-Type: text/plain", "-H", &format!("Idempotency-Key: {key}")]);
        curl.args(["--data-binary", document]);
        let output =
            curl.arg(format!("https://{ADDRESS}:8443/v1/seals{wait}")).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Ok(None);
        }
        Ok(serde_json::from_slice(&output.stdout).ok())
    }
}

/// Posts, one document after the other, each with its key until it is answered.
struct Scanner {
    stop: Arc<AtomicBool>,
    sealed: Arc<Mutex<Vec<Sealed>>>,
    retries: Arc<AtomicUsize>,
    thread: JoinHandle<Result<()>>,
}

impl Scanner {
    fn start(way: Way) -> Self {
        let (stop, retries) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let sealed = Arc::<Mutex<Vec<Sealed>>>::default();
        let (stopped, kept, tries) = (stop.clone(), sealed.clone(), retries.clone());
        let thread = std::thread::spawn(move || {
            for number in 0.. {
                let (key, document) = (format!("scan-{number}"), format!("scanned document {number}"));
                let answer = loop {
                    if stopped.load(Relaxed) {
                        return Ok(());
                    }
                    match way.post(&key, &document, "?wait=mirrored(1)&deadlineSeconds=2")? {
                        Some(answer) => break answer,
                        None => drop(tries.fetch_add(1, Relaxed)),
                    }
                    std::thread::sleep(Duration::from_millis(100));
                };
                kept.lock().unwrap().push(Sealed { key, document, answer, at: Instant::now() });
            }
            Ok(())
        });
        Scanner { stop, sealed, retries, thread }
    }

    fn by(&self, origin: &str) -> Vec<Sealed> {
        let sealed = self.sealed.lock().unwrap();
        sealed.iter().filter(|one| one.answer["origin"] == origin).cloned().collect()
    }

    fn finish(self) -> Result<Vec<Sealed>> {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(std::mem::take(&mut *self.sealed.lock().unwrap()))
    }
}

/// Longest pause between two answers.
fn longest_pause(sealed: &[Sealed]) -> Duration {
    sealed.windows(2).map(|two| two[1].at - two[0].at).max().unwrap_or_default()
}

/// As the runbook says: names, listener, clients; and where the machines of this test differ, the usual port.
fn prepare(site: &mut Site) -> Result<Way> {
    for at in [0, 1] {
        let rig = &site.boxes[at];
        let (file, port) = (rig.file("box.toml"), rig.sealer.port());
        let text = std::fs::read_to_string(&file)?
            .replace("\"localhost\"", &format!("\"localhost\", \"{ADDRESS}\""))
            .replace(&format!("listen = \"127.0.0.1:{port}\""), &format!("listen = \"0.0.0.0:{port}\""));
        ensure!(text.contains(&format!("0.0.0.0:{port}")) && text.contains(&ADDRESS.to_string()), "{text}");
        std::fs::write(file, text)?;
        let redirect = format!("tcp dport 8443 redirect to :{port};");
        let chain = format!("chain pre {{ type nat hook prerouting priority -100; {redirect} }}");
        nft(&site.lan()?.space(at), &format!("table ip usual {{\n{chain}\n}}"))?;
    }
    let [first, second, ..] = &mut site.boxes[..] else { anyhow::bail!("two boxes and a scanner") };
    second.take_clients_of(first)?;
    let ca = site.boxes[0].file("branch-ca.pem");
    std::fs::write(&ca, [site.boxes[0].ca_pem(), site.boxes[1].ca_pem()].concat())?;
    let (space, token) = (site.lan()?.space(SCANNER), site.boxes[0].token(Role::Scanner).to_owned());
    Ok(Way { space, ca, token })
}

/// Everything that `lost` acknowledged as mirrored is in the other one's copy, and sealing it again says where it was.
fn check(site: &Site, way: &Way, lost: usize, sealed: &[Sealed]) -> Result<()> {
    let held: Vec<String> =
        site.copy(1 - lost, lost)?.iter().map(|entry| leaf_hash(entry).to_string()).collect();
    let mirrored: Vec<&Sealed> = sealed.iter().filter(|one| one.answer["waited"] == "mirrored").collect();
    ensure!(mirrored.len() >= 5, "{} of {} answers say mirrored", mirrored.len(), sealed.len());
    for one in &mirrored {
        let leaf = one.answer["leafHash"].as_str().context("a leaf hash")?;
        ensure!(held.iter().any(|held| held == leaf), "{} is acknowledged and lost", one.key);
    }
    for one in mirrored.iter().rev().take(3) {
        let again = way.post(&one.key, &one.document, "")?.context("the standby answers")?;
        assert_eq!(again["origin"], site.origin(1 - lost), "{again}");
        let elsewhere = again["elsewhere"].as_array().context("it says where it was sealed")?;
        let named = elsewhere
            .iter()
            .any(|other| other["origin"] == site.origin(lost) && other["leafHash"] == one.answer["leafHash"]);
        assert!(named, "{again}");
    }
    Ok(())
}

#[test]
fn g1_a_standby_takes_the_address_over_and_nothing_acknowledged_is_lost() -> Result<()> {
    let mut site = Site::create_on_lan(&[Keys::Software; 3], &[])?;
    let way = prepare(&mut site)?;
    site.introduce(0, 1)?;
    site.introduce(1, 0)?;
    [0, 1].into_iter().try_for_each(|at| site.boxes[at].sealer.start())?;
    let _daemons = [keepalived(&site, 0, 1)?, keepalived(&site, 1, 0)?];
    until("one of them has the address", || Ok(holder(&site)?.is_some()))?;
    let first = holder(&site)?.context("somebody has the address")?;
    let second = 1 - first;

    // The process dies; the machine and its cable live.
    let scanner = Scanner::start(way.clone());
    until("the first one seals", || Ok(scanner.by(site.origin(first)).len() >= 8))?;
    site.boxes[first].sealer.kill()?;
    let died = Instant::now();
    until("the second one seals", || Ok(scanner.by(site.origin(second)).len() >= 8))?;
    let taken = scanner.by(site.origin(second))[0].at - died;
    assert_eq!(holder(&site)?, Some(second));
    check(&site, &way, first, &scanner.by(site.origin(first)))?;

    // The first comes back and stands by.
    site.boxes[first].sealer.start()?;
    until("they hold each other's logs again", || {
        let held = site.neighbour(second, first)?["mirrored"].as_u64();
        Ok(held == Some(site.boxes[second].log_size()?)
            && site.neighbour(first, second)?["connected"] == true)
    })?;
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(holder(&site)?, Some(second), "who comes back stands by");

    // The cable of the active one is cut.
    let before = scanner.by(site.origin(first)).len();
    site.lan()?.plug(second, false)?;
    let cut = Instant::now();
    until("the first one seals again", || Ok(scanner.by(site.origin(first)).len() >= before + 5))?;
    let back = scanner.by(site.origin(first))[before].at - cut;
    let of_second = scanner.by(site.origin(second));
    let retries = scanner.retries.load(Relaxed);
    let all = scanner.finish()?;
    check(&site, &way, second, &of_second)?;
    println!(
        "killed: sealing again after {taken:.1?}; cable cut: after {back:.1?}; {} documents, {retries} tries without answer, \
         longest pause {:.1?}",
        all.len(),
        longest_pause(&all)
    );
    ensure!(longest_pause(&all) < Duration::from_secs(60));

    // The copy makes a .seal of what the other box sealed, good by that box's trust file.
    let one =
        of_second.iter().rev().find(|one| one.answer["waited"] == "mirrored").context("a mirrored seal")?;
    let directory = bulla_formats::hash::sha256(&[site.origin(second).as_bytes()]);
    let path = format!("/mirrors/{directory}/seals/{}", one.answer["index"]);
    let file = site.boxes[first].client(Role::Reader).get(&path)?;
    ensure!(file.status == 200, "{}", String::from_utf8_lossy(&file.body));
    let judged = site.boxes[second].judge(&file.seal()?, one.document.as_bytes());
    assert_eq!(judged.report.verdict, bulla_formats::report::Verdict::Valid, "{}", judged.report);
    let known =
        site.boxes[first].client(Role::Reader).post("/v1/verify", &[], one.document.as_bytes())?.json()?;
    assert!(known["elsewhere"].as_array().is_some_and(|all| !all.is_empty()), "{known}");
    for bad in ["0", "99999999", "x"] {
        let none =
            site.boxes[first].client(Role::Reader).get(&format!("/mirrors/{directory}/seals/{bad}"))?;
        assert_eq!((none.status, none.problem()?.as_str()), (404, "unknown-seal"), "{bad}");
    }
    Ok(())
}

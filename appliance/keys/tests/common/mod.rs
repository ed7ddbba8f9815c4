//! A real swtpm for tests: own directory, own ports, EK certificates from a CA of its own.
//!
//! Fails loudly when swtpm is not installed. The process dies with the fixture.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The TSS library's sockets are not close-on-exec. A swtpm that inherited another test's connection would hold it open,
/// and as a swtpm serves one connection at a time, that other test would wait for ever.
const EXEC_WITHOUT_INHERITED_FILES: &str =
    r#"for fd in /proc/self/fd/*; do fd=${fd##*/}; ((fd > 2)) && eval "exec $fd>&-"; done; exec swtpm "$@""#;

/// A swtpm process and its state directory.
pub struct Swtpm {
    dir: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Swtpm {
    /// Provisions a TPM with endorsement certificates in `dir`, unless one is there, and starts it.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, true)
    }

    /// The same, with or without endorsement certificates.
    pub fn start_with(dir: &Path, certificates: bool) -> Self {
        if !dir.join("state").exists() {
            provision(dir, certificates);
        }
        let mut last = None;
        // Another test may take the ports between looking for them and using them.
        for _ in 0..10 {
            let mut swtpm = Self { dir: dir.to_owned(), port: free_ports(), child: None };
            match swtpm.spawn() {
                Ok(()) => return swtpm,
                Err(error) => last = Some(error),
            }
        }
        panic!("swtpm does not start: {last:?}");
    }

    /// The address for `Provider::Tpm`.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// The data port; the control port is the next one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// SIGTERM.
    pub fn stop(&mut self) {
        self.signal("-TERM");
        self.child.take().unwrap().wait().unwrap();
    }

    /// SIGSTOP: it takes connections and answers nothing.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("swtpm runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// Runs a tool of tpm2-tools against this TPM.
    pub fn tool(&self, tool: &str, arguments: &[&str]) {
        let output = Command::new(tool)
            .args(arguments)
            .env("TPM2TOOLS_TCTI", self.tcti())
            .output()
            .unwrap_or_else(|error| panic!("{tool} (package tpm2-tools): {error}"));
        assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// SIGKILL, as in a power cut.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("swtpm runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts it again on the same state and ports.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "stop or kill it first");
        self.spawn().unwrap();
    }

    /// Starts another TPM at this one's address.
    pub fn replace(&mut self, dir: &Path) {
        self.kill();
        if !dir.join("state").exists() {
            provision(dir, true);
        }
        let own = std::mem::replace(&mut self.dir, dir.to_owned());
        self.restart();
        self.dir = own;
    }

    fn spawn(&mut self) -> Result<(), String> {
        let (port, control) = (self.port, self.port + 1);
        let pid = self.dir.join("pid");
        match fs::remove_file(&pid) {
            Err(error) if error.kind() != ErrorKind::NotFound => panic!("{error}"),
            _ => {}
        }
        let mut child = Command::new("bash")
            .args(["-c", EXEC_WITHOUT_INHERITED_FILES, "swtpm"])
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.dir.join("state").display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port},bindaddr=127.0.0.1"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={control},bindaddr=127.0.0.1"))
            .arg("--pid")
            .arg(format!("file={}", pid.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash and swtpm are installed (packages bash, swtpm)");
        let patience = Instant::now() + Duration::from_secs(30);
        while Instant::now() < patience {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(format!("swtpm ended with {status}"));
            }
            // Written once both ports are open; that somebody answers there would not say who.
            if fs::read_to_string(&pid).is_ok_and(|text| text.trim() == child.id().to_string()) {
                self.child = Some(child);
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        Err("no answer".into())
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Two neighbouring ports nobody listens on, the first one even so that pairs never overlap.
///
/// They lie below the range from which the kernel takes ports for outgoing connections: a restart needs them again.
pub fn free_ports() -> u16 {
    loop {
        // A new RandomState is seeded differently each time; no other source of random numbers is needed here.
        let random = RandomState::new().build_hasher().finish();
        let port = 10_000 + 2 * (random % 11_000) as u16;
        let bind = |port: u16| TcpListener::bind(("127.0.0.1", port));
        if bind(port).is_ok() && bind(port + 1).is_ok() {
            return port;
        }
    }
}

fn provision(dir: &Path, certificates: bool) {
    let (state, ca) = (dir.join("state"), dir.join("ca"));
    fs::create_dir_all(&state).unwrap();
    fs::create_dir_all(&ca).unwrap();
    let show = |path: &Path| path.display().to_string();
    let options = ca.join("localca.options");
    fs::write(&options, "--platform-manufacturer Test\n--platform-version 1\n--platform-model Test\n")
        .unwrap();
    let localca = ca.join("localca.conf");
    fs::write(
        &localca,
        format!(
            "statedir = {0}\nsigningkey = {0}/signkey.pem\nissuercert = {0}/issuercert.pem\ncertserial = {0}/certserial\n",
            show(&ca)
        ),
    )
    .unwrap();
    let setup = ca.join("setup.conf");
    fs::write(
        &setup,
        format!(
            "create_certs_tool = swtpm_localca\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
            show(&localca),
            show(&options)
        ),
    )
    .unwrap();
    let output = Command::new("swtpm_setup")
        .args(["--tpm2", "--lock-nvram", "--pcr-banks", "sha256", "--not-overwrite"])
        .args(certificates.then_some("--create-ek-cert"))
        .args(["--tpm-state", &format!("dir://{}", show(&state))])
        .args(["--config", &show(&setup)])
        .output()
        .expect("swtpm_setup is installed (package swtpm-tools)");
    assert!(
        output.status.success(),
        "swtpm_setup: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

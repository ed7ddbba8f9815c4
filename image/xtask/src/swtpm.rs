//! A software TPM 2.0 of its own for one box: manufactured with endorsement certificates from a CA made on the spot,
//! listening on two free neighbouring ports of the loopback.
//!
//! - Everything it owns (CA, TPM state, log) is in the directory it is given.
//! - [`Swtpm::start`] returns only once the TPM has answered a command.
//! - The ports stay the same across a crash and a restart, as a chip's address would.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child::Child;

/// Starting swtpm takes some 10 ms; this bounds a machine under heavy load.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// TPM2_GetRandom for two bytes (TPM 2.0 part 3, 16.1): tag NO_SESSIONS, length 12, command code 0x17B, count 2.
const GET_RANDOM: [u8; 12] = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7B, 0, 2];

/// One software TPM, running or crashed.
pub struct Swtpm {
    directory: PathBuf,
    port: u16,
    running: Option<Child>,
}

impl Swtpm {
    /// Makes a TPM with its endorsement certificates in `directory` (created), and starts it.
    pub fn manufacture(directory: &Path) -> Result<Self> {
        Self::make(directory)?;
        let mut tpm = Self { directory: directory.to_path_buf(), port: free_port_pair()?, running: None };
        tpm.start()?;
        Ok(tpm)
    }

    /// Makes a TPM with its endorsement certificates in `directory` (created), and leaves it without power.
    pub fn make(directory: &Path) -> Result<()> {
        let ca = directory.join("ca");
        fs::create_dir_all(&ca)?;
        fs::create_dir_all(directory.join("state"))?;
        let in_ca = |name: &str| ca.join(name).display().to_string();
        fs::write(
            ca.join("setup.conf"),
            format!(
                "create_certs_tool = {}\ncreate_certs_tool_config = {}\ncreate_certs_tool_options = {}\n",
                program("swtpm_localca")?.display(),
                in_ca("localca.conf"),
                in_ca("localca.options")
            ),
        )?;
        fs::write(
            ca.join("localca.conf"),
            format!(
                "statedir = {}\nsigningkey = {}\nissuercert = {}\ncertserial = {}\n",
                ca.display(),
                in_ca("signkey.pem"),
                in_ca("issuercert.pem"),
                in_ca("certserial")
            ),
        )?;
        fs::write(
            ca.join("localca.options"),
            "--platform-manufacturer Bulla\n--platform-version 1.0\n--platform-model demo\n",
        )?;
        let output = Command::new("swtpm_setup")
            .args(["--tpm2", "--create-ek-cert", "--lock-nvram", "--pcr-banks", "sha256", "--not-overwrite"])
            .arg("--tpm-state")
            .arg(format!("dir://{}", directory.join("state").display()))
            .arg("--config")
            .arg(ca.join("setup.conf"))
            .output()
            .context("cannot start swtpm_setup (package swtpm-tools)")?;
        ensure!(
            output.status.success(),
            "swtpm_setup could not make a TPM:\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Gives the TPM in `directory` to one run of a virtual machine: it waits at `socket`, and ends with the machine.
    pub fn serve(directory: &Path, socket: &Path) -> Result<Child> {
        let arguments = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            "--tpmstate".to_owned(),
            format!("dir={}", directory.join("state").display()),
            "--ctrl".to_owned(),
            format!("type=unixio,path={}", socket.display()),
            "--terminate".to_owned(),
        ];
        let mut child =
            Child::spawn("swtpm", &program("swtpm")?, &arguments, directory, &directory.join("swtpm.log"))?;
        child.wait_until(READY_WITHIN, "made its socket", || socket.exists())?;
        Ok(child)
    }

    /// Starts it (again), as power-on would: a TPM2_Startup(CLEAR) with the persistent state it has.
    pub fn start(&mut self) -> Result<()> {
        ensure!(self.running.is_none(), "the TPM is already running");
        let (command, control) = (self.port, self.port + 1);
        let arguments = [
            "socket".to_owned(),
            "--tpm2".to_owned(),
            "--tpmstate".to_owned(),
            format!("dir={}", self.directory.join("state").display()),
            "--server".to_owned(),
            format!("type=tcp,port={command},bindaddr=127.0.0.1"),
            "--ctrl".to_owned(),
            format!("type=tcp,port={control},bindaddr=127.0.0.1"),
            "--flags".to_owned(),
            "not-need-init,startup-clear".to_owned(),
        ];
        let log = self.directory.join("swtpm.log");
        let mut child = Child::spawn("swtpm", &program("swtpm")?, &arguments, &self.directory, &log)?;
        child.wait_until(READY_WITHIN, "answered a command", || answers(command))?;
        self.running = Some(child);
        Ok(())
    }

    /// SIGKILL, with no TPM2_Shutdown: what a chip that falls off the bus looks like to its user.
    pub fn crash(&mut self) -> Result<()> {
        self.running.take().context("the TPM is not running")?.kill()
    }

    /// The port of its command channel.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How libtss2 is told to reach it.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }
}

/// Whether a TPM on this port carries out a command. swtpm serves one connection at a time, so this asks and hangs up.
fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let ask = || -> std::io::Result<[u8; 10]> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&GET_RANDOM)?;
        let mut header = [0; 10];
        stream.read_exact(&mut header)?;
        Ok(header)
    };
    // Response header: tag, length, then the response code, zero for success.
    ask().is_ok_and(|header| header[6..10] == [0; 4])
}

/// Two neighbouring free ports (libtss2 expects the control channel one above the commands). They are taken from
/// below the range that the kernel hands out to outgoing connections, so that none of those can take them meanwhile.
fn free_port_pair() -> Result<u16> {
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Processes and threads that run side by side start their search at different places.
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let nth = TAKEN.fetch_add(1, Ordering::Relaxed);
    let offset = ((std::process::id() % 5000) as u16 + nth * 17) % 5000 * 2;
    (0..5000u16)
        .map(|step| 20_000 + (offset + step * 2) % 10_000)
        .find(|&port| is_free(port) && is_free(port + 1))
        .context("no two neighbouring free ports between 20000 and 30000 on 127.0.0.1")
}

/// The full path of a program on PATH.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    match std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file()) {
        Some(file) => Ok(file),
        None => bail!("{name} is not on PATH; `cargo xtask setup` installs it (packages swtpm, swtpm-tools)"),
    }
}

//! A real PostgreSQL of the test's own: a cluster in a directory that goes with it, by a socket and, if asked, by TLS.
//!
//! Refuses to do: skip; where the server is missing, it says how it is installed. Root hands it to an unprivileged user,
//! because PostgreSQL refuses to run as root.

use super::free_ports;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const NOBODY: u32 = 65_534;
pub const PASSWORD: &str = "a-password-that-is-never-said";

/// A cluster.
pub struct Cluster {
    home: TempDir,
    programs: PathBuf,
    server: Option<Child>,
    port: u16,
}

impl Cluster {
    /// A running cluster with a database `hub` and a user `hub` who may make schemas there and needs a password.
    pub fn start() -> Self {
        let home = tempfile::Builder::new().prefix("bulla-pg-").tempdir().unwrap();
        let versions = std::fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL is missing; `cargo xtask setup` installs it");
        let mut versions: Vec<PathBuf> = versions
            .map(|entry| entry.unwrap().path().join("bin"))
            .filter(|programs| programs.join("initdb").is_file())
            .collect();
        versions.sort();
        let programs = versions.pop().expect("PostgreSQL is missing; `cargo xtask setup` installs it");
        std::fs::create_dir(home.path().join("data")).unwrap();
        if rustix::process::geteuid().is_root() {
            for directory in [home.path().to_owned(), home.path().join("data")] {
                chown(directory, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let [port] = free_ports();
        let mut cluster = Cluster { home, programs, server: None, port };
        let made = cluster
            .program("initdb")
            .args([
                "-D",
                "data",
                "-U",
                "admin",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "-E",
                "UTF8",
            ])
            .args(["--no-sync", "--locale=C"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Who comes as hub by the socket is asked for a password, too.
        let rules = cluster.home.path().join("data/pg_hba.conf");
        let text = std::fs::read_to_string(&rules).unwrap();
        std::fs::write(&rules, format!("local all hub scram-sha-256\n{text}")).unwrap();
        cluster.up();
        cluster.sql("postgres", &format!("CREATE USER hub PASSWORD '{PASSWORD}'"));
        cluster.sql("postgres", "CREATE DATABASE hub OWNER hub");
        cluster
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = Command::new("setpriv");
        if rustix::process::geteuid().is_root() {
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
        } else {
            command = Command::new(program);
        }
        command.current_dir(self.home.path());
        command
    }

    /// Starts the server and waits until it answers.
    pub fn up(&mut self) {
        let home = self.home.path();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(home.join("log")).unwrap();
        let tls = home.join("data/server.crt").exists();
        let mut command = self.program("postgres");
        command.args(["-D", "data", "-c", "fsync=off", "-c"]).arg(format!("port={}", self.port));
        command
            .args(["-c", "listen_addresses=127.0.0.1", "-c"])
            .arg(format!("ssl={}", if tls { "on" } else { "off" }));
        command.arg("-c").arg(format!("unix_socket_directories={}", home.display()));
        command.stdout(Stdio::null()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        let end = Instant::now() + Duration::from_secs(60);
        while !self.psql("postgres", "SELECT 1").status.success() {
            assert!(
                Instant::now() < end,
                "{}",
                std::fs::read_to_string(self.home.path().join("log")).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
            // What a killed server has left behind may still be ending.
            if self.server.as_mut().unwrap().try_wait().unwrap().is_some() {
                self.server = Some(command.spawn().unwrap());
            }
        }
    }

    /// Somebody else who keeps the pulls into this schema to himself for so many seconds, from now on.
    pub fn claim(&self, schema: &str, seconds: u32) -> Child {
        let lock = format!("SELECT pg_advisory_lock(hashtextextended('{schema}', 2))");
        let holder = Command::new(self.programs.join("psql"))
            .args(["-U", "admin", "-X", "-q", "-p", &self.port.to_string(), "-d", "hub", "-c", &lock])
            .args(["-c", &format!("SELECT pg_sleep({seconds})"), "-h"])
            .arg(self.home.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while self.sql("hub", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0" {
            assert!(Instant::now() < end, "the claim is not taken");
            std::thread::sleep(Duration::from_millis(50));
        }
        holder
    }

    /// Kill -9 of the server and all its processes that still do something.
    pub fn down(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// From the next start on the server has this certificate and key (PEM).
    pub fn certify(&mut self, certificate: &str, key: &str) {
        self.down();
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = self.home.path().join("data").join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            if rustix::process::geteuid().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        self.up();
    }

    fn psql(&self, database: &str, statement: &str) -> Output {
        Command::new(self.programs.join("psql"))
            .args([
                "-U",
                "admin",
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-p",
                &self.port.to_string(),
            ])
            .args(["-d", database, "-c", statement, "-h"])
            .arg(self.home.path())
            .output()
            .unwrap()
    }

    /// What the administrator is answered.
    pub fn sql(&self, database: &str, statement: &str) -> String {
        let output = self.psql(database, statement);
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The section of a hub's configuration, by the socket or by this address.
    pub fn section(&self, host: Option<&str>, schema: &str, more: &str) -> String {
        let file = self.home.path().join("password");
        std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
        let socket = self.home.path().to_str().unwrap();
        format!(
            "[postgres]\nhost = {:?}\nport = {}\ndatabase = \"hub\"\nuser = \"hub\"\npassword_file = {file:?}\n\
             schema = {schema:?}\n{more}",
            host.unwrap_or(socket),
            self.port
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = &mut self.server {
            // An orderly end, so that none of its processes is left.
            let id = rustix::process::Pid::from_child(server);
            let _ = rustix::process::kill_process(id, rustix::process::Signal::QUIT);
            let _ = server.wait();
        }
    }
}

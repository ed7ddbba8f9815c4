//! What people do today, on the same documents in the same run: a hash-chained audit table in PostgreSQL, replies of
//! `openssl ts`, PDF signatures of pyHanko.
//!
//! Each is set up as its users would, and in its favour where there is a choice: the chain is one prepared call of one
//! function, the time-stamp key and the signing key are P-256, pyHanko signs all documents in one process.
//! Refuses to do: keep anything; PostgreSQL runs in a cluster of its own that ends with the run.

use crate::load::Measured;
use anyhow::{Context, Result, ensure};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The chain: its head is one row, locked from the reading of the last hash to the commit.
const SCHEMA: &str = "
CREATE TABLE head (one int PRIMARY KEY, number bigint NOT NULL, hash bytea NOT NULL) WITH (fillfactor = 10);
INSERT INTO head VALUES (1, 0, sha256(''));
CREATE TABLE audit (number bigint PRIMARY KEY, at timestamptz NOT NULL, digest bytea NOT NULL,
    media_type text NOT NULL, client text NOT NULL, hash bytea NOT NULL);
CREATE TABLE plain (number bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), digest bytea NOT NULL,
    media_type text NOT NULL, client text NOT NULL);
CREATE FUNCTION seal(the_digest bytea, the_type text, the_client text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE last head; t timestamptz := clock_timestamp();
BEGIN
    SELECT * INTO last FROM head WHERE one = 1 FOR UPDATE;
    last.number := last.number + 1;
    last.hash := sha256(last.hash || int8send(last.number) || timestamptz_send(t) || the_digest
        || convert_to(the_type, 'UTF8') || convert_to(the_client, 'UTF8'));
    INSERT INTO audit VALUES (last.number, t, the_digest, the_type, the_client, last.hash);
    UPDATE head SET number = last.number, hash = last.hash WHERE one = 1;
    RETURN last.number;
END $$;
";

/// Signs every PDF of a directory invisibly; prints the microseconds of each.
const PYHANKO: &str = r#"
import io, pathlib, sys, time
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
signer = signers.SimpleSigner.load("key.pem", "cert.pem")
meta = signers.PdfSignatureMetadata(field_name="Signature1")
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.pdf")):
    data = path.read_bytes()
    began = time.perf_counter()
    signers.sign_pdf(IncrementalPdfFileWriter(io.BytesIO(data)), meta, signer=signer)
    print(int((time.perf_counter() - began) * 1e6))
"#;

/// A PostgreSQL cluster that ends when this is dropped.
pub struct Postgres {
    home: TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// Makes a cluster on the disk of `place`: `fsync` and `synchronous_commit` on, reached by a socket.
    pub fn start(place: &Path) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("bulla-postgres-").tempdir_in(place)?;
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .context("PostgreSQL is missing: apt-get install postgresql")?
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|programs| programs.join("initdb").is_file())
            .collect();
        versions.sort();
        let programs = versions.pop().context("PostgreSQL is missing: apt-get install postgresql")?;
        let postgres = Self { home, programs };
        let data = postgres.home.path().join("data");
        std::fs::create_dir(&data)?;
        if rustix::process::geteuid().is_root() {
            // PostgreSQL refuses to run as root.
            for dir in [postgres.home.path(), &data] {
                chown(dir, Some(NOBODY), Some(NOBODY))?;
            }
            std::fs::set_permissions(postgres.home.path(), std::fs::Permissions::from_mode(0o755))?;
        }
        let data = data.to_str().context("the directory's name is UTF-8")?;
        run(postgres.server("initdb").args(["-D", data, "-U", "bench", "--auth=trust", "-E", "UTF8"]))?;
        let socket = postgres.home.path().display();
        let options = format!(
            "-c fsync=on -c synchronous_commit=on -c listen_addresses= -c max_connections=100 \
             -c unix_socket_directories={socket}"
        );
        let log = postgres.home.path().join("log");
        let log = log.to_str().context("the directory's name is UTF-8")?;
        run(postgres.server("pg_ctl").args(["-D", data, "-o", &options, "-l", log, "-w", "start"]))?;
        postgres.psql(SCHEMA)?;
        Ok(postgres)
    }

    /// What the server says it is.
    pub fn version(&self) -> Result<String> {
        let output = run(Command::new(self.programs.join("postgres")).arg("--version"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Digests of the documents through the chain, or into the table without one.
    pub fn insert(
        &self,
        digests: &[String],
        chained: bool,
        clients: usize,
        time: Duration,
    ) -> Result<Measured> {
        let work = tempfile::tempdir()?;
        let mut pgbench = Command::new(self.programs.join("pgbench"));
        pgbench.current_dir(work.path()).args(["-n", "-M", "prepared", "-l", "-U", "bench", "-h"]);
        pgbench.arg(self.home.path()).args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()]);
        pgbench.args(["-T", &time.as_secs().max(1).to_string()]);
        // pgbench takes at most 128 scripts.
        for (number, digest) in digests.iter().take(100).enumerate() {
            let call = match chained {
                true => format!("SELECT seal('\\x{digest}', 'application/pdf', 'scanner-1');\n"),
                false => format!(
                    "INSERT INTO plain (digest, media_type, client) \
                     VALUES ('\\x{digest}', 'application/pdf', 'scanner-1') RETURNING number;\n"
                ),
            };
            let script = format!("{number}.sql");
            std::fs::write(work.path().join(&script), call)?;
            pgbench.args(["-f", &script]);
        }
        run(pgbench.arg("postgres"))?;
        let mut micros = Vec::new();
        for file in std::fs::read_dir(work.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "sql") {
                continue;
            }
            for line in std::fs::read_to_string(path)?.lines() {
                let third = line.split(' ').nth(2).and_then(|micros| micros.parse().ok());
                micros.push(third.with_context(|| format!("pgbench logged {line:?}"))?);
            }
        }
        summed(micros, time)
    }

    /// Where its socket lies: nobody else reaches it.
    pub fn socket(&self) -> &Path {
        self.home.path()
    }

    /// Bytes of all its tables and their indexes.
    pub fn bytes(&self) -> Result<u64> {
        self.psql("CHECKPOINT")?;
        let output = self.psql("SELECT pg_database_size('postgres')")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
    }

    fn psql(&self, statements: &str) -> Result<Output> {
        run(Command::new(self.programs.join("psql")).arg("-h").arg(self.home.path()).args([
            "-U",
            "bench",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "postgres",
            "-c",
            statements,
        ]))
    }

    fn server(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = Command::new("setpriv");
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // The server keeps what it inherits: a pipe would never end.
        command.current_dir(self.home.path()).stdout(Stdio::null());
        command
    }
}

const NOBODY: u32 = 65_534;

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.home.path().join("data");
        // What cannot be stopped is left to the operating system; the directory goes all the same.
        let _ = self.server("pg_ctl").arg("-D").arg(data).args(["-m", "immediate", "stop"]).status();
    }
}

/// Keys, requests and documents in a directory of their own.
pub struct Signers {
    home: TempDir,
    documents: usize,
}

impl Signers {
    /// Writes the documents, and makes a time-stamp key and a signing key, each with its certificate.
    pub fn set_up(documents: &[Vec<u8>]) -> Result<Self> {
        let signers = Self { home: tempfile::tempdir()?, documents: documents.len() };
        let home = signers.home.path();
        std::fs::create_dir(home.join("documents"))?;
        for (number, document) in documents.iter().enumerate() {
            std::fs::write(home.join(format!("documents/{number:03}.pdf")), document)?;
        }
        std::fs::write(home.join("sign.py"), PYHANKO)?;
        std::fs::write(home.join("serial"), "01\n")?;
        std::fs::write(
            home.join("tsa.cnf"),
            "[tsa]\ndefault_tsa = it\n[it]\nserial = serial\nsigner_cert = tsa.pem\nsigner_key = tsa.key\n\
             signer_digest = sha256\ndefault_policy = 1.2.3.4.1\ndigests = sha256\naccuracy = secs:1\n",
        )?;
        for (name, subject, usage) in [
            ("tsa.key tsa.pem", "/CN=Time-stamp authority", "extendedKeyUsage=critical,timeStamping"),
            ("key.pem cert.pem", "/CN=Signer", "keyUsage=critical,digitalSignature,nonRepudiation"),
        ] {
            let (key, certificate) = name.split_once(' ').context("two names")?;
            signers.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "2",
                "-subj",
                subject,
                "-addext",
                usage,
                "-keyout",
                key,
                "-out",
                certificate,
            ])?;
        }
        for number in 0..documents.len() {
            let (document, query) = (format!("documents/{number:03}.pdf"), format!("{number:03}.tsq"));
            signers.openssl(&["ts", "-query", "-data", &document, "-sha256", "-cert", "-out", &query])?;
        }
        Ok(signers)
    }

    /// One process a reply, as people run it, and what a process costs that does nothing.
    pub fn openssl_ts(&self) -> Result<(Measured, Duration)> {
        let began = Instant::now();
        let mut micros = Vec::new();
        for number in 0..self.documents {
            let asked = Instant::now();
            let (query, reply) = (format!("{number:03}.tsq"), format!("{number:03}.tsr"));
            self.openssl(&["ts", "-reply", "-config", "tsa.cnf", "-queryfile", &query, "-out", &reply])?;
            micros.push(asked.elapsed().as_micros() as u64);
        }
        let elapsed = began.elapsed();
        let began = Instant::now();
        for _ in 0..20 {
            self.openssl(&["version"])?;
        }
        Ok((summed(micros, elapsed)?, began.elapsed() / 20))
    }

    /// All documents in one process, whose start is not counted.
    pub fn pyhanko(&self, python: &Path) -> Result<Measured> {
        let output = run(Command::new(python).current_dir(self.home.path()).args(["sign.py", "documents"]))?;
        let text = String::from_utf8(output.stdout)?;
        let micros: Vec<u64> = text.lines().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(micros.len() == self.documents, "pyHanko signed {} documents", micros.len());
        let elapsed = Duration::from_micros(micros.iter().sum());
        summed(micros, elapsed)
    }

    fn openssl(&self, arguments: &[&str]) -> Result<Output> {
        run(Command::new("openssl").current_dir(self.home.path()).args(arguments))
    }
}

fn summed(mut micros: Vec<u64>, time: Duration) -> Result<Measured> {
    ensure!(!micros.is_empty(), "nothing was done in {time:?}");
    micros.sort_unstable();
    let at = |percent: usize| micros[(micros.len() - 1) * percent / 100];
    Ok(Measured { per_second: micros.len() as f64 / time.as_secs_f64(), p50: at(50), p99: at(99) })
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

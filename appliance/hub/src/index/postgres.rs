//! The index in a schema of a PostgreSQL database: connections, transactions, versions. The tables: `postgres/0001.sql`.
//!
//! Refuses to do: go without TLS over a network; use a schema that a later version has made; write while another program
//! has the pulls.
//! Invariants: every change is one transaction, and all of them come one after another; one whose outcome was lost with the
//! connection is done again, which adds nothing when it had been done. No operation outlasts the configured patience by more
//! than one attempt.

mod catalogue;
mod rows;

use super::{Index, IndexError, PATIENCE};
use crate::config::PostgresConfig;
use postgres::config::SslMode;
use postgres::{Client, Config, NoTls, Transaction};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio_postgres_rustls::MakeRustlsConnect;
use zeroize::Zeroizing;

/// The versions of the tables, oldest first; one that has been released is never changed.
const MIGRATIONS: [&str; 2] = [include_str!("postgres/0001.sql"), include_str!("postgres/0002.sql")];
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pauses between attempts: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// Name of the row that says who has the pulls.
const OWNER: &str = "owner";

/// Why PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The server failed, or cannot be reached.
    #[error(
        "the index in PostgreSQL cannot be read or written ({0}); check the server and section [postgres]"
    )]
    Server(String),
    /// A file that the configuration names cannot be used.
    #[error("postgres: {path} cannot be used ({reason}); the configuration names it")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no index.
    #[error("the schema {0} holds no index; `bulla-hub init` makes it")]
    Missing(String),
    /// A later version has made it.
    #[error(
        "the index in the schema {schema} is of version {found}, and this bulla-hub knows {known} at most; use the later bulla-hub"
    )]
    Newer {
        /// The schema.
        schema: String,
        /// Its version.
        found: i32,
        /// The newest known version.
        known: usize,
    },
    /// Another program pulls.
    #[error(
        "another bulla-hub has taken the index in the schema {0} over; let one hub at a time pull into it"
    )]
    Taken(String),
}

/// Why an attempt failed.
enum Trouble {
    Sql(postgres::Error),
    Index(IndexError),
}

impl From<postgres::Error> for Trouble {
    fn from(error: postgres::Error) -> Self {
        Trouble::Sql(error)
    }
}

impl From<IndexError> for Trouble {
    fn from(error: IndexError) -> Self {
        Trouble::Index(error)
    }
}

/// What the server says, on one line.
fn said(error: &postgres::Error) -> String {
    let text = match error.as_db_error() {
        Some(db) => format!("{}: {}", db.code().code(), db.message()),
        None => {
            let inner = std::error::Error::source(error).map(|source| format!(": {source}"));
            format!("{error}{}", inner.unwrap_or_default())
        }
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether trying again can help: the server is gone, starts, stops, or had to choose between two transactions.
fn may_pass(error: &postgres::Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => {
            let code = code.code();
            code.starts_with("08") || code.starts_with("57P") || ["40001", "40P01", "53300"].contains(&code)
        }
    }
}

/// The connection that holds a program's claim to the pulls, and the word by which its transactions show it.
struct Claim {
    _held: Client,
    word: Vec<u8>,
}

/// The index.
pub struct Postgres {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    schema: String,
    /// Schema of the index in force, by whose name the claim goes.
    home: String,
    patience: Duration,
    idle: Mutex<Vec<Client>>,
    claim: Mutex<Option<Claim>>,
}

fn read(path: &std::path::Path) -> Result<Zeroizing<Vec<u8>>, PostgresError> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| PostgresError::File { path: path.to_owned(), reason: error.to_string() })
}

fn tls(ca: &std::path::Path) -> Result<MakeRustlsConnect, PostgresError> {
    let unusable = |reason: String| PostgresError::File { path: ca.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(ca)?) {
        let certificate = certificate.map_err(|error| unusable(format!("{error:?}")))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no CA certificate".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

impl Postgres {
    fn of(settings: &PostgresConfig, schema: &str) -> Result<Self, IndexError> {
        let mut config = Config::new();
        config
            .host(&settings.host)
            .port(settings.port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("bulla-hub")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(Duration::from_secs(30))
            .options(&format!("-c search_path={schema}"));
        if let Some(path) = &settings.password_file {
            let bytes = read(path)?;
            config.password(bytes.trim_ascii_end());
        }
        let tls = settings.ca.as_deref().map(tls).transpose()?;
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        let patience = Duration::from_secs(settings.patience_seconds);
        let (schema, home) = (schema.to_owned(), settings.schema.clone());
        Ok(Postgres { config, tls, schema, home, patience, idle: Mutex::default(), claim: Mutex::default() })
    }

    /// Reads the files that the settings name.
    pub fn check(settings: &PostgresConfig) -> Result<(), IndexError> {
        Self::of(settings, &settings.schema).map(drop)
    }

    /// Makes an empty index; the schema may be there already, without one.
    pub fn create(settings: &PostgresConfig) -> Result<Self, IndexError> {
        let index = Self::of(settings, &settings.schema)?;
        index.migrate(true)?;
        Ok(index)
    }

    /// Opens the one that is there, and brings its tables up to this version.
    pub fn open(settings: &PostgresConfig) -> Result<Self, IndexError> {
        let index = Self::of(settings, &settings.schema)?;
        index.migrate(false)?;
        Ok(index)
    }

    /// Makes an empty index in a schema beside that of the index in force, which nobody may change meanwhile.
    pub fn begin_again(settings: &PostgresConfig) -> Result<Self, IndexError> {
        let index = Self::of(settings, &format!("{}_next", settings.schema))?;
        let drop = format!("DROP SCHEMA IF EXISTS {} CASCADE", index.schema);
        index.attempt(|client| Ok(client.batch_execute(&drop)?))?;
        index.migrate(true)?;
        Ok(index)
    }

    /// Puts it in the place of the old one.
    pub fn take_over(settings: &PostgresConfig, new: Box<dyn Index>) -> Result<(), IndexError> {
        drop(new);
        let (schema, index) = (&settings.schema, Self::of(settings, &settings.schema)?);
        let swap =
            format!("DROP SCHEMA IF EXISTS {schema} CASCADE; ALTER SCHEMA {schema}_next RENAME TO {schema}");
        let is_next = "SELECT to_regnamespace($1) IS NOT NULL";
        index.change(|change| {
            // An attempt whose outcome was lost has done it already.
            let next: bool = change.query_one(is_next, &[&format!("{schema}_next")])?.get(0);
            if next {
                change.batch_execute(&swap)?;
            }
            Ok(())
        })
    }

    fn connect(&self) -> Result<Client, postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()),
            None => self.config.connect(NoTls),
        }
    }

    /// Does this on a connection, again and again while the server may still come back.
    fn attempt<T>(&self, mut work: impl FnMut(&mut Client) -> Result<T, Trouble>) -> Result<T, IndexError> {
        let (end, mut pause) = (Instant::now() + self.patience, PAUSES.0);
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let open = idle.filter(|client| !client.is_closed()).map_or_else(|| self.connect(), Ok);
            let done = open.map_err(Trouble::Sql).and_then(|mut client| {
                let done = work(&mut client)?;
                self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
                Ok(done)
            });
            match done {
                Ok(done) => return Ok(done),
                Err(Trouble::Index(error)) => return Err(error),
                Err(Trouble::Sql(error)) if may_pass(&error) && Instant::now() + pause < end => {
                    // Whatever else is idle was cut off as well.
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PAUSES.1);
                }
                Err(Trouble::Sql(error)) => return Err(PostgresError::Server(said(&error)).into()),
            }
        }
    }

    /// Does this in a transaction that no other change is beside, and only as long as nobody else has taken the pulls.
    fn change<T>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<T, Trouble>,
    ) -> Result<T, IndexError> {
        let claim =
            self.claim.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|it| it.word.clone());
        self.attempt(|client| {
            let mut change = client.transaction()?;
            change.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 1))", &[&self.schema])?;
            if let Some(word) = &claim {
                let row = change.query_opt("SELECT value FROM about WHERE name = $1", &[&OWNER])?;
                if row.map(|row| row.get::<_, Vec<u8>>(0)).as_ref() != Some(word) {
                    return Err(IndexError::from(PostgresError::Taken(self.schema.clone())).into());
                }
            }
            let done = work(&mut change)?;
            change.commit()?;
            Ok(done)
        })
    }

    /// Takes the claim to the pulls, unless another program has it for longer than half a minute.
    fn claim(&self) -> Result<(), IndexError> {
        let mut mine = self.claim.lock().unwrap_or_else(PoisonError::into_inner);
        if mine.is_some() {
            return Ok(());
        }
        let end = Instant::now() + PATIENCE;
        let ask = "SELECT pg_try_advisory_lock(hashtextextended($1, 2))";
        let mut client = loop {
            // A connection of its own: the claim lasts as long as it does.
            let (client, got) = self.attempt(|_| {
                let mut client = self.connect()?;
                let got: bool = client.query_one(ask, &[&self.home])?.get(0);
                Ok((client, got))
            })?;
            if got {
                break client;
            }
            if Instant::now() > end {
                return Err(IndexError::Busy(format!("in the schema {}", self.schema)));
            }
            drop(client);
            std::thread::sleep(PAUSES.0);
        };
        let put = "INSERT INTO about VALUES ($1, uuid_send(gen_random_uuid())) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value RETURNING value";
        let word = client
            .query_one(put, &[&OWNER])
            .map_err(|error| PostgresError::Server(said(&error)))?
            .get::<_, Vec<u8>>(0);
        *mine = Some(Claim { _held: client, word });
        Ok(())
    }

    /// Makes or completes the tables. Two programs that do it at once do it one after the other.
    fn migrate(&self, make: bool) -> Result<(), IndexError> {
        self.change(|change| {
            let schema = &self.schema;
            if make {
                change.batch_execute(&format!("CREATE SCHEMA IF NOT EXISTS {schema}"))?;
                change.batch_execute(
                    "CREATE TABLE IF NOT EXISTS version (version integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
                )?;
            }
            let there: bool = change
                .query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{schema}.version")])?
                .get(0);
            if !there {
                return Err(IndexError::from(PostgresError::Missing(schema.clone())).into());
            }
            let found: i32 =
                change.query_one("SELECT coalesce(max(version), 0) FROM version", &[])?.get(0);
            if make && found > 0 {
                return Err(IndexError::Exists(format!("the schema {schema}")).into());
            }
            if !make && found == 0 {
                return Err(IndexError::from(PostgresError::Missing(schema.clone())).into());
            }
            if found as usize > MIGRATIONS.len() {
                let (schema, known) = (schema.clone(), MIGRATIONS.len());
                return Err(IndexError::from(PostgresError::Newer { schema, found, known }).into());
            }
            for (number, statements) in (1i32..).zip(MIGRATIONS).skip(found as usize) {
                change.batch_execute(statements)?;
                change.execute("INSERT INTO version (version) VALUES ($1)", &[&number])?;
            }
            Ok(())
        })
    }
}

/// A number as the tables have it. What does not fit, and no log of this world reaches, counts as the largest that does.
fn put(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The same, read; tables hold no negative numbers.
fn got(number: i64) -> u64 {
    number.max(0) as u64
}

/// A list of numbers, one of each row.
fn column<R>(rows: &[R], number: impl Fn(&R) -> u64) -> Vec<i64> {
    rows.iter().map(|row| put(number(row))).collect()
}

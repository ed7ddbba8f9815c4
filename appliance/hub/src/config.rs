//! Configuration: one TOML file, read once at start.
//!
//! Refuses to do: guess. Unknown keys, two boxes of one name or log, sources without https and values outside their
//! ranges are errors that say what to write instead. `docs/hub.toml` is the commented sample.
//! Invariant: a [`Config`] has passed every check of [`Config::parse`]; later code does not check again.

use crate::finding::Severity;
use bulla_formats::dial::is_name;
use bulla_formats::hash::sha256;
use bulla_formats::origin::Origin;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration {path} cannot be read ({source}); check --config and the file's permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("the configuration is not understood: line {line}: {reason}")]
    Syntax {
        /// The line; what stands there is not repeated, for it may be a secret in the wrong place.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is out of range, or two values exclude each other.
    #[error("{key}: {reason}")]
    Value {
        /// The key, as `section.name`.
        key: &'static str,
        /// What is accepted.
        reason: String,
    },
}

/// Everything an operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name of this hub in its output. Required.
    pub name: String,
    /// Directory of the index (`hub.redb`). Required. It can be made again from the archive's logs by pulling again.
    pub state_dir: PathBuf,
    /// Trust file of the fleet: what counts as proof. Required.
    pub trust: PathBuf,
    /// Directory of the archive. This or `[s3]` is required. Losing it loses what boxes no longer have.
    pub archive: Option<PathBuf>,
    /// Bucket of the archive, where it is not a directory.
    pub s3: Option<BucketConfig>,
    /// Megabytes of `hub.redb` that are kept in memory. An index that is much larger makes pulls and questions read the disk.
    #[serde(default = "index_cache_megabytes")]
    pub index_cache_megabytes: usize,
    /// Database of the index, where it is not `hub.redb`.
    pub postgres: Option<PostgresConfig>,
    /// How boxes are pulled.
    #[serde(default)]
    pub pull: PullConfig,
    /// When silence becomes a finding.
    #[serde(default)]
    pub watch: WatchConfig,
    /// Who is told of findings.
    pub webhook: Option<WebhookConfig>,
    /// What `bulla-hub serve` serves.
    pub serve: Option<ServeConfig>,
    /// The fleet's roster, which boxes are handed when they are pulled.
    pub roster: Option<PathBuf>,
    /// Leases that boxes are handed when they are pulled.
    pub leases: Option<LeaseTerms>,
    /// The boxes.
    #[serde(default)]
    pub boxes: Vec<BoxConfig>,
}

/// Section `[s3]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// Address of the server: `https://`, or `http://` on this machine. Required.
    pub endpoint: String,
    /// CA certificates (PEM) by which the server must be certified; no others count. Required with `https://`.
    pub ca: Option<PathBuf>,
    /// The bucket, which exists. Required.
    pub bucket: String,
    /// What all names begin with, without slashes at the ends. Default: nothing.
    #[serde(default)]
    pub prefix: String,
    /// Region. Default `us-east-1`, which servers without regions take.
    #[serde(default = "region")]
    pub region: String,
    /// TOML file with `access_key_id`, `secret_access_key` and perhaps `session_token`. Required.
    pub credentials_file: PathBuf,
    /// Whether the bucket must have an object lock with a default retention. Default false.
    #[serde(default)]
    pub object_lock: bool,
    /// Seconds to wait for an answer. Default 30.
    #[serde(default = "thirty")]
    pub timeout_seconds: u64,
    /// Seconds to try again while the server fails. Default 120.
    #[serde(default = "two_minutes")]
    pub patience_seconds: u64,
}

fn index_cache_megabytes() -> usize {
    256
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn thirty() -> u64 {
    30
}

fn two_minutes() -> u64 {
    120
}

/// Addresses of this machine, where nobody listens in.
const LOCAL: [&str; 4] = ["http://127.0.0.1:", "http://127.0.0.1/", "http://[::1]:", "http://[::1]/"];

impl BucketConfig {
    fn check(&self) -> Result<(), String> {
        let https = self.endpoint.starts_with("https://") && self.endpoint.len() > "https://".len();
        if !https && !LOCAL.iter().any(|prefix| self.endpoint.starts_with(prefix)) {
            return Err(format!("{:?} is neither https:// nor http:// at 127.0.0.1 or [::1]", self.endpoint));
        }
        if https != self.ca.is_some() {
            return Err("`ca` comes with https://, and only with it".to_owned());
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.bucket.is_empty() || !self.bucket.bytes().all(plain) {
            return Err(format!("{:?} is no name of a bucket", self.bucket));
        }
        let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
        if !self.prefix.is_empty() && !self.prefix.split('/').all(part) {
            return Err(format!(
                "prefix: {:?} is not of letters, digits and -_. between single slashes",
                self.prefix
            ));
        }
        if self.region.is_empty() || self.timeout_seconds == 0 || self.patience_seconds == 0 {
            return Err("region is not empty, timeout_seconds and patience_seconds are at least 1".to_owned());
        }
        Ok(())
    }
}

/// Section `[postgres]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Name or address of the server; or a directory, whose socket is used. Required.
    pub host: String,
    /// Its port, also in the name of its socket. Default 5432.
    #[serde(default = "postgres_port")]
    pub port: u16,
    /// CA certificates (PEM) by which the server must be certified; no others count. Required with a name or address, but
    /// for 127.0.0.1 and ::1.
    pub ca: Option<PathBuf>,
    /// The database, which exists. Required.
    pub database: String,
    /// Who the hub is there. Required.
    pub user: String,
    /// File that holds the password, where one is asked for.
    pub password_file: Option<PathBuf>,
    /// Schema of the tables. Default `bulla`.
    #[serde(default = "schema")]
    pub schema: String,
    /// Seconds to try again while the server is away. Default 120.
    #[serde(default = "two_minutes")]
    pub patience_seconds: u64,
}

fn postgres_port() -> u16 {
    5432
}

fn schema() -> String {
    "bulla".to_owned()
}

impl PostgresConfig {
    fn check(&self) -> Result<(), String> {
        let (socket, here) = (self.host.starts_with('/'), ["127.0.0.1", "::1"].contains(&self.host.as_str()));
        if self.host.is_empty() || self.host.contains(',') {
            return Err(format!("host: {:?} is no name, address or directory of one server", self.host));
        }
        if socket && self.ca.is_some() {
            return Err("`ca` comes with a name or address: a socket has no TLS".to_owned());
        }
        if !socket && !here && self.ca.is_none() {
            return Err("`ca` is needed: nothing but a socket and 127.0.0.1 goes without TLS".to_owned());
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
        if self.schema.len() > 48
            || !self.schema.as_bytes().first().is_some_and(begins)
            || !self.schema.bytes().all(plain)
            || self.schema.starts_with("pg_")
        {
            let words = "is not 1 to 48 small letters, digits and underscores, a letter first, not pg_";
            return Err(format!("schema: {:?} {words}", self.schema));
        }
        if self.port == 0 || self.database.is_empty() || self.user.is_empty() || self.patience_seconds == 0 {
            return Err("port, database and user are not empty, patience_seconds is at least 1".to_owned());
        }
        Ok(())
    }
}

/// Section `[pull]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PullConfig {
    /// Boxes pulled at the same time. Default 4.
    pub at_once: usize,
    /// Threads that verify entries of one box. Default 0: as many as there are cores.
    pub threads: usize,
    /// Entry bundles (256 entries each) after which a pull makes durable how far it is. Default 64.
    pub step_bundles: u64,
    /// Seconds between two pulls of a box with `pull --watch`. Default 60.
    pub every_seconds: u64,
    /// Seconds to wait for an answer of a box. Default 30.
    pub timeout_seconds: u64,
}

impl Default for PullConfig {
    fn default() -> Self {
        PullConfig { at_once: 4, threads: 0, step_bundles: 64, every_seconds: 60, timeout_seconds: 30 }
    }
}

/// Section `[watch]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WatchConfig {
    /// A log whose newest entry is older is a finding (`stale-head`). Default 86,400.
    pub stale_after_seconds: u64,
    /// An entry that no anchor covers after so long is a finding (`anchor-overdue`). Default 172,800; 0: never.
    pub anchor_after_seconds: u64,
    /// An outage that has no closing manifest after so long is a finding (`outage-unclosed`). Default 172,800.
    pub outage_after_seconds: u64,
}

impl Default for WatchConfig {
    fn default() -> Self {
        WatchConfig {
            stale_after_seconds: 86_400,
            anchor_after_seconds: 172_800,
            outage_after_seconds: 172_800,
        }
    }
}

/// Section `[webhook]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where each finding is posted as JSON: `https://`, or `http://` on this machine. Required.
    pub url: String,
    /// CA certificate of that server (PEM); certificates of no other CA are accepted. Required with `https://`.
    pub ca: Option<PathBuf>,
    /// File that holds a token, sent as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// File that holds a secret of 32 bytes or more, by which every post is signed (HMAC-SHA256).
    pub secret_file: Option<PathBuf>,
    /// Only findings at least so severe. Default `info`.
    #[serde(default = "all")]
    pub severity: Severity,
    /// Seconds to wait for an answer. Default 10.
    #[serde(default = "ten")]
    pub timeout_seconds: u64,
    /// Seconds before `notify` tries again; doubles with each failure up to 5 minutes. Default 1.
    #[serde(default = "one")]
    pub retry_seconds: u64,
}

fn all() -> Severity {
    Severity::Info
}

fn ten() -> u64 {
    10
}

fn one() -> u64 {
    1
}

impl WebhookConfig {
    fn check(&self) -> Result<(), String> {
        let https = self.url.starts_with("https://") && self.url.len() > "https://".len();
        if !https && !LOCAL.iter().any(|prefix| self.url.starts_with(prefix)) {
            return Err(format!("{:?} is neither https:// nor http:// at 127.0.0.1 or [::1]", self.url));
        }
        if https != self.ca.is_some() {
            return Err("`ca` comes with https://, and only with it".to_owned());
        }
        if self.token_file.is_none() && self.secret_file.is_none() {
            return Err(
                "`token_file` or `secret_file` is needed: nobody shall have to believe a stranger".to_owned()
            );
        }
        if self.timeout_seconds == 0 || self.retry_seconds == 0 {
            return Err("timeout_seconds and retry_seconds are at least 1".to_owned());
        }
        Ok(())
    }
}

/// Section `[leases]`: what a lease of this hub says.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseTerms {
    /// For how many hours; at most 744. Required.
    pub hours: u64,
    /// After how many seals it is used up. Default: any number.
    pub seals: Option<u64>,
    /// Longest emergency afterwards, in seconds. Default: no limit.
    pub limit_seconds: Option<u64>,
    /// Most seals in one emergency. Default: no limit.
    pub limit_seals: Option<u64>,
    /// Fewest peers that must hold copies. Default: none.
    pub limit_holders: Option<u64>,
    /// What happens at a limit. Default `continue`.
    #[serde(default)]
    pub at_limit: AtLimitName,
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum AtLimitName {
    /// Sealing goes on; entries and manifests say that the limit was passed
    #[default]
    Continue,
    /// The box takes no new seals until the outage is over
    Safe,
}

/// Section `[serve]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeConfig {
    /// Address and port of the HTTPS server. Required.
    pub listen: SocketAddr,
    /// What the hub's keys are called: its witness is `<name>/witness`, its own log `<name>/heads`. Required, and for ever
    /// the same.
    pub name: String,
    /// DNS names and IP addresses that the hub is reached by; they are in the certificate that it makes for itself.
    #[serde(default = "localhost")]
    pub names: Vec<String>,
    /// Certificate chain (PEM) instead of one of the hub's own making; together with `key`.
    pub certificate: Option<PathBuf>,
    /// Private key of `certificate` (PEM).
    pub key: Option<PathBuf>,
    /// CA certificates (PEM) that vouch for people: who shows a certificate of theirs is known by its common name
    /// (`bulla-hub people add --certificate`). Default: none, and nobody is asked for a certificate.
    pub client_ca: Option<PathBuf>,
    /// Connections at the same time. Default 256.
    #[serde(default = "connections")]
    pub connections_max: usize,
    /// Requests a second of one address, on average. Default 20.
    #[serde(default = "requests")]
    pub requests_per_second: u32,
    /// Boxes that dial this hub, because it cannot reach them.
    #[serde(default)]
    pub dial_in: Vec<DialInConfig>,
}

/// One of `[[serve.dial_in]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DialInConfig {
    /// What the box calls itself when it dials (`dial_out.name` there); no name twice.
    pub name: String,
    /// File that holds the token that it shows, 32 to 128 visible characters.
    pub token_file: PathBuf,
}

fn localhost() -> Vec<String> {
    vec!["localhost".to_owned()]
}

fn connections() -> usize {
    256
}

fn requests() -> u32 {
    20
}

impl ServeConfig {
    fn check(&self) -> Result<(), String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if self.name.is_empty() || self.name.len() > 128 || !self.name.bytes().all(plain) {
            return Err("`name` has 1 to 128 of the characters a-z A-Z 0-9 . _ - /".to_owned());
        }
        if self.certificate.is_some() != self.key.is_some() {
            return Err("`certificate` comes together with `key`, or not at all".to_owned());
        }
        if self.names.is_empty() || self.names.len() > 16 {
            return Err("`names` has 1 to 16 names".to_owned());
        }
        if !(1..=65_536).contains(&self.connections_max) || !(1..=100_000).contains(&self.requests_per_second)
        {
            return Err("connections_max is 1 to 65536, requests_per_second 1 to 100000".to_owned());
        }
        let mut names = BTreeSet::new();
        for DialInConfig { name, .. } in &self.dial_in {
            if !is_name(name) || !names.insert(name) {
                let words = "is not 1 to 64 of the characters a-z A-Z 0-9 . _ -, or stands here twice";
                return Err(format!("dial_in: {name:?} {words}"));
            }
        }
        Ok(())
    }
}

/// One of `[[boxes]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoxConfig {
    /// What people call it; no name twice.
    pub name: String,
    /// Its log: the first line of its checkpoints.
    pub origin: String,
    /// Where its log can be had, the best first: the box itself, then peers that mirror it.
    pub sources: Vec<SourceConfig>,
}

/// One of `[[boxes.sources]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Address of a box, e.g. `https://bulla.branch.example:8443`.
    pub url: String,
    /// The CA certificate of that box (PEM); certificates of no other CA are accepted.
    pub ca: PathBuf,
    /// The box at this address is a neighbour that mirrors the log. Default false.
    #[serde(default)]
    pub mirror: bool,
    /// Client certificate chain of the hub (PEM), registered at that box; together with `key`.
    pub certificate: Option<PathBuf>,
    /// Private key of `certificate` (PEM).
    pub key: Option<PathBuf>,
    /// File that holds a token, when the box knows the hub by one.
    pub token_file: Option<PathBuf>,
    /// The box dials the hub under this name of `[[serve.dial_in]]`; `url` then only says which name its certificate bears.
    pub dial_in: Option<String>,
}

impl BoxConfig {
    /// The log's name, checked when the configuration was read.
    pub fn origin(&self) -> Result<Origin, ConfigError> {
        Origin::parse(&self.origin).map_err(|error| ConfigError::Value {
            key: "boxes.origin",
            reason: format!("{}: {error}; it is the first line of the box's /checkpoint", self.name),
        })
    }
}

impl SourceConfig {
    /// Where `/checkpoint` and `/tile/...` of the log named `origin` are.
    pub fn base(&self, origin: &str) -> String {
        let url = self.url.trim_end_matches('/');
        if self.mirror { format!("{url}/mirrors/{}", sha256(&[origin.as_bytes()])) } else { url.to_owned() }
    }
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads and checks the text of a configuration.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            ConfigError::Syntax { line: before.matches('\n').count() + 1, reason: error.message().to_owned() }
        })?;
        config.check()?;
        Ok(config)
    }

    /// [`Config::index_cache_megabytes`] in bytes.
    pub fn index_cache(&self) -> usize {
        self.index_cache_megabytes << 20
    }

    fn check(&self) -> Result<(), ConfigError> {
        let value = |key, reason: String| Err(ConfigError::Value { key, reason });
        if !(8..=1 << 20).contains(&self.index_cache_megabytes) {
            let reason = format!("{} is not between 8 and 1048576", self.index_cache_megabytes);
            return value("index_cache_megabytes", reason);
        }
        if self.name.is_empty() || self.name.len() > 64 {
            return value("name", "1 to 64 bytes".into());
        }
        if self.archive.is_some() == self.s3.is_some() {
            return value(
                "archive",
                "a directory (`archive = ...`) or a bucket (section `[s3]`), one of them".into(),
            );
        }
        if let Some(s3) = &self.s3 {
            s3.check().or_else(|reason| value("s3", reason))?;
        }
        if let Some(postgres) = &self.postgres {
            postgres.check().or_else(|reason| value("postgres", reason))?;
        }
        let pull = &self.pull;
        if !(1..=256).contains(&pull.at_once) {
            return value("pull.at_once", format!("{} is not between 1 and 256", pull.at_once));
        }
        if pull.threads > 1024 {
            return value("pull.threads", format!("{} is more than 1024", pull.threads));
        }
        if !(1..=1024).contains(&pull.step_bundles) {
            return value("pull.step_bundles", format!("{} is not between 1 and 1024", pull.step_bundles));
        }
        if pull.every_seconds == 0 || pull.timeout_seconds == 0 {
            return value("pull.every_seconds", "this and pull.timeout_seconds are at least 1".into());
        }
        if let Some(webhook) = &self.webhook {
            webhook.check().or_else(|reason| value("webhook", reason))?;
        }
        if let Some(serve) = &self.serve {
            serve.check().or_else(|reason| value("serve", reason))?;
        }
        if let Some(leases) = &self.leases {
            if self.serve.is_none() {
                return value("leases", "they are signed by the hub's keys, which [serve] names".into());
            }
            if !(1..=744).contains(&leases.hours) {
                return value("leases.hours", format!("{} is not between 1 and 744", leases.hours));
            }
        }
        let (mut names, mut origins) = (BTreeSet::new(), BTreeSet::new());
        for branch in &self.boxes {
            branch.origin()?;
            if branch.name.is_empty() || !names.insert(&branch.name) {
                return value("boxes.name", format!("{:?} is empty or stands here twice", branch.name));
            }
            if !origins.insert(&branch.origin) {
                return value("boxes.origin", format!("{} stands here twice", branch.origin));
            }
            if branch.sources.is_empty() || branch.sources.len() > 16 {
                return value("boxes.sources", format!("{}: 1 to 16 sources are needed", branch.name));
            }
            for source in &branch.sources {
                if !source.url.starts_with("https://") || source.url.len() <= "https://".len() {
                    let reason = format!("{:?} is no https:// address; boxes speak HTTPS only", source.url);
                    return value("boxes.sources.url", reason);
                }
                if source.certificate.is_some() != source.key.is_some() {
                    let reason = format!("{}: it comes together with `key`, or not at all", branch.name);
                    return value("boxes.sources.certificate", reason);
                }
                let served = self.serve.iter().flat_map(|serve| &serve.dial_in);
                if let Some(name) = &source.dial_in
                    && !served.clone().any(|served| served.name == *name)
                {
                    let reason = format!("{name:?} is the name of none of [[serve.dial_in]]");
                    return value("boxes.sources.dial_in", reason);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: &str = "[[boxes]]\nname = \"a\"\norigin = \"bank.example/0123456789012345678901234567890123456789/1\"\n\
         [[boxes.sources]]\nurl = \"https://a:1\"\nca = \"a.pem\"\n";

    fn with(lines: &str) -> Result<Config, ConfigError> {
        let head = "name = \"hub\"\nstate_dir = \"s\"\ntrust = \"t\"\narchive = \"a\"\n";
        Config::parse(&format!("{head}{lines}"))
    }

    #[test]
    fn the_sample_is_read_and_says_the_defaults() {
        let sample = include_str!("../../../docs/hub.toml");
        let config = Config::parse(sample).unwrap();
        assert!(!config.boxes.is_empty());
        let (pull, watch) = (PullConfig::default(), WatchConfig::default());
        for line in [
            format!("index_cache_megabytes = {}", index_cache_megabytes()),
            format!("at_once = {}", pull.at_once),
            format!("threads = {}", pull.threads),
            format!("step_bundles = {}", pull.step_bundles),
            format!("every_seconds = {}", pull.every_seconds),
            format!("timeout_seconds = {}", pull.timeout_seconds),
            format!("stale_after_seconds = {}", watch.stale_after_seconds),
            format!("anchor_after_seconds = {}", watch.anchor_after_seconds),
            format!("outage_after_seconds = {}", watch.outage_after_seconds),
        ] {
            assert!(sample.contains(&line), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert!(with(BOX).is_ok());
        let dials = "[serve]\nlisten = \"0.0.0.0:1\"\nname = \"h\"\n[[serve.dial_in]]\nname = \"a\"\ntoken_file = \"t\"\n";
        assert!(with(&format!("{BOX}dial_in = \"a\"\n{dials}")).is_ok());
        assert!(
            with(&format!("roster = \"r\"\n{BOX}{dials}[leases]\nhours = 24\nat_limit = \"safe\"\n")).is_ok()
        );
        assert!(
            with("[webhook]\nurl = \"http://127.0.0.1:1/\"\ntoken_file = \"t\"\nseverity = \"error\"\n")
                .is_ok()
        );
        assert!(with("[serve]\nlisten = \"0.0.0.0:8446\"\nname = \"hub.example/north\"\n").is_ok());
        assert!(with("[webhook]\nurl = \"https://a/\"\nca = \"c\"\nsecret_file = \"s\"\n").is_ok());
        for bad in [
            "unknown = 1\n".to_owned(),
            "index_cache_megabytes = 7\n".to_owned(),
            "[pull]\nat_once = 0\n".to_owned(),
            "[pull]\nstep_bundles = 0\n".to_owned(),
            "[pull]\nevery_seconds = 0\n".to_owned(),
            format!("{BOX}{BOX}"),
            BOX.replace("https", "http"),
            BOX.replace("bank.example/", "bank.example"),
            BOX.replace("[[boxes.sources]]\nurl = \"https://a:1\"\nca = \"a.pem\"\n", "sources = []\n"),
            format!("{BOX}certificate = \"c.pem\"\n"),
            format!("{BOX}tokenfile = \"x\"\n"),
            "[webhook]\nurl = \"http://hooks.example/\"\ntoken_file = \"t\"\n".to_owned(),
            "[webhook]\nurl = \"http://127.0.0.1.example/\"\ntoken_file = \"t\"\n".to_owned(),
            "[webhook]\nurl = \"https://hooks.example/\"\ntoken_file = \"t\"\n".to_owned(),
            "[webhook]\nurl = \"http://127.0.0.1:1/\"\n".to_owned(),
            "[webhook]\nurl = \"http://127.0.0.1:1/\"\ntoken_file = \"t\"\nretry_seconds = 0\n".to_owned(),
            "[webhook]\nurl = \"http://127.0.0.1:1/\"\ntoken_file = \"t\"\nseverity = \"loud\"\n".to_owned(),
            "[serve]\nlisten = \"0.0.0.0:1\"\n".to_owned(),
            format!("{BOX}[leases]\nhours = 24\n"),
            format!("{BOX}{dials}[leases]\nhours = 745\n"),
            format!("{BOX}{dials}[leases]\nhours = 0\n"),
            format!("{BOX}{dials}[leases]\nhours = 1\nat_limit = \"stop\"\n"),
            "[serve]\nlisten = \"hub:1\"\nname = \"h\"\n".to_owned(),
            "[serve]\nlisten = \"0.0.0.0:1\"\nname = \"h h\"\n".to_owned(),
            "[serve]\nlisten = \"0.0.0.0:1\"\nname = \"h+1\"\n".to_owned(),
            "[serve]\nlisten = \"0.0.0.0:1\"\nname = \"h\"\nkey = \"k\"\n".to_owned(),
            "[serve]\nlisten = \"0.0.0.0:1\"\nname = \"h\"\nconnections_max = 0\n".to_owned(),
            format!("{BOX}dial_in = \"a\"\n"),
            format!("{BOX}dial_in = \"b\"\n{dials}"),
            format!("{BOX}dial_in = \"a\"\n{dials}[[serve.dial_in]]\nname = \"a\"\ntoken_file = \"u\"\n"),
            dials.replace("\"a\"", "\"a b\""),
        ] {
            assert!(with(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_archive_is_a_directory_or_a_bucket() {
        let of = |lines: &str| {
            Config::parse(&format!("name = \"hub\"\nstate_dir = \"s\"\ntrust = \"t\"\n{lines}{BOX}"))
        };
        let bucket = "[s3]\nendpoint = \"https://s3.bank.example\"\nca = \"c\"\nbucket = \"a\"\ncredentials_file = \"f\"\n";
        let config = of(&format!("{bucket}prefix = \"hubs/north\"\n")).unwrap().s3.unwrap();
        assert_eq!((config.region.as_str(), config.object_lock), ("us-east-1", false));
        assert_eq!((config.timeout_seconds, config.patience_seconds), (30, 120));
        assert!(
            of(&bucket.replace("https://s3.bank.example\"\nca = \"c\"", "http://127.0.0.1:9000\"")).is_ok()
        );
        for bad in [
            String::new(),
            format!("archive = \"a\"\n{bucket}"),
            bucket.replace("ca = \"c\"\n", ""),
            bucket.replace("https://s3.bank.example", "http://s3.bank.example"),
            bucket.replace("bucket = \"a\"", "bucket = \"a/b\""),
            bucket.replace("credentials_file = \"f\"\n", ""),
            format!("{bucket}prefix = \"/a\"\n"),
            format!("{bucket}prefix = \"a//b\"\n"),
            format!("{bucket}prefix = \"a/../b\"\n"),
            format!("{bucket}patience_seconds = 0\n"),
        ] {
            assert!(of(&bad).is_err(), "{bad}");
        }
        let misplaced = of(&format!("{bucket}secret_access_key = \"hush\"\n")).unwrap_err().to_string();
        assert!(misplaced.contains("line 9") && !misplaced.contains("hush"), "{misplaced}");
    }

    #[test]
    fn an_index_in_postgresql_is_reached_by_a_socket_or_tls() {
        let of = |lines: &str| with(&format!("{lines}{BOX}"));
        let socket = "[postgres]\nhost = \"/run/postgresql\"\ndatabase = \"d\"\nuser = \"u\"\n";
        let config = of(socket).unwrap().postgres.unwrap();
        assert_eq!((config.port, config.schema.as_str(), config.patience_seconds), (5432, "bulla", 120));
        let name = socket.replace("/run/postgresql", "db.bank.example");
        assert!(of(&format!("{name}ca = \"c\"\n")).is_ok());
        assert!(of(&socket.replace("/run/postgresql", "127.0.0.1")).is_ok());
        for bad in [
            name,
            format!("{socket}ca = \"c\"\n"),
            socket.replace("/run/postgresql", ""),
            socket.replace("user = \"u\"\n", ""),
            format!("{socket}schema = \"Bulla\"\n"),
            format!("{socket}schema = \"a; DROP\"\n"),
            format!("{socket}schema = \"pg_a\"\n"),
            format!("{socket}schema = \"1a\"\n"),
            format!("{socket}port = 0\n"),
            format!("{socket}password = \"p\"\n"),
        ] {
            assert!(of(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mirrored_log_is_below_the_neighbours_address() {
        let config = with(&format!("{BOX}mirror = true\n")).unwrap();
        let base = config.boxes[0].sources[0].base("o");
        assert_eq!(base, format!("https://a:1/mirrors/{}", sha256(&[b"o"])));
    }
}

//! Configuration: one TOML file, read once at start.
//!
//! Refuses to do: guess. Unknown keys, both or neither of `[tpm]` and `[software]`, and values outside
//! their ranges are errors that say what to write instead. `docs/box.toml` is the commented sample.
//! Invariant: a [`Config`] has passed every check of [`Config::parse`]; later code does not check again.

mod alerts;
mod console;
mod dial_out;
mod discovery;
mod ingest;
mod medium;
mod outage;
mod peers;
mod sections;
mod staged;
mod time;
mod tsa;

pub use alerts::*;
pub use console::*;
pub use dial_out::*;
pub use discovery::*;
pub use ingest::*;
pub use medium::*;
pub use outage::*;
pub use peers::*;
pub use sections::*;
pub use staged::*;
pub use time::*;
pub use tsa::*;

use crate::backup::recipient;
use bulla_formats::entry::Residency;
use bulla_formats::origin::check_fleet;
use bulla_keys::Provider;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    #[error("the configuration is not understood: {0}")]
    Syntax(#[from] toml::de::Error),
    /// A value is out of range, or two values exclude each other.
    #[error("{key}: {reason}")]
    Value {
        /// The key, as `section.name`.
        key: &'static str,
        /// What is accepted.
        reason: String,
    },
}

/// Where Linux shows what the firmware measured.
const KERNEL_EVENT_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// Each of them is named in the log entry of every backup.
const RECIPIENTS_MAX: usize = 16;

/// Everything an operator can set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Directory of everything the box keeps: keys, log, clients. Required. Losing it loses the log.
    pub state_dir: PathBuf,
    /// Address and port of the HTTPS listener. Default `0.0.0.0:8443`.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Who this box is.
    pub identity: IdentityConfig,
    /// Keys live in a TPM 2.0. Exactly one of this section and `[software]`.
    pub tpm: Option<TpmConfig>,
    /// Keys live in files. Exactly one of this section and `[tpm]`.
    pub software: Option<SoftwareConfig>,
    /// How seals are made.
    #[serde(default)]
    pub sealing: SealingConfig,
    /// How the TPM vouches for the log.
    #[serde(default)]
    pub attestation: AttestationConfig,
    /// Who can open backups.
    #[serde(default)]
    pub backup: BackupConfig,
    /// Requests kept while sealing is not possible.
    #[serde(default)]
    pub queue: QueueConfig,
    /// Transport security.
    #[serde(default)]
    pub tls: TlsConfig,
    /// What one client may ask of the box.
    #[serde(default)]
    pub limits: LimitsConfig,
    /// How the box examines itself.
    #[serde(default)]
    pub selfcheck: SelfCheckConfig,
    /// What happens when the world is away.
    #[serde(default)]
    pub outage: OutageConfig,
    /// Who vouches for the log from outside.
    #[serde(default)]
    pub anchors: AnchorsConfig,
    /// Boxes that mirror and witness each other's logs. Absent (default): none.
    pub peers: Option<PeersConfig>,
    /// A removable medium that the log is copied to. Absent (default): none.
    pub medium: Option<MediumConfig>,
    /// A hub that cannot reach this box. Absent (default): none.
    pub dial_out: Option<DialOutConfig>,
    /// Whether this box may begin its next log by itself, from an enrolment staged for it. Absent (default): no.
    pub staged: Option<StagedConfig>,
    /// Folders whose files are sealed.
    #[serde(default)]
    pub ingest: IngestConfig,
    /// Whether the box tells its LAN where it is.
    #[serde(default)]
    pub discovery: DiscoveryConfig,
    /// Pages for people.
    #[serde(default)]
    pub console: ConsoleConfig,
    /// Whom the box tells of its own troubles.
    #[serde(default)]
    pub alerts: AlertsConfig,
    /// Time stamps for programs that speak RFC 3161.
    #[serde(default)]
    pub tsa: ResponderConfig,
    /// Who tells the time without vouching for anything.
    #[serde(default)]
    pub time: TimeSourcesConfig,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
}

/// How slowly a body may come: `limits.body_idle_seconds` and `limits.body_bytes_per_second_min`.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Longest pause.
    pub idle: Duration,
    /// Slowest average, once `idle` has been waited in all; 0: none.
    pub bytes_per_second_min: u64,
}

impl Pace {
    /// How long to wait for the next piece of a body of which `seen` bytes came in `waited`.
    pub fn patience(self, waited: Duration, seen: u64) -> Duration {
        if self.bytes_per_second_min == 0 {
            return self.idle;
        }
        let earned = Duration::from_secs_f64(seen as f64 / self.bytes_per_second_min as f64);
        self.idle.min((self.idle + earned).saturating_sub(waited))
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 8443))
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
        let config: Config = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Where the keys live.
    pub fn provider(&self) -> Provider {
        match &self.tpm {
            Some(tpm) => Provider::Tpm { tcti: tpm.tcti.clone() },
            None => Provider::Software,
        }
    }

    /// The firmware's event log; `None` without a TPM, and for a simulated one unless it is named.
    pub fn event_log(&self) -> Option<PathBuf> {
        let tpm = self.tpm.as_ref()?;
        let kernels = PathBuf::from(KERNEL_EVENT_LOG);
        // A signer may have either kind.
        let is_there = tpm.tcti.starts_with("signer:") && kernels.exists();
        let own = || (is_there || tpm.tcti.starts_with("device:")).then_some(kernels);
        tpm.event_log.clone().or_else(own)
    }

    /// Where sealing keys live: what `sealing.residency` says, else the default of the provider.
    pub fn residency(&self) -> Residency {
        match (self.sealing.residency, &self.tpm) {
            (Some(ResidencyConfig::Tpm), _) => Residency::Tpm,
            (Some(ResidencyConfig::TpmEndorsedRam), _) | (None, Some(_)) => Residency::TpmEndorsedRam,
            (Some(ResidencyConfig::Software), _) | (None, None) => Residency::Software,
        }
    }

    /// `attestation.timeout_seconds`.
    pub fn tpm_deadline(&self) -> Duration {
        Duration::from_secs(self.attestation.timeout_seconds)
    }

    /// `limits.header_timeout_seconds`.
    pub fn header_timeout(&self) -> Duration {
        Duration::from_secs(self.limits.header_timeout_seconds)
    }

    /// How slowly a body may come.
    pub fn body_pace(&self) -> Pace {
        Pace {
            idle: Duration::from_secs(self.limits.body_idle_seconds),
            bytes_per_second_min: self.limits.body_bytes_per_second_min,
        }
    }

    /// How long a self-test waits for the TPM: one attestation that runs, one of its own, and a retry.
    pub fn self_test_attest_within(&self) -> Duration {
        3 * self.tpm_deadline()
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.state_dir.is_absolute() {
            return refuse("state_dir", "write an absolute path, e.g. \"/var/lib/bulla\"");
        }
        check_fleet(&self.identity.fleet)
            .map_err(|error| ConfigError::Value { key: "identity.fleet", reason: error.to_string() })?;
        if self.identity.names.is_empty() {
            return refuse("identity.names", "name at least one DNS name or IP address of this box");
        }
        for name in &self.identity.names {
            if rustls::pki_types::ServerName::try_from(name.as_str()).is_err() {
                return refuse("identity.names", format!("{name:?} is neither a DNS name nor an IP address"));
            }
        }
        if self.backup.recipients.len() > RECIPIENTS_MAX {
            return refuse("backup.recipients", format!("name at most {RECIPIENTS_MAX}"));
        }
        for text in &self.backup.recipients {
            recipient(text).map_err(|error| ConfigError::Value {
                key: "backup.recipients",
                reason: error.to_string(),
            })?;
        }
        self.check_provider()?;
        outage::check(&self.outage, &self.anchors)?;
        ingest::check(&self.ingest)?;
        tsa::check(&self.tsa)?;
        time::check(&self.time)?;
        alerts::check(&self.alerts)?;
        self.peers.as_ref().map_or(Ok(()), peers::check)?;
        self.medium.as_ref().map_or(Ok(()), medium::check)?;
        self.dial_out.as_ref().map_or(Ok(()), dial_out::check)?;
        self.staged.as_ref().map_or(Ok(()), staged::check)?;
        console::check(&self.console)?;
        self.check_ranges()
    }

    fn check_provider(&self) -> Result<(), ConfigError> {
        match (&self.tpm, &self.software) {
            (None, None) => refuse(
                "tpm",
                "say where keys live: add [tpm] with tcti = \"device:/dev/tpmrm0\", or, on a machine without \
                 TPM, [software] with accept = true",
            ),
            (Some(_), Some(_)) => {
                refuse("tpm", "keys live in one place: remove either the [tpm] or the [software] section")
            }
            (None, Some(software)) if !software.accept => refuse(
                "software.accept",
                "only true is accepted: it states that no hardware stands behind the seals; use [tpm] otherwise",
            ),
            (None, Some(_)) => match self.sealing.residency {
                None | Some(ResidencyConfig::Software) => Ok(()),
                Some(_) => refuse("sealing.residency", "without a TPM only \"software\" is possible"),
            },
            (Some(tpm), None) => {
                if tpm.tcti.is_empty() {
                    return refuse("tpm.tcti", "write e.g. \"device:/dev/tpmrm0\"");
                }
                if self.sealing.residency == Some(ResidencyConfig::Software) {
                    return refuse(
                        "sealing.residency",
                        "a box with a TPM does not seal with software keys: write \"tpm-endorsed-ram\" or \"tpm\"",
                    );
                }
                Ok(())
            }
        }
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let (sealing, attestation, limits) = (&self.sealing, &self.attestation, &self.limits);
        between("sealing.epoch_max_seconds", sealing.epoch_max_seconds, 60, 31_536_000)?;
        between("sealing.epoch_max_seals", sealing.epoch_max_seals, 1, 1 << 40)?;
        between("sealing.batch_max", sealing.batch_max as u64, 1, 4_096)?;
        between("sealing.queue_max", sealing.queue_max as u64, 1, 1 << 20)?;
        between("sealing.reserve_bytes", sealing.reserve_bytes, 1 << 20, 1 << 50)?;
        between("queue.entries_max", self.queue.entries_max, 1, 1 << 20)?;
        between("queue.bytes_max", self.queue.bytes_max, 1 << 10, 1 << 32)?;
        between("attestation.window_seconds", attestation.window_seconds, 1, 86_400)?;
        between("attestation.counter_seconds", attestation.counter_seconds, 0, 86_400)?;
        between("attestation.timeout_seconds", attestation.timeout_seconds, 1, 600)?;
        between("limits.document_bytes_max", limits.document_bytes_max, 1, 1 << 50)?;
        between("limits.header_timeout_seconds", limits.header_timeout_seconds, 1, 600)?;
        between("limits.body_idle_seconds", limits.body_idle_seconds, 1, 3_600)?;
        between("limits.connections_max", limits.connections_max as u64, 1, 1 << 20)?;
        between("limits.uploads_max", limits.uploads_max as u64, 1, 1 << 20)?;
        between("limits.body_bytes_per_second_min", limits.body_bytes_per_second_min, 0, 1 << 30)?;
        between("limits.http2_idle_seconds", limits.http2_idle_seconds, 1, 86_400)?;
        for (key, value) in [
            ("limits.client_requests_per_second", limits.client_requests_per_second),
            ("limits.client_requests_burst", limits.client_requests_burst),
            ("limits.address_connections_per_second", limits.address_connections_per_second),
            ("limits.anonymous_requests_per_second", limits.anonymous_requests_per_second),
        ] {
            between(key, value.into(), 0, 1_000_000)?;
        }
        if limits.client_requests_per_second > 0 && limits.client_requests_burst == 0 {
            return refuse("limits.client_requests_burst", "a client needs at least 1 request to begin with");
        }
        for (key, value) in [
            ("limits.client_requests_max", limits.client_requests_max),
            ("limits.client_uploads_max", limits.client_uploads_max),
            ("limits.address_connections_max", limits.address_connections_max),
        ] {
            between(key, value as u64, 0, 1 << 20)?;
        }
        let selfcheck = &self.selfcheck;
        between("selfcheck.self_test_seconds", selfcheck.self_test_seconds, 0, 31_536_000)?;
        between("selfcheck.scrub_pass_seconds", selfcheck.scrub_pass_seconds, 0, 31_536_000)?;
        between("selfcheck.scrub_bytes_per_second", selfcheck.scrub_bytes_per_second, 1 << 16, 1 << 40)?;
        let pcrs = &attestation.pcrs;
        let ascending = pcrs.windows(2).all(|pair| pair[0] < pair[1]);
        if pcrs.is_empty() || !ascending || pcrs.iter().any(|pcr| *pcr > 23) {
            return refuse("attestation.pcrs", "list PCR numbers from 0 to 23, ascending, each once");
        }
        Ok(())
    }
}

fn refuse(key: &'static str, reason: impl Into<String>) -> Result<(), ConfigError> {
    Err(ConfigError::Value { key, reason: reason.into() })
}

fn between(key: &'static str, value: u64, low: u64, high: u64) -> Result<(), ConfigError> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        refuse(key, format!("{value} is not between {low} and {high}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "state_dir = \"/var/lib/bulla\"\n[identity]\nfleet = \"bank.example\"\n";

    fn with(more: &str) -> Result<Config, ConfigError> {
        Config::parse(&format!("{SMALL}{more}"))
    }

    #[test]
    fn the_sample_holds_the_defaults() {
        let sample = Config::parse(include_str!("../../../../docs/box.toml")).unwrap();
        let small = with("[tpm]\ntcti = \"device:/dev/tpmrm0\"\n").unwrap();
        assert_eq!(sample.residency(), Residency::TpmEndorsedRam);
        assert_eq!(format!("{:?}", sample.limits), format!("{:?}", small.limits));
        assert_eq!(format!("{:?}", sample.attestation), format!("{:?}", small.attestation));
        assert_eq!(format!("{:?}", sample.queue), format!("{:?}", small.queue));
        assert_eq!(format!("{:?}", sample.tls), format!("{:?}", small.tls));
        assert_eq!(format!("{:?}", sample.log), format!("{:?}", small.log));
        assert_eq!(format!("{:?}", sample.outage), format!("{:?}", small.outage));
        assert_eq!(format!("{:?}", sample.anchors), format!("{:?}", small.anchors));
        assert_eq!(format!("{:?}", sample.selfcheck), format!("{:?}", small.selfcheck));
        assert_eq!(format!("{:?}", sample.discovery), format!("{:?}", small.discovery));
        assert_eq!(format!("{:?}", sample.console), format!("{:?}", small.console));
        assert_eq!(format!("{:?}", sample.tsa), format!("{:?}", small.tsa));
        assert_eq!(format!("{:?}", sample.time), format!("{:?}", small.time));
        assert_eq!(sample.sealing.batch_max, small.sealing.batch_max);
        assert_eq!(sample.sealing.reserve_bytes, small.sealing.reserve_bytes);
        assert_eq!(sample.listen, small.listen);
    }

    #[test]
    fn keys_live_in_exactly_one_place() {
        let none = with("").unwrap_err().to_string();
        assert!(none.contains("[tpm]") && none.contains("[software]"), "{none}");
        let both = with("[tpm]\ntcti = \"x\"\n[software]\naccept = true\n").unwrap_err().to_string();
        assert!(both.contains("remove"), "{both}");
        assert!(with("[software]\naccept = false\n").is_err());
        assert_eq!(with("[software]\naccept = true\n").unwrap().residency(), Residency::Software);
        assert!(with("[software]\naccept = true\n[sealing]\nresidency = \"tpm\"\n").is_err());
        assert!(with("[tpm]\ntcti = \"x\"\n[sealing]\nresidency = \"software\"\n").is_err());
        let tpm = with("[tpm]\ntcti = \"x\"\n[sealing]\nresidency = \"tpm\"\n").unwrap();
        assert_eq!((tpm.residency(), tpm.provider()), (Residency::Tpm, Provider::Tpm { tcti: "x".into() }));
    }

    #[test]
    fn unknown_keys_are_refused_everywhere() {
        for section in [
            "tpm",
            "identity",
            "sealing",
            "attestation",
            "backup",
            "queue",
            "tls",
            "limits",
            "selfcheck",
            "outage",
            "anchors",
            "peers",
            "medium",
            "staged",
            "ingest",
            "time",
            "alerts",
            "log",
        ] {
            let base = format!("{SMALL}[software]\naccept = true\n");
            let text = match section {
                "identity" => base.replace("[identity]", "[identity]\nbogus = 1"),
                _ => format!("{base}[{section}]\nbogus = 1\n"),
            };
            let error = Config::parse(&text).unwrap_err().to_string();
            assert!(error.contains("bogus"), "{section}: {error}");
        }
        assert!(Config::parse(&format!("bogus = 1\n{SMALL}[software]\naccept = true\n")).is_err());
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (more, key) in [
            ("[limits]\nuploads_max = 0\n", "limits.uploads_max"),
            ("[limits]\nclient_requests_burst = 0\n", "limits.client_requests_burst"),
            ("[limits]\nclient_requests_per_second = 1000001\n", "limits.client_requests_per_second"),
            ("[limits]\nhttp2_idle_seconds = 0\n", "limits.http2_idle_seconds"),
            ("[sealing]\nbatch_max = 100000\n", "sealing.batch_max"),
            ("[attestation]\npcrs = [7, 0]\n", "attestation.pcrs"),
            ("[attestation]\npcrs = [24]\n", "attestation.pcrs"),
            ("[backup]\nrecipients = [\"age1nobody\"]\n", "backup.recipients"),
            ("[attestation]\nwindow_seconds = 0\n", "attestation.window_seconds"),
            ("[outage]\nprobe_seconds = 60\n", "outage.probe_seconds"),
            ("[outage]\nwording_id = \"x/1\"\n", "outage.wording_id"),
            ("[outage]\nmedia = [\"usb\"]\n", "outage.media"),
            ("[anchors]\noperators = 0\n", "anchors.operators"),
            (
                "[[anchors.tsa]]\nname = \"a\"\noperator = \"A\"\nurl = \"ftp://a\"\nroots = \"/a\"\n",
                "anchors.url",
            ),
            (
                "[[anchors.witness]]\nname = \"w\"\noperator = \"W\"\nurl = \"http://w\"\nkey = \"w+1+AA\"\n",
                "anchors.witness.key",
            ),
            ("[selfcheck]\nscrub_bytes_per_second = 1\n", "selfcheck.scrub_bytes_per_second"),
            ("[time]\nevery_seconds = 0\n", "time.every_seconds"),
            ("[peers]\nlisten = []\n", "peers.listen"),
            ("[peers]\nlisten = [\"192.0.2.1:7440\"]\n", "peers.listen"),
            ("[peers]\nadvertise = [\"/dns/box/tcp/7440\"]\n", "peers.advertise"),
            ("[peers]\nneighbours_max = 65\n", "peers.neighbours_max"),
            ("[peers]\nstart_wait_seconds = 61\n", "peers.start_wait_seconds"),
            ("[peers]\nhint_seconds = 0\n", "peers.hint_seconds"),
            ("[staged]\ndays = 0\n", "staged.days"),
            ("[staged]\nfile = \"staged\"\n", "staged.file"),
            ("[alerts]\nrepeat_hours = 0\n", "alerts.repeat_hours"),
            ("[alerts]\nsite = \"a\\nb\"\n", "alerts.site"),
            ("[alerts]\noff = [\"BullaNothing\"]\n", "alerts.off"),
            ("[alerts.hold_seconds]\nBullaNothing = 1\n", "alerts.hold_seconds"),
            ("[[alerts.webhook]]\nname = \"a b\"\nurl = \"https://a/\"\n", "alerts"),
            ("[[alerts.webhook]]\nname = \"a\"\nurl = \"http://192.0.2.1/\"\n", "alerts.webhook.url"),
            (
                "[[alerts.webhook]]\nname = \"a\"\nurl = \"http://192.0.2.1/\"\nplain = true\n",
                "alerts.webhook.url",
            ),
            (
                "[[alerts.webhook]]\nname = \"a\"\nurl = \"http://localhost.example/\"\nplain = true\n",
                "alerts.webhook.url",
            ),
            ("[[alerts.webhook]]\nname = \"a\"\nurl = \"https://a/\"\nplain = true\n", "alerts.webhook.url"),
            ("[[alerts.webhook]]\nname = \"a\"\nurl = \"https://u:p@a/\"\n", "alerts.webhook.url"),
            ("[[alerts.webhook]]\nname = \"a\"\nurl = \"ftp://a/\"\n", "alerts.webhook.url"),
            (
                "[[alerts.webhook]]\nname = \"a\"\nurl = \"http://10.0.0.1/\"\nplain = true\ntoken_file = \"/t\"\n",
                "alerts.webhook.url",
            ),
            (
                "[[alerts.webhook]]\nname = \"a\"\nurl = \"https://a/\"\nsecret_file = \"s\"\n",
                "alerts.webhook",
            ),
            (
                "[[alerts.mail]]\nname = \"a\"\nhost = \"a b\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\n",
                "alerts.mail.host",
            ),
            (
                "[[alerts.mail]]\nname = \"a\"\nhost = \"a\"\nfrom = \"a\"\nto = [\"a@b.example\"]\n",
                "alerts.mail.from",
            ),
            (
                "[[alerts.mail]]\nname = \"a\"\nhost = \"a\"\nfrom = \"a@b.example\"\nto = []\n",
                "alerts.mail.to",
            ),
            (
                "[[alerts.mail]]\nname = \"a\"\nhost = \"a\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\nuser = \"u\"\n",
                "alerts.mail.user",
            ),
            (
                "[[alerts.mail]]\nname = \"a\"\nhost = \"a\"\nfrom = \"a@b.example\"\nto = [\"a@b.example\"]\nuser = \"u\"\n\
                 password_file = \"/p\"\ntls = \"none\"\n",
                "alerts.mail.tls",
            ),
            ("[medium]\npath = \"usb\"\n", "medium.path"),
            ("[medium]\npath = \"/media/usb\"\nid = \"AB\"\n", "medium.id"),
            ("[medium]\npath = \"/media/usb\"\nevery_seconds = 0\n", "medium.every_seconds"),
            ("[peers]\nchallenge_every_seconds = 1\n", "peers.challenge_every_seconds"),
            ("[peers]\nregistrar_seconds = 86401\n", "peers.registrar_seconds"),
            ("[[peers.foreign]]\nfleet = \"Other\"\n", "peers.foreign"),
            ("[console]\nclaim_page = \"203.0.113.7:8080\"\n", "console.claim_page"),
            (
                "[[peers.foreign]]\nfleet = \"a.example\"\n[[peers.foreign]]\nfleet = \"a.example\"\n",
                "peers.foreign",
            ),
            ("[[peers.foreign]]\nfleet = \"a.example\"\nroot = \"12\"\n", "peers.foreign"),
        ] {
            let error = with(&format!("[software]\naccept = true\n{more}")).unwrap_err().to_string();
            assert!(error.starts_with(key), "{error}");
        }
        let good = format!("{SMALL}[software]\naccept = true\n");
        for (from, to) in [
            ("/var/lib/bulla", "relative"),
            ("bank.example", "Bank.Example"),
            ("[identity]", "[identity]\nnames = []"),
            ("[identity]", "[identity]\nnames = [\"not a name\"]"),
        ] {
            assert!(Config::parse(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}

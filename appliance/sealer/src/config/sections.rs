//! The sections of the configuration: one type each, with its defaults.
//!
//! Refuses to do: check; ranges and combinations are `super::Config::parse`'s. Every section refuses unknown keys.
//! Invariant: `docs/box.toml` shows every key with its default; a test holds the two together.

use bulla_protocol::queue::QueuePolicy;
use serde::Deserialize;
use std::path::PathBuf;

/// `[identity]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Fleet domain, a lower-case DNS name. Required. Part of the log's name: fixed once `init` has run.
    pub fleet: String,
    /// DNS names and IP addresses under which clients reach the box; they go into its TLS certificate.
    /// Default `["localhost"]`. A name that is missing here makes clients refuse the connection.
    #[serde(default = "default_names")]
    pub names: Vec<String>,
}

/// `[tpm]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TpmConfig {
    /// Where the TPM is: `signer:/run/bulla-signer/socket` (a `bulla-signer` has it), `device:/dev/tpmrm0` (this process
    /// uses it), or `swtpm:host=127.0.0.1,port=2321`.
    pub tcti: String,
    /// The firmware's event log, which explains the PCR values. Default for a `device:`, and for a `signer:` where
    /// there is one, the kernel's, /sys/kernel/security/tpm0/binary_bios_measurements; for a simulated TPM none.
    #[serde(default)]
    pub event_log: Option<PathBuf>,
}

/// `[software]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftwareConfig {
    /// Must be `true`: states that no hardware stands behind this box's seals, and every seal says so.
    pub accept: bool,
}

/// Where sealing keys live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResidencyConfig {
    /// One TPM signature per seal; for small branches.
    Tpm,
    /// In RAM, endorsed by a TPM quote.
    TpmEndorsedRam,
    /// In RAM, endorsed by a key in a file.
    Software,
}

/// `[sealing]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SealingConfig {
    /// `tpm-endorsed-ram` (default with `[tpm]`), `tpm`, or `software` (only and always with `[software]`).
    pub residency: Option<ResidencyConfig>,
    /// Longest life of a sealing key in seconds. Default 86400.
    pub epoch_max_seconds: u64,
    /// Most seals of one sealing key. Default 1000000.
    pub epoch_max_seals: u64,
    /// Most entries of one commit. Default 512. Larger batches give throughput and cost latency.
    pub batch_max: usize,
    /// Most seals waiting for a commit. Default 4096. Beyond it clients get 503 `overloaded`.
    pub queue_max: usize,
    /// Free bytes below which new seals are refused with 507 `disk-full`. Default 67108864 (64 MiB).
    pub reserve_bytes: u64,
}

impl Default for SealingConfig {
    fn default() -> Self {
        SealingConfig {
            residency: None,
            epoch_max_seconds: 86_400,
            epoch_max_seals: 1_000_000,
            batch_max: 512,
            queue_max: 4_096,
            reserve_bytes: 64 << 20,
        }
    }
}

/// `[attestation]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttestationConfig {
    /// Longest time in seconds a seal stays without a TPM quote over it. Default 60.
    pub window_seconds: u64,
    /// Shortest time in seconds between two increments of the TPM's rollback counter. Default 600.
    /// Smaller values wear the TPM's flash.
    pub counter_seconds: u64,
    /// PCRs in every quote. Default 0-7 and 11-14.
    pub pcrs: Vec<u8>,
    /// Longest time in seconds to wait for one TPM answer. Default 30.
    pub timeout_seconds: u64,
}

impl Default for AttestationConfig {
    fn default() -> Self {
        let pcrs = vec![0, 1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14];
        AttestationConfig { window_seconds: 60, counter_seconds: 600, pcrs, timeout_seconds: 30 }
    }
}

/// `[backup]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BackupConfig {
    /// Public keys (`age1...`) of those who can open backups; at most 16. Default none: no backup can be taken.
    pub recipients: Vec<String>,
}

/// What may keep requests from being sealed for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueWhen {
    /// An operator has locked the box.
    Locked,
    /// Residency `tpm`, and the TPM does not answer.
    KeyAway,
    /// Storage failed and has not recovered.
    StorageFailed,
}

/// `[queue]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// When requests are kept durably and answered with 202 instead of a refusal. Default: never.
    pub when: Vec<QueueWhen>,
    /// Most requests kept. Default 10000. Beyond it clients get 503 `locked`.
    pub entries_max: u64,
    /// Most bytes kept. Default 67108864 (64 MiB).
    pub bytes_max: u64,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig { when: Vec::new(), entries_max: 10_000, bytes_max: 64 << 20 }
    }
}

impl QueueConfig {
    /// As `bulla_protocol` has it.
    pub fn policy(&self) -> QueuePolicy {
        QueuePolicy {
            when_locked: self.when.contains(&QueueWhen::Locked),
            when_key_away: self.when.contains(&QueueWhen::KeyAway),
            when_storage_failed: self.when.contains(&QueueWhen::StorageFailed),
            entries_max: self.entries_max,
            bytes_max: self.bytes_max,
        }
    }
}

/// Oldest TLS version accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.3 only.
    #[default]
    #[serde(rename = "1.3")]
    Tls13,
    /// TLS 1.2 and 1.3, for scanners that know no better. The version used is in every seal.
    #[serde(rename = "1.2")]
    Tls12,
}

/// `[tls]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Oldest version accepted: `1.3` (default) or `1.2`.
    pub min_version: TlsVersion,
    /// PEM file of the CAs whose client certificates are looked at. Absent (default): tokens only.
    /// A certificate counts only when its common name is registered with `scanner add --certificate`.
    pub client_ca: Option<PathBuf>,
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Largest document in bytes. Default 1073741824 (1 GiB). Beyond it clients get 413.
    pub document_bytes_max: u64,
    /// Longest time in seconds for TLS handshake and for request headers; also how long an idle
    /// HTTP/1.1 connection is kept. Default 10.
    pub header_timeout_seconds: u64,
    /// Longest pause in seconds inside a document that is being sent. Default 30. Then 408.
    pub body_idle_seconds: u64,
    /// Most open connections. Default 10000. More wait in the kernel's queue.
    pub connections_max: usize,
    /// Most documents on their way in at one time. Default 256. Beyond it clients get 503 `overloaded`.
    pub uploads_max: usize,
    /// Slowest document in bytes a second, on average after the first `body_idle_seconds`. Default 4096; 0: none.
    /// Then 408. Without it one byte every few seconds holds a place for ever.
    pub body_bytes_per_second_min: u64,
    /// Longest time in seconds an HTTP/2 connection is kept without a request. Default 60.
    pub http2_idle_seconds: u64,
    /// Requests a second of one client, in the long run. Default 500; 0: no limit. Beyond it 429 `rate-limited`.
    pub client_requests_per_second: u32,
    /// Requests one client may make at once after a pause. Default 1000.
    pub client_requests_burst: u32,
    /// Most requests of one client at one time. Default 256; 0: no limit. Beyond it 429.
    pub client_requests_max: usize,
    /// Most documents of one client on their way in at one time. Default 64; 0: no limit. Beyond it 429.
    pub client_uploads_max: usize,
    /// Most open connections of one address (IPv6: of one /64). Default 512; 0: no limit. More are closed at once.
    pub address_connections_max: usize,
    /// New connections a second of one address, in the long run; ten times as many at once. Default 200;
    /// 0: no limit. More are closed at once.
    pub address_connections_per_second: u32,
    /// Requests a second of one address without a credential or with a wrong one; ten times as many at once.
    /// Default 100; 0: no limit. Beyond it 429. A good credential is never held up by it.
    pub anonymous_requests_per_second: u32,
    /// Most event streams at one time. Default 256. Beyond it clients get 503 `overloaded`.
    pub event_streams_max: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            document_bytes_max: 1 << 30,
            header_timeout_seconds: 10,
            body_idle_seconds: 30,
            connections_max: 10_000,
            uploads_max: 256,
            body_bytes_per_second_min: 4_096,
            http2_idle_seconds: 60,
            client_requests_per_second: 500,
            client_requests_burst: 1_000,
            client_requests_max: 256,
            client_uploads_max: 64,
            address_connections_max: 512,
            address_connections_per_second: 200,
            anonymous_requests_per_second: 100,
            event_streams_max: 256,
        }
    }
}

/// `[selfcheck]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelfCheckConfig {
    /// Seconds between two self-tests; 0: none by itself. Default 3600. Each leaves two entries in the log.
    pub self_test_seconds: u64,
    /// Seconds between the starts of two passes over everything stored; 0: none. Default 86400. Each leaves one
    /// entry in the log. A pass that takes longer is followed by the next one at once.
    pub scrub_pass_seconds: u64,
    /// Most bytes that a pass reads in a second. Default 4194304 (4 MiB). More finds rot sooner and costs latency.
    pub scrub_bytes_per_second: u64,
}

impl Default for SelfCheckConfig {
    fn default() -> Self {
        SelfCheckConfig {
            self_test_seconds: 3_600,
            scrub_pass_seconds: 86_400,
            scrub_bytes_per_second: 4 << 20,
        }
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs somebody to act.
    Error,
    /// And what may need it soon.
    Warn,
    /// And what the box does.
    #[default]
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

/// `[log]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info` (default), `debug` or `trace`.
    pub level: LogLevel,
}

pub(super) fn default_names() -> Vec<String> {
    vec!["localhost".to_owned()]
}

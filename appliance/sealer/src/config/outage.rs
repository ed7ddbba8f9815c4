//! `[outage]` and `[anchors]`: whose answers count, when the world is away, and what happens then.
//!
//! Refuses to do: reach anybody; files named here are read once, at start.
//! Invariant: what [`check`] has passed becomes the machines' configuration without another error, but for files that are
//! not there.

use super::{ConfigError, between, refuse};
use bulla_formats::body::probe::is_name;
use bulla_formats::witness::WitnessKey;
use bulla_protocol::anchoring::{AnchorAuthority, AnchorConfig, Quota, Together};
use bulla_protocol::authority::Authority;
use bulla_protocol::mode::{AtLimit, Limits, ModeConfig};
use bulla_timestamps::Oid;
use serde::Deserialize;
use std::path::PathBuf;

/// Most authorities of one box.
pub const AUTHORITIES_MAX: usize = 16;

/// `[outage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutageConfig {
    /// Seconds without any authority until the box declares an emergency. Default 60.
    pub after_seconds: u64,
    /// Seconds an authority has to fail until the box calls itself degraded. Default 30.
    pub degraded_after_seconds: u64,
    /// Seconds an authority has to answer until it counts as back. Default 30.
    pub recover_after_seconds: u64,
    /// Seconds between two looks at each authority. Default 15; at most a third of `after_seconds`.
    pub probe_seconds: u64,
    /// Seconds between two manifests of an outage that lasts. Default 900.
    pub refresh_seconds: u64,
    /// Directories (mount points of removable media) that every manifest is copied to, when they are there. Default none.
    pub media: Vec<PathBuf>,
    /// Text file with the legal wording that manifests name and print. Default: the one built in.
    pub wording: Option<PathBuf>,
    /// Its id with its version, e.g. `bank.example/outage-de/3`. Required with `wording`.
    pub wording_id: Option<String>,
    /// How far the box goes on by itself.
    pub limits: OutageLimits,
}

impl Default for OutageConfig {
    fn default() -> Self {
        OutageConfig {
            after_seconds: 60,
            degraded_after_seconds: 30,
            recover_after_seconds: 30,
            probe_seconds: 15,
            refresh_seconds: 900,
            media: Vec::new(),
            wording: None,
            wording_id: None,
            limits: OutageLimits::default(),
        }
    }
}

/// What happens at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtLimitConfig {
    /// Seal on; manifests say which limit was passed.
    #[default]
    Continue,
    /// Take no new seals until the outage is over (or queue them, as `[queue]` says for a locked box).
    Safe,
}

/// `[outage.limits]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutageLimits {
    /// Longest outage in seconds; 0: no limit. Default 0.
    pub seconds: u64,
    /// Most seals in one outage; 0: no limit. Default 0.
    pub seals: u64,
    /// Fewest neighbours that must hold copies of this log during an outage; 0: no limit. Default 0.
    pub holders: u32,
    /// What happens at a limit: `continue` (default) or `safe`.
    pub at_limit: AtLimitConfig,
}

/// `[anchors]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AnchorsConfig {
    /// By how many distinct operators entries are to be anchored; never more than there are. Default 2.
    pub operators: usize,
    /// So many entries that wait are anchored at once. Default 4096.
    pub window_entries: u64,
    /// Longest time in seconds an entry waits for the first attempt. Default 300.
    pub window_seconds: u64,
    /// Requests that this box may make to all authorities together in `site_period_seconds`; 0: no limit. Default 0.
    pub site_requests: u32,
    /// See `site_requests`. Default 1200.
    pub site_period_seconds: u64,
    /// Time-stamp authorities (RFC 3161). Default none.
    pub tsa: Vec<TsaConfig>,
    /// Witnesses (c2sp.org/tlog-witness). Default none.
    pub witness: Vec<WitnessConfig>,
    /// CRLs of the CAs behind time stamps.
    pub crls: CrlsConfig,
}

/// `[anchors.crls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CrlsConfig {
    /// Whether they are fetched from where the certificates of time-stamp authorities say, and kept. Default true.
    pub fetch: bool,
    /// Seconds from one good CRL to the next look, and from giving up to the next try. Default 21600.
    pub refresh_seconds: u64,
    /// First pause in seconds after a failure; doubles up to 64 times this and never beyond `refresh_seconds`,
    /// eight tries in all. Default 60.
    pub retry_seconds: u64,
    /// Longest time in seconds for one CRL to come. Default 30.
    pub timeout_seconds: u64,
}

impl Default for CrlsConfig {
    fn default() -> Self {
        CrlsConfig { fetch: true, refresh_seconds: 21_600, retry_seconds: 60, timeout_seconds: 30 }
    }
}

impl Default for AnchorsConfig {
    fn default() -> Self {
        AnchorsConfig {
            operators: 2,
            window_entries: 4_096,
            window_seconds: 300,
            site_requests: 0,
            site_period_seconds: 1_200,
            tsa: Vec::new(),
            witness: Vec::new(),
            crls: CrlsConfig::default(),
        }
    }
}

/// How a time-stamp authority is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeConfig {
    /// A connection (and TLS, with https) is enough; costs no request. Whoever takes every connection and does not stamp,
    /// such as a captive portal or a dead server behind a live proxy, is found out by the next anchor only, and does not
    /// count as answering until one has come.
    #[default]
    Connect,
    /// A time stamp is asked for and verified every time. For authorities of one's own.
    Stamp,
}

/// `[[anchors.tsa]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TsaConfig {
    /// Its name in log, status and metrics; for ever the same. Required.
    pub name: String,
    /// Who runs it. Operators are what is counted. Required.
    pub operator: String,
    /// Where requests go: `http://` or `https://`. Required.
    pub url: String,
    /// PEM file of the roots that its tokens must lead to. Required.
    pub roots: PathBuf,
    /// Policy OIDs accepted in its tokens. Default none: any.
    #[serde(default)]
    pub policies: Vec<String>,
    /// PEM file of the CAs of its https server. Default `/etc/ssl/certs/ca-certificates.crt`.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Requests it allows in `period_seconds`; 0: no limit. Default 0. Never exceeded, restarts included.
    #[serde(default)]
    pub requests: u32,
    /// See `requests`. Default 1200.
    #[serde(default = "default_period")]
    pub period_seconds: u64,
    /// Longest time in seconds to wait for an answer. Default 10.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// How it is looked at between anchors: `connect` (default) or `stamp`.
    #[serde(default)]
    pub probe: ProbeConfig,
}

/// `[[anchors.witness]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessConfig {
    /// Its name in log, status and metrics; for ever the same. Required.
    pub name: String,
    /// Who runs it. Required.
    pub operator: String,
    /// Its submission prefix: requests go to `<url>/add-checkpoint`. Required.
    pub url: String,
    /// Its verifier key, e.g. `witness.example/w1+1a2b3c4d+BAAA...`. Required.
    pub key: String,
    /// PEM file of the CAs of its https server. Default `/etc/ssl/certs/ca-certificates.crt`.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Requests it allows in `period_seconds`; 0: no limit. Default 0.
    #[serde(default)]
    pub requests: u32,
    /// See `requests`. Default 1200.
    #[serde(default = "default_period")]
    pub period_seconds: u64,
    /// Longest time in seconds to wait for an answer. Default 10.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
}

fn default_period() -> u64 {
    1_200
}

fn default_timeout() -> u64 {
    10
}

impl AnchorsConfig {
    /// Whether there is anybody to ask.
    pub fn is_empty(&self) -> bool {
        self.tsa.is_empty() && self.witness.is_empty()
    }

    /// All authorities: time-stamp authorities first, then witnesses.
    pub fn authorities(&self) -> Vec<AnchorAuthority> {
        let line =
            |name: &String, operator: &String, requests: u32, period: u64, timeout: u64| AnchorAuthority {
                authority: Authority { id: name.clone(), operator: operator.clone() },
                quota: (requests > 0).then_some(Quota { requests, period: period * 1_000 }),
                timeout: timeout * 1_000,
                batches: false,
            };
        let tsas = self.tsa.iter().map(|tsa| {
            let TsaConfig { name, operator, requests, period_seconds, timeout_seconds, .. } = tsa;
            let line = line(name, operator, *requests, *period_seconds, *timeout_seconds);
            AnchorAuthority { batches: true, ..line }
        });
        let witnesses = self.witness.iter().map(|witness| {
            let WitnessConfig { name, operator, requests, period_seconds, timeout_seconds, .. } = witness;
            line(name, operator, *requests, *period_seconds, *timeout_seconds)
        });
        tsas.chain(witnesses).collect()
    }

    /// As `bulla_protocol` has it; `together`: neighbours' heads are anchored with the own one.
    pub fn planning(&self, together: bool) -> AnchorConfig {
        let offer_every = self.window_seconds * 1_000;
        AnchorConfig {
            site: together.then(|| Together { offer_every, ..Together::default() }),
            authorities: self.authorities(),
            operators: self.operators,
            window_entries: self.window_entries,
            window_age: self.window_seconds * 1_000,
            site_quota: (self.site_requests > 0)
                .then_some(Quota { requests: self.site_requests, period: self.site_period_seconds * 1_000 }),
            ..AnchorConfig::default()
        }
    }
}

impl OutageConfig {
    /// As `bulla_protocol` has it.
    pub fn modes(&self, anchors: &AnchorsConfig) -> ModeConfig {
        let limit = |value: u64| (value > 0).then_some(value);
        ModeConfig {
            authorities: anchors.authorities().into_iter().map(|each| each.authority).collect(),
            outage_after: self.after_seconds * 1_000,
            degraded_after: self.degraded_after_seconds * 1_000,
            recover_after: self.recover_after_seconds * 1_000,
            refresh_every: self.refresh_seconds * 1_000,
            limits: Limits {
                duration: limit(self.limits.seconds.saturating_mul(1_000)),
                seals: limit(self.limits.seals),
                holders: self.limits.holders,
                at_limit: match self.limits.at_limit {
                    AtLimitConfig::Continue => AtLimit::Continue,
                    AtLimitConfig::Safe => AtLimit::Safe,
                },
            },
        }
    }
}

/// Ranges and combinations.
pub(super) fn check(outage: &OutageConfig, anchors: &AnchorsConfig) -> Result<(), ConfigError> {
    between("outage.after_seconds", outage.after_seconds, 3, 86_400)?;
    between("outage.degraded_after_seconds", outage.degraded_after_seconds, 1, 86_400)?;
    between("outage.recover_after_seconds", outage.recover_after_seconds, 1, 86_400)?;
    between("outage.probe_seconds", outage.probe_seconds, 1, outage.after_seconds / 3)?;
    between("outage.refresh_seconds", outage.refresh_seconds, 1, 86_400)?;
    between("outage.limits.seconds", outage.limits.seconds, 0, 31_536_000)?;
    between("outage.limits.seals", outage.limits.seals, 0, 1 << 40)?;
    between("outage.limits.holders", outage.limits.holders.into(), 0, 64)?;
    match (&outage.wording, &outage.wording_id) {
        (None, None) => {}
        (Some(_), Some(id)) if is_name(id) => {}
        _ => {
            return refuse(
                "outage.wording_id",
                "name the wording with its version in 1 to 64 bytes, exactly when outage.wording names its file",
            );
        }
    }
    if outage.media.iter().any(|path| !path.is_absolute()) || outage.media.len() > 8 {
        return refuse("outage.media", "list at most 8 absolute paths of directories");
    }
    between("anchors.operators", anchors.operators as u64, 1, 8)?;
    between("anchors.window_entries", anchors.window_entries, 1, 1 << 40)?;
    between("anchors.window_seconds", anchors.window_seconds, 1, 86_400)?;
    between("anchors.site_period_seconds", anchors.site_period_seconds, 1, 31_536_000)?;
    between("anchors.crls.refresh_seconds", anchors.crls.refresh_seconds, 1, 2_592_000)?;
    between("anchors.crls.retry_seconds", anchors.crls.retry_seconds, 1, 3_600)?;
    between("anchors.crls.timeout_seconds", anchors.crls.timeout_seconds, 1, 300)?;
    if anchors.authorities().len() > AUTHORITIES_MAX {
        return refuse("anchors", format!("name at most {AUTHORITIES_MAX} authorities"));
    }
    let mut names = Vec::new();
    for each in anchors.authorities() {
        let Authority { id, operator } = each.authority;
        if !is_name(&id) || !is_name(&operator) {
            return refuse("anchors", "every authority has a name and an operator of 1 to 64 bytes");
        }
        if names.contains(&id) {
            return refuse("anchors", format!("two authorities are called {id:?}"));
        }
        names.push(id);
        between("anchors.timeout_seconds", each.timeout / 1_000, 1, 120)?;
        between("anchors.period_seconds", each.quota.map_or(1, |quota| quota.period / 1_000), 1, 31_536_000)?;
    }
    let urls = anchors.tsa.iter().map(|tsa| &tsa.url).chain(anchors.witness.iter().map(|one| &one.url));
    for url in urls {
        let uri = url.parse::<hyper::Uri>().ok();
        let good = uri.is_some_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        });
        if !good {
            return refuse("anchors.url", format!("{url:?} is no http:// or https:// address"));
        }
    }
    for tsa in &anchors.tsa {
        if let Some(bad) = tsa.policies.iter().find(|text| Oid::parse(text).is_err()) {
            return refuse("anchors.tsa.policies", format!("{bad:?} is no OID in dotted decimal"));
        }
        if tsa.probe == ProbeConfig::Stamp && tsa.requests > 0 {
            return refuse(
                "anchors.tsa.probe",
                format!(
                    "{:?} has a quota, and probe = \"stamp\" would use it up: write \"connect\"",
                    tsa.name
                ),
            );
        }
    }
    for witness in &anchors.witness {
        if WitnessKey::parse(&witness.key).is_none() {
            let reason =
                format!("{:?} is no verifier key of a witness (name+hash+base64, key type 4)", witness.key);
            return refuse("anchors.witness.key", reason);
        }
    }
    Ok(())
}

//! `[alerts]`: whom the box tells of its own troubles, by webhook and by mail.
//!
//! Refuses to do: reach anybody, or read a secret; files named here are read for each attempt, so that a secret can be
//! changed under a running box and a missing one keeps no box from starting.
//! Invariant: nothing that [`check`] has passed sends a password, or to a public address anything at all, in the clear.

use super::{ConfigError, between, refuse};
use crate::alerts::conditions;
use crate::alerts::kept::RECEIVERS_MAX;
use bulla_formats::body::probe::is_name;
use lettre::message::Mailbox;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Longest name of a site, bytes.
const SITE_BYTES_MAX: usize = 128;
/// Most addresses of one mail.
const ADDRESSES_MAX: usize = 16;

/// `[alerts]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// What people call the place, in every message. Default: the first of `identity.names`.
    pub site: Option<String>,
    /// Hours after which what goes on is told again. Default 4.
    pub repeat_hours: u64,
    /// Seconds in which what begins together is gathered into one message. Default 30.
    pub group_seconds: u64,
    /// Seconds a condition has to be over until that is told. Default 300.
    pub settle_seconds: u64,
    /// First pause in seconds after a failed attempt; it doubles up to `retry_max_seconds`. Default 5.
    pub retry_seconds: u64,
    /// Longest pause in seconds. Default 600.
    pub retry_max_seconds: u64,
    /// Names of conditions that nobody is told of. Default none.
    pub off: Vec<String>,
    /// Other hold times than the table's, in seconds by the name of the condition. Default none.
    pub hold_seconds: BTreeMap<String, u64>,
    /// Web servers that are told. Default none.
    pub webhook: Vec<AlertWebhook>,
    /// Mail addresses that are told. Default none.
    pub mail: Vec<AlertMail>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        AlertsConfig {
            site: None,
            repeat_hours: 4,
            group_seconds: 30,
            settle_seconds: 300,
            retry_seconds: 5,
            retry_max_seconds: 600,
            off: Vec::new(),
            hold_seconds: BTreeMap::new(),
            webhook: Vec::new(),
            mail: Vec::new(),
        }
    }
}

/// What a receiver is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Everything.
    #[default]
    Ticket,
    /// Only what is worth waking somebody.
    Page,
}

/// `[[alerts.webhook]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertWebhook {
    /// Its name in log, status and metrics. Required.
    pub name: String,
    /// Where notifications are posted: `https://`, or `http://` as `plain` says. Required.
    pub url: String,
    /// PEM file of the CAs of its server; no other counts then. Default `/etc/ssl/certs/ca-certificates.crt`.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// File with a secret of 16 to 4096 bytes by which every post is signed. Default none.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// File with a token that is sent as `Authorization: Bearer`. Default none.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// `ticket` (everything, default) or `page`.
    #[serde(default)]
    pub severity: Severity,
    /// Allow `http://`, to a loopback or private address. Default false.
    #[serde(default)]
    pub plain: bool,
    /// Longest time in seconds for one attempt. Default 10.
    #[serde(default = "webhook_timeout")]
    pub timeout_seconds: u64,
}

/// How a mail server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MailTls {
    /// In the clear until STARTTLS, which must succeed.
    #[default]
    #[serde(rename = "starttls")]
    StartTls,
    /// TLS from the start.
    Tls,
    /// In the clear, without a password.
    None,
}

/// `[[alerts.mail]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertMail {
    /// Its name in log, status and metrics. Required.
    pub name: String,
    /// Name or address of the mail server. Required.
    pub host: String,
    /// Its port. Default: 587 for `starttls`, 465 for `tls`, 25 for `none`.
    #[serde(default)]
    pub port: Option<u16>,
    /// `starttls` (default), `tls`, or `none`: in the clear, only without a password.
    #[serde(default)]
    pub tls: MailTls,
    /// PEM file of the CAs of the server; no other counts then. Default `/etc/ssl/certs/ca-certificates.crt`.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Address that mails come from. Required.
    pub from: String,
    /// Addresses that they go to, at most 16. Required.
    pub to: Vec<String>,
    /// User at the mail server; together with `password_file`. Default none.
    #[serde(default)]
    pub user: Option<String>,
    /// File with the password. Default none.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// `ticket` (everything, default) or `page`.
    #[serde(default)]
    pub severity: Severity,
    /// Longest time in seconds for one attempt. Default 30.
    #[serde(default = "mail_timeout")]
    pub timeout_seconds: u64,
}

fn webhook_timeout() -> u64 {
    10
}

fn mail_timeout() -> u64 {
    30
}

impl AlertMail {
    /// The port, by the way that the server is spoken to where none is named.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(match self.tls {
            MailTls::StartTls => 587,
            MailTls::Tls => 465,
            MailTls::None => 25,
        })
    }
}

/// Whether a host is this machine, or an address that is not routed on the internet.
fn is_private(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => host == "localhost",
    }
}

/// Ranges, names and combinations.
pub(super) fn check(alerts: &AlertsConfig) -> Result<(), ConfigError> {
    between("alerts.repeat_hours", alerts.repeat_hours, 1, 720)?;
    between("alerts.group_seconds", alerts.group_seconds, 0, 3_600)?;
    between("alerts.settle_seconds", alerts.settle_seconds, 0, 86_400)?;
    between("alerts.retry_seconds", alerts.retry_seconds, 1, 3_600)?;
    between("alerts.retry_max_seconds", alerts.retry_max_seconds, alerts.retry_seconds, 86_400)?;
    if let Some(site) = &alerts.site
        && (site.trim().is_empty() || site.len() > SITE_BYTES_MAX || site.chars().any(char::is_control))
    {
        return refuse("alerts.site", format!("write 1 to {SITE_BYTES_MAX} bytes without line breaks"));
    }
    if let Some(name) = alerts.off.iter().find(|name| conditions::find(name).is_none()) {
        return refuse("alerts.off", unknown(name));
    }
    for (name, seconds) in &alerts.hold_seconds {
        if conditions::find(name).is_none() {
            return refuse("alerts.hold_seconds", unknown(name));
        }
        between("alerts.hold_seconds", *seconds, 0, 31_536_000)?;
    }
    let names: Vec<&String> = alerts
        .webhook
        .iter()
        .map(|webhook| &webhook.name)
        .chain(alerts.mail.iter().map(|mail| &mail.name))
        .collect();
    if names.len() > RECEIVERS_MAX {
        return refuse("alerts", format!("name at most {RECEIVERS_MAX} receivers"));
    }
    for (at, name) in names.iter().enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !is_name(name) || !name.bytes().all(plain) {
            return refuse(
                "alerts",
                format!("{name:?} is no name of a receiver: 1 to 64 of a-z A-Z 0-9 - _ ."),
            );
        }
        if names[..at].contains(name) {
            return refuse("alerts", format!("two receivers are called {name:?}"));
        }
    }
    alerts.webhook.iter().try_for_each(webhook)?;
    alerts.mail.iter().try_for_each(mail)
}

fn unknown(name: &str) -> String {
    let all: Vec<&str> = conditions::ALL.iter().map(|one| one.name).collect();
    format!("{name:?} is no condition; there are {}", all.join(", "))
}

fn webhook(webhook: &AlertWebhook) -> Result<(), ConfigError> {
    between("alerts.webhook.timeout_seconds", webhook.timeout_seconds, 1, 120)?;
    let files = [&webhook.tls_ca, &webhook.secret_file, &webhook.token_file];
    absolute("alerts.webhook", files.into_iter().flatten())?;
    // The address itself may be a secret and is not repeated.
    let key = "alerts.webhook.url";
    let of = |what: &str| refuse(key, format!("the url of {:?} {what}", webhook.name));
    let Ok(uri) = webhook.url.parse::<hyper::Uri>() else { return of("is no address") };
    let host = uri.host().unwrap_or_default();
    if host.is_empty() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return of("has no host, or a user in it: put a token into token_file");
    }
    match uri.scheme_str() {
        Some("https") if webhook.plain => of("is https://, which plain = true is not for: remove that line"),
        Some("https") => Ok(()),
        Some("http") if !webhook.plain => of(
            "is http://, which anybody on the way can read and forge: write https://, or plain = true for a private address",
        ),
        Some("http") if !is_private(host) => {
            of("is http:// to an address that is neither loopback nor private: write https://")
        }
        Some("http") if webhook.tls_ca.is_some() || webhook.token_file.is_some() => {
            of("is http://, where tls_ca means nothing and a token would be read by anybody: use secret_file")
        }
        Some("http") => Ok(()),
        _ => of("is neither https:// nor http://"),
    }
}

fn mail(mail: &AlertMail) -> Result<(), ConfigError> {
    between("alerts.mail.timeout_seconds", mail.timeout_seconds, 1, 300)?;
    absolute("alerts.mail", [&mail.tls_ca, &mail.password_file].into_iter().flatten())?;
    if rustls::pki_types::ServerName::try_from(mail.host.as_str()).is_err() || mail.port == Some(0) {
        return refuse(
            "alerts.mail.host",
            format!("{:?} is neither a name nor an address, or its port is 0", mail.host),
        );
    }
    if mail.user.is_some() != mail.password_file.is_some() {
        return refuse("alerts.mail.user", "user and password_file go together: write both, or neither");
    }
    if mail.tls == MailTls::None && (mail.user.is_some() || mail.tls_ca.is_some()) {
        return refuse(
            "alerts.mail.tls",
            "\"none\" sends in the clear, where neither a password nor tls_ca belongs",
        );
    }
    if mail.to.is_empty() || mail.to.len() > ADDRESSES_MAX {
        return refuse("alerts.mail.to", format!("name 1 to {ADDRESSES_MAX} addresses"));
    }
    for (key, address) in
        [("alerts.mail.from", &mail.from)].into_iter().chain(mail.to.iter().map(|to| ("alerts.mail.to", to)))
    {
        if address.parse::<Mailbox>().is_err() {
            return refuse(key, format!("{address:?} is no mail address"));
        }
    }
    Ok(())
}

fn absolute<'a>(key: &'static str, mut paths: impl Iterator<Item = &'a PathBuf>) -> Result<(), ConfigError> {
    let relative = |path: &&PathBuf| !Path::new(path).is_absolute();
    match paths.find(relative) {
        Some(path) => refuse(key, format!("{} is no absolute path", path.display())),
        None => Ok(()),
    }
}

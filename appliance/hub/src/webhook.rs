//! Findings handed to a web server of the operator's: one POST each, in the order of their numbers, at least once.
//!
//! A post is `Content-Type: application/json`, the line of the feed with the hub's name, and these headers: `Bulla-Hub`,
//! `Bulla-Finding` (the number; who has seen it takes it and forgets it), `Authorization: Bearer` with a token, and
//! `Bulla-Signature: sha256=` with the HMAC-SHA256 of the body by the shared secret, as the configuration has it.
//! Refuses to do: skip a finding that was not taken; follow redirects; hold the index while it waits.
//! Invariant: what counts as told was answered with 2xx.

use crate::config::WebhookConfig;
use crate::exit::{Exit, Failure};
use crate::hub::Hub;
use crate::source::roots;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use std::path::Path;
use std::time::Duration;
use ureq::Agent;
use ureq::tls::TlsConfig;
use zeroize::Zeroizing;

/// Findings read at a time.
const BATCH: usize = 256;
/// Longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// Shortest secret.
const SECRET_BYTES_MIN: usize = 32;

struct Receiver {
    agent: Agent,
    url: String,
    hub: String,
    authorization: Option<Zeroizing<String>>,
    secret: Option<Zeroizing<Vec<u8>>>,
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let words = |error| format!("webhook: {} cannot be read ({error})", path.display());
    std::fs::read(path).map(Zeroizing::new).map_err(|error| Failure::usage(words(error)))
}

impl Receiver {
    fn new(config: &WebhookConfig, hub: &str) -> Result<Self, Failure> {
        let mut builder = Agent::config_builder()
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .user_agent(concat!("bulla-hub/", env!("CARGO_PKG_VERSION")))
            .timeout_global(Some(Duration::from_secs(config.timeout_seconds)));
        if let Some(ca) = &config.ca {
            let roots = roots(ca).map_err(|error| Failure::usage(format!("webhook: {error}")))?;
            builder = builder.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let authorization = match &config.token_file {
            None => None,
            Some(path) => {
                let bytes = read(path)?;
                let token = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
                if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(Failure::usage(format!("webhook: {} holds no token", path.display())));
                }
                Some(Zeroizing::new(format!("Bearer {token}")))
            }
        };
        let secret = match &config.secret_file {
            None => None,
            Some(path) => {
                let secret = read(path)?;
                if secret.len() < SECRET_BYTES_MIN {
                    let words = format!("webhook: {} has less than {SECRET_BYTES_MIN} bytes", path.display());
                    return Err(Failure::usage(words));
                }
                Some(secret)
            }
        };
        let agent = builder.build().new_agent();
        Ok(Receiver { agent, url: config.url.clone(), hub: hub.to_owned(), authorization, secret })
    }

    /// Posts one finding; the sentence says why it was not taken.
    fn post(&self, finding: &Value) -> Result<(), String> {
        let mut finding = finding.clone();
        finding["hub"] = self.hub.clone().into();
        let body = finding.to_string();
        let mut request = self
            .agent
            .post(&self.url)
            .header("Content-Type", "application/json")
            .header("Bulla-Hub", hex::encode(&self.hub))
            .header("Bulla-Finding", finding["seq"].to_string());
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization.as_str());
        }
        if let Some(secret) = &self.secret {
            request = request.header("Bulla-Signature", signature(secret, body.as_bytes()));
        }
        let answer =
            request.send(body).map_err(|error| format!("{} cannot be reached ({error})", self.url))?;
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("{} answered with status {}", self.url, status.as_u16()))
        }
    }
}

/// The value of `Bulla-Signature`.
fn signature(secret: &[u8], body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of every length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// Reads the files that the section names.
pub fn check(config: &WebhookConfig, hub: &str) -> Result<(), Failure> {
    Receiver::new(config, hub).map(drop)
}

/// Hands out what has not been taken yet, each finding with so many attempts. Returns how many were taken; `None` without a
/// webhook.
pub fn deliver(path: &Path, attempts: u32) -> Result<Option<u64>, Failure> {
    let mut told = 0;
    loop {
        // Opened for each batch and each answer: in between, others have the index.
        let hub = Hub::open(path)?;
        let Some(config) = hub.config.webhook.clone() else { return Ok(None) };
        let from = hub.index.untold()?;
        let findings: Vec<Value> = hub.index.findings(from)?.into_iter().take(BATCH).collect();
        let receiver = Receiver::new(&config, &hub.config.name)?;
        drop(hub);
        let Some(last) = findings.last() else { return Ok(Some(told)) };
        let mut next = last["seq"].as_u64().map_or(from, |seq| seq + 1);
        let mut trouble = None;
        for finding in findings.iter().filter(|finding| config.severity.admits(finding)) {
            match patiently(&receiver, finding, attempts, config.retry_seconds) {
                Ok(()) => told += 1,
                Err(words) => {
                    next = finding["seq"].as_u64().unwrap_or(from);
                    trouble = Some(words);
                    break;
                }
            }
        }
        if next > from {
            Hub::open(path)?.index.told(next)?;
        }
        if let Some(words) = trouble {
            let message = format!("webhook: {words}; findings from {next} on are kept for the next time");
            return Err(Failure { exit: Exit::Unreached, message });
        }
    }
}

fn patiently(receiver: &Receiver, finding: &Value, attempts: u32, retry_seconds: u64) -> Result<(), String> {
    let mut pause = Duration::from_secs(retry_seconds).min(PAUSE_MAX);
    let mut attempt = 1;
    loop {
        match receiver.post(finding) {
            Ok(()) => return Ok(()),
            Err(words) if attempt >= attempts => return Err(words),
            Err(_) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
                attempt += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_rfc_4231() {
        // Test case 1 of RFC 4231.
        assert_eq!(
            signature(&[0x0b; 20], b"Hi There"),
            "sha256=b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
    }
}

//! The running box, asked over its own API as the operator whose token is given.
//!
//! Refuses to do: send the token to anybody but whoever has a certificate of the box's own CA.

use crate::config::Config;
use anyhow::{Context as _, Result, bail};
use bulla_formats::json::base64_encode;
use clap::Args;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

/// Largest answer read, bytes.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// How long the box may take over what is handed in.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes of a file that is handed in. One byte more than `limit` shows the box that it is too long; more need not be
/// read.
///
/// # Errors
/// It cannot be opened or read.
pub fn handed_in(path: &Path, limit: usize) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    Ok(bytes)
}

/// What is handed in: a file, and who does.
#[derive(Debug, Args)]
pub struct HandIn {
    /// The file, as `bulla-fleet` wrote it.
    file: PathBuf,
    /// An operator's token, in a file.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
}

impl HandIn {
    /// Posts the file's bytes in base64 as the member `name` of an object to `path`; what the box answers.
    ///
    /// # Errors
    /// A file cannot be read; the box does not answer, or refuses.
    pub fn post(&self, config: &Config, path: &str, name: &str, limit: usize) -> Result<Value> {
        let bytes = handed_in(&self.file, limit)?;
        let running = Running::new(&self.token_file, config, PATIENCE)?;
        running.post(path, &json!({name: base64_encode(&bytes)}))
    }
}

/// A way to the running box.
pub struct Running {
    agent: Agent,
    base: String,
    authorization: String,
}

impl Running {
    /// Reads token and CA. `patience`: from the last byte sent to the first of the answer.
    ///
    /// # Errors
    /// One of the files cannot be read.
    pub fn new(token_file: &Path, config: &Config, patience: Duration) -> Result<Self> {
        let token = std::fs::read_to_string(token_file)
            .with_context(|| format!("the token file {} cannot be read", token_file.display()))?;
        let pem =
            std::fs::read(config.state_dir.join("ca.pem")).context("the box's ca.pem cannot be read")?;
        let roots = parse_pem(&pem).filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        });
        let tls = TlsConfig::builder().root_certs(RootCerts::from(roots.collect::<Vec<_>>())).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .max_redirects(0)
            .proxy(None)
            .http_status_as_error(false)
            .timeout_recv_response(Some(patience))
            .build()
            .new_agent();
        // A name of the box's own certificate; the loopback one when it has it.
        let names = &config.identity.names;
        let host = names.iter().find(|name| *name == "localhost").or(names.first());
        let host = host.context("the box has no name; see identity.names")?;
        Ok(Running {
            agent,
            base: format!("https://{host}:{}", config.listen.port()),
            authorization: format!("Bearer {}", token.trim()),
        })
    }

    /// Posts `body`; what the box answers.
    ///
    /// # Errors
    /// It does not answer, or refuses: then its own words are in the error.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self
            .agent
            .post(&url)
            .header("authorization", &self.authorization)
            .header("content-type", "application/json")
            .send(body.to_string());
        let mut answer =
            answer.with_context(|| format!("the box does not answer at {url}; is it running?"))?;
        let ok = answer.status().is_success();
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if !ok {
            bail!("the box refused: {}", value["detail"].as_str().unwrap_or("without an explanation"));
        }
        Ok(value)
    }
}

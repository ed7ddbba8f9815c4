//! Time-stamping authorities of a test's own: several operators, each with a root, a port and its switches.
//!
//! They run inside the test and end with it; what they stamp is made by the program `openssl`.

pub use bulla_authorities::faults::Quota;
pub use bulla_authorities::gate::Transport;
pub use bulla_authorities::pki::Key;
pub use bulla_authorities::tls::Handshake;
pub use bulla_authorities::tsa::{Answer, Counters, CrlAnswer, Knobs, Options};

use anyhow::{Context, Result};
use bulla_authorities::tsa::Tsa;
use bulla_timestamps::{Authority, REPLY_BYTES_MAX, Request};
use std::ops::Deref;
use std::time::Duration;
use tempfile::TempDir;

/// A running authority, with the directory that its keys are in. See [`Tsa`] for what it can do.
pub struct Stamps {
    tsa: Tsa,
    _directory: TempDir,
}

impl Deref for Stamps {
    type Target = Tsa;

    fn deref(&self) -> &Tsa {
        &self.tsa
    }
}

/// What came back over HTTP.
#[derive(Debug)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Seconds of `Retry-After`.
    pub retry_after: Option<u64>,
    /// The body.
    pub body: Vec<u8>,
}

impl Stamps {
    /// An authority on P-256, without an intermediate CA.
    pub fn start(operator: &str) -> Result<Self> {
        Self::start_with(&Options { operator, ..Options::default() })
    }

    /// An authority as told.
    pub fn start_with(options: &Options<'_>) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bulla-tsa-").tempdir()?;
        let tsa = Tsa::start(directory.path(), options)?;
        Ok(Stamps { tsa, _directory: directory })
    }

    /// It, as whoever pins its root sees it.
    pub fn authority(&self) -> Result<Authority> {
        Ok(Authority::from_pem(&std::fs::read(self.root_pem())?, vec![])?)
    }

    /// Asks it for a stamp, as a careful client does: so long and not longer, so much and not more.
    pub fn ask(&self, request: &Request, patience: Duration) -> Result<Reply> {
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(patience))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .new_agent();
        let post = agent.post(self.url()).header("content-type", Request::CONTENT_TYPE);
        let mut answer = post.send(&request.encode()[..]).context("no answer")?;
        let header = answer.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let (status, retry_after) = (answer.status().as_u16(), header.and_then(|text| text.parse().ok()));
        let limited = answer.body_mut().with_config().limit(REPLY_BYTES_MAX as u64);
        Ok(Reply { status, retry_after, body: limited.read_to_vec().context("no body")? })
    }
}

//! A time-stamping authority of its own: a root, a signer, a port that stamps (http, or https under a CA of its own), a
//! port that throws the switches, and, if wished, one that publishes CRLs.
//!
//! Refuses to do: serve anybody but this machine. Its keys are files in a directory of the test.

mod knobs;
mod serve;
mod shelf;
mod signing;

pub use knobs::{Answer, Counters, CrlAnswer, Knobs};

use crate::gate::Gate;
use crate::pki::Key;
use crate::tls::Front;
use anyhow::{Context, Result};
use serve::Service;
use shelf::Shelf;
use signing::Signing;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// What an authority is to be.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Who runs it: in its certificates, and what a box counts by.
    pub operator: &'a str,
    /// Kind of all its keys.
    pub key: Key,
    /// Whether a CA stands between root and signer.
    pub intermediate: bool,
    /// Port of the stamps; 0 for any.
    pub port: u16,
    /// Port of the switches; 0 for any.
    pub control_port: u16,
    /// Names and addresses in the certificate of its https server; none: it speaks http.
    pub https: &'a [&'a str],
    /// Whether its CAs publish CRLs, and its certificates name them.
    pub crls: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            operator: "Stamps of tests",
            key: Key::P256,
            intermediate: false,
            port: 0,
            control_port: 0,
            https: &[],
            crls: false,
        }
    }
}

/// A running authority; ends when it is dropped.
pub struct Tsa {
    operator: String,
    root: PathBuf,
    front: Option<Arc<Front>>,
    service: Arc<Service>,
    control: Gate,
    runtime: Option<Runtime>,
}

impl Tsa {
    /// Makes its keys in `directory` and starts it.
    pub fn start(directory: &Path, options: &Options<'_>) -> Result<Self> {
        let tls = || Front::new(directory, options.https).map(Arc::new);
        let front = (!options.https.is_empty()).then(tls).transpose()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (root, service, control) = runtime.block_on(async {
            // Certificates name the port, so it is taken before there are any.
            let shelf = options.crls.then(|| Shelf::open(local(0))).transpose()?;
            let signing = Signing::new(directory, options, shelf.as_ref().map(Shelf::url).as_deref())?;
            let root = signing.root_pem();
            let service = Service::start(signing, local(options.port), front.clone(), shelf)?;
            let control = Gate::open(local(options.control_port), serve::switches(service.clone()))?;
            anyhow::Ok((root, service, control))
        })?;
        Ok(Tsa {
            operator: options.operator.to_owned(),
            root,
            front,
            service,
            control,
            runtime: Some(runtime),
        })
    }

    /// Where requests are posted to.
    pub fn url(&self) -> String {
        let scheme = if self.front.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/stamp", self.service.address())
    }

    /// `PUT /knobs`, `GET /knobs`, `GET /counters`.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control.address())
    }

    /// Who runs it.
    pub fn operator(&self) -> &str {
        &self.operator
    }

    /// Its root certificate.
    pub fn root_pem(&self) -> &Path {
        &self.root
    }

    /// CRLs of its CAs are below this address.
    pub fn crl_url(&self) -> Option<String> {
        self.service.crl_url()
    }

    /// The CA of its https server; `None` when it speaks http.
    pub fn tls_ca_pem(&self) -> Option<&Path> {
        self.front.as_deref().map(Front::ca_pem)
    }

    /// Sets all switches; when it returns, they are in force, and earlier connections are gone if the port changed.
    pub fn set(&self, knobs: &Knobs) -> Result<()> {
        let runtime = self.runtime.as_ref().context("it runs until it is dropped")?;
        runtime.block_on(self.service.set(knobs.clone()))
    }

    /// Sets how it answers, everything else as at the start.
    pub fn answer(&self, answer: Answer) -> Result<()> {
        self.set(&Knobs { answer, ..Knobs::default() })
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.service.counters()
    }
}

impl Drop for Tsa {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

//! A witness of its own (c2sp.org/tlog-witness): a key, the logs it knows, what it has cosigned, and its switches.
//!
//! Strict in everything the protocol asks of a witness; consistency is checked by `tlog_tiles`.
//! Refuses to do: keep its memory longer than its process; serve anybody but this machine.

mod knobs;
mod notes;
mod serve;

pub use knobs::{Answer, Counters, Knobs};

use crate::gate::Gate;
use anyhow::{Context, Result};
use ed25519_dalek::SigningKey;
use serve::Service;
use sha2::{Digest as _, Sha256};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

/// A running witness; ends when it is dropped.
pub struct Witness {
    name: String,
    service: Arc<Service>,
    control: Gate,
    runtime: Option<Runtime>,
}

impl Witness {
    /// Starts it on these ports (0 for any). Its key is made from its name: one name, one witness.
    pub fn start(name: &str, port: u16, control_port: u16) -> Result<Self> {
        let key = SigningKey::from_bytes(&Sha256::digest(format!("a witness of tests\n{name}")).into());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (service, control) = runtime.block_on(async {
            let service = Service::start(name, key, local(port))?;
            let control = Gate::open(local(control_port), serve::switches(service.clone()))?;
            anyhow::Ok((service, control))
        })?;
        Ok(Witness { name: name.to_owned(), service, control, runtime: Some(runtime) })
    }

    /// Its submission prefix: `<url>/add-checkpoint`.
    pub fn url(&self) -> String {
        format!("http://{}", self.service.address())
    }

    /// `GET` and `PUT /knobs`, `GET /counters`, `POST /logs` (a log's verifier key), `DELETE /memory`.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control.address())
    }

    /// Its key name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its verifier key.
    pub fn key(&self) -> String {
        self.service.key()
    }

    /// Has it know a log by its verifier key (type 0x01).
    pub fn know(&self, log: &str) -> Result<()> {
        self.service.know(log)
    }

    /// Sets all switches; when it returns, they are in force.
    pub fn set(&self, knobs: &Knobs) -> Result<()> {
        let runtime = self.runtime.as_ref().context("it runs until it is dropped")?;
        runtime.block_on(self.service.set(knobs.clone()))
    }

    /// Sets how it answers, everything else as at the start.
    pub fn answer(&self, answer: Answer) -> Result<()> {
        self.set(&Knobs { answer, ..Knobs::default() })
    }

    /// Loses what it has cosigned, as a witness restored from an old disk does.
    pub fn forget(&self) {
        self.service.forget();
    }

    /// Size of the tree that it cosigned last for this origin.
    pub fn size(&self, origin: &str) -> Option<u64> {
        self.service.size(origin)
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.service.counters()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

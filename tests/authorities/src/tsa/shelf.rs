//! The port that CRLs are published on. It is there before the certificates that name it, and before who fills it.

use super::serve::Service;
use crate::gate::{Gate, Handler, Transport, says};
use anyhow::Result;
use hyper::StatusCode;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, Weak};

pub(super) struct Shelf {
    gate: Gate,
    service: Arc<OnceLock<Weak<Service>>>,
}

impl Shelf {
    /// Takes a port; nothing is there until [`Shelf::of`].
    pub fn open(address: SocketAddr) -> Result<Self> {
        let service: Arc<OnceLock<Weak<Service>>> = Arc::default();
        let own = service.clone();
        let handler: Handler = Arc::new(move |request| {
            let service = own.get().and_then(Weak::upgrade);
            Box::pin(async move {
                match service {
                    Some(service) => service.crl(request).await,
                    None => says(StatusCode::SERVICE_UNAVAILABLE, "nothing here yet"),
                }
            })
        });
        Ok(Shelf { gate: Gate::open(address, handler)?, service })
    }

    /// From now on it is this service's.
    pub fn of(&self, service: &Arc<Service>) {
        self.service.get_or_init(|| Arc::downgrade(service));
    }

    /// CRLs are below this address.
    pub fn url(&self) -> String {
        format!("http://{}", self.gate.address())
    }

    /// Whether connections are taken.
    pub async fn reachable(&self, reachable: bool) -> Result<()> {
        self.gate.set(if reachable { Transport::Up } else { Transport::Down }).await
    }
}

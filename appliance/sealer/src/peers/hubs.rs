//! The fleet's hubs as the roster names them now: whom the listener lets in, and whose leases count.
//!
//! One list for the whole box, which the neighbours' thread keeps: empty without `[peers]`, and until the roster on the disk
//! is taken up at a start.
//! Refuses to do: remember a hub that the roster does not name any more.
//! Invariant: who asks after a change sees the new list.

use bulla_roster::terms::Hub;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

/// The list; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Hubs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    list: RwLock<Vec<Hub>>,
    changes: AtomicU64,
}

impl Hubs {
    /// Takes over what a roster says.
    pub fn set(&self, hubs: &[Hub]) {
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        if *list != hubs {
            for gone in list.iter().filter(|known| !hubs.iter().any(|hub| hub.name == known.name)) {
                log::warn!("the hub {} is none any more by the roster, and is shut out", gone.name);
            }
            for new in hubs.iter().filter(|hub| !list.iter().any(|known| known.name == hub.name)) {
                log::info!("the roster names the hub {}", new.name);
            }
            *list = hubs.to_vec();
            self.0.changes.fetch_add(1, SeqCst);
        }
    }

    /// Grows with each change.
    pub fn changes(&self) -> u64 {
        self.0.changes.load(SeqCst)
    }

    fn find<T>(&self, of: impl Fn(&Hub) -> Option<T>) -> Option<T> {
        self.0.list.read().unwrap_or_else(PoisonError::into_inner).iter().find_map(of)
    }

    /// Whether any hub comes with a client certificate.
    pub fn come(&self) -> bool {
        self.find(|hub| (!hub.clients.is_empty()).then_some(())).is_some()
    }

    /// Name of the hub whose client certificate has this key (SHA-256 of its SubjectPublicKeyInfo).
    pub fn by_client(&self, spki_sha256: &[u8; 32]) -> Option<String> {
        self.find(|hub| {
            let own = hub.clients.iter().any(|pin| **pin == *spki_sha256);
            own.then(|| hub.name.clone())
        })
    }

    /// Key by which the hub of this name signs leases, while it may issue any.
    pub fn lease_key(&self, name: &str) -> Option<[u8; 32]> {
        self.find(|hub| (hub.leases && hub.name == name).then_some(*hub.heads_key))
    }
}

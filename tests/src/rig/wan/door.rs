//! A listener that closes when it is dropped, so that the next rig may listen at the same address.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, spawn};

/// An open listener; whoever comes in has a thread, which ends with the connection.
pub(super) struct Door {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Listens, on any port for 0.
    pub(super) fn open(
        at: (Ipv4Addr, u16),
        serve: impl Fn(TcpStream) + Clone + Send + 'static,
    ) -> Result<Self> {
        let listener =
            TcpListener::bind(at).with_context(|| format!("cannot listen on {}:{}", at.0, at.1))?;
        let (address, closed) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let seen = closed.clone();
        let thread = spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                if seen.load(Relaxed) {
                    return;
                }
                let serve = serve.clone();
                spawn(move || serve(client));
            }
        });
        Ok(Door { address, closed, thread: Some(thread) })
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.closed.store(true, Relaxed);
        // The thread waits for somebody; it shall be us.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| woken) {
            let _ = thread.join();
        }
    }
}

//! A listener that closes when it is dropped, so that the next rig may listen at the same address.

use super::netns;
use anyhow::{Context, Result};
use rustix::net::{Shutdown, shutdown};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};

/// An open listener; whoever comes in has a thread, which ends with the connection.
pub(super) struct Door {
    listener: Arc<TcpListener>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Listens, on any port for 0; in a network namespace, or where the test is.
    pub(super) fn open(
        space: Option<&str>,
        at: (Ipv4Addr, u16),
        serve: impl Fn(TcpStream) + Clone + Send + 'static,
    ) -> Result<Self> {
        // The threads belong to the test's network, whichever the listener's is.
        let bound = match space {
            Some(space) => netns::inside(space, || TcpListener::bind(at))?,
            None => TcpListener::bind(at),
        };
        let listener = Arc::new(bound.with_context(|| format!("cannot listen on {}:{}", at.0, at.1))?);
        let (port, open) = (listener.local_addr()?.port(), listener.clone());
        let thread = spawn(move || {
            while let Ok((client, _)) = open.accept() {
                let serve = serve.clone();
                spawn(move || serve(client));
            }
        });
        Ok(Door { listener, port, thread: Some(thread) })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // Whoever waits in accept is woken by it, and fails.
        let closed = shutdown(&*self.listener, Shutdown::Both).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| closed) {
            let _ = thread.join();
        }
    }
}

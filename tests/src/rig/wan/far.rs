//! What answers on the far side of a WAN when no authority does: a resolver, a hotel's portal, somebody who never speaks.

use super::names::Names;
use crate::rig::door::Door;
use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// What a guest of the hotel sees, whatever was asked for.
const LOGIN_PAGE: &str = "<!DOCTYPE html><title>Welcome</title><h1>Please log in to use the network</h1>";
/// A guest who says nothing is shown the page all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// The listeners.
pub(super) struct FarSide {
    address: Ipv4Addr,
    portal: Door,
    silent: Door,
    taken: Arc<AtomicUsize>,
    _names: Names,
}

impl FarSide {
    /// Begins to listen at this address.
    pub(super) fn start(address: Ipv4Addr) -> Result<Self> {
        let taken = Arc::new(AtomicUsize::new(0));
        let counted = |serve: fn(TcpStream)| {
            let taken = taken.clone();
            move |client| {
                taken.fetch_add(1, Relaxed);
                serve(client);
            }
        };
        let portal = Door::open(None, (address, 0), counted(login))?;
        let silent = Door::open(None, (address, 0), counted(listen))?;
        Ok(FarSide { address, portal, silent, taken, _names: Names::start(address)? })
    }

    pub(super) fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub(super) fn portal(&self) -> u16 {
        self.portal.port()
    }

    pub(super) fn silent(&self) -> u16 {
        self.silent.port()
    }

    pub(super) fn taken(&self) -> usize {
        self.taken.load(Relaxed)
    }
}

/// Shows the page to whatever has been said so far.
fn login(mut guest: TcpStream) {
    let mut said = [0; 65_536];
    let _ = guest.set_read_timeout(Some(PATIENCE));
    let _ = guest.read(&mut said);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length:";
    let _ = write!(guest, "{head} {}\r\n\r\n{LOGIN_PAGE}", LOGIN_PAGE.len());
}

/// Hears everything and says nothing, for as long as the other side likes.
fn listen(mut guest: TcpStream) {
    let _ = std::io::copy(&mut guest, &mut std::io::sink());
}

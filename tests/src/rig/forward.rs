//! Bytes carried from one address to another, where a program insists on a place.
//!
//! Refuses to do: lose or delay anything.

use super::door::Door;
use super::netns;
use anyhow::Result;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::thread::spawn;

/// A port of an address, in a network namespace or where the test is.
#[derive(Clone)]
pub(super) struct Place {
    pub space: Option<String>,
    pub at: (Ipv4Addr, u16),
}

impl Place {
    /// Where the test is.
    pub fn here(address: Ipv4Addr, port: u16) -> Self {
        Place { space: None, at: (address, port) }
    }

    fn connect(&self) -> Result<TcpStream> {
        match &self.space {
            Some(space) => Ok(netns::inside(space, || TcpStream::connect(self.at))??),
            None => Ok(TcpStream::connect(self.at)?),
        }
    }
}

/// Carries every connection to `from` on to `to`.
pub(super) fn open(from: &Place, to: Place) -> Result<Door> {
    Door::open(from.space.as_deref(), from.at, move |client| {
        // A refusal becomes a connection that ends at once.
        let Ok(server) = to.connect() else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (Ok(client_in), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
        spawn(move || carry(client_in, server_out));
        carry(server, client);
    })
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let whole = copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
    if whole.is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
}

//! Bytes carried from one address to another, where a program insists on a place.
//!
//! Refuses to do: lose or delay anything.

use super::door::Door;
use anyhow::Result;
use std::io::copy;
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::thread::spawn;

/// Carries every connection to `from` on to `to`.
pub(super) fn open(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Result<Door> {
    Door::open(from, move |client| {
        // A refusal becomes a connection that ends at once.
        let Ok(server) = TcpStream::connect(to) else { return };
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

//! A TCP proxy before a TPM: delays every response, and keeps what it saw, as a probe on the bus would.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Everything that passed, both ways.
pub type Tap = Arc<Mutex<Vec<u8>>>;

/// Forwards two neighbouring ports to `target` and the next one; gives the address for `Provider::Tpm`.
pub fn start(target: u16, delay: Duration) -> (String, Tap) {
    let tap = Tap::default();
    loop {
        let port = crate::common::free_ports();
        // Both or neither: somebody else may have taken them meanwhile.
        if let (Ok(data), Ok(control)) =
            (TcpListener::bind(("127.0.0.1", port)), TcpListener::bind(("127.0.0.1", port + 1)))
        {
            let seen = tap.clone();
            thread::spawn(move || serve(&data, target, delay, &seen));
            let seen = tap.clone();
            thread::spawn(move || serve(&control, target + 1, delay, &seen));
            return (format!("swtpm:host=127.0.0.1,port={port}"), tap);
        }
    }
}

fn serve(listener: &TcpListener, target: u16, delay: Duration, tap: &Tap) {
    for client in listener.incoming() {
        let (client, server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", target)).unwrap());
        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        let seen = tap.clone();
        thread::spawn(move || copy(from, to, Duration::ZERO, &seen));
        let seen = tap.clone();
        thread::spawn(move || copy(server, client, delay, &seen));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, delay: Duration, tap: &Tap) {
    let mut buffer = [0; 8192];
    while let Ok(len) = from.read(&mut buffer) {
        if len == 0 {
            break;
        }
        tap.lock().unwrap().extend(&buffer[..len]);
        thread::sleep(delay);
        if to.write_all(&buffer[..len]).is_err() {
            break;
        }
    }
    // The other side may be closed already; then there is nothing to end.
    let _closed = to.shutdown(std::net::Shutdown::Write);
}

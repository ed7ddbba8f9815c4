//! A wire that breaks after an exact number of bytes: a TCP proxy before the box.
//!
//! It cuts below TLS, so every byte of a handshake, of a record header and of a record is a place to break.
//! Refuses to do: lose or add a byte before the cut.

use anyhow::Result;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Which way the bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the client to the box.
    Up,
    /// From the box to the client.
    Down,
}

/// The proxy; its threads end with the process.
pub struct Cutter {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Bytes that pass; `usize::MAX`: all.
    up: AtomicUsize,
    down: AtomicUsize,
    /// Bytes that passed on the newest connection.
    passed_up: AtomicUsize,
    passed_down: AtomicUsize,
}

impl Cutter {
    /// Listens before the box on `box_port`.
    pub fn start(box_port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (port, shared) = (listener.local_addr()?.port(), Arc::new(Shared::default()));
        let all = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                let Ok(sealer) = TcpStream::connect((Ipv4Addr::LOCALHOST, box_port)) else { continue };
                let _ = (client.set_nodelay(true), sealer.set_nodelay(true));
                let (Ok(client_in), Ok(sealer_out)) = (client.try_clone(), sealer.try_clone()) else {
                    continue;
                };
                let (up, down) = (all.clone(), all.clone());
                std::thread::spawn(move || copy(client_in, sealer_out, up.up.load(Relaxed), &up.passed_up));
                std::thread::spawn(move || copy(sealer, client, down.down.load(Relaxed), &down.passed_down));
            }
        });
        Ok(Cutter { port, shared })
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The next connection breaks after so many bytes this way; the other way all pass.
    pub fn cut_after(&self, way: Way, bytes: usize) {
        let (up, down) = if way == Way::Up { (bytes, usize::MAX) } else { (usize::MAX, bytes) };
        self.shared.up.store(up, Relaxed);
        self.shared.down.store(down, Relaxed);
    }

    /// Bytes that passed on the newest connection.
    pub fn passed(&self, way: Way) -> usize {
        if way == Way::Up { &self.shared.passed_up } else { &self.shared.passed_down }.load(Relaxed)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, most: usize, passed: &AtomicUsize) {
    passed.store(0, Relaxed);
    let (mut left, mut buffer) = (most, [0; 4_096]);
    while left > 0 {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read.min(left),
        };
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
        passed.fetch_add(read, Relaxed);
        left -= read;
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

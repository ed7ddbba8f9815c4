//! A TPM that takes its time: a TCP proxy before swtpm's two channels that delays each answer.
//!
//! A real chip needs 20 to 600 ms for a signature; swtpm's half millisecond would hide every TPM
//! command that slipped into the write path.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The proxy; its threads end with the process.
pub struct SlowTpm {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    delay_millis: AtomicU64,
    commands: AtomicU64,
}

impl SlowTpm {
    /// Listens on two neighbouring ports before the swtpm whose command channel is on `tpm_port`.
    pub fn start(tpm_port: u16) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (commands, control) = (30_000..40_000u16)
            .step_by(2)
            .filter_map(|port| {
                let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
                Some((bind(port)?, bind(port + 1)?))
            })
            .next()
            .context("no two neighbouring free ports between 30000 and 40000")?;
        let port = commands.local_addr()?.port();
        let counted = shared.clone();
        std::thread::spawn(move || serve(&commands, tpm_port, Some(counted)));
        std::thread::spawn(move || serve(&control, tpm_port + 1, None));
        Ok(SlowTpm { port, shared })
    }

    /// From now on each answer comes this much later.
    pub fn delay(&self, delay: Duration) {
        self.shared.delay_millis.store(delay.as_millis() as u64, Relaxed);
    }

    /// Commands answered so far.
    pub fn commands(&self) -> u64 {
        self.shared.commands.load(Relaxed)
    }

    /// How libtss2 is told to reach it.
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }
}

fn serve(listener: &TcpListener, target: u16, counted: Option<Arc<Shared>>) {
    for client in listener.incoming() {
        let Ok(client) = client else { return };
        let Ok(tpm) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
        let (Ok(client_in), Ok(tpm_out)) = (client.try_clone(), tpm.try_clone()) else { continue };
        let counted = counted.clone();
        std::thread::spawn(move || copy(client_in, tpm_out, None));
        std::thread::spawn(move || copy(tpm, client, counted));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, counted: Option<Arc<Shared>>) {
    let mut buffer = [0; 8_192];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        if let Some(shared) = &counted {
            std::thread::sleep(Duration::from_millis(shared.delay_millis.load(Relaxed)));
            shared.commands.fetch_add(1, Relaxed);
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // Either side closing ends the pair; the other thread notices by its own read.
    let _ = to.shutdown(std::net::Shutdown::Both);
    let _ = from.shutdown(std::net::Shutdown::Both);
}

//! A box's own line to something in the test: a WAN that goes and comes for this box alone.
//!
//! Refuses to do: delay or change anything; while it is cut nobody listens, and connections that were open end.

use super::door::Door;
use anyhow::Result;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::spawn;
use std::time::Duration;

/// How soon an open connection notices that the line was cut.
const NOTICE: Duration = Duration::from_millis(200);

/// The line.
pub struct Uplink {
    door: Mutex<Option<Door>>,
    port: u16,
    to: u16,
    whole: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
}

impl Uplink {
    /// A line to this port of the loopback, whole.
    pub fn open(to: u16) -> Result<Self> {
        let (whole, carried) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicU64>::default());
        let door = listen(0, to, &whole, &carried)?;
        Ok(Uplink { port: door.port(), door: Mutex::new(Some(door)), to, whole, carried })
    }

    /// Where the box reaches it.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts it, or mends it.
    pub fn set(&self, whole: bool) -> Result<()> {
        self.whole.store(whole, Relaxed);
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        match whole {
            false => *door = None,
            true if door.is_none() => *door = Some(listen(self.port, self.to, &self.whole, &self.carried)?),
            true => {}
        }
        Ok(())
    }

    /// Connections that got through.
    pub fn carried(&self) -> u64 {
        self.carried.load(Relaxed)
    }
}

fn listen(at: u16, to: u16, whole: &Arc<AtomicBool>, carried: &Arc<AtomicU64>) -> Result<Door> {
    let (open, count) = (whole.clone(), carried.clone());
    Door::open(None, (Ipv4Addr::LOCALHOST, at), move |client| {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
        count.fetch_add(1, Relaxed);
        let (Ok(client_in), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
        let back = open.clone();
        spawn(move || carry(client_in, server_out, &back));
        carry(server, client, &open);
    })
}

fn carry(mut from: TcpStream, mut to: TcpStream, whole: &AtomicBool) {
    let _ = from.set_read_timeout(Some(NOTICE));
    let mut bytes = [0; 4_096];
    loop {
        match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(count) if whole.load(Relaxed) && to.write_all(&bytes[..count]).is_ok() => {}
            Err(error) if whole.load(Relaxed) && is_pause(&error) => {}
            _ => {
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn is_pause(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

//! A resolver for the far side: every name below `test` is one address, and there are no others.

use anyhow::{Context, Result};
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const TYPE_A: [u8; 2] = [0, 1];
const SECONDS: [u8; 4] = [0, 0, 0, 1];

/// How soon it notices that it is not wanted any more.
const POLL: Duration = Duration::from_millis(100);

/// The resolver, on port 53 until it is dropped.
pub(super) struct Names {
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    pub(super) fn start(address: Ipv4Addr) -> Result<Self> {
        let socket = UdpSocket::bind((address, 53)).context("cannot listen for names on the far side")?;
        socket.set_read_timeout(Some(POLL))?;
        let closed = Arc::new(AtomicBool::new(false));
        let seen = closed.clone();
        let thread = spawn(move || {
            let mut query = [0; 512];
            while !seen.load(Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                if let Some(answer) = answer(&query[..length], address) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Ok(Names { closed, thread: Some(thread) })
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.closed.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The answer to a query (RFC 1035, 4.1); `None` for what is none.
fn answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
    let (header, rest) = query.split_at_checked(12)?;
    let (mut at, mut last) = (0, &rest[..0]);
    while *rest.get(at)? != 0 {
        let end = at + 1 + usize::from(rest[at]);
        last = rest.get(at + 1..end)?;
        at = end;
    }
    let question = rest.get(..at + 5)?;
    let known = last.eq_ignore_ascii_case(b"test");
    let found = known && question[at + 1..at + 3] == TYPE_A;
    // The same number; an answer, recursion available, and whether there is such a name; one question.
    let mut answer =
        [&header[..2], &[0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(found)], &[0; 4]].concat();
    answer.extend_from_slice(question);
    if found {
        // The name of the question, type A, class IN.
        answer
            .extend_from_slice(&[&[0xc0, 12, 0, 1, 0, 1][..], &SECONDS, &[0, 4], &address.octets()].concat());
    }
    Some(answer)
}

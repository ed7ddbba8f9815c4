//! What is known of a socket beside what libp2p says: from which address of ours it is made, and when bytes last came on it.
//!
//! Where much is under way on a slow line, the answer to a ping stands in line behind it. Whoever sends us bytes is there.
//! Invariant: nothing is read, written, kept or delayed here.

use futures_util::io::{AsyncRead, AsyncWrite};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Handshakes that are remembered.
const SOCKETS_MAX: usize = 256;

/// When bytes last came on a connection.
#[derive(Debug, Clone)]
pub(crate) struct Pulse {
    since: Instant,
    millis: Arc<AtomicU64>,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Pulse { since: now, millis: Arc::default() }
    }

    pub(crate) fn beat(&self, now: Instant) {
        let millis = now.duration_since(self.since).as_millis();
        self.millis.store(u64::try_from(millis).unwrap_or(u64::MAX), Relaxed);
    }

    pub(crate) fn last(&self) -> Instant {
        self.since + Duration::from_millis(self.millis.load(Relaxed))
    }
}

/// A stream whose pulse is felt.
#[derive(Debug)]
pub(crate) struct Felt<S> {
    stream: S,
    pulse: Pulse,
}

impl<S> Felt<S> {
    pub(crate) fn new(stream: S, pulse: Pulse) -> Self {
        Felt { stream, pulse }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Felt<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if matches!(read, Poll::Ready(Ok(1..))) {
            self.pulse.beat(Instant::now());
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Felt<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// What is known of sockets, by the other side's address: libp2p does not say which address of ours a connection that we
/// make is from. An entry lives from the socket to the end of the handshake.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sockets(Arc<Mutex<HashMap<SocketAddr, (IpAddr, Pulse)>>>);

impl Sockets {
    pub(crate) fn note(&self, remote: SocketAddr, local: SocketAddr, pulse: Pulse) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Handshakes that came to nothing leave theirs behind.
        if known.len() >= SOCKETS_MAX {
            known.clear();
        }
        known.insert(remote, (local.ip(), pulse));
    }

    /// Which of our addresses it was, and its pulse; asked once.
    pub(crate) fn take(&self, remote: SocketAddr) -> Option<(IpAddr, Pulse)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&remote)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::{AsyncReadExt as _, AsyncWriteExt as _, Cursor};

    #[tokio::test]
    async fn what_comes_is_a_sign_of_life_and_what_goes_is_none() {
        let begun = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let pulse = Pulse::new(begun);
        let mut felt = Felt::new(Cursor::new(vec![0; 4]), pulse.clone());
        felt.write_all(b"12").await.unwrap();
        assert_eq!(pulse.last(), begun);
        let mut rest = Vec::new();
        felt.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest.len(), 2);
        assert!(pulse.last() > begun + Duration::from_secs(59));
        // The end of a stream is none, either.
        let pulse = Pulse::new(begun);
        let mut felt = Felt::new(Cursor::new(Vec::new()), pulse.clone());
        felt.read_to_end(&mut rest).await.unwrap();
        assert_eq!(pulse.last(), begun);
    }
}

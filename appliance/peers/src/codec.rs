//! How a request and its answer stand on a stream: a length and that many bytes.
//!
//! ```text
//! request  u32 BE length, bytes
//! answer   u8: 0 an answer follows, 1 busy, 2 declined; u32 BE length, bytes
//! ```
//!
//! - Nothing is read beyond the limit, and memory grows with what has come, not with what was announced.
//! - Whoever stalls loses the stream: a request must be whole soon, an answer must make progress.

use crate::config::Limits;
use crate::counters::{Counters, add, count};
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::Codec;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The protocol with its version: another framing gets another name.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/bulla/range/1");
/// A request must be whole after this. 64 KiB need 2 s at 256 kbit/s.
const REQUEST_WITHIN: Duration = Duration::from_secs(10);
/// So much of an answer is read or written at a time ...
const PIECE_BYTES: usize = 64 << 10;
/// ... and must have passed after this: 34 kbit/s, below which a line carries nothing else.
const PIECE_WITHIN: Duration = Duration::from_secs(15);

const WHOLE: u8 = 0;
const BUSY: u8 = 1;
const DECLINED: u8 = 2;

/// What goes out, or comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// The request.
    Whole(Vec<u8>),
    /// It was longer than the limit or never came whole. It comes in like any other, so that its sender can be named.
    Broken,
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The answer.
    Whole(Vec<u8>),
    /// Too much to do.
    Busy,
    /// Read, and not answered.
    Declined,
}

/// The framing with its limits.
#[derive(Debug, Clone)]
pub(crate) struct Framing {
    request_bytes_max: usize,
    answer_bytes_max: usize,
    counters: Arc<Counters>,
}

impl Framing {
    pub(crate) fn new(limits: &Limits, counters: Arc<Counters>) -> Self {
        let (request_bytes_max, answer_bytes_max) = (limits.request_bytes_max, limits.answer_bytes_max);
        Framing { request_bytes_max, answer_bytes_max, counters }
    }
}

impl Codec for Framing {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Answer;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        let Ok(Ok(bytes)) = timeout(REQUEST_WITHIN, read_bytes(io, self.request_bytes_max)).await else {
            return Ok(Request::Broken);
        };
        count(&self.counters.requests_in);
        add(&self.counters.request_bytes_in, bytes.len());
        Ok(Request::Whole(bytes))
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Answer>
    where
        T: AsyncRead + Unpin + Send,
    {
        // How long the other side thinks about it is bounded by the whole exchange's deadline.
        let mut kind = [0];
        io.read_exact(&mut kind).await?;
        let most = if kind == [WHOLE] { self.answer_bytes_max } else { 0 };
        let bytes = read_bytes(io, most).await?;
        Ok(match kind {
            [WHOLE] => {
                count(&self.counters.answers_in);
                add(&self.counters.answer_bytes_in, bytes.len());
                Answer::Whole(bytes)
            }
            [BUSY] => Answer::Busy,
            [DECLINED] => Answer::Declined,
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        let Request::Whole(bytes) = request else { return Err(ErrorKind::InvalidInput.into()) };
        write_bytes(io, &[], &bytes).await?;
        count(&self.counters.requests_out);
        add(&self.counters.request_bytes_out, bytes.len());
        Ok(())
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, answer: Answer) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match answer {
            Answer::Whole(bytes) => {
                write_bytes(io, &[WHOLE], &bytes).await?;
                count(&self.counters.answers_out);
                add(&self.counters.answer_bytes_out, bytes.len());
                Ok(())
            }
            Answer::Busy => write_bytes(io, &[BUSY], &[]).await,
            Answer::Declined => write_bytes(io, &[DECLINED], &[]).await,
        }
    }
}

async fn read_bytes<T: AsyncRead + Unpin>(io: &mut T, most: usize) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    within(io.read_exact(&mut length)).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| ErrorKind::InvalidData)?;
    if length > most {
        return Err(io::Error::new(ErrorKind::InvalidData, "longer than the limit"));
    }
    let mut bytes = Vec::new();
    while bytes.len() < length {
        let begin = bytes.len();
        bytes.resize(length.min(begin + PIECE_BYTES), 0);
        within(io.read_exact(&mut bytes[begin..])).await?;
    }
    Ok(bytes)
}

async fn write_bytes<T: AsyncWrite + Unpin>(io: &mut T, before: &[u8], bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| ErrorKind::InvalidInput)?;
    within(io.write_all(&[before, &length.to_be_bytes()].concat())).await?;
    for piece in bytes.chunks(PIECE_BYTES) {
        within(io.write_all(piece)).await?;
    }
    within(io.flush()).await
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PIECE_WITHIN, step).await.map_err(|_| ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::io::Cursor;

    fn framing() -> Framing {
        let limits = Limits { request_bytes_max: 10, answer_bytes_max: 200_000, ..Limits::default() };
        Framing::new(&limits, Arc::default())
    }

    async fn answer(bytes: &[u8]) -> io::Result<Answer> {
        framing().read_response(&PROTOCOL, &mut Cursor::new(bytes)).await
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        for sent in [Answer::Whole(vec![]), Answer::Whole(vec![7; 200_000]), Answer::Busy, Answer::Declined] {
            let mut stream = Cursor::new(Vec::new());
            framing().write_response(&PROTOCOL, &mut stream, sent.clone()).await.unwrap();
            assert_eq!(answer(&stream.into_inner()).await.unwrap(), sent);
        }
        let mut stream = Cursor::new(Vec::new());
        let sent = Request::Whole(b"0123456789".to_vec());
        framing().write_request(&PROTOCOL, &mut stream, sent.clone()).await.unwrap();
        let bytes = stream.into_inner();
        assert_eq!(bytes, b"\0\0\0\x0a0123456789");
        let read = framing().read_request(&PROTOCOL, &mut Cursor::new(bytes)).await.unwrap();
        assert_eq!(read, sent);
    }

    #[tokio::test]
    async fn what_breaks_the_framing_is_refused() {
        let kind = |result: io::Result<Answer>| result.unwrap_err().kind();
        assert_eq!(kind(answer(&[]).await), ErrorKind::UnexpectedEof);
        assert_eq!(kind(answer(&[0, 0, 0, 0, 2, 7]).await), ErrorKind::UnexpectedEof);
        assert_eq!(kind(answer(&[0, 0xff, 0xff, 0xff, 0xff]).await), ErrorKind::InvalidData);
        assert_eq!(kind(answer(&[0, 0, 3, 0x0d, 0x41]).await), ErrorKind::InvalidData, "200,001");
        assert_eq!(kind(answer(&[1, 0, 0, 0, 1, 7]).await), ErrorKind::InvalidData, "busy has no bytes");
        assert_eq!(kind(answer(&[3, 0, 0, 0, 0]).await), ErrorKind::InvalidData);
        for broken in [&b"\0\0\0\x0b01234567890"[..], b"\0\0\0\x0a012345678", b"\0\0", b""] {
            let read = framing().read_request(&PROTOCOL, &mut Cursor::new(broken)).await.unwrap();
            assert_eq!(read, Request::Broken, "{broken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_drips_loses_the_stream() {
        use tokio_util::compat::TokioAsyncReadCompatExt;
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let drip = tokio::spawn(async move {
            let mut theirs = theirs.compat();
            theirs.write_all(&[0, 0, 0, 10]).await.unwrap();
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(4)).await;
            }
        });
        let read = framing().read_request(&PROTOCOL, &mut ours.compat()).await;
        assert_eq!(read.unwrap(), Request::Broken);
        drip.await.unwrap();
    }
}

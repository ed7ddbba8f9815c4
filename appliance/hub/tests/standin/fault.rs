//! A bad line to an S3 server: a proxy that answers with errors, is slow, cuts requests and answers in the middle, or loses
//! an answer to what was done.
//!
//! One request a connection. Which request suffers which fault follows from its number alone.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What the proxy does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Nothing of its own.
    Good,
    /// Every answer comes this much later, in milliseconds.
    Slow(u64),
    /// One of three requests suffers something.
    Bad,
    /// Every request is answered with 503.
    Down,
    /// What is to be put is removed first, at this port of the server's: it overwrites whatever it is told.
    Forgetful(u16),
}

impl Line {
    fn number(self) -> u64 {
        match self {
            Line::Good => 0,
            Line::Bad => 1,
            Line::Down => 2,
            Line::Slow(millis) => 1 << 32 | millis,
            Line::Forgetful(port) => 2 << 32 | u64::from(port),
        }
    }

    fn of(number: u64) -> Self {
        match (number >> 32, number as u32) {
            (1, millis) => Line::Slow(millis.into()),
            (2, port) => Line::Forgetful(port as u16),
            (_, 1) => Line::Bad,
            (_, 2) => Line::Down,
            _ => Line::Good,
        }
    }
}

/// The proxy; its threads end with the process.
pub struct Faults {
    pub port: u16,
    line: Arc<AtomicU64>,
    suffered: Arc<AtomicU64>,
}

impl Faults {
    /// Before the server at `target`.
    pub fn before(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (line, suffered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (of, counted) = (Arc::clone(&line), Arc::clone(&suffered));
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let (line, counted) = (Line::of(of.load(Relaxed)), Arc::clone(&counted));
                std::thread::spawn(move || {
                    let _ = serve(client, target, line, number as u64, &counted);
                });
            }
        });
        Faults { port, line, suffered }
    }

    /// From now on the line is like this.
    pub fn set(&self, line: Line) {
        self.line.store(line.number(), Relaxed);
    }

    /// Requests that suffered something.
    pub fn suffered(&self) -> u64 {
        self.suffered.load(Relaxed)
    }
}

fn serve(
    client: TcpStream,
    target: u16,
    line: Line,
    number: u64,
    suffered: &AtomicU64,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut client = client;
    match line {
        Line::Slow(millis) => std::thread::sleep(Duration::from_millis(millis)),
        Line::Forgetful(filer) if head.starts_with("PUT ") => {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let asked =
                format!("DELETE /buckets{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
            let mut stream = TcpStream::connect(("127.0.0.1", filer))?;
            stream.write_all(asked.as_bytes())?;
            stream.read_to_end(&mut Vec::new())?;
        }
        _ => {}
    }
    let fault = match line {
        Line::Down => 0,
        Line::Bad if number.is_multiple_of(3) => number / 3 % 6,
        _ => 6,
    };
    if fault < 6 {
        suffered.fetch_add(1, Relaxed);
    }
    let status =
        |status: &str| format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    match fault {
        0 => return client.write_all(status("503 Slow Down").as_bytes()),
        1 => return client.write_all(status("500 Internal Server Error").as_bytes()),
        2 => std::thread::sleep(Duration::from_millis(2_500)),
        _ => {}
    }
    let mut server = TcpStream::connect(("127.0.0.1", target))?;
    server.write_all(head.as_bytes())?;
    server.write_all(b"Connection: close\r\n\r\n")?;
    if fault == 3 {
        // Half of the request arrives.
        server.write_all(&body[..length / 2])?;
        server.shutdown(Shutdown::Both)?;
        return client.shutdown(Shutdown::Both);
    }
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match fault {
        // It was done, and nobody is told.
        4 => {}
        // Half of the answer's body arrives.
        5 => {
            let end = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
            client.write_all(&answer[..end + (answer.len() - end) / 2])?;
        }
        _ => client.write_all(&answer)?,
    }
    client.shutdown(Shutdown::Both)
}

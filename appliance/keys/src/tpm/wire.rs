//! Plain TPM commands over a connection of their own, for what the TSS library does not wrap.
//!
//! swtpm's data port and a kernel device both take command bytes and give response bytes. TPM 2.0 Part 1, 18.
//! Refuses: responses longer than 4096 bytes, wrong tags, sizes that do not add up.
//! Invariant: only commands that carry no secret go this way; their results are public or signed.

use super::address::Address;
use super::fault::{Fault, from_rc};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The largest response of the PC Client profile.
const MAX_RESPONSE: usize = 4096;
const HEADER: usize = 10;
const CONNECT: Duration = Duration::from_secs(5);
/// Longer than any command used here takes, so that a dead peer does not hold the thread for ever.
const ANSWER: Duration = Duration::from_secs(20);
const TAG_NO_SESSIONS: u16 = 0x8001;
const TAG_SESSIONS: u16 = 0x8002;
/// TPM_RS_PW with empty nonce, attributes and password.
const EMPTY_PASSWORD: [u8; 9] = [0x40, 0, 0, 0x09, 0, 0, 0, 0, 0];

/// A command under construction.
pub(super) struct Command {
    what: &'static str,
    code: u32,
    handles: Vec<u8>,
    passwords: usize,
    parameters: Vec<u8>,
}

impl Command {
    pub(super) fn new(what: &'static str, code: u32) -> Self {
        Self { what, code, handles: Vec::new(), passwords: 0, parameters: Vec::new() }
    }

    /// A handle that needs no authorization.
    pub(super) fn handle(mut self, handle: u32) -> Self {
        self.handles.extend(handle.to_be_bytes());
        self
    }

    /// A handle that is authorized with its empty password.
    pub(super) fn authorized(mut self, handle: u32) -> Self {
        self.passwords += 1;
        self.handle(handle)
    }

    pub(super) fn u16(mut self, value: u16) -> Self {
        self.parameters.extend(value.to_be_bytes());
        self
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.parameters.extend(value.to_be_bytes());
        self
    }

    /// A TPM2B of 32 bytes.
    pub(super) fn digest(mut self, bytes: &[u8; 32]) -> Self {
        self.parameters.extend([0, 32]);
        self.parameters.extend(bytes);
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = self.handles.clone();
        if self.passwords > 0 {
            let area = EMPTY_PASSWORD.repeat(self.passwords);
            body.extend((area.len() as u32).to_be_bytes());
            body.extend(area);
        }
        body.extend(&self.parameters);
        let tag = if self.passwords > 0 { TAG_SESSIONS } else { TAG_NO_SESSIONS };
        let size = (HEADER + body.len()) as u32;
        [&tag.to_be_bytes()[..], &size.to_be_bytes(), &self.code.to_be_bytes(), &body].concat()
    }

    /// Sends the command and gives back the response's parameters.
    pub(super) fn send(self, address: &Address) -> Result<Response, Fault> {
        let what = self.what;
        let bytes = transmit(address, &self.encode())
            .map_err(|error| Fault::Transport { what, reason: error.to_string() })?;
        parse(what, self.passwords > 0, &bytes)
    }
}

/// Reads the response to a command, which had sessions or had none.
pub(super) fn parse(what: &'static str, sessions: bool, bytes: &[u8]) -> Result<Response, Fault> {
    let malformed = || Fault::Transport { what, reason: "malformed response".into() };
    let (header, body) = bytes.split_first_chunk::<HEADER>().ok_or_else(malformed)?;
    let tag = u16::from_be_bytes([header[0], header[1]]);
    let size = u32::from_be_bytes([header[2], header[3], header[4], header[5]]);
    let rc = u32::from_be_bytes([header[6], header[7], header[8], header[9]]);
    if size as usize != bytes.len() {
        return Err(malformed());
    }
    if rc != 0 {
        return Err(from_rc(what, rc));
    }
    let parameters = match (tag, sessions) {
        (TAG_NO_SESSIONS, false) => body,
        (TAG_SESSIONS, true) => {
            let (size, rest) = body.split_first_chunk::<4>().ok_or_else(malformed)?;
            rest.get(..u32::from_be_bytes(*size) as usize).ok_or_else(malformed)?
        }
        _ => return Err(malformed()),
    };
    Ok(Response { what, rest: parameters.to_vec() })
}

/// The parameters of a response, taken from the front.
pub(super) struct Response {
    what: &'static str,
    rest: Vec<u8>,
}

impl Response {
    fn take(&mut self, len: usize) -> Result<Vec<u8>, Fault> {
        if len > self.rest.len() {
            return Err(Fault::Transport { what: self.what, reason: "response too short".into() });
        }
        let tail = self.rest.split_off(len);
        Ok(std::mem::replace(&mut self.rest, tail))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.take(4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The content of a TPM2B.
    pub(super) fn sized(&mut self) -> Result<Vec<u8>, Fault> {
        let len = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([len[0], len[1]])))
    }

    /// Whatever is left.
    pub(super) fn remaining(self) -> Vec<u8> {
        self.rest
    }
}

fn transmit(address: &Address, command: &[u8]) -> std::io::Result<Vec<u8>> {
    match address {
        Address::Device(path) => {
            let mut device = OpenOptions::new().read(true).write(true).open(path)?;
            device.write_all(command)?;
            // The kernel hands over a response whole.
            let mut response = vec![0; MAX_RESPONSE];
            let len = device.read(&mut response)?;
            response.truncate(len);
            Ok(response)
        }
        Address::Swtpm { host, port } => {
            let target = (host.as_str(), *port)
                .to_socket_addrs()?
                .next()
                .ok_or_else(|| std::io::Error::other("the host has no address"))?;
            let mut stream = TcpStream::connect_timeout(&target, CONNECT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
            stream.write_all(command)?;
            let mut response = vec![0; HEADER];
            stream.read_exact(&mut response)?;
            let size = u32::from_be_bytes([response[2], response[3], response[4], response[5]]) as usize;
            if !(HEADER..=MAX_RESPONSE).contains(&size) {
                return Err(std::io::Error::other("response size out of bounds"));
            }
            response.resize(size, 0);
            stream.read_exact(&mut response[HEADER..])?;
            Ok(response)
        }
    }
}

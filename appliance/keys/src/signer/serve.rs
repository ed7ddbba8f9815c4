//! The signer: takes connections, and does for each what it asks, one request after the other.
//!
//! Refuses: a socket that another signer serves; more than [`CONNECTIONS_MAX`] connections; requests that it does not
//! understand, after which the connection ends.
//! Invariant: one connection's fault ends that connection alone.

use super::wire::{self, Failure, Reply, Request, Secret};
use crate::KeyError;
use crate::state::{HexBytes, TpmState};
use crate::tpm::{self, Address, Machine};
use bulla_formats::tpm::TpmtPublic;
use serde::Serialize;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use zeroize::Zeroizing;

/// Most connections at a time. A box has one, and one for each of its commands that runs.
pub const CONNECTIONS_MAX: usize = 16;
/// The socket's mode: its owner and its group may ask.
const MODE: u32 = 0o660;

/// A signer that listens.
pub struct Signer {
    address: Address,
    listener: UnixListener,
}

impl Signer {
    /// Listens at `socket` for who wants to use the TPM at `tcti`. The TPM itself is not asked before somebody asks.
    ///
    /// # Errors
    /// [`KeyError::Address`]; [`KeyError::Io`] where the socket cannot be made, or another signer listens there.
    pub fn bind(socket: &Path, tcti: &str) -> Result<Self, KeyError> {
        let address = Address::parse(tcti)?;
        let io = |source| KeyError::Io { path: socket.to_owned(), source };
        match fs::symlink_metadata(socket) {
            // What a signer leaves that was killed; one that lives still answers.
            Ok(about) if about.file_type().is_socket() && UnixStream::connect(socket).is_err() => {
                fs::remove_file(socket).map_err(io)?;
            }
            _ => {}
        }
        let listener = UnixListener::bind(socket).map_err(io)?;
        fs::set_permissions(socket, Permissions::from_mode(MODE)).map_err(io)?;
        Ok(Self { address, listener })
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// What the listener fails with.
    pub fn serve(&self) -> io::Result<()> {
        let busy = Arc::new(AtomicUsize::new(0));
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let seat = Seat::take(&busy);
            let address = self.address.clone();
            if seat.others >= CONNECTIONS_MAX {
                log::warn!("{CONNECTIONS_MAX} connections are open: one more is turned away");
                continue;
            }
            // Without a thread the closure is dropped, and with it the connection and its seat.
            let started = std::thread::Builder::new().name("connection".into()).spawn(move || {
                let _seat = seat;
                attend(stream, &address);
            });
            if let Err(error) = started {
                log::error!("a connection is turned away: no thread can be started ({error})");
            }
        }
    }
}

/// One of the connections that are open.
struct Seat {
    busy: Arc<AtomicUsize>,
    others: usize,
}

impl Seat {
    fn take(busy: &Arc<AtomicUsize>) -> Self {
        Seat { busy: busy.clone(), others: busy.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn attend(mut stream: UnixStream, address: &Address) {
    let mut desk = Desk { address, machine: None };
    let ended = loop {
        match wire::read(&mut stream) {
            Ok(Some(request)) => {
                if let Err(error) = desk.answer(&mut stream, request) {
                    break Err(error);
                }
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = ended {
        log::warn!("a connection has ended: {error}");
    }
    desk.close();
}

/// What one connection has.
struct Desk<'a> {
    address: &'a Address,
    machine: Option<Machine>,
}

impl Desk<'_> {
    fn open(&mut self, keys: TpmState) -> Result<(), KeyError> {
        let device = tpm::describe(&keys)?;
        let mut machine = Machine::new(self.address.clone(), keys, device)?;
        machine.connect()?;
        self.machine = Some(machine);
        Ok(())
    }

    fn close(&mut self) {
        if let Some(mut machine) = self.machine.take() {
            machine.close();
        }
    }

    fn machine(&mut self) -> Result<&mut Machine, KeyError> {
        let reason = "no keys were opened on this connection";
        self.machine.as_mut().ok_or(KeyError::Argument { what: "request", reason })
    }

    fn answer(&mut self, stream: &mut UnixStream, request: Request) -> io::Result<()> {
        match request {
            Request::Create => reply(stream, tpm::create(self.address)),
            Request::Clear => reply(stream, tpm::clear(self.address)),
            Request::FarewellQuote { ek, key, qualifying } => {
                let ek = TpmtPublic::parse(&ek.0)
                    .map_err(|source| KeyError::Evidence { what: "stored endorsement key", source });
                reply(stream, ek.and_then(|ek| tpm::farewell_quote(self.address, &ek, &key, &qualifying)))
            }
            Request::Open { keys } => reply(stream, self.open(*keys)),
            Request::Quote { qualifying, pcrs } => {
                let pcrs = tpm::selection(&pcrs);
                reply(stream, pcrs.and_then(|pcrs| self.machine()?.quote(&qualifying, &pcrs)))
            }
            Request::Sign { role, digest } => {
                let signature = self.machine().and_then(|machine| machine.sign(role, &digest));
                reply(stream, signature.map(|signature| HexBytes(signature.to_vec())))
            }
            Request::Counter => reply(stream, self.machine().and_then(Machine::counter)),
            Request::CounterIncrement => reply(stream, self.machine().and_then(Machine::counter_increment)),
            Request::Staged => reply(stream, self.machine().and_then(Machine::staged)),
            Request::StagedIncrement => reply(stream, self.machine().and_then(Machine::advance_staged)),
            Request::CounterCertify { qualifying } => {
                reply(stream, self.machine().and_then(|machine| machine.counter_certify(&qualifying)))
            }
            Request::Certify { role, qualifying } => {
                reply(stream, self.machine().and_then(|machine| machine.certify(role, &qualifying)))
            }
            Request::Activate { id_object, secret } => {
                let opened = self.machine().and_then(|machine| machine.activate(&id_object.0, &secret.0));
                reply(stream, opened.map(Secret))
            }
            Request::Seal { secret } => {
                let secret: Zeroizing<Vec<u8>> = secret.0;
                reply(stream, self.machine().and_then(|machine| machine.seal(&secret)).map(HexBytes))
            }
            Request::Unseal { blob } => {
                reply(stream, self.machine().and_then(|machine| machine.unseal(&blob.0)).map(Secret))
            }
            Request::Close => {
                self.close();
                reply(stream, Ok(()))
            }
            Request::Farewell { qualifying } => {
                reply(stream, self.machine().and_then(|machine| machine.farewell(&qualifying)))
            }
        }
    }
}

fn reply<T: Serialize>(stream: &mut UnixStream, done: Result<T, KeyError>) -> io::Result<()> {
    let reply = match done {
        Ok(value) => Reply::Done(value),
        Err(error) => Reply::Failed(Failure::from(error)),
    };
    wire::write(stream, &reply)
}

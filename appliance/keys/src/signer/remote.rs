//! A signer's client: one connection, made again when the signer was started anew.
//!
//! Invariant: a request with a lasting effect is never sent twice, unless the first was certainly not read.

use super::wire::{self, Reply, Request, Secret};
use crate::KeyError;
use crate::device::{Certification, Cleared, CounterCertificate, FarewellKey, Quote, Role};
use crate::state::{HexBytes, TpmState};
use serde::de::DeserializeOwned;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// Longest time to wait for an answer. A TPM takes minutes for an RSA key; no caller waits longer than its own deadline.
const ANSWER_MAX: Duration = Duration::from_secs(600);
/// Longest time for the signer to take a request, or to close.
const TAKE_MAX: Duration = Duration::from_secs(10);

/// Keys that a signer uses for us.
pub(crate) struct Remote {
    socket: PathBuf,
    keys: TpmState,
    stream: Option<UnixStream>,
}

/// How an exchange went wrong.
enum Broken {
    /// The request was not read: nobody was there any more.
    Unsent(io::Error),
    /// Nobody knows whether it was carried out.
    Unknown(io::Error),
}

impl Broken {
    fn error(self) -> io::Error {
        match self {
            Self::Unsent(error) | Self::Unknown(error) => error,
        }
    }
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(TAKE_MAX))?;
    Ok(stream)
}

fn exchange<T: DeserializeOwned>(stream: &mut UnixStream, request: &Request) -> Result<Reply<T>, Broken> {
    wire::write(stream, request).map_err(|error| match error.kind() {
        // The other end was closed before the whole frame was there: nobody has acted on it.
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Broken::Unsent(error),
        _ => Broken::Unknown(error),
    })?;
    let reply = wire::read(stream).map_err(Broken::Unknown)?;
    reply.ok_or_else(|| Broken::Unknown(ErrorKind::UnexpectedEof.into()))
}

fn away(socket: &Path, what: &'static str, error: &io::Error) -> KeyError {
    let socket = socket.display();
    KeyError::Unavailable { what, reason: format!("the signer at {socket} does not answer: {error}") }
}

fn outcome<T>(reply: Reply<T>, what: &'static str) -> Result<T, KeyError> {
    match reply {
        Reply::Done(value) => Ok(value),
        Reply::Failed(failure) => Err(failure.of(what)),
    }
}

/// A request that needs no keys, on a connection of its own.
fn once<T: DeserializeOwned>(socket: &Path, what: &'static str, request: &Request) -> Result<T, KeyError> {
    let mut stream = connect(socket).map_err(|error| away(socket, what, &error))?;
    let reply = exchange(&mut stream, request).map_err(|broken| away(socket, what, &broken.error()))?;
    outcome(reply, what)
}

impl Remote {
    /// Prepares, without connecting.
    pub(crate) fn new(socket: PathBuf, keys: TpmState) -> Self {
        Self { socket, keys, stream: None }
    }

    /// Has the signer make keys.
    pub(crate) fn create(socket: &Path) -> Result<TpmState, KeyError> {
        once(socket, "making keys", &Request::Create)
    }

    /// Has the signer clear the TPM.
    pub(crate) fn clear(socket: &Path) -> Result<Cleared, KeyError> {
        once(socket, "TPM2_Clear", &Request::Clear)
    }

    /// As [`crate::farewell_quote`].
    pub(crate) fn farewell_quote(
        socket: &Path,
        ek: &[u8],
        key: &FarewellKey,
        qualifying: &[u8; 32],
    ) -> Result<Quote, KeyError> {
        let request =
            Request::FarewellQuote { ek: HexBytes(ek.to_vec()), key: key.clone(), qualifying: *qualifying };
        once(socket, "the farewell quote", &request)
    }

    fn opened(&self, what: &'static str) -> Result<UnixStream, KeyError> {
        let away = |error: io::Error| away(&self.socket, what, &error);
        let mut stream = connect(&self.socket).map_err(away)?;
        let request = Request::Open { keys: Box::new(self.keys.clone()) };
        let reply = exchange::<()>(&mut stream, &request).map_err(|broken| away(broken.error()))?;
        outcome(reply, what)?;
        Ok(stream)
    }

    /// Asks; `twice` is whether doing it twice is as good as once.
    fn ask<T: DeserializeOwned>(
        &mut self,
        what: &'static str,
        twice: bool,
        request: &Request,
    ) -> Result<T, KeyError> {
        let mut again = true;
        loop {
            let mut stream = match self.stream.take() {
                Some(stream) => stream,
                None => self.opened(what)?,
            };
            let broken = match exchange(&mut stream, request) {
                Ok(reply) => {
                    self.stream = Some(stream);
                    return outcome(reply, what);
                }
                Err(broken) => broken,
            };
            let may_repeat = twice || matches!(broken, Broken::Unsent(_));
            let error = broken.error();
            if !(again && may_repeat) {
                return Err(away(&self.socket, what, &error));
            }
            log::warn!("{what}: the signer has gone ({error}); connecting to it anew");
            again = false;
        }
    }

    pub(crate) fn connect(&mut self) -> Result<(), KeyError> {
        if self.stream.is_none() {
            self.stream = Some(self.opened("connecting to the TPM")?);
        }
        Ok(())
    }

    pub(crate) fn quote(&mut self, qualifying: &[u8; 32], pcrs: &[u8]) -> Result<Quote, KeyError> {
        self.ask("quote", true, &Request::Quote { qualifying: *qualifying, pcrs: pcrs.to_vec() })
    }

    pub(crate) fn sign(&mut self, role: Role, digest: &[u8; 32]) -> Result<[u8; 64], KeyError> {
        let signature: HexBytes = self.ask("sign", true, &Request::Sign { role, digest: *digest })?;
        signature.0.try_into().map_err(|_| KeyError::Refused {
            what: "sign",
            reason: "the signer's answer is not 64 bytes".to_owned(),
        })
    }

    pub(crate) fn counter(&mut self) -> Result<u64, KeyError> {
        self.ask("counter", true, &Request::Counter)
    }

    pub(crate) fn counter_increment(&mut self) -> Result<u64, KeyError> {
        self.ask("counter increment", false, &Request::CounterIncrement)
    }

    pub(crate) fn counter_certify(&mut self, qualifying: &[u8; 32]) -> Result<CounterCertificate, KeyError> {
        self.ask("counter certificate", true, &Request::CounterCertify { qualifying: *qualifying })
    }

    pub(crate) fn staged(&mut self) -> Result<Option<u64>, KeyError> {
        self.ask("counter of staged logs", true, &Request::Staged)
    }

    pub(crate) fn advance_staged(&mut self) -> Result<(), KeyError> {
        self.ask("increment of the counter of staged logs", false, &Request::StagedIncrement)
    }

    pub(crate) fn activate(
        &mut self,
        id_object: &[u8],
        secret: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let (id_object, secret) = (HexBytes(id_object.to_vec()), HexBytes(secret.to_vec()));
        let opened: Secret =
            self.ask("credential activation", true, &Request::Activate { id_object, secret })?;
        Ok(opened.0)
    }

    pub(crate) fn certify(&mut self, role: Role, qualifying: &[u8; 32]) -> Result<Certification, KeyError> {
        self.ask("certification", true, &Request::Certify { role, qualifying: *qualifying })
    }

    pub(crate) fn farewell(&mut self, qualifying: &[u8; 32]) -> Result<FarewellKey, KeyError> {
        self.ask("farewell key", true, &Request::Farewell { qualifying: *qualifying })
    }

    pub(crate) fn seal(&mut self, secret: &[u8]) -> Result<Vec<u8>, KeyError> {
        let secret = Secret(Zeroizing::new(secret.to_vec()));
        self.ask("seal", true, &Request::Seal { secret }).map(|blob: HexBytes| blob.0)
    }

    pub(crate) fn unseal(&mut self, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let blob = HexBytes(blob.to_vec());
        self.ask("unseal", true, &Request::Unseal { blob }).map(|secret: Secret| secret.0)
    }

    /// Has the signer close its connection to the TPM, and waits until it has.
    pub(crate) fn close(&mut self) {
        let Some(mut stream) = self.stream.take() else { return };
        let closed = stream.set_read_timeout(Some(TAKE_MAX)).map_err(Broken::Unknown);
        let closed = closed.and_then(|()| exchange::<()>(&mut stream, &Request::Close));
        if let Err(broken) = closed {
            // It closes by itself when it notices that we are gone, or is gone itself.
            log::warn!("closing the connection to the signer: {}", broken.error());
        }
    }
}

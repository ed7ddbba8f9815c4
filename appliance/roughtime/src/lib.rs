//! Roughtime (RFC 10049, and the last draft before it): a question to a server, and what its answer says of the time.
//!
//! `roughenough-protocol` reads and writes the messages; what makes an answer one is checked here: the chain from the
//! pinned long-term key over the delegated one to the statement, the delegation's window, and that the statement was made
//! for this very question.
//! Refuses to do: I/O, clocks, randomness (the nonce is an argument); take an answer without a pinned key; call an answer
//! evidence, for it is none: it bounds the clock of whoever asked, and proves nothing to others.
//! Invariants: signatures are checked over the bytes that came; foreign bytes never cause a panic.
#![forbid(unsafe_code)]

use ed25519_dalek::{Signature, VerifyingKey};
use roughenough_protocol::cursor::ParseCursor;
use roughenough_protocol::header::find_value_range;
use roughenough_protocol::request::{MAX_RESPONSE_SIZE, Request};
use roughenough_protocol::response::Response;
use roughenough_protocol::tag::Tag;
use roughenough_protocol::tags::{Nonce, ProtocolVersion, SrvCommitment};
use roughenough_protocol::wire::FRAME_OVERHEAD;
use roughenough_protocol::{FromFrame as _, ToFrame as _};
use sha2::{Digest as _, Sha512};

/// Longest answer that is read, in bytes: one datagram that no network has to break up.
pub const ANSWER_BYTES_MAX: usize = MAX_RESPONSE_SIZE;
/// Largest radius that is worth knowing, in seconds: honest servers are within a few.
pub const RADIUS_SECONDS_MAX: u32 = 60;
/// The end of the year 9999, in seconds since 1970: what is later is no time.
const SECONDS_MAX: u64 = 253_402_300_799;
/// What questions offer, ascending: the RFC's, and that of the servers that predate it.
const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::RFC, ProtocolVersion::DRAFT];
const HASH_BYTES: usize = 32;

/// Why bytes are no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Longer than [`ANSWER_BYTES_MAX`].
    #[error("it is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// No Roughtime message, or not one only.
    #[error("it is no Roughtime message: {0}")]
    Unreadable(String),
    /// In a version that was not offered.
    #[error("it is in a version of the protocol that was not asked for")]
    Version,
    /// For another nonce, or not in the tree that was signed.
    #[error("it answers another question")]
    OtherQuestion,
    /// The delegation is not signed by the pinned key.
    #[error("its delegation is not signed by the server's long-term key")]
    Delegation,
    /// The statement is not signed by the delegated key.
    #[error("its time is not signed by the delegated key")]
    Signature,
    /// The time is outside the delegation's window: an expired delegation, or a clock that is off.
    #[error("its time, {midpoint}, is outside its delegation, {from} to {until} (Unix seconds)")]
    OutsideDelegation {
        /// What it says.
        midpoint: u64,
        /// The delegation's beginning.
        from: u64,
        /// And its end.
        until: u64,
    },
    /// A radius that bounds nothing, or claims too much.
    #[error("its radius, {0} s, is not between 1 and {RADIUS_SECONDS_MAX} s")]
    Radius(u32),
    /// A time that is none.
    #[error("its time, {0} s after 1970, is none")]
    NoTime(u64),
}

impl Refusal {
    /// Stable name.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::TooLong => "too-long",
            Refusal::Unreadable(_) => "unreadable",
            Refusal::Version => "version",
            Refusal::OtherQuestion => "other-question",
            Refusal::Delegation => "delegation",
            Refusal::Signature => "signature",
            Refusal::OutsideDelegation { .. } => "outside-delegation",
            Refusal::Radius(_) => "radius",
            Refusal::NoTime(_) => "no-time",
        }
    }
}

/// The long-term key of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerKey(VerifyingKey);

impl ServerKey {
    /// The 32 bytes of an Ed25519 public key; `None` when they are none, a second spelling of one, or one under which
    /// anything verifies.
    pub fn new(bytes: &[u8; 32]) -> Option<Self> {
        let key = VerifyingKey::from_bytes(bytes).ok()?;
        let canonical = key.to_edwards().compress().as_bytes() == bytes;
        (canonical && !key.is_weak()).then_some(ServerKey(key))
    }

    /// What a question calls the server by (RFC 10049, SRV).
    fn commitment(&self) -> SrvCommitment {
        SrvCommitment::from(hash(&[SrvCommitment::HASH_PREFIX_SRV, self.0.as_bytes()]))
    }
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Its time, in whole seconds since 1970.
    pub midpoint: u64,
    /// How far it may be off, in seconds.
    pub radius: u32,
}

impl Answer {
    /// Earliest and latest time of the answer, in milliseconds since 1970. A time in whole seconds may have been cut, so
    /// the latest is a second later than the radius says.
    pub fn bounds_millis(&self) -> (u64, u64) {
        let radius = u64::from(self.radius);
        let (lo, hi) = (self.midpoint.saturating_sub(radius), self.midpoint.saturating_add(radius + 1));
        (lo.saturating_mul(1_000), hi.saturating_mul(1_000))
    }
}

/// A question to one server.
#[derive(Debug, Clone)]
pub struct Question {
    key: ServerKey,
    nonce: [u8; 32],
    versions: Vec<ProtocolVersion>,
    bytes: Vec<u8>,
}

impl Question {
    /// A question with this nonce, which must be used once and not be foreseen by anybody.
    ///
    /// # Errors
    /// The library does not write it; nothing that a nonce can cause.
    pub fn new(key: ServerKey, nonce: [u8; 32]) -> Result<Self, Refusal> {
        let server = key.commitment();
        let request = Request::new_with_server_and_versions(&Nonce::from(nonce), &server, &VERSIONS);
        let bytes = request.as_frame_bytes().map_err(|error| Refusal::Unreadable(error.to_string()))?;
        Ok(Question { key, nonce, versions: VERSIONS.to_vec(), bytes })
    }

    /// A question that somebody has asked, for recordings.
    ///
    /// # Errors
    /// The bytes are no question.
    pub fn recorded(key: ServerKey, bytes: &[u8]) -> Result<Self, Refusal> {
        let mut copy = bytes.to_vec();
        let request = Request::from_frame(&mut ParseCursor::new(&mut copy))
            .map_err(|error| Refusal::Unreadable(error.to_string()))?;
        let versions = request.ver().versions().to_vec();
        Ok(Question { key, nonce: (*request.nonc()).into(), versions, bytes: bytes.to_vec() })
    }

    /// The datagram to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the datagram that came back.
    ///
    /// # Errors
    /// The first reason for which it is no answer of this server to this question.
    pub fn read(&self, datagram: &[u8]) -> Result<Answer, Refusal> {
        if datagram.len() > ANSWER_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        let unreadable = |error: roughenough_protocol::error::Error| Refusal::Unreadable(error.to_string());
        let mut copy = datagram.to_vec();
        let response = Response::from_frame(&mut ParseCursor::new(&mut copy)).map_err(unreadable)?;
        let message = datagram.get(FRAME_OVERHEAD..).unwrap_or_default();
        let said = datagram.get(FRAME_OVERHEAD - 4..FRAME_OVERHEAD).and_then(|length| length.try_into().ok());
        if said.map(u32::from_le_bytes) != u32::try_from(message.len()).ok() {
            return Err(Refusal::Unreadable("something follows it".to_owned()));
        }
        let value = |path: &[Tag]| Ok(&message[find_value_range(message, path).map_err(unreadable)?]);

        let version = *response.srep().ver();
        if !self.versions.contains(&version) {
            return Err(Refusal::Version);
        }
        if response.nonc().as_ref() != self.nonce {
            return Err(Refusal::OtherQuestion);
        }
        let delegation = response.cert().dele();
        let signed = [version.dele_prefix(), value(&[Tag::CERT, Tag::DELE])?].concat();
        if !verifies(&self.key.0, &signed, response.cert().sig().as_ref()) {
            return Err(Refusal::Delegation);
        }
        if self.root(&response).is_none_or(|root| root != *response.srep().root().as_ref()) {
            return Err(Refusal::OtherQuestion);
        }
        let delegated = delegation.pubk().as_ref().try_into().ok().and_then(ServerKey::new);
        let signed = [version.srep_prefix(), value(&[Tag::SREP])?].concat();
        if !delegated.is_some_and(|key| verifies(&key.0, &signed, response.sig().as_ref())) {
            return Err(Refusal::Signature);
        }

        let (midpoint, radius) = (response.srep().midp(), response.srep().radi());
        let (from, until) = (delegation.mint(), delegation.maxt());
        if midpoint < from || midpoint > until {
            return Err(Refusal::OutsideDelegation { midpoint, from, until });
        }
        if midpoint > SECONDS_MAX {
            return Err(Refusal::NoTime(midpoint));
        }
        if radius == 0 || radius > RADIUS_SECONDS_MAX {
            return Err(Refusal::Radius(radius));
        }
        Ok(Answer { midpoint, radius })
    }

    /// Root of the tree that this question is a leaf of, by the path in the answer; `None` when the index is none of that
    /// depth.
    fn root(&self, response: &Response) -> Option<[u8; HASH_BYTES]> {
        let path = response.path();
        let mut index = u64::from(response.indx());
        let mut node = hash(&[&[0], &self.bytes]);
        for beside in path.paths().chunks(HASH_BYTES) {
            node = if index & 1 == 0 { hash(&[&[1], &node, beside]) } else { hash(&[&[1], beside, &node]) };
            index >>= 1;
        }
        (index == 0).then_some(node)
    }
}

fn verifies(key: &VerifyingKey, signed: &[u8], signature: &[u8]) -> bool {
    Signature::from_slice(signature).is_ok_and(|signature| key.verify_strict(signed, &signature).is_ok())
}

/// The first half of SHA-512, as RFC 10049 has it everywhere.
fn hash(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let mut hasher = Sha512::new();
    parts.iter().for_each(|part| hasher.update(part));
    let mut half = [0; HASH_BYTES];
    half.copy_from_slice(&hasher.finalize()[..HASH_BYTES]);
    half
}

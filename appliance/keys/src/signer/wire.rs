//! What box and signer say to each other: frames of one request or one reply.
//!
//! A frame is the version (one byte, 1), the length (u32, big endian) and so many bytes of JSON. Both programs come in one
//! package; the version is for the seconds of an upgrade in which they differ.
//! Refuses: other versions, more than [`FRAME_MAX`] bytes, members that it does not know.
//! Invariant: a frame's bytes are zeroised when it has been read or written, for it may hold a secret.

use crate::KeyError;
use crate::device::{FarewellKey, Role};
use crate::state::{HexBytes, TpmState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
/// A key file has at most 256 KiB, and nothing else is longer.
const FRAME_MAX: u32 = 1 << 19;

/// One request. All but the first three want [`Request::Open`] before them, once a connection.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Make keys; the answer is a [`TpmState`].
    Create,
    /// TPM2_Clear.
    Clear,
    /// A quote of a farewell key; `ek` is the TPMT_PUBLIC of the endorsement key.
    FarewellQuote {
        ek: HexBytes,
        key: FarewellKey,
        qualifying: [u8; 32],
    },
    /// Use these keys from here on; answered when the TPM has been found to hold them.
    Open {
        keys: Box<TpmState>,
    },
    Quote {
        qualifying: [u8; 32],
        pcrs: Vec<u8>,
    },
    Sign {
        role: Role,
        digest: [u8; 32],
    },
    Counter,
    CounterIncrement,
    Staged,
    StagedIncrement,
    CounterCertify {
        qualifying: [u8; 32],
    },
    Certify {
        role: Role,
        qualifying: [u8; 32],
    },
    Activate {
        id_object: HexBytes,
        secret: HexBytes,
    },
    Seal {
        secret: Secret,
    },
    Unseal {
        blob: HexBytes,
    },
    Farewell {
        qualifying: [u8; 32],
    },
    /// Flush everything; answered when it is done.
    Close,
}

/// What came of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Reply<T> {
    Done(T),
    Failed(Failure),
}

/// Why it was not done: what callers of [`crate::KeyService`] tell apart, and words for the rest.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Failure {
    Unavailable { reason: String },
    OtherTpm { expected: String, found: String },
    Lost { object: String },
    Damaged { what: String, reason: String },
    Unsettled { attempts: u32 },
    Refused { reason: String },
}

/// The objects that a TPM can lose; see [`KeyError::Lost`].
const OBJECTS: [&str; 3] = ["attestation key", "storage key", "rollback counter"];

impl From<KeyError> for Failure {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unavailable { what, reason } => {
                Self::Unavailable { reason: format!("{what}: {reason}") }
            }
            KeyError::OtherTpm { expected, found } => Self::OtherTpm { expected, found },
            KeyError::Lost { object } => Self::Lost { object: object.to_owned() },
            KeyError::Damaged { what, reason } => Self::Damaged { what, reason },
            KeyError::Unsettled { attempts } => Self::Unsettled { attempts },
            other => Self::Refused { reason: other.to_string() },
        }
    }
}

impl Failure {
    /// The same for the caller of the operation `what`.
    pub(crate) fn of(self, what: &'static str) -> KeyError {
        match self {
            Self::Unavailable { reason } => KeyError::Unavailable { what, reason },
            Self::OtherTpm { expected, found } => KeyError::OtherTpm { expected, found },
            Self::Lost { object } => {
                let known = OBJECTS.into_iter().find(|known| *known == object);
                KeyError::Lost { object: known.unwrap_or("keys") }
            }
            Self::Damaged { what, reason } => KeyError::Damaged { what, reason },
            Self::Unsettled { attempts } => KeyError::Unsettled { attempts },
            Self::Refused { reason } => KeyError::Refused { what, reason },
        }
    }
}

/// A secret on its way, in hex.
pub(crate) struct Secret(pub Zeroizing<Vec<u8>>);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(hex::encode(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex::serde::deserialize(deserializer).map(|bytes| Secret(Zeroizing::new(bytes)))
    }
}

/// Writes one frame, in one piece.
pub(crate) fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut frame = Zeroizing::new(vec![VERSION, 0, 0, 0, 0]);
    serde_json::to_writer(&mut *frame, message)?;
    let length = u32::try_from(frame.len() - 5).ok().filter(|length| *length <= FRAME_MAX);
    let length = length.ok_or_else(|| wrong("a frame is too long"))?;
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    stream.write_all(&frame)
}

/// Reads one frame; `None` where the other end is gone instead.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] for what is no frame, or no such message; what the stream fails with.
pub(crate) fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 5];
    match stream.read_exact(&mut head[..1]) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    stream.read_exact(&mut head[1..])?;
    let [version, length @ ..] = head;
    let length = u32::from_be_bytes(length);
    if version != VERSION || length > FRAME_MAX {
        return Err(wrong("not a frame of this version"));
    }
    let mut body = Zeroizing::new(vec![0; length as usize]);
    stream.read_exact(&mut body)?;
    // serde_json's messages can quote a wrong value, which may be a secret.
    serde_json::from_slice(&body).map(Some).map_err(|_| wrong("not a message of this version"))
}

fn wrong(words: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_request(bytes: &[u8]) -> io::Result<Option<Request>> {
        read(&mut &*bytes)
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let mut frame = Vec::new();
        let secret = Secret(Zeroizing::new(vec![7; 3]));
        write(&mut frame, &Request::Seal { secret }).unwrap();
        assert_eq!(frame, b"\x01\x00\x00\x00\x1c{\"seal\":{\"secret\":\"070707\"}}");
        assert!(
            matches!(read_request(&frame).unwrap(), Some(Request::Seal { secret }) if *secret.0 == [7; 3])
        );
        assert!(read_request(&[]).unwrap().is_none());
        for wrong in [
            &b"\x01"[..],
            &frame[..frame.len() - 1],
            b"\x02\x00\x00\x00\x09\"counter\"",
            b"\x01\x00\x08\x00\x01\"counter\"",
            b"\x01\x00\x00\x00\x08\"countr\"",
            b"\x01\x00\x00\x00\x20{\"seal\":{\"secret\":\"07\",\"more\":1}}",
            b"\x01\x00\x00\x00\x14{\"quote\":{\"pcrs\":[]}}",
        ] {
            assert!(read_request(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_callers_tell_apart_stays_apart() {
        let there_and_back = |error: KeyError| {
            let mut frame = Vec::new();
            write(&mut frame, &Reply::<()>::Failed(error.into())).unwrap();
            match read(&mut &*frame).unwrap().unwrap() {
                Reply::<()>::Failed(failure) => failure.of("signing"),
                Reply::Done(()) => panic!("it failed"),
            }
        };
        let unavailable = KeyError::Unavailable { what: "TPM2_Sign", reason: "gone".into() };
        assert_eq!(
            there_and_back(unavailable).to_string(),
            "signing: the TPM does not answer (TPM2_Sign: gone); retry when it is back"
        );
        let other = KeyError::OtherTpm { expected: "a".into(), found: "b".into() };
        assert!(matches!(there_and_back(other), KeyError::OtherTpm { .. }));
        for object in ["attestation key", "storage key", "rollback counter"] {
            let lost = there_and_back(KeyError::Lost { object });
            assert!(matches!(lost, KeyError::Lost { object: same } if same == object));
        }
        assert!(matches!(
            there_and_back(KeyError::Unsettled { attempts: 3 }),
            KeyError::Unsettled { attempts: 3 }
        ));
        let oracle = there_and_back(KeyError::AttestationIsNoOracle).to_string();
        assert!(oracle.contains("never signs a digest from outside"), "{oracle}");
    }
}

//! Replies: `TimeStampResp` of RFC 3161, 2.4.2, as far as its status. The stamp in it is not judged here.
//!
//! Refuses to do: replies beyond 64 KiB, trailing bytes, a grant without a stamp, a stamp beside a refusal.
//! Invariant: what a refusing authority says is kept as it said it, cut and made harmless.

use crate::der::{BIT_STRING, INTEGER, Malformed, Reader, Result as Der, SEQUENCE, UTF8_STRING};
use crate::text::harmless;
use std::fmt;

/// Largest reply: four times that of the largest chain met so far.
pub const REPLY_BYTES_MAX: usize = 65_536;

/// A reply that grants a stamp; the stamp is not judged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Whether the authority says that it granted something else than was asked for (`grantedWithMods`).
    pub modified: bool,
    /// DER of the ContentInfo.
    pub stamp: &'a [u8],
}

/// Why a reply holds no stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// It is too long to be one.
    #[error("the reply has {0} bytes, more than the 65536 that are read")]
    TooLong(usize),
    /// It is something else: a web page of a captive portal, say.
    #[error("the reply is not DER of a TimeStampResp")]
    Malformed,
    /// The authority refuses.
    #[error("the authority refuses: {0}")]
    Rejected(Rejection),
    /// It says that it grants a stamp and sends none.
    #[error("the reply grants a stamp and holds none")]
    StampMissing,
    /// It says that it refuses and sends one.
    #[error("the reply refuses and holds a stamp all the same")]
    StampUnexpected,
}

/// What a refusing authority says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Its status.
    pub status: Status,
    /// Its reason.
    pub failure: Option<Failure>,
    /// Its words, for people; may be empty.
    pub text: String,
}

/// `PKIStatus` of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 2.
    Rejection,
    /// 3: later, perhaps.
    Waiting,
    /// 4: a revocation is imminent.
    RevocationWarning,
    /// 5: a revocation has happened.
    RevocationNotification,
}

/// `PKIFailureInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 0: the hash is not supported.
    BadAlgorithm,
    /// 2: the request is not permitted.
    BadRequest,
    /// 5: the request was not understood.
    BadDataFormat,
    /// 14: the authority has no time it trusts.
    TimeNotAvailable,
    /// 15: not this policy.
    UnacceptedPolicy,
    /// 16: not this extension.
    UnacceptedExtension,
    /// 17: what was asked for in addition is not to be had.
    AddInfoNotAvailable,
    /// 25: it failed.
    SystemFailure,
    /// Another bit, which RFC 3161 does not name.
    Other(usize),
}

impl Failure {
    /// Its name in RFC 3161.
    pub fn name(self) -> String {
        let name = match self {
            Failure::BadAlgorithm => "badAlg",
            Failure::BadRequest => "badRequest",
            Failure::BadDataFormat => "badDataFormat",
            Failure::TimeNotAvailable => "timeNotAvailable",
            Failure::UnacceptedPolicy => "unacceptedPolicy",
            Failure::UnacceptedExtension => "unacceptedExtension",
            Failure::AddInfoNotAvailable => "addInfoNotAvailable",
            Failure::SystemFailure => "systemFailure",
            Failure::Other(bit) => return format!("failure {bit}"),
        };
        name.to_owned()
    }

    pub(crate) fn bit(self) -> usize {
        match self {
            Failure::BadAlgorithm => 0,
            Failure::BadRequest => 2,
            Failure::BadDataFormat => 5,
            Failure::TimeNotAvailable => 14,
            Failure::UnacceptedPolicy => 15,
            Failure::UnacceptedExtension => 16,
            Failure::AddInfoNotAvailable => 17,
            Failure::SystemFailure => 25,
            Failure::Other(bit) => bit,
        }
    }

    fn of_bit(bit: usize) -> Self {
        match bit {
            0 => Failure::BadAlgorithm,
            2 => Failure::BadRequest,
            5 => Failure::BadDataFormat,
            14 => Failure::TimeNotAvailable,
            15 => Failure::UnacceptedPolicy,
            16 => Failure::UnacceptedExtension,
            17 => Failure::AddInfoNotAvailable,
            25 => Failure::SystemFailure,
            other => Failure::Other(other),
        }
    }
}

impl Rejection {
    /// Whether the same request may be granted later without anybody changing a configuration.
    pub fn may_pass(&self) -> bool {
        match self.failure {
            Some(Failure::TimeNotAvailable | Failure::SystemFailure | Failure::Other(_)) => true,
            Some(_) => false,
            None => matches!(self.status, Status::Rejection | Status::Waiting),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self.status {
            Status::Rejection => "rejection",
            Status::Waiting => "waiting",
            Status::RevocationWarning => "revocation warning",
            Status::RevocationNotification => "revocation notification",
        };
        f.write_str(status)?;
        if let Some(failure) = self.failure {
            write!(f, ", {}", failure.name())?;
        }
        if !self.text.is_empty() {
            write!(f, ", {:?}", self.text)?;
        }
        Ok(())
    }
}

impl<'a> Reply<'a> {
    /// Reads a reply; refuses one that grants nothing.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ReplyError> {
        if bytes.len() > REPLY_BYTES_MAX {
            return Err(ReplyError::TooLong(bytes.len()));
        }
        let (info, stamp) = split(bytes).map_err(|Malformed| ReplyError::Malformed)?;
        let (status, failure, text) = status(info).map_err(|Malformed| ReplyError::Malformed)?;
        let refused = match status {
            0 | 1 => {
                let stamp = stamp.ok_or(ReplyError::StampMissing)?;
                return Ok(Reply { modified: status == 1, stamp });
            }
            2 => Status::Rejection,
            3 => Status::Waiting,
            4 => Status::RevocationWarning,
            5 => Status::RevocationNotification,
            _ => return Err(ReplyError::Malformed),
        };
        match stamp {
            Some(_) => Err(ReplyError::StampUnexpected),
            None => Err(ReplyError::Rejected(Rejection { status: refused, failure, text })),
        }
    }
}

fn split(bytes: &[u8]) -> Der<(Reader<'_>, Option<&[u8]>)> {
    let mut reply = Reader::whole(bytes, SEQUENCE)?;
    let info = reply.enter(SEQUENCE)?;
    let stamp = reply.take_if(SEQUENCE)?;
    reply.end()?;
    Ok((info, stamp.map(|stamp| stamp.raw)))
}

fn status(mut info: Reader<'_>) -> Der<(u64, Option<Failure>, String)> {
    let status = info.take(INTEGER)?.number()?;
    let mut words = Vec::new();
    if let Some(texts) = info.take_if(SEQUENCE)? {
        for text in texts.open().all(64)? {
            if text.tag != UTF8_STRING {
                return Err(Malformed);
            }
            words.push(String::from_utf8_lossy(text.content).into_owned());
        }
    }
    let failure = match info.take_if(BIT_STRING)? {
        None => None,
        Some(bits) => bits.flags()?.first().map(|bit| Failure::of_bit(*bit)),
    };
    info.end()?;
    Ok((status, failure, harmless(&words.join("; "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::element;

    fn info(parts: &[&[u8]]) -> Vec<u8> {
        element(SEQUENCE, &[&element(SEQUENCE, parts)])
    }

    #[test]
    fn refusals_say_what_the_authority_said() {
        let words = element(SEQUENCE, &[&element(UTF8_STRING, &["no time\u{1b}[2J".as_bytes()])]);
        let failure = element(BIT_STRING, &[&[1, 0, 2]]);
        let bytes = info(&[&element(INTEGER, &[&[2]]), &words, &failure]);
        let Err(ReplyError::Rejected(rejection)) = Reply::decode(&bytes) else { panic!("it is a refusal") };
        assert_eq!(rejection.status, Status::Rejection);
        assert_eq!(rejection.failure, Some(Failure::TimeNotAvailable));
        assert_eq!(rejection.to_string(), "rejection, timeNotAvailable, \"no time\u{fffd}[2J\"");
        assert!(rejection.may_pass());
        let bytes = info(&[&element(INTEGER, &[&[2]]), &element(BIT_STRING, &[&[7, 0x80]])]);
        let Err(ReplyError::Rejected(rejection)) = Reply::decode(&bytes) else { panic!("it is a refusal") };
        assert_eq!((rejection.failure, rejection.may_pass()), (Some(Failure::BadAlgorithm), false));
    }

    #[test]
    fn what_is_no_reply_is_named() {
        let granted = element(INTEGER, &[&[0]]);
        assert_eq!(Reply::decode(&info(&[&granted])), Err(ReplyError::StampMissing));
        let refusal = element(SEQUENCE, &[&element(INTEGER, &[&[2]])]);
        let both = element(SEQUENCE, &[&refusal, &element(SEQUENCE, &[])]);
        assert_eq!(Reply::decode(&both), Err(ReplyError::StampUnexpected));
        let long = vec![b' '; REPLY_BYTES_MAX + 1];
        assert_eq!(Reply::decode(&long), Err(ReplyError::TooLong(REPLY_BYTES_MAX + 1)));
        let trailing = [info(&[&element(INTEGER, &[&[2]])]), vec![0]].concat();
        for bad in [
            &b"<!DOCTYPE html><title>Welcome to our Wi-Fi</title>"[..],
            b"",
            &[0x30, 0x80, 0, 0],
            &trailing,
            &info(&[]),
            &info(&[&element(INTEGER, &[&[6]])]),
            &info(&[&element(INTEGER, &[&[0xff]])]),
            &info(&[&element(INTEGER, &[&[2]]), &element(BIT_STRING, &[])]),
            &info(&[&element(INTEGER, &[&[2]]), &element(SEQUENCE, &[&element(0x16, &[b"x"])])]),
            &info(&[&element(INTEGER, &[&[2]]), &element(INTEGER, &[&[2]])]),
        ] {
            assert_eq!(Reply::decode(bad), Err(ReplyError::Malformed), "{bad:?}");
        }
    }
}

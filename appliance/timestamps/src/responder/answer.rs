//! Replies as they leave: `TimeStampResp` of RFC 3161, 2.4.2.

use crate::der::{BIT_STRING, INTEGER, SEQUENCE, UTF8_STRING, element};
use crate::reply::Failure;

/// The reply that grants `token`, DER of a ContentInfo.
pub fn granted(token: &[u8]) -> Vec<u8> {
    let status = element(SEQUENCE, &[&element(INTEGER, &[&[0]])]);
    element(SEQUENCE, &[&status, token])
}

/// The reply that grants nothing, with words for people.
pub fn rejected(failure: Failure, words: &str) -> Vec<u8> {
    let text = element(SEQUENCE, &[&element(UTF8_STRING, &[words.as_bytes()])]);
    let bit = failure.bit();
    // A BIT STRING of named bits ends with the last bit that is set.
    let mut flags = vec![7 - (bit % 8) as u8];
    flags.resize(bit / 8 + 1, 0);
    flags.push(0x80 >> (bit % 8));
    let status = element(SEQUENCE, &[&element(INTEGER, &[&[2]]), &text, &element(BIT_STRING, &[&flags])]);
    element(SEQUENCE, &[&status])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reply, ReplyError, Status};

    #[test]
    fn our_own_client_reads_every_refusal_as_it_was_meant() {
        for failure in [
            Failure::BadAlgorithm,
            Failure::BadRequest,
            Failure::BadDataFormat,
            Failure::TimeNotAvailable,
            Failure::UnacceptedPolicy,
            Failure::UnacceptedExtension,
            Failure::AddInfoNotAvailable,
            Failure::SystemFailure,
        ] {
            let bytes = rejected(failure, "because");
            let Err(ReplyError::Rejected(read)) = Reply::decode(&bytes) else { panic!("{failure:?}") };
            assert_eq!(
                (read.status, read.failure, read.text.as_str()),
                (Status::Rejection, Some(failure), "because")
            );
        }
        // timeNotAvailable, as `openssl asn1parse` shows it of other authorities.
        assert!(rejected(Failure::TimeNotAvailable, "").ends_with(&[3, 3, 1, 0, 2]));
    }

    #[test]
    fn a_grant_holds_its_token() {
        let token = element(SEQUENCE, &[b"\x05\x00"]);
        let bytes = granted(&token);
        assert_eq!(Reply::decode(&bytes), Ok(Reply { modified: false, stamp: &token }));
    }
}

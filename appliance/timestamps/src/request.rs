//! Requests: `TimeStampReq` of RFC 3161, 2.4.1.
//!
//! Refuses to do: other hashes than SHA-256, requests without a nonce, requests that would leave the authority's
//! certificate out (a reply must be judged years later from itself).

use crate::der::{
    BOOLEAN, INTEGER, NULL, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, element, number_content,
};
use crate::oid::{self, Oid};

/// A request for a stamp over one SHA-256 value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    imprint: [u8; 32],
    nonce: u64,
    policy: Option<Oid>,
}

impl Request {
    /// How a request is labelled in HTTP.
    pub const CONTENT_TYPE: &str = "application/timestamp-query";
    /// How its reply is labelled.
    pub const REPLY_CONTENT_TYPE: &str = "application/timestamp-reply";

    /// A request. The nonce is random and used once: 64 bits, which is what `openssl ts` sends and every authority
    /// takes. Without a policy the authority chooses.
    pub fn new(imprint: [u8; 32], nonce: u64, policy: Option<Oid>) -> Self {
        Request { imprint, nonce, policy }
    }

    /// The DER that is posted: version 1, imprint, policy, nonce, certReq TRUE.
    pub fn encode(&self) -> Vec<u8> {
        // With NULL parameters, as the client that every authority has been tried with writes them.
        let algorithm =
            element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, &[oid::SHA256]), &element(NULL, &[])]);
        let imprint = element(SEQUENCE, &[&algorithm, &element(OCTET_STRING, &[&self.imprint])]);
        let policy = self.policy.as_ref().map(|policy| element(OBJECT_IDENTIFIER, &[policy.content()]));
        element(
            SEQUENCE,
            &[
                &element(INTEGER, &[&[1]]),
                &imprint,
                policy.as_deref().unwrap_or_default(),
                &element(INTEGER, &[&number_content(self.nonce)]),
                &element(BOOLEAN, &[&[0xff]]),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_these_bytes() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let imprint = "11".repeat(32);
        assert_eq!(
            hex(&Request::new([0x11; 32], 0x80, None).encode()),
            format!("303d0201013031300d060960864801650304020105000420{imprint}020200800101ff")
        );
        let policy = Oid::parse("1.2.3.4.1").unwrap();
        assert_eq!(
            hex(&Request::new([0x11; 32], 0, Some(policy)).encode()),
            format!("30420201013031300d060960864801650304020105000420{imprint}06042a0304010201000101ff")
        );
    }
}

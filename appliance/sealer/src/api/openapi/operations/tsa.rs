//! Operations of time stamps.

use super::super::Operation;
use crate::api::access::Right;
use crate::problem::Kind;
use serde_json::json;

/// `POST /tsa`.
pub fn stamp() -> Operation {
    let binary = json!({"schema": {"type": "string", "format": "binary"}});
    Operation::new("stampTime", "seals", "Makes an RFC 3161 time stamp, which is also a seal.")
        .describe(
            "For programs that speak RFC 3161: DER of a TimeStampReq, answered with DER of a TimeStampResp. What is wrong \
             with the request, the time or the state of the box is a rejection in that answer, with status 200. The token's \
             serial number is the index of its seal and the first 16 hex digits of its leaf hash. HTTP Basic with a client's \
             name and token counts here, and networks that the operator has named need no credential.",
        )
        .needs(Right::Seal)
        .body("application/timestamp-query", binary.clone())
        .answer(200, "A token, or a rejection.", "application/timestamp-reply", binary)
        .problems(&[Kind::NoTimeStamps, Kind::Overloaded])
}

/// `GET /tsa/certificate`.
pub fn certificate() -> Operation {
    Operation::new(
        "timeStampCertificate",
        "box",
        "The certificate behind time stamps of the present key epoch, and its CA.",
    )
    .describe("For tokens that were asked for without certificates.")
    .answer(
        200,
        "Both in PEM, the signer's first.",
        "application/x-pem-file",
        json!({"schema": {"type": "string"}}),
    )
    .problems(&[Kind::NoTimeStamps, Kind::Locked])
}

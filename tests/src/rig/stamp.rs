//! A program that knows RFC 3161 and nothing of Bulla, as a test needs it.

use super::{Client, Response, Rig};
use anyhow::{Context, Result, ensure};
use bulla_timestamps::{Authority, Expected, Failure, Oid, Reply, ReplyError, Request, TimeStamp, verify};
use sha2::{Digest as _, Sha256};

/// Lines of `box.toml` for a box that stamps though nobody has told it the time.
pub const UNSTATED: &str = "[tsa]\nenabled = true\nunknown_time = \"unstated\"\n";

/// SHA-256 of a document.
pub fn imprint(document: &[u8]) -> [u8; 32] {
    Sha256::digest(document).into()
}

/// Posts a request as it is.
pub fn post(client: &Client, headers: &[(&str, &str)], query: &[u8]) -> Result<Response> {
    let mut all = vec![("Content-Type", Request::CONTENT_TYPE)];
    all.extend_from_slice(headers);
    client.post("/tsa", &all, query)
}

/// The reply to a request for a stamp of this document.
pub fn ask(client: &Client, document: &[u8], nonce: u64, policy: Option<Oid>) -> Result<Vec<u8>> {
    let answer = post(client, &[], &Request::new(imprint(document), nonce, policy).encode())?;
    ensure!(answer.status == 200, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    ensure!(answer.content_type == Request::REPLY_CONTENT_TYPE, "{}", answer.content_type);
    Ok(answer.body)
}

/// Judges a reply as whoever trusts the box's CA would.
pub fn judge(rig: &Rig, reply: &[u8], document: &[u8], nonce: Option<u64>) -> Result<TimeStamp> {
    let authority = Authority::from_pem(rig.ca_pem().as_bytes(), vec![])?;
    Ok(verify(reply, &Expected { imprint: imprint(document), nonce }, &authority)?)
}

/// A stamp of this document, judged.
pub fn stamp(rig: &Rig, client: &Client, document: &[u8]) -> Result<TimeStamp> {
    judge(rig, &ask(client, document, 77, None)?, document, Some(77))
}

/// Why this reply holds no token.
pub fn refusal(reply: &[u8]) -> Result<(Failure, String)> {
    match Reply::decode(reply) {
        Err(ReplyError::Rejected(rejection)) => {
            Ok((rejection.failure.context("a rejection names its failure")?, rejection.text))
        }
        other => anyhow::bail!("no rejection: {other:?}"),
    }
}

/// The seal's id that a serial number says.
pub fn seal_id(serial: &[u8]) -> Result<String> {
    ensure!(serial.len() > 8 && serial.len() <= 16, "{serial:02x?}");
    let (index, leaf) = serial.split_at(serial.len() - 8);
    let index = index.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    Ok(format!("{index}-{}", hex::encode(leaf)))
}

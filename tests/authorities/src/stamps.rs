//! Stamps as stock OpenSSL makes them: `openssl ts -reply`, and `openssl cms -sign` for those it would not make.

use crate::openssl::{self, text};
use crate::pki::Holder;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::sync::Mutex;

/// Policy of the stamps that ask for none.
pub const POLICY: &str = "1.3.6.1.4.1.32473.1.1";
/// Another one that may be asked for.
pub const OTHER_POLICY: &str = "1.3.6.1.4.1.32473.1.2";

/// How an authority stamps.
#[derive(Debug, Clone, Copy)]
pub struct Manner<'a> {
    /// Hash of the signature.
    pub hash: &'a str,
    /// Hash that names the certificate; `sha1` gives the attribute of RFC 2634.
    pub binding_hash: &'a str,
    /// Line of an OpenSSL configuration, such as `secs:1`; empty for none.
    pub accuracy: &'a str,
    /// Digits after the second.
    pub precision: u8,
    /// Whether certificates above the signer's come along.
    pub chain: bool,
}

impl Default for Manner<'_> {
    fn default() -> Self {
        Manner { hash: "sha256", binding_hash: "sha256", accuracy: "secs:1", precision: 3, chain: true }
    }
}

/// A desk that stamps.
pub struct Desk {
    signer: Holder,
    chain: bool,
    /// OpenSSL counts serial numbers in a file; one stamp at a time.
    counting: Mutex<()>,
}

impl Desk {
    /// Opens a desk for this signer, with its configuration in the signer's directory.
    pub fn open(signer: &Holder, manner: &Manner<'_>) -> Result<Self> {
        let directory = signer.directory();
        let accuracy = match manner.accuracy {
            "" => String::new(),
            accuracy => format!("accuracy = {accuracy}\n"),
        };
        fs::write(directory.join("serial"), "01\n")?;
        fs::write(
            directory.join("tsa.cnf"),
            format!(
                "[only]\nserial = {}\nsigner_digest = {}\ndefault_policy = {POLICY}\nother_policies = {OTHER_POLICY}\n\
                 digests = sha256, sha384, sha512\n{accuracy}clock_precision_digits = {}\nordering = no\ntsa_name = yes\n\
                 ess_cert_id_chain = no\ness_cert_id_alg = {}\n",
                text(&directory.join("serial"))?,
                manner.hash,
                manner.precision,
                manner.binding_hash,
            ),
        )?;
        Ok(Desk { signer: signer.clone(), chain: manner.chain, counting: Mutex::new(()) })
    }

    /// The reply to a request, on a clock that is off by so many seconds.
    pub fn reply(&self, request: &[u8], offset_seconds: i64) -> Result<Vec<u8>> {
        let (certificate, key, chain) = (self.signer.certificate(), self.signer.key(), self.signer.chain());
        let config = self.signer.directory().join("tsa.cnf");
        let mut arguments = vec!["ts", "-reply", "-config", text(&config)?, "-section", "only"];
        arguments.extend(["-queryfile", "/dev/stdin", "-signer", text(&certificate)?, "-inkey", text(&key)?]);
        if self.chain {
            arguments.extend(["-chain", text(&chain)?]);
        }
        let _one_at_a_time = self.counting.lock().map_err(|_| anyhow::anyhow!("an earlier stamp failed"))?;
        openssl::run_at(&arguments, request, offset_seconds)
    }
}

/// The content (TSTInfo) of a reply, by OpenSSL.
pub fn content_of(reply: &[u8]) -> Result<Vec<u8>> {
    let stamp = stamp_of(reply)?;
    openssl::run(&["cms", "-verify", "-inform", "DER", "-noverify", "-binary"], stamp)
}

/// The ContentInfo in a reply that is granted without words.
pub fn stamp_of(reply: &[u8]) -> Result<&[u8]> {
    let granted = [0x30, 0x03, 0x02, 0x01, 0x00];
    let at = reply.windows(granted.len()).position(|window| window == granted);
    let at = at.context("the reply is not one that OpenSSL grants")?;
    Ok(&reply[at + granted.len()..])
}

/// The request's imprint (SHA-256), to be looked at or changed.
pub fn imprint_of(request: &mut [u8]) -> Result<&mut [u8]> {
    let header = [0x04, 0x20];
    let at = request.windows(2).position(|window| window == header).map(|at| at + 2);
    let at = at.context("the request is over no SHA-256 value")?;
    ensure!(request.len() >= at + 32, "the request is cut short");
    Ok(&mut request[at..at + 32])
}

/// A reply around this content, signed by `openssl cms -sign` with these further arguments (`-cades` binds the
/// certificate as RFC 5816 asks). Type of the content and hash have to be among them.
pub fn signed(content: &[u8], signer: &Holder, arguments: &[&str]) -> Result<Vec<u8>> {
    let (certificate, key, chain) = (signer.certificate(), signer.key(), signer.chain());
    let mut all = vec!["cms", "-sign", "-binary", "-nodetach", "-outform", "DER"];
    all.extend(["-signer", text(&certificate)?, "-inkey", text(&key)?]);
    if fs::metadata(&chain)?.len() > 0 {
        all.extend(["-certfile", text(&chain)?]);
    }
    all.extend(arguments);
    Ok(granted(&openssl::run(&all, content)?))
}

/// Arguments of [`signed`] for the content of a stamp.
pub const AS_STAMP: [&str; 5] = ["-econtent_type", "1.2.840.113549.1.9.16.1.4", "-md", "sha256", "-cades"];

/// A reply that grants this stamp.
pub fn granted(stamp: &[u8]) -> Vec<u8> {
    in_sequence(&[&[0x30, 0x03, 0x02, 0x01, 0x00], stamp].concat())
}

/// A refusal: no time to be trusted at the moment.
pub fn time_not_available() -> Vec<u8> {
    let words = b"the time source is not available";
    let text = [&[0x0c, words.len() as u8], &words[..]].concat();
    // failInfo: bit 14.
    let info = [&[0x02, 0x01, 0x02][..], &in_sequence(&text), &[0x03, 0x03, 0x01, 0x00, 0x02]].concat();
    in_sequence(&in_sequence(&info))
}

fn in_sequence(content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ 0..=0x7f => vec![short as u8],
        middle @ 0x80..=0xff => vec![0x81, middle as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[0x30], &length[..], content].concat()
}

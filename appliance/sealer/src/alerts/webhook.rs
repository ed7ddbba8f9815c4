//! One notification to a web server: a POST, signed where there is a secret.
//!
//! Headers: `Content-Type: application/json`, `Bulla-Notification` (the id: who has seen it answers 2xx and forgets it),
//! `Bulla-Signature: t=<Unix seconds>,v1=<hex>` with HMAC-SHA256 over the digits of t, a full stop and the body, and
//! `Authorization: Bearer` with a token.
//! Refuses to do: follow redirects; believe a certificate of a CA that is not named; keep a secret longer than an attempt.
//! Invariant: only 2xx counts as taken; secrets and the address are in no error.

use super::{Attempt, Failed};
use crate::config::AlertWebhook;
use crate::driver::outage::http::Target;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use sha2::Sha256;
use std::path::Path;
use std::time::Duration;
use zeroize::Zeroizing;

/// Shortest secret, bytes.
const SECRET_BYTES_MIN: usize = 16;
/// Longest secret or token, bytes.
pub const SECRET_BYTES_MAX: u64 = 4_096;
const NOTIFICATION: HeaderName = HeaderName::from_static("bulla-notification");
const SIGNATURE: HeaderName = HeaderName::from_static("bulla-signature");

/// Posts it.
pub async fn post(config: &AlertWebhook, id: &str, body: &str, unix_seconds: u64) -> Attempt {
    let here = |error: anyhow::Error| Failed::here(format!("{error:#}"));
    let target = Target::new(&config.url, config.tls_ca.as_deref()).map_err(here)?;
    let secret = config.secret_file.as_deref().map(secret).transpose()?;
    let signature = secret.map(|secret| signature(&secret, unix_seconds, body.as_bytes())).transpose()?;
    let token = config.token_file.as_deref().map(token).transpose()?;
    let authorization = token.map(|token| Zeroizing::new(format!("Bearer {}", token.as_str())));
    let mut headers = vec![(CONTENT_TYPE, "application/json"), (NOTIFICATION, id)];
    headers.extend(signature.as_deref().map(|value| (SIGNATURE, value)));
    headers.extend(authorization.as_ref().map(|value| (AUTHORIZATION, value.as_str())));
    let within = Duration::from_secs(config.timeout_seconds);
    let answer = target.post_with(&headers, body.as_bytes().to_vec(), within).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let code = answer.status.as_u16();
    let words = match code {
        300..=399 => format!("it answered {code} and points elsewhere; redirects are not followed"),
        401 | 403 => format!("it answered {code}; does it know the secret, or the token?"),
        _ => format!("it answered {code}"),
    };
    Err(Failed { words, surely: false, retry_after: None })
}

/// A file of one short secret; at its end a line break may be.
pub fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
    use std::io::Read as _;
    let mut bytes = Zeroizing::new(Vec::new());
    let unreadable =
        |error: std::io::Error| Failed::here(format!("{} cannot be read: {error}", path.display()));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(SECRET_BYTES_MAX).read_to_end(&mut bytes).map_err(unreadable)?;
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
}

fn secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let secret = read(path)?;
    if secret.len() < SECRET_BYTES_MIN {
        let words = format!("the secret in {} is shorter than {SECRET_BYTES_MIN} bytes", path.display());
        return Err(Failed::here(words));
    }
    Ok(secret)
}

/// A file of one printable word.
pub fn token(path: &Path) -> Result<Zeroizing<String>, Failed> {
    let bytes = read(path)?;
    match std::str::from_utf8(&bytes) {
        Ok(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Zeroizing::new(token.to_owned()))
        }
        _ => Err(Failed::here(format!("{} holds no token: one line of printable ASCII", path.display()))),
    }
}

/// The value of `Bulla-Signature`.
fn signature(secret: &[u8], unix_seconds: u64, body: &[u8]) -> Result<String, Failed> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .map_err(|_| Failed::here("the secret cannot be a key".to_owned()))?;
    mac.update(format!("{unix_seconds}.").as_bytes());
    mac.update(body);
    Ok(format!("t={unix_seconds},v1={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_covers_time_and_body() {
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let made = signature(b"0123456789abcdef", 1_700_000_000, b"{\"a\":1}").unwrap();
        assert_eq!(made, "t=1700000000,v1=9eb18f493f8ec135d9eb2dad817c369bb4e9cbfa818657897a7437c1cd8c3a23");
        assert_ne!(made, signature(b"0123456789abcdef", 1_700_000_001, b"{\"a\":1}").unwrap());
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_told() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        assert!(read(&file).is_err());
        std::fs::write(&file, "hunter2\n").unwrap();
        let refused = secret(&file).unwrap_err().words;
        assert!(refused.contains("shorter") && !refused.contains("hunter2"), "{refused}");
        assert_eq!(token(&file).unwrap().as_str(), "hunter2");
        std::fs::write(&file, "two words").unwrap();
        let refused = token(&file).unwrap_err().words;
        assert!(!refused.contains("words") || refused.contains("printable"), "{refused}");
        assert!(!refused.contains("two words"), "{refused}");
    }
}

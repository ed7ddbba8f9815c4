//! Bytes as the texts of a few QR codes, and back. `docs/formats.md`, section "Printed codes", is normative.
//!
//! Refuses to do: guess. Texts that are not all of one payload, and exactly it, give one sentence and no bytes.
//! Invariant: the hash in a code is a guard against mistakes and torn pages, not against people; whether the payload is
//! genuine is for whoever reads it to judge.

use crate::base45;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use thiserror::Error;

/// Bytes that one page holds.
pub const PAYLOAD_MAX: usize = CODES_MAX * PART_MAX;
/// Codes that one page holds.
pub const CODES_MAX: usize = 6;
/// Bytes that one code holds.
pub const PART_MAX: usize = 1_024;
const MAGIC: &str = "BULLA1";

/// Why bytes cannot be printed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitError {
    /// Nothing to print.
    #[error("there are no bytes to print")]
    Empty,
    /// More than a page holds.
    #[error("{0} bytes are too many for the codes of one page, which hold {PAYLOAD_MAX}")]
    TooLarge(usize),
}

/// Why texts are not a payload. Positions count the texts from 1, as they were given.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JoinError {
    /// There is nothing.
    #[error("no code was read")]
    Nothing,
    /// Some other QR code.
    #[error("text {0} is no code of a Bulla page: it does not begin with {MAGIC}/")]
    Foreign(usize),
    /// One of ours, damaged.
    #[error("text {0} is damaged: {1}")]
    Malformed(usize, &'static str),
    /// Codes of two pages.
    #[error("text {position} is a code of another page: {found}, where text 1 is of {first}")]
    Mixed {
        /// Which text.
        position: usize,
        /// Hash and number of codes of its page.
        found: String,
        /// Those of the first text.
        first: String,
    },
    /// The same code with two contents.
    #[error("code {0} was read twice, with different content")]
    Differs(usize),
    /// Codes are missing.
    #[error("missing of {of} codes: {}", list(.missing))]
    Missing {
        /// How many there are.
        of: usize,
        /// Which.
        missing: Vec<usize>,
    },
    /// All there, and not the payload.
    #[error("the codes together are not the data whose hash {0} they carry")]
    Hash(String),
    /// All there, cut where no page cuts.
    #[error("the data is distributed over its codes as no page does it")]
    Distribution,
}

impl JoinError {
    /// The name that `docs/formats.md` gives it.
    pub fn code(&self) -> &'static str {
        match self {
            JoinError::Nothing => "nothing",
            JoinError::Foreign(_) => "foreign",
            JoinError::Malformed(..) => "malformed",
            JoinError::Mixed { .. } => "mixed",
            JoinError::Differs(_) => "differs",
            JoinError::Missing { .. } => "missing",
            JoinError::Hash(_) => "hash",
            JoinError::Distribution => "distribution",
        }
    }
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

/// First four bytes of the SHA-256 of a payload, in capital hex.
pub(crate) fn short_hash(payload: &[u8]) -> String {
    hex::encode_upper(&Sha256::digest(payload)[..4])
}

/// The texts of the codes, in order.
///
/// # Errors
/// No payload, or one that no page holds.
pub fn split(payload: &[u8]) -> Result<Vec<String>, SplitError> {
    match payload.len() {
        0 => return Err(SplitError::Empty),
        1..=PAYLOAD_MAX => {}
        more => return Err(SplitError::TooLarge(more)),
    }
    let (of, hash) = (payload.len().div_ceil(PART_MAX), short_hash(payload));
    // As even as can be, the longer parts first: codes of one size print alike.
    let (least, longer) = (payload.len() / of, payload.len() % of);
    let mut rest = payload;
    let texts = (1..=of).map(|number| {
        let (part, tail) = rest.split_at(least + usize::from(number <= longer));
        rest = tail;
        format!("{MAGIC}/{number}/{of}/{hash}/{}", base45::encode(part))
    });
    Ok(texts.collect())
}

/// The payload of codes in any order, each at least once. White space around a text counts for nothing.
///
/// # Errors
/// Anything but all codes of one page.
pub fn join<T: AsRef<str>>(texts: &[T]) -> Result<Vec<u8>, JoinError> {
    let mut first: Option<Code<'_>> = None;
    let mut parts = BTreeMap::new();
    for (text, position) in texts.iter().zip(1..) {
        let code = Code::read(text.as_ref().trim_ascii(), position)?;
        let (number, part) = (code.number, code.part.clone());
        let first = first.get_or_insert(code.clone());
        if (code.of, code.hash) != (first.of, first.hash) {
            return Err(JoinError::Mixed { position, found: code.page(), first: first.page() });
        }
        if parts.insert(number, part).is_some_and(|before| before != code.part) {
            return Err(JoinError::Differs(number));
        }
    }
    let first = first.ok_or(JoinError::Nothing)?;
    let missing: Vec<usize> = (1..=first.of).filter(|number| !parts.contains_key(number)).collect();
    if !missing.is_empty() {
        return Err(JoinError::Missing { of: first.of, missing });
    }
    let lengths: Vec<usize> = parts.values().map(Vec::len).collect();
    let payload: Vec<u8> = parts.into_values().flatten().collect();
    if short_hash(&payload) != first.hash {
        return Err(JoinError::Hash(first.hash.to_owned()));
    }
    let (least, longer) = (payload.len() / first.of, payload.len() % first.of);
    let even =
        lengths.iter().zip(1..).all(|(length, number)| *length == least + usize::from(number <= longer));
    if !even || payload.len().div_ceil(PART_MAX) != first.of {
        return Err(JoinError::Distribution);
    }
    Ok(payload)
}

/// One text, read.
#[derive(Clone)]
struct Code<'a> {
    number: usize,
    of: usize,
    hash: &'a str,
    part: Vec<u8>,
}

impl<'a> Code<'a> {
    fn read(text: &'a str, position: usize) -> Result<Self, JoinError> {
        let damaged = |what| JoinError::Malformed(position, what);
        let fields = text.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix('/'));
        let mut fields = fields.ok_or(JoinError::Foreign(position))?.splitn(4, '/');
        let mut field = || fields.next().ok_or(damaged("it ends too early"));
        let (number, of, hash, part) = (field()?, field()?, field()?, field()?);
        // One digit each, as there are at most six.
        let digit = |text: &str| match text.as_bytes() {
            [digit @ b'1'..=b'6'] => Some(usize::from(digit - b'0')),
            _ => None,
        };
        let of = digit(of).ok_or(damaged("the number of codes is not one of 1 to 6"))?;
        let number = digit(number)
            .filter(|number| *number <= of)
            .ok_or(damaged("its number is not one of its page's"))?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
        if hash.len() != 8 || !hash.bytes().all(hex) {
            return Err(damaged("its hash is not eight capital hex digits"));
        }
        let part = base45::decode(part).ok_or(damaged("its content is not base45"))?;
        if !(1..=PART_MAX).contains(&part.len()) {
            return Err(damaged("its content is not of 1 to 1024 bytes"));
        }
        Ok(Code { number, of, hash, part })
    }

    fn page(&self) -> String {
        format!("{} in {} codes", self.hash, self.of)
    }
}

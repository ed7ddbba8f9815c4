//! Random texts: tokens, session cookies, one-time codes.
//!
//! Refuses to do: go on without randomness.
//! Invariant: N random bytes are in the text, all of them, and nowhere else.

use zeroize::{Zeroize as _, Zeroizing};

/// RFC 4648, lower case: no character looks like another one, so that a code can be read out and typed.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// `prefix`, then N random bytes in lower-case base32 without padding; else the reason why there is no randomness.
pub fn text<const N: usize>(prefix: &str) -> Result<Zeroizing<String>, String> {
    let mut random = [0u8; N];
    getrandom::fill(&mut random).map_err(|error| error.to_string())?;
    let bit = |index: usize| random.get(index / 8).map_or(0, |byte| (byte >> (7 - index % 8)) & 1);
    let characters = (N * 8).div_ceil(5);
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + characters));
    text.push_str(prefix);
    for group in 0..characters {
        let value = (0..5).fold(0u8, |acc, i| (acc << 1) | bit(group * 5 + i));
        text.push(char::from(ALPHABET[usize::from(value)]));
    }
    random.zeroize();
    Ok(text)
}

/// N random bytes.
pub fn bytes<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut random = [0u8; N];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    Ok(random)
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_have_all_their_bytes_and_differ() {
        let (first, second) = (super::text::<10>("x_").unwrap(), super::text::<10>("x_").unwrap());
        assert_eq!((first.len(), super::text::<32>("").unwrap().len()), (18, 52));
        assert!(first.starts_with("x_") && first != second);
    }
}

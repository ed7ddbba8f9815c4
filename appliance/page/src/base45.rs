//! Base45 (RFC 9285): bytes in the letters that a QR code holds cheapest.
//!
//! Refuses to do: read what it would not write. One text, one meaning.
//! Invariant: what it writes never ends with a space (the last letter of a group is at most `W`), so a reader that trims
//! a line takes nothing away.

const ALPHABET: &[u8; 45] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";

/// Writes bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(2) * 3);
    for pair in bytes.chunks(2) {
        let mut number = pair.iter().fold(0, |number, byte| number * 256 + usize::from(*byte));
        for _ in 0..=pair.len() {
            text.push(char::from(ALPHABET[number % 45]));
            number /= 45;
        }
    }
    text
}

/// Reads them back; `None` for what [`encode`] does not write.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 3 * 2 + 1);
    for group in text.as_bytes().chunks(3) {
        let number = group.iter().rev().try_fold(0, |number, letter| {
            let digit = ALPHABET.iter().position(|known| known == letter)?;
            Some(number * 45 + digit)
        })?;
        match group.len() {
            3 => bytes.extend_from_slice(&u16::try_from(number).ok()?.to_be_bytes()),
            2 => bytes.push(u8::try_from(number).ok()?),
            _ => return None,
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_examples_of_the_rfc() {
        for (bytes, text) in [
            (&b"AB"[..], "BB8"),
            (b"Hello!!", "%69 VD92EX0"),
            (b"base-45", "UJCLQE7W581"),
            (b"ietf!", "QED8WEX0"),
        ] {
            assert_eq!(encode(bytes), text);
            assert_eq!(decode(text).as_deref(), Some(bytes));
        }
        assert_eq!(decode(""), Some(Vec::new()));
    }

    #[test]
    fn what_is_written_otherwise_is_refused() {
        // A letter too few, 65536, 256, a letter outside, a small letter, not ASCII.
        for text in ["B", "BB8B", "GGW", ":::", "V5", "::", "B_8", "bb8", "BBß"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(decode("FGW"), Some(vec![0xff, 0xff]));
    }

    proptest! {
        #[test]
        fn every_byte_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = encode(&bytes);
            prop_assert!(!text.ends_with(' '));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn one_spelling(text in "[0-9A-Z $%*+./:-]{0,40}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}

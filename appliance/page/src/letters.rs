//! The letters that can be printed: WinAnsi, the repertoire that every PDF reader and every office printer has.
//!
//! Refuses to do: drop or imitate a letter. What the repertoire lacks is printed as its number, `[U+0142]`, in the PDF and in
//! the text alike, so that both say the same. That goes for control characters and for letters nobody can see.

/// What stands at 0x80 to 0x9f; the rest of WinAnsi stands where Unicode has it.
const HIGH: [char; 32] = [
    '€', '\0', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\0', 'Ž', '\0', '\0', '‘', '’', '“',
    '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\0', 'ž', 'Ÿ',
];
const SOFT_HYPHEN: char = '\u{ad}';

/// A text in WinAnsi, lacking nothing.
pub(crate) fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match code(letter) {
            Some(code) => bytes.push(code),
            None => bytes.extend_from_slice(format!("[U+{:04X}]", u32::from(letter)).as_bytes()),
        }
    }
    bytes
}

/// Letters of WinAnsi as text.
pub(crate) fn decode(bytes: &[u8]) -> String {
    let letter = |byte: &u8| match byte {
        0x80..=0x9f => HIGH[usize::from(byte - 0x80)],
        _ => char::from(*byte),
    };
    bytes.iter().map(letter).collect()
}

/// Whether a text has a letter that is printed as its number.
pub(crate) fn lacks(text: &str) -> bool {
    text.chars().any(|letter| code(letter).is_none())
}

fn code(letter: char) -> Option<u8> {
    match letter {
        ' '..='~' | '\u{a0}'..='ÿ' if letter != SOFT_HYPHEN => u8::try_from(u32::from(letter)).ok(),
        '\0' | SOFT_HYPHEN => None,
        _ => {
            let at = HIGH.iter().position(|known| *known == letter)?;
            u8::try_from(at).ok().map(|at| 0x80 + at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_repertoire_lacks_is_seen() {
        assert_eq!(decode(&encode("Łódź – 5 €")), "[U+0141]ód[U+017A] – 5 €");
        assert_eq!(decode(&encode("a\nb\u{202e}c\u{ad}d\0")), "a[U+000A]b[U+202E]c[U+00AD]d[U+0000]");
        assert_eq!(encode("Müller “AG”"), b"M\xfcller \x93AG\x94");
        assert!(lacks("Łódź") && !lacks("Müller – 5 €"));
    }

    #[test]
    fn every_letter_of_the_repertoire_is_itself() {
        let printed: Vec<u8> =
            (0x20..=0xff).filter(|byte| code(decode(&[*byte]).chars().next().unwrap()).is_some()).collect();
        // 256 less 32 control characters, delete, the five that WinAnsi leaves free and the soft hyphen.
        assert_eq!(printed.len(), 256 - 32 - 1 - 5 - 1);
        for byte in printed {
            assert_eq!(encode(&decode(&[byte])), [byte]);
        }
    }
}

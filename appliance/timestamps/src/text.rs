//! What strangers wrote, for people: distinguished names and free text, made harmless.
//!
//! Refuses to do: pass on control characters or characters that change the direction of writing; grow without bound.
//! Invariant: nothing is decided by these texts.

use crate::der::{self, Reader, SEQUENCE, SET, UTF8_STRING};
use crate::oid::Oid;

/// Most characters of such a text.
const CHARACTERS_MAX: usize = 240;

/// `text` with whatever could deceive a terminal or a page replaced, cut to a length that fits a line or two.
pub(crate) fn harmless(text: &str) -> String {
    let deceives = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().take(CHARACTERS_MAX).map(|c| if deceives(c) { '\u{fffd}' } else { c }).collect()
}

/// A distinguished name as `CN=..., O=..., C=...`; the last part first, as people are used to.
pub(crate) fn name(name: &[u8]) -> der::Result<String> {
    let mut parts = Vec::new();
    for set in Reader::whole(name, SEQUENCE)?.all(32)? {
        for pair in set.open().all(8)? {
            let mut pair = pair.open();
            let kind = pair.take(der::OBJECT_IDENTIFIER)?;
            let value = pair.any()?;
            pair.end()?;
            parts.push(format!("{}={}", label(kind.content), string(value.tag, value.content)));
        }
        if set.tag != SET {
            return Err(der::Malformed);
        }
    }
    parts.reverse();
    Ok(harmless(&parts.join(", ")))
}

fn label(kind: &[u8]) -> String {
    let known = match kind {
        b"\x55\x04\x03" => "CN",
        b"\x55\x04\x05" => "serialNumber",
        b"\x55\x04\x06" => "C",
        b"\x55\x04\x07" => "L",
        b"\x55\x04\x08" => "ST",
        b"\x55\x04\x0a" => "O",
        b"\x55\x04\x0b" => "OU",
        b"\x55\x04\x61" => "organizationIdentifier",
        _ => return Oid::from_content(kind).to_string(),
    };
    known.to_owned()
}

/// A string of X.520, whatever its alphabet.
fn string(tag: u8, content: &[u8]) -> String {
    match tag {
        UTF8_STRING => String::from_utf8_lossy(content).into_owned(),
        // BMPString.
        0x1e => {
            let units = content.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or('\u{fffd}')).collect()
        }
        // PrintableString, IA5String, TeletexString: read as Latin-1, which the first two are part of.
        _ => content.iter().map(|byte| char::from(*byte)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::der::element;

    #[test]
    fn names_are_for_people_and_harmless() {
        let pair = |kind: &[u8], tag, value: &[u8]| {
            let inside = [element(der::OBJECT_IDENTIFIER, &[kind]), element(tag, &[value])];
            element(SET, &[&element(SEQUENCE, &[&inside[0], &inside[1]])])
        };
        let parts = [
            pair(b"\x55\x04\x06", 0x13, b"AT"),
            pair(b"\x55\x04\x0a", UTF8_STRING, "B\u{e4}nk\u{202e}\n".as_bytes()),
            pair(b"\x55\x04\x03", 0x1e, b"\0T\0S\0A"),
            pair(b"\x2a\x03", 0x16, b"x"),
        ];
        let whole = element(SEQUENCE, &parts.each_ref().map(|part| &part[..]));
        assert_eq!(name(&whole).unwrap(), "1.2.3=x, CN=TSA, O=B\u{e4}nk\u{fffd}\u{fffd}, C=AT");
        assert!(name(&whole[..whole.len() - 1]).is_err());
        let long = element(SEQUENCE, &[&pair(b"\x55\x04\x03", UTF8_STRING, &[b'a'; 5000])]);
        assert_eq!(name(&long).unwrap().chars().count(), CHARACTERS_MAX);
    }
}

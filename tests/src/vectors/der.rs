//! DER by hand, for the encodings that an encoder would never produce.
//!
//! Refuses to do: parse. Values are found by the bytes they must have, and a missing one panics.

/// One tag, length, value; lengths in their shortest form.
pub(super) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("vectors are small").to_be_bytes();
    let head = match content.len() {
        0..=0x7f => vec![tag, length[1]],
        0x80..=0xff => vec![tag, 0x81, length[1]],
        _ => vec![tag, 0x82, length[0], length[1]],
    };
    [head, content.to_vec()].concat()
}

/// SEQUENCE { content, OCTET STRING }: an entry or an enrolment without chain from its parts.
pub(super) fn signed(content: &[u8], signature: &[u8]) -> Vec<u8> {
    tlv(0x30, &[content, &tlv(0x04, signature)].concat())
}

/// The content of the outermost value.
pub(super) fn inside(der: &[u8]) -> &[u8] {
    match der[1] {
        0x82 => &der[4..],
        0x81 => &der[3..],
        _ => &der[2..],
    }
}

/// The same value with one length octet more than needed in the outermost length.
pub(super) fn long_length(der: &[u8]) -> Vec<u8> {
    let content = inside(der);
    let length = u32::try_from(content.len()).expect("vectors are small").to_be_bytes();
    [&[der[0], 0x83], &length[1..], content].concat()
}

/// The same SEQUENCE with one field more at its end.
pub(super) fn with_extra_field(der: &[u8]) -> Vec<u8> {
    tlv(der[0], &[inside(der), &[0x05, 0x00]].concat())
}

/// Replaces the only occurrence of `from` in the outermost SEQUENCE by `to`.
pub(super) fn replace(der: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let content = inside(der);
    let at = content.windows(from.len()).position(|window| window == from).expect("the value is there");
    tlv(der[0], &[&content[..at], to, &content[at + from.len()..]].concat())
}

/// An object identifier.
pub(super) fn oid(text: &str) -> Vec<u8> {
    let mut arcs = text.split('.').map(|arc| arc.parse::<u32>().expect("identifiers here are numbers"));
    let (first, second) = (arcs.next().unwrap_or(0), arcs.next().unwrap_or(0));
    let mut content = Vec::new();
    for arc in [first * 40 + second].into_iter().chain(arcs) {
        let groups = (32 - arc.leading_zeros()).div_ceil(7).max(1);
        content.extend((0..groups).rev().map(|group| {
            let more = if group > 0 { 0x80 } else { 0 };
            (arc >> (7 * group)) as u8 & 0x7f | more
        }));
    }
    tlv(0x06, &content)
}

//! A strict DER reader over borrowed bytes: what was signed is hashed as it came.
//!
//! Refuses to do: indefinite or non-minimal lengths, tags of more than one byte, trailing bytes where an end is
//! asked for. It does not sort SETs: OpenSSL writes the certificates of a token in any order, and nothing depends on it.
//! Invariant: an [`Element`]'s `raw` is a slice of the input, header and all.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const NULL: u8 = 0x05;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const UTF8_STRING: u8 = 0x0c;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// `[number]` before something constructed.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// `[number] IMPLICIT` before something primitive.
pub(crate) const fn context_primitive(number: u8) -> u8 {
    0x80 | number
}

/// The bytes are not DER of what was asked for. Who asked says of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

pub(crate) type Result<T> = std::result::Result<T, Malformed>;

/// One element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub tag: u8,
    /// Tag, length and content.
    pub raw: &'a [u8],
    pub content: &'a [u8],
}

impl<'a> Element<'a> {
    /// Reads what is inside.
    pub fn open(&self) -> Reader<'a> {
        Reader(self.content)
    }

    /// The value of an INTEGER that is not negative and fits.
    pub fn number(&self) -> Result<u64> {
        let bytes = unsigned(self.content)?;
        let bytes = bytes.strip_prefix(&[0]).unwrap_or(bytes);
        if bytes.len() > 8 {
            return Err(Malformed);
        }
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The bits of a BIT STRING that names flags: bit 0 first.
    pub fn flags(&self) -> Result<Vec<usize>> {
        let (unused, bytes) = self.content.split_first().ok_or(Malformed)?;
        let last = bytes.last().copied();
        let fine = match last {
            None => *unused == 0,
            Some(last) => *unused < 8 && last & ((1u16 << unused) as u8).wrapping_sub(1) == 0,
        };
        if !fine {
            return Err(Malformed);
        }
        let set = |at: &usize| bytes[at / 8] & (0x80 >> (at % 8)) != 0;
        Ok((0..bytes.len() * 8).filter(set).collect())
    }
}

/// Elements one after another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    /// Opens `bytes`, which must be exactly one element of this tag.
    pub fn whole(bytes: &'a [u8], tag: u8) -> Result<Self> {
        let mut reader = Reader(bytes);
        let inside = reader.enter(tag)?;
        reader.end()?;
        Ok(inside)
    }

    /// The next element, of whatever tag.
    pub fn any(&mut self) -> Result<Element<'a>> {
        let bytes = self.0;
        let (&tag, rest) = bytes.split_first().ok_or(Malformed)?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (&first, rest) = rest.split_first().ok_or(Malformed)?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Four bytes of length are more than any input has; no digits at all is BER's indefinite form.
            0x81..=0x84 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Malformed)?;
                let length = digits.iter().fold(0usize, |length, digit| length << 8 | usize::from(*digit));
                if digits[0] == 0 || length < 0x80 {
                    return Err(Malformed);
                }
                (length, rest)
            }
            _ => return Err(Malformed),
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(Element { tag, raw: &bytes[..bytes.len() - rest.len()], content })
    }

    /// The next element, which must have this tag.
    pub fn take(&mut self, tag: u8) -> Result<Element<'a>> {
        let element = self.any()?;
        let well_formed = match tag {
            BOOLEAN => matches!(element.content, [0] | [0xff]),
            INTEGER => integer(element.content).is_ok(),
            NULL => element.content.is_empty(),
            OBJECT_IDENTIFIER => is_object_identifier(element.content),
            _ => true,
        };
        if element.tag == tag && well_formed { Ok(element) } else { Err(Malformed) }
    }

    /// The next element when it has this tag.
    pub fn take_if(&mut self, tag: u8) -> Result<Option<Element<'a>>> {
        if self.0.first() == Some(&tag) { self.take(tag).map(Some) } else { Ok(None) }
    }

    /// The inside of the next element, which must have this tag.
    pub fn enter(&mut self, tag: u8) -> Result<Reader<'a>> {
        Ok(self.take(tag)?.open())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<()> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// All elements that are left, at most `most`.
    pub fn all(mut self, most: usize) -> Result<Vec<Element<'a>>> {
        let mut found = Vec::new();
        while !self.is_empty() {
            if found.len() == most {
                return Err(Malformed);
            }
            found.push(self.any()?);
        }
        Ok(found)
    }
}

/// The content of an INTEGER, when it is in its shortest form.
fn integer(content: &[u8]) -> Result<&[u8]> {
    match content {
        [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(Malformed),
        _ => Ok(content),
    }
}

/// The content of an INTEGER that is not negative, with the leading zero it may need.
pub(crate) fn unsigned(content: &[u8]) -> Result<&[u8]> {
    match integer(content)? {
        [0x80..=0xff, ..] => Err(Malformed),
        content => Ok(content),
    }
}

fn is_object_identifier(content: &[u8]) -> bool {
    let ended = content.last().is_some_and(|last| *last < 0x80);
    let minimal = |at: usize| content[at] != 0x80 || at > 0 && content[at - 1] >= 0x80;
    ended && (0..content.len()).all(minimal)
}

/// An element of this tag around `parts`.
pub(crate) fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let digits = length.to_be_bytes();
    let digits = &digits[digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len())..];
    let mut out = vec![tag];
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out
}

/// The content of the INTEGER that is `number`.
pub(crate) fn number_content(number: u64) -> Vec<u8> {
    let digits = number.to_be_bytes();
    let first = digits.iter().position(|digit| *digit != 0).unwrap_or(digits.len() - 1);
    let zero: &[u8] = if digits[first] >= 0x80 { &[0] } else { &[] };
    [zero, &digits[first..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_shortest_definite_form_is_read() {
        for good in [&[4, 0][..], &[4, 1, 9], &[0x30, 0x03, 4, 1, 9]] {
            assert_eq!(Reader::new(good).any().unwrap().raw, good);
        }
        for bad in [
            &b""[..],
            &[4],
            &[4, 1],
            &[0x30, 0x80, 0, 0],
            &[4, 0x81, 1, 9],
            &[4, 0x82, 0, 1, 9],
            &[4, 0x85, 0, 0, 0, 0, 1, 9],
            &[0x1f, 1, 0],
            &[0xbf, 0x81, 0x01, 0],
            &[4, 0xff, 1],
        ] {
            assert_eq!(Reader::new(bad).any(), Err(Malformed), "{bad:?}");
        }
        assert!(Reader::whole(&[0x30, 0, 0], SEQUENCE).is_err(), "trailing bytes");
    }

    #[test]
    fn primitive_values_have_one_spelling() {
        let read = |bytes: &[u8]| Reader::new(bytes).take(bytes[0]).is_ok();
        for good in [&[1, 1, 0][..], &[1, 1, 0xff], &[2, 1, 0x80], &[2, 2, 0, 0x80], &[5, 0], &[6, 1, 0x2a]] {
            assert!(read(good), "{good:?}");
        }
        for bad in [
            &[1, 1, 1][..],
            &[1, 0],
            &[2, 0],
            &[2, 2, 0, 1],
            &[2, 2, 0xff, 0x80],
            &[5, 1, 0],
            &[6, 0],
            &[6, 1, 0x80],
            &[6, 2, 0x80, 1],
            &[6, 3, 1, 0x80, 1],
        ] {
            assert!(!read(bad), "{bad:?}");
        }
        let number = |bytes: &[u8]| Reader::new(bytes).take(INTEGER).and_then(|element| element.number());
        assert_eq!(number(&[2, 9, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Ok(u64::MAX));
        assert_eq!(number(&[2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed));
        assert_eq!(number(&[2, 1, 0xff]), Err(Malformed), "negative");
        let flags = |bytes: &[u8]| Reader::new(bytes).any().and_then(|element| element.flags());
        assert_eq!(flags(&[3, 2, 6, 0xc0]), Ok(vec![0, 1]));
        assert_eq!(flags(&[3, 1, 0]), Ok(vec![]));
        for bad in [&[3, 0][..], &[3, 1, 1], &[3, 2, 8, 0], &[3, 2, 6, 0xc1]] {
            assert_eq!(flags(bad), Err(Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..70_000), number: u64) {
            let written = element(OCTET_STRING, &[&content]);
            prop_assert_eq!(Reader::new(&written).any().map(|read| read.content), Ok(&content[..]));
            let written = element(INTEGER, &[&number_content(number)]);
            prop_assert_eq!(Reader::new(&written).take(INTEGER).and_then(|read| read.number()), Ok(number));
        }
    }
}

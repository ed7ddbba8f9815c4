//! JPEG: from the start of the image through its segments and scans to the end marker.
//!
//! The end is looked for behind the scans only: a thumbnail in a segment has an end of its own. Tolerated: anything behind
//! it, fill bytes before a marker.

use super::{Source, Stop, Visits};

const PIECE_BYTES: usize = 64 << 10;

/// Reads forward in pieces.
struct Cursor<'a, S: Source + ?Sized> {
    source: &'a S,
    at: u64,
    piece: Vec<u8>,
    begins: u64,
}

impl<S: Source + ?Sized> Cursor<'_, S> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let within = self.at.checked_sub(self.begins).and_then(|at| usize::try_from(at).ok());
        let byte = match within.and_then(|at| self.piece.get(at)) {
            Some(byte) => *byte,
            None => {
                let left = self.source.length().saturating_sub(self.at);
                let length = PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES));
                self.piece.resize(length, 0);
                self.source.read_at(self.at, &mut self.piece)?;
                self.begins = self.at;
                *self.piece.first().ok_or(Stop::Missing("its end marker is not there yet"))?
            }
        };
        self.at += 1;
        Ok(byte)
    }
}

pub(super) fn check<S: Source + ?Sized>(source: &S, visits: &mut Visits) -> Result<(), Stop> {
    let mut cursor = Cursor { source, at: 2, piece: Vec::new(), begins: 0 };
    let mut scanned = false;
    loop {
        visits.one()?;
        let mut marker = cursor.byte()?;
        if marker != 0xff {
            return Err(Stop::Missing("there is something else where a marker should be"));
        }
        while marker == 0xff {
            marker = cursor.byte()?;
        }
        match marker {
            0xd9 if scanned => return Ok(()),
            0xd9 => return Err(Stop::Missing("it ends before its picture")),
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => continue,
            0x00 => return Err(Stop::Missing("there is something else where a marker should be")),
            _ => {}
        }
        let length = u64::from(cursor.byte()?) << 8 | u64::from(cursor.byte()?);
        cursor.at +=
            length.checked_sub(2).ok_or(Stop::Missing("a segment of it is shorter than its length"))?;
        if marker == 0xda {
            scanned = true;
            pass_scan(&mut cursor)?;
        }
    }
}

/// Ends before the marker that ends the scan.
fn pass_scan<S: Source + ?Sized>(cursor: &mut Cursor<'_, S>) -> Result<(), Stop> {
    loop {
        if cursor.byte()? != 0xff {
            continue;
        }
        let mut fill = 0;
        let after = loop {
            match cursor.byte()? {
                0xff => fill += 1,
                other => break other,
            }
        };
        // A stuffed byte, or a restart: still the scan.
        if after == 0 || (0xd0..=0xd7).contains(&after) {
            continue;
        }
        cursor.at -= 2 + fill;
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use crate::complete::{Format, Verdict, judge};

    /// Two scans, stuffed bytes, a restart, and a thumbnail with its own end.
    fn small() -> Vec<u8> {
        let mut bytes = b"\xff\xd8\xff\xe1\x00\x0aExif\xff\xd8\xff\xd9".to_vec();
        bytes.extend(b"\xff\xff\xff\xc2\x00\x05abc");
        bytes.extend(b"\xff\xda\x00\x04xydata\xff\x00more\xff\xd3rest");
        bytes.extend(b"\xff\xc4\x00\x03t\xff\xda\x00\x04xyend\xff\xff\xd9");
        bytes
    }

    #[test]
    fn no_beginning_of_a_file_is_whole() {
        let bytes = small();
        assert_eq!(judge(&bytes[..], "jpg").unwrap(), Verdict::Complete(Format::Jpeg));
        for length in 0..bytes.len() {
            assert!(matches!(judge(&bytes[..length], "jpg").unwrap(), Verdict::Incomplete(_)), "{length}");
        }
        for rubbish in [vec![0; 70_000], b"Samsung trailer".to_vec()] {
            let padded = [small(), rubbish].concat();
            assert_eq!(judge(&padded[..], "").unwrap(), Verdict::Complete(Format::Jpeg));
        }
    }

    #[test]
    fn scans_longer_than_a_piece_are_followed() {
        let mut bytes = b"\xff\xd8\xff\xda\x00\x02".to_vec();
        bytes.extend(vec![7; 200_000]);
        assert!(matches!(judge(&bytes[..], "jpg").unwrap(), Verdict::Incomplete(_)));
        bytes.extend(b"\xff\xd9");
        assert_eq!(judge(&bytes[..], "jpg").unwrap(), Verdict::Complete(Format::Jpeg));
    }

    #[test]
    fn nonsense_is_no_picture() {
        for bytes in [
            &b"\xff\xd8\xff\xd9"[..],
            b"\xff\xd8\xff\xe0\x00\x01",
            b"\xff\xd8\xff\x00",
            b"\xff\xd8\xff\xe0\x00\x02x",
        ] {
            assert!(matches!(judge(bytes, "jpg").unwrap(), Verdict::Incomplete(_)), "{bytes:?}");
        }
    }
}

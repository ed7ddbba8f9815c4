//! PNG: a chain of chunks from the header to `IEND`, with image data among them.
//!
//! Tolerated: anything behind `IEND`, wrong checksums (readers complain about those; they do not say where a file ends).

use super::{Source, Stop, Visits};

pub(super) fn check<S: Source + ?Sized>(source: &S, visits: &mut Visits) -> Result<(), Stop> {
    let mut at = 8u64;
    let mut data = false;
    loop {
        visits.one()?;
        let mut head = [0; 8];
        source.read_at(at, &mut head)?;
        let [a, b, c, d, kind @ ..] = head;
        at += 12 + u64::from(u32::from_be_bytes([a, b, c, d]));
        // The checksum is the last that has to be there.
        if at > source.length() {
            return Err(Stop::Missing("it ends in the middle of a chunk"));
        }
        match &kind {
            b"IDAT" => data = true,
            b"IEND" if data => return Ok(()),
            b"IEND" => return Err(Stop::Missing("it ends before its picture")),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::complete::{Format, Verdict, judge};

    fn small() -> Vec<u8> {
        let chunk =
            |kind: &[u8], data: &[u8]| [&(data.len() as u32).to_be_bytes(), kind, data, b"crc!"].concat();
        let start = b"\x89PNG\r\n\x1a\n".to_vec();
        [start, chunk(b"IHDR", &[1; 13]), chunk(b"IDAT", &[2; 40]), chunk(b"IEND", b"")].concat()
    }

    #[test]
    fn no_beginning_of_a_file_is_whole() {
        let bytes = small();
        assert_eq!(judge(&bytes[..], "png").unwrap(), Verdict::Complete(Format::Png));
        for length in 0..bytes.len() {
            assert!(matches!(judge(&bytes[..length], "png").unwrap(), Verdict::Incomplete(_)), "{length}");
        }
        let padded = [bytes, vec![0; 5_000]].concat();
        assert_eq!(judge(&padded[..], "").unwrap(), Verdict::Complete(Format::Png));
    }
}

//! TIFF and BigTIFF: the chain of directories ends inside the file, and so do all strips and tiles they name.
//!
//! Writers put directories before or behind the image data, so both have to be followed: a file whose directories are whole
//! may still lack its picture. Tolerated: whatever stands behind or between.

use super::{Source, Stop, Visits};

const STRIP_OFFSETS: u16 = 273;
const STRIP_COUNTS: u16 = 279;
const TILE_OFFSETS: u16 = 324;
const TILE_COUNTS: u16 = 325;

struct Reader<'a, S: Source + ?Sized> {
    source: &'a S,
    big_endian: bool,
    big: bool,
}

impl<S: Source + ?Sized> Reader<'_, S> {
    fn number(&self, at: u64, bytes: usize) -> Result<u64, Stop> {
        let mut value = [0; 8];
        let value = &mut value[..bytes];
        self.source.read_at(at, value)?;
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Ok(if self.big_endian { value.iter().fold(0, join) } else { value.iter().rev().fold(0, join) })
    }

    /// Width of an offset.
    fn word(&self) -> usize {
        if self.big { 8 } else { 4 }
    }
}

/// An array of numbers that an entry names: where it stands, width of one, how many.
#[derive(Clone, Copy)]
struct Array {
    at: u64,
    width: usize,
    count: u64,
}

pub(super) fn check<S: Source + ?Sized>(source: &S, visits: &mut Visits) -> Result<(), Stop> {
    let mut mark = [0; 4];
    source.read_at(0, &mut mark)?;
    let big_endian = mark[0] == b'M';
    let reader = Reader { source, big_endian, big: mark.contains(&b'+') };
    let mut next = if reader.big { reader.number(8, 8)? } else { reader.number(4, 4)? };
    if next == 0 {
        return Err(Stop::Missing("its first directory is not there yet"));
    }
    // A chain that runs in a circle runs out of visits.
    while next != 0 {
        next = directory(&reader, next, visits)?;
    }
    Ok(())
}

/// Follows one directory; returns where the next one is.
fn directory<S: Source + ?Sized>(reader: &Reader<'_, S>, at: u64, visits: &mut Visits) -> Result<u64, Stop> {
    let (counter, size) = if reader.big { (8, 20) } else { (2, 12) };
    let count = reader.number(at, counter)?;
    if count == 0 {
        return Err(Stop::Missing("a directory of it is empty"));
    }
    let overflow = || Stop::Missing("it names a place that no file has");
    let first = at.checked_add(counter as u64).ok_or_else(overflow)?;
    let end = count.checked_mul(size).and_then(|bytes| first.checked_add(bytes)).ok_or_else(overflow)?;
    let next = reader.number(end, reader.word())?;
    let (mut strips, mut tiles) = ((None, None), (None, None));
    for entry in (first..end).step_by(size as usize) {
        visits.one()?;
        let slot = match reader.number(entry, 2)? as u16 {
            STRIP_OFFSETS => &mut strips.0,
            STRIP_COUNTS => &mut strips.1,
            TILE_OFFSETS => &mut tiles.0,
            TILE_COUNTS => &mut tiles.1,
            _ => continue,
        };
        *slot = array(reader, entry)?;
    }
    for (offsets, counts) in [strips, tiles] {
        if let (Some(offsets), Some(counts)) = (offsets, counts) {
            inside(reader, offsets, counts, visits)?;
        }
    }
    Ok(next)
}

/// The numbers of an entry; `None` when they are of a type that no offset has.
fn array<S: Source + ?Sized>(reader: &Reader<'_, S>, entry: u64) -> Result<Option<Array>, Stop> {
    let width = match reader.number(entry + 2, 2)? {
        3 => 2,
        4 | 13 => 4,
        16 | 18 => 8,
        _ => return Ok(None),
    };
    let word = reader.word();
    let count = reader.number(entry + 4, word)?;
    let value = entry + 4 + word as u64;
    let fits = count.checked_mul(width as u64).is_some_and(|bytes| bytes <= word as u64);
    let at = if fits { value } else { reader.number(value, word)? };
    Ok(Some(Array { at, width, count }))
}

fn inside<S: Source + ?Sized>(
    reader: &Reader<'_, S>,
    offsets: Array,
    counts: Array,
    visits: &mut Visits,
) -> Result<(), Stop> {
    let one = |array: Array, number: u64| {
        let at = number.checked_mul(array.width as u64).and_then(|bytes| array.at.checked_add(bytes));
        reader.number(at.ok_or(Stop::Missing("it names a place that no file has"))?, array.width)
    };
    for number in 0..offsets.count.min(counts.count) {
        visits.one()?;
        let (from, bytes) = (one(offsets, number)?, one(counts, number)?);
        if from.checked_add(bytes).is_none_or(|end| end > reader.source.length()) {
            return Err(Stop::Missing("a part of the picture is not there yet"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::complete::{Format, Verdict, judge};

    /// Two pages of one strip each; the directories before or behind their data.
    fn small(big_endian: bool, directories_first: bool) -> Vec<u8> {
        let u16 = |value: u16| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let u32 = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
        let directory = |strip: u32, next: u32| {
            let mut bytes = u16(2).to_vec();
            for (tag, value) in [(273, strip), (279, 100)] {
                bytes.extend([u16(tag), u16(4)].concat());
                bytes.extend([u32(1), u32(value)].concat());
            }
            bytes.extend(u32(next));
            bytes
        };
        let mut file = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        let size = directory(0, 0).len() as u32;
        if directories_first {
            let strips = 8 + 2 * size;
            file.extend(u32(8));
            file.extend(directory(strips, 8 + size));
            file.extend(directory(strips + 100, 0));
            file.extend([7; 200]);
        } else {
            file.extend(u32(208));
            file.extend([7; 200]);
            file.extend(directory(8, 208 + size));
            file.extend(directory(108, 0));
        }
        file
    }

    #[test]
    fn no_beginning_of_a_file_is_whole() {
        for (big_endian, directories_first) in [(false, false), (false, true), (true, false), (true, true)] {
            let bytes = small(big_endian, directories_first);
            assert_eq!(judge(&bytes[..], "tif").unwrap(), Verdict::Complete(Format::Tiff));
            let padded = [bytes.clone(), vec![0; 9_000]].concat();
            assert_eq!(judge(&padded[..], "").unwrap(), Verdict::Complete(Format::Tiff));
            for length in 0..bytes.len() {
                let verdict = judge(&bytes[..length], "tif").unwrap();
                assert!(
                    matches!(verdict, Verdict::Incomplete(_)),
                    "{big_endian} {directories_first} {length}"
                );
            }
        }
    }

    #[test]
    fn a_chain_in_a_circle_comes_to_an_end() {
        let mut bytes = small(false, false);
        let last = bytes.len() - 4;
        bytes[last..].copy_from_slice(&208u32.to_le_bytes());
        assert!(matches!(judge(&bytes[..], "tif").unwrap(), Verdict::Incomplete(_)));
    }

    #[test]
    fn places_that_no_file_has_are_refused() {
        let mut bytes = b"II+\0\x08\0\0\0".to_vec();
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(matches!(judge(&bytes[..], "tif").unwrap(), Verdict::Incomplete(_)));
    }
}

//! PDF: a header near the beginning, `%%EOF` near the end, and a `startxref` that leads somewhere.
//!
//! Tolerated, because readers do and scanners rely on it: up to 1,024 bytes before the header and behind `%%EOF`, any
//! number of zeros and blanks behind that, offsets that are off by a few bytes or count from the header.
//! A linearised file has a `startxref 0` and `%%EOF` in its first part: there its announced length has to be there.

use super::{Source, Stop};

/// How far from the end readers look for `%%EOF`.
const TAIL_BYTES: u64 = 1_024;
/// Longest run of zeros and blanks that is passed over at the end.
const PADDING_BYTES_MAX: u64 = 1 << 20;

pub(super) fn check<S: Source + ?Sized>(source: &S, head: &[u8]) -> Result<(), Stop> {
    let header = find(head, b"%PDF-").ok_or(Stop::Missing("it has no %PDF- header"))? as u64;
    let end = without_padding(source)?;
    let from = end.saturating_sub(TAIL_BYTES);
    let mut tail = vec![0; (end - from) as usize];
    source.read_at(from, &mut tail)?;
    let marker = rfind(&tail, b"%%EOF").ok_or(Stop::Missing("its end, %%EOF, is not there yet"))?;
    // The offset may stand before what is left of the last 1,024 bytes.
    let marker = from + marker as u64;
    let before = marker.saturating_sub(TAIL_BYTES);
    let mut trailer = vec![0; (marker - before) as usize];
    source.read_at(before, &mut trailer)?;
    let keyword =
        rfind(&trailer, b"startxref").ok_or(Stop::Missing("there is no startxref before its end"))?;
    let offset = number(&trailer[keyword + b"startxref".len()..]);
    let offset = offset.ok_or(Stop::Missing("its startxref has no number"))?;
    if linearised_length(head).is_some_and(|announced| source.length() < announced) {
        return Err(Stop::Missing("it is shorter than it announces at its beginning"));
    }
    if offset == 0 {
        return Err(Stop::Missing("only its first part is there"));
    }
    if offset >= before + keyword as u64 {
        return Err(Stop::Missing("its startxref leads behind itself"));
    }
    // A client that sets a file's length first and fills it in any order leaves zeros where the table should be.
    let empty = |at: u64| -> Result<bool, Stop> {
        let mut window = vec![0; 32.min(source.length().saturating_sub(at)) as usize];
        source.read_at(at, &mut window)?;
        Ok(window.iter().all(|byte| *byte == 0))
    };
    if empty(offset)? && empty(offset + header)? {
        return Err(Stop::Missing("there are only zeros where its startxref leads"));
    }
    Ok(())
}

/// Where the file ends when zeros and blanks behind it do not count.
fn without_padding<S: Source + ?Sized>(source: &S) -> Result<u64, Stop> {
    let mut end = source.length();
    let lowest = end.saturating_sub(PADDING_BYTES_MAX);
    let mut piece = [0; 4_096];
    while end > lowest {
        let from = end.saturating_sub(piece.len() as u64);
        let piece = &mut piece[..(end - from) as usize];
        source.read_at(from, piece)?;
        match piece.iter().rposition(|byte| !matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n' | 0x0c)) {
            Some(at) => return Ok(from + at as u64 + 1),
            None => end = from,
        }
    }
    Ok(end)
}

/// `/L` of a linearisation dictionary, which is the first object of its file.
fn linearised_length(head: &[u8]) -> Option<u64> {
    let at = find(head, b"/Linearized")?;
    let dictionary = &head[at..];
    let dictionary = &dictionary[..find(dictionary, b">>").unwrap_or(dictionary.len())];
    let from = (0..dictionary.len()).find(|at| {
        dictionary[*at..].starts_with(b"/L")
            && dictionary.get(at + 2).is_some_and(|b| b" \t\r\n0123456789".contains(b))
    })?;
    number(&dictionary[from + 2..])
}

/// The decimal number behind blanks.
fn number(bytes: &[u8]) -> Option<u64> {
    let blanks = bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    let digits = bytes[blanks..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[blanks..blanks + digits]).ok()?.parse().ok()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn rfind(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).rposition(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use crate::complete::{Format, Verdict, judge};

    fn small() -> Vec<u8> {
        let mut bytes = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n".to_vec();
        let table = bytes.len();
        bytes.extend_from_slice(b"xref\n0 1\n0000000000 65535 f \ntrailer\n<< /Size 1 /Root 1 0 R >>\n");
        bytes.extend_from_slice(format!("startxref\n{table}\n%%EOF\n").as_bytes());
        bytes
    }

    fn whole(bytes: &[u8]) -> bool {
        judge(bytes, "pdf").unwrap() == Verdict::Complete(Format::Pdf)
    }

    #[test]
    fn no_beginning_of_a_file_is_whole() {
        let bytes = small();
        assert!(whole(&bytes));
        for length in 0..bytes.len() - 1 {
            assert!(!whole(&bytes[..length]), "{length}");
        }
    }

    #[test]
    fn rubbish_at_the_end_is_tolerated_and_a_part_of_an_update_is_not() {
        let bytes = small();
        for rubbish in [vec![0; 100_000], b"\r\n\0\0".to_vec(), vec![b'x'; 900], b"\x1a".to_vec()] {
            assert!(whole(&[bytes.clone(), rubbish].concat()));
        }
        let update = [b"2 0 obj\n".to_vec(), vec![b'y'; 5_000]].concat();
        assert!(!whole(&[bytes.clone(), update].concat()));
        assert!(whole(&[b"junk from a gateway\r\n".to_vec(), bytes].concat()));
    }

    #[test]
    fn offsets_have_to_lead_somewhere() {
        let text = String::from_utf8(small()).unwrap();
        let table = text.find("xref").unwrap();
        for (number, fine) in [(table + 2, true), (0, false), (100_000, false), (text.len() - 1, false)] {
            let changed = text.replace(&format!("startxref\n{table}"), &format!("startxref\n{number}"));
            assert_eq!(whole(changed.as_bytes()), fine, "{number}");
        }
        assert!(!whole(text.replace("startxref", "startyref").as_bytes()));
        // Written in any order: the end is there, the middle is not.
        let mut holes = text.clone().into_bytes();
        holes[20..table + 45].fill(0);
        assert!(!whole(&holes));
    }

    #[test]
    fn the_first_part_of_a_linearised_file_is_not_the_file() {
        let first = b"%PDF-1.5\n1 0 obj\n<< /Linearized 1 /L 4000 /H [ 1 2 ] >>\nendobj\nxref\n0 1\ntrailer\nstartxref\n0\n%%EOF\n";
        assert!(!whole(first));
        let named = String::from_utf8(first.to_vec()).unwrap().replace("startxref\n0", "startxref\n70");
        assert!(!whole(named.as_bytes()), "it announces 4,000 bytes");
        let rest = [vec![b'z'; 3_900], b"\nstartxref\n70\n%%EOF\n".to_vec()].concat();
        assert!(whole(&[first.to_vec(), rest].concat()));
    }
}

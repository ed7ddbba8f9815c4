//! Is a file whole? Decided from its bytes, format by format.
//!
//! Scanners write badly: files grow for minutes, are opened and closed many times, end in rubbish. So this asks only what
//! separates a whole file from the beginning of one, and lets pass whatever readers let pass.
//! Refuses to do: read a file; judge its content; say "whole" of a format it knows when the end is not there.
//! Invariants: it never reads past the end, and what it reads is bounded by [`VISITS_MAX`] steps beside one pass over the
//! bytes; the beginning of a whole file that lacks more than its trailing rubbish is never whole.

mod jpeg;
mod pdf;
mod png;
mod tiff;

use std::io;

/// Most steps (directories, values, segments) looked at in one file.
pub const VISITS_MAX: u32 = 1 << 20;
/// Bytes that tell the format.
const HEAD_BYTES: usize = 1_024;

/// Bytes at rest, read anywhere.
pub trait Source {
    /// How many there are.
    fn length(&self) -> u64;
    /// Fills `buffer` from `offset`; all of it, or an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl Source for [u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().filter(|from| *from <= self.len());
        let wanted = from.and_then(|from| self[from..].get(..buffer.len()));
        buffer.copy_from_slice(wanted.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PDF.
    Pdf,
    /// TIFF, BigTIFF.
    Tiff,
    /// JPEG.
    Jpeg,
    /// PNG.
    Png,
    /// Anything else: nothing but its rest says that it is whole.
    Other,
}

impl Format {
    /// By the first bytes.
    fn of_head(head: &[u8]) -> Format {
        let within = &head[..head.len().min(HEAD_BYTES)];
        let tiff = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"];
        if tiff.iter().any(|mark| head.starts_with(*mark)) {
            Format::Tiff
        } else if head.starts_with(b"\xff\xd8\xff") {
            Format::Jpeg
        } else if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            Format::Png
        } else if within.windows(5).any(|five| five == b"%PDF-") {
            Format::Pdf
        } else {
            Format::Other
        }
    }

    /// By the extension, in whatever case.
    pub fn of_extension(extension: &str) -> Format {
        match extension.to_ascii_lowercase().as_str() {
            "pdf" => Format::Pdf,
            "tif" | "tiff" => Format::Tiff,
            "jpg" | "jpeg" => Format::Jpeg,
            "png" => Format::Png,
            _ => Format::Other,
        }
    }

    /// The media type.
    pub fn media_type(self, extension: &str) -> &'static str {
        match self {
            Format::Pdf => "application/pdf",
            Format::Tiff => "image/tiff",
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Other => match extension.to_ascii_lowercase().as_str() {
                "xml" => "application/xml",
                "json" => "application/json",
                "txt" => "text/plain",
                _ => "application/octet-stream",
            },
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Pdf => "PDF",
            Format::Tiff => "TIFF",
            Format::Jpeg => "JPEG",
            Format::Png => "PNG",
            Format::Other => "file",
        }
    }
}

/// The judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Whole, as far as its format says.
    Complete(Format),
    /// Not, or not yet; what is missing, as the end of "it is not complete: ...".
    Incomplete(String),
}

/// Why a format's own check says no.
enum Stop {
    /// The file is not whole.
    Missing(&'static str),
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Stop::Missing("it ends in the middle"),
            _ => Stop::Io(error),
        }
    }
}

/// Steps left.
struct Visits(u32);

impl Visits {
    fn one(&mut self) -> Result<(), Stop> {
        self.0 = self.0.checked_sub(1).ok_or(Stop::Missing("its structure is larger than any scanner's"))?;
        Ok(())
    }
}

/// Judges a file whose name has `extension`.
pub fn judge<S: Source + ?Sized>(source: &S, extension: &str) -> io::Result<Verdict> {
    let length = source.length();
    if length == 0 {
        return Ok(Verdict::Incomplete("it is empty".to_owned()));
    }
    let mut head = vec![0; HEAD_BYTES.min(usize::try_from(length).unwrap_or(HEAD_BYTES))];
    source.read_at(0, &mut head)?;
    let (format, named) = (Format::of_head(&head), Format::of_extension(extension));
    if format == Format::Other {
        return Ok(match named {
            Format::Other => Verdict::Complete(Format::Other),
            named => Verdict::Incomplete(format!(
                "it is named .{extension} and does not begin as a {}",
                named.name()
            )),
        });
    }
    let mut visits = Visits(VISITS_MAX);
    let judged = match format {
        Format::Pdf => pdf::check(source, &head),
        Format::Tiff => tiff::check(source, &mut visits),
        Format::Jpeg => jpeg::check(source, &mut visits),
        Format::Png => png::check(source, &mut visits),
        Format::Other => Ok(()),
    };
    match judged {
        Ok(()) => Ok(Verdict::Complete(format)),
        Err(Stop::Missing(what)) => Ok(Verdict::Incomplete(format!("{what} ({})", format.name()))),
        Err(Stop::Io(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_whole_unless_its_name_promises_more() {
        assert_eq!(judge(&b"words"[..], "txt").unwrap(), Verdict::Complete(Format::Other));
        for (bytes, extension) in
            [(&b""[..], "txt"), (b"\0\0\0\0\0\0\0\0", "pdf"), (b"II", "TIF"), (b"x", "jpeg")]
        {
            assert!(matches!(judge(bytes, extension).unwrap(), Verdict::Incomplete(_)), "{extension}");
        }
    }

    #[test]
    fn bytes_come_before_names() {
        assert!(matches!(judge(&b"%PDF-1.7\n1 0 obj"[..], "txt").unwrap(), Verdict::Incomplete(_)));
    }
}

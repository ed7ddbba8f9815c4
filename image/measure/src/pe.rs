//! Programs for UEFI (PE/COFF): their sections, and the hash by which firmware measures and verifies them.
//!
//! Refuses to do: read outside the file; skip what it does not understand.
//! Invariant: [`Pe::authenticode`] does not change when signatures are added (Windows Authenticode Portable Executable
//! Signature Format, "Calculating the PE Image Hash"), and changes with every other byte but the checksum.

use bulla_formats::hash::sha256;

/// Why bytes are no program for UEFI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// A field points outside the file.
    #[error("it ends inside {0}")]
    Truncated(&'static str),
    /// Not a PE32+ program.
    #[error("{0}")]
    NotUnderstood(&'static str),
}

/// One section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section<'a> {
    /// Up to eight characters.
    pub name: &'a str,
    /// Its content as it is in memory, without what the file is padded with.
    pub content: &'a [u8],
    start: usize,
    end: usize,
}

/// A parsed program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pe<'a> {
    bytes: &'a [u8],
    /// In the order of the file's table.
    pub sections: Vec<Section<'a>>,
    checksum: usize,
    certificates_entry: usize,
    headers_end: usize,
    certificates_length: usize,
}

/// PE32+, the only kind on 64-bit machines.
const PE32_PLUS: u16 = 0x20b;
/// Place of the checksum in the optional header, and of the entry for certificates among the directories.
const CHECKSUM: usize = 64;
const CERTIFICATES_ENTRY: usize = 112 + 4 * 8;
const SECTION_HEADER: usize = 40;

impl<'a> Pe<'a> {
    /// Reads the headers.
    ///
    /// # Errors
    /// When the bytes are no PE32+ program, or headers point outside them.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PeError> {
        if bytes.get(..2) != Some(b"MZ") {
            return Err(PeError::NotUnderstood("it does not begin with MZ"));
        }
        let coff = number(bytes, 0x3c)?;
        if bytes.get(coff..).and_then(|rest| rest.get(..4)) != Some(b"PE\0\0") {
            return Err(PeError::NotUnderstood("it has no PE header"));
        }
        let (count, optional_length) = (short(bytes, coff + 6)?, short(bytes, coff + 20)?);
        let optional = coff + 24;
        if short(bytes, optional)? != usize::from(PE32_PLUS) {
            return Err(PeError::NotUnderstood("it is not of the kind PE32+"));
        }
        if number(bytes, optional + 108)? <= 4 {
            return Err(PeError::NotUnderstood("its header has no place for certificates"));
        }
        let table = optional + optional_length;
        let sections: Result<Vec<_>, _> =
            (0..count).map(|nth| section(bytes, table + nth * SECTION_HEADER)).collect();
        Ok(Self {
            bytes,
            sections: sections?,
            checksum: optional + CHECKSUM,
            certificates_entry: optional + CERTIFICATES_ENTRY,
            headers_end: number(bytes, optional + 60)?,
            certificates_length: number(bytes, optional + CERTIFICATES_ENTRY + 4)?,
        })
    }

    /// The section of this name.
    pub fn section(&self, name: &str) -> Option<&Section<'a>> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// The hash that signatures are over, and that firmware extends PCR 4 with.
    ///
    /// # Errors
    /// When headers point outside the file.
    pub fn authenticode(&self) -> Result<[u8; 32], PeError> {
        let part = |from: usize, to: usize| {
            self.bytes.get(from..to).ok_or(PeError::Truncated("what its hash is over"))
        };
        let mut parts = vec![
            part(0, self.checksum)?,
            part(self.checksum + 4, self.certificates_entry)?,
            part(self.certificates_entry + 8, self.headers_end)?,
        ];
        let mut sections: Vec<&Section<'_>> =
            self.sections.iter().filter(|section| section.end > section.start).collect();
        sections.sort_by_key(|section| section.start);
        let mut hashed = self.headers_end;
        for section in sections {
            parts.push(part(section.start, section.end)?);
            hashed += section.end - section.start;
        }
        // Whatever follows the sections, certificates excepted, which are last.
        let end = self.bytes.len().checked_sub(self.certificates_length);
        let end = end.ok_or(PeError::Truncated("the certificates"))?;
        if hashed < end {
            parts.push(part(hashed, end)?);
        }
        Ok(sha256(&parts).0)
    }
}

fn section(bytes: &[u8], header: usize) -> Result<Section<'_>, PeError> {
    let name = bytes.get(header..header + 8).ok_or(PeError::Truncated("the table of sections"))?;
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name =
        std::str::from_utf8(name).map_err(|_| PeError::NotUnderstood("a section's name is no text"))?;
    let in_memory = number(bytes, header + 8)?;
    let (length, start) = (number(bytes, header + 16)?, number(bytes, header + 20)?);
    let end = start + length;
    let content = bytes.get(start..start + in_memory.min(length)).ok_or(PeError::Truncated("a section"))?;
    if bytes.len() < end {
        return Err(PeError::Truncated("a section"));
    }
    Ok(Section { name, content, start, end })
}

fn short(bytes: &[u8], at: usize) -> Result<usize, PeError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<2>());
    Ok(usize::from(u16::from_le_bytes(*field.ok_or(PeError::Truncated("a header"))?)))
}

/// A field of four bytes; sums of a few of them do not overflow on the 64-bit machines this is built for.
fn number(bytes: &[u8], at: usize) -> Result<usize, PeError> {
    let field = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    Ok(u32::from_le_bytes(*field.ok_or(PeError::Truncated("a header"))?) as usize)
}

//! What a name says: a document, a sidecar, a result of ours, or something still on its way.
//!
//! Refuses to do: look into files. Invariant: no name that [`results`](crate::results) writes is ever a document, so a
//! folder never feeds on itself.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What lies beside a document when it is sealed, and what lies beside one that cannot be.
pub const RESULTS: [&str; 6] =
    [".seal", ".receipt.json", ".slip.pdf", ".reason.txt", ".reason.json", ".bulla-tmp"];
/// Names that programs give to files they are not done with.
const ON_THE_WAY: [&str; 9] =
    [".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", ".download", ".lock", ".swp"];
/// What describes a scan beside it.
const SIDECARS: [&str; 2] = ["xml", "json"];
/// Deepest folder below the watched one that is looked into.
pub const DEPTH_MAX: usize = 8;

/// What a file is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To be sealed.
    Document,
    /// Describes a document of the same stem, if there is one.
    Sidecar,
    /// Not looked at: hidden, temporary, a result.
    Ignored,
}

/// What the file of this name is. `sidecars`: whether XML and JSON may describe documents.
pub fn role(name: &Path, sidecars: bool) -> Role {
    let Some(last) = name.file_name() else { return Role::Ignored };
    let hidden = |part: &OsStr| part.as_encoded_bytes().first() == Some(&b'.');
    if name.iter().any(hidden) || name.components().count() > DEPTH_MAX + 1 {
        return Role::Ignored;
    }
    let last = last.to_string_lossy().to_lowercase();
    let ours = RESULTS.iter().any(|end| last.ends_with(end));
    let passing =
        ON_THE_WAY.iter().any(|end| last.ends_with(end)) || last.ends_with('~') || last.starts_with("~$");
    if ours || passing || last == "thumbs.db" || last == "desktop.ini" {
        return Role::Ignored;
    }
    if sidecars && is_sidecar(name) { Role::Sidecar } else { Role::Document }
}

fn is_sidecar(name: &Path) -> bool {
    let extension = extension(name).to_ascii_lowercase();
    SIDECARS.contains(&extension.as_str())
}

/// The extension, empty when there is none.
pub fn extension(name: &Path) -> &str {
    name.extension().and_then(OsStr::to_str).unwrap_or_default()
}

/// The names that a sidecar of this document may have: `scan.pdf.xml`, then `scan.xml`.
pub fn sidecars_of(document: &Path) -> impl Iterator<Item = PathBuf> + '_ {
    let spellings = SIDECARS.iter().flat_map(|end| [(*end).to_owned(), end.to_uppercase()]);
    spellings.flat_map(move |end| {
        let stem = document.with_extension(&end);
        let whole = beside(document, &format!(".{end}"));
        [whole, stem]
    })
}

/// Whether `sidecar` may describe `document`.
pub fn describes(sidecar: &Path, document: &Path) -> bool {
    sidecar.with_extension("") == *document || sidecar.with_extension("") == document.with_extension("")
}

/// `<path><suffix>`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> Role {
        role(Path::new(name), true)
    }

    #[test]
    fn names_say_what_is_taken() {
        for name in
            ["scan.pdf", "SCAN0001.TIF", "desk 3/Jürgen.pdf", "no-extension", "a.seal.pdf", "x.tmp.pdf"]
        {
            assert_eq!(of(name), Role::Document, "{name}");
        }
        for name in ["scan.xml", "scan.pdf.XML", "a/b.json"] {
            assert_eq!((of(name), role(Path::new(name), false)), (Role::Sidecar, Role::Document), "{name}");
        }
        for name in [
            ".hidden",
            ".git/x.pdf",
            "a.pdf.part",
            "A.PDF.TMP",
            "~$letter.docx",
            "x.docx~",
            "Thumbs.db",
            "a.filepart",
        ] {
            assert_eq!(of(name), Role::Ignored, "{name}");
        }
        assert_eq!(of("1/2/3/4/5/6/7/8/x.pdf"), Role::Document);
        assert_eq!(of("1/2/3/4/5/6/7/8/9/x.pdf"), Role::Ignored);
    }

    #[test]
    fn a_folder_never_feeds_on_itself() {
        for end in RESULTS {
            assert_eq!(role(&beside(Path::new("a/scan.pdf"), end), false), Role::Ignored, "{end}");
            assert_eq!(role(&beside(Path::new("scan.xml"), end), true), Role::Ignored, "{end}");
        }
    }

    #[test]
    fn sidecars_and_documents_find_each_other() {
        let document = Path::new("in/scan.1.pdf");
        let names: Vec<PathBuf> = sidecars_of(document).collect();
        for name in
            ["in/scan.1.pdf.xml", "in/scan.1.xml", "in/scan.1.XML", "in/scan.1.pdf.json", "in/scan.1.json"]
        {
            assert!(names.iter().any(|found| found == Path::new(name)), "{name}");
        }
        assert!(names.iter().all(|name| describes(name, document)));
        for other in ["scan.1.xml", "in/scan.xml", "in/scan.1.pdf.x.xml", "in/scan.2.xml"] {
            assert!(!describes(Path::new(other), document), "{other}");
        }
    }
}

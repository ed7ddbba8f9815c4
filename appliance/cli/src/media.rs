//! Media type of a document: what its first bytes say, else what its extension says.
//!
//! Refuses to do: look deeper. The type is what the client claims; the digest is what counts.

use std::path::Path;

/// Bytes that [`guess`] wants to see.
pub const HEAD_BYTES: usize = 16;

/// The media type of a file that starts with `head`.
pub fn guess(path: &Path, head: &[u8]) -> &'static str {
    const MAGIC: [(&[u8], &str); 7] = [
        (b"%PDF-", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"\xff\xd8\xff", "image/jpeg"),
        (b"II*\0", "image/tiff"),
        (b"MM\0*", "image/tiff"),
        (b"<?xml", "application/xml"),
        (b"\xef\xbb\xbf<?xml", "application/xml"),
    ];
    if let Some((_, media_type)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return media_type;
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension.to_ascii_lowercase().as_str() {
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "tif" | "tiff" => "image/tiff",
        "xml" => "application/xml",
        "json" => "application/json",
        "txt" => "text/plain",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::guess;
    use std::path::Path;

    #[test]
    fn bytes_come_before_names() {
        for (name, head, expected) in [
            ("a.txt", &b"%PDF-1.7"[..], "application/pdf"),
            ("a", b"\xff\xd8\xff\xe0", "image/jpeg"),
            ("a.TIF", b"", "image/tiff"),
            ("a.json", b"{}", "application/json"),
            ("a.txt", b"words", "text/plain"),
            ("a.pdf.exe", b"MZ", "application/octet-stream"),
            ("pdf", b"", "application/octet-stream"),
        ] {
            assert_eq!(guess(Path::new(name), head), expected, "{name}");
        }
    }
}

//! The smallest PDF 1.4 that every reader opens without repairing it: A4 pages of text in one built-in font, a
//! cross-reference table whose offsets are right, no compression, no dates (they would change from run to run).

/// A document with one page for each slice of lines. The texts must be printable ASCII.
pub fn document(title: &str, pages: &[&[&str]]) -> Vec<u8> {
    // Objects 1 to 3 are fixed; page n is object 4 + 2n, its content 5 + 2n.
    let page_number = |page: usize| 4 + 2 * page;
    let kids: Vec<String> = (0..pages.len()).map(|page| format!("{} 0 R", page_number(page))).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), pages.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    for (page, lines) in pages.iter().enumerate() {
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] \
             /Resources << /Font << /F1 3 0 R >> >> /Contents {} 0 R >>",
            page_number(page) + 1
        ));
        let mut content =
            format!("BT /F1 18 Tf 72 760 Td ({}) Tj\n/F1 11 Tf 0 -40 Td 16 TL\n", escaped(title));
        for line in *lines {
            content.push_str(&format!("({}) Tj T*\n", escaped(line)));
        }
        content.push_str(&format!("0 -40 Td (Page {} of {}) Tj\nET\n", page + 1, pages.len()));
        objects.push(format!("<< /Length {} >>\nstream\n{content}endstream", content.len()));
    }

    let mut file = String::from("%PDF-1.4\n");
    let mut table = String::new();
    for (index, object) in objects.iter().enumerate() {
        // Entries are 20 bytes with their line end (ISO 32000-1, 7.5.4).
        table.push_str(&format!("{:010} 00000 n \n", file.len()));
        file.push_str(&format!("{} 0 obj\n{object}\nendobj\n", index + 1));
    }
    let table_at = file.len();
    let count = objects.len() + 1;
    file.push_str(&format!("xref\n0 {count}\n0000000000 65535 f \n{table}"));
    file.push_str(&format!("trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{table_at}\n%%EOF\n"));
    file.into_bytes()
}

/// A literal string's content (ISO 32000-1, 7.3.4.2).
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('(', r"\(").replace(')', r"\)")
}

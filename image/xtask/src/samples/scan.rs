//! A scanned page: black on white, one bit a pixel, written as PNG or TIFF.
//!
//! Uncompressed in both, because a compressor would be more code than the pictures; PNG's checksums are computed here.

/// A page of pixels; a set bit is ink.
pub struct Scan {
    width: usize,
    height: usize,
    rows: Vec<u8>,
}

impl Scan {
    /// A white page. `width` must be a multiple of eight, so that no row has padding bits.
    pub fn blank(width: usize, height: usize) -> Self {
        assert!(width.is_multiple_of(8), "a row must fill its bytes");
        Self { width, height, rows: vec![0; width / 8 * height] }
    }

    /// Ink on one pixel; outside the page there is nothing to ink.
    fn ink(&mut self, x: usize, y: usize) {
        if x < self.width && y < self.height {
            self.rows[y * self.width / 8 + x / 8] |= 0x80 >> (x % 8);
        }
    }

    /// A rectangle's outline, three pixels thick.
    pub fn frame(&mut self, left: usize, top: usize, width: usize, height: usize) {
        for thick in 0..3 {
            for x in left..left + width {
                self.ink(x, top + thick);
                self.ink(x, top + height - thick);
            }
            for y in top..top + height {
                self.ink(left + thick, y);
                self.ink(left + width - thick, y);
            }
        }
    }

    /// An ellipse's outline around a centre.
    pub fn ellipse(&mut self, x: usize, y: usize, half_width: usize, half_height: usize) {
        for step in 0..720 {
            let (sin, cos) = (step as f64 * std::f64::consts::PI / 360.0).sin_cos();
            // The centre lies on the page, and a negative coordinate becomes 0 in the cast.
            let at_x = (x as f64 + cos * half_width as f64).round() as usize;
            let at_y = (y as f64 + sin * half_height as f64).round() as usize;
            for (dx, dy) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
                self.ink(at_x + dx, at_y + dy);
            }
        }
    }

    /// Capitals, digits and `-.:` with pixels of `scale`; other characters are blank.
    pub fn text(&mut self, left: usize, top: usize, scale: usize, text: &str) {
        for (place, character) in text.chars().enumerate() {
            let Some((_, rows)) = GLYPHS.iter().find(|(glyph, _)| *glyph == character) else { continue };
            for (row, bits) in rows.iter().enumerate() {
                for column in (0..3).filter(|column| bits & (4 >> column) != 0) {
                    for dot in 0..scale * scale {
                        let x = left + (place * 4 + column) * scale + dot % scale;
                        self.ink(x, top + row * scale + dot / scale);
                    }
                }
            }
        }
    }

    /// PNG (ISO/IEC 15948): grey, one bit deep, the pixels in stored deflate blocks.
    pub fn png(&self) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        header.extend([1, 0, 0, 0, 0]); // depth 1, grey, deflate, filter method 0, not interlaced

        // A filter byte (none) before each row; 1 is white here.
        let filtered: Vec<u8> = self
            .rows
            .chunks(self.width / 8)
            .flat_map(|row| [0].into_iter().chain(row.iter().map(|byte| !byte)))
            .collect();
        let mut data = vec![0x78, 0x01]; // zlib: deflate, 32 KiB window, no dictionary
        let blocks = filtered.chunks(0xFFFF);
        let last = blocks.len() - 1;
        for (index, block) in blocks.enumerate() {
            let length = block.len() as u16; // at most 0xFFFF, see above
            data.push(u8::from(index == last));
            data.extend(length.to_le_bytes());
            data.extend((!length).to_le_bytes());
            data.extend(block);
        }
        data.extend(adler32(&filtered).to_be_bytes());

        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, content) in [(b"IHDR", header), (b"IDAT", data), (b"IEND", Vec::new())] {
            let summed = [kind.as_slice(), &content].concat();
            file.extend((content.len() as u32).to_be_bytes());
            file.extend(&summed);
            file.extend(crc32(&summed).to_be_bytes());
        }
        file
    }

    /// TIFF 6.0, baseline bilevel, one strip, 100 dots an inch.
    pub fn tiff(&self) -> Vec<u8> {
        const SHORT: u16 = 3;
        const LONG: u16 = 4;
        const RATIONAL: u16 = 5;
        let pixels_at = 8;
        let resolution_at = pixels_at + self.rows.len() as u32;
        let directory_at = resolution_at + 8;
        let fields: [(u16, u16, u32); 11] = [
            (256, LONG, self.width as u32),
            (257, LONG, self.height as u32),
            (258, SHORT, 1), // bits per sample
            (259, SHORT, 1), // not compressed
            (262, SHORT, 0), // 0 is white
            (273, LONG, pixels_at),
            (278, LONG, self.height as u32), // rows in the strip
            (279, LONG, self.rows.len() as u32),
            (282, RATIONAL, resolution_at),
            (283, RATIONAL, resolution_at),
            (296, SHORT, 2), // inch
        ];
        let mut file = b"II\x2A\x00".to_vec();
        file.extend(directory_at.to_le_bytes());
        file.extend(&self.rows);
        file.extend(100u32.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend((fields.len() as u16).to_le_bytes());
        for (tag, kind, value) in fields {
            file.extend(tag.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend(1u32.to_le_bytes());
            file.extend(value.to_le_bytes()); // a SHORT stands in the first two bytes, which little-endian gives
        }
        file.extend(0u32.to_le_bytes()); // no further directory
        file
    }
}

/// CRC-32 as in ISO 3309, bit by bit: a few hundred kilobytes in all.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

/// RFC 1950, section 8.2.
fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    (b << 16) | a
}

/// Three pixels wide, five high; a row's bits from left to right.
const GLYPHS: [(char, [u8; 5]); 39] = [
    ('A', [2, 5, 7, 5, 5]),
    ('B', [6, 5, 6, 5, 6]),
    ('C', [3, 4, 4, 4, 3]),
    ('D', [6, 5, 5, 5, 6]),
    ('E', [7, 4, 6, 4, 7]),
    ('F', [7, 4, 6, 4, 4]),
    ('G', [3, 4, 5, 5, 3]),
    ('H', [5, 5, 7, 5, 5]),
    ('I', [7, 2, 2, 2, 7]),
    ('J', [1, 1, 1, 5, 2]),
    ('K', [5, 5, 6, 5, 5]),
    ('L', [4, 4, 4, 4, 7]),
    ('M', [5, 7, 7, 5, 5]),
    ('N', [6, 5, 5, 5, 5]),
    ('O', [2, 5, 5, 5, 2]),
    ('P', [6, 5, 6, 4, 4]),
    ('Q', [2, 5, 5, 2, 1]),
    ('R', [6, 5, 6, 5, 5]),
    ('S', [3, 4, 2, 1, 6]),
    ('T', [7, 2, 2, 2, 2]),
    ('U', [5, 5, 5, 5, 7]),
    ('V', [5, 5, 5, 5, 2]),
    ('W', [5, 5, 7, 7, 5]),
    ('X', [5, 5, 2, 5, 5]),
    ('Y', [5, 5, 2, 2, 2]),
    ('Z', [7, 1, 2, 4, 7]),
    ('0', [7, 5, 5, 5, 7]),
    ('1', [2, 6, 2, 2, 7]),
    ('2', [6, 1, 2, 4, 7]),
    ('3', [6, 1, 2, 1, 6]),
    ('4', [5, 5, 7, 1, 1]),
    ('5', [7, 4, 6, 1, 6]),
    ('6', [3, 4, 7, 5, 7]),
    ('7', [7, 1, 2, 2, 2]),
    ('8', [7, 5, 7, 5, 7]),
    ('9', [7, 5, 7, 1, 6]),
    ('-', [0, 0, 7, 0, 0]),
    ('.', [0, 0, 0, 0, 2]),
    (':', [0, 2, 0, 2, 0]),
];

#[cfg(test)]
mod tests {
    use super::{adler32, crc32};

    #[test]
    fn checksums_match_their_published_check_values() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11E6_0398);
    }
}

//! What is drawn on a page: texts, boxes, stripes, codes. Points, from the upper left corner.
//!
//! Refuses to do: decide where; the layout does.

use crate::fonts::Font;

/// Width of the page: A4, in whole pixels of a printer of 300 dots an inch.
pub(crate) const WIDTH: f32 = 2_480.0 * PIXEL;
/// Its height.
pub(crate) const HEIGHT: f32 = 3_508.0 * PIXEL;
/// A dot of 300 to the inch.
pub(crate) const PIXEL: f32 = 0.24;

/// How letters look.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Style {
    /// The font.
    pub font: Font,
    /// Its size.
    pub size: f32,
    /// 0 is black, 1 is white.
    pub grey: f32,
    /// What is added between letters.
    pub spacing: f32,
}

impl Style {
    /// Black letters.
    pub(crate) const fn new(font: Font, size: f32) -> Self {
        Style { font, size, grey: 0.0, spacing: 0.0 }
    }

    /// The same in grey.
    pub(crate) const fn grey(self, grey: f32) -> Self {
        Style { grey, ..self }
    }

    /// The same, spaced out.
    pub(crate) const fn spaced(self, spacing: f32) -> Self {
        Style { spacing, ..self }
    }

    /// Width of a text.
    pub(crate) fn measure(&self, letters: &[u8]) -> f32 {
        self.font.measure(letters, self.size) + self.spacing * letters.len().saturating_sub(1) as f32
    }
}

/// Something on the page.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Item {
    /// A line of text by its left end on the base line.
    Text { x: f32, y: f32, style: Style, letters: Vec<u8> },
    /// A filled box by its upper left corner.
    Box { x: f32, y: f32, width: f32, height: f32, grey: f32 },
    /// A box filled with diagonal stripes.
    Stripes { x: f32, y: f32, width: f32, height: f32 },
    /// A code by its upper left corner.
    Code { x: f32, y: f32, module: f32, which: usize },
}

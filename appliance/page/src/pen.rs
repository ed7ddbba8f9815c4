//! The hand that sets lines, rows and bands, and the styles it has.
//!
//! Refuses to do: say that a page is full; it notes what has taken how much room.

use crate::drawing::{Item, Style, WIDTH};
use crate::fonts::Font;
use crate::model::{Band, Row, Value};
use crate::{letters, wrap};

/// The left margin.
pub(crate) const LEFT: f32 = 51.12;
/// The right one.
pub(crate) const RIGHT: f32 = WIDTH - LEFT;
/// From one to the other.
pub(crate) const ACROSS: f32 = RIGHT - LEFT;
/// Where values stand.
pub(crate) const VALUES: f32 = LEFT + 122.0;
const LABEL: Style = Style::new(Font::Plain, 8.5).grey(0.3);
/// Words.
pub(crate) const TEXT: Style = Style::new(Font::Plain, 9.5);
const LITERAL: Style = Style::new(Font::Fixed, 9.5);
/// Groups of a hash in one line: half of a SHA-256.
const GROUPS: f32 = 8.0 * 5.0 - 1.0;

/// A text in lines of this width.
pub(crate) fn lines(text: &str, style: &Style, width: f32) -> Vec<Vec<u8>> {
    // The last letter of a line has no space after it.
    let of = |letter| style.font.measure(&[letter], style.size) + style.spacing;
    wrap::lines(&letters::encode(text), width + style.spacing, of)
}

/// What is drawn, and what took how much room.
pub(crate) struct Pen {
    /// What is drawn.
    pub items: Vec<Item>,
    /// Where it goes on.
    pub y: f32,
    /// Above and below a row.
    pub air: f32,
    /// What took how much room.
    pub taken: Vec<(f32, String)>,
}

impl Pen {
    /// One that has set nothing yet.
    pub(crate) fn at(y: f32, air: f32) -> Self {
        Pen { items: Vec::new(), y, air, taken: Vec::new() }
    }

    /// A line of text.
    pub(crate) fn text(&mut self, x: f32, y: f32, style: Style, letters: &[u8]) {
        self.items.push(Item::Text { x, y, style, letters: letters.to_vec() });
    }

    /// A rule from margin to margin.
    pub(crate) fn line(&mut self, y: f32, thickness: f32, grey: f32) {
        self.items.push(Item::Box { x: LEFT, y, width: ACROSS, height: thickness, grey });
    }

    /// Lines below each other; returns where the next would stand.
    pub(crate) fn lines(&mut self, x: f32, first: f32, leading: f32, style: Style, lines: &[Vec<u8>]) -> f32 {
        let mut y = first;
        for line in lines {
            self.text(x, y, style, line);
            y += leading;
        }
        y
    }

    /// A bar from margin to margin, with as much of its stripes as `inset` leaves.
    pub(crate) fn band(&mut self, band: Band, y: f32, height: f32, inset: f32) {
        match band {
            Band::Solid => self.items.push(Item::Box { x: LEFT, y, width: ACROSS, height, grey: 0.0 }),
            Band::Striped => {
                self.items.push(Item::Stripes { x: LEFT, y, width: ACROSS, height });
                let (width, height) = (ACROSS - 2.0 * inset, height - 2.0 * inset);
                self.items.push(Item::Box { x: LEFT + inset, y: y + inset, width, height, grey: 1.0 });
            }
        }
    }

    /// A row of the facts.
    pub(crate) fn row(&mut self, row: &Row) {
        let begun = self.y;
        let style = if row.value.is_text() { TEXT } else { LITERAL };
        let width = match row.value {
            Value::Digest(_) => LITERAL.measure(b"0") * (GROUPS + 0.5),
            _ => RIGHT - VALUES,
        };
        let (label, value) =
            (lines(&row.label, &LABEL, VALUES - LEFT - 10.0), lines(&row.value.printed(), &style, width));
        let follows = row.label.trim().is_empty();
        if !follows {
            self.line(self.y, 0.4, 0.75);
            self.y += self.air;
        } else {
            self.y -= self.air;
        }
        let first = self.y + 9.0;
        let after_label = self.lines(LEFT, first, 10.5, LABEL, &label) - 10.5;
        let after_value = self.lines(VALUES, first, 12.0, style, &value) - 12.0;
        self.y = after_label.max(after_value) + 3.0 + self.air;
        self.taken.push((self.y - begun, format!("the row \"{}\"", row.label)));
    }
}

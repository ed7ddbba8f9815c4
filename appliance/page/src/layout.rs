//! Where everything stands on the page.
//!
//! From the top: the marking, the title, the facts, the paragraphs; from the bottom: the marking once more, the foot, the
//! codes. What is left over is white between them. The codes are as large, and take as much damage, as the words leave room for.
//!
//! Refuses to do: begin a second page, clip, or shrink letters. What does not fit is named.

use crate::codes::{self, SplitError};
use crate::drawing::{Item, PIXEL};
use crate::grid::Grid;
use crate::matrix::{self, Matrix};
use crate::model::Page;
use crate::pen::{ACROSS, LEFT, Pen, TEXT, lines};
use crate::{ends, pdf, text};
use qrcode::EcLevel;
use thiserror::Error;

/// Why a page cannot be printed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TooMuch {
    /// The bytes are too many, or none.
    #[error(transparent)]
    Payload(#[from] SplitError),
    /// A page without it would say nothing.
    #[error("{0} is blank")]
    Blank(&'static str),
    /// It has a place of fixed size.
    #[error("{0} is too long for its place on the page")]
    Long(&'static str),
    /// All together.
    #[error("the page is {millimetres} mm too long; most of it is {largest}")]
    Tall {
        /// By how much.
        millimetres: u32,
        /// What takes up the most room.
        largest: String,
    },
}

/// A page with everything in its place.
#[derive(Debug, Clone)]
pub struct Sheet {
    page: Page,
    codes: Vec<String>,
    pub(crate) matrices: Vec<Matrix>,
    pub(crate) items: Vec<Item>,
}

impl Sheet {
    /// Finds a place for everything.
    ///
    /// # Errors
    /// What does not fit.
    pub fn lay_out(page: Page) -> Result<Self, TooMuch> {
        for (blank, what) in [(&page.marking.word, "the marking"), (&page.title, "the title")] {
            if blank.trim().is_empty() {
                return Err(TooMuch::Blank(what));
            }
        }
        let codes = codes::split(&page.payload)?;
        let mut tall = None;
        for (level, dots, air) in TRIES {
            let Ok(version) = matrix::version(&codes, level) else { continue };
            let Some(grid) = Grid::of(&page, codes.len(), matrix::side(version), dots * PIXEL) else {
                continue;
            };
            match draw(&page, &grid, air) {
                Ok(items) => {
                    let matrices = Matrix::all(&codes, version, level).expect("they fit this version");
                    return Ok(Sheet { page, codes, matrices, items });
                }
                Err(TooMuch::Tall { millimetres, largest }) => {
                    tall = Some(TooMuch::Tall { millimetres, largest })
                }
                Err(other) => return Err(other),
            }
        }
        Err(tall.expect("the smallest codes of the lower level have room side by side, whatever they hold"))
    }

    /// The page as a PDF.
    pub fn pdf(&self) -> Vec<u8> {
        pdf::write(self)
    }

    /// The page as plain text of 80 columns. It names the data and leaves it to the codes.
    pub fn text(&self) -> String {
        text::write(&self.page, self.codes.len())
    }

    /// The texts of the codes.
    pub fn codes(&self) -> &[String] {
        &self.codes
    }

    pub(crate) fn title(&self) -> &str {
        &self.page.title
    }
}

/// Error correction, dots of 300 an inch a module, and how much air there is around a row; the best first.
const TRIES: [(EcLevel, f32, f32); 6] = [
    (EcLevel::Q, 6.0, 2.9),
    (EcLevel::Q, 5.0, 2.9),
    (EcLevel::M, 5.0, 2.9),
    (EcLevel::M, 4.0, 2.9),
    (EcLevel::M, 4.0, 1.8),
    (EcLevel::M, 4.0, 0.8),
];

/// Everything with its codes as large as told, or by how much it is too long.
fn draw(page: &Page, grid: &Grid, air: f32) -> Result<Vec<Item>, TooMuch> {
    let mut pen = Pen::at(ends::TOP, air);
    ends::head(page, &mut pen)?;
    for row in &page.rows {
        pen.row(row);
    }
    if !page.rows.is_empty() {
        pen.line(pen.y, 0.4, 0.75);
    }
    pen.y += 4.0 + 2.0 * air;
    for (paragraph, number) in page.paragraphs.iter().zip(1..) {
        let (begun, lines) = (pen.y, lines(paragraph, &TEXT, ACROSS - 14.0));
        pen.y = pen.lines(LEFT + 14.0, pen.y + 9.0, 12.8, TEXT, &lines) - 12.8 + 3.5;
        pen.items.push(Item::Box { x: LEFT, y: begun, width: 2.5, height: pen.y - begun, grey: 0.0 });
        pen.taken.push((pen.y - begun, format!("paragraph {number}")));
        pen.y += 5.0 + air;
    }
    let words_end = pen.y;
    let codes_begin = ends::foot(page, &mut pen)? - grid.height() - 10.0;
    if codes_begin < words_end {
        pen.taken.push((grid.height(), "the codes".to_owned()));
        let largest = pen.taken.iter().max_by(|a, b| a.0.total_cmp(&b.0));
        let largest = largest.map(|(height, what)| format!("{what} with {:.0} mm", millimetres(*height)));
        let millimetres = millimetres(words_end - codes_begin).ceil() as u32;
        return Err(TooMuch::Tall { millimetres, largest: largest.unwrap_or_default() });
    }
    grid.draw(codes_begin, &mut pen);
    Ok(pen.items)
}

fn millimetres(points: f32) -> f32 {
    points / 72.0 * 25.4
}

//! How the codes stand: three in a row below their note, or two beside it.

use crate::codes::short_hash;
use crate::drawing::{Item, PIXEL, Style};
use crate::fonts::Font;
use crate::matrix::QUIET;
use crate::model::Page;
use crate::pen::{ACROSS, LEFT, Pen, lines};

const NOTE: Style = Style::new(Font::Plain, 8.5).grey(0.2);
const CODE: Style = Style::new(Font::Fixed, 7.5).grey(0.2);

/// Codes in their places.
pub(crate) struct Grid {
    columns: usize,
    rows: usize,
    side: f32,
    module: f32,
    gap: f32,
    /// The note, and whether it stands beside the codes.
    note: Vec<Vec<u8>>,
    beside: bool,
    captions: Vec<String>,
}

const CAPTION: f32 = 13.0;

impl Grid {
    /// Codes of so many modules a side, a module so large; `None` when they have no room side by side.
    pub(crate) fn of(page: &Page, count: usize, modules: f32, module: f32) -> Option<Self> {
        let columns = match count {
            4 => 2,
            count => count.min(3),
        };
        let side = modules * module;
        let quiet = 2.0 * QUIET as f32 * module;
        let beside = columns < 3;
        let free = ACROSS - columns as f32 * side;
        // In a row of three the gaps take what is left; otherwise the note does.
        let gap = if beside { quiet.max(18.0) } else { free / 2.0 };
        let width = if beside { free - columns as f32 * gap } else { ACROSS };
        let fits = gap >= quiet && width >= 110.0;
        let hash = short_hash(&page.payload);
        let captions = (1..=count).map(|number| format!("{number} of {count}  {hash}")).collect();
        let rows = count.div_ceil(columns);
        fits.then(|| Grid {
            columns,
            rows,
            side,
            module,
            gap,
            note: lines(&page.note, &NOTE, width),
            beside,
            captions,
        })
    }

    /// Room that codes and note take.
    pub(crate) fn height(&self) -> f32 {
        let quiet = QUIET as f32 * self.module;
        let codes = self.rows as f32 * (self.side + CAPTION) + (self.rows - 1) as f32 * quiet;
        let note = self.note.len() as f32 * 11.0;
        if self.beside { codes.max(note) } else { codes + note + quiet }
    }

    /// Draws them.
    pub(crate) fn draw(&self, top: f32, pen: &mut Pen) {
        let quiet = QUIET as f32 * self.module;
        // To the dot, so that a printer of 300 dots an inch, or a multiple, blurs no edge.
        let to_dot = |at: f32| (at / PIXEL).round() * PIXEL;
        let top = match self.beside {
            true => {
                let x = LEFT + self.columns as f32 * (self.side + self.gap);
                pen.lines(x, top + 7.0, 11.0, NOTE, &self.note);
                top
            }
            false => pen.lines(LEFT, top + 7.0, 11.0, NOTE, &self.note) - 7.0 + quiet,
        };
        for (which, caption) in self.captions.iter().enumerate() {
            let (row, column) = ((which / self.columns) as f32, (which % self.columns) as f32);
            let x = to_dot(LEFT + column * (self.side + self.gap));
            let y = to_dot(top + row * (self.side + CAPTION + quiet));
            pen.items.push(Item::Code { x, y, module: self.module, which });
            pen.text(x, y + self.side + quiet.max(5.0) + 5.0, CODE, caption.as_bytes());
        }
    }
}

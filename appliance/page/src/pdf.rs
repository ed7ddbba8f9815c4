//! The page as PDF 1.7: one page, the fonts that every reader brings, black and grey, codes as exact boxes.
//!
//! Invariant: no date, no identifier, no compression: the same page is the same file, and a person can read it.

use crate::drawing::{HEIGHT, Item, PIXEL, Style, WIDTH};
use crate::fonts::Font;
use crate::layout::Sheet;
use crate::matrix::Matrix;
use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr};

/// Distance from one stripe to the next.
const STRIDE: f32 = 12.0;

pub(crate) fn write(sheet: &Sheet) -> Vec<u8> {
    let [catalog, tree, page, content, info] = [1, 2, 3, 4, 5].map(Ref::new);
    let fonts = Font::ALL.iter().zip(6..).map(|(font, id)| (*font, Ref::new(id)));
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree);
    pdf.pages(tree).kids([page]).count(1);
    let mut described = pdf.page(page);
    described.parent(tree).media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).contents(content);
    let mut resources = described.resources();
    let mut listed = resources.fonts();
    for (font, id) in fonts.clone() {
        listed.pair(Name(font.handle()), id);
    }
    listed.finish();
    resources.finish();
    described.finish();
    for (font, id) in fonts {
        pdf.type1_font(id).base_font(Name(font.name())).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    pdf.document_info(info).title(TextStr(sheet.title())).producer(TextStr("Bulla"));
    pdf.stream(content, &drawn(sheet));
    pdf.finish()
}

fn drawn(sheet: &Sheet) -> Vec<u8> {
    let mut content = Content::new();
    draw(&mut content, &sheet.items, &sheet.matrices);
    content.finish().into_vec()
}

/// Draws everything that is on a page.
pub(crate) fn draw(content: &mut Content, items: &[Item], matrices: &[Matrix]) {
    for item in items {
        match item {
            Item::Text { x, y, style, letters } => text(content, *x, *y, style, letters),
            Item::Box { x, y, width, height, grey } => {
                content.set_fill_gray(*grey).rect(*x, HEIGHT - y - height, *width, *height).fill_nonzero();
            }
            Item::Stripes { x, y, width, height } => {
                stripes(content, *x, HEIGHT - y - height, *width, *height)
            }
            Item::Code { x, y, module, which } => code(content, *x, *y, *module, &matrices[*which]),
        }
    }
}

fn text(content: &mut Content, x: f32, y: f32, style: &Style, letters: &[u8]) {
    content
        .set_fill_gray(style.grey)
        .begin_text()
        .set_font(Name(style.font.handle()), style.size)
        .set_char_spacing(style.spacing)
        .next_line(x, HEIGHT - y)
        .show(Str(letters))
        .end_text();
}

/// Stripes that lean to the right, cut off at the box; `y` is its lower side.
fn stripes(content: &mut Content, x: f32, y: f32, width: f32, height: f32) {
    content.save_state().rect(x, y, width, height).clip_nonzero().end_path().set_fill_gray(0.0);
    let mut at = x - height;
    while at < x + width {
        let half = STRIDE / 2.0;
        content.move_to(at, y).line_to(at + height, y + height);
        content.line_to(at + height + half, y + height).line_to(at + half, y).close_path();
        at += STRIDE;
    }
    content.fill_nonzero().restore_state();
}

/// One path in units of a module, so that every edge is where it belongs.
fn code(content: &mut Content, x: f32, y: f32, module: f32, matrix: &Matrix) {
    // From the lower left corner in whole dots: no rounding of the sum may show.
    let lower = ((HEIGHT - y - matrix.side as f32 * module) / PIXEL).round() * PIXEL;
    content.save_state().set_fill_gray(0.0).transform([module, 0.0, 0.0, module, x, lower]);
    for (row, column, length) in matrix.runs() {
        content.rect(column as f32, (matrix.side - row - 1) as f32, length as f32, 1.0);
    }
    content.fill_nonzero().restore_state();
}

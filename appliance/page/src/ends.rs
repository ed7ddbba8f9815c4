//! Head and foot of the page: the marking at both ends, the title, and what identifies the page.

use crate::drawing::{HEIGHT, Item, Style, WIDTH};
use crate::fonts::Font;
use crate::layout::TooMuch;
use crate::letters;
use crate::model::{Band, LACKING, Marking, Page};
use crate::pen::{ACROSS, LEFT, Pen, RIGHT, VALUES, lines};

/// Where a page begins.
pub(crate) const TOP: f32 = 34.0;
const BOTTOM: f32 = HEIGHT - 30.0;
const BAND: f32 = 46.0;
const LOWER_BAND: f32 = 17.0;
/// Left of the sentence in the band.
const SENTENCE: f32 = LEFT + 246.0;
const WORD: Style = Style::new(Font::Bold, 25.0).spaced(2.5);
const SENTENCE_STYLE: Style = Style::new(Font::Plain, 10.0);
const LOWER_WORD: Style = Style::new(Font::Bold, 10.0).spaced(2.0);
const TITLE: Style = Style::new(Font::Bold, 19.0);
const SUBTITLE: Style = Style::new(Font::Plain, 10.5).grey(0.3);
const FOOT: Style = Style::new(Font::Plain, 8.0).grey(0.2);
const FOOT_LITERAL: Style = Style::new(Font::Fixed, 8.0).grey(0.2);

/// The marking and the title; the pen stands below them.
pub(crate) fn head(page: &Page, pen: &mut Pen) -> Result<(), TooMuch> {
    head_of(&page.marking, &page.title, &page.subtitle, pen)
}

/// The same of any document.
pub(crate) fn head_of(marking: &Marking, title: &str, subtitle: &str, pen: &mut Pen) -> Result<(), TooMuch> {
    let (ink, inset) = if marking.band == Band::Solid { (1.0, 0.0) } else { (0.0, 7.0) };
    pen.band(marking.band, pen.y, BAND, inset);
    let word = letters::encode(&marking.word);
    let sentence_from = SENTENCE.max(LEFT + 16.0 + WORD.measure(&word) + 18.0);
    let sentence = lines(&marking.sentence, &SENTENCE_STYLE, RIGHT - 16.0 - sentence_from);
    if sentence_from > RIGHT - 120.0 || sentence.len() > 2 {
        return Err(TooMuch::Long("the marking"));
    }
    let middle = pen.y + BAND / 2.0;
    pen.text(LEFT + 16.0, middle + 9.0, WORD.grey(ink), &word);
    let first = middle + 3.5 - 6.2 * (sentence.len() - 1) as f32;
    pen.lines(sentence_from, first, 12.4, SENTENCE_STYLE.grey(ink), &sentence);

    let (title, subtitle) = (lines(title, &TITLE, ACROSS), lines(subtitle, &SUBTITLE, ACROSS));
    if title.len() > 2 {
        return Err(TooMuch::Long("the title"));
    }
    if subtitle.len() > 2 {
        return Err(TooMuch::Long("the subtitle"));
    }
    let below = pen.lines(LEFT, pen.y + BAND + 33.0, 23.0, TITLE, &title) - 23.0;
    pen.y = pen.lines(LEFT, below + 16.5, 13.5, SUBTITLE, &subtitle) - 13.5 + 11.0;
    Ok(())
}

/// The marking once more and the foot above it; returns where the foot begins.
pub(crate) fn foot(page: &Page, pen: &mut Pen) -> Result<f32, TooMuch> {
    let marking = &page.marking;
    let (word, band) = (letters::encode(&marking.word), BOTTOM - LOWER_BAND);
    let width = LOWER_WORD.measure(&word);
    match marking.band {
        Band::Solid => pen.band(Band::Solid, band, LOWER_BAND, 0.0),
        Band::Striped => {
            pen.items.push(Item::Stripes { x: LEFT, y: band, width: ACROSS, height: LOWER_BAND });
            let x = WIDTH / 2.0 - width / 2.0 - 14.0;
            // A little more than the stripes, whose cut ends would show.
            let (y, height) = (band - 1.0, LOWER_BAND + 2.0);
            pen.items.push(Item::Box { x, y, width: width + 28.0, height, grey: 1.0 });
        }
    }
    let ink = if marking.band == Band::Solid { 1.0 } else { 0.0 };
    pen.text(WIDTH / 2.0 - width / 2.0, band + 12.2, LOWER_WORD.grey(ink), &word);

    let mut rows = Vec::new();
    for row in &page.footer {
        let style = if row.value.is_text() { FOOT } else { FOOT_LITERAL };
        let (label, value) = (
            lines(&row.label, &FOOT, VALUES - LEFT - 10.0),
            lines(&row.value.printed(), &style, RIGHT - VALUES),
        );
        if label.len() > 1 || value.len() > 2 {
            return Err(TooMuch::Long("a line of the foot"));
        }
        rows.push((label, style, value));
    }
    if page.lacks() {
        rows.push((Vec::new(), FOOT, lines(LACKING, &FOOT, RIGHT - VALUES)));
    }
    let height: usize = rows.iter().map(|(.., value)| value.len()).sum();
    let begin = band - 9.0 - 10.6 * height as f32;
    let mut y = begin + 8.0;
    pen.line(begin - 4.0, 0.8, 0.0);
    for (label, style, value) in rows {
        pen.lines(LEFT, y, 10.6, FOOT, &label);
        y = pen.lines(VALUES, y, 10.6, style, &value);
    }
    Ok(begin - 4.0)
}

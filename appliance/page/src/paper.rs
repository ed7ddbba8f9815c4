//! A document of as many pages as it takes, in the look of the printed page, with files inside that stock tools extract.
//!
//! Refuses to do: clip, shrink letters, compress, or read a clock: the same [`Paper`] gives the same bytes.
//! Invariants: every page has the title, its number and how many there are; a row, a line of a table and a heading with
//! what follows it stand on one page; what is inside comes out byte for byte.

use crate::drawing::{HEIGHT, Item, Style, WIDTH};
use crate::ends;
use crate::fonts::Font;
use crate::layout::TooMuch;
use crate::letters;
use crate::model::{LACKING, Marking, Row};
use crate::pdf;
use crate::pen::{ACROSS, LEFT, Pen, RIGHT, TEXT, lines};
use pdf_writer::types::AssociationKind;
use pdf_writer::{Content, Finish as _, Name, Pdf, Rect, Ref, Str, TextStr};

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paper {
    /// What nobody may overlook.
    pub marking: Marking,
    /// What this is.
    pub title: String,
    /// Of whom, and when.
    pub subtitle: String,
    /// What it says.
    pub parts: Vec<Part>,
    /// What stands at the foot of every page.
    pub footer: String,
    /// What is inside.
    pub files: Vec<Attachment>,
}

/// A piece of what a document says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// What follows is about this.
    Heading(String),
    /// Words.
    Text(String),
    /// A fact.
    Row(Row),
    /// A table.
    Table(Table),
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its columns, and how wide each is in thousandths of the page.
    pub columns: Vec<(String, u16)>,
    /// Its lines, each of as many texts as there are columns.
    pub lines: Vec<Vec<String>>,
}

/// A file inside a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its name; no two are alike.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// What it is.
    pub description: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

const TOP: f32 = 62.0;
const BOTTOM: f32 = HEIGHT - 62.0;
const AIR: f32 = 2.2;
const HEADING: Style = Style::new(Font::Bold, 12.0);
const SMALL: Style = Style::new(Font::Plain, 8.0).grey(0.2);
const CELL: Style = Style::new(Font::Plain, 8.2);
const CELL_HEAD: Style = Style::new(Font::Bold, 8.2).grey(0.2);
const GAP: f32 = 7.0;

impl Paper {
    /// The document as a PDF.
    ///
    /// # Errors
    /// Something that must stand on one page is too long for one.
    pub fn pdf(&self) -> Result<Vec<u8>, TooMuch> {
        for (blank, what) in [(&self.marking.word, "the marking"), (&self.title, "the title")] {
            if blank.trim().is_empty() {
                return Err(TooMuch::Blank(what));
            }
        }
        let pages = self.pages()?;
        Ok(write(self, &pages))
    }

    fn pages(&self) -> Result<Vec<Vec<Item>>, TooMuch> {
        let mut pages = Pages { done: Vec::new(), pen: Pen::at(ends::TOP, AIR) };
        ends::head_of(&self.marking, &self.title, &self.subtitle, &mut pages.pen)?;
        let mut heading: Option<&str> = None;
        for part in &self.parts {
            match part {
                Part::Heading(text) => {
                    if let Some(alone) = heading.replace(text) {
                        pages.put(Some(alone), |_| {})?;
                    }
                }
                Part::Text(text) => {
                    let set = lines(text, &TEXT, ACROSS);
                    pages.put(heading.take(), |pen| {
                        pen.y = pen.lines(LEFT, pen.y + 12.5, 12.6, TEXT, &set) - 12.6 + 7.0;
                    })?;
                }
                Part::Row(row) => pages.put(heading.take(), |pen| pen.row(row))?,
                Part::Table(table) => pages.table(heading.take(), table)?,
            }
        }
        if let Some(alone) = heading {
            pages.put(Some(alone), |_| {})?;
        }
        if self.lacks() {
            let set = lines(LACKING, &SMALL, ACROSS);
            pages.put(None, |pen| {
                pen.y = pen.lines(LEFT, pen.y + 14.0, 10.6, SMALL, &set);
            })?;
        }
        let mut all = pages.done;
        all.push(pages.pen.items);
        let count = all.len();
        for (number, page) in all.iter_mut().enumerate() {
            self.frame(page, number + 1, count);
        }
        Ok(all)
    }

    /// Foot of every page, and head of all but the first.
    fn frame(&self, page: &mut Vec<Item>, number: usize, count: usize) {
        let mut pen = Pen::at(0.0, AIR);
        if number > 1 {
            let title = lines(&self.title, &SMALL, ACROSS * 0.6);
            pen.lines(LEFT, 44.0, 10.0, SMALL, &title[..1]);
            let word = letters::encode(&self.marking.word);
            pen.text(RIGHT - SMALL.measure(&word), 44.0, SMALL, &word);
            pen.line(49.0, 0.8, 0.0);
        }
        pen.line(HEIGHT - 52.0, 0.8, 0.0);
        let said = letters::encode(&format!("{number}/{count}"));
        let width = SMALL.measure(&said);
        let foot = lines(&self.footer, &SMALL, ACROSS - width - 20.0);
        pen.lines(LEFT, HEIGHT - 41.0, 10.2, SMALL, &foot[..foot.len().min(2)]);
        pen.text(RIGHT - width, HEIGHT - 41.0, SMALL, &said);
        page.extend(pen.items);
    }

    fn lacks(&self) -> bool {
        let marking = [&self.marking.word, &self.marking.sentence, &self.title, &self.subtitle, &self.footer];
        let part = |part: &Part| match part {
            Part::Heading(text) | Part::Text(text) => letters::lacks(text),
            Part::Row(row) => letters::lacks(&row.label) || letters::lacks(&row.value.printed()),
            Part::Table(table) => {
                table.columns.iter().any(|(text, _)| letters::lacks(text))
                    || table.lines.iter().flatten().any(|text| letters::lacks(text))
            }
        };
        marking.into_iter().any(|text| letters::lacks(text)) || self.parts.iter().any(part)
    }
}

struct Pages {
    done: Vec<Vec<Item>>,
    pen: Pen,
}

impl Pages {
    /// Sets something that stands on one page, with the heading that belongs to it.
    fn put(&mut self, heading: Option<&str>, set: impl Fn(&mut Pen)) -> Result<(), TooMuch> {
        let all = |pen: &mut Pen| {
            if let Some(heading) = heading {
                let heading = lines(heading, &HEADING, ACROSS);
                pen.y = pen.lines(LEFT, pen.y + 24.0, 15.0, HEADING, &heading) - 15.0 + 6.0;
            }
            set(pen);
        };
        let mut tried = Pen::at(self.pen.y, AIR);
        all(&mut tried);
        if tried.y > BOTTOM {
            let mut fresh = Pen::at(TOP, AIR);
            all(&mut fresh);
            if fresh.y > BOTTOM {
                return Err(TooMuch::Long("a part of the document"));
            }
            let full = std::mem::replace(&mut self.pen, fresh);
            self.done.push(full.items);
        } else {
            self.pen.items.extend(tried.items);
            self.pen.y = tried.y;
        }
        Ok(())
    }

    fn table(&mut self, heading: Option<&str>, table: &Table) -> Result<(), TooMuch> {
        let mut x = LEFT;
        let columns: Vec<(f32, f32)> = table
            .columns
            .iter()
            .map(|(_, share)| {
                let (begin, width) = (x, ACROSS * f32::from(*share) / 1_000.0);
                x += width;
                (begin, width - GAP)
            })
            .collect();
        let line = |pen: &mut Pen, texts: &mut dyn Iterator<Item = &str>, style: Style| {
            let (first, mut end) = (pen.y + 9.5, pen.y + 9.5);
            for ((x, width), text) in columns.iter().zip(texts) {
                end = end.max(pen.lines(*x, first, 10.2, style, &lines(text, &style, *width)) - 10.2);
            }
            pen.y = end + 3.5;
            pen.line(pen.y, 0.4, 0.75);
            pen.y += 1.0;
        };
        let head = |pen: &mut Pen| {
            pen.y += 3.0;
            line(pen, &mut table.columns.iter().map(|(text, _)| text.as_str()), CELL_HEAD);
        };
        let mut heading = heading;
        for (number, texts) in table.lines.iter().enumerate() {
            self.put(heading.take(), |pen| {
                if number == 0 || pen.y <= TOP {
                    head(pen);
                }
                line(pen, &mut texts.iter().map(String::as_str), CELL);
            })?;
        }
        self.pen.y += 3.0;
        Ok(())
    }
}

fn write(paper: &Paper, pages: &[Vec<Item>]) -> Vec<u8> {
    let mut next = 0;
    let mut fresh = || {
        next += 1;
        Ref::new(next)
    };
    let [catalog, tree, info] = [fresh(), fresh(), fresh()];
    let fonts: Vec<(Font, Ref)> = Font::ALL.iter().map(|font| (*font, fresh())).collect();
    let leaves: Vec<(Ref, Ref)> = pages.iter().map(|_| (fresh(), fresh())).collect();
    let mut files: Vec<(&Attachment, Ref, Ref)> =
        paper.files.iter().map(|file| (file, fresh(), fresh())).collect();
    // A name tree is in order.
    files.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
    let mut pdf = Pdf::new();
    let mut root = pdf.catalog(catalog);
    root.pages(tree);
    if !files.is_empty() {
        let mut names = root.names();
        let mut embedded = names.embedded_files();
        let mut listed = embedded.names();
        for (file, spec, _) in &files {
            listed.insert(Str(file.name.as_bytes()), *spec);
        }
        listed.finish();
        embedded.finish();
        names.finish();
        root.insert(Name(b"AF")).array().items(files.iter().map(|(_, spec, _)| *spec));
    }
    root.finish();
    pdf.pages(tree).kids(leaves.iter().map(|(page, _)| *page)).count(leaves.len() as i32);
    for ((page, content), items) in leaves.iter().zip(pages) {
        let mut described = pdf.page(*page);
        described.parent(tree).media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).contents(*content);
        let mut resources = described.resources();
        let mut listed = resources.fonts();
        for (font, id) in &fonts {
            listed.pair(Name(font.handle()), *id);
        }
        listed.finish();
        resources.finish();
        described.finish();
        let mut drawn = Content::new();
        pdf::draw(&mut drawn, items, &[]);
        pdf.stream(*content, &drawn.finish().into_vec());
    }
    for (font, id) in fonts {
        pdf.type1_font(id).base_font(Name(font.name())).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    for (file, spec, content) in files {
        let mut described = pdf.indirect(spec).start::<pdf_writer::writers::FileSpec<'_>>();
        described
            .path(Str(file.name.as_bytes()))
            .unic_file(TextStr(&file.name))
            .description(TextStr(&file.description))
            .association_kind(AssociationKind::Data)
            .embedded_file_with_unicode(content);
        described.finish();
        let mut embedded = pdf.embedded_file(content, &file.bytes);
        embedded.subtype(Name(file.media_type.as_bytes()));
        embedded.params().size(file.bytes.len() as i32);
    }
    pdf.document_info(info).title(TextStr(&paper.title)).producer(TextStr("Bulla"));
    pdf.finish()
}

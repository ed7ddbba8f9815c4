//! What a page says, as whoever fills it in hands it over.
//!
//! Refuses to do: know what any of it means. Every text is one line here, however long; the layout breaks it.

use crate::letters;

/// What a page says of letters that it shows by their numbers.
pub(crate) const LACKING: &str = "A letter that printers may lack is shown by its number, as in [U+0142].";

/// A page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// What nobody may overlook.
    pub marking: Marking,
    /// What this is.
    pub title: String,
    /// Of whom, and when.
    pub subtitle: String,
    /// The facts.
    pub rows: Vec<Row>,
    /// What is to be read as a whole, such as a legal wording.
    pub paragraphs: Vec<String>,
    /// What the codes hold and how they are read.
    pub note: String,
    /// What stands at the foot: whatever identifies the page and its wording.
    pub footer: Vec<Row>,
    /// What the codes hold.
    pub payload: Vec<u8>,
}

impl Page {
    /// Whether anything on it is shown by its number.
    pub(crate) fn lacks(&self) -> bool {
        let single = [&self.marking.word, &self.marking.sentence, &self.title, &self.subtitle, &self.note];
        let rows = self.rows.iter().chain(&self.footer);
        single.into_iter().chain(&self.paragraphs).any(|text| letters::lacks(text))
            || rows.into_iter().any(|row| letters::lacks(&row.label) || letters::lacks(&row.value.printed()))
    }
}

/// The bar at the head of a page, repeated at its foot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marking {
    /// One word or two, in large letters.
    pub word: String,
    /// What follows from it, in one short sentence.
    pub sentence: String,
    /// How the bar looks, so that two kinds of page are told apart from across a room.
    pub band: Band,
}

/// The look of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Band {
    /// White letters on black: this is real.
    Solid,
    /// Black letters between stripes: this is an exercise, or over.
    Striped,
}

/// A fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it is. Blank when the row goes on with the one before.
    pub label: String,
    /// How it is.
    pub value: Value,
}

impl Row {
    /// A row.
    pub fn new(label: impl Into<String>, value: Value) -> Self {
        Row { label: label.into(), value }
    }

    /// A row of plain words.
    pub fn text(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(label, Value::Text(value.into()))
    }
}

/// How a fact is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Words.
    Text(String),
    /// Letters of which every one counts: a name, a fingerprint that has its groups already.
    Literal(String),
    /// A hash: the same, in groups of four, so that it can be read aloud.
    Digest(String),
}

impl Value {
    /// What is printed.
    pub(crate) fn printed(&self) -> String {
        match self {
            Value::Text(text) | Value::Literal(text) => text.clone(),
            Value::Digest(digest) => {
                let letters: Vec<char> = digest.chars().collect();
                letters.chunks(4).map(|group| group.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
            }
        }
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self, Value::Text(_))
    }
}

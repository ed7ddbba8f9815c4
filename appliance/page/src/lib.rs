//! One printed page: what it says in words, and the data itself in QR codes. And [`Paper`]: as many pages as it takes, with
//! the data as files inside, for who reads on a screen.
//!
//! A page outlives the systems that made it: it is filed, copied, folded, and scanned again by somebody with nothing but
//! a phone. Whoever fills it in hands over words and bytes; this crate knows what neither means.
//! Start: [`Sheet::lay_out`]; [`codes`] is the way back.
//!
//! Refuses to do: let a [`Sheet`] have a second page, clip anything, drop a character that the fonts lack, or read clock, chance or file.
//! Invariant: the same [`Page`] gives the same bytes, and whatever [`codes::split`] makes, [`codes::join`] undoes.
#![forbid(unsafe_code)]

mod base45;
pub mod codes;
mod drawing;
mod ends;
mod fonts;
mod grid;
mod layout;
mod letters;
mod matrix;
mod model;
mod paper;
mod pdf;
mod pen;
mod text;
mod wrap;

pub use layout::{Sheet, TooMuch};
pub use model::{Band, Marking, Page, Row, Value};
pub use paper::{Attachment, Paper, Part, Table};

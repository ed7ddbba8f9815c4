//! What does not fit on one page is named, and what comes out is inside the page.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod sample;

use bulla_page::codes::SplitError;
use bulla_page::{Page, Row, Sheet, TooMuch, Value};
use sample::{drill, emergency};

fn refused(change: impl FnOnce(&mut Page)) -> TooMuch {
    let mut page = emergency(6_144);
    change(&mut page);
    Sheet::lay_out(page).unwrap_err()
}

#[test]
fn what_is_too_long_is_named() {
    let said = |change: fn(&mut Page)| refused(change).to_string();
    assert_eq!(
        said(|page| page.marking.word = "EMERGENCY, AND MORE THAN THAT".into()),
        "the marking is too long for its place on the page"
    );
    assert_eq!(
        said(|page| page.marking.sentence = "and so on ".repeat(20)),
        "the marking is too long for its place on the page"
    );
    assert_eq!(
        said(|page| page.title = "and so on ".repeat(20)),
        "the title is too long for its place on the page"
    );
    assert_eq!(
        said(|page| page.subtitle = "and so on ".repeat(30)),
        "the subtitle is too long for its place on the page"
    );
    assert_eq!(
        said(|page| page.footer[0] = Row::text("Wording", "and so on ".repeat(40))),
        "a line of the foot is too long for its place on the page"
    );
    let tall = said(|page| page.paragraphs.push("and so on ".repeat(400)));
    assert!(
        tall.starts_with("the page is ") && tall.contains(" mm too long; most of it is paragraph 2 with "),
        "{tall}"
    );
    let tall = said(|page| page.rows.push(Row::text("Unreachable", "x".repeat(4_000))));
    assert!(tall.contains("most of it is the row \"Unreachable\" with "), "{tall}");
    let tall = said(|page| page.rows.extend((0..20).map(|number| Row::text(number.to_string(), "one more"))));
    assert!(tall.contains("most of it is the codes with "), "{tall}");
    let tall = said(|page| page.note = "and so on ".repeat(2_000));
    assert!(tall.contains("most of it is the codes with "), "{tall}");
}

#[test]
fn what_a_page_cannot_lack_is_named() {
    assert_eq!(refused(|page| page.marking.word = " ".into()), TooMuch::Blank("the marking"));
    assert_eq!(refused(|page| page.title.clear()), TooMuch::Blank("the title"));
    assert_eq!(refused(|page| page.payload.clear()), TooMuch::Payload(SplitError::Empty));
    assert_eq!(refused(|page| page.payload.push(0)), TooMuch::Payload(SplitError::TooLarge(6_145)));
}

#[test]
fn a_page_may_be_almost_blank() {
    let mut page = drill(1);
    (page.rows, page.paragraphs, page.footer) = (Vec::new(), Vec::new(), Vec::new());
    (page.subtitle, page.note, page.marking.sentence) = (String::new(), String::new(), String::new());
    assert_eq!(Sheet::lay_out(page).unwrap().codes().len(), 1);
}

#[test]
fn codes_shrink_before_a_page_is_refused() {
    // As many rows as go on a page, one by one: there is one point from which on it is too long, and none before.
    let mut fits = Vec::new();
    for rows in 0..40 {
        let mut page = drill(6_144);
        page.rows = (0..rows).map(|row| Row::new(row.to_string(), Value::Literal("x".into()))).collect();
        fits.push(Sheet::lay_out(page).is_ok());
    }
    assert!(fits.is_sorted_by(|before, after| before >= after), "{fits:?}");
    let most = fits.iter().filter(|fits| **fits).count();
    assert!((15..30).contains(&most), "{most} rows beside six codes");
}

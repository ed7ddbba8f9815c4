//! Payloads cut into codes and put together again, and everything that is not exactly that.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_page::codes::{JoinError, PAYLOAD_MAX, SplitError, join, split};
use proptest::prelude::*;

fn said(texts: &[String]) -> String {
    join(texts).unwrap_err().to_string()
}

/// Six codes.
fn six() -> Vec<String> {
    split(&(0..6_000u32).map(|number| (number % 251) as u8).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_small_payload_as_the_format_says() {
    // The base45 of "Hello!!" is an example of RFC 9285; the hash is what sha256sum says.
    assert_eq!(split(b"Hello!!").unwrap(), ["BULLA1/1/1/BBC7F4C8/%69 VD92EX0"]);
    assert_eq!(split(b""), Err(SplitError::Empty));
    assert_eq!(split(&vec![0; PAYLOAD_MAX + 1]), Err(SplitError::TooLarge(PAYLOAD_MAX + 1)));
    assert_eq!(split(&vec![0; PAYLOAD_MAX]).unwrap().len(), 6);
}

#[test]
fn every_mistake_has_its_sentence() {
    let codes = six();
    assert_eq!(join::<&str>(&[]), Err(JoinError::Nothing));
    assert_eq!(
        said(&[codes[1].clone(), codes[4].clone(), codes[1].clone()]),
        "missing of 6 codes: 1, 3, 4, 6"
    );
    let mut mixed = codes.clone();
    mixed[3] = split(b"another page").unwrap().remove(0);
    assert!(said(&mixed).starts_with("text 4 is a code of another page: "), "{}", said(&mixed));
    let mut twice = codes.clone();
    twice.push(codes[2].replace(&codes[2][20..23], "000"));
    assert_eq!(said(&twice), "code 3 was read twice, with different content");
    let mut wrong = codes.clone();
    wrong[2] = twice[6].clone();
    assert!(said(&wrong).starts_with("the codes together are not the data whose hash "), "{}", said(&wrong));
    assert_eq!(
        said(&["https://bank.example/".into()]),
        "text 1 is no code of a Bulla page: it does not begin with BULLA1/"
    );
    assert_eq!(
        said(&["BULLA2/1/1/00000000/00".into()]),
        "text 1 is no code of a Bulla page: it does not begin with BULLA1/"
    );
}

#[test]
fn damaged_texts_are_named() {
    let good = "BULLA1/1/2/00000000/000";
    for (text, what) in [
        ("BULLA1/", "it ends too early"),
        ("BULLA1/1/2/00000000", "it ends too early"),
        ("BULLA1/3/2/00000000/000", "its number is not one of its page's"),
        ("BULLA1/0/2/00000000/000", "its number is not one of its page's"),
        ("BULLA1/01/2/00000000/000", "its number is not one of its page's"),
        ("BULLA1/1/7/00000000/000", "the number of codes is not one of 1 to 6"),
        ("BULLA1/1/02/00000000/000", "the number of codes is not one of 1 to 6"),
        ("BULLA1/1//00000000/000", "the number of codes is not one of 1 to 6"),
        ("BULLA1/1/2/0000000/000", "its hash is not eight capital hex digits"),
        ("BULLA1/1/2/0000000a/000", "its hash is not eight capital hex digits"),
        ("BULLA1/1/2/00000000/", "its content is not of 1 to 1024 bytes"),
        ("BULLA1/1/2/00000000/0", "its content is not base45"),
        ("BULLA1/1/2/00000000/:::", "its content is not base45"),
        ("BULLA1/1/2/00000000/abc", "its content is not base45"),
    ] {
        assert_eq!(said(&[good.into(), text.into()]), format!("text 2 is damaged: {what}"), "{text}");
    }
    let long = format!("BULLA1/1/2/00000000/{}", "000".repeat(513));
    assert_eq!(said(&[long]), "text 1 is damaged: its content is not of 1 to 1024 bytes");
}

#[test]
fn another_distribution_of_the_same_bytes_is_refused() {
    // "Hello!!" in two codes, and 1,100 bytes cut elsewhere than in the middle.
    let two = ["BULLA1/1/2/BBC7F4C8/%69 VD".to_owned(), "BULLA1/2/2/BBC7F4C8/92EX0".to_owned()];
    assert_eq!(join(&two), Err(JoinError::Distribution));
    let payload = [7; 1_100];
    let mut codes = split(&payload).unwrap();
    assert_eq!(join(&codes).as_deref(), Ok(&payload[..]));
    let end = codes[0].len() - 3;
    let moved = codes[0].split_off(end);
    codes[1].insert_str(20, &moved);
    assert_eq!(join(&codes), Err(JoinError::Distribution));
}

#[test]
fn white_space_around_a_text_counts_for_nothing() {
    let codes: Vec<String> = six().iter().map(|code| format!("\t{code} \r\n")).collect();
    assert_eq!(join(&codes).unwrap().len(), 6_000);
}

proptest! {
    #[test]
    fn what_is_split_is_joined_in_any_order(
        payload in prop::collection::vec(any::<u8>(), 1..PAYLOAD_MAX + 1),
        order in any::<prop::sample::Index>(),
        again in any::<prop::sample::Index>(),
    ) {
        let mut codes = split(&payload).unwrap();
        for code in &codes {
            prop_assert!(code.bytes().all(|byte| b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:".contains(&byte)));
            prop_assert!(code.len() <= 20 + 1_536);
        }
        let copy = codes[again.index(codes.len())].clone();
        let turn = order.index(codes.len());
        codes.rotate_left(turn);
        codes.push(copy);
        codes.reverse();
        prop_assert_eq!(join(&codes).unwrap(), payload);
    }

    #[test]
    fn one_code_less_or_one_letter_else_is_refused(
        payload in prop::collection::vec(any::<u8>(), 1..PAYLOAD_MAX + 1),
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        letter in "[0-9A-Z $%*+./:-]",
    ) {
        let codes = split(&payload).unwrap();
        let which = which.index(codes.len());
        let mut fewer = codes.clone();
        fewer.remove(which);
        prop_assert!(join(&fewer).is_err());
        let mut other = codes.clone();
        let at = at.index(other[which].len());
        other[which].replace_range(at..=at, &letter);
        // White space at an end is no letter of a code.
        prop_assert!(join(&other).is_err() || other[which].trim() == codes[which]);
    }
}

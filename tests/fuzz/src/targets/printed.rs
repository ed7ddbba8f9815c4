//! Texts of QR codes, as a reader hands them over line by line.
//!
//! Holds: what is joined is split into the same texts again, each of which was there; nothing is made up from a part of
//! them; and bytes that a page holds come back from the texts they are split into.

use bulla_page::codes::{PAYLOAD_MAX, join, split};
use std::collections::BTreeSet;

/// An input is the texts of codes, one a line; it is a payload, too.
pub fn run(data: &[u8]) {
    if let Ok(codes) = split(data) {
        assert!(join(&codes).is_ok_and(|payload| payload == data), "other bytes came back");
        assert!(codes.len() < 2 || join(&codes[1..]).is_err(), "a code was made up");
    } else {
        assert!(data.is_empty() || data.len() > PAYLOAD_MAX, "bytes that fit are refused");
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
    let Ok(payload) = join(&lines) else { return };
    let written: BTreeSet<String> = split(&payload).expect("it came from codes").into_iter().collect();
    let read: BTreeSet<String> = lines.iter().map(|line| line.trim_ascii().to_owned()).collect();
    assert_eq!(read, written, "texts that no page has");
}

/// One code, several, all that a page holds; and some that are not a page.
pub fn seeds() -> Vec<Vec<u8>> {
    let page = |length: usize| {
        let payload: Vec<u8> = (0..length).map(|at| (at * at % 251) as u8).collect();
        split(&payload).expect("a page holds it")
    };
    let (two, six) = (page(1_025), page(PAYLOAD_MAX));
    let mut turned = six.clone();
    turned.rotate_left(4);
    [
        page(1),
        page(300),
        two.clone(),
        vec![two[1].clone(), two[0].clone(), two[1].clone()],
        six.clone(),
        turned,
    ]
    .into_iter()
    .chain([vec![two[0].clone()], vec![two[0].clone(), six[1].clone()]])
    .map(|codes| codes.join("\n").into_bytes())
    .collect()
}

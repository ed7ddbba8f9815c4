//! Damage: files changed by chance, from a seed, in ways that reach every layer: bytes, JSON, base64, DER.
//!
//! Refuses to do: draw its own chance. The same seed does the same damage.
//! Invariant: whatever it makes, it says nothing of what a verifier should think of it.

use serde_json::Value;

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    /// One of these.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Values that sit on edges of what numbers may be.
const EDGES: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff];

/// Changes bytes without knowing what they are.
pub fn bytes(dice: &mut Dice, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        bytes.push(dice.roll() as u8);
        return;
    }
    let at = dice.below(bytes.len());
    let length = 1 + dice.below(1 + dice.clone().below(16)).min(bytes.len() - at - 1);
    match dice.below(8) {
        0 | 1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes[at] = *dice.one(&EDGES),
        3 => bytes[at] = dice.roll() as u8,
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(at..(at + length).min(bytes.len()))),
        6 => bytes.insert(at, dice.roll() as u8),
        _ => {
            let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
            let to = dice.below(bytes.len());
            bytes.splice(to..to, piece);
        }
    }
}

/// An element of DER: where it begins, how long its header is, where it ends.
type Element = (usize, usize, usize);

/// Every element that the bytes hold, outermost first. What is no DER holds none.
fn elements(bytes: &[u8], from: usize, to: usize, found: &mut Vec<Element>) {
    let mut at = from;
    while at + 2 <= to {
        let (header, length) = match bytes[at + 1] {
            short @ 0..=0x7f => (2, usize::from(short)),
            0x81 if at + 3 <= to => (3, usize::from(bytes[at + 2])),
            0x82 if at + 4 <= to => (4, usize::from(bytes[at + 2]) << 8 | usize::from(bytes[at + 3])),
            _ => return,
        };
        let end = at + header + length;
        if end > to {
            return;
        }
        found.push((at, header, end));
        // Constructed ones, and octets that hold DER of their own.
        if bytes[at] & 0x20 != 0 || bytes[at] == 4 && length > 8 {
            elements(bytes, at + header, end, found);
        }
        at = end;
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let header = match length {
        0..=0x7f => vec![tag, length as u8],
        0x80..=0xff => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [&header, content].concat()
}

/// Puts `piece` in the place of an element and corrects the lengths of all around it.
fn replaced(bytes: &[u8], all: &[Element], (at, _, end): Element, piece: &[u8]) -> Vec<u8> {
    let around = all.iter().rev().find(|(start, header, stop)| start + header <= at && end <= *stop);
    match around {
        None => [&bytes[..at], piece, &bytes[end..]].concat(),
        Some(&(start, header, stop)) => {
            let content = [&bytes[start + header..at], piece, &bytes[end..stop]].concat();
            let whole = element(bytes[start], &content);
            replaced(
                bytes,
                &all[..all.iter().position(|one| one.0 == start).unwrap_or(0)],
                (start, header, stop),
                &whole,
            )
        }
    }
}

/// Changes DER as one who knows it: an element's content, tag or length, one more, one less, another order.
pub fn der(dice: &mut Dice, der: &mut Vec<u8>) {
    let mut all = Vec::new();
    elements(der, 0, der.len(), &mut all);
    if all.is_empty() || dice.below(8) == 0 {
        return bytes(dice, der);
    }
    let chosen = *dice.one(&all);
    let (at, header, end) = chosen;
    let content = der[at + header..end].to_vec();
    let changed = match dice.below(10) {
        // A number or an enumeration of another value.
        0..=2 => {
            let length = *dice.one(&[1, 1, 1, 2, 8, 9]);
            let mut number: Vec<u8> = (0..length).map(|_| dice.roll() as u8).collect();
            number[0] = *dice.one(&EDGES);
            element(der[at], &number)
        }
        3 => {
            let mut content = content;
            bytes(dice, &mut content);
            element(der[at], &content)
        }
        4 => element(
            *dice.one(&[0x01, 0x02, 0x04, 0x05, 0x0a, 0x0c, 0x30, 0x31, 0x80, 0x81, 0xa0, 0xa1, 0xa2]),
            &content,
        ),
        5 => Vec::new(),
        6 => [&der[at..end], &der[at..end]].concat(),
        7 => {
            let other = *dice.one(&all);
            der[other.0..other.2].to_vec()
        }
        8 => {
            let mut long = vec![der[at], 0x82, (content.len() >> 8) as u8, content.len() as u8];
            long.extend_from_slice(&content);
            long
        }
        _ => element(
            der[at],
            &vec![b'a'; *dice.one(&[0, 1, 31, 32, 33, 64, 65, 128, 129, 255, 256, 1024, 1025])],
        ),
    };
    *der = replaced(der, &all, chosen, &changed);
}

/// All places of a JSON value.
fn places(value: &Value, here: &mut Vec<String>, found: &mut Vec<String>) {
    found.push(here.concat());
    let mut step = |name: String, inner: &Value, found: &mut Vec<String>| {
        here.push(format!("/{}", name.replace('~', "~0").replace('/', "~1")));
        places(inner, here, found);
        here.pop();
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, inner)| step(name.clone(), inner, found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, inner)| step(at.to_string(), inner, found))
        }
        _ => {}
    }
}

/// Changes a JSON file as one who knows what is in it; `other` is a file to take pieces from.
pub fn json(dice: &mut Dice, file: &[u8], other: &[u8]) -> Vec<u8> {
    let (Ok(mut value), Ok(donor)) =
        (serde_json::from_slice::<Value>(file), serde_json::from_slice::<Value>(other))
    else {
        let mut file = file.to_vec();
        bytes(dice, &mut file);
        return file;
    };
    let mut all = Vec::new();
    places(&value, &mut Vec::new(), &mut all);
    let place = dice.one(&all).clone();
    let from_donor = donor.pointer(&place).cloned();
    let from_here = value.pointer(dice.one(&all).as_str()).cloned();
    let Some(here) = value.pointer_mut(&place) else { return file.to_vec() };
    match (dice.below(6), &mut *here) {
        (0, _) => *here = from_donor.or(from_here).unwrap_or(Value::Null),
        (1, _) => *here = from_here.unwrap_or(Value::Null),
        (_, Value::String(text)) => *text = string(dice, text),
        (_, Value::Number(_)) => *here = number(dice),
        (_, Value::Bool(flag)) => *flag = !*flag,
        (_, Value::Null) => *here = Value::Bool(false),
        (2, Value::Array(items)) if !items.is_empty() => drop(items.remove(dice.below(items.len()))),
        (3, Value::Array(items)) if !items.is_empty() => items.push(items[dice.below(items.len())].clone()),
        (_, Value::Array(items)) if items.len() > 1 => {
            let (one, two) = (dice.below(items.len()), dice.below(items.len()));
            items.swap(one, two);
        }
        (_, Value::Array(items)) => items.push(from_here.unwrap_or(Value::Null)),
        (2 | 3, Value::Object(members)) => {
            let names: Vec<String> = members.keys().cloned().collect();
            if !names.is_empty() {
                members.remove(dice.one(&names));
            }
        }
        (4, Value::Object(members)) => {
            members.insert("more".to_owned(), from_here.unwrap_or(Value::Null));
        }
        (_, Value::Object(members)) => {
            let taken = donor.as_object().map(|donor| donor.iter().collect::<Vec<_>>()).unwrap_or_default();
            if !taken.is_empty() {
                let (name, inner) = dice.one(&taken);
                members.insert((*name).clone(), (*inner).clone());
            }
        }
    }
    value.to_string().into_bytes()
}

fn number(dice: &mut Dice) -> Value {
    let spelling = *dice.one(&[
        "0",
        "1",
        "2",
        "8",
        "9",
        "23",
        "24",
        "-1",
        "1.0",
        "1e3",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1e308",
        "-0",
    ]);
    serde_json::from_str(spelling).unwrap_or(Value::Null)
}

fn string(dice: &mut Dice, text: &str) -> String {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    // A note, a hash of hex, a name: its own letters. Base64: mostly what is in it.
    if let Ok(mut inside) = BASE64_STANDARD.decode(text)
        && text.len() > 64
        && dice.below(8) > 0
    {
        for _ in 0..1 + dice.below(2) {
            der(dice, &mut inside);
        }
        return BASE64_STANDARD.encode(inside);
    }
    let mut letters = text.as_bytes().to_vec();
    bytes(dice, &mut letters);
    String::from_utf8_lossy(&letters).into_owned()
}

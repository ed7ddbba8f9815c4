//! Replies of time-stamping authorities, their root certificates, and names of policies.
//!
//! Holds: a stamp that verifies under the roots of a vector says what the genuine stamp said; certificates that are
//! taken for roots are kept as they were; an object identifier has one spelling.

use super::{seed, split};
use bulla_formats::json::base64_decode;
use bulla_timestamps::{Authority, Expected, Oid, Reply, TimeStamp, certificates_in_pem, verify};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CHOICES: u8 = 4;

/// One of `tests/vectors-timestamps`.
struct Vector {
    authority: Authority,
    expected: Expected,
    reply: Vec<u8>,
}

static VECTORS: LazyLock<Vec<Vector>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors-timestamps");
    let listing = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = listing.map(|entry| entry.expect("it can be listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| read(&fs::read(path).expect("it is there"))).collect()
});

/// What any reply of the vectors says under the roots of any of them. What was damaged to make a vector is among them
/// undamaged: an input may undo the damage.
static GENUINE: LazyLock<Vec<TimeStamp>> = LazyLock::new(|| {
    let judged = |vector: &'static Vector| {
        VECTORS.iter().filter_map(|other| verify(&other.reply, &vector.expected, &vector.authority).ok())
    };
    VECTORS.iter().flat_map(judged).collect()
});

fn read(text: &[u8]) -> Vector {
    let vector: Value = serde_json::from_slice(text).expect("vectors are JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let list = |name: &str| vector[name].as_array().expect("a list").iter().map(text).collect::<Vec<_>>();
    let bytes = |text: &String| base64_decode(text).expect("base64");
    let roots: Vec<Vec<u8>> = list("roots").iter().map(bytes).collect();
    let imprint = hex::decode(text(&vector["imprint"])).expect("hex").try_into().expect("32 bytes");
    let authority = Authority::new(&roots, vec![]).expect("usable roots");
    let expected = Expected { imprint, nonce: None };
    let reply = bytes(&text(&vector["reply"]));
    Vector { authority, expected, reply }
}

/// The first byte chooses what is read; of a reply, the second one under whose roots.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    match choice {
        0 => {
            let Some((&which, reply)) = data.split_first() else { return };
            let vector = &VECTORS[usize::from(which) % VECTORS.len()];
            if let Ok(read) = Reply::decode(reply) {
                assert!(read.stamp.len() < reply.len());
            }
            let Ok(stamp) = verify(reply, &vector.expected, &vector.authority) else { return };
            assert!(GENUINE.contains(&stamp), "a stamp that nobody made: {stamp:?}");
            assert!(stamp.earliest_micros() < stamp.latest_micros());
        }
        1 => {
            let Ok(authority) = Authority::new(&[data.to_vec()], vec![]) else { return };
            assert!(authority.roots().eq([data]));
        }
        2 => {
            let Ok(certificates) = certificates_in_pem(data) else { return };
            assert!(certificates.iter().map(Vec::len).sum::<usize>() <= data.len());
        }
        _ => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Ok(oid) = Oid::parse(text) else { return };
            assert_eq!(oid.to_string(), text, "an object identifier has one spelling");
        }
    }
}

/// Every vector, its roots, and policies.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, vector) in VECTORS.iter().enumerate() {
        let which = u8::try_from(which).expect("there are fewer than 256 vectors");
        seeds.push(seed(0, [&[which], &vector.reply[..]].concat()));
        seeds.extend(vector.authority.roots().take(1).map(|root| seed(1, root)));
    }
    let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
    seeds.push(seed(2, format!("some words\n{pem}{pem}")));
    seeds.extend(["1.3.6.1.4.1.32473.1.1", "2.999.1", "0.4.0.2023.1.1"].map(|oid| seed(3, oid)));
    seeds
}

//! Replies of time-stamping authorities, their root certificates, CRLs, names of policies; and requests for time stamps.
//!
//! Holds: a stamp that verifies under the roots of a vector says what the genuine stamp said; a CRL that verifies is one
//! that its issuer signed; certificates that are taken for roots are kept as they were; an object identifier has one
//! spelling; a request that is taken is as long as its hash wants and holds what is echoed of it, one that is not gets a
//! rejection with its reason.

use super::{seed, split};
use bulla_formats::anchoring;
use bulla_formats::body::anchor::{AnchorBody, Evidence};
use bulla_formats::json::base64_decode;
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_timestamps::responder::{ImprintHash, QUERY_BYTES_MAX, Query, rejected};
use bulla_timestamps::{
    Authority, Crl, Expected, Oid, Reply, ReplyError, Request, TimeStamp, Use, certificates_in_pem, standing,
    verify,
};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CHOICES: u8 = 6;

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

/// CRLs of `tests/vectors`, and a stamp whose signer some of them list.
struct Crls {
    stamp: TimeStamp,
    all: Vec<Vec<u8>>,
    verified: Vec<Vec<u8>>,
}

static CRLS: LazyLock<Crls> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let file = |name: &str, file: &str| fs::read(directory.join(name).join(file)).expect("it is there");
    let anchored = SealFile::decode(&file("valid-crl-good", "document.seal")).expect("a vector");
    let trust = TrustFile::decode(&file("valid-crl-good", "trust.json")).expect("a vector");
    let body = AnchorBody::decode(&anchored.anchors[0].body).expect("a vector");
    let Evidence::Timestamp(reply) = &body.proofs[0].evidence else { panic!("the vector has a stamp") };
    let known = trust.authorities.as_ref().and_then(|all| all.tsa(&body.proofs[0].operator));
    let stamp = anchoring::stamp(&body, reply, &known.expect("it is trusted").authority).expect("it holds");
    let listing = fs::read_dir(&directory).expect("it can be listed");
    let names = listing.map(|entry| entry.expect("it can be listed").path()).filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("valid-crl") || name.starts_with("revocation-status-")
    });
    let crls = |path: std::path::PathBuf| {
        let seal = fs::read(path.join("document.seal")).expect("it is there");
        SealFile::decode(&seal).map_or(Vec::new(), |file| file.crls)
    };
    let mut all: Vec<_> = names.flat_map(crls).collect();
    all.sort();
    all.dedup();
    let holds = |der: &&Vec<u8>| verifies(&stamp, der);
    let verified = all.iter().filter(holds).cloned().collect();
    Crls { verified, stamp, all }
});

/// Whether it is signed by a CA behind the stamp.
fn verifies(stamp: &TimeStamp, der: &[u8]) -> bool {
    Crl::read(der).is_ok_and(|crl| standing(stamp, &[crl]).1 == [Use::Verified])
}

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
        3 => {
            let crls = &*CRLS;
            if let Ok(crl) = Crl::read(data) {
                assert!(crl.this_update_micros() <= crl.next_update_micros());
            }
            assert!(
                !verifies(&crls.stamp, data) || crls.verified.iter().any(|known| known == data),
                "nobody signed it"
            );
        }
        4 => {
            let Ok(text) = std::str::from_utf8(data) else { return };
            let Ok(oid) = Oid::parse(text) else { return };
            assert_eq!(oid.to_string(), text, "an object identifier has one spelling");
        }
        _ => asked(data),
    }
}

/// A request for a time stamp.
fn asked(data: &[u8]) {
    let query = match Query::decode(data) {
        Ok(query) => query,
        Err(error) => {
            let reply = rejected(error.failure(), &error.to_string());
            let Err(ReplyError::Rejected(read)) = Reply::decode(&reply) else {
                panic!("{error} is no rejection")
            };
            return assert_eq!((read.failure, read.text), (Some(error.failure()), error.to_string()));
        }
    };
    let length = match query.imprint.hash {
        ImprintHash::Sha256 => 32,
        ImprintHash::Sha384 => 48,
        ImprintHash::Sha512 => 64,
    };
    assert!(data.len() <= QUERY_BYTES_MAX && query.imprint.value.len() == length);
    assert!(data.windows(length).any(|window| window == query.imprint.value), "what is echoed was in it");
}

/// Every vector, its roots, CRLs, policies, and what the box itself asks.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, vector) in VECTORS.iter().enumerate() {
        let which = u8::try_from(which).expect("there are fewer than 256 vectors");
        seeds.push(seed(0, [&[which], &vector.reply[..]].concat()));
        seeds.extend(vector.authority.roots().take(1).map(|root| seed(1, root)));
    }
    let pem = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
    seeds.push(seed(2, format!("some words\n{pem}{pem}")));
    seeds.extend(CRLS.all.iter().map(|crl| seed(3, crl)));
    seeds.extend(["1.3.6.1.4.1.32473.1.1", "2.999.1", "0.4.0.2023.1.1"].map(|oid| seed(4, oid)));
    let policy = Oid::parse("1.2.3.4.1").expect("an object identifier");
    seeds.extend([None, Some(policy)].map(|policy| seed(5, Request::new([7; 32], 1 << 62, policy).encode())));
    seeds
}

//! What scanners send beside a document: header fields, queries, orders by digest, bulk requests.
//!
//! Holds: digests have their algorithm's length and come once; a description keeps every value, under a fresh salt;
//! the same request has the same fingerprint; a page has a length and a time before its end.

use super::{seed, split};
use bulla_box::fuzzing::{
    announced, bearer, bulk_digests, described_by_fields, described_by_json, idempotency_key, order_query,
    search_query,
};
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, Opening};
use bulla_formats::hash::Hash;

const CHOICES: u8 = 8;
/// Header fields that an input gives a value to, by its first byte.
const FIELDS: [&str; 9] = [
    "content-type",
    "bulla-user",
    "bulla-document-id",
    "bulla-metadata",
    "bulla-supersedes",
    "bulla-derived-from",
    "bulla-annuls",
    "content-digest",
    "idempotency-key",
];

/// Lines of a letter and a value.
fn fields(data: &[u8]) -> Vec<(&'static str, &[u8])> {
    data.split(|byte| *byte == b'\n')
        .filter_map(|line| line.split_first())
        .map(|(letter, value)| (FIELDS[usize::from(*letter) % FIELDS.len()], value))
        .collect()
}

fn value(digest: &DocumentDigest) {
    assert_eq!(digest.value.len(), digest.algorithm.digest_bytes());
}

/// The same description, read twice: equal but for the salts.
fn same((one, fingerprint): &(Vec<Opening>, Hash), (two, other): &(Vec<Opening>, Hash)) {
    assert_eq!(fingerprint, other, "one request, two fingerprints");
    let said = |openings: &[Opening]| -> Vec<_> {
        openings.iter().map(|opening| (opening.field, opening.name.clone(), opening.value.clone())).collect()
    };
    assert_eq!(said(one), said(two));
    for (at, opening) in one.iter().enumerate() {
        assert!(two.iter().chain(&one[..at]).all(|other| other.salt != opening.salt), "a salt comes twice");
    }
}

/// The first byte chooses what is read.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    let text = std::str::from_utf8(data);
    let document = DocumentDigest { algorithm: DigestAlgorithm::Sha256, value: vec![7; 32], size: Some(1) };
    match (choice, text) {
        (0, _) => {
            let Some(digests) = announced(&fields(data)) else { return };
            for (at, (algorithm, value)) in digests.iter().enumerate() {
                assert_eq!(value.len(), algorithm.digest_bytes());
                assert!(digests[..at].iter().all(|(other, _)| other != algorithm), "two of one algorithm");
            }
        }
        (1, _) => {
            let read = || described_by_fields(&fields(data), &document);
            if let (Some(one), Some(two)) = (read(), read()) {
                same(&one, &two);
            }
        }
        (2, _) => {
            let Some((digest, one)) = described_by_json(data) else { return };
            value(&digest);
            let (again, two) = described_by_json(data).expect("it was read a moment ago");
            assert_eq!(digest, again);
            same(&one, &two);
        }
        (3, _) => {
            let Some(Some(key)) = idempotency_key(&fields(data)) else { return };
            assert!((1..=255).contains(&key.len()) && key.iter().all(|byte| (b' '..=b'~').contains(byte)));
        }
        (4, Ok(text)) => drop(order_query(text)),
        (5, Ok(text)) => {
            let Some((times, _, limit)) = search_query(text) else { return };
            assert!((1..=500).contains(&limit) && times.is_none_or(|times| times.start < times.end));
        }
        (6, _) => {
            let Some(digests) = bulk_digests(data) else { return };
            assert!((1..=1000).contains(&digests.len()));
            digests.iter().flatten().for_each(value);
        }
        (_, Ok(text)) => {
            let Some(token) = bearer(text) else { return };
            assert!(!token.is_empty() && text.ends_with(token) && text.len() == token.len() + 7);
        }
        (_, Err(_)) => {}
    }
}

/// One or two of each.
pub fn seeds() -> Vec<Vec<u8>> {
    let letter = |name: &str| FIELDS.iter().position(|field| *field == name).unwrap_or(0) as u8;
    let field = |name: &str, value: &str| [&[letter(name)], value.as_bytes(), b"\n"].concat();
    let digest = "sha-256=:RYZwGdFKNLTlrBpPzEbXXjSn6JvTmxwIwDCVSxrwaqE=:, md5=:AAAA:";
    let leaf = "ab".repeat(32);
    let described = [
        field("content-type", "application/pdf; x=1"),
        field("bulla-user", "J%C3%BCrgen"),
        field("bulla-document-id", "contract-7"),
        field("bulla-metadata", "file%20name=scan.pdf"),
        field("bulla-metadata", "branch=7"),
        field("bulla-supersedes", "12-0011223344556677"),
        field("bulla-annuls", &leaf),
    ];
    let order = format!(
        "{{\"algorithm\":\"sha-256\",\"digest\":\"{leaf}\",\"size\":5,\"mediaType\":\"text/plain\",\"user\":\"u\",\
         \"documentId\":\"d\",\"metadata\":{{\"a\":\"b\"}},\"supersedes\":[\"{leaf}\"],\"derivedFrom\":[],\"annuls\":[]}}"
    );
    let bulk = format!(
        "{{\"digests\":[{{\"algorithm\":\"sha-256\",\"digest\":\"{leaf}\"}},{{\"algorithm\":\"md5\",\"digest\":\"00\"}}]}}"
    );
    vec![
        seed(0, field("content-digest", digest)),
        seed(1, described.concat()),
        seed(2, order),
        seed(3, field("idempotency-key", "scan 17")),
        seed(4, "wait=attested&deadlineSeconds=5&digest=sha3-256"),
        seed(5, format!("digest=sha-256:{leaf}&user=u%20v&limit=10&cursor=b1-1f")),
        seed(5, "documentId=d&client=desk-1&from=1&to=1795219200123"),
        seed(6, bulk),
        seed(7, "Bearer bulla_abc"),
    ]
}

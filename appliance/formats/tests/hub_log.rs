//! `tests/vectors-hub/`: entries of hubs' logs and submissions to their witnesses, and bytes that must be refused, made here
//! and read back.
//!
//! The same source makes the same bytes; `BULLA_WRITE_VECTORS=1 cargo test -p bulla-formats --test hub_log` writes them.
//! Every expectation is in the name of the file: what is read, `valid` or `refused`, then what is special.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_formats::hash::{Hash, sha256};
use bulla_formats::hub_log::{HUB_ENTRY_BYTES_MAX, HubEntry, HubKind, QueriesHead};
use bulla_formats::json::base64_encode;
use bulla_formats::note::{SignedNote, checkpoint_text, log_line};
use bulla_formats::witness::add_checkpoint::{REQUEST_BYTES_MAX, Submission, request};
use bulla_formats::witness::{WitnessKey, cosigned};
use ed25519_dalek::{Signer as _, SigningKey};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

const ORIGIN: &str = "bank.example/abababababababababababababababababababab/1";
const NOW: u64 = 1_790_000_000_000;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-hub")
}

fn note(size: u64) -> SignedNote {
    let key = SigningKey::from_bytes(&[4; 32]);
    let text = checkpoint_text(ORIGIN, size, &sha256(&[b"root"]));
    let signature = key.sign(text.as_bytes()).to_bytes();
    SignedNote { lines: vec![log_line(ORIGIN, key.verifying_key().as_bytes(), &signature)], text }
}

fn by_hub(note: &SignedNote) -> SignedNote {
    let secret = SigningKey::from_bytes(&[5; 32]);
    let key = WitnessKey::new("hub.example/north/witness", secret.verifying_key().to_bytes()).unwrap();
    let line = key.line(NOW / 1_000, &secret.sign(&cosigned(&note.text, NOW / 1_000)).to_bytes());
    HubEntry::own_lines(note, &[line])
}

fn entries() -> BTreeMap<&'static str, Vec<u8>> {
    let archived = HubEntry::head(HubKind::Archived, NOW, &note(4_711));
    let list = QueriesHead { count: 3, hash: sha256(&[b"line"]) };
    let queries = HubEntry::queries(NOW, &list);
    let with = |change: &dyn Fn(&mut HubEntry)| {
        let mut entry = archived.clone();
        change(&mut entry);
        entry.encode()
    };
    let said = |change: &dyn Fn(String) -> String| {
        let text = change(String::from_utf8(archived.statement.to_vec()).unwrap());
        with(&|entry| entry.statement = text.clone().into_bytes().into())
    };
    let listed = |text: String| HubEntry { statement: text.into_bytes().into(), ..queries.clone() }.encode();
    let good = archived.encode();
    BTreeMap::from([
        ("entry--valid--archived", good.clone()),
        ("entry--valid--cosigned", HubEntry::head(HubKind::Cosigned, NOW, &by_hub(&note(4_711))).encode()),
        ("entry--valid--queries", queries.encode()),
        ("entry--valid--empty-log", HubEntry::head(HubKind::Archived, 0, &note(0)).encode()),
        ("entry--refused--empty", Vec::new()),
        ("entry--refused--cut-short", good[..good.len() - 1].to_vec()),
        ("entry--refused--trailing-byte", [good.clone(), vec![0]].concat()),
        ("entry--refused--too-long", vec![0x30; HUB_ENTRY_BYTES_MAX + 1]),
        ("entry--refused--version-2", with(&|entry| entry.version = 2)),
        ("entry--refused--time-above-the-limit", with(&|entry| entry.recorded_at = 1 << 63)),
        ("entry--refused--head-as-queries", with(&|entry| entry.kind = HubKind::Queries)),
        ("entry--refused--queries-as-head", HubEntry { kind: HubKind::Archived, ..queries.clone() }.encode()),
        ("entry--refused--no-statement", with(&|entry| entry.statement = Vec::new().into())),
        ("entry--refused--no-text", with(&|entry| entry.statement = vec![0xff; 30].into())),
        (
            "entry--refused--note-without-lines",
            said(&|text| text.split("\n\n").next().unwrap().to_owned() + "\n"),
        ),
        ("entry--refused--note-with-a-line-feed-more", said(&|text| text + "\n")),
        ("entry--refused--size-with-a-zero", said(&|text| text.replacen("\n4711\n", "\n04711\n", 1))),
        ("entry--refused--four-lines", said(&|text| text.replacen("\n4711\n", "\n4711\nmore\n", 1))),
        ("entry--refused--no-queries", listed(QueriesHead { count: 0, ..list }.text())),
        ("entry--refused--queries-above-the-limit", listed(QueriesHead { count: 1 << 63, ..list }.text())),
        ("entry--refused--queries-with-a-zero", listed(list.text().replacen("\n3\n", "\n03\n", 1))),
        ("entry--refused--queries-of-another-version", listed(list.text().replacen("/v1", "/v2", 1))),
        (
            "entry--refused--queries-with-a-short-hash",
            listed(format!("bulla/hub-queries/v1\n3\n{}\n", base64_encode(&[1; 31]))),
        ),
    ])
}

fn submissions() -> BTreeMap<&'static str, Vec<u8>> {
    let proof = [sha256(&[b"one"]), sha256(&[b"two"])];
    let good = request(4_000, &proof, &note(4_711)).unwrap();
    let text = |change: &dyn Fn(&str) -> String| change(&good).into_bytes();
    let zero = Hash([0; 32]);
    let hash = format!("{}\n", base64_encode(&zero.0));
    BTreeMap::from([
        ("submission--valid--", good.clone().into_bytes()),
        ("submission--valid--first", request(0, &[], &note(1)).unwrap().into_bytes()),
        ("submission--valid--once-more", request(4_711, &[], &note(4_711)).unwrap().into_bytes()),
        ("submission--valid--63-hashes", request(1, &[zero; 63], &note(9)).unwrap().into_bytes()),
        ("submission--refused--empty", Vec::new()),
        ("submission--refused--too-long", vec![b'o'; REQUEST_BYTES_MAX + 1]),
        (
            "submission--refused--no-utf-8",
            [b"old 0\n\n\xff".to_vec(), note(1).encode().into_bytes()].concat(),
        ),
        (
            "submission--refused--64-hashes",
            format!("old 1\n{}\n{}", hash.repeat(64), note(9).encode()).into_bytes(),
        ),
        ("submission--refused--without-old", text(&|good| good.replacen("old ", "", 1))),
        ("submission--refused--old-in-capitals", text(&|good| good.replacen("old", "Old", 1))),
        ("submission--refused--old-with-a-zero", text(&|good| good.replacen("old 4", "old 04", 1))),
        ("submission--refused--old-with-a-sign", text(&|good| good.replacen("old 4", "old +4", 1))),
        (
            "submission--refused--old-beyond-the-checkpoint",
            text(&|good| good.replacen("old 4000", "old 4712", 1)),
        ),
        (
            "submission--refused--old-above-the-limit",
            text(&|good| good.replacen("4000", "9223372036854775808", 1)),
        ),
        (
            "submission--refused--hash-of-31-bytes",
            format!("old 1\n{}\n\n{}", base64_encode(&[1; 31]), note(9).encode()).into_bytes(),
        ),
        ("submission--refused--hash-without-padding", text(&|good| good.replacen("=\n", "\n", 1))),
        ("submission--refused--carriage-returns", text(&|good| good.replace('\n', "\r\n"))),
        ("submission--refused--no-empty-line", text(&|good| good.replacen("\n\n", "\n", 1))),
        (
            "submission--refused--no-lines",
            text(&|good| good.rsplit_once("\n\n").unwrap().0.to_owned() + "\n"),
        ),
        ("submission--refused--last-line-not-ended", text(&|good| good.trim_end().to_owned())),
        ("submission--refused--size-with-a-zero", text(&|good| good.replacen("\n4711\n", "\n04711\n", 1))),
        ("submission--refused--four-lines", text(&|good| good.replacen("\n4711\n", "\n4711\nmore\n", 1))),
    ])
}

#[test]
fn g6_every_vector_of_hubs_is_judged_as_its_name_says() {
    let all: BTreeMap<&str, Vec<u8>> = entries().into_iter().chain(submissions()).collect();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in &all {
            fs::write(directory().join(format!("{name}.bin")), bytes).unwrap();
        }
    }
    let mut names: Vec<String> = fs::read_dir(directory())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap().trim_end_matches(".bin").to_owned())
        .collect();
    names.sort();
    assert_eq!(names, all.keys().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let mut refused = 0;
    for (name, made) in &all {
        let bytes = fs::read(directory().join(format!("{name}.bin"))).unwrap();
        assert_eq!(&bytes, made, "{name}: the source makes other bytes");
        let taken = if name.starts_with("entry") {
            HubEntry::decode(&bytes).is_ok_and(|entry| entry.encode() == bytes)
        } else {
            Submission::parse(&bytes).is_ok()
        };
        assert_eq!(taken, name.contains("--valid--"), "{name}");
        refused += usize::from(!taken);
    }
    assert!(refused > all.len() / 2, "{refused}");
}

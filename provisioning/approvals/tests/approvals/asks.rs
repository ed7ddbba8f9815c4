//! `tests/vectors-ask/`: what boxes ask for, and files that must be refused, made here and read back; `BULLA_WRITE_VECTORS=1`
//! writes them. The name before the two hyphens is what comes of it.

use crate::common::{FLEET, NOW, action, approved, electorate, history};
use bulla_approvals::Refusal;
use bulla_approvals::action::{Action, Change, Kind, Target};
use bulla_approvals::at_box::{ASK_BYTES_MAX, Ask, BoxAction, Retire};
use bulla_formats::der::Octets32;
use bulla_formats::retirement::Extent;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors-ask")
}

fn target() -> Target {
    let origin = format!("{FLEET}/{}/1", "0f".repeat(20));
    Target { origin, size: 9, root: Octets32::new([1; 32]), nonce: Octets32::new([2; 32]) }
}

fn retire(extent: Extent, without: bool) -> BoxAction {
    BoxAction::Retire(Retire { extent, without_anchors: without, without_copies: without })
}

fn ask(action: &BoxAction) -> Ask {
    Ask { version: 1, target: target(), parameters: action.encode().into() }
}

fn all() -> BTreeMap<&'static str, Vec<u8>> {
    let good = ask(&retire(Extent::KeepLog, false));
    let with = |change: &dyn Fn(&mut Ask)| {
        let mut ask = good.clone();
        change(&mut ask);
        ask.encode()
    };
    let parameters = |bytes: &[u8]| with(&|ask| ask.parameters = bytes.to_vec().into());
    let (bytes, whole) = (good.encode(), retire(Extent::KeepLog, false).encode());
    let spelled = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        parameters(&bytes)
    };
    BTreeMap::from([
        ("valid--keep-log", bytes.clone()),
        ("valid--everything-without-anchors-and-copies", ask(&retire(Extent::Everything, true)).encode()),
        ("malformed--empty", Vec::new()),
        ("malformed--cut-short", bytes[..bytes.len() - 1].to_vec()),
        ("malformed--trailing-byte", [&bytes[..], &[0]].concat()),
        ("malformed--too-long", vec![0x30; ASK_BYTES_MAX + 1]),
        ("malformed--version-2", with(&|ask| ask.version = 2)),
        ("malformed--empty-log", with(&|ask| ask.target.size = 0)),
        ("malformed--size-above-the-limit", with(&|ask| ask.target.size = 1 << 63)),
        ("malformed--no-origin", with(&|ask| ask.target.origin = FLEET.to_owned())),
        ("malformed--no-parameters", parameters(&[])),
        ("malformed--another-action", spelled(0, 0xa1)),
        // 0xa0, length, 0x30, length, 0x0a, 1, extent, 0x01, 1, FALSE, 0x01, 1, FALSE.
        ("malformed--extent-2", spelled(6, 2)),
        ("malformed--true-as-one", spelled(9, 1)),
        ("malformed--parameters-with-a-trailing-byte", parameters(&[&whole[..], &[0]].concat())),
        ("malformed--parameters-without-copies", parameters(&whole[..whole.len() - 3])),
    ])
}

#[test]
fn every_ask_is_judged_as_its_name_says() {
    let made = all();
    if std::env::var_os("BULLA_WRITE_VECTORS").is_some() {
        let _absent = fs::remove_dir_all(directory());
        fs::create_dir_all(directory()).unwrap();
        for (name, bytes) in &made {
            fs::write(directory().join(name), bytes).unwrap();
        }
    }
    let mut read = BTreeMap::new();
    for entry in fs::read_dir(directory()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let bytes = fs::read(entry.path()).unwrap();
        let judged = Ask::decode(&bytes);
        let found = judged.as_ref().map_or_else(|refusal| refusal.code(), |_| "valid");
        assert_eq!(found, name.split("--").next().unwrap(), "{name}: {judged:?}");
        if let Ok(ask) = judged {
            assert_eq!(ask.encode(), bytes);
            assert_eq!(ask.action().unwrap().encode()[..], ask.parameters[..]);
        }
        read.insert(name, bytes);
    }
    let made: BTreeMap<String, Vec<u8>> =
        made.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
    assert!(read == made, "the files are what this source makes");
}

/// M people decide what a box does, in the state that it named, and it makes no version of a roster.
#[test]
fn what_a_box_carries_out_is_for_that_box_and_consumes_no_version() {
    let (record, _) = history();
    let ask = ask(&retire(Extent::KeepLog, false));
    let of_box = |target: Target| Action {
        target: Some(target),
        parameters: ask.parameters.clone(),
        ..action(&record, Kind::Box)
    };
    let change = approved(&of_box(target()), &["olga", "oya"]);
    let judge =
        |change: &Change, target: &Target| record.judge(change, &electorate(), Some(target), Some(NOW));
    let judged = judge(&change, &ask.target).unwrap();
    assert_eq!(judged.by(), ["olga", "oya"]);
    assert_eq!(record.clone().consume(&judged), Err(Refusal::OtherTarget));
    let others = [
        Target { origin: target().origin.replace("/1", "/2"), ..target() },
        Target { size: 10, ..target() },
        Target { root: Octets32::new([9; 32]), ..target() },
        Target { nonce: Octets32::new([9; 32]), ..target() },
    ];
    for other in others {
        assert_eq!(judge(&change, &other), Err(Refusal::OtherTarget));
        let theirs = approved(&of_box(other), &["olga", "omar"]);
        assert_eq!(judge(&theirs, &ask.target), Err(Refusal::OtherTarget));
    }
    let alone = approved(&of_box(target()), &["omar"]);
    assert_eq!(judge(&alone, &ask.target), Err(Refusal::NotEnough { got: 1, needed: 2 }));
    let late = record.judge(&change, &electorate(), Some(&ask.target), Some(NOW + 1_001));
    assert_eq!(late, Err(Refusal::Expired(NOW + 1_000)));
}

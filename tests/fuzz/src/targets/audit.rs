//! A log entry by entry, as `fsck` and a start after a crash see it.
//!
//! Holds: the tree is that of the bytes handed in, whatever they are; an entry called sound was signed by a box of the
//! vectors; what is counted adds up.

use super::split;
use crate::genuine::{SEALS, SIGNED, TRUST};
use bulla_formats::audit::LogAuditor;
use bulla_formats::hash::{Hash, leaf_hash};
use bulla_formats::merkle::Frontier;
use bulla_formats::origin::Origin;

/// The first byte chooses the log, the second whether there is a trust file; then entries, each behind its length.
/// An entry of 32 bytes stands for one whose bytes are lost.
pub fn run(data: &[u8]) {
    let Some((log, data)) = split(data, u8::MAX) else { return };
    let Some((trusting, mut rest)) = split(data, 2) else { return };
    let (_, seal) = &SEALS[usize::from(log) % SEALS.len()];
    let origin = Origin::parse(&seal.origin).expect("it was verified");
    let mut auditor = LogAuditor::new(origin, (trusting == 1).then_some(&*TRUST));
    let mut tree = Frontier::new();
    let mut sound = 0;
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let Some((entry, tail)) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length))) else {
            break;
        };
        rest = tail;
        if let Some(lost) = Hash::from_slice(entry) {
            auditor.skip(lost);
            tree.append(lost);
            continue;
        }
        tree.append(leaf_hash(entry));
        let Ok(judged) = auditor.entry(entry) else { continue };
        sound += 1;
        assert_eq!(judged.bytes(), entry);
        assert_eq!(judged.content().index + 1, tree.size());
        // Without a trust file anybody may be a fleet.
        assert!(trusting == 0 || SIGNED.leaves.contains(&judged.leaf_hash()), "sound, and nobody signed it");
    }
    let summary = auditor.summary();
    assert_eq!((auditor.size(), auditor.root()), (tree.size(), tree.root()));
    assert_eq!((summary.entries, summary.kinds.values().sum::<u64>()), (tree.size(), sound));
    assert!(summary.attested_size <= tree.size());
}

fn entry(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(0);
    [&length.to_be_bytes(), &bytes[..usize::from(length)]].concat()
}

/// The beginning of each log of the vectors, as far as a seal holds it.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, (_, seal)) in SEALS.iter().enumerate().step_by(4) {
        let Ok(at) = u8::try_from(at) else { break };
        for trusting in [0, 1] {
            let lost = entry(&[9; 32]);
            seeds.push([&[at, trusting], &entry(&seal.epoch)[..], &entry(&seal.entry), &lost].concat());
        }
    }
    seeds
}

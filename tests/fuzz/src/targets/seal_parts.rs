//! One part of a genuine `.seal` replaced by the input: a bit-exact test of what the evidence covers.
//!
//! Holds: with another token, key-epoch entry, enrolment, time evidence or path than the genuine one nothing verifies;
//! with another checkpoint, opening, erasure or manifest only what a box has signed, or committed to, does. A verifier
//! that remembers the genuine seal says the same as one that has seen nothing.

use crate::genuine::{SEALS, SIGNED, TRUST};
use bulla_formats::hash::leaf_hash;
use bulla_formats::seal_file::{Placed, SealFile};
use bulla_formats::verify::{Verifier, verify};

const PARTS: u8 = 14;

fn hashes(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.chunks(32).map(<[u8]>::to_vec).collect()
}

fn part(file: &SealFile, part: u8) -> Option<Vec<u8>> {
    let (erasure, anchor, manifest) = (file.erasures.first(), file.anchors.first(), file.manifests.first());
    let head = file.heads.first()?;
    match part {
        0 => Some(file.entry.clone()),
        1 => Some(file.epoch.clone()),
        2 => Some(file.enrolment.clone()),
        3 => Some(head.checkpoint.clone().into_bytes()),
        4 => Some(head.entry_proof.concat()),
        5 => Some(head.epoch_proof.concat()),
        6 => file.openings.first().cloned(),
        7 => erasure.map(|erasure| erasure.entry.clone()),
        8 => erasure.map(|erasure| erasure.entry_proof.concat()),
        9 => anchor.map(|anchor| anchor.body.clone()),
        10 => anchor.map(|anchor| anchor.entry_proof.concat()),
        11 => file.evidence.clone(),
        12 => manifest.map(|manifest| manifest.entry.clone()),
        _ => manifest.map(|manifest| manifest.entry_proof.concat()),
    }
}

/// Puts the input into the file; `None` when there is no place for it.
fn replaced(mut file: SealFile, part: u8, bytes: &[u8]) -> Option<SealFile> {
    let head = file.heads.first_mut()?;
    let erasure: Option<&mut Placed> = file.erasures.first_mut();
    match part {
        0 => file.entry = bytes.to_vec(),
        1 => file.epoch = bytes.to_vec(),
        2 => file.enrolment = bytes.to_vec(),
        3 => head.checkpoint = std::str::from_utf8(bytes).ok()?.to_owned(),
        4 => head.entry_proof = hashes(bytes),
        5 => head.epoch_proof = hashes(bytes),
        6 => *file.openings.first_mut()? = bytes.to_vec(),
        7 => erasure?.entry = bytes.to_vec(),
        8 => erasure?.entry_proof = hashes(bytes),
        9 => file.anchors.first_mut()?.body = bytes.to_vec(),
        10 => file.anchors.first_mut()?.entry_proof = hashes(bytes),
        11 => *file.evidence.as_mut()? = bytes.to_vec(),
        12 => file.manifests.first_mut()?.entry = bytes.to_vec(),
        _ => file.manifests.first_mut()?.entry_proof = hashes(bytes),
    }
    Some(file)
}

/// The first byte chooses a genuine seal, the second a part of it, the rest replaces that part.
pub fn run(data: &[u8]) {
    let [seal, choice, bytes @ ..] = data else { return };
    let choice = choice % PARTS;
    let (name, genuine) = &SEALS[usize::from(*seal) % SEALS.len()];
    let Some(file) = replaced(genuine.clone(), choice, bytes) else { return };
    let text = file.encode();
    let judged = verify(text.as_bytes(), &TRUST, None);
    let mut remembering = Verifier::new(&TRUST);
    remembering.verify(genuine.encode().as_bytes(), None);
    let again = remembering.verify(text.as_bytes(), None);
    assert_eq!(again.report.to_string(), judged.report.to_string(), "{name}: memory changes the verdict");
    let Some(verified) = judged.seal else {
        assert_ne!(file, *genuine, "{name} does not verify any more");
        return;
    };
    SIGNED.vouch_for(&verified);
    let same = part(genuine, choice).as_deref() == Some(bytes);
    match choice {
        0 | 1 | 2 | 4 | 5 | 8 | 10 | 11 | 13 => {
            assert!(same, "{name}: part {choice} was changed and it verifies")
        }
        7 => assert!(SIGNED.leaves.contains(&leaf_hash(bytes)), "{name}: an erasure that nobody signed"),
        12 => assert!(SIGNED.leaves.contains(&leaf_hash(bytes)), "{name}: a manifest that nobody signed"),
        // Lines that no key here knows may come and go; texts and commitments were looked at above.
        // Whose word an anchor's proofs are, the trust file of this target does not say.
        _ => {}
    }
}

/// Every part of some seals as it is.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (at, (_, file)) in SEALS.iter().enumerate().step_by(3) {
        let Ok(at) = u8::try_from(at) else { break };
        let parts = (0..PARTS).filter_map(|choice| Some((choice, part(file, choice)?)));
        seeds.extend(parts.map(|(choice, bytes)| [&[at, choice], bytes.as_slice()].concat()));
    }
    seeds
}

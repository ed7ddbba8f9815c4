//! Manifest files: what a box said of an outage, with everything that verifies it.
//!
//! Holds: what is taken is encoded back to the same bytes; a verdict other than *refused* is on an entry that a box of
//! the vectors signed, and of a file that was printed it is the same one, if not better.

use super::{seed, split};
use crate::genuine::{SEALS, SIGNED, TRUST};
use bulla_formats::der::Octets32;
use bulla_formats::hash::leaf_hash;
use bulla_formats::manifest_file::{FiledAnchor, ManifestFile, Place};
use bulla_formats::report::Verdict;
use bulla_formats::seal_file::{Placed, SealFile};
use bulla_formats::verify::verify_manifest;

const CHOICES: u8 = 4;

/// The first byte chooses: 0 takes the input for a file; the others for a part of a genuine one, which the second byte
/// chooses: its entry, its key-epoch entry, its checkpoint.
pub fn run(data: &[u8]) {
    let Some((choice, data)) = split(data, CHOICES) else { return };
    if choice == 0 {
        return judge(data);
    }
    let Some((&which, bytes)) = data.split_first() else { return };
    let files = files();
    let mut file = files[usize::from(which) % files.len()].clone();
    match choice {
        1 => file.entry = bytes.to_vec().into(),
        2 => file.epoch = bytes.to_vec().into(),
        _ => {
            let Some(place) = &mut file.place else { return };
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            place.checkpoint = text.to_owned();
        }
    }
    judge(&file.encode());
}

fn judge(data: &[u8]) {
    let judged = verify_manifest(data, &TRUST);
    let Ok(file) = ManifestFile::decode(data) else {
        assert_eq!(judged.report.verdict, Verdict::Refused, "a file that is none");
        return;
    };
    assert_eq!(file.encode(), data);
    assert_eq!(judged.manifest.is_some(), judged.failed().is_none_or(|check| check.name == "policy"));
    if judged.report.verdict == Verdict::Refused {
        return;
    }
    assert!(SIGNED.leaves.contains(&leaf_hash(&file.entry)), "a manifest that nobody signed");
    assert!(SIGNED.enrolments.contains(file.enrolment.as_ref()), "of a box that nobody enrolled");
    let printed = verify_manifest(&file.printed().encode(), &TRUST);
    assert_ne!(printed.report.verdict, Verdict::Refused, "less evidence, and refused");
}

/// One file for every seal: of its manifest, or where it has none, of its token, which is refused for its kind.
fn files() -> Vec<ManifestFile> {
    let octets = |path: &Vec<Vec<u8>>| -> Option<Vec<Octets32>> {
        path.iter().map(|hash| hash.as_slice().try_into().ok().map(Octets32::new)).collect()
    };
    let file = |seal: &SealFile| {
        let head = seal.heads.first()?;
        let token = Placed {
            entry: seal.entry.clone(),
            checkpoint: head.checkpoint.clone(),
            entry_proof: head.entry_proof.clone(),
        };
        let placed = seal.manifests.first().unwrap_or(&token);
        let anchor = |anchor: &bulla_formats::seal_file::AnchorEvidence| {
            let entry_proof = octets(&anchor.entry_proof)?;
            Some(FiledAnchor { body: anchor.body.clone().into(), entry_proof })
        };
        let of_token = seal.manifests.is_empty().then_some(&seal.anchors);
        Some(ManifestFile {
            version: 1,
            origin: seal.origin.clone(),
            entry: placed.entry.clone().into(),
            epoch: seal.epoch.clone().into(),
            enrolment: seal.enrolment.clone().into(),
            place: Some(Place {
                checkpoint: placed.checkpoint.clone(),
                entry_proof: octets(&placed.entry_proof)?,
            }),
            anchors: of_token.into_iter().flatten().take(4).filter_map(anchor).collect(),
        })
    };
    let with = SEALS.iter().filter(|(_, seal)| !seal.manifests.is_empty());
    let without = SEALS.iter().filter(|(_, seal)| seal.manifests.is_empty()).step_by(8);
    with.chain(without).filter_map(|(_, seal)| file(seal)).collect()
}

/// Files as they are and as they are printed, and their parts.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, file) in (0u8..).zip(files()) {
        seeds.push(seed(0, file.encode()));
        seeds.push(seed(0, file.printed().encode()));
        seeds.push(seed(1, seed(which, &file.entry)));
        seeds.push(seed(2, seed(which, &file.epoch)));
        seeds.extend(file.place.map(|place| seed(3, seed(which, place.checkpoint))));
    }
    seeds
}

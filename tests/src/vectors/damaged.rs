//! Damage under a genuine signature: a structure changed by chance before it is signed, quoted and logged like any other.
//!
//! What a verifier refuses here it refuses for what the structure says, since nothing is wrong with who says it. It is
//! what a box or a fleet gone bad could hand out.

use super::anchors::{anchored, body as anchor_body, stamp, trusting};
use super::crls;
use super::outages::{carrying, manifest, told};
use super::plan::Plan;
use super::{Expect, Vector};
use crate::damage::{self, Dice};
use bulla_formats::der;
use bulla_formats::entry::Kind;

/// DER changed once or twice.
fn harm(seed: u64) -> impl Fn(&mut Vec<u8>) {
    move |der| {
        let mut dice = Dice::new(seed);
        for _ in 0..1 + dice.below(2) {
            damage::der(&mut dice, der);
        }
    }
}

/// A seal that something is wrong with, from its number. What a verifier must say of it nobody has written down.
pub fn damaged(number: u64) -> Vector {
    let mut dice = Dice::new(number);
    let seed = dice.roll();
    let harm = harm(seed);
    let plan = [Plan::software, Plan::tpm, Plan::quoted, Plan::resident][dice.below(4)]().with_openings();
    let plan = if dice.below(4) == 0 { plan.second_epoch() } else { plan };
    let plan = match dice.below(10) {
        0 | 1 => plan.body_der(harm),
        2 => plan.epoch_body_der(harm),
        3 => plan.attestation_bytes(move |bytes| damage::bytes(&mut Dice::new(seed), bytes)),
        4 => Plan::software().make_token(move |log, content| {
            let mut bytes = der::encode(content);
            harm(&mut bytes);
            log.entry_of(&bytes)
        }),
        5 => plan.checkpoint_text(move |text| {
            let mut bytes = text.as_bytes().to_vec();
            damage::bytes(&mut Dice::new(seed), &mut bytes);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }),
        6 => carrying(told(Kind::Manifest, move |log| {
            let mut bytes = der::encode(&manifest(log));
            harm(&mut bytes);
            bytes
        })),
        7 => {
            let plan =
                Plan::software().tree(2, 8).heads(vec![(4, None)]).other(1, Kind::Anchor, move |log| {
                    let mut bytes = der::encode(&anchor_body(log, 1, &[stamp("one", 0), stamp("two", 0)]));
                    harm(&mut bytes);
                    bytes
                });
            trusting(plan.file(|log, file| file.evidence = Some(log.entries[1].clone())), 1)
        }
        8 => crls::changed(harm),
        _ => {
            let plan = anchored(
                Plan::software().tree(2, 8).heads(vec![(4, None)]),
                vec![stamp("one", 10), stamp("two", 12)],
            );
            trusting(
                plan.file(move |_, file| file.anchors.iter_mut().for_each(|anchor| harm(&mut anchor.body))),
                2,
            )
        }
    };
    plan.make(&format!("damaged-{number}"), Expect::TrustRefused)
}

//! A `.seal` file out of the archive: what the box would hand out, though the box may be gone.
//!
//! Refuses to do: sign anything, or show openings: those never leave the branch.
//! Invariant: the file verifies by the hub's trust file before it is handed out.

use crate::exit::Failure;
use crate::hub::{Hub, HubError};
use crate::index::Mark;
use crate::shelf::Shelf;
use crate::timing::{ANCHORS, ANCHORS_TRIED};
use bulla_formats::anchoring::{self, Judged};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::seal::SealBody;
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::Hash;
use bulla_formats::note::{SignedNote, checkpoint_text, log_line, quote_line};
use bulla_formats::seal_file::{AnchorEvidence, Head, Placed, SealFile};
use bulla_formats::verify::{Verification, verify};

/// The file of the seal at `index` of the log named `origin`, and what a verifier says of it.
pub fn file(hub: &Hub, origin: &str, index: u64) -> Result<(SealFile, Verification), Failure> {
    let nothing = || Failure::nothing(format!("the archive has no entry {index} of {origin}; pull it first"));
    let shelf = Shelf::open(hub, origin)?.ok_or_else(nothing)?;
    let id = hub.index.known(origin)?.ok_or_else(nothing)?;
    let bytes = shelf.entry(index)?.ok_or_else(nothing)?;
    if let Some(reason) = hub.index.quarantined(id, index)? {
        return Err(Failure::nothing(format!("entry {index} of {origin} is quarantined: {reason}")));
    }
    let entry = Entry::decode(&bytes)
        .map_err(|error| Failure::nothing(format!("entry {index} of {origin}: {error}")))?;
    if entry.kind() != Some(Kind::Seal) {
        let kind = entry.kind().map_or("unknown", Kind::name);
        return Err(Failure::nothing(format!("entry {index} of {origin} is no seal but of kind {kind}")));
    }
    let file = assemble(hub, &shelf, id, &entry)?;
    let verification = verify(file.encode().as_bytes(), &hub.trust, None);
    Ok((file, verification))
}

fn octets(path: Vec<Hash>) -> Vec<Vec<u8>> {
    path.into_iter().map(|hash| hash.0.to_vec()).collect()
}

fn assemble(hub: &Hub, shelf: &Shelf, id: u32, entry: &Entry) -> Result<SealFile, HubError> {
    let index = entry.content().index;
    let number = entry.content().epoch;
    let epochs = hub.index.marks(id, Mark::Epoch, number, 1)?;
    let Some((_, epoch, _)) = epochs.first().copied().filter(|(of, ..)| *of == number) else {
        let words = format!("the index knows no key-epoch entry of epoch {number}; make it again");
        return Err(HubError::Contradiction(words));
    };
    let newest = Head {
        checkpoint: shelf.note.clone(),
        entry_proof: octets(shelf.proof(index, shelf.head.size())?),
        epoch_proof: octets(shelf.proof(epoch, shelf.head.size())?),
        pcrs: None,
    };
    let mut heads = vec![newest];
    heads.extend(attested(hub, shelf, id, index, epoch)?);
    Ok(SealFile {
        origin: shelf.origin.to_string(),
        entry: entry.bytes().to_vec(),
        epoch: shelf.decoded(epoch)?.bytes().to_vec(),
        enrolment: shelf.enrolment_der.clone(),
        heads,
        openings: Vec::new(),
        erasures: erasure(hub, shelf, id, entry)?.into_iter().collect(),
        anchors: anchors(hub, shelf, id, index)?,
        // Boxes keep the CRLs of time stamps beside their logs; their own seal files carry them.
        crls: Vec::new(),
        evidence: match &entry.content().evidence {
            Some(named) => shelf.entry(named.index)?,
            None => None,
        },
        manifests: manifest(hub, shelf, id, index)?.into_iter().collect(),
        revocations: Vec::new(),
        cosignatures: Vec::new(),
        unknown: serde_json::Map::new(),
    })
}

/// The first attested head that covers the entry.
fn attested(hub: &Hub, shelf: &Shelf, id: u32, index: u64, epoch: u64) -> Result<Option<Head>, HubError> {
    let found = hub.index.marks(id, Mark::Attestation, index + 1, 1)?;
    let Some((_, at, _)) = found.first().copied() else { return Ok(None) };
    let Ok(body) = AttestationBody::decode(&shelf.decoded(at)?.content().body) else { return Ok(None) };
    let (Some(quote), Ok(signature)) = (&body.quote, <&[u8; 64]>::try_from(body.log_signature.as_ref()))
    else {
        return Ok(None);
    };
    let (origin, content) = (shelf.origin.as_str(), shelf.enrolment.content());
    let note = SignedNote {
        text: checkpoint_text(origin, body.head.size, &body.head.root()),
        lines: vec![
            log_line(origin, &content.log_key, signature),
            quote_line(origin, &content.attestation_key, &quote.attest, &quote.signature),
        ],
    };
    Ok(Some(Head {
        checkpoint: note.encode(),
        entry_proof: octets(shelf.proof(index, body.head.size)?),
        epoch_proof: octets(shelf.proof(epoch, body.head.size)?),
        pcrs: Some(quote.pcr_values()),
    }))
}

/// Anchors that cover the entry, smallest tree first, until enough operators vouch for it.
fn anchors(hub: &Hub, shelf: &Shelf, id: u32, index: u64) -> Result<Vec<AnchorEvidence>, HubError> {
    let operators = hub.trust.authorities.as_ref().map_or(1, |all| all.operators as usize);
    let (mut found, mut names) = (Vec::new(), std::collections::BTreeSet::new());
    for (size, at, _) in hub.index.marks(id, Mark::Anchor, index + 1, ANCHORS_TRIED)? {
        let entry = shelf.decoded(at)?;
        let Ok(body) = AnchorBody::decode(&entry.content().body) else { continue };
        // By the trust file of today: it may know more authorities than the one by which the entry was pulled.
        let judged = body.proofs.iter().map(|proof| {
            anchoring::judge(&body, proof, shelf.origin.as_str(), hub.trust.authorities.as_ref(), &[])
        });
        let before = names.len();
        let mut refused = false;
        for judged in judged {
            match judged {
                Judged::Holds(held) => drop(names.insert(held.said.operator)),
                Judged::Unknown(_) => {}
                Judged::Refused(_) => refused = true,
            }
        }
        if refused || names.len() == before {
            continue;
        }
        let body = entry.content().body.to_vec();
        found.push(AnchorEvidence { body, entry_proof: octets(shelf.proof(index, size)?) });
        if names.len() >= operators || found.len() == ANCHORS {
            break;
        }
    }
    Ok(found)
}

fn placed(shelf: &Shelf, at: u64) -> Result<Placed, HubError> {
    Ok(Placed {
        entry: shelf.decoded(at)?.bytes().to_vec(),
        checkpoint: shelf.note.clone(),
        entry_proof: octets(shelf.proof(at, shelf.head.size())?),
    })
}

/// The last manifest of the outage in which the entry was made: the closing one, once there is one.
fn manifest(hub: &Hub, shelf: &Shelf, id: u32, index: u64) -> Result<Option<Placed>, HubError> {
    let covering = hub.index.marks(id, Mark::Manifest, index + 1, usize::MAX)?;
    let first = covering.iter().find(|(_, _, first)| *first <= index).map(|(_, _, first)| *first);
    let newest = covering.iter().rfind(|(_, _, of)| Some(*of) == first);
    newest.map(|(_, at, _)| placed(shelf, *at)).transpose()
}

/// The box's word that it destroyed the openings of this seal.
fn erasure(hub: &Hub, shelf: &Shelf, id: u32, entry: &Entry) -> Result<Option<Placed>, HubError> {
    let committed = SealBody::decode(&entry.content().body).is_ok_and(|body| !body.commitments.is_empty());
    match hub.index.erased(id, &entry.leaf_hash())? {
        Some(at) if committed => Ok(Some(placed(shelf, at)?)),
        _ => Ok(None),
    }
}

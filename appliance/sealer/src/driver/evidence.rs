//! Evidence: puts together the `.seal` file of an entry.
//!
//! Refuses to do: sign anything; it only quotes what the log and its heads already say.

use super::epochs::EpochEvidence;
use super::neighbours::CosignedNote;
use super::writer::Sealed;
use super::{LookupError, Published, Shared, anchored, erase, search};
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::body::seal::{Opening, SealBody};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::{Entry, Kind};
use bulla_formats::hash::Hash;
use bulla_formats::manifest_file::{FiledAnchor, MANIFEST_ANCHORS_MAX, ManifestFile, Place};
use bulla_formats::note::{SignedNote, checkpoint_text, log_line, quote_line};
use bulla_formats::seal_file::{AnchorEvidence, Cosigned, Head, Placed, SealFile};
use bulla_ledger::ReadError;

/// The file of an entry committed a moment ago, under the checkpoint of its own batch.
pub fn fresh(shared: &Shared, sealed: &Sealed, openings: &[Opening]) -> Result<SealFile, LookupError> {
    let openings = openings.iter().map(der::encode).collect();
    let head = published_head(&sealed.published, sealed.entry.content().index, &sealed.epoch)?;
    Ok(file(shared, sealed.entry.bytes().to_vec(), &sealed.epoch, head, openings))
}

/// The file of any entry: under the first attested head that covers it, else under the newest one.
pub fn current(shared: &Shared, index: u64, with_openings: bool) -> Result<SealFile, LookupError> {
    let entry = shared.entry(index)?;
    if entry.kind() != Some(Kind::Seal) {
        return Err(LookupError::NotASeal);
    }
    let epoch = shared.epochs.find(entry.content().epoch, index)?;
    let head = match attested_head(shared, index, &epoch)? {
        Some(head) => head,
        None => {
            let published = shared.published().ok_or_else(|| {
                LookupError::Storage("nothing is signed while a rollback is suspected".to_owned())
            })?;
            published_head(&published, index, &epoch)?
        }
    };
    let openings = if with_openings { openings(shared, index)? } else { Vec::new() };
    let mut file = file(shared, entry.bytes().to_vec(), &epoch, head, openings);
    file.erasures.extend(erasure(shared, &entry)?);
    file.anchors = anchors(shared, index)?;
    if let Some(named) = &entry.content().evidence {
        file.evidence = Some(shared.reader.entry(named.index)?);
    }
    file.crls = crls(shared, &file);
    file.manifests.extend(manifest(shared, index)?);
    file.cosignatures = cosignatures(shared, index)?;
    Ok(file)
}

/// Most anchors that a file is given: the first that enough operators vouch by.
const ANCHORS: usize = 4;

/// What authorities said of trees that hold this entry.
fn anchors(shared: &Shared, index: u64) -> Result<Vec<AnchorEvidence>, LookupError> {
    let operators = shared.trust.authorities.as_ref().map_or(1, |all| all.operators as usize);
    let bodies = anchored::covering(shared, index, operators, ANCHORS)?;
    let evidence = |body: AnchorBody| {
        let entry_proof = proof(shared.reader.inclusion_proof(index, body.head.size))?;
        Ok(AnchorEvidence { body: der::encode(&body), entry_proof })
    };
    bodies.into_iter().map(evidence).collect()
}

/// Which neighbours put their names under trees that hold this entry.
fn cosignatures(shared: &Shared, index: u64) -> Result<Vec<Cosigned>, LookupError> {
    let all = shared.cosigned();
    let covering = all.iter().filter(|cosigned| cosigned.size > index);
    let evidence = |cosigned: &CosignedNote| {
        let entry_proof = proof(shared.reader.inclusion_proof(index, cosigned.size))?;
        Ok(Cosigned { checkpoint: cosigned.note.clone(), entry_proof })
    };
    covering.map(evidence).collect()
}

/// The CRLs that are kept for the stamps of this file.
fn crls(shared: &Shared, file: &SealFile) -> Vec<Vec<u8>> {
    let evidence = file.evidence.as_deref().and_then(|bytes| Entry::decode(bytes).ok());
    let bodies = file.anchors.iter().map(|anchor| anchor.body.as_slice());
    let bodies = bodies.chain(evidence.as_ref().map(|entry| &*entry.content().body));
    let bodies: Vec<AnchorBody> = bodies.filter_map(|body| AnchorBody::decode(body).ok()).collect();
    shared.crls.of(&bodies)
}

/// The closing manifest of the outage in which this entry was made; while it lasts, its newest one.
fn manifest(shared: &Shared, index: u64) -> Result<Option<Placed>, LookupError> {
    let Some(at) = shared.manifests.of(index) else { return Ok(None) };
    let Some(published) = shared.published().filter(|published| published.snapshot.size() > at) else {
        return Ok(None);
    };
    Ok(Some(Placed {
        entry: shared.reader.entry(at)?,
        checkpoint: published.note.clone(),
        entry_proof: proof(published.snapshot.inclusion_proof(at))?,
    }))
}

/// The manifest at `index` as a file of its own, with the best evidence there is now.
pub fn manifest_file(shared: &Shared, index: u64) -> Result<ManifestFile, LookupError> {
    let entry = shared.entry(index)?;
    if entry.kind() != Some(Kind::Manifest) {
        return Err(LookupError::Unknown);
    }
    let epoch = shared.epochs.find(entry.content().epoch, index)?;
    let octets = |path: Vec<Vec<u8>>| -> Vec<Octets32> {
        path.iter().filter_map(|hash| hash.as_slice().try_into().ok()).map(Octets32::new).collect()
    };
    let place = match shared.published().filter(|published| published.snapshot.size() > index) {
        Some(published) => Some(Place {
            checkpoint: published.note.clone(),
            entry_proof: octets(proof(published.snapshot.inclusion_proof(index))?),
        }),
        None => None,
    };
    let anchors = anchors(shared, index)?
        .into_iter()
        .map(|anchor| FiledAnchor { body: anchor.body.into(), entry_proof: octets(anchor.entry_proof) });
    Ok(ManifestFile {
        version: 1,
        origin: shared.origin.as_str().to_owned(),
        entry: entry.bytes().to_vec().into(),
        epoch: epoch.bytes.clone().into(),
        enrolment: shared.enrolment_der.clone().into(),
        place,
        anchors: anchors.take(MANIFEST_ANCHORS_MAX).collect(),
    })
}

/// The log's word that the openings of this seal are erased, under the newest head.
fn erasure(shared: &Shared, entry: &Entry) -> Result<Option<Placed>, LookupError> {
    let committed = SealBody::decode(&entry.content().body).is_ok_and(|body| !body.commitments.is_empty());
    if !committed || erase::is_open(shared, entry.content().index)? {
        return Ok(None);
    }
    let Some(index) = search::erased_by(shared, entry.leaf_hash()) else { return Ok(None) };
    let Some(published) = shared.published().filter(|published| published.snapshot.size() > index) else {
        return Ok(None);
    };
    Ok(Some(Placed {
        entry: shared.reader.entry(index)?,
        checkpoint: published.note.clone(),
        entry_proof: proof(published.snapshot.inclusion_proof(index))?,
    }))
}

/// Openings are kept as a row of length-prefixed DER: uint16 BE length, opening.
pub fn pack_openings(openings: &[Opening]) -> Option<Vec<u8>> {
    if openings.is_empty() {
        return None;
    }
    let mut packed = Vec::new();
    for opening in openings {
        let bytes = der::encode(opening);
        let length = u16::try_from(bytes.len()).expect("Opening::check bounds values to 8192 bytes");
        packed.extend_from_slice(&length.to_be_bytes());
        packed.extend_from_slice(&bytes);
    }
    Some(packed)
}

/// The openings in a row of [`pack_openings`]; `None` when it is cut short, be it by all but one byte of a length.
pub fn unpack_openings(packed: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut rest, mut openings) = (packed, Vec::new());
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let (opening, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        openings.push(opening);
        rest = tail;
    }
    rest.is_empty().then_some(openings)
}

fn openings(shared: &Shared, index: u64) -> Result<Vec<Vec<u8>>, LookupError> {
    let Some(packed) = shared.reader.openings(index)? else { return Ok(Vec::new()) };
    let openings = unpack_openings(&packed)
        .ok_or_else(|| LookupError::Storage(format!("the openings of entry {index} are damaged")))?;
    Ok(openings.into_iter().map(<[u8]>::to_vec).collect())
}

fn file(
    shared: &Shared,
    entry: Vec<u8>,
    epoch: &EpochEvidence,
    head: Head,
    openings: Vec<Vec<u8>>,
) -> SealFile {
    SealFile {
        origin: shared.origin.as_str().to_owned(),
        entry,
        epoch: epoch.bytes.clone(),
        enrolment: shared.enrolment_der.clone(),
        heads: vec![head],
        openings,
        erasures: Vec::new(),
        anchors: Vec::new(),
        evidence: None,
        crls: Vec::new(),
        manifests: Vec::new(),
        revocations: Vec::new(),
        cosignatures: Vec::new(),
        unknown: serde_json::Map::new(),
    }
}

fn published_head(published: &Published, index: u64, epoch: &EpochEvidence) -> Result<Head, LookupError> {
    Ok(Head {
        checkpoint: published.note.clone(),
        entry_proof: proof(published.snapshot.inclusion_proof(index))?,
        epoch_proof: proof(published.snapshot.inclusion_proof(epoch.index))?,
        pcrs: None,
    })
}

fn proof(hashes: Result<Vec<Hash>, ReadError>) -> Result<Vec<Vec<u8>>, LookupError> {
    Ok(hashes?.iter().map(|hash| hash.0.to_vec()).collect())
}

/// The first attested head of more than `index` entries.
fn attested_head(shared: &Shared, index: u64, epoch: &EpochEvidence) -> Result<Option<Head>, LookupError> {
    let Some(body) = covering_attestation(shared, index)? else { return Ok(None) };
    let Some(quote) = &body.quote else { return Ok(None) };
    let (size, root) = (body.head.size, body.head.root());
    let origin = shared.origin.as_str();
    let log_key = shared.log_key.verifying_key().to_bytes();
    let signature: &[u8; 64] = body
        .log_signature
        .as_ref()
        .try_into()
        .map_err(|_| LookupError::Storage("an attestation's log signature is damaged".to_owned()))?;
    let note = SignedNote {
        text: checkpoint_text(origin, size, &root),
        lines: vec![
            log_line(origin, &log_key, signature),
            quote_line(origin, &shared.attestation_key, &quote.attest, &quote.signature),
        ],
    };
    Ok(Some(Head {
        checkpoint: note.encode(),
        entry_proof: proof(shared.reader.inclusion_proof(index, size))?,
        epoch_proof: proof(shared.reader.inclusion_proof(epoch.index, size))?,
        pcrs: Some(quote.pcr_values()),
    }))
}

/// The attestation whose head is the smallest that covers `index`.
fn covering_attestation(shared: &Shared, index: u64) -> Result<Option<AttestationBody>, LookupError> {
    if *shared.attested.borrow() <= index {
        return Ok(None);
    }
    let known = {
        let attestations = shared.attestations.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        attestations.range(index + 1..).next().map(|(_, entry)| *entry)
    };
    // An attestation entry stands after what it covers, at most a window of seals away; entries made
    // before this start are looked for there.
    let first_known = shared.status.size_at_start();
    if index >= first_known {
        return known.map(|entry| attestation(&shared.entry(entry)?)).transpose().map(Option::flatten);
    }
    let before = match shared.found.of(index) {
        Some(before) => before,
        None => look_for_attestation(shared, index, first_known)?,
    };
    before.or(known).map(|entry| attestation(&shared.entry(entry)?)).transpose().map(Option::flatten)
}

/// The first attestation up to `end` that covers the entry at `index`, looked for entry by entry.
fn look_for_attestation(shared: &Shared, index: u64, end: u64) -> Result<Option<u64>, LookupError> {
    for candidate in index + 1..end {
        if let Some(body) = attestation(&shared.entry(candidate)?)?
            && body.head.size > index
            && body.quote.is_some()
        {
            shared.found.found(index, body.head.size.min(candidate), Some(candidate));
            return Ok(Some(candidate));
        }
    }
    shared.found.found(index, end, None);
    Ok(None)
}

fn attestation(entry: &Entry) -> Result<Option<AttestationBody>, LookupError> {
    if entry.kind() != Some(Kind::Attestation) {
        return Ok(None);
    }
    let body = AttestationBody::decode(&entry.content().body);
    body.map(Some).map_err(|error| LookupError::Storage(format!("entry {}: {error}", entry.content().index)))
}

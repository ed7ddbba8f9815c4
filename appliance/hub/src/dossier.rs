//! Everything the archive knows about one document: its seals in all logs, what they say of each other, what happened to
//! them, what was found.
//!
//! Refuses to do: settle what evidence does not settle; take a seal that does not verify for a version.
//! Invariant: the same archive, index and trust file give the same dossier, whatever was asked first.

use crate::exit::{Exit, Failure};
use crate::hub::{Hub, HubError};
use crate::locate::locate;
use crate::seal;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::body::seal::{DigestAlgorithm, DocumentDigest, RelationKind, SealBody};
use bulla_formats::entry::{Entry, Residency};
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::report::Report;
use bulla_formats::seal_file::SealFile;
use bulla_protocol::gossip::merge::Place;
use bulla_protocol::versions::{Claim, Standing, Versions};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most seals of one dossier: beyond them it says that there are more.
pub const SEALS_MAX: usize = 64;
/// Most words about one entry that are looked at.
const RELATIONS_MAX: usize = 64;

/// What is said of a related entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What.
    pub kind: RelationKind,
    /// Of the entry with this leaf hash.
    pub leaf: Hash,
    /// Number of that seal in the dossier, if it is there.
    pub seal: Option<usize>,
}

/// The key that signed a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its epoch.
    pub epoch: u64,
    /// Where it lived.
    pub residency: Residency,
    /// Name of its algorithm.
    pub algorithm: &'static str,
    /// SHA-256 of the public key.
    pub sha256: Hash,
}

/// One seal.
#[derive(Debug, Clone)]
pub struct Item {
    /// What the configuration calls its box.
    pub name: String,
    /// Number of the log in the index.
    pub id: u32,
    /// Where it stands.
    pub place: Place,
    /// Its leaf hash.
    pub leaf: Hash,
    /// The token.
    pub entry: Entry,
    /// What it seals.
    pub body: SealBody,
    /// Who signed it.
    pub key: SigningKey,
    /// The file out of the archive.
    pub file: SealFile,
    /// What a verifier says of it.
    pub report: Report,
    /// Whether it is of a digest that was asked for.
    pub asked: bool,
    /// What it says of others.
    pub says: Vec<Said>,
    /// Seals that declare it void, and are not void themselves.
    pub annulled_by: Vec<usize>,
    /// How it stands among the versions; `None` for what is no version: an annulment, or a seal that does not verify.
    pub standing: Option<Standing>,
}

impl Item {
    /// Its digest.
    pub fn digest(&self) -> DocumentDigest {
        self.body.document_digest()
    }

    /// Proven not to be older and not to be younger.
    pub fn interval(&self) -> (Option<u64>, Option<u64>) {
        self.report.interval.map_or((None, None), |interval| (interval.after, interval.before))
    }

    fn verifies(&self) -> bool {
        self.report.failed().is_none() && !self.report.facts.is_empty()
    }

    fn is_version(&self) -> bool {
        let says = |kind| self.says.iter().any(|said| said.kind == kind);
        self.verifies() && (!says(RelationKind::Annuls) || says(RelationKind::Supersedes))
    }
}

/// What is known about one document.
#[derive(Debug)]
pub struct Dossier {
    /// What was asked for.
    pub asked: Vec<DocumentDigest>,
    /// Seals in the order of all logs.
    pub items: Vec<Item>,
    /// Pairs of seals of which nobody can tell which is the later version.
    pub conflicts: Vec<(usize, usize)>,
    /// What could not be looked into, in sentences.
    pub gaps: Vec<String>,
}

impl Dossier {
    /// Seals of one content in several logs: their numbers.
    pub fn duplicates(&self) -> Vec<Vec<usize>> {
        let mut by_digest: BTreeMap<(u8, Vec<u8>), Vec<usize>> = BTreeMap::new();
        for (at, item) in self.items.iter().enumerate() {
            let digest = item.digest();
            by_digest.entry((digest.algorithm as u8, digest.value)).or_default().push(at);
        }
        let several =
            |of: &Vec<usize>| of.iter().map(|at| self.items[*at].id).collect::<BTreeSet<_>>().len() > 1;
        by_digest.into_values().filter(several).collect()
    }
}

/// Name of a digest.
pub fn digest_text(digest: &DocumentDigest) -> String {
    format!("{}:{}", digest.algorithm, hex::encode(&digest.value))
}

/// Gathers what is known about documents of these digests.
pub fn gather(hub: &Hub, asked: &[(DigestAlgorithm, Vec<u8>)]) -> Result<Dossier, Failure> {
    let mut search = Search::new(hub)?;
    for (algorithm, digest) in asked {
        search.copies(*algorithm, digest)?;
    }
    while let Some((id, index)) = search.open.pop_front() {
        search.visit(id, index, asked)?;
    }
    let Search { mut items, mut gaps, truncated, .. } = search;
    if truncated {
        gaps.push(format!("there are more than {SEALS_MAX} seals; the others are not looked into"));
    }
    items.sort_by(|a, b| a.place.cmp(&b.place));
    connect(&mut items);
    annul(&mut items);
    let conflicts = compare(&mut items);
    let asked = asked.iter().map(|(algorithm, value)| DocumentDigest {
        algorithm: *algorithm,
        value: value.clone(),
        size: None,
    });
    Ok(Dossier { asked: asked.collect(), items, conflicts, gaps })
}

struct Search<'a> {
    hub: &'a Hub,
    origins: BTreeMap<u32, String>,
    seen: BTreeSet<(u32, u64)>,
    open: VecDeque<(u32, u64)>,
    items: Vec<Item>,
    gaps: Vec<String>,
    truncated: bool,
}

impl<'a> Search<'a> {
    fn new(hub: &'a Hub) -> Result<Self, HubError> {
        Ok(Search {
            hub,
            origins: hub.index.origins()?,
            seen: BTreeSet::new(),
            open: VecDeque::new(),
            items: Vec::new(),
            gaps: Vec::new(),
            truncated: false,
        })
    }

    fn enqueue(&mut self, id: u32, index: u64) {
        if self.seen.len() == SEALS_MAX && !self.seen.contains(&(id, index)) {
            self.truncated = true;
        } else if self.seen.insert((id, index)) {
            self.open.push_back((id, index));
        }
    }

    fn copies(&mut self, algorithm: DigestAlgorithm, digest: &[u8]) -> Result<(), Failure> {
        for found in self.hub.index.find(algorithm, digest)? {
            if let Some(id) = self.hub.index.known(&found.origin)? {
                self.enqueue(id, found.index);
            }
        }
        Ok(())
    }

    fn visit(&mut self, id: u32, index: u64, asked: &[(DigestAlgorithm, Vec<u8>)]) -> Result<(), Failure> {
        let Some(origin) = self.origins.get(&id).cloned() else { return Ok(()) };
        let (file, verification) = match seal::file(self.hub, &origin, index) {
            Ok(made) => made,
            // Quarantined, not under a head yet, or of another kind: no seal to speak of.
            Err(failure) if failure.exit == Exit::Nothing => {
                self.gaps.push(failure.message);
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        let unreadable = |_| Failure::usage(format!("entry {index} of {origin} is not what it must be"));
        let entry = Entry::decode(&file.entry).map_err(unreadable)?;
        let body = SealBody::decode(&entry.content().body).map_err(unreadable)?;
        let key = signing_key(&file).ok_or_else(|| {
            Failure::usage(format!("the key epoch of entry {index} of {origin} is not what it must be"))
        })?;
        let (leaf, digest) = (entry.leaf_hash(), body.document_digest());
        let says: Vec<Said> = body
            .relations
            .iter()
            .map(|said| Said { kind: said.kind, leaf: Hash(*said.entry), seal: None })
            .collect();
        for (kind, by, at) in self.hub.index.relations(&leaf, RELATIONS_MAX)? {
            if kind != RelationKind::DerivedFrom as u8 {
                self.enqueue(by, at);
            }
        }
        let wanted: Vec<Hash> =
            says.iter().filter(|said| said.kind != RelationKind::DerivedFrom).map(|said| said.leaf).collect();
        for found in locate(self.hub, id, &wanted)? {
            match found {
                Ok((of, at)) => self.enqueue(of, at),
                Err(leaf) => self.gaps.push(format!(
                    "entry {index} of {origin} names an entry that no archived log has: {leaf}"
                )),
            }
        }
        if !says.iter().any(|said| said.kind == RelationKind::Annuls) {
            self.copies(digest.algorithm, &digest.value)?;
        }
        let name = self.hub.config.boxes.iter().find(|branch| branch.origin == origin);
        let place = Place { lamport: entry.content().lamport, origin: origin.as_str().into(), index };
        self.items.push(Item {
            name: name.map_or_else(|| origin.clone(), |branch| branch.name.clone()),
            id,
            place,
            leaf,
            asked: asked.iter().any(|(of, value)| (*of, value) == (digest.algorithm, &digest.value)),
            entry,
            body,
            key,
            file,
            report: verification.report,
            says,
            annulled_by: Vec::new(),
            standing: None,
        });
        Ok(())
    }
}

fn signing_key(file: &SealFile) -> Option<SigningKey> {
    let epoch = Entry::decode(&file.epoch).ok()?;
    let body = KeyEpochBody::decode(&epoch.content().body).ok()?;
    let key = body.statement.sealing_key();
    let algorithm = match key.algorithm {
        bulla_formats::sig::Algorithm::Ed25519 => "Ed25519",
        bulla_formats::sig::Algorithm::P256 => "ECDSA P-256",
    };
    let sha256 = sha256(&[&key.public_key]);
    Some(SigningKey { epoch: body.statement.epoch, residency: key.residency, algorithm, sha256 })
}

fn connect(items: &mut [Item]) {
    let at: BTreeMap<[u8; 32], usize> =
        items.iter().enumerate().map(|(at, item)| (item.leaf.0, at)).collect();
    for said in items.iter_mut().flat_map(|item| &mut item.says) {
        said.seal = at.get(&said.leaf.0).copied();
    }
}

/// Who declares whom void. An annulment can be annulled; it names what is there already, so there are no circles.
fn annul(items: &mut [Item]) {
    let annuls: Vec<Vec<usize>> = items
        .iter()
        .map(|item| {
            let said = item.says.iter().filter(|said| said.kind == RelationKind::Annuls && item.verifies());
            said.filter_map(|said| said.seal).collect()
        })
        .collect();
    let mut void = vec![false; items.len()];
    // What annuls is younger than what is annulled: the last word first. A box that says otherwise is not followed further
    // than there are seals.
    for _ in 0..items.len() {
        let now: Vec<bool> = (0..items.len())
            .map(|at| (0..items.len()).any(|by| annuls[by].contains(&at) && !void[by]))
            .collect();
        if now == void {
            break;
        }
        void = now;
    }
    for (at, item) in items.iter_mut().enumerate() {
        item.annulled_by = (0..annuls.len()).filter(|by| annuls[*by].contains(&at) && !void[*by]).collect();
    }
}

/// How versions stand to each other; returns the conflicts.
fn compare(items: &mut [Item]) -> Vec<(usize, usize)> {
    let versions: Vec<usize> = (0..items.len()).filter(|at| items[*at].is_version()).collect();
    let places: Vec<Place> = items.iter().map(|item| item.place.clone()).collect();
    let claims: Vec<_> = versions
        .iter()
        .map(|at| {
            let (item, digest) = (&items[*at], items[*at].digest());
            let over = item.says.iter().filter(|said| said.kind == RelationKind::Supersedes);
            let (not_before, not_after) = item.interval();
            Claim {
                place: item.place.clone(),
                content: (digest.algorithm as u8, digest.value),
                not_before,
                not_after,
                supersedes: over.filter_map(|said| said.seal).map(|seal| places[seal].clone()).collect(),
                annulled: !item.annulled_by.is_empty(),
            }
        })
        .collect();
    let standings = Versions::of(&claims);
    for (claim, at) in versions.iter().enumerate() {
        items[*at].standing = Some(match standings.standing(claim) {
            Standing::Replaced { by, basis } => Standing::Replaced { by: versions[by], basis },
            other => other,
        });
    }
    standings.conflicts().iter().map(|(a, b)| (versions[*a], versions[*b])).collect()
}

/// Findings about these seals or their logs, oldest first.
pub fn findings(hub: &Hub, dossier: &Dossier) -> Result<Vec<Value>, HubError> {
    let items = &dossier.items;
    let origins: BTreeSet<&str> = items.iter().map(|item| &*item.place.origin).collect();
    let digests: BTreeSet<String> = items.iter().map(|item| digest_text(&item.digest())).collect();
    let touches = |finding: &Value| match finding["origin"].as_str() {
        Some(origin) => origins.contains(origin),
        None => finding["subject"].as_str().is_some_and(|subject| digests.contains(subject)),
    };
    Ok(hub.index.findings(0)?.into_iter().filter(touches).collect())
}

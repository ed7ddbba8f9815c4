//! Chain of custody: what happened to the seals of a dossier, in the order of all logs.
//!
//! Refuses to do: tell what the logs do not say: there is no event without an entry.
//! Invariant: events are in the order of all logs, each entry told once for what it is to the document.

use crate::dossier::{Dossier, Item};
use crate::exit::Failure;
use crate::hub::{Hub, HubError};
use crate::index::Mark;
use crate::order::timing;
use crate::shelf::Shelf;
use crate::timing::Timing;
use bulla_formats::body::anchor::AnchorBody;
use bulla_formats::body::manifest::{ManifestBody, Phase};
use bulla_formats::body::mirror::MirrorBody;
use bulla_formats::body::seal::RelationKind;
use bulla_formats::entry::{Entry, LocalTime};
use bulla_protocol::gossip::merge::Place;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most anchors told of one seal.
const ANCHORS: usize = 64;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where its entry stands.
    pub place: Place,
    /// Stable name.
    pub name: &'static str,
    /// What happened, in words.
    pub detail: String,
    /// Whose box it was.
    pub box_name: String,
    /// What the box's clock said.
    pub local: LocalTime,
    /// Proven not to be older.
    pub after: Option<u64>,
    /// Proven not to be younger.
    pub before: Option<u64>,
    /// Numbers of the seals that it is about.
    pub seals: Vec<usize>,
}

impl Event {
    /// As JSON; seals count from 1.
    pub fn to_json(&self) -> Value {
        json!({
            "event": self.name,
            "box": self.box_name,
            "origin": &*self.place.origin,
            "index": self.place.index,
            "lamport": self.place.lamport,
            "localMillis": self.local.unix_millis,
            "localUncertaintyMillis": self.local.uncertainty_millis,
            "notBeforeMillis": self.after,
            "notAfterMillis": self.before,
            "seals": self.seals.iter().map(|seal| seal + 1).collect::<Vec<_>>(),
            "detail": self.detail,
        })
    }
}

struct Telling<'a> {
    hub: &'a Hub,
    timings: BTreeMap<u32, Timing>,
    events: BTreeMap<(Place, &'static str), Event>,
}

/// What happened to the seals of a dossier.
pub fn events(hub: &Hub, dossier: &Dossier) -> Result<Vec<Event>, Failure> {
    let mut telling = Telling { hub, timings: BTreeMap::new(), events: BTreeMap::new() };
    for (at, item) in dossier.items.iter().enumerate() {
        let shelf = Shelf::open(hub, &item.place.origin)?;
        let gone = || Failure::usage(format!("the archive has lost the log {}", item.place.origin));
        let shelf = shelf.ok_or_else(gone)?;
        if let std::collections::btree_map::Entry::Vacant(vacant) = telling.timings.entry(item.id) {
            vacant.insert(timing(hub, item.id, shelf.head.size())?);
        }
        telling.of(at, item, dossier, &shelf)?;
    }
    Ok(telling.events.into_values().collect())
}

impl Telling<'_> {
    fn tell(&mut self, at: usize, item: &Item, entry: &Entry, name: &'static str, detail: String) {
        let content = entry.content();
        let place =
            Place { lamport: content.lamport, origin: item.place.origin.clone(), index: content.index };
        let (after, before) =
            self.timings.get(&item.id).map_or((None, None), |timing| timing.at(content.index));
        let event = self.events.entry((place.clone(), name)).or_insert_with(|| Event {
            place,
            name,
            detail,
            box_name: item.name.clone(),
            local: content.time,
            after,
            before,
            seals: Vec::new(),
        });
        event.seals.push(at);
    }

    fn of(&mut self, at: usize, item: &Item, dossier: &Dossier, shelf: &Shelf) -> Result<(), HubError> {
        let index = item.place.index;
        if let Ok(epoch) = Entry::decode(&item.file.epoch) {
            let key = &item.key;
            let detail = format!("key epoch {}: {} key, {}", key.epoch, key.algorithm, key.residency);
            self.tell(at, item, &epoch, "key-epoch", detail);
        }
        if let Some(Ok(evidence)) = item.file.evidence.as_deref().map(Entry::decode) {
            let detail = vouchers(&evidence).unwrap_or_default();
            self.tell(at, item, &evidence, "time-evidence", format!("named by the seal: {detail}"));
        }
        let detail = format!("seal {}, for {:?}", at + 1, item.body.client.id);
        self.tell(at, item, &item.entry, "sealed", detail);
        for said in &item.says {
            let (name, word) = match said.kind {
                RelationKind::Supersedes => ("supersedes", "supersedes"),
                RelationKind::Annuls => ("annuls", "declares void"),
                RelationKind::DerivedFrom => ("derived-from", "was made from"),
            };
            let whom = match said.seal {
                Some(seal) => {
                    let of = &dossier.items[seal];
                    format!("entry {} of {}", of.place.index, of.name)
                }
                None => format!("the entry with leaf hash {}", said.leaf),
            };
            self.tell(at, item, &item.entry, name, format!("{word} {whom}"));
        }
        self.evidence(at, item, shelf, index)
    }

    fn evidence(&mut self, at: usize, item: &Item, shelf: &Shelf, index: u64) -> Result<(), HubError> {
        let hub = self.hub;
        if let Some((size, entry, _)) = hub.index.marks(item.id, Mark::Attestation, index + 1, 1)?.first() {
            let detail = format!("the TPM quoted the tree of {size} entries");
            self.tell(at, item, &shelf.decoded(*entry)?, "attested", detail);
        }
        let given: Vec<&[u8]> = item.file.anchors.iter().map(|anchor| anchor.body.as_slice()).collect();
        for (_, entry, _) in hub.index.marks(item.id, Mark::Anchor, index + 1, ANCHORS)? {
            let entry = shelf.decoded(entry)?;
            if given.contains(&&*entry.content().body) {
                let detail = vouchers(&entry).unwrap_or_default();
                self.tell(at, item, &entry, "anchored", detail);
            }
        }
        if let Some((_, entry, _)) = hub.index.marks(item.id, Mark::Mirror, index + 1, 1)?.first() {
            let entry = shelf.decoded(*entry)?;
            if let Ok(body) = MirrorBody::decode(&entry.content().body) {
                let holds = |of: &&bulla_formats::body::mirror::Neighbour| {
                    of.mirrored.as_ref().is_some_and(|held| held.head.size > index)
                };
                let who: Vec<&str> =
                    body.neighbours.iter().filter(holds).map(|of| of.origin.as_str()).collect();
                self.tell(at, item, &entry, "mirrored", format!("held by {}", who.join(", ")));
            }
        }
        for manifest in &item.file.manifests {
            let Ok(entry) = Entry::decode(&manifest.entry) else { continue };
            let Ok(body) = ManifestBody::decode(&entry.content().body) else { continue };
            let said = &body.statement;
            let drill = if said.drill { " (drill)" } else { "" };
            let detail = format!("outage {}{drill} began", said.outage);
            self.tell(at, item, &shelf.decoded(said.first)?, "outage-began", detail);
            let (name, words) = match said.phase {
                Phase::Close => ("outage-closed", "is over"),
                Phase::Open | Phase::Refresh => ("outage-stated", "goes on"),
            };
            let detail = format!(
                "outage {}{drill} {words}: entries {} to {}, {} of them seals",
                said.outage,
                said.first,
                said.head.size - 1,
                said.seals
            );
            self.tell(at, item, &entry, name, detail);
        }
        for erasure in &item.file.erasures {
            if let Ok(entry) = Entry::decode(&erasure.entry) {
                self.tell(at, item, &entry, "erased", "the openings were destroyed".to_owned());
            }
        }
        Ok(())
    }
}

fn vouchers(entry: &Entry) -> Option<String> {
    let body = AnchorBody::decode(&entry.content().body).ok()?;
    let who: Vec<String> =
        body.proofs.iter().map(|proof| format!("{} of {}", proof.authority, proof.operator)).collect();
    Some(format!("{} vouched for {} entries", who.join(", "), body.head.size))
}

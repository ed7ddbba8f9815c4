//! What the archive says of one document, for machines: `docs/audit.md` has every member.
//!
//! Refuses to do: sign; the evidence is in the seals, and they are in the statement.
//! Invariant: the same dossier and time give the same bytes.

use crate::dossier::{Dossier, Item, digest_text};
use crate::hub::Hub;
use crate::timeline::Event;
use bulla_formats::body::seal::{Assurance, Field, Observation, RelationKind};
use bulla_protocol::versions::Standing;
use serde_json::{Value, json};

/// The value of the member `bulla`.
pub const VERSION: &str = "statement/v1";

/// The document itself, when the asker had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Name of the file.
    pub name: String,
    /// Its bytes.
    pub size: u64,
}

/// What a statement is made from.
pub struct Statement<'a> {
    /// The hub.
    pub hub: &'a Hub,
    /// What it knows.
    pub dossier: &'a Dossier,
    /// What happened.
    pub events: &'a [Event],
    /// What was found about these seals or their logs, oldest first.
    pub findings: &'a [Value],
    /// The document, when the asker had it.
    pub asked: Option<Asked>,
    /// Fingerprint of the trust file.
    pub fingerprint: String,
    /// The time it states as its own.
    pub made_millis: u64,
}

/// How the document stands, all its seals together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is the version that stands.
    Current,
    /// Another version may be the later one.
    Conflict,
    /// Another version replaces it.
    Replaced,
    /// It was declared void.
    Annulled,
    /// No seal of it verifies.
    Refused,
}

impl Verdict {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Current => "current",
            Verdict::Conflict => "conflict",
            Verdict::Replaced => "replaced",
            Verdict::Annulled => "annulled",
            Verdict::Refused => "refused",
        }
    }

    /// Of the document that was asked for.
    pub fn of(dossier: &Dossier) -> Self {
        let standings: Vec<Standing> =
            dossier.items.iter().filter(|item| item.asked).filter_map(|item| item.standing).collect();
        let any = |name: &str| standings.iter().any(|standing| standing.name() == name);
        if any("conflict") {
            Verdict::Conflict
        } else if any("current") {
            Verdict::Current
        } else if any("replaced") {
            Verdict::Replaced
        } else if any("annulled") {
            Verdict::Annulled
        } else {
            Verdict::Refused
        }
    }
}

/// Name of an item's `.seal` file.
pub fn seal_name(number: usize, item: &Item) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = item.name.chars().take(48).map(plain).collect();
    format!("{number}-{name}-{}.seal", item.place.index)
}

/// What a commitment hides, in words.
pub fn field_name(field: Field) -> &'static str {
    match field {
        Field::User => "user",
        Field::DocumentId => "document-id",
        Field::Metadata => "metadata",
    }
}

/// How sure the box was of it.
pub fn assurance_name(assurance: Assurance) -> &'static str {
    match assurance {
        Assurance::Asserted => "asserted",
        Assurance::Authenticated => "authenticated",
    }
}

impl Statement<'_> {
    /// The statement.
    pub fn to_json(&self) -> Value {
        let Dossier { asked, items, conflicts, gaps } = self.dossier;
        let trust = &self.hub.trust;
        json!({
            "bulla": VERSION,
            "hub": self.hub.config.name,
            "fleet": trust.fleet,
            "madeMillis": self.made_millis,
            "trust": {
                "fingerprint": self.fingerprint,
                "issuedMillis": trust.issued_millis,
                "rosterVersion": trust.roster.as_ref().map(|roster| roster.version),
            },
            "document": self.asked.as_ref().map(|asked| json!({"name": asked.name, "size": asked.size})),
            "digests": asked.iter().map(digest_text).collect::<Vec<_>>(),
            "standing": Verdict::of(self.dossier).name(),
            "seals": items.iter().enumerate().map(|(at, item)| seal(at + 1, item)).collect::<Vec<_>>(),
            "conflicts": conflicts.iter().map(|(a, b)| json!([a + 1, b + 1])).collect::<Vec<_>>(),
            "duplicates": self.dossier.duplicates().iter().map(|of| numbers(of)).collect::<Vec<_>>(),
            "timeline": self.events.iter().map(Event::to_json).collect::<Vec<_>>(),
            "findings": self.findings,
            "gaps": gaps,
        })
    }
}

fn numbers(of: &[usize]) -> Vec<usize> {
    of.iter().map(|at| at + 1).collect()
}

fn seal(number: usize, item: &Item) -> Value {
    let (content, body) = (item.entry.content(), &item.body);
    let (replaced_by, basis) = match item.standing {
        Some(Standing::Replaced { by, basis }) => (Some(by + 1), Some(basis.name())),
        _ => (None, None),
    };
    let relations: Vec<Value> = item
        .says
        .iter()
        .map(|said| {
            let (kind, leaf) = (said.kind.name(), said.leaf.to_string());
            json!({"kind": kind, "leafHash": leaf, "seal": said.seal.map(|seal| seal + 1)})
        })
        .collect();
    let commitments: Vec<Value> = body
        .commitments
        .iter()
        .map(|hidden| {
            json!({
                "field": field_name(hidden.field),
                "assurance": assurance_name(hidden.assurance),
                "hash": hex::encode(*hidden.hash),
            })
        })
        .collect();
    json!({
        "number": number,
        "asked": item.asked,
        "box": item.name,
        "origin": &*item.place.origin,
        "index": item.place.index,
        "lamport": item.place.lamport,
        "leafHash": item.leaf.to_string(),
        "document": {
            "digest": digest_text(&item.digest()),
            "size": body.size,
            "mediaType": body.media_type,
            "observation": match body.observation {
                Observation::BytesObserved => "bytes-observed",
                Observation::DigestClaimed => "digest-claimed",
            },
        },
        "client": body.client.id,
        "transport": body.transport,
        "mode": content.mode.to_string(),
        "drill": content.drill,
        "key": {
            "epoch": item.key.epoch,
            "algorithm": item.key.algorithm,
            "residency": item.key.residency.to_string(),
            "sha256": item.key.sha256.to_string(),
        },
        "commitments": commitments,
        "relations": relations,
        "annulledBy": numbers(&item.annulled_by),
        "isAnnulment": item.standing.is_none() && item.says.iter().any(|said| said.kind == RelationKind::Annuls),
        "standing": item.standing.map(Standing::name),
        "replacedBy": replaced_by,
        "basis": basis,
        "report": item.report.to_json(),
        "file": seal_name(number, item),
        "seal": item.file.to_value(),
    })
}

//! Has the box seal a document of a folder: the same order, queue, limits and refusals as a document of the API.
//!
//! Refuses to do: seal for a client that is revoked or no scanner; give up a document for what may pass.
//! Invariants: the request's key and fingerprint are those of an API request of the same client; the digest is of bytes that
//! this box read itself (*bytes-observed*).

use super::{Watched, arrival};
use crate::api::Shared;
use crate::api::description::{Description, Target};
use crate::api::receipt::{Made, ReceiptView, elsewhere, ids};
use crate::clients::Role;
use crate::driver::{Outcome, Receipt, SealError, SealOrder, Sealer};
use crate::problem::Problem;
use bulla_formats::body::seal::{
    Client, ClientMethod, DigestAlgorithm, DocumentDigest, Observation, Relation, RelationKind,
};
use bulla_formats::der::Octets32;
use bulla_formats::hash::{Hash, sha256};
use bulla_intake::door::{Door, NotSealed, Note, Order, Sealed};
use bulla_intake::folder::Census;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How seals say that a document came through a folder; what is known of the way there follows.
const TRANSPORT: &str = "hot-folder";
/// How long a queued document is waited for before it is asked for again.
const QUEUED_PATIENCE: Duration = Duration::from_secs(2);

/// What has happened in a folder since the start.
#[derive(Debug, Default)]
pub struct Tally {
    /// Documents whose results were written.
    pub sealed: AtomicU64,
    /// Files moved to the error folder.
    pub rejected: AtomicU64,
    /// Times that a document could not be sealed at once.
    pub retries: AtomicU64,
}

/// The box, as a folder sees it.
pub struct BoxDoor {
    /// The box.
    pub api: Shared,
    /// Where its tasks run.
    pub runtime: tokio::runtime::Handle,
    /// The folder.
    pub watched: Arc<Watched>,
}

fn later(reason: impl Into<String>) -> NotSealed {
    NotSealed::Later { reason: reason.into(), after: None }
}

impl BoxDoor {
    fn order(&self, order: &Order<'_>) -> Result<SealOrder, NotSealed> {
        let name = &self.watched.folder.client;
        let client = self.api.clients.by_name(name).map_err(|error| later(error.to_string()))?;
        let client = client.filter(|client| client.role == Role::Scanner).ok_or_else(|| {
            later(format!("no scanner named {name:?} is registered; `bulla-box scanner add --name {name}`"))
        })?;
        let admission = self
            .api
            .limits
            .admit(&client.name, &client.limits)
            .map_err(|problem| later(problem.to_string()))?;
        let most = admission.document_bytes_max();
        if order.content.size > most {
            let reason = format!(
                "it has {} bytes, and this box accepts at most {most} from {name}",
                order.content.size
            );
            return Err(NotSealed::Refused { reason });
        }
        let refused = |problem: Problem| NotSealed::Refused { reason: problem.to_string() };
        let mut description =
            Description { media_type: order.media_type.to_owned(), ..Description::default() };
        for (name, value) in order.metadata() {
            description.metadata.insert(name, value).map_err(refused)?;
        }
        let mut relations = Vec::new();
        if let Some(leaf) = order.supersedes.as_ref().and_then(|leaf| hex::decode(leaf).ok()?.try_into().ok())
        {
            description.relations.push((RelationKind::Supersedes, Target::Leaf(Hash(leaf))));
            relations.push(Relation { kind: RelationKind::Supersedes, entry: Octets32::new(leaf) });
        }
        let description = description.check().map_err(refused)?;
        let digest = DocumentDigest {
            algorithm: DigestAlgorithm::Sha256,
            value: order.content.sha256.to_vec(),
            size: Some(order.content.size),
        };
        let observation = Observation::BytesObserved;
        let key = sha256(&[b"bulla/request-key/v1\0", client.name.as_bytes(), &[0], order.key.as_bytes()]);
        let request = bulla_ledger::Request::new(&key, &description.fingerprint(&digest, observation));
        Ok(SealOrder {
            digest,
            observation,
            client: Client { id: client.name.clone(), method: ClientMethod::Local },
            transport: self.transport(order),
            openings: description.openings().map_err(|problem| later(problem.to_string()))?,
            media_type: description.media_type,
            relations,
            request: Some(request),
        })
    }

    /// What the box saw of the way there itself, else what the configuration says.
    fn transport(&self, order: &Order<'_>) -> String {
        match arrival::transport(order.file, &order.content.sha256)
            .or_else(|| self.watched.folder.via.clone())
        {
            Some(via) => format!("{TRANSPORT} {via}"),
            None => TRANSPORT.to_owned(),
        }
    }

    async fn seal(&self, order: SealOrder) -> Result<Receipt, NotSealed> {
        match self.api.sealer.seal(order).await {
            Ok(Outcome::Sealed(receipt)) => Ok(*receipt),
            Ok(Outcome::Queued(queued)) => {
                let sealed = self.api.sealer.sealed_from_queue(queued.id, QUEUED_PATIENCE).await;
                let sealed = sealed.map_err(|error| later(error.to_string()))?;
                sealed.ok_or_else(|| later(format!("it is queued: {}", queued.reason)))
            }
            // The same bytes under another name, sealed before.
            Err(SealError::KeyReused { index }) => {
                let receipt = self.api.sealer.receipt_at(index).await;
                receipt
                    .map(|receipt| Receipt { replayed: true, ..receipt })
                    .map_err(|error| later(error.to_string()))
            }
            Err(SealError::Invalid { reason }) => Err(NotSealed::Refused { reason }),
            Err(error) => Err(later(error.to_string())),
        }
    }

    fn results(&self, receipt: &Receipt) -> Result<Sealed, NotSealed> {
        let sealer = &self.api.sealer;
        let id = Sealer::id(receipt.index, &receipt.leaf_hash);
        let made = Made {
            waited: None,
            replayed: receipt.replayed,
            earlier: ids(sealer, &receipt.earlier),
            elsewhere: elsewhere(&receipt.elsewhere),
            held_by: None,
        };
        let view = ReceiptView::new(&id, receipt.leaf_hash, &receipt.content, &receipt.seal).made(made);
        let mut said = serde_json::to_value(&view).map_err(|error| later(error.to_string()))?;
        if let Some(members) = said.as_object_mut() {
            ["seal", "links"].iter().for_each(|name| drop(members.remove(*name)));
        }
        Ok(Sealed { seal: receipt.seal.encode(), receipt: said })
    }
}

impl Door for BoxDoor {
    fn seal(&self, order: &Order<'_>) -> Result<Sealed, NotSealed> {
        let begun = Instant::now();
        let sealed = self.order(order).and_then(|seal| {
            let receipt = self.runtime.block_on(self.seal(seal))?;
            self.api.metrics.document_bytes.fetch_add(order.content.size, Relaxed);
            self.results(&receipt)
        });
        match &sealed {
            Ok(_) => {
                self.api.metrics.seal(begun.elapsed());
                self.watched.trouble(None);
            }
            Err(NotSealed::Later { .. }) => drop(self.watched.tally.retries.fetch_add(1, Relaxed)),
            Err(_) => {}
        }
        sealed
    }

    fn note(&self, note: &Note<'_>) {
        let client = &self.watched.folder.client;
        match note {
            Note::Watching(means) => {
                self.watched.change(|state| state.means = means);
                self.watched.trouble(None);
                log::info!("the folder of {client} is watched by {means}");
            }
            // Names may name people: they are in the results, not in the log.
            Note::Sealed { sealed, .. } => {
                self.watched.tally.sealed.fetch_add(1, Relaxed);
                let id = sealed.receipt.get("id").and_then(Value::as_str).unwrap_or_default();
                log::debug!("a document in the folder of {client} is sealed as {id}");
            }
            Note::Rejected { reason, .. } => {
                self.watched.tally.rejected.fetch_add(1, Relaxed);
                log::warn!("a file in the folder of {client} went to the error folder: {reason}");
            }
            Note::Waits { reason, .. } => self.watched.trouble(Some((*reason).to_owned())),
        }
    }

    fn census(&self, census: Census, _: &str) {
        self.watched.change(|state| state.census = census);
    }
}

//! What the neighbours hold of a log, and a copy of it, each entry proven to be under a head that the log's key signed.
//!
//! Order: every neighbour says what it holds -> entries fetched, proven, durable -> heads of all neighbours found to be of
//! this one tree -> the newest head durable, with the neighbours' cosignatures.
//! Refuses to do: begin while a neighbour is silent that may hold more; take entries on anybody's word; choose between two
//! histories.

use super::Asking;
use crate::driver::neighbours::edge;
use anyhow::{Context as _, Result, bail, ensure};
use bulla_formats::body::attestation::AttestationBody;
use bulla_formats::entry::{Entry, Kind, NUMBER_MAX, TreeState};
use bulla_formats::merkle::Frontier;
use bulla_formats::note::{Checkpoint, NOTE_LINES_MAX, SignedNote};
use bulla_formats::peer::card::PeerCard;
use bulla_formats::peer::message::{Asked, HeadsAsked, RangeAsked, Refusal, Said};
use bulla_formats::witness::Role;
use bulla_ledger::{Mirror, Mirrors, Reader, Tree};

/// Entries looked through, from the newest back, for one that states the counter.
const COUNTER_WITHIN: u64 = 100_000;

/// What one neighbour holds.
struct Holder {
    card: PeerCard,
    /// The newest head that it knows, with its cosignatures.
    note: SignedNote,
    head: Checkpoint,
    /// So many entries are durable there.
    entries: u64,
}

/// What all of them hold.
pub struct Survey {
    of: PeerCard,
    /// Those that hold most first.
    holders: Vec<Holder>,
}

/// A log that has been fetched.
pub struct Retrieved {
    /// The newest head that is covered.
    pub head: TreeState,
    /// That head, signed by the log and by everybody who cosigned it.
    pub note: SignedNote,
    /// Who holds it.
    pub held_by: HeldBy,
    /// A larger head that somebody knows, and whose entries nobody holds.
    pub beyond: Option<u64>,
    /// The newest value of the TPM counter that an entry states.
    pub counter: Option<u64>,
}

/// Who holds a log that was fetched.
pub enum HeldBy {
    /// Neighbours, each with the roles in which it has cosigned the head.
    Neighbours(Vec<(String, Vec<Role>)>),
    /// A hub, which has cosigned nothing by archiving it.
    Archive,
}

pub(super) const FORKED: &str =
    "the log has forked; nothing is taken or begun, see docs/runbooks/peers.md, \"A log has forked\"";

/// Asks every neighbour what it holds of the log of this card; all must answer, but those that an operator gives up.
///
/// # Errors
/// Silence, a fork, nothing held.
pub fn survey(asking: &mut Asking, of: &PeerCard, cards: &[PeerCard]) -> Result<Survey> {
    let mut holders = Vec::new();
    let mut silent = Vec::new();
    let origin = of.origin().to_string();
    for card in cards {
        let said = match asking.ask(card, Asked::Heads(HeadsAsked { origins: vec![origin.clone()] })) {
            Ok(Said::Heads(held)) => held,
            Ok(Said::Refused(refused)) => {
                silent.push(format!("{} ({})", card.origin(), refused.code));
                continue;
            }
            Ok(_) => bail!("{} answers something else than it was asked", card.origin()),
            Err(error) => {
                silent.push(format!("{} ({error:#})", card.origin()));
                continue;
            }
        };
        for held in said.into_iter().filter(|held| held.origin == origin) {
            ensure!(!held.frozen, "{} holds a proof: {FORKED}", card.origin());
            let note = SignedNote::parse(&held.head)?;
            let head = of.checkpoint(&note).with_context(|| {
                format!("{} tells of a head that this log's key has not signed", card.origin())
            })?;
            holders.push(Holder { card: card.clone(), note, head, entries: held.entries });
        }
    }
    ensure!(
        silent.is_empty(),
        "{} cannot be asked, and may hold more than the others: bring it back, or give it up with --without ORIGIN",
        silent.join(", ")
    );
    ensure!(!holders.is_empty(), "no neighbour holds anything of {origin}");
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.entries.min(holder.head.size())));
    Ok(Survey { of: of.clone(), holders })
}

impl Survey {
    /// So many entries can be had.
    pub fn entries(&self) -> u64 {
        self.holders.first().map_or(0, |holder| holder.entries.min(holder.head.size()))
    }

    /// Fails where the log on this disk and a head that a neighbour knows are two histories.
    ///
    /// # Errors
    /// A fork; a disk that cannot be read.
    pub fn compare(&self, disk: &Reader) -> Result<()> {
        for holder in self.holders.iter().filter(|holder| holder.head.size() <= disk.size()) {
            let root = disk.root_at(holder.head.size())?;
            ensure!(
                root == holder.head.root(),
                "{} holds another history than this disk: {FORKED}",
                holder.card.origin()
            );
        }
        Ok(())
    }
}

/// Fetches what is not here yet, and makes the newest head durable.
///
/// # Errors
/// What the neighbours do not hand out, or this disk does not take.
pub fn copy(asking: &mut Asking, survey: &Survey, mirrors: &Mirrors) -> Result<Retrieved> {
    let origin = survey.of.origin().as_str();
    let mirror = match mirrors.get(origin) {
        Some(mirror) => mirror,
        None => mirrors.create(origin)?,
    };
    let mut tree = edge(&mirror.reader()?)?;
    let mut notes: Vec<(Checkpoint, SignedNote)> = Vec::new();
    let mut troubles = Vec::new();
    for holder in &survey.holders {
        notes.push((holder.head.clone(), holder.note.clone()));
        while tree.size() < holder.entries.min(holder.head.size()) {
            match range(asking, &survey.of, holder, &mirror, &tree) {
                Ok((longer, head)) => {
                    tree = longer;
                    notes.push(head);
                }
                Err(error) => {
                    troubles.push(format!("{}: {error:#}", holder.card.origin()));
                    break;
                }
            }
        }
    }
    ensure!(
        tree.size() >= survey.entries(),
        "only {} of {} entries could be fetched ({}); what is here stays, try again",
        tree.size(),
        survey.entries(),
        troubles.join("; ")
    );
    let reader = mirror.reader()?;
    for (head, _) in notes.iter().filter(|(head, _)| head.size() <= tree.size()) {
        let root = reader.root_at(head.size())?;
        ensure!(root == head.root(), "its key has signed two trees of {} entries: {FORKED}", head.size());
    }
    let covered = notes.iter().filter(|(head, _)| head.size() <= tree.size());
    let (head, note) =
        covered.max_by_key(|(head, _)| head.size()).context("nobody knows a head of these entries")?;
    let (note, holders) = vouched(survey, head, note);
    mirror.persist_head(head.size(), head.root(), note.encode().as_bytes())?;
    let beyond =
        survey.holders.iter().map(|holder| holder.head.size()).max().filter(|size| *size > tree.size());
    let counter = counter(&reader)?;
    let held_by = HeldBy::Neighbours(holders);
    Ok(Retrieved { head: TreeState::new(head.size(), head.root()), note, held_by, beyond, counter })
}

/// One answer's worth of entries: proven, then durable.
fn range(
    asking: &mut Asking,
    of: &PeerCard,
    holder: &Holder,
    mirror: &Mirror,
    tree: &Frontier,
) -> Result<(Frontier, (Checkpoint, SignedNote))> {
    let (origin, from) = (of.origin().to_string(), tree.size());
    let said = match asking.ask(&holder.card, Asked::Range(RangeAsked { origin, from, to: NUMBER_MAX }))? {
        Said::Range(said) if said.origin == of.origin().as_str() => said,
        Said::Refused(refused) => {
            let held = Refusal::from_name(&refused.code) == Some(Refusal::NotHeld);
            bail!("{}", if held { "it has no head that covers more".to_owned() } else { refused.code });
        }
        _ => bail!("it answers something else than it was asked"),
    };
    let note = SignedNote::parse(&said.head)?;
    let head = of.checkpoint(&note).context("its head is not signed by this log's key")?;
    let longer = said.extend(tree, &head).context("its entries do not lead to its head")?;
    let entries = said.entries.into_iter().map(|entry| entry.to_vec()).collect();
    mirror.store_range(from, entries, Vec::new(), Tree { size: longer.size(), root: longer.root() })?;
    Ok((longer, (head, note)))
}

/// The head's note with the lines of all neighbours that have cosigned it, and who they are.
fn vouched(survey: &Survey, head: &Checkpoint, note: &SignedNote) -> (SignedNote, Vec<(String, Vec<Role>)>) {
    let mut all = note.clone();
    let is_cosigner = |name: &str| {
        let roles = [Role::Witness, Role::Mirror];
        survey
            .holders
            .iter()
            .any(|holder| roles.iter().any(|role| holder.card.cosigner(*role).name() == name))
    };
    all.lines.retain(|line| !is_cosigner(&line.name));
    let mut holders = Vec::new();
    for holder in &survey.holders {
        let mut roles = Vec::new();
        for role in [Role::Witness, Role::Mirror] {
            let key = holder.card.cosigner(role);
            let same = holder.head.text() == head.text() && all.lines.len() < NOTE_LINES_MAX;
            let cosigned = key.cosignature(&holder.note).ok().flatten().filter(|_| same);
            // The very line: it has just been verified.
            let line =
                holder.note.lines.iter().find(|line| line.name == key.name() && line.key_id == key.id());
            if let (Some(_), Some(line)) = (cosigned, line) {
                all.lines.push(line.clone());
                roles.push(role);
            }
        }
        holders.push((holder.card.origin().to_string(), roles));
    }
    (all, holders)
}

/// The newest value of the counter that an entry states, if one of the last ones does.
pub(super) fn counter(reader: &Reader) -> Result<Option<u64>> {
    let size = reader.size();
    for index in (size.saturating_sub(COUNTER_WITHIN)..size).rev() {
        let Ok(entry) = Entry::decode(&reader.entry(index)?) else { continue };
        if entry.kind() == Some(Kind::Attestation)
            && let Ok(body) = AttestationBody::decode(&entry.content().body)
            && let Some(counter) = body.counter
        {
            return Ok(Some(counter.value));
        }
    }
    Ok(None)
}

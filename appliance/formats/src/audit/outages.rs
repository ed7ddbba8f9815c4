//! Audit of modes and outages: every entry's mode is the one the log says is in force, every outage is told from its
//! beginning to its end.
//!
//! Refuses to do: judge whether the world was really out of reach; the findings of the entries say what the box saw.
//! Invariants: modes are judged from the first mode change on (logs from before there were any have none); memory is
//! bounded by the number of batches in the outage under way, at most [`super::BOUNDARIES_MAX`].

use crate::body::manifest::{ManifestBody, Phase};
use crate::body::mode_change::{ModeChangeBody, OutageState, Vouched};
use crate::der::Octets32;
use crate::endorsement::AttestationKey;
use crate::entry::{Entry, Kind, Mode};
use crate::hash::Hash;
use crate::merkle::Frontier;
use crate::tpm::{self, TpmError};
use rasn::{AsnType, Decode, Decoder, Encode};
use std::collections::VecDeque;

/// What does not add up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutageError {
    /// The entry is in another mode than the log is in.
    #[error("its mode is {found}, and the log is in mode {expected} since its last mode change")]
    Mode {
        /// Mode in the entry.
        found: Mode,
        /// Mode in force.
        expected: Mode,
    },
    /// A mode change or manifest does not fit what came before.
    #[error("{0}")]
    Story(&'static str),
    /// Its quote does not hold.
    #[error("its quote: {0}")]
    Quote(#[from] TpmError),
}

/// The outage under way, or ended and not yet followed by `online` or the next.
#[derive(Debug, Clone)]
struct Outage {
    number: u64,
    drill: bool,
    first: u64,
    /// Without the closing one.
    manifests: u64,
    /// Index of the mode change that ended it: the first entry that is not of the outage.
    ended: Option<u64>,
    /// Index of the closing manifest.
    closing: Option<u64>,
    /// Tree over its leaves, and the seals among them.
    leaves: Frontier,
    seals: u64,
    /// Size of the log, root over the outage's leaves and seals among them, between its batches.
    boundaries: VecDeque<(u64, Hash, u64)>,
}

/// The modes and outages of one log, entry by entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Outages {
    mode: Option<Mode>,
    numbered: u64,
    outage: Option<Outage>,
}

#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct SavedBoundary {
    size: u64,
    root: Octets32,
    seals: u64,
}

#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
struct SavedOutage {
    number: u64,
    drill: bool,
    first: u64,
    manifests: u64,
    leaves: u64,
    peaks: Vec<Octets32>,
    seals: u64,
    boundaries: Vec<SavedBoundary>,
    #[rasn(tag(context, 0))]
    ended: Option<u64>,
    #[rasn(tag(context, 1))]
    closing: Option<u64>,
}

/// [`Outages`] laid aside.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SavedOutages {
    numbered: u64,
    #[rasn(tag(context, 0))]
    mode: Option<Mode>,
    #[rasn(tag(context, 1))]
    outage: Option<SavedOutage>,
}

impl Outages {
    pub(super) fn save(&self) -> SavedOutages {
        let outage = self.outage.as_ref().map(|outage| SavedOutage {
            number: outage.number,
            drill: outage.drill,
            first: outage.first,
            manifests: outage.manifests,
            leaves: outage.leaves.size(),
            peaks: outage.leaves.peaks().iter().map(|hash| Octets32::new(hash.0)).collect(),
            seals: outage.seals,
            boundaries: outage
                .boundaries
                .iter()
                .map(|(size, root, seals)| SavedBoundary {
                    size: *size,
                    root: Octets32::new(root.0),
                    seals: *seals,
                })
                .collect(),
            ended: outage.ended,
            closing: outage.closing,
        });
        SavedOutages { numbered: self.numbered, mode: self.mode, outage }
    }

    /// `None` when the tree of the outage does not add up.
    pub(super) fn resume(saved: SavedOutages) -> Option<Self> {
        let outage = match saved.outage {
            None => None,
            Some(outage) => Some(Outage {
                number: outage.number,
                drill: outage.drill,
                first: outage.first,
                manifests: outage.manifests,
                ended: outage.ended,
                closing: outage.closing,
                leaves: Frontier::from_peaks(
                    outage.leaves,
                    outage.peaks.iter().map(|hash| Hash(**hash)).collect(),
                )?,
                seals: outage.seals,
                boundaries: outage
                    .boundaries
                    .iter()
                    .map(|boundary| (boundary.size, Hash(*boundary.root), boundary.seals))
                    .collect(),
            }),
        };
        Some(Outages { mode: saved.mode, numbered: saved.numbered, outage })
    }

    /// Number and first entry of the outage that has begun and has no closing manifest yet, if it is no drill.
    pub(super) fn open(&self) -> Option<(u64, u64)> {
        let outage = self.outage.as_ref().filter(|outage| outage.closing.is_none() && !outage.drill)?;
        Some((outage.number, outage.first))
    }
}

impl Outage {
    fn new(number: u64, first: u64) -> Self {
        Outage {
            number,
            drill: false,
            first,
            manifests: 0,
            ended: None,
            closing: None,
            leaves: Frontier::new(),
            seals: 0,
            boundaries: VecDeque::new(),
        }
    }

    /// What a mode change says of it, beyond how long it has lasted.
    fn is_told(&self, state: &OutageState) -> bool {
        let last = self.ended.map(|index| index.saturating_sub(1));
        let told = (state.first, state.manifests, state.last, state.closing);
        told == (Some(self.first), self.manifests, last, self.closing)
    }
}

const fn story<T>(what: &'static str) -> Result<T, OutageError> {
    Err(OutageError::Story(what))
}

impl Outages {
    /// Between two batches: the log has `size` entries.
    pub(super) fn boundary(&mut self, size: u64) {
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.ended.is_none()) else { return };
        if outage.leaves.size() > 0 {
            if outage.boundaries.len() == super::BOUNDARIES_MAX {
                outage.boundaries.pop_front();
            }
            outage.boundaries.push_back((size, outage.leaves.root(), outage.seals));
        }
    }

    /// The next leaf, whatever it is.
    pub(super) fn leaf(&mut self, leaf: Hash, is_seal: bool) {
        if let Some(outage) = self.outage.as_mut().filter(|outage| outage.ended.is_none()) {
            outage.leaves.append(leaf);
            outage.seals += u64::from(is_seal);
        }
    }

    /// Whether the entry's mode is the one in force. A mode change is in its own new mode.
    pub(super) fn mode(&self, entry: &Entry) -> Result<(), OutageError> {
        let found = entry.content().mode;
        match self.mode {
            Some(expected) if entry.kind() != Some(Kind::ModeChange) && found != expected => {
                Err(OutageError::Mode { found, expected })
            }
            _ => Ok(()),
        }
    }

    /// The mode change at `index`.
    pub(super) fn change(
        &mut self,
        index: u64,
        entry: &Entry,
        body: &ModeChangeBody,
        origin: &str,
        key: &AttestationKey,
    ) -> Result<(), OutageError> {
        let said = &body.statement;
        if said.origin != origin || said.head.size > index {
            return story("the mode change is of another log, or of a tree that was not yet there");
        }
        if self.mode.is_some_and(|mode| mode != said.from) || entry.content().mode != said.to {
            return story(
                "the mode change does not begin in the mode in force, or its own mode is not the new one",
            );
        }
        quote(&body.vouched, &said.qualifying_data(), key)?;
        let begins = said.below == Mode::Emergency && said.outages == self.numbered + 1 && !self.is_open();
        let goes_on = said.outages == self.numbered && (said.below != Mode::Emergency || self.is_open());
        if !begins && !goes_on {
            return story("the outage it names is neither the one under way nor the next");
        }
        if matches!(said.below, Mode::Online | Mode::Degraded) && self.is_open() {
            return story("the box calls itself online before the outage has its closing manifest");
        }
        let told = match (&said.outage, &self.outage) {
            (Some(OutageState { first, manifests, last, closing, .. }), _) if begins => {
                (first, manifests, last, closing) == (&None, &0, &None, &None)
            }
            (Some(state), Some(outage)) => outage.is_told(state),
            (state, _) => state.is_none(),
        };
        if !told {
            return story("what it says of the outage is not what the log says");
        }
        // From here on the entry is believed.
        if begins {
            self.numbered = said.outages;
            self.outage = Some(Outage::new(said.outages, index));
        }
        if let (Some(_), Some(outage)) = (&said.outage, &mut self.outage) {
            outage.drill = entry.content().drill;
            if said.below == Mode::Reconciling {
                outage.ended = outage.ended.or(Some(index));
            }
        }
        self.mode = Some(said.to);
        Ok(())
    }

    fn is_open(&self) -> bool {
        self.outage.as_ref().is_some_and(|outage| outage.closing.is_none())
    }

    /// The manifest at `index`; `root` is the log's where the manifest says it was.
    pub(super) fn manifest(
        &mut self,
        index: u64,
        body: &ManifestBody,
        origin: &str,
        root: Option<Hash>,
        key: &AttestationKey,
    ) -> Result<(), OutageError> {
        let said = &body.statement;
        let Some(outage) = self.outage.as_mut().filter(|outage| outage.closing.is_none()) else {
            return story("the manifest is of an outage that has not begun, or is closed already");
        };
        if said.origin != origin || said.head.size > index || root != Some(said.head.root()) {
            return story("the manifest's head is no state this log was in between two batches");
        }
        if (said.outage, said.first, said.drill) != (outage.number, outage.first, outage.drill) {
            return story("the manifest names another outage than the one under way");
        }
        if said.sequence != outage.manifests || (said.phase == Phase::Open) != (outage.manifests == 0) {
            return story("the manifest is not the next of its outage");
        }
        if said.phase == Phase::Close && outage.ended != Some(said.head.size) {
            return story("the closing manifest does not go to the end of its outage, or there is none yet");
        }
        let at = outage.boundaries.binary_search_by_key(&said.head.size, |boundary| boundary.0).ok();
        let (entries, seals) = match at.and_then(|at| outage.boundaries.get(at)) {
            Some((_, root, seals)) => (*root, *seals),
            None => return story("the manifest's head is not one of its outage"),
        };
        if (Hash(*said.entries), said.seals) != (entries, seals) {
            return story("the manifest's root or number of seals is not that of the outage's entries");
        }
        quote(&body.vouched, &said.qualifying_data(), key)?;
        if said.phase == Phase::Close {
            outage.closing = Some(index);
            outage.boundaries.clear();
        } else {
            outage.manifests += 1;
        }
        Ok(())
    }
}

fn quote(vouched: &Vouched, qualifying: &Hash, key: &AttestationKey) -> Result<(), OutageError> {
    match (vouched, key) {
        (Vouched::None(_), _) => Ok(()),
        (Vouched::Quote(quote), AttestationKey::Tpm(key)) => {
            let facts = tpm::verify_quote(key, &quote.attest, &quote.signature, &qualifying.0)?;
            Ok(facts.check_pcrs(&quote.pcr_values())?)
        }
        (Vouched::Quote(_), AttestationKey::Software(_)) => story("a box without TPM has no quote"),
    }
}

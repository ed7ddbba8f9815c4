//! Challenges: neighbours' TPMs asked to vouch for them, and the own one for this box.
//!
//! The own TPM is asked by the attestor's thread, which seals nothing; the machine says for whom and how often. Whose key a
//! neighbour's answer must be by, entry 0 of its log says, as it is in the copy here.
//! Refuses to do: quote for anybody but the box at the other end of the connection, or bytes that somebody else chose;
//! believe an answer before its boot is durable.
//! Invariants: one quote is under way; a challenge is judged once.

use super::answer::respond;
use super::desk::Desk;
use crate::driver::clock::{boottime_millis, local_time, now_millis};
use bulla_formats::body::attestation::{AttestationBody, CheckpointClaim};
use bulla_formats::body::incident::IncidentBody;
use bulla_formats::body::key_epoch::KeyEpochBody;
use bulla_formats::der;
use bulla_formats::endorsement::AttestationKey;
use bulla_formats::enrolment::Enrolment;
use bulla_formats::entry::{Entry, Kind, LocalTime, Mode, TreeState};
use bulla_formats::hash::{empty_root, sha256};
use bulla_formats::note::checkpoint_text;
use bulla_formats::peer::challenge::{Boot, Challenge, ChallengeSaid, Distrust, Voucher};
use bulla_formats::peer::message::{Refusal, Said};
use bulla_formats::tpm::verify_quote;
use bulla_keys::KeyError;
use bulla_peers::Reply;
use bulla_protocol::gossip::{Attested, Failure, GossipEvent, Name};
use std::collections::{BTreeMap, HashMap};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};

/// So many entries are looked at for the newest attestation of a log.
const LOOK_BACK: u64 = 4_096;

/// A neighbour's challenge, until it is answered.
struct Call {
    from: Name,
    challenge: Challenge,
    reply: Reply,
}

type Quoted = (u64, Result<Voucher, KeyError>);

/// What the thread remembers of challenges.
pub(super) struct Challenges {
    /// Those of this box that are under way.
    put: HashMap<u64, Challenge>,
    /// Those of neighbours, until the machine has said what becomes of them.
    calls: HashMap<u64, Call>,
    last: u64,
    quoting: Option<(u64, Call)>,
    quoted: (Sender<Quoted>, Receiver<Quoted>),
    /// Keys that neighbours' logs name.
    keys: BTreeMap<Name, AttestationKey>,
    /// How often an operator has accepted a changed boot.
    pub accepted: BTreeMap<String, u64>,
    /// Since when a neighbour is not good.
    bad: BTreeMap<Name, LocalTime>,
    outage: bool,
}

impl Challenges {
    pub fn new(accepted: BTreeMap<String, u64>) -> Self {
        Challenges {
            put: HashMap::new(),
            calls: HashMap::new(),
            last: 0,
            quoting: None,
            quoted: channel(),
            keys: BTreeMap::new(),
            accepted,
            bad: BTreeMap::new(),
            outage: false,
        }
    }

    /// Whoever is no neighbour any more is forgotten.
    pub fn retain(&mut self, is_known: impl Fn(&Name) -> bool) {
        self.keys.retain(|name, _| is_known(name));
        self.bad.retain(|name, _| is_known(name));
    }

    pub fn judged(&mut self, ticket: u64) {
        self.put.remove(&ticket);
    }

    /// Where a neighbour's key is, as far as its log has been asked.
    pub fn key_class(&self, peer: &Name) -> Option<&'static str> {
        self.keys.get(peer).map(|key| if key.tpm().is_some() { "tpm" } else { "software" })
    }

    fn accepted(&self, origin: &str) -> u64 {
        self.accepted.get(origin).copied().unwrap_or(0)
    }
}

/// How a neighbour's TPM vouches for it, as status shows it. Times are Unix milliseconds by this box's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attestation {
    /// `never`, `fresh`, `stale` or `refused`.
    pub state: &'static str,
    /// Why it is refused.
    pub reason: Option<&'static str>,
    /// Since when it is fresh without a gap, or refused.
    pub since: Option<u64>,
    /// When its last good answer came.
    pub last: Option<u64>,
    /// Where the key is that its log enrols: `tpm` or `software`. `None` until it has been challenged.
    pub key: Option<&'static str>,
}

impl Attestation {
    pub(super) fn of(attested: Attested, key: Option<&'static str>) -> Self {
        let (steady, wall) = (boottime_millis(), now_millis());
        let unix = |at: u64| Some(wall.saturating_sub(steady.saturating_sub(at)));
        let (state, reason, since, last) = match attested {
            Attested::Never => ("never", None, None, None),
            Attested::Fresh { since, last } => ("fresh", None, unix(since), unix(last)),
            Attested::Stale { last } => ("stale", None, None, unix(last)),
            Attested::Refused { why, since } => ("refused", Some(why.name()), unix(since), None),
        };
        Attestation { state, reason, since, last, key }
    }
}

fn row(origin: &str) -> String {
    format!("peer-boot/{}", sha256(&[origin.as_bytes()]))
}

impl Desk {
    /// Makes a challenge; none to a neighbour whose answer could not be judged.
    pub(super) fn challenge(&mut self, ticket: u64, peer: &Name) -> Result<Challenge, Failure> {
        self.attestation_key(peer)?;
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|_| Failure::Own)?;
        let facts = self.machine.facts().into_iter().find(|facts| facts.peer == *peer);
        let state = facts.ok_or(Failure::Own)?.state;
        let heads = [state.witnessed, state.mirrored].into_iter().flatten();
        let newest = heads.max_by_key(|head| head.size);
        let head =
            newest.map_or(TreeState::new(0, empty_root()), |head| TreeState::new(head.size, head.root));
        let card = self.cards.get(peer).ok_or(Failure::Silence)?;
        let challenge = Challenge::new(&self.own.card, card, nonce, head);
        self.challenges.put.insert(ticket, challenge.clone());
        Ok(challenge)
    }

    /// Judges the answer.
    pub(super) fn judge_challenge(
        &mut self,
        ticket: u64,
        peer: &Name,
        said: &ChallengeSaid,
    ) -> Result<GossipEvent, Failure> {
        let key = self.attestation_key(peer)?;
        let card = self.cards.get(peer).ok_or(Failure::Silence)?;
        let challenge = self.challenges.put.get(&ticket).ok_or(Failure::Own)?;
        match said.verify(challenge, card, &key) {
            Ok((_, boot)) => {
                self.hear(peer, &said.head, 0);
                Ok(GossipEvent::Vouched { ticket, boot })
            }
            Err(error) => {
                log::warn!("{peer}: its answer to a challenge does not hold: {error}");
                Ok(GossipEvent::Disowned { ticket, why: error.distrust() })
            }
        }
    }

    /// The key that entry 0 of a neighbour's log enrols.
    fn attestation_key(&mut self, peer: &Name) -> Result<AttestationKey, Failure> {
        if let Some(key) = self.challenges.keys.get(peer) {
            return Ok(key.clone());
        }
        let key = self.enrolled_key(peer).map_err(|reason| {
            log::debug!("{peer}: its attestation key is not known: {reason}");
            Failure::Own
        })?;
        self.challenges.keys.insert(peer.clone(), key.clone());
        Ok(key)
    }

    fn enrolled_key(&self, peer: &Name) -> Result<AttestationKey, String> {
        let reader = self.reader(peer).ok_or("there is no copy of its log")?;
        let entry = Entry::decode(&reader.entry(0).map_err(|error| error.to_string())?);
        let entry = entry.map_err(|error| error.to_string())?;
        if entry.kind() != Some(Kind::KeyEpoch) {
            return Err("its log does not begin with a key epoch".to_owned());
        }
        let body = KeyEpochBody::decode(&entry.content().body).map_err(|error| error.to_string())?;
        let enrolment = Enrolment::decode(&body.enrolment.ok_or("entry 0 enrols nobody")?);
        let content = enrolment.map_err(|error| error.to_string())?.content;
        let log_key = self.cards.get(peer).map(|card| card.content().log_key);
        if *content.origin != **peer || Some(content.log_key) != log_key {
            return Err("entry 0 enrols another log than the one on the card".to_owned());
        }
        AttestationKey::read(content.hardware, &content.attestation_key).map_err(|error| error.to_string())
    }

    /// What is known of a neighbour's boot: what was kept, else what the newest attestation in its log says.
    pub(super) fn known_boot(&mut self, peer: &Name) -> Option<Boot> {
        let accepted = self.challenges.accepted(peer);
        let kept = match self.control.get(&row(peer)) {
            Ok(kept) => kept,
            Err(error) => {
                log::error!("what is known of {peer}'s boot cannot be read: {error}");
                None
            }
        };
        if let Some((of, boot)) = kept.as_deref().and_then(|kept| kept.split_first_chunk::<8>())
            && u64::from_be_bytes(*of) == accepted
        {
            return Boot::decode(boot).ok();
        }
        if accepted > 0 { None } else { self.attested_boot(peer) }
    }

    fn attested_boot(&mut self, peer: &Name) -> Option<Boot> {
        let size = self.edge(peer).size();
        if size == 0 {
            return None;
        }
        let key = self.attestation_key(peer).ok()?;
        let (ak, reader) = (key.tpm()?, self.reader(peer)?);
        (size.saturating_sub(LOOK_BACK)..size).rev().find_map(|index| {
            let entry = Entry::decode(&reader.entry(index).ok()?).ok()?;
            let body = (entry.kind() == Some(Kind::Attestation)).then_some(&entry.content().body)?;
            let AttestationBody { head, quote, .. } = AttestationBody::decode(body).ok()?;
            let (quote, text) = (quote?, checkpoint_text(peer, head.size, &head.root()));
            let claim = CheckpointClaim { origin: peer.to_string(), text: text.into_bytes().into() };
            let qualifying = claim.qualifying_data();
            let facts = verify_quote(ak, &quote.attest, &quote.signature, &qualifying.0).ok()?;
            Boot::of_quote(&facts, &quote).ok()
        })
    }

    /// Makes a neighbour's boot durable.
    pub(super) fn keep_boot(&mut self, ticket: u64, peer: &Name, boot: &Boot) {
        let value = [&self.challenges.accepted(peer).to_be_bytes()[..], &boot.encode()].concat();
        let event = match self.control.put(&row(peer), &value) {
            Ok(()) => GossipEvent::BootKept { ticket },
            Err(error) => {
                log::warn!("the boot of {peer} is not durable: {error}");
                GossipEvent::BootNotKept { ticket }
            }
        };
        self.events.push_back(event);
    }

    /// Has the log say how a neighbour's answers have changed.
    pub(super) fn log_trust(
        &mut self,
        ticket: u64,
        peer: &Name,
        before: Option<Distrust>,
        why: Option<Distrust>,
    ) {
        let logged = match (before, why) {
            (_, Some(why)) => {
                self.challenges.bad.entry(peer.clone()).or_insert_with(local_time);
                let detail = format!("{peer} does not answer challenges as it did: {}", why.name());
                self.log_incident(why.incident(), &detail)
            }
            (Some(before), None) => {
                let began = self.challenges.bad.get(peer).cloned().unwrap_or_else(local_time);
                let detail = format!("{peer} answers challenges as it did before");
                let code = before.incident().to_owned();
                let body = IncidentBody { code, began, ended: Some(local_time()), detail };
                self.append(Kind::Incident, der::encode(&body))
            }
            // Nothing has changed after all.
            (None, None) => return self.events.push_back(GossipEvent::Logged { ticket }),
        };
        let event = match logged {
            Ok(index) => {
                if why.is_none() {
                    log::info!("{peer} answers challenges as it did before (entry {index})");
                    self.challenges.bad.remove(peer);
                }
                GossipEvent::Logged { ticket }
            }
            Err(error) => {
                log::warn!("how {peer} answers challenges is not logged yet: {error}");
                GossipEvent::NotLogged { ticket }
            }
        };
        self.events.push_back(event);
    }

    /// A neighbour challenges this box.
    pub(super) fn challenged(&mut self, from: &Name, challenge: Challenge, reply: Reply) {
        if let Err(refusal) = self.check_challenge(from, &challenge) {
            return respond(from, reply, Err((refusal, None)));
        }
        self.challenges.last += 1;
        let call = self.challenges.last;
        self.challenges.calls.insert(call, Call { from: from.clone(), challenge, reply });
        self.tell(GossipEvent::Challenged { from: from.clone(), call });
    }

    fn check_challenge(&self, from: &Name, challenge: &Challenge) -> Result<(), Refusal> {
        let card = self.cards.get(from).ok_or(Refusal::UnknownLog)?;
        if !challenge.is_between(card, &self.own.card) {
            return Err(Refusal::OtherPeer);
        }
        let signed = self.signed().filter(|_| !self.is_halted()).ok_or(Refusal::NotHeld)?;
        let TreeState { size, .. } = challenge.head;
        let known = size <= signed.snapshot.size();
        let ours = known && self.root_at(&self.name, size) == Some(challenge.head.root());
        if size == 0 || ours { Ok(()) } else { Err(Refusal::OtherTree) }
    }

    pub(super) fn busy(&mut self, call: u64, after: u64) {
        if let Some(Call { from, reply, .. }) = self.challenges.calls.remove(&call) {
            respond(&from, reply, Err((Refusal::Busy, Some(after))));
        }
    }

    /// Has the TPM vouch; whoever seals does not wait for it.
    pub(super) fn quote(&mut self, call: u64) {
        let Some(asked) = self.challenges.calls.remove(&call) else {
            return self.events.push_back(GossipEvent::QuoteDone { call });
        };
        let (sender, handle) = (self.challenges.quoted.0.clone(), self.handle());
        let then = move |voucher| {
            // The thread that listens may have ended.
            let _ = sender.send((call, voucher));
            handle.look();
        };
        if self.attestor.vouch(asked.challenge.qualifying_data(), Box::new(then)) {
            self.challenges.quoting = Some((call, asked));
        } else {
            respond(&asked.from, asked.reply, Err((Refusal::Unavailable, None)));
            self.events.push_back(GossipEvent::QuoteDone { call });
        }
    }

    /// An operator has said of which neighbours whatever boot they show next is right.
    pub(super) fn take_accepted(&mut self, accepted: BTreeMap<String, u64>) {
        let before = std::mem::replace(&mut self.challenges.accepted, accepted);
        let changed = |name: &&Name| self.challenges.accepted.get(&***name) != before.get(&***name);
        for peer in self.cards.keys().filter(changed).cloned().collect::<Vec<_>>() {
            log::info!("an operator accepts whatever boot {peer} shows next");
            self.tell(GossipEvent::BootAccepted(peer));
        }
    }

    /// Answers what the TPM has vouched for meanwhile; and notices an outage.
    pub(super) fn look_at_challenges(&mut self) {
        while let Ok((call, voucher)) = self.challenges.quoted.1.try_recv() {
            if let Some((_, asked)) = self.challenges.quoting.take_if(|quoting| quoting.0 == call) {
                let said = self.quoted(voucher);
                respond(&asked.from, asked.reply, said.map_err(|refusal| (refusal, None)));
            }
            self.tell(GossipEvent::QuoteDone { call });
        }
        let outage = self.has_outage();
        if outage != self.challenges.outage {
            self.challenges.outage = outage;
            self.tell(GossipEvent::Outage(outage));
        }
    }

    fn has_outage(&self) -> bool {
        let facts = self.shared.outage.read().unwrap_or_else(PoisonError::into_inner);
        facts.as_ref().is_some_and(|facts| facts.modes.below == Mode::Emergency)
    }

    fn quoted(&self, voucher: Result<Voucher, KeyError>) -> Result<Said, Refusal> {
        let voucher = voucher.map_err(|error| {
            // The attestor says so itself, once.
            log::debug!("a neighbour's challenge is not answered: {error}");
            if matches!(error, KeyError::OtherTpm { .. }) { Refusal::OtherTpm } else { Refusal::Unavailable }
        })?;
        let head = self.signed().filter(|_| !self.is_halted()).ok_or(Refusal::NotHeld)?.note.clone();
        self.shared.counters.neighbour_quotes.fetch_add(1, Relaxed);
        Ok(Said::Challenge(ChallengeSaid { origin: self.name.to_string(), head, voucher }))
    }
}

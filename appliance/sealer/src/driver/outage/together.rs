//! Heads of a site anchored together: this box's offers, and what it makes of those of others.
//!
//! `bulla_protocol::site` decides; the neighbours' thread carries the messages, and a neighbour's head comes from there
//! verified by its card. What a neighbour hands over is judged here, as strictly as an authority's own answer: the own head,
//! the path from it, and each stamp by the authorities that this box trusts.
//! Refuses to do: log what somebody else asked for before all of it holds; tell the time by it, because nobody here knows
//! when it was asked for.
//! Invariants: a batch is the own checkpoint and those that were gathered for it, in one order; what is handed over was
//! verified when it came; what is kept here is dropped once neither the planner nor the machine wants it.

use super::desk::Desk;
use super::tree;
use crate::driver::Condition;
use crate::driver::clock::boottime_millis;
use crate::driver::neighbours::{self, SiteWord};
use bulla_formats::anchoring;
use bulla_formats::body::anchor::{AnchorBody, AnchorProof, Evidence, PROOFS_MAX};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::TreeState;
use bulla_formats::note::checkpoint_text;
use bulla_formats::peer::message::{Answer, Refusal, Said};
use bulla_formats::peer::site::{HANDED_BYTES_MAX, SiteAnchor, SiteAsked, SiteWish};
use bulla_peers::Reply;
use bulla_protocol::anchoring::{AnchorEvent, Batch};
use bulla_protocol::gossip::{Head, Name};
use bulla_protocol::site::{
    Judged, Site, SiteAnswer, SiteAsk, SiteConfig, SiteEffect, SiteEvent, SiteFinding,
};
use bulla_timestamps::Refusal as StampRefusal;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What the neighbours' thread tells of heads that are anchored together.
pub(in crate::driver) enum SiteNews {
    /// A neighbour that anchors are shared with can be asked.
    Connected(Name),
    /// It cannot, or is none any more.
    Disconnected(Name),
    /// It offers.
    Offered(Name, Reply),
    /// It hands over an anchor.
    Handed(Name, Box<SiteAnchor>, Reply),
    /// It has given a head, signed by its log.
    Wished(u64, Head),
    /// It has taken what was handed over, or never will.
    Taken {
        ticket: u64,
        /// Whether it has taken it.
        taken: bool,
    },
    /// It gives nothing, or says nothing.
    Failed(u64),
}

/// Whoever waits for an answer.
struct Call {
    from: Name,
    reply: Reply,
    /// The note of the head that an offer is answered with.
    note: String,
    /// By which authorities of this box an anchor is that was handed over, and how it is logged.
    handed: Option<(Vec<usize>, AnchorBody)>,
}

/// What neighbours are handed of one gathering.
struct Handing {
    heads: Vec<(Name, Head)>,
    batch: tree::Batch,
    proofs: Vec<AnchorProof>,
}

/// The machine, and what it leaves to the thread.
pub(super) struct Together {
    machine: Site,
    neighbours: neighbours::Handle,
    calls: HashMap<u64, Call>,
    last: u64,
    gathered: BTreeMap<u64, Vec<(Name, Head)>>,
    handing: BTreeMap<u64, Handing>,
    /// By call: by which authorities of this box, and how it is logged.
    handed: BTreeMap<u64, (Vec<usize>, AnchorBody)>,
}

/// How it goes, as status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TogetherFacts {
    /// For whom this box holds off, and for how many milliseconds still.
    pub holding: Option<(String, u64)>,
    /// Neighbours that are still to be handed an anchor.
    pub owed: usize,
    /// Neighbours that are left alone because an anchor of theirs did not hold.
    pub refused: Vec<String>,
}

impl Together {
    pub fn new(own: &str, neighbours: neighbours::Handle) -> Self {
        Together {
            machine: Site::new(SiteConfig::default(), Arc::from(own)),
            neighbours,
            calls: HashMap::new(),
            last: 0,
            gathered: BTreeMap::new(),
            handing: BTreeMap::new(),
            handed: BTreeMap::new(),
        }
    }

    pub fn next_wakeup(&self) -> Option<u64> {
        self.machine.next_wakeup()
    }

    pub fn facts(&self) -> TogetherFacts {
        let facts = self.machine.facts();
        TogetherFacts {
            holding: facts.holding.map(|(from, millis)| (from.to_string(), millis)),
            owed: facts.owed,
            refused: facts.blamed.iter().map(|name| name.to_string()).collect(),
        }
    }

    /// The heads that were gathered under this ticket.
    pub fn heads(&self, gather: u64) -> &[(Name, Head)] {
        self.gathered.get(&gather).map_or(&[], Vec::as_slice)
    }

    pub fn handed(&self, handed: u64) -> Option<&AnchorBody> {
        self.handed.get(&handed).map(|(_, body)| body)
    }

    fn call(&mut self, call: Call) -> u64 {
        self.last += 1;
        self.calls.insert(self.last, call);
        self.last
    }
}

impl Desk {
    /// Tells the machine; what it wants is done with everything else.
    pub(super) fn site(&mut self, event: SiteEvent) {
        if let Some(together) = &mut self.together {
            let effects = together.machine.handle(event, boottime_millis());
            self.want_of_site(effects);
        }
    }

    pub(super) fn site_news(&mut self, news: SiteNews) {
        let event = match news {
            SiteNews::Connected(name) => SiteEvent::Connected(name),
            SiteNews::Disconnected(name) => SiteEvent::Disconnected(name),
            SiteNews::Wished(ticket, head) => SiteEvent::Wished { ticket, head },
            SiteNews::Taken { ticket, taken } => {
                self.shared.counters.site_given.fetch_add(u64::from(taken), Relaxed);
                SiteEvent::Taken { ticket }
            }
            SiteNews::Failed(ticket) => SiteEvent::Failed { ticket },
            SiteNews::Offered(from, reply) => return self.offered(from, reply),
            SiteNews::Handed(from, anchor, reply) => return self.handed(from, &anchor, reply),
        };
        self.site(event);
    }

    fn offered(&mut self, from: Name, reply: Reply) {
        let halted = matches!(*self.shared.condition.borrow(), Condition::RollbackSuspected { .. });
        let signed = self.shared.published().filter(|_| !halted && self.planner.lacks_anchor());
        let lacking =
            signed.as_ref().map(|signed| Head { size: signed.snapshot.size(), root: signed.snapshot.root() });
        let note = signed.map(|signed| signed.note.clone()).unwrap_or_default();
        let Some(together) = &mut self.together else { return };
        let call = together.call(Call { from: from.clone(), reply, note, handed: None });
        self.site(SiteEvent::Offered { from, call, lacking });
    }

    fn handed(&mut self, from: Name, anchor: &SiteAnchor, reply: Reply) {
        let (judged, handed) = match self.judge_handed(anchor) {
            Ok((places, body)) => {
                let head = Head { size: body.head.size, root: body.head.root() };
                (Judged::Holds { head, stamps: places.len() }, Some((places, body)))
            }
            Err(why) => {
                log::warn!("{from} hands over an anchor that does not hold: {why}");
                (Judged::False, None)
            }
        };
        let Some(together) = &mut self.together else { return };
        let call = together.call(Call { from: from.clone(), reply, note: String::new(), handed });
        self.site(SiteEvent::Handed { from, call, judged });
    }

    /// What this box would log of an anchor that was handed over, and by which of its authorities that is; or why it is not
    /// what it says. Stamps of authorities that are not its own, or that it does not rely on now, are left out.
    fn judge_handed(&self, anchor: &SiteAnchor) -> Result<(Vec<usize>, AnchorBody), String> {
        let (body, own) = (&anchor.body, self.shared.origin.as_str());
        if anchor.origin != own {
            return Err(format!("it is of the log {}", anchor.origin));
        }
        let TreeState { size, .. } = body.head;
        let known = size <= self.shared.reader.size();
        if !known || self.shared.reader.root_at(size).ok() != Some(body.head.root()) {
            return Err(format!("this log never had that tree of {size} entries"));
        }
        anchor
            .leads()
            .map_err(|error| format!("its path does not lead from the head to the batch: {error}"))?;
        let mut found = Vec::<(usize, AnchorProof)>::new();
        for proof in &body.proofs {
            let Evidence::Timestamp(reply) = &proof.evidence else {
                return Err("it has something else than time stamps".to_owned());
            };
            if let Some(place) = self.by_whom(body, reply, &proof.authority)?
                && found.iter().all(|(known, _)| *known != place)
            {
                let authority = &self.authorities[place];
                let (name, operator) = (authority.id.clone(), authority.operator.clone());
                found.push((
                    place,
                    AnchorProof { authority: name, operator, evidence: proof.evidence.clone() },
                ));
            }
        }
        found.sort_by(|a, b| a.1.authority.cmp(&b.1.authority));
        let (places, proofs) = found.into_iter().unzip();
        Ok((places, AnchorBody { proofs, manifests: Vec::new(), ..body.clone() }))
    }

    /// By which authority of this box a stamp over this batch is, if it may count.
    fn by_whom(&self, body: &AnchorBody, reply: &[u8], named: &str) -> Result<Option<usize>, String> {
        let mut places: Vec<usize> = (0..self.lines.len()).collect();
        places.sort_by_key(|place| self.authorities[*place].id != named);
        for place in places {
            let Some(tsa) = self.lines[place].stamps() else { continue };
            match anchoring::stamp(body, reply, &tsa.authority) {
                Ok(stamp) => {
                    let counts = self.shared.crls.doubt(&stamp).is_none() && self.relied_on(place).is_ok();
                    return Ok(counts.then_some(place));
                }
                Err(StampRefusal::Untrusted | StampRefusal::Policy(_)) => {}
                Err(error) => return Err(format!("a time stamp in it: {error}")),
            }
        }
        Ok(None)
    }

    pub(super) fn site_effect(&mut self, effect: SiteEffect) {
        match effect {
            SiteEffect::Ask { ticket, peer, ask } => self.ask_neighbour(ticket, peer, ask),
            SiteEffect::Gathered { ticket, heads } => {
                let count = heads.len();
                if let Some(together) = &mut self.together {
                    together.gathered.insert(ticket, heads);
                }
                self.plan(AnchorEvent::Gathered { ticket, heads: count });
            }
            SiteEffect::HoldOff { until } => self.plan(AnchorEvent::HoldOff { until }),
            SiteEffect::Answer { call, answer } => self.answer_neighbour(call, answer),
            SiteEffect::Take { call } => self.take_handed(call),
            SiteEffect::Report(SiteFinding::Lied { peer }) => {
                self.shared.counters.site_refused.fetch_add(1, Relaxed);
                self.accuse(
                    peer,
                    "the anchor that it handed over does not hold; none is taken of it for a while",
                );
            }
            SiteEffect::Report(SiteFinding::Late { peer }) => {
                self.accuse(peer, "it offered to have the log anchored, and nothing came of it in time");
            }
        }
    }

    fn accuse(&self, peer: Name, what: &str) {
        log::warn!("{peer}: {what}");
        if let Some(together) = &self.together {
            // One that is lost is in the journal, and counted.
            let _ = together.neighbours.site(SiteWord::Trouble(peer, what.to_owned()));
        }
    }

    fn ask_neighbour(&mut self, ticket: u64, peer: Name, ask: SiteAsk) {
        let Some(together) = &self.together else { return };
        let anchored = match ask {
            SiteAsk::Offer => None,
            SiteAsk::HandOver { gather } => {
                let Some(anchor) = together.handing.get(&gather).and_then(|handing| handing.of(&peer)) else {
                    return self.site(SiteEvent::Taken { ticket });
                };
                Some(anchor)
            }
        };
        if !together.neighbours.site(SiteWord::Ask(ticket, peer, Box::new(SiteAsked { anchored }))) {
            self.site(SiteEvent::Failed { ticket });
        }
    }

    fn answer_neighbour(&mut self, call: u64, answer: SiteAnswer) {
        let Some(together) = &mut self.together else { return };
        let Some(Call { from, reply, note, handed }) = together.calls.remove(&call) else { return };
        let said = match answer {
            SiteAnswer::Give => {
                Ok(Said::Site(SiteWish { origin: self.shared.origin.to_string(), head: note }))
            }
            SiteAnswer::Taken => Ok(Said::Taken(())),
            SiteAnswer::NotNeeded => Err(Refusal::NotNeeded),
            SiteAnswer::NotGenuine => Err(Refusal::NotGenuine),
        };
        if let (SiteAnswer::Taken, Some((places, body))) = (answer, handed) {
            let (size, count) = (body.head.size, body.batch.size);
            log::info!("{from} has had {size} entries anchored with {count} heads of the site");
            together.handed.insert(call, (places, body));
        }
        let answer = said.map_or_else(|refusal| Answer::refused(refusal, None), Answer::new);
        if let Err(error) = reply.answer(answer.encode()) {
            log::debug!("{from} has no answer: {error}");
        }
    }

    fn take_handed(&mut self, call: u64) {
        let taken = self.together.as_ref().and_then(|together| together.handed.get(&call));
        let Some((authorities, size)) = taken.map(|(places, body)| (places.clone(), body.head.size)) else {
            return;
        };
        self.shared.counters.site_taken.fetch_add(1, Relaxed);
        self.plan(AnchorEvent::Handed { handed: call, size, authorities });
    }

    /// What came over what was gathered can be handed to whoever gave a head.
    pub(super) fn hand_over(&mut self, gather: u64, size: u64, authorities: &[usize]) {
        let known = self.together.as_ref().is_none_or(|together| together.handing.contains_key(&gather));
        let batch = Batch::Gathered { gather };
        let proof = |place: &usize| Some(self.proofs.get(&(batch, size, *place))?.proof.clone());
        let stamps = authorities.iter().filter_map(proof);
        let mut proofs: Vec<AnchorProof> =
            stamps.filter(|proof| matches!(proof.evidence, Evidence::Timestamp(_))).collect();
        proofs.sort_by(|a, b| a.authority.cmp(&b.authority));
        let mut room = HANDED_BYTES_MAX;
        proofs.retain(|proof| {
            let bytes = der::encode(proof).len();
            let fits = bytes <= room;
            room = if fits { room - bytes } else { room };
            fits
        });
        proofs.truncate(PROOFS_MAX);
        if known || proofs.is_empty() {
            return;
        }
        match self.batch(size, batch) {
            Ok((tree, _)) => {
                if let Some(together) = &mut self.together {
                    let heads = together.heads(gather).to_vec();
                    together.handing.insert(gather, Handing { heads, batch: tree, proofs });
                }
                self.site(SiteEvent::Anchored { gather });
            }
            Err(error) => log::warn!("what came cannot be handed to the neighbours: {error}"),
        }
    }

    /// Forgets what nobody wants any more.
    pub(super) fn tidy_site(&mut self) {
        let Some(Together { machine, gathered, handing, handed, .. }) = &mut self.together else { return };
        gathered.retain(|gather, _| machine.wants(*gather) || self.planner.wants_gathered(*gather));
        handing.retain(|gather, _| machine.wants(*gather));
        handed.retain(|call, _| self.planner.wants_handed(*call));
    }
}

impl Handing {
    /// What is handed to this neighbour.
    fn of(&self, peer: &Name) -> Option<SiteAnchor> {
        let at = self.heads.iter().position(|(name, _)| name == peer)?;
        let (origin, head) = (peer.to_string(), self.heads[at].1);
        // The first place is this box's own.
        let path = self.batch.path(at + 1).iter().map(|hash| Octets32::new(hash.0)).collect();
        let body = AnchorBody {
            version: 1,
            batch: self.batch.state(),
            index: at as u64 + 1,
            path,
            head: TreeState::new(head.size, head.root),
            proofs: self.proofs.clone(),
            manifests: Vec::new(),
        };
        Some(SiteAnchor { origin, body })
    }
}

/// The checkpoint texts of what was gathered.
pub(super) fn texts(heads: &[(Name, Head)]) -> impl Iterator<Item = String> {
    heads.iter().map(|(name, head)| checkpoint_text(name, head.size, &head.root))
}

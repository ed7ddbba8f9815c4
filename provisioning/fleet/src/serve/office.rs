//! The registrar at work: decides with the pure core, keeps what it says on the shelf, and only then answers.
//!
//! Refuses to do: issue anything that is not in the roster exactly as it would be signed.
//! Invariants: one enrolment is decided at a time, under the shelf's lock; an answer leaves after its step is durable.

use super::Demands;
use crate::cards::Cards;
use crate::configuration;
use crate::desk::read_roster;
use crate::enrolments::Shelf;
use crate::exit::{Exit, Failure};
use bulla_enrolment::issue::{FleetCa, IssueError};
use bulla_enrolment::record::{Record, Stage};
use bulla_enrolment::refusal::Refusal;
use bulla_enrolment::registrar::{Book, Registrar, Standing, Step};
use bulla_enrolment::wire::{Answer, Evidence, Refused, Request};
use bulla_formats::der::Octets32;
use bulla_formats::enrolment::EnrolmentContent;
use bulla_formats::hash::Hash;
use bulla_formats::origin::Origin;
use bulla_formats::peer::roster::{RosterRequest, RosterSaid};
use bulla_roster::inventory::{Listed, State};
use bulla_roster::roster::Roster;
use bulla_roster::{RosterRefusal, delivery};
use rasn::types::OctetString;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Most requests of one TPM that nothing proves yet: its certificate is no secret, so anybody can send them.
const UNPROVEN_MAX: usize = 8;

/// The registrar and everything it looks into.
pub struct Office {
    registrar: Registrar,
    demands: Demands,
    /// Version of the roster that said last which boots are good.
    boots_by: Option<u64>,
    authority: FleetCa,
    shelf: Shelf,
    cards: Cards,
    roster: Copied,
    /// The fleet directory.
    fleet: PathBuf,
    /// Requests by the endorsement key they name, oldest first.
    unproven: BTreeMap<OctetString, VecDeque<Hash>>,
}

/// The roster of the fleet directory, read again when its file is another.
struct Copied {
    path: PathBuf,
    seen: Option<(SystemTime, u64)>,
    roster: Roster,
}

impl Copied {
    fn open(fleet: &Path) -> Result<Self, Failure> {
        let path = fleet.join(crate::desk::ROSTER);
        Ok(Copied { roster: read_roster(&path)?, seen: None, path })
    }

    fn current(&mut self) -> Result<&Roster, Failure> {
        let metadata = fs::metadata(&self.path).map_err(|error| Failure::file("read", &self.path, error))?;
        let now = (metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len());
        if self.seen != Some(now) {
            let fresh = read_roster(&self.path)?;
            // A copy that came back from a backup would bring back who has left.
            fresh.check_seen(self.roster.version())?;
            (self.roster, self.seen) = (fresh, Some(now));
        }
        Ok(&self.roster)
    }
}

/// What the pure core looks up, for one enrolment.
struct Books<'a> {
    roster: &'a Roster,
    record: Option<Record>,
}

impl Book for Books<'_> {
    fn standing(&self, ek_spki_sha256: &Hash) -> Standing {
        let Some(listed) = self.roster.inventory().get(&Octets32::new(ek_spki_sha256.0)) else {
            return Standing::Unknown;
        };
        match listed.state {
            State::Expected | State::Enrolled => Standing::Expected,
            State::Quarantined => Standing::Quarantined,
            State::Revoked | State::Retired => {
                let reason = listed.tombstones.last().map(|stone| stone.revocation.cause.name());
                Standing::Tombstoned { reason: reason.unwrap_or("it left").to_owned() }
            }
        }
    }

    fn record(&self, transcript: &Hash) -> Option<Record> {
        self.record.clone().filter(|record| record.transcript() == *transcript)
    }

    fn newest_log(&self, ek_spki_sha256: &Hash) -> Option<(u64, [u8; 32])> {
        let listed = self.roster.inventory().get(&Octets32::new(ek_spki_sha256.0))?;
        let log = listed.all_logs().next_back()?;
        Some((Origin::parse(&log.origin).ok()?.incarnation(), *log.log_key))
    }

    fn log_in_use(&self, ek_spki_sha256: &Hash) -> Option<EnrolmentContent> {
        self.roster.inventory().get(&Octets32::new(ek_spki_sha256.0))?.in_use().cloned()
    }

    fn membership(&self, origin: &str) -> Option<EnrolmentContent> {
        let mut logs = self.roster.inventory().boxes().flat_map(Listed::all_logs);
        logs.find(|log| log.origin == origin).cloned()
    }
}

impl Office {
    /// Opens it over a fleet directory.
    pub fn open(
        fleet: &Path,
        registrar: Registrar,
        demands: Demands,
        authority: FleetCa,
    ) -> Result<Self, Failure> {
        let (shelf, roster) = (Shelf::open(fleet)?, Copied::open(fleet)?);
        let mut office = Office {
            registrar,
            demands,
            boots_by: None,
            authority,
            shelf,
            cards: Cards::open(fleet),
            roster,
            fleet: fleet.to_owned(),
            unproven: BTreeMap::new(),
        };
        let _lock = office.shelf.lock()?;
        for record in office.shelf.all()? {
            office.make_room(&record)?;
        }
        Ok(office)
    }

    /// Counts a request that nothing proves yet, and forgets the oldest of its TPM when they are too many. The box whose
    /// it was asks again.
    fn make_room(&mut self, record: &Record) -> Result<(), Failure> {
        if record.stage() != Stage::Requested {
            return Ok(());
        }
        let requests = self.unproven.entry(record.request().ek_public).or_default();
        requests.push_back(record.transcript());
        while requests.len() > UNPROVEN_MAX {
            let Some(oldest) = requests.pop_front() else { break };
            if self.shelf.get(&oldest)?.is_some_and(|record| record.stage() == Stage::Requested) {
                self.shelf.forget(&oldest)?;
            }
        }
        Ok(())
    }

    /// A box asks to be enrolled.
    pub fn ask(&mut self, request: &[u8], channel: &[u8; 32]) -> Result<Answer, Failure> {
        let transcript = bulla_enrolment::proof::transcript(request);
        // Nothing is read from the disk for what is no request.
        let known = Request::decode(request).is_ok().then_some(transcript);
        self.decide(known, |registrar, books, now| {
            let mut failed = None;
            let step = registrar.ask(books, request, channel, now, &mut |bytes| {
                failed = getrandom::fill(bytes).err();
            });
            match failed {
                None => Ok(step),
                Some(error) => {
                    Err(Failure::usage(format!("the operating system gives no randomness: {error}")))
                }
            }
        })
    }

    /// A member hands in its card, and asks what is new of the roster. The inner error: why it is told nothing.
    pub fn roster(
        &mut self,
        request: &[u8],
        channel: &[u8; 32],
    ) -> Result<Result<RosterSaid, String>, Failure> {
        let (content, card) = match RosterRequest::open(request, channel) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let _lock = self.shelf.lock()?;
        let roster = self.roster.current()?;
        if content.fleet != roster.fleet() {
            return Ok(Err(format!("this is the registrar of {}, not of {}", roster.fleet(), content.fleet)));
        }
        // An older card than the roster's is a member's all the same.
        match self.cards.hand_in(&card, roster)? {
            Ok(()) | Err(RosterRefusal::OlderCard(_)) => {}
            Err(refusal) => return Ok(Err(format!("the card is refused ({}): {refusal}", refusal.code()))),
        }
        let told = delivery::tell(roster, content.known.as_ref(), &self.cards.moved(roster)?);
        Ok(told.map_err(|refusal| format!("the roster is another one ({}): {refusal}", refusal.code())))
    }

    /// The configuration file with this hash.
    pub fn configuration(&mut self, hash: &Hash) -> Result<Option<Vec<u8>>, Failure> {
        configuration::kept(&self.fleet, hash)
    }

    /// A box answers its challenge.
    pub fn prove(&mut self, evidence: &[u8]) -> Result<Answer, Failure> {
        let known = Evidence::decode(evidence).ok().map(|evidence| Hash(*evidence.transcript));
        self.decide(known, |registrar, books, now| Ok(registrar.prove(books, evidence, now)))
    }

    /// A box asks how it stands.
    pub fn poll(&mut self, transcript: &Hash) -> Result<Answer, Failure> {
        self.decide(Some(*transcript), |registrar, books, _| {
            Ok(Step { keep: None, quarantine: None, answer: registrar.poll(books, transcript) })
        })
    }

    /// Which boots are good is the roster's word, from the moment it says it.
    fn follow_boots(&mut self) -> Result<(), Failure> {
        let Some((version, policy)) = &self.roster.current()?.terms().policy else { return Ok(()) };
        if self.boots_by != Some(*version) {
            self.registrar.accept_boots(self.demands.boot(policy.references()));
            self.boots_by = Some(*version);
        }
        Ok(())
    }

    fn decide(
        &mut self,
        transcript: Option<Hash>,
        work: impl FnOnce(&mut Registrar, &Books<'_>, u64) -> Result<Step, Failure>,
    ) -> Result<Answer, Failure> {
        let now = crate::now_millis()?;
        let _lock = self.shelf.lock()?;
        self.follow_boots()?;
        let record = transcript.map(|transcript| self.shelf.get(&transcript)).transpose()?.flatten();
        if let Some(record) = record.as_ref().filter(|record| record.stage() == Stage::Approved)
            && let Some(answer) = self.issue(record)?
        {
            return Ok(answer);
        }
        let roster = self.roster.current()?;
        let books = Books { roster, record };
        let step = work(&mut self.registrar, &books, now)?;
        if let Some((ek, described)) = &step.quarantine {
            self.shelf.note_stranger(ek, described, now)?;
        }
        if let Some(record) = &step.keep {
            self.shelf.put(record)?;
            self.make_room(record)?;
        }
        Ok(step.answer)
    }

    /// Issues what is approved, once the roster has taken it up; `None` before.
    fn issue(&mut self, record: &Record) -> Result<Option<Answer>, Failure> {
        let books = Books { roster: self.roster.current()?, record: Some(record.clone()) };
        let (policy, manufacturers) = (self.registrar.policy(), self.registrar.manufacturers());
        match self.authority.issue(record.clone(), &books, policy, manufacturers) {
            Ok(issued) => {
                self.shelf.put(&issued)?;
                let step = issued.issued.as_ref();
                Ok(step.map(|step| Answer::Issued(step.issued.clone())))
            }
            Err(IssueError::NotYet) => Ok(None),
            Err(IssueError::Refusal(Refusal { code, sentence })) => Ok(Some(Answer::Refused(Refused {
                version: 1,
                transcript: Some(Octets32::new(record.transcript().0)),
                code: code.name().to_owned(),
                sentence,
            }))),
            Err(error) => Err(Failure::new(Exit::Refused, error.to_string())),
        }
    }
}

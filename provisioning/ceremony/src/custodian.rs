//! One custodian's side of a ceremony, as decisions: from what lies on the board to what it says next.
//!
//! Refuses to do: write files, read clocks, draw randomness; say anything its person did not agree to; answer a
//! second quorum for the same nonces; sign what it cannot show.
//! Invariants: the caller persists [`Custodian::state`] after every change and before it shows [`Custodian::said`];
//! a state that comes back from disk says the same again, never something else.

use crate::board::{Board, Request};
use crate::error::{CeremonyError, Result};
use crate::scheme::{self, Packages};
use crate::state::{Answer, Round, Stage, State};
use crate::transcript::{TranscriptContent, fleet_ca_content};
use crate::wire::{
    CommitmentsBody, DeclinedBody, EncryptedShare, Message, NoncesBody, Plan, QuorumBody, ResultBody,
    ShareBody, SharesBody, Step, Subject,
};
use age::x25519;
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::FleetCertificateContent;
use bulla_formats::report::utc;
use ed25519_dalek::SigningKey;
use frost_ed25519::rand_core::{CryptoRng, RngCore};
use rasn::Encode;
use std::collections::BTreeMap;
use zeroize::Zeroizing;

/// The keys of a custodian.
pub struct Identity {
    /// Signs its messages.
    pub signing: SigningKey,
    /// Opens what is for it alone.
    pub opening: x25519::Identity,
}

/// What its person is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// 0: the plan itself; else the number of the request.
    pub about: u64,
    /// What agreeing means, in one or more lines.
    pub text: String,
}

/// How it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Something new was said: persist, show, and look again.
    Said,
    /// The person must answer first.
    Asks(Question),
    /// Others must say something first; in words.
    Waits(String),
}

/// A custodian in a ceremony.
pub struct Custodian {
    identity: Identity,
    number: u64,
    plan: Plan,
    state: State,
}

impl Custodian {
    /// The custodian with these keys in `plan`, where `state` left it (`None`: at the beginning).
    ///
    /// # Errors
    /// When the plan does not list these keys, or the state is of another plan.
    pub fn new(plan: Plan, identity: Identity, state: Option<State>) -> Result<Self> {
        plan.check()?;
        let key = identity.signing.verifying_key().to_bytes();
        let recipient = identity.opening.to_public().to_string();
        let number = plan.number_of(&key).filter(|number| {
            plan.custodians[*number as usize - 1].content.recipient.as_deref() == Some(recipient.as_str())
        });
        let number =
            number.ok_or_else(|| CeremonyError::refused("the plan", "it does not list this custodian"))?;
        let id = plan.id().0;
        let state = state.unwrap_or_else(|| State::fresh(id));
        if *state.plan != id {
            return Err(CeremonyError::refused("the custodian's state", "it belongs to another ceremony"));
        }
        let custodian = Custodian { identity, number, plan, state };
        if custodian.said()?.iter().any(|message| message.content.from != number) {
            return Err(CeremonyError::refused("the custodian's state", "it belongs to another custodian"));
        }
        Ok(custodian)
    }

    /// What must be on disk before what is said is shown.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Number in the plan.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Everything said so far.
    ///
    /// # Errors
    /// When the state was tampered with and holds something it did not say.
    pub fn said(&self) -> Result<Vec<Message>> {
        self.state.said.iter().map(|bytes| Message::decode(&self.plan, bytes)).collect()
    }

    fn say<T: Encode>(&mut self, step: Step, request: u64, body: &T) {
        let message = Message::sign(&self.plan, self.number, step, request, body, &self.identity.signing);
        self.state.said.push(message.encode().into());
    }

    /// One step, as far as the board allows.
    pub fn step(&mut self, board: &Board, rng: &mut (impl RngCore + CryptoRng)) -> Result<Progress> {
        self.undisputed(board)?;
        match &self.state.stage {
            Stage::Fresh(false) => Ok(Progress::Asks(self.question_of_plan())),
            Stage::Fresh(true) => self.begin(rng),
            Stage::First(secret) => {
                let secret = Zeroizing::new(secret.to_vec());
                self.share_out(board, &secret)
            }
            Stage::Second(secret) => {
                let secret = Zeroizing::new(secret.to_vec());
                self.finish(board, &secret)
            }
            Stage::Done(_) => self.serve(board),
        }
    }

    /// The person's answer to [`Question::about`].
    ///
    /// # Errors
    /// When nothing of that number was asked. Declining the plan changes nothing: the custodian stays away.
    pub fn answer(
        &mut self,
        board: &Board,
        about: u64,
        agrees: bool,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<()> {
        if about == 0 {
            if matches!(self.state.stage, Stage::Fresh(_)) {
                self.state.stage = Stage::Fresh(agrees);
            }
            return Ok(());
        }
        let pending = board.requests()?.into_iter().find(|request| request.number == about);
        let request = pending.filter(|request| self.round(request.number).is_none());
        let Some(request) = request else {
            return Err(CeremonyError::refused(format!("request {about}"), "it does not wait for an answer"));
        };
        if agrees { self.commit(board, &request, rng) } else { self.decline(&request) }
    }

    /// Whoever has this custodian's key, or its exchange directory, may have said something in its name.
    fn undisputed(&self, board: &Board) -> Result<()> {
        for message in self.said()? {
            let (step, request) = (message.content.step, message.content.request);
            if board.message(step, request, self.number).is_some_and(|shown| *shown != message) {
                return Err(self
                    .plan
                    .accuse(self.number, "is impersonated: somebody else signed in its place"));
            }
        }
        Ok(())
    }

    fn question_of_plan(&self) -> Question {
        let plan = &self.plan;
        let mut text = format!(
            "Key ceremony of the fleet {}, planned {}.\nPlan sha256:{}\n{} of {} custodians sign for the root:\n",
            plan.fleet,
            utc(plan.created_at),
            hex::encode(plan.id().0),
            plan.threshold,
            plan.custodians.len()
        );
        for (at, card) in plan.custodians.iter().enumerate() {
            let you = if at as u64 + 1 == self.number { "  <- you" } else { "" };
            let key = hex::encode(*card.content.signing_key);
            text.push_str(&format!("  {}  {}  {key}{you}\n", at + 1, card.content.name));
        }
        for card in &plan.operators {
            text.push_str(&format!(
                "  operator  {}  {}\n",
                card.content.name,
                hex::encode(*card.content.signing_key)
            ));
        }
        text.push_str("Compare the plan's hash with the others aloud. Do you take part?");
        Question { about: 0, text }
    }

    fn begin(&mut self, rng: &mut (impl RngCore + CryptoRng)) -> Result<Progress> {
        if self.plan.is_alone() {
            let part = scheme::alone(rng);
            return Ok(
                self.done(part, Octets32::new(Board::new(self.plan.clone()).seen().unwrap_or_default().0))
            );
        }
        let first = scheme::first(&self.plan, self.number, rng)?;
        self.state.stage = Stage::First(first.secret.to_vec().into());
        self.say(Step::Commitments, 0, &CommitmentsBody { package: first.package.into() });
        Ok(Progress::Said)
    }

    /// First packages of the others, when all are there.
    fn commitments(&self, board: &Board) -> Result<Option<Packages>> {
        let mut packages = Packages::new();
        for from in board.numbers() {
            let Some(body) = board.body::<CommitmentsBody>(Step::Commitments, 0, from)? else {
                return Ok(None);
            };
            if from != self.number {
                packages.insert(from, body.package.to_vec());
            }
        }
        Ok(Some(packages))
    }

    fn share_out(&mut self, board: &Board, secret: &[u8]) -> Result<Progress> {
        let (Some(others), Some(seen)) = (self.commitments(board)?, board.seen()) else {
            return Ok(waits("the commitments", &board.missing(Step::Commitments, 0)));
        };
        let second = scheme::second(&self.plan, secret, &others)?;
        let mut shares = Vec::new();
        for (to, share) in &second.packages {
            let recipient =
                self.plan.custodians[*to as usize - 1].content.recipient.as_deref().unwrap_or_default();
            let recipient: x25519::Recipient = recipient
                .parse()
                .map_err(|why: &str| CeremonyError::refused(format!("the card of custodian {to}"), why))?;
            let ciphertext = age::encrypt(&recipient, share)
                .map_err(|error| CeremonyError::refused("a share", error.to_string()))?;
            shares.push(EncryptedShare { to: *to, ciphertext: ciphertext.into() });
        }
        self.state.stage = Stage::Second(second.secret.to_vec().into());
        self.say(Step::Shares, 0, &SharesBody { seen: Octets32::new(seen.0), shares });
        Ok(Progress::Said)
    }

    fn finish(&mut self, board: &Board, secret: &[u8]) -> Result<Progress> {
        let (Some(others), Some(seen)) = (self.commitments(board)?, board.seen()) else {
            return Ok(waits("the commitments", &board.missing(Step::Commitments, 0)));
        };
        let mut for_me = BTreeMap::new();
        for from in board.numbers().filter(|from| *from != self.number) {
            let Some(body) = board.body::<SharesBody>(Step::Shares, 0, from)? else {
                return Ok(waits("the shares", &board.missing(Step::Shares, 0)));
            };
            if *body.seen != seen.0 {
                return Err(self.plan.accuse(from, "was shown other commitments than this custodian"));
            }
            let mine = body.shares.iter().find(|share| share.to == self.number);
            let share = mine.and_then(|share| age::decrypt(&self.identity.opening, &share.ciphertext).ok());
            let share =
                share.ok_or_else(|| self.plan.accuse(from, "sent no share that this custodian can open"))?;
            for_me.insert(from, Zeroizing::new(share));
        }
        let part = scheme::last(&self.plan, secret, &others, &for_me)?;
        Ok(self.done(part, Octets32::new(seen.0)))
    }

    fn done(&mut self, part: scheme::Part, seen: Octets32) -> Progress {
        let result = ResultBody { seen, root: Octets32::new(part.root), public_package: part.public.into() };
        self.state.stage = Stage::Done(part.key.to_vec().into());
        self.say(Step::Result, 0, &result);
        Progress::Said
    }

    fn round(&self, number: u64) -> Option<&Round> {
        self.state.rounds.iter().find(|round| round.number == number)
    }

    /// With its part of the key: answers requests, once everybody has the same result.
    fn serve(&mut self, board: &Board) -> Result<Progress> {
        let Some(agreed) = board.result()? else {
            return Ok(waits("the result", &board.missing(Step::Result, 0)));
        };
        let mut waiting = String::from("waits for the coordinator");
        for request in board.requests()? {
            match self.round(request.number) {
                None => {
                    let text = self.describe(&request, &agreed)?;
                    return Ok(Progress::Asks(Question { about: request.number, text }));
                }
                Some(round) if *round.hash != request.hash.0 => {
                    return Err(CeremonyError::refused(
                        format!("request {}", request.number),
                        "it was changed after this custodian had answered it",
                    ));
                }
                Some(round) => {
                    if let Answer::Nonces(nonces) = &round.answer {
                        let nonces = Zeroizing::new(nonces.to_vec());
                        if self.sign(board, &request, nonces)? {
                            return Ok(Progress::Said);
                        }
                        waiting = format!("waits for the quorum of request {}", request.number);
                    }
                }
            }
        }
        Ok(Progress::Waits(waiting))
    }

    /// What signing a request would mean.
    ///
    /// # Errors
    /// When it is something a root of this plan must not sign.
    fn describe(&self, request: &Request, agreed: &ResultBody) -> Result<String> {
        let what = format!("request {}", request.number);
        match request.body.subject {
            Subject::FleetCertificate => {
                let content: FleetCertificateContent =
                    der::decode("fleet certificate content", &request.body.content, 4 << 10)?;
                if content != fleet_ca_content(&self.plan) {
                    return Err(CeremonyError::refused(what, "it is not the certificate the plan announced"));
                }
                Ok(format!(
                    "Sign for the root: the fleet CA ed25519:{} may enrol boxes of {} until {}. Do you agree?",
                    hex::encode(*content.public_key),
                    content.fleet,
                    utc(content.not_after)
                ))
            }
            Subject::Transcript => {
                let content: TranscriptContent = der::decode(
                    "transcript content",
                    &request.body.content,
                    crate::transcript::TRANSCRIPT_BYTES_MAX,
                )?;
                content.check()?;
                if content.plan != self.plan || content.root != agreed.root {
                    return Err(CeremonyError::refused(what, "it is the transcript of another ceremony"));
                }
                Ok(format!(
                    "Sign for the root: the transcript of this ceremony, sha256:{}. Do you agree?",
                    hex::encode(bulla_formats::hash::sha256(&[&request.body.content]).0)
                ))
            }
        }
    }

    fn decline(&mut self, request: &Request) -> Result<()> {
        let hash = Octets32::new(request.hash.0);
        let answer = Answer::Declined(true);
        self.state.rounds.push(Round { number: request.number, hash, answer });
        self.say(Step::Declined, request.number, &DeclinedBody { request: hash });
        Ok(())
    }

    fn commit(
        &mut self,
        board: &Board,
        request: &Request,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<()> {
        let agreed =
            board.result()?.ok_or_else(|| CeremonyError::refused("the request", "there is no key yet"))?;
        self.describe(request, &agreed)?;
        let Stage::Done(key) = &self.state.stage else {
            return Err(CeremonyError::refused("the request", "this custodian has no key yet"));
        };
        let (secret, commitments) = if self.plan.is_alone() {
            (Zeroizing::new(Vec::new()), Vec::new())
        } else {
            let nonces = scheme::nonces(key, rng)?;
            (nonces.secret, nonces.commitments)
        };
        let hash = Octets32::new(request.hash.0);
        let answer = Answer::Nonces(secret.to_vec().into());
        self.state.rounds.push(Round { number: request.number, hash, answer });
        self.say(
            Step::Nonces,
            request.number,
            &NoncesBody { request: hash, commitments: commitments.into() },
        );
        Ok(())
    }

    /// Answers the quorum of a request with a share; false when there is none yet.
    fn sign(&mut self, board: &Board, request: &Request, nonces: Zeroizing<Vec<u8>>) -> Result<bool> {
        let Some(quorum) = board.message(Step::Quorum, request.number, 0) else { return Ok(false) };
        let (body, hash): (QuorumBody, _) = (quorum.body("quorum")?, quorum.hash());
        let commitments = commitments_of(board, request, &body)?;
        let answered = Answer::Answered(Octets32::new(hash.0));
        let share = if body.signers.contains(&self.number) {
            let Stage::Done(key) = &self.state.stage else { return Ok(false) };
            let message = message_of(request)?;
            Some(match self.plan.is_alone() {
                true => scheme::sign_alone(key, &message)?,
                false => scheme::share(&self.plan, key, nonces, &commitments, &message)?,
            })
        } else {
            None
        };
        if let Some(round) = self.state.rounds.iter_mut().find(|round| round.number == request.number) {
            round.answer = answered;
        }
        if let Some(share) = share {
            let body = ShareBody { quorum: Octets32::new(hash.0), share: share.into() };
            self.say(Step::Share, request.number, &body);
        }
        Ok(true)
    }
}

/// What the root signs for a request.
pub(crate) fn message_of(request: &Request) -> Result<Vec<u8>> {
    let limit = crate::transcript::TRANSCRIPT_BYTES_MAX;
    Ok(match request.body.subject {
        Subject::FleetCertificate => {
            der::decode::<FleetCertificateContent>("fleet certificate content", &request.body.content, limit)?
                .message()
        }
        Subject::Transcript => {
            der::decode::<TranscriptContent>("transcript content", &request.body.content, limit)?.message()
        }
    })
}

/// The nonce commitments a quorum counts, each checked to be for this request.
pub(crate) fn commitments_of(board: &Board, request: &Request, quorum: &QuorumBody) -> Result<Packages> {
    let what = || format!("the quorum of request {}", request.number);
    let ascending = quorum.signers.windows(2).all(|pair| pair[0] < pair[1]);
    if *quorum.request != request.hash.0
        || !ascending
        || quorum.signers.len() as u64 != board.plan().threshold
    {
        return Err(CeremonyError::refused(
            what(),
            "it is not of this request, or not as many as the threshold",
        ));
    }
    let mut commitments = Packages::new();
    for from in &quorum.signers {
        let body = board.body::<NoncesBody>(Step::Nonces, request.number, *from)?;
        let body = body.filter(|body| *body.request == request.hash.0);
        let body = body
            .ok_or_else(|| CeremonyError::refused(what(), format!("custodian {from} did not agree to it")))?;
        commitments.insert(*from, body.commitments.to_vec());
    }
    Ok(commitments)
}

fn waits(what: &str, names: &[&str]) -> Progress {
    Progress::Waits(format!("waits for {what} of {}", names.join(", ")))
}

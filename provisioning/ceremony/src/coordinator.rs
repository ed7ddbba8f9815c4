//! The coordinator's side: it orders who speaks next and puts the shares together.
//!
//! Refuses to do: hold a share of the key, decide anything, or finish with less than the plan's threshold.
//! Invariant: what it says follows from the plan and the board alone, so it may be killed and started at any time.

use crate::board::{Board, Request};
use crate::custodian::{commitments_of, message_of};
use crate::error::{CeremonyError, Result};
use crate::scheme::{self, Packages};
use crate::transcript::{Transcript, TranscriptContent, fleet_ca_content};
use crate::wire::{Message, QuorumBody, RequestBody, ResultBody, ShareBody, Step, Subject};
use bulla_formats::der::{self, Octets32};
use bulla_formats::enrolment::FleetCertificate;
use ed25519_dalek::SigningKey;

/// How it goes on.
#[derive(Debug)]
pub enum Order {
    /// Lay this message out and look again.
    Say(Box<Message>),
    /// Others must say something first; in words.
    Waits(String),
    /// The ceremony is over.
    Done(Box<Transcript>),
}

/// A signature, or what is missing for it.
enum Signed {
    Yes(Vec<u8>),
    Not(Order),
}

/// What comes next.
///
/// # Errors
/// When a custodian can be shown to have played false, or so many declined that the threshold cannot be met.
pub fn next(board: &Board, key: &SigningKey) -> Result<Order> {
    let Some(result) = board.result()? else {
        for (step, what) in [(Step::Commitments, "the commitments"), (Step::Shares, "the shares")] {
            let missing = board.missing(step, 0);
            if !board.plan().is_alone() && !missing.is_empty() {
                return Ok(Order::Waits(format!("waits for {what} of {}", missing.join(", "))));
            }
        }
        let missing = board.missing(Step::Result, 0).join(", ");
        return Ok(Order::Waits(format!("waits for the result of {missing}")));
    };
    let content = fleet_ca_content(board.plan());
    let signature = match sign(board, key, &result, Subject::FleetCertificate, der::encode(&content))? {
        Signed::Yes(signature) => signature,
        Signed::Not(order) => return Ok(order),
    };
    let fleet_ca = FleetCertificate { content, signature: signature.into() };
    let results = board.numbers().filter_map(|from| board.message(Step::Result, 0, from).cloned()).collect();
    let (plan, root) = (board.plan().clone(), result.root);
    let content = TranscriptContent { version: 1, plan, root, results, fleet_ca };
    let signature = match sign(board, key, &result, Subject::Transcript, der::encode(&content))? {
        Signed::Yes(signature) => signature,
        Signed::Not(order) => return Ok(order),
    };
    let transcript = Transcript { content, signature: signature.into() };
    transcript.check()?;
    Ok(Order::Done(Box::new(transcript)))
}

/// Asks for `subject` once more, under a new number: for when somebody agreed and then left the room.
///
/// # Errors
/// When nothing was asked yet, or the last request is already signed.
pub fn again(board: &Board, key: &SigningKey) -> Result<Message> {
    let requests = board.requests()?;
    let Some(last) = requests.last() else {
        return Err(CeremonyError::refused("asking again", "nothing was asked yet"));
    };
    let body = last.body.clone();
    Ok(Message::sign(board.plan(), 0, Step::Request, last.number + 1, &body, key))
}

fn sign(
    board: &Board,
    key: &SigningKey,
    result: &ResultBody,
    subject: Subject,
    content: Vec<u8>,
) -> Result<Signed> {
    let plan = board.plan();
    let Some(request) = board.request_for(subject)? else {
        let number = board.requests()?.last().map_or(1, |last| last.number + 1);
        let body = RequestBody { subject, content: content.into() };
        return Ok(say(Message::sign(plan, 0, Step::Request, number, &body, key)));
    };
    if *request.body.content != *content {
        return Err(CeremonyError::refused(
            format!("request {}", request.number),
            "it asks for something else",
        ));
    }
    let Some(quorum) = board.body::<QuorumBody>(Step::Quorum, request.number, 0)? else {
        return match willing(board, &request)? {
            Ok(signers) => {
                let body = QuorumBody { request: Octets32::new(request.hash.0), signers };
                Ok(say(Message::sign(plan, 0, Step::Quorum, request.number, &body, key)))
            }
            Err(waits) => Ok(Signed::Not(waits)),
        };
    };
    let quorum_hash = board.message(Step::Quorum, request.number, 0).map(Message::hash).unwrap_or_default();
    let commitments = commitments_of(board, &request, &quorum)?;
    let mut shares = Packages::new();
    let mut missing = Vec::new();
    for from in &quorum.signers {
        match board.body::<ShareBody>(Step::Share, request.number, *from)? {
            Some(body) if *body.quorum == quorum_hash.0 => {
                shares.insert(*from, body.share.to_vec());
            }
            Some(_) => return Err(plan.accuse(*from, "signed with another quorum")),
            None => missing.push(plan.name(*from)),
        }
    }
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Ok(Signed::Not(Order::Waits(format!("waits for the signature share of {missing}"))));
    }
    let message = message_of(&request)?;
    let signature = match plan.is_alone() {
        true => shares.remove(&1).unwrap_or_default(),
        false => scheme::aggregate(plan, &result.public_package, &commitments, &shares, &message)?,
    };
    Ok(Signed::Yes(signature))
}

fn say(message: Message) -> Signed {
    Signed::Not(Order::Say(Box::new(message)))
}

/// The first custodians who agreed, as many as are needed; or for whom it waits.
fn willing(board: &Board, request: &Request) -> Result<Result<Vec<u64>, Order>> {
    let plan = board.plan();
    let threshold = plan.threshold as usize;
    let has = |step, from: &u64| board.message(step, request.number, *from).is_some();
    let agreed: Vec<u64> = board.numbers().filter(|from| has(Step::Nonces, from)).take(threshold).collect();
    if agreed.len() == threshold {
        return Ok(Ok(agreed));
    }
    let declined: Vec<&str> =
        board.numbers().filter(|from| has(Step::Declined, from)).map(|from| plan.name(from)).collect();
    if plan.custodians.len() - declined.len() < threshold {
        let why = format!("declined by {}; {threshold} must agree", declined.join(", "));
        return Err(CeremonyError::refused(format!("request {}", request.number), why));
    }
    let silent: Vec<&str> = board
        .numbers()
        .filter(|from| !has(Step::Nonces, from) && !has(Step::Declined, from))
        .map(|from| plan.name(from))
        .collect();
    let waits = format!("waits for {} more of {}", threshold - agreed.len(), silent.join(", "));
    Ok(Err(Order::Waits(waits)))
}

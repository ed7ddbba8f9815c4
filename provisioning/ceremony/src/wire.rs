//! The bytes of a ceremony: cards, the plan, and the signed messages that custodians lay into the exchange directory.
//!
//! Refuses to do: read anything longer than it may be, of another version, or in a second spelling.
//! Invariants: every message names its plan by hash and is signed by the sender the plan lists; two plans that differ
//! in one bit share no message. The formats are described in docs/formats.md, "Key ceremony".

use crate::error::{CeremonyError, Result};
use bulla_formats::der::{self, Octets32};
use bulla_formats::entry::NUMBER_MAX;
use bulla_formats::hash::{Hash, sha256};
use bulla_formats::origin::check_fleet;
use bulla_formats::sig::{Algorithm, PublicKey, label, labelled};
use ed25519_dalek::{Signer, SigningKey};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most custodians, and most operators.
pub const PEOPLE_MAX: usize = 16;
/// Longest name of a person in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest plan in bytes.
pub const PLAN_BYTES_MAX: usize = 64 << 10;
/// Longest message in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// What a person does in the fleet.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Duty {
    /// Holds a share of the fleet root.
    Custodian = 0,
    /// Approves dangerous actions.
    Operator = 1,
}

/// What a person says of themself.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct CardContent {
    /// 1.
    pub version: u64,
    /// What the person does.
    pub duty: Duty,
    /// As it stands in the transcript.
    pub name: String,
    /// Ed25519; signs the person's messages or approvals.
    pub signing_key: Octets32,
    /// age X25519 recipient (`age1...`) for what only this custodian may read; operators have none.
    pub recipient: Option<String>,
}

/// A card: whom a plan may list. Signed by its own key, so nobody enters a key that is not theirs.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// What is said.
    pub content: CardContent,
    /// Ed25519 over label "bulla/ceremony-card/v1".
    pub signature: OctetString,
}

/// Who will hold what, agreed before any key exists.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// 1.
    pub version: u64,
    /// Fleet domain.
    pub fleet: String,
    /// Custodians that must agree before the root signs.
    pub threshold: u64,
    /// Custodian 1, 2, ... in this order.
    pub custodians: Vec<Card>,
    /// Operators that must agree before a dangerous action; 0 without operators.
    pub operators_needed: u64,
    /// Operators.
    pub operators: Vec<Card>,
    /// Ed25519 key of whoever leads the ceremony; it orders, it decides nothing.
    pub coordinator_key: Octets32,
    /// Fleet CA key (Ed25519) the root will certify.
    pub fleet_ca_key: Octets32,
    /// Random, so that no ceremony resembles another.
    pub nonce: Octets32,
    /// When it was made (Unix milliseconds, the coordinator's clock).
    pub created_at: u64,
}

/// What a message is.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[rasn(enumerated)]
pub enum Step {
    /// Custodian: commitments to the coefficients of its polynomial (RFC 9591 key generation, FROST figure 1).
    Commitments = 0,
    /// Custodian: shares for the others, each encrypted to its recipient.
    Shares = 1,
    /// Custodian: the public result as it sees it.
    Result = 2,
    /// Coordinator: please sign this.
    Request = 3,
    /// Custodian: nonce commitments for one request (RFC 9591, 5.1).
    Nonces = 4,
    /// Coordinator: whose nonces are used.
    Quorum = 5,
    /// Custodian: its share of the signature (RFC 9591, 5.2).
    Share = 6,
    /// Custodian: I do not sign this.
    Declined = 7,
}

/// What a sender signs.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct MessageContent {
    /// 1.
    pub version: u64,
    /// Plan it belongs to.
    pub plan: Octets32,
    /// 0 for the coordinator, else the custodian's number.
    pub from: u64,
    /// What it is.
    pub step: Step,
    /// Number of the request it belongs to; 0 while the key is made.
    pub request: u64,
    /// DER of the body of this step.
    pub body: OctetString,
}

/// A message in the exchange directory.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What is said.
    pub content: MessageContent,
    /// Ed25519 over label "bulla/ceremony-message/v1".
    pub signature: OctetString,
}

/// Body of [`Step::Commitments`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct CommitmentsBody {
    /// Serialised package of the first round; empty where one custodian holds the whole key.
    pub package: OctetString,
}

/// A share for one other custodian.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct EncryptedShare {
    /// Whose it is.
    pub to: u64,
    /// age file for the recipient on the card.
    pub ciphertext: OctetString,
}

/// Body of [`Step::Shares`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct SharesBody {
    /// Hash over the commitments of all custodians as this one saw them: nobody showed different ones to different people.
    pub seen: Octets32,
    /// One for each other custodian, in order of their numbers.
    pub shares: Vec<EncryptedShare>,
}

/// Body of [`Step::Result`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct ResultBody {
    /// As in [`SharesBody`].
    pub seen: Octets32,
    /// The fleet root, Ed25519.
    pub root: Octets32,
    /// Serialised public key package; empty where one custodian holds the whole key.
    pub public_package: OctetString,
}

/// What the root can be asked to sign.
#[derive(AsnType, Decode, Encode, Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[rasn(enumerated)]
pub enum Subject {
    /// A `FleetCertificateContent` for the fleet CA.
    FleetCertificate = 0,
    /// A `TranscriptContent` of this ceremony.
    Transcript = 1,
}

/// Body of [`Step::Request`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct RequestBody {
    /// What it is.
    pub subject: Subject,
    /// Its DER.
    pub content: OctetString,
}

/// Body of [`Step::Nonces`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct NoncesBody {
    /// Hash of the request's message.
    pub request: Octets32,
    /// Serialised commitments; empty where one custodian holds the whole key.
    pub commitments: OctetString,
}

/// Body of [`Step::Quorum`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct QuorumBody {
    /// Hash of the request's message.
    pub request: Octets32,
    /// Numbers of the custodians whose nonces count, ascending, exactly as many as the threshold.
    pub signers: Vec<u64>,
}

/// Body of [`Step::Share`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct ShareBody {
    /// Hash of the quorum's message.
    pub quorum: Octets32,
    /// Serialised signature share; the signature itself where one custodian holds the whole key.
    pub share: OctetString,
}

/// Body of [`Step::Declined`].
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq)]
pub struct DeclinedBody {
    /// Hash of the request's message.
    pub request: Octets32,
}

/// A name that can be printed: no control characters, not empty, not too long.
fn check_name(name: &str) -> Result<()> {
    let plain = !name.trim().is_empty() && name.trim() == name && !name.chars().any(char::is_control);
    if !plain || name.len() > NAME_BYTES_MAX {
        let why =
            format!("a name has 1 to {NAME_BYTES_MAX} bytes without control characters or outer blanks");
        return Err(CeremonyError::refused(format!("the name {name:?}"), why));
    }
    Ok(())
}

fn verifies(key: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    PublicKey::from_bytes(Algorithm::Ed25519, key).is_ok_and(|key| key.verify(message, signature).is_ok())
}

impl Card {
    /// A card signed by its own key.
    pub fn sign(duty: Duty, name: &str, key: &SigningKey, recipient: Option<String>) -> Result<Self> {
        let signing_key = Octets32::new(key.verifying_key().to_bytes());
        let content = CardContent { version: 1, duty, name: name.to_owned(), signing_key, recipient };
        let signature = key.sign(&labelled(label::CEREMONY_CARD, &der::encode(&content)));
        let card = Card { content, signature: signature.to_bytes().to_vec().into() };
        card.check()?;
        Ok(card)
    }

    /// Reads a card and checks its own signature.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let card: Card = der::decode("card", bytes, 4 << 10)?;
        card.check()?;
        Ok(card)
    }

    fn check(&self) -> Result<()> {
        let content = &self.content;
        let refused = |why: &str| Err(CeremonyError::refused(format!("the card of {:?}", content.name), why));
        check_name(&content.name)?;
        if content.version != 1 {
            return refused("it is of a version this program does not know");
        }
        let readable = content.recipient.as_deref().map(str::parse::<age::x25519::Recipient>);
        match (content.duty, readable) {
            (Duty::Custodian, Some(Ok(_))) | (Duty::Operator, None) => {}
            _ => return refused("custodians have an age recipient, operators have none"),
        }
        let message = labelled(label::CEREMONY_CARD, &der::encode(content));
        if !verifies(&content.signing_key, &message, &self.signature) {
            return refused("its signature is not of its own key");
        }
        Ok(())
    }
}

impl Plan {
    /// Reads a plan and checks everything that does not need people.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let plan: Plan = der::decode("plan", bytes, PLAN_BYTES_MAX)?;
        plan.check()?;
        Ok(plan)
    }

    /// Whether it can be carried out.
    ///
    /// # Errors
    /// Says which rule it breaks: 1 of 1, or 2 to N of N up to 16; distinct people and keys; a well-formed fleet.
    pub fn check(&self) -> Result<()> {
        let refused = |why: String| Err(CeremonyError::refused("the plan", why));
        check_fleet(&self.fleet).map_err(|error| CeremonyError::refused("the plan", error.to_string()))?;
        let (threshold, custodians) = (self.threshold, self.custodians.len());
        if self.version != 1 || self.created_at > NUMBER_MAX {
            return refused("it is of a version this program does not know".into());
        }
        let alone = threshold == 1 && custodians == 1;
        let shared = threshold >= 2 && threshold <= custodians as u64 && custodians <= PEOPLE_MAX;
        if !alone && !shared {
            return refused(format!(
                "{threshold} of {custodians} custodians: it must be 1 of 1, or at least 2 of at most {PEOPLE_MAX}"
            ));
        }
        let (needed, operators) = (self.operators_needed, self.operators.len());
        let none = needed == 0 && operators == 0;
        if !none && (needed == 0 || needed > operators as u64 || operators > PEOPLE_MAX) {
            return refused(format!("{needed} of {operators} operators cannot approve anything"));
        }
        let people = || self.custodians.iter().chain(&self.operators);
        for card in people() {
            card.check()?;
        }
        let duties = self.custodians.iter().all(|card| card.content.duty == Duty::Custodian)
            && self.operators.iter().all(|card| card.content.duty == Duty::Operator);
        if !duties {
            return refused("a custodian's card is listed as an operator's, or the other way round".into());
        }
        let mut keys: Vec<&[u8; 32]> = people().map(|card| &*card.content.signing_key).collect();
        keys.extend([&*self.coordinator_key, &*self.fleet_ca_key]);
        let mut recipients: Vec<_> =
            self.custodians.iter().map(|card| card.content.recipient.as_deref()).collect();
        let (keys_before, recipients_before) = (keys.len(), recipients.len());
        keys.sort_unstable();
        keys.dedup();
        recipients.sort_unstable();
        recipients.dedup();
        if keys.len() != keys_before || recipients.len() != recipients_before {
            return refused("two of its keys are the same; everybody brings their own".into());
        }
        for list in [&self.custodians, &self.operators] {
            let mut names: Vec<_> = list.iter().map(|card| card.content.name.to_lowercase()).collect();
            names.sort_unstable();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                return refused(
                    "two of its people have the same name; the minutes must tell them apart".into(),
                );
            }
        }
        Ok(())
    }

    /// The hash every message names, and people compare.
    pub fn id(&self) -> Hash {
        sha256(&[&labelled(label::CEREMONY_PLAN, &der::encode(self))])
    }

    /// Whether one person holds the whole key.
    pub fn is_alone(&self) -> bool {
        self.custodians.len() == 1
    }

    /// Name of a custodian, for messages to people.
    pub fn name(&self, number: u64) -> &str {
        let card =
            usize::try_from(number).ok().and_then(|number| self.custodians.get(number.checked_sub(1)?));
        card.map_or("nobody", |card| &card.content.name)
    }

    /// Number of the custodian with this key.
    pub fn number_of(&self, signing_key: &[u8; 32]) -> Option<u64> {
        let at = self.custodians.iter().position(|card| *card.content.signing_key == *signing_key)?;
        Some(at as u64 + 1)
    }

    fn key_of(&self, from: u64) -> Option<&[u8; 32]> {
        match from {
            0 => Some(&self.coordinator_key),
            number => Some(&self.custodians.get(usize::try_from(number).ok()? - 1)?.content.signing_key),
        }
    }

    /// A complaint about a custodian.
    pub fn accuse(&self, number: u64, what: impl Into<String>) -> CeremonyError {
        CeremonyError::Accused { number, name: self.name(number).to_owned(), what: what.into() }
    }
}

impl Message {
    /// A message of `from`, signed.
    pub fn sign<T: Encode>(
        plan: &Plan,
        from: u64,
        step: Step,
        request: u64,
        body: &T,
        key: &SigningKey,
    ) -> Self {
        let (plan, body) = (Octets32::new(plan.id().0), der::encode(body).into());
        let content = MessageContent { version: 1, plan, from, step, request, body };
        let signature = key.sign(&labelled(label::CEREMONY_MESSAGE, &der::encode(&content)));
        Message { content, signature: signature.to_bytes().to_vec().into() }
    }

    /// Reads a message and checks that its sender is in `plan` and signed it for this plan.
    pub fn decode(plan: &Plan, bytes: &[u8]) -> Result<Self> {
        let message: Message = der::decode("message", bytes, MESSAGE_BYTES_MAX)?;
        let content = &message.content;
        let refused = |why: &str| {
            let what = format!("the message {:?} {} of {}", content.step, content.request, content.from);
            Err(CeremonyError::refused(what, why))
        };
        if content.version != 1 {
            return refused("it is of a version this program does not know");
        }
        if *content.plan != plan.id().0 {
            return refused("it belongs to another ceremony");
        }
        let Some(key) = plan.key_of(content.from) else { return refused("its sender is not in the plan") };
        if !verifies(key, &labelled(label::CEREMONY_MESSAGE, &der::encode(content)), &message.signature) {
            return refused("its signature does not verify");
        }
        let of_coordinator = matches!(content.step, Step::Request | Step::Quorum);
        let of_keygen = matches!(content.step, Step::Commitments | Step::Shares | Step::Result);
        if of_coordinator != (content.from == 0) || of_keygen != (content.request == 0) {
            return refused("its sender does not send such messages");
        }
        Ok(message)
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// Hash of the whole message.
    pub fn hash(&self) -> Hash {
        sha256(&[&self.encode()])
    }

    /// Name of its file in the exchange directory.
    pub fn file_name(&self) -> String {
        let (from, request) = (self.content.from, self.content.request);
        match self.content.step {
            Step::Commitments => format!("keygen-1-of-{from}"),
            Step::Shares => format!("keygen-2-of-{from}"),
            Step::Result => format!("keygen-3-of-{from}"),
            Step::Request => format!("request-{request}"),
            Step::Nonces => format!("request-{request}-nonces-of-{from}"),
            Step::Quorum => format!("request-{request}-quorum"),
            Step::Share => format!("request-{request}-share-of-{from}"),
            Step::Declined => format!("request-{request}-declined-by-{from}"),
        }
    }

    /// Its body.
    pub fn body<T: Decode + Encode>(&self, what: &'static str) -> Result<T> {
        Ok(der::decode(what, &self.content.body, MESSAGE_BYTES_MAX)?)
    }
}

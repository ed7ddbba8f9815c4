//! A box has its neighbour's TPM vouch for itself: the challenge, the answer, and when one boot follows another.
//!
//! The attestation key is no oracle: what it quotes is SHA-256 over a label and a challenge of both boxes, which each side
//! holds against the connection it came by. Whose key it is, the neighbour's log says in its entry 0, which the challenger
//! holds already; nobody new is trusted.
//! Refuses to do: draw nonces, which is the asker's; say who is at the other end of a connection, which is the carrier's.
//! Invariants: an answer holds for one challenge only; a boot follows another only if no value of a PCR differs, none has
//! become invisible, and the TPM's counts have not gone back.

use super::message::{MessageError, check_head, check_origin, demand};
use crate::body::key_epoch::{PcrValue, TpmQuote};
use crate::der::{self, DerError, Octets32};
use crate::endorsement::{AttestationKey, verify_prehashed};
use crate::entry::{NUMBER_MAX, TreeState};
use crate::hash::{Hash, empty_root, sha256};
use crate::note::{Checkpoint, NoteError, SignedNote};
use crate::peer::card::PeerCard;
use crate::sig::label;
use crate::tpm::{QuoteFacts, TpmError, verify_quote};
use rasn::types::OctetString;
use rasn::{AsnType, Decode, Decoder, Encode};

/// Most bytes of a boot as a box keeps it.
const BOOT_BYTES_MAX: usize = 4_096;

/// What a box is asked to have its TPM vouch for.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Challenge {
    /// 1.
    pub version: u64,
    /// The log of the box that asks.
    pub challenger: String,
    /// The log of the box that is asked.
    pub challenged: String,
    /// Who asks, on the wire.
    pub challenger_key: Octets32,
    /// Who is asked, on the wire.
    pub challenged_key: Octets32,
    /// Drawn for this challenge alone.
    pub nonce: Octets32,
    /// The newest head of the challenged log that the challenger holds; of no entries when it holds none.
    pub head: TreeState,
}

impl Challenge {
    /// A challenge from the box of one card to that of another.
    pub fn new(challenger: &PeerCard, challenged: &PeerCard, nonce: [u8; 32], head: TreeState) -> Self {
        Challenge {
            version: 1,
            challenger: challenger.origin().to_string(),
            challenged: challenged.origin().to_string(),
            challenger_key: Octets32::new(*challenger.transport_key()),
            challenged_key: Octets32::new(*challenged.transport_key()),
            nonce: Octets32::new(nonce),
            head,
        }
    }

    /// Whether it is from the box of one card to that of another: what the challenged box asks of the connection.
    pub fn is_between(&self, challenger: &PeerCard, challenged: &PeerCard) -> bool {
        self.challenger == challenger.origin().as_str()
            && self.challenged == challenged.origin().as_str()
            && *self.challenger_key == *challenger.transport_key()
            && *self.challenged_key == *challenged.transport_key()
    }

    /// Qualifying data of the quote, and digest of the software key's signature:
    /// SHA-256("bulla/quote/challenge/v1" || 0x00 || DER of this challenge).
    pub fn qualifying_data(&self) -> Hash {
        sha256(&[label::CHALLENGE_QUOTE.as_bytes(), &[0], &der::encode(self)])
    }

    pub(super) fn check(&self) -> Result<(), MessageError> {
        demand(self.version == 1, "a challenge is of another version")?;
        check_origin(&self.challenger)?;
        check_origin(&self.challenged)?;
        demand(self.challenger != self.challenged, "a box challenges itself")?;
        demand(self.challenger_key != self.challenged_key, "both sides of a challenge have one key")?;
        demand(self.head.size <= NUMBER_MAX, "a number is above 2^63 - 1")?;
        let empty = self.head.size == 0;
        demand(empty == (self.head.root() == empty_root()), "exactly the tree without entries has its root")
    }
}

/// Who vouches for the answering box.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
#[rasn(choice)]
pub enum Voucher {
    /// A quote whose qualifying data is [`Challenge::qualifying_data`].
    #[rasn(tag(context, 0))]
    Quote(TpmQuote),
    /// Without TPM: ECDSA P-256 (r || s) of the device key over the same 32 bytes as digest. It says that the key is there,
    /// and nothing of the boot.
    #[rasn(tag(context, 1))]
    Software(OctetString),
}

/// An answer to a challenge.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChallengeSaid {
    /// The log of the box that answers.
    pub origin: String,
    /// Its newest head: a checkpoint note.
    pub head: String,
    /// Who vouches.
    pub voucher: Voucher,
}

/// What a TPM said of its machine's boot.
#[derive(AsnType, Decode, Encode, Debug, Clone, PartialEq, Eq, Hash)]
pub struct Boot {
    /// PCR values of the SHA-256 bank, ascending.
    pub pcrs: Vec<PcrValue>,
    /// TPM resets since the TPM was last cleared.
    pub resets: u64,
    /// Restarts and resumes since the last reset.
    pub restarts: u64,
    /// Milliseconds of the TPM's clock.
    pub clock: u64,
}

/// Why a neighbour's answer is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distrust {
    /// A PCR has another value than before, or is not shown any more.
    BootChanged,
    /// The TPM's counts of resets or its clock have gone back: it was cleared, or its state is an older copy.
    ResetWentBack,
    /// Another key has signed than the one that the neighbour's log names.
    OtherKey,
    /// It is no answer to this challenge.
    NotGenuine,
}

impl Distrust {
    /// All of them.
    pub const ALL: [Distrust; 4] =
        [Distrust::BootChanged, Distrust::ResetWentBack, Distrust::OtherKey, Distrust::NotGenuine];

    /// The stable name.
    pub fn name(self) -> &'static str {
        match self {
            Distrust::BootChanged => "boot-changed",
            Distrust::ResetWentBack => "reset-went-back",
            Distrust::OtherKey => "other-key",
            Distrust::NotGenuine => "not-genuine",
        }
    }

    /// Code of the incident that a log has of it.
    pub fn incident(self) -> &'static str {
        match self {
            Distrust::BootChanged => "neighbour-boot-changed",
            Distrust::ResetWentBack => "neighbour-reset-went-back",
            Distrust::OtherKey => "neighbour-other-key",
            Distrust::NotGenuine => "neighbour-not-genuine",
        }
    }
}

impl Boot {
    /// What a verified quote says. Fails when these are not the PCRs that it covers.
    pub fn of_quote(facts: &QuoteFacts, quote: &TpmQuote) -> Result<Self, TpmError> {
        facts.check_pcrs(&quote.pcr_values())?;
        Ok(Boot {
            pcrs: quote.pcrs.clone(),
            resets: u64::from(facts.reset_count),
            restarts: u64::from(facts.restart_count),
            clock: facts.clock,
        })
    }

    /// Reads a boot as a box keeps it.
    pub fn decode(bytes: &[u8]) -> Result<Self, DerError> {
        der::decode("boot", bytes, BOOT_BYTES_MAX)
    }

    /// The bytes that a box keeps.
    pub fn encode(&self) -> Vec<u8> {
        der::encode(self)
    }

    /// Whether this can be the same boot state after `earlier`: PCRs may be added, not change or vanish; the counts only
    /// grow, and so does the clock while they stay.
    pub fn follows(&self, earlier: &Boot) -> Result<(), Distrust> {
        let moment = |boot: &Boot| (boot.resets, boot.restarts, boot.clock);
        if moment(self) < moment(earlier) {
            return Err(Distrust::ResetWentBack);
        }
        if earlier.pcrs.iter().any(|value| !self.pcrs.contains(value)) {
            return Err(Distrust::BootChanged);
        }
        Ok(())
    }
}

/// Why an answer does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// It is of another log than the challenge, or the card is.
    #[error("it is of another log than the one that was challenged")]
    OtherLog,
    /// Its head is no checkpoint of the log.
    #[error("its head: {0}")]
    Head(#[from] NoteError),
    /// Its head is older than what the challenger has shown.
    #[error("its head of {found} entries is older than the challenger's of {shown}, or another")]
    OlderHead {
        /// Entries under the head in the challenge.
        shown: u64,
        /// Entries under the answer's.
        found: u64,
    },
    /// The log's enrolment speaks of a TPM and the answer does not, or the other way round.
    #[error("a {said} vouches, the log was enrolled with another kind of key")]
    OtherKind {
        /// What vouches.
        said: &'static str,
    },
    /// The signature is not of the key that the log names.
    #[error("another key has signed than the one that its log names")]
    OtherKey,
    /// The quote is none of this challenge, or its PCR values are not those that it covers.
    #[error("its quote: {0}")]
    Quote(TpmError),
}

impl ChallengeError {
    /// What it comes to.
    pub fn distrust(&self) -> Distrust {
        match self {
            ChallengeError::OtherKey => Distrust::OtherKey,
            _ => Distrust::NotGenuine,
        }
    }
}

impl ChallengeSaid {
    pub(super) fn check(&self) -> Result<(), MessageError> {
        check_head(&self.origin, &self.head)?;
        match &self.voucher {
            Voucher::Quote(quote) => Ok(quote.check("answer to a challenge")?),
            Voucher::Software(signature) => {
                demand(signature.len() == 64, "a software key's signature is not 64 bytes")
            }
        }
    }

    /// Judges the answer to `challenge`. `card` is the challenged box's; `key` is the one that entry 0 of its log enrols.
    /// Gives its newest head, and the boot that a TPM has quoted; no boot without TPM.
    pub fn verify(
        &self,
        challenge: &Challenge,
        card: &PeerCard,
        key: &AttestationKey,
    ) -> Result<(Checkpoint, Option<Boot>), ChallengeError> {
        let log = card.origin().as_str();
        if self.origin != challenge.challenged || log != self.origin {
            return Err(ChallengeError::OtherLog);
        }
        let head = card.checkpoint(&SignedNote::parse(&self.head)?)?;
        let (shown, found) = (challenge.head.size, head.size());
        if found < shown || found == shown && head.root() != challenge.head.root() {
            return Err(ChallengeError::OlderHead { shown, found });
        }
        let qualifying = challenge.qualifying_data();
        let boot = match (&self.voucher, key) {
            (Voucher::Quote(quote), AttestationKey::Tpm(ak)) => {
                let facts = verify_quote(ak, &quote.attest, &quote.signature, &qualifying.0);
                let facts = facts.map_err(|error| match error {
                    TpmError::Signature => ChallengeError::OtherKey,
                    other => ChallengeError::Quote(other),
                })?;
                Some(Boot::of_quote(&facts, quote).map_err(ChallengeError::Quote)?)
            }
            (Voucher::Software(signature), AttestationKey::Software(key)) => {
                if !verify_prehashed(key, &qualifying, signature) {
                    return Err(ChallengeError::OtherKey);
                }
                None
            }
            (Voucher::Quote(_), _) => return Err(ChallengeError::OtherKind { said: "TPM" }),
            (Voucher::Software(_), _) => return Err(ChallengeError::OtherKind { said: "software key" }),
        };
        Ok((head, boot))
    }
}

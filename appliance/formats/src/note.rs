//! Signed notes and checkpoints (C2SP signed-note v1, tlog-checkpoint v1), and the one private
//! signature type of this format: a TPM quote over the checkpoint text.
//!
//! Refuses to do: tolerate a known key whose line does not verify, or checkpoint extension lines.
//! Invariants: a [`SignedNote`] encodes back to the bytes it was read from; unknown lines are kept
//! and ignored, as the specification asks.

use crate::hash::{Hash, sha256};
use crate::json::{base64_decode, base64_encode};
use crate::origin::Origin;
use crate::sig::{PublicKey, SignatureError};

/// Largest note in bytes.
pub const NOTE_BYTES_MAX: usize = 65_536;
/// Most signature lines of a note.
pub const NOTE_LINES_MAX: usize = 16;
/// Long identifier of the quote line (signature type 0xff).
pub const QUOTE_LINE_IDENTIFIER: &str = "bulla/tpm-quote/v1";

const ED25519_TYPE: u8 = 0x01;
const PRIVATE_TYPE: u8 = 0xff;
const LINE_START: &str = "\u{2014} ";

/// Why a note or checkpoint is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// The bytes are not a signed note.
    #[error("it is not a signed note: {0}")]
    Malformed(&'static str),
    /// The text is not a checkpoint of three lines.
    #[error("its text is not a checkpoint: {0}")]
    NotACheckpoint(&'static str),
    /// It is a checkpoint of another log.
    #[error("it is a checkpoint of {0}")]
    OtherOrigin(String),
    /// The key's line is absent.
    #[error("it carries no line of {0}")]
    Unsigned(&'static str),
    /// The key's line is there and does not verify.
    #[error("its line of {0} does not verify")]
    BadSignature(&'static str),
}

/// One signature line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureLine {
    /// Key name.
    pub name: String,
    /// First four bytes of the key id hash.
    pub key_id: [u8; 4],
    /// What follows the key id.
    pub body: Vec<u8>,
}

/// A note's text and its signature lines, none of them judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedNote {
    /// The signed text, ending in a line feed.
    pub text: String,
    /// Signature lines in order.
    pub lines: Vec<SignatureLine>,
}

impl SignedNote {
    /// Reads a note.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Malformed("it is longer than 65536 bytes"));
        }
        if note.bytes().any(|b| b < 0x20 && b != b'\n') {
            return Err(NoteError::Malformed("it has a control character"));
        }
        let split = note.rfind("\n\n").ok_or(NoteError::Malformed("it has no empty line"))?;
        let (text, signatures) = (&note[..split + 1], &note[split + 2..]);
        let signatures =
            signatures.strip_suffix('\n').ok_or(NoteError::Malformed("its last line is not ended"))?;
        let lines = signatures.split('\n').map(parse_line).collect::<Result<Vec<_>, _>>()?;
        if lines.len() > NOTE_LINES_MAX {
            return Err(NoteError::Malformed("it has more than 16 signature lines"));
        }
        Ok(SignedNote { text: text.to_owned(), lines })
    }

    /// The note as text.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(self.text.len() + 128 * self.lines.len() + 1);
        out.push_str(&self.text);
        out.push('\n');
        for line in &self.lines {
            let mut raw = line.key_id.to_vec();
            raw.extend_from_slice(&line.body);
            out.push_str(LINE_START);
            out.push_str(&line.name);
            out.push(' ');
            out.push_str(&base64_encode(&raw));
            out.push('\n');
        }
        out
    }

    pub(crate) fn line(
        &self,
        name: &str,
        key_id: [u8; 4],
        who: &'static str,
    ) -> Result<Option<&[u8]>, NoteError> {
        let mut found = self.lines.iter().filter(|line| line.name == name && line.key_id == key_id);
        let first = found.next();
        if found.next().is_some() {
            return Err(NoteError::BadSignature(who));
        }
        Ok(first.map(|line| line.body.as_slice()))
    }
}

fn parse_line(line: &str) -> Result<SignatureLine, NoteError> {
    let bad = NoteError::Malformed("a signature line is not '\u{2014} name base64'");
    let (name, encoded) =
        line.strip_prefix(LINE_START).and_then(|rest| rest.rsplit_once(' ')).ok_or(bad.clone())?;
    if name.is_empty() || name.contains('+') || name.chars().any(char::is_whitespace) {
        return Err(NoteError::Malformed("a key name is empty or has a space or a plus sign"));
    }
    let raw = base64_decode(encoded).map_err(|_| bad.clone())?;
    let (key_id, body) = raw.split_first_chunk::<4>().ok_or(bad)?;
    Ok(SignatureLine { name: name.to_owned(), key_id: *key_id, body: body.to_vec() })
}

/// Key id of an Ed25519 key: SHA-256(name || 0x0A || 0x01 || key)[..4].
pub fn ed25519_key_id(name: &str, public_key: &[u8; 32]) -> [u8; 4] {
    first_four(sha256(&[name.as_bytes(), &[0x0a, ED25519_TYPE], public_key]))
}

/// Key id of the quote line:
/// SHA-256(name || 0x0A || 0xFF || "bulla/tpm-quote/v1" || TPMT_PUBLIC of the attestation key)[..4].
pub fn quote_key_id(name: &str, attestation_key: &[u8]) -> [u8; 4] {
    let identifier = QUOTE_LINE_IDENTIFIER.as_bytes();
    first_four(sha256(&[name.as_bytes(), &[0x0a, PRIVATE_TYPE], identifier, attestation_key]))
}

/// The verifier key text other C2SP tools take: `name+hash+base64`.
pub fn verifier_key(name: &str, public_key: &[u8; 32]) -> String {
    let mut raw = vec![ED25519_TYPE];
    raw.extend_from_slice(public_key);
    format!("{name}+{}+{}", hex::encode(ed25519_key_id(name, public_key)), base64_encode(&raw))
}

fn first_four(hash: Hash) -> [u8; 4] {
    [hash.0[0], hash.0[1], hash.0[2], hash.0[3]]
}

/// The text of a checkpoint: origin, size, root, one a line.
pub fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", base64_encode(&root.0))
}

/// The Ed25519 line of the log key.
pub fn log_line(origin: &str, public_key: &[u8; 32], signature: &[u8; 64]) -> SignatureLine {
    let key_id = ed25519_key_id(origin, public_key);
    SignatureLine { name: origin.to_owned(), key_id, body: signature.to_vec() }
}

/// The quote line: body is 0x01 || uint16 BE length || TPMS_ATTEST || uint16 BE length || TPMT_SIGNATURE.
///
/// # Panics
/// When attest or signature are longer than 65,535 bytes, which no TPM makes.
pub fn quote_line(origin: &str, attestation_key: &[u8], attest: &[u8], signature: &[u8]) -> SignatureLine {
    let mut body = vec![1u8];
    for part in [attest, signature] {
        let length = u16::try_from(part.len()).expect("TPM structures have two-byte sizes");
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(part);
    }
    SignatureLine { name: origin.to_owned(), key_id: quote_key_id(origin, attestation_key), body }
}

/// A checkpoint whose log signature has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    size: u64,
    root: Hash,
    text: String,
    quote: Option<(Vec<u8>, Vec<u8>)>,
}

impl Checkpoint {
    /// Verifies the log's line on `note` and picks up the quote line of `attestation_key`
    /// (TPMT_PUBLIC bytes) when there is one; the quote itself is not judged here.
    pub fn open(
        note: &SignedNote,
        origin: &Origin,
        log_key: &PublicKey,
        log_key_bytes: &[u8; 32],
        attestation_key: &[u8],
    ) -> Result<Self, NoteError> {
        let (found, size, root) = parse_checkpoint_text(&note.text)?;
        if found != origin.as_str() {
            return Err(NoteError::OtherOrigin(found.to_owned()));
        }
        let log_id = ed25519_key_id(origin.as_str(), log_key_bytes);
        let signature =
            note.line(origin.as_str(), log_id, "the log key")?.ok_or(NoteError::Unsigned("the log key"))?;
        log_key
            .verify(note.text.as_bytes(), signature)
            .map_err(|_: SignatureError| NoteError::BadSignature("the log key"))?;
        let quote_id = quote_key_id(origin.as_str(), attestation_key);
        let quote = note
            .line(origin.as_str(), quote_id, "the attestation key")?
            .map(|body| parse_quote_body(body).ok_or(NoteError::BadSignature("the attestation key")))
            .transpose()?;
        Ok(Checkpoint { size, root, text: note.text.clone(), quote })
    }

    /// Number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Root of the tree.
    pub fn root(&self) -> Hash {
        self.root
    }
    /// The signed text.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// TPMS_ATTEST and TPMT_SIGNATURE of the quote line.
    pub fn quote(&self) -> Option<(&[u8], &[u8])> {
        self.quote.as_ref().map(|(attest, signature)| (attest.as_slice(), signature.as_slice()))
    }
}

/// Origin, size and root of a checkpoint text; nothing is verified.
pub fn parse_checkpoint_text(text: &str) -> Result<(&str, u64, Hash), NoteError> {
    let mut lines = text.split('\n');
    let (Some(origin), Some(size), Some(root), Some(""), None) =
        (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(NoteError::NotACheckpoint("it has not exactly three lines"));
    };
    let number: u64 = size.parse().map_err(|_| NoteError::NotACheckpoint("its size is not a number"))?;
    if number.to_string() != size || number > crate::entry::NUMBER_MAX {
        return Err(NoteError::NotACheckpoint("its size is not in plain decimal"));
    }
    let root = base64_decode(root)
        .ok()
        .and_then(|raw| Hash::from_slice(&raw))
        .ok_or(NoteError::NotACheckpoint("its root is not 32 bytes in base64"))?;
    Ok((origin, number, root))
}

fn parse_quote_body(body: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let rest = body.strip_prefix(&[1u8])?;
    let (attest, rest) = take_sized(rest)?;
    let (signature, rest) = take_sized(rest)?;
    rest.is_empty().then(|| (attest.to_vec(), signature.to_vec()))
}

fn take_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sig::Algorithm;

    #[test]
    fn c2sp_signed_note_vector_verifies() {
        // The example of the C2SP signed-note specification.
        let vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let raw = base64_decode(vkey.rsplit('+').next().unwrap()).unwrap();
        let key: [u8; 32] = raw[1..].try_into().unwrap();
        assert_eq!(verifier_key("example.com/foo", &key), vkey);
        assert!(PublicKey::from_bytes(Algorithm::Ed25519, &key).is_ok());
    }

    #[test]
    fn notes_encode_back_and_malformed_ones_are_refused() {
        let line = log_line("a.b/c", &[7; 32], &[9; 64]);
        let note = SignedNote { text: "a\n\nb\n".into(), lines: vec![line] };
        let text = note.encode();
        assert_eq!(SignedNote::parse(&text).unwrap(), note);
        let cut = &text[..text.len() - 1];
        for bad in [
            cut,
            "",
            "\n",
            "x\n",
            "x\n\n",
            "x\n\ny\n",
            "x\n\n\u{2014} a+b AAAAAAAA\n",
            "x\r\n\n\u{2014} a AAAAAAAA\n",
        ] {
            assert!(SignedNote::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn checkpoint_texts_have_one_spelling() {
        let root = base64_encode(&[1; 32]);
        assert!(parse_checkpoint_text(&format!("o\n5\n{root}\n")).is_ok());
        for bad in [
            format!("o\n05\n{root}\n"),
            format!("o\n+5\n{root}\n"),
            format!("o\n5\n{root}\nextension\n"),
            format!("o\n5\n{root}"),
            format!("o\n5\n{}\n", base64_encode(&[1; 31])),
            "o\n5\n".to_owned(),
        ] {
            assert!(parse_checkpoint_text(&bad).is_err(), "{bad:?}");
        }
    }
}

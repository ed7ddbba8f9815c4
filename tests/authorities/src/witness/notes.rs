//! Requests and notes as a witness reads them, written from the specifications alone.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest as _, Sha256};
use tlog_tiles::Hash;

const DASH: &str = "\u{2014} ";
const HASHES_MAX: usize = 63;

/// `SHA-256(name || "\n" || type || key)[:4]`.
pub(super) fn key_id(name: &str, kind: u8, key: &[u8]) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', kind]).chain_update(key).finalize();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// `name+id+base64(type || key)`.
pub(super) fn verifier_key(name: &str, kind: u8, key: &[u8]) -> String {
    let id = hex::encode(key_id(name, kind, key));
    format!("{name}+{id}+{}", STANDARD.encode([&[kind], key].concat()))
}

/// A line of a note.
pub(super) fn line(name: &str, id: [u8; 4], body: &[u8]) -> String {
    format!("{DASH}{name} {}\n", STANDARD.encode([&id, body].concat()))
}

/// Name and Ed25519 key of a log's verifier key.
pub(super) fn log_key(text: &str) -> Result<(String, VerifyingKey)> {
    let mut parts = text.trim().splitn(3, '+');
    let (name, id, key) = (parts.next(), parts.next(), parts.next());
    let (name, id, key) = (name.context("no name")?, id.context("no id")?, key.context("no key")?);
    let raw = STANDARD.decode(key)?;
    let Some((1, key)) = raw.split_first().map(|(kind, key)| (*kind, key)) else {
        bail!("a log's key is of type 0x01")
    };
    ensure!(hex::encode(key_id(name, 1, key)) == id, "the id is not that of the key");
    Ok((name.to_owned(), VerifyingKey::try_from(key)?))
}

/// A request.
pub(super) struct Submission {
    pub old: u64,
    pub proof: Vec<Hash>,
    /// Text of the checkpoint.
    pub text: String,
    pub origin: String,
    pub size: u64,
    pub root: Hash,
    /// Name, key id and signature of each line.
    lines: Vec<(String, [u8; 4], Vec<u8>)>,
}

impl Submission {
    pub fn read(body: &str) -> Result<Self> {
        let (head, note) = body.split_once("\n\n").context("there is no empty line")?;
        let mut head = head.split('\n');
        let old = decimal(head.next().and_then(|line| line.strip_prefix("old ")).context("no old size")?)?;
        let proof = head.map(hash).collect::<Result<Vec<_>>>()?;
        ensure!(proof.len() <= HASHES_MAX, "more than 63 hashes");

        ensure!(note.bytes().all(|byte| byte >= 0x20 || byte == b'\n'), "a control character in the note");
        let end = note.rfind("\n\n").context("the note has no signatures")?;
        let (text, signatures) = (&note[..=end], &note[end + 2..]);
        let mut lines = text.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty()).context("no origin")?;
        let size = decimal(lines.next().context("no size")?)?;
        let root = hash(lines.next().context("no root")?)?;
        let signatures = signatures.strip_suffix('\n').context("the last line is not ended")?;
        let signatures = signatures.split('\n').map(signature).collect::<Result<Vec<_>>>()?;
        let (origin, text) = (origin.to_owned(), text.to_owned());
        Ok(Submission { old, proof, text, origin, size, root, lines: signatures })
    }

    /// Whether this key has signed, and every line that says it is by this key verifies.
    pub fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        let id = key_id(&self.origin, 1, key.as_bytes());
        let own = self.lines.iter().filter(|(name, of, _)| *name == self.origin && *of == id);
        let verdicts: Vec<bool> = own
            .map(|(_, _, signature)| {
                let signature = Signature::from_slice(signature);
                signature.is_ok_and(|signature| key.verify_strict(self.text.as_bytes(), &signature).is_ok())
            })
            .collect();
        !verdicts.is_empty() && verdicts.into_iter().all(|holds| holds)
    }
}

fn decimal(text: &str) -> Result<u64> {
    let number: u64 =
        text.parse().ok().filter(|number: &u64| number.to_string() == text).context("no size")?;
    ensure!(i64::try_from(number).is_ok(), "a size beyond 2^63 - 1");
    Ok(number)
}

fn hash(line: &str) -> Result<Hash> {
    let bytes = STANDARD.decode(line)?;
    Ok(Hash(bytes.try_into().ok().context("a hash has 32 bytes")?))
}

fn signature(line: &str) -> Result<(String, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(DASH).and_then(|line| line.split_once(' ')).context("no line")?;
    let raw = STANDARD.decode(encoded)?;
    let (id, body) = raw.split_first_chunk::<4>().context("no key id")?;
    ensure!(!name.is_empty() && !name.contains('+'), "no name");
    Ok((name.to_owned(), *id, body.to_vec()))
}

//! Asking a witness for a cosignature: the body that is posted, as both sides have it, and what its answer means
//! (c2sp.org/tlog-witness, `add-checkpoint`).
//!
//! Refuses to do: HTTP; cosignatures of keys nobody named, which are passed over; answers that only look like one.
//! Invariants: a [`Cosignature`] comes out only when the witness's key made it over this very checkpoint; a
//! [`Submission`] has one spelling.

use super::WitnessKey;
use crate::body::anchor::Cosignature;
use crate::entry::NUMBER_MAX;
use crate::hash::Hash;
use crate::json::{base64_decode, base64_encode};
use crate::note::{NOTE_BYTES_MAX, SignedNote, parse_checkpoint_text};

/// Where a request is posted to, below a witness's submission prefix.
pub const PATH: &str = "add-checkpoint";
/// Most hashes of a consistency proof in a request.
pub const PROOF_HASHES_MAX: usize = 63;
/// Most bytes of a request: the old size, 63 hashes of 45 bytes, and a note.
pub const REQUEST_BYTES_MAX: usize = 25 + PROOF_HASHES_MAX * 45 + 1 + NOTE_BYTES_MAX;
/// Most bytes of an answer that are read: what a note has.
pub const ANSWER_BYTES_MAX: usize = NOTE_BYTES_MAX;

/// The body of a request: cosign `note`, whose tree extends the one of `old` leaves that you cosigned last, as `proof`
/// shows. `None` when the proof has more hashes than a request may.
pub fn request(old: u64, proof: &[Hash], note: &SignedNote) -> Option<String> {
    if proof.len() > PROOF_HASHES_MAX {
        return None;
    }
    let hashes: String = proof.iter().map(|hash| format!("{}\n", base64_encode(&hash.0))).collect();
    Some(format!("old {old}\n{hashes}\n{}", note.encode()))
}

/// A request as a witness reads it; nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// Size of the tree that the log believes the witness to have cosigned last.
    pub old: u64,
    /// Proof that the checkpoint's tree extends that one.
    pub proof: Vec<Hash>,
    /// The checkpoint with its signatures.
    pub note: SignedNote,
    /// The log: first line of the checkpoint.
    pub origin: String,
    /// Size of its tree.
    pub size: u64,
    /// Root of its tree.
    pub root: Hash,
}

impl Submission {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// In words, what makes it none; a witness answers 400.
    pub fn parse(body: &[u8]) -> Result<Self, &'static str> {
        if body.len() > REQUEST_BYTES_MAX {
            return Err("it is longer than a request can be");
        }
        let body = std::str::from_utf8(body).map_err(|_| "it is no UTF-8")?;
        let (head, note) = body.split_once("\n\n").ok_or("there is no empty line before the checkpoint")?;
        let mut lines = head.split('\n');
        let old = lines
            .next()
            .and_then(|line| line.strip_prefix("old "))
            .ok_or("it does not begin with \"old \"")?;
        let old = decimal(old).ok_or("the old size is no size in plain decimal")?;
        let hash = |line: &str| Hash::from_slice(&base64_decode(line).ok()?);
        let proof: Option<Vec<Hash>> = lines.map(hash).collect();
        let proof = proof.ok_or("a line of the proof is no hash in base64")?;
        let note = SignedNote::parse(note).map_err(|_| "the checkpoint is no signed note")?;
        let (origin, size, root) =
            parse_checkpoint_text(&note.text).map_err(|_| "the note is no checkpoint of three lines")?;
        let (origin, size, root) = (origin.to_owned(), size, root);
        if old > size {
            return Err("the old size is beyond the checkpoint's");
        }
        match request(old, &proof, &note) {
            Some(again) if again == body => Ok(Submission { old, proof, note, origin, size, root }),
            Some(_) => Err("it has another spelling than the one there is"),
            None => Err("the proof has more than 63 hashes"),
        }
    }
}

/// Why an answer holds no cosignature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum WitnessRefusal {
    /// 409: ask again with a proof from there. A size beyond the box's own log means that the log has lost entries.
    #[error("the witness has cosigned a tree of {0} entries last; the proof must begin there")]
    Size(u64),
    /// 400.
    #[error("the witness finds the request malformed")]
    Malformed,
    /// 403.
    #[error("the witness does not accept the log key's signature")]
    NotSigned,
    /// 404.
    #[error("the witness does not know this log")]
    UnknownLog,
    /// 422.
    #[error("the witness finds the checkpoint inconsistent with the one that it cosigned last")]
    Inconsistent,
    /// Another status.
    #[error("the witness answers with HTTP status {0}")]
    Status(u16),
    /// More than is read.
    #[error("the answer is longer than the 65536 bytes that are read")]
    TooLong,
    /// 200 or 409, and not what the protocol has there: a captive portal, say.
    #[error("the answer is none of a witness: {0}")]
    Unreadable(&'static str),
    /// Cosignatures, but none by the key that was named.
    #[error("the answer holds no cosignature by the witness's key")]
    Absent,
    /// A cosignature by that key that does not verify.
    #[error("the cosignature by the witness's key does not verify")]
    BadCosignature,
}

impl WitnessRefusal {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            WitnessRefusal::Size(_) => "other-size",
            WitnessRefusal::Malformed => "request-malformed",
            WitnessRefusal::NotSigned => "not-signed",
            WitnessRefusal::UnknownLog => "unknown-log",
            WitnessRefusal::Inconsistent => "inconsistent",
            WitnessRefusal::Status(_) => "status",
            WitnessRefusal::TooLong => "answer-too-long",
            WitnessRefusal::Unreadable(_) => "answer-unreadable",
            WitnessRefusal::Absent => "cosignature-absent",
            WitnessRefusal::BadCosignature => "cosignature",
        }
    }
}

/// Reads the answer to a request about the checkpoint with this text.
pub fn parse_answer(
    status: u16,
    body: &[u8],
    text: &str,
    key: &WitnessKey,
) -> Result<Cosignature, WitnessRefusal> {
    if body.len() > ANSWER_BYTES_MAX {
        return Err(WitnessRefusal::TooLong);
    }
    match status {
        200 => cosignature(body, text, key),
        400 => Err(WitnessRefusal::Malformed),
        403 => Err(WitnessRefusal::NotSigned),
        404 => Err(WitnessRefusal::UnknownLog),
        409 => {
            Err(size(body)
                .map_or(WitnessRefusal::Unreadable("a conflict names a size"), WitnessRefusal::Size))
        }
        422 => Err(WitnessRefusal::Inconsistent),
        other => Err(WitnessRefusal::Status(other)),
    }
}

fn size(body: &[u8]) -> Option<u64> {
    decimal(std::str::from_utf8(body).ok()?.strip_suffix('\n')?)
}

fn decimal(digits: &str) -> Option<u64> {
    let size: u64 = digits.parse().ok()?;
    (size.to_string() == digits && size <= NUMBER_MAX).then_some(size)
}

fn cosignature(body: &[u8], text: &str, key: &WitnessKey) -> Result<Cosignature, WitnessRefusal> {
    let unreadable = WitnessRefusal::Unreadable("a cosignature is a line of a signed note");
    let lines = std::str::from_utf8(body).map_err(|_| unreadable)?;
    // The lines belong below the checkpoint's text; whatever is not lines would change that text.
    let note = SignedNote::parse(&format!("{text}\n{lines}")).map_err(|_| unreadable)?;
    if note.text != text {
        return Err(unreadable);
    }
    // Two by one key, or a moment that a cosignature must not have, are as bad as one that does not verify.
    let found = key.cosignature(&note).map_err(|_| WitnessRefusal::BadCosignature)?;
    found.ok_or(WitnessRefusal::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::base64_decode;
    use crate::note::SignatureLine;
    use crate::witness::cosigned;
    use ed25519_dalek::{Signer as _, SigningKey};

    const TEXT: &str =
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";

    #[test]
    fn the_example_of_the_specification_is_written() {
        let body = "old 20852014\n\
            PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n\
            jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n\
            5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n\
            /6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n\
            \n\
            example.com/behind-the-sofa\n\
            20852163\n\
            CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\
            \n\
            \u{2014} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n\
            \u{2014} example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=\n";
        let (head, note) = body.split_once("\n\n").unwrap();
        let hash = |line| Hash::from_slice(&base64_decode(line).unwrap()).unwrap();
        let proof: Vec<Hash> = head.lines().skip(1).map(hash).collect();
        let note = SignedNote::parse(note).unwrap();
        assert_eq!(request(20_852_014, &proof, &note).as_deref(), Some(body));
        let read = Submission::parse(body.as_bytes()).unwrap();
        assert_eq!((read.old, &read.proof, &read.note), (20_852_014, &proof, &note));
        assert_eq!((read.origin.as_str(), read.size), ("example.com/behind-the-sofa", 20_852_163));
        for (bad, why) in [
            (body.replacen("old ", "new ", 1), "old"),
            (body.replacen("old 2", "old 02", 1), "decimal"),
            (body.replacen("old 2", "old +2", 1), "decimal"),
            (body.replacen("old 20852014", "old 20852164", 1), "beyond"),
            (body.replacen("old 20852014", "old 9223372036854775808", 1), "decimal"),
            (body.replacen("PlRN", "PlR", 1), "hash"),
            (body.replacen("kaw=\n", "kax=\n", 1), "hash"),
            (body.replacen("\n\n", "\n", 1), "hash"),
            (body.replacen("20852163\n", "20852163 \n", 1), "checkpoint"),
            (body.replacen("20852163\n", "20852163\nmore\n", 1), "checkpoint"),
            (body.trim_end().to_owned(), "no signed note"),
            (format!("{body}\n"), "no signed note"),
            (body.replacen("old", "\u{feff}old", 1), "old"),
            (
                format!("old 20852014\n{}\n{}", "A".repeat(43) + "=\n", note.encode())
                    .replacen("\n\n", "\r\n\n", 1),
                "hash",
            ),
            (String::new(), "empty line"),
            ("x".repeat(REQUEST_BYTES_MAX + 1), "longer"),
        ] {
            let refused = Submission::parse(bad.as_bytes()).unwrap_err();
            assert!(refused.contains(why), "{refused:?}, not {why:?}: {bad:?}");
        }
        let many = "A".repeat(43) + "=\n";
        let many = format!("old 1\n{}\n{}", many.repeat(64), note.encode());
        assert!(Submission::parse(many.as_bytes()).unwrap_err().contains("63"));
        assert!(Submission::parse(&[0xff]).is_err());
        assert!(request(0, &[], &note).unwrap().starts_with("old 0\n\nexample.com"));
        assert!(request(1, &[Hash([1; 32]); 63], &note).is_some());
        assert_eq!(request(1, &[Hash([1; 32]); 64], &note), None);
    }

    fn line(name: &str, id: [u8; 4], body: &[u8]) -> String {
        let line = SignatureLine { name: name.into(), key_id: id, body: body.to_vec() };
        let note = SignedNote { text: "x\n".into(), lines: vec![line] }.encode();
        note.strip_prefix("x\n\n").unwrap().to_owned()
    }

    #[test]
    fn only_a_cosignature_by_the_key_over_the_text_is_taken() {
        let secret = SigningKey::from_bytes(&[9; 32]);
        let key = WitnessKey::new("witness.example/w1", secret.verifying_key().to_bytes()).unwrap();
        let by = |seconds: u64, text: &str| {
            let signature = secret.sign(&cosigned(text, seconds)).to_bytes();
            [&seconds.to_be_bytes()[..], &signature].concat()
        };
        let good = line(key.name(), key.id(), &by(1_700_000_000, TEXT));
        let stranger = line("witness.example/w2", [1, 2, 3, 4], &[7; 72]);
        let said = |body: &str| parse_answer(200, body.as_bytes(), TEXT, &key);
        for body in [good.clone(), format!("{stranger}{good}"), format!("{good}{stranger}")] {
            let cosignature = said(&body).unwrap();
            assert_eq!(
                (cosignature.name.as_str(), cosignature.seconds),
                ("witness.example/w1", 1_700_000_000)
            );
            assert_eq!(key.verify(TEXT, cosignature.seconds, &cosignature.signature), Ok(()));
        }
        let own = |body: &[u8]| line(key.name(), key.id(), body);
        let mut damaged = by(1_700_000_000, TEXT);
        damaged[71] ^= 1;
        let mut later = by(1_700_000_000, TEXT);
        later[7] ^= 1;
        let longer = [&by(1_700_000_000, TEXT)[..], &[0]].concat();
        for (code, body) in [
            ("cosignature-absent", stranger.clone()),
            ("cosignature-absent", line("witness.example/w2", key.id(), &by(1_700_000_000, TEXT))),
            ("cosignature-absent", line(key.name(), [0; 4], &by(1_700_000_000, TEXT))),
            ("cosignature", own(&damaged)),
            ("cosignature", own(&later)),
            ("cosignature", own(&longer)),
            ("cosignature", own(&by(0, TEXT))),
            ("cosignature", own(&by(1 << 63, TEXT))),
            ("cosignature", own(&by(NUMBER_MAX / 1_000 + 1, TEXT))),
            ("cosignature", own(&by(1_700_000_000, "example.com/behind-the-sofa\n1\nAAAA\n"))),
            ("cosignature", own(&[1; 7])),
            ("cosignature", format!("{good}{good}")),
            ("answer-unreadable", String::new()),
            ("answer-unreadable", "<html>Welcome</html>\n".into()),
            ("answer-unreadable", good[..good.len() - 1].to_owned()),
            ("answer-unreadable", format!("\n{good}")),
            ("answer-unreadable", format!("{good}\n{good}")),
            ("answer-unreadable", format!("more text\n\n{good}")),
            ("answer-unreadable", good.replace("w1 ", "w1  ")),
            ("answer-unreadable", stranger.repeat(16) + &good),
        ] {
            assert_eq!(said(&body).map_err(WitnessRefusal::code), Err(code), "{body:?}");
        }
        let long = vec![b'\n'; ANSWER_BYTES_MAX + 1];
        assert_eq!(parse_answer(200, &long, TEXT, &key), Err(WitnessRefusal::TooLong));
        assert_eq!(
            parse_answer(200, &[0xff, b'\n'], TEXT, &key).map_err(WitnessRefusal::code),
            Err("answer-unreadable")
        );
    }

    #[test]
    fn refusals_are_told_apart() {
        let key = WitnessKey::new("w", SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes()).unwrap();
        let code = |status, body: &str| parse_answer(status, body.as_bytes(), TEXT, &key).unwrap_err();
        assert_eq!(code(409, "0\n"), WitnessRefusal::Size(0));
        assert_eq!(code(409, "9223372036854775807\n"), WitnessRefusal::Size(NUMBER_MAX));
        for bad in
            ["", "\n", "5", "05\n", "+5\n", "5\n\n", "-1\n", "9223372036854775808\n", "<html></html>\n"]
        {
            assert_eq!(code(409, bad).code(), "answer-unreadable", "{bad:?}");
        }
        let codes = [400, 403, 404, 422, 500, 201].map(|status| code(status, "x").code());
        assert_eq!(
            codes,
            ["request-malformed", "not-signed", "unknown-log", "inconsistent", "status", "status"]
        );
    }
}

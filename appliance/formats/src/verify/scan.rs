//! Reads a `.seal` in the spelling that programs write: known members only, names and base64 without escapes.
//!
//! Refuses to do: refuse. `None` says no more than that `SealFile::decode` shall decide; so anything unusual at all may
//! end here.
//! Invariant: what is read here, `SealFile::decode` reads as the same. Each value is either a piece of text that was read
//! before, or read by the same strict readers as there; strings, arrays and objects say themselves where they end.

use super::unpacked::{Der, HeadParts, Known, Note, Parts, Path, Pcrs, Texts};
use crate::erasure::ERASURES_MAX;
use crate::hash::Hash;
use crate::json::{self, base64_decode};
use crate::revocation::REVOCATIONS_MAX;
use crate::seal_file::{
    ANCHORS_MAX, COSIGNED_MAX, CRL_BYTES_MAX, CRLS_MAX, HEADS_MAX, MANIFESTS_MAX, SEAL_BYTES_MAX,
    SEAL_VERSION, SealFileError, parts,
};
use serde_json::Value;
use std::sync::Arc;

/// The parts of a file and the bytes of its token, if it is spelled as usual.
pub(super) fn parts(bytes: &[u8], texts: &mut Texts) -> Option<(Parts, Vec<u8>)> {
    if bytes.len() > SEAL_BYTES_MAX {
        return None;
    }
    let mut scan = Scan { rest: std::str::from_utf8(bytes).ok()? };
    let (mut version, mut origin, mut token, mut epoch, mut enrolment) = (None, None, None, None, None);
    let (mut heads, mut openings, mut erasures, mut anchors) = (None, None, None, None);
    let (mut evidence, mut crls, mut manifests, mut revocations) = (None, None, None, None);
    let mut cosignatures = None;
    scan.members(|scan, name| match name {
        "bulla" => once(&mut version, scan.plain()?),
        "origin" => once(&mut origin, scan.plain()?.to_owned()),
        "entry" => once(&mut token, scan.base64()?),
        "epoch" => once(&mut epoch, scan.known(&mut texts.epochs, Scan::der)?),
        "enrolment" => once(&mut enrolment, scan.known(&mut texts.enrolments, Scan::der)?),
        "heads" => once(&mut heads, scan.items(HEADS_MAX, |scan| scan.head(texts))?),
        "openings" => once(&mut openings, scan.items(usize::MAX, Scan::base64)?),
        "erasures" => {
            once(&mut erasures, scan.list(ERASURES_MAX, |item| parts::decode_placed("erasures", item))?)
        }
        "anchors" => once(&mut anchors, scan.list(ANCHORS_MAX, parts::decode_anchor)?),
        "evidence" => once(&mut evidence, scan.base64()?),
        "crls" => once(&mut crls, scan.items(CRLS_MAX, |scan| scan.crl(texts))?),
        "manifests" => {
            once(&mut manifests, scan.list(MANIFESTS_MAX, |item| parts::decode_placed("manifests", item))?)
        }
        "revocations" => once(&mut revocations, scan.list(REVOCATIONS_MAX, parts::decode_revocation)?),
        "cosignatures" => once(&mut cosignatures, scan.list(COSIGNED_MAX, parts::decode_cosigned)?),
        _ => None,
    })?;
    let heads = heads.filter(|heads: &Vec<HeadParts>| !heads.is_empty())?;
    if version? != SEAL_VERSION || !scan.rest.bytes().all(is_space) {
        return None;
    }
    let parts = Parts {
        origin: origin?,
        epoch: epoch?,
        enrolment: enrolment?,
        heads,
        openings: openings?,
        erasures: erasures.unwrap_or_default(),
        anchors: anchors.unwrap_or_default(),
        evidence,
        crls: crls.unwrap_or_default(),
        manifests: manifests.unwrap_or_default(),
        revocations: revocations.unwrap_or_default(),
        cosignatures: cosignatures.unwrap_or_default(),
    };
    Some((parts, token?))
}

/// A member that appears twice is not read here.
fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// What of a file has not been read yet.
struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn space(&mut self) {
        let space = self.rest.bytes().take_while(|byte| is_space(*byte)).count();
        self.rest = &self.rest[space..];
    }

    /// Whether `mark` comes next; it is read if so.
    fn comes(&mut self, mark: char) -> bool {
        self.space();
        let rest = self.rest.strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn mark(&mut self, mark: char) -> Option<()> {
        self.comes(mark).then_some(())
    }

    /// What comes between two marks, with commas between the items.
    fn between(
        &mut self,
        open: char,
        close: char,
        mut item: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.mark(open)?;
        if self.comes(close) {
            return Some(());
        }
        loop {
            item(self)?;
            if !self.comes(',') {
                return self.mark(close);
            }
        }
    }

    /// The members of an object.
    fn members(&mut self, mut member: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.between('{', '}', |scan| {
            let name = scan.plain()?;
            scan.mark(':')?;
            member(scan, name)
        })
    }

    /// The items of an array.
    fn items<T>(&mut self, most: usize, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut items = Vec::new();
        self.between('[', ']', |scan| {
            items.push(item(scan)?);
            (items.len() <= most).then_some(())
        })?;
        Some(items)
    }

    /// A string in which every character stands for itself.
    fn plain(&mut self) -> Option<&'a str> {
        let text = self.raw()?;
        text.bytes().all(|byte| byte >= b' ' && byte != b'\\').then_some(text)
    }

    /// What is up to the next quotation mark: a whole string when it has neither escapes nor control characters.
    fn raw(&mut self) -> Option<&'a str> {
        self.mark('"')?;
        let (text, rest) = self.rest.split_once('"')?;
        self.rest = rest;
        Some(text)
    }

    /// The alphabet of base64 has neither escapes nor control characters.
    fn base64(&mut self) -> Option<Vec<u8>> {
        base64_decode(self.raw()?).ok()
    }

    fn der(&mut self) -> Option<Der> {
        self.base64().map(Der::new)
    }

    fn crl(&mut self, texts: &mut Texts) -> Option<Arc<Der>> {
        self.known(&mut texts.crls, Scan::der).filter(|crl| crl.bytes.len() <= CRL_BYTES_MAX)
    }

    fn path(&mut self) -> Option<Vec<Hash>> {
        self.items(parts::PATH_MAX, |scan| json::base64_hash(scan.raw()?).map(Hash))
    }

    fn head(&mut self, texts: &mut Texts) -> Option<HeadParts> {
        let (mut checkpoint, mut entry_proof, mut epoch_proof, mut pcrs) = (None, None, None, None);
        self.members(|scan, name| match name {
            "checkpoint" => once(&mut checkpoint, scan.known(&mut texts.notes, Scan::note)?),
            "entryProof" => once(&mut entry_proof, scan.path()?),
            "epochProof" => {
                let read = |scan: &mut Self| Some(Path::new(Some(scan.path()?)));
                once(&mut epoch_proof, scan.known(&mut texts.paths, read)?)
            }
            "pcrs" => once(&mut pcrs, scan.known(&mut texts.pcrs, Scan::pcrs)?),
            _ => None,
        })?;
        Some(HeadParts {
            checkpoint: checkpoint?,
            entry_proof: Some(entry_proof?),
            epoch_proof: epoch_proof?,
            pcrs,
        })
    }

    fn note(&mut self) -> Option<Note> {
        match self.value()? {
            Value::String(text) => Some(Note::new(text)),
            _ => None,
        }
    }

    fn pcrs(&mut self) -> Option<Pcrs> {
        parts::decode_pcrs(&self.value()?).ok().map(Pcrs::new)
    }

    /// A list that most files do not have.
    fn list<T>(&mut self, most: usize, read: impl Fn(&Value) -> Result<T, SealFileError>) -> Option<Vec<T>> {
        match self.value()? {
            Value::Array(items) if items.len() <= most => items.iter().map(|item| read(item).ok()).collect(),
            _ => None,
        }
    }

    /// A value of a kind that is read again and again: known, or read now and known from now on.
    fn known<T>(&mut self, known: &mut Known<T>, read: fn(&mut Self) -> Option<T>) -> Option<Arc<T>> {
        self.space();
        let before = self.rest;
        if let Some((length, value)) = known.find(before) {
            self.rest = &before[length..];
            return Some(value);
        }
        let value = read(self)?;
        Some(known.keep(&before[..before.len() - self.rest.len()], value))
    }

    /// Any string, array or object, cut out by its quotation marks and brackets and then read strictly.
    fn value(&mut self) -> Option<Value> {
        self.space();
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        for (at, byte) in self.rest.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.checked_sub(1)?,
                // Numbers and words do not say where they end.
                _ if depth == 0 => return None,
                _ => {}
            }
            if depth == 0 && !quoted {
                let (value, rest) = self.rest.split_at(at + 1);
                self.rest = rest;
                return json::parse(value.as_bytes(), SEAL_BYTES_MAX).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::revocation::RevocationEvidence;
    use crate::seal_file::{AnchorEvidence, Cosigned, Head, Placed, SealFile};

    /// A file with every member; what its bytes mean does not matter here.
    fn sample() -> SealFile {
        let head = |number: u8, pcrs: Option<Vec<(u8, [u8; 32])>>| Head {
            checkpoint: format!("a.b/c\n{number}\n\n\u{2014} \"a\\b\" AAAA\n"),
            entry_proof: vec![vec![number; 32], vec![2; 32]],
            epoch_proof: vec![vec![3; 32]],
            pcrs,
        };
        let placed = |number: u8| Placed {
            entry: vec![number; 5],
            checkpoint: "placed\n\n".into(),
            entry_proof: vec![vec![number; 32]],
        };
        SealFile {
            origin: "a.b/c".into(),
            entry: vec![1; 10],
            epoch: vec![2; 20],
            enrolment: vec![3; 21],
            heads: vec![head(1, Some(vec![(0, [5; 32]), (11, [0xab; 32])])), head(2, None)],
            openings: vec![vec![4; 6], Vec::new()],
            erasures: vec![placed(5)],
            anchors: vec![AnchorEvidence { body: vec![6; 7], entry_proof: vec![vec![6; 31]] }],
            evidence: Some(vec![7; 8]),
            crls: vec![vec![8; 9], vec![9; 40]],
            manifests: vec![placed(8)],
            revocations: vec![RevocationEvidence { statement: vec![9; 9], entry_proof: None }],
            cosignatures: vec![Cosigned {
                checkpoint: "cosigned\n\n".into(),
                entry_proof: vec![vec![4; 32]],
            }],
            unknown: serde_json::Map::new(),
        }
    }

    fn decoded(bytes: &[u8]) -> Option<String> {
        let file = SealFile::decode(bytes).ok()?;
        let token = file.entry.clone();
        Some(format!("{:?}", (Parts::from(file), token)))
    }

    fn scanned(bytes: &[u8], texts: &mut Texts) -> Option<String> {
        parts(bytes, texts).map(|found| format!("{found:?}"))
    }

    #[test]
    fn what_programs_write_is_read_here() {
        let (mut texts, mut bare) = (Texts::default(), sample());
        bare.heads.truncate(1);
        bare.openings.clear();
        bare.anchors.clear();
        bare.evidence = None;
        for file in [sample(), bare] {
            let Value::Object(members) = file.to_value() else { panic!("a file is an object") };
            let reversed: serde_json::Map<String, Value> = members.into_iter().rev().collect();
            let short = serde_json::to_string(&file.to_value()).unwrap();
            let turned = serde_json::to_string_pretty(&reversed).unwrap();
            for text in [file.encode(), short, turned.replace('\n', "\r\n\t")] {
                let found = scanned(text.as_bytes(), &mut texts);
                assert!(found.is_some(), "{text}");
                assert_eq!(found, decoded(text.as_bytes()), "{text}");
                assert_eq!(found, scanned(text.as_bytes(), &mut Texts::default()), "{text}");
            }
        }
    }

    /// With everything of the unchanged file known.
    #[test]
    fn a_changed_byte_is_read_as_the_strict_decoder_reads_it() {
        let text = sample().encode();
        let mut texts = Texts::default();
        let (mut read, mut left) = (0, 0);
        for bit in (0..text.len()).flat_map(|byte| [byte * 8 + byte % 8, byte * 8 + (byte + 3) % 8]) {
            assert!(scanned(text.as_bytes(), &mut texts).is_some());
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match scanned(&bytes, &mut texts) {
                Some(found) => {
                    assert_eq!(Some(found), decoded(&bytes), "bit {bit}");
                    read += 1;
                }
                None => left += 1,
            }
        }
        for length in 0..text.len() - 1 {
            assert!(scanned(&text.as_bytes()[..length], &mut texts).is_none(), "cut to {length} bytes");
        }
        assert!(read > 500 && left > 2_000, "{read} read, {left} left to the decoder");
    }

    #[test]
    fn the_unusual_is_left_to_the_decoder() {
        let (text, mut texts) = (sample().encode(), Texts::default());
        assert!(scanned(text.as_bytes(), &mut texts).is_some());
        let entry = json::base64_encode(&[1; 10]);
        for (from, to) in [
            ("\"bulla\"", "\"\\u0062ulla\""),
            ("seal/v1", "seal/v2"),
            ("\"origin\"", "\"later\": 1, \"origin\""),
            ("\"origin\"", "\"critical\": [], \"origin\""),
            ("\"origin\"", "\"origin\": \"a.b/c\", \"origin\""),
            ("\"origin\": \"a.b/c\"", "\"origin\": \"a.b\\/c\""),
            ("\"origin\": \"a.b/c\"", "\"origin\": \"a.b\tc\""),
            ("\"origin\": \"a.b/c\"", "\"origin\": null"),
            ("\"origin\": \"a.b/c\",", ""),
            (&entry, "AR=="),
            (&entry, "AQ"),
            ("\"pcr\": 0", "\"pcr\": 24"),
            ("\"pcr\": 0", "\"pcr\": 0, \"pcr\": 0"),
            ("\"abababab", "\"ABABABAB"),
            ("\"checkpoint\"", "\"note\": 1, \"checkpoint\""),
            ("AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=", "AwM="),
            ("\n}\n", "\n},\n"),
            ("\n}\n", "\n}\n{}"),
            ("\n}\n", "\n}\u{a0}"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            assert!(scanned(changed.as_bytes(), &mut texts).is_none(), "{from} became {to}");
        }
        let mut many = sample();
        many.heads = vec![many.heads[0].clone(); HEADS_MAX + 1];
        assert!(scanned(many.encode().as_bytes(), &mut texts).is_none(), "too many heads");
        many.heads.clear();
        assert!(scanned(many.encode().as_bytes(), &mut texts).is_none(), "no head");
        many = sample();
        many.heads[0].entry_proof = vec![vec![1; 32]; parts::PATH_MAX + 1];
        assert!(scanned(many.encode().as_bytes(), &mut texts).is_none(), "too long a path");
        for (crls, why) in
            [(vec![vec![1]; CRLS_MAX + 1], "too many CRLs"), (vec![vec![1; CRL_BYTES_MAX + 1]], "too large")]
        {
            many = sample();
            many.crls = crls;
            assert!(scanned(many.encode().as_bytes(), &mut texts).is_none(), "{why}");
            assert!(SealFile::decode(many.encode().as_bytes()).is_err(), "{why}");
        }
        many.crls = vec![vec![1; CRL_BYTES_MAX]; CRLS_MAX];
        assert_eq!(scanned(many.encode().as_bytes(), &mut texts), decoded(many.encode().as_bytes()));
        let long = text + &" ".repeat(SEAL_BYTES_MAX);
        assert!(scanned(long.as_bytes(), &mut texts).is_none(), "too long a file");
    }

    #[test]
    fn what_is_known_is_bounded_and_the_latest_stays() {
        let mut known = Known::<usize>::default();
        let text = |number: usize| format!("\"{number}\"");
        for number in 0..100 {
            known.keep(&text(number), number);
            assert_eq!(known.find(&(text(0) + ",")).map(|(length, value)| (length, *value)), Some((3, 0)));
        }
        assert_eq!((0..100).filter(|number| known.find(&text(*number)).is_some()).count(), 16);
        known.keep(&"x".repeat(1 << 20), 7);
        assert!(known.find(&"x".repeat(1 << 20)).is_none());
    }
}

//! Time stamps of stock OpenSSL, judged: those that hold, and every way in which one does not.
//!
//! Method: genuine replies come from `openssl ts -reply`; what it would not make is signed by `openssl cms -sign`, with
//! certificates of `openssl ca`; damage is done to genuine bytes. Each refusal is asked for by its code, and at the end
//! of the list every code has been seen.
//! `tests/vectors-timestamps/` keeps the first of each kind, judged again in every run;
//! `BULLA_WRITE_VECTORS=1 cargo test -p bulla-tests --test timestamps -- --test-threads 1` makes them anew, with other keys.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_authorities::openssl;
use bulla_authorities::pki::{FOR_CAS, FOR_STAMPS, Holder, Key, LONG, Wish};
use bulla_authorities::stamps::{
    AS_STAMP, Desk, Manner, OTHER_POLICY, POLICY, content_of, granted, signed, stamp_of,
};
use bulla_formats::json::{base64_decode, base64_encode};
use bulla_timestamps::{Authority, Expected, Oid, Refusal, Request, TimeStamp, verify};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const IMPRINT: [u8; 32] = [0x5a; 32];
const NONCE: u64 = 0xfeed_f00d_dead_beef;
const EXPECTED: Expected = Expected { imprint: IMPRINT, nonce: Some(NONCE) };
/// id-ct-TSTInfo.
const TST_INFO: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x04";

fn request() -> Vec<u8> {
    Request::new(IMPRINT, NONCE, None).encode()
}

fn now_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

fn authority_of(root: &Holder) -> Authority {
    Authority::from_pem(&fs::read(root.certificate()).unwrap(), vec![]).unwrap()
}

fn stock_verify(directory: &Path, reply: &[u8], root: &Holder, intermediates: &Path) {
    fs::write(directory.join("reply.tsr"), reply).unwrap();
    fs::write(directory.join("request.tsq"), request()).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (reply, query) = (text(&directory.join("reply.tsr")), text(&directory.join("request.tsq")));
    let (root, others) = (text(&root.certificate()), text(intermediates));
    let mut arguments = vec!["ts", "-verify", "-in", &reply, "-queryfile", &query, "-CAfile", &root];
    if fs::metadata(intermediates).unwrap().len() > 0 {
        arguments.extend(["-untrusted", &others]);
    }
    openssl::run(&arguments, b"").unwrap();
}

#[test]
fn what_stock_openssl_stamps_holds_for_every_kind_of_key() {
    for (root_key, middle_key, key, hash) in [
        (Key::Rsa(2048), None, Key::Rsa(2048), "sha256"),
        (Key::Rsa(2048), Some(Key::Rsa(2048)), Key::Rsa(3072), "sha512"),
        (Key::P256, None, Key::P256, "sha256"),
        (Key::P384, Some(Key::P256), Key::P384, "sha384"),
        (Key::P384, Some(Key::Rsa(2048)), Key::P256, "sha384"),
        (Key::P256, None, Key::P384, "sha256"),
        (Key::P256, None, Key::Rsa(2048), "sha384"),
    ] {
        let directory = TempDir::new().unwrap();
        let root = Holder::root(&directory.path().join("root"), "Root", root_key).unwrap();
        let middle = middle_key.map(|key| {
            let wish = Wish { name: "Middle", key, extensions: FOR_CAS, hash: "sha384", ..Wish::default() };
            root.issue(&wish).unwrap()
        });
        let signer = middle.as_ref().unwrap_or(&root).issue(&Wish { key, ..Wish::default() }).unwrap();
        for (binding_hash, accuracy, precision) in [
            ("sha256", "secs:1", 0),
            ("sha384", "secs:0, millisecs:500, microsecs:100", 6),
            ("sha512", "", 3),
        ] {
            let manner = Manner { hash, binding_hash, accuracy, precision, chain: true };
            let desk = Desk::open(&signer, &manner).unwrap();
            let before = now_micros() - 1_000_000;
            let reply = desk.reply(&request(), 0).unwrap();
            let stamp = verify(&reply, &EXPECTED, &authority_of(&root)).unwrap();
            assert!((before..=now_micros()).contains(&stamp.gen_time_micros()), "{stamp:?}");
            let stated = match accuracy {
                "" => None,
                "secs:1" => Some(1_000_000),
                _ => Some(500_100),
            };
            assert_eq!(stamp.accuracy_micros(), stated);
            assert_eq!(stamp.gen_time_micros() - stamp.earliest_micros(), stated.unwrap_or(1_000_000));
            assert_eq!(stamp.latest_micros() - stamp.gen_time_micros(), stated.unwrap_or(1_000_000));
            assert_eq!(stamp.policy().to_string(), POLICY);
            assert_eq!(stamp.signer(), "CN=TSA, O=Bulla tests, C=AT");
            assert_eq!(stamp.signer_not_after_micros(), 2_524_607_999_000_000);
            stock_verify(directory.path(), &reply, &root, &signer.chain());
            keep("valid", &reply, &EXPECTED, &authority_of(&root));
            // Years later nobody knows the nonce.
            assert_eq!(
                verify(&reply, &Expected { nonce: None, ..EXPECTED }, &authority_of(&root)),
                Ok(stamp)
            );
        }
    }
}

/// 64 KiB of nothing teach nobody anything; it has no vector.
const TOO_LONG: &str = "reply-too-long";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors-timestamps")
}

/// Writes a vector, when that is what the tests are run for. Those that hold are numbered.
fn keep(expect: &str, reply: &[u8], expected: &Expected, authority: &Authority) {
    static VALID: AtomicUsize = AtomicUsize::new(0);
    if std::env::var_os("BULLA_WRITE_VECTORS").is_none() || expect == TOO_LONG {
        return;
    }
    let name = match expect {
        "valid" => format!("valid-{}", VALID.fetch_add(1, Relaxed)),
        code => format!("refused-{code}"),
    };
    let vector = serde_json::json!({
        "expect": expect,
        "imprint": hex::encode(expected.imprint),
        "nonce": expected.nonce.map(|nonce| format!("{nonce:016x}")),
        "policies": authority.policies().iter().map(ToString::to_string).collect::<Vec<_>>(),
        "roots": authority.roots().map(base64_encode).collect::<Vec<_>>(),
        "reply": base64_encode(reply),
    });
    let text = serde_json::to_string_pretty(&vector).unwrap();
    fs::create_dir_all(vectors()).unwrap();
    fs::write(vectors().join(format!("{name}.json")), text + "\n").unwrap();
}

#[test]
fn written_vectors_are_judged_as_they_say() {
    let mut seen: Vec<String> = Vec::new();
    for file in fs::read_dir(vectors()).unwrap() {
        let path = file.unwrap().path();
        let vector: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap();
        let texts = |name: &str| vector[name].as_array().unwrap().iter().map(|item| item.as_str().unwrap());
        let roots: Vec<Vec<u8>> = texts("roots").map(|root| base64_decode(root).unwrap()).collect();
        let policies = texts("policies").map(|policy| Oid::parse(policy).unwrap()).collect();
        let nonce = u64::from_str_radix(text("nonce"), 16).unwrap();
        let imprint = hex::decode(text("imprint")).unwrap().try_into().unwrap();
        let reply = base64_decode(text("reply")).unwrap();
        let authority = Authority::new(&roots, policies).unwrap();
        let judged = verify(&reply, &Expected { imprint, nonce: Some(nonce) }, &authority);
        let said = judged.map_or_else(|refusal| refusal.code(), |_| "valid");
        assert_eq!(said, text("expect"), "{}", path.display());
        seen.push(said.to_owned());
    }
    let valid = seen.iter().filter(|said| *said == "valid").count();
    let codes: BTreeSet<&str> = seen.iter().map(String::as_str).filter(|said| *said != "valid").collect();
    assert_eq!(codes, CODES.into_iter().filter(|code| *code != TOO_LONG).collect());
    assert!(valid > 10 && seen.len() > 2 * valid, "{valid} of {}", seen.len());
}

/// A PKI with whatever a test wants of it, and the codes that were seen.
struct Room {
    directory: TempDir,
    root: Holder,
    signer: Holder,
    authority: Authority,
    codes: RefCell<BTreeSet<&'static str>>,
}

impl Room {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let root = Holder::root(&directory.path().join("root"), "Root", Key::P256).unwrap();
        let signer = root.issue(&Wish::default()).unwrap();
        let authority = authority_of(&root);
        Room { directory, root, signer, authority, codes: RefCell::default() }
    }

    fn refused_by(&self, authority: &Authority, code: &str, reply: &[u8], expected: &Expected) {
        let refusal = verify(reply, expected, authority).expect_err(code);
        assert_eq!(refusal.code(), code, "{refusal}");
        let text = refusal.to_string();
        assert!(text.len() > 20 && !text.ends_with('.') && !text.contains('\n'), "{text}");
        if self.codes.borrow_mut().insert(refusal.code()) {
            keep(code, reply, expected, authority);
        }
    }

    fn refused(&self, code: &str, reply: &[u8]) {
        self.refused_by(&self.authority, code, reply, &EXPECTED);
    }

    fn held(&self, reply: &[u8]) -> TimeStamp {
        verify(reply, &EXPECTED, &self.authority).unwrap()
    }

    fn issue(&self, extensions: &str) -> Holder {
        self.root.issue(&Wish { extensions, ..Wish::default() }).unwrap()
    }

    /// A genuine reply, its time to the second: a changed digit leaves it a time.
    fn genuine(&self) -> Vec<u8> {
        let manner = Manner { precision: 0, ..Manner::default() };
        Desk::open(&self.signer, &manner).unwrap().reply(&request(), 0).unwrap()
    }
}

/// An element of DER.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = match content.len() {
        short @ 0..=0x7f => vec![short as u8],
        middle @ 0x80..=0xff => vec![0x81, middle as u8],
        long => vec![0x82, (long >> 8) as u8, long as u8],
    };
    [&[tag], &length[..], &content].concat()
}

/// Contents of a stamp, as an authority that errs might write them.
struct Content {
    version: u8,
    algorithm: Vec<u8>,
    serial: Vec<u8>,
    time: String,
    accuracy: Vec<u8>,
    ordering: Vec<u8>,
    nonce: Vec<u8>,
    rest: Vec<u8>,
}

impl Content {
    fn good() -> Self {
        let sha256 = der(0x06, &[b"\x60\x86\x48\x01\x65\x03\x04\x02\x01"]);
        Content {
            version: 1,
            algorithm: der(0x30, &[&sha256]),
            serial: der(0x02, &[&[7]]),
            time: "20261121233000.5Z".into(),
            accuracy: vec![],
            ordering: vec![],
            nonce: der(0x02, &[&[0], &NONCE.to_be_bytes()]),
            rest: vec![],
        }
    }

    fn encode(&self) -> Vec<u8> {
        let imprint = der(0x30, &[&self.algorithm, &der(0x04, &[&IMPRINT])]);
        let policy = der(0x06, &[&[0x2a, 3, 4, 1]]);
        let time = der(0x18, &[self.time.as_bytes()]);
        let version = der(0x02, &[&[self.version]]);
        der(
            0x30,
            &[
                &version,
                &policy,
                &imprint,
                &self.serial,
                &time,
                &self.accuracy,
                &self.ordering,
                &self.nonce,
                &self.rest,
            ],
        )
    }

    fn signed_by(&self, signer: &Holder) -> Vec<u8> {
        signed(&self.encode(), signer, &AS_STAMP).unwrap()
    }
}

fn position(bytes: &[u8], wanted: &[u8], nth: usize) -> usize {
    let mut found = (0..=bytes.len() - wanted.len()).filter(|at| bytes[*at..].starts_with(wanted));
    found.nth(nth).expect("the bytes are there")
}

#[test]
fn every_refusal_has_its_code() {
    let room = Room::new();
    replies(&room);
    cms(&room);
    contents(&room);
    purposes(&room);
    paths(&room);
    let seen = room.codes.borrow();
    let all: BTreeSet<&str> = CODES.into_iter().collect();
    assert_eq!(all.len(), CODES.len());
    assert_eq!(*seen, all);
}

/// Every code there is.
const CODES: [&str; 37] = [
    "reply-too-long",
    "reply-malformed",
    "rejected",
    "stamp-missing",
    "stamp-unexpected",
    "malformed",
    "not-signed",
    "not-a-stamp",
    "version",
    "signers",
    "algorithm",
    "attribute-missing",
    "attribute-repeated",
    "content-type",
    "digest",
    "signer-certificate-missing",
    "signer-certificate-ambiguous",
    "signature",
    "imprint-algorithm",
    "imprint",
    "nonce",
    "policy",
    "time",
    "accuracy",
    "critical-extension",
    "authority-name",
    "purpose-missing",
    "purpose-not-sole",
    "purpose-not-critical",
    "key-usage",
    "signer-is-ca",
    "signer-expired",
    "signer-not-yet-valid",
    "untrusted",
    "ca-not-valid-then",
    "root-not-valid-then",
    "path",
];

fn replies(room: &Room) {
    let genuine = room.genuine();
    room.held(&genuine);
    keep("valid", &genuine, &EXPECTED, &room.authority);
    room.refused(TOO_LONG, &vec![0; 70_000]);
    room.refused("reply-malformed", b"<html><body>Please accept the terms of this network</body></html>");
    room.refused("reply-malformed", &[&genuine[..], &[0]].concat());
    room.refused("reply-malformed", &genuine[..genuine.len() - 1]);
    room.refused("reply-malformed", stamp_of(&genuine).unwrap());
    room.refused("stamp-missing", &granted(b""));
    let mut both = genuine.clone();
    both[position(&genuine, &[0x30, 3, 2, 1, 0], 0) + 4] = 2;
    room.refused("stamp-unexpected", &both);
    room.refused("rejected", &bulla_authorities::stamps::time_not_available());
    let unknown = Request::new(IMPRINT, NONCE, Some(Oid::parse("1.2.3.4").unwrap())).encode();
    let desk = Desk::open(&room.signer, &Manner::default()).unwrap();
    room.refused("rejected", &desk.reply(&unknown, 0).unwrap());

    let other = Request::new([1; 32], NONCE, None).encode();
    room.refused("imprint", &desk.reply(&other, 0).unwrap());
    let older = Request::new(IMPRINT, NONCE + 1, None).encode();
    let replay = desk.reply(&older, 0).unwrap();
    room.refused("nonce", &replay);
    room.refused("nonce", &Content { nonce: vec![], ..Content::good() }.signed_by(&room.signer));
    assert!(verify(&replay, &Expected { nonce: None, ..EXPECTED }, &room.authority).is_ok());

    let asked = Request::new(IMPRINT, NONCE, Some(Oid::parse(OTHER_POLICY).unwrap())).encode();
    let reply = desk.reply(&asked, 0).unwrap();
    assert_eq!(room.held(&reply).policy().to_string(), OTHER_POLICY);
    let roots: Vec<Vec<u8>> = room.authority.roots().map(<[u8]>::to_vec).collect();
    let strict = Authority::new(&roots, vec![Oid::parse(POLICY).unwrap()]).unwrap();
    assert!(verify(&genuine, &EXPECTED, &strict).is_ok());
    room.refused_by(&strict, "policy", &reply, &EXPECTED);
}

fn cms(room: &Room) {
    let content = Content::good().encode();
    let by = |arguments: &[&str]| signed(&content, &room.signer, arguments).unwrap();
    let stamp = room.held(&by(&AS_STAMP));
    keep("valid", &by(&AS_STAMP), &EXPECTED, &room.authority);
    assert_eq!((stamp.gen_time_micros(), stamp.serial()), (1_795_303_800_500_000, &[7][..]));
    room.held(&by(&[&AS_STAMP[..], &["-keyid"]].concat()));
    let kind = ["-econtent_type", "1.2.840.113549.1.9.16.1.4"];

    let digested = openssl::run(&["cms", "-digest_create", "-binary", "-outform", "DER"], &content).unwrap();
    room.refused("not-signed", &granted(&digested));
    room.refused("not-a-stamp", &by(&["-md", "sha256", "-cades"]));
    room.refused("reply-malformed", &by(&[&AS_STAMP[..], &["-stream", "-indef"]].concat()));
    room.refused("signers", &{
        let other = room.issue(FOR_STAMPS);
        let (certificate, key) = (other.certificate(), other.key());
        let further = ["-signer", certificate.to_str().unwrap(), "-inkey", key.to_str().unwrap()];
        by(&[&AS_STAMP[..], &further].concat())
    });
    room.refused("attribute-missing", &by(&[&kind[..], &["-md", "sha256", "-noattr"]].concat()));
    room.refused("attribute-missing", &by(&[&kind[..], &["-md", "sha256"]].concat()));
    room.refused("signer-certificate-missing", &by(&[&AS_STAMP[..], &["-nocerts"]].concat()));
    room.refused("algorithm", &by(&[&kind[..], &["-md", "sha1", "-cades"]].concat()));
    room.refused("algorithm", &by(&[&kind[..], &["-md", "sha224", "-cades"]].concat()));
    room.refused("algorithm", &by(&[&kind[..], &["-md", "sha512", "-cades"]].concat()));
    let desk = Desk::open(&room.signer, &Manner { binding_hash: "sha1", ..Manner::default() }).unwrap();
    let by_sha1 = desk.reply(&request(), 0).unwrap();
    room.held(&by_sha1);
    keep("valid", &by_sha1, &EXPECTED, &room.authority);
    // Another hash, another serial number, an algorithm where RFC 2634 has none.
    let attribute = position(&by_sha1, b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x02\x0c", 0);
    let hash = attribute + position(&by_sha1[attribute..], &[0x04, 0x14], 0) + 2;
    let mut other = by_sha1.clone();
    other[hash] ^= 1;
    room.refused("signer-certificate-missing", &other);
    let mut new = by_sha1.clone();
    new[attribute + 10] = 0x2f;
    room.refused("signer-certificate-missing", &new);

    let genuine = room.genuine();
    keep("valid", &genuine, &EXPECTED, &room.authority);
    let changed = |at: usize| {
        let mut changed = genuine.clone();
        changed[at] ^= 1;
        changed
    };
    let version = position(&genuine, &[0x02, 0x01, 0x03], 0) + 2;
    room.refused("version", &changed(version));
    room.refused("content-type", &changed(position(&genuine, TST_INFO, 1) + TST_INFO.len() - 1));
    room.refused("signature", &changed(genuine.len() - 1));
    // The time, in the content that was signed.
    room.refused("digest", &changed(position(&genuine, b"Z\x30\x03\x02\x01\x01", 0) - 1));
    // signingTime becomes a second messageDigest.
    let with_time = by(&AS_STAMP);
    let mut twice = with_time.clone();
    twice[position(&with_time, b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x05", 0) + 8] = 4;
    room.refused("attribute-repeated", &twice);
    let name = position(&with_time, b"Bulla tests", 4);
    let mut ambiguous = with_time.clone();
    ambiguous[name] ^= 1;
    room.refused("signer-certificate-ambiguous", &ambiguous);

    let rsa = room.root.issue(&Wish { key: Key::Rsa(2048), ..Wish::default() }).unwrap();
    let pss = |further: &[&str]| {
        let pss = ["-keyopt", "rsa_padding_mode:pss"];
        signed(&content, &rsa, &[&AS_STAMP[..], &pss, further].concat()).unwrap()
    };
    room.held(&pss(&["-keyopt", "rsa_pss_saltlen:32"]));
    room.refused("algorithm", &pss(&["-keyopt", "rsa_pss_saltlen:20"]));
    room.refused("algorithm", &pss(&["-keyopt", "rsa_pss_saltlen:32", "-keyopt", "rsa_mgf1_md:sha1"]));
    let short = room.root.issue(&Wish { key: Key::Rsa(1024), ..Wish::default() }).unwrap();
    room.refused("signature", &signed(&content, &short, &AS_STAMP).unwrap());
}

fn contents(room: &Room) {
    let refused = |code: &str, content: Content| room.refused(code, &content.signed_by(&room.signer));
    refused("version", Content { version: 2, ..Content::good() });
    let sha512 = der(0x30, &[&der(0x06, &[b"\x60\x86\x48\x01\x65\x03\x04\x02\x03"])]);
    refused("imprint-algorithm", Content { algorithm: sha512, ..Content::good() });
    let sha1 = der(0x30, &[&der(0x06, &[b"\x2b\x0e\x03\x02\x1a"])]);
    refused("imprint-algorithm", Content { algorithm: sha1, ..Content::good() });
    let odd = der(0x30, &[&der(0x06, &[b"\x60\x86\x48\x01\x65\x03\x04\x02\x01"]), &der(0x04, &[b"x"])]);
    refused("imprint-algorithm", Content { algorithm: odd, ..Content::good() });
    for time in
        ["20261121233000", "20261121233000.50Z", "202611212330Z", "20261121233000+0100", "20261121233060Z"]
    {
        refused("time", Content { time: time.into(), ..Content::good() });
    }
    for accuracy in [
        der(0x30, &[&der(0x80, &[&[0]])]),
        der(0x30, &[&der(0x80, &[&[0x03, 0xe8]])]),
        der(0x30, &[&der(0x81, &[&[1]]), &der(0x80, &[&[1]])]),
        der(0x30, &[&der(0x02, &[&[0xff]])]),
        der(0x30, &[&der(0x02, &[&[0x02, 0, 0, 0]])]),
    ] {
        refused("accuracy", Content { accuracy, ..Content::good() });
    }
    refused("malformed", Content { serial: der(0x02, &[&[0xff]]), ..Content::good() });
    refused("malformed", Content { serial: der(0x02, &[&[1; 22]]), ..Content::good() });
    refused("malformed", Content { rest: der(0x05, &[]), ..Content::good() });
    let extension = |critical: &[u8]| {
        let one = der(0x30, &[&der(0x06, &[&[0x2a, 3]]), critical, &der(0x04, &[&[5, 0]])]);
        der(0xa1, &[&one])
    };
    refused("critical-extension", Content { rest: extension(&[1, 1, 0xff]), ..Content::good() });
    room.held(&Content { rest: extension(b""), ..Content::good() }.signed_by(&room.signer));
    let name = |common: &str| {
        let pair = |kind, tag, value: &str| {
            der(0x31, &[&der(0x30, &[&der(0x06, &[&[0x55, 4, kind]]), &der(tag, &[value.as_bytes()])])])
        };
        let (country, company) = (pair(6, 0x13, "AT"), pair(10, 0x0c, "Bulla tests"));
        der(0xa0, &[&der(0xa4, &[&der(0x30, &[&country, &company, &pair(3, 0x0c, common)])])])
    };
    refused("authority-name", Content { rest: name("TSB"), ..Content::good() });
    room.held(&Content { rest: name("TSA"), ..Content::good() }.signed_by(&room.signer));
    for ordering in [[1, 1, 0], [1, 1, 0xff]] {
        room.held(&Content { ordering: ordering.to_vec(), ..Content::good() }.signed_by(&room.signer));
    }
}

fn purposes(room: &Room) {
    let stamped = |extensions: &str| Content::good().signed_by(&room.issue(extensions));
    let leaf = "basicConstraints=critical,CA:FALSE\n";
    let usage = "keyUsage=critical,digitalSignature\n";
    let purpose = "extendedKeyUsage=critical,timeStamping\n";
    room.held(&stamped(purpose));
    room.held(&stamped(&format!("{leaf}{purpose}keyUsage=nonRepudiation\n")));
    room.refused("purpose-missing", &stamped(&format!("{leaf}{usage}")));
    room.refused("purpose-not-critical", &stamped(&format!("{leaf}{usage}extendedKeyUsage=timeStamping\n")));
    for purposes in ["serverAuth", "timeStamping,serverAuth", "timeStamping,anyExtendedKeyUsage"] {
        let line = format!("extendedKeyUsage=critical,{purposes}\n");
        room.refused("purpose-not-sole", &stamped(&format!("{leaf}{usage}{line}")));
    }
    for usage in ["keyEncipherment", "digitalSignature,keyEncipherment", "digitalSignature,keyCertSign"] {
        room.refused("key-usage", &stamped(&format!("{leaf}{purpose}keyUsage=critical,{usage}\n")));
    }
    room.refused("signer-is-ca", &stamped(&format!("basicConstraints=critical,CA:TRUE\n{usage}{purpose}")));
    room.refused("path", &stamped(&format!("{leaf}{usage}{purpose}1.2.3.4=critical,DER:0500\n")));
}

fn paths(room: &Room) {
    let stranger = Holder::root(&room.directory.path().join("stranger"), "Root", Key::P256).unwrap();
    room.refused_by(&authority_of(&stranger), "untrusted", &room.genuine(), &EXPECTED);
    let both =
        [fs::read(stranger.certificate()).unwrap(), fs::read(room.root.certificate()).unwrap()].concat();
    let both = Authority::from_pem(&both, vec![]).unwrap();
    assert!(verify(&room.genuine(), &EXPECTED, &both).is_ok());

    let middle = |extensions, validity, hash| {
        let wish = Wish { name: "Middle", extensions, validity, hash, ..Wish::default() };
        room.root.issue(&wish).unwrap().issue(&Wish::default()).unwrap()
    };
    let below = middle(FOR_CAS, LONG, "sha256");
    room.held(&Content::good().signed_by(&below));
    let alone = Desk::open(&below, &Manner { chain: false, ..Manner::default() }).unwrap();
    room.refused("untrusted", &alone.reply(&request(), 0).unwrap());
    let ended = middle(FOR_CAS, ("20200101000000Z", "20210101000000Z"), "sha256");
    room.refused("ca-not-valid-then", &Content::good().signed_by(&ended));
    let future = middle(FOR_CAS, ("20400101000000Z", "20410101000000Z"), "sha256");
    room.refused("ca-not-valid-then", &Content::good().signed_by(&future));
    room.refused("path", &Content::good().signed_by(&middle(FOR_STAMPS, LONG, "sha256")));
    room.refused("algorithm", &Content::good().signed_by(&middle(FOR_CAS, LONG, "sha1")));
    let servers = format!("{FOR_CAS}extendedKeyUsage=serverAuth\n");
    room.refused("path", &Content::good().signed_by(&middle(&servers, LONG, "sha256")));

    let until = |validity| room.root.issue(&Wish { validity, ..Wish::default() }).unwrap();
    let old = until(("20200101000000Z", "20261121233000Z"));
    let stamped_at = |time: &str| Content { time: time.into(), ..Content::good() }.signed_by(&old);
    room.held(&stamped_at("20261121233000.999Z"));
    room.held(&stamped_at("20200101000000Z"));
    room.refused("signer-expired", &stamped_at("20261121233001Z"));
    room.refused("signer-not-yet-valid", &stamped_at("20191231235959.9Z"));
    // Today's reply under yesterday's certificate.
    let desk = Desk::open(&until(("20200101000000Z", "20260101000000Z")), &Manner::default()).unwrap();
    room.refused("signer-expired", &desk.reply(&request(), 0).unwrap());
    // And one that was made while it was valid, by the authority's clock.
    let then = 1_717_200_000;
    let offset = then - (now_micros() / 1_000_000) as i64;
    let made = room.held(&desk.reply(&request(), offset).unwrap()).gen_time_micros() / 1_000_000;
    assert!(made.abs_diff(then as u64) < 60, "{made}");

    let wish = |validity| Wish { name: "Old root", extensions: FOR_CAS, validity, ..Wish::default() };
    let old = wish(("20200101000000Z", "20250101000000Z"));
    let old = Holder::root_as(&room.directory.path().join("old-root"), &old).unwrap();
    let by_old = Content::good().signed_by(&old.issue(&Wish::default()).unwrap());
    room.refused_by(&authority_of(&old), "root-not-valid-then", &by_old, &EXPECTED);
}

#[test]
fn no_changed_bit_of_a_stamp_holds() {
    let room = Room::new();
    let desk = Desk::open(&room.signer, &Manner { chain: false, ..Manner::default() }).unwrap();
    let genuine = desk.reply(&request(), 0).unwrap();
    let stamp = room.held(&genuine);
    // The one byte outside the stamp that has two good values: granted, and granted with modifications.
    let status = position(&genuine, &[0x30, 3, 2, 1, 0], 0) + 4;
    let mut held = 0;
    for at in 0..genuine.len() {
        for bit in 0..8 {
            let mut changed = genuine.clone();
            changed[at] ^= 1 << bit;
            if let Ok(same) = verify(&changed, &EXPECTED, &room.authority) {
                assert_eq!((at, bit), (status, 0), "a changed stamp holds");
                assert_eq!(same, stamp);
                held += 1;
            }
        }
        assert!(verify(&genuine[..at], &EXPECTED, &room.authority).is_err(), "the first {at} bytes hold");
    }
    assert_eq!(held, 1);
}

#[test]
fn parts_of_two_stamps_do_not_make_one() {
    let room = Room::new();
    let desk = Desk::open(&room.signer, &Manner { precision: 0, ..Manner::default() }).unwrap();
    let replies = [desk.reply(&request(), 0).unwrap(), desk.reply(&request(), 0).unwrap()];
    let contents = replies.each_ref().map(|reply| content_of(reply).unwrap());
    assert_eq!(contents[0].len(), contents[1].len());
    let at = position(&replies[0], &contents[0], 0);
    let mut mixed = replies[0].clone();
    mixed[at..at + contents[1].len()].copy_from_slice(&contents[1]);
    assert_eq!(verify(&mixed, &EXPECTED, &room.authority), Err(Refusal::Digest));
}

#[test]
fn roots_that_are_none_are_refused() {
    let room = Room::new();
    let pem = |holder: &Holder| fs::read(holder.certificate()).unwrap();
    let said = |pem: &[u8]| Authority::from_pem(pem, vec![]).map(|_| ()).unwrap_err().to_string();
    assert!(said(b"").contains("no root certificate"));
    assert!(said(b"-----BEGIN CERTIFICATE-----\nAAAA").contains("section 1"));
    assert!(
        said(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").contains("certificate 1")
    );
    let two = [pem(&room.root), pem(&room.signer)].concat();
    assert!(said(&two).contains("root certificate 2 is not usable: it is not that of a CA"));
    assert!(said(&pem(&room.root).repeat(17)).contains("17 root certificates"));
    let key_and_root = [fs::read(room.root.key()).unwrap(), pem(&room.root)].concat();
    assert_eq!(Authority::from_pem(&key_and_root, vec![]).unwrap().roots().count(), 1);
}

//! CRLs of the CAs behind time stamps: what they say of stamps, and everything that looks like one and is not.
//!
//! The signers of operators *one* and *two* have serial number 2 and stamp 10 and 12 seconds after [`NOW`].

use super::anchors::{Prove, after, anchored, authorities, sealed, showing, stamp, stamped, trusting};
use super::der::{long_length, tlv};
use super::keys;
use super::plan::{NOW, Plan, swap};
use super::stamps::{
    self, BIT_STRING, CONTEXT_0, ECDSA_SHA256, INTEGER, SEQUENCE, UTC_TIME, algorithm, bits, common_name,
    extension, sequence,
};
use super::{ANCHORED, SEALED, Vector, genuine, refused, valid};
use bulla_formats::report::utc;
use bulla_timestamps::Authority;

const REASON: &str = "2.5.29.21";
const DELTA: &str = "2.5.29.27";
const SCOPE: &str = "2.5.29.28";
const CERTIFICATE_ISSUER: &str = "2.5.29.29";

/// Reasons, as CRLReason numbers them.
const COMPROMISE: u8 = 1;
const SUPERSEDED: u8 = 4;
const HOLD: u8 = 6;

/// A CRL to be.
#[derive(Clone)]
struct List {
    /// Common name of the issuer.
    issuer: String,
    /// Name of the key that signs.
    by: String,
    version: Vec<u8>,
    /// Algorithms inside and outside.
    algorithms: (&'static str, &'static str),
    /// From when to when, seconds after [`NOW`].
    times: Vec<u64>,
    /// Entries, DER.
    entries: Vec<Vec<u8>>,
    extensions: Vec<Vec<u8>>,
}

fn time(at: u64) -> Vec<u8> {
    let digits: String =
        utc(NOW + 1_000 * at).chars().filter(char::is_ascii_digit).skip(2).take(12).collect();
    tlv(UTC_TIME, format!("{digits}Z").as_bytes())
}

fn reason(code: u8) -> Vec<u8> {
    extension(REASON, false, &[0x0a, 1, code])
}

/// An entry: serial number, seconds after [`NOW`], extensions.
fn entry(serial: &[u8], at: u64, extensions: &[Vec<u8>]) -> Vec<u8> {
    let extensions = if extensions.is_empty() { Vec::new() } else { tlv(SEQUENCE, &extensions.concat()) };
    sequence(&[&tlv(INTEGER, serial), &time(at), &extensions])
}

impl List {
    /// Of an operator's root, made 60 seconds after [`NOW`] for an hour.
    fn of(operator: &str) -> Self {
        let name = format!("tsa root {operator}");
        List {
            issuer: name.clone(),
            by: name,
            version: vec![2, 1, 1],
            algorithms: (ECDSA_SHA256, ECDSA_SHA256),
            times: vec![60, 3_660],
            entries: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// Operator one's, with its signer on it.
    fn listing(at: u64, code: Option<u8>) -> Self {
        let extensions: Vec<_> = code.map(reason).into_iter().collect();
        List { entries: vec![entry(&[2], at, &extensions)], ..List::of("one") }
    }

    fn content(&self) -> Vec<u8> {
        let entries =
            if self.entries.is_empty() { Vec::new() } else { tlv(SEQUENCE, &self.entries.concat()) };
        let extensions = match &self.extensions[..] {
            [] => Vec::new(),
            all => tlv(CONTEXT_0, &tlv(SEQUENCE, &all.concat())),
        };
        let times: Vec<u8> = self.times.iter().flat_map(|at| time(*at)).collect();
        let name = common_name(&self.issuer);
        sequence(&[&self.version, &algorithm(self.algorithms.0), &name, &times, &entries, &extensions])
    }

    fn der(&self) -> Vec<u8> {
        self.around(&self.content())
    }

    /// The signature stays that of the content as it is; what is sent is `content`.
    fn around(&self, content: &[u8]) -> Vec<u8> {
        let signature = keys::p256_der(&keys::sign_p256(&keys::p256(&self.by), &self.content()));
        sequence(&[content, &algorithm(self.algorithms.1), &bits(&signature)])
    }
}

fn with(plan: Plan, crl: Vec<u8>) -> Plan {
    plan.file(move |_, file| file.crls.push(crl.clone()))
}

fn one() -> Vec<Prove> {
    vec![stamp("one", 10)]
}

fn both() -> Vec<Prove> {
    vec![stamp("one", 10), stamp("two", 12)]
}

/// Anchored by operator one, whose authority is believed.
fn plan() -> Plan {
    trusting(anchored(sealed(), one()), 1)
}

pub(super) fn all() -> Vec<Vector> {
    let mut all = counted();
    all.extend(doubtful());
    all.extend(files());
    all.extend(lists());
    all.extend(shapes());
    all
}

/// Anchored by operator one, whose CA has changed its key and kept its name.
fn renewed() -> (Plan, List) {
    let prove = stamped("one", 10, |stamp| {
        let (certificate, next) = stamps::renewed("one");
        (stamp.along, stamp.root) = (vec![certificate], next);
    });
    let plan = trusting(anchored(sealed(), vec![prove]), 1);
    (plan, List { by: stamps::renewed("one").1, ..List::of("one") })
}

/// A seal with a CRL that was changed before it was signed.
pub(super) fn changed(change: impl Fn(&mut Vec<u8>)) -> Plan {
    let list = List::listing(20, Some(SUPERSEDED));
    let list = List { entries: [list.entries, vec![entry(&[3], 5, &[reason(HOLD)])]].concat(), ..list };
    let list = List { extensions: vec![extension(SCOPE, true, &sequence(&[&[0x81, 1, 0xff]]))], ..list };
    let mut content = list.content();
    change(&mut content);
    let signature = keys::p256_der(&keys::sign_p256(&keys::p256(&list.by), &content));
    with(plan(), sequence(&[&content, &algorithm(list.algorithms.1), &bits(&signature)]))
}

/// Stamps that count.
fn counted() -> Vec<Vector> {
    let good =
        |what: &str, list: List| valid(&format!("valid-crl-{what}"), ANCHORED, with(plan(), list.der()));
    let changed = |what: &str, change: fn(&mut List)| {
        let mut list = List::of("one");
        change(&mut list);
        good(what, list)
    };
    vec![
        good("good", List::of("one")),
        changed("of-before-the-stamp", |list| list.times = vec![0, 10]),
        changed("expired-before-the-stamp", |list| list.times = vec![0, 8]),
        changed("lists-another", |list| list.entries = vec![entry(&[3], 5, &[reason(COMPROMISE)])]),
        changed("for-users-only", |list| {
            list.extensions = vec![extension(SCOPE, true, &sequence(&[&[0x81, 1, 0xff]]))];
        }),
        changed("for-cas-only", |list| {
            list.entries = vec![entry(&[2], 5, &[reason(COMPROMISE)])];
            list.extensions = vec![extension(SCOPE, true, &sequence(&[&[0x82, 1, 0xff]]))];
        }),
        changed("of-another-distribution-point", |list| {
            list.entries = vec![entry(&[2], 5, &[reason(COMPROMISE)])];
            let name = tlv(CONTEXT_0, &tlv(CONTEXT_0, &tlv(0x86, b"http://a.test/crl")));
            list.extensions = vec![extension(SCOPE, true, &sequence(&[&name]))];
        }),
        changed("with-other-extensions", |list| {
            list.entries = vec![entry(&[9], 5, &[extension("2.5.29.24", false, &time(1)[..])])];
            list.extensions = vec![extension("2.5.29.20", false, &[2, 1, 7])];
        }),
        good("superseded-later", List::listing(20, Some(SUPERSEDED))),
        good("ceased-later", List::listing(20, Some(5))),
        valid("valid-crl-of-the-next-key", ANCHORED, {
            let (plan, list) = renewed();
            with(plan, list.der())
        }),
        valid("valid-crl-of-the-key-before", ANCHORED, with(renewed().0, List::of("one").der())),
        valid("valid-crl-of-both-keys", ANCHORED, {
            let (plan, list) = renewed();
            with(with(plan, list.der()), List::of("one").der())
        }),
        valid("valid-crl-of-both", ANCHORED, {
            let plan = trusting(anchored(sealed(), both()), 2);
            with(with(plan, List::of("two").der()), List::of("one").der())
        }),
        valid("valid-crl-one-of-two-compromised", ANCHORED, {
            let plan = trusting(anchored(sealed(), both()), 1);
            with(plan, List::listing(20, Some(COMPROMISE)).der())
        }),
        valid("valid-crl-compromised-behind-the-time-evidence", ANCHORED, {
            let before = after(vec![stamp("two", 0)]);
            let plan = trusting(showing(anchored(before, one())), 1);
            let list =
                List { issuer: "tsa root two".into(), by: "tsa root two".into(), ..List::listing(20, None) };
            with(plan, list.der())
        }),
        valid("valid-crls-critical", ANCHORED, {
            with(plan(), List::of("one").der()).swap("{\n", "{\n  \"critical\": [\"crls\"],\n")
        }),
        valid("valid-crl-of-nobody-we-know", SEALED, {
            with(anchored(sealed(), one()), List::listing(20, None).der())
        }),
    ]
}

/// Stamps that count for nothing: once with a policy that takes the seal, once with one that asks for an anchor.
fn doubtful() -> Vec<Vector> {
    let twice = |what: &str, plan: &dyn Fn() -> Plan| {
        let required = plan().trust(|trust| trust.policy.require_facts = vec!["anchored".into()]);
        let name = format!("anchored-required-signer-{what}");
        [
            valid(&format!("valid-crl-{what}"), SEALED, plan()),
            genuine("policy", &name, "policy-unmet", SEALED, required),
        ]
    };
    let listed = |what: &str, at, code| twice(what, &|| with(plan(), List::listing(at, code).der()));
    let mut all = Vec::new();
    all.extend(listed("compromised", 20, Some(COMPROMISE)));
    all.extend(listed("revoked-without-reason", 20, None));
    all.extend(listed("on-hold", 20, Some(HOLD)));
    all.extend(listed("superseded-before", 5, Some(SUPERSEDED)));
    all.extend(listed("superseded-in-its-second", 11, Some(SUPERSEDED)));
    all.extend(twice("compromised-said-by-an-old-crl", &|| {
        let old = List { times: vec![0, 8], ..List::listing(5, Some(COMPROMISE)) };
        with(with(plan(), List::of("one").der()), old.der())
    }));
    all.extend(twice("compromised-one-of-two-operators", &|| {
        let plan = trusting(anchored(sealed(), both()), 2);
        with(plan, List::listing(20, Some(COMPROMISE)).der())
    }));
    all
}

fn bad(what: &str, plan: Plan) -> Vector {
    refused("revocation-status", what, plan)
}

/// Files whose CRLs do not belong there.
fn files() -> Vec<Vector> {
    let unused = |usage: &'static [u8], what: &str| {
        let plan = authorities(anchored(sealed(), one()), |_| ()).trust(move |trust| {
            let all = trust.authorities.as_mut().expect("they were just named");
            let root = stamps::root_for("one", usage);
            all.tsas[0].authority = Authority::new(&[root], Vec::new()).expect("a root is a root");
        });
        bad(what, with(plan, List::of("one").der()))
    };
    let (of_two_keys, of_neither) = renewed();
    vec![
        bad("of-neither-key", with(of_two_keys, List { by: "somebody".into(), ..of_neither }.der())),
        bad("without-anchors", with(trusting(sealed(), 1), List::of("one").der())),
        bad("of-another-operator", with(plan(), List::of("two").der())),
        bad("second-one-of-nobody", with(with(plan(), List::of("one").der()), List::of("three").der())),
        bad("second-one-broken", with(with(plan(), List::of("one").der()), vec![0x30, 0])),
        bad("of-nobody-we-know-cut", {
            let der = List::of("one").der();
            with(anchored(sealed(), one()), der[..der.len() - 1].to_vec())
        }),
        // keyCertSign alone.
        unused(&[BIT_STRING, 2, 2, 4], "issuer-must-not-sign-crls"),
    ]
}

/// Lists that are none, or not the issuer's.
fn lists() -> Vec<Vector> {
    let changed = |what: &str, change: &dyn Fn(&mut List)| {
        let mut list = List::listing(5, Some(SUPERSEDED));
        change(&mut list);
        bad(what, with(plan(), list.der()))
    };
    let bytes = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut der = List::of("one").der();
        change(&mut der);
        bad(what, with(plan(), der))
    };
    let narrow = |what: &str, part: &[u8]| {
        changed(what, &|list| list.extensions = vec![extension(SCOPE, true, &sequence(&[part]))])
    };
    let list = List::listing(20, Some(COMPROMISE));
    let mut later = list.clone();
    later.entries = vec![entry(&[2], 20, &[reason(SUPERSEDED)])];
    vec![
        changed("by-another-key", &|list| list.by = "somebody".into()),
        changed("by-the-signer-itself", &|list| list.by = "tsa one".into()),
        bad("reason-changed-afterwards", with(plan(), list.around(&later.content()))),
        bad("entry-taken-out-afterwards", with(plan(), list.around(&List::of("one").content()))),
        bytes("signature-flipped", &|der| *der.last_mut().expect("not empty") ^= 1),
        bytes("cut", &|der| der.truncate(der.len() - 1)),
        bytes("empty", &Vec::clear),
        bytes("trailing-byte", &|der| der.push(0)),
        bytes("long-length", &|der| *der = long_length(der)),
        bytes("is-a-page", &|der| *der = b"<html>accept our terms</html>".to_vec()),
        bytes("is-a-certificate", &|der| *der = stamps::root("one")),
        changed("version-1", &|list| list.version.clear()),
        changed("version-3", &|list| list.version = vec![2, 1, 2]),
        changed("without-next-update", &|list| list.times.truncate(1)),
        changed("next-update-before-this-update", &|list| list.times.reverse()),
        changed("of-two-algorithms", &|list| list.algorithms.0 = "1.2.840.10045.4.3.3"),
        changed("with-sha-1", &|list| list.algorithms = ("1.2.840.10045.4.1", "1.2.840.10045.4.1")),
        changed("delta", &|list| list.extensions = vec![extension(DELTA, true, &[2, 1, 1])]),
        narrow("indirect", &[0x84, 1, 0xff]),
        narrow("for-some-reasons", &[0x83, 2, 6, 0x40]),
        narrow("for-attributes", &[0x85, 1, 0xff]),
        narrow("scope-with-an-odd-boolean", &[0x81, 1, 1]),
        changed("scope-twice", &|list| {
            list.extensions = vec![extension(SCOPE, true, &sequence(&[])); 2];
        }),
        changed("critical-extension", &|list| list.extensions = vec![extension("2.999.1", true, &[5, 0])]),
        changed("entry-of-another-issuer", &|list| {
            let issuer = extension(CERTIFICATE_ISSUER, true, &sequence(&[]));
            list.entries = vec![entry(&[2], 5, &[issuer])];
        }),
        changed("reason-7", &|list| list.entries = vec![entry(&[2], 5, &[reason(7)])]),
        changed("reason-twice", &|list| {
            list.entries = vec![entry(&[2], 5, &[reason(COMPROMISE), reason(SUPERSEDED)])];
        }),
        changed("last-entry-broken", &|list| list.entries.push(vec![0x30, 1, 5])),
        changed("serial-of-33-bytes", &|list| list.entries = vec![entry(&[1; 33], 5, &[])]),
    ]
}

/// Members that are none.
fn shapes() -> Vec<Vector> {
    let none = |what: &str, value: &str| {
        let all = format!("\"openings\": [],\n  \"crls\": {value}\n");
        let plan = Plan::software().text(move |text| swap(text, "\"openings\": []\n", &all));
        refused("seal-file", &format!("crls-{what}"), plan)
    };
    vec![
        none("null", "null"),
        none("an-object", "{}"),
        none("a-string", "\"AA==\""),
        none("of-a-number", "[7]"),
        none("of-an-array", "[[\"AA==\"]]"),
        none("in-lax-base64", "[\"AA\"]"),
        none("9", &format!("[{}]", ["\"AA==\""; 9].join(", "))),
    ]
}

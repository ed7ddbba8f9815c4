//! CRLs: in `.seal` files, with what stock OpenSSL says of them and a change of any of their bytes; and as OpenSSL makes them.
//!
//! The files are those of `tests/vectors/`, whose CRLs are made by hand; the authorities are stock OpenSSL.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

use bulla_authorities::openssl;
use bulla_formats::body::anchor::{AnchorBody, Evidence};
use bulla_formats::report::{Outcome, Report, Verdict};
use bulla_formats::seal_file::SealFile;
use bulla_formats::trust::TrustFile;
use bulla_formats::verify::verify;
use bulla_tests::rig::tsa::{CrlAnswer, Key, Knobs, Options, Stamps};
use bulla_tests::vectors;
use bulla_timestamps::{Crl, Expected, Request, Standing, TimeStamp, Use, standing};
use std::fs;
use std::path::Path;
use std::time::Duration;

fn seal(name: &str) -> SealFile {
    SealFile::decode(&fs::read(vectors::directory().join(name).join("document.seal")).unwrap()).unwrap()
}

fn trust(name: &str) -> TrustFile {
    TrustFile::decode(&fs::read(vectors::directory().join(name).join("trust.json")).unwrap()).unwrap()
}

fn judge(file: &SealFile, trust: &TrustFile) -> Report {
    verify(file.encode().as_bytes(), trust, None).report
}

/// What the report says of revocations.
fn said(report: &Report) -> Vec<(Outcome, &str)> {
    let checks = report.checks.iter().filter(|check| check.name == "revocation-status");
    checks.map(|check| (check.outcome, check.detail.as_str())).collect()
}

#[test]
fn the_report_says_how_each_signer_stood() {
    for (name, outcome, words) in [
        ("valid-anchored", Outcome::NotJudged, "unknown, no CRL here says whether CN=tsa one was revoked"),
        ("valid-crl-good", Outcome::Passed, "good as of 2026-09-21T14:14:20.000Z"),
        ("valid-crl-expired-before-the-stamp", Outcome::NotJudged, "unknown"),
        ("valid-crl-superseded-later", Outcome::Passed, "revoked (superseded) at 2026-09-21T14:13:40.000Z"),
        ("valid-crl-compromised", Outcome::NotJudged, "CN=tsa one was revoked (keyCompromise)"),
        ("valid-crl-revoked-without-reason", Outcome::NotJudged, "(no reason given)"),
    ] {
        let report = judge(&seal(name), &trust(name));
        let said = said(&report);
        assert!(
            matches!(said[..], [(found, text)] if found == outcome && text.contains(words)),
            "{name}: {report}"
        );
    }
    let nobody = "valid-crl-of-nobody-we-know";
    let report = judge(&seal(nobody), &trust(nobody));
    assert!(said(&report)[0].1.contains("of no authority that the trust file knows"), "{report}");
}

/// G6 for this member: a CRL is all or nothing.
#[test]
fn g6_any_changed_byte_of_a_crl_is_refused() {
    let name = "valid-crl-superseded-later";
    let (good, trust) = (seal(name), trust(name));
    for byte in 0..good.crls[0].len() {
        let mut file = good.clone();
        file.crls[0][byte] ^= 1 << (byte % 8);
        let report = judge(&file, &trust);
        let check = report.failed().map(|check| check.name);
        assert_eq!(
            (report.verdict, check),
            (Verdict::Refused, Some("revocation-status")),
            "{byte}: {report}"
        );
    }
}

#[test]
fn an_upgrade_takes_crls_over_where_they_belong() {
    let (mut old, new) = (seal("valid-anchored"), seal("valid-crl-good"));
    assert_eq!(old.upgrade(new.clone()), Some(true));
    assert_eq!((old.upgrade(new.clone()), old.crls.len()), (Some(false), 1), "once is enough");
    assert_eq!(old.upgrade(seal("valid-crl-compromised")), Some(true));
    assert!(said(&judge(&old, &trust("valid-crl-good")))[0].1.contains("keyCompromise"));
    let (mut bare, mut stray) = (seal("valid-anchored"), new);
    bare.anchors.clear();
    stray.anchors.clear();
    assert_eq!((bare.upgrade(stray), bare.crls.len()), (Some(false), 0), "it would belong to nothing");
}

/// The CRL, its issuer, and the signer's certificate as files.
fn files(name: &str, directory: &Path) -> [String; 3] {
    let (file, trust) = (seal(name), trust(name));
    let authorities = trust.authorities.as_ref().unwrap();
    let root = authorities.tsas[0].authority.roots().next().unwrap();
    let body = AnchorBody::decode(&file.anchors[0].body).unwrap();
    let Evidence::Timestamp(reply) = &body.proofs[0].evidence else { panic!("a time stamp") };
    let signer = bulla_timestamps::certificates(reply).unwrap()[0].to_vec();
    let put = |what: &str, kind: &str, der: &[u8]| {
        let path = directory.join(format!("{name}-{what}.pem")).to_str().unwrap().to_owned();
        openssl::run(&[kind, "-inform", "DER", "-out", &path], der).unwrap();
        path
    };
    [put("crl", "crl", &file.crls[0]), put("root", "x509", root), put("signer", "x509", &signer)]
}

#[test]
fn stock_openssl_agrees() {
    let directory = tempfile::tempdir().unwrap();
    for (name, revoked) in [
        ("valid-crl-good", false),
        ("valid-crl-lists-another", false),
        ("valid-crl-for-users-only", false),
        ("valid-crl-with-other-extensions", false),
        ("valid-crl-compromised", true),
        ("valid-crl-on-hold", true),
        ("valid-crl-superseded-before", true),
    ] {
        let [crl, root, signer] = files(name, directory.path());
        // It says "verify OK" and succeeds, or fails.
        openssl::run(&["crl", "-in", &crl, "-CAfile", &root, "-verify", "-noout"], b"").unwrap();
        let time = format!("{}", seal_time());
        let check = ["verify", "-crl_check", "-attime", &time, "-CRLfile", &crl, "-CAfile", &root, &signer];
        let judged = openssl::run(&check, b"");
        let text = judged.as_ref().map_or_else(|error| format!("{error:#}"), |_| String::new());
        assert_eq!(judged.is_err(), revoked, "{name}: {text}");
        assert!(!revoked || text.contains("certificate revoked"), "{name}: {text}");
    }
}

/// A second at which the CRLs of the vectors are in force.
fn seal_time() -> u64 {
    1_790_000_000 + 100
}

/// A stamp of this authority.
fn stamp(tsa: &Stamps) -> TimeStamp {
    let request = Request::new([7; 32], 1 << 62, None);
    let reply = tsa.ask(&request, Duration::from_secs(20)).unwrap();
    let expected = Expected { imprint: [7; 32], nonce: Some(1 << 62) };
    bulla_timestamps::verify(&reply.body, &expected, &tsa.authority().unwrap()).unwrap()
}

/// The CRLs that its certificates name, answered as `crl` says.
fn published(tsa: &Stamps, stamp: &TimeStamp, crl: CrlAnswer) -> Vec<Vec<u8>> {
    tsa.set(&Knobs { crl, ..Knobs::default() }).unwrap();
    let addresses = stamp.vouched().iter().flat_map(|vouched| vouched.crl_addresses());
    addresses.map(|address| ureq::get(&address).call().unwrap().body_mut().read_to_vec().unwrap()).collect()
}

/// How the stamp stands by these, and what became of each.
fn stands(stamp: &TimeStamp, crls: &[Vec<u8>]) -> (Standing, Vec<Use>) {
    let read: Vec<Crl<'_>> = crls.iter().map(|crl| Crl::read(crl).unwrap()).collect();
    standing(stamp, &read)
}

#[test]
fn what_stock_openssl_publishes_is_read_for_every_kind_of_key() {
    for (key, intermediate) in
        [(Key::P256, false), (Key::P384, true), (Key::Rsa(2048), true), (Key::P256, true)]
    {
        let tsa =
            Stamps::start_with(&Options { key, intermediate, crls: true, ..Options::default() }).unwrap();
        let stamp = stamp(&tsa);
        assert_eq!(stamp.vouched().len(), 1 + usize::from(intermediate));
        let good = published(&tsa, &stamp, CrlAnswer::Good);
        assert_eq!(good.len(), stamp.vouched().len());
        let (standing, uses) = stands(&stamp, &good);
        assert!(
            matches!(standing, Standing::Good(_)) && uses.iter().all(|used| *used == Use::Verified),
            "{key:?}"
        );
        // One of two says nothing of the other.
        if intermediate {
            assert!(matches!(stands(&stamp, &good[..1]).0, Standing::Unknown(_)));
            assert!(matches!(stands(&stamp, &good[1..]).0, Standing::Unknown(_)));
        }
        let expired = published(&tsa, &stamp, CrlAnswer::Expired);
        assert!(matches!(stands(&stamp, &expired).0, Standing::Unknown(_)), "{key:?}");
        for (answer, doubtful) in [(CrlAnswer::Compromised, true), (CrlAnswer::WithoutReason, true)] {
            let crls = published(&tsa, &stamp, answer);
            assert_eq!(matches!(stands(&stamp, &crls).0, Standing::Doubtful(_)), doubtful, "{answer:?}");
            let both = [good.clone(), crls].concat();
            assert!(matches!(stands(&stamp, &both).0, Standing::Doubtful(_)), "another makes it no better");
        }
        // Revoked in the very second of the stamp, it may have been before.
        std::thread::sleep(Duration::from_millis(2_500));
        let later = published(&tsa, &stamp, CrlAnswer::Superseded);
        assert!(matches!(stands(&stamp, &later).0, Standing::RevokedLater(_)), "{key:?}");
        let after = self::stamp(&tsa);
        assert!(matches!(stands(&after, &later).0, Standing::Doubtful(_)), "a stamp of after it, {key:?}");
        let strange = published(&tsa, &stamp, CrlAnswer::Stranger);
        let refused = stands(&stamp, &strange);
        assert!(matches!(refused.0, Standing::Unknown(_)), "{refused:?}");
        assert!(refused.1.iter().any(|used| matches!(used, Use::Refused(_))), "{refused:?}");
        assert_eq!(tsa.counters().crls as usize, 6 * stamp.vouched().len());
    }
}

//! Endorsement certificates: those that hold, and every way in which one does not.

use crate::chip::Chip;
use crate::maker::{EK_CERTIFICATE, Maker, NOW, params, valid};
use bulla_enrolment::endorsement::Endorsed;
use bulla_enrolment::endorsement::Manufacturers;
use bulla_enrolment::refusal::{Code, Judged};
use bulla_formats::tpm::TpmtPublic;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SignatureAlgorithm,
};

const DAY: u64 = 24 * 3_600 * 1_000;

fn judge(manufacturers: &Manufacturers, chip: &Chip, chain: &[Vec<u8>], now: u64) -> Judged<Endorsed> {
    manufacturers.judge(&TpmtPublic::parse(&chip.ek_public()).unwrap(), chain, now)
}

fn leaf(change: impl FnOnce(&mut CertificateParams)) -> Option<Code> {
    let (maker, chip) = (Maker::new(100), Chip::new(10));
    let mut params = Maker::leaf_params();
    change(&mut params);
    let chain = [maker.certify_with(&chip, params), maker.intermediate_certificate()];
    let manufacturers = Manufacturers::new(&[maker.root_certificate()], &[]).unwrap();
    judge(&manufacturers, &chip, &chain, NOW).err().map(|refusal| refusal.code)
}

fn intermediate(change: impl FnOnce(&mut CertificateParams)) -> Option<Code> {
    let (maker, chip) = (Maker::new(100), Chip::new(10));
    let mut params = maker.intermediate_params();
    change(&mut params);
    let chain = [maker.certify_with(&chip, Maker::leaf_params()), maker.intermediate_with(params)];
    let manufacturers = Manufacturers::new(&[maker.root_certificate()], &[]).unwrap();
    judge(&manufacturers, &chip, &chain, NOW).err().map(|refusal| refusal.code)
}

#[test]
fn a_chain_holds_with_the_intermediate_from_either_side() {
    for chip in [Chip::new(10), Chip::with_p384(20)] {
        let maker = Maker::new(100);
        let chain = maker.certify(&chip);
        let (root, ca) = (maker.root_certificate(), maker.intermediate_certificate());
        let sent = Manufacturers::new(std::slice::from_ref(&root), &[]).unwrap();
        let endorsed = judge(&sent, &chip, &chain, NOW).unwrap();
        assert_eq!(endorsed.described, "id:43485053 C-1 id:00010002");
        assert_eq!(endorsed.root, "CN=Chip Works 100 root");
        assert_eq!(judge(&sent, &chip, &chain[..1], NOW).unwrap_err().code, Code::EkChain);
        let known = Manufacturers::new(&[root], std::slice::from_ref(&ca)).unwrap();
        judge(&known, &chip, &chain[..1], NOW).unwrap();
        // An intermediate can be pinned itself; junk among what was sent does no harm.
        let pinned = Manufacturers::new(&[ca], &[]).unwrap();
        judge(&pinned, &chip, &[chain[0].clone(), b"junk".to_vec()], NOW).unwrap();
    }
}

/// A CA's signature counts for its key and algorithm; RSA is tried with swtpm's CA (`appliance/keys/tests/tpm`).
#[test]
fn algorithms_of_authorities_are_those_listed() {
    let accepted = |algorithm: &'static SignatureAlgorithm| {
        let (maker, chip) = (Maker::new(100), Chip::new(10));
        let key = KeyPair::generate_for(algorithm).unwrap();
        let root = maker.root_params().self_signed(&key).unwrap().der().to_vec();
        let issuer = Issuer::new(maker.root_params(), key);
        let ca = maker.intermediate_params().signed_by(&maker.intermediate_key(), &issuer).unwrap();
        let chain = [maker.certify_with(&chip, Maker::leaf_params()), ca.der().to_vec()];
        judge(&Manufacturers::new(&[root], &[]).unwrap(), &chip, &chain, NOW).map(drop)
    };
    accepted(&PKCS_ECDSA_P256_SHA256).unwrap();
    accepted(&PKCS_ECDSA_P384_SHA384).unwrap();
    let refusal = accepted(&PKCS_ED25519).unwrap_err();
    assert!(refusal.code == Code::EkChain && refusal.sentence.contains("algorithm"), "{refusal}");
}

#[test]
fn who_is_not_pinned_vouches_for_nothing() {
    let (maker, other, chip) = (Maker::new(100), Maker::new(150), Chip::new(10));
    let manufacturers = Manufacturers::new(&[other.root_certificate()], &[]).unwrap();
    let mut chain = maker.certify(&chip);
    assert_eq!(judge(&manufacturers, &chip, &chain, NOW).unwrap_err().code, Code::EkChain);
    // Nor does bringing the root along.
    chain.push(maker.root_certificate());
    assert_eq!(judge(&manufacturers, &chip, &chain, NOW).unwrap_err().code, Code::EkChain);
    // A root of the pinned name with another key.
    let namesake = Maker { root: crate::chip::key(9), ..Maker::new(100) };
    let manufacturers = Manufacturers::new(&[namesake.root_certificate()], &[]).unwrap();
    assert_eq!(judge(&manufacturers, &chip, &chain, NOW).unwrap_err().code, Code::EkChain);
    let none = Manufacturers::new(&[], &[]).unwrap();
    assert_eq!(judge(&none, &chip, &chain, NOW).unwrap_err().code, Code::EkChain);
}

#[test]
fn no_bit_of_a_certificate_can_change() {
    let (maker, chip) = (Maker::new(100), Chip::new(10));
    let chain = maker.certify(&chip);
    let manufacturers = Manufacturers::new(&[maker.root_certificate()], &[]).unwrap();
    for which in 0..2 {
        for at in 0..chain[which].len() {
            let mut altered = chain.clone();
            altered[which][at] ^= 1 << (at % 8);
            assert!(judge(&manufacturers, &chip, &altered, NOW).is_err(), "certificate {which} byte {at}");
        }
    }
    let mut longer = chain;
    longer[0].push(0);
    assert_eq!(judge(&manufacturers, &chip, &longer, NOW).unwrap_err().code, Code::EkCertificateMalformed);
}

#[test]
fn a_leaf_that_is_not_an_endorsement_certificate_is_refused() {
    assert_eq!(leaf(|_| {}), None);
    assert_eq!(leaf(|params| params.extended_key_usages.clear()), None, "the profile leaves it open");
    assert_eq!(leaf(|params| params.is_ca = IsCa::NoCa), None);
    let tls = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert_eq!(leaf(tls), Some(Code::EkCertificateUsage));
    let attestation = |params: &mut CertificateParams| {
        // tcg-kp-AIKCertificate
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(vec![2, 23, 133, 8, 3])];
    };
    assert_eq!(leaf(attestation), Some(Code::EkCertificateUsage));
    let signs = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    assert_eq!(leaf(signs), Some(Code::EkCertificateUsage));
    assert_eq!(
        leaf(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
        Some(Code::EkCertificateUsage)
    );
    let unknown = |critical| {
        move |params: &mut CertificateParams| {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
            extension.set_criticality(critical);
            params.custom_extensions.push(extension);
        }
    };
    assert_eq!(leaf(unknown(false)), None);
    assert_eq!(leaf(unknown(true)), Some(Code::EkCertificateUsage));
    assert_eq!(leaf(|params| valid(params, NOW - 2 * DAY, NOW - DAY)), Some(Code::EkCertificateExpired));
    assert_eq!(leaf(|params| valid(params, NOW + DAY, NOW + 2 * DAY)), Some(Code::EkCertificateExpired));
}

#[test]
fn an_intermediate_that_may_not_issue_is_refused() {
    assert_eq!(intermediate(|_| {}), None);
    let for_endorsement = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK_CERTIFICATE.to_vec())];
    };
    assert_eq!(intermediate(for_endorsement), None);
    assert_eq!(intermediate(|params| params.is_ca = IsCa::NoCa), Some(Code::EkChain));
    assert_eq!(intermediate(|params| params.is_ca = IsCa::ExplicitNoCa), Some(Code::EkChain));
    let signs = |params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    assert_eq!(intermediate(signs), Some(Code::EkChain));
    let tls = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    assert_eq!(intermediate(tls), Some(Code::EkChain));
    assert_eq!(
        intermediate(|params| valid(params, NOW - 2 * DAY, NOW - DAY)),
        Some(Code::EkCertificateExpired)
    );
    let elsewhere = |change: &mut CertificateParams| *change = params("somebody else");
    assert_eq!(intermediate(elsewhere), Some(Code::EkChain));
}

/// A path length of zero does not let a root have an intermediate.
#[test]
fn a_longer_path_than_a_ca_allows_is_refused() {
    let (maker, chip) = (Maker::new(100), Chip::new(10));
    let chain = maker.certify(&chip);
    let mut narrow = maker.root_params();
    narrow.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = Manufacturers::new(&[maker.root_with(narrow)], &[]).unwrap();
    let refusal = judge(&root, &chip, &chain, NOW).unwrap_err();
    assert!(refusal.code == Code::EkChain && refusal.sentence.contains("path length"), "{refusal}");
}

/// Certificates that all claim to be each other's issuers cost a bounded number of signatures.
#[test]
fn a_maze_of_certificates_ends() {
    let (maker, chip) = (Maker::new(100), Chip::new(10));
    let mut looped = maker.intermediate_params();
    looped.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = Maker { root: maker.intermediate.clone(), ..Maker::new(100) };
    // Issued by itself under its own name, eight times over.
    let same = own.root_with(looped);
    let mut chain = vec![maker.certify_with(&chip, Maker::leaf_params())];
    chain.extend(std::iter::repeat_n(same, 7));
    let manufacturers = Manufacturers::new(&[maker.root_certificate()], &[]).unwrap();
    assert_eq!(judge(&manufacturers, &chip, &chain, NOW).unwrap_err().code, Code::EkChain);
}

#[test]
fn a_bundle_names_what_is_wrong_with_it() {
    let (maker, chip) = (Maker::new(100), Chip::new(10));
    let leaf = maker.certify(&chip).remove(0);
    let error = Manufacturers::new(&[maker.root_certificate(), leaf], &[]).unwrap_err();
    assert_eq!((error.list, error.number), ("roots", 2));
    let error = Manufacturers::new(&[], &[b"junk".to_vec()]).unwrap_err();
    assert_eq!((error.list, error.number), ("intermediates", 1));
}

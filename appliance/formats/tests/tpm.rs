//! The TPM verifier against hand-made structures: every rule that evidence of an honest TPM never breaks.
//!
//! Evidence of a real TPM, altered byte by byte, is in the tests of `bulla-keys`.
#![allow(clippy::unwrap_used)] // a panic in a test is its report, in helper functions too

use bulla_formats::hash::sha256;
use bulla_formats::tpm::{
    Attest, Attested, NvPublic, PublicKey, TpmError, TpmtPublic, TpmtSignature, check_ak_template,
    check_signing_key_template, pcr_digest, verify_certify, verify_nv_certify, verify_quote,
};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use proptest::prelude::*;

const DATA: [u8; 32] = [7; 32];
/// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign.
const AK: u32 = 0x0005_0472;
const RESTRICTED: u32 = 1 << 16;

fn key() -> SigningKey {
    SigningKey::from_slice(&[0x42; 32]).unwrap()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes(), bytes].concat()
}

/// TPMT_PUBLIC of an ECC P-256 key: what comes before, and including, the curve is given.
fn public_with(attributes: u32, scheme: &[u8]) -> Vec<u8> {
    let point = key().verifying_key().to_sec1_point(false);
    let point = point.as_bytes();
    [
        &[0x00, 0x23, 0x00, 0x0b][..],
        &attributes.to_be_bytes(),
        &[0, 0],       // no policy
        &[0x00, 0x10], // no symmetric cipher
        scheme,
        &[0x00, 0x03, 0x00, 0x10], // P-256, no KDF
        &sized(&point[1..33]),
        &sized(&point[33..]),
    ]
    .concat()
}

fn public(attributes: u32) -> TpmtPublic {
    TpmtPublic::parse(&public_with(attributes, &[0x00, 0x18, 0x00, 0x0b])).unwrap()
}

fn name(byte: u8) -> Vec<u8> {
    [&[0x00, 0x0b][..], &[byte; 32]].concat()
}

/// TPMS_ATTEST with this type and attested part.
fn attest(kind: u16, attested: &[u8]) -> Vec<u8> {
    [
        &[0xff, 0x54, 0x43, 0x47][..],
        &kind.to_be_bytes(),
        &sized(&name(1)),
        &sized(&DATA),
        &1234_u64.to_be_bytes(),
        &5_u32.to_be_bytes(),
        &6_u32.to_be_bytes(),
        &[1],
        &0x99_u64.to_be_bytes(),
        attested,
    ]
    .concat()
}

fn quote(selection: &[u8], digest: &[u8]) -> Vec<u8> {
    attest(0x8018, &[selection, &sized(digest)].concat())
}

/// One bank of SHA-256, PCR 0, 7 and 23.
const SELECTION: &[u8] = &[0, 0, 0, 1, 0x00, 0x0b, 3, 0x81, 0, 0x80];

fn sign(bytes: &[u8]) -> Vec<u8> {
    let signature: Signature = key().sign(bytes);
    let (r, s) = signature.split_bytes();
    [&[0x00, 0x18, 0x00, 0x0b][..], &sized(&r), &sized(&s)].concat()
}

fn refusal(attest: &[u8]) -> TpmError {
    verify_quote(&public(AK), attest, &sign(attest), &DATA).unwrap_err()
}

#[test]
fn g8_a_quote_gives_its_facts() {
    let values = [(0, [1; 32]), (7, [2; 32]), (23, [3; 32])];
    let attest = quote(SELECTION, pcr_digest(&values).as_bytes());
    let facts = verify_quote(&public(AK), &attest, &sign(&attest), &DATA).unwrap();
    assert_eq!((facts.clock, facts.reset_count, facts.restart_count), (1234, 5, 6));
    assert_eq!((facts.safe, facts.firmware), (true, 0x99));
    assert_eq!(facts.pcr_selection, [0, 7, 23]);
    facts.check_pcrs(&values).unwrap();
    assert_eq!(pcr_digest(&values), sha256(&[&[1; 32], &[2; 32], &[3; 32]]));
    for wrong in [&values[..2], &[values[1], values[0], values[2]], &[]] {
        assert_eq!(facts.check_pcrs(wrong), Err(TpmError::Mismatch { field: "quote.pcrSelect" }));
    }
}

#[test]
fn g8_only_a_restricted_signing_key_that_never_left_its_tpm_attests() {
    check_ak_template(&public(AK)).unwrap();
    let attest = quote(SELECTION, &[0; 32]);
    // Each of these bits, the other way round, is a key that could have been made to sign this by other means.
    for bit in [1, 2, 4, 5, 10, 16, 17, 18, 19] {
        let other = public(AK ^ 1 << bit);
        assert!(matches!(check_ak_template(&other), Err(TpmError::Template { .. })), "bit {bit}");
        assert!(matches!(
            verify_quote(&other, &attest, &sign(&attest), &DATA),
            Err(TpmError::Template { .. })
        ));
        let service = public(AK ^ RESTRICTED ^ 1 << bit);
        assert!(matches!(check_signing_key_template(&service), Err(TpmError::Template { .. })), "bit {bit}");
    }
    check_signing_key_template(&public(AK ^ RESTRICTED)).unwrap();
    for bit in [0, 3, 12, 15, 20, 31] {
        let raw = public_with(AK | 1 << bit, &[0x00, 0x18, 0x00, 0x0b]);
        assert!(matches!(TpmtPublic::parse(&raw), Err(TpmError::Value { field: "objectAttributes", .. })));
    }
    for scheme in [&[0x00, 0x10][..], &[0x00, 0x18, 0x00, 0x0c]] {
        let other = TpmtPublic::parse(&public_with(AK, scheme)).unwrap();
        assert!(matches!(check_ak_template(&other), Err(TpmError::Template { field: "scheme", .. })));
    }
}

#[test]
fn g8_signed_bytes_the_tpm_did_not_make_are_refused() {
    let honest = quote(SELECTION, &[0; 32]);
    let mut other_magic = honest.clone();
    other_magic[0] = 0xfe;
    assert!(matches!(refusal(&other_magic), TpmError::Value { field: "magic", .. }));
    let mut unsafe_flag = honest.clone();
    unsafe_flag[4 + 2 + 36 + 34 + 16] = 2;
    assert!(matches!(refusal(&unsafe_flag), TpmError::Value { field: "clockInfo.safe", .. }));
    assert!(matches!(refusal(&attest(0x8016, &[])), TpmError::Value { field: "type", .. }));
    let longer = [&honest[..], &[0]].concat();
    assert_eq!(refusal(&longer), TpmError::Trailing { field: "TPMS_ATTEST", bytes: 1 });
    for len in 0..honest.len() {
        assert!(!matches!(refusal(&honest[..len]), TpmError::Signature), "signed, but cut at {len}");
    }
}

#[test]
fn g8_quotes_over_other_banks_or_nothing_are_refused() {
    let cases: [(&[u8], &str); 6] = [
        (&[0, 0, 0, 0], "quote.pcrSelect.count"),
        (&[0, 0, 0, 2, 0x00, 0x0b, 3, 1, 0, 0, 0x00, 0x04, 3, 1, 0, 0], "quote.pcrSelect.count"),
        (&[0, 0, 0, 1, 0x00, 0x04, 3, 1, 0, 0], "quote.pcrSelect.hash"),
        (&[0, 0, 0, 1, 0x00, 0x0b, 3, 0, 0, 0], "quote.pcrSelect.pcrSelect"),
        (&[0, 0, 0, 1, 0x00, 0x0b, 2, 1, 0], "quote.pcrSelect.sizeofSelect"),
        (&[0, 0, 0, 1, 0x00, 0x0b, 4, 1, 0, 0, 0], "quote.pcrSelect.sizeofSelect"),
    ];
    for (selection, expected) in cases {
        let (TpmError::Value { field, .. } | TpmError::Size { field, .. }) =
            refusal(&quote(selection, &[0; 32]))
        else {
            panic!("{expected}")
        };
        assert_eq!(field, expected);
    }
    for len in [0, 20, 31, 33, 48] {
        let error = refusal(&quote(SELECTION, &vec![0; len]));
        assert!(matches!(error, TpmError::Size { field: "quote.pcrDigest", .. }));
    }
}

#[test]
fn g8_certificates_name_the_key_and_the_counter() {
    let ak = public(AK);
    let certify = attest(0x8017, &[sized(&name(2)), sized(&name(3))].concat());
    let facts = verify_certify(&ak, &certify, &sign(&certify), &DATA, &name(2)).unwrap();
    assert_eq!((facts.name, facts.qualified_name), (name(2), name(3)));
    assert_eq!(
        verify_certify(&ak, &certify, &sign(&certify), &DATA, &name(3)),
        Err(TpmError::Mismatch { field: "certify.name" })
    );
    let nv = |offset: u16, contents: &[u8]| {
        let attest =
            attest(0x8014, &[sized(&name(4)), offset.to_be_bytes().to_vec(), sized(contents)].concat());
        verify_nv_certify(&ak, &attest, &sign(&attest), &DATA)
    };
    let facts = nv(0, &0x0102_0304_0506_0708_u64.to_be_bytes()).unwrap();
    assert_eq!((facts.counter, facts.index_name), (0x0102_0304_0506_0708, name(4)));
    assert!(matches!(nv(1, &[0; 8]), Err(TpmError::Value { field: "nv.offset", .. })));
    for len in [0, 7, 9, 1025] {
        let error = nv(0, &vec![0; len]).unwrap_err();
        assert!(matches!(error, TpmError::Size { field: "nv.nvContents", .. }));
    }
    let time = attest(0x8019, &[&[0; 8][..], &[0; 16], &[0], &[0; 8]].concat());
    assert!(matches!(Attest::parse(&time).unwrap().attested, Attested::Time { .. }));
    assert_eq!(refusal(&time), TpmError::WrongType { expected: "quote", found: "time" });
}

#[test]
fn g2_only_a_written_counter_that_survives_power_cuts_counts() {
    let nv = |attributes: u32, size: u16| {
        let raw = [
            &[0x01, 0x84, 0x55, 0x03, 0x00, 0x0b][..],
            &attributes.to_be_bytes(),
            &[0, 0],
            &size.to_be_bytes(),
        ]
        .concat();
        NvPublic::parse(&raw).unwrap().check_counter()
    };
    const COUNTER: u32 = 1 << 4 | 1 << 29;
    nv(COUNTER, 8).unwrap();
    for (attributes, size) in
        [(1 << 29, 8), (2 << 4 | 1 << 29, 8), (1 << 4, 8), (COUNTER | 1 << 26, 8), (COUNTER, 16)]
    {
        assert!(matches!(nv(attributes, size), Err(TpmError::Template { .. })), "{attributes:#x} {size}");
    }
}

#[test]
fn g8_signatures_of_other_kinds_and_lengths_are_refused() {
    let parse =
        |head: &[u8], r: &[u8], s: &[u8]| TpmtSignature::parse(&[head, &sized(r), &sized(s)].concat());
    const ECDSA: &[u8] = &[0x00, 0x18, 0x00, 0x0b];
    let short = parse(ECDSA, &[5], &[6, 7]).unwrap();
    assert_eq!((short.r[31], short.s[30], short.s[31]), (5, 6, 7));
    assert_eq!(short.to_bytes()[..31], [0; 31]);
    for (head, r, s) in [
        (&[0x00, 0x14, 0x00, 0x0b][..], &[1; 32][..], &[1; 32][..]),
        (&[0x00, 0x18, 0x00, 0x04], &[1; 32], &[1; 32]),
        (ECDSA, &[], &[1; 32]),
        (ECDSA, &[1; 32], &[]),
        (ECDSA, &[1; 33], &[1; 32]),
        (ECDSA, &[1; 32], &[1; 33]),
    ] {
        assert!(parse(head, r, s).is_err());
    }
    // Zero and numbers not below the group order are no signature of anything.
    let attest = quote(SELECTION, &[0; 32]);
    for number in [[0; 32], [0xff; 32]] {
        let signature = [ECDSA, &sized(&number), &sized(&[1; 32])].concat();
        assert_eq!(verify_quote(&public(AK), &attest, &signature, &DATA), Err(TpmError::Signature));
    }
}

#[test]
fn a_point_off_the_curve_is_no_key() {
    let mut raw = public_with(AK, &[0x00, 0x18, 0x00, 0x0b]);
    *raw.last_mut().unwrap() ^= 1;
    let public = TpmtPublic::parse(&raw).unwrap();
    assert_eq!(public.p256_point(), Err(TpmError::Point { field: "unique" }));
    assert!(check_ak_template(&public).is_err());
}

#[test]
fn rsa_keys_are_read_and_encoded() {
    let modulus = [0x9c; 256];
    // The template of an RSA endorsement key: a storage key with a policy.
    let raw = [
        &[0x00, 0x01, 0x00, 0x0b, 0x00, 0x03, 0x00, 0xb2][..],
        &sized(&[1; 32]),
        &[0x00, 0x06, 0x00, 0x80, 0x00, 0x43, 0x00, 0x10, 0x08, 0x00, 0, 0, 0, 0],
        &sized(&modulus),
    ]
    .concat();
    let public = TpmtPublic::parse(&raw).unwrap();
    assert_eq!(public.key, PublicKey::Rsa { modulus: modulus.to_vec(), exponent: 65_537 });
    let spki = public.spki_der();
    // 30 82 0122, AlgorithmIdentifier, 03 82 010f 00, 30 82 010a, 02 82 0101 00 modulus, 02 03 010001
    assert_eq!(spki.len(), 294);
    assert_eq!(spki[..4], [0x30, 0x82, 0x01, 0x22]);
    assert_eq!(spki[33..289], modulus);
    assert_eq!(spki[289..], [0x02, 0x03, 0x01, 0x00, 0x01]);
    for len in 0..raw.len() {
        assert!(TpmtPublic::parse(&raw[..len]).is_err());
    }
}

#[test]
fn names_and_encodings_follow_from_the_parsed_bytes() {
    let public = public(AK);
    assert_eq!(public.name(), [&[0x00, 0x0b], sha256(&[public.as_bytes()]).as_bytes().as_slice()].concat());
    let spki = public.spki_der();
    assert_eq!(spki.len(), 91);
    assert_eq!(spki[26..], public.p256_point().unwrap());
}

proptest! {
    /// Whatever parses was read to its last byte, and nothing makes a parser panic.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), tail in 1_usize..4) {
        let longer = [&bytes[..], &vec![0; tail]].concat();
        if TpmtPublic::parse(&bytes).is_ok() { prop_assert!(TpmtPublic::parse(&longer).is_err()); }
        if TpmtSignature::parse(&bytes).is_ok() { prop_assert!(TpmtSignature::parse(&longer).is_err()); }
        if Attest::parse(&bytes).is_ok() { prop_assert!(Attest::parse(&longer).is_err()); }
        if NvPublic::parse(&bytes).is_ok() { prop_assert!(NvPublic::parse(&longer).is_err()); }
    }

    /// A real structure with any few bytes changed: an error or another structure, never a panic.
    #[test]
    fn damaged_structures_never_panic(at in 0_usize..200, with in any::<u8>(), cut in 0_usize..200) {
        for original in [quote(SELECTION, &[0; 32]), public(AK).as_bytes().to_vec(), sign(b"x")] {
            let mut bytes = original.clone();
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(bytes.len() - cut % bytes.len());
            let _ = (TpmtPublic::parse(&bytes), TpmtSignature::parse(&bytes), Attest::parse(&bytes));
        }
    }
}

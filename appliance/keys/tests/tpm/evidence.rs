//! Altered, cut and misused evidence from a real TPM is refused by the verifier.

use crate::Setup;
use bulla_formats::tpm::{
    Attest, NvPublic, TpmError, TpmtPublic, TpmtSignature, check_ak_template, verify_certify,
    verify_nv_certify, verify_quote,
};
use bulla_keys::Role;

const DATA: [u8; 32] = [0x3c; 32];

/// TPMS_ATTEST and TPMT_SIGNATURE.
type Signed = (Vec<u8>, Vec<u8>);

/// Evidence of every kind.
struct Evidence {
    ak: TpmtPublic,
    quote: Signed,
    certify: Signed,
    nv: Signed,
    nv_public: Vec<u8>,
    key: Vec<u8>,
}

impl Evidence {
    fn collect() -> Self {
        let setup = Setup::new();
        let device = setup.service.description();
        let quote = setup.service.quote(DATA, &[0, 7, 23]).unwrap();
        let counter = setup.service.counter_certify(DATA).unwrap();
        let certification = device.key(Role::Sealing).certification.clone().unwrap();
        Self {
            ak: TpmtPublic::parse(&device.attestation_public).unwrap(),
            quote: (quote.attest, quote.signature),
            certify: (certification.attest, certification.signature),
            nv: (counter.attest, counter.signature),
            nv_public: counter.nv_public,
            key: certification.tpmt_public,
        }
    }

    fn key_name(&self) -> Vec<u8> {
        TpmtPublic::parse(&self.key).unwrap().name()
    }

    fn verify_quote(&self, attest: &[u8], signature: &[u8]) -> Result<(), TpmError> {
        verify_quote(&self.ak, attest, signature, &DATA).map(drop)
    }

    fn verify_certify(&self, attest: &[u8], signature: &[u8]) -> Result<(), TpmError> {
        let qualifying = Role::Sealing.certification_qualifying();
        verify_certify(&self.ak, attest, signature, &qualifying, &self.key_name()).map(drop)
    }

    fn verify_nv(&self, attest: &[u8], signature: &[u8]) -> Result<(), TpmError> {
        verify_nv_certify(&self.ak, attest, signature, &DATA).map(drop)
    }
}

type Verify = fn(&Evidence, &[u8], &[u8]) -> Result<(), TpmError>;

#[test]
fn g8_no_byte_of_an_attestation_or_its_signature_can_change() {
    let evidence = Evidence::collect();
    let kinds: [(&Signed, Verify); 3] = [
        (&evidence.quote, Evidence::verify_quote),
        (&evidence.certify, Evidence::verify_certify),
        (&evidence.nv, Evidence::verify_nv),
    ];
    for ((attest, signature), verify) in kinds {
        verify(&evidence, attest, signature).unwrap();
        for bits in [0x01, 0x80, 0xff] {
            for at in 0..attest.len() {
                let mut altered = attest.clone();
                altered[at] ^= bits;
                assert!(verify(&evidence, &altered, signature).is_err(), "attest byte {at}");
            }
            for at in 0..signature.len() {
                let mut altered = signature.clone();
                altered[at] ^= bits;
                assert!(verify(&evidence, attest, &altered).is_err(), "signature byte {at}");
            }
        }
        for len in 0..attest.len() {
            assert!(Attest::parse(&attest[..len]).is_err(), "attest cut at {len}");
            assert!(verify(&evidence, &attest[..len], signature).is_err());
        }
        for len in 0..signature.len() {
            assert!(TpmtSignature::parse(&signature[..len]).is_err(), "signature cut at {len}");
        }
        for tail in [&[0][..], &[0xff; 16]] {
            assert!(matches!(
                Attest::parse(&[attest, tail].concat()),
                Err(TpmError::Trailing { field: "TPMS_ATTEST", .. })
            ));
            assert!(matches!(
                TpmtSignature::parse(&[signature, tail].concat()),
                Err(TpmError::Trailing { field: "TPMT_SIGNATURE", .. })
            ));
        }
    }
}

#[test]
fn g8_no_byte_of_a_certified_public_area_can_change() {
    let evidence = Evidence::collect();
    let qualifying = Role::Sealing.certification_qualifying();
    let (attest, signature) = &evidence.certify;
    for bits in [0x01, 0x80, 0xff] {
        for at in 0..evidence.key.len() {
            let mut altered = evidence.key.clone();
            altered[at] ^= bits;
            let verdict = TpmtPublic::parse(&altered).and_then(|public| {
                verify_certify(&evidence.ak, attest, signature, &qualifying, &public.name())
            });
            assert!(verdict.is_err(), "public byte {at}");
        }
        for at in 0..evidence.nv_public.len() {
            let mut altered = evidence.nv_public.clone();
            altered[at] ^= bits;
            let facts = verify_nv_certify(&evidence.ak, &evidence.nv.0, &evidence.nv.1, &DATA).unwrap();
            let same = NvPublic::parse(&altered).is_ok_and(|public| public.name() == facts.index_name);
            assert!(!same, "NV public byte {at}");
        }
    }
    for len in 0..evidence.key.len() {
        assert!(TpmtPublic::parse(&evidence.key[..len]).is_err(), "public cut at {len}");
    }
    for len in 0..evidence.nv_public.len() {
        assert!(NvPublic::parse(&evidence.nv_public[..len]).is_err(), "NV public cut at {len}");
    }
    assert!(TpmtPublic::parse(&[&evidence.key[..], &[0]].concat()).is_err());
    assert!(NvPublic::parse(&[&evidence.nv_public[..], &[0]].concat()).is_err());
}

#[test]
fn g8_evidence_of_one_kind_is_not_evidence_of_another() {
    let evidence = Evidence::collect();
    let wrong = |result: Result<(), TpmError>| matches!(result, Err(TpmError::WrongType { .. }));
    let (quote, nv) = (&evidence.quote, &evidence.nv);
    assert!(wrong(evidence.verify_quote(&nv.0, &nv.1)));
    assert!(wrong(evidence.verify_nv(&quote.0, &quote.1)));
    let crossed = verify_certify(&evidence.ak, &quote.0, &quote.1, &DATA, &evidence.key_name());
    assert!(wrong(crossed.map(drop)));
    assert!(matches!(evidence.verify_quote(&quote.0, &nv.1), Err(TpmError::Signature)));
    assert!(matches!(
        verify_quote(&evidence.ak, &quote.0, &quote.1, &[0; 32]),
        Err(TpmError::Mismatch { field: "extraData" })
    ));
}

#[test]
fn g8_a_key_that_signs_anything_cannot_attest() {
    let setup = Setup::new();
    let device = setup.service.description();
    let certification = device.key(Role::Sealing).certification.clone().unwrap();
    let service_key = TpmtPublic::parse(&certification.tpmt_public).unwrap();
    assert!(matches!(
        check_ak_template(&service_key),
        Err(TpmError::Template { field: "objectAttributes.restricted", .. })
    ));
    // Have the unrestricted key sign a perfect attestation: well-formed, genuine bytes, right qualifying data.
    let quote = setup.service.quote(DATA, &[0]).unwrap();
    let digest = bulla_formats::hash::sha256(&[&quote.attest]).0;
    let raw = setup.service.sign(Role::Sealing, digest).unwrap();
    let forged = [&[0x00, 0x18, 0x00, 0x0b, 0x00, 0x20], &raw[..32], &[0x00, 0x20], &raw[32..]].concat();
    assert!(matches!(
        verify_quote(&service_key, &quote.attest, &forged, &DATA),
        Err(TpmError::Template { .. })
    ));
    let ak = TpmtPublic::parse(&device.attestation_public).unwrap();
    assert!(matches!(verify_quote(&ak, &quote.attest, &forged, &DATA), Err(TpmError::Signature)));
}

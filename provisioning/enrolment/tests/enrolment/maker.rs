//! A manufacturer of chips: a root, an intermediate CA, and endorsement certificates. Signatures are deterministic, so that
//! the same source makes the same bytes.

use crate::chip::{Chip, EkSecret, key};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PublicKeyData,
    SerialNumber, SignatureAlgorithm,
};
use std::time::{Duration, UNIX_EPOCH};

/// When everything in these tests happens.
pub const NOW: u64 = 1_790_000_000_000;
const YEAR: u64 = 365 * 24 * 3_600 * 1_000;
pub const EK_CERTIFICATE: [u64; 5] = [2, 23, 133, 8, 1];

struct Known(SigningKey, Vec<u8>);

impl Known {
    fn new(key: &SigningKey) -> Self {
        Known(key.clone(), key.verifying_key().to_sec1_bytes().to_vec())
    }
}

impl PublicKeyData for Known {
    fn der_bytes(&self) -> &[u8] {
        &self.1
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for Known {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature: Signature = self.0.sign(message);
        Ok(signature.to_der().as_bytes().to_vec())
    }
}

struct Point(Vec<u8>, &'static SignatureAlgorithm);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.1
    }
}

pub struct Maker {
    pub root: SigningKey,
    pub intermediate: SigningKey,
    pub name: String,
}

pub fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(SerialNumber::from_slice(&[0x11, common_name.len() as u8]));
    valid(&mut params, NOW - YEAR, NOW + 10 * YEAR);
    params
}

pub fn valid(params: &mut CertificateParams, from: u64, to: u64) {
    params.not_before = (UNIX_EPOCH + Duration::from_millis(from)).into();
    params.not_after = (UNIX_EPOCH + Duration::from_millis(to)).into();
}

impl Maker {
    pub fn new(seed: u8) -> Self {
        Maker { root: key(seed), intermediate: key(seed + 1), name: format!("Chip Works {seed}") }
    }

    pub fn root_params(&self) -> CertificateParams {
        let mut params = params(&format!("{} root", self.name));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    pub fn intermediate_params(&self) -> CertificateParams {
        let mut params = params(&format!("{} CA", self.name));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    /// The intermediate's public key, to be certified.
    pub fn intermediate_key(&self) -> impl PublicKeyData {
        Known::new(&self.intermediate)
    }

    pub fn root_certificate(&self) -> Vec<u8> {
        self.root_with(self.root_params())
    }

    pub fn root_with(&self, params: CertificateParams) -> Vec<u8> {
        params.self_signed(&Known::new(&self.root)).unwrap().der().to_vec()
    }

    pub fn intermediate_with(&self, params: CertificateParams) -> Vec<u8> {
        let issuer = Issuer::new(self.root_params(), Known::new(&self.root));
        params.signed_by(&Known::new(&self.intermediate), &issuer).unwrap().der().to_vec()
    }

    pub fn intermediate_certificate(&self) -> Vec<u8> {
        self.intermediate_with(self.intermediate_params())
    }

    /// An endorsement certificate as manufacturers make them.
    pub fn leaf_params() -> CertificateParams {
        let mut leaf = params("");
        leaf.distinguished_name = DistinguishedName::new();
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::KeyAgreement];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(EK_CERTIFICATE.to_vec())];
        let mut name = CustomExtension::from_oid_content(&[2, 5, 29, 17], alternative_name());
        name.set_criticality(true);
        leaf.custom_extensions = vec![name];
        leaf
    }

    pub fn certify_with(&self, chip: &Chip, leaf: CertificateParams) -> Vec<u8> {
        let algorithm: &SignatureAlgorithm = if matches!(chip.ek, EkSecret::P256(_)) {
            &PKCS_ECDSA_P256_SHA256
        } else {
            &PKCS_ECDSA_P384_SHA384
        };
        let issuer = Issuer::new(self.intermediate_params(), Known::new(&self.intermediate));
        leaf.signed_by(&Point(chip.ek_point(), algorithm), &issuer).unwrap().der().to_vec()
    }

    /// Leaf and intermediate, as a chip carries them.
    pub fn certify(&self, chip: &Chip) -> Vec<Vec<u8>> {
        vec![self.certify_with(chip, Self::leaf_params()), self.intermediate_certificate()]
    }
}

/// GeneralNames with one directory name: manufacturer, model and version.
fn alternative_name() -> Vec<u8> {
    fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()][..], content].concat()
    }
    let attribute = |last: u8, text: &str| {
        let oid = tlv(0x06, &[0x67, 0x81, 0x05, 0x02, last]);
        tlv(0x31, &tlv(0x30, &[oid, tlv(0x0c, text.as_bytes())].concat()))
    };
    let names = [attribute(1, "id:43485053"), attribute(2, "C-1"), attribute(3, "id:00010002")].concat();
    tlv(0x30, &tlv(0xa4, &tlv(0x30, &names)))
}

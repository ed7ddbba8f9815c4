//! Certificates of the keys that sign RFC 3161 tokens: one for each key epoch, issued by the box's own CA.
//!
//! Refuses to do: let such a key do anything but stamp (the extended key usage is critical and alone, RFC 3161, 2.3).
//! Invariant: a certificate is valid exactly as long as its CA's. Its key is gone with its epoch, so nothing is gained by
//! letting tokens expire earlier; and no clock, which may be wrong, decides when it begins.

use super::authority::{Authority, AuthorityError, IssuingKey, issuer_params};
use crate::config::Config;
use bulla_keys::KeyService;
use bulla_timestamps::responder::{Certificate, TIME_STAMPING_PURPOSE};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm,
};
use std::time::Duration;

/// 2.5.29.37, extKeyUsage.
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];

/// Issues them.
pub struct Certifier {
    authority: Authority,
    ca: Certificate,
}

/// A public key to be certified.
struct Point([u8; 65]);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Certifier {
    /// With the CA of this box.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn open(keys: &KeyService, config: &Config) -> Result<Self, AuthorityError> {
        let authority = Authority::open(keys, config)?;
        let ca = Certificate::read(&authority.der).ok_or_else(|| AuthorityError::OtherCa {
            path: config.state_dir.join("ca.pem"),
            reason: "it is no X.509 certificate of version 3".to_owned(),
        })?;
        Ok(Certifier { authority, ca })
    }

    /// The certificate of the interop key of an epoch of the log `origin`. Blocks while the TPM signs.
    ///
    /// # Errors
    /// The TPM's, above all.
    pub fn certify(&self, public: [u8; 65], origin: &str, epoch: u64) -> Result<Certificate, AuthorityError> {
        let signer = IssuingKey::new(&self.authority.keys);
        let issuer_params = issuer_params(&self.authority.fleet, &signer);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, &self.authority.fleet);
        // A common name has at most 64 characters, and an origin may have 255.
        let log = bulla_formats::hash::sha256(&[origin.as_bytes()]).to_string();
        let name = format!("Bulla time stamps {} epoch {epoch}", &log[..16]);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let mut purpose =
            CustomExtension::from_oid_content(EXTENDED_KEY_USAGE, TIME_STAMPING_PURPOSE.to_vec());
        purpose.set_criticality(true);
        params.custom_extensions = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let (first, last) = self.ca.validity();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(first);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(last);
        let issuer = Issuer::from_params(&issuer_params, &signer);
        let issued = params.signed_by(&Point(public), &issuer).map_err(|error| signer.explain(error))?;
        Certificate::read(issued.der()).ok_or_else(|| {
            AuthorityError::Key("what it signed is no certificate that a responder can use".to_owned())
        })
    }
}

//! Client certificates: who a person is by one, where `serve.client_ca` names the CAs that vouch for people.
//!
//! Nobody has to show one: boxes that submit checkpoints or dial the hub have none. Whoever shows one shows a good one: a
//! certificate of another CA, an expired one, or one that is not for clients ends the handshake.
//! Refuses to do: choose among several common names; read a name out of a certificate that was not verified just before.
//! Invariant: a certificate is verified at each connection, at the time of it, resumed sessions included.

use crate::exit::Failure;
use bulla_formats::hash::{Hash, sha256};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConnection};
use std::path::Path;
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode as _, Tag, Tagged as _};

/// commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a client has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The only common name of its certificate.
    pub name: String,
    /// SHA-256 of the certificate's DER.
    pub sha256: Hash,
}

/// What verifies certificates of people.
pub fn verifier(path: &Path, provider: Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, Failure> {
    let wrong = |reason: &dyn std::fmt::Display| {
        let path = path.display();
        Failure::usage(format!(
            "serve.client_ca: {path} cannot be used ({reason}); it holds CA certificates as PEM"
        ))
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let built: Arc<dyn ClientCertVerifier> =
        built.allow_unauthenticated().build().map_err(|error| wrong(&error))?;
    Ok(built)
}

/// Who is at the other end: `None` without a certificate, or with one that has no single common name.
///
/// # Errors
/// The certificate is no longer good: a session that began while it was has been resumed.
pub fn shown(
    connection: &ServerConnection,
    verifier: Option<&Arc<dyn ClientCertVerifier>>,
) -> Result<Option<Shown>, rustls::Error> {
    let (Some(verifier), Some([own, rest @ ..])) = (verifier, connection.peer_certificates()) else {
        return Ok(None);
    };
    verifier.verify_client_cert(own, rest, UnixTime::now())?;
    Ok(common_name(own).map(|name| Shown { name, sha256: sha256(&[own]) }))
}

/// The only common name of a certificate's subject.
fn common_name(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let subject = certificate.tbs_certificate().subject();
    let mut names = subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
    let (name, None) = (names.next()?, names.next()) else { return None };
    let text = matches!(name.value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    let name = text.then(|| std::str::from_utf8(name.value.value()).ok()).flatten()?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    fn certificate(names: &[(DnType, DnValue)]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), value.clone());
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn the_only_common_name_counts_and_of_several_none() {
        let anna = || (DnType::CommonName, DnValue::from("anna"));
        // The same attribute by another way to say it.
        let otto = (DnType::CustomDnType(vec![2, 5, 4, 3]), DnValue::from("otto"));
        let bank = || (DnType::OrganizationName, DnValue::from("bank"));
        let one = certificate(&[bank(), anna(), (DnType::CountryName, DnValue::from("AT"))]);
        assert_eq!(common_name(&one).as_deref(), Some("anna"));
        assert_eq!(common_name(&certificate(&[anna(), otto])), None);
        assert_eq!(common_name(&certificate(&[bank()])), None);
        assert_eq!(common_name(&certificate(&[])), None);
        for length in 0..one.len() {
            assert_eq!(common_name(&one[..length]), None, "cut after {length} bytes");
        }
        for text in [
            DnValue::BmpString("anna".try_into().unwrap()),
            DnValue::TeletexString("anna".try_into().unwrap()),
            DnValue::UniversalString("anna".try_into().unwrap()),
        ] {
            assert_eq!(common_name(&certificate(&[(DnType::CommonName, text)])), None);
        }
    }
}

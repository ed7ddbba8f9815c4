//! Client certificates: of registered clients, by the CAs of `tls.client_ca`, and of the fleet's hubs, by the roster's pins.
//!
//! Refuses to do: take the name in a certificate for anything unless `tls.client_ca` vouches for it: a hub's certificate may
//! be made by the hub itself, and is known by its key alone.
//! Invariant: where there is no `tls.client_ca`, a certificate that is no hub's changes nothing: who shows one is let in as
//! without it, and is asked for a token like everybody.

use crate::peers::Hubs;
use bulla_formats::hash::sha256;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;

/// DER of the name `CN=bulla hub`: a browser that has no certificate of such a CA asks its user nothing.
const HINT: [u8; 22] = *b"\x30\x14\x31\x12\x30\x10\x06\x03\x55\x04\x03\x0c\x09bulla hub";

/// SHA-256 of the SubjectPublicKeyInfo of a certificate.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    Some(sha256(&[&parsed.subject_public_key_info()]).0)
}

/// Who may show a certificate.
#[derive(Debug)]
pub struct Clients {
    hubs: Hubs,
    /// The CAs of `tls.client_ca`.
    registered: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
    hint: Vec<DistinguishedName>,
}

impl Clients {
    /// Hubs, and clients that these CAs vouch for.
    pub fn new(
        hubs: Hubs,
        registered: Option<Arc<dyn ClientCertVerifier>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        let mut hint = registered.as_ref().map_or_else(Vec::new, |of| of.root_hint_subjects().to_vec());
        hint.push(DistinguishedName::from(HINT.to_vec()));
        Clients { hubs, registered, provider, hint }
    }

    /// Whether `tls.client_ca` vouches for this chain, so that its name counts.
    pub fn vouched(&self, chain: &[CertificateDer<'static>]) -> bool {
        let (Some(registered), Some((own, rest))) = (&self.registered, chain.split_first()) else {
            return false;
        };
        registered.verify_client_cert(own, rest, UnixTime::now()).is_ok()
    }

    fn is_hub(&self, certificate: &CertificateDer<'_>) -> bool {
        spki_sha256(certificate).is_some_and(|pin| self.hubs.by_client(&pin).is_some())
    }
}

impl ClientCertVerifier for Clients {
    fn offer_client_auth(&self) -> bool {
        self.registered.is_some() || self.hubs.come()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hint
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match &self.registered {
            Some(registered) if !self.is_hub(certificate) => {
                registered.verify_client_cert(certificate, intermediates, now)
            }
            _ => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

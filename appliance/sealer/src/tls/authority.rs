//! The box's own CA: its key is the device's issuing key, its certificate is made once, and it issues the
//! listener's certificate.
//!
//! Refuses to do: serve a certificate that does not verify under `<state>/ca.pem`, the file clients trust.
//! Invariants: issuer name and key identifier follow from the issuing key alone, so that a CA certificate
//! made again after a loss still verifies what was issued before; private TLS keys never touch the disk.

use crate::config::Config;
use bulla_formats::hash::sha256;
use bulla_keys::{KeyService, Role};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey,
};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{CertificateError, RootCertStore};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Days the CA certificate is valid: longer than the box lives.
const CA_DAYS: u32 = 20 * 365;
/// Days before and after the box's clock that a listener's certificate is valid. A clock that is wrong by a year must
/// not keep scanners out, and 825 days altogether is the most that some clients accept.
const SERVER_DAYS: u32 = 400;

/// Why the CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The issuing key did not sign.
    #[error("the issuing key did not sign ({0}); check the TPM and start again")]
    Key(String),
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The file with the CA certificate.
    #[error("{path}: {source}; check the path and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The CA certificate is not of this box.
    #[error(
        "{path} does not verify this box's certificate ({reason}); it is damaged or belongs to another box: \
         restore it from a copy, or move it away to have it issued again"
    )]
    OtherCa {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        reason: String,
    },
}

/// Issues certificates with the device's issuing key.
pub struct Authority {
    pub(super) keys: KeyService,
    pub(super) fleet: String,
    names: Vec<String>,
    path: PathBuf,
    pem: String,
    pub(super) der: CertificateDer<'static>,
}

/// Makes the CA certificate and saves it as `<state>/ca.pem`. A file that is there already is kept.
pub fn create_ca(keys: &KeyService, config: &Config) -> Result<(), AuthorityError> {
    let path = ca_path(config);
    if path.exists() {
        return Ok(());
    }
    let signer = IssuingKey::new(keys);
    let mut params = issuer_params(&config.identity.fleet, &signer);
    let now = SystemTime::now();
    set_validity(&mut params, now, SERVER_DAYS, CA_DAYS);
    let certificate = params.self_signed(&signer).map_err(|error| signer.explain(error))?;
    save(&path, certificate.pem().as_bytes()).map_err(|source| AuthorityError::Io { path, source })
}

/// Writes the CA certificate to `out`; returns the SHA-256 of its DER, in hex. Needs no key.
pub fn export_ca(config: &Config, out: &Path) -> Result<String, AuthorityError> {
    let (pem, der) = read_ca(&ca_path(config))?;
    fs::write(out, pem).map_err(|source| AuthorityError::Io { path: out.to_owned(), source })?;
    Ok(sha256(&[&der]).to_string())
}

fn read_ca(path: &Path) -> Result<(String, CertificateDer<'static>), AuthorityError> {
    let pem =
        fs::read_to_string(path).map_err(|source| AuthorityError::Io { path: path.to_owned(), source })?;
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| AuthorityError::OtherCa { path: path.to_owned(), reason: error.to_string() })?;
    Ok((pem, der))
}

fn ca_path(config: &Config) -> PathBuf {
    config.state_dir.join("ca.pem")
}

fn save(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("pem.new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

impl Authority {
    /// Reads `<state>/ca.pem`; issues it again, with a warning, when it is gone.
    pub fn open(keys: &KeyService, config: &Config) -> Result<Self, AuthorityError> {
        let path = ca_path(config);
        if !path.exists() {
            log::warn!(
                "{} is missing and is issued again; clients that pin it must fetch it anew",
                path.display()
            );
            create_ca(keys, config)?;
        }
        let (pem, der) = read_ca(&path)?;
        let (fleet, names) = (config.identity.fleet.clone(), config.identity.names.clone());
        Ok(Authority { keys: keys.clone(), fleet, names, path, pem, der })
    }

    /// The CA certificate in PEM.
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA certificate's DER, in hex.
    pub fn ca_fingerprint(&self) -> String {
        sha256(&[&self.der]).to_string()
    }

    /// A new key and its certificate for the names of this box, valid around `now`, which may be a wrong clock's.
    pub fn issue_server(
        &self,
        now: SystemTime,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivatePkcs8KeyDer<'static>), AuthorityError> {
        let signer = IssuingKey::new(&self.keys);
        let issuer_params = issuer_params(&self.fleet, &signer);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(self.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bulla-box");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, now, SERVER_DAYS, SERVER_DAYS);
        let issuer = Issuer::from_params(&issuer_params, &signer);
        let certificate = params.signed_by(&key, &issuer).map_err(|error| signer.explain(error))?;
        let leaf = certificate.der().clone();
        self.verify(&leaf, now)?;
        Ok((vec![leaf, self.der.clone()], PrivatePkcs8KeyDer::from(key.serialize_der())))
    }

    /// What a client with `ca.pem` would do. A clock outside the CA's validity is only warned about: it must not
    /// keep a box from sealing, and a fresh certificate follows once the clock is right.
    fn verify(&self, leaf: &CertificateDer<'_>, now: SystemTime) -> Result<(), AuthorityError> {
        let other = |reason: String| AuthorityError::OtherCa { path: self.path.clone(), reason };
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).map_err(|error| other(error.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| other(error.to_string()))?;
        let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        for name in &self.names {
            let name = ServerName::try_from(name.as_str()).map_err(|error| other(error.to_string()))?;
            match verifier.verify_server_cert(leaf, &[], &name, &[], now) {
                Ok(_) => {}
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidYet
                    | CertificateError::NotValidYetContext { .. }
                    | CertificateError::Expired
                    | CertificateError::ExpiredContext { .. },
                )) => log::warn!(
                    "the clock of this box is outside the validity of its CA certificate; clients will refuse to \
                     connect until it is set"
                ),
                Err(error) => return Err(other(error.to_string())),
            }
        }
        Ok(())
    }
}

/// Parameters of the CA certificate that do not depend on when it is made.
pub(super) fn issuer_params(fleet: &str, key: &IssuingKey<'_>) -> CertificateParams {
    let short = sha256(&[&key.point]).to_string();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, fleet);
    params.distinguished_name.push(DnType::CommonName, format!("Bulla box CA {}", &short[..16]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// Sets the validity: `before` days before `now` and `after` days after it. At least one before, so that a client
/// whose clock is behind accepts it.
fn set_validity(params: &mut CertificateParams, now: SystemTime, before: u32, after: u32) {
    let start = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(DAY * before);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(start.as_secs());
    params.not_after = params.not_before + DAY * (before + after);
}

/// The device's issuing key as rcgen sees it.
pub(super) struct IssuingKey<'a> {
    keys: &'a KeyService,
    point: [u8; 65],
    /// What the key service said; rcgen's error has no room for it.
    refusal: Mutex<Option<String>>,
}

impl<'a> IssuingKey<'a> {
    pub(super) fn new(keys: &'a KeyService) -> Self {
        let point = keys.description().key(Role::Issuing).point;
        IssuingKey { keys, point, refusal: Mutex::new(None) }
    }

    pub(super) fn explain(&self, error: rcgen::Error) -> AuthorityError {
        match self.refusal.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(reason) => AuthorityError::Key(reason),
            None => AuthorityError::Certificate(error),
        }
    }

    fn refuse(&self, reason: String) -> rcgen::Error {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
        rcgen::Error::RemoteKeyError
    }
}

impl PublicKeyData for IssuingKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.point
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for IssuingKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let digest = sha256(&[message]);
        let signature =
            self.keys.sign(Role::Issuing, digest.0).map_err(|error| self.refuse(error.to_string()))?;
        let signature = p256::ecdsa::Signature::from_slice(&signature)
            .map_err(|_| self.refuse("its signature is not a P-256 signature".to_owned()))?;
        Ok(signature.to_der().as_bytes().to_vec())
    }
}
